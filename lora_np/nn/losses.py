"""Compute losses and the accuracy from a model's output and the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lora_np.autograd import Operand, Tensor, primitive, value
from lora_np.checks import Array, numbers_below, plain, real


def mean_squared_error(prediction: Operand, target: Array) -> Operand:
    """Return the mean squared error ``mean((prediction - target)^2)`` over all entries.

    Parameters
    ----------
    prediction : Tensor or ndarray of shape (n, d)
        The model's output.
    target : ndarray of shape (n, d)
        The desired output.

    Returns
    -------
    Tensor or float
        The loss; a Tensor if the prediction is one.

    Raises
    ------
    ValueError
        If the shapes differ, because broadcasting would usually be a mistake.

    See Also
    --------
    lora_np.nn.cross_entropy : Compute a loss for classes.

    Examples
    --------
    >>> float(mean_squared_error(np.array([1.0, 2.0]), np.array([1.0, 4.0])))
    2.0
    """
    residual = residual_of(prediction, target)
    flat = residual.ravel("K")
    if flat.dtype == np.float16:  # sums of float16 would overflow beyond 65504
        flat = flat.astype(np.float32)
    # a dot product needs no array of squares; the residual is kept for the backward pass
    return flat.dot(flat) / flat.size, residual  # type: ignore[return-value]


def residual_of(prediction: Any, target: Any) -> Any:
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction and target differ in shape: {prediction.shape} and {target.shape}"
        )
    return prediction - target


def squared_gradients(
    residual: Array, prediction: Array, target: Array, *, wanted: tuple[bool, ...]
) -> Callable[[Array], tuple[Array, Array | None]]:
    def pull(g: Array) -> tuple[Array, Array | None]:
        gradient = residual
        gradient *= 2 * float(g) / gradient.size  # in place, because nothing else uses the residual
        return gradient, -gradient if wanted[1] else None

    return pull


# A primitive, because composed operations would create more arrays of the prediction's size.
mean_squared_error = primitive(
    mean_squared_error,
    joint=squared_gradients,
    keeps=True,
    composed=lambda prediction, target: np.mean(np.square(residual_of(prediction, target))),
)


def cross_entropy(logits: Operand, labels: Array) -> Operand:
    """Return the softmax cross-entropy ``mean(log sum exp(logits) - logits[label])`` in nats.

    Parameters
    ----------
    logits : Tensor or ndarray of shape (n, classes)
        Scores before softmax.
    labels : ndarray of int, shape (n,)
        Class numbers, ``0 <= label < classes``.

    Returns
    -------
    Tensor or float
        The loss; a Tensor if the logits are one.

    Raises
    ------
    ValueError
        If shapes do not fit, or a label is not a class.
    TypeError
        If labels are not integers.

    See Also
    --------
    mean_squared_error : Compute a loss for numbers.
    accuracy : Compute the share of right predictions.

    Examples
    --------
    >>> float(cross_entropy(np.zeros((1, 4)), np.array([2]))) == float(np.log(4))
    True
    """
    logits = operand("logits", logits)
    shape = logits.shape
    labels = numbers_below("labels", labels_of(shape, labels), shape[1])
    # a constant shift does not change the loss, and this one keeps exp from overflowing
    shifted = logits - value(logits).max(axis=1, keepdims=True)
    with np.errstate(under="ignore"):
        total = np.sum(np.exp(shifted), axis=1)
    loss: Operand = np.mean(np.log(total) - shifted[np.arange(shape[0]), labels])
    return loss


def accuracy(logits: Operand, labels: Array) -> float:
    """Return the accuracy, the share of rows whose largest logit belongs to the label.

    Parameters
    ----------
    logits : Tensor or ndarray of shape (n, classes)
        Scores.
    labels : ndarray of int, shape (n,)
        Class numbers.

    Returns
    -------
    float
        The share, from 0 to 1.

    Raises
    ------
    ValueError
        If shapes do not fit.

    Examples
    --------
    >>> accuracy(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1]))
    0.5
    """
    scores = value(operand("logits", logits))
    labels = real("labels", labels_of(scores.shape, labels))
    return float(np.mean(scores.argmax(axis=1) == labels))


def labels_of(shape: tuple[int, ...], labels: Array) -> Array:
    """Convert labels to an array, which must have one for each row of logits of this ``shape``."""
    labels = plain("labels", labels)
    if len(shape) != 2 or labels.shape != shape[:1]:
        raise ValueError(
            f"logits (n, classes) and labels (n,) must fit, got {shape} and {labels.shape}"
        )
    return labels


def operand(name: str, x: Operand) -> Operand:
    """Return a Tensor unchanged; convert anything else to an array of floats."""
    return x if isinstance(x, Tensor) else real(name, x)
