"""What `extract` writes is judged by logits: PEFT with it on the base, against the tuned model."""

import numpy as np
import pytest

from lora_np import adapters
from lora_np.models import open_model

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
