"""Read and validate PEFT's ``adapter_config.json``, and compose new ones."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from lora_np.checks import number, shown
from lora_np.files import FileError, Json, read_json
from lora_np.hub import inside, located
from lora_np.models.selection import (
    ALL_LINEAR,
    Patterns,
    ends_with,
    holders,
    is_all_linear,
    matcher,
)
from lora_np.models.spec import ModelSpec

__all__ = [
    "EMBEDDINGS", "FRESH", "HEADS", "NAME", "SETTINGS", "VOCABULARY", "AdapterConfig",
    "ConfigSource", "check_values", "checked_alpha", "compose", "fields_of", "heads_of", "on_model",
    "parse", "read", "residual_initialisation", "unknown",
]  # fmt: skip

NAME = "adapter_config.json"
# The settings with which each new config begins.
FRESH = {
    "peft_type": "LORA",
    "task_type": None,
    "base_model_name_or_path": None,
    "inference_mode": True,
}

# For each task: the suffix of transformers' class name, and the heads that PEFT trains in full.
HEADS = {
    "SEQ_CLS": ("ForSequenceClassification", ("classifier", "score")),
    "TOKEN_CLS": ("ForTokenClassification", ("classifier", "score")),
    "QUESTION_ANS": ("ForQuestionAnswering", ("qa_outputs",)),
}
# PEFT treats modules with these names as embeddings, which may be tied.
EMBEDDINGS = ("embed_tokens", "lm_head")
# Modules with these names have one row for each token of the vocabulary.
VOCABULARY = (*EMBEDDINGS, "wte", "embed_in", "embed_out", "word_embeddings", "shared")

_MAX_ALPHA = 2**63
_FILTERS = {
    "exclude": "exclude_modules",
    "layers_pattern": "layers_pattern",
    "saved": "modules_to_save",
}
# Maps each setting for single modules to the general setting that it overrides.
_PATTERNS = {"rank_pattern": "r", "alpha_pattern": "lora_alpha"}


def _are_names(value: Any) -> bool:
    return {*map(type, value)} <= {str} and all(value)


def _are_numbers(value: Any) -> bool:
    return {*map(type, value if isinstance(value, (list, tuple)) else [value])} <= {int}


def _are_tokens(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value) and all(_are_tokens(tokens) for tokens in value.values())
    if not isinstance(value, (list, tuple)) or not value or not _are_numbers(value):
        return False
    return min(value) >= 0 and max(value) < 2**31 and len({*value}) == len(value)


_Wanted = tuple[str, type | tuple[type, ...], Callable[[Any], bool] | None]
_SWITCHES = ("use_rslora", "use_dora", "lora_bias", "fan_in_fan_out", "ensure_weight_tying")
_TARGETS: _Wanted = ("a list of names or one expression", (str, list), _are_names)
# Maps each setting to a description of its values, the allowed types and a further condition.
SETTINGS: Mapping[str, _Wanted | None] = {
    "r": ("a whole number from 1 on", int, lambda x: type(x) is int and 1 <= x < 2**31),
    "lora_alpha": ("a finite number", (int, float),
    lambda x: type(x) is not bool and abs(x) < _MAX_ALPHA),
    "lora_dropout": ("from 0 to below 1", (int, float),
    lambda x: type(x) is not bool and 0 <= x < 1),
    "bias": ("'none', 'all' or 'lora_only'", str, ("none", "all", "lora_only").__contains__),
    **dict.fromkeys(_PATTERNS, ("an object", dict, None)),
    **dict.fromkeys(("target_modules", "exclude_modules", "layers_pattern"), _TARGETS),
    "layers_to_transform": ("whole numbers", (int, list), _are_numbers),
    "alora_invocation_tokens": ("a list of whole numbers", list, _are_numbers),
    **dict.fromkeys(("modules_to_save", "target_parameters"), ("a list of names", list,
    _are_names)),
    "trainable_token_indices": (
        "different whole numbers, or lists of them by module", (list, dict), _are_tokens,
    ),
    **dict.fromkeys(_SWITCHES, ("true or false", bool, None)),
    # settings that do not change the output of a saved adapter
    **dict.fromkeys((
        "auto_mapping", "base_model_name_or_path", "corda_config", "eva_config", "inference_mode",
        "init_lora_weights", "loftq_config", "lora_ga_config", "megatron_core", "peft_type",
        "peft_version",
        "qalora_group_size", "revision", "runtime_config", "task_type", "velora_config",
    )),
}  # fmt: skip

# Maps each unsupported setting that changes the output to the reason why it is not supported.
_REFUSED = {
    "arrow_config": "Arrow mixes several adapters anew for each token",
    "kasa_config": (
        "KaSA takes the least singular directions out of the base, so that the adapter belongs to "
        "another one"
    ),
    "layer_replication": "the base is built anew, with some of its layers repeated",
    "megatron_config": "its layers are Megatron's, each with a part of the weight",
    "monteclora_config": "MonteCLoRA draws its updates at random",
    "use_bdlora": "BD-LoRA stores factors as blocks, one below the other",
    "use_qalora": "QA-LoRA averages groups of inputs",
}
# These initialisations leave the base weight unchanged. All others subtract the initial B A from
# it, so the saved factors fit only that changed base.
_INITS_THAT_KEEP_THE_BASE = (None, True, False, "gaussian", "eva", "mica", "orthogonal")


class HasFields(Protocol):
    """A config object such as PEFT's, which can be converted to a dictionary."""

    def to_dict(self) -> dict[str, Any]: ...


