"""The report: numbers of claims in sentences, the table of all, their studies, how to cite.

``{found}`rslora: tuned:lower``` is a figure with its interval and its claim, in one of the phrases
of `claims.lab.protocol`; ``{fact}`seeds``` is a number of the protocol, from its code.
"""

import math
from typing import Any

import claim_pages
import forest
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

import claims
import lora_np as lnp
from claims.lab import at_scale, batched, protocol, redrawn, rules, setups
from claims.lab.text import Text
from claims.lab.trial import PHRASES, Number, read
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
    figures = read(claim, record["figures"])
    if not any(one.halves for one in figures.values()):
        return "one set"
    parts = (
        {key: one.halves[place] if one.halves else one for key, one in figures.items()}
        for place in (0, 1)
    )
    return " / ".join(map(claim.rule.verdict, parts))


def two_scales() -> str:
    """The claims with two setups, as rows of the forest of all claims."""
    return forest.drawn("shapes") + forest.table(
        {name: KNOWN[name] for name in LARGE}, to="../claims/"
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
        if drawn := claim_pages.pictures(claim, name):
            parts.append(f"```{{raw}} html\n{drawn}\n```")
    return "\n\n".join(parts)


class ClaimTable(SphinxDirective):
    """All claims, in one table."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(table())


class ClaimForest(SphinxDirective):
    """The claims with two setups, in one picture."""

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", two_scales(), format="html")]


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
