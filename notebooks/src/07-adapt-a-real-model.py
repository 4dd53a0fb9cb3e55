# %% [markdown]
# # Adapt a real model
#
# A matrix that continues photographs shall continue maps. A network that reads digits shall read them when
# they lie on their side. Both have to learn something new.
#
# **What does LoRA save, counted and not promised? And what becomes of what the model could do before?**
#
# After this lesson you can
#
# - adapt a matrix and a network of several layers,
# - measure the three advantages of LoRA, and say where they are small,
# - say why an update makes a model forget, and which part of the old data it leaves alone,
# - take an adapter off again.
#
# You need *Count parameters* and *Train*.

# %%
import os
import tempfile
from pathlib import Path

import numpy as np

import lora_np as lnp

os.chdir(tempfile.mkdtemp())  # a folder for the files of this lesson

# %% [markdown]
# ## Learn one thing, forget another
#
# On paper: $W_0 = \begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}$ gives back what it is given. A new example
# comes, $x = (1, 1)$ with target $y = (2, 0)$. The error is $y - W_0 x = (1, -1)$, and an update of rank one
# removes it:
#
# $$
# BA = \begin{pmatrix} 1 \\ -1 \end{pmatrix} \begin{pmatrix} \tfrac12 & \tfrac12 \end{pmatrix}
#    = \begin{pmatrix} \tfrac12 & \tfrac12 \\ -\tfrac12 & -\tfrac12 \end{pmatrix},
# \qquad
# BA \begin{pmatrix} 1 \\ 1 \end{pmatrix} = \begin{pmatrix} 1 \\ -1 \end{pmatrix}
# $$
#
# What happens to old inputs depends on $Ax$ alone. For $(1, -1)$ it is $\tfrac12 - \tfrac12 = 0$: nothing has
# changed. For $(1, 0)$ it is $\tfrac12$: the model has forgotten.

# %%
W0 = np.eye(2)
B, A = np.array([[1.0], [-1.0]]), np.array([[0.5, 0.5]])
for x in [(1, 1), (1, -1), (1, 0)]:
    print(f"x = {x}:  before {W0 @ x},  A x = {A @ x},  after {(W0 + B @ A) @ x}")

# %% [markdown]
# An update of rank $r$ reacts to $r$ directions of the input, the rows of $A$. **Where old inputs have nothing
# in these directions, nothing is forgotten.** Where they have, there are two ways out: do without the new, or
# keep $BA$ beside $W_0$ and take it off when old work is to be done.
#
# ## From a photograph to a map
#
# The setting of *Train*: 10 x 12 pixels in, the next 10 x 10 out, $W_0$ is 100 x 120. It was made for the
# photograph, and is now adapted to the heights around the Jacksboro fault, in full and at rank 8.

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
    optimizer = lnp.Adam(lr=lnp.cosine(1e-2, steps=1_000))
    return lnp.fit(model, x, y, optimizer=optimizer, steps=1_000, batch_size=256, progress=False).model


def error(model, task):
    inputs, targets = held_out[task]
    return float(lnp.mean_squared_error(lnp.freeze(model)(inputs), targets))


full = train(lnp.Linear(lnp.Tensor(base.W)))
lora = train(lnp.inject(base, rank=8, rng=rng))
models = {"W0": base, "full update": full, "LoRA, r = 8": lora}
errors = {name: (error(model, "map"), error(model, "photograph")) for name, model in models.items()}

formats = dict.fromkeys(["error on the map", "on the photograph"], "{:.3f}".format)
lnp.accounting.Table(["model", *formats], [(name, *pair) for name, pair in errors.items()], formats=formats)

# %%
gain = (errors["W0"][0] - errors["LoRA, r = 8"][0]) / (errors["W0"][0] - errors["full update"][0])
print(f"share of the full update's gain that LoRA brings: {gain:.0%}")
assert gain > 0.97
assert errors["LoRA, r = 8"][1] > errors["full update"][1] > 1.3 * errors["W0"][1]

# %% [markdown]
# On the map, LoRA brings what a full update brings, with a seventh of the numbers. On the photograph both have
# become worse, LoRA no less than the full update: that is what was forgotten, and we come back to it.
#
# ## Turn the rank yourself
#
# A strip of the map is cut into patches, each is predicted from the pixels to its left, and the error is
# drawn in grey: what is even is right. Each rank has its best possible $BA$, from the formula in *Train*. In
# JupyterLab this cell becomes a slider. Elsewhere you see four ranks.

