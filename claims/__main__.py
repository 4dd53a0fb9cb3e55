"""``python -m claims``: train claims, show them, and check what is recorded."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import claims
from claims.lab import base_line, defaults, protocol, reach, recording, redrawn, tasks
from claims.lab.trial import read


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m claims", description=claims.__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("command", choices=[*COMMANDS, *FOR_ALL])
    parser.add_argument("name", nargs="*", help="all by default")
    parser.add_argument("--seeds", type=int, default=8, help="of run: how many (8)")
    parser.add_argument("--first", type=int, default=1000, help="of run: the first seed (1000)")
    parser.add_argument("--out", type=Path, help="of run: the folder that everything is written to")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="of record: in small, at the recorded learning rates; of run: the subset of a study",
    )
    parser.add_argument(
        "--again", action="store_true", help="of record: from the runs that are recorded"
    )
    parser.add_argument(
        "--half", type=int, choices=[0, 1], help="1: claims whose setup is text, 0: the others"
    )
    args = parser.parse_intermixed_args()
    if args.command == "sweep":
        setups = {*redrawn.METHODS, "kappa", "defaults"}
        if unknown := set(args.name) - setups:
            parser.error(
                f"no setup is called {min(unknown)!r}; there are {', '.join(sorted(setups))}"
            )
        for setup in args.name or sorted(setups):
            defaults.sweep() if setup == "defaults" else redrawn.sweep(setup)
        return
    asked = {*args.name} & {*claims.studies()}
    if args.command == "list" and not args.name:
        args.name, asked = [*claims.studies(), *claims.names()], {*claims.studies()}
    if unknown := {*args.name} - {*claims.names()} - asked:
        parser.error(f"no claim is called {min(unknown)!r}; python -m claims list names them")
    for name in [one for one in args.name if one in asked]:
        args.name.remove(name)
        of_study(name, args)
    if asked and not args.name:
        return
    if args.command == "run" and (args.out is None or not args.name or args.seeds < 2):
        parser.error("run wants the NAME of a claim, --out FOLDER, and at least 2 --seeds")
    if args.command == "run" and args.out.resolve().is_relative_to(claims.FOLDER):
        parser.error(
            f"--out {args.out} lies in claims/, whose files are recorded: name another folder"
        )
    if args.command == "reach":
        reach.record({name: claims.claim(name) for name in claims.names()})
        return
    if args.command in ("tasks", "untrained"):
        results = {name: recorded(name) for name in claims.names()}
        writer = tasks.record if args.command == "tasks" else base_line.record
        writer({name: claims.claim(name) for name in claims.names()}, results)
        return
    known = {name: claims.claim(name) for name in args.name or claims.names()}
    wrong: list[str] = []
    for name, claim in known.items():
        if args.half is None or claim.setup.startswith("language") == bool(args.half):
            wrong += COMMANDS[args.command](name, claim, args) or []
    if args.command == "run":
        print(f"{time.process_time():.1f} CPU seconds in all")
    if wrong:
        raise SystemExit("\n".join(wrong))


def run(name: str, claim: protocol.Claim, args: argparse.Namespace) -> None:
    """Train a claim with seeds of the reader's own."""
    begin = time.process_time()
    seeds = range(args.first, args.first + args.seeds)
    found = recording.train(claim, seeds, args.out)
    path = args.out / f"{name}.json"
    path.write_text(recording.compact(json.dumps(found, ensure_ascii=False, indent=1)), "utf-8")
    seconds = time.process_time() - begin
    said(name, found, f"{seconds:.1f} CPU seconds; {path}")
    print(f"    {compared(claim, found, recorded(name))}", flush=True)


def of_study(name: str, args: argparse.Namespace) -> None:
    """Show a study, or train its quick subset in memory."""
    study = claims.study(name)
    if args.command == "list":
        print(f"{name:26} {study.title}")
    elif args.command == "run" and args.quick:
        begin = time.process_time()
        study.run_quickly()
        print(f"{study.quick}\n{time.process_time() - begin:.1f} CPU seconds", flush=True)
    elif args.command == "show":
        said(name, study.record(name), "from the recorded runs")
    else:
        runs = f"python -m claims.{name.replace('-', '_')}_runs"
        raise SystemExit(
            f"{name} is a study, not a claim: show it, or run {name} --quick; {runs} goes on with what is missing"
        )


