"""Count the parameters that a LoRA adds to a whole model, from any description of the model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar, overload

from lora_np import models
from lora_np.accounting.matrix import pair_size
from lora_np.checks import choice, whole_number
from lora_np.hub import safetensors
from lora_np.lora import TUNERS, Tuner, selecting, tuner_of
from lora_np.models import ModelSpec, ModuleSpec, Patterns, Selected, Targets, peft
from lora_np.table import Cell, Shown, Table, shape_text

if TYPE_CHECKING:
    from lora_np.accounting.in_memory import Model

T = TypeVar("T")
Rows: TypeAlias = Sequence[int] | Mapping[str, Sequence[int]]
# the type of the options that counts and estimates accept
Option: TypeAlias = (
    "int | str | Path | Iterable[str] | Callable[[str, ModuleSpec], bool] | Rows | None"
)


class AdaptedModules(NamedTuple):
    """Identical modules that are adapted with the same rank."""

    module: ModuleSpec
    rank: int
    size: int  # the number of adapter parameters for one module
    names: tuple[str, ...] | None = None

    @property
    def copies(self) -> int:
        """The number of adapted modules."""
        return self.module.copies if self.names is None else len(self.names)

    @property
    def trainable(self) -> int:
        """The number of the adapter's trainable parameters on all of these modules."""
        return self.size * self.copies

    @property
    def lowest(self) -> int:
        """The index of the lowest adapted layer; 0 for a module outside the layers."""
        if self.names is None:
            return self.module.ranges[0][0] if self.module.ranges else 0
        place = self.module.name.split(".").index("{}")
        return min(int(name.split(".")[place]) for name in self.names)

    @property
    def limit(self) -> int:
        """The highest rank of an update, ``min(d, k)``."""
        return min(self.module.sides[1:])


