"""What lies on disk: safetensors, model directories, names, targets, dtypes, and the families of models."""

from lora_np.hub.patterns import Expression
from lora_np.hub.targets import Matcher, Patterns, Targets, close_names, matcher

__all__ = ["Expression", "Matcher", "Patterns", "Targets", "close_names", "matcher"]