def compared(claim: protocol.Claim, found: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """The published verdict beside that of a run, and what as few seeds would have decided there."""
    alone, count = known.get("alone", known["verdict"]), len(found["seeds"])
    text = f"published: {known['verdict']}, from {len(known['seeds'])} seeds"
    if alone != known["verdict"]:
        text += f"; of the task that ran here: {alone}"
    if found["verdict"] == alone or count >= len(known["seeds"]):
        return text
    firsts = range(0, len(known["seeds"]) - count + 1, count)
    figures = read(claim, known["figures"])
    cut = lambda one, first: one._replace(values=one.values[first : first + count] or one.values)
    verdicts = [
        claim.rule.verdict({name: cut(one, first) for name, one in figures.items()})
        for first in firsts
    ]
    same = f"{verdicts.count(alone)} of {len(verdicts)} sets"
    return f"{text}. Fewer seeds decide less: by themselves, {count} recorded seeds give {alone!r} in {same}."


def recorded(name: str) -> dict[str, Any]:
    """The file of a claim."""
    known: dict[str, Any] = json.loads((recording.RESULTS / f"{name}.json").read_text("utf-8"))
    return known


def show(name: str, claim: protocol.Claim, args: argparse.Namespace) -> None:
    """Figures and verdict, from the runs that are recorded."""
    said(name, recording.show(name, claim), "from the recorded runs")


def record(name: str, claim: protocol.Claim, args: argparse.Namespace) -> None:
    """Write the file of a claim."""
    found = recording.record(name, claim, quick=args.quick, again=args.again)
    said(name, found, f"{found['seconds']:.0f} s")


def said(name: str, found: Mapping[str, Any], how: str) -> None:
    """Print figures and verdict."""
    print(f"{name} ({how}): {found['sentence']}")
    for figure, numbers in found["figures"].items():
        print(f"    {figure} = {numbers['mean']} ({numbers['low']} to {numbers['high']})")
    print(end="", flush=True)


def check(name: str, claim: protocol.Claim, args: argparse.Namespace | None = None) -> list[str]:
    """What is not as it is recorded: the quick verdict, or a figure outside its interval."""
    before = recorded(name)
    found = recording.tried(claim, protocol.Lab(quick=True, recorded=before))
    expected = before["quick"]
    wrong = []
    # a quick run that is too short to agree with the full one shows nothing, and is not held to it
    own = expected.get("found", expected["verdict"])  # what its figures gave
    if found["verdict"] != own == before["verdict"]:
        wrong.append(f"{name}: the verdict is {found['verdict']!r}, recorded: {own!r}")
    for figure, numbers in found["figures"].items():
        then = expected["figures"][figure]
        if numbers["mean"] is None or then["mean"] is None:
            outside = numbers["mean"] is not then["mean"]
        else:
            # an interval of two seeds is narrow, and another processor rounds otherwise
            room = (then["high"] - then["low"]) / 2 + 0.1 * max(abs(then["mean"]), 1e-3)
            outside = not then["low"] - room <= numbers["mean"] <= then["high"] + room
        if outside:
            wrong.append(
                f"{name}: {figure} = {numbers['mean']}, recorded: {then['low']} to {then['high']}"
            )
    print(f"{name}: {found['verdict']} ({found['seconds']:.1f} s)", flush=True)
    return wrong


FOR_ALL = (
    "reach",
    "tasks",
    "untrained",
    "sweep",
)  # commands that take all claims or setups together
Command = Callable[[str, protocol.Claim, argparse.Namespace], list[str] | None]
COMMANDS: dict[str, Command] = {
    "list": lambda name, claim, args: print(f"{name:26} {claim.title}"),
    "run": run,
    "show": show,
    "record": record,
    "check": check,
    "reword": lambda name, claim, args: recording.reword(name, claim),
}


if __name__ == "__main__":
    main()
