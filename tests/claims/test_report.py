"""The report and the findings: numbers come from the results, and each sentence names its claim."""

import html
import re
import sys
from itertools import pairwise
from pathlib import Path

import pytest

import claims
import lora_np as lnp
from claims.lab import rules
from claims.lab.trial import PHRASES, Number, read
from tests.drawing import every

ROOT = Path(__file__).parents[2]
KNOWN = claims.records()
LARGE = {name: one["at scale"] for name, one in KNOWN.items() if "at scale" in one}
PAGE = (ROOT / "docs" / "understand" / "report.md").read_text(encoding="utf-8")
ROLE = re.compile(r"\{(found|fact)\}`([^`]+)`")


@pytest.fixture(scope="module")
def report():
    pytest.importorskip("sphinx")
    sys.path.insert(0, str(ROOT / "docs" / "_ext"))
    import report

    return report


@pytest.fixture(scope="module")
def forest(report):
    return report.forest


def sentences(page):
    """Sentences of the prose: no heading, table, code or directive."""
    prose = re.sub(r"(?s)```.*?```", "\n\n", page)
    for paragraph in re.split(r"\n\s*\n", prose):
        if not paragraph.lstrip().startswith(("#", "|")):
            text = " ".join(paragraph.split())
            yield from re.split(r"(?<=[.?!])\s+(?=[A-Z*])", text)


def unnamed(page):
    """Sentences with a number that name neither a claim nor the protocol's code."""
    for sentence in sentences(page):
        bare = re.sub(r"W0|`[^`]*`|\([^)]*\)", "", ROLE.sub("", sentence))
        named = "{found}`" in sentence or "/claims/" in sentence
        if re.search(r"\d", bare) and not named:
            yield sentence


def test_each_sentence_with_a_number_names_its_claim():
    assert not [*unnamed(PAGE)]
    assert len([one for one in sentences(PAGE) if "{found}`" in one]) >= 15
    assert [*unnamed(PAGE + "\n\nDoRA loses 25 % at rank 8.\n")] == ["DoRA loses 25 % at rank 8."]


def test_numbers_of_the_report_are_those_of_the_results(report):
    roles = ROLE.findall(PAGE)
    assert {text for kind, text in roles if kind == "fact"} == {*report.FACTS}
    for kind, text in roles:
        if kind == "found":
            claim, words = report.figure(text)
            name, _, phrase = text.partition(": ")[2].partition(":")
            known = lnp.course.claims()[claim]  # of a claim or a study
            setup = known["at scale"] if " 135M: " in text else known
            found = setup["figures"][name]
            turn, share = PHRASES[phrase]
            number, *_ = re.findall(r"[\d.]+(?:e-?\d+)?", words)
            assert float(number) == pytest.approx(
                turn(found["mean"]) * (100 if share else 1), rel=0.05
            )


def test_every_claim_is_in_the_table_and_every_topic_has_its_study(report):
    table = report.table()
    for name, record in KNOWN.items():
        (row,) = (row for row in table.splitlines() if f"/claims/{name}.md)" in row)
        assert f"| {record['verdicts']} |" in row
        assert record["finding"] in row
    assert sorted(re.findall(r"```\{claim-study\} (.+)\n", PAGE)) == report.TOPICS
    assert all(record["sentence"] in report.study(record["topic"]) for record in KNOWN.values())


def test_both_scales_are_in_one_table_in_the_forest_and_on_the_page(report):
    scales = {name: record for name, record in KNOWN.items() if "at scale" in record}
    assert len(scales) >= 6
    table = report.scales()
    assert table.count("\n") == 1 + len(scales)
    pages = report.claim_pages
    index = pages.index(KNOWN)
    for name, record in KNOWN.items():
        scale = record.get("at scale")
        (line,) = (line for line in index.splitlines() if line.startswith(f"| [{record['title']}]"))
        page = pages.page(name, record)
        assert record["finding"] in line
        assert record["advice"] in line
        assert record["advice"] in page
        assert page.count('<p class="big">') == (2 if scale and scale["parts"] else 1)
        if scale is None:
            continue
        (row,) = (row for row in table.splitlines() if f"/claims/{name}.md)" in row)
        assert f"| {record['verdict']} | {scale['verdict']} | {len(scale['seeds'])} of" in row
        assert scale["finding"] in line
        for words in (scale["sentence"], scale["rule"], scale["setup"], *scale["meaning"].values()):
            assert words in page
        assert "html\n\n```" not in page  # an empty directive, before anything has run
        assert page.count("| not run yet |") == len({*scale["meaning"]} - {*scale["figures"]})
    assert "```{claim-scales}" in PAGE


