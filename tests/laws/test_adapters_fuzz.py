"""Mutated configs, headers, indexes and tensors: read as the safetensors library reads them, or an
FileError.

Nothing else may happen, within 256 MiB and one second each; and the time grows with the size.
"""

import json
import struct
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from lora_np import adapters
from lora_np.adapters.peft_format import PREFIX, WEIGHTS, keyed
from lora_np.files import FileError
from lora_np.hub import INDEX, safetensors
from lora_np.hub.dtypes import TABLE
from lora_np.models import open_model
from tests.mutations import COUNTS, in_little_memory, is_linear, refusal

MODULES = ("m.0.q", "m.1.q")
KEYS = [f"{PREFIX}{name}.lora_{part}.weight" for name in MODULES for part in "AB"]
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q"], "rank_pattern": {}}

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        [0, 1, 2, 3, 8, -1, 2**31, 2**63, 1e300, "LORA", "all", "q", "pissa", "(a+)+", ".*", "../x"]
    ),
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
setting_names = st.sampled_from([
    "peft_type", "r", "lora_alpha", "target_modules", "rank_pattern", "alpha_pattern", "use_dora", "use_rslora",
    "bias", "lora_bias", "modules_to_save", "layers_to_transform", "layers_pattern", "fan_in_fan_out",
    "init_lora_weights", "lora_dropout", "exclude_modules", "anything",
])  # fmt: skip
patterns = st.dictionaries(
    st.sampled_from([*MODULES, "q", ".*", "(", "[", "a{9999999999}", "^m.0"]), scalars, max_size=3
)
sizes = st.sampled_from([0, 1, 2, 3, 4, 7, 8, 2**31, 2**63, 2**64, -1, 10**30])
key_names = st.sampled_from([
    *KEYS, f"{PREFIX}m.0.q.lora_A.default.weight", f"{PREFIX}m.0.q.lora_B.bias", f"{PREFIX}m.0.q.lora_embedding_A",
    f"{PREFIX}m.0.q.lora_magnitude_vector", f"{PREFIX}m.0.q.base_layer.weight", f"{PREFIX}m.norm.weight", "x", "",
    PREFIX, f"{PREFIX}.lora_A.weight", "__metadata__", f"{PREFIX}m.modules_to_save.default.weight",
])  # fmt: skip
entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(
            ["F32", "F16", "BF16", "F64", "I8", "BOOL", "F8_E4M3", "F4", "f32", 3, None]
        ),
        "shape": st.lists(sizes, max_size=3) | scalars,
        "data_offsets": st.lists(sizes, min_size=1, max_size=3) | scalars,
    },
)
mutations = st.one_of(
    st.tuples(st.just("config"), st.dictionaries(setting_names, values | patterns, min_size=1, max_size=3)),
    st.tuples(st.just("config bytes"), st.tuples(st.integers(0, 200), st.binary(max_size=6))),
    st.tuples(st.just("tensors"), st.tuples(st.integers(0, 200), st.binary(min_size=1, max_size=6))),
    st.tuples(st.just("key"), st.tuples(st.sampled_from(KEYS), key_names)),
    st.tuples(st.just("valid tensor"), st.tuples(key_names, st.lists(st.integers(0, 5), max_size=4))),
    st.tuples(st.just("entry"), st.tuples(key_names, entries | scalars)),
    st.tuples(st.just("header bytes"), st.tuples(st.integers(0, 700), st.binary(max_size=6))),
    st.tuples(st.just("length"), st.integers(0, 2**64 - 1) | sizes.map(lambda n: n % 2**64)),
    st.tuples(st.just("cut"), st.integers(0, 900)),
    st.tuples(st.just("index"), st.dictionaries(st.sampled_from(["weight_map", "metadata"]), values)),
    st.tuples(st.just("map"), st.dictionaries(key_names, st.sampled_from(["a.safetensors", "b.safetensors", "../a", "x.bin", ""]) | values)),
)  # fmt: skip


