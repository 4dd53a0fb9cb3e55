"""Mutated checkpoints: what was saved, or refused; in linear time, within 256 MiB."""

import json
import os
import zipfile

import numpy as np
import pytest

import lora_np as lnp
from lora_np.training.checkpoint import digest
from tests.mutations import (
    COUNTS,
    MEMORY,
    changed,
    in_little_memory,
    is_linear,
    overwritten,
    refusal,
)

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 3)), RNG.normal(size=(12, 2))
BASE = lnp.Linear(RNG.normal(size=(2, 3)))


def fit(path, steps=3, rng=None):
    """Continue at a checkpoint, to more steps than it has."""
    model = lnp.inject(BASE, rank=1, rng=0)
    settings = {
        "optimizer": lnp.Adam(lr=0.01),  # the default one belongs to its number of steps
        "batch_size": 4,
        "steps": steps,
        "validation": (X, Y),
        "validate_every": 1,
        "progress": False,
    }
    rng = np.random.default_rng(0) if rng is None else rng
    return lnp.fit(model, X, Y, **settings, rng=rng, checkpoint=path, resume=True)


def parts(path):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    return arrays, json.loads(str(arrays.pop("facts")))


def put_together(arrays, facts, path, save=np.savez):
    facts = dict(facts, sum=digest(*arrays.values())) if isinstance(facts, dict) else facts
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        save(file, **arrays, facts=np.array(json.dumps(facts)))


def other_arrays(arrays, rng):
    arrays = dict(arrays)
    names = list(arrays)
    name, other = (names[i] for i in rng.integers(len(names), size=2))
    kind = rng.integers(8)
    if kind == 0:
        del arrays[name]
    elif kind == 1:
        arrays[name] = arrays[other]
    elif kind == 2:
        arrays[name] = arrays[name].astype(
            rng.choice(["f4", "f8", "i8", "?", "c16", "U9", "S3", ">f8"])
        )
    elif kind == 3:
        arrays[name] = arrays[name][..., : int(rng.integers(3))]
    elif kind == 4:
        arrays[name] = np.full_like(arrays[name], rng.choice([0, -1, 1, 100]))
    elif kind == 5 and arrays[name].dtype.kind == "f":
        arrays[name] = np.full_like(arrays[name], rng.choice([np.nan, np.inf, -np.inf, 1e30]))
    elif kind == 6:
        arrays[rng.choice(["x", "values.9", "../x", "loss "])] = arrays[name]
    else:
        arrays[name] = arrays[name].reshape((1, -1) if rng.random() < 0.5 else -1)
    return arrays


def with_other_header(content, rng):
    """The first array of the file says that it is another one."""
    start = content.index(b"{'descr'")
    end = content.index(b"\n", start)
    shape = rng.choice(
        [
            "(3,)",
            "(10000000,)",
            "(10000000000000,)",
            "(-1,)",
            "()",
            "(" + "1, " * 70 + ")",
            "(2**99,)",
            "x",
        ]
    )
    descr = rng.choice(
        ["'<f8'", "'|O'", "'<U9999'", "[('a', '<f8')]", "'|V1'", "1", "'<f8,' * 9", "'<M8'"]
    )
    header = f"{{'descr': {descr}, 'fortran_order': {rng.choice(['False', 'True', '1'])}, 'shape': {shape}, }}"
    return content[:start] + header.encode().ljust(end - start)[: end - start] + content[end:]


def checkpoints(folder, count):
    """How many were continued; each that is not leaves the generator alone."""
    whole, path = folder / "whole.npz", folder / "run.npz"
    fit(whole, steps=2)
    content = whole.read_bytes()
    arrays, facts = parts(whole)
    rng = np.random.default_rng(0)
    accepted = 0
    for _ in range(count):
        kind = rng.integers(8)
        if kind <= 3:
            put_together(arrays, changed(facts, rng), path)
        elif kind <= 5:
            put_together(
                other_arrays(arrays, rng),
                facts,
                path,
                np.savez if rng.random() < 0.8 else np.savez_compressed,
            )
        else:
            path.unlink(missing_ok=True)
            path.write_bytes(
                with_other_header(content, rng) if kind == 6 else overwritten(content, rng)
            )
        generator = np.random.default_rng(0)
        before = generator.bit_generator.state
        found, refused = refusal(
            lambda path=path, generator=generator: fit(path, rng=generator), errors=ValueError
        )
        if refused:
            assert generator.bit_generator.state == before
        else:
            accepted += 1
            assert len(found.history.loss) >= 2
            assert np.isfinite(found.history.loss).all()
            np.testing.assert_array_equal(
                np.sort(found.history.validation_steps), found.history.validation_steps
            )
    return accepted


@pytest.mark.parametrize("count", COUNTS)
def test_mutated_checkpoints_are_continued_or_refused(tmp_path, count):
    accepted = int(in_little_memory("tests.laws.test_training_fuzz:checkpoints", tmp_path, count))
    assert count / 100 < accepted < count


def bomb(path, size):
    """A file of some KiB that says it holds as many bytes of zeros as asked for."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
        file.open("loss.npy", "w") as member,
    ):
        np.lib.format.write_array_header_1_0(
            member, {"descr": "<f8", "fortran_order": False, "shape": (size // 8,)}
        )
        for _ in range(size // 2**20):
            member.write(bytes(2**20))


def explode(folder, size):
    if size > 20:
        bomb(folder / "bomb.npz", size)
        return refusal(fit, folder / "bomb.npz", errors=ValueError)[1]
    return fit(folder / "run.npz")


def test_what_is_small_and_says_that_it_is_large_takes_no_memory(tmp_path):
    assert "is not a whole checkpoint" in in_little_memory(
        "tests.laws.test_training_fuzz:explode", tmp_path, 2 * MEMORY
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_no_checkpoint(tmp_path):
    os.mkfifo(tmp_path / "run.npz")
    with pytest.raises(ValueError, match="not a regular file"):
        fit(tmp_path / "run.npz")


LARGE = {
    "arrays": lambda arrays, facts, n: arrays.update(
        {f"more.{i}": np.zeros(1) for i in range(n // 40)}
    ),
    "losses": lambda arrays, facts, n: arrays.update(loss=np.zeros(50 * n)),
    "facts": lambda arrays, facts, n: facts.update({str(i): i for i in range(n)}),
    "identity": lambda arrays, facts, n: facts["identity"].update(model="x" * n),
    "validated": lambda arrays, facts, n: facts.update(validated=[[1, 0.5]] * n),
    "digits": lambda arrays, facts, n: facts.update(position="9" * n),
}


@pytest.mark.parametrize("large", LARGE)
def test_the_time_grows_with_the_size(tmp_path, large):
    fit(tmp_path / "whole.npz", steps=2)

    def prepare(size):
        arrays, facts = parts(tmp_path / "whole.npz")
        LARGE[large](arrays, facts, size)
        put_together(arrays, facts, tmp_path / f"{size}.npz")
        content = (tmp_path / f"{size}.npz").read_bytes()
        return content

    def read(content):
        (tmp_path / "run.npz").write_bytes(content)
        return refusal(fit, tmp_path / "run.npz", errors=ValueError)

    linear, seconds = is_linear(prepare, read, 80_000)
    assert linear, seconds
