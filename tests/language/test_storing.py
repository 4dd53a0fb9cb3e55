"""The tree, loading and saving, generation, adapting."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

import lora_np as lnp
from lora_np import adapters, language
from lora_np.language.blocks import Cache, RMSNorm
from lora_np.language.decoder import decoder_settings
from lora_np.language.vocabulary import Subwords
from tests.drawing import FULL
from tests.rounding import UNIT, assert_near, in_double

from .conftest import (
    CONFIG,
    LETTERS,
    before,
    byte_level,
    checkpoint_name,
    needs_tokenizers,
    random_model,
)


def test_paths_are_the_names_of_transformers(model):
    names = dict(lnp.leaves(model))
    assert "model.layers.1.self_attn.q_proj.W" in names
    assert "model.layers.0.post_attention_layernorm.W" in names
    assert "model.embed_tokens.W = lm_head.W" in names  # tied: one array, both names


@pytest.mark.parametrize("dtype", [None, "bfloat16", "float64"])
def test_what_is_saved_is_loaded(model, tmp_path, dtype):
    language.save(model, tmp_path / "m", dtype=dtype)
    again = language.load(tmp_path / "m")
    tokens = np.arange(20)[np.newaxis]
    unit = 2.0**-8 if dtype == "bfloat16" else UNIT
    assert_near(again(tokens), in_double(model)(tokens), floor=16, unit=unit)
    assert again.vocabulary.decode(again.vocabulary.encode("the sea")) == "the sea"
    language.save(again, tmp_path / "n", dtype=dtype)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / "m" / name).read_bytes() == (tmp_path / "n" / name).read_bytes()


def test_nothing_is_replaced_by_accident(model, tmp_path):
    language.save(model, tmp_path)
    with pytest.raises(FileExistsError, match="force=True"):
        language.save(model, tmp_path)
    language.save(model, tmp_path, force=True)
    adapted = lnp.inject(model, rank=1, alpha=1, rng=0)
    with pytest.raises(ValueError, match=r"has an adapter .*lora_np.merge"):
        language.save(adapted, tmp_path, force=True)


def test_nothing_is_written_or_replaced_before_all_is_checked(model, tmp_path):
    with pytest.raises(ValueError, match="dtype must be one of"):
        language.save(model, tmp_path / "new", dtype="int4")
    assert not (tmp_path / "new").exists()
    (tmp_path / "model.safetensors").write_bytes(b"of another")
    with pytest.raises(FileExistsError, match=r"already holds model.safetensors.*force=True"):
        language.save(model, tmp_path)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"of another"]


def instructed(model, folder, **generation):
    """A model with what instructed ones come with: a chat template, special tokens, settings of
    generation.
    """
    language.save(model, folder)
    tokenizer = {
        "tokenizer_class": "LlamaTokenizerFast",
        "eos_token": ".",
        "chat_template": "{{ messages }}",
    }
    beside = {
        # not as ours is laid out
        "tokenizer_config.json": json.dumps(tokenizer, indent=4).encode(),
        "special_tokens_map.json": b'{"eos_token": "."}',
        "chat_template.jinja": "{{ bos_token }}\u4f60\r\n".encode(),
        "tokenizer.model": bytes(range(256)),
    }
    for name, content in beside.items():
        (folder / name).write_bytes(content)
    (folder / "generation_config.json").write_text(json.dumps({"temperature": 0.6, **generation}))
    return beside


def test_what_came_with_a_model_is_saved_as_it_came(model, tmp_path):
    beside = instructed(model, tmp_path / "base", eos_token_id=[3, 4])
    base = language.load(tmp_path / "base")
    tuned = lnp.merge(moved(lnp.inject(base, rank=2, alpha=2, rng=0)))
    language.save(tuned, tmp_path / "tuned")
    assert {name: (tmp_path / "tuned" / name).read_bytes() for name in beside} == beside
    written = json.loads((tmp_path / "tuned" / "generation_config.json").read_text())
    assert written == {"temperature": 0.6, "eos_token_id": [3, 4]}
    # of another vocabulary nothing is said
    other = dataclasses.replace(
        base, vocabulary=language.Characters(base.vocabulary.characters[::-1])
    )
    language.save(other, tmp_path / "other")
    assert not (tmp_path / "other" / "chat_template.jinja").exists()
    settings = json.loads((tmp_path / "other" / "tokenizer_config.json").read_text())
    assert settings == {"tokenizer_class": "PreTrainedTokenizerFast"}


def test_a_model_that_is_replaced_leaves_nothing_of_its_own_but_its_card(model, tmp_path):
    instructed(model, tmp_path / "m")
    for name in ("README.md", "model.safetensors.index.json", "model-00001-of-00002.safetensors"):
        (tmp_path / "m" / name).write_text("{}")
    language.save(model, tmp_path / "m", force=True)
    assert sorted(os.listdir(tmp_path / "m")) == [
        *(
            "README.md",
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        )
    ]
    (tmp_path / "m" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds notes.txt, which would be lost"):
        language.save(model, tmp_path / "m", force=True)
    assert language.load(tmp_path / "m")
    language.save(model, tmp_path / "new" / "folders" / "m")  # are made


def test_generation_ends_where_its_settings_say(model, tmp_path):
    plain = language.generate(model, "the ", tokens=40, temperature=0)
    tokens = [LETTERS.index(c) for c in plain]
    assert len(plain) == 44
    first, second = tokens[10], tokens[20]
    for ends, expected in (
        (first, tokens[4:].index(first)),
        ([second, first], min(tokens[4:].index(end) for end in (first, second))),
        (None, 40),
    ):
        folder = tmp_path / str(ends)
        instructed(model, folder, eos_token_id=ends)
        told = []
        said = language.generate(
            language.load(folder), "the ", tokens=40, temperature=0, stream=told.append
        )
        assert "".join(told) == said == plain[: 4 + expected]  # without the token that ends it
    # what config.json says counts where the other file says nothing
    config = {**model.config, "eos_token_id": first}
    ended = dataclasses.replace(model, config=config)
    said = language.generate(ended, "the ", tokens=40, temperature=0)
    assert said == plain[: 4 + tokens[4:].index(first)]
    wrong = dataclasses.replace(model, generation={"eos_token_id": "."})
    with pytest.raises(
        ValueError, match=r"generation_config.json: eos_token_id must be .* got '\.'"
    ):
        language.generate(wrong, "the ")


# Saves a model and is killed at the n-th thing that it asks of the system.
KILLED = """
import os, signal, sys
from lora_np import language
model = language.load(sys.argv[1])
left = int(sys.argv[3])

