"""What fits on a GPU: laws of the plan, the command, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from importlib.resources import files
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest

from lora_np import accounting, models
from lora_np.accounting.planning import SWITCHES
from lora_np.cli import costs, run
from lora_np.models import ATTENTION, family_names, from_config, widest_targets
from tests.drawing import every

from .forum_questions import QUESTIONS

MODELS = [
    "llama-3-8b",
    "gemma-2-2b",
    "mixtral-8x7b",
    "qwen2.5-vl-3b",
    "t5-base",
    "bert-base",
    "deepseek-v3",
]


def asked(question: Any, **changes: Any) -> accounting.Plan:
    """The plan of a question from a forum, with some options changed."""
    options = {"gpu": question.gpu, **question.options, **changes}
    if question.method != "full":
        options = {"rank": question.rank, "targets": question.targets, **options}
    return accounting.plan(question.model, methods=[question.method], **options)


@every("question", QUESTIONS)
def test_the_first_remedy_fits_and_no_smaller_set_of_switches_does(question: Any) -> None:
    plan = asked(question)
    (choice, *_) = [one for one in plan.choices if one.targets == plan.choices[0].targets]
    remedies = [one for one in plan.remedies if one.targets == choice.targets]
    assert bool(remedies) == (choice.verdict != "fits")
    for remedy in remedies:
        (changed, *_) = asked(question, **remedy.options).choices
        assert (changed.verdict, changed.memory.total) == ("fits", remedy.memory), remedy
    if choice.verdict == "fits":
        return
    first = remedies[0].change.split(", ")
    used = len(first) if {*first} <= {*SWITCHES} else len(SWITCHES) + 1
    room = plan.gpu.room
    for size in range(1, used):
        for some in combinations(SWITCHES, size):
            assert memory_with(question, some) > room, (question, some)


def memory_with(question: Any, switches: tuple[str, ...]) -> int:
    """The memory of a question's training with some switches, counted without a plan."""
    spec, targets = models.preset(question.model), question.targets
    options = {**question.options}
    if question.method == "QLoRA":
        options["dtype"] = "nf4"
    for name in switches:
        options |= SWITCHES[name][0]
    if question.method == "full":
        return accounting.training_memory(spec, **options).total
    if "attention only" in switches and targets == "all-linear":
        linear = [one.name for one in spec.groups if one.kind == "linear" and one.role in ATTENTION]
        targets = [name.rpartition("{}.")[2] for name in linear]
    lora = accounting.count_model(spec, rank=question.rank, targets=targets)
    return accounting.training_memory(lora, **options).total


def test_a_larger_gpu_for_a_desktop_card_is_one() -> None:
    desk = [name for name in accounting.gpus() if name.startswith(("RTX", "GTX"))]
    desk = [name for name in desk if "Laptop" not in name]
    found = 0
    for name in desk:
        plan = accounting.plan("qwen2.5-7b", gpu=name, rank=8, methods=["LoRA", "QLoRA"])
        for remedy in plan.remedies:
            if other := remedy.options.get("gpu"):
                rooms = {one: accounting.gpus()[one].room for one in desk}
                enough = {one for one, room in rooms.items() if room >= remedy.memory}
                assert other in enough or not enough
                assert rooms.get(other, 0) == min((rooms[one] for one in enough), default=0)
                found += 1
    assert found > 5


def test_the_questions_need_remedies() -> None:
    """Of the forty most do not fit as asked, and switches alone help half of these."""
    plans = [asked(question) for question in QUESTIONS]
    helped = [
        one
        for one in plans
        if one.remedies and {*one.remedies[0].change.split(", ")} <= {*SWITCHES}
    ]
    assert sum(bool(one.remedies) for one in plans) >= 30
    assert len(helped) >= 15


