"""GGUF: what is written comes back, headers that lie are refused, and mutations are read as by gguf
or not at all.
"""

import struct
import time

import numpy as np
import pytest

from lora_np.files import FileError
from lora_np.hub import TensorInfo, gguf
from lora_np.hub.dtypes import GGUF_KINDS
from lora_np.models import open_gguf
from lora_np.quantise import LAYOUTS, Blocks, quantise
from tests.gguf_files import save_gguf
from tests.mutations import overwritten

METADATA = {
    "general.architecture": "llama",
    "general.name": "ein Modell, 小",
    "empty": "",
    "flag": True,
    "u8": np.uint8(200),
    "i8": np.int8(-5),
    "u16": np.uint16(60_000),
    "i16": np.int16(-30_000),
    "count": 7,
    "negative": -7,
    "rate": 0.5,
    "u64": np.uint64(2**63 + 1),
    "i64": np.int64(-(2**60)),
    "f64": np.float64(0.1),
    "tokens": ["a", "bc", "", "Ġ"],
    "types": [1, 3, 6],
    "scores": [0.5, -1.0],
    "flags": np.array([True, False]),
}


def tensors(seed=0):
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(3, 64)).astype(np.float32)
    found = {kind: quantise(W, kind) for kind in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16")}
    for kind in ("Q4_K", "Q6_K"):
        layout = LAYOUTS[kind]
        raw = rng.integers(0, 100, 2 * layout.block.itemsize, dtype=np.uint8)
        found[kind] = Blocks(kind, raw.view(layout.block).reshape(2, 1), (2, 256))
    return found | {"norm": W[0], "half": W.astype(np.float16), "cube": W.reshape(3, 4, 16)}


def same(metadata, expected):
    assert metadata.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(metadata[key], value)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    place = tmp_path_factory.mktemp("gguf") / "model.gguf"
    save_gguf(tensors(), place, metadata=METADATA)
    return place


def test_what_is_written_is_read(path):
    file = gguf.open(path)
    same(file.metadata, METADATA)
    assert list(file.tensors) == list(tensors())
    for name, tensor in tensors().items():
        expected = tensor.dequantised() if isinstance(tensor, Blocks) else tensor.astype(np.float32)
        np.testing.assert_array_equal(file.read(name), expected)
        assert file.read(name).dtype == np.float32
        if isinstance(tensor, Blocks):
            again = file.quantised(name)
            assert (again.kind, again.shape, again.nbytes) == (
                tensor.kind,
                tensor.shape,
                tensor.nbytes,
            )
            assert again.data.tobytes() == tensor.data.tobytes()


@pytest.mark.parametrize("alignment", [1, 8, 64, 4096])
def test_any_alignment(tmp_path, alignment):
    place = tmp_path / "model.gguf"
    save_gguf(tensors(), place, metadata={"general.alignment": alignment})
    file = gguf.open(place)
    assert all(tensor.begin % alignment == 0 for tensor in file.tensors.values())
    np.testing.assert_array_equal(file.read("norm"), tensors()["norm"])


def test_an_empty_file_of_the_format(tmp_path):
    save_gguf({}, tmp_path / "empty.gguf")
    assert not gguf.open(tmp_path / "empty.gguf").tensors


def test_opening_reads_the_header_alone(tmp_path):
    place = tmp_path / "large.gguf"
    raw = bytearray()
    raw += struct.pack("<4sIQQ", b"GGUF", 3, 1, 0)
    raw += struct.pack("<Q1sIQQIQ", 1, b"W", 2, 2**15, 2**15, 0, 0)
    raw += bytes(-len(raw) % 32)
    with place.open("wb") as stream:
        stream.write(raw)
        stream.truncate(len(raw) + 4 * 2**30)
    start = time.process_time()
    assert gguf.open(place).tensors["W"].nbytes == 2**32
    assert time.process_time() - start < 5


def header(*, version=3, tensors=(), fields=(), counts=None, tail=b""):
    """The bytes of a file; a tensor is (name, sizes, kind, offset), a field is already packed."""
    raw = struct.pack("<4sIQQ", b"GGUF", version, *(counts or (len(tensors), len(fields))))
    raw += b"".join(fields)
    for name, sizes, kind, offset in tensors:
        raw += text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)
    return raw + bytes(-len(raw) % 32) + tail


def text(value):
    value = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(value)) + value


U32 = struct.pack("<I", 4)


