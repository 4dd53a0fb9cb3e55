"""What lessons answer below their questions, computed: a lesson runs, then what the reader is asked
to try.
"""

import json
import os
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest

import lora_np as lnp
from lora_np.course.notebooks import lessons

LESSONS = {path.stem.split("-", 1)[1]: path for path in lessons()}


def follow_the_post(lesson):
    equal = lesson.U @ lesson.V / 20
    B, A = lnp.low_rank_factors(equal, rank=2)
    assert round(np.linalg.norm(equal - B @ A) / np.linalg.norm(equal), 2) == 0.62


def see_rank(lesson):
    noise = np.random.default_rng(0).normal(size=lesson.product.shape)
    noisy = lesson.product + 0.1 * lesson.product.std() * noise
    s = np.linalg.svdvals(noisy)
    assert 11 < s[7] / s[8] < 13
    assert lnp.rank_for_error(noisy, tolerance=0.1) == 8


def cut_the_svd(lesson):
    rng, photograph = np.random.default_rng(0), lesson.photograph
    assert round(lnp.rank_errors(rng.permutation(photograph), relative=True)[8], 3) == 0.289
    pixels = rng.permutation(photograph.ravel()).reshape(photograph.shape)
    assert round(lnp.rank_errors(pixels, relative=True)[8], 2) == 0.65


def compare_with_the_best(lesson):
    optimizer = lnp.Adam(lr=lnp.cosine_schedule(1e-2, steps=100))
    start = lnp.inject(lesson.base, rank=8, alpha=8, rng=0)
    short = lnp.fit(
        start, lesson.x, lesson.y, optimizer=optimizer, steps=100, batch_size=256, progress=False
    ).model
    assert round(lesson.error(short), 2) == 0.13
    assert lesson.best[1] < lesson.error(short) < lesson.best[0]

    x = lesson.white * np.geomspace(1, 100, 12) / 4
    y = x @ lesson.update.T
    best, cut = lnp.linalg.optimal_losses(x, y)[1:10], lesson.cut_full_update(x, y)[1:10]
    trained = lesson.train_every_rank(x, y, lambda rank, loss: None)
    assert round(cut[8] / best[8]) == 50
    assert max(trained[rank] / best[rank - 1] for rank in range(1, 10)) < 1.02


def learn_without_forgetting(lesson):
    pixels = np.concatenate([some[lesson.learning] for some in (lesson.old, lesson.new)])
    answers = np.tile(lesson.answers[lesson.learning], 2)
    found = []
    for rank in [8, 2]:
        optimizer = lnp.Adam(lr=lnp.cosine_schedule(0.01, steps=500))
        model = lnp.fit(
            lesson.setups[f"LoRA, r = {rank}"], pixels, answers, optimizer=optimizer, steps=500, batch_size=64,
            loss=lnp.cross_entropy, progress=False,
        ).model  # fmt: skip
        found += [lesson.accuracy(model, some) for some in (lesson.old, lesson.new)]
    assert np.allclose(found, [0.97, 0.97, 0.96, 0.90], atol=0.01)


def choose_rank_alpha_and_initialisation(lesson):
    def valley(variant, steps):
        settings = {
            "ranks": [8],
            "alphas": [8],
            "variants": [variant],
            "rngs": [0, 1],
            "progress": False,
        }
        losses = {}
        for rate in [0.001, 0.003, 0.01, 0.03, 0.1]:
            found = lnp.training.sweep(lesson.problem, steps=steps, lr=[rate], **settings)
            losses[rate] = np.median([record["validation_loss"] for record in found.records])
        return losses

    frozen = valley("lora-fa", 100)
    assert frozen[0.1] < frozen[0.03] < frozen[0.01]
    assert round(min(frozen.values()), 3) == 0.137
    short = valley("lora", 100)
    assert min(short, key=short.__getitem__) == 0.03
    assert round(short[0.03], 3) == 0.121
    longer = {variant: valley(variant, 300) for variant in lesson.variants}
    assert all(0.1205 <= losses[0.001] < 0.1305 for losses in longer.values())
    lowest = [min(losses.values()) for losses in longer.values()]
    assert 0.1185 < min(lowest) < max(lowest) < min(0.1215, 1.025 * min(lowest))


def open_a_real_adapter(lesson):
    lnp.adapters.resize("adapter", "few-bytes", budget=12_000)
    found = lnp.adapters.inspect("few-bytes")
    assert [row["rank"] for row in found.table.records] == [6, 4, 7]
    assert round(1 - lesson.size_of("few-bytes") / lesson.size_of("resized-6"), 2) == 0.03
    assert abs(lesson.error_of("few-bytes") - lesson.error_of("resized-6")) < 1e-4


