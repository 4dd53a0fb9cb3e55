"""Represent adapters of any format; a tensor is read from its file only when it is used."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from lora_np.checks import Array, StrPath, overflow_allowed, plain
from lora_np.files import FileError
from lora_np.hub import FLOATS, SafetensorsFile, TensorInfo, float_dtype
from lora_np.models import Rewrite, peft

if TYPE_CHECKING:
    from lora_np.lora import Tuner

Result = TypeVar("Result")

Format = Literal["peft", "gguf", "mlx", "kohya"]
# Formats in which an adapter is one file, by file extension. In other formats, it is a directory.
FILES: Mapping[str, Format] = {".gguf": "gguf", ".safetensors": "kohya"}
MLX_WEIGHTS = "adapters.safetensors"  # only mlx-lm's directories have a file of this name
DIFFUSERS_WEIGHTS = "pytorch_lora_weights.safetensors"  # only diffusers' directories have this file

# Maps attributes and tensors that a module can have, besides the two factors of a linear layer, to
# descriptions for error messages.
EXTRAS = {
    "magnitude": "a magnitude (DoRA)", "bias": "a bias of B", "kernel": "a convolution",
    "embedding": "an embedding", "parameter": "a parameter by its name (target_parameters)",
    "tuned": "an update that is no LoRA (LoHa, LoKr)", "alora": "invocation tokens (aLoRA)",
}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """A tensor that is read only when it is used."""

    dtype: str  # such as "bfloat16"; "float16" if the file stores 8-bit floats
    shape: tuple[int, ...]
    read: Callable[[], Array]  # reads the tensor; bfloat16 is returned as float32
    key: str = ""  # the name of the tensor in its file, if it has one

    @property
    def size(self) -> int:
        """The number of entries."""
        return prod(self.shape)

    @classmethod
    def of(cls, file: SafetensorsFile, key: str) -> Stored:
        """Return a tensor of a file; the dtype of 8-bit floats becomes float16, which is exact."""
        info = file.tensors[key]
        dtype = "float16" if info.dtype.startswith("float8") else info.dtype
        return cls(dtype, info.shape, partial(file.read, key), key)

    def single(self) -> Array:
        """Read the tensor in float32 or better."""
        array = np.asarray(self.read())
        return array.astype(np.float32) if array.dtype.itemsize < 4 else array

    def seen(self, view: Callable[[Array], Array]) -> Stored:
        """Return a tensor that applies ``view``, such as a reshape or padding, when it is read."""
        # Find the new shape by applying `view` to a broadcast zero, which needs almost no memory.
        shape = view(np.broadcast_to(np.zeros(()), self.shape)).shape
        return replace(self, shape=shape, read=lambda: view(self.read()))


class TokenRows(NamedTuple):
    """The rows of an embedding that an adapter replaces (PEFT's ``trainable_token_indices``).

    Parameters
    ----------
    tokens : tuple of int
        The indices of the n rows.
    new : Stored of shape (n, d)
        The new rows.
    """

    tokens: tuple[int, ...]
    new: Stored


@dataclass(frozen=True, eq=False)
class TunedUpdate:
    """The update of one module by a PEFT tuner other than plain LoRA."""

    name: str  # the path of the module
    tuner: Tuner
    settings: Mapping[str, float]
    tensors: Mapping[str, Stored]
    size: tuple[int, ...] | None = None  # (d, k), if it is known
    weight: Callable[[], Array] | None = None  # reads the base weight, for tuners that need it
    dtype: npt.DTypeLike = np.float32  # the precision in which the update is computed

    def on(self, size: tuple[int, ...]) -> TunedUpdate:
        """Return the update for a weight of shape ``size``, after checking that its tensors fit."""
        name = self.tuner.name
        if len(size) != 2 or min(size) < 1:
            raise FileError(f"{self.name!r}: {name} needs a weight of shape (d, k), got {size}")
        try:
            wanted = self.tuner.trained(*size, **self.settings)
        except ValueError as error:
            raise FileError(f"{self.name!r} of shape {size}: {error}") from None
        shapes = {
            key: tensor.shape
            for key, tensor in self.tensors.items()
            if key in wanted or not self.tuner.tensors[key]
        }
        if shapes != wanted:
            raise FileError(
                f"{self.name!r}: on a weight of shape {size}, {name} has {wanted}, got {shapes}"
            )
        return replace(self, size=size)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        if self.size is None:
            raise self._unknown
        return self.size

    @property
    def _unknown(self) -> FileError:
        return FileError(
            f"the update of {self.name!r} by {self.tuner.name} depends on the base: pass --base"
        )

    @property
    def moves_bias(self) -> bool:
        """Whether the tuner scales the outputs of a layer, including its bias."""
        return self.tuner.outputs and not self.settings.get("feedforward")

    @cached_property
    def directions(self) -> int:
        """The rank of the update's factors."""
        most = min(self.shape)
        if self.tuner.factors is None:
            return most
        return min(most, max(1, self.tuner.count_directions(*self.shape, **self.settings)))

    @cached_property
    def exact(self) -> bool:
        """Whether the update has low rank and a closed form for its factors."""
        return self.tuner.factors is not None and self.directions < min(self.shape)

    def factors(self) -> tuple[Array, Array]:
        """Compute ``(B, A)`` whose product is the update; unless ``exact``, one is an identity."""
        if self.exact:
            B, A = self._computed(self.tuner.lora)
            d, k = self.shape
            # if AdaLoRA has pruned all directions, return zeros of rank 1, because rank 0 is not
            # allowed
            return (B, A) if len(A) else (np.zeros((d, 1), B.dtype), np.zeros((1, k), A.dtype))
        update = self.delta()
        one = np.eye(min(update.shape), dtype=update.dtype)
        return (update, one) if len(one) == update.shape[1] else (one, update)

    def delta(self) -> Array:
        """Compute the update as an array (d, k), reading the base weight if the tuner needs it."""
        if self.tuner.weight is None:
            return self._computed(self.tuner.delta)
        if self.weight is None:
            raise self._unknown
        W = self.weight().astype(self.dtype, copy=False)
        return self._computed(partial(self.tuner.delta, W=W))

    def _computed(self, formula: Callable[..., Result]) -> Result:
        tensors = {name: stored.read().astype(self.dtype) for name, stored in self.tensors.items()}
        # suppress warnings about overflow, because operations on adapters raise an error instead
        with overflow_allowed(divide="ignore"):
            return formula(tensors, shape=self.shape, **self.settings)


@dataclass(frozen=True, eq=False)
class AdapterModule:
    """The update of one module, ``scale * B @ A``, which is added to the base weight W0.

    ``A`` (r, k), ``B`` (d, r) and, if present, ``magnitude`` (d,) and ``bias`` (d,) are read from
    the file each time they are used. If several matrices share one name, such as the experts of a
    layer or the groups of a convolution, they are stacked: ``A`` (n, r, k) and ``B`` (n, d, r). A
    convolution is treated as a linear layer on patches, so that k is the number of its inputs times
    the size of its kernel.

    Parameters
    ----------
    parts : mapping of str to Stored
        The tensors; `AdapterModule.of` makes a module from arrays.
    alpha : float
        LoRA's alpha, which sets `scale`.
    rslora : bool
        Whether `scale` is ``alpha / sqrt(r)``; otherwise it is ``alpha / r``.
    embedding : bool
        Whether the base is an embedding, whose weight is stored as (k, d), k being the vocabulary.
    kernel : tuple of int
        For a convolution, the size of its kernel along each axis.
    parameter : bool
        Whether the module's name is the name of a parameter, as in PEFT's ``target_parameters``.
    tuned : TunedUpdate, optional
        The update, if a tuner other than LoRA trained it. `factors` and `scale` then describe an
        equivalent LoRA.
    alora : bool
        Whether the update applies only from the invocation tokens on, as in PEFT's aLoRA.

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
    kernel: tuple[int, ...] = ()
    parameter: bool = False
    tuned: TunedUpdate | None = None
    alora: bool = False

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
        """Make a module from arrays; ``dtype``, if given, is the dtype in which files store them.

        Raises
        ------
        TypeError
            If an array does not contain floating-point numbers, or alpha is not a number.
        ValueError
            If the shapes do not fit each other, or alpha is not finite.
        """
        parts = {"A": in_memory(A, dtype, name="A"), "B": in_memory(B, dtype, name="B")}
        for part, array in (("magnitude", magnitude), ("bias", bias)):
            if array is not None:
                parts[part] = in_memory(array, dtype, name=part)
        check_shapes(parts)
        return cls(parts, peft.checked_alpha(alpha), rslora, embedding)

    def check_everywhere(self, place: object) -> None:
        """Raise an error for an aLoRA, whose update does not apply to every token."""
        if self.alora:
            raise FileError(
                f"{place}: aLoRA applies only from its invocation tokens on, which no change of the"
                " weights can express: load it with PEFT, without merging"
            )

    @cached_property
    def directions(self) -> int:
        """The rank of the update, or of each matrix if several are stacked."""
        if self.tuned:
            return self.tuned.directions
        return self.parts["A"].shape[-2]

    @cached_property
    def maps(self) -> int:
        """The number of stacked matrices; 1 if the update is a single matrix."""
        if self.tuned:
            return 1
        return self.parts["A"].shape[0] if len(self.parts["A"].shape) == 3 else 1

    @cached_property
    def groups(self) -> int:
        """The number of groups among which a convolution's rank is divided; 1 for other modules."""
        return self.maps if self.kernel else 1

    @cached_property
    def rank(self) -> int:
        return self.directions * self.groups

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The shape of the update, ``(d, k)`` or ``(experts, d, k)``.

        The update of a convolution has the shape of its weight.
        """
        if not self.tuned:
            (*stack, _, k), d = self.parts["A"].shape, self.parts["B"].shape[-2]
        else:
            stack, (d, k) = [], self.tuned.shape
        if self.kernel:
            return (d * self.groups, k // prod(self.kernel), *self.kernel)
        return (*stack, d, k)

    @property
    def extras(self) -> set[str]:
        """The keys of ``EXTRAS`` that apply to the module."""
        return {what for what in EXTRAS if what in self.parts or getattr(self, what)}

    @property
    def kind(self) -> tuple[tuple[int, ...], int, bool, bool]:
        """The properties that two modules must share for their updates to be added."""
        return self.shape, self.groups, self.embedding, self.parameter

    @cached_property
    def scale(self) -> float:
        """The factor on B A, ``alpha / r`` or (rsLoRA) ``alpha / sqrt(r)``; 1 for other tuners.

        The paper on rsLoRA is arXiv 2312.03732.
        """
        if self.tuned:
            return 1.0
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)

    @property
    def A(self) -> Array:
        return self.parts["A"].read()

    @property
    def B(self) -> Array:
        return self.parts["B"].read()

    @property
    def magnitude(self) -> Array | None:
        """DoRA's magnitude (d,), the norm of each merged row, or None if the module is no DoRA."""
        return self.parts["magnitude"].read() if "magnitude" in self.parts else None

    @property
    def bias(self) -> Array | None:
        """The bias of B (d,), which adds ``scale * bias`` to the output, or None without one."""
        return self.parts["bias"].read() if "bias" in self.parts else None

    def with_factors(self, *, B: Stored, A: Stored) -> AdapterModule:
        """Return the module with new factors and the same scale; the rank may differ."""
        rank = A.shape[-2] * self.groups
        alpha = self.scale * (rank**0.5 if self.rslora else rank)
        return replace(self, parts={**self.parts, "A": A, "B": B}, alpha=alpha)

    def leading(self, n: int) -> AdapterModule:
        """Return the module with only the first ``n`` columns of B and rows of A."""
        B, A = self.parts["B"], self.parts["A"]
        return self.with_factors(B=B.seen(lambda B: B[..., :n]), A=A.seen(lambda A: A[..., :n, :]))

    def expert(self, expert: int) -> AdapterModule:
        """Return the update of one expert in the stack, as a module of its own."""
        parts = {part: self.parts[part].seen(lambda factor: factor[expert]) for part in "AB"}
        return self.with_factors(**parts)

    def factors(self) -> tuple[Array, Array]:
        """Return ``B`` (d, r) and ``A`` (r, k), in float32 or better."""
        if self.tuned:
            return self.tuned.factors()
        return self.parts["B"].single(), self.parts["A"].single()

    def weighted(self) -> tuple[Array, Array]:
        """Return ``B`` and ``scale * A``, whose product is the update."""
        B, A = self.factors()
        return B, A * A.dtype.type(self.scale)

    def as_lora(self) -> AdapterModule:
        """Return the same update as a LoRA, whose factors are computed when they are read."""
        if not (tuned := self.tuned):
            return self
        (d, k), r = tuned.shape, tuned.directions
        parts = {
            "B": Stored("float32", (d, r), lambda: tuned.factors()[0]),
            "A": Stored("float32", (r, k), lambda: tuned.factors()[1]),
        }
        return replace(self, parts=parts, alpha=float(r), tuned=None)

    def delta(self) -> Array:
        """Compute the update ``scale * B @ A`` as an array of `shape`, in float32 or better."""
        if self.tuned:
            return self.tuned.delta().reshape(self.shape)
        B, A = self.factors()
        update = B @ A
        update *= update.dtype.type(self.scale)
        return update.reshape(self.shape)


@dataclass(frozen=True, eq=False, repr=False)
class Adapter(Mapping[str, AdapterModule]):
    """A mapping from the paths of modules to their updates, as returned by `load`.

    The paths are PEFT's names of modules, such as ``"model.layers.0.self_attn.q_proj"``.

    Parameters
    ----------
    modules : mapping of str to AdapterModule
        The update of each module, by its path.
    full : mapping of str to Stored
        Parameters that are replaced rather than adapted, by their names in the base model:
        ``modules_to_save``, trained biases, and embeddings saved with their adapter.
    raw : mapping
        The settings of ``adapter_config.json``.
    path : path, optional
        The file or directory that the adapter was read from.
    rows : mapping of str to TokenRows
        Replaced rows of embeddings, by the names of the weights in the base model.
    pipeline : bool
        Whether the names come from a file for image models, so that each name begins with a
        component of a pipeline.
    renamed : mapping of str to tuple of Rewrite
        How names in the file were rewritten, by the name in this adapter.

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
    rows: Mapping[str, TokenRows] = field(default_factory=dict)
    pipeline: bool = False
    renamed: Mapping[str, tuple[Rewrite, ...]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> AdapterModule:
        return self.modules[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.modules)

    def __len__(self) -> int:
        return len(self.modules)

    def __repr__(self) -> str:
        modules = "1 module" if len(self) == 1 else f"{len(self)} modules"
        count = sum(stored.size for stored in self.stored)
        path = f", {self.path}" if self.path else ""
        return f"<Adapter of {modules}, {count:,} parameters{path}>"

    def __str__(self) -> str:
        return str(self.path or repr(self))

    @property
    def stored(self) -> list[Stored]:
        """All tensors of the adapter, without duplicates."""
        parts = {
            id(part): part for module in self.modules.values() for part in module.parts.values()
        }
        return [*parts.values(), *self.full.values(), *(rows.new for rows in self.rows.values())]

    @property
    def copies(self) -> list[str]:
        """The names of weights that are adapted but also saved in full, usually unchanged."""
        return [name for name in self.full if name.removesuffix(".weight") in self]

    @property
    def around(self) -> list[str]:
        """Descriptions of the wrappers and prefixes around module names in the file."""
        return sorted({change.what for changes in self.renamed.values() for change in changes})

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The content of ``adapter_config.json``, with the rank and alpha of every module."""
        return peft.compose(self.raw, self.ranks_and_alphas).raw

    @property
    def ranks_and_alphas(self) -> dict[str, tuple[int, float]]:
        """The rank and alpha of every module."""
        return {name: (module.rank, module.alpha) for name, module in self.modules.items()}

    @property
    def fan_in_fan_out(self) -> bool:
        """Whether the base stores its linear weights as (k, d), as GPT-2's Conv1D does."""
        return bool(self.raw.get("fan_in_fan_out"))

    @property
    def base(self) -> str | None:
        """The path or name of the base model, or None if the settings do not name one."""
        name = self.raw.get("base_model_name_or_path")
        return os.fspath(name) if isinstance(name, (str, os.PathLike)) and name else None

    @property
    def init(self) -> str | None:
        """The initialisation, such as PiSSA, that subtracted its B A from the base, or None."""
        return peft.residual_initialisation(self.raw)

    @property
    def has_magnitudes(self) -> bool:
        """Whether any module has DoRA's magnitude."""
        return any("magnitude" in module.parts for module in self.modules.values())

    def delta(self, name: str) -> Array:
        """Compute the update ``scale * B @ A`` of the module ``name``, one row for each output.

        With DoRA this is the update of the direction, before rows are scaled to their magnitudes.
        """
        return self[name].delta()


# the argument of most operations: an adapter, or its path
Source = Adapter | StrPath


def check_init(adapter: Adapter, *, with_base: bool = False) -> None:
    """Raise an error if initialisation changed the base; ``with_base`` allows PiSSA and OLoRA."""
    if adapter.init is None:
        return
    from lora_np.lora import STARTS  # imported only here, because it is slow to load

    remedy = "save it with PEFT's path_initial_model_for_weight_conversion"
    if adapter.init in STARTS:
        if with_base:
            return
        remedy = "lora-np convert --to lora --base MODEL (adapters.to_lora) makes a LoRA of it"
    raise FileError(
        f"{adapter}: init_lora_weights = {adapter.init!r} takes the first B A out of the base, so "
        f"B A is not an update of the original base; {remedy}"
    )


def header(tensors: Mapping[str, Stored], dtype: str | None = None) -> dict[str, TensorInfo]:
    """Map each tensor to its header entry; ``dtype``, if given, replaces all float dtypes."""
    if dtype is not None:
        float_dtype(dtype)
    return {
        key: TensorInfo(dtype if dtype and x.dtype in FLOATS else x.dtype, x.shape)
        for key, x in tensors.items()
    }


def in_memory(
    values: npt.ArrayLike, dtype: str | None = None, *, name: str = "an adapter"
) -> Stored:
    """Wrap an array as a `Stored` that is written in ``dtype``, by default in its own dtype."""
    array = plain(name, values)
    if array.dtype.name not in FLOATS:
        raise TypeError(f"{name} must hold floating-point numbers, got dtype {array.dtype}")
    return Stored(float_dtype(dtype or array.dtype.name), array.shape, lambda: array)


def check_shapes(parts: Mapping[str, Stored], whose: str = "") -> None:
    """Raise an error if the shapes of a module's tensors do not fit each other."""
    A, B = parts["A"].shape, parts["B"].shape
    if 0 in (*A, *B):
        raise FileError(
            f"A (r, k) and B (d, r){whose} must not be empty, got {A} and {B}: DeepSpeed ZeRO-3"
            " leaves tensors empty that it saves without gathering them"
        )
    if not (len(A) == len(B) in (2, 3) and A[:-2] == B[:-2] and A[-2] == B[-1]):
        raise FileError(f"A (r, k) and B (d, r){whose} must fit, got {A} and {B}")
    for part in {"magnitude", "bias"} & parts.keys():
        if (shape := parts[part].shape) != (prod(B[:-1]),):
            raise FileError(f"{part}{whose} must have shape {(prod(B[:-1]),)}, got {shape}")
