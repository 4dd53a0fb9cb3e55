# %% [markdown]
# # Train h = W0 x + BAx
#
# A matrix $W_0$ has learned to predict pixels: from a piece of a photograph, it predicts the pixels to the right. Now it has to predict the
# heights on a map of mountains. We do not change $W_0$. Instead we add $BA$, the product of two thin matrices.
#
# **Can gradient descent find a good $BA$, although $B$ starts at zero?**
#
# After this lesson you can
#
# - say why $B$ starts at zero, and what happens if it does not,
# - compute the gradients of $A$ and $B$ by hand and check them,
# - train a LoRA and a full update on real data.
#
# You need *See rank* and *Count parameters*, and no calculus.

# %%
import matplotlib.pyplot as plt
import numpy as np

import lora_np as lnp
from lora_np.plots import FULL, INK, LORA, MUTED
from lora_np.table import Table

# %% [markdown]
# ## Two paths
#
# An input $x$ takes two paths. One path leads through $W_0$, which is **frozen**: training does not change it. The other path leads through
# $A$, which turns $x$ into a vector of $r$ entries, and then through $B$, which turns this vector into $d$ entries, as many as $W_0$ gives.
# The two results are added.

# %% alt="x, of k entries, takes two paths. The upper goes through a grey box W0, d x k, frozen. The lower goes through an orange shape A that narrows from k to r, and an orange shape B that widens from r to d, both trained. A plus sign adds them to h, of d entries." tags=["cover"]
_, axes = plt.subplots(figsize=(7.5, 3), layout="constrained")
shapes = {
    "$W_0$\n$d \\times k$, frozen": ([(2, 2.1), (5.6, 2.1), (5.6, 3.7), (2, 3.7)], MUTED, "white"),
    "$A$\n$r \\times k$": ([(2, 0.1), (2, 1.7), (3.6, 1.1), (3.6, 0.7)], LORA, INK),
    "$B$\n$d \\times r$": ([(4, 0.7), (4, 1.1), (5.6, 1.7), (5.6, 0.1)], LORA, INK),
}
for name, (corners, color, ink) in shapes.items():
    axes.add_patch(plt.Polygon(corners, color=color))
    axes.text(*np.mean(corners, axis=0), name, ha="center", va="center", color=ink)
for start, end in [((0.9, 2.1), (1.9, 2.9)), ((0.9, 1.7), (1.9, 0.9)), ((3.6, 0.9), (4, 0.9)),
                   ((5.7, 2.9), (6.5, 2.1)), ((5.7, 0.9), (6.5, 1.7)), ((6.9, 1.9), (7.4, 1.9))]:  # fmt: skip
    axes.annotate("", end, xytext=start, arrowprops={"arrowstyle": "-|>", "color": MUTED})
axes.text(3.8, 0.2, "$r$ entries", ha="center", fontsize=9)
for place, name in [(0, "$x$\n$k$ entries"), (6.7, "+"), (8.5, "$h$\n$d$ entries")]:
    axes.text(place, 1.9, name, ha="center", va="center", fontsize=16 if name == "+" else 10)
axes.set(xlim=(-0.8, 9.4), ylim=(0, 3.8), aspect="equal")
axes.set_axis_off()

