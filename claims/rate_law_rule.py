"""The rule of the study *What sets LoRA's learning rate?*, committed before its runs.

Law B says that under Adam LoRA and the full update are equally fast, and their best learning rates
are therefore tied, where

    lr_full = alpha lr_LoRA (c1 / k + g lr_LoRA),   c1 = 1 / sqrt(3),   g = 2

for layers with k inputs: ``c1 / k`` comes from A as it was drawn, ``g lr_LoRA`` from what A has
learnt. Law A is what is left once A has moved: ``lr_LoRA = sqrt(lr_full / (2 alpha))``. The identity
says that a layer whose inputs are multiplied by a gain, and whose W is divided by it, has the same
function and a best full learning rate that is divided by the gain.

Each `Point` is a setting in which the full update's best learning rate is measured with one set of
seeds, and LoRA's with another: law B predicts the second from the first. Lines of the runs carry the
commit of this file (`claims.kept`), which does not change any more: a test compares them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

C1, G = 3**-0.5, 2.0
WITHIN, FAR = 1.5, 2.5  # factors between the best learning rate and the predicted one
SHARE = 0.9  # of the held-out points
POINTS_NEEDED = 20
NATS = 0.01  # that following B may cost at `SHARE` of them
IDENTITY, PEFT = 1.05, 1.2  # factors
DRAWS = 10_000  # of the bootstrap over points
SETS = {"digits": 16, "text": 4, "smollm2": 2}  # seeds of a set: even sets full, odd sets LoRA
NEAR = (1.3, 1.75)  # a point this far off gets another set of seeds for each side
OFFSETS = {"digits": (-2, -1, 0, 1, 2), "text": (-2, -1, 0, 1, 2), "smollm2": (-2, 0, 2)}
FIRST = 0.016  # rates are FIRST x 2^(place / 2); the best one is known at all of its `OFFSETS`


def rate(place: float) -> float:
    """The grid of learning rates, a factor of sqrt(2) apart."""
    return float(f"{FIRST * 2 ** (place / 2):.4g}")


def best(means: Mapping[int, float]) -> int:
    """The place of the grid with the lowest mean log loss; the lower one of two."""
    return min(sorted(means), key=means.__getitem__)


def peak(means: Mapping[int, float], offsets: Sequence[int]) -> float:
    """The best learning rate: the vertex of a parabola through the mean log losses around the best
    place, by least squares; the best place itself, if the parabola has no minimum among them.
    """
    place = best(means)
    near = [offset for offset in offsets if np.isfinite(means[place + offset])]
    if len(near) >= 3:
        bend, slope, _ = np.polyfit(near, [means[place + offset] for offset in near], 2)
        vertex = -slope / (2 * bend) if bend > 0 else np.inf
        if abs(vertex) <= max(offsets):
            return float(FIRST * 2 ** ((place + vertex) / 2))
    return float(FIRST * 2 ** (place / 2))


def law_b(full: float, alpha: float, k: float) -> float:
    """LoRA's learning rate from the full update's: the positive root of law B."""
    start = C1 / k
    return float((np.sqrt(start**2 + 4 * G * full / alpha) - start) / (2 * G))


def law_a(full: float, alpha: float, k: float = 0) -> float:
    """LoRA's learning rate once A has moved."""
    return float(np.sqrt(full / (2 * alpha)))


def frozen_a(full: float, alpha: float, k: float) -> float:
    """LoRA's learning rate if A stays as it was drawn: in proportion to 1 / alpha, with no knee."""
    return full * k / (alpha * C1)


def knee(full: float, k: float) -> float:
    """The alpha at which the two ends of law B cross: its slope in alpha goes from -1/2 to -1 there."""
    return G * full * (k / C1) ** 2


def steepness(full: float, alpha: float, k: float) -> float:
    """Law B's d log lr_LoRA / d log lr_full; its negative is d log lr_LoRA / d log alpha."""
    start, moved = C1 / k, G * law_b(full, alpha, k)
    return (start + moved) / (start + 2 * moved)


