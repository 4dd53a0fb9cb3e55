"""Exercises of *Choose rank, alpha and initialisation*."""

from __future__ import annotations

import numpy as np

from lora_np.exercises.asking import Answer, Exercise
from lora_np.exercises.laws import law, orthonormal, parts, real_array, same, whole
from lora_np.exercises.samples import sizes, with_spectrum

Generator = np.random.Generator


def check_alpha_for_rank(answer: Answer, rng: Generator) -> None:
    alpha, r = float(rng.integers(4, 65)), int(rng.integers(2, 9))
    r_new = r * int(rng.choice([4, 9]))
    same(
        "With LoRA, the scale is alpha / r",
        "the new alpha",
        answer(alpha, r, r_new, "lora"),
        alpha * r_new / r,
    )
    same(
        "With rsLoRA, the scale is alpha / sqrt(r)",
        "the new alpha",
        answer(alpha, r, r_new, "rslora"),
        alpha * np.sqrt(r_new / r),
    )


alpha_for_rank = Exercise(
    title="Keep the scale",
    points=1,
    statement="""\
You have trained with `alpha` at rank `r`. Which alpha gives the same scale at rank `r_new`? (The lesson shows that the same scale
need not be the best one.) The scale is $\\alpha / r$ for the `rule`
`"lora"`, and $\\alpha / \\sqrt r$ for `"rslora"`.""",
    stub='''\
def alpha_for_rank(alpha, r, r_new, rule):
    """The alpha that has the same scale at rank r_new; rule is "lora" or "rslora"."""
    ...
''',
    hints=(
        "Write down that both scales are equal, and solve for the new alpha.",
        "`alpha * r_new / r`, and the root of the ratio for the other rule.",
    ),
    check=check_alpha_for_rank,
)


def check_pissa_start(answer: Answer, rng: Generator) -> None:
    d, k = sizes(rng, 2, 4, 8)
    s = np.cumsum(rng.uniform(0.3, 1, min(d, k)))[::-1]
    r, alpha = int(rng.integers(1, len(s))), float(rng.uniform(3, 20))
    W0 = with_spectrum(rng, d, k, s)
    W, B, A = parts(["W", "B", "A"], answer(W0, r, alpha))
    W, B, A = real_array("W", W, (d, k)), real_array("B", B, (d, r)), real_array("A", A, (r, k))
    update = alpha / r * B @ A
    same("Training starts at W0: W + (alpha / r) B A = W0", "W + (alpha / r) B A", W + update, W0)
    error = np.linalg.norm(W0 - update)
    law(
        "PiSSA trains the strongest parts of W0 and freezes the rest",
        bool(error <= np.sqrt(np.square(s[r:]).sum()) * (1 + 1e-8)),
        f"what is frozen has norm {error:.4g}, the least possible is {np.sqrt(np.square(s[r:]).sum()):.4g}",
    )
    same("B and A have equal weight: B^T B = A A^T", "B^T B", B.T @ B, A @ A.T)


pissa_start = Exercise(
    title="Start from the SVD",
    points=2,
    statement="""\
PiSSA starts where `W0` is strongest. $\\frac{\\alpha}{r} BA$ is the best approximation of rank `r` to `W0`, with $B^T B = A A^T$, and
what is frozen is the rest, `W`. Together they are still `W0`.

Return `W`, `B`, `A`.""",
    stub='''\
def pissa_start(W0, r, alpha):
    """W (d, k), B (d, r) and A (r, k) with W + (alpha / r) B @ A = W0."""
    ...
''',
    hints=(
        "Two balanced factors of the best approximation of rank `r`, as in *Cut the SVD*. But the layer multiplies them by $\\alpha / r$.",
        "Divide the singular values by $\\alpha / r$ before you take their root. Then `W = W0 - alpha / r * B @ A`.",
    ),
    check=check_pissa_start,
)


def check_olora_start(answer: Answer, rng: Generator) -> None:
    d, k = sizes(rng, 2, 4, 8)
    r = int(rng.integers(1, min(d, k)))
    W0 = rng.normal(size=(d, k))
    W, B, A = parts(["W", "B", "A"], answer(W0, r))
    W, B, A = real_array("W", W, (d, k)), real_array("B", B, (d, r)), real_array("A", A, (r, k))
    same("Training starts at W0: W + B A = W0", "W + B A", W + B @ A, W0)
    orthonormal("B", B)
    same("QR explains the first r columns of W0", "B A", (B @ A)[:, :r], W0[:, :r])
    same("What is frozen is at a right angle to B", "B^T W", B.T @ W, np.zeros((r, k)), size=1)


