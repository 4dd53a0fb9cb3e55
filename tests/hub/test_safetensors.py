"""The file format: what is written comes back, bfloat16 is exact, and no malformed file is
believed.
"""

import contextlib
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from lora_np.files import FileError
from lora_np.hub import ALL_FLOATS, TensorInfo, rounded, safetensors
from tests.drawing import every, examples

DTYPES = [
    np.float64,
    np.float32,
    np.float16,
    np.int64,
    np.int32,
    np.int16,
    np.int8,
    np.uint64,
    np.uint32,
    np.uint16,
    np.uint8,
    np.bool_,
]


def raw_file(path, header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def entry(begin=0, end=8, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.safetensors"


@every("dtype", DTYPES)
@every("shape", [(), (1,), (0,), (3, 0, 2), (2, 3, 4)])
def test_every_dtype_and_shape_comes_back(path, dtype, shape):
    array = (np.random.default_rng(0).normal(size=shape) * 50).astype(dtype)
    safetensors.save({"x": array}, path)
    file = safetensors.open(path)
    assert file.tensors["x"].shape == shape
    assert file.tensors["x"].size == array.size
    assert file.tensors["x"].nbytes == array.nbytes
    back = file.read("x")
    assert back.dtype == dtype
    assert back.flags.writeable
    np.testing.assert_array_equal(back, array)


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
        st.sampled_from(DTYPES).flatmap(
            lambda d: arrays(d, array_shapes(min_dims=0, max_dims=3, min_side=0))
        ),
        max_size=5,
    ),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
)
@settings(max_examples=examples(50), deadline=None)
def test_any_collection_comes_back(tmp_path_factory, tensors, metadata):
    path = tmp_path_factory.mktemp("any") / "file.safetensors"
    safetensors.save(tensors, path, metadata=metadata)
    file = safetensors.open(path)
    assert file.metadata == metadata
    assert set(file.tensors) == set(tensors)
    for name, array in tensors.items():
        assert file.read(name).tobytes() == array.tobytes()


def test_order_and_strides_of_the_callers_arrays_do_not_matter(path):
    array = np.arange(12.0).reshape(3, 4)
    tensors = {
        "T": array.T,
        "step": array[::2, ::-1],
        "big": array.astype(">f8"),
        "list": [1.0, 2.0],
    }
    safetensors.save(tensors, path)
    for name, given_array in tensors.items():
        np.testing.assert_array_equal(safetensors.open(path).read(name), given_array)


def test_opening_reads_the_header_only_and_reading_one_tensor_only(path):
    safetensors.save({"a": np.ones(1000), "b": np.zeros(1000)}, path)
    file = safetensors.open(path)
    path.write_bytes(path.read_bytes()[: file.tensors["b"].begin])
    np.testing.assert_array_equal(file.read("a"), 1)
    with pytest.raises(FileError, match="has become shorter since it was opened"):
        file.read("b")


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_every_bfloat16_survives(path, dtype):
    bits = np.arange(2**16, dtype=np.uint32) << 16
    values = bits.view(np.float32)
    values = values[~np.isnan(values)]
    safetensors.save({"x": values.astype(dtype)}, path, dtype="bfloat16")
    back = safetensors.open(path).read("x")
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back.view(np.uint32), values.view(np.uint32))


def neighbours(x):
    """The bfloat16 numbers at or below and above |x|, exactly, with the evenness of the lower."""
    lower = np.array(abs(x), dtype=np.float64)
    exponent = np.frexp(lower)[1]
    exponent = max(int(exponent), -125)  # subnormals are evenly spaced
    step = 2.0 ** (exponent - 8)
    count = np.floor(lower / step)
    return count * step, (count + 1) * step, count % 2 == 0


