"""Steps that operations on adapters share: a place to work, arrays put aside, and results that are finite."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np

from lora_np.adapters.module import Stored
from lora_np.adapters.peft_format import WEIGHTS
from lora_np.checks import Array
from lora_np.files import replacing
from lora_np.hub import HubError
from lora_np.linalg import SVD, svd_of_product
from lora_np.models import peft
from lora_np.work import each

CARD = "README.md"  # PEFT writes one next to its adapters; people add to it
Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def new_adapter(
    target: str | os.PathLike[str], *, force: bool, inputs: Collection[str | os.PathLike[str]]
) -> Iterator[tuple[Path, Path]]:
    """`replacing` for an adapter (only one is replaced, its README stays), and where to put arrays aside."""
    writes = (peft.NAME, WEIGHTS, CARD).__contains__
    with (
        replacing(target, force=force, writes=writes, keeps=[CARD], inputs=inputs) as stage,
        TemporaryDirectory(dir=stage) as aside,
    ):
        yield stage, Path(aside)


def each_of(
    function: Callable[[Item], Result], work: Mapping[str, Item], *, jobs: int, progress: bool, label: str
) -> dict[str, Result]:
    """`each` for work that has names."""
    found = each(function, work.values(), jobs=jobs, progress=progress, label=label)
    return dict(zip(work, found, strict=True))


def put_aside(array: Array, path: Path, dtype: str) -> Stored:
    """An array on the disk until it is read; a file will hold it as ``dtype``."""
    # Not by `numpy.save`, whose error on a full disk says neither that it is full nor where.
    path.write_bytes(np.ascontiguousarray(array).data)
    kind, shape = array.dtype, array.shape
    return Stored(dtype, shape, lambda: np.fromfile(path, kind).reshape(shape))


def balanced(found: SVD, path: Path, *, B: str, A: str) -> dict[str, Stored]:
    """The factors of ``U s Vh``, the strongest direction first, put aside for files of these dtypes."""
    root = np.sqrt(found.s)
    return {
        "B": put_aside(found.U * root[..., None, :], path.with_suffix(".B"), B),
        "A": put_aside(root[..., None] * found.Vh, path.with_suffix(".A"), A),
    }


def directions(place: str, B: Array, A: Array) -> SVD:
    """The SVD of B A, or the stack of those of a stack."""
    if B.ndim == 2:
        return SVD(*finite(place, svd_of_product, B, A))
    return SVD(*map(np.stack, zip(*map(partial(directions, place), B, A), strict=True)))


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


def norm(s: Array) -> float:
    return float(np.linalg.norm(s.astype(np.float64)))  # squares of float32 overflow from 2e19 on


def _overflow(place: str) -> HubError:
    return HubError(
        f"{place}: the result is not finite: there is a NaN, or numbers that are too large overflow"
    )
