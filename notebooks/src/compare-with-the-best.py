# %% [markdown]
# # Compare with the best possible
#
# You have trained a LoRA, and its error is low. Is it low because training worked well, or because the task is easy? To find out, you need
# the best possible $BA$. For a single matrix and squared error, a formula gives it.
#
# **How close does training come to the best $BA$ of its rank?**
#
# After this lesson you can
#
# - compute the best update of each rank, and say why it is not the truncated SVD of the full update,
# - compare a trained LoRA with the best update,
# - say what a LoRA learns first, and how much freezing $A$ costs.
#
# You need *Cut the SVD* and *Train h = W0 x + BAx*.

# %%
import matplotlib.pyplot as plt
import numpy as np

import lora_np as lnp
from lora_np.plots import FULL, INK, LORA, MUTED
from lora_np.table import Table

# %% [markdown]
# ## Two inputs on paper
#
# Let $W_0$ be zero. The input $(3, 0)$ should give $(3, 0)$, and $(0, 1)$ should give $(0, 2)$. The best update without a limit on its rank
# has no error:
#
# $$
# \Delta_* = \begin{pmatrix} 1 & 0 \\ 0 & 2 \end{pmatrix}
# $$
#
# Now allow only rank 1. The truncated SVD of this update keeps the 2. Then $(3, 0)$ gives zero, and the squared error is 9. If you keep the
# 1 instead, $(0, 1)$ gives zero, and the squared error is 4. **So the best update of rank 1 is not the truncated full
# update.**<!-- proof: an error of 9 against 4 --> The 1 belongs to the stronger input.
#
# As in *Cut the SVD*, a circle becomes an ellipse, and the thick line is the part that rank 1 keeps. The left picture shows the update
# alone. The right picture shows the update applied to inputs of strength 3 and 1.

# %% alt="Left, the update alone: a circle becomes an ellipse whose longer half axis, 2, is that of output 2. Right, the update on the inputs as they are: the longer half axis, 3, is that of output 1. A thick line marks what a cut to rank 1 keeps: output 2 on the left, output 1 on the right."
best_of_all, strengths = np.diag([1.0, 2.0]), np.diag([3.0, 1.0])
around = np.linspace(0, 2 * np.pi, 200)
circle = np.stack([np.cos(around), np.sin(around)])
_, panels = plt.subplots(1, 2, figsize=(6.6, 3.2), layout="constrained", sharex=True, sharey=True)
pairs = [("the update", best_of_all), ("the update on the inputs", best_of_all @ strengths)]
for axes, (name, M) in zip(panels, pairs, strict=True):
    U, s, _ = np.linalg.svd(M)
    lnp.plots.axes(axes).plot(*M @ circle, color=MUTED)
    axes.plot(*np.outer(U[:, 0] * s[0], [-1, 1]), color=LORA, linewidth=4)
    axes.set(title=name, xlabel="output 1", ylabel="output 2", aspect="equal")

X, Y = np.diag([3.0, 1.0]), np.diag([3.0, 2.0])
B, A = lnp.reduced_rank_regression(X, Y, rank=1)
print("the best of rank 1:", (B @ A).round(6).tolist())
assert np.allclose(B @ A, [[1, 0], [0, 0]])

