# %% [markdown]
# # Train h = W0 x + BAx
#
# A matrix $W_0$ has learned to continue photographs: it looks at a piece of a picture and predicts the pixels
# to the right. Now it is to continue a map of mountains. We may not touch $W_0$. We may add $BA$, two thin
# matrices.
#
# **Can gradient descent find a good $BA$? And how would we know that there is no better one?**
#
# After this lesson you can
#
# - say why $B$ starts at zero, and what happens if it does not,
# - compute the gradients of $A$ and $B$ by hand and check them,
# - train a LoRA and a full update on real data,
# - hold what was trained against the best that is possible at its rank.
#
# You need *See rank*, *Cut the SVD*, *Count parameters* and *Differentiate*.

# %%
import matplotlib.pyplot as plt
import numpy as np

import lora_np as lnp
from lora_np.plots import FULL, LORA
from lora_np.table import Table

# %% [markdown]
# ## Two paths
#
# An input $x$ goes two ways. One leads through $W_0$, which is frozen. The other leads through $A$, which makes $r$ numbers of it, and
# through $B$, which makes as many of these as $W_0$ has outputs. At the end the two are added.

# %% alt="x, of k numbers, takes two paths. The upper goes through a grey box W0, d x k, frozen. The lower goes through a blue shape A that narrows from k to r, and a blue shape B that widens from r to d, both trained. A plus sign adds them to h, of d numbers." tags=["cover"]
_, axes = plt.subplots(figsize=(7.5, 3), layout="constrained")
shapes = {
    "$W_0$\n$d \\times k$, frozen": ([(2, 2.1), (5.6, 2.1), (5.6, 3.7), (2, 3.7)], "0.85", "black"),
    "$A$\n$r \\times k$": ([(2, 0.1), (2, 1.7), (3.6, 1.1), (3.6, 0.7)], LORA, "white"),
    "$B$\n$d \\times r$": ([(4, 0.7), (4, 1.1), (5.6, 1.7), (5.6, 0.1)], LORA, "white"),
}
for name, (corners, color, ink) in shapes.items():
    axes.add_patch(plt.Polygon(corners, color=color))
    axes.text(*np.mean(corners, axis=0), name, ha="center", va="center", color=ink)
for start, end in [((0.5, 2), (1.9, 2.9)), ((0.5, 1.8), (1.9, 0.9)), ((3.6, 0.9), (4, 0.9)),
                   ((5.7, 2.9), (6.5, 2.1)), ((5.7, 0.9), (6.5, 1.7)), ((6.9, 1.9), (7.4, 1.9))]:  # fmt: skip
    axes.annotate("", end, xytext=start, arrowprops={"arrowstyle": "-|>", "color": "grey"})
axes.text(3.8, 0.2, "$r$ numbers", ha="center", fontsize=9)
for place, name in [(0.2, "$x$\n$k$ numbers"), (6.7, "+"), (7.9, "$h$\n$d$ numbers")]:
    axes.text(place, 1.9, name, ha="center", va="center", fontsize=16 if name == "+" else 10)
axes.set(xlim=(-0.5, 8.5), ylim=(0, 3.8), aspect="equal")
axes.set_axis_off()

# %% [markdown]
# ## One example on paper
#
# Two outputs, three inputs, rank one:
#
# $$
# W_0 = \begin{pmatrix} 1 & 0 & 1 \\ 0 & 1 & 0 \end{pmatrix}, \quad
# B = \begin{pmatrix} 0 \\ 0 \end{pmatrix}, \quad
# A = \begin{pmatrix} 1 & 1 & 0 \end{pmatrix}, \quad
# x = \begin{pmatrix} 1 \\ 2 \\ 1 \end{pmatrix}, \quad
# y = \begin{pmatrix} 3 \\ 0 \end{pmatrix}
# $$
#
# **Forward.** $W_0 x = (2, 2)$. $A x = 1 + 2 = 3$, one number, because the rank is one. $B$ is zero, so
# $BAx = (0, 0)$. The output is $h = W_0 x + BAx = (2, 2)$, what it would be without LoRA. The target is
# $y = (3, 0)$, so the error is $e = h - y = (-1, 2)$, and the mean squared error $L = (1 + 4) / 2 = 2.5$.
#
# **Backward.** With two outputs, the derivative of $L$ by $h$ is $2e/2 = e$. Now raise the $i$-th entry of
# $B$ by a little. Output $i$ rises by $Ax$ times as much, and the loss by $e_i$ times that. So the gradient
# of $B$, written $\partial L / \partial B$, has the entries $e_i\,(Ax)$. In the same way, raising the $j$-th entry of $A$ raises $Ax$ by $x_j$
# times as much, and all outputs by $B$ times that:
#
# $$
# \frac{\partial L}{\partial B} = e\, (A x)^T = \begin{pmatrix} -1 \\ 2 \end{pmatrix} \cdot 3 = \begin{pmatrix} -3 \\ 6 \end{pmatrix},
# \qquad
# \frac{\partial L}{\partial A} = B^T e\, x^T = 0 \cdot \begin{pmatrix} 1 & 2 & 1 \end{pmatrix} = \begin{pmatrix} 0 & 0 & 0 \end{pmatrix}
# $$
#
# $A$ has no gradient yet, because $B$ is zero. $B$ has one, because $A$ is not.

