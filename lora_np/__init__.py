"""LoRA in plain NumPy: understand it, train it, count it, work on adapter files.

>>> import numpy as np
>>> import lora_np as lnp
>>> lnp.count_full(100, 120), lnp.count_lora(100, 120, rank=20), lnp.count_lora(100, 120, rank=8)
(12000, 4400, 1760)
"""

from lora_np.version import __version__ as __version__

# Each name is imported when it is first used (SPEC 1 of Scientific Python), so that `import lora_np` costs
# little more than `import numpy`. Type checkers and completion read the imports below; a test compares them.
_NAMES: dict[str, tuple[str, ...]] = {
    "accounting": ("break_even_rank", "count", "count_full", "count_lora", "rank_for_budget"),
    "adapters": (),
    "autograd": ("Tensor", "value"),
    "course": (),
    "datasets": (),
    "exercises": (),
    "grading": (),
    "hub": (),
    "language": (),
    "linalg": (
        "column_space",
        "independent_columns",
        "low_rank_factors",
        "matrix_rank",
        "rank_errors",
        "rank_for_error",
        "reduced_rank_regression",
        "truncated_svd",
    ),
    "lora": ("LoRALinear", "inject", "merge"),
    "nn": (
        "SGD",
        "Activation",
        "Adam",
        "AdamW",
        "Linear",
        "Sequential",
        "cosine_schedule",
        "cross_entropy",
        "freeze",
        "leaves",
        "mean_squared_error",
        "replace",
        "start",
        "trainable",
    ),
    "plots": (),
    "training": ("fit", "sweep"),
}
_ORIGINS = {name: package for package, names in _NAMES.items() for name in names}

__all__ = sorted((*_NAMES, *_ORIGINS))

TYPE_CHECKING = False  # as in typing, which takes milliseconds to import
if TYPE_CHECKING:
    from lora_np import accounting as accounting
    from lora_np import adapters as adapters
    from lora_np import autograd as autograd
    from lora_np import course as course
    from lora_np import datasets as datasets
    from lora_np import exercises as exercises
    from lora_np import grading as grading
    from lora_np import hub as hub
    from lora_np import language as language
    from lora_np import linalg as linalg
    from lora_np import lora as lora
    from lora_np import nn as nn
    from lora_np import plots as plots
    from lora_np import training as training
    from lora_np.accounting import break_even_rank as break_even_rank
    from lora_np.accounting import count as count
    from lora_np.accounting import count_full as count_full
    from lora_np.accounting import count_lora as count_lora
    from lora_np.accounting import rank_for_budget as rank_for_budget
    from lora_np.autograd import Tensor as Tensor
    from lora_np.autograd import value as value
    from lora_np.linalg import column_space as column_space
    from lora_np.linalg import independent_columns as independent_columns
    from lora_np.linalg import low_rank_factors as low_rank_factors
    from lora_np.linalg import matrix_rank as matrix_rank
    from lora_np.linalg import rank_errors as rank_errors
    from lora_np.linalg import rank_for_error as rank_for_error
    from lora_np.linalg import reduced_rank_regression as reduced_rank_regression
    from lora_np.linalg import truncated_svd as truncated_svd
    from lora_np.lora import LoRALinear as LoRALinear
    from lora_np.lora import inject as inject
    from lora_np.lora import merge as merge
    from lora_np.nn import SGD as SGD
    from lora_np.nn import Activation as Activation
    from lora_np.nn import Adam as Adam
    from lora_np.nn import AdamW as AdamW
    from lora_np.nn import Linear as Linear
    from lora_np.nn import Sequential as Sequential
    from lora_np.nn import cosine_schedule as cosine_schedule
    from lora_np.nn import cross_entropy as cross_entropy
    from lora_np.nn import freeze as freeze
    from lora_np.nn import leaves as leaves
    from lora_np.nn import mean_squared_error as mean_squared_error
    from lora_np.nn import replace as replace
    from lora_np.nn import start as start
    from lora_np.nn import trainable as trainable
    from lora_np.training import fit as fit
    from lora_np.training import sweep as sweep


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _NAMES:
        return import_module(f"lora_np.{name}")
    if name not in _ORIGINS:
        raise AttributeError(f"module 'lora_np' has no attribute {name!r}")
    found = getattr(import_module(f"lora_np.{_ORIGINS[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
