"""Derive a model's modules, as transformers builds them, from the fields of its config.

Each family is a data file, ``data/<model_type>.toml``; ``docs/develop/family.md`` describes its
contents. Names, shapes and defaults are taken from transformers 5, from its files
``models/<family>/modeling_<family>.py`` and ``configuration_<family>.py``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple, get_args

from lora_np.checks import choice, number, shown, whole_number
from lora_np.models.formulas import Config, Formulas
from lora_np.models.spec import Indices, Kind, Layers, ModelSpec, ModuleSpec, of_family

_LARGEST = 2**40  # a larger number in a config is treated as a mistake
_DEEPEST = 2**16  # the most layers in a stack
_Table = Mapping[str, Any]
_Variables = dict[str, Any]  # values of the variables in a family's formulas, by name
_DATA = files("lora_np.models") / "data"


def from_config(values: Config, *, name: str = "") -> ModelSpec:
    """Describe the modules of a model from the fields of its ``config.json``.

    Parameters
    ----------
    values : mapping
        The fields. ``model_type`` is required; any other missing field takes its default in
        transformers. The first of ``architectures`` is a class of transformers, such as
        ``"LlamaForSequenceClassification"``; by default it is the family's usual class.
    name : str
        The name in titles; by default the model type.

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
        raise ValueError("model_type is missing: it names the family of a config, such as 'llama'")
    family = family_of(str(values["model_type"]))
    names, task = values.get("architectures") or [""], family.tasks[0]
    if not isinstance(names, (list, tuple)) or not isinstance(names[0], str):
        raise TypeError(f"architectures must be a list of class names, got {shown(names)}")
    if names[0]:
        known = {name + task: task for task in family.tasks for name in family.all_classes}
        task = known[choice("architecture", names[0], known)]
    return _evaluated(family, values, task, name or family.name)[0]


def _evaluated(
    family: Family, values: Config, task: str, name: str
) -> tuple[ModelSpec, _Variables]:
    """Return a model's description, and the values of the variables in its family's formulas."""
    try:
        modules, layers, env = _build(family, values, task, "")
    except (IndexError, ZeroDivisionError) as error:
        raise ValueError(
            f"the fields of this {family.name} config contradict one another: {error}"
        ) from None
    chosen = next((env[key] for key in env if key.rpartition(".")[2] == "chosen"), 0)
    facts = {
        "layers": tuple(layers),
        "experts_per_token": chosen,
        "positions": _positions(values, env),
        "config": values,
    }
    return of_family(name, modules, family.name, **facts), env


@cache
def family_names() -> tuple[str, ...]:
    """List the model types that a data file in this package describes.

    Examples
    --------
    >>> "llama" in family_names()
    True
    """
    names = (file.name for file in _DATA.iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name[0] != "_"))


NodeKind = Literal[
    "model", "decoder", "list", "layer", "attention", "mlp", "routed", "experts", "xielu",
    "head_norms", "cross_attention",
]  # fmt: skip


class DecoderNode(NamedTuple):
    """A block of a decoder, which consists of the modules below one path.

    Parameters
    ----------
    kind : str
        The kind of the block, such as ``"attention"``; a ``"list"`` only contains others.
    parts : mapping of str to str
        From the roles of its parts to their names, in the order of the modules. In a list, roles
        and names are equal.
    """

    kind: NodeKind
    parts: dict[str, str]


