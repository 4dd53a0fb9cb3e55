"""What a run is, in words that a person can read and a program can compare.

A run that is continued, or whose result is looked up, must be the same in all that its numbers depend on:
the structure of the model, the code of its activations, of the loss and of the optimizer, the data, and the
versions of what computes. Each is described here, and what cannot be described is refused.
"""

from __future__ import annotations

import dataclasses
import dis
import functools
import hashlib
import os
import platform
import sys
import types
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from lora_np.autograd import Tensor
from lora_np.checks import Array
from lora_np.quantise import Quantised
from lora_np.version import __version__

_DULL = {  # what a class holds that no number depends on, or that is described as a field
    *("__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__repr__", "_abc_impl"),
    *("__dataclass_fields__", "__dataclass_params__", "__match_args__", "__abstractmethods__"),
    *("__firstlineno__", "__static_attributes__", "__annotate_func__", "__annotations_cache__"),
    *("__orig_bases__", "__parameters__", "__type_params__"),
}


class UnknownIdentityError(TypeError):
    """Something of which nobody can say whether it is the same in another process."""


def versions() -> str:
    """Of what computes.

    Examples
    --------
    >>> versions().split()[0]
    'lora_np'
    """
    return f"lora_np {__version__}, numpy {np.__version__}, python {platform.python_version()}"


def digest(*arrays: Array) -> str:
    """A fingerprint of shapes, dtypes and values."""
    sha = hashlib.sha256()
    for a in arrays:
        sha.update(f"{a.shape} {a.dtype.str}".encode())
        sha.update(np.ascontiguousarray(a).tobytes())
    return sha.hexdigest()[:16]


def describe(thing: Any, *, trained: bool = False) -> str:
    """``thing`` in words: the same in every process, and another one if anything about it is.

    Parameters
    ----------
    thing : object
        Numbers, text, arrays, functions, classes and what is made of them: tuples, lists, dicts, dataclasses
        (with the code of their methods). Code is followed as far as modules that have a version.
    trained : bool
        Whether a Tensor is described by its values too, not only by shape and dtype.

    Raises
    ------
    UnknownIdentityError
        If it is, or a function closes over, something else: an object with a state that cannot be read.

    Examples
    --------
    >>> describe([np.tanh, 0.5, np.dtype("float32")])
    '[numpy.tanh, 0.5, float32]'
    >>> describe(lambda x: x**2) == describe(lambda x: x**3)
    False
    """
    return Description(trained).of(thing)


