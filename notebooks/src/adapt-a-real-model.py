# %% [markdown]
# # Adapt a real model
#
# A matrix predicts the next pixels of photographs. Now it has to predict terrain maps. For that, a LoRA of rank 8 trains 1,760 parameters,
# and a full update trains 12,000.
#
# **What does LoRA actually save, when you count it?**
#
# After this lesson you can
#
# - adapt a matrix to new data, and see how far each rank lowers the error,
# - count the three advantages of LoRA,
# - say where these advantages are small, and where LoRA costs more.
#
# You need *Count parameters* and *Train h = W0 x + BAx*.

# %%
import os
import tempfile
from pathlib import Path

import numpy as np

import lora_np as lnp
from lora_np.table import Table

os.chdir(tempfile.mkdtemp())  # a folder for the files of this lesson

# %% [markdown]
# ## Count on paper
#
# Take a matrix with $d = 4$ outputs and $k = 6$ inputs, and rank 1. $W_0 x$ takes $4 \cdot 6 = 24$ multiplications. $Ax$ takes 6 more, and
# multiplying the result by $B$ takes another 4. So the model with an adapter needs 34 multiplications instead of 24. That is 42 % more,
# because this matrix is so small; at 100 x 120 and rank 8 it is 15 % more. The extra cost disappears when you **merge** the adapter, that
# is, add $BA$ to $W_0$. The savings come in training. Let us train and count them.
#
# ## From a photograph to a map
#
# The setting is the same as in *Train h = W0 x + BAx*: the input is 10 x 12 pixels and the output is the next 10 x 10, so $W_0$, which was
# made for the photograph, is 100 x 120. Now we adapt it to the heights around the Jacksboro fault, with a full update and a LoRA of rank 8.

# %%
rng = np.random.default_rng(0)


def pairs(image, n):
    return [part.astype(np.float32) for part in lnp.datasets.patches(image, n, rng=rng)]


photograph, terrain = lnp.datasets.photograph(), lnp.datasets.terrain()
x0, y0 = pairs(photograph, 20_000)
B, A = lnp.reduced_rank_regression(x0, y0, ridge=0.01 * np.mean(x0**2))
base = lnp.Linear((B @ A).astype(np.float32))

x, y = pairs(terrain, 20_000)
held_out = {"map": pairs(terrain, 5_000), "photograph": pairs(photograph, 5_000)}


def train(model):
    optimizer = lnp.Adam(lr=lnp.cosine_schedule(1e-2, steps=1_000))
    return lnp.fit(
        model, x, y, optimizer=optimizer, steps=1_000, batch_size=256, progress=False
    ).model


def error(model, task):
    inputs, targets = held_out[task]
    return float(lnp.mean_squared_error(lnp.freeze(model)(inputs), targets))


print(f"W0: {base.W.shape[0]} x {base.W.shape[1]}, {len(x):,} pairs of the map to train on")
print(f"error of W0 on the photograph: {error(base, 'photograph'):.3f}")
print(f"error of W0 on the map:        {error(base, 'map'):.3f}")

# %% [markdown]
# (The photograph is harder to predict, even for the matrix that was made for it.) How much of the error on the map can an update remove? We
# train the full update and the LoRA for a thousand steps each:

# %%
full = train(lnp.Linear(lnp.Tensor(base.W)))
lora = train(lnp.inject(base, rank=8, alpha=8, rng=rng))
models = {"W0": base, "full update": full, "LoRA, r = 8": lora}
errors = {name: (error(model, "map"), error(model, "photograph")) for name, model in models.items()}

formats = dict.fromkeys(["error on the map", "on the photograph"], "{:.3f}".format)
Table(["model", *formats], [(name, *pair) for name, pair in errors.items()], formats=formats)

# %%
gain = (errors["W0"][0] - errors["LoRA, r = 8"][0]) / (errors["W0"][0] - errors["full update"][0])
print(f"share of the full update's gain that LoRA achieves: {gain:.0%}")
assert gain > 0.97
assert errors["LoRA, r = 8"][1] > errors["full update"][1] > 1.3 * errors["W0"][1]

