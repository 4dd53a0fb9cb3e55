"""One word for each concept, in Python and on the command line: docs/vocabulary.md says which."""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
import types
from pathlib import Path

import pytest
from typer.main import get_command

import lora_np
from lora_np.cli import app

ROOT = Path(__file__).parents[1]

# What a parameter must not be called, and the word of the vocabulary.
FORBIDDEN = {
    "where": "targets", "target_modules": "targets",
    "seed": "rng", "random_state": "rng", "generator": "rng", "key": "rng",
    "tol": "tolerance", "rtol": "tolerance", "atol": "tolerance",
    "val": "validation", "valid": "validation", "held_out": "validation", "holdout": "validation",
    "x_val": "validation", "test_data": "validation",
    "scaling": "scale", "alpha_over_r": "scale",
    "workers": "jobs", "n_jobs": "jobs", "threads": "jobs", "processes": "jobs", "num_workers": "jobs",
    "verbose": "progress", "bar": "progress", "quiet": "progress", "show_progress": "progress",
    "precision": "dtype", "data_type": "dtype", "number_type": "dtype",
}  # fmt: skip
# Constants of an algorithm in its paper's letters, rather than an accuracy that someone asks for.
EPS = {"Adam", "AdamW", "RMSNorm", "LayerNorm"}


def packages():
    yield lora_np
    for module in pkgutil.walk_packages(lora_np.__path__, "lora_np."):
        if not module.name.endswith("__main__") and ".exercises.checks." not in module.name:
            found = importlib.import_module(module.name)
            if hasattr(found, "__all__"):
                yield found


def public_things():
    """Every public function, class and method: a qualified name, and the thing."""
    seen = set()
    for package in packages():
        for name in package.__all__:
            thing = getattr(package, name)
            if id(thing) in seen or isinstance(thing, types.ModuleType):
                continue
            seen.add(id(thing))
            if inspect.isclass(thing) or inspect.isroutine(thing):
                yield f"{package.__name__}.{name}", thing
            if inspect.isclass(thing):
                for key, member in vars(thing).items():
                    if not key.startswith("_") and (
                        inspect.isfunction(member) or isinstance(member, classmethod)
                    ):
                        yield f"{package.__name__}.{name}.{key}", getattr(thing, key)


THINGS = dict(public_things())


def parameters(thing):
    try:
        return inspect.signature(thing).parameters
    except (ValueError, TypeError):
        return {}


def options():
    """Every option and argument of every command."""

    def walk(command, words):
        for parameter in command.params:
            for option in (parameter.name, *parameter.opts):
                yield words, option.lstrip("-").replace("-", "_")
        for word, below in getattr(command, "commands", {}).items():
            yield from walk(below, f"{words} {word}")

    return sorted(set(walk(get_command(app), "lora-np")))


def returned(thing):
    annotation = getattr(thing, "__annotations__", {}).get("return", "")
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


@pytest.mark.parametrize("name", THINGS)
def test_parameters(name):
    last = name.rpartition(".")[2]
    for parameter in parameters(THINGS[name]):
        assert parameter not in FORBIDDEN, f"call {parameter} of {name} {FORBIDDEN[parameter]}"
        assert parameter != "eps" or last in EPS, f"call eps of {name} tolerance"


@pytest.mark.parametrize("name", THINGS)
def test_properties(name):
    for key, member in vars(THINGS[name]).items() if inspect.isclass(THINGS[name]) else ():
        if isinstance(member, property):
            assert key not in FORBIDDEN, f"call {name}.{key} {FORBIDDEN[key]}"


@pytest.mark.parametrize(("command", "option"), options())
def test_options(command, option):
    assert option not in FORBIDDEN, f"call {option} of {command} {FORBIDDEN[option]}"


@pytest.mark.parametrize("name", THINGS)
def test_results_are_not_bare_tables(name):
    """Columns are for people; programs read fields. ``Table`` itself and the property ``table`` are exempt."""
    thing = THINGS[name]
    if not inspect.isclass(thing) and not name.startswith("lora_np.table."):
        assert not re.search(r"\bTable\b", returned(thing)), f"{name} returns a bare Table"


@pytest.mark.parametrize("name", THINGS)
def test_table_is_a_property(name):
    thing = THINGS[name]
    if inspect.isclass(thing):
        for key in ("table", "to_table", "as_table"):
            assert not inspect.isfunction(getattr(thing, key, None)), f"{name}.{key} must be a property"
        if isinstance(vars(thing).get("table"), property):
            assert dataclasses.is_dataclass(thing), f"{name} must be a dataclass"
            assert thing.__dataclass_params__.frozen, f"{name} must be frozen"


@pytest.mark.parametrize("name", THINGS)
def test_saving_names_what_before_where(name):
    """``save(what, path)``: for everything that writes."""
    thing = THINGS[name]
    word = name.rpartition(".")[2]
    if re.match(r"(save|dump)(_|$)", word):
        names = list(parameters(thing))
        own = 0 if not inspect.isclass(thing) and "." in thing.__qualname__ else 1
        assert names[own : own + 1] == ["path"] or (not own and "path" in names[:2]), f"{name}{names}"


def test_no_two_public_classes_share_a_name():
    classes = {}
    for thing in THINGS.values():
        if inspect.isclass(thing):
            classes.setdefault(thing.__name__, set()).add(f"{thing.__module__}.{thing.__qualname__}")
    shared = {name: places for name, places in classes.items() if len(places) > 1}
    assert not shared


def test_no_two_classes_in_plain_names_share_a_name():
    """Nor do classes without an underscore in files that belong to no ``__all__``."""
    places = {}
    for path in sorted((ROOT / "lora_np").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(path.relative_to(ROOT).as_posix())
    shared = {name: files for name, files in places.items() if len(files) > 1}
    assert not shared


@pytest.mark.parametrize("package", list(packages()), ids=lambda package: package.__name__)
def test_no_public_name_equals_a_submodule(package):
    """Importing the submodule would put it in the place of the function."""
    if hasattr(package, "__path__"):
        below = {module.name for module in pkgutil.iter_modules(package.__path__)}
        for name in below & set(package.__all__):
            same = getattr(package, name) is importlib.import_module(f"{package.__name__}.{name}")
            assert same, f"{package.__name__}.{name} is a submodule, too"


def test_the_page_names_every_word():
    page = (ROOT / "docs" / "vocabulary.md").read_text(encoding="utf-8")
    for word in {*FORBIDDEN.values(), "dtype", "save(what, path)", ".table"}:
        assert word in page
