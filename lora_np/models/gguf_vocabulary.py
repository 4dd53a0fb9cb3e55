"""Convert the vocabulary of a GGUF file to a ``tokenizer.json``.

llama.cpp stores the tokens, their merges or scores, and the name of the rule that splits texts. The
rules are defined in its ``src/llama-vocab.cpp`` and in the ``tokenizer.json`` of the models that
they are named after.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from lora_np.checks import Array, StrPath, close_names, shown
from lora_np.files import errors_at

Contents = Mapping[str, Any]  # a tokenizer.json, a tokenizer_config.json or GGUF metadata
Part = dict[str, Any]  # a JSON file to be written, or a part of it

UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(2, 7)  # types of tokens; 1 is a normal token
NEVER_JOINED = (UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE)
PREFIX = "tokenizer.ggml."
# maps transformers' names of special tokens to llama.cpp's
SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
SPACE = "\u2581"  # SentencePiece's character for a space

GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
STEPS = {"ByteLevel": GPT2, "Digits": {"type": "Digits", "individual_digits": True}}
CUT = {"type": "Split", "behavior": "Isolated", "invert": False}


class Cuts(NamedTuple):
    """One of llama.cpp's rules for splitting texts before byte pairs are merged."""

    names: list[str]
    steps: list[str]  # regular expressions or keys of `STEPS`
    normal: str | None = None  # the Unicode normal form that texts are converted to first
    whole: bool = False  # whether a piece that is in the vocabulary skips the merges
    bos: bool = False  # whether texts begin with BOS unless the file says otherwise

    def pre_tokenizer(self) -> Part:
        """Build the pre-tokenizer, which splits texts and maps each byte to a character."""
        steps = [STEPS.get(step) or CUT | {"pattern": {"Regex": step}} for step in self.steps]
        bytes_written = [GPT2 | {"use_regex": False}] * ("ByteLevel" not in self.steps)
        return {"type": "Sequence", "pretokenizers": [*steps, *bytes_written]}


@cache
def table() -> Contents:
    """Read the table of llama.cpp's rules for splitting texts."""
    text = (files("lora_np.models") / "data" / "_cuts.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


@cache
def cuts() -> dict[str, Cuts]:
    """Map llama.cpp's names of pre-tokenizers to their rules for splitting texts."""
    known = [Cuts(**entry) for entry in table()["cuts"]]
    return {name: cut for cut in known for name in cut.names}


def gguf_tokenizer(metadata: Contents, path: StrPath) -> Part | None:
    """Build a ``tokenizer.json`` from a GGUF file's metadata; None if it has no vocabulary.

    Parameters
    ----------
    metadata : mapping
        All metadata of the file.
    path : str or path
        The path of the file, for messages.

    Returns
    -------
    dict or None
        The contents of the ``tokenizer.json``; None if the file has no vocabulary.

    Raises
    ------
    ValueError
        If the kind of the vocabulary or its rule for splitting texts is unknown, or an entry is
        missing or invalid.

    See Also
    --------
    tokenizer_settings : Build the ``tokenizer_config.json``.

    Examples
    --------
    >>> said = {"model": "gpt2", "pre": "qwen2", "tokens": ["a"], "token_type": [1], "merges": []}
    >>> made = gguf_tokenizer({f"tokenizer.ggml.{key}": said[key] for key in said}, "file")
    >>> made["normalizer"], made["model"]["vocab"]
    ({'type': 'NFC'}, {'a': 0})
    """
    fields = {
        key.removeprefix(PREFIX): value for key, value in metadata.items() if key.startswith(PREFIX)
    }
    if "model" not in fields:
        return None
    model = str(metadata.get("general.name", "")).lower()
    with errors_at(path):
        contents = described(fields)
    if any(name in model for name in table()["stripped"]["models"]):
        for token in contents["added_tokens"]:
            token["rstrip"] = token["content"] not in table()["stripped"]["unless"]
    return contents


def tokenizer_settings(metadata: Contents) -> Part:
    """Build the ``tokenizer_config.json`` that corresponds to a GGUF file's metadata.

    Parameters
    ----------
    metadata : mapping
        All metadata of the file.

    Returns
    -------
    dict
        Special tokens by their names in transformers, and the chat template, if there is one.

    See Also
    --------
    gguf_tokenizer : Build the ``tokenizer.json``.

    Examples
    --------
    >>> said = {"tokens": ["a", "</s>"], "eos_token_id": 1}
    >>> tokenizer_settings({f"tokenizer.ggml.{key}": value for key, value in said.items()})
    {'tokenizer_class': 'PreTrainedTokenizerFast', 'eos_token': '</s>'}
    """
    tokens = metadata.get(f"{PREFIX}tokens")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for name, key in SPECIAL.items():
        number = metadata.get(f"{PREFIX}{key}_token_id")
        if isinstance(tokens, list) and isinstance(number, int) and 0 <= number < len(tokens):
            settings[f"{name}_token"] = tokens[number]
    if "tokenizer.chat_template" in metadata:
        settings["chat_template"] = metadata["tokenizer.chat_template"]
    return settings


def described(fields: Contents) -> Part:
    """Build the ``tokenizer.json`` from the metadata under ``tokenizer.ggml``."""
    kind, tokens, types = (
        fields["model"],
        texts(fields, "tokens"),
        np.asarray(fields.get("token_type", ())),
    )
    if kind not in ("gpt2", "llama"):
        raise ValueError(
            f"vocabulary {shown(kind)} is not read, only 'gpt2' (byte-level BPE) and 'llama'"
        )
    if len(set(tokens)) != len(tokens):
        raise ValueError("its tokens are not texts that differ")
    if types.shape != (len(tokens),):
        raise ValueError(f"it needs one type for each of its {len(tokens)} tokens")
    if kind == "llama":  # some files write U+2581 for a space in user-defined tokens
        own = types == USER_DEFINED
        tokens = [token.replace(SPACE, " ") if own[i] else token for i, token in enumerate(tokens)]
    parts, bos = byte_pairs(fields) if kind == "gpt2" else sentence_pieces(fields, tokens, types)
    numbers = {token: i for i, token in enumerate(tokens) if types[i] != UNUSED}
    before = standing(fields, "bos", tokens, default=bos)
    after = standing(fields, "eos", tokens, default=False)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return parts | {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": tokens[i], "special": bool(types[i] != USER_DEFINED), **flags}
            for i in np.flatnonzero(np.isin(types, (UNKNOWN, CONTROL, USER_DEFINED))).tolist()
        ],
        "post_processor": template(before, after, numbers) if before or after else None,
        "model": {"type": "BPE", "vocab": numbers, **parts["model"]},
    }


