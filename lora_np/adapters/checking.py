"""Predict how programs run an adapter."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lora_np.adapters.adapter import FILES, Adapter, Format, Source
from lora_np.adapters.formats import (
    Findings,
    base_of,
    format_of,
    opened,
    weights_file,
    without_copies,
)
from lora_np.adapters.rules import (
    ALL,
    CheckedModule,
    grouped,
    judged,
    runtimes,
)
from lora_np.adapters.values import Fault, missing, shortened, value_faults
from lora_np.checks import choice
from lora_np.files import read_json
from lora_np.hub import open_pickle, safetensors
from lora_np.models import Base, open_base, peft
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
    The rules are those of the version that a note names, from ``runtimes.toml`` in this package,
    and the places where a program can adapt an architecture are those of its own source, in
    ``places.json``. Without a base, only the names of a Llama are known. Every value is read. A
    directory for PEFT is judged for llama.cpp as its own converter writes it, and for mlx-lm as a
    script that renames its tensors.

    Examples
    --------
    >>> import lora_np as lnp, numpy as np
    >>> from lora_np.adapters import AdapterModule
    >>> modules = {
    ...     f"model.layers.0.self_attn.{name}": AdapterModule.of(
    ...         A=np.ones((r, 3)), B=np.ones((4, r)), alpha=2.0 * r
    ...     )
    ...     for name, r in [("q_proj", 4), ("k_proj", 2)]
    ... }
    >>> for row in check(Adapter(modules), runtime="llama.cpp").rows:
    ...     print(row.module, row.status, row.scale_error)
    model.layers.0.self_attn.q_proj fine 1.0
    model.layers.0.self_attn.k_proj wrong scale 2.0
    """
    choice("runtime", runtime, [*runtimes(), "all"])
    form: Format = "peft"
    path: Path | None = None
    if not isinstance(adapter, Adapter):
        form, path = format_of(adapter)
    known = None if base is None else open_base(base)
    programs = {
        name: rules
        for name, rules in runtimes().items()
        # of image models, or of language models
        if runtime == name
        or (
            runtime == "all" and rules["reads"] and ("kohya" in rules["reads"]) == (form == "kohya")
        )
    }
    headings = ("runtime", "modules", "status", "scale error", "why", "fix")
    faults = _empty(weights_file(path)) if path and path.exists() and form != "gguf" else []
    read = Adapter({})
    if not faults:
        read = opened(adapter, base=known)
        read = without_copies(read, base_of(read, known))
        faults = [*((ALL, fault) for fault in missing(read, known)), *value_faults(read)]
        faults += _unselected(path, read) if path and form == "mlx" else []
    rows = judged(read, form, known, programs, faults)
    notes = [f"{name} {x['version']}, {x['date']}: {x['source']}" for name, x in programs.items()]
    if runtime == "all":
        others = [name for name, x in runtimes().items() if x["reads"] and name not in programs]
        notes.append(f"not asked, since they run other models: {', '.join(others)}")
    if read.around:
        notes.append(f"names are not as their program writes them: {', '.join(read.around)}")
    notes += _advice(rows, adapter, form, base)
    fine = all(row.status == "fine" for row in rows)
    return Checked(f"Check of {adapter}", rows, tuple(notes), headings, fine)


def _empty(file: Path) -> list[tuple[str, Fault]]:
    """List the tensors without elements, which no program loads."""
    why = "empty: not gathered when it was saved, as under DeepSpeed ZeRO-3"
    tensors = (open_pickle if file.suffix == ".bin" else safetensors.open)(file).tensors
    return [(key, Fault("empty", why)) for key, info in tensors.items() if 0 in info.shape]


def _unselected(folder: Path, adapter: Adapter) -> Iterator[tuple[str, Fault]]:
    """List modules that mlx-lm leaves as they are, by its settings for the adapter."""
    keys = read_json(folder / peft.NAME).get("lora_parameters", {}).get("keys")
    why = "lora_parameters.keys do not select it: the tensor has no place in the model"
    for name, module in adapter.items():
        path = module.parts["A"].key.removesuffix(".lora_a")
        inner = path.partition(".layers.")[2].partition(".")[2]
        if path and keys is not None and not {path, inner} & {*keys}:
            yield name, Fault("refused", why)


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
