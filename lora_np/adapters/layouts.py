"""Join or split an adapter's projections and experts to match the modules of its base.

Joining is exact: the LoRAs of several matrices equal one LoRA of the stacked matrix, with their As
stacked and their Bs as the blocks of a block-diagonal B. Splitting is exact too: each part takes
its own rows of B, and the whole A.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from lora_np.adapters import scaling
from lora_np.adapters.adapter import EXTRAS, Adapter, AdapterModule, check_init
from lora_np.adapters.peft_format import targeting
from lora_np.adapters.scaling import without_zeros
from lora_np.checks import Array
from lora_np.files import FileError
from lora_np.models import Layers, ModuleSpec, OpenModel

# The names of fused projections and of their parts. The rows of query_key_value (in GPT-NeoX, BLOOM
# and Falcon) are ordered by heads, the rows of the other projections by parts.
_FUSED = re.compile(r"(qkv|query_key_value|c_attn|gate_up)(?=(_proj)?$)")
_BY_HEADS = "query_key_value"
_PARTS = {"qkv": ("q", "k", "v"), "gate_up": ("gate", "up")}
_Pieces = Mapping[tuple[int, int], AdapterModule]  # keys: the indices of an expert and a part


def laid_out(
    adapter: Adapter, base: OpenModel, *, apart: bool | None = None
) -> tuple[Adapter, dict[str, list[str]]]:
    """Split or join modules to match the base; also return the old names of modules that changed.

    With ``apart`` each expert gets its own modules, as in checkpoints; if it is false, all experts
    share one parameter, as in transformers. By default experts stay as they are.
    """
    modules: dict[str, AdapterModule] = {}
    sources: dict[str, list[str]] = {}
    joined: dict[str, dict[tuple[int, int], AdapterModule]] = {}
    pieces = pieces_of(base)
    for name, module in adapter.items():
        bare = name.removesuffix(".weight")
        known, place = base.modules.get(bare), base.dialects.place(f"{bare}.weight")
        owner, part = pieces.get(bare, ("", 0))
        index, parts = (0, part), _parts(bare)
        if apart is False and place and place.expert is not None:
            owner, index = place.parameter, (place.expert, place.part)
        new = {name: module}
        if known is None and owner in base.modules:
            joined.setdefault(owner, {})[index] = module
            new = {owner: module}
        elif known is None and parts and base.modules.keys() >= {*parts}:
            outputs = [base.modules[part].shape[0] for part in parts]
            rows = np.argsort(_rows(bare, outputs, _stack(base, bare)))
            each = np.split(rows, np.cumsum(outputs)[:-1])
            new = {x: without_zeros(_taken(module, i)) for x, i in zip(parts, each, strict=True)}
        elif known and known.kind == "router" and apart is not None:
            path = known.alias or known.name if apart else f"{known.name}.weight"
            new = {path: replace(module, parameter=not apart)}
        elif known and known.kind == "experts" and apart:
            new = dict(_experts(known, module, base)) or new
        if new.keys() != {name}:
            _check_plain(adapter, name)
        for path in new:
            sources.setdefault(path, []).append(name)
        modules |= new
    for owner, given in joined.items():
        at = f"{adapter}: {owner!r}"
        if owner in adapter:
            raise FileError(
                f"{at} is adapted both as a whole and in parts; programs allow only one"
            )
        modules[owner] = _whole(at, base.modules[owner], given, _stack(base, owner))
    moved = {name: old for name, old in sources.items() if old != [name]}
    if not moved:
        return adapter, {}
    check_init(adapter)
    renamed = {name: changes for name, changes in adapter.renamed.items() if name in modules}
    raw = targeting(adapter.raw, modules)
    return replace(adapter, modules=modules, raw=raw, renamed=renamed), moved


def pieces_of(base: OpenModel) -> dict[str, tuple[str, int]]:
    """Map the names of the parts of fused projections to the projection and the part's index."""
    return {
        part: (module.name, i)
        for module in base.modules.values()
        if module.kind == "linear" and _stack(base, module.name)
        for i, part in enumerate(_parts(module.name))
    }


def _parts(name: str) -> list[str]:
    """List the names of a fused projection's parts in the order of their rows; [] if not fused."""
    if not (fused := _FUSED.search(name)):
        return []
    prefix = name[: fused.start()]
    if parts := _PARTS.get(fused[1]):
        return [f"{prefix}{part}{name[fused.end() :]}" for part in parts]
    return [f"{prefix}{part}_proj" for part in "qkv"]


