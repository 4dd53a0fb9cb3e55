"""What a LoRA on a whole model costs, for every way to specify the model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from lora_np import models
from lora_np.accounting.matrix import pair_size
from lora_np.checks import choice, shown, whole_number
from lora_np.files import read_json
from lora_np.lora import TUNERS, Tuner, selecting, tuner_of
from lora_np.models import ModelSpec, ModuleSpec, Patterns, Pick, Targets, peft
from lora_np.table import Cell, Shown, Table, shape_text

Rows = Sequence[int] | Mapping[str, Sequence[int]]


class AdaptedModules(NamedTuple):
    """LoRA of one rank on a group of identical modules, or on some of them."""

    module: ModuleSpec
    rank: int
    each: int  # numbers on one module
    names: tuple[str, ...] | None = None

    @property
    def copies(self) -> int:
        """How many modules are adapted."""
        return self.module.copies if self.names is None else len(self.names)

    @property
    def trainable(self) -> int:
        """Numbers on all of them."""
        return self.each * self.copies

    @property
    def lowest(self) -> int:
        """The first index among them: the lowest layer that is adapted."""
        if self.names is None:
            return self.module.ranges[0][0] if self.module.ranges else 0
        place = self.module.name.split(".").index("{}")
        return min(int(name.split(".")[place]) for name in self.names)

    @property
    def limit(self) -> int:
        """``min(d, k)``: the rank above which nothing more can be expressed."""
        return min(self.module.sides[1:])


@dataclass(frozen=True, repr=False)
class LoraCount(Shown):
    """What a LoRA on a model costs: the result of `count_model`.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    rank : int
        The requested rank; ``rank_pattern`` may give some modules another.
    adapters : tuple of AdaptedModules
        What is adapted, identical modules together.
    saved : mapping of str to int
        Numbers in the copies that ``modules_to_save`` trains, and in the rows of
        ``trainable_token_indices``, by module.
    biases : int
        Numbers in the base's biases that are also trained.
    experts : str
        The convention for experts, ``"peft"`` or ``"per-expert"``; empty without experts.
    dora : bool
        Whether the adapters are DoRA's, whose forward keeps more.
    frozen : int
        Numbers of the adapter that are not trained: MiCA's B.
    tuner : str
        Another tuner of PEFT.
    """

    spec: ModelSpec
    rank: int
    adapters: tuple[AdaptedModules, ...]
    saved: Mapping[str, int]
    biases: int
    experts: str
    dora: bool = False
    frozen: int = 0
    tuner: str = ""

    @cached_property
    def adapter(self) -> int:
        """Numbers in the adapter's own factors (and DoRA's magnitudes)."""
        return sum([each.trainable for each in self.adapters])

    @property
    def trainable(self) -> int:
        """Everything trained: adapter, saved copies, biases."""
        return self.adapter + sum(self.saved.values()) + self.biases

    @cached_property
    def base(self) -> int:
        """Parameters of the model without any of it."""
        return self.spec.total

    @property
    def total(self) -> int:
        """Base, adapter and saved copies: what is in memory, and what PEFT calls "all params"."""
        return self.base + self.adapter + self.frozen + sum(self.saved.values())

    @property
    def percent(self) -> float:
        """``100 trainable / total``, as PEFT has it."""
        return 100 * self.trainable / self.total

    @property
    def peft_line(self) -> str:
        """The line printed by PEFT's ``print_trainable_parameters()``, character for character."""
        counts = f"trainable params: {self.trainable:,d} || all params: {self.total:,d}"
        return f"{counts} || trainable%: {self.percent:.4f}"

    @property
    def verdict(self) -> str:
        """PEFT's line, or the assumptions if that line may be wrong."""
        return self.spec.assumed or self.peft_line

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the reader: the convention for experts, ranks that are too high."""
        notes = []
        if self.experts:
            notes.append(f"Experts are counted by the {self.experts} convention.")
        for each in self.adapters:
            if each.rank > each.limit:
                above = f"above min(d, k) = {each.limit} of {_starred(each.module)}"
                notes.append(f"Rank {each.rank} is {above}: it can express nothing more.")
        return tuple(notes)

    @property
    def table(self) -> Table:
        """One row for each kind of module in the model, adapted or not."""
        rows = []
        groups = zip(self.spec.groups, self.spec.table.rows, strict=True)
        for module, (name, kind, shape, copies, base) in groups:
            found = [each for each in self.adapters if each.module is module]
            ranks = sorted({each.rank for each in found})
            rank = ranks[0] if len(ranks) == 1 else (", ".join(map(str, ranks)) or None)
            adapted, trained = (sum(map(attrgetter(of), found)) for of in ("copies", "trainable"))
            rows.append((name, kind, shape, copies, adapted, rank, trained, base))
        columns = ("module", "kind", "shape", "modules", "adapted", "rank", "trainable", "base")
        return self._titled(columns, rows)

    @property
    def by_module(self) -> Table:
        """One row for each module that is trained."""
        rows: list[tuple[Cell, ...]] = [
            (name, each.module.kind, shape_text(each.module.shape), each.rank, each.each)
            for each in self.adapters
            for name in each.names or each.module.names()
        ]
        rows += [(name, "saved copy", None, None, numbers) for name, numbers in self.saved.items()]
        return self._titled(("module", "kind", "shape", "rank", "trainable"), rows)

    def _titled(self, columns: tuple[str, ...], rows: Sequence[tuple[Cell, ...]]) -> Table:
        title = f"{self.spec.name}, {self.tuner or f'rank {self.rank}'}"
        return Table(columns, rows, title=title, notes=(*self.notes, self.verdict))


@dataclass(frozen=True, repr=False)
class ModelCount(Shown):
    """The numbers in a model: the result of `count` without a rank.

    Parameters
    ----------
    trainable, total : int
        Of a model of ours, the numbers in Tensors and in all arrays; of torch's, in parameters with
        a gradient and in all. In a described model everything is trainable.
    nbytes : int or None
        The memory that the arrays take; of a quantised weight, that of its codes and scales. None
        of shapes.
    table : Table
        One row for each array, or for each group of alike modules.

    Examples
    --------
    >>> from lora_np.accounting import count
    >>> found = count("llama-2-7b")
    >>> found.trainable, found.frozen
    (6738415616, 0)
    """

    trainable: int
    total: int
    nbytes: int | None
    table: Table

    @property
    def frozen(self) -> int:
        """Numbers in plain arrays."""
        return self.total - self.trainable


def count(model: Any, *, rank: int | None = None, config: Any = None, **options: Any) -> Any:
    """What a LoRA on any model costs; without a rank or a config, the model's own numbers.

    Parameters
    ----------
    model : object
        Whatever `model_spec` takes: a name, a path, a config, a model in memory.
    rank : int, optional
        Of a LoRA.
    config : str, Path, mapping or LoraConfig, optional
        Instead, PEFT's whole config: an ``adapter_config.json`` or a directory with one, its
        fields, or the object. Every setting that changes how many numbers are trained works as in
        PEFT. It may be that of another tuner in `lora_np.lora.TUNERS`.
    **options
        Other options of `count_model`; with a config, only ``experts``.

    Returns
    -------
    LoraCount or ModelCount
        The numbers of the LoRA, or of each array of the model, a tied weight once. It prints as a
        table.

    Raises
    ------
    TypeError
        If the model holds no arrays, or a value is of the wrong kind.
    ValueError
        If the model or an option is not understood, an option is not one of `count_model`, or
        ``config`` holds a setting that is not counted here.

    See Also
    --------
    count_model : The options of a LoRA.

    Examples
    --------
    >>> count("llama-3-8b", rank=16).trainable, count("llama-3-8b").total
    (6815744, 8030261248)
    >>> settings = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"],
    ...     "layers_to_transform": [0, 1]}
    >>> count("llama-3-8b", config=settings).trainable
    131072
    >>> import numpy as np
    >>> from lora_np import Linear, inject
    >>> count(inject(Linear(np.zeros((100, 120))), rank=8, alpha=16, rng=0))
    LoRALinear: 1,760 of 13,760 numbers trainable
    array   shape      trainable  frozen
    ------  ---------  ---------  ------
    base.W  100 x 120          0  12,000
    A       8 x 120          960       0
    B       100 x 8          800       0
    """
    if config is not None:
        spec, experts = model_spec(model), options.pop("experts", "peft")
        fields = config_fields(config)
        if given := [*["rank"] * (rank is not None), *options]:
            raise ValueError(f"config says all about the LoRA: leave out {', '.join(given)}")
        if tuner := tuner_of(fields):
            return _count_tuner(spec, tuner, fields)
        return count_model(spec, **lora_options(spec, fields), experts=experts)
    if rank is not None or options:
        return count_model(model, rank=rank, **options)  # type: ignore[arg-type]
    if not is_described(model):
        from lora_np.accounting.in_memory import tree_count

        return ModelCount(*tree_count(model))
    spec, parameters = model_spec(model), getattr(model, "named_parameters", None)
    if parameters is None:
        return ModelCount(spec.total, spec.total, None, spec.table)
    trainable = sum(each.numel() for _, each in parameters() if each.requires_grad)
    return ModelCount(trainable, spec.total, None, spec.table)


def counted(model: Any, options: Mapping[str, Any]) -> ModelSpec | LoraCount:
    """The LoRA that is meant: a count itself, or `count` with these options; without any, the whole
    model.
    """
    if isinstance(model, LoraCount):
        if options:
            raise TypeError(
                f"{', '.join(options)}: the LoRA is counted already, give its model instead"
            )
        return model
    found: ModelSpec | LoraCount = count(model, **options) if options else model_spec(model)
    return found


def count_model(
    model: Any,
    *,
    rank: int,
    targets: str | Iterable[str] | None = None,
    rank_pattern: Mapping[str, int] | None = None,
    modules_to_save: str | Iterable[str] = (),
    dora: bool = False,
    bias: str = "none",
    target_parameters: Iterable[str] = (),
    trainable_token_indices: Rows = (),
    lora_bias: bool = False,
    mica: bool = False,
    experts: str = "peft",
    **filters: Any,
) -> LoraCount:
    """What a LoRA on a model costs, to the last parameter, as PEFT would build it.

    Parameters
    ----------
    model : object
        Whatever `model_spec` takes: a name, a path, a config, a model in memory.
    rank : int
        At least 1.
    targets : str, iterable of str, or None
        A list holds ends of module names (``["q_proj", "v_proj"]``). A string is a regular
        expression for whole names, or ``"all-linear"``: every linear map but the output head. None
        takes the family's default, as PEFT does; for a single matrix and for a model of ours that
        is ``"all-linear"``.
    rank_pattern : mapping of str to int
        Other ranks for some modules, by a regular expression for the end of their names; the first
        that matches wins.
    modules_to_save : str or iterable of str
        Ends of the names of modules that are trained in full as well. PEFT keeps the original and
        the copy, and so does this count.
    dora : bool
        Count DoRA's magnitude vectors.
    bias : {"none", "all", "lora_only"}
        Which biases of the base model are trained as well.
    target_parameters : iterable of str
        Ends of the names of parameters that are adapted by themselves, such as
        ``"experts.down_proj"``.
    trainable_token_indices : sequence of int, or mapping of str to sequence of int
        Rows to train of the input embedding, or of the modules whose names end in a key.
    lora_bias : bool
        Whether B has a bias, of d_out numbers.
    mica : bool
        Whether A alone is trained, as with ``init_lora_weights="mica"``.
    experts : {"peft", "per-expert"}
        How experts that transformers keeps fused in one array are adapted. ``"peft"`` is what PEFT
        does with them: gate and up projection share one pair of factors of rank 2 r, and in the
        fused families the names ``gate_proj``, ``up_proj`` and ``down_proj`` mean experts only.
        ``"per-expert"`` adapts each linear map of each expert separately.
    **filters
        What else selects modules, as `lora_np.models.matcher` takes it: ``exclude`` (PEFT's
        ``exclude_modules``), ``layers`` (``layers_to_transform``) and ``layers_pattern``.

    Returns
    -------
    LoraCount
        The adapter's numbers, module by module, which print as a table.

    Raises
    ------
    TypeError
        If a rank is not a whole number, or a target not a name.
    ValueError
        If a rank is below 1, a target or a pattern matches nothing (the message shows close names),
        the family has no default targets (the message names the candidates), or an option is
        unknown.

    Examples
    --------
    >>> count_model("100x120", rank=8).trainable, count_model("llama-3-8b", rank=16).trainable
    (1760, 6815744)
    """
    spec = model_spec(model)
    rank = whole_number("rank", rank)
    for name in filters:
        choice("an option", name, OPTIONS)
    choice("bias", bias, ("none", "all", "lora_only"))
    choice("experts", experts, ("peft", "per-expert"))
    has_experts = "experts" in [module.kind for module in spec.groups]
    named = any("experts" in module.name.split(".") for module in spec.groups)
    if experts == "peft" and named:
        _check_experts(spec, targets)
    if experts == "per-expert":
        if not has_experts and not named:
            raise ValueError(
                f"experts = 'per-expert' (--experts) needs experts, and {spec.name} has none"
            )
        spec = spec.per_expert()
    modules_to_save = (
        (modules_to_save,) if isinstance(modules_to_save, str) else tuple(modules_to_save)
    )
    target_parameters = tuple(target_parameters)
    ranks = {
        key: whole_number(f"rank_pattern[{key!r}]", own)
        for key, own in (rank_pattern or {}).items()
    }
    patterns = Patterns(ranks)
    if ranks:
        models.check_patterns(spec, patterns)
    picks = models.pick(
        spec, targets, saved=modules_to_save, target_parameters=target_parameters, **filters
    )

    def numbers(picked: Pick, name: str) -> tuple[int, int]:
        own = patterns.get(picked.path(name), rank * picked.times)
        if mica:
            return own, own * picked.module.sides[2]
        return own, _numbers(picked, own, dora=dora, lora_bias=lora_bias)

    adapters: list[AdaptedModules] = []
    for each in picks:
        if ranks:
            adapters += _adapted(each.module, each.names, partial(numbers, each))
        else:  # all are alike
            adapters.append(AdaptedModules(each.module, *numbers(each, ""), each.names))
    frozen = mica * sum(each.rank * each.module.sides[1] * each.copies for each in adapters)
    saved = models.saved_modules(spec, modules_to_save) if modules_to_save else {}
    tokens = _token_rows(spec, trainable_token_indices, adapters, saved)
    copies = {name: _copy_size(module, saved) for name, module in saved.items()} | tokens
    biases = _bias_size(spec, bias, adapters, saved)
    convention = experts if has_experts else ""
    return LoraCount(spec, rank, tuple(adapters), copies, biases, convention, dora, frozen)


OPTIONS = (*(count_model.__kwdefaults__ or ()), "rank", "exclude", "layers", "layers_pattern")


def _count_tuner(spec: ModelSpec, tuner: Tuner, fields: Mapping[str, Any]) -> LoraCount:
    """Count what another tuner of PEFT than LoRA trains on the modules of a config."""
    if fields.get("target_modules") is None:
        raise ValueError(
            f"target_modules must name modules: defaults for {tuner.name} are not known here"
        )
    settings = tuner.settings_by_module(fields)
    alike = count_model(spec, **lora_options(spec, selecting(fields)))
    adapters: list[AdaptedModules] = []
    for each in alike.adapters:
        if each.module.kind != "linear":
            kind = f"{_starred(each.module)}: {each.module.kind}"
            raise ValueError(f"{tuner.name} is counted on linear layers, not on {kind}")
        shape = each.module.shape

        def numbers(name: str, shape: tuple[int, ...] = shape) -> tuple[int, int]:
            own = settings(name)
            return int(own.get("r", 0)), tuner.count(*shape, **own)

        adapters += _adapted(each.module, each.names, numbers)
    # AdaLoRA saves the rank before pruning, one number a module
    frozen = (tuner is TUNERS["ADALORA"]) * sum(each.copies for each in adapters)
    rank = int(settings("").get("r", 0))
    return replace(alike, rank=rank, adapters=tuple(adapters), tuner=tuner.name, frozen=frozen)


# the names that PEFT may translate if transformers fuses experts
_FUSED = ("gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3", "gate_up_proj", "experts")


def spec_of(model: ModelSpec | LoraCount) -> ModelSpec:
    """The model itself."""
    return model.spec if isinstance(model, LoraCount) else model


def _check_experts(spec: ModelSpec, targets: Targets | None) -> None:
    """Refuse to guess what PEFT does with experts that no family describes."""
    if not spec.assumed or models.fused_names(spec.family) is not None:
        return
    if targets is None or isinstance(targets, str) or callable(targets):
        asked = "targets"
    else:
        asked = next((name for name in targets if name.rpartition(".")[2] in _FUSED), "")
    if asked:
        why = f"how PEFT adapts those of {spec.name} cannot be told"
        raise ValueError(
            f"{asked} may mean experts, and {why}: name others, as in ['q_proj', 'v_proj']"
        )


def _adapted(
    module: ModuleSpec, names: tuple[str, ...] | None, numbers: Callable[[str], tuple[int, int]]
) -> list[AdaptedModules]:
    """One adapter for each rank, and how many numbers it has, that modules get by their names."""
    alike: dict[tuple[int, int], list[str]] = {}
    for name in names or module.names():
        alike.setdefault(numbers(name), []).append(name)
    return [
        AdaptedModules(module, rank, each, tuple(some) if names or len(alike) > 1 else None)
        for (rank, each), some in alike.items()
    ]


def _numbers(picked: Pick, rank: int, *, dora: bool, lora_bias: bool) -> int:
    """Numbers that LoRA of ``rank`` adds to one module."""
    module = picked.module
    many, d_out, d_in = module.sides
    bare = picked.parameter is not None or module.kind in ("router", "experts")
    what = "a parameter, such as fused experts" if bare else "an embedding"
    for name, asked in (("dora", dora and bare), ("lora_bias", lora_bias)):
        if asked and (bare or module.kind == "embedding"):
            raise ValueError(
                f"{name} must be False for {what} ({_starred(module)}): PEFT has none for them"
            )
    # of B; A is a convolution with the kernel, without groups
    groups = 1 if bare else module.groups
    if rank % groups:
        raise ValueError(
            f"rank must be a multiple of {groups}, the groups of {_starred(module)}, got {rank}"
        )
    return d_out * (dora + lora_bias) + many * pair_size(d_out // groups, d_in, rank)


def _token_rows(
    spec: ModelSpec,
    indices: Rows,
    adapters: Iterable[AdaptedModules],
    saved: Mapping[str, ModuleSpec],
) -> dict[str, int]:
    """Numbers in the rows that ``trainable_token_indices`` trains, by module; tied ones are counted
    once.
    """
    if not indices:
        return {}
    tables = [
        module for module in spec.modules if module.kind == "embedding" or module.name == spec.head
    ]
    own = next(
        (module for module in tables if not module.tied and module.kind == "embedding"), None
    )
    if own is None:
        raise ValueError(f"trainable_token_indices: {spec.name} has no embedding")
    if not isinstance(indices, Mapping):
        indices = {own.name: indices}
    rows: dict[str, tuple[ModuleSpec, tuple[int, ...]]] = {}
    for end, ids in indices.items():
        found = [module for module in tables if models.ends_with(module.name, end)]
        if not found:
            raise spec.missing(
                "trainable_token_indices:", end, [x.name for x in tables], kind="embedding"
            )
        for module in found:
            last = module.shape[0] - 1
            ids = tuple(
                [whole_number("trainable_token_indices", i, minimum=0, maximum=last) for i in ids]
            )
            rows[module.name] = (module, ids)
    taken = {name for each in adapters for name in each.names or each.module.names()} | set(saved)
    if both := sorted(taken & set(rows)):
        raise ValueError(
            f"trainable_token_indices: {both[0]} is adapted or trained in full as well"
        )
    shared = rows.get(own.name)
    return {
        name: len(numbers) * module.shape[1]
        for name, (module, numbers) in rows.items()
        if not (shared and module.tied and numbers == shared[1])
    }


def _copy_size(module: ModuleSpec, saved: Mapping[str, ModuleSpec]) -> int:
    """Numbers in a full copy of a module; what was tied to another module is not tied in the
    copy.
    """
    owner = f"{module.name.rpartition('.')[0]}.bias"
    shared = module.tied_bias and owner in saved
    return module.weight + (0 if shared else module.bias_size)


def _bias_size(
    spec: ModelSpec, bias: str, adapters: list[AdaptedModules], saved: Mapping[str, Any]
) -> int:
    if bias == "none":
        return 0
    if bias == "lora_only":
        return sum(each.module.bias_size * each.copies for each in adapters)
    modules = (
        [module for module in spec.modules if module.name not in saved] if saved else spec.groups
    )
    own = sum(module.bias_size * module.copies for module in modules if not module.tied_bias)
    bare = [module for module in modules if module.kind == "parameter"]
    return own + sum(module.weight for module in bare if module.name.rpartition(".")[2] == "bias")


def _starred(module: ModuleSpec) -> str:
    return module.name.replace("{}", "*")


# A whole config of PEFT

# The settings that decide how many numbers are trained, by what `count_model` calls them.
_ALIKE = (
    "bias", "layers_pattern", "lora_bias", "modules_to_save", "rank_pattern", "target_parameters",
    "trainable_token_indices",
)  # fmt: skip
_OPTIONS = {
    "rank": "r", "targets": "target_modules", "exclude": "exclude_modules",
    "layers": "layers_to_transform",
    "dora": "use_dora", **{name: name for name in _ALIKE},
}  # fmt: skip


def config_fields(config: Any) -> dict[str, Any]:
    """What is set, in an ``adapter_config.json``, its directory, its fields, or the object."""
    # as a file would hold them: lists for sets and tuples, text for members of an enumeration
    plain = json.loads(json.dumps(_fields(config), default=_in_json))
    fields = {key: value for key, value in plain.items() if value not in (None, "", [], {})}
    if plain.get("target_modules") == []:  # which says that no module is meant
        fields["target_modules"] = []
    return {"peft_type": "LORA", **fields}


def _in_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return sorted(value, key=str) if isinstance(value, (set, frozenset)) else str(value)


def lora_options(spec: ModelSpec, fields: dict[str, Any]) -> dict[str, Any]:
    """What `count_model` takes, from the fields of a LoRA's config."""
    fields = {key: value for key, value in fields.items() if value is not False}
    for key, value in fields.items():
        if key == "velora_config" or key not in (*peft.SETTINGS, "alora_invocation_tokens"):
            raise ValueError(
                f"{key} = {shown(value)} may change how many numbers are trained: not counted"
            )
    peft.check_values(fields)
    if heads := peft.HEADS.get(str(fields.get("task_type")), ()):
        parts = {part for module in spec.groups for part in module.name.split(".")}
        there = [head for head in heads if any(part.endswith(head) for part in parts)]
        asked = [name for name in fields.get("modules_to_save", ()) if name not in heads]
        fields["modules_to_save"] = asked + there
    if fields.get("ensure_weight_tying"):
        fields |= _tied(spec, fields)
    options = {ours: fields[theirs] for ours, theirs in _OPTIONS.items() if theirs in fields}
    return {"rank": 8, "mica": str(fields.get("init_lora_weights")).lower() == "mica", **options}


