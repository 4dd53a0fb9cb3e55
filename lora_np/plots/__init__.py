"""Every figure of the package: functions that take arrays and an optional ``ax=`` and return the axes."""

from lora_np.plots.training import training_curve

__all__ = ["training_curve"]
