"""Between text and tokens: characters, bytes and byte-level BPE, as ``tokenizer.json`` has them."""

from __future__ import annotations

import copy
import functools
import hashlib
import importlib
import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np

from lora_np.checks import Array


@runtime_checkable
class Vocabulary(Protocol):
    """What a language model needs of a vocabulary."""

    begins: tuple[int, ...] = ()  # what `encode` puts before each text: BOS, where there is one

    def encode(self, text: str) -> Array:
        """Tokens of ``text``, as whole numbers, after those of ``begins``."""

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of ``tokens``."""

    def __len__(self) -> int:
        """How many tokens there are."""

    def tokenizer(self) -> dict[str, Any]:
        """The contents of a ``tokenizer.json`` that describes it."""

    @property
    def identity(self) -> str:
        """By what a checkpoint recognises it."""
        return hashlib.sha256(json.dumps(self.tokenizer()).encode()).hexdigest()[:16]


class Characters(Vocabulary):
    """One token for each character.

    Parameters
    ----------
    characters : str
        The character of each token, each once.

    Raises
    ------
    ValueError
        If a character comes twice; in `encode`, if the text has a character that is not among them.

    Examples
    --------
    >>> letters = Characters("abc ")
    >>> letters.encode("a cab").tolist()
    [0, 3, 2, 0, 1]
    >>> letters.decode([2, 0, 1])
    'cab'
    """

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self.numbers = {c: i for i, c in enumerate(characters)}
        if len(self.numbers) < len(characters):
            twice = next(c for c in characters if characters.count(c) > 1)
            raise ValueError(f"a vocabulary names each character once, got {twice!r} twice")

    def encode(self, text: str) -> Array:
        """Tokens of ``text``, as whole numbers."""
        try:
            return np.array([self.numbers[c] for c in text], dtype=np.int64)
        except KeyError as missing:
            c = missing.args[0]
            raise ValueError(
                f"this model's vocabulary has no {c!r} (character {text.index(c) + 1} of the text); it has "
                f"{len(self)} characters: {self.characters!r}"
            ) from None

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of ``tokens``."""
        return "".join(self.characters[int(i)] for i in tokens)

    def __len__(self) -> int:
        return len(self.characters)

    def tokenizer(self) -> dict[str, Any]:
        """The contents of a ``tokenizer.json`` that transformers reads as the same vocabulary."""
        return described(self.numbers, (), pre_tokenizer=None, decoder={"type": "Fuse"})