def count(event, arguments):
    global left
    if event in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.listdir", "shutil.rmtree"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
language.save(model, sys.argv[2], force=True, dtype="bfloat16")
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
@pytest.mark.parametrize("old", [False, True])
def test_killed_at_any_moment_a_model_is_whole_or_not_there(model, tmp_path, old):
    base, target = tmp_path / "base", tmp_path / "made" / "m"
    instructed(model, base)
    new = tmp_path / "new"
    language.save(language.load(base), new, dtype="bfloat16")
    content = lambda folder: {path.name: path.read_bytes() for path in folder.iterdir()}
    seen = set()
    for moment in range(1, 100, 1 if FULL else 7):
        shutil.rmtree(tmp_path / "made", ignore_errors=True)
        if old:
            shutil.copytree(base, target)
        done = subprocess.run([sys.executable, "-c", KILLED, str(base), str(target), str(moment)])
        there = content(target) if target.exists() else None
        assert there in ((content(base), content(new), None) if old else (None, content(new)))
        if there is None and old:  # between two renames: the next run puts it back first
            assert [path for path in target.parent.rglob("*.old") if content(path) == content(base)]
        seen.add(None if there is None else there == content(new))
        language.save(language.load(base), target, dtype="bfloat16", force=True)
        assert content(target) == content(new)
        left = [name for name in os.listdir(target.parent) if name != "m"]
        assert len(left) <= 1  # what the killed run was writing: nobody else's to remove
        assert all(name.startswith(".lora-np-") for name in left)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert moment > 20
    every = {None, False, True} if old else {None, True}
    assert seen == every if FULL else {True} < seen <= every