class LayerConfig(NamedTuple):
    """The settings that determine how one layer of a decoder computes.

    Parameters
    ----------
    activation : str
        The activation function of the MLP.
    kind : str
        The kind of the layer, as in ``layer_types``.
    eps : float
        The number that norms add to the variance.
    norm : {"rms", "layer"}
        The kind of the norms.
    from_one : bool
        Whether norms multiply by ``1 + W``.
    parallel : bool
        Whether attention and MLP have the same input.
    scale, residual, logits : float
        Factors on the embeddings, on the output of a block before it is added, and on the logits.
    logit_cap : float
        The soft cap of the logits; 0 for none.
    score, score_cap : float
        The factor on attention scores, and their soft cap.
    joined : {"parts", "heads"}
        Whether the rows of a fused QKV projection are ordered by part (all queries first) or by
        head.
    normed : {"heads", "whole"}
        Whether norms of queries and keys, if any, apply to each head or to all heads together.
    normed_first : bool
        Whether these norms precede the rotary embedding.
    uses_rotary : bool
        Whether a rotary embedding rotates the queries and keys of the layer.
    window : int
        The number of tokens that a token sees, including itself; 0 for all up to itself.
    theta : float
        The base of the rotary embedding.
    pairs : {"halves", "neighbours"}
        Which two entries of a head are rotated together.
    part : float
        The fraction of a head that is rotated; false if a config cannot set it.
    rope : mapping
        The parameters of the rotary embedding if the config has none.
    rope_kinds : list of str
        The kinds of rotary embeddings that the family supports.
    rope_each : bool
        Whether the config has separate rotary parameters for each kind of layer.
    rotary_width : int
        The width of a head that the rotary embedding assumes.
    original : int
        The context length before it was extended, if a separate field gives it.
    constants : mapping of str to float
        Numbers that a checkpoint stores besides the weights, by name.
    positions : int
        The number of learned positions; 0 for none.
    routed_sum : bool
        Whether the weights of the chosen experts are scaled to a sum of one.
    chosen : int
        The number of experts that each token is routed to.
    heads, kv_heads, width : int
        The number of query heads, the number of key and value heads, and the width of a head.
    """

    activation: str
    kind: str
    eps: float
    norm: Literal["rms", "layer"]
    from_one: bool
    parallel: bool
    scale: float
    residual: float
    logits: float
    logit_cap: float
    score: float
    score_cap: float
    joined: Literal["parts", "heads"]
    normed: Literal["heads", "whole"]
    normed_first: bool
    uses_rotary: bool
    window: int
    theta: float
    pairs: Literal["halves", "neighbours"]
    part: float
    rope: Config
    rope_kinds: list[str]
    rope_each: bool
    rotary_width: int
    original: int
    constants: Mapping[str, float]
    positions: int
    routed_sum: bool
    chosen: int
    heads: int
    kv_heads: int
    width: int


class DecoderConfig(NamedTuple):
    """The blocks of a decoder and the settings of its layers, made by `decoder_of`.

    Parameters
    ----------
    whole : LayerConfig
        The settings of the first layer, used for everything that is the same in all layers.
    layers : list of LayerConfig
        The settings of each layer.
    nodes : mapping of str to DecoderNode
        The block at each path above a module; the path of the whole model is ``""``.
    fields : mapping of str to value
        The fields of the config that were used, with defaults for the missing ones.
    spec : ModelSpec
        The modules.
    """

    whole: LayerConfig
    layers: list[LayerConfig]
    nodes: Mapping[str, DecoderNode]
    fields: Config
    spec: ModelSpec


