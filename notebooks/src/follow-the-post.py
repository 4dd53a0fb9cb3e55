# %% [markdown]
# # Follow the post
#
# This package began with one short blog post, a note of January 2024 by somebody who had just met LoRA. It
# names rank, decompositions, an equation and one example, on half a page, and ends in wonder.
#
# **What does the note claim, and is it true?**
#
# After this lesson you can
#
# - say what *PEFT* means, and where LoRA stands among its relatives,
# - prove in two lines why a matrix of rank $r$ is a product of two thin ones,
# - count 12,000, 4,400 and 1,760, and find a slip that is easily made,
# - read a whole LoRA in one file.
#
# You need matrix multiplication. Each statement gets a proof of two lines or a picture, and the name of the lesson that goes on
# from there.

# %%
import matplotlib.pyplot as plt
import numpy as np

import lora_np as lnp
from lora_np import mini
from lora_np.table import Table

# %% [markdown]
# ## Rank is the number of independent columns
#
# That is its definition: take the columns from left to right, and keep each that is no sum of multiples of those kept before.
# The note adds that it is the dimension of the space that the columns span, which is the same said with a picture: all
# outputs $Mx$ lie in it.
#
# Here the third column is the sum of the first two, and the fourth twice the first. Two are kept, so the rank is 2.

# %%
M = np.array([[1.0, 2, 3, 2], [0, 1, 1, 0], [2, 0, 2, 4]])
B = M[:, :2]  # the columns that were kept
A = np.array([[1.0, 0, 1, 2], [0, 1, 1, 0]])  # how each column is made from them
assert np.array_equal(B @ A, M)

# %% alt="Three tables of numbers: B with 3 rows and 2 columns, times A with 2 rows and 4 columns, is M with 3 rows and 4 columns."
figure = lnp.plots.matrix_tiles({"B, 3 x 2": B, "A, 2 x 4": A, "M, 3 x 4": M}, between=["·", "="])

# %% [markdown]
# This is more than an example. **A matrix of rank $r$ is a product $BA$ of two thin ones**<!-- proof: the kept columns, and how the others are made from them -->: the kept columns are $B$, and column $j$
# of $A$ says how column $j$ of $M$ is made from them. Now read the same product by rows: each row of $M$ is made from the $r$ rows
# of $A$, so no more than $r$ rows are independent. And what holds for $M$ holds for $M^T$. **So there are as many independent rows as
# columns.**<!-- proof: BA read by rows, and then for the transpose --> *See rank* goes on from here.
#
# ## PEFT, spelled out
#
# The note met these letters together with LoRA: **parameter-efficient fine-tuning**. Fine-tuning goes on training a model that has
# learned already. PEFT leaves its numbers, the **parameters** or weights, as they are, and trains few new ones.
#
# **LoRA**, low-rank adaptation, does it like this. Let $W_0$ be a matrix of the model, with $d$ rows and $k$ columns. Full fine-tuning adds a matrix $\Delta W$ of as
# many numbers to it, an **update**. LoRA trains two thin matrices instead, $B$ with $r$ columns and $A$ with $r$ rows, and takes $\Delta W = \tfrac{\alpha}{r} BA$. The
# **rank** of that is $r$ at most. ($\alpha$ is a fixed number that sets its strength.)
#
# LoRA has relatives. To read the table: a layer of a language model has two parts, attention, in which
# words look at one another by queries, keys and values, and the MLP, a few maps, as matrices at work are called, with a bend between them, a function such as tanh that is no matrix. The numbers between
# these maps are called hidden. *Adapt a language model* explains both. A bias is a number that a map adds to its output.
#
# | way | what is trained | where it acts | can it be merged away? |
# |---|---|---|---|
# | adapters, 2019 | a narrow map, a bend, a wide map, after attention and after the MLP | on the outputs | no: the bend is not a matrix |
# | prefixes, 2021 | a few keys and values at the front of each layer | in attention | no |
# | prompts, 2021 | a few made-up words | before the first layer | no |
# | BitFit, 2021 | the biases that the model has | everywhere | yes |
# | **LoRA**, 2021 | $B$ and $A$ beside a matrix $W_0$ | on the weights | yes: $W_0 + \tfrac{\alpha}{r} BA$ |
# | IA3, 2022 | a factor for each key, value and hidden number | on the outputs | yes |
#
# How many numbers is that in a model of 12 layers that is 768 wide, as the language models BERT and GPT-2 are? (Each line of the scale stands for ten times the one before.)

