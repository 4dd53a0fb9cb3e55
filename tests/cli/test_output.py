"""Nothing that comes from outside reaches a terminal as a control character."""

import io
import json
import re
import shutil
import sys
import time

import click
import numpy as np
import pytest

from lora_np import adapters, hub, language
from lora_np.checks import printable
from lora_np.cli import output
from lora_np.cli.dispatch import REPORT, run
from lora_np.cli.output import PrintableStream
from lora_np.hub import safetensors
from tests.commands import every_command
from tests.drawing import few

EVIL = "\x1b[31m\x9b\x07\u202e\udc9b"
PARAMETERS = [
    (words, command, parameter)
    for words, command in every_command()
    for parameter in command.params
    if not getattr(parameter, "is_flag", False) and parameter.name not in ("help", "version")
]


def clean(text):
    return all(c.isprintable() or c in "\n\t" for c in text)


def said(capsys, *arguments):
    status = run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert clean(out), out
    assert clean(err), err
    assert REPORT not in err, err
    return status, out + err


@pytest.mark.parametrize(
    ("words", "command", "parameter"), few(PARAMETERS, 8), ids=lambda x: getattr(x, "name", x)
)
def test_every_argument(words, command, parameter, capsys, tmp_path, monkeypatch):
    """Each argument and option of each command gets escapes; the others are plausible."""
    monkeypatch.chdir(tmp_path)
    arguments = words.split()[1:]
    for other in command.params:
        if other is parameter:
            arguments += [EVIL] if isinstance(other, click.Argument) else [other.opts[-1], EVIL]
        elif isinstance(other, click.Argument) and other.required:
            arguments.append("austen")
        elif other.required:
            arguments += [other.opts[-1], "8" if other.name in ("rank", "bits") else "x"]
    status, _ = said(capsys, *arguments)
    assert status in (0, 1, 2, 3)


