"""Train at all combinations of ranks, alphas, learning rates, variants and random seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from lora_np.autograd import Tensor, value
from lora_np.checks import Array, choice, matrix, number, whole_number
from lora_np.linalg import optimal_losses
from lora_np.lora import ALPHA, VARIANTS, LoRALinear, inject, learning_rate
from lora_np.nn import Linear, Optimizer, freeze, mean_squared_error, trainable
from lora_np.table import Shown, Table
from lora_np.training.fitting import decaying, fit, uninterrupted
from lora_np.work import one_thread, progress_bar

SETTINGS = ("variant", "rank", "alpha", "lr", "rng")
COLUMNS = (*SETTINGS, "trainable", "loss", "validation_loss", "optimum", "diverged_at")
# variants whose initialisation needs neither quantisation nor gradients
SWEPT = [name for name in VARIANTS if name not in ("loftq", "lora-ga", "lora-one")]


@dataclass(eq=False)
class Problem:
    """The base model, the data and the loss of a sweep.

    Parameters
    ----------
    model : tree
        The base model without adapters, because each run injects its own.
    x : ndarray of shape (n, ...)
        Inputs.
    y : ndarray of shape (n, ...)
        Targets.
    validation : (ndarray, ndarray), optional
        Held-out x and y.
    loss : callable
        The loss: a function in a module, not a lambda, because worker processes import it.

    Examples
    --------
    >>> x = np.eye(3)
    >>> problem = Problem(Linear(np.zeros((3, 3))), x, np.diag([3.0, 2.0, 1.0]))
    >>> [round(problem.optimum(rank) * 9, 6) for rank in (1, 2, 3)]  # what is cut off, squared
    [5.0, 1.0, 0.0]
    """

    model: Any
    x: Array
    y: Array
    validation: tuple[Array, Array] | None = None
    loss: Callable[[Any, Array], Any] = mean_squared_error

    def optimum(self, rank: int) -> float | None:
        """Return the lowest training loss that a rank can reach; None if it has no closed form."""
        if self.loss is not mean_squared_error or not isinstance(self.model, Linear):
            return None
        rng = np.random.default_rng(0)
        return optimum(
            inject(self.model, rank=min(rank, *self.model.W.shape), rng=rng), self.x, self.y
        )


@dataclass(frozen=True, eq=False, repr=False)
class Sweep(Shown):
    """The result of `sweep`: one record for each run, in the order of the settings.

    Attributes
    ----------
    records : list of dict
        The runs, with the keys variant, rank, alpha, lr, rng, trainable (the number of trainable
        parameters), loss (on all training data after the last step), validation_loss, optimum (the
        best training loss of the rank; None if it is unknown, or the variant can go below it) and
        diverged_at (the step whose loss was not finite, or None).
    """

    records: list[dict[str, Any]]

    @property
    def table(self) -> Table:
        """A table with a row of settings, losses and optimum for each run."""
        return Table(COLUMNS, [[record[c] for c in COLUMNS] for record in self.records])

    def best(self, error: str = "loss") -> list[dict[str, Any]]:
        """Return the runs of each variant and rank at the alpha and learning rate of lowest error.

        Errors are compared by their median over random seeds.
        """
        groups: dict[tuple[str, int], dict[tuple[float, float], list[dict[str, Any]]]] = {}
        for record in self.records:
            settings = groups.setdefault((record["variant"], record["rank"]), {})
            settings.setdefault((record["alpha"], record["lr"]), []).append(record)

        def middle(runs: list[dict[str, Any]]) -> float:
            errors = np.array([run[error] for run in runs], float)  # None becomes NaN
            return float(np.median(np.where(np.isnan(errors), np.inf, errors)))

        return [run for settings in groups.values() for run in min(settings.values(), key=middle)]


def sweep(
    problem: Problem,
    *,
    ranks: Sequence[int],
    alphas: Sequence[float] = (ALPHA,),
    lr: Sequence[float | None] = (None,),
    rngs: Sequence[int] = (0,),
    variants: Sequence[str] = ("lora",),
    optimizer: Callable[[float], Optimizer] | None = None,
    steps: int = 300,
    batch_size: int | None = None,
    jobs: int | None = None,
    progress: bool = True,
) -> Sweep:
    """Adapt and train ``problem`` at every combination of settings.

    Parameters
    ----------
    problem : Problem
        The base model, the data and the loss.
    ranks : sequence of int
        Ranks of the adapters.
    alphas : sequence of float
        Values of alpha: each update is scaled by ``alpha / r``.
    lr : sequence of float or None
        Learning rates; None takes `lora_np.lora.learning_rate`. By default each is the peak from
        which the rate decays, as in `fit`.
    rngs : sequence of int
        Random seeds of the initialisation, the batches and dropout.
    variants : sequence of str
        Keys of `lora_np.lora.VARIANTS`, except "loftq", "lora-ga" and "lora-one".
    optimizer : callable, optional
        ``optimizer(lr)`` returns the optimizer; the class `Adam`, for example, keeps the rate
        constant. By default `Adam` with the decay of `fit`: to train at the best rate that a sweep
        found, pass ``Adam(lr=cosine_schedule(rate, steps=steps))`` to `fit`.
    steps : int
        The number of steps of each run.
    batch_size : int, optional
        The rows in a batch; by default all rows.
    jobs : int, optional
        The number of worker processes; -1 for all cores. By default the setting of
        ``joblib.parallel_config``, or else one.
    progress : bool
        Show a progress bar, in a terminal or a notebook.

    Returns
    -------
    Sweep
        The records of all runs. They are the same, bit for bit, for any number of jobs, because
        each run uses one thread.

    Raises
    ------
    TypeError
        If a setting has the wrong type.
    ValueError
        If a setting is out of range or unknown, or a sequence of settings is empty.

    Notes
    -----
    To run on a Dask cluster, start a client and name the backend; the call is the same::

        with joblib.parallel_config("dask"):
            sweep(problem, ranks=[1, 2, 4, 8])

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x, D = rng.normal(size=(60, 4)), rng.normal(size=(3, 4))
    >>> result = sweep(Problem(Linear(np.zeros((3, 4))), x, x @ D.T), ranks=[1, 2], steps=5)
    >>> [(run["rank"], run["trainable"], run["loss"] > run["optimum"]) for run in result.records]
    [(1, 7, True), (2, 14, True)]
    """
    from joblib import Parallel, delayed

    points = grid(variants, ranks, alphas, lr, rngs)
    options = {"steps": whole_number("steps", steps), "batch_size": batch_size}
    workers = Parallel(n_jobs=jobs, return_as="generator")
    records = []
    with progress_bar(len(points), progress, label="sweep", unit="run") as bar:
        for record in workers(delayed(run)(problem, point, optimizer, options) for point in points):
            records.append(record)
            bar.update()
    return Sweep(records)


def grid(
    variants: Sequence[str],
    ranks: Sequence[int],
    alphas: Sequence[float],
    lr: Sequence[float | None],
    rngs: Sequence[int],
) -> list[dict[str, Any]]:
    """Validate the settings, and return every combination of them, without duplicates."""
    if isinstance(variants, str):
        raise TypeError(f"variants must be a list of names, got {variants!r}: [{variants!r}]")
    given = {"variants": variants, "ranks": ranks, "alphas": alphas, "lr": lr, "rngs": rngs}
    for name, values in given.items():
        if not len(values):
            raise ValueError(f"{name} must name at least one value, got none")
    points: dict[tuple[Any, ...], None] = {}
    for variant, rank, alpha, rate, rng in product(variants, ranks, alphas, lr, rngs):
        choice("variant", variant, SWEPT)
        rank = whole_number("rank", rank)
        alpha = number("alpha", alpha, open_minimum=True)
        if rate is not None:
            rate = number("learning rate", rate, open_minimum=True)
        points[variant, rank, alpha, rate, whole_number("rng", rng, minimum=0)] = None
    return [dict(zip(SETTINGS, point, strict=True)) for point in points]


def run(
    problem: Problem,
    settings: Mapping[str, Any],
    optimizer: Callable[[float], Optimizer] | None,
    options: Any,
) -> dict[str, Any]:
    """Train one run and return its record; use one thread, so that the result is reproducible."""
    variant, rank, alpha, rate, seed = settings.values()
    rng = np.random.default_rng(seed)
    with one_thread():
        model = inject(problem.model, rank=rank, alpha=alpha, variant=variant, rng=rng)
        rate = learning_rate(model, variant) if rate is None else rate
        record = {**dict.fromkeys(COLUMNS), **settings, "lr": rate}
        record["trainable"] = sum(leaf.size for _, leaf in trainable(model))
        if variant in ("lora", "rslora", "lora+"):
            # the optimum is known only for variants that start at W0 and train both A and B
            record["optimum"] = problem.optimum(rank)
        chosen = decaying(rate, options["steps"]) if optimizer is None else optimizer(rate)
        taken: list[int] = []
        try:
            fitted = uninterrupted(fit(
                model, problem.x, problem.y, optimizer=VARIANTS[variant].optimizer(chosen),
                loss=problem.loss, watch=lambda step, model: taken.append(step), rng=rng,
                progress=False,
                **options,
            ))  # fmt: skip
        except FloatingPointError:
            record["diverged_at"] = len(taken)
            return record
        trained = freeze(fitted.model)
        record["loss"] = float(problem.loss(trained(problem.x), problem.y))
        if problem.validation is not None:
            x, y = problem.validation
            record["validation_loss"] = float(problem.loss(trained(x), y))
    return record


def optimum(model: Any, x: Array, y: Array) -> float:
    """Compute the smallest mean squared error that training the model can reach.

    For LoRA, this is the loss of reduced-rank regression. If A is frozen (LoRA-FA), or all of W is
    trained, it is the loss of least squares.

    Parameters
    ----------
    model : Linear or LoRALinear
        The model. Its Tensors are optimised, its ndarrays are fixed.
    x : ndarray of shape (n, k)
        Inputs.
    y : ndarray of shape (n, d)
        Targets.

    Returns
    -------
    float
        The loss without dropout, which would change it.

    Raises
    ------
    TypeError
        If the optimum of such a model has no closed form.
    ValueError
        If the data do not fit the model.

    Examples
    --------
    >>> from lora_np.lora import inject
    >>> x = np.eye(3)
    >>> model = inject(Linear(np.zeros((3, 3))), rank=1, rng=np.random.default_rng(0))
    >>> round(optimum(model, x, np.diag([3.0, 2.0, 1.0])) * 9, 12)  # 2^2 + 1^2 remain
    5.0
    """
    if not isinstance(model, (Linear, LoRALinear)):
        raise TypeError(
            f"the optimum is known for Linear and LoRALinear, got {type(model).__name__}"
        )
    parts: tuple[Any, ...] = (model, None, None)
    if isinstance(model, LoRALinear):
        parts = model.base, model.A, model.B
    layer, A, B = parts
    X, Y = matrix("x", x).astype(np.float64), matrix("y", y).astype(np.float64)
    if X.shape[1:] != (layer.d_in,) or Y.shape != (len(X), layer.d_out):
        raise ValueError(
            f"x {X.shape} and y {Y.shape} do not fit a weight of shape {layer.W.shape}"
        )
    fixed = layer if isinstance(A, Tensor) or isinstance(B, Tensor) else model
    residual = Y - value(fixed(X))
    if isinstance(layer.b, Tensor):  # a trained bias fits the mean of y exactly
        X, residual = X - X.mean(axis=0), residual - residual.mean(axis=0)
    if isinstance(layer.W, Tensor):
        return float(optimal_losses(X, residual)[-1])
    if fixed is model:
        return float(np.mean(np.square(residual)))
    if not isinstance(B, Tensor):
        raise ValueError("the optimum is not known where B is frozen and A is trained")
    inputs = X if isinstance(A, Tensor) else X @ A.T
    return float(optimal_losses(inputs, residual)[min(len(A), *layer.W.shape)])