def decoder_of(values: Config) -> DecoderConfig:
    """Derive a decoder's blocks and the settings of its layers from its ``config.json``.

    Parameters
    ----------
    values : mapping
        The fields; missing ones take their defaults in transformers.

    Returns
    -------
    DecoderConfig
        The blocks of the decoder, and the settings of each layer.

    Raises
    ------
    ValueError
        If the family's data file does not describe a decoder, or fields contradict one another.
    TypeError
        If a field has the wrong type.

    Examples
    --------
    >>> small = decoder_of({"model_type": "smollm3", "num_hidden_layers": 4})
    >>> [layer.uses_rotary for layer in small.layers]
    [True, True, True, False]
    >>> small.nodes["model.layers.0.mlp"].parts
    {'gate': 'gate_proj', 'up': 'up_proj', 'down': 'down_proj'}
    """
    name = values.get("model_type")
    if name not in family_names() or not family_of(str(name)).tables["runs"]:
        running = [family for family in family_names() if family_of(family).tables["runs"]]
        got = "but it is missing" if name is None else f"got {shown(name)}"
        raise ValueError(f"model_type must be one of {', '.join(map(repr, running))}, {got}")
    family = family_of(str(name))
    task = "ForCausalLM" if "ForCausalLM" in family.tasks else family.tasks[0]
    spec, env = _evaluated(family, values, task, family.name)
    whole_number("the number of layers", env["count"])
    entries = _merged(_read("_decoder"), family.tables)["decoder"]
    kinds, fields = entries.pop("nodes"), _fields(entries.pop("fields"))
    for key, field in fields.items():
        given = next((name for name in field["from"][::-1] if values.get(name) is not None), None)
        env[key] = _field(family, field, values, env)
        if field["type"] == "number" and given:
            env[key] = number(given, env[key], open_minimum=field["default"] > 0)
        if isinstance(env[key], list):
            _each_layer(field, env[key], values, env["count"])
    stack = next(iter(family.tables["stacks"].values()))

    def at(index: int) -> _Variables:
        inner = {**env, "i": index}
        for key, formula in {**stack.get("each", {}), **entries}.items():
            inner[key] = family.formulas.value(formula, inner)
        inner["constants"] = {key.format(index): x for key, x in inner["constants"].items()}
        return inner

    layers = [at(index) for index in range(env["count"])]
    nodes = _nodes(family, spec, kinds, layers)
    keys = LayerConfig._fields
    whole, *layer_configs = (LayerConfig._make(map(inner.get, keys)) for inner in (at(0), *layers))
    known = {**family.tables["fields"], **fields}
    used = {name: env[key] for key, field in known.items() for name in field["from"]}
    return DecoderConfig(whole, layer_configs, nodes, used, spec)


def _each_layer(field: _Table, entries: list[str], values: Config, layers: int) -> None:
    """Check that a list, unless it is empty, has a valid entry for each layer."""
    name = field["from"][0]
    if entries and len(entries) < layers:
        raise ValueError(
            f"{name} must have an entry for each of {layers} layers, got {shown(values[name])}"
        )
    for index, entry in enumerate(entries[:layers]):
        choice(f"{name}[{index}]", entry, field["choices"])


_NORMS = ("before_attention", "after_attention", "before_mlp", "after_mlp")


def _nodes(
    family: Family, spec: ModelSpec, kinds: Mapping[str, str], layers: list[_Variables]
) -> dict[str, DecoderNode]:
    """Map the path of every block that contains modules to its `DecoderNode`."""
    base = family.tables["base"]
    nodes = {"": DecoderNode("model", {"model": base}), base: DecoderNode("decoder", {})}

    def add(path: str, role: str) -> None:
        above, _, name = path.rpartition(".")
        index = next((int(part) for part in above.split(".") if part.isdecimal()), 0)
        if above not in nodes:
            formula = kinds[re.sub(r"\.\d+", ".*", above.removeprefix(f"{base}."))]
            kind = family.formulas.value(formula, layers[index])
            kind, own_role = kind if isinstance(kind, tuple) else (kind, kind)
            nodes[above] = DecoderNode(kind, {})
            add(above, own_role)
        node = nodes[above]
        if node.kind == "layer" and role == "norm":
            roles = [norm for norm in _NORMS if layers[index][norm] == name]
        else:
            roles = [name if node.kind == "list" else role]
        node.parts.update(dict.fromkeys(roles, name))

    for module in spec.modules:
        add(module.name, module.role)
    return nodes


class Family(NamedTuple):
    """A family's data file, merged with the files that it extends."""

    name: str
    all_classes: tuple[str, ...]  # prefixes of class names; transformers uses the first
    tasks: tuple[str, ...]  # the first is the default
    tables: _Table  # the tables of the file by name, such as fields and modules
    formulas: Formulas

    @property
    def classes(self) -> str:
        """The prefix of the family's class names in transformers."""
        return self.all_classes[0]


