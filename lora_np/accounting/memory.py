"""What training needs in memory, by cause: weights, gradients, optimizer state, activations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from lora_np.accounting.lora import LoraCount, count_model
from lora_np.checks import choice, whole_number
from lora_np.hub import ATTENTION, Layers, ModelSpec, ModuleSpec
from lora_np.table import Cell, Shown, Table, binary_bytes, decimal_bytes, parse_bytes

_ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}
_WEIGHTS = (*_ITEMSIZE, "int8", "nf4")
_NF4_BLOCK = 64
_ADAM8BIT_BLOCK = 256
_OPTIMIZERS = ("sgd", "momentum", "adam", "adam8bit")


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
    activations : int
        What forward keeps for backward: an estimate.
    """

    title: str
    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def parts(self) -> dict[str, int]:
        """Bytes by cause, in a fixed order."""
        causes = ("weights", "adapter", "gradients", "optimizer", "activations")
        return {cause: getattr(self, cause) for cause in causes}

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.parts.values())

    @property
    def table(self) -> Table:
        """One row for each cause, in bytes and in both kinds of units."""
        rows = [(cause, size, size, size) for cause, size in {**self.parts, "total": self.total}.items()]
        return Table(
            ("cause", "bytes", "decimal", "binary"),
            rows,
            title=self.title,
            formats={"decimal": decimal_bytes, "binary": binary_bytes},
        )


