"""The gallery of claims: a card and a page each, filters, and sliders over what was recorded."""

import pytest

from claims import records, study_records

pytestmark = pytest.mark.browser
KNOWN = records()


def test_each_claim_has_a_card_a_line_and_a_page(open_page):
    page = open_page("claims/index.html")
    cards = page.locator(".claims > li")
    assert cards.count() == len(KNOWN)
    lines = page.locator("article table tbody tr")
    assert lines.count() == len(KNOWN)
    links = {link.get_attribute("href") for link in page.locator(".claims a").all()}
    assert links == {f"{name}.html" for name in KNOWN}
    assert cards.filter(has=page.locator("svg")).count() == len(KNOWN)
    table = page.locator("article table").inner_text()
    for name, claim in KNOWN.items():
        card = cards.filter(has=page.locator(f'a[href="{name}.html"]'))
        assert claim["title"] in card.inner_text()
        assert claim["verdict"] in card.inner_text()
        assert claim["finding"] in card.inner_text()
        if "at scale" in claim:
            assert claim["at scale"]["verdict"] in card.inner_text()
            assert claim["at scale"]["finding"] in card.inner_text()
        assert claim["advice"].split("`")[0] in table.replace("’", "'")


def test_each_study_has_a_card_that_leads_to_its_page(open_page):
    page = open_page("claims/index.html")
    assert page.locator(".claim-studies > li").count() == len(study_records())
    for study in study_records().values():
        card = page.locator(".claim-studies > li").filter(has_text=study["title"])
        assert study["verdicts"] in card.inner_text()
        assert study["finding"] in card.inner_text()
        card.locator("a").click()
        page.wait_for_url(f"**/{study['study']}.html")
        page.go_back()


def test_a_claim_leads_to_the_others_of_its_topic(open_page):
    topic = sorted(name for name in KNOWN if KNOWN[name]["topic"] == KNOWN["rslora"]["topic"])
    assert len(topic) > 2
    page = open_page(f"claims/{topic[0]}.html")
    assert page.locator(".prev-page").count() == 0
    for name in topic[1:]:
        page.locator(".next-page").click()
        page.wait_for_url(f"**/claims/{name}.html")
        page.wait_for_load_state("networkidle")
    assert page.locator(".next-page").count() == 0


def test_cards_come_before_the_table_and_name_their_axes(open_page):
    page = open_page("claims/index.html")
    top = lambda place: page.locator(place).first.bounding_box()["y"]
    assert top(".claims > li") < top("article table")
    drawn = page.locator(".claims svg:has(.axis)")
    assert drawn.count() >= 20
    for text in drawn.all_text_contents():
        assert "learning rate" in text
        assert "test loss" in text
    above = page.locator(".claims svg:has(.above)")
    assert above.count() >= 5
    assert all("above" in text for text in above.all_text_contents())


@pytest.mark.parametrize("name", ["verdict", "topic"])
def test_the_filters_leave_what_fits(open_page, name):
    page = open_page("claims/index.html")
    for wanted in sorted({claim[name] for claim in KNOWN.values()}):
        page.select_option(f"#claim-filters [name={name}]", wanted)
        left = [card for card in page.locator(".claims > li").all() if card.is_visible()]
        assert len(left) == sum(claim[name] == wanted for claim in KNOWN.values())
        assert page.locator("#claim-filters output").inner_text().startswith(f"{len(left)} of")


def test_the_sliders_show_what_was_recorded(open_page):
    name = "rslora"
    page = open_page(f"claims/{name}.html")
    ways = KNOWN[name]["methods"]
    rates = sorted({float(rate) for way in ways.values() for rate in way["rates"]})
    slider = page.locator("#claim-try input").first
    for place, rate in enumerate(rates):
        slider.fill(str(place))
        assert float(page.locator('[data-show="rate"]').inner_text()) == rate
        for line, way in zip(page.locator(".claim-bars > div").all(), ways.values(), strict=True):
            shown = line.locator("> span").last.inner_text()
            runs = next((runs for key, runs in way["rates"].items() if float(key) == rate), None)
            if runs is None:
                assert shown == "not tried"
            elif None in runs["test"]:
                assert shown == "diverged"
            else:
                assert float(shown) == pytest.approx(
                    sum(runs["test"]) / len(runs["test"]), rel=6e-3
                )
    ranks = sorted({way["method"]["rank"] for way in ways.values()})
    page.locator("#claim-try input").last.fill("1")
    assert page.locator('[data-show="rank"]').inner_text() == str(ranks[0])
    assert page.locator(".claim-bars > div").count() == sum(
        w["method"]["rank"] == ranks[0] for w in ways.values()
    )


def test_what_else_was_measured_can_be_chosen(open_page):
    page = open_page("claims/forgets-less.html")
    full = KNOWN["forgets-less"]["methods"]["language: full"]
    page.select_option("#claim-try select", "old")
    page.locator("#claim-try input").first.fill(str(0))
    rate = page.locator('[data-show="rate"]').inner_text()
    runs = next(runs for key, runs in full["rates"].items() if float(key) == float(rate))
    shown = page.locator(".claim-bars > div").last.locator("> span").last.inner_text()
    assert float(shown) == pytest.approx(sum(runs["old"]) / len(runs["old"]), rel=6e-3)


def test_a_page_has_the_rule_the_figures_and_the_limits(open_page):
    for name in ("rslora", "nf4-optimal", "thirteen-numbers"):
        page = open_page(f"claims/{name}.html")
        text = (
            page.locator("article")
            .inner_text()
            .replace("’", "'")
            .replace("“", '"')
            .replace("”", '"')
        )
        for part in ("verdict", "rule", "limits", "refuted_by", "setting"):
            assert KNOWN[name][part].split("`")[0] in text
        assert page.locator(".claim-picture").first.is_visible()
        if "at scale" in KNOWN[name]:
            assert KNOWN[name]["at scale"]["title"] in text
