"""The package as a whole: what an import costs, and that its public names are true and documented."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import lora_np
from tests.drawing import every

MODULES = [
    m.name for m in pkgutil.walk_packages(lora_np.__path__, "lora_np.") if not m.name.endswith("__main__")
]
PUBLIC = [name for name in MODULES if hasattr(importlib.import_module(name), "__all__")]


def run(code):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return result.stdout.strip()


def test_import_loads_nothing_beside_the_root():
    """Not even NumPy, typing or dataclasses: names are loaded when they are first used."""
    code = "import sys; before = {*sys.modules}; import lora_np; print(sorted({*sys.modules} - before))"
    assert run(code) == "['lora_np', 'lora_np.version']"


def test_what_is_used_most_loads_nothing_heavy():
    heavy = ["matplotlib", "typer", "tqdm", "joblib", "rich", "ipywidgets", "torch", "scipy"]
    use = "import sys, lora_np as lnp; lnp.Tensor, lnp.fit, lnp.inject, lnp.count_lora, lnp.low_rank_factors"
    assert run(f"{use}; print([m for m in {heavy} if m in sys.modules])") == "[]"


def test_type_checkers_see_every_name():
    """The imports under TYPE_CHECKING name what ``__all__`` names, from where it is loaded."""
    tree = ast.parse(Path(lora_np.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {}
    for node in block.body:
        for alias in node.names:
            assert alias.asname == alias.name, "only `as` marks a name as meant for others"
            assert alias.name not in seen
            seen[alias.name] = node.module
    assert sorted(seen) == lora_np.__all__
    for name, module in seen.items():
        assert getattr(lora_np, name) is getattr(importlib.import_module(module), name)


@every("module", ["lora_np", *PUBLIC])
def test_public_names_exist_and_are_documented(module):
    module = importlib.import_module(module)
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isroutine(thing):
            assert thing.__doc__, f"{module.__name__}.{name} has no docstring"


def test_names_on_demand():
    assert run("import lora_np as lnp; print(lnp.plots.training_curve.__name__)") == "training_curve"
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = lora_np.nonsense


def test_dir_lists_what_is_public():
    code = "import lora_np; print(set(lora_np.__all__) <= set(dir(lora_np)), 'lora_np.nn' in __import__('sys').modules)"
    assert run(code) == "True False"
