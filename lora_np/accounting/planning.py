"""Which LoRA fits on a GPU, and what it costs: the parts of this package combined."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import prod
from typing import Any

from lora_np.accounting.activations import ITEMSIZE, TrainingOptions
from lora_np.accounting.lora import LoraCount, counted, model_spec, spec_of
from lora_np.accounting.memory import (
    CAUSES,
    Memory,
    assumptions,
    by_rank,
    estimate,
    rank_within,
    split,
    training_options,
    ways,
)
from lora_np.checks import choice, shown, whole_number, whole_numbers
from lora_np.models import ModelSpec, ModuleSpec
from lora_np.table import Cell, Shown, Table, decimal_bytes, parse_bytes

METHODS = ("full", "LoRA", "QLoRA")
_NO_BFLOAT16 = (
    "{} has no native bfloat16, which is emulated there: train in float16, which takes as much."
)
_RESERVED = 0.1  # of the memory: CUDA's context, the kernels and what the allocator cannot use


@dataclass(frozen=True)
class GPU:
    """A GPU, from the file ``gpus.json``, which names its sources.

    Parameters
    ----------
    name : str
        As sold.
    memory : int
        Bytes, as its driver reports them.
    note : str
        What to know about that number; empty if it speaks for itself.
    bfloat16 : bool
        Whether it computes in that type.
    """

    name: str
    memory: int
    note: str = ""
    bfloat16: bool = True

    @property
    def room(self) -> int:
        """The part of the memory that training may take."""
        return int(self.memory * (1 - _RESERVED))


@cache
def gpus() -> Mapping[str, GPU]:
    """Return the known GPUs by name.

    Returns
    -------
    mapping of str to GPU
        By name.

    Examples
    --------
    >>> gpus()["RTX 4090"]
    GPU(name='RTX 4090', memory=25757220864, note='', bfloat16=True)
    """
    content = json.loads((files("lora_np.accounting") / "gpus.json").read_text(encoding="utf-8"))
    return {
        name: GPU(name, entry["mib"] * 2**20, entry.get("note", ""), entry.get("bfloat16", True))
        for name, entry in content["gpus"].items()
    }


@dataclass(frozen=True)
class Choice:
    """One way to train: a row of a `Plan`. Sizes are in bytes.

    Parameters
    ----------
    method : {"full", "LoRA", "QLoRA"}
        Over which weights is in ``memory.title``.
    targets : str
        What is adapted; empty in full fine-tuning.
    rank : int
        0 in full fine-tuning.
    trainable : int
        Numbers that are trained.
    memory : Memory
        By cause.
    verdict : {"fits", "tight", "no"}
        ``"tight"`` if less than a tenth of the GPU is left.
    largest_rank, largest_batch, largest_max_length : int
        The largest value that fits with the others unchanged and a tenth of the GPU left; 0 if
        none does. No rank is above min(d, k), and no sequence longer than the model's positions.
        None where the memory does not depend on it, as on the length for a model that sees
        pictures.
    flops : int
        Operations for each token, including those that checkpointing repeats.
    disk : int
        What is saved: the adapter in float32, or the model in 16 bits.
    """

    method: str
    targets: str
    rank: int
    trainable: int
    memory: Memory
    verdict: str
    largest_rank: int
    largest_batch: int | None
    largest_max_length: int | None
    flops: int
    disk: int


@dataclass(frozen=True, repr=False)
class Plan(Shown):
    """What fits, and what it costs: made by `plan`.

    Parameters
    ----------
    model : str
        Its name.
    gpu : GPU
        With the given memory, if no GPU was named.
    training : TrainingOptions
        How it is trained.
    choices : tuple of Choice
        The ways to train.
    notes : tuple of str
        The assumptions behind the numbers.
    """

    model: str
    gpu: GPU
    training: TrainingOptions
    choices: tuple[Choice, ...]
    notes: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether any of the choices does."""
        return any(each.verdict != "no" for each in self.choices)

    def _table(
        self, columns: Sequence[str], cells: Callable[[Choice], Sequence[Cell]], **about: Any
    ) -> Table:
        rows = [
            (each.method, each.targets or None, each.rank or None, *cells(each))
            for each in self.choices
        ]
        return Table(("method", "targets", "rank", *columns), rows, **about)

    @property
    def table(self) -> Table:
        """What fits, and the largest values that would."""
        training = self.training
        return self._table(
            ("trainable", "memory", "verdict", "largest rank", "largest batch", "largest length"),
            lambda each: (
                each.trainable, each.memory.total, each.verdict,
                each.largest_rank or None, each.largest_batch, each.largest_max_length,
            ),
            title=f"{self.model} on {self.gpu.name} ({decimal_bytes(self.gpu.memory)}): batch "
            f"{training.batch_size:,} x {training.max_length:,} tokens, {training.optimizer}",
            notes=self.notes,
            formats={"memory": decimal_bytes},
        )  # fmt: skip

    @property
    def causes(self) -> Table:
        """Memory by cause, the adapter (or the model) on disk, and the operations for each
        token.
        """
        sizes = (*CAUSES, "total")
        return self._table(
            (*sizes, "on disk", "operations"),
            lambda each: [*(getattr(each.memory, cause) for cause in sizes), each.disk, each.flops],
            title="Memory by cause, on disk, and operations for each token",
            notes=list(dict.fromkeys(note for each in self.choices for note in each.memory.notes)),
            formats=dict.fromkeys((*sizes, "on disk"), decimal_bytes)
            | {"operations": "{:.3g}".format},
        )


