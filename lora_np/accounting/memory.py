"""Estimate the memory that training needs: weights, gradients, optimizer state, activations."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from lora_np.accounting.activations import (
    ITEMSIZE,
    Moment,
    TrainingOptions,
    activations,
    quantisable,
)
from lora_np.accounting.lora import (
    OPTIONS,
    LoraCount,
    Option,
    count_adapter,
    counted,
    model_spec,
    reusable,
    spec_of,
)
from lora_np.checks import choice, refuse, whole_number
from lora_np.models import ModelSpec
from lora_np.table import Shown, Table, binary_bytes, parse_bytes

if TYPE_CHECKING:
    from lora_np.accounting.in_memory import Model

_UNKNOWN = (
    "Activations, logits and workspace are not in the total: the layers are unknown without a"
    " config."
)
_LARGEST = 2**31 - 1  # the largest batch size, and the longest sequence if the model has no limit

# Constants of bitsandbytes: the size of the smallest tensor whose optimizer state is kept in 8
# bits, the size of the smallest tensor whose state may be paged, and the number of state entries
# that share a scale.
IN_8_BITS, PAGED, BLOCK = 4096, 100_000, 256
_GROWING = ("activations", "logits", "workspace")
PARTS = ("weights", "adapter", "gradients", "optimizer", *_GROWING)


@dataclass(frozen=True, repr=False)
class Memory(Shown):
    """The memory of a training step at its peak, in bytes, estimated by `training_memory`.

    Parameters
    ----------
    title : str
        The title of the table.
    weights : int
        The weights of the base model.
    adapter : int
        LoRA's factors and the copies that ``modules_to_save`` trains; 0 in full fine-tuning.
    gradients : int
        The gradients, one number per trainable parameter.
    optimizer : int
        The optimizer's state, and the master copy if there is one.
    activations : int or None
        The activations that the forward pass keeps for the backward pass: an estimate, or None if
        the layers are unknown (a config shows them, a checkpoint does not). The total then excludes
        activations, logits and workspace.
    logits : int or None
        The memory that the loss keeps; 0 if the peak comes later, when a layer is recomputed.
    workspace : int or None
        Memory that is needed only briefly: copies of the logits, a dequantised matrix, or the
        matrices whose norms DoRA computes.
    host : int
        The state of a paged optimizer that can be moved to host memory. It is not in the total.
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
        """The bytes of each part, in a fixed order."""
        return {part: getattr(self, part) for part in PARTS}

    @property
    def total(self) -> int:
        """The sum of the known parts, in bytes."""
        return sum(size or 0 for size in self.parts.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks about memory that the total leaves out."""
        paged = f"{binary_bytes(self.host)} of optimizer state can be paged to host memory."
        return (*([_UNKNOWN] if self.activations is None else []), *([paged] if self.host else []))

    @property
    def table(self) -> Table:
        """A table of the parts and their total, in bytes and in units such as GiB."""
        sizes = {**self.parts, "total": self.total}
        lines = [(part, size, size) for part, size in sizes.items()]
        return Table(
            ("part", "bytes", "size"), lines, title=self.title, notes=self.notes,
            formats={"size": binary_bytes},
        )  # fmt: skip


def training_memory(model: Model, **options: Option) -> Memory:
    """Estimate the memory that training a model needs, part by part.

    Parameters
    ----------
    model : LoraCount, str, Path, mapping or model
        A count of a LoRA, or a model as in `model_spec`. The estimate is for LoRA if a ``rank`` or
        a ``config`` is given, and else for full fine-tuning. LoRA over ``dtype="nf4"`` is QLoRA,
        where the quantised weights of a GGUF file or a bitsandbytes checkpoint have the size that
        they have in the file.
    **options
        The fields of `TrainingOptions`, and the options of `count`.

    Returns
    -------
    Memory
        The bytes of each part, which print as a table.

    Raises
    ------
    ValueError
        If an option is unknown, or full fine-tuning of quantised weights is requested.
    TypeError
        If ``batch_size`` or ``max_length`` is not a whole number.

    Notes
    -----
    Activations are counted as PyTorch keeps them. These are the numbers for each layer and token:

    - attention: queries, keys, values and result, ``h (w + v) + g (w + v)`` for h heads of width w,
      g key-value heads and values of width v; if attention weights are kept, h s weights and their
      softmax;
    - norms: the input, d; in full fine-tuning of RMS norms also the normalised input, d;
    - MLP: gate, activation and up, 3 i, with a gate, and the activation's input, i, without one;
      for experts this times the number of experts per token, plus their outputs, d each;
    - linear layers that are trained or adapted: the input, once for layers that share it (or once
      for each adapted layer if it must be cast to the adapter's float32);
    - int8: the input of every linear layer, adapted or not, in 16 bits, because bitsandbytes keeps
      it (but not with nf4);
    - adapters: the r numbers after A; dropout masks, as one number each; the weights of adapted
      experts, to which PEFT adds B A before it multiplies;
    - DoRA: the results of W0 and of B A, 2 d for each adapted layer of d outputs; and briefly a
      k x k identity, A, and three or four d x k matrices, for the norms of W0 + B A.

    Nothing is kept below the lowest adapter. With checkpointing, each layer keeps only its input,
    d, and the backward pass recomputes one layer at a time. The loss keeps the log-probabilities
    of the vocabulary, and briefly needs the logits and their float32 copy, or their gradient. The
    result is for the moment that needs most.

    For most families this is within a few percent of PyTorch's own count; docs/use/plan.md has the
    errors and published measurements. CUDA's context and fragmented memory come on top.

    References
    ----------
    V. Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models", arXiv
    2205.05198. T. Dettmers et al., "QLoRA", arXiv 2305.14314. T. Dettmers et al., "8-bit Optimizers
    via Block-wise Quantization", arXiv 2110.02861.

    Examples
    --------
    >>> training_memory("llama-2-7b", rank=16, targets="all-linear", dtype="nf4", max_length=1024)
    llama-2-7b: LoRA of rank 16 over nf4, adamw, batch 1 x 1,024, checkpointing
    part                 bytes        size
    -----------  -------------  ----------
    weights      4,390,412,288    4.09 GiB
    adapter        159,907,840  152.50 MiB
    gradients      159,907,840  152.50 MiB
    optimizer      319,815,680  305.00 MiB
    activations    553,648,128  528.00 MiB
    logits         131,072,000  125.00 MiB
    workspace      262,144,000  250.00 MiB
    total        5,976,907,776    5.57 GiB
    """
    return memory_terms(model, **options).memory


_TRAINING = tuple(field.name for field in fields(TrainingOptions))


def resolved(
    model: Model, options: Mapping[str, Option]
) -> tuple[ModelSpec | LoraCount, TrainingOptions]:
    """Return the model or LoRA to train, and the training options."""
    training, lora = split(options)
    trained = counted(model, lora)
    return trained, training_options(spec_of(trained), training)


def split(options: Mapping[str, Option]) -> tuple[dict[str, Option], dict[str, Option]]:
    """Separate the fields of `TrainingOptions` from the options of `count`."""
    for name in options:
        choice("an option", name, (*_TRAINING, *OPTIONS, "config"))
    training = {name: value for name, value in options.items() if name in _TRAINING}
    TrainingOptions(**training)  # type: ignore[arg-type]  # raises errors before a model is read
    return training, reusable({name: options[name] for name in options if name not in training})


def training_options(spec: ModelSpec, options: Mapping[str, Option]) -> TrainingOptions:
    """Return the training options, with the default length limited to the model's positions."""
    training = TrainingOptions(**options)  # type: ignore[arg-type]
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


class MemoryTerms(NamedTuple):
    """The quantities that `training_memory` is computed from.

    They do not depend on ``optimizer``, ``master_copy``, ``batch_size`` and ``max_length``, so
    these options can be replaced in ``training``.

    Parameters
    ----------
    title : str
        The model and the method, for titles.
    training : TrainingOptions
        The training options.
    positions : int
        The longest sequence that the model supports; 0 if it has no limit.
    weights, adapter : int
        The bytes of the base, and of the adapter with its saved copies.
    trained, itemsize : int
        The number of trained parameters, and the bytes of each.
    tensors : tuple of (int, int, int)
        The size, the rows plus columns, and the copies of each trained tensor.
    moments : tuple of Moment
        The moments of a step at which memory may peak; empty if the layers are unknown.
    """

    title: str
    training: TrainingOptions
    positions: int
    weights: int
    adapter: int
    trained: int
    itemsize: int
    tensors: tuple[tuple[int, int, int], ...]
    moments: tuple[Moment, ...]

    @property
    def memory(self) -> Memory:
        """The estimate that `training_memory` returns."""
        training = self.training
        size = training.batch_size, training.max_length
        master = 4 * self.trained if training.master_copy and self.itemsize < 4 else 0
        state = _state_bytes(self.tensors, training.optimizer, 4 if master else self.itemsize)
        peaks = [moment.at(*size) for moment in self.moments]
        title = f"{self.title}, {training.optimizer}, batch {size[0]:,} x {size[1]:,}"
        title += ", checkpointing" if training.checkpointing else ""
        fixed = self.weights, self.adapter, self.trained * self.itemsize, master + state[0]
        kept, logits, work = max(peaks, key=sum) if peaks else (None, None, None)
        return Memory(title, *fixed, kept, logits, work, state[1])

    def most(self, name: str, room: int) -> int | None:
        """Find the largest ``"batch_size"`` or ``"max_length"`` that fits in ``room`` bytes.

        The other one is unchanged. The result is None if memory does not depend on this number, for
        example on the length if all tokens come from pictures.
        """
        parts = self.memory.parts
        room -= sum(parts[part] or 0 for part in PARTS if part not in _GROWING)
        limit = self.positions if name == "max_length" and self.positions else _LARGEST
        usual = {"batch_size": self.training.batch_size, "max_length": self.training.max_length}

        def needed(number: int) -> int:
            return max(
                (sum(moment.at(**usual | {name: number})) for moment in self.moments), default=0
            )

        if needed(1) == needed(_LARGEST):
            return None
        return bisect_right(range(1, limit + 1), room, key=needed)


def memory_terms(model: Model, **options: Option) -> MemoryTerms:
    """Return the quantities that the memory estimate is computed from.

    Parameters
    ----------
    model : LoraCount, str, Path, mapping or model
        A count or a model, as in `training_memory`.
    **options
        Options, as in `training_memory`.

    Returns
    -------
    MemoryTerms
        The quantities; ``memory`` is the result of `training_memory`.

    Raises
    ------
    ValueError
        If an option is invalid, as in `training_memory`.

    Examples
    --------
    >>> terms = memory_terms("llama-3-8b", rank=8, dtype="nf4", max_length=2048)
    >>> longer = replace(terms.training, max_length=4096)
    >>> [each.memory.total for each in (terms, terms._replace(training=longer))]
    [12118016000, 16377331712]
    """
    return terms_of(*resolved(model, options))


def terms_of(model: ModelSpec | LoraCount, training: TrainingOptions) -> MemoryTerms:
    """Return the quantities that the estimate for a model or a LoRA is computed from."""
    spec, dtype = spec_of(model), training.dtype
    if isinstance(model, LoraCount):
        own, trained, added = training.adapter_dtype, model.trainable, model.total - model.base
        over = "the file's quantisation" if _stored(spec, dtype) else dtype
        what = f"LoRA of rank {model.rank} over {over}"
    else:
        own, trained, added = dtype, model.total, 0
        what = f"full, {dtype}"
        if dtype not in ITEMSIZE:
            refuse(f"dtype must be one of {', '.join(ITEMSIZE)} to train in full, got {dtype!r}")
    return MemoryTerms(
        f"{spec.name}: {what}", training, spec.positions, _weights_bytes(spec, training),
        added * training.adapter_item, trained, ITEMSIZE[own], tuple(_trained_tensors(model)),
        tuple(activations(model, training)),
    )  # fmt: skip


def _weights_bytes(spec: ModelSpec, training: TrainingOptions) -> int:
    """Compute the bytes of the base, including the scales of int8 or the constants of nf4."""
    if training.dtype in ITEMSIZE:
        return spec.total * training.item
    item = ITEMSIZE[training.unquantised_dtype]
    if _stored(spec, training.dtype):
        quantised_weights, stored = spec.quantised
        return stored + item * (spec.total - quantised_weights)
    size = item * spec.total
    for module in quantisable(spec):
        numbers = module.weight
        if training.dtype == "int8":
            quantised = numbers + 4 * prod(module.shape[:-1])
        else:
            blocks = -(-numbers // 64)
            quantised = -(-numbers // 2) + 4 * blocks
            if training.double_quantization:
                quantised += 4 * -(-blocks // 256) - 3 * blocks
        size += (quantised - item * numbers) * module.copies
    return size


def _stored(spec: ModelSpec, dtype: str) -> bool:
    """Return whether the base is nf4 and its file is quantised, so that its size is known."""
    return dtype == "nf4" and 0 < spec.quantised[0] <= spec.total


def _state_bytes(
    tensors: Iterable[tuple[int, int, int]], optimizer: str, item: int
) -> tuple[int, int]:
    """Compute the bytes of the optimizer's state on the GPU and in host memory."""
    per_parameter = {"sgd": 0, "momentum": item, "adamw": 2 * item, "paged_adamw": 8}
    sizes = [0, 0]
    for numbers, factored, copies in tensors:
        if optimizer.endswith("8bit"):
            size = 8 * numbers if numbers < IN_8_BITS else 2 * (numbers + 4 * -(-numbers // BLOCK))
        elif optimizer == "adafactor":
            size = 4 * factored
        else:
            size = numbers * per_parameter[optimizer]
        sizes[optimizer.startswith("paged") and numbers >= PAGED] += size * copies
    return sizes[0], sizes[1]


def _trained_tensors(model: ModelSpec | LoraCount) -> Iterator[tuple[int, int, int]]:
    """Yield each trained tensor's size, rows plus columns (or length), and number of copies."""
    if isinstance(model, LoraCount):
        for one in model.adapters:
            many, outputs, inputs = one.module.sides
            inputs *= many
            if model.tuner:
                yield one.size, one.size, one.copies
                continue
            left = one.size - one.rank * inputs
            magnitudes = min(model.dora * outputs, left)
            yield one.rank * inputs, one.rank + inputs, one.copies
            yield left - magnitudes, one.rank + (left - magnitudes) // one.rank, one.copies
            yield magnitudes, magnitudes, one.copies
        saved = {
            name: module for module in model.spec.groups if model.saved for name in module.names()
        }
        for name, numbers in model.saved.items():
            width = (saved[name].shape or (1,))[-1]
            yield numbers, numbers // width + width, 1
        yield model.biases, model.biases, 1
        return
    for module in model.groups:
        if not module.tied:
            *rows, width = module.shape or (1,)
            yield module.weight, (prod(rows) if rows else 0) + width, module.copies
        if not module.tied_bias:
            yield module.bias_size, module.bias_size, module.copies


def largest_rank(model: Model, *, budget: int | str, **options: Option) -> int:
    """Find the largest rank whose training fits in ``budget``; 0 if no rank fits.

    Parameters
    ----------
    model : str, Path, mapping or model
        A model, as in `model_spec`.
    budget : int or str
        Bytes, or text such as ``"24 GB"`` or ``"24 GiB"``.
    **options
        Options of `count_model` other than the rank, and the fields of `TrainingOptions`.

    Returns
    -------
    int
        The rank of every adapted module, at most min(d, k) of the largest one.

    See Also
    --------
    largest_batch : Find the largest batch size for a given rank.
    largest_max_length : Find the longest sequence length for a given rank.

    Examples
    --------
    >>> largest_rank("llama-3-8b", budget="24 GB", targets="all-linear")
    170
    """
    if "rank" in options:
        raise ValueError("largest_rank finds the rank: leave it out")
    training, lora = split(options)
    room, spec = parse_bytes("budget", budget), model_spec(model)
    return rank_that_fits(by_rank(spec, lora), room, training_options(spec, training))


def by_rank(spec: ModelSpec, lora: Mapping[str, Option]) -> Callable[[int], LoraCount]:
    """Return a cached function that counts the parameters of a LoRA, given its rank."""
    return cache(lambda rank: count_adapter(spec, {**lora, "rank": rank}))


def rank_that_fits(
    counted_at: Callable[[int], LoraCount], room: int, training: TrainingOptions
) -> int:
    """Find the largest rank whose training fits in ``room`` bytes; 0 if no rank fits."""

    def needed(rank: int) -> int:
        return terms_of(counted_at(rank), training).memory.total

    first_count = counted_at(1)
    limit = max(adapted.limit for adapted in first_count.adapters)
    # above every rank of a rank_pattern, so that both counts have the same groups of modules
    top = 1 + max(adapted.rank for adapted in first_count.adapters)
    one, two = counted_at(top), counted_at(top + 1)
    # Memory grows with the rank, except at ranks where a tensor becomes large enough for its
    # optimizer state to be kept in 8 bits or paged. Search each range between such ranks
    # separately.
    falls = {1, limit + 1}
    sizes = (
        IN_8_BITS * training.optimizer.endswith("8bit"),
        PAGED * training.optimizer.startswith("paged"),
    )
    for size in filter(None, sizes):
        for (numbers, *_), (more, *_) in zip(
            _trained_tensors(one), _trained_tensors(two), strict=True
        ):
            if more > numbers:
                falls.add(max(min(top - (numbers - size) // (more - numbers), limit), 1))
    for first, end in reversed([*pairwise(sorted(falls))]):
        if needed(first) <= room:
            return bisect_right(range(end), room, lo=first, key=needed) - 1
    return 0


def largest_batch(model: Model, *, budget: int | str, **options: Option) -> int:
    """Find the largest batch size whose training fits in ``budget``; 0 if no batch fits.

    Parameters
    ----------
    model : LoraCount, str, Path, mapping or model
        A count or a model, as in `training_memory`.
    budget : int or str
        Bytes, or text such as ``"24 GB"`` or ``"24 GiB"``.
    **options
        Options, as in `training_memory`.

    Returns
    -------
    int
        The batch size.

    Raises
    ------
    ValueError
        If the layers of the model are unknown.

    See Also
    --------
    largest_rank : Find the largest rank for a given batch size.
    largest_max_length : Find the longest sequence length for a given batch size.

    Examples
    --------
    >>> largest_batch("llama-3.2-1b", rank=8, budget="16 GiB", max_length=1024)
    10
    """
    return _largest("batch_size", model, budget, options)


def largest_max_length(model: Model, *, budget: int | str, **options: Option) -> int:
    """Find the longest sequence length that fits in ``budget``; 0 if no length fits.

    It is at most the number of the model's positions.

    Parameters
    ----------
    model : LoraCount, str, Path, mapping or model
        A count or a model, as in `training_memory`.
    budget : int or str
        Bytes, or text such as ``"24 GB"`` or ``"24 GiB"``.
    **options
        Options, as in `training_memory`.

    Returns
    -------
    int
        Tokens per sequence.

    Raises
    ------
    ValueError
        If the model reads only pictures, or its layers are unknown.

    See Also
    --------
    largest_rank : Find the largest rank for a given sequence length.
    largest_batch : Find the largest batch size for a given sequence length.

    Examples
    --------
    >>> largest_max_length("llama-3.2-1b", rank=8, budget="16 GiB")
    10834
    """
    return _largest("max_length", model, budget, options)


def _largest(name: str, model: Model, budget: int | str, options: Mapping[str, Option]) -> int:
    terms = memory_terms(model, **options)
    most = terms.most(name, parse_bytes("budget", budget))
    if most is None:
        raise ValueError(f"{terms.memory.title}: the memory is not known to depend on {name}")
    return most


@dataclass(frozen=True, repr=False)
class MemoryComparison(Shown):
    """The memory of full fine-tuning, LoRA and QLoRA, estimated by `compare_memory`.

    Parameters
    ----------
    methods : mapping of str to Memory
        The memory of each method: ``"full"``, ``"LoRA"`` and ``"QLoRA"``.
    table : Table
        The bytes of each part and of the checkpoint, which is the whole model in bfloat16, or the
        adapter in float32.
    """

    methods: Mapping[str, Memory]
    table: Table


def compare_memory(model: Model, **options: Option) -> MemoryComparison:
    """Compare the memory of full fine-tuning, LoRA and QLoRA.

    Parameters
    ----------
    model : LoraCount, str, Path, mapping or model
        A count of a LoRA, or a model as in `model_spec`, which also needs a ``rank``.
    **options
        The fields of `TrainingOptions`, and the options of `count`. ``dtype`` is the dtype of
        LoRA's base. If that dtype is quantised, full fine-tuning uses bfloat16; if not, QLoRA's
        base is nf4.

    Returns
    -------
    MemoryComparison
        The bytes of each part for the three methods, which print as a table.

    Raises
    ------
    ValueError
        If there is neither a rank nor a config.

    See Also
    --------
    training_memory : Estimate the memory of one method.

    Examples
    --------
    >>> compared = compare_memory("llama-2-7b", rank=8, targets=["q_proj", "v_proj"])
    >>> {name: f"{memory.total / 2**30:.0f} GiB" for name, memory in compared.methods.items()}
    {'full': '50 GiB', 'LoRA': '13 GiB', 'QLoRA': '5 GiB'}
    """
    count, training = resolved(model, options)
    if not isinstance(count, LoraCount):
        raise ValueError(
            f"compare_memory needs a LoRA: give a rank, as in rank=8, got {count.name} alone"
        )
    spec, methods = count.spec, by_method(training)
    needed = {
        name: terms_of(spec if name == "full" else count, options).memory
        for name, options in methods.items()
    }
    lines = [[part, *(getattr(x, part) for x in needed.values())] for part in (*PARTS, "total")]
    lines.append(["checkpoint on disk", 2 * count.base, 4 * count.trainable, 4 * count.trainable])
    title = f"{spec.name}, rank {count.rank}: memory to train, {training.optimizer}"
    notes = dict.fromkeys(note for memory in needed.values() for note in memory.notes)
    formats = dict.fromkeys(needed, binary_bytes)
    table = Table(
        ("part", *needed), lines, title=title, notes=[assumptions(spec, methods), *notes],
        formats=formats,
    )  # fmt: skip
    return MemoryComparison(needed, table)


def by_method(training: TrainingOptions) -> dict[str, TrainingOptions]:
    """Map "full", "LoRA" and "QLoRA" to training options with the dtype of the method's base."""
    plain = training.dtype in ITEMSIZE
    return {
        "full": training if plain else replace(training, dtype="bfloat16"),
        "LoRA": training,
        "QLoRA": replace(training, dtype="nf4") if plain else training,
    }


def assumptions(spec: ModelSpec, trained: Mapping[str, TrainingOptions]) -> str:
    """Write a note on each method's base dtype, checkpointing, attention and cross-entropy."""
    over = []
    for name, training in trained.items():
        base = training.dtype
        if _stored(spec, base):
            size = binary_bytes(spec.quantised[1])
            rest = f"unquantised weights in {training.unquantised_dtype}"
            base = f"the file's quantisation ({size}, {rest})"
        over.append(f"{name.replace('full', 'Full')} over {base}")
    checkpointing = (
        "Gradient checkpointing is on" if training.checkpointing else "No gradient checkpointing"
    )
    kinds = f"{training.attention} attention, {training.cross_entropy} cross-entropy"
    return f"{', '.join(over)}. {checkpointing}; {kinds}."
