"""Files that are there whole, or not at all, and nothing left behind."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lora_np
from benchmarks.size import nodes_of
from lora_np import adapters
from lora_np.files import FileError, decode_text, write_figure, write_whole
from tests.drawing import FULL


def names(folder):
    return sorted(os.listdir(folder))


def put(path, data=b"new"):
    write_whole(path, lambda file: file.write(data))


def make_adapter(path, **options):
    module = adapters.AdapterModule.of(A=np.ones((2, 3)), B=np.ones((4, 2)), alpha=1)
    adapters.save(adapters.Adapter({"q": module}), path, **options)


def drawn_name(rng):
    """A name of up to 261 bytes: letters, CJK, combining marks, spaces, a leading dash."""
    kinds = ["abcXYZ019", "\u4e2d\u6587\u5b57", "e\u0301o\u0308", " .", "-", "\U0001f600"]
    size, name = int(rng.integers(1, 262)), "-" * int(rng.integers(2))
    while len(name.encode()) < size:
        letters = kinds[int(rng.integers(len(kinds)))]
        name += letters[int(rng.integers(len(letters)))]
    return name


@pytest.mark.skipif(os.name != "posix", reason="names of POSIX")
def test_any_name_is_written_or_refused_in_a_line_and_nothing_else_is_left(tmp_path):
    rng = np.random.default_rng(0)
    written, refused, messages = set(), set(), []
    drawn = [
        "x" * 255,
        "x" * 256,
        "\u4e2d" * 75,
        "\u4e2d" * 85,
        *(drawn_name(rng) for _ in range(300)),
    ]
    for name in drawn:
        size, path = len(name.encode()), tmp_path / name
        for write in (put, make_adapter):
            try:
                write(path)
            except (OSError, ValueError) as error:
                messages.append(str(error))
                refused.add(size if name not in (".", "..") else 256)
                assert names(tmp_path) == []
            else:
                written.add(size)
                assert names(tmp_path) == [name]
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert max(written) == 255
    assert min(refused) == 256
    assert not any("\n" in message for message in messages)


WRITER = """
import sys
from pathlib import Path
from lora_np.files import write_whole
path, me, times = Path(sys.argv[1]), sys.argv[2].encode(), int(sys.argv[3])
for _ in range(times):
    write_whole(path, lambda file: [file.write(me * 1000) for _ in range(3)])
"""


@pytest.mark.skipif(sys.platform == "emscripten", reason="starts processes")
def test_many_writers_of_one_file_leave_one_whole_version(tmp_path):
    path, writers = tmp_path / "file", "abcdefghijkl" if FULL else "abc"
    times = 20_000 // 12 if FULL else 30
    running = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, path, me, str(times)], stderr=subprocess.PIPE
        )
        for me in writers
    ]
    whole = {me.encode() * 3000 for me in writers}
    while any(process.poll() is None for process in running):
        if path.exists():
            assert path.read_bytes() in whole
    assert [process.communicate()[1] for process in running] == [b""] * len(writers)
    assert path.read_bytes() in whole
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_a_replaced_file_or_directory_keeps_its_mode(tmp_path, mode):
    put(tmp_path / "file", b"old")
    make_adapter(tmp_path / "adapter")
    (tmp_path / "file").chmod(mode)
    (tmp_path / "adapter").chmod(mode | 0o300)
    put(tmp_path / "file")
    make_adapter(tmp_path / "adapter", force=True)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode
    assert (tmp_path / "adapter").stat().st_mode & 0o777 == mode | 0o300


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
def test_a_link_to_a_file_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "home").mkdir()
    for goal in ("home/old", "home/missing"):
        link = tmp_path / f"link to {Path(goal).name}"
        link.symlink_to(goal)
        if "old" in goal:
            put(tmp_path / goal, b"old")
        put(link)
        assert link.is_symlink()
        assert (tmp_path / goal).read_bytes() == b"new"
    assert names(tmp_path / "home") == ["missing", "old"]


@pytest.mark.parametrize("path", ["", "/"])
def test_a_path_needs_a_name(path):
    with pytest.raises(ValueError, match=f"the path to write to must have a name, got '{path}'"):
        make_adapter(path)


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


def test_errors_name_the_path_that_was_given(tmp_path):
    for path, named in (("file/table.csv", "file"), ("folder", "folder")):
        (tmp_path / "file").write_text("mine", encoding="utf-8")
        (tmp_path / "folder").mkdir(exist_ok=True)
        with pytest.raises(OSError, match="directory") as caught:
            write_whole(tmp_path / path, lambda file: file.write(b"new"))
        assert caught.value.filename == str(tmp_path / named)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="a device or a pipe"):
        write_whole(tmp_path / "pipe", lambda file: file.write(b"new"))
    assert (tmp_path / "pipe").is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]


@pytest.mark.skipif(os.name == "nt", reason="modes as POSIX has them")
def test_of_a_read_only_directory_nothing_is_left(tmp_path, monkeypatch):
    seen, remove = [], shutil.rmtree

    def watched(path, **how):
        if os.path.exists(path) and os.path.dirname(path) == str(tmp_path):
            seen.append(os.stat(path).st_mode & 0o777)
        remove(path, **how)

    monkeypatch.setattr(shutil, "rmtree", watched)
    for _ in range(2):
        adapters.resize("king-james", tmp_path / "small", rank=1, force=True)
        (tmp_path / "small").chmod(0o555)
    assert seen == [0o700]  # root, unlike others, could remove what is in a read-only directory
    assert os.listdir(tmp_path) == ["small"]


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
    with pytest.raises(ValueError, match="the path to write to must have a name, got ''"):
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
    for node in nodes_of(path):
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
            and owner not in ("adapters", "safetensors", "language", "gguf", "store")
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


def test_a_text_that_is_cut_within_a_letter_stays_utf_8():
    content = "Ça a débuté comme ça".encode()
    assert decode_text(content[: content.rindex("ç".encode()) + 1]) == "Ça a débuté comme "
    assert decode_text(b"caf\xe9") == "café"
