# %% [markdown]
# # Look inside an update
#
# We train two LoRAs for the same task from different random initialisations, a third LoRA at another rank, and a full update. All four end
# with the same error.
#
# **Have they learned the same thing, and is it something that $W_0$ did not know?**
#
# After this lesson you can
#
# - compare two updates by principal angles and by the similarity $\phi$ of the LoRA paper,
# - measure the amplification that the same paper defines, and find intruder dimensions,
# - compare each number with chance and with a control,
# - say what each number does not show.
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
# The floor of a room is a plane, and a ramp that rises by 30 degrees is another plane. Along the line that they share, the angle between
# them is 0. At right angles to this line, the angle is 30 degrees. Two planes have two such **principal angles**, here 0 and 30 degrees,
# the smaller first.
#
# The mean of the squared cosines combines both in one number, here $(1 + \tfrac34) / 2 = 0.875$. It is 1 for the same plane, and 0 if all
# directions are orthogonal.

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
# The LoRA paper compares two matrices $A$ in this way. We compare whole updates $BA$ by their **input directions**, the rows $v_1^T,
# v_2^T, \dots$ of the SVD, the strongest first. These are the inputs that an update responds to. Take the first $i$ of one update, as
# columns of a matrix $V$, and the first $j$ of the
# other, as columns of $V'$. With the Frobenius norm of *Cut the SVD*,
#
# $$
# \phi(i, j) = \frac{\|V^T V'\|^2}{\min(i, j)}
# $$
#
# is between 0 and 1, and the mean squared cosine if $i = j$. `subspace_similarity` takes the matrices themselves, so our planes are now rows:

# %%
phi = lnp.linalg.subspace_similarity(floor.T, ramp.T, 2, 2)
print("phi(2, 2):", round(phi, 6))
assert np.isclose(phi, np.mean(np.cos(angles) ** 2))
assert np.isclose(phi, 0.875)

# %% [markdown]
# ## What chance gives
#
# Our inputs have 120 entries. Two random choices of 8 directions among 120 have $\phi = 8 / 120 = 0.067$ on average. If $i$ and $j$ differ,
# the average is the larger of the two divided by 120.

# %%
rng = np.random.default_rng(0)
random_pairs = [(rng.normal(size=(8, 120)), rng.normal(size=(8, 120))) for _ in range(50)]
by_chance = np.mean([lnp.linalg.subspace_similarity(*pair, 8, 8) for pair in random_pairs])
print(f"phi(8, 8) by chance: {by_chance:.3f}")
assert abs(by_chance - 8 / 120) < 0.005

# %% [markdown]
# ## Four updates, one error
#
# The task is that of *Train h = W0 x + BAx*: $W_0$ predicts the next pixels of the photograph and has to learn to predict those of the terrain.

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
    return train(lnp.inject(base, rank=rank, alpha=rank, rng=np.random.default_rng(seed)), y, seed)


def error(update):
    return np.mean((x_held_out @ (W0 + update).T - y_held_out) ** 2)