@cache
def names_in(program: str, family: str) -> Mapping[str, tuple[str, ...]]:
    """Map the modules of a family to their names in a program, "llama_cpp" or "mlx".

    ``{}`` stands for the layer. A module may stack matrices along the outputs; if the program
    stores them separately, the module has several names.
    """
    tables, tasks = family_of(family).tables, family_of(family).tasks
    modules = {
        _join(tables.get("base", ""), path): entry for path, entry in tables["modules"].items()
    }
    names = {}
    for path, entry in (modules | tables["heads"].get(tasks[0], {})).items():
        if program in entry:
            several = [entry[program]] if isinstance(entry[program], str) else entry[program]
            names[path.replace("*", "{}")] = tuple(name.replace("*", "{}") for name in several)
    return names


@cache
def llama_cpp_of(name: str) -> tuple[str, str] | None:
    """Return llama.cpp's name for a family and its pairing of rotary entries; None if unknown.

    Parameters
    ----------
    name : str
        The family, as in the field ``model_type``.

    Returns
    -------
    (str, str) or None
        The architecture, and the pairs: "neighbours", or "halves" as in transformers. None if
        llama.cpp's names for the family are unknown.

    Examples
    --------
    >>> llama_cpp_of("mixtral"), llama_cpp_of("bert")
    (('llama', 'neighbours'), None)
    """
    known = family_of(name).tables["llama_cpp"] if name in family_names() else ()
    return tuple(known) or None


@cache
def family_of(name: str) -> Family:
    """Return the family of a model type, read from its data file.

    Parameters
    ----------
    name : str
        The model type, as in the field ``model_type``.

    Raises
    ------
    ValueError
        If no data file describes it.

    Examples
    --------
    >>> family_of("qwen2").classes
    'Qwen2'
    """
    if name not in family_names():
        raise ValueError(
            f"model_type must be one of lora-np count --list, got {shown(name)}. Others are counted"
            " from *.safetensors files, or an object with named_modules(), as in torch"
        )
    data = _read(name)
    fields = _fields(data["fields"])
    formulas = Formulas({name: field["from"][0] for name, field in fields.items()})
    classes = data["classes"] if isinstance(data["classes"], list) else [data["classes"]]
    tables = {**data, "fields": fields}
    return Family(name, tuple(classes), tuple(data["tasks"]), tables, formulas)


# Reading a data file


def _read(name: str) -> dict[str, Any]:
    """Read the tables of a data file, merged with the tables of the file that it extends."""
    own = tomllib.loads((_DATA / f"{name}.toml").read_text(encoding="utf-8"))
    not_inherited = {"runs": "decoder" in own, "in_gguf": "gguf" in own}
    own = {"llama_cpp": (), **own, **not_inherited}
    heads: dict[str, _Table] = {}
    for tasks, modules in own.get("heads", {}).items():
        for task in tasks.split(", "):
            heads[task] = {**heads.get(task, {}), **modules}
    own["heads"] = heads
    return _merged(_read(own.pop("extends")) if "extends" in own else {}, own)


def _merged(below: _Table, above: _Table) -> dict[str, Any]:
    """Merge the tables of a data file over the tables of the file that it extends.

    ``false`` removes an entry; in ``fields`` it is a default. A name that is defined again as a
    formula is no longer a field, and vice versa.
    """
    merged = {**below, **above}
    for key in ("fields", "modules", "heads", "stacks", "parts", "bases"):
        both = {**below.get(key, {}), **above.get(key, {})}
        merged[key] = {
            name: value for name, value in both.items() if value is not False or key == "fields"
        }
    fields, let = above.get("fields", {}), above.get("let", {})
    merged["fields"] = {name: entry for name, entry in merged["fields"].items() if name not in let}
    kept = {
        name: text for name, text in below.get("let", {}).items() if name not in {*fields, *let}
    }
    # inherited formulas come last, because they may use the family's own formulas
    merged["let"] = {**let, **kept}
    for table, inner in (("decoder", ("fields", "nodes")), ("gguf", ("keys", "assumed"))):
        lower, upper = below.get(table, {}), above.get(table, {})
        both = {key: {**lower.get(key, {}), **upper.get(key, {})} for key in inner}
        merged[table] = {**lower, **upper, **both}
    return merged


