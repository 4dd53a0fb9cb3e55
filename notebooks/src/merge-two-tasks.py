# %% [markdown]
# # Merge two tasks
#
# One adapter makes our language model write like the King James Bible, and another like *The Devil's Dictionary*. You want one model that
# can do both, with one set of parameters. So you add the two updates.
#
# **What happens when you add two updates?**
#
# After this lesson you can
#
# - merge an adapter, and say what low precision destroys,
# - see how two updates interfere, and measure it,
# - choose the weights of a sum, and compare merge methods fairly.
#
# You need *Open a real adapter*, and the meaning of a loss from *Adapt a language model*.

# %%
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import lora_np as lnp
from lora_np import adapters, language
from lora_np.plots import INK, LORA, SKY, label_line
from lora_np.table import Table

os.chdir(tempfile.mkdtemp())  # a folder for the files of this lesson

# %% [markdown]
# ## One adapter
#
# To **merge** an adapter means to write a model in which each $W_0$ is replaced by $W_0 + \frac{\alpha}{r} BA$. This model computes the
# same as the base with its adapter, but without additional products. We measure losses on the last 6,000 characters of each book, on which
# no adapter was trained.

# %%
names = {
    "Bible": ("king-james", "genesis"),
    "Dictionary": ("devils-dictionary", "devils-dictionary"),
}
model = language.load("austen")
paths = {task: language.located_adapter(adapter) for task, (adapter, _) in names.items()}
books = {task: language.read_text(text) for task, (_, text) in names.items()}
tests = {task: book[-6_000:] for task, book in books.items()}
validation = {task: book[-9_000:-6_000] for task, book in books.items()}  # to choose weights by


def losses(model, texts=tests):
    return [language.likelihood(model, text, max_length=64).loss for text in texts.values()]


def with_adapter(task):
    return adapters.attach(model, adapters.load(paths[task]))


adapters.merge(paths["Bible"].parent, paths["Bible"], "merged", force=True)
both_ways = [with_adapter("Bible"), language.load("merged")]
alone, merged = (losses(each, {"Bible": tests["Bible"]})[0] for each in both_ways)
size = Path("merged", "model.safetensors").stat().st_size
print(f"loss on the Bible: {alone:.3f} with the adapter, {merged:.3f} merged")
print(
    f"bytes: {size:,} merged, {Path(paths['Bible'], 'adapter_model.safetensors').stat().st_size:,} the adapter"
)
assert abs(merged - alone) < 0.001

# %% [markdown]
# Merging has a price. A merged model is as large as the base, and you can no longer separate base and adapter. So for ten tasks, keep one
# base and ten adapters. A second price is rounding.
#
# ## What low precision destroys
#
# Large models are mostly stored in **bfloat16**, with 16 bits per parameter. Between 1 and 2 there are 128 such numbers, $1/128 = 0.0078$
# apart. Take a weight of 1 and add a small update:

# %%
for update in [0.003, 0.005, 0.01]:
    (stored,) = lnp.hub.rounded(np.array([1 + update]), "bfloat16")
    print(f"1 + {update} is stored as {stored:.4f}")

# %% [markdown]
# An update of less than half a step is lost, and a larger update becomes a whole step. In a large matrix this happens to many entries at
# once. We store a query matrix in bfloat16 and in float16 (which also has 16 bits, but uses three more for digits and three fewer for the
# range). Then we merge the trained update and weaker copies of it, and measure what share of the update's norm is lost.

# %%
bible = adapters.load(paths["Bible"])
path = "model.layers.2.self_attn.q_proj"
W0 = dict(lnp.leaves(model))[f"{path}.W"]
strengths = np.array([1, 0.3, 0.1, 0.03, 0.01])


def lost(strength, format):
    update = strength * bible.delta(path).astype(float)
    stored = lnp.hub.rounded(W0, format).astype(float)
    merged = lnp.hub.rounded(stored + update, format)
    return np.linalg.norm(merged - stored - update) / np.linalg.norm(update)


shares = {
    format: np.array([lost(s, format) for s in strengths]) for format in ["bfloat16", "float16"]
}
for format, share in shares.items():
    print(f"{format}: {share[0]:.2%} lost at full strength, {share[-1]:.0%} at a hundredth")
assert shares["bfloat16"][-1] > 0.2