def _check_plain(adapter: Adapter, name: str) -> None:
    """Raise an error if a module has parts that cannot be joined or split."""
    module, at = adapter[name], f"{adapter}: {name!r}"
    bare = name.removesuffix(".weight")
    if {f"{bare}.weight", f"{bare}.bias"} & {*adapter.full, *adapter.rows}:
        raise FileError(f"{at} is also replaced, {_MERGE}")
    for what in sorted(module.extras - {"parameter", "alora"}):
        lora = "lora-np convert --to lora --tolerance 0.01 --base MODEL makes a LoRA of it"
        after = lora if what in ("magnitude", "tuned") else _MERGE
        raise FileError(f"{at} has {EXTRAS[what]}, which cannot be joined or split: {after}")


_MERGE = "lora-np merge it into the base that it was trained on"


def _whole(at: str, target: ModuleSpec, parts: _Pieces, stack: Layers | None) -> AdapterModule:
    """Join the parts of a projection, or of all experts, with zeros for parts without an update."""
    experts, rows, inputs = target.sides
    names = target.parts if target.kind == "experts" else _parts(target.name)
    given = [[parts.get((e, i)) for i in range(len(names))] for e in range(experts)]
    outputs = _outputs(at, rows, given[0], stack)
    for maps in given:
        for part, count in zip(maps, outputs, strict=True):
            if part and part.shape != (count, inputs):
                shape = " x ".join(map(str, part.shape))
                raise FileError(
                    f"{at}: a part is {shape}, not {count} x {inputs}: not the same base"
                )
    if target.kind == "linear":
        whole = scaling.joined(given[0], outputs)
        whole = whole if all(given[0]) else without_zeros(whole)
        return _taken(whole, _rows(target.name, outputs, stack))
    stack_of = [scaling.joined(maps, outputs) if any(maps) else None for maps in given]
    return replace(scaling.stacked(stack_of), parameter=True)


def _outputs(
    at: str, rows: int, parts: Sequence[AdapterModule | None], stack: Layers | None
) -> list[int]:
    """Count the rows of each part; the base gives the counts for parts that are not adapted."""
    counts = [part.shape[0] if part else 0 for part in parts]
    if stack is None or len(parts) < 3:
        counts = [rows // len(parts)] * len(parts)
    elif counts.count(0) == 1:
        counts[counts.index(0)] = rows - sum(counts)
    elif 0 in counts:
        keys, values = stack.kv_heads * stack.head_width, stack.kv_heads * stack.value_width
        counts = [stack.heads * stack.head_width, keys, values]
    if sum(counts) != rows or min(counts) < 1:
        why = "adapt all of its parts, and use the right base"
        raise FileError(f"{at} has {rows} rows, but its parts have {counts}: {why}")
    return counts


def _rows(name: str, outputs: Sequence[int], stack: Layers | None) -> Array:
    """Return, for each row of a fused projection, its index in the concatenated parts."""
    heads = stack.kv_heads if stack and name.endswith(_BY_HEADS) else 1
    parts = np.split(np.arange(sum(outputs)), np.cumsum(outputs)[:-1])
    return np.concatenate([part.reshape(heads, -1) for part in parts], axis=1).ravel()


def _taken(module: AdapterModule, rows: Array) -> AdapterModule:
    """Return the update with only the given rows of B, in the given order."""
    A, B = module.parts["A"], module.parts["B"]
    return module.with_factors(A=A, B=B.seen(partial(np.take, indices=rows, axis=-2)))


def _stack(base: OpenModel, name: str) -> Layers | None:
    """Return the stack of layers that contains a module; None if no known stack does."""
    stacks = base.known.layers if base.known else ()
    return next((stack for stack in stacks if name.startswith(stack.prefix)), None)


def _experts(
    known: ModuleSpec, module: AdapterModule, base: OpenModel
) -> Iterator[tuple[str, AdapterModule]]:
    """Yield each expert's parts with their names, if checkpoints store experts one by one."""
    path = (known.alias or known.name).rpartition(".")[0]
    for e in range(known.shape[0]):
        parts = scaling.parted(module.expert(e), len(known.parts))
        for name, part in zip(known.parts, parts, strict=True):
            place = base.dialects.place(f"{path}.{e}.{name}.weight")
            if place and place.parameter == known.name:
                yield f"{path}.{e}.{name}", replace(without_zeros(part), parameter=False)
