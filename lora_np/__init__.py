"""LoRA in plain NumPy: understand it, train it, count its cost, and work on adapter files.

>>> import numpy as np
>>> import lora_np as lnp
>>> lnp.count_full(100, 120), lnp.count_lora(100, 120, rank=20), lnp.count_lora(100, 120, rank=8)
(12000, 4400, 1760)
"""

from lora_np.lazy import on_demand
from lora_np.version import __version__ as __version__

with on_demand(globals()):
    from lora_np import (
        accounting as accounting,
        adapters as adapters,
        autograd as autograd,
        course as course,
        datasets as datasets,
        exercises as exercises,
        hub as hub,
        language as language,
        linalg as linalg,
        lora as lora,
        nn as nn,
        plots as plots,
        training as training,
    )
    from lora_np.accounting import (
        break_even_rank as break_even_rank,
        count as count,
        count_full as count_full,
        count_lora as count_lora,
        rank_for_budget as rank_for_budget,
    )
    from lora_np.autograd import Tensor as Tensor, value as value
    from lora_np.linalg import (
        column_space as column_space,
        independent_columns as independent_columns,
        low_rank_factors as low_rank_factors,
        matrix_rank as matrix_rank,
        rank_errors as rank_errors,
        rank_for_error as rank_for_error,
        reduced_rank_regression as reduced_rank_regression,
        truncated_svd as truncated_svd,
    )
    from lora_np.lora import LoRALinear as LoRALinear, inject as inject, merge as merge
    from lora_np.nn import (
        SGD as SGD,
        Activation as Activation,
        Adam as Adam,
        AdamW as AdamW,
        Linear as Linear,
        Sequential as Sequential,
        cosine_schedule as cosine_schedule,
        cross_entropy as cross_entropy,
        freeze as freeze,
        leaves as leaves,
        mean_squared_error as mean_squared_error,
        replace as replace,
        trainable as trainable,
        training_run as training_run,
    )
    from lora_np.training import fit as fit, sweep as sweep
