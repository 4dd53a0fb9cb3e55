"""Training loops, what theory says about them, and sweeps of them."""

from lora_np.training.alternating import alternating_least_squares
from lora_np.training.checkpoint import CheckpointError
from lora_np.training.digits import digits_story
from lora_np.training.dynamics import Dynamics, learning_dynamics
from lora_np.training.fit import Fit, History, fit
from lora_np.training.sweep import Problem, Sweep, sweep
from lora_np.training.theory import optimum, stable_rate

__all__ = [
    "CheckpointError",
    "Dynamics",
    "Fit",
    "History",
    "Problem",
    "Sweep",
    "alternating_least_squares",
    "digits_story",
    "fit",
    "learning_dynamics",
    "optimum",
    "stable_rate",
    "sweep",
]
