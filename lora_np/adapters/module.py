"""What an adapter does to one module, in arrays that are read when they are used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lora_np.checks import Array
from lora_np.hub import FLOATS, TensorInfo, float_dtype
from lora_np.models import peft


@dataclass(frozen=True)
class Stored:
    """A tensor that is read when it is used."""

    dtype: str  # in the file: "float32", "bfloat16", ...
    shape: tuple[int, ...]
    read: Callable[[], Array]  # bfloat16 as float32
    blocks: int = 1  # on the diagonal; the file that it is read from holds nothing else

    @property
    def size(self) -> int:
        """How many numbers it takes in the file that it is read from."""
        return prod(self.shape) // self.blocks


class TokenRows(NamedTuple):
    """TokenRows of an embedding that are replaced: PEFT's ``trainable_token_indices``.

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
class AdapterModule:
    """What an adapter does to one module: ``W0 + scale * B @ A``.

    ``A`` (r, k), ``B`` (d, r) and, where there are, ``magnitude`` (d,) and ``bias`` (d,) are read from the
    file each time they are used. Several maps under one name, those of experts or of a convolution's groups,
    are stacked: ``A`` (n, r, k) and ``B`` (n, d, r). A convolution is the map of its patches: k is the number
    of inputs times the size of the kernel.

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
        Whether the name is that of a parameter, as in PEFT's ``target_parameters``, and not of a module.

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
        wrong = misfit(parts)
        if wrong:
            raise ValueError(wrong)
        return cls(parts, peft.checked_alpha(alpha), rslora, embedding)

    @cached_property
    def directions(self) -> int:
        """The rank of each of the stacked maps; where there is but one, the rank."""
        return self.parts["A"].shape[-2]

    @cached_property
    def maps(self) -> int:
        """How many maps are stacked."""
        return self.parts["A"].shape[0] if len(self.parts["A"].shape) == 3 else 1

    @cached_property
    def groups(self) -> int:
        """The groups of a convolution, which share its rank; experts have the whole rank each."""
        return self.maps if self.kernel else 1

    @cached_property
    def rank(self) -> int:
        return self.parts["A"].shape[-2] * self.groups

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Of the update: ``(d, k)``, ``(experts, d, k)``, or outputs, inputs and kernel of a convolution."""
        d, k = self.parts["B"].shape[-2], self.parts["A"].shape[-1]
        if self.kernel:
            return (d * self.groups, k // prod(self.kernel), *self.kernel)
        return (*self.parts["A"].shape[:-2], d, k)

    @property
    def kind(self) -> tuple[tuple[int, ...], int, bool, bool]:
        """What two modules have in common whose updates can be added."""
        return self.shape, self.groups, self.embedding, self.parameter

    @cached_property
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
        """What one more direction costs in the file."""
        factors = header({part: self.parts[part] for part in "AB"})
        return sum(info.nbytes for info in factors.values()) // self.directions

    def with_factors(self, *, B: Stored, A: Stored) -> AdapterModule:
        """The same module with other factors, perhaps of another rank, and the same scaling."""
        rank = A.shape[-2] * self.groups
        alpha = self.scale * (rank**0.5 if self.rslora else rank)
        return replace(self, parts={**self.parts, "A": A, "B": B}, alpha=alpha)

    def leading(self, directions: int) -> AdapterModule:
        """The same module with the first rows of A and columns of B."""
        B, A = self.parts["B"], self.parts["A"]
        return self.with_factors(
            B=replace(B, shape=(*B.shape[:-1], directions), read=lambda: B.read()[..., :directions]),
            A=replace(
                A, shape=(*A.shape[:-2], directions, A.shape[-1]), read=lambda: A.read()[..., :directions, :]
            ),
        )

    def expert(self, expert: int, *, part: int, parts: int) -> AdapterModule:
        """One map of the stack, or a part of its outputs."""
        B, A = self.parts["B"], self.parts["A"]
        d = B.shape[1] // parts
        rows = slice(part * d, (part + 1) * d)
        return self.with_factors(
            B=replace(B, shape=(d, B.shape[2]), read=lambda: B.read()[expert, rows]),
            A=replace(A, shape=A.shape[1:], read=lambda: A.read()[expert]),
        )

    def factors(self) -> tuple[Array, Array]:
        """``(B, A)`` in float32 or better."""
        return at_least_single(self.B), at_least_single(self.A)

    def delta(self) -> Array:
        """``scale * B @ A``, of the shape of the update, in float32 or better."""
        B, A = self.factors()
        update: Array = B @ A
        update *= update.dtype.type(self.scale)
        return update.reshape(self.shape)


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


def misfit(parts: Mapping[str, Stored], whose: str = "") -> str | None:
    """Why the shapes of one module do not fit each other, if so."""
    A, B = parts["A"].shape, parts["B"].shape
    if not (len(A) == len(B) in (2, 3) and A[:-2] == B[:-2] and A[-2] == B[-1]):
        return f"A (r, k) and B (d, r){whose} must fit, got {A} and {B}"
    if 0 in (*A, *B):
        return f"A (r, k) and B (d, r){whose} must not be empty, got {A} and {B}"
    for part in ("magnitude", "bias"):
        if part in parts and parts[part].shape != (prod(B[:-1]),):
            return f"{part}{whose} must have shape {(prod(B[:-1]),)}, got {parts[part].shape}"
    return None
