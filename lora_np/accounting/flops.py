"""Floating-point operations for each token, by product: which ones LoRA saves, and which it does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from lora_np.accounting.lora import LoraCount, counted, spec_of
from lora_np.checks import whole_number
from lora_np.models import ModelSpec, ModuleSpec
from lora_np.table import Shown, Table


@dataclass(frozen=True, repr=False)
class Flops(Shown):
    """Operations for each token, by pass and by product: the result of `count_flops`.

    Parameters
    ----------
    title : str
        Of the table.
    forward, backward : mapping of str to int
        From a product, such as ``"W0 x"``, to its operations.
    full : Flops or None
        Of a LoRA: full fine-tuning of the same model.
    """

    title: str
    forward: Mapping[str, int]
    backward: Mapping[str, int]
    full: Flops | None = None

    @property
    def total(self) -> int:
        """Operations of a forward and a backward pass."""
        return sum(self.forward.values()) + sum(self.backward.values())

    @property
    def table(self) -> Table:
        """One row for each product; of a LoRA, next to full fine-tuning."""
        kinds = {"operations": self} if self.full is None else {"full": self.full, "LoRA": self}
        rows = [
            (direction, product, *(getattr(each, direction).get(product, 0) for each in kinds.values()))
            for direction in ("forward", "backward")
            for product in getattr(self, direction)
        ]
        rows.append(("both", "total", *(each.total for each in kinds.values())))
        saves = "LoRA saves dW0. It does not save dx: the gradient flows back through W0 all the same."
        return Table(
            ("pass", "product", *kinds), rows, title=self.title, notes=() if self.full is None else (saves,)
        )


def count_flops(model: Any, *, context: int = 1, **options: Any) -> Flops:
    """Operations for each token; a multiplication and an addition count two.

    Every linear map of d x k costs 2 d k, the head too, tied or not. Attention costs ``2 s h (w + v)`` for
    h heads of width w and values of width v over s tokens (a causal mask saves nothing here). Routed experts
    count as often as a token sees one. Norms and activation functions are left out: they are of order d. In
    an encoder with a decoder a token passes both.

    Full fine-tuning costs three times the forward pass. LoRA saves the product dW0, one third, but not dx:
    the gradient still flows back through W0.

    Parameters
    ----------
    model : object
        A count of a LoRA, or whatever `model_spec` takes: with a ``rank`` or a ``config`` LoRA is counted,
        without them the model is fine-tuned in full.
    context : int
        Tokens that attention looks at; counted only if a config gives the layers.
    **options
        Those of `count`.

    Returns
    -------
    Flops
        Operations by pass and product, which print as a table.

    Raises
    ------
    TypeError
        If ``context`` is not a whole number.
    ValueError
        If ``context`` is below 1.

    Examples
    --------
    >>> full, lora = count_flops("gpt2"), count_flops("gpt2", rank=8)
    >>> full.forward["W0 x"], round(lora.total / full.total, 3)
    (247064064, 0.669)
    """
    context, model = whole_number("context", context), counted(model, options)
    spec = spec_of(model)
    base = sum(2 * prod(module.shape[-2:]) * module.copies * _passes(module, spec) for module in _maps(spec))
    attention = 0
    for stack in spec.layers:
        times = stack.depth * stack.repeats * (2 if stack.cross_attention else 1)
        attention += 2 * context * stack.heads * (stack.head_width + stack.value_width) * times
    forward = {"W0 x": base, "attention": attention}
    backward = {"dx through W0": base, "attention": 2 * attention}
    if not isinstance(model, LoraCount):
        return Flops(f"{spec.name}: operations for each token", forward, backward | {"dW0": base})
    adapter = 2 * sum(
        each.rank * sum(each.module.shape[-2:]) * each.copies * _passes(each.module, spec)
        for each in model.adapters
        if each.module in _maps(spec)
    )
    saved = 2 * sum(model.saved.values())
    return Flops(
        f"{spec.name}, rank {model.rank}: operations for each token",
        forward | {"B A x": adapter},
        backward | {"dW0": saved, "dx through B A": adapter, "dA, dB": adapter},
        count_flops(spec, context=context),
    )


def _passes(module: ModuleSpec, spec: ModelSpec) -> int:
    """How often a token passes: routed experts see it several times, and some layers are used again."""
    times = spec.experts_per_token if module.kind == "experts" else 1
    return times * next((stack.repeats for stack in spec.layers if module.name.startswith(stack.prefix)), 1)


def _maps(spec: ModelSpec) -> list[ModuleSpec]:
    return [module for module in spec.groups if module.kind in ("linear", "router", "experts")]
