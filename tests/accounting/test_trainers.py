"""Plans from the settings of TRL, Axolotl and LLaMA-Factory: each as if its options had been
typed.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lora_np import accounting, models
from lora_np.cli import run

CARD = "RTX 4090"
AXOLOTL = """
base_model: meta-llama/Meta-Llama-3-8B
load_in_4bit: true
adapter: qlora
lora_r: 32
lora_alpha: 16
lora_target_linear: true
sequence_len: 4096
micro_batch_size: 2
gradient_accumulation_steps: 4
optimizer: paged_adamw_8bit
learning_rate: 0.0002
bf16: auto
gradient_checkpointing: true
deepspeed: zero2.json
datasets:
  - path: a
    type: alpaca
"""
FACTORY = """
model_name_or_path: Qwen/Qwen3-4B
stage: sft
finetuning_type: lora
lora_rank: 8
lora_target: q_proj, v_proj
quantization_bit: 8
cutoff_len: 1024
per_device_train_batch_size: 4
disable_gradient_checkpointing: true
optim: adamw_torch
"""
TRL = {
    "model_name_or_path": "gpt2",
    "lora_r": 4,
    "lora_target_modules": ["c_attn"],
    "dtype": "float32",
    "max_length": 128,
    "per_device_train_batch_size": 3,
    "gradient_checkpointing": False,
    "optim": "adafactor",
    "lora_alpha": None,
}
PARTS = {
    "SFTConfig": {"max_length": 64, "optim": "adamw_torch_fused", "bf16": True},
    "LoraConfig": {"peft_type": "LORA", "r": 2, "target_modules": "all-linear", "use_dora": True},
    "ModelConfig": {"model_name_or_path": "gpt2"},
}


def written(folder: Path, content: Any, name: str = "") -> Path:
    path = folder / (name or ("a.yaml" if isinstance(content, str) else "a.json"))
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("content", "model", "options"),
    [
        (
            AXOLOTL,
            "llama-3-8b",
            {
                "methods": ["QLoRA"],
                "rank": 32,
                "targets": "all-linear",
                "dtype": "nf4",
                "context": 4096,
                "batch_size": 2,
                "optimizer": "paged_adamw_8bit",
                "checkpointing": True,
            },
        ),
        (
            FACTORY,
            "qwen3-4b",
            {
                "methods": ["QLoRA"],
                "rank": 8,
                "targets": ["q_proj", "v_proj"],
                "dtype": "int8",
                "context": 1024,
                "batch_size": 4,
                "checkpointing": False,
            },
        ),
        (
            TRL,
            "gpt2",
            {
                "methods": ["LoRA"],
                "rank": 4,
                "targets": ["c_attn"],
                "dtype": "float32",
                "context": 128,
                "batch_size": 3,
                "optimizer": "adafactor",
                "checkpointing": False,
            },
        ),
        (
            PARTS,
            "gpt2",
            {"methods": ["LoRA"], "rank": 2, "targets": "all-linear", "dora": True, "context": 64},
        ),
    ],
)
def test_a_file_means_what_its_options_mean(
    tmp_path: Path, content: Any, model: str, options: dict[str, Any]
) -> None:
    if isinstance(content, str):
        pytest.importorskip("yaml")
    found = accounting.plan_from(written(tmp_path, content), card=CARD)
    want = accounting.plan(model, card=CARD, **options)
    assert replace(found, notes=()) == replace(want, notes=())
    assert found.notes[: len(want.notes)] == want.notes


# (fields, what plan is then asked)
EACH = [
    ({"lora_rank": 5}, {"rank": 5, "methods": ["LoRA"]}),
    ({"r": 5}, {"rank": 5, "methods": ["LoRA"]}),
    ({"lora_target": "all"}, {"targets": "all-linear", "methods": ["LoRA"]}),
    ({"target_modules": "all-linear"}, {"targets": "all-linear", "methods": ["LoRA"]}),
    ({"target_modules": ".*attn\\.c_attn"}, {"targets": ".*attn\\.c_attn", "methods": ["LoRA"]}),
    ({"lora_r": 5, "modules_to_save": ["wte"]}, {"rank": 5, "modules_to_save": ["wte"], "methods": ["LoRA"]}),
    ({"lora_r": 5, "additional_target": "wte"}, {"rank": 5, "modules_to_save": ["wte"], "methods": ["LoRA"]}),
    ({"lora_r": 5, "peft_use_dora": True}, {"rank": 5, "dora": True, "methods": ["LoRA"]}),
    ({"load_in_8bit": True}, {"dtype": "int8", "methods": ["QLoRA"]}),
    ({"load_in_4bit": True, "bf16": True}, {"dtype": "nf4", "methods": ["QLoRA"]}),
    (
        {"quantization_bit": 4, "double_quantization": False},
        {"dtype": "nf4", "double_quantization": False, "methods": ["QLoRA"]},
    ),
    ({"finetuning_type": "full", "lora_rank": 8, "fp16": True}, {"dtype": "float16", "methods": ["full"]}),
    ({"bf16": "auto", "lora_r": 1, "torch_dtype": "torch.float32"}, {"dtype": "float32", "rank": 1, "methods": ["LoRA"]}),
    ({"use_peft": False, "lora_r": 16}, {"methods": ["full"]}),
    ({"dtype": "auto"}, {}),
    ({"fp16": True, "bf16": False}, {"dtype": "float16"}),
    ({"max_seq_length": 77}, {"context": 77}),
    ({"sequence_len": 77}, {"context": 77}),
    ({"optimizer": "adamw_bnb_8bit"}, {"optimizer": "adamw_8bit"}),
    ({"optim": "paged_adamw_32bit"}, {"optimizer": "paged_adamw"}),
    ({"optim": "lion_8bit"}, {}),
    ({"gradient_checkpointing": "offload"}, {"checkpointing": True}),
    ({"disable_gradient_checkpointing": False}, {"checkpointing": True}),
    ({"micro_batch_size": 6}, {"batch_size": 6}),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "options"), EACH)
def test_each_setting_by_each_name(
    tmp_path: Path, fields: dict[str, Any], options: dict[str, Any]
) -> None:
    found = accounting.plan_from(
        written(tmp_path, {"model_name_or_path": "gpt2", **fields}), card=CARD
    )
    want = accounting.plan("gpt2", card=CARD, **options)
    assert replace(found, notes=()) == replace(want, notes=())


def test_axolotl_without_an_adapter_trains_in_full(tmp_path: Path) -> None:
    path = written(tmp_path, {"base_model": "gpt2", "lora_r": 8})
    assert [each.method for each in accounting.plan_from(path, card=CARD).choices] == ["full"]
    assert {each.method for each in accounting.plan_from(path, card=CARD, rank=4).choices} == {
        "LoRA"
    }


def test_notes_name_what_is_missing_and_what_is_not_counted(tmp_path: Path) -> None:
    fields = {
        "model_name_or_path": "gpt2", "lora_r": 8, "lora_alpha": 32, "optim": "lion_8bit", "use_unsloth": True,
        "fsdp": "", "rank_pattern": {"c_attn": 2}, "learning_rate": 1e-4,
    }  # fmt: skip
    notes = accounting.plan_from(written(tmp_path, fields), card=CARD, context=128).notes
    assert notes[-3:] == (
        "plan counts adamw, not the optimizer 'lion_8bit'.",
        "Not counted, though memory depends on it: rank_pattern, use_unsloth.",
        "Not in a.json, so as plan has it: batch_size, optimizer, checkpointing.",
    )


LORA = {"model_name_or_path": "gpt2", "lora_r": 8, "load_in_4bit": True, "max_length": 64}


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ([], {"methods": ["QLoRA"], "rank": 8, "dtype": "nf4", "context": 64}),
        (
            ["--rank", "2", "--context", "32"],
            {"methods": ["QLoRA"], "rank": 2, "dtype": "nf4", "context": 32},
        ),
        (["--dtype", "bfloat16"], {"methods": ["LoRA"], "rank": 8, "context": 64}),
        (["--method", "full"], {"methods": ["full"], "context": 64}),
        (["--method", "LoRA"], {"methods": ["LoRA"], "rank": 8, "context": 64}),
        (["--dtype", "int8"], {"methods": ["QLoRA"], "rank": 8, "dtype": "int8", "context": 64}),
    ],
)
def test_the_command_line_wins(
    tmp_path: Path,
    arguments: list[str],
    options: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = written(tmp_path, LORA)
    assert run(["plan", "--from", str(path), "--card", CARD, "--json", *arguments]) == 0
    want = accounting.plan("gpt2", card=CARD, **options)
    found = json.loads(capsys.readouterr().out)
    assert [each["memory"]["title"] for each in found["choices"]] == [
        c.memory.title for c in want.choices
    ]
    assert [each["method"] for each in found["choices"]] == [c.method for c in want.choices]
    assert run(["plan", "qwen3-0.6b", "--from", str(path), "--card", CARD, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "qwen3-0.6b"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.toml", "", "the ending of the file must be one of '.json', '.yaml', '.yml', got '.toml'"),
        ("a.json", "{", "a.json: not valid JSON"),
        ("a.json", "[]", "a.json"),
        ("a.json", "{}", "names no base model (model_name_or_path, base_model, base_model_name_or_path): give one"),
        ("a.json", '{"base_model": "meta-llama/Llama-9"}', "got 'meta-llama/Llama-9'"),
        ("a.json", '{"base_model": "gpt2", "adapter": "ia3"}', "adapter must be one of 'lora', 'qlora', got 'ia3'"),
        ("a.json", '{"base_model": "gpt2", "finetuning_type": "freeze"}', "finetuning_type must be one of 'full', 'lora'"),
        ("a.json", '{"base_model": "gpt2", "peft_type": "IA3"}', "peft_type must be one of 'LORA', got 'IA3'"),
        ("a.json", '{"model_name_or_path": "gpt2", "lora_r": "8"}', "rank must be a whole number, got '8'"),
        ("a.json", '{"model_name_or_path": "gpt2", "optim": ["x"]}', ""),
        ("a.yaml", "a: [", "a.yaml: not YAML"),
        ("a.yaml", "- a", "a.yaml: must hold settings by name"),
        ("a.yaml", "a: &a [x]\nb: *a", "no aliases"),
        ("a.yml", "[" * 1200, "a.yml: not YAML"),
        ("a.yaml", "a: 2001-99-99", "a.yaml: not YAML"),
        ("a.yaml", "#" * (2**16 + 1), "at most 65,536 bytes"),
        ("no-such.yaml", None, "no such file"),
    ],
)  # fmt: skip
def test_bad_files_are_one_line(
    tmp_path: Path, name: str, content: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if name.endswith((".yaml", ".yml")):
        pytest.importorskip("yaml")
    path = tmp_path / name if content is None else written(tmp_path, content, name)
    status = run(["plan", "--from", str(path), "--card", CARD])
    printed = capsys.readouterr()
    assert status == (1 if message else 0)
    assert message in printed.err
    assert printed.err.count("\n") == (1 if message else 0)


def test_who_lacks_the_library_of_yaml_is_told_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    assert run(["plan", "--from", str(written(tmp_path, AXOLOTL)), "--card", CARD]) == 1
    assert "pip install 'lora-np[yaml]'" in capsys.readouterr().err


def test_a_source_or_a_file_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--card", CARD]) == 2
    assert "give a SOURCE, or --from" in capsys.readouterr().err


def test_a_preset_is_found_by_its_name_on_the_hub() -> None:
    for name in ("meta-llama/Meta-Llama-3-8B", "Meta-Llama/meta-llama-3-8b"):
        assert accounting.model_spec(name) == models.preset("llama-3-8b")
    with pytest.raises(ValueError, match="source must be a matrix"):
        accounting.model_spec("meta-llama/Meta-Llama-3-8")
