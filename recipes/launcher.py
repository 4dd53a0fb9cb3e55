"""Run lora_np from the folder in which this file lies: python lora-np.py puzzles

`recipes.stick` made the folder. Nothing is installed.
"""

import os
import platform
import sys
import sysconfig
from pathlib import Path

SYSTEMS = {"win32": "windows", "darwin": "macos"}


def computer() -> str:
    """Name what compiled packages depend on: the system, its processor, and Python's version."""
    machine = sysconfig.get_platform().rpartition("-")[2]
    if machine.startswith("universal"):  # a Python for both processors of a Mac
        machine = platform.machine()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return f"{SYSTEMS.get(sys.platform, sys.platform)}-{machine}-{version}"


def main() -> None:
    packages = Path(__file__).resolve().parent / "packages"
    found = packages / computer()
    if not found.is_dir():
        made = ", ".join(sorted(path.name for path in packages.iterdir()))
        sys.exit(
            f"lora-np: this folder has no packages for {computer()} (system, processor, version of "
            f"Python), only for {made}. To add them: python -m recipes.stick FOLDER "
            f"--for {computer()}"
        )
    sys.path.insert(0, str(found))
    os.environ["PYTHONPATH"] = str(found)  # for the processes that lora_np starts
    from lora_np.__main__ import main as run

    run()


if __name__ == "__main__":
    main()