@dataclass(frozen=True)
class Point:
    """A setting, in which B predicts LoRA's best learning rate from the full update's."""

    part: str
    family: str  # digits, text or smollm2
    k: int
    alpha: float = 32
    rank: int = 8
    setting: Mapping[str, Any] = field(default_factory=dict)  # what differs for both sides
    lora: Mapping[str, Any] = field(default_factory=dict)  # what differs for LoRA only
    held: bool = True  # False for what the pilot has tried, and for what law B says nothing of

    @property
    def name(self) -> str:
        """What the lines of LoRA's runs are called."""
        more = "".join(f", {name} {value}" for name, value in self.lora.items())
        return f"{self.full}, LoRA alpha {self.alpha:g}, r {self.rank}{more}"

    @property
    def full(self) -> str:
        """What the lines of the full update's runs are called; points share them."""
        more = "".join(f", {name} {value}" for name, value in self.setting.items())
        return f"{self.family} {self.k}{more}"


KNOWN = {"digits": (64, 128, 256), "text": (64, 128, 256)}  # widths of the pilot


def points() -> list[Point]:
    """All points, in the order in which they run."""
    return [*digits(), *alphas(), *units(), *sceptic(), *steps(), *bases(), *widths(), *scale()]


def digits() -> Iterator[Point]:
    """A network 64-k-k-10 that learns digits on their side; only the k x k layer is trained."""
    for alpha in (2, 8, 32, 128, 512, 2048, 8192, 32768, 131072, 524288):
        yield Point("alpha", "digits", 96, alpha)
    for gain in (1 / 64, 1 / 8, 8):
        yield Point("units", "digits", 128, setting={"gain": gain})
    yield Point("width", "digits", 128, held=False)
    yield Point("width", "digits", 192)
    yield Point("width", "digits", 384)
    for steps in (30, 150, 600):
        yield Point("steps", "digits", 128, setting={"steps": steps})
    for rank in (1, 4, 64):
        yield Point("rank", "digits", 128, 32, rank)
    for batch in (16, 256):
        yield Point("sceptic", "digits", 128, setting={"batch": batch})
    for alpha in (2, 32, 512, 8192):
        yield Point("frozen", "digits", 96, alpha, lora={"frozen": 1}, held=False)
    for alpha in (8, 32, 128):
        yield Point("sgd", "digits", 96, alpha, setting={"sgd": 1}, held=False)


def alphas() -> Iterator[Point]:
    """The shipped base and its three siblings learn Genesis: 60 steps of 4 x 64 tokens."""
    for alpha in (2, 8, 32, 128, 1024, 2048, 4096, 8192):
        yield Point("alpha", "text", 128, alpha, held=alpha > 512)


def units() -> Iterator[Point]:
    """The gain of every norm, and the layers that read it; only these are trained."""
    for gain in (1 / 64, 1 / 8, 1, 8):
        yield Point("units", "text", 128, setting={"gain": gain}, held=gain != 1)


def sceptic() -> Iterator[Point]:
    """One choice of the setup at a time."""
    for rank in (1, 64):
        yield Point("rank", "text", 128, 32, rank)
    for change in (
        {"batch": 1},
        {"batch": 16},
        {"constant": 1},
        {"clip": 0},
        {"decay": 0.1},
        {"beta2": 0.99},
    ):
        yield Point("sceptic", "text", 128, setting=change)
    for alpha in (8, 128, 2048):
        yield Point("frozen", "text", 128, alpha, lora={"frozen": 1}, held=False)
    for alpha in (8, 128):
        yield Point("sgd", "text", 128, alpha, setting={"sgd": 1}, held=False)


def steps() -> Iterator[Point]:
    for number in (30, 120, 480, 960):
        yield Point("steps", "text", 128, setting={"steps": number})


def bases() -> Iterator[Point]:
    """Other texts to learn, bases trained for 200 and 2,000 steps, and of 2 and 8 layers."""
    for new in ("psalms", "jargon", "elements"):
        yield Point("base", "text", 128, setting={"new": new})
    for grown in ({"trained": 200}, {"trained": 2000}, {"depth": 2}, {"depth": 8}):
        yield Point("base", "text", 128, setting={"base": 1} | grown)


def widths() -> Iterator[Point]:
    """Bases of 600 steps, two seeds (base) and two starts: deviation 0.02, or 1 / sqrt(k)."""
    for base in (1, 2):
        for fan in (0, 1):
            for k in (64, 128, 192, 256, 384):
                setting = {"base": base} | ({"fan": 1} if fan else {})
                yield Point("width", "text", k, setting=setting, held=k in (192, 384))
    for alpha in (2, 8, 128, 512, 2048, 4096, 8192, 16384):  # four on each side of the knee
        yield Point("alpha", "text", 256, alpha, setting={"base": 1})


def scale() -> Iterator[Point]:
    """SmolLM2 learns The Devil's Dictionary for 240 steps."""
    yield Point("scale", "smollm2", 576, setting={"steps": 240})


