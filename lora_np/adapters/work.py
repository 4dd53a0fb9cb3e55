"""One piece of work on many modules: on several workers, with a progress bar, always the same results."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lora_np import safetensors
from lora_np._checks import Array, whole_number
from lora_np._progress import without_monitor
from lora_np.adapters.files import AdapterError, read_tensor

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


def taken(path: Path, name: str, cut: tuple[slice, ...] = ()) -> Callable[[], Array]:
    """A reader of part of an array that was put aside."""
    return lambda: read_tensor(safetensors.open(path), name)[cut]


def finite(place: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """``function(*arguments)``, where a refusal of NaN or infinity, and an overflow, name the module."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            return no_overflow(place, function(*arguments))
    except np.linalg.LinAlgError:  # what LAPACK makes of an overflow inside of it
        raise _overflow(place) from None
    except AdapterError:
        raise
    except ValueError as error:
        raise AdapterError(f"{place}: {error}") from None


def no_overflow(place: str, found: Result) -> Result:
    """``found``, the result of a computation on finite numbers, if it is finite."""
    parts: tuple[Any, ...] = found if isinstance(found, tuple) else (found,)
    for part in parts:
        if isinstance(part, tuple):
            no_overflow(place, part)
        elif part is not None and not np.isfinite(part).all():
            raise _overflow(place)
    return found


def norm(s: Array) -> float:
    return float(np.linalg.norm(s.astype(np.float64)))  # squares of float32 overflow from 2e19 on


def _overflow(place: str) -> AdapterError:
    return AdapterError(f"{place}: the result is not finite: numbers that are too large overflow")
