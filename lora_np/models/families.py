"""Real architectures: from the fields of a ``config.json`` to the modules that transformers builds.

Each family is a data file, ``data/<model_type>.toml``; ``docs/develop/family.md`` describes its
contents. Names,
shapes and defaults are those of transformers 5: ``models/<family>/modeling_<family>.py`` there, and
``configuration_<family>.py``.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import CodeType
from typing import Any, NamedTuple, get_args

from lora_np.checks import choice, number, shown, whole_number
from lora_np.models.spec import Indices, Kind, Layers, ModelSpec, ModuleSpec, of_family

_LARGEST = 2**40  # of a number in a config: with more, a product of four may not fit anywhere
_DEEPEST = 2**16  # layers of a stack
_Table = Mapping[str, Any]


def from_config(values: Mapping[str, Any], *, name: str = "") -> ModelSpec:
    """The modules of a model, from the fields of its ``config.json``.

    Parameters
    ----------
    values : mapping
        The fields. ``model_type`` is needed; any other that is absent takes its default in
        transformers. The first of ``architectures`` is a class of transformers, such as
        ``"LlamaForSequenceClassification"``; by default the family's usual one.
    name : str
        For titles; the model type if empty.

    Returns
    -------
    ModelSpec
        The modules by name, kind, shape and role.

    Raises
    ------
    ValueError
        If the family or the architecture is not known, or fields contradict one another.
    TypeError
        If a field has the wrong type.

    Examples
    --------
    >>> fields = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64,
    ...     "intermediate_size": 128}
    >>> from_config(fields).total
    4178240
    """
    if values.get("model_type") is None:
        raise ValueError(
            "model_type is missing: it says which family a config.json is of, such as 'llama'"
        )
    family = family_of(str(values["model_type"]))
    names, task = values.get("architectures") or [""], family.tasks[0]
    if not isinstance(names, (list, tuple)) or not isinstance(names[0], str):
        raise TypeError(f"architectures must be a list of class names, got {shown(names)}")
    if names[0]:
        known = [family.classes + task for task in family.tasks]
        task = choice("architecture", names[0], known).removeprefix(family.classes)
    return _evaluated(family, values, task, name or family.name)[0]


def _evaluated(
    family: Family, values: _Table, task: str, name: str
) -> tuple[ModelSpec, dict[str, Any]]:
    """A model and its variables."""
    try:
        modules, layers, env = _place(family, values, task, "")
    except (IndexError, ZeroDivisionError) as error:
        raise ValueError(
            f"the fields of this {family.name} config contradict one another: {error}"
        ) from None
    chosen = next((each for key, each in env.items() if key.rpartition(".")[2] == "chosen"), 0)
    facts = {
        "layers": tuple(layers),
        "experts_per_token": chosen,
        "positions": _positions(values, env),
    }
    return of_family(name, modules, family.name, **facts), env


@cache
def family_names() -> tuple[str, ...]:
    """The model types that are described.

    Examples
    --------
    >>> "llama" in family_names()
    True
    """
    names = (file.name for file in _folder().iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name[0] != "_"))


class Computing(NamedTuple):
    """How a decoder computes: see `decoder_of`.

    Parameters
    ----------
    facts : mapping
        Of the whole: variables of the family, and the entries of its table ``decoder``.
    layers : list of mapping
        The same for each layer, if layers may differ.
    read : frozenset of str
        The fields of the config that were used.
    spec : ModelSpec
        Its modules.
    """

    facts: Mapping[str, Any]
    layers: list[Mapping[str, Any]]
    read: frozenset[str]
    spec: ModelSpec


def decoder_of(values: Mapping[str, Any]) -> Computing:
    """How a decoder computes, from the fields of its ``config.json``.

    Parameters
    ----------
    values : mapping
        The fields; those that are absent take their defaults in transformers.

    Returns
    -------
    Computing
        As ``docs/develop/family.md`` describes it.

    Raises
    ------
    ValueError
        If the family's data do not say how it computes, or fields contradict one another.
    TypeError
        If a field has the wrong type.

    Examples
    --------
    >>> small = {"model_type": "smollm3", "num_hidden_layers": 4}
    >>> [each["turned"] for each in decoder_of(small).layers]
    [True, True, True, False]
    """
    name = values.get("model_type")
    if name not in family_names() or not family_of(name).tables["runs"]:
        running = [each for each in family_names() if family_of(each).tables["runs"]]
        got = "but it is missing" if name is None else f"got {shown(name)}"
        raise ValueError(f"model_type must be one of {', '.join(map(repr, running))}, {got}")
    family = family_of(name)
    task = "ForCausalLM" if "ForCausalLM" in family.tasks else family.tasks[0]
    spec, env = _evaluated(family, values, task, name)
    said = _merged(_read("_decoder"), family.tables)["decoder"]
    fields = {each: _whole_field(each, entry) for each, entry in said.pop("fields").items()}
    for each, field in fields.items():
        env[each] = _field(family, field, values, env)
        given = next((name for name in field["from"] if values.get(name) is not None), None)
        if field["type"] == "number" and given:
            env[each] = number(given, env[each], minimum=0, open_minimum=field["default"] > 0)
        if isinstance(env[each], list):
            _each_layer(field, env[each], values, env["count"])

    def at(index: int) -> Mapping[str, Any]:
        inner = {**env, "i": index}
        for each, text in said.items():
            inner[each] = family.expressions.value(text, inner)
        return inner

    known = (*fields.values(), *family.tables["fields"].values())
    read = frozenset(source for field in known for source in field["from"])
    return Computing(at(0), [at(index) for index in range(env["count"])], read, spec)


def _each_layer(
    field: Mapping[str, Any], entries: list[Any], values: Mapping[str, Any], layers: int
) -> None:
    """Refuse a list without an entry for each layer, or with one that is not known."""
    name = field["from"][0]
    if entries and len(entries) < layers:
        raise ValueError(
            f"{name} must have an entry for each of {layers} layers, got {shown(values[name])}"
        )
    for index, entry in enumerate(entries[:layers]):
        choice(f"{name}[{index}]", entry, field["choices"])


class Family(NamedTuple):
    """A data file, merged with those that it extends."""

    name: str
    classes: str  # what its class names start with
    tasks: tuple[str, ...]  # the first is the default
    tables: Mapping[str, Any]  # fields, let, stacks, modules, heads, parts and decoder
    expressions: Formulas

    def names_in(self, program: str) -> dict[str, tuple[str, ...]]:
        """What a program, "llama_cpp" or "mlx", calls the modules of a checkpoint; ``{}`` is a
        layer.

        Several, if the program keeps apart what is stacked here along the outputs.
        """
        base = self.tables.get("base", "")
        modules = {_join(base, path): each for path, each in self.tables["modules"].items()}
        modules |= self.tables["heads"].get(self.tasks[0], {})
        named = {path: each[program] for path, each in modules.items() if program in each}
        several = {
            path: (names,) if isinstance(names, str) else names for path, names in named.items()
        }
        found = {path: tuple(name.replace("*", "{}") for name in several[path]) for path in several}
        return {path.replace("*", "{}"): names for path, names in found.items()}


@cache
def llama_cpp_of(name: str) -> tuple[str, str] | None:
    """llama.cpp's architecture for a family, and what its rotary positions turn.

    Parameters
    ----------
    name : str
        As in the field ``model_type``.

    Returns
    -------
    (str, str) or None
        The second is "neighbours", or "halves" as in transformers. None if adapters for the family
        cannot be named for llama.cpp.

    Examples
    --------
    >>> llama_cpp_of("mixtral"), llama_cpp_of("bert")
    (('llama', 'neighbours'), None)
    """
    known = family_of(name).tables["llama_cpp"] if name in family_names() else ()
    return tuple(known) or None


@cache
def family_of(name: str) -> Family:
    """The family of a model type.

    Parameters
    ----------
    name : str
        As in the field ``model_type``.

    Raises
    ------
    ValueError
        If it is not described.

    Examples
    --------
    >>> family_of("qwen2").classes
    'Qwen2'
    """
    if name not in family_names():
        other = (
            "Others are counted from *.safetensors files, or an object with named_modules(), as in"
            " torch"
        )
        raise ValueError(
            f"model_type must be one of lora-np count --list, got {shown(name)}. {other}"
        )
    data = _read(name)
    fields = {field: _whole_field(field, entry) for field, entry in data["fields"].items()}
    expressions = Formulas({field: entry["from"][0] for field, entry in fields.items()})
    return Family(
        name, data["classes"], tuple(data["tasks"]), {**data, "fields": fields}, expressions
    )


def _folder() -> Any:
    return files("lora_np.models") / "data"


# Small expressions over the fields of a config: shapes and conditions


class Formulas(ast.NodeTransformer):
    """Evaluate expressions over the variables of one family.

    An expression holds names, whole numbers, strings, ``True`` and ``False``, lists, ``+ - * // /
    %``, comparisons, ``in``, ``and or not``, ``a if b else c``, ``x[i]``, and calls of ``min``,
    ``max``, ``len`` and ``at(x, key, default)``. ``/`` must divide without a remainder, or the
    config is refused. ``text.d`` is the variable ``d`` of the part ``text``.

    Parameters
    ----------
    fields : mapping of str to str
        The field of the config that a name was read from, for messages.
    """

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.fields = fields
        self._codes: dict[str, CodeType] = {}

    def value(self, said: str | bool | int | float, variables: Mapping[str, Any]) -> Any:
        """What a data file says: an expression, of a tuple where it has commas, or a number."""
        if not isinstance(said, str):
            return said
        if said not in self._codes:
            tree = self.visit(ast.parse(f"({said})", mode="eval"))
            self._codes[said] = compile(ast.fix_missing_locations(tree), said, "eval")
        return eval(self._codes[said], _CALLS, variables)

    def visit_Attribute(self, node: ast.Attribute) -> ast.Name:
        """The name of a variable with a dot in it."""
        return ast.Name(ast.unparse(node), ast.Load())

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        """``/`` as a call of `divided`."""
        if not isinstance(node.op, ast.Div):
            return self.generic_visit(node)
        texts = [ast.unparse(side) for side in (node.left, node.right)]
        names = [ast.Constant(self.fields.get(text, text)) for text in texts]
        sides = [self.visit(side) for side in (node.left, node.right)]
        return ast.Call(ast.Name("/", ast.Load()), [*sides, *names], [])


def divided(whole: int, by: int, whole_name: str, name: str) -> int:
    """``whole / by`` if the remainder is zero.

    Raises
    ------
    ValueError
        If there is one.
    """
    if by == 0 or whole % by:
        raise ValueError(f"{name} must divide {whole_name} = {whole}, got {by}")
    return whole // by


def at(values: Any, key: int | str, default: Any) -> Any:
    """``values[key]`` of an object in JSON, whose keys are text; ``default`` where there is
    none.
    """
    found = values.get(str(key), default) if isinstance(values, Mapping) else default
    if isinstance(found, (int, list, Mapping)):
        return found
    raise TypeError(f"{key} must be a number or an object, got {shown(found)}")


# all that an expression can call
_CALLS: dict[str, Any] = {
    "__builtins__": {},
    "min": min,
    "max": max,
    "len": len,
    "at": at,
    "/": divided,
}


# Reading a data file


def _read(name: str) -> dict[str, Any]:
    """The tables of a file, merged over those of the file that it extends."""
    own = tomllib.loads((_folder() / f"{name}.toml").read_text(encoding="utf-8"))
    own = {"llama_cpp": (), "gguf": False, **own, "runs": "decoder" in own}  # not inherited
    heads: dict[str, Any] = {}
    for tasks, modules in own.get("heads", {}).items():
        for task in tasks.split(", "):
            heads[task] = {**heads.get(task, {}), **modules}
    own["heads"] = heads
    return _merged(_read(own.pop("extends")) if "extends" in own else {}, own)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The tables ``above`` over those ``below``: ``false`` removes, and a name is a field or a
    value.
    """
    merged = {**below, **above}
    for key in ("fields", "modules", "heads", "stacks", "parts", "bases"):
        both = {**below.get(key, {}), **above.get(key, {})}
        merged[key] = {
            name: each for name, each in both.items() if each is not False or key == "fields"
        }
    fields, let = above.get("fields", {}), above.get("let", {})
    merged["fields"] = {name: entry for name, entry in merged["fields"].items() if name not in let}
    kept = {
        name: text for name, text in below.get("let", {}).items() if name not in {*fields, *let}
    }
    merged["let"] = {**let, **kept}  # a new value first: later ones may need it
    lower, upper = below.get("decoder", {}), above.get("decoder", {})
    both = {**lower.get("fields", {}), **upper.get("fields", {})}
    merged["decoder"] = {**lower, **upper, "fields": both}
    return merged