def plan(
    model: Any,
    *,
    gpu: str | int,
    rank: int | Iterable[int] | None = None,
    targets: str | Iterable[str] | None = None,
    methods: Iterable[str] = METHODS,
    **options: Any,
) -> Plan:
    """Which ways to train a model fit on a GPU, how far each could go, and what it costs.

    Parameters
    ----------
    model : object
        Whatever `model_spec` takes: a name, a path, a config, a model in memory.
    gpu : str or int
        A name from `gpus`, ``"RTX 4090"``; case, spaces and the maker do not matter. Or a memory,
        in bytes or as text such as ``"24 GB"``.
    rank : int or iterable of int, optional
        Of LoRA; by default 8 and 64.
    targets : str or iterable of str, optional
        As `count_model` takes them; by default both the family's own and ``"all-linear"``.
    methods : iterable of {"full", "LoRA", "QLoRA"}
        Which ways to look at.
    **options
        The fields of `TrainingOptions`, and the options of `count_model`. ``dtype`` is how LoRA
        holds the base; QLoRA holds it in nf4 where that is not quantised, and full fine-tuning in
        bfloat16 where it is, as ``notes`` say.

    Returns
    -------
    Plan
        A row for each way, which prints as a table.

    Raises
    ------
    ValueError
        If the GPU is unknown (the message shows close names) or its memory is zero, ``max_length``
        exceeds the model's positions, the model's layers are unknown, or none of the methods could
        use an option that is given.
    TypeError
        If a number is not one.

    See Also
    --------
    training_memory : The memory of one way.
    count_flops : Its operations.

    Examples
    --------
    >>> found = plan("llama-3-8b", gpu="RTX 4090", rank=16, targets="all-linear", max_length=2048)
    >>> [(each.method, each.verdict, each.largest_batch) for each in found.choices]
    [('full', 'no', 0), ('LoRA', 'fits', 2), ('QLoRA', 'fits', 3)]
    """
    spec = model_spec(model)
    if not spec.layers:
        raise ValueError(
            f"plan needs the layers of {spec.name}: give its config.json, or its directory"
        )
    chosen = _gpu(gpu)
    of_training, of_lora = split(options)
    training = training_options(spec, of_training)
    held = {choice("method", method, METHODS): ways(training)[method] for method in methods}
    given = {"rank": rank, "targets": targets, **of_lora, "dtype": of_training.get("dtype")}
    _check_use(held, [name for name, value in given.items() if value], training.dtype)
    ranks = (8, 64) if rank is None else whole_numbers("rank", rank)
    usual = [None, "all-linear"] if spec.default_targets else ["all-linear"]
    counts = {}
    for wanted in () if set(held) == {"full"} else usual if targets is None else [targets]:
        named = wanted if isinstance(wanted, str) else ",".join(wanted or spec.default_targets)
        counts[named] = by_rank(spec, {**of_lora, "targets": wanted})
    choices: list[Choice] = []
    for method, settings in held.items():
        if method == "full":
            choices.append(_choice((method, ""), spec, chosen, settings, 0))
            continue
        for named, at in counts.items():
            most = rank_within(at, chosen.room, settings)
            choices += [
                _choice((method, named), at(each), chosen, settings, most) for each in ranks
            ]
    slow = not chosen.bfloat16 and "bfloat16" in {each.dtype for each in held.values()}
    notes = [
        assumptions(spec, held),
        (
            "fits: a tenth of the GPU is left for CUDA and for what the allocator cannot use;"
            " tight: less is."
        ),
        *([chosen.note] if chosen.note else []),
        *([_NO_BFLOAT16.format(chosen.name)] if slow else []),
        *(note for at in counts.values() for each in ranks for note in at(each).notes),
    ]
    return Plan(spec.name, chosen, training, tuple(choices), tuple(dict.fromkeys(notes)))


