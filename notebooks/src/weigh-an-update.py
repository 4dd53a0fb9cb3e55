# %% [markdown]
# # Weigh an update
#
# An update adds something to $W_0$. It may turn up what $W_0$ does already, or bring in what it never did. Two measures are
# quoted for that, **amplification** and **intruder dimensions**.
#
# **Does an update strengthen what is there, or add what is not, and does either number say that it matters?**
#
# After this lesson you can
#
# - measure the amplification of the LoRA paper, and find intruder dimensions,
# - hold each number against a control,
# - say what it does not show.
#
# You need *Look inside an update*.

# %%
import numpy as np

import lora_np as lnp
from lora_np.table import Table

# %% [markdown]
# The updates are again those of *Train h = W0 x + BAx*: $W_0$ continues a photograph, and learns to continue the terrain, at rank 8
# and in full.

# %%
rng = np.random.default_rng(0)
x0, y0 = lnp.datasets.patches(lnp.datasets.photograph(), 20_000, rng=rng)


def best_weight(x, y):
    B, A = lnp.reduced_rank_regression(x, y, ridge=0.01 * np.mean(x**2))
    return (B @ A).astype(np.float32)


W0 = best_weight(x0, y0)
base = lnp.Linear(W0)
pairs = lnp.datasets.patches(lnp.datasets.terrain(), 25_000, rng=rng)
x, y = (part[:20_000].astype(np.float32) for part in pairs)
x_held_out, y_held_out = (part[20_000:].astype(np.float32) for part in pairs)


def train(model):
    optimizer = lnp.Adam(lr=lnp.cosine_schedule(1e-2, steps=2_000))
    settings = {"optimizer": optimizer, "steps": 2_000, "batch_size": 256, "rng": 0}
    return lnp.fit(model, x, y, **settings, progress=False).model


def error(update):
    return np.mean((x_held_out @ (W0 + update).T - y_held_out) ** 2)


updates = {
    "r = 8": train(lnp.inject(base, rank=8, rng=1)).delta(),
    "full": lnp.value(train(lnp.Linear(lnp.Tensor(W0))).W) - W0,
}
print(f"error: {error(0 * W0):.3f} without an update", end="")
print("".join(f", {error(update):.3f} with {name}" for name, update in updates.items()))
assert abs(error(updates["r = 8"]) - error(updates["full"])) < 0.01 * error(updates["full"])

# %% [markdown]
# ## Amplification
#
# How large is the update where it acts, compared with what $W_0$ does there? On paper: $W_0 = \begin{pmatrix} 5 & 0 \\ 0 &
# \tfrac12 \end{pmatrix}$ and $\Delta W = \begin{pmatrix} 0 & 0 \\ 0 & 2 \end{pmatrix}$. The update acts in the
# second direction only, with 2. There $W_0$ has $\tfrac12$. So the **amplification factor** is 4. In general, with
# the first $r$ directions $U$ and $V$ of the update on both sides:
#
# $$
# \frac{\|\Delta W\|}{\|U^T W_0 V\|}
# $$

# %%
factor = lnp.linalg.amplification_factor(np.diag([5.0, 0.5]), np.diag([0.0, 2.0]), rank=1)
print("on paper:", factor)
assert factor == 4

# %% [markdown]
# For our update of rank 8, and as a control for a random update of rank 8 and of the same size:

# %%
update = updates["r = 8"]
rows = [("trained", *[np.linalg.norm(update), lnp.linalg.amplification_factor(W0, update, rank=8)])]
drawn = [rng.normal(size=(100, 8)) @ rng.normal(size=(8, 120)) for _ in range(20)]
same_size = [M * np.linalg.norm(update) / np.linalg.norm(M) for M in drawn]
factors = [lnp.linalg.amplification_factor(W0, M, rank=8) for M in same_size]
rows.append(("random", np.linalg.norm(same_size[0]), np.mean(factors)))
rows = [(name, size, size / factor, factor) for name, size, factor in rows]

columns = ["update", "its size", "size of W0 in its directions", "factor"]
Table(columns, rows, formats=dict.fromkeys(columns[1:], "{:.1f}".format))

# %%
trained, random = rows
own = np.linalg.norm(np.linalg.svdvals(W0)[:8])
print(f"size of W0: {np.linalg.norm(W0):.1f}, in its own first 8 directions: {own:.1f}")
assert random[3] > 5 * trained[3]
assert trained[2] > 5 * random[2]
assert trained[2] > 0.5 * own

# %% [markdown]
# The paper found factors of 21.5 at rank 4 and, from its table 7, 1.9 at rank 64, for GPT-3. Is 21.5 much?
# Here a **random** update has an even larger one, because in random directions $W_0$ has next to nothing. And
# it doubles with the update. By itself it says little.
#
# The third column says more, and the paper has it too: at rank 4, 0.32, and 0.02 for a random update. In the
# directions of the trained update $W_0$ is many times as large as in random ones. So the update does not open
# new directions. It turns up some that $W_0$ has.
#
# The paper's $W_0$ has 21.67 in its own first four directions: its updates turn up what $W_0$ hardly uses. **Ours
# does the opposite**<!-- shown: the size of W0 in the update's directions and in its own -->: it acts where $W_0$ is strong. (On text it was as in the paper: `lora-np claims amplification`.)
#
# ## Intruder dimensions
#
# The opposite would be a direction that is strong in the tuned weight and that $W_0$ does not know. Take the
# first output directions $u_1, u_2, \dots$ of the tuned weight. For each, find the closest of all output
# directions of $W_0$. If even that cosine is below a threshold, say 0.6, it is an **intruder dimension**.
#
# On paper: let $W_0$ have 4, 3, 2, 1 on its diagonal, so its directions are the axes. The direction $(1, 1, 1, 1) /
# 2$ has the cosine $\tfrac12$ with each axis. An update that is strong in it brings an intruder:

