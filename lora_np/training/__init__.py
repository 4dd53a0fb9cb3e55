"""Training loops, what theory says about them, and sweeps of them."""

from lora_np.training.checkpoint import CheckpointError
from lora_np.training.fit import Fit, History, fit
from lora_np.training.theory import optimum, stable_rate

__all__ = ["CheckpointError", "Fit", "History", "fit", "optimum", "stable_rate"]
