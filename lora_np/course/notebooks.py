"""The lessons that come with the package: copied to a folder, and opened in JupyterLab."""

from __future__ import annotations

import os
from pathlib import Path

from lora_np.files import target_path, write_new


def lessons() -> list[Path]:
    """The notebooks, in the order of the course.

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
    """Files that a wheel carries inside the package, and that are next to it in a checkout."""
    package = Path(__file__).parents[1]
    for place in (package, package.parent):
        if found := sorted((place / folder).glob(names)):
            return found
    raise FileNotFoundError(f"{folder} is missing from this installation of lora_np in {package}")


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


def open_lab(folder: str | os.PathLike[str], *, browser: bool = True, port: int | None = None) -> None:
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
    try:
        from jupyterlab.labapp import LabApp
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "JupyterLab is not installed here: pip install 'lora-np[notebooks]'", name="jupyterlab"
        ) from None
    first = sorted(Path(folder).glob("*.ipynb"))[:1]
    options = [f"--ServerApp.root_dir={Path(folder).resolve()}"]
    options += [f"--LabApp.default_url=/lab/tree/{lesson.name}" for lesson in first]
    if not browser:
        options.append("--no-browser")
    if port is not None:
        options += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        # In a container one is root. The server listens on this machine only, and requires its token.
        options.append("--allow-root")
    LabApp.launch_instance(options)
