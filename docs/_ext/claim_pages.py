"""What papers say, tried: the gallery, a page for each claim, and the directive ``claim-figures``.

The pages are generated into docs/claims/ (see materials.py) from the results that the package
carries.
"""

import html
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from claims import records, rules, study_records

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#c98500", "#3f98d6", "#8a6d00", "#7f7f7f")
MEANING = {
    "supported": "every figure's whole interval lies on the claimed side, and so do the means of both halves of the seeds, from eight seeds on",
    "mixed": "some of what is claimed is supported and some contradicted; the page says which",
    "depends on the task": "what is supported on one task is contradicted on another; the page says on which",
    "not shown": "the interval holds both; the page gives the smallest effect that would have been seen",
    "contradicted here": "what the card says would contradict it was found. Or the interval falls short of the smallest effect worth having, although some method of this setup reaches it",
    "needs scale": "this setup cannot tell. No method in it reaches the smallest effect worth having, the full update included, or there was nothing to lose",
}
VERDICTS = tuple(MEANING)
SETUPS = {
    "digits": "a network 64-64-64-10 that reads upright digits learns to read them on their side",
    "linear": "a linear student of a linear teacher, 48 or 256 wide",
    "language": "a language model of 750,720 weights, trained on Austen, learns Genesis in 100 steps; four bases",
    "memory": "random labels, by a LoRA on a layer of 128 inputs or on a network 32 to 128 wide",
    "files": "the weights and adapters that come with the package; nothing is trained",
}

INTRODUCTION = """\
# LoRA, checked

{{.lead}}
Papers say that a rank of one is enough, that their start is faster, that a parameter holds two bits. We tested {count} such claims in small setups, where
**each method has its own sweep of learning rates**. [The report](../understand/report.md) has protocol, results and threats to validity on one page.
"""

PROTOCOL = """\
Each method is judged on data that was not used for tuning. The setups are small: a network of digits 64 wide, a language model of 750,720 parameters,
and for some claims SmolLM2 with 135 million parameters, trained for 60 steps. So a verdict holds for the setup that it names, and *contradicted here*
says no more than that.

On digits and linear tasks each seed draws the base, the split, the initialisation and the order of the batches, and 64 seeds run. On text eight seeds
draw the same, from four bases. A card with two setups has one verdict for each, "small" and "135M". {chance}

Each claim is a file of 30 to 200 lines in `claims/`. Read its verdict, compute it again from the recorded runs, or train it again with seeds of your own:

```console
$ lora-np claims rslora
$ python -m claims show rslora
$ python -m claims run rslora --seeds 8 --first 1000 --out my-runs
```
"""

FILTERS = """\
<form class="claim-filters" id="claim-filters" hidden>
<label>Verdict <select name="verdict"><option value="">all</option>{verdicts}</select></label>
<label>Topic <select name="topic"><option value="">all</option>{topics}</select></label>
<output role="status"></output>
</form>
"""

CARD = """\
<li data-verdict="{verdict}" data-topic="{topic}">
<p class="gallery-label"><span class="verdict" data-verdict="{verdict}">{verdicts}</span> <span>{topic}</span></p>
<p><a href="{name}.html">{title}</a></p>
{setups}
<p class="claim-paper">Untrained: {base}. {paper}</p>
</li>"""

STUDIES = """\
Two questions needed more runs than a claim has. The rule of each study was committed before its runs, and each recorded run names that commit. Studies are
published as far as they have run, and the counts of claims leave them out.
"""

STUDY = """\
<li data-verdict="{verdict}">
<p class="gallery-label"><span class="verdict" data-verdict="{verdict}">{verdicts}</span> <span>{topic}</span></p>
<p><a href="../{study}.html">{title}</a></p>
<p class="claim-finding">{finding}</p>
<p class="claim-setup">{setup}</p>
<p class="claim-paper">{paper}</p>
</li>"""

SETUP = """\
<div>{head}
<p class="claim-finding">{finding}</p>
{picture}
<p class="claim-setup">{setup}</p>
</div>"""

SCALE = "SmolLM2-135M, a language model of 135 million parameters, learns The Devil's Dictionary in 60 steps"

