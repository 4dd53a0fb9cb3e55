"""The package stays small: a budget in tokens, which no layout changes."""

import pytest

import benchmarks.size
from benchmarks.size import ROOT, functions, measure, sources, unused_names

MOST_TOKENS = 267_909
MOST_ANY = 494
LONG, BRANCHES = 600, 25  # tokens from which on a function is too long; the most branches


@pytest.fixture(scope="module")
def sizes():
    return [measure(path) for path in sources()]


def test_tokens_of_the_package(sizes):
    assert sum(size["tokens"] for size in sizes) <= MOST_TOKENS


def test_a_line_holds_few_tokens(sizes):
    assert sum(size["tokens"] for size in sizes) <= 10.8 * sum(size["lines"] for size in sizes)


def test_types_are_said(sizes):
    assert sum(size["Any"] for size in sizes) <= MOST_ANY


def test_every_public_name_is_used():
    assert unused_names() == []


def test_only_code_is_counted(tmp_path):
    module = tmp_path / "module.py"
    text = '"""Words\nand words."""\n\n# why\ndef f(\n    x,\n):\n    """More."""\n    return """a\nb"""\n'
    module.write_text(text)
    assert measure(module) == {"tokens": 9, "lines": 5, "Any": 0}


def test_files_that_are_read_alone_are_left_out():
    assert (ROOT / "lora_np" / "mini.py").is_file()
    assert all(path.name != "mini.py" for path in sources())


def test_functions_are_short_enough_to_read():
    measured = [function for path in sources() for function in functions(path)]
    assert len(measured) > 2000
    assert not [one for one in measured if one.tokens >= LONG or one.branches > BRANCHES]


def test_tokens_and_branches_of_functions(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmarks.size, "PACKAGE", tmp_path)
    text = (
        "def f(x):\n"
        '    """Words."""\n'
        "    def g():  # why\n"
        "        return [y for y in x if y if y > 1]\n"
        "    try:\n"
        "        return g() if x else 0\n"
        "    except ValueError:\n"
        "        while x:\n"
        "            pass\n"
    )
    module = tmp_path / "module.py"
    module.write_text(text)
    assert functions(module) == [("module.py f", 42, 6), ("module.py g", 19, 3)]