# %%
bands = lnp.datasets.standardised(terrain)[120:180].reshape(6, 10, -1)  # six bands, each 10 pixels high
starts = np.arange(12, bands.shape[2] - 10, 10)
contexts = np.stack([bands[:, :, s - 12 : s] for s in starts], axis=1).reshape(-1, 120)
truth = np.stack([bands[:, :, s : s + 10] for s in starts], axis=1).reshape(-1, 100)
level = contexts.mean(axis=1, keepdims=True)


def misses(W):
    """What the predictions of the strip miss, in metres, as a picture."""
    missed = (level + (contexts - level) @ W.T - truth) * terrain.std()
    return missed.reshape(6, len(starts), 10, 10).transpose(0, 2, 1, 3).reshape(60, -1)


pictures = {}
for rank in [0, 1, 2, 3, 4, 8, 20]:
    update = 0
    if rank:
        B, A = lnp.reduced_rank_regression(x, y, W0=base.W, rank=rank, ridge=0.01 * np.mean(x**2))
        update = B @ A
    missed = misses(base.W + update)
    pictures[f"rank {rank}: {220 * rank:,} numbers, error {np.std(missed):.1f} m"] = missed

# %% alt="The errors of the predicted strip at ranks 0, 2, 4 and 20, as grey maps. At rank 0 the error is 60 metres, at rank 2 it is 53 metres and the map a little more even; from there on nothing changes."
lnp.widgets.picture_slider(pictures)

# %% [markdown]
# Rank 1 takes off most of what can be taken off, and from rank 2 on the eye finds no difference. What is left,
# no linear model can know from these pixels.
#
# ## Three advantages, counted
#
# **1. Less to train.** Each trained number has a gradient and two moments of Adam beside it. **2. Less to
# compute.** Here are the multiplications of one step for one example, with $e$ the gradient that arrives from
# the output:
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
# The last row is for a layer inside of a network. **3. Less to store**: the file holds $A$ and $B$ only.


# %%
def multiplications(d, k, rank=None):
    if rank is None:
        return 3 * d * k
    return 2 * d * k + 3 * d * rank + 3 * rank * k


lnp.adapters.save(lora, "adapter")
lnp.safetensors.save("full.safetensors", {"weight": lnp.value(full.W)})
files = [Path("full.safetensors"), Path("adapter", "adapter_model.safetensors")]
numbers = [sum(tensor.size for _, tensor in lnp.trainable(model)) for model in (full, lora)]
moments = [lnp.start(lnp.Adam(), model).nbytes for model in (full, lora)]

rows = [
    ("1. numbers to train", *numbers),
    ("1. bytes of Adam's moments", *moments),
    ("2. multiplications, 100 x 120", multiplications(100, 120), multiplications(100, 120, rank=8)),
    ("2. multiplications, 4,096 x 4,096", multiplications(4096, 4096), multiplications(4096, 4096, rank=8)),
    ("3. bytes of the file", *(file.stat().st_size for file in files)),
]
rows = [(*row, row[1] / row[2]) for row in rows]
formats = {"full / LoRA": "{:.1f}".format}
lnp.accounting.Table(["", "full", "LoRA, r = 8", "full / LoRA"], rows, formats=formats)

# %%
by_hand = {"full": 3 * 12_000, "LoRA": 2 * 12_000 + 3 * 8 * 100 + 3 * 8 * 120}
assert [multiplications(100, 120), multiplications(100, 120, rank=8)] == list(by_hand.values())
assert moments == [8 * number for number in numbers]
assert 1.49 < multiplications(4096, 4096) / multiplications(4096, 4096, rank=8) < 1.5