TRY = """\
<div class="claim-try" id="claim-try" hidden>
<label>learning rate <output data-show="rate"></output>
<input type="range" name="rate" min="0" step="1"></label>
<label class="claim-measure">measure <select name="measure"></select></label>
<label class="claim-rank">rank <output data-show="rank"></output>
<input type="range" name="rank" min="0" step="1"></label>
<div class="claim-bars" data-show="bars"></div>
<p role="status" aria-live="polite" data-show="said"></p>
</div>
<noscript><p>The sliders need JavaScript; the cell below needs Python.</p></noscript>
<script type="application/json" id="claim-data">{data}</script>
"""

CELL = """\
```python
import lora_np as lnp

claim = lnp.course.claims()["{name}"]
for method, sweep in claim["methods"].items():
    losses = {{rate: runs["test"] for rate, runs in sweep["rates"].items()}}
    print(method, "best at", sweep["best"], losses)
```
"""


def write(folder: Path) -> None:
    """The pages, touched only where they have changed."""
    folder.mkdir(parents=True, exist_ok=True)
    known = records()
    pages = {"index.md": index(known)} | {
        f"{name}.md": page(name, claim) for name, claim in known.items()
    }
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in folder.glob("*.md"):
        if path.name not in pages:
            path.unlink()


def index(known: dict[str, Any]) -> str:
    """The table of all, the filters, and the cards."""
    order = sorted(known, key=lambda name: (known[name]["topic"], name))
    topics = sorted({claim["topic"] for claim in known.values()})

    def options(names: Iterable[str]) -> str:
        return "".join(f"<option>{html.escape(name)}</option>" for name in names)

    count = {
        verdict: sum(claim["verdict"] == verdict for claim in known.values())
        for verdict in VERDICTS
    }
    verdicts = "\n".join(
        f"- **{verdict}** ({count[verdict]}): {MEANING[verdict]}" for verdict in VERDICTS
    )
    rows = "\n".join(
        f"| [{known[name]['title']}]({name}.md) | {known[name]['verdicts']} | {known[name]['advice']} |"
        for name in order
    )
    cards = "\n".join(card(name, known[name]) for name in order)
    beside = "\n".join(study_card(one) for one in study_records().values())
    return "\n\n".join([
        INTRODUCTION.format(count=len(known)),
        raw(FILTERS.format(verdicts=options(VERDICTS), topics=options(topics))),
        raw(f'<ul class="gallery claims">\n{cards}\n</ul>'),
        "## Studies",
        STUDIES,
        raw(f'<ul class="gallery claim-studies">\n{beside}\n</ul>'),
        "## How they were tested",
        PROTOCOL.format(chance=by_chance(known)),
        "## The verdicts",
        verdicts,
        "## What to do about each",
        f"| claim | verdict | what to do |\n|---|---|---|\n{rows}",
    ])  # fmt: skip


def expected(known: dict[str, Any], verdict: str) -> float:
    """How many claims would have a verdict if none had any effect, by the simulation of each rule."""
    return sum(claim["odds"]["null"][verdict] for claim in known.values() if claim["odds"])


def by_chance(known: dict[str, Any]) -> str:
    """What chance does to all verdicts together."""
    count = sum(bool(claim["odds"]) for claim in known.values())
    return (
        f"If none of the {count} claims whose figures have a spread had any effect, {expected(known, 'supported'):.2f} of them would be called supported by chance and "
        f"{expected(known, 'mixed'):.2f} mixed. That is a simulation of every rule with the measured spread."
    )


def power(claim: dict[str, Any]) -> list[str]:
    """Whether the rule would see the claim if it were true."""
    odds = claim["odds"]
    if not odds or odds["power"]:
        return []
    return [
        f"**No power.** At a truth of twice the smallest effect worth having, this rule would say *supported* in {100 * odds['seen']:.0f} % of such experiments. We ask for 80 %."
    ]


def card(name: str, claim: dict[str, Any]) -> str:
    """A claim, with both its setups side by side where it has two."""
    parts = ("verdict", "verdicts", "topic", "title", "paper")
    said = {part: html.escape(claim[part]) for part in parts}
    bases = (
        f"{one['mean']:.3g} {one['unit']} ({setup})" for setup, one in claim["untrained"].items()
    )
    said["base"] = html.escape("; ".join(bases) or "no adapter is trained")
    setups = shown_setup(claim, setup_of(claim))
    if "at scale" in claim:
        scale = claim["at scale"]
        head = f'<p class="claim-scale">{verdict_of(scale)} <span>{seeds_of(scale)}</span></p>'
        head += f'<p class="claim-setup">{html.escape(scale["title"])}</p>'
        setups = f'<div class="claim-setups">{setups}{shown_setup(scale, SCALE, head)}</div>'
    return CARD.format(name=name, setups=setups, **said)


