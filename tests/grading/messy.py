"""Honest students whose files are untidy: each earns all points of lesson 3."""

import json

# What stands before the answers, in a cell of its own.
BEFORE = {
    "plots": "import matplotlib.pyplot as plt\nplt.plot([1, 2], [3, 4])\nplt.show()\nplt.savefig('figure.png')",
    "torch that is not there": "import torch_that_is_not_there as torch\nlayer = torch.nn.Linear(3, 4)",
    "asks for input": "name = input('Your name? ')",
    "starts a thread": "import threading\nthread = threading.Thread(target=print)\nthread.start()\nthread.join()",
    "prints megabytes": "for i in range(300):\n    print('x' * 10_000)",
    "saves a file": "np.save('matrix.npy', np.eye(3))",
    "divides by zero": "print(1 / 0)",
    "warns": "import warnings\nnp.log(np.zeros(3))\nwarnings.warn('careful')",
    "quits": "quit()",
    "seeds and a star": "from math import *\nnp.random.seed(1)",
    "leaves a syntax error": "def unfinished(x:\n    return x",
    "forgets the indent": "def later(x):\nreturn x",
    "a main that is not run": "if __name__ == '__main__':\n    raise SystemExit('run me')",
    "names in Greek": "α, Δ = 16, np.eye(2)  # naïve",
}


def messy(solved):
    """By their names: the files, as bytes."""
    right = solved(3)
    head, _, answers = right.partition("# %%")
    files = {
        f"{name}.py": f"{head}# %%\n{mess}\n\n# %%{answers}".encode()
        for name, mess in BEFORE.items()
    }
    plots = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\n"
    slow = (
        "import time\n\n\ndef lora_count(d, k, r):\n    time.sleep(0.02)\n    return r * (d + k)\n"
    )
    cached = "from functools import cache\n\n\n@cache\ndef lora_count(d: int, k: int, r: int) -> int:\n    return r * (d + k)\n"
    cells = [
        f"%matplotlib inline\n!pip install torch\n{head}",
        "from lora_np import exercises",
        *answers.split("# %%"),
    ]
    cells += ["exercises.check(lora_count)", "exercises.check(nothing)", "plt.show()"]
    picture = {"output_type": "display_data", "data": {"image/png": "A" * 10**6}, "metadata": {}}
    notebook = [
        {"cell_type": "code", "source": cell.splitlines(keepends=True), "outputs": [picture]}
        for cell in cells
    ]
    return files | {
        "a mark of the order of bytes.py": b"\xef\xbb\xbf" + right.replace("\n", "\r\n").encode(),
        "redirected by PowerShell.py": right.replace("\n", "\r\n").encode("utf-16"),
        "redirected without a mark.py": f"# café\n{right}".encode("utf-16-le"),
        "of an old Mac.py": right.replace("\n", "\r").encode("utf-8-sig"),
        "tabs.py": right.replace("    ", "\t").encode(),
        "Latin letters.py": b"# caf\xe9\r\n" + right.encode(),
        "no marks, plots first.py": (plots + right.replace("# %%", "")).encode(),
        "ends at its end.py": f"{right.replace('# %%', '')}\nimport os\nos._exit(0)\n".encode(),
        "hangs at its end.py": f"{right.replace('# %%', '')}\nwhile True:\n    pass\n".encode(),
        "slow but right.py": f"{right}\n# %%\n{slow}".encode(),
        "types and a cache.py": f"{right}\n# %%\n{cached}".encode(),
        "a notebook with magic and pictures.ipynb": json.dumps({"cells": notebook}).encode(),
        "two tries/old.py": solved(3, without=["lora_count", "affordable_rank"]).encode(),
        "two tries/new.py": right.encode(),
    }  # fmt: skip
