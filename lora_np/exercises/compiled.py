"""Compiled linear algebra, which no profiler sees: refused to whoever is not part of its own library."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

PACKAGES = ("numpy.linalg", "scipy.linalg", "scipy.sparse.linalg")
PRODUCTS = ("scipy.linalg.blas", "scipy.linalg._fblas", "scipy.linalg._cblas", "scipy.linalg.cython_blas")
FOREIGN = ("ctypes", "_ctypes", "_cffi_backend")  # ways to call the machine's own libraries
WORKERS = (
    "concurrent.futures",
    "multiprocessing",
    "queue",
    "_queue",
)  # to threads from before, where nobody looks
LIMIT = 10_000  # objects that a function may lead to before the search for what it holds ends


class Guards:
    """Stand-ins for the compiled functions of linear algebra, in every module that names them."""

    def __init__(self) -> None:
        self.modules: dict[str, ModuleType] = {}
        self.places: list[tuple[dict[str, Any], str, Any, Any]] = []  # names, name, original, stand-in
        self.names: dict[int, str] = {}  # of originals and stand-ins, by identity
        self.refuse: Callable[[str], None] | None = None  # while an answer runs
        self.forbidden: frozenset[str] = frozenset()

    def find(self) -> None:
        """Take in the modules that have been imported since the last time."""
        for name, module in list(sys.modules.items()):
            if name.startswith(PACKAGES) and module is not None and self.modules.get(name) is not module:
                self.modules[name] = module
                for key, value in list(vars(module).items()):
                    if compiled(value, module):
                        self.guard(vars(module), key, value)

    def guard(self, names: dict[str, Any], key: str, original: Any) -> None:
        module = names["__name__"].replace("._flapack", ".lapack")
        title = f"{module}.{key}"

        def stand_in(*args: Any, **kwargs: Any) -> Any:
            if self.refuse is not None:
                caller = sys._getframe(1).f_globals.get("__name__") or ""
                if not caller.startswith(PACKAGES) or key.partition("_")[0] in self.forbidden:
                    self.refuse(title)
            return original(*args, **kwargs)

        stand_in.__name__, stand_in.__doc__ = key, original.__doc__
        self.places.append((names, key, original, stand_in))
        self.names.setdefault(id(original), title)
        self.names[id(stand_in)] = title

    def put(self) -> None:
        """The stand-ins in place of the originals."""
        self.find()
        for names, key, _, stand_in in self.places:
            names[key] = stand_in

    def take_away(self) -> None:
        for names, key, original, _ in self.places:
            names[key] = original


GUARDS = Guards()


def compiled(value: Any, module: ModuleType) -> bool:
    """Whether ``value`` is a compiled function of these packages that decomposes or solves."""
    if (
        module.__name__ in PRODUCTS
        or isinstance(value, (type, FunctionType, ModuleType))
        or not callable(value)
    ):
        return False
    kind = type(value).__name__  # f2py and Cython do not hand out their types
    if kind == "ufunc":
        return module.__name__ == "numpy.linalg._umath_linalg"
    home = getattr(value, "__module__", None) or ""
    if kind == "fortran":  # of f2py, which does not say where it is from
        return "blas" not in module.__name__
    named = isinstance(value, BuiltinFunctionType) or kind in (
        "cython_function_or_method",
        "fused_cython_function",
    )
    inside = home.startswith(PACKAGES) or (not home and not hasattr(module, "__path__"))
    return named and (inside or module.__name__ == "numpy.linalg.lapack_lite") and home not in PRODUCTS


@contextmanager
def guarded(
    function: Any, forbidden: set[str], refuse: Callable[[str], None]
) -> Iterator[Callable[[], None]]:
    """While inside, compiled linear algebra calls ``refuse`` with its name, as does holding some of it.

    Parameters
    ----------
    function : callable
        A student's.
    forbidden : set of str
        Names that are refused to their own library too, as another thread may have called that.
    refuse : callable
        Raises.

    Yields
    ------
    callable
        To be called when modules have been imported.
    """
    with suppress(ImportError):
        importlib.import_module("numpy.linalg.lapack_lite")
    GUARDS.put()
    GUARDS.refuse, GUARDS.forbidden = refuse, frozenset(forbidden)
    try:
        for name in held(function):
            refuse(name)
        yield GUARDS.put
    finally:
        GUARDS.refuse = None
        GUARDS.take_away()


def held(function: Any) -> Iterator[str]:
    """The compiled functions that a function can call without asking a module for them."""
    waiting, seen = [function], {id(function)}
    while waiting and len(seen) < LIMIT:
        one = waiting.pop()
        if id(one) in GUARDS.names:
            yield GUARDS.names[id(one)]
        foreign = next((t for t in type(one).__mro__ if t.__module__.startswith(FOREIGN + WORKERS)), None)
        if foreign:
            yield f"{foreign.__module__}.{foreign.__name__}"
        for other in reached(one):
            if id(other) not in seen and not isinstance(
                other, (ModuleType, str, bytes, int, float, CodeType)
            ):
                seen.add(id(other))
                waiting.append(other)


def reached(one: Any) -> list[Any]:
    """What an object refers to; for a function the names that it mentions, and what it closes over."""
    if isinstance(one, FunctionType):
        if (one.__module__ or "").partition(".")[0] in ("numpy", "scipy", "lora_np"):
            return []
        globals_ = one.__globals__
        names = {name for code in codes(one.__code__) for name in code.co_names}
        inside = [cell.cell_contents for cell in one.__closure__ or () if not empty(cell)]
        defaults = [*(one.__defaults__ or ()), *(one.__kwdefaults__ or {}).values()]
        return [*inside, *defaults, *vars(one).values(), *(globals_[n] for n in names if n in globals_)]
    if isinstance(one, type) and one.__module__.partition(".")[0] in sys.stdlib_module_names | {
        "numpy",
        "scipy",
    }:
        return []
    return gc.get_referents(one)


def codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def empty(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False
