"""How programs run an adapter: the rules of each, as data, applied to the adapter's modules."""

from __future__ import annotations

import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lora_np.adapters.adapter import Adapter, Source
from lora_np.adapters.formats import (
    Base,
    Findings,
    described,
    format_of,
    opened,
    without_copies,
)
from lora_np.adapters.scaling import CLOSE, Runtime, copied, extras, runtimes, scale_errors
from lora_np.checks import choice
from lora_np.lora import tuner_of
from lora_np.models import ModelSpec, is_all_linear, mlx_name, peft, renamed, targeted
from lora_np.table import Table

_WORST = ("refused", "ignored", "wrong scale", "not known", "fine")
# What an adapter may have that a program needs a rule for; what has none there is not known.
FEATURES = (
    "magnitude", "bias", "kernel", "embedding", "parameter", "head", "router", "other rank",
    "saved", "saved norm", "trained bias", "copy", "rows", "only named", "moved base", "expression",
    "tied", "tied embedding", "wrapped", "doubled", "unprefixed", "named", "prefix", "headless",
    "unknown", "unsure", "misfit", "no target", "container",
)  # fmt: skip
_ALL = "(all)"  # of a row about the adapter as a whole
# a block of a language model at the beginning of a name
_HEADLESS = re.compile(r"(layers|h)\.\d+\.(self_attn|attn|mlp)\.")
# families whose routers are linear layers in mlx-lm
_LINEAR_GATES = ("mixtral", "olmoe", "phimoe", "qwen2_moe", "qwen3_moe", "qwen3_next")
_OF = {"own": "each module's own", "config": "the config's one"}
_TO_LORA = "lora-np convert --to lora"


