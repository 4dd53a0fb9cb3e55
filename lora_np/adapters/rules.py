"""Predict what each program does with an adapter, using the rules in runtimes.toml."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

from lora_np.adapters.adapter import Adapter, Format
from lora_np.adapters.layouts import pieces_of
from lora_np.adapters.scaling import usual
from lora_np.adapters.values import Fault, shortened
from lora_np.files import FileError, read_json
from lora_np.models import KOHYA, OpenModel, is_all_linear, is_flat, peft, targeted

CLOSE = 1e-6  # a scale is correct if its relative error is at most this
ALL = "(all)"  # replaces a module's name in predictions about the whole adapter

# The features of adapters that rules describe. If a program has no rule for a feature, the status
# is "not known".
FEATURES = (
    "magnitude", "bias", "kernel", "embedding", "parameter", "tuned", "head", "router",
    "other rank", "other alpha", "saved", "saved norm", "trained bias", "copy", "rows",
    "moved base", "expression", "tied", "tied embedding", "wrapped", "doubled",
    "unprefixed", "named", "prefix", "headless", "unknown", "unsure", "misfit", "no target",
    "container", "alora", "apart", "expert", "stacked",
)  # fmt: skip
_WORST = (
    "empty",
    "absent",
    "not finite",
    "zero",
    "refused",
    "ignored",
    "wrong scale",
    "not known",
    "fine",
)
# the program that defines each format; kohya's format is missing, because several programs use it
_OWN: dict[Format, str] = {"peft": "peft", "gguf": "llama.cpp", "mlx": "mlx"}

# Matches names such as "layers.0.mlp.up_proj", which lack the prefix "model." or "transformer.".
_HEADLESS = re.compile(r"(layers|h)\.\d+\.(self_attn|attn|mlp)\.")
# Families whose routers are linear layers in mlx-lm.
_LINEAR_GATES = ("mixtral", "olmoe", "phimoe", "qwen2_moe", "qwen3_moe", "qwen3_next")
_OF = {"own": "each module's own", "config": "the config's one"}
_TO_LORA = "lora-np convert --to lora"
_GIVE_BASE = "--base MODEL"
# Matches the module names of Llama and most other families, the only names known without a base.
_LLAMA = re.compile(
    r"model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
    r"|model\.embed_tokens|lm_head"
)
_TOWER = re.compile(r"(^|\.)(\w*(vision|visual|image|video|audio)\w*|multi_modal_projector)\.")


class Rule(TypedDict):
    """A rule of ``runtimes.toml``: how a program treats a module with any feature in ``has``."""

    has: list[str]
    status: str
    why: str
    form: NotRequired[str]
    fix: NotRequired[str]
    date: NotRequired[str]
    source: NotRequired[str]


class Runtime(TypedDict):
    """The rules of one program in ``runtimes.toml``, which explains the fields."""

    version: str
    date: str
    source: str
    reads: list[str]
    instead: str
    alpha: str
    rank: str
    rslora: bool
    scale_source: NotRequired[str]
    ranks: NotRequired[list[int]]
    usual: NotRequired[int]
    option: NotRequired[str]
    fine: list[str]
    rules: list[Rule]


class CheckedModule(NamedTuple):
    """The prediction of how one program will run one module.

    Parameters
    ----------
    runtime : str
        The name of the program.
    module : str
        The path of the module, the name of a replaced parameter, or "(all)".
    status : {"fine", "not known", "wrong scale", "ignored", "refused"}
        The treatment of the module by the program; or a fault of the adapter itself: "zero", "not
        finite", "absent" or "empty".
    scale_error : float or None
        The factor by which the program's scale is too large.
    why : str
        The reason.
    fix : str
        The option or the conversion that fixes the problem; empty if there is none.
    source, version, date : str
        The source of the rule, the version of the program that it describes, and its date.
    """

    runtime: str
    module: str
    status: str
    scale_error: float | None = None
    why: str = ""
    fix: str = ""
    source: str = ""
    version: str = ""
    date: str = ""


@cache
def runtimes() -> Mapping[str, Runtime]:
    """Read ``runtimes.toml``, which maps the name of each program to its rules."""
    import tomllib  # imported here, because it is slow to load and rarely needed

    return tomllib.loads(Path(__file__).with_name("runtimes.toml").read_text(encoding="utf-8"))


@cache
def places() -> dict[str, Any]:
    """Read the table of modules that each program can adapt in each architecture.

    ``recipes/places.py`` makes the table from the source of each program.
    """
    return read_json(Path(__file__).with_name("places.json"))


def placed(runtime: str, architecture: str) -> list[str] | None:
    """List the modules that a program adapts in an architecture, by last name; None if unknown."""
    lists = places()[runtime]["places"].items()
    return next((names.split() for names, x in lists if architecture in x.split()), None)


def predictions(
    adapter: Adapter,
    form: Format,
    base: OpenModel | None,
    programs: Iterable[str],
    faults: Collection[tuple[str, Fault]] = (),
) -> tuple[CheckedModule, ...]:
    """Predict how programs run each module and replaced parameter of an adapter in a format.

    If a program does not read the format, one prediction covers all modules; only in PEFT's
    directories, which scripts convert for such programs, are problems of single modules predicted
    too. ``faults`` of the adapter count as predictions, and each name gets the worst one.
    """
    having = {} if _tuner(adapter) else _features(adapter, form, base)
    return tuple(
        row for name in programs for row in _by_program(name, adapter, form, having, base, faults)
    )


def grouped(records: Iterable[CheckedModule]) -> dict[CheckedModule, list[str]]:
    """Map each prediction, without its module and source, to the modules to which it applies."""
    groups: dict[CheckedModule, list[str]] = defaultdict(list)
    for row in records:
        error = None if row.scale_error is None else float(f"{row.scale_error:.4g}")
        groups[row._replace(module="", scale_error=error, source="")].append(row.module)
    return groups


def remarks(
    adapter: Adapter, form: Format, base: OpenModel | None, *, portable: bool = False
) -> list[str]:
    """List the problems that the format's own program will have with the adapter.

    With ``portable``, list the problems of any program; without it, only note which other programs
    would use a wrong scale. Raise an error if the format's own program refuses the adapter or runs
    it at a wrong scale.
    """
    own, notes = _OWN.get(form), []
    programs = [name for name, rules in runtimes().items() if own and form in rules["reads"]]
    known = base if base and base.known else None
    groups = grouped(predictions(adapter, form, known, programs))
    for row, names in groups.items():
        unasked = base is None and row.fix == _GIVE_BASE
        if row.status == "fine" or unasked or not (portable or row.runtime == own):
            continue
        note = f"{row.runtime} ({row.status}): {shortened(names)}: {row.why}"
        note += f"; {row.fix}" if row.fix else ""
        if row.runtime == own and row.status in ("refused", "wrong scale"):
            raise FileError(note)
        notes.append(note)
    wrong = dict.fromkeys(row.runtime for row in groups if abs((row.scale_error or 1) - 1) > CLOSE)
    if wrong and not portable:
        note = f"ranks or scales differ: {', '.join(wrong)} would run some modules at another scale"
        notes.append(f"{note}; lora-np convert --to portable pads them")
    return notes


def _by_program(
    runtime: str,
    adapter: Adapter,
    form: Format,
    having: Mapping[str, set[str]],
    base: OpenModel | None,
    faults: Collection[tuple[str, Fault]],
) -> Iterator[CheckedModule]:
    """Yield the worst prediction that a program's rules give for each module."""
    rules = runtimes()[runtime]
    fine = CheckedModule(runtime, ALL, "fine", version=rules["version"], date=rules["date"])
    records = [fine._replace(module=name, status=x.status, why=x.why) for name, x in faults]
    instead = rules["instead"] + " --base MODEL" * (form == "kohya")
    refused = fine._replace(status="refused", fix=instead, source=rules["source"])
    errors: Mapping[str, float] = {}
    tuner, reads = _tuner(adapter), form in rules["reads"]
    if tuner:
        own, reads = runtime == "peft", False
        no = fine._replace(status="refused", why=f"{tuner} is not a LoRA", fix=_TO_LORA)
        records.append(fine if own else no)
    elif not reads:
        why = f"reads {' and '.join(rules['reads']) or 'no adapter'}, but this is {form}"
        records.append(refused._replace(why=why))
    # also check PEFT files for programs that cannot read them, because scripts convert such files
    if not tuner and (reads or form == "peft"):
        errors = _scale_errors(rules, adapter) if form == "peft" else {}
        records += _by_features(rules, form, having, refused)
        records += _by_place(runtime, adapter, form, having, base, refused) if reads else ()
        records += _by_rank(rules, adapter, refused)
        records += _by_scale(rules, adapter, errors, refused)
    worst: dict[str, CheckedModule] = {}
    for row in sorted(records, key=lambda row: _WORST.index(row.status)):
        worst.setdefault(row.module, row)
    for name in dict.fromkeys([ALL, *adapter, *adapter.full, *adapter.rows, *dict(faults)]):
        if (found := worst.get(name)) and found.fix == _GIVE_BASE:
            yield found._replace(scale_error=errors.get(name))  # the scale is known without a base
        elif found:
            yield found
        elif reads and name != ALL:
            yield fine._replace(module=name, scale_error=errors.get(name))


