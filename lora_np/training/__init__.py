"""Training loops, what theory says about them, and sweeps of them."""

from lora_np.training.checkpoint import CheckpointError
from lora_np.training.fitting import Fit, History, fit, uninterrupted
from lora_np.training.sweeping import Problem, Sweep, sweep
from lora_np.training.theory import optimum, stable_rate

__all__ = [
    "CheckpointError",
    "Fit",
    "History",
    "Problem",
    "Sweep",
    "fit",
    "optimum",
    "stable_rate",
    "sweep",
    "uninterrupted",
]
