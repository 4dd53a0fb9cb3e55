"""Methods to train: rows of `lora_np.lora.VARIANTS`, the full update, and some that papers compare
with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import lora_np as lnp
from lora_np.checks import Array
from lora_np.lora import VARIANTS, LoRALinear, lora_plus

GRADIENT_STARTS = ("lora-ga", "lora-one")


def initialised(
    base: Any,
    rng: np.random.Generator,
    loss: Any,
    *,
    kind: str = "lora",
    rank: int = 8,
    **method: Any,
) -> Any:
    """The model that a method trains. ``loss`` of a model gives the first gradient, where a method starts
    from it.
    """
    targets = method.get("targets", "all-linear")
    if kind == "full":
        chosen = (
            {path for path, _ in lnp.nn.walk(base)}
            if targets == "all"
            else linear_paths(base, targets)
        )
        thaw = lambda path, W: (
            lnp.Tensor(W.copy()) if path.rpartition(".")[0] in chosen or targets == "all" else W
        )
        return lnp.replace(base, np.ndarray, lambda path, W: thaw(path.split(" = ")[0], W))
    settings = {"rank": rank, "alpha": method.get("alpha", rank), "targets": targets, "rng": rng}
    settings["dropout"] = method.get("dropout", 0.0)
    if kind in VARIANTS:
        if kind in GRADIENT_STARTS:
            settings["gradients"] = first_gradients(base, loss)
        return lnp.inject(base, variant=kind, **settings)
    plain = lnp.inject(base, **settings)
    return lnp.replace(plain, LoRALinear, lambda path, layer: OTHERS[kind](layer, rng))


def linear_paths(base: Any, targets: Any) -> set[str]:
    adapted = lnp.inject(base, rank=1, targets=targets, rng=0)
    return {path for path, node in lnp.nn.walk(adapted) if isinstance(node, LoRALinear)}


def optimizer(
    lr: Any,
    *,
    kind: str = "lora",
    ratio: float = 16.0,
    adam: bool = True,
    decay: float = 0.0,
    **_: Any,
) -> Any:
    """Adam, for a row of the table as that row wants it; or plain gradient descent."""
    adaptive = lnp.AdamW(lr=lr, weight_decay=decay) if decay else lnp.Adam(lr=lr)
    rule = adaptive if adam else lnp.SGD(lr=lr)
    return lora_plus(rule, ratio=ratio) if kind == "lora+" else rule


def first_gradients(base: Any, loss: Any) -> dict[str, Array]:
    """The gradient of the loss with respect to each W, by the path of its layer."""
    thawed = lnp.replace(base, np.ndarray, lambda path, W: lnp.Tensor(W))
    loss(thawed).backward()
    found = (
        (path, leaf.grad)
        for path, leaf in lnp.trainable(thawed)
        if path.split(" = ")[0].endswith("W")
    )
    return {
        path.split(" = ")[0].rpartition(".")[0]: grad for path, grad in found if grad is not None
    }


def zero_a(layer: LoRALinear, rng: np.random.Generator) -> LoRALinear:
    """A starts at zero, B at random, by the rule that A has otherwise."""
    A, B = lnp.value(layer.A), lnp.value(layer.B)
    drawn = lnp.lora.kaiming(rng, *B.shape).astype(B.dtype)
    return LoRALinear(layer.base, lnp.Tensor(np.zeros_like(A)), lnp.Tensor(drawn), layer.alpha)


def a_only(layer: LoRALinear, rng: np.random.Generator) -> LoRALinear:
    """B is drawn and stays; only A is trained, from zero."""
    drawn = zero_a(layer, rng)
    return LoRALinear(layer.base, drawn.A, lnp.value(drawn.B), layer.alpha)


def galore(layer: LoRALinear, rng: np.random.Generator) -> LoRALinear:
    """The frozen B is the projector: `projected` moves it, and W0 with it."""
    W, B = lnp.value(layer.base.W).copy(), np.zeros_like(lnp.value(layer.B))
    A = lnp.Tensor(np.zeros_like(lnp.value(layer.A)))
    return LoRALinear(lnp.Linear(W, layer.base.b), A, B, float(layer.rank))


def vera(layer: LoRALinear, rng: np.random.Generator) -> VeRA:
    """A and B are drawn and stay; two vectors are trained."""
    r, d = layer.A.shape[0], layer.base.d_out
    A, B = (
        lnp.lora.kaiming(rng, *shape).astype(layer.A.dtype) for shape in (layer.A.shape, (d, r))
    )
    inner = np.full(r, 0.1, A.dtype)  # the paper's start
    return VeRA(layer.base, A, B, lnp.Tensor(inner), lnp.Tensor(np.zeros(d, A.dtype)))


@dataclass(frozen=True, eq=False)
class VeRA:
    """``h = W0 x + diag(outer) B diag(inner) A x``, with the two vectors trained (arXiv
    2310.11454).
    """

    base: Any
    A: Array  # (r, k)
    B: Array  # (d, r)
    inner: Any  # (r,)
    outer: Any  # (d,)

    def __call__(self, x: Any, *, rng: np.random.Generator | None = None) -> Any:
        tensors = {"lambda_b": self.outer, "lambda_d": self.inner, "A": self.A, "B": self.B}
        B, A = lnp.lora.TUNERS["VERA"].lora(tensors, shape=self.base.W.shape)
        return self.base(x) + x @ A.T @ B.T


@dataclass(frozen=True, eq=False)
class Sparse:
    """``h = W0 x + S x`` where S has few entries, at random places, and all of them are trained."""

    base: Any
    values: Any  # (n,)  zero
    columns: Array  # (n,)
    rows: Array  # (n, d)  each with a single one

    def __call__(self, x: Any, *, rng: np.random.Generator | None = None) -> Any:
        return self.base(x) + (x[..., self.columns] * self.values) @ self.rows


def sparse(layer: LoRALinear, rng: np.random.Generator) -> Sparse:
    """As many entries as the layer has numbers in A and B; their matrix has nearly full rank."""
    d, k = layer.base.W.shape
    places = rng.choice(d * k, layer.rank * (d + k), replace=False)
    rows = np.eye(d, dtype=layer.A.dtype)[places // k]
    return Sparse(layer.base, lnp.Tensor(np.zeros(len(places), layer.A.dtype)), places % k, rows)


OTHERS = {"zero-a": zero_a, "a-only": a_only, "galore": galore, "vera": vera, "sparse": sparse}


def projected(step: int, model: Any, every: int, gradients: Any) -> None:
    """GaLore, for ``watch=``: every so often, W0 takes up B A and B becomes the gradient's top left
    vectors.

    Adam moves ``B^T G``, of r rows, and B brings the move back: a LoRA whose B is chosen by the
    gradient.
    """
    if step % every:
        return
    nodes = lnp.nn.walk(model)
    # B is an array here, since it is not trained
    layers: dict[str, Any] = {path: node for path, node in nodes if isinstance(node, LoRALinear)}
    for layer in layers.values():
        layer.base.W[...] += layer.B @ layer.A.data
        layer.A.data[...] = 0
    merged = lnp.merge(model)
    for path, G in first_gradients(merged, gradients).items():
        if path in layers:
            layer = layers[path]
            layer.B[...] = np.linalg.svd(G, full_matrices=False)[0][:, : layer.rank]
            layer.A.grad = layer.B.T @ G
