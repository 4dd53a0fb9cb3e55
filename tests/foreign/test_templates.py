"""Chat templates of real models, as trl's wheel carries them: rendered, cut and labelled as transformers does it.

Where a template does not say what the model is to say, trl has a copy that does: the labels are the same.
"""

import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from lora_np.language import Subwords
from lora_np.language.templates import Template
from tests.drawing import FULL
from tests.language.conftest import byte_level

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.foreign

DRAWN = 200  # conversations for each template
SAMPLE = ["qwen2_5_training", "llama3_training", "gemma_training", "phi3_training", "qwen3", "llama3_1"]
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
def templates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trl")
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "trl", "--dest", str(folder)]
    if subprocess.run(download, check=False, timeout=300).returncode:
        pytest.skip("the wheel of trl cannot be downloaded")
    with zipfile.ZipFile(next(folder.glob("trl-*.whl"))) as wheel:
        names = [name for name in wheel.namelist() if name.endswith(".jinja")]
        return {name.split("/")[-1].removesuffix(".jinja"): wheel.read(name).decode() for name in names}


def vocabulary_for(template):
    """Bytes, some pairs of them across the edges of messages, and the special tokens that a template writes."""
    special = sorted({"<bos>", "<eos>", *re.findall(r"<[^<>\s{}'\"]+>", template)})
    space, line = "Ġ", "Ċ"
    merges = [(line, line), (">", line), (space, "t"), (line, "H"), ("H", "i"), (".", line), (space, space)]
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
    """Of all answers, and none is left unlabelled; where tokens merge across the beginning of one, trl's rule for
    prompts and completions takes the whole token, and so do we."""
    compared = 0
    for name in PAIRS:
        ours, _ = vocabulary_for(templates[name])
        marked, _ = vocabulary_for(templates[f"{name}_training"])
        rng = np.random.default_rng(1)
        for _ in range(DRAWN if FULL else 40):
            messages = [m for m in conversation(rng) if m["role"] != "system"]
            template = Template(ours)
            (tokens, answer, left), copy = template.labelled(messages), Template(marked).labelled(messages)
            assert left == 0
            assert ours.decode(tokens) == marked.decode(copy[0]), name
            begins = [
                template.tokens(messages[:i], add_generation_prompt=True)
                for i in (1, 3, 5)
                if i < len(messages)
            ]
            if all(np.array_equal(tokens[: len(begin)], begin) for begin in begins):
                compared += 1
                assert ours.decode(tokens[answer]) == marked.decode(copy[0][copy[1]]), (name, messages)
            else:
                assert len(ours.decode(tokens[answer])) >= len(marked.decode(copy[0][copy[1]]))
    assert compared > 50
