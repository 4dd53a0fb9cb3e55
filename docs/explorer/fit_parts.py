"""What modules that are chosen one by one take, as parts that the page Fit adds up: python
docs/explorer/fit_parts.py > fit-parts.json

Most of a model's terms are sums over the names that are adapted. The others are unions: layers that
share an input keep it once, and what lies above the lowest adapter is kept as soon as anything is
adapted there. So a part counts once, if one name of each of its groups is chosen. Which groups
there may be follows from the model; what each part takes is solved for, and checked. What DoRA adds
comes in parts of its own.
"""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import combinations, permutations, product
from pathlib import Path
from typing import Any

import numpy as np

from lora_np import models
from lora_np.accounting import count_model
from lora_np.accounting.lora import AdaptedModules
from lora_np.models import ATTENTION, ModelSpec

sys.path.insert(0, str(Path(__file__).parents[1] / "browser"))
import terms

DRAWN = 6  # choices for which the sum is checked beside those that it is solved from
Way = dict[str, Any]  # the terms of a choice, as terms.way gives them
Groups = tuple[tuple[str, ...], ...]


def data() -> dict[str, list[list[Any]]]:
    """The parts of each preset."""
    return {name: parts(models.preset(name)) for name in models.preset_names()}


def parts(spec: ModelSpec) -> list[list[Any]]:
    """Parts of LoRA and of what DoRA adds: groups of names, and terms or why they are refused; a
    third list names what must not be chosen for the part to count.
    """
    units = units_of(spec)
    refused: list[list[Any]] = []
    for names in units:
        for name, other in permutations(names, 2):
            refused.append([[[name]], why(spec, [name]), [other]])
    way = cache(lambda names, dora: terms.way(spec, targets=[*names], dora=dora))

    def adds(names: tuple[str, ...]) -> Way:
        return difference(way(names, True), way(names, False))

    found = []
    for dora in (False, True):
        reasons = {names: why(spec, names, dora=dora) for names in units}
        refused += [[[[names[0]]], reason] for names, reason in reasons.items() if reason]
        units = [names for names in units if not reasons[names]]
        ask = adds if dora else lambda names: way(names, False)
        found.append([*refused, *solved(spec, units, ask)])
        refused = []
    return found


def units_of(spec: ModelSpec) -> list[tuple[str, ...]]:
    """The names that can be adapted; those of one fused parameter are adapted together."""
    fused = spec.fused or {}
    units: dict[str, list[str]] = {}
    for name in terms.names_of(spec):
        units.setdefault(fused.get(name, name), []).append(name)
    return [tuple(names) for names in units.values()]


def why(spec: ModelSpec, names: Iterable[str], *, dora: bool = False) -> str:
    """Why the package refuses to adapt these, if it does."""
    try:
        count_model(spec, rank=1, targets=[*names], dora=dora)
    except (ValueError, TypeError) as error:
        return str(error)
    return ""


def difference(found: Way, without: Way) -> Way:
    """What DoRA adds, as far as these are sums; its lines as they are."""
    t = [row for row in found["t"] if row not in without["t"]]
    by = {
        name: [more - less for more, less in zip(sums, without["by"][name], strict=True)]
        for name, sums in found["by"].items()
    }
    rows = np.subtract(flat(found, found["k"]), flat(without, found["k"]))
    return {"t": t, "by": by, "d": found["d"], **unflat(rows.tolist(), found["k"])}


def solved(
    spec: ModelSpec, units: list[tuple[str, ...]], ask: Callable[[tuple[str, ...]], Way]
) -> list[list[Any]]:
    """List groups of names and their terms, of which `ask` gives the sums."""
    first = [names[0] for names in units]  # which stands for all of its unit
    adapters = {
        names[0]: [*count_model(spec, rank=1, targets=[*names]).adapters] for names in units
    }
    groups = candidates(spec, adapters)
    rng = np.random.default_rng(0)
    chosen: list[Sequence[str]] = []
    for some in [first, *([name] for name in first), *combinations(first, 2)]:
        if np.linalg.matrix_rank(met([*chosen, some], groups)) > len(chosen):
            chosen.append(some)
    more = [[name for name in first if rng.integers(2)] or first for _ in range(DRAWN)]
    names_of = {names[0]: names for names in units}
    asked = [tuple(sorted(sum((names_of[name] for name in some), ()))) for some in [*chosen, *more]]
    ways = [ask(names) for names in asked]
    full = ways[0]["k"]
    used: list[int] = []
    for i in range(len(groups)):
        if np.linalg.matrix_rank(met(chosen, [groups[j] for j in (*used, i)])) > len(used):
            used.append(i)
    kept = [groups[i] for i in used]
    want = np.array([flat(found, full) for found in ways])
    takes = np.rint(np.linalg.solve(met(chosen, kept), want[: len(chosen)])).astype(np.int64)
    if (met([*chosen, *more], kept).astype(np.int64) @ takes != want).any():
        raise AssertionError(f"the terms of {spec.name} are no sums over these groups: {kept}")
    alone = {some[0]: found for some, found in zip(chosen, ways, strict=False) if len(some) == 1}
    own: dict[tuple[tuple[str, ...], ...], Way] = {((name,),): owned(alone[name]) for name in first}
    for i, (group, row) in enumerate(zip(kept, takes.tolist(), strict=True)):
        shared = unflat(row, full)
        if any(row):  # the first part of any choice is whole
            own[group] = own.get(group, {}) | (shared if i == 0 else short(shared))
    return [[*part] for part in own.items()]