def byte_pairs(fields: Contents) -> tuple[Part, bool]:
    """Return the parts of a byte-level BPE tokenizer, and whether it adds BOS by default."""
    pre, merges = fields.get("pre"), texts(fields, "merges")
    if not isinstance(pre, str) or pre not in cuts():
        why = f"{PREFIX}pre is not a name that is known here{close_names(str(pre), cuts())}"
        raise ValueError(f"texts cut as {shown(pre)} are not read: {why}")
    if not all(merge.count(" ") == 1 for merge in merges):
        raise ValueError("one of its merges is not two tokens with a space between")
    cut = cuts()[pre]
    parts = {
        "normalizer": cut.normal and {"type": cut.normal},
        "pre_tokenizer": cut.pre_tokenizer(),
        "decoder": GPT2,
        "model": {"merges": merges, "ignore_merges": cut.whole},
    }
    return parts, cut.bos


def sentence_pieces(fields: Contents, tokens: list[str], types: Array) -> tuple[Part, bool]:
    """Return the parts of a SentencePiece BPE tokenizer, and whether it adds BOS by default.

    The merges follow from the scores of the tokens. BOS is always added by default.
    """
    scores = np.asarray(fields.get("scores", ()))
    if scores.shape != (len(tokens),):
        raise ValueError(f"it needs one score for each of its {len(tokens)} tokens")
    joined = {
        tokens[i]: float(scores[i]) for i in np.flatnonzero(~np.isin(types, NEVER_JOINED)).tolist()
    }
    merges = [
        (score, cut, token[:cut], token[cut:])
        for token, score in joined.items()
        for cut in range(1, len(token))
        if token[:cut] in joined and token[cut:] in joined
    ]
    made = {first + second: score for score, _, first, second in merges}
    if len(set(made.values())) < len(made):
        raise ValueError(
            "two of its tokens have the same score, so which is made first is not known"
        )
    first = last = []
    if fields.get("add_space_prefix", True):
        first = [{"type": "Prepend", "prepend": SPACE}]
        last = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    there = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    unknown = np.flatnonzero(types == UNKNOWN).tolist()
    decoders = [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *last]
    model = {
        "merges": [merge[2:] for merge in sorted(merges, reverse=True)],
        "byte_fallback": bool((types == BYTE).any()),
        "fuse_unk": True,
        "unk_token": tokens[unknown[0]] if unknown else None,
    }
    normalizer = {"type": "Sequence", "normalizers": [*first, there]}
    decoder = {"type": "Sequence", "decoders": decoders}
    return {
        "normalizer": normalizer,
        "pre_tokenizer": None,
        "decoder": decoder,
        "model": model,
    }, True


def texts(fields: Contents, name: str) -> list[str]:
    """Return a list of strings from the metadata; raise an error if it is missing or invalid."""
    listed = fields.get(name)
    if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
        raise ValueError(f"its {name} are missing, or not texts")
    return listed


def standing(fields: Contents, name: str, tokens: Sequence[str], *, default: bool) -> list[str]:
    """Return the BOS or EOS token in a list, or an empty list if it is not added to texts."""
    number = fields.get(f"{name}_token_id")
    if not fields.get(f"add_{name}_token", default and number is not None):
        return []
    if not isinstance(number, int) or not 0 <= number < len(tokens):
        raise ValueError(
            f"texts have {name.upper()}, but {PREFIX}{name}_token_id is {shown(number)}"
        )
    return [tokens[number]]


def template(before: list[str], after: list[str], numbers: Mapping[str, int]) -> Part:
    """Build the post-processor that adds tokens before and after each text."""
    first, last = (
        [{"SpecialToken": {"id": t, "type_id": 0}} for t in tokens] for tokens in (before, after)
    )
    one, other = ({"Sequence": {"id": text, "type_id": i}} for i, text in enumerate("AB"))
    special = {t: {"id": t, "ids": [numbers[t]], "tokens": [t]} for t in (*before, *after)}
    single = [*first, one, *last]
    pair = [*single, *first, other, *last]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}
