# %% [markdown]
# # Build the engine
#
# In *Differentiate* you walked back through a graph by hand. `backward` does this for any computation that you write in NumPy, without
# being told which computation it is.
#
# **What must a program remember on the way forward to find the way back?**
#
# After this lesson you can
#
# - write an engine of one page that differentiates any computation,
# - check any derivative with two runs,
# - teach the package a derivative of your own.
#
# You need *Differentiate*.

# %%
import heapq
import inspect
from itertools import count

import matplotlib.pyplot as plt
import numpy as np

import lora_np as lnp
from lora_np import mini

# %% [markdown]
# ## Sixty lines first
#
# In *Follow the post*, a single file trained a LoRA: `lora_np/mini.py`. Here is its complete engine. The idea comes from Karpathy's
# *micrograd*, but with matrices instead of numbers:

# %%
print(inspect.getsource(mini.Tensor))

# %% [markdown]
# A `Tensor` holds its value and its `edges`. An edge is an input of the computation, with a function that turns the gradient of the result
# into the gradient of this input. Python calls `__matmul__` for `@` and `__add__` for `+`. It calls the methods with an `r` if an array is
# on the left. By the chain rule, `backward` adds up upstream gradients and passes on the result of each function. Tensors are numbered in
# the order in which they are made, and `backward` takes the latest first.
#
# On paper, let $L = (wx)^2$ with $w = 3$, $x = 2$. The square sends $2 \cdot 6 = 12$ to the product, which sends $12 \cdot 2 = 24$ to $w$.

# %%
w = mini.Tensor(np.array([[3.0]]))
(w @ np.array([[2.0]])).mean_square().backward()
print("slope of w:", w.grad)
assert w.grad == 24

# %% [markdown]
# That is enough for a LoRA. Why are Tensors numbered? Without the numbers, `backward` would have to follow **every path**. Where paths part
# and meet again, as in $y + y$, everything before this point would be visited twice, and with $n$ such points $2^n$ times:


# %%
def walked(tensor):
    return 1 + sum(walked(source) for source, _ in tensor.edges)


for doublings in [1, 5, 10, 15]:
    y = mini.Tensor(np.ones(1))
    for _ in range(doublings):
        y = y + y
    print(f"{doublings:2} doublings: {doublings + 1:2} arrays, {walked(y):6,} visits")
assert walked(y) == 2**16 - 1

# %% [markdown]
# If the latest step comes first, each step is visited only once, after all steps that use its result. The rest of this lesson keeps this
# idea, but instead of five operations it handles every NumPy function for which a table has a rule.
#
# ## What a step remembers
#
# On paper: $e = w\,x - y$ with $w = 3$, $x = 2$, $y = 4$ is computed in two steps. To send $g = 1$ back, the subtraction only has to know
# where its inputs came from: it sends 1 to the product and $-1$ to $y$. The product has to know the **other** factor: it sends $x = 2$ to
# $w$. So a step remembers two things: its inputs, and a function that turns the upstream gradient into the gradients of its inputs.
#
# We start with a table of such functions, one for each input of each operation. In this table, `y` is the result, `a` and `b` are the
# inputs, `g` is the upstream gradient, and the inner function returns the gradient of the input.

# %%
rules = {
    np.subtract: (lambda y, a, b: lambda g: g, lambda y, a, b: lambda g: -g),
    np.matmul: (lambda y, a, b: lambda g: g @ b.T, lambda y, a, b: lambda g: a.T @ g),
    np.square: (lambda y, a: lambda g: g * 2 * a,),
}

# %% [markdown]
# A step of the computation is called a **node**. It knows where gradients go, and how to compute them. (An array that no step has computed,
# such as a weight, is a **leaf**.) A node also has a number. A step can only use results that already exist, so later steps have larger
# numbers.


# %%
class Node:
    clock = count()

    def __init__(self, name, y, targets, pull):
        self.name, self.shape, self.dtype = name, y.shape, y.dtype
        self.targets = targets  # the steps and leaves that y was computed from
        self.pull = pull  # the gradient of y -> one gradient for each target; None once used
        self.order = next(Node.clock)


# %% [markdown]
# An array that remembers its node must be told about every operation. If a class has a method `__array_ufunc__`, NumPy calls it whenever
# one of its objects is an argument of a call such as `np.square(a)`. (Such a NumPy function is called a *ufunc*. Our class inherits from a
# class that turns `a - b` into `np.subtract(a, b)`.) Our method computes with the plain arrays, looks up the rules, and records the node.


# %%
class Remembering(np.lib.mixins.NDArrayOperatorsMixin):
    __hash__ = object.__hash__

    def __init__(self, data, node=None):
        self.data, self.node = data, node  # a leaf has no node
        self.shape, self.dtype = data.shape, data.dtype

    def __array_ufunc__(self, ufunc, method, *inputs):
        arrays = [a.data if isinstance(a, Remembering) else a for a in inputs]
        y = ufunc(*arrays)
        there = [i for i, a in enumerate(inputs) if isinstance(a, Remembering)]
        pulls = [rules[ufunc][i](y, *arrays) for i in there]
        targets = [inputs[i].node or inputs[i] for i in there]
        return Remembering(
            y, Node(ufunc.__name__, y, targets, lambda g: [pull(g) for pull in pulls])
        )


