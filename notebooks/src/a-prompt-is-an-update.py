# %% [markdown]
# # A prompt is an update of rank one
#
# If you put a prompt in front of a text, a language model answers differently, although no weight has changed. An adapter changes weights
# and needs no prompt.
#
# **Can you write a prompt into the weights, and how long does it last?**
#
# After this lesson you can
#
# - compute an update of rank one that has the same effect as a prompt, for one token,
# - check it to the last digit on a real model, and save it as an adapter,
# - say why it fails one token later, and what training does instead.
#
# You need *Adapt a language model* and *Open a real adapter*.

# %%
import os
import tempfile
from pathlib import Path

import numpy as np

import lora_np as lnp
from lora_np import adapters, language
from lora_np.plots import LORA, MUTED
from lora_np.table import Table

os.chdir(tempfile.mkdtemp())  # a folder for the files of this lesson

# %% [markdown]
# ## On paper: one token, one layer
#
# How can a prompt influence a later token? Only through attention. At that token, attention computes a vector, the weighted mean of the
# values that it looks at, and $W_o$ turns this vector into an output. Call the vector $z$ without the prompt. With the prompt there are
# more values to look at, and the vector is $z'$. For example, let
#
# $$
# W_o = \begin{pmatrix} 1 & 2 \\ 0 & 1 \end{pmatrix}, \qquad z = \begin{pmatrix} 1 \\ 1 \end{pmatrix}, \qquad z' = \begin{pmatrix} 2 \\ 0
# \end{pmatrix}
# $$
#
# With the prompt, the output is $W_o z' = (2, 0)$. Without the prompt, it is $W_o z = (3, 1)$. The difference is $b = (-1, -1)$. Which
# update $\Delta W$ of $W_o$ gives $b$ for the input $z$? A column times a row is enough. The column is $b$, and the row is $z^T$ divided by
# $z \cdot z = 2$, so that the row times $z$ is 1.
#
# $$
# \Delta W = \begin{pmatrix} -1 \\ -1 \end{pmatrix} \begin{pmatrix} \tfrac12 & \tfrac12 \end{pmatrix}, \qquad
# (W_o + \Delta W)\, z = \begin{pmatrix} 3 \\ 1 \end{pmatrix} + \begin{pmatrix} -1 \\ -1 \end{pmatrix} \cdot 1 = W_o z'
# $$
#
# **For one token and one layer, a prompt is an update of rank one:**<!-- proof: b times z^T / (z z) gives b for z --> $B = W_o (z' - z)$
# and $A = z^T / (z \cdot z)$.


# %%
def update_for_one(W, z, wanted):
    """B and A with (W + B A) z = W wanted."""
    return (W @ (wanted - z))[:, None], z[None] / (z @ z)


W, z, wanted = np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([1.0, 1.0]), np.array([2.0, 0.0])
B, A = update_for_one(W, z, wanted)
print("B:", B.ravel(), " A:", A.ravel(), " (W + B A) z:", (W + B @ A) @ z)
assert np.array_equal((W + B @ A) @ z, W @ wanted)

# %% [markdown]
# ## One layer of a real model
#
# Now take the language model of *Adapt a language model*, with its parameters in 64 bits so that rounding cannot hide anything. The prompt
# is a sentence from Exodus, and the token after it is the letter A. `mixed` returns the vectors that attention passes to $W_o$, the layer
# called `o_proj`. This is the first layer:

# %%
austen = language.load("austen")
model = lnp.replace(austen, np.ndarray, lambda path, W: W.astype(np.float64))
prompt = "And God said unto Moses, Go unto Pharaoh, and say, Let my people go. "


def encode(text):
    return np.array([model.vocabulary.encode(text)])


def inputs_of_layers(text):
    """What each layer is given, for all tokens of a text."""
    x = [model.model.embedding(encode(text))]
    for layer in model.model.layers:
        x.append(layer(x[-1]))
    return x


first = model.model.layers[0]
z = first.mixed(inputs_of_layers("A")[0])[0, -1]
wanted = first.mixed(inputs_of_layers(prompt + "A")[0])[0, -1]
W = first.attention.output.W
B, A = update_for_one(W, z, wanted)
print(f"missing without the update: {np.abs(W @ wanted - W @ z).max():.1e}")
off = np.abs(W @ wanted - (W + B @ A) @ z).max()
print("with it, below 1e-14:", off < 1e-14)
assert off < 1e-14 < 0.1 < np.abs(W @ wanted - W @ z).max()

# %% [markdown]
# ## All layers
#
# If the output of the first layer is right, the second layer gets the right input, and so on. So one update of rank one in each of the four
# layers is enough for the whole model: with the updates, the letter A alone gives the same probabilities for the next character as the
# prompt followed by A.


