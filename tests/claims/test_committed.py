"""Studies whose rule was committed first: their cards say what is recorded, beside the claims."""

import json
import re
from dataclasses import replace

import pytest

import claims
import lora_np as lnp
from claims.__main__ import main
from claims.lab import protocol
from lora_np.cli import run

KNOWN = claims.study_records()


def commanded(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["python -m claims", *arguments])
    main()


def test_studies_stand_beside_the_claims_and_are_not_counted_with_them():
    assert sorted(KNOWN) == claims.studies() == ["rate-law", "reward-rank"]
    assert not {*KNOWN} & {*claims.names(), *claims.records()}
    assert {*KNOWN} | {*claims.records()} == {*lnp.course.claims()}
    for record in KNOWN.values():
        assert (protocol.HERE.parent / "docs" / f"{record['study']}.md").exists()


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_a_card_says_what_is_recorded(name):
    """python -m claims.NAME_runs --page writes it."""
    found = claims.study(name).record(name)
    assert found == KNOWN[name]
    assert found["headline"] in found["figures"]
    assert found["meaning"].keys() == found["figures"].keys()
    for figure in found["figures"].values():
        assert figure["low"] <= figure["mean"] <= figure["high"]
    assert all(len(label.split()) >= 5 for label in found["meaning"].values())
    assert 4 <= len(found["words"].split()) <= 12


def test_the_command_lists_and_shows_studies(capsys):
    assert run(["claims"]) == 0
    shown = capsys.readouterr().out
    for name, record in KNOWN.items():
        assert f"{name} " in shown
        assert record["title"] in shown
        assert run(["claims", name, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["title"] == record["title"]
        assert run(["claims", name]) == 0
        one = capsys.readouterr().out
        for part in ("verdicts", "finding", "sentence", "rule", "limits", "advice"):
            assert record[part] in one


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_a_quick_run_says_what_its_subset_can_and_cannot_tell(name, monkeypatch, capsys):
    study, ran = claims.study(name), []
    quick = replace(study, run_quickly=lambda: ran.append(name))
    monkeypatch.setattr(claims, "study", {name: quick}.__getitem__)
    commanded(monkeypatch, "run", name, "--quick")
    assert ran == [name]
    assert study.quick in capsys.readouterr().out
    assert re.search(r"can tell that .*\. It cannot tell ", study.quick)
    with pytest.raises(SystemExit, match="is a study, not a claim"):
        commanded(monkeypatch, "run", name, "--out", "x")


def test_the_list_and_show_have_studies_too(monkeypatch, capsys):
    commanded(monkeypatch, "list")
    said = capsys.readouterr().out
    assert all(name in said for name in (*claims.studies(), *claims.names()))
    commanded(monkeypatch, "show", "reward-rank")
    assert KNOWN["reward-rank"]["sentence"] in capsys.readouterr().out


@pytest.mark.slow
def test_the_quick_runs_of_both_studies_take_three_minutes_of_two_cores(monkeypatch, capsys):
    commanded(monkeypatch, "run", *claims.studies(), "--quick")
    said = capsys.readouterr().out
    seconds = [float(number) for number in re.findall(r"([\d.]+) CPU seconds", said)]
    assert len(seconds) == 2
    assert max(seconds) < 180  # the studies run side by side
    slope = float(re.search(r"falls as alpha\^(-[\d.]+)", said)[1])
    assert -1 < slope < -0.2
    one, full = (
        float(re.search(rf"rank {rank}, \(16, 22, 60\): ([\d.]+)", said)[1])
        for rank in ("1", "full")
    )
    assert one < 0.3 < 0.6 < full
