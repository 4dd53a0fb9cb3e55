"""Every public object can be pickled, copied and sent to another process, and is shown whatever it
holds; results depend neither on NumPy's settings nor on Python's.
"""

import copy
import dataclasses
import importlib
import inspect
import os
import pickle
import pkgutil
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import joblib
import numpy as np
import pytest

import lora_np as lnp
from lora_np import (
    accounting,
    adapters,
    course,
    exercises,
    grading,
    hub,
    language,
    linalg,
    lora,
    models,
    nn,
    quantise,
    training,
)
from lora_np.autograd import Tensor
from lora_np.table import Table
from tests.drawing import every

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(6, 4)), RNG.normal(size=(6, 3))
LINEAR = nn.Linear.init(d_out=3, d_in=4, rng=0, bias=True)
LLM = language.load("austen")
TEXT = "It is a truth universally acknowledged. " * 8
SETTINGS = {"rank": 2, "steps": 1, "batch_size": 2, "max_length": 16, "progress": False}


def network():
    return nn.Sequential([LINEAR, nn.Activation(nn.relu), nn.Linear.init(d_out=3, d_in=3, rng=1)])


def adapted(variant="lora"):
    return lnp.inject(LINEAR, rank=1, variant=variant)


def stepped(optimizer=None):
    """A run that has state, and gradients for its next step."""
    run = lnp.training_run(optimizer or lnp.Adam(lr=lnp.cosine_schedule(0.1, steps=9)), network())
    for _ in range(3):
        loss(run.model).backward()
        run.step()
    return run


def loss(model):
    return lnp.mean_squared_error(model(X), Y)


def judged():
    exercise = exercises.lessons()[0].exercises[0]
    return exercises.judge(exercise, lambda *_, **__: {"unusable": "no"}, (0,))


