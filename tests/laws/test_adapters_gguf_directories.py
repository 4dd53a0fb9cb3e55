"""An adapter merged from a directory into a GGUF file, read again, and in llama.cpp."""

import numpy as np
import pytest

from lora_np import adapters, language
from lora_np.hub import gguf
from tests.adapters.test_gguf_merging import logits

TOKENS = np.array([[3, 1, 4, 1, 5, 9, 2, 6]])


@pytest.mark.parametrize("dtype", [None, "F32", "Q8_0"])
def test_the_shipped_model_becomes_a_file_that_answers_as_it_does(tmp_path, dtype):
    out = tmp_path / "new.gguf"
    made = adapters.merge_gguf("austen", language.located_adapter("king-james"), out, dtype=dtype)
    (row,) = made.rows
    assert row.kind == (dtype or "F16")
    assert row.share_kept == pytest.approx(1, abs=0.01)
    austen = language.load("austen")
    wanted = logits(adapters.attach(austen, language.located_adapter("king-james")))
    found = logits(language.load(out))
    apart = {None: 1e-3, "F32": 1e-6, "Q8_0": 2e-2}[dtype]
    assert np.linalg.norm(found - wanted) <= apart * np.linalg.norm(wanted)
    assert {info.dtype for info in gguf.open(out).tensors.values()} == {"F32", dtype or "F16"}
