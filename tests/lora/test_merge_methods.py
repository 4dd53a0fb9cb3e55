"""Ways to combine LoRAs: each against its dense definition, the laws that it keeps, and what is
refused.
"""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lora_np.lora import MERGE_METHODS, WeightedUpdate
from tests.drawing import FULL

SEEDS = range(40 if FULL else 4)
ON_FACTORS = {"linear", "ties", "dare_linear", "dare_ties", "magnitude_prune"}
NAMES = [name for name in MERGE_METHODS if name != "cat"]


def draw(seed, *, ranks=None, dtype=np.float64):
    """Two to four terms of small shapes, with weights of both signs, scales, and Gram matrices."""
    rng = np.random.default_rng([5, seed])
    d, k = rng.integers(4, 12, size=2)
    n = int(rng.integers(2, 5))
    ranks = [2] * n if ranks is None else [int(rng.integers(1, 4)) for _ in range(n)]
    return [
        WeightedUpdate(
            rng.standard_normal((d, r)).astype(dtype),
            rng.standard_normal((r, k)).astype(dtype),
            float(rng.choice([-1.0, 0.5, 1.0, 2.0])),
            float(rng.uniform(0.5, 2.0)),
            (lambda X: X.T @ X)(rng.standard_normal((2 * k, k))),
        )
        for r in ranks
    ]


def result(name, terms, *, density=None, rank=None, rng=0):
    """The update of the combination."""
    method = MERGE_METHODS[name]
    B, A = method(terms, density=density, rank=rank, rng=rng if method.chance else None)
    return B @ A


def best(M, rank):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return (U[:, :rank] * s[:rank]) @ Vh[:rank]


def trimmed(T, density):
    kept = np.sort(np.abs(T), axis=None)[T.size - int(density * T.size) :]
    return np.where(np.abs(T) >= kept.min(initial=np.inf), T, 0)


def ties(tensors, weights, density=0.2):
    """One entry after another."""
    T = np.stack([trimmed(tensor, density) for tensor in tensors])
    out = np.zeros(T.shape[1:])
    for place in np.ndindex(out.shape):
        entries = T[(slice(None), *place)]
        sign = 1 if entries.sum() >= 0 else -1
        agreeing = [w * x for w, x in zip(weights, entries, strict=True) if x * sign > 0]
        out[place] = np.mean(agreeing) if agreeing else 0
    return out