@pytest.mark.parametrize("merge", [lnp.merge, lambda m: lnp.merge(m, quantise="int8")])
@pytest.mark.parametrize("target", ["lm_head", "model.embed_tokens"])
def test_a_head_that_is_merged_into_is_no_longer_tied(model, tmp_path, target, merge):
    merged = merge(moved(lnp.inject(model, rank=2, alpha=2, rng=0, targets=[target])))
    language.save(merged, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"] is False
    tokens = np.arange(20)[np.newaxis]
    again = language.load(tmp_path)
    for each in (again, merged):
        assert_near(each(tokens), in_double(again)(tokens))
    assert np.abs(again(tokens) - model(tokens)).max() > 1
    # and a config that still says tied does not throw away what is stored, as in transformers
    (tmp_path / "config.json").write_text(json.dumps(dict(model.config)))
    np.testing.assert_array_equal(language.load(tmp_path)(tokens), again(tokens))


def test_a_head_with_the_numbers_of_the_embedding_is_stored_once(model, tmp_path):
    merged = lnp.merge(lnp.inject(model, rank=2, alpha=2, rng=0, targets=["lm_head"]))  # B is zero
    assert merged.lm_head.W is not merged.model.embed_tokens.W
    language.save(merged, tmp_path)
    again = language.load(tmp_path)
    assert again.lm_head.W is again.model.embed_tokens.W


def moved(adapted):
    """Adapters as after some training: B is not zero."""
    rng = np.random.default_rng(0)
    return lnp.replace(
        adapted, lnp.Tensor, lambda path, t: lnp.Tensor(rng.normal(size=t.shape).astype(t.dtype))
    )


LINEAR = {"rope_type": "linear"}
LLAMA3 = {"rope_type": "llama3", "factor": 2.0}
YARN = {"rope_type": "yarn", "factor": 2.0}
MISTRAL = {"model_type": "mistral"}
QWEN = {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 8}
SMOLLM = {"model_type": "smollm3"}
GEMMA3 = {"model_type": "gemma3_text", "head_dim": 4, "sliding_window": 8}
PHI3 = {"model_type": "phi3"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"model_type": "bert"},
            "model_type must be one of 'apertus', 'arcee',.* 'starcoder2', got 'bert'$",
        ),
        (
            {"model_type": "falcon"},
            "model_type must be one of 'apertus',.* 'starcoder2', got 'falcon'$",
        ),
        ({"model_type": "nonsuch"}, "model_type must be one of 'apertus', .*, got 'nonsuch'$"),
        ({"model_type": ["llama"]}, r"model_type must be one of 'apertus', .*, got \['llama'\]$"),
        ({"model_type": None}, "config.json: model_type must be one of 'apertus', .* is missing$"),
        (
            {"hidden_size": None},
            r"embed_tokens.weight must have shape \(30, 4096\) to fit config.json",
        ),
        ({"hidden_size": "x"}, "config.json: hidden_size must be a whole number, got 'x'"),
        (
            {"max_position_embeddings": 0},
            "json: max_position_embeddings must be at least 1, got 0",
        ),
        ({"max_position_embeddings": "x"}, "json: max_position_embeddings must be .*got 'x'"),
        ({"rms_norm_eps": "x"}, "json: rms_norm_eps must be a number, got 'x'"),
        (
            {"tie_word_embeddings": "no"},
            "json: tie_word_embeddings must be true or false, got 'no'",
        ),
        ({"rope_theta": -1}, "json: rope_theta must be at least 0, got -1"),
        ({"rope_scaling": "linear"}, "json: rope_scaling must be an object or null, got 'linear'"),
        ({"rope_scaling": LINEAR | {"factor": "two"}}, "json: factor must be a number, got 'two'"),
        ({"rope_parameters": LINEAR | {"factor": 0}}, "json: factor must be above 0, got 0"),
        ({"rope_scaling": LLAMA3}, "json: low_freq_factor must be .* but it is missing"),
        (
            {"rope_scaling": LLAMA3 | {"low_freq_factor": 4, "high_freq_factor": 4}},
            "high_freq_factor must be above 4, got 4",
        ),
        ({"rope_scaling": YARN, "rope_theta": 1}, "rope_theta must be above 1, got 1"),
        (
            {"rope_scaling": YARN | {"truncate": 0}},
            "truncate must be true or false, got 0",
        ),
        (
            {"rope_scaling": YARN | {"mscale": "large"}},
            "mscale must be a number, got 'large'",
        ),
        (MISTRAL | {"sliding_window": 0}, "json: sliding_window must be at least 1, got 0"),
        (MISTRAL | {"sliding_window": -1}, "json: sliding_window must be at least 1, got -1"),
        (
            QWEN | {"layer_types": ["full_attention"]},
            "layer_types must have an entry for each of 2 layers, got .'full_attention'.",
        ),
        (
            QWEN | {"layer_types": ["full_attention", "x"]},
            r"layer_types must be one of .*got 'x'",
        ),
        (
            SMOLLM | {"no_rope_layers": [1]},
            r"no_rope_layers must have an entry for each of 2 layers, got \[1\]",
        ),
        (
            SMOLLM | {"no_rope_layers": 1},
            "no_rope_layers must have an entry for each of 2 layers, got 1$",
        ),
        (
            {"num_key_value_heads": 3},
            "num_key_value_heads must divide num_attention_heads = 4, got 3",
        ),
        ({"head_dim": 3}, "head_dim must be even"),
        (
            {"intermediate_size": 25},
            r"gate_proj.weight must have shape \(25, 16\) to fit config.json",
        ),
        ({"num_hidden_layers": 3}, "no tensor model.layers.2.self_attn.q_proj.weight"),
        ({"num_hidden_layers": 1}, r"model.layers.1.* has no place in a llama model"),
        ({"rope_scaling": {"rope_type": "proportional"}}, "rope_type must be one of"),
        (
            {"rope_scaling": {"rope_type": "longrope"}},
            "short_factor must be a list of 2 numbers, got None",
        ),
        (
            {
                "rope_scaling": {
                    "rope_type": "longrope",
                    "short_factor": [1, 0],
                    "long_factor": [1, 1],
                }
            },
            "short_factor must be above 0, got 0",
        ),
        (
            {"rope_scaling": {"rope_type": "dynamic", "alpha": 10.0}},
            "rope_type must be one of .*got 'alpha'",
        ),
        (
            {"rope_scaling": {"stretch": 2.0}},
            "stretch is not understood among the parameters of rotary",
        ),
        (
            GEMMA3 | {"rope_parameters": LINEAR | {"factor": 2.0}},
            "rope_parameters must have an object for each of .*full_attention",
        ),
        (
            GEMMA3 | {"use_bidirectional_attention": True},
            "use_bidirectional_attention must be false in a gemma3",
        ),
        (
            GEMMA3 | {"final_logit_softcapping": "x"},
            "final_logit_softcapping must be a number, got 'x'",
        ),
        ({"hidden_act": "xielu"}, "hidden_act must be one of 'silu', .*got 'xielu'"),
        ({"qk_layernorm": True}, "qk_layernorm must be false in a llama model"),
        (
            {"partial_rotary_factor": 0.25, **PHI3},
            "head_dim must be even .* got 4, of which 1 turn",
        ),
        ({"hidden_act": "relu"}, "hidden_act must be one of"),
        (
            {"hidden_activation": "gelu_pytorch_tanh"},
            'hidden_activation must be "silu" in a llama model.* got \'gelu',
        ),
        # what would be computed otherwise
        ({"is_causal": False}, "json: is_causal must be true in a llama model.*, got False"),
        (
            {"use_sliding_window": True},
            "use_sliding_window must be false in a llama model.*, got True",
        ),
        ({"sliding_window": 8}, "sliding_window must be null in a llama model.*, got 8"),
        (
            {"layer_types": ["full_attention", "sliding_attention"]},
            r"layer_types must be \[.* in a llama model",
        ),
        ({"no_rope_layers": [1, 0]}, "no_rope_layers must be null"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor must be 1 in a llama model"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor must be 1"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping must be null"),
        ({"embedding_multiplier": 12.0}, "embedding_multiplier must be 1"),
        (
            MISTRAL | {"use_sliding_window": True},
            "use_sliding_window must be false in a mistral model",
        ),
        (
            QWEN | {"use_bidirectional_attention": True},
            "use_bidirectional_attention must be false in a qwen2",
        ),
    ],
)
def test_a_directory_that_is_not_understood(model, tmp_path, change, words):
    language.save(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ValueError, match=words):
        language.load(tmp_path)


