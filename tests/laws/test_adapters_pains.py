"""The commonest pains with adapters: each made, and answered by the command that its list names."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters import Adapter, AdapterModule
from lora_np.adapters.adapter import in_memory
from lora_np.adapters.formats import opened
from lora_np.adapters.peft_format import PREFIX, WEIGHTS
from lora_np.cli import run
from lora_np.hub import safetensors
from lora_np.models import peft
from tests.adapters.test_checking import TEXT, VISION
from tests.adapters.test_formats import LLAMA, drawn

FILE = Path(__file__).parents[1] / "adapters" / "pains.toml"
PAINS = {pain["name"]: pain for pain in tomllib.loads(FILE.read_text("utf-8"))["pain"]}
PAGE = Path(__file__).parents[2] / "docs" / "use" / "repair.md"
Q = "model.layers.0.self_attn.q_proj"
MOE = {**LLAMA, "model_type": "qwen3_moe", "num_experts": 2, "head_dim": 4}


def layers(config=LLAMA, **settings):
    return drawn(config, roles=["linear"], **{"scales": (1.0,), "ranks": (2,), **settings})


def with_keys(folder, rename):
    adapters.save(layers(), folder)
    file = safetensors.open(folder / WEIGHTS)
    safetensors.save({rename(key): file.read(key) for key in file.tensors}, folder / WEIGHTS)


def with_config(folder, **settings):
    adapters.save(layers(), folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def emptied(folder):
    adapters.save(layers(), folder)
    file = safetensors.open(folder / WEIGHTS)
    empty = {key: np.ones(0, np.float32) for key in file.tensors if key.endswith("B.weight")}
    tensors = {key: file.read(key) for key in file.tensors}
    safetensors.save({**tensors, **empty}, folder / WEIGHTS)


def with_module(folder, full=(), **settings):
    rank = settings.pop("rank", 2)
    A, B = np.ones((rank, 16)), np.ones((16, rank))
    parts = settings.pop("parts", {})
    module = AdapterModule.of(A=A, B=B, alpha=2.0, **parts)
    tensors = {name: in_memory(np.ones(shape)) for name, shape in full}
    adapters.save(
        Adapter({Q: module}, tensors, {**peft.FRESH, "target_modules": [Q], **settings}), folder
    )


def ends(adapter):
    return sorted({name.rpartition(".")[2] for name in adapter})


#: What makes the adapter; over which base; what the command says, or what `check` says of the result.
MADE = {
    "compiled": (lambda f: with_keys(f, "_orig_mod.{}".format), LLAMA),
    "parallel": (lambda f: with_keys(f, "module.{}".format), LLAMA),
    "sharded": (lambda f: with_keys(f, "_fsdp_wrapped_module.{}".format), LLAMA),
    "prefix": (lambda f: with_keys(f, f"{PREFIX}{{}}".format), LLAMA),
    "named": (lambda f: with_keys(f, lambda key: key.replace(".weight", ".default.weight")), LLAMA),
    "text on vision": (lambda f: adapters.save(layers(TEXT), f), VISION),
    "vision on text": (lambda f: adapters.save(text_of_vision(), f), TEXT),
    "without a head": (lambda f: adapters.save(bare(), f), LLAMA),
    "unmatched pattern": (lambda f: with_config(f, alpha_pattern={"^q_proj": 100}), LLAMA),
    "container": (lambda f: with_config(f, target_modules=[*ends(layers()), "mlp"]), LLAMA),
}  # fmt: skip


def bare():
    modules = {name.removeprefix("model."): x for name, x in layers().items() if name != "lm_head"}
    return Adapter(modules, raw={**peft.FRESH, "target_modules": ends(modules)})


def text_of_vision():
    text = {name: module for name, module in layers(VISION).items() if ".visual." not in name}
    return Adapter(text, raw={**peft.FRESH, "target_modules": ends(text)})


def command(words, capsys):
    status = run([*map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def config_file(folder, config):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "config.json"


@pytest.mark.parametrize("name", MADE)
def test_names_targets_and_patterns_are_repaired(tmp_path, capsys, name):
    make, config = MADE[name]
    assert PAINS[name]["command"] == "repair"
    make(tmp_path / "a")
    base = config_file(tmp_path / "base", config)
    status, before = command(["check", tmp_path / "a", "--base", base, "--for", "peft"], capsys)
    assert (status == 3) == (name != "named"), before
    words = ["repair", tmp_path / "a", "--base", base, "-o", tmp_path / "new"]
    status, said = command(words, capsys)
    assert status == 0, said
    status, after = command(["check", tmp_path / "new", "--base", base, "--for", "peft"], capsys)
    assert status == 0, after
    ours = [module.delta() for module in adapters.load(tmp_path / "new").values()]
    theirs = [module.delta() for module in opened(tmp_path / "a").values()]
    assert len(ours) == len(theirs)
    assert sum(np.linalg.norm(x) for x in ours) == pytest.approx(sum(map(np.linalg.norm, theirs)))


def test_emptied_tensors_have_their_cause(tmp_path, capsys):
    emptied(tmp_path / "a")
    base = config_file(tmp_path / "base", LLAMA)
    words = ["repair", tmp_path / "a", "--base", base, "-o", tmp_path / "new"]
    status, said = command(words, capsys)
    assert status == 1
    assert "DeepSpeed ZeRO-3" in said


def test_a_lost_pattern_is_not_answered(tmp_path, capsys):
    assert PAINS["lost pattern"]["unanswered"]
    with_config(tmp_path / "a", r=8, lora_alpha=8, rank_pattern={}, alpha_pattern={})
    base = config_file(tmp_path / "base", LLAMA)
    words = ["repair", tmp_path / "a", "--base", base, "-o", tmp_path / "new"]
    status, said = command(words, capsys)
    assert status == 1
    assert "its scale may be 4 or 1" in said


def test_experts_are_checked(tmp_path, capsys):
    adapters.save(drawn(MOE, roles=["experts"], scales=(1.0,), ranks=(2,)), tmp_path / "a")
    base = config_file(tmp_path / "base", MOE)
    status, said = command(["check", tmp_path / "a", "--base", base, "--for", "vllm"], capsys)
    assert status == 3
    assert "not known" in said


@pytest.mark.parametrize(
    ("name", "program", "settings"),
    [
        ("ranks", "llama.cpp", {"ranks": (2, 4), "scales": (1.0, 2.0)}),
        ("rsLoRA", "sglang", {"rslora": True}),
    ],
)
def test_scales_are_made_portable(tmp_path, capsys, name, program, settings):
    adapters.save(layers(**settings), tmp_path / "a")
    assert command(["check", tmp_path / "a", "--for", program], capsys)[0] == 3
    words = ["convert", tmp_path / "a", *PAINS[name]["command"].split()[1:], "-o", tmp_path / "new"]
    assert command(words, capsys)[0] == 0
    assert command(["check", tmp_path / "new", "--for", program], capsys)[0] == 0


def checkpoint(folder, tensors, config=LLAMA):
    base = config_file(folder, {**config, "architectures": ["LlamaForCausalLM"]}).parent
    safetensors.save(tensors, base / "model.safetensors")
    return base


def test_magnitudes_and_saved_modules_are_merged(tmp_path, capsys):
    magnitudes = {"parts": {"magnitude": np.ones(16)}, "use_dora": True}
    with_module(
        tmp_path / "a", [("lm_head.weight", (9, 16))], modules_to_save=["lm_head"], **magnitudes
    )
    status, said = command(["check", tmp_path / "a", "--for", "vllm"], capsys)
    assert status == 3
    assert "what would help: lora-np merge MODEL" in said
    base = checkpoint(
        tmp_path / "base", {f"{Q}.weight": np.eye(16), "lm_head.weight": np.zeros((9, 16))}
    )
    status, said = command(["merge", base, tmp_path / "a", "-o", tmp_path / "new"], capsys)
    assert status == 0, said
    merged = safetensors.open(tmp_path / "new" / "model.safetensors")
    np.testing.assert_array_equal(merged.read("lm_head.weight"), 1)
    np.testing.assert_allclose(np.linalg.norm(merged.read(f"{Q}.weight"), axis=1), 1)


def test_copies_of_the_base_are_left_out(tmp_path, capsys):
    table = np.arange(9 * 16, dtype=np.float32).reshape(9, 16)
    module = AdapterModule.of(A=np.ones((2, 9)), B=np.ones((16, 2)), alpha=2.0, embedding=True)
    name = "model.embed_tokens"
    raw = {**peft.FRESH, "target_modules": ["embed_tokens"]}
    adapters.save(
        Adapter({name: module}, {f"{name}.weight": in_memory(table)}, raw), tmp_path / "a"
    )
    assert "refused" in command(["check", tmp_path / "a", "--for", "vllm"], capsys)[1]
    base = checkpoint(
        tmp_path / "base", {f"{name}.weight": table}, {**LLAMA, "vocab_size": len(table)}
    )
    words = ["convert", tmp_path / "a", *PAINS["copies"]["command"].split()[1:], "--base", base]
    status, said = command([*words, "-o", tmp_path / "new"], capsys)
    assert status == 0, said
    assert "refused" not in command(["check", tmp_path / "new", "--for", "vllm"], capsys)[1]


def test_the_largest_rank_has_its_option(tmp_path, capsys):
    with_module(tmp_path / "a", rank=40)
    status, said = command(["check", tmp_path / "a", "--for", "vllm"], capsys)
    assert status == 3
    assert "--max-lora-rank 64" in said


def test_new_tokens_are_merged_over_a_smaller_base(tmp_path, capsys):
    with_module(tmp_path / "a", [("lm_head.weight", (11, 16)), ("model.embed_tokens.weight", (11, 16))],
                modules_to_save=["lm_head", "embed_tokens"])  # fmt: skip
    smaller = {name: np.zeros((9, 16)) for name in ("lm_head.weight", "model.embed_tokens.weight")}
    base = checkpoint(
        tmp_path / "base", {f"{Q}.weight": np.eye(16), **smaller}, {**LLAMA, "vocab_size": 9}
    )
    status, said = command(["merge", base, tmp_path / "a", "-o", tmp_path / "new"], capsys)
    assert status == 0, said
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert config["vocab_size"] == 11


def test_files_of_image_models_are_inspected(tmp_path, capsys):
    place = "lora_unet_down_blocks_0_attentions_0_to_q"
    tensors = {f"{place}.lora_down.weight": np.ones((2, 8)), f"{place}.lora_up.weight": np.ones((8, 2)),
               f"{place}.alpha": np.array(1.0), f"{place}.dora_scale": np.ones((8, 1))}  # fmt: skip
    safetensors.save(tensors, tmp_path / "a.safetensors", dtype="float32")
    status, said = command(["inspect", tmp_path / "a.safetensors"], capsys)
    assert status == 0, said
    assert place.rpartition("_to_q")[0] in said or "to_q" in said


def test_the_page_lists_every_pain_with_its_issues():
    assert len(PAINS) == 20
    page = PAGE.read_text("utf-8")
    for pain in PAINS.values():
        assert f"| {pain['what']} | {', '.join(pain['issues'])} |" in page
    assert sum("unanswered" not in pain for pain in PAINS.values()) >= 16
