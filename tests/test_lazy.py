"""Names are loaded when they are first used, from where their package says."""

import ast
import importlib
from pathlib import Path

import pytest

import lora_np
from tests.laws.test_package import MODULES, PACKAGES, run


@pytest.mark.parametrize("package", PACKAGES)
def test_deferred_imports_name_what_is_public(package):
    """What type checkers read is ``__all__``; each name is imported from where it says, and no file
    is in its way.
    """
    module = importlib.import_module(package)
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.With))
    seen = {}
    for node in block.body:
        for alias in node.names:
            assert alias.asname == alias.name, "only `as` marks a name as meant for others"
            assert alias.name not in seen
            seen[alias.name] = node.module
    assert sorted(seen) == module.__all__
    for name, origin in seen.items():
        assert getattr(module, name) is getattr(importlib.import_module(origin), name)
        assert origin == package or f"{package}.{name}" not in MODULES


def test_a_package_is_deferred_while_other_threads_import():
    code = (
        "import sys, threading, importlib, lora_np.nn as nn; stop = threading.Event()\n"
        "def others():\n"
        "    while not stop.is_set():\n"
        "        from math import pi\n"
        "        assert pi is not None\n"
        "threads = [threading.Thread(target=others) for _ in range(3)]\n"
        "failed = []; threading.excepthook = failed.append\n"
        "[t.start() for t in threads]; before = __import__\n"
        "for _ in range(300): importlib.reload(nn)\n"
        "stop.set(); [t.join() for t in threads]; print(failed, __import__ is before, nn.Linear.__name__)"
    )
    assert run(code) == "[] True Linear"


def test_names_on_demand():
    assert run("import lora_np as lnp; print(lnp.plots.lines.__name__)") == "lines"
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = lora_np.nonsense


def test_dir_lists_what_is_public():
    code = "import lora_np; print(set(lora_np.__all__) <= set(dir(lora_np)), 'lora_np.nn' in __import__('sys').modules)"
    assert run(code) == "True False"
