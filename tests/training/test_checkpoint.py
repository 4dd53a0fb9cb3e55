"""Checkpoints: bit for bit the uninterrupted run, whole files only, and clear words about wrong
ones.
"""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import lora_np as lnp
from lora_np.lora import lora_plus
from lora_np.training.checkpoint import digest
from tests.drawing import FULL


class Killed(BaseException):
    """Stands for a process that is gone: nothing catches it."""


def problem():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5))
    y = rng.normal(size=(60, 4))
    base = lnp.Linear(rng.normal(size=(4, 5)))
    model = lnp.inject(base, rank=2, alpha=2, dropout=0.2, rng=rng)
    return model, x[:50], y[:50], (x[50:], y[50:])


OPTIMIZERS = {
    "momentum": lambda: lnp.SGD(lr=0.05, momentum=0.9),
    "adam": lambda: lnp.Adam(lr=lnp.cosine_schedule(0.05, steps=23, warmup=4)),
    "groups": lambda: lora_plus(lnp.AdamW(lr=0.01), ratio=4),
}


def run(
    optimizer, path=None, *, die_at=None, resume=False, batch_size=16, steps=43, rng=7, **changes
):
    model, x, y, validation = problem()

    def watch(step, model):
        if step == die_at:
            raise Killed

    arguments = {
        "optimizer": optimizer(), "batch_size": batch_size, "steps": steps, "validation": validation, "validate_every": 5,
        "clip": 1.0, "rng": rng, "progress": False, "watch": watch,
    } | changes  # fmt: skip
    if path is not None:
        arguments |= {"checkpoint": path, "resume": resume}
    return lnp.fit(model, x, y, **arguments)


def same(a, b):
    np.testing.assert_array_equal(a.history.loss, b.history.loss)
    np.testing.assert_array_equal(a.history.validation_steps, b.history.validation_steps)
    np.testing.assert_array_equal(a.history.validation_loss, b.history.validation_loss)
    for (_, p), (_, q) in zip(lnp.trainable(a.model), lnp.trainable(b.model), strict=True):
        np.testing.assert_array_equal(p.data, q.data)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("batch_size", [16, None])
def test_killed_at_any_step_and_resumed_is_the_uninterrupted_run(tmp_path, name, batch_size):
    whole = run(OPTIMIZERS[name], batch_size=batch_size)
    for die_at in range(23) if FULL else (1, 2, 15):
        path = tmp_path / f"{die_at}.npz"
        with pytest.raises(Killed):
            run(OPTIMIZERS[name], path, die_at=die_at, batch_size=batch_size)
        assert path.exists() == (die_at >= 2)
        same(run(OPTIMIZERS[name], path, resume=True, batch_size=batch_size), whole)


def test_killed_twice_and_a_finished_run_resumed(tmp_path):
    path = tmp_path / "run.npz"
    for die_at in (9, 14):
        with pytest.raises(Killed):
            run(OPTIMIZERS["adam"], path, die_at=die_at, resume=True)
    whole = run(OPTIMIZERS["adam"])
    same(run(OPTIMIZERS["adam"], path, resume=True), whole)
    same(run(OPTIMIZERS["adam"], path, resume=True), whole)


@pytest.mark.parametrize("generator", ["MT19937", "Philox", "SFC64", "PCG64DXSM"])
def test_every_generator_is_continued(tmp_path, generator):
    def rng():
        return np.random.Generator(getattr(np.random, generator)(3))

    path = tmp_path / "run.npz"
    with pytest.raises(Killed):
        run(OPTIMIZERS["adam"], path, die_at=13, rng=rng())
    same(run(OPTIMIZERS["adam"], path, resume=True, rng=rng()), run(OPTIMIZERS["adam"], rng=rng()))


SCRIPT = """
import sys
from tests.training.test_checkpoint import OPTIMIZERS, run
run(OPTIMIZERS["adam"], sys.argv[1], steps=10**6)
"""


@pytest.mark.slow
def test_a_process_killed_at_random_moments_leaves_a_whole_file(tmp_path):
    root = Path(__file__).parents[2]
    path = tmp_path / "run.npz"
    rng = np.random.default_rng(0)
    for _ in range(6 if FULL else 2):
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(path)], cwd=root)
        while not path.exists():
            time.sleep(0.01)
            assert process.poll() is None
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        with np.load(path, allow_pickle=False) as file:
            assert file["loss"].size > 0
        path.unlink()