def _whole_field(name: str, entry: Any) -> dict[str, Any]:
    """A field with the defaults for what its entry omits."""
    said = entry if isinstance(entry, dict) else {"default": entry}
    usual = said["default"]
    kind = (
        "text"
        if str(usual)[:1] == "'"
        else {bool: "flag", float: "number"}.get(type(usual), "size")
    )
    field = {"from": name, "null": usual, "minimum": 1, "maximum": "", "type": kind, **said}
    return {**field, "from": [field["from"]] if isinstance(field["from"], str) else field["from"]}


# Evaluating it


def _place(family: Family, values: Mapping[str, Any], task: str, path: str) -> _Found:
    """The modules, the stacks and the variables of a model whose own name is ``path``."""
    tables, value = family.tables, family.expressions.value
    modules: list[ModuleSpec] = []
    layers: list[Layers] = []
    env: dict[str, Any] = {"task": task, "labels": _labels(values)}
    for name, field in tables["fields"].items():
        env[name] = _field(family, field, values, env)
    prefix = (
        path if task == "Model" else _join(path, tables["bases"].get(task, tables.get("base", "")))
    )
    for key, part in tables["parts"].items():
        inner = values.get(part["config"])
        if inner is None:  # older configs have the fields of their language model among their own
            inner = values if part.get("flat") else part.get("defaults", {})
        if not isinstance(inner, Mapping):
            raise TypeError(f"{part['config']} must be an object, got {shown(inner)}")
        kind = inner.get("model_type")
        other = family_of(part["family"] if kind in (None, family.name) else str(kind))
        found = _place(other, inner, part.get("task", "Model"), _join(prefix, part["path"]))
        modules += found[0]
        layers += found[1]
        env.update({f"{key}.{name}": each for name, each in found[2].items()})
    for name, text in tables["let"].items():
        env[name] = value(text, env)
    depths: dict[str, Indices] = {}
    alike: dict[str, _Alike] = {"": [(env, [])]}
    for name, stack in tables["stacks"].items():
        repeat = value(stack["repeat"], env) if value(stack.get("when", True), env) else 0
        depth = whole_number("layers", repeat, minimum=0, maximum=_DEEPEST)
        if not depth:
            continue
        depths[name] = range(depth)
        if "each" in stack:
            alike[name] = _alike(family, stack["each"], depth, env)
        if stack.get("attention") is not False:
            known = Layers._field_defaults | alike.get(name, alike[""])[0][0]
            facts = {
                key: value(stack.get(key, _FACTS.get(key, key)), known)
                for key in Layers._fields[2:]
            }
            layers.append(Layers(_join(prefix, name), depth, **facts))
    homes = {
        path: x if (x := path.partition(".*")[0]) in alike else "" for path in tables["modules"]
    }
    for home in alike:  # the stack of a module, if its layers differ
        here = {path: tables["modules"][path] for path in homes if homes[path] == home}
        modules += _modules(family, here, alike[home], home, prefix, depths)
    modules += _modules(family, tables["heads"].get(task, {}), alike[""], "", path, depths)
    return modules, layers, env


