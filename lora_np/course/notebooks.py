"""Find, copy and open the lessons, and load the recorded runs and claims."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from lora_np.checks import needed
from lora_np.files import target_path, write_new


def lessons() -> list[Path]:
    """List the notebooks in the order of the course.

    A wheel contains them inside the package; in a checkout they are next to it.

    Returns
    -------
    list of Path
        The paths of the notebooks.

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
    """List files in ``folder`` that match ``names``; the folder is in the package or next to it."""
    package = Path(__file__).parents[1]
    for place in (package, package.parent):
        if paths := sorted((place / folder).glob(names)):
            return paths
    raise FileNotFoundError(f"{folder} is missing from this installation of lora_np in {package}")


def adaptation_runs() -> list[dict[str, Any]]:
    """Load recorded training runs on Genesis: many ranks, targets, learning rates and random seeds.

    Returns
    -------
    list of dict
        The runs. The settings of a run are ``targets``, ``rank`` (None for full fine-tuning),
        ``alpha``, ``lr`` and ``seed``. The results are the number of trainable ``parameters``; the
        loss in nats per character on ``validation`` data, which chose the learning rate, on
        ``test`` data, and on held-out ``austen``; the number of ``intruders`` among the first ten
        directions of each matrix; the rank that keeps 90 % of an update's energy (``rank_90``); and
        the ``seconds`` of training.

    See Also
    --------
    lora_np.language.finetune : Do such a run.

    Notes
    -----
    ``recipes/adaptation.py`` in the repository made the runs, and contains all settings.

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
    """Load published claims about LoRA, each with the verdict of this package's experiments.

    Returns
    -------
    dict of str to dict
        From the name of a claim to its texts and data. Texts: ``title``, ``paper``, ``refuted_by``
        (a result that would contradict it), ``rule``, ``finding`` (one line), ``sentence`` (the
        verdict with its figures), ``limits``, ``advice``. Data: ``verdict``, and ``verdicts`` for
        claims with two setups; ``figures``, each with its ``mean`` and the interval of the mean
        from ``low`` to ``high``; ``parts`` of the rule, each with its ``verdict``; ``headline``,
        the main figure, and ``words`` for it; ``methods``, each with the runs at every learning
        rate. Some claims have ``at scale``, the same data for a second setup: a language model of
        135 million parameters, with as many seeds as have run.

    Raises
    ------
    FileNotFoundError
        If the package was installed without them.

    Notes
    -----
    ``python -m claims record`` in the repository computes them by the rules in
    ``claims/lab/protocol.py``.

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
        The folder to copy to, which is created if it does not exist.

    Returns
    -------
    written : list of Path
        The new copies.
    kept : list of Path
        The existing files, which were not changed.

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
    """Open the first lesson in JupyterLab, and serve ``folder`` until the server is stopped.

    Parameters
    ----------
    folder : path
        The folder with the lessons.
    browser : bool
        Open a browser window; otherwise JupyterLab prints the address.
    port : int, optional
        The port; by default the first free one from 8888 on.

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
        # Containers usually run as root. Allowing root is safe, because the server listens only on
        # this machine and requires a token.
        options.append("--allow-root")
    LabApp.launch_instance(options)
