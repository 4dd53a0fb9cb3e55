"""Adapters from any kind of file: the update of each module, in arrays that are read when used."""

from __future__ import annotations

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
# of files, by their endings; the other formats are directories
FILES: Mapping[str, Format] = {".gguf": "gguf", ".safetensors": "kohya"}
MLX_WEIGHTS = "adapters.safetensors"  # the file by which a folder of mlx-lm is known
# What a module may have beside the factors of a linear layer, by attribute or part.
EXTRAS = {
    "magnitude": "a magnitude (DoRA)", "bias": "a bias of B", "kernel": "a convolution",
    "embedding": "an embedding", "parameter": "a parameter by its name (target_parameters)",
    "tuned": "an update that is no LoRA (LoHa, LoKr)", "alora": "invocation tokens (aLoRA)",
}  # fmt: skip
DIFFUSERS_WEIGHTS = "pytorch_lora_weights.safetensors"  # the same of diffusers


@dataclass(frozen=True)
class Stored:
    """A tensor that is read when it is used."""

    dtype: str  # in the file: "float32", "bfloat16", ...
    shape: tuple[int, ...]
    read: Callable[[], Array]  # bfloat16 as float32
    key: str = ""  # in the file

    @property
    def size(self) -> int:
        """How many numbers it has in its file."""
        return prod(self.shape)

    @classmethod
    def of(cls, file: SafetensorsFile, key: str) -> Stored:
        """A tensor of a file; 8-bit floats are read as float16, which holds them exactly."""
        info = file.tensors[key]
        dtype = "float16" if info.dtype.startswith("float8") else info.dtype
        return cls(dtype, info.shape, partial(file.read, key), key)

    def single(self) -> Array:
        """Its numbers in float32 or better."""
        array = np.asarray(self.read())
        return array.astype(np.float32) if array.dtype.itemsize < 4 else array

    def seen(self, view: Callable[[Array], Array]) -> Stored:
        """Return the result of ``view``: another shape or order, a selection, or more zeros."""
        # without an array's worth of memory
        shape = view(np.broadcast_to(np.zeros(()), self.shape)).shape
        return replace(self, shape=shape, read=lambda: view(self.read()))


class TokenRows(NamedTuple):
    """Rows of an embedding that are replaced: PEFT's ``trainable_token_indices``.

    Parameters
    ----------
    tokens : tuple of int
        Which rows.
    new : Stored
        One row for each of ``tokens``.
    """

    tokens: tuple[int, ...]
    new: Stored


@dataclass(frozen=True, eq=False)
class TunedUpdate:
    """The update of a module that another tuner of PEFT than LoRA trained."""

    name: str  # of the module, for messages
    tuner: Tuner
    settings: Mapping[str, float]
    tensors: Mapping[str, Stored]
    size: tuple[int, ...] | None = None  # (d, k), where it is known
    weight: Callable[[], Array] | None = None  # reads the base's, which some tuners act on
    dtype: npt.DTypeLike = np.float32  # in which the update is computed

    def on(self, size: tuple[int, ...]) -> TunedUpdate:
        """Return the update of a weight of this shape; refuse tensors for another one."""
        name = self.tuner.name
        if len(size) != 2 or min(size) < 1:
            raise FileError(f"{self.name!r}: {name} is read for matrices, not for shape {size}")
        try:
            wanted = self.tuner.trained(*size, **self.settings)
        except ValueError as error:
            raise FileError(f"{self.name!r} of shape {size}: {error}") from None
        checked = {
            key: tensor.shape
            for key, tensor in self.tensors.items()
            if key in wanted or not self.tuner.tensors[key]
        }
        if checked != wanted:
            raise FileError(
                f"{self.name!r}: on a weight of shape {size}, {name} has {wanted}, got {checked}"
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
            f"what {self.tuner.name} does to {self.name!r} depends on the base: give it (--base)"
        )

    @property
    def moves_bias(self) -> bool:
        """Whether it acts on the outputs, and so on a bias of the base."""
        return self.tuner.outputs and not self.settings.get("feedforward")

    @cached_property
    def directions(self) -> int:
        """The rank of the factors."""
        most = min(self.shape)
        if self.tuner.factors is None:
            return most
        return min(most, max(1, self.tuner.count_directions(*self.shape, **self.settings)))

    @cached_property
    def exact(self) -> bool:
        """Whether it has factors in closed form, of a rank that is not full."""
        return self.tuner.factors is not None and self.directions < min(self.shape)

    def factors(self) -> tuple[Array, Array]:
        """Compute exact factors if there are any, or else the update and an identity."""
        if self.exact:
            B, A = self._computed(self.tuner.lora)
            d, k = self.shape
            # AdaLoRA may leave no direction
            return (B, A) if len(A) else (np.zeros((d, 1), B.dtype), np.zeros((1, k), A.dtype))
        update = self.delta()
        one = np.eye(min(update.shape), dtype=update.dtype)
        return (update, one) if len(one) == update.shape[1] else (one, update)

    def delta(self) -> Array:
        """Compute the update (d, k)."""
        if self.tuner.weight is None:
            return self._computed(self.tuner.delta)
        if self.weight is None:
            raise self._unknown
        W = self.weight().astype(self.dtype, copy=False)
        return self._computed(partial(self.tuner.delta, W=W))

    def _computed(self, formula: Callable[..., Result]) -> Result:
        tensors = {name: stored.read().astype(self.dtype) for name, stored in self.tensors.items()}
        # who uses the result refuses what is not finite
        with overflow_allowed(divide="ignore"):
            return formula(tensors, shape=self.shape, **self.settings)


