"""PEFT's adapter directories: the only place that knows a PEFT key.

What is saved here loads in PEFT, and what PEFT saved opens here. An `Adapter` reads a tensor when it is asked
for it, so that an adapter of any size can be gone through one module at a time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_np.adapters import config as settings
from lora_np.adapters.config import AdapterConfig
from lora_np.checks import Array
from lora_np.hub import (
    FLOATS,
    HubError,
    SafetensorsFile,
    SafetensorsWriter,
    TensorInfo,
    directory,
    float_dtype,
    inside,
    refuse_pickles,
    safetensors,
)

WEIGHTS = "adapter_model.safetensors"
METADATA = {"format": "pt"}
PREFIX = "base_model.model."

# What follows a module's path in a key: the part that it holds, and whether it belongs to an embedding.
_PARTS = {
    ("lora_A", "weight"): ("A", False),
    ("lora_B", "weight"): ("B", False),
    ("lora_B", "bias"): ("bias", False),
    ("lora_embedding_A", ""): ("A", True),
    ("lora_embedding_B", ""): ("B", True),
    ("lora_magnitude_vector", ""): ("magnitude", None),
}
_HEADS = frozenset(head for head, _ in _PARTS)
# PEFT saves these in full next to the adapter of an embedding, or when the vocabulary was resized.
_EMBEDDING_LAYERS = ("embed_tokens", "lm_head")


@dataclass(frozen=True)
class Stored:
    """A tensor that is read when it is used."""

    dtype: str  # in the file: "float32", "bfloat16", ...
    shape: tuple[int, ...]
    read: Callable[[], Array]  # bfloat16 as float32


@dataclass(frozen=True, eq=False)
class AdapterModule:
    """What an adapter does to one module: ``W0 + scale * B @ A``.

    ``A`` (r, k), ``B`` (d, r) and, where there are, ``magnitude`` (d,) and ``bias`` (d,) are read from the
    file each time they are used.

    Parameters
    ----------
    parts : mapping of str to Stored
        The tensors; `AdapterModule.of` makes a module from arrays.
    alpha : float
        Of the scale.
    rslora : bool
        Whether `scale` is ``alpha / sqrt(r)``; otherwise it is ``alpha / r``.
    embedding : bool
        Whether the base is an embedding, whose weight is stored as (k, d), k being the vocabulary.

    Examples
    --------
    >>> module = AdapterModule.of(A=np.ones((2, 3)), B=np.ones((4, 2)), alpha=8.0)
    >>> module.rank, module.scale, module.delta().shape
    (2, 4.0, (4, 3))
    """

    parts: Mapping[str, Stored]
    alpha: float
    rslora: bool = False
    embedding: bool = False

    @classmethod
    def of(
        cls,
        *,
        A: npt.ArrayLike,
        B: npt.ArrayLike,
        alpha: float,
        rslora: bool = False,
        magnitude: npt.ArrayLike | None = None,
        bias: npt.ArrayLike | None = None,
        embedding: bool = False,
        dtype: str | None = None,
    ) -> AdapterModule:
        """A module from arrays; files will store them as ``dtype``, by default as their own.

        Raises
        ------
        TypeError
            If an array does not hold floating-point numbers, or alpha is not a number.
        ValueError
            If the shapes do not fit, or alpha is not finite.
        """
        if dtype is not None:
            float_dtype(dtype)
        parts = {"A": held(A, dtype, name="A"), "B": held(B, dtype, name="B")}
        for part, array in (("magnitude", magnitude), ("bias", bias)):
            if array is not None:
                parts[part] = held(array, dtype, name=part)
        misfit = _misfit(parts)
        if misfit:
            raise ValueError(misfit)
        return cls(parts, settings.checked_alpha(alpha), rslora, embedding)

    @property
    def rank(self) -> int:
        return self.parts["A"].shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs, ``(d, k)``."""
        return self.parts["B"].shape[0], self.parts["A"].shape[1]

    @property
    def scale(self) -> float:
        """``alpha / r``, or ``alpha / sqrt(r)`` with rank-stabilised LoRA (arXiv 2312.03732)."""
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)

    @property
    def A(self) -> Array:
        return self.parts["A"].read()

    @property
    def B(self) -> Array:
        return self.parts["B"].read()

    @property
    def magnitude(self) -> Array | None:
        """DoRA: the length of each output's row in the merged weight."""
        return self.parts["magnitude"].read() if "magnitude" in self.parts else None

    @property
    def bias(self) -> Array | None:
        """The bias of B, which adds ``scale * bias`` to the output."""
        return self.parts["bias"].read() if "bias" in self.parts else None

    @property
    def bytes_per_rank(self) -> int:
        """What one more rank costs in the file."""
        return (
            sum(TensorInfo(part.dtype, part.shape).nbytes for part in (self.parts["A"], self.parts["B"]))
            // self.rank
        )

    def with_factors(self, *, B: Stored, A: Stored) -> AdapterModule:
        """The same module with other factors, perhaps of another rank, and the same scaling."""
        rank = A.shape[0]
        alpha = self.scale * (rank**0.5 if self.rslora else rank)
        return replace(self, parts={**self.parts, "A": A, "B": B}, alpha=alpha)

    def leading(self, rank: int) -> AdapterModule:
        """The same module with the first rows of A and columns of B."""
        B, A = self.parts["B"], self.parts["A"]
        return self.with_factors(
            B=replace(B, shape=(B.shape[0], rank), read=lambda: B.read()[:, :rank]),
            A=replace(A, shape=(rank, A.shape[1]), read=lambda: A.read()[:rank]),
        )

    def factors(self) -> tuple[Array, Array]:
        """``(B, A)`` in float32 or better."""
        return at_least_single(self.B), at_least_single(self.A)

    def delta(self) -> Array:
        """``scale * B @ A``, of shape (d, k), in float32 or better."""
        B, A = self.factors()
        update: Array = B @ A
        update *= update.dtype.type(self.scale)
        return update


