"""The order of a rule and its runs, as git remembers it."""

import json
import subprocess

import pytest

from claims.lab import kept


def need_history():
    """Skip where there is none: an archive of the sources, or a shallow clone."""
    try:
        shallow = kept.git("rev-parse", "--is-shallow-repository")
    except (subprocess.CalledProcessError, FileNotFoundError):
        shallow = "true"
    if shallow == "true":
        pytest.skip("this copy has no history")


def follows(name, rule_name):
    """Every line carries a commit in which the rule is what it is now, and which is older than the
    first commit of the lines.
    """
    path = kept.RUNS / name
    if not path.exists():
        pytest.skip(f"{name}: nothing is recorded yet")
    commits = {json.loads(line)["rule"] for line in path.read_text().splitlines()}
    assert len(commits) == 1, "one rule for all lines"
    file = f"claims/{rule_name}"
    need_history()
    for commit in commits:
        then = subprocess.run(
            ["git", "show", f"{commit}:{file}"],
            cwd=kept.HERE.parent,
            capture_output=True,
            check=True,
        )
        assert then.stdout == (kept.HERE / rule_name).read_bytes(), "the rule has changed since"
        recorded = kept.git("log", "--format=%H", "--", f"claims/runs/{name}").splitlines()
        for later in recorded:
            kept.git("merge-base", "--is-ancestor", commit, later)  # fails if it is not
            assert not later.startswith(commit), "the rule was committed together with its runs"


def on_page(page, name):
    """What stands between the comments of a part of a page."""
    text = page.read_text(encoding="utf-8")
    _, _, rest = text.partition(f"<!-- {name} -->")
    part, found, _ = rest.partition(f"<!-- end of {name} -->")
    assert found, name
    return part.strip()
