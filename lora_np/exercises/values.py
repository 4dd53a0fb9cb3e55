"""What an answer may be made of: numbers, text, arrays, lists, tuples, dicts; never a pickle."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


class WireError(ValueError):
    """What arrived is not a message, or what should be sent cannot be."""


class Remote:
    """A function that lives on the other side, known there by its number."""

    def __init__(self, number: int) -> None:
        self.number = number


def encode(thing: Any, buffers: list[bytes]) -> Any:
    """What JSON can say; arrays become their dtype, shape and place among the ``buffers``."""
    if thing is None or type(thing) in (bool, int, float, str):
        return thing
    if isinstance(thing, (np.ndarray, np.generic)):
        array = np.asarray(thing)
        if array.dtype.kind not in "biufc":
            raise WireError(f"an array of dtype {array.dtype} is not made of numbers")
        start = sum(map(len, buffers))
        buffers.append(array.tobytes())
        return {"array": array.dtype.str, "shape": list(array.shape), "start": start}
    if isinstance(thing, Remote):
        return {"function": thing.number}
    if isinstance(thing, (list, tuple)):
        items = [encode(item, buffers) for item in thing]
        return {"tuple": items} if isinstance(thing, tuple) else items
    if isinstance(thing, dict):
        if not all(isinstance(key, (str, int, float)) for key in thing):
            raise WireError("the keys of a dict must be strings or numbers")
        return {"dict": [[encode(key, buffers), encode(value, buffers)] for key, value in thing.items()]}
    raise WireError(f"{type(thing).__module__}.{type(thing).__qualname__} is neither a number nor an array")


def decode(document: Any, arrays: memoryview) -> Any:
    """The opposite of `encode`; every size is checked before memory is taken."""
    if isinstance(document, list):
        return [decode(item, arrays) for item in document]
    if not isinstance(document, dict):
        return document
    if "array" in document:
        dtype = np.dtype(str(document["array"]))
        shape = tuple(document["shape"])
        if dtype.kind not in "biufc" or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise WireError(f"no array of numbers: {dtype} {shape}")
        count, start = math.prod(shape), int(document["start"])
        array = np.frombuffer(arrays, dtype, count, start) if count else np.empty(0, dtype)
        return array.reshape(shape).copy()[()]
    if "function" in document:
        return Remote(int(document["function"]))
    if "tuple" in document:
        return tuple(decode(item, arrays) for item in document["tuple"])
    return {decode(key, arrays): decode(value, arrays) for key, value in document["dict"]}
