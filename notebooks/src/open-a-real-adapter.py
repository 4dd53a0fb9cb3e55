# %% [markdown]
# # Open a real adapter
#
# You get a LoRA as a folder with two files. Its base model is not included.
#
# **What is in those files, and what can you do with them without any training?**
#
# After this lesson you can
#
# - read every entry of an adapter's files,
# - see how many of its directions are needed, and cut the others,
# - make an adapter out of two models,
# - exchange adapters with PEFT, the library behind most of them (*more*).
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
# We save this LoRA as PEFT would, and look at the files:

# %%
B = np.array([[3, 0], [4, 0], [0, 3], [0, 4]], dtype=np.float32)
A = np.array([[2, 0, 1, 0, 2], [0, 0.06, 0, 0.08, 0]], dtype=np.float32)
layer = lnp.LoRALinear(lnp.Linear(np.zeros((4, 5))), A=A, B=B, alpha=4)
lnp.adapters.save(layer, "paper", force=True)  # force: so that the cell can run twice

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
# The file holds two arrays, called *tensors*, with $2 \cdot (4 + 5) = 18$ entries. The names of the arrays say where they belong: `linear`
# is the layer, and `base_model.model.` is PEFT's way to say "the model". The config holds $r$ and $\alpha$. Without $\alpha$ nobody could
# know the factor $\alpha / r$, the **scale** of the update, because the shape of $A$ reveals only $r$.
#
# ## Two files, one adapter
#
# If you double $B$ and halve $A$, every entry in the file changes, but $BA$ stays the same. In general, take any square matrix $M$ with an
# **inverse** $M^{-1}$, which undoes what $M$ does. Then $(BM)(M^{-1}A)$ is $BA$. So the entries of $A$ or of $B$ alone say little.
#
# PEFT calls a layer with a name a **module**. In the package, an `Adapter` maps the name of each module to an `AdapterModule` with its $A$,
# $B$ and $\alpha$. `diff` compares the updates of two adapters:

# %%
change = np.array([[1, 2], [0, 1]], dtype=np.float32)
other = lnp.adapters.AdapterModule.of(A=np.linalg.inv(change) @ A, B=B @ change, alpha=4)
lnp.adapters.save(lnp.adapters.Adapter({"linear": other}), "other", force=True)

print("A, with other entries:\n", other.A)
print("the same update:", lnp.adapters.diff("paper", "other").same)
assert lnp.adapters.diff("paper", "other").same

# %% [markdown]
# ## The spectrum, without the product
#
# The singular values of $\Delta W$, its **spectrum**, say how large the update is in each direction. In our example you can read them off.
# The two columns of $B$ are orthogonal and have length 5. The rows of $A$ are orthogonal and have lengths 3 and 0.1. So each column times
# its row is a term of the SVD. With the factor 2, the singular values are $2 \cdot 5 \cdot 3 = 30$ and $2 \cdot 5 \cdot 0.1 = 1$.
#
# In general the columns of $B$ are not orthogonal. The **QR decomposition** writes $B = QR$. The columns of $Q$ are orthogonal and have
# length 1. The small $r \times r$ matrix $R$ says how to combine them into the columns of $B$. (*Factor a matrix* builds one.) Do the same
# with $A^T$. Multiplying by such a $Q$ turns a matrix but changes no singular value. So it is enough to decompose the product of the two
# small matrices:

# %%
Q_B, R_B = np.linalg.qr(other.B)
Q_A, R_A = np.linalg.qr(other.A.T)
print("small matrix:", (R_B @ R_A.T).shape)
print("its singular values, times 2:", (2 * np.linalg.svdvals(R_B @ R_A.T)).round(4))
assert np.allclose(2 * np.linalg.svdvals(R_B @ R_A.T), [30, 1])
assert np.allclose(Q_B @ R_B @ R_A.T @ Q_A.T, B @ A, atol=1e-5)

