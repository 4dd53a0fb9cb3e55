"""What happens inside a low-rank update while it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_np.autograd import Tensor, value
from lora_np.checks import Array, whole_number
from lora_np.linalg import column_space, reduced_rank_regression, svd_of_product
from lora_np.lora import LoRALinear
from lora_np.nn.tree import walk
from lora_np.training.fit import Fit, fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Dynamics:
    """Measured while `learning_dynamics` trained.

    Attributes
    ----------
    steps : ndarray of int, shape (m,)
        Steps already taken at each measurement.
    norms : dict of str to ndarray of shape (m,)
        Frobenius norms of ``"A"``, ``"B"``, ``"B A"`` (with its scale), ``"grad A"`` and ``"grad B"``.
    singular_values : ndarray of shape (m, r)
        Of ``(alpha/r) B A``.
    distances : dict of str to ndarray of shape (m,), or None
        From 0 to 1, how far ``"columns of B"`` and ``"rows of A"`` span from what the best update spans; None
        where the best update is not known.
    optimal : ndarray of shape (r,), or None
        Singular values of the best update.
    fit : Fit
        The run itself.
    """

    steps: Array
    norms: Mapping[str, Array]
    singular_values: Array
    distances: Mapping[str, Array] | None
    optimal: Array | None
    fit: Fit[Any]

    def plot(self) -> Figure:
        """Norms, singular values, and distances against steps."""
        from lora_np.plots import dynamics

        return dynamics(
            self.steps,
            norms=self.norms,
            singular_values=self.singular_values,
            distances=self.distances,
            optimal=self.optimal,
        )


def learning_dynamics(
    model: Any, x: Array, y: Array, *, layer: str = "", every: int = 1, **settings: Any
) -> Dynamics:
    """Train as `lora_np.fit` does, and measure one adapted layer on the way.

    Parameters
    ----------
    model : tree
    x, y : ndarray of shape (n, ...)
    layer : str
        The path of the `LoRALinear` to watch; by default the model itself.
    every : int
        Steps between measurements.
    **settings
        For `lora_np.fit`.

    Returns
    -------
    Dynamics

    Raises
    ------
    ValueError
        If there is no `LoRALinear` at ``layer``.

    Notes
    -----
    Where the model is a single layer on squared error, the distance to the best subspaces is measured too:
    the root mean square of the sines of the principal angles, which is 0 if B spans what the best B spans,
    and 1 if it is orthogonal to it. Singular values are learned one after the other, the large ones first.

    References
    ----------
    A. Saxe, J. McClelland, S. Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear
    neural networks", arXiv 1312.6120.

    Examples
    --------
    >>> from lora_np.lora import inject
    >>> from lora_np.nn import Linear
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(100, 4))
    >>> model = inject(Linear(np.zeros((3, 4))), rank=1, rng=rng)
    >>> y = x @ np.outer([0.0, 3.0, 4.0], [1.0, 0.0, 0.0, 0.0]).T
    >>> seen = learning_dynamics(model, x, y, steps=300, progress=False)
    >>> seen.singular_values[-1].round(2), seen.optimal.round(2)
    (array([5.]), array([5.]))
    >>> bool(seen.distances["columns of B"][-1] < 1e-3)
    True
    """
    every = whole_number("every", every)
    adapted = {path: node for path, node in walk(model) if isinstance(node, LoRALinear)}
    if layer not in adapted:
        raise ValueError(f"layer must be the path of a LoRALinear, got {layer!r}; there is {list(adapted)}")
    best = best_factors(model, x, y, settings)
    steps: list[int] = []
    rows: list[list[float]] = []
    spectra: list[Array] = []
    angles: list[tuple[float, float]] = []

    def watch(step: int, trained: Any) -> None:
        if step % every:
            return
        seen = dict(walk(trained))[layer]
        A, B = value(seen.A), value(seen.B)
        spectrum = seen.scale * svd_of_product(B, A).s
        gradients = [leaf.grad if isinstance(leaf, Tensor) else 0.0 for leaf in (seen.A, seen.B)]
        steps.append(step)
        rows.append([float(np.linalg.norm(a)) for a in (A, B, spectrum, *gradients)])
        spectra.append(spectrum)
        if best is not None:
            angles.append((distance(B, best[0]), distance(A.T, best[1].T)))

    trained = fit(model, x, y, watch=watch, **settings)
    names = ("A", "B", "B A", "grad A", "grad B")
    return Dynamics(
        steps=np.array(steps),
        norms=dict(zip(names, np.array(rows).T, strict=True)),
        singular_values=np.array(spectra),
        distances=None if best is None else dict(
            zip(("columns of B", "rows of A"), np.array(angles).T, strict=True)
        ),
        optimal=None if best is None else svd_of_product(*best).s,
        fit=trained,
    )  # fmt: skip


def best_factors(model: Any, x: Array, y: Array, settings: Mapping[str, Any]) -> tuple[Array, Array] | None:
    """The best B and A of the model's rank, where there is a closed form."""
    if not isinstance(model, LoRALinear) or isinstance(model.base.b, Tensor) or "loss" in settings:
        return None
    b = 0 if model.base.b is None else model.base.b
    rank = min(model.rank, *model.base.W.shape)
    return reduced_rank_regression(x, y - b, rank=rank, W0=value(model.base.W))


def distance(M: Array, best: Array) -> float:
    """Root mean square of the sines of the principal angles between two column spaces of one dimension.

    Directions that M lacks, such as all of them while B is zero, count as orthogonal.
    """
    Q = column_space(best)
    P = column_space(M) if M.any() else M[:, :0]
    return float(np.sqrt(max(0.0, 1 - np.square(P.T @ Q).sum() / Q.shape[1])))