@pytest.fixture
def evil_adapter(tmp_path):
    """An adapter whose folder, config and tensors hold escapes."""
    folder = tmp_path / f"adapter{EVIL[:-1]}"
    name = f"base_model.model.q{EVIL[:-1]}"
    safetensors.save(
        {
            f"{name}.lora_A.weight": np.ones((1, 3), np.float32),
            f"{name}.lora_B.weight": np.ones((2, 1), np.float32),
        },
        _made(folder) / "adapter_model.safetensors",
    )
    settings = {
        "peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": [f"q{EVIL[:-1]}"],
        "base_model_name_or_path": EVIL[:-1], "revision": EVIL[:-1], "task_type": EVIL[:-1],
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def _made(folder):
    folder.mkdir()
    return folder


def test_names_in_adapters(evil_adapter, capsys, tmp_path):
    assert adapters.load(evil_adapter).modules
    for number, arguments in enumerate(
        [
            ("inspect", evil_adapter),
            ("inspect", evil_adapter, "--json"),
            ("check", evil_adapter),
            ("check", evil_adapter, "--json"),
            ("diff", evil_adapter, "king-james"),
            ("overlap", evil_adapter, evil_adapter),
            ("resize", evil_adapter, "--rank", "1", "-o"),
            ("combine", evil_adapter, "-o"),
            ("convert", evil_adapter, "--to", "peft", "-o"),
            ("convert", evil_adapter, "--to", "portable", "-o"),
            ("convert", evil_adapter, "--to", "gguf", "-o"),
            ("merge", "austen", evil_adapter, "--any-base", "-o"),
            ("count", "llama-3-8b", "--config", evil_adapter / "adapter_config.json"),
            ("generate", "austen", "--adapter", evil_adapter, "--tokens", "1"),
        ]
    ):
        written = [tmp_path / f"{number}{EVIL[:-1]}"] if arguments[-1] == "-o" else []
        said(capsys, *arguments, *written)


def test_fields_and_tokens_of_models(capsys, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(hub.directory("austen"), model)
    config = json.loads((model / "config.json").read_text("utf-8"))
    tokenizer = json.loads((model / "tokenizer.json").read_text("utf-8"))
    austen = language.load("austen")
    evil = language.Characters("\x1b\x9b\x07" + austen.vocabulary.characters[3:])
    language.save(austen.__class__(**{**vars(austen), "vocabulary": evil}), tmp_path / "evil")
    said(capsys, "generate", tmp_path / "evil", "--prompt", EVIL)
    _, text = said(capsys, "generate", tmp_path / "evil", "--prompt", "\x1b\x9b", "--tokens", 50)
    assert r"\x1b" in text
    for field in few(list(config), 5):
        (model / "config.json").write_text(json.dumps({**config, field: EVIL[:-1]}), "utf-8")
        said(capsys, "generate", model, "--tokens", 1)
        said(capsys, "count", model)
    (model / "config.json").write_text(json.dumps(config), "utf-8")
    for field in few(list(tokenizer), 5):
        (model / "tokenizer.json").write_text(json.dumps({**tokenizer, field: EVIL[:-1]}), "utf-8")
        said(capsys, "generate", model, "--tokens", 1)


def test_texts_to_train_on(capsys, tmp_path):
    for name, content in [
        ("a.txt", f"It was so. {EVIL[:-1]}" * 20),
        ("a.jsonl", json.dumps({"prompt": EVIL[:-1], "completion": EVIL[:-1]}) * 3),
        ("a.csv", f"prompt,{EVIL[:-1]}\na,b\n"),
        (f"{EVIL[:-1]}.csv", f"{EVIL[:-1]}\n"),
    ]:
        (tmp_path / name).write_text(content, "utf-8", newline="")
        said(capsys, "finetune", "austen", tmp_path / name, "-o", tmp_path / "out", "--dry-run")


@pytest.mark.skipif(sys.platform == "emscripten", reason="no processes in a browser")
def test_file_names_of_submissions(capsys, tmp_path):
    code = f"# {EVIL[:-1]}\nraise ValueError({EVIL[:-1]!r})"
    (tmp_path / f"{EVIL[:-1]}.py").write_text(code, encoding="utf-8")
    said(capsys, "exercises", "check", tmp_path / f"{EVIL[:-1]}.py")
    said(capsys, "exercises", "grade", tmp_path, "-o", tmp_path.parent / "grades.csv", "--json")


def test_bars_may_return_to_the_start_of_their_line():
    stream = io.StringIO()
    output = PrintableStream(stream)
    for text in ("\r 10 %", "a\rb", "\x1b[A", "plain\n", ""):
        assert output.write(text) == len(text)
    assert stream.getvalue() == "\r 10 %a\\rb\\x1b[Aplain\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_pictures_are_drawn_in_the_letters_that_an_encoding_has(encoding):
    from lora_np.checks import ASCII

    raw, picture = io.BytesIO(), "".join(ASCII)
    stream = io.TextIOWrapper(raw, encoding=encoding)
    PrintableStream(stream).write(f"{picture}\N{SNOWMAN}")
    stream.flush()
    drawn = raw.getvalue().decode(encoding)
    if encoding == "utf-8":
        assert drawn == f"{picture}\N{SNOWMAN}"
    else:
        assert (
            drawn
            == "".join(
                c if encoding == "cp1252" and c == "\N{MIDDLE DOT}" else ASCII[c] for c in picture
            )
            + "\\u2603"
        )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_the_encoding_lacks_is_escaped(encoding):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    PrintableStream(stream).write("W₀ \udc9b")
    stream.flush()
    assert raw.getvalue().decode(encoding) in ("W\\u2080 \\udc9b", "W₀ \\udc9b")


def test_text_without_control_characters_is_unchanged():
    text = "h = W0 x + (α/r) B A x\n\tβ"
    assert printable(text, keep="\n\t") == text


@pytest.mark.skipif(sys.platform == "emscripten", reason="no threads in a browser")
@pytest.mark.parametrize("terminal", [True, False])
def test_a_line_shows_now_and_then_that_a_command_runs(terminal, monkeypatch, capsys):
    monkeypatch.setattr(output, "SECONDS", 0.01)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    lines = []
    with output.printable_output():
        for _ in range(30 if terminal else 6000):
            time.sleep(0.01)
            lines += capsys.readouterr().err.splitlines()
            if len(lines) > 2:
                break
    assert (len(lines) > 2) != terminal
    assert all(re.fullmatch(r"running for \d+ s", line) for line in lines)
