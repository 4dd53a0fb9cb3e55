"""A run of `fit` on disk: all that the next step depends on, written completely or not at all, no
pickles.

A file fits a run of the same `identity`: everything that it computes with, in words, as a numbered
graph.
"""

from __future__ import annotations

import copyreg
import dataclasses
import dis
import functools
import hashlib
import json
import os
import platform
import re
import sys
import types
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np

from lora_np.autograd import Tensor
from lora_np.checks import Array, brief, finite, whole_number
from lora_np.files import open_regular, write_whole
from lora_np.nn import trainable
from lora_np.version import __version__


class CheckpointError(ValueError):
    """A checkpoint that is damaged, or that belongs to another run.

    Examples
    --------
    >>> import tempfile
    >>> from lora_np.nn import Linear
    >>> from lora_np.training import fit
    >>> model, x, path = Linear(Tensor(np.zeros((2, 2)))), np.eye(2), f"{tempfile.mkdtemp()}/run"
    >>> _ = fit(model, x, x, steps=2, checkpoint=path, progress=False)
    >>> fit(model, x, 3 * x, steps=2, checkpoint=path, resume=True, progress=False)
    Traceback (most recent call last):
        ...
    lora_np.training.checkpoint.CheckpointError: ... belongs to another run: its data is ...
    """


class Checkpoint:
    """A file that a run saves itself to, and continues from if it exists and ``resume`` asks for
    it.

    A ``training`` is that of ``fitting.py``.
    """

    def __init__(self, path: Path, training: Any, *, resume: bool) -> None:
        self.path, self.training, self.identity = path, training, identity(training)
        if not self.path.absolute().parent.is_dir():
            raise ValueError(
                f"{self.path.parent}: no such directory to write {self.path.name} into"
            )
        if not self.path.exists():
            return
        arrays, facts = self.read()
        if not resume:
            raise FileExistsError(
                f"{self.path} already exists: pass resume=True (--resume), or delete it"
            )
        for name, ours in self.identity.items():
            theirs = facts["identity"].get(name)
            if theirs != ours:
                both = f"its {name} is {short(theirs, ours)}, here it is {short(ours, theirs)}"
                # too long to show
                said = f"what differs is {name}" if name.startswith("the ") else both
                raise CheckpointError(f"{self.path} belongs to another run: {said}")
        try:
            self.restore(arrays, facts)
        except (
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            OverflowError,
            IndexError,
        ) as error:
            raise self.damaged(error) from None

    def restore(self, arrays: dict[str, Array], facts: dict[str, Any]) -> None:
        """Restore what was saved, once all of it has been checked: completely or not at all."""
        training = self.training
        for name, current in moved_by(training).items():
            fits(name, arrays[name], current)
        lowest = [arrays[name] for name in sorted(arrays) if name.startswith("lowest.")]
        for saved, bank in zip(lowest, training.run.banks if lowest else (), strict=True):
            fits("lowest", saved, bank.values)
        order, position = arrays["order"], whole_number("position", facts["position"], minimum=0)
        steps = whole_number("steps", facts["steps"], minimum=0)
        size = order.size and len(getattr(training.data, "x", ()))  # 0 before the first draw
        fits("order", np.sort(order), np.arange(size, dtype=training.data.order.dtype))
        if position > size or not np.array_equal(np.sort(order), np.arange(size)):
            raise ValueError(
                f"order must hold each row once, and position be in it, got {position}"
            )
        loss = arrays["loss"]
        fits("loss", loss, np.broadcast_to(0.0, steps))
        validated = [
            (whole_number("step", at, minimum=0), float(error)) for at, error in facts["validated"]
        ]
        moments = [-1, *(step for step, _ in validated), steps + 1]
        if any(after <= before for before, after in pairwise(moments)):
            raise ValueError(f"validated must go up to step {steps}, got {validated}")
        training.rng.bit_generator.state = facts["random"]
        for i, bank in enumerate(training.run.banks):
            bank.values[...] = arrays[f"values.{i}"]
            for vector, saved in zip(bank.state, arrays[f"state.{i}"], strict=True):
                vector[...] = saved
        training.run.steps = steps
        training.data.order, training.data.position = order, position
        training.loss[:], training.validated[:], training.lowest[:] = (
            loss.tolist(),
            validated,
            lowest,
        )

    def read(self) -> tuple[dict[str, Array], dict[str, Any]]:
        try:
            with open_regular(self.path) as stream:
                arrays = arrays_in(stream)
            facts = json.loads(str(arrays.pop("facts")))
            if not isinstance(facts, dict) or not isinstance(facts.get("identity"), dict):
                raise ValueError("it does not say which run it is of")
            if facts["sum"] != digest(*arrays.values()):
                raise ValueError("its sum does not match its content")
        except Exception as error:  # whatever zipfile, zlib and NumPy raise for arbitrary bytes
            raise self.damaged(error) from None
        return arrays, facts

    def damaged(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"{self.path} is not a whole checkpoint ({brief(str(error), 300)}): name another file,"
            " or if it once was one, delete it to start again"
        )

    def save(self) -> None:
        """Write the state of the run, after a step."""
        training = self.training
        arrays = {
            "loss": np.array(training.loss),
            "order": training.data.order,
            **moved_by(training),
        }
        arrays |= {f"lowest.{i:04}": values for i, values in enumerate(training.lowest)}
        facts = {
            "identity": self.identity,
            "steps": training.run.steps,
            "position": training.data.position,
            "validated": training.validated,
            "random": training.rng.bit_generator.state,
            "sum": digest(*arrays.values()),
        }
        arrays["facts"] = np.array(json.dumps(facts, default=np.ndarray.tolist))
        write_whole(self.path, lambda file: np.savez(file, **arrays))


