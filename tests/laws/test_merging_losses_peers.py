"""torch judges what a merge loses: shares of PEFT's own updates, and transformers' logits."""

import itertools
import re

import numpy as np
import pytest

from lora_np import adapters
from tests.rounding import assert_as_near, torch_in_double

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # between PEFT and transformers
]

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
load_file = pytest.importorskip("safetensors.torch").load_file

SIZES = {"vocab_size": 61, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
KINDS = {
    "llama": {"target_modules": "all-linear"},
    "qwen2": {"target_modules": ["q_proj", "v_proj"], "use_rslora": True},
    "gpt2": {"target_modules": ["c_attn"], "fan_in_fan_out": True},
    "llama dora": {"target_modules": ["q_proj", "down_proj"], "use_dora": True},
}
DTYPES = {
    "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16,
    "float8_e4m3": torch.float8_e4m3fn,
}  # fmt: skip
STRENGTHS = (1.0, 0.03, 0.001)
#: Four dtypes, two updates and a size each: 32 merges, every second from a base in float32.
MERGES = [
    (kind, dtype, STRENGTHS[(i + j) % 3], (i + j) % 2)
    for (i, kind), (j, dtype) in itertools.product(enumerate(KINDS), enumerate(DTYPES))
] + [(kind, dtype, 0.01, 1) for kind, dtype in itertools.product(KINDS, DTYPES)]


def base_of(kind, dtype):
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=61, n_positions=16, n_embd=64, n_layer=2, n_head=4
        )
        return transformers.GPT2LMHeadModel(config).to(dtype)
    name = "Qwen2" if kind == "qwen2" else "Llama"
    config = getattr(transformers, f"{name}Config")(**SIZES, **HEADS)
    return getattr(transformers, f"{name}ForCausalLM")(config).to(dtype)


def tuned(folder, kind, dtype, strength):
    """A base on the disk in a dtype, and PEFT's model of it with an adapter in float32."""
    base_of(kind, dtype).save_pretrained(folder / "base")
    base = transformers.AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    model = peft.get_peft_model(base, peft.LoraConfig(r=4, lora_alpha=8, **KINDS[kind]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                parameter.copy_(0.1 * strength**0.5 * torch.randn_like(parameter))
            elif "magnitude" in name:
                parameter.mul_(1 + strength * torch.rand_like(parameter))
    model.save_pretrained(folder / "adapter")
    return model


@pytest.mark.parametrize(("kind", "dtype", "strength", "wide"), MERGES)
def test_shares_are_those_of_the_updates_that_peft_merges(tmp_path, kind, dtype, strength, wide):
    torch.manual_seed(len(kind) + len(dtype))
    model = tuned(tmp_path, kind, torch.float32 if wide else torch.bfloat16, strength)
    merged = adapters.merge(
        tmp_path / "base", tmp_path / "adapter", tmp_path / "merged", dtype=dtype
    )
    before = load_file(tmp_path / "base" / "model.safetensors")
    after = load_file(tmp_path / "merged" / "model.safetensors")
    exact = torch_in_double(model).merge_and_unload().state_dict()
    rows, sums = {row.name: row for row in merged.rows}, np.zeros(4)
    for name, row in rows.items():
        assert after[name].dtype == DTYPES[dtype]
        W0, Q = before[name].double(), after[name].double()
        dW = exact[name if name in exact else f"transformer.{name}"] - W0
        parts = [((Q - W0) * dW).sum(), (dW * dW).sum(), (Q == W0).sum(), W0.numel()]
        parts = np.array([float(part) for part in parts])
        assert row.share_kept == pytest.approx(parts[0] / parts[1], abs=0.01), name
        assert row.unmoved == pytest.approx(parts[2] / parts[3], abs=0.01), name
        sums += parts
    kept, unmoved = re.match(
        r"share of the update kept: (\S+); (\S+)% of the entries", merged.notes[0]
    ).groups()
    assert float(kept) == pytest.approx(sums[0] / sums[1], abs=0.01)
    assert float(unmoved) / 100 == pytest.approx(sums[2] / sums[3], abs=0.01)


@pytest.mark.parametrize("settings", [{}, {"rounding": "random", "rng": 1}], ids=str)
@pytest.mark.parametrize("strength", [1.0, 0.01])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_in_bfloat16_are_those_of_transformers(tmp_path, kind, strength, settings):
    """Of the same weights: the merged ones that PEFT has, rounded by torch if by nearest."""
    torch.manual_seed(len(kind))
    model = tuned(tmp_path, kind, torch.bfloat16, strength)
    adapters.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged", **settings)
    ours = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    assert ours.dtype == torch.bfloat16
    ids = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        exact = torch_in_double(model).merge_and_unload()
        rounded = base_of(kind, torch.bfloat16)
        rounded.load_state_dict({k: x.bfloat16() for k, x in exact.state_dict().items()})
        rounded.save_pretrained(tmp_path / "theirs")
        theirs = type(ours).from_pretrained(tmp_path / "theirs", dtype="auto")
        logits = [each.eval()(ids).logits.double().numpy() for each in (ours, theirs, exact)]
    unit = float(torch.finfo(torch.bfloat16).eps)
    assert_as_near(*logits, floor=8, unit=unit)
    if not settings:
        np.testing.assert_array_equal(logits[0], logits[1])
