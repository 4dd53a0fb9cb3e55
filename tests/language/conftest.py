import numpy as np
import pytest

from lora_np import language

LETTERS = "\n abcdefghijklmnopqrstuvwxyz.,"
CONFIG = {
    "model_type": "llama",
    "vocab_size": len(LETTERS),
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}


def random_model(rng=0, dtype=np.float32, **changes):
    """A tiny Llama with random weights."""
    random = np.random.default_rng(rng)
    config = {**CONFIG, **changes}
    d, inner, kv = config["hidden_size"], config["intermediate_size"], 2 * config["hidden_size"] // 4
    shapes = {
        "embed_tokens": (config["vocab_size"], d),
        "lm_head": (config["vocab_size"], d),
        "q_proj": (d, d),
        "k_proj": (kv, d),
        "v_proj": (kv, d),
        "o_proj": (d, d),
        "gate_proj": (inner, d),
        "up_proj": (inner, d),
        "down_proj": (d, inner),
    }

    def read(name):
        module, kind = name.split(".")[-2:]
        if kind == "bias" or module in ("q_norm", "k_norm"):
            return None
        shape = shapes.get(module, (d,))
        return (random.normal(size=shape) * 0.3 + (len(shape) == 1)).astype(dtype)

    return language.build(config, read, vocabulary=language.Characters(LETTERS))


@pytest.fixture(scope="session")
def model():
    return random_model()


@pytest.fixture(scope="session")
def text():
    """Sentences of a few words, which a small model learns quickly."""
    random = np.random.default_rng(0)
    words = ["the king", "a queen", "the horse", "went", "saw", "and", "the sea", "home"]
    return "".join(" ".join(random.choice(words, 4)) + ".\n" for _ in range(150))