@dataclass(frozen=True, eq=False, repr=False)
class Adapter(Mapping[str, AdapterModule]):
    """An adapter: a mapping from the paths of modules to what is done to each.

    Paths are as PEFT names them: ``"model.layers.0.self_attn.q_proj"``. Made by `load`.

    Parameters
    ----------
    modules : mapping of str to AdapterModule
        What is done to each module, by its path.
    full : mapping of str to Stored
        Parameters that are replaced rather than adapted, by their names in the base model: those of
        ``modules_to_save``, trained biases, embeddings that were saved with their adapter.
    raw : mapping
        The settings of ``adapter_config.json``.
    path : path, optional
        Where it was read from.

    Examples
    --------
    >>> module = AdapterModule.of(A=np.ones((2, 3)), B=np.ones((4, 2)), alpha=8.0)
    >>> Adapter({"layer": module}).delta("layer")[0]
    array([8., 8., 8.])
    """

    modules: Mapping[str, AdapterModule]
    full: Mapping[str, Stored] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=lambda: {"peft_type": "LORA"})
    path: Path | None = None

    def __getitem__(self, name: str) -> AdapterModule:
        return self.modules[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.modules)

    def __len__(self) -> int:
        return len(self.modules)

    def __repr__(self) -> str:
        numbers = sum(prod(stored.shape) for stored in self.tensors().values())
        modules = "1 module" if len(self) == 1 else f"{len(self)} modules"
        return f"<Adapter of {modules}, {numbers:,} numbers{f', {self.path}' if self.path else ''}>"

    @property
    def config(self) -> dict[str, Any]:
        """The content of ``adapter_config.json``, with the rank and alpha of every module."""
        return settings.compose(
            self.raw,
            ranks={name: module.rank for name, module in self.items()},
            alphas={name: module.alpha for name, module in self.items()},
        )

    @property
    def fan_in_fan_out(self) -> bool:
        """Whether the base stores its linear weights as (k, d), as GPT-2's Conv1D does."""
        return bool(self.raw.get("fan_in_fan_out"))

    def delta(self, name: str) -> Array:
        """``scale * B @ A`` of one module: (d, k), outputs by inputs, however the base stores its weight.

        With DoRA this is the update of the direction, before rows are brought to their magnitudes.
        """
        return self[name].delta()

    def tensors(self) -> dict[str, Stored]:
        """Every tensor by its key in PEFT's file."""
        found = {}
        for name, module in self.items():
            for (head, leaf), (part, embedding) in _PARTS.items():
                if part in module.parts and embedding in (None, module.embedding):
                    found[f"{PREFIX}{name}.{head}{'.' * bool(leaf)}{leaf}"] = module.parts[part]
        for name, stored in self.full.items():
            module_name, _, parameter = name.rpartition(".")
            holder = f"{module_name}.base_layer" if module_name in self.modules else module_name
            found[f"{PREFIX}{holder}.{parameter}"] = stored
        return found


