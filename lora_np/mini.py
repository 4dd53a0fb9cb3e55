"""All of LoRA in NumPy: h = W0 x + (alpha/r) B A x. Run it: python -m lora_np.mini

W0 (d, k) is frozen. B (d, r) and A (r, k), r (d + k) parameters, learn its change.
"""

import json
import tempfile
from itertools import count
from pathlib import Path

import numpy as np


class LoRA:
    """h = W0 x + (alpha/r) B A x: W0 is frozen, A and B are trained."""

    def __init__(self, W0, *, r, alpha, rng):
        d, k = W0.shape
        self.W0, self.r, self.alpha = W0, r, alpha
        self.A = Tensor(rng.normal(size=(r, k)) / np.sqrt(k))  # (r, k) random: moves B
        self.B = Tensor(np.zeros((d, r)))  # (d, r) zero: training starts exactly at W0

    def __call__(self, x):  # (n, k) -> (n, d): a row is an example
        return x @ self.W0.T + x @ self.A.T @ self.B.T * (self.alpha / self.r)

    def delta(self):  # (d, k); the new matrix is W0 + delta()
        return self.alpha / self.r * self.B.value @ self.A.value


class Tensor:
    """An array that records how and when it was computed, so gradients can go back."""

    clock, __array_ufunc__ = count(), None  # None: array + tensor asks the tensor

    def __init__(self, value, *edges):  # edge: an input, our gradient -> the input's
        self.value, self.grad, self.order = np.asarray(value), 0.0, next(Tensor.clock)
        self.edges = [edge for edge in edges if isinstance(edge[0], Tensor)]

    def __add__(self, other):
        a, b = array(self), array(other)
        return Tensor(a + b, (self, lambda g: g), (other, lambda g: g))

    def __mul__(self, other):
        a, b = array(self), array(other)
        return Tensor(a * b, (self, lambda g: g * b), (other, lambda g: g * a))

    def __matmul__(self, other):
        a, b = array(self), array(other)  # (n, k) and (k, m)
        return Tensor(a @ b, (self, lambda g: g @ b.T), (other, lambda g: a.T @ g))

    T = property(lambda self: Tensor(self.value.T, (self, lambda g: g.T)))
    __radd__, __rmul__ = __add__, __mul__
    __rmatmul__ = lambda self, other: (self.T @ other.T).T  # A B is (B.T A.T).T
    __truediv__ = lambda self, number: self * (1 / number)
    __neg__ = lambda self: self * -1.0
    __sub__ = lambda self, other: self + -other
    __rsub__ = lambda self, other: -self + other
    __repr__ = lambda self: f"Tensor({self.value})"

    def mean_square(self):
        a = self.value
        return Tensor(np.mean(a * a), (self, lambda g: g * 2 * a / a.size))

    def history(self):
        """List this tensor and all that it was computed from, in order of creation."""
        found, new = {self}, {self}
        while new:
            new = {source for tensor in new for source, _ in tensor.edges} - found
            found |= new
        return sorted(found, key=lambda one: one.order)

    def backward(self):
        """Apply the chain rule to each tensor once, after all tensors that used it."""
        made, grads = self.history(), {self: np.ones_like(self.value)}
        while grads:
            tensor = made.pop()
            g = grads.pop(tensor)
            tensor.grad = tensor.grad + g
            for source, back in tensor.edges:
                part, shape = back(g), source.value.shape
                # a row added to n rows is used n times: its gradients add up
                part = part.sum(axis=tuple(range(part.ndim - len(shape))))  # new axes
                ones = tuple(i for i, n in enumerate(shape) if n == 1)  # stretched axes
                grads[source] = grads.get(source, 0.0) + part.sum(ones, keepdims=True)


def array(x):
    return x.value if isinstance(x, Tensor) else np.asarray(x)


def train(parameters, loss, *, lr, steps):  # loss() is a tensor of one number
    for _ in range(steps):
        for p in parameters:
            p.grad = 0.0
        loss().backward()
        for p in parameters:
            p.value = p.value - lr * p.grad


def rank(M):
    """Count the singular values that are more than rounding errors."""
    s = np.linalg.svd(np.asarray(M, float), compute_uv=False)
    return int(np.sum(s > s[0] * max(M.shape) * np.finfo(float).eps))


def best(M, r):
    """Return B (d, r), A (r, k) with the least ||M - B A||: the truncated SVD."""
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return U[:, :r] * s[:r], Vh[:r]


def save(layers, folder):  # layers: a LoRA by the name of its module
    """Write PEFT's two files: a config, and tensors as length, header and numbers."""
    header, numbers = {}, b""
    for name, layer in layers.items():
        for part, p in [("lora_A", layer.A), ("lora_B", layer.B)]:
            begin, numbers = len(numbers), numbers + p.value.astype("<f4").tobytes()
            span, key = [begin, len(numbers)], f"base_model.model.{name}.{part}.weight"
            header[key] = {"dtype": "F32", "shape": p.value.shape, "data_offsets": span}
    head = json.dumps(header).encode()
    file = len(head).to_bytes(8, "little") + head + numbers
    config = {"peft_type": "LORA", "r": layer.r, "lora_alpha": layer.alpha}
    Path(folder).mkdir(parents=True, exist_ok=True)
    Path(folder, "adapter_model.safetensors").write_bytes(file)
    text = json.dumps({**config, "target_modules": list(layers)})
    Path(folder, "adapter_config.json").write_text(text, "utf-8")


def load(folder):
    """Read A (r, k), B (d, r) and alpha of the one layer that `save` has written."""
    config = json.loads(Path(folder, "adapter_config.json").read_bytes())
    file = Path(folder, "adapter_model.safetensors").read_bytes()
    begin, factors = 8 + int.from_bytes(file[:8], "little"), []
    for entry in json.loads(file[8:begin]).values():
        first, last = (begin + offset for offset in entry["data_offsets"])
        factors.append(np.frombuffer(file[first:last], "<f4").reshape(entry["shape"]))
    return *factors, config["lora_alpha"]


if __name__ == "__main__":
    rng, norm, d, k, few = np.random.default_rng(0), np.linalg.norm, 100, 120, 4
    W0, x, U, V = (rng.normal(size=s) for s in ((d, k), (400, k), (d, few), (few, k)))
    dW = U * 0.6 ** np.arange(few) @ V / 20  # few directions, each 0.6 times the last
    most = (d * k - 1) // (d + k)
    print(f"Task of rank {rank(dW)}: {d * k:,} parameters. LoRA: fewer to rank {most}.")
    loss = lambda: (layer(x) - x @ (W0 + dW).T).mean_square()
    for r in (1, 2, 4, 8, 20):
        layer, (B, A) = LoRA(W0, r=r, alpha=2 * r, rng=rng), best(dW, r)
        train([layer.A, layer.B], loss, lr=3.0, steps=200)
        trained, ideal = (norm(dW - M) / norm(dW) for M in (layer.delta(), B @ A))
        parameters = r * (d + k)
        counted = f"rank {r:2}: {parameters:5,} parameters"
        print(f"{counted}, {trained:7.2%} of dW missing, {ideal:7.2%} at best")
    with tempfile.TemporaryDirectory() as folder:
        save({"layers.0": layer}, folder)
        A, B, alpha = load(folder)
    merged = W0 + alpha / len(A) * B @ A
    print("Same after a file:", np.allclose(x @ merged.T, layer(x).value, atol=1e-4))
    B, A = best(alpha / len(A) * B @ A, few)
    print(f"Truncated to rank {few}: {norm(dW - B @ A) / norm(dW):.2%} of dW missing")
