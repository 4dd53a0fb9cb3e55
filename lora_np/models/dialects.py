"""Translate names of modules and tensors between transformers, checkpoints and other programs.

A checkpoint's tensor and the parameter that transformers loads it into have different names in two
cases: transformers renames the tensor (vision-language models keep the names of older versions), or
it stacks the experts of a layer in one array. llama.cpp and mlx-lm have their own names, which the
families' data files list. Training tools add wrappers around names; ``data/_wrappers.json`` lists
these wrappers and the prefixes in which models differ, and cites where each was seen.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Literal, NamedTuple

from lora_np.files import read_json
from lora_np.models.families import family_names, names_in
from lora_np.models.formulas import Config
from lora_np.models.names import Place, names_table

Program = Literal["llama_cpp", "mlx"]

# maps each config field that describes a part of a composite model to possible paths of the part;
# in a model with a head, `model.` may precede the path
_HOMES = {
    "text_config": ("language_model", "text_model"),
    "vision_config": ("vision_tower", "visual", "vision_model", "image_tower", "video_tower"),
}
# outdated names, which transformers replaces in models of every type
_LEGACY = (
    (r"LayerNorm\.gamma", "LayerNorm.weight"),
    (r"LayerNorm\.beta", "LayerNorm.bias"),
    (r"^(model\.language_model|language_model\.model)\.model", "model.language_model"),
)
# Prefixes in adapter files for image models: kohya and LyCORIS write paths without dots; other
# programs write the name of the diffusion pipeline's part, then a dot.
KOHYA = re.compile(
    r"^(lora_(unet|te[123]?|transformer)_|lycoris_|(unet|transformer|text_encoder(_2)?|diffusion_model)\.)"
)
# a path that starts with one of these belongs to a text encoder
_TEXT = ("text_model.", "encoder.block.", "model.", "lm_head")
_NUMBER = re.compile(r"(?<=\.)\d{1,6}(?=\.)")  # the index of a layer in a path


class Dialects:
    """A translator of names between a model in transformers, its checkpoint and other programs.

    Parameters
    ----------
    config : mapping
        The fields of the checkpoint's ``config.json``.
    families : iterable of str
        Model types to try in order for the names of other programs; by default the config's type.
        The first type that knows a name translates it.

    Examples
    --------
    >>> names = Dialects({"model_type": "gemma3"})
    >>> names.place("language_model.model.layers.0.mlp.up_proj.weight").parameter
    'model.language_model.layers.0.mlp.up_proj.weight'

    >>> mixtral = Dialects({"model_type": "mixtral"})
    >>> mixtral.place("model.layers.0.block_sparse_moe.experts.3.w3.weight")
    Place(parameter='model.layers.0.mlp.experts.gate_up_proj', expert=3, part=1, parts=2,
    transposed=False)
    >>> mixtral.place_in("llama_cpp", "blk.7.ffn_up_exps").part
    1
    >>> mixtral.names_in("llama_cpp", "model.layers.7.mlp.experts.gate_up_proj")
    ('blk.7.ffn_gate_exps', 'blk.7.ffn_up_exps')
    """

    def __init__(self, config: Config, families: Iterable[str] = ()) -> None:
        self._config = config
        self._families = tuple(families) or (str(config.get("model_type")),)
        architectures = config.get("architectures")
        name = architectures[0] if isinstance(architectures, list) and architectures else ""
        # if a model was saved without its head, its names lack the first part, `model.`
        self._bare = str(name).endswith("Model") and "vision_config" in config

    @cached_property
    def _rules(self) -> tuple[_Rule, ...]:
        return _rules_of(tuple(_types(self._config)))

    def place(self, name: str) -> Place | None:
        """Return where a tensor is in the live model; None if no ``Place`` can describe that."""
        place = None
        for rule in self._rules:
            home = next(filter(name.startswith, rule.homes), None)
            if home is None:
                continue
            rest = name[len(home) :]
            matches = [pattern.search(rest) for pattern in rule.patterns]
            part, match = next(((i, hit) for i, hit in enumerate(matches) if hit), (0, None))
            if match is None:
                continue
            if rule.kind == "unread":
                return None
            to = rule.to.replace("\\1", match[1]) if "\\1" in rule.to else rule.to
            name = home + rest[: match.start()] + to + rest[match.end() :]
            if rule.kind != "rename":  # renames come first; after them, at most one rule applies
                stacked = (
                    (int(match[1]), part, len(rule.patterns)) if rule.kind == "experts" else ()
                )
                place = Place(name, *stacked)._replace(transposed=not stacked)
                break
        place = place or Place(name)
        return place._replace(parameter=name.removeprefix("model.")) if self._bare else place

    def place_in(self, program: Program, name: str) -> Place | None:
        """Return the place of the module that a program calls ``name``; None if it is unknown."""
        number, pattern = _NUMBER.search(name), _NUMBER.sub("{}", name, count=1)
        for family in self._families:
            if place := _places_in(program, family).get(pattern):
                return place._replace(parameter=place.parameter.format(number and number[0]))
        return None

    def names_in(self, program: Program, module: str) -> tuple[str, ...]:
        """List a program's names for a module, one for each matrix that the module stacks.

        The list is empty if no name is known. mlx-lm uses transformers' names, except for experts
        and for the language model inside a vision-language model.
        """
        number, pattern = _NUMBER.search(module), _NUMBER.sub("{}", module, count=1)
        for family in self._families:
            if templates := _templates(program, family).get(pattern):
                return tuple(name.format(number and number[0]) for name in templates)
        if program == "mlx":
            return (module.replace("model.language_model.", "language_model.model.", 1),)
        return ()


class _Rule(NamedTuple):
    kind: str
    patterns: tuple[re.Pattern[str], ...]
    to: str
    homes: tuple[str, ...]  # names must start with one of these; `patterns` match the rest


def _types(config: Config) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the type of a model, then each different type of a part, with tensor prefixes."""
    yield str(config.get("model_type")), ("",)
    for key, homes in _HOMES.items():
        inner = config.get(key)
        if isinstance(inner, Mapping) and inner.get("model_type") != config.get("model_type"):
            yield (
                str(inner.get("model_type")),
                tuple(f"{f}{home}." for home in homes for f in ("model.", "")),
            )