@given(
    st.one_of(
        st.floats(-3.0e38, 3.0e38),
        # Just beside a tie, where rounding to float32 first would land on the tie itself.
        st.builds(
            lambda m, s, e: (1 + (2 * m + 1) / 256) * (1 + s * 2.0**-40) * 2.0**e,
            st.integers(0, 127),
            st.sampled_from([-1, 0, 1]),
            st.integers(-130, 120),
        ),
    )
)
@settings(max_examples=examples(300), deadline=None)
def test_bfloat16_rounds_to_nearest_and_ties_to_even(tmp_path_factory, x):
    path = tmp_path_factory.mktemp("bf16") / "x.safetensors"
    safetensors.save({"x": np.array([x])}, path, dtype="bfloat16")
    rounded = float(safetensors.open(path).read("x")[0])
    low, high, low_is_even = neighbours(x)
    to_low, to_high = abs(x) - low, high - abs(x)
    nearest = low if to_low < to_high or (to_low == to_high and low_is_even) else high
    assert rounded == np.copysign(nearest, x)
    assert np.signbit(rounded) == np.signbit(x)


def test_special_values_in_bfloat16(path):
    special = np.array([np.nan, -np.inf, np.inf, -0.0])
    low_payload = np.array([0x7F800001], dtype=np.uint32).view(np.float32)
    safetensors.save({"x": special, "nan": low_payload}, path, dtype="bfloat16")
    file = safetensors.open(path)
    np.testing.assert_array_equal(file.read("x"), special)
    assert np.signbit(file.read("x")[-1])
    assert np.isnan(file.read("nan")).all()


@pytest.mark.parametrize(
    ("dtype", "value"), [("float16", 70000.0), ("bfloat16", 3.4e38), ("float32", 1e39)]
)
def test_a_value_too_large_for_the_dtype_is_refused(path, dtype, value):
    with pytest.raises(FileError, match=f"'x' holds .* too large for {dtype}"):
        safetensors.save({"x": np.array([1.0, -value])}, path, dtype=dtype)
    assert not path.exists()


def test_dtype_rounds_floating_point_tensors_only(path):
    safetensors.save({"weight": np.ones(2), "count": np.ones(2, np.int64)}, path, dtype="float16")
    tensors = safetensors.open(path).tensors
    assert tensors["weight"].dtype == "float16"
    assert tensors["count"].dtype == "int64"


def test_tensors_may_be_written_in_any_order_and_are_aligned(path):
    header = {
        "a": TensorInfo("uint8", (3,)),
        "b": TensorInfo("float64", (2,)),
        "c": TensorInfo("bfloat16", (1,)),
    }
    values = {"c": np.float32([0.5]), "a": np.arange(3, dtype=np.uint8), "b": np.array([1.0, 2.0])}
    safetensors.write(header, values.__getitem__, path, metadata={"format": "np"})
    assert path.stat().st_size == safetensors.file_size(header, metadata={"format": "np"})
    file = safetensors.open(path)
    assert list(file.tensors) == ["b", "c", "a"]
    assert file.tensors["b"].begin % 8 == 0
    np.testing.assert_array_equal(file.read("b"), [1, 2])
    np.testing.assert_array_equal(file.read("c"), [0.5])
    np.testing.assert_array_equal(file.read("a"), [0, 1, 2])


def test_a_failed_write_leaves_what_was_there(path):
    safetensors.save({"old": np.ones(1)}, path)

    def cut(name):
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        safetensors.write({"new": TensorInfo("float32", (1,))}, cut, path)
    assert list(safetensors.open(path).tensors) == ["old"]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("x", np.ones(3), r"'x' must have shape \(2,\), got \(3,\)"),
        ("x", np.ones(2, np.int64), "'x' must have dtype float32, got int64"),
        ("i", np.ones(2), "'i' must have dtype int32, got float64"),
        ("b", np.ones(2, np.uint16), "'b' must have dtype bfloat16, got uint16"),
    ],
)
def test_a_tensor_that_does_not_fit_its_header_is_refused(path, name, array, message):
    header = {
        n: TensorInfo(d, (2,))
        for n, d in {
            "done": "float64",
            name: {"x": "float32", "i": "int32", "b": "bfloat16"}[name],
        }.items()
    }
    with pytest.raises(FileError, match=message):
        safetensors.write(header, {"done": np.ones(2), name: array}.__getitem__, path)
    assert list(path.parent.iterdir()) == []