def identity(training: Any) -> dict[str, str]:
    """What must be the same for a checkpoint to fit, each in words."""
    settings = {
        **training.data.identity,
        "validation": training.data.validation,
        "model": training.model,
        "optimizer": training.run.optimizer,
        "clip": training.run.clip,
        "accumulate": training.accumulate,
        "patience": training.patience,
    }
    leaves = trainable(training.model)
    run = Description(apart=[leaf for _, leaf in leaves])
    return {
        "versions": versions(),
        **{name: run.of(setting) for name, setting in settings.items()},
        **{
            f"the first values of {path or 'the model'}": digest(leaf.data) for path, leaf in leaves
        },
        "generator": type(training.rng.bit_generator).__name__,
        "the state of rng": describe(training.rng.bit_generator.state),
    }


def moved_by(training: Any) -> dict[str, Array]:
    """What a step moves: the values of each bank, and the optimizer's state."""
    banks = list(enumerate(training.run.banks))
    values = {f"values.{i}": bank.values for i, bank in banks}
    return values | {f"state.{i}": np.array(bank.state) for i, bank in banks}


def arrays_in(stream: IO[bytes]) -> dict[str, Array]:
    """The arrays that `numpy.savez` has written; a small file that claims to be large is
    refused.
    """
    with zipfile.ZipFile(stream) as file:
        members = file.infolist()
    stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
    if (
        not stored
        or sum(member.file_size for member in members) > os.fstat(stream.fileno()).st_size
    ):
        raise ValueError("it is compressed, which a checkpoint never is")
    stream.seek(0)
    with np.load(stream, allow_pickle=False) as arrays:
        return dict(arrays)


def fits(name: str, saved: Array, current: Array) -> None:
    if saved.shape != current.shape or saved.dtype != current.dtype:
        raise ValueError(
            f"{name} is {saved.dtype} {saved.shape}, not {current.dtype} {current.shape}"
        )
    finite(name, saved)


def short(text: Any, other: Any) -> str:
    """What differs in ``text`` from ``other``, with a few words around it: a description can be
    long.
    """
    text, other = str(text), str(other)
    start = max(0, len(os.path.commonprefix([text, other])) - 40)  # noqa: RUF071  (characters are meant)
    part = brief(text[start : start + 100], 100)
    return f"{'... ' * (start > 0)}{part}{' ...' * (len(text) > start + 100)}"