# %% [markdown]
# On the way back, the gradients of copies are summed: first over the axes that were added in front, then over the axes of size one that
# were stretched:


# %%
def unbroadcast(g, shape, name="a rule"):
    added = g.ndim - len(shape)
    total = g.sum(axis=tuple(range(added))) if added > 0 else g
    total = total.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)
    if total.shape != shape:
        raise ValueError(
            f"{name} returned a gradient of shape {g.shape} for an argument of shape {shape}"
        )
    return total


# %% [markdown]
# Now comes the walk. A **heap** is a list that returns its smallest entry first. We store step numbers as negatives, so that the smallest
# is the latest step. The walk takes the latest step that has received a gradient, passes the gradient on, and adds gradients where paths
# meet. When a node is the latest, all steps that use its result are done. In the end, only leaves are left.
#
# A few lines are not part of the idea, but a package needs them. A gradient gets the dtype of its target, such as `float32`. And a gradient
# that a leaf keeps must not share memory with another array. It shares memory if a rule returned its input unchanged (`pulled is g`), or if
# it is only a view of another array (which NumPy names in `pulled.base`). Such a gradient is copied.


# %%
def walk(root, gradient):
    arrived = {root.node or root: gradient}
    latest_first = [] if root.node is None else [(-root.node.order, root.node)]
    while latest_first:
        node = heapq.heappop(latest_first)[1]
        g = arrived.pop(node)
        pull, node.pull = node.pull, None
        if pull is None:
            raise RuntimeError(
                f"this graph ({node.name}) was used by an earlier backward(); run the forward pass again"
            )
        for target, pulled in zip(node.targets, pull(g), strict=True):
            if pulled.shape != target.shape:
                pulled = unbroadcast(pulled, target.shape, node.name)
            if pulled.dtype is not target.dtype:
                pulled = pulled.astype(target.dtype)
            if target in arrived:
                arrived[target] = arrived[target] + pulled
            elif isinstance(target, Node):
                arrived[target] = pulled
                heapq.heappush(latest_first, (-target.order, target))
            else:
                # A copy if the array is shared: addition passes one array to both of its inputs.
                shared = isinstance(pulled, np.ndarray) and (pulled is g or pulled.base is not None)
                arrived[target] = pulled.copy() if shared else pulled
        node.targets = ()
    return arrived


# %% [markdown]
# Try the walk on a model with a **bias**, a number added to each output, and compare with the package:


# %%
def model_loss(W, b):  # our table has no sum: a row of ones, times what follows, adds up
    return np.ones((1, 2)) @ np.square(W @ np.array([[3.0, 1.0], [1.0, 4.0]]) - b) @ np.ones((2, 1))


W, b = np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([[0.5], [0.1]])
ours, theirs = [Remembering(W), Remembering(b)], [lnp.Tensor(W), lnp.Tensor(b)]
arrived = walk(model_loss(*ours), np.array([[1.0]]))
model_loss(*theirs).backward()
print("gradient of b:", arrived[ours[1]].ravel())
assert all((arrived[a] == b.grad).all() for a, b in zip(ours, theirs, strict=True))

# %% [markdown]
# We can draw the recorded steps. Their numbers give the order in which they were made, and the walk takes them in reverse.

# %% alt="The steps of the loss as a chain of boxes: 0 matmul, 1 subtract, 2 square, 3 matmul, 4 matmul. W and b are leaves that lead into the first two. An arrow below goes from the last box back to the first." tags=["cover"]
remembered = model_loss(Remembering(W), Remembering(b)).node
chain = []
while isinstance(remembered, Node):
    chain.insert(0, remembered)
    remembered = remembered.targets[0]

_, axes = plt.subplots(figsize=(8, 2.8), layout="constrained")
box = {"boxstyle": "round", "facecolor": "white"}
for x, node in enumerate(chain):
    axes.text(
        x, 0, f"{node.order - chain[0].order}\n{node.name}", ha="center", va="center", bbox=box
    )
    axes.annotate(
        "",
        (x - 0.32, 0),
        xytext=(x - 0.68, 0),
        arrowprops={"arrowstyle": "-|>", "color": lnp.plots.MUTED},
    )
for point, name in [((-1, 0), "W"), ((1, 1), "b")]:
    axes.text(*point, name, ha="center", va="center", color=lnp.plots.SKY)
axes.annotate(
    "", (1, 0.42), xytext=(1, 0.8), arrowprops={"arrowstyle": "-|>", "color": lnp.plots.MUTED}
)
axes.annotate(
    "", (-1, -0.75), xytext=(4.4, -0.75), arrowprops={"arrowstyle": "-|>", "color": lnp.plots.SKY}
)
axes.text(1.7, -1, "backward", ha="center", va="center", color=lnp.plots.SKY)
axes.set(xlim=(-1.2, 4.6), ylim=(-1.2, 1.2))
axes.set_axis_off()
assert [node.name for node in chain] == ["matmul", "subtract", "square", "matmul", "matmul"]

