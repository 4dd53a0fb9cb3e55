# %% [markdown]
# # Measure how much fits
#
# A LoRA of rank 8 on the head of our language model, its last linear layer, has 1,792 parameters. The LoRA has to memorise the telephone
# numbers of a town.
#
# **How many facts can a LoRA hold, and what happens if you ask for more?**
#
# After this lesson you can
#
# - count facts in bits, and convert a loss to bits,
# - measure how many bits a LoRA holds,
# - predict which rank a list of facts needs, and when no rank is enough.
#
# You need *Adapt a language model* and *Count parameters*.

# %%
from math import comb

import numpy as np

import lora_np as lnp
from lora_np import language
from lora_np.plots import CYCLE
from lora_np.table import Table

# %% [markdown]
# ## Bits on paper
#
# Facts that follow from no rule have to be stored. The result of a coin toss is one **bit**. A choice among $C$ equally likely things is
# $\log_2 C$ bits: 3.32 for a decimal digit, and 6.58 for one of our 96 characters.
#
# If a model gives the right character the probability $p$, it still lacks $-\log_2 p$ bits. So it holds $6.58 + \log_2 p$ bits of this
# character: all of them if $p = 1$, none if $p = \tfrac1{96}$, and $6.58 - 1.58 = 5$ if it has narrowed the choice down to three. The loss
# in nats is $-\ln p$; divide it by $\ln 2$ to get bits.

# %%
for p in [1, 1 / 3, 1 / 96]:
    print(f"p = {p:.3f}: loss {-np.log(p) + 0:.2f} nats, {np.log2(96) + np.log2(p):.2f} bits held")

# %% [markdown]
# ## How many labels does a weight hold?
#
# In the smallest case, there are two parameters, $w$ and $b$. The inputs $x_i$ lie on a line, and the label is "yes" where $w\,x_i + b$ is
# positive. Two points can be labelled in all four ways. Three points cannot be labelled in all eight: it is impossible to say "yes" on the
# left and on the right but "no" in the middle.
#
# In general, take $N$ weights and $n$ points, any $N$ of which are independent. Then $2 \sum_{i<N} \binom{n-1}{i}$ of the $2^n$ labellings
# are possible (Cover, 1965). **With two labels per weight, half of all labellings are possible**<!-- source: Cover, 1965 -->. If there are
# many weights, nearly all labellings are possible below two labels per weight, and hardly any above:

