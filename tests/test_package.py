"""The package as a whole: what an import costs, and that its public names are true and documented."""

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import lora_np

MODULES = [
    m.name for m in pkgutil.walk_packages(lora_np.__path__, "lora_np.") if not m.name.endswith("__main__")
]
PUBLIC = [name for name in MODULES if hasattr(importlib.import_module(name), "__all__")]


def run(code):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return result.stdout.strip()


def test_import_loads_nothing_heavier_than_numpy():
    heavy = ["matplotlib", "typer", "tqdm", "joblib", "rich", "ipywidgets", "torch", "scipy"]
    assert run(f"import sys, lora_np; print([m for m in {heavy} if m in sys.modules])") == "[]"


@pytest.mark.parametrize("module", ["lora_np", *PUBLIC])
def test_public_names_exist_and_are_documented(module):
    module = importlib.import_module(module)
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isroutine(thing):
            assert thing.__doc__, f"{module.__name__}.{name} has no docstring"


def test_rooms_on_demand():
    assert run("import lora_np as lnp; print(lnp.plots.training_curve.__name__)") == "training_curve"
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = lora_np.nonsense


def test_dir_lists_what_is_public():
    assert set(lora_np.__all__) <= set(dir(lora_np))
