"""What checks are made of: laws that any right answer satisfies, and messages that name the law."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_np.checks import Array
from lora_np.exercises.laws import LawBroken


def law(name: str, holds: bool, detail: str = "") -> None:
    """Raise `LawBroken` unless ``holds``.

    Examples
    --------
    >>> law("A rank is at most the number of rows", 3 <= 4)
    >>> law("A rank is at most the number of rows", 5 <= 4, "got 5 for 4 rows")
    Traceback (most recent call last):
        ...
    lora_np.exercises.laws.LawBroken: A rank is at most the number of rows: got 5 for 4 rows
    """
    if not holds:
        raise LawBroken(name, detail)


def real_array(name: str, answer: Any, shape: tuple[int | None, ...]) -> Array:
    """``answer`` as an array of finite real numbers of this shape; anything else breaks a law.

    None in ``shape`` stands for any length.

    Examples
    --------
    >>> real_array("B", [[1, 2]], (1, 2))
    array([[1., 2.]])
    """
    law("A function returns its answer", answer is not None, f"{name} is None; is there a return?")
    try:
        array = np.asarray(answer)
    except ValueError:  # rows of different lengths
        raise LawBroken(
            f"The shape of {name}", f"{name} must have shape {shape}, got {type(answer).__name__}"
        ) from None
    numbers = array.dtype.kind in "fiub"
    law(
        "An answer is made of real numbers",
        numbers,
        f"{name} must hold real numbers, got {kind_of(answer, array)}",
    )
    fits = len(array.shape) == len(shape) and all(
        n in (m, None) for m, n in zip(array.shape, shape, strict=True)
    )
    wanted = str(shape).replace("None", "any length")
    law(f"The shape of {name}", fits, f"{name} must have shape {wanted}, got {array.shape}")
    array = array.astype(np.float64)
    law("An answer is finite", bool(np.isfinite(array).all()), f"{name} holds NaN or infinity")
    return array


def kind_of(answer: Any, array: Array) -> str:
    return f"dtype {array.dtype}" if array.dtype.kind in "cSU" else type(answer).__name__


def same(
    name: str,
    what: str,
    answer: Any,
    right: npt.ArrayLike,
    *,
    tolerance: float = 1e-8,
    size: float = 0.0,
    why: str = "",
) -> Array:
    """The law ``name``: ``answer``, called ``what``, equals ``right`` up to ``tolerance`` times its size.

    Where ``right`` is zero, ``size`` says how large the numbers are that it comes from.

    Examples
    --------
    >>> _ = same("B A = M", "B A", [[1.0]], [[1.0]])
    >>> _ = same("B A = M", "B A", [[1.0]], [[2.0]], why="here M is the identity, twice")
    Traceback (most recent call last):
        ...
    lora_np.exercises.laws.LawBroken: B A = M: B A must be 2, got 1 (here M is the identity, twice)
    """
    expected = np.asarray(right, dtype=np.float64)
    got = real_array(what, answer, expected.shape)
    allowed = tolerance * max(size, float(np.abs(expected).max(initial=0.0)))
    differences = np.abs(got - expected)
    if differences.max(initial=0.0) > allowed:
        place = tuple(int(i) for i in np.unravel_index(int(np.argmax(differences)), expected.shape))
        where = f"[{', '.join(map(str, place))}]" if expected.size > 1 else ""
        because = f" ({why})" if why else ""
        raise LawBroken(name, f"{what}{where} must be {expected[place]:.6g}, got {got[place]:.6g}{because}")
    return got


def whole(what: str, answer: Any) -> int:
    """``answer`` as an int. A float with a whole value is taken, a fraction breaks a law.

    Examples
    --------
    >>> whole("rank", np.int64(3))
    3
    """
    number = real_array(what, answer, ())
    law(f"{what} is a whole number", float(number) == np.rint(number), f"got {float(number):.6g}")
    return int(number)


def parts(names: Sequence[str], answer: Any) -> tuple[Any, ...]:
    """An answer of several parts, such as ``B, A``.

    Examples
    --------
    >>> parts(["B", "A"], (1, 2))
    (1, 2)
    """
    wanted = ", ".join(names)
    law("A function returns its answer", answer is not None, f"it must return {wanted}; is there a return?")
    several = isinstance(answer, (tuple, list)) or (isinstance(answer, np.ndarray) and answer.ndim > 0)
    fits = several and len(answer) == len(names)
    got = f"{len(answer)} parts" if several else type(answer).__name__
    law("All parts of the answer are returned", fits, f"it must return {wanted}, got {got}")
    return tuple(answer)


def orthonormal(name: str, columns: Array) -> None:
    """The law that the columns have length one and are at right angles.

    Examples
    --------
    >>> orthonormal("Q", np.eye(3, 2))
    """
    same(
        f"The columns of {name} are orthonormal",
        f"{name}^T {name}",
        columns.T @ columns,
        np.eye(columns.shape[1]),
        why="1 on the diagonal: length one; 0 elsewhere: right angles",
    )
