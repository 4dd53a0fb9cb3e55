"""Laws of *Count parameters*."""

from __future__ import annotations

from lora_np.exercises.asking import Answer
from lora_np.exercises.drawing import Draw
from lora_np.exercises.laws import exactly, law, whole

ROWS = {"q": 1, "k": 0, "v": 0, "o": 1}  # 1 if a target has as many rows as the model is wide


def lora_count_entries(draw: Draw, answer: Answer) -> None:
    d, k, r = draw.sizes("dkr", high=5000)
    exactly("the count", answer(d, k, r), d * r + r * k)


def shape(draw: Draw) -> tuple[int, int]:
    d = draw.whole("d", 1, 400)
    return d, d if draw.pick("square", (False, True)) else draw.whole("k", 1, 400)


def last_rank_that_saves_saves(draw: Draw, answer: Answer) -> None:
    d, k = shape(draw)
    r = whole("the rank", answer(d, k))
    law(r == 0 or r * (d + k) < d * k, f"rank {r} takes {r * (d + k):,} numbers, the full update {d * k:,}")


def last_rank_that_saves_next(draw: Draw, answer: Answer) -> None:
    d, k = shape(draw)
    r = whole("the rank", answer(d, k))
    law(r >= 0, f"a rank is not negative, got {r}")
    more = (r + 1) * (d + k)
    law(more >= d * k, f"rank {r + 1} saves, too: it takes {more:,} numbers, the full update {d * k:,}")


def within_budget(draw: Draw, answer: Answer) -> tuple[int, int, int]:
    shapes = [(draw.whole(f"d{i}", 1, 9), draw.whole(f"k{i}", 1, 9)) for i in range(draw.whole("n", 1, 3))]
    one = sum(d + k for d, k in shapes)
    budget = draw.whole("rank", 0, 9) * one + draw.whole("left over", 0, one - 1)
    return whole("the rank", answer(shapes, budget)), one, budget


def rank_within_fits(draw: Draw, answer: Answer) -> None:
    r, one, budget = within_budget(draw, answer)
    law(r * one <= budget, f"rank {r} takes {r * one:,} numbers, the budget is {budget:,}")


def rank_within_largest(draw: Draw, answer: Answer) -> None:
    r, one, budget = within_budget(draw, answer)
    law(r >= 0, f"a rank is not negative, got {r}")
    law((r + 1) * one > budget, f"rank {r + 1} fits, too: it takes {(r + 1) * one:,} of {budget:,} numbers")


def attention_count_target(draw: Draw, answer: Answer) -> None:
    d, r = draw.whole("d", 1, 64), draw.whole("r", 1, 8)
    narrow, target = draw.whole("d_kv", 1, d), draw.pick("target", tuple(ROWS))
    right = r * ((d if ROWS[target] else narrow) + d)
    exactly("the count", answer(1, d, narrow, [target], r), right)


def attention_count_model(draw: Draw, answer: Answer) -> None:
    layers, d, r = draw.whole("layers", 1, 100), draw.whole("d", 1, 64), draw.whole("r", 1, 8)
    narrow = draw.whole("d_kv", 1, d)
    targets = [target for target in "vqok" if draw.pick(target, (True, False))]
    right = layers * sum(r * ((d if ROWS[target] else narrow) + d) for target in targets)
    exactly("the count", answer(layers, d, narrow, targets, r), right)


def training_bytes_frozen(draw: Draw, answer: Answer) -> None:
    base = draw.whole("base", 1, 10**9)
    exactly("the bytes", answer(base, 0), 2 * base)


def training_bytes_trained(draw: Draw, answer: Answer) -> None:
    base, trained = draw.whole("base", 0, 10**9), draw.whole("trained", 1, 10**6)
    exactly("the bytes", answer(base, trained), 2 * base + 16 * trained)