# %% [markdown]
# ## One example on paper
#
# Take two outputs, three inputs and rank one:
#
# $$
# W_0 = \begin{pmatrix} 1 & 0 & 1 \\ 0 & 1 & 0 \end{pmatrix}, \quad
# B = \begin{pmatrix} 0 \\ 0 \end{pmatrix}, \quad
# A = \begin{pmatrix} 1 & 1 & 0 \end{pmatrix}, \quad
# x = \begin{pmatrix} 1 \\ 2 \\ 1 \end{pmatrix}, \quad
# y = \begin{pmatrix} 3 \\ 0 \end{pmatrix}
# $$
#
# **Forward.** $W_0 x = (2, 2)$. $A x = 1 + 2 = 3$ is one number, because the rank is one. $B$ is zero, so $BAx = (0, 0)$. The output is $h
# = W_0 x + BAx = (2, 2)$, the same as without LoRA. The target is $y = (3, 0)$, so the error is $e = h - y = (-1, 2)$. The **loss** $L$ is
# the number that training makes small; here it is the **mean squared error**, $(1 + 4) / 2 = 2.5$.
#
# **Backward.** How does the loss change if a parameter changes? The **derivative** of the loss with respect to a number is the change in
# the loss divided by a small change in that number. The derivatives with respect to all entries of a matrix, arranged in its shape, form
# its **gradient**.
#
# Raise $h_i$ by a small $t$. The square $e_i^2$ becomes $(e_i + t)^2 = e_i^2 + 2 e_i t + t^2$, and $t^2$ is negligible. So the mean over
# the two outputs rises by $2 e_i t / 2 = e_i t$, and the derivative of $L$ with respect to $h$ is $e$.
#
# Now raise the $i$-th entry of $B$ by $t$. Output $i$ rises by $(Ax)\,t$, and so the loss rises by $e_i (Ax)\,t$. Thus the gradient of $B$,
# written $\partial L / \partial B$, has the entries $e_i\,(Ax)$. Similarly, raising the $j$-th entry of $A$ by $t$ raises $Ax$ by $x_j t$,
# and the outputs by $B x_j t$:
#
# $$
# \frac{\partial L}{\partial B} = e\, (A x)^T = \begin{pmatrix} -1 \\ 2 \end{pmatrix} \cdot 3 = \begin{pmatrix} -3 \\ 6 \end{pmatrix},
# \qquad
# \frac{\partial L}{\partial A} = B^T e\, x^T = 0 \cdot \begin{pmatrix} 1 & 2 & 1 \end{pmatrix} = \begin{pmatrix} 0 & 0 & 0 \end{pmatrix}
# $$
#
# The gradient of $A$ is zero because $B$ is zero. The gradient of $B$ is not zero because $A$ is not zero.

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
# A gradient points uphill, so a step goes in the opposite direction: subtract from each parameter its gradient times a factor, the
# **learning rate**. Many such steps are called **gradient descent**. **The first step** moves only $B$. With a learning rate of 0.1, $B$
# becomes $(0.3, -0.6)$. From the second step on, $A$ moves too:

# %%
B_next = B - 0.1 * grad_B
grad_B, grad_A = gradients_by_hand(B_next, A)
print("B after one step:", B_next.ravel())
print("gradient of A now:", grad_A.ravel().round(6))
assert (grad_A != 0).all()

# %% [markdown]
# ## The same by the autograd
#
# The package's **autograd** records each computation and then works back from the loss to the weights. (*Differentiate* and *Build the
# engine* show how.) A trainable weight is a `Tensor`, and a frozen weight is a plain array. `backward` computes the gradients of the
# Tensors.
#
# The package expects one example per row, so our $x$ becomes a matrix with one row. The paper multiplies $BA$ by a factor $\alpha / r$.
# Here and below we set `alpha` to the rank, so that the factor is one.

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
# *More: the path goes on without this section.*
#
# If your calculation by hand and the computer disagree, which one is right? You can measure a derivative. Move one entry a little up and a
# little down, and see how much the loss changes:


# %%
def loss_at(B, A):
    return np.mean((W0 @ x + B @ (A @ x) - y) ** 2)


def slopes(f, M, step=1e-6):
    result = np.zeros_like(M)
    for index in np.ndindex(M.shape):
        move = np.zeros_like(M)
        move[index] = step
        result[index] = (f(M + move) - f(M - move)) / (2 * step)
    return result


