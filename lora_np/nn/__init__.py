"""Build models as trees of layers, and train them with losses and optimizers."""

from lora_np.lazy import on_demand

with on_demand(globals()):
    from lora_np.nn.layers import (
        Activation as Activation,
        Embedding as Embedding,
        Linear as Linear,
        Sequential as Sequential,
        dropout as dropout,
        gelu as gelu,
        relu as relu,
        sigmoid as sigmoid,
        softmax as softmax,
    )
    from lora_np.nn.losses import (
        accuracy as accuracy,
        cross_entropy as cross_entropy,
        mean_squared_error as mean_squared_error,
    )
    from lora_np.nn.modules import layer_specs as layer_specs
    from lora_np.nn.optim import (
        SGD as SGD,
        Adam as Adam,
        AdamW as AdamW,
        Groups as Groups,
        Optimizer as Optimizer,
        Run as Run,
        cosine_schedule as cosine_schedule,
        linear_schedule as linear_schedule,
        rate_at as rate_at,
        training_run as training_run,
    )
    from lora_np.nn.tree import (
        LEAVES as LEAVES,
        Named as Named,
        freeze as freeze,
        join as join,
        leaves as leaves,
        outline as outline,
        replace as replace,
        trainable as trainable,
        walk as walk,
    )
