"""A sandbox for chat templates that bounds their work: a template is a program from a stranger.

jinja2's own sandbox keeps a template away from Python's objects, not from a loop without end or a
string of a terabyte. Here each operation that can produce or repeat something pays for it
beforehand, in characters, entries or evaluated nodes, and rendering stops when the budget is spent.
The work is counted rather than timed, so that every machine draws the line at the same place.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NoReturn, TypeVar

from jinja2 import nodes, pass_context, utils
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

LARGEST_SOURCE = 1_000_000  # characters; the longest templates that are published have some 20,000
DEEPEST = 100  # blocks and brackets in one another
WORK = 10_000_000  # characters, entries and nodes of one rendering,
WORK_PER_CHARACTER = 100  # and more where the conversation itself is longer
LARGEST_NUMBER = 10_000  # bits of an integer
WIDEST = 9_999  # of a column in a format
WIDE = re.compile(r"\d{5,}|\*|\{[^{}]*\{")
OPENERS = {"for", "if", "macro", "call", "filter", "with", "block", "generation", "autoescape"}

T = TypeVar("T")


class TemplateBudgetError(ValueError):
    """A template needs more work than one rendering may take."""


class BoundedNamespace(utils.Namespace):
    """A namespace that is printed without its contents, which may refer to one another."""

    def __repr__(self) -> str:
        return "<Namespace>"


class Meter:
    """The work that a rendering has left."""

    def __init__(self) -> None:
        self.left = WORK

    def spend(self, work: int) -> None:
        self.left -= work
        if self.left < 0:
            raise TemplateBudgetError(
                f"it takes more than {WORK:,} characters, entries and steps of work"
            )

    def counted(self, items: Iterable[T], weight: int = 1) -> Iterator[T]:
        """Yield the items; each costs ``weight``."""
        for item in items:
            self.spend(weight)
            yield item

    def charged(self, value: T) -> T:
        """Pay for a value as it would be printed, or for an iterator's items as they come."""
        if isinstance(value, Iterator):
            return map(self.charged, value)  # type: ignore[return-value]
        self.spend(printed_size(value, {}))
        return value


def printed_size(value: Any, known: dict[int, int]) -> int:
    """Characters of a value when printed, with all that it contains; shared parts count each time.

    ``known`` holds the sizes of the containers met so far, so that a structure whose parts are
    shared, and which would be exponentially long in print, is measured in linear time.
    """
    if isinstance(value, str):
        return len(value)
    if isinstance(value, int):
        return 1 + value.bit_length() // 3
    if not isinstance(value, Mapping | list | tuple | set | frozenset):
        return 1
    if id(value) not in known:
        known[id(value)] = 0  # where a structure contains itself, Python prints "..."
        parts = (
            itertools.chain(value, value.values()) if isinstance(value, Mapping) else iter(value)
        )
        known[id(value)] = 2 + sum(2 + printed_size(part, known) for part in parts)
    return known[id(value)]


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """The environment of chat templates: transformers' conventions, and bounded work.

    Attributes
    ----------
    meter : Meter
        What the current rendering may still spend.
    spans : list of (int, int)
        Where in ``blocks`` the template marks text as generated.
    blocks : list of str
        What was rendered so far.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        self.meter = Meter()
        self.blocks: list[str] = []
        self.spans: list[tuple[int, int]] = []
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # an expression that is worked out beforehand would not be paid for
            extensions=[Generation, loopcontrols],
            finalize=pass_context(lambda context, value: self.meter.charged(value)),
        )
        self.filters["tojson"] = to_json
        self.filters = {name: self.paid(name, rule) for name, rule in self.filters.items()}
        self.filters |= {
            "counted": self.meter.counted,
            "concatenated": self.concatenated,
            "charged": self.meter.charged,
            "spent": lambda work: self.meter.spend(work),
        }
        del self.globals["lipsum"]  # draws text of any length
        self.globals |= {
            "namespace": BoundedNamespace,
            "strftime_now": lambda form: datetime.now().strftime(form[:100]),
            "raise_exception": refuse,
        }

    def compiled(self, source: str) -> nodes.Template:
        """Read a template and put the payments into its tree."""
        if len(source) > LARGEST_SOURCE:
            raise ValueError(
                f"it has {len(source):,} characters, at most {LARGEST_SOURCE:,} are read"
            )
        check_nesting(self.lex(source))
        tree = self.parse(source)
        Payments().visit(tree)
        return tree

    def renew(self, conversation: Any) -> None:
        """Begin a rendering: nothing spent, nothing rendered."""
        self.meter.left = WORK + WORK_PER_CHARACTER * printed_size(conversation, {})
        self.blocks.clear()
        self.spans.clear()

    def concatenated(self, values: list[Any]) -> str:
        """Join values as ``~`` does."""
        return "".join(str(self.meter.charged(value)) for value in values)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Evaluate ``left operator right`` if the budget has room for its result."""
        numbers = isinstance(left, int) and isinstance(right, int)
        if operator == "%" and isinstance(left, str):
            check_widths(left)
            self.meter.spend(len(left) + printed_size(right, {}))
        elif operator == "+" and not numbers:
            self.meter.spend(printed_size(left, {}) + printed_size(right, {}))
        elif operator == "*" and not numbers:
            self.meter.spend(as_count(left) * as_count(right))
        elif numbers:
            bits = left.bit_length() * (abs(right) if operator == "**" else 1)
            if bits + right.bit_length() > LARGEST_NUMBER:
                raise TemplateBudgetError(f"a number has more than {LARGEST_NUMBER:,} bits")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what a template calls if the budget has room for the result."""
        method = getattr(function, "__wrapped__", function)  # jinja2 wraps str.format
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str):
            self.pay_for_method(method.__name__, owner, args)
        elif not isinstance(function, Macro):
            self.meter.spend(1 + sum(map(as_count, [*args, *kwargs.values()])))
        if isinstance(owner, str) and method.__name__ == "join":
            args = tuple(self.meter.charged(list(values)) for values in args)
        return self.meter.charged(super().call(context, function, *args, **kwargs))

    def pay_for_method(self, name: str, text: str, args: tuple[Any, ...]) -> None:
        """Pay for a string's method by the longest result that it can have."""
        sizes = [as_count(value) for value in args]
        if name in ("format", "format_map"):
            check_widths(text)
        if name == "replace" and len(args) > 1 and isinstance(args[0], str):
            self.meter.spend(len(text) + text.count(args[0]) * sizes[1])
        elif name in ("join", "expandtabs", "translate"):
            self.meter.spend((1 + len(text)) * (1 + sum(sizes)))
        else:
            self.meter.spend(len(text) + sum(sizes))

    def paid(self, name: str, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a filter: its arguments bound its result, and the result is paid for as well."""

        @functools.wraps(rule)  # keeps the marks of filters that take the context
        def paying(*args: Any, **kwargs: Any) -> Any:
            own = [value for value in args if not isinstance(value, CONTEXTS)]
            values = [self.meter.charged(value) for value in own]
            if name == "format":
                check_widths(str(values[0]))
            settings = [*values[1:], *kwargs.values()]
            repeated = sum(map(as_count, settings))
            if name == "replace":
                text, old = str(values[0]), str(settings[0])
                repeated = text.count(old) * repeated // max(len(text), 1)
            if values:
                self.meter.spend((1 + printed_size(values[0], {})) * (1 + repeated))
            return self.meter.charged(rule(*args[: len(args) - len(own)], *values, **kwargs))

        return paying


CONTEXTS = (Context, nodes.EvalContext, TemplateSandbox)  # what jinja2 passes to filters first


class Generation(Extension):
    """``{% generation %}``: the text that the model is to generate."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)
    environment: TemplateSandbox

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("note"), [], [], body).set_lineno(line)

    def note(self, caller: Callable[[], str]) -> str:
        text, start = caller(), sum(map(len, self.environment.blocks))
        self.environment.spans.append((start, start + len(text)))
        return text


