"""Every cell of a lesson can be run twice, as readers do who change a number and run it again."""

import json
import os

import matplotlib.pyplot as plt
import pytest

import lora_np as lnp
from lora_np.course.notebooks import lessons
from tests.drawing import FULL, few

pytestmark = pytest.mark.slow
LESSONS = lessons()
WRITE = [path for path in LESSONS if "mkdtemp" in path.read_text(encoding="utf-8")]
TRAIN = [(lnp, "fit"), (lnp.training, "sweep"), (lnp.language, "finetune"), (lnp.language, "bake")]


class Trained:
    """What training has returned in a cell; the second time it is handed out again, at once."""

    def __init__(self, monkeypatch):
        self.results, self.again = [], False
        for module, name in TRAIN:
            monkeypatch.setattr(module, name, self.remembered(getattr(module, name)))

    def remembered(self, train):
        def once(*args, **kwargs):
            if self.again:
                return self.results.pop(0)
            self.results.append(train(*args, **kwargs))
            return self.results[-1]

        return once


def test_lessons_that_write_files_are_known():
    assert 4 <= len(WRITE) < len(LESSONS)


@pytest.mark.parametrize(
    "path", LESSONS if FULL else sorted({*WRITE, *few(LESSONS, 5)}), ids=lambda path: path.stem
)
def test_every_cell_runs_twice(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained, names = Trained(monkeypatch), {"__name__": "lesson"}
    notebook = json.loads(path.read_text(encoding="utf-8"))
    try:
        for number, cell in enumerate(notebook["cells"]):
            if cell["cell_type"] != "code" or "install" in cell["metadata"].get("tags", []):
                continue
            code = compile("".join(cell["source"]), f"{path.stem}, cell {number}", "exec")
            trained.results.clear()
            for trained.again in (False, True):
                exec(code, names)
                plt.close("all")
    finally:
        plt.close("all")
        os.chdir(tmp_path)  # a lesson goes to a folder of its own
