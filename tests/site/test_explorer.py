"""The rank explorer shows what the package computes, under keys, mouse and fingers."""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lora_np as lnp
from lora_np.course.guided_tour import Task, ridge_for

pytestmark = pytest.mark.browser
sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "explorer"))
import export  # noqa: E402
import palette  # noqa: E402

BLUE, ORANGE, INK, LINE = map(palette.rgb, ("minus", "plus", "ink", "line"))


@cache
def task():
    return Task(rng=0, quick=False)


def cut_picture(rank):
    """Grey levels of the best approximation, made without the explorer's factors."""
    U, s, Vh = np.linalg.svd(export.portrait(), full_matrices=False)
    grey = 255 * np.clip((U[:, :rank] * s[:rank]) @ Vh[:rank], 0, 1)
    return np.repeat(grey[:, :, None], 3, axis=2)


def cut_update(rank=None):
    """Colors of the best update of a rank, from a regression of its own: some of the rows."""
    data = {"W0": task().base.W, "ridge": ridge_for(task().x)}
    whole = np.matmul(*lnp.reduced_rank_regression(task().x, task().y, **data))
    M = (
        whole
        if rank is None
        else np.matmul(*lnp.reduced_rank_regression(task().x, task().y, rank=rank, **data))
    )
    share = np.clip(M / np.quantile(np.abs(whole), 0.99), -1, 1)[:, :, None]
    colors = 255 + np.abs(share) * (np.where(share < 0, BLUE, ORANGE) - 255)
    image = np.zeros((32, 46, 3))
    for n, output in enumerate(export.OUTPUTS):
        patch = np.zeros((10, 22, 3)) + LINE
        patch[:, :12] = colors[output].reshape(10, 12, 3)
        patch[output // 10, 12 + output % 10] = INK
        top, left = 11 * (n // 2), 24 * (n % 2)
        image[top : top + 10, left : left + 22] = patch
    return image


def pixels(page, picture="cut"):
    data = page.evaluate(
        """(picture) => {
          const c = document.querySelector(`#rank-explorer [data-picture=${picture}]`);
          const copy = new OffscreenCanvas(c.width, c.height).getContext("2d");
          copy.drawImage(c, 0, 0);
          return [c.height, c.width, Array.from(copy.getImageData(0, 0, c.width, c.height).data)];
        }""",
        picture,
    )
    return np.array(data[2]).reshape(data[0], data[1], 4)[:, :, :3]


def shown(page, name):
    return page.locator(f'#rank-explorer [data-show="{name}"]').inner_text()


def choose(page, subject):
    page.locator("#rank-explorer .explorer-choice").get_by_text(subject).click()


def slide(page, rank):
    """Set the slider as a person with a keyboard does: to the start, then step by step."""
    slider = page.locator("#explorer-slider")
    slider.focus()
    page.keyboard.press("Home")
    for _ in range(rank - int(slider.get_attribute("min"))):
        page.keyboard.press("ArrowRight")


def test_the_slider_changes_picture_error_and_count(open_page):
    page = open_page("learn/explorer.html")
    M = export.portrait()
    errors = lnp.rank_errors(M, relative=True)
    for rank in (1, 8, 20):
        slide(page, rank)
        assert shown(page, "rank") == str(rank)
        assert shown(page, "count") == f"{lnp.count_lora(*M.shape, rank=rank):,}"
        assert shown(page, "error") == f"{100 * errors[rank]:.1f} %"
        np.testing.assert_allclose(pixels(page), cut_picture(rank), atol=1)
    assert shown(page, "full") == f"{lnp.count_full(*M.shape):,}"
    assert shown(page, "break-even") == str(lnp.break_even_rank(*M.shape))


def test_the_update_of_a_model(open_page):
    page = open_page("learn/explorer.html")
    choose(page, "The update of a model")
    most = export.update_ranks(task().best_errors)
    for rank in (1, 8, most):
        slide(page, rank)
        assert shown(page, "count") == f"{lnp.count_lora(100, 120, rank=rank):,}"
        assert shown(page, "error") == f"{task().best_errors[rank]:.4f}"
        np.testing.assert_allclose(pixels(page), cut_update(rank), atol=2)
    np.testing.assert_allclose(pixels(page, "whole"), cut_update(), atol=2)
    assert shown(page, "full") == "12,000"
    assert shown(page, "break-even") == "54"
    assert page.locator("#explorer-slider").get_attribute("max") == str(most)


@pytest.mark.parametrize("width", [390, 1280])
def test_both_pictures_are_of_one_size_above_the_slider(open_page, width):
    page = open_page("learn/explorer.html", viewport={"width": width, "height": 844})
    for subject in ("A photograph", "The update of a model"):
        choose(page, subject)
        cut, whole, slider = page.evaluate(  # at one moment
            """["[data-picture=cut]", "[data-picture=whole]", "#explorer-slider"].map(
                (name) => document.querySelector(`#rank-explorer ${name}`).getBoundingClientRect().toJSON())"""
        )
        assert cut["y"] == whole["y"]
        assert (cut["width"], cut["height"]) == (whole["width"], whole["height"])
        assert cut["y"] + cut["height"] < slider["y"] < 844


def test_the_scripts_of_a_program_come_once_it_is_near(open_page):
    page = open_page("learn/explorer.html")
    asked = lambda: {response.url.rpartition("/")[2] for response in open_page.received}
    others = {"training.js", "speaker.js", "speaker-data.js"}
    assert "explorer.js" in asked()
    assert not others & asked()
    page.locator("#training").scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('#training[aria-busy=false]')")
    assert others & asked() == {"training.js"}


def test_each_subject_keeps_its_rank(open_page):
    page = open_page("learn/explorer.html")
    slide(page, 12)
    choose(page, "The update of a model")
    slide(page, 3)
    choose(page, "A photograph")
    assert shown(page, "rank") == "12"


def test_beyond_break_even_it_is_said(open_page):
    page = open_page("learn/explorer.html")
    edge = lnp.break_even_rank(*export.portrait().shape)
    slide(page, edge)
    assert "of the numbers" in shown(page, "verdict")
    slide(page, edge + 1)
    assert "More numbers than the matrix itself" in shown(page, "verdict")


def test_a_finger_on_the_curve(open_page):
    page = open_page("learn/explorer.html", viewport={"width": 390, "height": 844}, has_touch=True)
    page.locator(".explorer-curve").tap()  # in its middle, once it has come to rest
    assert abs(int(shown(page, "rank")) - 75) <= 1  # the middle of 1 .. 150


def test_the_mouse_drags_along_the_curve(open_page):
    page = open_page("learn/explorer.html")
    curve = page.locator(".explorer-curve")
    curve.scroll_into_view_if_needed()
    box = curve.bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + 50)
    page.mouse.up()
    assert shown(page, "rank") == "150"


def test_it_says_what_it_shows(open_page):
    page = open_page("learn/explorer.html")
    slide(page, 8)
    name = page.locator("#rank-explorer [data-picture=cut]").get_attribute("aria-label")
    assert name == f"The photograph at rank 8, error {shown(page, 'error')}"
    page.wait_for_function(
        "document.querySelector('#rank-explorer [role=status]').textContent.includes('2,640')"
    )


def test_the_address_keeps_rank_and_subject(open_page):
    page = open_page("learn/explorer.html?r=5&of=update")
    assert shown(page, "rank") == "5"
    assert shown(page, "full") == "12,000"
    page.locator("#explorer-slider").press("ArrowRight")
    page.wait_for_url("**r=6&of=update#cut-a-matrix")


def test_layers_alone_and_of_another_strength(open_page):
    page = open_page("learn/explorer.html")
    M = export.portrait()
    s = np.linalg.svd(M, compute_uv=False)
    page.get_by_text("Term by term").click()
    slide(page, 3)
    first = page.get_by_label("Strength of term 1,")
    first.focus()
    page.keyboard.press("Home")  # 0 %: the first layer is gone
    expected = np.sqrt((np.sum(s[3:] ** 2) + s[0] ** 2) / np.sum(s**2))
    assert shown(page, "error") == f"{100 * expected:.1f} %"
    page.get_by_role("button", name="All at 100 %").click()
    assert shown(page, "error") == f"{100 * lnp.rank_errors(M, relative=True)[3]:.1f} %"
    page.get_by_label("alone").check()
    assert shown(page, "cut-name") == "term 3 alone"


def test_a_picture_of_ones_own(open_page, tmp_path):
    rng = np.random.default_rng(0)
    grey = np.round(
        255 * np.clip(rng.uniform(size=(40, 6)) @ rng.uniform(size=(6, 30)) / 4, 0, 1)
    ).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "own.png")
    page = open_page("learn/explorer.html")
    hand_in(page, tmp_path / "own.png")
    page.wait_for_function(
        "document.querySelector('#rank-explorer [data-show=full]').textContent === '1,200'"
    )
    errors = lnp.rank_errors(grey / 255, relative=True)
    for rank in (1, 4, 30):
        slide(page, rank)
        assert shown(page, "error") == f"{100 * errors[rank]:.1f} %"
        assert shown(page, "count") == f"{rank * 70:,}"


