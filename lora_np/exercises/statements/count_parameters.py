"""Exercises of *Count parameters*."""

from __future__ import annotations

import numpy as np

from lora_np.exercises.asking import Answer, Exercise
from lora_np.exercises.laws import law, whole

Generator = np.random.Generator
COUNTERS = (
    "lora_np.count_full",
    "lora_np.count_lora",
    "lora_np.break_even_rank",
    "lora_np.rank_for_budget",
    "lora_np.accounting.matrix.ratio",
    "lora_np.accounting.matrix.saving",
)


def expect(name: str, what: str, got: object, right: int) -> None:
    number = whole(what, got)
    law(name, number == right, f"{what} must be {right:,}, got {number:,}")


def check_lora_count(answer: Answer, rng: Generator) -> None:
    d, k = (int(n) for n in rng.choice(np.arange(3, 5000), 2, replace=False))
    r = int(rng.integers(1, 65))
    expect("B is d x r and A is r x k", "the count", answer(d, k, r), d * r + r * k)


lora_count = Exercise(
    title="Count a LoRA",
    points=1,
    statement="""\
How many numbers are in $B$ ($d \\times r$) and $A$ ($r \\times k$) together?""",
    stub='''\
def lora_count(d, k, r):
    """Numbers to train in a LoRA of rank r for a d x k matrix."""
    ...
''',
    hints=("Count the entries of each factor. Then add.", "$d\\,r + r\\,k$"),
    check=check_lora_count,
    forbids=COUNTERS,
)


def check_last_rank_that_saves(answer: Answer, rng: Generator) -> None:
    square = 2 * int(rng.integers(2, 500))
    wide = (int(rng.integers(2, 9)), int(rng.integers(100, 5000)))
    for d, k in ((square, square), wide, wide[::-1], (1, 50)):
        r = whole("the rank", answer(d, k))
        law(
            "A rank saves if r (d + k) is strictly less than d k",
            r * (d + k) < d * k,
            f"rank {r} takes {r * (d + k):,} numbers, the full update {d * k:,}",
        )
        law(
            "The next rank after the last that saves does not save",
            (r + 1) * (d + k) >= d * k,
            f"rank {r + 1} takes {(r + 1) * (d + k):,} numbers, fewer than {d * k:,}",
        )


last_rank_that_saves = Exercise(
    title="The break-even rank",
    points=2,
    statement="""\
Return the largest rank at which a LoRA has strictly fewer numbers than a full update of a $d \\times k$ matrix, and 0 if no rank has.""",
    stub='''\
def last_rank_that_saves(d, k):
    """The largest r with r (d + k) < d k; 0 if there is none."""
    ...
''',
    hints=(
        "For a $4 \\times 4$ matrix rank 2 takes 16 numbers. The full update does, too, so the answer is 1.",
        "Whole-number division rounds down. Of which number, so that an exact fit is not counted?",
    ),
    check=check_last_rank_that_saves,
    forbids=COUNTERS,
)


