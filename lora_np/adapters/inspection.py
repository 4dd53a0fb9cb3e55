"""What an adapter contains: norm, spectrum and unused rank of each module, and how it relates to its base."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lora_np.adapters.findings import Findings
from lora_np.adapters.merging import base_weights
from lora_np.adapters.peft_format import Adapter, AdapterModule, Stored, at_least_single, load
from lora_np.adapters.ranks import Spectrum
from lora_np.adapters.steps import each_of, finite
from lora_np.adapters.weights import is_transposed, merged
from lora_np.checks import Array
from lora_np.hub import HubError, close_names, directory, open_gguf, open_model
from lora_np.linalg import (
    amplification_factor,
    effective_rank,
    intruder_dimensions,
    stable_rank,
    svd_of_product,
)
from lora_np.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


class InspectedModule(NamedTuple):
    """What is seen of one module; fields after ``scale`` are None where it is not finite.

    Parameters
    ----------
    name : str
        Its path.
    status : {"ok", "DEAD", "NOT FINITE"}
        DEAD does nothing: B A is zero.
    rank : int
        r.
    scale : float
        alpha / r, or alpha / sqrt(r).
    norm : float or None
        ``||dW||_F``.
    share : float or None
        Its part of the adapter's squared norm.
    effective_rank, stable_rank : float or None
        See `lora_np.linalg`.
    needed : int or None
        The smallest rank with 99 % of the module's squared norm.
    wasted : int or None
        What the rank has beyond that.
    relative : float or None
        With a base: ``||dW|| / ||W0||``.
    amplification : float or None
        With a base: that of section 7.3 of the paper.
    intruders : int or None
        With a base: new directions among the ten strongest of the merged weight.
    """

    name: str
    status: str
    rank: int
    scale: float
    norm: float | None = None
    share: float | None = None
    effective_rank: float | None = None
    stable_rank: float | None = None
    needed: int | None = None
    wasted: int | None = None
    relative: float | None = None
    amplification: float | None = None
    intruders: int | None = None


@dataclass(frozen=True, repr=False)
class Inspection(Findings):
    """What `inspect` found, module by module.

    Parameters
    ----------
    title : str
        Of table and figure.
    rows : tuple of InspectedModule
        All modules.
    notes : tuple of str
        What is out of the ordinary.
    spectra : mapping of str to ndarray
        Singular values of each update, scaling included. Empty for a module that is not finite.
    """

    rows: tuple[InspectedModule, ...]
    spectra: Mapping[str, Array]
    headings = (
        "module", "status", "rank", "scale", "norm", "share", "effective rank", "stable rank", "needed",
        "wasted", "relative", "amplification", "intruders",
    )  # fmt: skip

    @property
    def table(self) -> Table:
        """One row for each module; without a base there is nothing to compare with."""
        compared = any(row.intruders is not None for row in self.rows)
        headings = self.headings if compared else self.headings[:-3]
        rows = [row[: len(headings)] for row in self.rows]
        return Table(headings, rows, title=self.title, notes=self.notes, formats={"share": "{:.1%}".format})

    def figure(self) -> Figure:
        """Strength and spectrum of all modules: `lora_np.plots.adapter_overview`."""
        from lora_np.plots import adapter_overview

        return adapter_overview(self.spectra, title=self.title)

    def to_html(self) -> str:
        """One page with the figure and the table, which needs no other file."""
        picture = io.StringIO()
        self.figure().savefig(picture, format="svg")
        drawing = picture.getvalue()
        return _PAGE.format(
            title=escape(self.title),
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
        A directory as PEFT writes it.
    base : path, optional
        The base model's checkpoint or GGUF file, to compare with. This takes two full SVDs of each adapted
        weight.
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

    See Also
    --------
    diff : Compare two adapters.

    References
    ----------
    Hu et al., arXiv 2106.09685, section 7.3; Shuttleworth et al., arXiv 2410.21228 (intruder dimensions).

    Examples
    --------
    >>> import tempfile, lora_np as lnp
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "adapter"
    >>> module = AdapterModule.of(A=np.eye(2, 5), B=np.diag([3.0, 0.1]), alpha=2)
    >>> lnp.adapters.save(lnp.adapters.Adapter({"q": module}), path)
    >>> (q,) = inspect(path).rows
    >>> q.rank, q.needed, q.wasted, round(q.stable_rank, 3)
    (2, 1, 1, 1.001)
    """
    opened = load(adapter)
    weights: Mapping[str, Stored] = {} if base is None else _weights_of(base, opened)
    work = {
        name: (name, f"{adapter}: {name!r}", module, weights.get(name), opened.fan_in_fan_out)
        for name, module in opened.items()
    }
    found = each_of(_look, work, jobs=jobs, progress=progress, label="inspect")
    total = sum(row.norm**2 for row, _ in found.values() if row.norm is not None) or 1.0
    rows = [row if row.norm is None else row._replace(share=row.norm**2 / total) for row, _ in found.values()]
    spectra = {name: s for name, (_, s) in found.items()}
    return Inspection(f"Adapter {adapter}", tuple(rows), tuple(_notes(opened, rows)), spectra)


