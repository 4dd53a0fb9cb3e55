"""Files of NumPy's from strangers: what they hold, or one clear error, in bounded memory."""

import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lora_np.files import FileError
from lora_np.hub import read_arrays
from lora_np.hub.arrays import load_matrix
from tests.drawing import FULL, every, peak_memory

ARRAYS = {"q": np.arange(6.0).reshape(2, 3), "k": np.asfortranarray(np.eye(3, dtype=np.float32))}
POSITIONS = range(0, 1_000, 7 if FULL else 37)


def packed(save=np.savez, **arrays):
    stream = io.BytesIO()
    save(stream, **(arrays or ARRAYS))
    return stream.getvalue()


def array(content=ARRAYS["q"], **options):
    stream = io.BytesIO()
    np.save(stream, content, **options)
    return stream.getvalue()


def with_header(text, data=b""):
    header = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def archive(*members, method=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        for name, content in members:
            file.writestr(name, content)
    return stream.getvalue()


HEADERS = {
    "open": "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3",
    "code": "{'descr': '<f8', 'fortran_order': False, 'shape': __import__('os').getpid()}",
    "huge": "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 99999999)}",
    "overflow": "{'descr': '<f8', 'fortran_order': False, 'shape': (2**63, 2**63)}",
    "negative": "{'descr': '<f8', 'fortran_order': False, 'shape': (-2, -3)}",
    "floats": "{'descr': '<f8', 'fortran_order': False, 'shape': (2.0, 3.0)}",
    "dtype": "{'descr': 'nonsense', 'fortran_order': False, 'shape': (2, 3)}",
    "object": "{'descr': '|O', 'fortran_order': False, 'shape': (2, 3)}",
    "nothing": "{'descr': '|V0', 'fortran_order': False, 'shape': (99999999999,)}",
    "deep": "[" * 100,
    "keys": "{'descr': '<f8'}",
    "list": "[1, 2]",
    "nul": "\0" * 50,
}  # fmt: skip
GOOD = {"stored": packed(), "compressed": packed(np.savez_compressed)}
BAD_ARRAYS = {
    "empty": b"",
    "magic": b"\x93NUMPY",
    "text": b"q,k\n1,2\n",
    "version": b"\x93NUMPY\x09\x09" + array()[8:],
    "pickle": pickle.dumps(ARRAYS),
    "objects": array(np.array([{}]), allow_pickle=True),
    "strings": array(np.array(["a"])),
    "records": array(np.zeros(2, [("a", float), ("b", int)])),
    "dates": array(np.array(["2020"], "M8[D]")),
    "short": array()[:-1],
    "long": array() + b"\0",
    **{name: with_header(text, b"\0" * 48) for name, text in HEADERS.items()},
}
FLIPPED = {
    f"{name} flipped at {i}": content[:i] + bytes([content[i] ^ flip]) + content[i + 1 :]
    for name, content in GOOD.items()
    for i in POSITIONS
    if i < len(content)
    for flip in (1, 0x80)
}


def bad_archives():
    zeros = array(np.zeros(10_000_000))  # 80 MB, which deflate packs into 78 kB
    return {
        "empty": b"",
        "no entries cut": archive()[:-1],
        "bomb": archive(("q.npy", zeros), method=zipfile.ZIP_DEFLATED),
        "many": archive(*((f"{i}.npy", zeros[:8_000_000]) for i in range(40 if FULL else 9)), method=zipfile.ZIP_BZIP2),
        "twice": archive(("q.npy", array()), ("q", array())),
        "no array": archive(("readme.txt", b"hello")),
        **{f"member {name}": archive(("q.npy", content)) for name, content in BAD_ARRAYS.items()},
        **{f"packed {name}": archive(("q.npy", content), method=zipfile.ZIP_DEFLATED)
           for name, content in BAD_ARRAYS.items()},
        **{f"{name} cut at {i}": content[:i] for name, content in GOOD.items()
           for i in POSITIONS if i < len(content)},
    }  # fmt: skip


def attempt(use):
    try:
        return use(), ""
    except (FileError, TypeError) as error:
        return None, str(error)


def main(folder):
    """In a process of its own, whose memory is measured: each file is read or refused."""
    folder, inputs = Path(folder), {**bad_archives(), **FLIPPED}
    assert not FULL or len({**inputs, **BAD_ARRAYS}) >= 200
    for name, content in inputs.items():
        path = folder / "inputs.npz"
        path.write_bytes(content)
        read, error = attempt(lambda path=path: read_arrays(path))
        if error:
            assert error.startswith(str(path)), name
            assert "\n" not in error, name
        else:
            assert name in FLIPPED or name == "member empty cut", name
            assert all(kind.dtype.kind in "biufc" for kind in read.values()), name
            for key in set(read) & set(ARRAYS):  # a flip in a name or an unread field
                np.testing.assert_array_equal(read[key], ARRAYS[key])
    for name, content in BAD_ARRAYS.items():
        path = folder / "matrix.npy"
        path.write_bytes(content)
        _, error = attempt(lambda path=path: load_matrix(str(path)))
        assert "matrix.npy" in error, name
    print(peak_memory())


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux does")
def test_hostile_files_are_refused_in_bounded_memory(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        f"from tests.hub.test_arrays import main; main({str(tmp_path)!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2_000:]
    assert int(done.stdout) < 512


@every("save", [np.savez, np.savez_compressed])
@every("dtype", ["?", "i1", "u8", "f2", "<f4", ">f8", "c16"])
@every("shape", [(), (0,), (3,), (2, 0), (3, 2), (2, 1, 3)])
def test_what_numpy_writes_is_read(save, dtype, shape, tmp_path):
    values = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    path = tmp_path / "inputs.npz"
    save(path, a=values, b=np.asfortranarray(values))
    for name, array in read_arrays(path).items():
        assert array.dtype == values.dtype, name
        np.testing.assert_array_equal(array, values)


def test_only_regular_files_are_read(tmp_path):
    with pytest.raises(FileError, match=r"inputs\.npz: no such file"):
        read_arrays(tmp_path / "inputs.npz")
    os.mkfifo(tmp_path / "inputs.npz")
    with pytest.raises(FileError, match=r"inputs\.npz: not a regular file"):
        read_arrays(tmp_path / "inputs.npz")


def test_a_large_file_may_be_compressed_well(tmp_path):
    path = tmp_path / "inputs.npz"
    noise = np.random.default_rng(0).bytes(2**22)
    np.savez_compressed(path, a=np.frombuffer(noise, np.uint8), b=np.zeros(2**23 - 64))
    assert read_arrays(path)["b"].shape == (2**23 - 64,)