def test_each_study_has_a_card_that_leads_to_its_page_and_is_in_no_count(report):
    index = report.claim_pages.index(KNOWN)
    _, found, studies = index.partition("## Studies")
    assert found
    assert len(report.STUDIES) == 2
    for name, record in report.STUDIES.items():
        assert f'href="../{record["study"]}.html"' in studies
        for part in ("title", "verdicts", "finding"):
            assert record[part] in html.unescape(studies)
        assert f"claims/{name}" not in index
        assert name not in report.table()
        assert f"`{name}: " in PAGE
    assert report.FACTS["claims"] == len(claims.names())


def test_verdicts_of_both_sets_are_those_of_their_figures(report):
    both = [name for name in KNOWN if " / " in report.sets(name)]
    assert len(both) >= 14
    for name in both:
        assert not {"supported", "contradicted here"} <= {*report.sets(name).split(" / ")}, name


def wrong(mark, part):
    """What a mark says that the verdict of its part does not."""
    claimed, near, far = 50, *sorted([mark.low, mark.high])
    least = claimed if mark.worth is None else mark.worth
    found = [] if near <= mark.mean <= far else ["the mean lies outside its interval"]
    if mark.verdict != part["verdict"]:
        found.append("the shape is another verdict's")
    if part["verdict"] == "supported" and not near > claimed:
        found.append("supported, but not on the claimed side")
    if part["verdict"] == "contradicted here" and not far < least:
        found.append("contradicted, but as far as was asked")
    return found


def test_every_mark_says_what_its_rule_says(forest):
    caught = 0
    for name, record in KNOWN.items():
        setups = [record, *filter(None, [record.get("at scale")])]
        for row, setup in zip(forest.rows(record), setups, strict=True):
            marks = {one.figure: one for one in [row.mark, *row.others]}
            assert row.mark.figure == setup["headline"]
            assert {*marks} == {part["figure"] for part in setup["parts"]}
            assert not any(wrong(marks[part["figure"]], part) for part in setup["parts"]), name
            around = [part | {"sign": -part["sign"]} for part in setup["parts"]]
            caught += any(wrong(forest.mark(part), part) for part in around)
    assert caught >= 0.8 * (len(KNOWN) + len(LARGE))  # with the axis turned round it is seen
    part = {"bound": 1.0, "worth": 1.1, "sign": 1}
    assert forest.beyond(part, 1.0) == 0 < forest.beyond(part, 1.1)
    assert forest.beyond(part | {"sign": -1}, 1.1) < 0
    assert forest.beyond({"bound": 0.0, "sign": 1}, 0.014) == pytest.approx(0.014)


def hidden(marks, head):
    """Small marks that another one, or the headline with its interval, would cover: a small mark is
    7 pixels wide, and a row 250.
    """
    for i, one in enumerate(marks):
        near = [
            abs(one.mean - other.mean) < 2.8 for other in marks[:i] if other.height == one.height
        ]
        if head and one.height == 50:
            near.append(head.low - 2 < one.mean < head.high + 2)
        if head and abs(one.height - 50) < 30:
            near.append(abs(one.mean - head.mean) < 2.8)
        if any(near):
            yield one


def test_no_mark_hides_another(forest):
    crowded = 0
    for record in KNOWN.values():
        for row in forest.rows(record):
            assert not [*hidden(row.others, row.mark)], record["title"]
            assert {one.height for one in row.others} <= {*forest.HEIGHTS}
            on_one_line = [one._replace(height=50) for one in row.others]
            crowded += bool([*hidden(on_one_line, row.mark)])
    assert crowded > 10  # where they lie if nothing keeps them apart


