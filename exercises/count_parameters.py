"""Solutions, and what is usually done wrong."""

import lora_np as lnp
from lora_np.grading import mistake


def lora_count(d, k, r):
    return r * (d + k)


@mistake("a product where a sum is", breaks="B is d x r and A is r x k")
def lora_count(d, k, r):
    return d * r * k


@mistake("takes the matrix for a square", breaks="B is d x r and A is r x k")
def lora_count(d, k, r):
    return 2 * d * r


@mistake("counts the frozen matrix", breaks="B is d x r and A is r x k")
def lora_count(d, k, r):
    return d * k + r * (d + k)


@mistake("hands in the package's", breaks="lora_np.count_lora is not allowed")
def lora_count(d, k, r):
    return lnp.count_lora(d, k, rank=r)


def last_rank_that_saves(d, k):
    return (d * k - 1) // (d + k)


@mistake("counts an exact fit", breaks="A rank saves if r (d + k) is strictly less")
def last_rank_that_saves(d, k):
    return d * k // (d + k)


@mistake("half of the shorter side", breaks="The next rank after the last that saves does not save")
def last_rank_that_saves(d, k):
    return (min(d, k) - 1) // 2


@mistake("at least 1", breaks="A rank saves if r (d + k) is strictly less")
def last_rank_that_saves(d, k):
    return max(1, (d * k - 1) // (d + k))


@mistake("a fraction", breaks="the rank is a whole number")
def last_rank_that_saves(d, k):
    return d * k / (d + k) - 0.5


def rank_within(shapes, budget):
    return budget // sum(d + k for d, k in shapes)


@mistake("pays for the first matrix only", breaks="the budget pays r (d + k) for each matrix")
def rank_within(shapes, budget):
    d, k = shapes[0]
    return budget // (d + k)


@mistake("rounds", breaks="the budget pays r (d + k) for each matrix")
def rank_within(shapes, budget):
    return round(budget / sum(d + k for d, k in shapes))


@mistake("at least 1", breaks="the budget pays r (d + k) for each matrix")
def rank_within(shapes, budget):
    return max(1, budget // sum(d + k for d, k in shapes))


@mistake("does not spend the last number", breaks="the budget pays r (d + k) for each matrix")
def rank_within(shapes, budget):
    return (budget - 1) // sum(d + k for d, k in shapes)


def attention_count(layers, d, d_kv, targets, r):
    rows = {"q": d, "k": d_kv, "v": d_kv, "o": d}
    return layers * sum(r * (rows[target] + d) for target in targets)


@mistake("all matrices square", breaks="Grouped keys and values are narrower")
def attention_count(layers, d, d_kv, targets, r):
    return layers * len(targets) * r * 2 * d


@mistake("one layer", breaks="The queries are as wide as the model")
def attention_count(layers, d, d_kv, targets, r):
    rows = {"q": d, "k": d_kv, "v": d_kv, "o": d}
    return sum(r * (rows[target] + d) for target in targets)


@mistake("queries as narrow as keys", breaks="The queries are as wide as the model")
def attention_count(layers, d, d_kv, targets, r):
    rows = {"q": d_kv, "k": d_kv, "v": d_kv, "o": d}
    return layers * sum(r * (rows[target] + d) for target in targets)


@mistake("narrow on both sides", breaks="Grouped keys and values are narrower")
def attention_count(layers, d, d_kv, targets, r):
    rows = {"q": d, "k": d_kv, "v": d_kv, "o": d}
    return layers * sum(r * 2 * rows[target] for target in targets)


@mistake("the output as narrow as the keys", breaks="Every target counts in every layer")
def attention_count(layers, d, d_kv, targets, r):
    rows = {"q": d, "k": d_kv, "v": d_kv, "o": d_kv}
    return layers * sum(r * (rows[target] + d) for target in targets)


def training_bytes(base, trained):
    return 2 * base + 16 * trained


@mistake("moments of what is frozen", breaks="A frozen number takes its 2 bytes and nothing else")
def training_bytes(base, trained):
    return 10 * base + 16 * trained


@mistake("forgets the gradient", breaks="A trained number takes itself, its gradient and two moments")
def training_bytes(base, trained):
    return 2 * base + 12 * trained


@mistake("one moment", breaks="A trained number takes itself, its gradient and two moments")
def training_bytes(base, trained):
    return 2 * base + 4 * trained + 4 * trained + 4 * trained


@mistake(
    "forgets the numbers themselves", breaks="A trained number takes itself, its gradient and two moments"
)
def training_bytes(base, trained):
    return 2 * base + 8 * trained


@mistake("takes what is trained out of the base", breaks="A trained number takes itself, its gradient")
def training_bytes(base, trained):
    return 2 * (base - trained) + 16 * trained


@mistake("the difference only", breaks="A frozen number takes its 2 bytes")
def training_bytes(base, trained):
    return 16 * trained
