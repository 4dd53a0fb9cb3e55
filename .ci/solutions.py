"""Solutions travel in the wheel as data: not in what students get, and out of reach of a
submission.
"""

import sys
from pathlib import Path

from lora_np.exercises import lessons, solution
from lora_np.exercises.catalogue import DATA
from lora_np.grading.sandbox import Sandbox

handed_out = "".join(path.read_text(encoding="utf-8") for path in Path(sys.argv[1]).iterdir())
for exercise in (exercise for lesson in lessons() for exercise in lesson.exercises):
    assert solution(exercise.name).code not in handed_out, exercise.name

with Sandbox(["def read(path):\n    return open(path).read()"]) as box:
    reply = box.call("read", [str(DATA / "column_of_product.md")])
    assert reply.get("kind") == "PermissionError" or "reading other files" in box.missing, reply
    # the rest of the package can be read
    assert "value" in box.call("read", [str(DATA.parent / "laws.py")])
