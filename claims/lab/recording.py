"""Results of claims: made from runs, written as JSON, and worded again."""

from __future__ import annotations

import json
import platform
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from claims.lab import base_line, chance, tasks
from claims.lab.protocol import HERE, Claim, Lab
from claims.lab.rules import CONTRADICTED, NOT_SHOWN, TASK
from claims.lab.trial import decided, figures_of, read
from lora_np.files import write_whole
from lora_np.version import __version__

RESULTS = HERE / "results"


def seeds_of(lab: Lab, figures: Mapping[str, Any]) -> list[int]:
    """The seeds of the longest figure: where each draws everything, they count from 0."""
    longest = max(len(figure["values"]) for figure in figures.values())
    return lab.seeds if longest <= len(lab.seeds) else [*range(longest)]


def quickly(found: Mapping[str, Any], full: str) -> dict[str, Any]:
    """A quick run that does not agree with the full one has not shown anything: it is shorter, or
    has fewer seeds. What its own figures give is kept.
    """
    own = found.get("found", found["verdict"])
    return {**found, "found": own, "verdict": own if own == full else NOT_SHOWN}


def tried(claim: Claim, lab: Lab) -> dict[str, Any]:
    """Figures, verdict and seconds of one go."""
    begin = time.process_time()
    values = claim.measure(lab)
    assert values.keys() == claim.figures.keys(), (values.keys(), claim.figures.keys())
    seconds = max(time.process_time() - begin, sum(lab.costs.values()))
    chose = lab.costs and not lab.quick
    choices = chance.choices(claim, lambda: claim.measure(lab)) if chose else {}
    figures = figures_of(claim, values, choices)
    return {
        "seeds": seeds_of(lab, figures),
        "figures": figures,
        **decided(claim, figures),
        "seconds": round(seconds, 1),
        "cost": {name: round(cost, 1) for name, cost in lab.costs.items()},
    }


def words(claim: Claim) -> dict[str, Any]:
    """All that a claim says, as JSON."""
    fields = (
        "title",
        "paper",
        "topic",
        "refuted_by",
        "setup",
        "varied",
        "setting",
        "published",
        "limits",
        "advice",
        "headline",
        "words",
    )
    scale = {"at scale": claim.at_scale.recorded()} if claim.at_scale is not None else {}
    return (
        {name: getattr(claim, name) for name in fields}
        | scale
        | {
            "rule": claim.rule.words(claim.figures),
            "ratios": [*claim.ratios],
            "counted": [*claim.counted],
            "meaning": dict(claim.figures),
        }
    )


def record(name: str, claim: Claim, *, quick: bool = False, again: bool = False) -> dict[str, Any]:
    """Run a claim and write its file: the full run, what it gives in small, or its figures anew, from
    the runs that are recorded.
    """
    path = RESULTS / f"{name}.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    lab = Lab(quick=quick, recorded=before or None, again=again)
    found = tried(claim, lab)
    if quick:
        own = claim.rule.verdict(read(claim, before["figures"]))
        result = before | words(claim) | {"quick": quickly(found, own)}
    else:
        result = {
            "name": name,
            **words(claim),
            **found,
            "machine": f"{platform.machine()}, {platform.system()}, one core",
            "versions": {
                "lora_np": __version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            "methods": {name: sweep.to_json() for name, sweep in lab.sweeps.items()},
        }
        for part in ("quick", "other seeds"):
            if part in before and before[part]["figures"].keys() == claim.figures.keys():
                result[part] = before[part]
        if again:
            result |= {part: before[part] for part in ("machine", "versions") if part in before}
            # what was trained for it; runs that are read from the file of the claim cost nothing now
            new = {name: cost for name, cost in found["cost"].items() if cost}
            cost = before.get("cost", {}) | new
            seconds = round(max(before.get("seconds", 0.0), sum(cost.values())), 1)
            result |= {"cost": cost, "seconds": seconds}
    write(name, finished(claim, result))
    return found


def failed(result: Mapping[str, Any]) -> list[str]:
    """The figures whose part is contradicted."""
    return [part["figure"] for part in result["parts"] if part["verdict"] == CONTRADICTED]


def finished(claim: Claim, result: dict[str, Any]) -> dict[str, Any]:
    """What follows from the figures of all setups together."""
    figures = read(claim, result["figures"])
    result["finding"] = claim.found(figures)
    result["odds"] = chance.odds(claim, figures)
    result["untrained"] = base_line.recorded().get(result["name"], {})
    result["other tasks"] = tasks.recorded().get(result["name"], {})
    if said := tasks.sentence(result["name"], claim.figures, failed(result)):
        alone = {"alone": result["verdict"]}  # of the first task
        result |= alone | {"verdict": TASK, "sentence": f"{said} {result['sentence']}"}
    result["verdicts"] = result["verdict"]
    if "at scale" in result:
        result["verdicts"] = f"small: {result['verdict']}; 135M: {result['at scale']['verdict']}"
    return result


def reword(name: str, claim: Claim) -> None:
    """Words and verdicts of a file again, from what the claim says now and the figures that are
    recorded.
    """
    result = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) | words(claim)
    if "other seeds" in result and {*result["seeds"]} & {*result["other seeds"]["seeds"]}:
        del result["other seeds"]  # of a protocol with fewer seeds
    for name_of_part in ("", "quick", "other seeds"):
        part = result if not name_of_part else result.get(name_of_part)
        if part is not None:
            recorded = {figure: part["figures"][figure] for figure in claim.figures}
            values = {figure: one["values"] for figure, one in recorded.items()}
            choices = {figure: one.get("choice", 0.0) for figure, one in recorded.items()}
            part["figures"] = figures_of(claim, values, choices)
            part |= decided(claim, part["figures"])
    if "quick" in result:
        result["quick"].pop("found", None)
        result["quick"] = quickly(result["quick"], result["verdict"])
    write(name, finished(claim, result))


def show(name: str, claim: Claim) -> dict[str, Any]:
    """Figures and verdict from the runs that are recorded; nothing is written."""
    recorded = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return tried(claim, Lab(recorded=recorded, again=True))


def train(claim: Claim, seeds: Sequence[int], folder: Path) -> dict[str, Any]:
    """Train everything that a claim asks for, with seeds of one's own, and note it in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    lab = Lab(seeds=seeds, folder=folder)
    found = tried(claim, lab)
    return found | {"methods": {name: sweep.to_json() for name, sweep in lab.sweeps.items()}}


def write(name: str, result: Mapping[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    text = compact(json.dumps(result, ensure_ascii=False, indent=1))
    write_whole(RESULTS / f"{name}.json", lambda file: file.write(text.encode()))


def compact(text: str) -> str:
    """JSON with each list of numbers on one line."""
    return re.sub(r"\[[^\[\]{}\"]*\]", lambda found: " ".join(found.group().split()), text) + "\n"
