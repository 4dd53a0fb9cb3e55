"""Save a run of `fit` to a file and restore it, completely or not at all.

A file belongs to runs of the same `identity`, which describes everything that a run computes with,
or is the name of the run.
"""

from __future__ import annotations

import json
import os
from itertools import pairwise
from typing import Any

import numpy as np

from lora_np.checks import Array, StrPath, brief, finite, whole_number
from lora_np.files import open_regular, target_path, write_whole
from lora_np.hub import arrays_in
from lora_np.nn import trainable
from lora_np.training.identity import derivatives, describe, digest, versions


class Checkpoint:
    """The file to which a run is saved, and from which it continues if ``resume`` is set."""

    def __init__(self, path: StrPath, training: Any) -> None:
        self.path, self.training, self.identity = target_path(path), training, identity(training)
        if not self.path.absolute().parent.is_dir():
            raise ValueError(
                f"{self.path.parent}: no such directory to write {self.path.name} into"
            )
        if not self.path.exists():
            return
        arrays, facts = self.read()
        if not training.settings.resume:
            raise FileExistsError(
                f"{self.path} already exists: pass resume=True (--resume), or delete it"
            )
        for name, ours in self.identity.items():
            theirs = str(facts["identity"].get(name))
            if theirs != ours:
                why = f"its {name} is {short(theirs, ours)}, here it is {short(ours, theirs)}"
                if name.startswith("the "):  # values with such names are too long to show
                    why = f"what differs is {name}"
                raise ValueError(f"{self.path} belongs to another run: {why}")
        try:
            self.restore(arrays, facts)
        except Exception as error:  # a damaged file can cause any error
            raise self.damaged(error) from None

    def restore(self, arrays: dict[str, Array], facts: dict[str, Any]) -> None:
        """Validate the whole file, and then restore the run."""
        training = self.training
        for name, current in moved_by(training).items():
            fits(name, arrays[name], current)
        lowest = [arrays[name] for name in sorted(arrays) if name.startswith("lowest.")]
        for saved, bank in zip(lowest, training.run.banks if lowest else (), strict=True):
            fits("lowest", saved, bank.values)
        order, position = arrays["order"], whole_number("position", facts["position"], minimum=0)
        steps = whole_number("steps", facts["steps"], minimum=0)
        # before the first draw, the order of the rows is empty
        size = order.size and len(getattr(training.data, "x", ()))
        fits("order", np.sort(order), np.arange(size, dtype=training.data.order.dtype))
        if position > size or not np.array_equal(np.sort(order), np.arange(size)):
            raise ValueError(
                f"order must hold each row once, and position be in it, got {position}"
            )
        loss = arrays["loss"]
        fits("loss", loss, np.broadcast_to(0.0, steps))
        validated = [
            (whole_number("step", at, minimum=0), float(error)) for at, error in facts["validated"]
        ]
        samples = [
            (whole_number("step", at, minimum=0), str(text)) for at, text in facts["samples"]
        ]
        moments = [-1, *(step for step, _ in validated), steps + 1]
        if any(after <= before for before, after in pairwise(moments)):
            raise ValueError(f"validated must go up to step {steps}, got {validated}")
        training.rng.bit_generator.state = facts["random"]
        for i, bank in enumerate(training.run.banks):
            bank.values[...] = arrays[f"values.{i}"]
            for vector, saved in zip(bank.state, arrays[f"state.{i}"], strict=True):
                vector[...] = saved
        training.run.steps, training.samples[:] = steps, samples
        training.data.order, training.data.position = order, position
        training.loss[:], training.validated[:], training.lowest[:] = (
            loss.tolist(),
            validated,
            lowest,
        )

    def read(self) -> tuple[dict[str, Array], dict[str, Any]]:
        try:
            with open_regular(self.path) as stream:
                arrays = arrays_in(stream, "biufcU")
            facts = json.loads(str(arrays.pop("facts")))
            if not isinstance(facts, dict) or not isinstance(facts.get("identity"), dict):
                raise ValueError("it does not say which run it is of")
            if facts["sum"] != digest(*arrays.values()):
                raise ValueError("its sum does not match its content")
        except Exception as error:  # zipfile, zlib and NumPy can raise any error for invalid bytes
            raise self.damaged(error) from None
        return arrays, facts

    def damaged(self, error: Exception) -> ValueError:
        return ValueError(
            f"{self.path} is not a whole checkpoint ({brief(str(error), 300)}): name another file,"
            " or if it once was one, delete it to start again"
        )

    def save(self) -> None:
        """Write the state of the run to the file."""
        training = self.training
        arrays = {
            "loss": np.array(training.loss),
            "order": training.data.order,
            **moved_by(training),
        }
        arrays |= {f"lowest.{i:04}": values for i, values in enumerate(training.lowest)}
        facts = {
            "identity": self.identity,
            "steps": training.run.steps,
            "position": training.data.position,
            "validated": training.validated,
            "samples": training.samples,
            "random": training.rng.bit_generator.state,
            "sum": digest(*arrays.values()),
        }
        arrays["facts"] = np.array(json.dumps(facts, default=np.ndarray.tolist))
        write_whole(self.path, lambda file: np.savez(file, **arrays))


def identity(training: Any) -> dict[str, str]:
    """Describe, by name, everything that must be unchanged for a run to continue.

    For a run with a name, these are only the name and the versions.
    """
    s = training.settings
    title = {"versions": versions(), "name": s.identity or "not given"}
    if s.identity is not None:
        return title
    seen = {
        **training.data.identity,
        "validation": training.data.validation,
        "model": training.model,
        "optimizer": training.run.optimizer,
        "clip": training.run.clip,
        "accumulate": s.accumulate,
        "patience": s.patience,
    }
    leaves = trainable(training.model)
    apart = {id(leaf) for _, leaf in leaves}
    return {
        **title,
        **{name: describe(part, apart) for name, part in seen.items()},
        **{
            f"the first values of {path or 'the model'}": digest(leaf.data) for path, leaf in leaves
        },
        "derivatives": derivatives(),
        "generator": type(training.rng.bit_generator).__name__,
        "the state of rng": describe(training.rng.bit_generator.state),
    }


def moved_by(training: Any) -> dict[str, Array]:
    """Return the arrays that a step changes, by name: each bank's values and optimizer state."""
    banks = list(enumerate(training.run.banks))
    values = {f"values.{i}": bank.values for i, bank in banks}
    return values | {f"state.{i}": np.array(bank.state) for i, bank in banks}


def fits(name: str, saved: Array, current: Array) -> None:
    if saved.shape != current.shape or saved.dtype != current.dtype:
        raise ValueError(
            f"{name} is {saved.dtype} {saved.shape}, not {current.dtype} {current.shape}"
        )
    finite(name, saved)


def short(text: str, other: str) -> str:
    """Shorten ``text`` to the part that differs from ``other``, with a few words around it."""
    begin = max(0, len(os.path.commonprefix([text, other])) - 40)  # noqa: RUF071  (characters are meant)
    part = brief(text[begin : begin + 100], 100)
    return f"{'... ' * (begin > 0)}{part}{' ...' * (len(text) > begin + 100)}"
