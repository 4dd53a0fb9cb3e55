"""What the page Fit knows, from the package: python docs/explorer/fit_data.py > fit-data.js

The terms of the presets' memory, the GPUs of `plan`, the choices of its options and the switches
that make something fit: nothing is typed twice.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lora_np import accounting, models
from lora_np.accounting import activations, memory, planning
from lora_np.accounting.bits import MEASURED, SHARE
from lora_np.checks import WORD
from lora_np.models.sources import hub_name, typed_names
from lora_np.settings import choices_of

sys.path.insert(0, str(Path(__file__).parents[1] / "browser"))
import terms

# of the parts of memory, by their names: a page has them in both schemes
COLOURS = ("base", "lora", "minus", "ink", "good", "not", "tight")


def data() -> dict[str, Any]:
    """The terms of the presets and the GPUs, by name, and what the estimate looks up."""
    names = models.preset_names()
    return {
        "models": {name: terms.of(models.preset(name)) for name in names},
        "hub": {name: hub_name(name) for name in names},
        "names": names_as_typed(),
        "gpus": {
            name: {**asdict(gpu), "room": gpu.room} for name, gpu in accounting.gpus().items()
        },
        "memory": tables(),
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
            "free": names.free,
        }
        for kind, names in tables.items()
    }


def tables() -> dict[str, Any]:
    """Sizes, choices, usual options, the state of optimizers, the parts of memory and their
    colors, and what may be changed.
    """
    options = accounting.TrainingOptions
    choices = choices_of(options)
    whole = 10**15
    return {
        "items": activations.ITEMSIZE,
        "choices": choices,
        "usual": asdict(options()),
        "methods": {
            dtype: {
                method: own.dtype for method, own in memory.by_method(options(dtype=dtype)).items()
            }
            for dtype in choices["dtype"]
        },
        "state": {
            "each": state(),
            "small": memory.IN_8_BITS,
            "block": memory.BLOCK,
            "paged": memory.PAGED,
        },
        "parts": dict(zip(memory.PARTS, COLOURS, strict=True)),
        "room": planning.GPU("", whole).room / whole,
        "emulated": planning.NO_BFLOAT16,
        "no_nf4": planning.NO_NF4,
        "switches": [
            {"name": name, "options": changes, "price": price, "narrow": name == planning.NARROW}
            for name, (changes, price) in planning.SWITCHES.items()
        ],
        "shorter": planning.SHORTER,
    }


def state() -> dict[str, dict[int, int]]:
    """Bytes of state per number, by optimizer and by the bytes of the number."""
    some = accounting.memory_terms("gpt2", rank=1)
    found: dict[str, dict[int, int]] = {}
    for optimizer in activations.OPTIMIZERS:
        if optimizer == "adafactor" or optimizer.endswith("8bit"):
            continue  # which depend on more than how many there are
        training = accounting.TrainingOptions(optimizer=optimizer)
        for item in (2, 4):
            one = some._replace(training=training, itemsize=item, tensors=((1, 1, 1),)).memory
            found.setdefault(optimizer, {})[item] = one.optimizer
    return found


def script() -> str:
    return f"window.loraFit = {json.dumps(data(), separators=(',', ':'))};\n"


if __name__ == "__main__":
    print(script(), end="")
