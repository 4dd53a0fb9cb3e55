"""The main job, end to end: adapt a real model, compare it with the optimum, measure the savings.

A linear model predicts the next 10 x 10 pixels from the 10 x 12 pixels to their left: its weight is a
100 x 120 matrix. It is pretrained on a photograph and adapted to a terrain map, in full and with LoRA.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_np import adapters, datasets
from lora_np.accounting import break_even_rank, count_full, count_lora
from lora_np.autograd import Tensor, value
from lora_np.checks import Array, whole_number
from lora_np.course.voice import Voice, speak
from lora_np.files import target_path, write_figure, write_text
from lora_np.hub import safetensors
from lora_np.linalg import ENOUGH, optimal_losses, rank_for_energy, reduced_rank_regression, svd_of_product
from lora_np.lora import inject, merge
from lora_np.nn import Adam, Linear, cosine_schedule, start, trainable
from lora_np.table import Table
from lora_np.training import Fit, fit, uninterrupted
from lora_np.work import one_thread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

D, K = 100, 120  # 10 x 10 pixels from 10 x 12
RANKS = (20, 8)
RIDGE = 0.01  # times the mean input variance: centred patches have a covariance that is not invertible
TITLE = "<title>lora-np tour: "  # of the report, by which it is recognised later
GOAL = 0.97  # of the gain that the best update of the rank reaches


@dataclass(frozen=True)
class Update:
    """One trained update, and the best possible of its rank.

    Parameters
    ----------
    rank : int or None
        None for the full update.
    numbers : int
        That were trained.
    optimizer_bytes, file_bytes : int
        Of Adam's state, and of the file that holds the update.
    training_error, best_training_error : float
        On the training data.
    error, best_error : float
        On held-out data.
    share_of_gain : float
        The share of the best update's gain, at this rank, that training reached.
    seconds : float
        Of training.
    """

    rank: int | None
    numbers: int
    optimizer_bytes: int
    file_bytes: int
    training_error: float
    best_training_error: float
    error: float
    best_error: float
    share_of_gain: float
    seconds: float

    @property
    def name(self) -> str:
        return "full update" if self.rank is None else f"LoRA, r = {self.rank}"


@dataclass(frozen=True)
class StepTime:
    """Seconds of one training step (256 rows, float32, Adam) on a d x k weight.

    Parameters
    ----------
    d, k : int
        Rows and columns of the weight.
    rank : int
        Of the LoRA.
    full, lora : float
        Seconds for one step with the full update, and with the LoRA.
    """

    d: int
    k: int
    rank: int
    full: float
    lora: float


@dataclass(frozen=True)
class Tour:
    """The results of the tour. Errors are mean squared errors, in units of the variance of the map.

    Parameters
    ----------
    rng : int
        Random seed of the run.
    steps : int
        Of training, for each update.
    base_error : float
        On held-out data, of the model that was not adapted.
    updates : tuple of Update
        The full one, and one for each rank.
    step_times : tuple of StepTime
        For a small and a large weight.
    voice : Voice
        What a language model writes before and after.
    rank_for_gain : int
        The smallest whose best update brings 97 % of the gain of the best full one, on held-out data.
    rank_for_norm : int
        The smallest that keeps 99 % of the squared norm of the best full update, as ``lora-np errors`` does.
    figures : tuple of str
        Paths of the figures.
    report : str
        Path of the report.
    """

    rng: int
    steps: int
    base_error: float
    updates: tuple[Update, ...]
    step_times: tuple[StepTime, ...]
    voice: Voice
    rank_for_gain: int
    rank_for_norm: int
    figures: tuple[str, ...]
    report: str

    @property
    def table(self) -> Table:
        """The trained updates and the best possible of their rank."""
        columns = {
            "update": "name", "trained numbers": "numbers", "error": "error", "best possible": "best_error",
            "share of its gain": "share_of_gain",
            "training error": "training_error", "best possible in training": "best_training_error",
        }  # fmt: skip
        alone = ("none (W0 alone)", 0, self.base_error, self.base_error, None, None, None)
        rows = [[getattr(update, field) for field in columns.values()] for update in self.updates]
        errors = [column for column, field in columns.items() if field.endswith("error")]
        return Table(
            list(columns),
            [alone, *rows],
            title="Terrain from a model of photographs: mean squared error on held-out patches",
            notes=[
                "The best possible has a closed form (reduced-rank regression). It bounds its own training "
                "error only: on held-out patches a trained model may end a little below it.",
                f"Which rank is enough? {self.enough}",
            ],
            formats=dict.fromkeys(errors, "{:.4f}".format) | {"share of its gain": "{:.1%}".format},
        )

    @property
    def enough(self) -> str:
        """The rank that is enough by held-out data and by the norm, and why they differ."""
        return (
            f"On held-out patches rank {self.rank_for_gain}: its best update brings {GOAL:.0%} of the gain "
            f"of the best full one. By the weights alone rank {self.rank_for_norm}: it keeps {ENOUGH:.0%} of "
            "the squared norm of that update, which is how lora-np errors, inspect and resize answer. The "
            "norm counts all directions of the weight alike, the error only as far as the inputs take them, "
            "and pixels next to each other are so alike that they hardly take most."
        )

    @property
    def advantages(self) -> Table:
        """The three advantages of LoRA, measured."""
        by_rank = {u.rank: u for u in self.updates}
        full, low = by_rank[None], [by_rank[r] for r in RANKS]
        quotient = f"full / r = {RANKS[-1]}"

        def row(advantage: str, measured: str, quantity: Callable[[Update], int]) -> tuple[Any, ...]:
            shown = [f"{quantity(u):,}" for u in (full, *low)]
            return (advantage, measured, *shown, quantity(full) / quantity(low[-1]))

        rows = [
            row("1. cheaper to train", "trained numbers", lambda u: u.numbers),
            row("", "bytes of optimizer state (Adam)", lambda u: u.optimizer_bytes),
        ]
        for number, t in enumerate(self.step_times):
            name = "" if number else "2. less time to train"
            measured = f"one step at {t.d:,} x {t.k:,}"
            rows.append((name, measured, clock(t.full), "", clock(t.lora), t.full / t.lora))
        rows.append(row("3. save the adapter only", "bytes of the file", lambda u: u.file_bytes))
        return Table(
            ["advantage", "measured", "full", *(f"r = {r}" for r in RANKS), quotient],
            rows,
            title="What LoRA saves",
            formats={quotient: "{:.1f}x".format},
        )


def tour(
    out: str | Path = "lora-np-tour", *, quick: bool = False, rng: int = 0, progress: bool = True
) -> Tour:
    """Adapt a model of photographs to terrain, in full and with LoRA; sample a language model; write a
    report.

    Parameters
    ----------
    out : path
        Folder for the figures, the adapter, the full update and ``report.html``; created if it does not
        exist.
    quick : bool
        A quarter of the data and of the steps, for a first look.
    rng : int
        Random seed; the same number gives the same errors.
    progress : bool
        Show progress bars in a terminal.

    Returns
    -------
    Tour
        What was found, as numbers and tables.

    Raises
    ------
    OSError
        If ``out`` cannot be written, or holds files of the same names that no tour has made. An earlier tour
        is replaced.
    """
    whole_number("rng", rng, minimum=0)
    folder = target_path(out)
    folder.mkdir(parents=True, exist_ok=True)  # before the work, so that a wrong path costs no time
    check_folder(folder)
    task = Task(rng, quick)
    fits = {rank: train(task, rank, progress) for rank in (None, *RANKS)}
    updates = tuple(
        describe(task, rank, result, save(task, rank, result, folder)) for rank, result in fits.items()
    )
    step_times = tuple(step_time(d, k, steps) for d, k, steps in [(D, K, 100), (1024, 1024, 10)])
    voice = speak(steps=20 if quick else 60, rng=rng, progress=progress)
    figures = draw(task, fits, updates, folder)
    report = folder / "report.html"
    gain = task.best_errors[0] - task.best_errors
    found = Tour(
        rng,
        task.steps,
        float(task.best_errors[0]),
        updates,
        step_times,
        voice,
        int(np.argmax(gain >= GOAL * gain[-1])),
        rank_for_energy(np.diag(task.best_spectrum)),
        tuple(map(str, figures)),
        str(report),
    )
    write_text(report, render(found, task, figures))
    return found


def check_folder(folder: Path) -> None:
    """Refuse to replace what no tour has made."""
    report = folder / "report.html"
    if report.is_file() and TITLE in report.read_text(encoding="utf-8", errors="replace"):
        return
    adapter_folders = [f"adapter-r{rank}" for rank in RANKS]
    for name in ("report.html", "full-update.safetensors", *adapter_folders, *(f"{f}.png" for f in ALT)):
        if (folder / name).exists():
            raise FileExistsError(
                f"{folder / name} already exists, and not from a tour: choose another folder"
            )


class Task:
    """The data, the pretrained base, and what theory says is possible."""

    def __init__(self, rng: int, quick: bool) -> None:
        self.rng = np.random.default_rng(rng)
        n, held_out = (5_000, 2_000) if quick else (20_000, 5_000)
        self.steps = 500 if quick else 2_000
        x0, y0 = datasets.patches(datasets.photograph(), n, rng=self.rng)
        B, A = reduced_rank_regression(x0, y0, ridge=ridge_for(x0))
        W0 = B @ A  # at full rank: plain ridge regression
        x, y = datasets.patches(datasets.terrain(), n + held_out, rng=self.rng)
        self.x, self.y, self.held_out = x[:n], y[:n], (x[n:], y[n:])
        self.base = Linear(W0.astype(np.float32))
        self.best_training_errors = optimal_losses(self.x, self.y, W0=self.base.W)
        self.best_errors = optimal_losses(
            self.x, self.y, W0=self.base.W, ridge=ridge_for(self.x), validation=self.held_out
        )

    def best(self, errors: Array, rank: int | None) -> float:
        return float(errors[-1 if rank is None else rank])

    def error(self, W: Any, x: Array, y: Array) -> float:
        return float(np.mean(np.square(x @ value(W).T - y)))

    @cached_property
    def best_spectrum(self) -> Array:
        """The singular values of the best full update."""
        B, A = reduced_rank_regression(self.x, self.y, W0=self.base.W, ridge=ridge_for(self.x))
        return svd_of_product(B, A).s


def ridge_for(x: Array) -> float:
    return RIDGE * float(np.mean(np.square(x)))


def train(task: Task, rank: int | None, progress: bool) -> Fit[Any]:
    """Adam on a cosine schedule, batches of 256: the same for the full update and for every rank."""
    model: Any = Linear(Tensor(value(task.base.W)))
    if rank is not None:
        model = inject(task.base, rank=rank, alpha=2 * rank, rng=task.rng)
    x, y, x_held_out, y_held_out = (a.astype(np.float32) for a in (task.x, task.y, *task.held_out))
    result = fit(
        model, x, y,
        optimizer=Adam(lr=cosine_schedule(1e-2, steps=task.steps)),
        steps=task.steps,
        batch_size=256,
        validation=(x_held_out, y_held_out),
        validate_every=task.steps // 40,
        rng=task.rng,
        progress=progress and ("full update" if rank is None else f"LoRA, r = {rank}"),
    )  # fmt: skip
    return uninterrupted(result)


def save(task: Task, rank: int | None, result: Fit[Any], folder: Path) -> int:
    """Write the adapter, or the full weight, and return the bytes of the tensor file."""
    if rank is None:
        path = folder / "full-update.safetensors"
        safetensors.save({"weight": value(result.model.W)}, path)
        return path.stat().st_size
    path = folder / f"adapter-r{rank}"
    adapters.save(result.model, path, force=True)
    return (path / "adapter_model.safetensors").stat().st_size


def describe(task: Task, rank: int | None, result: Fit[Any], file_bytes: int) -> Update:
    W = merge(result.model).W
    error = task.error(W, *task.held_out)
    base, best = float(task.best_errors[0]), task.best(task.best_errors, rank)
    return Update(
        rank=rank,
        numbers=count_full(D, K) if rank is None else count_lora(D, K, rank=rank),
        optimizer_bytes=start(Adam(), [leaf for _, leaf in trainable(result.model)]).nbytes,
        file_bytes=file_bytes,
        training_error=task.error(W, task.x, task.y),
        best_training_error=task.best(task.best_training_errors, rank),
        error=error,
        best_error=best,
        share_of_gain=(base - error) / (base - best),
        seconds=result.history.seconds,
    )


def step_time(d: int, k: int, steps: int, *, rank: int = RANKS[-1], rounds: int = 15) -> StepTime:
    """The minimum of interleaved runs on one thread: both are measured under the same load.

    Runs go on until two more change the ratio of the least by 2 % at most, or ``rounds`` are over.
    """
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((256, n), dtype=np.float32) for n in (k, d))
    base = Linear(rng.standard_normal((d, k), dtype=np.float32) / np.float32(k) ** 0.5)
    models = [Linear(Tensor(base.W)), inject(base, rank=rank, rng=rng)]
    runs: list[list[float]] = []
    ratios: list[float] = []
    with one_thread():
        while len(runs) < rounds and (len(runs) < 5 or np.ptp(ratios[-3:]) > 0.02 * ratios[-1]):
            fits = [uninterrupted(fit(m, x, y, steps=steps, progress=False)) for m in models]
            runs.append([found.history.seconds / steps for found in fits])
            full, lora = np.min(runs, axis=0)
            ratios.append(float(full / lora))
    return StepTime(d, k, rank, float(full), float(lora))


# Figures and the report


def draw(
    task: Task, fits: dict[int | None, Fit[Any]], updates: tuple[Update, ...], folder: Path
) -> list[Path]:
    from matplotlib.figure import Figure

    from lora_np import plots
    from lora_np.plots import ACCENT, FULL, LORA, OPTIMUM

    figures = {name: Figure(figsize=(7.0, 3.8), layout="constrained") for name in ALT}
    draw_errors(task.best_errors, updates, figures["rank-and-error"].add_subplot())
    ranks = np.arange(1, 76)
    plots.parameters_against_rank(
        ranks,
        np.array([count_lora(D, K, rank=int(r)) for r in ranks]),
        full=count_full(D, K),
        break_even=break_even_rank(D, K),
        chosen=RANKS,
        ax=figures["parameters-and-rank"].add_subplot(),
    )
    plots.singular_spectrum(spectra(task, fits), ax=figures["singular-values"].add_subplot())
    ax = plots.axes(figures["training"].add_subplot())
    ends = []
    for (rank, result), color in zip(fits.items(), (FULL, LORA, ACCENT), strict=True):
        steps, losses = result.history.validation_steps, result.history.validation_loss
        ax.plot(steps, losses, color=color, linewidth=1.8)
        ends.append((losses[-1], "full" if rank is None else f"r = {rank}", color))
    best = task.best(task.best_errors, RANKS[-1])
    ax.axhline(best, color=OPTIMUM, linewidth=3, zorder=1)
    plots.label_line(ax, 0, best, f"best possible, r = {RANKS[-1]}", "#a06f00", xytext=(4, 9))
    plots.label_ends(ax, ends)
    ax.set(xlabel="step", ylabel="mean squared error, held out")
    terrain_figure(task, merge(fits[RANKS[-1]].model), figures["terrain"])
    paths = {folder / f"{name}.png": figure for name, figure in figures.items()}
    for path, figure in paths.items():
        write_figure(figure, path, dpi=160)
    return list(paths)


def draw_errors(best: Array, updates: tuple[Update, ...], ax: Axes) -> None:
    """Error against rank: the best any update of that rank can do, and what training reached."""
    from lora_np import plots

    ranks = np.array([1, 2, 4, 8, 12, 16, 20, 24, 32, 40])
    plots.lines({"": (ranks, best[ranks])}, xlabel="rank of the update",
                ylabel="mean squared error, held out", ax=ax)  # fmt: skip
    ax.lines[0].set(color=plots.OPTIMUM, linewidth=3)
    plots.label_line(ax, 1, best[1], "best possible at each rank", plots.OPTIMUM, xytext=(8, 8))
    ax.axhline(best[0], color=plots.INK, linestyle=(0, (4, 3)))
    plots.label_line(ax, ranks[-1], best[0], "W0 alone", plots.INK, ha="right", xytext=(0, 7))
    for u in updates:
        if u.rank is None:
            ax.axhline(u.error, color=plots.FULL)
            plots.label_line(ax, ranks[-1], u.error, "full update", plots.FULL, ha="right", xytext=(0, -8))
        else:
            ax.plot(u.rank, u.error, "o", color=plots.LORA, markersize=8, markeredgecolor="white")
            plots.label_line(ax, u.rank, u.error, u.name, plots.LORA, xytext=(0, 13), ha="center")


def spectra(task: Task, fits: dict[int | None, Fit[Any]]) -> dict[str, Array]:
    """The first singular values of the best full update, and those of the trained ones of low rank."""
    found: dict[str, Array] = {}
    for r in RANKS:
        layer = fits[r].model
        found[f"trained, r = {r}"] = svd_of_product(value(layer.B) * layer.scale, value(layer.A)).s
        # As the second line it has the color that a full update has in all figures.
        found.setdefault("the best full update", task.best_spectrum[: 2 * max(RANKS)])
    return found


def terrain_figure(task: Task, adapted: Linear, figure: Figure) -> None:
    """Ten bands of the map, each piece of ten columns predicted from the true twelve before it."""
    from lora_np import plots

    metres = datasets.terrain()
    image = datasets.standardised(metres)
    bands = image[120:220].reshape(10, 10, -1)
    starts = np.arange(12, image.shape[1] - 10, 10)
    columns = slice(starts[0], starts[-1] + 10)

    def predict(W: Array) -> Array:
        context = np.stack([bands[:, :, s - 12 : s] for s in starts], axis=1)  # (band, piece, 10, 12)
        level = context.mean(axis=(2, 3), keepdims=True)
        rows = (context - level).reshape(-1, K) @ W.T
        pieces = rows.reshape(*context.shape[:2], 10, 10) + level
        pixels: Array = pieces.transpose(0, 2, 1, 3).reshape(100, -1)
        return pixels

    truth = metres[120:220, columns]
    errors = {}
    for name, W in [
        ("W0, pretrained on the photograph", task.base.W),
        (f"W0 + B A, r = {RANKS[-1]}", adapted.W),
    ]:
        error = predict(value(W)) * metres.std() + metres.mean() - truth
        rms = np.sqrt(np.mean(np.square(error)))
        errors[f"{name}: error of each prediction in metres, root mean square {rms:.1f} m"] = error
    before, after = errors.values()
    errors["What the adaptation changed: the second less the first"] = after - before
    low, high = np.quantile(truth, [0.005, 0.995])  # the ends of the grey scale
    heading = f"The terrain, 100 rows of the map, from {low:.0f} m (black) to {high:.0f} m (white)"
    plots.strips({heading: truth}, errors=errors, figure=figure)


ALT = {
    "rank-and-error": "Error of the best update against its rank, with the trained updates on the curve",
    "parameters-and-rank": "Numbers of a LoRA against its rank, crossing those of the full update at rank 54",
    "singular-values": "Singular values of the best full update and of the trained low-rank updates",
    "training": "Loss against training steps for the full update and for ranks 20 and 8",
    "terrain": "Terrain, the errors of prediction before and after adaptation, and their difference",
}


def render(found: Tour, task: Task, figures: list[Path]) -> str:
    """The report as one HTML page with its figures inside."""
    template = Template(files("lora_np.course").joinpath("report.html").read_text(encoding="utf-8"))
    images = {
        path.stem.replace("-", "_"): f'<img alt="{escape(ALT[path.stem])}" src="data:image/png;base64,'
        f'{base64.b64encode(path.read_bytes()).decode("ascii")}">'
        for path in figures
    }
    by_rank = {u.rank: u for u in found.updates}
    low, full = by_rank[RANKS[-1]], by_rank[None]
    gain = found.base_error - task.best_errors
    shares = [u.share_of_gain for u in found.updates if u.rank is not None]
    return template.substitute(
        images | found.voice.html(),
        updates=found.table._repr_html_(),
        advantages=found.advantages._repr_html_(),
        base_error=f"{found.base_error:.3f}",
        full_numbers=f"{full.numbers:,}",
        low_numbers=f"{low.numbers:,}",
        low_share=f"{low.share_of_gain:.0%}",
        least_share=f"{min(shares):.0%}",
        rank_one_share=f"{gain[1] / gain[-1]:.0%}",
        step_times=time_sentence(found.step_times),
        enough=found.enough,
        rng=found.rng,
        steps=f"{found.steps:,}",
    )


def time_sentence(times: tuple[StepTime, ...]) -> str:
    """The measurements in words: nothing that is not in the table."""
    parts = []
    for t in times:
        ratio = t.full / t.lora
        if 0.9 <= ratio <= 1.1:
            what = "takes as long as one of the full update"
        else:
            more, factor = ("faster", ratio) if ratio > 1 else ("slower", 1 / ratio)
            what = f"is {factor:.1f} times {more} than one of the full update"
        parts.append(f"At {t.d:,} x {t.k:,} a step of LoRA {what}.")
    return " ".join(parts)


def clock(seconds: float) -> str:
    """A short time in the unit that suits it."""
    return f"{seconds * 1e6:.0f} us" if seconds < 1e-3 else f"{seconds * 1e3:.1f} ms"
