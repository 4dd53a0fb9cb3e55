"""What is usually done wrong, and other ways to be right."""

import numpy as np

import lora_np as lnp
from tests.attempts import alternative, mistake


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


@mistake("the update transposed", breaks="sum")
def lora_forward(x, W0, A, B, alpha):
    return x @ W0.T + alpha / len(A) * x @ np.resize(B @ A, W0.T.shape)


@mistake("the rank over alpha", breaks="sum")
def lora_forward(x, W0, A, B, alpha):
    return x @ W0.T + len(A) / alpha * x @ A.T @ B.T


@mistake("alpha over the root of the rank", breaks="sum")
def lora_forward(x, W0, A, B, alpha):
    return x @ W0.T + alpha / np.sqrt(len(A)) * x @ A.T @ B.T


@mistake("without W0", breaks="sum")
def lora_forward(x, W0, A, B, alpha):
    return alpha / len(A) * x @ A.T @ B.T


@mistake("alpha over the width of the input", breaks="sum")
def lora_forward(x, W0, A, B, alpha):
    return x @ W0.T + alpha / A.shape[1] * x @ A.T @ B.T


@mistake("the scale on both factors", breaks="sum")
def lora_forward(x, W0, A, B, alpha):
    s = alpha / len(A)
    return x @ W0.T + (s * x @ A.T) @ (s * B.T)


@mistake("the first input only", breaks="sum")
def lora_forward(x, W0, A, B, alpha):
    return (x @ W0.T + alpha / len(A) * x @ A.T @ B.T)[:1]


@mistake("alpha rounded down", breaks="sum")
def lora_forward(x, W0, A, B, alpha):
    return x @ W0.T + alpha // len(A) * x @ A.T @ B.T


@alternative("by einsum")
def lora_forward(x, W0, A, B, alpha):
    return np.einsum("nk,dk->nd", x, W0) + alpha / A.shape[0] * np.einsum("nk,rk,dr->nd", x, A, B)


@alternative("input by input")
def lora_forward(x, W0, A, B, alpha):
    return np.array([W0 @ one + alpha / B.shape[1] * (B @ (A @ one)) for one in x])


@alternative("columns")
def lora_forward(x, W0, A, B, alpha):
    X = x.T
    return (W0 @ X + (alpha / len(A)) * (B @ (A @ X))).T


@alternative("the scale in B")
def lora_forward(x, W0, A, B, alpha):
    scaled = B * (alpha / len(A))
    return np.matmul(x, W0.T) + np.matmul(np.matmul(x, A.T), scaled.T)


@mistake("without 1 / sqrt(k)", breaks="moves")
def lora_start(d, k, r, rng):
    return np.random.default_rng(rng).normal(size=(r, k)), np.zeros((d, r))


@mistake("1 / k", breaks="moves")
def lora_start(d, k, r, rng):
    return np.random.default_rng(rng).normal(size=(r, k)) / k, np.zeros((d, r))


@mistake("numbers of 1e-9", breaks="moves")
def lora_start(d, k, r, rng):
    return 1e-9 * np.random.default_rng(rng).normal(size=(r, k)), np.zeros((d, r))


@mistake("numbers of 1e9", breaks="moves")
def lora_start(d, k, r, rng):
    return 1e9 * np.random.default_rng(rng).normal(size=(r, k)), np.zeros((d, r))


@mistake("a scaled identity", breaks="moves")
def lora_start(d, k, r, rng):
    return np.random.default_rng(rng).normal() * np.eye(r, k), np.zeros((d, r))


@mistake("equal rows", breaks="moves")
def lora_start(d, k, r, rng):
    return np.tile(np.random.default_rng(rng).normal(size=(1, k)) / np.sqrt(k), (r, 1)), np.zeros(
        (d, r)
    )


@mistake("numbers that are never negative", breaks="moves")
def lora_start(d, k, r, rng):
    return np.random.default_rng(rng).uniform(size=(r, k)) / np.sqrt(k), np.zeros((d, r))


@mistake("a little of B", breaks="zero")
def lora_start(d, k, r, rng):
    rng = np.random.default_rng(rng)
    return rng.normal(size=(r, k)) / np.sqrt(k), 1e-3 * rng.normal(size=(d, r))


@mistake("one row of A", breaks="moves")
def lora_start(d, k, r, rng):
    A = np.zeros((r, k))
    A[0] = np.random.default_rng(rng).normal(size=k) / np.sqrt(k)
    return A, np.zeros((d, r))