# What the pilot and earlier claims measured: family, k, alpha, full, LoRA. Never held out.
PILOT = (
    ("text", 64, 32, 0.00335, 0.00760),
    ("text", 128, 32, 0.00184, 0.00625),
    ("text", 256, 32, 0.00091, 0.00364),
    ("text", 128, 8, 0.00244, 0.0128),
    ("text", 128, 32, 0.00244, 0.00586),
    ("text", 128, 128, 0.00244, 0.00299),
    ("text", 128, 32, 0.00271, 0.00510),  # 240 steps
    ("text", 128, 32, 0.00269, 0.00676),  # 100 steps, ranks 16, 4, 64 and 1
    ("text", 128, 32, 0.00269, 0.00635),
    ("text", 128, 32, 0.00269, 0.00700),
    ("text", 128, 32, 0.00269, 0.00508),
    ("text", 128, 2, 0.00269, 0.0274),
    ("text", 128, 512, 0.00269, 0.00115),
    ("digits", 64, 32, 0.054, 0.039),
    ("digits", 128, 32, 0.038, 0.027),
    ("digits", 256, 32, 0.030, 0.028),
    ("digits", 128, 32, 0.044, 0.034),  # 75 steps
    ("digits", 128, 32, 0.029, 0.0059),  # 1,200 steps
    ("digits", 128, 2, 0.038, 0.128),
    ("digits", 128, 512, 0.038, 0.0070),
    ("two layers", 64, 2, 0.0172, 0.0729),
    ("two layers", 64, 2, 0.0172, 0.0551),  # rank 1
    ("two layers", 64, 8, 0.0172, 0.0282),
    ("two layers", 64, 16, 0.0172, 0.0211),
    ("two layers", 64, 16, 0.0172, 0.0197),  # rank 4
    ("two layers", 64, 16, 0.0172, 0.0190),  # rank 64
    ("two layers", 64, 32, 0.0172, 0.0132),
    ("two layers", 64, 128, 0.0172, 0.00552),
    ("smollm2", 576, 2, 0.000101, 0.00525),
    ("smollm2", 576, 32, 0.000101, 0.00122),
    ("smollm2", 576, 32, 0.000101, 0.00133),  # rank 64
    ("smollm2", 576, 32, 0.000101, 0.000930),  # rank 1
    ("smollm2", 576, 256, 0.000101, 0.000273),
    ("smollm2", 576, 512, 0.000101, 0.000121),
)


def constant_by_task(family: str, alpha: float) -> float:
    """The first rival: alpha^-1/2 times the pilot's constant of the task family."""
    logs = [np.log(lora * a**0.5) for task, _, a, _, lora in PILOT if task == family]
    return float(np.exp(np.mean(logs)) / alpha**0.5)


def free_power(full: float, alpha: float) -> float:
    """The second rival: the pilot's least-squares powers of lr_full and alpha, with one constant."""
    logs = np.log([row[2:] for row in PILOT])
    columns = np.column_stack([np.ones(len(logs)), logs[:, 1], logs[:, 0]])
    found = np.linalg.lstsq(columns, logs[:, 2], rcond=None)[0]
    return float(np.exp(found @ [1.0, np.log(full), np.log(alpha)]))


# The full update's rates that are expected from the pilot; searches start there
def expected_full(point: Point) -> float:
    if point.family == "smollm2":
        return 1e-4
    if point.family == "text":
        by_width = 0.0024 if "base" not in point.setting else 0.00184 * (128 / point.k) ** 0.94
        return by_width / point.setting.get("gain", 1) if not point.setting.get("sgd") else 0.3
    digits = 0.038 * (128 / point.k) ** 0.42 / point.setting.get("gain", 1)
    return digits if not point.setting.get("sgd") else 0.3


def expected_lora(point: Point, full: float | None = None) -> float:
    """What B predicts; for SGD and a frozen A what the same argument predicts there."""
    full = expected_full(point) if full is None else full
    if point.setting.get("sgd"):  # dB = lr s G A^T, and A^T A is some r / (3 k) on each input
        return full * 3 * point.k * point.rank / point.alpha**2
    law = frozen_a if point.lora.get("frozen") else law_b
    return law(full, point.alpha, point.k)


