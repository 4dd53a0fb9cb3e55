"""One page about an adapter, which needs no other file."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

from lora_np.checks import Array
from lora_np.linalg import ENOUGH
from lora_np.plots import update_norms, update_ranks, update_shares
from lora_np.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; margin: 1.5em auto; max-width: 78em }}
body {{ padding: 0 1em }}
h1 {{ font-size: 1.3em; overflow-wrap: anywhere }}
h2 {{ font-size: 1.1em; margin: 1.6em 0 .4em }}
.figures {{ display: grid; gap: 1.5em }}
.figures {{ grid-template-columns: repeat(auto-fit, minmax(min(100%, 21em), 1fr)) }}
figure {{ margin: 0; display: flex; flex-direction: column; justify-content: space-between }}
figcaption {{ padding-bottom: .6em }}
svg {{ width: 100%; height: auto }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-size: .9em; font-variant-numeric: tabular-nums }}
th, td {{ padding: .2em .7em; border-bottom: 1px solid #e6e6e6; vertical-align: top }}
td:first-child {{ overflow-wrap: anywhere; min-width: 9em }}
dt {{ font-weight: 600 }}
dd {{ margin: 0 0 .5em }}
@media (min-width: 60em) {{ dl {{ columns: 2; column-gap: 3em }} dt {{ break-after: avoid }} }}
</style>
<h1>{title}</h1>
{0}
<h2>Figures</h2>
<div class="figures">
{figures}
</div>
<h2>Totals by kind</h2>
{1}
<h2>Modules</h2>
{2}
<h2>What the columns say</h2>
<dl>
{legend}
</dl>
</html>
"""
_NORMS = """How strong each update is: the Frobenius norm of scale * B A. A line is a kind of module; where a
layer has several of a kind, it is their median, and the band goes from the weakest to the strongest."""
_SHARES = f"""How much of the squared norm the first directions hold. A line is the median of a kind of
module; the band goes from the module that spreads most to the one that spreads least; the dashes are at
{ENOUGH:.0%}."""
_RANKS = f"""The rank that keeps {ENOUGH:.0%} of the squared norm, from the least to the most among the
modules of a kind (the dot and the first number are their median), and the rank in the file."""


def page(
    title: str,
    tables: tuple[Table, Table, Table],
    legend: Mapping[str, str],
    spectra: Mapping[str, Array],
    ranks: Mapping[str, tuple[int, int]],
) -> str:
    """Contents, figures with a sentence above each, totals, modules, and what the columns say."""
    figures = {
        _NORMS: lambda ax: update_norms(spectra, ax=ax),
        _SHARES: lambda ax: update_shares(spectra, share=ENOUGH, ax=ax),
        _RANKS: lambda ax: update_ranks(ranks, ax=ax),
    }
    wide = [f'<div class="wide">{replace(table, title="")._repr_html_()}</div>' for table in tables]
    drawn = [
        f"<figure><figcaption>{escape(sentence)}</figcaption>{_svg(draw)}</figure>"
        for sentence, draw in figures.items()
    ]
    terms = [f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in legend.items()]
    return _PAGE.format(*wide, title=escape(title), figures="\n".join(drawn), legend="\n".join(terms))


def _svg(draw: Callable[[Axes], Axes]) -> str:
    """One figure as a drawing inside of a page, its letters as large as the text on a phone."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.3, 3.7), layout="constrained")
    draw(figure.add_subplot())
    picture = io.StringIO()
    figure.savefig(picture, format="svg", transparent=True)
    drawing = picture.getvalue()
    return drawing[drawing.index("<svg") :]
