"""Exercises of *Adapt a real model*."""

from __future__ import annotations

import numpy as np

from lora_np.exercises.asking import Answer, Exercise
from lora_np.exercises.laws import law, parts, real_array, same
from lora_np.exercises.samples import of_rank, sizes
from lora_np.linalg import optimal_losses

Generator = np.random.Generator


def check_share_recovered(answer: Answer, rng: Generator) -> None:
    full = float(rng.uniform(0.5, 1))
    base = full + float(rng.uniform(0.3, 2))
    same("A LoRA as good as the full update recovers all: 1", "the share", answer(base, full, full), 1.0)
    same("A LoRA that changes nothing recovers nothing", "the share", answer(base, full, base), 0.0)
    for share in (float(rng.uniform(0.2, 0.9)), 1.1, -0.2):
        lora = base - share * (base - full)
        same(
            "The share is the gain of LoRA over the gain of the full update",
            "the share",
            answer(base, full, lora),
            share,
        )


share_recovered = Exercise(
    title="How much of the gain",
    points=1,
    statement="""\
On new data a model has the error `base`. After full training it has the error `full`, after LoRA the error `lora`. Which share of the
gain that was possible has LoRA brought? 0 is none, 1 is all; it may be above 1 or below 0.""",
    stub='''\
def share_recovered(base, full, lora):
    """The gain of LoRA as a share of the gain of full training."""
    ...
''',
    hints=("A gain is a difference of errors. Both start at `base`.", "`(base - lora) / (base - full)`"),
    check=check_share_recovered,
)


def check_cross_entropy(answer: Answer, rng: Generator) -> None:
    n, classes = sizes(rng, 2, 3, 8)
    logits, labels = 2 * rng.normal(size=(n, classes)), rng.integers(0, classes, n)
    even = np.zeros((n, classes))
    same(
        "A model that knows nothing pays the logarithm of the number of classes",
        "the loss",
        answer(even, labels),
        np.log(classes),
    )
    right = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(n), labels])
    same(
        "The loss is the mean of minus the logarithm of the probability of the right class",
        "the loss",
        answer(logits, labels),
        right,
    )
    shift = 1000.0 * rng.choice([-1, 1], (n, 1))
    same(
        "Adding a number to a row of logits does not change the loss, however large it is",
        "the loss",
        answer(logits + shift, labels),
        right,
    )


cross_entropy = Exercise(
    title="A loss for digits",
    points=2,
    statement="""\
A model of handwritten digits gives ten numbers for a picture, the *logits* $x$. The probability of class $c$ is
$e^{x_c} / \\sum_j e^{x_j}$. The loss of a picture is minus the (natural) logarithm of the probability of its right class.

Return the mean loss of a batch: `logits` is $n \\times \\text{classes}$, `labels` holds $n$ classes. Logits of 1,000 must not
overflow.""",
    stub='''\
def cross_entropy(logits, labels):
    """The mean of -log(probability of the right class)."""
    ...
''',
    hints=(
        "$-\\log p = \\log \\sum_j e^{x_j} - x_c$. The probabilities do not change if a number is subtracted from the whole row.",
        "Subtract the largest logit of each row first. Then no exponential is above 1.",
    ),
    check=check_cross_entropy,
    forbids=("lora_np.cross_entropy",),
)


def check_forget_nothing(answer: Answer, rng: Generator) -> None:
    k = int(rng.integers(6, 12))
    r, known = int(rng.integers(1, 4)), int(rng.integers(2, 5))
    A, X = rng.normal(size=(r, k)), of_rank(rng, known + 1, k, known)  # one input is a mixture of others
    got = real_array("the new A", answer(A, X), (r, k))
    same("On the old inputs the update must say nothing", "A x", got @ X.T, np.zeros((r, known + 1)), size=1)
    new = rng.normal(size=k)
    new -= np.linalg.pinv(X) @ (X @ new)
    same("On inputs at right angles to all old ones the update stays what it was", "A x", got @ new, A @ new)


forget_nothing = Exercise(
    title="Forget nothing",
    points=3,
    statement="""\
An update $BA$ changes what the model says on the inputs that it was trained on before, the rows of `X` ($m \\times k$, $m < k$). But
the update sees an input only through $A$.

Return a new `A` of the same shape that gives exactly zero for every row of `X`, and the same as before for every input at right
angles to all of them. Rows of `X` may be mixtures of other rows.""",
    stub='''\
def forget_nothing(A, X):
    """A (r, k) made blind to the rows of X (m, k), and otherwise the same."""
    ...
''',
    hints=(
        "Every input has a part in the space of the rows of `X` and a part at right angles to it. `A` may only see the second.",
        "With orthonormal columns `Q` that span the rows of `X` (`lora_np.column_space(X.T)`), $x - QQ^T x$ is that part. So "
        "$A - A Q Q^T$.",
    ),
    check=check_forget_nothing,
)


def check_best_update(answer: Answer, rng: Generator) -> None:
    d, k = sizes(rng, 2, 4, 7)
    r, n = int(rng.integers(1, min(d, k))), 80
    X = rng.normal(size=(n, k)) * np.geomspace(1, 30, k)
    W0 = rng.normal(size=(d, k))
    Y = X @ (W0 + rng.normal(size=(d, k))).T + 0.1 * rng.normal(size=(n, d))
    B, A = parts(["B", "A"], answer(X, Y, W0, r))
    B, A = real_array("B", B, (d, r)), real_array("A", A, (r, k))
    loss = float(np.mean(np.square(Y - X @ (W0 + B @ A).T)))
    losses = optimal_losses(X, Y, W0=W0)
    law(
        "An update is better than none",
        loss < losses[0],
        f"the loss is {loss:.4g}, without update {losses[0]:.4g}",
    )
    law(
        "No B A of rank r has a smaller loss than the SVD, cut where the inputs are white",
        loss <= losses[r] * (1 + 1e-6),
        f"at r = {r} the loss is {loss:.6g}, the least possible {losses[r]:.6g}",
    )


best_update = Exercise(
    title="The best that any LoRA can do",
    points=3,
    statement="""\
Rows of `X` ($n \\times k$) are inputs, rows of `Y` ($n \\times d$) targets. Return the `B` and `A` of rank `r` with the least mean
squared error of $X (W_0 + BA)^T$, in closed form.

The inputs are far from white, so the least-squares update, cut by the SVD, is **not** the best. Turn the inputs into white ones, cut
there, and turn back.""",
    stub='''\
def best_update(X, Y, W0, r):
    """B (d, r) and A (r, k) that minimise ||Y - X (W0 + B A)^T||."""
    ...
''',
    hints=(
        "With `Q, R = np.linalg.qr(X)` the loss of an update $D$ is a constant plus $\\|(D^* - D) R^T\\|^2$, where $D^*$ is the "
        "least-squares update of `Y - X @ W0.T`. Which matrix should you cut?",
        "Cut $D^* R^T$, which is `(Q.T @ (Y - X @ W0.T)).T`. `B` is its first `r` left singular vectors; `A` is the rest, times the "
        "inverse of $R^T$.",
    ),
    check=check_best_update,
    forbids=("lora_np.reduced_rank_regression",),
)

TITLE = "Adapt a real model"
EXERCISES = (share_recovered, cross_entropy, forget_nothing, best_update)