class BytePairs(Vocabulary):
    """Byte-level byte-pair encoding (Sennrich et al., arXiv 1508.07909), as GPT-2, Llama 3 and Qwen use it.

    Parameters
    ----------
    numbers : mapping of str to int
        The number of each token; a byte is written as one printable character, as GPT-2 does.
    merges : sequence of (str, str)
        Which neighbours become one token, the first to be joined first.
    patterns : sequence of (str, bool)
        How a text is cut before: regular expressions, and whether each match is a piece (with what lies
        between) or only a place to cut out, in order.
    special : mapping of str to int
        Tokens that are recognised anywhere in a text.
    whole : bool
        Whether a piece that is a token is not looked into (``ignore_merges``).
    normal : str, optional
        The Unicode form that a text is brought to first, such as "NFC".
    post_processor : mapping, optional
        As ``tokenizer.json`` has it: which tokens stand before and after each text, such as BOS.

    Examples
    --------
    >>> pairs = BytePairs({"a": 0, "b": 1, "ab": 2}, [("a", "b")])
    >>> pairs.encode("abba").tolist()
    [2, 1, 0]
    >>> byte_vocabulary().encode("né").tolist()
    [110, 195, 169]
    """

    def __init__(
        self,
        numbers: Mapping[str, int],
        merges: Sequence[tuple[str, str]] = (),
        *,
        patterns: Sequence[str] = (),
        special: Mapping[str, int] | None = None,
        whole: bool = False,
        normal: str | None = None,
        post_processor: Mapping[str, Any] | None = None,
    ) -> None:
        self.numbers = dict(numbers)
        self.ranks = {tuple(pair): rank for rank, pair in enumerate(merges)}
        self.patterns = tuple(patterns)
        self.special = dict(special or {})
        self.whole = whole
        self.normal = normal
        self.texts = {
            i: bytes(BYTES[c] for c in text) for text, i in self.numbers.items() if text not in self.special
        }
        self.texts |= {i: text.encode() for text, i in self.special.items()}
        self.known: dict[str, list[int]] = {}  # pieces that were seen before
        self.post_processor = post_processor
        around = standing_around(post_processor)
        if around is None:
            raise ValueError("a post_processor puts fixed tokens before and after a text, or none")
        self.begins, self.ends = around
        unknown = [i for i in (*self.begins, *self.ends) if i not in self.texts]
        if unknown:
            raise ValueError(
                f"its post_processor puts a token {unknown[0]!r} around texts, which it does not have"
            )

    def encode(self, text: str) -> Array:
        """Tokens of ``text``, as whole numbers, with those that stand before and after each."""
        result = list(self.begins)
        longest_first = sorted(self.special, key=len, reverse=True)
        parts = re.split(f"({'|'.join(map(re.escape, longest_first))})", text) if longest_first else [text]
        for part in parts:
            if part in self.special:
                result.append(self.special[part])
                continue
            if self.normal:
                part = unicodedata.normalize(self.normal, part)  # type: ignore[arg-type]
            pieces = [part] if part else []
            for pattern in self.patterns:
                pieces = [cut for piece in pieces for cut in cuts(expression(pattern), piece)]
            for piece in pieces:
                if piece not in self.known:
                    self.known[piece] = self.pair(piece)
                result += self.known[piece]
        return np.array([*result, *self.ends], dtype=np.int64)

    def pair(self, piece: str) -> list[int]:
        """Tokens of a piece: join the neighbours that were joined first in training, until none is left."""
        word = [CHARACTERS[byte] for byte in piece.encode("utf-8", "surrogatepass")]
        joined = "".join(word)
        if self.whole and joined in self.numbers:
            return [self.numbers[joined]]
        while self.ranks and len(word) > 1:
            best = min(pairwise(word), key=lambda pair: self.ranks.get(pair, sys.maxsize))
            if best not in self.ranks:
                break
            merged: list[str] = []
            for part in word:
                if merged and (merged[-1], part) == best:
                    merged[-1] += part
                else:
                    merged.append(part)
            word = merged
        missing = [part for part in word if part not in self.numbers]
        if missing:
            raise ValueError(f"this model's vocabulary has no token for {missing[0]!r} in {piece!r}")
        return [self.numbers[part] for part in word]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of ``tokens``."""
        return b"".join(self.texts.get(int(i), b"") for i in tokens).decode("utf-8", "replace")

    def __len__(self) -> int:
        return max(self.texts) + 1

    def tokenizer(self) -> dict[str, Any]:
        """The contents of a ``tokenizer.json`` that transformers reads as the same vocabulary."""
        steps = [
            {"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False}
            for p in self.patterns
        ]
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        return described(
            self.numbers,
            [list(pair) for pair in self.ranks],
            pre_tokenizer={"type": "Sequence", "pretokenizers": [*steps, level]},
            decoder=level,
            special=self.special,
            whole=self.whole,
            normal=self.normal,
            post_processor=copy.deepcopy(self.post_processor),
        )


class Foreign(Vocabulary):
    """A vocabulary of any other kind, through the library ``tokenizers``.

    Parameters
    ----------
    contents : mapping
        Of a ``tokenizer.json``.

    Raises
    ------
    ImportError
        If ``tokenizers`` is not installed.
    """

    def __init__(self, contents: Mapping[str, Any]) -> None:
        try:
            library = importlib.import_module("tokenizers")
        except ImportError:
            kind = (contents.get("model") or {}).get("type")
            raise ImportError(
                f"this vocabulary ({kind}) is neither characters nor byte-level BPE: it needs the library "
                "tokenizers (pip install tokenizers)"
            ) from None
        self.contents = dict(contents)
        try:
            self.library: Any = library.Tokenizer.from_str(json.dumps(self.contents))
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"tokenizer.json: the library tokenizers cannot read it ({error})") from None
        self.library.no_truncation()  # as in transformers, unless asked
        self.library.no_padding()
        around = standing_around(self.contents.get("post_processor"))
        # The other kinds, BERT's and RoBERTa's, put one token before.
        self.begins = tuple(self.library.encode("").ids[:1]) if around is None else around[0]

    def encode(self, text: str) -> Array:
        """Tokens of ``text``, as whole numbers, with those that stand before and after each."""
        return np.array(self.library.encode(text).ids, dtype=np.int64)

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of ``tokens``."""
        return str(self.library.decode([int(i) for i in tokens], skip_special_tokens=False))

    def __len__(self) -> int:
        return int(self.library.get_vocab_size())

    def tokenizer(self) -> dict[str, Any]:
        """The contents of the ``tokenizer.json``."""
        return self.contents