# %%
W0 = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
B = np.array([[0.0], [0.0]])
A = np.array([[1.0, 1.0, 0.0]])
x, y = np.array([1.0, 2.0, 1.0]), np.array([3.0, 0.0])


def gradients_by_hand(B, A):
    error = W0 @ x + B @ (A @ x) - y
    return np.outer(error, A @ x), np.outer(B.T @ error, x)


grad_B, grad_A = gradients_by_hand(B, A)
print("gradient of B:", grad_B.ravel())
print("gradient of A:", grad_A.ravel())

# %% [markdown]
# **The first step** moves $B$ only. At a **learning rate** of 0.1, the factor of the gradient in a step, it becomes $(0.3, -0.6)$. From the second step
# on, $A$ moves too:

# %%
B_next = B - 0.1 * grad_B
grad_B, grad_A = gradients_by_hand(B_next, A)
print("B after one step:", B_next.ravel())
print("gradient of A now:", grad_A.ravel().round(6))
assert (grad_A != 0).all()

# %% [markdown]
# ## The same by the autograd
#
# The **autograd** notes what was computed, and applies the chain rule (slopes along a path multiply) from the loss back to the weights. In
# this package a weight that is trained is a `Tensor`, a weight that is frozen is a plain array. `backward`
# fills in the gradients of the Tensors. Data is one example per row, so our $x$ becomes a matrix with one
# row. The paper multiplies $BA$ by a factor $\alpha / r$. We set `alpha` to the rank, here and below, so that
# the factor is one.

# %%
layer = lnp.LoRALinear(lnp.Linear(W0), A=lnp.Tensor(A), B=lnp.Tensor(B_next), alpha=1.0)
loss = lnp.mean_squared_error(layer(x[None]), y[None])
loss.backward()

print("gradient of A:", layer.A.grad.ravel().round(6))
print("gradient of B:", layer.B.grad.ravel().round(6))
assert np.allclose(layer.A.grad, grad_A)
assert np.allclose(layer.B.grad, grad_B)

# %% [markdown]
# ## The same by finite differences
#
# Whom to trust, if hand and computer should disagree? A derivative is a slope. Move one entry a little up and
# a little down, and see how much the loss changes. That needs no calculus:


# %%
def loss_at(B, A):
    return np.mean((W0 @ x + B @ (A @ x) - y) ** 2)


def slopes(f, M, step=1e-6):
    result = np.zeros_like(M)
    for place in np.ndindex(M.shape):
        move = np.zeros_like(M)
        move[place] = step
        result[place] = (f(M + move) - f(M - move)) / (2 * step)
    return result


print("slopes of A:", slopes(lambda M: loss_at(B_next, M), A).ravel().round(6))
print("slopes of B:", slopes(lambda M: loss_at(M, A), B_next).ravel().round(6))
assert np.allclose(slopes(lambda M: loss_at(B_next, M), A), grad_A)
assert np.allclose(slopes(lambda M: loss_at(M, A), B_next), grad_B)

# %% [markdown]
# Hand, autograd and slopes agree.
#
# ## Real data: from a photograph to a map
#
# An input is 10 x 12 pixels, the target the 10 x 10 pixels to the right of them. So $k = 120$, $d = 100$, and
# $W_0$ has the shape of the matrix in *Count parameters*. Each picture is scaled to variance 1, and the mean
# of the input is subtracted from each pair.
#
# The photograph comes first: $W_0$ is the best such matrix for it, found by a formula, the *pretrained*
# model. The new task is the map of heights around the Jacksboro fault. 20,000 pairs are for training. 5,000
# are **held out**: they are not used in training. Their places are drawn from the same map, and some coincide
# with a place of a training pair, so they tell how well a model continues this map, not any other.