@pytest.mark.parametrize("gpu", ["RTX 3060 12GB", "A100 80GB"])
@pytest.mark.parametrize("model", MODELS)
def test_the_largest_fits_and_one_more_does_not(model: str, gpu: str) -> None:
    options = {"max_length": 128, "optimizer": "adamw_8bit"}
    room = 0.9 * accounting.gpus()[gpu].memory
    for each in accounting.plan(model, gpu=gpu, rank=8, targets="all-linear", **options).choices:

        def needs(rank: int = 8, way: str = each.method, **changed: int) -> int:
            spec = models.preset(model)
            weights = "nf4" if way == "QLoRA" else "bfloat16"
            settings = {**options, "dtype": weights, **changed}
            of = (
                accounting.count_model(spec, rank=rank, targets="all-linear")
                if way != "full"
                else spec
            )
            return accounting.training_memory(of, **settings).total

        assert each.memory.total == needs()
        assert (each.verdict == "fits") == (each.memory.total <= room)
        positions = models.preset(model).positions
        found = {"batch_size": each.largest_batch, "max_length": each.largest_max_length}
        for name, most in found.items():
            assert (most > 0) == (needs(**{name: 1}) <= room)
            if most:
                assert needs(**{name: most}) <= room
                assert (
                    most == positions
                    if name == "max_length" and most == positions
                    else needs(**{name: most + 1}) > room
                )
        if each.rank and each.largest_rank:
            adapters = accounting.count_model(
                models.preset(model), rank=1, targets="all-linear"
            ).adapters
            assert needs(rank=each.largest_rank) <= room
            if each.largest_rank < max(adapted.limit for adapted in adapters):
                assert needs(rank=each.largest_rank + 1) > room


@every("name", family_names())
def test_every_family_has_an_estimate(name: str) -> None:
    spec = from_config({"model_type": name})
    count = accounting.count_model(spec, rank=4, targets=widest_targets(spec))
    for memory in accounting.compare_memory(count).methods.values():
        assert bool(memory.activations) == (name != "mamba"), name  # which has no attention
        assert memory.total > memory.weights
    if name != "mamba":
        assert accounting.plan({"model_type": name}, gpu="24GB", methods=["LoRA"]).choices
    # what is assumed never is longer than the model allows
    longest = min(512, spec.positions or 512)
    assert accounting.training_memory(spec) == accounting.training_memory(spec, max_length=longest)


def test_what_each_option_saves() -> None:
    count = accounting.count_model(models.preset("gemma-2b"), rank=16, targets="all-linear")
    usual = accounting.training_memory(count, max_length=1024)

    def total(**options: Any) -> int:
        return accounting.training_memory(count, max_length=1024, **options).total

    # the logits of 256,000 words take more than all the rest of a step
    assert usual.logits + usual.workspace > 0.3 * usual.total
    assert total(cross_entropy="fused") < 0.75 * usual.total
    bytes_by_dtype = [total(dtype=weights) for weights in ("float32", "bfloat16", "int8", "nf4")]
    assert bytes_by_dtype == sorted(bytes_by_dtype, reverse=True)
    assert total(dtype="nf4", double_quantization=False) > total(dtype="nf4")
    states = [
        total(optimizer=name) for name in ("adamw", "momentum", "adamw_8bit", "adafactor", "sgd")
    ]
    assert states == sorted(states, reverse=True)
    assert total(checkpointing=False) > 1.5 * usual.total
    assert total(checkpointing=False, attention="eager") > total(checkpointing=False)


def test_notes_say_what_each_row_is_over_and_which_rank_is_too_high() -> None:
    found = accounting.plan("gpt2", gpu="T4", rank=[8, 2000], targets=["c_attn"], dtype="int8")
    assert found.notes[0].startswith(
        "Full over bfloat16, LoRA over int8, QLoRA over int8. Gradient"
    )
    assert "1 GB is 2^30 bytes" in found.notes[1]
    assert "Its driver leaves 15.0 of 16 GB" in found.notes[2]
    assert "T4 has no native bfloat16" in found.notes[3]
    count = accounting.count_model(models.preset("gpt2"), rank=2000, targets=["c_attn"])
    assert found.notes[4:] == count.notes
    assert "Rank 2000 is above min(d, k) = 768" in found.notes[4]