@dataclass(frozen=True, repr=False)
class LoraCount(Shown):
    """The parameters of a LoRA on a model, counted by `count_model`.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    rank : int
        The requested rank; ``rank_pattern`` may give some modules another one.
    adapters : tuple of AdaptedModules
        The adapted modules, in groups of identical ones.
    saved : mapping of str to int
        By module, the parameters of the copy that ``modules_to_save`` trains, or of the rows of
        ``trainable_token_indices``.
    biases : int
        The parameters of the base's biases that are also trained.
    experts : str
        The convention for experts, ``"peft"`` or ``"per-expert"``; empty without experts.
    dora : bool
        Whether the adapters are DoRA, whose forward pass keeps more activations.
    frozen : int
        The parameters of the adapter that are not trained, such as MiCA's B.
    tuner : str
        The name of PEFT's tuner, if it is not LoRA.
    defaulted : bool
        Whether all linear layers are adapted because no targets were given and PEFT has no default
        for this family.
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
    defaulted: bool = False

    @cached_property
    def adapter(self) -> int:
        """The adapter's number of trainable parameters, without saved copies and base biases."""
        return sum(adapted.trainable for adapted in self.adapters)

    @property
    def trainable(self) -> int:
        """The number of trainable parameters in the adapter, in saved copies, and in biases."""
        return self.adapter + sum(self.saved.values()) + self.biases

    @cached_property
    def base(self) -> int:
        """The number of parameters of the model without the adapter."""
        return self.spec.total

    @property
    def total(self) -> int:
        """The number of parameters in base, adapter and saved copies; PEFT's "all params"."""
        return self.base + self.adapter + self.frozen + sum(self.saved.values())

    @property
    def percent(self) -> float:
        """The percentage of trainable parameters, ``100 trainable / total`` as in PEFT."""
        return 100 * self.trainable / self.total

    @property
    def peft_line(self) -> str:
        """The line printed by PEFT's ``print_trainable_parameters()``, character for character."""
        counts = f"trainable params: {self.trainable:,d} || all params: {self.total:,d}"
        return f"{counts} || trainable%: {self.percent:.4f}"

    @property
    def verdict(self) -> str:
        """The line that PEFT prints, or the count's assumptions if PEFT's count may differ."""
        return self.spec.assumed or self.peft_line

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the user, such as the convention for experts, or ranks that are too high."""
        experts = f"Experts are counted by the {self.experts} convention."
        family = self.spec.family or self.spec.name
        every = f"PEFT has no default targets for {family}: all linear layers are counted."
        return (
            *([every] if self.defaulted else []),
            *([experts] if self.experts else []),
            *(
                f"Rank {adapted.rank} is above min(d, k) = {adapted.limit} of"
                f" {_starred(adapted.module)}: no update has a higher rank."
                for adapted in self.adapters
                if adapted.rank > adapted.limit
            ),
        )

    @property
    def table(self) -> Table:
        """A table of all groups of identical modules, whether they are adapted or not."""
        lines = []
        groups = zip(self.spec.groups, self.spec.table.rows, strict=True)
        for module, (name, kind, shape, copies, base) in groups:
            here = [adapted for adapted in self.adapters if adapted.module is module]
            ranks = sorted({adapted.rank for adapted in here})
            rank = ranks[0] if len(ranks) == 1 else (", ".join(map(str, ranks)) or None)
            adapted, trainable = (
                sum(getattr(x, of) for x in here) for of in ("copies", "trainable")
            )
            lines.append((name, kind, shape, copies, adapted, rank, trainable, base))
        columns = ("module", "kind", "shape", "modules", "adapted", "rank", "trainable", "base")
        return self._titled(columns, lines)

    @property
    def by_module(self) -> Table:
        """A table with a row for each adapted module, saved copy, and module with trained rows."""
        lines: list[tuple[Cell, ...]] = [
            (
                name,
                adapted.module.kind,
                shape_text(adapted.module.shape),
                adapted.rank,
                adapted.size,
            )
            for adapted in self.adapters
            for name in adapted.names or adapted.module.names()
        ]
        lines += [(name, "saved copy", None, None, size) for name, size in self.saved.items()]
        return self._titled(("module", "kind", "shape", "rank", "trainable"), lines)

    def _titled(self, columns: tuple[str, ...], lines: Sequence[tuple[Cell, ...]]) -> Table:
        title = f"{self.spec.name}, {self.tuner or f'rank {self.rank}'}"
        return Table(columns, lines, title=title, notes=(*self.notes, self.verdict))


@dataclass(frozen=True, repr=False)
class ModelCount(Shown):
    """The parameters of a model, counted by `count` without a rank.

    Parameters
    ----------
    trainable, total : int
        The number of trainable parameters, and the number of all parameters. A parameter is
        trainable if it is in a Tensor, or if it requires a gradient in a torch model. If only
        shapes are known, all parameters count as trainable.
    nbytes : int or None
        The bytes of the arrays, with quantised weights as they are stored. None if only shapes are
        known.
    table : Table
        The arrays, or the groups of identical modules.

    Examples
    --------
    >>> from lora_np.accounting import count
    >>> llama = count("llama-2-7b")
    >>> llama.trainable, llama.frozen
    (6738415616, 0)
    """

    trainable: int
    total: int
    nbytes: int | None
    table: Table

    @property
    def frozen(self) -> int:
        """The number of parameters that are not trainable."""
        return self.total - self.trainable


@overload
def count(model: Model) -> ModelCount: ...
@overload
def count(model: Model, *, rank: int, config: None = ..., **options: Option) -> LoraCount: ...
@overload
def count(model: Model, *, config: peft.ConfigSource, experts: str = ...) -> LoraCount: ...
def count(
    model: Model,
    *,
    rank: int | None = None,
    config: peft.ConfigSource | None = None,
    **options: Option,
) -> LoraCount | ModelCount:
    """Count the parameters of a LoRA on any model, or of the model itself without any options.

    Parameters
    ----------
    model : str, Path, mapping or model
        A name, a path, a config or a model in memory, as in `model_spec`.
    rank : int, optional
        The rank of the LoRA.
    config : str, Path, mapping or LoraConfig, optional
        Instead of a rank, PEFT's whole config: an ``adapter_config.json`` or its directory, its
        fields, or the object. Every setting that changes the number of trainable parameters works
        as in PEFT. Configs of the other tuners in `lora_np.lora.TUNERS` work too.
    **options
        Other options of `count_model`; with a config, only ``experts``.

    Returns
    -------
    LoraCount or ModelCount
        The parameters of the LoRA, or of the model with tied weights counted once. It prints as a
        table.

    Raises
    ------
    TypeError
        If the model holds no arrays, or a value has the wrong type.
    ValueError
        If the model or an option is unknown or invalid, or ``config`` has an unsupported setting.

    See Also
    --------
    count_model : Count a LoRA on a model, with its options.

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
    LoRALinear: 1,760 of 13,760 parameters trainable
    array   shape      trainable  frozen
    ------  ---------  ---------  ------
    base.W  100 x 120          0  12,000
    A       8 x 120          960       0
    B       100 x 8          800       0
    """
    if config is not None or rank is not None or options:
        return count_adapter(model, {"rank": rank, "config": config, **options})
    if not is_described(model):
        from lora_np.accounting.in_memory import tree_count

        return ModelCount(*tree_count(model))
    spec, parameters = model_spec(model), getattr(model, "named_parameters", None)
    if parameters is None:
        return ModelCount(spec.total, spec.total, None, spec.table)
    trainable = sum(parameter.numel() for _, parameter in parameters() if parameter.requires_grad)
    return ModelCount(trainable, spec.total, None, spec.table)


def reusable(options: Mapping[str, Option]) -> dict[str, Option]:
    """Return options that can be counted with repeatedly, with a list for each iterator."""
    return {
        name: [*given] if isinstance(given, Iterator) else given for name, given in options.items()
    }


def count_adapter(model: Model, options: Mapping[str, Option | peft.ConfigSource]) -> LoraCount:
    """Count the parameters of an adapter, given a config or the options of `count_model`."""
    own = {"rank": None, **options}
    config = own.pop("config", None)
    if config is None:
        return count_model(model, **own)  # type: ignore[arg-type]
    fields = peft.fields_of(config)  # type: ignore[arg-type]
    spec = _adapted_model(model_spec(model), fields, config)
    experts = str(own.pop("experts", "peft"))
    if given := [name for name, value in own.items() if value is not None]:
        raise ValueError(f"config holds all settings of the LoRA: leave out {', '.join(given)}")
    if tuner := tuner_of(fields):
        return _count_tuner(spec, tuner, fields)
    return count_model(spec, **lora_options(spec, fields), experts=experts)


def counted(
    model: Model, options: Mapping[str, Option | peft.ConfigSource]
) -> ModelSpec | LoraCount:
    """Count the LoRA that ``options`` describe; without any, return the model's spec or count."""
    if isinstance(model, LoraCount):
        if options:
            raise TypeError(
                f"{', '.join(options)}: the LoRA is counted already, give its model instead"
            )
        return model
    return count_adapter(model, options) if options else model_spec(model)


