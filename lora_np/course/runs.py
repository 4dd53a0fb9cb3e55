"""Runs trained in advance, for lessons that would otherwise take minutes."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from lora_np.course.notebooks import carried


def adaptation_runs() -> list[dict[str, Any]]:
    """The shipped model after learning Genesis: many ranks, targets, learning rates and random seeds.

    Returns
    -------
    list of dict
        One for each run. Its settings: ``targets``, ``rank`` (None where every weight was trained),
        ``alpha``, ``lr``, ``seed``. Its results: how many ``numbers`` were trained; the loss in nats a
        character on ``validation``, which chose the learning rate, on ``test``, and on held-out ``austen``;
        of the first ten directions of each map, how many are ``intruders``; the rank that has 90 % of an
        update's energy (``rank_90``); ``seconds`` of training.

    See Also
    --------
    lora_np.language.finetune : One run.

    Notes
    -----
    ``recipes/adaptation.py`` in the repository made them, and holds every setting.

    Examples
    --------
    >>> runs = adaptation_runs()
    >>> min(run["numbers"] for run in runs) < 10_000 < max(run["numbers"] for run in runs)
    True
    """
    text = files("lora_np.course").joinpath("adaptation.json").read_text(encoding="utf-8")
    runs: list[dict[str, Any]] = json.loads(text)["runs"]
    return runs


def claims() -> dict[str, dict[str, Any]]:
    """What papers say about LoRA, and what came of it when it was tried: each claim by its name.

    Returns
    -------
    dict of str to dict
        In words: ``title``, ``paper``, ``against`` (what would contradict it), ``rule``, ``limits``,
        ``advice``. As data: ``verdict``; ``figures``, each with its ``mean``, and ``low`` to ``high``, the
        interval of the mean; ``ways``, each with the runs at every rate that was tried.

    Raises
    ------
    FileNotFoundError
        If the package was installed without them.

    Notes
    -----
    ``python -m claims run`` in the repository makes them; ``claims/protocol.py`` says how.

    Examples
    --------
    >>> claims()["double-quantisation"]["verdict"]
    'holds'
    """
    found = carried("claims/results", "*.json")
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in found}
