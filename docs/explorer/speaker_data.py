"""The first view of the model that speaks: a text, made by the package when the site is built."""

import json

from lora_np import adapters, language

PROMPT = "And the king "


def script() -> str:
    model = language.load("austen")
    adapter = adapters.load(language.located_adapter("king-james"))
    tuned = adapters.attach(model, adapter)
    said = language.generate(tuned, PROMPT, tokens=240, temperature=0.7, rng=0)
    shapes = {name.rpartition(".")[2]: module.shape for name, module in adapter.items()}
    samples = {"prompt": PROMPT, "text": said.removeprefix(PROMPT), "shapes": shapes}
    return f"window.loraSamples = {json.dumps(samples)};\n"