#: How to make an object of each kind.
OBJECTS = {
    "Tensor": lambda: Tensor(X),
    "Linear": lambda: LINEAR,
    "Embedding": lambda: nn.Embedding(X),
    "network": network,
    **{
        f"injected {variant}": lambda variant=variant: adapted(variant)
        for variant in lora.VARIANTS
        if variant not in ("loftq", "lora-ga", "lora-one")
    },
    "LoRAEmbedding": lambda: lora.LoRAEmbedding(
        nn.Embedding(X), np.ones((1, 6)), np.ones((4, 1)), 2.0
    ),
    "LoRAExperts": lambda: lora.LoRAExperts(np.ones((2, 3, 4)), X[None, :1], Y.T[None, :, :1], 2.0),
    "TrainableTokens": lambda: lora.TrainableTokens(nn.Embedding(X), (1,), X[:1]),
    "WeightedUpdate": lambda: lora.WeightedUpdate(Y.T[:, :1], X[:1]),
    "loftq": lambda: lora.loftq(X, rank=1),
    **{f"method {name}": lambda row=row: row for name, row in lora.MERGE_METHODS.items()},
    **{f"tuner {name}": lambda row=row: row for name, row in lora.TUNERS.items()},
    "SGD": lambda: nn.SGD(lr=0.1, momentum=0.5),
    "AdamW": lambda: nn.AdamW(lr=nn.linear_schedule(0.1, steps=4)),
    "faster Adam": lambda: nn.Adam(lr=nn.cosine_schedule(0.1, steps=4)).times(2.0),
    "Groups": lambda: lora.lora_plus(nn.Adam()),
    "Run": stepped,
    **{
        kind: lambda kind=kind: quantise.quantise(RNG.normal(size=(4, 256)), kind)
        for kind in quantise.KINDS
    },
    "BlockScales": lambda: quantise.quantise(RNG.normal(size=(4, 256)), "nf4", double=True).scales,
    "Fit": lambda: lnp.fit(adapted(), X, Y, steps=2, progress=False),
    "Problem": lambda: training.Problem(LINEAR, X, Y),
    "Sweep": lambda: lnp.sweep(training.Problem(LINEAR, X, Y), ranks=[1], steps=2, progress=False),
    "RunSettings": training.RunSettings,
    "SVD": lambda: linalg.svd(X),
    "Table": lambda: Table(["rank", "error"], [(1, 0.5), (2, None)], title="Errors"),
    "count": lambda: accounting.count("llama-2-7b", rank=8),
    "count of a tree": lambda: accounting.count(LINEAR),
    "count_matrix": lambda: accounting.count_matrix(100, 120, rank=8),
    "plan": lambda: accounting.plan("llama-2-7b", gpu="24GB"),
    "gpu": lambda: next(iter(accounting.gpus().values())),
    "training_memory": lambda: accounting.training_memory("llama-2-7b", rank=8),
    "memory_terms": lambda: accounting.memory_terms("llama-2-7b", rank=8),
    "compare_memory": lambda: accounting.compare_memory("llama-2-7b", rank=8),
    "flops": lambda: accounting.count_flops("llama-2-7b", rank=8),
    "capacity": lambda: accounting.capacity("llama-2-7b", rank=8),
    "rank errors": lambda: accounting.rank_errors_of(X),
    "training options": accounting.TrainingOptions,
    "model spec": lambda: accounting.model_spec("llama-2-7b"),
    "catalogue": models.catalogue,
    "decoder config": lambda: models.decoder_of(dict(LLM.config)),
    "open model": lambda: models.open_model(hub.shipped_paths("models")["austen"]),
    "directory": lambda: hub.open_directory(hub.shipped_paths("models")["austen"]),
    "dialects": lambda: models.Dialects({"model_type": "mixtral"}),
    "parameter": lambda: models.Parameter(
        models.open_model(hub.shipped_paths("models")["austen"]), "a.weight", {}
    ),
    "patterns": lambda: models.Patterns({"q_proj": 4}),
    "adapter": lambda: adapters.load("king-james"),
    "inspection": lambda: adapters.inspect("king-james"),
    "overlap": lambda: adapters.overlap(["king-james", "devils-dictionary"]),
    "checked": lambda: adapters.check("king-james"),
    "difference": lambda: adapters.diff("king-james", "king-james"),
    "language model": lambda: LLM,
    "adapted language model": lambda: lnp.inject(LLM, rank=1),
    "finetuned": lambda: language.finetune(LLM, TEXT, **SETTINGS),
    "data": lambda: language.read_data("genesis"),
    "sampling": lambda: language.Sampling(tokens=3),
    "finetune settings": language.FinetuneSettings,
    "bake settings": language.BakeSettings,
    "evaluation": lambda: language.evaluate({"austen": LLM}, TEXT, max_length=16, answers=0),
    "lessons": exercises.lessons,
    "puzzles": exercises.puzzles,
    "outcome": judged,
    "scene": lambda: exercises.Scene("Half.", {"loss": [2, 1]}),
    "rules": exercises.Rules,
    "solution": lambda: exercises.solution(exercises.lessons()[0].exercises[0].name),
    "selected": lambda: models.select(accounting.model_spec("llama-2-7b"), ["q_proj"]),
    "place": lambda: models.Place("a.weight"),
    "rewrite": lambda: models.Rewrite("a", "b", "c", "d", "e"),
    "limits": grading.Limits,
    "report": lambda: grading.Report(Path("a.py"), {}),
    "grades": lambda: grading.Grades((), 0, {}),
    "sample": lambda: course.Sample(1, "a", "b", 2.0, 1.0),
}

#: Classes without an object above.
WITHOUT = {
    "a base, of which there is no object": ("Optimizer", "Quantised", "Named"),
    "an error, which needs no copy": ("WireError",),
    "needs a file, a chat model or minutes of work; made of the same parts as others": (
        "GGUFModel", "Chat", "Baked", "Tour", "Update", "Extraction", "ResizeResult", "Written",
    ),
}  # fmt: skip


def nodes(thing, seen):
    """Everything that an object holds."""
    if id(thing) in seen:
        return
    seen[id(thing)] = thing
    parts = (
        list(vars(thing).values())
        if hasattr(thing, "__dict__") and not isinstance(thing, type)
        else []
    )
    if isinstance(thing, dict):
        parts += thing.values()
    elif isinstance(thing, (tuple, list)):
        parts += thing
    for part in parts:
        if not inspect.ismodule(part):
            nodes(part, seen)