def test_a_directory_is_not_written_over_and_nothing_is_left(tmp_path):
    (tmp_path / "base").mkdir()
    with pytest.raises(IsADirectoryError, match="base is a directory; give the path of a file"):
        safetensors.save({"a": np.ones(2)}, tmp_path / "base")
    assert [path.name for path in tmp_path.rglob("*")] == ["base"]

    def late(name):
        (tmp_path / "late" / "inner").mkdir(parents=True)
        return np.ones(2)

    with contextlib.suppress(OSError):
        safetensors.write({"a": TensorInfo("float64", (2,))}, late, tmp_path / "late")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["base", "inner", "late"]


@pytest.mark.parametrize("tensors", [None, [np.ones(2)], "a"], ids=repr)
def test_what_is_no_mapping_is_refused(path, tensors):
    with pytest.raises(TypeError, match="tensors must map names to arrays, got"):
        safetensors.save(tensors, path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "message"), [(1, "the name of a tensor must be text, got 1"), ("\ud800", "UTF-8")]
)
def test_names_that_are_no_text_are_refused(path, name, message):
    with pytest.raises(FileError, match=message):
        safetensors.save({name: np.ones(2), "b": np.ones(2)}, path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("tensors", "options", "message"),
    [
        (
            {"x": np.ones(2, complex)},
            {},
            "'x' has dtype complex128, which safetensors cannot store",
        ),
        ({"x": np.array([None])}, {}, "'x' has dtype object"),
        ({"x": np.array(["a"])}, {}, "'x' has dtype <U1"),
        (
            {"x": np.ones(2)},
            {"dtype": "bf16"},
            "dtype must be 'bfloat16', not 'bf16'",
        ),
        (
            {"x": np.ones(2)},
            {"metadata": {"rank": 8}},
            "metadata must map text to text, got {'rank': 8}",
        ),
        ({"__metadata__": np.ones(2)}, {}, "a tensor cannot be called '__metadata__'"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(path, tensors, options, message):
    with pytest.raises(ValueError, match=message):
        safetensors.save(tensors, path, **options)
    assert not path.exists()


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (TensorInfo("F32", (2,)), "dtype 'F32', which cannot be written"),
        (TensorInfo("float32", (2, -1)), r"shape \(2, -1\), not one of whole numbers"),
        (TensorInfo("float32", (2.0,)), r"shape \(2\.0,\), not one of whole numbers"),
    ],
)
def test_a_header_that_cannot_be_is_refused(path, info, message):
    with pytest.raises(FileError, match=message):
        safetensors.write({"x": info}, np.ones, path)


def test_a_name_that_is_not_in_the_file_lists_close_ones(path):
    safetensors.save({f"layer.{i}.lora_A": np.ones(1) for i in range(9)}, path)
    file = safetensors.open(path)
    with pytest.raises(FileError, match=r"no tensor 'layer.3.lora_B'; close names: layer.3.lora_A"):
        file.read("layer.3.lora_B")
    with pytest.raises(FileError, match=r"no tensor 'xyz'; it has layer.0.lora_A, layer.1"):
        file.read("xyz")
    safetensors.save({}, path)
    with pytest.raises(FileError, match=r"has no tensor '[^']*'$"):
        safetensors.open(path).read("x")


EIGHT = bytes(8)


@pytest.mark.parametrize(
    ("header", "body", "message"),
    [
        ({"x": entry(0, 8, (3,))}, EIGHT, r"'x', F32 \(3,\), takes 12 bytes, but has 8"),
        ({"x": entry()}, bytes(7), "its tensors end at byte .* the file at"),
        ({"x": entry()}, bytes(9), "its tensors end at byte .* the file at"),
        (
            {"x": entry(), "y": entry(4, 12)},
            bytes(12),
            "'y' overlaps another tensor: it begins at 4, not 8",
        ),
        ({"x": entry(), "y": entry()}, EIGHT, "'y' overlaps another tensor"),
        (
            {"x": entry(), "y": entry(12, 20)},
            bytes(20),
            "'y' leaves a gap before it: it begins at 12, not 8",
        ),
        ({"x": entry(8, 16)}, bytes(16), "'x' leaves a gap before it"),
        ({"x": entry(8, 0)}, EIGHT, r"data_offsets \[8, 0\], not \[begin, end\]"),
        ({"x": entry(-8, 0)}, EIGHT, r"data_offsets \[-8, 0\]"),
        ({"x": entry(0.0, 8.0)}, EIGHT, r"data_offsets \[0\.0, 8\.0\]"),
        ({"x": entry(False, 8)}, EIGHT, r"data_offsets \[False, 8\]"),
        (
            {"x": entry(0, 10**18, (10**9, 10**9), "U8")},
            EIGHT,
            "its tensors end at byte 1000000000",
        ),
        ({"x": entry(0, 8, (2**62, 2**62))}, EIGHT, "takes .* bytes, but has 8"),
        ({"x": entry(0, 8, (10**4000, 10**4000))}, EIGHT, r"shape \[10+ \.\.\. 0+\], not a list"),
        ({"x": entry(0, 8, (-2,))}, EIGHT, r"shape \[-2\], not a list of at most 64 whole numbers"),
        ({"x": entry(0, 8, (2.0,))}, EIGHT, r"shape \[2\.0\]"),
        ({"x": entry(0, 8, (2, *[1] * 64))}, EIGHT, "not a list of at most 64"),
        ({"x": entry(dtype="F7")}, EIGHT, "dtype 'F7'; supported are U64, I64, F64"),
        ({"x": entry(dtype=["F32"])}, EIGHT, r"dtype \['F32'\]"),
        ({"x": entry() | {"shape": 2}}, EIGHT, "shape 2, not a list"),
        ({"x": {"dtype": "F32", "shape": [2]}}, EIGHT, "data_offsets None"),
        ({"x": [1, 2]}, EIGHT, r"'x' is described by \[1, 2\], not by an object"),
        ({"__metadata__": {"a": 1}}, b"", "its __metadata__ is not a map from text to text"),
        ({"__metadata__": "pt"}, b"", "its __metadata__ is not a map from text to text"),
        ([], b"", "its header: must be a JSON object"),
        (b"", b"", "its header: not valid JSON"),
        (b"{'x': 1}", b"", "its header: not valid JSON"),
        (b'{"x": NaN}', b"", 'its header: "x": NaN is not JSON'),
        (b'{"\xff": 1}', b"", "its header: not valid JSON"),
        (b"[" * 100_000, b"", "its header: not valid JSON"),
        (b'{"x": ' + b"9" * 5000 + b"}", b"", "its header: not valid JSON"),
    ],
)
def test_a_lying_header_is_refused(path, header, body, message):
    raw_file(path, header, body)
    with pytest.raises(FileError, match=message) as error:
        safetensors.open(path)
    assert str(error.value).startswith(f"{path} is not a valid safetensors file: ")


def test_duplicate_names_are_refused(path):
    one = json.dumps(entry())
    raw_file(path, f'{{"x": {one}, "x": {one}}}'.encode(), EIGHT)
    with pytest.raises(FileError, match="its header: the key 'x' occurs twice"):
        safetensors.open(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it has 0 bytes, too few for a header"),
        (b"1234567", "it has 7 bytes, too few"),
        (
            struct.pack("<Q", 2**63) + b"{}",
            "its header has 9223372036854775808 bytes, the file 10; the limit: 100000000",
        ),
        (struct.pack("<Q", 3) + b"{}", "its header has 3 bytes, the file 10; the limit: 100000000"),
    ],
)
def test_a_truncated_file_is_refused(path, content, message):
    path.write_bytes(content)
    with pytest.raises(FileError, match=message):
        safetensors.open(path)


