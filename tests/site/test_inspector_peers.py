"""The script of the adapter inspector on adapters that PEFT made: run by Node, held against the
package.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.site.adapter_cases import SCRIPT, check, given

sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "explorer"))
import adapter_data

pytestmark = pytest.mark.peers
EXPLORER = Path(adapter_data.__file__).parent
NAMES = ("svd.js", "tensors.js", "adapter.js", "expressions.js", "formats.js", "checking.js")
CASES = [
    {"r": 4},
    {"r": 8, "lora_alpha": 3},
    {"r": 5, "use_rslora": True},
    {"r": 4, "use_dora": True},
    {"r": 4, "target_modules": ["embed", "up"]},
    {"r": 4, "rank_pattern": {"up": 2}, "alpha_pattern": {"layers.1.up": 11}},
    {"r": 16, "target_modules": "all-linear"},
    {"r": 3, "modules_to_save": ["head"]},
    {"r": 2, "bias": "lora_only"},
    {"r": 6, "lora_bias": True},
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=lambda case: json.dumps(case))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_peft_made(tmp_path, case, dtype):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    import peft
    import torch
    from torch import nn

    torch.manual_seed(len(json.dumps(case)))

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(12, 20), nn.Linear(20, 12)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(30, 12), nn.Linear(12, 30)
            self.layers = nn.ModuleList([Layer(), Layer()])

        def forward(self, x):
            x = self.embed(x)
            for layer in self.layers:
                x = layer.down(layer.up(x))
            return self.head(x)

    model = peft.get_peft_model(
        Model(), peft.LoraConfig(**{"target_modules": ["up", "down"], **case})
    )
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.normal_()
    model.to(getattr(torch, dtype)).save_pretrained(tmp_path / "adapter")
    ranks = [1, 2, 4]
    argument = json.dumps(given(tmp_path / "adapter", ranks))
    scripts = (
        adapter_data.script(),
        *((EXPLORER / name).read_text(encoding="utf-8") for name in NAMES),
    )
    script = f"globalThis.window = globalThis;\n{''.join(scripts)}\n"
    script += (
        f"({SCRIPT})({argument}).then((answer) => process.stdout.write(JSON.stringify(answer)));"
    )
    done = subprocess.run([node, "-"], input=script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-600:]
    check(tmp_path / "adapter", ranks, json.loads(done.stdout), tmp_path)
