"""Gram matrices of what layers are given: against inputs computed layer by layer, over rows of any
kind.
"""

import json

import numpy as np
import pytest

import lora_np as lnp
from lora_np import adapters, language
from lora_np.cli import run
from tests.language.conftest import LETTERS, random_model


@pytest.fixture(scope="module")
def exact():
    return random_model(dtype=np.float64)


def tokens_of(text):
    return np.array([[LETTERS.index(letter) for letter in text]])


def test_they_are_those_of_the_inputs(exact, text):
    part = text[:33]  # one row of 32 tokens, and the next
    found = language.grams(exact, part)
    tokens = tokens_of(part)[:, :-1]
    block = exact.model.layers[0]
    x = block.input_layernorm(exact.model.embed_tokens(tokens))[0]
    hidden = exact.model(tokens)[0]
    np.testing.assert_allclose(found["model.layers.0.self_attn.q_proj"], x.T @ x / 32, atol=1e-10)
    np.testing.assert_allclose(found["lm_head"], hidden.T @ hidden / 32, atol=1e-9)
    assert found["model.layers.1.mlp.down_proj"].shape == (24, 24)
    assert found["model.layers.0.self_attn.q_proj"] is found["model.layers.0.self_attn.v_proj"]
    assert found["model.layers.0.self_attn.q_proj"] is not found["model.layers.1.self_attn.q_proj"]
    for gram in found.values():
        assert np.linalg.eigvalsh(gram).min() > -1e-9 * np.trace(gram)


def test_documents_that_share_rows_count_for_themselves(exact):
    texts = ["the king saw the sea", "a queen", "home and home", "the horse went. and the king"]
    together = language.grams(exact, texts)
    lengths = [len(text) - 1 for text in texts]  # nothing follows the last token
    alone = [language.grams(exact, [text]) for text in texts]
    for name, gram in together.items():
        mean = sum(n * each[name] for n, each in zip(lengths, alone, strict=True)) / sum(lengths)
        np.testing.assert_allclose(gram, mean, atol=1e-9, err_msg=name)


def test_a_long_text_is_taken_in_pieces(exact, text):
    whole = language.grams(exact, text[: 32 * 20 + 1])
    parts = [language.grams(exact, text[32 * i : 32 * i + 33]) for i in range(20)]
    for name, gram in whole.items():
        np.testing.assert_allclose(gram, np.mean([part[name] for part in parts], axis=0), atol=1e-9)


def test_adapters_count(exact, text):
    name = "model.layers.0.mlp.up_proj"
    module = adapters.AdapterModule.of(A=np.ones((1, 16)), B=np.ones((24, 1)), alpha=1)
    tuned = adapters.attach(exact, adapters.Adapter({name: module}))
    one, other, merged = (
        language.grams(model, text[:100]) for model in (exact, tuned, lnp.merge(tuned))
    )
    assert np.allclose(one[name], other[name], atol=1e-9)
    assert not np.allclose(
        one["model.layers.0.mlp.down_proj"], other["model.layers.0.mlp.down_proj"], atol=1e-3
    )
    for path, gram in merged.items():
        np.testing.assert_allclose(other[path], gram, atol=1e-9)


# Commands


@pytest.fixture
def place(model, text, tmp_path, monkeypatch):
    language.save(model, tmp_path / "base")
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        modules = {
            f"model.layers.{i}.self_attn.{part}": adapters.AdapterModule.of(
                A=rng.standard_normal((3, 16)),
                B=0.3 * rng.standard_normal((d, 3)),
                alpha=3,
                dtype="float32",
            )
            for i in range(2)
            for part, d in (("q_proj", 16), ("v_proj", 8))
        }
        adapters.save(adapters.Adapter(modules), tmp_path / name, base=str(tmp_path / "base"))
        (tmp_path / f"{name}.txt").write_text(text[:600] if name == "one" else text[-600:])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def seen(place, name, tuned=True):
    model = language.load(place / "base")
    model = adapters.attach(model, place / name) if tuned else model
    return language.grams(model, language.read_data(str(place / f"{name}.txt")))


def test_combine_reads_the_data_of_each_adapter(place, capsys):
    command = (
        "combine one=0.5 two -o both --method regmean --base base --data one.txt --data two.txt"
    )
    assert run(command.split()) == 0, capsys.readouterr().err
    grams = [seen(place, "one"), seen(place, "two")]
    adapters.combine(["one", "two"], "ours", weights=[0.5, 1], method="regmean", grams=grams)
    assert adapters.diff("both", "ours").largest < 1e-6
    assert run([*command.replace("both", "again").split()[:-2]]) == 2
    assert "--data must be given once for each adapter, got 1 for 2" in capsys.readouterr().err
    assert run(command.replace("both", "again").replace("--base base ", "").split()) == 2
    assert "--data is read by the base model: give it with --base" in capsys.readouterr().err


def test_resize_and_extract_read_data(place, capsys):
    assert (
        run(["resize", "one", "-o", "small", "--rank", "1", "--base", "base", "--data", "one.txt"])
        == 0
    ), capsys.readouterr().err
    adapters.resize("one", "ours", rank=1, grams=seen(place, "one"))
    assert adapters.diff("small", "ours").largest < 1e-6
    adapters.merge("base", "one", "one-merged")
    assert (
        run(["extract", "base", "one-merged", "-o", "back", "--rank", "1", "--data", "one.txt"])
        == 0
    ), capsys.readouterr().err
    model = language.load("one-merged")
    grams = language.grams(model, language.read_data("one.txt"))
    adapters.extract("base", "one-merged", "mine", rank=1, grams=grams)
    assert adapters.diff("back", "mine").largest < 1e-6


def test_gram_matrices_may_come_from_a_file(place, capsys):
    np.savez("one.npz", **seen(place, "one"))
    for data in ("one.npz", "one.txt"):
        command = [
            "resize",
            "one",
            "-o",
            "by-" + data.replace(".", "-"),
            "--rank",
            "1",
            "--base",
            "base",
            "--data",
            data,
        ]
        assert run(command) == 0, capsys.readouterr().err
    assert adapters.diff("by-one-npz", "by-one-txt").largest < 1e-6
    command = "combine one two -o both --method regmean --data one.npz --data one.npz"
    assert run(command.split()) == 0, capsys.readouterr().err  # no base is needed


def test_overlap_prints_a_table_and_draws(place, capsys):
    assert run(["overlap", "one", "two", "--plot", "map.png"]) == 0
    out = capsys.readouterr().out
    assert "model.layers.1.self_attn.v_proj" in out
    assert (place / "map.png").read_bytes().startswith(b"\x89PNG")
    assert run(["overlap", "one", "two", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows[-1]["module"] == "all"
    assert 0 < rows[-1]["overlap"] < 1
    assert run(["overlap", "one"]) == 2
    assert "overlap compares two adapters or more, got 1" in capsys.readouterr().err