# %% [markdown]
# On the map, LoRA is as good as the full update, with a seventh of the parameters. On the photograph, both are worse, LoRA by a quarter
# more: they have forgotten part of the first task. *Learn without forgetting* returns to this.
#
# ## Turn the rank yourself
#
# We cut a strip of the map into patches, predict each from the pixels to its left, and draw the error in grey. Middle grey means that the
# prediction is right, lighter that it is too high, and darker that it is too low. For each rank, we compute the $BA$ that is best on the
# training data with the formula in *Compare with the best possible*.

# %%
bands = lnp.datasets.standardised(terrain)[120:180].reshape(
    6, 10, -1
)  # six bands, each 10 pixels high
starts = np.arange(12, bands.shape[2] - 10, 10)
contexts = np.stack([bands[:, :, s - 12 : s] for s in starts], axis=1).reshape(-1, 120)
truth = np.stack([bands[:, :, s : s + 10] for s in starts], axis=1).reshape(-1, 100)
level = contexts.mean(axis=1, keepdims=True)


def misses(W):
    """What the predictions of the strip miss, in metres, as a picture."""
    missed = (level + (contexts - level) @ W.T - truth) * terrain.std()
    return missed.reshape(6, len(starts), 10, 10).transpose(0, 2, 1, 3).reshape(60, -1)


B, A = lnp.reduced_rank_regression(x, y, W0=base.W, rank=20, ridge=0.01 * np.mean(x**2))
pictures, captions = {}, {}
for rank in [0, 1, 2, 3, 4, 8, 20]:
    missed = misses(base.W + B[:, :rank] @ A[:rank])  # the best of a lower rank is its first terms
    pictures[rank] = missed
    captions[rank] = f"rank {rank}: {220 * rank:,} parameters, error {np.std(missed):.1f} m"
print("\n".join(captions.values()))

# %%
deviations = [np.std(missed) for missed in pictures.values()]
assert deviations[0] - deviations[1] > 0.7 * (deviations[0] - deviations[-1])
assert np.ptp(deviations[2:]) < 1

# %% [markdown]
# If you run the next cell in your browser or in JupyterLab, you get a slider. In other viewers you see four of the ranks.

# %% alt="The errors of the predicted strip at ranks 0, 2, 4 and 20, as grey maps. At rank 0 many patches are much too light or too dark. At rank 2 the map is a little more even; from there on no change is visible." tags=["cover"]
lnp.course.sliders(
    lambda rank: (pictures[rank], captions[rank]), rank=list(pictures), limits=(-40, 40)
)

# %% [markdown]
# Rank 1 removes most of the error that an update can remove, and beyond rank 2 you can see no difference. Even a high rank does not remove
# the rest of the error.
#
# ## Three advantages, counted
#
# **1. Less to train.**<!-- shown: the count of trainable parameters, and of Adam's moments --> Each trainable parameter comes with a
# gradient and two moments of Adam. **2. Less to compute.**<!-- shown: the table of multiplications --> The table counts the multiplications
# of one step for one example. Here, $e$ is the gradient of the loss with respect to the output:
#
# | | full | LoRA |
# |---|---|---|
# | forward: $W_0 x$ | $dk$ | $dk$ |
# | forward: $A x$, then $B$ times it | | $rk + dr$ |
# | gradient of $W$: $e\, x^T$ | $dk$ | |
# | gradient of $B$: $e\, (Ax)^T$ | | $dr$ |
# | gradient of $A$: $B^T e$, then times $x^T$ | | $dr + rk$ |
# | for the layer before: $W_0^T e$, and $A^T$ times $B^T e$ | $dk$ | $dk + rk$ |
#
# The last row is for a layer inside a network, where one matrix follows another. **3. Less to
# store**<!-- shown: the sizes of both files -->: the file contains only $A$ and $B$.