def hand_in(page, path):
    """Choose a file as one's own picture."""
    with page.expect_file_chooser() as chooser:
        choose(page, "Your own picture")
    chooser.value.set_files(path)


def test_a_file_that_is_no_picture_is_refused_by_name(open_page, tmp_path):
    notes, good = tmp_path / "notes.txt", tmp_path / "own.png"
    notes.write_text("not a picture", encoding="utf-8")
    Image.fromarray(np.full((40, 30), 90, np.uint8)).save(good)
    page = open_page("learn/explorer.html")
    slide(page, 8)
    before = shown(page, "verdict"), shown(page, "error")
    refused = page.locator("#rank-explorer .explorer-error")
    assert refused.is_hidden()
    hand_in(page, notes)
    refused.wait_for()
    assert refused.inner_text() == (
        "notes.txt is not a picture that can be opened here: choose a PNG, JPEG or WebP file."
    )
    assert (shown(page, "verdict"), shown(page, "error")) == before
    assert page.locator("#rank-explorer [value=picture]").is_checked()
    slide(page, 20)  # the photograph can still be cut
    np.testing.assert_allclose(pixels(page), cut_picture(20), atol=1)
    hand_in(page, good)
    page.wait_for_function(
        "document.querySelector('#rank-explorer [data-show=full]').textContent === '1,200'"
    )
    assert refused.is_hidden()
    page.set_input_files(".explorer-file", str(notes))
    refused.wait_for()
    assert shown(page, "full") == "1,200"  # one's own picture, the last that could be opened


