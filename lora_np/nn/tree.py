"""A model is a tree of frozen dataclasses; one walk and one rewrite serve everything that is done to it.

A leaf is a ``Tensor`` (trainable), an ``ndarray`` (frozen) or a ``Quantised`` weight (frozen, in few bits).
Dataclasses, tuples, lists and dicts are branches; whatever else stands in a field (a number, a function,
``None``) is a setting.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from lora_np.autograd import Tensor, value
from lora_np.checks import Array
from lora_np.quantise import Quantised

T = TypeVar("T")


def leaves(tree: Any) -> list[tuple[str, Tensor | Array | Quantised]]:
    """Every array of ``tree`` once, as ``(path, array)`` in the order of the fields.

    Parameters
    ----------
    tree : object
        A model, or any nest of dataclasses, tuples, lists and dicts.

    Returns
    -------
    list of (str, Tensor, ndarray or Quantised)
        A path joins field names and positions by dots: ``"layers.0.W"``. An array that stands in several
        places (a tied weight) comes once, under all of them: ``"embedding.W = head.W"``.

    Examples
    --------
    >>> from lora_np.nn import Linear
    >>> for path, array in leaves(Linear(np.ones((2, 3)), np.zeros(2))):
    ...     print(path, array.shape)
    W (2, 3)
    b (2,)
    """
    places: dict[int, list[str]] = {}
    arrays: dict[int, Tensor | Array | Quantised] = {}
    for path, node in walk(tree):
        if isinstance(node, (Tensor, np.ndarray, Quantised)):
            places.setdefault(id(node), []).append(path)
            arrays[id(node)] = node
    return [(" = ".join(places[key]), array) for key, array in arrays.items()]


def trainable(tree: Any) -> list[tuple[str, Tensor]]:
    """The leaves that are Tensors: what an optimizer may move.

    Examples
    --------
    >>> from lora_np.nn import Linear
    >>> [path for path, _ in trainable(Linear(np.ones((2, 3)), Tensor(np.zeros(2))))]
    ['b']
    """
    return [(path, leaf) for path, leaf in leaves(tree) if isinstance(leaf, Tensor)]


def replace(tree: T, kind: type | tuple[type, ...], f: Callable[[str, Any], Any]) -> T:
    """A tree in which every node of type ``kind`` is ``f(path, node)``; all else is shared with ``tree``.

    A node that stands in several places is rewritten once, so that what was tied stays tied. ``f`` sees a
    node before its children, and what it returns is not entered again.

    Parameters
    ----------
    tree : object
        A model, or any nest of dataclasses, tuples, lists and dicts. It is not changed.
    kind : type or tuple of types
        What to look for: a leaf type or a layer type.
    f : callable
        Receives the path and the node, returns what takes its place.

    Examples
    --------
    >>> from lora_np.nn import Linear
    >>> doubled = replace(Linear(np.ones((1, 2)), None), np.ndarray, lambda path, a: 2 * a)
    >>> doubled.W
    array([[2., 2.]])
    """
    done: dict[int, Any] = {}

    def rewrite(path: str, node: Any) -> Any:
        if id(node) not in done:
            done[id(node)] = f(path, node) if isinstance(node, kind) else rebuild(node, path, rewrite)
        return done[id(node)]

    result: T = rewrite("", tree)
    return result


def freeze(tree: T) -> T:
    """The same model without Tensors: ordinary NumPy that computes the same and takes no gradients.

    The arrays are shared with ``tree``, not copied.

    Examples
    --------
    >>> from lora_np.nn import Linear
    >>> type(freeze(Linear(Tensor(np.ones((1, 2))), None))(np.ones((3, 2))))
    <class 'numpy.ndarray'>
    """
    return replace(tree, Tensor, lambda path, leaf: value(leaf))


def walk(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every node with its path, parents first."""
    yield path, node
    for name, child in children(node):
        yield from walk(child, join(path, name))


def children(node: Any) -> list[tuple[str, Any]]:
    """Named children of a branch; nothing for leaves and settings."""
    if isinstance(node, Quantised):  # a leaf, however it keeps its bits
        return []
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        return [(field.name, getattr(node, field.name)) for field in dataclasses.fields(node)]
    if isinstance(node, (tuple, list)):
        return [(str(i), child) for i, child in enumerate(node)]
    if isinstance(node, dict):
        return [(str(key), child) for key, child in node.items()]
    return []


def rebuild(node: Any, path: str, rewrite: Callable[[str, Any], Any]) -> Any:
    """``node`` with rewritten children; ``node`` itself if none of them changed."""
    before = children(node)
    after = [rewrite(join(path, name), child) for name, child in before]
    if all(new is old for new, (_, old) in zip(after, before, strict=True)):
        return node
    if isinstance(node, (tuple, list)):
        return type(node)(after)
    if isinstance(node, dict):
        return dict(zip(node, after, strict=True))
    return dataclasses.replace(node, **{name: new for new, (name, _) in zip(after, before, strict=True)})


def join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
