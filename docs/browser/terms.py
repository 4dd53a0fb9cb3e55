"""What the page Fit needs of a model to tell the memory of any setting: numbers alone.

The package's terms of memory are computed at a few settings; between them all is linear in the
rank and in the bytes of a number, which is checked here. `docs/explorer/memory.js` puts the
numbers together again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from lora_np import models
from lora_np.accounting import MemoryTerms, TrainingOptions, count_model
from lora_np.accounting.memory import terms_of
from lora_np.models import ATTENTION, ModelSpec

# by bytes of an activation; int8 keeps more
KINDS = {"4": "float32", "2": "bfloat16", "8": "int8"}
FEW = ("nf4", "int8")
HIDDEN = {"4": "float32", "2": "bfloat16"}
FAR = 2**24  # a rank at which only what grows fastest counts
trained = cache(TrainingOptions)  # the same few for every model


def of(spec: ModelSpec, choices: Iterable[Sequence[str]] = ()) -> dict[str, Any]:
    """The terms of a model: in full, and with LoRA on its own targets and on ``choices``."""
    attention = attention_of(spec)
    wanted: dict[str, Any] = {"default": None, "all-linear": "all-linear", "attention": attention}
    wanted |= {",".join(names): names for names in choices}
    lora: dict[str, dict[str, Any] | str] = {}
    for name, targets in wanted.items():
        for dora in (False, True):
            try:
                if targets is None and not spec.default_targets:
                    raise ValueError("PEFT has no default targets for this family")
                lora[name + "+dora" * dora] = way(spec, targets=targets, dora=dora)
            except (ValueError, TypeError) as error:
                lora[name + "+dora" * dora] = str(error)
    some = next(name for name, found in lora.items() if not isinstance(found, str))
    return {
        "name": spec.name,
        "positions": spec.positions,
        "targets": list(spec.default_targets),
        "attention": attention,
        "names": names_of(spec),
        **base(spec, wanted[some]),
        "full": way(spec),
        "lora": lora,
    }


def names_of(spec: ModelSpec) -> list[str]:
    """The names that can be adapted."""
    linear = [m for m in spec.groups if m.kind in ("linear", "embedding", "convolution")]
    ends = {module.name.rpartition(".")[2] for module in spec.groups}
    fused = [name for name, own in (spec.fused or {}).items() if own.partition(".")[0] in ends]
    names = [*(m.name.rpartition(".")[2] for m in linear), *fused]
    return [name for name in dict.fromkeys(names) if name not in ("*", "{}")]


def attention_of(spec: ModelSpec) -> list[str]:
    """The linear layers of attention, by the last two parts of their paths."""
    linear = [module for module in spec.groups if module.kind == "linear"]
    names = [module.name for module in linear if module.role in ATTENTION]
    return sorted({".".join(name.split(".")[-2:]) for name in names})


def base(spec: ModelSpec, targets: Any) -> dict[str, Any]:
    """Weights by dtype, the largest quantised matrix, and what the loss takes."""
    counted = count_model(spec, rank=1, targets=targets)

    def asked(**options: Any) -> MemoryTerms:
        return terms_of(counted, trained(**options))

    few = {}
    for dtype in FEW:
        four, two = (asked(dtype=dtype, unquantised_dtype=d).weights for d in HIDDEN.values())
        few[dtype] = [(four - two) // 2, two - (four - two)]
    loss = {
        kind: {
            item: [moment.logits.token, moment.work.token]
            for item, dtype in HIDDEN.items()
            for moment in asked(dtype=dtype, cross_entropy=kind).moments[:1]
        }
        for kind in ("plain", "fused")
    }
    matrix = asked(dtype="nf4").moments[-1].work.fixed
    return {"total": spec.total, "few": few, "matrix": matrix, "loss": loss}


def way(spec: ModelSpec, **lora: Any) -> dict[str, Any]:
    """Full fine-tuning, or a LoRA at any rank."""
    full = not lora
    ranks: tuple[int | None, int | None] = (None, None) if full else (1, 2)

    @cache
    def counted(rank: int | None) -> Any:
        return spec if rank is None else count_model(spec, rank=rank, **lora)

    @cache
    def terms(rank: int | None, training: TrainingOptions) -> MemoryTerms:
        return terms_of(counted(rank), training)

    def asked(rank: int | None, **options: Any) -> MemoryTerms:
        return terms(rank, trained(max_length=1, **options))

    one, two = (asked(rank) for rank in ranks)
    tensors: dict[tuple[int, ...], int] = {}
    for (n, factored, copies), (more, higher, _) in zip(one.tensors, two.tensors, strict=True):
        key = more - n, 2 * n - more, higher - factored, 2 * factored - higher
        if n or factored:
            tensors[key] = tensors.get(key, 0) + copies
    # copies; per rank and fixed; the same of rows plus columns
    found: dict[str, Any] = {"t": [[copies, *key] for key, copies in tensors.items()], "k": {}}
    for kind, dtype in KINDS.items():
        if full and kind == "8":
            continue
        found["k"][kind], found["c"], found["f"] = kept(asked, ranks, dtype)
    if full:
        return found
    adapters, more = (counted(rank).adapters for rank in ranks)
    sums: dict[str, list[int]] = {}
    for first, second in zip(adapters, more, strict=True):
        name = first.module.name.rpartition(".")[2]
        slope = second.trainable - first.trainable
        before = sums.get(name, [0, 0])
        sums[name] = [before[0] + slope, before[1] + first.trainable - slope]
    limits = [adapter.limit for adapter in adapters]
    found |= {"by": sums, "limits": [min(limits), max(limits)]}
    found["wide"] = any(adapter.module.role not in ATTENTION for adapter in adapters)
    if lora["dora"]:

        def norms(dtype: str) -> Callable[[int], int]:
            return lambda rank: asked(rank, dtype=dtype).moments[-1].work.fixed

        found["d"] = {item: lines(norms(dtype), 1, FAR) for item, dtype in HIDDEN.items()}
    return found


def kept(
    asked: Callable[..., MemoryTerms], ranks: tuple[int | None, int | None], dtype: str
) -> tuple[dict[str, Any], list[int], list[int]]:
    """What a forward pass keeps: outside of layers, and by stack its layers, growth, what eager
    attention adds, and growth per rank; and, for each byte of a hidden number, what checkpointing
    keeps, and what is left of that where it is offloaded.
    """

    def stacks(rank: int | None, attention: str) -> list[tuple[int, Sequence[int]]]:
        moments = asked(rank, dtype=dtype, attention=attention).moments
        return [(moment.layers, moment.again) for moment in moments[1:] if any(moment.again)]

    flat: Sequence[int] = asked(ranks[0], dtype=dtype, checkpointing=False).moments[0].kept
    fused, eager, higher = (
        stacks(ranks[0], "fused"),
        stacks(ranks[0], "eager"),
        stacks(ranks[1], "fused"),
    )
    outside = flat
    for _, growth in fused:
        outside = minus(outside, growth)
    rows = []
    for (layers, growth), (_, more), (_, next_) in zip(fused, eager, higher, strict=True):
        slope = minus(next_, growth)
        rows.append([layers, *map(short, (minus(growth, slope), minus(more, growth), slope))])
    item = 2 if dtype == "bfloat16" else 4  # int8's other weights are float32 unless it is said
    inputs = []
    for offloading in (False, True):
        held = asked(ranks[0], dtype=dtype, offloading=offloading).moments[0].kept
        inputs.append(minus(held, outside))
        if any(n % item for n in inputs[-1]):
            raise AssertionError("what checkpointing keeps must be whole hidden numbers")
    whole, offloaded = (short([n // item for n in held]) for held in inputs)
    return {"o": short(outside), "s": rows}, whole, offloaded


def lines(f: Callable[[int], int], low: int, high: int) -> list[list[int]]:
    """The lines of which ``f``, convex and made of straight pieces, is the largest."""

    def line(x: int) -> tuple[int, int]:
        slope = f(x + 1) - f(x)
        return slope, f(x) - slope * x

    first, last = line(low), line(high)
    if first == last:
        return [list(first)]
    cross = (first[1] - last[1]) // (last[0] - first[0])  # the last rank at which the first counts
    if high - low <= 2 or f(cross) == first[0] * cross + first[1]:
        return [list(first), list(last)]
    found = [*lines(f, low, cross), *lines(f, cross, high)]
    return [list(pair) for pair in dict.fromkeys(map(tuple, found))]


def minus(one: Iterable[int], other: Iterable[int]) -> list[int]:
    return [x - y for x, y in zip(one, other, strict=True)]


def short(numbers: Iterable[Any]) -> list[Any]:
    """Without zeros at the end."""
    numbers = list(numbers)
    while numbers and not numbers[-1]:
        numbers.pop()
    return numbers


def needed(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields without which the modules would be others: what a link carries."""
    want = models.from_config(config)
    fields = {**config}
    if isinstance(fields.get("id2label"), dict):
        fields["num_labels"] = len(fields.pop("id2label"))

    def same() -> bool:
        try:
            return models.from_config(fields) == want
        except (ValueError, TypeError):
            return False

    def shrink(part: dict[str, Any]) -> None:
        for name, value in [*part.items()]:
            del part[name]
            if same():
                continue
            part[name] = {**value} if isinstance(value, dict) else value
            if isinstance(value, dict):
                shrink(part[name])

    if not same():
        return config
    shrink(fields)
    return fields