class CheckedModule(NamedTuple):
    """How one program runs one module.

    Parameters
    ----------
    runtime : str
        The program.
    module : str
        Its path, the name of a parameter that is replaced, or "(all)".
    status : {"fine", "not known", "wrong scale", "ignored", "refused"}
        What becomes of it.
    scale_error : float or None
        By how much its scale is too large.
    why : str
        The reason.
    fix : str
        The option or the conversion that helps; empty if none does.
    source, version, date : str
        Who says so, of which version of the program, and when.
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


@dataclass(frozen=True, repr=False)
class Checked(Findings[CheckedModule]):
    """The result of `check`.

    Parameters
    ----------
    title : str
        Of the table.
    rows : tuple of CheckedModule
        One for each program and module.
    notes : tuple of str
        The version and the date of each program's rules, where they are from, and the command that
        would help.
    headings : tuple of str
        Of the columns.
    fine : bool
        Whether every program runs every module as PEFT does.
    """

    fine: bool

    @property
    def table(self) -> Table:
        """One row for each program and status, with the names of the modules."""
        groups: dict[CheckedModule, list[str]] = defaultdict(list)
        for row in self.rows:
            error = None if row.scale_error is None else float(f"{row.scale_error:.4g}")
            groups[row._replace(module="", scale_error=error, source="")].append(row.module)
        rows = [
            (row.runtime, self._listed(names), row.status, row.scale_error, row.why, row.fix)
            for row, names in groups.items()
        ]
        return Table(self.headings, rows, title=self.title, notes=self.notes)

    def _listed(self, names: Sequence[str]) -> str:
        """Names, or how many if they are all or many."""
        if len(names) > 1 and len(names) == len({row.module for row in self.rows} - {_ALL}):
            return f"all {len(names)}"
        return ", ".join(names) if len(names) <= 2 else f"{names[0]} and {len(names) - 1} more"

    def to_json(self) -> str:
        """For programs: every row, with all its fields."""
        return Table(CheckedModule._fields, self.rows, title=self.title, notes=self.notes).to_json()


def check(adapter: Source, *, runtime: str = "all", base: Base | None = None) -> Checked:
    """Predict how programs run an adapter: what they refuse, ignore, or run at a wrong scale.

    Parameters
    ----------
    adapter : path or Adapter
        In any format that `load` reads.
    runtime : {"peft", "vllm", "sglang", "llama.cpp", "tensorrt-llm", "mlx", "all"}
        The program.
    base : path or mapping, optional
        The base model or its config: with it, names are compared, and tied weights are known.

    Returns
    -------
    Checked
        A row for each program and module; `Checked.fine` is the verdict.

    Raises
    ------
    FileError
        If the adapter is damaged.
    ValueError
        If the runtime is not known.

    See Also
    --------
    repair : What fixes names.
    convert : What fixes most of the rest.

    Notes
    -----
    The rules are those of the version that a note names, from ``runtimes.toml`` in this package. A
    directory for PEFT is judged for llama.cpp as its own converter writes it, and for mlx-lm as a
    script that renames its tensors.

    Examples
    --------
    >>> import lora_np as lnp, numpy as np
    >>> from lora_np.adapters import AdapterModule
    >>> modules = {
    ...     name: AdapterModule.of(A=np.ones((r, 3)), B=np.ones((4, r)), alpha=2.0 * r)
    ...     for name, r in [("q", 4), ("k", 2)]
    ... }
    >>> for row in check(Adapter(modules), runtime="llama.cpp").rows:
    ...     print(row.module, row.status, row.scale_error)
    q fine 1.0
    k wrong scale 2.0
    """
    choice("runtime", runtime, [*runtimes(), "all"])
    form = "peft" if isinstance(adapter, Adapter) else format_of(adapter)[0]
    found = without_copies(opened(adapter, base=base), base)
    known = runtimes() if runtime == "all" else {runtime: runtimes()[runtime]}
    has = {} if tuner_of(found.raw) else _features(found, form, base)
    rows = tuple(row for each in known.items() for row in _checked(*each, found, form, has))
    notes = [f"{name} {x['version']}, {x['date']}: {x['source']}" for name, x in known.items()]
    notes += _advice(rows, adapter, base)
    headings = ("runtime", "modules", "status", "scale error", "why", "fix")
    fine = all(row.status == "fine" for row in rows)
    return Checked(f"Check of {adapter}", rows, tuple(notes), headings, fine)


def _advice(rows: Iterable[CheckedModule], adapter: Source, base: Base | None) -> list[str]:
    """Name the command that helps most programs; names come before all else."""
    fixes = {(row.runtime, row.fix) for row in rows if row.fix.startswith("lora-np")}
    if not fixes:
        return []
    votes = Counter(fix for _, fix in fixes)
    # of equal votes, what stays in the format; then by name, so that the answer is always the same
    best = max(votes, key=lambda fix: ("repair" in fix, votes[fix], "portable" in fix, fix))
    verb, *options = best.split(" ", 2)[1:]
    model = base if isinstance(base, (str, os.PathLike)) else "MODEL"
    given = f"{model} {adapter}" if verb == "merge" else str(adapter)
    command = " ".join([verb, given, *options]).replace("MODEL", str(model))
    return [f"what would help: lora-np {command} -o NEW"]


def _checked(
    runtime: str, rules: Runtime, adapter: Adapter, form: str, has: Mapping[str, set[str]]
) -> Iterator[CheckedModule]:
    """One row for each module, and for what is replaced; one for all if the format is not read."""
    fine = CheckedModule(runtime, _ALL, "fine", version=rules["version"], date=rules["date"])
    if tuner := tuner_of(adapter.raw):
        why = f"{tuner.name} is not a LoRA"
        refused = fine._replace(status="refused", why=why, fix=_TO_LORA)
        yield fine if runtime == "peft" else refused
        return
    refused = fine._replace(status="refused", fix=rules["instead"], source=rules["source"])
    found: list[CheckedModule] = []
    reads = form in rules["reads"]
    if not reads:
        why = f"reads {' and '.join(rules['reads'])}, and this is {form}"
        found.append(refused._replace(why=why))
    ruled = {*rules["fine"]}
    for rule in rules.get("rules", ()):
        ruled |= {*rule["has"]}
        if rule.get("form", form) != form:
            continue
        row = refused._replace(status=rule["status"], why=rule["why"])
        row = row._replace(fix=rule.get("fix", row.fix), source=rule.get("source", row.source))
        row = row._replace(date=rule.get("date", row.date))
        found += [row._replace(module=name) for what in rule["has"] for name in has.get(what, ())]
    for what in has.keys() - ruled:
        row = refused._replace(status="not known", why=f"no rule for this: {what}", fix="")
        found += [row._replace(module=name) for name in has[what]]
    largest = max([adapter.config.get("r", 0), *(module.rank for module in adapter.values())])
    if largest > (usual := rules.get("usual", math.inf)):
        allowed = next((limit for limit in rules["ranks"] if limit >= largest), None)
        fix = f"lora-np resize --rank {rules['ranks'][-1]}"
        fix = rules["option"].format(allowed) if allowed else fix
        row = refused._replace(why=f"a rank above {usual}, the usual limit", fix=fix)
        over = [name for name, module in adapter.items() if module.rank > usual] or [_ALL]
        found += [row._replace(module=name) for name in over]
    errors = scale_errors(rules, adapter) if form == "peft" else {}
    for name, error in errors.items():
        if abs(error - 1) > CLOSE:
            why = f"divides {_OF[rules['alpha']]} alpha by {_OF[rules['rank']]} rank"
            why += ", not by its root" if adapter[name].rslora and not rules["rslora"] else ""
            row = refused._replace(module=name, status="wrong scale", scale_error=error, why=why)
            found.append(row._replace(source=rules.get("scale_source", row.source)))
    worst: dict[str, CheckedModule] = {}
    for row in sorted(found, key=lambda row: _WORST.index(row.status)):
        worst.setdefault(row.module, row)
    for name in (_ALL, *adapter, *adapter.full, *adapter.rows):
        if name in worst:
            yield worst[name]
        elif reads and name != _ALL:
            yield fine._replace(module=name, scale_error=errors.get(name))


def _features(adapter: Adapter, form: str, base: Base | None) -> dict[str, set[str]]:
    """List the names of what has something that a rule may be about."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    r, said = adapter.config.get("r"), adapter.raw
    spec = None if base is None else described(base)
    family = spec.family if spec else ""
    for name, module in adapter.items():
        for what in extras(module):
            found[what].add(name)
        if name.rpartition(".")[2] == "lm_head":
            found["head"].add(name)
        if name.removesuffix(".weight").endswith(".mlp.gate") and family not in _LINEAR_GATES:
            found["router"].add(name)
        if _HEADLESS.match(name):
            found["headless"].add(name)
        if module.rank != r:
            found["other rank"].add(name)
    for name in adapter.full:
        module_name, _, parameter = name.rpartition(".")
        biases = parameter == "bias" and said.get("bias", "none") != "none"
        kept = "trained bias" if biases else "saved norm" if "norm" in module_name else "saved"
        found["copy" if name in copied(adapter) else kept].add(name)
    if said.get("modules_to_save") and not adapter.full:
        found["only named"] = {_ALL}
    found["rows"] = {*adapter.rows}
    found["moved base"] = {*adapter} if adapter.start else set()
    if isinstance(said.get("target_modules"), str) and said["target_modules"] not in (
        "all",
        "all-linear",
    ):
        found["expression"] = {_ALL}
    for name, changes in adapter.renamed.items():
        for change in changes:
            found[change.kind].add(name)
    if spec is not None:
        _compare(adapter, form, spec, found)
    return found


