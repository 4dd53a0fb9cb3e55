"""The same updates with other scales, ranks and parts, for programs that have only one of each."""

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
from lora_np.files import FileError
from lora_np.models import peft


def check_sayable(adapter: Adapter, program: str, says: Collection[str] = ()) -> None:
    """Refuse by name what a format has no place for."""
    for name, module in adapter.items():
        for what in sorted(module.extras - {*says}):
            raise FileError(
                f"{adapter}: {name!r} has {EXTRAS[what]}, for which {program} has no place"
            )
    for name in (*adapter.full, *adapter.rows):
        how = "in full" if name in adapter.full else "in some rows (trainable_token_indices)"
        hint = "; if it is the base's own, give the base (--base)" if name in adapter.copies else ""
        raise FileError(
            f"{adapter}: {name!r} is replaced {how}, for which {program} has no place{hint}"
        )


def usual(numbers: Iterable[float]) -> float:
    """The most frequent number other than 0; 1 if there is none."""
    counts = Counter(number for number in numbers if number)
    return counts.most_common(1)[0][0] if counts else 1.0


def rescaled(module: AdapterModule, scale: float) -> AdapterModule:
    """Give an update another scale: B takes the rest, in float32 where 16 bits would round it."""
    factor, B = module.scale / scale, module.parts["B"]
    if abs(factor - 1) > 2**-23:  # which a file of float32 can say
        exact = abs(math.frexp(factor)[0]) in (0.0, 0.5)  # a power of two
        dtype = B.dtype if exact or B.dtype in ("float64", "float32") else "float32"
        B = replace(B, dtype=dtype, read=partial(_times, B, factor))
    return replace(module, parts={**module.parts, "B": B}, alpha=scale * module.rank, rslora=False)


def _times(stored: Stored, factor: float) -> Array:
    array = stored.single()
    with np.errstate(over="raise"):
        scaled: Array = array * array.dtype.type(factor)
    return scaled


def padded(module: AdapterModule, rank: int) -> AdapterModule:
    """The same update at a larger rank, with directions that are zero."""
    more = rank // module.groups - module.directions
    if not more:
        return module
    A, B = module.parts["A"], module.parts["B"]
    return module.with_factors(A=zero_padded(A, -2, (0, more)), B=zero_padded(B, -1, (0, more)))


def zero_padded(stored: Stored, axis: int, zeros: tuple[int, int]) -> Stored:
    """With so many zeros before and after along an axis."""
    widths = [(0, 0)] * len(stored.shape)
    widths[axis] = zeros
    return stored.seen(partial(np.pad, pad_width=widths))


def parted(module: AdapterModule, parts: int) -> list[AdapterModule]:
    """The maps that are stacked along the outputs."""
    A, B = module.parts["A"], module.parts["B"]
    d, over = divmod(B.shape[-2], parts)
    if over:
        raise FileError(f"{B.shape[-2]} outputs cannot be those of {parts} maps of one size")
    pieces = [
        partial(np.take, indices=range(part * d, (part + 1) * d), axis=-2) for part in range(parts)
    ]
    return [module.with_factors(A=A, B=B.seen(piece)) for piece in pieces]


def joined(parts: Sequence[AdapterModule | None], outputs: Sequence[int] = ()) -> AdapterModule:
    """Stack maps along the outputs, the reverse of `parted`; None stands for an unadapted map."""
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
    """Stack maps of one shape, as experts are; None stands for an unadapted one."""
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
    """The same update without directions of which B has nothing, but for one."""
    kept = np.flatnonzero(module.B.any(axis=-2))
    A, B = module.parts["A"], module.parts["B"]
    pick = partial(np.take, indices=kept if len(kept) else [0])
    return module.with_factors(A=A.seen(partial(pick, axis=-2)), B=B.seen(partial(pick, axis=-1)))


def _silent(known: AdapterModule, outputs: int) -> AdapterModule:
    """An update of zero with the factor A of another one."""
    B = known.parts["B"]
    shape = (*B.shape[:-2], outputs, B.shape[-1])
    zeros = replace(B, shape=shape, read=partial(np.zeros, shape, np.float32))
    return replace(known, parts={**known.parts, "B": zeros})


def _of_one_scale(modules: Sequence[AdapterModule]) -> list[AdapterModule]:
    """The same updates, with a scale of 1 if theirs differ."""
    if len({module.scale for module in modules}) == 1:
        return [*modules]
    alphas = [float(x.rank) ** (0.5 if x.rslora else 1.0) for x in modules]
    return [
        replace(x, parts=rescaled(x, 1.0).parts, alpha=alpha)
        for x, alpha in zip(modules, alphas, strict=True)
    ]


def _below(parts: Sequence[Stored], axis: int = -2) -> Stored:
    """One below the other; in float32 or better if their types differ."""
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    kinds = {part.dtype for part in parts}
    dtype = max(kinds if len(kinds) == 1 else {"float32"} | (kinds & {"float64"}))
    join = partial(np.concatenate, axis=axis)
    return Stored(dtype, tuple(shape), lambda: join([part.read() for part in parts]))


def made_portable(adapter: Adapter) -> Adapter:
    """Give an adapter scale 1, one rank and plain settings, for every program."""
    check_sayable(adapter, "the portable form", ("embedding", "parameter", "kernel"))
    groups = math.lcm(*(module.groups for module in adapter.values()))
    rank = -(-max(module.rank for module in adapter.values()) // groups) * groups
    modules = {name: padded(rescaled(module, 1.0), rank) for name, module in adapter.items()}
    settings = adapter.raw
    plain = (*peft.FRESH, "revision", "auto_mapping", "fan_in_fan_out", "lora_dropout")
    raw = {**peft.FRESH, **{key: settings[key] for key in plain if key in settings}}
    # a list of names, without layers or exceptions, is exact for the model that it was made for
    names, layers = settings.get("target_modules"), settings.get("layers_to_transform")
    exact = isinstance(names, list) and layers is None and not settings.get("exclude_modules")
    raw = targeting(raw, modules) | ({"target_modules": names} if exact else {})
    return replace(adapter, modules=modules, raw=raw)
