"""Figures of adapters: every line has its label, a single module is a bar, names fit."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from lora_np.plots import (
    adapter_overview,
    module_kinds,
    short_name,
    update_norms,
    update_ranks,
)


def spectra(*paths, seed=0):
    rng = np.random.default_rng(seed)
    return {path: np.sort(rng.uniform(0.1, 2, size=rng.integers(1, 9)))[::-1] for path in paths}


def llama(layers, kinds):
    return [f"model.layers.{i}.self_attn.{kind}" for i in range(layers) for kind in kinds]


def axes():
    return Figure(figsize=(4.3, 3.7), layout="constrained").add_subplot()


@pytest.mark.parametrize("kinds", [["q"], ["q", "v"], [f"proj_{i}" for i in range(7)]], ids=len)
@pytest.mark.parametrize("layers", [2, 3, 30])
def test_every_line_of_norms_is_labelled_in_its_colour(layers, kinds):
    given = spectra(*llama(layers, kinds), "model.embed_tokens")
    ax = update_norms(given, ax=axes())
    drawn = {line.get_color() for line in ax.get_lines()}
    assert {text.get_text() for text in ax.texts} == {*kinds, "embed_tokens"}
    assert {text.get_color() for text in ax.texts} == drawn
    heights = sorted(text.xy[1] for text in ax.texts)
    least = 0.05 * np.ptp(ax.get_ylim())
    assert (np.diff(heights) >= least).all()  # no label covers another
    assert [tick.get_text() for tick in ax.get_xticklabels()][-1] == "no layer"


def test_norms_are_those_of_the_layers():
    given = spectra(*llama(5, ["q"]))
    line = update_norms(given, ax=axes()).get_lines()[0]
    np.testing.assert_array_equal(line.get_xdata(), range(5))
    np.testing.assert_allclose(line.get_ydata(), [np.linalg.norm(s) for s in given.values()])


def test_experts_of_a_layer_are_a_line_and_its_band():
    paths = [f"layers.{i}.experts.{e}.w1" for i in range(3) for e in range(4)]
    ax = update_norms(spectra(*paths), ax=axes())
    (band,) = ax.collections
    assert len(ax.get_lines()[0].get_xdata()) == 3
    assert np.ptp(band.get_paths()[0].vertices[:, 1]) > 0


@pytest.mark.parametrize(
    "paths", [["q_proj"], ["model.layers.7.self_attn.q_proj"], llama(1, "abcd")], ids=len
)
def test_modules_of_one_layer_are_bars_with_their_values(paths):
    given = spectra(*paths)
    ax = update_norms(given, ax=axes())
    assert not ax.get_lines()
    np.testing.assert_allclose(
        [bar.get_width() for bar in ax.patches], [np.linalg.norm(s) for s in given.values()]
    )
    assert [text.get_text() for text in ax.texts] == [f"{np.linalg.norm(s):.3g}" for s in given.values()]
    shown = [tick.get_text().lstrip("…") for tick in ax.get_yticklabels()]
    assert all(path.endswith(end) for path, end in zip(paths, shown, strict=True))


@pytest.mark.parametrize("count", [1, 3, 12, 40])
def test_kinds_have_a_style_each_and_rare_ones_share_one(count):
    given = spectra(*[f"layers.{i}.kind_{k}" for i in range(2) for k in range(count)])
    ax = update_norms(given, ax=axes())
    lines = [line for line in ax.get_lines() if line.get_marker() == "o"]
    assert len(lines) == len(ax.texts) == min(count, 12)
    assert ("other kinds" in " ".join(text.get_text() for text in ax.texts)) == (count > 12)
    assert len({(line.get_color(), str(line._dash_pattern)) for line in lines}) == len(lines)


def test_ranks_say_what_is_needed_and_what_the_file_has():
    ranks = {"layers.0.q": (2, 8), "layers.1.q": (4, 8), "layers.2.q": (3, 8), "head": (1, 4)}
    ax = update_ranks(ranks, ax=axes())
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["q", "head"]
    assert [text.get_text() for text in ax.texts] == ["3 of 8", "1 of 4"]
    (dot,) = ax.get_lines()
    assert dot.get_xdata() == [3]
    bars = [(bar.get_x(), bar.get_width()) for bar in ax.patches]
    assert bars == [(0, 8), (2, 2), (0, 4), (0, 1)]


def test_modules_without_numbers_or_strength_are_no_trouble():
    given = {"layers.0.q": np.zeros(0), "layers.1.q": np.zeros(3), "layers.2.q": np.array([1e-300, 0.0])}
    figure = adapter_overview(given, dict.fromkeys(given, 0), title="a/" * 200)
    assert figure.get_axes()[0].get_title(loc="left") == "How strong is each update?"
    assert len(figure.get_suptitle()) <= 110
    figure.draw_without_rendering()


def test_kinds_are_told_apart_where_their_last_names_are_the_same():
    kinds = module_kinds(
        ["model.visual.blocks.0.q_proj", "model.language_model.layers.3.q_proj", "lm_head", "layers.0", "7"]
    )
    assert list(kinds.values()) == ["visual q_proj", "language_model q_proj", "lm_head", "layers", "7"]
    same = module_kinds(["a.b.q", "b.a.q"])  # no segment is in one of them only
    assert len({*same.values()}) == 2


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
    adapter_overview({path: np.zeros(4) for path in paths}, dict.fromkeys(paths, 0)).canvas.draw()
