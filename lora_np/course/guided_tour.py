"""Adapt a real model with LoRA, compare it with the optimum, and measure what LoRA saves.

A linear model predicts 10 x 10 pixels from the 10 x 12 pixels to their left, so its weight is a
100 x 120 matrix. It is pretrained on a photograph and adapted to a terrain map by full fine-tuning
and by LoRA.
"""

from __future__ import annotations

import base64
import textwrap
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_np import adapters, datasets, language, plots
from lora_np.autograd import Tensor, value
from lora_np.checks import Array, whole_number
from lora_np.files import target_path, write_figure, write_text
from lora_np.hub import safetensors
from lora_np.linalg import ENOUGH, optimal_losses, rank_for_energy, reduced_rank_regression
from lora_np.lora import inject, merge
from lora_np.nn import Adam, Linear, cosine_schedule, trainable, training_run
from lora_np.table import Table
from lora_np.training import Fit, fit, uninterrupted
from lora_np.work import one_thread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

D, K = 100, 120  # outputs (10 x 10 pixels) and inputs (10 x 12 pixels)
RANKS = (20, 8)
# The ridge parameter, relative to the inputs' mean square. Without it, the covariance of patches
# would be singular.
RIDGE = 0.01
TITLE = "<title>lora-np tour: "  # marks a report of the tour, which a new tour may replace
GOAL = 0.97  # a rank is enough if it achieves this share of the full update's improvement
FULL_UPDATE = "full-update.safetensors"
FIGURE = "rank-and-error.png"
BASE, ADAPTER, TEXT = "austen", "king-james", "genesis"
PROMPT = "And the "  # the beginning of a text that the models continue
OPENING = """\
LoRA, low-rank adaptation, teaches a trained model something new without changing its weights.
A matrix W0 stays as it is; two thin matrices beside it are trained, and the file is small.

      W0, 100 x 120              B        A
    +----------------+         +--+   +----------------+
    |                |         |  |   +----------------+
    |     frozen     |    +    |  |
    |                |         |  |   rank: how thick they are
    +----------------+         +--+

    in full: {:,} parameters    rank 20: {:,}    rank 8: {:,}"""


@dataclass(frozen=True)
class Update:
    """A trained update, compared with the update of its rank that fits the training data best.

    Parameters
    ----------
    rank : int or None
        The rank; None for the full update.
    parameters : int
        The trainable parameters.
    optimizer_bytes, file_bytes : int
        The bytes of Adam's state, and of the file with the update.
    error, best_error : float
        The held-out errors of the trained and of the best update.
    share_of_gain : float
        The trained update's improvement divided by the best update's; it may exceed 1.
    """

    rank: int | None
    parameters: int
    optimizer_bytes: int
    file_bytes: int
    error: float
    best_error: float
    share_of_gain: float

    @property
    def name(self) -> str:
        return update_name(self.rank)


def update_name(rank: int | None) -> str:
    return "full update" if rank is None else f"LoRA, r = {rank}"


@dataclass(frozen=True)
class Sample:
    """Texts that a language model generates without and with an adapter.

    Parameters
    ----------
    parameters : int
        The parameters of the adapter.
    base, adapted : str
        The texts without and with the adapter, after the same prompt.
    base_loss, adapted_loss : float
        The losses on held-out text in the adapter's style, in nats per character.
    """

    parameters: int
    base: str
    adapted: str
    base_loss: float
    adapted_loss: float

    def __str__(self) -> str:
        alone = (
            f"{BASE} alone (loss on Genesis, less is better: {self.base_loss:.2f} nats a character)"
        )
        adapted = f"with LoRA of {self.parameters:,} parameters ({self.adapted_loss:.2f})"
        texts = {alone: self.base, adapted: self.adapted}
        return "\n".join(
            f"{who}:\n{textwrap.indent(textwrap.fill(t, 76), '  ')}" for who, t in texts.items()
        )


