"""Adapters of a larger vocabulary: merged over the smaller base, they are what PEFT computes."""

import json

import numpy as np
import pytest

from lora_np import adapters
from lora_np.files import FileError
from lora_np.hub import safetensors

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

SMALL = {
    "vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 24, "num_key_value_heads": 2, "pad_token_id": 0,
}  # fmt: skip
GPT2 = {"vocab_size": 61, "n_positions": 16, "n_embd": 24, "n_layer": 2, "n_head": 4}
BASES = {
    "untied": ("LlamaForCausalLM", {**SMALL, "tie_word_embeddings": False}, "model.embed_tokens"),
    "tied": ("Qwen2ForCausalLM", {**SMALL, "tie_word_embeddings": True}, "model.embed_tokens"),
    "gpt2": ("GPT2LMHeadModel", GPT2, "transformer.wte"),
}
QV = {"target_modules": ["q_proj", "v_proj", "c_attn"]}
WAYS = {
    "saved because they were resized": QV,
    "modules_to_save": {**QV, "modules_to_save": ["embed_tokens", "lm_head"]},
    "LoRA on the embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "token rows": {**QV, "trainable_token_indices": {"embed_tokens": [3, *range(61, 67)]}},
}


def trained(folder, case, settings, size=67):
    """A base on disk, and an adapter that PEFT wrote for it with another vocabulary."""
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    name, fields, _ = BASES[case]
    kind = getattr(transformers, name)
    kind(kind.config_class(**fields)).save_pretrained(folder / "base")
    model = kind.from_pretrained(folder / "base")
    model.resize_token_embeddings(size)
    model = get_peft_model(model, LoraConfig(r=4, **settings)).eval()
    ids = torch.arange(size - 12, size)[None]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
        logits = model(input_ids=ids).logits.numpy()
    model.save_pretrained(folder / "adapter")
    return kind, ids, logits


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", BASES)
def test_a_larger_vocabulary_merges_over_the_smaller_base(case, way, tmp_path):
    import torch

    if case == "gpt2" and way != "saved because they were resized":
        pytest.skip("names of other models")
    kind, ids, logits = trained(tmp_path, case, WAYS[way])
    if case == "untied" and way == "LoRA on the embedding":  # PEFT does not save the head's rows
        with pytest.raises(FileError, match="no new rows for 'lm_head.weight'"):
            adapters.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged")
        return
    merged = adapters.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged")
    model = kind.from_pretrained(tmp_path / "merged").eval()
    with torch.no_grad():
        ours = model(input_ids=ids).logits.numpy()
    np.testing.assert_allclose(ours, logits, atol=1e-4)
    assert model.config.vocab_size == 67
    assert any("67 tokens now, 61 in the base" in note for note in merged.notes)
    again = adapters.convert(tmp_path / "adapter", tmp_path / "copy", to="peft")
    assert len(again.rows) == len(adapters.load(tmp_path / "adapter"))
    adapters.merge(tmp_path / "base", tmp_path / "copy", tmp_path / "both")
    with torch.no_grad():
        ours = kind.from_pretrained(tmp_path / "both").eval()(input_ids=ids).logits.numpy()
    np.testing.assert_allclose(ours, logits, atol=1e-4)
    for to, out in {"gguf": "a.gguf", "mlx": "mlx"}.items():
        with pytest.raises(FileError, match="is replaced in|names are known for models of"):
            adapters.convert(tmp_path / "adapter", tmp_path / out, to=to, base=tmp_path / "base")


def test_a_smaller_vocabulary_merges_too(tmp_path):
    import torch

    kind, ids, logits = trained(tmp_path, "untied", QV, size=50)
    adapters.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged")
    with torch.no_grad():
        ours = kind.from_pretrained(tmp_path / "merged").eval()(input_ids=ids).logits.numpy()
    np.testing.assert_allclose(ours, logits, atol=1e-4)


def test_a_table_that_has_not_grown_is_named(tmp_path):
    trained(tmp_path, "untied", QV)
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    file = safetensors.open(path)
    kept = {key: file.read(key) for key in file.tensors if "lm_head" not in key}
    safetensors.save(kept, path, metadata={"format": "pt"})
    with pytest.raises(FileError, match=r"67 tokens, .* 61, and no new rows for 'lm_head.weight'"):
        adapters.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
