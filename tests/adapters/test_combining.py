"""Combine and overlap on small files: every method, DoRA, what is saved in full, inputs, and what is
refused.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters import Adapter, AdapterModule
from lora_np.adapters.adapter import TokenRows, in_memory
from lora_np.files import FileError
from lora_np.hub import safetensors
from lora_np.lora import MERGE_METHODS, WeightedUpdate
from lora_np.models import open_model
from tests.adapters.conftest import SHAPES, truncated


@pytest.fixture
def three(make_adapter):
    """Of ranks 2, 2 and 2; the second lacks a module."""
    few = dict([*SHAPES.items()][:2])
    options = [{}, {"shapes": few, "use_rslora": True}, {"alpha": 1.0}]
    return [
        make_adapter(f"a{seed}", seed=seed, dtype="float64", **each)
        for seed, each in enumerate(options, start=3)
    ]


def grams(seed, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return {
        name: (lambda X: X.T @ X)(rng.standard_normal((30, k))) for name, (_, k) in shapes.items()
    }


def weights_of(folder):
    model = open_model(folder)
    return {name: model.read(name) for name in model.places}


@pytest.mark.parametrize("method", MERGE_METHODS)
def test_a_file_has_what_its_way_gives_and_says_how_far_that_is_from_the_sum(
    three, tmp_path, method
):
    weights, seen = [0.5, -2.0, 1.0], [grams(seed) for seed in range(3)]
    given = {"grams": seen} if method == "regmean" else {}
    made = adapters.combine(three, tmp_path / "out", weights=weights, method=method, rng=7, **given)
    sources, out = [adapters.load(path) for path in three], adapters.load(tmp_path / "out")
    draws = np.random.default_rng(7).spawn(len(SHAPES))
    assert [*out] == [*sources[0]] == [row.name for row in made.rows]
    for row, rng in zip(made.rows, draws, strict=True):
        terms = [
            WeightedUpdate(
                *source[row.name].factors(), weight, source[row.name].scale, gram[row.name]
            )
            for source, weight, gram in zip(sources, weights, seen, strict=True)
            if row.name in source
        ]
        total = sum(term.weight * term.delta for term in terms)
        B, A = MERGE_METHODS[method](terms, rng=rng)
        np.testing.assert_allclose(out.delta(row.name), B @ A, atol=1e-12)
        assert row.rank == B.shape[1] == out[row.name].rank
        assert row.difference == pytest.approx(
            np.linalg.norm(B @ A - total) / np.linalg.norm(total), abs=1e-7
        )
    assert ("adds factors, not updates" in " ".join(made.notes)) == bool(
        MERGE_METHODS[method].warning
    )


@pytest.mark.parametrize("method", MERGE_METHODS)
def test_one_adapter_alone_is_left_as_it_is(three, tmp_path, method):
    given = {"grams": [grams(0)]} if method == "regmean" else {}
    given |= {"density": 0.5} if MERGE_METHODS[method].density else {}
    adapters.combine(three[:1], tmp_path / "out", weights=[-3.0], method=method, **given)
    before, after = adapters.load(three[0]), adapters.load(tmp_path / "out")
    for name in before:
        np.testing.assert_allclose(after.delta(name), -3 * before.delta(name), atol=1e-12)


def test_a_rank_cuts_and_jobs_change_nothing(three, tmp_path):
    for method in ("sum", "knots", "dare_linear_svd"):
        for jobs in (1, 2):
            adapters.combine(three, tmp_path / f"{method}{jobs}", method=method, rank=1, jobs=jobs)
        one, two = (adapters.load(tmp_path / f"{method}{jobs}") for jobs in (1, 2))
        for name in one:
            assert one[name].rank == 1
            np.testing.assert_array_equal(one.delta(name), two.delta(name))


def test_experts_are_combined_one_by_one(tmp_path):
    rng = np.random.default_rng(0)
    raw = {"peft_type": "LORA", "target_parameters": ["mlp.experts.down_proj"]}
    name = "mlp.experts.down_proj"
    for folder in "ab":
        module = AdapterModule.of(
            A=rng.standard_normal((3, 2, 5)), B=rng.standard_normal((3, 4, 2)), alpha=2
        )
        module = AdapterModule(module.parts, module.alpha, parameter=True)
        adapters.save(Adapter({name: module}, raw=raw), tmp_path / folder)
    sources = [adapters.load(tmp_path / folder)[name] for folder in "ab"]
    for method in ("sum", "knots", "ties_svd", "iso"):
        adapters.combine([tmp_path / "a", tmp_path / "b"], tmp_path / method, method=method)
        found = adapters.load(tmp_path / method).delta(name)
        for i in range(3):
            B, A = MERGE_METHODS[method](
                [WeightedUpdate(each.B[i], each.A[i], 1.0, each.scale) for each in sources]
            )
            np.testing.assert_allclose(found[i], B @ A, atol=1e-12)


# DoRA


def dora(path, seed, dtype="float64"):
    rng = np.random.default_rng(seed)
    modules = {
        name: AdapterModule.of(
            A=rng.standard_normal((2, k)),
            B=rng.standard_normal((d, 2)),
            alpha=3.0,
            magnitude=rng.uniform(0.5, 3.0, d),
            dtype=dtype,
        )
        for name, (d, k) in SHAPES.items()
    }
    raw = {"peft_type": "LORA", "use_dora": True, "target_modules": sorted(modules)}
    adapters.save(Adapter(modules, raw=raw), path)
    return path


@pytest.mark.parametrize("weights", [[0.5, 0.7, -0.4], [2.0, -3.0, 1.0]])
def test_the_sum_of_doras_is_a_dora_and_exact(make_adapter, make_checkpoint, tmp_path, weights):
    base = make_checkpoint("base", dtype="float64")
    paths = [
        dora(tmp_path / "d1", 1),
        make_adapter("plain", dtype="float64"),
        dora(tmp_path / "d2", 2),
    ]
    made = adapters.combine(paths, tmp_path / "sum", weights=weights, base=base)
    assert {row.rank for row in made.rows} == {6}
    assert adapters.load(tmp_path / "sum").raw["use_dora"] is True
    W0 = weights_of(base)
    for path in (*paths, tmp_path / "sum"):
        adapters.merge(base, path, tmp_path / "merged" / path.name)
    merged = {path: weights_of(tmp_path / "merged" / path.name) for path in paths}
    total = weights_of(tmp_path / "merged" / "sum")
    for name, W in W0.items():
        wanted = W + sum(
            w * (merged[path][name] - W) for w, path in zip(weights, paths, strict=True)
        )
        np.testing.assert_allclose(total[name], wanted, atol=1e-10)


def test_names_and_rows_that_depend_on_the_base_are_read_with_it(make_checkpoint, tmp_path):
    base = make_checkpoint("base", shapes={"q": (6, 4)})
    ends = {"lora_down.weight": (2, 4), "lora_up.weight": (6, 2), "dora_scale": (6, 1)}
    tensors = {f"lora_unet_q.{end}": np.ones(shape) for end, shape in ends.items()}
    safetensors.save(tensors, tmp_path / "a.safetensors", dtype="float32")
    adapters.combine([tmp_path / "a.safetensors"] * 2, tmp_path / "sum", base=base)
    assert adapters.load(tmp_path / "sum")["q"].rank == 4
    with pytest.raises(ValueError, match="no model 'nowhere'"):
        adapters.combine([tmp_path / "sum"], tmp_path / "out", base="nowhere")


DTYPES = [
    (("bfloat16", "float32"), (1, 1), "float32"),
    (("float32", "bfloat16"), (1, 1), "float32"),
    (("float16", "bfloat16"), (1, 1), "float32"),
    (("float32", "float64"), (1, 1), "float64"),
    (("bfloat16", "bfloat16"), (0.7, 0.1), "float32"),
    (("bfloat16", "bfloat16"), (0.5, -2), "bfloat16"),
]


@pytest.mark.parametrize(("dtypes", "weights", "expected"), DTYPES)
def test_a_sum_is_stored_in_a_dtype_that_holds_it(
    make_adapter, tmp_path, dtypes, weights, expected
):
    paths = [make_adapter(f"a{i}", seed=i, dtype=dtype) for i, dtype in enumerate(dtypes)]
    made = adapters.combine(paths, tmp_path / "sum", weights=weights)
    first, second, out = map(adapters.load, (*paths, tmp_path / "sum"))
    for row in made.rows:
        total = weights[0] * first.delta(row.name) + weights[1] * second.delta(row.name)
        assert {part.dtype for part in out[row.name].parts.values()} == {expected}
        np.testing.assert_allclose(out.delta(row.name), total, atol=1e-5)


def test_doras_need_their_base(make_adapter, tmp_path):
    paths = [dora(tmp_path / "d", 1), make_adapter("plain", dtype="float64")]
    with pytest.raises(FileError, match=r"adding DoRA's magnitudes needs the base weights"):
        adapters.combine(paths, tmp_path / "out")


# What adapters save in full


@pytest.fixture
def heads(make_checkpoint, tmp_path):
    """Two adapters that save the norm, one of them a bias as well, and their base."""
    base, new = make_checkpoint("base", dtype="float64"), {}
    for i, name in enumerate(("one", "two")):
        rng = np.random.default_rng(i)
        full = {"model.norm.weight": rng.standard_normal(4)}
        if name == "two":
            full["model.layers.0.q_proj.bias"] = rng.standard_normal(6)
        module = AdapterModule.of(
            A=rng.standard_normal((1, 4)), B=rng.standard_normal((6, 1)), alpha=1
        )
        raw = {
            "peft_type": "LORA",
            "modules_to_save": ["model.norm"],
            "bias": "lora_only" if i else "none",
        }
        stored = {
            key: AdapterModule.of(A=np.ones((1, 1)), B=x[:, None], alpha=1).parts["B"]
            for key, x in full.items()
        }
        stored = {key: each.seen(np.ravel) for key, each in stored.items()}
        adapters.save(Adapter({"model.layers.0.q_proj": module}, stored, raw), tmp_path / name)
        new[name] = full
    return base, [tmp_path / "one", tmp_path / "two"], new


def test_parameters_saved_twice_are_refused_or_the_first_or_the_mean(heads, tmp_path):
    _, paths, new = heads
    one, two = new["one"]["model.norm.weight"], new["two"]["model.norm.weight"]
    bias, kept = "model.layers.0.q_proj.bias", new["two"]["model.layers.0.q_proj.bias"]
    with pytest.raises(
        FileError,
        match=r"replaces 'model.norm.weight', as an earlier adapter does; pass on_conflict=",
    ):
        adapters.combine(paths, tmp_path / "out")
    expected = {"first": (one, kept), "mean": ((3 * one - two) / 2, kept)}
    for saved, (of_norm, of_bias) in expected.items():
        adapters.combine(paths, tmp_path / saved, weights=[3, -1], on_conflict=saved)
        full = adapters.load(tmp_path / saved).full
        np.testing.assert_allclose(full["model.norm.weight"].read(), of_norm, atol=1e-12)
        np.testing.assert_allclose(full[bias].read(), of_bias, atol=1e-12)


def replacing(
    path, *, tokens=(), vocabulary=9, module="model.layers.0.q_proj", name="model.embed_tokens"
):
    """An adapter with rows of an embedding, or with all of it."""
    x = np.random.default_rng(len(tokens)).standard_normal((len(tokens) or vocabulary, 5))
    modules = (
        {module: AdapterModule.of(A=np.ones((1, 4)), B=np.ones((6, 1)), alpha=1)} if module else {}
    )
    new = {f"{name}.weight": TokenRows(tokens, in_memory(x)) if tokens else in_memory(x)}
    saved = (
        {"trainable_token_indices": {name: [*tokens]}} if tokens else {"modules_to_save": [name]}
    )
    raw = {"peft_type": "LORA", **saved}
    adapters.save(Adapter(modules, {} if tokens else new, raw, rows=new if tokens else {}), path)
    return path


REPEATS = {
    "rows of other tokens": ({"tokens": (1, 2)}, {"tokens": (3, 4)}, r"other rows or shape \(2, 5\), not \(2, 5\)"),
    "other numbers of rows": ({"tokens": (1, 2)}, {"tokens": (3, 4, 5)}, r"shape \(2, 5\), not \(3, 5\)"),
    "all of it, and rows": ({}, {"tokens": (1, 2)}, r"shape \(9, 5\), not \(2, 5\)"),
    "rows, and all of it": ({"tokens": (1, 2)}, {}, r"shape \(2, 5\), not \(9, 5\)"),
    "other vocabularies": ({}, {"vocabulary": 8}, r"shape \(9, 5\), not \(8, 5\)"),
}  # fmt: skip


@pytest.mark.parametrize(("one", "two", "message"), REPEATS.values(), ids=REPEATS)
def test_of_an_embedding_replaced_twice_the_first_is_kept(tmp_path, one, two, message):
    paths = [replacing(tmp_path / "one", **one), replacing(tmp_path / "two", **two)]
    for way in ("refuse", "mean"):
        with pytest.raises(FileError, match=f"{message}; pass on_conflict='first' \\(--on-con"):
            adapters.combine(paths, tmp_path / "out", on_conflict=way)
    adapters.combine(paths, tmp_path / "out", on_conflict="first")
    first, out = adapters.load(paths[0]), adapters.load(tmp_path / "out")
    assert (out.full.keys(), out.rows.keys()) == (first.full.keys(), first.rows.keys())
    for old, new in zip(first.stored[2:], out.stored[2:], strict=True):
        np.testing.assert_array_equal(new.read(), old.read())
    assert [x.tokens for x in out.rows.values()] == [x.tokens for x in first.rows.values()]
    assert out.raw["modules_to_save"] == first.raw.get("modules_to_save")


def test_rows_that_are_equal_contradict_nothing_and_have_a_mean(tmp_path):
    path = replacing(tmp_path / "a", tokens=(3, 1))
    for options in ({}, {"on_conflict": "mean"}):
        adapters.combine([path, path], tmp_path / "out", weights=[3, -1], force=True, **options)
        (new,), (old,) = (adapters.load(x).rows.values() for x in (tmp_path / "out", path))
        assert new.tokens == old.tokens
        np.testing.assert_allclose(new.new.read(), old.new.read(), atol=1e-12)


def test_adapters_without_modules_are_combined_and_overlap_with_nothing(tmp_path):
    path = replacing(tmp_path / "a", tokens=(3, 1), module="")
    adapters.combine([path], tmp_path / "out", method="svd")
    assert len(adapters.load(tmp_path / "out").rows) == 1
    (row,) = adapters.overlap([path, path]).rows
    assert (row.overlap, row.cosine, row.inputs, row.outputs) == (0, 0, 90, 90)


def test_weights_that_cancel_have_no_mean(heads, tmp_path):
    adapters.combine(heads[1], tmp_path / "kept", weights=[1, 0], on_conflict="mean")
    kept = heads[2]["two"]["model.layers.0.q_proj.bias"]  # which only one adapter has
    np.testing.assert_array_equal(
        adapters.load(tmp_path / "kept").full["model.layers.0.q_proj.bias"].read(), kept
    )
    with pytest.raises(FileError, match=r"model.norm.weight: the result is not finite"):
        adapters.combine(heads[1], tmp_path / "out", weights=[1, -1], on_conflict="mean")


# What is refused


WRONG = {
    "a method that is none": ({"method": "tie"}, "method must be one of .*'ties'.*got 'tie'"),
    "a density of a sum": (
        {"density": 0.5},
        "density is for methods that drop entries, such as 'ties', got 0.5",
    ),
    "a density of none": (
        {"method": "ties", "density": 0},
        "density must be above 0 and at most 1, got 0",
    ),
    "a rank of none": ({"rank": 0}, "rank must be at least 1, got 0"),
    "no seed": (
        {"method": "dare_ties", "rng": -1},
        "rng must be a .*Generator or a whole number from 0, got -1",
    ),
    "inputs of a sum": (
        {"grams": [{}, {}]},
        "'regmean', and no other method, needs grams .--data. for each of",
    ),
    "no inputs": (
        {"method": "regmean"},
        "'regmean', and no other method, needs grams .--data. for each of 2 adapters, got 0",
    ),
    "too few inputs": ({"method": "regmean", "grams": [{}]}, "for each of 2 adapters"),
    "no inputs of a module": (
        {"method": "regmean", "grams": [{}, {}]},
        "model.layers.0.q_proj: 'regmean' needs a Gram matrix of each adapter's inputs",
    ),
    "another choice": (
        {"on_conflict": "last"},
        "on_conflict must be one of 'refuse', 'first', 'mean', got 'last'",
    ),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_wrong_options_are_refused(three, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        adapters.combine(three[::2], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


# Overlap


def test_overlap_is_what_formed_updates_have_in_common(three):
    sources = [adapters.load(path) for path in three]
    found = adapters.overlap(three)
    assert found.names == tuple(map(str, three))
    sums = {}
    for row in found.rows:
        i, j = (found.names.index(name) for name in (row.first, row.second))
        if row.module == "all":
            inner, one, other, on_second, on_first = (
                sum(x) for x in zip(*sums.pop((i, j)), strict=True)
            )
            alone = [
                np.linalg.norm(s.delta(name)) ** 2 for s in (sources[i], sources[j]) for name in s
            ]
            assert row.overlap == pytest.approx(((on_second + on_first) / sum(alone)) ** 0.5)
            assert found.matrix[i, j] == found.matrix[j, i] == row.overlap
            continue
        D, E = sources[i].delta(row.module), sources[j].delta(row.module)
        project = lambda M: np.linalg.pinv(M) @ M
        inner, one, other = (D * E).sum(), np.linalg.norm(D) ** 2, np.linalg.norm(E) ** 2
        on_second, on_first = (
            np.linalg.norm(D @ project(E)) ** 2,
            np.linalg.norm(E @ project(D)) ** 2,
        )
        sums.setdefault((i, j), []).append((inner, one, other, on_second, on_first))
        assert row.cosine == pytest.approx(inner / (one * other) ** 0.5)
        assert row.share_of_first == pytest.approx(on_second / one)
        assert row.share_of_second == pytest.approx(on_first / other)
        for angle, (M, N) in ((row.inputs, (D.T, E.T)), (row.outputs, (D, E))):
            U, V = (np.linalg.svd(X)[0][:, :2] for X in (M, N))
            cosine = min(1.0, np.linalg.svdvals(U.T @ V)[0])
            assert angle == pytest.approx(np.degrees(np.arccos(cosine)), abs=1e-4)
    assert len(found.rows) == (2 + 1) + (3 + 1) + (2 + 1)
    assert not sums
    assert [text.get_text() for text in found.figure().axes[0].texts][:2] == [
        "1.00",
        f"{found.matrix[0, 1]:.2f}",
    ]


def test_overlap_of_the_same_of_opposites_and_of_updates_at_right_angles():
    e = np.eye(4)
    one = lambda i, j, sign=1.0: Adapter(
        {"q": AdapterModule.of(A=e[[j]], B=sign * e[:, [i]], alpha=1)}
    )
    for other, overlap, cosine, inputs, outputs in [
        (one(0, 0), 1, 1, 0, 0),
        (one(0, 0, -2.0), 1, -1, 0, 0),
        (one(1, 0), 1, 0, 0, 90),
        (one(0, 1), 0, 0, 90, 0),
        (one(1, 1), 0, 0, 90, 90),
    ]:
        row = adapters.overlap([one(0, 0), other]).rows[-1]
        measured = (row.overlap, row.cosine, row.inputs, row.outputs)
        np.testing.assert_allclose(measured, (overlap, cosine, inputs, outputs), atol=1e-12)


def test_what_does_nothing_overlaps_with_nothing():
    """Its factors have directions all the same, which are those of no update."""
    A, B, zero = np.ones((2, 4)), np.ones((3, 2)), np.zeros((3, 2))
    works, dead = (Adapter({"q": AdapterModule.of(A=A, B=each, alpha=1)}) for each in (B, zero))
    for pair in ([works, dead], [dead, works], [dead, dead]):
        for row in adapters.overlap(pair).rows:
            assert (row.overlap, row.cosine, row.inputs, row.outputs) == (0, 0, 90, 90)


def test_overlap_does_not_depend_on_factors_ranks_or_order(three, tmp_path):
    adapters.combine(three[:1], tmp_path / "same", method="svd", rank=2)
    first = adapters.overlap(three)
    again = adapters.overlap([tmp_path / "same", *three[1:]])
    np.testing.assert_allclose(again.matrix, first.matrix, atol=1e-9)
    np.testing.assert_allclose(
        adapters.overlap(three[::-1]).matrix, first.matrix[::-1, ::-1], atol=1e-12
    )


def test_overlap_is_refused_for_one_or_for_other_shapes(three, make_adapter):
    with pytest.raises(ValueError, match="overlap compares two adapters or more, got 1"):
        adapters.overlap(three[:1])
    with pytest.raises(FileError, match=r"has shape \(5, 4\), not \(6, 4\)"):
        adapters.overlap([three[0], make_adapter("c", shapes={"model.layers.0.q_proj": (5, 4)})])


# Errors of outputs


def skewed(seed=0):
    """Inputs that are far from white."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.standard_normal((50, k)) * np.geomspace(5, 0.05, k)
        for name, (_, k) in SHAPES.items()
    }


