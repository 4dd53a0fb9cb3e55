"""What is usually done wrong, and other ways to be right."""

import numpy as np

import lora_np as lnp
from tests.attempts import alternative, mistake


@mistake("a product where a sum is", breaks="entries")
def lora_count(d, k, r):
    return d * r * k


@mistake("takes the matrix for a square", breaks="entries")
def lora_count(d, k, r):
    return 2 * d * r


@mistake("counts the frozen matrix", breaks="entries")
def lora_count(d, k, r):
    return d * k + r * (d + k)


@mistake("hands in the package's", breaks="entries")
def lora_count(d, k, r):
    return lnp.count_lora(d, k, rank=r)


@mistake("counts an exact fit", breaks="saves")
def last_rank_that_saves(d, k):
    return d * k // (d + k)


@mistake("half of the shorter side", breaks="next")
def last_rank_that_saves(d, k):
    return (min(d, k) - 1) // 2


@mistake("at least 1", breaks="saves")
def last_rank_that_saves(d, k):
    return max(1, (d * k - 1) // (d + k))


@mistake("a fraction", breaks="saves")
def last_rank_that_saves(d, k):
    return d * k / (d + k) - 0.5


@mistake("pays for the first matrix only", breaks="fits")
def affordable_rank(shapes, budget):
    d, k = shapes[0]
    return budget // (d + k)


@mistake("rounds", breaks="fits")
def affordable_rank(shapes, budget):
    return round(budget / sum(d + k for d, k in shapes))


@mistake("at least 1", breaks="fits")
def affordable_rank(shapes, budget):
    return max(1, budget // sum(d + k for d, k in shapes))


@mistake("does not spend the last number", breaks="largest")
def affordable_rank(shapes, budget):
    return (budget - 1) // sum(d + k for d, k in shapes)


@mistake("all matrices square", breaks="target")
def attention_count(layers, d, d_kv, targets, r):
    return layers * len(targets) * r * 2 * d


@mistake("one layer", breaks="model")
def attention_count(layers, d, d_kv, targets, r):
    rows = {"q": d, "k": d_kv, "v": d_kv, "o": d}
    return sum(r * (rows[target] + d) for target in targets)


@mistake("queries as narrow as keys", breaks="target")
def attention_count(layers, d, d_kv, targets, r):
    rows = {"q": d_kv, "k": d_kv, "v": d_kv, "o": d}
    return layers * sum(r * (rows[target] + d) for target in targets)


@mistake("narrow on both sides", breaks="target")
def attention_count(layers, d, d_kv, targets, r):
    rows = {"q": d, "k": d_kv, "v": d_kv, "o": d}
    return layers * sum(r * 2 * rows[target] for target in targets)


@mistake("the output as narrow as the keys", breaks="target")
def attention_count(layers, d, d_kv, targets, r):
    rows = {"q": d, "k": d_kv, "v": d_kv, "o": d_kv}
    return layers * sum(r * (rows[target] + d) for target in targets)


@mistake("moments of what is frozen", breaks="frozen")
def training_bytes(base, trained):
    return 10 * base + 16 * trained


@mistake("forgets the gradient", breaks="trained")
def training_bytes(base, trained):
    return 2 * base + 12 * trained


@mistake("one moment", breaks="trained")
def training_bytes(base, trained):
    return 2 * base + 4 * trained + 4 * trained + 4 * trained


@mistake("forgets the parameters themselves", breaks="trained")
def training_bytes(base, trained):
    return 2 * base + 8 * trained


@mistake("takes what is trained out of the base", breaks="trained")
def training_bytes(base, trained):
    return 2 * (base - trained) + 16 * trained


@mistake("the difference only", breaks="frozen")
def training_bytes(base, trained):
    return 16 * trained


@alternative("counts up")
def last_rank_that_saves(d, k):
    r = 0
    while (r + 1) * (d + k) < d * k:
        r += 1
    return r


@alternative("counts up")
def affordable_rank(shapes, budget):
    r = 0
    while sum((r + 1) * (d + k) for d, k in shapes) <= budget:
        r += 1
    return r


@mistake("d and k exchanged with r", breaks="entries")
def lora_count(d, k, r):
    return d * k + r


@mistake("one factor", breaks="entries")
def lora_count(d, k, r):
    return d * r


@mistake("the rank squared", breaks="entries")
def lora_count(d, k, r):
    return r * (d + k) - r * r


@mistake("a full update", breaks="entries")
def lora_count(d, k, r):
    return d * k


@mistake("two square factors", breaks="entries")
def lora_count(d, k, r):
    return 2 * r * max(d, k)


@mistake("a share of the full update", breaks="entries")
def lora_count(d, k, r):
    return r * (d + k) / (d * k)


@mistake("a forgotten bracket", breaks="entries")
def lora_count(d, k, r):
    return r * d + k


@alternative("two products")
def lora_count(d, k, r):
    return d * r + r * k


@alternative("sizes of arrays")
def lora_count(d, k, r):
    return np.zeros((d, r)).size + np.zeros((r, k)).size


@alternative("one term of rank one after the other")
def lora_count(d, k, r):
    return sum(d + k for _ in range(r))


@alternative("NumPy's whole numbers")
def lora_count(d, k, r):
    return np.prod([d, r]) + np.prod([r, k])


@mistake("ties handled for squares only", breaks="saves")
def last_rank_that_saves(d, k):
    return d * k // (d + k) - (d == k and d % 2 == 0)


@mistake("rounds to the nearest", breaks="saves")
def last_rank_that_saves(d, k):
    return round(d * k / (d + k))


@mistake("always takes one off", breaks="next")
def last_rank_that_saves(d, k):
    return d * k // (d + k) - 1


@mistake("compares with the matrix's sides", breaks="saves")
def last_rank_that_saves(d, k):
    return (d + k - 1) // 2


@mistake("the first that does not save", breaks="saves")
def last_rank_that_saves(d, k):
    return -(-d * k // (d + k))


@mistake("the smaller side less one", breaks="saves")
def last_rank_that_saves(d, k):
    return min(d, k) - 1


@mistake("a quarter of the sides' sum", breaks="saves")
def last_rank_that_saves(d, k):
    return (d + k) // 4


@alternative("the ceiling less one")
def last_rank_that_saves(d, k):
    return -(-d * k // (d + k)) - 1


@alternative("counts down")
def last_rank_that_saves(d, k):
    r = min(d, k)
    while r * (d + k) >= d * k:
        r -= 1
    return r


@alternative("the largest of a range")
def last_rank_that_saves(d, k):
    return max(r for r in range(min(d, k) + 1) if r == 0 or r * (d + k) < d * k)


@alternative("quotient and remainder")
def last_rank_that_saves(d, k):
    quotient, remainder = divmod(d * k, d + k)
    return quotient if remainder else quotient - 1


@mistake("products of sides", breaks="fits")
def affordable_rank(shapes, budget):
    return budget // sum(d * k for d, k in shapes)


@mistake("the largest matrix only", breaks="fits")
def affordable_rank(shapes, budget):
    return budget // max(d + k for d, k in shapes)


@mistake("the budget is shared evenly", breaks="largest")
def affordable_rank(shapes, budget):
    return min(budget // len(shapes) // (d + k) for d, k in shapes)


@mistake("a rank for each matrix, summed", breaks="fits")
def affordable_rank(shapes, budget):
    return sum(budget // (d + k) for d, k in shapes)


@mistake("a fraction", breaks="fits")
def affordable_rank(shapes, budget):
    return budget / sum(d + k for d, k in shapes)


@mistake("rounds up", breaks="fits")
def affordable_rank(shapes, budget):
    return -(-budget // sum(d + k for d, k in shapes))


@mistake("no more than the smallest side", breaks="largest")
def affordable_rank(shapes, budget):
    return min(budget // sum(d + k for d, k in shapes), min(min(shape) for shape in shapes))


@alternative("counts down")
def affordable_rank(shapes, budget):
    r = budget
    while r > 0 and r * sum(map(sum, shapes)) > budget:
        r -= 1
    return r


@alternative("divmod")
def affordable_rank(shapes, budget):
    return divmod(budget, sum(sum(shape) for shape in shapes))[0]


@alternative("spends rank by rank")
def affordable_rank(shapes, budget):
    rank, price = 0, sum(d + k for d, k in shapes)
    while budget >= price:
        budget -= price
        rank += 1
    return rank


@alternative("NumPy's sum")
def affordable_rank(shapes, budget):
    return int(budget // np.sum(shapes))


@mistake("four matrices, whatever the targets", breaks="target")
def attention_count(layers, d, d_kv, targets, r):
    return layers * r * (4 * d + 2 * d + 2 * d_kv)


@mistake("a target that is named counts once for all layers", breaks="model")
def attention_count(layers, d, d_kv, targets, r):
    rows = {"q": d, "k": d_kv, "v": d_kv, "o": d}
    return r * sum(rows[target] + d for target in targets) + layers - 1


@mistake("full updates", breaks="target")
def attention_count(layers, d, d_kv, targets, r):
    rows = {"q": d, "k": d_kv, "v": d_kv, "o": d}
    return layers * sum(rows[target] * d for target in targets)


@mistake("the first target only", breaks="model")
def attention_count(layers, d, d_kv, targets, r):
    rows = {"q": d, "k": d_kv, "v": d_kv, "o": d}
    return layers * r * (rows[targets[0]] + d)


@mistake("values as wide as the model", breaks="target")
def attention_count(layers, d, d_kv, targets, r):
    rows = {"q": d, "k": d_kv, "v": d, "o": d}
    return layers * sum(r * (rows[target] + d) for target in targets)


@mistake("one factor", breaks="target")
def attention_count(layers, d, d_kv, targets, r):
    rows = {"q": d, "k": d_kv, "v": d_kv, "o": d}
    return layers * sum(r * rows[target] for target in targets)


@mistake("the rank in every layer more", breaks="target")
def attention_count(layers, d, d_kv, targets, r):
    rows = {"q": d, "k": d_kv, "v": d_kv, "o": d}
    return sum(layer * r * (rows[target] + d) for layer in range(layers) for target in targets)


@alternative("layer by layer")
def attention_count(layers, d, d_kv, targets, r):
    total = 0
    for _ in range(layers):
        for target in targets:
            total += r * (2 * d if target in ("q", "o") else d + d_kv)
    return total


@alternative("wide and narrow ones counted")
def attention_count(layers, d, d_kv, targets, r):
    narrow = sum(t in "kv" for t in targets)
    return layers * r * (narrow * (d + d_kv) + (len(targets) - narrow) * (d + d))


@alternative("sizes of arrays")
def attention_count(layers, d, d_kv, targets, r):
    shapes = {"q": (d, d), "k": (d_kv, d), "v": (d_kv, d), "o": (d, d)}
    return sum(sum(shapes[t]) for t in targets) * layers * r


@alternative("d for all, and what differs")
def attention_count(layers, d, d_kv, targets, r):
    return layers * r * (2 * d * len(targets) - (d - d_kv) * len({"k", "v"} & set(targets)))


@mistake("the base in 4 bytes", breaks="frozen")
def training_bytes(base, trained):
    return 4 * base + 16 * trained


@mistake("the parameters in bfloat16 too", breaks="trained")
def training_bytes(base, trained):
    return 2 * base + 2 * 4 * trained


@mistake("everything is trained", breaks="frozen")
def training_bytes(base, trained):
    return 2 * base + 16 * (base + trained)


@mistake("bits, not bytes", breaks="frozen")
def training_bytes(base, trained):
    return 8 * (2 * base + 16 * trained)


@mistake("parameters, not bytes", breaks="frozen")
def training_bytes(base, trained):
    return base + 4 * trained


@mistake("what is trained alone, without Adam", breaks="trained")
def training_bytes(base, trained):
    return 2 * base + 4 * trained


@mistake("a gradient for the base", breaks="trained")
def training_bytes(base, trained):
    return 4 * base + 16 * trained - 2 * base * (trained == 0)


@alternative("term by term")
def training_bytes(base, trained):
    weights, gradients, first, second = 4 * trained, 4 * trained, 4 * trained, 4 * trained
    return 2 * base + weights + gradients + first + second


@alternative("a product of two rows")
def training_bytes(base, trained):
    return np.dot([2, 16], [base, trained])


@alternative("sizes of types")
def training_bytes(base, trained):
    return base * np.dtype(np.float16).itemsize + 4 * trained * np.dtype(np.float32).itemsize


@alternative("added up")
def training_bytes(base, trained):
    return sum([base] * 2) + sum([trained] * 16)
