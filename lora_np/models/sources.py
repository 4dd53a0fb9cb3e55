"""Describe models that are given as configs, presets, checkpoints or objects in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lora_np import hub
from lora_np.checks import Names, choice, whole_number
from lora_np.files import read_json
from lora_np.models.families import family_names, family_of, from_config
from lora_np.models.names import default_targets, fused_names
from lora_np.models.spec import ModelSpec, ModuleSpec, fold, of_family
from lora_np.table import Table

if TYPE_CHECKING:
    from lora_np.models.headers import Base, OpenModel

_PRESETS = Path(__file__).parent / "presets"
_HOST = re.compile(r"https?://(?:www\.)?huggingface\.co/([^/]+/[^/]+).*")
# words in a name that do not identify the model: number formats, publishers, and the affixes
# `meta` and `hf` of Meta's models
_NOISE = (
    r"\b(?:[48][- ]?bits?|i?q\d(?:_\w+)*|[iw]n?t?[48](?:a16)?|fp8|n?v?fp4|bf16|fp16|awq|gptq|gguf"
    r"|qat|ud|bnb|unsloth|hf|meta)\b"
)
_OPTIONAL = r"a|\d[\d.]*(?:x\d+)?[bmk]|v\d\.\d|instruct|chat|it|base"
# words for variants of a model, which have the same shapes as the model
_FREE = r"instruct|chat|it|pt|sft|dpo|base|coder|math|reasoning|think|thinking|preview|exp"
_MATRIX = re.compile(r"(\d+)x(\d+)", re.IGNORECASE)
# a name that matches is probably a mistyped size of a matrix
_SIZES = re.compile(r"[-+\dx×*,. ]*\d[-+\dx×*,. ]*", re.IGNORECASE)


def describe(source: object) -> ModelSpec:
    """Describe the modules of a model, given as a file, a name, a config or a model in memory.

    Parameters
    ----------
    source : str, Path, mapping or model
        ``"100x120"`` for one matrix, the name of a preset (ours, the hub's, or a common spelling)
        or of a shipped model, a ``config.json``, a ``*.safetensors`` or ``*.gguf`` file, a
        directory with a config or safetensors, the fields of a config, or any object with
        ``named_modules()``.

    Returns
    -------
    ModelSpec
        The modules by name, kind, shape and role.

    Raises
    ------
    ValueError
        If the model does not exist, or its file or config is invalid.

    Examples
    --------
    >>> describe("100x120").total, describe("gpt2").total
    (12000, 124439808)
    """
    if isinstance(source, Mapping):
        return from_config(source)
    if not isinstance(source, (str, Path)):
        return from_named_modules(source)
    path, text = Path(source), str(source)
    size = matrix_size(text)
    if size:
        return ModelSpec(text, (ModuleSpec("W0", "linear", size),), default_targets="all-linear")
    if path.is_dir() or path.suffix in (".safetensors", ".json", ".gguf"):
        return open_base(path).spec
    if text in preset_names():
        return preset(text)
    if hub.located(path).is_dir():  # a shipped model
        return open_base(path).spec
    names = typed_names()
    if name := names.find(_HOST.sub(r"\1", text)):
        title = name if hub_name(name).lower() == text.lower() else f"{text}: same shapes as {name}"
        return replace(preset(name), name=title)
    if _SIZES.fullmatch(text):
        what = "two sizes with an x between, such as 100x120"
        raise ValueError(f"a matrix must be {what}, got {text!r}")
    close = ", ".join(names.nearest(text))
    raise ValueError(
        f"no model {text!r}: neither a directory or file (config.json, *.safetensors, *.gguf), nor"
        f" a matrix such as 100x120, nor shipped ({', '.join(hub.shipped_paths('models'))}), nor a"
        f" preset{'; close names: ' * bool(close)}{close or ' (lora-np count --list)'}"
    )


def open_base(source: Base) -> OpenModel:
    """Open a base model, so that its config and headers are read only once.

    Parameters
    ----------
    source : str, path, mapping or OpenModel
        Any source of `describe` except a matrix or a model in memory. No weights are read.

    Returns
    -------
    OpenModel
        The model, with its config, modules and names, and with its weights if they are on disk.

    Raises
    ------
    ValueError
        If the model does not exist, or its file or config is invalid.

    Examples
    --------
    >>> open_base("gpt2").spec.total, open_base({"model_type": "gpt2"}).config
    (124439808, {'model_type': 'gpt2'})
    """
    # imported late, because presets and configs are described without reading checkpoints
    from lora_np.models.headers import OpenModel, open_model

    if isinstance(source, OpenModel):
        return source
    if isinstance(source, Mapping):
        return OpenModel(Path(), source, on_disk=False)
    path = hub.located(source)
    if path.is_dir() or path.name.endswith((".safetensors", ".safetensors.index.json")):
        model = OpenModel.at(path)
        # without a config, open_model reads the headers, or raises an error for missing files
        return model if model.config else open_model(path)
    if path.suffix == ".json":
        name = path.parent.name if path.name == "config.json" else path.stem
        return OpenModel(Path(), read_json(path), name, on_disk=False)
    if path.suffix == ".gguf":
        from lora_np.models.llama_cpp import open_gguf

        return open_gguf(path)
    if matrix_size(str(source)):
        raise ValueError(f"the base must be a model, got the matrix {source}")
    spec = describe(str(source))
    return OpenModel(Path(), spec.config, spec.name, on_disk=False)


def typed_names() -> Names:
    """Index the presets by all their names: their own names, the hub's names and the aliases.

    Returns
    -------
    Names
        An index from each name to its preset.

    Examples
    --------
    >>> typed_names().find("Qwen2.5 7B Instruct"), typed_names().find("llama")
    ('qwen2.5-7b', '')
    """
    known = {name: name for name in preset_names()}
    known |= {hub_name(name): name for name in known if hub_name(name)}
    aliases = read_json(_PRESETS.with_name("aliases.json"))["aliases"]
    for name, places in aliases.items():
        known |= dict.fromkeys(chain.from_iterable(places.values()), name)
    return Names(known, _NOISE, _OPTIONAL, _FREE)


def matrix_size(text: str) -> tuple[int, int] | None:
    """Parse ``"100x120"`` as (100, 120); return None for other text.

    Parameters
    ----------
    text : str
        The text that a user typed.

    Returns
    -------
    (int, int) or None
        The numbers of outputs and inputs, d and k.

    Raises
    ------
    ValueError
        If d or k is zero.

    Examples
    --------
    >>> matrix_size("100x120")
    (100, 120)
    """
    match = _MATRIX.fullmatch(text)
    return match and (whole_number("d", int(match[1])), whole_number("k", int(match[2])))


def preset(name: str) -> ModelSpec:
    """Describe the modules of a well-known model.

    Parameters
    ----------
    name : str
        One of :func:`preset_names`.

    Returns
    -------
    ModelSpec
        The modules by name, kind, shape and role.

    Raises
    ------
    ValueError
        If the preset does not exist; the message suggests the closest name.

    Examples
    --------
    >>> f"{preset('deepseek-v3').total:,}"
    '671,026,404,352'
    """
    return from_config(preset_config(name), name=name)


def preset_config(name: str) -> dict[str, Any]:
    """Return the fields of a preset's config, as a new dictionary that may be changed.

    Parameters
    ----------
    name : str
        One of :func:`preset_names`.

    Returns
    -------
    dict
        The fields that affect the modules, for `from_config`.

    Examples
    --------
    >>> from_config({**preset_config("bert-base"), "vocab_size": 28_996}).total
    108340804
    """
    return dict(_preset(name)["config"])


def preset_names() -> list[str]:
    """List the presets that ship with the package.

    Returns
    -------
    list of str
        The names in alphabetical order.

    Examples
    --------
    >>> preset_names()[:3]
    ['apertus-8b', 'bert-base', 'bloom-560m']
    """
    return sorted(file.stem for file in _PRESETS.iterdir())


def hub_name(preset: str) -> str:
    """Return a preset's name on the hub; empty if its config was not published there.

    Parameters
    ----------
    preset : str
        One of :func:`preset_names`.

    Returns
    -------
    str
        The owner and the name, separated by a slash.

    Examples
    --------
    >>> hub_name("llama-3-8b")
    'meta-llama/Meta-Llama-3-8B'
    """
    data = _preset(preset)
    match = re.match(r"https://huggingface\.co/([^/]+/[^/]+)/", data["source"])
    return str(data.get("hub") or (match[1] if match else ""))


class Catalogue(NamedTuple):
    """The tables of presets and of families, made by `catalogue`.

    Parameters
    ----------
    presets : Table
        The presets with their families, parameters, default targets, and sources of their configs.
    families : Table
        The families whose ``config.json`` can be counted, with classes and default targets.
    """

    presets: Table
    families: Table


def catalogue() -> Catalogue:
    """List the presets, and the families of models that can be counted from their configs.

    Returns
    -------
    Catalogue
        A table of presets and a table of families.

    See Also
    --------
    preset : Describe the modules of one preset.

    Examples
    --------
    >>> presets, families = catalogue()
    >>> "llama" in [row["family"] for row in families.records]
    True
    """
    presets, families = [], []
    for name in preset_names():
        spec = preset(name)
        targets = " ".join(spec.default_targets) or None
        presets.append((name, spec.family, spec.total, targets, _preset(name)["source"]))
    for family in map(family_of, family_names()):
        classes = ", ".join(family.classes + task for task in family.tasks)
        families.append((family.name, classes, " ".join(default_targets(family.name)) or None))
    columns = ("preset", "family", "parameters", "default targets", "source")
    return Catalogue(
        Table(columns, presets, title="Presets"),
        Table(("family", "architectures", "default targets"), families, title="Families"),
    )


def _preset(name: str) -> dict[str, Any]:
    return read_json(_PRESETS / f"{choice('preset', name, preset_names())}.json")


_ASSUMED = "The experts of this family are not described: PEFT may adapt them under other names."


def from_named_modules(model: Any) -> ModelSpec:
    """Describe any object with ``named_modules()``, such as a torch model on the meta device.

    torch is never imported: modules only need ``named_parameters(recurse=False)``, and parameters
    only need a ``shape``.

    Parameters
    ----------
    model : object
        An object with ``named_modules()``.

    Returns
    -------
    ModelSpec
        The modules by name, kind and shape.
    """
    family_name = getattr(getattr(model, "config", None), "model_type", "")
    fused = fused_names(family_name)
    seen: set[int] = set()
    modules: list[ModuleSpec] = []
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    table = None
    if hasattr(model, "get_input_embeddings"):
        with suppress(NotImplementedError):  # transformers raises it if it finds no embedding
            table = model.get_input_embeddings()
    for name, module in model.named_modules():
        role = "head" if module is output else "embedding" if module is table else ""
        own = _torch_modules(name, module, seen, fused or {})
        modules += [one._replace(role=role) for one in own]
    guessed = fused is None and any(module.kind == "experts" for module in modules)
    title, assumed = type(model).__name__, _ASSUMED if guessed else ""
    return of_family(title, fold(modules), family_name, assumed=assumed)


def _torch_modules(
    name: str, module: Any, seen: set[int], fused: Mapping[str, str]
) -> Iterator[ModuleSpec]:
    """Yield a spec for each of a module's own parameters; if possible, one for weight and bias."""
    own = dict(module.named_parameters(recurse=False))
    shapes = {key: tuple(parameter.shape) for key, parameter in own.items()}
    tied = {key: id(parameter) in seen for key, parameter in own.items()}
    seen |= {*map(id, own.values())}
    known = _known(module, shapes)
    if known is not None:
        yield known._replace(
            name=name or type(module).__name__, bias="bias" in shapes, tied=tied["weight"],
            tied_bias=tied.get("bias", False),
        )  # fmt: skip
    for key, shape in shapes.items():
        if known is not None and key in ("weight", "bias"):
            continue
        path = f"{name}.{key}" if name else key
        if type(module).__name__.endswith("Experts") and len(shape) == 3:
            parts = tuple(old for old, new in fused.items() if new == key) or (key,)
            transposed = bool(getattr(module, "is_transposed", False))
            shape = (shape[0], shape[2], shape[1]) if transposed else shape
            yield ModuleSpec(
                path, "experts", shape, tied=tied[key], parts=parts, transposed=transposed
            )
        else:
            yield ModuleSpec(path, "parameter", shape, tied=tied[key])


def _known(module: Any, shapes: Mapping[str, tuple[int, ...]]) -> ModuleSpec | None:
    weight = shapes.get("weight", ())
    if weight and hasattr(module, "in_features") and hasattr(module, "out_features"):
        # a quantised weight is packed, so its shape is not the shape of the layer
        return ModuleSpec("", "linear", (module.out_features, module.in_features))
    if len(weight) == 2 and type(module).__name__ == "Conv1D":
        return ModuleSpec("", "linear", (weight[1], weight[0]), transposed=True)
    if len(weight) == 2 and hasattr(module, "num_embeddings"):
        return ModuleSpec("", "embedding", weight)
    if len(weight) == 2 and type(module).__name__.endswith("Router"):
        return ModuleSpec("", "router", weight)
    if (
        len(weight) >= 3
        and hasattr(module, "kernel_size")
        and not getattr(module, "transposed", False)
    ):
        return ModuleSpec("", "convolution", weight, groups=module.groups)
    if len(weight) == 1:
        return ModuleSpec("", "norm", weight)
    return None
