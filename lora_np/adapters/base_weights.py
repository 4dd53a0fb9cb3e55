"""Compute the weights of a base model with an adapter applied, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple, Self

import numpy as np

from lora_np import hub, lora
from lora_np.adapters.adapter import (
    Adapter,
    AdapterModule,
    Stored,
    TokenRows,
    check_init,
    in_memory,
)
from lora_np.adapters.base_models import check_base
from lora_np.adapters.scaling import parted, zero_padded
from lora_np.checks import Array, Rng, StrPath, close_names
from lora_np.files import FileError
from lora_np.hub import directory
from lora_np.models import OpenModel, Parameter, Place, peft

Reader = Callable[[], Array]
ENOUGH = 0.9  # warn if a smaller share of the update survives rounding
BLOCK = 2**20  # entries processed at a time, so that no second copy of a weight is needed


class MergeLoss(NamedTuple):
    """Statistics of merged tensors: maxima and sums over their entries.

    W0 is a base weight, dW its exact update, and Q the rounded result that was written.
    """

    change: float = 0.0  # max |Q - W0|
    rounding: float = 0.0  # max |Q - W0 - dW|
    tensors: int = 0
    parameters: int = 0
    unmoved: int = 0  # the number of entries where Q = W0
    weight: float = 0.0  # <W0, W0>
    update: float = 0.0  # <dW, dW>
    kept: float = 0.0  # <Q - W0, dW>
    overlap: float = 0.0  # <W0, dW>: about 0 unless W0 already contains the update

    @classmethod
    def of(cls, W0: Array, dW: Array, Q: Array) -> Self:
        """Compute the statistics of a tensor, or of some of its rows."""
        W0 = W0.astype(dW.dtype, copy=False)
        moved = Q - W0
        change, rounding = (float(np.abs(x).max()) for x in (moved, moved - dW))
        products = (float(np.vdot(x, y)) for x, y in ((W0, W0), (dW, dW), (moved, dW), (W0, dW)))
        unmoved = W0.size - int(np.count_nonzero(moved))
        return cls(change, rounding, 1, W0.size, unmoved, *products)

    @classmethod
    def together(cls, parts: Iterable[Self]) -> Self:
        """Combine the statistics of several tensors, or of several parts of one tensor."""
        change, rounding, *sums = zip(cls(), *parts, strict=True)
        return cls(max(change), max(rounding), *map(sum, sums))

    @property
    def shares(self) -> tuple[float, float]:
        """The share of the update that survived rounding, and the share of unchanged entries."""
        kept = self.kept / self.update if self.update else 1.0
        return kept, self.unmoved / max(1, self.parameters)


@dataclass(frozen=True)
class Change:
    """The new value of one tensor: ``initial`` with new ``rows`` and the update of ``module``."""

    # the base's tensor or the adapter's replacement; sets the dtype unless another is given
    initial: Stored
    module: AdapterModule | None = None
    rows: TokenRows | None = None
    # the parameter that the module changes, and the name of a tensor that stores it or a part of it
    parameter: Parameter | None = None
    tensor: str = ""
    fan_in_fan_out: bool = False  # whether the base stores weights as (k, d)

    # the initialisation, such as PiSSA, that subtracted its B A from the weight
    init: str | None = None

    def result(
        self, place: str, dtype: str | None = None, rng: Rng = None
    ) -> tuple[Array, MergeLoss | None]:
        """Return the new tensor, and statistics of the update, or None without a ``module``.

        Without a ``module``, the tensor is not rounded to ``dtype``.
        """
        dtype, module, W = dtype or self.initial.dtype, self.module, self.initial.read()
        if dtype != W.dtype.name:  # make W wide enough for values rounded to `dtype`
            least = dtype if dtype == "float64" else "float32"
            W = W.astype(np.promote_types(W.dtype, least), copy=False)
        if self.rows is not None:
            W[list(self.rows.tokens)] = hub.rounded(self.rows.new.read(), self.initial.dtype)
        if module is None:
            if not np.isfinite(W).all():
                raise FileError(f"{place} is replaced by values that are not finite")
            return W, None
        module.check_everywhere(place)
        if dtype not in hub.ALL_FLOATS:
            raise FileError(f"{place} is stored as {dtype}; only floats can be merged into")
        maps = self.oriented(place, W, module)
        if self.init:
            module = relative_to_base(module, maps, self.init)
        return W, add_update(place, maps, module, dtype=dtype, rng=rng)

    def weight(self, place: str, module: AdapterModule) -> Array:
        """Return the tensor before the update as a (d, k) matrix or a stack, at least float32."""
        return self.oriented(place, self.initial.single(), module)

    def oriented(self, place: str, W: Array, module: AdapterModule) -> Array:
        """View a tensor as a matrix of outputs by inputs, (d, k), or as a stack of matrices."""
        assert self.parameter is not None
        if module.kernel and module.groups > 1:
            why = "cannot be merged: PEFT's update has the inputs of all groups"
            raise FileError(f"{place}: a convolution in {module.groups} groups {why}")
        return self.parameter.oriented(
            self.tensor,
            W,
            module.shape,
            kernel=bool(module.kernel),
            embedding=module.embedding,
            transposed=self.fan_in_fan_out,
        )


@dataclass(frozen=True)
class Merging:
    """A base model with an adapter applied: the tensors that change, and their changes."""

    source: OpenModel
    update: Adapter

    def __post_init__(self) -> None:
        check_init(self.update, with_base=True)
        if self.update.init == "olora" and self.update.fan_in_fan_out:
            raise FileError(
                f"{self.update}: OLoRA with fan_in_fan_out is not supported, as PEFT ignores the"
                " orientation"
            )

    @cached_property
    def named(self) -> Callable[[str], str]:
        """A function that maps the adapter's name of a parameter to the base's tensor name."""
        return self.source.naming([weight_name(*item) for item in self.update.modules.items()])

    @cached_property
    def weights(self) -> dict[str, str]:
        """A mapping from the name of each adapted module to the name of its tensor in the base."""
        modules = self.update.modules
        wanted = [weight_name(*item) for item in modules.items()]
        return dict(zip(modules, map(self.named, wanted), strict=True))

    def read(self, name: str) -> Array:
        """Return a tensor of the adapted model; changed ones in float64, with unrounded updates."""
        if name not in self.changes:
            return self.source.read(self.source.tied.get(name, name))
        return self.changes[name].result(f"{self.source.path}: {name!r}", "float64")[0]

    @cached_property
    def changes(self) -> dict[str, Change]:
        """The changes of all tensors that the adapter changes or unties, by their names."""
        named, tied = self.named, self.source.tied
        changes = {named(name): self._replacement(name) for name in self.update.full}
        for name, rows in self.update.rows.items():
            old = changes.get(named(name)) or self._original(named(name), name)
            shape = old.initial.shape
            d, k = shape if len(shape) == 2 else (0, 0)
            more = max(0, max(rows.tokens) + 1 - d)
            if rows.new.shape[1] != k or not {*range(d, d + more)} <= {*rows.tokens}:
                raise FileError(
                    f"{self.source.path}: {name!r} of shape {shape} does not have the rows that "
                    f"{self.update} replaces: up to {max(rows.tokens)}, of {rows.new.shape[1]} "
                    "entries"
                )
            initial = zero_padded(old.initial, 0, (0, more)) if more else old.initial
            changes[named(name)] = replace(old, initial=initial, rows=rows)
        adapted, init = {*self.weights.values()}, self.update.init
        fan_in_fan_out = self.update.fan_in_fan_out
        own = {owner: changes[owner] for owner in adapted & changes.keys()}
        before = {owner: own.get(owner) or self.unchanged(owner) for owner in tied.values()}
        for name, module in self.update.modules.items():
            for parameter, target, part in self._parts(name, module):
                old = changes.get(target) or self._original(target, name)
                changes[target] = replace(
                    old,
                    module=part,
                    parameter=parameter,
                    tensor=target,
                    fan_in_fan_out=fan_in_fan_out,
                    init=init,
                )
        full = {named(name): stored for name, stored in self.update.full.items()}
        whole = [
            (name, owner) for name, owner in tied.items() if {name, owner} <= full.keys() - adapted
        ]
        same = {
            name for name, owner in whole if np.array_equal(full[name].read(), full[owner].read())
        }
        # PEFT keeps tensors tied if an adapter replaces rows or biases; other changes untie them.
        moved = {owner for name, owner in tied.items() if name.endswith(".weight")} & (
            adapted | full.keys()
        )
        if any(
            name in changes or owner in moved for name, owner in tied.items() if name not in same
        ):
            if not self.source.can_untie:
                every = ", ".join({**before, **tied})
                raise FileError(
                    f"{self.source.path}: {self.update} changes only one of {every}, but models of"
                    " this type always share them: it cannot be merged"
                )
            return {name: before[owner] for name, owner in tied.items()} | changes
        return {name: change for name, change in changes.items() if name not in same}

    @cached_property
    def vocabulary(self) -> tuple[int, int] | None:
        """The vocabulary sizes of the base and of the result, or None if they are equal."""
        source, sizes = self.source, {}
        for name in (*source.places, *self.changes):
            owner = source.tied.get(name, name)
            if name.rpartition(".")[0].endswith(peft.VOCABULARY) and owner in source:
                old = source.info(owner).shape[0]
                new = self.changes[name].initial.shape[0] if name in self.changes else old
                sizes[name] = old, new
        changed = {pair for pair in sizes.values() if pair[0] != pair[1]}
        if not changed:
            return None
        old, new = max(changed)
        if kept := [name for name, pair in sizes.items() if old in pair and pair != (old, new)]:
            raise FileError(
                f"{self.update}: has {new} tokens, {source.path} {old}, and no new rows for "
                f"{kept[0]!r}: save it with the adapter too"
            )
        return old, new

    def _parts(
        self, name: str, module: AdapterModule
    ) -> Iterator[tuple[Parameter, str, AdapterModule]]:
        """Yield the parameter, the name and the update of each tensor that a module changes.

        A checkpoint may store a layer's experts one by one, and fused projections separately.
        """
        source, parameter = self.source, self._parameter(weight_name(name, module))
        experts = {place.expert for place in parameter.places.values()}
        if None not in experts and len(experts) != module.maps:
            raise FileError(
                f"{source.path}: {name!r} has {len(experts)} experts, {self.update} {module.maps}"
            )
        if module.tuned:
            module = replace(module, tuned=module.tuned.on(self._sides(parameter)))
        for target, place in parameter.places.items():
            if place.expert is None:
                yield parameter, target, module
            else:
                yield (
                    parameter,
                    target,
                    parted(module.expert(place.expert), place.parts)[place.part],
                )
        if module.tuned and module.tuned.moves_bias:
            if (bias := self._parameter(f"{name}.bias")).tensor in source:
                column = module.tuned.on((module.shape[0], 1))
                yield bias, bias.tensor, replace(module, tuned=column)
        elif "bias" in module.parts:  # treat the bias as a matrix (d, 1)
            trained, bias = module.parts["bias"], self._parameter(f"{name}.bias")
            one = Stored(trained.dtype, (1, 1), lambda: np.ones((1, 1)))
            factors = {"B": trained.seen(lambda b: b[:, None]), "A": one}
            if bias.tensor not in source and bias.tensor not in source.tied:
                raise FileError(
                    f"{source.path}: has no {bias.tensor!r} to which the bias of B could be added;"
                    " PEFT cannot merge it either: train without lora_bias"
                )
            yield bias, bias.tensor, AdapterModule(factors, alpha=module.scale)

    def _parameter(self, name: str) -> Parameter:
        """Return the base's parameter for a name, or else a new parameter with a single tensor."""
        if found := self.source.parameters.get(name):
            return found
        tensor = self.named(name)
        return Parameter(self.source, name, {tensor: Place(name)})

    def _sides(self, parameter: Parameter) -> tuple[int, ...]:
        """Return the numbers of outputs and inputs of a linear weight, however it is stored."""
        module = self.source.module_of(parameter.name)
        unsure = (
            self.source.described is None and self.update.fan_in_fan_out and not module.transposed
        )
        return module.shape[::-1] if unsure else module.shape

    def unchanged(self, name: str) -> Change:
        """Return a ``Change`` that leaves a tensor as it is; bitsandbytes' codes become float32."""
        source = self.source
        if name in source.quantised:
            shape = hub.read_bitsandbytes(source, name).shape
            return Change(
                Stored("float32", shape, lambda: hub.read_bitsandbytes(source, name).dequantised())
            )
        info = source.info(name)
        return Change(Stored(info.dtype, info.shape, partial(source.read, name)))

    def _replacement(self, name: str) -> Change:
        source, target, new = self.source, self.named(name), self.update.full[name]
        if target not in source and target != name:
            raise FileError(
                f"{source.path}: has no {target!r}; merge into the model with its head instead"
            )
        old = source.info(target) if target in source else new
        grown = old.shape[1:] == new.shape[1:] and name.rpartition(".")[0].endswith(peft.VOCABULARY)
        if old.shape != new.shape and not grown:
            raise FileError(
                f"{self.update}: {name!r} has shape {new.shape}, but {old.shape} in {source.path}"
            )
        # copy the array, because rows are replaced in place and the caller may own the array
        return Change(replace(new, dtype=old.dtype, read=lambda: new.read().copy()))

    def _original(self, target: str, name: str) -> Change:
        source = self.source
        owner = target if target in source.places else source.tied.get(target)
        if owner is not None:
            return self.unchanged(owner)
        close = close_names(target, source.places)
        raise FileError(
            f"{source.path}: has no {target!r}, which {self.update} adapts as {name!r}{close}"
        )


