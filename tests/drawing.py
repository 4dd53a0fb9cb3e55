"""How much of a long sweep a run takes: a fixed twentieth, or all of it where LORA_NP_FULL=1."""

import os

import pytest

FULL = os.environ.get("LORA_NP_FULL") == "1"
SHARE = 20

#: For what only a full run does.
only_full = pytest.mark.skipif(not FULL, reason="with LORA_NP_FULL=1")


def twentieth(cases):
    """One case in twenty, the same ones in every run; all of them in a full run."""
    cases = list(cases)
    return cases if FULL else cases[SHARE // 2 :: SHARE] or cases[:1]
