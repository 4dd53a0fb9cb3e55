"""Estimate the memory that the forward pass keeps for the backward pass."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from lora_np.accounting.lora import AdaptedModules, LoraCount, spec_of
from lora_np.checks import refuse
from lora_np.models import ATTENTION, Layers, ModelSpec, ModuleSpec
from lora_np.settings import check_settings, setting

ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}
OPTIMIZERS = (
    "adamw",
    "adamw_8bit",
    "paged_adamw",
    "paged_adamw_8bit",
    "adafactor",
    "momentum",
    "sgd",
)
# The number of arrays that an activation function keeps for the backward pass, if not one. gelu_new
# is computed in several steps and keeps the results of four steps.
_KEPT = {"gelu_new": 4}
_EXPANDING = ("gate", "up", "gate_up")  # the layers that widen to the inner width of the MLP

# If layer inputs are offloaded to host memory, the inputs of five layers stay on the GPU at a time,
# as in TRL and torchtune.
_IN_FLIGHT = 5


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """The training options on which the estimate of `training_memory` depends.

    Parameters
    ----------
    dtype : {"float32", "bfloat16", "float16", "int8", "nf4"}
        The dtype of the base. With int8 and nf4, all linear layers and experts except the head are
        quantised.
    unquantised_dtype : {"float32", "bfloat16", "float16"}
        The dtype of a quantised base's other weights (embeddings, norms, the head) and of the
        hidden states. PEFT's ``prepare_model_for_kbit_training`` makes it float32.
    double_quantization : bool
        Whether the constants of nf4, one float32 number for each block of 64, are also quantised:
        to one byte each, and one float32 number for each 256 of them.
    adapter_dtype : {"float32", "bfloat16", "float16"}
        The dtype of A and B; PEFT uses float32 for every base.
    optimizer : str
        The optimizer, which determines the state per trainable parameter: AdamW keeps two moments
        in the parameter's dtype, or, in 8 bits, two bytes and a constant per block of 256;
        Adafactor keeps one number per row and column. Paged optimizers may move the state of large
        tensors to host memory.
    master_copy : bool
        Whether the optimizer keeps a float32 copy of weights that are trained in 16 bits.
    batch_size : int
        Sequences per forward pass.
    max_length : int
        The sequence length in tokens (in an encoder and its decoder alike).
    attention : {"fused", "eager"}
        Whether the s x s attention weights are kept ("eager"). Attention dropout always keeps them.
    cross_entropy : {"plain", "fused"}
        Whether the logits of all tokens exist at once ("plain"), or in parts that are not kept.
    checkpointing : bool
        Whether only the input of each layer is kept and the rest recomputed (gradient
        checkpointing).
    offloading : bool
        With checkpointing, whether these inputs are moved to host memory, except for five at a
        time.

    Raises
    ------
    ValueError
        If an option is unknown, a number is below 1, or ``offloading`` is on without
        ``checkpointing``.
    TypeError
        If ``batch_size`` or ``max_length`` is not a whole number.

    See Also
    --------
    training_memory : Estimate the memory; the options are its keywords.
    """

    dtype: str = setting("bfloat16", "dtype of the base", choices=(*ITEMSIZE, "int8", "nf4"))
    unquantised_dtype: str = setting(
        "float32", "dtype of the unquantised weights of a quantised base", choices=(*ITEMSIZE,)
    )
    double_quantization: bool = setting(True, "Quantise the constants of nf4 as well")
    adapter_dtype: str = setting("float32", "dtype of A and B", choices=(*ITEMSIZE,))
    optimizer: str = setting("adamw", "Optimizer", choices=OPTIMIZERS)
    master_copy: bool = setting(False, "Keep a float32 copy of weights trained in 16 bits")
    batch_size: int = setting(1, "Batch size")
    max_length: int = setting(512, "Sequence length in tokens")
    attention: str = setting(
        "fused", "Whether attention weights are kept", choices=("fused", "eager")
    )
    cross_entropy: str = setting(
        "plain", "Whether all logits exist at once", choices=("plain", "fused")
    )
    checkpointing: bool = setting(True, "Gradient checkpointing: keep only each layer's input")
    offloading: bool = setting(False, "Offload what checkpointing keeps to host memory")

    def __post_init__(self) -> None:
        check_settings(self)
        if self.offloading and not self.checkpointing:
            refuse("offloading moves what checkpointing keeps: leave checkpointing on")

    @property
    def item(self) -> int:
        """The bytes per entry of an activation."""
        return ITEMSIZE.get(self.dtype, 2)

    @property
    def hidden_item(self) -> int:
        """The bytes per entry of a hidden state, and of the head's weight."""
        return ITEMSIZE[self.dtype if self.dtype in ITEMSIZE else self.unquantised_dtype]

    @property
    def adapter_item(self) -> int:
        """The bytes per parameter of the adapter."""
        return ITEMSIZE[self.adapter_dtype]


