# %% [markdown]
# # Train on four bits
#
# In LoRA training, most of the memory does not hold the LoRA. It holds $W_0$, which never changes and is stored with 32 bits per parameter.
#
# **How few bits are enough for a frozen weight, and can you train a LoRA on top of it?**
#
# After this lesson you can
#
# - quantise a matrix by hand, and say where the 16 levels of nf4 come from,
# - say what each bit, each block and each outlier costs,
# - repair a part of the error with a matrix of low rank,
# - train a LoRA on a language model in four bits (QLoRA), and count the bytes that this saves.
#
# You need *Cut the SVD* and *Adapt a language model*.

# %%
import numpy as np

import lora_np as lnp
from lora_np import language
from lora_np.lora import loftq
from lora_np.plots import CYCLE, LORA, SKY
from lora_np.quantise import nf4_levels, normal_quantile, quantise, uniform_levels
from lora_np.table import Table

# %% [markdown]
# ## Four entries on paper
#
# To **quantise** an entry means to store only the index of the nearest of a few **levels**. Take the entries $(3, -1.9, 0.4, 1.2)$ and the
# seven levels $-1, -\tfrac23, -\tfrac13, 0, \tfrac13, \tfrac23, 1$. Three bits are enough for the index of a level.
#
# The levels end at 1, so first divide the entries by their largest magnitude, 3. This gives $(1, -0.63, 0.13, 0.4)$. The 3 is the **scale**
# of these entries (this is not the scale $\alpha / r$). The nearest levels are $(1, -\tfrac23, 0, \tfrac13)$. Store the indices of these
# levels and the scale. To read the entries, multiply by the scale: $(3, -2, 0, 1)$. The errors are 0, 0.1, 0.4 and 0.2. No error can be
# larger than half a step, and a step is $\tfrac13 \cdot 3 = 1$.


# %%
def read_back(W, levels, block):
    """W from the nearest levels, with one scale for each block of entries."""
    blocks = W.reshape(-1, block)
    scales = np.abs(blocks).max(axis=1, keepdims=True)
    middles = (levels[:-1] + levels[1:]) / 2  # below and above them another level is nearer
    indices = np.searchsorted(middles, blocks / scales)
    return (levels[indices] * scales).reshape(W.shape)


small = np.array([3, -1.9, 0.4, 1.2])
print(read_back(small, uniform_levels(bits=3), block=4).round(3))
assert np.allclose(read_back(small, uniform_levels(bits=3), block=4), [3, -2, 0, 1])

# %% [markdown]
# ## What a bit is worth
#
# Now take a real weight with 352 x 128 entries, from the language model in the package. Each **block** of 64 entries shares a scale.

# %% alt="The relative error against bits, from 2 to 8, on a logarithmic scale: a straight line that falls from 0.7 to 0.006, by half for each bit from three bits on."
model = language.load("austen")
weights = {path: W for path, W in lnp.leaves(model) if "_proj" in path}
W = weights["model.layers.1.mlp.up_proj.W"]


def lost(W, read):
    return np.linalg.norm(W - read) / np.linalg.norm(W)


bits = np.arange(2, 9)
errors = np.array([lost(W, read_back(W, uniform_levels(bits=b), 64)) for b in bits])
curve = {"evenly spaced levels": (bits, errors)}
axes = lnp.plots.lines(
    curve, xlabel="bits", ylabel="relative error $\\|W - Q\\| / \\|W\\|$", logarithmic="y"
)
falls = errors[:-1] / errors[1:]
print("times smaller with one bit more:", falls.round(2))
assert 2.7 < falls[0] < 3
assert np.all((falls[1:] > 1.9) & (falls[1:] < 2.4))

# %% [markdown]
# From three bits on, twice as many levels give half the error: **each further bit about halves the error.**<!-- shown: the error at each
# number of bits --> The third bit gains more, a factor of 2.8, because two bits give only three levels. With four bits, the error is 11 %.
# Can 16 levels do better if they are not evenly spaced?
#
# ## Levels where the weights are
#
# These weights look as if they were drawn from a normal distribution, the bell curve: many are near zero, and few are far away. If levels
# are evenly spaced, the outer levels are hardly used. **NormalFloat** (nf4) places the levels at **quantiles**, so that each is used about
# equally often.
#
# A quantile is the value below which a given share of all values lies. In a normal distribution, half of all values lie below 0, so the
# quantile of $\tfrac12$ is 0. One fortieth lie below $-1.96$. Take 9 evenly spaced quantiles from $\tfrac12$ up and 8 from $\tfrac12$ down
# (0 is in both), and divide by the largest. (The largest share cannot be 1, because its quantile is infinite; nf4 uses 0.9677.) The bell
# shows how often each weight occurs, and the marks below it are the levels:

# %% alt="A histogram of the weights of all layers, each divided by the scale of its block: a bell that is highest at zero. Below it two rows of marks: fifteen evenly spaced levels, and the sixteen of nf4, which are close at zero and far apart at the ends." tags=["cover"]
outermost = 0.9677083
above = normal_quantile(np.linspace(0.5, outermost, 9)[1:])
below = -normal_quantile(np.linspace(0.5, outermost, 8)[1:])
ours = np.sort([*below, 0.0, *above]) / above.max()
assert len(ours) == 16
assert np.allclose(ours, nf4_levels(), atol=1e-6)

scaled = np.concatenate([
    (W.reshape(-1, 64) / np.abs(W.reshape(-1, 64)).max(axis=1, keepdims=True)).ravel() for W in weights.values()
])  # fmt: skip
axes = lnp.plots.axes()
bell = axes.hist(scaled, bins=100, density=True, color=lnp.plots.MUTED, alpha=0.35)
for height, levels, name, color in [
    (-0.07, uniform_levels(bits=4), "even", SKY),
    (-0.16, ours, "nf4", LORA),
]:
    axes.plot(
        levels, np.full_like(levels, height), "|", color=color, markersize=10, markeredgewidth=2
    )
    axes.annotate(name, (1.05, height), color=color, va="center", annotation_clip=False)
labels = axes.set(
    xlabel="weight, divided by the scale of its block", ylabel="density of the weights"
)
ticks = axes.set_yticks([0, 0.5, 1])


# %%
def usage(levels):
    indices = np.searchsorted((levels[:-1] + levels[1:]) / 2, scaled)
    return np.bincount(indices, minlength=len(levels)) / len(scaled)


for name, levels in [("even", uniform_levels(bits=4)), ("nf4", ours)]:
    shares = usage(levels)
    print(
        f"{name:4}  error {lost(W, read_back(W, levels, 64)):.3f}   most used {shares.max():.1%}",
        end="",
    )
    print(f", least used {shares.min():.1%}")

assert usage(ours).max() < 0.11 < usage(uniform_levels(bits=4)).max()
assert lost(W, read_back(W, ours, 64)) < 0.9 * lost(W, read_back(W, uniform_levels(bits=4), 64))

# %% [markdown]
# No level of nf4 is used for more than one weight in nine, and the error has fallen by more than a tenth with the same number of bits. (The
# outermost levels are used less often, because a weight divided by the largest in *its* block is not quite normally distributed.)
#
# ## Blocks and outliers
#
# A scale costs 32 bits, which the entries of its block share. So blocks of 64 take $4 + 32 / 64 = 4.5$ bits per parameter. Why not use one
# scale for the whole matrix? Put one **outlier** into it, an entry 50 times as large as usual. Such outliers occur in large models.

# %% alt="Relative error against the size of a block, from 16 to the whole matrix, both logarithmic. As it is, the matrix has an error of 0.08 in blocks of 16, and 0.13 with one scale. With one outlier the curve starts at the same 0.08 and rises to 0.92."
outlier = W.copy()
outlier[10, 10] = 50 * W.std()
sizes = np.array([16, 32, 64, 128, 256, 1024, W.size])


def errors_by_block(matrix):
    others = matrix < outlier.max()
    wrong = [(matrix - read_back(matrix, ours, size))[others] for size in sizes]
    return np.linalg.norm(wrong, axis=1) / np.linalg.norm(W)


curves = {
    "with one outlier": (sizes, errors_by_block(outlier)),
    "as it is": (sizes, errors_by_block(W)),
}
axes = lnp.plots.lines(curves, xlabel="block size", ylabel="relative error", logarithmic="xy")
assert errors_by_block(outlier)[-1] > 6 * errors_by_block(W)[-1]
assert errors_by_block(outlier)[0] < 1.05 * errors_by_block(W)[0]

# %% [markdown]
# With a single scale, one number out of 45,056 ruins all the others: they are rounded to zero. **A block confines the
# outlier.**<!-- shown: the error by the size of the block --> nf4 uses blocks of 64. The scales can be quantised as well (**double
# quantisation**), which reduces the total from 4.5 to 4.13 bits:

# %%
for double in [False, True]:
    Q = quantise(W, "nf4", double=double)
    print(f"{Q.bits:.2f} bits per parameter, error {Q.error(W, relative=True):.4f}")
assert np.isclose(
    quantise(W, "nf4").error(W, relative=True), lost(W, read_back(W, ours, 64)), rtol=1e-4
)
assert quantise(W, "nf4", double=True).bits < 4.15

# %% [markdown]
# ## What the model notices
#
# An error in the weights need not make the model worse. Here we quantise all 28 linear layers and measure the loss on text by Austen that
# the model was not trained on:

# %%
rows = language.windows(
    model.vocabulary.encode(language.read_text("austen-held-out")), max_length=64
)
rows = rows[::2]  # every other one tells enough


def losses(model, rows=rows):
    parts = np.array_split(rows, 15)
    return np.array([float(language.token_loss(lnp.freeze(model), part)) for part in parts])


def loss(model, rows=rows):
    return float(losses(model, rows).mean())


def mean_and_error(differences):
    return differences.mean(), differences.std(ddof=1) / len(differences) ** 0.5


def quantised(kind):
    return lnp.replace(
        model,
        lnp.Linear,
        lambda path, layer: lnp.Linear(quantise(layer.W, kind)) if "_proj" in path else layer,
    )


in_full = losses(model)
before, more, found = in_full.mean(), {}, {}
for kind in ["int8", "Q5_0", "nf4", "int4", "Q4_0"]:
    small = quantised(kind)
    leaves = [(Q, weights[path]) for path, Q in lnp.leaves(small) if path in weights]
    more[kind] = losses(small) - in_full
    found[kind] = (
        8 * sum(Q.nbytes for Q, _ in leaves) / sum(Q.size for Q, _ in leaves),
        np.mean([Q.error(W, relative=True) for Q, W in leaves]),
        *mean_and_error(more[kind]),
    )
columns = [
    "bits per parameter",
    "mean error of the weights",
    "loss, minus that in 32 bits",
    "standard error",
]
formats = dict(
    zip(columns, ["{:.2f}".format, "{:.3f}".format, "{:+.4f}".format, "{:.4f}".format], strict=True)
)
Table(["kind", *columns], [(kind, *values) for kind, values in found.items()], formats=formats)

# %%
assert abs(found["int8"][2]) < 0.001 < 0.003 < found["nf4"][2] < 0.02
assert 1.15 < found["int4"][1] / found["nf4"][1] < 1.25
difference, uncertain = mean_and_error(more["int4"] - more["nf4"])
print(f"int4 less nf4: {difference:+.4f}, with a standard error of {uncertain:.4f}")
assert abs(difference) < uncertain

# %% [markdown]
# With eight bits, we measure no loss of quality. Four bits cost less than a hundredth of a nat. (The **standard error** says how far such a
# mean is typically off.)
#
# Compare int4 with nf4. The error of the weights is a fifth larger in int4, and yet **the loss cannot tell the two apart**<!-- shown: the
# losses of both runs -->: the two losses differ by less than the standard error. Which errors hurt depends on the inputs, as in *Compare
# with the best possible*, where the best update was not the truncated SVD. So measure the loss, and its standard error.
#
# (Q4_0 and Q5_0 are formats of llama.cpp with evenly spaced levels in blocks of 32. int4 has blocks of 64, and int8 has one scale for each
# row.)
#
# ## Repair with a low rank
#
# The error is a matrix, $W - Q$. So a product $BA$ can restore a part of it, and the best such product is the truncated SVD of $W - Q$.
# With this $BA$, you can quantise $W - BA$, which fits better. Alternating between these two steps is called **LoftQ**. The figure shows
# the remaining error after each step:

# %% alt="Relative error against the step of LoftQ at ranks 4, 8, 16 and 32. All start at 0.092 without repair. The first step gains most; the higher the rank, the lower the line."
curves = {
    f"rank {r}": (np.arange(6), np.array(loftq(W, rank=r, steps=5).errors)) for r in [4, 8, 16, 32]
}
axes = lnp.plots.lines(curves, xlabel="step", ylabel="relative error $\\|W - Q - B A\\| / \\|W\\|$")
assert all(errors[1] < errors[0] for _, errors in curves.values())

# %% [markdown]
# LoRA has a product $BA$ anyway. It usually starts at zero, but here it starts as the repair. We do this for all 28 linear layers at rank
# 8:


# %%
def errors_of(start):
    pairs = zip(lnp.leaves(model), lnp.leaves(lnp.merge(start)), strict=True)
    adapted = [(W0, W) for (path, W0), (_, W) in pairs if "_proj" in path]
    return np.array([np.linalg.norm(W - W0) / np.linalg.norm(W0) for W0, W in adapted])


starts = {
    name: lnp.inject(model, rank=8, alpha=16, quantise="nf4", variant=name, rng=0)
    for name in ["lora", "loftq"]
}
alone, repaired = map(errors_of, starts.values())
print(f"layers whose error fell: {(repaired < alone).sum()} of {len(repaired)}")
print(f"mean error: {alone.mean():.3f}, repaired {repaired.mean():.3f}")
at_start = {name: loss(start) - before for name, start in starts.items()}
print(f"loss minus that in 32 bits: {at_start['lora']:+.4f}, repaired {at_start['loftq']:+.4f}")
assert all(repaired < alone)
assert at_start["loftq"] < at_start["lora"]

# %% [markdown]
# Every matrix is now closer to its original, and the loss is closer to its original value too: nearly half of the increase caused by four
# bits is undone.
#
# The repair does not always help. On another language model, SmolLM2 with 135 million parameters, the same initialisation lowered the error
# of all 210 linear layers. The loss on Genesis fell from 2.148 to 2.100 (the how-to page *Work with four bits* says how to repeat it). But
# on a text of a few sentences, it rose from 3.951 to 3.959. The Frobenius norm counts all inputs equally. The model does not.
#
# ## QLoRA
#
# Now we train. LoRA on a quantised base is called **QLoRA**. $W_0$ stays in four bits and never changes. In each step, each layer's $W_0$
# is dequantised to compute a product, and the dequantised weight is thrown away again. The backward pass repeats this. $A$ and $B$ are
# ordinary float32 matrices. We train on Genesis again, for 50 steps with the same initial values and the same batches, with $W_0$ in 32
# bits and in 4:

# %% alt="Loss on a few held-out rows of Genesis against the step of training, on a base in 32 bits, in four, and in four with LoftQ's initialisation: the three lines fall together and lie on each other at the end."
genesis = model.vocabulary.encode(language.read_text("genesis"))
cut = len(genesis) * 9 // 10
training = language.windows(genesis[:cut], max_length=64)
test = language.windows(genesis[cut:], max_length=64)[::2]  # every other row tells enough


def train(start, report=None):
    order = np.random.default_rng(1).permutation(len(training))[: 50 * 4]
    rate = lnp.cosine_schedule(1e-2, steps=50, warmup=10)
    return lnp.fit(
        start, list(training[order].reshape(50, 4, 65)), loss=language.token_loss,
        optimizer=lnp.AdamW(lr=rate, weight_decay=0), steps=50, clip=1.0, progress=False,
        sample=report, validate_every=5,
    ).model  # fmt: skip


setups = {"32 bits": lnp.inject(model, rank=8, alpha=16, targets="all-linear", rng=0)}
setups |= {"4 bits": starts["lora"], "4 bits, LoftQ": starts["loftq"]}
axes = lnp.plots.axes()
axes.set(xlabel="step", ylabel="loss on a few rows of Genesis, held out")
styles = zip(setups, CYCLE, ["-", "--", ":"], strict=False)
lines = {
    name: axes.plot([], [], style, color=color, label=name)[0] for name, color, style in styles
}
axes.legend()
with lnp.course.live_figure(axes.figure) as put:

    def show(line):
        return lambda step, model: put(line, step, float(language.token_loss(model, test[:6])))

    adapted = {name: train(start, show(lines[name])) for name, start in setups.items()}
ends = {name: loss(end, test) for name, end in adapted.items()}
at_first = loss(model, test)
print(f"Genesis before: {at_first:.2f}")
for name, end in ends.items():
    print(f"trained on {name:14} {end:.2f}")
assert max(ends.values()) - min(ends.values()) < 0.03 < 0.4 < at_first - max(ends.values())

# %% [markdown]
# After a fall of more than 0.4, **all three losses end within 0.03 of each other**<!-- shown: the losses after training -->. The four bits
# had cost 0.008 at the start, so this cannot show whether the LoRA made up for it; four bits did no harm that we can see.
#
# ## What is saved
#
# Here we count the bytes in memory for the linear layers, the trainable parameters and Adam's moments:


# %%
def bytes_of(adapted):
    base = sum(
        leaf.nbytes
        for path, leaf in lnp.leaves(adapted)
        if not isinstance(leaf, lnp.Tensor) and "_proj" in path
    )
    trained = sum(leaf.nbytes for _, leaf in lnp.trainable(adapted))
    return base, trained, lnp.training_run(lnp.AdamW(), adapted).nbytes


