"""The report: numbers of claims in sentences, the table of all, their studies, how to cite.

``{found}`rslora: tuned:lower``` is a figure with its interval and its claim, in one of the phrases
of `claims.protocol`; ``{fact}`seeds``` is a number of the protocol, from its code.
"""

import html
import math
from typing import Any

import claim_pages
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

import claims
import lora_np as lnp
from claims import at_scale, batched, protocol, redrawn, rules, setups
from claims.protocol import PHRASES, Number
from claims.text import Text
from lora_np.version import __version__

KNOWN = claims.records()
STUDIES = claims.study_records()
QUICK = [
    claim["quick"] | {"full": claim.get("alone", claim["verdict"])}
    for claim in KNOWN.values()
    if "quick" in claim
]
TOPICS = sorted({claim["topic"] for claim in KNOWN.values()})


LARGE = {name: claim["at scale"] for name, claim in KNOWN.items() if "at scale" in claim}


def counted(known: dict[str, Any]) -> str:
    """How many claims have each verdict."""
    found = [claim["verdict"] for claim in known.values()]
    return ", ".join(f"{found.count(name)} {name}" for name in rules.VERDICTS if name in found)


def seconds() -> float:
    """What all recorded runs took; a sweep that several claims share counts once."""
    sweeps: dict[str, float] = {}
    for claim in KNOWN.values():
        sweeps |= claim["cost"]
    own = (claim["seconds"] - sum(claim["cost"].values()) for claim in KNOWN.values())
    return sum(sweeps.values()) + sum(own)


FACTS: dict[str, Any] = {
    "claims": len(KNOWN),
    "seeds": batched.SEEDS,
    "set": redrawn.SET,
    "rate-seeds": redrawn.LOOK,
    "factor": f"{redrawn.FACTOR:g}",
    "text-seeds": redrawn.DRAWN["language"],
    "text-rate-seeds": redrawn.LOOKING["language"],
    "bases": len(Text().bases),
    "two": rules.TWO,
    "other-seeds": protocol.SETTLE,
    "other-factor": protocol.FACTOR,
    "level": "95 %",
    "training": f"{batched.PARTS[0]:,}",
    "halves": f"{batched.PARTS[1]} and {batched.PARTS[2]}",
    "by-chance": f"{claim_pages.expected(KNOWN, rules.SUPPORTED):.2f}",
    "mixed-by-chance": f"{claim_pages.expected(KNOWN, rules.MIXED):.2f}",
    "minutes": f"{seconds() / 60:,.0f}",
    "quick-minutes": f"{sum(run['seconds'] for run in QUICK) / 60:.0f}",
    "agree": sum(run.get("found", run["verdict"]) == run["full"] for run in QUICK),
    "version": __version__,
    "verdicts": counted(KNOWN),
    "large-verdicts": counted(LARGE),
    "supported": sum(claim["verdict"] == rules.SUPPORTED for claim in KNOWN.values()),
    "scales": len(LARGE),
    "outside": f"{100 * rules.CHANCE:g} %",
    "width": 64,
    "digit-steps": batched.Digits().steps,
    "linear-widths": f"{batched.Linear().width} to 256",
    "linear-steps": batched.Linear().steps,
    "text-parameters": f"{sum(leaf.size for _, leaf in lnp.leaves(setups.shipped())):,}",
    "text-steps": Text().steps,
    "text-tokens": f"{Text().steps * Text().batch * Text().length:,}",
    "large": "135 million",
    "large-steps": at_scale.SMOLLM2["steps"],
    "large-tokens": f"{math.prod(at_scale.SMOLLM2[of] for of in ('steps', 'batch', 'length')):,}",
    "large-seeds": max(len(scale["seeds"]) for scale in LARGE.values()),
    "merging-width": 96,
}


def figure(reference: str) -> tuple[str, str]:
    """The claim of ``claim: figure`` or ``claim: figure:phrase``, and the words for its figure;
    with ``135M`` after the claim, of the second setup.
    """
    claim, _, rest = reference.partition(": ")
    claim, large, _ = claim.partition(" 135M")
    name, _, phrase = rest.partition(":")
    known = (KNOWN | STUDIES)[claim]
    found = (known["at scale"] if large else known)["figures"][name]
    words = format(Number(found["mean"]), phrase)
    turn, share = PHRASES[phrase]
    ends = sorted(turn(found[end]) for end in ("low", "high"))
    if len(found.get("values", ends)) > 1 and ends[0] < ends[1]:
        low, high = (f"{100 * x:.2g}" if share else f"{x:.3g}" for x in ends)
        words += f" ({low} to {high}{' %' if share else ''})"
    return claim, words