def _check_use(held: Mapping[str, TrainingOptions], given: list[str], dtype: str) -> None:
    """Refuse options that no method could use: one of LoRA in full, or another type of weights."""
    of_lora = [name for name in given if name != "dtype"]
    if of_lora and set(held) == {"full"}:
        raise ValueError(
            f"{' and '.join(of_lora)} can only be given for LoRA or QLoRA, got the method full"
        )
    if "dtype" in given and dtype not in [each.dtype for each in held.values()]:
        takes = [
            *(ITEMSIZE if "full" in held else ()),
            *(["int8", "nf4"] if "QLoRA" in held else []),
        ]
        raise ValueError(
            f"dtype must be {' or '.join(takes)} for {' and '.join(held)}, got {dtype!r}"
        )


def _choice(
    way: tuple[str, str],
    model: ModelSpec | LoraCount,
    gpu: GPU,
    training: TrainingOptions,
    most_rank: int,
) -> Choice:
    found, room = estimate(model, training), gpu.room
    operations = count_flops(model, max_length=training.max_length)
    flops = operations.total + (sum(operations.forward.values()) if training.checkpointing else 0)
    rank, trainable, disk = 0, model.total, 2 * model.total
    if isinstance(model, LoraCount):
        rank, trainable, disk = model.rank, model.trainable, 4 * model.trainable
    total = found.memory.total
    verdict = "fits" if total <= room else "tight" if total <= gpu.memory else "no"
    batch, max_length = found.most("batch_size", room), found.most("max_length", room)
    return Choice(
        *way, rank, trainable, found.memory, verdict, most_rank, batch, max_length, flops, disk
    )


def _gpu(name: str | int) -> GPU:
    known = {_plain(each): each for each in gpus()}
    if isinstance(name, str) and _plain(name) in known:
        return gpus()[known[_plain(name)]]
    if isinstance(name, str) and not name.strip()[:1].isdigit():
        if close := [each for plain, each in known.items() if _plain(name) in plain]:
            raise ValueError(f"gpu must be one of {', '.join(map(repr, close))}, got {shown(name)}")
        choice("gpu", name, gpus())
    return GPU("a GPU", whole_number("the memory of a GPU", parse_bytes("gpu", name)))


def _plain(name: str) -> str:
    return re.sub(r"nvidia|geforce|amd|instinct|tesla|\W|_", "", name.lower())


