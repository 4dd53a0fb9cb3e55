"""The scripts of the site: few, and without facts of the package."""

import re
from pathlib import Path

import pytest

from lora_np import models
from lora_np.accounting import planning
from lora_np.adapters.rules import runtimes
from lora_np.models import peft

EXPLORER = Path(__file__).parents[2] / "docs" / "explorer"
SCRIPTS = {path.name: path.read_text("utf-8") for path in sorted(EXPLORER.glob("*.js"))}
MOST = 180_000  # bytes in all beside the puzzles' own, as prettier formats them
PUZZLES = "puzzles"
# the Llama that speaks in the page reads the config of one model
SPEAKS = "speak.js"
SHOWN = {"front.js": {"llama"}}  # a figure of the page


def test_they_are_few():
    sizes = {name: len(text.encode()) for name, text in SCRIPTS.items() if PUZZLES not in name}
    assert sum(sizes.values()) <= MOST, sizes


def test_what_the_package_knows_is_written_once():
    """Adam in one script; what to try where a model does not fit, and names, as exported data."""
    text = "".join(SCRIPTS.values())
    assert [name for name in SCRIPTS if "beta2 **" in SCRIPTS[name]] == ["adam.js"]
    assert len(re.findall(r"\*\* steps", text)) == 2
    prices = [price for _, price in [*planning.SWITCHES.values(), *planning.SHORTER.values()]]
    assert not [word for word in [*planning.SWITCHES, *prices] if word in text]
    assert not re.findall("instruct|laptop|geforce", text, re.IGNORECASE)


@pytest.mark.parametrize("name", SCRIPTS)
def test_they_know_no_family_no_format_and_no_rule(name):
    """No name of a family or of a program, no field of a config, no format but safetensors."""
    text = SCRIPTS[name]
    quoted = set(re.findall(r"""["'`]([\w.-]+)["'`]""", text))
    assert not quoted & {*models.family_names()} - SHOWN.get(name, set())
    assert not quoted & {*runtimes()}
    words = set(re.findall(r"\w+", text))
    assert not words & ({*peft.SETTINGS} - {"bias", "r"})
    assert (
        not words & {"GGUF", "lora_a", "lora_down", "hada_w1_a", "general", "q_proj"}
        or name == SPEAKS
    )
    fields = {"hidden_size", "num_hidden_layers", "vocab_size", "model_type"}
    assert not words & fields or name == SPEAKS