def check_rank_within(answer: Answer, rng: Generator) -> None:
    shapes = [(int(d), int(k)) for d, k in rng.integers(10, 300, (int(rng.integers(2, 5)), 2))]
    one = sum(d + k for d, k in shapes)
    r = int(rng.integers(1, 40))
    name = "One rank for all: the budget pays r (d + k) for each matrix"
    for budget, right in ((r * one + one // 2, r), (r * one, r), (r * one - 1, r - 1), (one - 1, 0)):
        expect(name, f"the rank for {budget:,} numbers", answer(shapes, budget), right)


rank_within = Exercise(
    title="A rank for a budget",
    points=2,
    statement="""\
A model has several matrices, and `shapes` lists their $(d, k)$. All get a LoRA of the same rank. Return the largest rank
that takes at most `budget` numbers in all, and 0 if not even rank 1 does.""",
    stub='''\
def rank_within(shapes, budget):
    """The largest rank such that LoRAs on all shapes (d, k) take at most budget numbers together."""
    ...
''',
    hints=("What does rank 1 take, on all matrices together?", "How often does that fit into the budget?"),
    check=check_rank_within,
    forbids=COUNTERS,
)


def check_attention_count(answer: Answer, rng: Generator) -> None:
    layers, heads = int(rng.integers(2, 100)), 8 * int(rng.integers(1, 5))
    groups, width = int(rng.choice([2, 4, 8])), 64 * int(rng.integers(1, 9))
    r, d = int(rng.integers(1, 65)), heads * width
    narrow = heads // groups * width
    cost = {"q": r * (d + d), "k": r * (d + narrow), "v": r * (d + narrow), "o": r * (d + d)}
    laws = {"q": "The queries are as wide as the model", "v": "Grouped keys and values are narrower"}
    for targets in (["q"], ["v"], ["k", "o"], ["q", "k", "v", "o"]):
        right = layers * sum(cost[target] for target in targets)
        name = laws.get(targets[0] if len(targets) == 1 else "", "Every target counts in every layer")
        got = answer(layers, d, narrow, targets, r)
        expect(name, f"the count for {', '.join(targets)}", got, right)


attention_count = Exercise(
    title="A whole model",
    points=2,
    statement="""\
In each of its `layers`, attention has four matrices: `"q"` and `"o"` are $d \\times d$; `"k"` and `"v"` are
$d_{\\text{kv}} \\times d$, narrower than the model where heads share keys and values (*grouped-query attention*).

Return how many numbers LoRAs of rank `r` on the `targets` of all layers take. Llama 3 with 8 billion parameters has 32 layers,
$d = 4096$ and $d_{\\text{kv}} = 1024$; at rank 8 on `["q", "v"]` it is 3,407,872.""",
    stub='''\
def attention_count(layers, d, d_kv, targets, r):
    """Numbers in LoRAs of rank r on the targets, some of "q", "k", "v", "o", of every layer."""
    ...
''',
    hints=(
        "A matrix with $d_{\\text{kv}}$ rows and $d$ columns costs $r\\,(d_{\\text{kv}} + d)$.",
        'A dict from target to rows, `{"q": d, "k": d_kv, "v": d_kv, "o": d}`, and one sum over the targets.',
    ),
    check=check_attention_count,
    forbids=COUNTERS,
)


def check_training_bytes(answer: Answer, rng: Generator) -> None:
    base, trained = int(rng.integers(10**6, 10**9)), int(rng.integers(10**3, 10**6))
    first = whole("the bytes", answer(base, trained))
    per_base = whole("the bytes", answer(base + 1, trained)) - first
    per_trained = whole("the bytes", answer(base, trained + 1)) - first
    law(
        "A frozen number takes its 2 bytes and nothing else",
        per_base == 2,
        f"one more frozen number adds {per_base} bytes",
    )
    law(
        "A trained number takes itself, its gradient and two moments, 4 bytes each",
        per_trained == 16,
        f"one more trained number adds {per_trained} bytes",
    )
    expect("The base and what is trained add up", "the bytes", first, 2 * base + 16 * trained)


training_bytes = Exercise(
    title="Memory for training",
    points=2,
    statement="""\
A frozen model of `base` numbers is kept in bfloat16, 2 bytes each. Beside it, `trained` numbers of a LoRA are trained by Adam in
float32, 4 bytes each, with a gradient and two moments of the same kind.

Return how many bytes that is, activations not counted. Compare rank 8 and rank 64 on Llama 2 7B: how much does the rank matter?""",
    stub='''\
def training_bytes(base, trained):
    """Bytes of a frozen bfloat16 model and of float32 numbers trained by Adam."""
    ...
''',
    hints=(
        "Does a frozen number need a gradient? Does it have moments?",
        "A trained number takes four places in memory: itself, its gradient, and two moments.",
    ),
    check=check_training_bytes,
)

TITLE = "Count parameters"
EXERCISES = (lora_count, last_rank_that_saves, rank_within, attention_count, training_bytes)
