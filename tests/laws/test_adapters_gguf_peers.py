"""Adapters merged into GGUF files, as llama.cpp, ggml and the package gguf read them."""

import ctypes
import importlib.util

import numpy as np
import pytest

from lora_np import adapters, freeze, language
from lora_np.models import open_gguf
from lora_np.quantise import LAYOUTS, Blocks, quantise
from tests.adapters.test_gguf_merging import weak
from tests.models.test_gguf_vocabulary import LLAMA, WORDS, write

pytestmark = pytest.mark.peers

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6]
NUMBERS = {
    "Q4_0": 2,
    "Q4_1": 3,
    "Q5_0": 6,
    "Q5_1": 7,
    "Q8_0": 8,
    "Q4_K": 12,
    "Q5_K": 13,
    "Q6_K": 14,
}


def judge(path, tokens=TOKENS):
    """llama.cpp's logits after each of a row of tokens, everything but the weights in float32."""
    llama = pytest.importorskip("cyllama.llama.llama_cpp")

    class Model(llama.LlamaModel):
        n_vocab = len(WORDS)  # which the class forgot, and the logits ask for

    settings = llama.LlamaContextParams()
    settings.n_ctx, settings.n_threads, settings.n_threads_batch = 64, 1, 1
    settings.type_k = settings.type_v = settings.flash_attn_type = 0
    context = llama.LlamaContext(Model(str(path)), settings)
    batch = llama.LlamaBatch(n_tokens=len(tokens), embd=0, n_seq_max=1)
    batch.set_batch(tokens, 0, True)
    assert context.decode(batch) == 0
    return np.array([context.get_logits_ith(i) for i in range(len(tokens))])


def ours(path):
    return np.asarray(freeze(language.load(path))(np.array([TOKENS])))[0]


@pytest.fixture
def base(tmp_path, monkeypatch):
    """Write a small model that llama.cpp accepts, with one matrix whose rows are a block of K."""
    monkeypatch.setitem(LLAMA, "llama.feed_forward_length", 256)

    def make(kind, family):
        sizes = {f"{family}.rope.dimension_count": 8, f"{family}.vocab_size": len(WORDS)}
        types = {
            "tokenizer.ggml.token_type": np.array([1] * (len(WORDS) - 1) + [3], np.int32),
        }
        path = tmp_path / "base.gguf"
        write(path, kind=kind, family=family, head=True, metadata={**sizes, **types})
        return path

    return make


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize(
    ("kind", "dtype", "limit"),
    [
        ("F32", None, 1e-5), ("F16", None, 1e-3), ("Q8_0", None, 5e-2), ("Q4_1", "Q8_0", 5e-2),
        ("F32", "Q4_K", 5e-2), ("F32", "Q5_K", 5e-2), ("F32", "Q6_K", 5e-2),
    ],
)  # fmt: skip
def test_llama_cpp_answers_as_the_merged_file_says(tmp_path, base, family, kind, dtype, limit):
    path = base(kind, family)
    adapter = weak(open_gguf(path).config, 0.03)
    if dtype and dtype.endswith("_K"):
        downs = {name: module for name, module in adapter.items() if "down_proj" in name}
        adapter = adapters.Adapter(downs)
    adapters.merge_gguf(path, adapter, tmp_path / "new.gguf", dtype=dtype, any_base=True)
    start, theirs, wanted = judge(path), judge(tmp_path / "new.gguf"), ours(tmp_path / "new.gguf")
    assert np.linalg.norm(theirs - wanted) <= limit * np.linalg.norm(wanted)
    assert np.linalg.norm(theirs - start) > 5 * np.linalg.norm(theirs - wanted)
    *_, second, first = np.sort(wanted, axis=1).T
    clear = first - second > 2 * np.abs(theirs - wanted).max(axis=1)  # and no tie but for rounding
    assert clear.mean() >= 0.5
    assert (theirs.argmax(axis=1) == wanted.argmax(axis=1))[clear].all()


@pytest.mark.parametrize("kind", ["F32", "F16", "Q4_0", "Q8_0"])
def test_gguf_reads_the_weights_that_were_meant(tmp_path, base, kind):
    reader = pytest.importorskip("gguf")
    path = base(kind, "qwen2")
    adapter = weak(open_gguf(path).config, 0.03)
    adapters.merge_gguf(path, adapter, tmp_path / "new.gguf", any_base=True)
    old, new = (
        {tensor.name: tensor for tensor in reader.GGUFReader(file).tensors}
        for file in (path, tmp_path / "new.gguf")
    )
    names = {name: each[0] for name, each in open_gguf(path).names.items()}
    for name in adapter:
        before, after = (
            reader.dequantize(one[names[f"{name}.weight"]].data, one[names[f"{name}.weight"]].tensor_type)
            for one in (old, new)
        )  # fmt: skip
        wanted = before + adapter.delta(name)
        step = {"F32": 1e-6, "F16": 1e-3, "Q8_0": 0.01, "Q4_0": 0.12}[kind]
        assert np.abs(after - wanted).max() <= step * np.abs(wanted).max(), name


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("tails", [3, 1000])
def test_the_encoders_are_as_good_as_those_of_ggml(kind, tails):
    place = importlib.util.find_spec("xllamacpp")
    if place is None:
        pytest.skip("needs xllamacpp")
    encode = ctypes.CDLL(
        f"{place.submodule_search_locations[0]}/xllamacpp.abi3.so"
    ).ggml_quantize_chunk
    whole, array = ctypes.c_int64, ctypes.c_void_p
    encode.argtypes = [ctypes.c_int, array, array, whole, whole, whole, array]
    encode.restype = ctypes.c_size_t
    W = np.random.default_rng(0).standard_t(tails, size=(256, 1024)).astype(np.float32)
    Q = quantise(W, kind)
    data = np.empty(Q.data.shape, LAYOUTS[kind].block)
    size = encode(NUMBERS[kind], W.ctypes.data, data.ctypes.data, 0, *W.shape, None)
    assert size == data.nbytes == Q.nbytes
    theirs = Blocks(kind, data, W.shape)
    assert abs(Q.error(W) / theirs.error(W) - 1) <= 0.005
    rows = [one.data.view(np.uint8).reshape(data.size, -1) for one in (Q, theirs)]
    assert (rows[0] == rows[1]).all(axis=1).mean() >= (0.95 if kind.endswith("_K") else 1)
