"""Training: forward, loss, backward, step, and what a person wants to see on the way."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from lora_np._checks import Array, finite, whole_number
from lora_np.autograd import Tensor
from lora_np.nn import Adam, freeze, mean_squared_error, replace, start
from lora_np.nn.optim import Optimizer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

T = TypeVar("T", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False)
class History:
    """What was seen on the way.

    Attributes
    ----------
    loss : ndarray of shape (steps,)
        The training loss before each step, on its batch.
    validation_steps : ndarray of int, shape (m,)
        Steps already taken at each validation.
    validation_loss : ndarray of shape (m,)
    seconds : float
        Time spent in training, validation included.
    """

    loss: Array
    validation_steps: Array
    validation_loss: Array
    seconds: float

    def plot(self, ax: Axes | None = None) -> Axes:
        """Training and validation loss against steps, on a logarithmic scale."""
        from lora_np.plots import training_curve

        return training_curve(self.loss, validation=(self.validation_steps, self.validation_loss), ax=ax)


@dataclass(frozen=True, eq=False)
class Fit(Generic[T]):
    """The result of `fit`.

    Attributes
    ----------
    model : tree
        The trained model. What was trained is a Tensor still; `lora_np.freeze` and `lora_np.merge` end that.
    history : History
    interrupted : bool
        Whether Ctrl-C ended the run early; the model and the history are what had been reached.
    """

    model: T
    history: History
    interrupted: bool


def fit(
    model: T,
    x: Array,
    y: Array,
    *,
    optimizer: Optimizer | None = None,
    loss: Callable[[Any, Array], Any] = mean_squared_error,
    steps: int = 300,
    batch_size: int | None = None,
    validation: tuple[Array, Array] | None = None,
    validate_every: int | None = None,
    rng: np.random.Generator | int = 0,
    progress: bool | str = True,
) -> Fit[T]:
    """Train copies of the model's Tensors to lower ``loss(model(x), y)``.

    Parameters
    ----------
    model : tree
        Its Tensors are copied and trained, its ndarrays are shared and stay; the model itself is not changed.
    x, y : ndarray of shape (n, ...)
        The data, one row per example.
    optimizer : SGD, Adam or AdamW, optional
        Default ``Adam(lr=1e-2)``.
    loss : callable
        ``loss(model(x), y)`` as one number.
    steps : int
        Number of steps.
    batch_size : int, optional
        Rows in a step, drawn without replacement until too few are left; by default all, the full batch.
    validation : (ndarray, ndarray), optional
        Held-out x and y.
    validate_every : int, optional
        Steps between validations, by default a twentieth of ``steps``. The first is before any training, and
        the last after it.
    rng : Generator or int
        Randomness for the batches and for dropout.
    progress : bool or str
        Show a progress bar, in a terminal or a notebook; a string is written before it.

    Returns
    -------
    Fit
        The trained model as ``result.model``, the losses as ``result.history``.

    Raises
    ------
    ValueError
        If the data does not fit together, is not finite, or a setting is out of range.
    FloatingPointError
        If the loss is no longer finite; the message names the step.

    Examples
    --------
    >>> from lora_np.nn import Linear
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(50, 3))
    >>> W = np.array([[1.0, -2.0, 3.0]])
    >>> result = fit(Linear(Tensor(np.zeros((1, 3)))), x, x @ W.T, optimizer=Adam(lr=0.1), progress=False)
    >>> result.model.W.data.round(3)
    array([[ 1., -2.,  3.]])
    """
    check_data("x", x, "y", y)
    steps = whole_number("steps", steps)
    n = len(x)
    batch_size = (
        n if batch_size is None else whole_number("batch_size", batch_size, maximum=n, top="rows of x")
    )
    if validation is not None:
        check_data("validation x", validation[0], "validation y", validation[1])
    every = max(1, steps // 20) if validate_every is None else whole_number("validate_every", validate_every)
    rng = np.random.default_rng(rng)

    model = replace(model, Tensor, lambda path, leaf: Tensor(leaf.data))
    run = start(Adam(lr=1e-2) if optimizer is None else optimizer, model)
    losses: list[float] = []
    validated: list[tuple[int, float]] = []

    def validate() -> None:
        if validation is not None and (not validated or validated[-1][0] != len(losses)):
            validated.append((len(losses), float(loss(freeze(model)(validation[0]), validation[1]))))

    interrupted = False
    begin = time.perf_counter()
    bar = progress_bar(steps, progress)
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # told below, with the step
            validate()
            for step, rows in zip(range(steps), batches(n, batch_size, rng), strict=False):
                batch_loss = loss(model(x[rows], rng=rng), y[rows])
                losses.append(batch_loss.item())
                if not np.isfinite(losses[-1]):
                    raise FloatingPointError(
                        f"the loss is {losses[-1]} at step {step}; "
                        f"try a learning rate below {rate_at(run, step):g}"
                    )
                batch_loss.backward()
                run.step()
                bar.update()
                if (step + 1) % every == 0:
                    validate()
                    bar.set_postfix(loss=f"{losses[-1]:.4g}", refresh=False)
            validate()
    except KeyboardInterrupt:
        interrupted = True
    finally:
        bar.close()
    history = History(
        loss=np.array(losses),
        validation_steps=np.array([step for step, _ in validated], dtype=int),
        validation_loss=np.array([value for _, value in validated]),
        seconds=time.perf_counter() - begin,
    )
    return Fit(model, history, interrupted)


def batches(n: int, batch_size: int, rng: np.random.Generator) -> Any:
    """Rows of each step, without end. The full batch is a slice, which copies nothing."""
    while batch_size == n:
        yield slice(None)
    while True:
        order = rng.permutation(n)
        for first in range(0, n - batch_size + 1, batch_size):
            yield order[first : first + batch_size]


def check_data(x_name: str, x: Array, y_name: str, y: Array) -> None:
    for name, array in ((x_name, x), (y_name, y)):
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{name} must be an ndarray, got {type(array).__name__}")
        if array.ndim == 0 or array.size == 0:
            raise ValueError(f"{name} must hold rows of data, got shape {array.shape}")
        finite(name, array)
    if len(x) != len(y):
        raise ValueError(
            f"{x_name} and {y_name} must have as many rows as each other, got {len(x)} and {len(y)}"
        )


def rate_at(run: Any, step: int) -> float:
    lr = run.optimizer.lr
    return float(lr(step) if callable(lr) else lr)


def progress_bar(total: int, wanted: bool | str) -> Any:
    """A tqdm bar for people: in a terminal, or in a notebook."""
    from tqdm.auto import tqdm

    visible = wanted and (sys.stderr.isatty() or "ipykernel" in sys.modules)
    label = wanted if isinstance(wanted, str) else "fit"
    return tqdm(total=total, desc=label, unit="step", disable=not visible, leave=False)