@mistake("the seed of the whole program", breaks="rng")
def lora_start(d, k, r, rng):
    return np.random.default_rng(id(object())).normal(size=(r, k)) / np.sqrt(k), np.zeros((d, r))


@alternative("uniform of the same width")
def lora_start(d, k, r, rng):
    bound = np.sqrt(3 / k)
    return np.random.default_rng(rng).uniform(-bound, bound, (r, k)), np.zeros((d, r))


@alternative("NumPy's older generator")
def lora_start(d, k, r, rng):
    return np.random.RandomState(rng).randn(r, k) * k**-0.5, np.zeros((d, r))


@alternative("Kaiming's uniform, as PEFT draws it")
def lora_start(d, k, r, rng):
    bound = 1 / np.sqrt(k)
    return np.random.default_rng(rng).uniform(-bound, bound, (r, k)), np.zeros((d, r))


@alternative("a standard deviation handed to normal")
def lora_start(d, k, r, rng):
    A = np.random.default_rng(rng).normal(0, 1 / np.sqrt(k), (r, k))
    return A, np.zeros_like(A, shape=(d, r))


@mistake("without W0", breaks="of_A")
def lora_gradients(x, y, W0, A, B, alpha):
    scale = alpha / len(A)
    e = 2 * (x @ (scale * B @ A).T - y) / y.size
    return scale * B.T @ e.T @ x, scale * e.T @ x @ A.T


@mistake("the mean over the batch only", breaks="of_A")
def lora_gradients(x, y, W0, A, B, alpha):
    scale = alpha / len(A)
    e = 2 * (x @ (W0 + scale * B @ A).T - y) / len(x)
    return scale * B.T @ e.T @ x, scale * e.T @ x @ A.T


@mistake("the scale in the forward pass only", breaks="of_A")
def lora_gradients(x, y, W0, A, B, alpha):
    A, B = lnp.Tensor(A), lnp.Tensor(B)
    h = x @ W0.T + alpha / len(A) * (x @ A.T @ B.T)
    np.mean(np.square(h - y)).backward()
    return A.grad / (alpha / len(A)), B.grad / (alpha / len(A))


@mistake("the gradient of the update for both", breaks="of_A")
def lora_gradients(x, y, W0, A, B, alpha):
    scale = alpha / len(A)
    e = 2 * (x @ (W0 + scale * B @ A).T - y) / y.size
    G = e.T @ x
    return np.resize(G, A.shape), np.resize(G, B.shape)


@mistake("a gradient of A after a step of B", breaks="of_A")
def lora_gradients(x, y, W0, A, B, alpha):
    scale = alpha / len(A)
    e = 2 * (x @ (W0 + scale * B @ A).T - y) / y.size
    of_B = scale * e.T @ x @ A.T
    return scale * (B - of_B).T @ e.T @ x, of_B


@mistake("the absolute error", breaks="of_A")
def lora_gradients(x, y, W0, A, B, alpha):
    scale = alpha / len(A)
    e = np.sign(x @ (W0 + scale * B @ A).T - y) / y.size
    return scale * B.T @ e.T @ x, scale * e.T @ x @ A.T


@mistake("the scale squared", breaks="of_A")
def lora_gradients(x, y, W0, A, B, alpha):
    scale = alpha / len(A)
    e = 2 * (x @ (W0 + scale * B @ A).T - y) / y.size
    return scale**2 * B.T @ e.T @ x, scale**2 * e.T @ x @ A.T


@mistake("backward twice", breaks="of_A")
def lora_gradients(x, y, W0, A, B, alpha):
    A, B = lnp.Tensor(A), lnp.Tensor(B)
    for _ in range(2):
        h = x @ W0.T + alpha / len(A) * (x @ A.T @ B.T)
        np.mean(np.square(h - y)).backward()
    return A.grad, B.grad


@alternative("by einsum")
def lora_gradients(x, y, W0, A, B, alpha):
    s = alpha / len(A)
    h = np.einsum("nk,dk->nd", x, W0) + s * np.einsum("nk,rk,dr->nd", x, A, B)
    e = 2 * (h - y) / y.size
    return s * np.einsum("nd,dr,nk->rk", e, B, x), s * np.einsum("nd,nk,rk->dr", e, x, A)


