"""What papers say, tried: the forest, a page for each claim, and the directive ``claim-figures``.

The pages are made into docs/claims/ (see materials.py) by pages/claims.jinja and claim.jinja,
from the results that the package carries.
"""

import json
from pathlib import Path
from typing import Any

import forest
import rates
from docutils import nodes
from forest import shown
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from claims import records, study_records
from claims.lab import rules

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

HOLDS = {
    "supported": "holds",
    "mixed": "holds in part",
    "depends on the task": "depends on the task",
    "not shown": "is not shown",
    "contradicted here": "does not hold",
    "needs scale": "cannot be told",
    "not run yet": "has not run yet",
}


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
    """The forest, how to read it, and in a fold what was found of each claim."""
    large = {name: claim["at scale"] for name, claim in known.items() if "at scale" in claim}
    counts = {
        verdict: tuple(
            sum(claim["verdict"] == verdict for claim in some.values()) for some in (known, large)
        )
        for verdict in VERDICTS
    }
    picks = {"all": (len(known), len(large))} | counts
    return forest.TEMPLATES.get_template("claims.jinja").render(
        known={name: known[name] for name in sorted(known, key=lambda n: (known[n]["topic"], n))},
        large=large,
        studies=forest.drawn("studies", study_records()),
        turned=sum(known[name]["verdict"] != one["verdict"] for name, one in large.items()),
        shapes=forest.drawn("shapes"),
        picks=forest.drawn("picks", picks, {"all": "every claim"} | forest.SHORT),
        table=forest.table(known),
        chance=by_chance(known),
        meanings=MEANING,
        counts=counts,
    )


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


def power(claim: dict[str, Any]) -> str:
    """Whether the rule would see the claim if it were true."""
    odds = claim["odds"]
    if not odds or odds["power"]:
        return ""
    return (
        "**No power.** At a truth of twice the smallest effect worth having, this rule would say "
        f"*supported* in {100 * odds['seen']:.0f} % of such experiments. We ask for 80 %."
    )


def page_of(name: str, record: dict[str, Any]) -> str:
    """The page of a claim, or of a study."""
    return f"/{record.get('study', f'claims/{name}')}.md"


def setup_of(claim: dict[str, Any]) -> str:
    """The setup, in one sentence."""
    names = claim["setup"].split(", ")
    known = all(name in SETUPS for name in names)
    return "; ".join(f"{name}: {SETUPS[name]}" for name in names) if known else claim["setup"]


def line(claim: dict[str, Any]) -> str:
    """The verdicts of all setups, in one sentence."""
    where = "for the shipped weights" if claim["setup"] == "files" else "in a small setup"
    small, large = HOLDS[claim["verdict"]], "at 135 million parameters"
    if "at scale" not in claim:
        return f"This {small} {where}. It was not tried {large}."
    there = HOLDS[claim["at scale"]["verdict"]]
    if there == small:
        return f"This {small} {where} and {large}."
    return f"This {small} {where}. At 135 million parameters it {there}."


def page(name: str, claim: dict[str, Any]) -> str:
    """One claim: verdicts, what to do, effects, curves, what was done, limits, and what the reader
    can turn.
    """
    scales: list[dict[str, Any]] = [
        {"name": "Small setup", "claim": claim, "rows": small_rows(claim)}
    ]
    if "at scale" in claim:
        scale = claim["at scale"]
        scales.append({"name": "SmolLM2-135M", "claim": scale, "rows": large_rows(claim)})
    for one in scales:
        of = one["claim"]
        one |= {"power": power(of), "wide": cannot_tell(of), "figures": figures(of)}
        one["again"] = f"{again(of)} {repeated(of)}".strip()
    tables = [(one["name"], forest.parts(one["claim"])) for one in scales]
    data = json.dumps(slim(claim), ensure_ascii=False).replace("<", "\\u003c")
    return forest.TEMPLATES.get_template("claim.jinja").render(
        claim=claim,
        scales=scales,
        head=forest.drawn("shapes") + forest.drawn("boxes", line(claim), forest.rows(claim)),
        parts=forest.drawn("parts", tables, forest.ticks()),
        charts="".join(pictures(one["claim"], one["name"]) for one in scales),
        **{"try": data if claim.get("methods") else ""},
    )


def pictures(claim: dict[str, Any], where: str) -> str:
    """The charts of a claim in one setup, by task."""
    found = []
    for task, curves in rates.tasks(claim).items():
        said = ", ".join(filter(None, [where, task]))
        names = "; ".join(curve.name for curve in curves)
        label = f"Test loss against learning rate. {said}. {names}."
        drawn = "".join(forest.drawn("chart", one, label) for one in rates.charts(curves))
        found.append(
            f'<figure class="rate-charts"><figcaption>{said}: test loss against learning rate</figcaption>{drawn}</figure>\n'
        )
    return "".join(found)