def test_resize_by_inputs_has_the_smallest_error_of_outputs(make_adapter, tmp_path):
    path, X = make_adapter("a", rank=3, dtype="float64"), skewed()
    seen = {name: x.T @ x for name, x in X.items()}
    found = adapters.resize(path, tmp_path / "seen", rank=1, grams=seen)
    adapters.resize(path, tmp_path / "plain", rank=1)
    before, after, plain = (
        adapters.load(each) for each in (path, tmp_path / "seen", tmp_path / "plain")
    )
    for row in found.rows:
        x = X[row.name]
        outputs = x @ before.delta(row.name).T
        s = np.linalg.svdvals(outputs)
        best = np.linalg.norm(s[1:]) / np.linalg.norm(s)
        error, other = (
            np.linalg.norm(outputs - x @ a.delta(row.name).T) / np.linalg.norm(s)
            for a in (after, plain)
        )
        assert row.error == pytest.approx(best, rel=1e-6)
        assert error == pytest.approx(best, rel=1e-6)
        assert other > best * 1.01
    assert any("outputs on the given inputs" in note for note in found.notes)
    white = {name: 3 * np.eye(k) for name, (_, k) in SHAPES.items()}
    adapters.resize(path, tmp_path / "white", rank=1, grams=white)
    for name, module in adapters.load(tmp_path / "white").items():
        np.testing.assert_allclose(module.delta(), plain.delta(name), atol=1e-10)


