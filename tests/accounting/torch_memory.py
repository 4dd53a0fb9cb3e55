"""What PyTorch holds in a step of training, counted tensor by tensor."""

from __future__ import annotations

import importlib
import itertools
import warnings
import weakref
from typing import Any

from lora_np.accounting import LoraCount, count_model
from lora_np.models import ModelSpec, from_config
from lora_np.models.families import family_of

WIDE: dict[str, Any] = {
    "vocab_size": 331,
    "hidden_size": 96,
    "intermediate_size": 224,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {**WIDE, "num_key_value_heads": 2}
ROUTED = {
    **GROUPED,
    "moe_intermediate_size": 40,
    "num_experts": 8,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 72,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "image_size": 56,
    "patch_size": 14,
}
IMAGE = 300  # the token that stands for a patch

# (family, how the class name ends, fields)
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("ForCausalLM", GROUPED),
    "mistral": ("ForCausalLM", GROUPED),
    "qwen2": ("ForCausalLM", GROUPED),
    "qwen3": ("ForCausalLM", {**GROUPED, "head_dim": 20}),
    "gemma": ("ForCausalLM", {**GROUPED, "head_dim": 20}),
    "gemma2": ("ForCausalLM", {**GROUPED, "head_dim": 20}),
    "gemma3_text": ("ForCausalLM", {**GROUPED, "head_dim": 20}),
    "olmo2": ("ForCausalLM", GROUPED),
    "cohere": ("ForCausalLM", GROUPED),
    "phi": ("ForCausalLM", WIDE),
    "gpt_neox": ("ForCausalLM", WIDE),
    "opt": ("ForCausalLM", {**WIDE, "ffn_dim": 224, "word_embed_proj_dim": 96, "dropout": 0.0}),
    "gpt2": (
        "LMHeadModel",
        {
            "vocab_size": 331, "n_embd": 96, "n_layer": 3, "n_head": 6, "n_positions": 512,
            "resid_pdrop": 0.0, "attn_pdrop": 0.0, "embd_pdrop": 0.0,
        },
    ),
    "bert": ("ForMaskedLM", {**WIDE, **NO_DROPOUT}),
    "mixtral": ("ForCausalLM", {**ROUTED, "intermediate_size": 80}),
    "qwen3_moe": ("ForCausalLM", {**ROUTED, "head_dim": 20}),
    "olmoe": ("ForCausalLM", {**ROUTED, "intermediate_size": 40}),
    "llava": (
        "ForConditionalGeneration",
        {"text_config": {**GROUPED, "model_type": "llama"}, "vision_config": VISION, "image_token_id": IMAGE,
         "image_token_index": IMAGE, "vision_feature_layer": -1},
    ),
}  # fmt: skip


def pair(
    family: str, *, precision: str, targets: Any, attention: str, dora: bool = False
) -> tuple[Any, ModelSpec | LoraCount]:
    """A torch model in training and our count of it: in full if there are no targets, else with
    LoRA.
    """
    import peft
    import torch
    import transformers

    torch.set_num_threads(1)
    task, fields = MODELS[family]
    architecture = family_of(family).classes + task
    config = transformers.AutoConfig.for_model(family, **fields)
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        part._attn_implementation = "eager" if attention == "eager" else "sdpa"
    home = importlib.import_module(type(config).__module__.replace("configuration", "modeling"))
    model = getattr(home, architecture)(config).to(getattr(torch, precision)).train()
    spec = from_config({"model_type": family, **fields, "architectures": [architecture]})
    counted: ModelSpec | LoraCount = spec
    if targets is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = peft.get_peft_model(
                model, peft.LoraConfig(r=4, target_modules=targets, use_dora=dora)
            )
        counted = count_model(spec, rank=4, targets=targets, dora=dora)
    return model, counted


def checkpoint(model: Any) -> None:
    """Switch gradient checkpointing on."""
    model.zero_grad(set_to_none=True)
    with warnings.catch_warnings():  # transformers 6 will have another name for it
        warnings.simplefilter("ignore", FutureWarning)
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if hasattr(model, "peft_config"):
        model.enable_input_require_grads()


class _Saved:
    """What forward saved; autograd drops it with the graph, as with DoRA's norms before forward
    ends.
    """

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor


def measured(model: Any, family: str, batch: int, sequence: int) -> dict[str, int]:
    """Bytes by cause of a step with AdamW. ``activations`` and ``logits`` outlive forward;
    ``layer`` is the largest layer's share of them.
    """
    import torch
    from transformers.modeling_layers import GradientCheckpointingLayer

    tokens = torch.randint(3, 290, (batch, sequence))
    inputs = {"input_ids": tokens, "labels": tokens}
    if family == "llava":
        side = VISION["image_size"]
        tokens[:, : (side // VISION["patch_size"]) ** 2] = IMAGE
        inputs["pixel_values"] = torch.rand(batch, 3, side, side, dtype=model.dtype)
    known = {
        tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())
    }
    kept: weakref.WeakSet[_Saved] = weakref.WeakSet()

    def pack(tensor: Any) -> _Saved:
        saved = _Saved(tensor.detach())  # an output would hold the graph that holds it
        if tensor.untyped_storage().data_ptr() not in known:
            kept.add(saved)
        return saved

    def size(*_: Any) -> int:
        storages = [saved.tensor.untyped_storage() for saved in kept]
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    starts: list[int] = []
    layers: list[int] = []
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.register_forward_pre_hook(lambda *_: starts.append(size()))
            module.register_forward_hook(lambda *_: layers.append(size() - starts[-1]))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        loss = model(**inputs).loss
    after = size()
    loss.backward()
    logits = (
        MODELS[family][1].get("text_config", MODELS[family][1])["vocab_size"] * batch * sequence * 4
    )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    optimizer.step()
    state = [value for entry in optimizer.state.values() for value in entry.values() if value.dim()]
    return {
        "parameters": sum(parameter.nbytes for parameter in model.parameters()),
        "gradients": sum(
            parameter.grad.nbytes for parameter in trained if parameter.grad is not None
        ),
        "optimizer": sum(value.nbytes for value in state),
        "activations": after - logits,
        "logits": logits,
        "layer": max(layers, default=0),
    }


def peak(module: Any, inputs: Any) -> int:
    """The most bytes that the forward pass of ``module`` has allocated at a time."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        module(inputs)
    events = [
        event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"
    ]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(itertools.accumulate(sizes))
