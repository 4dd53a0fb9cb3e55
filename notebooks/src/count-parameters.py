# %% [markdown]
# # Count parameters
#
# To learn something new, a model must change one of its matrices, which is 100 x 120.
#
# **How many parameters must you train? Can fewer do?**
#
# After this lesson you can
#
# - count what an update of any matrix costs, in full and with LoRA,
# - say from which rank on LoRA no longer saves anything,
# - count a whole model, and check the numbers that a paper prints,
# - say what else is saved, and why memory barely depends on the rank.
#
# You need matrix multiplication, *Follow the post*, and the idea of rank, from *See rank*.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import lora_np as lnp
from lora_np.hub import safetensors
from lora_np.table import Table

# %% [markdown]
# ## On paper: 4 x 5
#
# Let $W_0$ be a $4 \times 5$ matrix, $d = 4$ rows and $k = 5$ columns. A **full update** $\Delta W$ has the
# same shape, so it has $4 \cdot 5 = 20$ entries: 20 parameters to train.
#
# **LoRA** writes the update as a product of two thin matrices:
#
# $$
# \Delta W = B A, \qquad B \text{ is } d \times r, \qquad A \text{ is } r \times k
# $$
#
# At rank $r = 1$, $B$ is one column of 4 entries and $A$ is one row of 5, which makes 9 in all. At rank 2 there are twice as many, 18. At
# rank 3 there are 27, more than in the full update.

# %%
d, k = 4, 5
print("full:", lnp.count_full(d, k))
for rank in [1, 2, 3]:
    print(f"rank {rank}: {d} x {rank} and {rank} x {k} make {lnp.count_lora(d, k, rank=rank)}")

assert [lnp.count_lora(d, k, rank=rank) for rank in [1, 2, 3]] == [9, 18, 27]

# %% [markdown]
# ## The formula
#
# | update | parameters to train |
# |---|---|
# | full | $d\,k$ |
# | LoRA of rank $r$ | $d\,r + r\,k = r\,(d + k)$ |
#
# LoRA replaces a product by a sum. That is the whole trick, and it saves more for larger matrices.
#
# ## 100 x 120
#
# Here the package repeats the counts of *Follow the post*:

# %%
d, k = 100, 120
assert lnp.count_full(d, k) == 12_000
assert lnp.count_lora(d, k, rank=20) == 20 * (100 + 120) == 4_400
assert lnp.count_lora(d, k, rank=8) == 8 * (100 + 120) == 1_760

lnp.accounting.count_matrix(d, k, rank=[20, 8])

# %% [markdown]
# **Base** is the model before adaptation, here $W_0$. *Total* is the number of parameters during training: LoRA leaves $W_0$ unchanged and
# adds its own trainable parameters. Full fine-tuning changes $W_0$ itself and adds nothing.
#
# ## The break-even rank
#
# Each unit of rank costs $d + k$ more parameters.  LoRA saves
# parameters as long as
#
# $$
# r\,(d + k) < d\,k, \qquad \text{that is} \qquad r < \frac{d\,k}{d + k}
# $$
#
# For our matrix, $12{,}000 / 220 = 54.5\ldots$, so LoRA saves parameters up to rank 54.

# %% alt="Trainable parameters against rank. LoRA is a rising line through 1,760 at rank 8 and 4,400 at rank 20. It crosses the level line of the full update, 12,000, after rank 54." tags=["cover"]
assert lnp.break_even_rank(d, k) == 54
print(f"at rank 54: {lnp.count_lora(d, k, rank=54):,}")
print(f"at rank 55: {lnp.count_lora(d, k, rank=55):,}")

ranks = np.arange(1, 71)
counts = np.array([lnp.count_lora(d, k, rank=int(rank)) for rank in ranks])
axes = lnp.plots.lines({"": counts}, xlabel="rank r", ylabel="trainable parameters")
full = lnp.count_full(d, k)
axes.plot(ranks, np.full_like(counts, full), color=lnp.plots.FULL)
lnp.plots.label_line(axes, 1, full, f"full update: {full:,}", lnp.plots.FULL, xytext=(0, 6))
for rank in (8, 20, 54):
    count = counts[rank - 1]
    axes.plot(rank, count, "o", color=lnp.plots.LORA)
    lnp.plots.label_line(
        axes, rank, count, f"LoRA, r = {rank}: {count:,}", lnp.plots.LORA, xytext=(8, -8)
    )