def test_extract_by_inputs_has_the_smallest_error_of_outputs(make_checkpoint, tmp_path):
    base, tuned, X = (
        make_checkpoint("base", dtype="float64"),
        make_checkpoint("tuned", seed=2, dtype="float64"),
        skewed(),
    )
    seen = {name: x.T @ x for name, x in X.items()}
    for goal in ({"rank": 2}, {"tolerance": 0.3}):
        made = adapters.extract(base, tuned, tmp_path / "out", grams=seen, force=True, **goal)
        found = adapters.load(tmp_path / "out")
        W0, W = weights_of(base), weights_of(tuned)
        for row in made.rows:
            if row.kept != "LoRA":
                continue
            name = row.name.removesuffix(".weight")
            outputs = X[name] @ (W[row.name] - W0[row.name]).T
            s = np.linalg.svdvals(outputs)
            errors = np.append(np.sqrt(np.cumsum(np.square(s[::-1])))[::-1], 0) / np.linalg.norm(s)
            rank = goal.get("rank") or int(np.argmax(errors <= 0.3))
            assert row.rank == found[name].rank == min(rank, len(s))
            error = np.linalg.norm(outputs - X[name] @ found.delta(name).T) / np.linalg.norm(s)
            assert error == pytest.approx(errors[row.rank], abs=1e-6)
            assert row.error == pytest.approx(errors[row.rank], abs=1e-6)


