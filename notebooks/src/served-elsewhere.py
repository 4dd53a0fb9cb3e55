# %% [markdown]
# # Serve it elsewhere
#
# You have trained an adapter with one library. Now you want to run it in another program: on a laptop, on a server, or on a phone. The
# program loads the adapter without complaint, and answers.
#
# **Is the update that runs there the update that you trained?**
#
# After this lesson you can
#
# - say where each program takes the scale of an update from,
# - find out how a program interprets a file before you serve it,
# - write the adapter so that all programs agree.
#
# You need *Open a real adapter*, and the meaning of a loss from *Adapt a language model*.

# %%
import json
import os
import tempfile
from pathlib import Path

import numpy as np

import lora_np as lnp
from lora_np import adapters, language
from lora_np.table import Table

os.chdir(tempfile.mkdtemp())  # a folder for the files of this lesson

# %% [markdown]
# ## One update, three scales
#
# An update is $s\,BA$. The file contains $B$ and $A$, but not the scale $s$: each program computes it. On paper, take two modules: $q$ has
# rank 4, and $k$ was truncated to rank 2. Both were trained with $s = 2$, so $\alpha_q = 8$ and $\alpha_k = 4$. The config has one `r` and
# one `lora_alpha` for most modules, and exceptions for the rest:
#
# | | `r` | `lora_alpha` | `rank_pattern` | `alpha_pattern` |
# |---|---|---|---|---|
# | config | 4 | 8 | $k$: 2 | $k$: 4 |
#
# The scales depend on the program that reads the config. (vLLM serves many users at once, llama.cpp runs on laptops and phones, and mlx-lm,
# used below, runs on Apple's computers.)
#
# | program | its rule | $q$ | $k$ |
# |---|---|---|---|
# | PEFT | each module's own $\alpha_i / r_i$ | $8/4 = 2$ | $4/2 = 2$ |
# | vLLM, to 0.30 | one $\alpha / r$ for all | $8/4 = 2$ | $8/4 = 2$ |
# | llama.cpp | one $\alpha$, divided by the rank of each pair of tensors | $8/4 = 2$ | $8/2 = 4$ |
#
# In llama.cpp, $k$ is twice as strong as it should be, and the program does not say so. If $k$ had been trained with $s = 4$ instead,
# llama.cpp would be right by chance, and vLLM would be wrong. `check` knows these rules and the program versions from which they were read:

# %%
rng = np.random.default_rng(0)


def module(rank, alpha):
    A, B = rng.normal(size=(rank, 6)), rng.normal(size=(6, rank))
    return adapters.AdapterModule.of(A=A, B=B, alpha=alpha, dtype="float32")


q, k = (f"model.layers.0.self_attn.{name}_proj" for name in "qk")
paper = adapters.Adapter({q: module(4, 8.0), k: module(2, 4.0)})
rows = []
for program in ["peft", "vllm", "llama.cpp"]:
    factors = {row.module: row.scale_error for row in adapters.check(paper, runtime=program).rows}
    rows.append((program, *(2 * factors[name] for name in [q, k])))  # 2 was meant
assert [row[1:] for row in rows] == [(2, 2), (2, 2), (2, 4)]
Table(["program", "scale of q", "of k"], rows)

# %% [markdown]
# ## Follow a real one
#
# The adapter `king-james` makes our language model write like the book of Genesis. It has 28 modules of rank 8. To save space, truncate
# each module to the rank that it needs for an error of 40 %. Now the ranks differ.

# %%
model, king_james = language.load("austen"), language.located_adapter("king-james")
genesis = language.read_text("genesis")[-6_000:]
adapters.resize(king_james, "small", tolerance=0.4, force=True)
small = adapters.load("small")
print("ranks:", sorted({module.rank for module in small.values()}))
config = json.loads(Path("small", "adapter_config.json").read_text())
print(
    "r =",
    config["r"],
    " lora_alpha =",
    config["lora_alpha"],
    " exceptions:",
    len(config["rank_pattern"]),
)

# %% [markdown]
# The second adapter has the same update as `king-james` in another form: in the MLP (the three linear layers after attention), $B$ is a
# quarter as large, and $\alpha$ is four times as large. For PEFT nothing has changed.


# %%
def reworded(name, module):
    if "mlp" not in name:
        return module
    return adapters.AdapterModule.of(A=module.A, B=module.B / 4, alpha=4 * module.alpha)


whole = adapters.load(king_james)
quarter = adapters.Adapter({name: reworded(name, module) for name, module in whole.items()})
assert adapters.diff(whole, quarter).same


def as_read_by(program, adapter):
    """The adapter with the scales that a program gives it, for PEFT to read."""
    factors = {row.module: row.scale_error for row in adapters.check(adapter, runtime=program).rows}
    parts = {
        name: adapters.AdapterModule.of(A=m.A, B=m.B, alpha=m.alpha * factors[name])
        for name, m in adapter.items()
    }
    return adapters.Adapter(parts)


def loss(adapter=None):
    adapted = model if adapter is None else adapters.attach(model, adapter)
    return language.likelihood(adapted, genesis, max_length=64).loss


# %%
losses = {
    (title, program): loss(as_read_by(program, adapter))
    for title, adapter in [("ranks differ", small), ("alphas differ", quarter)]
    for program in ["peft", "vllm", "llama.cpp"]
}
rows = [
    (program, losses["ranks differ", program], losses["alphas differ", program])
    for program in ["peft", "vllm", "llama.cpp"]
]
print(f"loss on Genesis without an adapter: {loss():.3f}")
formats = dict.fromkeys(["ranks differ", "alphas differ"], "{:.3f}".format)
Table(["read as", *formats], rows, formats=formats)