# %% [markdown]
# For a square matrix, $d = k$, the limit is half of $d$. For a long and narrow matrix, the limit is close to the length of the short side:

# %%
shapes = [(100, 100), (100, 120), (100, 10_000)]
rows = [(f"{d:,} x {k:,}", d * k, lnp.break_even_rank(d, k)) for d, k in shapes]
Table(["matrix", "full update", "last rank that saves"], rows)

# %% [markdown]
# Conversely: which rank fits a budget of 2,000 trainable parameters?

# %%
print("rank:", lnp.rank_for_budget(100, 120, budget=2_000))

# %% [markdown]
# ## What else is saved
#
# Training repeats one step: measure how wrong the model is, and move each trainable parameter a little to make the model less wrong. This
# takes more than the parameters:
#
# - a **gradient** for each parameter: one number that says in which direction to move the parameter, and how much that helps (*Train h = W0
#   x + BAx* computes some gradients by hand);
# - the state of the **optimizer**, the rule that turns gradients into steps. The usual optimizer, **Adam**, keeps two running averages for
#   each gradient, its **moments**: of the gradient itself and of its square.
#
# After training, you store only the trained parameters. LoRA shrinks all of this by the same factor. We measure it on a layer and on files
# (in the usual format, **safetensors**), with 4 bytes per parameter, gradient or moment:

# %%
rng = np.random.default_rng(0)
base = lnp.Linear(rng.normal(size=(100, 120)).astype(np.float32))  # an array: frozen
models = {
    "full": lnp.Linear(lnp.Tensor(base.W)),  # a Tensor: trained
    "r = 20": lnp.inject(base, rank=20, rng=rng),  # W0 frozen, B and A trained
    "r = 8": lnp.inject(base, rank=8, rng=rng),
}
rows = []
with tempfile.TemporaryDirectory() as folder:
    for name, model in models.items():
        trained = dict(lnp.trainable(model))
        file = Path(folder) / f"{name}.safetensors"
        safetensors.save({path: lnp.value(tensor) for path, tensor in trained.items()}, file)
        count = sum(tensor.size for tensor in trained.values())
        # value above gives a Tensor's array, and start what Adam keeps before its first step
        rows.append(
            (
                name,
                count,
                4 * count,
                lnp.training_run(lnp.Adam(), model).nbytes,
                file.stat().st_size,
            )
        )

columns = [
    "update",
    "trainable parameters",
    "bytes of gradients",
    "bytes of Adam's moments",
    "bytes of the file",
]
Table(columns, rows)

# %%
for _, count, gradients, moments, file_bytes in rows:
    assert moments == 2 * gradients == 8 * count
    assert 4 * count < file_bytes < 4 * count + 400  # a file begins with the names and shapes

# %% [markdown]
# What is **not** saved:
#
# - $W_0$ itself is still in memory: 12,000 parameters, plus the 1,760 of LoRA.
# - The input still passes through $W_0$, and so do the gradients, which the *backward pass* computes from the last layer back to the first.
# - The **activations**, which each layer passes to the next, are still needed for the gradients, so almost all of them are kept.
#
# ## A whole model
#
# Llama 2, a model that predicts how a text continues, has 7 billion parameters in 32 layers, each with several matrices. LoRA is often used
# on two matrices of each layer, `q_proj` and `v_proj` (*Adapt a language model* says what they do). Both are 4,096 x 4,096. At rank 8, that
# makes:

# %%
by_hand = 32 * 2 * lnp.count_lora(4_096, 4_096, rank=8)
print(f"by hand: {by_hand:,}")

llama = lnp.accounting.model_spec("llama-2-7b")
count = lnp.accounting.count_model(llama, rank=8, targets=["q_proj", "v_proj"])
assert count.trainable == by_hand
print(count.peft_line)

# %% [markdown]
# Hugging Face's PEFT library prints the last line for this model: four million parameters instead of seven billion. Why is the saving so
# much larger than in our small example? For a square matrix, LoRA is
#
# $$
# \frac{d\,k}{r\,(d + k)} = \frac{d}{2\,r}
# $$
#
# times smaller than a full update: the larger the matrix, the more LoRA saves. Besides, most matrices were not adapted.