ATOMS = (type(None), type(...), type(NotImplemented), bool, int, float, complex, str, bytes)
PARTS: dict[type, Callable[[Any], Any]] = {  # the built-in values that subclasses are made of
    types.MethodType: lambda thing: (thing.__self__, thing.__func__),
    types.MappingProxyType: dict,
    staticmethod: lambda thing: thing.__func__,
    classmethod: lambda thing: thing.__func__,
    functools.cached_property: lambda thing: thing.func,
    property: lambda thing: (thing.fget, thing.fset, thing.fdel),
    np.ndarray: lambda thing: thing.view(np.ndarray),
}
DULL = {  # class attributes that no number depends on, or that are described as fields
    *(
        "__dict__",
        "__weakref__",
        "__doc__",
        "__module__",
        "__qualname__",
        "__annotations__",
        "__repr__",
    ),
    *("__dataclass_fields__", "__match_args__", "__abstractmethods__", "_abc_impl", "__slots__"),
    *("__firstlineno__", "__static_attributes__", "__annotate_func__", "__annotations_cache__"),
    *("__orig_bases__", "__parameters__", "__type_params__", "__slotnames__"),
}


class UnknownIdentityError(TypeError):
    """Something that cannot be recognised in another process."""


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


def describe(thing: Any) -> str:
    """``thing`` in words: the same in every process, and different if anything about it differs.

    Parameters
    ----------
    thing : object
        Data, arrays, functions, classes, and objects whose state can be read: as attributes, or as
        pickle reads it. Code is followed as far as modules that have a version.

    Raises
    ------
    UnknownIdentityError
        If it holds something with a state that cannot be read.

    Examples
    --------
    >>> describe([np.tanh, 0.5, np.dtype("float32")])
    "list[numpy.tanh, 0.5, dtype('float32')]"
    >>> describe(lambda x: x**2) == describe(lambda x: x**3)
    False
    >>> a, b = [1], [1]
    >>> describe([a, b, a]), describe([a, b, b])
    ('list[list[1], list[1], #1]', 'list[list[1], list[1], #2]')
    """
    return Description().of(thing)


