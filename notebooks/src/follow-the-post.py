# %% [markdown]
# # Follow the post
#
# LoRA teaches a trained model something new with few parameters. In January 2024 somebody who had just learned about it wrote half a page
# of notes. They mention rank, matrix decompositions, one equation and one example.
#
# **What does the note claim, and is it true?**
#
# After this lesson you can
#
# - count 12,000, 4,400 and 1,760 parameters, and avoid a common slip,
# - say what rank is, and see that a matrix of rank $r$ is a product of two thin matrices,
# - say what *PEFT* means, and how LoRA differs from other PEFT methods,
# - read a complete LoRA in one file.
#
# You need matrix multiplication. Each claim is checked with a picture or a count, and the text names the lesson that proves it.

# %%
import matplotlib.pyplot as plt
import numpy as np

import lora_np as lnp
from lora_np import mini

# %% [markdown]
# ## 12,000, or 4,400, or 1,760
#
# A **model** turns inputs into outputs: given a text, for example, it predicts the next word. The output depends on the entries of the
# model's matrices, its **parameters** or weights. To **train** a model, change them little by little until its outputs are right on examples.
#
# Take a matrix $W_0$ with 100 rows and 120 columns. It was trained for one task and must now learn another, so it has to change. Write the
# change as a second matrix, $\Delta W$, which is added to the first. This change is called an **update**.
#
# A full update has as many entries as the matrix, $100 \cdot 120 = 12{,}000$. The idea in the note is to write the update as a product of
# two thin matrices instead, $\Delta W = BA$. $B$ is as tall as $W_0$, and $A$ is as wide. You choose their thickness $r$:

# %% alt="Three groups of rectangles on one scale. The full update is a rectangle of 100 by 120, area 12,000. At rank 20, B is a thin upright strip and A a thin flat one, together 4,400. At rank 8 the strips are thinner still, together 1,760." tags=["cover"]
d, k = 100, 120
_, axes = plt.subplots(figsize=(8, 2.7), layout="constrained")
axes.add_patch(plt.Rectangle((0, 0), k, d, color=lnp.plots.FULL))
axes.text(k / 2, -5, f"full: {d * k:,}\n{d} · {k}", ha="center", va="top")
left = k + 30
for r in [20, 8]:
    axes.add_patch(plt.Rectangle((left, 0), r, d, color=lnp.plots.LORA))  # B
    axes.add_patch(plt.Rectangle((left + r + 10, d - r), k, r, color=lnp.plots.LORA))  # A
    axes.text(left - 10, d / 2, "B", va="center")
    axes.text(left + r + 10, d - r - 12, "A")
    text = f"r = {r}: {r * (d + k):,}\n{d} · {r} + {r} · {k}"
    axes.text(left + (r + 10 + k) / 2, -5, text, ha="center", va="top")
    left += r + 10 + k + 30
axes.set(xlim=(0, left), ylim=(-35, d), aspect="equal")
axes.set_axis_off()
assert lnp.count_full(d, k) == 12_000
assert [lnp.count_lora(d, k, rank=r) for r in (20, 8)] == [4_400, 1_760]

# %% [markdown]
# Each area is a number of entries. So the note's arithmetic is right: 12,000 in full, 4,400 with $r = 20$, and 1,760 with $r = 8$. In
# general, a matrix with $d$ rows and $k$ columns costs $r(d + k)$ parameters instead of $d\,k$. *Count parameters* continues from here.
#
# ## Rank is the number of independent columns
#
# The thickness $r$ limits the **rank** of the update. Take the columns of a matrix from left to right. Keep each column that is not a sum of
# multiples of the columns that you have already kept. The rank is the number of columns that you keep.
#
# In $M$ below, the third column is the sum of the first two, and the fourth is twice the first. You keep two columns, so the rank is 2.
# They become $B$, and column $j$ of $A$ says how to combine them into column $j$ of $M$:

# %%
M = np.array([[1.0, 2, 3, 2], [0, 1, 1, 0], [2, 0, 2, 4]])
B = M[:, :2]  # the columns that were kept
A = np.array([[1.0, 0, 1, 2], [0, 1, 1, 0]])  # how each column is made from them
assert np.array_equal(B @ A, M)

# %% alt="Three tables of numbers: B with 3 rows and 2 columns, times A with 2 rows and 4 columns, is M with 3 rows and 4 columns."
figure = lnp.plots.matrix_tiles({"B, 3 x 2": B, "A, 2 x 4": A, "M, 3 x 4": M}, between=["·", "="])

