"""Rows of a batch do not know of one another: each is what it is alone, whatever its positions."""

import numpy as np
import pytest

from lora_np import language
from lora_np.language.blocks import sequences
from lora_np.language.decoder import decoder_settings
from lora_np.language.generation import Reader, padded
from tests.drawing import every, few
from tests.language.family_cases import CASES, KINDS, LLAMA3, LONG, SIZE, YARN, each, rope
from tests.language.reading import tokens_read
from tests.rounding import assert_as_near, in_double

LONGROPE = {**LONG, "original_max_position_embeddings": 12}
PHI3 = {"hidden_size": 48, "rope_parameters": {**LONGROPE, "partial_rotary_factor": 0.75}}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0}
#: Every kind of rotary positions, with a limit that rows of 3 to 20 tokens cross.
ROTARY = [
    ("llama", "default", {}),
    ("llama", "linear", rope("linear", factor=3.0)),
    ("llama", "dynamic", {**rope("dynamic", factor=2.0), "max_position_embeddings": 11}),
    ("glm", "dynamic", {**rope("dynamic", factor=4.0), "max_position_embeddings": 5}),
    ("llama", "llama3", rope("llama3", factor=4.0, **LLAMA3)),
    ("llama", "yarn", {**rope("yarn", **YARN), "head_dim": 16, "max_position_embeddings": 16}),
    ("llama", "longrope", {**rope("longrope", **LONGROPE), "head_dim": 6}),
    ("phi3", "longrope", {**PHI3, "original_max_position_embeddings": 12}),
    ("hunyuan_v1_dense", "longrope", {**rope("longrope", **LONGROPE), "head_dim": 6}),
    ("hunyuan_v1_dense", "alpha", {**rope("dynamic", alpha=50.0, factor=1.0), "head_dim": 8}),
    (
        "hunyuan_v1_dense",
        "dynamic",
        {**rope("dynamic", factor=2.0), "head_dim": 8, "max_position_embeddings": 11},
    ),
    (
        "gemma3_text",
        "dynamic in some layers",
        {
            **each({"rope_type": "default"}, DYNAMIC),
            **{"head_dim": 8, "sliding_window": 5, "layer_types": KINDS},
            "max_position_embeddings": 11,
        },
    ),
]
ALL = [*ROTARY, *CASES]
LENGTHS = [[20, 3, 12], [1, 13, 11, 12], [17, 17], [5, 6]]


def random_model(family, changes, dtype=np.float32):
    """A model of a family with random weights, norms and biases included."""
    config = {"model_type": family, **SIZE, **changes}
    rng, arrays = np.random.default_rng(0), {}
    for module in decoder_settings(config).spec.modules:
        shape = module.shape[::-1] if module.transposed else module.shape
        alone = module.kind in ("parameter", "experts")
        arrays[module.name if alone else f"{module.name}.weight"] = shape
        if module.bias:
            arrays[f"{module.name}.bias"] = module.shape[:1]
    numbers = {name: rng.normal(0, 0.3, shape).astype(dtype) for name, shape in arrays.items()}
    return language.build(config, numbers.get)


def rows_of(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, SIZE["vocab_size"], n).tolist() for n in lengths]


@every(("case", "lengths"), [(case, some) for case in few(ALL, 8) for some in LENGTHS])
def test_a_padded_row_has_the_logits_that_it_has_alone(case, lengths):
    family, _, changes = case
    model, rows = random_model(family, changes), rows_of(lengths)
    wide = in_double(model)
    for composing in (False, True):
        ours = [language.composed_operations(m) if composing else m for m in (model, wide)]
        tokens, ids = padded(rows)
        single, double = (m(tokens, sequence_ids=ids) for m in ours)
        for row, found, exact in zip(rows, single, double, strict=True):
            alone = wide(np.array([row]))[0]
            np.testing.assert_allclose(exact[-len(row) :], alone, rtol=1e-9, atol=1e-9)
            assert_as_near(found[-len(row) :], model(np.array([row]))[0], alone)


