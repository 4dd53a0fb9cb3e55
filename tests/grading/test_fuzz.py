"""Mutated frames: a value, or a `WireError`; in time that grows with their size, within 256 MiB."""

import io
import json
import struct

import numpy as np
import pytest

from lora_np.exercises import Remote, WireError
from lora_np.grading.wire import HEAD, pack, receive
from tests.mutations import COUNTS, WILD, changed, in_little_memory, is_linear, overwritten, refusal

MESSAGE = [
    {"answer": np.arange(6.0).reshape(2, 3), "half": (np.float16(0.5), np.array([1, 2], dtype=">i4"))},
    [1, 2.5, None, True, "text", {"nested": [[[(1, 2)]]]}],
    Remote(2),
    np.array([1 + 2j]),
    {1: "one", 0.5: "half"},
]
KINDS = [
    "<f8", "|b1", "<c16", "|O", "|V8", "|S5", "a5", "<U9", "<M8[s]", "f8,i4", "(2,3)f8", "(1000,1000)f8", "f8," * 50, "<f16",
    "<f80", "{}", "float", "double", "?", ">i2", "=u8", "O8", "<f8\n", "F", [["a", "<f8"]], {"names": ["a"], "formats": ["<f8"]},
]  # fmt: skip
KEYS = ["array", "shape", "start", "function", "tuple", "dict"]
VALUES = [*WILD, *KINDS, *KEYS, *({key: []} for key in KEYS), {"dict": [[[], 1]]}, {"function": "9" * 5_000}]


def frame(document, body):
    text = json.dumps(document).encode()
    return HEAD.pack(len(text), len(body)) + text + body


def read(content):
    return receive(io.BytesIO(content))


def made_of_what_travels(thing):
    if isinstance(thing, dict):
        return all(made_of_what_travels(part) for pair in thing.items() for part in pair)
    if isinstance(thing, (list, tuple)):
        return all(map(made_of_what_travels, thing))
    if isinstance(thing, (np.ndarray, np.generic)):
        return thing.dtype.kind in "biufc"
    return thing is None or type(thing) in (bool, int, float, str, Remote)


def run(folder, count):
    whole = pack(MESSAGE)
    size, _ = HEAD.unpack(whole[: HEAD.size])
    document, body = json.loads(whole[HEAD.size : HEAD.size + size]), whole[HEAD.size + size :]
    rng = np.random.default_rng(0)
    accepted = 0
    for _ in range(count):
        content = frame(changed(document, rng, VALUES), body) if rng.random() < 0.7 else whole
        if content is whole or rng.random() < 0.2:
            content = overwritten(content, rng)
        if rng.random() < 0.05:
            content = HEAD.pack(*rng.integers(2**32, size=2, dtype=np.uint32).tolist()) + content[8:]
        found, refused = refusal(read, content, errors=(WireError, EOFError))
        assert made_of_what_travels(found)
        accepted += not refused
    return accepted


@pytest.mark.parametrize("count", COUNTS)
def test_mutated_frames_are_read_or_refused(tmp_path, count):
    accepted = int(in_little_memory("tests.grading.test_fuzz:run", tmp_path, count))
    assert count / 20 < accepted < count  # the mutations neither all miss nor all break the frame


LARGE = {
    "numbers": lambda n: frame([0] * n, b""),
    "digits": lambda n: frame([10**900] * (n // 500), b""),
    "text": lambda n: frame(["x" * 9_000] * (n // 5_000), b""),
    "arrays": lambda n: frame([{"array": "<f8", "shape": [1], "start": 0}] * (n // 25), bytes(8 * n)),
    "keys": lambda n: frame({"dict": [[i, i] for i in range(n // 10)]}, b""),
    "lists in lists": lambda n: frame([json.loads("[" * 90 + "]" * 90)] * (n // 100), b""),
    "fields of a dtype": lambda n: frame({"array": "f8," * (n // 2), "shape": [1], "start": 0}, bytes(8 * n)),
    "axes": lambda n: frame({"array": "<f8", "shape": [1] * n, "start": 0}, bytes(8)),
    "bytes": lambda n: frame({"array": "<f8", "shape": [10 * n], "start": 0}, bytes(80 * n)),
}


@pytest.mark.parametrize("large", LARGE)
def test_the_time_grows_with_the_size(large):
    linear, seconds = is_linear(
        LARGE[large], lambda content: refusal(read, content, errors=WireError), 160_000
    )
    assert linear, seconds


def test_a_lie_about_the_size_of_a_dtype_is_told_at_once():
    content = frame({"array": "(2000000000,)f8", "shape": [1], "start": 0}, struct.pack("<d", 1))
    assert "not a message" in refusal(read, content, errors=WireError)[1]
