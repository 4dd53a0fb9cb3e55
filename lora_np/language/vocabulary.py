"""Convert text to tokens and back: by characters, or by the library ``tokenizers``."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np

from lora_np.checks import Array, needed
from lora_np.files import errors_at, parse_json

MAX_GROWTH = 3000  # the largest factor by which a tokenizer.json may lengthen a text
UNFOLDING = {"NFKC", "NFKD"}  # normal forms that can replace one character by up to 18
NO_GROWTH = {
    "BertPreTokenizer",
    "ByteFallback",
    "Digits",
    "Fuse",
    "Punctuation",
    "Split",
    "Strip",
    "StripAccents",
    "Whitespace",
    "WhitespaceSplit",
}
_SPECIAL = tuple(f"{name}_token" for name in ["bos", "eos", "unk", "sep", "pad", "cls", "mask"])
_FLAGS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
NO_FILES: Mapping[str, bytes] = {}


class Described:
    """The base class of vocabularies, which come from a ``tokenizer.json`` and files next to it."""

    files: Mapping[str, bytes]

    def tokenizer(self) -> dict[str, Any]:
        """Return the contents of the ``tokenizer.json``."""
        raise NotImplementedError

    @functools.cached_property
    def special(self) -> dict[str, str]:
        """The special tokens by their names in transformers, such as ``eos_token``."""
        named = self.settings()
        texts = {name: x.get("content") if isinstance(x, dict) else x for name, x in named.items()}
        return {
            name: x for name, x in texts.items() if name.endswith("_token") and isinstance(x, str)
        }

    def settings(self) -> dict[str, Any]:
        """Return the fields of ``tokenizer_config.json`` and of the older file that it replaces."""
        fields = self.beside("tokenizer_config.json")
        if "added_tokens_decoder" not in fields:  # else transformers does not read the older file
            fields = {**fields, **self.beside("special_tokens_map.json")}
        return fields

    def chat_template(self) -> object:
        """Return the chat template, or None; if a model has several, return the default one."""
        if "chat_template.jinja" in self.files:
            return self.files["chat_template.jinja"].decode()
        beside = {**self.beside("chat_template.json"), **self.beside("tokenizer_config.json")}
        template = beside.get("chat_template")
        if isinstance(template, list):
            template = {
                item.get("name"): item.get("template")
                for item in template
                if isinstance(item, dict)
            }
        if isinstance(template, dict):
            template = template.get("default")
        return template

    def beside(self, name: str) -> dict[str, Any]:
        """Read a JSON file that came with the vocabulary; return {} if it is missing."""
        with errors_at(name):
            return parse_json(self.files[name]) if name in self.files else {}

    @property
    def identity(self) -> str:
        """A fingerprint by which a checkpoint recognises the vocabulary."""
        return hashlib.sha256(json.dumps(self.tokenizer()).encode()).hexdigest()[:16]


class Characters(Described):
    """A vocabulary with one token for each character.

    Parameters
    ----------
    characters : str
        The character of each token, each once.
    files : mapping of str to bytes
        Other files of the vocabulary, to write unchanged.

    Raises
    ------
    ValueError
        If a character occurs twice; in `encode`, if the text has an unknown character.

    Examples
    --------
    >>> letters = Characters("abc ")
    >>> letters.encode("a cab").tolist()
    [0, 3, 2, 0, 1]
    >>> letters.decode([2, 0, 1])
    'cab'
    """

    begins: tuple[int, ...] = ()  # tokens that `encode` puts before each text
    specials: frozenset[int] = frozenset()

    def __init__(self, characters: str, files: Mapping[str, bytes] = NO_FILES) -> None:
        self.characters = characters
        self.files = files
        self.numbers = {c: i for i, c in enumerate(characters)}
        if len(self.numbers) < len(characters):
            twice = next(c for c in characters if characters.count(c) > 1)
            raise ValueError(f"a vocabulary names each character once, got {twice!r} twice")

    def encode(self, text: str, *, special: bool = True) -> Array:
        """Encode ``text`` as an array of token indices."""
        try:
            return np.array([self.numbers[c] for c in text], dtype=np.int64)
        except KeyError as missing:
            c = missing.args[0]
            raise ValueError(
                f"this model's vocabulary has no {c!r} (character {text.index(c) + 1} of the text);"
                f" it has {len(self)} characters: {self.characters!r}"
            ) from None

    def cut(self, text: str) -> tuple[Array, Array]:
        """Encode ``text``; return the tokens, and the start and end of each in the text."""
        starts = np.arange(len(text))
        return self.encode(text), np.stack([starts, starts + 1], axis=1)

    def number(self, token: str) -> int | None:
        """Return the index of a token, or None if the vocabulary lacks it."""
        return self.numbers.get(token)

    def decode(self, tokens: Iterable[int]) -> str:
        """Decode ``tokens`` to text; an index beyond the vocabulary becomes no text."""
        return "".join(self.characters[int(i) : int(i) + 1] for i in tokens)

    def __len__(self) -> int:
        return len(self.characters)

    def tokenizer(self) -> dict[str, Any]:
        """Return a ``tokenizer.json`` that transformers reads as the same vocabulary."""
        none = dict.fromkeys(
            ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")
        )
        false = dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), False)
        return {
            "version": "1.0",
            **dict.fromkeys(("truncation", "padding")),
            "added_tokens": [],
            **dict.fromkeys(("normalizer", "pre_tokenizer", "post_processor")),
            "decoder": {"type": "Fuse"},
            "model": {"type": "BPE", **none, **false, "vocab": dict(self.numbers), "merges": []},
        }


class Subwords(Described):
    """A vocabulary of subwords; the library ``tokenizers`` encodes and decodes the text.

    Parameters
    ----------
    contents : mapping
        The contents of a ``tokenizer.json``.
    files : mapping of str to bytes
        Other files of the vocabulary, to write unchanged.

    Raises
    ------
    ValueError
        If the library cannot read the contents; in `encode`, if it cannot encode a text.
    ImportError
        On first use, if ``tokenizers`` is not installed.

    Examples
    --------
    >>> letters = Subwords(Characters("abc ").tokenizer())
    >>> letters.encode("a cab").tolist(), letters.decode([2, 0, 1])
    ([0, 3, 2, 0, 1], 'cab')
    """

    def __init__(self, contents: Mapping[str, Any], files: Mapping[str, bytes] = NO_FILES) -> None:
        self.contents = dict(contents)
        self.files = files
        if find_spec("tokenizers"):
            self.library  # noqa: B018  raises an error now if the contents are damaged

    @functools.cached_property
    def library(self) -> Any:
        """The ``Tokenizer`` object of the library, with the tokens that files next to it add."""
        library = made(self.contents)
        known = {token["content"] for token in self.contents.get("added_tokens") or ()}
        library.add_tokens([token for token in self.added() if token.content not in known])
        return library

    def added(self) -> list[Any]:
        """List the tokens that files next to the ``tokenizer.json`` add, as transformers does."""
        fields = self.settings()
        decoder = fields.get("added_tokens_decoder") or {}
        older = {} if "added_tokens_decoder" in fields else self.beside("added_tokens.json")
        values = [fields.get(name) for name in _SPECIAL]
        for name in ("extra_special_tokens", "additional_special_tokens"):
            more = fields.get(name) or ()
            values += more.values() if isinstance(more, dict) else more
        named = [{"content": x} if isinstance(x, str) else x for x in values if x]
        with errors_at("added tokens", (LookupError, TypeError, ValueError)):
            tokens = [decoder[number] for number in sorted(decoder, key=int)]
            special = {token["content"] for token in named}
            for text in sorted(older, key=older.__getitem__):
                tokens.append({"content": text, "normalized": False, "special": text in special})
            listed = {token["content"] for token in tokens}
            for token in named:
                if token["content"] not in listed:
                    tokens.append({"normalized": False, **token, "special": True})
            make = _tokenizers().AddedToken
            return [make(**{k: x for k, x in token.items() if k in _FLAGS}) for token in tokens]

    @functools.cached_property
    def begins(self) -> tuple[int, ...]:
        """The tokens that `encode` puts before each text."""
        one = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
        encoding = made(
            {"post_processor": self.contents.get("post_processor"), "model": one}
        ).encode("a")
        return tuple(encoding.ids[: encoding.special_tokens_mask.index(0)])

    @functools.cached_property
    def specials(self) -> frozenset[int]:
        """The indices of the special tokens, which do not represent text."""
        added = self.library.get_added_tokens_decoder()
        return frozenset(number for number, token in added.items() if token.special)

    def number(self, token: str) -> int | None:
        """Return the index of a token, or None if the vocabulary lacks it."""
        number: int | None = self.library.token_to_id(token)
        return number

    def encode(self, text: str, *, special: bool = True) -> Array:
        """Encode ``text``, by default with the special tokens that surround every text."""
        return np.array(self.encoding(text, special).ids, dtype=np.int64)

    def cut(self, text: str) -> tuple[Array, Array]:
        """Encode ``text`` without special tokens; return tokens, and the start and end of each."""
        encoding = self.encoding(text, False)
        return np.array(encoding.ids, dtype=np.int64), np.array(
            encoding.offsets, dtype=np.int64
        ).reshape(-1, 2)

    def encoding(self, text: str, special: bool) -> Any:
        """Return the library's ``Encoding`` of ``text``, with or without special tokens."""
        library = self.library
        text.encode()  # raises an error that names the position of a lone surrogate
        try:
            return library.encode(text, add_special_tokens=special)
        except BaseException as error:
            # the library raises plain Exceptions, and panics if a regular expression takes too long
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise ValueError(f"this model's vocabulary cannot cut the text: {error}") from None

    def decode(self, tokens: Iterable[int]) -> str:
        """Decode ``tokens`` to text."""
        return str(self.library.decode([int(i) for i in tokens], skip_special_tokens=False))

    def __len__(self) -> int:
        return int(self.library.get_vocab_size())

    def tokenizer(self) -> dict[str, Any]:
        """Return the contents of the ``tokenizer.json``."""
        return self.contents