def count_model(
    model: Model,
    *,
    rank: int,
    targets: Targets | None = None,
    rank_pattern: Mapping[str, int] | None = None,
    modules_to_save: str | Iterable[str] | None = (),
    dora: bool = False,
    bias: str = "none",
    target_parameters: Iterable[str] = (),
    trainable_token_indices: Rows = (),
    lora_bias: bool = False,
    mica: bool = False,
    exclude: str | Sequence[str] = (),
    layers: int | Iterable[int] | None = (),
    layers_pattern: str | Sequence[str] = (),
    experts: str = "peft",
) -> LoraCount:
    """Count the parameters of a LoRA on a model, exactly as PEFT would build it.

    Parameters
    ----------
    model : str, Path, mapping or model
        A name, a path, a config or a model in memory, as in `model_spec`.
    rank : int
        The rank, at least 1.
    targets : str, iterable of str, or None
        A list contains ends of module names (``["q_proj", "v_proj"]``). A string is a regular
        expression for whole names, or ``"all-linear"``: every linear layer except the head. None
        takes the family's default, as PEFT does; for a single matrix, for lora_np's own models and
        for families without a default it is ``"all-linear"``.
    rank_pattern : mapping of str to int
        Other ranks for some modules, by a regular expression for the end of their names; the first
        match counts.
    modules_to_save : str or iterable of str, optional
        Ends of the names of modules that are also trained in full. PEFT keeps both the original and
        the copy, so both are counted.
    dora : bool
        Count DoRA's magnitude vectors.
    bias : {"none", "all", "lora_only"}
        The biases of the base model that are also trained.
    target_parameters : iterable of str
        Ends of the names of parameters to adapt directly, such as ``"experts.down_proj"``.
    trainable_token_indices : sequence of int, or mapping of str to sequence of int
        The rows to train in the input embedding, or in modules whose names end in a key.
    lora_bias : bool
        Whether B has a bias, with d_out parameters.
    mica : bool
        Whether only A is trained, as with ``init_lora_weights="mica"``.
    exclude, layers, layers_pattern : str, int or sequence
        Other filters of modules, as in `lora_np.models.matcher`: PEFT's ``exclude_modules``,
        ``layers_to_transform`` and ``layers_pattern``.
    experts : {"peft", "per-expert"}
        The convention for experts that transformers fuses in one array. ``"peft"`` counts as PEFT:
        gate and up projection share one pair of factors of rank 2 r, and the names ``gate_proj``,
        ``up_proj`` and ``down_proj`` refer to experts only. ``"per-expert"`` adapts each linear
        layer of each expert separately.

    Returns
    -------
    LoraCount
        The adapter's parameters, module by module, which print as a table.

    Raises
    ------
    TypeError
        If a rank is not a whole number, or a target is not a name.
    ValueError
        If a rank is below 1, or a target or a pattern matches nothing (the message shows close
        names) or a module that cannot be adapted.

    Examples
    --------
    >>> count_model("100x120", rank=8).trainable, count_model("llama-3-8b", rank=16).trainable
    (1760, 6815744)
    """
    spec, rank = model_spec(model), whole_number("rank", rank)
    choice("bias", bias, ("none", "all", "lora_only"))
    defaulted = targets is None and not (spec.default_targets or target_parameters)
    targets = models.ALL_LINEAR if defaulted else targets
    spec, convention = _by_convention(spec, targets, experts)
    if dora + mica + lora_bias > 1:
        raise ValueError("PEFT takes only one of DoRA, MiCA and lora_bias")
    modules_to_save, layers = _listed(modules_to_save), _listed(layers)
    ranks = {
        key: whole_number(f"rank_pattern[{key!r}]", own)
        for key, own in (rank_pattern or {}).items()
    }
    patterns = Patterns(ranks)
    if ranks:
        models.check_patterns(spec, patterns)
    chosen = models.select(
        spec, targets, target_parameters=[*target_parameters], saved=modules_to_save,
        exclude=exclude, layers=layers, layers_pattern=layers_pattern,
    )  # fmt: skip

    def rank_and_size(group: Selected, name: str) -> tuple[int, int]:
        own = patterns.get(group.path(name), rank * group.times)
        if mica:
            return own, own * group.module.sides[2]
        return own, _size(group, own, dora=dora, lora_bias=lora_bias)

    adapters: list[AdaptedModules] = []
    for group in chosen:
        if ranks:
            adapters += _adapted(group.module, group.names, partial(rank_and_size, group))
        else:  # all modules of a group have the same rank
            adapters.append(AdaptedModules(group.module, *rank_and_size(group, ""), group.names))
    frozen = mica * sum(one.rank * one.module.sides[1] * one.copies for one in adapters)
    saved = models.saved_modules(spec, modules_to_save) if modules_to_save else {}
    tokens = _token_rows(spec, trainable_token_indices, adapters, saved)
    copies = {name: _copy_size(module, saved) for name, module in saved.items()} | tokens
    biases = _bias_size(spec, bias, adapters, saved)
    found = tuple(adapters), copies, biases, convention, dora, frozen
    return LoraCount(spec, rank, *found, defaulted=defaulted)


