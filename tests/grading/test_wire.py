"""The wire: what goes in comes out, and nothing that comes in can do more than fail."""

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as nps

from lora_np.exercises import Remote, WireError
from lora_np.grading.wire import HEAD, LIMIT, pack, receive, send

arrays = nps.arrays(
    nps.floating_dtypes() | nps.integer_dtypes() | nps.boolean_dtypes() | nps.complex_number_dtypes(),
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
    return receive(stream)


def alike(a, b):
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, (np.ndarray, np.generic)):
        native = a.dtype.newbyteorder("=")  # a scalar has the machine's order of bytes
        return a.dtype in (b.dtype, native) and a.shape == b.shape and native_bytes(a) == native_bytes(b)
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
            st.sampled_from(["array", "shape", "start", "tuple", "dict", "function"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@given(documents, st.binary(max_size=40))
@settings(deadline=None)
def test_any_document_gives_a_value_or_an_error(document, content):
    text = json.dumps(document).encode()
    try:
        receive(io.BytesIO(HEAD.pack(len(text), len(content)) + text + content))
    except (WireError, EOFError):
        return


@pytest.mark.parametrize("document", [
    {"array": "|O", "shape": [1], "start": 0},
    {"array": "<f8", "shape": [-1], "start": 0},
    {"array": "<f8", "shape": [2**62], "start": 0},
    {"array": "<f8", "shape": [1], "start": -8},
    {"array": "<f8", "shape": [1], "start": 8},
    {"array": "<f8", "shape": 7, "start": 0},
    {"array": "<f8", "shape": [1] * 33, "start": 0},
    {"array": "<f8", "shape": [10**900] * 30, "start": 0},
    {"array": "<f8", "shape": [True], "start": 0},
    [{"array": "<f8", "shape": [1], "start": 0}] * 2,
    "x" * 10_001,
    ["x" * 10**6, *[""] * 1200],
    json.loads("[" * 200 + "]" * 200),
    {"array": [["a", "<f8"]], "shape": [1], "start": 0},
    {"dict": [[[], 1]]},
    {},
])  # fmt: skip
def test_forged_documents(document):
    text = json.dumps(document).encode()
    with pytest.raises(WireError, match="not a message"):
        receive(io.BytesIO(HEAD.pack(len(text), 8) + text + bytes(8)))


@pytest.mark.parametrize("text", [
    "1" * 4_301,
    '{"array": "<f8", "shape": [' + ", ".join(["9" * 4_301] * 200) + '], "start": 0}',
], ids=["a number", "a shape"])  # fmt: skip
def test_long_numbers_are_refused_before_they_are_read(text):
    with pytest.raises(WireError, match="digits"):
        receive(io.BytesIO(HEAD.pack(len(text), 0) + text.encode()))


def test_a_document_of_empty_lists_is_too_long():
    text = b"[" + b"[]," * 2**20 + b"[]]"
    with pytest.raises(WireError, match="outside arrays"):
        receive(io.BytesIO(HEAD.pack(len(text), 0) + text))


def test_a_length_that_is_a_lie_takes_no_memory():
    with pytest.raises(WireError, match="a message may have"):
        receive(io.BytesIO(HEAD.pack(2**32 - 1, 2**32 - 1)))


def test_functions_travel_by_number():
    assert there_and_back([Remote(3)])[0].number == 3
