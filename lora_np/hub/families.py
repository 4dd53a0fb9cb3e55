"""Real architectures: from the fields of a ``config.json`` to the modules that transformers builds.

Each family is a data file, ``data/<model_type>.toml``; ``docs/develop/family.md`` says what it holds. Names,
shapes and defaults are those of transformers 5: ``models/<family>/modeling_<family>.py`` there, and
``configuration_<family>.py``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from types import CodeType
from typing import Any, NamedTuple, get_args

from lora_np.checks import choice, shown, whole_number
from lora_np.hub.expressions import CALLS, Expressions, as_text
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
    if values.get("model_type") is None:
        raise ValueError("model_type is missing: it says which family a config.json is of, such as 'llama'")
    family = family_of(str(values["model_type"]))
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
        positions=_positions(values, env),
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
    blocks: tuple[_Block, ...]
    heads: Mapping[str, _Block]


class _Field(NamedTuple):
    name: str
    fields: tuple[str, ...]  # of the config; the first that is there counts
    kind: str
    default: CodeType
    null: CodeType  # where the config says null
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
    stack: str = ""  # whose layers differ; the modules of all others are in one block


class _Stack(NamedTuple):
    path: str
    repeat: CodeType
    each: tuple[tuple[str, CodeType], ...]  # variables that differ among its layers
    facts: CodeType | None


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
    fields = {
        key: {"from": key, **(entry if isinstance(entry, dict) else {"default": entry})}
        for key, entry in data.get("fields", {}).items()
    }
    names = {
        key: (entry["from"],) if isinstance(entry["from"], str) else tuple(entry["from"])
        for key, entry in fields.items()
    }
    parts = data.get("parts", {})
    expressions = Expressions({key: found[0] for key, found in names.items()}, parts)
    compiled = expressions.compile
    stacks = [
        _Stack(
            path,
            compiled(f"({as_text(stack['repeat'])}) if ({as_text(stack.get('when', True))}) else 0"),
            tuple((key, compiled(value)) for key, value in stack.get("each", {}).items()),
            _facts(stack, {**fields, **data.get("let", {})}, expressions),
        )
        for path, stack in data.get("stacks", {}).items()
    ]
    varied = {stack.path for stack in stacks if stack.each}
    entries: dict[str, dict[str, Any]] = {"": {}}
    for path, entry in data.get("modules", {}).items():
        home = path.partition(".*")[0]
        entries.setdefault(home if home in varied else "", {})[path] = entry
    heads = data.get("heads", {})
    base, bases = data.get("base", ""), data.get("bases", {})
    return Family(
        name,
        data["classes"],
        tuple(data["tasks"]),
        tuple(data.get("targets", ())),
        data.get("fused", {}),
        {task: bases.get(task, base) for task in data["tasks"]} | {"Model": ""},
        tuple(_field(key, names[key], entry, expressions) for key, entry in fields.items()),
        parts,
        tuple((key, compiled(value)) for key, value in data.get("let", {}).items()),
        tuple(stacks),
        tuple(_block(modules, expressions, stack) for stack, modules in entries.items()),
        {task: _block(heads.get(task, {}), expressions) for task in ("Model", *data["tasks"])},
    )


def _field(name: str, names: tuple[str, ...], entry: Mapping[str, Any], expressions: Expressions) -> _Field:
    default, top = entry["default"], entry.get("maximum", "")
    usual = {bool: "flag", int: "size", float: "number"}.get(type(default), "size")
    return _Field(
        name,
        names,
        entry.get("type", "text" if str(default)[:1] == "'" else usual),
        expressions.compile(default),
        expressions.compile(entry.get("null", default)),
        entry.get("minimum", 1),
        (top, expressions.fields.get(top, top)),
    )


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


_COMPUTED = {"bias": False, "tied": False, "tied_bias": False, "groups": 1}


def _source(entry: Mapping[str, Any]) -> str:
    """The expression for a module: False, or its shape, bias, tied, tied bias and groups."""
    rest = (as_text(entry.get(key, default)) for key, default in _COMPUTED.items())
    whole = f"(({entry['shape']},), {', '.join(f'({text})' for text in rest)})"
    return f"{whole} if {as_text(entry['when'])} else False" if "when" in entry else whole


def _block(entries: Mapping[str, Any], expressions: Expressions, stack: str = "") -> _Block:
    code = expressions.compile("".join(f"{_source(entry)},\n" for entry in entries.values()))
    return _Block(tuple(_module(path, entry) for path, entry in entries.items()), code, stack)


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
_USUAL = {
    "tokens": "0",
    "float_norm": "False",
    "half_softmax": "False",
    "soft_cap": "False",
    "repeats": "1",
    "half_loss": "False",
}


def _facts(stack: Mapping[str, Any], known: Collection[str], expressions: Expressions) -> CodeType | None:
    """The expression for what `Layers` holds, which a stack without attention does not have."""
    if stack.get("attention") is False:
        return None
    usual = _FACTS | {name: f"{name} > 0" if name in known else "False" for name in _DROPOUTS}
    usual |= {name: name if name in known else value for name, value in _USUAL.items()}
    texts = (f"({as_text(stack.get(key, default))})" for key, default in usual.items())
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
            code = field.null if field.fields[0] in values else field.default
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
    kinds: dict[str, _Layers] = {"": [(env, [])]}
    for stack in family.stacks:
        depth = whole_number("layers", eval(stack.repeat, CALLS, env), minimum=0, maximum=_DEEPEST)
        if not depth:
            continue
        depths[stack.path] = range(depth)
        kinds[stack.path] = _kinds(stack, depth, env) if stack.each else kinds[""]
        if stack.facts is not None:
            facts = eval(stack.facts, CALLS, kinds[stack.path][0][0])
            layers.append(Layers(_join(prefix, stack.path), depth, *facts))
    for block in family.blocks:
        if block.stack in kinds:
            _append(block, kinds[block.stack], prefix, depths, modules)
    _append(family.heads[task], kinds[""], path, depths, modules)
    return env


_Layers = list[tuple[dict[str, Any], list[int]]]  # alike layers: their variables, and their indices


def _kinds(stack: _Stack, depth: int, env: Mapping[str, Any]) -> _Layers:
    """The different layers of a stack."""
    alike: dict[tuple[Any, ...], tuple[dict[str, Any], list[int]]] = {}
    for index in range(depth):
        inner = {**env, "i": index}
        for name, code in stack.each:
            inner[name] = eval(code, CALLS, inner)
        alike.setdefault(tuple(inner[name] for name, _ in stack.each), (inner, []))[1].append(index)
    return list(alike.values())


def _append(
    block: _Block, kinds: _Layers, prefix: str, depths: Mapping[str, Indices], modules: list[ModuleSpec]
) -> None:
    """Append the modules of a block that exist: alike ones together, with the indices where they are."""
    found: dict[tuple[int, Any], list[int]] = {}
    for env, indices in kinds:
        for place, computed in enumerate(eval(block.code, CALLS, env)):
            if computed:
                found.setdefault((place, computed), []).extend(indices)
    if prefix:
        prefix += "."
    for (place, computed), indices in sorted(found.items(), key=lambda item: (item[1][:1], item[0][0])):
        name, kind, role, alias, parts, stacks = block.modules[place]
        if indices:
            depths = {**depths, block.stack: _indices(sorted(indices))}
        ranges = tuple([depths[stack] for stack in stacks if stack in depths])
        if len(ranges) == len(stacks):  # otherwise there are no layers
            entries = (prefix + name, kind, *computed, alias and prefix + alias, parts, ranges, role)
            modules.append(ModuleSpec._make(entries))


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


def _positions(values: Mapping[str, Any], env: Mapping[str, Any]) -> int:
    """The longest sequence: what learned positions there are for, or what the config says of rotary ones."""
    text = values.get("text_config")
    given = {**values, **(text if isinstance(text, Mapping) else {})}.get("max_position_embeddings")
    found = env.get("positions") or env.get("text.positions") or given
    return found if isinstance(found, int) and found > 0 else 0


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name
