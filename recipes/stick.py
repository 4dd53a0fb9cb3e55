r"""Make a folder that runs lora_np without installation: from a USB stick, or copied to a laptop.

    python -m recipes.stick FOLDER
    python -m recipes.stick FOLDER --for windows-amd64-3.13 --for macos-arm64-3.13

The first command makes it for computers with this system and version of Python, the second for
others; both can write into one folder. ``./lora-np puzzles`` then runs there (in PowerShell
``.\lora-np puzzles``). Making it needs pip and the network, running it needs Python alone.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from recipes import launcher

ROOT = Path(__file__).parents[1]
# What pip calls the systems. Newer wheels of Linux name the version of its C library. What only
# Windows needs (colorama) pip leaves out elsewhere; click and tqdm can do without.
PLATFORMS = {
    "windows": ("win_{}",),
    "macos": ("macosx_11_0_{}",),
    "linux": ("manylinux_2_28_{}", "manylinux_2_27_{}", "manylinux2014_{}"),
}
COMPUTER = re.compile(rf"({'|'.join(PLATFORMS)})-(amd64|arm64|x86_64|aarch64)-(3\.\d+)")
COMMANDS = {
    "lora-np": '#!/bin/sh\nexec python3 "$(dirname "$0")/lora-np.py" "$@"\n',
    "lora-np.cmd": '@py "%~dp0lora-np.py" %*\r\n',
}


def options(computer: str) -> list[str]:
    """Return what makes pip choose wheels for a computer, named as by `launcher.computer`."""
    if computer == launcher.computer():
        return []
    named = COMPUTER.fullmatch(computer)
    if not named:
        raise SystemExit(
            f"stick: --for takes names such as windows-amd64-3.13, macos-arm64-3.13 or "
            f"linux-x86_64-3.12, got {computer!r}"
        )
    system, machine, version = named.groups()
    platforms = [option.format(machine) for option in PLATFORMS[system]]
    chosen = [word for option in platforms for word in ("--platform", option)]
    return ["--only-binary", ":all:", "--python-version", version, *chosen]


def make(folder: Path, computers: Sequence[str]) -> None:
    """Write the packages for each computer, and the commands that start them."""
    chosen = {computer: options(computer) for computer in computers}
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as wheels:
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", wheels, ROOT], check=True)
        (wheel,) = Path(wheels).glob("*.whl")
        for computer, options_ in chosen.items():
            target = folder / "packages" / computer
            install = [*pip, "install", "--upgrade", "--no-compile", "--target", str(target)]
            subprocess.run([*install, *options_, str(wheel)], check=True)
    shutil.copy(launcher.__file__, folder / "lora-np.py")
    for name, text in COMMANDS.items():
        file = folder / name
        file.write_text(text, encoding="ascii", newline="")
        file.chmod(0o755)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--for", dest="computers", action="append", metavar="SYSTEM-PROCESSOR-PYTHON",
        help=f"repeatable; without it, this computer: {launcher.computer()}",
    )  # fmt: skip
    given = parser.parse_args()
    computers = given.computers or [launcher.computer()]
    make(given.folder, computers)
    print(f"{given.folder} runs on {', '.join(computers)}: {given.folder / 'lora-np'} puzzles")


if __name__ == "__main__":
    main()
