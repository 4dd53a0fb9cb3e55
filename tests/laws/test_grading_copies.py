"""A class is graded by a Python with three copies of the package: no submission reads the laws or
solutions of any of them, and every honest answer earns what it earns elsewhere.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest

import lora_np
from tests.drawing import FULL
from tests.grading.messy import messy
from tests.grading.test_classroom import HONEST_PART, IN_A_CALL, fill

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Landlock")

LIB = f"lib/python{sys.version_info.major}.{sys.version_info.minor}"
# As conda keeps environments, and what it has unpacked.
COPIES = (
    f"{LIB}/site-packages",
    f"envs/other/{LIB}/site-packages",
    "pkgs/lora-np-1.0/site-packages",
)
ANSWERS = Path(__file__).parents[1] / "exercises" / "answers"
SECRETS = ("exercises/data/lora_count.md", "exercises/checks/files.py")
NEEDED = [
    "numpy",
    "numpy.libs",
    "matplotlib",
    "mpl_toolkits",
    "contourpy",
    "cycler",
    "dateutil",
    "fontTools",
    "kiwisolver",
    "packaging",
    "PIL",
    "pillow.libs",
    "pyparsing",
    "six.py",
    "joblib",
    "cloudpickle",
    "loky",
    "threadpoolctl.py",
    "tqdm",
    "click",
]
READS = {
    "open": "return open(path).read()",
    "pathlib": "return Path(path).read_bytes()",
    "a descriptor": "return os.read(os.open(path, os.O_RDONLY), 99)",
    "a descriptor of its folder": (
        "return os.read(os.open(os.path.basename(path), 0, dir_fd=os.open(os.path.dirname(path), 0)), 99)"
    ),
    "the folder of processes": "return open('/proc/self/root' + path).read()",
    "a way round": "return open(os.path.join(os.path.dirname(path), '..', *path.split(os.sep)[-2:])).read()",
    "a change of folder": "os.chdir(os.path.dirname(path)); return open(os.path.basename(path)).read()",
    "a map": "import mmap; return mmap.mmap(os.open(path, 0), 0, prot=mmap.PROT_READ)[:99]",
    "NumPy": "return np.fromfile(path, np.uint8, 99).tobytes()",
    "a map of NumPy's": "return bytes(np.memmap(path, mode='r')[:99])",
    "text of NumPy's": "return np.loadtxt(path, dtype=str, delimiter='\\0', comments=None).size",
    "lines kept": "import linecache; return ''.join(linecache.getlines(path))",
    "the tokenizer": "import tokenize; return tokenize.open(path).read()",
    "a codec": "import codecs; return codecs.open(path).read()",
    "a loader": (
        "from importlib.machinery import SourceFileLoader as S; return S('x', path).get_data(path)"
    ),
    "a copy": "import shutil; return shutil.copyfile(path, 'mine') and open('mine').read()",
    "a link": "os.link(path, 'mine'); return open('mine').read()",
    "a symbolic link": "os.symlink(path, 'mine'); return open('mine').read()",
    "a program": "import subprocess; return subprocess.check_output(['cat', path])",
    "C": (
        "import ctypes; c = ctypes.CDLL(None); b = ctypes.create_string_buffer(99)\n"
        "    return c.read(c.open(path.encode(), 0), b, 99) > 0"
    ),
}  # fmt: skip
TRIES = """import os, sys
from pathlib import Path
import numpy as np
def read(path):
    {}
def found():
    for place in {}:
        for name in {}:
            try:
                if read(os.path.join(sys.base_prefix, place, "lora_np", name)):
                    print("was read:", place, name)
                    return True
            except BaseException:
                pass
