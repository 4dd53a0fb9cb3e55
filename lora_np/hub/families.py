"""Real architectures: from the fields of a ``config.json`` to the modules that transformers builds.

Each family is a data file, ``data/<model_type>.toml``; ``docs/develop/family.md`` says what it holds. Names,
shapes and defaults are those of transformers 5: ``models/<family>/modeling_<family>.py`` there, and
``configuration_<family>.py``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from types import CodeType
from typing import Any, NamedTuple, get_args

from lora_np.checks import choice, shown, whole_number
from lora_np.hub.expressions import CALLS, Expressions
from lora_np.hub.model import Indices, Kind, Layers, ModelSpec, ModuleSpec

_LARGEST = 2**40  # of a number in a config: above it, and a product of four may not fit anywhere
_DEEPEST = 2**16  # layers of a stack


def build_spec(values: Mapping[str, Any], *, name: str = "", architecture: str | None = None) -> ModelSpec:
    """The modules of a model, from the fields of its ``config.json``.

    Parameters
    ----------
    values : mapping
        The fields. ``model_type`` is needed; any other that is absent takes its default in transformers.
    name : str
        For titles; the model type if empty.
    architecture : str, optional
        A class of transformers, such as ``"LlamaForSequenceClassification"``; by default the first of the
        field ``architectures``, or else the family's usual one.

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
    """
    family = family_of(str(values.get("model_type")))
    architecture = architecture or _architecture(values)
    task = family.tasks[0]
    if architecture:
        known = [family.classes + task for task in family.tasks]
        task = choice("architecture", architecture, known).removeprefix(family.classes)
    modules: list[ModuleSpec] = []
    layers: list[Layers] = []
    try:
        env = _place(family, values, task, "", modules, layers)
    except (IndexError, ZeroDivisionError) as error:
        raise ValueError(f"the fields of this {family.name} config contradict one another: {error}") from None
    return ModelSpec(
        name or family.name,
        tuple(modules),
        family=family.name,
        head=next((module.name for module in modules if module.role == "head"), ""),
        default_targets=family.targets,
        fused=family.fused or None,
        layers=tuple(layers),
        experts_per_token=_experts_per_token(env),
    )


def _architecture(values: Mapping[str, Any]) -> str:
    """The class that a config names first; empty if it names none."""
    names = values.get("architectures") or [""]
    if not isinstance(names, (list, tuple)) or not isinstance(names[0], str):
        raise TypeError(f"architectures must be a list of class names, got {shown(names)}")
    return names[0]


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


class Family(NamedTuple):
    """A data file, compiled."""

    name: str
    classes: str  # what its class names start with
    tasks: tuple[str, ...]  # the first is the default
    targets: tuple[str, ...]  # PEFT's default
    fused: Mapping[str, str]  # experts: the names that PEFT translates, and into which parameter
    bases: Mapping[str, str]  # from a task to the name that its class gives the backbone
    fields: tuple[_Field, ...]
    parts: Mapping[str, Mapping[str, Any]]
    values: tuple[tuple[str, CodeType], ...]
    stacks: tuple[_Stack, ...]
    plain: _Block  # the modules that are the same in every layer
    heads: Mapping[str, _Block]


class _Field(NamedTuple):
    name: str
    fields: tuple[str, ...]  # of the config; the first that is there counts
    kind: str
    default: CodeType
    null: CodeType | None  # where the config says null
    minimum: int
    maximum: tuple[str, str]  # the variable that bounds it, and that one's name in configs


class _Module(NamedTuple):
    name: str
    kind: Kind
    role: str
    alias: str
    parts: tuple[str, ...]
    stacks: tuple[str, ...]


class _Block(NamedTuple):
    """Modules, and one expression for all that is to be computed of them."""

    modules: tuple[_Module, ...]
    code: CodeType


class _Stack(NamedTuple):
    path: str
    repeat: CodeType
    each: tuple[tuple[str, CodeType], ...]  # variables that differ among its layers
    when: CodeType
    facts: CodeType | None
    varied: _Block  # the modules that depend on those


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
    """
    if name not in family_names():
        close = get_close_matches(name[:100], family_names(), n=3)
        hint = f" (close: {', '.join(close)})" if close else ""
        raise ValueError(
            f"model_type must be one of the {len(family_names())} that lora-np count --list shows, got "
            f"{shown(name)}{hint}. Any other model can be counted from its *.safetensors files (headers "
            "only), or from an object with named_modules(), such as a torch model on the meta device"
        )
    return _compiled(name, _read(name))


