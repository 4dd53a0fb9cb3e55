"""fit: it reaches the optimum, repeats itself, touches nothing of the caller's, and says what went
wrong.
"""

import warnings
from itertools import pairwise

import numpy as np
import pytest

import lora_np as lnp
from lora_np.linalg import reduced_rank_regression
from lora_np.training.fitting import FitSettings, Rows


def problem(n=200, d=4, k=5, seed=0):
    rng = np.random.default_rng(seed)
    x, W = rng.normal(size=(n, k)), rng.normal(size=(d, k))
    return x, x @ W.T + 0.1 * rng.normal(size=(n, d)), rng


def zeros(d=4, k=5):
    return lnp.Linear(lnp.Tensor(np.zeros((d, k))))


def test_reaches_least_squares():
    x, y, _ = problem()
    result = lnp.fit(
        zeros(),
        x,
        y,
        optimizer=lnp.Adam(lr=lnp.cosine_schedule(0.1, steps=400)),
        steps=400,
        progress=False,
    )
    best = np.linalg.lstsq(x, y, rcond=None)[0].T
    np.testing.assert_allclose(result.model.W.data, best, atol=1e-6)
    assert not result.interrupted


@pytest.mark.parametrize("rank", [1, 2])
def test_trained_lora_reaches_the_best_update_of_its_rank(rank):
    """B A from gradient descent against reduced-rank regression, for inputs that are not white."""
    x, _, rng = problem()
    x = x * np.array([3.0, 1.0, 1.0, 0.3, 2.0])
    W0, change = rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    y = x @ (W0 + change).T
    tuned = lnp.inject(lnp.Linear(W0), rank=rank, rng=rng)
    rate = lnp.cosine_schedule(0.05, steps=2000)
    result = lnp.fit(tuned, x, y, optimizer=lnp.Adam(lr=rate), steps=2000, progress=False)
    B, A = reduced_rank_regression(x, y, rank=rank, W0=W0)
    best = np.mean((x @ (W0 + B @ A).T - y) ** 2)
    assert best <= result.history.loss[-1] * (1 + 1e-12)
    assert result.history.loss[-1] == pytest.approx(best, rel=1e-6)


def test_the_callers_model_is_not_changed():
    x, y, rng = problem()
    base = lnp.Linear(rng.normal(size=(4, 5)))
    tuned = lnp.inject(base, rank=2, rng=rng)
    before = [lnp.value(a).copy() for _, a in lnp.leaves(tuned)]
    result = lnp.fit(tuned, x, y, steps=5, progress=False)
    for (_, a), old in zip(lnp.leaves(tuned), before, strict=True):
        np.testing.assert_array_equal(lnp.value(a), old)
    assert result.model.base.W is base.W
    assert not np.array_equal(result.model.B.data, tuned.B.data)


@pytest.mark.parametrize("steps", [1, 7, 40])
@pytest.mark.parametrize("ends", [{}, {"goal": 1.0}, {"patience": 2}])
def test_only_the_default_optimizer_decays(steps, ends):
    """Its rate goes to zero at the last step, wherever the run ends; a given one stays."""
    x, y, rng = problem(seed=steps)
    tuned = lnp.inject(lnp.Linear(np.zeros((4, 5))), rank=2, rng=rng)
    peak = lnp.lora.learning_rate(tuned)
    settings = {"steps": steps, "validation": (x, y), "validate_every": 2, "progress": False} | ends
    losses = {
        name: lnp.fit(tuned, x, y, **settings, **given).history.loss
        for name, given in {
            "default": {},
            "decays": {"optimizer": lnp.Adam(lr=lnp.cosine_schedule(peak, steps=steps))},
            "stays": {"optimizer": lnp.Adam(lr=peak)},
            "stays too": {"optimizer": lnp.Adam(lr=lambda step: peak)},
        }.items()
    }
    np.testing.assert_array_equal(losses["default"], losses["decays"])
    np.testing.assert_array_equal(losses["stays"], losses["stays too"])
    assert steps < 4 or not np.array_equal(losses["default"], losses["stays"])


def test_the_last_steps_of_the_default_hardly_move():
    x, y, rng = problem()
    tuned, seen = lnp.inject(lnp.Linear(np.zeros((4, 5))), rank=2, rng=rng), []
    lnp.fit(tuned, x, y, steps=50, watch=lambda step, model: seen.append(model.B.data.copy()),
            progress=False)  # fmt: skip
    moved = [np.abs(after - before).max() for before, after in pairwise(seen)]
    assert moved[0] == pytest.approx(lnp.lora.learning_rate(tuned), rel=1e-3)
    assert moved[-1] < moved[0] / 100