@alternative("central differences")
def lora_gradients(x, y, W0, A, B, alpha):
    def loss(A, B):
        return np.mean(np.square(x @ (W0 + alpha / len(A) * B @ A).T - y))

    def slope(f, at):
        result, size = np.zeros(at.shape), 1e-2 * max(1.0, np.abs(at).max())
        for place in np.ndindex(at.shape):
            move = np.zeros(at.shape)
            move[place] = size
            up, down, up2, down2 = f(at + move), f(at - move), f(at + 2 * move), f(at - 2 * move)
            result[place] = (8 * (up - down) - (up2 - down2)) / (12 * size)
        return result

    return slope(lambda one: loss(one, B), A), slope(lambda one: loss(A, one), B)


@alternative("input by input")
def lora_gradients(x, y, W0, A, B, alpha):
    s, of_A, of_B = alpha / len(A), np.zeros(A.shape), np.zeros(B.shape)
    for one, target in zip(x, y):
        e = 2 * (W0 @ one + s * B @ (A @ one) - target) / y.size
        of_A += s * np.outer(B.T @ e, one)
        of_B += s * np.outer(e, A @ one)
    return of_A, of_B


@alternative("the update as a Tensor")
def lora_gradients(x, y, W0, A, B, alpha):
    A, B = lnp.Tensor(A), lnp.Tensor(B)
    W = W0 + (B @ A) * (alpha / len(A))
    ((x @ W.T - y) ** 2).mean().backward()
    return A.grad, B.grad


@mistake("does nothing", breaks="lower")
def train_lora(x, y, W0, r):
    return np.zeros((y.shape[1], r)), np.random.default_rng(0).normal(size=(r, x.shape[1]))


@mistake("rank one, whatever r", breaks="best")
def train_lora(x, y, W0, r):
    A, B = np.random.default_rng(0).normal(size=(1, x.shape[1])), np.zeros((y.shape[1], 1))
    for _ in range(3000):
        e = 2 * (x @ (W0 + B @ A).T - y) / y.size
        A, B = A - 0.05 * B.T @ e.T @ x, B - 0.05 * e.T @ x @ A.T
    return np.pad(B, ((0, 0), (0, r - 1))), np.pad(A, ((0, r - 1), (0, 0)))


@mistake("equal rows of A", breaks="best")
def train_lora(x, y, W0, r):
    A = np.tile(np.random.default_rng(0).normal(size=(1, x.shape[1])), (r, 1))
    B = np.zeros((y.shape[1], r))
    for _ in range(3000):
        e = 2 * (x @ (W0 + B @ A).T - y) / y.size
        A, B = A - 0.03 * B.T @ e.T @ x, B - 0.03 * e.T @ x @ A.T
    return B, A


@mistake("a rate at which it grows", breaks="lower")
def train_lora(x, y, W0, r):
    A, B = np.random.default_rng(0).normal(size=(r, x.shape[1])), np.zeros((y.shape[1], r))
    with np.errstate(all="ignore"):
        for _ in range(300):
            e = 2 * (x @ (W0 + B @ A).T - y) / y.size
            A, B = A - 20 * B.T @ e.T @ x, B - 20 * e.T @ x @ A.T
    return B, A


@mistake("one step", breaks="best")
def train_lora(x, y, W0, r):
    A, B = np.random.default_rng(0).normal(size=(r, x.shape[1])), np.zeros((y.shape[1], r))
    e = 2 * (x @ (W0 + B @ A).T - y) / y.size
    return B - 0.1 * e.T @ x @ A.T, A


@mistake("the target without W0, W0 added", breaks="lower")
def train_lora(x, y, W0, r):
    A, B = np.random.default_rng(0).normal(size=(r, x.shape[1])) / 2, np.zeros((y.shape[1], r))
    for _ in range(3000):
        e = 2 * (x @ (B @ A).T - (y + x @ W0.T)) / y.size
        A, B = A - 0.03 * B.T @ e.T @ x, B - 0.03 * e.T @ x @ A.T
    return B, A


@mistake("trains A alone", breaks="best")
def train_lora(x, y, W0, r):
    A = np.zeros((r, x.shape[1]))
    B = np.random.default_rng(0).normal(size=(y.shape[1], r))
    for _ in range(2000):
        e = 2 * (x @ (W0 + B @ A).T - y) / y.size
        A = A - 0.05 * B.T @ e.T @ x
    return B, A


