"""Loss against learning rate: a chart for each task of a claim, with names at the lines' ends.

More than six methods get a small chart each, on the same axes. LoRA and its variants have one
colour, the full update another; lines of one colour differ by their dashes.
"""

import math
import re
from collections import defaultdict
from typing import Any, NamedTuple

MANY = 6  # methods that one chart holds
DASHES = ("", "7 3", "2 3", "9 3 2 3", "1 4", "13 4")
NEITHER = re.compile(r"GaLore|\d+ entries of W")  # no LoRA, and no full update
LETTER, LINE = 6.4, 14  # pixels: the width of a letter of a name, and its height


class Curve(NamedTuple):
    """The mean losses of a method at the learning rates at which all its runs ended."""

    name: str
    best: float
    points: list[tuple[float, float]]


def average(values: list[float | None]) -> float | None:
    """The mean to five digits, or None where a run diverged."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return None
    return float(f"{sum(known) / len(known):.5g}")


def tasks(claim: dict[str, Any]) -> dict[str, list[Curve]]:
    """The curves of a claim by the task that its methods name first."""
    found = defaultdict(list)
    for whole, sweep in claim.get("methods", {}).items():
        task, _, name = whole.rpartition(": ")
        means = ((rate, average(runs.get("test", []))) for rate, runs in sweep["rates"].items())
        points = sorted((float(rate), loss) for rate, loss in means if loss is not None)
        if points:
            found[task].append(Curve(name, sweep["best"], points))
    return dict(found)


def charts(curves: list[Curve]) -> list[dict[str, Any]]:
    """One chart of all methods, or one for each of many."""
    if len(curves) <= MANY:
        return [chart(curves, curves, title="")]
    return [chart([one], curves, title=one.name) for one in curves]


def chart(drawn: list[Curve], scale: list[Curve], *, title: str) -> dict[str, Any]:
    """The places of what is drawn, on the axes that suit all of ``scale``."""
    named = 0 if title else round(LETTER * max(len(one.name) for one in drawn)) + 26
    width, height = (270, 150) if title else (max(400, 260 + named), 220)
    left, right, top, bottom = 54, width - max(named, 10), 24, height - 36
    floor, ceiling = limits(scale)
    inside = [x for one in scale for x, _ in near(one.points, ceiling)]
    x0, x1 = math.log10(min(inside)) - 0.08, math.log10(max(inside)) + 0.08
    pad = 0.06 * (ceiling - floor)

    def at_x(x: float) -> float:
        return round(left + (math.log10(x) - x0) / (x1 - x0) * (right - left), 1)

    def at_y(y: float) -> float:
        return round(top + (ceiling - y) / (ceiling - floor + pad) * (bottom - top), 1)

    digits = 3 if ceiling - floor > 0.03 * abs(ceiling) else 4  # so that no two labels are alike
    least = 1e-3 * abs(ceiling)  # below it is zero, whose digits would be many
    heights = [y if abs(y) > least else 0.0 for y in (floor, (floor + ceiling) / 2, ceiling)]
    rates = [10.0**power for power in range(math.ceil(x0), math.floor(x1) + 1)]
    rates = rates if len(rates) > 1 else sorted({*inside})
    lines = [line(one, scale, ceiling, at_x, at_y) for one in drawn]
    if not title:
        name_ends(lines, right, top, bottom)
    return {
        "width": width,
        "height": height,
        "left": left,
        "right": right,
        "top": top,
        "bottom": bottom,
        "title": title,
        "xs": apart([(at_x(x), f"{x:.2g}") for x in rates]),
        "ys": [(at_y(y), f"{y:.{digits}g}") for y in heights],
        "lines": lines,
    }


def apart(labels: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Those labels that have room beside the one before."""
    kept: list[tuple[float, str]] = []
    for x, text in labels:
        if not kept or x - kept[-1][0] > LETTER * len(text):
            kept.append((x, text))
    return kept


def limits(curves: list[Curve]) -> tuple[float, float]:
    """The lowest and the highest loss that is drawn: what lies above gets a mark at the edge."""
    lows = [min(y for _, y in one.points) for one in curves]
    thirds = max(sorted(y for _, y in one.points)[:3][-1] for one in curves)
    floor = min(lows)
    return floor, min(thirds, floor + 4 * max(max(lows) - floor, 0.25 * max(abs(floor), 1e-9)))


def near(points: list[tuple[float, float]], ceiling: float) -> list[tuple[float, float]]:
    """Points up to the ceiling, and on each side the first that is above it."""
    inside = [i for i, (_, y) in enumerate(points) if y <= ceiling]
    return points[max(inside[0] - 1, 0) : inside[-1] + 2]


def kind(name: str) -> str:
    """Whose colour a method has."""
    if re.search(r"\bfull\b", name):
        return "full"
    return "neither" if NEITHER.match(name) else "lora"


def line(curve: Curve, scale: list[Curve], ceiling: float, at_x: Any, at_y: Any) -> dict[str, Any]:
    """A curve as it is drawn."""
    alike = [one.name for one in scale if kind(one.name) == kind(curve.name)]
    points = near(curve.points, ceiling)
    inside = [(at_x(x), at_y(y), math.isclose(x, curve.best)) for x, y in points if y <= ceiling]
    return {
        "name": curve.name,
        "kind": kind(curve.name),
        "dashes": DASHES[alike.index(curve.name)] if len(scale) <= MANY else "",
        "path": " ".join(f"{x},{y}" for x, y, _ in inside),
        "points": inside,
        "above": [(at_x(x), f"{y:.3g}") for x, y in points if y > ceiling],
        "label": None,
    }


def name_ends(lines: list[dict[str, Any]], right: float, top: float, bottom: float) -> None:
    """Write the names beside the right ends, one below the other where ends are close."""
    order = sorted(lines, key=lambda one: one["points"][-1][1])
    heights: list[float] = []
    for one in order:
        least = heights[-1] + LINE if heights else top
        heights.append(max(one["points"][-1][1], least))
    heights = [min(y, bottom - LINE * (len(order) - 1 - i)) for i, y in enumerate(heights)]
    for one, y in zip(order, heights, strict=True):
        x, end, _ = one["points"][-1]
        one["label"] = (right + 16, round(y + 4, 1))
        one["leader"] = f"M{x + 5:.1f} {end}L{right + 13} {round(y, 1)}"
