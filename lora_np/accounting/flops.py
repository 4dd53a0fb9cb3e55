"""Floating-point operations for each token, by product: which ones LoRA saves, and which it does not."""

from __future__ import annotations

from lora_np.accounting.lora import LoraCount
from lora_np.checks import whole_number
from lora_np.hub.model import ModelSpec, ModuleSpec
from lora_np.table import Table


def forward_flops(model: ModelSpec | LoraCount, *, sequence: int = 1) -> int:
    """Operations of one token's forward pass; a multiplication and an addition count two.

    Every linear map of d x k costs 2 d k, the head too, tied or not. Attention costs ``2 s h (w + v)`` for
    h heads of width w and values of width v over s tokens (a causal mask is not taken advantage of). Routed
    experts count as often as a token sees one. Norms and activation functions are left out: they are of
    order d. In an encoder with a decoder a token passes both.

    Parameters
    ----------
    model : ModelSpec or LoraCount
    sequence : int
        Tokens that attention looks at; counted only where a config told the layers.

    Returns
    -------
    int

    Examples
    --------
    >>> from lora_np.accounting import preset
    >>> forward_flops(preset("gpt2"))
    247100928
    """
    return sum(products(model, sequence=sequence)["forward"].values())


def training_flops(model: ModelSpec | LoraCount, *, sequence: int = 1) -> int:
    """Operations of one token's forward and backward pass.

    Full fine-tuning costs three times the forward pass. LoRA saves the product dW0, which is a third, but not
    dx: the gradient still flows back through W0.

    Examples
    --------
    >>> from lora_np.accounting import count_model, preset
    >>> spec = preset("gpt2")
    >>> training_flops(spec) / forward_flops(spec)
    3.0
    >>> round(training_flops(count_model(spec, rank=8)) / training_flops(spec), 3)
    0.669
    """
    return sum(sum(part.values()) for part in products(model, sequence=sequence).values())


def products(model: ModelSpec | LoraCount, *, sequence: int = 1) -> dict[str, dict[str, int]]:
    """Operations for each token, by pass and by product.

    Returns
    -------
    dict
        ``"forward"`` and ``"backward"``, each from a product to its operations.
    """
    sequence = whole_number("sequence", sequence)
    spec = model.spec if isinstance(model, LoraCount) else model
    base = sum(2 * _size(module) * module.copies * _times(module, spec) for module in _maps(spec))
    attention = sum(
        2
        * sequence
        * stack.heads
        * (stack.head_width + stack.value_width)
        * stack.depth
        * (2 if stack.cross_attention else 1)
        for stack in spec.layers
    )
    forward = {"W0 x": base, "attention": attention}
    backward = {"dx through W0": base, "attention": 2 * attention}
    if isinstance(model, LoraCount):
        adapter = 2 * sum(
            each.rank * sum(each.module.shape[-2:]) * each.copies * _times(each.module, spec)
            for each in model.adapters
            if each.module in _maps(spec)
        )
        saved = 2 * sum(model.saved.values())
        forward["B A x"] = adapter
        backward |= {"dW0": saved, "dx through B A": adapter, "dA, dB": adapter}
    else:
        backward["dW0"] = base
    return {"forward": forward, "backward": backward}


def flops_table(spec: ModelSpec, count: LoraCount, *, sequence: int = 1) -> Table:
    """Full fine-tuning and LoRA side by side, in operations for each token.

    Parameters
    ----------
    spec : ModelSpec
    count : LoraCount
        A LoRA on ``spec``.
    sequence : int
        Tokens that attention looks at.

    Returns
    -------
    Table
    """
    full, lora = products(spec, sequence=sequence), products(count, sequence=sequence)
    rows: list[tuple[str, str, int, int]] = [
        (direction, product, full[direction].get(product, 0), operations)
        for direction, of_lora in lora.items()
        for product, operations in of_lora.items()
    ]
    totals = training_flops(spec, sequence=sequence), training_flops(count, sequence=sequence)
    rows.append(("both", "total", *totals))
    return Table(
        ("pass", "product", "full", "LoRA"),
        rows,
        title=f"{spec.name}, rank {count.rank}: operations for each token",
        notes=("LoRA saves dW0. It does not save dx: the gradient flows back through W0 all the same.",),
    )


def _maps(spec: ModelSpec) -> list[ModuleSpec]:
    return [module for module in spec.groups if module.kind in ("linear", "router", "experts")]


def _size(module: ModuleSpec) -> int:
    """Numbers that one token meets in a map: of experts, one expert's."""
    d_out, d_in = module.shape[-2:]
    return d_out * d_in


def _times(module: ModuleSpec, spec: ModelSpec) -> int:
    return spec.experts_per_token if module.kind == "experts" else 1