def relative_to_base(module: AdapterModule, W: Array, init: str) -> AdapterModule:
    """Return the update relative to the original weight ``W`` (d, k), as a module of rank 2 r.

    ``W - s B0 A0 + s B A = W + s [B, -B0] [A; A0]``.
    """
    B0, A0 = lora.STARTS[init](W.astype(np.float64), module.rank, module.scale)
    B, A = module.factors()
    b, a = (module.parts[part].dtype for part in "BA")
    return module.with_factors(
        B=in_memory(np.hstack([B, -B0]), b), A=in_memory(np.vstack([A, A0]), a)
    )


def weight_name(name: str, module: AdapterModule) -> str:
    """Return the name of the parameter that a module of an adapter changes."""
    return name if module.parameter else f"{name}.weight"


def add_update(
    place: str, W: Array, module: AdapterModule, *, dtype: str, rng: Rng = None
) -> MergeLoss:
    """Add a module's update to ``W`` in place, round the sum to ``dtype``, and return statistics.

    ``W``, of shape (d, k) or a stack, becomes ``W0 + scale * B A``. The sum is computed in float64
    if ``dtype`` is float32 or float64, otherwise in float32. With DoRA each row is scaled to its
    magnitude.
    """
    wide = np.dtype(np.float64 if dtype in ("float32", "float64") else np.float32)
    change = changing(module, W, wide)
    magnitude, measured = module.magnitude, []
    step = max(1, BLOCK // W.shape[-1])
    # suppress warnings, because a result that is not finite raises an error below
    with np.errstate(all="ignore"):
        for index in np.ndindex(W.shape[:-2]):
            for first in range(0, W.shape[-2], step):
                rows = (*index, slice(first, first + step))
                update = change(rows)
                exact = W[rows] + update
                if magnitude is not None:  # DoRA; a zero row becomes NaN and raises an error below
                    exact *= (magnitude[rows] / np.linalg.norm(exact, axis=1))[:, None]
                    update = exact - W[rows]
                stored = hub.rounded(exact, dtype, rng)
                if not np.isfinite(stored).all():
                    raise FileError(f"{place} is not finite after merging in dtype {dtype}")
                measured.append(MergeLoss.of(W[rows], update, stored))
                W[rows] = stored
    return MergeLoss.together(measured)._replace(tensors=1)


def losses(merging: Merging, parts: Sequence[MergeLoss | None], offer: str) -> list[str]:
    """Return notes on what merging changed; if rounding lost much, suggest ``offer``."""
    every = MergeLoss.together(part for part in parts if part)
    if not every.tensors:
        return []
    kept, unmoved = every.shares
    notes = [
        f"share of the update kept: {kept:.2f}; {unmoved:.1%} of the entries are unchanged;"
        f" largest rounding error {every.rounding:.3g}"
    ]
    if abs(every.overlap - every.update) < 0.1 * every.update:
        notes.append(f"{merging.source.path} seems to contain {merging.update} already")
    if None not in parts and not every.change:
        notes.append("nothing has changed: every update is zero, or rounds to zero in its dtype")
    elif kept < ENOUGH:
        notes.append(f"rounding loses much of the update: {offer}, or --rounding random --seed 0")
    return notes


def changing(
    module: AdapterModule, W: Array, wide: np.dtype[Any]
) -> Callable[[tuple[int | slice, ...]], Array]:
    """Return a function that maps an index of rows of ``W`` to the update of these rows."""
    if module.tuned:
        update = replace(module.tuned, weight=lambda: W, dtype=wide).delta()
        return lambda rows: update[rows]
    scale = wide.type(module.scale)
    B, A = module.B.astype(wide) * scale, module.A.astype(wide)
    return lambda rows: B[rows] @ A[rows[:-1]]


class Based(NamedTuple):
    """An adapter with readers of the base weights (d, k), and of the biases that a tuner scales."""

    adapter: Adapter
    weights: Mapping[str, Reader]
    biases: Mapping[str, Callable[[], tuple[Array, MergeLoss | None]]]
    unsure: tuple[str, ...]


def on_base(adapter: Adapter, base: StrPath | OpenModel | None, *, any_base: bool = False) -> Based:
    """Return the adapter with readers of the base weights; no readers if ``base`` is None."""
    if base is None:
        return Based(adapter, {}, {}, ())
    source = base if isinstance(base, OpenModel) else OpenModel.at(directory(base))
    base = source.path
    merging = Merging(source, adapter)
    unsure = () if any_base else check_base(source, adapter)
    weights: dict[str, Reader] = {}
    biases: dict[str, Callable[[], tuple[Array, MergeLoss | None]]] = {}
    modules = dict(adapter.modules)
    for name, target in merging.weights.items():
        # skip weights that the base stores as several tensors, which have no single change
        if (change := merging.changes.get(target)) is None:
            continue
        module = change.module or modules[name]
        weights[name] = partial(change.weight, f"{base}: {name!r}", module)
        if module.tuned:
            tuned = replace(module.tuned, weight=weights[name])
            modules[name] = replace(module, tuned=tuned)
            if tuned.moves_bias and (moved := merging.changes.get(merging.named(f"{name}.bias"))):
                biases[f"{name}.bias"] = partial(
                    moved.result, f"{base}: bias of {name!r}", "float32"
                )
    return Based(replace(adapter, modules=modules), weights, biases, unsure)
