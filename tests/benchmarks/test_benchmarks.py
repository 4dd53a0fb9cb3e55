"""Every benchmark runs, in its smallest form: every row of its tables, on a tiny model."""

import importlib
import shutil

import numpy as np
import pytest

from benchmarks.__main__ import benchmark_modules, main
from benchmarks._measure import one_thread
from benchmarks.language import TASKS
from lora_np.models import Dialects
from lora_np.models.llama_cpp import row_order
from lora_np.quantise import quantise
from tests.gguf_files import save_gguf
from tests.language.conftest import BYTES

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore::FutureWarning")]

D, INNER, HEADS, KV, LAYERS = 64, 256, 8, 4, 2
WORDS = [*BYTES, "he", "hel", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
METADATA = {
    "general.architecture": "llama",
    "llama.embedding_length": D,
    "llama.feed_forward_length": INNER,
    "llama.block_count": LAYERS,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV,
    "llama.context_length": 8192,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 1e4,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": WORDS,
    "tokenizer.ggml.token_type": [1] * (len(WORDS) - 2) + [3, 3],
    "tokenizer.ggml.merges": ["h e", "he l"],
    "tokenizer.ggml.eos_token_id": len(WORDS) - 1,
    "tokenizer.chat_template": TEMPLATE,
}


@pytest.fixture(autouse=True, scope="module")
def threads():
    """One thread: beside other tests, threads that wait for each other take many times as long."""
    with pytest.MonkeyPatch.context() as patch, one_thread():
        patch.setenv("OPENBLAS_NUM_THREADS", "1")
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random instruction-tuned Llama in eight bits, whose text has byte-level tokens."""
    rng = np.random.default_rng(0)
    size, kv = (len(WORDS), D), D // HEADS * KV
    linear = {"q": (D, D), "k": (kv, D), "v": (kv, D), "o": (D, D)}
    linear = {f"self_attn.{name}_proj": shape for name, shape in linear.items()}
    linear |= {"mlp.gate_proj": (INNER, D), "mlp.up_proj": (INNER, D), "mlp.down_proj": (D, INNER)}
    norms = dict.fromkeys(("input_layernorm", "post_attention_layernorm"), (D,))
    shapes = {"model.embed_tokens": size, "model.norm": (D,)}
    for i in range(LAYERS):
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in (linear | norms).items()}
    config = {
        "model_type": "llama",
        "hidden_size": D,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV,
    }
    tensors, names = {}, Dialects(config)
    for module, shape in shapes.items():
        weight = rng.normal(0, 0.1, shape).astype(np.float32) + (len(shape) == 1)
        order = row_order(config, f"{module}.weight")
        weight = weight if order is None else weight[np.argsort(order)]
        name = f"{names.names_in('llama_cpp', module)[0]}.weight"
        tensors[name] = quantise(weight, "Q8_0") if weight.ndim == 2 else weight
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    save_gguf(tensors, path, metadata=METADATA)
    return path


# A page in which the slider of the rank runs a frame after the other.
PAGE = """<!doctype html><input id="front-rank" type="range" min="1" max="60"><script>
const next = () => requestAnimationFrame(next);
document.querySelector("#front-rank").addEventListener("input", next);
</script>"""


# A package of one function, whose three mutants include one that its test cannot notice.
TINY = {
    "lora_np/__init__.py": "",
    "lora_np/small.py": "def smaller(a, b):\n    return a if a < b else b\n",
    "tests/test_small.py": "from lora_np.small import smaller\n\n\n"
    "def test_smaller():\n    assert smaller(1, 1) == 1\n",
}


def arguments_of(name, model, folder):
    """What each benchmark is given beside ``--quick``."""
    if name == "front":
        (folder / "index.html").write_text(PAGE, encoding="utf-8")
        return ["--site", f"{folder}"]
    if name == "mutants":
        for place, text in TINY.items():
            path = folder / "tree" / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return ["--tree", f"{folder / 'tree'}"]
    return {
        "baking": [f"{model}"],
        "kept": [f"{model}"],
        "loftq": [f"{model}"],
        "language": ["--gguf", f"{model}"],
    }.get(name, [])


def recorded():
    root = importlib.import_module("benchmarks.size").ROOT / "benchmarks"
    return {path.name: path.read_bytes() for path in root.glob("*.json")}


@pytest.mark.parametrize("name", benchmark_modules())
def test_every_row_runs(name, model, tmp_path, capsys):
    if name == "front":
        pytest.importorskip("playwright", reason="extra `browser`")
        if shutil.which("chromium") is None:
            pytest.skip("Chromium is not installed")
    before = recorded()
    quick = [] if name in ("calls", "size") else ["--quick"]  # those take no time
    assert main([name, *arguments_of(name, model, tmp_path), *quick]) == 0
    out, err = capsys.readouterr()
    assert out.strip()
    assert "failed" not in out + err
    assert recorded() == before, "a quick run must not write results"
    if name == "language":
        for title, *_ in TASKS.values():
            assert title in out


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        (["--quick", "--figure", "seconds_a_step", "lora_np"], 2),
        (["--peak", "d 64, 4 layers", "lora_np, fused"], 1),
    ],
)
def test_a_process_of_its_own_prints_numbers(arguments, numbers, capsys):
    assert main(["language", *arguments]) == 0
    values = [float(word) for word in capsys.readouterr().out.split()]
    assert len(values) == numbers
    assert min(values) > 0
