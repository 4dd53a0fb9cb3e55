"""Files import one another without circles, packages only from lower layers, and the diagram shows
it.
"""

import ast
import importlib.util
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("diagram", ROOT / "docs" / "_ext" / "diagram.py")
diagram = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(diagram)


@pytest.fixture(scope="module")
def packages():
    return diagram.package_graph()


def test_every_package_has_a_layer(packages):
    assert set(packages) <= {package for layer in diagram.LAYERS for package in layer}


def test_no_circle_of_files():
    """Late imports and imports for type checkers count."""
    assert not diagram.circles(diagram.file_graph())


def test_a_package_imports_only_from_lower_layers(packages):
    wrong = [
        f"{package} must not import {other}"
        for package, others in packages.items()
        for other in others
        if diagram.layer_of(other) >= diagram.layer_of(package)
        and not {package, other} <= set(diagram.FOUNDATION)
    ]
    assert not wrong


def test_the_picture_is_drawn_from_the_code(packages):
    committed = diagram.PICTURE.read_text(encoding="utf-8")
    assert committed == diagram.svg(packages), "python docs/_ext/diagram.py draws it anew"


def test_imports_are_found_in_every_form(tmp_path):
    module = tmp_path / "module.py"
    module.write_text(
        "import lora_np.nn.tree\n"
        "from lora_np import linalg, checks\n"
        "from numpy import zeros\n"
        "if TYPE_CHECKING:\n"
        "    from lora_np.lora.injection import inject\n"
        "def late():\n"
        "    from lora_np.plots import gallery\n"
    )
    assert set(diagram.import_statements(module)) == {
        ("lora_np.nn.tree", None),
        ("lora_np", "linalg"),
        ("lora_np", "checks"),
        ("lora_np.lora.injection", "inject"),
        ("lora_np.plots", "gallery"),
    }


STRINGS = {
    'import_module("lora_np.nn.tree")': "lora_np.nn.tree",
    'importlib.import_module(name="lora_np.nn.tree")': "lora_np.nn.tree",
    '__import__("lora_np.nn")': "lora_np.nn",
    'import_module(f"lora_np.models.{name}").load()': "lora_np.models",
    'Path(__file__).parents[1] / "language" / "data"': "lora_np.language",
    'Path(__file__).resolve().parent.parent.joinpath("models", name)': "lora_np.models",
    'Path(__file__).parent.with_name("models") / name': "lora_np.models",
    'files("lora_np.models") / "data"': "lora_np.models",
    'ROOT = Path(__file__).parents[1]\nDATA = ROOT / "course"': "lora_np.course",
}


@pytest.mark.parametrize("code", STRINGS)
def test_imports_in_strings_and_paths_into_other_packages_are_found(code, tmp_path, monkeypatch):
    monkeypatch.setattr(diagram, "PACKAGE", tmp_path / "lora_np")
    module = tmp_path / "lora_np" / "hub" / "module.py"
    module.parent.mkdir(parents=True)
    module.write_text(code)
    assert set(diagram.import_statements(module)) == {(STRINGS[code], None)}


@pytest.mark.parametrize(
    "code",
    [
        'DATA = Path(__file__).parent / "data"',
        'files("lora_np.hub") / "data"',
        'Path(__file__).parents[2] / "exercises"',
        'Path(np.__file__).parent / "core"',
        'import_module("re._parser")',
    ],
)
def test_a_path_in_the_own_package_is_no_import(code, tmp_path, monkeypatch):
    monkeypatch.setattr(diagram, "PACKAGE", tmp_path / "lora_np")
    module = tmp_path / "lora_np" / "hub" / "module.py"
    module.parent.mkdir(parents=True)
    module.write_text(code)
    assert not set(diagram.import_statements(module))


def test_a_circle_that_one_string_hides_is_found(tmp_path, monkeypatch):
    """As in an engine whose tables load the rules of np.linalg when they are first needed."""
    folder = tmp_path / "lora_np" / "autograd"
    folder.mkdir(parents=True)
    for name, code in {
        "tables": 'def late():\n    import_module("lora_np.autograd.linear_algebra")',
        "kernels": "from lora_np.autograd.tables import primitive",
        "rules": "from lora_np.autograd.kernels import sum_of_outer",
        "linear_algebra": "from lora_np.autograd.rules import euclidean_norm",
    }.items():
        folder.joinpath(f"{name}.py").write_text(code)
    monkeypatch.setattr(diagram, "ROOT", tmp_path)
    monkeypatch.setattr(diagram, "PACKAGE", tmp_path / "lora_np")
    assert diagram.circles(diagram.file_graph.__wrapped__()) == [
        [f"lora_np.autograd.{name}" for name in ("kernels", "linear_algebra", "rules", "tables")]
    ]


def test_circles_are_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"e"}}
    assert diagram.circles(graph) == [["b", "c"], ["e"]]


def test_arrows_that_follow_from_others_are_left_out():
    graph = {"high": {"middle", "low"}, "middle": {"low"}, "low": set()}
    assert diagram.arrows(graph) == [("high", "middle"), ("middle", "low")]


OPERATIONS = (
    "checking", "combining", "converting", "extraction", "gguf_merging", "inspection", "merging",
    "repairing", "resizing",
)  # fmt: skip


def test_no_operation_on_adapters_imports_another():
    """What several of them use stands beside them: spectra, weights of a base, scales, formats."""
    operations = {f"lora_np.adapters.{name}" for name in OPERATIONS}
    graph = diagram.file_graph()
    assert operations <= graph.keys()
    for file, imported in graph.items():
        if file.startswith("lora_np.adapters."):
            assert not imported & operations, f"{file} imports {imported & operations}"


ABOVE = ("recipes", "claims", "benchmarks")  # each may import from those before it


def imports_above(path):
    """Which modules of `ABOVE` a file imports: early, late or for type checkers only."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.split(".")[0] in ABOVE}


def test_recipes_claims_and_benchmarks_import_downwards():
    graph = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): imports_above(path)
        for folder in ABOVE
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    for file, imported in graph.items():
        layer = ABOVE.index(file.partition(".")[0])
        assert all(ABOVE.index(name.partition(".")[0]) <= layer for name in imported), file
        tools = {name for name in imported if name.startswith("claims.lab")}
        if file.startswith("claims.lab."):
            assert {name for name in imported if name.startswith("claims")} == tools, file
    assert "claims.lab.suites" in graph["benchmarks.weighted"]
    assert not diagram.circles({file: graph[file] & {*graph} - {file} for file in graph})


def test_types_are_checked_in_all_code_that_is_no_test():
    """Lessons are made of cells, and what students and tests write is wrong on purpose."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert settings["mypy"]["strict"]
    read = {path for pattern in settings["mypy"]["files"] for path in ROOT.glob(pattern)}
    folders = [path for path in read if path.is_dir()]
    for folder in ("lora_np", "benchmarks", "recipes", "docs", "notebooks"):
        for path in (ROOT / folder).rglob("*.py"):
            made = {"src", "data", "_build", ".ipynb_checkpoints"} & {
                *path.parts[len(ROOT.parts) :]
            }
            assert made or path in read or any(path.is_relative_to(one) for one in folders), path
