# %% [markdown]
# # Open a real adapter
#
# A LoRA has been trained. To pass it on, its maker sends a folder with two files. The model that it belongs
# to is not among them.
#
# **What is in those files, and what can be done with them without any training?**
#
# After this lesson you can
#
# - read an adapter's files down to the single entry,
# - see how many of its directions are needed, and cut the others,
# - make an adapter out of two models,
# - exchange adapters with PEFT, the library that most of them are made with (*more*).
#
# You need *Cut the SVD*, *Train h = W0 x + BAx* and *Adapt a language model*.

# %%
import json
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import lora_np as lnp
from lora_np.table import Table

os.chdir(tempfile.mkdtemp())  # a folder for the files of this lesson

# %% [markdown]
# ## On paper: 4 x 5, rank 2
#
# $$
# B = \begin{pmatrix} 3 & 0 \\ 4 & 0 \\ 0 & 3 \\ 0 & 4 \end{pmatrix}, \quad
# A = \begin{pmatrix} 2 & 0 & 1 & 0 & 2 \\ 0 & 0.06 & 0 & 0.08 & 0 \end{pmatrix}, \quad
# \alpha = 4, \quad \Delta W = \frac{\alpha}{r} B A = 2 B A
# $$
#
# We save it as PEFT would, and look at what is there:

# %%
B = np.array([[3, 0], [4, 0], [0, 3], [0, 4]], dtype=np.float32)
A = np.array([[2, 0, 1, 0, 2], [0, 0.06, 0, 0.08, 0]], dtype=np.float32)
lnp.adapters.save(lnp.LoRALinear(lnp.Linear(np.zeros((4, 5))), A=A, B=B, alpha=4), "paper")

for file in sorted(Path("paper").iterdir()):
    print(f"{file.name:27}{file.stat().st_size:4} bytes")

# %%
weights = lnp.hub.safetensors.open("paper/adapter_model.safetensors")
for name, tensor in weights.tensors.items():
    print(name, tensor.dtype, tensor.shape)
    print(weights.read(name))

config = json.loads(Path("paper/adapter_config.json").read_text())
print({setting: config[setting] for setting in ["target_modules", "r", "lora_alpha"]})

# %% [markdown]
# Two arrays, in files called *tensors*, with $2 \cdot (4 + 5) = 18$ entries, and names that say where they belong: `linear` is the layer,
# `base_model.model.` is PEFT's way to say "the model". The config holds $r$ and $\alpha$. Without $\alpha$ nobody could know the factor
# $\alpha / r$, the **scale** of the update: the shape of $A$ says only $r$.
#
# ## Two files, one adapter
#
# Double $B$ and halve $A$. Each entry in the file has changed, and $BA$ is the same. In general, take any square matrix $M$ that has
# an **inverse** $M^{-1}$, which undoes it. Then $(BM)(M^{-1}A)$ is $BA$. So the entries of $A$ or $B$ alone say little.
#
# PEFT calls a layer with a name a **module**. In the package an `Adapter` maps the name of each to an `AdapterModule`, its $A$, $B$ and
# $\alpha$. `diff` compares what two adapters do:

# %%
change = np.array([[1, 2], [0, 1]], dtype=np.float32)
other = lnp.adapters.AdapterModule.of(A=np.linalg.inv(change) @ A, B=B @ change, alpha=4)
lnp.adapters.save(lnp.adapters.Adapter({"linear": other}), "other")

print("A, with other entries:\n", other.A)
print("the same update:", lnp.adapters.diff("paper", "other").same)
assert lnp.adapters.diff("paper", "other").same

# %% [markdown]
# ## The spectrum, without the product
#
# How large an update is, in each direction, is in the singular values of $\Delta W$, its **spectrum**. In our example they can be read off. The
# columns of $B$ are orthogonal, of length 5 and 5, and so are the rows of $A$, of length 3 and 0.1. Each
# column times its row is a term of the SVD. With the factor 2, the singular values are
# $2 \cdot 5 \cdot 3 = 30$ and $2 \cdot 5 \cdot 0.1 = 1$.
#
# In general the columns of $B$ are not orthogonal. The **QR decomposition** writes $B = QR$: the columns of $Q$ are orthogonal and of length 1, and
# $R$, which is small, $r \times r$, says how to combine them into the columns of $B$. (*Factor a matrix* builds one.) The same for $A^T$. Multiplying by such a $Q$ turns
# a matrix and changes no singular value. What is left to decompose is the product of two small matrices:

# %%
Q_B, R_B = np.linalg.qr(other.B)
Q_A, R_A = np.linalg.qr(other.A.T)
print("small matrix:", (R_B @ R_A.T).shape)
print("its singular values, times 2:", (2 * np.linalg.svdvals(R_B @ R_A.T)).round(4))
assert np.allclose(2 * np.linalg.svdvals(R_B @ R_A.T), [30, 1])
assert np.allclose(Q_B @ R_B @ R_A.T @ Q_A.T, B @ A, atol=1e-5)

# %% [markdown]
# The second direction is 30 times weaker than the first. **The rank in the file is 2, and 1 is needed**<!-- shown: singular values of 30 and 1 --> to keep
# 99 % of the energy. For a 4,096 x 4,096 layer at rank 16 this way takes the SVD of a 16 x 16 matrix instead of one with 16 million
# entries, and it is how `inspect` looks into files.
#
# ## A real one
#
# A **network** is a model of several layers, each taking what the one before gives. Ours, of three linear layers, learns to predict the
# pixels of photographs, 10 x 12 pixels in, the next 10 x 10 out. Between its layers stands a function that is not linear, `tanh`, which
# presses values into the range from -1 to 1. Then the network is adapted to the map of heights: once by LoRA of rank 16 in each layer, once
# in full.

# %%
rng = np.random.default_rng(0)


def pairs(image, n):
    return [part.astype(np.float32) for part in lnp.datasets.patches(image, n, rng=rng)]


def layer(d, k):
    return lnp.Linear.init(d_out=d, d_in=k, rng=rng, dtype=np.float32)


def train(model, x, y):
    optimizer = lnp.Adam(lr=lnp.cosine_schedule(3e-3, steps=1_000))
    settings = {"optimizer": optimizer, "steps": 1_000, "batch_size": 256}
    return lnp.fit(model, x, y, **settings, progress=False).model


photograph, terrain = (
    pairs(lnp.datasets.photograph(), 20_000),
    pairs(lnp.datasets.terrain(), 20_000),
)
held_out = pairs(lnp.datasets.terrain(), 5_000)

tanh = lnp.Activation(np.tanh)
network = lnp.Sequential([layer(64, 120), tanh, layer(64, 64), tanh, layer(100, 64)])
base = lnp.freeze(train(network, *photograph))
lora = train(lnp.inject(base, rank=16, alpha=32, rng=rng), *terrain)
# with Tensors for all of its arrays, all of it is trained
full = lnp.freeze(train(lnp.replace(base, np.ndarray, lambda path, W: lnp.Tensor(W)), *terrain))


def error(model):
    x, y = held_out
    return float(lnp.mean_squared_error(lnp.freeze(model)(x), y))


for name, model in {"base": base, "with LoRA": lora, "trained in full": full}.items():
    print(f"{name:16}{error(model):.3f}")

# %% [markdown]
# All three go to disk: two models as **checkpoints**, their weights under names, and the adapter. Then we look into the adapter:


# %%
def save_checkpoint(model, folder):
    Path(folder).mkdir()
    tensors = {path.replace(".W", ".weight"): W for path, W in lnp.leaves(model)}
    lnp.hub.safetensors.save(tensors, f"{folder}/model.safetensors")


save_checkpoint(base, "base")
save_checkpoint(full, "full")
lnp.adapters.save(lora, "adapter")

found = lnp.adapters.inspect("adapter")
columns = ["module", "rank", "scale", "norm", "rank for 99 %", "excess rank"]
rows = [[row[name] for name in columns] for row in found.table.records]
Table(columns, rows, formats={"norm": "{:.1f}".format})

# %% [markdown]
# Modules 1 and 3 are the `tanh` between the layers. *Scale* is $\alpha / r$, *norm* the Frobenius norm of the update. *Rank for 99 %* is
# the smallest rank that keeps 99 % of the energy, *excess rank* what the file has beyond that. This is about the entries of the update. How
# many directions the model's outputs need is measured below, by the error. All singular values:

# %% alt="Singular values of the updates of three layers on a logarithmic scale, 16 each. They fall by a factor of more than ten from the first to the last, without a cliff." tags=["cover"]
assert all(0 < row["excess rank"] < 8 for row in found.table.records)
_, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
axes = lnp.plots.singular_spectrum(found.spectra, ax=axes)

# %% [markdown]
# They fall, but without a cliff. No direction is unused here, some are weak.
#
# ## One that was made elsewhere
#
# *More: the path goes on without this section.*
#
# That adapter was ours. Here is one that PEFT has made, with PyTorch, a library for networks, and for the language model of
# *Adapt a language model*. It was trained on the book of Genesis, and its files are as PEFT wrote them. Who made
# it, from what and under which licence is in a third file, which you should always read first:

