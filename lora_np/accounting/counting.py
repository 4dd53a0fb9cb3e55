"""One entry for counting: whichever way the model is given, and the LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_np.accounting.lora import LoraCount, count_model
from lora_np.accounting.sources import is_described, model_spec
from lora_np.models import ModelSpec
from lora_np.table import Shown, Table


@dataclass(frozen=True, repr=False)
class ModelCount(Shown):
    """The numbers in a model: what `count` gives without a rank.

    Parameters
    ----------
    trainable, total : int
        Of a model of ours, the numbers in Tensors and in all arrays; of torch's, in parameters with a
        gradient and in all. A described model is all trainable.
    nbytes : int or None
        The memory that the arrays take; of a quantised weight, that of its codes and scales. None of shapes.
    table : Table
        One row for each array, or for each group of alike modules.
    """

    trainable: int
    total: int
    nbytes: int | None
    table: Table

    @property
    def frozen(self) -> int:
        """Numbers in plain arrays."""
        return self.total - self.trainable


def count(model: Any, *, rank: int | None = None, config: Any = None, **options: Any) -> Any:
    """What a LoRA on any model costs; without a rank or a config, the model's own numbers.

    Parameters
    ----------
    model : object
        Whatever `model_spec` takes: a name, a path, a config, a model in memory.
    rank : int, optional
        Of a LoRA.
    config : str, Path, mapping or LoraConfig, optional
        Instead, all that PEFT says of a LoRA: an ``adapter_config.json`` or a directory with one, its fields,
        or the object. Every setting that changes how many numbers are trained counts as in PEFT.
    **options
        Other options of `count_model`; with a config, ``experts`` alone.

    Returns
    -------
    LoraCount or ModelCount
        The numbers of the LoRA, or of each array of the model, a tied weight once. It prints as a table.

    Raises
    ------
    TypeError
        If the model holds no arrays, or an option is not one of `count_model`.
    ValueError
        If the model or an option is not understood, or ``config`` holds a setting that is not counted here.

    See Also
    --------
    count_model : The options of a LoRA.

    Examples
    --------
    >>> count("llama-3-8b", rank=16).trainable, count("llama-3-8b").total
    (6815744, 8030261248)
    >>> settings = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"], "layers_to_transform": [0, 1]}
    >>> count("llama-3-8b", config=settings).trainable
    131072
    >>> import numpy as np
    >>> from lora_np import Linear, inject
    >>> count(inject(Linear(np.zeros((100, 120))), rank=8, alpha=16, rng=0))
    LoRALinear: 1,760 of 13,760 numbers trainable
    array   shape      trainable  frozen
    ------  ---------  ---------  ------
    base.W  100 x 120          0  12,000
    A       8 x 120          960       0
    B       100 x 8          800       0
    """
    if config is not None:
        from lora_np.accounting.lora_config import lora_options

        spec, experts = model_spec(model), options.pop("experts", "peft")
        if given := [*["rank"] * (rank is not None), *options]:
            raise ValueError(f"config says all about the LoRA: leave out {', '.join(given)}")
        return count_model(spec, **lora_options(spec, config), experts=experts)
    if rank is not None or options:
        return count_model(model, rank=rank, **options)  # type: ignore[arg-type]
    if not is_described(model):
        from lora_np.accounting.live import tree_count

        return ModelCount(*tree_count(model))
    spec, parameters = model_spec(model), getattr(model, "named_parameters", None)
    if parameters is None:
        return ModelCount(spec.total, spec.total, None, spec.table)
    trainable = sum(each.numel() for _, each in parameters() if each.requires_grad)
    return ModelCount(trainable, spec.total, None, spec.table)


def counted(model: Any, options: Mapping[str, Any]) -> ModelSpec | LoraCount:
    """The LoRA that is meant: a count itself, or `count` with these options; without any, the whole model."""
    if isinstance(model, LoraCount):
        if options:
            raise TypeError(f"{', '.join(options)}: the LoRA is counted already, give its model instead")
        return model
    found: ModelSpec | LoraCount = count(model, **options) if options else model_spec(model)
    return found
