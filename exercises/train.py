"""What is usually done wrong, and other ways to be right."""

import numpy as np

import lora_np as lnp
from lora_np.grading import alternative, mistake


@mistake("no scale", breaks="sum")
def lora_forward(x, W0, A, B, alpha):
    return x @ W0.T + x @ A.T @ B.T


@mistake("alpha without the rank", breaks="sum")
def lora_forward(x, W0, A, B, alpha):
    return x @ W0.T + alpha * x @ A.T @ B.T


@mistake("scales all of it", breaks="sum")
def lora_forward(x, W0, A, B, alpha):
    return alpha / len(A) * x @ (W0 + B @ A).T


@mistake("no transposes", breaks="sum")
def lora_forward(x, W0, A, B, alpha):
    return x @ W0 + alpha / len(A) * x @ A @ B


@mistake("d for the rank", breaks="sum")
def lora_forward(x, W0, A, B, alpha):
    return x @ W0.T + alpha / len(B) * x @ A.T @ B.T


@mistake("both zero", breaks="moves")
def lora_start(d, k, r, rng):
    return np.zeros((r, k)), np.zeros((d, r))


@mistake("both random", breaks="zero")
def lora_start(d, k, r, rng):
    rng = np.random.default_rng(rng)
    return rng.normal(size=(r, k)), rng.normal(size=(d, r))


@mistake("all ones", breaks="moves")
def lora_start(d, k, r, rng):
    return np.ones((r, k)), np.zeros((d, r))


@mistake("other numbers each time", breaks="rng")
def lora_start(d, k, r, rng):
    return np.random.default_rng().normal(size=(r, k)), np.zeros((d, r))


@mistake("always the same numbers", breaks="rng")
def lora_start(d, k, r, rng):
    return np.random.default_rng(0).normal(size=(r, k)), np.zeros((d, r))


@mistake("shapes exchanged", breaks="zero")
def lora_start(d, k, r, rng):
    return np.random.default_rng(rng).normal(size=(d, r)), np.zeros((r, k))


@mistake("the sum in place of the mean", breaks="of_A")
def lora_gradients(x, y, W0, A, B, alpha):
    scale = alpha / len(A)
    e = 2 * (x @ (W0 + scale * B @ A).T - y)
    return scale * B.T @ e.T @ x, scale * e.T @ x @ A.T


@mistake("forgets the scale", breaks="of_A")
def lora_gradients(x, y, W0, A, B, alpha):
    e = 2 * (x @ (W0 + alpha / len(A) * B @ A).T - y) / y.size
    return B.T @ e.T @ x, e.T @ x @ A.T


@mistake("the two exchanged", breaks="of_A")
def lora_gradients(x, y, W0, A, B, alpha):
    scale = alpha / len(A)
    e = 2 * (x @ (W0 + scale * B @ A).T - y) / y.size
    return scale * e.T @ x @ A.T, scale * B.T @ e.T @ x


@mistake("the 2 of the square is missing", breaks="of_A")
def lora_gradients(x, y, W0, A, B, alpha):
    scale = alpha / len(A)
    e = (x @ (W0 + scale * B @ A).T - y) / y.size
    return scale * B.T @ e.T @ x, scale * e.T @ x @ A.T


@mistake("downhill in place of uphill", breaks="of_A")
def lora_gradients(x, y, W0, A, B, alpha):
    scale = alpha / len(A)
    e = 2 * (y - x @ (W0 + scale * B @ A).T) / y.size
    return scale * B.T @ e.T @ x, scale * e.T @ x @ A.T


@mistake("returns Tensors", breaks="of_A")
def lora_gradients(x, y, W0, A, B, alpha):
    return lnp.Tensor(A), lnp.Tensor(B)


@mistake("starts with zeros", breaks="lower")
def train_lora(x, y, W0, r):
    A, B = np.zeros((r, x.shape[1])), np.zeros((y.shape[1], r))
    for _ in range(500):
        e = 2 * (x @ (W0 + B @ A).T - y) / y.size
        A, B = A - 0.2 * B.T @ e.T @ x, B - 0.2 * e.T @ x @ A.T
    return B, A


@mistake("stops too early", breaks="best")
def train_lora(x, y, W0, r):
    A, B = np.random.default_rng(0).normal(size=(r, x.shape[1])), np.zeros((y.shape[1], r))
    for _ in range(10):
        e = 2 * (x @ (W0 + B @ A).T - y) / y.size
        A, B = A - 0.1 * B.T @ e.T @ x, B - 0.1 * e.T @ x @ A.T
    return B, A


@mistake("uphill", breaks="lower")
def train_lora(x, y, W0, r):
    A, B = np.random.default_rng(0).normal(size=(r, x.shape[1])), np.zeros((y.shape[1], r))
    for _ in range(5):
        e = 2 * (x @ (W0 + B @ A).T - y) / y.size
        A, B = A + 0.1 * B.T @ e.T @ x, B + 0.1 * e.T @ x @ A.T
    return B, A


@mistake("trains as if W0 were not there", breaks="best")
def train_lora(x, y, W0, r):
    A, B = np.random.default_rng(0).normal(size=(r, x.shape[1])) / 3, np.zeros((y.shape[1], r))
    for _ in range(2000):
        e = 2 * (x @ (B @ A).T - y) / y.size
        A, B = A - 0.1 * B.T @ e.T @ x, B - 0.1 * e.T @ x @ A.T
    return B, A


@mistake("trains B alone", breaks="best")
def train_lora(x, y, W0, r):
    A, B = np.random.default_rng(0).normal(size=(r, x.shape[1])), np.zeros((y.shape[1], r))
    for _ in range(1000):
        e = 2 * (x @ (W0 + B @ A).T - y) / y.size
        B = B - 0.1 * e.T @ x @ A.T
    return B, A


@mistake("the closed form", breaks="lower")
def train_lora(x, y, W0, r):
    return lnp.reduced_rank_regression(x, y, rank=r, W0=W0)


@mistake("alpha over two", breaks="sum")
def lora_forward(x, W0, A, B, alpha):
    return x @ W0.T + alpha / 2 * x @ A.T @ B.T


@mistake("alpha over two", breaks="of_A")
def lora_gradients(x, y, W0, A, B, alpha):
    scale = alpha / 2
    e = 2 * (x @ (W0 + scale * B @ A).T - y) / y.size
    return scale * B.T @ e.T @ x, scale * e.T @ x @ A.T


@alternative("merged")
def lora_forward(x, W0, A, B, alpha):
    return x @ (W0 + alpha / A.shape[0] * B @ A).T


@alternative("B random, A zero")
def lora_start(d, k, r, rng):
    return np.zeros((r, k)), np.random.default_rng(rng).uniform(-1, 1, (d, r))


@alternative("by hand")
def lora_gradients(x, y, W0, A, B, alpha):
    scale = alpha / len(A)
    e = 2 * (x @ (W0 + scale * B @ A).T - y) / y.size
    return scale * B.T @ e.T @ x, scale * e.T @ x @ A.T


@alternative("plain gradient descent")
def train_lora(x, y, W0, r):
    A, B = np.random.default_rng(1).normal(size=(r, x.shape[1])) / 2, np.zeros((y.shape[1], r))
    for _ in range(4000):
        e = 2 * (x @ (W0 + B @ A).T - y) / y.size
        A, B = A - 0.05 * B.T @ e.T @ x, B - 0.05 * e.T @ x @ A.T
    return B, A
