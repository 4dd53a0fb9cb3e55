"""What PEFT trains, trained on here: the same logits, the same numbers, the same gradients, and
back.
"""

import numpy as np
import pytest

import lora_np as lnp
from lora_np import adapters, language
from tests.rounding import assert_near, in_double

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

TOKENS = np.array([[4, 9, 5, 7, 8, 6, 9, 3]])
SMALL = {
    "vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 40,
}  # fmt: skip
BASES = {
    "llama": (transformers.LlamaConfig, {**SMALL, "attention_bias": True}),
    "tied": (transformers.Qwen2Config, {**SMALL, "tie_word_embeddings": True}),
}
QV = ["q_proj", "v_proj"]
CASES = [
    ("llama", {"target_modules": [*QV, "lm_head"]}),
    ("llama", {"target_modules": [*QV, "embed_tokens"]}),
    ("llama", {"target_modules": QV, "modules_to_save": ["model.norm", "lm_head"]}),
    ("llama", {"target_modules": QV, "modules_to_save": ["post_attention_layernorm"]}),
    ("llama", {"target_modules": "all-linear", "lora_bias": True}),
    ("llama", {"target_modules": QV, "lora_bias": True, "bias": "lora_only"}),
    ("llama", {"target_modules": QV, "init_lora_weights": "pissa", "use_rslora": True}),
    ("llama", {"target_modules": QV, "init_lora_weights": "olora"}),
    ("llama", {"target_modules": QV, "init_lora_weights": "mica"}),
    ("tied", {"target_modules": [*QV, "embed_tokens"], "ensure_weight_tying": True}),
    ("tied", {"target_modules": [*QV, "lm_head"], "ensure_weight_tying": True}),
    ("tied", {"target_modules": [*QV, "lm_head", "embed_tokens"]}),
    (
        "tied",
        {"target_modules": QV, "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    ),
    ("tied", {"target_modules": QV, "modules_to_save": ["embed_tokens"]}),
]


def trained(base, config):
    kind, fields = BASES[base]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(kind(**fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model, peft.LoraConfig(r=4, lora_alpha=6, **config)


def loss_of(model):
    """Logits, and their sum with fixed weights, whose gradient is left in the parameters."""
    logits = model(torch.tensor(TOKENS)).logits
    weights = torch.linspace(-1, 1, logits.numel()).reshape(logits.shape)
    (logits * weights).sum().backward()
    return logits.detach().numpy()


def gradients_of(model):
    """One for each tensor: PEFT gives tied factors one memory, and each its own gradient."""
    gradients = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            place, grad = parameter.data_ptr(), parameter.grad.numpy()
            if place in gradients:
                grad = grad.T if grad.shape != gradients[place].shape else grad
                grad = grad + gradients[place]
            gradients[place] = grad
    return list(gradients.values())


@pytest.mark.parametrize(("base", "config"), CASES, ids=str)
def test_an_attached_adapter_computes_and_trains_as_in_peft(tmp_path, base, config):
    model, config = trained(base, config)
    model.save_pretrained(tmp_path / "base")
    made = peft.get_peft_model(model, config)
    with torch.no_grad():
        for _, parameter in made.named_parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    made.save_pretrained(tmp_path / "adapter")
    untouched = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(
        untouched, tmp_path / "adapter", is_trainable=True
    ).eval()
    expected = loss_of(theirs)

    ours = adapters.attach(language.load(tmp_path / "base"), tmp_path / "adapter")
    logits = ours(TOKENS)
    wide = in_double(ours)  # PEFT's model with tied factors cannot be copied
    exact = wide(TOKENS)
    for rounded in (logits, expected):
        assert_near(rounded, exact)
    weights = np.linspace(-1, 1, expected.size, dtype=np.float32).reshape(expected.shape)
    for sums in (logits, exact):
        (sums * weights).sum().backward()

    found, single, right = (
        [leaf.grad for _, leaf in lnp.trainable(ours)],
        gradients_of(theirs),
        [leaf.grad for _, leaf in lnp.trainable(wide)],
    )
    sizes = [sum(grad.size for grad in each) for each in (found, single, right)]
    assert sizes[0] == sizes[1] == sizes[2]
    norms = [np.sort([np.linalg.norm(grad) for grad in each]) for each in (found, single, right)]
    for rounded in norms[:2]:
        assert_near(rounded, norms[2])

    if config.init_lora_weights in ("pissa", "olora"):
        ours = lnp.lora.rebase(ours, language.load(tmp_path / "base"))
    adapters.save(ours, tmp_path / "again")
    untouched = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    again = peft.PeftModel.from_pretrained(untouched, tmp_path / "again").eval()
    with torch.no_grad():
        logits = again(torch.tensor(TOKENS)).logits.numpy()
    assert_near(logits, exact)
    assert bool(again.peft_config["default"].ensure_weight_tying) == bool(
        config.ensure_weight_tying
    )