@cache
def _rules_of(types: tuple[tuple[str, tuple[str, ...]], ...]) -> tuple[_Rule, ...]:
    rules = []
    for kind, homes in types:
        for entry in names_table()["rules"].get(kind, ()):
            what = next(key for key in ("rename", "experts", "transpose", "unread") if key in entry)
            texts = entry[what]
            if what == "experts":
                texts = [
                    text.replace("\\.", ".").replace(".*.", r".(\d{1,9}).") + "$" for text in texts
                ]
            rules.append(_Rule(what, tuple(map(re.compile, texts)), entry.get("to", ""), homes))
    rules += [_Rule("rename", (re.compile(text),), to, ("",)) for text, to in _LEGACY]
    return tuple(sorted(rules, key=lambda rule: rule.kind != "rename"))


@cache
def _templates(program: str, family: str) -> Mapping[str, tuple[str, ...]]:
    """Map a family's module names to a program's names; ``{}`` stands for the layer's index.

    The mapping is empty if the family is unknown.
    """
    return names_in(program, family) if family in family_names() else {}


@cache
def _places_in(program: str, family: str) -> Mapping[str, Place]:
    """Map a program's names to places in the live model; ``{}`` stands for the layer's index."""
    return {
        name: Place(path, None, part, len(names))
        for path, names in _templates(program, family).items()
        for part, name in enumerate(names)
    }


def is_flat(name: str) -> bool:
    """Return whether a name is in kohya's style, with underscores instead of dots.

    Parameters
    ----------
    name : str
        The name of a module.

    Returns
    -------
    bool
        Whether the name has one of kohya's prefixes and no dot.

    Examples
    --------
    >>> is_flat("lora_unet_mid_block"), is_flat("unet.mid_block")
    (True, False)
    """
    return "." not in name and bool(KOHYA.match(name))


def flat(name: str) -> str:
    """Convert a module's path to kohya's style: a prefix, and underscores instead of dots.

    Parameters
    ----------
    name : str
        The path of the module.

    Returns
    -------
    str
        The path with kohya's prefix, and with underscores instead of dots.

    Examples
    --------
    >>> flat("text_model.encoder.q_proj")
    'lora_te_text_model_encoder_q_proj'
    """
    return (
        name
        if is_flat(name)
        else ("lora_te_" if name.startswith(_TEXT) else "lora_unet_") + name.replace(".", "_")
    )


class Rewrite(NamedTuple):
    """A rule that brings a tensor's name closer to PEFT's form, such as by removing ``_orig_mod.``.

    Parameters
    ----------
    kind : str
        The kind of the difference, as in the rules of programs, such as ``"wrapped"``.
    what : str
        A description for messages.
    pattern : str
        A regular expression that matches what is replaced.
    to : str
        The replacement.
    source : str
        Where such names were seen.
    """

    kind: str
    what: str
    pattern: str
    to: str
    source: str


def unwrapped(name: str) -> tuple[str, list[Rewrite]]:
    """Return the name of an adapter's tensor in PEFT's form, and the rewrites that were applied.

    Parameters
    ----------
    name : str
        The name in a file.

    Returns
    -------
    name : str
        The name without wrappers.
    changes : list of Rewrite
        The rewrites that applied; empty if the name was already PEFT's.

    See Also
    --------
    renamed : Map names to a model's names that differ in a prefix.

    Examples
    --------
    >>> name, changes = unwrapped("_orig_mod.base_model.model.layers.0.q.lora_A.default.weight")
    >>> name, [change.kind for change in changes]
    ('base_model.model.layers.0.q.lora_A.weight', ['wrapped', 'named'])
    """
    changes = []
    for rewrite in rewrites():
        name, times = re.subn(rewrite.pattern, rewrite.to, name)
        if times:
            changes.append(rewrite)
    return name, changes


def renamed(names: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """Map unknown names to the model's names that differ only in a prefix, if exactly one does.

    Parameters
    ----------
    names : iterable of str
        Paths of modules.
    known : collection of str
        The names that the model has.

    Returns
    -------
    dict of str to str
        From each unknown name that has exactly one counterpart to that counterpart.

    Examples
    --------
    >>> renamed(["model.layers.0.q_proj", "lm_head"],
    ...     ["model.language_model.layers.0.q_proj", "lm_head"])
    {'model.layers.0.q_proj': 'model.language_model.layers.0.q_proj'}
    """
    prefixes, known = [entry["prefix"] for entry in _wrappers()["prefixes"]], frozenset(known)
    counterparts = {}
    for name in (name for name in names if name not in known):
        ends = {name.removeprefix(prefix) for prefix in prefixes}
        others = {prefix + end for prefix in prefixes for end in ends} & known
        if len(others) == 1:
            counterparts[name] = min(others)
    return counterparts


@cache
def rewrites() -> tuple[Rewrite, ...]:
    """List the rules that `unwrapped` applies to the names of tensors, in their order."""
    return tuple(Rewrite(**entry) for entry in _wrappers()["rewrites"])


@cache
def _wrappers() -> dict[str, list[dict[str, str]]]:
    return read_json(Path(__file__).parent / "data" / "_wrappers.json")
