"""Library functions that an exercise forbids: running one is refused, by whatever way it was reached."""

from __future__ import annotations

import sys
import threading
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from lora_np.exercises.compiled import FOREIGN, guarded

LIBRARIES = ("numpy", "lora_np", "scipy", "sklearn", "sympy", "mpmath")
OURS = ("lora_np.exercises", "lora_np.grading")  # they call a student's function, and are called back by it
TRUSTED = (*LIBRARIES, "joblib", "threadpoolctl", "threading", "concurrent", "ctypes", "cffi", "importlib")
GETTERS = ("get_lapack_funcs", "get_flinalg_funcs")  # of compiled functions, by name
ALLOCATION = "allocating "  # and a number of bytes
STEPS = "stepping "  # and a number of the interpreter's instructions

FAMILIES = {
    "SVD": """
        svd svdvals svds truncated_svd svd_of_product low_rank_factors svd_r svd_c singular_values
        singular_value_decomposition cossin
    """,
    "eigenvectors": """
        eig eigh eigvals eigvalsh eigs eigsh eig_banded eigvals_banded schur eigh_tridiagonal
        eigvalsh_tridiagonal lobpcg eigenvals eigenvects eigsy diagonalize
    """,
    "QR": """
        qr qr_pivoted cholesky orth rq cho_factor qr_insert qr_update qr_multiply QRdecomposition
        GramSchmidt
    """,
    "LU": """
        lu lu_factor row_echelon ldl splu spilu LUdecomposition LU_decomp rref echelon_form
    """,
    "solvers": """
        lstsq solve inv pinv pinvh tensorsolve tensorinv solve_triangular lu_solve cho_solve
        solve_banded solveh_banded spsolve cg gmres polyfit nnls reduced_rank_regression lsqr lsmr
        minimize least_squares leastsq lsq_linear curve_fit
    """,
    "softmax": """
        softmax log_softmax logsumexp
    """,
    "ranks": """
        matrix_rank independent_columns column_space slogdet det cond null_space rank columnspace
        nullspace estimate_rank
    """,
}
"""What an exercise forbids together; ``"lora_np.nn"`` forbids a package, another word our function."""

HOMES = ("linalg", "accounting", "nn", "autograd")


def names_something(rule: str) -> bool:
    """Whether there is anything that ``rule`` forbids.

    Examples
    --------
    >>> [names_something(rule) for rule in ("SVD", "lora_np.nn", "energy", "enrgy")]
    [True, True, True, False]
    """
    if rule in FAMILIES:
        return True
    if rule.partition(".")[0] == "lora_np":
        return find_spec(rule) is not None
    return f"\ndef {rule}(" in sources()


@cache
def sources() -> str:
    """Of what exercises are about; read, as importing all of it takes longer."""
    package = Path(__file__).parents[1]
    return "\n".join(path.read_text("utf-8") for home in HOMES for path in (package / home).glob("*.py"))


class Forbidden(Exception):  # noqa: N818
    """A function was called that the exercise asks to do without."""


@contextmanager
def forbidden(rules: Sequence[str], function: Any = None) -> Iterator[None]:
    """While inside, running a function that the rules name raises `Forbidden`.

    It looks at what runs, not at names: a function is refused under an alias, from a list, in a thread that
    is started, or called by another function of its library. Where a family is forbidden, so is all compiled
    linear algebra that is not called by its own library (LAPACK, say), and calling the machine's libraries.
    A submission that catches the exception is refused at the end. This keeps a student from handing in the
    library's answer; it does not stop malice.

    Parameters
    ----------
    rules : sequence of str
        Families, packages, names of functions, ``"allocating 80000"`` (bytes that may be allocated), or
        ``"stepping 2000"`` (instructions that Python may take: what loops compute).
    function : callable, optional
        A student's: it may hold no compiled function either.
    """
    limits = [int(rule.removeprefix(ALLOCATION)) for rule in rules if rule.startswith(ALLOCATION)]
    steps = [int(rule.removeprefix(STEPS)) for rule in rules if rule.startswith(STEPS)]
    asked = [rule for rule in rules if not rule.startswith((ALLOCATION, STEPS))]
    names = {name for rule in asked for name in FAMILIES.get(rule, rule).split()}
    packages = tuple(name for name in names if name.partition(".")[0] in LIBRARIES)
    families = any(rule in FAMILIES for rule in asked)
    used: list[str] = []
    modules = len(sys.modules)

    def refuse(name: str) -> None:
        public = ".".join(part for part in name.split(".") if not part.startswith("_"))
        used.append(f"{public} is not allowed in this exercise: write it yourself")
        raise Forbidden(used[-1])

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal modules
        if families and len(sys.modules) != modules:
            modules = len(sys.modules)
            update()
        module, name = frame.f_globals.get("__name__") or "", frame.f_code.co_name
        library = module.partition(".")[0]
        if event == "call":
            wanted = name in names or (module.startswith(packages) and name != "<module>")
            if wanted and library in LIBRARIES and not module.startswith(OURS):
                refuse(f"{module}.{name}")
            if families and library in FOREIGN and name != "<module>" and by_hand(frame.f_back):
                refuse(f"{module}.{name}")
        elif families and event == "c_call" and library not in TRUSTED:
            home = getattr(argument, "__module__", None)
            if home in FOREIGN or (home == "_thread" and argument.__name__.startswith("start_")):
                refuse(f"{str(home).lstrip('_')}.{argument.__name__}")
        elif (
            families
            and event == "return"
            and name in GETTERS
            and library == "scipy"
            and by_hand(frame.f_back)
        ):
            refuse(f"{module}.{name}")

    taken_steps = 0

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal taken_steps
        frame.f_trace_opcodes = True
        taken_steps += event == "opcode"
        return count

    tracing = sys.gettrace()
    before, traced = sys.getprofile(), tracemalloc.is_tracing()
    before_threads = threading.getprofile()
    if limits:
        tracemalloc.start()
        tracemalloc.reset_peak()
        start = tracemalloc.get_traced_memory()[0]
    try:
        with guarded(function, names, refuse) if families else nullcontext(lambda: None) as update:
            if names:
                threading.setprofile(watch)
                sys.setprofile(watch)
            if steps:
                sys.settrace(count)
            try:
                yield
            except Exception as error:
                if used and not isinstance(error, Forbidden):  # what failed afterwards is of no interest
                    raise Forbidden(used[0]) from None
                raise
            finally:
                if steps:
                    sys.settrace(tracing)
                sys.setprofile(before)
                threading.setprofile(before_threads)
    finally:
        taken = tracemalloc.get_traced_memory()[1] - start if limits else 0
        if limits and not traced:
            tracemalloc.stop()
    if used:
        raise Forbidden(used[0])
    enough = "are enough if nothing is computed that is not asked for"
    if limits and taken > min(limits):
        raise Forbidden(f"the call took {taken:,} bytes of memory; {min(limits):,} {enough}")
    if steps and taken_steps > min(steps):
        raise Forbidden(f"the call took {taken_steps:,} steps of Python; {min(steps):,} {enough}")


def by_hand(frame: FrameType | None) -> bool:
    """Whether no library is among those that call, but for the one that is called."""
    name = (frame.f_globals.get("__name__") or "").partition(".")[0] if frame else ""
    return by_hand(frame.f_back) if frame and name in FOREIGN else name not in TRUSTED