# %% [markdown]
# ## The best of each rank, in two lines
#
# The $n$ inputs are the rows of $X$. The matrix $C = X^T X / n$ says how strong the inputs are in each direction: it holds the mean product
# of every two entries of an input (their **covariance**, if their mean is zero). $C^{1/2}$ is a matrix whose square is $C$. Like $C$, it
# stretches without turning: where $C$ stretches a direction by $c$, $C^{1/2}$ stretches it by $\sqrt c$, and its inverse $C^{-1/2}$ by
# $1 / \sqrt c$. (To compute $C^{1/2}$, take the roots of the singular values of $C$.) In our example, $n = 2$,
# $C = \tfrac12 \begin{pmatrix} 9 & 0 \\ 0 & 1 \end{pmatrix}$ and
# $C^{1/2} = \tfrac{1}{\sqrt 2} \begin{pmatrix} 3 & 0 \\ 0 & 1 \end{pmatrix}$.
#
# 1. Let $\Delta_*$ be the best update of any rank. As in *Factor a matrix*, its output is the nearest point to the targets, so its error is
#    orthogonal to everything that an update can add. By Pythagoras, the squared error of any $\Delta$ is the squared error of $\Delta_*$
#    plus $\|X (\Delta - \Delta_*)^T\|^2$. This equals $n\,\|(\Delta - \Delta_*)\,C^{1/2}\|^2$, since $X^T X = n\,C^{1/2} C^{1/2}$.
#
# 2. $\Delta\,C^{1/2}$ has the same rank as $\Delta$, and can be any matrix of this rank. So the best choice is the SVD of
#    $\Delta_* C^{1/2}$, truncated to rank $r$ (Eckart and Young). Multiply it by $C^{-1/2}$ to get the update:
#
# $$
# \Delta_r = [\Delta_* C^{1/2}]_r\, C^{-1/2}
# $$
#
# This is **reduced-rank regression** (Izenman, 1975). Inputs are **white** if they are equally strong in all directions and not
# **correlated** (the mean product of any two entries is zero). Then $C$ is a multiple of the **identity**, the matrix with ones on the
# diagonal and zeros elsewhere, and the formula gives the truncated SVD of $\Delta_*$. (The second step needs a $C$ that has an inverse. A
# **ridge**, a small number added to the diagonal of $C$, guarantees this, and keeps the update small.)
#
# ## Every rank, white inputs and others
#
# Does training find this optimum? Start with a small problem: 10 outputs, 12 inputs and a known update. The inputs are first white, and then
# stretched, up to 10 times as strong in one direction as in another. We train LoRA at **every** rank from 1 to 10 and compare it with the
# formula (`optimal_losses`) and with the truncated full update.

# %%
rng = np.random.default_rng(1)
update = rng.normal(size=(10, 12)) / 12**0.5
white = 400**0.5 * np.linalg.qr(rng.normal(size=(400, 12)))[0]
assert np.allclose(
    white.T @ white / 400, np.eye(12)
)  # equally strong in all directions, not correlated
stretched = white * np.geomspace(1, 10, 12) / 4


def cut_full_update(x, y):
    """Loss of the full update, its SVD truncated to each rank."""
    B, A = lnp.reduced_rank_regression(x, y)  # at full rank: the best update of all
    U, s, Vh = np.linalg.svd(B @ A, full_matrices=False)
    cuts = [(U[:, :rank] * s[:rank]) @ Vh[:rank] for rank in range(11)]
    return np.array([np.mean((x @ cut.T - y) ** 2) for cut in cuts])


def train_every_rank(x, y, report):
    losses = {}
    for rank in range(1, 11):
        model = lnp.inject(lnp.Linear(np.zeros((10, 12))), rank=rank, alpha=rank, rng=rng)
        optimizer = lnp.Adam(lr=lnp.cosine_schedule(0.05, steps=800))
        model = lnp.fit(model, x, y, optimizer=optimizer, steps=800, progress=False).model
        losses[rank] = lnp.mean_squared_error(lnp.freeze(model)(x), y)
        report(rank, losses[rank])
    return losses


# %% alt="Loss against rank in two panels. With white inputs the optimum, the truncated full update and the trained updates are one curve. With stretched inputs the truncated full update lies well above the optimum at ranks 1 to 6, and the trained updates lie on the optimum." tags=["cover"]
_, panels = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
results = {}
with lnp.course.live_figure(panels[0].figure) as put:
    for axes, (name, inputs) in zip(
        panels, {"white inputs": white, "stretched inputs": stretched}.items(), strict=True
    ):
        targets = inputs @ update.T
        optimum, cut = lnp.linalg.optimal_losses(inputs, targets), cut_full_update(inputs, targets)
        lnp.plots.axes(axes).set(
            title=name, xlabel="rank of the update", ylabel="mean squared error"
        )
        axes.plot(optimum, color=LORA, label="best possible")
        axes.plot(cut, "--", color=FULL, label="full update, truncated")
        points = axes.plot([], [], "o", color=INK, markersize=4, label="trained")[0]
        panels[0].legend(frameon=False, fontsize=9)
        trained = train_every_rank(
            inputs, targets, lambda rank, loss, points=points: put(points, rank, loss)
        )
        results[name] = optimum, cut, trained