def study_card(record: dict[str, Any]) -> str:
    """A study, which leads to its own page."""
    parts = ("verdict", "verdicts", "topic", "study", "title", "finding", "setup", "paper")
    return STUDY.format(**{part: html.escape(record[part]) for part in parts})


def page_of(name: str, record: dict[str, Any]) -> str:
    """The page of a claim, or of a study."""
    return f"/{record.get('study', f'claims/{name}')}.md"


def shown_setup(claim: dict[str, Any], setup: str, head: str = "") -> str:
    said = {"finding": html.escape(claim["finding"]), "setup": html.escape(setup)}
    return SETUP.format(head=head, picture=picture(claim, small=True), **said)


def verdict_of(claim: dict[str, Any]) -> str:
    return f'<span class="verdict" data-verdict="{claim["verdict"]}">{claim["verdict"]}</span>'


def seeds_of(scale: dict[str, Any]) -> str:
    """How many seeds of a second setup have run."""
    return f"SmolLM2-135M, {len(scale['seeds'])} of {scale['of']} seeds"


def setup_of(claim: dict[str, Any]) -> str:
    """The setup, in one sentence."""
    names = claim["setup"].split(", ")
    known = all(name in SETUPS for name in names)
    return "; ".join(f"{name}: {SETUPS[name]}" for name in names) if known else claim["setup"]


def page(name: str, claim: dict[str, Any]) -> str:
    """One claim: what is said, what was done, figure, table, limits, and what the reader can
    turn.
    """
    rows = [
        ("The paper", claim["paper"]),
        ("What would contradict it", claim["refuted_by"]),
        ("The setup", setup_of(claim)),
        ("Varied", claim["varied"]),
        ("Of the paper's own setting", claim["setting"]),
        ("Published", claim["published"]),
        ("The rule", claim["rule"]),
        ("The untrained model", base_line(claim, large=False)),
        ("What the best method reaches", reached(claim)),
        ("What chance does", odds(claim)),
        ("Limits", claim["limits"]),
        ("What to do about it", claim["advice"]),
    ]
    table = "\n".join(f"| **{what}** | {text} |" for what, text in rows if text)
    parts = [
        f"# {claim['title'].rstrip('.')}",
        raw(
            f'<p class="claim-verdict"><span class="verdict" data-verdict="{claim["verdict"]}">{claim["verdicts"]}</span> {again(claim)}</p>'
        ),
        "## What was found",
        f"**{claim['finding']}**",
        claim["sentence"],
        *power(claim),
        *cannot_tell(claim),
        figures(claim),
        raw(picture(claim)),
        "## What was tried",
        f"| | |\n|---|---|\n{table}",
    ]
    if "at scale" in claim:
        parts += at_scale(claim)
    if claim.get("methods"):
        data = json.dumps(slim(claim), ensure_ascii=False).replace("<", "\\u003c")
        parts += ["## Try it", explain(claim), raw(TRY.format(data=data)), CELL.format(name=name)]
    machine = f"{claim['machine']}, NumPy {claim['versions']['numpy']}, seeds {claim['seeds'][0]} to {claim['seeds'][-1]}"
    parts.append(
        f"`python -m claims show {name}` computes the figures again from the recorded runs. `python -m claims run {name} --out FOLDER` trains it again with seeds of your own. "
        f"The recorded runs took {claim['seconds']:,.0f} seconds of one core ({machine})."
    )
    return "\n\n".join(parts) + "\n"


def base_line(claim: dict[str, Any], *, large: bool) -> str:
    """The loss of the untrained model in the setups of one scale."""
    return "; ".join(
        f"{setup}: {shown(one['mean'])} ({shown(one['low'])} to {shown(one['high'])}) {one['unit']}"
        for setup, one in claim["untrained"].items()
        if setup.startswith("135M") == large
    )