print("slopes of A:", slopes(lambda M: loss_at(B_next, M), A).ravel().round(6))
print("slopes of B:", slopes(lambda M: loss_at(M, A), B_next).ravel().round(6))
assert np.allclose(slopes(lambda M: loss_at(B_next, M), A), grad_A)
assert np.allclose(slopes(lambda M: loss_at(M, A), B_next), grad_B)

# %% [markdown]
# Calculation by hand, autograd and measured slopes agree.
#
# ## The same in two lines
#
# Is there an easy way to remember the two gradients? Let $G$ be the gradient of the loss with respect to $\Delta W = BA$, a $d \times k$
# matrix. In our example it is $e\,x^T$: if entry $(i, j)$ of $\Delta W$ rises by $t$, output $i$ rises by $x_j t$, and the loss by $e_i x_j
# t$. Write $\langle G, M \rangle$ for the sum of the products of corresponding entries.
#
# 1. Move $A$ by a little $dA$. Then $\Delta W$ changes by $B\,dA$, and the loss by $\langle G, B\,dA \rangle$.
# 2. A factor may change sides if you transpose it: $\langle G, B\,dA \rangle = \langle B^T G, dA \rangle$, because both sides are the sum
#    $\sum G_{ij} B_{il}\, dA_{lj}$. The gradient of $A$ is the factor beside $dA$.
#
# **So the gradient of $A$ is $B^T G$, and the gradient of $B$ is $G A^T$.**<!-- proof: the two lines above --> The shapes allow no other
# product:

# %% alt="Rectangles in the proportions of their shapes. Above: B transposed, r x d, times G, d x k, is the gradient of A, r x k. Below: G, d x k, times A transposed, k x r, is the gradient of B, d x r."
_, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
products = [  # a name, its rows and its columns; d = 3, k = 4, and r = 1.4, to have room for the name
    (4.5, [("$B^T$", 1.4, 3), ("$G$", 3, 4), ("for A", 1.4, 4)]),
    (0.0, [("$G$", 3, 4), ("$A^T$", 4, 1.4), ("for B", 3, 1.4)]),
]
for bottom, matrices in products:
    for left, (name, high, wide), sign in zip([0, 6, 12], matrices, ["·", "=", ""], strict=True):
        color, ink = (MUTED, "white") if name == "$G$" else (LORA, INK)
        axes.add_patch(plt.Rectangle((left, bottom + 2 - high / 2), wide, high, color=color))
        axes.text(
            left + wide / 2, bottom + 2, name, ha="center", va="center", color=ink, fontsize=9
        )
        axes.text(left + 5.3, bottom + 2, sign, ha="center", va="center", fontsize=16)
axes.set(xlim=(-0.5, 17.5), ylim=(-0.2, 8.5), aspect="equal")
axes.set_axis_off()
G = np.outer(W0 @ x + B_next @ (A @ x) - y, x)
assert np.allclose(B_next.T @ G, grad_A)
assert np.allclose(G @ A.T, grad_B)

# %% [markdown]
# ## Real data: from a photograph to a map
#
# Each input is a patch of 10 x 12 pixels, and its target is the patch of 10 x 10 pixels to the right. So $k = 120$, $d = 100$, and $W_0$
# has the same shape as in *Count parameters*. Each picture is scaled to a **variance** of 1 (the mean squared distance from the mean), and
# from each pair we subtract the mean of its input.
#
# The photograph comes first. $W_0$, the **pretrained** model, is the matrix with the smallest squared error on the photograph. A formula
# finds it (`reduced_rank_regression`, which *Compare with the best possible* derives; its `ridge` adds a small penalty for large weights).
#
# The new task is the map of heights around the Jacksboro fault. We train on 20,000 pairs. Another 5,000 are **held out**: they are not used
# in training. They come from the same map, and some coincide with a training pair, so they say nothing about other maps.