def told(thing):
    """All numbers and texts in an object, as text of bytes."""
    if isinstance(thing, Tensor):
        return ["Tensor", told(thing.data), told(thing.grad)]
    if isinstance(thing, np.ndarray):
        return [str(thing.dtype), thing.shape, thing.tobytes().hex()]
    if isinstance(thing, dict):
        return [[str(key), told(part)] for key, part in thing.items()]
    if isinstance(thing, (tuple, list, frozenset)):
        return [type(thing).__name__, *map(told, thing)]
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        return [
            type(thing).__name__,
            *(told(getattr(thing, f.name)) for f in dataclasses.fields(thing)),
        ]
    if callable(thing):
        return getattr(thing, "__qualname__", type(thing).__name__)
    if type(thing).__name__ == "Bank":  # its gradient and scratch are rewritten by each step
        return told([thing.optimizer, thing.values, thing.state])
    if type(thing).__repr__ is object.__repr__:
        return [type(thing).__name__, told(vars(thing) if hasattr(thing, "__dict__") else "")]
    return repr(thing)


def without_addresses(thing):
    return re.sub(" at 0x[0-9a-f]+", "", repr(thing))


def sent(thing):
    """The same object, after a journey through another process."""
    (back,) = joblib.Parallel(n_jobs=2, backend="loky")([joblib.delayed(identity)(thing)])
    return back


def identity(thing):
    return thing


JOURNEYS = [copy.copy, copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))]


@every("name, journey", product(OBJECTS, JOURNEYS))
def test_an_object_is_the_same_after_a_copy(name, journey):
    thing = OBJECTS[name]()
    again = journey(thing)
    assert type(again) is type(thing)
    assert told(again) == told(thing)
    assert without_addresses(thing) == without_addresses(again)


def test_every_object_comes_back_from_another_process():
    things = {name: make() for name, make in OBJECTS.items()}
    back = joblib.Parallel(n_jobs=2)(joblib.delayed(identity)(thing) for thing in things.values())
    for (name, thing), again in zip(things.items(), back, strict=True):
        assert told(again) == told(thing), name


def test_every_public_class_has_an_object():
    seen = {}
    for make in OBJECTS.values():
        nodes(make(), seen)
    kinds = {kind.__name__ for thing in seen.values() for kind in type(thing).__mro__}
    listed = {name for names in WITHOUT.values() for name in names}
    public = {
        thing.__name__
        for module in pkgutil.iter_modules(lnp.__path__, "lora_np.")
        for name in getattr(importlib.import_module(module.name), "__all__", ())
        if isinstance(thing := getattr(importlib.import_module(module.name), name), type)
    }
    assert public - kinds - listed == set()
    assert listed <= public


@pytest.mark.parametrize("journey", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o)), sent])
@pytest.mark.parametrize("optimizer", [None, lnp.SGD(lr=0.1, momentum=0.9)])
def test_a_run_and_its_copy_train_apart_and_alike(optimizer, journey):
    run = stepped(optimizer)
    loss(run.model).backward()
    again = journey(run)
    before = told(run.model)
    again.step()
    assert told(run.model) == before
    run.step()
    assert told(again.model) == told(run.model)
    for one in (again, run):
        loss(one.model).backward()
        one.step()
    assert told(again.model) == told(run.model)
    assert told(run.model) != before
    assert again.steps == run.steps == 5


@pytest.mark.parametrize("make", [network, adapted, lambda: lnp.inject(LLM, rank=1)])
def test_a_model_and_its_copy_share_nothing(make):
    model = make()
    again = copy.deepcopy(model)
    ours, theirs = ([leaf for _, leaf in lnp.leaves(tree)] for tree in (model, again))
    assert len(ours) == len(theirs)  # what is tied stays tied
    for a in ours:
        for b in theirs:
            assert not any(
                np.shares_memory(p, q)
                for p in (getattr(a, "data", a),)
                for q in (getattr(b, "data", b),)
                if isinstance(p, np.ndarray) and isinstance(q, np.ndarray)
            )


def broken(thing, number):
    """The same dataclass with this number in place of every number and in every array of floats."""
    if isinstance(thing, float):
        return number
    if isinstance(thing, np.ndarray) and thing.dtype.kind == "f":
        return np.full_like(thing, number)
    if isinstance(thing, dict):
        return {key: broken(part, number) for key, part in thing.items()}
    if type(thing) in (tuple, list):
        return type(thing)(broken(part, number) for part in thing)
    if isinstance(thing, tuple) and hasattr(thing, "_fields"):
        return type(thing)(*(broken(part, number) for part in thing))
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        changes = {
            field.name: broken(getattr(thing, field.name), number)
            for field in dataclasses.fields(thing)
            if field.init
        }
        try:
            return dataclasses.replace(thing, **changes)
        except (ValueError, TypeError):  # a setting, which is checked
            return thing
    return thing


