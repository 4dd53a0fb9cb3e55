"""What an adapter contains: norm, spectrum and unused rank of each module, and how it relates to its base."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from lora_np.adapters.merge import base_weights
from lora_np.adapters.peft_format import Adapter, Module, Stored, at_least_single, load
from lora_np.adapters.ranks import rank_for_loss
from lora_np.adapters.steps import finite
from lora_np.adapters.weights import is_transposed, merged
from lora_np.checks import Array
from lora_np.hub import directory, open_model
from lora_np.linalg import (
    amplification_factor,
    effective_rank,
    intruder_dimensions,
    stable_rank,
    svd_of_product,
)
from lora_np.table import Cell, Table
from lora_np.work import each

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NEEDED = 0.99  # the share of its squared norm that a module's needed directions hold
_TOP = 10  # leading directions of a merged weight that are looked at for intruders


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 72em; padding: 0 1em }}
svg {{ width: 100%; height: auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
caption {{ text-align: left; font-weight: 600; padding: .5em 0 }}
th, td {{ padding: .15em .8em; border-bottom: 1px solid #e6e6e6 }}
</style>
{figure}
{table}
</html>
"""


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found: a table of all modules, and the spectrum of each.

    Parameters
    ----------
    table : Table
        One row for each module. ``norm`` is ``||dW||_F``, ``share`` its part of the adapter's squared norm,
        ``needed`` the smallest rank with 99 % of the module's squared norm and ``wasted`` what the rank has
        beyond that. With a base: ``relative`` is ``||dW|| / ||W0||``, ``amplification`` that of section 7.3
        of the paper, ``intruders`` the number of new directions among the ten strongest of the merged weight.
    spectra : mapping of str to ndarray
        Singular values of each update, scaling included. Empty for a module that is not finite.
    """

    table: Table
    spectra: Mapping[str, Array]

    def __str__(self) -> str:
        return str(self.table)

    def figure(self) -> Figure:
        """Strength and spectrum of all modules: `lora_np.plots.adapter_overview`."""
        from lora_np.plots import adapter_overview

        return adapter_overview(self.spectra, title=self.table.title)

    def to_html(self) -> str:
        """One page with the figure and the table, which needs no other file."""
        picture = io.StringIO()
        self.figure().savefig(picture, format="svg")
        drawing = picture.getvalue()
        return _PAGE.format(
            title=escape(self.table.title),
            figure=drawing[drawing.index("<svg") :],
            table=self.table._repr_html_(),
        )


def inspect(
    adapter: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    jobs: int = 1,
    progress: bool = False,
) -> Inspection:
    """Look into an adapter, module by module, through thin QRs that never form B A.

    Parameters
    ----------
    adapter : path
    base : path, optional
        The base model's checkpoint, to compare with. This takes two full SVDs of each adapted weight.
    jobs : int
        How many modules to work on at a time.
    progress : bool
        Show a bar, if standard error is a terminal.

    Returns
    -------
    Inspection
        Modules that are not finite, or do nothing, are called out.

    Raises
    ------
    HubError
        If the adapter is damaged, or does not fit the base.

    References
    ----------
    Hu et al., arXiv 2106.09685, section 7.3; Shuttleworth et al., arXiv 2410.21228 (intruder dimensions).

    Examples
    --------
    >>> import tempfile, lora_np as lnp
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "adapter"
    >>> module = Module.of(A=np.eye(2, 5), B=np.diag([3.0, 0.1]), alpha=2)
    >>> lnp.adapters.save(lnp.adapters.Adapter({"q": module}), path)
    >>> row = inspect(path).table.records[0]
    >>> row["rank"], row["needed"], row["wasted"], round(row["stable rank"], 3)
    (2, 1, 1, 1.001)
    """
    opened = load(adapter)
    weights: Mapping[str, Stored] = {} if base is None else base_weights(open_model(directory(base)), opened)
    work = [
        _Work(f"{adapter}: {name!r}", module, weights.get(name), opened.fan_in_fan_out)
        for name, module in opened.items()
    ]
    found = dict(zip(opened, each(_look, work, jobs=jobs, progress=progress, label="inspect"), strict=True))
    total = sum(look.norm**2 for look in found.values() if look.norm is not None)
    rows = [_row(name, opened[name], look, total, base is not None) for name, look in found.items()]
    columns = [*_COLUMNS, *(_AGAINST_BASE if base is not None else ())]
    table = Table(
        columns,
        rows,
        title=f"Adapter {adapter}",
        notes=_notes(opened, found),
        formats={"share": "{:.1%}".format},
    )
    return Inspection(table, {name: look.s for name, look in found.items()})


_COLUMNS = (
    "module", "status", "rank", "scaling", "norm", "share",
    "effective rank", "stable rank", "needed", "wasted",
)  # fmt: skip
_AGAINST_BASE = ("relative", "amplification", "intruders")


@dataclass(frozen=True)
class _Work:
    place: str
    module: Module
    weight: Stored | None
    fan_in_fan_out: bool


@dataclass(frozen=True)
class _Look:
    """What is seen of one module. A norm of None says that it is not finite."""

    s: Array
    norm: float | None
    relative: float | None = None
    amplification: float | None = None
    intruders: int | None = None


def _look(work: _Work) -> _Look:
    module = work.module
    B, A = module.factors()
    if not (np.isfinite(B).all() and np.isfinite(A).all()):
        return _Look(np.zeros(0), None)
    s = abs(module.scaling) * finite(work.place, svd_of_product, B, A).s.astype(np.float64)
    norm = float(np.linalg.norm(s))
    if work.weight is None:
        return _Look(s, norm)
    W0 = at_least_single(work.weight.read())
    transposed = is_transposed(work.place, W0.shape, module, work.fan_in_fan_out)
    dtype = "float64" if W0.dtype == np.float64 else "float32"
    W, _, _ = merged(work.place, W0.copy(), module, transposed=transposed, dtype=dtype)
    W0, W = (W0.T, W.T) if transposed else (W0, W)
    strongest = min(module.rank, *W0.shape)
    return _Look(
        s,
        norm,
        relative=norm / (float(np.linalg.norm(W0)) or float("inf")),
        amplification=amplification_factor(W0, module.delta(), rank=strongest) if norm else None,
        intruders=len(intruder_dimensions(W0, W, top=min(_TOP, *W0.shape))),
    )


def _row(name: str, module: Module, look: _Look, total: float, with_base: bool) -> list[Cell]:
    row: list[Cell] = [name, _status(look), module.rank, module.scaling, look.norm]
    if look.norm is None:
        row += [None] * 5
    else:
        needed = rank_for_loss(look.s, 1 - _NEEDED) if look.norm else 0
        spectrum = np.diag(look.s)
        row += [
            look.norm**2 / (total or 1.0),
            effective_rank(spectrum),
            stable_rank(spectrum),
            needed,
            module.rank - needed,
        ]
    return row + [look.relative, look.amplification, look.intruders] * with_base


def _status(look: _Look) -> str:
    if look.norm is None:
        return "NOT FINITE"
    return "ok" if look.norm > 0 else "DEAD"


def _notes(adapter: Adapter, found: Mapping[str, _Look]) -> list[str]:
    notes = []
    for status, what in (("NOT FINITE", "hold NaN or infinity"), ("DEAD", "do nothing: B A is zero")):
        named = [name for name, look in found.items() if _status(look) == status]
        if named:
            notes.append(f"{status}: {', '.join(named)} {what}")
    if any("magnitude" in module.parts for module in adapter.values()):
        notes.append("DoRA: norms and spectra are those of the directions' updates, before magnitudes")
    if adapter.full:
        notes.append(f"replaced in full: {', '.join(adapter.full)}")
    return notes