def _folder() -> Any:
    return files("lora_np.hub") / "data"


# Reading a data file


def _read(name: str) -> dict[str, Any]:
    """The tables of a file, over those of the file that it extends."""
    own = tomllib.loads((_folder() / f"{name}.toml").read_text(encoding="utf-8"))
    heads: dict[str, Any] = {}
    for tasks, modules in own.get("heads", {}).items():
        for task in tasks.split(", "):
            heads[task] = {**heads.get(task, {}), **modules}
    own["heads"] = heads
    return _merged(_read(own.pop("extends")), own) if "extends" in own else own


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """The tables ``above`` over those ``below``: ``false`` takes away, and a name is a field or a value."""
    merged = dict(below)
    for key, value in above.items():
        if key == "let":  # first: what follows may need it
            merged[key] = {
                **value,
                **{name: text for name, text in below.get(key, {}).items() if name not in value},
            }
        elif key in ("fields", "modules", "heads", "stacks", "parts", "bases"):
            merged[key] = {**below.get(key, {}), **value}
        else:
            merged[key] = value
    for key in ("modules", "heads", "stacks", "parts"):
        merged[key] = {name: entry for name, entry in merged.get(key, {}).items() if entry is not False}
    for key, other in (("fields", "let"), ("let", "fields")):
        hidden = above.get(key, {})
        merged[other] = {name: entry for name, entry in merged.get(other, {}).items() if name not in hidden}
    return merged


def _compiled(name: str, data: Mapping[str, Any]) -> Family:
    fields = {key: _names(key, entry) for key, entry in data.get("fields", {}).items()}
    parts = data.get("parts", {})
    expressions = Expressions({key: names[0] for key, names in fields.items()}, parts)
    pairs = _pairs(data.get("modules", {}))
    stacks = []
    for path, stack in data.get("stacks", {}).items():
        each = stack.get("each", {})
        varied = [
            (module, source)
            for module, source in pairs
            if module.stacks[:1] == (path,)
            and not each.keys().isdisjoint(expressions.compile(source).co_names)
        ]
        stacks.append(
            _Stack(
                path,
                expressions.compile(_text(stack["repeat"])),
                tuple((key, expressions.compile(_text(value))) for key, value in each.items()),
                expressions.compile(_text(stack.get("when", True))),
                _facts(stack, fields, expressions),
                _block(varied, expressions),
            )
        )
    apart = {module for stack in stacks for module in stack.varied.modules}
    plain = [pair for pair in pairs if pair[0] not in apart]
    heads = data.get("heads", {})
    base, bases = data.get("base", ""), data.get("bases", {})
    return Family(
        name,
        data["classes"],
        tuple(data["tasks"]),
        tuple(data.get("targets", ())),
        data.get("fused", {}),
        {task: bases.get(task, base) for task in data["tasks"]} | {"Model": ""},
        tuple(_field(key, names, data["fields"][key], expressions) for key, names in fields.items()),
        parts,
        tuple((key, expressions.compile(_text(value))) for key, value in data.get("let", {}).items()),
        tuple(stacks),
        _block(plain, expressions),
        {task: _block(_pairs(heads.get(task, {})), expressions) for task in ("Model", *data["tasks"])},
    )


def _names(key: str, entry: Any) -> tuple[str, ...]:
    names = entry.get("from", key) if isinstance(entry, dict) else key
    return (names,) if isinstance(names, str) else tuple(names)


