"""What the page Fit knows, from the package: python docs/explorer/fit_data.py > fit-data.js

The terms of the presets' memory, the GPUs of `plan`, the choices of its options, what names mean,
and what to try where something does not fit, in its order: nothing is typed twice.
"""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

from lora_np import accounting, models
from lora_np.accounting import activations, memory, planning
from lora_np.accounting.bits import MEASURED, SHARE
from lora_np.checks import WORD, Names, _joined
from lora_np.models.sources import hub_name, typed_names
from lora_np.settings import choices_of

sys.path.insert(0, str(Path(__file__).parents[1] / "browser"))
import terms

# of the parts of memory, by their names: a page has them in both schemes
COLOURS = ("base", "lora", "minus", "ink", "good", "not", "tight")


def data() -> dict[str, Any]:
    """The terms of the presets and the GPUs, by name, and what the estimate looks up."""
    return {name: made() for name, made in PARTS.items()}


def gpus() -> dict[str, Any]:
    order, _ = larger()
    return {
        name: {**asdict(gpu), "room": gpu.room, "larger": order[name]}
        for name, gpu in accounting.gpus().items()
    }


def names_as_typed() -> dict[str, Any]:
    """How a name that is typed becomes a form, and the forms by what they mean."""
    tables = {"models": typed_names(), "gpus": planning.gpu_names()}
    found: dict[str, Any] = {"word": WORD}
    for kind, names in tables.items():
        forms: dict[str, list[str]] = {}
        for form, meant in meanings(names).items():
            forms.setdefault("|".join(meant), []).append(form)
        means = {meant: "|".join(own) for meant, own in forms.items()}
        found[kind] = {"means": means, "noise": names.noise, "free": names.free}
    return found


def meanings(names: Names) -> dict[str, list[str]]:
    """What the package answers to each name, and to its words in alphabetical order: all of them or
    without optional ones, apart or together.
    """
    names = replace(names)
    for split in ("_words", "_needed"):  # each name is compared with every form
        object.__setattr__(names, split, cache(getattr(names, split)))
    answers: dict[str, list[str]] = {}
    for name in names.known:
        forms = {name.lower(): name}
        for words in (names._words(name), names._needed(name)):
            optional = [word for word in dict.fromkeys(words) if re.fullmatch(names.optional, word)]
            for number in range(len(optional) + 1):
                for without in combinations(optional, number):
                    kept = [word for word in words if word not in without]
                    for form in (kept, _joined(kept)):
                        forms[" ".join(sorted(form))] = " ".join(kept)
        answers |= {
            form: names.several(text) for form, text in forms.items() if form not in answers
        }
    return {form: meant for form, meant in answers.items() if form.strip() and meant}


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
        "trials": trials(),
        "shorter": planning.SHORTER,
        "larger": larger()[1],
        "unnamed": larger()[0]["a GPU"],
    }


def trials() -> list[dict[str, Any]]:
    """What may be switched, in the order to try it: with its price, and whether it adapts attention
    only.
    """
    found = []
    for names in planning.TRIALS:
        options: dict[str, str | bool] = {}
        for name in names:
            options |= planning.SWITCHES[name][0]
        price = "; ".join(planning.SWITCHES[name][1] for name in names)
        narrow = planning.NARROW in names
        found.append(
            {"text": ", ".join(names), "options": options, "price": price, "narrow": narrow}
        )
    return found


def larger() -> tuple[dict[str, int], list[list[str]]]:
    """Which of a few orders of GPUs to suggest instead of each and of a memory alone, and these
    orders.
    """
    devices = [*accounting.gpus().values(), planning.GPU("a GPU", 0)]
    orders = {
        gpu.name: tuple(other.name for other in planning.alternatives(gpu)) for gpu in devices
    }
    known = [*dict.fromkeys(orders.values())]
    return {name: known.index(order) for name, order in orders.items()}, [*map(list, known)]


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


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "models": lambda: {name: terms.of(models.preset(name)) for name in models.preset_names()},
    "hub": lambda: {name: hub_name(name) for name in models.preset_names()},
    "names": names_as_typed,
    "gpus": gpus,
    "memory": tables,
    # bits for each number, up to which rank
    "capacity": lambda: {"text": MEASURED["text"], "share": SHARE},
}


def script() -> str:
    return f"window.loraFit = {json.dumps(data(), separators=(',', ':'))};\n"


if __name__ == "__main__":
    print(script(), end="")
