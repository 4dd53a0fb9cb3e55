"""Docstrings of public names satisfy numpydoc's validator, and name each class that is raised for
itself.
"""

import builtins
import importlib
import importlib.util
import inspect
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("numpydoc", reason="extra `lint`")
from numpydoc.docscrape import get_doc_object
from numpydoc.validate import validate

from tests.drawing import every

SPEC = importlib.util.spec_from_file_location(
    "vocabulary", Path(__file__).with_name("test_vocabulary.py")
)
vocabulary = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(vocabulary)

sys.path.append(str(Path(__file__).parents[2] / "docs" / "_ext"))
site = importlib.import_module("docstrings")  # the role that makes links of names

THINGS = vocabulary.THINGS
METHODS = {name for name, thing in THINGS.items() if "." in getattr(thing, "__qualname__", "")}
# What numpydoc's validator checks of every public function and class ...
CHECKS = {
    # blank lines, tabs, sections known and in order; there is one
    "GL03", "GL05", "GL06", "GL07", "GL08", "GL10",
    "SS01", "SS04", # a summary
    # parameters: all, in order, type and words
    "PR01", "PR02", "PR03", "PR04", "PR07", "PR09", "PR10",
    "RT01", "RT03", "YD01", # what is returned, and what it means
    "SA02", "SA03", "SA04", # See Also: form and words
}  # fmt: skip
# ... and of their methods, many of which say all in one line.
CHECKS_OF_METHODS = {"GL03", "GL05", "GL06", "GL07", "GL08", "PR02", "PR03", "PR10"}
# Packages whose functions are siblings: each points to those that are used instead of it or with
# it.
SIBLINGS = ("lora_np.linalg.", "lora_np.plots.", "lora_np.adapters.")

# Functions without a sibling.
ALONE: set[str] = set()
EXCEPTIONS = {"numpy.linalg.LinAlgError"} | {
    name
    for module in (builtins, *vocabulary.packages())
    for name, thing in vars(module).items()
    if inspect.isclass(thing) and issubclass(thing, BaseException)
}

# What no example can show: each with its reason.
WITHOUT_EXAMPLE = {
    "lora_np.cli.main": "ends the process",
    "lora_np.course.open_lab": "runs until somebody stops it",
    "lora_np.course.tour": "trains for many seconds; the page on it shows what it finds",
}


def named(annotation):
    return set(re.findall(r"\w+", str(annotation)))


def handed_out(things):
    """Names of classes that functions, or what these return, hand out: the function's example shows
    them.
    """

    def of(thing):
        if not inspect.isclass(thing):
            return named(getattr(inspect.unwrap(thing), "__annotations__", {}).get("return"))
        getters = [each.fget for each in vars(thing).values() if isinstance(each, property)]
        fields = [each for base in thing.__mro__ for each in inspect.get_annotations(base).values()]
        return set().union(*map(of, getters), *map(named, fields))

    found, parts = set(), {thing.__name__: of(thing) for thing in things if inspect.isclass(thing)}
    waiting = set().union(*(of(thing) for thing in things if not inspect.isclass(thing)))
    while waiting:
        found |= waiting
        waiting = set().union(*(parts.get(name, set()) for name in waiting)) - found
    return found


def lacks_example(thing, shown):
    return ">>>" not in (thing.__doc__ or "") and not (
        inspect.isclass(thing) and thing.__name__ in shown
    )


def complaints(name, thing):
    """The validator's, of the checks chosen above, and ours."""
    document = get_doc_object(thing)
    checks = CHECKS_OF_METHODS if name in METHODS else CHECKS
    fields = {field.name for field in document["Attributes"]}
    settings_elsewhere = any(
        field.name == "**settings" and field.desc[0].startswith("The settings of `")
        for field in document["Parameters"]
    )
    for code, words in validate(document)["errors"]:
        # The fields of a result may be listed as attributes, since nobody passes them in.
        as_attributes = code == "PR01" and set(re.findall(r"'(\w+)'", words)) <= fields
        inherited = code == "GL08" and inspect.getdoc(thing)
        # Settings that another function explains are "The settings of" it.
        elsewhere = code in ("PR01", "PR02") and settings_elsewhere
        if code in checks and not as_attributes and not inherited and not elsewhere:
            yield f"{code}: {words}"
    for raised in document["Raises"]:
        if raised.type not in EXCEPTIONS:
            yield f"Raises: list each class with its cause, got {raised.type!r}"
        elif not raised.desc:
            yield f"Raises: say when {raised.type} is raised"
    siblings = (
        inspect.isfunction(thing) and thing.__module__.startswith(SIBLINGS) and name not in METHODS
    )
    if siblings and name not in ALONE and not document["See Also"]:
        yield "See Also: name a sibling"


@every("name", THINGS)
def test_docstring(name):
    found = list(complaints(name, THINGS[name]))
    assert not found, "\n".join(found)


def unknown_names(text, module, owner=""):
    """Names in single backticks that the site would look for in vain."""
    prose = re.sub(r"``(?s:.*?)``|:[\w:]+:`[^`]*`|`[^`]*`_", "", text or "")
    names = re.findall(r"`([^`]+)`", prose)
    return [
        name
        for name in names
        if not name.startswith(("numpy.", "matplotlib."))
        and not site.full_name(name, module, owner)
    ]


@every("name", THINGS)
def test_names_in_single_backticks_are_public(name):
    module, _, owner = name.rpartition(".")
    if name in METHODS:
        module, _, owner = module.rpartition(".")
    elif not inspect.isclass(THINGS[name]):
        owner = ""
    assert not unknown_names(inspect.getdoc(THINGS[name]), module, owner)


@every("module", vocabulary.packages())
def test_names_in_the_text_of_a_package_are_public(module):
    assert not unknown_names(module.__doc__, module.__name__)


def test_a_private_name_in_single_backticks_is_found():
    text = "Like `fit` and `rank_of_all`, not ``rank_of_all``."
    assert unknown_names(text, "lora_np.training") == ["rank_of_all"]


def test_everything_that_is_called_has_an_example():
    shown = handed_out(THINGS.values())
    lacking = {name for name in THINGS.keys() - METHODS if lacks_example(THINGS[name], shown)}
    assert lacking == WITHOUT_EXAMPLE.keys()


def test_a_result_needs_no_example_of_its_own():
    class Part:
        """Something."""

    class Result:
        """Something."""

        part: "Part"

    class Start:
        """Something."""

    def result() -> "Result | None":
        """Something."""

    things = [Part, Result, Start, result]
    shown = handed_out(things)
    assert [each.__name__ for each in things if lacks_example(each, shown)] == ["Start", "result"]


def test_what_is_wrong_is_found():
    def f(x, y):
        """Do something.

        Parameters
        ----------
        x : int

        Raises
        ------
        ValueError, TypeError
            If x is wrong.
        """
        return x + y

    assert [each.partition(":")[0] for each in complaints("f", f)] == [
        "PR01",
        "PR07",
        "RT01",
        "Raises",
    ]
