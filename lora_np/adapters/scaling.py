"""Change the scale, rank and layout of updates, as other programs require."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from lora_np.adapters.adapter import EXTRAS, Adapter, AdapterModule, Stored
from lora_np.adapters.peft_format import targeting
from lora_np.checks import Array
from lora_np.files import FileError, errors_at
from lora_np.models import peft


def check_sayable(adapter: Adapter, program: str, says: Collection[str]) -> None:
    """Raise an error for a part of a module, or a replaced parameter, that a format lacks."""
    for name, module in adapter.items():
        for what in sorted(module.extras - {*says}):
            raise FileError(
                f"{adapter}: {name!r} has {EXTRAS[what]}, which {program} cannot express"
            )
    for name in (*adapter.full, *adapter.rows):
        how = "in full" if name in adapter.full else "in some rows (trainable_token_indices)"
        hint = "; if it is the base's own, give the base (--base)" if name in adapter.copies else ""
        raise FileError(
            f"{adapter}: {name!r} is replaced {how}, which {program} cannot express{hint}"
        )


def usual(numbers: Iterable[float]) -> float:
    """Return the most frequent number other than 0, or 1 if there is none."""
    counts = Counter(number for number in numbers if number)
    return counts.most_common(1)[0][0] if counts else 1.0


def rescaled(module: AdapterModule, scale: float) -> AdapterModule:
    """Return the same update at another scale; B is multiplied to compensate.

    A 16-bit B becomes float32 unless the multiplier is 0 or a power of two.
    """
    factor, B = module.scale / scale, module.parts["B"]
    if abs(factor - 1) > 2**-23:  # a smaller difference is lost in float32
        B = replace(B, dtype=dtype_of([B.dtype], [factor]), read=partial(_times, B, factor))
    return replace(module, parts={**module.parts, "B": B}, alpha=scale * module.rank, rslora=False)


def _times(stored: Stored, factor: float) -> Array:
    array = stored.single()
    with np.errstate(over="raise"), errors_at(stored.key or "B", (FloatingPointError,)):
        scaled: Array = array * array.dtype.type(factor)
    return scaled


def dtype_of(kinds: Iterable[str], factors: Iterable[float] = ()) -> str:
    """Return the dtype of tensors in dtypes ``kinds`` times ``factors``.

    It is float32 or better if the dtypes differ, or a factor is neither 0 nor a power of two, by
    which multiplying is exact.
    """
    inexact = ("float32" for x in factors if abs(math.frexp(x)[0]) not in (0.0, 0.5))
    kinds = {*kinds, *inexact}
    return max(kinds if len(kinds) == 1 else {"float32"} | (kinds & {"float64"}))


def padded(module: AdapterModule, rank: int) -> AdapterModule:
    """Pad the factors of an update with zeros, so that its rank becomes ``rank``."""
    more = rank // module.groups - module.directions
    if not more:
        return module
    A, B = module.parts["A"], module.parts["B"]
    return module.with_factors(A=zero_padded(A, -2, (0, more)), B=zero_padded(B, -1, (0, more)))


def zero_padded(stored: Stored, axis: int, zeros: tuple[int, int]) -> Stored:
    """Pad a tensor along an axis with the given numbers of zeros before and after it."""
    widths = [(0, 0)] * len(stored.shape)
    widths[axis] = zeros
    return stored.seen(partial(np.pad, pad_width=widths))


def parted(module: AdapterModule, parts: int) -> list[AdapterModule]:
    """Split a module along its outputs into ``parts`` modules of equal size."""
    A, B = module.parts["A"], module.parts["B"]
    d, over = divmod(B.shape[-2], parts)
    if over:
        raise FileError(f"{B.shape[-2]} outputs cannot be split into {parts} parts of one size")
    pieces = [
        partial(np.take, indices=range(part * d, (part + 1) * d), axis=-2) for part in range(parts)
    ]
    return [module.with_factors(A=A, B=B.seen(piece)) for piece in pieces]


def joined(parts: Sequence[AdapterModule | None], outputs: Sequence[int] = ()) -> AdapterModule:
    """Stack modules along the outputs, the reverse of `parted`; None means a zero update."""
    known = next(part for part in parts if part is not None)
    outputs = outputs or [known.parts["B"].shape[-2]] * len(parts)
    modules = [part or _silent(known, d) for part, d in zip(parts, outputs, strict=True)]
    first, *others = modules = _of_one_scale(modules)
    if not others:
        return first
    A, B = ([module.parts[part] for module in modules] for part in "AB")
    shared = all(a.shape == A[0].shape and np.array_equal(a.read(), A[0].read()) for a in A[1:])
    if shared:
        return first.with_factors(A=A[0], B=_below(B))
    ranks = [a.shape[-2] for a in A]
    B = [zero_padded(b, -1, (sum(ranks[:i]), sum(ranks[i + 1 :]))) for i, b in enumerate(B)]
    return first.with_factors(A=_below(A), B=_below(B))


def stacked(maps: Sequence[AdapterModule | None]) -> AdapterModule:
    """Stack modules of the same shape, such as experts; None means a zero update."""
    known = next(module for module in maps if module is not None)
    silent = _silent(known, known.parts["B"].shape[-2])
    modules = _of_one_scale([module or silent for module in maps])
    rank = max(module.rank for module in modules)
    modules = [padded(module, rank) for module in modules]
    each = {
        part: [module.parts[part].seen(lambda x: x[None]) for module in modules] for part in "AB"
    }
    return modules[0].with_factors(**{part: _below(x, 0) for part, x in each.items()})


def without_zeros(module: AdapterModule) -> AdapterModule:
    """Remove directions whose column of B is zero, but keep at least one."""
    kept = np.flatnonzero(module.B.any(axis=-2))
    A, B = module.parts["A"], module.parts["B"]
    pick = partial(np.take, indices=kept if len(kept) else [0])
    return module.with_factors(A=A.seen(partial(pick, axis=-2)), B=B.seen(partial(pick, axis=-1)))


def _silent(known: AdapterModule, outputs: int) -> AdapterModule:
    """Return a zero update with ``outputs`` outputs, and with the factor A of ``known``."""
    B = known.parts["B"]
    shape = (*B.shape[:-2], outputs, B.shape[-1])
    zeros = replace(B, shape=shape, read=partial(np.zeros, shape, np.float32))
    return replace(known, parts={**known.parts, "B": zeros})


def _of_one_scale(modules: Sequence[AdapterModule]) -> list[AdapterModule]:
    """Return the modules unchanged if their scales are equal, otherwise with a scale of 1."""
    if len({module.scale for module in modules}) == 1:
        return [*modules]
    alphas = [float(x.rank) ** (0.5 if x.rslora else 1.0) for x in modules]
    return [
        replace(x, parts=rescaled(x, 1.0).parts, alpha=alpha)
        for x, alpha in zip(modules, alphas, strict=True)
    ]


def _below(parts: Sequence[Stored], axis: int = -2) -> Stored:
    """Concatenate tensors along an axis, in float32 or better if their dtypes differ."""
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    dtype = dtype_of(part.dtype for part in parts)
    join = partial(np.concatenate, axis=axis)
    return Stored(dtype, tuple(shape), lambda: join([part.read() for part in parts]))


def made_portable(adapter: Adapter) -> Adapter:
    """Return the adapter with scale 1, equal ranks and plain settings, which suit any program."""
    check_sayable(adapter, "the portable form", ("embedding", "parameter", "kernel"))
    groups = math.lcm(*(module.groups for module in adapter.values()))
    rank = -(-max(module.rank for module in adapter.values()) // groups) * groups
    modules = {name: padded(rescaled(module, 1.0), rank) for name, module in adapter.items()}
    settings = adapter.raw
    plain = (*peft.FRESH, "revision", "auto_mapping", "fan_in_fan_out", "lora_dropout")
    raw = {**peft.FRESH, **{key: settings[key] for key in plain if key in settings}}
    # Settings that restrict target_modules are dropped. If there are none, a list of target names
    # still selects the same modules, so keep the list.
    names, layers = settings.get("target_modules"), settings.get("layers_to_transform")
    exact = isinstance(names, list) and layers is None and not settings.get("exclude_modules")
    raw = targeting(raw, modules) | ({"target_modules": names} if exact else {})
    return replace(adapter, modules=modules, raw=raw)