def build(folder):
    """An adapter's directory that is also a checkpoint's, by an index; returns its parts for
    mutation.
    """
    rng = np.random.default_rng(0)
    shapes = {KEYS[0]: (2, 5), KEYS[1]: (3, 2), KEYS[2]: (2, 4), KEYS[3]: (3, 2)}
    tensors = {key: rng.standard_normal(shape).astype(np.float16) for key, shape in shapes.items()}
    safetensors.save(tensors, folder / WEIGHTS, metadata={"format": "pt"}, dtype="bfloat16")
    raw = (folder / WEIGHTS).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def overwrite(content, place, new):
    place = min(place, len(content))
    return content[:place] + new + content[place + len(new) :]


def pack(header, body):
    return struct.pack("<Q", len(header)) + header + body


class Mutant:
    """The parts of a directory, changed step by step and then written."""

    def __init__(self, header, body):
        self.header = json.loads(json.dumps(header))
        self.body = body
        self.config = dict(CONFIG)
        self.index = {"weight_map": dict.fromkeys(KEYS, WEIGHTS)}
        self.last = []  # what is done to the bytes, once the parts are put together

    def apply(self, kind, change):
        if kind == "config":
            self.config |= change
        elif kind == "tensors":
            self.body = overwrite(self.body, *change)[: len(self.body)]
        elif kind == "key":
            if change[0] in self.header:
                self.header[change[1]] = self.header.pop(change[0])
        elif kind == "valid tensor":
            key, shape = change
            size = 2 * int(np.prod(shape, dtype=int))
            offsets = [len(self.body), len(self.body) + size]
            self.header[key] = {"dtype": "BF16", "shape": shape, "data_offsets": offsets}
            self.body += bytes(size)
        elif kind == "entry":
            key, entry = change
            before = self.header.get(key)
            both = isinstance(entry, dict) and isinstance(before, dict)
            self.header[key] = {**before, **entry} if both else entry
        elif kind == "index":
            self.index |= change
        elif kind == "map":
            if isinstance(self.index["weight_map"], dict):
                self.index["weight_map"] |= change
        else:
            self.last.append((kind, change))

    def write(self, folder):
        """The content of the tensors' file, as it was written."""
        text = json.dumps(self.config).encode("utf-8", "surrogatepass")
        header = json.dumps(self.header).encode("utf-8", "surrogatepass")
        file = pack(header, self.body)
        for kind, change in self.last:
            if kind == "config bytes":
                text = overwrite(text, *change)
            elif kind == "header bytes":
                file = pack(overwrite(header, *change), self.body)
            elif kind == "length":
                file = struct.pack("<Q", change) + file[8:]
            elif kind == "cut":
                file = file[:change]
        index = json.dumps(self.index).encode()
        for name, content in (("adapter_config.json", text), (INDEX, index), (WEIGHTS, file)):
            # a new file, since some disks wait for a rewritten one
            (folder / name).unlink(missing_ok=True)
            (folder / name).write_bytes(content)
        return file


def reference(content):
    """Name, dtype, shape and bytes of every tensor as the safetensors library reads them."""
    library = pytest.importorskip("safetensors")
    return {
        name: (t["dtype"], tuple(t["shape"]), bytes(t["data"]))
        for name, t in library.deserialize(content)
    }


def in_file(dtype):
    return TABLE[dtype][0]


def bits(array, dtype):
    if dtype == "bfloat16":
        return (array.view(np.uint32) >> 16).astype("<u2").tobytes()
    return array.tobytes()


def refused(call, *arguments):
    """What the call returns, or None if it refuses in one line."""
    try:
        return call(*arguments)
    except FileError as error:
        if "\n" in str(error):
            raise
        return None