# %%
print(f"reduction, 100 x 120 at rank 8:     {lnp.accounting.ratio(100, 120, rank=8):5.1f} x")
print(f"reduction, 4,096 x 4,096 at rank 8: {lnp.accounting.ratio(4_096, 4_096, rank=8):5.1f} x")
assert lnp.accounting.ratio(4_096, 4_096, rank=8) == 4_096 / (2 * 8)

# %% [markdown]
# Not every matrix is square. Llama 3 with 8 billion parameters also has 32 layers, but its `v_proj` is a 1,024 x 4,096 matrix. At rank 8
# `q_proj` costs $8 \cdot (4{,}096 + 4{,}096) = 65{,}536$ in each layer, and `v_proj` costs $8 \cdot (1{,}024 + 4{,}096) = 40{,}960$. The
# setting *all linear* adapts all seven matrices of a layer:

# %%
rows = []
for name, targets in [
    ("llama-2-7b", "q_proj v_proj"),
    ("llama-3-8b", "q_proj v_proj"),
    ("llama-3-8b", "all linear"),
]:
    spec = lnp.accounting.model_spec(name)
    count = lnp.accounting.count_model(
        spec, rank=8, targets="all-linear" if targets == "all linear" else targets.split()
    )
    rows.append((name, targets, spec.total, count.trainable, count.trainable / spec.total))

assert rows[1][3] == 32 * (65_536 + 40_960) == 3_407_872
formats = {"share": "{:.3%}".format}
Table(["model", "LoRA on", "parameters", "trainable, r = 8", "share"], rows, formats=formats)

# %% [markdown]
# ## The paper's own numbers
#
# *More: the path goes on without this section.*
#
# In a model with $L$ layers and $m$ adapted $d \times d$ matrices in each, a LoRA costs $2\,L\,m\,d\,r$. GPT-3, another language model, has
# 96 layers of width $d = 12{,}288$. On two matrices in each layer, at rank 8, a LoRA has $2 \cdot 96 \cdot 2 \cdot 12{,}288 \cdot 8 =
# 37{,}748{,}736$ parameters. The paper prints 37.7M. The table below compares the counts that the paper's tables state for GPT-3 and
# smaller models with the exact counts for the same settings. A row *follows* if the two counts agree to one unit of the last digit:

# %%
# where, model, layers L, width d, rank r, matrices m, millions as printed
stated = [
    ("table 2", "RoBERTa base", 12, 768, 8, 2, "0.3"),
    ("table 2", "RoBERTa large", 24, 1_024, 8, 2, "0.8"),
    ("table 2", "DeBERTa XXL, rank of the released script", 48, 1_536, 16, 2, "4.7"),
    ("table 2", "DeBERTa XXL, rank of table 10", 48, 1_536, 8, 2, "4.7"),
    ("table 3", "GPT-2 M", 24, 1_024, 4, 2, "0.35"),
    ("table 3", "GPT-2 L", 36, 1_280, 4, 2, "0.77"),
    ("table 4", "GPT-3", 96, 12_288, 1, 2, "4.7"),
    ("table 4", "GPT-3", 96, 12_288, 8, 2, "37.7"),
    ("table 4", "GPT-3", 96, 12_288, 4, 4, "37.7"),
    ("table 4", "GPT-3, rank of appendix D.4", 96, 12_288, 2, 4, "37.7"),
    ("table 5", "GPT-3", 96, 12_288, 8, 1, "18"),
    ("table 5", "GPT-3", 96, 12_288, 4, 2, "18"),
    ("table 5", "GPT-3", 96, 12_288, 2, 4, "18"),
    ("table 15", "GPT-3", 96, 12_288, 2, 2, "9.4"),
    ("table 15", "GPT-3", 96, 12_288, 64, 2, "301.9"),
    ("table 15", "GPT-3", 96, 12_288, 64, 4, "603.8"),
]
printed = []
for where, model, layers, width, rank, matrices, millions in stated:
    exact = layers * matrices * lnp.count_lora(width, width, rank=rank)
    decimals = len(millions.partition(".")[2])
    units = exact / 10 ** (6 - decimals)  # of the last printed digit
    said = round(float(millions) * 10**decimals)
    follows = min(abs(said - int(units)), abs(said - round(units))) <= 1  # cut off or rounded
    yes = "yes" if follows else "no"
    printed.append((where, model, layers, width, rank, matrices, f"{millions}M", exact, yes))
