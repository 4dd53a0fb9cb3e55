"""Text: a language model learns another text, with its base, split, start and order redrawn.

The language setup has four bases, trained alike from other seeds: the one that the package ships,
and three in ``bases/``, by ``python -m recipes.base Rdata.rdb -o claims/bases/1 --seed 1`` and so on.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import lora_np as lnp
from claims.lab import batched, methods, setups
from lora_np import language
from lora_np.checks import Array

BASES = ("austen", *(str(Path(__file__).parents[1] / "bases" / str(i)) for i in (1, 2, 3)))
PIECES = 10  # contiguous pieces of the new text, of which a seed holds two back
LOSSES = (*batched.HALVES, "old")
LOOKED = ("intruders", "rank 90", "amplified", "random", "top")  # at the weights that changed


@dataclass(frozen=True)
class Text(batched.Setup):
    """A language model learns another text; losses in nats a token, on two pieces held back."""

    bases: tuple[str, ...] = BASES
    new: str = "genesis"
    old: str = "austen-held-out"
    steps: int = 100
    batch: int = 4
    length: int = 64
    rows: int = 96  # of each text that a loss is of

    def shortened(self) -> Text:
        return replace(self, steps=20, rows=32)

    def runs(self, seeds: Sequence[int], rates: Sequence[float], **method: Any) -> dict[str, Array]:
        """Losses (seeds, rates) of each half and of the old text, and what was looked at."""
        found = [[self.once(seed, rate, **method) for rate in rates] for seed in seeds]
        names = [*LOSSES, *LOOKED] if method.get("look") else LOSSES
        return {name: np.array([[one[name] for one in row] for row in found]) for name in names}

    def once(self, seed: int, lr: float, **method: Any) -> dict[str, float]:
        """One run; infinite losses if it diverged."""
        base = self.base(seed)
        try:
            tuned, parts = self.train(seed, lr, **method), self.parts(seed, base)
            found = {name: setups.mean_loss(tuned, parts[name]) for name in LOSSES}
            look = directions(base, tuned, method.get("rank", 16)) if method.get("look") else {}
        except (FloatingPointError, np.linalg.LinAlgError):
            return dict.fromkeys((*LOSSES, *LOOKED), np.inf)
        return found | look

    def base(self, seed: int) -> Any:
        """What a seed has drawn: every fourth has the same."""
        return loaded(self.bases[seed % len(self.bases)])

    def train(self, seed: int, lr: float, **method: Any) -> Any:
        """The tuned model, frozen; of the kind *untrained* the base."""
        base = self.base(seed)
        if method["kind"] == "untrained":
            return base
        training = self.parts(seed, base)["training"]
        rng = np.random.default_rng([seed, 23])
        first = lambda model: language.token_loss(model, training[:16])
        start = methods.initialised(base, rng, first, **{"targets": "all-linear", **method})
        order = batched.batches(seed, len(training), self.steps, self.batch)
        rate = lnp.cosine_schedule(lr, steps=self.steps, warmup=min(10, self.steps // 4))
        with np.errstate(all="ignore"):
            fitted = lnp.fit(
                start, lambda step: training[order[step]], loss=language.token_loss, steps=self.steps, clip=1.0,
                progress=False, rng=np.random.default_rng([seed, 25]), optimizer=methods.optimizer(rate, **method),
            )  # fmt: skip
        return lnp.freeze(fitted.model)

    def parts(self, seed: int, base: Any) -> dict[str, Array]:
        """Windows to train on, two pieces of the new text held back, and the old text."""
        tokens = base.vocabulary.encode(language.read_text(self.new))
        pieces = np.array_split(tokens, PIECES)
        order = np.random.default_rng([seed, 20]).permutation(PIECES)
        cut = lambda tokens: language.windows(tokens, self.length)
        held = {half: cut(pieces[order[i]])[: self.rows] for i, half in enumerate(batched.HALVES)}
        training = np.concatenate([cut(pieces[i]) for i in sorted(order[2:])])
        old = cut(base.vocabulary.encode(language.read_text(self.old)))[: self.rows]
        return {"training": training, "old": old, **held}


@functools.cache
def trained(setup: Text, seed: int, lr: float, method: str) -> Any:
    """The tuned model of a seed, by a method as JSON: trained once, however often it is looked at."""
    return setup.train(seed, lr, **json.loads(method))


@functools.cache
def loaded(base: str) -> Any:
    return language.load(base)


def directions(base: Any, tuned: Any, rank: int) -> dict[str, float]:
    """Of the changed weights: intruders in the first ten, the rank with 90 % of an update's energy,
    and how far an update amplifies what W0 has in its own directions, in random ones, and in W0's
    own top ones.
    """
    found: dict[str, list[float]] = {name: [] for name in LOOKED}
    rng = np.random.default_rng(0)
    for W0, W in setups.maps(base, tuned):
        D = W.astype(np.float64) - W0
        U, s, Vh = np.linalg.svd(D, full_matrices=False)
        found["rank 90"].append(1 + int(np.searchsorted(np.cumsum(s**2), 0.9 * np.sum(s**2))))
        found["intruders"].append(len(lnp.linalg.intruder_dimensions(W0, W, top=10, threshold=0.6)))
        r = min(rank, *W0.shape)
        U0, _, Vh0 = np.linalg.svd(W0, full_matrices=False)
        drawn = [np.linalg.qr(rng.normal(size=(n, r)))[0] for n in W0.shape]
        sides = {"amplified": (U, Vh.T), "random": drawn, "top": (U0, Vh0.T)}
        for name, (left, right) in sides.items():
            inside = np.linalg.norm(left[:, :r].T @ W0 @ right[:, :r])
            found[name].append(float(np.linalg.norm(D) / inside))
    return {name: float(np.mean(values)) for name, values in found.items()}


def adapted(rank: int, alpha: float = 32, **more: Any) -> dict[str, Any]:
    """LoRA on all linear layers, with alpha 32 at each rank, as *LoRA Without Regret* has it."""
    return {"kind": "lora", "rank": rank, "alpha": alpha} | more


ATTENTION, MLP = ["q_proj", "k_proj", "v_proj", "o_proj"], ["gate_proj", "up_proj", "down_proj"]
FULL = {"kind": "full", "targets": "all"}
# Each with the place of the rate at which its search begins, on the grid of `claims.lab.redrawn`
METHODS: dict[str, tuple[dict[str, Any], int]] = {
    **{f"LoRA, r = {r}": (adapted(r, look=True), -1) for r in (1, 4, 16, 64)},
    "LoRA, r = 16, kappa / 16": (adapted(16, 2), 1),
    "LoRA, r = 16, kappa x 16": (adapted(16, 512), -3),
    "attention, r = 8": (adapted(8, targets=ATTENTION), -1),
    "MLP, r = 5": (adapted(5, targets=MLP), -1),
    "q and v, r = 16": (adapted(16, targets=["q_proj", "v_proj"]), 0),
    "LoRA-XS, r = 1": (adapted(1, 1, kind="lora-xs"), 1),
    "LoRA-XS, r = 16": (adapted(16, 16, kind="lora-xs"), 0),
    "full": (FULL | {"look": True}, -3),
}
UNTRAINED = {"kind": "untrained"}
