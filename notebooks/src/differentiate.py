# %% [markdown]
# # Differentiate
#
# A model makes an error. Its weight is a 100 x 120 matrix, so you could change any of 12,000 parameters.
#
# **In which direction must each of them move to make the error smaller?**
#
# After this lesson you can
#
# - follow a computation as a graph and send slopes back through it by hand,
# - do the same for matrices and for copied arrays,
# - get 12,000 slopes at once, and take a step that lowers a loss,
# - say why a gradient is close to a matrix of low rank.
#
# You need *See rank*, and no calculus: the lesson begins with one slope.

# %%
import matplotlib.pyplot as plt
import numpy as np

import lora_np as lnp

# %% [markdown]
# ## A derivative is a slope
#
# Take $f(a) = a^2$ at $a = 3$, and move $a$ a little, to 3.001. The square moves from 9 to 9.006001, about 6 times as far as $a$. This 6 is
# the **derivative** of $f$ at 3.
#
# On paper: if $a$ moves by $h$, the square becomes $(a + h)^2 = a^2 + 2a\,h + h^2$. For a small $h$ the $h^2$ is negligible, so the square
# moves $2a$ times as far as $a$. At $a = 3$ this is 6.


# %%
def slope(f, a, step=1e-6):
    """How many times as far f moves, measured from a little below a to a little above."""
    return (f(a + step) - f(a - step)) / (2 * step)


print(f"measured slope: {slope(np.square, 3.0):.6f}")

# %% [markdown]
# ## A table of derivatives
#
# Every computation, however long, consists of a few kinds of operations. Each operation has a slope for each input. Here are the slopes at
# $a = 2$, $b = 3$, next to measured slopes:

# %%
a, b = 2.0, 3.0
table = [
    ("a + b", "a", 1, lambda a: a + b),
    ("a - b", "b", -1, lambda b: a - b),
    ("a b", "a", b, lambda a: a * b),
    ("a b", "b", a, lambda b: a * b),
    ("a^2", "a", 2 * a, np.square),
    ("exp a", "a", np.exp(a), np.exp),
    ("tanh a", "a", 1 - np.tanh(a) ** 2, np.tanh),  # a step without edges, from -1 to 1
]
for result, moved, derivative, f in table:
    measured = slope(f, {"a": a, "b": b}[moved])
    print(f"{result:7} by {moved}: {derivative:7.4f}, measured {measured:7.4f}")
    assert np.isclose(measured, derivative)

# %% [markdown]
# Remember the row of the product: in $a\,b$, the slope for one factor is the **other** factor.
#
# ## The graph
#
# The smallest possible model has one weight. It predicts $w\,x$, the right answer is $y$, and the **loss**, the number that should become
# small, is $L = (w\,x - y)^2$. With $w = 3$, $x = 2$, $y = 4$ it is computed in three steps: the product is 6, the difference 2, the
# square 4. Draw these steps as a **graph**, with the slope from the table on each arrow.
#
# How far does $L$ move if $w$ moves? The product moves 2 times as far as $w$, the difference moves as far as the product, and the loss moves
# 4 times as far as the difference: $2 \cdot 1 \cdot 4 = 8$. **Along a path, slopes multiply.**<!-- proof: the chain rule --> This is the **chain
# rule**.
#
# To do this for every input at once, start at the end with 1 and walk **back**, multiplying by the slope on each arrow. This is called the
# *backward pass*. The result at a box is its **gradient**: the change in $L$ divided by a small change in the box's value. A step turns the
# gradient of its result, the **upstream gradient**, into gradients of its inputs.

# %% alt="A graph from left to right. w = 3 and x = 2 lead to the product p = 6, that and y = 4 to the difference e = 2, that to the loss L = 4. The arrows carry the slopes 2, 3, 1, -1 and 4. The gradients are 1 at L, 4 at e and p, 8 at w, 12 at x and -4 at y." tags=["cover"]
values = {"w": 3.0, "x": 2.0, "y": 4.0, "p": 6.0, "e": 2.0, "L": 4.0}
slopes = {
    ("w", "p"): values["x"],  # of a product: the other factor
    ("x", "p"): values["w"],
    ("p", "e"): 1,
    ("y", "e"): -1,
    ("e", "L"): 2 * values["e"],
}
gradients = {"L": 1}
for (start, end), factor in reversed(slopes.items()):
    gradients[start] = gradients[end] * factor

