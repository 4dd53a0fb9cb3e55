"""The package as a whole: what an import costs, and that its public names are true and
documented.
"""

import importlib
import inspect
import pkgutil
import subprocess
import sys

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


@every("module", ["lora_np", *PUBLIC])
def test_public_names_exist_and_are_documented(module):
    module = importlib.import_module(module)
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isroutine(thing):
            assert thing.__doc__, f"{module.__name__}.{name} has no docstring"
