"""What an explorable shows without scripts: a figure or text that the package makes, and a
sentence.
"""

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import export
import front_data
import numpy as np
import training_data
from matplotlib.figure import Figure

import lora_np as lnp
from lora_np import accounting, adapters, language, linalg, plots
from lora_np.accounting.memory import PARTS

PROMPT = "And the king "


@dataclass(frozen=True)
class Still:
    """A figure and its alt text; or, for a model that speaks, its text."""

    sentence: str  # HTML
    alt: str = ""
    draw: Callable[[], Figure] | None = None
    say: Callable[[], str] | None = None
    hidden: str = ""  # a selector; by default all of the program


def cut_portrait() -> Figure:
    M = export.portrait()
    cuts = {
        f"rank {rank}": np.matmul(*linalg.low_rank_factors(M, rank=rank)) for rank in (4, 16, 64)
    }
    return plots.gallery({**cuts, "in full": M}, figure=Figure(), width=6)


def trained() -> Figure:
    task = training_data.task()
    d, k = training_data.D, training_data.K
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    curves = {}
    for rank in (1, 2, 3, 8):
        model = lnp.inject(lnp.Linear(np.zeros((d, k))), rank=rank, alpha=8, rng=0)
        run = lnp.fit(
            model, task["x"], task["y"], optimizer=lnp.Adam(lr=0.02), steps=400, progress=False
        )
        curves[f"r = {rank}"] = np.arange(len(run.history.loss)), np.array(run.history.loss)
    plots.lines(curves, xlabel="step", ylabel="loss", logarithmic="y", ax=figure.add_subplot())
    return figure


def looked_into() -> Figure:
    found = adapters.inspect(language.located_adapter("king-james"))
    return found.figure()


def fitting() -> Figure:
    plan = accounting.plan(
        "llama-3-8b", gpu="RTX 4090", rank=16, targets="all-linear", max_length=2_048
    )
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    ax, ends = figure.add_subplot(), np.zeros(len(plan.choices))
    for part, color in zip(PARTS, (plots.MUTED, *plots.CYCLE), strict=False):
        sizes = np.array([getattr(each.memory, part) for each in plan.choices]) / 2**30
        ax.barh([each.method for each in plan.choices], sizes, 0.6, ends, color=color, label=part)
        ends += sizes
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    bars: Any = ax.containers[-1]
    ax.bar_label(bars, [f"{end:.1f}" for end in ends], padding=4, bbox=paper)
    ax.invert_yaxis()
    for name in ("T4", "RTX 4090", "L40S", "A100 80GB"):
        size = accounting.gpus()[name].sold
        ax.axvline(size, color=plots.MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        ax.text(size, -0.52, name, ha="center", fontsize=8)
    ax.set(xlim=(0, 95), xlabel="memory to train [GB]")
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return figure


def spoken() -> str:
    model = language.load("austen")
    tuned = adapters.attach(model, adapters.load(language.located_adapter("king-james")))
    said = [
        (name, language.generate(speaker, PROMPT, tokens=160, temperature=0.6, rng=0))
        for name, speaker in (("without the adapter", model), ("with it, rank 8", tuned))
    ]
    return "".join(
        f"<p><strong>{name}</strong>: {escape(' '.join(text.split()))}</p>" for name, text in said
    )


def written() -> str:
    """What the model writes without the adapter and with it, and a GPU's answer."""
    told = ""
    for heard in (front_data.voice()[0], front_data.voice()[-1]):
        name = f"with the adapter, rank {heard['rank']}" if heard["rank"] else "the base model"
        text = escape(front_data.PROMPT + " ".join(heard["text"].split()))
        loss = f"{heard['loss'] + 1e-9:.2f}"  # a half is rounded up, as front.js does
        told += f'<p class="front-still"><strong>{name}, loss {loss}</strong>: {text}</p>'
    return told


STILLS = {
    "front": Still(
        "At rank 8 the layer learns nearly all that training every parameter would teach it. To"
        " watch it train, and to change the rank, JavaScript is needed.",
        say=written,
        hidden=".front-live, .front canvas, .front-dials input",
    ),
    "rank": Still(
        "At rank 4 there is a shape, at rank 16 a face, at rank 64 nearly all. "
        "To choose the rank yourself, JavaScript is needed.",
        "A portrait of 180 x 150 pixels cut to ranks 4, 16 and 64, and in full.",
        cut_portrait,
    ),
    "training": Still(
        "The higher the rank, the lower the loss; past rank 4 only noise is left to learn. "
        "To train here, JavaScript is needed; the lesson <em>Train</em> does the same in Python.",
        "The loss against 400 steps at ranks 1, 2, 3 and 8: it levels off, lower at higher ranks.",
        trained,
    ),
    "inspector": Still(
        "An example: the adapter that comes with the package. To look into yours here, JavaScript"
        " is needed; <code>lora-np inspect</code> does the same in a terminal.",
        "The size of each update against the layer, a line for each kind of module.",
        looked_into,
    ),
    "speaker": Still(
        "The same prompt, twice. Live text needs JavaScript; "
        "<code>lora-np generate austen --adapter king-james</code> does the same.",
        say=spoken,
    ),
    "fit": Still(
        "An example: Llama 3 8B at rank 16, a text of 2,048 tokens. QLoRA fits a GPU of 16 GB,"
        " LoRA one of 24; full fine-tuning needs 80. To ask for your model and your GPU,"
        ' JavaScript is needed; <code>lora-np plan llama-3-8b --gpu "RTX 4090"</code> says the'
        " same in a terminal.",
        "Memory to train Llama 3 8B by cause, its base at two bytes a number, or half a byte in"
        " QLoRA: 63 GB in full, 19 with LoRA, 12 with QLoRA; and the memory of four GPUs.",
        fitting,
    ),
}


def write(folder: Path) -> None:
    """Each figure as ``still-NAME.png``, each text as ``still-NAME.html``."""
    front_data.write_pictures(folder)
    for name, still in STILLS.items():
        if still.draw:
            still.draw().savefig(folder / f"still-{name}.png", dpi=80)
        if still.say:
            (folder / f"still-{name}.html").write_text(still.say(), encoding="utf-8")
