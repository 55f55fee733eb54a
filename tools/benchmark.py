"""Measures this project beside a peer in one run; `python tools/benchmark.py --help` has the commands.

The benchmark itself is in tools/bench: main.py says what there is to measure, and how to run it on a GPU machine.
"""

import sys

from bench.main import main

sys.exit(main())