# %% alt="Bars on a logarithmic scale: numbers trained in a model of 12 layers, 768 wide. All matrices 84,934,656; adapters of width 64 2.4 million; LoRA of rank 8 294,912; a prefix of 20 368,640; biases 82,944; IA3 55,296; a prompt of 20 15,360."
layers, d = 12, 768
numbers = {
    # attention has four matrices of d x d, the MLP one of 4 d x d and one of d x 4 d
    "all matrices of the layers": layers * 12 * d * d,
    "adapters, 64 wide": layers * 2 * (2 * 64 * d + 64 + d),  # with their biases
    "prefix of 20": layers * 2 * 20 * d,
    "LoRA, r = 8, on queries and values": layers * 2 * lnp.count_lora(d, d, rank=8),
    "biases of the maps": layers * (4 * d + 4 * d + d),
    "IA3": layers * (d + d + 4 * d),  # keys, values, hidden numbers
    "prompt of 20": 20 * d,
}
_, axes = plt.subplots(figsize=(6.8, 2.8), layout="constrained")
colors = [lnp.plots.LORA if name.startswith("LoRA") else lnp.plots.MUTED for name in numbers]
lnp.plots.axes(axes).barh(list(numbers), list(numbers.values()), color=colors)
for name, count in numbers.items():
    axes.annotate(f" {count:,}", (count, name), va="center")
axes.set(xscale="log", xlim=(1e4, 1.5e9), xlabel="numbers trained")
axes.invert_yaxis()
assert numbers["LoRA, r = 8, on queries and values"] == 294_912

# %% [markdown]
# All six ways train three hundredths of the layers' numbers or much less. What can be merged is added to the model afterwards, and the model is as fast as it was. Of the three
# that can, only LoRA changes how each input of a matrix counts for each output, and it has a dial, $r$, from few numbers to many.
#
# ## Cheaper, faster, and only the adapter is saved
#
# - **Cheaper**: in numbers trained, by what the bars say. In memory much less so, since $W_0$ and all that flows through the model
#   stay: *Count parameters*.
# - **Less time**: sometimes. Every product with $W_0$ is still taken, forward and back; only the gradient of $W_0$, how much the error rises with each of its
#   numbers, is not. At most a third of the arithmetic of a whole model is saved: *Adapt a real model* measures it.
# - **Only the adapter is saved**<!-- shown: the two files of one, in Open a real adapter -->: yes. Whatever was trained and can be put on a model is called an **adapter** today, LoRA's $B$ and $A$
#   as well. Its file is smaller by the same factor as the numbers. *Open a real adapter* takes one apart.
#
# ## A matrix can be taken apart
#
# The note names LU, QR and the SVD (**singular value decomposition**), ways to write a matrix as a product, and decides that the letter D counts: whatever can be multiplied can be taken apart. *Factor a
# matrix* has all three.
#
# One of them is special. The SVD writes $M$ as a sum of layers (of a matrix, not of a model) $\sigma_i u_i v_i^T$: a column $u_i$ times a row $v_i^T$, both of length 1, times
# a strength $\sigma_1 \ge \sigma_2 \ge \dots \ge 0$. The columns are at right angles to each other, and so are the rows. Keep the first $r$ layers: **no matrix of rank $r$ is closer to $M$**<!-- proof: the two lines that follow; Eckart and Young, 1936 --> (Eckart and Young,
# 1936).
#
# In two lines, with $\|x\|$ for the length of $x$. Let $N$ have rank $r$. Its outputs need only $r$ directions, so $N v_1, \dots, N v_{r+1}$ are one too many to be independent: some
# mixture $x$ of $v_1, \dots, v_{r+1}$, of length 1, has $Nx = 0$. Yet $\|Mx\| \ge \sigma_{r+1}$, since $M$ makes $\sigma_i u_i$ of each $v_i$, at right angles to each other. So $M - N$ stretches some $x$ by $\sigma_{r+1}$ at
# least, and the cut does so by no more. (This is the error's largest stretch; *Cut the SVD* has the sum of squares.)
#
# Here is a photograph, a matrix with a number for each pixel, cut to rank 1, 8 and 20. After each rank stands how many numbers $B$ and $A$ have:

# %% alt="A photograph of 512 by 600 pixels at rank 1, 8, 20 and in full: stripes, a blurred figure, a recognisable one, the original." tags=["cover"]
photo = lnp.datasets.photograph()
_, panels = plt.subplots(1, 4, figsize=(7, 2.3), layout="constrained")
for axes, r in zip(panels, [1, 8, 20, min(photo.shape)], strict=True):
    B, A = mini.best(photo, r)  # the first r layers of the SVD; mini is explained below
    axes.imshow(B @ A, cmap="gray", vmin=0, vmax=1)
    axes.set_axis_off()
    axes.set_title(f"rank {r}: {min(r * sum(photo.shape), photo.size):,}", fontsize=9)