# %%
def adapter_for(token):
    """The prompt as an update of rank one in each layer, for this token."""
    modules = {}
    for i, (layer, x) in enumerate(
        zip(model.model.layers, inputs_of_layers(prompt + token), strict=False)
    ):
        wanted, z = layer.mixed(x)[0, -1], layer.mixed(x[:, -1:])[0, -1]  # with the prompt, without
        B, A = update_for_one(layer.attention.output.W, z, wanted)
        name = f"model.layers.{i}.self_attn.o_proj"
        modules[name] = adapters.AdapterModule.of(A=A, B=B, alpha=1)
    return adapters.Adapter(modules)


def log_probabilities(model, text):
    logits = np.asarray(lnp.freeze(model)(encode(text)))[0]
    return np.log(lnp.nn.softmax(logits))


prompted = log_probabilities(model, prompt + "A")[-1]
alone = log_probabilities(model, "A")[-1]
adapted = log_probabilities(adapters.attach(model, adapter_for("A")), "A")[-1]
print(
    f"largest difference of a log probability, without the adapter: {np.abs(prompted - alone).max():.1f}"
)
print("with it, below 1e-13:", np.abs(prompted - adapted).max() < 1e-13)
assert np.abs(prompted - adapted).max() < 1e-13

# %% [markdown]
# An adapter consists of $A$ and $B$, however they were made. So you can save this adapter like any other, and PEFT opens it:

# %%
adapters.save(adapter_for("A"), "prompt", force=True)
for file in sorted(Path("prompt").iterdir()):
    print(f"{file.name:27}{file.stat().st_size:6,} bytes")
parameters = sum(module.A.size + module.B.size for module in adapters.load("prompt").values())
print(f"{parameters:,} parameters: 4 layers of 128 + 128")
assert parameters == 4 * (128 + 128) == 1_024

# %% [markdown]
# ## One token later
#
# Nobody asks a model for a single token. Let the text continue, and compare the adapted model with the prompted model at each token. One
# way to compare two lists of probabilities is the Kullback-Leibler **divergence**, $\sum_i p_i (\ln p_i - \ln q_i)$: the average cost, in
# nats of loss, of predicting with $q$ when $p$ is true. It is 0 if $p$ and $q$ are equal.
#
# For each of 21 capital letters as the first token, we write the prompt into the weights. The prompted model then writes eight more
# characters. At each character we measure the divergence from the prompted model, without and with the update:


# %%
def divergence(log_p, log_q):
    return np.sum(np.exp(log_p) * (log_p - log_q), axis=-1)


rng = np.random.default_rng(0)
found = {"no adapter": [], "the prompt as rank one": []}
texts = {}
for token in "ABCDEFGHIJKLMNOPRSTVW":
    text = token
    for _ in range(8):
        p = np.exp(log_probabilities(model, prompt + text)[-1])
        text += model.vocabulary.decode([int(rng.choice(len(p), p=p / p.sum()))])
    texts[token] = text
    true = log_probabilities(model, prompt + text)[-len(text) :]
    models = model, adapters.attach(model, adapter_for(token))
    for name, one in zip(found, models, strict=True):
        found[name].append(divergence(true, log_probabilities(one, text)))

# %% alt="Divergence from the prompted model against the token, from 1 to 9. Without an adapter it falls from 1.3 nats to 0.2. With the prompt as an update of rank one it is zero at the first token, jumps to 2.9 at the second, and stays above the other curve." tags=["cover"]
means = {name: np.mean(several, axis=0) for name, several in found.items()}
tokens = np.arange(1, 10)
axes = lnp.plots.axes()
for (name, curve), color in zip(means.items(), [MUTED, LORA], strict=True):
    axes.plot(tokens, curve, "o-", color=color, label=name)
axes.legend(frameon=False)
labels = axes.set(xlabel="token", ylabel="divergence, nats per token")
base, written = means.values()
print(f"first token:  {base[0]:.2f} without, {abs(written[0]):.2f} with the update")
print(f"second token: {base[1]:.2f} without, {written[1]:.2f} with the update")
assert written[0] < 1e-12
assert written[1] > 2 * base[1]
assert np.all(written[1:] > base[1:])

# %% [markdown]
# The update is exact at the first token. **One token later it is worse than no adapter at all**<!-- shown: the divergences at the second
# token -->, by more than a factor of two.
#
# ## Why it fails
#
# For any input $z_2$, the update adds $B\,(A z_2)$, always the same vector $B$ times a number. At the second token, the prompt would add a
# different vector, $W_o(z_2' - z_2)$. The table shows $A z_2$, the share of $B$ that is added (for the first token it is 1). It also shows
# the error: how far the added vector is from the prompt's vector, relative to the length of the prompt's vector. Without any update, this
# error would be 1:

# %%
rows = []
for i, layer in enumerate(model.model.layers):
    amounts, errors = [], []
    for token, text in texts.items():
        x = inputs_of_layers(prompt + text[:2])[i]
        with_prompt, without = layer.mixed(x)[0, -1], layer.mixed(x[:, -2:])[0, -1]
        missing = layer.attention.output.W @ (with_prompt - without)
        module = adapter_for(token)[f"model.layers.{i}.self_attn.o_proj"]
        amounts.append((module.A @ without).item())
        added = module.B[:, 0] * amounts[-1]
        errors.append(np.linalg.norm(added - missing) / np.linalg.norm(missing))
    rows.append((i + 1, np.mean(amounts), np.mean(errors)))