# %%
rows = []
for name, (optimum, cut, trained) in results.items():
    ranks = np.arange(1, 10)
    found = np.array([trained[rank] for rank in ranks])
    rows.append((name, np.max(found / optimum[ranks]) - 1, np.max(cut[ranks] / optimum[ranks]) - 1))
    assert rows[-1][1] < 0.005

formats = dict.fromkeys(["trained", "full update, truncated"], "{:.0%}".format)
title = "How far above the optimum, at the worst rank"
Table(["", *formats], rows, title=title, formats=formats)

# %% [markdown]
# With white inputs, the truncated full update is the optimum, and training finds it. With stretched inputs, the truncated full update is no
# longer optimal. Training still finds the optimum at every rank, because it lowers the loss itself.
#
# ## What is learned first
#
# $B$ starts at zero. So after one step of gradient descent at a learning rate of $\eta$, $\Delta W = -\eta\, G A^T A$, where $G$ is the
# gradient that a full update would have had. $A^T A$ is a random matrix that lets only $r$ directions through. **A LoRA's first step
# follows the full gradient, but only the part that its $A$ lets through.**<!-- proof: after one step the update is a multiple of G A^T
# A -->
#
# And where does training end? It ends at the exact optimum of its rank: if $C$ has an inverse, this loss has saddles but no other valleys
# (Baldi and Hornik, 1989). The figure compares $\Delta W$ with the full gradient and the optimum by the **cosine** of the angle between
# matrices as long vectors: the sum of the products of their entries, divided by both norms. The cosine is 1 for the same direction and 0
# for orthogonal directions. We train rank 4 on the stretched inputs by plain gradient descent:

# %% alt="Cosine of B A against step, on a logarithmic scale from 1 to 10,000. With the first full gradient it rises to 0.8 within the first hundred steps and then falls to 0.73. With the exact optimum it rises later, crosses the first, and ends at 1."
x, y, rank = stretched, stretched @ update.T, 4
A, B = np.random.default_rng(0).normal(size=(rank, 12)) / 12**0.5, np.zeros((10, rank))
first = 2 * y.T @ x / y.size  # minus the gradient that a full update would start with
best_B, best_A = lnp.reduced_rank_regression(x, y, rank=rank)


def cosine(M, N):
    return np.sum(M * N) / np.linalg.norm(M) / np.linalg.norm(N)


steps, with_first, with_best = [], [], []
shown = set(np.unique(np.geomspace(1, 10_000, 60).astype(int)))
gram, target = x.T @ x, y.T @ x
for step in range(1, 10_001):
    G = 2 * (B @ A @ gram - target) / y.size
    B, A = B - 0.3 * G @ A.T, A - 0.3 * B.T @ G
    if step in shown:
        steps.append(step)
        with_first.append(cosine(B @ A, first))
        with_best.append(cosine(B @ A, best_B @ best_A))
print(
    f"first step:  with the full gradient {with_first[0]:.2f}, with the optimum {with_best[0]:.2f}"
)
print(
    f"last step:   with the full gradient {with_first[-1]:.2f}, with the optimum {with_best[-1]:.2f}"
)
assert with_first[0] > with_best[0] + 0.1
assert with_best[-1] > 0.9999
assert np.isclose(with_first[-1], cosine(first, best_B @ best_A), atol=1e-3)
curves = {"first full gradient": (steps, with_first), "exact optimum": (steps, with_best)}
axes = lnp.plots.lines(curves, xlabel="step", ylabel="cosine with B A", logarithmic="x")