def test_a_header_has_a_budget_of_texts(tmp_path):
    """Three million empty texts fit into 24 MB, and would take ten times as much as objects."""
    place = tmp_path / "many.gguf"
    count = 3_000_001
    field = text("tokens") + struct.pack("<IIQ", 9, 8, count) + bytes(8 * count)
    place.write_bytes(header(fields=[field]))
    with pytest.raises(FileError, match=r"a header has at most 3,000,000 names and texts"):
        gguf.open(place)


LIES = {
    "begins with b'GGML'": b"GGML" + bytes(60),
    "the magic number takes 4 bytes, but the file ends after 2 more": b"GG",
    "its version is 1, not 2 or 3": header(version=1),
    "not 2 or 3 in little-endian order": struct.pack(">4sIQQ", b"GGUF", 3, 0, 0),
    "the number of tensors is 9223372036854775808": header(counts=(2**63, 0)),
    "the number of metadata is 1000000": header(counts=(0, 1_000_000)),
    "a key of the metadata has 65536 bytes": header(fields=[text("k" * 65536) + U32 + bytes(4)]),
    "a key of the metadata takes 1000 bytes": header(fields=[struct.pack("<Q", 1000) + bytes(20)]),
    "two entries 'k'": header(fields=[text("k") + U32 + bytes(4)] * 2),
    "not UTF-8": header(fields=[text(b"\xff\xfe") + U32 + bytes(4)]),
    "'k' has type 13": header(fields=[text("k") + struct.pack("<I", 13) + bytes(8)]),
    "'k' has type 9, which is unknown": header(fields=[text("k") + struct.pack("<IIQ", 9, 9, 1) + bytes(16)]),
    "number of entries of 'k' is 4294967296": header(fields=[text("k") + struct.pack("<IIQ", 9, 0, 2**32)]),
    "number of entries of 'k' is 100": header(fields=[text("k") + struct.pack("<IIQ", 9, 8, 100)]),
    "the value of 'k' takes 80 bytes": header(fields=[text("k") + struct.pack("<IIQ", 9, 10, 10) + bytes(50)]),
    "'k' is boolean but": header(fields=[text("k") + struct.pack("<IB", 7, 2)]),
    "'general.alignment' must be a power of two, got 3": header(fields=[text("general.alignment") + U32 + struct.pack("<I", 3)]),
    "'general.alignment' must be a power of two, got 0": header(fields=[text("general.alignment") + U32 + bytes(4)]),
    "must be a power of two, got 'x'": header(fields=[text("general.alignment") + struct.pack("<I", 8) + text("x")]),
    "two tensors 'W'": header(tensors=[("W", (8,), 0, 0), ("W", (8,), 0, 32)], tail=bytes(64)),
    "'W' has 0 axes": header(tensors=[("W", (), 0, 0)], tail=bytes(64)),
    "'W' has 5 axes": header(tensors=[("W", (1,) * 5, 0, 0)], tail=bytes(64)),
    "has kind 4, which is unknown": header(tensors=[("W", (32,), 4, 0)], tail=bytes(64)),
    "which no file can hold": header(tensors=[("W", (2**32, 2**32), 0, 0)], tail=bytes(64)),
    "has shape (3, 0)": header(tensors=[("W", (0, 3), 0, 0)], tail=bytes(64)),
    "has rows of 33; Q4_0 needs whole blocks of 32": header(tensors=[("W", (33,), 2, 0)], tail=bytes(64)),
    "begins at 64, but must begin at 32": header(tensors=[("V", (8,), 0, 0), ("W", (8,), 0, 64)], tail=bytes(128)),
    "ends at byte": header(tensors=[("W", (64,), 0, 0)], tail=bytes(64)),
}  # fmt: skip


@pytest.mark.parametrize("message", LIES)
def test_headers_that_lie_are_refused(tmp_path, message):
    place = tmp_path / "model.gguf"
    place.write_bytes(LIES[message])
    with pytest.raises(FileError) as caught:
        gguf.open(place)
    assert str(caught.value).startswith(f"{place} is not a valid GGUF file: ")
    assert message in str(caught.value)


def test_the_name_in_a_message_is_short(tmp_path):
    place = tmp_path / "model.gguf"
    place.write_bytes(header(fields=[text("k" * 60_000) + struct.pack("<I", 77) + bytes(8)]))
    with pytest.raises(FileError) as caught:
        gguf.open(place)
    assert len(str(caught.value)) < 400


