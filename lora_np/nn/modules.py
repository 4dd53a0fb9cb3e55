"""Describe the layers of a tree by `ModuleSpec`, so that modules can be selected by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lora_np.models import ModuleSpec
from lora_np.nn.layers import Embedding, Linear
from lora_np.nn.tree import walk


def layer_specs(model: Any) -> Iterator[ModuleSpec]:
    """Yield a `ModuleSpec` for each path of each linear layer and embedding in a tree.

    Parameters
    ----------
    model : object
        A tree of layers.

    Yields
    ------
    ModuleSpec
        A layer. Its role is ``"head"`` for the output layer, which is called ``lm_head`` or shares
        the array of an embedding.

    See Also
    --------
    walk : List all nodes of a tree.

    Examples
    --------
    >>> import numpy as np
    >>> from lora_np.nn import Activation, Sequential
    >>> model = Sequential([Linear(np.ones((4, 3))), Activation(np.tanh), Linear(np.ones((2, 4)))])
    >>> [(spec.name, spec.shape) for spec in layer_specs(model)]
    [('layers.0', (4, 3)), ('layers.2', (2, 4))]
    """
    layers = [(path, node) for path, node in walk(model) if isinstance(node, (Linear, Embedding))]
    embedded = {id(node.W) for _, node in layers if isinstance(node, Embedding)}
    seen: set[int] = set()
    for path, node in layers:
        b = getattr(node, "b", None)
        linear = isinstance(node, Linear)
        head = linear and (path.rpartition(".")[2] == "lm_head" or id(node.W) in embedded)
        yield ModuleSpec(
            path,
            "linear" if linear else "embedding",
            node.W.shape,
            bias=b is not None,
            tied=id(node.W) in seen,
            tied_bias=id(b) in seen,
            role="head" if head else "",
        )
        seen |= {id(node.W)} if b is None else {id(node.W), id(b)}