# %% alt="Share of the update that rounding destroys, against how many times weaker it is made, both on logarithmic scales. Both formats rise in a straight line: bfloat16 from 0.3 percent to 30 percent, float16 eight times lower."
curves = {format: (1 / strengths, share) for format, share in shares.items()}
xlabel, ylabel = "how many times weaker the update is made", "share of it lost by rounding"
axes = lnp.plots.lines(curves, xlabel=xlabel, ylabel=ylabel, logarithmic="xy")

# %% [markdown]
# The rounding error depends on the size of $W_0$: it is a fraction of a percent of each entry, however weak the update is. **So weak
# updates suffer most.**<!-- claim: merge-in-four-bits --> In so low a precision, you cannot even subtract a merged adapter exactly. (The LoRA
# paper switches tasks by subtraction. In float32 that does little harm.)

# %%
stored = lnp.hub.rounded(W0, "bfloat16")
merged_once = lnp.hub.rounded(stored + bible.delta(path), "bfloat16")
back = lnp.hub.rounded(merged_once - bible.delta(path), "bfloat16")
print(f"weights that did not come back: {np.mean(back != stored):.0%}")
assert np.mean(back != stored) > 0.1

# %% [markdown]
# So start from the original base each time, add in float32, and round once, as `merge` does.
#
# ## Two on paper
#
# Now take two updates of rank one, for a matrix with two outputs and two inputs:
#
# $$
# \Delta_1 = \begin{pmatrix} 1 \\ 0 \end{pmatrix} \begin{pmatrix} 1 & 0 \end{pmatrix}, \qquad
# \Delta_2 = \begin{pmatrix} 0 \\ 1 \end{pmatrix} \begin{pmatrix} 1 & 1 \end{pmatrix}
# $$
#
# Task 1 has inputs such as $x = (1, 0)$, for which the update should add $\Delta_1 x = (1, 0)$. The sum adds $(1, 1)$, because $\Delta_2$
# responds as well: $A_2 x = 1$. That is **interference**. For $x = (1, -1)$ there is no interference, since $A_2 x = 0$. **Updates
# interfere if one task's $A$ responds to the other task's inputs.**<!-- proof: the sum adds B2 A2 x to what task 1 wants --> They can
# interfere even if they are orthogonal as long vectors, as these two are.

# %%
first, second = np.outer([1, 0], [1, 0]), np.outer([0, 1], [1, 1])
print("product of the updates:", np.sum(first * second))
print("wanted:", first @ [1, 0], " the sum gives:", (first + second) @ [1, 0])
assert np.sum(first * second) == 0

# %% [markdown]
# ## Two in the language model
#
# We record the inputs of all 28 linear layers while the model reads the Bible. `Recording` below wraps a layer: it keeps a copy of each
# input `x`, and then calls the layer. For these inputs, we compare how much the Dictionary's update adds with how much the Bible's own
# update adds. Then we exchange the roles of the two books.

# %%
seen = {}


@dataclass(frozen=True, eq=False)
class Recording:
    """A layer that keeps its inputs."""

    base: lnp.Linear
    path: str

    def __call__(self, x, **options):
        seen.setdefault(self.path, []).append(x.reshape(-1, x.shape[-1]))
        return self.base(x, **options)


recorder = lnp.replace(model, lnp.Linear, lambda path, layer: Recording(layer, path))
updates = {task: adapters.load(path) for task, path in paths.items()}
strays, rows, grams = {}, [], []
for own, other in [("Bible", "Dictionary"), ("Dictionary", "Bible")]:
    seen.clear()
    language.likelihood(recorder, books[own][:6_000], max_length=64)
    inputs = {path: np.concatenate(seen[path]) for path in updates[own]}
    sizes = {
        task: np.array(
            [np.linalg.norm(x @ updates[task].delta(path).T) for path, x in inputs.items()]
        )
        for task in updates
    }
    grams.append({path: x.T @ x for path, x in inputs.items()})  # for a merge method, below
    strays[own] = sizes[other] / sizes[own]
    rows.append((own, np.median(strays[own]), strays[own].min(), strays[own].max()))

cosines = [
    np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b)
    for a, b in ([updates[task].delta(path) for task in updates] for path in inputs)
]
print(f"cosine of the two updates, median of 28 layers: {np.median(cosines):.2f}")
formats = dict.fromkeys(["median", "smallest", "largest"], "{:.2f}".format)
Table(
    ["on the text of", *formats],
    rows,
    title="The other's update, relative to its own",
    formats=formats,
)

