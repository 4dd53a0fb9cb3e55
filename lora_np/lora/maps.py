"""PEFT's tuners as maps of a weight: one row each, from which they are read, counted, merged and converted.

The formulas stand in `updates`; a row adds what they act on: the names and shapes of the tensors, and the
settings with PEFT's defaults.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from math import inf, isqrt, prod
from typing import Any

from lora_np.checks import number, shown, whole_number
from lora_np.lora import updates
from lora_np.lora.updates import Pair, Shape

Shapes = dict[str, tuple[int, ...]]

# The settings of every tuner: which modules are adapted, and what does not change what the numbers compute.
SELECTING = (
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save", "bias",
    "fan_in_fan_out",
)  # fmt: skip
NEUTRAL = (
    "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "task_type",
    "inference_mode", "runtime_config", "init_weights",
)  # fmt: skip
_PATTERNS = {
    "rank_pattern": "r", "alpha_pattern": "alpha", "block_size_pattern": "block_size",
    "n_frequency_pattern": "n_frequency",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Map:
    """A row of the table: what one of PEFT's tuners trains, and the weight that comes of it.

    At least one of ``factors``, ``update`` and ``weight`` is given. Their parameters are the tensors by their
    names in the file, settings by theirs, and perhaps ``W`` and its ``shape``.

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
    factors : callable, optional
        B (d, R) and A (R, k) of the update, where it is a LoRA in disguise.
    update : callable, optional
        The update (d, k).
    weight : callable, optional
        The new weight, from ``W``.
    settings : mapping of str to object
        With PEFT's defaults; a tuple holds all values that are taken, the default first.
    unused : tuple of str
        Settings that do not change what the saved numbers compute.
    size : callable, optional
        From the tensors' shapes by name to (d, k), where they say it.
    rank : str
        R in words; empty if the update has no such factors.
    shared : callable, optional
        From settings and the number of modules to the shapes of what is trained for the whole model.
    outputs : bool
        Whether the map acts on outputs, and so on the bias too.

    Examples
    --------
    >>> import numpy as np
    >>> row = MAPS["VERA"]
    >>> row.count(100, 120, r=8), row.rank
    (108, 'r')
    >>> parts = {"lambda_b": np.ones(2), "lambda_d": np.ones(1), "A": np.ones((1, 3)), "B": np.ones((2, 1))}
    >>> row.delta(parts, shape=(2, 3))
    array([[1., 1., 1.],
           [1., 1., 1.]])
    """

    name: str
    paper: str
    prefix: str
    shapes: Callable[..., Shapes]
    factors: Callable[..., Pair] | None = None
    update: Callable[..., Any] | None = None
    weight: Callable[..., Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    size: Callable[[Mapping[str, Shape]], Shape] | None = None
    rank: str = ""
    shared: Callable[..., Shapes] | None = None
    outputs: bool = False

    @property
    def formula(self) -> Callable[..., Any]:
        """That of its definition."""
        found = self.weight or self.update or self.factors
        assert found is not None
        return found

    @cached_property
    def parameters(self) -> frozenset[str]:
        """What the formulas take."""
        formulas = (self.factors, self.update, self.weight)
        return frozenset(name for each in formulas if each for name in signature(each).parameters)

    @property
    def tensors(self) -> dict[str, bool]:
        """The names of the tensors, and whether each must be there."""
        found = signature(self.formula).parameters.values()
        names = {each.name: each.default is each.empty for each in found}
        return {name: must for name, must in names.items() if name not in (*self.settings, "W", "shape")}

    def delta(
        self, tensors: Mapping[str, Any], *, W: Any = None, shape: Shape | None = None, **settings: Any
    ) -> Any:
        """The update (d, k) of a weight ``W``, which only some rows need, or need the ``shape`` of."""
        known = self._known(tensors, W, shape, settings)
        if self.weight is not None:
            return taking(self.weight, known) - W
        if self.update is not None:
            return taking(self.update, known)
        B, A = self.lora(tensors, W=W, shape=shape, **settings)
        return B @ A

    def lora(
        self, tensors: Mapping[str, Any], *, W: Any = None, shape: Shape | None = None, **settings: Any
    ) -> Pair:
        """``B`` (d, R) and ``A`` (R, k), whose product is the update."""
        if self.factors is None:
            raise ValueError(f"{self.name} is no LoRA in disguise: its update has no factors in closed form")
        B, A = taking(self.factors, self._known(tensors, W, shape, settings))
        return B, A

    def count(self, d: int, k: int, **settings: Any) -> int:
        """How many numbers are trained for one matrix."""
        return sum(map(prod, self.trained(d, k, **settings).values()))

    def trained(self, d: int, k: int, **settings: Any) -> Shapes:
        """The shapes of what is trained for one matrix, by name; a ValueError if there is no such adapter."""
        shapes: Shapes = taking(self.shapes, {**self.defaults, **settings, "d": d, "k": k})
        return shapes

    def key(self, tensor: str) -> str:
        """A tensor's name in PEFT's file, after the module's path."""
        return self.prefix + tensor.rstrip("_")

    @property
    def defaults(self) -> dict[str, Any]:
        """PEFT's, of all settings."""
        return {
            name: value[0] if isinstance(value, tuple) else value for name, value in self.settings.items()
        }

    def _known(
        self, tensors: Mapping[str, Any], W: Any, shape: Shape | None, settings: Mapping[str, Any]
    ) -> dict[str, Any]:
        shape = shape if W is None else W.shape
        return {**self.defaults, **settings, **tensors, "W": W, "shape": shape}

    def settings_by_module(self, raw: Mapping[str, Any]) -> Callable[[str], dict[str, Any]]:
        """The settings of each module, by its path, from those of a config.

        Raises
        ------
        ValueError
            If one is unknown and set, or its value is not taken.
        """
        from lora_np.models import Patterns, matcher

        general, patterns = self.defaults, {}
        for key, value in raw.items():
            if key in self.settings:
                general[key] = self._checked(key, value)
            elif key in _PATTERNS and _PATTERNS[key] in self.settings:
                own = {at: self._checked(_PATTERNS[key], each) for at, each in (value or {}).items()}
                patterns[_PATTERNS[key]] = Patterns(own, key)
            elif key == "rank_pattern" and "init_r" in self.settings:  # which directions AdaLoRA has left
                own = {
                    f"^{re.escape(at.removesuffix('.lora_E'))}": sum(left)
                    for at, left in (value or {}).items()
                }
                patterns["kept"] = Patterns(own, key)
            elif key not in (*SELECTING, *NEUTRAL, *self.unused) and value not in (None, False, "", [], {}):
                raise ValueError(f"{key} = {shown(value)} is not supported for {self.name}")
        general["kept"] = general.get("init_r")
        feeding = raw.get("feedforward_modules") or ()
        feeds = matcher(feeding) if isinstance(feeding, str) else lambda name: name.endswith((*feeding,))

        def of(name: str) -> dict[str, Any]:
            own = {key: each.get(name, general[key]) for key, each in patterns.items()}
            return {**general, **own, "feedforward": feeds(name)}

        return of

    def _checked(self, key: str, value: Any) -> Any:
        usual = self.settings[key]
        if isinstance(usual, tuple):
            if value not in usual:
                taken = " or ".join(map(repr, usual))
                raise ValueError(f"{key} must be {taken} for {self.name}, got {shown(value)}")
            return value
        if usual is None or isinstance(usual, float):
            return value if value is usual is None else number(key, value, minimum=-inf)
        return whole_number(key, value, minimum=min(usual, 1))


