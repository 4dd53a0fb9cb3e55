"""What training needs in memory, by cause: weights, gradients, optimizer state, activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lora_np.accounting.activations import ITEMSIZE, TrainingOptions, activation_bytes
from lora_np.accounting.lora import LoraCount, count_model
from lora_np.hub import ModelSpec
from lora_np.table import Shown, Table, binary_bytes, decimal_bytes, parse_bytes

_WAYS = "Full and LoRA over bfloat16 weights, QLoRA over nf4. kB, MB and GB are decimal."
_UNKNOWN = "Activations are not in the total: the layers are not known without a config."
_CAUSES = ("weights", "adapter", "gradients", "optimizer", "activations")


@dataclass(frozen=True, repr=False)
class Memory(Shown):
    """Bytes by cause: what :func:`training_memory` gives.

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
        Moments, and the master copy if there is one.
    activations : int or None
        What forward keeps for backward: an estimate, and None where the layers are not known (a checkpoint
        does not tell them; a config does). The total is then without them.
    """

    title: str
    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int | None

    @property
    def parts(self) -> dict[str, int | None]:
        """Bytes by cause, in a fixed order."""
        return {cause: getattr(self, cause) for cause in _CAUSES}

    @property
    def total(self) -> int:
        """All of it."""
        return sum(size or 0 for size in self.parts.values())

    @property
    def table(self) -> Table:
        """One row for each cause, in bytes and in both kinds of units."""
        rows = [(cause, size, size, size) for cause, size in {**self.parts, "total": self.total}.items()]
        return Table(
            ("cause", "bytes", "decimal", "binary"),
            rows,
            title=self.title,
            notes=() if self.activations is not None else (_UNKNOWN,),
            formats={"decimal": decimal_bytes, "binary": binary_bytes},
        )


def training_memory(model: ModelSpec | LoraCount, **options: Any) -> Memory:
    """What training a model needs in memory, by cause.

    Parameters
    ----------
    model : ModelSpec or LoraCount
        A model is fine-tuned in full; a count of LoRA trains what it counts. LoRA over ``weights="nf4"`` is
        QLoRA.
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
      key-value heads and values of width v; h s more (3 h s with dropout) where attention weights are kept;
    - norms: their input, d; in full fine-tuning of RMS norms also the normalised input, d;
    - MLP: a gated one keeps gate, activation and up, 3 i; a plain one the input of its activation, i;
    - the input of each linear map that is trained or adapted, once for maps that share it (once for each
      adapted map if it must be cast to the adapter's float32);
    - the adapter's r numbers after A; dropout masks, as one number each;

    and for each token the log-probabilities of the vocabulary, in float32. LoRA saves only the inputs of maps
    that it does not adapt, which is why its activations are nearly those of full fine-tuning whatever the
    rank, and more than those where inputs are cast.

    Nothing is kept below the lowest adapter. The estimate is held against PyTorch's own count for Llama and
    BERT, where it is within a tenth (a fifth under dropout in 16 bits). It leaves out the framework's
    buffers, fragmentation, and what a kernel needs only while it runs; experts are estimated as if every
    token's experts were computed together; and soft caps (Gemma 2) keep attention weights in any case,
    which is not counted.

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
    llama-2-7b: LoRA of rank 16 over nf4, adam, batch 1 x 1,024
    cause                 bytes    decimal      binary
    -----------  --------------  ---------  ----------
    weights       3,865,591,808    3.87 GB    3.60 GiB
    adapter         159,907,840  159.91 MB  152.50 MiB
    gradients       159,907,840  159.91 MB  152.50 MiB
    optimizer       319,815,680  319.82 MB  305.00 MiB
    activations   9,138,339,840    9.14 GB    8.51 GiB
    total        13,643,563,008   13.64 GB   12.71 GiB
    """
    training = TrainingOptions(**options)
    weights = training.weights
    if isinstance(model, LoraCount):
        spec, held, trained, added = model.spec, training.adapter, model.trainable, model.total - model.base
        what = f"LoRA of rank {model.rank} over {weights}"
    else:
        spec, held, trained, added = model, weights, model.total, 0
        what = f"full, {weights}"
        if held not in ITEMSIZE:
            raise ValueError(
                f"weights must be one of {', '.join(ITEMSIZE)} to be trained in full, got {held!r}"
            )
    item = ITEMSIZE[held]
    master = 4 * trained if training.master_copy and item < 4 else 0
    return Memory(
        f"{spec.name}: {what}, {training.optimizer}, batch {training.batch:,} x {training.sequence:,}",
        _weights_bytes(spec, training),
        added * training.adapter_item,
        trained * item,
        master + _state_bytes(trained, training.optimizer),
        activation_bytes(model, training),
    )


def _weights_bytes(spec: ModelSpec, training: TrainingOptions) -> int:
    """Of the base. int8 adds a float32 scale for each row, nf4 constants for each block of 64."""
    if training.weights in ITEMSIZE:
        return spec.total * training.item
    size = 0
    for module in spec.groups:
        if module.kind in ("linear", "experts") and module.name != spec.head and not module.tied:
            numbers = module.weight
            if training.weights == "int8":
                quantised = numbers + 4 * (numbers // module.shape[-1])
            else:
                blocks = -(-numbers // 64)
                constants = blocks + 4 * -(-blocks // 256) if training.double_quantization else 4 * blocks
                quantised = -(-numbers // 2) + constants
            size += (quantised + 2 * module.bias_size) * module.copies
        else:
            size += 2 * module.parameters
    return size


def _state_bytes(trained: int, optimizer: str) -> int:
    """Of the optimizer, for ``trained`` numbers."""
    if optimizer == "adam8bit":  # two moments of a byte, and a float32 constant for each block of 256
        return 2 * (trained + 4 * -(-trained // 256))
    return trained * {"sgd": 0, "momentum": 4, "adam": 8}[optimizer]


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
        The rank of every adapted module.

    See Also
    --------
    largest_batch : For a given rank.
    largest_sequence : For a given rank.

    Examples
    --------
    >>> from lora_np.accounting import preset
    >>> largest_rank(preset("llama-3-8b"), budget="24 GB", lora={"targets": "all-linear"})
    66
    """
    limit = max(size for module in spec.groups for size in module.shape)
    return _largest(
        lambda rank: training_memory(count_model(spec, rank=rank, **(lora or {})), **settings), budget, limit
    )


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
    7
    """
    return _largest(lambda batch: training_memory(model, batch=batch, **settings), budget)


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
    7359
    """
    return _largest(lambda sequence: training_memory(model, sequence=sequence, **settings), budget)


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
    """

    title: str
    ways: Mapping[str, Memory]
    disk: Mapping[str, int]

    @property
    def table(self) -> Table:
        """One row for each cause, in bytes."""
        rows = [
            (cause, *(getattr(each, cause) for each in self.ways.values())) for cause in (*_CAUSES, "total")
        ]
        return Table(
            ("cause", *self.ways),
            [*rows, ("checkpoint on disk", *self.disk.values())],
            title=self.title,
            notes=(_WAYS,) if self.ways["full"].activations is not None else (_WAYS, _UNKNOWN),
            formats=dict.fromkeys(self.ways, decimal_bytes),
        )


def compare_memory(count: LoraCount, **options: Any) -> MemoryComparison:
    """What training needs in full, with a LoRA, and with the same LoRA over a base in 4 bits.

    Parameters
    ----------
    count : LoraCount
        The LoRA; full fine-tuning is of its model.
    **options
        The fields of `TrainingOptions`, but for ``weights``.

    Returns
    -------
    MemoryComparison
        Bytes by cause for each of the three, which print as a table.

    See Also
    --------
    training_memory : One of the three.
    """
    return MemoryComparison(
        f"{count.spec.name}, rank {count.rank}: memory to train",
        {
            "full": training_memory(count.spec, **options),
            "LoRA": training_memory(count, **options),
            "QLoRA": training_memory(count, weights="nf4", **options),
        },
        {"full": 2 * count.base, "LoRA": 4 * count.trainable, "QLoRA": 4 * count.trainable},
    )


def _largest(memory: Callable[[int], Memory], budget: int | str, limit: int = 2**31) -> int:
    """The largest whole number up to ``limit`` whose memory fits."""
    room = parse_bytes("budget", budget)
    low, high = 0, 1
    while high < limit and memory(high).total <= room:
        low, high = high, min(2 * high, limit)
    if memory(high).total <= room:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if memory(middle).total <= room else (low, middle)
    return low
