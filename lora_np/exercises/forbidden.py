"""Stop calls of library functions that an exercise forbids."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NamedTuple

from lora_np.exercises.values import Value

LIBRARIES = ("numpy", "lora_np", "scipy", "sklearn", "sympy", "mpmath", "sys", "_thread")
# never forbid functions of these packages, because they wrap and call the student's function
OURS = ("lora_np.exercises", "lora_np.grading")

# packages with ready-made linear algebra, which most of the families below forbid
LINEAR = "scipy.linalg scipy.sparse scipy.optimize sklearn sympy mpmath"

# Each key stands for the words in its value. A word that begins with the name of a library, such as
# "lora_np.nn", forbids a package; any other word forbids a function.
FAMILIES = {
    "SVD": f"svd svdvals truncated_svd svd_of_product low_rank_factors lstsq {LINEAR}",
    "eigenvectors": f"eig eigh eigvals eigvalsh {LINEAR}",
    "QR": f"qr qr_pivoted cholesky {LINEAR}",
    "LU": f"lu row_echelon {LINEAR}",
    "solvers": (
        f"lstsq solve inv pinv tensorsolve tensorinv polyfit reduced_rank_regression {LINEAR}"
    ),
    "softmax": "softmax log_softmax logsumexp",
    "ranks": f"matrix_rank lstsq independent_columns column_space slogdet det cond {LINEAR}",
}


class Forbidden(Exception):  # noqa: N818
    """Raised when a student's function calls a function that the exercise forbids."""


class TooMuch(Forbidden):
    """Raised when a call exceeds a limit on memory or steps."""


class Rules(NamedTuple):
    """The functions that a call must not use, and its limits on memory and steps.

    Parameters
    ----------
    forbids : sequence of str
        Families, packages, or names of functions that must not run.
    within : int, optional
        The largest number of bytes that may be allocated at the same time.
    steps : int, optional
        The largest number of instructions that Python may execute, which limits loops.

    Examples
    --------
    >>> Rules(["SVD"], within=10_000).steps is None
    True
    """

    forbids: Sequence[str] = ()
    within: int | None = None
    steps: int | None = None


def watched(function: Callable[..., Value], arguments: Sequence[Value], rules: Rules) -> Value:
    """Call ``function(*arguments)``, and raise an error if it breaks one of the rules.

    The profiler sees every call in Python. So a forbidden function is recognised under an alias, in
    a list, or when another function of its library calls it, and even if the student catches the
    exception. This keeps students from handing in the library's answer. Threads, and calls that
    would end the profiling, are forbidden too. Compiled functions, and copies of a library under
    another name, are not seen: this does not stop malice.

    Parameters
    ----------
    function : callable
        The student's function.
    arguments : sequence
        The arguments of the call.
    rules : Rules
        The forbidden functions and the limits.

    Raises
    ------
    Forbidden
        If a forbidden function was called; `TooMuch` if a limit was exceeded.
    """
    forbids, within, steps = rules
    # forbid functions that would end the profiling or start a thread that the profiler does not see
    unseen = "setprofile settrace start_new_thread start_joinable_thread"
    names = {word for rule in forbids for word in f"{FAMILIES.get(rule, rule)} {unseen}".split()}
    packages = tuple(name for name in names if name.partition(".")[0] in LIBRARIES)
    refused: list[str] = []
    taken = {"bytes of memory": 0, "steps of Python": 0}

    def watch(frame: FrameType, event: str, called: Any) -> None:
        module, name = frame.f_globals.get("__name__") or "", frame.f_code.co_name
        if event == "c_call" and frame.f_globals is not globals():
            # format the module as text, because it is None for methods of built-in types
            module, name = f"{called.__module__}", called.__name__
        if (
            "call" in event  # "call" or "c_call"; other events are returns and exceptions
            and (name in names or (module.startswith(packages) and name != "<module>"))
            and module.startswith(LIBRARIES)
            and not module.startswith(OURS)
        ):
            parts = [part for part in f"{module}.{name}".split(".") if part[:1] != "_"]
            refused.append(f"{'.'.join(parts)} is not allowed in this exercise: write it yourself")
            raise Forbidden(refused[-1])

    def count(frame: FrameType, event: str, _: Value) -> Any:
        frame.f_trace_opcodes = True
        taken["steps of Python"] += event == "opcode"
        return count

    profile, trace, tracing = sys.getprofile(), sys.gettrace(), tracemalloc.is_tracing()
    if within is not None:
        tracemalloc.start()
        tracemalloc.reset_peak()
        allocated = tracemalloc.get_traced_memory()[0]
    collecting = gc.isenabled()
    # stop garbage collection: it may close a library's generator, which the profiler sees as a call
    gc.disable()
    if names:
        sys.setprofile(watch)
    if steps is not None:
        sys.settrace(count)
    try:
        value = function(*arguments)
    except BaseException:
        if not refused:  # after a forbidden call, `Forbidden` is raised instead of any other error
            raise
    finally:
        sys.settrace(trace)
        sys.setprofile(profile)
        if collecting:
            gc.enable()
        if within is not None:
            taken["bytes of memory"] = tracemalloc.get_traced_memory()[1] - allocated
            if not tracing:
                tracemalloc.stop()
    if refused:
        raise Forbidden(refused[0])
    for what, most in (("bytes of memory", within), ("steps of Python", steps)):
        if most is not None and taken[what] > most:
            raise TooMuch(f"the call took {taken[what]:,} {what}; {most:,} are enough")
    return value
