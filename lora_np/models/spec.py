"""Represent a model as a list of named modules with the shapes of their parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby, product, starmap
from math import prod
from typing import Any, Literal, NamedTuple

from lora_np.checks import close_names
from lora_np.models.names import default_targets, fused_names
from lora_np.table import Cell, Table, shape_text

Indices = range | tuple[int, ...]
Kind = Literal["linear", "embedding", "convolution", "norm", "router", "experts", "parameter"]

# roles of the linear layers inside attention, as in families' data files
ATTENTION = (
    "query",
    "key",
    "value",
    "qkv",
    "key_value",
    "position_query",
    "position_key",
    "output",
)


class ModuleSpec(NamedTuple):
    """A module with parameters, or identical modules whose names differ only in an index.

    Names are as in transformers. ``{}`` in a name is an index, one for each entry of
    ``ranges``: ``model.layers.{}.self_attn.q_proj`` with ``(range(80),)`` is eighty modules.

    Parameters
    ----------
    name : str
        The path, with ``{}`` for each index.
    kind : str
        ``"linear"``, ``"embedding"``, ``"experts"``, ``"router"``, ``"convolution"``, ``"norm"``
        or ``"parameter"``.
    shape : tuple of int
        (d_out, d_in) of a linear layer; ``(d_out, d_in, *kernel)`` of a convolution; (vocabulary,
        width) of an embedding; (experts, d_out, d_in) of experts.
    bias : bool
        Whether there is a bias, of length d_out.
    tied : bool
        Whether the weight belongs to another module and is counted there.
    tied_bias : bool
        Whether the bias belongs to another module and is counted there.
    groups : int
        The number of groups of a convolution, whose shape then has d_in / groups.
    alias : str
        The name in checkpoints, if it differs.
    parts : tuple of str
        The linear layers that experts fuse, by their names in checkpoints.
    ranges : tuple of range
        The values of each index in the name.
    role : str
        The purpose: query, key, up, down, head, ...; empty if unknown.
    transposed : bool
        Whether the weight is stored as inputs by outputs, as in GPT-2's Conv1D and in some experts.
    called : bool
        Whether the model calls the module as a module of its kind. If it only reads the weight, a
        PEFT adapter has no effect or fails.

    Examples
    --------
    >>> q = ModuleSpec("layers.{}.q_proj", "linear", (8, 6), bias=True, ranges=(range(2),))
    >>> q.names(), q.parameters
    (['layers.0.q_proj', 'layers.1.q_proj'], 112)
    """

    name: str
    kind: Kind
    shape: tuple[int, ...]
    bias: bool = False
    tied: bool = False
    tied_bias: bool = False
    groups: int = 1
    alias: str = ""
    parts: tuple[str, ...] = ()
    ranges: tuple[Indices, ...] = ()
    role: str = ""
    transposed: bool = False
    called: bool = True

    @property
    def copies(self) -> int:
        """The number of identical modules that this specification describes."""
        return prod(map(len, self.ranges))

    @property
    def weight(self) -> int:
        """The number of parameters of one weight, even if another module owns it."""
        return prod(self.shape)

    @property
    def leaf(self) -> str:
        """The last part of the name, such as ``q_proj``."""
        return self.name.rpartition(".")[2]

    @property
    def holder(self) -> str:
        """The name of the module that contains this one; empty if there is none."""
        return self.name.rpartition(".")[0]

    @property
    def sides(self) -> tuple[int, int, int]:
        """The number of matrices in one weight, and the outputs d and inputs k of each matrix."""
        if self.kind == "convolution":
            return 1, self.shape[0], prod(self.shape[1:]) * self.groups
        *many, d_out, d_in = self.shape
        return (1, d_in, d_out) if self.kind == "embedding" else (prod(many), d_out, d_in)

    @property
    def bias_size(self) -> int:
        """The number of parameters of one bias, even if another module owns it."""
        return self.shape[0] if self.bias else 0

    @property
    def parameters(self) -> int:
        """The number of parameters of all copies; tied parameters are counted elsewhere."""
        own = (0 if self.tied else self.weight) + (0 if self.tied_bias else self.bias_size)
        return own * self.copies

    def names(self) -> list[str]:
        """List the names of the modules, one for each copy."""
        # do not format a name without indices, because it may contain literal braces
        return (
            list(starmap(self.name.format, product(*self.ranges))) if self.ranges else [self.name]
        )

    def at(self, *indices: int) -> ModuleSpec:
        """Return the modules whose first indices have the given values."""
        rest = ["{}"] * (len(self.ranges) - len(indices))
        name, alias = (text.format(*indices, *rest) for text in (self.name, self.alias))
        return self._replace(name=name, alias=alias, ranges=self.ranges[len(indices) :])


class Layers(NamedTuple):
    """Properties of a stack of transformer layers that the shapes of parameters do not reveal.

    Parameters
    ----------
    prefix : str
        The prefix of its modules' names.
    depth : int
        The number of layers.
    width : int
        The width of the hidden states.
    heads : int
        The number of attention heads.
    kv_heads : int
        The number of heads of keys and values.
    head_width : int
        The width of queries and keys in a head.
    value_width : int
        The width of values in a head.
    activation : str
        The activation function of the MLP.
    cross_attention : bool
        Whether each layer also attends to an encoder.
    dropout : bool
        Whether dropout is applied to hidden states in training.
    attention_dropout : bool
        Whether dropout is applied to attention weights in training.
    tokens : int
        The number of tokens for each sequence if it is fixed, as in a vision tower; 0 if it is the
        sequence length.
    float_norm : bool
        Whether its RMS norms multiply by their weight in float32.
    half_softmax : bool
        Whether the softmax of eager attention has the dtype of the weights rather than float32.
    soft_cap : bool
        Whether a tanh limits attention scores and logits.
    repeats : int
        How many times in a row each layer is applied.
    half_loss : bool
        Whether the loss is computed in the dtype of the weights rather than in float32.
    """

    prefix: str
    depth: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    value_width: int
    activation: str
    cross_attention: bool = False
    dropout: bool = False
    attention_dropout: bool = False
    tokens: int = 0
    float_norm: bool = False
    half_softmax: bool = False
    soft_cap: bool = False
    repeats: int = 1
    half_loss: bool = False


@dataclass(frozen=True)
class ModelSpec:
    """A model as a list of modules with names, kinds and shapes.

    `accounting.model_spec` makes it from any description of a model; you can also write it by hand.

    Parameters
    ----------
    name : str
        The name in titles.
    groups : tuple of ModuleSpec
        The modules; identical ones form one group.
    family : str
        The ``model_type`` of transformers, or empty.
    default_targets : tuple of str, or str
        PEFT's default targets; empty if there are none.
    fused : mapping of str to str
        For experts that transformers fuses: from the names that PEFT still accepts to the fused
        parameters.
    layers : tuple of Layers
        The stacks of layers, for estimates of activations and FLOPs; empty if unknown.
    experts_per_token : int
        The number of experts that each token is routed to; 0 without experts.
    positions : int
        The longest sequence that the config allows; 0 if unknown.
    assumed : str
        The assumptions under which PEFT counts the same parameters; empty if there are none.
    quantised : (int, int)
        The number of parameters in quantised weights of a checkpoint, and their size in bytes.
    config : mapping
        The fields of its ``config.json``; empty if it has none.

    Examples
    --------
    >>> spec = ModelSpec("one matrix", (ModuleSpec("W0", "linear", (100, 120)),))
    >>> spec.total
    12000
    """

    name: str
    groups: tuple[ModuleSpec, ...]
    family: str = ""
    default_targets: tuple[str, ...] | str = ()
    fused: Mapping[str, str] | None = None
    layers: tuple[Layers, ...] = ()
    experts_per_token: int = 0
    positions: int = 0
    assumed: str = ""
    quantised: tuple[int, int] = (0, 0)
    config: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @cached_property
    def head(self) -> str:
        """The name of the output layer, which ``"all-linear"`` omits; empty if there is none."""
        return next((module.name for module in self.groups if module.role == "head"), "")

    @cached_property
    def embedding(self) -> ModuleSpec | None:
        """The embedding of the tokens, which owns the weight of tied modules; None without one."""
        tables = [module for module in self.modules if module.kind == "embedding"]
        return max(tables, key=lambda x: (x.role == "embedding", not x.tied), default=None)

    @cached_property
    def total(self) -> int:
        """The number of parameters; a tied weight is counted once."""
        return sum([module.parameters for module in self.groups])

    @cached_property
    def modules(self) -> tuple[ModuleSpec, ...]:
        """The modules of all groups one by one, in the order of the layers."""
        return tuple(_expand(self.groups))

    def missing(
        self, what: str, name: str, known: Iterable[str], *, kind: str = "module"
    ) -> ValueError:
        """Return an error for a name that matches nothing, with the closest known names."""
        return ValueError(
            f"{what} {name!r} matches no {kind} of {self.name}{close_names(name, known)}"
        )

    def per_expert(self) -> ModelSpec:
        """Return a copy whose experts, named as in checkpoints, and routers are linear layers."""
        return replace(self, groups=tuple(_unfuse(self.groups)), fused=None)

    @property
    def table(self) -> Table:
        """A table of the groups of identical modules, with the number of parameters of each."""
        lines: list[tuple[Cell, ...]] = []
        for module in self.groups:
            name, shape = module.name.replace("{}", "*"), shape_text(module.shape)
            lines.append((name, module.kind, shape, module.copies, module.parameters))
        title = f"{self.name}: {self.total:,} parameters"
        return Table(("module", "kind", "shape", "modules", "parameters"), lines, title=title)


def of_family(name: str, modules: Iterable[ModuleSpec], family: str, **facts: Any) -> ModelSpec:
    """Describe a model of a family, with PEFT's default targets and names of experts."""
    known = default_targets(family), fused_names(family) or None
    return ModelSpec(name, tuple(modules), family, *known, **facts)


