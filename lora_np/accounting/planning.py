"""Plan a fine-tuning run: find the methods that fit on a GPU, and their costs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain, combinations
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_np.accounting.activations import ITEMSIZE, TrainingOptions
from lora_np.accounting.lora import LoraCount, Option, counted, model_spec, spec_of
from lora_np.accounting.memory import (
    PARTS,
    Memory,
    assumptions,
    by_method,
    by_rank,
    rank_that_fits,
    split,
    terms_of,
    training_options,
)
from lora_np.checks import Names, choice, refuse, shown, whole_number, whole_numbers
from lora_np.files import read_json
from lora_np.models import ATTENTION, ModelSpec, ModuleSpec, family_names, widest_targets
from lora_np.table import Cell, Shown, Table, binary_bytes, parse_bytes

if TYPE_CHECKING:
    from lora_np.accounting.in_memory import Model

METHODS = ("full", "LoRA", "QLoRA")
NO_BFLOAT16 = (
    "{} has no native bfloat16, only emulated: train in float16, which needs the same memory."
)
NO_NF4 = (
    "bitsandbytes has no kernels for nf4 on {}: QLoRA needs another library there, such as mlx-lm,"
    " whose 4 bits take about as much memory."
)
# words to ignore in a GPU's name: vendors, product lines, clouds, units
_MAKERS = (
    r"\b(?:nvidia|amd|geforce|radeon|tesla|quadro|instinct|intel|arc|colab|kaggle|sxm\d|gpu)\b"
    r"|rtx|\brx(?=\W|\d)|gi?b?\b|gtx|hbm\d\w?|apple(?= m\d)"
    r"|\bi?mac(?:book)?(?: (?:air|mini|pro|studio))?(?= m\d)"
)
_RESERVED = 0.1  # the share of memory reserved for CUDA and the allocator


@dataclass(frozen=True)
class GPU:
    """The memory and features of a GPU, usually from ``gpus.json``, which cites its sources.

    Parameters
    ----------
    name : str
        The name under which it is sold.
    memory : int
        The bytes that its driver reports.
    note : str
        A remark about its memory, or empty.
    bfloat16 : bool
        Whether it computes in bfloat16.
    nf4 : bool
        Whether bitsandbytes computes with nf4 on it.
    sold : int
        The memory as sold, in GB of 2^30 bytes; 0 if only ``memory`` is known.
    """

    name: str
    memory: int
    note: str = ""
    bfloat16: bool = True
    nf4: bool = True
    sold: int = 0

    @property
    def title(self) -> str:
        """The name of the GPU with its memory, as sold if that is known."""
        if self.name.endswith("GB"):
            return self.name
        return f"{self.name}, {f'{self.sold} GB' if self.sold else size_text(self.memory)}"

    @property
    def room(self) -> int:
        """The bytes available for training, which are nine tenths of the memory."""
        return int(self.memory * (1 - _RESERVED))


@cache
def gpus() -> Mapping[str, GPU]:
    """Return the known GPUs by name.

    Returns
    -------
    mapping of str to GPU
        From names to GPUs.

    Examples
    --------
    >>> gpus()["RTX 4090"]
    GPU(name='RTX 4090', memory=25757220864, note='', bfloat16=True, nf4=True, sold=24)
    """
    known: dict[str, GPU] = {}
    for name, entry in _entries().items():
        left = f"{entry['mib'] / 1024:.1f}"
        driver = f"Its driver leaves {left} of {entry['gb']} GB."
        notes = [driver if float(left) < entry["gb"] else "", entry.get("note", "")]
        note = " ".join(filter(None, notes))
        computes = entry.get("bfloat16", True), entry.get("nf4", True)
        known[name] = GPU(name, entry["mib"] * 2**20, note, *computes, entry["gb"])
    return known


def _entries() -> Mapping[str, Any]:
    return dict(read_json(Path(__file__).with_name("gpus.json"))["gpus"])


@cache
def gpu_names() -> Names:
    """Index the GPUs by the names that people type.

    Returns
    -------
    Names
        An index from each name, with and without the memory size, to the name in `gpus`.

    Examples
    --------
    >>> gpu_names().find("a100 80"), gpu_names().several("3060")
    ('A100 80GB', ['RTX 3060 12GB', 'RTX 3060 8GB'])
    """
    known: dict[str, str] = {}
    for name, entry in _entries().items():
        sold = "" if name.endswith("GB") else f"{name} {entry['gb']}GB"
        known |= dict.fromkeys([name, sold or name, *entry.get("also", [])], name)
    return Names(known, _MAKERS, r"\d{1,3}")


def size_text(size: int) -> str:
    """Format ``size`` in GB of 2^30 bytes, as people state a GPU's memory."""
    return _in_gb(binary_bytes(size))