formats = dict.fromkeys(["share of B added", "error at the second token"], "{:.2f}".format)
Table(["layer", *formats], rows, formats=formats)

# %%
assert all(row[1] > 0.7 for row in rows)
assert [row[2] > 1 for row in rows] == [True, False, True, False]

# %% [markdown]
# The update responds to the second token almost as to the first, but can add only the vector that was right at the first token. In two of
# the layers, this is worse than adding nothing. Moreover, we gave each layer the right input here. In the adapted model, each layer passes
# its error on to the next.
#
# Could more directions help? For $n$ tokens there are $n$ conditions, $\Delta W z_t = W_o (z_t' - z_t)$. If the vectors $z_t$ are
# independent, an update of rank $n$ satisfies all conditions, but it has only memorised the effect of this prompt on this text. For new
# texts there are more conditions than directions. Then you can only find the update that comes closest to satisfying all of them, by a
# **regression**.
#
# ## What training does
#
# `bake` computes this regression. The prompted model, the **teacher**, writes answers after many short beginnings. A regression over all
# tokens of the answers gives $A$ and $B$ of rank 8 for `o_proj` in each layer. Training then continues from there, on all linear layers:
# the loss is the divergence from the teacher at every token. We hold four beginnings out:

# %%
beginnings = [
    "And the", "He said", "The sons of", "In the", "They", "And it came", "Then", "The king", "She was", "I am",
    "When the", "Behold,", "A man", "For the", "Now", "It was", "Mr.", "What", "The", "But",
]  # fmt: skip
questions = [f"{beginning} " for beginning in beginnings]
settings = {"questions": questions, "plain": True, "answer_length": 48, "progress": False}
baked = {
    name: language.bake(austen, prompt, steps=steps, **settings)
    for name, steps in {"regression": 0, "and 16 steps": 16}.items()
}
rows = [("no adapter", *baked["regression"].table.rows[0][2:4])]
rows += [(name, *result.table.rows[1][2:4]) for name, result in baked.items()]
columns = ["model", "divergence, nats per token", "in the first 8 tokens"]
formats = dict.fromkeys(columns[1:], "{:.3f}".format)
Table(columns, rows, formats=formats)

# %%
alone, regression, trained = (row[1] for row in rows)
assert trained < regression < alone
assert trained < 0.5 * alone
print(f"tokens that each call saves: {baked['regression'].saved}")

# %% [markdown]
# The table was measured on answers that the adapter was not trained on. **A few steps of training remove more than half of the
# divergence**<!-- shown: the table of divergences -->. The regression alone removes a third in the first eight tokens, and less after that.
# Its update is exact for no token, but closer on average, because it adds the average effect of the prompt. Effects that depend on the text
# require attention to the prompt's own tokens, so only the prompt can have them.
#
# ## The law
#
# - For one token, a prompt is an update of rank one in each layer: $B = W_o (z' - z)$, $A = z^T / (z \cdot z)$.
# - For every other input, the update adds a multiple of the same $B$, which is wrong there.
# - Over many tokens, an update can only come close to the prompt. Start with a regression, and then train on the divergence from the
#   prompted model.
#
# ## What you can do now
#
# You can turn a prompt into an adapter and say what is lost. Try this:
#
# - On paper: what does the update of the example add for $z_2 = (1, -1)$, and for $z_2 = (3, 1)$?
#
#   <details><summary>Answer</summary>
#
#   In the first case $A z_2 = 0$, so it adds nothing. In the second $A z_2 = 2$, so it adds $2B = (-2, -2)$.
#
#   </details>
# - On paper: a prompt is written as an update of rank one into a model with 32 layers of width 4,096. How many parameters does the update
#   have? How many tokens' keys and values is that, at $2 \cdot 32 \cdot 4{,}096$ entries per token?
#
#   <details><summary>Answer</summary>
#
#   The update has $32 \cdot (4{,}096 + 4{,}096) = 262{,}144$ parameters, as many as the keys and values of one token.
#
#   </details>
#
# ## Further reading
#
# - B. Dherin, M. Munn, H. Mazzawi, M. Wunder, J. Gonzalvo, *Learning without training: The implicit dynamics of in-context learning*,
#   [arXiv 2507.16003](https://arxiv.org/abs/2507.16003): a context as an update of rank one, written into the MLP.
# - C. Snell, D. Klein, R. Zhong, *Learning by Distilling Context*, [arXiv 2209.15189](https://arxiv.org/abs/2209.15189): training on the
#   divergence from the prompted model.
# - A. Vaswani et al., *Attention Is All You Need*, [arXiv 1706.03762](https://arxiv.org/abs/1706.03762).