# %% [markdown]
# ## A frozen A
#
# $A$ chooses $r$ directions of the input before training has seen any data. How important is it that $A$ learns better directions? Freeze a
# random $A$ and train only $B$, with $Ax$ as its inputs. The best $B$ has the smallest sum of squared errors, and **least squares** finds
# it:

# %% alt="Share of the full update's gain against the rank. With A trained it is 0.5 at rank 1 and 0.93 at rank 4. With A frozen at random it is 0.2 at rank 1, 0.65 at rank 4, 0.94 at rank 9, and all only at rank 12."
optimum = lnp.linalg.optimal_losses(x, y)
frozen = []
for r in range(1, 13):
    losses = []
    for seed in range(20):
        A = np.random.default_rng(seed).normal(size=(r, 12))
        B = np.linalg.lstsq(x @ A.T, y, rcond=None)[0].T
        losses.append(np.mean((x @ A.T @ B.T - y) ** 2))
    frozen.append(np.mean(losses))
shares = {
    "A trained": (np.arange(1, 11), 1 - optimum[1:11] / optimum[0]),
    "A frozen at random": (np.arange(1, 13), 1 - np.array(frozen) / optimum[0]),
}
axes = lnp.plots.lines(shares, xlabel="rank", ylabel="share of the full update's gain")
assert frozen[3] > 2 * optimum[4]
assert frozen[11] < 1e-12

# %% [markdown]
# With $A$ frozen, at ranks 1 to 5 you need two to three times the rank here, and less at higher ranks. (Freezing saves memory, because the
# gradient of $B$ needs only the $r$ entries of $Ax$. But for a model that reads handwritten digits, it nearly doubled the loss:
# `lora-np claims frozen-a`.)
#
# ## Real data: from a photograph to a map
#
# We return to *Train h = W0 x + BAx*. Inputs are 10 x 12 pixels, and outputs are the next 10 x 10. $W_0$ was made for the photograph, and
# the new task is the map. `optimal_losses` computes the lowest possible error for every rank at once. We train five ranks and watch their
# errors fall towards this optimum:

# %%
rng = np.random.default_rng(0)
x0, y0 = lnp.datasets.patches(lnp.datasets.photograph(), 20_000, rng=rng)
B, A = lnp.reduced_rank_regression(x0, y0, ridge=0.01 * np.mean(x0**2))
base = lnp.Linear((B @ A).astype(np.float32))

pairs = lnp.datasets.patches(lnp.datasets.terrain(), 25_000, rng=rng)
x, y = (part[:20_000].astype(np.float32) for part in pairs)
x_held_out, y_held_out = (part[20_000:].astype(np.float32) for part in pairs)


def error(model):
    frozen = lnp.freeze(model)  # each Tensor becomes a plain array: nothing is recorded
    return lnp.mean_squared_error(frozen(x_held_out), y_held_out)


# %% alt="Held-out error against the rank of the update. The best possible error drops steeply from rank 0 to rank 1, a little to rank 4, and then stays level. The trained updates of rank 1, 2, 4, 8 and 20 lie close to it."
def train(model, report):
    optimizer = lnp.Adam(lr=lnp.cosine_schedule(1e-2, steps=2_000))
    settings = {"steps": 2_000, "batch_size": 256, "sample": report, "validate_every": 50}
    return lnp.fit(model, x, y, optimizer=optimizer, progress=False, **settings).model


ranks = [1, 2, 4, 8, 20]
ridge = 0.01 * float(np.mean(x**2))
best = lnp.linalg.optimal_losses(x, y, W0=base.W, ridge=ridge, validation=(x_held_out, y_held_out))
curve = {"best possible": (np.arange(25), best[:25])}
axes = lnp.plots.lines(curve, xlabel="rank of the update", ylabel="mean squared error, held out")
points = axes.plot([], [], "o", color=INK)[0]
models = {}
with lnp.course.live_figure(axes.figure) as put:
    for rank in ranks:
        start = lnp.inject(base, rank=rank, alpha=rank, rng=rng)
        models[rank] = train(start, lambda step, model, rank=rank: put(points, rank, error(model)))
    trained = {rank: error(model) for rank, model in models.items()}
    lnp.plots.label_line(axes, 20, trained[20], "trained", INK, xytext=(0, 10))

