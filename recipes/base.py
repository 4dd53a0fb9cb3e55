"""Train the base model that the package ships: a character-level Llama on Jane Austen's six novels.

    apt-get download r-cran-janeaustenr && dpkg -x r-cran-janeaustenr_*.deb . OPENBLAS_NUM_THREADS=1
    python -m recipes.base usr/lib/R/site-library/janeaustenr/data/Rdata.rdb -o austen

It takes about 20 minutes on one core. The novels are in the public domain; the package that carries
them is under the MIT licence.
"""

from __future__ import annotations

import argparse
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

import lora_np as lnp
from lora_np import language
from lora_np.checks import Array
from lora_np.language import Characters, LanguageModel, build, token_loss

CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))
CONTEXT = 256
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": len(CHARACTERS),
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "hidden_act": "silu",
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": None,
    "eos_token_id": None,
    "dtype": "bfloat16",
}
BATCH, RATE, CLIP = 4, 4e-3, 1.0
STEPS, WARMUP = 11000, 100


def novels(path: Path) -> dict[str, str]:
    """The texts in R's database: for each its length (4 bytes), and a zlib stream of R's
    serialisation.
    """
    data, texts = path.read_bytes(), {}
    while data:
        stream = zlib.decompressobj()
        raw, data = stream.decompress(data[4:]), stream.unused_data
        text = "\n".join(character_vector(raw)) + "\n"
        # The title page and the editor's note of Northanger Abbey are not by Austen.
        texts[text.split("\n", 1)[0]] = text.split("A NOTE ON THE TEXT")[0].replace("£", "L")
    return texts


def character_vector(raw: bytes) -> Iterator[str]:
    """Strings of a serialised character vector: "X", a newline, three versions, the encoding, the
    vector.
    """
    (encoding,) = struct.unpack(">i", raw[14:18])
    at = 18 + encoding
    kind, n = struct.unpack(">ii", raw[at : at + 8])
    if raw[:6] != b"X\n\0\0\0\3" or kind & 255 != 16:
        raise ValueError(
            "this is not a character vector that R has written in version 3 of its format"
        )
    at += 8
    for _ in range(n):
        (length,) = struct.unpack(">i", raw[at + 4 : at + 8])
        at += 8
        yield raw[at : at + length].decode()
        at += length


def initial(rng: np.random.Generator, *, deviation: float = 0.02, **changes: int) -> LanguageModel:
    """Normal weights of some deviation; those that add to the residual stream smaller, as in GPT-2.

    ``changes`` are fields of the config.
    """
    config = CONFIG | changes
    d, inner = config["hidden_size"], config["intermediate_size"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    shapes = {
        "embed_tokens": (config["vocab_size"], d),
        "q_proj": (d, d),
        "k_proj": (kv, d),
        "v_proj": (kv, d),
        "o_proj": (d, d),
        "gate_proj": (inner, d),
        "up_proj": (inner, d),
        "down_proj": (d, inner),
    }

    def read(name: str) -> lnp.Tensor | None:
        module = name.split(".")[-2]
        if module.endswith("norm") and module not in ("q_norm", "k_norm"):
            return lnp.Tensor(np.ones(d, np.float32))
        if name.endswith("bias") or module not in shapes:
            return None
        adds = module in ("o_proj", "down_proj")
        size = deviation / (2 * config["num_hidden_layers"]) ** 0.5 if adds else deviation
        return lnp.Tensor(rng.normal(0, size, shapes[module]).astype(np.float32))

    return build(config, read, vocabulary=Characters(CHARACTERS))


def split(texts: dict[str, str]) -> tuple[Array, Array]:
    """Tokens for training, and windows of the last twentieth of each novel for validation."""
    encode = Characters(CHARACTERS).encode
    cut = {title: len(text) * 19 // 20 for title, text in texts.items()}
    training = np.concatenate([encode(text[: cut[title]]) for title, text in texts.items()])
    held_out = np.concatenate([encode(text[cut[title] :]) for title, text in texts.items()])
    n = len(held_out) // (CONTEXT + 1)
    return training, held_out[: n * (CONTEXT + 1)].reshape(n, CONTEXT + 1)


def windows(tokens: Array, rng: np.random.Generator) -> Iterator[Array]:
    """Batches of random windows, each one token longer than the context."""
    while True:
        starts = rng.integers(0, len(tokens) - CONTEXT, BATCH)
        yield tokens[starts[:, np.newaxis] + np.arange(CONTEXT + 1)]


def validation_loss(model: LanguageModel, held_out: Array) -> float:
    """Nats a character, the mean over windows."""
    frozen = lnp.freeze(model)
    parts = [held_out[i : i + 16] for i in range(0, len(held_out), 16)]
    losses = [float(lnp.value(token_loss(frozen, part))) * len(part) for part in parts]
    return sum(losses) / len(held_out)


def rate(step: int, steps: int = STEPS) -> float:
    """A short rise, a constant rate, and for the last two elevenths a fall to zero (arXiv
    2405.18392).
    """
    return RATE * min((step + 1) / WARMUP, 1.0, (steps - step) / (steps * 2 // 11))


def training(model: LanguageModel, batches: Iterable[Array], steps: int = STEPS) -> Iterator[float]:
    """The loss of each step; the model is trained in place."""
    schedule = partial(rate, steps=steps)
    run = lnp.training_run(lnp.AdamW(lr=schedule, beta2=0.99, weight_decay=0.1), model, clip=CLIP)
    for batch in batches:
        loss: Any = token_loss(model, batch)
        loss.backward()
        run.step()
        yield loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("novels", type=Path, help="Rdata.rdb of the package janeaustenr")
    parser.add_argument("-o", "--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS, help="fewer, to compare seeds")
    options = parser.parse_args()
    random = np.random.default_rng(options.seed)
    tokens, held_out = split(novels(options.novels))
    model = initial(random)
    losses: list[float] = []
    begin = time.process_time()
    for loss in training(model, islice(windows(tokens, random), options.steps), options.steps):
        losses.append(loss)
        if len(losses) % 100 == 0:
            seconds = time.process_time() - begin
            print(
                f"step {len(losses)}: {np.mean(losses[-100:]):.4f} nats, {seconds:.0f} s",
                flush=True,
            )
        if len(losses) % 500 == 0:
            print(f"held out, a quarter: {validation_loss(model, held_out[::4]):.4f}", flush=True)
    language.save(lnp.freeze(model), options.out, dtype="bfloat16")
    rounded = validation_loss(language.load(options.out), held_out)
    print(f"held out: {validation_loss(model, held_out):.4f}, as bfloat16 {rounded:.4f}")


if __name__ == "__main__":
    main()