def _in_gb(text: str) -> str:
    return text.replace("iB", "B")


@dataclass(frozen=True)
class Choice:
    """One choice in a `Plan`: a training method with its memory on a GPU, in bytes.

    Parameters
    ----------
    method : {"full", "LoRA", "QLoRA"}
        The method; ``memory.title`` names the dtype of the base.
    targets : str
        The adapted modules; empty in full fine-tuning.
    rank : int
        The rank; 0 in full fine-tuning.
    trainable : int
        The trainable parameters.
    memory : Memory
        The memory breakdown.
    verdict : {"fits", "tight", "no"}
        ``"tight"`` if less than a tenth of the memory is free.
    largest_rank, largest_batch, largest_max_length : int
        The largest value that fits with a tenth of memory free if the others are unchanged; 0 if
        no value fits. A rank is at most min(d, k), a length at most the model's positions. None if
        memory does not depend on the value, for example on the length if all tokens come from
        pictures.
    flops : int
        FLOPs per token, including the forward pass that checkpointing repeats.
    disk : int
        The size of the checkpoint: the adapter in float32, or the model in 16 bits.
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


@dataclass(frozen=True)
class Remedy:
    """A change that makes a `Choice` fit, in a `Plan`.

    Parameters
    ----------
    method, targets, rank : str, str, int
        The method, targets and rank of the choice that does not fit.
    change : str
        A description: switches, a shorter sequence, a smaller batch or a larger GPU.
    options : mapping of str to object
        The options of `plan` that make the change.
    memory : int
        The bytes that training needs after the change.
    price : str
        The disadvantage of the change.
    """

    method: str
    targets: str
    rank: int
    change: str
    options: Mapping[str, Option]
    memory: int
    price: str


NARROW = "attention only"
# Maps each way to save memory to the options that it changes and to its disadvantage. `NARROW`
# lists no options, because its targets depend on the model.
SWITCHES: Mapping[str, tuple[Mapping[str, str | bool], str]] = {
    "fused cross-entropy": ({"cross_entropy": "fused"}, "a loss such as Liger's"),
    "unquantised weights in bfloat16": (
        {"unquantised_dtype": "bfloat16"},
        "norms and logits are less exact",
    ),
    "8-bit optimizer": ({"optimizer": "adamw_8bit"}, "its state is less exact"),
    "gradient checkpointing": ({"checkpointing": True}, "a third more time"),
    NARROW: ({}, "MLPs are not adapted, which often learns less"),
    "offloaded activations": (
        {"checkpointing": True, "offloading": True},
        "some per cent more time, and host memory",
    ),
}
# all combinations of switches; those with fewer switches are tried first
TRIALS = [*chain.from_iterable(combinations(SWITCHES, n + 1) for n in range(len(SWITCHES)))]
SHORTER = {
    "max_length": ("sequence length", "longer examples are cut"),
    "batch_size": ("batch size", "accumulate gradients to keep the batch"),
}


@dataclass(frozen=True, repr=False)
class Plan(Shown):
    """The cost of each method on a GPU and whether it fits, made by `plan`.

    Parameters
    ----------
    model : str
        The model's name.
    gpu : GPU
        The GPU; if only its memory was given, a GPU without a name.
    training : TrainingOptions
        The training options.
    choices : tuple of Choice
        Each combination of method, targets and rank.
    notes : tuple of str
        The assumptions behind the numbers.
    remedies : tuple of Remedy
        For each choice that does not fit: the fewest switches that make it fit; a shorter sequence
        or a smaller batch (with all switches if switches alone do not suffice); and a larger GPU.
    """

    model: str
    gpu: GPU
    training: TrainingOptions
    choices: tuple[Choice, ...]
    notes: tuple[str, ...]
    remedies: tuple[Remedy, ...]

    @property
    def fits(self) -> bool:
        """Whether any of the choices fits, at least tightly."""
        return any(choice.verdict != "no" for choice in self.choices)

    @property
    def table(self) -> Table:
        """A table of the choices, with the largest rank, batch size and length that fit."""
        training = self.training
        columns = (
            *_KEY, "trainable", "memory", "verdict",
            "largest rank", "largest batch", "largest length",
        )  # fmt: skip
        lines = [
            (
                *_key(one), one.trainable, one.memory.total, one.verdict,
                one.largest_rank or None, one.largest_batch, one.largest_max_length,
            )
            for one in self.choices
        ]  # fmt: skip
        title = (
            f"{self.model} on {self.gpu.title}: batch"
            f" {training.batch_size:,} x {training.max_length:,} tokens, {training.optimizer}"
        )
        return Table(
            columns, lines, title=title, notes=self.notes, formats={"memory": size_text}
        )  # fmt: skip

    @property
    def breakdown(self) -> Table:
        """A table of each choice's memory by part, checkpoint size, and FLOPs per token."""
        sizes = (*PARTS, "total")
        lines = [
            (*_key(one), *(getattr(one.memory, part) for part in sizes), one.disk, one.flops)
            for one in self.choices
        ]
        formats = dict.fromkeys((*sizes, "on disk"), size_text)
        formats["FLOPs per token"] = "{:.3g}".format
        notes = [_in_gb(note) for one in self.choices for note in one.memory.notes]
        return Table(
            (*_KEY, *formats), lines, title="Memory breakdown, size on disk and FLOPs per token",
            notes=[*dict.fromkeys(notes)], formats=formats,
        )  # fmt: skip

    @property
    def changes(self) -> Table:
        """A table of the remedies, with the memory that training needs after each of them."""
        lines = [(*_key(one), one.change, one.memory, one.price) for one in self.remedies]
        columns = (*_KEY, "change", "memory", "price")
        return Table(columns, lines, title="What would fit", formats={"memory": size_text})


