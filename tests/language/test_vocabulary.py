"""Vocabularies against the library `tokenizers`, and by themselves."""

import json
import re
import shutil
import sys

import numpy as np
import pytest

from lora_np import language
from lora_np.hub import HubError, located

MIXED = (
    "Hello  World!\n\n\tIt's 1234567 don't WE'LL 12.5% — “quoted” naïve café ÅÄÖ ß ſ İı "
    "漢字かな交じり文 한국어 العربية हिन्दी emoji 👩‍👩‍👧 🇩🇪 ½ ² Ⅷ ٣٤ \u00a0\u2003\u3000x\x1c\x1fy\r\n"
    "snake_case CamelCase a+b=c {}[]()<> \\ // ### ... --- e\u0301 \ufeff \u200b zero"
)


@pytest.mark.parametrize("text", ["", "a", "naïve 漢字 👩‍👩‍👧\n", MIXED])
def test_bytes_hold_every_text(text):
    vocabulary = language.byte_vocabulary()
    tokens = vocabulary.encode(text)
    assert tokens.tolist() == list(text.encode())
    assert vocabulary.decode(tokens) == text
    assert len(vocabulary) == 256


def test_what_is_described_is_read_again():
    for vocabulary in (language.byte_vocabulary(), language.Characters("ab\n")):
        again = language.read_vocabulary(vocabulary.tokenizer())
        assert type(again) is type(vocabulary)
        assert again.encode("ab\nba").tolist() == vocabulary.encode("ab\nba").tolist()


def test_a_character_comes_once():
    with pytest.raises(ValueError, match="'a' twice"):
        language.Characters("aba")


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"\(Unigram\) .*pip install tokenizers"):
        language.read_vocabulary({"model": {"type": "Unigram", "vocab": []}})


PAIRS = language.BytePairs(
    {"a": 0, "b": 1, "ab": 2}, [("a", "b")], patterns=[r"\p{L}+"], special={"<e>": 3}, normal="NFC"
)


def before(*tokens):
    """A post-processor that puts special tokens before each text, as Llama 3's does."""
    names = [{"SpecialToken": {"id": name, "type_id": 0}} for name, _ in tokens]
    text, other = ({"Sequence": {"id": letter, "type_id": i}} for i, letter in enumerate("AB"))
    special = {name: {"id": name, "ids": [i], "tokens": [name]} for name, i in tokens}
    template = {"single": [*names, text], "pair": [*names, text, *names, other], "special_tokens": special}
    level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    return {"type": "Sequence", "processors": [level, {"type": "TemplateProcessing", **template}]}


def with_bos(**changes):
    """One token for each byte, and BOS before each text."""
    bos = {"post_processor": before(("<s>", 256)), "special": {"<s>": 256}, **changes}
    return language.BytePairs(language.byte_vocabulary().numbers, **bos)


def test_bos_begins_a_text():
    vocabulary = language.read_vocabulary(with_bos().tokenizer())
    assert vocabulary.encode("ab").tolist() == [256, 97, 98]
    assert vocabulary.encode("").tolist() == [256]
    assert vocabulary.decode([256, 97]) == "<s>a"
    assert vocabulary.tokenizer() == with_bos().tokenizer()
    two = with_bos(post_processor=before(("<s>", 256), ("<t>", 257)), special={"<s>": 256, "<t>": 257})
    assert two.encode("a").tolist() == [256, 257, 97]
    with pytest.raises(ValueError, match="a token 256 around texts, which it does not have"):
        with_bos(special={})


PAIRS_AND_BOS = language.BytePairs({"a": 0, "b": 1}, special={"<s>": 2}, post_processor=before(("<s>", 2)))


@pytest.mark.parametrize(
    "vocabulary", [language.Characters("ab\n"), PAIRS, PAIRS_AND_BOS], ids=["characters", "pairs", "bos"]
)
def test_what_is_wrong_anywhere_in_it_is_an_error_of_that_file(vocabulary, monkeypatch):
    """Every entry in turn becomes something else: it is read, or refused, or left to the library."""
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    refused = []
    for path in entries(vocabulary.tokenizer()):
        for other in (None, 7, -1, "x", "(", [], {}, [1], {"x": 1}, ["a b"], [[1, 2, 3]]):
            contents = vocabulary.tokenizer()
            inner = contents
            for step in path[:-1]:
                inner = inner[step]
            inner[path[-1]] = other
            try:
                read = language.read_vocabulary(contents)
                assert read.decode(read.encode("ab")[len(read.begins) :]) in ("ab", "")
            except ImportError:
                pass
            except ValueError as error:
                refused.append(str(error))
    assert len(refused) > 20
    known = "tokenizer.json does not describe|vocabulary has no"
    assert [message for message in refused if not re.search(known, message)] == []