def taking(formula: Callable[..., Any], known: Mapping[str, Any]) -> Any:
    """The formula's value, from those of the known things that it takes."""
    return formula(**{name: known[name] for name in signature(formula).parameters if name in known})


def split(n: int, factor: int) -> tuple[int, int]:
    """LoKr's two factors of n: ``factor`` and the rest, or the divisors nearest the root, the small one first."""
    if factor > 0 and n % factor == 0:
        return factor, n // factor
    most = isqrt(n) if factor < 0 else max(1, min(factor, isqrt(n)))
    small = next(m for m in range(most, 0, -1) if n % m == 0)
    return small, n // small


def lokr_shapes(d: int, k: int, *, r: int, decompose_both: bool, decompose_factor: int) -> Shapes:
    (d1, d2), (k1, k2) = split(d, decompose_factor), split(k, decompose_factor)
    parts = [("w1", d1, k1, not decompose_both), ("w2", d2, k2, False)]
    shapes: Shapes = {}
    for name, rows, columns, whole in parts:
        if whole or r >= max(rows, columns) / 2:
            shapes[name] = (rows, columns)
        else:
            shapes |= {f"{name}_a": (rows, r), f"{name}_b": (r, columns)}
    return shapes


def lokr_size(at: Mapping[str, Shape]) -> Shape:
    rows, columns = (
        [at.get(f"w{i}", at.get(f"w{i}_{part}", (0, 0)))[axis] for i in (1, 2)]
        for axis, part in enumerate("ab")
    )
    return prod(rows), prod(columns)