_KEY = ("method", "targets", "rank")


def _key(one: Choice | Remedy) -> tuple[Cell, ...]:
    return one.method, one.targets or None, one.rank or None


def plan(
    model: Model,
    *,
    gpu: str | int,
    rank: int | Iterable[int] | None = None,
    targets: str | Iterable[str] | None = None,
    methods: Iterable[str] = METHODS,
    **options: Option,
) -> Plan:
    """Find which methods fit on a GPU, their costs, and the largest rank, batch and length.

    Parameters
    ----------
    model : str, Path, mapping or model
        A model, as in `model_spec`.
    gpu : str or int
        The name of a GPU, such as ``"4090"`` or ``"a100 80"``; or its memory, in bytes or as text
        such as ``"24 GB"``, where one GB is 2^30 bytes.
    rank : int or iterable of int, optional
        The ranks of LoRA; by default 8 and 64.
    targets : str or iterable of str, optional
        The modules to adapt, as in `count_model`; by default both the family's default and
        ``"all-linear"``.
    methods : iterable of {"full", "LoRA", "QLoRA"}
        The methods to compare.
    **options
        The fields of `TrainingOptions`, and the options of `count_model`. ``dtype`` is the dtype of
        LoRA's base. If that dtype is quantised, full fine-tuning uses bfloat16; if not, QLoRA's
        base is nf4. The notes state this.

    Returns
    -------
    Plan
        The combinations of methods, targets and ranks, which print as a table.

    Raises
    ------
    ValueError
        If the GPU is unknown (the message shows the closest names) or its memory is zero,
        ``max_length`` exceeds the model's positions, the model's layers are unknown, or no method
        uses a given option.
    TypeError
        If a number has the wrong type.

    See Also
    --------
    training_memory : Estimate the memory of one method.
    count_flops : Count the FLOPs per token.

    Examples
    --------
    >>> planned = plan("llama-3-8b", gpu="RTX 4090", rank=16, targets="all-linear", max_length=2048)
    >>> [(one.method, one.verdict, one.largest_batch) for one in planned.choices]
    [('full', 'no', 0), ('LoRA', 'fits', 2), ('QLoRA', 'fits', 3)]
    """
    device, (of_training, of_lora) = _gpu(gpu), split(options)
    ranks = (8, 64) if rank is None else whole_numbers("rank", rank)
    methods = [choice("method", method, METHODS) for method in methods]
    spec = model_spec(model)
    if not spec.layers:
        what = "give its config.json, or its directory"
        if spec.family in family_names():
            what = "its family's layers are not described. lora-np count counts a LoRA on it"
        elif spec.family:
            what = f"the family {spec.family!r} is not described. lora-np count takes its directory"
        raise ValueError(f"plan needs the layers of {spec.name}: {what}")
    training = training_options(spec, of_training)
    settings = {method: by_method(training)[method] for method in methods}
    given = {"rank": rank, "targets": targets, **of_lora, "dtype": of_training.get("dtype")}
    _check_use(settings, [name for name, value in given.items() if value], training.dtype)
    usual: list[str | list[str] | None] = [widest_targets(spec)]
    if spec.default_targets:  # these alone with `layers`, which PEFT does not take with all-linear
        usual = [None] if "layers" in of_lora else [None, *usual]
    counts = {}
    for wanted in () if {*settings} == {"full"} else usual if targets is None else [targets]:
        named = wanted if isinstance(wanted, str) else ",".join(wanted or spec.default_targets)
        counts[named] = by_rank(spec, {**of_lora, "targets": wanted})
    attention = _attention(spec)
    narrower = by_rank(spec, {**of_lora, "targets": attention})
    choices: list[Choice] = []
    remedies: list[Remedy] = []
    for method, own in settings.items():
        if method == "full":
            choices.append(_choice(method, "", spec, device, own, 0))
            remedies += _remedies(choices[-1], device, own, spec)
            continue
        for named, at in counts.items():
            most = rank_that_fits(at, device.room, own)
            for count in map(at, ranks):
                choices.append(_choice(method, named, count, device, own, most))
                wide = any(one.module.role not in ATTENTION for one in count.adapters)
                narrow = partial(narrower, count.rank) if wide and attention else None
                remedies += _remedies(choices[-1], device, own, count, narrow, attention)
    return Plan(
        spec.name, device, training, tuple(choices),
        _notes(spec, device, settings, (at(r) for at in counts.values() for r in ranks)),
        tuple(remedies)
    )  # fmt: skip


