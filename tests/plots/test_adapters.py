"""Figures of adapters: every module is in its tile, names fit."""

import numpy as np
import pytest

from lora_np.models import kinds_and_layers
from lora_np.plots import adapter_overview, short_name
from tests.drawing import FULL


def spectra(*paths, seed=0):
    rng = np.random.default_rng(seed)
    return {path: np.sort(rng.uniform(0.1, 2, size=rng.integers(1, 9)))[::-1] for path in paths}


def llama(layers, kinds):
    return [f"model.layers.{i}.self_attn.{kind}" for i in range(layers) for kind in kinds]


def overview(given, ranks, **options):
    return adapter_overview(given, ranks, kinds_and_layers(given), **options)


def tiles(figure, panel):
    """Values by kind and layer, as they are drawn."""
    ax = figure.get_axes()[panel]
    rows, columns = (
        [tick.get_text() for tick in ticks]
        for ticks in (ax.get_yticklabels(), ax.get_xticklabels())
    )
    values = np.ma.filled(ax.images[0].get_array(), np.nan)
    return {
        (row, column): values[i, j]
        for i, row in enumerate(rows)
        for j, column in enumerate(columns)
    }


@pytest.mark.parametrize("kinds", [["q"], ["q", "v"], [f"proj_{i}" for i in range(40)]], ids=len)
@pytest.mark.parametrize("layers", [1, 3, 20] if FULL else [1, 20])
def test_every_module_has_its_tiles(layers, kinds):
    given = spectra(*llama(layers, kinds), "model.embed_tokens")
    needed = {path: i for i, path in enumerate(given)}
    figure = overview(given, needed)
    figure.draw_without_rendering()
    norms, ranks = tiles(figure, 0), tiles(figure, 1)
    for path, s in given.items():
        parts = path.split(".")
        place = (parts[-1], parts[2] if len(parts) > 2 else "none")
        assert norms[place] == pytest.approx(np.linalg.norm(s))
        assert ranks[place] == needed[path]
    assert np.isfinite(list(norms.values())).sum() == len(given)
    columns = [tick.get_text() for tick in figure.get_axes()[0].get_xticklabels()]
    assert columns == [*map(str, range(layers)), "none"]


def test_names_of_many_layers_do_not_cover_each_other():
    paths = llama(80, ["q"])
    (ax, *_) = overview(spectra(*paths), dict.fromkeys(paths, 1)).get_axes()
    assert [tick.get_text() for tick in ax.get_xticklabels()] == [str(i) for i in range(0, 80, 4)]
    assert list(ax.get_xticks()) == list(range(0, 80, 4))


def test_experts_of_a_layer_are_one_tile_with_their_median():
    paths = [f"layers.{i}.experts.{e}.w1" for i in range(3) for e in range(4)]
    given = spectra(*paths)
    norms = tiles(overview(given, dict.fromkeys(paths, 1)), 0)
    for i in range(3):
        several = [
            np.linalg.norm(s) for path, s in given.items() if path.startswith(f"layers.{i}.")
        ]
        assert norms["w1", str(i)] == pytest.approx(np.median(several))


def test_tiles_of_few_layers_have_their_numbers():
    figure = overview(
        {"layers.0.q": np.array([3.0, 4.0]), "layers.1.q": np.ones(1)},
        {"layers.0.q": 2, "layers.1.q": 1},
    )
    assert [[text.get_text() for text in ax.texts] for ax in figure.get_axes()] == [
        ["5", "1"],
        ["2", "1"],
    ]


def test_modules_without_numbers_or_strength_are_no_trouble():
    given = {
        "layers.0.q": np.zeros(0),
        "layers.1.q": np.zeros(3),
        "layers.2.q": np.array([1e-300, 0.0]),
    }
    figure = overview(given, dict.fromkeys(given, 0), title="a/" * 200)
    assert figure.get_axes()[0].get_title(loc="left").startswith("How strong is each update?")
    assert len(figure.get_suptitle()) <= 110
    figure.draw_without_rendering()


@pytest.mark.parametrize("longest", range(5, 60, 7))
def test_short_names_fit_and_end_as_the_name_does(longest):
    name = "base_model.model.model.layers.11.self_attn.q_proj"
    short = short_name(name, longest)
    assert len(short) <= longest
    assert name.endswith(short.lstrip("…"))
    assert (short == name) == (longest >= len(name))


@pytest.mark.parametrize("layers", [1, 3])
def test_an_adapter_that_is_not_trained_is_drawn_without_a_warning(layers):
    paths = llama(layers, ["q", "v"])
    overview({path: np.zeros(4) for path in paths}, dict.fromkeys(paths, 0)).canvas.draw()