def reached(claim: dict[str, Any]) -> str:
    """The best that any method of the setup makes of each figure that names a method to beat."""
    return "; ".join(
        f"{claim['meaning'][part['figure']]}: {shown(part['reach'])}, where {shown(part['worth'])} is asked"
        for part in claim["parts"]
        if part["reach"] is not None
    )


def odds(claim: dict[str, Any]) -> str:
    """How often the rule is wrong about no effect, and how often it sees one."""
    known = claim["odds"]
    if not known:
        return ""
    null = known["null"]
    return (
        f"Without any effect, the rule says *supported* in {100 * null['supported']:.1f} % and *mixed* in {100 * null['mixed']:.1f} % of simulated experiments. "
        f"At twice the smallest effect worth having, it says *supported* in {100 * known['seen']:.0f} %."
    )


def at_scale(claim: dict[str, Any]) -> list[str]:
    """The section of a second setup."""
    scale = claim["at scale"]
    rows = [
        ("The setup", scale["setup"]),
        ("Of this claim", scale["setting"]),
        ("The rule", scale["rule"]),
        ("The untrained model", base_line(claim, large=True)),
        ("What the best method reaches", reached(scale)),
        ("What chance does", odds(scale)),
        ("Limits", scale["limits"]),
        ("By torch and PEFT", repeated(scale)),
    ]
    table = "\n".join(f"| **{what}** | {text} |" for what, text in rows if text)
    return [
        "## At 135 million parameters",
        f"*{scale['title']}*",
        raw(f'<p class="claim-verdict">{verdict_of(scale)} ({seeds_of(scale)})</p>'),
        f"**{scale['finding']}**",
        scale["sentence"],
        *power(scale),
        *cannot_tell(scale),
        figures(scale),
        *map(raw, filter(None, [picture(scale)])),  # nothing is drawn before anything has run
        f"| | |\n|---|---|\n{table}",
    ]


def repeated(scale: dict[str, Any]) -> str:
    """What another program gives for the same runs."""
    again = scale.get("torch and PEFT")
    if again is None:
        return ""
    runs = "One of these runs" if again["runs"] == 1 else f"{again['runs']} of these runs"
    verdict = "" if again["verdict"] == "not run yet" else f" {again['sentence']}"
    apart = (
        f"lies more than {shown(again['apart'])} nats from" if again["apart"] else "differs from"
    )
    return (
        f"{runs} again, with the same weights, windows, start and learning rate: no loss {apart} ours, "
        f"as far as they are recorded (0.01 %).{verdict}"
    )


def cannot_tell(claim: dict[str, Any]) -> list[str]:
    """What the measured spread is too wide for."""
    wide = claim["cannot tell"]
    if not wide:
        return []
    return [
        "The measured spread is too wide to tell an effect of just the smallest size worth having. It would be "
        f"seen in fewer than four of five such experiments. This holds for these figures. {rules.listed(wide)}"
    ]


def again(claim: dict[str, Any]) -> str:
    """Whether it was the same with other seeds, and in a quick run."""
    runs = {"a quick run": "quick", "five other seeds": "other seeds"}
    said = [f"{what}: {claim[key]['verdict']}" for what, key in runs.items() if key in claim]
    return f"({'; '.join(said)})" if said else ""


def explain(claim: dict[str, Any]) -> str:
    return (
        "Each bar is the test loss of a method at the rate of the slider, the mark its loss at its own best rate; where "
        "more was measured, choose it. "
        "The runs are recorded; between two rates nothing is guessed."
    )


def figures(claim: dict[str, Any]) -> str:
    rows = []
    for name, meaning in claim["meaning"].items():
        figure = claim["figures"].get(name)
        if figure is None:
            rows.append(f"| {meaning} | not run yet | | 0 |")
            continue
        sets = ", ".join(map(shown, figure.get("sets", ())))
        seeds = f"{len(figure['values'])}{f' ({sets})' if sets else ''}"
        cells = (meaning, shown(figure["mean"]), interval(claim, name), seeds)
        rows.append(f"| {' | '.join(cells)} |")
    head = "| figure | mean | 95 % interval | seeds (mean of each set) |\n|---|---:|---:|---:|\n"
    return head + "\n".join(rows)