# %%
rng = np.random.default_rng(0)
x0, y0 = lnp.datasets.patches(lnp.datasets.photograph(), 20_000, rng=rng)
B, A = lnp.reduced_rank_regression(x0, y0, ridge=0.01 * np.mean(x0**2))  # ridge: keeps the weights small
base = lnp.Linear((B @ A).astype(np.float32))

pairs = lnp.datasets.patches(lnp.datasets.terrain(), 25_000, rng=rng)
x, y = (part[:20_000].astype(np.float32) for part in pairs)
x_held_out, y_held_out = (part[20_000:].astype(np.float32) for part in pairs)


def error(model):
    frozen = lnp.freeze(model)  # each Tensor becomes a plain array: nothing is recorded
    return lnp.mean_squared_error(frozen(x_held_out), y_held_out)


print("shape of W0:", base.W.shape)
print(f"error of W0 on photograph: {np.mean((x0 @ base.W.T - y0) ** 2):.3f}")
print(f"error of W0 on terrain:    {error(base):.3f}")

# %% [markdown]
# ## Why B starts at zero
#
# $A$ or $B$, random or zero: there are four ways to start. The held-out error before the first step, and
# after 300:

# %%
random_A = rng.normal(size=(8, 120)).astype(np.float32) / 120**0.5
random_B = rng.normal(size=(100, 8)).astype(np.float32) / 8**0.5
starts = {
    "A random, B zero": (random_A, 0 * random_B),
    "A zero, B random": (0 * random_A, random_B),
    "both random": (random_A, random_B),
    "both zero": (0 * random_A, 0 * random_B),
}
errors = {}
for name, (A, B) in starts.items():
    model = lnp.LoRALinear(base, A=lnp.Tensor(A), B=lnp.Tensor(B), alpha=8)
    trained = lnp.fit(model, x, y, batch_size=256, steps=300, progress=False).model
    errors[name] = error(model), error(trained)

rows = [(name, before, after) for name, (before, after) in errors.items()]
formats = dict.fromkeys(["before", "after 300 steps"], "{:.3f}".format)
Table(["start", *formats], rows, formats=formats)

# %%
at_base = error(base)
assert errors["both zero"] == (at_base, at_base)
assert errors["A random, B zero"][0] == errors["A zero, B random"][0] == at_base
assert errors["both random"][0] > 1.3 * at_base
assert all(errors[name][1] < at_base for name in ["A random, B zero", "A zero, B random"])

# %% [markdown]
# - **Both random**: $BA$ is a random matrix, so training starts from a worse model than $W_0$. Here 300 steps
#   make up for it, but they first have to undo damage that need not have been done.
# - **Both zero**: training starts at $W_0$, but stays there. Each gradient has the other matrix as a factor,
#   and zero times anything is zero.
# - **One zero**: training starts exactly at $W_0$, and moves. The paper takes $B$ as the zero one, and so
#   does `inject`.
#
# ## Full against LoRA
#
# Now in earnest: a full update of 12,000 numbers and LoRA at rank 8 with 1,760. Each is trained for 2,000
# steps by Adam, which scales each step by the gradients so far, on 256 random pairs at a time, with a learning rate that falls to
# zero. `inject` adds $B$ and $A$ to a layer and freezes the rest. With `alpha` left out, the factor
# $\alpha / r$ of the paper is one.
#
# Every 50 steps `fit` calls `sample`, and `put` gives a line its next point, so you see the errors fall while it trains:

# %% alt="Held-out error against training steps for the full update and for LoRA of rank 8. Both fall steeply at first and end at nearly the same error."
steps = 2_000


def train(model, report):
    optimizer = lnp.Adam(lr=lnp.cosine_schedule(1e-2, steps=steps))
    settings = {"steps": steps, "batch_size": 256, "sample": report, "validate_every": 50}
    return lnp.fit(model, x, y, optimizer=optimizer, progress=False, **settings).model


