"""What a run is, in words that a person can read and a program can compare.

A run that is continued, or whose result is looked up, must be the same in all that its numbers depend on:
the structure of the model, the code of its activations, of the loss and of the optimizer, the data, and the
versions of what computes. Each is described here, and what cannot be described is refused.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import platform
import types
from typing import Any

import numpy as np

from lora_np.autograd import Tensor
from lora_np.checks import Array
from lora_np.quantise import Quantised
from lora_np.version import __version__


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
        Numbers, text, arrays, functions and what is made of them: tuples, lists, dicts, dataclasses.
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
    """One description; functions that call themselves are followed once."""

    def __init__(self, trained: bool) -> None:
        self.trained = trained
        self.seen: set[int] = set()

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
        if isinstance(thing, np.ufunc):
            return f"numpy.{thing.__name__}"
        if isinstance(thing, types.ModuleType):
            return f"module {thing.__name__} {getattr(thing, '__version__', '')}".rstrip()
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
        if callable(thing) and getattr(thing, "__module__", None) and hasattr(thing, "__qualname__"):
            return f"{thing.__module__}.{thing.__qualname__}"  # a class, or a function in C
        if dataclasses.is_dataclass(thing):
            values = ", ".join(
                f"{field.name}={self.of(getattr(thing, field.name))}" for field in dataclasses.fields(thing)
            )
            return f"{type(thing).__qualname__}({values})"
        if isinstance(identity := getattr(thing, "identity", None), str):  # it says itself what it is
            return f"{type(thing).__qualname__} {identity}"
        raise UnknownIdentityError(
            f"a {type(thing).__module__}.{type(thing).__qualname__} cannot be recognised in another process; "
            "pass it as a dataclass, or make it a module-level function of plain values"
        )

    def function(self, function: types.FunctionType) -> str:
        """Its name and code, with what it closes over, its defaults, and the names that it looks up."""
        title = f"{function.__module__}.{function.__qualname__}"
        if function.__module__.split(".")[0] in ("lora_np", "numpy"):
            # Their versions say what they are; what they close over, such as a schedule's rate, is ours.
            looked_up: list[str] = []
        else:
            looked_up = sorted(names_in(function.__code__) & function.__globals__.keys())
        if id(function) in self.seen:
            return title
        self.seen.add(id(function))
        parts = [hashlib.sha256(repr(code_of(function.__code__)).encode()).hexdigest()[:16]]
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        parts += [f"{free}={self.of(cell.cell_contents)}" for free, cell in cells]
        if function.__defaults__ or function.__kwdefaults__:
            parts.append(f"defaults={self.of((function.__defaults__, function.__kwdefaults__))}")
        parts += [f"{name}={self.of(function.__globals__[name])}" for name in looked_up]
        return f"{title}({', '.join(parts)})"


def names_in(code: types.CodeType) -> set[str]:
    """Names that a function looks up, in functions inside it too."""
    inner = [names_in(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*inner)


def code_of(code: types.CodeType) -> tuple[Any, ...]:
    """What a function does, except where its source is."""
    constants = [code_of(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars
