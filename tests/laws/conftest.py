"""Laws over several modules use the fixtures of each package."""

from tests.adapters.conftest import adapter, checkpoint, make_adapter, make_checkpoint
from tests.grading.conftest import solved
from tests.language.conftest import model, text
from tests.linalg.conftest import example, shape, with_spectrum

__all__ = [
    "adapter",
    "checkpoint",
    "example",
    "make_adapter",
    "make_checkpoint",
    "model",
    "shape",
    "solved",
    "text",
    "with_spectrum",
]