class Found(SphinxRole):
    """A figure, its interval, and a link to its claim."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        claim, words = figure(self.text)
        where = {"refdomain": "std", "reftype": "doc", "refdoc": self.env.docname}
        link = addnodes.pending_xref(
            "",
            nodes.inline("", claim),
            reftarget=claim_pages.page_of(claim, STUDIES.get(claim, {})).removesuffix(".md"),
            refexplicit=True,
            refwarn=True,
            **where,
        )
        return [nodes.Text(f"{words} ["), link, nodes.Text("]")], []


class Fact(SphinxRole):
    """A number of the protocol."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        return [nodes.Text(str(FACTS[self.text]))], []


def sets(name: str) -> str:
    """The verdicts of two disjoint sets of seeds, by the rule of the claim."""
    claim, record = claims.claim(name), KNOWN[name]
    if "other seeds" in record:
        return f"{record['verdict']} / {record['other seeds']['verdict']}"
    figures = protocol.read(claim, record["figures"])
    if not any(one.halves for one in figures.values()):
        return "one set"
    parts = (
        {key: one.halves[place] if one.halves else one for key, one in figures.items()}
        for place in (0, 1)
    )
    return " / ".join(map(claim.rule.verdict, parts))


SOFT, EDGE = 0.02, math.log(30)  # linear up to some 2 %; what lies further out is at the edge
TICKS = {0.1: "÷10", 0.5: "÷2", 0.9: "−10 %", 1.0: "bound", 1.1: "+10 %", 2.0: "×2", 10.0: "×10"}
MARKS = {"supported": "●", "mixed": "◐", "depends on the task": "◇", "not shown": "○",
         "contradicted here": "✕", "needs scale": "△", "not run yet": "·"}  # fmt: skip
ROW, LEFT, WIDE = 19, 250, 560


def beyond(part: dict[str, Any], ratio: bool, x: float) -> float:
    """How far a value lies beyond the bound of a part, on its side, as the log of a ratio; a
    difference from zero, or one whose interval holds zero, in units in which the smallest effect
    worth having is a tenth.
    """
    bound, worth = part["bound"], part["worth"]
    if ratio or min(bound, part["low"]) > 0:
        return part["sign"] * math.log(max(x, 1e-300) / bound)
    return math.log(1.1) * part["sign"] * (x - bound) / (abs(worth - bound) or abs(bound) or 1)


def across(x: float) -> float:
    """Where that lies in the picture."""
    soft = math.asinh(max(-EDGE, min(EDGE, x)) / SOFT)
    return LEFT + WIDE / 2 * (1 + soft / math.asinh(EDGE / SOFT))


FIGURE = """\
<figure class="claim-forest">
<svg class="claim-picture" viewBox="0 0 {width} {height}" role="img" aria-label="{title}">
{drawn}</svg><figcaption>{caption}</figcaption></figure>"""
NAMED = '<a href="../claims/{name}.html"><text x="{x}" y="{y}" class="y">{label}<title>{told}</title></text></a>'  # noqa: E501
SPOT = (
    '<path class="axis" d="M{low:.1f} {y}H{high:.1f}"/>'
    '<circle data-verdict="{verdict}" cx="{mean:.1f}" cy="{y}" r="4"/>'
)
CAPTION = (
    "Each row has the figure that stands for a claim, with the interval that judges. Its distance "
    "from the line is how far it lies beyond the bound of the claim; the claimed side is on the "
    "right. A dot is blue where this figure is "
    "supported, brown where it is contradicted, and open otherwise. The mark after the name is the "
    "verdict on the whole claim, which other figures of it can decide: "
)