# %% alt="Share of all labellings that can be had, against labels for each weight, for 5, 20 and 100 weights. All start at 1, pass one half at exactly two labels for each weight, and fall to 0; the more weights, the steeper."
curves = {}
for weights in [5, 20, 100]:
    points = np.arange(weights // 2, 4 * weights + 1, max(1, weights // 10))
    had = [2 * sum(comb(n - 1, i) for i in range(weights)) / 2**n for n in points.tolist()]
    curves[f"{weights} weights"] = points / weights, np.minimum(had, 1)
axes = lnp.plots.lines(curves, xlabel="labels for each weight", ylabel="share of labellings")
assert 2 * sum(comb(2 * 100 - 1, i) for i in range(100)) / 2**200 == 0.5

# %% [markdown]
# So a linear layer with one output, yes or no, can hold at most about two bits per weight. For a trained LoRA there is no such formula, so
# we measure it.
#
# ## Memorise
#
# Over $n$ characters, a LoRA holds $n\,(\log_2 96 - \text{loss} / \ln 2)$ bits. To measure this, take real positions in Genesis, give each
# position a **random** next character, and train a LoRA on the head until it knows as many characters as it can. The head is 96 x 128, so a
# LoRA of rank $r$ has $224\,r$ parameters:

# %% alt="Bits held per parameter against bits required, at ranks 2, 4 and 8. At half a bit all that is required is held, at 1 bit a little less. Then the lines turn away from the dashed diagonal and peak at 1.4 to 1.6 bits held where 2 are required." tags=["cover"]
model = language.load("austen")
genesis = model.vocabulary.encode(language.read_text("genesis"))
inputs = lnp.freeze(model).model(
    language.windows(genesis, max_length=256)[:60, :-1]
)  # what the head is given
inputs = inputs[:, 32:].reshape(-1, 128)  # after 32 characters or more: no two alike


def bits_held(rank, bits_required, seed):
    """Bits of random labels that a LoRA on the head knows after training."""
    rng = np.random.default_rng(seed)
    n = round(bits_required / np.log2(96))
    x, labels = rng.permutation(inputs)[:n], rng.integers(96, size=n)
    adapted = lnp.inject(lnp.Linear(model.lm_head.W), rank=rank, alpha=rank, rng=rng)
    optimizer = lnp.Adam(lr=lnp.cosine_schedule(0.1, steps=425))
    adapted = lnp.fit(
        adapted, x, labels, loss=lnp.cross_entropy, optimizer=optimizer, steps=425, progress=False
    ).model
    loss = lnp.cross_entropy(lnp.freeze(adapted)(x), labels)
    return n * (np.log2(96) - loss / np.log(2))


required = np.array([0.5, 1, 1.5, 2, 3])  # bits per parameter of the LoRA
ranks = [2, 4, 8]
held = {r: np.zeros((2, len(required))) for r in ranks}  # from two seeds
axes = lnp.plots.axes()
names = {"xlabel": "bits required per parameter", "ylabel": "bits held per parameter"}
axes.set(**names)
with lnp.course.live_figure(axes.figure) as put:
    for r, color in zip(ranks, CYCLE, strict=False):
        line = axes.plot([], [], color=color)[0]
        for i, share in enumerate(required):
            for seed in range(2):
                held[r][seed, i] = bits_held(r, 224 * r * share, seed) / (224 * r)
            put(line, share, held[r][:, i].mean())
    axes.clear()  # to draw them once more, each with its name
    curves = {f"r = {r}": (required, held[r].mean(axis=0)) for r in ranks}
    curves["all that is required"] = required[:4], required[:4]
    lnp.plots.lines(curves, dashed="all that is required", ax=axes, **names)
    for r, color in zip(ranks, CYCLE, strict=False):
        low, high = held[r].min(axis=0), held[r].max(axis=0)
        axes.fill_between(required, low, high, color=color, alpha=0.2, linewidth=0)

# %%
most = {r: held[r].mean(axis=0).max() for r in ranks}
for r in ranks:
    print(f"rank {r}: {224 * r:,} parameters of 32 bits hold {most[r]:.1f} bits each")
    assert 1.2 < most[r] < 2.0
assert all(abs(held[r][:, 0].mean() / 0.5 - 1) < 0.05 for r in ranks)

# %% [markdown]
# If half a bit per parameter is required, the LoRA learns nearly everything; at one bit, it learns a little less. Beyond that, the curve
# levels off, at **about one and a half bits per parameter**<!-- claim: capacity-bits -->, at each of these ranks. (A parameter takes 32
# bits in memory. If you ask for too much, the LoRA ends up with less. Moreover, this is what 425 steps reach, not the most that is
# possible.) So here **the rank is the limit**<!-- claim: capacity-bits -->: twice the rank holds about twice the bits.
#
# These figures belong to this experiment, and another experiment gives other figures. With random inputs instead of positions in Genesis, a
# sweep of learning rates found these lower bounds (with more steps, a LoRA holds more):

# %%
claim = lnp.course.claims()["capacity-bits"]
rows = [
    (claim["meaning"][key], figure["low"], figure["high"])
    for key, figure in claim["figures"].items()
]
print(claim["title"], "Verdict:", claim["verdict"])
Table(["figure", "from", "to"], rows, formats=dict.fromkeys(["from", "to"], "{:.2f}".format))

# %% [markdown]
# So plan with half a bit per parameter at rank 1 and with one bit from rank 4 on, and treat a second bit as a bonus.
#
# ## Which rank for a telephone book?
#
# If the model has to know every digit of 1,000 telephone numbers of six digits, it must store $6{,}000 \cdot 3.32 = 19{,}932$ bits. On the
# head, each unit of rank adds 224 parameters. So at one bit per parameter you need rank 89, and the full rank of the head is 96.
#
# On all 28 linear layers before the head, even rank 1 has 9,344 parameters. Each of these parameters stores fewer bits, because the facts
# must pass through the rest of the model: for random tokens, read as text, we measured 0.07 to 0.61 bits per parameter on single linear
# layers. `accounting.capacity` contains these measurements and returns a range. (Its *degrees of freedom* are the parameters minus $r^2$
# for each matrix, because $r^2$ parameters only choose among pairs with the same $BA$.)

# %%
bits = 1_000 * 6 * np.log2(10)
head = int(np.ceil(bits / sum(model.lm_head.W.shape)))
print(
    f"{bits:,.0f} bits; on the head at one bit per parameter: rank {head} of {min(model.lm_head.W.shape)}"
)
found = lnp.accounting.capacity(model, rank=8, bits=bits)
found

# %%
assert head == 89
assert found.low < bits < found.high
assert np.round(
    [found.low / found.count.trainable, found.high / found.count.trainable], 2
).tolist() == [
    0.07,
    0.61,
]
assert found.enough is None  # above a quarter of full rank, where nothing was measured

# %% [markdown]
# Rank 8 on all linear layers may or may not hold the telephone book. The last column is empty, because any rank that is certain to hold it
# would exceed a quarter of full rank, where we have measured nothing. Facts that follow no rule need parameters in proportion to their
# number. A style does not, as the next lesson shows.
#
# ## The law
#
# - A fact that follows no rule takes $\log_2 C$ bits, if it is one of $C$ equally likely possibilities.
# - On the head, a LoRA of rank 2 to 8 held about one and a half bits per parameter. Twice the rank held about twice the bits.
# - On random inputs, a LoRA of rank 1 held about half a bit per parameter when one bit was required, and 0.7 to 1.1 when more was required.
# - If you ask for more than fits, the LoRA holds less than it could.
#
# ## What you can do now
#
# You can say which rank a list of facts needs. Try this:
#
# - On paper: take 1,000 telephone numbers of ten digits. How many bits do they need, and which rank on the head (224 parameters per unit of
#   rank) would hold them at 1.5 bits per parameter?
#
#   <details><summary>Answer</summary>
#
#   $10{,}000 \cdot \log_2 10 = 33{,}219$ bits, so 22,146 parameters: rank 99. The full rank of the head is 96, so it would not hold them.
#
#   </details>
# - On paper: if the loss on random labels is $\ln 96$, how many bits does the LoRA hold? What if the loss is higher?
#
#   <details><summary>Answer</summary>
#
#   None. If the loss is higher, the number is negative: the model is more certain than it should be, and wrong.
#
#   </details>
#
# ## Further reading
#
# - Z. Allen-Zhu, Y. Li, *Physics of Language Models: Part 3.3, Knowledge Capacity Scaling Laws*, [arXiv
#   2404.05405](https://arxiv.org/abs/2404.05405): two bits per parameter, in whole models.
# - J. Morris et al., *How much do language models memorize?*, [arXiv 2505.24832](https://arxiv.org/abs/2505.24832): 3.6 bits.
# - T. Cover, "Geometrical and statistical properties of systems of linear inequalities", *IEEE Transactions on Electronic Computers* 14,
#   326-334, 1965: two labels for each weight.