ConfigSource: TypeAlias = str | Path | Mapping[str, Any] | HasFields


@dataclass(frozen=True)
class AdapterConfig:
    """The validated settings of one adapter, made by `parse`.

    Parameters
    ----------
    raw : mapping of str to object
        The settings as in the file.
    ranks, alphas : Patterns
        The ranks and alphas of modules that differ from the default.
    targets : callable
        A function from the path of a module to whether PEFT adapts it.
    """

    raw: Mapping[str, Any]
    ranks: Patterns[int]
    alphas: Patterns[float]
    targets: Callable[..., bool]

    def rank_and_alpha(self, module: str) -> tuple[int, float]:
        """Return the rank and alpha of one module, by its path."""
        r, alpha = self.raw.get("r", 8), self.raw.get("lora_alpha", 8)
        if self.raw.get("rank_pattern"):
            r = self.ranks.get(module, r)
        if self.raw.get("alpha_pattern"):
            alpha = self.alphas.get(module, alpha)
        return int(r), float(alpha)

    def saves(self, module: str) -> bool:
        """Return whether ``modules_to_save`` names the module or a module that contains it."""
        names = tuple(self.raw.get("modules_to_save") or ())
        return any(holder.endswith(names) for holder in holders(module))

    def parameters_of(self, module: str) -> list[str]:
        """List the parameters of a module that are among ``target_parameters``."""
        ends = self.raw.get("target_parameters") or ()
        names = {f"{module}.{name.rpartition('.')[2]}" for name in ends}
        return sorted(name for name in names if any(ends_with(name, end) for end in ends))

    def tokens_of(self, module: str) -> tuple[int, ...] | None:
        """Return the token indices of an embedding's trained rows; None if no rows are listed."""
        tokens = self.raw.get("trainable_token_indices")
        if isinstance(tokens, dict):
            tokens = next((ids for name, ids in tokens.items() if module.endswith(name)), None)
        return None if tokens is None else tuple(tokens)


def residual_initialisation(raw: Mapping[str, Json]) -> str | None:
    """Return the initialisation's name if it subtracted the initial B A from the base, else None.

    Parameters
    ----------
    raw : mapping of str to object
        Settings by their names in PEFT.

    Returns
    -------
    str or None
        The name of the initialisation in lower case.

    Examples
    --------
    >>> residual_initialisation({"init_lora_weights": "pissa"})
    'pissa'
    >>> residual_initialisation({"init_lora_weights": "gaussian"}) is None
    True
    """
    init = raw.get("init_lora_weights")
    return None if init in _INITS_THAT_KEEP_THE_BASE else str(init).lower()


