"""Regular expressions from files and users, in Python's syntax, that cannot backtrack endlessly.

Names are matched by Thompson's method (1968): all positions that the expression can have reached
advance together, here as the bits of one integer. The work is bounded and counted; Python's own
``re`` is used only if an expression leaves it almost no choices.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import import_module
from itertools import count
from math import inf
from typing import Any

_MAX_LENGTH = 4_000  # characters in an expression
_MAX_STEPS = 1_000_000  # of one expression over all names that it is asked about: about a second
_QUICK_NAME = 128  # characters in a name for which Python's re may be used
_QUICK_STEPS = 20_000_000  # of it in the worst case, at most: some tenths of a second
_ONE = ("LITERAL", "NOT_LITERAL", "ANY", "IN")  # what takes one character

_parser: Any = import_module("re._parser")  # Python's own reading of its syntax
_compile: Any = import_module("re._compiler").compile


class Expression:
    r"""Whether whole names match a regular expression, in bounded time.

    Parameters
    ----------
    text : str
        In the syntax of Python's ``re``, at most 4,000 characters. If it has many repeats or
        branches, or a repeated group, then flags, references to groups and possessive repeats are
        not supported.
    what : str
        What messages call it.
    end : bool
        Whether to match only the end of a name, from its start or from a dot on, as in PEFT's
        ``rank_pattern``.

    Raises
    ------
    ValueError
        If it is not a regular expression, or not one that can be matched in bounded time.

    See Also
    --------
    matcher : Which modules the targets of an adapter mean.

    Examples
    --------
    >>> Expression(r".*\.[qv]_proj").matches("model.layers.0.self_attn.q_proj")
    True
    >>> Expression("(a|a)*" * 20 + "b").matches("a" * 200)
    False
    """

    def __init__(self, text: str, *, what: str = "the expression", end: bool = False) -> None:
        self.text, self._what = text, what
        if len(text) > _MAX_LENGTH:
            raise ValueError(
                f"{what} must have at most {_MAX_LENGTH:,} characters, got {len(text):,}"
            )
        whole, starts = (rf"(?:.*\.)?(?:{text})", _QUICK_NAME + 2) if end else (text, 1)
        try:
            re.compile(text)  # by itself: "a)(b" is none
            self._tree: Any = _parser.parse(whole)
            self._quick = re.compile(whole) if starts * _steps(text) <= _QUICK_STEPS else None
        except (re.error, RecursionError, OverflowError, ValueError) as error:
            raise ValueError(
                f"{what} must be a regular expression, got {text!r} ({error})"
            ) from None
        self._taken = count()
        self._items: dict[int, re.Pattern[str]] = {}
        self._places: dict[int, int] = {}
        if self._quick is None:
            if self._tree.state.flags != re.UNICODE:
                raise self._refused("has flags")
            self.matches("")

    def matches(self, name: str) -> bool:
        """Whether the whole of ``name`` matches.

        Raises
        ------
        ValueError
            If the expression has used up its steps.
        """
        if self._quick is not None and len(name) <= _QUICK_NAME:
            return self._quick.fullmatch(name) is not None
        self._places = {}
        return bool(self._sequence(self._tree, 1, name) >> len(name))

    def _sequence(self, items: Iterable[Any], starts: int, name: str) -> int:
        """Where the items, one after the other, can end from any of ``starts``: positions are
        bits.
        """
        for item in items:
            # the empty name visits all of the tree, to meet what it holds
            if not starts and len(name):
                return 0
            if next(self._taken) > _MAX_STEPS:
                raise self._refused("takes too many steps")
            starts = self._item(item, starts, name)
        return starts

    def _item(self, item: tuple[Any, Any], starts: int, name: str) -> int:
        kind, what = str(item[0]), item[1]
        if kind in (*_ONE, "AT"):  # an anchor takes no character
            return (starts & self._where(item, name)) << (kind != "AT")
        if kind == "SUBPATTERN":
            _, added, removed, items = what
            if added or removed:
                raise self._refused("has flags")
            return self._sequence(items, starts, name)
        if kind == "BRANCH":
            ends = 0
            for items in what[1]:
                ends |= self._sequence(items, starts, name)
            return ends
        if kind in ("MAX_REPEAT", "MIN_REPEAT"):
            return self._repeat(what, starts, name)
        if kind in ("ASSERT", "ASSERT_NOT"):
            found = self._looked(what, starts, name)
            return starts & (found if kind == "ASSERT" else ~found)
        raise self._refused(f"holds {kind.lower().replace('_', ' ')}")

    def _where(self, item: tuple[Any, Any], name: str) -> int:
        """Where an item that takes one character, or an anchor, matches: bit i is of what follows
        position i.

        Such an item has no choices in it, so Python's ``re`` may match it.
        """
        if id(item) not in self._items:
            self._items[id(item)] = _compile(_parser.SubPattern(self._tree.state, [item]))
        if id(item) not in self._places:
            match = self._items[id(item)].match
            self._places[id(item)] = sum(1 << i for i in range(len(name) + 1) if match(name, i))
        return self._places[id(item)]

    def _repeat(self, what: tuple[int, int, Any], starts: int, name: str) -> int:
        least, most, items = what
        for _ in range(min(least, len(name) + 1)):  # after that many, more change nothing
            starts = self._sequence(items, starts, name)
        found = starts
        for _ in range(min(most - least, len(name) + 1)):
            starts = self._sequence(items, starts, name) & ~found
            if not starts:
                break
            found |= starts
        return found

    def _looked(self, what: tuple[int, Any], starts: int, name: str) -> int:
        """The positions before (or, for a negative direction, after) which the items match."""
        direction, items = what
        if direction < 0:
            return self._sequence(items, (1 << len(name) + 1) - 1, name)
        places = (place for place in range(len(name) + 1) if starts >> place & 1)
        return sum(1 << place for place in places if self._sequence(items, 1 << place, name))

    def _refused(self, why: str) -> ValueError:
        advice = "write it with fewer repeats and branches, or as a list of names"
        said = f"{self._what} {self.text!r} {why}"
        return ValueError(f"{said}, which cannot be matched in bounded time; {advice}")


def _steps(text: str) -> Any:
    """How many steps ``re`` may take, at most: infinitely many if a group is, or may be,
    repeated.
    """
    text = re.sub(r"\\\D", "a", text)
    if re.search(r"\)[*+{]|\(\?(#|[a-zA-Z-]*x)", text):  # spaces and comments could hide it
        return inf
    repeats = len(re.findall(r"\\\d|\(\?P=|(?<!\()[*+?{][?+]?", text))
    branches, groups = text.count("|") + 1, text.count("(")
    return (_QUICK_NAME + 1) ** repeats * branches ** min(branches - 1, max(groups, 1)) * len(text)
