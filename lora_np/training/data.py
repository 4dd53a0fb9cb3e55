"""The data of a training step: rows of two arrays, or the batches of a stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lora_np.checks import Array, finite, whole_number


@dataclass(eq=False)
class Rows:
    """Rows of x and y: drawn without replacement until too few are left."""

    x: Any
    y: Any
    loss: Callable[[Any, Array], Any]
    batch_size: Any  # None for all rows
    validation: Any
    rng: np.random.Generator
    order: Array = field(default_factory=lambda: np.arange(0))
    position: int = 0

    def __post_init__(self) -> None:
        self.x, self.y = rows("", self.x, self.y)
        if self.validation is not None:
            if not isinstance(self.validation, (tuple, list)) or len(self.validation) != 2:
                raise TypeError(f"validation must be a pair (x, y), got {type(self.validation).__name__}")
            self.validation = rows("validation ", *self.validation)
        n = len(self.x)
        size = n if self.batch_size is None else self.batch_size
        self.batch_size = whole_number("batch_size", size, maximum=n, top="rows of x")
        self.whole = self.batch_size == n  # whether a batch is all of the data

    @property
    def identity(self) -> dict[str, Any]:
        return {"loss": self.loss, "batch size": self.batch_size, "data": (self.x, self.y)}

    def batch(self, step: int) -> tuple[Array, Array]:
        """The rows of the next step."""
        if self.whole:
            return self.x, self.y
        if self.position + self.batch_size > len(self.order):
            self.order, self.position = self.rng.permutation(len(self.x)), 0
        self.position += self.batch_size
        drawn = self.order[self.position - self.batch_size : self.position]
        return self.x[drawn], self.y[drawn]

    def loss_of(self, model: Any, batch: tuple[Array, Array], rng: np.random.Generator | None) -> Any:
        return self.loss(model(batch[0], rng=rng), batch[1])

    def validation_loss(self, model: Any) -> float:
        """Of a frozen model, on the held-out data."""
        return float(self.loss(model(self.validation[0]), self.validation[1]))


class Stream:
    """Batches of any kind: a function of the step, or a sequence that is repeated as often as needed."""

    whole = False
    order = np.arange(0)
    position = 0

    def __init__(self, batches: Any, loss: Callable[..., Any] | None, validation: Any) -> None:
        if isinstance(batches, np.ndarray):
            raise TypeError("fit takes arrays x and y, or batches and a loss; got one array and no y")
        if not (callable(batches) or (isinstance(batches, Sequence) and len(batches))):
            raise TypeError(
                "batches must be a function of the step or a sequence of batches, "
                f"got {type(batches).__name__}: an iterator cannot be resumed; make it a list"
            )
        if loss is None:
            raise TypeError("a stream of batches needs loss=: loss(model, batch, rng=rng), one number")
        if validation is not None and not (isinstance(validation, Sequence) and len(validation)):
            raise TypeError(f"validation must be a sequence of batches, got {type(validation).__name__}")
        self.batches, self.loss, self.validation = batches, loss, validation

    @property
    def identity(self) -> dict[str, Any]:
        # what made the batches, by names that a person knows, is compared before what it led to
        settings = getattr(self.batches, "settings", {})
        return {**settings, "loss": self.loss, "data": self.batches}

    def batch(self, step: int) -> Any:
        return self.batches(step) if callable(self.batches) else self.batches[step % len(self.batches)]

    def loss_of(self, model: Any, batch: Any, rng: np.random.Generator | None) -> Any:
        return self.loss(model, batch, rng=rng)

    def validation_loss(self, model: Any) -> float:
        """Of a frozen model: the mean over the held-out batches."""
        return float(np.mean([float(self.loss(model, batch)) for batch in self.validation or ()]))


def rows(what: str, x: Any, y: Any) -> tuple[Array, Array]:
    """X and y as arrays with as many rows as each other; ``what`` is said before their names."""
    arrays = []
    for name, given in ((f"{what}x", x), (f"{what}y", y)):
        array = given if isinstance(given, np.ndarray) else np.asarray(given)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{name} must hold real numbers, got {type(given).__name__} of {array.dtype}")
        if array.ndim == 0 or array.size == 0:
            raise ValueError(f"{name} must hold rows of data, got shape {array.shape}")
        finite(name, array)
        arrays.append(array)
    x, y = arrays
    if len(x) != len(y):
        raise ValueError(
            f"{what}x and {what}y must have as many rows as each other, got {len(x)} and {len(y)}"
        )
    return x, y