class Description:
    """One description; each function, class and module is followed once."""

    def __init__(self, trained: bool) -> None:
        self.trained = trained
        self.seen: set[Any] = set()

    def of(self, thing: Any) -> str:
        if thing is None or thing is Ellipsis or isinstance(thing, (bool, int, float, complex, str, bytes)):
            return repr(thing)
        if isinstance(thing, (np.generic, np.dtype)):
            return str(thing) if isinstance(thing, np.dtype) else f"{thing.dtype} {thing!r}"
        if isinstance(thing, Tensor):
            values = f" {digest(thing.data)}" if self.trained else ""
            return f"trained {thing.dtype} {thing.shape}{values}"
        if isinstance(thing, np.ndarray):
            return f"{thing.dtype} {thing.shape} {digest(thing)}"
        if isinstance(thing, Quantised):
            return f"{type(thing).__name__} {digest(thing.dequantised())}"
        if isinstance(thing, np.ufunc) and not thing.__name__.endswith("(vectorized)"):  # of np.frompyfunc
            return f"numpy.{thing.__name__}"
        if isinstance(thing, types.ModuleType):
            return self.module(thing, set())
        if isinstance(thing, (tuple, list, frozenset, set)):
            items = (
                sorted(map(self.of, thing)) if isinstance(thing, (set, frozenset)) else map(self.of, thing)
            )
            left, right = "()" if isinstance(thing, tuple) else "[]"
            return f"{left}{', '.join(items)}{right}"
        if isinstance(thing, (dict, types.MappingProxyType)):
            return f"{{{', '.join(f'{self.of(k)}: {self.of(v)}' for k, v in thing.items())}}}"
        if isinstance(thing, functools.partial):
            return f"partial({self.of(thing.func)}, {self.of(thing.args)}, {self.of(thing.keywords)})"
        if isinstance(thing, types.MethodType):
            return f"{self.of(thing.__self__)}.{self.of(thing.__func__)}"
        if isinstance(thing, types.FunctionType):
            return self.function(thing)
        if isinstance(thing, type):
            return self.class_(thing)
        if callable(thing) and getattr(thing, "__module__", None) and hasattr(thing, "__qualname__"):
            version = version_of(thing.__module__)
            if version is not None:  # a function in C
                return f"{thing.__module__}.{thing.__qualname__}{version}"
            if hasattr(thing, "__wrapped__"):  # by functools.cache and the like
                return f"{type(thing).__qualname__} of {self.of(thing.__wrapped__)}"
        if dataclasses.is_dataclass(thing):
            values = ", ".join(
                f"{field.name}={self.of(getattr(thing, field.name))}" for field in dataclasses.fields(thing)
            )
            return f"{type(thing).__qualname__}({values}){self.methods(type(thing))}"
        if isinstance(identity := getattr(thing, "identity", None), str):  # it says itself what it is
            return f"{type(thing).__qualname__} {identity}"
        raise UnknownIdentityError(
            f"a {type(thing).__module__}.{type(thing).__qualname__} cannot be recognised in another process; "
            "pass it as a dataclass, or make it a module-level function of plain values"
        )

    def function(self, function: types.FunctionType) -> str:
        """Its name and code, with what it closes over, its defaults, and the names that it looks up."""
        title = f"{function.__module__}.{function.__qualname__}"
        if function in self.seen:
            return title
        self.seen.add(function)
        names = names_in(function.__code__)
        # A version says what a function is; what it closes over, such as a schedule's rate, is ours.
        version = version_of(function.__module__)
        looked_up = sorted(names & function.__globals__.keys()) if version is None else []
        parts = [hashlib.sha256(repr(code_of(function.__code__)).encode()).hexdigest()[:16]]
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        parts += [f"{free}={self.of(cell.cell_contents)}" for free, cell in cells]
        if function.__defaults__ or function.__kwdefaults__:
            parts.append(f"defaults={self.of((function.__defaults__, function.__kwdefaults__))}")
        for name in looked_up:
            found = function.__globals__[name]
            told = self.module(found, names) if isinstance(found, types.ModuleType) else self.of(found)
            parts.append(f"{name}={told}")
        if version is None:
            parts += [
                self.module(found, names) for found in imports_in(function.__code__, function.__globals__)
            ]
        return f"{title}{version or ''}({', '.join(parts)})"

    def class_(self, cls: type) -> str:
        """Its name, with its code if no version says what that is."""
        return f"{cls.__module__}.{cls.__qualname__}{version_of(cls.__module__) or ''}{self.methods(cls)}"

    def methods(self, cls: type) -> str:
        """The code of a class and of its bases, and the values that they hold, where no version says it."""
        parts = []
        for base in cls.__mro__:
            if base in self.seen or version_of(base.__module__) is not None:
                continue
            self.seen.add(base)
            for name, member in sorted(vars(base).items()):
                if name in _DULL or isinstance(member, types.MemberDescriptorType):
                    continue
                if isinstance(member, (staticmethod, classmethod)):
                    member = member.__func__
                elif isinstance(member, functools.cached_property):
                    member = member.func
                elif isinstance(member, property):
                    member = (member.fget, member.fset)
                code = getattr(member, "__code__", None)
                if code is None or "__create_fn__" not in code.co_qualname:  # which @dataclass wrote
                    parts.append(f"{name}={self.of(member)}")
        return f" {{{', '.join(parts)}}}" if parts else ""

    def module(self, module: types.ModuleType, names: set[str]) -> str:
        """Its version; without one, what ``names`` mean in it, or its source if they mean nothing."""
        title = f"module {module.__name__}"
        version = version_of(module.__name__)
        if version is not None:
            return f"{title}{version}"
        key = (module, frozenset(names))
        if key in self.seen:
            return title
        self.seen.add(key)
        used = {name: vars(module)[name] for name in sorted(names & vars(module).keys())}
        parts = [
            f"{name}={self.module(found, names) if isinstance(found, types.ModuleType) else self.of(found)}"
            for name, found in used.items()
        ]
        if not parts:
            source = getattr(module, "__file__", None)
            if not source:
                raise UnknownIdentityError(f"the module {module.__name__} has neither a version nor a file")
            parts.append(hashlib.sha256(Path(source).read_bytes()).hexdigest()[:16])
        return f"{title}({', '.join(parts)})"


@functools.cache
def version_of(module: str | None) -> str | None:
    """Of the library that a module is in, as an ending; None for a module whose code may change any time.

    Examples
    --------
    >>> version_of("__main__"), version_of("math")
    (None, '')
    """
    top = (module or "").partition(".")[0]
    if top in ("lora_np", "numpy", "builtins"):  # the versions of a run hold theirs
        return ""
    found = sys.modules.get(top)
    file = os.path.abspath(getattr(found, "__file__", None) or os.__file__)
    if top in sys.stdlib_module_names and file.startswith(os.path.dirname(os.__file__)):
        return ""
    if not {"site-packages", "dist-packages"} & set(Path(file).parts):
        return None
    from importlib import metadata  # dear, and seldom wanted

    try:
        return f" {metadata.version(top)}"
    except metadata.PackageNotFoundError:
        version = getattr(found, "__version__", None)
        return None if version is None else f" {version}"


def imports_in(code: types.CodeType, where: dict[str, Any]) -> Iterator[types.ModuleType]:
    """Modules that a function imports when it is called."""
    before: list[Any] = [None, None]
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME":
            with suppress(ImportError):  # a library that is not there
                yield import_module("." * before[-2] + instruction.argval, where.get("__package__"))
        before.append(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from imports_in(constant, where)


def names_in(code: types.CodeType) -> set[str]:
    """Names that a function looks up, in functions inside it too."""
    inner = [names_in(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*inner)


def code_of(code: types.CodeType) -> tuple[Any, ...]:
    """What a function does, except where its source is."""
    constants = [
        code_of(c)
        if isinstance(c, types.CodeType)
        else repr(sorted(map(repr, c)) if isinstance(c, frozenset) else c)  # which has no order
        for c in code.co_consts
    ]
    return code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars
