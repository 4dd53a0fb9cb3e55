"""Training: forward, loss, backward, step, and what a person wants to see on the way."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from lora_np.autograd import Tensor
from lora_np.checks import Array, finite, number, whole_number
from lora_np.lora import LoRALinear
from lora_np.nn import SGD, Adam, Optimizer, freeze, mean_squared_error, replace, start, trainable
from lora_np.nn.schedules import rate_at
from lora_np.training.checkpoint import Batches, Checkpoint, Progress, identity_of
from lora_np.training.theory import stable_rate
from lora_np.work import without_monitor

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
        Time spent in training, validation included; in a run that was resumed, since then.
    optimum : float or None
        The loss that cannot be undercut, where `fit` was told it.
    """

    loss: Array
    validation_steps: Array
    validation_loss: Array
    seconds: float
    optimum: float | None = None

    @property
    def gap(self) -> Array:
        """``loss / optimum - 1``: the distance to the optimum, as a share of it."""
        if self.optimum is None:
            raise ValueError("the gap needs the optimum: fit(..., optimum=training.optimum(model, x, y))")
        return self.loss / self.optimum - 1

    def plot(self, ax: Axes | None = None) -> Axes:
        """The gap to the optimum where it is known, else training and validation loss; on a log scale."""
        from lora_np.plots import gap_curve, training_curve

        if self.optimum is not None:
            return gap_curve(self.gap, ax=ax)
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
    clip: float | None = None,
    validation: tuple[Array, Array] | None = None,
    validate_every: int | None = None,
    optimum: float | None = None,
    within: float | None = None,
    watch: Callable[[int, T], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
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
    optimizer : Optimizer, optional
        `SGD`, `Adam`, `AdamW`, `Groups` of them, ...; default ``Adam(lr=1e-2)``.
    loss : callable
        ``loss(model(x), y)`` as one number.
    steps : int
        Number of steps.
    batch_size : int, optional
        Rows in a step, drawn without replacement until too few are left; by default all, the full batch.
    clip : float, optional
        Scale a gradient down that is longer than this, over all leaves together.
    validation : (ndarray, ndarray), optional
        Held-out x and y.
    validate_every : int, optional
        Steps between validations, by default a twentieth of ``steps``. The first is before any training, and
        the last after it.
    optimum : float, optional
        The best loss that can be reached, see `lora_np.training.optimum`. The history then plots the gap.
    within : float, optional
        Stop as soon as ``loss <= (1 + within) optimum``. For the full batch only, since the loss of a smaller
        batch says little about the distance.
    watch : callable, optional
        ``watch(step, model)`` is called in every step when the gradients are there and nothing has moved yet.
    checkpoint : path, optional
        A file that is written every ``checkpoint_every`` steps (by default a twentieth of ``steps``) and at
        the end; it is always whole. It may be deleted when the run is over.
    resume : bool
        Continue from ``checkpoint`` if it is there. Everything then comes out bit for bit as without the
        interruption, provided the same call is made.
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
        If the data does not fit together, is not finite, or a setting is out of range; a `CheckpointError` if
        the checkpoint is damaged or of another run.
    FileExistsError
        If there is a checkpoint already and ``resume`` is not asked for.
    FloatingPointError
        If the loss is no longer finite. The message names the step and the parameter, and if training has
        diverged, a learning rate that is too large, with the bound where one is known.

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
        if not isinstance(validation, (tuple, list)) or len(validation) != 2:
            raise TypeError(f"validation must be a pair (x, y), got {type(validation).__name__}")
        check_data("validation x", validation[0], "validation y", validation[1])
    every = max(1, steps // 20) if validate_every is None else whole_number("validate_every", validate_every)
    goal = check_goal(optimum, within, full_batch=batch_size == n)
    rng = np.random.default_rng(rng)
    optimizer = Adam(lr=1e-2) if optimizer is None else optimizer
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be an Optimizer such as Adam(lr=1e-2), got {optimizer!r}")

    given, model = model, replace(model, Tensor, lambda path, leaf: Tensor(leaf.data))
    run = start(optimizer, model, clip=clip)
    rows = Batches(n, batch_size, rng)
    progressed = Progress(run, rows, rng)
    losses = progressed.loss
    store = None
    if checkpoint is not None:
        settings = {"optimizer": optimizer, "clip": clip, "loss": loss, "batch size": batch_size}
        identity = identity_of(model, x, y, rng, settings)
        save_every = max(1, steps // 20) if checkpoint_every is None else checkpoint_every
        store = Checkpoint(Path(checkpoint), identity, save_every)
        store.begin(progressed, resume=resume)

    def validate() -> None:
        if validation is not None and run.steps not in [step for step, _ in progressed.validated[-1:]]:
            error = float(loss(freeze(model)(validation[0]), validation[1]))
            progressed.validated.append((run.steps, error))

    loss_of: Callable[[Any, Array, Array], Any] = lambda model, x, y: loss(model(x, rng=rng), y)
    plain = isinstance(model, LoRALinear) and model.dropout == 0 and isinstance(model.base.W, np.ndarray)
    if plain and loss is mean_squared_error:
        loss_of = LoRALinear.squared_error  # the same, in one step

    interrupted = False
    begin = time.perf_counter()
    bar = progress_bar(steps, run.steps, progress)
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # told below, with the step
            if run.steps == 0:
                validate()
            while run.steps < steps:
                batch_loss = loss_of(model, *rows.draw(x, y))
                now = batch_loss.item()
                losses.append(now)
                if not math.isfinite(now):
                    raise FloatingPointError(diagnosis(progressed, model, given, x, loss))
                if now <= goal:
                    break
                batch_loss.backward()
                if watch is not None:
                    watch(run.steps, model)
                run.step()
                bar.update()
                if run.steps % every == 0:
                    validate()
                    if not bar.disable:
                        bar.set_postfix(loss=f"{now:.4g}", refresh=False)
                if store is not None and (run.steps % store.every == 0 or run.steps == steps):
                    store.save(progressed)
            validate()
    except KeyboardInterrupt:
        interrupted = True
    finally:
        bar.close()
    history = History(
        loss=np.array(losses),
        validation_steps=np.array([step for step, _ in progressed.validated], dtype=int),
        validation_loss=np.array([error for _, error in progressed.validated]),
        seconds=time.perf_counter() - begin,
        optimum=optimum,
    )
    return Fit(model, history, interrupted)


def uninterrupted(result: Fit[T]) -> Fit[T]:
    """The result of a run that is of no use in part: Ctrl-C goes on to whoever started it."""
    if result.interrupted:
        raise KeyboardInterrupt
    return result


def check_goal(optimum: float | None, within: float | None, *, full_batch: bool) -> float:
    """The loss at which to stop; below every loss where there is no such wish."""
    if optimum is not None:
        number("optimum", optimum, minimum=0, open_minimum=within is not None)
    if within is None:
        return -math.inf
    if optimum is None:
        raise ValueError("within needs the optimum: pass optimum=training.optimum(model, x, y)")
    if not full_batch:
        raise ValueError("within is for the full batch: the loss of a smaller one may lie below the optimum")
    return (1 + number("within", within, minimum=0)) * optimum


def diagnosis(progressed: Progress, model: Any, given: Any, x: Array, loss: Any) -> str:
    """What can be said about a loss that is not finite, and what to do."""
    run, losses = progressed.run, progressed.loss
    message = f"the loss is {losses[-1]} at step {run.steps}"
    broken = [path for path, leaf in trainable(model) if not np.isfinite(leaf.data).all()]
    if broken:
        message += f", where the parameter {broken[0]} is no longer finite"
    else:
        path, largest = max(
            ((path, np.abs(leaf.data).max()) for path, leaf in trainable(model)), key=lambda item: item[1]
        )
        message += f", where all parameters are finite yet (the largest entry is {largest:.3g}, in {path})"
    if run.steps == 0:
        return f"{message}; nothing has been trained yet: look at the model and the scale of the data"
    if max(losses[:-1]) > 2 * losses[0]:
        message += f"; training diverged, from {losses[0]:.3g} to {losses[-2]:.3g}"
    rate = max(rate_at(bank.optimizer.lr, run.steps) for bank in run.banks)
    message += f"; try a learning rate below {rate:g}"
    if isinstance(run.optimizer, SGD) and loss is mean_squared_error and progressed.rows.batch_size == len(x):
        try:
            bound = stable_rate(given, x, momentum=run.optimizer.momentum)
        except TypeError:  # no bound is known for this model
            return message
        message += f": gradient descent on this layer is stable up to {bound:.3g}"
    return message


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


def progress_bar(total: int, done: int, wanted: bool | str) -> Any:
    """A tqdm bar for people: in a terminal, or in a notebook."""
    visible = wanted and (sys.stderr.isatty() or "ipykernel" in sys.modules)
    if visible:
        from tqdm.auto import tqdm
    else:
        from tqdm import tqdm  # the plain one asks for no widgets
    label = wanted if isinstance(wanted, str) else "fit"
    bar = without_monitor(tqdm)
    return bar(total=total, initial=done, desc=label, unit="step", disable=not visible, leave=False)
