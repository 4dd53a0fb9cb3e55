"""Write version and addresses into CITATION.cff, how to install into README.md: python
docs/_ext/citation.py
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from hatch_build import installable, package, publication  # noqa: E402
from lora_np.version import __version__  # noqa: E402


def written(text: str, version: str, repository: str, site: str) -> str:
    """``text`` with this version, and with the two addresses or without, if they are empty."""
    text = re.sub(r"(?m)^(url|repository-code): .*\n", "", text)
    lines = f"version: {version}\n"
    if site:
        lines += f'url: "{site}"\n'
    if repository:
        lines += f'repository-code: "https://github.com/{repository}"\n'
    return re.sub(r"(?m)^version: .*\n", lines, text)


def readme(text: str, package: str, site: str) -> str:
    """``text`` with the package and the site where they are to be found."""
    place = "[build the site](CONTRIBUTING.md#the-site)"
    if site:
        place = f"[the puzzles and the course]({site}), [Does it fit my GPU?]({site}use/fit.html)"
    text = re.sub(r"(?<=\*\*Try it in the browser\*\*: ).*?(?=, or read )", place, text)
    return installable(text, package)


if __name__ == "__main__":
    path = ROOT / "CITATION.cff"
    path.write_text(
        written(path.read_text(encoding="utf-8"), __version__, *publication()), encoding="utf-8"
    )
    path = ROOT / "README.md"
    text = readme(path.read_text(encoding="utf-8"), package(), publication()[1])
    path.write_text(text, encoding="utf-8")
