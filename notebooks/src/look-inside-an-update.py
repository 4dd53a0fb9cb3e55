# %% [markdown]
# # Look inside an update
#
# Two LoRAs are trained for the same task from different random starts, a third at another rank, and with
# them a full update. All four end with the same error.
#
# **Have they learned the same thing? And how would you know?**
#
# After this lesson you can
#
# - compare two updates by principal angles and by the similarity $\phi$ of the LoRA paper,
# - hold such a number against chance, and against another task,
# - say what it does not show.
#
# You need *Factor a matrix*, *Cut the SVD* and *Train h = W0 x + BAx*.

# %%
import matplotlib.pyplot as plt
import numpy as np

import lora_np as lnp
from lora_np.table import Table

# %% [markdown]
# ## Two planes in a room
#
# The floor is a plane, and a ramp that rises by 30 degrees is another. They share a line: along it the angle
# between them is 0. At right angles to it they are 30 degrees apart. Two planes have two such **principal
# angles**, the smallest first: 0 and 30 degrees.
#
# A measure in one number is the mean of the squared cosines. The cosine of 0 is 1, that of 30 degrees is
# $\sqrt3 / 2$, so here it is $(1 + \tfrac34) / 2 = 0.875$. It is 1 for the same plane, and 0 if all is at right
# angles.

