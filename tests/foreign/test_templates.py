"""Chat templates of real models, as trl carries them: rendered, cut, labelled and packed as
transformers and trl do it.

Where a template does not say what the model is to say, trl has a copy that does: the labels are the
same.
"""

import re
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lora_np.language.data import as_data
from lora_np.language.packing import documents, packed
from lora_np.language.templates import Template
from lora_np.language.vocabulary import Subwords
from tests.drawing import FULL
from tests.language.conftest import byte_level

transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.foreign,
    pytest.mark.skipif(find_spec("trl") is None, reason="trl is not here"),
    pytest.mark.filterwarnings("default"),  # theirs
]

DRAWN = 200  # conversations for each template
SAMPLE = [
    "qwen2_5_training",
    "llama3_training",
    "gemma_training",
    "phi3_training",
    "qwen3",
    "llama3_1",
]
# Templates without marks, and trl's copy with them.
PAIRS = ["llama3", "gemma", "phi3", "cohere", "cohere2"]
WORDS = [
    "Hi",
    " there",
    "\n",
    "\n\n",
    "  ",
    "naïve",
    "漢字",
    "👩‍👧",
    "<|im_end|>",
    "{{ x }}",
    "1 < 2",
    "\t",
    ".",
    "é",
]


@pytest.fixture(scope="module")
def templates():
    files = Path(find_spec("trl").origin).parent.glob("chat_templates/*.jinja")
    return {file.stem: file.read_text() for file in files}


def vocabulary_for(template):
    """Bytes, some pairs of them across the edges of messages, and the special tokens that a
    template writes.
    """
    special = sorted({"<bos>", "<eos>", *re.findall(r"<[^<>\s{}'\"]+>", template)})
    space, line = "Ġ", "Ċ"
    merges = [
        (line, line),
        (">", line),
        (space, "t"),
        (line, "H"),
        ("H", "i"),
        (".", line),
        (space, space),
    ]
    contents = byte_level(merges=merges, special=special)
    settings = '{"bos_token": "<bos>", "eos_token": {"content": "<eos>"}}'
    files = {"chat_template.jinja": template.encode(), "tokenizer_config.json": settings.encode()}
    ours = Subwords(contents, files)
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=ours.library, bos_token="<bos>", eos_token="<eos>", chat_template=template
    )
    return ours, theirs


def conversation(rng):
    def text():
        return "".join(rng.choice(WORDS, rng.integers(1, 8)))

    turns = [{"role": "system", "content": text()}] if rng.random() < 0.3 else []
    for _ in range(rng.integers(1, 4)):
        turns += [{"role": role, "content": text()} for role in ("user", "assistant")]
        if rng.random() < 0.2:
            turns[-1]["reasoning"] = text()
    return turns if rng.random() < 0.8 else turns[:-1]


def outcome(call, *arguments, **options):
    """What comes out, or that it is refused."""
    try:
        return call(*arguments, **options)
    except Exception:
        return "refused"


def test_text_tokens_and_labels_are_those_of_transformers(templates):
    refused = 0
    for name in templates if FULL else SAMPLE:
        ours, theirs = vocabulary_for(templates[name])
        template, rng = Template(ours), np.random.default_rng(0)
        for _ in range(DRAWN if FULL else 40):
            messages = conversation(rng)
            for prompt in (False, True):
                how = {"add_generation_prompt": prompt}
                expected = outcome(theirs.apply_chat_template, messages, tokenize=False, **how)
                assert outcome(template.render, messages, **how) == expected, name
            if expected == "refused":
                refused += 1
                continue
            found = theirs.apply_chat_template(
                messages, return_dict=True, return_assistant_tokens_mask=template.marked
            )
            tokens, answer, _ = template.labelled(messages)
            assert tokens.tolist() == found["input_ids"], name
            if template.marked:
                assert answer.astype(int).tolist() == found["assistant_masks"], name
    assert refused