def _notes(
    spec: ModelSpec,
    gpu: GPU,
    settings: Mapping[str, TrainingOptions],
    counts: Iterable[LoraCount],
) -> tuple[str, ...]:
    """List the assumptions behind the estimates, and remarks about the GPU and the LoRA."""
    dtypes = {own.dtype for own in settings.values()}
    notes = [
        _in_gb(assumptions(spec, settings)),
        "fits: a tenth of the memory is left for CUDA and the allocator; tight: less than a tenth."
        " 1 GB is 2^30 bytes.",
        gpu.note,
        NO_BFLOAT16.format(gpu.name) if not gpu.bfloat16 and "bfloat16" in dtypes else "",
        NO_NF4.format(gpu.name) if not gpu.nf4 and "nf4" in dtypes else "",
        *(note for count in counts for note in count.notes),
    ]
    return tuple(dict.fromkeys(filter(None, notes)))


def _check_use(settings: Mapping[str, TrainingOptions], given: list[str], dtype: str) -> None:
    """Raise an error for an option that no method uses, such as a rank in full fine-tuning."""
    of_lora = [name for name in given if name != "dtype"]
    if of_lora and {*settings} == {"full"}:
        refuse(f"{' and '.join(of_lora)} can only be given for LoRA or QLoRA, got the method full")
    if "dtype" in given and dtype not in [own.dtype for own in settings.values()]:
        takes = [*ITEMSIZE] if "full" in settings else []
        takes += ["int8", "nf4"] if "QLoRA" in settings else []
        refuse(f"dtype must be {' or '.join(takes)} for {' and '.join(settings)}, got {dtype!r}")