"""


def link(source, target):
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def copied(source, target, *left_out):
    ignored = shutil.ignore_patterns("tests", *left_out)  # what is compiled, is not compiled again
    if source.is_dir():
        shutil.copytree(source, target, copy_function=link, ignore=ignored, dirs_exist_ok=True)
    elif source.exists():
        link(source, target)


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Another Python, with its own standard library and packages."""
    prefix = tmp_path_factory.mktemp("python")
    standard = Path(sysconfig.get_paths()["stdlib"])
    copied(standard, prefix / LIB, "site-packages", "dist-packages", "test", "idlelib", "config-*")
    (prefix / "bin").mkdir()
    python = prefix / "bin" / "python3"
    shutil.copy2(Path(sys.executable).resolve(), python)
    # Debian's looks for packages elsewhere than in site-packages, which then holds one copy more
    own = Path(seen_by(python, "import site; print(site.getsitepackages()[0])")[-1])
    for place in {*COPIES, own.relative_to(prefix).as_posix()}:
        copied(Path(lora_np.__file__).parent, prefix / place / "lora_np")
        copied(ANSWERS, prefix / place / "tests" / "exercises" / "answers")
    for place in map(Path, {sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]}):
        for name in NEEDED:
            copied(place / name, own / name)
    assert seen_by(python, "print(sys.base_prefix)") == [str(prefix)]
    return python


def seen_by(python, code, *arguments):
    command = [str(python), "-I", "-c", f"import json, sys\n{code}", *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:  # what is copied or linked, is here
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def tries(way):
    return TRIES.format(READS[way], COPIES, SECRETS)


def hostile():
    """By their names: each reads as it is run, or when it is called; some do their worst instead."""
    call = "def lora_count(d, k, r):\n    return r * (d + k) if found() else 0\n"
    for way in READS:
        yield f"reads in a call by {way}", f"{tries(way)}\n# %%\n{call}{HONEST_PART}"
        yield f"reads in a cell by {way}", f"{tries(way)}\nfound()\n{HONEST_PART}"
    for name, worst in list(IN_A_CALL.items())[:20]:
        text = f"import numpy as np\ndef lora_count(d, k, r):\n    {worst}\n{HONEST_PART}"
        yield name, text


GRADE = """
import resource
from pathlib import Path
from lora_np.grading import Limits, grade
limits = Limits(seconds=2, memory=512 * 2**20, total_seconds=20)
grades = grade(Path(sys.argv[1]), numbers=[3], rng=7, limits=limits, jobs=2)
told = {name: [grades.points(name), grades.feedback(name), len(files[0].problems)]
        for name, files in grades.reports.items()}
most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
print(json.dumps([told, grades.missing, most]))
"""


def check(python, folder, hostile, honest):
    fill(folder, {f"{name}.py": text for name, text in hostile.items()} | honest)
    told, missing, most = json.loads(seen_by(python, GRADE, folder)[-1])
    assert missing == {}
    assert most <= 512 + 256  # MiB: what Python and the library take comes on top
    for name in hostile:
        points, feedback, problems = told.pop(name)
        assert "was read" not in feedback, name
        assert points == 2, (name, feedback)
        assert problems <= 1, name
    assert {points for points, *_ in told.values()} == {9}, told
    assert len(told) == len({Path(name).parts[0] for name in honest})


def test_each_way_reads_where_nothing_is_limited(python):
    """Or it would prove nothing that it does not read in the sandbox."""
    for way in READS if FULL else list(READS)[::5]:
        assert seen_by(python, f"{tries(way)}\nfound()")[0].startswith("was read"), way


def test_a_few_submissions_read_none_of_three_copies(python, tmp_path, solved):
    chosen = dict(list(hostile())[3:40:24])
    honest = dict(list(messy(solved).items())[:1])
    check(python, tmp_path / "class", chosen, honest | {"honest.py": solved(3).encode()})


@pytest.mark.slow
def test_sixty_submissions_read_none_of_three_copies_and_twenty_keep_their_points(
    python, tmp_path, solved
):
    everybody = dict(hostile())
    assert len(everybody) == 60
    honest = dict(list(messy(solved).items())[:20])
    check(python, tmp_path / "class", everybody, honest)