double = lnp.inject(model, rank=8, quantise=lambda W: quantise(W, "nf4", double=True), rng=0)
counted = {
    "32 bits": bytes_of(setups["32 bits"]),
    "4 bits": bytes_of(setups["4 bits"]),
    "4 bits, double": bytes_of(double),
}
columns = ["W0 of the linear layers", "A and B", "Adam's moments"]
found = [(name, *sizes) for name, sizes in counted.items()]
Table(["", *columns], found, title="Bytes")

# %%
assert counted["32 bits"][0] == 4 * 737_280 == 2_949_120
assert counted["4 bits"][0] == 737_280 * 4.5 / 8 == 414_720
assert counted["32 bits"][1:] == counted["4 bits"][1:]
print(f"W0 is {counted['32 bits'][0] / counted['4 bits'][0]:.1f} times smaller")

# %% [markdown]
# $W_0$ is 7.1 times smaller than in 32 bits. Most models come in 16 bits. Compared with 16 bits, $W_0$ is $16 / 4.5$, or 3.6 times smaller.
# Nothing else shrinks: $A$, $B$, moments and activations stay the same size. Here the activations of a batch alone take more than $W_0$. In
# a model of 7 billion parameters, $W_0$ takes 13 GiB in 16 bits and 3.7 GiB in four (3.4 with double quantisation). The price is time: each
# step must compute the weights from their levels again.
#
# ## The law
#
# - A quantised weight is a level times a scale. From three bits on, each bit about halves the error. A block confines an outlier and costs one scale.
# - nf4 has levels at quantiles of the normal distribution and blocks of 64. It takes 4.5 bits per parameter, or 4.13 with double
#   quantisation.
# - A smaller error in the weights need not mean a smaller loss. Measure the loss.
# - The error is a matrix, and a matrix of low rank repairs a part of it.
# - QLoRA trains $A$ and $B$ in full precision on a quantised base. It reduces the memory of $W_0$ and nothing else.
#
# ## What you can do now
#
# You can put any model into four bits and say what that costs. Try this:
#
# - On paper: quantise $(2, -1, 0.9, 0.1)$ to the five levels $-1, -\tfrac12, 0, \tfrac12, 1$. What is the largest error?
#
#   <details><summary>Answer</summary>
#
#   The scale is 2, so the entries become $(1, -\tfrac12, 0.45, 0.05)$. The nearest levels are $(1, -\tfrac12, \tfrac12, 0)$, read back as
#   $(2, -1, 1, 0)$. The largest error is 0.1.
#
#   </details>
# - What share of the error does rank 8 repair, if $W - Q$ is pure noise of 352 x 128? Compare with the singular values of the real $W - Q$.
#
#   <details><summary>Answer</summary>
#
#   `s = np.linalg.svdvals(W - quantise(W, "nf4").dequantised())`, then `(s[:8] ** 2).sum() / (s**2).sum()` gives about 0.15, and so does
#   noise of the same shape: the rounding error has no structure. A low rank repairs part of it because the matrix is small, not because the
#   error has low rank.
#
#   </details>
# - Quantise to `Q8_0` and train on it. Are the additional bytes worth it here?
#
#   <details><summary>Answer</summary>
#
#   `lnp.inject(model, rank=8, alpha=16, quantise="Q8_0", rng=0)` ends with the same loss as 32 bits. At 8.5 bits per parameter it takes
#   almost twice as many bytes as nf4. Whether a hundredth of a nat is worth that depends on what else has to fit into memory.
#
#   </details>
#
# ## Further reading
#
# - T. Dettmers, A. Pagnoni, A. Holtzman, L. Zettlemoyer, *QLoRA: Efficient Finetuning of Quantized LLMs*, [arXiv
#   2305.14314](https://arxiv.org/abs/2305.14314): nf4, double quantisation, and the training.
# - T. Dettmers, M. Lewis, Y. Belkada, L. Zettlemoyer, *LLM.int8()*, [arXiv 2208.07339](https://arxiv.org/abs/2208.07339):
#   outliers.
# - Y. Li et al., *LoftQ: LoRA-Fine-Tuning-Aware Quantization for Large Language Models*, [arXiv
#   2310.08659](https://arxiv.org/abs/2310.08659).
# - ggml-org, [llama.cpp](https://github.com/ggml-org/llama.cpp): Q4_0 and its relatives.