def test_labels_by_comparison_are_those_of_the_marked_copy(templates):
    """Of all answers, and none is left unlabelled; where tokens merge across the beginning of one,
    trl's rule for prompts and completions takes the whole token, and so do we.
    """
    compared = 0
    for name in PAIRS:
        ours, _ = vocabulary_for(templates[name])
        marked, _ = vocabulary_for(templates[f"{name}_training"])
        rng = np.random.default_rng(1)
        for _ in range(DRAWN if FULL else 40):
            messages = [m for m in conversation(rng) if m["role"] != "system"]
            template = Template(ours)
            (tokens, answer, left), copy = (
                template.labelled(messages),
                Template(marked).labelled(messages),
            )
            assert left == 0
            assert ours.decode(tokens) == marked.decode(copy[0]), name
            begins = [
                template.tokens(messages[:i], add_generation_prompt=True)
                for i in (1, 3, 5)
                if i < len(messages)
            ]
            if all(np.array_equal(tokens[: len(begin)], begin) for begin in begins):
                compared += 1
                assert ours.decode(tokens[answer]) == marked.decode(copy[0][copy[1]]), (
                    name,
                    messages,
                )
            else:
                assert len(ours.decode(tokens[answer])) >= len(marked.decode(copy[0][copy[1]]))
    assert compared > 50


def prepared(records, tokenizer, *, context=None, answers_only=False):
    """What trl's trainer makes of a data set: tokens and labels, packed if ``context`` is given."""
    from datasets import Dataset
    from trl import SFTTrainer

    asked = SimpleNamespace(
        dataset_num_proc=None, dataset_text_field="text", assistant_only_loss=answers_only, max_length=context,
        packing_strategy="bfd", shuffle_dataset=False,
    )  # fmt: skip
    trainer = SimpleNamespace(
        _tokenizer=tokenizer, completion_only_loss="prompt" in records[0], chat_template=None
    )
    prepare = SFTTrainer._prepare_dataset
    return prepare(
        trainer, Dataset.from_list(records), tokenizer, asked, context is not None, None, "train"
    ).to_list()


def record(kind, rng):
    messages = [m for m in conversation(rng) if m["role"] != "system"]
    messages = [{"role": m["role"], "content": m["content"]} for m in messages][
        : len(messages) // 2 * 2
    ]
    while not messages:
        messages = [{"role": role, "content": "Hi"} for role in ("user", "assistant")]
    if kind == "messages":
        return {"messages": messages}
    if kind == "conversational prompts":
        return {"prompt": messages[:-1], "completion": messages[-1:]}
    texts = ["".join(rng.choice(WORDS, rng.integers(1, 30))) for _ in range(2)]
    return (
        {"text": texts[0]}
        if kind == "texts"
        else dict(zip(("prompt", "completion"), texts, strict=True))
    )


@pytest.mark.parametrize("kind", ["messages", "conversational prompts", "prompts", "texts"])
def test_labels_and_packing_are_those_of_trl(templates, kind):
    name = "llama3_training" if kind == "messages" else "llama3"
    ours, theirs = vocabulary_for(templates[name])
    rng = np.random.default_rng(2)
    records = [record(kind, rng) for _ in range(DRAWN)]
    model = SimpleNamespace(vocabulary=ours, generation={}, config={})
    for context in (10_000, 120):
        found = documents(as_data(records), model, context)[0]
        labels = [np.where(d.answer, d.tokens, -100).tolist() for d in found]
        expected = prepared(records, theirs, context=None, answers_only=kind == "messages")
        expected = [
            each for each in expected if any(label != -100 for label in each["labels"][1:context])
        ]
        assert [d.tokens.tolist() for d in found] == [
            each["input_ids"][:context] for each in expected
        ]
        assert labels == [each["labels"][:context] for each in expected]
    rows = packed(found, 120)
    theirs = prepared([{"input_ids": d.tokens.tolist(), "labels": label} for d, label in zip(found, labels, strict=True)],
                      theirs, context=120)  # fmt: skip
    assert [[len(d.tokens) for d in row] for row in rows] == [row["seq_lengths"] for row in theirs]
    assert [[t for d in row for t in d.tokens.tolist()] for row in rows] == [
        row["input_ids"] for row in theirs
    ]
