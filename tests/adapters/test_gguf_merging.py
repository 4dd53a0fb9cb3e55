"""An adapter merged into a GGUF file: what is written, what rounding leaves, what is refused."""

import numpy as np
import pytest

from lora_np import adapters, freeze, language
from lora_np.adapters import AdapterModule
from lora_np.cli import run
from lora_np.files import FileError
from lora_np.hub import gguf
from lora_np.models import open_gguf
from tests.adapters.test_formats import drawn
from tests.models.test_gguf_vocabulary import WORDS, write

TOKENS = np.array([[3, 1, 4, 1, 5, 9, 2, 6]])


def logits(model):
    return np.asarray(freeze(model)(TOKENS))


def weak(config, strength, roles=("linear",), seed=0):
    """An adapter of every layer, with an update of this size beside weights of about 0.1."""
    return drawn(config, seed=seed, roles=roles, scales=(strength,))


def both(path, kind, strength, **settings):
    """A base, its adapter, and the result of merging them."""
    write(path / "base.gguf", kind=kind, head=True)
    adapter = weak(open_gguf(path / "base.gguf").config, strength)
    made = adapters.merge_gguf(
        path / "base.gguf", adapter, path / "new.gguf", any_base=True, **settings
    )
    return adapter, made


@pytest.mark.parametrize(("kind", "apart"), [("F32", 1e-5), ("F16", 1e-2), ("Q8_0", 0.1)])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_the_new_file_answers_as_the_adapter_does(tmp_path, family, kind, apart):
    write(tmp_path / "base.gguf", kind=kind, family=family, head=True)
    base = language.load(tmp_path / "base.gguf")
    adapter = weak(open_gguf(tmp_path / "base.gguf").config, 0.03)
    adapters.merge_gguf(tmp_path / "base.gguf", adapter, tmp_path / "new.gguf", any_base=True)
    wanted = logits(adapters.attach(base, adapter, any_base=True))
    found = logits(language.load(tmp_path / "new.gguf"))
    change = np.linalg.norm(wanted - logits(base))
    assert np.linalg.norm(found - wanted) <= apart * change


@pytest.mark.parametrize("kind", ["F32", "Q4_0", "Q8_0"])
def test_all_else_is_kept_byte_for_byte(tmp_path, kind):
    write(tmp_path / "base.gguf", kind=kind, head=True)
    config = open_gguf(tmp_path / "base.gguf").config
    module = next(iter(weak(config, 0.5).modules.items()))
    adapter = adapters.Adapter(dict([module]))
    adapters.merge_gguf(tmp_path / "base.gguf", adapter, tmp_path / "new.gguf", any_base=True)
    before, after = ((tmp_path / name).read_bytes() for name in ("base.gguf", "new.gguf"))
    assert len(before) == len(after)
    info = gguf.open(tmp_path / "base.gguf").info(
        open_gguf(tmp_path / "base.gguf").names[f"{module[0]}.weight"][0]
    )
    outside = slice(0, info.begin), slice(info.begin + info.nbytes, None)
    assert all(before[part] == after[part] for part in outside)
    assert before != after


@pytest.mark.parametrize("kind", ["F32", "F16", "Q4_0", "Q4_1", "Q5_0", "Q8_0"])
@pytest.mark.parametrize("strength", [0.003, 0.03])
def test_the_share_kept_is_the_projection_on_the_update(tmp_path, kind, strength):
    adapter, made = both(tmp_path, kind, strength)
    old, new = open_gguf(tmp_path / "base.gguf"), open_gguf(tmp_path / "new.gguf")
    kept = total = same = size = 0.0
    for name in adapter:
        W0, Q = (np.asarray(one.read(f"{name}.weight"), np.float64) for one in (old, new))
        dW = adapter.delta(name)
        kept, total = kept + np.vdot(Q - W0, dW), total + np.vdot(dW, dW)
        same, size = same + np.sum(Q == W0), size + W0.size
    (row,) = made.rows
    assert row.share_kept == pytest.approx(kept / total, rel=1e-3)
    assert row.unmoved == same / size
    said = f"share of the update kept: {kept / total:.2f}; {same / size:.1%} of the entries are"
    assert made.notes[0].startswith(said)


