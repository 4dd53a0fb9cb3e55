"""Whole models as lists of named modules, with the parameters that each owns."""

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

# the roles of maps inside attention, in families' data files
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
    """A module that owns parameters, or many identical ones whose names differ only in an index.

    Names are those of transformers. ``{}`` in a name is an index, one for each entry of
    ``ranges``: ``model.layers.{}.self_attn.q_proj`` with ``(range(80),)`` is eighty modules.

    Parameters
    ----------
    name : str
        With ``{}`` for each index.
    kind : str
        ``"linear"``, ``"embedding"``, ``"experts"``, ``"convolution"``, ``"norm"`` or
        ``"parameter"``.
    shape : tuple of int
        (d_out, d_in) of a linear layer, followed by the kernel's of a convolution; (vocabulary,
        width) of an embedding; (experts, d_out, d_in) of experts.
    bias : bool
        Whether there is one, of d_out numbers.
    tied : bool
        Whether the weight belongs to another module and is counted there.
    tied_bias : bool
        The same for the bias.
    groups : int
        Of a convolution, whose shape then holds d_in / groups.
    alias : str
        The name in checkpoints, where it differs.
    parts : tuple of str
        The linear layers that were fused into experts, by their names in checkpoints.
    ranges : tuple of range
        Values of each index in the name.
    role : str
        What it is for: query, key, up, down, head, ...; empty if unknown.
    transposed : bool
        Whether the weight is kept as inputs by outputs: that of GPT-2's Conv1D, and of some
        experts.
    called : bool
        Whether the model calls the module as one of its kind. If it only uses the weight, a PEFT
        adapter does nothing or fails.

    Examples
    --------
    >>> q = ModuleSpec("layers.{}.q_proj", "linear", (8, 6), bias=True, ranges=(range(2),))
    >>> q.names(), q.parameters
    (['layers.0.q_proj', 'layers.1.q_proj'], 112)
    """

    name: str
    kind: Kind
    shape: tuple[int, ...]  # (d_out, d_in[, *kernel]); (vocabulary, width); (experts, d_out, d_in)
    bias: bool = False
    tied: bool = False  # the weight belongs to another module and is counted there
    tied_bias: bool = False
    groups: int = 1  # of a convolution, whose shape then holds d_in / groups
    alias: str = ""  # the name in checkpoints, where it differs
    # experts: the linear layers that were fused, by their names in checkpoints
    parts: tuple[str, ...] = ()
    ranges: tuple[Indices, ...] = ()
    role: str = ""  # what it is for: query, key, up, down, head, ...; empty if unknown
    transposed: bool = False  # whether the weight is kept as inputs by outputs
    called: bool = True  # whether the model calls it as one of its kind

    @property
    def copies(self) -> int:
        """The number of modules."""
        return prod(map(len, self.ranges))

    @property
    def weight(self) -> int:
        """The number of parameters of one weight, wherever it is counted."""
        return prod(self.shape)

    @property
    def sides(self) -> tuple[int, int, int]:
        """Matrices in one weight, and the outputs and inputs of each: the sides of B and A."""
        if self.kind == "convolution":
            return 1, self.shape[0], prod(self.shape[1:]) * self.groups
        *many, d_out, d_in = self.shape
        return (1, d_in, d_out) if self.kind == "embedding" else (prod(many), d_out, d_in)

    @property
    def bias_size(self) -> int:
        """The number of parameters of one bias, wherever it is counted."""
        return self.shape[0] if self.bias else 0

    @property
    def parameters(self) -> int:
        """The parameters of all of these modules; tied weights are counted with their owner."""
        own = (0 if self.tied else self.weight) + (0 if self.tied_bias else self.bias_size)
        return own * self.copies

    def names(self) -> list[str]:
        """List the names of these modules."""
        # a name without an index may contain braces
        return (
            list(starmap(self.name.format, product(*self.ranges))) if self.ranges else [self.name]
        )

    def at(self, *indices: int) -> ModuleSpec:
        """Return the modules at the given first indices."""
        rest = ["{}"] * (len(self.ranges) - len(indices))
        name, alias = (text.format(*indices, *rest) for text in (self.name, self.alias))
        return self._replace(name=name, alias=alias, ranges=self.ranges[len(indices) :])


