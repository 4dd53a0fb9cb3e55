"""The front page draws W0, B and A to scale at the rank that the reader chooses, with the post's three counts."""

import pytest

import lora_np as lnp

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("rank", [1, 8, 20, 60])
def test_the_picture_follows_the_rank(open_page, rank):
    page = open_page("index.html")
    slider = page.locator("#factors-rank")
    slider.focus()
    page.keyboard.press("Home")
    for _ in range(rank - 1):
        page.keyboard.press("ArrowRight")
    count = lnp.count_lora(100, 120, rank=rank)
    assert f"{count:,} numbers, trained" in page.locator("svg.idea").text_content()
    B, A = page.locator("svg.idea .trained rect").all()
    assert float(B.get_attribute("width")) == pytest.approx(1.8 * rank)
    assert float(A.get_attribute("height")) == pytest.approx(1.8 * rank)
    more = "more than" in page.locator('#factors [data-show="verdict"]').inner_text()
    assert more == (rank > lnp.break_even_rank(100, 120))