def test_convert_passes_inputs_on(tmp_path):
    rng = np.random.default_rng(1)
    config = {"peft_type": "LOHA", "r": 3, "alpha": 2, "target_modules": ["q"]}
    (tmp_path / "loha").mkdir()
    (tmp_path / "loha" / "adapter_config.json").write_text(json.dumps(config))
    shapes = {"w1_a": (12, 3), "w1_b": (3, 10), "w2_a": (12, 3), "w2_b": (3, 10)}
    tensors = {
        f"base_model.model.q.hada_{name}": rng.standard_normal(shape)
        for name, shape in shapes.items()
    }
    safetensors.save(tensors, tmp_path / "loha" / "adapter_model.safetensors")
    x = rng.standard_normal((40, 10)) * np.geomspace(9, 0.01, 10)
    made = adapters.convert(
        tmp_path / "loha", tmp_path / "out", to="lora", tolerance=0.05, grams={"q": x.T @ x}
    )
    plain = adapters.convert(tmp_path / "loha", tmp_path / "plain", to="lora", tolerance=0.05)
    assert made.rows[0].rank < plain.rows[0].rank


@pytest.mark.parametrize("call", [adapters.resize, adapters.extract], ids=["resize", "extract"])
def test_inputs_of_a_module_that_are_missing_are_named(
    make_adapter, make_checkpoint, tmp_path, call
):
    first = (
        (make_checkpoint("base"), make_checkpoint("tuned", seed=2))
        if call is adapters.extract
        else (make_adapter("a"),)
    )
    with pytest.raises(FileError, match=r"grams= has no Gram matrix for 'model.layers.0.v_proj'"):
        call(*first, tmp_path / "out", rank=1, grams=grams(0, {"model.layers.0.q_proj": (6, 4)}))
    other = {name: np.eye(3) for name in SHAPES}
    with pytest.raises(
        FileError, match=r"the Gram matrix of '.*_proj' must have shape \(4, 4\), got \(3, 3\)"
    ):
        call(*first, tmp_path / "out", rank=1, grams=other)


