"""Write a family's data file from its class in transformers: ``python -m docs._ext.families TYPE``.

The model is built on the meta device, many times, from small configs that differ in one or several
fields. The numbers of a config remember the expressions that they went through, so the constructor
of the model itself computes the formulas of its shapes; a formula is kept if it is right in every
build. The file is written as the difference from the nearest family that is described already.

What could not be determined is printed, and stands in the file as a comment that starts with TO DO.
The file is a draft: its reader adds what counting does not need (memory, llama.cpp's names), gives
variables their names, and judges it as tests/laws/test_models_published.py does.
``python -m docs._ext.families +TYPE`` writes nothing: it judges the file that is there by fresh
configs. Needs the extra ``peers``; takes some seconds for each type.
"""

from __future__ import annotations

import ast
import copy
import functools
import inspect
import itertools
import json
import logging
import math
import random
import re
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lora_np.models import families
from lora_np.models.formulas import Formulas
from lora_np.models.sources import from_named_modules
from lora_np.models.spec import ModuleSpec

sys.path.insert(0, str(Path(__file__).parent))  # where it is, for whoever imports this file

from causal import FIELDS

DATA = Path(families.__file__).parent / "data"
_IGNORED = re.compile(
    r"(^|_)(ids?|dtype)$|token_id|^(transformers_version|architectures|id2label|label2id)$"
    r"|^(output_|use_cache|return_dict|is_|initializer|num_logits|rope_|_|problem|pretraining)"
)
_DEPTH = re.compile(r"(^|_)(layers?|depths?|blocks)$")  # shrunk, so that a build is quick
_EXPRESSIONS: dict[int, set[str]] = defaultdict(set)  # by the numbers that a build has met


class Whole(int):
    """An integer that remembers its expression."""

    text: str

    def __new__(cls, value: int, text: str) -> Whole:
        self = super().__new__(cls, value)
        self.text = text
        if len(text) < 200:
            _EXPRESSIONS[value].add(text)
        return self

    def __copy__(self) -> Whole:
        return self

    def __int__(self) -> Whole:
        return self

    def __deepcopy__(self, memo: object) -> Whole:
        return self

    def __reduce__(self) -> Any:
        return int, (int.__int__(self),)


class Ratio(float):
    """A quotient or a real number that remembers its expression; taken whole, it has one again."""

    text: str
    sides: tuple[str, str] | None  # of a quotient of integers

    def __new__(cls, value: float, text: str, sides: tuple[str, str] | None = None) -> Ratio:
        self = super().__new__(cls, value)
        self.text, self.sides = text, sides
        return self

    def __deepcopy__(self, memo: object) -> Ratio:
        return self

    def __int__(self) -> int:
        whole = f"({' // '.join(self.sides)})" if self.sides else f"whole({self.text})"
        return Whole(int(float(self)), whole)

    __trunc__ = __floor__ = __int__

    def __ceil__(self) -> int:
        first, second = self.sides or (self.text, "1")
        return Whole(math.ceil(float(self)), f"-(-{first} // {second})")


class _IntegerType(type):
    """Lets `Integer` stand for ``int`` in the modules of a model."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, int)


class Integer(metaclass=_IntegerType):
    """What ``int`` is in a model's modules: Python's own makes plain integers of all numbers."""

    def __new__(cls, value: Any = 0, *base: int) -> Any:
        return value.__int__() if isinstance(value, (Whole, Ratio)) else int(value, *base)


def _combined(name: str, sign: str, first: Any, second: Any) -> Any:
    """The result of an operation on plain numbers, with the expression of both."""
    plain = [int.__int__(x) if isinstance(x, int) else float(x) for x in (first, second)]
    value = getattr(plain[0], name)(plain[1])
    if value is NotImplemented:
        value = getattr(float(plain[0]), name)(float(plain[1]))
    sides = getattr(first, "text", str(plain[0])), getattr(second, "text", str(plain[1]))
    text = f"({f' {sign} '.join(sides)})"
    if isinstance(value, int):
        return Whole(value, text)
    if name == "__truediv__" and all(isinstance(x, int) for x in plain):
        if value == int(value):
            Whole(int(value), f"({' // '.join(sides)})")
        return Ratio(value, text, sides)
    return Ratio(value, text) if isinstance(value, float) else value


def _operations() -> None:
    signs = {"add": "+", "sub": "-", "mul": "*", "floordiv": "//", "mod": "%", "pow": "**"}
    for name, sign in {**signs, "truediv": "/"}.items():
        place = f"__{name}__"

        def forward(self: Any, other: Any, place: str = place, sign: str = sign) -> Any:
            known = isinstance(other, (int, float))
            return _combined(place, sign, self, other) if known else NotImplemented

        def backward(self: Any, other: Any, place: str = place, sign: str = sign) -> Any:
            known = isinstance(other, (int, float))
            return _combined(place, sign, other, self) if known else NotImplemented

        for kind in (Whole, Ratio):
            setattr(kind, place, forward)
            setattr(kind, f"__r{name}__", backward)


_operations()


class Sample(NamedTuple):
    """One build: the fields as given, the attributes of the config, the modules by template."""

    fields: dict[str, Any]
    env: dict[str, Any]
    modules: dict[str, dict[tuple[int, ...], ModuleSpec]]
    derived: dict[str, str]  # the expressions of fields that the config computes itself
    expressions: dict[int, set[str]]

    @property
    def shapes(self) -> object:
        """What two samples have in common if they are the same model."""
        return {
            key: {
                index: (m.shape, m.bias, m.tied, m.tied_bias, m.groups)
                for index, m in found.items()
            }
            for key, found in self.modules.items()
        }


def variable(path: str) -> str:
    return path.replace(".", "__")


def leaves(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The fields that may change shapes, by their paths."""
    for key, value in fields.items():
        if isinstance(value, dict):
            if key.endswith("_config") or "model_type" in value:
                yield from leaves(value, f"{prefix}{key}.")
        elif not _IGNORED.search(key) and key != "model_type":
            yield f"{prefix}{key}", value


