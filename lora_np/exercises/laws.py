"""Assert conditions that every right answer satisfies, with messages that show the difference."""

from __future__ import annotations

from typing import Any

import numpy as np

from lora_np.checks import Array, ArrayLike
from lora_np.exercises.values import Value

TOLERANCE = 1e-4  # allowed error relative to the largest entry; above float32's rounding errors


class LawBroken(AssertionError):  # noqa: N818
    """Raised when an answer breaks a law.

    Parameters
    ----------
    name : str
        The law, as a sentence; empty if it is the law that is running.
    detail : str
        The value that was found, and the right one.
    compared : Value
        The values that the law compares, which are the same for equivalent answers, such as B and A
        with other signs. None stands for the whole reply.

    Examples
    --------
    >>> error = LawBroken("A rank is at most the number of rows", "got 5 for 4 rows")
    >>> error.name, error.detail
    ('A rank is at most the number of rows', 'got 5 for 4 rows')
    """

    def __init__(self, name: str, detail: str = "", compared: Value = None) -> None:
        super().__init__(f"{name}: {detail}" if name and detail else name or detail)
        self.name, self.detail, self.compared = name, detail, compared


def law(
    holds: bool | np.bool_,
    detail: str,
    *,
    name: str = "",
    compared: Value = None,
) -> None:
    """Raise `LawBroken` unless ``holds``.

    Examples
    --------
    >>> law(3 <= 4, "got 3 for 4 rows")
    >>> law(5 <= 4, "got 5 for 4 rows", name="A rank is at most the number of rows")
    Traceback (most recent call last):
        ...
    lora_np.exercises.laws.LawBroken: A rank is at most the number of rows: got 5 for 4 rows
    """
    if not holds:
        raise LawBroken(name, detail, compared)


def real_array(name: str, answer: Value, shape: tuple[int | None, ...]) -> Array:
    """Convert ``answer`` to a finite real array of this shape, or raise `LawBroken`.

    None in ``shape`` means any length.

    Examples
    --------
    >>> real_array("B", [[1, 2]], (1, 2))
    array([[1., 2.]])
    """
    wanted = f"{name} must have shape {tuple(shape)}, got ".replace("None", "any length")
    try:
        array = np.asarray(answer)
    except ValueError:  # the rows differ in length
        raise LawBroken(f"The shape of {name}", wanted + type(answer).__name__) from None
    kind = f"dtype {array.dtype}" if array.dtype.kind in "cSU" else type(answer).__name__
    real = array.dtype.kind in "fiub"
    law(
        real, f"{name} must hold real numbers, got {kind}", name="An answer is made of real numbers"
    )
    pairs = zip(array.shape, shape, strict=False)
    fits = array.ndim == len(shape) and all(n in (m, None) for m, n in pairs)
    law(
        fits,
        f"{wanted}{array.shape}",
        name=f"The shape of {name}",
    )
    array = array.astype(np.float64)
    finite = np.isfinite(array)
    law(finite.all(), f"{name} holds NaN or infinity", name="An answer is finite", compared=finite)
    return array


def same(
    what: str,
    answer: Value,
    right: ArrayLike,
    *,
    tolerance: float = TOLERANCE,
    size: float = 0,
    why: str = "",
) -> Array:
    """Require that ``answer``, called ``what``, equals ``right`` up to ``tolerance``.

    If ``right`` is zero or small, ``size`` is the size of the numbers that it is computed from.

    Examples
    --------
    >>> _ = same("B A", [[1.0]], [[1.0]])
    >>> _ = same("B A", [[1.0]], [[2.0]], why="here M is the identity, twice")
    Traceback (most recent call last):
        ...
    lora_np.exercises.laws.LawBroken: entry [0, 0] of B A must be 2, got 1 (here M is the identity,
    twice)
    """
    expected = np.asarray(right, dtype=np.float64)
    got = real_array(what, answer, expected.shape)
    allowed = tolerance * max(size, float(np.abs(expected).max(initial=0.0)))
    differences = np.abs(got - expected)
    if not differences.max(initial=0.0) <= allowed:
        place = tuple(int(i) for i in np.unravel_index(int(np.argmax(differences)), expected.shape))
        where = f"entry {list(place)} of " if expected.ndim else ""
        wanted, came = apart(float(expected[place]), float(got[place]))
        told = f"{where}{what} must be {wanted}, got {came}{f' ({why})' if why else ''}"
        # Set entries that may be rounding errors to 0, because they would otherwise affect the
        # comparison of the answer with known mistakes.
        raise LawBroken("", told, np.where(np.abs(got) > allowed, got, 0))
    return got


