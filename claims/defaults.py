"""What the default alpha and learning rate lose, at ranks 1 to 64, against the best rate.

    python -m claims sweep defaults

The rates are powers of two times that of `lora_np.lora.learning_rate`; what the default is compared
with is the best of all runs of a rank, here and in the map of kappa. On text and at 135 million
parameters it is compared with the rates that are recorded of `claims.text` and `claims.longer`,
between two of which its loss is on a line. Raw results are lines of ``runs/defaults.jsonl``, with the
loss of each seed; a run that is there is not repeated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import lora_np as lnp
from claims import at_scale, redrawn, setups
from claims.batched import HALVES, Digits, Linear
from claims.redrawn import FOLDER, Book, kappas

RANKS = (1, 4, 16, 64)
SETUPS: dict[str, Any] = {"digits": Digits(), "linear": Linear(64)}
SEEDS = {"digits": range(32), "linear": range(32)}
PLACES = range(-3, 4)
BOOK = Book(FOLDER / "defaults.jsonl")


def default(setup: str, rank: int) -> dict[str, float]:
    """The settings that `inject` and the trainers choose here."""
    targets = getattr(SETUPS[setup], "targets", "all-linear")
    model = lnp.inject(SETUPS[setup].tasks([0])[0].base, rank=rank, targets=targets)
    alpha = next(node.alpha for _, node in lnp.nn.walk(model) if isinstance(node, LAYER))
    return {"rank": rank, "alpha": alpha, "lr": lnp.lora.learning_rate(model)}


LAYER = lnp.lora.LoRALinear


def run(setup: str, rank: int, place: int) -> dict[str, Any]:
    settings = default(setup, rank)
    settings["lr"] = float(f"{settings['lr'] * 2.0**place:.4g}")
    return {"setup": setup} | settings


def sweep() -> None:
    """Run what is missing."""
    for setup, seeds in SEEDS.items():
        for rank in RANKS:
            runs = [run(setup, rank, place) for place in PLACES]
            for new in filter(BOOK.missing, runs):
                BOOK.note(new, {"loss": losses(new, seeds)})
                print(new, np.exp(BOOK.logs(new, "loss")).mean().round(4), flush=True)


def losses(run: dict[str, Any], seeds: Sequence[int]) -> Any:
    """The test loss of each seed."""
    setup, method = SETUPS[run["setup"]], {"kind": "lora"} | run
    lr, _ = method.pop("lr"), method.pop("setup")
    found = setup.runs(seeds, [lr], **method)
    return np.mean([found[half][:, 0] for half in HALVES], axis=0)


def loss(run: dict[str, Any]) -> float:
    return float(np.mean(np.exp(BOOK.logs(run, "loss"))))


def lost(setup: str, rank: int) -> float:
    """What the default loses against the best of all that is recorded, in nats; on the linear task,
    as a share of the first loss.
    """
    if setup == "language":
        return lost_on_text(rank)
    known = [json.loads(text) for text in BOOK.lines]
    found = [loss(one) for one in known if (one["setup"], one["rank"]) == (setup, rank)]
    if setup == "digits":
        found += mapped(rank)
    return loss(run(setup, rank, 0)) - min(found)


def lost_on_text(rank: int) -> float:
    """What the default loses on text against the best recorded rate, in nats."""
    sweep = redrawn.sweeps("language")[f"LoRA, r = {rank}"]
    recorded = redrawn.Redrawn(sweep, range(sweep.seeds)).to_json()
    model = lnp.inject(setups.shipped(), rank=rank)
    assert {layer.alpha for _, layer in lnp.nn.walk(model) if isinstance(layer, LAYER)} == {
        recorded["method"]["alpha"]
    }
    return between_rates(recorded["rates"], model)


def lost_at_scale(rank: int) -> float:
    """What the default loses on SmolLM2 against the best recorded rate, in nats; NaN before the rank has
    run. The loss is of the seeds that look for the rate.
    """
    runs, name = at_scale.Runs(), f"LoRA, r = {rank}"
    if not runs.places(name):
        return float("nan")
    model = lnp.inject(lnp.Linear(np.zeros((576, 576))), rank=rank, rng=0)
    assert model.alpha == at_scale.METHODS[name][0]["alpha"]
    return between_rates(runs.swept(name)["rates"], model)


def between_rates(rates: Mapping[str, Any], model: Any) -> float:
    """What a model's default rate loses against the best of some, between two of which its loss is on a
    line.
    """
    losses = {
        float(rate): float(np.mean(one["test"]))
        for rate, one in rates.items()
        if None not in one["test"]
    }
    chosen = lnp.lora.learning_rate(model)
    assert min(losses) <= chosen <= max(losses)
    logs = np.log([*losses]), [*losses.values()]
    return float(np.interp(np.log(chosen), *logs)) - min(losses.values())


def mapped(rank: int) -> list[float]:
    """The losses of every kappa and speed."""
    found = []
    for text in kappas().book.lines:
        one = json.loads(text)
        if one["rank"] == rank:
            logs = np.mean([kappas().book.logs(one, half) for half in HALVES], axis=0)
            found.append(float(np.mean(np.exp(logs))))
    return found


__all__ = ["RANKS", "SETUPS", "lost", "lost_at_scale", "sweep"]
