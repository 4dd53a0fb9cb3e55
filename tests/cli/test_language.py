"""`lora-np finetune` and `generate` as their user meets them: what is typed wrong, Ctrl-C, kill
-9.
"""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import lora_np as lnp
from lora_np import adapters, language
from lora_np.cli import run
from tests.drawing import FULL
from tests.language.conftest import random_model


def test_commands_from_text_to_adapter_to_text(model, text, tmp_path, capsys):
    language.save(model, tmp_path / "base")
    (tmp_path / "text.txt").write_text(text)
    base, adapter = str(tmp_path / "base"), str(tmp_path / "adapter")
    command = [
        "finetune",
        base,
        str(tmp_path / "text.txt"),
        "-o",
        adapter,
        "--steps",
        "6",
        "--prompt",
        "the ",
    ]
    assert run([*command, "--sample-every", "3", "--targets", "q_proj,v_proj"]) == 0
    out, err = capsys.readouterr()
    assert "held-out loss" in out
    assert [line.split(":")[0] for line in err.splitlines() if line.startswith("After")] == [
        f"After {n} steps" for n in (0, 3, 6)
    ]
    assert run([*command]) == 2
    assert "--force" in capsys.readouterr().err
    assert run(["generate", base, "--adapter", adapter, "--prompt", "the ", "--tokens", "9"]) == 0
    adapted = capsys.readouterr().out
    assert adapted.startswith("the ")
    assert len(adapted) == 4 + 9 + 1
    shutil.rmtree(tmp_path / "adapter")
    assert run(["generate", base, "--adapter", adapter]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("more", [[], ["--patience", "1"]])
def test_a_run_that_diverges_writes_nothing(tmp_path, capsys, more):
    (tmp_path / "text.txt").write_text(language.read_text("genesis")[:4000])
    command = ["finetune", "austen", str(tmp_path / "text.txt"), "-o", str(tmp_path / "adapter")]
    command += ["--steps", "4", "--max-length", "64", "--lr", "1e4", "--sample-every", "0"]
    assert run([*command, *more]) == 1
    err = capsys.readouterr().err
    assert "learning rate below 1" in err
    assert err.count("\n") == 2
    assert not (tmp_path / "adapter").exists()


def test_what_is_learnt_by_heart_is_written_with_a_warning(model, tmp_path, monkeypatch, capsys):
    """A model that knows the end of a text forgets it over the rest."""
    end = "a zyx. " * 60
    known = language.finetune(model, end * 2, alpha=16, steps=40, lr=0.03, progress=False)
    language.save(lnp.merge(known.model), tmp_path / "base")
    (tmp_path / "text.txt").write_text("the king went home.\n" * 150 + end)
    monkeypatch.chdir(tmp_path)
    command = "finetune base text.txt -o adapter --alpha 16 --steps 20 --lr 0.03 --sample-every 0"
    assert run(command.split()) == 0
    assert capsys.readouterr().err == (
        "text.txt: one text\nOnly the training loss fell (overfitting): try fewer steps or a longer text\n"
    )
    assert (tmp_path / "adapter" / "adapter_config.json").is_file()


@pytest.fixture
def place(model, text, tmp_path, monkeypatch):
    """A folder with a model and a text, in which the commands run."""
    language.save(model, tmp_path / "base")
    (tmp_path / "text.txt").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def changed_config(**changes):
    file = Path("base/config.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def written(content):
    Path("text.txt").write_bytes(content)


def test_directories_are_made_and_an_adapter_may_be_one_of_its_files(place, capsys):
    for out in ("new/place/style", "newer/place/style.gguf"):
        assert (
            run(f"finetune base text.txt -o {out} --rank 1 --steps 9 --sample-every 0".split()) == 0
        )
        assert (place / out).exists()
    capsys.readouterr()
    said = []
    for adapter in ("new/place/style", "new/place/style/adapter_model.safetensors"):
        assert (
            run(f"generate base --adapter {adapter} --prompt the --tokens 5 --seed 0".split()) == 0
        )
        said.append(capsys.readouterr())
    assert said[0] == said[1]


def test_what_is_shipped_has_a_name_in_every_command(place, capsys):
    for command in (
        "finetune austen genesis -o adapter --rank 1 --steps 1 --max-length 64 --sample-every 0",
        "inspect king-james --base austen",
        "resize king-james --rank 2 -o small",
        "combine king-james=0.5 small -o both",
        "extract austen austen --rank 2 -o nothing",
        "diff king-james genesis-by-peft",
        "count austen --rank 8",
        "plan austen --gpu 24GB",
    ):
        found = run(command.split())
        err = capsys.readouterr().err
        assert "no such" not in err
        assert found == {"extract": 1, "diff": 3}.get(command.split()[0], 0), err
    assert run(["merge", "austen", "adapter", "-o", "merged"]) == 0
    assert language.load("merged").context == 256
    assert adapters.load("king-james").path == language.located_adapter("king-james")
    # what is there goes first
    shutil.copytree("small", "king-james")
    assert run(["diff", "king-james", "small"]) == 0
    shutil.copytree("base", "austen")
    assert language.load("austen").context == 32


TUNE = "finetune base text.txt -o adapter --steps 2"
TOLD = ("text.txt: one text", "After 0 steps")  # what a run says before anything goes wrong


@pytest.mark.parametrize(
    ("prepare", "command", "words"),
    [
        (
            lambda: changed_config(model_type="bert"),
            TUNE,
            "model_type must be one of .*'gemma'.*got 'bert'$",
        ),
        (lambda: changed_config(model_type="lama"), "generate base", "got 'lama'$"),
        (lambda: os.remove("base/tokenizer.json"), TUNE, "no tokenizer.json in its directory"),
        (
            lambda: os.remove("base/tokenizer.json"),
            "generate base",
            "no tokenizer.json in its directory",
        ),
        (lambda: os.remove("base/config.json"), TUNE, "config.json: no such file"),
        (lambda: written(b"the sea"), TUNE, "7 tokens, which is too short.* more than 32"),
        (lambda: written(b" \n"), TUNE, "text.txt is empty"),
        (
            lambda: written(bytes(range(256)) * 9),
            TUNE,
            "text.txt: not text in UTF-8",
        ),
        (lambda: written(b"the\0sea"), TUNE, "text.txt: not text in UTF-8"),
        (
            lambda: written(b"The sea. " * 99),
            TUNE,
            "vocabulary has no 'T' .character 1 of the text",
        ),
        (lambda: os.remove("text.txt"), TUNE, "text.txt: No such file"),
        (None, "generate base --prompt R2D2", "vocabulary has no 'R'"),
        (None, f"{TUNE} --prompt R2D2", "vocabulary has no 'R'"),
        (
            None,
            f"{TUNE} --targets qproj",
            "targets: .qproj. matches no module of .*; close names: q_proj",
        ),
        (
            None,
            f"{TUNE} --rank 0",
            "rank must be at least 1, got 0",
        ),
        (None, f"{TUNE} --rank 99999999999", "rank must be between .* size = 16, got 99999999999"),
        (
            None,
            f"{TUNE} --lr 1e-308 --sample-every 0",
            "took the held-out loss from .* rate above 1e-308",
        ),
        (None, f"{TUNE} --alpha 1e-300 --sample-every 0", "took the held-out loss from"),
        (None, f"{TUNE} --lr -1", "lr must be above 0"),
        (
            None,
            f"{TUNE} --lr 1e30 --steps 9 --sample-every 0",
            "loss is nan at step .*learning rate below",
        ),
        (
            None,
            f"{TUNE} --sample-every 2 --validate-every 3",
            "must equal validate_every, got 2 and 3",
        ),
        (None, f"{TUNE} --dry-run --html page.html", "leave out --html and --plot"),
        (None, f"{TUNE} --dry-run --plot losses.png", "leave out --html and --plot"),
        (None, f"{TUNE} --quantised", "^lora-np: base holds no quantised weights"),
        (
            None,
            f"{TUNE} --resume",
            "--resume. needs a file to continue from: checkpoint= .--checkpoint",
        ),
        (None, f"{TUNE} --checkpoint text.txt", "text.txt is not a whole checkpoint"),
        (
            None,
            f"{TUNE} --checkpoint none/run.npz",
            "none: no such directory to write run.npz into",
        ),
        (
            None,
            "finetune base text.txt -o text.txt/adapter",
            "text.txt' is not a directory to write adapter into",
        ),
        (None, "finetune base text.txt -o base --force", "base holds no adapter"),
        (
            None,
            "generate base --adapter king-james --prompt the",
            "hidden_size is 16, but 128 in .*austen: not the same base",
        ),
        (
            None,
            "generate base --adapter nobody",
            "nobody: no such directory, and nothing is downloaded; shipped: austen, .*king-james",
        ),
        (
            None,
            "finetune base genesi -o adapter",
            "genesi: No such file; shipped texts: austen-held-out, .*genesis",
        ),
        (
            None,
            "merge ausen king-james -o adapter",
            "ausen: no such directory, and nothing is downloaded; shipped: austen",
        ),
        (
            None,
            "generate ausen",
            "ausen: no such directory, and nothing is downloaded; shipped: austen",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_line(place, capsys, prepare, command, words):
    if prepare is not None:
        prepare()
    assert run(command.split()) in (1, 2)  # which of them, tests/laws/test_commands.py holds
    err = capsys.readouterr().err
    assert re.search(words, err)
    assert [line for line in err.splitlines() if not line.startswith(TOLD)] == err.splitlines()[-1:]
    assert not (place / "adapter").exists()


NUMBERS = [
    "99999999999",
    "1e308",
    "1e-308",
    "5e-324",
    "1e-30",
    "nan",
    "inf",
    "-1",
    "0",
    "0.5",
    "1e999",
    "x",
]


@pytest.mark.parametrize(
    "option", ["rank", "alpha", "batch-size", "max-length", "lr", "dropout", "sample-every", "seed"]
)
def test_any_number_for_an_option_of_finetune_is_taken_or_refused_in_a_line(place, capsys, option):
    usual = {"steps": "1", "rank": "1", "batch-size": "2", "max-length": "16", "sample-every": "0"}
    for value in NUMBERS:
        options = [
            word
            for name, each in ({**usual, option: value}).items()
            for word in (f"--{name}", each)
        ]
        said = run(
            [
                "finetune",
                "base",
                "text.txt",
                "-o",
                "adapter",
                "--force",
                "--prompt",
                "the",
                *options,
            ]
        )
        err = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(TOLD)]
        if said:
            assert said in (1, 2)
            assert [line for line in err if line.startswith("lora-np: ")] == err[-1:], (value, err)
        else:
            with contextlib.suppress(FloatingPointError):  # an adapter of huge numbers
                assert language.generate(opened(place), "the ", tokens=3)


def opened(place):
    return adapters.attach(language.load(place / "base"), adapters.load(place / "adapter"))


@pytest.mark.parametrize("option", ["tokens", "temperature", "top-p", "seed"])
def test_any_number_for_an_option_of_generate_is_taken_or_refused_in_a_line(place, capsys, option):
    for value in NUMBERS[option == "tokens" :]:  # very many tokens only take very long
        options = {"tokens": "9", "prompt": "the", option: value}
        said = run(
            [
                "generate",
                "base",
                *(w for name, each in options.items() for w in (f"--{name}", each)),
            ]
        )
        out, err = capsys.readouterr()
        assert out.startswith("the") if said == 0 else err.splitlines()[-1].startswith("lora-np: ")
        assert said in (0, 1, 2)
        if option == "temperature" and value in ("1e-308", "5e-324"):
            assert (
                out
                == language.generate(language.load("base"), "the", tokens=9, temperature=0) + "\n"
            )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("source", ["text.txt", "/dev/zero"])
def test_a_text_that_has_no_end_is_refused_not_read(place, capsys, source):
    os.remove("text.txt")
    os.mkfifo("text.txt")
    assert run(TUNE.replace("text.txt", source).split()) == 1
    assert capsys.readouterr().err == f"lora-np: {source}: not a regular file\n"


@pytest.mark.parametrize("source", ["text.txt", "-"])
def test_a_text_that_is_too_long_is_refused(place, capsys, monkeypatch, source):
    monkeypatch.setattr("lora_np.language.storing.MAX_TEXT", 3_000)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the sea " * 400)))
    written(b"the sea " * 400)
    assert run(TUNE.replace("text.txt", source).split()) == 1
    name = "standard input" if source == "-" else source
    assert capsys.readouterr().err == (
        f"lora-np: {name} has more than 3,000 bytes; use a part of it\n"
    )


# A process of its own, to be stopped at any moment

LONG = "finetune base text.txt -o adapter --rank 2 --steps 60 --batch-size 32 --dropout 0.1 --sample-every 0"


def started(command):
    arguments = [sys.executable, "-m", "lora_np", *command.split()]
    alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=alone,
        # which in the background is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(condition, process):
    while process.poll() is None and not condition():
        time.sleep(0.001)


def saved(place):
    return (place / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_run_killed_at_any_moment_is_resumed_bit_for_bit(place):
    """Killed with nothing saved, at the first checkpoint and after each further few of them; then
    left alone.
    """
    whole = started(LONG)
    notes = "text.txt: one text\n20 epochs: after ten, most models memorise\n"
    assert whole.communicate()[1] == notes
    expected = saved(place)
    shutil.rmtree(place / "adapter")
    file, resumed, rng = (
        place / "run.npz",
        f"{LONG} --checkpoint run.npz --resume",
        np.random.default_rng(0),
    )
    reached = []
    for kill in range(5 if FULL else 3):
        process = started(resumed)
        before = steps_in(file)
        if kill:
            wait_for(lambda before=before, kill=kill: steps_in(file) >= before + 3 * kill, process)
        time.sleep(rng.uniform(0, 0.02))
        process.kill()
        process.communicate()
        reached.append(steps_in(file))
        assert not (place / "adapter").exists()
    assert reached == sorted(reached)
    assert 0 < reached[1] < reached[-1] < 60
    last = started(resumed)
    assert last.communicate()[1] == notes
    assert saved(place) == expected
    # and the file is of no use to another run
    other = started(resumed.replace("--rank 2", "--rank 3") + " --force")
    assert re.search(
        "run.npz belongs to another run: its rank is 2, here it is 3$", other.communicate()[1]
    )
    assert other.returncode == 1


def test_a_checkpoint_of_another_run_says_what_differs(place, text, capsys):
    command = (
        "finetune base text.txt -o adapter --rank 1 --steps 1 --sample-every 0 --checkpoint run.npz"
    )
    assert run(command.split()) == 0
    again = f"{command} --resume --force"
    assert run(again.split()) == 0

    def differs(command):
        capsys.readouterr()
        assert run(command.split()) == 1
        return capsys.readouterr().err.split("lora-np: run.npz belongs to another run: ")[1].strip()

    for options, words in [
        ("--rank 2", "its rank is 1, here it is 2"),
        ("--alpha 3", "its alpha is 32.0, here it is 3.0"),
        (
            "--targets q_proj,v_proj",
            "its targets is 'all-linear', here it is list['q_proj', 'v_proj']",
        ),
        ("--steps 2", "its steps is 1, here it is 2"),
        ("--batch-size 4", "its batch_size is 8, here it is 4"),
        ("--max-length 16", "its max_length is 32, here it is 16"),
        ("--lr 0.01", "its lr is 0.014, here it is 0.01"),
        ("--dropout 0.5", "its dropout is 0.0, here it is 0.5"),
        ("--seed 1", "its rng is 0, here it is 1"),
    ]:
        assert differs(f"{again} {options}") == words
    written(text.replace("king", "duke").encode())
    assert differs(again) == "what differs is the data"
    written(text.encode())
    language.save(random_model(rng=1), place / "base", force=True)
    assert differs(again) == "what differs is the model's weights"


def steps_in(file):
    """Steps that a checkpoint has seen: it is whole at every moment."""
    if not file.exists():
        return 0
    with np.load(file) as arrays:
        return len(arrays["loss"])


def test_ctrl_c_keeps_what_was_reached(place, model, text):
    process = started(f"{LONG} --batch-size 4 --steps 5000 --lr 0.01 --checkpoint run.npz")
    wait_for((place / "run.npz").exists, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, err
    steps = int(re.search(r"Stopped after (\d+) steps", err).group(1))
    assert 250 <= steps < 5000
    assert re.search(rf"^ +[\d,]+ +{steps} ", out, re.MULTILINE)
    adapted = adapters.attach(model, adapters.load(place / "adapter"))
    held_out = text[-600:]
    assert (
        language.likelihood(lnp.freeze(adapted), held_out).loss
        < language.likelihood(model, held_out).loss
    )