class Growth(NamedTuple):
    """The coefficients of a formula for the bytes of b sequences of s tokens.

    The formula is ``fixed + b (sample + s (token + s pair))``.
    """

    fixed: int = 0
    sample: int = 0
    token: int = 0
    pair: int = 0

    def plus(self, other: Growth) -> Growth:
        """Add the coefficients of two formulas."""
        return Growth(*map(sum, zip(self, other, strict=True)))

    def at(self, batch_size: int, max_length: int) -> int:
        """Return the bytes for a batch of ``batch_size`` sequences of ``max_length`` tokens."""
        return self.fixed + batch_size * (
            self.sample + max_length * (self.token + max_length * self.pair)
        )


class Moment(NamedTuple):
    """The memory in use at one moment of a step, besides weights, gradients and optimizer state."""

    kept: Growth  # kept in the forward pass for the backward pass
    # what a stack would keep without checkpointing; its layers are recomputed one at a time
    again: Growth
    layers: int  # the number of layers that `again` counts
    logits: Growth  # kept by the loss until its gradient is computed
    work: Growth  # temporary: for the loss, a dequantised matrix, or DoRA's norms

    def at(self, batch_size: int, max_length: int) -> tuple[int, int, int]:
        """Return the bytes of activations, logits and workspace."""
        size = batch_size, max_length
        kept = self.kept.at(*size) + self.again.at(*size) // self.layers
        return kept, self.logits.at(*size), self.work.at(*size)


def activations(model: ModelSpec | LoraCount, training: TrainingOptions) -> list[Moment]:
    """List the moments of a step at which memory may peak; empty if the layers are unknown.

    The first moment is the computation of the loss. `training_memory` states the formulas.
    """
    kept = _Kept(model, training)
    return kept.moments() if kept.spec.layers else []


def quantisable(spec: ModelSpec) -> list[ModuleSpec]:
    """List the modules that int8 and nf4 quantise: linear layers and experts, but not the head."""
    linear = [module for module in spec.groups if module.kind in ("linear", "experts")]
    return [module for module in linear if module.name != spec.head and not module.tied]


