"""The law of commands: whatever is asked, a command ends with a status and at most one line.

Every command is drawn with every option: values that are right, on the edge, of another kind;
files that are missing, damaged, directories or pipes; text that a terminal would obey. None of it
may end in a traceback or in the last net, write a control character, or change a user's file.
"""

import hashlib
import io
import json
import os
import random
import re
import shutil
import sys
import threading
import warnings

import click
import numpy as np
import pytest

from lora_np import adapters, language
from lora_np.cli.dispatch import REPORT, run
from lora_np.hub import safetensors
from tests.commands import every_command
from tests.drawing import FULL, every

SETS = 50 if FULL else 2  # each of so many commands, in one directory
DRAWN = 100 if FULL else 25
EVIL = "\x1b[31m\x9b\x07\u202e"
# they run long, or open a browser, and have their own tests
LEFT_OUT = {"lora-np tour", "lora-np lab"}
COMMANDS = [(words, command) for words, command in every_command() if words not in LEFT_OUT]
OUTPUTS = {"out", "plot", "html", "checkpoint", "folder"}
WIDTH, LETTERS = 8, "abcdefghIstw \n"
CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": len(LETTERS),
    "hidden_size": WIDTH, "intermediate_size": 12, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "hidden_act": "silu",
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
}  # fmt: skip
SHAPES = {
    "model.embed_tokens": (len(LETTERS), WIDTH), "model.norm": (WIDTH,),
    "model.layers.0.input_layernorm": (WIDTH,), "model.layers.0.post_attention_layernorm": (WIDTH,),
    "model.layers.0.self_attn.q_proj": (WIDTH, WIDTH),
    "model.layers.0.self_attn.k_proj": (4, WIDTH), "model.layers.0.self_attn.v_proj": (4, WIDTH),
    "model.layers.0.self_attn.o_proj": (WIDTH, WIDTH), "model.layers.0.mlp.up_proj": (12, WIDTH),
    "model.layers.0.mlp.gate_proj": (12, WIDTH), "model.layers.0.mlp.down_proj": (WIDTH, 12),
}  # fmt: skip