def _listed(value: T | Iterable[T] | None) -> tuple[T, ...]:
    """Return the items of an option: none, a single one, or several."""
    if value is None:
        return ()
    return (*value,) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)


OPTIONS = (*(count_model.__kwdefaults__ or ()), "rank")


def _count_tuner(spec: ModelSpec, tuner: Tuner, fields: Mapping[str, Any]) -> LoraCount:
    """Count the parameters of a tuner other than LoRA."""
    if fields.get("target_modules") is None:
        raise ValueError(f"target_modules must name modules: {tuner.name} has no defaults here")
    settings = tuner.settings_by_module(fields)
    lora = count_model(spec, **lora_options(spec, selecting(fields)))

    def rank_and_size(shape: tuple[int, ...], name: str) -> tuple[int, int]:
        own = settings(name)
        return int(own.get("r", 0)), tuner.count(*shape, **own)

    adapters: list[AdaptedModules] = []
    for module, names in ((adapted.module, adapted.names) for adapted in lora.adapters):
        if module.kind != "linear":
            kind = f"{_starred(module)}: {module.kind}"
            raise ValueError(f"{tuner.name} is supported on linear layers, not on {kind}")
        adapters += _adapted(module, names, partial(rank_and_size, module.shape))
    # for each module, AdaLoRA also saves the rank before pruning, a number that is not trained
    frozen = (tuner is TUNERS["ADALORA"]) * sum(adapted.copies for adapted in adapters)
    rank = int(settings("").get("r", 0))
    return replace(lora, rank=rank, adapters=tuple(adapters), tuner=tuner.name, frozen=frozen)


# Targets with these names may be experts. If transformers fuses the experts of a model, PEFT
# translates the names.
_FUSED = ("gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3", "gate_up_proj", "experts")