_FACTS = {
    "width": "d", "head_width": "width", "value_width": "width", "activation": "'silu'",
    "dropout": "dropout > 0", "attention_dropout": "attention_dropout > 0",
}  # fmt: skip
_Found = tuple[list[ModuleSpec], list[Layers], dict[str, Any]]
# layers that are alike: their variables, and their indices
_Alike = list[tuple[dict[str, Any], list[int]]]


def _alike(family: Family, each: Mapping[str, Any], depth: int, env: Mapping[str, Any]) -> _Alike:
    """The different layers of a stack."""
    found: dict[tuple[Any, ...], tuple[dict[str, Any], list[int]]] = {}
    for index in range(depth):
        inner = {**env, "i": index}
        for name, text in each.items():
            inner[name] = family.expressions.value(text, inner)
        found.setdefault(tuple(inner[name] for name in each), (inner, []))[1].append(index)
    return list(found.values())


def _modules(
    family: Family,
    entries: _Table,
    alike: _Alike,
    home: str,
    prefix: str,
    depths: Mapping[str, Indices],
) -> list[ModuleSpec]:
    """The modules that exist: identical ones together, with their indices."""
    value = family.expressions.value
    there = [path for path in entries if depths.keys() >= set(_stacks(path))]
    found: dict[tuple[str, Any], list[int]] = {}
    for env, indices in alike:
        for path in there:
            entry = entries[path]
            if "when" not in entry or value(entry["when"], env):
                said = _COMPUTED | entry
                computed = value(
                    "({shape},), {bias}, {tied}, {tied_bias}, {groups}".format_map(said), env
                )
                found.setdefault((path, computed), []).extend(indices)
    modules = []
    for (path, computed), indices in found.items():
        entry = entries[path]
        ranges = [
            tuple(sorted(indices)) if each == home else depths[each] for each in _stacks(path)
        ]
        name, alias = (text.replace("*", "{}") for text in (path, entry.get("alias", "")))
        kind, alias = entry.get("kind") or _kind(entry["role"]), alias and _join(prefix, alias)
        known = (_join(prefix, name), kind, *computed, alias, tuple(entry.get("parts", ())))
        flags = (entry.get("transposed", False), entry.get("called", True))
        modules.append(ModuleSpec._make((*known, tuple(ranges), entry["role"], *flags)))
    return modules


