"""A room imports only from lower floors, and the diagram shows what the code imports."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("diagram", ROOT / "docs" / "diagram.py")
diagram = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(diagram)

GRAPH = diagram.imports()


def test_every_room_has_a_floor_and_every_floor_holds_real_rooms():
    assert sorted(room for rooms in diagram.FLOORS for room in rooms) == sorted(GRAPH)


@pytest.mark.parametrize("room", sorted(GRAPH))
def test_a_room_imports_only_from_lower_floors(room):
    higher = {other for other in GRAPH[room] if diagram.floor_of(other) >= diagram.floor_of(room)}
    assert not higher, f"{room} must not import {higher}"


def test_the_picture_is_drawn_from_the_code():
    committed = diagram.PICTURE.read_text(encoding="utf-8")
    assert committed == diagram.svg(GRAPH), "python docs/diagram.py draws it anew"


def test_imports_are_found_in_every_form(tmp_path):
    module = tmp_path / "module.py"
    module.write_text(
        "import lora_np.nn.tree\n"
        "from lora_np import linalg, _checks\n"
        "from lora_np.lora.inject import inject\n"
        "def late():\n"
        "    from lora_np.plots import strips\n"
    )
    assert diagram.imported(module) == {"linalg", "lora", "nn", "plots"}


def test_arrows_that_follow_from_others_are_left_out():
    graph = {"roof": {"middle", "ground"}, "middle": {"ground"}, "ground": set()}
    assert diagram.arrows(graph) == [("middle", "ground"), ("roof", "middle")]
