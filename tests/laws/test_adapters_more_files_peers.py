"""Files that PEFT and diffusers load and that say a thing in an unusual way: their logits are ours."""

import json
import warnings

import numpy as np
import pytest

import lora_np as lnp
from lora_np import adapters
from tests.rounding import assert_as_near, torch_in_double

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # between PEFT and transformers
    pytest.mark.filterwarnings("ignore:Unexpected keyword arguments:UserWarning"),
]

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
files = pytest.importorskip("safetensors.torch")

IDS = torch.arange(12).reshape(2, 6)
SIZES = {
    "vocab_size": 61, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
    "num_attention_heads": 4,
}  # fmt: skip


def bert(kind="BertForSequenceClassification"):
    config = getattr(transformers, kind).config_class
    return getattr(transformers, kind)(config(**SIZES, num_labels=3, max_position_embeddings=16))


def llama():
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**SIZES, num_key_value_heads=2, attention_bias=True)
    )


def saved(folder, base, settings):
    """A base on the disk, and beside it PEFT's random adapter of it; PEFT's model."""
    torch.manual_seed(0)
    base.save_pretrained(folder / "base")
    model = peft.get_peft_model(base, peft.LoraConfig(r=4, lora_alpha=8, **settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad or "lora_" in name:
                parameter.copy_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder / "adapter")
    return model


def logits(model, ids=IDS):
    with torch.no_grad():
        return model.eval()(ids).logits.double().numpy()


def by_peft(folder, kind, name="adapter"):
    base = getattr(transformers, kind).from_pretrained(folder / "base")
    return peft.PeftModel.from_pretrained(base, folder / name)


def assert_merged_as_peft_has_it(folder, kind):
    adapters.merge(folder / "base", folder / "adapter", folder / "merged")
    model = by_peft(folder, kind)
    ours = getattr(transformers, kind).from_pretrained(folder / "merged")
    assert_as_near(logits(ours), logits(model), logits(torch_in_double(model)))
    return model


@pytest.mark.parametrize(
    "kind", ["BertForSequenceClassification", "RobertaForSequenceClassification"]
)
@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_trained_biases_beside_a_trained_head_are_taken_once(tmp_path, kind, bias):
    settings = {"target_modules": ["query", "value"], "task_type": "SEQ_CLS", "bias": bias}
    model = saved(tmp_path, bert(kind), settings)
    np.testing.assert_array_equal(logits(by_peft(tmp_path, kind)), logits(model))
    assert_merged_as_peft_has_it(tmp_path, kind)
    adapters.save(adapters.load(tmp_path / "adapter"), tmp_path / "again")
    np.testing.assert_array_equal(logits(by_peft(tmp_path, kind, "again")), logits(model))


@pytest.mark.parametrize("content", [True, 3, "on"])
def test_a_setting_that_peft_ignores_is_ignored(tmp_path, content):
    saved(tmp_path, llama(), {"target_modules": ["q_proj", "down_proj"]})
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_surprise": content}))
    with pytest.warns(UserWarning, match="use_surprise"):
        assert_merged_as_peft_has_it(tmp_path, "LlamaForCausalLM")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_factors_in_eight_bits_are_those_that_peft_loads(tmp_path, dtype):
    saved(tmp_path, llama(), {"target_modules": "all-linear"})
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = {key: tensor.to(dtype) for key, tensor in files.load_file(path).items()}
    files.save_file(tensors, path, metadata={"format": "pt"})
    assert_merged_as_peft_has_it(tmp_path, "LlamaForCausalLM")


def test_an_alora_is_counted_and_resized_as_peft_runs_it(tmp_path):
    ids = torch.tensor([[5, 9, 7, 3, 11, 4], [7, 3, 2, 8, 7, 3]])
    settings = {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    model = saved(tmp_path, llama(), {**settings, "alora_invocation_tokens": [7, 3]})
    counted = lnp.count(tmp_path / "base", config=tmp_path / "adapter")
    assert (counted.trainable, counted.total) == model.get_nb_trainable_parameters()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter[:, 2:] = 0  # of rank 2, in four directions
    model.save_pretrained(tmp_path / "adapter")
    adapters.resize(tmp_path / "adapter", tmp_path / "small", rank=2)
    wanted, base = logits(model, ids), transformers.LlamaForCausalLM
    ours = logits(by_peft(tmp_path, "LlamaForCausalLM", "small"), ids)
    assert_as_near(ours, wanted, logits(torch_in_double(model), ids))
    plain = logits(base.from_pretrained(tmp_path / "base"), ids)
    np.testing.assert_array_equal(wanted[0, :2], plain[0, :2])  # before the invocation
    assert np.abs(wanted[0, 2:] - plain[0, 2:]).max() > 0.01


@pytest.mark.parametrize("shards", [None, "20KB"])
def test_a_folder_of_diffusers_is_merged_into(tmp_path, shards):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    model = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), cross_attention_dim=12,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=4,
    )  # fmt: skip
    model.save_pretrained(tmp_path / "base", **({"max_shard_size": shards} if shards else {}))
    targets = ["to_q", "to_v", "to_out.0", "conv1"]
    tuned = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=targets))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn_like(parameter))
    tuned.save_pretrained(tmp_path / "adapter")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapters.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged")
    ours = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "merged")
    inputs = torch.randn(1, 4, 8, 8), torch.tensor(3), torch.randn(1, 5, 12)
    with torch.no_grad():
        found, wanted = ours.eval()(*inputs).sample, tuned.eval()(*inputs).sample
        exact = torch_in_double(tuned)(
            *(x.double() if x.is_floating_point() else x for x in inputs)
        )
        before = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "base")(*inputs).sample
    assert_as_near(found.numpy(), wanted.numpy(), exact.sample.numpy())
    assert float((wanted - before).abs().max()) > 0.01
