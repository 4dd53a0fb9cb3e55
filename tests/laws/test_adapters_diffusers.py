"""What `check` says of files of image models, judged by diffusers' own updates of a small UNet."""

import copy

import numpy as np
import pytest

from lora_np import adapters
from lora_np.hub import safetensors
from tests.adapters.test_image_models import tensors_of
from tests.laws.test_adapters_two_hundred import diffusers_model
from tests.rounding import error

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
NAMES = [f"{BLOCK}.attn1.to_q", f"{BLOCK}.attn1.to_k", f"{BLOCK}.ff.net.0.proj"]
# the kinds of the three modules, their alphas, whether they have magnitudes
CASES = {
    "one alpha": ("lora", (3.0, 3.0, 3.0), False),
    "alphas that differ": ("lora", (3.0, 8.0, 3.0), False),
    "DoRA": ("lora", (3.0, 3.0, 3.0), True),
    "LoKr": ("lokr", (3.0, 3.0, 3.0), False),
}


def by_diffusers(file):
    """The updates that a pipeline of Stable Diffusion makes of a file, or the error."""
    import peft

    _, pipeline, base = diffusers_model("sd15")
    model = copy.deepcopy(base)
    try:
        state, alphas = pipeline.lora_state_dict(str(file), unet_config=model.config)
        pipeline.load_lora_into_unet(state, alphas, unet=model)
    except ValueError as error:
        return error
    return {
        name: layer.get_delta_weight("default_0").detach().numpy()
        for name, layer in model.named_modules()
        if isinstance(layer, peft.tuners.lora.LoraLayer)
    }


@pytest.mark.parametrize("case", CASES)
def test_what_is_fine_has_its_update_and_what_is_not_known_has_another_or_none(tmp_path, case):
    kind, alphas, magnitudes = CASES[case]
    base, rng = diffusers_model("sd15")[2], np.random.default_rng(0)
    tensors = {}
    for name, alpha in zip(NAMES, alphas, strict=True):
        d, k = base.get_submodule(name).weight.shape
        parts, _ = tensors_of(kind, (d, k), (), rng, alpha=alpha)
        parts |= {"dora_scale": np.ones((d, 1), np.float32)} if magnitudes else {}
        tensors |= {f"lora_unet_{name.replace('.', '_')}.{end}": x for end, x in parts.items()}
    file = tmp_path / "a.safetensors"
    safetensors.save(tensors, file, dtype="float32")
    ours, theirs = adapters.load(file), by_diffusers(file)
    statuses = {row.module: row.status for row in adapters.check(file, runtime="diffusers").rows}
    if isinstance(theirs, ValueError):
        assert {*statuses.values()} == {"not known"}
        return
    for name in NAMES:
        flat = f"lora_unet_{name.replace('.', '_')}"
        right = error(theirs[name], ours.delta(flat).astype(float)) < 1e-5 and not magnitudes
        assert statuses[flat] == ("fine" if right else "not known")