@every("gpu, dtype", product(accounting.gpus(), ["float16", "bfloat16"]))
def test_a_note_where_the_gpu_needs_one(gpu: str, dtype: str) -> None:
    found = accounting.plan("gpt2", gpu=gpu, rank=8, methods=["LoRA"], dtype=dtype)
    old = "T4", "V100 16GB", "V100 32GB", "P40", "P100 16GB", "RTX 2070", "RTX 2080 Ti"
    old += "GTX 1660 Super", "GTX 1080 Ti", "RTX 8000", "P100 12GB", "MI50 16GB", "MI50 32GB"
    emulated = dtype == "bfloat16" and gpu in old
    assert any("no native bfloat16" in note for note in found.notes) == emulated
    known = accounting.gpus()[gpu]
    assert (known.note in found.notes) == bool(known.note)
    whole = round(known.memory / 2**30, 1) == known.sold
    assert known.note.startswith("Its driver leaves") != whole
    assert gpu in found.table.title
    assert f"{known.sold}{'' if gpu.endswith('GB') else ' '}GB" in found.table.title


def test_what_cannot_run_on_a_gpu_is_said() -> None:
    for method, said in (("QLoRA", True), ("LoRA", False)):
        notes = accounting.plan("gpt2", gpu="M2 Max 64GB", rank=8, methods=[method]).notes
        assert any("no kernels for nf4 on Apple 64GB" in note for note in notes) == said
    found = accounting.plan("gpt2", gpu="4090", rank=8)
    assert not any("nf4 on" in note or "native" in note for note in found.notes)


def test_one_gb_is_the_same_for_the_gpu_and_for_what_training_needs() -> None:
    found = accounting.plan("gpt2", gpu="1.5", methods=["full"])
    assert found.gpu.memory == 3 * 2**29
    assert found.table.title.startswith("gpt2 on a GPU, 1.50 GB: ")
    need = found.choices[0].memory.total / 2**30
    assert f"{need:.2f} GB" in str(found.table)
    for text in ("1.5 GB", "1.5GiB", "1.5g", "1536 MB", "1.5", "1.500", 3 * 2**29):
        assert accounting.plan("gpt2", gpu=text, rank=8).gpu == found.gpu


def test_qlora_over_int8_is_lora_over_int8() -> None:
    options: dict[str, Any] = {"gpu": "L4", "rank": 8, "dtype": "int8", "checkpointing": False}
    (narrow,) = accounting.plan("gpt2", methods=["QLoRA"], targets="all-linear", **options).choices
    (same,) = accounting.plan("gpt2", methods=["LoRA"], targets="all-linear", **options).choices
    assert narrow.memory.parts == same.memory.parts
    (nf4,) = accounting.plan(
        "gpt2", methods=["QLoRA"], targets="all-linear", **options | {"dtype": "nf4"}
    ).choices
    assert narrow.memory.weights > nf4.memory.weights


