"""Adapters of a larger vocabulary: merged over the smaller base, they are what PEFT computes."""

import itertools
import json

import numpy as np
import pytest

from lora_np import adapters
from lora_np.accounting import count
from lora_np.files import FileError
from lora_np.hub import safetensors
from tests.drawing import few

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

SMALL = {
    "vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 24, "num_key_value_heads": 2, "pad_token_id": 0,
}  # fmt: skip
GPT2 = {"vocab_size": 61, "n_positions": 16, "n_embd": 24, "n_layer": 2, "n_head": 4}
BASES = {
    "untied": ("LlamaForCausalLM", {**SMALL, "tie_word_embeddings": False}),
    "tied": ("Qwen2ForCausalLM", {**SMALL, "tie_word_embeddings": True}),
    "gpt2": ("GPT2LMHeadModel", GPT2),
}
QV = {"target_modules": ["q_proj", "v_proj"]}
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
    name, fields = BASES[case]
    settings = {"target_modules": ["c_attn"]} if case == "gpt2" else settings
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


CASES = [
    *((case, way) for case, way in itertools.product(BASES, WAYS) if case != "gpt2"),
    ("gpt2", "saved because they were resized"),
]


@pytest.mark.parametrize(("case", "way"), few(CASES, 2))
def test_a_larger_vocabulary_merges_over_the_smaller_base(case, way, tmp_path):
    import torch

    kind, ids, logits = trained(tmp_path, case, WAYS[way])
    if case == "untied" and way == "LoRA on the embedding":  # PEFT does not save the head's rows
        with pytest.raises(FileError, match=r"no new rows for 'lm_head\.weight'"):
            adapters.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged")
        return
    merged = adapters.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged")
    model = kind.from_pretrained(tmp_path / "merged").eval()
    with torch.no_grad():
        ours = model(input_ids=ids).logits.numpy()
    np.testing.assert_allclose(ours, logits, atol=1e-4)
    assert model.config.vocab_size == 67
    assert any("now has 67 tokens (61 in the base)" in note for note in merged.notes)
    again = adapters.convert(tmp_path / "adapter", tmp_path / "copy", to="peft")
    assert len(again.rows) == len(adapters.load(tmp_path / "adapter"))
    adapters.merge(tmp_path / "base", tmp_path / "copy", tmp_path / "both")
    with torch.no_grad():
        ours = kind.from_pretrained(tmp_path / "both").eval()(input_ids=ids).logits.numpy()
    np.testing.assert_allclose(ours, logits, atol=1e-4)
    for to, out in {"gguf": "a.gguf", "mlx": "mlx"}.items():
        with pytest.raises(
            FileError, match=r"is replaced in|names are known for models of|is a tied weight"
        ):
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


@pytest.mark.parametrize("task", ["SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS"])
def test_the_task_of_an_adapter_selects_the_class_that_is_counted(task, tmp_path):
    import transformers
    from peft import LoraConfig, get_peft_model

    kind = {
        "SEQ_CLS": "LlamaForSequenceClassification",
        "TOKEN_CLS": "LlamaForTokenClassification",
        "QUESTION_ANS": "LlamaForQuestionAnswering",
    }[task]
    config = transformers.LlamaConfig(**SMALL)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    model = getattr(transformers, kind).from_pretrained(tmp_path / "base")
    settings = LoraConfig(r=4, target_modules=["q_proj"], task_type=task)
    model = get_peft_model(model, settings)
    model.save_pretrained(tmp_path / "adapter")
    counted = count(tmp_path / "base", config=tmp_path / "adapter")
    assert (counted.trainable, counted.total) == model.get_nb_trainable_parameters()


def test_a_larger_vocabulary_is_counted_as_the_file_has_it(tmp_path):
    from peft import PeftModel

    kind, *_ = trained(tmp_path, "untied", WAYS["modules_to_save"])
    base = kind.from_pretrained(tmp_path / "base")
    base.resize_token_embeddings(67)
    model = PeftModel.from_pretrained(base, tmp_path / "adapter", is_trainable=True)
    counted = count(tmp_path / "base", config=tmp_path / "adapter")
    assert (counted.trainable, counted.total) == model.get_nb_trainable_parameters()