# %% [markdown]
# The second direction is 30 times weaker than the first. **The file has rank 2, but one term is enough**<!-- shown: singular values of 30 and
# 1 --> to keep 99 % of the energy. For a 4,096 x 4,096 layer at rank 16, this method needs the SVD of a 16 x 16 matrix instead of a matrix
# with 16 million entries. `inspect` uses this method.
#
# ## A real one
#
# A **network** is a model with several layers, each of which takes the output of the previous layer. Our network has three linear layers
# and learns to predict pixels of photographs. The input is 10 x 12 pixels, and the output is the next 10 x 10. Between the layers is a
# nonlinear function, `tanh`, which maps values into the range from -1 to 1. We then adapt the network to the map of heights: once with LoRA
# of rank 16 in each layer, and once in full.

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
# We save all three: the two models as **checkpoints**, files of named weights, and the adapter. Then we inspect the adapter:


# %%
def save_checkpoint(model, folder):
    Path(folder).mkdir(exist_ok=True)
    tensors = {path.replace(".W", ".weight"): W for path, W in lnp.leaves(model)}
    lnp.hub.safetensors.save(tensors, f"{folder}/model.safetensors")


save_checkpoint(base, "base")
save_checkpoint(full, "full")
lnp.adapters.save(lora, "adapter", force=True)

found = lnp.adapters.inspect("adapter")
columns = ["module", "rank", "scale", "norm", "rank for 99 %", "excess rank"]
rows = [[row[name] for name in columns] for row in found.table.records]
Table(columns, rows, formats={"norm": "{:.1f}".format})

# %% [markdown]
# Modules 1 and 3 are missing: they are the `tanh` between the layers. *Scale* is $\alpha / r$, and *norm* is the Frobenius norm of the
# update. *Rank for 99 %* is the smallest rank that keeps 99 % of the energy, and *excess rank* is the file's rank minus this rank. These
# columns describe the entries of the update. Later, the error will show how many directions the outputs need. Here are all singular values:

# %% alt="Singular values of the updates of three layers on a logarithmic scale, 16 each. They fall by a factor of more than ten from the first to the last, without a cliff." tags=["cover"]
assert all(0 < row["excess rank"] < 8 for row in found.table.records)
_, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
axes = lnp.plots.singular_spectrum(found.spectra, ax=axes)

# %% [markdown]
# The singular values fall, but without a cliff. No direction is unused here, although some are weak.
#
# ## One that was made elsewhere
#
# *More: the path goes on without this section.*
#
# We made that adapter ourselves. PEFT made the next adapter with PyTorch, a library for neural networks, for the language model of *Adapt a
# language model*. It was trained on the book of Genesis, and its files are as PEFT wrote them. A third file says who made it, from which
# sources, and under which licence. Always read this file first:

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
# The adapter changes the queries and values of all four layers. Each module has rank 16, but 99 % of its energy needs only rank 6 to 11.
# What does the adapter do? Attach it, and let the model write:

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
# This needed no training and no PyTorch, only two files and matching names.
#
# ## Cut an adapter, or make one from two models
#
# `resize` truncates the SVD of each update, and `extract` does the same with the difference between two models. So there are three ways to
# make a small file: train at rank 16 and truncate, train in full and truncate, or train at the small rank from the start.


# %%
def size_of(folder):
    return Path(folder, "adapter_model.safetensors").stat().st_size


def error_of(folder):
    return error(lnp.adapters.attach(base, lnp.adapters.load(folder)))


ranks = [1, 2, 3, 4, 6, 8, 12, 16]
curves = {"LoRA of rank 16, truncated": [], "full update, truncated": []}
for rank in ranks:
    lnp.adapters.resize("adapter", f"resized-{rank}", rank=rank, force=True)
    lnp.adapters.extract("base", "full", f"extracted-{rank}", rank=rank, force=True)
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
    axes.plot(size / 1_000, loss, "D", color=lnp.plots.LORA)
    lnp.plots.label_line(
        axes, size / 1_000, loss, f"trained, r = {rank}", lnp.plots.LORA, xytext=(7, -4)
    )
