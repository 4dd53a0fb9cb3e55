"""What training needs in memory, by cause: weights, gradients, optimizer state, activations."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from lora_np.accounting.activations import ITEMSIZE, TrainingOptions, activation_bytes
from lora_np.accounting.lora import LoraCount, count_model
from lora_np.models import ModelSpec, ModuleSpec
from lora_np.table import Shown, Table, binary_bytes, decimal_bytes, parse_bytes

_UNKNOWN = "Activations, logits and workspace are not in the total: without a config the layers are unknown."
_LARGEST = 2**31 - 1  # of a batch, or of a sequence without positions
CAUSES = ("weights", "adapter", "gradients", "optimizer", "activations", "logits", "workspace")


@dataclass(frozen=True, repr=False)
class Memory(Shown):
    """Bytes by cause at the moment when a step needs most: what :func:`training_memory` gives.

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
        What forward keeps for backward: an estimate, and None where the layers are not known (a checkpoint
        does not tell them; a config does). The total is then without it and the next two.
    logits : int or None
        What the loss keeps; 0 if most is needed later, when a layer is computed again.
    workspace : int or None
        What is there for a moment: copies of the logits, a quantised matrix in 16 bits, or the matrices
        of which DoRA takes norms.
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
        """What is not in the total."""
        paged = f"{decimal_bytes(self.host)} of optimizer state can wait in the memory of the host."
        return (*([_UNKNOWN] if self.activations is None else []), *([paged] if self.host else []))

    @property
    def table(self) -> Table:
        """One row for each cause, in bytes and in both kinds of units."""
        rows = [(cause, size, size, size) for cause, size in {**self.parts, "total": self.total}.items()]
        return Table(
            ("cause", "bytes", "decimal", "binary"),
            rows,
            title=self.title,
            notes=self.notes,
            formats={"decimal": decimal_bytes, "binary": binary_bytes},
        )


