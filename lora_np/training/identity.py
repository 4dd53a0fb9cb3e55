"""Describe the code, data and settings of a run by a string that is equal in every process.

Arrays are described by their values, dataclasses by their fields and methods, functions by their
code, defaults and closure, derivatives by their rules. Other functions, classes and values that a
function finds in its module are not included. If you edit one of these, name the run
(``identity=``), or delete the checkpoint.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import platform
import sys
import types
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np

from lora_np.autograd import Tensor, added_rows
from lora_np.checks import Array
from lora_np.version import __version__

# types whose repr distinguishes all values
ATOMS = (type(None), type(...), bool, int, float, complex, str, bytes, slice, np.dtype)
OURS = ("lora_np", "numpy", "builtins")  # packages identified by version, not by code


def versions() -> str:
    """Return the versions of lora_np, NumPy and Python.

    Examples
    --------
    >>> versions().split()[0]
    'lora_np'
    """
    return f"lora_np {__version__}, numpy {np.__version__}, python {platform.python_version()}"


def derivatives() -> str:
    """Describe the derivative rules that users added to autograd's tables, in sorted order."""
    return ", ".join(sorted({describe(row) for row in added_rows()}))


def digest(*arrays: Array) -> str:
    """Return a fingerprint of the shapes, dtypes and values of arrays."""
    sha = hashlib.sha256()
    for a in arrays:
        sha.update(f"{a.shape} {a.dtype.str}".encode())
        sha.update(np.ascontiguousarray(a).tobytes())
    return sha.hexdigest()[:16]


def describe(thing: Any, apart: Collection[int] = ()) -> str:
    """Return a string that describes an object's content and is the same in every process.

    Parameters
    ----------
    thing : object
        A plain value, an array, a function, a dataclass, or a list, dict or set of these; or an
        object whose attribute ``identity`` is a string that describes it.
    apart : collection of int
        The ids of Tensors whose values are left out.

    Raises
    ------
    TypeError
        If the object contains anything else.

    Examples
    --------
    >>> describe([np.tanh, 0.5, np.dtype("float32")])
    "list[numpy.tanh, 0.5, dtype('float32')]"
    >>> describe(lambda x: x**2) == describe(lambda x: x**3)
    False
    """
    try:
        return Description(apart).of(thing)
    except RecursionError:
        raise refusal(thing, "is nested too deep") from None


class Description:
    """The state of `describe`: the Tensors to leave out, and the objects around the current one."""

    def __init__(self, apart: Collection[int]) -> None:
        self.apart = apart
        self.within: list[int] = []

    def of(self, thing: Any) -> str:
        if isinstance(thing, ATOMS) and type(thing).__module__ in ("builtins", "numpy.dtypes"):
            return repr(thing)
        if id(thing) in self.within:
            return f"itself, {len(self.within) - self.within.index(id(thing))} up"
        self.within.append(id(thing))
        text = self.compound(type(thing), thing)
        self.within.pop()
        return text

    def all(self, things: Iterable[Any]) -> str:
        return ", ".join(map(self.of, things))

    def named(self, pairs: Iterable[tuple[str, Any]]) -> str:
        return ", ".join(f"{name}={self.of(part)}" for name, part in pairs)

    def compound(self, kind: type, thing: Any) -> str:
        if isinstance(thing, np.generic):
            return f"{thing.dtype} {thing.tobytes().hex()}"
        if kind is np.ndarray and not thing.dtype.hasobject:
            return f"{thing.dtype} {thing.shape} {digest(thing)}"
        if kind is Tensor:
            values = "" if id(thing) in self.apart else f" {digest(thing.data)}"
            return f"trained {thing.dtype} {thing.shape}{values}"
        if kind in (set, frozenset):  # sort the items: their order differs between processes
            return f"{kind.__name__}[{', '.join(sorted(map(self.of, thing)))}]"
        if isinstance(thing, tuple) or kind is list:
            return f"{kind.__name__}[{self.all(thing)}]"
        if kind in (dict, types.MappingProxyType):
            return f"dict[{self.all(thing.items())}]"
        if kind is types.FunctionType:
            cells = zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True)
            parts = [*((name, cell.cell_contents) for name, cell in cells), *vars(thing).items()]
            parts += [("defaults", (thing.__defaults__, thing.__kwdefaults__))]
            code = code_digest(thing.__code__)
            return f"{thing.__module__}.{thing.__qualname__}({code}, {self.named(parts)})"
        if kind in (types.MethodType, classmethod, staticmethod):
            return f"method {self.all((getattr(thing, '__self__', None), thing.__func__))}"
        if kind is functools.partial:
            return f"partial {self.all((thing.func, thing.args, thing.keywords))}"
        if isinstance(getattr(thing, "identity", None), str):
            return f"{kind.__qualname__} {thing.identity!r}"
        if isinstance(thing, type):
            title = f"{thing.__module__}.{thing.__qualname__}"
            ours = title.partition(".")[0] in OURS
            return title if ours else f"{title}({self.named(members(thing))})"
        if dataclasses.is_dataclass(thing):
            return f"{self.of(kind)}({self.named(attributes(thing))})"
        name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", "")
        for home in (getattr(thing, "__module__", None) or "numpy", "numpy"):
            if name and getattr(sys.modules.get(home), name, None) is thing:
                return f"{home}.{name}"
        raise refusal(thing, "cannot be recognised in another process")


def refusal(thing: Any, why: str) -> TypeError:
    name = f"{type(thing).__module__}.{type(thing).__qualname__}"
    return TypeError(
        f"a {name} {why}: make it a dataclass or a function of plain values, or name the run"
        " yourself (identity=)"
    )


def attributes(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield names and values of a dataclass's fields and other attributes, but no cached ones."""
    names = dict.fromkeys(field.name for field in dataclasses.fields(thing))
    for name in names | dict.fromkeys(getattr(thing, "__dict__", ())):
        if not isinstance(vars(type(thing)).get(name), functools.cached_property):
            yield name, getattr(thing, name)


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the bases, methods and values of a class, except those that Python generated."""
    yield "bases", cls.__bases__
    for name, member in sorted(vars(cls).items()):
        part = getattr(member, "fget", None) or getattr(member, "func", member)
        if isinstance(part, types.FunctionType):
            if "__create_fn__" not in part.__code__.co_qualname:
                yield name, part
        elif not (name.startswith("__") or isinstance(part, types.MemberDescriptorType)):
            yield name, part


def code_digest(code: types.CodeType) -> str:
    """Return a fingerprint of a function's code, independent of its location."""
    constants = [
        code_digest(part) if isinstance(part, types.CodeType) else describe(part)
        for part in code.co_consts
    ]
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_flags
    places = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount
    told = (code.co_code, code.co_exceptiontable, names, places, constants)
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]