def make_model(folder, seed, **changes):
    """A language model of one layer."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    weights = {f"{name}.weight": rng.normal(size=shape) for name, shape in SHAPES.items()}
    safetensors.save(
        {name: array.astype(np.float32) for name, array in weights.items()},
        folder / "model.safetensors",
    )
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    (folder / "tokenizer.json").write_text(json.dumps(language.Characters(LETTERS).tokenizer()))


def make_files(place):
    """What commands are asked to read: things as they should be, and others."""
    make_model(place / "model", 0)
    make_model(place / "tuned", 1)
    make_model(place / "empty-model", 2, num_hidden_layers=0)
    make_model(place / "deep-model", 2, num_hidden_layers=3)
    make_model(place / "wide-model", 2, hidden_size=-1, head_dim=0)
    rng = np.random.default_rng(0)
    for name, rank in (("adapter", 2), ("other", 1)):
        modules = {
            path: adapters.AdapterModule.of(
                A=rng.normal(size=(rank, shape[1])).astype(np.float32),
                B=rng.normal(size=(shape[0], rank)).astype(np.float32),
                alpha=2,
            )
            for path, shape in SHAPES.items()
            if len(shape) == 2 and path.endswith("proj")
        }
        adapters.save(adapters.Adapter(modules), place / name)
    adapters.convert(place / "other", place / "other.gguf", to="gguf", base=place / "model")
    text = "a bad cab had a bag\n" * 40
    (place / "text.txt").write_text(text)
    (place / "data.jsonl").write_text('{"prompt": "a", "completion": "bad cab"}\n' * 30)
    (place / "data.csv").write_text("prompt,completion\n" + "a,bad cab\n" * 30)
    (place / "twice.csv").write_text("text,text\n" + "a,bad cab\n" * 30)
    (place / "binary").write_bytes(bytes(range(256)))
    (place / "nothing").write_bytes(b"")
    np.save(place / "M.npy", rng.normal(size=(6, 5)))
    np.save(place / "strange.npy", np.array([[None, 1]], dtype=object))
    grams = language.grams(language.load(place / "model"), text)
    np.savez(place / "grams.npz", **grams)
    (place / "cut.npz").write_bytes((place / "grams.npz").read_bytes()[:-40])
    (place / "folder").mkdir()
    (place / "folder" / "notes.txt").write_text("kept")
    (place / "class").mkdir()
    (place / "class" / "ada.py").write_text("def lora_count(d, k, r):\n    return r * (d + k)\n")
    (place / "roster.csv").write_text("ada\n")
    (place / "picture.png").write_text("kept")
    (place / "page.html").write_text("kept")
    if hasattr(os, "mkfifo"):
        os.mkfifo(place / "pipe")
        (place / "loop").symlink_to("loop")
        (place / "link").symlink_to("text.txt")
    for damage in range(6):
        name = ("adapter", "model")[damage % 2]
        shutil.copytree(place / name, place / f"damaged{damage}")
        target = rng.choice(sorted((place / f"damaged{damage}").iterdir()))
        content = bytearray(target.read_bytes())
        for _ in range(rng.integers(1, 4)):
            content[rng.integers(len(content))] = rng.integers(256)
        target.write_bytes(content)


MODELS = [
    "model",
    "model",
    "model",
    "tuned",
    "tuned",
    "empty-model",
    "deep-model",
    "wide-model",
    "damaged1",
    "damaged3",
]
ADAPTERS = [
    "adapter",
    "adapter",
    "adapter",
    "other",
    "other",
    "other.gguf",
    "damaged0",
    "damaged2",
    "damaged4",
]
TEXTS = [
    "text.txt",
    "text.txt",
    "data.jsonl",
    "text.txt",
    "data.jsonl",
    "data.csv",
    "twice.csv",
    "grams.npz",
    "cut.npz",
]
STRANGE = ["missing", "folder", "nothing", "binary", "pipe", "loop", "link", "", ".", EVIL, "-x"]
STRANGE += ["M.npy", "/dev/null", "model/model.safetensors", "a\nb", "x" * 300, "~", "text.txt/x"]
NUMBERS = [
    "0",
    "1",
    "2",
    "3",
    "8",
    "-1",
    "1e3",
    "0.5",
    "0.99",
    "1.5",
    "nan",
    "inf",
    "-inf",
    "1e400",
]
NUMBERS += [
    "",
    "x",
    "1,2",
    "999999999999999999999",
    "9" * 5000,
    "0x10",
    " 2 ",
    "\u0663",
    "1_0",
    EVIL,
]
SOURCES = ["model", "llama-3-8b", "100x120", "austen", "6x5", "0x3", "adapter", "model/config.json"]
NEW = ["new", "deep/new", "new.gguf", "new.png", "new.html", "new.csv", "new.svg"]
OLD = ["adapter", "other", "folder", "picture.png", "page.html", "model", "M.npy", "roster.csv"]
VALUES = {
    "model": MODELS, "base": MODELS, "tuned": MODELS, "adapter": ADAPTERS, "first": ADAPTERS,
    "second": ADAPTERS, "sources": [*ADAPTERS, "adapter=0.5", "other=-1", "other=x", "adapter=nan"],
    "data": TEXTS, "validation": TEXTS, "source": SOURCES, "matrix": [
        "M.npy", "strange.npy", "grams.npz", "model/model.safetensors:model.norm.weight",
        "model/model.safetensors:model.embed_tokens.weight", "cut.npz", "M.npy:x",
    ],
    "submissions": ["class"], "file": ["class/ada.py"], "roster": ["roster.csv", "data.csv"],
    "config": ["adapter/adapter_config.json", "model/config.json"], "gpu": ["T4", "24GB", "0GB"],
    "targets": ["q_proj", "all-linear", "q_proj,v_proj", "(", ".*", "nowhere"],
    "modules_to_save": ["lm_head", "norm"], "method": ["sum", "svd", "ties", "regmean", "linear"],
    "methods": ["full", "LoRA", "QLoRA"], "on_conflict": ["first", "mean", "refuse"],
    "to": ["peft", "portable", "vllm", "gguf", "mlx", "kohya", "lora"], "runtime": ["vllm", "all", "peft"],
    "dtype": ["float32", "float16", "bfloat16", "nf4", "int8"], "format": ["jsonl", "csv", "text"],
    "name": ["rslora", "lora_count"], "names": ["lora_count"], "only": ["lora_count"],
    "lessons": ["1", "4", "1,2", "99"], "prompt": ["a", "bad", ""], "stop": ["b", ""],
    "system": ["a"], "norm": ["fro", "spectral", "nuclear"], "group_by": ["module", "kind"],
    "experts": ["peft", "per-expert"], "variant": ["lora", "rslora", "dora", "pissa"],
    "schedule": ["linear", "cosine", "constant"], "optimizer": ["adamw", "sgd", "paged_adamw"],
    "rank": ["1", "2"], "max_length": ["8", "16"], "temperature": ["0", "0.7"], "lr": ["0.01"], "hints": ["1"],
    "steps": ["1", "2"], "tokens": ["1", "5"], "warmup": ["0", "1"], "seconds": ["5"],
    "checkpointing": ["1"], "attention": ["eager", "flash"], "cross_entropy": ["fused"],
    "energy": ["0.5", "0.9"], "tolerance": ["0.1", "0.5"], "density": ["0.5"], "jobs": ["1", "2"],
    "budget": ["1KB", "10MB", "1000", "0", "1XB"], "column": ["points", "name"],
}  # fmt: skip
# what keeps a drawn command short, and is never drawn to be large
SHORT = {"steps", "tokens", "seconds", "total_seconds", "student_seconds", "accumulate"}
GOOD = ["1", "2", "0.5", "0.9", "3"]
NEEDED = {"finetune": ("out", "max_length"), "resize": ("rank",), "extract": ("rank",)}
ALWAYS = {"finetune": ["--steps", "1"], "generate": ["--tokens", "2"], "grade": ["--seconds", "2"]}


def value_of(parameter, draw, wild):
    """A value for an argument or an option; one that is unusual with the probability ``wild``."""
    kind, strange = parameter.name, draw.random() < wild
    if kind in OUTPUTS:
        return draw.choice([*OLD, *STRANGE] if strange else NEW)
    usual = VALUES.get(kind, GOOD)
    if not strange:
        return draw.choice(usual)
    return draw.choice(STRANGE if kind in SHORT else [*STRANGE, *NUMBERS, *usual])


def drawn(draw):
    """A command with its arguments; most of what it requires is there."""
    words, command = draw.choice(COMMANDS)
    arguments = words.split()[1:]
    options, wild, often = [], draw.choice([0, 0.03, 0.1, 0.3]), draw.choice([0.02, 0.06, 0.2])
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            count = draw.choice([1, 2, 2, 3]) if parameter.nargs == -1 else 1
            count -= draw.random() < wild / 5
            arguments += [value_of(parameter, draw, wild) for _ in range(count)]
            continue
        needed = parameter.required or parameter.name in NEEDED.get(arguments[0], ())
        if draw.random() > (1 - wild / 5 if needed else often):
            continue
        flag = draw.choice([*parameter.opts, *parameter.secondary_opts])
        options.append([flag] if parameter.is_flag else [flag, value_of(parameter, draw, wild)])
    draw.shuffle(options)
    return [*arguments, *ALWAYS.get(arguments[0], []), *ALWAYS.get(words.split()[-1], []),
            *(word for option in options for word in option)]  # fmt: skip


def state(place):
    """What every file of the user holds."""
    return {
        str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in place.rglob("*")
        if path.is_file()
    }


def broken(status, out, err):
    """What a command that ended so did wrong, or nothing."""
    if status not in (0, 1, 2, 3):
        return f"status {status!r}"
    if REPORT in err:
        return "the last net"
    if "Traceback" in out + err:
        return "a traceback"
    if not all(c.isprintable() or c in "\n\t" for c in out + err):
        return "a control character"
    last = [line for line in err.splitlines() if re.match("lora-np: (?!warning: )", line)]
    if len(last) != (status in (1, 2)) and not (status == 1 and "Points" in out + "Points"):
        return "not one line of error"
    return ""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    place = tmp_path_factory.mktemp("files")
    make_files(place)
    return place


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("finetune empty-model text.txt -o new", "the number of layers must be at least 1, got 0"),
        ("generate empty-model", "the number of layers must be at least 1, got 0"),
        ("finetune model twice.csv -o new", "the column 'text' occurs twice"),
        ("resize adapter --rank -1 --base missing --data text.txt -o new", "rank must be at least"),
        ("resize adapter --rank 1 --base missing --data text.txt -o other", "already exists"),
        ("extract model tuned --rank 0 --data missing -o new", "rank must be at least 1"),
        ("combine adapter other --data missing --data missing --base model -o new", "regmean"),
        ("convert adapter --to lora --tolerance 2 --base missing -o new", "tolerance must be"),
        ("finetune missing missing -o new --steps 0", "steps must be at least 1"),
        ("finetune missing missing -o new --batch-size 0", "batch_size must be at least 1"),
        ("finetune missing missing -o new --schedule x", "schedule must be one of"),
        ("generate missing --tokens -1", "tokens must be at least 0"),
        ("generate missing --top-p 2", "top_p must be above 0 and at most 1"),
    ],
)
def test_arguments_come_first(command, words, files, monkeypatch, capsys):
    """What is wrong with an option is said before files are read, and these before computing."""
    monkeypatch.chdir(files)

    def computed(*_):
        raise AssertionError("computed before all was checked")

    monkeypatch.setattr(language, "grams", computed)
    assert run(command.split()) == (1 if "number of layers" in words or "twice" in words else 2)
    assert words in capsys.readouterr().err


# A value that each option refuses, whatever the files hold.
BAD = {
    "rank": "0", "energy": "2", "tolerance": "-1", "budget": "1XB", "total_rank": "0",
    "jobs": "0", "density": "2", "method": "nothing", "rng": "-1", "on_conflict": "nothing",
    "to": "nothing", "dtype": "nothing", "runtime": "nothing", "norm": "nothing", "targets": "[",
    "modules_to_save": ",", "gpu": "nothing", "methods": "nothing", "experts": "nothing",
    "group_by": "nothing", "bits": "-1", "target_loss": "-1", "lessons": "99", "only": "nothing",
    "names": "nothing", "seconds": "0", "total_seconds": "0", "student_seconds": "0",
    "memory": "0", "hints": "9", "variant": "nothing", "schedule": "nothing", "optimizer": "nothing",
    "unquantised_dtype": "nothing", "adapter_dtype": "nothing", "batch_size": "0",
    "max_length": "0", "attention": "nothing", "cross_entropy": "nothing", "steps": "-1",
    "lr": "0", "warmup": "-1", "weight_decay": "-1", "clip": "0", "dropout": "1", "alpha": "nan",
    "accumulate": "0", "validate_every": "0", "patience": "0", "sample_every": "-1",
    "format": "nothing", "resume": None, "tokens": "-1", "temperature": "-1", "top_k": "-1",
    "top_p": "2", "min_p": "2", "repetition_penalty": "0", "out": "folder",
    "answer_length": "0", "per_sentence": "0", "start": "nothing",
    "plot": "picture.png", "html": "page.html", "checkpoint": "folder", "port": "0",
    "epochs": "0", "answers": "-1", "rounding": "nothing", "weights": "1",
}  # fmt: skip
# what may be any text, or names a file that is read
FREE = {
    "prompt", "system", "stop", "column", "base", "data", "validation", "config", "roster",
    "adapter", "found", "prompt_file", "questions",
}  # fmt: skip
WRONG = [
    (words, command, option)
    for words, command in COMMANDS
    for option in command.params
    if isinstance(option, click.Option) and option.name in BAD
]


def test_every_option_has_a_bad_value_or_none():
    options = {
        option.name
        for _, command in COMMANDS
        for option in command.params
        if isinstance(option, click.Option) and not (option.is_flag and option.name != "resume")
    }
    assert options <= BAD.keys() | FREE


@every(("words", "command", "option"), WRONG)
def test_a_bad_option_is_told_before_a_missing_file(
    words, command, option, files, monkeypatch, capsys
):
    monkeypatch.chdir(files)
    arguments = words.split()[1:]
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            arguments += ["missing", "missing2"][: 2 if parameter.nargs == -1 else 1]
        elif parameter is not option and (
            parameter.required or parameter.name in NEEDED.get(arguments[0], ())
        ):
            goal = option.name in ("energy", "tolerance", "budget", "total_rank")
            if not (goal and parameter.name == "rank"):
                good = "new.csv" if words.endswith("grade") else VALUES.get(parameter.name, NEW)[0]
                arguments += [parameter.opts[-1], good]
    if words == "lora-np count" and option.name not in ("rank", "config"):
        arguments += ["--rank", "1"]
    bad = BAD[option.name]
    assert run([*arguments, option.opts[-1], *([] if bad is None else [bad])]) == 2
    error = capsys.readouterr().err
    assert "missing" not in error, error
    assert option.name in error or option.opts[-1] in error or bad in error, error


# The convention of docs/reference/cli.md: what a status says, and commands that end with it.
STATUSES = {
    0: ["count 100x120 --rank 8", "inspect adapter", "diff adapter adapter", "exercises list"],
    1: [
        "inspect missing", "inspect damaged0", "inspect binary", "count wide-model", "merge model missing -o new",
        "count llama-3-9b", "count llama-3-8b --rank 8 --targets nowhere", "generate empty-model",
        "finetune model twice.csv -o new", "finetune model nothing -o new", "errors strange.npy",
        "convert other --to gguf -o new.gguf", "extract model model --rank 1 -o new",
        "finetune model text.txt -o new --rank 1 --lr 1e30 --steps 3 --max-length 8",
        "exercises check roster.csv",
    ],
    2: [
        "", "nothing", "count", "count 100x120 --rank 8.5", "count 100x120 --rank 0", "count 0x3",
        "count gpt2 --rank 8 --dtype int3", "plan gpt2 --gpu 4091", "plan gpt2 --gpu T4 --method full --rank 8",
        "resize missing -o new", "resize missing --rank 0 -o new", "resize missing --rank 1 --energy 0.9 -o new",
        "combine adapter=much -o new", "convert missing --to nothing -o new", "check missing --for nothing",
        "merge model adapter -o folder", "generate missing --top-p 2", "finetune missing missing -o new --lr 0",
        "capacity austen --rank 0 --bits 9", "exercises list --lesson 99",
    ],
    3: ["diff adapter other", "plan llama-3-70b --gpu 8GB --method full", "check other.gguf --for mlx"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("status", "command"),
    [(status, command) for status, commands in STATUSES.items() for command in commands if command],
)
def test_a_status_says_what_is_wrong(status, command, files, monkeypatch, capsys):
    """A value that can be judged without a file is 2, whatever else is wrong; a file's is 1."""
    monkeypatch.chdir(files)
    assert run(command.split()) == status
    assert len(re.findall("^lora-np: ", capsys.readouterr().err, re.MULTILINE)) == (
        status in (1, 2)
    )