class _Kept:
    """An estimator of the memory that a step keeps, from the shapes and roles of modules."""

    def __init__(self, model: ModelSpec | LoraCount, training: TrainingOptions) -> None:
        self.training = training
        self.item = training.item
        self.full = isinstance(model, ModelSpec)
        self.spec = spec_of(model)
        self.adapters: tuple[AdaptedModules, ...] = getattr(model, "adapters", ())
        self.saved: Collection[str] = getattr(model, "saved", ())
        self.dora: bool = getattr(model, "dora", False)

    def moments(self) -> list[Moment]:
        kept = self._outside()
        layers = []
        below = self.full  # whether this stack or an earlier one has a trained module
        for stack in self.spec.layers:
            modules = [
                module for module in self.spec.groups if module.name.startswith(f"{stack.prefix}.")
            ]
            here = [adapter for adapter in self.adapters if adapter.module in modules]
            below = below or bool(here)
            if not below:
                continue
            size = self._stack(stack, modules, here)
            if self.training.checkpointing and any(size):
                layers.append((size, stack.depth * stack.repeats))
                inputs = min(stack.depth, _IN_FLIGHT if self.training.offloading else stack.depth)
                size = _growth(stack, inputs * stack.width * self.training.hidden_item)
            kept = kept.plus(size)
        # the logits are freed before the first layer is recomputed, so later moments have none
        work = max(self._matrix(), self._norms())
        again = layers or [(Growth(), 1)]
        logits, copies = (Growth(token=size) for size in self._loss())
        first = Moment(kept, Growth(), 1, logits, copies)
        return [first, *(Moment(kept, size, n, Growth(), Growth(fixed=work)) for size, n in again)]

    def _stack(
        self, stack: Layers, modules: list[ModuleSpec], here: list[AdaptedModules]
    ) -> Growth:
        attention, mlp = self._reach(stack, here)
        depth = max(stack.depth, 1)
        norms = sum(self._norm(module, stack) for module in modules if module.kind == "norm")
        gated = any(module.role in ("gate", "gate_up") for module in modules)
        maps = [module for module in modules if module.kind in ("linear", "experts", "router")]
        inner = sum(self._mlp(module, gated, stack.activation) for module in maps)
        linear, pair = self._attention(stack)
        token = linear * attention + self._inputs(modules, stack, attention)
        token += (norms * attention + inner * mlp) // depth
        token += self.training.adapter_item * sum(adapted.rank * adapted.copies for adapted in here)
        token += sum(self._results(adapted) for adapted in here)
        if stack.dropout:
            token += 2 * attention * stack.width * self.item
        # PEFT adds B A to the weights of adapted experts and routers, and keeps the sum in memory
        merged = sum(
            a.module.weight * a.copies for a in here if a.module.kind in ("experts", "router")
        )
        return _growth(stack, token, pair * attention)._replace(fixed=merged * self.item)

    def _results(self, adapted: AdaptedModules) -> int:
        """Compute the bytes per token of W0 x and B A x, which DoRA keeps; 0 for other LoRAs."""
        item = self.item + self.training.adapter_item
        return self.dora * item * adapted.module.sides[1] * adapted.copies

    def _matrix(self) -> int:
        """Compute the bytes of the largest quantised matrix once it is dequantised to 16 bits."""
        few = () if self.training.dtype in ITEMSIZE else quantisable(self.spec)
        return max((2 * prod(module.shape[-2:]) for module in few), default=0)

    def _norms(self) -> int:
        """Compute the bytes that PEFT needs to compute DoRA's norms for the largest module."""
        if not self.dora:
            return 0
        item = self.training.adapter_item
        casts = self.training.dtype not in ITEMSIZE or self.item != item
        sizes = [0]
        for module, rank in ((adapter.module, adapter.rank) for adapter in self.adapters):
            inputs = module.shape[-1] if module.kind == "linear" else 0
            # Count three d x k matrices, a fourth if the weight is converted to the adapter's
            # dtype, and, for linear layers, a k x k identity matrix and A.
            sizes.append((3 + casts) * prod(module.shape) + inputs * (inputs + rank))
        return item * max(sizes)

    def _reach(self, stack: Layers, here: list[AdaptedModules]) -> tuple[int, int]:
        """Count the layers whose attention needs input gradients, and those whose MLP needs them.

        The backward pass stops at the lowest adapter, so nothing is kept for layers below it.
        """
        if self.full or not here:
            return stack.depth, stack.depth
        lowest = min(adapter.lowest for adapter in here)
        roles = {adapter.module.role for adapter in here if adapter.lowest == lowest}
        attention = not roles.isdisjoint(ATTENTION)
        depth = stack.depth - lowest
        return (depth if attention else depth - 1), (depth if roles != {"down"} else depth - 1)

    def _attention(self, stack: Layers) -> tuple[int, int]:
        """Compute the bytes that one layer's attention keeps per token and per pair of tokens."""
        keeps_weights = stack.attention_dropout or self.training.attention == "eager"
        kv_heads = stack.heads if keeps_weights else stack.kv_heads
        times = 2 if stack.cross_attention else 1
        token = (
            times * (stack.heads + kv_heads) * (stack.head_width + stack.value_width) * self.item
        )
        if not keeps_weights:
            return token, 0
        # A 16-bit model keeps a float32 softmax and its rounded copy, unless it computes the
        # softmax in 16 bits. Dropout also keeps its mask and its result, and a soft cap keeps its
        # tanh.
        softmax = 4 + self.item if self.item < 4 and not stack.half_softmax else self.item
        dropped = 2 * self.item if stack.attention_dropout else 0
        capped = self.item if stack.soft_cap else 0
        return token, times * stack.heads * (softmax + dropped + capped)

    def _norm(self, module: ModuleSpec, stack: Layers | None = None) -> int:
        width = module.shape[0]
        if stack is not None and width == stack.head_width != stack.width:
            width *= stack.kv_heads if module.role == "key_norm" else stack.heads
        if module.bias:
            return width * module.copies * self.item
        # An RMS norm keeps its input in float32. If its weight is trained, it also keeps the
        # normalised input.
        scaled = 4 if any(layer.float_norm for layer in self.spec.layers) else self.item
        return width * module.copies * (4 + (scaled if self.full else 0))

    def _mlp(self, module: ModuleSpec, gated: bool, activation: str) -> int:
        """Compute the bytes per token that a module adds to the MLP's memory, besides its input."""
        # a router keeps its float32 softmax and, if its weight is trained, its input
        if module.kind == "router":
            return (
                4 * module.shape[0] * module.copies
                + module.shape[-1] * self._trained(module) * self.item
            )
        numbers = module.shape[-2] * self._chosen(module) * module.copies
        # A gated MLP keeps three arrays: the outputs of gate and up, and the activation function's
        # result. So it keeps 3/2 of the entries that gate and up have together.
        if module.role in _EXPANDING:
            return self.item * (3 * numbers // 2 if gated else _KEPT.get(activation, 1) * numbers)
        # the experts' outputs are kept, because the router's gradient needs them
        return numbers * self.item if (module.kind, module.role) == ("experts", "down") else 0

    def _inputs(self, modules: Iterable[ModuleSpec], stack: Layers, reach: int) -> int:
        """Compute the bytes per token of the inputs that layers keep; shared inputs count once."""
        casts = not self.full and self.training.adapter_item != self.item
        shared: dict[str, int] = {}
        size = 0
        for module in modules:
            if module.kind not in ("linear", "experts"):
                continue
            width = module.shape[-1] * self._chosen(module)
            numbers = self._trained(module) * width
            # this layer's input is the result of attention or ReLU, which is kept anyway: do not
            # count it twice
            kept = module.role == "output" or (stack.activation == "relu" and module.role == "down")
            if casts and module.kind == "linear":
                size += numbers * self.training.adapter_item
                numbers = 0
            # with int8, unlike nf4, bitsandbytes keeps the input of every layer, adapted or not
            if self.training.dtype == "int8":
                numbers = width * module.copies * reach // max(stack.depth, 1)
            if not kept:
                source = f"{module.holder}:{module.shape[-1]}"
                key = module.name if module.role == "down" else source
                shared[key] = max(shared.get(key, 0), numbers)
        return size + self.item * sum(shared.values())

    def _outside(self) -> Growth:
        """Compute the memory that the final norm, the head, and a vision projector keep."""
        prefixes = tuple(f"{stack.prefix}." for stack in self.spec.layers)
        tower = next((stack for stack in self.spec.layers if stack.tokens), None)
        total = Growth()
        for module in self.spec.groups:
            if module.name.startswith(prefixes):
                continue
            size = 0
            if module.kind == "norm" and (self.full or module.role != "embedding_norm"):
                size += self._norm(module)
            # a projector's activation function keeps the output of the linear layer before it
            if module.role == "linear":
                size += (module.shape[0] + module.shape[-1] * self._trained(module)) * self.item
            if module.name == self.spec.head:
                trained = self._trained(module) or module.name in self.saved
                size += module.shape[-1] * trained * self.item
            size += sum(
                self._results(adapter) for adapter in self.adapters if adapter.module is module
            )
            of_tower = tower and (module.role == "linear" or module.shape[-1] == tower.width)
            growth = (
                Growth(sample=tower.tokens * size) if tower and of_tower else Growth(token=size)
            )
            total = total.plus(growth)
        return total

    def _loss(self) -> tuple[int, int]:
        """Return the bytes per token that cross-entropy keeps, and that it needs temporarily."""
        head = next((module for module in self.spec.groups if module.name == self.spec.head), None)
        if head is None:
            return 0, 0
        vocabulary, width = head.shape
        item = self.training.hidden_item
        if self.training.cross_entropy == "fused":
            # The gradient of the head's input is kept. A chunk of logits has about as many entries
            # as this gradient, and exists both in the model's dtype and in float32.
            return width * item, width * (item + 4)
        # Log-probabilities and the tanh of a soft cap are kept. The logits are temporary, and so is
        # a second array of their shape: a float32 copy or the gradient of the logits.
        capped = item if any(stack.soft_cap for stack in self.spec.layers) else 0
        loss = item if any(stack.half_loss for stack in self.spec.layers) else 4
        return vocabulary * (loss + capped), vocabulary * (item + loss)

    def _chosen(self, module: ModuleSpec) -> int:
        return self.spec.experts_per_token if module.kind == "experts" else 1

    def _trained(self, module: ModuleSpec) -> int:
        """Count the copies of a module whose inputs are needed for the gradients of weights."""
        if self.full:
            return module.copies
        return sum(adapter.copies for adapter in self.adapters if adapter.module is module)


def _growth(stack: Layers, token: int, pair: int = 0) -> Growth:
    """Return the `Growth` of a stack of layers, given bytes per token and per pair of tokens."""
    token, pair = token * stack.repeats, pair * stack.repeats
    if stack.tokens:
        return Growth(sample=stack.tokens * (token + stack.tokens * pair))
    return Growth(token=token, pair=pair)
