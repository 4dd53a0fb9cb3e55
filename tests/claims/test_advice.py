"""Advice by knob: it stands on figures that are recorded, and no sentence elsewhere contradicts it."""

import itertools
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import lora_np as lnp
from claims.lab import regularising

ROOT = Path(__file__).parents[2]
READ = (
    "README.md",
    "docs/**/*.md",
    "lora_np/**/*.py",
    "lora_np/**/*.md",
    "lora_np/**/*.json",
    "lora_np/**/*.toml",
    "lora_np/**/*.html",
    "claims/**/*.py",
    "tests/exercises/answers/*.*",
    "notebooks/src/*.py",
    "recipes/*.py",
    "docs/explorer/*.*",
)
MADE = {"_build", "lessons", "practice"}
KNOWN = lnp.course.claims()


@pytest.fixture(scope="module")
def advice():
    pytest.importorskip("sphinx")
    sys.path.insert(0, str(ROOT / "docs" / "_ext"))
    import advice

    return advice


def sentences():
    """Every text that gives advice, as one line each."""
    for pattern in READ:
        for path in ROOT.glob(pattern):
            if (
                not MADE & {*path.relative_to(ROOT).parts}
                and "claims/results" not in path.as_posix()
            ):
                lines = path.read_text(encoding="utf-8").splitlines()
                yield path, " ".join(" ".join(line.removeprefix("# ") for line in lines).split())


def test_each_knob_stands_on_recorded_figures_or_says_that_nothing_was_measured(advice):
    known = advice.knobs()
    assert len(known) >= 12
    page = (ROOT / "docs" / "understand" / "advice.md").read_text(encoding="utf-8")
    for name, knob in known.items():
        assert f"```{{advice}} {name}\n" in page
        text = advice.text(name, knob)
        assert knob["unknown"] in text
        for claim, figure in advice.sources(knob):
            assert claim in KNOWN
            assert KNOWN[claim]["meaning"][figure] in text
        assert advice.sources(knob) or "study" in knob or "Nothing was measured" in text


def test_the_table_has_a_row_for_each_knob_which_leads_to_its_section(advice):
    rows = advice.overview().splitlines()[2:]
    assert len(rows) == len(advice.knobs())
    page = (ROOT / "docs" / "understand" / "advice.md").read_text(encoding="utf-8")
    for row, (name, knob) in zip(rows, advice.knobs().items(), strict=True):
        _, knob_cell, value, measured, unknown, _ = row.split("|")
        assert knob_cell.strip().startswith(f"[{name}](#")
        assert f"\n## {name}\n\n```{{advice}} {name}\n" in page
        assert value.strip()
        assert knob["advice"].startswith(value.strip())
        assert unknown.strip() == knob["unknown"]
        assert measured.strip() in ("nothing", f"[a study](#{name.lower().replace(' ', '-')})") or (
            KNOWN[advice.sources(knob)[0][0]]["meaning"][advice.sources(knob)[0][1]] in measured
        )


def lost(name, rank, knob, value):
    """By how many per cent a value of a study ends lower; higher is negative."""
    return round(100 * (1 - regularising.over(name, rank, knob, value).mean))