# %% [markdown]
# Numbers, moments and files shrink sevenfold here, and more in larger matrices (*Count parameters*). The work
# does not: **inside of a network LoRA saves at most one third of the multiplications**, since the way through
# $W_0$ stays, forward and back. What a step takes in seconds depends on the machine. In NumPy, at 100 x 120, it is mostly the calls
# that take time, and LoRA makes more of them.
#
# ## A network that reads
#
# 1,797 digits, written by 13 people, 8 x 8 pixels each. A network of three layers has ten outputs, one for
# each digit, and the largest is its answer. Between the layers, `relu` sets negative values to zero.
#
# It is trained with the **cross-entropy**. The outputs $o_0$ to $o_9$ become probabilities:
#
# $$
# p_i = \frac{e^{o_i}}{e^{o_0} + \dots + e^{o_9}}
# $$
#
# The loss is $-\log p_i$ for the right digit $i$: 0 if the network is certain and right, 0.69 if it gives the
# right one probability one half.

# %% alt="Eight handwritten digits, 0 to 7, of eight by eight pixels, in an upper row as written and in a lower row lying on their side."
images, answers = lnp.datasets.digits()
sideways = np.rot90(images, axes=(1, 2))
rows = [
    np.hstack([np.pad(1 - image, 1, constant_values=1) for image in some[:8]]) for some in (images, sideways)
]
figure = lnp.plots.strips({"old task: upright": rows[0], "new task: on their side": rows[1]}, width=6)

# %%
rng = np.random.default_rng(0)
order = rng.permutation(len(images))
learning, testing = order[:1_200], order[1_200:]
old, new = (some.reshape(-1, 64) - 0.3 for some in (images, sideways))  # around zero


def layer(d, k):
    return lnp.Linear.init(d_out=d, d_in=k, bias=True, rng=rng)


def learn(model, pixels, rate):
    optimizer = lnp.Adam(lr=lnp.cosine(rate, steps=500))
    settings = {"optimizer": optimizer, "steps": 500, "batch_size": 64, "loss": lnp.cross_entropy}
    return lnp.fit(model, pixels[learning], answers[learning], **settings, progress=False).model


def accuracy(model, pixels):
    return lnp.nn.accuracy(lnp.freeze(model)(pixels[testing]), answers[testing])


relu = lnp.Activation(lnp.nn.relu)
network = lnp.Sequential([layer(64, 64), relu, layer(64, 64), relu, layer(10, 64)])
reader = lnp.freeze(learn(network, old, 0.003))

print(f"read right, held out: {accuracy(reader, old):.0%} upright, {accuracy(reader, new):.0%} on their side")
assert accuracy(reader, old) > 0.95
assert accuracy(reader, new) < 0.2

# %% [markdown]
# On its side a digit is a riddle: one in ten is what guessing gives.
#
# `inject` puts $B$ and $A$ beside all three layers. We adapt at ranks 1, 2, 4 and 8, then in full, then the
# last layer only, with two learning rates each:


# %%
def thawed(model, part=""):
    return lnp.replace(model, np.ndarray, lambda path, a: lnp.Tensor(a) if path.startswith(part) else a)


ways = {f"LoRA, r = {rank}": lnp.inject(reader, rank=rank, alpha=2 * rank, rng=rng) for rank in [1, 2, 4, 8]}
ways |= {"full": thawed(reader), "last layer only": thawed(reader, "layers.4")}

scores, rows = {}, []
for name, model in ways.items():
    for rate in [0.003, 0.01]:
        adapted = learn(model, new, rate)
        scores[name, rate] = accuracy(adapted, old), accuracy(adapted, new)
    numbers = sum(tensor.size for _, tensor in lnp.trainable(model))
    rows.append((name, numbers, *(scores[name, rate][1] for rate in [0.003, 0.01])))

formats = dict.fromkeys(["new task, rate 0.003", "rate 0.01"], "{:.0%}".format)
lnp.accounting.Table(["adapted", "trained numbers", *formats], rows, formats=formats)

# %%
small, last = ways["LoRA, r = 2"], ways["last layer only"]
sizes = [sum(tensor.size for _, tensor in lnp.trainable(model)) for model in (small, last)]
assert abs(sizes[0] - sizes[1]) < 20
assert scores["LoRA, r = 2", 0.01][1] > scores["last layer only", 0.01][1] + 0.05
assert scores["LoRA, r = 8", 0.01][1] > scores["full", 0.01][1] - 0.02

# %% [markdown]
# Rank 2 trains as many numbers as the last layer alone, and reads better: a little in every layer is worth
# more than much in one. At rank 8 LoRA is on a level with the full update.
#
# ## What is forgotten
#
# Now the old task. Each model by what it still knows and by what it has learned; the best place is at the
# upper right:

# %% alt="Accuracy on the new task against accuracy on the old one. The model that is not adapted knows the old task only. Adapted models lie on a falling line: those that have learned most have kept least, LoRA and full alike. A LoRA that is taken off for old work is alone at the upper right."
slow, fast = (
    {name.removeprefix("LoRA, "): scores[name, rate] for name in ways if name != "last layer only"}
    for rate in [0.003, 0.01]
)
before = accuracy(reader, old), accuracy(reader, new)
groups = {
    "not adapted": {"": before},
    "full, two rates": {"rate 0.003": slow.pop("full"), "rate 0.01": fast.pop("full")},
    "LoRA, rate 0.01": {"r = 8": fast["r = 8"]},
    "LoRA, rate 0.003": slow,
    "LoRA, taken off for old work": {"r = 8": (before[0], fast["r = 8"][1])},
}
axes = lnp.plots.old_and_new(groups)

# %%
learned = [slow[f"r = {rank}"][1] for rank in [1, 2, 4, 8]]
kept = [slow[f"r = {rank}"][0] for rank in [1, 2, 4, 8]]
assert learned == sorted(learned)
assert kept == sorted(kept, reverse=True)
assert all(
    now < 0.5 for now, _ in [scores["full", 0.003], scores["LoRA, r = 8", 0.003], scores["full", 0.01]]
)
assert scores["full", 0.003][0] > scores["LoRA, r = 8", 0.003][0]

# %% [markdown]
# At the lower rate a small rank keeps most of the old task, because it learns little of the new one. The
# models that have learned the new task best read fewer than half of the upright digits, LoRA no more than the
# full update. **A low rank by itself is no protection.** In the words of the example on paper: upright digits
# have much in the directions that $A$ reacts to.
#
# What LoRA does give is the star. The old model is still there, bit for bit, and the adapter is a file of its
# own. For old work, leave it off:

# %%
adapted = learn(ways["LoRA, r = 8"], new, 0.01)
without = lnp.replace(adapted, lnp.LoRALinear, lambda path, layer: layer.base)
same = all((a == b).all() for (_, a), (_, b) in zip(lnp.leaves(without), lnp.leaves(reader), strict=True))
print(f"without the adapter, every number is the old one: {same}")
print(f"read right: {accuracy(without, old):.0%} upright, with it {accuracy(adapted, new):.0%} on their side")
assert same

# %% [markdown]
# It has to be known which task is at hand. And once `merge` has made one matrix of $W_0$ and $BA$, the old one
# is gone, unless it was kept.
#
# ## The law
#
# - LoRA trains $r(d + k)$ numbers in place of $dk$, and moments and files shrink alike. Of the
#   multiplications inside of a network it saves a third at most.
# - An update $BA$ changes the answer to $x$ only if $Ax \ne 0$. Old inputs with a part in the rows of $A$ are
#   answered differently: that is forgetting.
# - LoRA does not forget less by being of low rank. It can be taken off.
#
# ## What you can do now
#
# You can adapt a network, and report both what it has learned and what it has lost. Try:
#
# - On paper: for $A = (\tfrac12\ \tfrac12)$, which inputs in the plane are answered as before?
# - Adapt with both kinds of digits at once, half and half. What becomes of the old task, and of the new one?
# - Time a step with `%timeit lnp.fit(...)`, full and LoRA, at 100 x 120 and at 1,024 x 1,024. Is it the third
#   that was counted?
#
# ## Further reading
#
# - E. Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, [arXiv
#   2106.09685](https://arxiv.org/abs/2106.09685), section 4.2: the benefits, and the limits.
# - D. Biderman et al., *LoRA Learns Less and Forgets Less*, [arXiv
#   2405.09673](https://arxiv.org/abs/2405.09673): the same trade in large language models, where LoRA does
#   forget less.
# - M. McCloskey, N. Cohen, "Catastrophic interference in connectionist networks: the sequential learning
#   problem", *Psychology of Learning and Motivation* 24, 109-165, 1989, [doi
#   10.1016/S0079-7421(08)60536-8](https://doi.org/10.1016/S0079-7421(08)60536-8).
# - E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning Repository 1998,
#   [doi 10.24432/C50P49](https://doi.org/10.24432/C50P49): the data.