Table(["where", "model", "L", "d", "r", "m", "stated", "exact", "follows"], printed)

# %%
riddles = [row for row in printed if row[-1] == "no"]
for where, model, *_, said, exact, _ in riddles:
    print(f"{model}, {where}: {said} printed, {exact:,} counted")

assert 2 * 96 * 2 * 12_288 * 8 == 37_748_736
assert (len(printed), len(riddles)) == (16, 4)
assert printed[2][-2] == 2 * riddles[0][-2]
assert printed[8][-2] == 2 * riddles[3][-2]
for layers, width, low, high in [(24, 1_024, 345_000, 360_000), (36, 1_280, 765_000, 780_000)]:
    assert not any(low <= 2 * layers * 2 * width * rank < high for rank in range(1, 65))

# %% [markdown]
# Twelve of the sixteen rows follow. For DeBERTa and GPT-3, the appendix prints a rank that gives half of the stated count; twice that rank
# gives exactly the stated count. For the two GPT-2 models no whole rank gives the stated count. The reason is unknown (issue 172 of
# microsoft/LoRA, the paper's code). So when you read such a table, **count again.**
#
# Another number from the paper is often quoted: the **checkpoint**, the file of trained parameters, is said to be 10,000 times smaller, 35
# MB instead of 350 GB.

# %%
adapter = 2 * 96 * 2 * 12_288 * 4  # GPT-3 at rank 4, two matrices a layer
print(
    f"adapter: {adapter:,} parameters, {2 * adapter / 1e6:.1f} million bytes, {2 * adapter / 2**20:.1f} MiB"
)
print(f"175.3 billion parameters are {175_255_800_000 / adapter:,.0f} times as many")

# %% [markdown]
# Neither unit gives 35 (a MiB is $2^{20}$ bytes), and the ratio is 9,285, not 10,000. Perhaps the authors divided 350 GB by the rounded
# ratio, 10,000; the paper does not say.
#
# ## Memory, and why it barely depends on the rank
#
# Consider the memory of a training run: Llama 2 7B with one text of 2,048 **tokens**, which are pieces of words. Each weight, gradient and
# moment takes two bytes in the model and four in the adapter. The size of the activations is an estimate, within a tenth of the size in
# PyTorch, a library for training. As usual, most activations are not kept but recomputed in the backward pass.

# %% alt="Memory to train Llama 2 7B by what it is for, a bar for each method. Full fine-tuning takes 51 GiB, half of it for the optimizer. LoRA takes 14 at rank 8 and 16 at rank 256, nearly all of it the weights."
methods = {"full": lnp.accounting.training_memory(llama, max_length=2_048)}
for rank in [256, 64, 8]:
    lora = lnp.accounting.count_model(llama, rank=rank, targets=["q_proj", "v_proj"])
    methods[f"LoRA, r = {rank}"] = lnp.accounting.training_memory(lora, max_length=2_048)

parts = list(methods["full"].parts)
_, axes = plt.subplots(figsize=(6.8, 3.4), layout="constrained")
left = np.zeros(len(methods))
for part, color in zip(parts, [lnp.plots.MUTED, *lnp.plots.CYCLE], strict=False):
    size = np.array([memory.parts[part] / 2**30 for memory in methods.values()])
    lnp.plots.axes(axes).barh(list(methods), size, left=left, color=color, label=part)
    left += size
for name, end in zip(methods, left, strict=True):
    axes.annotate(f" {end:.1f} GiB", (end, name), va="center")
axes.set(xlim=(0, 1.16 * left.max()), xlabel="memory to train [GiB = 2³⁰ bytes]")
axes.invert_yaxis()
legend = axes.legend(loc="lower right", frameon=False)

# %%
total = {name: memory.total for name, memory in methods.items()}
print(f"full over LoRA of rank 8:         {total['full'] / total['LoRA, r = 8']:.1f} times")
print(f"rank 256 over rank 8, parameters: {256 // 8} times")
print(
    f"rank 256 over rank 8, memory:     {total['LoRA, r = 256'] / total['LoRA, r = 8']:.2f} times"
)
small = methods["LoRA, r = 8"].parts
trained = small["adapter"] + small["gradients"] + small["optimizer"]
assert small["weights"] > 0.9 * total["LoRA, r = 8"]
print(
    f"full, at 16 bytes per parameter:  {16 * 6_738_415_616 / 2**30:.1f} GiB before any activation"
)
assert trained < 0.01 * total["LoRA, r = 8"]

