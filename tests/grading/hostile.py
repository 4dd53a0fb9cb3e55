"""Hostile submissions, by class: what each tries, and which layer stops it.

Each defines ``attack(M, given)``. It returns the singular values of ``M`` if it is to use a library
function that the exercise forbids (``SVD``), else True if it did what it must not do. ``given`` has
the targets: files to read and to write, a process, a port, a variable.
``tests/laws/test_grading_hostile.py`` runs all of them against `forbids` alone and in the sandbox, and holds
docs/learn/teaching-threats.md to the result.
"""

from typing import NamedTuple


class Hostile(NamedTuple):
    """``stopped`` names the layers that stop it: ``forbids``, ``sandbox``, both or none."""

    family: str
    name: str
    stopped: str
    code: str
    before: str = ""  # what runs with the cells, before any call


def library(
    name: str, expression: str, stopped: str = "forbids sandbox", before: str = ""
) -> Hostile:
    return Hostile("forbidden functions by another route", name, stopped, expression, before)


SINGULAR = "np.linalg.svd(M)[1]"
HOSTILE = [
    library("another name", "return mine(M)[1]", before="mine = np.linalg.svd"),
    library("imported as", "return mine(M)[1]", before="from numpy.linalg import svd as mine"),
    library("in a dictionary", "return held['it'][0](M)[1]", before="held = {'it': [np.linalg.svd]}"),
    library("unwrapped", "return np.linalg.svd.__wrapped__(M)[1]"),
    library("by another function", "return np.linalg.lstsq(M, M, rcond=None)[3]"),
    library("a name made of strings", "return getattr(np.linalg, 's' + 'vd')(M)[1]"),
    library("importlib", "import importlib\n    return importlib.import_module('numpy.linalg').svd(M)[1]"),
    library("sys.modules", "import sys\n    return sys.modules['numpy.linalg'].svd(M)[1]"),
    library("eval", f"return eval({SINGULAR!r}, {{'np': np, 'M': M}})"),
    library("a pickle", "import pickle\n    return pickle.loads(pickle.dumps(np.linalg.svd))(M)[1]"),
    library("map", "return next(map(np.linalg.svd, [M]))[1]"),
    library("partial", "from functools import partial\n    return partial(np.linalg.svd, M)()[1]"),
    library("methodcaller", "from operator import methodcaller\n    return methodcaller('svd', M)(np.linalg)[1]"),
    library("the key of a sort", "sorted([M], key=lambda M: found.append(np.linalg.svd(M)[1]) or 0)\n    return found[0]", before="found = []"),
    library("vectorize", "return np.vectorize(lambda i: np.linalg.svd(M)[1][i])(np.arange(len(M)))"),
    library("a generator", "return next(np.linalg.svd(M)[1] for _ in [0])"),
    library("a coroutine", "try:\n        later(M).send(None)\n    except StopIteration as end:\n        return end.value",
            before="async def later(M):\n    return np.linalg.svd(M)[1]"),
    library("__array_function__", "return np.trace(Mine(M))",
            before="class Mine:\n    def __init__(self, M):\n        self.M = M\n    def __array_function__(self, *given):\n        return np.linalg.svd(self.M)[1]"),
    library("this package", "import lora_np as lnp\n    return lnp.truncated_svd(M, rank=len(M))[1]"),
    library("a caught refusal", "try:\n        return np.linalg.svd(M)[1]\n    except BaseException:\n        return np.linalg.svd(M)[1]"),
    Hostile("ending the watch of `forbids`", "setprofile", "forbids sandbox", f"import sys\n    sys.setprofile(None)\n    return {SINGULAR}"),
    Hostile("ending the watch of `forbids`", "setprofile under another name", "forbids sandbox", f"end(None)\n    return {SINGULAR}", "from sys import setprofile as end"),
    Hostile("ending the watch of `forbids`", "setprofile called by map", "", f"import sys\n    list(map(sys.setprofile, [None]))\n    return {SINGULAR}"),
    Hostile("ending the watch of `forbids`", "a thread", "forbids sandbox",
            "import threading\n    found = []\n    thread = threading.Thread(target=lambda: found.append(np.linalg.svd(M)[1]))\n"
            "    thread.start()\n    thread.join()\n    return found[0]"),
    Hostile("ending the watch of `forbids`", "a thread of a lower level", "forbids sandbox",
            "import _thread, time\n    found = []\n    _thread.start_new_thread(lambda: found.append(np.linalg.svd(M)[1]), ())\n"
            "    time.sleep(0.2)\n    return found[0]"),
    Hostile("threads and processes that wait", "a thread started before the call", "sandbox",
            "asked.put(M)\n    return found.get(timeout=1)",
            "import queue, threading\nasked, found = queue.Queue(), queue.Queue()\n"
            "def work():\n    while True:\n        found.put(np.linalg.svd(asked.get())[1])\n"
            "threading.Thread(target=work, daemon=True).start()"),
    Hostile("threads and processes that wait", "another Python", "sandbox",
            "import json, subprocess, sys\n    code = 'import json, numpy as np; print(json.dumps(np.linalg.svd(json.loads(input()))[1].tolist()))'\n"
            "    told = subprocess.run([sys.executable, '-c', code], input=json.dumps(M.tolist()), capture_output=True, text=True)\n"
            "    return np.array(json.loads(told.stdout))"),
    Hostile("compiled functions", "NumPy's own, without its Python", "", "return np.linalg._umath_linalg.svd(M, signature='d->d')"),
    Hostile("compiled functions", "SciPy's LAPACK", "", "return dgesdd(M)[1]", "from scipy.linalg.lapack import dgesdd"),
    Hostile("a library's code under another name", "NumPy's source, executed again", "",
            "return space['svd'](M, True, True)[1]",
            "import inspect\nfrom numpy.linalg import _linalg\nspace = {'__name__': 'mine', '__package__': 'numpy.linalg'}\n"
            "exec(inspect.getsource(_linalg).replace('@array_function_dispatch', '@(lambda *a, **k: lambda f: f)'), space)"),
    Hostile("a library's code under another name", "its code with other globals", "",
            "import types\n    f = np.linalg.svd.__wrapped__\n    mine = types.FunctionType(f.__code__, {**f.__globals__, '__name__': 'mine'}, None, f.__defaults__)\n"
            "    return mine(M)[1]"),
    Hostile("a library's code under another name", "a module renamed", "",
            "return np.linalg.svd(M)[1]", "np.linalg.svd.__wrapped__.__globals__['__name__'] = 'mine'"),
    Hostile("changing the check itself", "a constant of forbidden.py", "",
            f"return {SINGULAR}", "from lora_np.exercises import forbidden\nforbidden.LIBRARIES = ('nothing',)"),
    Hostile("changing the check itself", "the watching frame's variables", "",
            "import sys\n    frame = sys._getframe()\n    while frame.f_code.co_name != 'watched':\n        frame = frame.f_back\n"
            f"    frame.f_locals['names'].clear()\n    return {SINGULAR}"),
    Hostile("changing the check itself", "its variables, found by gc", "",
            "import gc\n    for one in gc.get_objects():\n        if type(one) is set and 'svdvals' in one:\n            one.clear()\n"
            f"    return {SINGULAR}"),
    Hostile("changing the check itself", "ctypes ends the watch", "",
            f"import ctypes\n    ctypes.pythonapi.PyEval_SetProfile(None, None)\n    return {SINGULAR}"),
    # What reaches outside of the process; `forbids` is no protection from it, and not meant to be.
    Hostile("reading", "a file of the grader", "sandbox", "return 'secret' in open(given['read']).read()"),
    Hostile("reading", "the solutions", "sandbox", "from lora_np.exercises import solution\n    return 'def' in solution('cut').code"),
    Hostile("reading", "the solutions' file", "sandbox", "import lora_np, os\n    return 'Solution' in open(os.path.join(os.path.dirname(lora_np.__file__), 'exercises/data/cut.md')).read()"),
    Hostile("reading", "by NumPy", "sandbox", "return np.fromfile(given['read'], np.uint8).size > 0"),
    Hostile("reading", "by C", "sandbox", "import ctypes\n    c = ctypes.CDLL(None)\n    return c.read(c.open(given['read'].encode(), 0), ctypes.create_string_buffer(9), 9) > 0"),
    Hostile("reading", "an environment variable", "sandbox", "import os\n    return given['variable'] in os.environ"),
    Hostile("reading", "the environment of the grader", "sandbox", "import os\n    return 'PATH=' in open(f\"/proc/{given['process']}/environ\").read()"),
    Hostile("writing", "a file", "sandbox", "return open(given['write'], 'w').write('x') == 1"),
    Hostile("writing", "a file in its own folder", "sandbox", "return open('mine', 'w').write('x') == 1"),
    Hostile("writing", "a link", "sandbox", "import os\n    os.symlink(given['read'], given['write'])\n    return True"),
    Hostile("writing", "modes", "sandbox", "import os\n    os.chmod(given['read'], 0o644)\n    return True"),
    Hostile("writing", "a folder", "sandbox", "import os\n    os.mkdir(given['write'])\n    return True"),
    Hostile("processes and signals", "a fork", "sandbox", "import os\n    child = os.fork()\n    if not child:\n        os._exit(0)\n    os.waitpid(child, 0)\n    return True"),
    Hostile("processes and signals", "a program", "sandbox", "import subprocess\n    return subprocess.run(['true']).returncode == 0"),
    Hostile("processes and signals", "a pickle that runs a program", "sandbox",
            "import pickle\n    class Bad:\n        def __reduce__(self):\n            import os\n            return os.system, ('true',)\n    return pickle.loads(pickle.dumps(Bad())) == 0"),
    Hostile("processes and signals", "a signal to the grader", "sandbox", "import os\n    os.kill(given['process'], 0)\n    return True"),
    Hostile("processes and signals", "a session of its own", "sandbox", "import os\n    if os.fork() == 0:\n        os.setsid()\n        os._exit(0)\n    return True"),
    Hostile("network", "a connection", "sandbox", "import socket\n    socket.create_connection(('127.0.0.1', given['port']), 2).close()\n    return True"),
    Hostile("network", "a port that listens", "sandbox", "import socket\n    socket.socket().bind(('127.0.0.1', 0))\n    return True"),
    Hostile("resources", "memory", "sandbox", "return np.empty(2**31, np.uint8).size > 0"),
    Hostile("resources", "limits raised", "sandbox", "import resource\n    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))\n    return open(given['write'], 'w').write('x') == 1"),
    Hostile("resources", "a loop without end", "sandbox", "while True:\n        pass"),
    Hostile("resources", "a deep recursion", "forbids sandbox", "return attack(M, given)"),
]  # fmt: skip
# These hand in a wrong answer, and try to have it called right. Each defines lora_count.
WRONG = "def lora_count(d, k, r):\n    return d * k\n"
POINTS = {
    "NumPy's comparisons replaced": f"import numpy as np\nnp.allclose = np.array_equal = lambda *a, **k: True\n{WRONG}",
    "the judge replaced": f"from lora_np.exercises import testing\ntesting.judge = lambda *a: 5 / 0\n{WRONG}",
    "every function of the checks replaced": (
        "from lora_np.exercises import testing, laws\nfor module in (testing, laws):\n    for name in list(vars(module)):\n"
        f"        if callable(vars(module)[name]):\n            setattr(module, name, lambda *a, **k: True)\n{WRONG}"
    ),
    "modules replaced": f"import sys\nsys.modules['lora_np.exercises'] = sys.modules['lora_np.grading'] = sys\n{WRONG}",
    "equal to everything": (
        "class Any:\n    def __eq__(self, other):\n        return True\n    __le__ = __ge__ = __eq__\n    __hash__ = None\n"
        "    def __sub__(self, other):\n        return 0\n    __rsub__ = __sub__\ndef lora_count(d, k, r):\n    return Any()\n"
    ),
    "an int equal to everything": "class Any(int):\n    def __eq__(self, other):\n        return True\n    __hash__ = None\ndef lora_count(d, k, r):\n    return Any(7)\n",
    "the solution asked for": "from lora_np.exercises import solution\nexec(solution('lora_count').code)\n",
    "an answer found in frames": (
        "import sys\ndef lora_count(d, k, r):\n    frame = sys._getframe()\n    while frame:\n        for one in frame.f_locals.values():\n"
        "            if isinstance(one, dict) and 'expected' in one:\n                return one['expected']\n        frame = frame.f_back\n    return 0\n"
    ),
    "a solution found by gc": (
        "import gc\nfor one in gc.get_objects():\n    if type(one).__name__ == 'Exercise' and one.name == 'lora_count' and one.answer:\n"
        "        exec(one.answer)\n        break\nelse:\n    lora_count = lambda d, k, r: 0\n"
    ),
    "verdicts written to every pipe": (
        "import os\nfor fd in range(3, 30):\n    try:\n        os.write(fd, b'{\"value\": 1, \"arguments\": [], \"to\": 1, \"passed\": true, \"points\": 1}\\n' * 9)\n"
        f"    except OSError:\n        pass\n{WRONG}"
    ),
    "the process ended": "import os\ndef lora_count(d, k, r):\n    os._exit(0)\n",
    "SystemExit": "def lora_count(d, k, r):\n    raise SystemExit(0)\n",
    "a reply that is too large": "import numpy as np\ndef lora_count(d, k, r):\n    return np.zeros(2**24)\n",
    "a reply that is too deep": "def lora_count(d, k, r):\n    deep = []\n    for _ in range(10**5):\n        deep = [deep]\n    return deep\n",
    "an object that runs code when it is unpickled": "import os\nclass Bad:\n    def __reduce__(self):\n        return os._exit, (0,)\ndef lora_count(d, k, r):\n    return Bad()\n",
}  # fmt: skip
