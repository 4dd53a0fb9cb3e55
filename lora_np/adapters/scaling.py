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
    return module.with_factors(A=widened(A, -2, (0, more)), B=widened(B, -1, (0, more)))


def widened(stored: Stored, axis: int, zeros: tuple[int, int]) -> Stored:
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


def joined(parts: Sequence[AdapterModule | None]) -> AdapterModule:
    """Stack maps along the outputs, the reverse of `parted`; None stands for an unadapted map."""
    known = next(part for part in parts if part is not None)
    zeros = partial(np.zeros, known.parts["B"].shape, np.float32)
    silent = replace(known, parts={**known.parts, "B": replace(known.parts["B"], read=zeros)})
    modules = [part or silent for part in parts]
    first, *others = modules
    if not others:
        return first
    if any(other.scale != first.scale for other in others):
        return joined([rescaled(module, 1.0) for module in modules])
    A, B = ([module.parts[part] for module in modules] for part in "AB")
    shared = all(a.shape == A[0].shape and np.array_equal(a.read(), A[0].read()) for a in A[1:])
    if shared:
        return first.with_factors(A=A[0], B=_below(B))
    ranks = [a.shape[-2] for a in A]
    B = [widened(b, -1, (sum(ranks[:i]), sum(ranks[i + 1 :]))) for i, b in enumerate(B)]
    return first.with_factors(A=_below(A), B=_below(B))


def _below(parts: Sequence[Stored]) -> Stored:
    """One below the other."""
    *stack, _, columns = parts[0].shape
    shape = (*stack, sum(part.shape[-2] for part in parts), columns)
    return Stored(
        parts[0].dtype, shape, lambda: np.concatenate([part.read() for part in parts], axis=-2)
    )


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