@dataclass(frozen=True)
class Tour:
    """The results of the tour; errors are mean squared errors in units of the map's variance.

    Parameters
    ----------
    rng : int
        Random seed of the run.
    steps : int
        The training steps of each update.
    base_error : float
        The held-out error of the base model.
    updates : tuple of Update
        The full update, and one for each rank.
    step_times : dict of str to (float, float)
        From the size of a weight to the seconds of one training step (256 rows, float32, Adam) of
        the full update and of a LoRA of rank 8.
    sample : Sample
        Texts of a language model without and with an adapter.
    rank_for_gain : int
        The smallest rank whose best update achieves 97 % of the best full update's improvement on
        held-out data.
    rank_for_norm : int
        The smallest rank that keeps 99 % of the squared norm of the best full update, as in
        ``lora-np errors``.
    figure : str
        The path of the figure.
    report : str
        The path of the report.
    """

    rng: int
    steps: int
    base_error: float
    updates: tuple[Update, ...]
    step_times: dict[str, tuple[float, float]]
    sample: Sample
    rank_for_gain: int
    rank_for_norm: int
    figure: str
    report: str

    def __str__(self) -> str:
        opening = OPENING.format(*(update.parameters for update in self.updates))
        report = f"Report with the figures: {self.report}"
        parts = self.headline, opening, self.sample, self.table, self.advantages, report
        return "\n\n".join(map(str, parts))

    @property
    def headline(self) -> str:
        """A sentence on the share of the full update's gain that the smallest rank can achieve."""
        full, low = self.updates[0], self.updates[-1]
        share = (self.base_error - low.best_error) / (self.base_error - full.best_error)
        parts = f"{low.parameters:,} parameters achieve {share:.1%}"
        return f"{parts} of the improvement of {full.parameters:,}"

    @property
    def table(self) -> Table:
        """A table that compares each trained update with the best update of its rank."""
        lines = [
            (u.name, u.parameters, u.error, u.best_error, u.share_of_gain) for u in self.updates
        ]
        decimals = "{:.4f}".format
        return Table(
            ["update", "trainable parameters", "error", "by formula", "of the formula's gain"],
            [("none (W0 alone)", 0, self.base_error, self.base_error, None), *lines],
            title="The map, predicted: mean squared error on pieces that training did not see",
            notes=[
                (
                    "By formula: the error of the update of this rank that is best on the training"
                    " data (reduced-rank regression). It need not be the best on other data, so a"
                    " trained update may gain a little more."
                ),
                f"Which rank is enough? {self.enough}",
            ],
            formats={
                "error": decimals,
                "by formula": decimals,
                "of the formula's gain": "{:.1%}".format,
            },
        )

    @property
    def enough(self) -> str:
        """A text on the ranks that suffice by held-out error and by norm, and why these differ."""
        return (
            f"By the error rank {self.rank_for_gain}: its best update achieves {GOAL:.0%} or more"
            " of the best full update's improvement. By the entries rank"
            f" {self.rank_for_norm}: it keeps {ENOUGH:.0%} of the squared norm of that update, as"
            " lora-np errors, inspect and resize answer. The norm counts all directions of an"
            " update alike. The error counts those that inputs have, and since neighbouring pixels"
            " are alike, these are few."
        )

    @property
    def advantages(self) -> Table:
        """A table of LoRA's three advantages, measured for the full update and each rank."""
        lines: list[list[Any]] = [
            ["1. cheaper to train", "trainable parameters", *(u.parameters for u in self.updates)],
            ["", "bytes of optimizer state (Adam)", *(u.optimizer_bytes for u in self.updates)],
        ]
        titles = "2. less time to train", ""
        for title, (size, (full, lora)) in zip(titles, self.step_times.items(), strict=True):
            what = f"microseconds of a step at {size}"
            lines.append([title, what, round(1e6 * full), None, round(1e6 * lora)])
        lines.append(
            ["3. save the adapter only", "bytes of the file", *(u.file_bytes for u in self.updates)]
        )
        quotient = f"full / r = {RANKS[-1]}"
        return Table(
            ["advantage", "measured", "full", *(f"r = {r}" for r in RANKS), quotient],
            [[*line, line[2] / line[-1]] for line in lines],
            title="What LoRA saves",
            formats={quotient: "{:.1f}x".format},
        )