# %% [markdown]
# Rank 0 is $W_0$ alone. Rank 1 achieves most of the gain, and beyond rank 4 hardly anything is left to gain. **The data needs only a
# low-rank update**<!-- shown: the share of the gain at rank 4 -->, so LoRA loses almost nothing by its low rank.
#
# Here are the same results as numbers. The optimum is computed from the training data, and on this data no update of the same rank can have
# a smaller error. On held-out data, a trained model may end with a slightly smaller error.

# %%
assert best[0] - best[4] > 0.95 * (best[0] - best[-1])
best_in_training = lnp.linalg.optimal_losses(x, y, W0=base.W)
rows = []
for rank in ranks:
    loss = lnp.mean_squared_error(lnp.freeze(models[rank])(x), y)
    assert best_in_training[rank] <= loss < 1.05 * best_in_training[rank]
    share = (best[0] - trained[rank]) / (best[0] - best[-1])
    rows.append((rank, loss, best_in_training[rank], trained[rank], best[rank], share))

columns = [
    "rank",
    "training loss",
    "best possible",
    "held-out loss",
    "best, held out",
    "share of the full gain",
]
formats = dict.fromkeys(columns[1:5], "{:.3f}".format) | {columns[5]: "{:.0%}".format}
Table(columns, rows, formats=formats)

# %% [markdown]
# ## The law
#
# - For a linear model and squared error, the best $BA$ of rank $r$ is known:
#   $[\Delta_* C^{1/2}]_r\, C^{-1/2}$. Here $\Delta_*$ is the best update of any rank, $[\cdot]_r$ truncates the SVD to rank $r$, and $C = X^T X / n$.
# - For white inputs, it is the truncated SVD of $\Delta_*$. For other inputs, that truncated SVD is worse than the best $BA$, but training
#   finds the best.
# - A LoRA's first step follows the full gradient, but only the part that its $A$ lets through. In a linear model with inputs in all
#   directions, training eventually reaches the optimum of its rank.
#
# ## What you can do now
#
# You can say how far a trained LoRA is from the best. Try this, in the notebook:
#
# - Train rank 8 for only a hundred steps. At which ranks is the optimum worse than your result?
#
#   <details><summary>Answer</summary>
#
#   Only at rank 0: training ends at about 0.13, and the optimum at rank 1 is 0.123. A hundred steps are not enough, whatever the rank.
#
#   </details>
# - Stretch the inputs up to 100 times. Where do you see the effect first, in the truncated or in the trained update?
#
#   <details><summary>Answer</summary>
#
#   In the truncated update: at rank 9 its loss is now 50 times the optimum. Training still finds the optimum: at the worst rank, its loss
#   is at most 2 % higher. If you stretch the inputs further, Adam becomes slow as well.
#
#   </details>
#
# ## Further reading
#
# - E. Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*,
#   [arXiv 2106.09685](https://arxiv.org/abs/2106.09685), section 4.1: equation 3 and its initialisation.
# - A. J. Izenman, "Reduced-rank regression for the multivariate linear model", *Journal of Multivariate
#   Analysis* 5, 248-264, 1975,
#   [doi 10.1016/0047-259X(75)90042-1](https://doi.org/10.1016/0047-259X(75)90042-1).
# - P. Baldi, K. Hornik, "Neural networks and principal component analysis: learning from examples without local minima", *Neural Networks* 2,
#   53-58, 1989, [doi 10.1016/0893-6080(89)90014-2](https://doi.org/10.1016/0893-6080(89)90014-2).
# - L. Zhang et al., *LoRA-FA: Memory-efficient Low-rank Adaptation*, [arXiv 2308.03303](https://arxiv.org/abs/2308.03303): a frozen $A$.
# - S. Wang, L. Yu, J. Li, *LoRA-GA: Low-Rank Adaptation with Gradient Approximation*, [arXiv
#   2407.05000](https://arxiv.org/abs/2407.05000): a start along the full gradient.