def changed(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with other values at some paths; lists follow the number of layers beside them."""
    new = copy.deepcopy(dict(fields))
    for path, value in changes.items():
        *above, last = path.split(".")
        place = new
        for key in above:
            place = place[key]
        old = place.get(last)
        if _DEPTH.search(last) and type(old) is int and type(value) is int:
            for key, entries in place.items():
                if isinstance(entries, list) and len(entries) == old and key not in changes:
                    place[key] = [entries[i % old] for i in range(value)]
        place[last] = value
    return new


class Model:
    """A class of transformers, to be built from fields."""

    def __init__(self, kind: str, name: str = "") -> None:
        import transformers
        from transformers.models.auto import modeling_auto as auto

        tables = (
            auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
            auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
            auto.MODEL_MAPPING_NAMES,
        )
        found = name or next(table[kind] for table in tables if kind in table)
        self.name = found if isinstance(found, str) else found[0]
        self.kind, self.config_class = kind, transformers.CONFIG_MAPPING[kind]
        self.model_class: Any = getattr(transformers, self.name, None) or self._anywhere()
        self.needed: dict[str, Any] = dict(FIELDS.get(kind, {}))
        if "layer_types" in self.needed:
            self.needed["num_hidden_layers"] = len(self.needed["layer_types"])
        self.usual = _plain(self.config_class(**self.needed).to_dict())
        sub_configs: dict[str, Any] = getattr(self.config_class, "sub_configs", {})
        for key, part in sub_configs.items():
            if self.usual.get(key) is None and getattr(part, "model_type", None):
                self.usual[key] = _plain(part().to_dict())
        files = Path(inspect.getfile(self.config_class)), Path(inspect.getfile(self.model_class))
        lines = "\n".join(file.read_text(encoding="utf-8") for file in files).splitlines()
        self.lines = lines
        self.words = {  # that a list of the kinds of layers may hold
            word
            for line in lines
            if re.search("type|pattern|Literal|sliding|attention", line)
            for word in re.findall(r"[\"']([a-z_]{3,})[\"']", line)
        }
        self.older = {*re.findall(r"kwargs\.(?:pop|get)\(\"(\w+)\"", "\n".join(lines))}
        for kind_ in (*self.config_class.__mro__, *self.model_class.__mro__):
            if kind_.__module__.startswith("transformers.models."):
                sys.modules[kind_.__module__].int = Integer  # type: ignore[attr-defined]
        self.optional = {path for path, value in self._given() if value is None} - {*self.needed}
        self.parts: dict[str, tuple[str, str]] = {}  # path: the field of its config, its type
        self.built: Any = None
        self.failure: BaseException | None = None

    def beside(self, named: re.Pattern[str], word: str) -> bool:
        """Whether a word stands in quotes in a line of the source that names a field."""
        return any(
            named.search(line) and re.search(f"[\"']{word}[\"']", line) for line in self.lines
        )

    def _anywhere(self) -> Any:
        """A class that transformers does not export, such as a tower."""
        import importlib

        place = self.config_class.__module__.replace("configuration_", "modeling_")
        return getattr(importlib.import_module(place), self.name)

    def _given(self) -> Iterator[tuple[str, Any]]:
        """The defaults in the class, where the config computes others from them."""

        def walk(config: Any, prefix: str) -> Iterator[tuple[str, Any]]:
            declared = getattr(type(config), "__dataclass_fields__", {})
            for key, value in vars(config).items():
                if hasattr(value, "model_type"):
                    yield from walk(value, f"{prefix}{key}.")
                elif key in declared and not _IGNORED.search(key):
                    yield f"{prefix}{key}", declared[key].default

        return walk(self.config_class(**self.needed), "")

    def build(self, fields: Mapping[str, Any]) -> Sample | None:
        """Build on the meta device; None where the config refuses the fields."""
        import torch

        _EXPRESSIONS.clear()
        try:
            with warnings.catch_warnings(), torch.device("meta"):
                warnings.simplefilter("ignore")
                config = self.config_class(**_traced(fields))
                model = self.model_class(config)
        except Exception as error:  # whatever a config's own checks raise
            self.failure = error
            return None
        self.built = config, model
        env, derived = _attributes(config)
        if not self.parts:
            self._find_parts(config, model)
        modules: dict[str, dict[tuple[int, ...], ModuleSpec]] = defaultdict(dict)
        for module in from_named_modules(model).modules:
            if any(module.name.startswith(f"{path}.") for path in self.parts):
                continue
            index = tuple(int(part) for part in module.name.split(".") if part.isdecimal())
            modules[re.sub(r"(?<![^.])\d+(?![^.])", "*", module.name)][index] = module
        expressions = {value: set(texts) for value, texts in _EXPRESSIONS.items()}
        return Sample(dict(fields), env, dict(modules), derived, expressions)

    def _find_parts(self, config: Any, model: Any) -> None:
        """Models inside this one, with a config of their own."""
        from transformers import PreTrainedModel

        owners = {
            id(value): key for key, value in vars(config).items() if hasattr(value, "model_type")
        }
        for name, module in model.named_modules():
            key = owners.get(id(getattr(module, "config", None)))
            inside = any(name.startswith(f"{path}.") for path in self.parts)
            if name and key and isinstance(module, PreTrainedModel) and not inside:
                self.parts[name] = key, module.config.model_type


def _plain(fields: Any) -> Any:
    if isinstance(fields, dict):
        return {
            k: _plain(v) for k, v in fields.items() if k == "model_type" or not _IGNORED.search(k)
        }
    return list(fields) if isinstance(fields, tuple) else fields


def _traced(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    traced: dict[str, Any] = {}
    for key, value in fields.items():
        name = variable(f"{prefix}{key}")
        if key == "model_type":
            if prefix:
                traced[key] = value
        elif isinstance(value, dict):
            traced[key] = _traced(value, f"{prefix}{key}.")
        elif _IGNORED.search(key) or isinstance(value, bool):
            traced[key] = value
        elif isinstance(value, list) and value and all(type(x) is int for x in value):
            traced[key] = [Whole(x, f"{name}[{i}]") for i, x in enumerate(value)]
        elif isinstance(value, (int, float)):
            traced[key] = Whole(value, name) if isinstance(value, int) else Ratio(value, name)
        else:
            traced[key] = copy.deepcopy(value)
    return traced


def _attributes(config: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """The values of a config, as plain ones, and the expressions of those that it computed."""
    env: dict[str, Any] = {}
    derived = {}

    def walk(values: Mapping[str, Any], prefix: str) -> None:
        for key, value in values.items():
            name = f"{prefix}{key}"
            if hasattr(value, "model_type"):
                walk(vars(value), f"{name}__")
            elif not key.startswith("_") and not isinstance(value, dict):
                if isinstance(value, (Whole, Ratio)) and value.text != name:
                    derived[name] = value.text
                env[name] = _bare(value)

    walk(vars(config), "")
    return env, derived


def _bare(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_bare(item) for item in value]
    if isinstance(value, Whole):
        return int.__int__(value)
    return float(value) if isinstance(value, Ratio) else value


# Drawing samples


class Samples:
    """Builds of a model that differ in every field that changes something."""

    def __init__(self, model: Model, joint: int = 8, seed: int = 0) -> None:
        self.model, self.draw = model, random.Random(seed)
        usual = changed(
            model.usual, {path: None for path in model.optional if _has(model.usual, path)}
        )
        shrunk = {
            path: 5 + 2 * (index % 4)
            for index, path in enumerate(
                p for p, v in leaves(usual) if _DEPTH.search(p) and type(v) is int and v > 9
            )
        }
        first = model.build(changed(usual, shrunk)) or model.build(usual)
        if first is None:
            raise ValueError(f"{model.kind} cannot be built from its defaults: {model.failure}")
        self.default = first
        explicit = {
            path: first.env[variable(path)]
            for path in model.optional
            if _has(usual, path)
            and not isinstance(first.env.get(variable(path)), (dict, type(None)))
        }
        self.base = model.build(changed(first.fields, explicit)) or first
        self.all = [self.default, self.base]
        self.matters: dict[str, list[Any]] = {}  # other values that change the model
        self.words: dict[str, set[str]] = {}  # what lists of texts may hold
        self.switches: list[tuple[str, Any]] = []  # what brings modules that the base has not
        for path, value in list(leaves(self.base.fields)):
            self._vary(path, value, self.base, {})
        for switch in list(self.switches):  # what only matters where something is switched on
            if on := model.build(changed(self.base.fields, dict([switch]))):
                for path, value in list(leaves(self.base.fields)):
                    if path not in self.matters:
                        self._vary(path, value, on, dict([switch]))
        self._together(joint, {})
        for path, other in self.switches:
            self._together(6, {path: other})

    def _vary(self, path: str, value: Any, base: Sample, switch: Mapping[str, Any]) -> None:
        for other in [*_others(path, value), *self._worded(path, value)]:
            sample = self.model.build(changed(self.base.fields, {**switch, path: other}))
            if sample and sample.shapes != base.shapes:
                if type(other) is int and other == 0 and {*sample.modules} == {*base.modules}:
                    continue  # a size of zero, not a switch
                self.matters.setdefault(path, []).append(other)
                self.all.append(sample)
                if not switch and not {*sample.modules} <= {*self.base.modules}:
                    self.switches.append((path, other))
                if other is None:
                    break  # where null is a switch, zero is none

    def _worded(self, path: str, value: Any) -> Iterator[list[str]]:
        """Lists of texts with other words that the config accepts."""
        if not isinstance(value, list) or not value or not isinstance(value[0], str):
            return
        self.words[path] = {*value}
        if self.model.build(changed(self.base.fields, {path: ["nonsense", *value[1:]]})):
            named = re.compile(path.rpartition(".")[2].removesuffix("s"))
            words = {w for w in self.model.words if self.model.beside(named, w)}
        else:
            words = self.model.words
        for word in sorted(words - {*value}):
            for other in ([word, *value[1:]], [word if i % 2 else x for i, x in enumerate(value)]):
                if self.model.build(changed(self.base.fields, {path: other})):
                    self.words[path].add(word)
                    yield other

    def _together(self, joint: int, always: Mapping[str, Any]) -> None:
        """Builds with several fields changed at a time."""
        made = tries = 0
        while made < joint and tries < 6 * joint:
            share = 0.8 / (1 + tries // joint)
            tries += 1
            changes: dict[str, Any] = {}
            for path, others in self.matters.items():
                usual = [x for x in others if x not in (None, 0)] or others
                if self.draw.random() < share * (1 if isinstance(usual[0], int) else 0.4):
                    changes[path] = self.draw.choice(others if self.draw.random() < 0.1 else usual)
            sample = self.model.build(changed(self.base.fields, {**changes, **always}))
            if sample:
                made += 1
                self.all.append(sample)

    def patterns(self, path: str) -> list[dict[str, Any]]:
        """Attributes of configs that compute the list at ``path`` themselves."""
        found = []
        sizes = [p for p, v in leaves(self.default.fields) if type(v) is int and 0 < v <= 64]
        for _ in range(16):
            changes = {
                p: self.draw.choice([1, 2, 3, 4, 5, 7]) + (6 if _DEPTH.search(p) else 0)
                for p in sizes
                if self.draw.random() < 0.5 and p.rpartition(".")[0] == path.rpartition(".")[0]
            }
            try:
                config = self.model.config_class(**_traced(changed(self.default.fields, changes)))
            except Exception:  # whatever a config's own checks raise
                continue
            found.append(_attributes(config)[0])
        return found


def _has(fields: Mapping[str, Any], path: str) -> bool:
    for key in path.split("."):
        if not isinstance(fields, Mapping) or key not in fields:
            return False
        fields = fields[key]
    return True


def _others(path: str, value: Any) -> list[Any]:
    """Values that a field may have instead."""
    if value is None:
        return [48, 96]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        if _DEPTH.search(path):
            return [value + 1, value + 2]
        if re.search("period|offset|interval|step|freq|every|start|end_|first|dense", path):
            return [value + 1, value + 2, *(x for x in (1, 2, 3, 0) if x < value)]
        few = [0] if value <= 256 or re.search("rank|shared|latent", path) else []
        null = [None] if re.search("rank|heads|width|dim|latent|groups", path) else []
        return [2 * value or 1, 3 * value or 2, *null, *few]
    if isinstance(value, float) and value:
        return [2 * value, 1.5 * value]
    if isinstance(value, list) and value and isinstance(value[0], (str, int)):
        reordered = value[::-1] if value[::-1] != value else value[1:] + value[:1]
        others = [reordered, value[:-1]] if reordered != value else [value[:-1]]
        if isinstance(value[0], str):
            kinds = sorted({*value})
            others += [[kinds[i % len(kinds)] for i in range(len(value))], [kinds[0]] * len(value)]
        return others
    return []


# Learning formulas


@functools.cache
def _compiled(text: str) -> Any:
    return compile(text, "formula", "eval")


_CALLS = {"__builtins__": {}, "len": len, "min": min, "max": max, "whole": int}


def evaluate(text: str, env: Mapping[str, Any]) -> Any:
    try:
        return eval(_compiled(text), dict(_CALLS), env)
    except (ArithmeticError, LookupError, NameError, TypeError, ValueError):
        return None


def names_in(text: str) -> set[str]:
    found = {
        node.id for node in ast.walk(ast.parse(text, mode="eval")) if isinstance(node, ast.Name)
    }
    return found - {*_CALLS, "i"}


Point = tuple[Mapping[str, Any], Any]


class Learner:
    """Finds the shortest formula that is right in all samples."""

    def __init__(self, samples: Samples) -> None:
        self.samples, self.missing = samples, list[str]()
        self.fields = {variable(path): path for path in samples.matters}
        values: dict[str, Any] = samples.base.env
        given = {variable(path): others[0] for path, others in samples.matters.items()}
        known = {n: given[n] if values.get(n) is None else values[n] for n in self.fields}
        self.sizes = [n for n in self.fields if type(known[n]) in (int, float)]
        self.lists = [n for n in self.fields if isinstance(values.get(n), list)]
        flags = [n for n in self.fields if isinstance(values.get(n), bool)]
        zeros = [
            variable(p)
            for p, others in samples.matters.items()
            if not isinstance(others[0], bool)
            and (values.get(variable(p), 0) is None or any(other in (0, None) for other in others))
        ]
        self.flags = [text for name in (*flags, *zeros) for text in (name, f"not {name}")]
        self.flags += [
            f"{n} {sign} {value}" for n in self.lists for value in ("[]",) for sign in ("==", "!=")
        ]
        self.layers = [*self._by_layer()]

    def _by_layer(self) -> Iterator[str]:
        for name in self.lists:
            entries = [x for s in self.samples.all for x in s.env.get(name) or []]
            for value in sorted({*entries}, key=str):
                yield f"{name}[i] == {value!r}"
                yield f"{name}[i] != {value!r}"
            if all(type(x) is int for x in entries):
                yield f"i in {name}"
                yield f"i not in {name}"
            else:
                for pair in itertools.combinations(sorted({*entries}, key=str), 2):
                    yield f"{name}[i] in {list(pair)!r}"
        for name in self.sizes:
            yield from (f"i >= {name}", f"i < {name}")
            if re.search("end|last", name):
                yield from (f"i <= {name}", f"i > {name}")
            for start in (0, 1):
                for sign in ("==", "!="):
                    yield f"{f'(i + {start})' if start else 'i'} % {name} {sign} 0"
        for first, second in itertools.permutations(self.sizes, 2):
            if re.search("layer|depth", first):
                yield from (f"i < {first} - {second}", f"i >= {first} - {second}")
            if re.search("offset|start|first", second) and re.search("period|step|freq", first):
                yield from (f"i % {first} == {second}", f"i % {first} != {second}")
        yield from ("i > 0", "i == 0")

    def size(self, points: Sequence[Point], what: str, layered: bool = False) -> str:
        """A formula of a number."""
        if found := self._size(points):
            return found
        for flag in self.flags:
            if found := self._split(flag, points):
                return found
        if layered:
            for name in self.lists:
                if self._right(f"{name}[i]", points):
                    return f"{name}[i]"
            for atom in self.layers:
                if found := self._split(atom, points):
                    return found
        self.missing.append(f"{what}: {sorted({value for _, value in points})[:6]}")
        return ""

    def _split(self, flag: str, points: Sequence[Point]) -> str:
        yes = [point for point in points if evaluate(flag, point[0])]
        no = [point for point in points if not evaluate(flag, point[0])]
        if not yes or not no:
            return ""
        first, second = self._size(yes), self._size(no)
        return f"({first} if {flag} else {second})" if first and second else ""

    def _right(self, text: str, points: Iterable[Point]) -> bool:
        return all(evaluate(text, env) == value for env, value in points)

    def _size(self, points: Sequence[Point]) -> str:
        env, value = points[0]
        known: set[str] = {n for n in self.sizes if env.get(n) == value}
        for sample in (self.samples.default, *self.samples.all):
            known |= sample.expressions.get(value, set())
        allowed = {*self.sizes, *self.lists}
        constant = all(other == value for _, other in points)
        order = sorted(known, key=lambda text: (len(re.findall(r"[-+*/%]", text)), len(text), text))
        for text in order:
            if len(points) > 1 and constant and re.search(r"[-+*/%]", text):
                continue  # a constant by accident
            named = names_in(text)
            if named <= allowed and (named or len(points) < 2) and self._right(text, points):
                return text
        if constant:
            return str(value)
        for texts in self._searched():
            for text in texts:
                if evaluate(text, env) == value and self._right(text, points):
                    return text
        return ""

    def _searched(self) -> Iterator[Iterator[str]]:
        yield (f"{n} * {c}" for n in self.sizes for c in range(2, 9))
        yield (f"{n} // {c}" for n in self.sizes for c in range(2, 9))
        yield (f"len({n})" for n in self.lists)
        pairs = [*itertools.permutations(self.sizes, 2)]
        for form in ("{} * {}", "{} + {}", "{} // {}", "{} - {}", "2 * {} * {}", "2 * {} + {}"):
            yield (form.format(*pair) for pair in pairs)
        three = [*itertools.permutations(self.sizes[:30], 3)]
        for form in ("{} * {} * {}", "{} * {} // {}", "{} * {} + {}", "{} * ({} + {})"):
            yield (form.format(*names) for names in three)

    def condition(self, points: Sequence[Point], what: str, layered: bool = False) -> str:
        """A formula that is true where ``points`` say."""
        wanted = [bool(value) for _, value in points]
        if all(wanted) or not any(wanted):
            return str(all(wanted))
        found = self._joined([*self.flags, *(self.layers if layered else ())], points)
        if not found:
            self.missing.append(f"when {what}")
        return found

    def _joined(self, atoms: list[str], points: Sequence[Point]) -> str:
        """The shortest of ``atoms``, or some of them joined, that is true where ``points`` say."""
        wanted = [bool(value) for _, value in points]
        table = {atom: [bool(evaluate(atom, env)) for env, _ in points] for atom in atoms}
        for atom in atoms:
            if table[atom] == wanted:
                return atom
        for join in ("and", "or"):  # "or" is the opposite of an "and" of opposites
            target = [value == (join == "and") for value in wanted]
            rows = {a: [x == (join == "and") for x in row] for a, row in table.items()}
            implied = [
                a
                for a, row in rows.items()
                if all(x for x, y in zip(row, target, strict=True) if y)
            ]

            def meets(some: list[str], rows: Any = rows, target: Any = target) -> bool:
                return bool([all(rows[a][j] for a in some) for j in range(len(target))] == target)

            if not implied or not meets(implied):
                continue
            chosen = list(implied)
            for atom in reversed(implied):
                fewer = [other for other in chosen if other != atom]
                if fewer and meets(fewer):
                    chosen = fewer
            return f" {join} ".join(chosen)
        return ""

    @functools.cache  # noqa: B019
    def usual(self, atom: str) -> str:
        """What a condition on an entry of a list is where a config omits the list."""
        (name,) = names_in(atom)
        path = self.fields[name]
        points = [
            ({**env, "i": i}, bool(evaluate(atom, {**env, "i": i})))
            for env in self.samples.patterns(path)
            for i in range(len(env.get(name) or []))
        ]
        wanted = [value for _, value in points]
        if not points or len({*wanted}) == 1:
            return str(all(wanted)) if points else ""
        above, values = name.rpartition("__")[0], self.samples.base.env
        given = {variable(path) for path, _ in leaves(self.samples.base.fields)}
        numbers = [
            n for n in given if type(values.get(n)) is int and n.rpartition("__")[0] == above
        ]
        numbers.sort(key=lambda n: (n not in self.fields, n))
        steps = [n for n in numbers if re.search("interval|period|step|freq|pattern", n)]
        atoms = [f"i {sign} {n}" for n in (*numbers, *range(1, 5)) for sign in ("<", ">=")]
        atoms += [f"i {sign} {n} - 1" for n in numbers for sign in ("<", ">=")]
        atoms += [
            f"{f'(i + {start})' if start else 'i'} % {step} {sign} 0"
            for step in (*steps, *range(2, 9))
            for start in range(4)
            for sign in ("==", "!=")
        ]
        return self._joined(atoms, points)


# Writing the file


def _usual_names() -> tuple[dict[str, str], dict[str, str]]:
    """What the files call the fields of configs, and the roles of modules by the ends of names."""
    called: dict[str, Counter[str]] = defaultdict(Counter)
    roles: dict[str, Counter[str]] = defaultdict(Counter)
    for family in map(families.family_of, families.family_names()):
        for name, field in family.tables["fields"].items():
            for origin in field["from"]:
                called[origin][name] += 1
        for path, entry in family.tables["modules"].items():
            roles[path.rpartition(".")[2]][entry["role"]] += 1
    both = (
        {key: found.most_common(1)[0][0] for key, found in table.items()}
        for table in (called, roles)
    )
    return next(both), next(both)


class Draft:
    """The data of a type, as formulas of its config's own fields."""

    def __init__(self, kind: str, name: str = "") -> None:
        self.model = Model(kind, name)
        self.samples = Samples(self.model)
        self.learner = Learner(self.samples)
        end = re.match(r"(.*?)(For[A-Z]\w+|LMHeadModel|Model)$", self.model.name)
        self.classes, self.task = end.groups() if end else (self.model.name, "")
        prefix = getattr(self.model.model_class, "base_model_prefix", "")
        templates = dict.fromkeys(t for sample in self.samples.all for t in sample.modules)
        inside = any(t.startswith(f"{prefix}.") for t in (*templates, *self.model.parts))
        self.base = prefix if inside and self.task != "Model" else ""
        self.stacks: dict[str, str] = {}
        self.depths = [self._depths(sample) for sample in self.samples.all]
        for home in sorted({home for found in self.depths for home in found}):
            points = [
                (sample.env, found[home])
                for sample, found in zip(self.samples.all, self.depths, strict=True)
                if home in found
            ]
            lengths = [(e, n) for e, n in points]
            self.stacks[home] = self._length(lengths, home)
        self.modules = {path: self._entry(path) for path in templates}
        older = sorted(name for name in self.model.older if not _IGNORED.search(name))
        if older:
            self.learner.missing.append(f"older names in configs: {', '.join(older)}")

    def _length(self, points: Sequence[Point], home: str) -> str:
        if len({value for _, value in points}) > 1:
            env, count = points[0]
            size = any(evaluate(name, env) == count for name in self.learner.sizes)
            for name in () if size else self.learner.lists:
                if all(len(env.get(name) or []) == value for env, value in points):
                    return f"len({name})"
        return self.learner.size(points, f"layers of {home}")

    def _depths(self, sample: Sample) -> dict[str, int]:
        depths: dict[str, int] = {}
        for template, found in sample.modules.items():
            for place, star in enumerate(re.finditer(r"\*", template)):
                home = template[: star.start() - 1]
                most = max(index[place] for index in found) + 1
                depths[home] = max(depths.get(home, 0), most)
        return depths

    def _entry(self, path: str) -> dict[str, Any]:
        """The formulas of the modules at a path."""
        layered = "*" in path
        home = path.partition(".*")[0]
        there: list[Point] = []
        specs: list[tuple[Mapping[str, Any], ModuleSpec]] = []
        for sample, depths in zip(self.samples.all, self.depths, strict=True):
            found: dict[int, list[ModuleSpec]] = defaultdict(list)
            for index, module in sample.modules.get(path, {}).items():
                found[index[0] if index else 0].append(module)
            for i in range(depths.get(home, 0)) if layered else (0,):
                env = {**sample.env, "i": i} if layered else sample.env
                there.append((env, i in found))
                specs += [(env, module) for module in found.get(i, ())]
        learn = self.learner
        one = specs[0][1]
        if len({len(module.shape) for _, module in specs}) > 1:
            learn.missing.append(f"the axes of {path}")
        entry: dict[str, Any] = {"kind": one.kind, "parts": one.parts, "transposed": one.transposed}
        entry["shape"] = [
            learn.size([(e, m.shape[axis]) for e, m in specs], f"{path}, axis {axis}", layered)
            for axis in range(len(one.shape))
        ]
        for key in ("bias", "tied", "tied_bias"):
            points = [(e, getattr(m, key)) for e, m in specs]
            entry[key] = learn.condition(points, f"{path} has {key}", layered)
        groups = [(e, m.groups) for e, m in specs]
        one_group = {m.groups for _, m in specs} == {1}
        entry["groups"] = "1" if one_group else learn.size(groups, f"groups of {path}", layered)
        entry["when"] = learn.condition(there, f"{path} exists", layered)
        return entry


class Writer:
    """The text of a data file: the difference of a draft from a family that it extends."""

    def __init__(self, draft: Draft, below: str) -> None:
        self.draft, self.below = draft, below
        self.called, self.roles = _usual_names()
        tables = families._read(below) if below else {}
        self.inherited = families._fields(tables.get("fields", {}))
        self.tables = tables
        self.own: dict[str, str] = {}  # variables by the fields of this config
        self.let = self._fixed()
        self.each: dict[str, dict[str, str]] = defaultdict(dict)
        self.redefined: dict[str, dict[str, str]] = defaultdict(dict)  # of layers, by paths below
        self.sizes: dict[str, str] = {}  # long formulas that several modules have
        self._redefine()

    def _fixed(self) -> dict[str, Any]:
        """Fields below that this type has not, or that change nothing here."""
        read = {path.rpartition(".")[2] for path in self.draft.samples.matters}
        fixed = {}
        for name, field in self.inherited.items():
            if read.isdisjoint(field["from"]) and not {"dropout", "attention_dropout"} & {name}:
                fixed[name] = field["default"]
        return fixed

    def _redefine(self) -> None:
        """Give what differs between layers below the condition that makes most modules right."""
        draft = self.draft
        prefix = f"{draft.base}." if draft.base else ""
        for path, stack in self.tables.get("stacks", {}).items():
            whens = {
                entry["when"]
                for place, entry in draft.modules.items()
                if place.startswith(f"{prefix}{path}.*") and re.search(r"\bi\b", entry["when"])
            }
            for name, below in stack.get("each", {}).items():
                best, most = below, len(self.kept())
                for text in sorted(whens):
                    self.redefined[path][name] = self.formula(text)
                    if len(self.kept()) > most:
                        best, most = self.redefined[path][name], len(self.kept())
                self.redefined[path][name] = best
                if best == below:
                    del self.redefined[path][name]

    def _below(self, path: str) -> dict[str, Any]:
        """A stack of the file below, with what is redefined here."""
        stack = dict(self.tables.get("stacks", {}).get(path, {}))
        if "each" in stack:
            stack["each"] = {**stack["each"], **self.redefined.get(path, {})}
        return stack

    def kept(self) -> dict[str, dict[str, Any]]:
        """The modules below that are right here in every sample."""
        if not self.below:
            return {}
        draft = self.draft
        stacks = {path: self._below(path) for path in self.tables.get("stacks", {})}
        fields: dict[str, Any] = {}
        for field, name in self.own.items():
            if name not in self.inherited or name in self.let:
                value = draft.samples.base.env.get(field)
                usual: Any = (
                    {"default": "[]", "type": "any"}
                    if isinstance(value, list)
                    else {"default": value}
                )
                fields[name] = {"from": field, "minimum": 0, **usual}
        own = {
            "fields": fields,
            "let": self.let,
            "stacks": stacks,
            "runs": False,
            "in_gguf": False,
            "llama_cpp": (),
        }
        merged: Any = families._merged(self.tables, own)
        every = families._fields(merged["fields"])
        formulas = Formulas({name: field["from"][0] for name, field in every.items()})
        family = families.Family(
            "", (draft.classes,), (draft.task,), {**merged, "fields": every}, formulas
        )
        wrong: set[str] = set()
        found: set[str] = set()
        failed = 0
        for sample in draft.samples.all:
            try:
                task = draft.task if draft.task in merged["tasks"] else merged["tasks"][0]
                modules = families._build(family, {**sample.env, **_explicit(sample)}, task, "")[0]
            except (ValueError, TypeError, LookupError, ArithmeticError):
                failed += 1
                if 4 * failed > len(draft.samples.all):
                    return {}
                continue
            here: dict[str, dict[tuple[int, ...], ModuleSpec]] = defaultdict(dict)
            for group in modules:
                for index in itertools.product(*group.ranges):
                    here[group.name.replace("{}", "*")][tuple(index)] = group
            found |= {*here}
            for path in {*sample.modules} | {*here}:
                theirs = {i: _facts(m) for i, m in sample.modules.get(path, {}).items()}
                ours = {i: _facts(m) for i, m in here.get(path, {}).items()}
                if theirs != ours:
                    wrong.add(path)
        prefix = f"{draft.base}." if draft.base else ""
        entries = {prefix + path: entry for path, entry in merged["modules"].items()}
        entries |= merged["heads"].get(draft.task, {})
        return {path: entries[path] for path in found - wrong if path in entries}

    def name(self, field: str) -> str:
        """The variable for a field, whose name here may begin with that of a part."""
        part, _, last = field.rpartition("__")
        if part:
            key = part.removesuffix("_config")
            kind = next(k for f, k in self.draft.model.parts.values() if f == part)
            for name, entry in families.family_of(kind).tables["fields"].items():
                if last in entry["from"]:
                    return f"{key}.{name}"
            self.draft.learner.missing.append(f"{key}.{last} is not read by {kind}")
            return f"{key}.{last}"
        for name, entry in self.inherited.items():
            if field in entry["from"] and name not in self.let:
                self.own.setdefault(field, name)
        if field not in self.own:
            usual = self.called.get(field, field)
            taken = {*self.own.values(), *self.inherited, "i", "task", "labels"}
            self.own[field] = field if usual in taken else usual
        return self.own[field]

    def formula(self, text: str, home: str = "") -> str:
        """The formula in the file's variables; of a layer, a variable that ``each`` computes."""
        text = text or "0"  # unknown: what is missing says so

        class Renamed(ast.NodeTransformer):
            def visit_Name(renamer, node: ast.Name) -> ast.expr:  # noqa: N805
                if node.id in {*_CALLS, "i"}:
                    return node
                return ast.parse(self.name(node.id), mode="eval").body

            def visit_Compare(renamer, node: ast.Compare) -> ast.expr:  # noqa: N805
                said = ast.unparse(node)
                node = renamer.generic_visit(node)  # type: ignore[assignment]
                if re.match(r"\w+\[i\]", said) and type(self._value(said)) is str:
                    usual = self.draft.learner.usual(said)
                    (name,) = names_in(said)
                    if usual:
                        both = (
                            f"{ast.unparse(node)} if {self.name(name)} else {self.formula(usual)}"
                        )
                        return ast.parse(both, mode="eval").body
                return node

        plain = ast.unparse(Renamed().visit(ast.parse(text, mode="eval")))
        if home and re.search(r"\bi\b", plain):
            known = {formula: name for name, formula in self.each[home].items()}
            plainly = not re.search(" and | or ", plain)
            if plainly and (opposite := next((k for k in known if _negated(k) == plain), "")):
                return f"not {known[opposite]}"
            if plainly and re.fullmatch(r"[\w\[\]]+ (!=|not in) \S+", text):
                return f"not {self.formula(_negated(text), home)}"
            if plain not in known:
                word = next(iter(re.findall(r"'(\w+?)(?:_attention|_layer)?'", plain)), "here")
                word = f"not_{word}" if "!=" in text else word
                if "==" not in text and "!=" not in text and " in " not in text and "<" not in text:
                    word = "size"
                taken = {*self.each[home], *self.own.values(), *self.inherited}
                name = next(
                    n for n in (word, *(f"{word}{c}" for c in "abcdefgh")) if n not in taken
                )
                self.each[home][name] = plain
                known[plain] = name
            return known[plain]
        return plain

    def _value(self, said: str) -> Any:
        (name,) = names_in(said)
        entries = self.draft.samples.base.env.get(name) or [0]
        return entries[0]

    def text(self) -> str:
        draft, kept = self.draft, self.kept()
        prefix = f"{draft.base}." if draft.base else ""
        modules: list[str] = []
        extra: list[str] = []
        sizes = [x for p, e in draft.modules.items() if p not in kept for x in e["shape"]]
        for size, times in Counter(sizes).items():
            if times > 1 and len(size) > 45 and not re.search(r"\bi\b", size):
                self.let[f"size{len(self.sizes) or ''}"] = self.formula(size)
                self.sizes[size] = f"size{len(self.sizes) or ''}"
        for path, entry in draft.modules.items():
            if path in kept:
                continue
            line = f"{_key(path.removeprefix(prefix))} = {{ {self._line(path, entry)} }}"
            (modules if path.startswith(prefix) else extra).append(line)
        for path in self.tables.get("modules", {}):
            if prefix + path not in draft.modules:
                modules.append(f"{_key(path)} = false")
        stacks = self._stacks(prefix)
        import transformers

        named = [draft.task, *(["Model"] if draft.base else [])]
        if self.below:
            named = [t for t in self.tables["tasks"] if hasattr(transformers, draft.classes + t)]
        lines = [f"# {draft.classes}: written by docs/_ext/families.py from transformers; read it."]
        lines += [f"# TO DO: {text}" for text in dict.fromkeys(draft.learner.missing)]
        lines += [f'extends = "{self.below}"'] if self.below else []
        lines.append(f'classes = "{draft.classes}"')
        if named != list(self.tables.get("tasks", [])):
            lines.append(f"tasks = {json.dumps(named)}")
        if draft.base != self.tables.get("base", ""):
            lines.append(f'base = "{draft.base}"')
        fields = self._fields()
        lines += ["", "[fields]", *fields] if fields else []
        let = [
            f"{name} = {_toml(value)}"
            for name, value in self.let.items()
            if self._needed(name, [*modules, *extra, *stacks], kept)
        ]
        lines += ["", "[let]", *let] if let else []
        for path, (key, kind) in draft.model.parts.items():
            lines += ["", f"[parts.{key.removesuffix('_config')}]"]
            lines += [
                f'path = "{path.removeprefix(prefix)}"',
                f'config = "{key}"',
                f'family = "{kind}"',
            ]
        lines += stacks
        lines += ["", "[modules]", *modules] if modules else []
        lines += ["", f"[heads.{draft.task}]", *extra] if extra else []
        return "\n".join(lines) + "\n"

    def _needed(self, name: str, lines: list[str], kept: Mapping[str, Any]) -> bool:
        """Whether anything still reads a variable of the file below."""
        texts = [*lines, *map(str, kept.values()), *map(str, self.tables.get("let", {}).values())]
        texts += [str(self._below(path)) for path in self.tables.get("stacks", {})]
        texts += [str(f["default"]) for n, f in self.inherited.items() if n not in self.let]
        return any(re.search(rf"\b{name}\b", text) for text in texts)

    def _line(self, path: str, entry: Mapping[str, Any]) -> str:
        home = path.partition(".*")[0] if "*" in path else ""
        last, kind = path.rpartition(".")[2], entry["kind"]
        role = self.roles.get(last, "")
        role = kind if not role or (families._kind(role) != kind and kind != "experts") else role
        if last == "lm_head":
            role = "head"
        formulas = [self.sizes.get(size) or self.formula(size, home) for size in entry["shape"]]
        parts = [f'role = "{role}"']
        if families._kind(role) != kind:
            parts.append(f'kind = "{kind}"')
        shape = ", ".join(formulas)
        parts.append(f"shape = {shape if shape.isdecimal() else json.dumps(shape)}")
        for key in ("bias", "tied", "tied_bias", "when"):
            text = entry[key]
            if text and text != str(key == "when"):
                found = self.formula(text, home)
                parts.append(
                    f"{key} = {found.lower() if found in ('True', 'False') else json.dumps(found)}"
                )
        if entry["groups"] not in ("1", ""):
            parts.append(f"groups = {json.dumps(self.formula(entry['groups'], home))}")
        if kind == "experts":
            parts.append(f"parts = {json.dumps(list(entry['parts']))}")
        if entry["transposed"]:
            parts.append("transposed = true")
        return ", ".join(parts)

    def _stacks(self, prefix: str) -> list[str]:
        lines = []
        for home, repeat in self.draft.stacks.items():
            path = home.removeprefix(prefix)
            below, each = self._below(path), self.each.get(home, {})
            if below and not each and not self.redefined.get(path):
                continue
            each = {**below.get("each", {}), **each}
            lines += ["", f"[stacks.{_key(path)}]", f"repeat = {_number(self.formula(repeat))}"]
            lines += [
                f"{key} = {_toml(v)}" for key, v in below.items() if key not in ("repeat", "each")
            ]
            if not below and not {"d", "heads", "kv_heads", "width"} <= {*self.own.values()}:
                lines.append("attention = false")
            if each:
                inner = ", ".join(f"{name} = {json.dumps(text)}" for name, text in each.items())
                lines.append(f"each = {{ {inner} }}")
        return lines

    def _fields(self) -> list[str]:
        """Fields that are new or have another default than below, and those that nobody reads."""
        samples, model = self.draft.samples, self.draft.model
        for path in samples.matters:
            if "." not in path:
                for name, inherited in self.inherited.items():
                    if path in inherited["from"] and name not in self.let:
                        self.own.setdefault(path, name)
        lines = []
        maps = getattr(model.config_class, "attribute_map", None) or {}
        for path in list(self.own):
            name, usual = self.own[path], model.usual.get(path)
            usual = None if path in model.optional else usual
            others = samples.matters.get(path, [])
            entry: dict[str, Any] = {}
            derived = samples.default.derived.get(path)
            value = samples.default.env.get(path)
            if usual is None and derived:
                entry["default"] = self.formula(derived)
            elif isinstance(value, list):
                texts = bool(value) and isinstance(value[0], str)
                kept = usual is None and texts
                entry["default"] = "[]" if kept or not value else str(list(usual or value))
                entry["type"] = "texts" if texts else "list"
                if texts:
                    entry["choices"] = sorted(samples.words[path])
            elif isinstance(usual, str) or isinstance(value, str):
                entry["default"] = repr(usual or value)
            else:
                entry["default"] = usual if usual is not None else 0 if value is None else value
            aliases = [a for a, own in maps.items() if own == path]
            off = any(other in (0, None) and other is not False for other in others)
            if (off or entry["default"] == 0) and entry["default"] is not False:
                entry["minimum"] = 0
            below = self.inherited.get(name)
            if below and name not in self.let and path in below["from"]:
                same = below["default"] == entry["default"] and below["minimum"] <= entry.get(
                    "minimum", 1
                )
                if same or self._same_default(path, below["default"], entry["default"]):
                    continue
                entry = {
                    **{
                        k: below[k]
                        for k in ("maximum", "null")
                        if below[k] not in ("", below["default"])
                    },
                    **entry,
                }
            origin = [path, *aliases] if aliases else path
            short = len(entry) == 1 and origin == name
            body = ", ".join(f"{k} = {_toml(v)}" for k, v in entry.items())
            text = _toml(entry["default"]) if short else f"{{ from = {_toml(origin)}, {body} }}"
            lines.append(f"{name} = {text}")
        for path in samples.matters:
            if "." not in path and path not in self.own:
                value = samples.default.env.get(path)
                if isinstance(value, (bool, int, str)):
                    self.draft.learner.missing.append(f"{path} changes shapes and is not read")
                    lines.append(
                        f"{path} = {{ default = {_toml(value)}, choices = [{_toml(value)}] }}"
                    )
        return lines

    def _same_default(self, path: str, below: Any, own: Any) -> bool:
        if not isinstance(below, str) or not isinstance(own, str):
            return False
        names = {name: field for field, name in self.own.items()}
        text = re.sub(r"[a-z_]\w*", lambda m: names.get(m[0], m[0]), below).replace(" / ", " // ")
        usual = self.draft.samples.default.env
        return bool(evaluate(text, usual) == usual.get(path))


def _negated(text: str) -> str:
    """The opposite of each comparison in a formula: its own opposite only if it has just one."""
    pairs = (("==", "!="), ("<", ">="), ("in", "not in"), ("True", "False"))
    signs = {a: b for pair in pairs for a, b in (pair, pair[::-1])}
    pattern = r"(?<= )(==|!=|<|>=|not in|in|True|False)(?= |$)"
    return re.sub(pattern, lambda match: signs[match[0]], text)


def _explicit(sample: Sample) -> dict[str, Any]:
    return {key: value for key, value in sample.fields.items() if value is not None}


def _facts(module: ModuleSpec) -> object:
    """What must be equal; which side of experts is stored first, a model does not always say."""
    plain = module.kind if module.kind in ("linear", "embedding", "convolution", "experts") else ""
    shape = module.shape
    if plain == "experts":
        shape = (shape[0], *sorted(shape[1:]))
    flags = bool(module.bias), bool(module.tied), bool(module.tied_bias)
    return plain, shape, *flags, module.groups


def _key(path: str) -> str:
    return path if re.fullmatch(r"[\w-]+", path) else f'"{path}"'


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }"
    return json.dumps(value)