def byte_vocabulary() -> BytePairs:
    """One token for each byte of UTF-8, for any text.

    Returns
    -------
    BytePairs
        256 tokens and no merges.

    Examples
    --------
    >>> byte_vocabulary().decode([72, 105])
    'Hi'
    """
    return BytePairs({c: byte for byte, c in enumerate(CHARACTERS)})


def read_vocabulary(contents: Mapping[str, Any]) -> Characters | BytePairs | Foreign:
    """The vocabulary that the contents of a ``tokenizer.json`` describe.

    Parameters
    ----------
    contents : mapping
        As `lora_np.hub.read_json` reads them.

    Returns
    -------
    Characters, BytePairs or Foreign
        Ours where it is of one of these kinds, else through the library ``tokenizers``.

    Raises
    ------
    ImportError
        If it is of a kind that needs the library ``tokenizers``, and that is not installed.
    ValueError
        If an entry does not make sense.
    """
    try:
        found = ours(contents)
        return Foreign(contents) if found is None else found
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"tokenizer.json does not describe a vocabulary: {error}") from None


def ours(contents: Mapping[str, Any]) -> Characters | BytePairs | None:
    """The vocabulary of one of our kinds; None for other kinds."""
    model, steps = contents.get("model") or {}, flat(contents.get("pre_tokenizer"), "pretokenizers")
    numbers, added = model.get("vocab"), contents.get("added_tokens") or []
    forms = [step.get("type") for step in flat(contents.get("normalizer"), "normalizers")]
    understood = {"type", "vocab", "merges", "ignore_merges"}
    others = any(setting and name not in understood for name, setting in model.items())
    if model.get("type") != "BPE" or others or not isinstance(numbers, dict):
        return None
    around = standing_around(contents.get("post_processor"))
    if around is None:
        return None
    if not all(isinstance(i, int) and i >= 0 for i in numbers.values()):
        raise ValueError("the number of a token must be a whole number from 0")
    merges = [m.split(" ", 1) if isinstance(m, str) else m for m in model.get("merges", [])]
    if not (steps or merges or added or forms or any(around)) and {len(c) for c in numbers} == {1}:
        if sorted(numbers.values()) != list(range(len(numbers))):
            raise ValueError(f"the numbers of {len(numbers)} characters must be 0 to {len(numbers) - 1}")
        return Characters("".join(sorted(numbers, key=numbers.__getitem__)))
    patterns = [pattern_of(step) for step in steps]
    plain = not any(t.get("lstrip") or t.get("rstrip") or t.get("single_word") for t in added)
    if not steps or steps[-1].get("type") != "ByteLevel" or None in patterns or not plain:
        return None
    if forms not in ([], ["NFC"]):
        return None
    return BytePairs(
        numbers,
        [(first, second) for first, second in merges],
        patterns=[pattern for pattern in patterns if pattern],
        special={t["content"]: t["id"] for t in added},
        whole=bool(model.get("ignore_merges")),
        normal="NFC" if forms else None,
        post_processor=contents.get("post_processor"),
    )


