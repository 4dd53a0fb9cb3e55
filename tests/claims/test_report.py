"""The report and the findings: numbers come from the results, and each sentence names its claim."""

import html
import re
import sys
from pathlib import Path

import pytest

import claims
import lora_np as lnp
from claims import protocol
from claims.protocol import PHRASES, Number
from tests.drawing import every

ROOT = Path(__file__).parents[2]
KNOWN = claims.records()
PAGE = (ROOT / "docs" / "understand" / "report.md").read_text(encoding="utf-8")
ROLE = re.compile(r"\{(found|fact)\}`([^`]+)`")


@pytest.fixture(scope="module")
def report():
    pytest.importorskip("sphinx")
    sys.path.insert(0, str(ROOT / "docs" / "_ext"))
    import report

    return report


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


def test_both_scales_are_in_one_table_on_the_card_and_on_the_page(report):
    scales = {name: record for name, record in KNOWN.items() if "at scale" in record}
    assert len(scales) >= 6
    table = report.scales()
    assert table.count("\n") == 1 + len(scales)
    for name, record in scales.items():
        scale = record["at scale"]
        (row,) = (row for row in table.splitlines() if f"/claims/{name}.md)" in row)
        assert f"| {record['verdict']} | {scale['verdict']} | {len(scale['seeds'])} of" in row
        card = report.claim_pages.card(name, record)
        assert card.count('class="verdict"') == 2
        for one in (record, scale):
            assert f'data-verdict="{one["verdict"]}"' in card
            assert html.escape(one["finding"]) in card
        page = report.claim_pages.page(name, record)
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
            assert html.escape(record[part]) in studies
        assert f"claims/{name}" not in index
        assert name not in report.table()
        assert f"`{name}: " in PAGE
    assert report.FACTS["claims"] == len(claims.names())


def test_verdicts_of_both_sets_are_those_of_their_figures(report):
    both = [name for name in KNOWN if " / " in report.sets(name)]
    assert len(both) >= 14
    for name in both:
        assert not {"supported", "contradicted here"} <= {*report.sets(name).split(" / ")}, name


def test_the_forest_has_every_claim_and_both_scales(report):
    drawn = report.forest()
    for name, record in KNOWN.items():
        assert f"../claims/{name}.html" in drawn
        assert html.escape(record["words"]) in drawn
    assert drawn.count("at 135 million parameters") == len(report.LARGE)
    assert "nan" not in drawn
    part = {"bound": 1.0, "worth": 1.1, "sign": 1, "low": 1.0}
    assert report.beyond(part, True, 1.0) == 0 < report.beyond(part, True, 1.1)
    assert report.beyond(part | {"sign": -1}, True, 1.1) < 0
    zero = {"bound": 0.0, "worth": 0.014, "sign": 1, "low": 0.0}
    assert report.beyond(zero, False, 0.014) == pytest.approx(report.beyond(part, True, 1.1))


def test_a_mean_lies_within_its_interval_in_the_forest(report):
    spots = re.findall(r'd="M([\d.]+) [\d.]+H([\d.]+)"/><circle data-verdict="([^"]+)" cx="([\d.]+)"', report.forest())  # fmt: skip
    assert len(spots) == len(KNOWN) + len(report.LARGE)
    for low, high, verdict, mean in spots:
        ends = sorted([float(low), float(high)])
        assert ends[0] <= float(mean) <= ends[1]
        assert float(mean) > report.across(0) or verdict != "supported"


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
    figures = protocol.read(claim, record["figures"])
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
