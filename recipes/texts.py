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
VERSE = r"\n {2,}"  # verse and its author are indented
INSULTS = ("AFRICAN", "HEBREW", "INFIDEL", "MINSTREL", "NEGRO")  # what these say of peoples is not shipped


def definitions(text: str) -> str:
    """Entries without verse, in the order and the lines of the book, a blank line between two."""
    entries = re.split(rf"\n\n(?={HEADWORD})", text)[1:]  # the first is the preface
    kept = [e.strip() for e in entries if not (re.search(VERSE, e.strip()) or e.startswith(INSULTS))]
    return "\n\n".join(re.sub(r" +\n", "\n", entry) for entry in kept) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dictionary", type=Path, help="devil.dict.dz of the package dict-devil")
    print(definitions(gzip.decompress(parser.parse_args().dictionary.read_bytes()).decode("ascii")), end="")


if __name__ == "__main__":
    main()