def test_rope_scaling_replaces_rope_parameters_and_says_so():
    tokens, linear = np.array([[1, 2, 3]]), LINEAR | {"factor": 2.0}
    with pytest.warns(UserWarning, match="rope_parameters is ignored beside rope_scaling"):
        both = random_model(rope_parameters=linear, rope_scaling=linear | {"factor": 3.0})
    alone = random_model(rope_scaling=linear | {"factor": 3.0})
    np.testing.assert_array_equal(both(tokens), alone(tokens))
    same = random_model(rope_parameters=linear, rope_scaling=linear)  # nothing to warn of
    assert (same(tokens) != alone(tokens)).any()


def test_what_changes_nothing_is_taken(model, tmp_path):
    language.save(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    same = {
        "is_causal": True,
        "use_sliding_window": False,
        "sliding_window": None,
        "pretraining_tp": 1,
    }
    same |= {
        "layer_types": ["full_attention"] * 2,
        "partial_rotary_factor": 1.0,
        "max_window_layers": 1,
    }
    (tmp_path / "config.json").write_text(json.dumps({**config, **same}))
    tokens = np.arange(20)[np.newaxis]
    np.testing.assert_array_equal(language.load(tmp_path)(tokens), model(tokens))


def test_a_null_in_a_config_counts_as_missing(model, tmp_path):
    language.save(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    null = {"max_position_embeddings": None, "rms_norm_eps": None, "rope_scaling": None}
    (tmp_path / "config.json").write_text(json.dumps({**config, **null}))
    assert language.load(tmp_path).context == 2048


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match="nothing: no such directory, and nothing is downloaded; shipped: austen",
    ):
        language.load("nothing")
    with pytest.raises(FileNotFoundError, match=r"config.json: no such file"):
        language.load(tmp_path)


@pytest.mark.parametrize("tokens", [0, 1, 40, 100])  # the context is 32: it starts afresh
def test_the_cache_changes_nothing(model, tokens):
    """Greedy text with kept keys and values is the text of the model asked anew for each token."""
    said = language.generate(model, "the ", tokens=min(tokens, 28), temperature=0)
    slow = "the "
    for _ in range(min(tokens, 28)):
        slow += model.vocabulary.decode(
            [model(model.vocabulary.encode(slow)[np.newaxis])[0, -1].argmax()]
        )
    assert said == slow
    assert len(language.generate(model, "the ", tokens=tokens)) == 4 + tokens


@pytest.mark.parametrize(
    ("said", "window"), [({}, 4096), ({"sliding_window": None}, None), ({"sliding_window": 5}, 5)]
)
def test_mistral_has_a_window_unless_its_config_says_null(said, window):
    """As MistralConfig of transformers has it."""
    layers = decoder_settings({**CONFIG, **MISTRAL, **said}).layers
    assert [layer.window or None for layer in layers] == [window] * 2


@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize("prompt", [1, 31, 32, 33, 100])
def test_a_long_prompt_leaves_the_same_cache(prompt, window):
    """Its tokens at once and one by one: the same logits, then and for what follows."""
    model = random_model(max_position_embeddings=256, model_type="mistral", sliding_window=window)
    tokens = np.random.default_rng(prompt).integers(0, 30, (2, prompt + 3))
    caches = [[Cache(prompt + 3) for _ in model.model.layers] for _ in range(2)]
    logits = [model(tokens[:, :prompt], caches=caches[0])]
    logits += [model(tokens[:, i : i + 1], caches=caches[0]) for i in range(prompt, prompt + 3)]
    slow = [model(tokens[:, i : i + 1], caches=caches[1]) for i in range(prompt + 3)]
    exact = in_double(model)(tokens)
    for found in (np.concatenate(logits, 1), np.concatenate(slow, 1), model(tokens)):
        assert_near(found, exact)


def test_generation_is_streamed_and_repeats_with_its_rng(model):
    pieces = []
    said = language.generate(model, "a", tokens=50, rng=3, top_p=0.9, stream=pieces.append)
    assert "".join(pieces) == said
    assert len(pieces) == 51
    assert said == language.generate(model, "a", tokens=50, rng=3, top_p=0.9)
    assert said != language.generate(model, "a", tokens=50, rng=4, top_p=0.9)


def test_top_p_draws_among_the_most_likely(model):
    """With a tiny top_p only the most likely token is left."""
    greedy = language.generate(model, "the ", tokens=20, temperature=0)
    assert language.generate(model, "the ", tokens=20, top_p=1e-6, temperature=2.0) == greedy


@pytest.mark.parametrize("changes", [{}, {"model_type": "mistral", "sliding_window": 5}])
@pytest.mark.parametrize("tokens", [0, 1, 15, 60])  # the context is 32: then a text starts afresh
def test_several_prompts_are_continued_as_each_alone(changes, tokens):
    model = random_model(**changes)
    prompts = ["the king ", "a", "the horse went. ", "sea"]
    alone = [language.generate(model, prompt, tokens=tokens, temperature=0) for prompt in prompts]
    together = language.generate(model, prompts, tokens=tokens, temperature=0)
    assert together == alone
    assert [len(text) for text in together] == [len(prompt) + tokens for prompt in prompts]
    assert language.generate(model, [], tokens=tokens) == []
    assert language.generate(model, prompts[:1], tokens=tokens, temperature=0) == alone[:1]


def test_each_of_several_texts_ends_where_it_would_alone(model):
    prompts = ["the ", "a", "sea went "]
    plain = language.generate(model, prompts, tokens=20, temperature=0)
    end = plain[0][10]
    ended = dataclasses.replace(model, generation={"eos_token_id": LETTERS.index(end)})
    said = language.generate(ended, prompts, tokens=20, temperature=0)
    for prompt, text, whole in zip(prompts, said, plain, strict=True):
        at = whole.find(end, len(prompt))
        assert text == (whole if at < 0 else whole[:at])
    with pytest.raises(ValueError, match="stream is for one prompt, got 3"):
        language.generate(model, prompts, stream=print)
    for wrong in (5, [5], None):
        with pytest.raises(
            TypeError, match=r"prompt must be text or a list of texts, got (5|\[5\]|None)"
        ):
            language.generate(model, wrong)
    with pytest.raises(ValueError, match="at least one token"):
        language.generate(model, ["a", ""])


@pytest.mark.parametrize("window", [None, 4])
def test_a_token_sees_only_its_own_text(window):
    """Texts packed in a row, and padding on both sides: logits are those of each text alone, with
    caches too.
    """
    model = random_model(model_type="mistral", sliding_window=window)
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 30, (2, n)) for n in (5, 1, 12, 3)]
    texts = np.repeat(np.repeat([[0, 1, 2, 1]], 2, axis=0), [5, 1, 12, 3], axis=1)
    texts[:, -3:] = 3
    tokens = np.concatenate(parts, axis=1)
    wide = in_double(model)
    alone = np.concatenate([wide(part) for part in parts], axis=1)
    for each in (model, language.composed_operations(model)):
        assert_near(each(tokens, sequence_ids=texts), alone)
        caches = [Cache(tokens.shape[1]) for _ in model.model.layers]
        steps = [each(tokens[:, :9], caches=caches, sequence_ids=texts[:, :9])]
        steps += [
            each(tokens[:, i : i + 1], caches=caches, sequence_ids=texts[:, : i + 1])
            for i in range(9, 21)
        ]
        assert_near(np.concatenate(steps, axis=1), alone)
    mask = np.array([[0] * 4 + [1] * 12, [1] * 16])
    padded = model(tokens[:, :16], sequence_ids=mask)
    assert_near(padded[:1, 4:], wide(tokens[:1, 4:16]))
    assert_near(padded[1], wide(tokens[:, :16])[1])