def _by_features(
    rules: Runtime, form: Format, having: Mapping[str, set[str]], refused: CheckedModule
) -> Iterator[CheckedModule]:
    """Yield the predictions of rules on features; a feature without a rule is "not known"."""
    ruled = {*rules["fine"]}
    for rule in rules["rules"]:
        ruled |= {*rule["has"]}
        if rule.get("form", form) != form:
            continue
        row = refused._replace(
            status=rule["status"],
            why=rule["why"],
            fix=rule.get("fix", refused.fix),
            source=rule.get("source", refused.source),
            date=rule.get("date", refused.date),
        )
        for what in rule["has"]:
            yield from (row._replace(module=name) for name in having.get(what, ()))
    for what in having.keys() - ruled:
        row = refused._replace(status="not known", why=f"there is no rule for: {what}", fix="")
        yield from (row._replace(module=name) for name in having[what])


def _by_place(
    runtime: str,
    adapter: Adapter,
    form: Format,
    having: Mapping[str, set[str]],
    base: OpenModel | None,
    refused: CheckedModule,
) -> Iterator[CheckedModule]:
    """Yield a prediction for each module that the program cannot, or perhaps cannot, adapt."""
    unknown, table = refused._replace(status="not known", fix=""), places().get(runtime)
    if base is None:
        why = "without a base, only the names of a Llama are known"
        strange = (name for name in adapter if not _LLAMA.fullmatch(name) and form != "kohya")
        yield from (unknown._replace(module=name, why=why, fix=_GIVE_BASE) for name in strange)
    elif table:
        kind = base.model_type if runtime == "mlx" else base.architecture
        names, source = placed(runtime, kind), f"{runtime} {table['version']}, {table['table']}"
        row = unknown._replace(source=source, version=table["version"], date=table["date"])
        # the table does not list separate experts, which are covered by rules
        others = having.get("expert", ())
        for name, module in adapter.items():
            end = name.removesuffix(".weight").rpartition(".")[2]
            if names is None:
                yield row._replace(module=name, why=f"its modules of {kind} are not listed here")
            elif end not in names and not module.parameter and name not in others:
                why = f"{end} of {kind} cannot have a LoRA there"
                yield row._replace(module=name, status="refused", why=why, fix="lora-np merge")
            elif _TOWER.search(name):
                yield row._replace(module=name, why="it is not in the language model")


