"""A run of `fit` on disk: all that the next step depends on, written whole or not at all, nothing pickled."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lora_np.autograd import value
from lora_np.checks import Array, whole_number
from lora_np.files import write_whole
from lora_np.nn import Run, leaves, trainable

FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that is damaged, or that belongs to another run."""


class Batches:
    """Rows of each step, without end: drawn without replacement until too few are left."""

    def __init__(self, n: int, batch_size: int, rng: np.random.Generator) -> None:
        self.n = n
        self.batch_size = batch_size
        self.rng = rng
        self.order = np.arange(0)
        self.position = 0

    def draw(self, x: Array, y: Array) -> tuple[Array, Array]:
        """The rows of the next step."""
        if self.batch_size == self.n:
            return x, y
        if self.position + self.batch_size > len(self.order):
            self.order, self.position = self.rng.permutation(self.n), 0
        self.position += self.batch_size
        rows = self.order[self.position - self.batch_size : self.position]
        return x[rows], y[rows]


@dataclass
class Progress:
    """How far a run has come."""

    run: Run
    rows: Batches
    rng: np.random.Generator
    loss: list[float] = field(default_factory=list)
    validated: list[tuple[int, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Checkpoint:
    """A file that a run saves itself to.

    ``identity`` says what has to be the same for the file to fit, each as a short text.
    """

    path: Path
    identity: dict[str, str]
    every: int

    def __post_init__(self) -> None:
        whole_number("checkpoint_every", self.every)

    def begin(self, progress: Progress, *, resume: bool) -> None:
        """Continue from the file if it is there, which must have been asked for."""
        if not self.path.exists():
            return
        arrays, facts = self.read()
        if not resume:
            raise FileExistsError(f"{self.path} is there already: continue it with resume=True, or delete it")
        for name, ours in self.identity.items():
            theirs = facts["identity"].get(name)
            if theirs != ours:
                raise CheckpointError(
                    f"{self.path} belongs to another run: its {name} is {theirs}, here it is {ours}"
                )
        for i, bank in enumerate(progress.run.banks):
            bank.values[...] = arrays[f"values.{i}"]
            for vector, saved in zip(bank.state, arrays[f"state.{i}"], strict=True):
                vector[...] = saved
        progress.run.steps = facts["steps"]
        progress.rows.order, progress.rows.position = arrays["order"], facts["position"]
        progress.rng.bit_generator.state = facts["random"]
        progress.loss[:] = arrays["loss"].tolist()
        progress.validated[:] = [(step, loss) for step, loss in facts["validated"]]

    def read(self) -> tuple[dict[str, Array], dict[str, Any]]:
        import zipfile
        import zlib

        try:
            with open(self.path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            facts = json.loads(str(arrays.pop("facts")))
            if facts["format"] != FORMAT:
                raise ValueError(f"format {facts['format']}, not {FORMAT}")
        except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, TypeError, EOFError, OSError) as error:
            raise CheckpointError(
                f"{self.path} is not a whole checkpoint ({error}): name another file, or if it "
                "once was one, delete it to start anew"
            ) from None
        return arrays, facts

    def save(self, progress: Progress) -> None:
        """Write the run as it stands, after a step."""
        arrays = {"loss": np.array(progress.loss), "order": progress.rows.order}
        for i, bank in enumerate(progress.run.banks):
            arrays |= {f"values.{i}": bank.values, f"state.{i}": np.array(bank.state)}
        facts = {
            "format": FORMAT,
            "identity": self.identity,
            "steps": progress.run.steps,
            "position": progress.rows.position,
            "validated": progress.validated,
            "random": progress.rng.bit_generator.state,
        }
        arrays["facts"] = np.array(json.dumps(facts, default=np.ndarray.tolist))
        write_whole(self.path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]


def identity_of(
    model: Any, x: Array, y: Array, rng: np.random.Generator, settings: dict[str, Any]
) -> dict[str, str]:
    """What has to be the same for a checkpoint to fit, each as a short text."""
    frozen = [value(leaf) for _, leaf in leaves(model)]
    learned = {id(leaf.data) for _, leaf in trainable(model)}
    return {
        "trained part": "; ".join(f"{path} {leaf.shape} {leaf.dtype}" for path, leaf in trainable(model)),
        **{name: without_addresses(setting) for name, setting in settings.items()},
        "generator": type(rng.bit_generator).__name__,
        "frozen part": digest(*(a for a in frozen if id(a) not in learned)),
        "data": digest(x, y),
    }


def without_addresses(setting: Any) -> str:
    """``repr``, less the addresses of functions, which are others in every process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(setting))


def digest(*arrays: Array) -> str:
    """A fingerprint of shapes, dtypes and values."""
    import hashlib

    sha = hashlib.sha256()
    for a in arrays:
        sha.update(f"{a.shape} {a.dtype.str}".encode())
        sha.update(np.ascontiguousarray(a).tobytes())
    return sha.hexdigest()[:16]
