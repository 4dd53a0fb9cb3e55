"""The same work on many items, on several threads, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from lora_np.checks import whole_number

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    jobs: int,
    progress: bool,
    label: str,
) -> list[Result]:
    """``[function(item) for item in items]`` on ``jobs`` threads, or where ``joblib.parallel_config`` says.

    Each call has one thread for its linear algebra: with more, the order of summation, and so the last bits,
    would depend on the number of workers.
    """
    import joblib
    from threadpoolctl import threadpool_limits
    from tqdm import tqdm

    items = list(items)
    jobs = whole_number("jobs", jobs)
    bar_class = without_monitor(tqdm)
    hidden = None if progress else True
    with threadpool_limits(1), bar_class(total=len(items), desc=label, disable=hidden) as bar:
        results = []
        pool = joblib.Parallel(n_jobs=jobs, prefer="threads", return_as="generator")
        for result in pool(joblib.delayed(_on_one_thread)(function, item) for item in items):
            results.append(result)
            bar.update()
    return results


def _on_one_thread(function: Callable[[Item], Result], item: Item) -> Result:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # in a worker process, too
        return function(item)


def without_monitor(tqdm: Any) -> Any:
    """The same kind of bar without tqdm's monitor, a thread that wakes up bars which were silent for long."""
    return type("Bar", (tqdm,), {"monitor_interval": 0})