lnp.plots.label_line(axes, axes.get_xlim()[1], error(base), "no adapter", lnp.plots.INK)

# %% [markdown]
# The points are ranks 1, 2, 3, 4, 6, 8, 12 and 16, from left to right. The result may surprise you:
#
# - At rank 16 all three ways meet. At low ranks they differ.
# - **A truncated update can be worse than no update.**<!-- shown: the error of each cut --> The removed terms had balanced the terms that
#   remain. This happens here to the full update at ranks 1 to 6 (at rank 1 only just), and to the LoRA at rank 1.
# - A LoRA that was trained at rank 4 is better than a larger LoRA that was truncated to rank 4.
#
# The SVD keeps the *entries* of the update as close as possible. But the model's outputs are what matters, and they also depend on the
# inputs and on the other layers. So measure the error after each truncation.

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
# Where PyTorch and PEFT are installed, PEFT opens the folder as it is. This code loads the base and adapter there:
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
# To load what PEFT has written, call `lnp.adapters.attach(base, lnp.adapters.load("from-peft"))`. Modules are found by their names, so the
# names must agree: `layers.0` must be called `layers.0` in both programs.
#
# Names are a common source of errors. If the tensors have other names, PEFT only warns that some tensors are missing, and continues without
# the adapter. `check` sees from the file alone that something is wrong: here, PEFT's prefix `base_model.model.` is missing. Whether PEFT
# still finds the modules depends on the model, which is not in the file, so the status is *not known*. The last line of the output names a
# command that restores the base's names:

# %%
Path("nameless").mkdir(exist_ok=True)
weights = lnp.hub.safetensors.open("adapter/adapter_model.safetensors")
shorter = {name.removeprefix("base_model.model."): weights.read(name) for name in weights.tensors}
lnp.hub.safetensors.save(shorter, "nameless/adapter_model.safetensors")
Path("nameless/adapter_config.json").write_text(Path("adapter/adapter_config.json").read_text())

lnp.adapters.check("nameless", runtime="peft")

# %% [markdown]
# ## The law
#
# - An adapter consists of $A$ and $B$ for each module, the module's name, $r$ and $\alpha$. Without its base model it does nothing.
# - $(BM)(M^{-1}A) = BA$: judge an update by the product, never by its factors. Two thin QR decompositions give its singular values.
# - Truncation keeps the entries close, not the outputs. Measure after each truncation.
#
# ## What you can do now
#
# You can open any LoRA in PEFT's format and say what it contains. Try this:
#
# - On paper: truncate the first example to rank 1. What are the new $B$, $A$ and $\alpha$ if the scale $\alpha / r$ must stay 2? (Many
#   choices are right.) How large is the relative error of $\Delta W$?
#
#   <details><summary>Answer</summary>
#
#   $B = (3, 4, 0, 0)^T$, $A = (2, 0, 1, 0, 2)$ and $\alpha = 2$. The truncation drops the singular value 1 and keeps 30, so the relative
#   error is $1 / \sqrt{30^2 + 1^2} = 3.3\ \%$.
#
#   </details>
# - Use `resize` with `budget=12_000` instead of a rank. Which module gets the most directions? Is the error lower than at rank 6, which
#   takes about as many bytes?
#
#   <details><summary>Answer</summary>
#
#   The last layer gets 7 directions, the first 6, and the middle one 4. The error is the same as at rank 6, to four digits, with 3 % fewer
#   bytes: the layers need nearly equal ranks here.
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
# - Hugging Face, [PEFT checkpoint format](https://huggingface.co/docs/peft/developer_guides/checkpoint): names and config.
# - Hugging Face, [safetensors](https://huggingface.co/docs/safetensors): the file format, and why it is safer
#   than a pickle.
# - L. N. Trefethen, D. Bau, *Numerical Linear Algebra*, SIAM 1997, lecture 7: the QR decomposition.