@pytest.mark.parametrize(
    ("kind", "strength", "wider"),
    [("Q4_1", 0.002, "Q8_0"), ("BF16", 3e-5, "F32"), ("F16", 3e-6, "F32")],
)
def test_random_rounding_keeps_what_nearest_rounding_takes_back(tmp_path, kind, strength, wider):
    _, nearest = both(tmp_path, kind, strength)
    assert nearest.rows[0].share_kept < 0.5
    assert any(f"--dtype {wider}" in note and "random" in note for note in nearest.notes)
    shares = [
        both(tmp_path, kind, strength, rounding="random", rng=seed, force=True)[1]
        for seed in range(8)
    ]
    assert np.mean([made.rows[0].share_kept for made in shares]) == pytest.approx(1, abs=0.1)
    _, wide = both(tmp_path, kind, strength, dtype=wider, force=True)
    assert wide.rows[0].share_kept == pytest.approx(1, abs=0.02)
    assert not any("--rounding" in note for note in wide.notes)


def test_the_same_seed_makes_the_same_bytes(tmp_path):
    made = []
    for seed in (3, 3, 4):
        both(tmp_path, "Q4_0", 0.01, rounding="random", rng=seed, force=True)
        made.append((tmp_path / "new.gguf").read_bytes())
    assert made[0] == made[1] != made[2]


def test_another_kind_is_written_for_what_changes_alone(tmp_path):
    types = {"general.file_type": 2, "general.alignment": 64}
    write(tmp_path / "base.gguf", kind="Q4_0", head=True, metadata=types)
    adapter = weak(open_gguf(tmp_path / "base.gguf").config, 0.03)
    adapters.merge_gguf(
        tmp_path / "base.gguf", adapter, tmp_path / "new.gguf", dtype="Q8_0", any_base=True
    )
    old, new = gguf.open(tmp_path / "base.gguf"), gguf.open(tmp_path / "new.gguf")
    changed = {open_gguf(tmp_path / "base.gguf").names[f"{name}.weight"][0] for name in adapter}
    for name, info in old.tensors.items():
        assert new.info(name).dtype == ("Q8_0" if name in changed else info.dtype)
        if name not in changed:
            assert new.raw(new.info(name)) == old.raw(info)
    assert {key: new.packed(key) for key in new.metadata} == {
        key: old.packed(key) for key in old.metadata if key != "general.file_type"
    }  # without that, llama.cpp finds the kind by counting


def test_a_head_that_was_tied_becomes_a_tensor_of_its_own(tmp_path):
    write(tmp_path / "base.gguf", kind="F32")
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(2, 32)), rng.normal(size=(len(WORDS), 2)) / 9
    adapter = adapters.Adapter({"lm_head": AdapterModule.of(A=A, B=B, alpha=2)})
    adapters.merge_gguf(tmp_path / "base.gguf", adapter, tmp_path / "new.gguf", any_base=True)
    old, new = gguf.open(tmp_path / "base.gguf"), gguf.open(tmp_path / "new.gguf")
    table = old.read("token_embd.weight")
    np.testing.assert_array_equal(new.read("token_embd.weight"), table)
    np.testing.assert_allclose(new.read("output.weight"), table + B @ A, atol=1e-6)