def training_memory(
    model: ModelSpec | LoraCount,
    *,
    weights: str = "bfloat16",
    adapter: str = "float32",
    optimizer: str = "adam",
    master_copy: bool = False,
    batch: int = 1,
    sequence: int = 512,
    attention: str = "fused",
    checkpointing: bool = False,
) -> Memory:
    """What training a model needs in memory, by cause.

    Parameters
    ----------
    model : ModelSpec or LoraCount
        A model is fine-tuned in full; a count of LoRA trains what it counts. LoRA over ``weights="nf4"`` is
        QLoRA.
    weights : {"float32", "bfloat16", "float16", "int8", "nf4"}
        How the base is held. Under int8 and nf4 the linear maps (and experts) are quantised and everything
        else, the output head too, is bfloat16.
    adapter : {"float32", "bfloat16", "float16"}
        How LoRA's factors are held; PEFT holds them in float32 for every base.
    optimizer : {"sgd", "momentum", "adam", "adam8bit"}
        State for each trained number: none, 4 bytes, 8 bytes, or 2 bytes and a constant for each block.
    master_copy : bool
        Whether the optimizer keeps a float32 copy of trained weights that are held in 16 bits.
    batch, sequence : int
        Sequences in a step, and tokens in each (in an encoder and its decoder alike).
    attention : {"fused", "eager"}
        Whether the s x s attention weights are kept. Attention dropout keeps them in any case.
    checkpointing : bool
        Whether only the input of each layer is kept and the rest computed again (gradient checkpointing).

    Returns
    -------
    Memory
        Bytes by cause, which print as a table.

    Raises
    ------
    ValueError
        If an option is unknown, quantised weights are to be trained in full, or the model's layers are not
        known (a checkpoint does not tell them; a config does).
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
    choice("weights", weights, _WEIGHTS)
    choice("adapter", adapter, _ITEMSIZE)
    choice("optimizer", optimizer, _OPTIMIZERS)
    choice("attention", attention, ("fused", "eager"))
    batch = whole_number("batch", batch)
    sequence = whole_number("sequence", sequence)
    if isinstance(model, LoraCount):
        spec, held, trained, added = model.spec, adapter, model.trainable, model.total - model.base
        what = f"LoRA of rank {model.rank} over {weights}"
    else:
        spec, held, trained, added = model, weights, model.total, 0
        what = f"full, {weights}"
        if weights not in _ITEMSIZE:
            raise ValueError(
                f"weights must be one of {', '.join(_ITEMSIZE)} to be trained in full, got {weights!r}"
            )
    state = optimizer_bytes(trained, optimizer)
    if master_copy and _ITEMSIZE[held] < 4:
        state += 4 * trained
    kept = activation_bytes(
        model,
        dtype=weights if weights in _ITEMSIZE else "bfloat16",
        adapter=adapter,
        batch=batch,
        sequence=sequence,
        attention=attention,
        checkpointing=checkpointing,
    )
    return Memory(
        f"{spec.name}: {what}, {optimizer}, batch {batch:,} x {sequence:,}",
        weights_bytes(spec, weights),
        added * _ITEMSIZE[adapter],
        trained * _ITEMSIZE[held],
        state,
        kept,
    )


def weights_bytes(spec: ModelSpec, weights: str, *, double_quantization: bool = True) -> int:
    """Bytes of a model's weights.

    ``"int8"`` adds a float32 scale for each row. ``"nf4"`` is half a byte for each number and a constant for
    each block of 64: a float32 one, or with double quantization one byte, and a float32 one for each 256.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    weights : {"float32", "bfloat16", "float16", "int8", "nf4"}
        How they are held.
    double_quantization : bool
        Whether the constants of nf4 are quantised as well.

    Returns
    -------
    int
        Bytes.

    Examples
    --------
    >>> from lora_np.accounting import preset
    >>> weights_bytes(preset("llama-2-7b"), "bfloat16")
    13476831232
    """
    choice("weights", weights, _WEIGHTS)
    if weights in _ITEMSIZE:
        return spec.total * _ITEMSIZE[weights]
    size = 0
    for module in spec.groups:
        if module.kind in ("linear", "experts") and module.name != spec.head and not module.tied:
            quantised = _quantized(module, weights, double_quantization) * module.copies
            size += quantised + 2 * module.bias_size * module.copies
        else:
            size += 2 * module.parameters
    return size


def optimizer_bytes(trained: int, optimizer: str) -> int:
    """Bytes of an optimizer's state for ``trained`` numbers.

    Parameters
    ----------
    trained : int
        Trained numbers.
    optimizer : {"sgd", "momentum", "adam", "adam8bit"}
        Which optimizer.

    Returns
    -------
    int
        Bytes.

    Examples
    --------
    >>> optimizer_bytes(1_760, "adam"), optimizer_bytes(1_760, "sgd")
    (14080, 0)
    """
    if optimizer == "adam8bit":
        return 2 * (trained + 4 * -(-trained // _ADAM8BIT_BLOCK))
    return trained * {"sgd": 0, "momentum": 4, "adam": 8}[choice("optimizer", optimizer, _OPTIMIZERS)]


def checkpoint_bytes(model: ModelSpec | LoraCount, dtype: str = "float32") -> int:
    """Bytes of the tensors that are saved: the whole model, or the adapter with its saved copies.

    Parameters
    ----------
    model : ModelSpec or LoraCount
        What is saved.
    dtype : {"float32", "bfloat16", "float16"}
        Of the saved numbers.

    Returns
    -------
    int
        Bytes, without the header of the file.

    Examples
    --------
    >>> from lora_np.accounting import preset
    >>> checkpoint_bytes(count_model(preset("gpt3-175b"), rank=4, targets=["c_attn"]), "float16")
    37748736
    """
    itemsize = _ITEMSIZE[choice("dtype", dtype, _ITEMSIZE)]
    return itemsize * (model.trainable if isinstance(model, LoraCount) else model.total)


def activation_bytes(
    model: ModelSpec | LoraCount,
    *,
    dtype: str = "bfloat16",
    adapter: str = "float32",
    batch: int = 1,
    sequence: int = 512,
    attention: str = "fused",
    checkpointing: bool = False,
) -> int:
    """An estimate of what forward keeps for backward; :func:`training_memory` states the formula.

    Parameters
    ----------
    model : ModelSpec or LoraCount
        A model is trained in full; a count of LoRA trains what it counts.
    dtype : {"float32", "bfloat16", "float16"}
        Of the activations.
    adapter : {"float32", "bfloat16", "float16"}
        Of LoRA's factors.
    batch : int
        Sequences in a step.
    sequence : int
        Tokens in a sequence.
    attention : {"fused", "eager"}
        Whether the attention weights are kept.
    checkpointing : bool
        Whether only the input of each layer is kept.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    ValueError
        If the layers of the model are not known, or an option is unknown.

    Examples
    --------
    >>> from lora_np.accounting import preset
    >>> spec = preset("llama-3.2-1b")
    >>> full = activation_bytes(spec, batch=4)
    >>> lora = activation_bytes(count_model(spec, rank=8), batch=4)
    >>> 0.7 < lora / full < 1
    True
    """
    spec = model.spec if isinstance(model, LoraCount) else model
    if not spec.layers:
        raise ValueError(f"activations of {spec.name} are not known: its layers must come from a config")
    choice("dtype", dtype, _ITEMSIZE)
    settings = _Settings(
        model, _ITEMSIZE[dtype], _ITEMSIZE[choice("adapter", adapter, _ITEMSIZE)], sequence, attention
    )
    inside = 0
    once = 0
    for stack in spec.layers:
        size = _stack_bytes(stack, settings)
        if checkpointing and stack.depth:
            once = max(once, size // stack.depth)
            size = stack.depth * stack.width * settings.item
        inside += size
    return batch * sequence * (inside + once + _outside_bytes(settings))


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
        Options of :func:`training_memory`.

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
        Options of :func:`training_memory`.

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
        Options of :func:`training_memory`.

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
    full, lora, qlora : Memory
        What each needs.
    checkpoints : tuple of int
        Bytes on disk: of the whole model in bfloat16, and of the adapter in float32.
    """

    title: str
    full: Memory
    lora: Memory
    qlora: Memory
    checkpoints: tuple[int, int]

    @property
    def table(self) -> Table:
        """One row for each cause, in bytes."""
        columns = {"full": self.full, "LoRA": self.lora, "QLoRA": self.qlora}
        rows: list[tuple[Cell, ...]] = [
            (cause, *(each.parts[cause] for each in columns.values())) for cause in self.full.parts
        ]
        rows.append(("total", *(each.total for each in columns.values())))
        model, adapter = self.checkpoints
        rows.append(("checkpoint on disk", model, adapter, adapter))
        return Table(
            ("cause", *columns),
            rows,
            title=self.title,
            notes=("Full and LoRA over bfloat16 weights, QLoRA over nf4. kB, MB and GB are decimal.",),
            formats=dict.fromkeys(columns, decimal_bytes),
        )


