"""Two points of `claims.rate_law_runs` again, by torch and PEFT: do both find the same best rate?

    python -m claims.rate_law_peft

It takes the seeds and learning rates around the best one that ours has recorded, and appends lines to
``runs/rate-law.peft.jsonl``. Start, windows, order and schedule are the same; see
`claims.lab.peft_runs`.
"""

from __future__ import annotations

import argparse

from claims.lab.peft_runs import PeftText
from claims.rate_law_runs import AGAIN, agreement


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m claims.rate_law_peft", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.parse_args()
    found = agreement(PeftText(steps=60))
    print(f"{len(found)} of {len(AGAIN)} points: {', '.join(f'{x:.2f}' for x in found)}")


if __name__ == "__main__":
    main()
