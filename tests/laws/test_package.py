"""The package as a whole: what an import costs, and that its public names are true and
documented.
"""

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
    m.name
    for m in pkgutil.walk_packages(lora_np.__path__, "lora_np.")
    if not m.name.endswith(("__main__", ".template_sandbox"))  # which needs jinja2, an extra
]
PUBLIC = [name for name in MODULES if hasattr(importlib.import_module(name), "__all__")]
PACKAGES = [
    name
    for name in PUBLIC
    if name.count(".") == 1 and hasattr(importlib.import_module(name), "__path__")
]
PACKAGES = ["lora_np", *(name for name in PACKAGES if name != "lora_np.cli")]


def run(code):
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def test_import_loads_nothing_beside_the_root():
    """Not even NumPy, typing or dataclasses: names are loaded when they are first used."""
    code = "import sys; before = {*sys.modules}; import lora_np; print(sorted({*sys.modules} - before))"
    assert run(code) == "['lora_np', 'lora_np.lazy', 'lora_np.version']"


def test_what_is_used_most_loads_nothing_heavy():
    heavy = ["matplotlib", "click", "tqdm", "joblib", "ipywidgets", "torch", "scipy"]
    use = "import sys, lora_np as lnp; lnp.Tensor, lnp.fit, lnp.inject, lnp.count_lora, lnp.low_rank_factors"
    assert run(f"{use}; print([m for m in {heavy} if m in sys.modules])") == "[]"


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


@pytest.mark.parametrize(
    ("use", "needs"),
    [
        ("count_lora", "accounting checks lazy table version"),
        ("Tensor", "autograd checks lazy version"),
        ("Linear", "autograd checks lazy nn quantise version"),
        ("inject", "autograd checks lazy lora models nn quantise table version"),
        ("fit", "autograd checks lazy nn quantise settings training version work"),
    ],
)
def test_a_first_use_loads_what_it_runs(use, needs):
    code = f"import sys, lora_np; lora_np.{use}; print(*(m for m in sys.modules if m.startswith('lora_np.')))"
    loaded = set(run(code).split())
    assert {module.split(".")[1] for module in loaded} == set(needs.split())
    assert not loaded & {
        "lora_np.quantise.gguf_blocks",
        "lora_np.training.checkpoint",
    }


@pytest.mark.parametrize(
    "use", ["count_lora", "Tensor", "Linear", "inject", "fit", "adapters.load"]
)
def test_a_first_use_waits_for_no_random_numbers(use):
    """numpy.random takes a tenth of NumPy's import, which does without since NumPy 2.3."""
    code = (
        "import sys, numpy; before = set(sys.modules)\n"
        f"import lora_np; lora_np.{use}; print('numpy.random' in {{*sys.modules}} - before)"
    )
    assert run(code).strip() == "False"


@pytest.mark.parametrize("package", PACKAGES)
def test_an_import_loads_no_other_package(package):
    """Nor anything of its own that it need not."""
    code = f"import sys, {package}; print(*(m for m in sys.modules if m.startswith('lora_np.')))"
    loaded = set(run(code).split()) - {"lora_np.lazy", "lora_np.version", package}
    assert package == "lora_np.autograd" or not loaded


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


@every("module", ["lora_np", *PUBLIC])
def test_public_names_exist_and_are_documented(module):
    module = importlib.import_module(module)
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isroutine(thing):
            assert thing.__doc__, f"{module.__name__}.{name} has no docstring"


def test_names_on_demand():
    assert run("import lora_np as lnp; print(lnp.plots.lines.__name__)") == "lines"
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = lora_np.nonsense


def test_dir_lists_what_is_public():
    code = "import lora_np; print(set(lora_np.__all__) <= set(dir(lora_np)), 'lora_np.nn' in __import__('sys').modules)"
    assert run(code) == "True False"