Vocabulary = Characters | Subwords


def _tokenizers() -> ModuleType:
    """Import the library ``tokenizers``; raise an error that names the extra if it is missing."""
    why = "this vocabulary needs the library tokenizers"
    module: ModuleType = needed("tokenizers", extra="language", why=why)
    return module


def growth(step: Any) -> float:
    """Return an upper bound on the factor by which a tokenizer's step can lengthen a text."""
    if not isinstance(step, Mapping):
        return 1
    kind = step.get("type")
    if kind == "Sequence":
        steps = (part for parts in step.values() if isinstance(parts, list) for part in parts)
        return math.prod(map(growth, steps))
    if kind == "Replace":
        new, old = len(step["content"]), len(step["pattern"].get("String", ""))
        # a regular expression may have an empty match at each character
        return max(1, new / old) if old else 1 + new
    if kind == "Prepend":
        return 1 + len(step["prepend"])
    if kind == "Precompiled":  # the size of a trie, the trie, and the replacements
        table = base64.b64decode(step["precompiled_charsmap"])
        texts = table[4 + int.from_bytes(table[:4], "little") :].split(b"\0")
        return max(1, *map(len, texts))
    if kind == "TemplateProcessing":
        return sum("Sequence" in piece for piece in step["single"])
    return 1 if kind in NO_GROWTH else 18 if kind in UNFOLDING else 2


