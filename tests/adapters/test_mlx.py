"""What mlx-lm and PEFT make of converted adapters: their logits."""

import json

import numpy as np
import pytest

from lora_np import adapters
from tests.adapters.test_formats import SMALL, drawn

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

TOKENS = [[3, 1, 4, 1, 5, 9, 2, 6]]
CONFIGS = {
    "llama": {"architectures": ["LlamaForCausalLM"]},
    "tied": {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": True},
    "qwen2": {"architectures": ["Qwen2ForCausalLM"]},
    "mixtral": {"architectures": ["MixtralForCausalLM"]},
    "qwen3_moe": {"architectures": ["Qwen3MoeForCausalLM"]},
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bases")
    for name, said in CONFIGS.items():
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(**{"model_type": name, **SMALL, **said})
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.2)
        model.save_pretrained(folder / name)
        path = folder / name / "config.json"  # mlx-lm reads some fields under the names of transformers 4
        said = json.loads(path.read_text())
        path.write_text(json.dumps({**said, **said["rope_parameters"], "num_experts": 3}))
    return folder


def by_transformers(path):
    import torch
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        return model(torch.tensor(TOKENS)).logits[0].numpy()


def by_peft(base, adapter):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        model = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter
        )
        return model(torch.tensor(TOKENS)).logits[0].numpy()


def by_mlx(base, adapter=None):
    mx = pytest.importorskip("mlx.core")
    from mlx_lm.tuner.utils import load_adapters
    from mlx_lm.utils import load_model

    mx.set_default_device(mx.cpu)
    model, _ = load_model(base)
    if adapter is not None:
        load_adapters(model, str(adapter))
    model.eval()
    return np.array(model(mx.array(TOKENS))[0])


def apart(one, two, start):
    """The difference of two logits, relative to what the adapter changes."""
    return float(np.linalg.norm(one - two) / np.linalg.norm(two - start))


KINDS = {
    "linear": ["linear"],
    "embedding": ["linear", "embedding"],
    "experts": ["linear", "experts", "router"],
}
CASES = [
    *((family, "linear") for family in ("llama", "tied", "qwen2")),
    *((family, "embedding") for family in ("llama", "qwen2")),
    *((family, "experts") for family in ("mixtral", "qwen3_moe")),
    ("llama", "dora"),
]


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_converted_adapters_have_their_strength(bases, tmp_path, family, kind):
    base = bases / family
    config = json.loads((base / "config.json").read_text())
    if kind == "dora":
        adapter = drawn(config, scales=(0.1, 0.3), parts=["magnitude"])
    else:
        adapter = drawn(config, roles=KINDS[kind], scales=(0.1, 0.3))
    adapters.merge(base, adapter, tmp_path / "merged", any_base=True)
    start, wanted = by_transformers(base), by_transformers(tmp_path / "merged")
    adapters.convert(adapter, tmp_path / "peft", to="peft")
    assert apart(by_peft(base, tmp_path / "peft"), wanted, start) < 1e-5
    if kind != "dora":
        adapters.convert(adapter, tmp_path / "portable", to="portable", base=config)
        assert apart(by_peft(base, tmp_path / "portable"), wanted, start) < 1e-5
    adapters.convert(adapter, tmp_path / "mlx", to="mlx", base=config)
    np.testing.assert_allclose(by_mlx(base), start, atol=1e-5)
    assert apart(by_mlx(base, tmp_path / "mlx"), wanted, start) < 1e-5
