"""What programs make of an adapter: the rules of each, as data, held against the adapter's
modules.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from lora_np.adapters.adapter import Adapter, Source
from lora_np.adapters.formats import (
    FILES,
    Base,
    Findings,
    described,
    format_of,
    load,
    without_copies,
)
from lora_np.adapters.scaling import copied, extras
from lora_np.checks import choice
from lora_np.lora import tuner_of
from lora_np.table import Table

_WORST = ("refused", "ignored", "wrong strength", "fine")
_ALL = "(all)"  # of a finding about the adapter as a whole
_OF = {"own": "each module's own", "config": "the config's one"}
_TO_LORA = "lora-np convert --to lora"
_CLOSE = 1e-6  # a strength that differs by less is right


class CheckedModule(NamedTuple):
    """What one program makes of one module.

    Parameters
    ----------
    runtime : str
        The program.
    module : str
        Its path, the name of a parameter that is replaced, or "(all)".
    finding : {"fine", "wrong strength", "ignored", "refused"}
        What becomes of it.
    factor : float or None
        How much too strong the update is.
    why : str
        The reason.
    cure : str
        The option or the conversion that helps; empty if none does.
    source, version, date : str
        Who says so, of which version of the program, and when.
    """

    runtime: str
    module: str
    finding: str
    factor: float | None = None
    why: str = ""
    cure: str = ""
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
        The version and the date of each program's rules, and where they are from.
    headings : tuple of str
        Of the columns.
    fine : bool
        Whether every program makes of every module what PEFT makes of it.
    """

    fine: bool

    @property
    def table(self) -> Table:
        """One row for each program and finding, with the names of the modules."""
        groups: dict[tuple[Any, ...], list[str]] = defaultdict(list)
        for row in self.rows:
            factor = None if row.factor is None else float(f"{row.factor:.4g}")
            groups[row.runtime, row.finding, factor, row.why, row.cure].append(row.module)
        rows = [(runtime, self._listed(names), *what) for (runtime, *what), names in groups.items()]
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
    """What programs make of an adapter as it is: the modules that they refuse, ignore, or run too
    strongly.

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
        Finding by finding; `Checked.fine` is the verdict.

    Raises
    ------
    FileError
        If the adapter is damaged.
    ValueError
        If the runtime is not known.

    See Also
    --------
    convert : What cures most of it.

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
    ...     print(row.module, row.finding, row.factor)
    q fine 1.0
    k wrong strength 2.0
    """
    choice("runtime", runtime, [*runtimes(), "all"])
    form = "peft" if isinstance(adapter, Adapter) else format_of(adapter)[0]
    opened = without_copies(load(adapter, base=base, ordered=False), base)
    known = runtimes() if runtime == "all" else {runtime: runtimes()[runtime]}
    rows = tuple(row for each in known.items() for row in _findings(*each, opened, form, base))
    notes = (f"{name} {x['version']}, {x['date']}: {x['source']}" for name, x in known.items())
    headings = ("runtime", "modules", "finding", "factor", "why", "what to do")
    fine = all(row.finding == "fine" for row in rows)
    return Checked(f"Check of {adapter}", rows, tuple(notes), headings, fine)


@cache
def runtimes() -> Mapping[str, Any]:
    """The rules of every program."""
    return tomllib.loads((files("lora_np.adapters") / "runtimes.toml").read_text(encoding="utf-8"))


def strength_notes(adapter: Adapter, out: str | os.PathLike[str]) -> list[str]:
    """Which programs misread the strength of an adapter that was written to ``out``, a directory
    for PEFT.
    """
    if Path(out).suffix in FILES:
        return []
    known = {name: rules for name, rules in runtimes().items() if "peft" in rules["reads"]}
    factors = {name: _factors(rules, adapter) for name, rules in known.items()}
    wrong = [
        name for name, each in factors.items() if any(abs(x - 1) > _CLOSE for x in each.values())
    ]
    note = f"ranks or scales differ: {', '.join(wrong)} would run some modules at another strength"
    return [f"{note}; portable=True (--portable) pads them"] if wrong else []