def _tied(spec: ModelSpec, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What PEFT adapts or trains in full where ``ensure_weight_tying`` adds all that share an
    embedding.

    It does so if it is asked for one of them by a name that ends as `peft.EMBEDDINGS` do.
    """
    tables = [module for module in spec.modules if module.kind == "embedding" and not module.tied]
    tied = [module.name for module in spec.modules if module.tied]
    saved, targets = fields.get("modules_to_save") or [], fields.get("target_modules") or []
    if not tied or not tables:
        return {}
    if _names_one(saved):
        kept = [end for end in saved if not any(models.ends_with(name, end) for name in tied)]
        return {"modules_to_save": [*kept, tables[0].name]}
    all_of_them = [tables[0].name, *tied]
    if isinstance(targets, str):
        asked = (
            any(models.matcher(targets)(name) for name in peft.EMBEDDINGS)
            and targets.lower() != models.ALL_LINEAR
        )
        return (
            {"target_modules": "|".join([targets, *map(re.escape, all_of_them)])} if asked else {}
        )
    return {"target_modules": [*targets, *all_of_them]} if _names_one(targets) else {}


def _names_one(ends: Iterable[str]) -> bool:
    return any(end.rpartition(".")[2] in peft.EMBEDDINGS for end in ends)


def _fields(config: Any) -> Mapping[str, Any]:
    if isinstance(config, Mapping):
        return config
    if isinstance(config, (str, Path)):
        path = Path(config)
        return read_json(path / "adapter_config.json" if path.is_dir() else path)
    if callable(getattr(config, "to_dict", None)):
        return dict(config.to_dict())
    raise TypeError(
        f"config must be an adapter_config.json, its fields or a LoraConfig, got {shown(config)}"
    )


def model_spec(model: object) -> ModelSpec:
    """The modules of a model, from any source that describes one.

    Parameters
    ----------
    model : str, Path, mapping, ModelSpec or model
        ``"100x120"`` for one matrix, the name of a preset or of a shipped model, a ``config.json``,
        a ``*.safetensors`` or ``*.gguf`` file, a directory that holds a config or safetensors, the
        fields of a config, a model of ours, or any object with ``named_modules()``, such as a torch
        model, including one on the meta device (torch is never imported here).

    Returns
    -------
    ModelSpec
        The modules by name, kind, shape and role.

    Raises
    ------
    FileNotFoundError
        If the file or preset does not exist.
    ValueError
        If the file or the config cannot be understood.
    TypeError
        If the model is none of these.

    Examples
    --------
    >>> model_spec("100x120").total, model_spec("gpt2").total
    (12000, 124439808)
    """
    if isinstance(model, ModelSpec):
        return model
    if is_described(model):
        return models.describe(model)
    from lora_np.accounting.in_memory import tree_spec

    return tree_spec(model)


def is_described(model: object) -> bool:
    """Whether `lora_np.models` knows the modules of ``model``, rather than the tree of our
    layers.
    """
    return isinstance(model, (ModelSpec, str, Path, Mapping)) or hasattr(model, "named_modules")