def of_pair(at: Mapping[str, Shape]) -> Shape:
    return at["B"][0], at["A"][1]


def blocks(what: str, n: int, size: int) -> int:
    """How many blocks of this size n has."""
    if n % size:
        raise ValueError(f"{what} must divide {n}, got {size}")
    return n // size


def bat_shapes(d: int, k: int, *, r: int) -> Shapes:
    blocks("r", k, r)
    return {"block": (blocks("r", d, r), r, r)}


def nearest_divisor(n: int, wanted: int) -> int:
    """The divisor of n that OFT takes instead of one that does not divide it; the smaller of two."""
    return min((m for m in range(1, n + 1) if n % m == 0), key=lambda m: (abs(m - wanted), m))


def oft_shapes(d: int, k: int, *, r: int, oft_block_size: int, block_share: bool) -> Shapes:
    b = nearest_divisor(k, oft_block_size) if not r else k // nearest_divisor(k, r)
    return {"weight": (1 if block_share else k // b, b * (b - 1) // 2)}


def boft_shapes(
    d: int, k: int, *, boft_block_size: int, boft_block_num: int, boft_n_butterfly_factor: int
) -> Shapes:
    b = boft_block_size or blocks("boft_block_num", k, boft_block_num)
    n = blocks("boft_block_size", k, b)
    return {"R": (boft_n_butterfly_factor, n, b, b), "s": (d, 1)}


def psoft_shapes(d: int, k: int, *, r: int, psoft_orth: bool, psoft_mag_a: bool, psoft_mag_b: bool) -> Shapes:
    vectors = {"vector_a": psoft_mag_a, "vector_b": psoft_mag_b}
    weight = (r * (r - 1) // 2,) if psoft_orth else (r, r)
    return {"weight": weight} | {name: (r,) for name, there in vectors.items() if there}


def tied(modules: int, *, u: int, weight_tying: float) -> Shapes:
    """TinyLoRA's vectors: modules that follow one another share one."""
    groups = max(1, round(modules * (1 - weight_tying)))
    size = max(1, modules // groups)
    return {"v": (len({min(i // size, groups - 1) for i in range(modules)}), u)}


_BOTH = (False, True)
_DROPOUTS = ("rank_dropout", "module_dropout", "rank_dropout_scale", "use_effective_conv2d")
_RANDOM = ("projection_prng_key", "save_projection")

# By PEFT's peft_type, and a setting where that decides.
MAPS: dict[str, Map] = {
    "LORA": Map(
        "LoRA", "2106.09685", "lora_", lambda d, k, r: {"A": (r, k), "B": (d, r)},
        size=of_pair, factors=updates.lora_factors, settings={"r": 8, "lora_alpha": 8.0}, rank="r",
    ),
    "LORA use_dora": Map(
        "DoRA", "2402.09353", "lora_",
        lambda d, k, r: {"A": (r, k), "B": (d, r), "magnitude_vector": (d,)},
        weight=updates.dora, settings={"r": 8, "lora_alpha": 8.0},
    ),
    "ADALORA": Map(
        "AdaLoRA", "2303.10512", "lora_",
        lambda d, k, init_r, kept=None: {
            "A": (init_r if kept is None else kept, k), "E": (init_r if kept is None else kept, 1),
            "B": (d, init_r if kept is None else kept),
        },
        size=of_pair, factors=updates.adalora_factors, settings={"init_r": 12, "lora_alpha": 8.0}, rank="r",
        unused=(
            "r", "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight", "total_step",
            "lora_dropout", "init_lora_weights", "qalora_group_size", "megatron_core",
        ),
    ),
    "LOHA": Map(
        "LoHa", "2108.06098", "hada_",
        lambda d, k, r: {"w1_a": (d, r), "w1_b": (r, k), "w2_a": (d, r), "w2_b": (r, k)},
        size=lambda at: (at["w1_a"][0], at["w1_b"][1]), factors=updates.loha_factors, update=updates.loha, settings={"r": 8, "alpha": 8.0},
        unused=_DROPOUTS, rank="r^2",
    ),
    "LOKR": Map(
        "LoKr", "2309.14859", "lokr_", lokr_shapes, size=lokr_size, factors=updates.lokr_factors, update=updates.lokr,
        settings={"r": 8, "alpha": 8.0, "decompose_both": _BOTH, "decompose_factor": -1},
        unused=_DROPOUTS, rank="rank(w1) rank(w2)",
    ),
    "VERA": Map(
        "VeRA", "2310.11454", "vera_", lambda d, k, r: {"lambda_b": (d,), "lambda_d": (r,)},
        factors=updates.vera_factors, settings={"r": 256},
        unused=(*_RANDOM, "vera_dropout", "d_initial"), rank="r",
    ),
    "RANDLORA": Map(
        "RandLoRA", "2502.00987", "randlora_",
        lambda d, k, r: {"lambda_": (r, -(-min(d, k) // r)), "gamma": (-(-min(d, k) // r), min(d, k))},
        factors=updates.randlora_factors, settings={"r": 32, "randlora_alpha": 640.0},
        unused=(*_RANDOM, "sparse", "very_sparse", "randlora_dropout"), rank="min(d, k) or more",
    ),
    "VBLORA": Map(
        "VB-LoRA", "2405.15179", "vblora_",
        lambda d, k, r, num_vectors, vector_length: {
            "logits_A": (r, blocks("vector_length", k, vector_length), num_vectors),
            "logits_B": (blocks("vector_length", d, vector_length), r, num_vectors),
        },
        size=lambda at: (
            at["logits_B"][0] * at["vector_bank"][1], at["logits_A"][1] * at["vector_bank"][1],
        ),
        factors=updates.vblora_factors,
        settings={"r": 4, "num_vectors": 256, "vector_length": 256, "topk": 2},
        unused=("vblora_dropout", "init_vector_bank_bound", "init_logits_std", "save_only_topk_weights"),
        shared=lambda modules, num_vectors, vector_length: {"vector_bank": (num_vectors, vector_length)},
        rank="r",
    ),
    "TINYLORA": Map(
        "TinyLoRA", "2602.04118", "tinylora_", lambda d, k: {}, size=of_pair, factors=updates.tinylora_factors,
        settings={"r": 2, "u": 64, "weight_tying": 0.0, "projection_seed": 42},
        unused=("save_projection", "init_v_bound", "tinylora_dropout"), shared=tied, rank="r",
    ),
    "DELORA": Map(
        "DeLoRA", "2503.18225", "delora_", lambda d, k, r: {"A": (r, k), "B": (d, r), "lambda_": (1,)},
        size=of_pair, factors=updates.delora_factors, settings={"r": 8},
        unused=("delora_lambda", "lambda_pattern", "module_dropout"), rank="r",
    ),
    "MISS": Map(
        "MiSS", "2409.15371", "miss_",
        lambda d, k, r, init_weights, mini_r: {"block": (r, mini_r if init_weights == "mini" else d)},
        factors=updates.miss_factors,
        settings={"r": 64, "init_weights": (True, False, "mini"), "mini_r": 1},
        unused=("miss_dropout",), rank="r",
    ),
    "MISS bat": Map(
        "MiSS (bat)", "2409.15371", "miss_", bat_shapes,
        weight=updates.miss_bat, settings={"r": 64, "init_weights": ("bat",)},
        unused=("mini_r", "miss_dropout"),
    ),
    "PSOFT": Map(
        "PSOFT", "2505.11235", "psoft_R.", psoft_shapes, factors=updates.psoft_factors,
        settings={
            "r": 32, "ab_svd_init": ("psoft_init", "pissa_init"), "psoft_svd": ("full",),
            "psoft_orth": (True, False), "psoft_mag_a": (True, False), "psoft_mag_b": (True, False),
            "use_cayley_neumann": _BOTH, "num_cayley_neumann_terms": 5, "cayley_neumann_eps": None,
        },
        unused=("psoft_alpha", "psoft_dropout", "psoft_svd_lowrank_niter", "random_seed"), rank="r",
    ),
    "HRA": Map(
        "HRA", "2405.17484", "hra_", lambda d, k, r: {"u": (k, r)}, factors=updates.hra_factors,
        weight=updates.hra, settings={"r": 8, "apply_GS": _BOTH}, rank="r",
    ),
    "FOURIERFT": Map(
        "FourierFT", "2405.03003", "fourierft_", lambda d, k, n_frequency: {"spectrum": (n_frequency,)},
        factors=updates.fourierft_factors,
        settings={"n_frequency": 1000, "scaling": 150.0, "random_loc_seed": 777}, rank="2 n",
    ),
    "C3A": Map(
        "C3A", "2407.19342", "c3a_",
        lambda d, k, block_size: {
            "kernel": (blocks("block_size", d, block_size), blocks("block_size", k, block_size), block_size)
        },
        size=lambda at: (at["kernel"][0] * at["kernel"][2], at["kernel"][1] * at["kernel"][2]),
        update=updates.c3a, settings={"block_size": 256},
    ),
    "SHIRA": Map(
        "SHiRA", "2406.13175", "shira_", lambda d, k, r: {"weight": (r * (d + k),)}, update=updates.shira,
        settings={"r": 32}, unused=("mask_type", "random_seed"),
    ),
    "IA3": Map(
        "(IA)^3", "2205.05638", "ia3_",
        lambda d, k, feedforward=False: {"l": (1, k) if feedforward else (d, 1)},
        weight=updates.ia3, unused=("feedforward_modules", "init_ia3_weights"), outputs=True,
    ),
    "OFT": Map(
        "OFT", "2306.07280", "oft_R.", oft_shapes, weight=updates.oft,
        settings={
            "r": 0, "oft_block_size": 32, "block_share": _BOTH, "coft": _BOTH, "eps": 6e-5,
            "use_cayley_neumann": (True, False), "num_cayley_neumann_terms": 5,
        },
        unused=("module_dropout",),
    ),
    "BOFT": Map(
        "BOFT", "2311.06243", "boft_", boft_shapes, weight=updates.boft,
        settings={"boft_block_size": 4, "boft_block_num": 0, "boft_n_butterfly_factor": 1},
        unused=("boft_dropout",),
    ),
    "ROAD": Map(
        "RoAd", "2409.00119", "road_",
        lambda d, k, variant, group_size: {
            name: (blocks("group_size", d, group_size) * group_size * int(variant[-1]) // 2,)
            for name in ("theta", "alpha")
        },
        weight=updates.road, settings={"variant": ("road_1", "road_2", "road_4"), "group_size": 64},
        outputs=True,
    ),
}  # fmt: skip


def map_of(raw: Mapping[str, Any]) -> Map | None:
    """The row of an adapter's config; None if there is none, or if it is a LoRA, which has its own reader."""
    kind = raw.get("peft_type")
    if kind == "LORA" or not isinstance(kind, str):
        return None
    return MAPS.get(f"{kind} {raw.get('init_weights')}") or MAPS.get(kind)
