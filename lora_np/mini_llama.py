"""A Llama in NumPy, with LoRA: every linear layer is h = W x + (alpha/r) B A x.

It reads a model and an adapter from folders as Hugging Face lays them out, and writes
text, one character a token: ``python -m lora_np.mini_llama MODEL ADAPTER``. The package
does the same faster, and for many families.
"""

import json
import sys
from pathlib import Path

import numpy as np


def tensors(path):
    """Every tensor of a safetensors file: a length, a header in JSON, the numbers."""
    file = Path(path).read_bytes()
    start = 8 + int.from_bytes(file[:8], "little")
    header, found = json.loads(file[8:start]), {}
    header.pop("__metadata__", None)
    for name, entry in header.items():
        first, last = (start + offset for offset in entry["data_offsets"])
        if entry["dtype"] == "BF16":  # the upper half of a float32
            upper = np.frombuffer(file[first:last], "<u2").astype("<u4")
            values = (upper << 16).view("<f4")
        else:
            values = np.frombuffer(file[first:last], "<f4")
        found[name] = values.reshape(entry["shape"])
    return found


class Llama:
    """The logits of the next token, for every position of a sequence of tokens."""

    def __init__(self, folder):
        self.config = json.loads(Path(folder, "config.json").read_text())
        self.weights = tensors(Path(folder, "model.safetensors"))
        tokenizer = json.loads(Path(folder, "tokenizer.json").read_text())
        self.ids = tokenizer["model"]["vocab"]  # of each character
        self.characters = {number: character for character, number in self.ids.items()}
        self.adapter, self.scale = {}, 0.0

    def adapted(self, folder):
        """Read an adapter: factors A (r, k) and B (d, r) of some of the linear layers."""
        config = json.loads(Path(folder, "adapter_config.json").read_text())
        self.scale = config["lora_alpha"] / config["r"]
        self.adapter = tensors(Path(folder, "adapter_model.safetensors"))
        return self

    def linear(self, x, name):
        """H = W x + (alpha/r) B A x: (n, k) -> (n, d), one token a row."""
        h = x @ self.weights[f"{name}.weight"].T
        factor = f"base_model.model.{name}.lora_{{}}.weight".format
        if factor("A") in self.adapter:
            A, B = self.adapter[factor("A")], self.adapter[factor("B")]
            h = h + x @ A.T @ B.T * self.scale
        return h

    def norm(self, x, name):
        """RMSNorm: rows of mean square one, times a weight for each entry."""
        square = np.mean(x * x, axis=-1, keepdims=True)
        return x / np.sqrt(square + self.config["rms_norm_eps"]) * self.weights[f"{name}.weight"]

    def __call__(self, ids):  # n tokens -> (n, vocabulary)
        x = self.weights["model.embed_tokens.weight"][ids]  # (n, width)
        for layer in range(self.config["num_hidden_layers"]):
            name = f"model.layers.{layer}"
            x = x + self.attention(self.norm(x, f"{name}.input_layernorm"), f"{name}.self_attn")
            x = x + self.mlp(self.norm(x, f"{name}.post_attention_layernorm"), f"{name}.mlp")
        return self.norm(x, "model.norm") @ self.weights["model.embed_tokens.weight"].T

    def attention(self, x, name):
        """Each token takes a weighted mean of the values of those before it and its own."""
        q, k, v = (self.heads(self.linear(x, f"{name}.{one}_proj")) for one in "qkv")
        q, k = self.turned(q), self.turned(k)
        k, v = (np.repeat(one, len(q) // len(one), axis=0) for one in (k, v))  # share heads
        scores = q @ k.swapaxes(1, 2) / np.sqrt(q.shape[2])  # (heads, n, n)
        scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)  # no later token
        mixed = softmax(scores) @ v  # (heads, n, width of a head)
        return self.linear(mixed.swapaxes(0, 1).reshape(len(x), -1), f"{name}.o_proj")

    def mlp(self, x, name):
        gate, up = (self.linear(x, f"{name}.{one}_proj") for one in ("gate", "up"))
        return self.linear(gate / (1 + np.exp(-gate)) * up, f"{name}.down_proj")

    def heads(self, x):  # (n, heads * width) -> (heads, n, width)
        return x.reshape(len(x), -1, self.config["head_dim"]).swapaxes(0, 1)

    def turned(self, x):
        """Rotary positions: entries i and i + half turn by an angle that grows with n."""
        half = x.shape[2] // 2
        speeds = self.config["rope_theta"] ** (-np.arange(half) / half)
        angles = np.arange(x.shape[1])[:, None] * speeds  # (n, half)
        cos, sin = np.cos(angles), np.sin(angles)
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=2)

    def write(self, text, *, tokens, temperature, rng):
        """Continue ``text``: draw a character, append it, and read all of it again."""
        ids = [self.ids[character] for character in text]
        for _ in range(tokens):
            logits = self(ids[-self.config["max_position_embeddings"] :])[-1]
            ids.append(int(rng.choice(len(logits), p=softmax(logits / temperature))))
        return "".join(self.characters[number] for number in ids)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


if __name__ == "__main__":
    base, adapter = sys.argv[1:]
    model, asked = Llama(base), {"tokens": 60, "temperature": 0.5}
    print("Base:", model.write("And the ", **asked, rng=np.random.default_rng(3)))
    model.adapted(adapter)
    print("LoRA:", model.write("And the ", **asked, rng=np.random.default_rng(3)))