def compare_memory(count: LoraCount, **settings: Any) -> MemoryComparison:
    """What training needs in full, with a LoRA, and with the same LoRA over a base in 4 bits.

    Parameters
    ----------
    count : LoraCount
        The LoRA; full fine-tuning is of its model.
    **settings
        Options of `training_memory`, but for ``weights``.

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
        training_memory(count.spec, **settings),
        training_memory(count, **settings),
        training_memory(count, weights="nf4", **settings),
        (checkpoint_bytes(count.spec, "bfloat16"), checkpoint_bytes(count)),
    )


class _Settings(NamedTuple):
    model: ModelSpec | LoraCount
    item: int  # bytes of an activation
    adapter_item: int
    sequence: int
    attention: str

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec if isinstance(self.model, LoraCount) else self.model

    @property
    def full(self) -> bool:
        return isinstance(self.model, ModelSpec)

    def adapted(self, module: ModuleSpec) -> int:
        """On how many of these modules the input must be kept for a weight's gradient."""
        if isinstance(self.model, ModelSpec):
            return module.copies
        return sum(each.copies for each in self.model.adapters if each.module is module)

    @property
    def casts(self) -> bool:
        """Whether each adapted map makes its own copy of its input."""
        return not self.full and self.adapter_item != self.item


def _stack_bytes(stack: Layers, settings: _Settings) -> int:
    """Bytes that a stack of layers keeps for each token."""
    modules = [module for module in settings.spec.groups if module.name.startswith(f"{stack.prefix}.")]
    attention, mlp = _reach(stack, modules, settings)
    size = _attention_bytes(stack, settings) * attention
    norms = sum(_norm_bytes(module, stack, settings) for module in modules if module.kind == "norm")
    size += _share(norms, attention, stack)
    size += _share(_mlp_bytes(modules, stack, settings), mlp, stack)
    size += _input_bytes(modules, stack, settings)
    if isinstance(settings.model, LoraCount):
        ranks = [each.rank * each.copies for each in settings.model.adapters if each.module in modules]
        size += settings.adapter_item * sum(ranks)
    if stack.dropout:
        size += 2 * attention * stack.width * settings.item
    return size


def _reach(stack: Layers, modules: list[ModuleSpec], settings: _Settings) -> tuple[int, int]:
    """In how many layers attention, and the MLP's activation, lie above something that is trained.

    Backward stops at the lowest adapter, and forward keeps nothing for what is below it.
    """
    if isinstance(settings.model, ModelSpec):
        return stack.depth, stack.depth
    here = [each for each in settings.model.adapters if each.module in modules]
    if not here:
        first = stack is settings.spec.layers[0]
        return (0, 0) if first else (stack.depth, stack.depth)
    lowest = min(each.lowest for each in here)
    bottom = [each.module for each in here if each.lowest == lowest]
    attention = any(module.role in ATTENTION for module in bottom)
    mlp = attention or not all(module.role == "down" for module in bottom)
    depth = stack.depth - lowest
    return depth if attention else depth - 1, depth if mlp else depth - 1