def apart(wanted: float, came: float) -> tuple[str, str]:
    """Format two numbers with as many digits as are needed to show that they differ.

    Examples
    --------
    >>> apart(1 / 3, 0.5)
    ('0.333333', '0.5')
    >>> apart(0.38996204, 0.38996213)
    ('0.38996204', '0.38996213')
    """
    texts = [(f"{wanted:.{digits}g}", f"{came:.{digits}g}") for digits in (6, 8, 10, 12, 14, 17)]
    return next((pair for pair in texts if pair[0] != pair[1]), texts[-1])


def exactly(what: str, answer: Value, right: int) -> None:
    """Require that ``answer`` equals the whole number ``right``, as an int or as a float.

    Examples
    --------
    >>> exactly("the rank", np.int64(3), 3)
    """
    number = whole(what, answer)
    told = f"{what} must be {right:,}, got {number:,}"
    law(number == right, told, compared=number)


def whole(what: str, answer: Value) -> int:
    """Convert ``answer`` to an int; raise `LawBroken` unless it is a whole number.

    Examples
    --------
    >>> whole("rank", np.int64(3))
    3
    """
    number = float(real_array(what, answer, ()))
    law(number == np.rint(number), f"got {number!r}", name=f"{what} is a whole number")
    return int(answer) if isinstance(answer, (int, np.integer)) else int(number)


def parts(names: str, answer: Any, *shapes: tuple[int | None, ...]) -> tuple[Array, ...]:
    """Split an answer such as ``B, A`` into arrays, and check their shapes.

    Examples
    --------
    >>> parts("b a", ([[1]], [[2, 3]]), (1, 1), (1, 2))
    (array([[1.]]), array([[2., 3.]]))
    """
    wanted_parts = names.split()
    wanted = f"it must return {', '.join(wanted_parts)}"
    several = isinstance(answer, (tuple, list)) or getattr(answer, "ndim", 0) > 0
    got = f"{len(answer)} parts" if several else type(answer).__name__
    complete = several and len(answer) == len(wanted_parts)
    law(complete, f"{wanted}, got {got}", name="All parts of the answer are returned")
    return tuple(map(real_array, wanted_parts, answer, shapes))


def orthonormal(name: str, columns: Array) -> None:
    """Require that the columns of a matrix are orthogonal and have length one.

    Examples
    --------
    >>> orthonormal("Q", np.eye(3, 2))
    """
    why = "1 on the diagonal: unit length; 0 elsewhere: orthogonal"
    same(f"{name}^T {name}", columns.T @ columns, np.eye(columns.shape[1]), why=why)


def at_most(
    what: str, number: float, least: float, *, size: float = 0.0, compared: Value = None
) -> None:
    """Require that ``number`` is at most ``least``, within a relative tolerance.

    The tolerance is relative to the larger of ``least`` and ``size``.

    Examples
    --------
    >>> at_most("the error", 2.0, 2.0)
    """
    wanted, came = apart(least, number)
    law(
        number <= least + TOLERANCE * max(least, size),
        f"{what} is {came}, but {wanted} can be reached",
        compared=number if compared is None else compared,
    )


def closest(what: str, M: Array, nearest: Array, rank: int, *, size: float = 0.0) -> None:
    """Require that ``nearest`` is as close to ``M`` as its rank allows (Eckart-Young).

    Examples
    --------
    >>> closest("the error", np.diag([2.0, 1.0]), np.diag([2.0, 0.0]), 1)
    """
    least, size = np.linalg.norm(np.linalg.svdvals(M)[rank:]), max(size, float(np.linalg.norm(M)))
    distance = float(np.linalg.norm(M - nearest))
    at_most(what, distance, float(least), size=size, compared=nearest)