@dataclass(frozen=True, repr=False)
class Flops(Shown):
    """Operations for each token, by pass and by product: the result of `count_flops`.

    Parameters
    ----------
    title : str
        Of the table.
    forward, backward : mapping of str to int
        From a product, such as ``"W0 x"``, to its operations.
    full : Flops or None
        Of a LoRA: full fine-tuning of the same model.
    """

    title: str
    forward: Mapping[str, int]
    backward: Mapping[str, int]
    full: Flops | None = None

    @property
    def total(self) -> int:
        """Operations of a forward and a backward pass."""
        return sum(self.forward.values()) + sum(self.backward.values())

    @property
    def table(self) -> Table:
        """One row for each product; of a LoRA, next to full fine-tuning."""
        kinds = {"operations": self} if self.full is None else {"full": self.full, "LoRA": self}
        rows = [
            (
                direction,
                product,
                *(getattr(each, direction).get(product, 0) for each in kinds.values()),
            )
            for direction in ("forward", "backward")
            for product in getattr(self, direction)
        ]
        rows.append(("both", "total", *(each.total for each in kinds.values())))
        saves = (
            "LoRA saves dW0. It does not save dx: the gradient flows back through W0 all the same."
        )
        notes = () if self.full is None else (saves,)
        return Table(("pass", "product", *kinds), rows, title=self.title, notes=notes)


def count_flops(model: Any, *, max_length: int = 1, **options: Any) -> Flops:
    """Operations for each token; a multiplication and an addition count two.

    Every linear map of d x k costs 2 d k, the head too, tied or not. Attention costs ``2 s h (w +
    v)`` for h heads of width w and values of width v over s tokens (a causal mask saves nothing
    here). Routed experts count as often as a token sees one. Norms and activation functions are
    left out: they are of order d. In an encoder with a decoder a token passes both.

    Full fine-tuning costs three times the forward pass. LoRA saves the product dW0, one third, but
    not dx: the gradient still flows back through W0.

    Parameters
    ----------
    model : object
        A count of a LoRA, or whatever `model_spec` takes: with a ``rank`` or a ``config`` LoRA is
        counted, without them the model is fine-tuned in full.
    max_length : int
        Tokens that attention looks at; counted only if a config gives the layers.
    **options
        Those of `count`.

    Returns
    -------
    Flops
        Operations by pass and product, which print as a table.

    Raises
    ------
    TypeError
        If ``max_length`` is not a whole number.
    ValueError
        If ``max_length`` is below 1.

    Examples
    --------
    >>> full, lora = count_flops("gpt2"), count_flops("gpt2", rank=8)
    >>> full.forward["W0 x"], round(lora.total / full.total, 3)
    (247064064, 0.669)
    """
    max_length, model = whole_number("max_length", max_length), counted(model, options)
    spec = spec_of(model)
    base = sum(
        2 * prod(module.shape[-2:]) * module.copies * _passes(module, spec)
        for module in _maps(spec)
    )
    attention = 0
    for stack in spec.layers:
        times = stack.depth * stack.repeats * (2 if stack.cross_attention else 1)
        attention += 2 * max_length * stack.heads * (stack.head_width + stack.value_width) * times
    forward = {"W0 x": base, "attention": attention}
    backward = {"dx through W0": base, "attention": 2 * attention}
    if not isinstance(model, LoraCount):
        return Flops(f"{spec.name}: operations for each token", forward, backward | {"dW0": base})
    adapter = 2 * sum(
        each.rank * sum(each.module.shape[-2:]) * each.copies * _passes(each.module, spec)
        for each in model.adapters
        if each.module in _maps(spec)
    )
    saved = 2 * sum(model.saved.values())
    forward |= {"B A x": adapter}
    backward |= {"dW0": saved, "dx through B A": adapter, "dA, dB": adapter}
    title = f"{spec.name}, rank {model.rank}: operations for each token"
    return Flops(title, forward, backward, count_flops(spec, max_length=max_length))


def _passes(module: ModuleSpec, spec: ModelSpec) -> int:
    """How often a token passes: routed experts see it several times, and some layers are used
    again.
    """
    times = spec.experts_per_token if module.kind == "experts" else 1
    return times * next(
        (stack.repeats for stack in spec.layers if module.name.startswith(stack.prefix)), 1
    )


def _maps(spec: ModelSpec) -> list[ModuleSpec]:
    return [module for module in spec.groups if module.kind in ("linear", "router", "experts")]
