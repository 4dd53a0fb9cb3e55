"""The values allowed in an answer: numbers, text, arrays, lists, tuples, dicts; never a pickle."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np


class WireError(ValueError):
    """A received value is not a message, or a value cannot be sent."""


class Remote:
    """A function that lives on the other side, known there by its number.

    Parameters
    ----------
    number : int
        Its place among the functions of a call.
    """

    def __init__(self, number: int) -> None:
        self.number = number


def encode(thing: Any) -> tuple[Any, bytes]:
    """What JSON can say, and bytes: arrays become their dtype, shape and place among the bytes.

    Parameters
    ----------
    thing : Any
        An answer, or arguments.

    Returns
    -------
    document : Any
        For ``json.dumps``.
    arrays : bytes
        All arrays, one after the other.

    Raises
    ------
    WireError
        If it holds something else than numbers, text, arrays, lists, tuples and dicts.
    """
    arrays = bytearray()

    def part(thing: Any) -> Any:
        if thing is None or type(thing) in (bool, int, float, str):
            return thing
        if isinstance(thing, (np.ndarray, np.generic)):
            array, start = np.asarray(thing), len(arrays)
            if array.dtype.kind not in "biufc":
                raise WireError(f"an array of dtype {array.dtype} is not made of numbers")
            arrays.extend(array.tobytes())
            return {"array": array.dtype.str, "shape": list(array.shape), "start": start}
        if isinstance(thing, Remote):
            return {"function": thing.number}
        if isinstance(thing, (list, tuple)):
            items = list(map(part, thing))
            return {"tuple": items} if isinstance(thing, tuple) else items
        if isinstance(thing, dict):
            if not all(isinstance(key, (str, int, float)) for key in thing):
                raise WireError("the keys of a dict must be strings or numbers")
            return {"dict": [[part(key), part(value)] for key, value in thing.items()]}
        kind = type(thing)
        raise WireError(f"{kind.__module__}.{kind.__qualname__} is neither a number nor an array")

    return part(thing), bytes(arrays)


# The limits of an answer. Each number is checked before memory is allocated for it: an answer of a few
# bytes can ask for a thousand times more (arrays that share bytes, text that NumPy pads to the longest).
AXES, ITEMS, TEXT, DEPTH = 32, 2**31, 10_000, 100


def decode(document: Any, arrays: bytes) -> Any:
    """The opposite of `encode`: a document of JSON and the bytes of its arrays.

    Parameters
    ----------
    document : Any
        As ``json.loads`` gives it.
    arrays : bytes
        All arrays, one after the other.

    Returns
    -------
    Any
        What was encoded.

    Raises
    ------
    WireError
        If it is not what `encode` writes, or too large: more than 32 axes, text of more than 10,000
        characters, lists in lists deeper than 100, or arrays that together take more bytes than there are.
    """
    left = len(arrays)

    def value(part: Any, depth: int) -> Any:
        if depth > DEPTH:
            raise WireError(f"an answer may be {DEPTH} lists deep")
        if isinstance(part, str) and len(part) > TEXT:
            raise WireError(f"text may have {TEXT:,} characters, got {len(part):,}")
        if isinstance(part, list):
            return [value(item, depth + 1) for item in part]
        if not isinstance(part, dict):
            return part
        if "array" in part:
            return array(part["array"], part["shape"], part["start"])
        if "function" in part:
            return Remote(int(part["function"]))
        if "tuple" in part:
            return tuple(value(item, depth + 1) for item in part["tuple"])
        return {value(key, depth + 1): value(item, depth + 1) for key, item in part["dict"]}

    def array(kind: Any, shape: Any, start: Any) -> Any:
        nonlocal left
        if not isinstance(kind, str) or not isinstance(shape, list) or len(shape) > AXES:
            raise WireError(f"an array has a dtype and at most {AXES} axes")
        # Not left to NumPy, which makes structures of any size from text, and passes that text to Python.
        if not re.fullmatch(r"[<>|=]?[biufc][0-9]{1,2}", kind) or not all(
            type(n) is int and 0 <= n < ITEMS for n in (*shape, start)
        ):
            raise WireError("an array of numbers has a numeric dtype and a shape of whole numbers")
        dtype, count = np.dtype(kind), math.prod(shape)
        left -= count * dtype.itemsize
        if left < 0:
            raise WireError("arrays may take no more bytes than were sent")
        found = np.frombuffer(arrays, dtype, count, start) if count else np.empty(0, dtype)
        return found.reshape(shape).copy()[()]

    return value(document, 0)