def look_inside_an_update(lesson):
    update, error = lesson.updates["r = 8"], lesson.error
    assert np.isclose(lnp.linalg.subspace_similarity(update, 2 * update, 8, 8), 1)
    assert np.allclose([error(update), error(2 * update)], [0.115, 0.156], atol=0.001)
    factors = [lnp.linalg.amplification_factor(lesson.W0, c * update, rank=8) for c in (1, 2)]
    assert np.allclose(factors, [3.7, 7.3], atol=0.06)

    tuned = lesson.W0 + lesson.updates["full"]
    U, s, Vh = np.linalg.svd(tuned, full_matrices=False)
    places = lnp.linalg.intruder_dimensions(lesson.W0, tuned, top=20)
    others = np.setdiff1d(np.arange(20), places)

    def rise(left_out):
        kept = s * ~np.isin(np.arange(len(s)), left_out)
        return error((U * kept) @ Vh - lesson.W0) - error(lesson.updates["full"])

    rng = np.random.default_rng(0)
    assert len(places) == 7
    assert np.isclose(rise(places), 0.0008, atol=1e-4)
    assert np.isclose(rise(others[-7:]), 0.0015, atol=1e-4)
    assert np.isclose(
        np.median([rise(rng.choice(others, 7, replace=False)) for _ in range(200)]),
        0.029,
        atol=1e-3,
    )
    assert np.isclose(error(0 * update) - error(lesson.updates["full"]), 0.044, atol=1e-3)


def adapt_a_real_model(lesson):
    full, lora = lesson.work(4096, 4096)[0], lesson.multiplications(4096, 4096, 682)
    assert lora <= full < lesson.multiplications(4096, 4096, 683)


def merge_two_tasks(lesson):
    lnp.adapters.combine(list(lesson.paths.values()), "answer", weights=[0.6, 0.3])
    found = lesson.losses(lnp.adapters.attach(lesson.model, lnp.adapters.load("answer")))
    assert np.allclose(found, [1.26, 1.87], atol=0.01)
    compared = lnp.adapters.diff(lesson.paths["Bible"], "sum")
    assert 0.5 < np.median([row.difference for row in compared.rows]) < 0.9
    assert 0.6 < np.median([row.cosine for row in compared.rows]) < 0.8


def adapt_a_language_model(lesson):
    assert np.isclose(lesson.loss(lesson.shipped, "test"), 1.18, atol=0.01)
    assert np.isclose(lesson.after["test"], 1.39, atol=0.01)


def four_bits(lesson):
    def share(M):
        s = np.linalg.svdvals(M)
        return (s[:8] ** 2).sum() / (s**2).sum()

    assert np.isclose(
        share(lesson.W - lesson.quantise(lesson.W, "nf4").dequantised()), 0.15, atol=0.01
    )
    assert np.isclose(share(np.random.default_rng(0).normal(size=lesson.W.shape)), 0.15, atol=0.01)
    start = lesson.lnp.inject(lesson.model, rank=8, alpha=16, quantise="Q8_0", rng=0)
    assert np.isclose(
        lesson.loss(lesson.train(start), lesson.test), lesson.ends["32 bits"], atol=0.01
    )
    assert 1.8 < lesson.bytes_of(start)[0] / lesson.counted["4 bits"][0] < 2


def learn_from_a_reward(lesson):
    higher = lesson.reinforce(lesson.no_e, beta=lesson.BETA, rank=16)
    earned, divergence = lesson.measured(higher)
    assert np.isclose(lesson.J["ban"], -0.027, atol=0.001)
    assert np.isclose(earned - lesson.BETA * divergence, -0.025, atol=0.0015)
    assert earned - lesson.BETA * divergence > lesson.J["ban"]

    rng = np.random.default_rng(0)
    tokens = lesson.write(lesson.base, lesson.GROUP, rng)
    log_p = lesson.language.log_probabilities(lnp.inject(lesson.base, rank=1, rng=0), tokens)
    theirs = lnp.value(log_p)
    loss = lesson.estimate(log_p, theirs, np.zeros(theirs.shape), beta=0.3)
    assert lnp.value(loss) == 0  # nothing was earned: no text is better than the others


COMPUTED = [
    follow_the_post, see_rank, cut_the_svd, compare_with_the_best, adapt_a_real_model, learn_without_forgetting,
    choose_rank_alpha_and_initialisation, open_a_real_adapter, look_inside_an_update,
    adapt_a_language_model, merge_two_tasks, four_bits, learn_from_a_reward,
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("answers", COMPUTED, ids=lambda answers: answers.__name__)
def test_answers_of_a_lesson_are_what_one_finds(answers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(LESSONS[answers.__name__.replace("_", "-")].read_text(encoding="utf-8"))
    names = {"__name__": "lesson"}
    try:
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]), names)
                plt.close("all")
        answers(SimpleNamespace(**names))
    finally:
        plt.close("all")
        os.chdir(tmp_path)  # a lesson may have gone elsewhere
