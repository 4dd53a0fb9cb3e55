"""What *Open a real adapter* shows of PEFT is not run in the lesson, so it is run here."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest

import lora_np as lnp
from tests.rounding import assert_as_near, assert_near, in_double, torch_in_double

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytestmark = pytest.mark.peers

SOURCE = Path(__file__).parents[2] / "notebooks" / "src" / "open-a-real-adapter.py"


def shown():
    """The block of code that the lesson shows."""
    text = re.sub(r"^# ?", "", SOURCE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (block,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return block


def layer(d, k, rng):
    return lnp.Linear(rng.normal(scale=k**-0.5, size=(d, k)).astype(np.float32))


@pytest.fixture
def base(tmp_path, monkeypatch):
    """A network like the lesson's, saved as the lesson does."""
    monkeypatch.chdir(tmp_path)
    rng, tanh = np.random.default_rng(0), lnp.Activation(np.tanh)
    network = lnp.Sequential(
        [layer(64, 120, rng), tanh, layer(64, 64, rng), tanh, layer(100, 64, rng)]
    )
    Path("base").mkdir()
    tensors = {path.replace(".W", ".weight"): W for path, W in lnp.leaves(network)}
    lnp.hub.safetensors.save(tensors, "base/model.safetensors")
    return network


def test_peft_opens_ours_and_we_open_what_it_writes(base):
    rng = np.random.default_rng(1)
    x, y = (rng.normal(size=(50, n)).astype(np.float32) for n in (120, 100))
    tuned = lnp.fit(
        lnp.inject(base, rank=4, alpha=8, rng=rng), x, y, steps=30, progress=False
    ).model
    lnp.adapters.save(tuned, "adapter")
    there = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(shown(), there)
    expected = lnp.freeze(tuned)(x)
    assert np.abs(expected - base(x)).max() > 0.1
    with torch.no_grad():
        theirs = there["tuned"](torch.tensor(x))
        exact = torch_in_double(there["tuned"])(torch.tensor(x).double())
    assert_as_near(expected, theirs, exact)
    back = lnp.adapters.attach(base, lnp.adapters.load("from-peft"))
    assert_as_near(back(x), theirs, exact)


def test_peft_only_warns_about_names_that_it_does_not_know(base):
    rng = np.random.default_rng(1)
    model = lnp.inject(base, rank=4, alpha=4, rng=rng)
    adapted = lnp.replace(
        model, lnp.Tensor, lambda path, A: rng.normal(size=A.shape).astype(np.float32)
    )
    lnp.adapters.save(adapted, "adapter")
    weights = lnp.hub.safetensors.open("adapter/adapter_model.safetensors")
    shorter = {
        name.removeprefix("base_model.model."): weights.read(name) for name in weights.tensors
    }
    lnp.hub.safetensors.save(shorter, "adapter/adapter_model.safetensors")
    there = {}
    with pytest.warns(UserWarning, match="missing adapter keys"):
        exec(shown(), there)
    x = rng.normal(size=(5, 120)).astype(np.float32)
    with torch.no_grad():
        theirs = there["tuned"](torch.tensor(x))
    for rounded in (base(x), theirs):
        assert_near(rounded, in_double(base)(x.astype(float)))


@pytest.mark.filterwarnings("ignore")
def test_peft_gives_both_files_of_the_lesson_on_serving_the_strength_they_were_trained_with(
    tmp_path,
):
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    king_james = lnp.language.located_adapter("king-james")
    lnp.adapters.resize(king_james, tmp_path / "ranks", tolerance=0.4)
    whole = lnp.adapters.load(king_james)
    parts = {
        name: lnp.adapters.AdapterModule.of(A=m.A, B=m.B / 4, alpha=4 * m.alpha)
        if "mlp" in name
        else m
        for name, m in whole.items()
    }
    lnp.adapters.save(lnp.adapters.Adapter(parts, raw=whole.raw), tmp_path / "alphas")
    lnp.adapters.convert(tmp_path / "ranks", tmp_path / "portable", to="portable")
    model = lnp.language.load("austen")
    tokens = model.vocabulary.encode("And God said unto the woman")[None]
    for folder in ("ranks", "alphas", "portable"):
        base = transformers.AutoModelForCausalLM.from_pretrained(
            king_james.parent, dtype=torch.float32
        )
        tuned = peft.PeftModel.from_pretrained(base, tmp_path / folder)
        with torch.no_grad():
            theirs, exact = (
                each(torch.tensor(np.asarray(tokens, dtype=np.int64))).logits
                for each in (tuned, torch_in_double(tuned))
            )
        ours = lnp.freeze(lnp.adapters.attach(model, lnp.adapters.load(tmp_path / folder)))(tokens)
        assert_as_near(ours, theirs, exact)
        assert np.abs(ours - lnp.freeze(model)(tokens)).max() > 0.1