@pytest.mark.parametrize("name", ["model.embed_tokens_per_layer", "model.embed_tokens"])
def test_embeddings_read_from_mlx_have_the_logits_of_peft(name, tmp_path):
    """mlx-lm's ``lora_a @ lora_b`` is of tokens by outputs; both are as many here."""
    import torch
    import transformers
    from peft import PeftModel

    torch.manual_seed(0)
    config = transformers.Gemma3nTextConfig(
        vocab_size=48, vocab_size_per_layer_input=48, hidden_size=48, num_hidden_layers=2,
        hidden_size_per_layer_input=24, intermediate_size=48, num_attention_heads=2,
        num_key_value_heads=1, head_dim=24, num_kv_shared_layers=0, layer_types=["full_attention"] * 2,
        tie_word_embeddings=False, activation_sparsity_pattern=[0.0, 0.0],
    )  # fmt: skip
    model = transformers.Gemma3nForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    model.save_pretrained(tmp_path / "base")
    a, b = torch.randn(48, 2), torch.randn(2, 48)
    (tmp_path / "mlx").mkdir()
    tensors = {f"{name}.lora_a": a.numpy(), f"{name}.lora_b": b.numpy()}
    safetensors.save(tensors, tmp_path / "mlx" / "adapters.safetensors")
    settings = {"fine_tune_type": "lora", "lora_parameters": {"scale": 0.5, "rank": 2}}
    (tmp_path / "mlx" / "adapter_config.json").write_text(json.dumps(settings))
    adapters.convert(tmp_path / "mlx", tmp_path / "peft", to="peft", base=tmp_path / "base")
    ids = torch.arange(8)[None]
    with torch.no_grad():
        model.get_submodule(name).weight += 0.5 * a @ b
        wanted = model(input_ids=ids).logits.numpy()
        base = transformers.Gemma3nForCausalLM.from_pretrained(tmp_path / "base").eval()
        before = base(input_ids=ids).logits.numpy()
        tuned = PeftModel.from_pretrained(base, tmp_path / "peft").eval()
        np.testing.assert_allclose(tuned(input_ids=ids).logits.numpy(), wanted, atol=1e-3)
    assert np.abs(wanted - before).max() > 0.05


@pytest.mark.parametrize("inner", [8, 12], ids=["square", "rectangular"])
def test_stacked_experts_are_turned_as_transformers_turns_them(inner, tmp_path):
    """It transposes a tensor only if its shape is not that of the live parameter."""
    import torch
    import transformers
    from peft import LoraConfig, PeftModel, get_peft_model

    torch.manual_seed(0)
    text = {
        "vocab_size": 40, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "num_experts": 3,
        "num_experts_per_tok": 2, "moe_intermediate_size": inner, "pad_token_id": 0,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e4},
    }  # fmt: skip
    vision = {
        "hidden_size": 8,
        "depth": 1,
        "num_heads": 1,
        "intermediate_size": 8,
        "out_hidden_size": 16,
    }
    config = transformers.Qwen3VLMoeConfig(text_config=text, vision_config=vision)
    kind, ids = transformers.Qwen3VLMoeForConditionalGeneration, torch.arange(4, 12)[None]
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
        model.save_pretrained(tmp_path / "base")
        before = model(input_ids=ids).logits.numpy()
        names = ["experts.gate_up_proj", "experts.down_proj"]
        model = get_peft_model(model, LoraConfig(r=2, target_modules=[], target_parameters=names))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.5)
        wanted = model.eval()(input_ids=ids).logits.numpy()
        model.save_pretrained(tmp_path / "adapter")
        adapters.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged")
        ours = kind.from_pretrained(tmp_path / "merged").eval()(input_ids=ids).logits.numpy()
        np.testing.assert_allclose(ours, wanted, atol=2e-4)
        assert np.abs(wanted - before).max() > 0.1
        if inner != 8:  # as the first checkpoints have them
            file = safetensors.open(tmp_path / "base" / "model.safetensors")
            transposed = {
                name: file.read(name).swapaxes(1, 2) if ".experts." in name else file.read(name)
                for name in file.tensors
            }
            safetensors.save(
                transposed, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"}
            )
            adapters.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "old")
            ours = kind.from_pretrained(tmp_path / "old").eval()(input_ids=ids).logits.numpy()
            np.testing.assert_allclose(ours, wanted, atol=2e-4)
        tuned = kind.from_pretrained(tmp_path / "merged")
        tuned.save_pretrained(tmp_path / "tuned")
        kind.from_pretrained(tmp_path / "base").save_pretrained(tmp_path / "base2")
        adapters.extract(tmp_path / "base2", tmp_path / "tuned", tmp_path / "back", rank=2)
        model = PeftModel.from_pretrained(
            kind.from_pretrained(tmp_path / "base2"), tmp_path / "back"
        )
        np.testing.assert_allclose(model.eval()(input_ids=ids).logits.numpy(), wanted, atol=5e-3)
