"""The vocabulary of a GGUF file, as a ``tokenizer.json`` has it.

llama.cpp stores tokens, merges or scores, and a name for how texts are split; what that name means
is in its ``src/llama-vocab.cpp`` and in the ``tokenizer.json`` of the models that the names come
from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lora_np.checks import Array, StrPath, shown
from lora_np.files import errors_at

UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 2, 3, 4, 5, 6  # types of tokens; 1 is a normal one
NEVER_JOINED = (UNKNOWN, CONTROL, UNUSED, BYTE)
PREFIX = "tokenizer.ggml."
SPACE = "\u2581"  # what SentencePiece writes for a space

GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|"
SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
SIGNS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*"


def split_by(*expressions: str) -> list[dict[str, Any]]:
    """List steps that cut by each expression in turn, and then write bytes as characters."""
    cut = {"type": "Split", "behavior": "Isolated", "invert": False}
    return [
        *(cut | {"pattern": {"Regex": each}} for each in expressions),
        GPT2 | {"use_regex": False},
    ]


class Cuts(NamedTuple):
    """How texts are cut before bytes are paired, and what llama.cpp takes to go with that."""

    steps: list[dict[str, Any]]
    normal: str | None = None  # the Unicode form that texts are brought to first
    whole: bool = False  # whether a piece that is a token is kept whole
    bos: bool = False  # whether BOS precedes a text if the file does not say


LLAMA3 = Cuts(split_by(CONTRACTIONS + WORDS + r"\p{N}{1,3}" + SIGNS + SPACES), whole=True, bos=True)
CUTS = {
    "gpt-2": Cuts([GPT2]),
    **dict.fromkeys(("mpt", "olmo"), Cuts([GPT2], normal="NFC")),  # GPT-NeoX's
    **dict.fromkeys(("smollm", "starcoder"), Cuts([DIGITS, GPT2])),
    **dict.fromkeys(("llama-bpe", "llama-v3", "llama3"), LLAMA3),
    "qwen2": Cuts(split_by(CONTRACTIONS + WORDS + r"\p{N}" + SIGNS + SPACES), normal="NFC"),
}


def gguf_tokenizer(metadata: Mapping[str, Any], where: StrPath) -> dict[str, Any] | None:
    """Write the ``tokenizer.json`` that corresponds to a GGUF file's metadata.

    Parameters
    ----------
    metadata : mapping
        All of the file's.
    where : str or path
        The file, for messages.

    Returns
    -------
    dict or None
        None if there is no vocabulary.

    Raises
    ------
    ValueError
        If the kind of the vocabulary or its way to cut texts is not known, or an entry is missing
        or does not make sense.
    """
    said = {
        key.removeprefix(PREFIX): value for key, value in metadata.items() if key.startswith(PREFIX)
    }
    if "model" not in said:
        return None
    with errors_at(where):
        return described(said)


def tokenizer_settings(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Write the ``tokenizer_config.json`` of the same vocabulary."""
    tokens = metadata.get(f"{PREFIX}tokens")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        number = metadata.get(f"{PREFIX}{key}_token_id")
        if isinstance(tokens, list) and isinstance(number, int) and 0 <= number < len(tokens):
            settings[f"{name}_token"] = tokens[number]
    if "tokenizer.chat_template" in metadata:
        settings["chat_template"] = metadata["tokenizer.chat_template"]
    return settings


def described(said: Mapping[str, Any]) -> dict[str, Any]:
    """Write the ``tokenizer.json`` from the metadata under ``tokenizer.ggml``."""
    kind, tokens, types = (
        said["model"],
        texts(said, "tokens"),
        np.asarray(said.get("token_type", ())),
    )
    if kind not in ("gpt2", "llama"):
        raise ValueError(
            f"vocabulary {shown(kind)} is not read, only 'gpt2' (byte-level BPE) and 'llama'"
        )
    if len(set(tokens)) != len(tokens):
        raise ValueError("its tokens are not texts that differ")
    if types.shape != (len(tokens),):
        raise ValueError(f"it needs one type for each of its {len(tokens)} tokens")
    parts, bos = byte_pairs(said) if kind == "gpt2" else sentence_pieces(said, tokens, types)
    numbers = {token: i for i, token in enumerate(tokens) if types[i] != UNUSED}
    before = standing(said, "bos", tokens, default=bos)
    after = standing(said, "eos", tokens, default=False)
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


def byte_pairs(said: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Describe byte-level BPE, which keeps its merges, and tell whether BOS is implied."""
    cut, merges = said.get("pre"), texts(said, "merges")
    if not isinstance(cut, str) or cut not in CUTS:
        raise ValueError(f"texts cut as {shown(cut)} are not read, only as {', '.join(CUTS)}")
    if not all(merge.count(" ") == 1 for merge in merges):
        raise ValueError("one of its merges is not two tokens with a space between")
    cuts = CUTS[cut]
    parts = {
        "normalizer": cuts.normal and {"type": cuts.normal},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": cuts.steps},
        "decoder": GPT2,
        "model": {"merges": merges, "ignore_merges": cuts.whole},
    }
    return parts, cuts.bos


def sentence_pieces(
    said: Mapping[str, Any], tokens: list[str], types: Array
) -> tuple[dict[str, Any], bool]:
    """Describe SentencePiece's BPE, which joins neighbours whose union scores highest."""
    scores = np.asarray(said.get("scores", ()))
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
    if said.get("add_space_prefix", True):
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


def texts(said: Mapping[str, Any], name: str) -> list[str]:
    """Read a list of texts that has to be there."""
    found = said.get(name)
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise ValueError(f"its {name} are missing, or not texts")
    return found


def standing(
    said: Mapping[str, Any], name: str, tokens: Sequence[str], *, default: bool
) -> list[str]:
    """Find the token before ("bos") or after ("eos") each text, if there is one."""
    number = said.get(f"{name}_token_id")
    if not said.get(f"add_{name}_token", default and number is not None):
        return []
    if not isinstance(number, int) or not 0 <= number < len(tokens):
        raise ValueError(
            f"texts have {name.upper()}, but {PREFIX}{name}_token_id is {shown(number)}"
        )
    return [tokens[number]]


def template(before: list[str], after: list[str], numbers: Mapping[str, int]) -> dict[str, Any]:
    """Describe the post-processor that puts tokens before and after each text."""
    first, last = (
        [{"SpecialToken": {"id": t, "type_id": 0}} for t in tokens] for tokens in (before, after)
    )
    one, other = ({"Sequence": {"id": text, "type_id": i}} for i, text in enumerate("AB"))
    special = {t: {"id": t, "ids": [numbers[t]], "tokens": [t]} for t in (*before, *after)}
    single = [*first, one, *last]
    pair = [*single, *first, other, *last]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}
