"""Base models in GGUF files, which adapters are compared with."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

import numpy as np

from lora_np.adapters.peft_format import Stored
from lora_np.hub import GGUFModel, HubError


def gguf_weights(source: GGUFModel, names: Iterable[str]) -> dict[str, Stored]:
    """The weight of each module of these names, as numbers when it is read."""
    weights = {}
    for name in names:
        full = f"{name}.weight"
        if full not in source.names:
            close = get_close_matches(full, source.names, n=3, cutoff=0.5)
            hint = f"; close are {', '.join(map(repr, close))}" if close else ""
            raise HubError(f"{source.file.path}: has no {full!r}{hint}")
        shape = source.file.tensors[source.names[full]].shape
        weights[name] = Stored("float32", shape, lambda full=full: np.asarray(source.read(full)))  # type: ignore[misc]
    return weights
