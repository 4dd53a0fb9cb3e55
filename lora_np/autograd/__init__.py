"""Reverse-mode differentiation of NumPy, to be read in this order.

``engine.py``, the array that remembers and the walk back; ``tables.py``, which function has which derivative;
``rules.py``, the derivatives; ``nesting.py``, gradients of gradients; ``law.py``, what checks them all.
"""

from lora_np.autograd import linear_algebra as linear_algebra  # which fills the tables, and rules too
from lora_np.autograd import rules as rules
from lora_np.autograd.engine import Tensor
from lora_np.autograd.kernels import adapted_affine, affine, plus_low_rank, product
from lora_np.autograd.law import check_derivative
from lora_np.autograd.methods import value
from lora_np.autograd.nesting import grad
from lora_np.autograd.tables import (
    NOT_DIFFERENTIABLE,
    Each,
    composition,
    constant,
    derivative,
    known,
    primitive,
)

__all__ = [
    "NOT_DIFFERENTIABLE",
    "Each",
    "Tensor",
    "adapted_affine",
    "affine",
    "check_derivative",
    "composition",
    "constant",
    "derivative",
    "grad",
    "known",
    "plus_low_rank",
    "primitive",
    "product",
    "value",
]
