"""Predict how programs run an adapter."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from lora_np.adapters.adapter import FILES, Adapter, Format, Source
from lora_np.adapters.formats import Findings, base_of, format_of, opened, without_copies
from lora_np.adapters.rules import ALL, CheckedModule, grouped, judged, runtimes, shortened
from lora_np.checks import choice
from lora_np.models import Base, open_base
from lora_np.table import Table


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
        everything = len({row.module for row in self.rows} - {ALL})
        rows = [
            (
                row.runtime,
                f"all {everything}" if len(names) == everything > 1 else shortened(names),
                *(row.status, row.scale_error, row.why, row.fix),
            )
            for row, names in grouped(self.rows).items()
        ]
        return Table(self.headings, rows, title=self.title, notes=self.notes)

    def to_json(self) -> str:
        """For programs: every row, with all its fields."""
        return Table(CheckedModule._fields, self.rows, title=self.title, notes=self.notes).to_json()


def check(adapter: Source, *, runtime: str = "all", base: Base | None = None) -> Checked:
    """Predict how programs run an adapter: what they refuse, ignore, or run at a wrong scale.

    Parameters
    ----------
    adapter : path or Adapter
        In any format that `load` reads.
    runtime : str
        "peft", "vllm", "sglang", "llama.cpp", "tensorrt-llm", "mlx"; for files of image models
        "diffusers", "comfyui"; or "all" of these.
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
    known = None if base is None else open_base(base)
    read = opened(adapter, base=known)
    read = without_copies(read, base_of(read, known))
    programs = {
        name: rules
        for name, rules in runtimes().items()
        # of image models, or of language models
        if runtime == name
        or (runtime == "all" and ("kohya" in rules["reads"]) == (form == "kohya"))
    }
    rows = judged(read, form, known, programs)
    notes = [f"{name} {x['version']}, {x['date']}: {x['source']}" for name, x in programs.items()]
    if runtime == "all":
        others = [name for name in runtimes() if name not in programs]
        notes.append(f"not asked, since they run other models: {', '.join(others)}")
    if read.around:
        notes.append(f"names are not as their program writes them: {', '.join(read.around)}")
    notes += _advice(rows, adapter, form, base)
    headings = ("runtime", "modules", "status", "scale error", "why", "fix")
    fine = all(row.status == "fine" for row in rows)
    return Checked(f"Check of {adapter}", rows, tuple(notes), headings, fine)


OWN_BASE = "use the base that it was trained on"  # of runtimes.toml: no command gives other shapes


def _advice(
    rows: Iterable[CheckedModule], adapter: Source, form: Format, base: Base | None
) -> list[str]:
    """Name the command that helps most programs; names come before all else."""
    rows = [*rows]
    if any(row.fix == OWN_BASE for row in rows):
        return [f"what would help: {OWN_BASE}"]
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
    to = best.partition("--to ")[2].partition(" ")[0]
    kept = form if verb in ("repair", "resize") or to == "lora" else to
    ending = next((ending for ending, form in FILES.items() if form == kept), "")
    return [f"what would help: lora-np {command} -o NEW{ending}"]
