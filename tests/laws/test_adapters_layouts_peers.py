"""Fused and separate projections and experts, judged by PEFT's logits and by transformers' layers."""

import json

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters import AdapterModule
from lora_np.adapters.layouts import pieces_of
from lora_np.hub import safetensors
from lora_np.models import open_base
from tests.rounding import assert_as_near, torch_in_double

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # between PEFT and transformers
    # PEFT's own pattern for experts that it joins on loading
    pytest.mark.filterwarnings("ignore:The following rank_pattern keys:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:The following alpha_pattern keys:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),  # of GPT-2
]

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

IDS = torch.arange(12).reshape(2, 6)
SIZES = {
    "vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "pad_token_id": 0,
}  # fmt: skip
GROUPED = {**SIZES, "intermediate_size": 40, "num_key_value_heads": 2}
QWEN = {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 12, "head_dim": 6}


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits.double().numpy()


def tuned(model, **settings):
    """PEFT's random adapter of a model."""
    torch.manual_seed(0)
    model = peft.get_peft_model(model, peft.LoraConfig(r=3, lora_alpha=6, **settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn_like(parameter))
    return model


def loaded(kind, folder, adapter):
    base = getattr(transformers, kind).from_pretrained(folder / "base")
    return peft.PeftModel.from_pretrained(base, adapter)


def llama_as_phi(llama):
    """A Phi-3 with the weights of a Llama, and so the same function."""
    phi = transformers.Phi3ForCausalLM(transformers.Phi3Config(**GROUPED))
    weights = llama.state_dict()
    for fused, parts in (("self_attn.qkv", "qkv"), ("mlp.gate_up", ("gate", "up"))):
        at, _, last = fused.partition(".")
        for i in range(2):
            names = [f"model.layers.{i}.{at}.{part}_proj.weight" for part in parts]
            whole = torch.cat([weights.pop(name) for name in names])
            weights[f"model.layers.{i}.{at}.{last}_proj.weight"] = whole
    phi.load_state_dict(weights)
    return phi


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], "all-linear"], ids=str)
def test_an_adapter_of_a_llama_is_one_of_the_same_model_as_a_phi_3(targets, tmp_path):
    torch.manual_seed(1)
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(**GROUPED, rms_norm_eps=1e-5))
    phi = llama_as_phi(llama)
    np.testing.assert_allclose(logits(phi), logits(llama), atol=1e-5)
    phi.save_pretrained(tmp_path / "base")
    llama.save_pretrained(tmp_path / "llama")
    model = tuned(llama, target_modules=targets)
    model.save_pretrained(tmp_path / "parts")
    adapters.convert(tmp_path / "parts", tmp_path / "whole", to="peft", base=tmp_path / "base")
    wanted, exact = logits(model), logits(torch_in_double(model))
    found = logits(loaded("Phi3ForCausalLM", tmp_path, tmp_path / "whole"))
    assert_as_near(found, wanted, exact)
    adapters.convert(tmp_path / "whole", tmp_path / "again", to="peft", base=tmp_path / "llama")
    base = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "llama")
    assert_as_near(logits(peft.PeftModel.from_pretrained(base, tmp_path / "again")), wanted, exact)


def neox(output, q, k, v, heads=4):
    """The layer's own view of its outputs: each head has q, k and v."""
    parts = torch.stack([x.unflatten(-1, (heads, -1)) for x in (q, k, v)], dim=3)
    return output + parts.flatten(-3)


def falcon(output, q, k, v, groups=2):
    parts = [x.unflatten(-1, (groups, -1)) for x in (q, k, v)]
    return output + torch.cat(parts, dim=-1).flatten(-2)


def in_a_row(output, q, k, v):
    return output + torch.cat([q, k, v], dim=-1)