def _fields(entries: _Table) -> _Table:
    """Return the descriptions of config fields, with defaults for the keys that they omit."""
    fields = {}
    for name, entry in entries.items():
        given = entry if isinstance(entry, dict) else {"default": entry}
        usual = given["default"]
        kind = {bool: "flag", float: "number"}.get(type(usual), "size")
        kind = "text" if str(usual)[:1] == "'" else kind
        field = {"from": name, "null": usual, "minimum": 1, "maximum": "", "type": kind, **given}
        names = [field["from"]] if isinstance(field["from"], str) else field["from"]
        fields[name] = {**field, "from": names}
    return fields


# Evaluating a data file


def _build(family: Family, values: Config, task: str, path: str) -> _Found:
    """Build the modules, layer stacks and variables of a model, or of a composite model's part."""
    tables, value = family.tables, family.formulas.value
    modules: list[ModuleSpec] = []
    layers: list[Layers] = []
    env: _Variables = {"task": task, "labels": _labels(values)}
    for name, field in tables["fields"].items():
        env[name] = _field(family, field, values, env)
    prefix = (
        path if task == "Model" else _join(path, tables["bases"].get(task, tables.get("base", "")))
    )
    for key, part in tables["parts"].items():
        inner = values.get(part["config"])
        env[key] = value(part.get("when", True), {**env, "given": inner is not None})
        if env[key]:
            built = _part(family, part, inner, values, task, prefix)
            modules += built[0]
            layers += built[1]
            env.update({f"{key}.{name}": value for name, value in built[2].items()})
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
    for home in alike:  # if a stack's layers differ, its modules are built for each kind of layer
        here = {path: tables["modules"][path] for path in homes if homes[path] == home}
        modules += _modules(family, here, alike[home], home, prefix, depths)
    modules += _modules(family, tables["heads"].get(task, {}), alike[""], "", path, depths)
    return modules, layers, env


def _part(
    family: Family, part: _Table, inner: object, values: Config, task: str, prefix: str
) -> _Found:
    """Build a part of a model, such as its vision tower, from its config ``inner``."""
    if inner is None:  # older configs have the language model's fields at the top level
        inner = values if part.get("flat") else part.get("defaults", {})
    if not isinstance(inner, Mapping):
        raise TypeError(f"{part['config']} must be an object, got {shown(inner)}")
    kind = inner.get("model_type")
    only = part.get("only") or kind in (None, family.name)
    other = family_of(part["family"] if only else str(kind))
    place = _join(prefix, part.get("paths", {}).get(task, part["path"]))
    return _build(other, inner, part.get("task", "Model"), place)


_FACTS = {
    "width": "d", "head_width": "width", "value_width": "width", "activation": "'silu'",
    "dropout": "dropout > 0", "attention_dropout": "attention_dropout > 0",
}  # fmt: skip
_Found = tuple[list[ModuleSpec], list[Layers], _Variables]
# groups of identical layers: the variables and the layers' indices of each group
_Alike = list[tuple[_Variables, list[int]]]


def _alike(family: Family, formulas: Config, depth: int, env: _Variables) -> _Alike:
    """Group the layers of a stack by the values of the formulas."""
    alike: dict[tuple[Any, ...], tuple[_Variables, list[int]]] = {}
    for index in range(depth):
        inner = {**env, "i": index}
        for name, text in formulas.items():
            inner[name] = family.formulas.value(text, inner)
        alike.setdefault(tuple(inner[name] for name in formulas), (inner, []))[1].append(index)
    return list(alike.values())