# %%
floor = np.array(
    [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
)  # its columns: along the wall, away from the wall
rise = np.radians(30)
ramp = np.array([[1.0, 0.0], [0.0, np.cos(rise)], [0.0, np.sin(rise)]])

angles = lnp.linalg.principal_angles(floor, ramp)
print("angles:", np.degrees(angles).round(6))
print("mean squared cosine:", np.mean(np.cos(angles) ** 2).round(6))

# %% [markdown]
# The LoRA paper asks this of two $A$. We ask it of two whole updates $BA$: of their **input directions**, the rows $v_1^T, v_2^T, \dots$ of the SVD, the strongest first. They are what an
# update listens to. Take the first $i$ of one update, as columns of a matrix $V$, and the first $j$ of the
# other, as columns of $V'$. With the Frobenius norm of *Cut the SVD*,
#
# $$
# \phi(i, j) = \frac{\|V^T V'\|^2}{\min(i, j)}
# $$
#
# is between 0 and 1: the mean squared cosine, if $i = j$. `subspace_similarity` takes the matrices themselves,
# so our planes are now rows:

# %%
phi = lnp.linalg.subspace_similarity(floor.T, ramp.T, 2, 2)
print("phi(2, 2):", round(phi, 6))
assert np.isclose(phi, np.mean(np.cos(angles) ** 2))
assert np.isclose(phi, 0.875)

# %% [markdown]
# ## What chance gives
#
# Our inputs have 120 entries. Two random choices of 8 directions among 120 share something too, $8 / 120 =
# 0.067$ on average: each direction of one has $8/120$ of its square in the other's 8. That is the
# number to beat. If $i$ and $j$ differ, it is the larger of them over 120.

# %%
rng = np.random.default_rng(0)
random_pairs = [(rng.normal(size=(8, 120)), rng.normal(size=(8, 120))) for _ in range(50)]
by_chance = np.mean([lnp.linalg.subspace_similarity(*pair, 8, 8) for pair in random_pairs])
chance_angles = np.degrees(
    np.mean([lnp.linalg.principal_angles(P.T, Q.T) for P, Q in random_pairs], axis=0)
)
print(f"phi(8, 8) by chance: {by_chance:.3f}")
assert abs(by_chance - 8 / 120) < 0.005

# %% [markdown]
# ## Four updates, one error
#
# The task of *Train h = W0 x + BAx*: $W_0$ continues the photograph, and learns to continue the terrain.

# %%
x0, y0 = lnp.datasets.patches(lnp.datasets.photograph(), 20_000, rng=rng)


def best_weight(x, y):
    B, A = lnp.reduced_rank_regression(x, y, ridge=0.01 * np.mean(x**2))
    return (B @ A).astype(np.float32)


W0 = best_weight(x0, y0)
base = lnp.Linear(W0)

pairs = lnp.datasets.patches(lnp.datasets.terrain(), 25_000, rng=rng)
x, y = (part[:20_000].astype(np.float32) for part in pairs)
x_held_out, y_held_out = (part[20_000:].astype(np.float32) for part in pairs)


def train(model, y=y, seed=0):
    optimizer = lnp.Adam(lr=lnp.cosine_schedule(1e-2, steps=2_000))
    settings = {"optimizer": optimizer, "steps": 2_000, "batch_size": 256, "rng": seed}
    return lnp.fit(model, x, y, **settings, progress=False).model


def lora(rank, seed, y=y):
    return train(lnp.inject(base, rank=rank, rng=np.random.default_rng(seed)), y, seed)


def error(update):
    return np.mean((x_held_out @ (W0 + update).T - y_held_out) ** 2)


model = lora(8, seed=1)
updates = {
    "r = 8": model.delta(),  # B A
    "r = 8, other start": lora(8, seed=2).delta(),
    "r = 64": lora(64, seed=3).delta(),
    "full": lnp.value(train(lnp.Linear(lnp.Tensor(W0))).W) - W0,
}
errors = {"none": error(0 * W0)} | {name: error(update) for name, update in updates.items()}
column = "error, held out"
Table(["update", column], list(errors.items()), formats={column: "{:.3f}".format})

# %%
assert all(abs(errors[name] - errors["full"]) < 0.02 * errors["full"] for name in updates)
assert errors["none"] > 1.3 * errors["full"]

# %% [markdown]
# ## Do they listen to the same?
#
# The LoRA paper compares the two $A$. All of their directions together are safe, but not their order. From
# *Factor a matrix* you know that $(BC)(C^{-1}A)$ is the same update as $BA$. Take a $C$ that makes the
# strongest direction of $A$ a thousand times weaker, and $B$ as much stronger. The model stays what it is:

# %%
A, B = lnp.value(model.A), lnp.value(model.B)
U, s, Vh = np.linalg.svd(A, full_matrices=False)
C = (U * [1_000, 1, 1, 1, 1, 1, 1, 1]) @ U.T
other_A, other_B = np.linalg.inv(C) @ A, B @ C
assert np.allclose(other_B @ other_A, B @ A, atol=1e-3)

for i in [1, 8]:
    print(f"phi({i}, {i}) of the two A: {lnp.linalg.subspace_similarity(A, other_A, i, i):.2f}")

# %% [markdown]
# All eight directions together are the same, but the first ones have nothing in common. So compare the
# products $BA$. What do two starts listen to first? Each direction has 120 entries, one for each pixel of the
# input, so it is a picture of 10 x 12. (A direction and its opposite are one; the signs are made equal.)


# %% alt="Input directions 1 to 4 of two starts, as pictures of 10 by 12 pixels. The first is a black and a white column at the right edge, in both. The second has bright and dark spots in the lower right corner, in both. The third is alike too. The fourth is noise, and differs."
def svd_like(update, first):
    """The SVD of an update, its signs chosen to go with the directions of another."""
    U, s, Vh = np.linalg.svd(update, full_matrices=False)
    signs = np.sign(np.sum(Vh * np.linalg.svd(first, full_matrices=False).Vh, axis=1))
    return U * signs, s, Vh * signs[:, None]


listens = {}
for name, heading in [("r = 8", "start 1"), ("r = 8, other start", "start 2")]:
    _, _, Vh = svd_like(updates[name], updates["r = 8"])
    listens |= {f"{heading}: {i + 1}": Vh[i].reshape(10, 12) for i in range(4)}
figure = lnp.plots.gallery(listens, width=10)

edge = np.sum(listens["start 1: 1"][:, -2:] ** 2)
print(f"share of the first direction that lies in the last two columns: {edge:.0%}")
assert edge > 0.7

# %% [markdown]
# The first direction subtracts the last but one column from the last: how steep is the ground at the edge,
# where the prediction begins? Both starts found it. The fourth looks like noise. Now in numbers:

# %% alt="Two maps of phi for i and j. Left, two starts at rank 8: near 1 while i and j are at most 3, then falling to less than a half at 8, 8. Right, rank 8 against rank 64: the same three directions are near 1, and the rest is found only among many directions of rank 64." tags=["cover"]
seeds = lnp.linalg.similarity_grid(updates["r = 8"], updates["r = 8, other start"])[:8, :8]
ranks = lnp.linalg.similarity_grid(updates["r = 8"], updates["r = 64"])[:8, :64]

_, panels = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
for grid, name, axes in [(seeds, "r = 8, other start", panels[0]), (ranks, "r = 64", panels[1])]:
    ylabel, xlabel = "top i directions of r = 8", f"top j directions of {name}"
    label = r"similarity $\phi(i, j)$"
    lnp.plots.heatmap(grid, limits=(0, 1), label=label, xlabel=xlabel, ylabel=ylabel, ax=axes)

for i in [1, 2, 3, 4, 8]:
    print(f"two starts, phi({i}, {i}) = {seeds[i - 1, i - 1]:.2f}   by chance {i / 120:.2f}")
assert seeds[2, 2] > 0.85 > 0.6 > seeds[7, 7]

# %% [markdown]
# The first three directions are shared, whatever the start. From the fourth on it fades. The angles say it
# more sharply: three are small, and the others grow towards those of chance.

# %% alt="Eight principal angles between the updates of two starts. The first three are below 30 degrees, then they jump to above 50 and end near 90. By chance the eight angles rise from about 63 to 90 degrees."
between_starts = lnp.linalg.principal_angles(updates["r = 8"].T, updates["r = 8, other start"].T)
angles = {"two starts, r = 8": np.degrees(between_starts), "by chance": chance_angles}
axes = lnp.plots.lines(
    angles, dashed="by chance", xlabel="index of the angle", ylabel="angle in degrees"
)
assert np.degrees(between_starts[2]) < 40 < np.degrees(between_starts[3])

# %% [markdown]
# Have they learned different things, then, in the other five? Ask the error: keep only the first $j$
# directions of an update, and measure.


# %%
def keep(update, j):
    U, s, Vh = np.linalg.svd(update, full_matrices=False)
    return (U[:, :j] * s[:j]) @ Vh[:j]


kept = [0, 1, 2, 3, 4, 8]
rows = [(name, *(error(keep(update, j)) for j in kept)) for name, update in updates.items()]
columns = [f"first {j}" for j in kept]
Table(["error with the", *columns], rows, formats=dict.fromkeys(columns, "{:.4f}".format))

# %%
for name, update in updates.items():
    gain = errors["none"] - errors[name]
    assert error(keep(update, 3)) - errors[name] < 0.03 * gain

# %% [markdown]
# Three directions bring more than 97 % of the gain, and those are the three that both starts found. **What
# differs hardly matters.**<!-- shown: the error without what differs --> The LoRA paper saw such maps for the language model GPT-3, and took them as a sign that a small rank is
# enough.
#
# ## What phi does not show
#
# Now another task: the same pieces of terrain, but the target is upside down. Next to $\phi$ we put what the
# updates do: all outputs on held-out pieces as one long vector, and the cosine of the angle between two of those.

# %%
upside_down = np.ascontiguousarray(y.reshape(-1, 10, 10)[:, ::-1].reshape(-1, 100))
other_task = lora(8, seed=4, y=upside_down).delta()


def cosine_of_outputs(one, other):
    first, second = x_held_out @ one.T, x_held_out @ other.T
    return np.sum(first * second) / (np.linalg.norm(first) * np.linalg.norm(second))


rows = []
for name, update in [*list(updates.items())[1:], ("upside down", other_task)]:
    grid = lnp.linalg.similarity_grid(updates["r = 8"], update)
    cosine = cosine_of_outputs(updates["r = 8"], update)
    rows.append((name, grid[0, 0], grid[1, 1], grid[7, 7], cosine, error(update)))

columns = ["r = 8 and", "phi(1, 1)", "phi(2, 2)", "phi(8, 8)", "cosine of outputs", "error"]
formats = dict.fromkeys(columns[1:5], "{:.2f}".format) | {"error": "{:.3f}".format}
Table(columns, rows, formats=formats)

# %%
assert rows[-1][2] > 0.85  # phi(2, 2) of the wrong task
assert rows[-1][4] < 0.6 < 0.98 < min(row[4] for row in rows[:-1])
assert rows[-1][5] > errors["none"]

# %% [markdown]
# By $\phi$ the wrong task is hardly to be told from the right one. On the terrain it is worse than no update.
# The **output directions**, $u_1$ and $u_2$ of the SVD, pictures of 10 x 10, show why:

# %% alt="Output directions 1 and 2 of the right task and of the upside-down one. The first changes from left to right, in both alike. The second changes from above to below, and in the wrong task it is the negative of the right one."
says = {}
for heading, update in [("right", updates["r = 8"]), ("upside down", other_task)]:
    U, _, _ = svd_like(update, updates["r = 8"])
    says |= {f"{heading}: {i + 1}": U[:, i].reshape(10, 10) for i in range(2)}
figure = lnp.plots.gallery(says, width=7)

right, wrong = says["right: 2"], says["upside down: 2"]
assert np.sum(right * wrong) < -0.9
assert np.sum(right * wrong[::-1]) > 0.9

# %% [markdown]
# Both listen to the same, and say the opposite about above and below. **A high $\phi$ says: the same inputs are
# used. It does not say: the same is done with them.**<!-- shown: an update and twice the same --> For that, compare outputs. Those of our four updates
# agree almost exactly, whatever $\phi(8, 8)$ is. This answers the question: in all that matters they have
# learned the same.
#
# ## The law
#
# - Compare products $BA$, never $A$ or $B$ alone.
# - Principal angles and $\phi(i, j)$ say which inputs two updates share. By chance $\phi$ is $\max(i, j) / k$.
# - They do not say that the updates do the same. For that, compare outputs.
# - What matters shows in the error, when it is taken away.
#
# ## What you can do now
#
# You can look into two updates, and doubt what you see. Try:
#
# - On paper: two planes with principal angles 0 and 90 degrees. What is $\phi(2, 2)$?
#
#   <details><summary>Answer</summary>
#
#   $(1 + 0) / 2 = \tfrac12$.
#
#   </details>
# - On paper: what is $\phi(8, 8)$ by chance for inputs of 4,096 entries?
#
#   <details><summary>Answer</summary>
#
#   $8 / 4{,}096 = 0.002$. In a large model even a small $\phi$ is far from chance, and still says little.
#
#   </details>
# - Give the update of rank 8 twice its strength. What becomes of $\phi$, and of the error?
#
#   <details><summary>Answer</summary>
#
#   $\phi$ stays 1, since directions have no length. The error rises from 0.115 to 0.156, nearly to that of no update at all.
#
#   </details>
#
# ## Further reading
#
# - E. Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, [arXiv
#   2106.09685](https://arxiv.org/abs/2106.09685), section 7.2: $\phi$ in equation 4.
# - Å. Björck, G. H. Golub, "Numerical methods for computing angles between linear subspaces", *Mathematics of
#   Computation* 27, 579-594, 1973, [doi 10.2307/2005662](https://doi.org/10.2307/2005662).
# - C. Davis, W. M. Kahan, "The rotation of eigenvectors by a perturbation. III", *SIAM Journal on Numerical
#   Analysis* 7, 1-46, 1970, [doi 10.1137/0707001](https://doi.org/10.1137/0707001): how far noise turns a
#   direction.