@pytest.mark.parametrize("targets", [["q"], ["q", "k", "v", "o", "gate", "up", "down"]])
@pytest.mark.parametrize("adapter", ["bfloat16", "float32"])
@pytest.mark.parametrize("layers", [[0, 1, 2], [1, 2], [2]])
def test_int8_keeps_the_input_of_every_map(
    targets: list[str], adapter: str, layers: list[int]
) -> None:
    """As bitsandbytes does: beside what nf4 keeps, d for q, k and v, d for gate and up, and f for
    down, in 16 bits.
    """
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 192,
        "num_hidden_layers": 3,
    }
    model = models.from_config({**config, "num_attention_heads": 4, "vocab_size": 128})
    options: dict[str, Any] = {
        "targets": [f"{name}_proj" for name in targets],
        "layers": layers,
        "checkpointing": False,
        "max_length": 32,
        "cross_entropy": "fused",
    }
    kept = [
        accounting.training_memory(
            model, rank=2, dtype=dtype, adapter_dtype=adapter, **options
        ).activations
        or 0
        for dtype in ("int8", "nf4")
    ]
    token = 2 * len(layers) * 32
    every = token * (64 + 64 + 192)
    shared = 0 if adapter == "float32" else every if len(targets) > 1 else token * 64
    assert kept[0] - kept[1] == every - shared


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bits", [8, 4])
def test_bitsandbytes_keeps_the_input_over_int8_alone(bits: int) -> None:
    bnb, torch = pytest.importorskip("bitsandbytes"), pytest.importorskip("torch")
    layer = bnb.nn.Linear4bit(64, 32, bias=False, quant_type="nf4", compute_dtype=torch.bfloat16)
    if bits == 8:
        layer = bnb.nn.Linear8bitLt(64, 32, bias=False, has_fp16_weights=False)
    step = layer.to("cpu")(torch.ones(1, 5, 64, dtype=torch.bfloat16, requires_grad=True)).grad_fn
    kept = [getattr(step, "A", None), *getattr(step, "tensors", ())]
    assert any(each is not None and each.shape[-1] == 64 for each in kept) == (bits == 8)


def test_cards_are_found_however_they_are_written() -> None:
    for name in ("RTX 4090", "rtx4090", "NVIDIA GeForce RTX 4090", "geforce-rtx-4090"):
        assert accounting.plan("gpt2", gpu=name, rank=1).gpu == accounting.gpus()["RTX 4090"]
    for name, gpu in accounting.gpus().items():
        sold = re.search(r"(\d+)GB", name)
        assert not sold or int(sold[1]) == gpu.sold
        # what a driver keeps, also to correct errors, or macOS leaves to others
        least = 0.66 if name.startswith("Apple") else 0.93
        assert least < gpu.memory / (gpu.sold * 2**30) <= 1
        assert gpu.memory % 2**20 == 0 < gpu.memory < 2**39


def test_every_figure_of_a_card_names_its_source() -> None:
    content = json.loads((files("lora_np.accounting") / "gpus.json").read_text(encoding="utf-8"))
    assert {letter for gpu in content["gpus"].values() for letter in gpu["sources"]} == set(
        content["sources"]
    )
    assert all(gpu["sources"] for gpu in content["gpus"].values())
    assert all("https://" in source for source in content["sources"].values())


