"""Large random inputs for every exercise, drawn without the code that its check draws with.

Each maker is written from the exercise's statement alone. `agree` says whether two answers mean the
same, for exercises that leave the answer a freedom, such as signs or the split of a product.
"""

import numpy as np


def sizes(rng, *names, high=9):
    return [int(rng.integers(1, high)) for _ in names]


def mat(rng, d, k):
    return rng.normal(size=(d, k)) * rng.choice([1.0, 1.0, 30.0, 0.01])


def ranked(rng, wide=True):
    """A matrix and a rank of at most its smaller side."""
    d, k = sizes(rng, "d", "k")
    M = np.rint(3 * mat(rng, d, k)) if rng.random() < 0.2 else mat(rng, d, k)
    return M, int(rng.integers(1, min(d, k) + 1))


def layer(rng):
    n, d, k, r = sizes(rng, *"ndkr")
    return mat(rng, n, k), mat(rng, d, k), mat(rng, r, k), mat(rng, d, r)


def low(rng):
    """A matrix of whole numbers whose rank is often lower than its sides."""
    d, k = sizes(rng, "d", "k")
    r = int(rng.integers(1, min(d, k) + 1))
    while True:
        M = rng.integers(-4, 5, (d, r)) @ rng.integers(-4, 5, (r, k))
        if M.any():
            return M.astype(float) / (1 if rng.random() < 0.6 else 8)


def shapes(rng):
    return [tuple(map(int, rng.integers(1, 60, 2))) for _ in range(rng.integers(1, 5))]


def labels(rng, n, classes):
    return rng.integers(0, classes, n)


def probabilities(rng, n, zeros):
    p = rng.dirichlet(np.full(n, rng.choice([0.05, 0.3, 1.0]))) if n > 1 else np.ones(1)
    p = np.maximum(p, 1e-14)
    if zeros and n > 1:
        p[rng.random(n) < 0.3] = 0
    return p / p.sum() if p.sum() else np.full(n, 1 / n)


def graph(rng):
    parents, slopes = [], []
    for i in range(rng.integers(1, 9)):
        own = rng.integers(0, i, rng.integers(0, 4)) if i else []
        parents.append([int(p) for p in own])
        slopes.append([float(s) for s in rng.normal(size=len(own))])
    return parents, slopes


def adapters(rng, count):
    paths = ["lm_head", "model.layers.3.mlp.gate_proj", "a.b", "model.layers.3.self_attn.v_proj"]
    d, k = sizes(rng, "d", "k")
    return {
        path: (mat(rng, d, r), mat(rng, r, k)) for path in paths[:count] for r in sizes(rng, "r")
    }


def numbers(rng, *highs):
    return [
        int(rng.integers(1, high)) if rng.random() < 0.7 else int(rng.integers(1, 6))
        for high in highs
    ]


def orthonormal(rng, n, k):
    return np.linalg.qr(rng.normal(size=(n, n)))[0][:, :k]


def gapped(rng, d, k, r):
    """A matrix whose singular value after the r-th is less than half of the r-th."""
    m = min(d, k)
    s = np.sort(rng.uniform(1, 9, m))[::-1].copy()
    s[r:] = s[r - 1] * np.sort(rng.uniform(0.05, 0.45, m - r))[::-1]
    return (orthonormal(rng, d, m) * s) @ orthonormal(rng, k, m).T


def apart(rng, d, k):
    """A matrix whose singular values are far from each other and from zero."""
    m = min(d, k)
    s = np.cumsum(rng.uniform(0.3, 2, m))[::-1]
    return (orthonormal(rng, d, m) * s) @ orthonormal(rng, k, m).T


def count_parameters(rng):
    return numbers(rng, 9000, 9000, 300)


def lora_start(rng):
    d, k, r = sizes(rng, *"dkr")
    return d, k + r, r, int(rng.integers(0, 10**6))


def noisy_rank(rng):
    d, k = sizes(rng, "d", "k", high=60)
    m, sigma = min(d, k), float(rng.choice([1.0, 0.02, 700.0]))
    r, unit = int(rng.integers(0, m + 1)), sigma * (np.sqrt(d) + np.sqrt(k))
    s = [*(unit * rng.uniform(2.6, 30, r)), *(unit * rng.uniform(0, 1.1, m - r))]
    return (orthonormal(rng, d, m) * s) @ orthonormal(rng, k, m).T, sigma


