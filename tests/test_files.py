"""Files that are there whole, or not at all, and nothing left behind."""

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lora_np
from lora_np import adapters
from lora_np.files import decode_text, write_figure, write_whole

KILLED = """
import sys, time
from pathlib import Path
from lora_np.files import write_whole
def write(file):
    file.write(b"half")
    print("writing", flush=True)
    time.sleep(60)
write_whole(Path(sys.argv[1]), write)
"""


def start(path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "writing\n"
    return process


def stop(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
def test_the_next_run_removes_what_a_killed_one_left_and_nothing_else(tmp_path):
    path = tmp_path / "run.npz"
    path.write_bytes(b"old")
    mine = tmp_path / ".run.npz.notes.new"
    mine.write_bytes(b"a user's own")
    stop(start(path))
    assert len(os.listdir(tmp_path)) == 3
    living = start(path)
    write_whole(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"
    assert len(os.listdir(tmp_path)) == 3, "the killed run's is gone, the living one's stays"
    stop(living)
    write_whole(path, lambda file: file.write(b"newer"))
    assert sorted(os.listdir(tmp_path)) == [mine.name, path.name]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / ("x" * 200 + ".json")
    write_whole(path, lambda file: file.write(b"old"))

    def fails(file):
        file.write(b"half")
        raise KeyError

    with pytest.raises(KeyError):
        write_whole(path, fails)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]


def test_a_full_disk_names_the_file_and_not_its_sibling(tmp_path):
    path = tmp_path / "file"

    def fails(file):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(path, fails)
    assert caught.value.filename == str(path)


@pytest.mark.parametrize("kind", ["png", "pdf", "svg", "PNG", "jpg"])
def test_a_figure_is_whole_or_not_there(tmp_path, kind):
    from matplotlib.figure import Figure

    path = tmp_path / f"figure.{kind}"
    write_figure(Figure(), path, dpi=50)
    assert path.stat().st_size > 100
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.skipif(sys.platform == "emscripten", reason="starts a process")
def test_where_files_cannot_be_locked_they_are_written_all_the_same(tmp_path):
    """JupyterLite puts an empty module in the place of fcntl."""
    program = (
        "import sys, types; sys.modules['fcntl'] = types.ModuleType('fcntl')\n"
        "import numpy as np, lora_np as lnp\n"
        "model = lnp.inject(lnp.Linear(np.eye(3)), rank=1, rng=0)\n"
        "for _ in range(2): lnp.adapters.save(model, sys.argv[1], force=True)"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "adapter"], check=True)
    assert adapters.load(tmp_path / "adapter")["linear"].rank == 1


def test_errors_name_the_path_that_was_given(tmp_path):
    for path, named in (("file/table.csv", "file"), ("folder", "folder")):
        (tmp_path / "file").write_text("mine")
        (tmp_path / "folder").mkdir(exist_ok=True)
        with pytest.raises(OSError, match="directory") as caught:
            write_whole(tmp_path / path, lambda file: file.write(b"new"))
        assert caught.value.filename == str(tmp_path / named)


def test_missing_folders_are_made(tmp_path):
    write_whole(tmp_path / "a" / "b" / "table.csv", lambda file: file.write(b"new"))
    assert (tmp_path / "a" / "b" / "table.csv").read_bytes() == b"new"


@pytest.mark.parametrize(
    "place", ["adapters.save", "adapters.resize", "safetensors.save", "gguf.write"]
)
def test_an_empty_path_is_not_the_current_directory(place, tmp_path, monkeypatch):
    from lora_np.hub import gguf, safetensors

    module = adapters.AdapterModule.of(A=np.ones((2, 3)), B=np.ones((4, 2)), alpha=1)
    for name in ("adapter", "here"):
        adapters.save(adapters.Adapter({"q": module}), tmp_path / name)
    monkeypatch.chdir(tmp_path / "here")
    writes = {
        "adapters.save": lambda: adapters.save(adapters.Adapter({"q": module}), "", force=True),
        "adapters.resize": lambda: adapters.resize("../adapter", "", rank=1, force=True),
        "safetensors.save": lambda: safetensors.save({"q": np.eye(2)}, ""),
        "gguf.write": lambda: gguf.write(
            {"q": gguf.TensorInfo("F32", (2, 2))}, lambda _: np.eye(2), ""
        ),
    }
    with pytest.raises(ValueError, match="the path to write to must not be empty, got ''"):
        writes[place]()
    assert adapters.load(tmp_path / "here")["q"].rank == 2


@pytest.mark.parametrize("form", ["svg", "png", "pdf"])
def test_the_same_figure_is_the_same_file(form):
    from matplotlib.figure import Figure

    from lora_np.files import picture

    def drawn(height):
        figure = Figure()
        figure.add_subplot().plot([1, height])
        return picture(figure, form)

    assert drawn(2) == drawn(2)
    assert drawn(2) != drawn(3)


# Who writes without `lora_np.files`, and why nobody sees a half of it.
WRITERS = {
    "adapters/merging.py": "into the directory that `replacing` makes",
    "adapters/repairing.py": "into the directory that `replacing` makes",
    "adapters/peft_format.py": "into the directory that `replacing` makes",
    "adapters/spectra.py": "beside the directory that `replacing` makes",
    "course/widgets.py": "into memory",
    "exercises/checks/build_a_lora.py": "a question for a student's function, in a temporary directory",
    "grading/confine.py": "a probe, in the sandbox's own directory",
    "mini.py": "shows how short a file of two factors is",
    "language/storing.py": "into the directory that `replacing` makes",
    "training/checkpoint.py": "into the file that `write_whole` makes",
}
WRITES = {"write_text", "write_bytes", "save", "savez", "savefig", "copyfile", "copy2", "copytree"}


def writes(path):
    """Whether a file of the package calls what writes to the disk."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = (
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        )
        owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        texts = {
            word.value
            for word in ast.walk(node)
            if isinstance(word, ast.Constant) and isinstance(word.value, str)
        }
        if (
            name == "open"
            and texts & {"w", "wb", "a", "ab", "x", "xb"}
            and "devnull" not in ast.unparse(node)
        ):
            return True
        # a function of ours may be called save or write_text too
        if (
            name in WRITES
            and owner
            and owner not in ("adapters", "safetensors", "language", "gguf", "self.store")
        ):
            return True
    return False


def test_nothing_is_written_but_by_the_functions_that_write_whole():
    package = Path(lora_np.__file__).parent
    found = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if writes(path)}
    assert found - {"files.py"} == WRITERS.keys()


ENCODINGS = {
    "UTF-8": "utf-8", "UTF-8 with a mark": "utf-8-sig", "UTF-16 with a mark": "utf-16",
    "UTF-16 without a mark": "utf-16-le", "big end first": "utf-16-be", "Windows": "cp1252",
    "big end first, with a mark": "utf-16-be",
}  # fmt: skip
MARKS = {"big end first, with a mark": b"\xfe\xff"}
WORDS = ["def f(x):", "\treturn 2 * x", "# naïve café, „quoted“ – 5 €", "", "s = 'α'"]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ENCODINGS)
def test_text_is_the_same_in_each_encoding_and_with_any_ends_of_lines(name, ending):
    rng = np.random.default_rng(3)
    for _ in range(50):
        lines = [WORDS[i] for i in rng.integers(len(WORDS) - (name == "Windows"), size=9)]
        text = ending.join([WORDS[0], *lines])
        content = MARKS.get(name, b"") + text.encode(ENCODINGS[name])
        assert decode_text(content) == text.replace(ending, "\n")


@pytest.mark.parametrize("content", [
    b"PK\x03\x04\x14\x00\x00\x00\x08\x00", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", bytes(9), b"\0\0", b"a\0b",
    b"\xff\xfea", b"\xff\xfe\x00\xd8a\0", b"\xff\xfe\0\0a\0\0\0", b"\x81\x8d", bytes(range(256)),
    "naïve".encode("utf-16-be")[:-1], "def f(x):".encode("utf-32-le"),
])  # fmt: skip
def test_what_is_not_text_is_refused(content):
    with pytest.raises(ValueError, match="not text in UTF-8, UTF-16 or Windows-1252"):
        decode_text(content)


def test_random_bytes_are_not_text():
    rng = np.random.default_rng(0)
    for size in (1_000, 3_000):
        for _ in range(100):
            with pytest.raises(ValueError, match="not text"):
                decode_text(rng.bytes(size))