def test_adapters_of_one_name_are_told_apart_by_their_paths(three, tmp_path):
    shutil.copytree(three[0], tmp_path / "other" / Path(three[1]).name)
    twins = [three[1], tmp_path / "other" / Path(three[1]).name]
    assert adapters.overlap(twins).names == tuple(map(str, twins))


@pytest.mark.parametrize("method", ["cat", "svd"])
def test_the_sum_is_that_of_the_updates(make_adapter, tmp_path, method):
    paths = [
        make_adapter("a", rank=2, dtype="float64"),
        make_adapter("b", rank=1, seed=5, use_rslora=True, dtype="float64"),
    ]
    adapters.combine(paths, tmp_path / "out", weights=[0.5, -2.0], method=method)
    first, second, out = (adapters.load(path) for path in (*paths, tmp_path / "out"))
    for name in first:
        total = 0.5 * first.delta(name) - 2 * second.delta(name)
        expected = total if method == "cat" else truncated(total, 2)
        np.testing.assert_allclose(out.delta(name), expected, atol=1e-12)
        assert out[name].rank == (3 if method == "cat" else 2)


def test_linear_says_how_far_it_is_from_the_sum(make_adapter, tmp_path):
    paths = [make_adapter("a", dtype="float64"), make_adapter("b", seed=5, dtype="float64")]
    table = adapters.combine(paths, tmp_path / "out", method="linear").table
    first, second, out = (adapters.load(path) for path in (*paths, tmp_path / "out"))
    assert "adds factors, not updates" in table.notes[0]
    for name, row in zip(out, table.records, strict=True):
        total = first.delta(name) + second.delta(name)
        off = np.linalg.norm(out.delta(name) - total) / np.linalg.norm(total)
        assert row["relative difference"] == pytest.approx(off)
        assert off > 0.1