def check(folder, content):
    """Every reader of ours, each either like the reference or refusing; whether the header was
    valid.
    """
    file = refused(safetensors.open, folder / WEIGHTS)
    adapter = refused(adapters.load, folder)
    checkpoint = refused(open_model, folder)
    if file is None:
        assert adapter is None
        assert checkpoint is None
        return False
    expected = reference(content)
    assert file.tensors.keys() == expected.keys()
    for name, info in file.tensors.items():
        array = refused(file.read, name)
        assert (
            array is None
            or (in_file(info.dtype), info.shape, bits(array, info.dtype)) == expected[name]
        )
    if adapter is not None:
        read = [
            (in_file(t.dtype), t.shape, bits(t.read(), t.dtype)) for t in keyed(adapter).values()
        ]
        assert sorted(read) == sorted(expected.values())
        assert json.dumps(adapter.config)
    if checkpoint is not None:
        assert checkpoint.places.keys() == expected.keys()
    return True


def run(folder, examples):
    """How many mutants there were, and how many with a valid header."""
    header, body = build(folder)
    valid = []

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(mutations, min_size=1, max_size=2))
    def every_mutation(steps):
        mutant = Mutant(header, body)
        for step in steps:
            mutant.apply(*step)
        content = mutant.write(folder)
        start = time.process_time()
        valid.append(check(folder, content))
        assert time.process_time() - start < 1

    every_mutation()
    return f"{len(valid)} {sum(valid)}"


@pytest.mark.parametrize("count", COUNTS)
def test_mutated_adapters_at_least_half_with_a_valid_header(tmp_path, count):
    pytest.importorskip("safetensors")
    tried, valid = map(
        int, in_little_memory("tests.laws.test_adapters_fuzz:run", tmp_path, count).split()
    )
    assert tried >= count
    assert valid >= count / 2


LARGE = {
    "settings": lambda n: {str(i): i for i in range(n)},
    "ranks": lambda n: {"rank_pattern": {f"m.{i}": 2 for i in range(n)}},
    "expressions": lambda n: {"rank_pattern": {f"m.{i}.*x": 2 for i in range(n // 10)}},
    "one expression": lambda n: {"target_modules": "(a|a)" * (n // 5)},
    "targets": lambda n: {"target_modules": [f"q{i}" for i in range(n)]},
    "a target": lambda n: {"target_modules": ["q" * n]},
    "layers": lambda n: {"layers_to_transform": list(range(n))},
    "lists": lambda n: {"init_lora_weights": [[[]]] * n},
    "another type": lambda n: {"peft_type": "x" * n},
}


@pytest.mark.filterwarnings("ignore:.*is not a setting of PEFT")
@pytest.mark.parametrize("large", LARGE)
def test_the_time_of_a_config_grows_with_its_size(tmp_path, large):
    header, body = build(tmp_path)

    def prepare(size):
        mutant = Mutant(header, body)
        mutant.config |= LARGE[large](size)
        return mutant

    def read(mutant):
        mutant.write(tmp_path)
        refusal(adapters.load, tmp_path, errors=FileError)

    linear, seconds = is_linear(prepare, read, 40_000)
    assert linear, seconds


@pytest.mark.parametrize("named", ["modules", "strays", "alike"])
def test_the_time_of_a_header_grows_with_its_size(tmp_path, named):
    build(tmp_path)
    rows = {
        "modules": lambda i: [f"{PREFIX}m.{i}.q.lora_{part}.weight" for part in "AB"],
        "strays": lambda i: [f"{PREFIX}m.{i}.lora_C.weight"],
        "alike": lambda i: [
            f"{PREFIX}m.{i}.q.lora_A.weight",
            f"{PREFIX}m.{i}.q.lora_A.default.weight",
        ],
    }[named]

    def prepare(size):
        keys = [key for i in range(size) for key in rows(i)]
        places = {
            key: {"dtype": "BF16", "shape": [2, 2], "data_offsets": [8 * i, 8 * i + 8]}
            for i, key in enumerate(keys)
        }
        return pack(json.dumps(places).encode(), bytes(8 * len(keys)))

    def read(content):
        (tmp_path / INDEX).unlink(missing_ok=True)
        (tmp_path / WEIGHTS).write_bytes(content)
        refusal(adapters.load, tmp_path, errors=FileError)
        refusal(open_model, tmp_path / WEIGHTS, errors=FileError)

    linear, seconds = is_linear(prepare, read, 4_000)
    assert linear, seconds