def interval(claim: dict[str, Any], name: str) -> str:
    """An interval, or why there is none."""
    figure = claim["figures"][name]
    if name in claim["counted"]:
        return "counted"
    if len(figure.get("values", ())) == 1:
        return "one measurement"
    if figure["low"] == figure["high"]:
        return "alike in all runs"
    return f"{shown(figure['low'])} to {shown(figure['high'])}"


def shown(x: float | None) -> str:
    return "diverged" if x is None else rules.shown("", x)


MEASURES = {
    "test": "test loss",
    "early": "test loss after a quarter of the steps",
    "old": "loss on the old text",
    "right": "accuracy",
    "bits": "bits held per parameter",
    "intruders": "intruders in the first ten",
}


def slim(claim: dict[str, Any]) -> dict[str, Any]:
    """What the sliders need: for each method its rank, its best rate, and the mean of each measure at
    each rate.
    """
    methods = []
    for name, sweep in claim["methods"].items():
        means = {
            measure: {
                rate: average(runs[measure])
                for rate, runs in sweep["rates"].items()
                if measure in runs
            }
            for measure in MEASURES
        }
        methods.append(
            {
                "name": name,
                "rank": sweep["method"].get("rank"),
                "best": sweep["best"],
                "means": means,
            }
        )
    shared = {
        m: label for m, label in MEASURES.items() if all(method["means"][m] for method in methods)
    }
    return {"measures": shared, "methods": methods}


def average(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return None
    return float(f"{sum(known) / len(known):.5g}")


def raw(text: str) -> str:
    return f"```{{raw}} html\n{text}\n```"


def picture(claim: dict[str, Any], *, small: bool = False) -> str:
    """An SVG: loss against rate for each method, or the figures as bars where nothing was trained."""
    width, height = (260, 150) if small else (680, 330)
    drawn = curves(claim)
    if not drawn and not claim["figures"]:
        return ""
    if not drawn:  # a bar and its label for each figure
        height = 36 * (min(3, len(claim["figures"])) if small else len(claim["figures"]))
    inside = lines(drawn, width, height, small) if drawn else bars(claim, width, height, small)
    what = "Test loss against learning rate" if drawn else "The figures of the table"
    label = html.escape(f"{what}. {claim['title']} Verdict: {claim['verdict']}.")
    kind = "claim-picture small" if small else "claim-picture"
    legend = "" if small or not drawn else key([*drawn])
    return f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{inside}</svg>{legend}'


def key(names: list[str]) -> str:
    items = (
        f'<li><i style="background:{COLOURS[i % len(COLOURS)]}"></i>{html.escape(name)}</li>'
        for i, name in enumerate(names)
    )
    return f'<ul class="claim-key">{"".join(items)}</ul>'


def curves(claim: dict[str, Any]) -> dict[str, list[tuple[float, float]]]:
    found = {}
    for method in slim(claim)["methods"] if claim.get("methods") else []:
        points = [
            (float(rate), loss)
            for rate, loss in method["means"]["test"].items()
            if loss is not None
        ]
        if points:
            found[method["name"]] = points
    return found


def lines(drawn: dict[str, Any], width: int, height: int, small: bool) -> str:
    left, right, top, bottom = (40, 8, 24, 32) if small else (84, 16, 34, 60)
    floor = min(y for points in drawn.values() for _, y in points)
    lows = [min(y for _, y in points) for points in drawn.values()]
    thirds = max(sorted(y for _, y in points)[:3][-1] for points in drawn.values())
    ceiling = min(
        thirds, floor + 4 * max(max(lows) - floor, 0.25 * max(abs(floor), 1e-9))
    )  # what is above gets a mark at the edge
    shown_points = {name: near(points, ceiling) for name, points in drawn.items()}
    xs = sorted({math.log10(x) for points in shown_points.values() for x, _ in points})
    x0, x1 = xs[0] - 0.1, xs[-1] + 0.1
    pad = 0.06 * (ceiling - floor)

    def at_x(x: float) -> float:
        return left + (math.log10(x) - x0) / (x1 - x0) * (width - left - right)

    def at_y(y: float) -> float:
        return top + (ceiling - y) / (ceiling - floor + pad) * (height - top - bottom)

    parts = [f'<path class="axis" d="M{left} {top}V{height - bottom}H{width - right}"/>']
    digits = 3 if ceiling - floor > 0.03 * abs(ceiling) else 4  # so that no two labels are alike
    for i in (0, 3) if small else range(4):
        y = floor + i * (ceiling - floor) / 3
        y = y if abs(y) > 1e-3 * abs(ceiling) else 0.0  # whose label would be longer than its place
        parts.append(f'<text class="y" x="{left - 6}" y="{at_y(y) + 4:.1f}">{y:.{digits}g}</text>')
    for power in range(math.ceil(x0), math.floor(x1) + 1):
        x = at_x(10.0**power)
        down = height - bottom + (14 if small else 24)
        parts.append(f'<text class="x" x="{x:.1f}" y="{down}">{10.0**power:g}</text>')
        parts.append(f'<path class="axis" d="M{x:.1f} {height - bottom}v5"/>')
    middle = (left + width - right) / 2
    parts.append(
        f'<text class="x" x="{middle:.0f}" y="{height - (3 if small else 6)}">learning rate</text>'
    )
    parts.append(f'<text x="{4 if small else left}" y="{12 if small else 20}">test loss</text>')
    above = 0
    size = 4 if small else 6
    for i, points in enumerate(shown_points.values()):
        colour = COLOURS[i % len(COLOURS)]
        inside = [(at_x(x), at_y(y)) for x, y in points if y <= ceiling]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in inside)
        parts.append(f'<polyline points="{path}" style="stroke:{colour}"/>')
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{2 if small else 3.5}" style="fill:{colour}"/>'
            for x, y in inside
        ]
        for x, y in points:
            if y > ceiling:
                above += 1
                corners = f"M{at_x(x) - size:.1f} {top}h{2 * size}l-{size} -{1.6 * size:.1f}z"
                parts.append(
                    f'<path class="above" d="{corners}" style="fill:{colour}"><title>{y:.3g}</title></path>'
                )
    if above:
        note = "▲ above" if small else "▲ above the picture"
        parts.append(f'<text class="y" x="{width - right}" y="{12 if small else 20}">{note}</text>')
    return "".join(parts)


