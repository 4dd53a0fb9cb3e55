"""A run of `fit` on disk: all that the next step depends on, written whole or not at all, nothing pickled."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lora_np.checks import Array, whole_number
from lora_np.files import write_whole
from lora_np.nn import Run
from lora_np.training.identity import digest

FORMAT = 2


class CheckpointError(ValueError):
    """A checkpoint that is damaged, or that belongs to another run."""


class Resumable(Protocol):
    """What a checkpoint holds of a run: see `lora_np.training.fitting.Training`."""

    run: Run
    data: Any
    rng: np.random.Generator
    loss: list[float]
    validated: list[tuple[int, float]]


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

    def begin(self, training: Resumable, *, resume: bool) -> None:
        """Continue from the file if it exists, if that was asked for."""
        if not self.path.exists():
            return
        arrays, facts = self.read()
        if not resume:
            raise FileExistsError(f"{self.path} is there already: continue it with resume=True, or delete it")
        for name, ours in self.identity.items():
            theirs = facts["identity"].get(name)
            if theirs != ours:
                raise CheckpointError(
                    f"{self.path} belongs to another run: its {name} is {short(theirs, ours)}, "
                    f"here it is {short(ours, theirs)}"
                )
        try:
            self.restore(training, arrays, facts)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError) as error:
            raise self.damaged(error) from None

    def restore(self, training: Resumable, arrays: dict[str, Array], facts: dict[str, Any]) -> None:
        """Put back what was saved, once all of it has been checked: whole or not at all."""
        banks = training.run.banks
        for i, bank in enumerate(banks):
            fits(f"values.{i}", arrays[f"values.{i}"], bank.values)
            fits(f"state.{i}", arrays[f"state.{i}"], np.array(bank.state))
        order, position = arrays["order"], whole_number("position", facts["position"], minimum=0)
        steps = whole_number("steps", facts["steps"], minimum=0)
        if order.dtype != training.data.order.dtype or order.ndim != 1 or position > len(order):
            raise ValueError(f"order and position must fit the data, got {order.shape} and {position}")
        if not np.array_equal(np.sort(order), np.arange(len(order))):
            raise ValueError("order must hold each row once")
        loss = [float(number) for number in arrays["loss"]]
        if len(loss) != steps:
            raise ValueError(f"there must be a loss for each of the {steps} steps, got {len(loss)}")
        validated = [
            (whole_number("step", step, minimum=0), float(error)) for step, error in facts["validated"]
        ]
        training.rng.bit_generator.state = facts["random"]
        for i, bank in enumerate(banks):
            bank.values[...] = arrays[f"values.{i}"]
            for vector, saved in zip(bank.state, arrays[f"state.{i}"], strict=True):
                vector[...] = saved
        training.run.steps = steps
        training.data.order, training.data.position = order, position
        training.loss[:], training.validated[:] = loss, validated

    def read(self) -> tuple[dict[str, Array], dict[str, Any]]:
        try:
            with open(self.path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            facts = json.loads(str(arrays.pop("facts")))
            if not isinstance(facts, dict) or not isinstance(facts.get("identity"), dict):
                raise ValueError("it does not say which run it is of")
            if facts["format"] != FORMAT:
                raise ValueError(f"format {facts['format']}, not {FORMAT}")
            if facts["sum"] != digest(*arrays.values()):
                raise ValueError("its sum does not match its content")
        except FileNotFoundError:
            raise
        except Exception as error:  # whatever zipfile, zlib and NumPy raise for foreign bytes
            raise self.damaged(error) from None
        return arrays, facts

    def damaged(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"{self.path} is not a whole checkpoint ({error}): name another file, or if it "
            "once was one, delete it to start again"
        )

    def save(self, training: Resumable) -> None:
        """Write the state of the run, after a step."""
        arrays = {"loss": np.array(training.loss), "order": training.data.order}
        for i, bank in enumerate(training.run.banks):
            arrays |= {f"values.{i}": bank.values, f"state.{i}": np.array(bank.state)}
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


def fits(name: str, saved: Array, current: Array) -> None:
    if saved.shape != current.shape or saved.dtype != current.dtype:
        raise ValueError(f"{name} is {saved.dtype} {saved.shape}, not {current.dtype} {current.shape}")


def short(text: Any, other: Any) -> str:
    """What differs in ``text`` from ``other``, with a few words around it: a description can be long."""
    text, other = str(text), str(other)
    start = next(
        (i for i, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other))
    )
    start = max(0, start - 40)
    return f"{'... ' * (start > 0)}{text[start : start + 100]}{' ...' * (len(text) > start + 100)}"