names = {"p": "p = w · x", "e": "e = p − y", "L": "L = e²"}
centres = {"w": (0, 1), "x": (0, 0), "p": (1, 0.5), "y": (1, -0.5), "e": (2, 0), "L": (3, 0)}
_, axes = plt.subplots(figsize=(7.5, 4.4), layout="constrained")
for (start, end), factor in slopes.items():
    (x0, y0), (x1, y1) = centres[start], centres[end]
    axes.annotate(
        "",
        (x1 - 0.34, y1),
        xytext=(x0 + 0.3, y0),
        arrowprops={"arrowstyle": "-|>", "color": lnp.plots.MUTED},
    )
    x, y = (x0 + x1) / 2 + 0.12 * np.sign(y0 - y1), (y0 + y1) / 2 + 0.06  # beside the arrow
    axes.text(x, y, f"× {factor:g}", ha="center", color=lnp.plots.SKY)
for name, (x, y) in centres.items():
    axes.text(x, y, f"{names.get(name, name)}\n{values[name]:g}", ha="center", va="center",
              bbox={"boxstyle": "round", "facecolor": "white"})  # fmt: skip
    axes.text(x, y - 0.32, f"gradient {gradients[name]:g}", ha="center", color=lnp.plots.SKY)
axes.set(xlim=(-0.4, 3.4), ylim=(-0.95, 1.25))
axes.set_axis_off()

# %% [markdown]
# A `Tensor` is an array that remembers this graph. You write NumPy, and `backward` walks back:

# %%
w, x, y = lnp.Tensor(3.0), lnp.Tensor(2.0), lnp.Tensor(4.0)
L = np.square(w * x - y)
print(L)

L.backward()
print("gradients of w, x, y:", w.grad, x.grad, y.grad)
assert [w.grad, x.grad, y.grad] == [gradients[name] for name in "wxy"] == [8, 12, -4]

# %% [markdown]
# What if a number is used twice? In $s = a\,b + a$ there are two paths from $a$ to $s$. If $a$ moves, it moves $s$ along both paths.
# **Where paths meet, gradients add.**<!-- proof: the chain rule for several variables -->

# %%
a, b = lnp.Tensor(2.0), lnp.Tensor(3.0)
s = a * b + a
s.backward()
assert a.grad == 3 * 1 + 1
assert b.grad == 2 * 1

# %% [markdown]
# ## Matrices
#
# Now let the result be $y = W x$, with
#
# $$
# W = \begin{pmatrix} 1 & 2 \\ 0 & 1 \end{pmatrix}, \quad
# x = \begin{pmatrix} 3 \\ 1 \end{pmatrix}, \quad
# y = \begin{pmatrix} 5 \\ 1 \end{pmatrix}, \quad
# \text{and the upstream gradient is } g = \begin{pmatrix} 1 \\ -2 \end{pmatrix}
# $$
#
# Raising $y_0$ by $t$ changes the loss by $t$, and raising $y_1$ by $t$ changes it by $-2t$. What are the gradients of $W$ and $x$? (A $T$,
# for **transpose**, turns columns into rows.)
#
# - **$W_{ij}$** moves only $y_i$, and moves it $x_j$ times as far. And $y_i$ moves the loss $g_i$ times as far. So the gradient of $W$ has
#   the entries $g_i\,x_j$: it is the column $g$ times the row $x^T$.
# - **$x_j$** moves every $y_i$, and moves it $W_{ij}$ times as far. The sum over these paths is $\sum_i W_{ij}\, g_i$. So the gradient of
#   $x$ is $W^T g$.
#
# $$
# g\,x^T = \begin{pmatrix} 1 \\ -2 \end{pmatrix} \begin{pmatrix} 3 & 1 \end{pmatrix}
# = \begin{pmatrix} 3 & 1 \\ -6 & -2 \end{pmatrix}, \qquad
# W^T g = \begin{pmatrix} 1 & 0 \\ 2 & 1 \end{pmatrix} \begin{pmatrix} 1 \\ -2 \end{pmatrix}
# = \begin{pmatrix} 1 \\ 0 \end{pmatrix}
# $$