class Description:
    """A description that grows: whatever it has described once becomes a number."""

    def __init__(self, apart: Iterable[Tensor] = ()) -> None:
        self.apart = set(map(id, apart))  # leaves whose values are compared one by one
        self.numbers: dict[Any, int] = {}
        self.kept: list[Any] = []  # so that no id is given twice

    def of(self, thing: Any) -> str:
        """``thing`` in words, with numbers for what came before."""
        kind = type(thing)
        if kind in ATOMS:  # and hex, since Python refuses to print a long number
            return hex(thing) if kind is int and abs(thing) >= 2**64 else repr(thing)
        if isinstance(thing, (np.generic, np.dtype)) and kind.__module__.startswith("numpy"):
            exact = thing.tobytes().hex() if isinstance(thing, np.void) else repr(thing)
            return exact if isinstance(thing, np.dtype) else f"{thing.dtype} {exact}"
        if kind is types.ModuleType:
            return self.module(thing, set())
        if (name := named(thing)) is not None:
            return name
        # Equal tuples may be one object or several, as the compiler likes.
        if (
            kind not in (tuple, frozenset)
            and (number := self.repeats(id(thing), thing)) is not None
        ):
            return number
        try:
            return self.first(kind, thing)
        except RecursionError:
            raise UnknownIdentityError(
                f"a {kind.__qualname__} is nested too deep to be recognised"
            ) from None

    def all(self, things: Iterable[Any]) -> str:
        return ", ".join(map(self.of, things))

    def repeats(self, key: Any, thing: Any) -> str | None:
        """The number of something described before; the first time, a new one and None."""
        if key in self.numbers:
            return f"#{self.numbers[key]}"
        self.numbers[key] = len(self.numbers)
        self.kept.append(thing)
        return None

    def first(self, kind: type, thing: Any) -> str:
        """The description of something for the first time."""
        if kind is np.ndarray:
            # sums may depend on it
            order = "" if thing.flags.c_contiguous else f" strides {thing.strides}"
            values = self.all(thing.ravel()) if thing.dtype.hasobject else digest(thing)
            return f"{thing.dtype} {thing.shape}{order} {values}"
        if kind is Tensor:
            values = "" if id(thing) in self.apart else f" {digest(thing.data)}"
            return f"trained {thing.dtype} {thing.shape}{values}"
        if kind in (set, frozenset):  # whose own order depends on the process
            thing = sorted(thing, key=describe)
        if kind in (tuple, list, set, frozenset):
            return f"{kind.__name__}[{self.all(thing)}]"
        if kind is dict:
            return f"{{{', '.join(f'{self.of(k)}: {self.of(v)}' for k, v in thing.items())}}}"
        if kind is types.FunctionType:
            return self.function(thing)
        if kind in PARTS:
            return f"{kind.__name__} {self.of(PARTS[kind](thing))}"
        return self.class_(thing) if isinstance(thing, type) else self.object_(kind, thing)

    def object_(self, kind: type, thing: Any) -> str:
        """Its class, its attributes, and the value it is based on or what pickle would keep of
        it.
        """
        if kind.__module__.startswith("lora_np.") and isinstance(
            getattr(thing, "identity", None), str
        ):
            return f"{self.of(kind)} {thing.identity!r}"  # it describes itself
        attributes = attributes_of(thing)  # first: some make a dict that is asked for
        parts = [part(thing) for base, part in PARTS.items() if isinstance(thing, base)] or pickled(
            thing
        )
        if parts is None:
            raise UnknownIdentityError(
                f"a {kind.__module__}.{kind.__qualname__} cannot be recognised in another process; "
                "pass it as a dataclass, or make it a module-level function of plain values"
            )
        title = self.of(kind)
        told = (f"{safe(name)}={self.of(held)}" for name, held in attributes.items())
        return f"{title}({', '.join(told)}){f' {self.of(parts)}' if parts else ''}"

    def function(self, function: types.FunctionType) -> str:
        """Its name and code, with its closure, its defaults, and the names that it looks up."""
        code, names = function.__code__, function.__globals__
        # A version says what a function is; what it closes over, such as a schedule's rate, is
        # ours.
        version = version_of(names.get("__name__"))
        parts = [self.code(code)]
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            with suppress(ValueError):  # nothing is in it yet
                parts.append(f"{name}={self.of(cell.cell_contents)}")
        if function.__defaults__ or function.__kwdefaults__:
            parts.append(f"defaults={self.of((function.__defaults__, function.__kwdefaults__))}")
        parts += [f"{safe(name)}={self.of(held)}" for name, held in sorted(vars(function).items())]
        if version is None:
            steps = (step for inner in codes(code) for step in dis.get_instructions(inner))
            used = {step.argval for step in steps if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
            attributes = {name for inner in codes(code) for name in inner.co_names}
            parts += [
                self.found(name, names[name], attributes) for name in sorted(used & names.keys())
            ]
            parts += [self.module(module, attributes) for module in imported(code, names)]
        name = safe(f"{function.__module__}.{function.__qualname__}")
        return f"{name}{version or ''}({', '.join(parts)})"

    def found(self, name: str, thing: Any, names: set[str]) -> str:
        """What a name means; of a module, what ``names`` mean in it."""
        is_module = isinstance(thing, types.ModuleType)
        return f"{name}={self.module(thing, names) if is_module else self.of(thing)}"

    def code(self, code: types.CodeType) -> str:
        """What a function does, except where its source is."""
        told = [
            self.code(c) if isinstance(c, types.CodeType) else self.of(c) for c in code.co_consts
        ]
        for part in ("code", "exceptiontable", "names", "varnames", "freevars", "flags"):
            told.append(repr(getattr(code, f"co_{part}")))
        told.append(repr((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)))
        return hashlib.sha256(repr(told).encode()).hexdigest()[:16]

    def class_(self, cls: type) -> str:
        """Its name, its own class and bases, and what it holds: the code of its methods, and
        values.
        """
        parts = [self.all((type(cls), *cls.__bases__))]
        for name, member in sorted(vars(cls).items()):
            code = getattr(member, "__code__", None)
            written = code is not None and "__create_fn__" in code.co_qualname  # by @dataclass
            if not (name in DULL or written or isinstance(member, types.MemberDescriptorType)):
                parts.append(f"{safe(name)}={self.of(member)}")
        for field in dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ():
            parts.append(f"{field.name} by {self.of(field.default_factory)}")
        return f"{safe(f'{cls.__module__}.{cls.__qualname__}')}{{{', '.join(parts)}}}"

    def module(self, module: types.ModuleType, names: set[str]) -> str:
        """Its version; without one, what ``names`` mean in it, or its source if they mean
        nothing.
        """
        title = f"module {module.__name__}"
        version = version_of(module.__name__)
        if version is not None:
            return f"{title}{version}"
        if (number := self.repeats((id(module), frozenset(names)), module)) is not None:
            return number
        for name in names - vars(module).keys() if hasattr(module, "__path__") else ():
            # a module in a package is there once somebody has imported it
            with suppress(ImportError):
                import_module(f"{module.__name__}.{name}")
        parts = [
            self.found(name, vars(module)[name], names)
            for name in sorted(names & vars(module).keys())
        ]
        if not parts:
            source = getattr(module, "__file__", None)
            if not source:
                raise UnknownIdentityError(
                    f"the module {module.__name__} has neither a version nor a file"
                )
            parts.append(hashlib.sha256(Path(source).read_bytes()).hexdigest()[:16])
        return f"{title}({', '.join(parts)})"


def safe(name: str) -> str:
    """A name, in quotes if it could be taken for anything else."""
    return name if re.fullmatch(r"[\w.<>]+", name) else repr(name)


def attributes_of(thing: Any) -> dict[str, Any]:
    """What an object holds in slots and in its dict, without cached properties."""
    state: Any = object.__getstate__(thing)
    parts = state if isinstance(state, tuple) else (state,)
    held = {name: part[name] for part in parts if part for name in part}
    members = {
        name: member
        for base in reversed(type(thing).__mro__)
        for name, member in vars(base).items()
    }
    cached = {
        name for name, member in members.items() if isinstance(member, functools.cached_property)
    }
    return {name: held[name] for name in sorted(held.keys() - cached - DULL)}


def pickled(thing: Any) -> list[Any] | None:
    """What pickle keeps besides an object's attributes; None if it refuses, or keeps only a
    name.
    """
    kind = type(thing)
    reduce: Any = copyreg.dispatch_table.get(kind)
    try:
        kept = reduce(thing) if reduce else thing.__reduce_ex__(4)
    except Exception:  # whatever an unpicklable class raises
        return None
    if isinstance(kept, str):  # of functools.cache: the rest is what it wraps, an attribute
        return [] if hasattr(thing, "__wrapped__") else None
    make, args, held, *items = kept if len(kept) > 2 else (*kept, None)
    parts = [*args[1:]] if make is vars(copyreg)["__newobj__"] else [make, args]
    methods = ("__reduce__", "__reduce_ex__", "__getstate__")
    if reduce or any(getattr(kind, name) is not getattr(object, name) for name in methods):
        parts.append(held)  # otherwise the attributes
    return parts + [list(each) for each in items if each is not None]


def named(thing: Any) -> str | None:
    """The name of a library's object, with the version that determines what it is."""
    name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None)
    homes = [getattr(thing, "__module__", None)]
    if isinstance(thing, np.ufunc):  # which does not know where it is from
        name, homes = thing.__name__, ["numpy", *sorted(sys.modules)]
    if not isinstance(name, str):
        return None
    if (
        isinstance(thing, types.FunctionType)
        and version_of(thing.__globals__.get("__name__")) is None
    ):
        return None  # put there by other code
    # Not every type of the interpreter is in a module.
    in_c = isinstance(thing, type) and not thing.__flags__ & 2**9
    for home in homes:
        version = version_of(home) if in_c or holds(home, name, thing) else None
        if version is not None:
            return f"{home}.{name}{version}"
    return None


def holds(module: Any, name: str, thing: Any) -> bool:
    """Whether a module has ``thing`` under a dotted name."""
    found: Any = sys.modules.get(module) if isinstance(module, str) else None
    # a module may do anything where it is asked for what it does not have
    for part in name.split("."):
        found = (
            vars(found).get(part)
            if isinstance(found, types.ModuleType)
            else getattr(found, part, None)
        )
    return found is thing


@functools.cache
def version_of(module: str | None) -> str | None:
    """Of the library that a module is in, as an ending; None for a module whose code may change any
    time.

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
    version = getattr(found, "__version__", None)
    return None if version is None else f" {version}"


def codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code of a function, and of functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes(constant)


def imported(code: types.CodeType, where: dict[str, Any]) -> Iterator[types.ModuleType]:
    """Modules that a function imports when it is called."""
    for inner in codes(code):
        steps = list(dis.get_instructions(inner))
        for level, _, step in zip(steps, steps[1:], steps[2:], strict=False):
            if step.opname == "IMPORT_NAME":
                with suppress(ImportError):  # a library that is not installed
                    yield import_module("." * level.argval + step.argval, where.get("__package__"))