# %%
def multiplications(d, k, rank=None):
    if rank is None:
        return 3 * d * k
    return 2 * d * k + 3 * d * rank + 3 * rank * k


def work(d, k):
    return multiplications(d, k), multiplications(d, k, rank=8)


# %%
lnp.adapters.save(lora, "adapter", force=True)
lnp.hub.safetensors.save({"weight": lnp.value(full.W)}, "full.safetensors")
files = [Path("full.safetensors"), Path("adapter", "adapter_model.safetensors")]
parameters = [sum(tensor.size for _, tensor in lnp.trainable(model)) for model in (full, lora)]
moments = [lnp.training_run(lnp.Adam(), model).nbytes for model in (full, lora)]

inside = "inside of a network"
rows = [
    ("1. trainable parameters", *parameters),
    ("1. bytes of Adam's moments", *moments),
    (f"2. multiplications, 100 x 120, {inside}", *work(100, 120)),
    (f"2. multiplications, 4,096 x 4,096, {inside}", *work(4096, 4096)),
    ("3. bytes of the file", *(file.stat().st_size for file in files)),
]
rows = [(*row, row[1] / row[2]) for row in rows]
formats = {"full / LoRA": "{:.1f}".format}
Table(["", "full", "LoRA, r = 8", "full / LoRA"], rows, formats=formats)

# %%
assert work(100, 120) == (3 * 12_000, 2 * 12_000 + 3 * 8 * 100 + 3 * 8 * 120)
assert moments == [8 * count for count in parameters]
assert 1.49 < np.divide(*work(4096, 4096)) < 1.5

# %% [markdown]
# Parameters, moments and files shrink sevenfold here, and more in larger matrices (*Count parameters*). The number of multiplications does
# not: **inside of a network LoRA saves at most one third of the multiplications**<!-- proof: 3dk becomes 2dk and more -->, because the
# products with $W_0$ remain, forward and backward. How many seconds a step takes depends on the machine, on the batch and on everything
# else that happens in a step. Measure the time (see the last question below).
#
# ## The law
#
# - LoRA trains $r(d + k)$ parameters instead of $dk$. Adam's moments and the file shrink accordingly.
# - It saves at most a third of the multiplications inside a network.
#
# ## What you can do now
#
# You can adapt a matrix and report what that saves. Try this:
#
# - On paper: for $d = k$ inside of a network, at which rank does a step of LoRA take as many multiplications as a full step?
#
#   <details><summary>Answer</summary>
#
#   $2d^2 + 6dr = 3d^2$ gives $r = d / 6$. For $d = 4{,}096$ that is rank 682.
#
#   </details>
# - On paper: which row of the table does a single layer not need, and how much does LoRA save in that case? Time a step with
#   `%timeit lnp.fit(...)`, full and LoRA, at 100 x 120 and at 1,024 x 1,024. What else takes time besides the multiplications?
#
#   <details><summary>Answer</summary>
#
#   The last row, since no layer comes before this one. What remains is $2dk$ for the full update and $dk + 3dr + 2rk$ for LoRA, which saves
#   at most half. On a quiet machine, a full step took 1.1 to 1.3 times as long as a step of LoRA at 100 x 120, and 2.6 to 4.5 times as long
#   at 1,024 x 1,024. A small step spends most of its time in Python and function calls. In a large step LoRA saves more, because
#   Adam no longer updates a million moments.
#
#   </details>
#
# ## Further reading
#
# - E. Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, [arXiv
#   2106.09685](https://arxiv.org/abs/2106.09685), section 4.2: the benefits, and the limits.
# - D. P. Kingma, J. Ba, *Adam: A Method for Stochastic Optimization*,
#   [arXiv 1412.6980](https://arxiv.org/abs/1412.6980): the two moments.
# - L. Zhang et al., *LoRA-FA: Memory-efficient Low-rank Adaptation*, [arXiv 2308.03303](https://arxiv.org/abs/2308.03303): what uses the
#   memory that LoRA does not save.