@pytest.mark.parametrize("seed", SEEDS)
def test_the_exact_ways_are_the_sum_and_its_nearest_of_a_rank(seed):
    terms = draw(seed, ranks="any")
    total = sum(term.weight * term.scale * term.B @ term.A for term in terms)
    largest = max(term.A.shape[0] for term in terms)
    for name, expected in [("sum", total), ("cat", total), ("svd", best(total, largest))]:
        np.testing.assert_allclose(result(name, terms), expected, atol=1e-12)
        np.testing.assert_allclose(result(name, terms, rank=1), best(total, 1), atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_entries_are_dropped_and_added_on_factors_and_on_updates(seed):
    terms = draw(seed)
    weights, strengths = (
        [term.weight for term in terms],
        [term.weight * term.scale for term in terms],
    )
    roots = np.sqrt(np.abs(strengths))
    signed = np.sign(strengths) * roots
    As, Bs = [term.A for term in terms], [term.B for term in terms]
    updates = [term.scale * term.B @ term.A for term in terms]
    total = lambda tensors, weights: sum(w * T for T, w in zip(tensors, weights, strict=True))
    cut = lambda tensors, density: [trimmed(T, density) for T in tensors]
    np.testing.assert_allclose(
        result("linear", terms), total(Bs, roots) @ total(As, signed), atol=1e-12
    )
    for density in (0.3, 0.7, 0.95, 1):
        expected = {
            "ties": ties(Bs, roots, density) @ ties(As, signed, density),
            "magnitude_prune": total(cut(Bs, density), roots) @ total(cut(As, density), signed),
            "ties_svd": ties(updates, weights, density),
            "magnitude_prune_svd": total(cut(updates, density), weights),
        }
        for name, update in expected.items():
            np.testing.assert_allclose(
                result(name, terms, density=density, rank=99), update, atol=1e-12
            )


def test_ties_of_peft_and_of_mergekit_differ_in_vote_and_divisor():
    numbers = [np.array([[1.0, 3.0]]), np.array([[-2.0, 1.0]])]
    terms = [
        WeightedUpdate(np.eye(1), T, weight) for T, weight in zip(numbers, [4.0, 1.0], strict=True)
    ]
    # PEFT: 1 - 2 < 0 elects the second; mergekit: 4 - 2 > 0 elects the first, 4 / 4. Where both
    # agree: (4 * 3 + 1) / 2, and (4 * 3 + 1) / 5.
    np.testing.assert_allclose(result("ties_svd", terms, density=1), [[-2.0, 6.5]])
    np.testing.assert_allclose(result("mergekit_ties", terms, density=1), [[1.0, 2.6]])
    np.testing.assert_allclose(result("mergekit_dare_ties", terms, density=1), [[4.0, 13.0]])
    opposites = [WeightedUpdate(np.eye(1), np.array([[x]])) for x in (1.0, -1.0)]
    for name in ("ties_svd", "mergekit_ties", "mergekit_dare_ties"):  # a draw is won by plus
        assert result(name, opposites, density=1) == [[1.0]]
    assert result("mergekit_ties", [replace(opposites[0], weight=-2.0)], density=1) == [[1.0]]
    # Half of the entries stay: the larger one of each.
    np.testing.assert_allclose(result("ties_svd", terms, density=0.5), [[-2.0, 12.0]])
    np.testing.assert_allclose(result("mergekit_ties", terms, density=0.5), [[-2.0, 3.0]])


def test_what_chance_leaves_is_brought_to_the_mean_or_to_the_norm():
    T = np.random.default_rng(0).standard_normal((300, 200))
    terms = [WeightedUpdate(np.eye(300), T)]
    for density in (0.2, 0.7):
        mean = result("dare_linear_svd", terms, density=density, rank=200)
        norm = result("mergekit_dare_linear", terms, density=density, rank=200)
        kept = np.abs(mean) > 1e-9
        assert kept.mean() == pytest.approx(density, abs=0.01)
        np.testing.assert_allclose(mean[kept], T[kept] / density, atol=1e-9)
        np.testing.assert_array_equal(np.abs(norm) > 1e-9, kept)
        assert np.abs(norm).sum() == pytest.approx(np.abs(T).sum())


@pytest.mark.parametrize("seed", SEEDS)
def test_knots_and_core_space_are_what_they_are_with_formed_updates(seed):
    terms = draw(seed, ranks="any")
    weights = [term.weight for term in terms]
    updates = [term.scale * term.B @ term.A for term in terms]
    # Signs of singular vectors are arbitrary, and entries that cancel to 0 do not occur.
    U, s, Vh = np.linalg.svd(np.concatenate(updates, axis=1), full_matrices=False)
    m = np.linalg.matrix_rank(np.concatenate(updates, axis=1))
    parts = np.split(s[:m, None] * Vh[:m], len(terms), axis=1)
    expected = U[:, :m] @ ties(parts, weights, 0.6)
    np.testing.assert_allclose(
        result("knots", terms, density=0.6), expected, rtol=0, atol=1e-12 * s[0]
    )
    B, A = np.hstack([term.B for term in terms]), np.vstack([term.A for term in terms])
    U = np.linalg.svd(B, full_matrices=False)[0][:, : np.linalg.matrix_rank(B)]
    Vh = np.linalg.svd(A, full_matrices=False)[2][: np.linalg.matrix_rank(A)]
    expected = U @ ties([U.T @ update @ Vh.T for update in updates], weights, 0.6) @ Vh
    np.testing.assert_allclose(
        result("core", terms, density=0.6), expected, rtol=0, atol=1e-12 * s[0]
    )
    for name in ("knots", "core"):  # lossless: with nothing dropped, one term is itself
        one = [terms[0]]
        np.testing.assert_allclose(
            result(name, one, density=1), weights[0] * updates[0], atol=1e-12
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_tsv_and_iso_are_what_they_are_with_formed_updates(seed):
    terms = draw(seed, ranks="any")
    updates = [term.weight * term.scale * term.B @ term.A for term in terms]
    total = sum(updates)
    U, s, Vh = np.linalg.svd(total, full_matrices=False)
    m = np.linalg.matrix_rank(total)
    np.testing.assert_allclose(result("iso", terms), U[:, :m] @ Vh[:m] * s[:m].mean(), atol=1e-10)
    most = max(1, min(total.shape) // len(terms))
    kept = [min(most, np.linalg.matrix_rank(update)) for update in updates]
    found = [np.linalg.svd(update, full_matrices=False) for update in updates]
    U, Vh = (
        (lambda u, _, v: u @ v)(*np.linalg.svd(stacked, full_matrices=False))
        for stacked in (
            np.hstack([u[:, :r] for (u, _, _), r in zip(found, kept, strict=True)]),
            np.vstack([v[:r] for (_, _, v), r in zip(found, kept, strict=True)]),
        )
    )
    s = np.concatenate([s[:r] for (_, s, _), r in zip(found, kept, strict=True)])
    np.testing.assert_allclose(result("tsv", terms), U * s @ Vh, atol=1e-10)


def test_tsv_of_updates_at_right_angles_is_their_sum():
    e = np.eye(4)
    terms = [WeightedUpdate(e[:, [i]], e[[i]], weight) for i, weight in [(0, 2.0), (2, -3.0)]]
    np.testing.assert_allclose(result("tsv", terms), np.diag([2.0, 0.0, -3.0, 0.0]), atol=1e-15)


@pytest.mark.parametrize("seed", SEEDS)
def test_regmean_is_the_least_squares_of_the_outputs(seed):
    terms = draw(seed, ranks="any")
    D = result("regmean", terms)
    gradient, size = 0.0, 0.0
    for term in terms:
        diagonal = np.diag(np.diag(term.gram))
        part = term.weight * term.scale * term.B @ term.A
        G = 0.9 * term.gram + 0.1 * diagonal + 1e-6 * diagonal.max() * np.eye(len(diagonal))
        gradient, size = gradient + (D - part) @ G, size + np.linalg.norm(part @ G)
    assert np.linalg.norm(gradient) < 1e-12 * size


def test_regmean_leaves_each_update_to_its_own_inputs_and_averages_where_there_are_none():
    rng = np.random.default_rng(3)
    seen = [np.diag([1.0, 2.0, 0.0, 0.0, 0.0]), np.diag([0.0, 0.0, 3.0, 1.0, 0.0])]
    terms = [
        WeightedUpdate(rng.standard_normal((4, 2)), rng.standard_normal((2, 5)), gram=G)
        for G in seen
    ]
    D, (one, other) = result("regmean", terms), (term.B @ term.A for term in terms)
    np.testing.assert_allclose(D[:, :2], one[:, :2], atol=1e-4)
    np.testing.assert_allclose(D[:, 2:4], other[:, 2:4], atol=1e-4)
    # 2 : 3, the largest
    np.testing.assert_allclose(D[:, 4], 0.4 * one[:, 4] + 0.6 * other[:, 4], atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_laws(name):
    method = MERGE_METHODS[name]
    for seed in SEEDS:
        terms = draw(seed)
        if name == "mergekit_ties":  # weights that cancel are its exception
            terms = [replace(term, weight=abs(term.weight)) for term in terms]
        D = result(name, terms)
        if not method.chance:
            np.testing.assert_allclose(result(name, terms[::-1]), D, atol=1e-10, err_msg="order")
        tripled = [replace(term, weight=3 * term.weight) for term in terms]
        factor = 1 if name == "mergekit_ties" else 3  # which divides by the weights
        np.testing.assert_allclose(result(name, tripled), factor * D, atol=1e-10, err_msg="weights")
        one = replace(terms[0], weight=1.0)
        if name != "iso":
            density = {} if method.density is None else {"density": 1}
            np.testing.assert_allclose(
                result(name, [one], **density), one.delta, atol=1e-4, err_msg="one"
            )
        for rank in (1, 2, 3):
            B, A = method(terms, rank=rank, rng=0 if method.chance else None)
            assert B.shape[1] == A.shape[0] <= rank
            if not method.cut and name != "iso":  # whose directions are equally strong
                np.testing.assert_allclose(B @ A, best(D, rank), atol=1e-10, err_msg="cut")
        dead = [replace(term, B=0 * term.B) for term in terms]
        assert not result(name, dead).any()


@pytest.mark.parametrize("name", NAMES)
def test_which_ways_depend_on_how_an_update_is_factored(name):
    for seed in SEEDS:
        terms = draw(seed)
        mixed = np.array([[3.0, 1.0], [0.0, 0.5]])
        others = [
            replace(terms[0], B=terms[0].B @ mixed, A=np.linalg.solve(mixed, terms[0].A)),
            *terms[1:],
        ]
        same = np.allclose(result(name, terms), result(name, others), atol=1e-8)
        assert same == (name not in ON_FACTORS | {"core"})


@pytest.mark.parametrize("name", NAMES)
def test_single_precision_stays(name):
    terms = draw(1, dtype=np.float32)
    method = MERGE_METHODS[name]
    B, A = method(terms, rng=0 if method.chance else None)
    assert B.dtype == A.dtype == np.float32
    exact = draw(1)
    exact = [
        replace(term, B=t.B.astype(float), A=t.A.astype(float))
        for term, t in zip(exact, terms, strict=True)
    ]
    np.testing.assert_allclose(B @ A, result(name, exact), atol=2e-4)


def test_the_same_adapter_twice_has_directions_of_rounding_which_count_for_nothing():
    term = replace(draw(0)[0], weight=1.0)
    for name in ("knots", "core", "tsv", "iso"):
        density = {} if MERGE_METHODS[name].density is None else {"density": 1}
        B, A = MERGE_METHODS[name]([term, term], **density)
        assert np.linalg.matrix_rank(B @ A) == 2, name


@pytest.mark.peers
@pytest.mark.parametrize("name", ["mergekit_ties", "mergekit_dare_linear", "mergekit_dare_ties"])
def test_mergekit_is_what_the_package_computes(name, monkeypatch):
    """Version 0.1.5, where it is installed: it is large, and needs a torch of its own choice."""
    torch = pytest.importorskip("torch")
    registry = pytest.importorskip("mergekit.merge_methods.registry")
    method = registry.get(name.removeprefix("mergekit_"))
    masks, bernoulli = [], torch.bernoulli
    monkeypatch.setattr(torch, "bernoulli", lambda p: masks.append(bernoulli(p)) or masks[-1])

    class Replayed(np.random.Generator):
        def random(self, shape):
            return 1.0 - masks.pop(0).numpy()

    for seed in SEEDS:
        terms = draw(seed)
        entries = [
            SimpleNamespace(tensor=torch.tensor(term.delta), id=i) for i, term in enumerate(terms)
        ]
        base = SimpleNamespace(tensor=torch.zeros_like(entries[0].tensor))
        settings = {
            "density": dict.fromkeys(range(len(terms)), 0.4),
            "int8_mask": False,
            "lambda": 1.0,
        }
        settings["weight"] = {i: term.weight for i, term in enumerate(terms)}
        settings |= {"normalize": method.default_normalize, "rescale": method.default_rescale}
        group = SimpleNamespace(base=base, non_base=entries)
        expected = method.merge_group(group, **settings).numpy()
        found = result(name, terms, density=0.4, rank=99, rng=Replayed(np.random.PCG64(0)))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


REFUSED = {
    "a density for a method that drops nothing": ("sum", {"density": 0.5}, ValueError, "density is for methods that drop"),
    "no density": ("ties", {"density": 0}, ValueError, "density must be above 0 and at most 1, got 0"),
    "too much": ("ties", {"density": 1.5}, ValueError, "density must be above 0 and at most 1, got 1.5"),
    "no rank": ("svd", {"rank": 0}, ValueError, "rank must be at least 1, got 0"),
    "no seed": ("dare_linear", {}, TypeError, "rng must be a numpy.random.Generator or a whole number"),
    "other ranks": ("linear", {}, ValueError, r"ranks are \[1, 2\]; adding factors needs equal ones"),
    "no inputs": ("regmean", {}, ValueError, "'regmean' needs a Gram matrix of each adapter's inputs"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "options", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(name, options, error, message):
    terms = [WeightedUpdate(np.ones((3, r)), np.ones((r, 4))) for r in (1, 2)]
    with pytest.raises(error, match=message):
        MERGE_METHODS[name](terms, **options)


def test_a_gram_matrix_of_another_module_is_refused():
    terms = [WeightedUpdate(np.ones((3, 1)), np.ones((1, 4)), gram=np.eye(3))]
    with pytest.raises(
        ValueError, match=r"a Gram matrix of 4 inputs must have shape \(4, 4\), got \(3, 3\)"
    ):
        MERGE_METHODS["regmean"](terms)


def test_the_page_has_every_method():
    page = (Path(__file__).parents[2] / "docs" / "use" / "merge.md").read_text(encoding="utf-8")
    table = page[page.index("### The methods") : page.index("### How much adapters overlap")]
    assert not [name for name in MERGE_METHODS if f"`{name}`" not in table]