def tour(
    out: str | Path = "lora-np-tour", *, quick: bool = False, rng: int = 0, progress: bool = True
) -> Tour:
    """Adapt a model of photographs to terrain, sample a language model, and write a report.

    Parameters
    ----------
    out : path
        The folder for the figures, the adapters, the full update and ``report.html``, which is
        created if it does not exist.
    quick : bool
        Use a quarter of the data and of the steps, for a first look.
    rng : int
        Random seed; the same seed gives the same errors.
    progress : bool
        Show progress bars in a terminal.

    Returns
    -------
    Tour
        The results, as numbers and tables.

    Raises
    ------
    OSError
        If ``out`` cannot be written, or contains files of the same names that no tour has made. An
        earlier tour is replaced.
    """
    whole_number("rng", rng, minimum=0)
    folder = target_path(out)
    # make the folder before training, so that an invalid path fails at once
    folder.mkdir(parents=True, exist_ok=True)
    check_folder(folder)
    task = Task(rng, quick)
    fits = {rank: train(task, rank, progress) for rank in (None, *RANKS)}
    updates = tuple(update(task, rank, fits[rank], folder) for rank in fits)
    sizes = (D, K, 100), (1024, 1024, 10)
    step_times = {f"{d:,} x {k:,}": step_time(d, k, steps) for d, k, steps in sizes}
    figure = draw_errors(task.best_errors, updates)
    write_figure(figure, folder / FIGURE, dpi=220)
    gain = task.best_errors[0] - task.best_errors
    B, A = reduced_rank_regression(task.x, task.y, W0=task.base.W, ridge=ridge_for(task.x))
    ranks = int(np.argmax(gain >= GOAL * gain[-1])), rank_for_energy(B @ A)
    paths = str(folder / FIGURE), str(folder / "report.html")
    base_error = float(task.best_errors[0])
    result = Tour(rng, task.steps, base_error, updates, step_times, sample_text(), *ranks, *paths)
    write_text(folder / "report.html", render(result, gain))
    return result


def check_folder(folder: Path) -> None:
    """Raise an error if the tour would replace files that an earlier tour did not write."""
    report = folder / "report.html"
    if report.is_file() and TITLE in report.read_text(encoding="utf-8", errors="replace"):
        return
    for name in (report.name, FULL_UPDATE, *(f"adapter-r{rank}" for rank in RANKS), FIGURE):
        if (folder / name).exists():
            raise FileExistsError(
                f"{folder / name} already exists, and not from a tour: name another folder"
            )


class Task:
    """The data, the pretrained base, and the held-out error of each rank's closed-form update."""

    def __init__(self, rng: int, quick: bool) -> None:
        self.rng = np.random.default_rng(rng)
        n, held_out = (5_000, 2_000) if quick else (20_000, 5_000)
        self.steps = 500 if quick else 2_000
        x0, y0 = datasets.patches(datasets.photograph(), n, rng=self.rng)
        B, A = reduced_rank_regression(x0, y0, ridge=ridge_for(x0))
        W0 = B @ A  # without a limit on the rank, this is ridge regression
        x, y = datasets.patches(datasets.terrain(), n + held_out, rng=self.rng)
        self.x, self.y, self.held_out = x[:n], y[:n], (x[n:], y[n:])
        self.base = Linear(W0.astype(np.float32))
        self.best_errors = optimal_losses(
            self.x, self.y, W0=self.base.W, ridge=ridge_for(self.x), validation=self.held_out
        )


def ridge_for(x: Array) -> float:
    return RIDGE * float(np.mean(np.square(x)))


def train(task: Task, rank: int | None, progress: bool) -> Fit[Any]:
    """Train the full update (rank None) or a LoRA, with the same optimizer, steps and batches."""
    model = (
        Linear(Tensor(value(task.base.W)))
        if rank is None
        else inject(task.base, rank=rank, alpha=2 * rank, rng=task.rng)
    )
    run = fit(
        model,
        task.x.astype(np.float32),
        task.y.astype(np.float32),
        optimizer=Adam(lr=cosine_schedule(1e-2, steps=task.steps)),
        steps=task.steps,
        batch_size=256,
        rng=task.rng,
        progress=progress and update_name(rank),
    )
    return uninterrupted(run)


def update(task: Task, rank: int | None, result: Fit[Any], folder: Path) -> Update:
    """Save a trained update, as an adapter or full weight, and return its errors and sizes."""
    W, leaves = value(merge(result.model).W), [leaf for _, leaf in trainable(result.model)]
    if rank is None:
        file = folder / FULL_UPDATE
        safetensors.save({"weight": W}, file)
    else:
        file = folder / f"adapter-r{rank}"
        adapters.save(result.model, file, force=True)
        file /= "adapter_model.safetensors"
    state, (x, y) = training_run(Adam(), leaves), task.held_out
    error = float(np.mean(np.square(x @ W.T - y)))
    base, best = (float(task.best_errors[i]) for i in (0, -1 if rank is None else rank))
    parameters, share = sum(leaf.size for leaf in leaves), (base - error) / (base - best)
    return Update(rank, parameters, state.nbytes, file.stat().st_size, error, best, share)