@needs_tokenizers
def test_bos_goes_before_a_prompt_and_is_not_in_the_text():
    model = random_model(vocab_size=257)
    plain, bos = (
        language.build(
            model.config,
            {checkpoint_name(p.split(" = ")[0]): a for p, a in lnp.leaves(model)}.get,
            vocabulary=Subwords(byte_level(special=["<s>"], post_processor=processor)),
        )
        for processor in (None, before(("<s>", 256)))
    )
    pieces = []
    said = language.generate(bos, "ab", tokens=20, temperature=0, stream=pieces.append)
    assert said == language.generate(plain, "<s>ab", tokens=20, temperature=0).removeprefix("<s>")
    assert said.startswith("ab")
    assert said.startswith("".join(pieces))
    assert pieces[0] == "ab"
    assert language.generate(bos, "", tokens=3)  # BOS alone is a beginning
    assert language.likelihood(bos, "abc" * 20, max_length=9).tokens == 9 * (60 // 9)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prompt": ""}, "at least one token"),
        ({"prompt": "É"}, "no 'É' .character 1"),
        ({"temperature": -1.0}, "temperature must be at least 0"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"tokens": -1}, "tokens must be at least 0"),
    ],
)
def test_generation_with_wrong_settings(model, settings, words):
    with pytest.raises(ValueError, match=words):
        language.generate(model, **{"prompt": "a", **settings})