def made(contents: Mapping[str, Any]) -> Any:
    """Build a ``Tokenizer`` from a ``tokenizer.json``, whose steps must respect ``MAX_GROWTH``."""
    tokenizers = _tokenizers()
    try:
        library = tokenizers.Tokenizer.from_str(json.dumps(contents))
    except Exception as error:  # the library raises plain Exceptions
        raise ValueError(
            f"tokenizer.json: the library tokenizers cannot read it ({error})"
        ) from None
    for parts in (("normalizer", "pre_tokenizer", "post_processor"), ("decoder",)):
        times = math.prod(growth(contents.get(part)) for part in parts)
        if times > MAX_GROWTH:
            raise ValueError(
                f"tokenizer.json: its {' or '.join(parts)} may make a text {times:.3g} times as"
                f" long; at most {MAX_GROWTH} are allowed"
            )
    library.no_truncation()  # by default, transformers neither truncates nor pads
    library.no_padding()
    return library


def read_vocabulary(
    contents: Mapping[str, Any], files: Mapping[str, bytes] = NO_FILES
) -> Vocabulary:
    """Build the vocabulary that a ``tokenizer.json`` describes.

    Parameters
    ----------
    contents : mapping
        The contents of the ``tokenizer.json``.
    files : mapping of str to bytes
        The files next to it that belong to it, such as ``tokenizer_config.json``.

    Returns
    -------
    Characters or Subwords
        `Characters` if each character is a token and nothing else happens, otherwise `Subwords`.

    Raises
    ------
    ValueError
        If the library cannot read it.

    Examples
    --------
    >>> read_vocabulary(Characters("abc").tokenizer()).encode("cab").tolist()
    [2, 0, 1]
    """
    try:
        numbers = contents["model"]["vocab"]
        vocabulary = Characters("".join(sorted(numbers, key=numbers.__getitem__)), files)
        if numbers and vocabulary.tokenizer() == contents:
            return vocabulary
    except (AttributeError, LookupError, TypeError, ValueError):
        pass  # not a vocabulary of characters; if the file is damaged, `Subwords` raises an error
    return Subwords(contents, files)
