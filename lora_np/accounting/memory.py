"""The memory that training needs, by cause: weights, gradients, optimizer state, activations."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

from lora_np.accounting.activations import (
    ITEMSIZE,
    Moment,
    TrainingOptions,
    activations,
    quantisable,
)
from lora_np.accounting.lora import OPTIONS, LoraCount, count_model, counted, model_spec, spec_of
from lora_np.checks import choice, whole_number
from lora_np.models import ModelSpec
from lora_np.table import Shown, Table, binary_bytes, decimal_bytes, parse_bytes

_UNKNOWN = (
    "Activations, logits and workspace are not in the total: without a config the layers are"
    " unknown."
)
_LARGEST = 2**31 - 1  # of a batch size, or of a length where the model has no limit
# bitsandbytes keeps the state of smaller tensors in 32 bits, and pages none of smaller ones
_IN_8_BITS, _PAGED = 4096, 100_000
_GROWING = ("activations", "logits", "workspace")
CAUSES = ("weights", "adapter", "gradients", "optimizer", *_GROWING)


@dataclass(frozen=True, repr=False)
class Memory(Shown):
    """Bytes by cause at the moment when a step needs most: the result of :func:`training_memory`.

    Parameters
    ----------
    title : str
        Of the table.
    weights : int
        The base model.
    adapter : int
        LoRA's factors and the copies that ``modules_to_save`` trains; 0 in full fine-tuning.
    gradients : int
        One for each trained number.
    optimizer : int
        Its state, and the master copy if there is one.
    activations : int or None
        What the forward pass keeps for the backward pass: an estimate, or None if the layers are
        unknown (a config gives them, a checkpoint does not). The total then excludes it and the
        next two.
    logits : int or None
        What the loss keeps; 0 if the peak comes later, when a layer is recomputed.
    workspace : int or None
        What exists only briefly: copies of the logits, a quantised matrix in 16 bits, or the
        matrices of which DoRA takes norms.
    host : int
        State of a paged optimizer that can wait in the memory of the host. It is not in the total.
    """

    title: str
    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int | None
    logits: int | None
    workspace: int | None
    host: int = 0

    @property
    def parts(self) -> dict[str, int | None]:
        """Bytes by cause, in a fixed order."""
        return {cause: getattr(self, cause) for cause in CAUSES}

    @property
    def total(self) -> int:
        """All of it."""
        return sum(size or 0 for size in self.parts.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on what the total leaves out."""
        paged = f"{decimal_bytes(self.host)} of optimizer state can wait in the memory of the host."
        return (*([_UNKNOWN] if self.activations is None else []), *([paged] if self.host else []))

    @property
    def table(self) -> Table:
        """One row for each cause, in bytes and in both kinds of units."""
        rows = [
            (cause, size, size, size) for cause, size in {**self.parts, "total": self.total}.items()
        ]
        formats = {"decimal": decimal_bytes, "binary": binary_bytes}
        columns = ("cause", "bytes", *formats)
        return Table(columns, rows, title=self.title, notes=self.notes, formats=formats)