# %%
assert losses["ranks differ", "vllm"] == losses["ranks differ", "peft"]
assert losses["ranks differ", "llama.cpp"] > losses["ranks differ", "peft"] + 0.02
assert losses["alphas differ", "vllm"] == losses["alphas differ", "llama.cpp"]
assert losses["alphas differ", "vllm"] > losses["alphas differ", "peft"] + 0.2

# %% [markdown]
# Different ranks break llama.cpp. Different alphas break both vLLM and llama.cpp. (Here we apply the rules without running the programs. We
# have tried llama.cpp and mlx-lm: their answers are wrong by the factors that `check` reports. The rules of vLLM come from its source
# code.)
#
# How bad is a wrong scale? Here we multiply the scale of all modules of `king-james` by factors from zero to three:

# %% alt="Loss on Genesis against the scale of the adapter, as a multiple of the one it was trained with. From 1.93 without it the loss falls to 1.18 at one, rises to 1.46 at one and a half, and passes the loss without an adapter before two." tags=["cover"]
factors = np.array([0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 3])


def stronger(factor):
    parts = {
        n: adapters.AdapterModule.of(A=m.A, B=m.B, alpha=m.alpha * factor) for n, m in whole.items()
    }
    return adapters.Adapter(parts)


scaled = np.array([loss(stronger(factor) if factor else None) for factor in factors])
axes = lnp.plots.lines(
    {"": (factors, scaled)},
    xlabel="scale, as a multiple of the right one",
    ylabel="loss on Genesis",
)
axes.axhline(loss(), color=lnp.plots.MUTED, linestyle=":")
lnp.plots.label_line(axes, 3, loss(), "no adapter", lnp.plots.MUTED, xytext=(-55, -12))
assert scaled[4] == scaled.min()
assert scaled[7] > loss()

# %% [markdown]
# At half its scale the adapter still achieves four fifths of the gain. At twice its scale it is worse than no adapter at all.
#
# ## One form that all interpret identically
#
# If every module has the same rank, and $\alpha$ equals this rank in every module, then all rules give the same scale: one. We call such an
# adapter **portable**. Every adapter can be made portable: multiply $B$ by $s$, and pad modules of lower rank with columns and rows of
# zeros. The update stays the same:

# %%
for title, adapter in [("small", small), ("quarter", quarter)]:
    adapters.convert(adapter, f"{title}-portable", to="portable", force=True)
    portable = adapters.load(f"{title}-portable")
    fine = [
        adapters.check(portable, runtime=program).fine for program in ["peft", "vllm", "llama.cpp"]
    ]
    print(
        f"{title}: fine everywhere: {all(fine)}, same update: {adapters.diff(adapter, portable).same}"
    )
    assert all(fine)
    assert adapters.diff(adapter, portable).same

# %% [markdown]
# llama.cpp needs a file in another format, **GGUF**, which stores the rows of queries and keys in a different order. mlx-lm needs a folder
# in its own format. `convert` writes both formats, and `load` reads them back:

# %%
for target, place in [("gguf", "small.gguf"), ("mlx", "small-mlx")]:
    adapters.convert(small, place, to=target, base=king_james.parent, force=True)
    same = adapters.diff(small, adapters.load(place, base=king_james.parent)).same
    print(f"{place}: there and back, the same update: {same}")
    assert same

# %% [markdown]
# In a terminal: `lora-np check FOLDER --for llama.cpp` ends with exit status 3 if it finds a problem, so that a script can stop. `lora-np
# convert FOLDER --to portable -o NEW` fixes the adapter.
#
# ## The law
#
# - A file holds $B$ and $A$. Each program computes the scale, and programs differ.
# - All programs agree if every module has the same rank $r$ and $\alpha = r$.
# - A wrong scale changes the answers without a warning. Check before you serve.
#
# ## What you can do now
#
# You can move an adapter to another program and know that its update is still the same. Try this:
#
# - On paper: `r` is 16, `lora_alpha` is 16, and the option **rsLoRA** makes PEFT compute $\alpha / \sqrt r$. By what factor is the update
#   too weak in a program that does not know rsLoRA?
#
#   <details><summary>Answer</summary>
#
#   The right scale is $16 / \sqrt{16} = 4$. The program computes $16 / 16 = 1$, so the update is four times too weak.
#
#   </details>
# - On paper: a module of rank 2 with $s = 3$ has to be rewritten with rank 4 and $\alpha = 4$. How do $B$ and $A$ change?
#
#   <details><summary>Answer</summary>
#
#   The scale is $4 / 4 = 1$, so $B$ is multiplied by 3 and gets two columns of zeros. $A$ gets two rows with any entries; `convert` uses zeros.
#
#   </details>
# - In a terminal: run `lora-np check FOLDER --for all` with your own adapter. Which programs would run it as it was trained?
#
#   <details><summary>Answer</summary>
#
#   If all modules have the same rank and the same $\alpha$, and rsLoRA is off, all programs that read PEFT's folders do. Otherwise read the
#   column *fix*.
#
#   </details>
#
# ## Further reading
#
# - Hugging Face, [PEFT checkpoint
#   format](https://huggingface.co/docs/peft/developer_guides/checkpoint): the keys and the config.
# - ggml-org, [llama.cpp](https://github.com/ggml-org/llama.cpp), `src/llama-adapter.cpp`: where it computes the scale.
# - vLLM, [LoRA adapters](https://docs.vllm.ai/en/latest/features/lora.html): how a server loads them, 2026.
# - D. Kalajdzievski, *A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA*, [arXiv
#   2312.03732](https://arxiv.org/abs/2312.03732): rsLoRA.