axes = lnp.plots.axes()
axes.set(xlabel="step", ylabel="mean squared error, held out")
lines = axes.plot([], [], FULL, [], [], LORA)
axes.legend(lines, ["full update", "LoRA, r = 8"], frameon=False)
with lnp.course.live(axes.figure) as put:
    full = train(lnp.Linear(lnp.Tensor(base.W)), lambda step, model: put(lines[0], step, error(model)))
    lora = train(lnp.inject(base, rank=8, rng=rng), lambda step, model: put(lines[1], step, error(model)))

# %%
rows = [
    ("W0 alone", 0, error(base)),
    ("full update", lnp.count_full(100, 120), error(full)),
    ("LoRA, r = 8", lnp.count_lora(100, 120, rank=8), error(lora)),
]
assert abs(rows[1][2] - rows[2][2]) < 0.001
formats = {"error, held out": "{:.3f}".format}
Table(["model", "trained numbers", "error, held out"], rows, formats=formats)

# %% [markdown]
# About a seventh of the numbers, and the same error to within a thousandth. Is that luck, or could it be
# known beforehand?
#
# ## Trained against the best possible
#
# For a linear model and the squared error, there is a formula for the best $BA$ of each rank. It is called
# **reduced-rank regression**. `optimal_losses` gives its error for every rank at once. We train five ranks
# and watch each fall towards it:

# %% alt="Held-out error against the rank of the update. The best possible error drops steeply from rank 0 to rank 1, a little to rank 4, and then stays level. The trained updates of rank 1, 2, 4, 8 and 20 lie close to it."
ranks = [1, 2, 4, 8, 20]
ridge = 0.01 * float(np.mean(x**2))
best = lnp.linalg.optimal_losses(x, y, W0=base.W, ridge=ridge, validation=(x_held_out, y_held_out))
curve = {"best possible": (np.arange(25), best[:25])}
axes = lnp.plots.lines(curve, xlabel="rank of the update", ylabel="mean squared error, held out")
points = axes.plot([], [], "o", color=FULL)[0]
models = {}
with lnp.course.live(axes.figure) as put:
    for rank in ranks:
        start = lnp.inject(base, rank=rank, rng=rng)
        models[rank] = train(start, lambda step, model, rank=rank: put(points, rank, error(model)))
    trained = {rank: error(model) for rank, model in models.items()}
    lnp.plots.label_line(axes, 20, trained[20], "trained", FULL, xytext=(0, 10))

# %% [markdown]
# Rank 0 is $W_0$ alone. One direction brings most of the gain, and beyond rank 4 hardly anything is left to
# gain. **The data asks for a low-rank update**<!-- claim: low-rank-suffices -->, so LoRA loses nothing by being one.
#
# The same in numbers. The optimum is computed from the training data, and there no update of the same rank
# can be below it. Held-out data is other data, so there a trained model may end a little below.

# %%
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
# ## Every rank, white inputs and others
#
# In *Cut the SVD* the best approximation of a matrix was its SVD, cut. So why not train the full update
# $\Delta W$, and cut that?
#
# Because the loss does not measure the update. It measures what the update does to the inputs. If inputs are
# **white**, equally strong in all directions and not correlated, the two are the same. If some directions are
# stronger than others, an error along those costs more.
#
# A small problem shows both: 10 outputs, 12 inputs, a known update. First white inputs, then the same inputs
# stretched, up to 10 times as strong in one direction as in another. LoRA is trained at **every** rank from 1
# to 10.

# %%
rng = np.random.default_rng(1)
update = rng.normal(size=(10, 12)) / 12**0.5
white = 400**0.5 * np.linalg.qr(rng.normal(size=(400, 12)))[0]
assert np.allclose(white.T @ white / 400, np.eye(12))  # equally strong in all directions, not correlated
stretched = white * np.geomspace(1, 10, 12) / 4


def cut_full_update(x, y):
    """Loss of the full update, its SVD cut to each rank."""
    B, A = lnp.reduced_rank_regression(x, y)  # at full rank: the best update of all
    U, s, Vh = np.linalg.svd(B @ A, full_matrices=False)
    cuts = [(U[:, :rank] * s[:rank]) @ Vh[:rank] for rank in range(11)]
    return np.array([np.mean((x @ cut.T - y) ** 2) for cut in cuts])


def train_every_rank(x, y, report):
    losses = {}
    for rank in range(1, 11):
        model = lnp.inject(lnp.Linear(np.zeros((10, 12))), rank=rank, rng=rng)
        optimizer = lnp.Adam(lr=lnp.cosine_schedule(0.05, steps=800))
        model = lnp.fit(model, x, y, optimizer=optimizer, steps=800, progress=False).model
        losses[rank] = lnp.mean_squared_error(lnp.freeze(model)(x), y)
        report(rank, losses[rank])
    return losses


