"""Library functions that an exercise forbids: running one is refused, by whatever way it was reached."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

LIBRARIES = ("numpy", "lora_np", "scipy", "sklearn", "sympy", "mpmath")
OURS = ("lora_np.exercises", "lora_np.grading")  # they call a student's function, and are called back by it
ALLOCATION = "allocating "  # and a number of bytes

FAMILIES = {
    "SVD": ("svd", "svdvals", "svds", "truncated_svd", "svd_of_product", "low_rank_factors"),
    "eigenvectors": ("eig", "eigh", "eigvals", "eigvalsh", "eigs", "eigsh", "eig_banded", "schur"),
    "QR": ("qr", "qr_pivoted", "cholesky", "orth", "rq"),
    "LU": ("lu", "lu_factor", "row_echelon", "ldl"),
    "solvers": ("lstsq", "solve", "inv", "pinv", "pinvh", "tensorsolve", "tensorinv", "solve_triangular",
                "polyfit", "reduced_rank_regression", "lsqr", "lsmr", "minimize", "least_squares"),
    "ranks": ("matrix_rank", "independent_columns", "column_space", "slogdet", "det", "cond", "null_space"),
}  # fmt: skip
"""What an exercise forbids together; ``"lora_np.nn"`` forbids a package, any other word one function."""


class Forbidden(Exception):  # noqa: N818
    """A function was called that the exercise asks to do without."""


@contextmanager
def forbidden(rules: Sequence[str]) -> Iterator[None]:
    """While inside, running a function that the rules name raises `Forbidden`.

    It looks at what runs, not at names: a function is refused under an alias, from a list, or called by
    another function of its library. A submission that catches the exception is refused at the end. This keeps
    a student from handing in the library's answer; it does not stop malice.

    Parameters
    ----------
    rules : sequence of str
        Families, packages, names of functions, or ``"allocating 80000"``: bytes that may be allocated.
    """
    limits = [int(rule.removeprefix(ALLOCATION)) for rule in rules if rule.startswith(ALLOCATION)]
    names = {name for rule in rules for name in FAMILIES.get(rule, (rule,))}
    packages = tuple(name for name in names if name.partition(".")[0] in LIBRARIES)
    used: list[str] = []

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            module = frame.f_globals.get("__name__") or ""
            library, name = module.partition(".")[0], frame.f_code.co_name
            wanted = name in names or (module.startswith(packages) and name != "<module>")
            if wanted and library in LIBRARIES and not module.startswith(OURS):
                public = ".".join(part for part in module.split(".") if not part.startswith("_"))
                used.append(f"{public}.{name} is not allowed in this exercise: write it yourself")
                raise Forbidden(used[0])

    before, traced = sys.getprofile(), tracemalloc.is_tracing()
    if limits:
        tracemalloc.start()
        tracemalloc.reset_peak()
        start = tracemalloc.get_traced_memory()[0]
    if names:
        sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(before)
        taken = tracemalloc.get_traced_memory()[1] - start if limits else 0
        if limits and not traced:
            tracemalloc.stop()
    if used:
        raise Forbidden(used[0])
    if limits and taken > min(limits):
        enough = f"{min(limits):,} are enough if nothing is computed that is not asked for"
        raise Forbidden(f"the call took {taken:,} bytes of memory; {enough}")
