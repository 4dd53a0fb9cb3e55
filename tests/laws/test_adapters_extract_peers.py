"""What `extract` writes is judged by logits: PEFT with it on the base, against the tuned model."""

import itertools
import re

import numpy as np
import pytest

from lora_np import adapters
from lora_np.files import FileError
from lora_np.hub import safetensors
from lora_np.models import open_model
from tests.drawing import few

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

TEXT = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 40, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
VISION = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
}
VISION |= {"image_size": 28, "patch_size": 14}
EXPERTS = {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
CASES = {
    "llama": ("LlamaForCausalLM", {}),
    "tied": ("LlamaForCausalLM", {"tie_word_embeddings": True}),
    "gemma3_text": ("Gemma3ForCausalLM", {"model_type": "gemma3_text"}),
    "qwen3_moe": ("Qwen3MoeForCausalLM", EXPERTS),
    "qwen2_moe": (
        "Qwen2MoeForCausalLM",
        {**EXPERTS, "shared_expert_intermediate_size": 12, "head_dim": None},
    ),
    "mixtral": ("MixtralForCausalLM", {"num_local_experts": 3}),
    "gpt_oss": ("GptOssForCausalLM", {"num_local_experts": 3, "num_experts_per_tok": 2}),
    "square": (  # in gate_up_proj inputs are as many as outputs
        "GptOssForCausalLM",
        {
            "num_local_experts": 3,
            "num_experts_per_tok": 2,
            "hidden_size": 48,
            "model_type": "gpt_oss",
        },
    ),
    "gemma3": ("Gemma3ForConditionalGeneration", {"mm_tokens_per_image": 4}),
    "llava": ("LlavaForConditionalGeneration", {}),
}


def build(case):
    import transformers

    name, fields = CASES[case]
    family = fields.get("model_type") or {"tied": "llama"}.get(case, case)
    fields = {
        key: field for key, field in fields.items() if key != "model_type" and field is not None
    }
    if case in ("gemma3", "llava"):
        text = transformers.AutoConfig.for_model(
            "gemma3_text" if case == "gemma3" else "llama", **TEXT
        )
        seen = "siglip_vision_model" if case == "gemma3" else "clip_vision_model"
        vision = transformers.AutoConfig.for_model(seen, **VISION)
        config = transformers.AutoConfig.for_model(
            family, text_config=text, vision_config=vision, **fields
        )
    else:
        config = transformers.AutoConfig.for_model(family, **{**TEXT, **fields})
    config.tie_word_embeddings = case in ("tied", "gemma3_text", "gemma3")
    return getattr(transformers, name)(config).eval()


@pytest.fixture
def saved(tmp_path, request):
    """A base and a tuned model, and what their logits are."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = build(request.param)
    model.save_pretrained(tmp_path / "base")
    ids = torch.arange(4, 12)[None]
    with torch.no_grad():
        before = model(input_ids=ids).logits.numpy()
        for name, parameter in model.named_parameters():
            if parameter.ndim in (2, 3) and "vision" not in name and not name.endswith("bias"):
                *stack, d, k = parameter.shape
                parameter += 0.05 * torch.randn(*stack, d, 2) @ torch.randn(*stack, 2, k)
        after = model(input_ids=ids).logits.numpy()
    model.save_pretrained(tmp_path / "tuned")
    assert np.abs(after - before).max() > 0.01
    return tmp_path, type(model), ids, before, after


def with_peft(saved, adapter, merged=False):
    import torch
    from peft import PeftModel

    folder, kind, ids, *_ = saved
    base = kind.from_pretrained(folder / "base")
    model = PeftModel.from_pretrained(base, folder / adapter).eval()
    model = model.merge_and_unload() if merged else model
    with torch.no_grad():
        return model(input_ids=ids).logits.numpy()


@pytest.mark.parametrize("saved", CASES, indirect=True)
@pytest.mark.parametrize("goal", [{"rank": 32}, {"rank": 2}, {"energy": 0.999999}], ids=str)
def test_the_base_with_the_adapter_is_the_tuned_model(saved, goal):
    import torch

    folder, kind, ids, before, after = saved
    found = adapters.extract(folder / "base", folder / "tuned", folder / "adapter", **goal)
    close = 2e-3 * np.abs(after - before).max()
    np.testing.assert_allclose(with_peft(saved, "adapter"), after, atol=close)
    tied = any("PEFT's own merge" in note for note in found.notes)
    assert tied == ("lm_head.weight" not in open_model(folder / "base").parameters)
    if not tied:
        np.testing.assert_allclose(with_peft(saved, "adapter", merged=True), after, atol=close)
    adapters.merge(folder / "base", folder / "adapter", folder / "merged")
    with torch.no_grad():
        merged = kind.from_pretrained(folder / "merged").eval()(input_ids=ids).logits.numpy()
    np.testing.assert_allclose(merged, after, atol=close)
    assert all(row.kept == "LoRA" for row in found.rows if row.name.endswith(".weight"))


WHISPER = {
    "vocab_size": 40, "num_mel_bins": 8, "encoder_layers": 1, "decoder_layers": 1, "d_model": 16,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16, "max_source_positions": 8, "max_target_positions": 16,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3,
    "suppress_tokens": [], "begin_suppress_tokens": [],
}  # fmt: skip
GPT2 = {"vocab_size": 40, "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2}
WHOLE = {  # a class, its config, and what has to be saved in full
    "qwen2": ("Qwen2ForCausalLM", {**TEXT, "tie_word_embeddings": False}, "norm"),
    "llama, tied": ("LlamaForCausalLM", {**TEXT, "tie_word_embeddings": True}, "norm"),
    "gpt2": ("GPT2LMHeadModel", GPT2, "ln_"),
    "whisper": ("WhisperForConditionalGeneration", WHISPER, r"layer_norm|conv|embed_positions"),
}
CHANGES = {
    "everything": ".*",
    "biases": r"bias$",
    "norms": r"norm|ln_",
    "some biases and matrices": r"(q_proj|v_proj|c_attn|fc1)\.",
}


def tuned(folder, case, changes, tokens=0):
    """A base on disk, one with changes and perhaps new tokens, and the latter's logits."""
    import torch
    import transformers

    torch.manual_seed(0)
    name, fields, _ = WHOLE[case]
    kind = getattr(transformers, name)
    model = kind(kind.config_class(**fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    model.save_pretrained(folder / "base")
    size = fields["vocab_size"] + tokens
    if tokens:
        model.resize_token_embeddings(size)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if re.search(changes, key) and "embed_positions" not in key:
                if parameter.ndim == 2 and not re.search("wte|embed|lm_head", key):
                    d, k = parameter.shape
                    parameter += 0.05 * torch.randn(d, 2) @ torch.randn(2, k)
                elif parameter.ndim == 1:
                    parameter += 0.1 * torch.randn_like(parameter)
        if tokens:
            for table in {model.get_input_embeddings(), model.get_output_embeddings()}:
                table.weight[-tokens:] = 0.2 * torch.randn_like(table.weight[-tokens:])
                table.weight[5] += 0.1
    model.save_pretrained(folder / "tuned")
    ids = torch.arange(size - 8, size)[None]
    inputs = {"input_ids": ids}
    if case == "whisper":
        inputs = {"input_features": torch.randn(1, 8, 16), "decoder_input_ids": ids}

    def logits(model):
        with torch.no_grad():
            return model.eval()(**inputs).logits.numpy()

    return kind, logits, logits(model)


def check_complete(folder, kind, logits, wanted, size):
    from peft import PeftModel

    base = kind.from_pretrained(folder / "base")
    if size != base.config.vocab_size:
        base.resize_token_embeddings(size, mean_resizing=False)
    adapted = logits(PeftModel.from_pretrained(base, folder / "adapter"))
    np.testing.assert_allclose(adapted, wanted, atol=2e-4)
    adapters.merge(folder / "base", folder / "adapter", folder / "merged")
    merged = kind.from_pretrained(folder / "merged")
    assert merged.config.vocab_size == size
    np.testing.assert_allclose(logits(merged), wanted, atol=2e-4)


@pytest.mark.parametrize(("case", "changes"), few(itertools.product(WHOLE, CHANGES), 3))
def test_a_complete_extraction_is_the_fine_tuned_model(case, changes, tmp_path):
    kind, logits, wanted = tuned(tmp_path, case, CHANGES[changes])
    if case == "llama, tied" and changes == "biases":
        with pytest.raises(FileError, match="no weight matrix differs"):  # it has none
            extract(tmp_path)
        return
    made = extract(tmp_path)
    check_complete(tmp_path, kind, logits, wanted, 40)
    full = [row.name for row in made.rows if row.kept == "in full"]
    assert all(re.search(WHOLE[case][2], name) for name in full), full
    assert not [row for row in made.rows if row.kept == "not kept"]
    parts = made.parts.records
    assert abs(sum(row["share of change"] for row in parts) - 1) < 1e-9
    assert sum(row["share kept"] for row in parts) > 1 - 1e-6
    file = safetensors.open(tmp_path / "adapter" / "adapter_model.safetensors")
    idle = any("a zero update" in note for note in made.notes)
    assert idle == all(row.kept != "LoRA" for row in made.rows)
    zeros = sum(np.prod(x.shape) for key, x in file.tensors.items() if "lora_" in key) * idle
    numbers = sum(np.prod(x.shape) for x in file.tensors.values())
    assert numbers == zeros + sum(row.parameters for row in made.rows)


@pytest.mark.parametrize("case", ["qwen2", "llama, tied", "gpt2"])
def test_new_tokens_are_kept_as_rows(case, tmp_path):
    kind, logits, wanted = tuned(tmp_path, case, ".*", tokens=3)
    made = extract(tmp_path)
    check_complete(tmp_path, kind, logits, wanted, 43)
    rows = [row for row in made.rows if row.kept == "rows"]
    assert len(rows) == (2 if case == "qwen2" else 1)
    assert [row.parameters for row in rows] == [4 * 16] * len(rows)


def extract(folder):
    base, tuned = folder / "base", folder / "tuned"
    return adapters.extract(base, tuned, folder / "adapter", rank=2, save_others=True)