#: They hold no number that could be NaN: a model's settings, counts times measured bits.
FINITE = {"language model", "adapted language model", "capacity"}


NUMBERS = [float("nan"), float("inf"), -float("inf")]


@every("name, number", product([name for name in OBJECTS if name not in FINITE], NUMBERS))
def test_every_object_is_shown_with_any_number_in_it(name, number):
    thing = broken(OBJECTS[name](), number)
    with np.errstate(all="ignore"):
        assert isinstance(repr(thing), str)
        for kind in ("_repr_html_", "__str__"):
            if hasattr(thing, kind):
                assert isinstance(getattr(thing, kind)(), str)


def test_a_scene_shows_what_is_not_finite():
    told = repr(exercises.Scene("", {"a": [float("nan"), 1, float("inf"), -float("inf"), 2, 0]}))
    assert told == "a\n?▅██ ▁".replace(" ", "█")
    assert "??" in repr(exercises.Scene("", {"a": [[float("nan"), 1.0]]}))
    assert repr(exercises.Scene("", {"a": [float("nan")] * 2, "b": []})).startswith("a\n??")


PROGRAM = """
import sys, warnings
import numpy as np
warnings.simplefilter("error")
{settings}
import lora_np as lnp
from lora_np import adapters, exercises, language, nn, quantise
rng = np.random.default_rng(0)
x, y = rng.normal(size=(20, 4)), rng.normal(size=(20, 3))
labels = rng.integers(0, 3, 20)
model = lnp.inject(nn.Sequential([nn.Linear(rng.normal(size=(3, 4)))]), rank=2)
answers = [lnp.fit(model, x, y, steps=5, progress=False).history.loss]
answers += [nn.softmax(1000 * x), nn.cross_entropy(1000 * y, labels), nn.sigmoid(1000 * x)]
answers += [nn.gelu(1000 * x), *lnp.low_rank_factors(x, rank=2), lnp.rank_errors(x)]
answers += [quantise.quantise(x, kind).error(x) for kind in ("int8", "nf4", "int4")]
t = lnp.Tensor(300 * y)
nn.cross_entropy(t, labels).backward()
answers += [t.grad]
llm = language.load("austen")
text = "It is a truth universally acknowledged. " * 8
settings = dict(rank=2, steps=2, batch_size=2, max_length=16, progress=False)
tuned = language.finetune(llm, text, **settings)
answers += [tuned.history.loss, tuned.after, language.likelihood(llm, text, max_length=16).loss]
answers += [language.generate(llm, "The king ", tokens=20, rng=0)]
answers += [str(adapters.inspect("king-james")), str(lnp.count("llama-2-7b", rank=8))]
answers += [repr(exercises.puzzle("parameters").solve("parameters = r * d"))]
def cut(M, r):
    return M * 1.23456789012
answers += [str(exercises.check(cut))]
for answer in answers:
    print(answer if isinstance(answer, str) else np.asarray(answer).tobytes().hex())
"""
VARIATIONS = {
    "seterr": ('np.seterr(all="raise")', ()),
    "without asserts": ("", ("-O",)),
    "print options": (
        'np.set_printoptions(precision=2, threshold=3, suppress=True, legacy="1.13")',
        (),
    ),
}


def printed(settings="", options=()):
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, *options, "-c", PROGRAM.replace("{settings}", settings)],
        capture_output=True, text=True, cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, f"{settings} {options}: {done.stderr[-2000:]}"
    return done.stdout.splitlines()


def test_results_are_the_same_under_any_settings():
    """Under all at once, and each by itself only to say which it is."""
    settings, options = zip(*VARIATIONS.values(), strict=True)
    usual, together = printed(), printed("\n".join(settings), sum(options, ()))
    if together != usual:
        for name, variation in VARIATIONS.items():
            assert printed(*variation) == usual, name
    assert together == usual