# %%
small = np.diag([4.0, 3.0, 2.0, 1.0])
strong = 10 * np.outer([1, 1, 1, 1], [1, -1, 1, -1])
first = np.linalg.svd(small + strong).U[:, 0]
print("cosines with the axes:", np.abs(first).round(2))
places = lnp.linalg.intruder_dimensions(small, small + strong, top=4, threshold=0.6)
print("places of intruders, from 0:", places)
assert places[0] == 0

# %% [markdown]
# LoRA is suspected of this more than a full update, since it must put its strength in few directions. Random
# updates first, of two sizes:


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
# A weak update brings intruders if its rank is low, since its strength lies in few directions. An update as
# strong as our trained one brings as many as it can, at every rank. So size matters as much as rank.
#
# And the trained ones? As a control take a weight that has learned nothing new: fitted to the **same
# photograph**, but to other pieces of it. For the first 20 directions of each, here is the cosine with the closest of $W_0$; in the grey band are the intruders.


# %% alt="For the first 20 output directions of each tuned weight, the cosine with the closest direction of W0. Those of rank 8 are all above 0.6. The full update has four below 0.6. The control, the same photograph again, is below 0.6 from the seventh direction on, but for one." tags=["cover"]
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
    xlabel="direction of the tuned weight",
    ylabel="cosine with the closest of $W_0$",
)
band = axes.axhspan(0, 0.6, color="0.95", zorder=0)  # below: intruders

# %%
counts = {name: len(lnp.linalg.intruder_dimensions(W0, W, top=20)) for name, W in tuned.items()}
columns = ["tuned weight", "intruders in the first 20", "error on the photograph"]
rows = [(name, count, np.mean((x0 @ tuned[name].T - y0) ** 2)) for name, count in counts.items()]
Table(columns, rows, formats={columns[2]: "{:.3f}".format})

# %%
print(f"W0 on the photograph: {np.mean((x0 @ W0.T - y0) ** 2):.3f}")
assert counts["r = 8"] <= counts["full"] < counts[control]

# %% [markdown]
# A random update of rank 8 and this size brings eight or nine in the first 10, the trained one none in the
# first 20. The control brings most, although it does the old work nearly as well as $W_0$: other pieces make a
# slightly different weight, and where singular values lie close together, that turns their directions.
#
# So in this small model the count says nothing about what was learned. That does not refute the paper that
# introduced it: there, in language models, LoRA had intruders and full updates had not, and turning them down
# brought old abilities back. **A direction matters if the error changes when you take it away.**<!-- shown: the errors of the first directions alone, in Look inside an update -->
#
# ## The law
#
# | measure | says | does not say | hold it against |
# |---|---|---|---|
# | amplification | size of the update relative to $W_0$ where it acts | that it matters | a random update of the same size |
# | intruder dimensions | directions that $W_0$ does not have | that they are new knowledge, or harm | the same training on other data |
#
# - A number without a control says nothing.
# - What matters shows in the error, when it is taken away.
#
# ## What you can do now
#
# You can weigh an update, and doubt the number. Try:
#
# - On paper: $W_0$ as above, with 5 and $\tfrac12$ on its diagonal, and an update that acts in the **first** direction with 2. What is its
#   amplification?
#
#   <details><summary>Answer</summary>
#
#   $2 / 5 = 0.4$. The update is as large as before, but $W_0$ has much there already.
#
#   </details>
# - Give the update of rank 8 twice its strength. What becomes of the amplification, and of the error?
#
#   <details><summary>Answer</summary>
#
#   The amplification doubles, to 7.0. The error rises to 0.165, above that of no update at all: a larger factor is not a better one.
#
#   </details>
# - In the SVD of the weight that was tuned in full, set the singular values of the intruders to zero. Do the same
#   with as many others. What does `error` say of the results, minus $W_0$?
#
#   <details><summary>Answer</summary>
#
#   Without the four intruders it rises by 0.0009, without the last four other directions of the first 20 by 0.0002, without four
#   random ones of the others by 0.006 in the median. The whole update is worth 0.044: the intruders hardly matter here.
#
#   </details>
#
# ## Further reading
#
# - E. Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, [arXiv
#   2106.09685](https://arxiv.org/abs/2106.09685), section 7.3: amplification in table 7.
# - R. Shuttleworth, J. Andreas, A. Torralba, P. Sharma, *LoRA vs Full Fine-tuning: An Illusion of Equivalence*,
#   [arXiv 2410.21228](https://arxiv.org/abs/2410.21228): intruder dimensions.
# - C. Davis, W. M. Kahan, "The rotation of eigenvectors by a perturbation. III", *SIAM Journal on Numerical
#   Analysis* 7, 1-46, 1970, [doi 10.1137/0707001](https://doi.org/10.1137/0707001): how far noise turns a
#   direction.
