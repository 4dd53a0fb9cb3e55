"""Docstrings of public names satisfy numpydoc's validator, and name each class that is raised for itself."""

import builtins
import importlib.util
import inspect
import re
from pathlib import Path

import pytest

pytest.importorskip("numpydoc", reason="extra `lint`")
from numpydoc.docscrape import get_doc_object
from numpydoc.validate import validate

SPEC = importlib.util.spec_from_file_location("vocabulary", Path(__file__).with_name("test_vocabulary.py"))
vocabulary = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(vocabulary)

THINGS = vocabulary.THINGS
METHODS = {name for name, thing in THINGS.items() if "." in getattr(thing, "__qualname__", "")}
# What numpydoc's validator checks of every public function and class ...
CHECKS = {
    "GL03", "GL05", "GL06", "GL07", "GL08", "GL10", # blank lines, tabs, sections known and in order; there is one
    "SS01", "SS04", # a summary
    "PR01", "PR02", "PR03", "PR04", "PR07", "PR09", "PR10", # parameters: all, in order, type and words
    "RT01", "RT03", "YD01", # what is returned, and what it means
    "SA02", "SA03", "SA04", # See Also: form and words
}  # fmt: skip
# ... and of their methods, many of which say all in one line.
CHECKS_OF_METHODS = {"GL03", "GL05", "GL06", "GL07", "GL08", "PR02", "PR03", "PR10"}
# Packages whose functions are siblings: each points to those that are used instead of it or with it.
SIBLINGS = ("lora_np.linalg.", "lora_np.plots.", "lora_np.adapters.")

# Functions without a sibling.
ALONE: set[str] = set()
EXCEPTIONS = {"numpy.linalg.LinAlgError"} | {
    name
    for module in (builtins, *vocabulary.packages())
    for name, thing in vars(module).items()
    if inspect.isclass(thing) and issubclass(thing, BaseException)
}


def complaints(name, thing):
    """The validator's, of the checks chosen above, and ours."""
    document = get_doc_object(thing)
    checks = CHECKS_OF_METHODS if name in METHODS else CHECKS
    fields = {field.name for field in document["Attributes"]}
    for code, words in validate(document)["errors"]:
        # The fields of a result may be listed as attributes, since nobody passes them in.
        as_attributes = code == "PR01" and set(re.findall(r"'(\w+)'", words)) <= fields
        inherited = code == "GL08" and inspect.getdoc(thing)
        if code in checks and not as_attributes and not inherited:
            yield f"{code}: {words}"
    for raised in document["Raises"]:
        if raised.type not in EXCEPTIONS:
            yield f"Raises: list each class with its cause, got {raised.type!r}"
        elif not raised.desc:
            yield f"Raises: say when {raised.type} is raised"
    siblings = inspect.isfunction(thing) and thing.__module__.startswith(SIBLINGS) and name not in METHODS
    if siblings and name not in ALONE and not document["See Also"]:
        yield "See Also: name a sibling"


@pytest.mark.parametrize("name", THINGS)
def test_docstring(name):
    found = list(complaints(name, THINGS[name]))
    assert not found, "\n".join(found)


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

    assert [each.partition(":")[0] for each in complaints("f", f)] == ["PR01", "PR07", "RT01", "Raises"]