model = lora(8, seed=1)
updates = {
    "r = 8": model.delta(),  # B A
    "r = 8, other seed": lora(8, seed=2).delta(),
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
# ## Do they respond to the same inputs?
#
# The LoRA paper compares the two matrices $A$. That is safe for all directions together, but not for their order. From *Factor a matrix*
# you know that $(BC)(C^{-1}A)$ is the same update as $BA$. Take a $C$ that makes the strongest direction of $A$ a thousand times weaker.
# The model stays the same:

# %%
A, B = lnp.value(model.A), lnp.value(model.B)
U, s, Vh = np.linalg.svd(A, full_matrices=False)
C = (U * [1_000, 1, 1, 1, 1, 1, 1, 1]) @ U.T
other_A, other_B = np.linalg.inv(C) @ A, B @ C
assert np.allclose(other_B @ other_A, B @ A, atol=1e-3)

for i in [1, 8]:
    print(f"phi({i}, {i}) of the two A: {lnp.linalg.subspace_similarity(A, other_A, i, i):.2f}")

# %% [markdown]
# All eight directions together are the same, but the first directions have nothing in common. So compare the products $BA$. Which inputs do
# the two updates respond to most? Each direction has 120 entries, one for each pixel of the input, so it is a picture of 10 x 12. (Signs
# are arbitrary.)


# %% alt="Input directions 1 to 4 of two seeds, as pictures of 10 by 12 pixels. The first is a black and a white column at the right edge, in both. The second has bright and dark spots in the lower right corner, in both. The third is alike too. The fourth is noise, and differs."
def svd_like(update, first):
    """The SVD of an update, its signs chosen to go with the directions of another."""
    U, s, Vh = np.linalg.svd(update, full_matrices=False)
    signs = np.sign(np.sum(Vh * np.linalg.svd(first, full_matrices=False).Vh, axis=1))
    return U * signs, s, Vh * signs[:, None]


pictures = {}
for name, heading in [("r = 8", "seed 1"), ("r = 8, other seed", "seed 2")]:
    _, _, Vh = svd_like(updates[name], updates["r = 8"])
    pictures |= {f"{heading}: {i + 1}": Vh[i].reshape(10, 12) for i in range(4)}
figure = lnp.plots.gallery(pictures, width=10)

edge = np.sum(pictures["seed 1: 1"][:, -2:] ** 2)
print(f"share of the first direction that lies in the last two columns: {edge:.0%}")
assert edge > 0.7

# %% [markdown]
# The first direction subtracts the second last column from the last: how steep is the ground where the prediction begins? Both runs found
# it. The fourth looks like noise. In numbers:

# %% alt="Two maps of phi for i and j. Left, two seeds at rank 8: near 1 while i and j are at most 3, then falling to less than a half at 8, 8. Right, rank 8 against rank 64: the same three directions are near 1, and the rest is found only among many directions of rank 64."
seeds = lnp.linalg.similarity_grid(updates["r = 8"], updates["r = 8, other seed"])[:8, :8]
ranks = lnp.linalg.similarity_grid(updates["r = 8"], updates["r = 64"])[:8, :64]

_, panels = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
for grid, name, axes in [(seeds, "r = 8, other seed", panels[0]), (ranks, "r = 64", panels[1])]:
    ylabel, xlabel = "top i directions of r = 8", f"top j directions of {name}"
    label = r"similarity $\phi(i, j)$"
    lnp.plots.heatmap(grid, limits=(0, 1), label=label, xlabel=xlabel, ylabel=ylabel, ax=axes)

for i in [1, 2, 3, 4, 8]:
    print(f"two seeds, phi({i}, {i}) = {seeds[i - 1, i - 1]:.2f}   by chance {i / 120:.2f}")
assert seeds[2, 2] > 0.85 > 0.6 > seeds[7, 7]

# %% [markdown]
# Both updates share the first three directions. From the fourth on, the agreement fades.
#
# Have they learned different things in the other five? Keep only the first $j$ directions of an update, and measure
# the error.


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
# The three directions that both seeds found achieve more than 97 % of the gain. **The directions that differ hardly
# matter.**<!-- shown: the error without what differs --> The LoRA paper found the same for GPT-3, a language model, and took it as a sign
# that a small rank is enough.
#
# ## What phi does not show
#
# Now take another task: the same pieces of terrain, but with the target upside down. Beside $\phi$ we show the cosine of the angle between
# the outputs of two updates, each written as one long vector over held-out pieces.

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
# Judged by $\phi$, the update for the wrong task looks like the right update. But on the terrain it is worse than no update. The **output
# directions** $u_1$ and $u_2$ of the SVD, as pictures, show why:

# %% alt="Output directions 1 and 2 of the right task and of the upside-down one. The first changes from left to right, in both alike. The second changes from above to below, and in the wrong task it is the negative of the right one."
outputs = {}
for heading, update in [("right", updates["r = 8"]), ("upside down", other_task)]:
    U, _, _ = svd_like(update, updates["r = 8"])
    outputs |= {f"{heading}: {i + 1}": U[:, i].reshape(10, 10) for i in range(2)}
figure = lnp.plots.gallery(outputs, width=7)

right, wrong = outputs["right: 2"], outputs["upside down: 2"]
assert np.sum(right * wrong) < -0.9
assert np.sum(right * wrong[::-1]) > 0.9

# %% [markdown]
# Both respond to the same inputs but predict the opposite about above and below. **A high $\phi$ says that the same inputs are
# used, not that the same is done with them.**<!-- shown: the wrong task has a high phi and a large error --> So compare outputs. Those of
# our four updates agree almost exactly, whatever $\phi(8, 8)$ is: in everything that matters, they have learned the same.
#
# ## Amplification
#
# The second half of the question remains: does an update amplify what $W_0$ already does, or add something new? Compare the size of the
# update with the size of $W_0$ in the same directions. (Size is the Frobenius norm.) On paper, let
# $W_0 = \begin{pmatrix} 5 & 0 \\ 0 & \tfrac12 \end{pmatrix}$ and $\Delta W = \begin{pmatrix} 0 & 0 \\ 0 & 2 \end{pmatrix}$. The update acts
# only in the second direction, with size 2. There, the size of $W_0$ is $\tfrac12$. So the **amplification factor** is 4. In general, let
# $U$ and $V$ hold the first $r$ output and input directions of the update. Then the factor is
#
# $$
# \frac{\|\Delta W\|}{\|U^T W_0 V\|}
# $$

# %%
factor = lnp.linalg.amplification_factor(np.diag([5.0, 0.5]), np.diag([0.0, 2.0]), rank=1)
print("on paper:", factor)
assert factor == 4

# %% [markdown]
# The table shows this factor for our update of rank 8. As a **control**, it shows random updates of the same rank and size:

# %%
update = updates["r = 8"]
rows = [("trained", *[np.linalg.norm(update), lnp.linalg.amplification_factor(W0, update, rank=8)])]
drawn = [rng.normal(size=(100, 8)) @ rng.normal(size=(8, 120)) for _ in range(20)]
same_size = [M * np.linalg.norm(update) / np.linalg.norm(M) for M in drawn]
factors = [lnp.linalg.amplification_factor(W0, M, rank=8) for M in same_size]
rows.append(("random", np.linalg.norm(same_size[0]), np.mean(factors)))
rows = [(name, size, size / factor, factor) for name, size, factor in rows]

columns = ["update", "its size", "size of W0 in its directions", "amplification"]
Table(columns, rows, formats=dict.fromkeys(columns[1:], "{:.1f}".format))

# %%
trained, random = rows
own = np.linalg.norm(np.linalg.svdvals(W0)[:8])
print(f"size of W0: {np.linalg.norm(W0):.1f}, in its own first 8 directions: {own:.1f}")
assert random[3] > 5 * trained[3]
assert trained[2] > 5 * random[2]
assert trained[2] > 0.5 * own

# %% [markdown]
# The paper found factors of 21.5 at rank 4 and 1.9 at rank 64, for GPT-3 (its table 7). Is 21.5 a lot? Here a **random** update has a larger
# factor, because $W_0$ is small in random directions. And the factor doubles if the update doubles. It says little.
#
# The column *size of W0 in its directions* says more. In the directions of the trained update, $W_0$ is many times as large as in random
# directions (in the paper, 0.32 and 0.02). So the update does not add new directions. It amplifies directions that $W_0$ already has.
#
# The paper's $W_0$ has size 21.67 in its own first four directions: so its updates amplify directions that $W_0$ hardly uses. **Ours
# does the opposite**<!-- shown: the size of W0 in the update's directions and in its own -->: it acts where $W_0$ is strong. (On text we
# found the same as the paper: `lora-np claims amplification`.)
#
# ## Intruder dimensions
#
# A direction is new if it is strong in the fine-tuned weight $W_0 + \Delta W$ but absent from $W_0$. Take the first output directions
# $u_1, u_2, \dots$ of the fine-tuned weight. For each, find the closest output direction of $W_0$. If even their cosine is below a
# threshold, such as 0.6, $u_i$ is an **intruder dimension**.
#
# On paper: let $W_0$ have 4, 3, 2, 1 on its diagonal, so its directions are the axes. The direction $(1, 1, 1, 1) /
# 2$ has the cosine $\tfrac12$ with each axis. An update that is strong in this direction adds an intruder:

# %%
small = np.diag([4.0, 3.0, 2.0, 1.0])
strong = 10 * np.outer([1, 1, 1, 1], [1, -1, 1, -1])
first = np.linalg.svd(small + strong).U[:, 0]
print("cosines with the axes:", np.abs(first).round(2))
intruders = lnp.linalg.intruder_dimensions(small, small + strong, top=4, threshold=0.6)
print("indices of the intruders:", intruders)
assert intruders[0] == 0

# %% [markdown]
# LoRA is suspected of adding more of these than a full update, since all of its size lies in few directions. First, random updates of two sizes:


# %%
def mean_intruders(rank, size):
    found = 0
    for _ in range(20):
        M = rng.normal(size=(100, rank)) @ rng.normal(size=(rank, 120))
        M *= size / np.linalg.norm(M)
        found += len(lnp.linalg.intruder_dimensions(W0, W0 + M, top=10, threshold=0.6))
    return found / 20


sizes = {"weak": 0.3 * np.linalg.norm(W0), "like the trained": np.linalg.norm(updates["r = 8"])}
counts = {rank: [mean_intruders(rank, size) for size in sizes.values()] for rank in [1, 4, 8, 100]}
formats = dict.fromkeys(sizes, "{:.1f}".format)
rows = [(rank, *found) for rank, found in counts.items()]
print(Table(["rank", *sizes], rows, title="intruders in the first 10", formats=formats))
print(
    f"size of the trained update: {sizes['like the trained'] / np.linalg.norm(W0):.1f} times that of W0"
)

weak, strong = np.transpose(list(counts.values()))
assert 3 * weak[-1] < weak[:-1].min()
assert strong[2:].min() > 8

# %% [markdown]
# A weak update adds intruders if its rank is low. An update as large as our trained update adds as many as it can, at every rank.
#
# For the trained updates, the control is a weight that has learned nothing new: it was fitted to other pieces of the **same photograph**.
# For the first 20 directions of each weight, the picture shows the cosine with the closest direction of $W_0$. Intruders lie in the grey
# band.


# %% alt="For the first 20 output directions of each fine-tuned weight, the cosine with the closest direction of W0. Those of rank 8 are all above 0.6. The full update has seven below 0.6. The control, the same photograph again, is below 0.6 from the tenth direction on." tags=["cover"]
def closest(W):
    directions = np.linalg.svd(W0).U.T @ np.linalg.svd(W).U[:, :20]
    return np.abs(directions).max(axis=0)


again = best_weight(*lnp.datasets.patches(lnp.datasets.photograph(), 20_000, rng=rng))
control = "photograph again"
tuned = {name: W0 + update for name, update in updates.items()} | {control: again}
shown = {name: closest(tuned[name]) for name in ["r = 8", "full", control]}
axes = lnp.plots.lines(
    shown,
    dashed=control,
    xlabel="direction of the fine-tuned weight",
    ylabel="cosine with the closest of $W_0$",
)
band = axes.axhspan(0, 0.6, color=lnp.plots.MUTED, alpha=0.1, zorder=0)  # intruders

# %%
counts = {name: len(lnp.linalg.intruder_dimensions(W0, W, top=20)) for name, W in tuned.items()}
columns = ["fine-tuned weight", "intruders in the first 20", "error on the photograph"]
rows = [(name, count, np.mean((x0 @ tuned[name].T - y0) ** 2)) for name, count in counts.items()]
Table(columns, rows, formats={columns[2]: "{:.3f}".format})

# %%
print(f"W0 on the photograph: {np.mean((x0 @ W0.T - y0) ** 2):.3f}")
assert counts["r = 8"] <= counts["full"] < counts[control]

# %% [markdown]
# A random update of this size and rank adds eight or more intruders in the first 10 directions; the trained update adds none
# in the first 20. The control has the most intruders, although it does the old task nearly as well as $W_0$: where singular values are close, a small change turns their directions.
#
# So in this small model, the count says nothing about what was learned. That does not refute the paper that introduced this measure. In its
# language models, only LoRA had intruders, and weakening them restored old abilities. **A direction matters if the error changes when you
# take it away.**<!-- shown: the errors of the first directions alone, above -->
#
# ## The law
#
# | measure | says | does not say | compare it with |
# |---|---|---|---|
# | principal angles, $\phi(i, j)$ | which inputs two updates share | that they do the same with them | chance, $\max(i, j) / k$ |
# | amplification | size of the update relative to $W_0$ where it acts | that it matters | a random update of the same size |
# | intruder dimensions | directions that $W_0$ does not have | that they are new knowledge, or harm | the same training on other data |
#
# - Compare products $BA$, never $A$ or $B$ alone.
# - To see whether a direction matters, remove it and look at the error.
#
# ## What you can do now
#
# You can look into an update and question the numbers. Try this:
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
#   $8 / 4{,}096 = 0.002$. In a large model even a small $\phi$ is far above chance, and still says little.
#
#   </details>
# - Multiply the update of rank 8 by two. What happens to $\phi$, to the amplification, and to the error?
#
#   <details><summary>Answer</summary>
#
#   $\phi$ stays 1, since directions have no length. The amplification doubles, from 3.7 to 7.3. The error rises from 0.115 to 0.156, nearly
#   to the error without any update: a larger factor is not better.
#
#   </details>
# - Take the SVD of the fully fine-tuned weight, and set the singular values of the intruders to zero. Then remove as many other directions
#   instead. How does `error` change?
#
#   <details><summary>Answer</summary>
#
#   Without the seven intruders it rises by 0.0008, without the last seven other directions of the first 20 by 0.0015, without seven random
#   ones of the other 13 of the first 20, typically by 0.029 (the median, the middle of many tries). The whole update is worth 0.044: the
#   intruders hardly matter here.
#
#   </details>
#
# ## Further reading
#
# - E. Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, [arXiv
#   2106.09685](https://arxiv.org/abs/2106.09685), sections 7.2 and 7.3: $\phi$ in equation 4, amplification in
#   table 7.
# - Å. Björck, G. H. Golub, "Numerical methods for computing angles between linear subspaces", *Mathematics of
#   Computation* 27, 579-594, 1973, [doi 10.2307/2005662](https://doi.org/10.2307/2005662).
# - C. Davis, W. M. Kahan, "The rotation of eigenvectors by a perturbation. III", *SIAM Journal on Numerical
#   Analysis* 7, 1-46, 1970, [doi 10.1137/0707001](https://doi.org/10.1137/0707001): how far noise turns a
#   direction.
# - R. Shuttleworth, J. Andreas, A. Torralba, P. Sharma, *LoRA vs Full Fine-tuning: An Illusion of Equivalence*,
#   [arXiv 2410.21228](https://arxiv.org/abs/2410.21228): intruder dimensions.