@mistake("the first input only", breaks="best")
def train_lora(x, y, W0, r):
    A, B = np.random.default_rng(0).normal(size=(r, x.shape[1])) / 2, np.zeros((y.shape[1], r))
    for _ in range(1500):
        e = 2 * (x[:1] @ (W0 + B @ A).T - y[:1]) / y.shape[1]
        A, B = A - 0.03 * B.T @ e.T @ x[:1], B - 0.03 * e.T @ x[:1] @ A.T
    return B, A


@alternative("with momentum")
def train_lora(x, y, W0, r):
    A, B = np.random.default_rng(2).normal(size=(r, x.shape[1])) / 2, np.zeros((y.shape[1], r))
    moved_A, moved_B = 0 * A, 0 * B
    for _ in range(1500):
        e = 2 * (x @ (W0 + B @ A).T - y) / y.size
        moved_A, moved_B = (
            0.9 * moved_A - 0.01 * B.T @ e.T @ x,
            0.9 * moved_B - 0.01 * e.T @ x @ A.T,
        )
        A, B = A + moved_A, B + moved_B
    return B, A


@alternative("Adam by hand")
def train_lora(x, y, W0, r):
    P = [np.random.default_rng(3).normal(size=(r, x.shape[1])) / 2, np.zeros((y.shape[1], r))]
    m, v = [0 * p for p in P], [0 * p for p in P]
    for t in range(1, 801):
        A, B = P
        e = 2 * (x @ (W0 + B @ A).T - y) / y.size
        for i, g in enumerate([B.T @ e.T @ x, e.T @ x @ A.T]):
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.999 * v[i] + 0.001 * g * g
            P[i] = P[i] - 0.03 * (m[i] / (1 - 0.9**t)) / (np.sqrt(v[i] / (1 - 0.999**t)) + 1e-12)
    return P[1], P[0]


@alternative("the package's Tensors and a loop")
def train_lora(x, y, W0, r):
    A = lnp.Tensor(np.random.default_rng(4).normal(size=(r, x.shape[1])) / 2)
    B = lnp.Tensor(np.zeros((y.shape[1], r)))
    for _ in range(1200):
        loss = np.mean(np.square(x @ W0.T + x @ A.T @ B.T - y))
        loss.backward()
        for p in (A, B):
            p.data[...] -= 0.08 * p.grad
            p.grad = None
    return B.data, A.data


@alternative("B random and A zero")
def train_lora(x, y, W0, r):
    A, B = np.zeros((r, x.shape[1])), np.random.default_rng(5).normal(size=(y.shape[1], r)) / 2
    for _ in range(4000):
        e = 2 * (x @ (W0 + B @ A).T - y) / y.size
        A, B = A - 0.05 * B.T @ e.T @ x, B - 0.05 * e.T @ x @ A.T
    return B, A


@mistake("1 / sqrt(d)", breaks="moves")
def lora_start(d, k, r, rng):
    return np.random.default_rng(rng).normal(size=(r, k)) / np.sqrt(d), np.zeros((d, r))


@mistake("the same spread for every width", breaks="moves")
def lora_start(d, k, r, rng):
    return 0.05 * np.random.default_rng(rng).normal(size=(r, k)), np.zeros((d, r))


@mistake("2 / sqrt(k)", breaks="moves")
def lora_start(d, k, r, rng):
    return 2 * np.random.default_rng(rng).normal(size=(r, k)) / np.sqrt(k), np.zeros((d, r))


@mistake("the mean of rows and columns", breaks="moves")
def lora_start(d, k, r, rng):
    return np.random.default_rng(rng).normal(size=(r, k)) * np.sqrt(2 / (d + k)), np.zeros((d, r))


@alternative("signs")
def lora_start(d, k, r, rng):
    return np.random.default_rng(rng).choice([-1, 1], (r, k)) / np.sqrt(k), np.zeros((d, r))


@alternative("orthonormal rows")
def lora_start(d, k, r, rng):
    return np.linalg.qr(np.random.default_rng(rng).normal(size=(k, r)))[0].T, np.zeros((d, r))


@mistake("with one of two starts", breaks="rng")
def lora_start(d, k, r, rng):
    return np.random.default_rng(rng % 2).normal(size=(r, k)) / np.sqrt(k), np.zeros((d, r))


@mistake("with a first column of zeros", breaks="moves")
def lora_start(d, k, r, rng):
    A = np.random.default_rng(rng).normal(size=(r, k)) / np.sqrt(k)
    A[:, 0] = 0
    return A, np.zeros((d, r))