def test_a_valid_file_cut_anywhere_or_changed_anywhere_never_crashes(path):
    safetensors.save({"a": np.ones(3), "b": np.arange(2, dtype=np.int8)}, path, metadata={"k": "v"})
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(FileError):
            safetensors.open(path)
    rng = np.random.default_rng(0)
    for position in range(len(content) - 26):
        changed = bytearray(content)
        changed[position] ^= int(rng.integers(1, 256))
        path.write_bytes(changed)
        try:
            file = safetensors.open(path)
            for name in file.tensors:
                file.read(name)
        except FileError:
            pass


@pytest.mark.parametrize("dtype", ["float8_e4m3", "float8_e5m2"])
def test_eight_bit_floats_are_written_as_they_were_read(path, dtype):
    codes = bytes(range(256))
    raw_file(path, {"x": entry(0, 256, (256,), dtype.replace("float", "F").upper())}, codes)
    values = safetensors.open(path).read("x")
    finite = np.isfinite(values)
    assert finite.sum() == {"float8_e4m3": 254, "float8_e5m2": 248}[dtype]
    largest, smallest = {"float8_e4m3": (448, 2**-9), "float8_e5m2": (57344, 2**-16)}[dtype]
    assert (values[finite].max(), values[values > 0].min()) == (largest, smallest)
    safetensors.write({"x": TensorInfo(dtype, (256,))}, lambda _: values, path)
    again = np.frombuffer(path.read_bytes()[-256:], np.uint8)
    np.testing.assert_array_equal(again[finite], np.arange(256)[finite])