def test_a_model_whose_numbers_overflow_says_nothing(model):
    grown = lambda path, norm: dataclasses.replace(norm, W=norm.W * np.float32(1e38))
    huge = lnp.replace(model, RMSNorm, grown)
    with pytest.raises(FloatingPointError, match="logits are not finite"):
        language.generate(huge, "the ", tokens=3)


def test_a_model_learns_a_text_and_its_adapter_travels(model, text, tmp_path):
    seen = []
    result = language.finetune(
        model,
        text,
        rank=4,
        alpha=8,
        steps=40,
        batch_size=4,
        lr=2e-2,
        watch=lambda step, m: seen.append(step),
        progress=False,
    )
    assert result.after < 0.8 * result.before
    assert seen == list(range(40))
    assert result.trainable == sum(leaf.size for _, leaf in lnp.trainable(result.model))
    adapters.save(result.model, tmp_path / "adapter")
    again = adapters.attach(model, adapters.load(tmp_path / "adapter"))
    tokens = model.vocabulary.encode(text[:30])[np.newaxis]
    np.testing.assert_array_equal(lnp.value(again(tokens)), lnp.value(result.model(tokens)))
    merged = lnp.merge(result.model)
    assert_near(merged(tokens), in_double(result.model)(tokens))
    held_out = language.likelihood(merged, text[-600:])
    assert held_out.loss == pytest.approx(result.after, rel=0.2)
    assert held_out.bits_per_byte == pytest.approx(held_out.loss / np.log(2))


