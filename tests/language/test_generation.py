"""Which tokens are left to draw from: as transformers' processors say, one by one and in their
order.
"""

import itertools

import numpy as np
import pytest

from lora_np import language
from lora_np.language.generation import Sampling

RULES = [
    {"temperature": 0.5},
    {"top_k": 5},
    {"top_k": 40},
    {"top_p": 0.3},
    {"top_p": 0.95},
    {"min_p": 0.1},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7},
]


def settings():
    """Each rule alone, and each two of different kinds; whatever is not said is off."""
    yield from RULES
    yield from (
        {**one, **other} for one, other in itertools.combinations(RULES, 2) if {*one} != {*other}
    )


def drawn_logits(seed):
    rng = np.random.default_rng(seed)
    z = (rng.normal(size=50) * rng.choice([0.1, 3, 30])).astype(np.float32)
    z[rng.integers(0, 50, 4)] = z[0]  # ties
    return z, rng.integers(0, 50, rng.integers(1, 30)).tolist()


@pytest.mark.peers
@pytest.mark.parametrize("chosen", list(settings()), ids=str)
def test_the_scores_are_those_of_transformers(chosen):
    torch = pytest.importorskip("torch")
    from transformers.generation import logits_process as theirs

    for seed in range(20):
        z, said = drawn_logits(seed)
        scores, ids = torch.tensor(z)[None].double(), torch.tensor(said)[None]
        for name, kind in [
            ("repetition_penalty", theirs.RepetitionPenaltyLogitsProcessor),
            ("temperature", theirs.TemperatureLogitsWarper),
            ("top_k", theirs.TopKLogitsWarper),
            ("top_p", theirs.TopPLogitsWarper),
            ("min_p", theirs.MinPLogitsWarper),
        ]:
            if name in chosen:
                scores = kind(chosen[name])(ids, scores)
        expected = (scores - scores.max())[0].numpy()
        found = Sampling(**{"temperature": 1.0, **chosen}).scores(z, said)
        if "top_p" in chosen:  # which of two equal ones is left out is chance
            found, expected = np.sort(found), np.sort(expected)
        np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
        np.testing.assert_allclose(found, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_left_out_is_never_drawn_and_the_rest_by_its_probability(seed):
    z, said = drawn_logits(seed)
    rule = Sampling(temperature=2.0, top_k=4)
    rng = np.random.default_rng(seed)
    counts = np.bincount([rule.draw(z, said, rng) for _ in range(4000)], minlength=50) / 4000
    kept = z >= np.sort(z)[-4]
    p = np.where(kept, np.exp((z.astype(float) - z.max()) / 2), 0)
    assert np.abs(counts - p / p.sum()).max() < 0.04
    assert not counts[~kept].any()


def test_the_most_likely_one_is_taken_at_temperature_0_or_where_nothing_else_is_left():
    z, said = drawn_logits(3)
    rng = np.random.default_rng(0)
    for rule in (
        Sampling(temperature=0),
        Sampling(top_k=1),
        Sampling(top_p=1e-9),
        Sampling(min_p=1.0),
    ):
        assert rule.draw(z, said, rng) in np.flatnonzero(z == z.max())
    assert Sampling(temperature=5e-324).draw(z, said, rng) in np.flatnonzero(z == z.max())
    # a penalty may make another one the most likely
    assert (
        Sampling(temperature=0, repetition_penalty=100.0).draw(np.array([2.0, 1.0]), [0], rng) == 1
    )


def test_a_text_that_has_stopped_is_the_same_beside_one_that_goes_on():
    """Although what would follow completes another stop string, which begins earlier."""
    austen, prompts = language.load("austen"), ["It is a truth ", "Emma was "]
    how = {"tokens": 40, "temperature": 0, "stop": ["a gr", "e a great deal"]}
    alone = [language.generate(austen, prompt, **how) for prompt in prompts]
    assert language.generate(austen, prompts, **how) == alone
    assert alone[0] == "It is a truth to be "


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"temperature": -1}, "temperature must be at least 0"),
        ({"top_k": -1}, "top_k must be at least 0"),
        ({"top_p": 0}, "top_p must be above 0"),
        ({"min_p": 1.5}, "min_p must be at least 0 and at most 1"),
        ({"repetition_penalty": 0}, "repetition_penalty must be above 0"),
    ],
)
def test_what_is_out_of_range_is_refused(chosen, words):
    with pytest.raises(ValueError, match=words):
        Sampling(**chosen)