def test_an_adapter_may_be_added_to_itself_and_taken_away(make_adapter, tmp_path):
    path = make_adapter("a", dtype="float64")
    adapters.combine([path, path], tmp_path / "out", weights=[1, -1], method="cat")
    for module in adapters.load(tmp_path / "out").values():
        np.testing.assert_allclose(module.delta(), 0, atol=1e-14)


def test_biases_of_b_are_added_up(tmp_path):
    for name, bias in (("a", [1.0, 2.0]), ("b", [10.0, 0.0])):
        module = AdapterModule.of(
            A=np.ones((1, 3)), B=np.ones((2, 1)), alpha=2, bias=np.array(bias)
        )
        adapters.save(
            Adapter({"q": module}, raw={"peft_type": "LORA", "lora_bias": True}), tmp_path / name
        )
    adapters.combine(
        [tmp_path / "a", tmp_path / "b"], tmp_path / "out", weights=[1, 3], method="cat"
    )
    module = adapters.load(tmp_path / "out")["q"]
    np.testing.assert_allclose(module.scale * module.bias, [62.0, 4.0])


COMBINATIONS = {
    "no adapter": ([], {}, ValueError, "each adapter needs one weight, got 0 for 0"),
    "a weight too few": (["a", "b"], {"weights": [1.0]}, ValueError, "got 1 for 2 adapters"),
    "an unknown method": (
        ["a"],
        {"method": "tie"},
        ValueError,
        "method must be one of 'sum', .*got 'tie'",
    ),
    "a weight that is not finite": (
        ["a"],
        {"weights": [float("nan")]},
        ValueError,
        "the weight of .*a must be finite, got nan",
    ),
    "an infinite weight": (
        ["a"],
        {"weights": [np.inf]},
        ValueError,
        "the weight of .*a must be finite, got inf",
    ),
    "a weight beyond floats": (
        ["a"],
        {"weights": [10**400]},
        ValueError,
        "must be finite, got 1000",
    ),
    "a sum that overflows": (
        ["a", "a"],
        {"weights": [1e300, 1e300]},
        FileError,
        "model.layers.0.q_proj: the result is not finite",
    ),
    "factors whose sum overflows": (
        ["a"],
        {"weights": [1e300], "method": "linear"},
        FileError,
        "model.layers.0.q_proj: the result is not finite",
    ),
    "different ranks": (
        ["a", "b"],
        {"method": "linear"},
        FileError,
        r"q_proj: ranks are \[1, 2\]; adding factors needs equal ones, unlike 'sum' or methods in '_svd'",
    ),
    "different shapes": (
        ["a", "c"],
        {},
        FileError,
        r"'model.layers.0.q_proj' has shape \(5, 4\), not \(6, 4\)",
    ),
    "different storage": (["a", "d"], {}, FileError, "fan_in_fan_out is not the same"),
}


