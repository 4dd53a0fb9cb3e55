"""Encode and decode the values of an answer without pickle: numbers, text, arrays, lists, dicts."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypeAlias, cast

import numpy as np

from lora_np.checks import masked

# the type of answers, arguments and JSON values
Value: TypeAlias = (
    "int | float | str | np.ndarray | np.generic | Sequence[Value] | Mapping[str, Value] | None"
)
Json: TypeAlias = "int | float | str | Sequence[Json] | Mapping[str, Json] | None"


class WireError(ValueError):
    """Raised when a value cannot be encoded, or a document was not written by `encode`.

    Examples
    --------
    >>> encode({3})
    Traceback (most recent call last):
        ...
    lora_np.exercises.values.WireError: builtins.set is neither a number nor an array
    """


class Source(str):
    """The code of a function that is passed as an argument; `call` evaluates the code.

    Examples
    --------
    >>> encode([0.1, Source("lambda x: 2 * x")])
    [0.1, {'function': 'lambda x: 2 * x'}]
    """

    def __repr__(self) -> str:
        return str(self)


def encode(thing: Value) -> Json:
    """Encode a value for JSON: an array becomes its dtype, its shape, and its bytes in base 64.

    Parameters
    ----------
    thing : Value
        An answer, or the arguments of a call.

    Returns
    -------
    Json
        A document for ``json.dumps``.

    Raises
    ------
    WireError
        If the value contains anything but numbers, text, arrays, lists, tuples and dicts.

    Examples
    --------
    >>> encode(("B", np.array([1, 2], dtype="u1")))
    {'tuple': ['B', {'array': '|u1', 'shape': [2], 'bytes': 'AQI='}]}
    """
    if isinstance(thing, (np.ndarray, np.generic)) and not masked(thing):
        array = np.asarray(thing)
        if array.dtype.kind not in "biufc":
            raise WireError(f"an array of dtype {array.dtype} is not made of numbers")
        content = b64encode(array.tobytes()).decode("ascii")
        return {"array": array.dtype.str, "shape": list(array.shape), "bytes": content}
    if isinstance(thing, Source):
        return {"function": str(thing)}
    if thing is None or isinstance(thing, (int, float, str)):
        return thing
    if isinstance(thing, (list, tuple)):
        items: Json = list(map(encode, thing))
        return {"tuple": items} if isinstance(thing, tuple) else items
    if isinstance(thing, dict):
        if not all(isinstance(key, (str, int, float)) for key in thing):
            raise WireError("the keys of a dict must be strings or numbers")
        return {"dict": [[encode(key), encode(value)] for key, value in thing.items()]}
    raise WireError(
        f"{type(thing).__module__}.{type(thing).__qualname__} is neither a number nor an array"
    )


# Limits of an answer: axes of an array, length of an axis, characters of a text, depth of lists.
# The limits on axes are checked before an array is made, because a short document can declare any
# shape.
AXES, ITEMS, TEXT, DEPTH = 32, 2**31, 10_000, 100


def decode(document: Json, depth: int = 0, *, trusted: bool = False) -> Value:
    """Decode a document that `encode` has written.

    Parameters
    ----------
    document : Json
        The document, from ``json.loads``.
    depth : int
        The number of lists that contain it.
    trusted : bool
        Whether it may contain long text and the code of functions; never if a submission wrote it.

    Returns
    -------
    Value
        The value that was encoded.

    Raises
    ------
    WireError
        If the document is not one of `encode`, or too large: more than 32 axes, text of more than
        10,000 characters, or more than 100 nested lists.

    Examples
    --------
    >>> decode(encode({"rank": 2, "B": np.eye(1, 2)}))
    {'rank': 2, 'B': array([[1., 0.]])}
    """
    if depth > DEPTH:
        raise WireError(f"an answer may be {DEPTH} lists deep")
    if isinstance(document, str) and len(document) > TEXT and not trusted:
        raise WireError(f"text may have {TEXT:,} characters, got {len(document):,}")
    inner = partial(decode, depth=depth + 1, trusted=trusted)
    if isinstance(document, list):
        return list(map(inner, document))
    if not isinstance(document, dict):
        return document
    if "array" in document:
        return array_of(document["array"], document["shape"], document["bytes"])
    if trusted and "function" in document:
        return Source(document["function"])
    if "tuple" in document:
        return tuple(map(inner, document["tuple"]))
    return {cast(str, inner(key)): inner(item) for key, item in document["dict"]}


def array_of(kind: str, shape: list[int], content: str) -> np.ndarray | np.generic:
    # check the dtype first, because np.dtype also accepts structured types of any size
    numeric = re.fullmatch(r"[<>|=]?[biufc][0-9]{1,2}", kind)
    sizes = len(shape) <= AXES and all(type(n) is int and 0 <= n < ITEMS for n in shape)
    if not (numeric and sizes):
        raise WireError(
            f"an array of numbers has a numeric dtype, and at most {AXES} axes, each a number"
        )
    flat = np.frombuffer(b64decode(content), kind) if content else np.empty(0, kind)
    return flat.reshape(shape).copy()[()]