# %%
elsewhere = lnp.language.located_adapter("genesis-by-peft")
print("\n".join((elsewhere / "README.md").read_text().splitlines()[:4]))

config = json.loads((elsewhere / "adapter_config.json").read_text())
print(
    {setting: config[setting] for setting in ["peft_version", "target_modules", "r", "lora_alpha"]}
)

found_elsewhere = lnp.adapters.inspect(elsewhere)
columns = ["module", "rank", "scale", "rank for 99 %"]
rows = [[row[name] for name in columns] for row in found_elsewhere.table.records]
Table(columns, rows)

# %% [markdown]
# The adapter is on queries and values in each of four layers. The rank is 16 each, and 6 to
# 11 are needed for 99 % of the energy. What does the adapter do? Attach it, and let the model write:

# %% tags=["varies"]
model = lnp.language.load("austen")
with_adapter = lnp.adapters.attach(model, lnp.adapters.load(elsewhere))
for name, writer in [("base", model), ("with adapter", with_adapter)]:
    said = lnp.language.generate(writer, "And the ", tokens=100, temperature=0.6, rng=1)
    print(f"{name:>12}: {' '.join(said.split())}")

# %%
test = lnp.language.read_text("genesis")[-20_000:]
losses = {}
for name, writer in [("base", model), ("with adapter", with_adapter)]:
    losses[name] = lnp.language.likelihood(writer, test, max_length=64).loss
    print(f"{name:>12}: loss on the end of Genesis {losses[name]:.2f}")
assert losses["with adapter"] < losses["base"] - 0.5
assert all(5 < row[3] < 12 for row in rows)

# %% [markdown]
# No training, no PyTorch: two files, and names that agree.
#
# ## Cut an adapter, or make one from two models
#
# `resize` truncates the SVD of each update, and `extract` does the same with the difference of two models. So
# there are three ways to a small file: train rank 16 and cut, train in full and cut, or train at the small
# rank from the start.


# %%
def size_of(folder):
    return Path(folder, "adapter_model.safetensors").stat().st_size


def error_of(folder):
    return error(lnp.adapters.attach(base, lnp.adapters.load(folder)))


ranks = [1, 2, 3, 4, 6, 8, 12, 16]
curves = {"LoRA of rank 16, truncated": [], "full update, truncated": []}
for rank in ranks:
    lnp.adapters.resize("adapter", f"resized-{rank}", rank=rank)
    lnp.adapters.extract("base", "full", f"extracted-{rank}", rank=rank)
    for curve, name in zip(curves.values(), ["resized", "extracted"], strict=True):
        curve.append((size_of(f"{name}-{rank}"), error_of(f"{name}-{rank}")))

trained = {}
for rank in [1, 4]:
    model = train(lnp.inject(base, rank=rank, alpha=2 * rank, rng=rng), *terrain)
    trained[rank] = size_of(f"resized-{rank}"), error(model)

# %% alt="Held-out error against the size of the adapter's file. The full update truncated to a low rank is worse than no adapter up to rank 6. The truncated LoRA is worse at rank 1 and better from rank 2 on. Adapters trained at rank 1 and 4 are better than both."
kilobytes = {name: tuple(np.transpose(curve) / [[1_000], [1]]) for name, curve in curves.items()}
axes = lnp.plots.lines(
    kilobytes, xlabel="size of the file in kB", ylabel="mean squared error, held out"
)
axes.axhline(error(base), color=lnp.plots.INK, linestyle=":")
for rank, (size, loss) in trained.items():
    axes.plot(size / 1_000, loss, "D", color=lnp.plots.ACCENT)
    lnp.plots.label_line(
        axes, size / 1_000, loss, f"trained, r = {rank}", lnp.plots.ACCENT, xytext=(7, -4)
    )
lnp.plots.label_line(axes, axes.get_xlim()[1], error(base), "no adapter", lnp.plots.INK)

# %% [markdown]
# The points are ranks 1, 2, 3, 4, 6, 8, 12 and 16, from left to right. Read it slowly, since it contradicts what you would like to
# believe:
#
# - At rank 16 all three meet. At low ranks they do not.
# - **A cut update can be worse than none at all.**<!-- shown: the error of each cut --> The terms that were cut off had balanced those that stayed.
#   Here that is so for the full update at ranks 1 to 6, at rank 1 only just, and for the LoRA at rank 1.
# - A LoRA that was trained at rank 4 is better than a larger one cut to 4.
#
# The SVD keeps the *entries* of the update as close as possible. What counts is the outputs of the model, and
# between the two stand the inputs and the other layers. So after each cut, measure.