def _modules(
    family: Family,
    entries: _Table,
    alike: _Alike,
    home: str,
    prefix: str,
    depths: Mapping[str, Indices],
) -> list[ModuleSpec]:
    """Build a `ModuleSpec` for each group of identical modules whose condition is true."""
    value = family.formulas.value
    there = [path for path in entries if depths.keys() >= set(_stacks(path))]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for env, indices in alike:
        for path in there:
            entry = entries[path]
            if "when" not in entry or value(entry["when"], env):
                shape = value(entry["shape"], env)
                shape = shape if isinstance(shape, tuple) else (shape,)
                others = [value(entry.get(key, usual), env) for key, usual in _COMPUTED.items()]
                groups.setdefault((path, shape, *others), []).extend(indices)
    modules = []
    for (path, *computed), indices in groups.items():
        entry = entries[path]
        ranges = [
            tuple(sorted(indices)) if stack == home else depths[stack] for stack in _stacks(path)
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
    """Return the paths of the stacks of layers that contain the module at ``path``."""
    return tuple(path[: star.start() - 1] for star in re.finditer(r"\*", path))


@cache
def _kind(role: str) -> Kind:
    """Return the usual kind of a module with this role."""
    if role in get_args(Kind):
        return role  # type: ignore[return-value]
    if role == "position":
        return "embedding"
    return "norm" if role.endswith("norm") else "linear"


def _field(family: Family, field: _Table, values: Config, env: _Variables) -> Any:
    """Return the value of a field, or its default if the config does not set the field.

    If the config has several of the field's names, the last name counts.
    """
    for name in reversed(field["from"]):
        if values.get(name) is not None:
            break
    else:
        text = field["null"] if field["from"][0] in values else field["default"]
        return family.formulas.value(text, env)
    value, kind = values[name], field["type"]
    several = list(value) if isinstance(value, (list, tuple)) else [value]
    if "spelt" in field:  # the config may have a letter per layer or older spellings
        letters = value if isinstance(value, str) else several
        several = [field["spelt"].get(str(item), str(item)) for item in letters]
    wanted, words = _KINDS.get(kind, (object, ""))
    if not all(isinstance(item, wanted) for item in (several if kind == "texts" else [value])):
        raise TypeError(f"{name} must be {words}, got {shown(value)}")
    for item in several if "choices" in field else ():
        choice(name, str(item), map(str, field["choices"]))
    if kind == "number":
        return number(name, value)
    if kind == "size":
        size = whole_number(name, value, minimum=field["minimum"])
        variable = field["maximum"]
        limit, top = env.get(variable, _LARGEST), family.formulas.fields.get(variable, variable)
        return whole_number(name, size, minimum=field["minimum"], maximum=limit, top=top)
    if kind == "list":
        return [whole_number(name, item, minimum=0, maximum=_LARGEST) for item in several]
    if kind == "pair":
        pair = several if isinstance(value, (list, tuple)) else several * 2
        return tuple(whole_number(name, item, maximum=_LARGEST) for item in pair)
    return several if kind == "texts" else value


_KINDS = {"flag": (bool, "true or false"), "text": (str, "text"), "texts": (str, "a list of texts")}


def _labels(values: Config) -> int:
    """Return a classifier's number of labels from its config; 2 by default."""
    names, given = values.get("id2label"), values.get("num_labels")
    if given is not None:  # as in transformers, the number counts if the two contradict each other
        return whole_number("num_labels", given, minimum=0, maximum=_LARGEST)
    return len(names) if isinstance(names, (Mapping, list, tuple)) else 2


def _positions(values: Config, env: _Variables) -> int:
    """Return the largest sequence length, from learned positions or the config; 0 if unknown."""
    text = values.get("text_config")
    given = {**values, **(text if isinstance(text, Mapping) else {})}.get("max_position_embeddings")
    positions = env.get("positions") or env.get("text.positions") or given
    return positions if isinstance(positions, int) and positions > 0 else 0


@cache
def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name