def load(path: str | os.PathLike[str]) -> Adapter:
    """Open an adapter's directory as PEFT writes it. All but the numbers is read and checked now.

    Parameters
    ----------
    path : path
        A directory with ``adapter_config.json`` and ``adapter_model.safetensors``.

    Returns
    -------
    Adapter
        A mapping from module paths to `AdapterModule`, with ``delta(name)``.

    Raises
    ------
    HubError
        If anything is missing, damaged, contradictory or not supported. Nothing is dropped in silence, and no
        pickle (``adapter_model.bin``) is ever opened.

    See Also
    --------
    save : Write one.

    Examples
    --------
    >>> import tempfile, lora_np as lnp
    >>> rng = np.random.default_rng(0)
    >>> model = lnp.inject(lnp.Linear.init(d_out=100, d_in=120, rng=rng), rank=8, alpha=16, rng=rng)
    >>> path = Path(tempfile.mkdtemp()) / "adapter"
    >>> lnp.adapters.save(model, path)
    >>> {name: (module.rank, module.scale) for name, module in load(path).items()}
    {'linear': (8, 2.0)}
    """
    folder = directory(path)
    said = settings.read(folder)
    if not os.path.lexists(folder / WEIGHTS):
        refuse_pickles(folder)
    return interpret(safetensors.open(inside(folder, WEIGHTS)), said, folder)


def write(adapter: Adapter, folder: Path, *, dtype: str | None = None) -> None:
    """The two files of ``adapter``, one tensor in memory at a time; none if `load` would not read them."""
    tensors = adapter.tensors()
    infos = header(tensors, dtype)
    text = _checked_config(adapter, infos)
    with SafetensorsWriter(folder / WEIGHTS, infos, metadata=METADATA) as writer:
        for key, stored in tensors.items():
            writer.write(key, stored.read())
    (folder / settings.NAME).write_text(text, encoding="utf-8")