def spec_of(model: ModelSpec | LoraCount) -> ModelSpec:
    """Return the description of the model that is trained or adapted."""
    return model.spec if isinstance(model, LoraCount) else model


def _by_convention(spec: ModelSpec, targets: Targets | None, experts: str) -> tuple[ModelSpec, str]:
    """Apply the convention for experts; return the model, and the convention (empty if unused)."""
    choice("experts", experts, ("peft", "per-expert"))
    has_experts = "experts" in [module.kind for module in spec.groups]
    named = any("experts" in module.name.split(".") for module in spec.groups)
    if experts == "peft" and named:
        _check_experts(spec, targets)
    all_linear = targets and models.is_all_linear(targets)
    if spec.assumed and not (all_linear or models.names_are_known({"model_type": spec.family})):
        raise ValueError(
            f"transformers renames modules of {spec.family} models as it loads their files, and how"
            " is not known here: count the model in memory, on the meta device, or name them by"
            " targets='all-linear'"
        )
    if experts == "per-expert":
        if not has_experts and not named:
            raise ValueError(
                f"experts = 'per-expert' (--experts) needs experts, and {spec.name} has none"
            )
        spec = spec.per_expert()
    return spec, experts if has_experts else ""


def _check_experts(spec: ModelSpec, targets: Targets | None) -> None:
    """Raise an error if targets may include experts that PEFT would adapt in an unknown way."""
    if not spec.assumed or models.fused_names(spec.family) is not None:
        return
    if targets is None or isinstance(targets, str) or callable(targets):
        asked = "targets"
    else:
        asked = next((name for name in targets if name.rpartition(".")[2] in _FUSED), "")
    if asked:
        raise ValueError(
            f"{asked} may mean experts, and how PEFT adapts experts of {spec.name} is unknown:"
            " name other modules, as in ['q_proj', 'v_proj']"
        )


def _adapted(
    module: ModuleSpec,
    names: tuple[str, ...] | None,
    rank_and_size: Callable[[str], tuple[int, int]],
) -> list[AdaptedModules]:
    """Group modules by rank and size, which may depend on their names."""
    alike: dict[tuple[int, int], list[str]] = {}
    for name in names or module.names():
        alike.setdefault(rank_and_size(name), []).append(name)
    return [
        AdaptedModules(module, *key, tuple(some) if names or len(alike) > 1 else None)
        for key, some in alike.items()
    ]


def _size(group: Selected, rank: int, *, dora: bool, lora_bias: bool) -> int:
    """Count the parameters that a LoRA of rank ``rank`` adds to one module."""
    module = group.module
    many, d_out, d_in = module.sides
    bare = group.parameter is not None or module.kind in ("router", "experts")
    what = "a parameter, such as fused experts" if bare else "an embedding"
    for name, asked in (("dora", dora and bare), ("lora_bias", lora_bias)):
        if asked and (bare or module.kind == "embedding"):
            raise ValueError(f"{name} must be False for {what} ({_starred(module)}), as in PEFT")
    # for a grouped convolution, PEFT's B has as many groups as the base layer, and A has one group
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
    """Count the parameters that ``trainable_token_indices`` trains, by module.

    Tied rows are counted once.
    """
    if not indices:
        return {}
    tables = [
        module for module in spec.modules if module.kind == "embedding" or module.name == spec.head
    ]
    own = spec.embedding
    option = "trainable_token_indices"
    if own is None:
        raise ValueError(f"{option}: {spec.name} has no embedding")
    if not isinstance(indices, Mapping):
        indices = {own.name: indices}
    rows: dict[str, tuple[ModuleSpec, tuple[int, ...]]] = {}
    for end, ids in indices.items():
        named = [module for module in tables if models.ends_with(module.name, end)]
        if not named:
            raise spec.missing(f"{option}:", end, [x.name for x in tables], kind="embedding")
        for module in named:
            last = module.shape[0] - 1
            valid = [whole_number(option, i, minimum=0, maximum=last) for i in ids]
            rows[module.name] = (module, tuple(valid))
    taken = {name for one in adapters for name in one.names or one.module.names()}
    if both := sorted((taken | {*saved}) & {*rows}):
        raise ValueError(f"{option}: {both[0]} is adapted or trained in full as well")
    shared = rows.get(own.name)
    return {
        name: len(numbers) * module.shape[1]
        for name, (module, numbers) in rows.items()
        if not (shared and module.tied and name != own.name and numbers == shared[1])
    }


