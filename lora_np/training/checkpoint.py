"""A run of `fit` on disk: all that the next step depends on, written completely or not at all, no pickles."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np

from lora_np.checks import Array, brief, finite, whole_number
from lora_np.files import write_whole
from lora_np.hub import open_regular
from lora_np.training.identity import digest

FORMAT = 2


class CheckpointError(ValueError):
    """A checkpoint that is damaged, or that belongs to another run."""


@dataclass(frozen=True)
class Checkpoint:
    """A file that a run saves itself to.

    ``identity`` says what must be the same for the file to fit, each as a short text. A ``training`` is
    that of ``fitting.py``.
    """

    path: Path
    identity: dict[str, str]
    every: int

    def __post_init__(self) -> None:
        whole_number("checkpoint_every", self.every)

    def begin(self, training: Any, *, resume: bool) -> None:
        """Continue from the file if it exists and resuming was requested."""
        if not self.path.exists():
            return
        arrays, facts = self.read()
        if not resume:
            raise FileExistsError(f"{self.path} is there already: continue it with resume=True, or delete it")
        for name, ours in self.identity.items():
            theirs = facts["identity"].get(name)
            if theirs != ours:
                # descriptions with an article are too long to show
                difference = (
                    f"what differs is {name}"
                    if name.startswith("the ")
                    else f"its {name} is {short(theirs, ours)}, here it is {short(ours, theirs)}"
                )
                raise CheckpointError(f"{self.path} belongs to another run: {difference}")
        try:
            self.restore(training, arrays, facts)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError) as error:
            raise self.damaged(error) from None

    def restore(self, training: Any, arrays: dict[str, Array], facts: dict[str, Any]) -> None:
        """Restore what was saved, once all of it has been checked: completely or not at all."""
        for name, current in moved_by(training).items():
            fits(name, arrays[name], current)
        order, position = arrays["order"], whole_number("position", facts["position"], minimum=0)
        steps = whole_number("steps", facts["steps"], minimum=0)
        size = order.size and len(getattr(training.data, "x", ()))  # 0 before the first draw
        fits("order", np.sort(order), np.arange(size, dtype=training.data.order.dtype))
        if position > size or not np.array_equal(np.sort(order), np.arange(size)):
            raise ValueError(f"order must hold each row once, and position be in it, got {position}")
        loss = arrays["loss"]
        if loss.shape != (steps,) or loss.dtype != np.float64:
            raise ValueError(f"there must be {steps} losses, got {loss.dtype} {loss.shape}")
        finite("loss", loss)
        validated = [
            (whole_number("step", step, minimum=0), float(error)) for step, error in facts["validated"]
        ]
        moments = [-1, *(step for step, _ in validated), steps + 1]
        if any(after <= before for before, after in pairwise(moments)):
            raise ValueError(f"validated must go up to step {steps}, got {validated}")
        training.rng.bit_generator.state = facts["random"]
        for i, bank in enumerate(training.run.banks):
            bank.values[...] = arrays[f"values.{i}"]
            for vector, saved in zip(bank.state, arrays[f"state.{i}"], strict=True):
                vector[...] = saved
        training.run.steps = steps
        training.data.order, training.data.position = order, position
        training.loss[:], training.validated[:] = loss.tolist(), validated

    def read(self) -> tuple[dict[str, Array], dict[str, Any]]:
        try:
            with open_regular(self.path) as stream:
                arrays = arrays_in(stream)
            facts = json.loads(str(arrays.pop("facts")))
            if not isinstance(facts, dict) or not isinstance(facts.get("identity"), dict):
                raise ValueError("it does not say which run it is of")
            if facts["format"] != FORMAT:
                raise ValueError(f"format {facts['format']}, not {FORMAT}")
            if facts["sum"] != digest(*arrays.values()):
                raise ValueError("its sum does not match its content")
        except FileNotFoundError:
            raise
        except Exception as error:  # whatever zipfile, zlib and NumPy raise for arbitrary bytes
            raise self.damaged(error) from None
        return arrays, facts

    def damaged(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"{self.path} is not a whole checkpoint ({brief(str(error), 300)}): name another file, or if it "
            "once was one, delete it to start again"
        )

    def save(self, training: Any) -> None:
        """Write the state of the run, after a step."""
        arrays = {"loss": np.array(training.loss), "order": training.data.order, **moved_by(training)}
        facts = {
            "format": FORMAT,
            "identity": self.identity,
            "steps": training.run.steps,
            "position": training.data.position,
            "validated": training.validated,
            "random": training.rng.bit_generator.state,
            "sum": digest(*arrays.values()),
        }
        arrays["facts"] = np.array(json.dumps(facts, default=np.ndarray.tolist))
        write_whole(self.path, lambda file: np.savez(file, **arrays))


def moved_by(training: Any) -> dict[str, Array]:
    """What a step moves: the values of each bank, and the optimizer's state."""
    banks = list(enumerate(training.run.banks))
    values = {f"values.{i}": bank.values for i, bank in banks}
    return values | {f"state.{i}": np.array(bank.state) for i, bank in banks}


def arrays_in(stream: IO[bytes]) -> dict[str, Array]:
    """The arrays that `numpy.savez` has written; a small file that claims to be large is refused."""
    with zipfile.ZipFile(stream) as file:
        members = file.infolist()
    stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
    if not stored or sum(member.file_size for member in members) > os.fstat(stream.fileno()).st_size:
        raise ValueError("it is compressed, which a checkpoint never is")
    stream.seek(0)
    with np.load(stream, allow_pickle=False) as arrays:
        return dict(arrays)


def fits(name: str, saved: Array, current: Array) -> None:
    if saved.shape != current.shape or saved.dtype != current.dtype:
        raise ValueError(f"{name} is {saved.dtype} {saved.shape}, not {current.dtype} {current.shape}")
    finite(name, saved)


def short(text: Any, other: Any) -> str:
    """What differs in ``text`` from ``other``, with a few words around it: a description can be long."""
    text, other = str(text), str(other)
    start = max(0, len(os.path.commonprefix([text, other])) - 40)  # noqa: RUF071  (characters are meant)
    part = brief(text[start : start + 100], 100)
    return f"{'... ' * (start > 0)}{part}{' ...' * (len(text) > start + 100)}"
