"""What an adapter says of itself, and the totals of its kinds of modules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lora_np.adapters.adapter import Adapter, Stored, header
from lora_np.adapters.peft_format import METADATA, WEIGHTS, keyed
from lora_np.hub import SafetensorsWriter, TensorInfo
from lora_np.plots import module_kinds


class InspectedKind(NamedTuple):
    """What the modules of one kind have together.

    Parameters
    ----------
    kind : str
        Their name within a layer, ``"saved in full"``, or ``"all"``.
    modules : int
        How many.
    parameters, bytes : int
        In the file.
    rank : str
        The smallest and the largest.
    norm, share : float or None
        Of all their updates together.
    needed : str
        The smallest and the largest.
    """

    kind: str
    modules: int
    parameters: int
    bytes: int
    rank: str = ""
    norm: float | None = None
    share: float | None = None
    needed: str = ""


def contents(adapter: Adapter) -> dict[str, Any]:
    """What the adapter says of itself, as `Inspection.contents` has it."""
    raw, tensors, modules = adapter.raw, adapter.stored, adapter.values()
    parts = {part for module in modules for part in module.parts}
    kind = "DoRA" if "magnitude" in parts else "MiCA" if raw.get("init_lora_weights") == "mica" else "LoRA"
    kind += ", rank-stabilised" * any(module.rslora for module in modules)
    kind += ", block-diagonal" * any(tensor.blocks > 1 for tensor in tensors)
    kind += ", with a bias of B" * ("bias" in parts)
    init = raw.get("init_lora_weights")
    kind += f", initialised by {init}" if isinstance(init, str) and init != "mica" else ""
    if adapter.path:
        size = (adapter.path / WEIGHTS).stat().st_size
    else:
        size = SafetensorsWriter(WEIGHTS, header(keyed(adapter)), metadata=METADATA).size
    return {
        "base": raw.get("base_model_name_or_path") or None,
        "type": kind,
        "task": raw.get("task_type"),
        "rank": _counts(module.rank for module in modules),
        "alpha": _counts(module.alpha for module in modules),
        "scale": _counts(module.scale for module in modules),
        "targets": raw.get("target_modules"),
        "target parameters": raw.get("target_parameters"),
        "left out": raw.get("exclude_modules"),
        "layers": raw.get("layers_to_transform"),
        "saved in full": raw.get("modules_to_save"),
        "trained tokens": raw.get("trainable_token_indices"),
        "modules": len(adapter),
        "parameters": sum(tensor.size for tensor in tensors),
        "dtype": _counts(tensor.dtype for tensor in tensors),
        "bytes": size,
        "PEFT's version": raw.get("peft_version"),
    }


def in_words(what: str, content: Any) -> str | None:
    """One of the contents for people: values with how often each occurs, names in full up to a dozen."""
    if what in ("rank", "alpha", "scale", "dtype"):
        if len(content) == 1:
            return str(*content)
        if len(content) > 4:
            low, *_, high = sorted(content, key=float)
            return f"{low} to {high}"
        return ", ".join(f"{value} ({count} times)" for value, count in content.items())
    if what == "base" and content is None:
        return "not named"
    if isinstance(content, Mapping):
        return "; ".join(f"{name}: {in_words(what, inner)}" for name, inner in content.items())
    if isinstance(content, list):
        names = list(map(str, content))
        if len(", ".join(names)) > 100:
            names = list(dict.fromkeys(module_kinds(names).values()))  # without their layers
        more = f", {len(names) - 12} more" if len(names) > 12 else ""
        return ", ".join(names[:12]) + more + f" ({len(content)} names)" * (len(names) < len(content))
    return f"{content:,}" if isinstance(content, int) else content and str(content)


def _counts(values: Iterable[object]) -> dict[str, int]:
    """How often each value occurs, the most frequent first; text, since these are keys in JSON."""
    texts = (f"{value:g}" if isinstance(value, float) else str(value) for value in values)
    return dict(Counter(texts).most_common())


def totals(adapter: Adapter, rows: Sequence[Any]) -> Iterator[InspectedKind]:
    """Totals of each kind of module, of what is replaced, and of all."""
    groups: dict[str, list[Any]] = {}
    kinds = module_kinds(row.name for row in rows)
    for row in rows:
        groups.setdefault(kinds[row.name], []).append(row)
    for kind, members in groups.items():
        yield _total(kind, members, [part for row in members for part in adapter[row.name].parts.values()])
    trained = [rows.new for rows in adapter.rows.values()]
    for kind, held in (("saved in full", [*adapter.full.values()]), ("rows of embeddings", trained)):
        if held:
            yield _total(kind, [], held)._replace(modules=len(held))
    yield _total("all", rows, adapter.stored)


def _total(kind: str, rows: Sequence[Any], held: Iterable[Stored]) -> InspectedKind:
    sizes = [TensorInfo(tensor.dtype, (tensor.size,)) for tensor in held]
    numbers, nbytes = sum(size.size for size in sizes), sum(size.nbytes for size in sizes)
    if not rows:
        return InspectedKind(kind, 0, numbers, nbytes)
    ranks, needed = [row.rank for row in rows], [row.needed for row in rows if row.needed is not None]
    norm = sum(row.norm**2 for row in rows if row.norm is not None) ** 0.5
    share = sum(row.share for row in rows if row.share is not None)
    return InspectedKind(kind, len(rows), numbers, nbytes, _range(ranks), norm, share, _range(needed))


def _range(numbers: Sequence[int]) -> str:
    ends = sorted({min(numbers), max(numbers)}) if numbers else []
    return " to ".join(map(str, ends))