def training_memory(model: Any, **options: Any) -> Memory:
    """The memory that training a model needs, by cause.

    Parameters
    ----------
    model : object
        A count of a LoRA, or whatever `model_spec` takes: with a ``rank`` or a ``config`` LoRA is
        counted, without them full fine-tuning. LoRA over ``dtype="nf4"`` is QLoRA; a GGUF file or a
        bitsandbytes checkpoint then counts with its own bytes instead of nf4's.
    **options
        The fields of `TrainingOptions`, and the options of `count`.

    Returns
    -------
    Memory
        Bytes by cause, which print as a table.

    Raises
    ------
    ValueError
        If an option is unknown, or quantised weights are to be trained in full.
    TypeError
        If ``batch_size`` or ``max_length`` is not a whole number.

    Notes
    -----
    Activations are counted as PyTorch keeps them, for each layer and token, in numbers:

    - attention: queries, keys, values and result, ``h (w + v) + g (w + v)`` for h heads of width w,
      g key-value heads and values of width v; where attention weights are kept, h s of them and
      their softmax;
    - norms: their input, d; in full fine-tuning of RMS norms also the normalised input, d;
    - MLP: a gated one keeps gate, activation and up, 3 i; a plain one the input of its activation,
      i; of experts as often as a token sees one, and what they return, d;
    - the input of each linear map that is trained or adapted, once for maps that share it (once for
      each adapted map if it must be cast to the adapter's float32);
    - over int8 the input of every map, adapted or not, in 16 bits: bitsandbytes keeps it, as it
      does not over nf4;
    - the adapter's r numbers after A; dropout masks, as one number each; the weights of adapted
      experts, to which PEFT adds B A before it multiplies;
    - with DoRA also the results of W0 and of B A, 2 d for each adapted map of d outputs; and for a
      moment an identity of k x k, A, and three or four matrices of d x k, which it needs for the
      norms of W0 + B A.

    Nothing is kept below the lowest adapter. With checkpointing each layer keeps its input, d, and
    the largest is computed again. The loss keeps the log-probabilities of the vocabulary, and for a
    moment needs the logits and their float32 copy, or their gradient. Whichever moment needs more
    is counted.

    For most families this is within a few percent of PyTorch's own count; docs/use/plan.md has the
    errors and published measurements. CUDA's context and memory that the allocator cannot use are
    extra.

    References
    ----------
    V. Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models", arXiv
    2205.05198. T. Dettmers et al., "QLoRA", arXiv 2305.14314. T. Dettmers et al., "8-bit Optimizers
    via Block-wise Quantization", arXiv 2110.02861.

    Examples
    --------
    >>> training_memory("llama-2-7b", rank=16, targets="all-linear", dtype="nf4", max_length=1024)
    llama-2-7b: LoRA of rank 16 over nf4, adamw, batch 1 x 1,024, checkpointing
    cause                bytes    decimal      binary
    -----------  -------------  ---------  ----------
    weights      4,390,412,288    4.39 GB    4.09 GiB
    adapter        159,907,840  159.91 MB  152.50 MiB
    gradients      159,907,840  159.91 MB  152.50 MiB
    optimizer      319,815,680  319.82 MB  305.00 MiB
    activations    553,648,128  553.65 MB  528.00 MiB
    logits         131,072,000  131.07 MB  125.00 MiB
    workspace      262,144,000  262.14 MB  250.00 MiB
    total        5,976,907,776    5.98 GB    5.57 GiB
    """
    return estimate(*resolved(model, options)).memory


_TRAINING = tuple(field.name for field in fields(TrainingOptions))


def resolved(
    model: Any, options: Mapping[str, Any]
) -> tuple[ModelSpec | LoraCount, TrainingOptions]:
    """What is trained, and how."""
    training, lora = split(options)
    found = counted(model, lora)
    return found, training_options(spec_of(found), training)