def _copy_size(module: ModuleSpec, saved: Mapping[str, ModuleSpec]) -> int:
    """Count the parameters of a full copy, which has its own weight even if the module is tied."""
    shared = module.tied_bias and f"{module.holder}.bias" in saved
    return module.weight + (0 if shared else module.bias_size)


def _bias_size(
    spec: ModelSpec, bias: str, adapters: list[AdaptedModules], saved: Collection[str]
) -> int:
    if bias == "none":
        return 0
    if bias == "lora_only":
        return sum(adapted.module.bias_size * adapted.copies for adapted in adapters)
    modules: Sequence[ModuleSpec] = spec.groups
    if saved:
        modules = [module for module in spec.modules if module.name not in saved]
    own = sum(module.bias_size * module.copies for module in modules if not module.tied_bias)
    bare = [module for module in modules if module.kind == "parameter"]
    return own + sum(module.weight for module in bare if module.leaf == "bias")


def _starred(module: ModuleSpec) -> str:
    return module.name.replace("{}", "*")


# Counting parameters from a complete PEFT config

# The settings that have the same names in PEFT and in `count_model`.
_ALIKE = (
    "bias", "layers_pattern", "lora_bias", "modules_to_save", "rank_pattern", "target_parameters",
    "trainable_token_indices",
)  # fmt: skip
_OPTIONS = {
    "rank": "r", "targets": "target_modules", "exclude": "exclude_modules",
    "layers": "layers_to_transform",
    "dora": "use_dora", **{name: name for name in _ALIKE},
}  # fmt: skip


def lora_options(spec: ModelSpec, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the fields of a LoRA's config into options of `count_model`."""
    fields = peft.on_model(spec, fields)
    options = {ours: fields[theirs] for ours, theirs in _OPTIONS.items() if theirs in fields}
    return {"rank": 8, "mica": str(fields.get("init_lora_weights")).lower() == "mica", **options}


# names that PEFT inserts into keys between the name of an embedding and "weight"
_AROUND_TABLES = ("token_adapter", "base_layer", "modules_to_save", "original_module", "default")


def _adapted_model(spec: ModelSpec, fields: Mapping[str, Any], config: object) -> ModelSpec:
    """Return the model with the head that the task needs and the vocabulary of the adapter file."""
    task, new = str(fields.get("task_type")), dict(spec.config)
    if task in peft.HEADS and not peft.heads_of(spec, peft.HEADS[task][1]):
        if spec.family in models.family_names() and new:
            ending = peft.HEADS[task][0]
            new["architectures"] = [models.family_of(spec.family).classes + ending]
        elif spec.assumed:
            raise ValueError(
                f"task_type = {task!r} trains a head that {spec.name} does not have: "
                "count a config.json whose architectures name the class that has it"
            )
    file = Path(config if isinstance(config, (str, Path)) else "", "adapter_model.safetensors")
    for key, info in safetensors.open(file).tensors.items() if file.is_file() and new else ():
        names = [name for name in key.split(".") if name not in _AROUND_TABLES]
        if names[-1] == "weight" and names[-2] in peft.VOCABULARY:
            new = models.resized(new, info.shape[0])
        elif names[-1] == "weight" and names[-2] in peft.HEADS.get(task, ("", ()))[1]:
            new = {**new, "id2label": None, "num_labels": info.shape[0]}
    if new == spec.config:
        return spec
    return replace(models.from_config(new, name=spec.name), quantised=spec.quantised)


def model_spec(model: Model) -> ModelSpec:
    """Describe the modules of a model, given in any of the supported forms.

    Parameters
    ----------
    model : str, Path, mapping, ModelSpec or model
        ``"100x120"`` for one matrix, the name of a preset or of a shipped model, a ``config.json``,
        a ``*.safetensors`` or ``*.gguf`` file, a directory with a config or safetensors, the fields
        of a config, a model of lora_np, or any object with ``named_modules()``, such as a torch
        model, also on the meta device (torch is never imported).

    Returns
    -------
    ModelSpec
        The modules by name, kind, shape and role.

    Raises
    ------
    FileNotFoundError
        If the file or preset does not exist.
    ValueError
        If the file or the config is invalid.
    TypeError
        If the model has none of these forms.

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


def is_described(model: Model) -> bool:
    """Return whether `lora_np.models` can describe ``model``; if not, it is a tree of layers."""
    return isinstance(model, (ModelSpec, str, Path, Mapping)) or hasattr(model, "named_modules")