# %%
assert abs(np.median(cosines)) < 0.05
assert all(0.5 < share.min() < share.max() < 2 for share in strays.values())

# %% [markdown]
# As long vectors, the updates are orthogonal: their **cosine**, the products of their entries added up and divided by both norms, is
# near 0. Yet each update responds to the other task's text about as strongly as to its own, because both texts are English and produce
# similar inputs. So a sum must be a compromise.
#
# ## Weights first
#
# Each update in a sum has a factor, called its weight (which has nothing to do with the weights of the model). Let both weights be $c$, so
# that the sum is $c\,(\Delta_1 + \Delta_2)$. `combine` writes this sum without forming a large matrix: it joins the two matrices $A$, and
# the two matrices $B$, so the ranks add up. The figure shows both losses for $c$ from 0.2 to 1. The lower left is best:

# %% alt="Loss on the Dictionary against loss on the Bible, lower left is better. Single adapters: the Bible's at 1.18 and 2.26, the Dictionary's at 1.84 and 1.57, the base at 1.93 and 1.94. The curve of the sum runs from the base at small weights to 1.34 and 1.74 at one half, and back up to 1.48 and 2.05 at one." tags=["cover"]
shares_of_each = [0.2, 0.35, 0.5, 0.75, 1.0]


def combined(method, share, **options):
    adapters.combine(
        list(paths.values()), "sum", weights=[share] * 2, method=method, force=True, **options
    )
    return adapters.attach(model, adapters.load("sum"))


base = losses(model)
alone = {f"{task}'s alone": losses(with_adapter(task)) for task in tests}
curve = np.array([losses(combined("sum", share)) for share in shares_of_each])
axes = lnp.plots.axes()
axes.plot(*curve.T, "o-", color=LORA)
for share, (x, y) in zip(shares_of_each, curve, strict=True):
    # the lower part of the curve turns back: its labels go to the left and below
    align, away = ("right", (-7, -2)) if share in (0.5, 0.75) else ("left", (8, -10))
    label_line(axes, x, y, f"c = {share}", LORA, xytext=away, ha=align)
for name, (x, y) in {"base": base, **alone}.items():
    axes.plot(x, y, "D", color=INK if name == "base" else SKY)
    label_line(axes, x, y, name, INK if name == "base" else SKY, xytext=(8, 6))
labels = axes.set(xlabel="loss on the Bible", ylabel="loss on the Dictionary", xlim=(1.0, 2.2))
assert curve[-1][1] > base[1]
assert curve[2][0] < base[0] - 0.5
assert curve[2][1] < base[1] - 0.15

# %% [markdown]
# At $c = 1$ the sum is worse on the Dictionary than no adapter at all. At one half, it is better than the base on both texts, but worse on
# each text than the adapter for that text. It keeps about three quarters of the gain of the Bible's adapter, and half of the gain of the
# Dictionary's adapter.
#
# ## What helps
#
# There are dozens of merge methods. We compare three of them with the plain sum, at weights of 0.5, 0.75 and 1:
#
# - **TIES** looks at each entry. In each update, it sets the smaller half of the entries to zero. Where two updates disagree in sign, the
#   sign with the larger total wins, and only entries of that sign are added. (`ties_svd` then truncates the result to a low rank again.)
# - **Iso** looks at directions. It takes the SVD of the sum and replaces all its singular values by their mean, so that one task's strong
#   directions do not drown another task's.
# - **RegMean** looks at inputs. For each task's inputs, the merged update should give nearly the same outputs as that task's own update.
#   RegMean finds the closest fit by **least squares** (the least sum of squared errors). For this it needs $X^T X$ of each layer's inputs
#   (`grams`).

# %%
methods = {
    "sum": {},
    "ties_svd": {"density": 0.5},  # the share of entries that stays
    "iso": {},
    "regmean": {"grams": grams},
}
rows = []
for method, options in methods.items():
    made = {share: combined(method, share, **options) for share in [0.5, 0.75, 1.0]}
    best = min(made, key=lambda share: sum(losses(made[share], validation)))
    rows.append(
        (method, sum(losses(made[1.0])), best, *losses(made[best]), sum(losses(made[best])))
    )
