"""The small model and the text of the language's tests, for its commands too."""

from tests.language.conftest import model, text

__all__ = ["model", "text"]
