"""What mlx-lm and PEFT make of converted adapters: their logits."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lora_np import adapters
from lora_np.hub import safetensors
from tests.adapters.test_formats import SMALL, drawn
from tests.rounding import assert_as_near, error, torch_in_double

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

TOKENS = [[3, 1, 4, 1, 5, 9, 2, 6]]
CONFIGS = {
    "llama": {"architectures": ["LlamaForCausalLM"]},
    "tied": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "tie_word_embeddings": True,
    },
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
        # mlx-lm reads some fields under the names of transformers 4
        path = folder / name / "config.json"
        said = json.loads(path.read_text())
        path.write_text(json.dumps({**said, **said["rope_parameters"], "num_experts": 3}))
    return folder


def by_transformers(path, in_double=False):
    import torch
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        model = torch_in_double(model) if in_double else model
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


def assert_as_transformers(logits, path):
    """No farther than transformers' logits of a model from what it would compute exactly."""
    assert_as_near(logits, by_transformers(path), by_transformers(path, in_double=True))


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
    assert error(start, wanted) > 0.1
    adapters.convert(adapter, tmp_path / "peft", to="peft")
    assert_as_transformers(by_peft(base, tmp_path / "peft"), tmp_path / "merged")
    if kind != "dora":
        adapters.convert(adapter, tmp_path / "portable", to="portable", base=config)
        assert_as_transformers(by_peft(base, tmp_path / "portable"), tmp_path / "merged")
    if kind == "linear":  # read by mlx-lm as a script renames it, too
        renamed(adapters.load(tmp_path / "portable"), tmp_path / "renamed")
        assert_as_transformers(by_mlx(base, tmp_path / "renamed"), tmp_path / "merged")
    adapters.convert(adapter, tmp_path / "mlx", to="mlx", base=config)
    assert_as_transformers(by_mlx(base), base)
    assert_as_transformers(by_mlx(base, tmp_path / "mlx"), tmp_path / "merged")


def renamed(adapter, folder):
    """An adapter as a script leaves it that renames its tensors and writes ``scale = lora_alpha /
    r``.
    """
    tensors = {}
    for name, module in adapter.items():
        tensors |= {f"{name}.lora_a": module.A.T, f"{name}.lora_b": module.B.T}
    folder.mkdir()
    safetensors.save(tensors, folder / "adapters.safetensors")
    r, alpha = adapter.config["r"], adapter.config["lora_alpha"]
    parameters = {"rank": r, "scale": alpha / r, "dropout": 0.0, "keys": list(adapter)}
    said = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": parameters}
    (folder / "adapter_config.json").write_text(json.dumps(said))


@pytest.mark.parametrize("options", [{"scales": (0.1, 0.3)}, {"rslora": True, "scales": (0.1,)}])
def test_a_strength_that_check_calls_wrong_is_wrong_by_its_factor(bases, tmp_path, options):
    base = bases / "llama"
    adapter = drawn(json.loads((base / "config.json").read_text()), ranks=(4,), **options)
    renamed(adapter, tmp_path / "renamed")
    adapters.save(adapter, tmp_path / "peft")
    rows = {row.module: row for row in adapters.check(tmp_path / "peft", runtime="mlx").rows}
    factors = {name: rows[name].scale_error if name in rows else 1.0 for name in adapter}
    # the format, and modules
    assert {row.status for row in rows.values()} == {"refused", "wrong scale"}
    modules = {
        name: replace(module, alpha=module.alpha * factors[name])
        for name, module in adapter.items()
    }
    adapters.merge(base, replace(adapter, modules=modules), tmp_path / "merged", any_base=True)
    assert_as_transformers(by_mlx(base, tmp_path / "renamed"), tmp_path / "merged")
    # PEFT, of which check says that every module is fine
    assert adapters.check(tmp_path / "peft", runtime="peft").fine
    adapters.merge(base, adapter, tmp_path / "right", any_base=True)
    assert_as_transformers(by_peft(base, tmp_path / "peft"), tmp_path / "right")


def test_ranks_that_check_calls_refused_are_refused(bases, tmp_path):
    pytest.importorskip("mlx.core")
    adapter = drawn(json.loads((bases / "llama" / "config.json").read_text()), scales=(0.1,))
    renamed(adapter, tmp_path / "renamed")
    found = adapters.check(adapter, runtime="mlx").rows
    assert {row.module for row in found} > {
        name for name, module in adapter.items() if module.rank < 5
    }
    with pytest.raises(ValueError, match="does not match") as refused:
        by_mlx(bases / "llama", tmp_path / "renamed")
    for row in found:
        assert row.module == "(all)" or row.module in str(refused.value)
