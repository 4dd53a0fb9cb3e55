"""A prompt as an update of rank one, on twelve random models and on trained ones.

    python -m claims.prompt_as_update --model SmolLM2-135M.gguf     adds the lines of that model

Lines of ``runs/prompts.jsonl`` have a value for each prompt; a model counts by its mean.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import lora_np as lnp
from claims.lab.protocol import Claim, Lab, Values
from claims.lab.redrawn import FOLDER, Book
from claims.lab.rules import Part, Rule
from claims.lab.text import BASES, loaded
from lora_np import adapters, language
from lora_np.checks import Array
from recipes import base as recipe

PROMPTS, FEW = 32, 8  # of the models that learnt Austen, and of others
LENGTH, AFTER = 64, 8  # tokens of a prompt, and of what is compared after the first
STEPS = 600  # in which a tiny model learns most of Genesis
KINDS = {
    "random": [f"random {seed}" for seed in range(12)],
    "tiny": [f"tiny {seed}" for seed in range(4)],
    "trained": [f"base {seed}" for seed in range(len(BASES))],
}
SECONDS = {"random": 0.2, "tiny": 5.0, "trained": 1.0}  # of a core for each model, about
LARGE = "SmolLM2-135M"
BOOK, FIGURES = Book(FOLDER / "prompts.jsonl"), ("exact", "second", "later")


def drawn(seed: int) -> Any:
    """A Llama with random weights, of a shape that the seed draws."""
    rng = np.random.default_rng([seed, 26])
    width, layers, heads = (int(rng.choice(some)) for some in ((32, 64, 128), (1, 2, 3, 4), (2, 4)))
    return recipe.initial(
        rng,
        deviation=float(rng.choice([0.02, width**-0.5])),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        head_dim=width // heads,
    )


def tiny(seed: int, steps: int) -> Any:
    """A model of two layers, 64 wide, that has learnt the first four fifths of Genesis."""
    rng = np.random.default_rng([seed, 27])
    shape = {"hidden_size": 64, "intermediate_size": 192, "head_dim": 16, "num_hidden_layers": 2}
    start = recipe.initial(rng, **shape)
    rows = language.windows(genesis(start)[: TRAINED * len(genesis(start)) // 5], LENGTH)
    fitted = lnp.fit(
        start,
        lambda step: rows[rng.integers(len(rows), size=8)],
        loss=language.token_loss,
        steps=steps,
        clip=1.0,
        progress=False,
        optimizer=lnp.Adam(lr=lnp.cosine_schedule(4e-3, steps=steps)),
    )
    return fitted.model


TRAINED = 4  # fifths of Genesis that a tiny model learns


def genesis(model: Any) -> Any:
    return model.vocabulary.encode(language.read_text("genesis"))


def model_of(name: str, steps: int = STEPS) -> Any:
    """A model in 64 bits, so that nothing hides in rounding."""
    kind, _, seed = name.partition(" ")
    makers = {
        "random": lambda: drawn(int(seed)),
        "tiny": lambda: tiny(int(seed), steps),
        "base": lambda: loaded(BASES[int(seed)]),
    }
    return wide(makers[kind]())


def wide(model: Any) -> Any:
    return lnp.replace(lnp.freeze(model), np.ndarray, lambda path, W: W.astype(np.float64))


def written(model: Any, tokens: Array, known: int) -> Any:
    """The adapter that makes of the last token what the tokens before it do: ``B = W (z' - z)``,
    ``A = z^T / (z z)`` for each layer's output projection.
    """
    modules = {}
    x = model.model.embedding(tokens[None, : known + 1])
    for i, layer in enumerate(model.model.layers):
        wanted, z = layer.mixed(x)[0, -1], layer.mixed(x[:, -1:])[0, -1]
        B = (layer.attention.output.W @ (wanted - z))[:, None]
        path = f"model.layers.{i}.self_attn.o_proj"
        modules[path] = adapters.AdapterModule.of(A=z[None] / (z @ z), B=B, alpha=1)
        x = layer(x)
    return adapters.attach(model, adapters.Adapter(modules))


def log_probabilities(model: Any, tokens: Array) -> Array:
    logits = np.asarray(lnp.freeze(model)(tokens[None]))[0]
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def compared(model: Any, prompts: int, *, first: int = 0, draw: int = 41) -> dict[str, Array]:
    """The figures of a model, one for each of some prompts from a text that is Genesis from a token
    on.
    """
    text = genesis(model)[first:]
    rng = np.random.default_rng(draw)
    found: dict[str, list[float]] = {name: [] for name in FIGURES}
    for start in rng.choice(len(text) - 200, PROMPTS, replace=False)[:prompts]:
        tokens = np.asarray(text[start : start + LENGTH + 1 + AFTER])
        wanted = log_probabilities(model, tokens)[LENGTH:]
        alone = log_probabilities(model, tokens[LENGTH:])
        adapted = log_probabilities(written(model, tokens, LENGTH), tokens[LENGTH:])
        from_ = lambda found, wanted=wanted: np.sum(np.exp(wanted) * (wanted - found), axis=-1)
        found["exact"].append(max(np.abs(adapted[0] - wanted[0]).max(), 1e-300))
        found["second"].append(from_(adapted)[1] / from_(alone)[1])
        found["later"].append(from_(adapted)[1:].mean() / from_(alone)[1:].mean())
    return {name: np.array(values) for name, values in found.items()}


def lines(book: Book, name: str, draw: int = 41, **quick: int) -> dict[str, Array]:
    """What a model comes to, recorded or run: the logs of each figure by prompt."""
    run = {"model": name}
    if book.missing(run):
        model = model_of(name, **quick)
        first = TRAINED * len(genesis(model)) // 5 if name.startswith("tiny") else 0
        few = bool(quick) or not name.startswith("base")
        book.note(run, compared(model, FEW if few else PROMPTS, first=first, draw=draw))
    return {figure: book.logs(run, figure) for figure in FIGURES}


def measure(lab: Lab) -> Values:
    book, draw = lab.book("prompts"), 41
    kinds = dict(KINDS)
    if lab.folder is not None:  # other models and other prompts; the trained ones are what they are
        draw += lab.seeds[0]
        kinds |= {kind: [f"{kind} {seed}" for seed in lab.seeds] for kind in ("random", "tiny")}
    quick = {"steps": STEPS // 10} if lab.quick else {}
    found = {}
    for kind, names in kinds.items():
        models = [lines(book, name, draw, **quick) for name in (names[:2] if lab.quick else names)]
        lab.costs[f"prompts: {kind}"] = 0.0 if lab.quick else SECONDS[kind] * len(names)
        for figure in FIGURES:
            of = np.max if figure == "exact" else np.mean
            found[f"{figure}_{kind}"] = np.exp([of(one[figure]) for one in models])
    # the large model is a file that is not at hand: what is recorded of it
    large = {figure: BOOK.logs({"model": LARGE}, figure) for figure in FIGURES[1:]}
    return found | {f"{figure}_large": np.exp(values) for figure, values in large.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m claims.prompt_as_update", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", required=True, help="SmolLM2-135M, as language.load takes it")
    model = wide(loaded(parser.parse_args().model))
    if BOOK.missing({"model": LARGE}):
        BOOK.note({"model": LARGE}, compared(model, FEW))


OF = {
    "random": "12 models with random weights",
    "tiny": "4 models of two layers trained on Genesis",
    "trained": "4 models trained on Austen",
}
CLAIM = Claim(
    title="A prompt acts on the tokens after it as an update of rank one to the weights.",
    paper="Dherin et al., Learning without training, arXiv 2507.16003",
    finding="One token later, the divergence from the prompted model was {second_random} times that without an update in random models, and {second_trained} times in models trained on Austen.",
    topic="what an update is like",
    refuted_by="An update of rank one that serves the tokens after the one that it was made for no better than no prompt does.",
    setup="files: twenty models of characters, with random weights, trained on Genesis or trained on Austen",
    varied="the model and the prompt",
    setting=(
        "Each prompt is 64 tokens of Genesis. In each layer, the output projection of attention gets `B = W (z' - z)` and `A = z / (z z)`. The input of this projection is z' with the prompt and z without it. Two lines of algebra show that the update is exact for the token that it was made for. For the eight tokens after it, we measure the divergence from the prompted model. All models in the rule are character models. "
        "Twelve have random weights, 1 to 4 layers and widths of 32 to 128. Four were trained on Genesis for 600 steps, and get prompts from the last fifth of Genesis. Four were trained on Austen for 11,000 steps. Each figure of a model is the mean over 8 prompts (32 for the models trained on Austen)."
    ),
    figures={f"exact_{kind}": f"largest difference of a log probability from the prompted model's, at the update's token, {of}" for kind, of in OF.items()}
    | {f"second_{kind}": f"divergence from the prompted model one token later, with the update over without it, {of}" for kind, of in OF.items()}
    | {f"later_{kind}": f"divergence from the prompted model, mean of the next eight tokens, with the update over without it, {of}" for kind, of in OF.items()}
    | {
        "second_large": "divergence from the prompted model one token later, with the update over without it, 8 prompts of SmolLM2-135M",
        "later_large": "divergence from the prompted model, mean of the next eight tokens, with the update over without it, 8 prompts of SmolLM2-135M",
    },
    measure=measure,
    ratios=[f"{figure}_{kind}" for figure in FIGURES[1:] for kind in (*OF, "large")],
    counted=[f"exact_{kind}" for kind in OF],
    rule=Rule(tuple(Part(f"{figure}_{kind}", below=1, worth=0.9) for figure in FIGURES[1:] for kind in OF)),
    headline="second_random",
    words="divergence one token later, with the update ÷ without, random models",
    limits=(
        "The paper updates the MLP after attention. We update the output projection of attention, for which two lines of algebra are enough. The models in the rule are small character models. There is only one large model, and no rule uses its figures. The update is made for one token. An update that is fitted to many tokens serves them better (lesson *A prompt is an update of rank one*)."
    ),
    advice="Do not write a prompt into the weights with an update that was made from one token. Fit an update to many tokens with `lora_np.language.bake`.",
)  # fmt: skip


if __name__ == "__main__":
    main()
