"""A Llama that learns, in one file: gradients, LoRA, the model, training, and text.

The model has read novels, one character a token. It stays as it is, and B and A beside
each of its linear layers learn another book. NumPy is all that this file needs.

    python mini_llama.py MODEL BOOK [PROMPT]
"""

import json
import sys
import time
from itertools import count
from pathlib import Path

import numpy as np


# Gradients: a tensor records how it was computed; the chain rule goes back from there.
class Tensor:
    """An array with edges: each is an input, and a function (our gradient -> its)."""

    clock, __array_ufunc__ = count(), None  # None: array + tensor asks the tensor

    def __init__(self, value, *edges):
        self.value, self.grad, self.order = np.asarray(value), 0.0, next(Tensor.clock)
        self.edges = [edge for edge in edges if isinstance(edge[0], Tensor)]

    def __add__(self, other):
        a, b = array(self), array(other)
        return Tensor(a + b, (self, lambda g: g), (other, lambda g: g))

    def __matmul__(self, other):
        a, b = array(self), array(other)
        return Tensor(a @ b, (self, lambda g: g @ b.T), (other, lambda g: a.T @ g))

    T = property(lambda self: Tensor(self.value.T, (self, lambda g: g.T)))
    __mul__ = lambda self, n: Tensor(self.value * n, (self, lambda g: g * n))
    __radd__ = __add__
    __rmatmul__ = lambda self, other: (self.T @ other.T).T  # A B is (B.T A.T).T

    def backward(self):
        """Visit each tensor once, the most recent first, and pass its gradient on."""
        found, new, grads = {self}, {self}, {self: np.ones_like(self.value)}
        while new:
            new = {source for tensor in new for source, _ in tensor.edges} - found
            found |= new
        for tensor in sorted(found, key=lambda one: -one.order):
            g = grads.pop(tensor)
            tensor.grad = tensor.grad + g
            for source, back in tensor.edges:
                grads[source] = grads.get(source, 0.0) + back(g)


def array(x):
    return x.value if isinstance(x, Tensor) else np.asarray(x)


# LoRA: the equation, and the step that trains it.
class LoRA:
    """h = W0 x + (alpha/r) B A x: W0 is frozen, A and B are trained."""

    def __init__(self, W0, *, r, alpha, rng):
        d, k = W0.shape
        self.W0, self.r, self.alpha = W0, r, alpha
        self.A = Tensor(np.float32(rng.normal(size=(r, k)) / np.sqrt(k)))  # moves B
        self.B = Tensor(np.zeros((d, r), "f4"))  # zero: training starts exactly at W0

    def __call__(self, x):  # (n, k) -> (n, d): a row is a token
        return x @ self.W0.T + x @ self.A.T @ self.B.T * (self.alpha / self.r)


def train(parameters, loss, *, lr, steps):
    for _ in range(steps):
        for p in parameters:
            p.grad = 0.0
        loss().backward()
        for p in parameters:
            p.value = p.value - lr * p.grad