# %%
resized, extracted = (
    {rank: at[1] for rank, at in zip(ranks, curve, strict=True)} for curve in curves.values()
)
assert all(extracted[rank] > error(base) for rank in [2, 3, 4, 6])
assert all(trained[rank][1] < min(resized[rank], extracted[rank]) for rank in trained)
assert max(resized[16], extracted[16]) < 1.02 * min(error(lora), error(full))

smallest = next(rank for rank in ranks if resized[rank] < 1.03 * resized[16])
print(f"the adapter can be truncated to rank {smallest} for less than 3 % more error")
print(f"bytes: {size_of('adapter'):,} become {size_of(f'resized-{smallest}'):,}")

# %% [markdown]
# ## To PEFT and back
#
# *More: the path goes on without this section.*
#
# Where PyTorch and PEFT are installed, the folder opens as it is. Base and adapter of this lesson, there:
#
# ```python
# import torch
# from peft import PeftModel
# from safetensors.torch import load_file
#
#
# class Network(torch.nn.Module):
#     def __init__(self):
#         super().__init__()
#         shapes = [(120, 64), (64, 64), (64, 100)]
#         first, second, third = [torch.nn.Linear(k, d, bias=False) for k, d in shapes]
#         self.layers = torch.nn.Sequential(first, torch.nn.Tanh(), second, torch.nn.Tanh(), third)
#
#     def forward(self, x):
#         return self.layers(x)
#
#
# network = Network()
# network.load_state_dict(load_file("base/model.safetensors"))
# tuned = PeftModel.from_pretrained(network, "adapter")
# tuned.save_pretrained("from-peft")
# ```
#
# And what PEFT has written comes back by `lnp.adapters.attach(base, lnp.adapters.load("from-peft"))`. The
# modules are found by their names, so these must agree: `layers.0` here and there.
#
# Names are also what often goes wrong. If the tensors have other names, PEFT only warns that it misses some, and goes on without the
# adapter. `check` tells beforehand, and names the command that writes the names of the base:

# %%
Path("nameless").mkdir()
weights = lnp.hub.safetensors.open("adapter/adapter_model.safetensors")
shorter = {name.removeprefix("base_model.model."): weights.read(name) for name in weights.tensors}
lnp.hub.safetensors.save(shorter, "nameless/adapter_model.safetensors")
Path("nameless/adapter_config.json").write_text(Path("adapter/adapter_config.json").read_text())

lnp.adapters.check("nameless", runtime="peft")

# %% [markdown]
# ## The law
#
# - An adapter is $A$ and $B$ for each module, a name for each, $r$ and $\alpha$. Without its base model it does
#   nothing.
# - $(BM)(M^{-1}A) = BA$: look at the product, never at the factors. Its singular values come from two thin
#   QR decompositions.
# - A cut keeps entries close, not outputs. Measure after each cut.
#
# ## What you can do now
#
# You can open any LoRA in PEFT's format and say what it holds. Try:
#
# - On paper: cut the example of the beginning to rank 1. What are the new $B$, $A$ and $\alpha$, if the scale
#   $\alpha / r$ is to stay 2? (One choice of many.) How large is the relative error of $\Delta W$?
#
#   <details><summary>Answer</summary>
#
#   $B = (3, 4, 0, 0)^T$, $A = (2, 0, 1, 0, 2)$ and $\alpha = 2$. Singular value 1 is missing, 30 is kept: $1 / \sqrt{30^2 + 1^2} = 3.3\ \%$.
#
#   </details>
# - Use `resize` with `budget=12_000` instead of a rank. Which module gets the most directions? Is the error
#   lower than at rank 6, which takes about as many bytes?
#
#   <details><summary>Answer</summary>
#
#   The last layer gets 7, the first 6, the middle one 4. The error is the same as at rank 6, to four digits, with 3 % fewer bytes: here the
#   layers need nearly equal ranks.
#
#   </details>
# - In a terminal: `lora-np inspect FOLDER` for an adapter that you have downloaded. Which rank does it need?
#
#   <details><summary>Answer</summary>
#
#   Read the column *rank for 99 %*. Do not be surprised if it is well below the rank: above, 6 to 11 of 16 were needed.
#
#   </details>
#
# ## Further reading
#
# *More: the path goes on without this section.*
#
# - Hugging Face, [PEFT checkpoint
#   format](https://huggingface.co/docs/peft/developer_guides/checkpoint): the keys and the config.
# - Hugging Face, [safetensors](https://huggingface.co/docs/safetensors): the file format, and why it is safer
#   than a pickle.
# - L. N. Trefethen, D. Bau, *Numerical Linear Algebra*, SIAM 1997, lecture 7: the QR decomposition.
