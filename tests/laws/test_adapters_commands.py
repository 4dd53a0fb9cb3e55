"""The commands on adapters and checkpoints, as real processes and from the inside."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from lora_np import adapters
from lora_np.cli import run
from lora_np.hub import safetensors
from lora_np.models import open_gguf
from tests.adapters.test_gguf_merging import weak
from tests.models.test_gguf_vocabulary import write


@pytest.fixture
def command(capsys):
    """Run a command in this process; its status, output and complaint."""

    def run_command(*arguments):
        status = run([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return run_command


def test_every_command_makes_what_its_function_makes(
    command, make_adapter, make_checkpoint, tmp_path
):
    base, a, b = make_checkpoint("base"), make_adapter("a"), make_adapter("b", seed=1)
    for name, arguments in {
        "small": ("resize", a, "--rank", 1),
        "least": ("resize", a, "--budget", 1000),
        "both": ("combine", f"{a}=0.5", b, "--method", "cat"),
        "merged": ("merge", base, a),
        "back": ("extract", base, tmp_path / "merged", "--energy", "0.999"),
    }.items():
        status, out, err = command(*arguments, "-o", tmp_path / name, "--json")
        assert (status, err) == (0, ""), name
        assert json.loads(out)["rows"]
    assert {module.rank for module in adapters.load(tmp_path / "both").values()} == {4}
    assert command("diff", a, tmp_path / "back", "--tolerance", "1e-3")[0] == 0
    status, out, err = command("diff", a, b)
    assert (status, err) == (3, "")
    assert "different" in out
    assert command("diff", a, tmp_path / "nowhere")[0] == 1


def test_merge_writes_a_gguf_file(command, tmp_path):
    write(tmp_path / "base.gguf", kind="Q4_1", head=True)
    config = open_gguf(tmp_path / "base.gguf").config
    adapters.save(weak(config, 0.002), tmp_path / "a")
    words = ("merge", tmp_path / "base.gguf", tmp_path / "a", "-o", tmp_path / "new.gguf")
    status, out, err = command(*words, "--modelfile")
    assert (status, err) == (0, "")
    assert "take --dtype Q8_0" in out
    assert f"ollama create new -f {tmp_path / 'Modelfile'}" in out
    before = (tmp_path / "new.gguf").read_bytes()
    assert command(*words)[0] == 2
    options = ("--force", "--any-base", "--json")
    for more, least in ((("--rounding", "random", "--seed", 1), 0.7), (("--dtype", "q8_0"), 0.95)):
        status, out, err = command(*words, *more, *options)
        assert (status, err) == (0, "")
        assert json.loads(out)["rows"][0]["share kept"] > least
        assert (tmp_path / "new.gguf").read_bytes() != before
    for more in (("--jobs", 2), ("--dtype", "Q2_K"), ("--rounding", "up")):
        status, _, err = command(*words, *more, "--force")
        assert status in (1, 2)
        assert err.count("\n") == 1


def test_inspect_prints_a_table_and_draws(command, make_adapter, make_checkpoint, tmp_path):
    status, out, err = command(
        "inspect", make_adapter("a"), "--base", make_checkpoint("base"),
        "--html", tmp_path / "a.html", "--plot", tmp_path / "a.png",
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert "amplification" in out
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "a.html").read_text()
    assert "http" not in page.replace("http://www.w3.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "").replace("https://matplotlib.org", "")
    ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])


def test_a_picture_next_to_an_adapter_in_one_file_is_replaced(command, tmp_path):
    factors = {"lora_down.weight": np.ones((1, 4)), "lora_up.weight": np.ones((3, 1))}
    tensors = {f"lora_unet_q.{name}": x for name, x in factors.items()}
    safetensors.save(tensors, tmp_path / "a.safetensors", dtype="float32")
    for status in (0, 2, 0):
        force = ["--force"] * (status == 0)
        words = ("inspect", tmp_path / "a.safetensors", "--plot", tmp_path / "a.png", *force)
        assert command(*words)[0] == status


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (
            ["inspect", "nowhere"],
            1,
            "nowhere: no such directory, and nothing is downloaded; shipped: ",
        ),
        (
            ["inspect", "user/my-lora"],
            1,
            "user/my-lora: no such directory, and nothing is downloaded",
        ),
        (["combine", "a", "a", "--weights", "1", "-o", "out"], 2, "as ADAPTER=WEIGHT"),
        (
            ["resize", "a", "-o", "out"],
            2,
            "give one of rank, energy, tolerance, budget, total_rank, got none",
        ),
        (["resize", "a", "-o", "out", "--rank", "1", "--energy", "0.9"], 2, "give one of"),
        (["resize", "a", "-o", "out", "--rank", "0"], 2, "rank must be at least 1, got 0"),
        (["resize", "a", "--rank", "1"], 2, "-o"),
        (
            ["resize", "a", "-o", "base", "--rank", "1"],
            2,
            "already exists; pass --force to replace it",
        ),
        (
            ["resize", "a", "-o", "out", "--rank", "1", "--base", "base"],
            2,
            "--base base is for --data",
        ),
        (["combine", "a", "-o", "out", "--base", "nowhere"], 1, "no model 'nowhere'"),
        (["inspect", "a", "--plot", "a/b.png", "--force"], 2, "must not replace 'a/b.png'"),
        (["combine", "a=much", "-o", "out"], 2, "the weight of a must be a number, got 'much'"),
        (
            ["combine", "a", "--method", "tie", "-o", "out"],
            2,
            "got 'tie' (did you mean 'ties'?)",
        ),
        (
            ["merge", "base", "base", "-o", "out"],
            1,
            "a model, not an adapter: it has no adapter_config.json",
        ),
        (["merge", "base", "a", "-o", "out", "--dtype", "Q8_0"], 2, "got 'Q8_0'"),
        (
            ["merge", "base", "a", "-o", "out", "--modelfile"],
            2,
            "--modelfile is for a new model that",
        ),
        (
            ["merge", "base", "a", "-o", "out", "--by-module"],
            2,
            "--by-module is for a new model that",
        ),
        (["extract", "base", "base", "--rank", "1", "-o", "out"], 1, "no weight matrix differs"),
    ],
)
def test_mistakes_are_one_line(
    command, make_adapter, make_checkpoint, tmp_path, monkeypatch, arguments, status, message
):
    (make_adapter("a") / "b.png").touch()
    make_checkpoint("base")
    monkeypatch.chdir(tmp_path)
    got, _, err = command(*arguments)
    assert got == status
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_process_prints_no_progress_into_a_pipe(make_adapter, tmp_path):
    arguments = [
        "resize",
        str(make_adapter("a")),
        "-o",
        str(tmp_path / "out"),
        "--rank",
        "1",
        "--jobs",
        "2",
    ]
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", "lora_np", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "relative error" in result.stdout