def entries(tree, path=()):
    """Paths of all entries in dicts and lists."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from entries(value, (*path, key))


@pytest.mark.parametrize("pattern", [r"\p{Han}+", r"\P{L}+", "(", r"(?i)\X"])
def test_an_expression_that_python_does_not_know_is_left_to_the_library(pattern, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    contents = PAIRS.tokenizer()
    contents["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = pattern
    with pytest.raises(ImportError, match="needs the library tokenizers"):
        language.read_vocabulary(contents)


# Against the library

STEPS = {
    "gpt2": lambda t: t.pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm2": lambda t: t.pre_tokenizers.Sequence(
        [t.pre_tokenizers.Digits(individual_digits=True), t.pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "llama3": lambda t: split(
        t,
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    "qwen2": lambda t: split(
        t,
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    "o200k": lambda t: split(
        t,
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
}


def split(t, pattern):
    return t.pre_tokenizers.Sequence(
        [
            t.pre_tokenizers.Split(t.Regex(pattern), behavior="isolated"),
            t.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def trained(t, steps, normal=None):
    tokenizer = t.Tokenizer(t.models.BPE())
    tokenizer.pre_tokenizer = STEPS[steps](t)
    tokenizer.decoder = t.decoders.ByteLevel()
    if normal:
        tokenizer.normalizer = t.normalizers.NFC()
    trainer = t.trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=t.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>", "<|end|>more"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([MIXED, __doc__, "the king and the queen went home. " * 9], trainer)
    return tokenizer


def large_text():
    """Words, numbers, spaces and characters of every plane, mixed."""
    rng = np.random.default_rng(0)
    pieces = [*MIXED.split(" "), " ", "  ", "\n", " \n ", "\t", "<|end|>", "<|end|>more", "the", "and"]
    pieces += [chr(c) for c in rng.integers(32, 0x2FFFF, 400) if not 0xD800 <= c < 0xE000]
    return "".join(rng.choice(pieces, 20000))


@pytest.mark.peers
@pytest.mark.parametrize("template", [None, "<|end|> $A", "<|end|> <|end|>more $A", "$A <|end|>", "$A"])
@pytest.mark.parametrize(("steps", "normal"), [*((steps, None) for steps in STEPS), ("gpt2", "NFC")])
def test_tokens_are_those_of_the_library(steps, normal, template):
    t = pytest.importorskip("tokenizers")
    theirs = trained(t, steps, normal)
    if template:
        special = [("<|end|>", 0), ("<|end|>more", 1)]
        theirs.post_processor = t.processors.TemplateProcessing(single=template, special_tokens=special)
    ours = language.read_vocabulary(json.loads(theirs.to_str()))
    assert isinstance(ours, language.BytePairs)
    text = large_text()
    expected = theirs.encode(text).ids
    tokens = ours.encode(text)
    assert tokens.tolist() == expected
    if normal is None and template is None:
        assert ours.decode(tokens) == text
    # and what is written is read by the library as the same
    again = t.Tokenizer.from_str(json.dumps(ours.tokenizer()))
    assert again.encode(text).ids == expected


@pytest.mark.peers
def test_characters_are_read_by_the_library():
    t = pytest.importorskip("tokenizers")
    ours = language.Characters("\n abcdef")
    theirs = t.Tokenizer.from_str(json.dumps(ours.tokenizer()))
    text = "bad cafe\n\n  deaf"
    assert theirs.encode(text).ids == ours.encode(text).tolist()
    assert theirs.decode(theirs.encode(text).ids) == text


@pytest.mark.peers
def test_other_kinds_go_through_the_library():
    t = pytest.importorskip("tokenizers")
    theirs = t.Tokenizer(t.models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    theirs.pre_tokenizer = t.pre_tokenizers.Whitespace()
    ours = language.read_vocabulary(json.loads(theirs.to_str()))
    assert isinstance(ours, language.Foreign)
    assert ours.encode("a b c").tolist() == [0, 1, 2]
    assert ours.begins == ()
    theirs.post_processor = t.processors.TemplateProcessing(
        single="? $A b", special_tokens=[("?", 2), ("b", 1)]
    )
    ours = language.read_vocabulary(json.loads(theirs.to_str()))
    assert ours.encode("a b c").tolist() == theirs.encode("a b c").ids == [2, 0, 1, 2, 1]
    assert ours.begins == (2,)


@pytest.mark.parametrize("text", ["[1]", "[" * 100_000, '{"model": {}, "model": {}}', "{"])
def test_a_damaged_vocabulary_is_refused_by_name(tmp_path, text):
    shutil.copytree(located("austen"), tmp_path / "model", ignore=shutil.ignore_patterns("king-james"))
    (tmp_path / "model" / "tokenizer.json").write_text(text)
    with pytest.raises(HubError, match=r"tokenizer\.json: "):
        language.load(tmp_path / "model")
