"""The colours: one file, contrast on paper and in the dark, and apart for the colour blind."""

import json
import re
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from lora_np import plots
from lora_np.plots import ACCENT, CYCLE, FULL, INK, LORA, MUTED, SKY, label_line

ROOT = Path(__file__).parents[2]
TOKENS = json.loads((ROOT / "lora_np" / "plots" / "tokens.json").read_text(encoding="utf-8"))
SCHEMES = {name: TOKENS[name] for name in ("light", "dark")}
COLORS = {ACCENT, *CYCLE, FULL, INK, LORA, MUTED, SKY}
PAGE = np.array(to_rgb(TOKENS["dark"]["paper"]))  # of the site in the dark
WEIGHTS = np.array([0.213, 0.715, 0.072])  # of red, green and blue, as in CSS filters
TEXTS = ("ink", "ink-2", "link", "base-text", "lora-text", "full-text", "good", "tight", "not")
GRAPHICS = ("base", "lora", "full", "plus", "minus", "good", "tight", "not", "line-strong")
# Machado, Oliveira and Fernandes 2009, doi:10.1109/TVCG.2009.113: full severity, of linear light
BLIND = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


def light(color):
    """Linear light, from sRGB."""
    parts = np.array(to_rgb(color))
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    lower, upper = sorted(light(color) @ [0.2126, 0.7152, 0.0722] for color in (one, other))
    return (upper + 0.05) / (lower + 0.05)


def lab(color, seen=np.eye(3)):
    """CIELAB of a colour as an eye with such a matrix sees it."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # fmt: skip
    xyz = to_xyz @ np.clip(seen @ light(color), 0, 1) / to_xyz.sum(axis=1)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def apart(colors):
    """The least distance of two colours for any of four kinds of eye."""
    eyes = [np.eye(3), *map(np.array, BLIND.values())]
    pairs = product(combinations(colors, 2), eyes)
    return min(np.linalg.norm(lab(a, eye) - lab(b, eye)) for (a, b), eye in pairs)


def in_the_dark(color):
    """As site.css draws it: invert(1) hue-rotate(180deg), then screened onto the page."""
    inverted = 1 - np.array(color)
    rotated = np.clip(2 * WEIGHTS @ inverted - inverted, 0, 1)
    return 1 - (1 - rotated) * (1 - PAGE)


def contrasts(color):
    return contrast(color, (1, 1, 1)), contrast(in_the_dark(color), PAGE)


@pytest.mark.parametrize("color", sorted(COLORS))
def test_a_line_has_a_contrast_of_three_and_its_label_of_four_and_a_half(color):
    assert min(contrasts(to_rgb(color))) >= 3
    ax = Figure().add_subplot()
    label_line(ax, 0, 0, "label", color)
    assert min(contrasts(to_rgb(ax.texts[0].get_color()))) >= 4.5


@pytest.mark.parametrize("scheme", SCHEMES)
def test_words_and_marks_can_be_read_on_their_grounds(scheme):
    colors = SCHEMES[scheme]
    grounds = {name: ("paper", "wash", f"{name.removesuffix('-text')}-wash") for name in TEXTS}
    for name in TEXTS:
        for ground in grounds[name]:
            if ground in colors:
                assert contrast(colors[name], colors[ground]) >= 4.5, (name, ground)
    for name, ground in product(GRAPHICS, ("paper", "wash")):
        assert contrast(colors[name], colors[ground]) >= 3, (name, ground)
    assert contrast(colors["on"], colors["lora"]) >= 4.5
    assert min(contrast(colors["paper"], colors[name]) for name in ("good", "tight", "not")) >= 4.5


@pytest.mark.parametrize("scheme", SCHEMES)
def test_colours_of_one_group_are_apart_for_every_eye(scheme):
    colors = SCHEMES[scheme]
    for group in (("base", "lora", "full"), ("good", "tight", "not"), ("plus", "minus")):
        assert apart([colors[name] for name in group]) >= 20, group
    assert apart([SCHEMES["light"][name] for name in ("lora", "tight")]) < 20  # never in one figure
    assert colors["lora"] == colors["plus"]


def test_what_is_drawn_has_the_colours_of_the_pages():
    colors = SCHEMES["light"]
    assert [colors[name] for name in ("lora", "full", "base", "minus")] == [LORA, FULL, MUTED, SKY]
    assert {*COLORS} <= {*colors.values()}
    assert SCHEMES["light"].keys() == SCHEMES["dark"].keys()
    ax = plots.lines({"LoRA": np.ones(3), "full update": np.ones(3)}, xlabel="x", ylabel="y", ax=Figure().add_subplot())  # fmt: skip
    assert [line.get_color() for line in ax.lines] == [LORA, FULL]
    figure = plots.matrix_tiles({"M": np.array([[-1.0, 1.0]])}, figure=Figure())
    shown = figure.axes[0].images[0].cmap
    assert [to_hex(shown(x)) for x in (0.0, 1.0)] == [SKY, LORA]


HEX = re.compile(r"(?<!&)#(?:[0-9a-f]{3,4}|[0-9a-f]{6}|[0-9a-f]{8})(?![\w-])", re.I)
BY_NUMBERS = re.compile(r"\b(?:rgb|hsl|oklch)a?\(|\[\s*\d{1,3}(?:,\s*\d{1,3}){2}\s*\]")
HUES = "black|blue|brown|cyan|gold|gr[ae]y|green|magenta|maroon|navy|olive|orange|pink|purple|red|silver|teal|violet|yellow"
STYLED = re.compile(rf"(?:color|fill|stroke|background|border)[\w-]*:[^;{{}}]*\b(?:{HUES}|white)\b")
DRAWN = re.compile(rf"""["'](?:tab:)?(?:{HUES})["']|color=["'](?:C\d|[01]?\.\d+)["']""")
MADE = {"_build", "lessons", "practice", "__pycache__", "data"}


def elsewhere(path, text):
    """Colours that a file has of its own."""
    if path.suffix == ".svg":  # a drawing, which is made from the tokens
        return {color.lower() for color in HEX.findall(text)} - {*SCHEMES["light"].values()}
    if path.suffix == ".py":
        text = re.sub(r'cmap="gr[ae]y"', "", text)
        return {*re.findall(rf"""["']{HEX.pattern}["']""", text), *DRAWN.findall(text)}
    found = {*HEX.findall(text), *BY_NUMBERS.findall(text), *STYLED.findall(text)}
    return found - {"[0, 200, 400]"} if path.suffix == ".js" else found


def test_no_file_but_the_tokens_has_a_colour():
    if not (ROOT / "docs").is_dir():
        pytest.skip("without the repository")
    seen = {}
    for folder in ("docs", "lora_np", "claims", "notebooks", "benchmarks", "recipes"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in {".py", ".js", ".css", ".html", ".svg"} and not MADE & {*path.parts}:
                seen[path.relative_to(ROOT)] = elsewhere(path, path.read_text(encoding="utf-8"))
    assert len(seen) > 250
    assert not {str(path): found for path, found in seen.items() if found}
    for name, text in (("a.css", "a { color: #d55e00; }"), ("a.css", "a { fill: red; }"), ("a.js", "[0, 114, 178]"),
                       ("a.py", 'LORA = "#0072b2"'), ("a.py", 'color="purple"'), ("a.py", 'color="0.5"'), ("a.svg", "#0072b2")):  # fmt: skip
        assert elsewhere(Path(name), text), text