@pytest.mark.parametrize("batch_size", [None, 32])
def test_same_seed_same_numbers(batch_size):
    x, y, _ = problem()
    tuned = lnp.inject(
        lnp.Linear(np.zeros((4, 5))), rank=2, dropout=0.2, rng=np.random.default_rng(0)
    )
    a, b, c = (
        lnp.fit(tuned, x, y, steps=20, batch_size=batch_size, rng=seed, progress=False)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(a.history.loss, b.history.loss)
    np.testing.assert_array_equal(a.model.B.data, b.model.B.data)
    assert not np.array_equal(a.history.loss, c.history.loss)


def test_batches_use_every_row_once_before_any_twice():
    numbers = np.arange(10)

    def rows(batch_size):
        settings = FitSettings(-numbers, batch_size=batch_size)
        return Rows(numbers, settings, np.random.default_rng(0))

    three = rows(3)
    epoch = [three.batch(step) for step in range(3)]
    assert len(set(np.concatenate([x for x, _ in epoch]))) == 9
    assert all((x == -y).all() for x, y in epoch)
    assert len(three.batch(3)[0]) == 3
    assert rows(10).batch(0)[0] is numbers


def loss_of_batch(model, batch, rng=None):
    return lnp.mean_squared_error(model(batch[0], rng=rng), batch[1])


def stream(size=20):
    rng = np.random.default_rng(0)
    W = rng.normal(size=(3, 4))

    def batch(step):
        x = np.random.default_rng([1, step]).normal(size=(size, 4))
        return x, x @ W.T

    return lnp.Linear(lnp.Tensor(np.zeros((3, 4)))), batch


def test_a_stream_of_batches_is_what_the_same_rows_are():
    model, batch = stream()
    x, y = batch(0)
    settings = {"steps": 20, "progress": False, "validate_every": 5}
    streamed = lnp.fit(
        model, [(x, y)], loss=loss_of_batch, validation=[batch(7), batch(8)], **settings
    )
    rows = lnp.fit(
        model,
        x,
        y,
        validation=tuple(map(np.concatenate, zip(batch(7), batch(8), strict=True))),
        **settings,
    )
    np.testing.assert_array_equal(streamed.history.loss, rows.history.loss)
    np.testing.assert_allclose(
        streamed.history.validation_loss, rows.history.validation_loss, rtol=1e-12
    )
    np.testing.assert_array_equal(streamed.model.W.data, rows.model.W.data)


def test_a_stream_can_be_a_function_of_the_step_or_a_sequence():
    model, batch = stream()
    settings = {"loss": loss_of_batch, "steps": 6, "progress": False}
    one = lnp.fit(model, batch, **settings)
    other = lnp.fit(model, [batch(step) for step in range(6)], **settings)
    again = lnp.fit(model, [batch(0), batch(1)], **settings)
    np.testing.assert_array_equal(one.history.loss, other.history.loss)
    assert len(again.history.loss) == 6


@pytest.mark.parametrize("accumulate", [1, 2, 5])
def test_accumulated_gradients_are_those_of_one_large_batch(accumulate):
    model, batch = stream()
    large = lambda step: tuple(
        map(
            np.concatenate,
            zip(*(batch(step * accumulate + i) for i in range(accumulate)), strict=True),
        )
    )
    settings = {"loss": loss_of_batch, "steps": 5, "optimizer": lnp.SGD(lr=0.1), "progress": False}
    one = lnp.fit(model, batch, accumulate=accumulate, **settings)
    other = lnp.fit(model, large, **settings)
    np.testing.assert_allclose(one.history.loss, other.history.loss, rtol=1e-12)
    np.testing.assert_allclose(one.model.W.data, other.model.W.data, rtol=1e-12)


def test_samples_are_taken_of_the_frozen_model_at_each_validation(capsys):
    model, batch = stream()
    seen = []

    def sample(step, frozen):
        assert not lnp.trainable(frozen)
        seen.append(step)
        return f"after {step} steps"

    result = lnp.fit(
        model, batch, loss=loss_of_batch, steps=10, validate_every=4, sample=sample, progress=False
    )
    assert seen == [0, 4, 8, 10]
    assert "after 8 steps" in capsys.readouterr().err
    assert result.history.samples == tuple((step, f"after {step} steps") for step in seen)


def test_a_goal_that_ends_the_run_at_a_validation_takes_no_second_sample():
    x, seen = np.eye(3), []
    result = lnp.fit(
        lnp.Linear(lnp.Tensor(np.zeros((3, 3)))),
        x,
        x,
        steps=5,
        goal=1e9,
        sample=lambda step, frozen: seen.append(step),  # with or without a text to show
        progress=False,
    )
    assert (seen, result.history.samples) == ([0], ())


@pytest.mark.parametrize(("arguments", "settings", "words"), [
    ([np.ones((2, 4))], {"loss": loss_of_batch}, "got one array and no y"),
    ([iter([])], {"loss": loss_of_batch}, "an iterator cannot be resumed; make it a list"),
    ([[]], {"loss": loss_of_batch}, "batches must be a function of the step or a sequence"),
    ([[1]], {}, "a stream of batches needs loss="),
    ([[1]], {"loss": loss_of_batch, "batch_size": 3}, "batch_size is for arrays"),
    ([[1]], {"loss": loss_of_batch, "validation": 3}, "validation must be a sequence of batches, got int"),
])  # fmt: skip
def test_streams_that_are_none(arguments, settings, words):
    with pytest.raises(TypeError, match=words):
        lnp.fit(stream()[0], *arguments, **settings)


def test_history_and_validation():
    x, y, _ = problem()
    result = lnp.fit(
        zeros(),
        x[:150],
        y[:150],
        validation=(x[150:], y[150:]),
        steps=50,
        validate_every=20,
        progress=False,
    )
    history = result.history
    assert history.loss.shape == (50,)
    assert history.validation_steps.tolist() == [0, 20, 40, 50]
    final = np.mean((lnp.freeze(result.model)(x[150:]) - y[150:]) ** 2)
    assert history.validation_loss[-1] == pytest.approx(final, rel=1e-12)
    assert history.seconds > 0


def test_classification():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    labels = (x[:, 0] + x[:, 1] > 0).astype(int)
    model = lnp.Linear(lnp.Tensor(np.zeros((2, 2))))
    result = lnp.fit(
        model, x, labels, loss=lnp.cross_entropy, optimizer=lnp.Adam(lr=0.1), progress=False
    )
    assert lnp.nn.accuracy(result.model(x), labels) > 0.98


def test_ctrl_c_returns_what_was_reached():
    x, y, _ = problem()
    calls = []

    def loss(prediction, target):
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return lnp.mean_squared_error(prediction, target)

    result = lnp.fit(zeros(), x, y, loss=loss, steps=50, progress=False)
    assert result.interrupted
    assert len(result.history.loss) == 7
    assert result.model.W.data.any()


def test_a_loss_that_is_not_finite_stops_and_names_the_step():
    x, y, _ = problem()
    with pytest.raises(
        FloatingPointError, match=r"the loss is (inf|nan) at step \d+.*below 1e\+06"
    ):
        lnp.fit(zeros(), x, y, optimizer=lnp.SGD(lr=1e6), progress=False)


def test_the_rate_that_is_too_large_is_the_highest_so_far():
    """Not that of the step at which a decaying run broke down."""
    x, y, _ = problem()
    optimizer = lnp.SGD(lr=lnp.cosine_schedule(10.0, steps=1000, warmup=3))
    with pytest.raises(FloatingPointError, match=r"at step \d\d+.*below 10$"):
        lnp.fit(zeros(), x, y, optimizer=optimizer, steps=1000, progress=False)


def test_float32_stays_float32():
    x, y, _ = problem()
    model = lnp.Linear(lnp.Tensor(np.zeros((4, 5), np.float32)))
    result = lnp.fit(model, x.astype(np.float32), y.astype(np.float32), steps=3, progress=False)
    assert result.model.W.dtype == np.float32


def test_silent_where_no_person_looks(capfd):
    x, y, _ = problem()
    lnp.fit(zeros(), x, y, steps=3, progress=True)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_progress_bar_in_a_terminal(monkeypatch):
    import io

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    x, y, _ = problem()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lnp.fit(zeros(), x, y, steps=3, progress=True)
    assert "fit" in terminal.getvalue()
    assert "3/3" in terminal.getvalue() or "0/3" in terminal.getvalue()


@pytest.mark.parametrize(("change", "error", "match"), [
    ({"x": [["1"]]}, TypeError, "x must hold real numbers, got dtype <U1"),
    ({"x": np.zeros((0, 5))}, ValueError, r"x must hold rows of data, got shape \(0, 5\)"),
    ({"x": np.full((200, 5), np.nan)}, ValueError, r"x must be finite, got nan at \(0, 0\)"),
    ({"y": np.full((200, 4), np.inf)}, ValueError, r"y must be finite, got inf at \(0, 0\)"),
    ({"y": np.zeros((3, 4))}, ValueError, "equally many rows, got 200 and 3"),
    ({"y": np.zeros((200, 3))}, ValueError, r"\(200, 4\) and \(200, 3\)"),
    ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
    ({"steps": 1.5}, TypeError, "steps must be a whole number, got 1.5"),
    ({"batch_size": 201}, ValueError, "batch_size must be between 1 and rows of x = 200, got 201"),
    ({"validate_every": 0}, ValueError, "validate_every must be at least 1, got 0"),
    ({"model": lnp.Linear(np.zeros((4, 5)))}, ValueError, "nothing to train"),
])  # fmt: skip
def test_bad_input(change, error, match):
    x, y, _ = problem()
    arguments = {"model": zeros(), "x": x, "y": y, "progress": False} | change
    with pytest.raises(error, match=match):
        lnp.fit(arguments.pop("model"), arguments.pop("x"), arguments.pop("y"), **arguments)
