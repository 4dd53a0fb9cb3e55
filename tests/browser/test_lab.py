"""The course as a reader meets it: JupyterLab from the wheel, a real browser, a hand on the
slider.
"""

import base64
import io
import re

import numpy as np
import pytest

import lora_np as lnp
from lora_np.datasets import photograph

pytestmark = pytest.mark.browser


def expected_text(rank):
    error = lnp.rank_errors(photograph(), relative=True)[rank]
    return f"rank {rank}: error {error:.1%}, {lnp.count_lora(600, 512, rank=rank):,} entries"


def expected_pixels(rank):
    B, A = lnp.low_rank_factors(photograph(), rank=rank)
    return 255 * np.clip(B @ A, 0, 1)


def shown_pixels(picture):
    from PIL import Image

    encoded = picture.get_attribute("src").removeprefix("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))), dtype=float)


def assert_shows(view, rank):
    from playwright.sync_api import expect

    expect(view.locator("figcaption")).to_have_text(expected_text(rank))
    picture = view.locator("img")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 512
    assert np.abs(shown_pixels(picture) - expected_pixels(rank)).max() <= 1


def test_reader_cuts_the_svd_with_the_slider(lab, page):
    from playwright.sync_api import expect

    page.goto(lab.replace("00-follow-the-post", "02-cut-the-svd"))
    expect(page.get_by_role("heading", name="Cut the SVD")).to_be_visible()
    expect(page.locator("#jp-main-statusbar")).to_contain_text("| Idle")  # the kernel is there

    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    view = page.locator(".jp-OutputArea-output .widget-vbox")
    view.wait_for()
    prompts = page.locator(".jp-CodeCell .jp-InputPrompt")
    expect(prompts.filter(has_text="*")).to_have_count(0)  # every cell has run
    assert re.fullmatch(r"\[\d+\]:", prompts.last.inner_text())
    assert page.locator('[data-mime-type*="error"], [data-mime-type*="stderr"]').count() == 0

    view.scroll_into_view_if_needed()
    assert_shows(view, rank=16)

    handle = view.locator(".noUi-handle")
    handle.focus()
    handle.press("ArrowRight")
    expect(view.locator(".widget-readout")).to_have_text("20")
    assert_shows(view, rank=20)

    handle.hover()  # once it has come to rest
    page.mouse.down()
    track = view.locator(".noUi-base").bounding_box()
    page.mouse.move(track["x"] + track["width"] + 50, track["y"], steps=10)
    page.mouse.up()
    expect(view.locator(".widget-readout")).to_have_text("100")
    assert_shows(view, rank=100)