class Layers(NamedTuple):
    """Facts about a stack of transformer layers that do not follow from its parameters.

    Parameters
    ----------
    prefix : str
        The names of its modules start with it.
    depth : int
        How many layers.
    width : int
        Of the hidden states.
    heads : int
        Attention heads.
    kv_heads : int
        Heads of keys and values.
    head_width : int
        Width of queries and keys in a head.
    value_width : int
        Width of values in a head.
    activation : str
        Of the MLP.
    cross_attention : bool
        Whether each layer also attends to an encoder.
    dropout : bool
        Whether hidden states are dropped in training.
    attention_dropout : bool
        Whether attention weights are dropped in training.
    tokens : int
        How many it sees of each sequence, if that is fixed (a vision tower); 0 if it sees the
        sequence.
    float_norm : bool
        Whether its RMS norms multiply by their weight in float32.
    half_softmax : bool
        Whether the softmax of eager attention has the type of the weights rather than float32.
    soft_cap : bool
        Whether attention scores and logits go through a tanh.
    repeats : int
        How many times in a row each layer is used.
    half_loss : bool
        Whether the loss is computed in the type of the weights rather than in float32.
    """

    prefix: str  # its modules' names start with it
    depth: int  # how many
    width: int
    heads: int
    kv_heads: int
    head_width: int  # of queries and keys
    value_width: int  # of values
    activation: str
    cross_attention: bool = False
    dropout: bool = False  # on hidden states
    attention_dropout: bool = False
    tokens: int = 0  # of each sequence, where that is fixed
    float_norm: bool = False
    half_softmax: bool = False
    soft_cap: bool = False
    repeats: int = 1
    half_loss: bool = False


@dataclass(frozen=True)
class ModelSpec:
    """A model as a list of modules with names, kinds and shapes.

    Built by `accounting.model_spec` from any description of a model, or by hand.

    Parameters
    ----------
    name : str
        For titles.
    groups : tuple of ModuleSpec
        Modules, alike ones together.
    family : str
        The ``model_type`` of transformers, or empty.
    default_targets : tuple of str, or str
        What PEFT adapts by default; empty where it has no default.
    fused : mapping of str to str
        For experts that transformers fuses: the names that PEFT translates, and into which
        parameter.
    layers : tuple of Layers
        The stacks, for estimates of activations and FLOPs; empty if unknown.
    experts_per_token : int
        How many routed experts see each token; 0 without experts.
    positions : int
        The longest sequence that the config allows; 0 if it does not say.
    assumed : str
        The assumptions because of which PEFT may count differently; empty if everything is known.
    quantised : (int, int)
        The parameters in the quantised weights of a checkpoint, and the bytes that these take.
    config : mapping
        The fields that it was made from; empty if it was not.

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
        """The module that ``"all-linear"`` leaves out: transformers' output embeddings."""
        return next((module.name for module in self.groups if module.role == "head"), "")

    @cached_property
    def total(self) -> int:
        """All parameters; a tied weight is counted once."""
        return sum([module.parameters for module in self.groups])

    @cached_property
    def modules(self) -> tuple[ModuleSpec, ...]:
        """Every module by its own name, layer by layer."""
        return tuple(_expand(self.groups))

    def missing(
        self, what: str, name: str, known: Iterable[str], *, kind: str = "module"
    ) -> ValueError:
        """The error for a name in ``what`` that nothing of the model has, with the closest that are
        known.
        """
        return ValueError(
            f"{what} {name!r} matches no {kind} of {self.name}{close_names(name, known)}"
        )

    def per_expert(self) -> ModelSpec:
        """Separate every expert's linear layers, under their names in checkpoints."""
        return replace(self, groups=tuple(_unfuse(self.groups)), fused=None)

    @property
    def table(self) -> Table:
        """One row for each group of identical modules, with their parameters."""
        rows: list[tuple[Cell, ...]] = []
        for module in self.groups:
            name, shape = module.name.replace("{}", "*"), shape_text(module.shape)
            rows.append((name, module.kind, shape, module.copies, module.parameters))
        title = f"{self.name}: {self.total:,} parameters"
        return Table(("module", "kind", "shape", "modules", "parameters"), rows, title=title)


def of_family(name: str, modules: Iterable[ModuleSpec], family: str, **facts: Any) -> ModelSpec:
    """Describe a model, with its family's default targets and names of experts in PEFT."""
    known = default_targets(family), fused_names(family) or None
    return ModelSpec(name, tuple(modules), family, *known, **facts)


_INDEX = re.compile(r"(?<![^.])(?:0|[1-9][0-9]{0,8})(?![^.])")  # a part of a name that is a number


def fold(modules: Iterable[ModuleSpec]) -> Iterator[ModuleSpec]:
    """Group modules that differ only in an index, if their indices have no gap.

    Parameters
    ----------
    modules : iterable of ModuleSpec
        One after the other.

    Yields
    ------
    ModuleSpec
        A group, or a module that has no index.

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
    """Groups as single modules, in the order of the layers rather than of the groups."""
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