def small_rows(claim: dict[str, Any]) -> list[tuple[str, str]]:
    """What was done in the first setup."""
    return [
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
    ]


def large_rows(claim: dict[str, Any]) -> list[tuple[str, str]]:
    """What was done in the second setup."""
    scale = claim["at scale"]
    return [
        ("The claim there", scale["title"]),
        ("The setup", scale["setup"]),
        ("Of this claim", scale["setting"]),
        ("The rule", scale["rule"]),
        ("The untrained model", base_line(claim, large=True)),
        ("What the best method reaches", reached(scale)),
        ("What chance does", odds(scale)),
    ]


def base_line(claim: dict[str, Any], *, large: bool) -> str:
    """The loss of the untrained model in the setups of one scale."""
    return "; ".join(
        f"{setup}: {shown('', one['mean'])} ({shown('', one['low'])} to {shown('', one['high'])}) {one['unit']}"
        for setup, one in claim["untrained"].items()
        if setup.startswith("135M") == large
    )


def reached(claim: dict[str, Any]) -> str:
    """The best that any method of the setup makes of each figure that names a method to beat."""
    return "; ".join(
        f"{label}: {shown(label, part['reach'])}, where {shown(label, part['worth'])} is asked"
        for part in claim["parts"]
        if part["reach"] is not None and (label := claim["meaning"][part["figure"]])
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


def repeated(scale: dict[str, Any]) -> str:
    """What another program gives for the same runs."""
    again = scale.get("torch and PEFT")
    if again is None:
        return ""
    runs = "One of these runs" if again["runs"] == 1 else f"{again['runs']} of these runs"
    verdict = "" if again["verdict"] == "not run yet" else f" {again['sentence']}"
    apart = (
        f"lies more than {shown('', again['apart'])} nats from"
        if again["apart"]
        else "differs from"
    )
    return (
        f"{runs} again, with the same weights, windows, start and learning rate: no loss {apart} ours, "
        f"as far as they are recorded (0.01 %).{verdict}"
    )


def cannot_tell(claim: dict[str, Any]) -> str:
    """What the measured spread is too wide for."""
    wide = claim["cannot tell"]
    if not wide:
        return ""
    return (
        "The measured spread is too wide to tell an effect of just the smallest size worth having. It would be "
        f"seen in fewer than four of five such experiments. This holds for these figures. {rules.listed(wide)}"
    )


def again(claim: dict[str, Any]) -> str:
    """Whether it was the same with other seeds, and in a quick run."""
    runs = {"a quick run": "quick", "five other seeds": "other seeds"}
    said = [f"{what}: {claim[key]['verdict']}" for what, key in runs.items() if key in claim]
    return f"({'; '.join(said)})" if said else ""


def figures(claim: dict[str, Any]) -> str:
    rows = []
    for name, meaning in claim["meaning"].items():
        figure = claim["figures"].get(name)
        if figure is None:
            rows.append(f"| {meaning} | not run yet | | 0 |")
            continue
        sets = ", ".join(shown(meaning, mean) for mean in figure.get("sets", ()))
        seeds = f"{len(figure['values'])}{f' ({sets})' if sets else ''}"
        cells = (meaning, shown(meaning, figure["mean"]), interval(claim, name), seeds)
        rows.append(f"| {' | '.join(cells)} |")
    head = "| figure | mean | 95 % interval | seeds (mean of each set) |\n|---|---:|---:|---:|\n"
    return head + "\n".join(rows)


def interval(claim: dict[str, Any], name: str) -> str:
    """An interval, or why there is none."""
    figure, label = claim["figures"][name], claim["meaning"][name]
    if name in claim["counted"]:
        return "counted"
    if len(figure.get("values", ())) == 1:
        return "one measurement"
    if figure["low"] == figure["high"]:
        return "alike in all runs"
    return f"{shown(label, figure['low'])} to {shown(label, figure['high'])}"


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
                rate: rates.average(runs[measure])
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
    if pagename == "understand/learning-rate":
        app.add_css_file("claims.css")
    if pagename.startswith("claims/") or pagename == "understand/report":
        app.add_css_file("claims.css")
        for name in ("programs.js", "claims.js"):
            app.add_js_file(name, loading_method="defer")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("claim-figures", ClaimFigures)
    app.connect("html-page-context", add_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
