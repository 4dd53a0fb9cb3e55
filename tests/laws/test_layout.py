"""A test of one module is tests/PACKAGE/test_MODULE.py; what tests several stands in tests/laws."""

from pathlib import Path

from tests.drawing import every

ROOT = Path(__file__).parents[2]
# Folders for what is outside lora_np, or runs it in another place.
OUTSIDE = {"benchmarks", "browser", "claims", "foreign", "laws", "notebooks", "pyodide", "site"}
FILES = [
    path.relative_to(ROOT / "tests")
    for path in sorted((ROOT / "tests").rglob("test_*.py"))
    if path.relative_to(ROOT / "tests").parts[0] not in OUTSIDE
]


def test_the_folders_outside_are_there():
    assert all((ROOT / "tests" / folder).is_dir() for folder in OUTSIDE)


@every("file", FILES)
def test_a_file_of_tests_is_named_as_its_module(file):
    module = file.with_name(file.name.removeprefix("test_"))
    assert (ROOT / "lora_np" / module).is_file(), f"move tests/{file} to tests/laws"