# %% [markdown]
# ## Why r is far smaller than d and k
#
# For two reasons. First, only then it saves anything: $r(d + k)$ numbers are fewer than $d\,k$ if $r < \frac{d\,k}{d + k}$, which for
# 100 x 120 means up to rank 54.
#
# Second, few seem to be enough. Li (2018) and Aghajanyan (2020) let training move all numbers of a model along a
# few random directions only, and found that a few hundred to a few thousand can reach nine tenths of what full training does: the **intrinsic dimension**. The authors
# of LoRA took courage from it, but rank is something else. It counts directions *of one matrix*: an update of rank 1 already has $d + k$
# numbers to choose.
#
# And whether a small rank is enough depends on the task: *Ask whether a LoRA is enough* finds where it ends.
#
# ## BA or AB?
#
# The note copies equation 3 of the paper, $h = W_0 x + BAx$, and concludes $\Delta W = AB$. Here is the slip: it is $BA$. In words: $A$ ($r \times k$) comes first, takes $x$ down
# to $r$ numbers, and $B$ ($d \times r$) brings them up again.
# (The paper goes on to multiply $BA$ by $\tfrac{\alpha}{r}$.) The product the other way round does not exist:

# %%
rng = np.random.default_rng(0)
B, A = rng.normal(size=(100, 20)), rng.normal(size=(20, 120))
print("B A:", (B @ A).shape)
try:
    A @ B
except ValueError:
    print("A B: 120 columns meet 100 rows")
square_B, square_A = np.ones((4, 1)), np.ones((1, 4))
print("A B where d = k = 4:", (square_A @ square_B).shape, "cannot be added to a 4 x 4 matrix")

# %% [markdown]
# In its example the note calls the 100 x 20 matrix $A$ and the 20 x 120 matrix $B$: the letters were swapped on the way. The count does
# not mind, but **files do**: they hold `lora_A` and `lora_B`, and the zero matrix at the start is $B$, the one on the side of the output.
#
# $A$ starts with random numbers of size $1 / \sqrt k$, so that $Ax$, a sum of $k$ products, is about as large as an entry of $x$.
# With both at zero nothing would ever move. Training steps against the gradient. That of $A$ is $B^T G$ and that of $B$ is $G A^T$, for a gradient $G$ of $\Delta W$ (*Train h = W0 x + BAx* shows why), and
# both would be zero.
#
# ## 12,000, or 4,400, or 1,760

# %%
rows = [("full", 100 * 120, "100 · 120")]
rows += [(f"r = {r}", r * (100 + 120), f"100 · {r} + {r} · 120") for r in (20, 8)]
assert [count for _, count, _ in rows] == [12_000, 4_400, 1_760]
assert [
    lnp.count_full(100, 120),
    lnp.count_lora(100, 120, rank=20),
    lnp.count_lora(100, 120, rank=8),
] == [
    12_000,
    4_400,
    1_760,
]
assert lnp.break_even_rank(100, 120) == 54
Table(["update", "numbers", "why"], rows)

# %% [markdown]
# The arithmetic is right, and the note stops here. Does it also *work*? Below, a task that asks for a change of rank 4 of a 100 x 120
# matrix, each direction weaker than the last: 400 random inputs, and the outputs that the changed matrix gives. It is learned by `lora_np/mini.py`, all of LoRA in one file of 160 lines:
#
# | in the file | what it is |
# |---|---|
# | `rank`, `best` | how many directions a matrix has; the SVD, cut |
# | `Tensor` | an array that remembers what it came from, so that `backward` finds gradients |
# | `LoRA` | the layer: $W_0$ frozen, $A$ random, $B$ zero |
# | `train` | forward, `backward`, and a step against the gradient, again and again |
# | `save` | two files that PEFT opens |
#
# Its layer is the equation (to read all of the file takes ten minutes more):
#
# ```python
# def __call__(self, x):  # one example a row, so each product is written transposed
#     return x @ self.W0.T + x @ self.A.T @ self.B.T * (self.alpha / self.r)
# ```

# %% alt="The share of the wanted change that is missing, against the rank: after training and at best, both fall from 60 percent at rank 1 to nothing at rank 4. Below each rank stands how many numbers it trains."
d, k = 100, 120
W0, x, U, V = (rng.normal(size=shape) for shape in [(d, k), (400, k), (d, 4), (4, k)])
wanted = U * 0.6 ** np.arange(4) @ V / 20
ranks, missing, at_best = [1, 2, 3, 4, 8], [], []
for r in ranks:
    layer = mini.LoRA(W0, r=r, alpha=2 * r, rng=rng)
    mini.train(layer, x, x @ (W0 + wanted).T, lr=3.0, steps=150)  # lr: how far a step goes
    B, A = mini.best(wanted, r)
    missing.append(np.linalg.norm(wanted - layer.delta()) / np.linalg.norm(wanted))
    at_best.append(np.linalg.norm(wanted - B @ A) / np.linalg.norm(wanted))

