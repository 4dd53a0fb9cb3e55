"""Files import one another without circles, packages only from lower layers, and the diagram shows
it.
"""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("diagram", ROOT / "docs" / "diagram.py")
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
    assert committed == diagram.svg(packages), "python docs/diagram.py draws it anew"


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


def test_circles_are_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"e"}}
    assert diagram.circles(graph) == [["b", "c"], ["e"]]


def test_arrows_that_follow_from_others_are_left_out():
    graph = {"high": {"middle", "low"}, "middle": {"low"}, "low": set()}
    assert diagram.arrows(graph) == [("high", "middle"), ("middle", "low")]


OPERATIONS = (
    "checking", "combining", "converting", "extraction", "inspection", "merging", "resizing",
)  # fmt: skip


def test_no_operation_on_adapters_imports_another():
    """What several of them use stands beside them: spectra, weights of a base, scales, formats."""
    operations = {f"lora_np.adapters.{name}" for name in OPERATIONS}
    graph = diagram.file_graph()
    assert operations <= graph.keys()
    for file, imported in graph.items():
        if file.startswith("lora_np.adapters."):
            assert not imported & operations, f"{file} imports {imported & operations}"