ONE = ["--rank", "8", "--targets", "all-linear"]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["llama-3-8b", "--gpu", "RTX 4090", *ONE], 0),
        (["llama-3-8b", "--gpu", "4GB", *ONE], 3),
        (["llama-3-8b", "--gpu", "24GB", "--method", "full"], 3),
        (["mixtral-8x7b", "--gpu", "A100 80GB", "--method", "QLoRA", "--json"], 0),
    ],
)
def test_the_exit_status(
    arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", *arguments]) == status
    printed = capsys.readouterr().out
    if "--json" in arguments:
        content = json.loads(printed)
        assert content["fits"] is True
        assert content["choices"][0]["memory"]["weights"] > 20e9
    else:
        assert ("fits" in printed.split("Memory breakdown")[0].split("fits:")[0]) == (status == 0)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (
            ["llama-3-8b", "--gpu", "RTX 4091"],
            2,
            "a memory such as 24 GB, or a GPU such as 'RTX 4090', ",
        ),
        (["gpt2", "--gpu", "a10000"], 2, "'A100 80GB'"),
        (
            ["llama-3-8b", "--gpu", "a100"],
            2,
            "gpu must say which: 'A100 40GB' or 'A100 80GB', got 'a100'",
        ),
        (["llama-3-8b", "--gpu", "?"], 2, "'V100 32GB', got '?'"),  # like none: all
        (["llama-3-8b", "--gpu", "RTX 9999"], 2, "'RTX 4090'"),
        (["llama-3-8b"], 2, "--gpu"),
        (
            ["llama-3-8b", "--gpu", "2400"],
            2,
            "gpu must be a memory such as 24 GB, or a GPU such as ",
        ),
        (["llama-3-8b", "--gpu", "0GB"], 2, "the memory of a GPU must be at least 1, got 0"),
        (
            ["llama-3-8b", "--gpu", "T4", "--max-length", "8193"],
            2,
            "max_length must be between 1 and the positions of",
        ),
        (
            ["llama-3-8b", "--gpu", "T4", "--max-length", "0"],
            2,
            "max_length must be at least 1, got 0",
        ),
        (["llama-3-8b", "--gpu", "T4", "--batch-size", "x"], 2, "'x'"),
        (
            ["llama-3-8b", "--gpu", "T4", "--rank", "0"],
            2,
            "rank must be between 1 and 1048576, got 0",
        ),
        (
            ["llama-3-8b", "--gpu", "T4", "--method", "lorra"],
            2,
            "'lorra' is not one of 'full', ",
        ),
        (
            ["llama-3-8b", "--gpu", "T4", "--optimizer", "adam"],
            2,
            "optimizer must be one of 'adamw'",
        ),
        (
            ["gpt2", "--gpu", "T4", "--method", "full", "--rank", "8", "--dora"],
            2,
            "rank and dora can only be given for LoRA or QLoRA, got the method full",
        ),
        (
            ["gpt2", "--gpu", "T4", "--method", "full", "--dtype", "nf4"],
            2,
            "dtype must be float32 or bfloat16 or float16 for full, got 'nf4'",
        ),
        (
            ["gpt2", "--gpu", "T4", "--method", "QLoRA", "--dtype", "float16"],
            2,
            "dtype must be int8 or nf4 for QLoRA, got 'float16'",
        ),
        (["llama-3-8", "--gpu", "T4"], 1, "llama-3-8b, "),
        (["100x120", "--gpu", "T4"], 1, "plan needs the layers of 100x120"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", *arguments]) == status
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_memory_takes_the_same_options_and_never_costs_the_count(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = [
        "--dtype",
        "float16",
        "--optimizer",
        "adafactor",
        "--no-checkpointing",
        "--attention",
        "eager",
    ]
    assert run(["count", "gpt2", "--rank", "8", "--memory", *options]) == 0
    printed = capsys.readouterr().out
    assert (
        "LoRA over float16, QLoRA over nf4. No gradient checkpointing; eager attention" in printed
    )
    assert "memory to train, adafactor" in printed
    assert run(["count", "100x120", "--rank", "8", "--memory"]) == 0
    printed = capsys.readouterr().out
    assert "1,760" in printed
    assert "Activations, logits and workspace are not in the total" in printed


def test_the_page_shows_what_the_commands_print() -> None:
    path = Path(__file__).parents[2] / "docs" / "_ext" / "plan_page.py"
    spec = importlib.util.spec_from_file_location("plan_page", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.page() == module.PAGE.read_text(encoding="utf-8"), "python docs/_ext/plan_page.py"


def test_every_example_of_the_help_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"Example: lora-np (plan .*)", costs.plan.help or "")
    assert len(examples) == 3
    for example in examples:
        assert run(shlex.split(example)) == 0


def test_a_remedy_that_cannot_be_counted_is_left_out() -> None:
    found = accounting.plan("gemma-4-26b-a4b", gpu="24GB")
    assert all("attention" not in one.change for one in found.remedies)
    options: dict[str, Any] = {"targets": "all-linear", "exclude": ".*self_attn.*"}
    assert accounting.plan("llama-3.2-1b", gpu="2GB", **options).choices


def test_layers_alone_take_the_usual_targets() -> None:
    found = accounting.plan("llama-3-8b", gpu="24GB", rank=8, layers=[0, 1], methods=["LoRA"])
    assert [(one.targets, one.trainable) for one in found.choices] == [("q_proj,v_proj", 212_992)]


def test_a_family_without_layers_is_named() -> None:
    with pytest.raises(ValueError, match=r"mamba: its family's layers are not described\."):
        accounting.plan({"model_type": "mamba"}, gpu="24GB")
