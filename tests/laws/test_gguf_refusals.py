"""What is wrong with a GGUF file, or with a model that is to become one: one line that says what, and
nothing is written.
"""

import numpy as np
import pytest

from lora_np import adapters, language
from lora_np.adapters import Adapter, AdapterModule
from lora_np.adapters.adapter import Stored
from lora_np.cli import run
from lora_np.hub import gguf, located
from lora_np.models import open_gguf
from lora_np.quantise import LAYOUTS, Blocks
from tests.adapters.test_gguf_merging import weak
from tests.models.test_gguf_vocabulary import write

UP = "blk.1.ffn_up.weight"
IQ4 = np.zeros((64, 1), LAYOUTS["IQ4_NL"].block)


def rewritten(path, *, without="", kinds=None, **said):
    """Change the metadata of a file, and leave out or replace a tensor."""
    file = gguf.open(path)
    other = Blocks("IQ4_NL", IQ4, (64, 32))
    tensors = {name: info for name, info in file.tensors.items() if name != without}
    for name in kinds or ():
        tensors[name] = tensors[name].__class__("IQ4_NL", tensors[name].shape)
    metadata = {key: file.packed(key) for key in file.metadata}
    read = lambda name: other if name in (kinds or ()) else file
    gguf.write(tensors, read, path.with_name("odd.gguf"), metadata={**metadata, **said})
    return path.with_name("odd.gguf")


#: (what is wrong, the base, options, what the line says); {base} is a good file and {adapter} its adapter
FILES = [
    ("a missing tensor", lambda base: rewritten(base, without=UP), [], "no tensor model.layers.1.mlp.up_proj.weight (llama.cpp's blk.1.ffn_up)"),
    ("an unknown architecture", lambda base: rewritten(base, **{"general.architecture": "mamba"}), [], "family 'mamba' is not read; those that are: gemma2, gemma3, granite, llama"),
    ("a kind without an encoder", lambda base: rewritten(base, kinds=[UP]), [], f"'{UP}' is IQ4_NL, which cannot be written: take --dtype Q8_0"),
    ("a kind that is only read", lambda base: base, ["--dtype", "q2_k"], "dtype must be one of 'F32', 'F16'"),
    ("rows that are no blocks", lambda base: base, ["--dtype", "q4_k"], "has rows of 32, which are not whole blocks of Q4_K: take --dtype Q8_0"),
    ("stretched positions", lambda base: rewritten(base, **{"llama.rope.scaling.type": "yarn"}), [], "scaled by 'yarn' are not read"),
]  # fmt: skip


def refused(arguments, capsys, folder, message):
    before = sorted(folder.rglob("*"))
    assert run([*map(str, arguments)]) in (1, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert message in err
    assert sorted(folder.rglob("*")) == before


@pytest.fixture
def good(tmp_path):
    write(tmp_path / "base.gguf", kind="Q8_0", head=True)
    adapters.save(weak(open_gguf(tmp_path / "base.gguf").config, 0.1), tmp_path / "adapter")
    return tmp_path / "base.gguf", tmp_path / "adapter"


@pytest.mark.parametrize(("what", "make", "options", "message"), FILES)
def test_a_file_that_does_not_fit_is_refused(tmp_path, capsys, good, what, make, options, message):
    base, adapter = good
    words = ["merge", make(base), adapter, "-o", tmp_path / "new.gguf", "--any-base", *options]
    refused(words, capsys, tmp_path, message)


def test_a_directory_is_refused_with_what_opens_it(tmp_path, capsys):
    for base in (located("austen"), "austen"):
        words = ["merge", base, language.located_adapter("king-james"), "-o", tmp_path / "new.gguf"]
        refused(words, capsys, tmp_path, "merge into a directory, which Ollama opens (FROM ./NEW)")


def test_swapped_arguments_are_named(tmp_path, capsys, good):
    base, adapter = good
    adapters.convert(adapter, tmp_path / "a.gguf", to="gguf", base=open_gguf(base).config)
    out = ["-o", tmp_path / "new.gguf"]
    for one, other, message in (
        (adapter, base, "adapter: an adapter, not a model: give the base first"),
        (tmp_path / "a.gguf", base, "general.type is 'adapter', not 'model'"),
        (base, base, "not 'adapter': not a LoRA for llama.cpp"),
        (base, located("austen"), "a model, not an adapter"),
        (adapter, located("austen"), "adapter: an adapter, not a model: give the base first"),
    ):
        refused(["merge", one, other, *out], capsys, tmp_path, message)


def test_a_vocabulary_that_grew_is_refused(tmp_path, capsys, good):
    base, _ = good
    module = AdapterModule.of(A=np.ones((1, 32)), B=np.ones((16, 1)), alpha=1)
    grown = Stored("float32", (270, 32), lambda: np.ones((270, 32), np.float32))
    full = dict.fromkeys(("model.embed_tokens.weight", "lm_head.weight"), grown)
    adapter = Adapter({"model.layers.0.self_attn.k_proj": module}, full=full)
    adapters.save(adapter, tmp_path / "grown")
    words = ["merge", base, tmp_path / "grown", "-o", tmp_path / "new.gguf", "--any-base"]
    refused(words, capsys, tmp_path, "changes the vocabulary: merge it into a directory first")


def test_cuts_of_texts_that_are_not_known_are_named_where_texts_are_cut(tmp_path, capsys, good):
    odd = rewritten(good[0], **{"tokenizer.ggml.pre": "lama-bpe"})
    refused(
        ["generate", odd, "--prompt", "hello"],
        capsys,
        tmp_path,
        "texts cut as 'lama-bpe' are not read",
    )