_INDEX = re.compile(r"(?<![^.])(?:0|[1-9][0-9]{0,8})(?![^.])")  # a part of a name that is a number


def fold(modules: Iterable[ModuleSpec]) -> Iterator[ModuleSpec]:
    """Group modules that differ only in indices, if no combination of indices is missing.

    Parameters
    ----------
    modules : iterable of ModuleSpec
        The single modules.

    Yields
    ------
    ModuleSpec
        A group of modules, or a single module.

    Examples
    --------
    >>> (group,) = fold(ModuleSpec(f"layers.{i}.q_proj", "linear", (8, 8)) for i in range(3))
    >>> group.name, group.ranges, group.parameters
    ('layers.{}.q_proj', (range(0, 3),), 192)
    """
    alike: dict[ModuleSpec, list[tuple[int, ...]]] = {}
    for module in modules:
        if "{" in module.name:
            yield module
            continue
        place = tuple(map(int, _INDEX.findall(module.name)))
        alike.setdefault(module._replace(name=_INDEX.sub("{}", module.name)), []).append(place)
    for group, places in alike.items():
        ranges = tuple(range(min(axis), max(axis) + 1) for axis in zip(*places, strict=True))
        if len(places) > 1 and prod(map(len, ranges)) == len(places):
            yield group._replace(ranges=ranges)
        else:
            yield from (group._replace(name=group.name.format(*place)) for place in places)


def _expand(groups: Iterable[ModuleSpec]) -> Iterator[ModuleSpec]:
    """Yield every module of the groups separately, in the order of the layers."""
    for (_, ranges), block in groupby(
        groups, key=lambda x: (x.name.partition(".{}")[0], x.ranges[:1])
    ):
        members = list(block)
        if not ranges:
            yield from members
            continue
        for index in ranges[0]:
            yield from _expand(module.at(index) for module in members)


def _unfuse(modules: Iterable[ModuleSpec]) -> Iterator[ModuleSpec]:
    for module in modules:
        if module.kind == "router":
            yield module._replace(kind="linear")
        elif module.kind == "experts":
            experts, d_out, d_in = module.shape
            path = (module.alias or module.name).rpartition(".")[0]
            shape, ranges = (d_out // len(module.parts), d_in), (*module.ranges, range(experts))
            for part in module.parts:
                yield ModuleSpec(f"{path}.{{}}.{part}", "linear", shape, ranges=ranges)
        else:
            yield module