def test_every_cut_is_refused(path, tmp_path):
    content = path.read_bytes()
    place = tmp_path / "cut.gguf"
    end = max(tensor.begin + tensor.nbytes for tensor in gguf.open(path).tensors.values())
    for length in [*range(0, 2000, 7), end - 1]:
        place.write_bytes(content[:length])
        with pytest.raises(FileError):
            gguf.open(place)


def test_requests_that_do_not_fit(path, tmp_path):
    file = gguf.open(path)
    with pytest.raises(FileError, match=r"has no tensor 'norms'; close names: norm"):
        file.read("norms")
    place = tmp_path / "model.gguf"
    place.write_bytes(header(tensors=[("W", (256,), 24, 0)], tail=bytes(256)))
    assert gguf.open(place).tensors["W"].nbytes == 256
    with pytest.raises(
        FileError, match="'W' is stored as I8, which cannot be read; these can: F32"
    ):
        gguf.open(place).read("W")
    save_gguf({"W": np.ones(64, np.float32)}, place)
    file = gguf.open(place)
    place.write_bytes(place.read_bytes()[:-8])
    with pytest.raises(FileError, match="has become shorter"):
        file.read("W")


@pytest.mark.parametrize(
    ("arguments", "metadata", "message"),
    [
        ({"W": np.ones((), np.float32)}, {}, "has 0 axes; between 1 and 4 are allowed"),
        ({"W": np.ones((2, 0), np.float32)}, {}, "which no file can hold"),
        ({}, {"k": {}}, "'k' must be text"),
        ({}, {"k": 2**40}, "too large for 32 bits; give it as np.uint64"),
        ({}, {"k": "\ud800"}, "cannot be encoded as UTF-8"),
        ({}, {"general.alignment": 3}, "power of two"),
        ({}, {8: "x"}, "a name must be text, got 8"),
    ],
)
def test_what_the_format_does_not_hold_is_not_written(tmp_path, arguments, metadata, message):
    place = tmp_path / "model.gguf"
    place.write_bytes(b"before")
    with pytest.raises(FileError, match=message):
        save_gguf(arguments, place, metadata=metadata)
    assert place.read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_alignment_may_be_a_numpy_number(tmp_path):
    save_gguf(
        {"W": np.ones(3, np.float32)},
        tmp_path / "a.gguf",
        metadata={"general.alignment": np.uint32(64)},
    )
    save_gguf(
        {"W": np.ones(3, np.float32)}, tmp_path / "b.gguf", metadata={"general.alignment": 64}
    )
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


@pytest.mark.parametrize(
    ("info", "array", "message"),
    [
        (
            TensorInfo("Q8_0", (2, 32)),
            np.ones((2, 32)),
            "'W' must be Blocks of Q8_0, got dtype float64",
        ),
        (
            TensorInfo("F32", (2, 32)),
            np.ones((2, 32), np.int64),
            "'W' must have dtype float32, got int64",
        ),
        (
            TensorInfo("F32", (2, 32)),
            np.ones((32, 2)),
            r"'W' must be F32 \(2, 32\), got F32 \(32, 2\)",
        ),
        (TensorInfo("F33", (2,)), None, "tensor 'W' has kind 'F33', which is unknown"),
        (
            TensorInfo("F32", (2, -1)),
            None,
            r"tensor 'W' has shape \(2, -1\), which no file can hold",
        ),
        (TensorInfo("F32", (2**70,)), None, r"which no file can hold"),
        (TensorInfo("F32", (2.0,)), None, r"which no file can hold"),
        (TensorInfo("F32", (1,) * 5), None, "has 5 axes; between 1 and 4 are allowed"),
        (TensorInfo("Q8_0", (32, 2)), None, "has rows of 2; Q8_0 needs whole blocks of 32"),
    ],
)
def test_numbers_that_are_not_as_announced_are_not_written(tmp_path, info, array, message):
    with pytest.raises(FileError, match=message):
        gguf.write({"W": info}, lambda _: array, tmp_path / "model.gguf")
    assert not list(tmp_path.iterdir())