@pytest.mark.parametrize(
    ("names", "options", "error", "message"), COMBINATIONS.values(), ids=COMBINATIONS
)
def test_what_can_not_be_combined_is_refused(
    make_adapter, tmp_path, names, options, error, message
):
    make_adapter("a", rank=2)
    make_adapter("b", rank=1)
    make_adapter("c", shapes={"model.layers.0.q_proj": (5, 4)})
    make_adapter("d", fan_in_fan_out=True)
    with pytest.raises(error, match=message):
        adapters.combine([tmp_path / name for name in names], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("adapters_", ["a", Path("a"), {"a": 0.5}, None], ids=repr)
def test_what_is_no_sequence_of_paths_is_refused(make_adapter, tmp_path, monkeypatch, adapters_):
    make_adapter("a")
    monkeypatch.chdir(tmp_path)
    for call in (lambda: adapters.combine(adapters_, "out"), lambda: adapters.overlap(adapters_)):
        with pytest.raises(TypeError, match=r"adapters must be a sequence of paths, .*got"):
            call()
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("dtype", "size"), [("float32", 3e38), ("float64", 1e300)])
def test_an_overflow_on_the_way_is_named_without_a_warning(tmp_path, dtype, size):
    if dtype == "float32" and sys.platform == "emscripten":
        pytest.skip("norms are float64 there, which does not overflow")
    huge = AdapterModule.of(A=np.full((2, 3), size, dtype), B=np.full((4, 2), size, dtype), alpha=1)
    adapters.save(Adapter({"q": huge}), tmp_path / "huge")
    half = AdapterModule.of(
        A=np.full((2, 3), size / 2, dtype), B=np.full((4, 2), size, dtype), alpha=1
    )
    adapters.save(Adapter({"q": half}), tmp_path / "half")
    message = "q.*: the result is not finite"
    for method in ("cat", "linear", "svd"):
        with pytest.raises(FileError, match=message):
            adapters.combine([tmp_path / "huge"], tmp_path / "out", method=method)
    with pytest.raises(FileError, match=message):
        adapters.resize(tmp_path / "huge", tmp_path / "out", rank=1)
    with pytest.raises(FileError, match=message):
        adapters.diff(tmp_path / "huge", tmp_path / "half")
    assert [row.status for row in adapters.inspect(tmp_path / "huge").rows] == ["NOT FINITE"]
    assert sorted(os.listdir(tmp_path)) == ["half", "huge"]