_COMPUTED = {"bias": False, "tied": False, "tied_bias": False, "groups": 1}


@cache
def _stacks(path: str) -> tuple[str, ...]:
    """The lists of layers that a path goes through."""
    return tuple(path[: star.start() - 1] for star in re.finditer(r"\*", path))


@cache
def _kind(role: str) -> Kind:
    """The kind of a module, if its entry does not give it."""
    if role in get_args(Kind):
        return role  # type: ignore[return-value]
    if role == "position":
        return "embedding"
    return "norm" if role.endswith("norm") else "linear"


def _field(family: Family, field: _Table, values: _Table, env: _Table) -> Any:
    """A field's checked value: that of the first name that the config has."""
    for name in field["from"]:
        if values.get(name) is not None:
            break
    else:
        text = field["null"] if field["from"][0] in values else field["default"]
        return family.expressions.value(text, env)
    value, kind = values[name], field["type"]
    several = list(value) if isinstance(value, (list, tuple)) else [value]
    wanted, words = _KINDS.get(kind, (object, ""))
    if not all(isinstance(each, wanted) for each in (several if kind == "texts" else [value])):
        raise TypeError(f"{name} must be {words}, got {shown(value)}")
    if kind == "size":
        number = whole_number(name, value, minimum=field["minimum"])
        variable = field["maximum"]
        limit, top = env.get(variable, _LARGEST), family.expressions.fields.get(variable, variable)
        return whole_number(name, number, minimum=field["minimum"], maximum=limit, top=top)
    if kind == "list":
        return [whole_number(name, each, minimum=0, maximum=_LARGEST) for each in several]
    if kind == "pair":
        pair = several if isinstance(value, (list, tuple)) else several * 2
        return tuple(whole_number(name, each, maximum=_LARGEST) for each in pair)
    return several if kind == "texts" else value


_KINDS = {"flag": (bool, "true or false"), "text": (str, "text"), "texts": (str, "a list of texts")}


def _labels(values: Mapping[str, Any]) -> int:
    """How many labels a classifier has."""
    names = values.get("id2label")
    if isinstance(names, (Mapping, list, tuple)):
        return len(names)
    given = values.get("num_labels")
    return 2 if given is None else whole_number("num_labels", given, minimum=0, maximum=_LARGEST)


def _positions(values: Mapping[str, Any], env: Mapping[str, Any]) -> int:
    """The longest sequence: the number of learned positions, or what the config says for rotary
    ones.
    """
    text = values.get("text_config")
    given = {**values, **(text if isinstance(text, Mapping) else {})}.get("max_position_embeddings")
    found = env.get("positions") or env.get("text.positions") or given
    return found if isinstance(found, int) and found > 0 else 0


@cache
def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name