def _number(text: str) -> str:
    return text if text.isdecimal() else json.dumps(text)


def write(kind: str, name: str = "") -> tuple[str, list[str]]:
    """The text of the file of a type, and what could not be determined."""
    draft = Draft(kind, name)
    for path, (_, inner) in draft.model.parts.items():
        if inner not in families.family_names():
            save(inner, type(draft.model.built[1].get_submodule(path)).__name__)
    best = ""
    if not draft.model.parts:
        others = ["_decoder", "_experts", *families.family_names()]
        plain = [o for o in others if o != kind and not families._read(o).get("parts")]

        def score(other: str) -> float:
            return len(Writer(draft, other).kept()) - 0.2 * len(families._read(other)["modules"])

        near = sorted((o for o in plain if score(o) > 0), key=score)[-6:]
        best = min(near, key=lambda other: len(Writer(draft, other).text()), default="")
    text = Writer(draft, best).text()
    if draft.learner.missing:  # some are found while the text is written
        text = Writer(draft, best).text()
    return text, draft.learner.missing


def differences(kind: str, name: str, fields: Mapping[str, Any], model: Any) -> str:
    """In what the data of a type differ from a model that transformers built from these fields."""
    values = {**json.loads(json.dumps(fields)), "model_type": kind, "architectures": [name]}
    try:
        spec = families.from_config(values)
    except (TypeError, ValueError) as error:
        return f"refused: {error}"
    # of two that share a weight, transformers may build either first: the total counts it once
    ours = {one.name: _facts(one._replace(tied=False)) for one in spec.modules}
    theirs = {
        one.name: _facts(one._replace(tied=False)) for one in from_named_modules(model).modules
    }
    odd = sorted({*ours.items()} ^ {*theirs.items()}, key=str)
    if odd:
        return f"{len(odd)} modules differ, such as {odd[:4]}"
    total = sum(parameter.numel() for parameter in model.parameters())
    return "" if spec.total == total else f"{spec.total:,} parameters, not {total:,}"


