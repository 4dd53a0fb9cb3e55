"""What the page Fit knows, from the package: python docs/explorer/fit_data.py > fit-data.js

The families are the package's data files, the presets its configs, the GPUs those of `plan`:
nothing is typed twice.
"""

import json
import tomllib
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from lora_np import accounting, models
from lora_np.accounting import activations, planning
from lora_np.accounting.bits import MEASURED, SHARE
from lora_np.accounting.memory import PARTS
from lora_np.checks import WORD
from lora_np.models import ATTENTION, default_targets, fused_names
from lora_np.models.sources import hub_name, typed_names
from lora_np.plots import CYCLE, MUTED
from lora_np.settings import choices_of


def data() -> dict[str, Any]:
    """The families by the names of their files, the presets and GPUs by name."""
    folder = files("lora_np.models") / "data"
    found = sorted(
        file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")
    )
    names = models.preset_names()
    return {
        "families": {name: family(folder / f"{name}.toml") for name in found},
        "presets": {name: models.preset_config(name) for name in names},
        "hub": {name: hub_name(name) for name in names},
        "sizes": {name: models.preset(name).total for name in names},
        "names": names_as_typed(),
        "gpus": {name: asdict(gpu) for name, gpu in accounting.gpus().items()},
        "memory": memory(),
        # bits for each number, up to which rank
        "capacity": {"text": MEASURED["text"], "share": SHARE},
    }


def names_as_typed() -> dict[str, Any]:
    """The tables by which names.js finds what is meant."""
    tables = {"models": typed_names(), "gpus": planning.gpu_names()}
    return {"word": WORD} | {
        kind: {
            "known": [*map(list, names.known.items())],
            "noise": names.noise,
            "optional": names.optional,
        }
        for kind, names in tables.items()
    }


def memory() -> dict[str, Any]:
    """What the estimate of memory looks up: sizes, choices, usual options, the parts of memory and
    their colors.
    """
    return {
        "items": activations.ITEMSIZE,
        "choices": choices_of(accounting.TrainingOptions),
        "usual": asdict(activations.TrainingOptions()),
        "kept": activations._KEPT,
        "attention": ATTENTION,
        "parts": dict(zip(PARTS, (MUTED, *CYCLE), strict=False)),
        "reserved": planning._RESERVED,
        "emulated": planning._NO_BFLOAT16,
        "no_nf4": planning._NO_NF4,
        "gb": planning._GB,
    }


def family(file: Any) -> dict[str, Any]:
    """A data file, in which fractions say their type: a script cannot tell 0.0 from 0."""
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    for name in (
        "decoder",
        "llama_cpp",
        "gguf",
    ):  # how it computes, and other names: nothing is counted by them
        content.pop(name, None)
    name = file.name.removesuffix(".toml")
    content |= {"targets": default_targets(name), "fused": fused_names(name) or {}}
    for name, entry in content.get("fields", {}).items():
        described = entry if isinstance(entry, dict) else {"default": entry}
        if isinstance(described["default"], float):
            content["fields"][name] = {"type": "number", **described}
    return content


def script() -> str:
    return f"window.loraFit = {json.dumps(data(), separators=(',', ':'))};\n"


if __name__ == "__main__":
    print(script(), end="")