def test_all_linear_leaves_the_head_out(model, text):
    result = language.finetune(model, text, rank=1, steps=1, progress=False)
    paths = [path for path, _ in lnp.trainable(result.model)]
    assert len(paths) == 2 * 7 * 2
    assert not any("lm_head" in path for path in paths)


def test_a_run_that_gets_worse_says_so_and_one_that_is_not_finite_stops(model, text):
    austen, genesis = language.load("austen"), language.read_text("genesis")[:4000]
    worse = language.finetune(austen, genesis, steps=4, max_length=64, lr=1e4, progress=False)
    assert worse.diverged
    assert worse.after > worse.before
    with pytest.raises(FloatingPointError, match="learning rate below"):
        language.finetune(model, text, steps=9, lr=1e30, progress=False)


def test_a_run_that_is_stopped_keeps_what_it_reached(model, text):
    def stop(step, adapted):
        if step == 5:
            raise KeyboardInterrupt

    result = language.finetune(model, text, steps=50, lr=1e-2, watch=stop, progress=False)
    assert result.interrupted
    assert result.after < result.before


def test_a_run_that_is_resumed_ends_bit_for_bit_the_same(model, text, tmp_path):
    settings = {"rank": 2, "steps": 12, "lr": 1e-2, "dropout": 0.1, "progress": False}
    whole = language.finetune(model, text, **settings)

    def die(step, adapted):
        if step == 7:
            raise RuntimeError("killed")

    file = tmp_path / "checkpoint.npz"
    with pytest.raises(RuntimeError):
        language.finetune(model, text, **settings, checkpoint=file, watch=die)
    again = language.finetune(model, text, **settings, checkpoint=file, resume=True)
    for (path, one), (_, other) in zip(
        lnp.trainable(whole.model), lnp.trainable(again.model), strict=True
    ):
        np.testing.assert_array_equal(one.data, other.data, err_msg=path)


