"""Twenty guesses of a newcomer: each works, or its error says what to type."""

import re

import numpy as np
import pytest

import lora_np as lnp
from lora_np.nn import Embedding

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(8, 3)), RNG.normal(size=(8, 2))
W = RNG.normal(size=(12, 9))


def layer():
    return lnp.Linear(np.ones((2, 3)))


def trained():
    return lnp.Linear(lnp.Tensor(np.ones((2, 3))))


def same(a, b):
    pairs = zip(lnp.leaves(a), lnp.leaves(b), strict=True)
    return all(p == q and np.array_equal(lnp.value(u), lnp.value(v)) for (p, u), (q, v) in pairs)


WORK = {
    "inject without rng": lambda: same(lnp.inject(layer(), rank=2), lnp.inject(layer(), rank=2, rng=0)),
    "fit on lists": lambda: same(
        lnp.fit(trained(), X.tolist(), Y.tolist(), steps=3, validation=[X.tolist(), Y.tolist()], progress=False).model,
        lnp.fit(trained(), X, Y, steps=3, validation=(X, Y), progress=False).model,
    ),
    "a list of layers": lambda: same(lnp.Sequential([layer(), layer()]), lnp.Sequential(iter((layer(), layer())))),
    "repr(model)": lambda: repr(lnp.inject(layer(), rank=2)) == (
        "LoRALinear(\n    base=Linear(W=array of 2 x 3, b=None),\n    A=Tensor of 2 x 3,\n"
        "    B=Tensor of 2 x 2,\n    alpha=32.0,\n    dropout=0.0,\n    c=None,\n)"
    ),
}  # fmt: skip

# The call, and what its error names.
TOLD = {
    "inject(r=, lora_alpha=)": (lambda: lnp.inject(layer(), r=8, lora_alpha=16), "has rank= for r; inject has alpha= for lora_alpha"),
    "inject(target_modules=)": (lambda: lnp.inject(layer(), rank=1, target_modules=["q_proj"]), "targets= for target_modules"),
    "inject(use_dora=)": (lambda: lnp.inject(layer(), rank=1, use_dora=True), "variant='dora' for use_dora"),
    "inject(model, 8)": (lambda: lnp.inject(layer(), 8), "inject takes rank by name: inject(model, rank=...)"),
    "Linear(in, out)": (lambda: lnp.Linear(120, 100), "Linear.init(d_in=120, d_out=100, rng=0)"),
    "Linear(in)": (lambda: lnp.Linear(120), "Linear.init(d_in=120, d_out=..., rng=0)"),
    "Linear of a list": (lambda: lnp.Linear([[1.0]]), "np.array it"),
    "Embedding(vocab, d)": (lambda: Embedding(1000), "Embedding(Tensor(rng.normal(size=(vocab, d))))"),
    "Sequential(a, b)": (lambda: lnp.Sequential(layer(), layer()), "Sequential([first, second])"),
    "Sequential(a)": (lambda: lnp.Sequential(layer()), "Sequential([first, second])"),
    "fit(lr=)": (lambda: lnp.fit(trained(), X, Y, lr=0.1), "optimizer=Adam(lr=...) for lr"),
    "fit(epochs=)": (lambda: lnp.fit(trained(), X, Y, epochs=3), "steps= for epochs"),
    "fit(model, x, y, optimizer)": (lambda: lnp.fit(trained(), X, Y, lnp.Adam()), "fit takes optimizer by name"),
    "fit on text": (lambda: lnp.fit(trained(), ["a"], [1.0]), "x must hold real numbers, got dtype <U1"),
    "Adam(betas=)": (lambda: lnp.Adam(betas=(0.9, 0.99)), "beta1= and beta2= for betas"),
    "AdamW(learning_rate=)": (lambda: lnp.AdamW(learning_rate=0.1), "AdamW has lr= for learning_rate"),
    "Adam(model)": (lambda: lnp.Adam(trained()), "fit(model, x, y, optimizer=Adam(lr=0.01))"),
    "SGD([W])": (lambda: lnp.SGD([lnp.Tensor(W)]), "training_run(Adam(lr=0.01), model)"),
    "truncated_svd(W, 8)": (lambda: lnp.truncated_svd(W, 8), "truncated_svd(M, rank=...)"),
    "low_rank_factors(W, 8)": (lambda: lnp.low_rank_factors(W, 8), "low_rank_factors(M, rank=...)"),
}  # fmt: skip


@pytest.mark.parametrize("guess", WORK)
def test_a_guess_works(guess):
    assert WORK[guess]()


@pytest.mark.parametrize("guess", TOLD)
def test_a_guess_is_told_what_to_type(guess):
    call, remedy = TOLD[guess]
    with pytest.raises(TypeError, match=re.escape(remedy)):
        call()


def test_an_error_inside_a_guided_function_stays_its_own():
    with pytest.raises(TypeError) as caught:
        lnp.inject(layer(), rank="8")
    assert str(caught.value) == "rank must be a whole number, got '8'"
    with pytest.raises(TypeError, match=r"missing 1 required keyword-only argument: 'rank'$"):
        lnp.inject(layer())
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'nonsense'$"):
        lnp.inject(layer(), rank=1, nonsense=1)


def test_a_models_repr_grows_with_its_parts_not_its_numbers():
    large = lnp.Sequential(
        [lnp.inject(lnp.Linear(np.zeros((300, 400), np.float32)), rank=8) for _ in range(3)]
    )
    assert len(repr(large)) < 800
    assert repr(large).count("array of 300 x 400 float32") == 3