# %%
W, x = lnp.Tensor([[1.0, 2.0], [0.0, 1.0]]), lnp.Tensor([3.0, 1.0])
g = np.array([1.0, -2.0])
y = W @ x
y.backward(g)  # the upstream gradient of y
print("gradient of W:\n", W.grad)
print("gradient of x:", x.grad)

assert (W.grad == np.outer(g, [3, 1])).all()
assert (x.grad == W.data.T @ g).all()  # W.data: the array of a Tensor

# %% [markdown]
# **The forward pass multiplies by $W$, the backward pass by $W^T$.**<!-- proof: entry (i, j) of W takes x_j to y_i, and the slope back -->
# And each gradient has the same shape as its array.
#
# ## Where NumPy copies
#
# If you add a row $b$ to a matrix with three rows, NumPy adds $b$ to each row: it copies $b$ three times. This is called **broadcasting**.
# The table has no derivative for copying, but a copy is a product, a column of ones times $b$:

# %% alt="A column of three ones, times the row 10 20, is a matrix of three rows, each 10 20."
ones, row = np.ones((3, 1)), np.array([[10.0, 20.0]])
figure = lnp.plots.matrix_tiles(
    {"ones, 3 x 1": ones, "b, 1 x 2": row, "copied, 3 x 2": ones @ row},
    between=["·", "="],
    width=4.5,
)

# %% [markdown]
# So the backward pass multiplies by the transpose, a row of ones, which gives a sum over the rows. **Copies on the way forward become sums
# on the way back.**<!-- proof: slopes of copies of one number add --> This is the rule for paths that meet: $b$ was used three times, so
# three gradients are added. Conversely, the upstream gradient of a sum is copied to all its summands. Here is an example with an upstream
# gradient $G$ for $X + b$:

# %%
X, G = np.zeros((3, 2)), np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
b = lnp.Tensor([10.0, 20.0])
(X + b).backward(G)

print("gradient of b:", b.grad)
assert (b.grad == ones.T @ G).all()

summands = lnp.Tensor(X)
np.sum(summands).backward()
assert (summands.grad == 1).all()

# %% [markdown]
# ## 12,000 slopes at once
#
# We return to the question from the beginning. The 100 x 120 matrix $W_0$ predicts the next 10 x 10 pixels of a photograph from the 10 x 12
# pixels to their left. As in *Train h = W0 x + BAx*, it is the matrix with the smallest squared error on the photograph, with a small
# penalty for large weights (`ridge`). Here is its loss on 20,000 pieces of a map of mountains, and one backward pass:

# %%
rng = np.random.default_rng(0)
x0, y0 = lnp.datasets.patches(lnp.datasets.photograph(), 20_000, rng=rng)
B, A = lnp.reduced_rank_regression(x0, y0, ridge=0.01 * np.mean(x0**2))
W0 = B @ A
x, y = lnp.datasets.patches(lnp.datasets.terrain(), 20_000, rng=rng)


def terrain_loss(W):
    return np.mean(np.square(x @ W.T - y))  # an example is a row of x, so W x becomes x W^T


W = lnp.Tensor(W0)
loss = terrain_loss(W)
loss.backward()
print(f"loss {loss:.4f}, and {W.grad.size:,} gradients")

# %% [markdown]
# Move every parameter against its slope. A step that is too short gains little, and one that is too long goes past the valley:

# %%
after = {step: terrain_loss(W0 - step * W.grad) for step in [1, 10, 100]}
for step, moved in after.items():
    print(f"step {step:3}: loss {moved:.4f}")

assert after[10] < after[1] < loss.item() < after[100]

# %% [markdown]
# Many such steps are gradient descent, as in *Train h = W0 x + BAx*.
#
# ## A gradient has low rank
#
# For one example, the gradient of $W$ is a column times a row, $g\,x^T$, so it has rank 1! The gradients of $n$ examples add up to a matrix
# of rank $n$ at most:

# %%
for n in [1, 2, 5, 20]:
    W.grad = None  # or the new gradient would be added to the old one
    np.mean(np.square(x[:n] @ W.T - y[:n])).backward()
    print(f"{n:2} examples: rank {lnp.matrix_rank(W.grad)}")
    assert lnp.matrix_rank(W.grad) == n

# %% [markdown]
# With all 20,000 examples, nothing forces a low rank, and the rank is 100. But look at the singular values (from *Cut the SVD*), as shares
# of the largest:

# %% alt="Singular values of the gradient over 20,000 examples, as shares of the largest, on a logarithmic scale. They fall to a quarter at the second, to a hundredth at the seventh and on to a ten-thousandth and less."
W.grad = None
terrain_loss(W).backward()
s = np.linalg.svdvals(W.grad)
enough = lnp.rank_for_error(W.grad, tolerance=0.01)
axes = lnp.plots.singular_spectrum({"gradient of $W_0$": s / s[0]}, rank=enough)
axes.set_ylabel("singular value, of the largest")

print("rank:", lnp.matrix_rank(W.grad))
print("rank that is enough if 1 % may be missing:", enough)
assert enough == 9

# %% [markdown]
# A matrix of rank 9 comes within one percent of this gradient. So these data push the weights mainly in a few directions. This is a first
# sign, but no proof, that an update $BA$ of low rank may be enough: each step has a different gradient.
#
# ## The law
#
# - A derivative is a slope. Along a path, slopes multiply. Where paths meet, gradients add.
# - A single backward pass from the loss gives every input its gradient.
# - The forward pass multiplies by a matrix, the backward pass by its transpose. For $y = Wx$ with upstream gradient $g$, the gradient of
#   $W$ is $g\,x^T$, and the gradient of $x$ is $W^T g$. Copies become sums, and sums become copies.
# - The gradient of one example is $g\,x^T$, of rank 1. The gradient of $n$ examples has rank $n$ at most.
#
# ## What you can do now
#
# You can send a gradient through a computation, by hand and with `backward`. Try this:
#
# - On paper, draw the graph of $L = (w\,x + w - y)^2$ at $w = 1$, $x = 2$, $y = 5$. What is the gradient of $w$?
#
#   <details><summary>Answer</summary>
#
#   First, $w\,x = 2$. Adding $w$ gives 3, and subtracting $y$ gives $-2$. The two paths to $w$ add up to
#   $2 \cdot (-2) \cdot 2 + 2 \cdot (-2) \cdot 1 = -12$.
#
#   </details>
# - In the table, what are the two slopes of $a / b$?
#
#   <details><summary>Answer</summary>
#
#   For $a$ it is $1 / b$. Call the result $y$, so $y\,b = a$. If $b$ moves by $h$, this product must not change, so $y$ moves by about
#   $-y\,h / b$. The slope for $b$ is $-y / b = -a / b^2$. At $a = 2$, $b = 3$, the slopes are 0.333 and $-0.222$.
#
#   </details>
# - For $h = BAx$, what are the gradients of $B$ and $A$ if the upstream gradient of $h$ is $g$? Compare with *Train h = W0 x + BAx*.
#
#   <details><summary>Answer</summary>
#
#   The gradient of $B$ is $g\,(Ax)^T$. The upstream gradient of $Ax$ is $B^T g$, so the gradient of $A$ is $B^T g\, x^T$.
#
#   </details>
#
# ## Further reading
#
# - A. G. Baydin, B. A. Pearlmutter, A. A. Radul, J. M. Siskind, "Automatic differentiation in machine
#   learning: a survey", *Journal of Machine Learning Research* 18(153), 2018, [arXiv
#   1502.05767](https://arxiv.org/abs/1502.05767), section 3: forward and reverse mode.
# - A. Griewank, A. Walther, *Evaluating Derivatives*, 2nd edition, SIAM 2008, chapters 3 and 4: both modes,
#   and why a gradient costs only a few times as much as its function.
# - NumPy's [broadcasting](https://numpy.org/doc/stable/user/basics.broadcasting.html): which shapes go
#   together.