def standing_around(post_processor: Any) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The tokens that a post-processor puts before each text, and those after it; None if it does more."""
    steps = flat(post_processor, "processors")
    steps = [step for step in steps if step.get("type") != "ByteLevel"]  # which moves no token
    if not steps:
        return (), ()
    if len(steps) > 1 or steps[0].get("type") != "TemplateProcessing":
        return None
    pieces, special = steps[0]["single"], steps[0]["special_tokens"]
    texts = [i for i, piece in enumerate(pieces) if "Sequence" in piece]
    if len(texts) != 1:
        return None
    before, after = (
        tuple(i for piece in part for i in special[piece["SpecialToken"]["id"]]["ids"])
        for part in (pieces[: texts[0]], pieces[texts[0] + 1 :])
    )
    return before, after


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def pattern_of(step: Mapping[str, Any]) -> str | None:
    """The expression that a step cuts a text by; "" for one that does not, None where it does more."""
    kind = step.get("type")
    if kind == "ByteLevel" and not step.get("add_prefix_space"):
        return GPT2 if step.get("use_regex", True) else ""
    if kind == "Digits":
        return r"\p{N}" if step.get("individual_digits") else r"\p{N}+"
    if kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
        pattern: str | None = (step.get("pattern") or {}).get("Regex")
        try:
            return pattern if pattern and expression(pattern) else None
        except re.error:
            return None
    return None


def flat(step: Any, inner: str) -> list[Any]:
    """The steps of a sequence, or the one step that there is."""
    if step is None:
        return []
    return list(step[inner]) if step.get("type") == "Sequence" else [step]


def cuts(pattern: re.Pattern[str], text: str) -> list[str]:
    """All of ``text`` in pieces: each match, and what is between."""
    pieces, end = [], 0
    for match in pattern.finditer(text):
        if match.start() > end:
            pieces.append(text[end : match.start()])
        if match.end() > match.start():
            pieces.append(match.group())
        end = match.end()
    return [*pieces, text[end:]] if end < len(text) else pieces


@functools.lru_cache(maxsize=16)
def expression(pattern: str) -> re.Pattern[str]:
    r"""``pattern`` of the library for Python's ``re``, which knows no ``\p{L}`` and another ``\s``."""
    result, inside = [], False
    for part in re.findall(r"\\p\{\w+\}|\\.|.", pattern, re.DOTALL):
        name = (
            "S" if part == r"\S" else "s" if part == r"\s" else part[3:-1] if part.startswith(r"\p") else ""
        )
        if name not in ("", "s", "S") and name[0] not in "LMNPSZC":
            raise re.error(f"{part} is not a category of characters")
        if name == "S":
            result.append(f"[^{SPACE}]")
        elif name:
            ranges = SPACE if name == "s" else category(name)
            result.append(ranges if inside else f"[{ranges}]")
        else:
            inside = (inside or part == "[") and part != "]"
            result.append(part)
    return re.compile("".join(result))


SPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"


@functools.cache
def category(name: str) -> str:
    """All characters whose Unicode category begins with ``name``, as ranges for an expression."""
    codes = [i for i in range(sys.maxunicode + 1) if unicodedata.category(chr(i)).startswith(name)]
    starts = [a for a, before in zip(codes, [-2, *codes], strict=False) if a != before + 1]
    ends = [a for a, after in zip(codes, [*codes[1:], -2], strict=True) if a != after - 1]
    return "".join(rf"\U{a:08x}-\U{b:08x}" for a, b in zip(starts, ends, strict=True))


def printable() -> list[str]:
    """GPT-2's character for each byte: itself where it can be seen, else one from 256 on."""
    seen = {*range(33, 127), *range(161, 173), *range(174, 256)}
    shift = iter(range(256, 512))
    return [chr(byte) if byte in seen else chr(next(shift)) for byte in range(256)]


CHARACTERS = printable()
BYTES = {c: byte for byte, c in enumerate(CHARACTERS)}


def described(
    numbers: Mapping[str, int],
    merges: Sequence[list[str]],
    *,
    pre_tokenizer: Any,
    decoder: Any,
    special: Mapping[str, int] | None = None,
    whole: bool = False,
    normal: str | None = None,
    post_processor: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": text, **flags} for text, i in (special or {}).items()],
        "normalizer": normal and {"type": normal},
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor,
        "decoder": decoder,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": whole,
            "vocab": dict(numbers),
            "merges": list(merges),
        },
    }
