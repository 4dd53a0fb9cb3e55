"""Take the definitions out of Ambrose Bierce's Devil's Dictionary, as the package ships them.

    apt-get download dict-devil && dpkg -x dict-devil_*.deb .
    python -m recipes.texts usr/share/dictd/devil.dict.dz > devils-dictionary.txt

The book (1911) is in the public domain, and the Debian package says so.
"""

from __future__ import annotations

import argparse
import gzip
import re
from pathlib import Path

HEADWORD = r"[A-Z][A-Z' .-]+(?: or [A-Z' -]+)?, ?(?:n\.|v\.|adj|adv|pro|pp|interj|[a-z]+\.)"
# entries that are not shipped
INSULTS = ("AFRICAN", "FEMALE", "HEBREW", "INFIDEL", "MINSTREL", "NEGRO")


def definitions(text: str) -> str:
    """The prose of all entries in the lines of the book, a blank line between two; verse is
    indented.
    """
    entries = re.split(rf"\n\n(?={HEADWORD})", text)[1:]  # the first is the preface
    prose = [
        re.sub(r"(?m)^ +.*$", "", entry).strip()
        for entry in entries
        if not entry.startswith(INSULTS)
    ]
    said = [entry for entry in prose if "  " in entry]  # of some, verse was all
    return "\n\n".join(re.sub(r" *\n(\s*\n)?", "\n", entry) for entry in said) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dictionary", type=Path, help="devil.dict.dz of the package dict-devil")
    print(
        definitions(gzip.decompress(parser.parse_args().dictionary.read_bytes()).decode("ascii")),
        end="",
    )


if __name__ == "__main__":
    main()
