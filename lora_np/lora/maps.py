"""PEFT's tuners as maps of a weight: one row each, from which they are read, counted, merged and
converted.

The formulas stand in `updates`; a row adds what they act on: the names and shapes of the tensors,
and the settings with PEFT's defaults.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from math import inf, isqrt, prod
from typing import Any, TypeVar

import numpy as np

from lora_np.checks import number, shown, whole_number
from lora_np.lora import updates
from lora_np.lora.updates import Pair

Shapes = dict[str, tuple[int, ...]]
Values = Mapping[str, Any]
Found = TypeVar("Found")

# Settings by which modules are selected, and those that do not change what the saved numbers
# compute.
_SELECTING = (
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
    "modules_to_save", "bias",
    "fan_in_fan_out",
)  # fmt: skip
_UNUSED = frozenset((
    "beta1", "beta2", "boft_dropout", "cayley_neumann_eps", "d_initial", "deltaT",
    "delora_lambda", "eps",
    "feedforward_modules", "init_ia3_weights", "init_logits_std", "init_v_bound",
    "init_vector_bank_bound",
    "init_weights", "lambda_pattern", "lora_dropout", "mask_type", "mini_r", "miss_dropout",
    "module_dropout",
    "num_cayley_neumann_terms", "orth_reg_weight", "projection_prng_key", "psoft_alpha",
    "psoft_dropout",
    "psoft_mag_a", "psoft_mag_b", "psoft_svd_lowrank_niter", "randlora_dropout", "random_seed",
    "rank_dropout", "rank_dropout_scale", "save_projection", "sparse", "target_r", "tfinal",
    "tinit",
    "tinylora_dropout", "total_step", "use_effective_conv2d", "vblora_dropout", "vera_dropout",
    "very_sparse",
))  # fmt: skip


@dataclass(frozen=True, eq=False)
class Map:
    """A row of the table: what one of PEFT's tuners trains, and the weight that comes of it.

    At least one of ``factors``, ``update`` and ``weight`` is given. Their parameters are the
    tensors by their names in the file, settings by theirs, and perhaps ``W`` and its ``shape``.

    Parameters
    ----------
    name : str
        As its authors write it.
    paper : str
        Its number on arXiv.
    prefix : str
        Of its tensors' names in the file.
    shapes : callable
        From d, k and settings to the shapes of what is trained for one matrix, by name.
    settings : mapping of str to object
        With PEFT's defaults; a tuple holds all values that are taken, the default first.
    factors : callable, optional
        B (d, R) and A (R, k) of the update, where it is a LoRA in disguise.
    update : callable, optional
        The update (d, k).
    weight : callable, optional
        The new weight, from ``W``.
    size : callable, optional
        From the tensors' shapes by name to (d, k), where they say it.
    rank : str
        R in words; empty if the update has no such factors, or any rank.
    directions : callable
        From d, k and settings to R.
    shared : callable, optional
        From settings and the number of modules to the shapes of what is trained for the whole
        model.
    outputs : bool
        Whether the map acts on outputs, and so on the bias too.

    Examples
    --------
    >>> import numpy as np
    >>> row = MAPS["VERA"]
    >>> row.count(100, 120, r=8), row.rank
    (108, 'r')
    >>> parts = {"lambda_b": np.ones(2), "lambda_d": np.ones(1), "A": np.ones((1, 3)),
    ...     "B": np.ones((2, 1))}
    >>> row.delta(parts, shape=(2, 3))
    array([[1., 1., 1.],
           [1., 1., 1.]])
    """

    name: str
    paper: str
    prefix: str
    shapes: Callable[..., Shapes]
    settings: Mapping[str, Any]
    factors: Callable[..., Pair] | None = None
    update: Callable[..., Any] | None = None
    weight: Callable[..., Any] | None = None
    size: Callable[[Mapping[str, tuple[int, ...]]], tuple[int, int]] | None = None
    rank: str = ""
    directions: Callable[..., int] = field(default_factory=lambda: lambda r: r)
    shared: Callable[..., Shapes] = field(default_factory=lambda: lambda: {})
    outputs: bool = False

    @property
    def formula(self) -> Callable[..., Any]:
        """That of its definition."""
        return self.weight or self.update or self.factors  # type: ignore[return-value]

    @cached_property
    def tensors(self) -> dict[str, bool]:
        """The names of the tensors, and whether each must be there."""
        found = signature(self.formula).parameters.values()
        others = (*self.settings, "W", "shape")
        return {each.name: each.default is each.empty for each in found if each.name not in others}

    def needs(self, what: str) -> bool:
        """Whether the formula takes the base's weight ``W``, or its ``shape``."""
        return what in signature(self.formula).parameters

    def key(self, tensor: str) -> str:
        """A tensor's name in PEFT's file, after the module's path."""
        return self.prefix + tensor.rstrip("_")

    def delta(self, tensors: Mapping[str, Any], *, W: Any = None, **others: Any) -> Any:
        """The update (d, k) of a weight ``W``; others are settings and, without W, perhaps its
        ``shape``.
        """
        found = self._value(self.formula, tensors, W, others)
        if self.formula is self.factors:
            return found[0] @ found[1]
        return found if self.weight is None else found - W

    def lora(self, tensors: Mapping[str, Any], *, W: Any = None, **others: Any) -> Pair:
        """``B`` (d, R) and ``A`` (R, k), whose product is the update."""
        if self.factors is None:
            raise ValueError(
                f"{self.name} is no LoRA in disguise: its update has no factors in closed form"
            )
        return self._value(self.factors, tensors, W, others)

    def trained(self, d: int, k: int, **settings: Any) -> Shapes:
        """The shapes of what is trained for one matrix; a ValueError if it cannot be adapted so."""
        return self._value(self.shapes, {"d": d, "k": k}, None, settings)

    def count(self, d: int, k: int, **settings: Any) -> int:
        """How many numbers are trained for one matrix."""
        return sum(map(prod, self.trained(d, k, **settings).values()))

    def count_directions(self, d: int, k: int, **settings: Any) -> int:
        """R, of the factors in closed form."""
        return self._value(self.directions, {"d": d, "k": k}, None, settings)

    def trained_by_all(self, modules: int, **settings: Any) -> Shapes:
        """The shapes of what is trained for the whole model, beside that for each module."""
        return self._value(self.shared, {"modules": modules}, None, settings)

    @property
    def defaults(self) -> dict[str, Any]:
        """PEFT's, of all settings."""
        return {
            key: given[0] if isinstance(given, tuple) else given
            for key, given in self.settings.items()
        }

    def _value(self, formula: Callable[..., Found], given: Values, W: Any, others: Values) -> Found:
        shape = {} if W is None else {"shape": W.shape}
        known = {**self.defaults, **others, **given, "W": W, **shape}
        return formula(
            **{name: known[name] for name in signature(formula).parameters if name in known}
        )

    def settings_by_module(self, raw: Mapping[str, Any]) -> Callable[[str], dict[str, Any]]:
        """The settings of each module, by its path, from those of a config; others are refused by
        name.
        """
        from lora_np.models import Patterns, peft

        general, patterns = self.defaults, {}
        if "init_r" in self.settings:  # the pattern of AdaLoRA says which directions are left
            pattern = raw.get("rank_pattern") or {}
            left = {
                f"^{re.escape(at.removesuffix('.lora_E'))}": sum(kept)
                for at, kept in pattern.items()
            }
            patterns["r"] = Patterns(left, "rank_pattern")
            raw = {**raw, "r": raw.get("init_r", general["init_r"]), "rank_pattern": None}
        for key, given in raw.items():
            if key in self.settings:
                general[key] = self._checked(key, given)
            elif key in (*_SELECTING, *_UNUSED) or peft.SETTINGS.get(key, "") is None:
                continue
            elif given not in (None, False, "", [], {}):
                raise ValueError(f"{key} = {shown(given)} is not supported for {self.name}")
        if "feedforward" in self.settings:
            said = raw.get("feedforward_modules") or []
            ends = (
                [f"^{said}"] if isinstance(said, str) else [f".*{re.escape(name)}" for name in said]
            )
            patterns["feedforward"] = Patterns(dict.fromkeys(ends, True), "feedforward_modules")
        return lambda name: (
            general | {key: each.get(name, general[key]) for key, each in patterns.items()}
        )

    def _checked(self, key: str, given: Any) -> Any:
        usual = self.settings[key]
        if isinstance(usual, tuple):
            if given not in usual:
                wanted = " or ".join(map(repr, usual))
                raise ValueError(f"{key} must be {wanted} for {self.name}, got {shown(given)}")
        elif isinstance(usual, int):
            return whole_number(key, given, minimum=min(usual, key == "r"))
        elif given is not None:
            return number(key, given, minimum=-inf)
        return given


