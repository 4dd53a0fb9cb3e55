"""The model that speaks: logits and text of the script are those of the package, for any rank, layers and maps."""

import numpy as np
import pytest

from lora_np import adapters, language
from lora_np.adapters import Adapter
from lora_np.linalg import svd_of_product
from lora_np.nn import freeze

pytestmark = pytest.mark.browser
PROMPT = "And the king "
KINDS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

LOGITS = """async ({rank, layers, kinds, prompt}) => {
  const {model, adapter} = await loraSpeaker.open();
  const tuned = loraSpeak.adapted(model, adapter, rank, (l, k) => layers.includes(l) && kinds.includes(k));
  const read = loraSpeak.reader(tuned);
  const logits = [...prompt].map((character) => [...read(model.vocabulary[character])]);
  const text = [...loraSpeak.generate(tuned, prompt, {temperature: 0, most: 60})].join("");
  return {logits, text};
}"""


@pytest.fixture
def speaker(open_page):
    return open_page("learn/speaking.html")


def tuned(rank, layers, kinds):
    """The package's model with the strongest directions of some modules."""
    model = language.load("austen")
    modules = {}
    for name, module in adapters.load(language.located_adapter("king-james")).items():
        layer, kind = int(name.split(".")[2]), name.rpartition(".")[2]
        if rank and layer in layers and kind in kinds:
            U, s, Vh = svd_of_product(*module.factors())
            modules[name] = adapters.AdapterModule.of(
                A=Vh[:rank], B=U[:, :rank] * s[:rank], alpha=module.scale * rank
            )
    return freeze(adapters.attach(model, Adapter(modules))) if modules else model


@pytest.mark.parametrize(
    ("rank", "layers", "kinds"),
    [
        (0, [0, 1, 2, 3], KINDS),
        (8, [0, 1, 2, 3], KINDS),
        (1, [0, 1, 2, 3], KINDS),
        (3, [1, 3], ["q_proj", "v_proj"]),
        (5, [0], ["gate_proj", "up_proj", "down_proj"]),
    ],
)
def test_logits_and_greedy_text_are_those_of_the_package(speaker, rank, layers, kinds):
    model = tuned(rank, layers, kinds)
    answer = speaker.evaluate(LOGITS, {"rank": rank, "layers": layers, "kinds": kinds, "prompt": PROMPT})
    ours = model(model.vocabulary.encode(PROMPT)[None])[0]
    np.testing.assert_allclose(answer["logits"], ours, atol=1e-4 * np.abs(ours).max())
    assert PROMPT + answer["text"] == language.generate(model, PROMPT, tokens=60, temperature=0)


def test_text_changes_with_the_rank_and_the_address_keeps_it(speaker):
    text = speaker.locator("[data-show=text]")
    first = text.inner_text()
    assert first.startswith(PROMPT)
    speaker.get_by_role("slider").focus()
    speaker.keyboard.press("Home")
    speaker.wait_for_function(
        "document.querySelector('#speaker [data-show=status]').textContent.length > 100"
    )
    assert text.inner_text() != first
    assert speaker.locator("[data-show=count]").inner_text() == "0"
    assert "r=0" in speaker.url
    speaker.reload()
    speaker.wait_for_function(
        "document.querySelector('#speaker [data-show=status]').textContent.length > 100"
    )
    assert speaker.get_by_role("slider").input_value() == "0"
    speaker.get_by_label("MLP").uncheck()
    assert "maps=" in speaker.url