def _checked_config(adapter: Adapter, tensors: Mapping[str, TensorInfo]) -> str:
    """The text of the config, if `load` makes of it and of a file with these tensors what ``adapter`` is."""
    if not adapter:
        raise HubError("an adapter needs at least one module, got none")
    for name, module in adapter.items():
        if not isinstance(name, str) or not _HEADS.isdisjoint(name.split(".")):
            raise HubError(
                "a module must be called by its path in the model, without PEFT's lora_A and the like; "
                f"got {name!r}"
            )
        for part in ("A", "B"):
            if part not in module.parts:
                raise HubError(f"{name!r} has no {part}")
    try:
        text = json.dumps(adapter.config, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        text.encode()
    except HubError:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise HubError(f"{settings.NAME}: the settings are not JSON: {error}") from None
    said = settings.parse(Path(settings.NAME), json.loads(text))
    read = interpret(SafetensorsFile(Path(WEIGHTS), tensors, METADATA), said, Path())
    for name, module in adapter.items():
        back = read.modules[name]
        for what in ("alpha", "rslora", "embedding"):
            mine, theirs = getattr(module, what), getattr(back, what)
            if mine != theirs:
                raise HubError(f"{name!r} has {what} {mine}, but the settings make it {theirs}")
        lost = sorted(module.parts.keys() - back.parts.keys())
        if lost:
            raise HubError(f"{name!r} has a {lost[0]}, for which PEFT has no place in such a module")
    if read.full.keys() != adapter.full.keys():
        unread = ", ".join(map(repr, sorted(adapter.full.keys() - read.full.keys())))
        raise HubError(f"saved in full, but of a name that would not be read: {unread}")
    return text


def header(tensors: Mapping[str, Stored], dtype: str | None = None) -> dict[str, TensorInfo]:
    """What a file will say of these tensors, floating-point ones rounded to ``dtype`` if one is given."""
    return {
        key: TensorInfo(dtype if dtype and tensor.dtype in FLOATS else tensor.dtype, tensor.shape)
        for key, tensor in tensors.items()
    }


def held(values: npt.ArrayLike, dtype: str | None = None, *, name: str = "an adapter") -> Stored:
    """An array in memory, to be stored as ``dtype`` (by default its own)."""
    if values is None:
        raise TypeError(f"{name} must hold floating-point numbers, got None")
    try:
        array = np.asarray(values)
    except ValueError as error:  # lists of different lengths
        raise ValueError(f"{name} must be an array: {error}") from None
    if array.dtype.name not in FLOATS:
        raise TypeError(f"{name} must hold floating-point numbers, got dtype {array.dtype}")
    return Stored(dtype or array.dtype.name, array.shape, lambda: array)


def at_least_single(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype.itemsize < 4 else array


def interpret(file: SafetensorsFile, said: AdapterConfig, folder: Path) -> Adapter:
    """The tensors of ``file`` by module and part, every key accounted for."""
    found: dict[str, dict[str, Stored]] = {}
    embeddings: dict[str, bool] = {}
    adapter_names = set()
    others = []
    for key, info in file.tensors.items():
        if not key.startswith(PREFIX):
            raise HubError(f"{file.path}: {key!r} does not begin with {PREFIX!r}; PEFT would ignore it")
        segments = key.removeprefix(PREFIX).split(".")
        place = 0
        while place < len(segments) and segments[place] not in _HEADS:
            place += 1
        if place in (0, len(segments)):
            others.append(key)
            continue
        name = ".".join(segments[:place])
        part, embedding, adapter_name = _part(file.path, key, segments[place:])
        parts = found.setdefault(name, {})
        if part in parts:
            raise HubError(f"{file.path}: {key!r} gives {part} of {name!r} a second time")
        if embedding is not None and embeddings.setdefault(name, embedding) != embedding:
            raise HubError(f"{file.path}: {name!r} has factors of a linear layer and of an embedding")
        adapter_names.add(adapter_name)
        parts[part] = stored(file, key, info)
    if not found:
        raise HubError(f"{file.path}: holds no LoRA, no key such as '{PREFIX}<module>.lora_A.weight'")
    if len(adapter_names) > 1:
        several = ", ".join(map(repr, sorted(adapter_names)))
        raise HubError(f"{file.path}: keys of several adapters ({several}); save each in its own directory")
    modules = {}
    for name, parts in found.items():
        _check_parts(file.path, name, parts, said)
        modules[name] = AdapterModule(parts, said.alpha_of(name), said.says("use_rslora"), embeddings[name])
    full: dict[str, Stored] = {}
    (adapter_name,) = adapter_names
    for key in others:
        name = _full_name(file.path, key, said, modules, adapter_name)
        if name in full:
            raise HubError(f"{file.path}: {key!r} gives {name!r} a second time")
        full[name] = stored(file, key, file.tensors[key])
    return Adapter(modules, full, said.raw, folder)


def stored(file: SafetensorsFile, key: str, info: TensorInfo) -> Stored:
    return Stored(info.dtype, info.shape, lambda: file.read(key))


def _part(path: Path, key: str, segments: list[str]) -> tuple[str, bool | None, str]:
    """(part, whether of an embedding, the adapter's name or "") from what follows a module's path."""
    head, *rest = segments
    leaf = rest.pop() if rest and rest[-1] in ("weight", "bias") else ""
    if head == "lora_magnitude_vector" and leaf == "weight":
        leaf = ""  # its name in memory, where DoRA is a separate layer
    if (head, leaf) not in _PARTS or len(rest) > 1:
        raise HubError(f"{path}: {key!r} is not a key that PEFT writes for a LoRA")
    part, embedding = _PARTS[head, leaf]
    return part, embedding, rest[0] if rest else ""


def _check_parts(path: Path, name: str, parts: Mapping[str, Stored], said: AdapterConfig) -> None:
    """Whether the tensors of one module fit each other and what the config says."""
    for part in ("A", "B"):
        if part not in parts:
            raise HubError(f"{path}: {name!r} has no lora_{part}")
    for part, tensor in parts.items():
        if tensor.dtype not in FLOATS:
            floats = f"{', '.join(FLOATS[:-1])} or {FLOATS[-1]}"
            raise HubError(f"{path}: {part} of {name!r} is stored as {tensor.dtype}, not as {floats}")
    A, B = parts["A"].shape, parts["B"].shape
    if len(A) == 4 and len(B) == 4:
        raise HubError(f"{path}: {name!r} adapts a convolution, which is not supported")
    misfit = _misfit(parts, f" of {name!r}")
    if misfit:
        raise HubError(f"{path}: {misfit}")
    if said.rank_of(name) != A[0]:
        raise HubError(f"{path}: {name!r} has rank {A[0]}, but the config says {said.rank_of(name)}")
    for part, flag in (("magnitude", "use_dora"), ("bias", "lora_bias")):
        if (part in parts) != said.says(flag):
            has = "a" if part in parts else "no"
            raise HubError(f"{path}: {name!r} has {has} {part}, but {flag} is {str(said.says(flag)).lower()}")
    if not said.targets(name):
        raise HubError(f"{path}: {name!r} is not among the config's target_modules; PEFT would ignore it")


def _misfit(parts: Mapping[str, Stored], whose: str = "") -> str | None:
    """Why the shapes of one module do not fit each other, if so."""
    A, B = parts["A"].shape, parts["B"].shape
    if len(A) != 2 or len(B) != 2 or A[0] != B[1]:
        return f"A (r, k) and B (d, r){whose} must fit, got {A} and {B}"
    if 0 in (*A, *B):
        return f"A (r, k) and B (d, r){whose} must not be empty, got {A} and {B}"
    for part in ("magnitude", "bias"):
        if part in parts and parts[part].shape != (B[0],):
            return f"{part}{whose} must have shape {(B[0],)}, got {parts[part].shape}"
    return None


def _full_name(
    path: Path, key: str, said: AdapterConfig, modules: Mapping[str, AdapterModule], adapter_name: str
) -> str:
    """The base model's name of a parameter that is saved in full, if the config accounts for it."""
    segments = key.removeprefix(PREFIX).split(".")
    if "modules_to_save" in segments:  # PEFT's name in memory
        place = segments.index("modules_to_save")
        named = segments[place + 1 : place + 2] == [adapter_name or "default"]
        del segments[place : place + 1 + named]
    *inner, parameter = segments
    replaced = inner[-1:] == ["base_layer"] and ".".join(inner[:-1]) in modules
    if replaced:
        inner.pop()
    module = ".".join(inner)
    trained_bias = parameter == "bias" and said.trains_biases()
    embedding = parameter == "weight" and inner[-1:] and inner[-1] in _EMBEDDING_LAYERS
    if not module or not (replaced or trained_bias or embedding or said.saves(module)):
        raise HubError(
            f"{path}: {key!r} belongs to no LoRA, and neither modules_to_save nor bias accounts for it"
        )
    return f"{module}.{parameter}"