def _by_rank(rules: Runtime, adapter: Adapter, refused: CheckedModule) -> Iterator[CheckedModule]:
    """Yield a prediction for each module whose rank exceeds the program's usual limit."""
    largest = max([adapter.config.get("r", 0), *(module.rank for module in adapter.values())])
    if largest <= (most := rules.get("usual", math.inf)):
        return
    allowed = next((limit for limit in rules["ranks"] if limit >= largest), None)
    fix = f"lora-np resize --rank {rules['ranks'][-1]}"
    fix = rules["option"].format(allowed) if allowed else fix
    row = refused._replace(why=f"a rank above {most}, the usual limit", fix=fix)
    over = [name for name, module in adapter.items() if module.rank > most] or [ALL]
    yield from (row._replace(module=name) for name in over)


def _by_scale(
    rules: Runtime, adapter: Adapter, errors: Mapping[str, float], refused: CheckedModule
) -> Iterator[CheckedModule]:
    """Yield a prediction for each module that the program runs at a wrong scale."""
    for name, error in errors.items():
        if abs(error - 1) > CLOSE:
            why = f"divides {_OF[rules['alpha']]} alpha by {_OF[rules['rank']]} rank"
            why += ", not by its root" if adapter[name].rslora and not rules["rslora"] else ""
            row = refused._replace(module=name, status="wrong scale", scale_error=error, why=why)
            yield row._replace(source=rules.get("scale_source", row.source))