def _share(size: int, layers: int, stack: Layers) -> int:
    return size * layers // stack.depth if stack.depth else 0


def _attention_bytes(stack: Layers, settings: _Settings) -> int:
    """Bytes of one layer's attention."""
    keeps_weights = stack.attention_dropout or settings.attention == "eager"
    kv_heads = stack.heads if keeps_weights else stack.kv_heads
    numbers = (stack.heads + kv_heads) * (stack.head_width + stack.value_width)
    size = numbers * settings.item
    if keeps_weights:
        # the softmax is computed in float32; dropout keeps its mask and its result besides
        rounded = settings.item if settings.item < 4 else 0
        dropped = 2 * settings.item if stack.attention_dropout else 0
        size += stack.heads * settings.sequence * (4 + rounded + dropped)
    return size * (2 if stack.cross_attention else 1)


def _norm_bytes(module: ModuleSpec, stack: Layers | None, settings: _Settings) -> int:
    width = module.shape[0]
    if stack is not None and width == stack.head_width != stack.width:
        width *= stack.kv_heads if module.role == "key_norm" else stack.heads
    if module.bias:
        return width * module.copies * settings.item
    # an RMS norm is computed in float32, and the gradient of its weight needs what it normalised
    return width * module.copies * (4 + (settings.item if settings.full else 0))


def _mlp_bytes(modules: Iterable[ModuleSpec], stack: Layers, settings: _Settings) -> int:
    """What activation functions keep; the input of the last map is counted with the inputs of maps."""
    widened = [module for module in modules if module.role in ("gate", "up", "gate_up")]
    gated = any(module.role != "up" for module in widened)
    numbers = 0
    for module in widened:
        d_out = module.shape[-2] * passes(module, settings.spec) * module.copies
        # gate and up are two maps, or one twice as wide: with the activation's result 3 i
        numbers += 3 * d_out // 2 if gated else _KEPT.get(stack.activation, 1) * d_out
    return numbers * settings.item


# numbers that an activation function keeps for each it computes: GPT-2's gelu is written out in steps
_KEPT = {"gelu_new": 4}


def _input_bytes(modules: Iterable[ModuleSpec], stack: Layers, settings: _Settings) -> int:
    """Inputs of maps that are trained or adapted."""
    shared: dict[str, int] = {}
    size = 0
    for module in modules:
        if module.kind not in ("linear", "experts"):
            continue
        numbers = settings.adapted(module) * module.shape[-1] * passes(module, settings.spec)
        if settings.casts:
            size += numbers * settings.adapter_item
        elif not _kept_anyway(module, stack):
            key = _source(module)
            shared[key] = max(shared.get(key, 0), numbers)
    return size + settings.item * sum(shared.values())


def _kept_anyway(module: ModuleSpec, stack: Layers) -> bool:
    """Whether the input of a map is an array that attention or the activation function keeps."""
    return module.role == "output" or (stack.activation == "relu" and module.role == "down")


def _outside_bytes(settings: _Settings) -> int:
    """Bytes for each token outside the stacks: the last norm, and the head's log-probabilities."""
    prefixes = tuple(f"{stack.prefix}." for stack in settings.spec.layers)
    size = 0
    for module in settings.spec.groups:
        if module.name.startswith(prefixes):
            continue
        if module.kind == "norm" and (settings.full or module.role != "embedding_norm"):
            size += _norm_bytes(module, None, settings)
        if module.name == settings.spec.head:
            vocabulary, width = module.shape
            size += 4 * vocabulary + width * settings.adapted(module) * settings.item
    return size


def _source(module: ModuleSpec) -> str:
    """Maps with the same source read the same array."""
    if module.role == "down":
        return module.name
    return f"{module.name.rpartition('.')[0]}:{module.shape[-1]}"


def passes(module: ModuleSpec, spec: ModelSpec) -> int:
    """How often a token passes: routed experts see it several times."""
    return spec.experts_per_token if module.kind == "experts" else 1


def _quantized(module: ModuleSpec, weights: str, double_quantization: bool) -> int:
    """Bytes of one quantised weight with its constants."""
    if weights == "int8":
        rows = module.weight // module.shape[-1]
        return module.weight + 4 * rows
    blocks = -(-module.weight // _NF4_BLOCK)
    constants = blocks + 4 * -(-blocks // 256) if double_quantization else 4 * blocks
    return -(-module.weight // 2) + constants


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