def near(points: list[tuple[float, float]], ceiling: float) -> list[tuple[float, float]]:
    """Points up to the ceiling, and on each side the first that is above it."""
    ordered = sorted(points)
    inside = [i for i, (_, y) in enumerate(ordered) if y <= ceiling]
    return ordered[max(inside[0] - 1, 0) : inside[-1] + 2]


def bars(claim: dict[str, Any], width: int, height: int, small: bool) -> str:
    """The figures, each below its label; in small the first three."""
    found = [
        (claim["meaning"][name], figure["mean"] or 0.0) for name, figure in claim["figures"].items()
    ]
    found = found[:3] if small else found
    largest = max(abs(mean) for _, mean in found) or 1.0
    step = height / len(found)
    letters, room = (44, 44) if small else (110, 80)
    parts = []
    for i, (label, mean) in enumerate(found):
        long = max(abs(mean) / largest * (width - room), 1)
        below = "" if mean >= 0 else " (negative)"
        text = label if len(label) <= letters else label[: letters - 1].rstrip(", ") + "…"
        y = i * step + min(13, 0.45 * step)
        parts.append(
            f'<text x="0" y="{y:.1f}">{html.escape(text)}<title>{html.escape(label)}</title></text>'
            f'<rect x="0" y="{y + 4:.1f}" width="{long:.1f}" height="{min(0.35 * step, 14):.1f}" '
            f'style="fill:{COLOURS[0 if mean >= 0 else 1]}"/>'
            f'<text x="{long + 5:.0f}" y="{y + 4 + min(0.3 * step, 12):.1f}">{shown(abs(mean))}{below}</text>'
        )
    return "".join(parts)


class ClaimFigures(SphinxDirective):
    """The verdict and the figures of a claim, from its results; the argument is its name."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        known = records()
        name = self.arguments[0]
        if name not in known:
            raise self.error(f"no claim is called {name!r}")
        claim = known[name]
        text = f"{figures(claim)}\n\n[{claim['title'].rstrip('.')}](/claims/{name}.md): **{claim['verdicts']}**."
        return self.parse_text_to_nodes(text)


def add_files(
    app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    if pagename.startswith("claims/") or pagename == "understand/report":
        app.add_css_file("claims.css")
        app.add_js_file("claims.js", loading_method="defer")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("claim-figures", ClaimFigures)
    app.connect("html-page-context", add_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