@pytest.mark.parametrize(
    ("text", "settings", "words"),
    [
        ("the sea", {}, "7 tokens, which is too short"),
        (
            "the sea\n" * 100,
            {"targets": ["qproj"]},
            "targets: .qproj. matches no module of .*; close names: q_proj",
        ),
        ("the sea\n" * 100 + "£", {}, "no '£' .character 801"),
        ("the sea\n" * 100, {"lr": 0.0}, "lr must be above 0"),
        (
            "the sea\n" * 100,
            {"max_length": 0},
            r"max_length must be at least 1, got 0",
        ),
        ("the sea\n" * 100, {"max_length": 33}, "the model's context = 32, got 33"),
    ],
)
def test_what_cannot_be_learnt_from(model, text, settings, words):
    with pytest.raises(ValueError, match=words):
        language.finetune(model, text, **{"steps": 1, "progress": False, **settings})


def test_ignored_labels_do_not_count(model):
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 20, (2, 9))
    labels = np.roll(tokens, -1, axis=1)
    labels[:, 5:] = -100
    exact = language.token_loss(in_double(model), tokens, labels)
    for found in (
        language.token_loss(model, tokens, labels),
        language.token_loss(model, tokens[:, :6]),
    ):
        assert_near(found, exact)


@pytest.mark.parametrize("composed", [False, True])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda labels: labels * 0 - 5,
            "labels must be between 0 and 29, or -100 to be ignored, got -5",
        ),
        (lambda labels: labels * 0 + 30, "labels must be between 0 and 29, .* got 30"),
        (
            lambda labels: labels[:, 1:],
            r"labels must have the shape of tokens, \(2, 9\), got \(2, 8\)",
        ),
        (lambda labels: labels.ravel(), r"got \(18,\)"),
        (lambda labels: labels * 1.0, "labels must be integers, got dtype float64"),
    ],
)
def test_labels_that_are_no_tokens(model, change, words, composed):
    tokens = np.random.default_rng(0).integers(0, 30, (2, 9))
    asked = language.composed_operations(model) if composed else model
    with pytest.raises((TypeError, ValueError), match=words):
        language.token_loss(asked, tokens, change(tokens))
    with pytest.raises((TypeError, ValueError), match=words):
        language.token_loss(
            lnp.inject(asked, rank=1, alpha=1, rng=0, targets=["lm_head"]), tokens, change(tokens)
        )


def test_a_context_beyond_the_models_is_refused(model, text):
    assert language.likelihood(model, text, max_length=32).loss > 0
    with pytest.raises(
        ValueError, match="max_length must be between 1 and the model's context = 32, got 33"
    ):
        language.likelihood(model, text, max_length=33)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \n ", "is empty"),
        (b"a\0b", "text: not text in UTF-8, UTF-16 or Windows-1252"),
        (b"\xff\xfea", "text: not text in UTF-8"),
    ],
)
def test_files_that_are_not_text(tmp_path, content, words):
    file = tmp_path / "text"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        language.read_text(file)


def test_a_saved_config_names_one_dtype(model, tmp_path):
    old = dataclasses.replace(model, config={**model.config, "torch_dtype": "bfloat16"})
    language.save(old, tmp_path / "a")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["torch_dtype"] == config["dtype"] == "float32"
