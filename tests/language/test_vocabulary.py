"""Vocabularies against the library `tokenizers`, and by themselves; those of GGUF files against
what they come from.
"""

import base64
import json
import shutil
import sys
from itertools import pairwise

import numpy as np
import pytest

from lora_np import language
from lora_np.files import FileError
from lora_np.hub import located
from lora_np.language.vocabulary import Characters, Subwords, read_vocabulary
from lora_np.models.gguf_vocabulary import cuts, gguf_tokenizer
from tests.drawing import FULL
from tests.language.gguf_cases import CUTS, TEXT

from .conftest import ADDED, BYTES, MIXED, SPECIAL, before, byte_level, nasty, needs_tokenizers


def test_a_character_comes_once():
    with pytest.raises(ValueError, match="'a' twice"):
        language.Characters("aba")


@pytest.mark.parametrize("kind", [dict, list])
def test_of_several_chat_templates_the_default_one_is_used(kind):
    templates = {"tool_use": "{{ tools }}", "default": "{{ messages }}"}
    given = (
        [{"name": n, "template": t} for n, t in templates.items()] if kind is list else templates
    )
    files = {"tokenizer_config.json": json.dumps({"chat_template": given}).encode()}
    assert language.Characters("ab", files).chat_template() == "{{ messages }}"


def test_characters_are_read_again_without_a_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    again = read_vocabulary(language.Characters("ab\n").tokenizer())
    assert isinstance(again, language.Characters)
    assert again.encode("ab\nba").tolist() == [0, 1, 2, 1, 0]
    assert language.load("austen").vocabulary.decode([0, 1]) == "\n "


def test_a_missing_library_is_named_where_it_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    read = read_vocabulary(byte_level())
    assert read.tokenizer() == byte_level()  # it can be kept
    for use in (
        lambda: read.encode("a"),
        lambda: read.decode([0]),
        lambda: len(read),
        lambda: read.begins,
    ):
        with pytest.raises(
            ImportError, match=r"needs the library tokenizers.* 'lora-np\[language\]'"
        ):
            use()


