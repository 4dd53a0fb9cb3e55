"""Training loops."""

from lora_np.training.fit import Fit, History, fit

__all__ = ["Fit", "History", "fit"]