@dataclass(frozen=True, eq=False)
class AdapterModule:
    """What an adapter does to one module: ``W0 + scale * B @ A``.

    ``A`` (r, k), ``B`` (d, r) and, if present, ``magnitude`` (d,) and ``bias`` (d,) are read from
    the file each time they are used. Several maps under one name, those of experts or of a
    convolution's groups, are stacked: ``A`` (n, r, k) and ``B`` (n, d, r). A convolution is the map
    of its patches: k is the number of inputs times the size of the kernel.

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
    kernel : tuple of int
        Of a convolution: the size of its kernel along each axis.
    parameter : bool
        Whether the name is that of a parameter, as in PEFT's ``target_parameters``, and not of a
        module.
    tuned : TunedUpdate, optional
        The update, if another tuner than LoRA trained it. `factors` and `scale` are then those of
        an equal LoRA.
    alora : bool
        Whether it acts only from its invocation tokens on, as PEFT's aLoRA does.

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
        """A module from arrays; files will store them as ``dtype``, by default as their own.

        Raises
        ------
        TypeError
            If an array does not hold floating-point numbers, or alpha is not a number.
        ValueError
            If the shapes do not fit, or alpha is not finite.
        """
        parts = {"A": held(A, dtype, name="A"), "B": held(B, dtype, name="B")}
        for part, array in (("magnitude", magnitude), ("bias", bias)):
            if array is not None:
                parts[part] = held(array, dtype, name=part)
        check_shapes(parts)
        return cls(parts, peft.checked_alpha(alpha), rslora, embedding)

    def check_everywhere(self, place: object) -> None:
        """Refuse an aLoRA."""
        if self.alora:
            raise FileError(
                f"{place}: aLoRA acts from its invocation tokens on, which no change of weights"
                " does: load it with PEFT, without merging"
            )

    @cached_property
    def directions(self) -> int:
        """The rank of each of the stacked maps; if there is only one, its rank."""
        if self.tuned:
            return self.tuned.directions
        return self.parts["A"].shape[-2]

    @cached_property
    def maps(self) -> int:
        """How many maps are stacked."""
        if self.tuned:
            return 1
        return self.parts["A"].shape[0] if len(self.parts["A"].shape) == 3 else 1

    @cached_property
    def groups(self) -> int:
        """The groups of a convolution, which share its rank; experts have the whole rank each."""
        return self.maps if self.kernel else 1

    @cached_property
    def rank(self) -> int:
        return self.directions * self.groups

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of the update: ``(d, k)``, ``(experts, d, k)``, or outputs, inputs and kernel."""
        d, k = (
            self.tuned.shape
            if self.tuned
            else (self.parts["B"].shape[-2], self.parts["A"].shape[-1])
        )
        if self.kernel:
            return (d * self.groups, k // prod(self.kernel), *self.kernel)
        return (d, k) if self.tuned else (*self.parts["A"].shape[:-2], d, k)

    @property
    def extras(self) -> set[str]:
        """What it has beside the factors of a linear layer."""
        return {what for what in EXTRAS if what in self.parts or getattr(self, what)}

    @property
    def kind(self) -> tuple[tuple[int, ...], int, bool, bool]:
        """What two modules must have in common for their updates to be added."""
        return self.shape, self.groups, self.embedding, self.parameter

    @cached_property
    def scale(self) -> float:
        """``alpha / r``, or ``alpha / sqrt(r)`` with rank-stabilised LoRA (arXiv 2312.03732)."""
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
        """DoRA: the length of each output's row in the merged weight."""
        return self.parts["magnitude"].read() if "magnitude" in self.parts else None

    @property
    def bias(self) -> Array | None:
        """The bias of B, which adds ``scale * bias`` to the output."""
        return self.parts["bias"].read() if "bias" in self.parts else None

    def with_factors(self, *, B: Stored, A: Stored) -> AdapterModule:
        """The same module with other factors, perhaps of another rank, and the same scaling."""
        rank = A.shape[-2] * self.groups
        alpha = self.scale * (rank**0.5 if self.rslora else rank)
        return replace(self, parts={**self.parts, "A": A, "B": B}, alpha=alpha)

    def leading(self, n: int) -> AdapterModule:
        """The same module with the first n rows of A and columns of B."""
        B, A = self.parts["B"], self.parts["A"]
        return self.with_factors(B=B.seen(lambda B: B[..., :n]), A=A.seen(lambda A: A[..., :n, :]))

    def expert(self, expert: int) -> AdapterModule:
        """One map of the stack."""
        parts = {part: self.parts[part].seen(lambda factor: factor[expert]) for part in "AB"}
        return self.with_factors(**parts)

    def factors(self) -> tuple[Array, Array]:
        """``(B, A)`` in float32 or better."""
        if self.tuned:
            return self.tuned.factors()
        return self.parts["B"].single(), self.parts["A"].single()

    def weighted(self) -> tuple[Array, Array]:
        """Factors of the update, the scaling in A."""
        B, A = self.factors()
        return B, A * A.dtype.type(self.scale)

    def as_lora(self) -> AdapterModule:
        """The same update as a LoRA, whose factors are computed when they are read."""
        if not (tuned := self.tuned):
            return self
        (d, k), r = tuned.shape, tuned.directions
        parts = {
            "B": Stored("float32", (d, r), lambda: tuned.factors()[0]),
            "A": Stored("float32", (r, k), lambda: tuned.factors()[1]),
        }
        return replace(self, parts=parts, alpha=float(r), tuned=None)

    def delta(self) -> Array:
        """``scale * B @ A``, of the shape of the update, in float32 or better."""
        if self.tuned:
            return self.tuned.delta().reshape(self.shape)
        B, A = self.factors()
        update: Array = B @ A
        update *= update.dtype.type(self.scale)
        return update.reshape(self.shape)


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
        ``modules_to_save``, trained biases, and embeddings saved with their adapter.
    raw : mapping
        The settings of ``adapter_config.json``.
    path : path, optional
        Where it was read from.
    rows : mapping of str to TokenRows
        Rows of embeddings that are replaced, by the names of the weights in the base model.
    pipeline : bool
        Whether names are those of a file for image models, with a part of a pipeline in front.
    renamed : mapping of str to tuple of Rewrite
        For names that the file has in another form, what was removed from them or added.

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
        """All its tensors."""
        parts = {
            id(part): part for module in self.modules.values() for part in module.parts.values()
        }
        return [*parts.values(), *self.full.values(), *(rows.new for rows in self.rows.values())]

    @property
    def copies(self) -> list[str]:
        """The weights of adapted modules that are saved in full, usually the base's own."""
        return [name for name in self.full if name.removesuffix(".weight") in self]

    @property
    def around(self) -> list[str]:
        """What its names have around them in the file, in words."""
        return sorted({change.what for changes in self.renamed.values() for change in changes})

    @property
    def config(self) -> dict[str, Any]:
        """The content of ``adapter_config.json``, with the rank and alpha of every module."""
        return dict(self._composed.raw)

    @cached_property
    def _composed(self) -> peft.AdapterConfig:
        return peft.compose(self.raw, self.ranks_and_alphas)

    @property
    def ranks_and_alphas(self) -> dict[str, tuple[int, float]]:
        """The rank and alpha of every module."""
        return {name: (module.rank, module.alpha) for name, module in self.modules.items()}

    @property
    def fan_in_fan_out(self) -> bool:
        """Whether the base stores its linear weights as (k, d), as GPT-2's Conv1D does."""
        return bool(self.raw.get("fan_in_fan_out"))

    @property
    def start(self) -> str | None:
        """Initialisation that took the first A and B out of the base, such as "pissa"."""
        return peft.start(self.raw)

    @property
    def has_magnitudes(self) -> bool:
        """Whether it is a DoRA."""
        return any("magnitude" in module.parts for module in self.modules.values())

    def delta(self, name: str) -> Array:
        """``scale * B @ A`` of one module: outputs by inputs, however the base stores its weight.

        With DoRA this is the update of the direction, before rows are brought to their magnitudes.
        """
        return self[name].delta()


# what operations take for an adapter: itself, or where it is
Source = Adapter | StrPath


def check_start(adapter: Adapter, *, with_base: bool = False) -> None:
    """Refuse an adapter whose initialisation changed its base, unless that base is given."""
    if adapter.start is None:
        return
    from lora_np.lora import STARTS  # the layers load only for this

    remedy = "save it with PEFT's path_initial_model_for_weight_conversion"
    if adapter.start in STARTS:
        if with_base:
            return
        remedy = "lora-np convert --to lora --base MODEL (adapters.to_lora) makes a LoRA of it"
    raise FileError(
        f"{adapter}: init_lora_weights = {adapter.start!r} takes what A and B start with out of "
        f"the base, so that B A is no update of it; {remedy}"
    )


def header(tensors: Mapping[str, Stored], dtype: str | None = None) -> dict[str, TensorInfo]:
    """Describe tensors as a file will, floating-point ones rounded to ``dtype`` if one is given."""
    if dtype is not None:
        float_dtype(dtype)
    return {
        key: TensorInfo(dtype if dtype and x.dtype in FLOATS else x.dtype, x.shape)
        for key, x in tensors.items()
    }


def held(values: npt.ArrayLike, dtype: str | None = None, *, name: str = "an adapter") -> Stored:
    """An array in memory, to be stored as ``dtype`` (by default its own)."""
    array = plain(name, values)
    if array.dtype.name not in FLOATS:
        raise TypeError(f"{name} must hold floating-point numbers, got dtype {array.dtype}")
    return Stored(float_dtype(dtype or array.dtype.name), array.shape, lambda: array)


def check_shapes(parts: Mapping[str, Stored], whose: str = "") -> None:
    """Refuse tensors of one module whose shapes do not fit each other."""
    A, B = parts["A"].shape, parts["B"].shape
    if 0 in (*A, *B):
        raise FileError(
            f"A (r, k) and B (d, r){whose} must not be empty, got {A} and {B}: DeepSpeed ZeRO-3"
            " leaves tensors so that are saved without being gathered"
        )
    if not (len(A) == len(B) in (2, 3) and A[:-2] == B[:-2] and A[-2] == B[-1]):
        raise FileError(f"A (r, k) and B (d, r){whose} must fit, got {A} and {B}")
    for part in {"magnitude", "bias"} & parts.keys():
        if (shape := parts[part].shape) != (prod(B[:-1]),):
            raise FileError(f"{part}{whose} must have shape {(prod(B[:-1]),)}, got {shape}")
