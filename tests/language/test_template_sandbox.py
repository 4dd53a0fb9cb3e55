"""Templates are programs of strangers: what they may not do is refused in bounded work."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jinja2")

from lora_np.language import Characters
from lora_np.language.templates import Template
from tests.drawing import FULL, peak_memory

HI = [{"role": "user", "content": "hi <b>"}, {"role": "assistant", "content": "ab\nc"}]
MANY = "999999999"

# Strings and lists of any length, by each way that makes one out of something short.
LONG = [
    f"{{{{ {expression} }}}}"
    for expression in [
        *(f"{x} * {MANY}" for x in ("'a'", "[1]", "(1, 2)", "messages")),
        *(f"{MANY} * {x}" for x in ("'a'", "[1]", "(1, 2)", "messages")),
        *(f"'a'.{name}({MANY})" for name in ("center", "ljust", "rjust", "zfill")),
        f"'\\t'.expandtabs({MANY})",
        f"('\\t' * 9999).expandtabs({MANY})",
        "('a' * 99999).replace('a', 'b' * 99999)",
        "('a' * 99999).replace('', 'b' * 99999)",
        "('a' * 99999)|replace('a', 'b' * 99999)",
        "('a' * 99999).join('b' * 99999)",
        "('a' * 99999).join(['b'] * 99999)",
        "(['b'] * 99999)|join('a' * 99999)",
        "([('x' * 9999)] * 99999)|join",
        "''.join([('x' * 9999)] * 99999)",
        "('a' * 99999).translate({97: 'b' * 99999})",
        *(f"{x}|tojson(indent={MANY})" for x in ("messages", "[[1]]", "{'a': 1}")),
        "messages|tojson(indent='x' * 9999999)",
        *(f"'a\\nb'|indent({n})" for n in (MANY, "'x' * 9999999")),
        *(f"'a b'|{name}({MANY})" for name in ("center", "wordwrap", "batch|list")),
        f"'a'|center({MANY})",
        f"[1]|batch({MANY}, 0)|list",
        f"[1]|slice({MANY})|list",
        f"('a b ' * 9999)|wordwrap(1, true, 'x' * {MANY})",
        f"range({MANY})",
        f"range({MANY})|list|length",
        f"1.5|round({MANY})",
        "lipsum(n=999999)",
        f"(5).to_bytes({MANY})",
        f"(5).to_bytes(1).ljust({MANY})",
        "('%(a)s' * 99999) % {'a': 'b' * 99999}",
        "('%(a)s' * 99999)|format(a='b' * 99999)",
        "('{0}' * 99999).format('b' * 99999)",
    ]
]
# Formats, whose widths hide in a string.
FORMATS = [
    f"{{{{ {expression} }}}}"
    for form in ("d", "s", "x", "f", "e", "g", "c")
    for expression in [
        f"'%{MANY}{form}' % 3",
        f"'%.{MANY}{form}' % 3",
        f"'%*{form}' % ({MANY}, 3)",
        f"'%{MANY}{form}'|format(3)",
        f"'{{:{MANY}{form}}}'.format(3)",
        f"'{{:>{{w}}{form}}}'.format(3, w={MANY})",
        f"'{{a:{MANY}{form}}}'.format_map({{'a': 3}})",
        f"'{{:{MANY}{form}}}'.format('a'|e)",
    ]
]
# Doubling: each step is small.
DOUBLING = [
    f"{{% set ns = namespace(x={start}) %}}{{% for i in range({n}) %}}{{% set ns.x = {step} %}}"
    f"{{% endfor %}}{end}"
    for n in (40, 9999)
    for start, step in [
        ("'ab'", "ns.x ~ ns.x"),
        ("'ab'", "ns.x + ns.x"),
        ("'ab'", "ns.x * 2"),
        ("'ab'", "ns.x.replace('a', ns.x)"),
        ("'ab'", "[ns.x, ns.x]|join"),
        ("'ab'", "'%s%s' % (ns.x, ns.x)"),
        ("'ab'", "'{}{}'.format(ns.x, ns.x)"),
        ("[1]", "[ns.x, ns.x]"),
        ("[1]", "ns.x + ns.x"),
        ("[1]", "{'a': ns.x, 'b': ns.x}"),
        ("[1]", "dict(a=ns.x, b=ns.x)"),
        ("7", "ns.x * ns.x"),
        ("7", "ns.x ** 3"),
    ]
    for end in ("{{ ns.x }}", "{{ ns.x == ns.x }}{{ ns.x|string }}{{ ns.x|tojson }}")
] + [
    "{% set x %}ab{% endset %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60 + "{{ x }}",
    "{% set x = namespace() %}"
    + "{% set y = namespace(a=[x, x]) %}{% set x = y %}" * 60
    + "{{ x }}{{ [x, x] }}{% for i in range(99999) %}{{ [x]*999 }}{% endfor %}",
    "{{ 2 ** 99999999 }}",
    "{{ 10 ** 9999 ** 2 }}",
]
# Loops and recursion.
LOOPS = (
    [
        "{% for a in range(99999) %}" * depth + body + "{% endfor %}" * depth
        for depth in (2, 3, 10)
        for body in ("", "x", "{{ a }}", "{{ messages|tojson }}", "{% if a %}{% endif %}")
    ]
    + [
        f"{{% macro f(n) %}}{{% if n %}}{body}{{% endif %}}{{% endmacro %}}{{{{ f({n}) }}}}"
        for body in ("{{ f(n) }}", "{{ f(n - 1) }}{{ f(n - 1) }}", "{{ (f(n - 1) or 'a') * 2 }}")
        for n in (60, 99999)
    ]
    + [
        "{% for m in [messages] recursive %}{{ loop(m) }}{{ loop([messages]) }}{% endfor %}",
        "{% for a in range(99999) if a > 99999 %}{% endfor %}" * 999,
        "{% for a in range(99999)|map('string')|map('center', 9999) %}{{ a }}{% endfor %}",
        "{{ range(99999)|map('center', 9999)|list|join }}",
        "{{ range(99999)|map('batch', 99999)|list }}",
        "{% for a in range(99999) %}{{ range(99999)|list }}{% endfor %}",
        "{% for a in range(99999) %}{{ range(99999)|sum }}{% endfor %}",
        "{% for a in range(99999) %}{{ range(99999)|map('string')|join }}{% endfor %}",
        "{% for a in range(99999) %}{{ 99999 in range(99999)|list }}{% endfor %}",
        "{% filter upper %}{% for a in range(99999) %}{{ 'x' * 9999 }}{% endfor %}{% endfilter %}",
    ]
)
# Sources that are nested or long.
NESTED = [
    "{% if a %}" * n + "{% endif %}" * n for n in (200, 3_000, 20_000)
] + [
    "{% for a in b %}" * 3_000 + "{% endfor %}" * 3_000,
    *("{{ " + open * 5_000 + "1" + close * 5_000 + " }}" for open, close in ("()", "[]")),
    "{{ " + "{'a': " * 5_000 + "1" + "}" * 5_000 + " }}",
    "{{ " + "not " * 50_000 + "1 }}",
    "{{ " + "- " * 50_000 + "1 }}",
    "{{ 1" + "|string" * 20_000 + " }}",
    "{{ a" + ".a" * 20_000 + " }}",
    "{{ 1" + " + 1" * 20_000 + " }}",
    "{{ 1 if 1 else " * 5_000 + "1" + " }}",
    "{{ 'a'" + " ~ 'a'" * 20_000 + " * 9999999 }}",
    "x" * 2_000_000,
    "{% macro f() %}" * 500 + "{% endmacro %}" * 500,
    "{{ raise_exception('x' * 9999999) }}",
]  # fmt: skip
HOSTILE = [*LONG, *FORMATS, *DOUBLING, *LOOPS, *NESTED]

# What templates do, and what it gives.
ORDINARY = {
    "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}{{ loop.index }}{% endfor %}": (
        "<user>hi <b>1<assistant>ab\nc2"
    ),
    "{{ messages | tojson }}": json.dumps(HI),
    "{{ {'b': 1, 'a': [1, 'é']} | tojson(indent=2) }}": json.dumps(
        {"b": 1, "a": [1, "é"]}, indent=2, ensure_ascii=False
    ),
    "{% set x, y = 1, 'a' %}{{ x + 1 }}{{ y ~ x ~ [x] }}{{ y * 3 }}{{ [x] + [2] }}": (
        "2a1[1]aaa[1, 2]"
    ),
    "{{ messages[0].content.split(' ')[-1] }}{{ messages[0]['content'][:2] }}": "<b>hi",
    "{% set ns = namespace(found=false, n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{% if m.role == 'assistant' %}{% set ns.found = true %}{% break %}{% endif %}{% endfor %}"
    "{{ ns.found }}{{ ns.n }}": "True2",
    "{{ messages | map(attribute='role') | join(', ') }}{{ messages | length }}": "user, assistant2",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}": "1",
    "{{ (messages | first).role.upper().ljust(6, '.') }}|{{ 'a\nb' | indent(4, true) }}": (
        "USER..|    a\n    b"
    ),
    "{% macro say(m) %}[{{ m.content }}{{ caller() if caller }}]{% endmacro %}"
    "{{ say(messages[0]) }}": "[hi <b>]",
    "{% for m in messages recursive %}{{ m.content if m is mapping }}{% endfor %}": "hi <b>ab\nc",
    "{{ '%s-%03d' % ('a', 7) }}{{ '{:>4}'.format('x') }}{{ 7 // 2 }}{{ 2 ** 10 }}": "a-007   x31024",
    "{{ messages[0].content.replace('hi', 'ho') }}{{ 'a,b'.split(',') | join }}": "ho <b>ab",
    "{{ '* {}'.format('x') }}{{ '**%s**' % 'x' }}{{ 'a*b %s' | format('a') }}": "* x**x**a*b a",
    """{{ '{{"a": "{}"}}'.format('x') }}{{ '{"a": {"b": "%s"}}' % 'x' }}""": (
        '{"a": "x"}{"a": {"b": "x"}}'
    ),
    "{{ '<|128000|>%s' % 'x' }}{{ 'at {}'.format(1733011200) }}{{ '%d' % 1733011200 }}": (
        "<|128000|>xat 17330112001733011200"
    ),
    "{{ namespace(t=1733011200).t }}{{ {}.get('x', 99999999) }}{{ x | default(99999999) }}"
    "{{ dict(a=123456789) }}": "17330112009999999999999999{'a': 123456789}",
    "{{ '%s'.format(1) }}{{ ('x' * 3000 ~ '{}').format('a' * 5000) | length }}"
    "{{ ('ab ' * 2000) | truncate(4000) | length }}": "%s80003998",
    "{{ [1] | tojson(false, 2) }}": "[\n  1\n]",
    "{{ messages[::-1][0].role }}{{ loop is defined }}{{ tools is none }}": "assistantFalseTrue",
}


def render(source, messages=HI):
    vocabulary = Characters("abc", {"chat_template.jinja": source.encode()})
    return Template(vocabulary).render(messages)


def main(sources):
    """In a process of its own: each is refused in 20 s of CPU, and all in 512 MiB."""
    import resource

    for number, source in enumerate(sources):
        used = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (used + 20, hard))
        try:
            render(source)
        except ValueError as error:
            if not str(error).startswith("the chat template ") or len(str(error)) > 1_000:
                raise
        else:
            print(f"rendered: {number} {source[:200]}")
    print(peak_memory())


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process as Linux has them")
def test_hostile_templates_are_refused_in_bounded_work():
    assert len(HOSTILE) >= 200
    chosen = HOSTILE if FULL else HOSTILE[::12]
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from tests.language.test_template_sandbox import main, HOSTILE\n"
        f"main(HOSTILE[::{len(HOSTILE) // len(chosen)}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2_000:]
    *rendered, peak = done.stdout.splitlines()
    assert not rendered
    assert int(peak) < 512


@pytest.mark.parametrize("source", ORDINARY)
def test_ordinary_templates_are_rendered(source):
    assert render(source) == ORDINARY[source]


def test_the_budget_grows_with_the_conversation():
    long = [{"role": "user", "content": "ab " * 200_000}] * 20
    text = render("{% for m in messages %}{{ m.content | trim }}{% endfor %}", long)
    assert len(text) == 20 * (600_000 - 1)


def test_many_messages_can_be_counted_for_each_of_them():
    """As Qwen3's template counts them."""
    turns = [{"role": "user", "content": "x" * 1000}] * 300
    source = "{% for m in messages[::-1] %}{{ (messages|length - 1) - loop.index0 }} {% endfor %}"
    assert render(source, turns) == "".join(f"{i} " for i in range(299, -1, -1))


def test_each_rendering_has_the_whole_budget():
    template = Template(Characters("abc", {"chat_template.jinja": b"{{ 'a' * 4000000 }}"}))
    assert {len(template.render(HI)) for _ in range(5)} == {4_000_000}


def test_what_is_marked_as_generated_is_noted():
    source = (
        "{% for m in messages %}{{ m.role }}:{% generation %}{{ m.content }}{% endgeneration %}"
        "{% endfor %}"
    )
    template = Template(Characters("abc", {"chat_template.jinja": source.encode()}))
    text = template.render(HI)
    assert [text[a:b] for a, b in template.sandbox.spans] == ["hi <b>", "ab\nc"]
