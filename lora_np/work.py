"""Process many items on several threads, with a progress bar."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from lora_np.checks import whole_number

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController
    from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel_map(
    function: Callable[[Item], Result],
    work: Mapping[str, Item],
    *,
    jobs: int,
    progress: bool,
    label: str,
) -> dict[str, Result]:
    """Map each name in ``work`` to ``function(item)``, computed in ``jobs`` threads.

    Within ``joblib.parallel_config``, joblib's backend is used instead of threads.

    Linear algebra in each call uses one thread. With more, the order of summation, and so the last
    bits, would depend on the number of workers.
    """
    import joblib

    jobs = min(whole_number("jobs", jobs), len(work) or 1)
    results = {}
    with progress_bar(len(work), progress, label=label) as bar, one_thread():
        pool = joblib.Parallel(n_jobs=jobs, prefer="threads", return_as="generator")
        calls = (joblib.delayed(_on_one_thread)(function, item) for item in work.values())
        try:
            for name, result in zip(work, pool(calls), strict=True):
                results[name] = result
                bar.update()
        except RuntimeError as error:
            if "start new thread" not in str(error):
                raise
            raise ValueError(f"jobs must be fewer, got {jobs}: {error}") from None
    return results


def _on_one_thread(function: Callable[[Item], Result], item: Item) -> Result:
    with one_thread():  # set the limit in the worker, which may be another process
        return function(item)


def one_thread() -> AbstractContextManager[object]:
    """Limit linear algebra in a ``with`` block to one thread."""
    limits: AbstractContextManager[object] = _libraries().limit(limits=1)
    return limits


@contextmanager
def usual_threads() -> Iterator[None]:
    """Limit linear algebra in a ``with`` block to one thread, unless the user set a number.

    More threads than free cores wait for one another, so that a run may take several times as long.
    """
    chosen = any(name.endswith("_NUM_THREADS") for name in os.environ)
    with nullcontext() if chosen else one_thread():
        yield


@cache
def _libraries() -> ThreadpoolController:
    """Find the loaded BLAS libraries; the result is cached, because the search is slow."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def progress_bar(
    total: int, shown: bool | str, *, label: str, done: int = 0, unit: str = "it", scale: int = 1
) -> tqdm:
    """Return a tqdm bar, disabled unless it is ``shown`` and in a terminal or a notebook.

    If ``shown`` is a string, it replaces ``label``. Each of ``total`` counts as ``scale`` units.
    """
    # also require an IPython shell, because ipywidgets loads ipykernel even outside a notebook
    ipython = sys.modules.get("IPython") if "ipykernel" in sys.modules else None
    notebook = ipython is not None and ipython.get_ipython() is not None
    seen = bool(shown) and (notebook or sys.stderr.isatty())
    if seen and notebook:
        from tqdm.auto import tqdm
    else:
        from tqdm import tqdm  # tqdm.auto would import widgets
    label = shown if isinstance(shown, str) else label
    # An interval of 0 keeps tqdm from starting a monitor thread, because browsers have no threads.
    interval, tqdm.monitor_interval = tqdm.monitor_interval, 0
    try:
        return tqdm(
            total=total, initial=done, desc=label, unit=unit, unit_scale=scale, leave=False,
            disable=not seen,
        )  # fmt: skip
    finally:
        tqdm.monitor_interval = interval


@cache
def keep_pages() -> None:
    """Let the C library keep the memory of freed arrays, so that new ones cause no page faults.

    glibc chooses the same settings after an array of 32 MiB has been freed (mallopt(3)).
    """
    if sys.platform == "linux":
        import ctypes  # imported late, because Pyodide may lack it

        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not every C library has it
        if mallopt is not None:
            mallopt(MMAP_THRESHOLD, 2**25)
            mallopt(TRIM_THRESHOLD, 2**26)


TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # values of these constants in malloc.h