# The operations of a Llama besides products, each with its gradient.
def gated(gate, up):
    """Return silu(gate) * up, where silu(a) = a p with p = 1 / (1 + exp(-a))."""
    a, b = array(gate), array(up)
    p = 1 / (1 + np.exp(-a))
    d_gate, d_up = b * p * (1 + a * (1 - p)), a * p
    return Tensor(a * p * b, (gate, lambda g: g * d_gate), (up, lambda g: g * d_up))


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def attention(q, k, v, *, n, width, theta):
    """Give each token a weighted mean of its value and the values of earlier tokens."""
    few = array(k).shape[1] // width  # heads of k and v, each shared by heads of q

    def heads(x):  # (texts * n, heads * width) -> (texts, few, heads / few, n, width)
        x = x.reshape(-1, n, few, x.shape[1] // few // width, width)
        return x.transpose(0, 2, 3, 1, 4)

    def rows(x, shared=False):  # undo heads; sum gradients of shared ones
        x = x.sum(axis=2, keepdims=True) if shared else x
        return x.transpose(0, 3, 1, 2, 4).reshape(len(x) * n, -1)

    Q, K, V = (heads(array(x)) for x in (q, k, v))
    Q, K = turned(Q, theta) * width**-0.5, turned(K, theta)
    later = np.triu(np.full((n, n), -np.inf, Q.dtype), k=1)  # hides later tokens
    to_q = lambda g: rows(turned(g @ K, theta, back=True)) * width**-0.5
    to_k = lambda g: rows(turned(g.mT @ Q, theta, back=True), shared=True)
    scores = Tensor(Q @ K.mT + later, (q, to_q), (k, to_k))
    P = softmax(scores.value)
    to_scores = lambda g: P * (g - np.sum(g * P, axis=-1, keepdims=True))
    weights, to_weights = Tensor(P, (scores, to_scores)), lambda g: heads(g) @ V.mT
    to_v = lambda g: rows(P.mT @ heads(g), shared=True)
    return Tensor(rows(P @ V), (weights, to_weights), (v, to_v))


def turned(x, theta, back=False):
    """Rotate entries i and i + half by angles proportional to the position."""
    n, half = x.shape[-2], x.shape[-1] // 2
    positions = np.arange(n) * (-1 if back else 1)
    angles = np.outer(positions, theta ** (-np.arange(half) / half))
    cos, sin = np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


# The model, read from files in Hugging Face's format.
def tensors(path):
    """Read the tensors of a safetensors file: a length, a JSON header, the numbers."""
    file, found = Path(path).read_bytes(), {}
    begin = 8 + int.from_bytes(file[:8], "little")
    for name, entry in json.loads(file[8:begin]).items():
        if name != "__metadata__":
            first, last = (begin + offset for offset in entry["data_offsets"])
            upper = np.frombuffer(file[first:last], "<u2").astype("<u4")  # bfloat16
            values = (upper << 16).view("<f4").reshape(entry["shape"])
            found[name.removesuffix(".weight")] = values
    return found


class Llama:
    """A Llama: it computes the logits of the next token at every position of texts."""

    def __init__(self, folder):
        read = lambda name: json.loads(Path(folder, name).read_bytes())
        self.config, tokenizer = read("config.json"), read("tokenizer.json")
        self.weights = tensors(Path(folder, "model.safetensors"))
        self.ids = tokenizer["model"]["vocab"]  # by character
        self.characters = {number: character for character, number in self.ids.items()}
        self.layers = {}  # a LoRA by the name of its linear layer

    def adapt(self, *, r, alpha, rng):
        """Put a LoRA beside each linear layer; return the trainable tensors."""
        for name, W in self.weights.items():
            if name.endswith("_proj"):
                self.layers[name] = LoRA(W, r=r, alpha=alpha, rng=rng)
        return [p for layer in self.layers.values() for p in (layer.A, layer.B)]

    def linear(self, x, name):
        return self.layers[name](x) if name in self.layers else x @ self.weights[name].T

    def __call__(self, ids):  # (texts, n) -> (texts * n, vocabulary)
        x = self.weights["model.embed_tokens"][ids.reshape(-1)]  # (texts * n, width)
        for layer in range(self.config["num_hidden_layers"]):
            name = f"model.layers.{layer}."
            h = self.norm(x, name + "input_layernorm")
            q, k, v = (self.linear(h, f"{name}self_attn.{one}_proj") for one in "qkv")
            width, theta = self.config["head_dim"], self.config["rope_theta"]
            h = attention(q, k, v, n=ids.shape[1], width=width, theta=theta)
            x = x + self.linear(h, name + "self_attn.o_proj")
            h = self.norm(x, name + "post_attention_layernorm")
            gate, up = (self.linear(h, f"{name}mlp.{w}_proj") for w in ("gate", "up"))
            x = x + self.linear(gated(gate, up), name + "mlp.down_proj")
        return self.norm(x, "model.norm") @ self.weights["model.embed_tokens"].T

    def norm(self, x, name):
        """Divide each row by its root mean square; multiply each column by a weight."""
        a, w = array(x), self.weights[name]
        size = np.sqrt(np.mean(a * a, -1, keepdims=True) + self.config["rms_norm_eps"])
        h = a / size
        back = lambda g: (g * w - h * np.mean(g * w * h, -1, keepdims=True)) / size
        return Tensor(h * w, (x, back))

    def loss(self, ids):
        """Return the mean negative log-probability of the next characters."""
        logits, targets = self(ids[:, :-1]), ids[:, 1:].reshape(-1)
        p, at = softmax(logits.value), (np.arange(len(targets)), targets)
        error = p - np.eye(len(p[0]), dtype=p.dtype)[targets]
        return Tensor(-np.mean(np.log(p[at])), (logits, lambda g: g * error / len(p)))

    def read(self, text):
        return np.array([self.ids[one] for one in text if one in self.ids])

    def write(self, text, *, tokens, temperature, rng):
        """Continue a text: draw a character, append it, and read all of it again."""
        ids = [*self.read(text)]
        for _ in range(tokens):
            seen = np.array([ids[-self.config["max_position_embeddings"] :]])
            logits = self(seen).value[-1].astype(float) / temperature
            ids.append(int(rng.choice(len(logits), p=softmax(logits))))
        return "".join(self.characters[number] for number in ids)


class Scaled:
    """A loss that divides each gradient by its root mean square after backward."""

    def __init__(self, loss, parameters):
        self.loss, self.parameters = loss, parameters

    def backward(self):
        self.loss.backward()
        for p in self.parameters:
            p.grad = p.grad / np.sqrt(np.mean(p.grad**2) + 1e-16)


def finetune(model, ids, parameters, *, steps, lr, rng, texts=8, n=64):
    """Train on pieces of a text, with a learning rate that falls to zero."""
    for step in range(steps):
        starts = rng.integers(len(ids) - n, size=texts)
        loss = model.loss(np.stack([ids[i : i + n + 1] for i in starts]))
        now, once = lr * (1 - step / steps), [Scaled(loss, parameters)]
        train(parameters, once.pop, lr=now, steps=1)
        yield loss.value.item()


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    folder, book, prompt = [*sys.argv[1:], "And the king "][:3]
    begun, model, draw = time.process_time(), Llama(folder), np.random.default_rng
    ids = model.read(Path(book).read_text(encoding="utf-8"))
    ids, held_out = np.split(ids, [len(ids) * 9 // 10])
    pages = np.lib.stride_tricks.sliding_window_view(held_out, 257)[::256, None]

    def show(name):
        text = model.write(prompt, tokens=200, temperature=0.5, rng=draw(3))
        loss = np.mean([model.loss(page).value for page in pages])
        print(f"{name}, loss {loss:.3f}:\n  {text}\n")

    show("Before")
    parameters = model.adapt(r=4, alpha=8, rng=draw(0))
    losses = finetune(model, ids, parameters, steps=300, lr=0.01, rng=draw(1))
    for step, loss in enumerate(losses, start=1):
        print(f"\rStep {step}, loss {loss:.2f}", end=" ", flush=True)
    show("\nAfter")
    trained = sum(p.value.size for p in parameters)
    print(f"{trained:,} parameters trained, {time.process_time() - begun:.0f} s of CPU")
