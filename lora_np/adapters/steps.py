"""Steps that operations on adapters share: arrays put aside, and results that are finite."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lora_np.adapters.peft_format import Stored
from lora_np.checks import Array
from lora_np.hub import HubError

Result = TypeVar("Result")


def put_aside(arrays: Mapping[str, Array], path: Path) -> None:
    """Arrays on the disk until `taken` reads them: a file for each, called ``path`` and its name."""
    for name, array in arrays.items():
        # Not by `numpy.save`, whose error on a full disk says neither that it is full nor where.
        with open(path.with_name(f"{path.name}.{name}.npy"), "wb") as file:
            head = np.lib.format.header_data_from_array_1_0(array)
            np.lib.format.write_array_header_1_0(file, head)
            file.write(np.ascontiguousarray(array.T if head["fortran_order"] else array).data)


def put_factors(U: Array, s: Array, Vh: Array, path: Path) -> None:
    """The balanced factors B and A of ``U s Vh``, put aside."""
    root = np.sqrt(s)
    put_aside({"B": U * root, "A": root[:, None] * Vh}, path)


def taken(path: Path, name: str, dtype: str, shape: tuple[int, ...]) -> Stored:
    """The leading part, of this shape, of an array that was put aside; a file will hold it as ``dtype``."""
    file, cut = path.with_name(f"{path.name}.{name}.npy"), tuple(map(slice, shape))
    return Stored(dtype, shape, lambda: np.load(file)[cut])


def finite(place: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """``function(*arguments)``, where a refusal of NaN or infinity, and an overflow, name the module."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            return no_overflow(place, function(*arguments))
    except np.linalg.LinAlgError:  # what LAPACK makes of an overflow inside of it
        raise _overflow(place) from None
    except HubError:
        raise
    except ValueError as error:
        raise HubError(f"{place}: {error}") from None


def no_overflow(place: str, found: Result) -> Result:
    """``found``, the result of a computation on finite numbers, if it is finite."""
    parts: tuple[Any, ...] = found if isinstance(found, tuple) else (found,)
    for part in parts:
        if isinstance(part, tuple):
            no_overflow(place, part)
        elif part is not None and not np.isfinite(part).all():
            raise _overflow(place)
    return found


def close_to(name: str, known: Iterable[str]) -> str:
    """The names closest to ``name``, to end a message with."""
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    return f"; close are {', '.join(map(repr, close))}" if close else ""


def norm(s: Array) -> float:
    return float(np.linalg.norm(s.astype(np.float64)))  # squares of float32 overflow from 2e19 on


def _overflow(place: str) -> HubError:
    return HubError(f"{place}: the result is not finite: numbers that are too large overflow")