def damaged(path, kind):
    content = bytearray(path.read_bytes())
    if kind == "cut":
        del content[len(content) // 2 :]
    elif kind == "flipped":
        content[len(content) // 3] ^= 0xFF
    elif kind == "empty":
        content.clear()
    elif kind == "text":
        content[:] = b"not a checkpoint"
    elif kind == "pickle":
        file = io.BytesIO()
        np.save(file, np.array([{}], dtype=object), allow_pickle=True)
        content[:] = file.getvalue()
    elif kind == "another npz":
        file = io.BytesIO()
        np.savez(file, weights=np.ones(3))
        content[:] = file.getvalue()
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["cut", "flipped", "empty", "text", "pickle", "another npz"])
def test_a_damaged_checkpoint_is_a_clear_error(tmp_path, kind):
    path = tmp_path / "run.npz"
    run(OPTIMIZERS["adam"], path)
    damaged(path, kind)
    with pytest.raises(
        ValueError, match=r"run\.npz is not a whole checkpoint .*delete it to start again"
    ):
        run(OPTIMIZERS["adam"], path, resume=True)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "run.npz"
    run(OPTIMIZERS["adam"], path)
    for match, changes in [
        (r"its optimizer is lora_np\.nn\.optim\.Adam\(", {"optimizer": lambda: lnp.SGD(lr=0.1)}),
        (
            r"its optimizer is \.\.\. .*peak=0.05",
            {"optimizer": lambda: lnp.Adam(lr=lnp.cosine_schedule(0.06, steps=23, warmup=4))},
        ),
        ("its batch size is 16, here it is 10", {"batch_size": 10}),
        ("its clip is 1.0, here it is None", {"clip": None}),
        (
            "its generator is PCG64, here it is Philox",
            {"rng": np.random.Generator(np.random.Philox(0))},
        ),
    ]:
        with pytest.raises(ValueError, match=match):
            run(changes.pop("optimizer", OPTIMIZERS["adam"]), path, resume=True, **changes)


@pytest.mark.parametrize(("change", "match"), [
    (lambda m, x, y: (lnp.inject(lnp.Linear(m.base.W), rank=3, alpha=3, rng=np.random.default_rng(0)), x, y),
     r"its model is .*A=trained float64 \(2, 5\), .*here it is .*A=trained float64 \(3, 5\)"),
    (lambda m, x, y: (lnp.LoRALinear(lnp.Linear(m.base.W + 1), m.A, m.B, m.alpha), x, y), r"its model is .*Linear\(W=float64 \(4, 5\)"),
    (lambda m, x, y: (m, x + 1, y), "its data is"),
])  # fmt: skip
def test_a_checkpoint_of_another_model_is_refused(tmp_path, change, match):
    path = tmp_path / "run.npz"
    model, x, y, _ = problem()
    lnp.fit(model, x, y, steps=3, checkpoint=path, progress=False)
    model, x, y = change(model, x, y)
    with pytest.raises(ValueError, match=match):
        lnp.fit(model, x, y, steps=3, checkpoint=path, resume=True, progress=False)


def test_the_default_optimizer_is_resumed_where_it_was_and_belongs_to_its_steps(tmp_path):
    model, x, y, _ = problem()
    settings = {"steps": 40, "progress": False}
    whole = lnp.fit(model, x, y, **settings)

    def die(step, model):
        if step == 25:
            raise Killed

    with pytest.raises(Killed):
        lnp.fit(model, x, y, **settings, checkpoint=tmp_path / "run.npz", watch=die)
    resume = {"checkpoint": tmp_path / "run.npz", "resume": True, "progress": False}
    with pytest.raises(ValueError, match=r"its optimizer is .*steps=40.*here it is .*steps=60"):
        lnp.fit(model, x, y, steps=60, **resume)
    same(lnp.fit(model, x, y, steps=40, **resume), whole)


def test_an_old_checkpoint_is_not_overwritten_unasked(tmp_path):
    path = tmp_path / "run.npz"
    run(OPTIMIZERS["adam"], path)
    with pytest.raises(FileExistsError, match="already exists: pass resume=True"):
        run(OPTIMIZERS["adam"], path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    with pytest.raises(Killed):
        run(OPTIMIZERS["adam"], path, die_at=9)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        run(OPTIMIZERS["adam"], path, resume=True)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.npz"]


def scaled(power):
    def loss(prediction, target):
        return np.mean(np.abs(prediction - target) ** power)

    return loss


def test_an_activation_and_a_loss_of_the_same_name_are_told_apart(tmp_path):
    _, x, y, _ = problem()

    def fit(path, activation, power):
        rng = np.random.default_rng(0)
        layers = [
            lnp.Linear(rng.normal(size=(5, 5))),
            lnp.Activation(activation),
            lnp.Linear(rng.normal(size=(4, 5))),
        ]
        model = lnp.inject(lnp.Sequential(layers), rank=1, alpha=1, rng=rng)
        lnp.fit(
            model, x, y, loss=scaled(power), steps=2, checkpoint=path, resume=True, progress=False
        )

    path = tmp_path / "run.npz"
    fit(path, np.tanh, 2)
    fit(path, np.tanh, 2)
    with pytest.raises(ValueError, match=r"its model is .*numpy\.tanh.*, here it is .*numpy\.sin"):
        fit(path, np.sin, 2)
    with pytest.raises(ValueError, match=r"its loss is .*power=2.*, here it is .*power=4"):
        fit(path, np.tanh, 4)


def test_a_loss_that_nobody_can_recognise_has_no_checkpoint(tmp_path):
    model, x, y, _ = problem()
    state = (number for number in [1])
    loss = lambda a, b: lnp.mean_squared_error(a, b) if state else None
    with pytest.raises(TypeError, match="generator cannot be recognised in another process"):
        lnp.fit(model, x, y, loss=loss, steps=2, checkpoint=tmp_path / "run.npz", progress=False)
    lnp.fit(model, x, y, loss=loss, steps=2, progress=False)


def test_flipped_bits_are_found_whichever_they_are(tmp_path):
    path = tmp_path / "run.npz"
    run(OPTIMIZERS["adam"], path)
    whole = path.read_bytes()
    reference = np.array(run(OPTIMIZERS["adam"], path, resume=True).history.loss)
    rng = np.random.default_rng(0)
    for _ in range(300 if FULL else 30):
        content = bytearray(whole)
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(content)
        try:
            result = run(OPTIMIZERS["adam"], path, resume=True)
        except ValueError:
            continue
        np.testing.assert_array_equal(result.history.loss, reference)  # a bit that means nothing


EDITS = {
    "no steps": lambda arrays, facts: facts.pop("steps"),
    "negative steps": lambda arrays, facts: facts.update(steps=-1),
    "steps in words": lambda arrays, facts: facts.update(steps="many"),
    "other steps": lambda arrays, facts: facts.update(steps=3),
    "no identity": lambda arrays, facts: facts.pop("identity"),
    "identity in words": lambda arrays, facts: facts.update(identity="mine"),
    "a place outside": lambda arrays, facts: facts.update(position=10**9),
    "no generator": lambda arrays, facts: facts.pop("random"),
    "a generator in words": lambda arrays, facts: facts.update(
        random={"bit_generator": "PCG64", "state": "x"}
    ),
    "validated nonsense": lambda arrays, facts: facts.update(validated=[[1, 2, 3]]),
    "no values": lambda arrays, facts: arrays.pop("values.0"),
    "values of another shape": lambda arrays, facts: arrays.update(
        {"values.0": arrays["values.0"][:-1]}
    ),
    "values of another dtype": lambda arrays, facts: arrays.update(
        {"values.0": arrays["values.0"].astype("f4")}
    ),
    "less state": lambda arrays, facts: arrays.update({"state.0": arrays["state.0"][:1]}),
    "fewer losses": lambda arrays, facts: arrays.update(loss=arrays["loss"][:3]),
    "losses in words": lambda arrays, facts: arrays.update(loss=np.array(["a"] * 23)),
    "rows twice": lambda arrays, facts: arrays.update(order=np.zeros_like(arrays["order"])),
    "rows in halves": lambda arrays, facts: arrays.update(order=arrays["order"] + 0.5),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_checkpoint_is_refused_and_changes_nothing(tmp_path, edit):
    path = tmp_path / "run.npz"
    run(OPTIMIZERS["adam"], path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    facts = json.loads(str(arrays.pop("facts")))
    EDITS[edit](arrays, facts)
    facts["sum"] = digest(*arrays.values())
    with path.open("wb") as file:
        np.savez(file, **arrays, facts=np.array(json.dumps(facts)))
    with pytest.raises(ValueError, match=r"is not a whole checkpoint|belongs to another run"):
        run(OPTIMIZERS["adam"], path, resume=True)


def test_a_stream_that_is_killed_is_continued(tmp_path):
    model, x, y, _ = problem()
    batches = [(x[i : i + 10], y[i : i + 10]) for i in range(0, 50, 10)]

    def fit(die_at=None, **settings):
        def watch(step, model):
            if step == die_at:
                raise Killed

        def loss(model, batch, rng=None):
            return lnp.mean_squared_error(model(batch[0], rng=rng), batch[1])

        return lnp.fit(
            model,
            batches,
            loss=loss,
            steps=23,
            accumulate=2,
            watch=watch,
            progress=False,
            **settings,
        )

    whole = fit()
    for die_at in (5, 13, 22):
        path = tmp_path / f"{die_at}.npz"
        with pytest.raises(Killed):
            fit(die_at, checkpoint=path)
        same(fit(checkpoint=path, resume=True), whole)
