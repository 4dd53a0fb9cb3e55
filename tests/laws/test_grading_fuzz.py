"""Mutated frames: a value, or a `WireError`; in time that grows with their size, within 256 MiB."""

import io
import json
from base64 import b64encode

import numpy as np
import pytest

from lora_np.exercises import WireError
from lora_np.exercises.values import Source
from lora_np.grading.wire import pack, receive
from tests.mutations import COUNTS, WILD, changed, in_little_memory, is_linear, overwritten, refusal

MESSAGE = [
    {
        "answer": np.arange(6.0).reshape(2, 3),
        "half": (np.float16(0.5), np.array([1, 2], dtype=">i4")),
    },
    [1, 2.5, None, True, "text", {"nested": [[[(1, 2)]]]}],
    Source("lambda x: 2 * x"),
    np.array([1 + 2j]),
    {1: "one", 0.5: "half"},
]
KINDS = [
    "<f8", "|b1", "<c16", "|O", "|V8", "|S5", "a5", "<U9", "<M8[s]", "f8,i4", "(2,3)f8", "(1000,1000)f8", "f8," * 50, "<f16",
    "<f80", "{}", "float", "double", "?", ">i2", "=u8", "O8", "<f8\n", "F", [["a", "<f8"]], {"names": ["a"], "formats": ["<f8"]},
]  # fmt: skip
KEYS = ["array", "shape", "bytes", "function", "tuple", "dict"]
VALUES = [
    *WILD,
    *KINDS,
    *KEYS,
    *({key: []} for key in KEYS),
    {"dict": [[[], 1]]},
    {"function": "9" * 5_000},
]


def line(document):
    return json.dumps(document).encode() + b"\n"


def zeros(count, shape):
    return {"array": "<f8", "shape": shape, "bytes": b64encode(bytes(8 * count)).decode()}


def read(content):
    return receive(io.BytesIO(content), trusted=True)


def made_of_what_travels(thing):
    if isinstance(thing, dict):
        return all(made_of_what_travels(part) for pair in thing.items() for part in pair)
    if isinstance(thing, (list, tuple)):
        return all(map(made_of_what_travels, thing))
    if isinstance(thing, (np.ndarray, np.generic)):
        return thing.dtype.kind in "biufc"
    return thing is None or type(thing) in (bool, int, float, str, Source)


def run(folder, count):
    whole = pack(MESSAGE)
    document = json.loads(whole)
    rng = np.random.default_rng(0)
    accepted = 0
    for _ in range(count):
        content = line(changed(document, rng, VALUES)) if rng.random() < 0.7 else whole
        if content is whole or rng.random() < 0.2:
            content = overwritten(content, rng)
        found, refused = refusal(read, content, errors=(WireError, EOFError))
        assert made_of_what_travels(found)
        accepted += not refused
    return accepted


@pytest.mark.parametrize("count", COUNTS)
def test_mutated_frames_are_read_or_refused(tmp_path, count):
    accepted = int(in_little_memory("tests.laws.test_grading_fuzz:run", tmp_path, count))
    assert count / 20 < accepted < count  # the mutations neither all miss nor all break the frame


LARGE = {
    "numbers": lambda n: line([0] * n),
    "digits": lambda n: line([10**900] * (n // 500)),
    "text": lambda n: line(["x" * 9_000] * (n // 5_000)),
    "arrays": lambda n: line([zeros(1, [1])] * (n // 25)),
    "keys": lambda n: line({"dict": [[i, i] for i in range(n // 10)]}),
    "lists in lists": lambda n: line([json.loads("[" * 90 + "]" * 90)] * (n // 100)),
    "fields of a dtype": lambda n: line({"array": "f8," * (n // 2), "shape": [1], "bytes": "AAAA"}),
    "axes": lambda n: line(zeros(1, [1] * n)),
    "bytes": lambda n: line(zeros(n // 2, [n // 2])),
}


@pytest.mark.parametrize("large", LARGE)
def test_the_time_grows_with_the_size(large):
    linear, seconds = is_linear(
        LARGE[large], lambda content: refusal(read, content, errors=WireError), 160_000
    )
    assert linear, seconds


def test_a_lie_about_the_size_of_a_dtype_is_told_at_once():
    content = line({"array": "(2000000000,)f8", "shape": [1], "bytes": "AAAAAAAA8D8="})
    assert "not a message" in refusal(read, content, errors=WireError)[1]