@pytest.mark.parametrize(
    ("command", "said", "canonical"),
    [
        ("plan gpt2 --gpu T4 --optimizer adamw_torch", "adamw_torch: read as adamw\n", "adamw\n"),
        ("plan gpt2 --gpu T4 --dtype BF16", "BF16: read as bfloat16\n", "over bfloat16"),
        ("count gpt2 --rank 8 --dtype fp16", "fp16: read as float16\n", "over float16"),
        ("plan gpt2 --gpu T4 --method QLoRA --dtype 4bit", "4bit: read as nf4\n", "over nf4"),
        (
            "count gpt2 --rank 8 --targets all_linear",
            "all_linear: read as all-linear\n",
            "1,179,648",
        ),
        ("check adapter --for VLLM", "", "vllm"),
        (
            "merge austen king-james -o merged --dtype bf16",
            "bf16: read as bfloat16\n",
            "bfloat16",
        ),
        ("convert adapter --to PEFT -o alias", "", "for peft"),
    ],
)
def test_other_programs_words_are_understood(command, said, canonical, files, monkeypatch, capsys):
    monkeypatch.chdir(files)
    assert run(command.split()) in (0, 3)
    printed = capsys.readouterr()
    assert printed.err == said
    assert canonical in printed.out


@pytest.mark.skipif(sys.platform == "emscripten", reason="no threads in a browser")
def test_more_jobs_than_threads(files, tmp_path, monkeypatch, capsys):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    command = ["resize", str(files / "adapter"), "--rank", "1", "-o"]
    assert run([*command, str(tmp_path / "one"), "--jobs", "1000"]) == 0
    monkeypatch.setattr(threading.Thread, "start", refuse)
    capsys.readouterr()
    assert run([*command, str(tmp_path / "other"), "--jobs", "1000"]) == 1
    assert "jobs must be fewer, got 7: can't start new thread" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_roster_that_is_a_pipe(files, monkeypatch, capsys):
    monkeypatch.chdir(files)
    assert run(["exercises", "grade", "class", "--roster", "pipe", "-o", "new.csv"]) == 1
    assert "pipe: not a regular file" in capsys.readouterr().err


@pytest.mark.parametrize("seed", range(SETS))
def test_every_command_ends_well(seed, files, tmp_path, monkeypatch, capsys):
    draw = random.Random(seed)
    place = tmp_path / "here"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("a\n"))
    count = 0
    while count < DRAWN:
        if not place.exists():
            shutil.copytree(files, place, symlinks=True, copy_function=shutil.copy2,
                            ignore=lambda _, names: [name for name in names if name == "pipe"])  # fmt: skip
            if hasattr(os, "mkfifo"):
                os.mkfifo(place / "pipe")
            monkeypatch.chdir(place)
            before = state(place)
        command = drawn(draw)
        count += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            status = run(command)
        out, err = capsys.readouterr()
        wrong = broken(status, out, err)
        after = state(place)
        if not wrong and before.items() - after.items() and "--force" not in command:
            lost = sorted(name for name, _ in before.items() - after.items())
            wrong = f"changed {lost}"
        assert not wrong, (wrong, command, err[-1500:])
        if after != before:
            monkeypatch.chdir(tmp_path)
            shutil.rmtree(place)