# %% alt="Loss against rank in two panels. With white inputs the optimum, the cut full update and the trained updates are one curve. With stretched inputs the cut full update lies well above the optimum at ranks 1 to 6, and the trained updates lie on the optimum."
_, panels = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
results = {}
with lnp.course.live(panels[0].figure) as put:
    for axes, (name, inputs) in zip(
        panels, {"white inputs": white, "stretched inputs": stretched}.items(), strict=True
    ):
        targets = inputs @ update.T
        optimum, cut = lnp.linalg.optimal_losses(inputs, targets), cut_full_update(inputs, targets)
        curves = {"best possible": optimum, "full update, cut by its SVD": cut}
        places = {label: (np.arange(len(curve)), curve) for label, curve in curves.items()}
        lnp.plots.lines(places, xlabel="rank of the update", ylabel="mean squared error", ax=axes)
        axes.set_title(name)
        points = axes.plot([], [], "o", color="black", markersize=4)[0]
        trained = train_every_rank(inputs, targets, lambda rank, loss, points=points: put(points, rank, loss))
        results[name] = optimum, cut, trained

# %%
rows = []
for name, (optimum, cut, trained) in results.items():
    ranks = np.arange(1, 10)
    found = np.array([trained[rank] for rank in ranks])
    rows.append((name, np.max(found / optimum[ranks]) - 1, np.max(cut[ranks] / optimum[ranks]) - 1))
    assert rows[-1][1] < 0.005

formats = dict.fromkeys(["trained", "full update, cut"], "{:.0%}".format)
title = "How far above the optimum, at the worst rank"
Table(["", *formats], rows, title=title, formats=formats)

# %% [markdown]
# With white inputs the cut full update is the optimum, and training finds it. With stretched inputs the cut
# full update is no longer the best. Training still finds the best, at every rank, because it lowers the loss
# itself.
#
# ## The law
#
# - $h = W_0 x + BAx$, with gradients $\dfrac{\partial L}{\partial B} = e\,(Ax)^T$ and
#   $\dfrac{\partial L}{\partial A} = B^T e\, x^T$, where $e = \partial L / \partial h$, summed over the
#   examples.
# - One of $A$ and $B$ starts at zero, so that training starts at $W_0$. Not both, or it never leaves.
# - For a linear model and squared error, the best $BA$ of rank $r$ is known:
#   $[\Delta^* C^{1/2}]_r\, C^{-1/2}$. Here $\Delta^*$ is the best update of any rank, $[\cdot]_r$ cuts the
#   SVD to rank $r$, and $C^{1/2}$ is the matrix whose square is $C = x^T x / n$, with the $n$ inputs as rows
#   of $x$. For white inputs $C$ is the identity, and what remains is the SVD of $\Delta^*$, cut.
#
# ## What you can do now
#
# You can train a LoRA, check its gradients and say how far it is from the best. Try, in this notebook:
#
# - On paper: take the second step of the example at the top. Which entries of $A$ change?
#
#   <details><summary>Answer</summary>
#
#   All three, since no entry of $x$ is zero. With $B = (0.3, -0.6)$ the output is $(2.9, 0.2)$, the error $e = (-0.1, 0.2)$, and $B^T e =
#   -0.15$. So the gradient of $A$ is $(-0.15, -0.3, -0.15)$, and $A$ becomes $(1.015, 1.03, 0.015)$.
#
#   </details>
# - Train rank 8 with a hundred steps only. Which ranks of the optimum does it beat?
#
#   <details><summary>Answer</summary>
#
#   None but rank 0: it ends at about 0.13, the optimum of rank 1 is 0.123. A hundred steps are not enough, whatever the rank.
#
#   </details>
# - Stretch the inputs up to 100 times. Where do you see it first, in the cut update or in the trained one?
#
#   <details><summary>Answer</summary>
#
#   In the cut update: at rank 9 it is now 50 times the optimum. Training still finds it, at most 2 % above at the worst rank. Stretched
#   further, Adam becomes slow as well.
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
# - D. P. Kingma, J. Ba, *Adam: A Method for Stochastic Optimization*,
#   [arXiv 1412.6980](https://arxiv.org/abs/1412.6980).