# B's slope for each grid, d log lr_LoRA / d log x between its ends, at the expected full rates.
# "of full" is d log lr_LoRA / d log lr_full, for what has no order.
SLOPES: Mapping[str, float] = {
    "digits 96, alpha 2 to 2,048": -0.563,
    "digits 96, alpha 32,768 to 524,288": -0.978,
    "text 128, alpha 2 to 128": -0.576,
    "text 128, alpha 1,024 to 8,192": -0.928,
    "text 256, alpha 2 to 128": -0.560,
    "text 256, alpha 2,048 to 16,384": -0.940,
    "digits 128, gain 1/64 to 8": -0.520,
    "text 128, gain 1/64 to 8": -0.576,
    "digits, width 96 to 384": -0.182,
    "text, width 64 to 384": -0.368,
    "digits 128, steps, of full": 0.523,
    "text 128, steps, of full": 0.591,
    "text 128, bases and sceptics, of full": 0.591,
    "digits 96, frozen A, alpha 2 to 8,192": -1.0,
    "text 128, frozen A, alpha 8 to 2,048": -1.0,
    "digits 96, SGD, alpha 8 to 128": -2.0,
    "text 128, SGD, alpha 8 to 128": -2.0,
}


@dataclass(frozen=True)
class Measured:
    """What the runs of a point have given."""

    point: Point
    full: float  # the best learning rates
    lora: float
    cost: float  # loss at B's rate minus the loss at the best one, in nats

    @property
    def predicted(self) -> float:
        return expected_lora(self.point, self.full)

    @property
    def factor(self) -> float:
        """The best rate over the predicted one, or its inverse: at least 1."""
        return float(np.exp(abs(np.log(self.lora / self.predicted))))

    @property
    def errors(self) -> tuple[float, float, float]:
        """Log errors of B, and of both rivals."""
        family, alpha = self.point.family, self.point.alpha
        rivals = constant_by_task(family, alpha), free_power(self.full, alpha)
        return tuple(float(np.log(self.lora / x)) for x in (self.predicted, *rivals))  # type: ignore[return-value]


def rms(errors: Any, axis: int | None = None) -> Any:
    return np.sqrt(np.mean(np.square(errors), axis=axis))


def intervals(measured: Sequence[Measured]) -> list[tuple[float, float]]:
    """95 % intervals of B's rms log error minus that of each rival: a bootstrap over points."""
    errors = np.array([one.errors for one in measured])
    chosen = np.random.default_rng(0).integers(len(errors), size=(DRAWS, len(errors)))
    drawn = rms(errors[chosen], axis=1)  # (draws, 3)
    apart = drawn[:, :1] - drawn[:, 1:]
    low, high = np.percentile(apart, [2.5, 97.5], axis=0)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def verdict(
    measured: Sequence[Measured], identity: Sequence[float], peft: Sequence[float]
) -> tuple[str, list[str]]:
    """The verdict of the held-out points that have run, and the sentences that it rests on.

    ``identity`` are factors between the full update's best rates and what the identity says;
    ``peft`` factors between the best rates of PEFT and ours.
    """
    held = [one for one in measured if one.point.held]
    total = sum(point.held for point in points())
    facts = [f"{len(held)} of {total} held-out points have run."]
    if len(held) < POINTS_NEEDED:
        return "not run yet", facts
    factors = np.array([one.factor for one in held])
    within, beyond = int(np.sum(factors <= WITHIN)), int(np.sum(factors > FAR))
    cheap = int(np.sum([one.cost <= NATS for one in held]))
    better = [high < 0 for _, high in intervals(held)]
    facts += [
        f"{within} of them lie within {WITHIN:g} of law B, {beyond} beyond {FAR:g}.",
        f"Following B costs at most {NATS:g} nats at {cheap}.",
        f"B's rms log error is smaller than that of {sum(better)} of two rivals.",
        f"The identity holds within 5 % at {sum(x <= IDENTITY for x in identity)} of {len(identity)}.",
        f"PEFT's best rates agree within {PEFT:g} at {sum(x <= PEFT for x in peft)} of {len(peft)}.",
    ]
    n = len(held)
    if np.sum(factors > WITHIN) >= n / 4:
        word = "contradicted here"
    elif within >= SHARE * n and not beyond and cheap >= SHARE * n and all(better):
        checked = [x <= IDENTITY for x in identity] + [x <= PEFT for x in peft]
        word = "supported" if all(checked) and identity and peft else "mixed"
    else:
        word = "mixed"
    return (word if n == total else "not run yet"), facts if n == total else [
        *facts,
        f"By these alone the verdict would be: {word}.",
    ]
