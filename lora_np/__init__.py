"""LoRA in plain NumPy: understand it, train it, count it, exchange it.

>>> import numpy as np
>>> import lora_np as lnp
>>> lnp.count_full(100, 120), lnp.count_lora(100, 120, rank=20), lnp.count_lora(100, 120, rank=8)
(12000, 4400, 1760)
"""

from __future__ import annotations

import importlib
from typing import Any

from lora_np import autograd, linalg, lora, nn, training
from lora_np.accounting.matrix import break_even_rank, count_full, count_lora, rank_for_budget
from lora_np.autograd import Tensor, value
from lora_np.linalg import (
    column_space,
    independent_columns,
    low_rank_factors,
    matrix_rank,
    rank_errors,
    rank_for_error,
    reduced_rank_regression,
    truncated_svd,
)
from lora_np.lora import LoRALinear, inject, merge
from lora_np.nn import (
    SGD,
    Activation,
    Adam,
    AdamW,
    Embedding,
    Groups,
    Linear,
    Sequential,
    cosine,
    cross_entropy,
    freeze,
    leaves,
    mean_squared_error,
    replace,
    start,
    trainable,
)
from lora_np.training import fit, sweep

__version__ = "0.1.0"

# Loaded when first used, so that `import lora_np` brings NumPy and nothing heavier.
_ON_DEMAND = ("accounting", "adapters", "datasets", "course", "exercises", "grading", "hub", "plots")

__all__ = [
    "SGD",
    "Activation",
    "Adam",
    "AdamW",
    "Embedding",
    "Groups",
    "Linear",
    "LoRALinear",
    "Sequential",
    "Tensor",
    "accounting",
    "adapters",
    "autograd",
    "break_even_rank",
    "column_space",
    "cosine",
    "count_full",
    "count_lora",
    "course",
    "cross_entropy",
    "datasets",
    "exercises",
    "fit",
    "freeze",
    "grading",
    "hub",
    "independent_columns",
    "inject",
    "leaves",
    "linalg",
    "lora",
    "low_rank_factors",
    "matrix_rank",
    "mean_squared_error",
    "merge",
    "nn",
    "plots",
    "rank_errors",
    "rank_for_budget",
    "rank_for_error",
    "reduced_rank_regression",
    "replace",
    "start",
    "sweep",
    "trainable",
    "training",
    "truncated_svd",
    "value",
]


def __getattr__(name: str) -> Any:
    if name in _ON_DEMAND:
        return importlib.import_module(f"lora_np.{name}")
    raise AttributeError(f"module 'lora_np' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ON_DEMAND})