# %% [markdown]
# `Node`, `unbroadcast` and `walk` are copied word for word from `lora_np/autograd/engine.py`. The rest of the package's `autograd` is the same with
# a longer table of operations.
#
# ## Check a derivative
#
# A wrong derivative does not crash. Training goes badly, and nobody knows why. So check it. Measuring every slope costs two runs per input,
# or 24,000 runs for the matrix of *Differentiate*. Two runs are enough to check all slopes at once.
#
# Collect all slopes in a table $J$, the **Jacobian**, with one row for each result and one column for each input. If the inputs move in a
# random direction $v$, the results move by $J v$, which you can measure. If you send a random $w$ back, `backward` computes $J^T w$. The
# dot product of two vectors is the sum of the products of their entries. So $w \cdot (J v)$ and $(J^T w) \cdot v$ are the same sum over the
# whole table:
#
# $$
# w \cdot (J v) = \sum_{ij} w_i\, J_{ij}\, v_j = (J^T w) \cdot v
# $$
#
# If an entry is wrong by more than rounding, a random $v$ and $w$ will almost certainly show it at this input. `check_derivative` does this
# a few times. It raises an error if the two sides differ:

# %%
rng = np.random.default_rng(0)
W, x, b = rng.normal(size=(4, 3)), rng.normal(size=(5, 3)), rng.normal(size=4)


def loss(W, x, b):
    return np.mean(np.square(np.tanh(x @ W.T + b)))


assert lnp.autograd.check_derivative(loss, W, x, b) < 1e-6

# %% [markdown]
# ## Add your own
#
# The package has a table like ours, with a row for each NumPy function. You can add missing functions. Take the cube root, $y = a^{1/3}$.
# Suppose first that its slope is $1 / (3 y)$. A `primitive` is an operation of your own, so you can try the guess without touching the
# table:

# %%
wrong = lnp.autograd.primitive(np.cbrt, lambda y, a: lambda g: g / (3 * y))
try:
    lnp.autograd.check_derivative(wrong, np.array([0.5, 1.0, 2.0]))
except AssertionError as problem:
    print(str(problem).split(":")[0])

# %% [markdown]
# The check caught the wrong guess. In $a = y \cdot y \cdot y$ three paths lead from $y$ to $a$, each with the slope $y^2$. So $a$ moves
# $3 y^2$ times as far as $y$, and $y$ moves $1 / (3 y^2)$ times as far as $a$.

# %%
lnp.autograd.derivative(np.cbrt, lambda y, a: lambda g: g / (3 * y * y))
assert lnp.autograd.check_derivative(np.cbrt, np.array([0.5, 1.0, 2.0])) < 1e-6

a = lnp.Tensor(8.0)
np.cbrt(a).backward()
print("slope at 8:", a.grad)

# %% [markdown]
# ## The law
#
# - A step remembers its inputs, and a function that turns the upstream gradient into their gradients.
# - Later steps have larger numbers, and the backward pass takes the largest first. So each step comes after all steps that use its result.
# - Copies become sums on the way back. Where paths meet, gradients add.
# - A derivative is right if $w \cdot (Jv) = (J^T w) \cdot v$ for random $v$ and $w$.
#
# ## What you can do now
#
# You can build an autograd engine, and find out whether somebody else's is wrong. Try this:
#
# - Write the rules of $a / b$ and check them.
#
#   <details><summary>Answer</summary>
#
#   With $y = a / b$, the gradients of $a$ and $b$ are $g / b$ and $-g\,y / b$. In the table, write `lambda y, a, b: lambda g: g / b` and
#   `lambda y, a, b: lambda g: -g * y / b`.
#
#   </details>
# - On paper: for $s = a\,b + a$, in which order are the steps made, and which gradient has arrived at $a$ after each step back?
#
#   <details><summary>Answer</summary>
#
#   The product has number 0, and the sum number 1. On the way back, the sum sends 1 to the product and 1 to $a$. Then the product sends $b$
#   to $a$, and the two add up to $b + 1$.
#
#   </details>
# - What happens if `walk` takes the *earliest* step first?
#
#   <details><summary>Answer</summary>
#
#   A step may then pass on its gradient before the gradient is complete. In a chain nothing goes wrong. Where paths meet, a step is reached
#   a second time, and `walk` raises an error because it has already been used. Without this check, gradients would be wrong.
#
#   </details>
#
# ## Further reading
#
# - A. Griewank, A. Walther, *Evaluating Derivatives*, 2nd edition, SIAM 2008: reverse mode, and what it has to keep.
# - D. Maclaurin, D. Duvenaud, R. Adams, *Autograd*, [github.com/HIPS/autograd](https://github.com/HIPS/autograd): NumPy with
#   a table of derivatives.
# - NumPy, [NEP 13](https://numpy.org/neps/nep-0013-ufunc-overrides.html): how an array learns of each operation.