def _choice(
    method: str,
    targets: str,
    model: ModelSpec | LoraCount,
    gpu: GPU,
    training: TrainingOptions,
    most_rank: int,
) -> Choice:
    terms = terms_of(model, training)
    flops = count_flops(model, max_length=training.max_length)
    repeated = sum(flops.forward.values()) if training.checkpointing else 0
    rank, trainable, disk = 0, model.total, 2 * model.total
    if isinstance(model, LoraCount):
        rank, trainable, disk = model.rank, model.trainable, 4 * model.trainable
    total = terms.memory.total
    verdict = "fits" if total <= gpu.room else "tight" if total <= gpu.memory else "no"
    length, batch = (terms.most(name, gpu.room) for name in SHORTER)
    return Choice(
        method, targets, rank, trainable, terms.memory, verdict, most_rank, batch, length,
        flops.total + repeated, disk,
    )  # fmt: skip


def _attention(spec: ModelSpec) -> list[str]:
    """Return targets for the linear layers of attention: the last two parts of their paths."""
    return sorted({
        ".".join(module.name.split(".")[-2:])
        for module in spec.groups
        if module.kind == "linear" and module.role in ATTENTION
    })  # fmt: skip


def _remedies(
    choice: Choice,
    gpu: GPU,
    training: TrainingOptions,
    model: ModelSpec | LoraCount,
    narrow: Callable[[], LoraCount] | None = None,
    attention: Sequence[str] = (),
) -> Iterator[Remedy]:
    """Yield changes that make a choice fit; ``narrow`` counts a LoRA on ``attention`` only."""
    if choice.verdict == "fits":
        return
    narrowed = None
    with suppress(ValueError):  # the options leave nothing of attention, or its names are ambiguous
        narrowed = narrow() if narrow else None
    remedy = partial(Remedy, choice.method, choice.targets, choice.rank)
    for chosen in [some for some in TRIALS if narrowed or NARROW not in some]:
        options: dict[str, Option] = {}
        prices = []
        for name in chosen:
            options |= SWITCHES[name][0]
            prices.append(SWITCHES[name][1])
        changed, adapted = replace(training, **options), model  # type: ignore[arg-type]
        if narrowed and NARROW in chosen:
            options["targets"], adapted = attention, narrowed
        terms = terms_of(adapted, changed)
        memory = terms.memory.total
        if memory <= gpu.room:
            yield remedy(", ".join(chosen), options, memory, "; ".join(prices))
            chosen, prices, options, terms = (), [], {}, terms_of(model, training)
            break
    # Try a shorter sequence or a smaller batch. All switches are on if no combination of them was
    # enough, otherwise none.
    for name, (what, price) in SHORTER.items():
        if most := terms.most(name, gpu.room):
            shorter = replace(terms.training, **{name: most})  # type: ignore[arg-type]
            words = ", ".join([*chosen, f"{what} {most:,}"])
            memory = terms._replace(training=shorter).memory.total
            yield remedy(words, {**options, name: most}, memory, "; ".join([*prices, price]))
    for other in alternatives(gpu):
        if other.room >= choice.memory.total:
            yield remedy(other.name, {"gpu": other.name}, choice.memory.total, "a larger GPU")
            break


def alternatives(gpu: GPU) -> list[GPU]:
    """List GPUs in the order to suggest them: Apple's if ``gpu`` is from Apple, else the others."""
    return sorted(
        (other for other in gpus().values() if ("Apple" in other.name) == ("Apple" in gpu.name)),
        # if `gpu` is an RTX or GTX, list RTX and GTX cards first; list laptop GPUs after the others
        key=lambda other: (
            gpu.name[1:3] == "TX" != other.name[1:3], "Laptop" in other.name, other.memory
        )
    )  # fmt: skip


def _gpu(name: str | int) -> GPU:
    if isinstance(name, str):
        names = gpu_names()
        if meant := names.find(name):
            return gpus()[meant]
        size = re.fullmatch(r"([\d.]+)\s*(?:([kmgt])i?b|g)?", name.strip().lower())
        # a number of four digits or more without a unit, such as 4090, is a GPU's name
        if not size or (size[0] == size[1] and len(size[1].split(".")[0]) > 3):
            if len(several := names.several(name)) > 1:
                which = " or ".join(map(repr, several))
                refuse(f"gpu must say which: {which}, got {shown(name)}")
            close = ", ".join(map(repr, names.nearest(name) or sorted(gpus())))
            refuse(
                f"gpu must be a memory such as 24 GB, or a GPU such as {close}, got {shown(name)}"
            )
        name = parse_bytes("gpu", f"{size[1]}{size[2] or 'g'}ib")
    return GPU("a GPU", whole_number("the memory of a GPU", name))