def test_a_modelfile_names_the_new_file(tmp_path):
    both(tmp_path, "F32", 0.1, modelfile=True)
    assert (tmp_path / "Modelfile").read_text() == "FROM ./new.gguf\n"
    (tmp_path / "new.gguf").unlink()
    with pytest.raises(ValueError, match="Modelfile: already exists; pass force=True"):
        both(tmp_path, "F32", 0.1, modelfile=True)
    assert not (tmp_path / "new.gguf").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"dtype": "Q4_K"},
            r"'blk\.0\.attn_q\.weight' has rows of 32, which are not whole blocks of Q4_K",
        ),
        ({"dtype": "Q2_K"}, "dtype must be one of 'F32', .*, got 'Q2_K'"),
        ({"dtype": "IQ4_NL"}, "dtype must be one of"),
        ({"rounding": "up"}, "rounding must be one of 'nearest', 'random', got 'up'"),
        ({"rng": -1, "rounding": "random"}, "rng must be"),
        (
            {"dtype": "MXFP4", "rounding": "random"},
            "'model.*': MXFP4 cannot be rounded at random: take --dtype Q8_0",
        ),
    ],
)
def test_what_cannot_be_written_is_refused_and_nothing_is_written(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        both(tmp_path, "Q4_0", 0.1, **settings)
    assert not (tmp_path / "new.gguf").exists()


def test_a_kind_that_is_only_read_is_refused_by_the_name_of_its_tensor(tmp_path):
    write(tmp_path / "base.gguf", kind="Q4_0", head=True)
    file = gguf.open(tmp_path / "base.gguf")
    name = "blk.0.attn_v.weight"
    tensors = file.tensors | {name: file.info(name).__class__("IQ4_NL", file.info(name).shape)}
    bits = gguf.LAYOUTS["IQ4_NL"]
    block = gguf.Blocks("IQ4_NL", np.zeros((16, 1), bits.block), (16, 32))
    gguf.write(
        tensors, lambda key: block if key == name else file, tmp_path / "odd.gguf",
        metadata={key: file.packed(key) for key in file.metadata},
    )  # fmt: skip
    adapter = weak(open_gguf(tmp_path / "odd.gguf").config, 0.1)
    with pytest.raises(FileError, match=rf"'{name}' is IQ4_NL, which cannot be written: .*Q8_0"):
        adapters.merge_gguf(tmp_path / "odd.gguf", adapter, tmp_path / "new.gguf", any_base=True)
    adapters.merge_gguf(
        tmp_path / "odd.gguf", adapter, tmp_path / "new.gguf", any_base=True, dtype="Q8_0"
    )


def test_what_does_not_fit_is_refused_and_nothing_is_written(tmp_path):
    write(tmp_path / "base.gguf", kind="F32", head=True)
    module = AdapterModule.of(A=np.ones((1, 32)), B=np.ones((7, 1)), alpha=1)
    for name in ("model.layers.9.self_attn.q_proj", "model.layers.0.self_attn.q_proj"):
        with pytest.raises(FileError, match=name):
            adapters.merge_gguf(
                tmp_path / "base.gguf", adapters.Adapter({name: module}), tmp_path / "new.gguf",
                any_base=True,
            )  # fmt: skip
        assert not (tmp_path / "new.gguf").exists()
    both(tmp_path, "F32", 0.1)
    with pytest.raises(ValueError, match="already exists"):
        both(tmp_path, "F32", 0.1)
    (tmp_path / "notes.txt").write_text("mine")
    adapter = weak(open_gguf(tmp_path / "base.gguf").config, 0.1)
    with pytest.raises(ValueError, match=r"notes\.txt"):
        adapters.merge_gguf(
            tmp_path / "base.gguf", adapter, tmp_path / "notes.txt", any_base=True, force=True
        )
    with pytest.raises(FileError, match=r"a GGUF file: adapters\.merge_gguf"):
        adapters.merge(tmp_path / "base.gguf", adapter, tmp_path / "directory")


def test_a_gguf_base_needs_a_gguf_result(tmp_path, capsys):
    for name in ("mine", "mine.safetensors"):
        command = ["merge", str(tmp_path / "base.gguf"), "king-james", "-o", str(tmp_path / name)]
        assert run(command) == 2
        assert "-o must end in .gguf, got" in capsys.readouterr().err