def forest() -> str:
    """All claims in one picture: each by its headline, with the interval that judges."""
    rows = []
    for name in sorted(KNOWN, key=lambda name: (KNOWN[name]["topic"], name)):
        rows.append((name, name, KNOWN[name]))
        if name in LARGE:
            rows.append((name, "at 135 million parameters", LARGE[name]))
    height = ROW * (len(rows) + 2)
    drawn = [f'<path class="axis" d="M{across(0):.1f} 0V{height - ROW}"/>']
    for at, label in TICKS.items():
        x = across(math.log(at))
        drawn.append(f'<text class="x" x="{x:.1f}" y="{height - 4}">{label}</text>')
    for i, (name, label, claim) in enumerate(rows):
        y = ROW * (i + 1)
        told = html.escape(f"{claim['words']}. {claim['verdict']}")
        marked = f"{label} {MARKS[claim['verdict']]}"
        drawn.append(NAMED.format(name=name, x=LEFT - 12, y=y, label=marked, told=told))
        for part in claim["parts"]:
            if part["figure"] == claim["headline"]:
                ratio = part["figure"] in claim["ratios"]
                ends = {
                    end: across(beyond(part, ratio, part[end])) for end in ("low", "mean", "high")
                }
                drawn.append(SPOT.format(y=y - 4, verdict=part["verdict"], **ends))
    key = ", ".join(f"{mark} {name}" for name, mark in MARKS.items() if name != rules.NOT_RUN)
    return FIGURE.format(
        width=LEFT + WIDE + 20,
        height=height,
        title="Forest of all claims: distance of each headline figure from its bound",
        drawn="".join(drawn),
        caption=html.escape(f"{CAPTION}{key}."),
    )


HEAD = """\
| claim | setup | seeds | verdict | by each set of seeds | what was found |
|---|---|---:|---|---|---|
"""


def table() -> str:
    """A row for each claim."""
    rows = []
    for name in sorted(KNOWN, key=lambda name: (KNOWN[name]["topic"], name)):
        claim = KNOWN[name]
        setup, seeds = claim["setup"].partition(":")[0], len(claim["seeds"])
        link = f"[{name}](/claims/{name}.md)"
        cells = (link, setup, str(seeds), claim["verdicts"], sets(name), claim["finding"])
        rows.append(f"| {' | '.join(cells)} |")
    return HEAD + "\n".join(rows)


SCALE_HEAD = """\
| claim | at the first setup | at 135 million parameters | seeds | what was found |
|---|---|---|---:|---|
"""


def scales() -> str:
    """A row for each claim with a second setup."""
    rows = []
    for name, claim in KNOWN.items():
        if "at scale" in claim:
            scale = claim["at scale"]
            seeds = f"{len(scale['seeds'])} of {scale['of']}"
            link = f"[{name}](/claims/{name}.md)"
            cells = (link, claim["verdict"], scale["verdict"], seeds, scale["finding"])
            rows.append(f"| {' | '.join(cells)} |")
    return SCALE_HEAD + "\n".join(rows)


def study(topic: str) -> str:
    """The claims of a topic: what was found, with figures."""
    parts = []
    for name in sorted(name for name in KNOWN if KNOWN[name]["topic"] == topic):
        claim = KNOWN[name]
        link = f"[{name}](/claims/{name}.md)"
        parts.append(f"**{claim['title']}** {claim['finding']} {claim['sentence']} {link}")
        if claim.get("methods"):
            caption = html.escape(
                f"{name}: test loss against learning rate, each method on its own."
            )
            drawn = (
                f"<figure>{claim_pages.picture(claim)}<figcaption>{caption}</figcaption></figure>"
            )
            parts.append(claim_pages.raw(drawn))
    return "\n\n".join(parts)


class ClaimTable(SphinxDirective):
    """All claims, in one table."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(table())


class ClaimForest(SphinxDirective):
    """All claims, in one picture."""

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", forest(), format="html")]


class ClaimScales(SphinxDirective):
    """Claims at both scales, in one table."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(scales())


class ClaimStudy(SphinxDirective):
    """The claims of a topic, which is the argument."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        if self.arguments[0] not in TOPICS:
            raise self.error(f"no claim has the topic {self.arguments[0]!r}; there are {TOPICS}")
        return self.parse_text_to_nodes(study(self.arguments[0]))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_role("found", Found())
    app.add_role("fact", Fact())
    app.add_directive("claim-table", ClaimTable)
    app.add_directive("claim-forest", ClaimForest)
    app.add_directive("claim-scales", ClaimScales)
    app.add_directive("claim-study", ClaimStudy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