class Payments(NodeTransformer):
    """Puts payments into a template's tree: for each turn of a loop, each macro and container."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        weight = nodes.Const(weight_of(node))
        node.iter = nodes.Filter(node.iter, "counted", [weight], [], None, None)
        # a recursive loop enters its body by another door
        return with_payment(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Macro:
        self.generic_visit(node)
        return with_payment(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.CallBlock:
        self.generic_visit(node)
        return with_payment(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        self.generic_visit(node)
        return nodes.Filter(nodes.List(node.nodes), "concatenated", [], [], None, None)

    def generic_visit(self, node: nodes.Node, *args: object, **kwargs: object) -> nodes.Node:
        super().generic_visit(node)
        makes = isinstance(node, nodes.List | nodes.Dict | nodes.Tuple)
        if makes and getattr(node, "ctx", "load") == "load":  # not {% set a, b = ... %}
            return nodes.Filter(node, "charged", [], [], None, None)
        return node


LoopOrMacro = TypeVar("LoopOrMacro", nodes.For, nodes.Macro, nodes.CallBlock)


def with_payment(node: LoopOrMacro) -> LoopOrMacro:
    """Let each entry into a node's body pay for the nodes in it."""
    spent = nodes.Filter(nodes.Const(weight_of(node)), "spent", [], [], None, None)
    node.body.insert(0, nodes.ExprStmt(spent))
    return node


def weight_of(node: nodes.Node) -> int:
    """Count the nodes below a node, and the characters of text among them."""
    text = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
    return 1 + text + sum(1 for _ in node.find_all(nodes.Node))


def check_nesting(tokens: Iterable[tuple[int, str, str]]) -> None:
    """Refuse a template whose blocks or brackets are nested more than ``DEEPEST`` times."""
    blocks = brackets = 0
    before = ""
    for _, kind, text in tokens:
        if kind == "whitespace":
            continue
        if before == "block_begin" and kind == "name":
            blocks += (text in OPENERS) - text.startswith("end")
        elif kind == "operator":
            brackets += (text in "([{") - (text in ")]}")
        if max(blocks, brackets) > DEEPEST:
            raise ValueError(f"its blocks or brackets are nested more than {DEEPEST} deep")
        before = kind


def check_widths(text: str) -> None:
    """Refuse a format with a field wider than ``WIDEST``, or of a width that is an argument."""
    if WIDE.search(text):
        raise TemplateBudgetError(f"a format has a field wider than {WIDEST:,} characters")


def as_count(value: Any) -> int:
    """How often an argument can repeat another: a number by itself, all else by its size."""
    return abs(value) if isinstance(value, int) else printed_size(value, {})


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON as transformers does: not escaped for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def refuse(message: str) -> NoReturn:
    """Stop rendering: a template's own ``raise_exception(message)``."""
    raise ValueError(str(message)[:500])
