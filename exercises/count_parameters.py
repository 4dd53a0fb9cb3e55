"""What is usually done wrong, and other ways to be right."""

import lora_np as lnp
from lora_np.grading import alternative, mistake


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
def rank_within(shapes, budget):
    d, k = shapes[0]
    return budget // (d + k)


@mistake("rounds", breaks="fits")
def rank_within(shapes, budget):
    return round(budget / sum(d + k for d, k in shapes))


@mistake("at least 1", breaks="fits")
def rank_within(shapes, budget):
    return max(1, budget // sum(d + k for d, k in shapes))


@mistake("does not spend the last number", breaks="largest")
def rank_within(shapes, budget):
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


@mistake("forgets the numbers themselves", breaks="trained")
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
def rank_within(shapes, budget):
    r = 0
    while sum((r + 1) * (d + k) for d, k in shapes) <= budget:
        r += 1
    return r