def share_of(rng):
    M, _ = ranked(rng)
    while not M.any():
        M, _ = ranked(rng)
    s = np.linalg.svdvals(M)
    if rng.random() < 0.3:  # exactly met
        return np.diag([2.0, 2, 2, 2]), float(rng.choice([0.25, 0.5, 0.75]))
    kept = np.cumsum(s**2) / np.sum(s**2)
    while np.abs(kept - (share := float(rng.uniform(0.01, 0.99)))).min() < 1e-6:
        pass
    return M, share


def best_update(rng):
    d, k = sizes(rng, "d", "k", high=6)
    n, r = k + int(rng.integers(0, 9)), int(rng.integers(1, min(d, k) + 1))
    X = orthonormal(rng, n, k) * rng.uniform(0.5, 9, k) @ orthonormal(rng, k, k)
    return X, mat(rng, n, d), mat(rng, d, k), r


def frozen_a(rng):
    d, k = sizes(rng, "d", "k")
    r = int(rng.integers(1, k + 1))
    n = k + int(rng.integers(0, 9))
    return mat(rng, n, k), mat(rng, n, d), mat(rng, d, k), rng.normal(size=(r, k))


def similarity(rng):
    r, k = sizes(rng, "r", "k")
    i, j = (int(rng.integers(1, min(r, k) + 1)) for _ in "ij")
    return apart(rng, r, k), apart(rng, r, k), i, j


def amplification(rng):
    d, k = sizes(rng, "d", "k")
    dW = apart(rng, d, k)
    return mat(rng, d, k), dW, int(rng.integers(1, min(d, k) + 1))


def intruders(rng):
    d = int(rng.integers(1, 8))
    k, top = d + int(rng.integers(0, 5)), int(rng.integers(1, d + 1))
    return apart(rng, d, k), apart(rng, d, k), top, float(rng.uniform(0.1, 0.99))


def swish(rng):
    shape = tuple(rng.integers(1, 5, rng.integers(1, 4)))
    return rng.normal(size=shape), rng.choice([1.0, 20.0, 2000.0]) * rng.normal(size=shape)


def slope(rng):
    shape = tuple(rng.integers(1, 5, rng.integers(1, 4)))
    c = rng.normal(size=shape)
    return (lambda x: float(np.sum(c * x * np.roll(x, 1)) + np.sum(c * x))), rng.normal(size=shape)


def unbroadcast(rng):
    full = tuple(int(n) for n in rng.integers(1, 5, rng.integers(0, 5)))
    front = int(rng.integers(0, len(full) + 1))
    shape = tuple(1 if rng.random() < 0.4 else n for n in full[front:])
    return rng.normal(size=full), shape


def levels(rng):
    inner = rng.uniform(-1, 1, rng.integers(0, 14))
    return np.unique([*inner, 0.0, 1.0])