# %%
rng = np.random.default_rng(0)
x0, y0 = lnp.datasets.patches(lnp.datasets.photograph(), 20_000, rng=rng)
B, A = lnp.reduced_rank_regression(x0, y0, ridge=0.01 * np.mean(x0**2))
base = lnp.Linear((B @ A).astype(np.float32))

pairs = lnp.datasets.patches(lnp.datasets.terrain(), 25_000, rng=rng)
x, y = (part[:20_000].astype(np.float32) for part in pairs)
x_held_out, y_held_out = (part[20_000:].astype(np.float32) for part in pairs)
# and pairs of the photograph that W0 was not fitted to
photograph_held_out = lnp.datasets.patches(lnp.datasets.photograph(), 5_000, rng=1)


def error(model, x=x_held_out, y=y_held_out):
    frozen = lnp.freeze(model)  # each Tensor becomes a plain array: nothing is recorded
    return lnp.mean_squared_error(frozen(x), y)


print("shape of W0:", base.W.shape)
print(f"held-out error of W0 on the photograph: {error(base, *photograph_held_out):.3f}")
print(f"held-out error of W0 on the terrain:    {error(base):.3f}")

# %% [markdown]
# ## Why B starts at zero
#
# $A$ and $B$ can each start at random or at zero, which gives four ways to start. (We divide the random numbers in $A$ by $\sqrt k$. Each
# entry of $Ax$ is a sum of $k$ products, which partly cancel, so it is typically $\sqrt k$ times as large as one product. After the
# division it is about as large as an entry of $x$.)
#
# `fit` trains: each step takes a **batch** of 256 random pairs and moves $A$ and $B$ against the gradients of the loss on this batch. Here
# is the held-out error before the first step and after 300 steps:

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
Table(["initialisation", *formats], rows, formats=formats)

# %%
at_base = error(base)
assert errors["both zero"] == (at_base, at_base)
assert errors["A random, B zero"][0] == errors["A zero, B random"][0] == at_base
assert errors["both random"][0] > 1.3 * at_base
assert all(errors[name][1] < at_base for name in ["A random, B zero", "A zero, B random"])

# %% [markdown]
# - **Both random**: $BA$ is a random matrix, so training starts from a worse model than $W_0$. Here 300 steps make up for this, but they
#   must first undo avoidable damage.
# - **Both zero**: training starts at $W_0$ and stays there, since $B^T G$ and $G A^T$ are both zero, whatever $G$ is.
# - **One zero**: training starts exactly at $W_0$ and moves. The LoRA paper sets $B$ to zero, and so does `inject`. Another paper says that
#   this choice allows larger learning rates. Our test did not show this: the ratio of the best learning rates was 1.33 (0.88 to 2.0) on
#   digits and 1.01 on a linear task, and on digits the loss with $B$ at zero was higher (`lora-np claims zero-factor`).
#
# If $A$ and $B$ are single numbers, $a$ and $b$, and the loss is $(ba - 1)^2$, one picture shows all of this. The point where both are zero
# is not a valley but a **saddle**: the loss falls on two sides, but the gradient is zero and points to neither side.

# %% alt="A map of the loss over a and b. Two valleys, where b times a is 1, lie at the upper right and the lower left. From a = 0.7, b = 0 a path leads into the upper valley. At a = b = 0 a cross marks the saddle, from which no path leads away."
sides = np.linspace(-2, 2, 101)
_, axes = plt.subplots(figsize=(4.4, 3.8), layout="constrained")
axes.contourf(
    sides, sides, np.log10((np.outer(sides, sides) - 1) ** 2 + 0.01), levels=15, cmap="Blues_r"
)
for start, mark in [((0.7, 0.0), "o-"), ((0.0, 0.0), "X")]:
    path = [np.array(start)]
    for _ in range(60):
        a, b = path[-1]
        path.append(path[-1] - 0.05 * 2 * (b * a - 1) * np.array([b, a]))
    axes.plot(
        *np.transpose(path), mark, color=lnp.plots.ACCENT, markersize=3 if "-" in mark else 11
    )
    print(f"from a = {start[0]}, b = 0: b a = {path[-1].prod():.3f}")
