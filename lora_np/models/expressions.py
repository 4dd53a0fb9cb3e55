"""Match regular expressions from files and users in bounded time.

The syntax is Python's. Names are matched by Thompson's method (1968): all positions that the
expression can have reached advance together, here as the bits of one integer. The steps are counted
and limited. Python's own ``re`` can take exponential time, so it is used only for expressions that
leave it few choices.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from math import inf
from sys import maxsize

from lora_np.checks import refuse

_MAX_LENGTH = 4_000  # characters in an expression
_MAX_DEPTH = 100  # nested groups
_MAX_STEPS = 1_000_000  # the most steps of one expression over all names; they take about a second
_QUICK_NAME = 128  # the longest name, in characters, that is matched by Python's re
_QUICK_STEPS = 20_000_000  # the most steps that re may need; they take a few tenths of a second

# A function that matches one part of an expression: given the positions in a name where a match may
# start, it returns the positions where the match may end. Bit i of an int stands for position i.
Ends = Callable[[int], int]
_ANCHOR = r"[$^]|\\[AbBZ]"
_REPEAT = re.compile(r"(?:([*+?])|\{(?!\})(\d*)(,?)(\d*)\})\??")
# a token: a character class, an escape, the start of a group, a repeat, or any other character
_TOKEN = re.compile(
    r"\[\^?\]?(?:\\.|[^\]\\])*\]"
    r"|\\(?:x..|u.{4}|U.{8}|N\{[^}]*\}|0[0-7]{0,2}|.)"
    r"|\((?:\?(?:P<\w+>|P=|<?[=!]|.))?|(?:[*+?]|\{(?!\})\d*,?\d*\})[?+]?|.",
    re.DOTALL,
)
_UNSUPPORTED = {
    r"\\[1-9]|\(\?P=": "a backreference",
    r"\(\?>": "an atomic group",
    r"\(\?\(": "a condition",
    r"\(\?[^:P<=!]": "flags or a comment",
    r"[*+?{].*\+": "a possessive repeat",
}


class Expression:
    r"""A regular expression that is matched against names in bounded time.

    Parameters
    ----------
    text : str
        The expression in the syntax of Python's ``re``, with at most 4,000 characters. If it has
        many repeats or branches, or a repeated group, then flags, backreferences and possessive
        repeats are not supported.
    what : str
        The name of the expression in messages.
    end : bool
        Whether the expression may match only the end of a name: all of it, or the part after a
        dot, as in PEFT's ``rank_pattern``.

    Raises
    ------
    ValueError
        If the text is not a regular expression, or cannot be matched in bounded time.

    See Also
    --------
    matcher : Return a function that selects the modules that an adapter targets.

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
                f"{what} must have at most {_MAX_LENGTH:,} characters, got {len(text):,}"
            )
        whole, starts = (rf"(?:.*\.)?(?:{text})", _QUICK_NAME + 2) if end else (text, 1)
        try:
            re.compile(text)  # without a group, because "a)(b" is invalid but "(?:a)(b)" is not
            self._quick = re.compile(whole) if starts * _steps(text) <= _QUICK_STEPS else None
        except (re.error, RecursionError, OverflowError, ValueError) as error:
            refuse(f"{what} must be a regular expression, got {text!r} ({error})")
        self._taken = 0
        self._name = ""
        self._places: dict[str, int] = {}
        self._tokens: list[str] = []
        self._ends: Ends | None = None
        if self._quick is None:
            self._parse()

    def matches(self, name: str) -> bool:
        """Return whether the expression matches the whole ``name`` or, with ``end``, its end.

        Raises
        ------
        ValueError
            If the expression exceeds its limit of steps.
        """
        if self._quick is not None and len(name) <= _QUICK_NAME:
            return self._quick.fullmatch(name) is not None
        self._name, self._places = name, {}
        dots = [i + 1 for i, character in enumerate(name) if character == "."] if self._end else []
        ends = self._ends or self._parse()
        return bool(ends(sum(1 << begin for begin in (0, *dots))) >> len(name))

    def _parse(self) -> Ends:
        """Parse the expression, which ``re`` has checked; return the function that matches it."""
        self._tokens = _TOKEN.findall(self.text)[::-1]
        self._ends = self._branches(0)
        return self._ends

    def _branches(self, depth: int) -> Ends:
        if depth > _MAX_DEPTH:
            raise self._refused("is nested too deeply")
        branches = [self._sequence(depth)]
        while self._tokens[-1:] == ["|"]:
            self._tokens.pop()
            branches.append(self._sequence(depth))

        def ends(starts: int) -> int:
            reached = 0
            for branch in branches:
                reached |= branch(starts)
            return reached

        return ends

    def _sequence(self, depth: int) -> Ends:
        items: list[Ends] = []
        while self._tokens and self._tokens[-1] not in ("|", ")"):
            item = self._item(self._tokens.pop(), depth)
            repeat = _REPEAT.fullmatch(self._tokens[-1]) if self._tokens else None
            if repeat:
                self._tokens.pop()
                item = self._repeated(item, repeat)
            items.append(item)

        def ends(starts: int) -> int:
            for item in items:
                if not starts:
                    break
                starts = item(self._counted(starts))
            return starts

        return ends

    def _item(self, token: str, depth: int) -> Ends:
        """Parse a group, a character or an anchor; return the function that matches it."""
        unsupported = (what for pattern, what in _UNSUPPORTED.items() if re.match(pattern, token))
        if what := next(unsupported, ""):
            raise self._refused(f"has {what}")
        if token[0] != "(":
            shift = not re.fullmatch(_ANCHOR, token)
            return lambda starts: (starts & self._where(token)) << shift
        inner = self._branches(depth + 1)
        self._tokens.pop()
        if token[-1] not in "=!":
            return inner

        def ends(starts: int) -> int:
            places = range(len(self._name) + 1)
            if "<" in token:  # a lookbehind holds at each position where a match ends
                reached = inner((1 << len(places)) - 1)
            else:
                reached = sum(1 << i for i in places if starts >> i & 1 and inner(1 << i))
            return starts & (reached if token[-1] == "=" else ~reached)

        return ends

    def _repeated(self, item: Ends, repeat: re.Match[str]) -> Ends:
        sign, least, comma, most = repeat.groups()
        low = int(least or 0) if not sign else int(sign == "+")
        high = int(most) if most else low if least and not comma else 1 if sign == "?" else maxsize

        def ends(starts: int) -> int:
            longest = len(self._name) + 1  # more repeats reach no new position
            for _ in range(min(low, longest)):
                starts = item(self._counted(starts))
            reached = starts
            for _ in range(min(high - low, longest)):
                starts = item(self._counted(starts)) & ~reached
                if not starts:
                    break
                reached |= starts
            return reached

        return ends

    def _where(self, token: str) -> int:
        """Return the positions where a character or an anchor matches, as the bits of an int.

        ``re`` is safe for these, because they leave it no choices.
        """
        if token not in self._places:
            match, places = _compiled(token).match, range(len(self._name) + 1)
            self._places[token] = sum(1 << i for i in places if match(self._name, i))
        return self._places[token]

    def _counted(self, starts: int) -> int:
        if self._taken > _MAX_STEPS:
            raise self._refused("takes too many steps")
        self._taken += 1
        return starts

    def _refused(self, why: str) -> ValueError:
        advice = "write it with fewer repeats and branches, or as a list of names"
        wrong = f"{self._what} {self.text!r} {why}"
        return ValueError(f"{wrong}, which cannot be matched in bounded time; {advice}")


@lru_cache(256)
def _compiled(token: str) -> re.Pattern[str]:
    return re.compile(token)


def _steps(text: str) -> float:
    """Return an upper bound on the steps that ``re`` needs, infinite if a group may be repeated."""
    text = re.sub(r"\\\D", "a", text)
    # a comment, or a space with the flag x, can stand between a group and its repeat
    if re.search(r"\)[*+{]|\(\?(#|[a-zA-Z-]*x)", text):
        return inf
    repeats = len(re.findall(r"\\\d|\(\?P=|(?<!\()[*+?{][?+]?", text))
    branches, groups = text.count("|") + 1, text.count("(")
    ways: int = (_QUICK_NAME + 1) ** repeats * branches ** min(branches - 1, max(groups, 1))
    return ways * len(text)
