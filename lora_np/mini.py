"""All of LoRA in NumPy: rank, derivatives, the layer, training, counting, and a file that PEFT
opens.

Read it from top to bottom; ``python -m lora_np.mini`` runs it. The package does the same faster,
and checks.
"""

import json
from pathlib import Path

import numpy as np


def rank(M):
    """How many directions a matrix has: its singular values that are more than rounding."""
    s = np.linalg.svd(M, compute_uv=False)
    return int(np.sum(s > s[0] * max(M.shape) * np.finfo(M.dtype).eps))


def best(M, r):
    """B (d, r) and A (r, k) with the smallest ||M - B A||: the SVD, cut after r directions
    (Eckart-Young).
    """
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return U[:, :r] * s[:r], Vh[:r]


class Tensor:
    """An array that remembers what it was computed from, so that derivatives can be traced back."""

    __array_ufunc__ = None  # so that array @ tensor is computed here and not by NumPy

    def __init__(self, value, *edges):
        self.value, self.grad = value, 0.0
        # An input, and the function from the gradient of this tensor to that input's. Arrays are
        # frozen.
        self.edges = [(source, back) for source, back in edges if isinstance(source, Tensor)]

    def __matmul__(self, other):
        a, b = array(self), array(other)
        return Tensor(a @ b, (self, lambda g: g @ b.T), (other, lambda g: a.T @ g))

    def __rmatmul__(self, other):
        return Tensor.__matmul__(other, self)

    def __add__(self, other):
        return Tensor(array(self) + array(other), (self, lambda g: g), (other, lambda g: g))

    def __radd__(self, other):
        return self + other

    def __mul__(self, number):
        return Tensor(self.value * number, (self, lambda g: g * number))

    @property
    def T(self):
        return Tensor(self.value.T, (self, lambda g: g.T))

    def mean_square(self):
        return Tensor(
            np.mean(self.value**2), (self, lambda g: g * 2 * self.value / self.value.size)
        )

    def backward(self, g=1.0):
        """Add to .grad the derivative along each path that leads here: the chain rule."""
        self.grad = self.grad + g
        for source, back in self.edges:
            source.backward(back(g))


def array(x):
    return x.value if isinstance(x, Tensor) else x


class LoRA:
    """h = W0 x + (alpha/r) B A x, with W0 (d, k) frozen, and B (d, r) and A (r, k) trained."""

    def __init__(self, W0, *, r, alpha, rng):
        d, k = W0.shape
        self.W0, self.r, self.alpha = W0, r, alpha
        # random: with both at zero, nothing ever moves
        self.A = Tensor(rng.normal(size=(r, k)) / np.sqrt(k))
        self.B = Tensor(np.zeros((d, r)))  # zero: training starts exactly at W0

    def __call__(self, x):  # one example a row, so each product is written transposed
        return x @ self.W0.T + x @ self.A.T @ self.B.T * (self.alpha / self.r)

    def delta(self):
        return self.alpha / self.r * self.B.value @ self.A.value


def train(layer, x, y, *, lr, steps):
    for _ in range(steps):
        layer.A.grad = layer.B.grad = 0.0
        (layer(x) + -y).mean_square().backward()
        for p in (layer.A, layer.B):
            p.value = p.value - lr * p.grad


def save(layer, folder, *, name):
    """adapter_config.json, and adapter_model.safetensors: a length, a header in JSON, the
    numbers.
    """
    header, numbers = {}, b""
    for factor, p in [("lora_A", layer.A), ("lora_B", layer.B)]:
        content = p.value.astype("<f4").tobytes()
        span = [len(numbers), len(numbers) + len(content)]
        entry = {"dtype": "F32", "shape": p.value.shape, "data_offsets": span}
        header[f"base_model.model.{name}.{factor}.weight"] = entry
        numbers += content
    text = json.dumps(header).encode()
    config = {
        "peft_type": "LORA",
        "r": layer.r,
        "lora_alpha": layer.alpha,
        "target_modules": [name],
    }
    Path(folder).mkdir(parents=True, exist_ok=True)
    Path(folder, "adapter_model.safetensors").write_bytes(
        len(text).to_bytes(8, "little") + text + numbers
    )
    Path(folder, "adapter_config.json").write_text(json.dumps(config))


if __name__ == "__main__":
    rng, d, k = np.random.default_rng(0), 100, 120
    W0, x, U, V = (rng.normal(size=shape) for shape in [(d, k), (400, k), (d, 4), (4, k)])
    # what the task asks for: four directions, each 0.6 times the last
    dW = U * 0.6 ** np.arange(4) @ V / 20
    print(
        f"The task: change a {d} x {k} matrix by one of rank {rank(dW)}. In full: {d * k:,}"
        " numbers."
    )
    for r in (1, 2, 4, 8, 20):
        layer, (B, A) = LoRA(W0, r=r, alpha=2 * r, rng=rng), best(dW, r)
        train(layer, x, x @ (W0 + dW).T, lr=3.0, steps=200)
        trained, ideal = (
            np.linalg.norm(dW - M) / np.linalg.norm(dW) for M in (layer.delta(), B @ A)
        )
        print(
            f"rank {r:2}: {r * (d + k):5,} numbers, {trained:7.2%} of dW missing, {ideal:7.2%} at"
            " best"
        )
