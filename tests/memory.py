"""How much memory a test takes, whatever its process held before."""

import contextlib
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))

from bench.measure import forget_peak, peak_mb, resident_mb


@contextlib.contextmanager
def at_most(megabytes):
    """Fails if the process holds so much more than now at any time in the block."""
    before = resident_mb() if forget_peak() else peak_mb()
    try:
        yield
    finally:
        assert peak_mb() - before < megabytes
