"""Walk and rewrite models, which are trees of frozen dataclasses.

A leaf is a ``Tensor`` (trainable), an ``ndarray`` (frozen) or a ``Quantised`` weight (frozen).
Dataclasses, tuples, lists and dicts are branches; anything else in a field (a number, a
function, ``None``) is a setting.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from itertools import count, repeat
from typing import Any, TypeVar

import numpy as np

from lora_np.autograd import Tensor
from lora_np.checks import Array
from lora_np.quantise import Quantised

T = TypeVar("T")


def leaves(tree: Any) -> list[tuple[str, Tensor | Array | Quantised]]:
    """List every array of ``tree`` once, as ``(path, array)`` in the order of the fields.

    Parameters
    ----------
    tree : object
        A model, or any nest of dataclasses, tuples, lists and dicts.

    Returns
    -------
    list of (str, Tensor, ndarray or Quantised)
        Paths and arrays. A path consists of field names and indices with dots between them, as in
        ``"layers.0.W"``. An array at several paths (a tied weight) is listed once, under all of
        them: ``"embedding.W = head.W"``.

    Examples
    --------
    >>> from lora_np.nn import Linear
    >>> for path, array in leaves(Linear(np.ones((2, 3)), np.zeros(2))):
    ...     print(path, array.shape)
    W (2, 3)
    b (2,)
    """
    arrays: dict[int, tuple[list[str], Tensor | Array | Quantised]] = {}
    for path, node in walk(tree):
        if isinstance(node, LEAVES):
            arrays.setdefault(id(node), ([], node))[0].append(path)
    return [(" = ".join(paths), array) for paths, array in arrays.values()]


def trainable(tree: Any) -> list[tuple[str, Tensor]]:
    """List the leaves that are Tensors, which optimizers update.

    Parameters
    ----------
    tree : object
        A model, or any nest of dataclasses, tuples, lists and dicts.

    Returns
    -------
    list of (str, Tensor)
        Paths and Tensors, in the order of `leaves`.

    See Also
    --------
    leaves : List all arrays.
    freeze : Replace Tensors by arrays.

    Examples
    --------
    >>> from lora_np.nn import Linear
    >>> [path for path, _ in trainable(Linear(np.ones((2, 3)), Tensor(np.zeros(2))))]
    ['b']
    """
    return [(path, leaf) for path, leaf in leaves(tree) if isinstance(leaf, Tensor)]


def replace(tree: T, kind: type | tuple[type, ...], f: Callable[[str, Any], Any]) -> T:
    """Replace every node of type ``kind`` by ``f(path, node)``; share all else with ``tree``.

    A node at several paths is replaced once, so tied weights stay tied. A node is visited before
    its children, and a replacement is not visited.

    Parameters
    ----------
    tree : object
        A model, or any nest of dataclasses, tuples, lists and dicts. It is not changed.
    kind : type or tuple of types
        The type of nodes to replace: a leaf type or a layer type.
    f : callable
        A function of path and node that returns the replacement.

    Returns
    -------
    object
        A tree of the same type.

    Examples
    --------
    >>> from lora_np.nn import Linear
    >>> doubled = replace(Linear(np.ones((1, 2)), None), np.ndarray, lambda path, a: 2 * a)
    >>> doubled.W
    array([[2., 2.]])
    """
    done: dict[int, Any] = {}

    def rewrite(path: str, node: Any) -> Any:
        if isinstance(node, kind):
            new = f(path, node)
        else:
            changed = {}
            for name, child in children(node):
                if type(child) in SETTINGS or (
                    isinstance(child, LEAVES) and not isinstance(child, kind)
                ):
                    continue
                place = f"{path}.{name}" if path else name
                other = done[id(child)] if id(child) in done else rewrite(place, child)
                if other is not child:
                    changed[name] = other
            new = with_children(node, changed) if changed else node
        done[id(node)] = new
        return new

    result: T = rewrite("", tree)
    return result


def freeze(tree: T) -> T:
    """Return a copy of the model with arrays instead of Tensors, which has the same outputs.

    The arrays are shared with ``tree``, not copied.

    Parameters
    ----------
    tree : object
        A model, or any nest of dataclasses, tuples, lists and dicts.

    Returns
    -------
    object
        A tree of the same types, without Tensors.

    See Also
    --------
    trainable : List the Tensors of a tree.

    Examples
    --------
    >>> from lora_np.nn import Linear
    >>> type(freeze(Linear(Tensor(np.ones((1, 2))), None))(np.ones((3, 2))))
    <class 'numpy.ndarray'>
    """
    return replace(tree, Tensor, lambda path, leaf: leaf.data)


def walk(tree: Any) -> list[tuple[str, Any]]:
    """List every node with its path, parents first, in the order of the fields.

    Parameters
    ----------
    tree : object
        A model, or any nest of dataclasses, tuples, lists and dicts.

    Returns
    -------
    list of (str, object)
        Paths and nodes.

    See Also
    --------
    leaves : List only the arrays.

    Examples
    --------
    >>> from lora_np.nn import Linear
    >>> [path for path, _ in walk([Linear(np.ones((2, 3)))])]
    ['', '0', '0.W', '0.b']
    """
    nodes, waiting = [], [("", tree)]
    while waiting:
        path, node = waiting.pop()
        nodes.append((path, node))
        if type(node) not in SETTINGS and not isinstance(node, LEAVES):
            for name, child in reversed(children(node)):
                waiting.append((f"{path}.{name}" if path else name, child))
    return nodes


def outline(node: Any) -> str:
    """Describe a model by its fields, with the shapes of arrays instead of their entries.

    Parameters
    ----------
    node : object
        A model, or any nest of dataclasses, tuples, lists and dicts.

    Returns
    -------
    str
        The description in one line, or if that is too long, in one line for each field.

    Examples
    --------
    >>> from lora_np.nn import Activation, Linear, Sequential
    >>> Sequential([Linear(np.ones((2, 3), np.float32)), Activation(np.tanh),
    ...     Linear(Tensor(np.eye(2)))])
    Sequential(
        layers=[
            Linear(W=array of 2 x 3 float32, b=None),
            Activation(function=tanh),
            Linear(W=Tensor of 2 x 2, b=None),
        ],
    )
    """
    if isinstance(node, (Tensor, np.ndarray)):
        shape = " x ".join(map(str, node.shape)) or "a number"
        dtype = "" if node.dtype == np.float64 else f" {node.dtype}"
        return f"{'Tensor' if isinstance(node, Tensor) else 'array'} of {shape}{dtype}"
    if isinstance(node, Quantised) or not children(node):
        return getattr(node, "__name__", None) or repr(node)
    listed = isinstance(node, (tuple, list))
    parts = [f"{'' if listed else f'{name}='}{outline(child)}" for name, child in children(node)]
    title = "" if listed else type(node).__name__
    left, right = "[]" if listed else "()"
    line = ", ".join(parts)
    if len(line) > 90 or "\n" in line:
        line = "".join("\n    " + part.replace("\n", "\n    ") + "," for part in parts) + "\n"
    return f"{title}{left}{line}{right}"


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Named:
    """The base class of nodes whose fields have other names in paths, given by ``names``.

    Parameters
    ----------
    names : mapping of str to str
        From fields to names, in the order of the tree; several fields may have the same name if
        they are the same part.

    Examples
    --------
    >>> @dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
    ... class MLP(Named):
    ...     up: np.ndarray
    >>> mlp = MLP(names={"up": "c_fc"}, up=np.ones((3, 2)))
    >>> mlp.c_fc is mlp.up, [path for path, _ in leaves(mlp)]
    (True, ['c_fc'])
    """

    names: Mapping[str, str]

    __repr__ = outline

    def __getattr__(self, name: str) -> Any:
        for field, other in vars(self).get("names", {}).items():
            if other == name:
                return getattr(self, field)
        raise AttributeError(f"{type(self).__name__} has no {name!r}")


LEAVES = (Tensor, np.ndarray, Quantised)
SETTINGS = frozenset((type(None), bool, int, float, str))  # common types without children
# a cache of the names of each dataclass's fields; other types have an empty tuple
FIELDS: dict[type, tuple[str, ...]] = {}


def children(node: Any) -> list[tuple[str, Any]]:
    """List the children of a node with their names; leaves and settings have none.

    It is written for speed, because it runs for every node.
    """
    kind = type(node)
    if kind not in FIELDS:
        fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
        FIELDS[kind] = tuple(field.name for field in fields)
    if issubclass(kind, Named):
        names = {name: name for name in FIELDS[kind][1:] if name not in node.names} | node.names
        parts = {name: getattr(node, field) for field, name in names.items()}
        return [(name, child) for name, child in parts.items() if child is not None]
    if names := FIELDS[kind]:
        return list(zip(names, map(getattr, repeat(node), names), strict=True))
    if isinstance(node, (tuple, list)):
        return list(zip(map(str, count()), node, strict=False))
    if isinstance(node, dict):
        return list(zip(map(str, node), node.values(), strict=True))
    return []


def with_children(node: Any, changed: dict[str, Any]) -> Any:
    """Return a copy of ``node``, in which ``changed`` replaces children by name."""
    if isinstance(node, (tuple, list)):
        # a NamedTuple's constructor takes the fields one by one, but `_make` takes a list
        make = getattr(node, "_make", type(node))
        return make([changed.get(name, child) for name, child in children(node)])
    if isinstance(node, dict):
        return {key: changed.get(str(key), child) for key, child in node.items()}
    if isinstance(node, Named):
        fields = {field: changed[name] for field, name in node.names.items() if name in changed}
        changed = {n: new for n, new in changed.items() if n not in node.names.values()} | fields
    return dataclasses.replace(node, **changed)


def join(path: str, name: str) -> str:
    """Join the path of a node and the name of one of its fields.

    Parameters
    ----------
    path : str
        The path of the node; empty for the root.
    name : str
        A field name, an index or a key.

    Returns
    -------
    str
        The path of the field, with a dot between both.

    Examples
    --------
    >>> join("model.layers", "0"), join("", "lm_head")
    ('model.layers.0', 'lm_head')
    """
    return f"{path}.{name}" if path else name