def split(n: int, factor: int) -> tuple[int, int]:
    """LoKr's factors of n: ``factor`` and the rest, or the divisors nearest the root, the smaller
    first.
    """
    if factor > 0 and n % factor == 0:
        return factor, n // factor
    most = isqrt(n) if factor < 0 else max(1, min(factor, isqrt(n)))
    small = next(m for m in range(most, 0, -1) if n % m == 0)
    return small, n // small


def lokr_shapes(d: int, k: int, *, r: int, decompose_factor: int) -> Shapes:
    (d1, d2), (k1, k2) = split(d, decompose_factor), split(k, decompose_factor)
    if r >= max(d2, k2) / 2:
        return {"w1": (d1, k1), "w2": (d2, k2)}
    return {"w1": (d1, k1), "w2_a": (d2, r), "w2_b": (r, k2)}


def lokr_size(at: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
    a, b = (at.get("w2", at.get(f"w2_{end}", (0, 0))) for end in "ab")
    return at["w1"][0] * a[0], at["w1"][1] * b[1]


def lokr_directions(d: int, k: int, *, r: int, decompose_factor: int) -> int:
    shapes = lokr_shapes(d, k, r=r, decompose_factor=decompose_factor)
    return min(shapes["w1"]) * min(shapes.get("w2") or shapes["w2_b"][:1])


def of_pair(at: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
    return at["B"][0], at["A"][1]


def blocks(what: str, n: int, size: int) -> int:
    """How many blocks of this size n has."""
    if size < 1 or n % size:
        raise ValueError(f"{what} must divide {n}, got {size}")
    return n // size


def oft_shapes(k: int, *, r: int, oft_block_size: int) -> Shapes:
    b = k // r if r else oft_block_size
    return {"weight": (blocks("oft_block_size", k, b), b * (b - 1) // 2)}


def boft_shapes(d: int, k: int, *, boft_block_size: int, boft_block_num: int) -> Shapes:
    b = boft_block_size or blocks("boft_block_num", k, boft_block_num)
    return {"R": (1, blocks("boft_block_size", k, b), b, b), "s": (d, 1)}


def road_shapes(d: int, *, variant: str, group_size: int) -> Shapes:
    size = blocks("group_size", d, group_size) * group_size * int(variant[-1]) // 2
    return {"theta": (size,), "alpha": (size,)}


def c3a_shapes(d: int, k: int, *, block_size: int) -> Shapes:
    m, n = (blocks("block_size", size, block_size) for size in (d, k))
    return {"kernel": (m, n, block_size)}


def vblora_shapes(d: int, k: int, *, r: int, num_vectors: int, vector_length: int) -> Shapes:
    m, n = (blocks("vector_length", size, vector_length) for size in (d, k))
    return {"logits_A": (r, n, num_vectors), "logits_B": (m, r, num_vectors)}


def randlora_shapes(d: int, k: int, *, r: int) -> Shapes:
    n = -(-min(d, k) // r)
    return {"lambda_": (r, n), "gamma": (n, min(d, k))}


def tied(modules: int, *, u: int, weight_tying: float) -> Shapes:
    return {"v": (1 + _group(modules - 1, modules, weight_tying), u)}


def _group(index: int, modules: int, weight_tying: float) -> int:
    """The vector of a module: those that follow one another share one."""
    groups = max(1, round(modules * (1 - weight_tying)))
    return min(index // max(1, modules // groups), groups - 1)


def vector_of(P: Any, modules: int, settings: Mapping[str, Any]) -> int | None:
    """Which of TinyLoRA's vectors a module has, by its place in the model: the seed of its P tells
    that.

    Parameters
    ----------
    P : ndarray of shape (u, r, r)
        The module's.
    modules : int
        How many are adapted.
    settings : mapping of str to object
        Of the row.

    Returns
    -------
    int or None
        None if P is not of that seed, or of fewer than 16 numbers.

    Examples
    --------
    >>> P = updates.first_normals(7 + 1).reshape(1, 4, 4) / 2
    >>> vector_of(P, 3, {"r": 4, "projection_seed": 7, "weight_tying": 0.0})
    1
    """
    # torch draws the last 16 again where the number is not a multiple of that
    head = P.ravel()[: max(0, min(16, P.size - (P.size % 16 and 16)))] * settings["r"] ** 0.5
    for index in range(modules if len(head) else 0):
        drawn = updates.first_normals(settings["projection_seed"] + index)
        if np.allclose(drawn[: len(head)], head, atol=1e-4):
            return _group(index, modules, settings["weight_tying"])
    return None


_ON = (True, False)

# By PEFT's peft_type, and a setting where that decides.
MAPS: dict[str, Map] = {
    "LORA": Map(
        "LoRA", "2106.09685", "lora_", lambda d, k, r: {"A": (r, k), "B": (d, r)},
        {"r": 8, "lora_alpha": 8.0}, updates.lora_factors, size=of_pair, rank="r",
    ),
    "LORA use_dora": Map(
        "DoRA", "2402.09353", "lora_",
        lambda d, k, r: {"A": (r, k), "B": (d, r), "magnitude_vector": (d,)},
        {"r": 8, "lora_alpha": 8.0}, weight=updates.dora,
    ),
    "ADALORA": Map(
        "AdaLoRA", "2303.10512", "lora_", lambda d, k, r: {"A": (r, k), "E": (r, 1), "B": (d, r)},
        {"init_r": 12, "r": 12, "lora_alpha": 8.0}, updates.adalora_factors, size=of_pair, rank="r",
    ),
    "LOHA": Map(
        "LoHa", "2108.06098", "hada_",
        lambda d, k, r: {"w1_a": (d, r), "w1_b": (r, k), "w2_a": (d, r), "w2_b": (r, k)},
        {"r": 8, "alpha": 8.0}, updates.loha_factors,
        size=lambda at: (at["w1_a"][0], at["w1_b"][1]), rank="r^2", directions=lambda r: r * r,
    ),
    "LOKR": Map(
        "LoKr", "2309.14859", "lokr_", lokr_shapes,
        {"r": 8, "alpha": 8.0, "decompose_factor": -1},
        updates.lokr_factors, size=lokr_size, rank="rank(w1) rank(w2)", directions=lokr_directions,
    ),
    "VERA": Map(
        "VeRA", "2310.11454", "vera_", lambda d, k, r: {"lambda_b": (d,), "lambda_d": (r,)},
        {"r": 256},
        updates.vera_factors, rank="r",
    ),
    "VBLORA": Map(
        "VB-LoRA", "2405.15179", "vblora_", vblora_shapes,
        {"r": 4, "num_vectors": 256, "vector_length": 256, "topk": 2}, updates.vblora_factors,
        size=lambda at: (at["logits_B"][0] * at["vector_bank"][1],
        at["logits_A"][1] * at["vector_bank"][1]),
        rank="r", shared=lambda num_vectors, vector_length: {"vector_bank": (num_vectors,
        vector_length)},
    ),
    "TINYLORA": Map(
        "TinyLoRA", "2602.04118", "tinylora_", lambda: {},
        {"r": 2, "u": 64, "weight_tying": 0.0, "projection_seed": 42}, updates.tinylora_factors,
        size=of_pair,
        rank="r", directions=lambda d, k, r: min(d, k, r), shared=tied,
    ),
    "DELORA": Map(
        "DeLoRA", "2503.18225", "delora_", lambda d, k, r: {"A": (r, k), "B": (d, r),
        "lambda_": (1,)},
        {"r": 8}, updates.delora_factors, size=of_pair, rank="r",
    ),
    "MISS": Map(
        "MiSS", "2409.15371", "miss_", lambda d, r: {"block": (r, d)}, {"r": 64,
        "init_weights": _ON},
        updates.miss_factors, rank="r",
    ),
    "PSOFT": Map(
        "PSOFT", "2505.11235", "psoft_R.",
        lambda r: {"weight": (r * (r - 1) // 2,), "vector_a": (r,), "vector_b": (r,)},
        {"r": 32, "ab_svd_init": ("psoft_init",), "psoft_svd": ("full",), "psoft_orth": (True,)},
        updates.psoft_factors, rank="r",
    ),
    "HRA": Map(
        "HRA", "2405.17484", "hra_", lambda k, r: {"u": (k, r)}, {"r": 8},
        updates.hra_factors, rank="r",
    ),
    "FOURIERFT": Map(
        "FourierFT", "2405.03003", "fourierft_", lambda n_frequency: {"spectrum": (n_frequency,)},
        {"n_frequency": 1000, "scaling": 150.0, "random_loc_seed": 777},
        updates.fourierft_factors, rank="2 n", directions=lambda n_frequency: 2 * n_frequency,
    ),
    "RANDLORA": Map(
        "RandLoRA", "2502.00987", "randlora_", randlora_shapes, {"r": 32, "randlora_alpha": 640.0},
        updates.randlora_factors, directions=lambda d, k, r: r * -(-min(d, k) // r),
    ),
    "C3A": Map(
        "C3A", "2407.19342", "c3a_", c3a_shapes, {"block_size": 256}, update=updates.c3a,
        size=lambda at: (at["kernel"][0] * at["kernel"][2], at["kernel"][1] * at["kernel"][2]),
    ),
    "SHIRA": Map(
        "SHiRA", "2406.13175", "shira_", lambda d, k, r: {"weight": (r * (d + k),)}, {"r": 32},
        update=updates.shira,
    ),
    "IA3": Map(
        "(IA)^3", "2205.05638", "ia3_", lambda d, k, feedforward: {"l": (1,
        k) if feedforward else (d, 1)},
        {"feedforward": False}, weight=updates.ia3, outputs=True,
    ),
    "OFT": Map(
        "OFT", "2306.07280", "oft_R.", oft_shapes,
        {"r": 0, "oft_block_size": 32, "use_cayley_neumann": _ON, "num_cayley_neumann_terms": 5},
        weight=updates.oft,
    ),
    "BOFT": Map(
        "BOFT", "2311.06243", "boft_", boft_shapes,
        {"boft_block_size": 4, "boft_block_num": 0, "boft_n_butterfly_factor": (1,)},
        weight=updates.boft,
    ),
    "ROAD": Map(
        "RoAd", "2409.00119", "road_", road_shapes,
        {"variant": ("road_1", "road_2", "road_4"), "group_size": 64}, weight=updates.road,
        outputs=True,
    ),
}  # fmt: skip


def selecting(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a LoRA on the same modules, from that of any tuner.

    Parameters
    ----------
    raw : mapping of str to object
        As in ``adapter_config.json``.

    Returns
    -------
    dict
        Without a rank.

    Examples
    --------
    >>> selecting({"peft_type": "LOHA", "r": 8, "target_modules": ["q_proj"], "bias": "none"})
    {'target_modules': ['q_proj'], 'bias': 'none', 'peft_type': 'LORA'}
    """
    found = {key: raw[key] for key in _SELECTING if key in raw}
    if str(raw.get("bias")).endswith("_only"):
        found["bias"] = "lora_only"
    return {**found, "peft_type": "LORA"}


def map_of(raw: Mapping[str, Any]) -> Map | None:
    """The row of another tuner than LoRA.

    Parameters
    ----------
    raw : mapping of str to object
        As in ``adapter_config.json``.

    Returns
    -------
    Map or None
        None of a LoRA, and of what has no row.

    Examples
    --------
    >>> map_of({"peft_type": "LOHA"}).name
    'LoHa'
    """
    kind = raw.get("peft_type")
    if kind == "LORA" or not isinstance(kind, str):
        return None
    return MAPS.get(kind)
