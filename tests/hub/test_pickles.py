"""Pickles of tensors are read without being run; whatever does anything else is refused by name."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from math import prod

import numpy as np
import pytest

from lora_np import adapters
from lora_np.files import FileError
from lora_np.hub import open_pickle, safetensors
from tests.adapters.conftest import write_adapter


class Tensor:
    """Pickled as torch pickles a tensor."""

    def __init__(self, key, kind, shape, start=0, strides=None):
        self.key, self.kind, self.shape, self.start = key, kind, shape, start
        steps = (prod(shape[axis + 1 :]) for axis in range(len(shape)))
        self.strides = tuple(steps) if strides is None else strides


class Writer(pickle._Pickler):
    """A pickler that writes names of torch's without torch."""

    def save_global_name(self, text):
        module, _, name = text.rpartition(".")
        self.write(b"c" + module.encode() + b"\n" + name.encode() + b"\n")

    def save(self, item, save_persistent_id=True):
        if not isinstance(item, Tensor):
            return super().save(item, save_persistent_id)
        self.save_global_name("torch._utils._rebuild_tensor_v2")
        self.write(b"((")
        super().save("storage")
        self.save_global_name(f"torch.{item.kind}Storage")
        super().save(item.key)
        super().save("cpu")
        super().save(1)  # how many it holds, which nothing needs
        self.write(b"tQ")
        for part in (item.start, item.shape, item.strides, False):
            super().save(part)
        self.save_global_name("collections.OrderedDict")
        self.write(b")RtR")
        return None


def packed(content):
    stream = io.BytesIO()
    Writer(stream, protocol=2).dump(content)
    return stream.getvalue()