def training_memory(model: ModelSpec | LoraCount, **options: Any) -> Memory:
    """What training a model needs in memory, by cause.

    Parameters
    ----------
    model : ModelSpec or LoraCount
        A model is fine-tuned in full; a count of LoRA trains what it counts. LoRA over ``weights="nf4"`` is
        QLoRA; a GGUF file, and a checkpoint by bitsandbytes, then takes its own bytes in place of nf4's.
    **options
        The fields of `TrainingOptions`.

    Returns
    -------
    Memory
        Bytes by cause, which print as a table.

    Raises
    ------
    ValueError
        If an option is unknown, or quantised weights are to be trained in full.
    TypeError
        If ``batch`` or ``sequence`` is not a whole number.

    Notes
    -----
    Activations are counted as PyTorch keeps them, for each layer and token, in numbers:

    - attention: queries, keys, values and result, ``h (w + v) + g (w + v)`` for h heads of width w, g
      key-value heads and values of width v; where attention weights are kept, h s of them and their softmax;
    - norms: their input, d; in full fine-tuning of RMS norms also the normalised input, d;
    - MLP: a gated one keeps gate, activation and up, 3 i; a plain one the input of its activation, i; of
      experts as often as a token sees one, and what they return, d;
    - the input of each linear map that is trained or adapted, once for maps that share it (once for each
      adapted map if it must be cast to the adapter's float32);
    - the adapter's r numbers after A; dropout masks, as one number each; the weights of adapted experts, to
      which PEFT adds B A before it multiplies;
    - with DoRA also the results of W0 and of B A, 2 d for each adapted map of d outputs; and for a moment an
      identity of k x k, A, and three or four matrices of d x k, which it needs for the norms of W0 + B A.

    Nothing is kept below the lowest adapter. With checkpointing each layer keeps its input, d, and the
    largest is computed again. The loss keeps the log-probabilities of the vocabulary, and for a moment needs
    the logits and their float32 copy, or their gradient. Whichever moment needs more is counted.

    For most families that is within a few percent of PyTorch's own count; docs/use/plan.md has the errors,
    and published measurements. CUDA's context and what the allocator cannot use come on top.

    References
    ----------
    V. Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models", arXiv 2205.05198.
    T. Dettmers et al., "QLoRA", arXiv 2305.14314. T. Dettmers et al., "8-bit Optimizers via Block-wise
    Quantization", arXiv 2110.02861.

    Examples
    --------
    >>> from lora_np.accounting import preset
    >>> lora = count_model(preset("llama-2-7b"), rank=16, targets="all-linear")
    >>> training_memory(lora, weights="nf4", sequence=1024)
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
    training = training_options(model.spec if isinstance(model, LoraCount) else model, options)
    weights = training.weights
    if isinstance(model, LoraCount):
        spec, held, trained, added = model.spec, training.adapter, model.trainable, model.total - model.base
        over = "the bits of the file" if _stored(spec, weights) else weights
        what = f"LoRA of rank {model.rank} over {over}"
    else:
        spec, held, trained, added = model, weights, model.total, 0
        what = f"full, {weights}"
        if held not in ITEMSIZE:
            raise ValueError(f"weights must be one of {', '.join(ITEMSIZE)} to train in full, got {held!r}")
    item = ITEMSIZE[held]
    master = 4 * trained if training.master_copy and item < 4 else 0
    on_card, host = _state_bytes(model, training.optimizer, 4 if master else item)
    steps = activation_bytes(model, training)
    activations = logits = workspace = None
    if steps is not None:
        # logits are gone by the time that the first layer is computed again
        matrix = 0 if weights in ITEMSIZE else 2 * _largest_matrix(spec)
        activations, logits, workspace = max(
            (steps.kept, steps.logits, steps.copies),
            (steps.kept + steps.layer, 0, max(matrix, steps.norms)),
            key=sum,
        )
    title = f"{spec.name}: {what}, {training.optimizer}, batch {training.batch:,} x {training.sequence:,}"
    title += ", checkpointing" if training.checkpointing else ""
    base, adapter, state = _weights_bytes(spec, training), added * training.adapter_item, master + on_card
    return Memory(title, base, adapter, trained * item, state, activations, logits, workspace, host)


def training_options(spec: ModelSpec, options: Mapping[str, Any]) -> TrainingOptions:
    """The options for a model: a sequence that was not given is no longer than its positions."""
    training = TrainingOptions(**options)
    if spec.positions and training.sequence > spec.positions:
        if "sequence" in options:
            raise ValueError(
                f"sequence must be at most {spec.positions:,}, the positions of {spec.name}, "
                f"got {training.sequence:,}"
            )
        return replace(training, sequence=spec.positions)
    return training


def _quantised(spec: ModelSpec) -> list[ModuleSpec]:
    maps = [module for module in spec.groups if module.kind in ("linear", "experts")]
    return [module for module in maps if module.name != spec.head and not module.tied]


def _largest_matrix(spec: ModelSpec) -> int:
    return max((prod(module.shape[-2:]) for module in _quantised(spec)), default=0)


def _weights_bytes(spec: ModelSpec, training: TrainingOptions) -> int:
    """Of the base. int8 adds a float32 scale for each row, nf4 constants for each block of 64."""
    if training.weights in ITEMSIZE:
        return spec.total * training.item
    item = ITEMSIZE[training.unquantised]
    if _stored(spec, training.weights):
        numbers, held = spec.quantised
        return held + item * (spec.total - numbers)
    size = item * spec.total
    for module in _quantised(spec):
        numbers = module.weight
        if training.weights == "int8":
            quantised = numbers + 4 * prod(module.shape[:-1])
        else:
            blocks = -(-numbers // 64)
            constants = blocks + 4 * -(-blocks // 256) if training.double_quantization else 4 * blocks
            quantised = -(-numbers // 2) + constants
        size += (quantised - item * numbers) * module.copies
    return size


def what_holds(spec: ModelSpec, weights: str, unquantised: str) -> str:
    """In words, what the base is held in: a type, or the bits of the file where it is in few already."""
    if not _stored(spec, weights):
        return weights
    size = decimal_bytes(spec.quantised[1])
    return f"the bits of the file ({size}, what is not quantised in {unquantised})"


def _stored(spec: ModelSpec, weights: str) -> bool:
    """Whether the weights in few bits are those of a file, whose bytes are known."""
    return weights == "nf4" and 0 < spec.quantised[0] <= spec.total


def _state_bytes(model: ModelSpec | LoraCount, optimizer: str, item: int) -> tuple[int, int]:
    """Of the optimizer, on the card and in the memory of the host. PyTorch's has the type of its weight;
    bitsandbytes keeps tensors of less than 4,096 numbers in 32 bits, and pages none of less than 100,000.
    """
    places = [0, 0]
    for numbers, factored, copies in _trained_tensors(model):
        if optimizer.endswith("8bit"):
            size = 8 * numbers if numbers < 4096 else 2 * (numbers + 4 * -(-numbers // 256))
        elif optimizer == "adafactor":
            size = 4 * factored
        else:
            size = numbers * {"sgd": 0, "momentum": item, "adamw": 2 * item, "paged_adamw": 8}[optimizer]
        places[optimizer.startswith("paged") and numbers >= 100_000] += size * copies
    return places[0], places[1]


def _trained_tensors(model: ModelSpec | LoraCount) -> Iterator[tuple[int, int, int]]:
    """Numbers, rows plus columns (a vector's length), and copies of each tensor that is trained."""
    if isinstance(model, LoraCount):
        for each in model.adapters:
            shape = each.module.shape
            inputs = {"embedding": shape[0], "experts": shape[0] * shape[-1]}.get(
                each.module.kind, prod(shape[1:]) * each.module.groups
            )
            outputs = each.each // each.rank - inputs  # DoRA's magnitudes go with B
            yield each.rank * inputs, each.rank + inputs, each.copies
            yield each.each - each.rank * inputs, each.rank + outputs, each.copies
        saved = {name: module for module in model.spec.groups if model.saved for name in module.names()}
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


def largest_rank(
    spec: ModelSpec, *, budget: int | str, lora: dict[str, Any] | None = None, **settings: Any
) -> int:
    """The largest rank whose training fits in ``budget``; 0 if none does.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    budget : int or str
        Bytes, or text such as ``"24 GB"`` or ``"24 GiB"``.
    lora : dict, optional
        Options of :func:`count_model` other than the rank.
    **settings
        Fields of `TrainingOptions`.

    Returns
    -------
    int
        The rank of every adapted module, at most min(d, k) of the largest.

    See Also
    --------
    largest_batch : For a given rank.
    largest_sequence : For a given rank.

    Examples
    --------
    >>> from lora_np.accounting import preset
    >>> largest_rank(preset("llama-3-8b"), budget="24 GB", lora={"targets": "all-linear"})
    170
    """
    limit = max(each.limit for each in count_model(spec, rank=1, **(lora or {})).adapters)

    def needed(rank: int) -> int:
        return training_memory(count_model(spec, rank=rank, **(lora or {})), **settings).total

    return largest(needed, parse_bytes("budget", budget), limit)


def largest_batch(model: ModelSpec | LoraCount, *, budget: int | str, **settings: Any) -> int:
    """The largest batch whose training fits in ``budget``; 0 if none does.

    Parameters
    ----------
    model : ModelSpec or LoraCount
        A model is trained in full; a count of LoRA trains what it counts.
    budget : int or str
        Bytes, or text such as ``"24 GB"`` or ``"24 GiB"``.
    **settings : object
        Fields of `TrainingOptions`.

    Returns
    -------
    int
        Sequences in a step.

    See Also
    --------
    largest_rank : For a given batch.
    largest_sequence : For a given batch.

    Examples
    --------
    >>> from lora_np.accounting import preset
    >>> largest_batch(count_model(preset("llama-3.2-1b"), rank=8), budget="16 GiB", sequence=1024)
    10
    """
    return fitting(model, "batch", parse_bytes("budget", budget), settings)


def largest_sequence(model: ModelSpec | LoraCount, *, budget: int | str, **settings: Any) -> int:
    """The longest sequence whose training fits in ``budget``; 0 if none does.

    Parameters
    ----------
    model : ModelSpec or LoraCount
        A model is trained in full; a count of LoRA trains what it counts.
    budget : int or str
        Bytes, or text such as ``"24 GB"`` or ``"24 GiB"``.
    **settings : object
        Fields of `TrainingOptions`.

    Returns
    -------
    int
        Tokens in a sequence.

    See Also
    --------
    largest_rank : For a given sequence.
    largest_batch : For a given sequence.

    Examples
    --------
    >>> from lora_np.accounting import preset
    >>> largest_sequence(count_model(preset("llama-3.2-1b"), rank=8), budget="16 GiB")
    10834
    """
    return fitting(model, "sequence", parse_bytes("budget", budget), settings)


def fitting(model: ModelSpec | LoraCount, name: str, room: int, settings: Mapping[str, Any]) -> int:
    """The largest batch or the longest sequence, as ``name`` says, that fits into ``room``."""
    spec = model.spec if isinstance(model, LoraCount) else model
    limit = spec.positions if name == "sequence" and spec.positions else _LARGEST
    return largest(lambda size: training_memory(model, **{**settings, name: size}).total, room, limit)


@dataclass(frozen=True, repr=False)
class MemoryComparison(Shown):
    """Full fine-tuning, LoRA and QLoRA: what `compare_memory` gives.

    Parameters
    ----------
    title : str
        Of the table.
    ways : mapping of str to Memory
        What each way needs: ``"full"``, ``"LoRA"`` and ``"QLoRA"``.
    disk : mapping of str to int
        Bytes that each way saves: the whole model in bfloat16, or the adapter in float32.
    notes : tuple of str
        How each way holds the weights, and what is not in the total.
    """

    title: str
    ways: Mapping[str, Memory]
    disk: Mapping[str, int]
    notes: tuple[str, ...]

    @property
    def table(self) -> Table:
        """One row for each cause, in bytes."""
        rows = [
            (cause, *(getattr(each, cause) for each in self.ways.values())) for cause in (*CAUSES, "total")
        ]
        return Table(
            ("cause", *self.ways),
            [*rows, ("checkpoint on disk", *self.disk.values())],
            title=self.title,
            notes=self.notes,
            formats=dict.fromkeys(self.ways, decimal_bytes),
        )


def compare_memory(count: LoraCount, **options: Any) -> MemoryComparison:
    """What training needs in full, with a LoRA, and with the same LoRA over a base in 4 bits.

    Parameters
    ----------
    count : LoraCount
        The LoRA; full fine-tuning is of its model.
    **options
        The fields of `TrainingOptions`. ``weights`` is how LoRA holds the base; full fine-tuning trains
        bfloat16 where that is quantised.

    Returns
    -------
    MemoryComparison
        Bytes by cause for each of the three, which print as a table.

    See Also
    --------
    training_memory : One of the three.
    """
    training = TrainingOptions(**options)
    full = training.weights if training.weights in ITEMSIZE else "bfloat16"
    ways = {
        "full": training_memory(count.spec, **options | {"weights": full}),
        "LoRA": training_memory(count, **options),
        "QLoRA": training_memory(count, **options | {"weights": "nf4"}),
    }
    over = what_holds(count.spec, "nf4", training.unquantised)
    held = f"Full over {full} weights, LoRA over {training.weights}, QLoRA over {over}; {training.optimizer}"
    checkpointing = "with" if training.checkpointing else "without"
    notes = [f"{held}; {checkpointing} gradient checkpointing. kB, MB and GB are decimal."]
    return MemoryComparison(
        f"{count.spec.name}, rank {count.rank}: memory to train",
        ways,
        {"full": 2 * count.base, "LoRA": 4 * count.trainable, "QLoRA": 4 * count.trainable},
        (*notes, *dict.fromkeys(note for each in ways.values() for note in each.notes)),
    )


def largest(memory: Callable[[int], int], room: int, limit: int) -> int:
    """The largest whole number up to ``limit`` whose memory fits into ``room``; 0 if none does.

    Parameters
    ----------
    memory : function of an int
        Bytes, which must not fall as the number grows.
    room : int
        Bytes.
    limit : int
        At least 1.

    Returns
    -------
    int
        The number.

    Examples
    --------
    >>> largest(lambda batch: 10 + 3 * batch, 100, limit=1000)
    30
    """
    return bisect_right(range(1, limit + 1), room, key=memory)
