"""The model that speaks: logits, text and marks of the script are those of the package, for any
rank, layers and maps.
"""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from lora_np import adapters, language
from lora_np.adapters import Adapter
from lora_np.linalg import svd_of_product
from lora_np.nn import freeze

sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "explorer"))
import speaker_data

pytestmark = pytest.mark.browser
PROMPT = "And the king "
KINDS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

LOGITS = """async ({name, rank, layers, kinds, prompt}) => {
  const {model, adapter} = await loraSpeaker.open(name);
  const tuned = loraSpeak.adapted(model, adapter, rank, (l, k) => layers.includes(l) && kinds.includes(k));
  const read = loraSpeak.reader(tuned);
  const logits = [...prompt].map((character) => [...read(model.vocabulary[character])]);
  const said = [...loraSpeak.generate(tuned, prompt, {temperature: 0, most: 60, other: model})];
  return {logits, text: said.map(({character}) => character).join(""), gains: said.map(({gain}) => gain)};
}"""


@pytest.fixture
def speaker(open_page):
    return open_page("learn/explorer.html#generate-text")


def tuned(name, rank, layers, kinds):
    """The package's model with the strongest directions of some modules."""
    model = language.load("austen")
    modules = {}
    for path, module in adapters.load(language.located_adapter(name)).items():
        layer, kind = int(re.search(r"layers\.(\d+)", path)[1]), path.rpartition(".")[2]
        if rank and layer in layers and kind in kinds:
            U, s, Vh = svd_of_product(*module.factors())
            modules[path] = adapters.AdapterModule.of(
                A=Vh[:rank], B=U[:, :rank] * s[:rank], alpha=module.scale * rank
            )
    return freeze(adapters.attach(model, Adapter(modules))) if modules else model


@pytest.mark.parametrize(
    ("name", "rank", "layers", "kinds"),
    [
        ("king-james", 0, [0, 1, 2, 3], KINDS),
        ("king-james", 8, [0, 1, 2, 3], KINDS),
        ("king-james", 1, [0, 1, 2, 3], KINDS),
        ("king-james", 3, [1, 3], ["q_proj", "v_proj"]),
        ("king-james", 5, [0], ["gate_proj", "up_proj", "down_proj"]),
        ("genesis-by-peft", 6, [0, 1, 2, 3], KINDS),
        ("devils-dictionary", 16, [0, 1, 2, 3], KINDS),
    ],
)
def test_logits_text_and_gains_are_those_of_the_package(speaker, name, rank, layers, kinds):
    model = tuned(name, rank, layers, kinds)
    given = {"name": name, "rank": rank, "layers": layers, "kinds": kinds, "prompt": PROMPT}
    answer = speaker.evaluate(LOGITS, given)
    ours = model(model.vocabulary.encode(PROMPT)[None])[0]
    np.testing.assert_allclose(answer["logits"], ours, atol=1e-4 * np.abs(ours).max())
    text = language.generate(model, PROMPT, tokens=60, temperature=0)
    assert PROMPT + answer["text"] == text
    likely = speaker_data.log_likelihood
    gains = likely(model, text) - likely(language.load("austen"), text)
    np.testing.assert_allclose(answer["gains"], gains[len(PROMPT) - 1 :], atol=1e-3)


def shown(page, name):
    return page.locator(f"#speaker [data-show={name}]").inner_text()


def spoken(page):
    """It has said all."""
    page.wait_for_function(
        "document.querySelector('#speaker [data-show=status]').textContent.length > 100"
    )


def test_losses_are_those_of_the_package(speaker):
    samples = speaker.evaluate("window.loraSamples.styles")
    for name, rank in [("king-james", 2), ("devils-dictionary", 16), ("genesis-by-peft", 4)]:
        text = speaker_data.held_out(name)
        loss = language.likelihood(tuned(name, rank, [0, 1, 2, 3], KINDS), text).loss
        losses = dict(map(tuple, samples[name]["losses"]))
        assert losses[rank] == pytest.approx(loss, abs=2e-3)
        assert losses == dict(sorted(losses.items()))
        # each rank brings something
        assert list(losses.values()) == sorted(losses.values(), reverse=True)


def test_each_adapter_shows_its_texts_before_a_model_is_loaded(open_page):
    page = open_page("learn/explorer.html#generate-text")
    samples = page.evaluate("window.loraSamples.styles")
    for name, style in samples.items():
        page.locator(f"#speaker [value={name}]").check(force=True)
        for which in ("base", "text"):
            said = page.locator(f"#speaker [data-show={which}]").text_content()
            assert said.split() == (style["prompt"] + style[which]).split()
        marked = page.locator("#speaker [data-show=text] mark").all_text_contents()
        words = [
            match[0]
            for match in re.finditer(r"\S+", style["text"])
            if sum(style["gains"][match.start() : match.end()]) >= np.log(10)
        ]
        assert marked == words
        assert len(words) > 3
        assert page.locator("#speaker [data-show=base] mark").count() == 0
        assert float(shown(page, "loss")) == pytest.approx(style["losses"][-1][1], abs=0.0051)
    assert not [r.url for r in open_page.received if r.url.endswith(".safetensors")]


def test_without_rank_both_say_the_same_and_the_address_keeps_it(speaker):
    first = shown(speaker, "text")
    assert first.startswith(PROMPT)
    speaker.locator("#speaker-rank").press("Home")
    spoken(speaker)
    assert shown(speaker, "text") == shown(speaker, "base") != first
    assert speaker.locator("#speaker [data-show=text] mark").count() == 0
    assert shown(speaker, "count") == "0"
    assert "adapter-r=0" in speaker.evaluate("location.search")
    speaker.reload()
    spoken(speaker)
    assert speaker.locator("#speaker-rank").input_value() == "0"


def test_one_seed_for_both_and_another_on_demand(speaker):
    speaker.locator("#speaker-temperature").press("ArrowLeft")
    spoken(speaker)
    said = shown(speaker, "base"), shown(speaker, "text")
    speaker.locator("#speaker-rank").press("ArrowLeft")
    spoken(speaker)
    assert shown(speaker, "base") == said[0]  # the same seed, whatever is beside it
    assert shown(speaker, "text") != said[1]
    speaker.get_by_role("button", name="Generate another text").click()
    spoken(speaker)
    assert shown(speaker, "base") != said[0]
    assert "t=0.7" in speaker.evaluate("location.search")


def test_the_loss_of_a_part_is_not_claimed(speaker):
    speaker.get_by_text("Choose layers and modules").click()
    speaker.get_by_label("MLP").uncheck()
    spoken(speaker)
    assert "maps=" in speaker.evaluate("location.search")
    assert shown(speaker, "loss") == "not measured for a part"
    assert "loss" not in shown(speaker, "verdict")


def test_the_best_temperature_is_the_one_of_the_largest_overlap():
    at = {
        t: speaker_data.overlap("king-james", t, seeds=1)
        for t in (0.4, speaker_data.TEMPERATURE, 1.2)
    }
    assert max(at, key=at.get) == speaker_data.TEMPERATURE
