"""Runs trained in advance, for lessons that would otherwise take minutes."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any


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