def check_values(raw: Mapping[str, Any], at: str = "") -> None:
    """Check that the values of PEFT's settings have the right types and ranges.

    Parameters
    ----------
    raw : mapping of str to object
        Settings by their names in PEFT.
    at : str
        The beginning of messages.

    Raises
    ------
    FileError
        If a value has the wrong type or is out of range.

    Examples
    --------
    >>> check_values({"r": 8, "rank_pattern": {"q_proj": 0}})
    Traceback (most recent call last):
    lora_np.files.FileError: rank_pattern['q_proj'] must be a whole number from 1 on, got 0
    """
    entries = [*zip(raw, raw, raw.values(), strict=True)]
    for name, rule, value in entries:  # the loop also visits the entries that it appends
        wanted, kind, fits = SETTINGS.get(rule) or ("", object, None)
        if value is None and rule not in ("r", "lora_alpha"):
            continue
        if not isinstance(value, kind) or (fits and not fits(value)):
            raise FileError(f"{at}{name} must be {wanted}, got {shown(value)}")
        if name in _PATTERNS and value:
            entries += [
                (f"{name}[{key!r}]", _PATTERNS[name], entry) for key, entry in raw[name].items()
            ]


def unknown(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that are set but are not among `SETTINGS`.

    Parameters
    ----------
    raw : mapping of str to object
        The settings as in the file.

    Returns
    -------
    dict of str to object
        The entries that PEFT ignores, unless a newer version knows them.

    Examples
    --------
    >>> unknown({"r": 8, "shape": "round", "size": None})
    {'shape': 'round'}
    """
    unset: tuple[Any, ...] = (None, False, "", [], {})
    return {key: x for key, x in raw.items() if key not in SETTINGS and x not in unset}


def read(folder: Path) -> dict[str, Any]:
    """Read the settings in the ``adapter_config.json`` of a directory, for `parse`.

    Parameters
    ----------
    folder : Path
        The directory of an adapter.

    Returns
    -------
    dict of str to object
        The fields of the file; their values are not checked.

    Raises
    ------
    FileError
        If there is no such file, or it is not a JSON object.

    Examples
    --------
    >>> from lora_np.hub import shipped_paths
    >>> read(shipped_paths("adapters")["king-james"])["peft_type"]
    'LORA'
    """
    return dict(read_json(inside(folder, NAME)))


def fields_of(config: ConfigSource) -> dict[str, Any]:
    """Read the settings of a LoRA from a file, a directory, a mapping or a ``LoraConfig``.

    Parameters
    ----------
    config : path, mapping or LoraConfig
        The source, which may be the name of a shipped adapter. Sets, tuples and enumeration members
        are converted as in a JSON file.

    Returns
    -------
    dict of str to object
        The settings that are not empty, ``peft_type``, and an empty list of ``target_modules``.

    Raises
    ------
    TypeError
        If the source has another type.

    Examples
    --------
    >>> fields_of({"r": 8, "target_modules": {"v_proj", "q_proj"}, "bias": None})
    {'peft_type': 'LORA', 'r': 8, 'target_modules': ['q_proj', 'v_proj']}
    """
    if isinstance(config, (str, Path)):
        path = located(config)
        config = read(path) if path.is_dir() else read_json(path)
    elif not isinstance(config, Mapping):
        if not hasattr(config, "to_dict"):
            what = f"an {NAME}, its fields or a LoraConfig"
            raise TypeError(f"config must be {what}, got {shown(config)}")
        config = config.to_dict()
    plain = json.loads(json.dumps(config, default=_in_json))
    fields = {key: value for key, value in plain.items() if value not in (None, "", [], {})}
    if plain.get("target_modules") == []:  # unlike a missing list, an empty one selects no module
        fields["target_modules"] = []
    return {"peft_type": "LORA", **fields}


def _in_json(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    return sorted(value, key=str) if isinstance(value, (set, frozenset)) else str(value)


def on_model(spec: ModelSpec, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings plus the modules that PEFT trains without being told to.

    These modules are the heads of the task and, with ``ensure_weight_tying``, tied weights.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    fields : mapping of str to object
        The settings of a LoRA, from `fields_of`.

    Returns
    -------
    dict of str to object
        The settings with these modules added and false settings removed.

    Raises
    ------
    ValueError
        If a setting has a wrong value, or is unknown and may therefore train more parameters.

    Examples
    --------
    >>> from lora_np.models import preset
    >>> fields = {"ensure_weight_tying": True, "target_modules": ["embed_tokens"]}
    >>> on_model(preset("gemma-2b"), fields)["target_modules"]
    ['embed_tokens', 'model.embed_tokens', 'lm_head']
    """
    own = {key: value for key, value in fields.items() if value is not False}
    for key, value in own.items():
        if key == "velora_config" or key not in SETTINGS:
            raise ValueError(
                f"{key} = {shown(value)} may change the number of parameters: not supported"
            )
    check_values(own)
    if task := HEADS.get(str(own.get("task_type"))):
        asked = [name for name in own.get("modules_to_save", ()) if name not in task[1]]
        own["modules_to_save"] = asked + heads_of(spec, task[1])
    return own | _tied(spec, own) if own.get("ensure_weight_tying") else own


def heads_of(spec: ModelSpec, heads: Iterable[str]) -> list[str]:
    """Select the names in ``heads`` that end some part of a module's path.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    heads : iterable of str
        Names such as those in `HEADS`.

    Returns
    -------
    list of str
        The names that end some part of a module's path.

    Examples
    --------
    >>> from lora_np.models import preset
    >>> heads_of(preset("gpt2"), ["lm_head", "score"])
    ['lm_head']
    """
    parts = {part for module in spec.groups for part in module.name.split(".")}
    return [head for head in heads if any(part.endswith(head) for part in parts)]


def _tied(spec: ModelSpec, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that PEFT changes because an embedding with tied modules is selected.

    With ``ensure_weight_tying``, PEFT adds these modules only if the last part of a selected name
    is among `EMBEDDINGS`.
    """
    table = spec.embedding
    tied = [module.name for module in spec.modules if module.tied]
    saved, targets = fields.get("modules_to_save") or [], fields.get("target_modules") or []
    if not tied or table is None:
        return {}
    if _names_one(saved):
        kept = [end for end in saved if not any(ends_with(name, end) for name in tied)]
        return {"modules_to_save": [*kept, table.name]}
    all_of_them = [table.name, *tied]
    if not isinstance(targets, str):
        return {"target_modules": [*targets, *all_of_them]} if _names_one(targets) else {}
    if is_all_linear(targets) or not any(map(matcher(targets), EMBEDDINGS)):
        return {}
    return {"target_modules": "|".join([targets, *map(re.escape, all_of_them)])}


def _names_one(ends: Iterable[str]) -> bool:
    return any(end.rpartition(".")[2] in EMBEDDINGS for end in ends)


def parse(path: Path, raw: Mapping[str, Any]) -> AdapterConfig:
    """Validate an adapter's settings, and return its config; like PEFT, ignore `unknown` settings.

    Parameters
    ----------
    path : Path
        The file, for messages.
    raw : mapping of str to object
        The settings as in the file.

    Returns
    -------
    AdapterConfig
        The settings, with ``rank_and_alpha(module)`` and ``targets(module)``.

    Raises
    ------
    FileError
        If PEFT would reject a value, if an unsupported setting changes the output, or if an
        unknown setting comes from a newer PEFT.

    Examples
    --------
    >>> raw = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}
    >>> config = parse(Path("adapter_config.json"), {**raw, "rank_pattern": {"layers.0.q_proj": 2}})
    >>> [config.rank_and_alpha(f"model.layers.{i}.q_proj") for i in (0, 1)]
    [(2, 16.0), (8, 16.0)]
    """
    if raw.get("peft_type") != "LORA":
        raise FileError(f"{path}: peft_type must be 'LORA', got {raw.get('peft_type')!r}")
    # `SETTINGS` lists the settings up to PEFT 0.21; newer versions may have added some
    newer = [*map(int, re.findall(r"\d+", str(raw.get("peft_version")))[:2])] > [0, 21]
    for key, content in unknown(raw).items():
        if key in _REFUSED or newer:
            why = _REFUSED.get(key, "PEFT is newer")
            after = "if PEFT can merge it, lora-np extract makes a LoRA of the result"
            raise FileError(f"{path}: {key} = {shown(content)} is not supported: {why}; {after}")
    check_values(raw, f"{path}: ")
    targets, layers = raw.get("target_modules"), raw.get("layers_to_transform")
    if not targets and (raw.get("target_parameters") or raw.get("trainable_token_indices")):
        targets = "(?!)"  # select no module: only parameters or tokens are adapted
    filters: dict[str, Any] = {"layers": () if layers is None else layers, "what": "target_modules"}
    for ours, theirs in _FILTERS.items():
        filters[ours] = raw.get(theirs) or ()
    try:
        ranks, alphas = (Patterns(raw.get(name) or {}, name) for name in _PATTERNS)
        wanted = matcher(ALL_LINEAR if targets is None else targets, **filters)
    except ValueError as error:  # an invalid expression, an empty list, or too many patterns
        raise FileError(f"{path}: {error}") from None
    return AdapterConfig(dict(raw), ranks, alphas, wanted)


def compose(raw: Mapping[str, Any], modules: Mapping[str, tuple[int, float]]) -> AdapterConfig:
    """Return a config whose r, lora_alpha and patterns give every module its rank and alpha.

    Settings in ``raw`` are kept if they are right for every module. Otherwise the largest rank and
    its most common alpha become the default, and each exception is listed by its full path.

    Parameters
    ----------
    raw : mapping of str to object
        Other settings, and possibly old ranks and alphas.
    modules : mapping of str to (int, float)
        The rank and the alpha of each module.

    Returns
    -------
    AdapterConfig
        The new settings; write its ``raw`` to a file.

    Raises
    ------
    FileError
        If a setting is invalid, as in `parse`.

    Examples
    --------
    >>> compose({"peft_type": "LORA"}, {"q": (4, 8.0), "k": (4, 8.0), "v": (2, 8.0)}).raw
    {'peft_type': 'LORA', 'r': 4, 'lora_alpha': 8, 'rank_pattern': {'^v': 2}, 'alpha_pattern': {}}
    """
    path = Path(NAME)
    config = parse(path, raw)
    given = "r" in raw and "lora_alpha" in raw  # if one is missing, PEFT silently assumes 8
    if not modules or (
        given and {name: config.rank_and_alpha(name) for name in modules} == modules
    ):
        return config
    # r must be the largest rank, because servers compare r with the largest rank that they allow
    r = max(rank for rank, _ in modules.values())
    alphas_of_r = sorted(alpha for rank, alpha in modules.values() if rank == r)
    alpha = Counter(alphas_of_r).most_common(1)[0][0]  # if several are equally common, the smallest
    ranks = {f"^{re.escape(name)}": rank for name, (rank, _) in modules.items() if rank != r}
    alphas = {
        f"^{re.escape(name)}": _plain(own) for name, (_, own) in modules.items() if own != alpha
    }
    new = {"r": r, "lora_alpha": _plain(alpha), "rank_pattern": ranks, "alpha_pattern": alphas}
    return parse(path, {**raw, **new})


def checked_alpha(alpha: object) -> float:
    """Convert ``alpha`` to a float; raise an error unless it is between -2**63 and 2**63.

    Parameters
    ----------
    alpha : float
        The alpha of an adapter.

    Returns
    -------
    float
        The same number.

    Raises
    ------
    TypeError
        If ``alpha`` is not a number.
    ValueError
        If ``alpha`` is not finite, or too large.

    Examples
    --------
    >>> checked_alpha(-16)
    -16.0
    >>> checked_alpha(1e30)
    Traceback (most recent call last):
        ...
    ValueError: alpha must be between -2**63 and 2**63, got 1e+30
    """
    value = number("alpha", alpha, minimum=-math.inf)
    if not abs(value) < _MAX_ALPHA:
        raise ValueError(f"alpha must be between -2**63 and 2**63, got {alpha}")
    return value


def _plain(alpha: float) -> int | float:
    return int(alpha) if math.isfinite(alpha) and alpha == int(alpha) else alpha