MODELS = {
    "gpt_neox": ("GPTNeoXForCausalLM", {**SIZES, "intermediate_size": 40}, neox, (24, 24, 24)),
    "bloom": ("BloomForCausalLM", {**SIZES, "n_layer": 2, "n_head": 4}, neox, (24, 24, 24)),
    "falcon": ("FalconForCausalLM", {**SIZES, "new_decoder_architecture": True, "num_kv_heads": 2},
               falcon, (24, 12, 12)),
    "falcon, one head of keys": ("FalconForCausalLM", SIZES, in_a_row, (24, 6, 6)),
    "gpt2": ("GPT2LMHeadModel", {"vocab_size": 61, "n_positions": 16, "n_embd": 24, "n_layer": 2,
                                 "n_head": 4}, in_a_row, (24, 24, 24)),
    "phi3": ("Phi3ForCausalLM", GROUPED, in_a_row, (24, 12, 12)),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_updates_of_q_k_and_v_act_as_in_the_layer_itself(name, tmp_path):
    kind, config, add, sizes = MODELS[name]
    torch.manual_seed(1)
    model = getattr(transformers, kind)(getattr(transformers, kind).config_class(**config))
    model.save_pretrained(tmp_path / "base")
    plain = logits(model)
    base = open_base(tmp_path / "base")
    names = [part for part in pieces_of(base) if not part.endswith(("gate_proj", "up_proj"))]
    assert len(names) == 6
    rng = np.random.default_rng(0)
    drawn = {}
    for part in names:
        d = sizes["qkv".index(part.rpartition(".")[2][0])]
        A, B = rng.standard_normal((2, 24)) / 5, rng.standard_normal((d, 2)) / 5
        drawn[part] = AdapterModule.of(A=A, B=B, alpha=3.0, dtype="float32")
    adapters.save(adapters.Adapter(drawn), tmp_path / "parts")
    adapters.convert(tmp_path / "parts", tmp_path / "whole", to="peft", base=tmp_path / "base")

    def hook(module, inputs, output, owner):
        deltas = [torch.from_numpy(drawn[part].delta()).to(inputs[0].dtype) for part in owner]
        return add(output, *(inputs[0] @ delta.T for delta in deltas))

    for i in range(0, 6, 3):
        owner = names[i : i + 3]
        layer = model.get_submodule(pieces_of(base)[owner[0]][0])
        layer.register_forward_hook(lambda m, x, y, owner=owner: hook(m, x, y, owner))
    wanted = logits(model)
    assert np.abs(wanted - plain).max() > 0.01
    found = logits(loaded(kind, tmp_path, tmp_path / "whole"))
    assert_as_near(found, wanted, logits(torch_in_double(model)))


MIXTURES = {
    "mixtral": ("MixtralForCausalLM", {**GROUPED, "num_local_experts": 3}),
    "qwen3_moe": ("Qwen3MoeForCausalLM", {**GROUPED, **QWEN}),
}
EXPERTS = ["experts.gate_up_proj", "experts.down_proj"]


@pytest.fixture(params=MIXTURES)
def mixture(request, tmp_path):
    """A base on the disk, and beside it PEFT's adapter of its experts and queries."""
    kind, config = MIXTURES[request.param]
    torch.manual_seed(1)
    model = getattr(transformers, kind)(getattr(transformers, kind).config_class(**config))
    model.save_pretrained(tmp_path / "base")
    plain = logits(model)
    model = tuned(model, target_modules=["q_proj"], target_parameters=EXPERTS)
    model.save_pretrained(tmp_path / "fused")
    wanted = logits(model)
    assert np.abs(wanted - plain).max() > 0.01
    return kind, tmp_path, wanted, logits(torch_in_double(model))


def test_experts_one_by_one_and_fused_have_the_logits_of_peft(mixture):
    kind, folder, wanted, exact = mixture
    base = folder / "base"
    adapters.convert(folder / "fused", folder / "vllm", to="vllm", base=base)
    names = [*adapters.load(folder / "vllm")]
    assert sum(".experts." in name for name in names) == 2 * 3 * 3
    assert_as_near(logits(loaded(kind, folder, folder / "vllm")), wanted, exact)
    adapters.convert(folder / "vllm", folder / "again", to="peft", base=base)
    assert {*adapters.load(folder / "again")} == {*adapters.load(folder / "fused")}
    assert_as_near(logits(loaded(kind, folder, folder / "again")), wanted, exact)


@pytest.mark.parametrize("layout", ["megatron", "stacked", "flat"])
def test_layouts_of_other_programs_become_what_peft_loads(mixture, layout):
    kind, folder, wanted, exact = mixture
    path = folder / "fused" / "adapter_model.safetensors"
    file = safetensors.open(path)
    tensors, keys = {}, {}
    for key in file.tensors:
        x = file.read(key)
        if ".experts" in key:
            rows = x.reshape(3, -1, x.shape[-1]) if "lora_A" in key else x.reshape(len(x), -1, 3)
            x = x if layout == "flat" else rows
            if layout == "megatron":
                end = "gate_up_proj" if "base_layer" in key else "down_proj"
                keys[key] = key.replace(".base_layer", "").replace("experts", f"experts.{end}")
                x = x if "lora_A" in key else x.transpose(2, 0, 1)
        tensors[keys.get(key, key)] = np.ascontiguousarray(x)
    safetensors.save(tensors, path)
    config = folder / "fused" / "adapter_config.json"
    if layout == "flat":
        said = json.loads(config.read_text())
        config.write_text(
            json.dumps({**said, "target_parameters": None, "target_modules": ["q_proj", "experts"]})
        )
    with pytest.warns(UserWarning, match="experts stacked as in another program"):
        adapters.load(folder / "fused")
    assert not adapters.check(folder / "fused", runtime="peft", base=folder / "base").fine
    adapters.repair(folder / "fused", folder / "new", base=folder / "base")
    assert_as_near(logits(loaded(kind, folder, folder / "new")), wanted, exact)