def test_eight_bit_floats_with_a_scale_are_refused(path):
    header = {"a.weight": entry(0, 2, (2,), "F8_E4M3"), "a.weight_scale": entry(2, 6, (1,), "F32")}
    raw_file(path, header, bytes(6))
    with pytest.raises(
        FileError, match=r"float8_e4m3 times 'a\.weight_scale', which is not supported"
    ):
        safetensors.open(path).read("a.weight")


def test_a_boolean_is_zero_or_one(path):
    raw_file(path, {"x": entry(0, 2, (2,), "BOOL")}, b"\x01\x02")
    with pytest.raises(FileError, match="is bool but holds bytes other than 0 and 1"):
        safetensors.open(path).read("x")


def test_a_missing_file_is_an_os_error(path):
    with pytest.raises(FileNotFoundError):
        safetensors.open(path)


@pytest.mark.peers
def test_the_reference_library_reads_what_we_write_and_writes_the_same_bytes(path):
    peer = pytest.importorskip("safetensors.numpy")
    rng = np.random.default_rng(0)
    tensors = {
        f"{name}.{np.dtype(dtype).name}": (rng.normal(size=(2, 3)) * 9).astype(dtype)
        for dtype in DTYPES
        for name in ("b", "a")
    }
    safetensors.save(tensors, path, metadata={"format": "pt"})
    theirs = peer.load_file(path)
    assert set(theirs) == set(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(theirs[name], array)
    assert path.read_bytes() == peer.save(tensors, metadata={"format": "pt"})


@pytest.mark.peers
def test_we_read_what_torch_writes_in_every_precision(path):
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("safetensors.torch")
    values = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    kinds = {
        "f16": torch.float16,
        "bf16": torch.bfloat16,
        "f32": torch.float32,
        "f64": torch.float64,
    }
    tensors = {name: values.to(kind) for name, kind in kinds.items()}
    peer.save_file(tensors, path, metadata={"format": "pt"})
    file = safetensors.open(path)
    assert file.metadata == {"format": "pt"}
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(file.read(name), tensor.double().numpy())


@pytest.mark.peers
def test_torch_rounds_to_bfloat16_as_we_do(path):
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("safetensors.torch")
    bits = np.random.default_rng(0).integers(0, 2**32, size=100_000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[np.abs(values) < 3e38]
    safetensors.save({"x": values}, path, dtype="bfloat16")
    assert torch.equal(peer.load_file(path)["x"], torch.from_numpy(values).bfloat16())


@pytest.mark.peers
@pytest.mark.parametrize("name", ["float8_e4m3", "float8_e5m2"])
def test_torch_rounds_to_eight_bits_as_we_do(path, name):
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("safetensors.torch")
    rng = np.random.default_rng(0)
    most = {"float8_e4m3": 448, "float8_e5m2": 57344}[name]
    values = np.float32(rng.normal(size=100_000) * 2.0 ** rng.integers(-20, 18, 100_000))
    codes = np.arange(128, dtype=np.float64)
    ties = np.float32((codes[:, None] + 0.5) * 2.0 ** np.arange(-20, 10)).ravel()
    values = np.concatenate([values, ties])
    values = values[np.abs(values) <= most]
    safetensors.write({"x": TensorInfo(name, values.shape)}, lambda _: values, path)
    theirs = torch.from_numpy(values).to(getattr(torch, name.replace("e4m3", "e4m3fn")))
    assert torch.equal(peer.load_file(path)["x"].view(torch.uint8), theirs.view(torch.uint8))
    np.testing.assert_array_equal(safetensors.open(path).read("x"), theirs.float().numpy())


@pytest.mark.peers
@pytest.mark.parametrize("content", ["truncated", "overlap", "gap", "duplicate"])
def test_the_reference_library_refuses_the_same_files(path, content):
    peer = pytest.importorskip("safetensors.numpy")
    one = json.dumps(entry())
    files = {
        "truncated": (json.dumps({"x": entry()}), bytes(7)),
        "overlap": (json.dumps({"x": entry(), "y": entry(4, 12)}), bytes(12)),
        "gap": (json.dumps({"x": entry(), "y": entry(12, 20)}), bytes(20)),
        "duplicate": (f'{{"x": {one}, "x": {one}}}', EIGHT),
    }
    text, body = files[content]
    raw_file(path, text.encode(), body)
    with pytest.raises(FileError):
        safetensors.open(path)
    if content != "duplicate":  # its parser keeps the last
        with pytest.raises(Exception, match="rror"):
            peer.load_file(path)


def test_tensors_are_copied_byte_for_byte_whatever_their_dtype(tmp_path):
    raw = bytes(range(16))
    text = b'{"a":{"dtype":"F8_E4M3","shape":[2,4],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[4],"data_offsets":[8,16]}}'
    (tmp_path / "a").write_bytes(len(text).to_bytes(8, "little") + text + raw)
    source = safetensors.open(tmp_path / "a")
    safetensors.write(source.tensors, lambda _: source, tmp_path / "b")
    copied = safetensors.open(tmp_path / "b")
    assert (tmp_path / "b").read_bytes()[-8:] == raw[:8]  # the narrower dtype comes last
    assert copied.read("b").tobytes() == source.read("b").tobytes()


def test_a_copy_must_have_the_dtype_and_shape_of_the_header(tmp_path):
    safetensors.save({"a": np.ones(3, np.float32)}, tmp_path / "a")
    source = safetensors.open(tmp_path / "a")
    with pytest.raises(FileError, match="differs in dtype or shape"):
        safetensors.write({"a": TensorInfo("float16", (3,))}, lambda _: source, tmp_path / "b")


@pytest.mark.parametrize("dtype", ALL_FLOATS)
def test_rounded_values_are_those_that_are_read_back(tmp_path, dtype):
    values = np.random.default_rng(0).standard_normal(3_000_000)  # several blocks
    info = TensorInfo(dtype, values.shape)
    safetensors.write({"a": info}, lambda _: values, tmp_path / "a")
    np.testing.assert_array_equal(
        rounded(values, dtype), safetensors.open(tmp_path / "a").read("a")
    )


@pytest.mark.parametrize("view", [np.s_[:, :1], np.s_[::2], np.s_[:, ::-1], np.s_[1, 2]])
def test_views_that_are_not_contiguous_are_written_in_order(tmp_path, view):
    array = np.arange(12.0).reshape(3, 4)[view]
    safetensors.save({"a": array}, tmp_path / "a")
    np.testing.assert_array_equal(safetensors.open(tmp_path / "a").read("a"), array)
