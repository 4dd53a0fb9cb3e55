"""Exercises of *Look inside an update*."""

from __future__ import annotations

import numpy as np

from lora_np.exercises.asking import Answer, Exercise
from lora_np.exercises.laws import law, real_array, same
from lora_np.exercises.samples import sizes, with_spectrum
from lora_np.linalg import amplification_factor, subspace_similarity

Generator = np.random.Generator
HALF = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2


def check_chance(answer: Answer, rng: Generator) -> None:
    k = int(rng.integers(20, 500))
    i, j = (int(n) for n in rng.choice(np.arange(1, 20), 2, replace=False))
    same("All of space contains every direction: similarity 1", "the similarity", answer(k, i, k), 1.0)
    same(
        "Two random directions share 1/k: the squares of a random cosine with k axes add up to one",
        "the similarity",
        answer(k, 1, 1),
        1 / k,
    )
    same(
        "A random subspace holds its share of every direction",
        "the similarity",
        answer(k, i, j),
        max(i, j) / k,
    )


chance_similarity = Exercise(
    title="What chance gives",
    points=1,
    statement="""\
$\\phi = \\|V_1^T V_2\\|_F^2 / \\min(i, j)$ measures how much of two subspaces, of dimensions $i$ and $j$, is shared.
Two adapters have $\\phi = 0.1$. Is that much?

Return what $\\phi$ is on average for two **random** subspaces of a space of `k` dimensions. A number with nothing to compare it
to says nothing.""",
    stub='''\
def chance_similarity(k, i, j):
    """The average similarity of random subspaces of dimensions i and j in k dimensions."""
    ...
''',
    hints=(
        "The square of the cosine of two random directions is $1/k$ on average. How many pairs of directions are there?",
        "$i\\,j / k$, divided by the smaller of $i$ and $j$.",
    ),
    check=check_chance,
)


def check_similarity(answer: Answer, rng: Generator) -> None:
    k, r = int(rng.integers(8, 14)), int(rng.integers(3, 6))
    A1 = with_spectrum(rng, r, k, np.linspace(5, 1, r))
    A2 = with_spectrum(rng, r, k, np.linspace(7, 2, r))
    i, j = (int(n) for n in rng.choice(np.arange(1, r), 2, replace=False)) if r > 2 else (1, 1)
    same("A subspace contains itself: similarity 1", "phi", answer(A1, A1, i, i), 1.0)
    same("A subspace is contained in a larger one: similarity 1", "phi", answer(A1, A1, 1, r), 1.0)
    turn = np.linalg.qr(rng.normal(size=(r, r)))[0]
    same(
        "Input directions do not change when the rows of A are turned",
        "phi",
        answer(turn @ A1, A1, i, i),
        1.0,
    )
    same(
        "phi is the squared norm of V1^T V2, over the smaller dimension",
        "phi",
        answer(A1, A2, i, j),
        subspace_similarity(A1, A2, i, j),
    )


similarity = Exercise(
    title="Do two adapters agree?",
    points=2,
    statement="""\
`A1` and `A2` are the $A$ of two adapters, $r \\times k$ each. With $V_1$ the top `i` right singular vectors of `A1` as columns, and
$V_2$ the top `j` of `A2`, return

$$\\phi = \\|V_1^T V_2\\|_F^2 \\,/\\, \\min(i, j).$$""",
    stub='''\
def similarity(A1, A2, i, j):
    """How much of the top i input directions of A1 and the top j of A2 is shared, from 0 to 1."""
    ...
''',
    hints=(
        "Right singular vectors are the rows of `Vh`, and live in the space of inputs, which has $k$ dimensions.",
        "`np.square(Vh1[:i] @ Vh2[:j].T).sum() / min(i, j)`",
    ),
    check=check_similarity,
    forbids=("lora_np.linalg.subspace_similarity", "lora_np.linalg.similarity_grid"),
)


def check_amplification(answer: Answer, rng: Generator) -> None:
    d, k = sizes(rng, 2, 6, 10)
    r = int(rng.integers(1, 4))
    W0, dW = rng.normal(size=(d, k)), with_spectrum(rng, d, k, np.linspace(3, 2, r))
    right = amplification_factor(W0, dW, rank=r)
    got = float(real_array("the factor", answer(W0, dW, r), ()))
    same("Twice the update, twice the amplification", "the factor", answer(W0, 2 * dW, r), 2 * got)
    same("Twice the base, half the amplification", "the factor", answer(2 * W0, dW, r), got / 2)
    same(
        "Amplification compares the update with W0, seen in the update's directions", "the factor", got, right
    )


amplification = Exercise(
    title="What does the update make louder?",
    points=2,
    statement="""\
With $U$ and $V$ the top `r` left and right singular vectors of the update `dW`, as columns, $U^T W_0 V$ is what `W0` does in the
directions of the update. Return the amplification factor

$$\\|\\Delta W\\|_F \\,/\\, \\|U^T W_0 V\\|_F.$$""",
    stub='''\
def amplification(W0, dW, r):
    """How much louder dW is than W0 in the top r directions of dW."""
    ...
''',
    hints=(
        "The SVD of which matrix gives the directions?",
        "`np.linalg.norm(dW) / np.linalg.norm(U[:, :r].T @ W0 @ Vh[:r].T)`",
    ),
    check=check_amplification,
    forbids=("lora_np.linalg.amplification_factor",),
)


def check_intruders(answer: Answer, rng: Generator) -> None:
    n = int(rng.integers(9, 13))
    U, V = (np.linalg.qr(rng.normal(size=(n, n)))[0] for _ in range(2))
    s = np.linspace(n, 1, n)
    new = np.linalg.qr(rng.normal(size=(n, n)))[0]  # right vectors say nothing here
    order = np.concatenate([rng.permutation(n - 4), np.arange(n - 4, n)])
    mixed = U[:, order] * rng.choice([-1.0, 1.0], n)
    mixed[:, n - 4 :] = U[:, n - 4 :] @ HALF  # each at 60 degrees to four of the old ones
    places = rng.permutation(n)
    tuned = mixed[:, places]
    top = int(rng.integers(5, n))
    right = [j for j in range(top) if places[j] >= n - 4]
    W0, W = (U * s) @ V.T, (tuned * s) @ new.T
    got = sorted(real_array("the list", answer(W0, W, top, 0.6), (None,)).tolist())
    law(
        "An intruder is a leading left singular vector of W that is close to none of W0's, whatever its place or sign",
        got == right,
        f"places {right} hold intruders, got {got}",
    )
    law("A weight has no intruders in itself", np.size(answer(W0, W0, top, 0.6)) == 0)


intruders = Exercise(
    title="Find the intruders",
    points=2,
    statement="""\
A leading left singular vector of the tuned weight `W` is an *intruder* if the absolute value of its cosine with **every** left
singular vector of `W0` is below the `threshold`. Return the places of the intruders among the `top` leading singular vectors of `W`,
as a list counted from 0.""",
    stub='''\
def intruders(W0, W, top, threshold):
    """Which of the top left singular vectors of W are close to none of W0's: a list of places."""
    ...
''',
    hints=(
        "Singular vectors have length one, so all cosines are one matrix product. The order in the two spectra need not be the same.",
        "`np.abs(U0.T @ U[:, :top])` has a column for each candidate. Its largest entry decides.",
    ),
    check=check_intruders,
    forbids=("lora_np.linalg.intruder_dimensions",),
)

TITLE = "Look inside an update"
EXERCISES = (chance_similarity, similarity, amplification, intruders)
