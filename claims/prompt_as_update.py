"""A prompt as an update of rank one."""

from __future__ import annotations

import functools

import numpy as np

import lora_np as lnp
from claims.protocol import Claim
from claims.rules import Part, Rule
from lora_np import adapters, language

PROMPTS, QUICK = 32, 8
LENGTH, AFTER = 64, 8  # characters of a prompt, and of what is compared after the first


@functools.cache
def austen():
    """The shipped model in 64 bits, so that nothing hides in rounding."""
    model = language.load("austen")
    return lnp.replace(model, np.ndarray, lambda path, W: W.astype(np.float64))


def written(tokens, known):
    """The adapter that makes of the last token what the tokens before it do: ``B = W (z' - z)``,
    ``A = z^T / (z z)`` for each layer's output projection.
    """
    model, modules = austen(), {}
    x = model.model.embedding(tokens[None, : known + 1])
    for i, layer in enumerate(model.model.layers):
        wanted, z = layer.mixed(x)[0, -1], layer.mixed(x[:, -1:])[0, -1]
        B = (layer.attention.output.W @ (wanted - z))[:, None]
        path = f"model.layers.{i}.self_attn.o_proj"
        modules[path] = adapters.AdapterModule.of(A=z[None] / (z @ z), B=B, alpha=1)
        x = layer(x)
    return adapters.attach(model, adapters.Adapter(modules))


def log_probabilities(model, tokens):
    logits = np.asarray(lnp.freeze(model)(tokens[None]))[0]
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def measure(lab):
    model = austen()
    text = model.vocabulary.encode(language.read_text("genesis"))
    rng = np.random.default_rng(41)
    exact, second, later = [], [], []
    for start in rng.choice(len(text) - 200, PROMPTS, replace=False)[
        : QUICK if lab.quick else PROMPTS
    ]:
        tokens = np.asarray(text[start : start + LENGTH + 1 + AFTER])
        wanted = log_probabilities(model, tokens)[LENGTH:]
        alone = log_probabilities(model, tokens[LENGTH:])
        adapted = log_probabilities(written(tokens, LENGTH), tokens[LENGTH:])
        from_ = lambda found, wanted=wanted: np.sum(np.exp(wanted) * (wanted - found), axis=-1)
        exact.append(np.abs(adapted[0] - wanted[0]).max())
        second.append(from_(adapted)[1] / from_(alone)[1])
        later.append(from_(adapted)[1:].mean() / from_(alone)[1:].mean())
    return {"exact": exact, "second": second, "later": later}


CLAIM = Claim(
    title="A prompt acts on the tokens after it as an update of rank one to the weights.",
    paper="Dherin et al., Learning without training, arXiv 2507.16003",
    finding="The update is exact for the token that it was made for; one token later its divergence is {second} times that without prompt or update.",
    topic="what an update is like",
    refuted_by="An update of rank one that is not exact for the token that it was made for, or that serves the tokens after it no better than no prompt does.",
    setup="files",
    varied="the prompt",
    setting=(
        "Prompts of 64 characters of Genesis. In each layer the output projection of attention gets B = W (z' - z) and A = z / (z z), where z' is what it "
        "is given with the prompt and z without: exact by two lines of algebra for the token that it was made for. The eight characters after it are compared by "
        "their divergence from the prompted model."
    ),
    figures={
        "exact": "largest difference of a log probability from the prompted model, at the token that the update was made for",
        "second": "divergence from the prompted model one token later, with the update over without prompt or update",
        "later": "divergence from the prompted model, mean of the eight tokens after, with the update over without prompt or update",
    },
    measure=measure,
    ratios=("second", "later"),
    counted=("exact",),
    rule=Rule((Part("exact", below=1e-9), Part("second", below=1, worth=0.9), Part("later", below=1, worth=0.9))),
    headline="second",
    words="divergence one token later, with the update ÷ without",
    limits="The paper updates the MLP after attention, we update the output projection of attention, for which two lines are enough. One small model of characters, trained on another author. The update serves one token; an update that is fitted to many tokens serves them better (lesson *A prompt is an update of rank one*).",
    advice="Do not write a prompt into the weights from one token: fit an update to many tokens with `lora_np.language.bake`.",
)  # fmt: skip