axes.set(xlabel="a", ylabel="b", aspect="equal")
assert path[-1].tolist() == [0, 0]

# %% [markdown]
# ## Full against LoRA
#
# *More: the path goes on without this section.*
#
# Now compare a full update of 12,000 parameters with LoRA at rank 8, which has 1,760. We train each for 2,000 steps in batches of 256
# random pairs, with a learning rate that falls to zero. The optimizer is Adam, which divides each gradient by a running estimate of its
# size. `inject` adds $B$ and $A$ to a layer and freezes the rest.
#
# Every 50 steps `fit` calls `sample`, which adds a point to a line with `put`, so you can watch the errors fall during training:

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
with lnp.course.live_figure(axes.figure) as put:
    full = train(
        lnp.Linear(lnp.Tensor(base.W)), lambda step, model: put(lines[0], step, error(model))
    )
    lora = train(
        lnp.inject(base, rank=8, alpha=8, rng=rng),
        lambda step, model: put(lines[1], step, error(model)),
    )

# %%
rows = [
    ("W0 alone", 0, error(base)),
    ("full update", lnp.count_full(100, 120), error(full)),
    ("LoRA, r = 8", lnp.count_lora(100, 120, rank=8), error(lora)),
]
assert abs(rows[1][2] - rows[2][2]) < 0.001
formats = {"error, held out": "{:.3f}".format}
Table(["model", "trainable parameters", "error, held out"], rows, formats=formats)

# %% [markdown]
# LoRA trains about a seventh of the parameters and ends with the same error to within a thousandth. Is that luck, or could you have
# predicted it? *Compare with the best possible* continues from here.
#
# ## The law
#
# - $h = W_0 x + BAx$, with gradients $\dfrac{\partial L}{\partial B} = e\,(Ax)^T$ and
#   $\dfrac{\partial L}{\partial A} = B^T e\, x^T$, where $e = \partial L / \partial h$, summed over the
#   examples.
# - Either $A$ or $B$ starts at zero, so that training starts at $W_0$. If both did, training would stay there.
#
# ## What you can do now
#
# You can train a LoRA and check its gradients. Try this, in the notebook:
#
# - On paper: take the second step of the example at the top. Which entries of $A$ change?
#
#   <details><summary>Answer</summary>
#
#   All three, since no entry of $x$ is zero. With $B = (0.3, -0.6)$ the output is $(2.9, 0.2)$, the error $e = (-0.1, 0.2)$, and $B^T e =
#   -0.15$. So the gradient of $A$ is $(-0.15, -0.3, -0.15)$, and $A$ becomes $(1.015, 1.03, 0.015)$.
#
#   </details>
# - On paper: $B$ starts at zero. Which rank does $BA$ have after the first step, with one example and with many?
#
#   <details><summary>Answer</summary>
#
#   With one example, $B$ becomes a multiple of $e\,(Ax)^T$, which has rank 1, and so $BA$ has rank 1. With many examples, $B$ becomes
#   $-\eta\,G A^T$, where $\eta$ is the learning rate, and $B$ usually has rank $r$ already.
#
#   </details>
#
# ## Further reading
#
# *More: the path goes on without this section.*
#
# - E. Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*,
#   [arXiv 2106.09685](https://arxiv.org/abs/2106.09685), section 4.1: equation 3 and its initialisation.
# - S. Hayou, N. Ghosh, B. Yu, *The Impact of Initialization on LoRA Finetuning Dynamics*,
#   [arXiv 2406.08447](https://arxiv.org/abs/2406.08447): which of the two should start at zero.
# - D. P. Kingma, J. Ba, *Adam: A Method for Stochastic Optimization*,
#   [arXiv 1412.6980](https://arxiv.org/abs/1412.6980).