_, axes = plt.subplots(figsize=(6, 3), layout="constrained")
places = np.arange(len(ranks))
lnp.plots.axes(axes).bar(places - 0.2, missing, 0.4, color=lnp.plots.LORA, label="trained")
axes.bar(
    places + 0.2, at_best, 0.4, color=lnp.plots.MUTED, label="the SVD's cut: the best there is"
)
axes.set_xticks(
    places,
    [
        f"r = {r}\n{mini_count:,}"
        for r, mini_count in zip(ranks, np.array(ranks) * (d + k), strict=True)
    ],
)
axes.set(ylabel="share of the change that is missing", xlabel="rank, and numbers trained")
legend = axes.legend(frameon=False)
assert np.all(np.array(missing) >= np.array(at_best) - 1e-12)
assert max(np.array(missing) - at_best) < 0.05 > missing[3]

# %% [markdown]
# At rank 4, 880 numbers do what 12,000 were for, because the task asked for no more. Where it asks for more, the rank decides what is left
# out, and training finds nearly the best that this rank allows.
#
# ## Where each thread goes on
#
# | from the note | lesson |
# |---|---|
# | rank | *See rank* |
# | LU, QR, SVD | *Factor a matrix*, *Cut the SVD* |
# | 12,000, 4,400, 1,760; memory | *Count parameters* |
# | training $B$ and $A$ | *Differentiate*, *Build the engine*, *Train h = W0 x + BAx*, *Compare with the best possible* |
# | does it work on real data? | *Adapt a real model*, *Learn without forgetting*, *Adapt a language model* |
# | how much does it hold? | *Measure how much fits*, *Ask whether a LoRA is enough* |
# | which $r$, which $\alpha$, which start | *Choose rank, alpha and initialisation* |
# | the file that is saved | *Open a real adapter*, *Look inside an update*, *Weigh an update*, *Merge two tasks*, *Serve it elsewhere* |
#
# ## The law
#
# - A matrix of rank $r$ is $BA$ with $B$ of $r$ columns and $A$ of $r$ rows: $r(d + k)$ numbers instead of $d\,k$.
# - $h = W_0 x + \tfrac{\alpha}{r} BA x$: $W_0$ stays, $B$ and $A$ are trained, $B$ starts at zero.
# - The best $BA$ of each rank is the SVD, cut.
#
# ## What you can do now
#
# You can follow the note, and correct it. Try:
#
# - On paper: a 3 x 4 matrix has rank 2. How many numbers do $B$ and $A$ have, and does that save anything?
#
#   <details><summary>Answer</summary>
#
#   $2 \cdot (3 + 4) = 14$, two more than the matrix. It saves below rank $\tfrac{12}{7}$, so at rank 1 only.
#
#   </details>
# - In the last cell: let the four directions be equally strong (write 1.0 for 0.6). What is missing at rank 2, at best?
#
#   <details><summary>Answer</summary>
#
#   About $\sqrt{2/4}$, 70 %: each direction has a quarter of the squared size, and two are left out. It is a little less, since random
#   directions are not quite equal.
#
#   </details>
#
# ## Further reading
#
# - E. Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, [arXiv 2106.09685](https://arxiv.org/abs/2106.09685): section 4.1.
# - N. Houlsby et al., *Parameter-Efficient Transfer Learning for NLP*, [arXiv 1902.00751](https://arxiv.org/abs/1902.00751): adapters.
# - X. L. Li, P. Liang, *Prefix-Tuning*, [arXiv 2101.00190](https://arxiv.org/abs/2101.00190); B. Lester et al., *The Power of Scale for
#   Parameter-Efficient Prompt Tuning*, [arXiv 2104.08691](https://arxiv.org/abs/2104.08691); E. Ben Zaken et al., *BitFit*,
#   [arXiv 2106.10199](https://arxiv.org/abs/2106.10199); H. Liu et al., *Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than
#   In-Context Learning* (IA3), [arXiv 2205.05638](https://arxiv.org/abs/2205.05638).
# - C. Li et al., *Measuring the Intrinsic Dimension of Objective Landscapes*, [arXiv 1804.08838](https://arxiv.org/abs/1804.08838);
#   A. Aghajanyan et al., *Intrinsic Dimensionality Explains the Effectiveness of Language Model Fine-Tuning*,
#   [arXiv 2012.13255](https://arxiv.org/abs/2012.13255).
