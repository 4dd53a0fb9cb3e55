from importlib.util import find_spec

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


MIXED = (
    "Hello  World!\n\n\tIt's 1234567 don't WE'LL 12.5% — “quoted” naïve café ÅÄÖ ß ſ İı "
    "漢字かな交じり文 한국어 العربية हिन्दी emoji 👩‍👩‍👧 🇩🇪 ½ ² Ⅷ ٣٤ \u00a0\u2003\u3000x\x1c\x1fy\r\n"
    "snake_case CamelCase a+b=c {}[]()<> \\ // ### ... --- e\u0301 \ufeff \u200b zero"
)
SPECIAL = ["<|end|>", "<|end|>more", "<｜begin▁of▁sentence｜>"]
ADDED = ["   ", "<think>", "    "]


def nasty(seeds):
    """Texts of words, numbers, spaces, and characters of every plane; of marks, halves and joiners;
    and long runs.
    """
    pieces = [
        *MIXED.split(" "),
        *SPECIAL,
        *ADDED,
        "<|end",
        "|>",
        " ",
        "  ",
        "\n",
        " \n ",
        "\t",
        "\r\n\r\n",
        "\0",
    ]
    pieces += [
        "'S",
        "'ll",
        "'LL",
        "’s",
        "e\u0301",
        "\u0065\u0301\u0323",
        "\u212b",
        "\u1100\u1161\u11a8",
        "\u0958",
    ]
    pieces += [
        "the",
        "THE",
        "tHe",
        "\u01c5",
        "\u02b0",
        "ﬁ",
        "０１２",
        "१२३",
        "²³",
        "ⅣⅤ",
        "$$",
        "€",
        "^_^",
        "/*",
        "▁",
    ]
    pieces += [
        "a" * 40,
        "9" * 11,
        "=" * 17,
        " " * 23,
        "\u200d",
        "\ufe0f",
        "\u0300",
        "\U000e0041",
        "\u2028",
        "\x85",
    ]
    for seed in seeds:
        rng = np.random.default_rng(seed % 2**32)
        alone = [chr(c) for c in rng.integers(1, 0x2FFFF, 9) if not 0xD800 <= c < 0xE000]
        yield "".join(rng.choice([*pieces, *alone, *alone], rng.integers(0, 30)))


needs_tokenizers = pytest.mark.skipif(
    not find_spec("tokenizers"), reason="the library tokenizers is not here"
)

# GPT-2's character for each byte: itself where it can be seen, else one from 256 on.
SEEN = {*range(33, 127), *range(161, 173), *range(174, 256)}
UNSEEN = [byte for byte in range(256) if byte not in SEEN]
BYTES = [chr(byte if byte in SEEN else 256 + UNSEEN.index(byte)) for byte in range(256)]


def byte_level(*, merges=(), special=(), post_processor=None, expressions=None, normal=None):
    """The contents of a ``tokenizer.json``: a token for each byte and merge, and then the special
    ones.
    """
    words = [*BYTES, *("".join(pair) for pair in merges), *special]
    flags = {
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    cuts = [
        {"type": "Split", "pattern": {"Regex": each}, "behavior": "Isolated", "invert": False}
        for each in expressions or ()
    ]
    return {
        "version": "1.0",
        "added_tokens": [{"id": words.index(text), "content": text, **flags} for text in special],
        "normalizer": normal and {"type": normal},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [*cuts, level | {"use_regex": expressions is None}],
        },
        "post_processor": post_processor,
        "decoder": level | {"use_regex": True},
        "model": {
            "type": "BPE",
            "vocab": {word: i for i, word in enumerate(words)},
            "merges": [" ".join(pair) for pair in merges],
        },
    }


def before(*tokens):
    """A post-processor that puts special tokens before each text, as Llama 3's does."""
    names = [{"SpecialToken": {"id": name, "type_id": 0}} for name, _ in tokens]
    text, other = ({"Sequence": {"id": letter, "type_id": i}} for i, letter in enumerate("AB"))
    special = {name: {"id": name, "ids": [i], "tokens": [name]} for name, i in tokens}
    template = {
        "single": [*names, text],
        "pair": [*names, text, *names, other],
        "special_tokens": special,
    }
    level = {
        "type": "ByteLevel",
        "add_prefix_space": True,
        "trim_offsets": False,
        "use_regex": True,
    }
    return {"type": "Sequence", "processors": [level, {"type": "TemplateProcessing", **template}]}


def checkpoint_name(path):
    """The name in a checkpoint of the array at ``path`` in the tree."""
    module, _, name = path.rpartition(".")
    return f"{module}.{ {'W': 'weight', 'b': 'bias'}.get(name, name) }"


def random_model(rng=0, dtype=np.float32, **changes):
    """A tiny Llama with random weights."""
    random = np.random.default_rng(rng)
    config = {**CONFIG, **changes}
    d, inner, kv = (
        config["hidden_size"],
        config["intermediate_size"],
        2 * config["hidden_size"] // 4,
    )
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
