"""The forest of claims: a row and a page each, and sliders over what was recorded."""

import pytest

from claims import records, study_records

pytestmark = pytest.mark.browser
KNOWN = records()


def test_each_claim_has_a_row_a_line_and_a_page(open_page):
    page = open_page("claims/index.html?answers")
    rows = {row.get_attribute("data-name"): row for row in page.locator(".claim").all()}
    assert {*rows} == {*KNOWN}
    links = {link.get_attribute("href") for link in page.locator(".claim a").all()}
    assert links == {f"{name}.html" for name in KNOWN}
    assert page.locator("article table.docutils tbody tr").count() == len(KNOWN)
    table = page.locator("article table.docutils").inner_text().replace("’", "'")
    for name, claim in KNOWN.items():
        said = rows[name].inner_text()
        assert claim["title"].rstrip(".") in said
        for one in filter(None, [claim, claim.get("at scale")]):
            assert one["verdict"] in said
            assert one["finding"].split("`")[0] in table
        assert rows[name].locator(".lane").count() == 1 + ("at scale" in claim)
        assert claim["advice"].split("`")[0] in table


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


def test_the_evidence_is_short_and_its_picture_comes_first(open_page):
    page = open_page("claims/index.html", java_script_enabled=False)
    top = lambda place: page.locator(place).first.bounding_box()["y"]
    assert top(".picks") < 600
    assert top(".claim") < top("article h2")
    assert page.locator("html").bounding_box()["height"] <= 6 * 900
    for wanted in ("all", *sorted({claim["verdict"] for claim in KNOWN.values()})):
        page.locator(f"#pick-{wanted.replace(' ', '-')}").check()
        left = sum(row.is_visible() for row in page.locator(".claim").all())
        fit = [one for one in KNOWN.values() if wanted in ("all", one["verdict"], one.get("at scale", one)["verdict"])]  # fmt: skip
        assert left == len(fit)


CUT = """() => [...document.querySelectorAll(".rates text, .forest tbody th, .forest td, .claim-boxes section")]
  .filter((one) => {
    const box = one.getBoundingClientRect(), whole = (one.closest(".rates") ?? document.body).getBoundingClientRect();
    return box.left < whole.left - 1 || box.right > whole.right + 1 ||
      (!one.closest("svg") && one.scrollWidth > one.clientWidth + 1);
  }).map((one) => one.textContent)"""


@pytest.mark.parametrize("width", [390, 1280])
def test_verdicts_stand_at_the_top_and_no_label_is_cut(open_page, address, width):
    page = open_page("claims/index.html", viewport={"width": width, "height": 900})
    for name, claim in KNOWN.items():
        page.goto(f"{address}claims/{name}.html")
        boxes = [box.bounding_box() for box in page.locator(".claim-boxes .big").all()]
        assert max(box["y"] + box["height"] for box in boxes) <= 300 or "at scale" not in claim
        assert not page.evaluate(CUT), name
        charts = page.locator(".rate-charts").all_text_contents()
        assert all("test loss against learning rate" in one for one in charts)


def test_the_sliders_show_what_was_recorded(open_page):
    name = "rslora"
    page = open_page(f"claims/{name}.html?answers")
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
    page = open_page("claims/forgets-less.html?answers")
    full = KNOWN["forgets-less"]["methods"]["language: full"]
    page.select_option("#claim-try select", "old")
    page.locator("#claim-try input").first.fill(str(0))
    rate = page.locator('[data-show="rate"]').inner_text()
    runs = next(runs for key, runs in full["rates"].items() if float(key) == float(rate))
    shown = page.locator(".claim-bars > div").last.locator("> span").last.inner_text()
    assert float(shown) == pytest.approx(sum(runs["old"]) / len(runs["old"]), rel=6e-3)


def test_a_page_has_the_rule_the_figures_and_the_limits(open_page):
    for name in ("rslora", "nf4-optimal", "thirteen-numbers"):
        page = open_page(f"claims/{name}.html?answers")
        text = page.locator("article").inner_text().translate(str.maketrans("’“”", '\'""'))
        for part in ("verdict", "rule", "limits", "refuted_by", "setting"):
            assert KNOWN[name][part].split("`")[0] in text
        assert page.locator(".parts .lane").first.is_visible()
        if "at scale" in KNOWN[name]:
            assert KNOWN[name]["at scale"]["title"] in text