def _compare(
    adapter: Adapter, form: str, spec: ModelSpec, found: defaultdict[str, set[str]]
) -> None:
    """Add what only the base tells: whose names are its modules', and what these are."""
    modules = {name: module for module in spec.modules for name in (module.alias, module.name)}
    bare = {name: name.removesuffix(".weight") for name in adapter}
    others = renamed(bare.values(), modules)
    for name, own in bare.items():
        module = modules.get(others.get(own, own))
        if module is None:
            found["unsure" if spec.assumed or ".experts." in name else "unknown"].add(name)
            continue
        if own != mlx_name(module.name) if form == "mlx" else own in others:
            found["prefix"].add(name)
        matrices = len(module.shape) > 1 and not adapter[name].kernel
        if matrices and adapter[name].shape[-2:] != module.sides[1:]:
            found["misfit"].add(name)
        if module.tied and not adapter[name].embedding:
            found["tied"].add(name)
    if any(module.tied for module in spec.groups):
        found["tied embedding"] |= found["embedding"]
    targets = adapter.raw.get("target_modules")
    if form != "peft" or not targets or is_all_linear(targets) or spec.assumed:
        return
    able, unable = targeted(spec, peft.parse(Path(peft.NAME), adapter.raw).targets)
    found["container"] |= {_ALL} if unable else set()
    found["no target"] |= set() if able else {_ALL}
