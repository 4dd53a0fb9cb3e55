"""Reverse-mode differentiation of NumPy: ``Tensor``, the table of derivatives, the law that checks them."""

from lora_np.autograd import derivatives as derivatives
from lora_np.autograd.check import check_derivative
from lora_np.autograd.tensor import (
    NOT_DIFFERENTIABLE,
    Each,
    Tensor,
    composition,
    constant,
    derivative,
    known,
    primitive,
    value,
)

__all__ = [
    "NOT_DIFFERENTIABLE",
    "Each",
    "Tensor",
    "check_derivative",
    "composition",
    "constant",
    "derivative",
    "known",
    "primitive",
    "value",
]