def _factors(rules: Mapping[str, Any], adapter: Adapter) -> dict[str, float]:
    """How much too strong each module is where these rules take the strength from a directory for
    PEFT.
    """
    said, found = adapter.config, {}
    for name, module in adapter.items():
        alpha = module.alpha if rules["alpha"] == "own" else said["lora_alpha"]
        rank = module.rank if rules["rank"] == "own" else said["r"]
        scale = alpha / (rank**0.5 if module.rslora and rules["rslora"] else rank)
        found[name] = (
            1.0 if scale == module.scale else scale / module.scale if module.scale else float("inf")
        )
    return found


def _findings(
    runtime: str, rules: Mapping[str, Any], adapter: Adapter, form: str, base: Base | None
) -> Iterator[CheckedModule]:
    """One row for each module, and for what is replaced; one for all if the format is not read."""
    about = {"version": rules["version"], "date": rules["date"]}
    if tuner := tuner_of(adapter.raw):
        said = (
            ("fine", None)
            if runtime == "peft"
            else ("refused", None, f"{tuner.name} is not a LoRA", _TO_LORA)
        )
        yield CheckedModule(runtime, _ALL, *said, **about)
        return
    has, reads = _features(adapter, base), form in rules["reads"]
    instead, source = rules["instead"], rules["source"]
    found: list[tuple[Collection[str], tuple[Any, ...]]] = []  # names, and what their rows say
    if not reads:
        why = f"reads {' and '.join(rules['reads'])}, and this is {form}"
        found.append(([_ALL], ("refused", None, why, instead, source)))
    for rule in rules.get("rules", ()):
        named = {name for what in rule["has"] for name in has[what]}
        cure, where = rule.get("cure", instead), rule.get("source", source)
        found.append((named, (rule["finding"], None, rule["why"], cure, where)))
    ranks = {
        _ALL: adapter.config.get("r", 0),
        **{name: module.rank for name, module in adapter.items()},
    }
    if max(ranks.values()) > (usual := rules.get("usual", math.inf)):
        allowed = next((limit for limit in rules["ranks"] if limit >= max(ranks.values())), None)
        cure = (
            rules["option"].format(allowed)
            if allowed
            else f"lora-np resize --rank {rules['ranks'][-1]}"
        )
        over = [name for name, rank in ranks.items() if rank > usual and name != _ALL] or [_ALL]
        found.append(
            (over, ("refused", None, f"a rank above {usual}, the usual limit", cure, source))
        )
    factors = _factors(rules, adapter) if form == "peft" else {}
    for name, factor in factors.items():
        if abs(factor - 1) > _CLOSE:
            why = f"divides {_OF[rules['alpha']]} alpha by {_OF[rules['rank']]} rank"
            why += ", not by its root" if adapter[name].rslora and not rules["rslora"] else ""
            found.append(
                ([name], ("wrong strength", factor, why, instead, rules.get("strength", source)))
            )
    for name in (_ALL, *adapter, *adapter.full, *adapter.rows):
        rows = [row for names, row in found if name in names]
        if reads and name != _ALL:
            rows.append(("fine", factors.get(name)))
        if rows:
            yield CheckedModule(
                runtime, name, *min(rows, key=lambda row: _WORST.index(row[0])), **about
            )


def _features(adapter: Adapter, base: Base | None) -> dict[str, set[str]]:
    """The names of what has something that a rule may be about."""
    found: dict[str, set[str]] = defaultdict(set)
    r, said = adapter.config.get("r"), adapter.raw
    for name, module in adapter.items():
        for what in extras(module):
            found[what].add(name)
        if name.rpartition(".")[2] == "lm_head":
            found["head"].add(name)
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
    if base is not None:
        modules = [(name, module) for module in described(base).modules for name in module.names()]
        found["unknown"] = {
            name for name in adapter if name.removesuffix(".weight") not in dict(modules)
        }
        tied = {name for name, module in modules if module.tied}
        found["tied embedding"] = found["embedding"] if tied else set()
        found["tied"] = ({*adapter} & tied) | found["tied embedding"]
    return found
