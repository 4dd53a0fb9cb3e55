"""What llama.cpp makes of adapters, by its own library, which is built from source: only where that
is installed.
"""

from dataclasses import replace

import numpy as np
import pytest

from lora_np import adapters, freeze, language
from lora_np.hub import gguf
from lora_np.models import open_gguf
from tests.adapters.test_formats import drawn
from tests.models.test_gguf_vocabulary import WORDS, write

pytestmark = pytest.mark.llama

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6]


def logits(base, adapter=None):
    """llama.cpp's, everything in float32."""
    llama_cpp = pytest.importorskip("llama_cpp")
    options = {
        "n_ctx": 64,
        "logits_all": True,
        "type_k": 0,
        "type_v": 0,
        "n_threads": 1,
        "verbose": False,
    }
    model = llama_cpp.Llama(str(base), lora_path=adapter and str(adapter), **options)
    model.eval(TOKENS)
    found = np.array(model.scores[: len(TOKENS)])
    model.close()
    return found


def ours(base, adapter=None):
    model = language.load(base)
    if adapter is not None:
        model = adapters.attach(model, adapter, any_base=True)
    return np.asarray(freeze(model)(np.array([TOKENS])))[0]


@pytest.fixture
def base(tmp_path, request):
    """A small model in F32; its config."""
    family, head = request.param
    sizes = {f"{family}.rope.dimension_count": 8, f"{family}.vocab_size": len(WORDS)}
    kinds = {"tokenizer.ggml.token_type": np.array([1] * (len(WORDS) - 1) + [3], np.int32)}
    write(tmp_path / "base.gguf", kind="F32", family=family, head=head, metadata={**sizes, **kinds})
    return tmp_path / "base.gguf"


def apart(one, two, start):
    """The difference of two logits, relative to what the adapter changes."""
    return float(np.linalg.norm(one - two) / np.linalg.norm(two - start))


@pytest.mark.parametrize(
    "base", [("llama", True), ("llama", False), ("qwen2", False)], indirect=True
)
@pytest.mark.parametrize("rslora", [False, True])
def test_converted_adapters_have_their_strength(tmp_path, base, rslora):
    start = logits(base)
    np.testing.assert_allclose(start, ours(base), atol=1e-5)
    config = open_gguf(base).config
    for seed, roles in enumerate([["linear"], ["linear", "embedding"]]):
        if roles[-1] == "embedding" and config["tie_word_embeddings"]:
            continue
        adapter = drawn(config, seed=seed, roles=roles, scales=(0.02, 0.05), rslora=rslora)
        wanted = ours(base, adapter)
        for through in ("portable", "mlx"):
            adapters.convert(adapter, tmp_path / f"{through}{seed}", to=through, base=config)
        for number, source in enumerate(
            [adapter, tmp_path / f"portable{seed}", tmp_path / f"mlx{seed}"]
        ):
            out = tmp_path / f"{seed}-{number}.gguf"
            adapters.convert(source, out, to="gguf", base=config)
            assert apart(logits(base, out), wanted, start) < 1e-4
            if number == 1:  # convert_lora_to_gguf.py would write the same: A and B as they are
                file, said = gguf.open(out), adapters.load(source)
                assert file.metadata["adapter.lora.alpha"] == said.config["lora_alpha"]
                v = "model.layers.0.self_attn.v_proj"
                np.testing.assert_array_equal(file.read("blk.0.attn_v.weight.lora_b"), said[v].B)


@pytest.mark.parametrize("base", [("llama", True)], indirect=True)
@pytest.mark.parametrize("options", [{}, {"rslora": True, "ranks": (4,), "scales": (0.05,)}])
def test_a_strength_that_check_calls_wrong_is_wrong_by_its_factor(tmp_path, base, options):
    config = open_gguf(base).config
    adapter = drawn(config, roles=["linear"], **{"scales": (0.02, 0.05), **options})
    adapters.save(adapter, tmp_path / "adapter")
    alpha = adapter.config["lora_alpha"]
    # what convert_lora_to_gguf.py makes of it: A and B as they are, one alpha
    modules = {name: replace(module, alpha=alpha, rslora=False) for name, module in adapter.items()}
    adapters.convert(
        replace(adapter, modules=modules), tmp_path / "as-it-is.gguf", to="gguf", base=config
    )
    file = gguf.open(tmp_path / "as-it-is.gguf")
    assert file.metadata["adapter.lora.alpha"] == np.float32(alpha)
    np.testing.assert_array_equal(
        file.read("blk.0.attn_v.weight.lora_b"), adapter["model.layers.0.self_attn.v_proj"].B
    )
    rows = {
        row.module: row for row in adapters.check(tmp_path / "adapter", runtime="llama.cpp").rows
    }
    assert {row.status for row in rows.values()} >= {"wrong scale"}
    said = {
        name: replace(module, alpha=module.alpha * rows[name].scale_error)
        for name, module in adapter.items()
    }
    found, start = logits(base, tmp_path / "as-it-is.gguf"), logits(base)
    assert apart(found, ours(base, replace(adapter, modules=said)), start) < 1e-4
    assert apart(found, ours(base, adapter), start) > 0.01
