"""Train a model: forward pass, loss, backward pass, step, validation and progress."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from lora_np.autograd import Tensor
from lora_np.checks import (
    Array,
    Rng,
    Seed,
    StrPath,
    configured,
    finite,
    generator,
    number,
    numbers,
    overflow_allowed,
    refuse,
    whole_number,
)
from lora_np.nn import (
    Adam,
    Optimizer,
    cosine_schedule,
    freeze,
    mean_squared_error,
    rate_at,
    replace,
    trainable,
    training_run,
)
from lora_np.settings import setting
from lora_np.work import progress_bar

if TYPE_CHECKING:
    from tqdm import tqdm

    from lora_np.training.checkpoint import Checkpoint

T = TypeVar("T", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False)
class History:
    """The losses and samples of a training run.

    Attributes
    ----------
    loss : ndarray of shape (steps,)
        The training loss of each step, on its batch, before the update.
    validation_steps : ndarray of int, shape (m,)
        The number of steps before each validation.
    validation_loss : ndarray of shape (m,)
        The loss at each validation.
    seconds : float
        The duration of training and validation; in a resumed run, since it was resumed.
    samples : tuple of (int, str)
        Each text that ``sample`` returned, with the number of steps before it.
    """

    loss: Array
    validation_steps: Array
    validation_loss: Array
    seconds: float
    samples: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, eq=False)
class Fit(Generic[T]):
    """The result of `fit`.

    Attributes
    ----------
    model : tree
        The trained model. Its trained arrays are still Tensors, which `lora_np.freeze` and
        `lora_np.merge` replace by arrays.
    history : History
        The losses.
    interrupted : bool
        Whether Ctrl-C ended the run early; model and history are then as of the last step.
    """

    model: T
    history: History
    interrupted: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class RunSettings:
    """The settings that all training runs share.

    Parameters
    ----------
    **settings
        The settings of `fit` that do not depend on the kind of data.

    Examples
    --------
    >>> RunSettings(accumulate=4).clip is None
    True
    """

    batch_size: int | None = setting(None, "Rows in a batch")
    accumulate: int = setting(1, "Batches whose gradients are averaged in one step")
    clip: float | None = setting(None, "Largest norm of the gradient")
    validate_every: int | None = setting(None, "Steps between validations")
    patience: int | None = setting(
        None, "Stop after this many validations without a new lowest loss, and keep that model"
    )
    watch: Callable[[int, Any], object] | None = None
    sample: Callable[[int, Any], str | None] | None = None
    checkpoint: StrPath | None = None
    resume: bool = False
    identity: str | None = None
    rng: Seed = 0
    progress: bool | str = True

    def __post_init__(self) -> None:
        if self.resume and self.checkpoint is None:
            refuse(
                "resume=True (--resume) needs a file to continue from: checkpoint= (--checkpoint)"
            )

    def of_run(self, name: str, **changes: Any) -> dict[str, Any]:
        """Return keyword arguments for `fit` on batches, with a progress bar called ``name``."""
        own = {field.name: getattr(self, field.name) for field in fields(RunSettings)}
        own["progress"] = name if self.progress is True else self.progress
        return own | {"batch_size": None} | changes


@dataclass(frozen=True, eq=False)
class FitSettings(RunSettings):
    """The settings of `fit`, including the targets y."""

    y: npt.ArrayLike | None = None
    _: KW_ONLY
    optimizer: Optimizer | None = None
    loss: Callable[..., Any] | None = None
    validation: Any = None
    goal: float | None = None
    steps: int = setting(300, "Number of training steps")


@configured(
    FitSettings,
    lr="optimizer=Adam(lr=...)",
    learning_rate="optimizer=Adam(lr=...)",
    epochs="steps=",
)
def fit(model: T, x: Any, settings: FitSettings) -> Fit[T]:
    """Train a model by minimising a loss, and return a trained copy.

    Parameters
    ----------
    model : tree
        The model, which is not changed: its Tensors are copied and trained, its ndarrays are shared
        and stay fixed.
    x : array_like of shape (n, ...), or batches
        The data, one row per example; or, without ``y``, batches of any kind: a function of the
        step (0, 1, ...) that returns a batch, or a sequence of batches, which is repeated.
    y : array_like of shape (n, ...), optional
        The targets, if ``x`` is an array.
    optimizer : Optimizer, optional
        The optimizer: `SGD`, `Adam`, `AdamW`, `Groups` of them, ..., with its own learning rate or
        schedule. By default `Adam`, whose rate decays along half a cosine from
        `lora_np.lora.learning_rate` (1e-2 without a LoRA) to zero at the end of ``steps``.
    loss : callable, optional
        The loss ``loss(model(x), y)``, one number; by default `mean_squared_error`. For batches it
        is required, and called as ``loss(model, batch, rng=rng)``, or in validation as
        ``loss(model, batch)``.
    validation : (array_like, array_like) or sequence of batches, optional
        Held-out x and y; or held-out batches, over which the loss is averaged.
    goal : float, optional
        Stop when the loss is at most this, for example 1.001 times `lora_np.training.optimum`. It
        needs the full batch, because a mini-batch loss can fall below the optimum.
    steps : int
        Number of training steps. The default optimizer decays over all of them, even if ``goal`` or
        ``patience`` ends the run earlier.
    batch_size : int, optional
        Rows in a batch, drawn without replacement until too few are left; by default all rows.
    accumulate : int
        Batches whose gradients are averaged in one step, in the memory of one batch.
    clip : float, optional
        Largest norm of the gradient of all leaves together; a longer gradient is scaled down.
    validate_every : int, optional
        Steps between validations, by default a twentieth of ``steps``. The first is before any
        training, and the last after it.
    patience : int, optional
        Stop after this many validations without a new lowest loss, and keep that model.
    watch : callable, optional
        ``watch(step, model)`` is called in every step after the gradients are computed and before
        the update.
    sample : callable, optional
        ``sample(step, model)`` is called at each validation, with the frozen model; text that it
        returns is printed above the progress bar, and stored in the history.
    checkpoint : path, optional
        A file to save the run in, at every twentieth of ``steps`` and after the last. The file is
        always complete, and may be deleted when the run is over.
    resume : bool
        Continue from ``checkpoint`` if it exists. With the same call, the result is the same bit
        for bit as without the interruption. To train for more ``steps`` than at first, pass an
        optimizer, because the default one depends on the number of steps.
    identity : str, optional
        A name of the run. A checkpoint then belongs to runs of this name, instead of runs that
        compute with the same data, model and settings.
    rng : Generator or int
        Random seed of the batches and of dropout.
    progress : bool or str
        Show a progress bar, in a terminal or a notebook; a string is its label.

    Returns
    -------
    Fit
        The trained model in ``model``, and the losses in ``history``.

    Raises
    ------
    ValueError
        If the data do not match or are not finite, a setting is out of range, or the checkpoint is
        damaged or belongs to another run.
    TypeError
        If the data is neither two arrays nor batches with a loss, the optimizer is not an
        `Optimizer`, or a checkpoint is requested and something that the run depends on could not be
        recognised later.
    FileExistsError
        If a checkpoint already exists and ``resume`` is False.
    FloatingPointError
        If the loss is no longer finite. The message names the step and the parameter, and if
        training has diverged, a learning rate that is too large.

    See Also
    --------
    sweep : Train at many combinations of settings.
    lora_np.nn.training_run : Take single steps.

    Examples
    --------
    >>> from lora_np.nn import Linear
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(50, 3))
    >>> W = np.array([[1.0, -2.0, 3.0]])
    >>> result = fit(Linear(Tensor(np.zeros((1, 3)))), x, x @ W.T, optimizer=Adam(lr=0.1),
    ...     progress=False)
    >>> result.model.W.data.round(3)
    array([[ 1., -2.,  3.]])

    Train on batches that a function returns for each step:

    >>> def batch(step):
    ...     x = np.random.default_rng(step).normal(size=(10, 3))
    ...     return x, x @ W.T
    >>> def loss(model, batch, rng=None):
    ...     return mean_squared_error(model(batch[0], rng=rng), batch[1])
    >>> result = fit(result.model, batch, loss=loss, steps=100, validation=[batch(999)],
    ...     progress=False)
    >>> result.model.W.data.round(3)
    array([[ 1., -2.,  3.]])
    """
    training, store = Training(model, x, settings), None
    if settings.checkpoint is not None:
        from lora_np.training.checkpoint import Checkpoint

        store = Checkpoint(settings.checkpoint, training)
    begin = time.perf_counter()
    # with batches of text, the progress bar counts tokens
    tokens = getattr(x, "tokens", None)
    unit = {"unit": "token", "scale": tokens} if tokens else {"unit": "step"}
    done = training.run.steps
    bar = progress_bar(settings.steps, settings.progress, done=done, label="fit", **unit)
    try:
        with bar, overflow_allowed():  # no warnings: `go_on` raises an error that names the step
            training.go_on(bar, store)
        interrupted = False
    except KeyboardInterrupt:
        interrupted = True
    steps, errors = np.array(training.validated).reshape(-1, 2).T
    seconds = time.perf_counter() - begin
    history = History(
        np.array(training.loss), steps.astype(int), errors, seconds, (*training.samples,)
    )
    return Fit(training.model, history, interrupted)


def decaying(peak: float, steps: int) -> Adam:
    """Return the default optimizer of a run, which is Adam with a cosine decay.

    It has no warm-up: on digits, ten steps of warm-up raised the loss by 0.04 to 0.21 nats.
    """
    return Adam(lr=cosine_schedule(peak, steps=steps))


class Training:
    """The state of a run of `fit`."""

    def __init__(self, model: Any, x: Any, settings: FitSettings) -> None:
        s, self.settings, self.rng = settings, settings, generator(settings.rng)
        self.data = Stream(x, s) if s.y is None else Rows(x, s, self.rng)
        self.twentieth = max(1, whole_number("steps", s.steps) // 20)
        every = self.twentieth if s.validate_every is None else s.validate_every
        self.every = whole_number("validate_every", every)
        optimizer = s.optimizer
        if optimizer is None:
            from lora_np.lora import learning_rate

            optimizer = decaying(learning_rate(model), s.steps)
        whole_number("accumulate", s.accumulate)
        if s.goal is not None and not (self.data.whole and s.accumulate == 1):
            raise ValueError(
                "goal needs the full batch: a mini-batch loss can fall below the optimum"
            )
        self.goal = -math.inf if s.goal is None else number("goal", s.goal)
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"optimizer must be an Optimizer such as Adam(lr=1e-2), got {optimizer!r}"
            )
        self.model = replace(model, Tensor, lambda path, leaf: Tensor(leaf.data))
        self.run = training_run(optimizer, self.model, clip=s.clip)
        if s.patience is not None:
            if self.data.validation is None:
                raise ValueError("patience needs held-out data: pass validation=")
            whole_number("patience", s.patience)
        self.loss: list[float] = []
        self.validated: list[tuple[int, float]] = []
        self.seen = -1  # the step of the last validation or sample
        self.samples: list[tuple[int, str]] = []
        # the values of each bank at the lowest held-out loss; empty without patience
        self.lowest: list[Array] = []

    @property
    def waited(self) -> int:
        """The number of validations since the lowest validation loss."""
        errors = [error for _, error in self.validated]
        return len(errors) - 1 - int(np.nanargmin([*errors, math.inf]))

    def go_on(self, bar: tqdm, store: Checkpoint | None) -> None:
        """Take the remaining steps, unless ``goal`` or ``patience`` ends the run earlier.

        With ``patience``, restore the model with the lowest validation loss.
        """
        s = self.settings
        while (step := self.run.steps) < s.steps:
            if step % self.every == 0:
                self.validate(bar)
                if s.patience is not None and self.waited >= s.patience:
                    break
            loss = self.gradients()
            if not math.isfinite(loss):
                raise FloatingPointError(diagnosis(self))
            if loss <= self.goal:
                break
            if s.watch is not None:
                s.watch(step, self.model)
            self.run.step()
            bar.update()
            if store is not None and ((step + 1) % self.twentieth == 0 or step + 1 == s.steps):
                store.save()
        self.validate(bar)
        for bank, values in zip(self.run.banks, self.lowest, strict=False):
            bank.values[...] = values

    def gradients(self) -> float:
        """Compute the gradients of the next step, and return its loss.

        If the loss is not finite or reaches the goal, the gradients are not computed.
        """
        parts = self.settings.accumulate
        total, first = 0.0, self.run.steps * parts
        for i in range(parts):
            loss = self.data.loss_of(self.model, self.data.batch(first + i), self.rng)
            if parts > 1:
                loss = loss / parts
            total += loss.item()
            if not self.goal < total < math.inf:
                break
            loss.backward()
        self.loss.append(total)
        return total

    def validate(self, bar: tqdm) -> None:
        """Validate and sample the model, unless it was already validated at this step."""
        sample, step = self.settings.sample, self.run.steps
        if step == self.seen or (self.data.validation is None and sample is None):
            return
        self.seen = step
        frozen = freeze(self.model)
        if self.data.validation is not None:
            error = self.data.validation_loss(frozen)
            self.validated.append((step, error))
            if self.settings.patience is not None and self.waited == 0:
                self.lowest = [bank.values.copy() for bank in self.run.banks]
            bar.set_postfix(validation=f"{error:.4g}", refresh=False)
        text = None if sample is None else sample(step, frozen)
        if text:
            self.samples.append((step, text))
            bar.write(text, file=sys.stderr)


def uninterrupted(result: Fit[T]) -> Fit[T]:
    """Return the result of a run, or raise KeyboardInterrupt if Ctrl-C ended the run.

    Parameters
    ----------
    result : Fit
        The result of `fit`.

    Returns
    -------
    Fit
        The same result.

    Raises
    ------
    KeyboardInterrupt
        If the run was interrupted.

    Examples
    --------
    >>> from lora_np.nn import Linear
    >>> x = np.eye(2)
    >>> result = fit(Linear(Tensor(np.zeros((2, 2)))), x, x, steps=3, progress=False)
    >>> uninterrupted(result) is result
    True
    """
    if result.interrupted:
        raise KeyboardInterrupt
    return result


def diagnosis(training: Training) -> str:
    """Return an error message for a loss that is not finite, with the likely cause and advice."""
    run, losses = training.run, training.loss
    message = f"the loss is {losses[-1]} at step {run.steps}"
    largest = {path: float(np.abs(leaf.data).max()) for path, leaf in trainable(training.model)}
    if broken := [path for path, size in largest.items() if not math.isfinite(size)]:
        message += f", where the parameter {broken[0]} is no longer finite"
    else:
        size, path = max((size, path) for path, size in largest.items())
        message += (
            f", where all parameters are finite yet (the largest entry is {size:.3g}, in {path})"
        )
    if run.steps == 0:
        return (
            f"{message}; nothing has been trained yet: look at the model and the scale of the data"
        )
    if max(losses[:-1]) > 2 * losses[0]:
        message += f"; training diverged, from {losses[0]:.3g} to {losses[-2]:.3g}"
    rates = [rate_at(bank.optimizer.lr, step) for bank in run.banks for step in range(run.steps)]
    return f"{message}; try a learning rate below {max(rates):g}"


class Stream:
    """Batches of any kind, from a function of the step or from a sequence that is repeated."""

    whole = False  # whether a batch contains all data
    order, position = np.arange(0), 0

    def __init__(self, batches: Any, settings: FitSettings) -> None:
        loss, validation = settings.loss, settings.validation
        if isinstance(batches, np.ndarray):
            raise TypeError(
                "fit takes arrays x and y, or batches and a loss; got one array and no y"
            )
        if not (callable(batches) or (isinstance(batches, Sequence) and len(batches))):
            raise TypeError(
                "batches must be a function of the step or a sequence of batches, "
                f"got {type(batches).__name__}: an iterator cannot be resumed; make it a list"
            )
        if loss is None:
            raise TypeError(
                "a stream of batches needs loss=: loss(model, batch, rng=rng), one number"
            )
        if settings.batch_size is not None:
            raise TypeError("batch_size is for arrays x and y: batches have their own size")
        if validation is not None and not (isinstance(validation, Sequence) and len(validation)):
            raise TypeError(
                f"validation must be a sequence of batches, got {type(validation).__name__}"
            )
        self.batches, self.loss, self.validation = batches, loss, validation

    @property
    def identity(self) -> dict[str, Any]:
        # settings come first, so that an error about a mismatch names a setting if one differs
        settings = getattr(self.batches, "settings", {})
        return {**settings, "loss": self.loss, "data": self.batches}

    def batch(self, step: int) -> Any:
        return (
            self.batches(step) if callable(self.batches) else self.batches[step % len(self.batches)]
        )

    def loss_of(self, model: Any, batch: Any, rng: Rng) -> Any:
        return self.loss(model, batch, rng=rng)

    def validation_loss(self, model: Any) -> float:
        """Average the loss of a frozen model over the held-out batches."""
        losses = [self.loss_of(model, batch, None) for batch in self.validation or ()]
        return float(np.mean(losses))


class Rows(Stream):
    """Batches of rows of x and y, drawn without replacement, reshuffled when too few are left."""

    def __init__(self, x: npt.ArrayLike, settings: FitSettings, rng: np.random.Generator) -> None:
        self.x, self.y = data_rows("", x, settings.y)
        self.loss, self.rng = settings.loss or mean_squared_error, rng
        validation = settings.validation
        if validation is not None:
            if not isinstance(validation, (tuple, list)) or len(validation) != 2:
                raise TypeError(
                    f"validation must be a pair (x, y), got {type(validation).__name__}"
                )
            validation = [data_rows("validation ", *validation)]
        self.validation = validation
        n = len(self.x)
        size = n if settings.batch_size is None else settings.batch_size
        self.batch_size = whole_number("batch_size", size, maximum=n, top="rows of x")
        self.whole = self.batch_size == n

    @property
    def identity(self) -> dict[str, Any]:
        return {"loss": self.loss, "batch size": self.batch_size, "data": (self.x, self.y)}

    def batch(self, step: int) -> tuple[Array, Array]:
        """Return the rows of x and y in the next batch."""
        if self.whole:
            return self.x, self.y
        if self.position + self.batch_size > len(self.order):
            self.order, self.position = self.rng.permutation(len(self.x)), 0
        self.position += self.batch_size
        drawn = self.order[self.position - self.batch_size : self.position]
        return self.x[drawn], self.y[drawn]

    def loss_of(self, model: Any, batch: tuple[Array, Array], rng: Rng) -> Any:
        return self.loss(model(batch[0], rng=rng), batch[1])


def data_rows(what: str, x: npt.ArrayLike, y: npt.ArrayLike | None) -> tuple[Array, Array]:
    """Convert x and y to finite arrays of equal length; ``what`` precedes their names in errors."""
    arrays = []
    for name, given in ((f"{what}x", x), (f"{what}y", y)):
        array = numbers(name, given)
        if array.ndim == 0 or array.size == 0:
            raise ValueError(f"{name} must hold rows of data, got shape {array.shape}")
        finite(name, array)
        arrays.append(array)
    x, y = arrays
    if len(x) != len(y):
        raise ValueError(
            f"{what}x and {what}y must have equally many rows, got {len(x)} and {len(y)}"
        )
    return x, y