@dataclass(frozen=True, repr=False)
class Flops(Shown):
    """FLOPs per token, by pass and by product, counted by `count_flops`.

    Parameters
    ----------
    title : str
        The title of the table.
    forward, backward : mapping of str to int
        The FLOPs of each product, such as ``"W0 x"``.
    full : Flops or None
        The FLOPs of full fine-tuning of the same model, for comparison with a LoRA.
    """

    title: str
    forward: Mapping[str, int]
    backward: Mapping[str, int]
    full: Flops | None = None

    @property
    def total(self) -> int:
        """The FLOPs per token of a forward and a backward pass."""
        return sum(self.forward.values()) + sum(self.backward.values())

    @property
    def table(self) -> Table:
        """A table of each product's FLOPs per token, with full fine-tuning beside a LoRA."""
        kinds = {"full": self.full, "LoRA": self} if self.full else {"FLOPs": self}
        lines = [
            (direction, name, *(getattr(flops, direction).get(name, 0) for flops in kinds.values()))
            for direction in ("forward", "backward")
            for name in getattr(self, direction)
        ]
        lines.append(("both", "total", *(flops.total for flops in kinds.values())))
        saves = "LoRA saves dW0, but not dx: the gradient still flows back through W0."
        notes = [saves] if self.full else []
        return Table(("pass", "product", *kinds), lines, title=self.title, notes=notes)


def count_flops(model: Model, *, max_length: int = 1, **options: Option) -> Flops:
    """Count the FLOPs per token; a multiplication and an addition count as two.

    Every d x k linear layer costs 2 d k, including the head, tied or not. Attention costs ``2 s h
    (w + v)`` for h heads of width w and values of width v over s tokens; a causal mask is not
    subtracted. Experts cost 2 d k for each expert that a token is routed to. Norms and activation
    functions are left out, because they cost only O(d). With an encoder and a decoder, each token
    passes through both.

    Full fine-tuning costs three times the forward pass. LoRA saves the product dW0, one third, but
    not dx: the gradient still flows back through W0.

    Parameters
    ----------
    model : LoraCount, str, Path, mapping or model
        A count of a LoRA, or a model as in `model_spec`. The count is for LoRA if a ``rank`` or a
        ``config`` is given, and else for full fine-tuning.
    max_length : int
        The sequence length, for attention, which is counted only if the layers are known.
    **options
        Options of `count`.

    Returns
    -------
    Flops
        The FLOPs by pass and product, which print as a table.

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
        for module in _linear_layers(spec)
    )
    attention = 0
    for stack in spec.layers:
        times = stack.depth * stack.repeats * (2 if stack.cross_attention else 1)
        attention += 2 * max_length * stack.heads * (stack.head_width + stack.value_width) * times
    forward = {"W0 x": base, "attention": attention}
    backward = {"dx through W0": base, "attention": 2 * attention}
    if not isinstance(model, LoraCount):
        return Flops(f"{spec.name}: FLOPs per token", forward, backward | {"dW0": base})
    adapter = 2 * sum(
        one.rank * sum(one.module.shape[-2:]) * one.copies * _passes(one.module, spec)
        for one in model.adapters
        if one.module in _linear_layers(spec)
    )
    saved = 2 * sum(model.saved.values())
    forward |= {"B A x": adapter}
    backward |= {"dW0": saved, "dx through B A": adapter, "dA, dB": adapter}
    title = f"{spec.name}, rank {model.rank}: FLOPs per token"
    return Flops(title, forward, backward, count_flops(spec, max_length=max_length))


def _passes(module: ModuleSpec, spec: ModelSpec) -> int:
    """Count how many times a token passes through a module, given routing and repeated layers."""
    times = spec.experts_per_token if module.kind == "experts" else 1
    return times * next(
        (stack.repeats for stack in spec.layers if module.name.startswith(stack.prefix)), 1
    )


def _linear_layers(spec: ModelSpec) -> list[ModuleSpec]:
    return [module for module in spec.groups if module.kind in ("linear", "router", "experts")]
