"""Adapters that PEFT's own tests build without a network, from its source distribution: each is
held against PEFT.
"""

import json
import os
import re
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from tests.drawing import FULL

pytestmark = pytest.mark.foreign
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SAMPLE = "test_attributes_parametrized or test_adding_multiple_adapters_with_bias or (TestPeftCustomModel and not parametrized) or Mult"
BD_LORA = "BD-LoRA: its factors are stored as blocks"  # not one of the tuners that are read
REFUSED = {
    "torch's MultiheadAttention": "MultiheadAttention",
    "MonteCLoRA: updates drawn at random": "monteclora_config",
    "KaSA: the base is another one": "kasa_config",
    BD_LORA: "use_bdlora",
    "no LoRA in the file": "holds no LoRA",
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peft")
    download = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
    ]
    download += ["--no-binary", "peft", "peft", "--dest", str(folder)]
    if subprocess.run(download, check=False, timeout=300).returncode:
        pytest.skip("the source distribution of PEFT cannot be downloaded")
    with tarfile.open(next(folder.glob("peft-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    tests = next(folder.glob("peft-*/tests"))
    (tests / "__init__.py").touch()  # they import one another
    return tests.parent


def test_adapters_of_peft_s_own_tests(source, on_page, tmp_path):
    chosen = [] if FULL else ["-k", SAMPLE]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{HERE}:{ROOT}:{source}",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "CASES_TO": str(tmp_path / "cases.json"),
    }
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "ignore", "-p", "peft_cases", "-p", "no:cacheprovider",
         "-c", "/dev/null", "--rootdir", ".", "--tb=no", *chosen, "tests/test_custom_models.py"],
        cwd=source, env=environment, capture_output=True, text=True, timeout=5_400, check=False,
    )  # fmt: skip
    cases = json.loads((tmp_path / "cases.json").read_text())
    assert len(cases) >= 150, run.stdout[-2000:]
    wrong = [case for case in cases if any(said.startswith("WRONG") for said in case.values())]
    custom = [
        case for case in wrong if "test_custom_lora_layer_used" in case["test"]
    ]  # a layer of that test's own
    assert wrong == custom, json.dumps(wrong, indent=1)[:5000]
    reasons = Counter(
        next((why for why, part in REFUSED.items() if part in case["refused"]), case["refused"])
        for case in cases
        if "refused" in case
    )
    assert reasons.keys() <= REFUSED.keys(), reasons
    agree = len(cases) - reasons.total() - len(custom)
    assert agree / (len(cases) - reasons[BD_LORA]) >= 0.90
    if not FULL:
        version = re.sub(r".*peft-", "", source.name)
        rows = {"load; update, merge, sum, count and rewrite equal": agree}
        rows["load, but PEFT itself does not open them again: a layer that a test defines"] = len(
            custom
        )
        rows |= {f"rejected: {why}": reasons[why] for why in REFUSED if reasons[why]}
        on_page("PEFT", version, "adapters", rows)
