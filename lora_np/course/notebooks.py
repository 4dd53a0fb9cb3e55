"""Find what comes with the package: lessons, and runs that would take too long in one."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from lora_np.checks import needed
from lora_np.files import target_path, write_new


def lessons() -> list[Path]:
    """List the notebooks, in the order of the course.

    A wheel carries them inside the package; in a checkout they are next to it.

    Returns
    -------
    list of Path
        In the package, or in the checkout that it is run from.

    Raises
    ------
    FileNotFoundError
        If the package was installed without them.

    Examples
    --------
    >>> lessons()[0].name
    '00-follow-the-post.ipynb'
    """
    return carried("notebooks", "*.ipynb")


def carried(folder: str, names: str) -> list[Path]:
    """List files that a wheel carries inside the package, and a checkout next to it."""
    package = Path(__file__).parents[1]
    for place in (package, package.parent):
        if paths := sorted((place / folder).glob(names)):
            return paths
    raise FileNotFoundError(f"{folder} is missing from this installation of lora_np in {package}")


def adaptation_runs() -> list[dict[str, Any]]:
    """Load recorded runs on Genesis: many ranks, targets, learning rates and random seeds.

    Returns
    -------
    list of dict
        One for each run. Its settings: ``targets``, ``rank`` (None where every weight was trained),
        ``alpha``, ``lr``, ``seed``. Its results: how many ``parameters`` were trained; the loss in
        nats per character on ``validation``, which chose the learning rate, on ``test``, and on
        held-out ``austen``; of the first ten directions of each matrix, how many are ``intruders``;
        the rank that has 90 % of an update's energy (``rank_90``); ``seconds`` of training.

    See Also
    --------
    lora_np.language.finetune : One run.

    Notes
    -----
    ``recipes/adaptation.py`` in the repository made them, and holds every setting.

    Examples
    --------
    >>> runs = adaptation_runs()
    >>> counts = [run["parameters"] for run in runs]
    >>> min(counts) < 10_000 < max(counts)
    True
    """
    text = files("lora_np.course").joinpath("adaptation.json").read_text(encoding="utf-8")
    return list(json.loads(text)["runs"])


def claims() -> dict[str, dict[str, Any]]:
    """Load what papers say about LoRA and our verdicts, each claim by its name.

    Returns
    -------
    dict of str to dict
        In words: ``title``, ``paper``, ``refuted_by`` (what would contradict it), ``rule``,
        ``finding`` (one line), ``sentence`` (the verdict with its figures), ``limits``,
        ``advice``. As data: ``verdict``, and ``verdicts`` of both setups where there are two;
        ``figures``, each with its ``mean``, and ``low`` to ``high``, the interval of the mean;
        ``parts`` of the rule, each with its ``verdict``; ``headline``, the figure that stands for
        the claim, and ``words`` for it; ``methods``, each with the runs at every learning rate
        that was tried. Some have ``at scale``: the same for a second setup, a language model of 135
        million parameters, of as many seeds as have run.

    Raises
    ------
    FileNotFoundError
        If the package was installed without them.

    Notes
    -----
    ``python -m claims record`` in the repository makes them; ``claims/lab/protocol.py`` says how.

    Examples
    --------
    >>> claims()["double-quantisation"]["verdict"]
    'supported'
    """
    paths = carried("claims/results", "*.json")
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def copy_lessons(folder: str | os.PathLike[str]) -> tuple[list[Path], list[Path]]:
    """Copy each lesson into ``folder``, except where a file of that name exists.

    Parameters
    ----------
    folder : path
        Created if it does not exist.

    Returns
    -------
    written : list of Path
        Copies just made.
    kept : list of Path
        Existing files, which were kept.

    Raises
    ------
    OSError
        If the folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first, second = copy_lessons(folder), copy_lessons(folder)
    >>> first[0] == second[1], second[0]
    (True, [])
    """
    target = target_path(folder)
    return write_new({target / lesson.name: lesson.read_text("utf-8") for lesson in lessons()})


def open_lab(
    folder: str | os.PathLike[str], *, browser: bool = True, port: int | None = None
) -> None:
    """Serve ``folder`` with JupyterLab until it is stopped, its first lesson open.

    Parameters
    ----------
    folder : path
        With the lessons in it.
    browser : bool
        Open a browser window; otherwise JupyterLab prints the address.
    port : int, optional
        By default the first free one from 8888 on.

    Raises
    ------
    ModuleNotFoundError
        If JupyterLab is not installed: it comes with the extra ``notebooks``.
    """
    LabApp = needed(
        "jupyterlab.labapp", extra="notebooks", why="JupyterLab is not installed here"
    ).LabApp
    first = sorted(Path(folder).glob("*.ipynb"))[:1]
    options = [f"--ServerApp.root_dir={Path(folder).resolve()}"]
    options += [f"--LabApp.default_url=/lab/tree/{lesson.name}" for lesson in first]
    if not browser:
        options.append("--no-browser")
    if port is not None:
        options += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        # In a container one is root. The server listens on this machine only, and requires its
        # token.
        options.append("--allow-root")
    LabApp.launch_instance(options)
