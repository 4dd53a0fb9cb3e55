"""Advice by knob: it stands on figures that are recorded, and no sentence elsewhere contradicts it."""

import re
import sys
from pathlib import Path

import pytest

import claims
import lora_np as lnp

ROOT = Path(__file__).parents[2]
READ = (
    "README.md",
    "docs/**/*.md",
    "lora_np/**/*.py",
    "lora_np/**/*.md",
    "lora_np/**/*.json",
    "lora_np/**/*.toml",
    "lora_np/**/*.html",
    "claims/*.py",
    "exercises/*.*",
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
            assert claim in claims.names()
            assert KNOWN[claim]["meaning"][figure] in text
        assert advice.sources(knob) or "Nothing was measured" in text


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
    known = advice.knobs()
    settings = (
        lnp.language.FinetuneSettings() if hasattr(lnp.language, "FinetuneSettings") else None
    )
    for name, option in (("Dropout", "dropout"), ("Weight decay", "weight_decay")):
        assert known[name]["advice"].startswith("0, as the default has it")
        assert settings is None or getattr(settings, option) == 0
