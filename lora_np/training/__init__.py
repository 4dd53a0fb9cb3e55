"""Train models, compare them with the theoretical optimum, and sweep over settings."""

from lora_np.lazy import on_demand

with on_demand(globals()):
    from lora_np.training.fitting import (
        Fit as Fit,
        History as History,
        RunSettings as RunSettings,
        fit as fit,
        uninterrupted as uninterrupted,
    )
    from lora_np.training.sweeping import (
        Problem as Problem,
        Sweep as Sweep,
        optimum as optimum,
        sweep as sweep,
    )
