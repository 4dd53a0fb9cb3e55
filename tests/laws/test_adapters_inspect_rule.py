"""One rule says which rank is enough: `errors`, `inspect`, `resize` and `extract` give one
answer.
"""

import numpy as np
import pytest

from lora_np import adapters
from lora_np.accounting import rank_errors_of
from lora_np.adapters import AdapterModule
from lora_np.files import FileError
from lora_np.hub import safetensors


def answers(M, place, *, energy=0.99, alpha=1.0):
    """The rank that is enough for M, as each command says it; None where it refuses."""
    place.mkdir()
    np.save(place / "M.npy", M)
    rank = M.shape[1]
    module = AdapterModule.of(A=np.eye(rank, dtype=M.dtype), B=M / alpha, alpha=alpha * rank)
    adapters.save(adapters.Adapter({"q": module}), place / "adapter")
    for name, W in (("base", np.zeros_like(M)), ("tuned", M)):
        (place / name).mkdir()
        safetensors.save({"q.weight": W}, place / name / "model.safetensors")

    def asked(command, *sources):
        options = {"energy": energy}
        if M.any():
            return command(*sources, place / command.__name__, **options).rows[0].rank
        with pytest.raises(FileError, match=r"every module is zero|no weight matrix differs"):
            command(*sources, place / command.__name__, **options)
        return 0

    (row,) = adapters.inspect(place / "adapter").rows
    return {
        "errors": rank_errors_of(str(place / "M.npy"), energy=energy).rank,
        "resize": asked(adapters.resize, place / "adapter"),
        "extract": asked(adapters.extract, place / "base", place / "tuned"),
        **({"inspect": row.rank_for_99} if energy == 0.99 else {}),
    }


def same(found):
    (answer,) = {*found.values()}
    return answer


def rotated(s, d, k, rng):
    """A matrix with these singular values."""
    U, V = (np.linalg.qr(rng.standard_normal((n, len(s))))[0] for n in (d, k))
    return (U * s) @ V.T


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(20))
def test_all_commands_agree_on_random_matrices(tmp_path, seed, dtype):
    rng = np.random.default_rng(seed)
    d, k = rng.integers(1, 24, size=2)
    decay = rng.uniform(0.3, 1)  # 1: nothing but ties
    M = rotated(decay ** np.arange(min(d, k)) * 10.0 ** rng.integers(-8, 8), d, k, rng).astype(
        dtype
    )
    energy = rng.choice([0.99, 0.5, 0.9, 0.9999, 1.0])
    found = same(answers(M, tmp_path / "a", energy=energy, alpha=2.0))
    s = np.linalg.svdvals(M.astype(np.float64))
    lost = np.append(np.cumsum(np.square(s[::-1]))[::-1], 0) / np.square(s).sum()
    slack = 1e-4 if dtype == np.float32 else 1e-10
    assert lost[found] ** 0.5 <= (1 - energy) ** 0.5 + slack
    assert found == 1 or lost[found - 1] ** 0.5 > (1 - energy) ** 0.5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("values", "needed"),
    [
        ([3.0] * 11 + [1.0], 11),
        ([1.0] * 100, 99),
        ([1.0], 1),
        ([9.9498743710662, 1.0], 1),
        ([2.0, 2.0], 2),
    ],
)
def test_a_rank_that_meets_the_threshold_exactly_is_enough(tmp_path, values, needed, dtype):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        for name, M in {
            "diagonal": np.diag(values),
            "rotated": rotated(values, len(values) + 3, len(values), rng),
        }.items():
            assert same(answers(M.astype(dtype), tmp_path / f"{name}{seed}")) == needed


def test_a_zero_matrix_needs_no_rank(tmp_path):
    assert same(answers(np.zeros((3, 4)), tmp_path / "zero")) == 0


def test_a_module_of_zeros_is_left_out_beside_others(tmp_path):
    A = np.ones((2, 3))
    modules = {
        name: AdapterModule.of(A=A, B=np.full((4, 2), x), alpha=1)
        for name, x in (("q", 1.0), ("v", 0.0))
    }
    adapters.save(adapters.Adapter(modules), tmp_path / "a")
    found = adapters.resize(tmp_path / "a", tmp_path / "out", energy=0.99)
    assert [row.rank for row in found.rows] == [1, 0]
    assert (
        "left out, because they have no effect or the budget is better spent elsewhere: v"
        in found.notes
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(10))
def test_a_share_that_a_rank_keeps_exactly_is_kept_by_that_rank(tmp_path, seed, dtype):
    rng = np.random.default_rng(seed)
    s = np.sort(rng.uniform(1, 2, size=10).astype(dtype))[::-1].astype(np.float64)
    rank = int(rng.integers(1, 9))
    energy = float(np.square(s[:rank]).sum() / np.square(s).sum())
    M = rotated(s, 14, 12, rng).astype(dtype)  # rounds, so that the share may be missed by a hair
    assert same(answers(M, tmp_path / "a", energy=energy, alpha=3.0)) == rank