def _tuner(adapter: Adapter) -> str | None:
    """Return the name of the PEFT tuner that trained the adapter; None for LoRA."""
    if adapter.raw.get("peft_type") == "LORA":
        return None
    return next((module.tuned.tuner.name for module in adapter.values() if module.tuned), None)


def _features(adapter: Adapter, form: Format, base: OpenModel | None) -> dict[str, set[str]]:
    """Map each of the ``FEATURES`` to the names of the modules and parameters that have it."""
    having: defaultdict[str, set[str]] = defaultdict(set)
    r, settings = adapter.config.get("r"), adapter.raw
    kohya = form == "kohya"
    linear = base is not None and base.model_type in _LINEAR_GATES
    common = usual(module.alpha for module in adapter.values()) if kohya else None
    for name, module in adapter.items():
        for what in module.extras:
            having[what].add(name)
        if name.rpartition(".")[2] == "lm_head":
            having["head"].add(name)
        if name.removesuffix(".weight").endswith(".mlp.gate") and not linear:
            having["router"].add(name)
        if _HEADLESS.match(name):
            having["headless"].add(name)
        if module.rank != r:
            having["other rank"].add(name)
        if kohya and is_flat(name) and module.alpha != common:
            having["other alpha"].add(name)
        if adapter.pipeline and name.startswith("diffusion_model."):
            having["prefix"].add(name)
        elif adapter.pipeline and not KOHYA.match(name):
            having["unprefixed"].add(name)
    for name in adapter.full:
        holder, _, parameter = name.rpartition(".")
        biases = parameter == "bias" and settings.get("bias", "none") != "none"
        kept = "trained bias" if biases else "saved norm" if "norm" in holder else "saved"
        having["copy" if name in adapter.copies else kept].add(name)
    having["rows"] = {*adapter.rows}
    having["moved base"] = {*adapter} if adapter.init else set()
    targets = settings.get("target_modules")
    if isinstance(targets, str) and not is_all_linear(targets):
        having["expression"] = {ALL}
    for name, changes in adapter.renamed.items():
        for change in changes:
            having[change.kind].add(name)
    if base is not None:
        _compare(adapter, form, base, having)
    return having


def _compare(
    adapter: Adapter, form: Format, base: OpenModel, having: defaultdict[str, set[str]]
) -> None:
    """Add the features that depend on the base, such as its module names, to ``having``."""
    spec = base.spec
    pieces = pieces_of(base)
    bare = {name: name.removesuffix(".weight") for name in adapter}
    others = base.counterparts(bare.values())
    for name, own in bare.items():
        module = base.modules.get(others.get(own, own))
        if module is None:
            kind = "expert" if own in base.names else "apart" if own in pieces else "unknown"
            having["unsure" if spec.assumed else kind].add(name)
            continue
        if own in others:
            having["prefix"].add(name)
        matrices = len(module.shape) > 1 and not adapter[name].kernel
        if matrices and adapter[name].shape[-2:] != module.sides[1:]:
            having["misfit"].add(name)
        if module.tied and not adapter[name].embedding:
            having["tied"].add(name)
    if any(module.tied for module in spec.groups):
        having["tied embedding"] |= having["embedding"]
    targets = adapter.raw.get("target_modules")
    if form == "peft" and targets and not is_all_linear(targets) and not spec.assumed:
        able, unable = targeted(spec, peft.parse(Path(peft.NAME), adapter.raw).targets)
        having["container"] |= {ALL} if unable else set()
        having["no target"] |= set() if able or having["expert"] else {ALL}


def _scale_errors(rules: Runtime, adapter: Adapter) -> dict[str, float]:
    """Map each module to the program's scale divided by the correct one; infinity if that is 0."""
    config, errors = adapter.config, {}
    for name, module in adapter.items():
        alpha = module.alpha if rules["alpha"] == "own" else config["lora_alpha"]
        rank = module.rank if rules["rank"] == "own" else config["r"]
        scale = alpha / (rank**0.5 if module.rslora and rules["rslora"] else rank)
        errors[name] = (
            1.0 if scale == module.scale else scale / module.scale if module.scale else math.inf
        )
    return errors
