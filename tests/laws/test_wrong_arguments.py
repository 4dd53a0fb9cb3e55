"""Arguments in each other's place, and outputs of the wrong name: one line that says what belongs there."""

import tomllib
from pathlib import Path

import pytest

from benchmarks import _gguf
from lora_np import adapters
from lora_np.cli import run
from tests.commands import every_command
from tests.drawing import every

CASES = tomllib.loads(Path(__file__).with_name("wrong_arguments.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def smaller(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smaller") / "smaller"
    adapters.resize("king-james", folder, rank=1)
    return folder


@pytest.fixture
def here(smaller, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smaller").symlink_to(smaller)
    (tmp_path / "prompt.txt").write_text("Answer in verse. ")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "words"),
    [(case[0], case[1:]) for kind in ("swapped", "base", "sizes") for case in CASES[kind]],
)
def test_one_line_says_what_belongs_there(command, words, here, capsys):
    assert run(command.split()) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    for word in words:
        assert word in err
    assert sorted(path.name for path in here.iterdir()) == ["prompt.txt", "smaller"]


def outputs(name):
    """The commands that write a directory (out, folder) or a page (html), with other arguments."""
    for words, command in every_command():
        by_name = {parameter.name: parameter for parameter in command.params}
        if name in by_name and by_name[name].type.name == "path":
            needed = [
                "1"
                for parameter in command.params
                if parameter.param_type_name == "argument" and parameter.name != name
            ]
            option = [] if by_name[name].param_type_name == "argument" else [f"--{name}"]
            yield words.split()[1:] + needed, option


FOLDERS = [
    case
    for name in ("out", "folder")
    for case in outputs(name)
    if case[0] != ["exercises", "grade", "1"]
]


def test_the_commands_that_write_are_found():
    assert {word for words, _ in FOLDERS for word in words} >= {
        "bake", "combine", "convert", "extract", "finetune", "lab", "merge", "nbgrader", "repair",
        "resize", "start", "tour",
    }  # fmt: skip
    assert {words[0] for words, _ in outputs("html")} == {
        "inspect", "finetune", "evaluate", "bake",
    }  # fmt: skip


@every("words, option, target", [(*case, end) for case in FOLDERS for end in CASES["folders"]])
def test_no_directory_is_called_like_a_file(words, option, target, here, capsys):
    assert run([*words, *option, target]) == 2
    assert (
        f"must name a directory or a .gguf file, got '{target}'" in (err := capsys.readouterr().err)
        or f"must name a directory, got '{target}'" in err
    )
    assert not Path(target).exists()


@pytest.mark.parametrize("command", ["finetune austen genesis", "bake austen --prompt prompt.txt"])
@pytest.mark.parametrize("target", CASES["images"])
def test_an_adapter_that_is_trained_is_no_file_for_image_models(command, target, here, capsys):
    assert run([*command.split(), "-o", target]) == 1
    told = f"lora-np: {target}: a file for image models; name a directory or a .gguf file\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("target", CASES["pages"])
@pytest.mark.parametrize(("words", "option"), [*outputs("html")])
def test_a_page_ends_in_html(words, option, target, here, capsys):
    assert run([*words, *option, target]) == 2
    assert f"must end in .html, got '{target}'" in capsys.readouterr().err


def test_grades_are_a_csv_file(here, capsys):
    assert run(["exercises", "grade", ".", "-o", "grades.gguf"]) == 2
    assert "must end in .csv, got 'grades.gguf'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "written"),
    [
        ("resize king-james --rank 1 -o out", ["out"]),
        ("convert king-james --to gguf --base austen -o out.gguf", ["out.gguf"]),
        ("repair king-james --base austen -o out", ["out"]),
        ("combine king-james smaller -o out", ["out"]),
        ("merge austen king-james -o out", ["out"]),
        ("extract austen merged --rank 8 -o out", ["out"]),
        ("inspect king-james --html page.html --plot plot.png", ["page.html", "plot.png"]),
        ("overlap king-james smaller", []),
    ],
)
def test_every_command_says_what_it_wrote(command, written, here, capsys):
    if "merged" in command:
        assert run(["merge", "austen", "king-james", "-o", "merged"]) == 0
        capsys.readouterr()
    assert run(command.split()) == 0
    out, err = capsys.readouterr()
    assert [line for line in out.splitlines() if line.startswith("Written: ")] == [
        f"Written: {name}" for name in written
    ]
    assert "Written" not in err
    assert run([*command.split(), "--json", "--force"]) == 0
    out, err = capsys.readouterr()
    assert "Written" not in out + err  # json is for programs


def test_an_adapter_is_merged_once(here, capsys):
    assert run(["merge", "austen", "king-james", "-o", "merged"]) == 0
    out = capsys.readouterr().out
    assert "not here" not in out  # its base ships
    assert (
        "not copied, since they are unmerged weights or adapters, or describe the base: README.md"
        in out
    )
    assert not Path("merged", "README.md").exists()
    for command in (
        "merge merged king-james -o twice",
        "generate merged --adapter king-james --tokens 1",
        "inspect king-james --base merged",
    ):
        assert run(command.split()) == 1, command
        assert "has been merged into it already; pass any_base=True (--any-base)" in (
            capsys.readouterr().err
        )
    assert run(["merge", "merged", "smaller", "-o", "both"]) == 0  # another one
    Path("both", "README.md").write_text("mine")
    assert run(["merge", "merged", "king-james", "-o", "both", "--any-base", "--force"]) == 0
    assert Path("both", "README.md").read_text() == "mine"
    assert run(["merge", "both", "king-james", "-o", "thrice"]) == 1


def test_a_note_says_that_a_gguf_file_seems_to_hold_an_adapter(here, capsys):
    _gguf.write("austen", "austen.gguf", kind="Q8_0")
    for command, already in (
        ("merge austen.gguf king-james -o once.gguf", False),
        ("merge once.gguf king-james -o twice.gguf", True),
        ("merge once.gguf devils-dictionary -o both.gguf", False),
        ("merge both.gguf king-james -o twice.gguf --force", True),
    ):
        assert run(command.split()) == 0
        assert ("seems to contain" in capsys.readouterr().out) == already, command


def test_check_says_which_programs_it_did_not_ask(capsys):
    run(["check", "king-james"])
    assert "not checked, since they run other models: diffusers, comfyui" in capsys.readouterr().out
    run(["check", "king-james", "--for", "peft"])
    assert "not asked" not in capsys.readouterr().out
