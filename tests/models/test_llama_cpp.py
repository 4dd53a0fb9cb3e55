"""Families in GGUF files as llama.cpp's converter writes them, against transformers and llama.cpp."""

from itertools import pairwise

import numpy as np
import pytest

from lora_np import freeze, language
from lora_np.language.vocabulary import read_vocabulary
from lora_np.models import gguf_tokenizer, open_gguf
from tests.language.conftest import BYTES
from tests.language.gguf_cases import CUTS, FAMILIES, LLAMA3, LONG, SIZE, TEXT
from tests.language.test_vocabulary import said_of_pieces
from tests.models import test_gguf_vocabulary
from tests.models.test_gguf_vocabulary import VOCABULARY
from tests.rounding import array, assert_as_near, torch_in_double

pytestmark = pytest.mark.peers

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]


def model_of(family, **more):
    """A random model of transformers, whose norms are not all ones."""
    import torch
    import transformers

    torch.manual_seed(0)
    fields = {**SIZE, **FAMILIES[family][3], **more}
    config = transformers.AutoConfig.for_model(family, **fields)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter += 0.3 * torch.randn_like(parameter)
            else:
                parameter *= 5 * (32 / config.hidden_size) ** 0.5
    return model.eval()


def converted(model, path, *, metadata=()):
    """Write a model as llama.cpp's converter does: by the names of the package gguf, in F32."""
    import gguf as peer

    family, size = model.config.model_type, model.config
    architecture, permuted, from_one, _, keys = FAMILIES[family]
    number = {name: number for number, name in peer.MODEL_ARCH_NAMES.items()}[architecture]
    names = peer.get_tensor_name_map(number, size.num_hidden_layers)
    writer = peer.GGUFWriter(path, architecture)
    settings = {
        "context_length": size.max_position_embeddings,
        "embedding_length": size.hidden_size,
        "block_count": size.num_hidden_layers,
        "feed_forward_length": size.intermediate_size,
        "attention.head_count": size.num_attention_heads,
        "attention.head_count_kv": size.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": size.rms_norm_eps,
        **keys,
        **dict(metadata),
    }
    rope = size.rope_parameters
    settings["rope.freq_base"] = rope.get("full_attention", rope)["rope_theta"]
    for key, value in settings.items():
        if isinstance(value, str):
            writer.add_string(f"{architecture}.{key}", value)
        elif isinstance(value, float):
            writer.add_float32(f"{architecture}.{key}", value)
        else:
            writer.add_uint32(f"{architecture}.{key}", value)
    for key, value in VOCABULARY.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_uint32(key, value)

    def add(name, W):
        ours, part = name.rsplit(".", 1)
        writer.add_tensor(f"{names.get_name(ours)}.{part}", np.ascontiguousarray(W))

    for name, W in model.state_dict().items():
        W = W.numpy()
        heads = {"q_proj": size.num_attention_heads, "k_proj": size.num_key_value_heads}
        rotated = next((heads[part] for part in heads if f".{part}." in name), 0)
        if permuted and rotated:
            halves = W.reshape(rotated, 2, len(W) // rotated // 2, *W.shape[1:])
            W = halves.swapaxes(1, 2).reshape(W.shape)
        if from_one and name.endswith("norm.weight"):
            W = W + 1
        if name == "lm_head.weight" and size.tie_word_embeddings:
            continue
        if name.endswith("experts.gate_up_proj"):
            for part, each in zip(("gate", "up"), np.split(W, 2, axis=1), strict=True):
                add(name.replace("gate_up_proj", f"{part}_proj.weight"), each)
        else:
            add(f"{name}.weight" if name.endswith("experts.down_proj") else name, W)
    factors = {"rope_factors_short": "short_factor", "rope_factors_long": "long_factor"}
    for name, key in factors.items():
        if key in rope:
            writer.add_tensor(f"{name}.weight", np.array(rope[key], np.float32))
    if rope.get("rope_type") == "llama3":  # by what llama.cpp's converter divides each angle
        frequencies = rope["rope_theta"] ** -np.linspace(0, 1, 4, endpoint=False)
        stretched = model.model.rotary_emb.inv_freq.numpy()
        writer.add_tensor("rope_freqs.weight", (frequencies / stretched).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def compared(model, path, tokens=TOKENS):
    """Compare logits with those of transformers, judged in float64; return ours."""
    import torch

    found = np.asarray(freeze(language.load(path))(np.array([tokens])))[0]
    with torch.no_grad():
        theirs, exact = (
            array(each(torch.tensor([tokens])).logits[0])
            for each in (model, torch_in_double(model))
        )
    assert_as_near(found, theirs, exact)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers_and_of_llama_cpp(tmp_path, family):
    from tests.laws.test_adapters_gguf_peers import judge

    model, path = model_of(family), tmp_path / "model.gguf"
    converted(model, path)
    assert open_gguf(path).config["model_type"] == family
    found = compared(model, path)
    theirs = judge(path, TOKENS)
    # llama.cpp looks GELU up in a table of float16
    limit = 1e-3 if family.startswith("gemma") else 1e-5
    assert np.linalg.norm(theirs - found) <= limit * np.linalg.norm(found)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["smollm3", "phi3", "granite", "olmo2", "qwen3_moe"])
def test_heads_are_their_own_or_the_embeddings(tmp_path, family, tied):
    model, path = model_of(family, tie_word_embeddings=tied), tmp_path / "model.gguf"
    converted(model, path)
    assert open_gguf(path).config["tie_word_embeddings"] is tied
    compared(model, path)


STRETCHED = {
    "linear": (
        "gemma3_text",
        {"rope_type": "linear", "factor": 4.0, "rope_theta": 900.0},
        {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
    ),
    "longrope": (
        "phi3",
        {**LONG, "rope_theta": 500.0, "partial_rotary_factor": 0.75},
        {"rope.dimension_count": 6, "rope.scaling.original_context_length": 16},
    ),
    "llama3": (
        "llama",
        {**LLAMA3, "rope_theta": 500.0, "original_max_position_embeddings": 16},
        {},
    ),
}


@pytest.mark.parametrize("kind", STRETCHED)
def test_stretched_positions(tmp_path, kind):
    family, rope, keys = STRETCHED[kind]
    more = {"original_max_position_embeddings": 16} if kind == "longrope" else {}
    plain = {"rope_type": "default", "rope_theta": 300.0}
    both = {"full_attention": rope, "sliding_attention": plain}
    model = model_of(family, rope_parameters=both if kind == "linear" else rope, **more)
    if kind == "linear":
        keys = {**keys, "rope.freq_base_swa": 300.0}
    path = tmp_path / "model.gguf"
    converted(model, path, metadata=keys)
    compared(model, path)
    compared(model, path, list(range(24)))  # more than 16


#: with each neighbours joined that no cut keeps apart
TEXTS = [
    TEXT,
    "Hello  World!\n\n\tIt's 1234567 don't WE'LL 12.5% -- naïve café ÅÄÖ 漢字かな한국어 x\r\n",
    "snake_case CamelCase HTTPServer a+b=c {}[]()<> \\ // ### ... --- 'tis 3 33 333 3333",
]


def tokens_of_llama_cpp(path, metadata, texts):
    """Write a tiny model with a vocabulary, and let llama.cpp cut texts."""
    llama = pytest.importorskip("cyllama.llama.llama_cpp")
    words = metadata["tokenizer.ggml.tokens"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_gguf_vocabulary, "WORDS", words)
        nothing = dict.fromkeys(VOCABULARY)
        test_gguf_vocabulary.write(path, kind="F32", metadata={**nothing, **metadata})
    model = llama.LlamaModel(str(path))  # to which the vocabulary belongs
    vocabulary = model.get_vocab()
    return [list(vocabulary.tokenize(text, add_special=True, parse_special=True)) for text in texts]


@pytest.mark.parametrize("name", CUTS)
def test_texts_become_the_tokens_of_llama_cpp(tmp_path, name):
    written = dict(zip(range(256), BYTES, strict=True))
    letters = ["".join(written[byte] for byte in text.encode()) for text in TEXTS]
    merges = list(dict.fromkeys(f"{a} {b}" for text in letters for a, b in pairwise(text)))
    words = [*BYTES, *(merge.replace(" ", "") for merge in merges), "<|end|>"]
    said = {
        "pre": name, "tokens": words, "merges": merges, "bos_token_id": len(words) - 1,
        "token_type": np.array([1] * (len(words) - 1) + [3], np.int32),
        "eos_token_id": len(words) - 1,
    }  # fmt: skip
    metadata = {f"tokenizer.ggml.{key}": value for key, value in {"model": "gpt2", **said}.items()}
    theirs = tokens_of_llama_cpp(tmp_path / "model.gguf", metadata, TEXTS)
    ours = read_vocabulary(gguf_tokenizer(metadata, "file"))
    assert [ours.encode(text).tolist() for text in TEXTS] == theirs


@pytest.mark.parametrize("name", ["Phi-3-mini", "Another"])
def test_white_space_after_special_tokens_is_where_the_model_has_it(tmp_path, name):
    metadata = said_of_pieces() | {"general.name": name}
    ended = {"tokens": "<|endoftext|>", "scores": -1000.0, "token_type": 3}
    for key, value in ended.items():  # llama.cpp looks for it in such models
        listed = [*metadata[f"tokenizer.ggml.{key}"], value]
        kinds = {"scores": np.float32, "token_type": np.int32}
        metadata[f"tokenizer.ggml.{key}"] = np.array(listed, kinds[key]) if key in kinds else listed
    texts = ["<think> \n the king<think>\n", "a<s>  b </s>\tc<|endoftext|> d", "<think>"]
    theirs = tokens_of_llama_cpp(tmp_path / "model.gguf", metadata, texts)
    ours = read_vocabulary(gguf_tokenizer(metadata, "file"))
    assert [ours.encode(text).tolist() for text in texts] == theirs