def step_time(d: int, k: int, steps: int, *, rounds: int = 9) -> tuple[float, float]:
    """Measure the seconds per training step of full fine-tuning and of LoRA, on one thread.

    The result is the minimum of interleaved runs, so that both run under the same load.
    """
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((256, n), dtype=np.float32) for n in (k, d))
    base = Linear(rng.standard_normal((d, k), dtype=np.float32) / np.float32(k) ** 0.5)
    models = [Linear(Tensor(base.W)), inject(base, rank=RANKS[-1], rng=rng)]
    runs = []
    with one_thread():
        for _ in range(rounds):
            fits = [uninterrupted(fit(m, x, y, steps=steps, progress=False)) for m in models]
            runs.append([result.history.seconds / steps for result in fits])
    full, lora = np.min(runs, axis=0)
    return float(full), float(lora)


def sample_text() -> Sample:
    """Generate text without and with the shipped adapter, and measure both models' losses."""
    model, held_out = language.load(BASE), language.read_text(TEXT)[-10_000:]
    adapter = adapters.load(ADAPTER)
    models = model, adapters.attach(model, adapter)
    parameters = sum(module.A.size + module.B.size for module in adapter.modules.values())
    with one_thread():  # several threads would be slower, because the products are small
        base, adapted = (
            " ".join(language.generate(model, PROMPT, tokens=180, temperature=0.6, rng=2).split())
            for model in models
        )
        losses = [language.likelihood(model, held_out).loss for model in models]
    return Sample(parameters, base, adapted, *losses)


# The figure and the report


def draw_errors(best: Array, updates: tuple[Update, ...]) -> Figure:
    """Plot the share of the full update's improvement that the best update of each rank lacks."""
    from matplotlib.figure import Figure

    full, *trained = updates
    missing = (best - best[-1]) / (best[0] - best[-1])
    figure = Figure(figsize=(5.8, 4.4), layout="constrained")
    ax = plots.axes(figure.add_subplot())
    ranks = np.arange(1, 1 + full.parameters // (D + K))
    ax.semilogy(ranks * (D + K), missing[ranks], color=plots.INK, linewidth=3)
    ax.axhline(1, color=plots.INK, linestyle="--", linewidth=1)
    ax.axvline(full.parameters, color=plots.FULL, linestyle="--", linewidth=1)
    one = f"r = 1: {D + K} parameters\nerror {best[1]:.4f}"
    for x, y, text, color, xytext in (
        (full.parameters, 1, f"W0 alone: error {best[0]:.4f}", plots.INK, (-6, 9)),
        (D + K, missing[1], one, plots.INK, (10, 5)),
        (40 * (D + K), missing[40], "best update\nof each rank", plots.INK, (8, 16)),
        (full.parameters, 0.06, measured(full), plots.FULL, (-6, 0)),
        *(
            (update.parameters, missing[update.rank], measured(update), plots.LORA, (8, 18))
            for update in trained
        ),
    ):
        ha = "left" if xytext[0] > 0 else "right"
        plots.label_line(ax, x, y, text, color, xytext=xytext, ha=ha, fontsize=9.5)
    for update in trained:
        ax.plot(
            update.parameters,
            missing[update.rank],
            "o",
            color=plots.LORA,
            markersize=10,
            markeredgecolor="w",
        )
    ax.set_xticks([0, *(update.parameters for update in updates)])
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    ax.minorticks_off()
    ax.set(
        xlim=(0, 12_300),
        ylim=(1e-5, 2.5),
        xlabel="trainable parameters",
        ylabel="improvement left out",
    )
    few, left = trained[-1].parameters, 100 * missing[RANKS[-1]]
    title = f"{few:,} of {full.parameters:,} parameters: all but {left:.1f} % of the improvement"
    ax.set_title(title, loc="left", fontsize=11, pad=10)
    return figure


def measured(update: Update) -> str:
    name = update.name.replace(" update", "").replace("LoRA, ", "")
    errors = f"error {update.best_error:.4f} (trained: {update.error:.4f})"
    return f"{name}: {update.parameters:,} parameters\n{errors}"


def render(result: Tour, gain: Array) -> str:
    """Render the report as one HTML page that includes its figures."""
    template = files("lora_np.course").joinpath("report.html").read_text(encoding="utf-8")
    full, *trained = result.updates
    return template.format(
        plots=plots,
        result=result,
        full=full,
        middle=trained[0],
        low=trained[-1],
        least_share=min(update.share_of_gain for update in trained),
        rank_one_share=gain[1] / gain[-1],
        updates=result.table._repr_html_(),
        advantages=result.advantages._repr_html_(),
        image=base64.b64encode(Path(result.figure).read_bytes()).decode("ascii"),
        said_before=escape(result.sample.base),
        said_after=escape(result.sample.adapted),
    )