def run(folder, examples, compare):
    """How many of the mutants were read; each within a second, all within 64 MiB."""
    small = {
        key: METADATA[key]
        for key in ("general.architecture", "flag", "count", "f64", "tokens", "types", "flags")
    }
    source = folder / "source.gguf"
    chosen = {
        name: tensor
        for name, tensor in tensors().items()
        if name in ("Q4_1", "Q6_K", "norm", "half")
    }
    save_gguf(chosen, source, metadata=small)
    content = source.read_bytes()
    header_size = gguf.open(source).tensors["Q4_1"].begin
    rng = np.random.default_rng(0)
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read = 0
    for number in range(examples):
        place = folder / f"{number}.gguf"
        place.write_bytes(overwritten(content, rng, header_size))
        start = time.process_time()
        message, file = "", None
        try:
            file = gguf.open(place)
            numbers = {
                name: file.read(name)
                for name in file.tensors
                if file.tensors[name].dtype in LAYOUTS
            }
        except FileError as error:
            message = str(error)
        assert time.process_time() - start < 10
        assert "\n" not in message
        assert len(message) < 1000
        if file is not None:
            read += 1
            compare(place, file, numbers)
        place.unlink()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
    return read


def test_a_few_mutations(tmp_path):
    assert run(tmp_path, 500, lambda *_: None) > 100


def as_the_package_reads_it(place, file, numbers):
    import gguf as peer

    reader = peer.GGUFReader(place)
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert fields.keys() == file.metadata.keys()
    for name, value in file.metadata.items():
        theirs = fields[name].contents()
        # they cannot tell the type of an empty array
        if not isinstance(value, np.ndarray) or value.size:
            np.testing.assert_array_equal(value, theirs)
    assert [tensor.name for tensor in reader.tensors] == list(file.tensors)
    for tensor in reader.tensors:
        ours = file.tensors[tensor.name]
        assert ours.dtype == tensor.tensor_type.name
        assert ours.shape == tuple(tensor.shape[::-1].tolist())
        assert (ours.begin, ours.nbytes) == (tensor.data_offset, tensor.n_bytes)
        if tensor.name in numbers:
            theirs = peer.dequantize(tensor.data, tensor.tensor_type)
            np.testing.assert_array_equal(numbers[tensor.name], theirs.reshape(ours.shape))


@pytest.mark.peers
def test_the_package_gguf_reads_what_is_written(path):
    as_the_package_reads_it(
        path, file := gguf.open(path), {name: file.read(name) for name in file.tensors}
    )


@pytest.mark.peers
def test_what_the_package_gguf_writes_is_read(tmp_path):
    import gguf as peer

    place = tmp_path / "theirs.gguf"
    writer = peer.GGUFWriter(place, "llama")
    writer.add_uint32("llama.block_count", 2)
    writer.add_float32("llama.eps", 1e-5)
    writer.add_token_list(["a", "b"])
    writer.add_custom_alignment(64)
    W = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    writer.add_tensor("plain", W)
    blocks = peer.quantize(W, peer.GGMLQuantizationType.Q5_1)
    writer.add_tensor("blocks", blocks, raw_dtype=peer.GGMLQuantizationType.Q5_1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = gguf.open(place)
    as_the_package_reads_it(place, file, {name: file.read(name) for name in file.tensors})
    assert file.quantised("blocks").data.tobytes() == quantise(W, "Q5_1").data.tobytes()


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_twenty_thousand_mutations_are_read_as_the_package_reads_them_or_refused(tmp_path):
    pytest.importorskip("gguf")
    assert run(tmp_path, 20_000, as_the_package_reads_it) > 4_000


@pytest.mark.parametrize("kind", sorted({kind for kind, _, _ in GGUF_KINDS.values()} - {*LAYOUTS}))
def test_of_kinds_that_are_not_read_the_size_is_known(kind, tmp_path):
    number, numbers, size = next((i, n, b) for i, (k, n, b) in GGUF_KINDS.items() if k == kind)
    path = tmp_path / "model.gguf"
    path.write_bytes(header(tensors=[("W", (2 * numbers, 3), number, 0)], tail=bytes(6 * size)))
    file = gguf.open(path)
    assert file.tensors["W"].nbytes == 6 * size
    with pytest.raises(FileError, match=f"'W' is stored as {kind}, which cannot be read"):
        file.read("W")


def test_a_part_of_a_model_is_named_as_such(tmp_path):
    path = tmp_path / "m-00001-of-00002.gguf"
    gguf.write({}, None, path, metadata={"split.count": np.uint16(2)})
    with pytest.raises(
        FileError, match="one of 2 parts of a model: join them with llama-gguf-split"
    ):
        open_gguf(path)
