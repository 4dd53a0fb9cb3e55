"""Settings of every test: figures are drawn off screen, and none is left open."""

import gc
import os
import sys

if "PYTEST_XDIST_WORKER" in os.environ:  # each core has a process that tests: it gets one thread
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# tests start many processes: none of them should compile the package again
if sys.platform != "emscripten":
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import pytest
from hypothesis import HealthCheck, settings

from lora_np.cli import output
from tests.drawing import FULL, QUARTER, examples, in_quarter

# No limit is in seconds: that would judge the machine. The same examples in every run of one
# version; new ones where every seed is asked for.
timeless = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("drawn", timeless)
settings.register_profile("fixed", timeless, derandomize=True, max_examples=examples(100))
settings.load_profile("drawn" if FULL else "fixed")

os.environ.setdefault("MPLBACKEND", "Agg")
os.fsync = lambda handle: None  # nothing here need survive a power cut, so no test waits for it
output.SECONDS = 1_000_000  # on a busy machine, no command says how long it has been running


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Files stay together, so that what they make once is made once."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getvalue("dist") == "load" else None


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path, parent):
    """No examples are looked for in the docstrings of tests."""
    return [file for file in (yield) if type(file).__name__ != "DoctestModule"]


def pytest_collection_modifyitems(config, items):
    if QUARTER:
        config.hook.pytest_deselected(items=[item for item in items if not in_quarter(item.nodeid)])
        items[:] = [item for item in items if in_quarter(item.nodeid)]


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What is collected stays to the end: the collector of garbage need not walk through it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
