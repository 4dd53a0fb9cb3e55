"""Settings of every test: figures are drawn off screen, and none is left open."""

import os
import sys

if "PYTEST_XDIST_WORKER" in os.environ:  # each core has a process that tests: it gets one thread
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

from tests.drawing import FULL

# The same examples in every run of one version; new ones where every seed is asked for.
settings.register_profile("fixed", derandomize=True)
if not FULL:
    settings.load_profile("fixed")

os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