def test_the_forest_draws_its_rows_with_a_shape_for_each_verdict(forest, report):
    table, shapes = forest.table(KNOWN), forest.drawn("shapes")
    assert [*re.findall(r'data-name="([^"]+)"', table)] == [
        name for _, some in forest.groups(KNOWN) for name in some
    ]
    drawn = re.findall(r'<use data-verdict="([^"]+)" data-figure="([^"]+)" href="#v-([^"]+)" x="([\d.]+)%"', table)  # fmt: skip
    wanted = [part for one in [*KNOWN.values(), *LARGE.values()] for part in one["parts"]]
    assert len(drawn) == len(wanted)
    for verdict, _, shape, _ in drawn:
        assert shape == forest.slug(verdict)
    places = sorted((figure, float(x)) for _, figure, _, x in drawn)
    assert places == sorted((part["figure"], forest.mark(part).mean) for part in wanted)
    known = {*rules.VERDICTS, rules.NOT_RUN, rules.COUNTED, rules.ONCE}
    bodies = dict(re.findall(r'<symbol id="v-([^"]+)"[^>]*>(.+?)</symbol>', shapes))
    assert {*bodies} == {*map(forest.slug, known)}
    assert len({bodies[forest.slug(one)] for one in rules.VERDICTS}) == len(rules.VERDICTS)
    assert {*forest.SHORT} == {*report.claim_pages.MEANING} == {*rules.VERDICTS}
    css = (ROOT / "docs" / "explorer" / "claims.css").read_text(encoding="utf-8")
    for one in map(forest.slug, rules.VERDICTS):
        assert f'#pick-{one}:checked) .claim:not([data-verdicts~="{one}"])' in css
    assert [*re.findall(r'data-name="([^"]+)"', report.two_scales())] == [*LARGE]


def test_a_name_stands_at_the_end_of_every_line_and_lines_of_a_colour_differ(report):
    rates, several, above = report.claim_pages.rates, 0, 0
    for record in [*KNOWN.values(), *LARGE.values()]:
        for curves in rates.tasks(record).values():
            charts = rates.charts(curves)
            assert len(charts) == (1 if len(curves) <= rates.MANY else len(curves))
            for chart in charts:
                lines = chart["lines"]
                several += len(lines) > 1
                above += any(line["above"] for line in lines)
                assert all(line["label"] or chart["title"] == line["name"] for line in lines)
                assert len({(line["kind"], line["dashes"]) for line in lines}) == len(lines)
                ends = sorted(line["label"][1] for line in lines if line["label"])
                assert all(b - a >= rates.LINE - 0.2 for a, b in pairwise(ends))
                assert all(chart["left"] <= x <= chart["right"] for line in lines for x, *_ in line["points"])  # fmt: skip
    assert several >= 40
    assert above >= 5
    assert [*map(rates.kind, ("full", "LoRA, r = 8", "GaLore, r = 8", "last layer in full"))] == [
        "full", "lora", "neither", "full",
    ]  # fmt: skip


def test_a_sweep_that_claims_share_counts_once(report):
    alone = sum(record["seconds"] for record in KNOWN.values())
    assert 0 < report.seconds() < 0.8 * alone
    shared = {name for one in KNOWN.values() for name in one["cost"]}
    assert len(shared) < sum(len(one["cost"]) for one in KNOWN.values())


def test_the_abstract_has_the_sizes_in_150_words(report):
    (abstract,) = re.findall(r"\*\*Abstract\.\*\* (.+?)\n\n", PAGE, re.DOTALL)
    fill = lambda found: str(
        report.FACTS[found[2]] if found[1] == "fact" else "12.1 (11.9 to 12.2)"
    )
    words = ROLE.sub(fill, abstract).split()
    assert 120 <= len(words) <= 185  # with the figures and their intervals
    for size in ("64", "750,720", "25,600", "135 million", "7,680"):
        assert size in " ".join(words)
    assert PAGE.splitlines()[0].count("{fact}") == 2  # the title is a claim


@every("name", claims.names())
def test_a_finding_is_one_line_from_the_figures_with_positive_numbers(name):
    claim, record = claims.claim(name), KNOWN[name]
    figures = read(claim, record["figures"])
    assert record["finding"] == claim.found(figures)
    assert 20 <= len(record["finding"]) <= 170
    assert not re.search(r"(?<![\w])-\d", record["finding"])
    used = re.findall(r"\{(\w+)", claim.finding)
    assert used
    for figure in used:  # a figure of another value gives another sentence, or is refused
        moved = figures[figure]._replace(values=tuple(9 * x + 0.5 for x in figures[figure].values))
        try:
            assert claim.found({**figures, figure: moved}) != record["finding"]
        except ValueError as error:
            assert "must not say" in str(error)  # noqa: PT017


def test_a_finding_that_the_figure_contradicts_is_refused():
    assert f"{Number(1.25):lower} {Number(0.8):less} {Number(0.8):above}" == "20 % 20 % 25 %"
    assert f"{Number(-0.3):minus} {Number(0.5):inverse} {Number(2):higher}" == "0.3 2 100 %"
    for x, phrase in (
        (0.8, "lower"),
        (1.2, "less"),
        (0.8, "higher"),
        (1.2, "above"),
        (0.3, "minus"),
        (-1, ""),
    ):
        with pytest.raises(ValueError, match="must not say"):
            format(Number(x), phrase)
