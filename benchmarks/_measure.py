"""Fair timing: every contender in one process, on one thread, in turn; medians; what is missing is
named.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from time import perf_counter
from types import ModuleType
from typing import Any


def medians(
    contenders: Mapping[str, Callable[[], Any]], *, rounds: int = 9, patience: float = 5.0
) -> tuple[dict[str, float], dict[str, Any]]:
    """Median seconds and last result of each contender, all run once per round, in turn.

    The first run warms up and does not count, unless it is the only one: a contender that has taken
    more than ``patience`` seconds in all is not run again.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    results = {}
    for _ in range(rounds + 1):
        for name, run in contenders.items():
            if sum(seconds[name]) > patience:
                continue
            start = perf_counter()
            results[name] = run()
            seconds[name].append(perf_counter() - start)
    return {name: median(times[1:] or times) for name, times in seconds.items()}, results


def one_thread() -> AbstractContextManager[object]:
    """Limit BLAS and torch to one thread: spinning threads make their neighbours look slow."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        print(
            "threadpoolctl is not installed: set OMP_NUM_THREADS=1 for a fair comparison",
            file=sys.stderr,
        )
        return nullcontext()
    limits: AbstractContextManager[object] = threadpool_limits(1)
    return limits


def peers(*names: str) -> dict[str, ModuleType]:
    """Those of these modules that can be imported; the others are named on stderr."""
    found = {}
    for name in names:
        try:
            found[name] = import_module(name)
        except ImportError:
            print(f"skipped: {name} is not installed", file=sys.stderr)
    return found


def versions(*distributions: str) -> str:
    """Python and these distributions with their versions, for the foot of a table."""
    texts = [f"Python {platform.python_version()}"]
    for name in distributions:
        try:
            texts.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            texts.append(f"no {name}")
    return ", ".join(texts)


def with_threads(number: int) -> dict[str, str]:
    return {**os.environ, "OPENBLAS_NUM_THREADS": f"{number}", "OMP_NUM_THREADS": f"{number}"}
