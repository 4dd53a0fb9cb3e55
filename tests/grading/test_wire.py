"""The wire: what goes in comes out, and nothing that comes in can do more than fail."""

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as nps

from lora_np.exercises import WireError
from lora_np.exercises.values import Source
from lora_np.grading.wire import LIMIT, pack, receive, send

arrays = nps.arrays(
    nps.floating_dtypes()
    | nps.integer_dtypes()
    | nps.boolean_dtypes()
    | nps.complex_number_dtypes(),
    nps.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | arrays,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=6,
)


def there_and_back(value):
    stream = io.BytesIO()
    send(stream, value)
    stream.seek(0)
    return receive(stream, trusted=True)


def alike(a, b):
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, (np.ndarray, np.generic)):
        native = a.dtype.newbyteorder("=")  # a scalar has the machine's order of bytes
        return (
            a.dtype in (b.dtype, native)
            and a.shape == b.shape
            and native_bytes(a) == native_bytes(b)
        )
    return type(a) is type(b) and (a == b or a != a)


def native_bytes(array):
    return np.asarray(array).astype(array.dtype.newbyteorder("=")).tobytes()


@given(values)
@settings(deadline=None)
def test_there_and_back(value):
    assert alike(there_and_back(value), value)


def test_an_array_that_arrives_can_be_written_to():
    array = there_and_back(np.arange(3.0))
    array += 1
    assert array.tolist() == [1, 2, 3]


@pytest.mark.parametrize(("thing", "words"), [
    (object(), "builtins.object is neither a number nor an array"),
    (np.array([None]), "dtype object is not made of numbers"),
    (np.array(["a"]), "is not made of numbers"),
    (np.ma.masked_array([1.0], [True]), "MaskedArray is neither a number nor an array"),
    ({(1, 2): 3}, "keys of a dict"),
    ({1, 2}, "builtins.set is neither"),
    (np.zeros(LIMIT, dtype=np.uint8), "a message may have"),
])  # fmt: skip
def test_what_cannot_be_sent(thing, words):
    with pytest.raises(WireError, match=words):
        pack(thing)


def test_a_list_that_holds_itself_cannot_be_sent():
    endless = []
    endless.append(endless)
    with pytest.raises(WireError, match="too deep"):
        pack(endless)


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_give_a_value_or_an_error(content):
    stream = io.BytesIO(content)
    while stream.tell() < len(content):
        try:
            receive(stream)
        except (WireError, EOFError):
            return


documents = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["array", "shape", "bytes", "tuple", "dict", "function"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(documents)
@settings(deadline=None)
def test_any_document_gives_a_value_or_an_error(document):
    try:
        receive(io.BytesIO(json.dumps(document).encode() + b"\n"))
    except (WireError, EOFError):
        return


EIGHT = "AAAAAAAA8D8="  # the bytes of 1.0


@pytest.mark.parametrize("document", [
    {"array": "|O", "shape": [1], "bytes": EIGHT},
    {"array": "<f8", "shape": [-1], "bytes": EIGHT},
    {"array": "<f8", "shape": [2**62], "bytes": EIGHT},
    {"array": "<f8", "shape": [2**30], "bytes": EIGHT},
    {"array": "<f8", "shape": [2], "bytes": EIGHT},
    {"array": "<f8", "shape": [1], "bytes": ""},
    {"array": "<f8", "shape": [1], "bytes": "no"},
    {"array": "<f8", "shape": [1], "bytes": 7},
    {"array": "<f8", "shape": 7, "bytes": EIGHT},
    {"array": "<f8", "shape": [1] * 33, "bytes": EIGHT},
    {"array": "<f8", "shape": [10**900] * 30, "bytes": EIGHT},
    {"array": "<f8", "shape": [True], "bytes": EIGHT},
    "x" * 10_001,
    ["x" * 10**6, *[""] * 1200],
    json.loads("[" * 200 + "]" * 200),
    {"array": [["a", "<f8"]], "shape": [1], "bytes": EIGHT},
    {"dict": [[[], 1]]},
    {},
])  # fmt: skip
def test_forged_documents(document):
    with pytest.raises(WireError, match="not a message"):
        receive(io.BytesIO(json.dumps(document).encode() + b"\n"))


@pytest.mark.parametrize("text", [
    "1" * 4_301,
    '{"array": "<f8", "shape": [' + ", ".join(["9" * 4_301] * 200) + '], "bytes": ""}',
], ids=["a number", "a shape"])  # fmt: skip
def test_long_numbers_are_refused_before_they_are_read(text):
    with pytest.raises(WireError, match="digits"):
        receive(io.BytesIO(text.encode() + b"\n"))


@pytest.mark.parametrize("end", [b"]", b"]\n", b""])
def test_a_document_of_empty_lists_is_too_long(end):
    with pytest.raises(WireError, match="a message may have 8,388,608 bytes"):
        receive(io.BytesIO(b"[" + b"[]," * (LIMIT // 3) + b"[]" + end))


def test_a_message_ends_with_its_line():
    with pytest.raises(EOFError):
        receive(io.BytesIO(b"[1, 2]"))


def test_functions_travel_as_text():
    (found,) = there_and_back([Source("lambda x: 1 / 0")])
    assert type(found) is Source
    assert found == "lambda x: 1 / 0"
    with pytest.raises(WireError, match="not a message"):
        receive(io.BytesIO(pack(found)))