def archive(path, code, storages=(), compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", code)
        for key, content in dict(storages).items():
            file.writestr(f"archive/data/{key}", content)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "adapter_model.bin"


def test_tensors_are_read_in_every_dtype_and_from_the_middle_of_a_storage(path):
    values = np.arange(12, dtype=np.float32)
    storages = {
        "0": values.tobytes(),
        "1": values.astype("<f8").tobytes(),
        "2": values.astype("<f2").tobytes(),
        "3": (values.view(np.uint32) >> 16).astype("<u2").tobytes(),
    }
    kinds = dict(zip("0123", ("Float", "Double", "Half", "BFloat16"), strict=True))
    tensors = {kind: Tensor(key, kind, (3, 4)) for key, kind in kinds.items()}
    tensors["part"] = Tensor("0", "Float", (2, 3), start=5)
    tensors["number"] = Tensor("0", "Float", (), start=7)
    tensors["a row"] = Tensor("0", "Float", (1, 3), strides=(99, 1))
    file = open_pickle(archive(path, packed(tensors), storages))
    assert [*file.tensors] == [*tensors]
    for kind in kinds.values():
        np.testing.assert_array_equal(file.read(kind), values.reshape(3, 4))
    np.testing.assert_array_equal(file.read("part"), values[5:11].reshape(2, 3))
    assert file.read("number") == 7
    np.testing.assert_array_equal(file.read("a row"), values[:3].reshape(1, 3))


def test_an_adapter_in_a_pickle_is_that_in_safetensors(tmp_path):
    folder = write_adapter(tmp_path / "a")
    before = {name: module.delta() for name, module in adapters.load(folder).items()}
    weights = folder / "adapter_model.safetensors"
    file = safetensors.open(weights)
    arrays = {key: file.read(key) for key in file.tensors}
    tensors = {key: Tensor(key, "Float", array.shape) for key, array in arrays.items()}
    storages = {key: array.tobytes() for key, array in arrays.items()}
    archive(folder / "adapter_model.bin", packed(tensors), storages)
    weights.unlink()
    for name, delta in before.items():
        np.testing.assert_array_equal(adapters.load(folder).delta(name), delta)
    assert adapters.inspect(folder).rows
    adapters.resize(folder, tmp_path / "small", rank=1)
    adapters.convert(folder, tmp_path / "copy", to="peft")
    assert (tmp_path / "copy" / "adapter_model.safetensors").is_file()


class Exploit:
    def __reduce__(self):
        return (pytest.fail, ("the file was run",))


#: A key of sixty nested pairs, which would take 2**60 steps to be hashed.
ENDLESS = b"\x80\x02})q\x00" + 60 * b"h\x00\x86q\x00" + b"K\x01s."

FLOATS = {"0": bytes(48)}
HOSTILE = {
    "a call": (pickle.dumps(Exploit(), 2), "asks for _pytest.outcomes"),
    "a call by name": (b"cos\nsystem\n(X\x02\x00\x00\x00lstR.", "asks for os.system"),
    "a call in protocol 4": (pickle.dumps(Exploit(), 4), "its pickle has FRAME, which no tensor"),
    "an object": (pickle.dumps(OrderedDict(a=io.StringIO), 2), "asks for _?io.StringIO"),
    "an instance": (b"(cos\nsystem\no.", "asks for os.system|has OBJ"),
    "an old instance": (b"(ios\nsystem\n.", "its pickle has INST"),
    "a list": (packed([1]), "its pickle has EMPTY_LIST"),
    "an attribute": (packed({"a": 1})[:-1] + b"}b.", "'a' is a int, not a tensor"),
    "a far memo": (b"\x80\x02}r\xff\xff\xff\xff.", None),
    "a key that is no text": (packed({1: 2}), "a key that is not text"),
    "a key for ever": (ENDLESS, "a key that is not text"),
    "a number": (packed(3), "holds a int, not tensors by their names"),
    "a number of a name": (packed({"a": 3}), "'a' is a int, not a tensor"),
    "a nested dictionary": (packed({"a": {"b": 3}}), "'a' is a _Names, not a tensor"),
    "nothing": (b"", "Ran out of input|EOF|adapter_model"),
    "no end": (packed({"a": 1})[:-1], "adapter_model"),
    "an empty stack": (b"R.", "adapter_model"),
    "a text of any length": (b"X\xff\xff\xff\x7fab", "adapter_model"),
    "a storage that is not there": (packed({"a": Tensor("9", "Float", (2,))}), "data/9"),
    "a tensor beyond its storage": (packed({"a": Tensor("0", "Float", (4, 4))}), "does not fit"),
    "a tensor before its storage": (
        packed({"a": Tensor("0", "Float", (2,), -1)}),
        "an invalid shape",
    ),
    "a tensor of an endless size": (packed({"a": Tensor("0", "Float", (2**70,))}), "does not fit"),
    "a transposed tensor": (
        packed({"a": Tensor("0", "Float", (3, 4), strides=(1, 3))}),
        "stored transposed",
    ),
    "whole numbers": (packed({"a": Tensor("0", "Long", (2,))}), "asks for torch.LongStorage"),
    "a tensor of text": (
        packed({"a": Tensor("0", "Float", ("b",), strides=(1,))}),
        "an invalid shape",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_is_no_tensor_is_refused_by_name(path, name):
    code, message = HOSTILE[name]
    archive(path, code, FLOATS)
    if message is None:
        assert not open_pickle(path).tensors
        return
    with pytest.raises(FileError, match=message) as caught:
        open_pickle(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_archives_that_are_damaged_or_compressed_are_refused(path):
    code = packed({"a": Tensor("0", "Float", (3, 4))})
    archive(path, code, FLOATS, zipfile.ZIP_DEFLATED)
    with pytest.raises(FileError, match="is compressed or truncated"):
        open_pickle(path)
    for content in (b"", b"PK", code, b"\x80\x02]q\x00."):
        path.write_bytes(content)
        with pytest.raises(FileError):
            open_pickle(path)
    archive(path, code, FLOATS)
    content = path.read_bytes()
    place = content.rindex(b"archive/data/0") - 46 + 20  # the sizes in the directory
    path.write_bytes(content[:place] + struct.pack("<II", 2**31, 2**31) + content[place + 8 :])
    with pytest.raises(FileError):
        open_pickle(path)


def test_a_file_with_any_byte_changed_is_read_or_refused(path):
    archive(path, packed({"a": Tensor("0", "Float", (3, 4))}), FLOATS)
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for position in rng.integers(0, len(content), 300):
        changed = bytearray(content)
        changed[position] ^= int(rng.integers(1, 256))
        path.write_bytes(changed)
        try:
            file = open_pickle(path)
            for name in file.tensors:
                file.read(name)
        except FileError:
            pass


@pytest.mark.peers
def test_we_read_what_torch_saves(path):
    torch = pytest.importorskip("torch")
    tensors = {
        f"{kind}.{shape}": torch.randn(shape).to(kind)
        for kind in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
        for shape in ((3, 4), (5,), (2, 3, 1))
    }
    tensors["parameter"] = tensors["torch.float32.(3, 4)"][1:]
    torch.save(tensors, path)
    file = open_pickle(path)
    assert file.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(file.read(name), tensor.double().numpy())


@pytest.mark.peers
def test_a_state_dict_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(3, 2).state_dict(), tmp_path / "model.bin")
    found = open_pickle(tmp_path / "model.bin")
    assert {name: info.shape for name, info in found.tensors.items()} == {
        "weight": (2, 3), "bias": (2,)
    }  # fmt: skip