@every(("case", "lengths"), [(case, some) for case in few(ALL, 8) for some in LENGTHS])
def test_rows_that_are_read_token_by_token_are_what_each_is_alone(case, lengths):
    """Across the limits of their positions, where what was read before may have to be read anew."""
    family, _, changes = case
    model = in_double(random_model(family, changes))
    rows, more = rows_of(lengths), rows_of([9] * len(lengths), seed=1)
    together, alone = Reader(model), [Reader(model) for _ in rows]
    for step in range(10):
        begun = [row + end[:step] for row, end in zip(rows, more, strict=True)]
        found = together.read(begun)
        for i, row in enumerate(begun):
            expected = alone[i].read([row])[0]
            np.testing.assert_allclose(found[i], expected, rtol=1e-6, atol=1e-6)
            if "dynamic" not in case[1]:  # there keys stay as they were turned in a shorter text
                whole = model.model(np.array([row]))[0, -1]
                np.testing.assert_allclose(expected, whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", ROTARY[:8], ids=lambda case: f"{case[0]} {case[1]}")
def test_a_common_beginning_is_read_once_and_copied_to_rows(case, monkeypatch):
    family, _, changes = case
    model = in_double(random_model(family, changes))
    (beginning,), questions = rows_of([10]), rows_of([4, 4, 4], seed=2)
    one = Reader(model)
    one.read([beginning])
    rows = [beginning + question for question in questions]
    with monkeypatch.context() as patch:
        read = tokens_read(patch)
        found = one.take([0] * len(rows)).read(rows)
    assert read == [14 if "longrope" in case[1] else 4]  # across the limit all anew
    for i, row in enumerate(rows):
        expected = Reader(model).read([row])[0]
        if "dynamic" not in case[1]:
            np.testing.assert_allclose(found[i], expected, rtol=1e-6, atol=1e-6)
    # what was read stays: another question, and one that shares only its first words
    for row in (rows[1], beginning[:6] + questions[0], beginning[:3]):
        expected = Reader(model).read([row])[0]
        if "dynamic" not in case[1]:
            np.testing.assert_allclose(one.read([row])[0], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "case",
    [*ROTARY[:8], ("mistral", "window", {"sliding_window": 6})],
    ids=lambda case: f"{case[0]} {case[1]}",
)
def test_rows_of_any_length_go_on_from_a_common_beginning_as_alone(case, monkeypatch):
    family, _, changes = case
    model = in_double(random_model(family, changes))
    (beginning,), questions = rows_of([10]), rows_of([4, 1, 6, 2], seed=2)
    rows, more = [beginning + question for question in questions], rows_of([3] * 4, seed=1)
    one = Reader(model)
    one.read([beginning])
    together = one.spread(rows)
    for step in range(3):
        begun = [row + end[:step] for row, end in zip(rows, more, strict=True)]
        with monkeypatch.context() as patch:
            read = tokens_read(patch)
            found = together.read(begun)
        if "longrope" not in case[1]:
            assert read == [1 if step else 6]
        for i, row in enumerate(begun):
            if "dynamic" not in case[1]:
                whole = model.model(np.array([row]))[0, -1]
                np.testing.assert_allclose(found[i], whole, rtol=1e-6, atol=1e-6)
    assert one.rows == [beginning]
    assert not one.spread([beginning[:1], [*beginning, 1]]).rows  # nothing of it is of use
    assert not Reader(model).spread(rows).rows  # nothing was read


def test_text_goes_on_where_the_positions_are_stretched():
    """Dynamic positions have no end, and YaRN's is its factor times the old context."""
    (row,) = rows_of([40])
    reach = {}
    for family, kind, changes in ROTARY[:6]:
        reach[family, kind] = Reader(random_model(family, changes)).reach
    assert reach["llama", "default"] == SIZE["max_position_embeddings"]
    assert reach["llama", "dynamic"] == reach["glm", "dynamic"] == float("inf")
    assert reach["llama", "yarn"] == 64
    assert reach["llama", "linear"] == 3 * SIZE["max_position_embeddings"]
    assert Reader(random_model(*ROTARY[2][::2])).read([row]).shape == (1, 24)


@pytest.mark.parametrize("seed", range(30))
def test_a_token_is_counted_from_the_beginning_of_its_own_text(seed):
    """Whatever the order of the texts, and with a cache of those before."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 12))
    texts = rng.integers(0, 3, (int(rng.integers(1, 4)), n))
    expected = [[sum(row[:i] == row[i]) for i in range(n)] for row in texts]
    np.testing.assert_array_equal(sequences(texts, 0).positions, expected)
    before = int(rng.integers(0, n))
    np.testing.assert_array_equal(
        sequences(texts, before).positions, np.array(expected)[:, before:]
    )