def entries(tree, path=()):
    """Paths of all entries in dicts and lists."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from entries(value, (*path, key))


OTHERS = (
    None,
    True,
    7,
    -1,
    "x",
    "(",
    [],
    {},
    [1],
    {"x": 1},
    {"type": "NFD"},
    {"type": "ByteLevel"},
)


@needs_tokenizers
def test_what_differs_from_characters_anywhere_is_the_library_s_or_refused():
    """Every entry in turn becomes something else: what is read cuts texts as the library does."""
    import tokenizers

    start = language.Characters("ab\n").tokenizer()
    read, refused = 0, []
    for path in [
        *entries(start),
        ("normalizer",),
        ("new",),
        ("model", "new"),
        ("model", "vocab", "ab"),
    ]:
        for other in OTHERS:
            contents = json.loads(json.dumps(start))
            inner = contents
            for step in path[:-1]:
                inner = inner[step]
            inner[path[-1]] = other
            try:
                ours = read_vocabulary(contents)
            except ValueError as error:
                refused.append(str(error))
                continue
            if isinstance(other, bool) and path[1:2] == ("vocab",):
                continue  # the library knows that true is not 1
            read += 1
            try:
                theirs = tokenizers.Tokenizer.from_str(json.dumps(contents))
            except Exception:  # what is empty or never asked is not looked at by ours
                assert ours.characters == "ab\n"
                continue
            theirs.no_truncation()
            theirs.no_padding()
            for text in ("", "a", "ab", "ba\n\nab"):
                assert ours.encode(text).tolist() == theirs.encode(text).ids, (path, other)
                assert ours.decode(theirs.encode(text).ids) == theirs.decode(
                    theirs.encode(text).ids
                )
    assert read > 40
    assert len(refused) > 100
    assert all("the library tokenizers cannot read it" in message for message in refused)


@needs_tokenizers
def test_bos_begins_a_text():
    contents = byte_level(special=["<s>"], post_processor=before(("<s>", 256)))
    vocabulary = read_vocabulary(contents)
    assert vocabulary.encode("ab").tolist() == [256, 97, 98]
    assert vocabulary.encode("").tolist() == [256]
    assert vocabulary.begins == (256,)
    assert vocabulary.decode([256, 97]) == "<s>a"
    assert vocabulary.decode([97, 5000]) == "a"
    assert len(vocabulary) == 257
    assert vocabulary.tokenizer() == contents
    two = before(("<s>", 256), ("<t>", 257))
    read = read_vocabulary(byte_level(special=["<s>", "<t>"], post_processor=two))
    assert read.begins == (256, 257)
    assert read.encode("a<s>").tolist() == [256, 257, 97, 256]
    with pytest.raises(ValueError, match="cannot read it"):
        read_vocabulary({"model": {"type": "Unigram", "vocab": 7}})


@needs_tokenizers
@pytest.mark.parametrize("template", ["$A", "[CLS] $A [SEP]", "[CLS] [SEP] $A", "$A [SEP]"])
@pytest.mark.parametrize("words", [("a", "b", "?"), ("c", "d", "e")], ids=["with-a", "without-a"])
def test_what_begins_a_text_is_told_for_every_kind(template, words):
    import tokenizers as t

    theirs = t.Tokenizer(
        t.models.WordLevel({w: i for i, w in enumerate([*words, "[CLS]", "[SEP]"])})
    )
    theirs.pre_tokenizer = t.pre_tokenizers.Whitespace()
    theirs.post_processor = t.processors.TemplateProcessing(
        single=template, special_tokens=[("[CLS]", 3), ("[SEP]", 4)]
    )
    ours = read_vocabulary(json.loads(theirs.to_str()))
    assert isinstance(ours, Subwords)
    text = " ".join(words)
    expected = theirs.encode(text).ids
    assert ours.encode(text).tolist() == expected
    assert list(ours.begins) == expected[: expected.index(0)]


@needs_tokenizers
def test_half_a_character_is_no_text():
    with pytest.raises(ValueError, match=r"character '\\ud83d' in position 2"):
        Subwords(byte_level()).encode("ab\ud83d")


# What a translation of expressions got wrong: each is the library's now

EXPRESSIONS = [
    r"\p{S}+",
    r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
    r"[\s\S]",
    r"\w+",
    r"\bthe\b|^a|z$",
    r"[[:alpha:]]+",
    r"[[:^space:]]+",
    r"[a-z&&[^aeiou]]+",
    r"\p{N}{1,3}+",
    r"\p{Latin}+",
    r"\p{Han}+|\P{L}+",
    r"(?i:'s|'t)|\X",
    r"a++b|(?>a+)",
]


@needs_tokenizers
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_texts_are_cut_as_the_library_cuts_them(expression):
    import tokenizers as t

    cut = t.pre_tokenizers.Split(t.Regex(expression), behavior="isolated")
    text = f"{MIXED} $+€ the atheist aab 12345 zz\naaa z"
    pieces = [piece for piece, _ in cut.pre_tokenize_str(text)]
    # each piece is told from the next by a token of two bytes that only a piece can be
    merges = [("a", "b"), ("t", "h"), ("1", "2"), ("2", "3"), ("z", "z"), ("$", "+")]
    vocabulary = read_vocabulary(byte_level(merges=merges, expressions=[expression]))
    theirs = t.Tokenizer.from_str(json.dumps(byte_level(merges=merges, expressions=[])))
    expected = [i for piece in pieces for i in theirs.encode(piece).ids]
    assert vocabulary.encode(text).tolist() == expected
    assert vocabulary.decode(expected) == text


@needs_tokenizers
def test_an_expression_that_would_take_for_ever_is_an_error_of_the_text():
    vocabulary = read_vocabulary(byte_level(expressions=["(a+)+b"]))
    assert len(vocabulary.encode("aab" * 9)) == 27
    with pytest.raises(ValueError, match="cannot cut the text"):
        vocabulary.encode("a" * 40)


@needs_tokenizers
def test_added_tokens_that_are_normalised_are_found_in_the_normalised_text():
    contents = byte_level(special=["caf\u00e9"], normal="NFC")
    apart, whole = "cafe\u0301", "caf\u00e9"
    as_it_stands = read_vocabulary(contents)
    assert as_it_stands.encode(whole).tolist() == [256]
    assert len(as_it_stands.encode(apart)) == 5
    contents["added_tokens"][0]["normalized"] = True
    assert read_vocabulary(contents).encode(apart).tolist() == [256]


@needs_tokenizers
def test_characters_are_read_by_the_library():
    import tokenizers as t

    ours = language.Characters("\n abcdef")
    theirs = t.Tokenizer.from_str(json.dumps(ours.tokenizer()))
    text = "bad cafe\n\n  deaf"
    assert theirs.encode(text).ids == ours.encode(text).tolist()
    assert theirs.decode(theirs.encode(text).ids) == text


# GGUF: from a tokenizer.json to what llama.cpp's converter writes of it, and back

LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
END = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
# As the models' own files have them.
MODELS = {  # name in GGUF: expressions (None: ByteLevel's own), and what goes with them
    "gpt-2": (None, {}),
    "smollm": (None, {"digits": True}),
    "olmo": (None, {"normal": "NFC"}),  # GPT-NeoX
    "llama-bpe": (
        [rf"{CONTRACTIONS}|{LETTERS}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*{END}"],
        {"whole": True, "bos": True},
    ),
    "qwen2": (
        [rf"{CONTRACTIONS}|{LETTERS}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*{END}"],
        {"normal": "NFC"},
    ),
}


def trained(name):
    """A small tokenizer of the library's, with the steps of a model; tokens are learnt from mixed
    text.
    """
    import tokenizers as t

    expressions, more = MODELS[name]
    tokenizer = t.Tokenizer(t.models.BPE(ignore_merges=more.get("whole", False)))
    steps = [t.pre_tokenizers.Digits(individual_digits=True)] * more.get("digits", False)
    steps += [
        t.pre_tokenizers.Split(t.Regex(each), behavior="isolated") for each in expressions or ()
    ]
    level = t.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=expressions is None)
    tokenizer.pre_tokenizer = t.pre_tokenizers.Sequence([*steps, level])
    tokenizer.decoder = t.decoders.ByteLevel()
    if "normal" in more:
        tokenizer.normalizer = t.normalizers.NFC()
    trainer = t.trainers.BpeTrainer(
        vocab_size=900,
        initial_alphabet=t.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=SPECIAL,
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        [MIXED, *nasty(range(-40, 0)), language.read_text("genesis")[:20000]], trainer
    )
    tokenizer.add_tokens([t.AddedToken(token, normalized=False) for token in ADDED])
    if "bos" in more:
        tokenizer.post_processor = t.processors.TemplateProcessing(
            single="<|end|> $A", special_tokens=[("<|end|>", 0)]
        )
    return tokenizer


def metadata_of(contents, kind="gpt2", **more):
    """What `convert_hf_to_gguf.py` writes of a tokenizer.json: 3 is a control token, 4 one of the
    user's, 5 a gap.
    """
    numbers = contents["model"]["vocab"] | {
        token["content"]: token["id"] for token in contents["added_tokens"]
    }
    at = {i: token for token, i in numbers.items()}
    size = max(at) + 1
    added = {token["id"]: 3 if token["special"] else 4 for token in contents["added_tokens"]}
    said = {
        "model": kind,
        "tokens": [at.get(i, f"[PAD{i}]") for i in range(size)],
        "token_type": np.array([added.get(i, 1) if i in at else 5 for i in range(size)], np.int32),
        **more,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in said.items()}


def merges_of(contents):
    return [m if isinstance(m, str) else " ".join(m) for m in contents["model"]["merges"]]


@needs_tokenizers
@pytest.mark.parametrize("name", MODELS)
def test_a_byte_level_vocabulary_of_a_gguf_file_is_the_one_it_was_written_from(name):
    theirs = trained(name)
    contents = json.loads(theirs.to_str())
    metadata = metadata_of(contents, pre=name, merges=merges_of(contents), bos_token_id=0)
    metadata["tokenizer.ggml.add_bos_token"] = "bos" in MODELS[name][1]
    ours = Subwords(gguf_tokenizer(metadata, "file"))
    for text in nasty(range(800 if FULL else 100)):
        expected = theirs.encode(text).ids
        assert ours.encode(text).tolist() == expected, text
        assert ours.decode(expected) == theirs.decode(expected, skip_special_tokens=False)
    text = "".join(nasty(range(900, 1900 if FULL else 1100))).replace(" ", "")[
        :100_000
    ]  # no space in it
    assert ours.encode(text).tolist() == theirs.encode(text).ids
    assert list(ours.begins) == ([0] if "bos" in MODELS[name][1] else [])


def sentence_pieces():
    """A vocabulary as SentencePiece makes them: pieces by falling score, every byte, and 3 control
    tokens.
    """
    import tokenizers as t

    tokenizer = t.Tokenizer(t.models.BPE())
    tokenizer.normalizer = t.normalizers.Replace(" ", "▁")
    trainer = t.trainers.BpeTrainer(vocab_size=700, show_progress=False)
    tokenizer.train_from_iterator([MIXED, language.read_text("genesis")[:20000]], trainer)
    learnt = json.loads(tokenizer.to_str())["model"]
    made = ["".join(merge) for merge in learnt["merges"]]
    letters = [letter for letter in learnt["vocab"] if len(letter) == 1]
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens = [*first, *dict.fromkeys(made), *letters]
    scores = [0.0] * len(first) + [-float(i) for i in range(len(tokens) - len(first))]
    types = [2, 3, 3] + [6] * 256 + [1] * (len(tokens) - len(first))
    # what one adds later, with a gap before, which could be joined of pieces
    tokens, types = [*tokens, "▁them▁all", "<think>", "  "], [*types, 5, 4, 4]
    return tokens, [*scores, -1000.0, -1000.0, -1000.0], types


def said_of_pieces(**more):
    tokens, scores, types = sentence_pieces()
    said = {
        "model": "llama",
        "tokens": tokens,
        "scores": np.array(scores, np.float32),
        "token_type": types,
    }
    said |= {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0, **more}
    return {f"tokenizer.ggml.{key}": value for key, value in said.items()}


def joined_by_scores(text, numbers, scores, special):
    """llama.cpp's SentencePiece: again and again the neighbours whose union scores highest, the
    leftmost of equals.
    """
    parts = [text]
    for token in sorted(special, key=len, reverse=True):
        parts = [
            piece
            for part in parts
            for i, rest in enumerate(part.split(token) if part not in special else [part])
            for piece in ([token] if i else []) + [rest]
        ]
    result = [numbers["<s>"]]
    for part in parts:
        if part in special:
            result.append(numbers[part])
            continue
        word = list("▁" + part.replace(" ", "▁")) if part else []
        while True:
            unions = [a + b for a, b in pairwise(word)]
            best = max((u for u in unions if u in scores), key=scores.get, default=None)
            if best is None:
                break
            i = unions.index(best)
            word[i : i + 2] = [best]
        for piece in word:
            pieces = [piece] if piece in scores else [f"<0x{byte:02X}>" for byte in piece.encode()]
            result += [numbers[each] for each in pieces]
    return result


@needs_tokenizers
def test_sentencepiece_in_a_gguf_file_is_what_llama_cpp_makes_of_it():
    tokens, scores, types = sentence_pieces()
    numbers = {token: i for i, token in enumerate(tokens)}
    plain = {token: s for token, s, kind in zip(tokens, scores, types, strict=True) if kind == 1}
    special = [token for token, kind in zip(tokens, types, strict=True) if kind in (2, 3, 4)]
    ours = Subwords(gguf_tokenizer(said_of_pieces(), "file"))
    assert {"▁them", "▁all"} < plain.keys()
    for text in ["them all", *nasty(range(300 if FULL else 60))]:
        assert ours.encode(text).tolist() == joined_by_scores(text, numbers, plain, special), text
    assert ours.decode([numbers["▁them▁all"]]) == ""  # a gap
    assert ours.begins == (1,)
    assert ours.decode(ours.encode("the king")[1:]) == "the king"
    assert ours.decode(ours.encode("né 漢")[1:]) == "né 漢"
    around = gguf_tokenizer(said_of_pieces(add_bos_token=False, add_eos_token=True), "file")
    assert Subwords(around).encode("a").tolist() == [numbers["▁a"], 2]
    bare = Subwords(gguf_tokenizer(said_of_pieces(add_space_prefix=False), "file"))
    assert bare.decode(bare.encode(" the")[1:]) == " the"
    assert bare.encode(" the").tolist() == ours.encode("the").tolist()


@pytest.mark.peers
@needs_tokenizers
def test_sentencepiece_in_a_gguf_file_is_the_tokenizer_json_that_transformers_has_for_it():
    """Llama 2's, as transformers converts it: merges of all pairs by score, bytes for what is not
    known.
    """
    import tokenizers as t

    base = pytest.importorskip("transformers.tokenization_utils_base")
    tokens, scores, types = sentence_pieces()
    kept = [i for i, kind in enumerate(types) if kind != 5]
    numbers = {tokens[i]: i for i in kept}
    merges = base.generate_merges(numbers, {tokens[i]: scores[i] for i in kept if types[i] == 1})
    theirs = t.Tokenizer(
        t.models.BPE(
            numbers, list(map(tuple, merges)), unk_token="<unk>", fuse_unk=True, byte_fallback=True
        )
    )
    theirs.normalizer = t.normalizers.Sequence(
        [t.normalizers.Prepend("▁"), t.normalizers.Replace(" ", "▁")]
    )
    theirs.decoder = t.decoders.Sequence(
        [
            t.decoders.Replace("▁", " "),
            t.decoders.ByteFallback(),
            t.decoders.Fuse(),
            t.decoders.Strip(content=" ", left=1),
        ]
    )
    theirs.add_special_tokens(tokens[:3])
    contents = json.loads(theirs.to_str())
    flags = {
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": False,
    }
    contents["added_tokens"] += [
        {"id": i, "content": tokens[i], **flags} for i, kind in enumerate(types) if kind == 4
    ]
    theirs = t.Tokenizer.from_str(json.dumps(contents))
    theirs.post_processor = t.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    ours = Subwords(gguf_tokenizer(said_of_pieces(), "file"))
    for text in nasty(range(800 if FULL else 100)):
        expected = theirs.encode(text).ids
        assert ours.encode(text).tolist() == expected, text
        assert ours.decode(expected) == theirs.decode(expected, skip_special_tokens=False)
    text = "".join(nasty(range(900, 1900 if FULL else 1100))).replace(" ", "")[:100_000]
    assert ours.encode(text).tolist() == theirs.encode(text).ids


@needs_tokenizers
def test_every_name_that_is_read_makes_a_vocabulary():
    contents = byte_level(special=["<|end|>"])
    for name, cut in cuts().items():
        metadata = metadata_of(contents, pre=name, merges=[], bos_token_id=256)
        read = Subwords(gguf_tokenizer(metadata, "file"))
        assert read.encode("a")[-1] == BYTES.index("a")
        assert read.begins == ((256,) if cut.bos else ())


@needs_tokenizers
@pytest.mark.parametrize("name", CUTS)
def test_texts_are_cut_as_the_name_in_a_gguf_file_says(name):
    pieces, normal, whole, bos = CUTS[name]
    metadata = metadata_of(byte_level(special=["<s>"]), pre=name, merges=[], bos_token_id=256)
    contents = gguf_tokenizer(metadata, "file")
    cut = Subwords(contents).library.pre_tokenizer.pre_tokenize_str(TEXT)
    assert [TEXT[start:end] for _, (start, end) in cut] == pieces
    assert contents["normalizer"] == (normal and {"type": normal})
    assert contents["model"]["ignore_merges"] is whole
    assert (contents["post_processor"] is not None) is bos


def test_what_a_gguf_file_says_wrongly_is_refused_by_name():
    """Every entry in turn becomes something else, or is left out: it is read as before, or
    named.
    """
    wrong = []
    for start in (
        metadata_of(byte_level(special=["<s>"]), pre="llama-bpe", merges=["a b"], bos_token_id=256),
        {f"tokenizer.ggml.{key}": value for key, value in PIECES.items()},
    ):
        assert gguf_tokenizer(start, "file")["model"]["vocab"]
        for key in start:
            for other in (
                ...,
                None,
                True,
                7,
                -1,
                1e9,
                "x",
                [],
                {},
                [1],
                ["a b c"],
                [[1]],
                np.ones((2, 2)),
            ):
                metadata = start | {key: other}
                if other is ...:
                    del metadata[key]
                try:
                    gguf_tokenizer(metadata, "file")
                except ValueError as error:
                    wrong.append(str(error))
    assert len(wrong) > 90
    assert [message for message in wrong if not message.startswith("file: ")] == []
    assert gguf_tokenizer({"general.architecture": "llama"}, "file") is None


PIECES = {
    "model": "llama",
    "tokens": ["<unk>", "<s>", "a", "b", "ab"],
    "scores": [0.0, 0.0, -1.0, -2.0, -3.0],
    "token_type": [2, 3, 1, 1, 1],
    "bos_token_id": 1,
    "add_space_prefix": True,
}


@pytest.mark.parametrize("text", ["[1]", "[" * 100_000, '{"model": {}, "model": {}}', "{"])
def test_a_damaged_vocabulary_is_refused_by_name(tmp_path, text):
    shutil.copytree(
        located("austen"), tmp_path / "model", ignore=shutil.ignore_patterns("king-james")
    )
    (tmp_path / "model" / "tokenizer.json").write_text(text)
    with pytest.raises(FileError, match=r"tokenizer\.json: "):
        language.load(tmp_path / "model")


TWICE = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
ANYWHERE = {"type": "Replace", "pattern": {"Regex": "b*"}, "content": "ab"}
BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": True,
    "trim_offsets": True,
    "use_regex": False,
}
AGAIN = {
    "type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 2,
    "pair": [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"],
    "special_tokens": {},
}


def precompiled(*texts):
    """A normaliser of SentencePiece: a trie of no words, and the texts that it could lead to."""
    table = (1024).to_bytes(4, "little") + bytes(1024) + b"".join(text + b"\0" for text in texts)
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()}


def in_sequence(steps, name):
    return {"type": "Sequence", name: steps}


@needs_tokenizers
@pytest.mark.parametrize(
    ("part", "step"),
    [
        ("normalizer", in_sequence([TWICE] * 40, "normalizers")),
        ("normalizer", in_sequence([in_sequence([TWICE] * 20, "normalizers")] * 2, "normalizers")),
        ("normalizer", in_sequence([ANYWHERE] * 30, "normalizers")),
        ("normalizer", {**TWICE, "content": "a" * 5_000}),
        ("normalizer", {"type": "Prepend", "prepend": "a" * 5_000}),
        ("normalizer", precompiled(b"a", b"b" * 5_000)),
        ("normalizer", in_sequence([precompiled(b"aa")] * 40, "normalizers")),
        ("pre_tokenizer", in_sequence([BYTE_LEVEL] * 40, "pretokenizers")),
        ("post_processor", in_sequence([AGAIN] * 40, "processors")),
        ("decoder", in_sequence([TWICE] * 40, "decoders")),
    ],
)
def test_a_tokenizer_that_would_never_end(part, step):
    with pytest.raises(ValueError, match=rf"tokenizer.json: its .*{part}.* at most 3000 are allow"):
        Subwords({**Characters("ab").tokenizer(), part: step})


@needs_tokenizers
def test_a_tokenizer_that_replaces_a_little_is_fine():
    steps = [{"type": "NFKD"}, TWICE, {"type": "Lowercase"}, *[precompiled(b"a")] * 40]
    described = {**Characters("ab").tokenizer(), "normalizer": in_sequence(steps, "normalizers")}
    assert Subwords(described).encode("Ab").tolist() in ([0, 1], [0, 0, 1])


@pytest.mark.parametrize("more", [{}, {"added_tokens_decoder": {}}])
def test_the_map_of_special_tokens_wins_unless_the_settings_list_added_tokens(more):
    files = {
        "tokenizer_config.json": json.dumps({"eos_token": "a", **more}).encode(),
        "special_tokens_map.json": b'{"eos_token": "b", "bos_token": "c"}',
    }
    found = Characters("abc", files).special
    assert found == ({"eos_token": "a"} if more else {"eos_token": "b", "bos_token": "c"})


def test_a_number_beyond_the_vocabulary_is_no_text():
    assert Characters("abc").decode([0, 7, 2]) == "ac"


#: files next to a tokenizer.json of 17 letters and "<|im|>", and tokens of texts, by transformers 5
BESIDE = [
    (
        {"tokenizer_config.json": {
            "eos_token": "<|im|>", "pad_token": "<pad>",
            "added_tokens_decoder": {"18": {"content": "<xx>", "special": False}},
        }, "added_tokens.json": {"<zz>": 18}},
        {"ab<|im|>c": [0, 1, 17, 2], "a<xx>b": [0, 18, 1], "<pad>a": [19, 0], "<zz>": [9, 16, 16, 10]},
        {17, 19},
    ),
    (
        {"tokenizer_config.json": {"eos_token": "<|im|>", "pad_token": "<pad>"},
         "added_tokens.json": {"<zz>": 18}, "special_tokens_map.json": {"bos_token": "<mm>"}},
        {"ab<|im|>c": [0, 1, 17, 2], "a<zz>b": [0, 18, 1], "<pad>a": [20, 0], "<mm>b": [19, 1]},
        {17, 19, 20},
    ),
    (
        {"special_tokens_map.json": {"additional_special_tokens": ["<mm>", "<xx>"], "eos_token": {"content": "<zz>", "lstrip": True}},
         "tokenizer_config.json": {"extra_special_tokens": {"image_token": "<ee>"}}},
        {"a<mm>": [0, 20], "a <xx>": [0, 8, 21], "a <zz>a": [0, 18, 0], "<ee>": [19]},
        {18, 19, 20, 21},
    ),
]  # fmt: skip


def with_a_special(vocab="abcdefgh <>|_mxyz"):
    contents = language.Characters(vocab).tokenizer()
    contents["model"]["vocab"]["<|im|>"] = len(vocab)
    return contents


@needs_tokenizers
@pytest.mark.parametrize(("files", "texts", "specials"), BESIDE)
def test_tokens_that_other_files_add(files, texts, specials):
    files = {name: json.dumps(content).encode() for name, content in files.items()}
    read = read_vocabulary(with_a_special(), files)
    assert {text: read.encode(text).tolist() for text in texts} == texts
    assert read.specials == specials
    assert read.tokenizer() == with_a_special()  # which files keep as it is


@pytest.mark.peers
@pytest.mark.parametrize(("files", "texts", "specials"), BESIDE)
def test_tokens_that_other_files_add_in_transformers(files, texts, specials, tmp_path):
    transformers = pytest.importorskip("transformers")
    for name, content in {**files, "tokenizer.json": with_a_special()}.items():
        (tmp_path / name).write_text(json.dumps(content))
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert {text: theirs.encode(text) for text in texts} == texts
    assert {*theirs.all_special_ids} == specials


@needs_tokenizers
@pytest.mark.parametrize("decoder", [[1], {"a": {"content": "b"}}, {"1": "b"}, {"1": {}}])
def test_damaged_tokens_of_other_files(decoder):
    files = {"tokenizer_config.json": json.dumps({"added_tokens_decoder": decoder}).encode()}
    with pytest.raises(FileError, match="added tokens: "):
        read_vocabulary(with_a_special(), files)