def test_large_numbers_that_do_not_overflow_are_combined(tmp_path):
    large = AdapterModule.of(
        A=np.eye(2, 3, dtype="f4") * 1e10, B=np.eye(4, 2, dtype="f4") * 1e10, alpha=2
    )
    adapters.save(Adapter({"q": large}), tmp_path / "large")
    for method in ("cat", "linear", "svd"):
        table = adapters.combine([tmp_path / "large"], tmp_path / method, method=method).table
        assert table.records[0]["relative difference"] < 1e-6
        assert adapters.diff(tmp_path / "large", tmp_path / method).same


def test_dora_and_doubly_replaced_parameters_are_not_combined(tmp_path):
    dora = AdapterModule.of(A=np.ones((1, 3)), B=np.ones((2, 1)), alpha=2, magnitude=np.ones(2))
    adapters.save(
        Adapter({"q": dora}, raw={"peft_type": "LORA", "use_dora": True}), tmp_path / "dora"
    )
    with pytest.raises(FileError, match=r"adding DoRA's magnitudes needs the base weights"):
        adapters.combine([tmp_path / "dora"] * 2, tmp_path / "out")
    plain = AdapterModule.of(A=np.ones((1, 3)), B=np.ones((2, 1)), alpha=2)
    for i in (1, 2):
        full = {"head.weight": adapters.adapter.in_memory(np.full((1, 3), float(i)))}
        raw = {"peft_type": "LORA", "modules_to_save": ["head"]}
        adapters.save(Adapter({"q": plain}, full, raw), tmp_path / f"head{i}")
    with pytest.raises(FileError, match=r"replaces 'head.weight', as an earlier adapter does"):
        adapters.combine([tmp_path / "head1", tmp_path / "head2"], tmp_path / "out")
    adapters.combine([tmp_path / "head1"] * 2, tmp_path / "same")  # equal copies contradict nothing
    assert list(adapters.load(tmp_path / "same").full) == ["head.weight"]


def test_a_gguf_file_has_the_names_of_the_base_that_is_given(tmp_path):
    stranger = adapters.load("king-james")
    stranger.raw.pop("base_model_name_or_path")
    out = tmp_path / "out.gguf"
    with pytest.raises(FileError, match="the adapter names no base"):
        adapters.combine([stranger], out)
    adapters.combine([stranger], out, base="austen")
    assert adapters.diff(out, "king-james", base="austen", tolerance=1e-2).same
