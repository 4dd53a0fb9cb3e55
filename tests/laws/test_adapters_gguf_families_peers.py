"""Adapters merged into GGUF files of each family: in llama.cpp, and in transformers where it reads the
family's files.
"""

import numpy as np
import pytest

from lora_np import adapters, freeze, language
from lora_np.models import open_gguf
from tests.adapters.test_gguf_merging import weak
from tests.language.gguf_cases import FAMILIES
from tests.laws.test_adapters_gguf_peers import judge
from tests.models.test_llama_cpp import converted, model_of

pytestmark = pytest.mark.peers

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6]
TEXT = 12  # tokens of greedy text
WIDE: dict[str, float] = dict.fromkeys(
    ("intermediate_size", "hidden_size", "moe_intermediate_size"), 256
)  # K
WIDE["num_hidden_layers"] = 2


def adapted(base, adapter, tokens):
    model = adapters.attach(language.load(base), adapter, any_base=True)
    return np.asarray(freeze(model)(np.array([tokens])))[0]


def ours(path, tokens):
    return np.asarray(freeze(language.load(path))(np.array([tokens])))[0]


def greedy(path, length):
    tokens = list(TOKENS)
    while len(tokens) < length:
        tokens.append(int(ours(path, tokens)[-1].argmax()))
    return tokens


def assert_llama_cpp_agrees(path, limit):
    """Logits within a limit of ours, and the same greedy text, but for ties within twice that."""
    tokens, same = list(TOKENS), 0
    for _ in range(TEXT):
        theirs, found = judge(path, tokens), ours(path, tokens)
        assert np.linalg.norm(theirs - found) <= limit * np.linalg.norm(found)
        second, first = np.sort(found[-1])[-2:]
        clear = first - second > 2 * np.abs(theirs[-1] - found[-1]).max()
        assert theirs[-1].argmax() == found[-1].argmax() or not clear
        same += theirs[-1].argmax() == found[-1].argmax()
        tokens.append(int(found[-1].argmax()))
    assert same >= (TEXT if limit < 1e-4 else TEXT - 3)


def limit_of(family, dtype):
    """As rounding of activations in llama.cpp has it; it looks GELU up in a table of float16."""
    limit = {"F32": 1e-5, "F16": 1e-3}.get(dtype, 5e-2)
    return limit + 1e-3 if family.startswith("gemma") else limit


def in_transformers(path, tokens):
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, attn_implementation="eager", dtype=torch.float32
    )
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].numpy()
        text = model.generate(torch.tensor([tokens]), max_new_tokens=TEXT, do_sample=False)
    return logits, text[0].tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_becomes_a_file(tmp_path, family):
    converted(model_of(family), tmp_path / "base.gguf")
    adapter = weak(open_gguf(tmp_path / "base.gguf").config, 0.03, roles=("linear", "experts"))
    out = tmp_path / "new.gguf"
    adapters.merge_gguf(tmp_path / "base.gguf", adapter, out, any_base=True)
    wanted, found = adapted(tmp_path / "base.gguf", adapter, TOKENS), ours(out, TOKENS)
    assert np.linalg.norm(found - wanted) <= 1e-5 * np.linalg.norm(wanted)
    assert_llama_cpp_agrees(out, limit_of(family, "F32"))
    if family in ("llama", "qwen2"):
        logits, _ = in_transformers(out, TOKENS)
        assert np.linalg.norm(logits - found) <= 1e-5 * np.linalg.norm(found)


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_1", "Q6_K"])
def test_a_file_in_few_bits_becomes_a_file(tmp_path, kind):
    """transformers makes float32 of it, so that its logits are those of the weights in the file."""
    converted(model_of("llama", **(WIDE if kind == "Q6_K" else {})), tmp_path / "whole.gguf")
    config = open_gguf(tmp_path / "whole.gguf").config
    adapter, nothing = (weak(config, strength) for strength in (0.03, 0.0))
    adapters.merge_gguf(
        tmp_path / "whole.gguf", nothing, tmp_path / "base.gguf", dtype=kind, any_base=True
    )
    out = tmp_path / "new.gguf"
    adapters.merge_gguf(tmp_path / "base.gguf", adapter, out, any_base=True)
    found = ours(out, TOKENS)
    start = ours(tmp_path / "base.gguf", TOKENS)
    wanted = adapted(tmp_path / "base.gguf", adapter, TOKENS)
    assert np.linalg.norm(found - wanted) < np.linalg.norm(start - wanted)
    assert_llama_cpp_agrees(out, limit_of("llama", kind))
    logits, text = in_transformers(out, TOKENS)
    assert np.linalg.norm(logits - found) <= 1e-5 * np.linalg.norm(found)
    assert greedy(out, len(text)) == text
