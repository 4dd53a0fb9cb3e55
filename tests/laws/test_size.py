"""The package stays small: a budget in tokens, which no layout changes."""

import pytest

from benchmarks.size import ROOT, measure, sources, unused_names

MOST_TOKENS = 254_800
MOST_ANY = 500


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