def split(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of `TrainingOptions`, and the options of `count`."""
    for name in options:
        choice("an option", name, (*_TRAINING, *OPTIONS, "config"))
    training = {name: value for name, value in options.items() if name in _TRAINING}
    return training, {name: value for name, value in options.items() if name not in _TRAINING}


def training_options(spec: ModelSpec, options: Mapping[str, Any]) -> TrainingOptions:
    """Fill in the options for a model: by default a sequence has at most its positions."""
    training = TrainingOptions(**options)
    if not spec.positions or training.max_length <= spec.positions:
        return training
    if "max_length" in options:
        whole_number(
            "max_length",
            training.max_length,
            maximum=spec.positions,
            top=f"the positions of {spec.name}",
        )
    return replace(training, max_length=spec.positions)


class Estimate(NamedTuple):
    """The memory of one method, and how it grows with batch size and sequence length."""

    memory: Memory
    training: TrainingOptions
    positions: int
    moments: list[Moment]

    def most(self, name: str, room: int) -> int | None:
        """Find the largest ``"batch_size"`` or ``"max_length"``, the other unchanged, that fits.

        None where the memory does not depend on it: the number of tokens of a picture is fixed.
        """
        room -= self.memory.total - sum(getattr(self.memory, cause) or 0 for cause in _GROWING)
        limit = self.positions if name == "max_length" and self.positions else _LARGEST
        usual = {"batch_size": self.training.batch_size, "max_length": self.training.max_length}

        def needed(number: int) -> int:
            return max(
                (sum(moment.at(**usual | {name: number})) for moment in self.moments), default=0
            )

        if needed(1) == needed(_LARGEST):
            return None
        return bisect_right(range(1, limit + 1), room, key=needed)


def estimate(model: ModelSpec | LoraCount, training: TrainingOptions) -> Estimate:
    """Estimate the memory, and keep what the largest batch size and length follow from."""
    spec, dtype = spec_of(model), training.dtype
    if isinstance(model, LoraCount):
        held, trained, added = training.adapter_dtype, model.trainable, model.total - model.base
        over = "the bits of the file" if _stored(spec, dtype) else dtype
        what = f"LoRA of rank {model.rank} over {over}"
    else:
        held, trained, added = dtype, model.total, 0
        what = f"full, {dtype}"
        if held not in ITEMSIZE:
            raise ValueError(
                f"dtype must be one of {', '.join(ITEMSIZE)} to train in full, got {held!r}"
            )
    item = ITEMSIZE[held]
    master = 4 * trained if training.master_copy and item < 4 else 0
    on_gpu, host = _state_bytes(model, training.optimizer, 4 if master else item)
    moments = activations(model, training)
    needed = (moment.at(training.batch_size, training.max_length) for moment in moments)
    parts: tuple[Any, Any, Any] = max(needed, key=sum, default=(None, None, None))
    title = (
        f"{spec.name}: {what}, {training.optimizer}, batch {training.batch_size:,} x"
        f" {training.max_length:,}"
    )
    title += ", checkpointing" if training.checkpointing else ""
    base, adapter, state = (
        _weights_bytes(spec, training),
        added * training.adapter_item,
        master + on_gpu,
    )
    memory = Memory(title, base, adapter, trained * item, state, *parts, host)
    return Estimate(memory, training, spec.positions, moments)


def _weights_bytes(spec: ModelSpec, training: TrainingOptions) -> int:
    """Of the base. int8 adds a float32 scale for each row, nf4 constants for each block of 64."""
    if training.dtype in ITEMSIZE:
        return spec.total * training.item
    item = ITEMSIZE[training.unquantised_dtype]
    if _stored(spec, training.dtype):
        numbers, held = spec.quantised
        return held + item * (spec.total - numbers)
    size = item * spec.total
    for module in quantisable(spec):
        numbers = module.weight
        if training.dtype == "int8":
            quantised = numbers + 4 * prod(module.shape[:-1])
        else:
            blocks = -(-numbers // 64)
            constants = (
                blocks + 4 * -(-blocks // 256) if training.double_quantization else 4 * blocks
            )
            quantised = -(-numbers // 2) + constants
        size += (quantised - item * numbers) * module.copies
    return size


def _stored(spec: ModelSpec, dtype: str) -> bool:
    """Whether the weights in few bits are those of a file, whose bytes are known."""
    return dtype == "nf4" and 0 < spec.quantised[0] <= spec.total


def _state_bytes(model: ModelSpec | LoraCount, optimizer: str, item: int) -> tuple[int, int]:
    """Of the optimizer, on the GPU and in the memory of the host. PyTorch's has the type of its
    weight.
    """
    places = [0, 0]
    for numbers, factored, copies in _trained_tensors(model):
        if optimizer.endswith("8bit"):
            size = 8 * numbers if numbers < _IN_8_BITS else 2 * (numbers + 4 * -(-numbers // 256))
        elif optimizer == "adafactor":
            size = 4 * factored
        else:
            size = (
                numbers
                * {"sgd": 0, "momentum": item, "adamw": 2 * item, "paged_adamw": 8}[optimizer]
            )
        places[optimizer.startswith("paged") and numbers >= _PAGED] += size * copies
    return places[0], places[1]


def _trained_tensors(model: ModelSpec | LoraCount) -> Iterator[tuple[int, int, int]]:
    """Numbers, rows plus columns (a vector's length), and copies of each tensor that is trained."""
    if isinstance(model, LoraCount):
        for each in model.adapters:
            many, _, inputs = each.module.sides
            inputs *= many
            outputs = each.each // each.rank - inputs  # DoRA's magnitudes go with B
            yield each.rank * inputs, each.rank + inputs, each.copies
            yield each.each - each.rank * inputs, each.rank + outputs, each.copies
        saved = {
            name: module for module in model.spec.groups if model.saved for name in module.names()
        }
        for name, numbers in model.saved.items():
            yield numbers, numbers // saved[name].shape[-1] + saved[name].shape[-1], 1
        yield model.biases, model.biases, 1
        return
    for module in model.groups:
        if not module.tied:
            rows = prod(module.shape[:-1])
            vector = len(module.shape) == 1
            yield module.weight, module.weight if vector else rows + module.shape[-1], module.copies
        if not module.tied_bias:
            yield module.bias_size, module.bias_size, module.copies


def largest_rank(model: Any, *, budget: int | str, **options: Any) -> int:
    """The largest rank whose training fits in ``budget``; 0 if none does.

    Parameters
    ----------
    model : object
        Whatever `model_spec` takes.
    budget : int or str
        Bytes, or text such as ``"24 GB"`` or ``"24 GiB"``.
    **options
        Options of `count_model` other than the rank, and the fields of `TrainingOptions`.

    Returns
    -------
    int
        The rank of every adapted module, at most min(d, k) of the largest.

    See Also
    --------
    largest_batch : The largest batch, for a given rank.
    largest_max_length : The longest sequences, for a given rank.

    Examples
    --------
    >>> largest_rank("llama-3-8b", budget="24 GB", targets="all-linear")
    170
    """
    if "rank" in options:
        raise ValueError("largest_rank finds the rank: leave it out")
    training, lora = split(options)
    spec = model_spec(model)
    room = parse_bytes("budget", budget)
    return rank_within(by_rank(spec, lora), room, training_options(spec, training))


def by_rank(spec: ModelSpec, lora: Mapping[str, Any]) -> Callable[[int], LoraCount]:
    """The count of a LoRA at any rank from two counts: each of its numbers is linear in the
    rank.
    """
    low = 2**40  # a usual rank that no module has by its own pattern
    first, second = (count_model(spec, rank=rank, **lora) for rank in (low, low + 1))

    def counted_at(rank: int) -> LoraCount:
        steps = rank - low
        adapters = [
            a._replace(
                rank=a.rank + steps * (b.rank - a.rank), each=a.each + steps * (b.each - a.each)
            )
            for a, b in zip(first.adapters, second.adapters, strict=True)
        ]
        return replace(first, rank=rank, adapters=tuple(adapters))

    return counted_at


def rank_within(
    counted_at: Callable[[int], LoraCount], room: int, training: TrainingOptions
) -> int:
    """`largest_rank` in so many bytes."""

    def needed(rank: int) -> int:
        return estimate(counted_at(rank), training).memory.total

    one, two = counted_at(1), counted_at(2)
    limit = max(each.limit for each in one.adapters)
    # where a tensor grows past the size from which its state is smaller, or not on the GPU, memory
    # falls
    falls = {1, limit + 1}
    sizes = (
        _IN_8_BITS * training.optimizer.endswith("8bit"),
        _PAGED * training.optimizer.startswith("paged"),
    )
    for size in filter(None, sizes):
        for (numbers, *_), (more, *_) in zip(
            _trained_tensors(one), _trained_tensors(two), strict=True
        ):
            if more > numbers:
                falls.add(max(min(1 - (numbers - size) // (more - numbers), limit), 1))
    for first, end in reversed([*pairwise(sorted(falls))]):
        if needed(first) <= room:
            return bisect_right(range(end), room, lo=first, key=needed) - 1
    return 0


def largest_batch(model: Any, *, budget: int | str, **options: Any) -> int:
    """The largest batch whose training fits in ``budget``; 0 if none does.

    Parameters
    ----------
    model : object
        As in `training_memory`.
    budget : int or str
        Bytes, or text such as ``"24 GB"`` or ``"24 GiB"``.
    **options
        As in `training_memory`.

    Returns
    -------
    int
        Sequences that are computed at a time.

    Raises
    ------
    ValueError
        If the layers of the model are not known.

    See Also
    --------
    largest_rank : The largest rank, for a given batch size.
    largest_max_length : The longest sequences, for a given batch size.

    Examples
    --------
    >>> largest_batch("llama-3.2-1b", rank=8, budget="16 GiB", max_length=1024)
    10
    """
    return _largest("batch_size", model, budget, options)


def largest_max_length(model: Any, *, budget: int | str, **options: Any) -> int:
    """Find the longest sequence length that fits in ``budget``; 0 if none does.

    It is at most the number of the model's positions.

    Parameters
    ----------
    model : object
        As in `training_memory`.
    budget : int or str
        Bytes, or text such as ``"24 GB"`` or ``"24 GiB"``.
    **options
        As in `training_memory`.

    Returns
    -------
    int
        Tokens in a sequence.

    Raises
    ------
    ValueError
        If the model sees pictures alone, or its layers are not known.

    See Also
    --------
    largest_rank : The largest rank, for a given sequence length.
    largest_batch : The largest batch, for a given sequence length.

    Examples
    --------
    >>> largest_max_length("llama-3.2-1b", rank=8, budget="16 GiB")
    10834
    """
    return _largest("max_length", model, budget, options)


def _largest(name: str, model: Any, budget: int | str, options: Mapping[str, Any]) -> int:
    found = estimate(*resolved(model, options))
    most = found.most(name, parse_bytes("budget", budget))
    if most is None:
        raise ValueError(f"{found.memory.title}: the memory is not known to depend on {name}")
    return most


@dataclass(frozen=True, repr=False)
class MemoryComparison(Shown):
    """Full fine-tuning, LoRA and QLoRA: the result of `compare_memory`.

    Parameters
    ----------
    ways : mapping of str to Memory
        What each way needs: ``"full"``, ``"LoRA"`` and ``"QLoRA"``.
    table : Table
        Bytes by cause, and those that each way saves: the whole model in bfloat16, or the adapter
        in float32.
    """

    ways: Mapping[str, Memory]
    table: Table


def compare_memory(model: Any, **options: Any) -> MemoryComparison:
    """The memory of full training, of a LoRA, and of the same LoRA over a base in few bits.

    Parameters
    ----------
    model : object
        A count of a LoRA, or whatever `model_spec` takes, and then a ``rank``.
    **options
        The fields of `TrainingOptions`, and the options of `count`. ``dtype`` is how LoRA holds the
        base; full fine-tuning trains bfloat16 where that is quantised, and QLoRA holds it in nf4
        where it is not.

    Returns
    -------
    MemoryComparison
        Bytes by cause for each of the three, which print as a table.

    Raises
    ------
    ValueError
        If there is neither a rank nor a config.

    See Also
    --------
    training_memory : One of the three.

    Examples
    --------
    >>> found = compare_memory("llama-2-7b", rank=8, targets=["q_proj", "v_proj"])
    >>> {way: f"{memory.total / 1e9:.0f} GB" for way, memory in found.ways.items()}
    {'full': '54 GB', 'LoRA': '14 GB', 'QLoRA': '5 GB'}
    """
    count, training = resolved(model, options)
    if not isinstance(count, LoraCount):
        raise ValueError(
            f"compare_memory needs a LoRA: give a rank, as in rank=8, got {count.name} alone"
        )
    spec, trained = count.spec, ways(training)
    found = {
        way: estimate(spec if way == "full" else count, each).memory
        for way, each in trained.items()
    }
    rows = [[cause, *(getattr(x, cause) for x in found.values())] for cause in (*CAUSES, "total")]
    rows.append(["checkpoint on disk", 2 * count.base, 4 * count.trainable, 4 * count.trainable])
    title = f"{spec.name}, rank {count.rank}: memory to train, {training.optimizer}"
    notes = [
        assumptions(spec, trained),
        *dict.fromkeys(n for each in found.values() for n in each.notes),
    ]
    formats = dict.fromkeys(found, decimal_bytes)
    return MemoryComparison(
        found, Table(("cause", *found), rows, title=title, notes=notes, formats=formats)
    )


def ways(training: TrainingOptions) -> dict[str, TrainingOptions]:
    """Full fine-tuning, LoRA and QLoRA, each with the type in which it holds the base."""
    full, few = (
        (training.dtype, "nf4") if training.dtype in ITEMSIZE else ("bfloat16", training.dtype)
    )
    dtypes = {"full": full, "LoRA": training.dtype, "QLoRA": few}
    return {name: replace(training, dtype=dtype) for name, dtype in dtypes.items()}


def assumptions(spec: ModelSpec, trained: Mapping[str, TrainingOptions]) -> str:
    """In words, over which weights each way trains, and how."""
    over = []
    for name, training in trained.items():
        held = training.dtype
        if _stored(spec, held):
            size = decimal_bytes(spec.quantised[1])
            held = (
                f"the bits of the file ({size}, what is not quantised in"
                f" {training.unquantised_dtype})"
            )
        over.append(f"{name.replace('full', 'Full')} over {held}")
    checkpointing = (
        "Gradient checkpointing is on" if training.checkpointing else "No gradient checkpointing"
    )
    kinds = f"{training.attention} attention, {training.cross_entropy} cross-entropy"
    return f"{', '.join(over)}. {checkpointing}; {kinds}."
