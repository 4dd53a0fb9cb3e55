"""Settings are written once: the docstring and the command line say what the fields say."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, fields

import click
import pytest
from click.testing import CliRunner

pytest.importorskip("numpydoc", reason="extra `lint`")
from numpydoc.docscrape import get_doc_object

from lora_np.accounting import TrainingOptions
from lora_np.checks import configured
from lora_np.cli import costs, options
from lora_np.language import FinetuneSettings, finetune
from lora_np.settings import check_settings, setting, settings_of
from lora_np.training import fit
from lora_np.training.fitting import FitSettings


@dataclass(frozen=True)
class Example:
    model: str
    rank: int = setting(8, "Rank of each adapter")
    alpha: float | None = setting(None, "Scales by alpha/r; by default 2 r")
    mode: str = setting("fast", "How", choices=("fast", "slow"))
    bias: bool = setting(False, "Train B's bias")


@click.command()
@options.each(options.of_settings(Example))
def command(**asked):
    print(options.given(asked))


@dataclass(frozen=True)
class Limited:
    rank: int = setting(8, "Rank of each adapter")
    alpha: float | None = setting(None, "Scales by alpha/r")
    share: float = setting(0.5, "Share", open_minimum=False, maximum=1)


def run(*arguments):
    return CliRunner().invoke(command, arguments)


def test_options_are_the_settings():
    assert [each.name for each in settings_of(Example)] == ["rank", "alpha", "mode", "bias"]
    assert run("--rank", "4", "--mode", "SLOW", "--no-bias").output == (
        "{'rank': 4, 'mode': 'slow', 'bias': False}\n"
    )
    assert run("--rank", "x").exit_code == 2


def test_help_says_choices_and_default():
    helps = [help for _, help in options.of_settings(Example).values()]
    assert helps == [
        "Rank of each adapter (8).",
        "Scales by alpha/r; by default 2 r.",
        "How: fast or slow (fast).",
        "Train B's bias (off).",
    ]


def test_a_choice_is_checked():
    check_settings(Example("m"))
    with pytest.raises(ValueError, match="mode must be one of 'fast', 'slow', got 'slw'"):
        check_settings(Example("m", mode="slw"))


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("rank", 0, "rank must be at least 1, got 0"),
        ("rank", 1.5, "rank must be a whole number, got 1.5"),
        ("alpha", 0.0, "alpha must be above 0, got 0"),
        ("alpha", "8", "alpha must be a number, got '8'"),
        ("share", 1.5, "share must be at least 0 and at most 1, got 1.5"),
        ("share", -0.1, "share must be at least 0 and at most 1, got -0.1"),
    ],
)
def test_numbers_are_checked_by_their_types_and_limits(name, value, right):
    check_settings(Limited(rank=1, alpha=None, share=0.0))
    with pytest.raises((TypeError, ValueError), match=right):
        check_settings(Limited(**{name: value}))


@pytest.mark.parametrize(("owner", "commands"), [(TrainingOptions, (costs.plan, costs.count))])
def test_docstring_and_commands_say_what_the_fields_say(owner, commands):
    """All of them, in order, with the same choices."""
    section = owner.__doc__.partition("Parameters\n")[2].partition("Raises\n")[0]
    documented = dict(re.findall(r"^ {4}(\w+) : (.+)$", section, re.M))
    assert list(documented) == [each.name for each in fields(owner)]
    for each in settings_of(owner):
        if documented[each.name].startswith("{"):
            assert tuple(re.findall(r'"(\w+)"', documented[each.name])) == each.metadata["choices"]
    for one in commands:
        asked = [parameter.name for parameter in one.params]
        assert set(asked) >= {each.name for each in settings_of(owner)}


@pytest.mark.parametrize("function", [finetune, fit])
def test_the_parameters_of_a_function_are_its_settings(function):
    """In one order, and each is explained by what its field says."""
    owner = {finetune: FinetuneSettings, fit: FitSettings}[function]
    documented = {each.name: each for each in get_doc_object(function)["Parameters"]}
    parameters = [*inspect.signature(function).parameters]
    assert [*documented] == parameters
    assert {*parameters[2:]} == {each.name for each in fields(owner)}
    for each in settings_of(owner):
        told = " ".join(documented[each.name].desc)
        assert told.startswith(each.metadata["help"])
        if choices := each.metadata["choices"]:
            assert documented[each.name].type == "{" + ", ".join(f'"{c}"' for c in choices) + "}"


@configured(Example, r="rank=")
def use(first, second, settings):
    return first, second, settings.rank, settings.bias


def test_settings_are_given_by_name():
    assert use(1, 2, model="m", bias=True) == use(second=2, first=1, model="m", bias=True)
    assert use(1, 2, model="m", rank=3) == (1, 2, 3, False)
    for call, words in [
        (lambda: use(1, 2, model="m", rnk=3), "unexpected keyword argument 'rnk'; close names: rank"),
        (lambda: use(1, 2, model="m", r=3), "unexpected keyword argument 'r'; use has rank= for r"),
        (lambda: use(1), "missing a required argument: 'second'"),
        (lambda: fit(None, [1], stpes=3), "unexpected keyword argument 'stpes'; close names: steps"),
        (lambda: finetune(None, "", context=3), r"finetune\(\) .* argument 'context'"),
    ]:  # fmt: skip
        with pytest.raises(TypeError, match=words):
            call()