# %% [markdown]
# **A matrix of rank $r$ is a product $BA$ of two thin matrices**<!-- proof: the kept columns, and how the others are made from them -->, and
# a product of two matrices of thickness $r$ has rank $r$ at most. *See rank* shows what rank means in a picture.
#
# ## PEFT, spelled out
#
# **PEFT** stands for **parameter-efficient fine-tuning**. **Fine-tuning** means training an already trained model further. PEFT leaves the
# model's parameters unchanged and trains a few new parameters.
#
# **LoRA**, low-rank adaptation, is one such method. A **layer** of the model multiplies its input $x$, a column of $k$ numbers, by $W_0$.
# The output $h$ is a column of $d$ numbers. LoRA places $B$ and $A$ beside $W_0$, and trains nothing else:
#
# $$
# h = W_0 x + \tfrac{\alpha}{r}\, B A x
# $$
#
# The number $\alpha$ is fixed. With $r$ it sets the **scale** of the update, $\alpha / r$. Other PEFT methods train other parameters:
#
# | method | what is trained | can it be added into $W_0$? |
# |---|---|---|
# | bottleneck layers, 2019 | small matrices between the layers | no |
# | **prompts** and prefixes, 2021 | columns of numbers, put in front of a text like words | no |
# | BitFit, 2021 | the number that each layer adds to each output | it is in the layer already |
# | **LoRA**, 2021 | $B$ and $A$ beside a matrix $W_0$ | yes: $W_0 + \tfrac{\alpha}{r} BA$ |
# | IA3, 2022 | a factor for each selected output | yes |
#
# A change that is added into $W_0$ costs no time once training is over. Of these methods, only LoRA can change the effect of every input on
# every output; $r$ decides how many parameters that takes.
#
# ## Cheaper, faster, and only the adapter is saved
#
# - **Cheaper**: in parameters, yes, as the picture shows. Memory shrinks less, because it still holds $W_0$ and everything that flows
#   through the model: see *Count parameters*.
# - **Less time**: sometimes. $W_0 x$ must still be computed, so LoRA saves at most a third of a whole model's arithmetic. *Adapt a real
#   model* measures this.
# - **Only the adapter is saved**<!-- shown: the two files of one, in Open a real adapter -->: yes. Parameters trained beside a model, such
#   as LoRA's $B$ and $A$, are called an **adapter**. *Open a real adapter* examines its files.
#
# ## A matrix can be taken apart
#
# The note names three ways to write a matrix as a product. **LU** comes from solving equations, **QR** makes columns at right angles to one
# another, and the **SVD** finds the strongest patterns in a matrix. *Factor a matrix* computes all three by hand.
#
# The SVD, or **singular value decomposition**, writes a matrix as a sum of products, each a column times a row. The strongest comes first.
# If you keep the first $r$ products, you have the **truncated** SVD, and **no matrix of rank $r$ is closer to the original**<!-- proof: two
# lines, in Cut the SVD; Eckart and Young, 1936 -->: it has the smallest possible sum of squared differences. *Cut the SVD* proves it.
#
# Here is a photograph, a matrix with one number per pixel, truncated to rank 1, 8 and 20. The titles also give the number of entries of $B$ and $A$:

# %% alt="A photograph of 512 by 600 pixels at rank 1, 8, 20 and in full: stripes, a blurred figure, a recognisable one, the original."
photo = lnp.datasets.photograph()
_, panels = plt.subplots(1, 4, figsize=(7, 2.3), layout="constrained")
for axes, r in zip(panels, [1, 8, 20, min(photo.shape)], strict=True):
    B, A = mini.best(photo, r)  # the SVD, truncated to r; mini is explained below
    axes.imshow(B @ A, cmap="gray", vmin=0, vmax=1)
    axes.set_axis_off()
    axes.set_title(f"rank {r}: {min(r * sum(photo.shape), photo.size):,}", fontsize=9)

# %% [markdown]
# ## Why r is far smaller than d and k
#
# *More: the path goes on without this section.*
#
# There are two reasons. First, a large $r$ would save nothing: $r(d + k)$ is less than $d\,k$ only if $r < \frac{d\,k}{d + k}$. For 100 x
# 120, that means up to rank 54.
#
# Second, a few parameters seem to be enough. Li (2018) and Aghajanyan (2020) trained only a few new parameters, each of which moves all
# weights of a model at once in randomly drawn proportions: a random **direction**. A few hundred to a few thousand directions were enough
# for nine tenths of the score that training all weights reaches. This number of directions is called the **intrinsic dimension**. It is not
# the rank, which counts directions *of one matrix*, but it encouraged the authors of LoRA.
#
# Whether a small rank is enough depends on the task: *Ask whether a LoRA is enough* finds tasks for which it is not.
#
# ## BA or AB?
#
# The note copies equation 3 of the LoRA paper, $h = W_0 x + BAx$, and concludes $\Delta W = AB$. That is a slip: the product is $BA$.
# First, $A$ ($r \times k$) turns the input $x$ into $r$ entries. Then $B$ ($d \times r$) turns these into $d$ entries. In the other order,
# the product does not exist or has the wrong shape:

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
# To remember the order: **A** meets the input; **B** brings the result **b**ack to the output's size.
#
# In its example the note calls the 100 x 20 matrix $A$ and the 20 x 120 matrix $B$: it swaps the letters. The count stays the same, but the
# letters matter in files, which name the matrices `lora_A` and `lora_B`. Training starts with $B$ at zero and $A$ random, so the update is
# zero at first (*Train h = W0 x + BAx* says why).
#
# ## Does it work?
#
# The note stops at the count. Here is a task that needs a change of rank 4: a sum of four products, each a column times a row, weaker than
# the previous product. The data are 400 random inputs and the changed matrix's outputs. `lora_np/mini.py`, all of LoRA in one file of 160
# lines, learns the task:
#
# | in the file | what it is |
# |---|---|
# | `rank`, `best` | the rank of a matrix; the truncated SVD |
# | `Tensor` | an array that remembers what it was computed from |
# | `LoRA` | the layer: $W_0$ fixed, $A$ random, $B$ zero |
# | `train` | compute the error, move $A$ and $B$ a little so that the error falls, and repeat |
# | `save` | two files that PEFT, the library, opens |
#
# The layer is the equation itself (`@` multiplies matrices, `.T` exchanges rows and columns):
#
# ```python
# def __call__(self, x):  # one example a row, so each product is written transposed
#     return x @ self.W0.T + x @ self.A.T @ self.B.T * (self.alpha / self.r)
# ```
#
# The bars show the relative error: the size of the part that the update misses, divided by the size of the wanted change. A matrix's size
# is the square root of the sum of its squared entries:

# %% alt="The relative error of the change against the rank: after training and at best, both fall from 60 percent at rank 1 to nothing at rank 4. Below each rank is the number of its parameters."
W0, x, U, V = (rng.normal(size=shape) for shape in [(d, k), (400, k), (d, 4), (4, k)])
wanted = U * 0.6 ** np.arange(4) @ V / 20
ranks, missing, at_best = [1, 2, 3, 4, 8], [], []


def loss():  # of the layer as it is now
    return (layer(x) - x @ (W0 + wanted).T).mean_square()


for r in ranks:
    layer = mini.LoRA(W0, r=r, alpha=2 * r, rng=rng)
    mini.train([layer.A, layer.B], loss, lr=3.0, steps=150)  # lr: how far a step goes
    B, A = mini.best(wanted, r)
    missing.append(np.linalg.norm(wanted - layer.delta()) / np.linalg.norm(wanted))
    at_best.append(np.linalg.norm(wanted - B @ A) / np.linalg.norm(wanted))

_, axes = plt.subplots(figsize=(6, 3), layout="constrained")
positions = np.arange(len(ranks))
lnp.plots.axes(axes).bar(positions - 0.2, missing, 0.4, color=lnp.plots.LORA, label="trained")
best_label = "best possible: the truncated SVD"
axes.bar(positions + 0.2, at_best, 0.4, color=lnp.plots.MUTED, label=best_label)
axes.set_xticks(positions, [f"r = {r}\n{r * (d + k):,}" for r in ranks])
axes.set(ylabel="relative error of the change", xlabel="rank r, and trainable parameters")
legend = axes.legend(frameon=False)
assert np.all(np.array(missing) >= np.array(at_best) - 1e-12)
assert max(np.array(missing) - at_best) < 0.05 > missing[3]

# %% [markdown]
# At rank 4, 880 parameters do the work of 12,000, because the task needs no more. Below rank 4, part of the change is out of reach, and
# training comes close to the best update of each rank.
#
# ## Where each thread goes on
#
# *More: the path goes on without this section.*
#
# | from the note | on the path | deeper |
# |---|---|---|
# | rank | *See rank* | |
# | LU, QR, SVD | *Cut the SVD* | *Factor a matrix* |
# | 12,000, 4,400, 1,760; memory | *Count parameters* | |
# | training $B$ and $A$ | *Train h = W0 x + BAx* | *Differentiate*, *Build the engine*, *Compare with the best possible* |
# | does it work on real data? | *Adapt a language model* | *Adapt a real model*, *Learn without forgetting* |
# | how much does it hold? | | *Measure how much fits*, *Ask whether a LoRA is enough* |
# | which $r$, which $\alpha$, which initialisation | | *Choose rank, alpha and initialisation* |
# | the file that is saved | *Open a real adapter* | *Look inside an update*, *Merge two tasks*, *Serve it elsewhere* |
#
# ## The law
#
# - A matrix of rank $r$ is $BA$, where $B$ has $r$ columns and $A$ has $r$ rows: $r(d + k)$ parameters instead of $d\,k$.
# - $h = W_0 x + \tfrac{\alpha}{r} BA x$: $W_0$ stays, $B$ and $A$ are trained, $B$ starts at zero.
# - The best $BA$ of each rank is the truncated SVD.
#
# ## What you can do now
#
# You can follow the note and correct it. Try this:
#
# - On paper: a 3 x 4 matrix has rank 2. How many entries do $B$ and $A$ have together? Does LoRA save any parameters here?
#
#   <details><summary>Answer</summary>
#
#   $2 \cdot (3 + 4) = 14$, two more than the matrix has. LoRA saves parameters below rank $\tfrac{12}{7}$, so only at rank 1.
#
#   </details>
# - In the last cell, make the four products equally strong (write 1.0 instead of 0.6). What is the smallest error that rank 2 can reach?
#
#   <details><summary>Answer</summary>
#
#   About 62 %. With four products of exactly equal size it would be $\sqrt{2/4}$, or 71 %, since two of the four are left out. Random
#   products are not quite equal in size, and the SVD keeps the larger products.
#
#   </details>
#
# ## Further reading
#
# *More: the path goes on without this section.*
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