def owned(way: Way) -> Way:
    """What each name brings."""
    return {key: way[key] for key in ("t", "by", "limits", "wide", "d") if way.get(key)}


def met(choices: Iterable[Iterable[str]], groups: Iterable[Groups]) -> np.ndarray:
    """Of each choice, whether it has a name of each list of a group."""
    rows = [
        [all(not {*some}.isdisjoint(names) for names in group) for group in groups]
        for some in choices
    ]
    return np.array(rows, float)


def candidates(spec: ModelSpec, adapters: dict[str, list[AdaptedModules]]) -> list[Groups]:
    """Groups that may matter: how low in a stack the lowest is, shared inputs, each name."""
    found: list[list[list[str]]] = [[[*adapters]]]
    below: list[str] = []
    for stack in spec.layers:
        heights = {
            name: min(height(one) for one in inside)
            for name, own in adapters.items()
            if (inside := [one for one in own if one.module.name.startswith(f"{stack.prefix}.")])
        }
        reach = [
            [name for name in heights if heights[name] <= least]
            for least in sorted({*heights.values()})
        ]
        # the input of a router counts as often as the MLP is reached
        routers = [
            [name] for name in heights if any(one.module.kind == "router" for one in adapters[name])
        ]
        found += [[below], *([names] for names in reach)]
        found += [[*both] for both in product([below, *routers], reach)]
        below = [name for name in adapters if name in below or name in heights]
    shared: dict[tuple[str, int], list[str]] = {}
    for name, own in adapters.items():
        for module in (one.module for one in own):
            if module.role not in ("output", "down"):
                key = module.name.rpartition(".")[0], module.shape[-1]
                shared.setdefault(key, []).append(name)
    found += [[names] for names in shared.values()]
    found += [[[name]] for name in adapters]
    return [*dict.fromkeys(tuple(map(tuple, groups)) for groups in found if all(groups))]


def height(adapted: AdaptedModules) -> int:
    """Order the lowest module: in a layer attention is below the MLP, whose last is above it."""
    role = adapted.module.role
    return 2 * adapted.lowest + (0 if role in ATTENTION else 2 if role == "down" else 1)


def flat(way: Way, full: Way) -> list[int]:
    """The numbers that are no sums over names, in a row; of a stack that keeps nothing, zeros."""
    row: list[int] = []
    for kind, most in full.items():
        found = way["k"][kind]
        missing = [[layers, [], [], []] for layers, *_ in most["s"]]
        missing = missing[: len(most["s"]) - len(found["s"])]  # the first: nothing is below them
        row += four(found["o"])
        for layers, *sizes in [*missing, *found["s"]]:
            row += [layers, *(number for size in sizes for number in four(size))]
    return [*row, *four(way["c"]), *four(way["f"])]


def unflat(row: list[int], full: Way) -> Way:
    """`flat` undone."""
    numbers = iter(row)

    def take() -> list[int]:
        return terms.short([next(numbers) for _ in range(4)])

    kinds = {}
    for kind, most in full.items():
        outside = take()
        stacks = [[next(numbers), take(), take(), take()] for _ in most["s"]]
        kinds[kind] = {"o": outside, "s": stacks}
    return {"k": kinds, "c": take(), "f": take()}


def short(found: Any) -> Any:
    """Without what is empty."""
    if isinstance(found, dict):
        found = {key: short(value) for key, value in found.items()}
        return {key: value for key, value in found.items() if value}
    if isinstance(found, list):
        return terms.short([short(each) for each in found])
    return found


def four(numbers: list[int]) -> list[int]:
    return [*numbers, *[0] * (4 - len(numbers))]


def script() -> str:
    return json.dumps(data(), separators=(",", ":")) + "\n"


if __name__ == "__main__":
    print(script(), end="")
