"""Every figure of the package: functions that take arrays and an optional ``ax=`` and return the axes."""

from lora_np.plots.images import strips
from lora_np.plots.lora import error_against_rank
from lora_np.plots.training import training_curve

__all__ = ["error_against_rank", "strips", "training_curve"]
