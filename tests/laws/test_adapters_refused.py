"""Nineteen kinds of adapters that were once refused: each is read, or refused with the next command.

The list has every kind of file that readers reported as loaded elsewhere and refused here.
"""

import json

import numpy as np
import pytest

from lora_np import adapters
from lora_np.files import FileError
from lora_np.hub import safetensors
from lora_np.models import open_base
from tests.adapters.test_layouts import LLAMA, MIXTRAL, PHI, PREFIX, by_peft, of_experts, of_linear
from tests.hub.test_pickles import Tensor, archive, packed

AT = "model.layers.0.self_attn.q_proj"
E = "model.layers.0.mlp.experts"
RNG = np.random.default_rng(0)


def pair(name, d=16, k=16, r=2):
    return {
        f"{name}.lora_A.weight": RNG.standard_normal((r, k)),
        f"{name}.lora_B.weight": RNG.standard_normal((d, r)),
    }


def stacks(first, second, *, order):
    """The factors of three experts, in three axes."""
    tensors = {}
    for name, d, k in ((first, 24, 16), (second, 16, 12)):
        B = RNG.standard_normal((3, d, 2))
        tensors[f"{name}.lora_A.weight"] = RNG.standard_normal((3, 2, k))
        tensors[f"{name}.lora_B.weight"] = B if order == "edr" else B.transpose(1, 2, 0)
    return tensors


def plain(**config):
    return lambda path: by_peft(path, pair(AT), target_modules=["q_proj"], **config)


def saved(config, ends):
    """An adapter of modules of another model than the base."""
    return lambda path: adapters.save(of_linear(RNG, config, ends), path)


def eight_bits(dtype):
    """The factors in 8 bits, whose bytes below 0x78 are finite numbers."""

    def write(path):
        plain()(path)
        file, header, data = path / "adapter_model.safetensors", {}, b""
        for key, info in safetensors.open(file).tensors.items():
            content = RNG.integers(0x30, 0x40, info.shape, np.uint8).tobytes()
            ends = [len(data), len(data) + len(content)]
            header[key] = {"dtype": dtype, "shape": [*info.shape], "data_offsets": ends}
            data += content
        text = json.dumps(header).encode()
        file.write_bytes(len(text).to_bytes(8, "little") + text + data)

    return write


def head_with_biases(path):
    head = {f"score.{end}": np.ones(3) for end in ("bias", "modules_to_save.bias")}
    tensors = pair(AT) | head | {"score.weight": np.ones((3, 16)), AT + ".bias": np.ones(16)}
    by_peft(path, tensors, target_modules=["q_proj"], task_type="SEQ_CLS", bias="all",
            modules_to_save=["classifier", "score"])  # fmt: skip


def pickled(path):
    by_peft(path, pair(AT), target_modules=["q_proj"])
    read = safetensors.open(path / "adapter_model.safetensors")
    arrays = {key: read.read(key) for key in read.tensors}
    tensors = {key: Tensor(key, "Float", x.shape) for key, x in arrays.items()}
    storages = {key: x.tobytes() for key, x in arrays.items()}
    archive(path / "adapter_model.bin", packed(tensors), storages)
    (path / "adapter_model.safetensors").unlink()


def diffusers(path):
    path.mkdir()
    tensors = {f"unet.down.attn.to_q.{end}": x for end, x in pair("x").items()}
    tensors = {key.replace("x.", ""): x.astype(np.float32) for key, x in tensors.items()}
    safetensors.save(tensors, path / "pytorch_lora_weights.safetensors")


def gathered(path, shape):
    tensors = pair(AT)
    tensors[f"{AT}.lora_A.weight"] = np.zeros(shape)
    by_peft(path, tensors, target_modules=["q_proj"])


# what writes it; None or the base for whose names it is converted, or why it is refused and what
# comes next
KINDS = {
    "a pickle (.bin)": (pickled, None),
    "aLoRA, inspected and resized": (plain(alora_invocation_tokens=[3]), None),
    "biases beside a trained head": (head_with_biases, None),
    "float8_e4m3": (eight_bits("F8_E4M3"), None),
    "float8_e5m2": (eight_bits("F8_E5M2"), None),
    "an unknown setting": (plain(use_surprise=True), None),
    "a folder of diffusers": (diffusers, None),
    "experts in three axes, by parameter": (
        lambda path: by_peft(path, stacks(f"{E}.gate_up_proj", f"{E}.down_proj", order="edr"),
                             target_modules=["gate_up_proj", "down_proj"]), MIXTRAL),
    "experts in three axes, for vLLM": (
        lambda path: by_peft(path, stacks(f"{E}.base_layer", E, order="dre"),
                             target_modules=["experts"]), MIXTRAL),
    "experts one by one, not all": (
        lambda path: adapters.save(of_experts(RNG, MIXTRAL, 0.5), path), MIXTRAL),
    "q, k and v of a fused base": (saved(LLAMA, ("q_proj", "k_proj", "v_proj")), PHI),
    "gate and up of a fused base": (saved(LLAMA, ("gate_proj", "up_proj")), PHI),
    "qkv of a base that has them apart": (saved(PHI, ("qkv_proj",)), LLAMA),
    "gate_up of a base that has them apart": (saved(PHI, ("gate_up_proj",)), LLAMA),
    "tensors that were not gathered": (
        lambda path: gathered(path, (0,)), ("DeepSpeed ZeRO-3", "zero_to_fp32.py")),
    "KaSA": (plain(kasa_config={"beta": 1}), ("belongs to another one", "lora-np extract")),
    "repeated layers": (plain(layer_replication=[[0, 1]]), ("is built anew", "lora-np extract")),
    "BD-LoRA": (plain(use_bdlora={"nblocks": 2}), ("stores factors as blocks", "lora-np extract")),
    "QA-LoRA": (plain(use_qalora=True), ("averages groups of inputs", "lora-np extract")),
}  # fmt: skip


def test_at_most_six_of_nineteen_kinds_are_refused():
    assert len(KINDS) == 19
    assert sum(isinstance(after, tuple) for _, after in KINDS.values()) <= 6


@pytest.mark.filterwarnings("ignore:.*(not a setting of PEFT|another program):UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_read_or_refused_with_the_next_command(kind, tmp_path):
    write, after = KINDS[kind]
    write(tmp_path / "a")
    if isinstance(after, tuple):
        with pytest.raises(FileError) as refused:
            adapters.load(tmp_path / "a")
        assert [text for text in after if text not in str(refused.value)] == []
        return
    assert adapters.inspect(tmp_path / "a").rows
    if after is None:
        if kind != "a folder of diffusers":
            adapters.resize(tmp_path / "a", tmp_path / "small", rank=1)
        return
    adapters.convert(tmp_path / "a", tmp_path / "b", to="peft", base=after)
    known = open_base(after)
    for name in adapters.load(tmp_path / "b"):
        assert name.removesuffix(".weight") in known.modules
    assert json.loads((tmp_path / "b" / "adapter_config.json").read_text())["peft_type"] == "LORA"
    assert PREFIX in "".join(safetensors.open(tmp_path / "b" / "adapter_model.safetensors").tensors)
