"""``python -m claims``: run claims, in full or quickly, and check what is recorded."""

from __future__ import annotations

import argparse
import json

import claims
from claims import defaults, protocol, redrawn


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m claims", description=claims.__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("command", choices=["list", "run", "check", "reword", "sweep"])
    parser.add_argument("name", nargs="*", help="all by default")
    parser.add_argument(
        "--quick", action="store_true", help="run quickly, at the recorded learning rates"
    )
    parser.add_argument(
        "--half", type=int, choices=[0, 1], help="1: claims whose setup is text, 0: the others"
    )
    parser.add_argument(
        "--other-seeds", action="store_true", help="in full, with five seeds that never ran"
    )
    parser.add_argument(
        "--again", action="store_true", help="figures anew, from the runs that are recorded"
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
    if unknown := set(args.name) - set(claims.names()):
        parser.error(f"no claim is called {min(unknown)!r}; python -m claims list names them")
    wrong = []
    for name in args.name or claims.names():
        claim = claims.claim(name)
        if args.half is not None and claim.setup.startswith("language") != bool(args.half):
            continue
        if args.command == "list":
            print(f"{name:26} {claim.title}")
            continue
        if args.command == "reword":
            protocol.reword(name, claim)
            continue
        if args.command == "check":
            wrong += check(name, claim)
            continue
        found = protocol.record(
            name, claim, quick=args.quick, others=args.other_seeds, again=args.again
        )
        print(f"{name} ({found['seconds']:.0f} s): {found['sentence']}", flush=True)
        for figure, numbers in found["figures"].items():
            print(
                f"    {figure} = {numbers['mean']} ({numbers['low']} to {numbers['high']})",
                flush=True,
            )
    if wrong:
        raise SystemExit("\n".join(wrong))


def check(name: str, claim: protocol.Claim) -> list[str]:
    """What is not as it is recorded: the quick verdict, or a figure outside its interval."""
    recorded = json.loads((protocol.RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    found = protocol.tried(claim, protocol.Lab(quick=True, recorded=recorded))
    expected = recorded["quick"]
    wrong = []
    # a quick run that is too short to agree with the full one shows nothing, and is not held to it
    if found["verdict"] != expected["verdict"] == recorded["verdict"]:
        wrong.append(
            f"{name}: the verdict is {found['verdict']!r}, recorded: {expected['verdict']!r}"
        )
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


if __name__ == "__main__":
    main()