# %% [markdown]
# Two bytes for everything is the minimum for full fine-tuning. More often, training keeps **master weights** (a second copy, precise enough
# for small steps) and two moments in 32 bits. These take $4 + 4 + 4$ bytes, in addition to weights and gradients in 16 bits. That makes 16
# bytes per parameter, or 100 GiB.
#
# LoRA removes the gradients and moments of seven billion parameters. $W_0$, the activations and working memory remain (in the picture,
# working memory is *workspace* and the **logits**, the model's last outputs). None of these depends on the rank. **If memory is short at
# rank 64, rank 8 will seldom help.**<!-- shown: the parts of memory at each rank --> Instead, store $W_0$ in fewer bits (*Train on four
# bits*). If your texts are long, shorten them. If the **batch**, the set of examples for one step, is large, reduce it.
#
# ## The law
#
# - A full update of a $d \times k$ matrix has $d\,k$ parameters. A LoRA of rank $r$ has $r\,(d + k)$.
# - LoRA saves parameters if $r < d\,k / (d + k)$.
# - Over $L$ layers with $m$ square matrices each, a LoRA has $2\,L\,m\,d\,r$ parameters.
# - Gradients, moments and stored files shrink by the same factor. $W_0$, the forward pass and the activations do not shrink, and they fill
#   the memory at any rank.
#
# ## What you can do now
#
# You can say what a LoRA costs before you train it. Try this:
#
# - On paper: adapt four matrices of each layer of GPT-3 at rank 2. Which two rows of the table have this setting, and which row follows?
#
#   <details><summary>Answer</summary>
#
#   $2 \cdot 96 \cdot 4 \cdot 12{,}288 \cdot 2 = 18{,}874{,}368$. Table 5 states 18M, which agrees with this. Table 4 states 37.7M, which
#   would need rank 4.
#
#   </details>
# - On paper: a $1{,}000 \times 1{,}000$ matrix at rank 16. How many parameters is that, and what share of the full update?
#
#   <details><summary>Answer</summary>
#
#   $16 \cdot 2{,}000 = 32{,}000$, which is 3.2 % of a million.
#
#   </details>
# - Which rank does a budget of one million parameters allow for `q_proj` and `v_proj` in all layers of Llama 2 7B?
#
#   <details><summary>Answer</summary>
#
#   Rank 1. Each unit of rank costs $32 \cdot 2 \cdot (4{,}096 + 4{,}096) = 524{,}288$ parameters, and twice that is more than a million.
#
#   </details>
# - In a terminal: run `lora-np count llama-2-7b --rank 8` and `lora-np count 100x120 --rank 20 --rank 8`.
#
#   <details><summary>Answer</summary>
#
#   The first command prints 4,194,304, as above. The second prints the table of the 100 x 120 matrix.
#
#   </details>
#
# ## Further reading
#
# *More: the path goes on without this section.*
#
# - E. Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*,
#   [arXiv 2106.09685](https://arxiv.org/abs/2106.09685), section 4.1 for the method, 4.2 for its benefits and
#   limits, 5.1 for the count, tables 2, 3, 4, 5 and 15 for the numbers above.
# - Issue 172 of [microsoft/LoRA](https://github.com/microsoft/LoRA/issues/172): the open question.
# - T. Dettmers et al., *QLoRA: Efficient Finetuning of Quantized LLMs*,
#   [arXiv 2305.14314](https://arxiv.org/abs/2305.14314).
# - D. P. Kingma, J. Ba, *Adam: A Method for Stochastic Optimization*,
#   [arXiv 1412.6980](https://arxiv.org/abs/1412.6980), algorithm 1: the two moments.
# - H. Touvron et al., *Llama 2: Open Foundation and Fine-Tuned Chat Models*,
#   [arXiv 2307.09288](https://arxiv.org/abs/2307.09288).
# - Hugging Face, [PEFT](https://huggingface.co/docs/peft), the library that most adapters are made with.