def in_blocks(rng):
    own, n, size = levels(rng), int(rng.integers(1, 40)), int(rng.integers(1, 12))
    return rng.integers(0, len(own), n), rng.uniform(0.1, 90, -(-n // size)), own, size


def prompt(rng):
    d, k = sizes(rng, "d", "k")
    return mat(rng, d, k), rng.normal(size=k), rng.normal(size=k)


def combine(rng):
    d, k, count = sizes(rng, "d", "k", "count", high=6)
    several = [
        (mat(rng, d, r), mat(rng, r, k), float(rng.uniform(1, 32)))
        for r in sizes(rng, *range(count))
    ]
    return several, [float(w) for w in rng.normal(size=count)]


def bfloat(rng):
    x = rng.normal(size=tuple(rng.integers(1, 9, rng.integers(1, 4)))) * 2.0 ** rng.integers(
        -90, 90
    )
    x = x.astype(np.float32)
    if rng.random() < 0.4:  # halfway
        x = ((x.view(np.uint32) & np.uint32(0xFFFF0000)) | np.uint32(0x8000)).view(np.float32)
    return (x,)


def forget(rng):
    k = int(rng.integers(2, 10))
    m, r = int(rng.integers(1, k)), int(rng.integers(1, 6))
    X = rng.normal(size=(m, k))
    if m > 1 and rng.random() < 0.4:
        X[-1] = X[0] - 2 * X[-2] if m > 2 else 3 * X[0]
    return mat(rng, r, k), X


def dora(rng):
    _, W0, A, B = layer(rng)
    return W0, A, B, rng.uniform(0.5, 5, len(W0)), float(rng.uniform(1, 32))


def sweep(rng):
    ranks = [int(r) for r in rng.permutation([1, 2, 4, 8, 16, 32])[: rng.integers(1, 7)]]
    losses = rng.normal(size=(len(ranks), rng.integers(2, 7))) * 0.3 + rng.uniform(
        1, 1.6, (len(ranks), 1)
    )
    if len(ranks) > 1 and rng.random() < 0.3:
        losses = np.full((len(ranks), 4), 9.0)
        losses[0], losses[1] = (4, 0, 0, 0), 2.0
    return ranks, losses


def fair(rng):
    count, rates, seeds = sizes(rng, *range(3), high=6)
    validation = np.rint(rng.uniform(0, 9, (count, rates)))
    return 12.0, validation, rng.uniform(0, 9, (count, rates, seeds))


def perplexity(rng):
    n = int(rng.integers(1, 30))
    marks = labels(rng, n, 50)
    marks[rng.random(n) < 0.3] = -100
    marks[rng.integers(n)] = 7
    return rng.uniform(0, 6, n), marks


def attention(rng):
    n, d = sizes(rng, "n", "d")
    unit = rng.choice([1.0, 1.0, 40.0])
    return unit * rng.normal(size=(n, d)), unit * rng.normal(size=(n, d))


def entropy(rng):
    n, classes = sizes(rng, "n", "classes")
    return rng.choice([1.0, 1000.0]) * rng.normal(size=(n, classes)), labels(rng, n, classes)


def of_rank_one(rng):
    d, k = sizes(rng, "d", "k")
    b, a = rng.normal(size=(d, 1)), rng.normal(size=(1, k))
    b[: rng.integers(0, d)], a[:, : rng.integers(0, k)] = 0, 0
    return (b @ a,)


def lu(rng):
    n = int(rng.integers(1, 8))
    L, U = np.tril(rng.normal(size=(n, n)), -1) + np.eye(n), np.triu(rng.normal(size=(n, n)), 1)
    return (L @ (U + np.diag(rng.uniform(1, 5, n))),)


def tall(rng, extra):
    k = int(rng.integers(1, 7))
    return (apart(rng, k + extra + int(rng.integers(0, 5)), k),)


def with_alpha(rng):
    M, r = ranked(rng)
    return M, r, float(rng.uniform(1, 32))


def elimination(rng):
    return (low(rng),)


def budget(rng):
    own = shapes(rng)
    one = sum(d + k for d, k in own)
    return own, int(rng.integers(0, 20)) * one + int(rng.choice([0, 0, one - 1, rng.integers(one)]))


def bits(rng):
    own, each = shapes(rng), int(rng.integers(1, 7))
    room = each * sum(d + k for d, k in own)
    return int(rng.integers(0, 20)) * room + int(rng.choice([0, 1, rng.integers(room)])), own, each


def attention_count(rng):
    d = int(rng.integers(1, 300))
    targets = [t for t in "qkvo" if rng.random() < 0.6]
    return (
        int(rng.integers(1, 90)),
        d,
        int(rng.integers(1, d + 1)),
        targets,
        int(rng.integers(1, 70)),
    )


def resize(rng):
    d, k, old = sizes(rng, "d", "k", "old", high=9)
    return mat(rng, d, old), mat(rng, old, k), int(rng.integers(1, min(d, k, old) + 1))


def memorised(rng):
    n, classes = int(rng.integers(1, 30)), int(rng.integers(2, 90))
    return rng.uniform(0, 6, n), classes, *numbers(rng, 90, 90, 9)


def quantised(rng):
    W, r = ranked(rng)
    return W, np.rint(4 * W) / 4, r, float(rng.uniform(1, 32))


def pair(rng, d, k):
    return rng.normal(size=(d, k)), rng.normal(size=(d, k))


def with_targets(rng):
    x, W0, A, B = layer(rng)
    return x, mat(rng, len(x), len(W0)), W0, A, B, float(rng.uniform(1, 32))


def product(rng):
    n, k, m = sizes(rng, *"nkm")
    return mat(rng, n, m), mat(rng, n, k), mat(rng, k, m)


def column(rng):
    d, r, k = sizes(rng, *"drk")
    return mat(rng, d, r), mat(rng, r, k), int(rng.integers(k))


MAKERS = {
    "lora_count": count_parameters,
    "parameters": count_parameters,
    "last_rank_that_saves": lambda rng: numbers(rng, 400, 400),
    "break_even": lambda rng: numbers(rng, 400, 400),
    "affordable_rank": budget,
    "rank_for_bits": bits,
    "attention_count": attention_count,
    "training_bytes": lambda rng: numbers(rng, 10**9, 10**7),
    "step_multiplications": lambda rng: [*numbers(rng, 900, 900), int(rng.integers(0, 40))],
    "lora_forward": lambda rng: (*layer(rng), float(rng.uniform(1, 32))),
    "forward": lambda rng: (*layer(rng), float(rng.uniform(1, 32))),
    "change": lambda rng: (*layer(rng), float(rng.uniform(1, 32))),
    "merge": lambda rng: (*layer(rng), float(rng.uniform(1, 32))),
    "lora_gradients": with_targets,
    "step": with_targets,
    "lora_start": lora_start,
    "start": lora_start,
    "column_of_product": column,
    "rank_one_terms": lambda rng: column(rng)[:2],
    "rank_one_factors": of_rank_one,
    "factors_from_columns": elimination,
    "rank_by_elimination": elimination,
    "true_rank": elimination,
    "noisy_rank": noisy_rank,
    "cut": ranked,
    "closest": ranked,
    "balanced_factors": ranked,
    "error_curve": lambda rng: (low(rng),),
    "smallest_rank": share_of,
    "top_directions": lambda rng: (lambda d, k, r: (gapped(rng, d, k, r), r))(
        *(lambda r: (r + int(rng.integers(0, 4)), r + int(rng.integers(0, 4)), r))(int(rng.integers(1, 5)))
    ),
    "resize_adapter": resize,
    "truncate": resize,
    "cut_qr": lambda rng: (lambda d, k: (apart(rng, d, k), int(rng.integers(1, min(d, k) + 1))))(*sizes(rng, *"dk")),
    "lu_factors": lu,
    "gram_schmidt": lambda rng: tall(rng, 0),
    "svd_by_eigenvectors": lambda rng: tall(rng, 1),
    "frozen_a": frozen_a,
    "best_update": best_update,
    "chance_similarity": lambda rng: (lambda k: (k, *map(int, rng.integers(1, k + 1, 2))))(int(rng.integers(1, 400))),
    "similarity": similarity,
    "amplification": amplification,
    "intruders": intruders,
    "matmul_gradients": product,
    "product_gradients": product,
    "sum_gradients": lambda rng: (lambda d, k: (*pair(rng, d, k), mat(rng, d, k)))(*sizes(rng, *"dk")),
    "swish_gradient": swish,
    "slope": slope,
    "unbroadcast": unbroadcast,
    "broadcast": unbroadcast,
    "backward": graph,
    "walk": graph,
    "alpha_for_rank": lambda rng: (float(rng.uniform(1, 64)), *numbers(rng, 90, 90), str(rng.choice(["lora", "rslora"]))),
    "one_alpha": lambda rng: (mat(rng, *sizes(rng, *"dr")), *numbers(rng, 60, 60)),
    "nearest_levels": lambda rng: (rng.normal(size=rng.integers(1, 30)), levels(rng)),
    "read_in_blocks": in_blocks,
    "repair": quantised,
    "kl_divergence": lambda rng: (lambda n: (probabilities(rng, n, True), probabilities(rng, n, False)))(int(rng.integers(1, 12))),
    "prompt_update": prompt,
    "combine_adapters": combine,
    "to_bfloat16": bfloat,
    "share_recovered": lambda rng: (9.0 + rng.random(), 1 + 5 * rng.random(), 12 * rng.random()),
    "cross_entropy": entropy,
    "attention_weights": attention,
    "bits_and_perplexity": perplexity,
    "forget_nothing": forget,
    "pissa_start": with_alpha,
    "olora_start": lambda rng: (lambda d, k: (apart(rng, d, k), int(rng.integers(1, min(d, k) + 1))))(*sizes(rng, *"dk")),
    "dora_weight": dora,
    "bits_per_parameter": memorised,
    "smallest_good_rank": sweep,
    "fair_shares": fair,
    "peft_tensors": lambda rng: (adapters(rng, int(rng.integers(0, 5))),),
    "header": lambda rng: ({path: tuple(f.astype(np.float32) for f in both) for path, both in adapters(rng, int(rng.integers(0, 5))).items()},),
}  # fmt: skip


def outer(value, first, second):
    return value[first] @ value[second]


MEANT = {  # what of an answer is unique
    "rank_one_factors": lambda v, *a: outer(v, 0, 1),
    "factors_from_columns": lambda v, *a: (outer(v, 0, 1), v[0].shape),
    "closest": lambda v, *a: (outer(v, 0, 1), v[0].shape, v[1].shape),
    "balanced_factors": lambda v, *a: (outer(v, 0, 1), v[0].shape, v[0] @ v[0].T, v[1].T @ v[1]),
    "resize_adapter": lambda v, *a: (outer(v, 0, 1), v[0].shape),
    "truncate": lambda v, *a: (outer(v, 0, 1), v[0].shape),
    "best_update": lambda v, *a: (outer(v, 0, 1), v[0].shape),
    "repair": lambda v, *a: (outer(v, 0, 1), v[0].shape),
    "prompt_update": lambda v, *a: (outer(v, 0, 1), v[0].shape),
    "combine_adapters": lambda v, *a: (outer(v, 0, 1), v[0].shape),
    "cut_qr": lambda v, *a: (outer(v, 0, 1), v[0] @ v[0].T),
    "pissa_start": lambda v, *a: (v[0], outer(v, 1, 2), v[1] @ v[1].T),
    "olora_start": lambda v, *a: (v[0], outer(v, 1, 2), v[1] @ v[1].T),
    "top_directions": lambda v, *a: (v @ v.T, v.T @ v),
    "gram_schmidt": lambda v, *a: np.abs(v),
    "svd_by_eigenvectors": lambda v, *a: (np.abs(v[0]), v[1], (v[0] * v[1]) @ v[2], np.abs(v[2])),
    "lora_start": lambda v, *a: (v[0].shape, v[1].shape, v[1] @ v[0]),
    "start": lambda v, *a: (v[0].shape, v[1].shape, v[1] @ v[0]),
    "nearest_levels": lambda v, w, levels: (levels[v[0]] * v[1], v[1]),
}  # fmt: skip


def alike(a, b, tolerance=1e-4):
    """Whether two answers are equal, up to a share of the largest number in ``b``."""
    if isinstance(b, dict):
        return isinstance(a, dict) and a.keys() == b.keys() and all(alike(a[k], b[k]) for k in b)
    try:
        x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    except (ValueError, TypeError):
        return isinstance(a, (tuple, list)) and len(a) == len(b) and all(map(alike, a, b))
    if x.shape != y.shape:
        return False
    size = np.abs(y[np.isfinite(y)]).max(initial=0.0)
    return bool(np.allclose(x, y, rtol=tolerance, atol=tolerance * size + 1e-9, equal_nan=True))


def same_answer(name, right, wrong, count, seed=0):
    """Whether ``wrong`` gives what ``right`` gives on so many large inputs, as far as it is unique."""
    meant = MEANT.get(name, lambda value, *arguments: value)
    rng = np.random.default_rng(seed)
    for _ in range(count):
        arguments = MAKERS[name](rng)
        expected = meant(right(*arguments), *arguments)
        try:
            if not alike(meant(wrong(*arguments), *arguments), expected):
                return False
        except Exception:
            return False
    return True
