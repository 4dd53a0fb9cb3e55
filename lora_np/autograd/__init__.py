"""Differentiate NumPy code in reverse mode.

Read the files in this order. ``engine.py`` contains the Tensor and the backward pass;
``tables.py`` contains the tables that map functions to derivatives; ``rules.py`` contains the
derivatives; ``nesting.py`` computes gradients of gradients; and ``law.py`` checks derivatives.
"""

import lora_np.autograd.linear_algebra  # noqa: F401  importing it and rules fills the tables
from lora_np.lazy import on_demand

with on_demand(globals()):
    from lora_np.autograd.engine import Operand as Operand, Tensor as Tensor
    from lora_np.autograd.kernels import (
        adapted_affine as adapted_affine,
        affine as affine,
        plus_low_rank as plus_low_rank,
    )
    from lora_np.autograd.law import check_derivative as check_derivative
    from lora_np.autograd.methods import value as value
    from lora_np.autograd.nesting import grad as grad
    from lora_np.autograd.tables import (
        NOT_DIFFERENTIABLE as NOT_DIFFERENTIABLE,
        added_rows as added_rows,
        constant as constant,
        derivative as derivative,
        known as known,
        primitive as primitive,
    )
