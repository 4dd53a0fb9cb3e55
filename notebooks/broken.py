"""Six adapters that do nothing, each made of a healthy one by one mistake.

`CAUSES` says what to find. The part between `Begin` and `End` makes the files and is copied into
the notebook of `notebooks.drill`: it needs the package alone.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lora_np import adapters, language
from lora_np.hub import safetensors

# Begin
Files = tuple[dict[str, Any], dict[str, Any]]  # tensors and config of an adapter


def nan(tensors: dict[str, Any], config: dict[str, Any], rng: np.random.Generator) -> Files:
    name = rng.choice([name for name in tensors if "lora_B" in name])
    tensors[name].flat[rng.integers(tensors[name].size)] = np.nan
    return tensors, config


def names(tensors: dict[str, Any], config: dict[str, Any], rng: np.random.Generator) -> Files:
    other = rng.choice(["transformer.h", "model.decoder.layers", "backbone.blocks"])

    def renamed(name: str) -> str:
        return name.replace("model.layers", other)

    targets = [renamed(name) for name in config["target_modules"]]
    return {renamed(k): M for k, M in tensors.items()}, config | {"target_modules": targets}


def scale(tensors: dict[str, Any], config: dict[str, Any], rng: np.random.Generator) -> Files:
    return tensors, config | {"lora_alpha": config["lora_alpha"] / int(rng.integers(200, 2_000))}


def tied(tensors: dict[str, Any], config: dict[str, Any], rng: np.random.Generator) -> Files:
    r, head = config["r"], "base_model.model.lm_head"
    A, B = rng.normal(size=(r, 128)) / 4, rng.normal(size=(96, r)) / 4
    new = {f"{head}.lora_A.weight": A.astype("f4"), f"{head}.lora_B.weight": B.astype("f4")}
    return new, config | {"target_modules": ["lm_head"]}


def wrong_base(tensors: dict[str, Any], config: dict[str, Any], rng: np.random.Generator) -> Files:
    share = rng.choice([2, 4])  # of a model that is wider by this
    wide = {k: np.repeat(M, share, axis=1) if "lora_A" in k else M for k, M in tensors.items()}
    return wide, config


def zero(tensors: dict[str, Any], config: dict[str, Any], rng: np.random.Generator) -> Files:
    return {k: 0 * M if "lora_B" in k else M for k, M in tensors.items()}, config


BREAK = {
    "NaN": nan, "names": names, "scale": scale, "tied head": tied, "wrong base": wrong_base,
    "zero": zero,
}  # fmt: skip


def order(seed: int) -> list[str]:
    return [str(cause) for cause in np.random.default_rng(seed).permutation(list(BREAK))]


def build(folder: str, seed: int) -> Any:
    """Write six broken adapters, and return what answers a guess."""
    rng, causes = np.random.default_rng(seed + 1), order(seed)
    healthy = language.located_adapter("king-james")
    for number, cause in enumerate(causes, start=1):
        place = Path(folder, str(number))
        adapters.resize(healthy, place, rank=int(rng.integers(1, 5)), force=True)
        file = safetensors.open(place / "adapter_model.safetensors")
        tensors = {name: np.array(file.read(name)) for name in file.tensors}
        config = json.loads((place / "adapter_config.json").read_text(encoding="utf-8"))
        tensors, config = BREAK[cause](tensors, config, rng)
        safetensors.save(tensors, place / "adapter_model.safetensors")
        (place / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")

    def answer(number: int, cause: str) -> str:
        if cause not in BREAK:
            return f"the cause must be one of {', '.join(BREAK)}; got {cause!r}"
        return "Right." if cause == causes[number - 1] else "No. Which line of a table says so?"

    return answer


# End


class Cause(NamedTuple):
    """What is wrong, how it shows, where to look, and what helps."""

    meaning: str
    symptom: str
    hint: str
    fix: str


CAUSES = {
    "NaN": Cause(
        "an entry is not a number",
        "The model writes nothing: `generate` stops, because the logits are not finite.",
        "One NaN in B makes a whole row of B A NaN. `inspect` looks at every module.",
        "train again, with a lower learning rate; no command can tell what the number was.",
    ),
    "names": Cause(
        "the modules have the names of another architecture",
        "PEFT stops, because it finds no module to adapt. vLLM serves the base as it is.",
        (
            "The file is in order. Does the base have modules of these names? `check` with the "
            "base says so."
        ),
        (
            "`lora-np repair drill/N --base austen -o NEW`, if it knows which names were meant;"
            " else train on this architecture."
        ),
    ),
    "scale": Cause(
        "alpha / r is far too small",
        "The model writes nearly as before.",
        (
            "All names agree, and B A is not zero. By what is it multiplied? `inspect` has a "
            "column for it, and `diff` the effect."
        ),
        "write the alpha that it was trained with into adapter_config.json.",
    ),
    "tied head": Cause(
        "it adapts a head that shares its weight with the embedding",
        "In PEFT it has an effect. llama.cpp stops, and TensorRT-LLM leaves it out.",
        (
            "Which module does it adapt, and what do other programs say about it? Ask `check` "
            "for all of them."
        ),
        (
            "merge it into a base with a head of its own, `lora-np merge austen drill/N -o "
            "NEW`, and serve that."
        ),
    ),
    "wrong base": Cause(
        "it was trained on a base of other sizes",
        "PEFT stops with an error about sizes.",
        (
            "The names are those of the base. Are the shapes? The columns of A are the inputs "
            "of its module."
        ),
        "use the base that it was trained on.",
    ),
    "zero": Cause(
        "B A is zero: it was never trained, or B was not saved",
        "The model writes exactly as before, to the last character.",
        "Everything agrees: names, shapes, scale. So look at the values.",
        "save it again, after training; the file holds nothing that could be used.",
    ),
}
