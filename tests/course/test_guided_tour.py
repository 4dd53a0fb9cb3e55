"""The main job: it reaches what it claims, writes what it says, and repeats itself."""

import html
import json
import re
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import lora_np as lnp
from lora_np import adapters
from lora_np.course import guided_tour, tour
from lora_np.course.guided_tour import FIGURE, RANKS
from lora_np.hub import safetensors
from tests.drawing import QUARTER

whole_run = pytest.mark.skipif(QUARTER, reason="a second environment makes the quick tour")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            guided_tour, "step_time", partial(guided_tour.step_time, rounds=2)
        )  # how long it takes is not judged
        return tour(tmp_path_factory.mktemp("tour"), quick=QUARTER, progress=False)


@pytest.fixture(scope="module")
def folder(found):
    return Path(found.report).parent


@whole_run
def test_every_update_reaches_97_percent_of_what_is_possible(found):
    for update in found.updates:
        assert update.share_of_gain >= 0.97, update


@whole_run
def test_a_low_rank_is_what_the_data_asks_for(found):
    """The figures measured beforehand: 0.162 before, about 0.117 after, in full and at rank 8."""
    assert found.base_error == pytest.approx(0.162, abs=0.006)
    for update in found.updates:
        assert update.error == pytest.approx(0.117, abs=0.004)


def test_both_answers_to_which_rank_is_enough_are_told(found, folder):
    """By held-out data and by the norm, which counts directions that the inputs hardly take."""
    assert 1 <= found.rank_for_gain < found.rank_for_norm < 54
    told = f"By the error rank {found.rank_for_gain}:"
    assert told in str(found.table)
    assert told in (folder / "report.html").read_text(encoding="utf-8")


def test_counts_are_the_seeds(found):
    assert [(u.rank, u.parameters) for u in found.updates] == [
        (None, 12_000),
        (20, 4_400),
        (8, 1_760),
    ]
    assert [u.optimizer_bytes for u in found.updates] == [96_000, 35_200, 14_080]


def test_files_are_real_and_their_sizes_true(found, folder):
    full = safetensors.open(folder / "full-update.safetensors")
    assert full.read("weight").shape == (100, 120)
    for update in found.updates:
        name = (
            "full-update.safetensors"
            if update.rank is None
            else f"adapter-r{update.rank}/adapter_model.safetensors"
        )
        assert (folder / name).stat().st_size == update.file_bytes
        if update.rank is not None:
            (module,) = adapters.load(folder / f"adapter-r{update.rank}").modules.values()
            assert (module.A.shape, module.B.shape) == ((update.rank, 120), (100, update.rank))


def test_the_report_is_self_contained(found, folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "{found" not in page
    images = re.findall(r'<img alt="([^"]+)"\ssrc="data:image/png;base64,[^"]{1000,}">', page)
    assert len(images) == 1
    for number in ("12,000", "4,400", "1,760"):
        assert number in page


def test_it_opens_with_a_picture_and_what_lora_is_for(found, folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    for text in (re.sub(r"<[^>]+>", "", page), str(found)):
        text = " ".join(text.split())
        places = [text.index(words) for words in (
            "LoRA, low-rank adaptation", "And the ", "mean squared error", "bytes of the file",
        )]  # fmt: skip
        assert places == sorted(places)
        assert re.search(r"12,000.* 4,400.* 1,760", text[: places[1]])
        assert "how thick they are" in text[: places[1]]
    assert page.index("<svg") < page.index("LoRA")
    assert len([line for line in str(found).splitlines() if len(line) > 100]) < 20


@whole_run
def test_the_headline_compares_with_the_full_update(found, folder):
    share = re.fullmatch(
        r"1,760 parameters achieve (99\.[5-9]) % of the improvement of 12,000",
        found.headline.replace("%", " %"),
    )
    assert share
    assert f"<h1>{found.headline}</h1>" in (folder / "report.html").read_text(encoding="utf-8")
    assert found.headline in str(found)


@whole_run
@pytest.mark.skipif(sys.platform == "emscripten", reason="the sources of the site are not there")
def test_the_card_of_the_readme_says_the_same_share(found, monkeypatch):
    docs = Path(__file__).parents[2] / "docs"
    monkeypatch.syspath_prepend(docs / "explorer")
    import card

    share = re.search(r"(\d+\.\d)%", found.headline)[1]
    assert f"they achieve {share} % of the improvement of 12,000" in card.alt()
    readme = (docs.parent / "README.md").read_text(encoding="utf-8")
    assert f"they achieve {share} % of the improvement of 12,000](docs/images/card.png)" in readme
    assert f"{share} %" in [text.get_text() for text in card.draw().texts]


@whole_run
def test_a_model_writes_before_and_after(found, folder):
    sample, page = found.sample, (folder / "report.html").read_text(encoding="utf-8")
    assert sample.parameters == 74_752
    assert sample.adapted_loss < sample.base_loss - 0.3
    for text in (sample.base, sample.adapted):
        assert text.startswith("And the ")
        assert html.escape(text) in page
    assert sample.base != sample.adapted


def test_the_figure_is_written(found, folder):
    assert Path(found.figure) == folder / FIGURE
    assert (folder / FIGURE).read_bytes().startswith(b"\x89PNG")


def test_it_turns_into_json(found):
    content = json.loads(json.dumps(asdict(found)))
    assert [u["rank"] for u in content["updates"]] == [None, *RANKS]


@pytest.mark.slow
def test_quick_runs_repeat_themselves_over_the_old_files(tmp_path):
    a = tour(tmp_path, quick=True, rng=3, progress=False)
    adapter = (tmp_path / "adapter-r8/adapter_model.safetensors").read_bytes()
    b = tour(tmp_path, quick=True, rng=3, progress=False)
    assert [u.error for u in a.updates] == [u.error for u in b.updates]
    assert (tmp_path / "adapter-r8/adapter_model.safetensors").read_bytes() == adapter


@pytest.mark.parametrize(
    "name", ["report.html", "rank-and-error.png", "adapter-r8", "full-update.safetensors"]
)
def test_what_no_tour_has_made_is_not_replaced(tmp_path, name):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match=f"{name} already exists"):
        tour(tmp_path, quick=True, progress=False)
    assert (tmp_path / name).read_text() == "mine"


def test_an_interrupted_tour_writes_nothing(tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        return replace(lnp.fit(*args, **{**kwargs, "steps": 1}), interrupted=True)

    monkeypatch.setattr("lora_np.course.guided_tour.fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tour(tmp_path, quick=True, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("rng", "error", "match"), [
    (-1, ValueError, "rng must be at least 0, got -1"),
    (1.5, TypeError, "rng must be a whole number, got 1.5"),
])  # fmt: skip
def test_seeds_that_are_none(rng, error, match, tmp_path):
    with pytest.raises(error, match=match):
        tour(tmp_path, rng=rng)


def test_patches_are_neighbours_centred_on_their_context():
    image = np.arange(40.0 * 50).reshape(40, 50)
    x, y = lnp.datasets.patches(image, 20, rng=np.random.default_rng(0))
    np.testing.assert_allclose(x.mean(axis=1), 0, atol=1e-12)
    left, right = x.reshape(20, 10, 12), y.reshape(20, 10, 10)
    step = left[:, :, 1] - left[:, :, 0]
    np.testing.assert_allclose(right[:, :, 0] - left[:, :, -1], step, atol=1e-9)  # the ramp goes on
