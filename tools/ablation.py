"""`python tools/ablation.py RECIPE --vary "NAME: KEY=VALUE ..." --out DIR`: a recipe with several settings, a table."""

import sys

from pages.ablation import main

sys.exit(main())