def _weights_of(base: str | os.PathLike[str], opened: Adapter) -> Mapping[str, Stored]:
    """The weight of each adapted module in a base: a directory, or a GGUF file."""
    if Path(base).suffix != ".gguf":
        return base_weights(open_model(directory(base)), opened)
    source = open_gguf(base)
    weights = {}
    for name in opened:
        full = f"{name}.weight"
        if full not in source.names:
            raise HubError(f"{source.file.path}: has no {full!r}{close_names(full, source.names)}")
        shape = source.file.tensors[source.names[full]].shape
        weights[name] = Stored("float32", shape, lambda full=full: np.asarray(source.read(full)))  # type: ignore[misc]
    return weights


def _look(work: tuple[str, str, AdapterModule, Stored | None, bool]) -> tuple[InspectedModule, Array]:
    """What is seen of one module, and its singular values."""
    name, place, module, weight, fan_in_fan_out = work
    row = InspectedModule(name, "NOT FINITE", module.rank, module.scale)
    B, A = module.factors()
    if not (np.isfinite(B).all() and np.isfinite(A).all()):
        return row, np.zeros(0)
    found = finite(place, svd_of_product, B, A).s
    s = abs(module.scale) * found.astype(np.float64)
    norm = float(np.linalg.norm(s))
    needed = Spectrum(s, dtype=found.dtype.name).needed()
    row = row._replace(
        status="ok" if norm else "DEAD",
        norm=norm,
        effective_rank=effective_rank(np.diag(s)),
        stable_rank=stable_rank(np.diag(s)),
        needed=needed,
        wasted=module.rank - needed,
    )
    return (row if weight is None else _compared(place, row, module, weight, fan_in_fan_out)), s


def _compared(
    place: str, row: InspectedModule, module: AdapterModule, weight: Stored, fan_in_fan_out: bool
) -> InspectedModule:
    """``row`` with what the base's weight says."""
    assert row.norm is not None
    W0 = at_least_single(weight.read())
    W0 = W0.T if is_transposed(place, W0.shape, module, fan_in_fan_out) else W0
    W = W0.copy()
    merged(place, W, module, dtype=W0.dtype.name)
    strongest = min(module.rank, *W0.shape)
    return row._replace(
        relative=row.norm / (float(np.linalg.norm(W0)) or float("inf")),
        amplification=amplification_factor(W0, module.delta(), rank=strongest) if row.norm else None,
        intruders=len(intruder_dimensions(W0, W, top=min(_TOP, *W0.shape))),
    )


def _notes(adapter: Adapter, rows: Sequence[InspectedModule]) -> list[str]:
    notes = []
    for status, what in (("NOT FINITE", "hold NaN or infinity"), ("DEAD", "do nothing: B A is zero")):
        if named := [row.name for row in rows if row.status == status]:
            notes.append(f"{status}: {', '.join(named)} {what}")
    if any("magnitude" in module.parts for module in adapter.values()):
        notes.append("DoRA: norms and spectra are those of the directions' updates, before magnitudes")
    if adapter.full:
        notes.append(f"replaced in full: {', '.join(adapter.full)}")
    return notes