def test_the_picture_that_is_opened_last_is_shown(open_page, tmp_path):
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    for file, shape in ((first, (20, 30)), (second, (10, 30))):
        Image.fromarray(np.full(shape, 90, np.uint8)).save(file)
    page = open_page("learn/explorer.html")
    page.evaluate(
        """() => {
            const decode = window.createImageBitmap;
            let asked = 0;
            window.createImageBitmap = async (file) => {
                if (asked++ === 0) await new Promise((done) => { window.goOn = done; });
                return decode(file);
            };
        }"""
    )
    hand_in(page, first)
    page.wait_for_function("Boolean(window.goOn)")
    page.set_input_files(".explorer-file", str(second))
    full = "document.querySelector('#rank-explorer [data-show=full]').textContent"
    page.wait_for_function(f"{full} === '300'")
    seen = page.evaluate(
        f"""async () => {{
            const found = new Promise((done) => {{
                const terminate = Worker.prototype.terminate;
                Worker.prototype.terminate = function () {{ terminate.call(this); setTimeout(done); }};
            }});
            window.goOn();
            await found;
            return {full};
        }}"""
    )
    assert seen == "300"


@pytest.mark.parametrize(
    ("shape", "grey", "error"), [((20, 30), 0, "0.0 %"), ((1, 30), 200, "0.0 %")]
)
def test_a_black_picture_and_one_of_a_single_row(open_page, tmp_path, shape, grey, error):
    Image.fromarray(np.full(shape, grey, np.uint8)).save(tmp_path / "own.png")
    page = open_page("learn/explorer.html")
    hand_in(page, tmp_path / "own.png")
    page.wait_for_function(
        f"document.querySelector('#rank-explorer [data-show=full]').textContent === '{shape[0] * shape[1]}'"
    )
    assert shown(page, "error") == error
    assert "NaN" not in page.locator("#rank-explorer").inner_html()
