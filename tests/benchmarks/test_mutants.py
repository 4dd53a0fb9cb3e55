"""Mutants of functions: each kind of change, the draw, and the tests that are run for a module."""

import ast
import shutil

import pytest

from benchmarks import mutants
from benchmarks.mutants import ROOT, drawn, failing_in, interval, is_valid, main, mutants_of


def changed(body):
    """The bodies of ``f`` that differ from this one by a mutant, by its kind."""
    head = "def f(a, b):\n    "
    source = f"{head}{body}\n".encode()
    found = {}
    for mutant in mutants_of(source, "x.py"):
        new = mutant.applied(source).decode()
        compile(new, "x.py", "exec")
        found.setdefault(mutant.kind, []).append(new.removeprefix(head).strip())
    return found


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return a < b", {"comparison": ["return (a >= b)"], "return": ["return None"]}),
        ("a.x(b is None)", {"comparison": ["a.x((b is not None))"], "statement": ["pass"]}),
        ("a += b", {"operator": ["a -= b"], "statement": ["pass"]}),
        ("a(b @ a // b)", {"operator": ["a((b @ a * b))"], "statement": ["pass"]}),
        ("raise a", {"statement": ["pass"]}),
        ("return 'é', 1", {"number": ["return 'é', (2)", "return 'é', (0)"], "return": ["return None"]}),
        ("if a: return", {"condition": ["if (not (a)): return"]}),
        ("return [c for c in a if b]", {
            "condition": ["return [c for c in a if (not (b))]"], "return": ["return None"],
        }),
        ("'''Words.'''", {}),
        ("c: 'a < 1' = f'{a + 1:{b}}'", {}),
        ("return None", {}),
        ("return", {}),
        ("x = True", {"statement": ["pass"]}),
        ("return 0 < a < b", {"number": ["return (1) < a < b", "return (-1) < a < b"], "return": ["return None"]}),
    ],
)  # fmt: skip
def test_each_kind_of_mutant(body, expected):
    found = changed(body)
    assert {kind: sorted(new) for kind, new in found.items()} == {
        kind: sorted(new) for kind, new in expected.items()
    }


def test_only_bodies_of_functions_change():
    source = b"x = 1 + 2\n\nclass A:\n    y = 3\n\n    def f(self, z=4) -> 5:\n        return (z,\n            6)\n"
    found = mutants_of(source, "x.py")
    assert [(one.kind, one.line) for one in found] == [("return", 7), ("number", 8), ("number", 8)]
    assert found[1].diff(source) == "x.py:8: - 6) + (7))"


def test_a_nested_function_changes_once():
    source = b"def f():\n    def g():\n        return 1\n    return g\n"
    assert len(mutants_of(source, "x.py")) == 4


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A part of the package, which is drawn from in a moment."""
    folder = tmp_path_factory.mktemp("tree")
    shutil.copytree(ROOT / "lora_np" / "linalg", folder / "lora_np" / "linalg")
    return folder


def test_the_draw_depends_on_the_seed_alone(tree):
    found = drawn(tree, 50, seed=1)
    assert found == drawn(tree, 50, seed=1)
    assert found != drawn(tree, 50, seed=2)
    assert len({(one.file, one.begin, one.end, one.text) for one in found}) == 50
    assert len({one.file for one in found}) > 4
    assert {one.kind for one in found} >= {"number", "statement", "condition", "return", "operator"}


def test_every_mutant_of_a_package_is_python(tree):
    found = drawn(tree, 10_000, seed=1)
    assert len(found) > 500
    for mutant in found[::40]:
        source = (tree / mutant.file).read_bytes()
        new = mutant.applied(source)
        assert ast.dump(ast.parse(new)) != ast.dump(ast.parse(source))
        assert " + " in mutant.diff(source)


def test_only_mutants_that_compile_are_drawn(tmp_path):
    """Without its assignment, a nonlocal name is an error."""
    source = b"def f():\n    a = 1\n    def g():\n        nonlocal a\n        a = 2\n    return g\n"
    (tmp_path / "lora_np").mkdir()
    (tmp_path / "lora_np" / "f.py").write_bytes(source)
    found = drawn(tmp_path, 100, seed=1)
    every = mutants_of(source, "lora_np/f.py")
    assert 0 < len(found) < len(every)
    assert {*found} == {one for one in every if is_valid(one.applied(source))}


def test_a_module_without_tests_of_its_own_has_those_that_use_it(tmp_path):
    for name, text in {
        "lora_np/__init__.py": "from lora_np import sub as sub\nfrom lora_np.sub import f as f\n",
        "lora_np/sub/__init__.py": "from lora_np.sub.a import f as f, g as g\n",
        "lora_np/sub/a.py": "",
        "lora_np/sub/b.py": "",
        "tests/sub/test_x.py": "from lora_np import sub as s\nassert s.g()\n",
        "tests/test_y.py": "import lora_np as lnp\nassert lnp.f()\n",
        "tests/test_z.py": "from lora_np.sub import b\n",
        "lora_np/sub/c.py": "",
        "lora_np/sub/d.py": "",
        "tests/sub/test_c.py": "",
        "tests/site/test_w.py": "from lora_np.sub.b import x\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    a, b = "lora_np/sub/a.py", "lora_np/sub/b.py"
    assert mutants.tests_of(tmp_path, a) == [a, "tests/sub/test_x.py", "tests/test_y.py"]
    assert mutants.tests_of(tmp_path, b) == [b, "tests/test_z.py"]
    package = "lora_np/sub/__init__.py"
    assert mutants.tests_of(tmp_path, package)[1:] == [
        "tests/sub/test_x.py", "tests/test_y.py", "tests/test_z.py",
    ]  # fmt: skip
    inner = "lora_np/sub/d.py"  # which no test imports
    assert mutants.tests_of(tmp_path, inner)[1:] == mutants.tests_of(tmp_path, package)[1:]
    c = "lora_np/sub/c.py"
    assert mutants.tests_of(tmp_path, c) == [c, "tests/sub/test_c.py"]
    law = tmp_path / "tests/laws/test_v.py"
    law.parent.mkdir()
    law.write_text("from lora_np.sub.b import x\n", encoding="utf-8")
    mutants.uses.cache_clear()
    assert mutants.tests_of(tmp_path, b) == [b, "tests/laws/test_v.py"]
    # if these kill no mutant, the other tests that use the package do
    assert mutants.more_tests_of(tmp_path, b) == [
        "tests/sub/test_x.py", "tests/test_y.py", "tests/test_z.py",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("successes", "trials", "expected"),
    [(0, 0, (0, 1)), (0, 10, (0, 0.2775)), (8, 10, (0.4902, 0.9433)), (300, 300, (0.9874, 1))],
)
def test_the_interval_of_a_share(successes, trials, expected):
    """Values of Wilson's interval from published tables and its closed form."""
    assert interval(successes, trials) == pytest.approx(expected, abs=1e-4)


def test_failures_are_read_from_the_summary():
    output = "..F\nFAILED tests/test_a.py::test_b[x y] - assert 1 == 2\nERROR tests/test_c.py\nx\n"
    assert failing_in(output) == ["tests/test_a.py::test_b[x y]", "tests/test_c.py"]


def test_a_list_runs_no_tests(tree, capsys, monkeypatch):
    monkeypatch.setattr(mutants, "tested", None)
    main(["--list", "--number", "4", "--seed", "3", "--tree", f"{tree}"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all(": - " in line and " + " in line for line in lines)