formats = dict.fromkeys(["both, at 1", "the Bible", "the Dictionary", "both"], "{:.2f}".format)
columns = ["method", "both, at 1", "best weight", "the Bible", "the Dictionary", "both"]
Table(
    columns,
    rows,
    title="Losses: at full weight, and at the weight that validation text chose",
    formats=formats,
)

# %%
at_one, at_best = {row[0]: row[1] for row in rows}, {row[0]: row[-1] for row in rows}
assert at_one["sum"] == max(at_one.values())
assert at_one["regmean"] < at_one["sum"] - 0.3
assert abs(at_best["sum"] - at_best["regmean"]) < 0.03
assert at_best["sum"] < min(at_best["ties_svd"], at_best["iso"])

# %% [markdown]
# If you read only the column *both, at 1*, TIES and RegMean are far better than the sum. But the last column shows that the plain sum, at
# its own best weight, is as good as the best. **If you compare merge methods at one weight, you measure the weight**<!-- shown: both
# columns of the table -->, as with learning rates. RegMean needs no search for its weight, because it looks at the inputs.
#
# Finally, **training** can help. Start from the sum at one half, and train a few steps on both texts, so that the two parts adjust to each
# other. We train twenty steps.

# %%
half = lnp.merge(combined("sum", 0.5))
both = "".join(book[i : i + 1_000] for i in range(0, 30_000, 1_000) for book in books.values())
settings = {
    "rank": 8,
    "alpha": 16,
    "steps": 20,
    "batch_size": 8,
    "max_length": 64,
    "lr": 2e-3,
    "rng": 0,
}
mended = losses(language.finetune(half, both, progress=False, **settings).model)
rows = [("sum, c = 0.5", *curve[2]), ("and 20 steps", *mended)]
rows += [(name, *pair) for name, pair in alone.items()]
formats = dict.fromkeys(["the Bible", "the Dictionary"], "{:.3f}".format)
Table(["", *formats], rows, title="Losses", formats=formats)

# %%
assert all(np.array(mended) < curve[2])

# %% [markdown]
# Training helps a little. No method here is as good as each adapter alone. **If you can switch adapters, do not merge them**<!-- shown: the
# table of losses -->: keep one base and two files, and attach the one that you need.
#
# ## The law
#
# - Merging adds the update once and for all. Its rounding error depends on the size of $W_0$, so weak updates are lost first. Merge in
#   float32, from the original base.
# - Two updates interfere if one task's $A$ responds to the other task's inputs. They can do so even if they are orthogonal.
# - Choose the weights of a sum by measuring. A weight of 1 for each was not the best here.
#
# ## What you can do now
#
# You can merge adapters and say what that costs each task. Try this:
#
# - On paper: $A_1 = (1\ 0)$ and $A_2 = (0\ 1)$. For which inputs do the two updates interfere?
#
#   <details><summary>Answer</summary>
#
#   They interfere for an input of task 1 if its second entry is not zero, and for an input of task 2 if its first entry is not zero. If
#   task 1 has only inputs $(t, 0)$ and task 2 only inputs $(0, t)$, they never interfere.
#
#   </details>
# - Give the Bible twice the weight of the Dictionary: `weights=[0.6, 0.3]`. Which of the two losses changes more, compared with 0.5 for both?
#
#   <details><summary>Answer</summary>
#
#   The Dictionary's loss changes more: it rises from 1.74 to 1.87, and the Bible's falls from 1.34 to 1.26. One gains at the other's expense.
#
#   </details>
# - In a terminal, run `lora-np combine ONE=0.5 TWO=0.5 --method cat -o SUM` for two adapters of the same base. What does
#   `lora-np diff ONE SUM` say?
#
#   <details><summary>Answer</summary>
#
#   The sum differs from either adapter by more than half in most modules, with a cosine near 0.7, as for any two orthogonal updates of equal size.
#
#   </details>
#
# ## Further reading
#
# - E. Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, [arXiv
#   2106.09685](https://arxiv.org/abs/2106.09685), section 4.1: merging, and swapping tasks.
# - P. Yadav et al., *TIES-Merging: Resolving Interference When Merging Models*, [arXiv 2306.01708](https://arxiv.org/abs/2306.01708).
# - G. Stoica et al., *Model merging with SVD to tie the KnOTS*, [arXiv 2410.19735](https://arxiv.org/abs/2410.19735).
# - D. Kalamkar et al., *A Study of BFLOAT16 for Deep Learning Training*, [arXiv
#   1905.12322](https://arxiv.org/abs/1905.12322).
