"""Predict how each program will run an adapter."""

from __future__ import annotations

import os
import shlex
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
    predictions,
    runtimes,
)
from lora_np.adapters.values import Fault, missing, shortened, value_faults
from lora_np.checks import choice
from lora_np.hub import open_pickle, safetensors
from lora_np.models import Base, open_base, peft
from lora_np.table import Table


@dataclass(frozen=True, repr=False)
class Checked(Findings[CheckedModule]):
    """The result of `check`: a prediction for each program and module, and notes.

    Parameters
    ----------
    title : str
        The title of the table.
    rows : tuple of CheckedModule
        A prediction for each program and module.
    notes : tuple of str
        The version, date and source of each program's rules, what was not checked, and what would
        help.
    headings : tuple of str
        The headings of the columns.
    fine : bool
        Whether every program runs every module as PEFT does.
    """

    fine: bool

    @property
    def table(self) -> Table:
        """The predictions as a table, with one line for each group of modules treated alike."""
        everything = len({row.module for row in self.rows} - {ALL})
        records = [
            (
                row.runtime,
                f"all {everything}" if len(names) == everything > 1 else shortened(names),
                *(row.status, row.scale_error, row.why, row.fix),
            )
            for row, names in grouped(self.rows).items()
        ]
        return Table(self.headings, records, title=self.title, notes=self.notes)

    def to_json(self) -> str:
        """Return every prediction as JSON, with all its fields."""
        return Table(CheckedModule._fields, self.rows, title=self.title, notes=self.notes).to_json()


def check(adapter: Source, *, runtime: str = "all", base: Base | None = None) -> Checked:
    """Predict how programs will run an adapter: which modules they refuse, ignore or scale wrongly.

    Parameters
    ----------
    adapter : path or Adapter
        An adapter in any format that `load` reads.
    runtime : str
        The program: "peft", "vllm", "sglang", "llama.cpp", "tensorrt-llm" or "mlx"; for files of
        image models "diffusers" or "comfyui"; or "all" programs for this kind of model.
    base : path or mapping, optional
        The base model or its config, which shows whether names match and which weights are tied.

    Returns
    -------
    Checked
        A prediction for each program and module; `Checked.fine` is the verdict.

    Raises
    ------
    FileError
        If the adapter is damaged.
    ValueError
        If the runtime is unknown.

    See Also
    --------
    repair : Fix the names of modules.
    convert : Fix most other problems.

    Notes
    -----
    A note names the version of each program to which the rules apply (``runtimes.toml`` in this
    package). The modules that a program can adapt in an architecture were read from its source
    (``places.json``). Without a base, only the module names of a Llama are known. All values of the
    tensors are read. For llama.cpp, a directory of PEFT is checked as llama.cpp's converter would
    write it; for mlx-lm, as if a script had renamed its tensors.

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
    path = None
    if not isinstance(adapter, Adapter):
        form, path = format_of(adapter)
    known = None if base is None else open_base(base)
    programs = {
        name: rules
        for name, rules in runtimes().items()
        # "all" selects the programs for image models if the format is kohya's, otherwise the
        # programs for language models
        if runtime == name
        or (
            runtime == "all" and rules["reads"] and ("kohya" in rules["reads"]) == (form == "kohya")
        )
    }
    headings = ("runtime", "modules", "status", "scale error", "why", "fix")
    faults = _empty(weights_file(path)) if path and path.exists() and form != "gguf" else []
    read = Adapter({})
    if not faults:
        read = opened(adapter, base=known, ordered=known is not None)
        read = without_copies(read, base_of(read, known))
        faults = [*((ALL, fault) for fault in missing(read, known)), *value_faults(read)]
        faults += _unselected(path, read) if path and form == "mlx" else []
    records = predictions(read, form, known, programs, faults)
    notes = [f"{name} {x['version']}, {x['date']}: {x['source']}" for name, x in programs.items()]
    if runtime == "all":
        others = [name for name, x in runtimes().items() if x["reads"] and name not in programs]
        notes.append(f"not checked, since they run other models: {', '.join(others)}")
    if read.around:
        notes.append(f"names are not as their program writes them: {', '.join(read.around)}")
    notes += _advice(records, adapter, form, base)
    fine = all(row.status == "fine" for row in records)
    return Checked(f"Check of {adapter}", records, tuple(notes), headings, fine)


def _empty(file: Path) -> list[tuple[str, Fault]]:
    """List the empty tensors of a file, which no program loads."""
    why = "empty: not gathered before it was saved, as with DeepSpeed ZeRO-3"
    tensors = (open_pickle if file.suffix == ".bin" else safetensors.open)(file).tensors
    return [(key, Fault("empty", why)) for key, info in tensors.items() if 0 in info.shape]


def _unselected(folder: Path, adapter: Adapter) -> Iterator[tuple[str, Fault]]:
    """Yield a fault for each module that mlx-lm's settings do not select."""
    keys = peft.read(folder).get("lora_parameters", {}).get("keys")
    why = "lora_parameters.keys do not select it, so mlx-lm has no layer for the tensor"
    for name, module in adapter.items():
        path = module.parts["A"].key.removesuffix(".lora_a")
        inner = path.partition(".layers.")[2].partition(".")[2]
        if path and keys is not None and not {path, inner} & {*keys}:
            yield name, Fault("refused", why)


OWN_BASE = "use the base that it was trained on"  # a fix in runtimes.toml that is not a command


def _advice(
    records: Iterable[CheckedModule], adapter: Source, form: Format, base: Base | None
) -> list[str]:
    """Return a note on the right base, or else on the command that helps most programs, if any."""
    records = [*records]
    if any(row.fix == OWN_BASE for row in records):
        return [f"what would help: {OWN_BASE}"]
    fixes = {(row.runtime, row.fix) for row in records if row.fix.startswith("lora-np")}
    if not fixes:
        return []
    votes = Counter(fix for _, fix in fixes)
    # Prefer `repair`, then the fix that helps the most programs. On a tie, prefer `--to portable`,
    # which suits every program.
    best = max(votes, key=lambda fix: ("repair" in fix, votes[fix], "portable" in fix, fix))
    verb, *options = best.split(" ", 2)[1:]
    model = shlex.quote(str(base)) if isinstance(base, (str, os.PathLike)) else "MODEL"
    path = adapter.path or "ADAPTER" if isinstance(adapter, Adapter) else adapter
    name = shlex.quote(str(path))
    given = f"{model} {name}" if verb == "merge" else name
    command = " ".join([verb, given, *options]).replace("MODEL", model)
    to = best.partition("--to ")[2].partition(" ")[0]
    kept = form if verb in ("repair", "resize") or to == "lora" else to
    ending = next((ending for ending, form in FILES.items() if form == kept), "")
    return [f"what would help: lora-np {command} -o NEW{ending}"]