def compared(model: Model, seed: int, joint: int = 12) -> tuple[int, list[str]]:
    """Fresh configs, as written and as saved: how many were built, and what differs in which."""
    found: list[str] = []
    samples = Samples(model, joint, seed)
    for sample in samples.all:
        model.build(sample.fields)
        config, built = model.built
        given = {k: v for k, v in sample.fields.items() if v is not None or k not in model.optional}
        for how, fields in (("as written", given), ("as saved", _plain(config.to_dict()))):
            what = differences(model.kind, model.name, fields, built)
            if what and "must divide" not in what:  # such a model could not run
                changes = {
                    path: value
                    for path, value in leaves(sample.fields)
                    if dict(leaves(samples.base.fields)).get(path) != value
                }
                found.append(f"{how}, {changes}: {what}")
    return len(samples.all), found


def save(kind: str, name: str = "") -> None:
    text, missing = write(kind, name)
    place = DATA / f"{kind}.toml"
    place.write_text(text, encoding="utf-8")
    for cached in (families.family_names, families.family_of):
        cached.cache_clear()
    count, found = compared(Model(kind, name), 1)
    print(f"{place.name}: {text.count(chr(10))} lines; {len(found)} of {2 * count} configs differ")
    print(*dict.fromkeys(missing), *found[:6], sep="\n  ")


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    for asked in sys.argv[1:]:
        if asked.startswith("+"):
            count, found = compared(Model(*asked[1:].split(":")), 1)
            print(
                f"{asked[1:]}: {len(found)} of {2 * count} configs differ", *found[:6], sep="\n  "
            )
        else:
            save(*asked.split(":"))
