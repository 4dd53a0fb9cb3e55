"""Describe PEFT's tuners in one table, used to read, count, merge and convert adapters.

The parameters of a formula are tensors and settings by their names in PEFT; ``shape`` is ``(d,
k)``. Formulas use only NumPy's functions, so they also accept tensors of `lora_np.autograd`.
Source: PEFT 0.21.2, ``peft/tuners``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from math import inf, isqrt, prod
from typing import Any, TypeVar

from lora_np.checks import Array, number, shown, whole_number
from lora_np.lazy import numpy as np

Pair = tuple[Array, Array]  # B (d, R) and A (R, k)
Shape = tuple[int, ...]
Shapes = dict[str, Shape]
Result = TypeVar("Result")

# Settings that select modules, and settings that have no effect on the update of a saved adapter.
_SELECTING = (
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
    "modules_to_save", "bias", "fan_in_fan_out",
)  # fmt: skip
_UNUSED = frozenset((
    "beta1", "beta2", "d_initial", "deltaT", "eps", "feedforward_modules", "init_ia3_weights",
    "init_weights", "lora_dropout", "module_dropout", "orth_reg_weight", "projection_prng_key",
    "rank_dropout", "rank_dropout_scale", "save_projection", "target_r", "tfinal", "tinit",
    "total_step", "use_effective_conv2d", "vera_dropout",
))  # fmt: skip


@dataclass(frozen=True, eq=False)
class Tuner:
    """A row of `TUNERS`: the tensors that one of PEFT's tuners trains, and their update.

    It has either ``factors`` or ``weight``. Their parameters are tensors and settings by their
    names in the file, and perhaps ``W`` or its ``shape``.

    Parameters
    ----------
    name : str
        The name of the method, as its authors write it.
    paper : str
        The number of the paper on arXiv.
    prefix : str
        The prefix of its tensors' names in the file.
    shapes : callable
        A function from d, k and settings to the shapes of the trained tensors, by name.
    settings : mapping of str to float or bool
        The settings with PEFT's defaults.
    factors : callable, optional
        A function that returns the factors B (d, R) and A (R, k) of the update.
    weight : callable, optional
        A function of ``W`` that returns the new weight.
    size : callable, optional
        A function from the tensors' shapes by name to (d, k), if the shapes determine it.
    rank : str
        A formula for R in words; empty if the update has no such factors.
    directions : callable
        A function from d, k and settings to R.
    outputs : bool
        Whether the tuner scales the outputs, and so the bias too.

    Examples
    --------
    >>> import numpy as np
    >>> row = TUNERS["VERA"]
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
    settings: Mapping[str, float]
    factors: Callable[..., Pair] | None = None
    weight: Callable[..., Array] | None = None
    size: Callable[[Mapping[str, Shape]], tuple[int, int]] | None = None
    rank: str = ""
    directions: Callable[..., int] = field(default_factory=lambda: lambda r: r)
    outputs: bool = False

    def __reduce__(self) -> str | tuple[object, ...]:
        # Lambdas cannot be pickled, so a row of the table is pickled as its key.
        for key, row in TUNERS.items():
            if row is self:
                return row_of, (key,)
        return super().__reduce__()

    @property
    def formula(self) -> Callable[..., Pair | Array]:
        """The function ``weight`` or ``factors``, whichever this tuner has."""
        return self.weight or self.factors  # type: ignore[return-value]

    @cached_property
    def tensors(self) -> dict[str, bool]:
        """The names of the tensors, mapped to whether each is required."""
        others = (*self.settings, "W", "shape")
        parameters = signature(self.formula).parameters
        return {name: x.default is x.empty for name, x in parameters.items() if name not in others}

    def delta(
        self,
        tensors: Mapping[str, Array],
        *,
        W: Array | None = None,
        shape: Shape | None = None,
        **settings: float,
    ) -> Array:
        """Compute the update (d, k); pass the base weight or its shape if the formula needs it."""
        if self.weight is None:
            B, A = self.lora(tensors, shape=shape, **settings)
            return B @ A
        if W is None:
            raise ValueError(f"the update of {self.name} depends on the base weight: pass W")
        return self._call(self.weight, W=W, **settings, **tensors) - W

    def lora(
        self, tensors: Mapping[str, Array], *, shape: Shape | None = None, **settings: float
    ) -> Pair:
        """Compute ``B`` (d, R) and ``A`` (R, k), whose product is the update."""
        if self.factors is None:
            raise ValueError(f"{self.name} is not a LoRA: its update has no factors in closed form")
        return self._call(self.factors, shape=shape, **settings, **tensors)

    def trained(self, d: int, k: int, /, **settings: float) -> Shapes:
        """Return the shapes of the tensors trained for a (d, k) matrix, by name."""
        return self._call(self.shapes, d=d, k=k, **settings)

    def count(self, d: int, k: int, /, **settings: float) -> int:
        """Count the parameters trained for a (d, k) matrix."""
        return sum(map(prod, self.trained(d, k, **settings).values()))

    def count_directions(self, d: int, k: int, /, **settings: float) -> int:
        """Return R, the number of columns of B and rows of A."""
        return self._call(self.directions, d=d, k=k, **settings)

    def _call(
        self, formula: Callable[..., Result], **values: Array | float | Shape | None
    ) -> Result:
        """Call ``formula`` with the values and default settings that are among its parameters."""
        known = {**self.settings, **values}
        return formula(
            **{name: known[name] for name in signature(formula).parameters if name in known}
        )

    def settings_by_module(self, raw: Mapping[str, Any]) -> Callable[[str], dict[str, float]]:
        """Return a function that maps a module's path to its settings; reject unknown settings."""
        from lora_np.models import Patterns, peft

        general, patterns = dict(self.settings), {}
        if "init_r" in self.settings:  # AdaLoRA's rank_pattern has a boolean per direction
            left = {
                f"^{re.escape(path.removesuffix('.lora_E'))}": sum(kept)
                for path, kept in (raw.get("rank_pattern") or {}).items()
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
            names = raw.get("feedforward_modules") or []
            ends = [f"^{names}"] if isinstance(names, str) else [f".*{re.escape(x)}" for x in names]
            patterns["feedforward"] = Patterns(dict.fromkeys(ends, True), "feedforward_modules")
        return lambda name: (
            general | {key: pattern.get(name, general[key]) for key, pattern in patterns.items()}
        )

    def _checked(self, key: str, given: Any) -> float:
        """Validate the type and range of a setting, and return it."""
        default = self.settings[key]
        if isinstance(default, bool):
            if given not in (True, False):
                raise ValueError(f"{key} must be true or false, got {shown(given)}")
            return bool(given)
        if isinstance(default, int):
            return whole_number(key, given, minimum=min(default, key == "r"))
        return number(key, given, minimum=-inf)


def row_of(key: str) -> Tuner:
    return TUNERS[key]


def lora_factors(A: Array, B: Array, *, lora_alpha: float) -> Pair:
    """Return the factors of LoRA's update, ``dW = (alpha/r) B A``."""
    return lora_alpha / len(A) * B, A


def dora(W: Array, A: Array, B: Array, magnitude_vector: Array, *, lora_alpha: float) -> Array:
    """Return DoRA's weight, ``W' = m V / ||V||`` row by row, with ``V = W + (alpha/r) B A``."""
    V = W + lora_alpha / len(A) * (B @ A)
    W1: Array = (magnitude_vector / np.linalg.norm(V, axis=1))[:, None] * V
    return W1


def adalora_factors(A: Array, E: Array, B: Array, *, lora_alpha: float, init_r: int) -> Pair:
    """Return the factors of AdaLoRA's update, ``dW = (alpha/r) B diag(E) A``.

    Here r is the rank before pruning.
    """
    scale = lora_alpha if lora_alpha > 0 else len(A)
    return B * E.T * (scale / (init_r + 1e-5)), A


def loha_factors(w1_a: Array, w1_b: Array, w2_a: Array, w2_b: Array, *, alpha: float) -> Pair:
    """Return the factors of LoHa's update, ``dW = (alpha/r) (w1_a w1_b) * (w2_a w2_b)``.

    The product ``*`` is entry by entry. The factors are the products of all pairs of columns, and
    of all pairs of rows, so the rank is r^2.
    """
    B = (w1_a[:, :, None] * w2_a[:, None, :]).reshape(len(w1_a), -1)
    A = (w1_b[:, None, :] * w2_b[None, :, :]).reshape(-1, w1_b.shape[1])
    return alpha / len(w1_b) * B, A


def lokr_factors(
    w1: Array,
    w2: Array | None = None,
    w2_a: Array | None = None,
    w2_b: Array | None = None,
    *,
    alpha: float,
    r: int,
) -> Pair:
    """Return the factors of LoKr's update, the Kronecker product ``dW = (alpha/r) w1 (x) w2``.

    w2 is a matrix or the product ``w2_a w2_b``. The factors follow from
    ``(B1 A1) (x) (B2 A2) = (B1 (x) B2) (A1 (x) A2)``.
    """
    (B1, A1), (B2, A2) = thin(w1), (w2_a, w2_b) if w2 is None else thin(w2)
    return alpha / r * np.kron(B1, B2), np.kron(A1, A2)


def thin(M: Array) -> Pair:
    """Write a matrix as a product with an identity matrix of its smaller size."""
    d, k = M.shape
    return (M, np.eye(k, dtype=M.dtype)) if k < d else (np.eye(d, dtype=M.dtype), M)


def lokr_shapes(d: int, k: int, *, r: int, decompose_factor: int) -> Shapes:
    (d1, d2), (k1, k2) = split(d, decompose_factor), split(k, decompose_factor)
    if r >= max(d2, k2) / 2:
        return {"w1": (d1, k1), "w2": (d2, k2)}
    return {"w1": (d1, k1), "w2_a": (d2, r), "w2_b": (r, k2)}


def split(n: int, factor: int) -> tuple[int, int]:
    """Return two numbers with product n, as LoKr does; one is ``factor`` if that divides n."""
    if factor > 0 and n % factor == 0:
        return factor, n // factor
    most = isqrt(n) if factor < 0 else max(1, min(factor, isqrt(n)))
    small = next(m for m in range(most, 0, -1) if n % m == 0)
    return small, n // small


def lokr_size(shapes: Mapping[str, Shape]) -> tuple[int, int]:
    a, b = (shapes.get("w2", shapes.get(f"w2_{end}", (0, 0))) for end in "ab")
    return shapes["w1"][0] * a[0], shapes["w1"][1] * b[1]


def lokr_directions(d: int, k: int, *, r: int, decompose_factor: int) -> int:
    shapes = lokr_shapes(d, k, r=r, decompose_factor=decompose_factor)
    return min(shapes["w1"]) * min(shapes.get("w2") or shapes["w2_b"][:1])


def vera_factors(lambda_b: Array, lambda_d: Array, A: Array, B: Array, *, shape: Shape) -> Pair:
    """Return the factors of VeRA's update, ``dW = diag(b) B diag(d) A``.

    All modules share slices of random A and B.
    """
    d, k = shape
    return lambda_b[:, None] * B[:d], lambda_d[:, None] * A[:, :k]


def ia3(W: Array, l: Array) -> Array:
    """Return the weight of (IA)^3, ``W' = diag(l) W``, or ``W diag(l)`` in a feed-forward module.

    Accordingly, l is a column or a row.
    """
    return l * W


def oft(
    W: Array, weight: Array, *, use_cayley_neumann: bool, num_cayley_neumann_terms: int
) -> Array:
    """Return OFT's weight, ``W' = W R^T`` with a block-diagonal, orthogonal R.

    R is ``(I - Q) (I + Q)^-1`` for a skew-symmetric Q. By default, PEFT uses a truncated series for
    the inverse of this R instead, ``(I + Q) (I - Q)^-1``.
    """
    Q = skew(weight)
    I = np.eye(Q.shape[-1], dtype=Q.dtype)
    R = cayley(Q, num_cayley_neumann_terms) if use_cayley_neumann else np.linalg.solve(I + Q, I - Q)
    # R has shape (n, b, b), or (1, b, b) if all n pieces share a block.
    pieces = W.reshape(len(W), -1, len(I)).swapaxes(0, 1)
    return (pieces @ R.swapaxes(-1, -2)).swapaxes(0, 1).reshape(W.shape)


def oft_shapes(k: int, *, r: int, oft_block_size: int) -> Shapes:
    given = r or oft_block_size
    divisors = [n for n in range(1, k + 1) if k % n == 0]
    # as in PEFT's adjust_oft_parameters: the closest divisor, the smaller one of two
    own = min(divisors, key=lambda n: (abs(n - given), n)) if given < k else k
    b = k // own if r else own
    return {"weight": (k // b, b * (b - 1) // 2)}


def skew(upper: Array) -> Array:
    """Build skew-symmetric matrices (..., b, b) from their entries above the diagonal."""
    n = upper.shape[-1]
    b = (1 + isqrt(1 + 8 * n)) // 2
    place = np.zeros((b, b), np.int64)
    place[np.triu_indices(b, 1)] = np.arange(1, n + 1)
    zero = np.zeros((*upper.shape[:-1], 1), upper.dtype)
    half: Array = np.concatenate([zero, upper], axis=-1)[..., place]
    return half - half.swapaxes(-1, -2)


def cayley(Q: Array, terms: int) -> Array:
    """Approximate ``(I + Q) (I - Q)^-1`` by PEFT's truncated series ``I + 2 Q + 2 Q^2 + ...``."""
    coefficients = [2] * (max(terms, 4) - 2) + [1] if terms > 2 else [2] * (terms - 1)
    R = power = np.eye(Q.shape[-1], dtype=Q.dtype)
    for coefficient in coefficients:
        power = power @ Q
        R = R + coefficient * power
    return R


def size_of_pair(shapes: Mapping[str, Shape]) -> tuple[int, int]:
    return shapes["B"][0], shapes["A"][1]


# A key is PEFT's peft_type; if a setting selects the tuner, the setting's name follows.
TUNERS: dict[str, Tuner] = {
    "LORA": Tuner(
        "LoRA", "2106.09685", "lora_", lambda d, k, r: {"A": (r, k), "B": (d, r)},
        {"r": 8, "lora_alpha": 8.0}, lora_factors, size=size_of_pair, rank="r",
    ),
    "LORA use_dora": Tuner(
        "DoRA", "2402.09353", "lora_",
        lambda d, k, r: {"A": (r, k), "B": (d, r), "magnitude_vector": (d,)},
        {"r": 8, "lora_alpha": 8.0}, weight=dora,
    ),
    "ADALORA": Tuner(
        "AdaLoRA", "2303.10512", "lora_", lambda d, k, r: {"A": (r, k), "E": (r, 1), "B": (d, r)},
        {"init_r": 12, "r": 12, "lora_alpha": 8.0}, adalora_factors, size=size_of_pair, rank="r",
    ),
    "LOHA": Tuner(
        "LoHa", "2108.06098", "hada_",
        lambda d, k, r: {"w1_a": (d, r), "w1_b": (r, k), "w2_a": (d, r), "w2_b": (r, k)},
        {"r": 8, "alpha": 8.0}, loha_factors,
        size=lambda shapes: (shapes["w1_a"][0], shapes["w1_b"][1]),
        rank="r^2", directions=lambda r: r * r,
    ),
    "LOKR": Tuner(
        "LoKr", "2309.14859", "lokr_", lokr_shapes,
        {"r": 8, "alpha": 8.0, "decompose_factor": -1},
        lokr_factors, size=lokr_size, rank="rank(w1) rank(w2)", directions=lokr_directions,
    ),
    "VERA": Tuner(
        "VeRA", "2310.11454", "vera_", lambda d, r: {"lambda_b": (d,), "lambda_d": (r,)},
        {"r": 256}, vera_factors, rank="r",
    ),
    "IA3": Tuner(
        "(IA)^3", "2205.05638", "ia3_",
        lambda d, k, feedforward: {"l": (1, k) if feedforward else (d, 1)},
        {"feedforward": False}, weight=ia3, outputs=True,
    ),
    "OFT": Tuner(
        "OFT", "2306.07280", "oft_R.", oft_shapes,
        {"r": 0, "oft_block_size": 32, "use_cayley_neumann": True, "num_cayley_neumann_terms": 5},
        weight=oft,
    ),
}  # fmt: skip


def selecting(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the config of any tuner to the config of a LoRA on the same modules.

    Parameters
    ----------
    raw : mapping of str to object
        The fields of ``adapter_config.json``.

    Returns
    -------
    dict
        The fields of the LoRA's config, without a rank.

    Examples
    --------
    >>> selecting({"peft_type": "LOHA", "r": 8, "target_modules": ["q_proj"], "bias": "none"})
    {'target_modules': ['q_proj'], 'bias': 'none', 'peft_type': 'LORA'}
    """
    config = {key: raw[key] for key in _SELECTING if key in raw}
    if str(raw.get("bias")).endswith("_only"):
        config["bias"] = "lora_only"
    return {**config, "peft_type": "LORA"}


def tuner_of(raw: Mapping[str, Any]) -> Tuner | None:
    """Return the row of `TUNERS` for a config, or None for a LoRA.

    Parameters
    ----------
    raw : mapping of str to object
        The fields of ``adapter_config.json``.

    Returns
    -------
    Tuner or None
        The row of the tuner; None for a LoRA.

    Raises
    ------
    ValueError
        If the tuner is not supported; the message lists the supported ones.

    Examples
    --------
    >>> tuner_of({"peft_type": "LOHA"}).name
    'LoHa'
    >>> tuner_of({"peft_type": "BOFT"})
    Traceback (most recent call last):
        ...
    ValueError: peft_type = 'BOFT' is not supported, only LORA, ADALORA, LOHA, LOKR, VERA, IA3, OFT
    """
    kind = raw.get("peft_type")
    if kind in ("LORA", None):
        return None
    names = [name for name in TUNERS if " " not in name]
    if "PROMPT" in str(kind) or kind in ("P_TUNING", "PREFIX_TUNING"):
        raise ValueError(f"peft_type = {shown(kind)} trains tokens before the input, no weights")
    if kind not in names:
        raise ValueError(f"peft_type = {shown(kind)} is not supported, only {', '.join(names)}")
    return TUNERS[kind]