def _field(name: str, names: tuple[str, ...], entry: Any, expressions: Expressions) -> _Field:
    entry = entry if isinstance(entry, dict) else {"default": entry}
    default, top = entry["default"], entry.get("maximum", "")
    usual = {bool: "flag", int: "size", float: "number"}.get(type(default), "size")
    return _Field(
        name,
        names,
        entry.get("type", "text" if str(default)[:1] == "'" else usual),
        expressions.compile(_text(default))
        if not isinstance(default, float)
        else compile(str(default), "", "eval"),
        expressions.compile(_text(entry["null"])) if "null" in entry else None,
        entry.get("minimum", 1),
        (top, expressions.fields.get(top, top)),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


_KINDS = {"position": "embedding", "latent_norm": "norm"}


def _module(path: str, entry: Mapping[str, Any]) -> _Module:
    role = entry["role"]
    implied = role if role in get_args(Kind) else ("norm" if role.endswith("norm") else "linear")
    stars = [place for place, sign in enumerate(path) if sign == "*"]
    return _Module(
        path.replace("*", "{}"),
        entry.get("kind", _KINDS.get(role, implied)),
        role,
        entry.get("alias", "").replace("*", "{}"),
        tuple(entry.get("parts", ())),
        tuple(path[: place - 1] for place in stars),
    )


def _source(entry: Mapping[str, Any]) -> str:
    """The expression for a module: None, or its shape, bias, tied, tied bias and groups."""
    rest = (_text(entry.get(key, default)) for key, default in _COMPUTED.items())
    whole = f"(({entry['shape']},), {', '.join(f'({text})' for text in rest)})"
    return f"{whole} if {_text(entry['when'])} else False" if "when" in entry else whole


_COMPUTED = {"bias": False, "tied": False, "tied_bias": False, "groups": 1}


def _pairs(entries: Mapping[str, Any]) -> list[tuple[_Module, str]]:
    return [(_module(path, entry), _source(entry)) for path, entry in entries.items()]


def _block(pairs: list[tuple[_Module, str]], expressions: Expressions) -> _Block:
    code = expressions.compile("".join(f"{source},\n" for _, source in pairs))
    return _Block(tuple(module for module, _ in pairs), code)


_FACTS = {
    "width": "d",
    "heads": "heads",
    "kv_heads": "kv_heads",
    "head_width": "width",
    "value_width": "width",
    "activation": "'silu'",
    "cross_attention": "False",
}
_DROPOUTS = ("dropout", "attention_dropout")


def _facts(stack: Mapping[str, Any], fields: Iterable[str], expressions: Expressions) -> CodeType | None:
    """The expression for the facts that :class:`Layers` holds, which a stack without attention has not."""
    if stack.get("attention") is False:
        return None
    usual = _FACTS | {name: f"{name} > 0" if name in fields else "False" for name in _DROPOUTS}
    texts = (f"({_text(stack.get(key, default))})" for key, default in usual.items())
    return expressions.compile(", ".join(texts))


# Evaluating it


def _place(
    family: Family,
    values: Mapping[str, Any],
    task: str,
    path: str,
    modules: list[ModuleSpec],
    layers: list[Layers],
) -> dict[str, Any]:
    """Append the modules and the stacks of a model whose own name is ``path``; its variables."""
    env: dict[str, Any] = {"task": task, "labels": _labels(values)}
    for field in family.fields:
        value = None
        for name in field.fields:
            value = values.get(name)
            if value is not None:
                break
        else:
            code = field.null if field.null is not None and field.fields[0] in values else field.default
            env[field.name] = eval(code, CALLS, env)
            continue
        # the checked path is slow only where it must report
        sound = type(value) is int and field.minimum <= value <= _LARGEST and not field.maximum[0]
        env[field.name] = value if sound and field.kind == "size" else _checked(field, name, value, env)
    prefix = _join(path, family.bases[task])
    for key, part in family.parts.items():
        inner = values.get(part["config"])
        if inner is None:  # older configs have the fields of their language model among their own
            inner = values if part.get("flat") else part.get("defaults", {})
        if not isinstance(inner, Mapping):
            raise TypeError(f"{part['config']} must be an object, got {shown(inner)}")
        kind = inner.get("model_type")
        other = family_of(part["family"] if kind in (None, family.name) else str(kind))
        found = _place(other, inner, part.get("task", "Model"), _join(prefix, part["path"]), modules, layers)
        env.update({f"{key}.{name}": value for name, value in found.items()})
    for name, code in family.values:
        env[name] = eval(code, CALLS, env)
    depths: dict[str, Indices] = {}
    for stack in family.stacks:
        if not eval(stack.when, CALLS, env):
            continue
        depth = whole_number("layers", eval(stack.repeat, CALLS, env), minimum=0, maximum=_DEEPEST)
        if depth:
            depths[stack.path] = range(depth)
        if stack.facts is not None:
            facts = eval(stack.facts, CALLS, env if not stack.each else _first(stack, env))
            layers.append(Layers(_join(prefix, stack.path), depth, *facts))
    _append(family.plain, eval(family.plain.code, CALLS, env), prefix, depths, modules)
    for stack in family.stacks:
        if stack.varied.modules and stack.path in depths:
            _append_varied(stack, env, prefix, depths, modules)
    _append(family.heads[task], eval(family.heads[task].code, CALLS, env), path, depths, modules)
    return env


def _append(
    block: _Block, found: Iterable[Any], prefix: str, depths: Mapping[str, Indices], modules: list[ModuleSpec]
) -> None:
    """Append the modules of a block that exist."""
    if prefix:
        prefix += "."
    for module, computed in zip(block.modules, found, strict=True):
        if not computed:
            continue
        name, kind, role, alias, parts, stacks = module
        ranges = tuple([depths[stack] for stack in stacks if stack in depths])
        if len(ranges) < len(stacks):  # it has no layers
            continue
        entries = (prefix + name, kind, *computed, alias and prefix + alias, parts, ranges, role)
        modules.append(ModuleSpec._make(entries))


def _append_varied(
    stack: _Stack,
    env: Mapping[str, Any],
    prefix: str,
    depths: Mapping[str, Indices],
    modules: list[ModuleSpec],
) -> None:
    """Append modules that differ among layers: alike ones together, with the indices where they are."""
    alike: dict[tuple[Any, ...], list[int]] = {}
    for index in depths[stack.path]:
        inner = {**env, "i": index}
        alike.setdefault(tuple(_vary(stack, inner)), []).append(index)
    names = [name for name, _ in stack.each]
    found: dict[tuple[int, Any], list[int]] = {}
    for variant, indices in alike.items():
        inner = {**env, **dict(zip(names, variant, strict=True))}
        for place, computed in enumerate(eval(stack.varied.code, CALLS, inner)):
            if computed:
                found.setdefault((place, computed), []).extend(indices)
    for (place, computed), indices in sorted(found.items(), key=lambda item: (min(item[1]), item[0][0])):
        block = _Block((stack.varied.modules[place],), stack.varied.code)
        _append(block, [computed], prefix, {**depths, stack.path: _indices(sorted(indices))}, modules)


def _vary(stack: _Stack, inner: dict[str, Any]) -> Iterator[Any]:
    for name, code in stack.each:
        inner[name] = eval(code, CALLS, inner)
        yield inner[name]


def _first(stack: _Stack, env: Mapping[str, Any]) -> dict[str, Any]:
    """The variables of a stack's first layer."""
    inner = {**env, "i": 0}
    for name, code in stack.each:
        try:
            inner[name] = eval(code, CALLS, inner)
        except IndexError:  # it has no layers
            inner[name] = 0
    return inner


def _indices(found: list[int]) -> Indices:
    """The indices as a range where they are evenly spaced."""
    step = found[1] - found[0] if len(found) > 1 else 1
    even = range(found[0], found[-1] + 1, step)
    return even if list(even) == found else tuple(found)


def _checked(field: _Field, name: str, value: Any, env: Mapping[str, Any]) -> Any:
    """A field's value as what it should be."""
    if field.kind == "size":
        number = whole_number(name, value, minimum=field.minimum)
        variable, top = field.maximum
        limit = env[variable] if variable else _LARGEST
        return whole_number(name, number, minimum=field.minimum, maximum=limit, top=top)
    if field.kind == "flag" and not isinstance(value, bool):
        raise TypeError(f"{name} must be true or false, got {shown(value)}")
    if field.kind == "text" and not isinstance(value, str):
        raise TypeError(f"{name} must be text, got {shown(value)}")
    if field.kind in ("list", "texts"):
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        if field.kind == "list":
            return [whole_number(name, each, minimum=0, maximum=_LARGEST) for each in values]
        if not all(isinstance(each, str) for each in values):
            raise TypeError(f"{name} must be a list of texts, got {shown(value)}")
        return values
    if field.kind == "pair":
        pair = value if isinstance(value, (list, tuple)) else (value, value)
        return tuple(whole_number(name, extent, maximum=_LARGEST) for extent in pair)
    return value


def _labels(values: Mapping[str, Any]) -> int:
    """How many labels a classifier has."""
    names = values.get("id2label")
    if isinstance(names, (Mapping, list, tuple)):
        return len(names)
    given = values.get("num_labels")
    return 2 if given is None else whole_number("num_labels", given, minimum=0, maximum=_LARGEST)


def _experts_per_token(env: Mapping[str, Any]) -> int:
    """The variable ``chosen``, the model's or that of one of its parts."""
    return next((value for name, value in env.items() if name.rpartition(".")[2] == "chosen"), 0)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name