olora_start = Exercise(
    title="Start from a QR",
    points=2,
    statement="""\
OLoRA starts from $W_0 = QR$: `B` is the first `r` columns of $Q$, which are orthonormal, and `A` the first `r` rows of $R$. What is
frozen is the rest, `W`, so that $W + BA = W_0$ (here with $\\alpha = r$).

Return `W`, `B`, `A`.""",
    stub='''\
def olora_start(W0, r):
    """W (d, k), B (d, r) with orthonormal columns, and A (r, k) with W + B @ A = W0."""
    ...
''',
    hints=("It is *Read a QR backwards* of lesson 2.", "`W` is `W0 - B @ A`."),
    check=check_olora_start,
)


def check_dora_weight(answer: Answer, rng: Generator) -> None:
    d, k = (int(n) for n in rng.choice(np.arange(3, 9), 2, replace=False))
    r, alpha = 2, float(rng.uniform(3, 9))
    W0, A, B = rng.normal(size=(d, k)), rng.normal(size=(r, k)), rng.normal(size=(d, r))
    m = rng.uniform(1, 3, d)
    lengths = np.linalg.norm(W0, axis=1)
    same(
        "With B = 0 and m the lengths of the rows of W0, DoRA is W0",
        "W",
        answer(W0, A, 0 * B, lengths, alpha),
        W0,
    )
    W = real_array("W", answer(W0, A, B, m, alpha), (d, k))
    same("Row i of W has length m[i]", "the lengths", np.linalg.norm(W, axis=1), m)
    V = W0 + alpha / r * B @ A
    same(
        "The directions of the rows are those of W0 + (alpha / r) B A",
        "W",
        W,
        (m / np.linalg.norm(V, axis=1))[:, None] * V,
    )


dora_weight = Exercise(
    title="Magnitude and direction",
    points=2,
    statement="""\
DoRA takes each row of the weight apart, into a length and a direction. The direction is that of the row of
$V = W_0 + \\frac{\\alpha}{r} BA$, the length is trained by itself, in `m`:

$$W_i = m_i\\, V_i / \\|V_i\\|$$

Return the merged weight $W$.""",
    stub='''\
def dora_weight(W0, A, B, m, alpha):
    """The weight (d, k) whose row i has the direction of W0 + (alpha / r) B @ A and the length m[i]."""
    ...
''',
    hints=(
        "`np.linalg.norm(V, axis=...)` gives one number for each row. Which axis is summed?",
        "A vector of shape $(d,)$ scales rows if it is made a column: `(m / lengths)[:, None] * V`.",
    ),
    check=check_dora_weight,
)


def check_smallest_good_rank(answer: Answer, rng: Generator) -> None:
    ranks = [1, 2, 4, 8, 16, 32]
    seeds = int(rng.integers(4, 9))
    best, good = int(rng.integers(3, 6)), int(rng.integers(1, 3))
    spread = rng.normal(size=(len(ranks), seeds))
    spread = spread - spread.mean(axis=1, keepdims=True)
    spread = spread / spread.std(axis=1, ddof=1, keepdims=True)  # so that the standard error is known
    error = 1 / np.sqrt(seeds)
    means = 10 + np.where(np.arange(len(ranks)) < good, (seeds**0.5 + 3) * error, 0.7 * error)
    means[0] += 5
    means[best] = 10
    if good > 1:
        means[good - 1] = 10 + 1.4 * error  # within a standard deviation, not within a standard error
    losses = means[:, None] + spread
    order = rng.permutation(len(ranks))
    got = whole("the rank", answer([ranks[i] for i in order], losses[order]))
    law(
        "Take the smallest rank whose mean is within one standard error of the best mean",
        got == ranks[good],
        f"it must be {ranks[good]}, got {got}",
    )


smallest_good_rank = Exercise(
    title="Read a sweep",
    points=2,
    statement="""\
A sweep has trained each of the `ranks` with several seeds: `losses[i]` are the losses of `ranks[i]`. The rank with the lowest mean is
the best by luck as much as by merit. A common rule: take the **smallest** rank whose mean is at most the best mean plus one
standard error of the best.

The standard error of $n$ losses is their standard deviation (with $n - 1$ in the denominator), divided by $\\sqrt n$. Ranks come in
any order.""",
    stub='''\
def smallest_good_rank(ranks, losses):
    """The smallest rank within one standard error of the best; losses is (number of ranks, seeds)."""
    ...
''',
    hints=(
        "Means along the seeds first. Then the place of the best mean, and the standard error of the losses there.",
        "`losses[best].std(ddof=1) / np.sqrt(losses.shape[1])`. Then `min` over the ranks whose mean is small enough.",
    ),
    check=check_smallest_good_rank,
)

TITLE = "Choose rank, alpha and initialisation"
EXERCISES = (alpha_for_rank, pissa_start, olora_start, dora_weight, smallest_good_rank)