def test_advice_on_dropout_and_weight_decay_says_what_the_study_found(advice):
    said = {name: knob["advice"] for name, knob in advice.knobs().items()}
    text = advice.text("Dropout", advice.knobs()["Dropout"])
    rows = [line for line in text.splitlines() if line.startswith(("| digits", "| text"))]
    assert len(rows) == 3 * 4
    assert "0.853 (0.785 to 0.928), helps" in text
    ends = [lost("digits", rank, "dropout", 0.1) for rank in (8, 64)]
    assert f"{ends[0]} % lower at rank 8 and {ends[1]} % lower at rank 64" in said["Dropout"]
    few = {lost("few", rank, "dropout", 0.1) for rank in (8, 64)}
    assert f"with 100 images {few.pop()} % lower at both" in said["Dropout"]
    assert not few  # the same at both ranks
    for rank in (8, 64):
        assert lost("few", rank, "dropout", 0.5) > lost("few", rank, "dropout", 0.1)
    costs = sorted(-lost(name, 1, "dropout", 0.5) for name in ("digits", "few"))
    assert f"0.5 cost {costs[0]} to {costs[1]} %" in said["Dropout"]
    helped = lambda name, rank, knob, value: regularising.told(name, rank, knob, value).split(", ")[
        1
    ]
    for name, value in itertools.product(("digits", "few"), regularising.KNOBS["dropout"][1:]):
        assert "helps" not in helped(name, 1, "dropout", value)
    for name, between in (
        ("digits", "12 to 17 % lower at every rank"),
        ("few", "with 100 images 8 to 11 %"),
    ):
        ends = sorted(lost(name, rank, "weight decay", 1.0) for rank in regularising.RANKS)
        assert f"{ends[0]} to {ends[-1]} %" in between
        assert between in said["Weight decay"]
        for rank in regularising.RANKS:
            assert helped(name, rank, "weight decay", 1.0) in ("helps", "helps a little")
            assert helped(name, rank, "weight decay", 10.0) == "hurts"
            for value in (0.01, 0.1):
                shown = helped(name, rank, "weight decay", value)
                exception = (name, rank, value) == ("few", 64, 0.1)
                assert shown == ("helps a little" if exception else "no difference shown")


def test_advice_on_text_read_once_says_what_the_study_found(advice):
    over = lambda rank, knob, value: regularising.over("text", rank, knob, value).mean
    for knob, largest in (("dropout", 0.5), ("weight decay", 10.0)):
        said = advice.knobs()[knob.capitalize()]["advice"]
        costs = sorted(100 * (over(rank, knob, largest) - 1) for rank in regularising.RANKS)
        assert f"{largest:g} cost {costs[0]:.2g} to {costs[-1]:.2g} %" in said
        others = itertools.product(regularising.RANKS, regularising.KNOBS[knob][1:-1])
        assert all(abs(over(rank, knob, value) - 1) < 0.01 for rank, value in others)
        assert "changed less than 1 % at every rank" in said
        assert "not run yet" not in advice.text(
            knob.capitalize(), advice.knobs()[knob.capitalize()]
        )


def test_no_sentence_contradicts_the_advice(advice):
    texts = list(sentences())
    assert len(texts) > 100
    for name, knob in advice.knobs().items():
        pattern = re.compile(knob["against"])
        assert pattern.search(knob["example"]), name
        assert not pattern.search(knob["advice"]), name
        found = [f"{path.relative_to(ROOT)}: ...{text[m.start() - 60 : m.end() + 60]}..."
                 for path, text in texts for m in pattern.finditer(text)]  # fmt: skip
        assert not found, (name, found)


def test_defaults_are_read_beside_the_advice(advice):
    said = {name: knob["advice"] for name, knob in advice.knobs().items()}
    settings = lnp.language.FinetuneSettings()
    for name, option in (("Dropout", "dropout"), ("Weight decay", "weight_decay")):
        assert said[name].startswith("0, as the default has it")
        assert getattr(settings, option) == 0
    assert f"the default is {settings.alpha:g} at every rank" in said["Alpha (kappa)"]
    widths = {width: lnp.Linear(np.zeros((width, width), np.float32)) for width in (64, 128, 576)}
    rates = [lnp.lora.learning_rate(lnp.inject([layer] * 2, rank=8)) for layer in widths.values()]
    first, *others = [f"{rate} at {width}" for rate, width in zip(rates, widths, strict=True)]
    text = f"5 / (width √alpha): {first.replace('at', 'at width')}, {' and '.join(others)}"
    assert text in said["Learning rate"]
    assert said["Rank"].startswith("Start at 4 to 16")
    assert 4 <= settings.rank <= 16
    assert said["Modules"].startswith("All linear layers")
    assert settings.targets == "all-linear"
    assert "use small batches" in said["Batch size"]
    assert settings.batch_size <= 16  # the smaller one of those that were measured
    assert said["Variant"].startswith("Plain LoRA first")
    assert settings.variant == "lora"
