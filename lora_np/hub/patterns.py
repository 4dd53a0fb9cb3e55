"""Regular expressions from files and users, in Python's syntax, that cannot backtrack without end.

A name is matched as Thompson did it (1968): all positions that the expression can have reached are moved on
together, here as the bits of one integer. The work is bounded and counted; Python's own ``re`` is asked only
where an expression leaves it next to no choices.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from importlib import import_module
from itertools import count
from typing import Any

_MAX_LENGTH = 4_000  # characters in an expression
_MAX_STEPS = 1_000_000  # of one expression over all names that it is asked about: about a second
_QUICK_NAME = 1_000  # characters in a name for which Python's re may be asked
_QUICK_REPEATS = 2
_QUICK_BRANCHES = 8

_parser: Any = import_module("re._parser")  # Python's own reading of its syntax
_compile: Any = import_module("re._compiler").compile


class Expression:
    r"""Whether whole names match a regular expression, in bounded time.

    Parameters
    ----------
    text : str
        In the syntax of Python's ``re``, at most 4,000 characters. Where it has many repeats or branches,
        neither flags, nor references to groups, nor possessive repeats are supported.
    what : str
        What messages call it.
    end : bool
        Whether the end of a name will do, from its start or from a dot on, as in PEFT's ``rank_pattern``.

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
        self.text, self._what, self._end = text, what, end
        if len(text) > _MAX_LENGTH:
            raise ValueError(
                f"{what} must have at most {_MAX_LENGTH:,} characters, got {len(text):,}: {text[:40]!r}..."
            )
        try:
            self._quick = re.compile(text)  # first by itself: "a)(b" is none
            if end:
                self._quick = re.compile(rf"(.*\.)?({text})$")
            self._tree: Any = None if _is_quick(text) else _parser.parse(text)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"{what} must be a regular expression, got {text!r} ({error})") from None
        self._steps = count()
        self._items: dict[int, re.Pattern[str]] = {}
        if self._tree is not None:
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
        if self._tree is None and len(name) <= _QUICK_NAME:
            return self._quick.fullmatch(name) is not None
        if self._tree is None:
            self._tree = _parser.parse(self.text)
        starts = 1 | sum(1 << i + 1 for i, character in enumerate(name) if self._end and character == ".")
        ends = self._sequence(self._tree, starts, name)
        return bool(ends >> len(name))

    def _sequence(self, items: Iterable[Any], starts: int, name: str) -> int:
        """Where the items, one after the other, can end from any of ``starts``: positions are bits."""
        for item in items:
            if not starts and len(name):  # the empty name visits all of the tree, to meet what it holds
                return 0
            if next(self._steps) > _MAX_STEPS:
                raise self._refused("takes too many steps")
            starts = self._item(item, starts, name)
        return starts

    def _item(self, item: tuple[Any, Any], starts: int, name: str) -> int:
        kind, what = str(item[0]), item[1]
        if kind in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            return (starts & _where(self._compiled(item), name)) << 1
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
        if kind == "AT":
            return starts & _where(self._compiled(item), name)
        if kind in ("ASSERT", "ASSERT_NOT"):
            found = self._looked(what, starts, name)
            return starts & (found if kind == "ASSERT" else ~found)
        raise self._refused(f"holds {kind.lower().replace('_', ' ')}")

    def _compiled(self, item: tuple[Any, Any]) -> re.Pattern[str]:
        """One item for Python's ``re``, which can take no choices in it."""
        if id(item) not in self._items:
            self._items[id(item)] = _compile(_parser.SubPattern(self._tree.state, [item]))
        return self._items[id(item)]

    def _repeat(self, what: tuple[int, int, Any], starts: int, name: str) -> int:
        least, most, items = what
        for _ in range(min(least, len(name) + 1)):  # after that many, another changes nothing
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
        return ValueError(
            f"{self._what} {self.text!r} {why}, which cannot be matched in bounded time; write it with fewer "
            "repeats and branches, or as a list of names"
        )


@lru_cache
def _where(item: re.Pattern[str], name: str) -> int:
    """Where an item that takes one character, or an anchor, matches: bit i is of what follows position i."""
    return sum(1 << i for i in range(len(name) + 1) if item.match(name, i))


def _is_quick(text: str) -> bool:
    """Whether ``re`` has so few ways through that it cannot take long: few repeats, none of a group."""
    bare = re.sub(r"\\.|\(\?:", "(", text)
    return (
        len(re.findall(r"[*+{?]", bare)) <= _QUICK_REPEATS
        and bare.count("|") <= _QUICK_BRANCHES
        and not re.search(r"\)[*+{?]", bare)
    )
