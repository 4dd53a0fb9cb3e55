"""One word for each concept, in Python and on the command line: docs/develop/vocabulary.md says which.

Help, errors and first lines of docstrings use the words of the field.
"""

import ast
import dataclasses
import functools
import importlib
import inspect
import pkgutil
import re
import tempfile
import types
from pathlib import Path

import numpy as np
import pytest

import lora_np
from benchmarks.size import nodes_of, tree_of
from lora_np import adapters, autograd, datasets, language, lora, nn
from lora_np.cli import app
from lora_np.cli.dispatch import COMMANDS
from lora_np.nn import Linear
from tests.commands import every_command
from tests.drawing import every
from tests.models.test_gguf_vocabulary import write as write_gguf

ROOT = Path(__file__).parents[2]

# What a parameter must not be called, and the word of the vocabulary.
FORBIDDEN = {
    "where": "targets", "target_modules": "targets",
    "seed": "rng", "random_state": "rng", "generator": "rng", "key": "rng",
    "share": "energy",
    "tol": "tolerance", "rtol": "tolerance", "atol": "tolerance",
    "val": "validation", "valid": "validation", "held_out": "validation", "holdout": "validation",
    "x_val": "validation", "test_data": "validation",
    "scaling": "scale", "alpha_over_r": "scale",
    "workers": "jobs", "n_jobs": "jobs", "threads": "jobs", "processes": "jobs", "num_workers": "jobs",
    "verbose": "progress", "bar": "progress", "quiet": "progress", "show_progress": "progress",
    "sequence": "max_length", "seq_len": "max_length", "context_length": "context",
    "batch": "batch_size", "accumulation": "accumulate", "accumulate_steps": "accumulate",
    "card": "gpu", "precision": "dtype", "data_type": "dtype", "number_type": "dtype",
}  # fmt: skip
# What a command's option must not be called: commands say --seed where Python has rng.
FORBIDDEN_OPTIONS = {name: word for name, word in FORBIDDEN.items() if name != "seed"} | {
    "rng": "seed",
    "card": "gpu",
    "floor": "target-loss",
    "by": "group-by",
}
# Words that help, errors and the first lines of docstrings must not use, and the field's word.
PRIVATE = {
    r"by heart": "memorise",
    r"foretell|foretold": "predict",
    r"bits asked": "bits required",
    r"\bdials?\b": "what is varied",
    r"(texts|sequences|rows) at a time": "batch size",
    r"rows of tokens": "batch size",
    r"walk back": "backward pass",
    r"\bcards?\b": "GPU",
    r"\bbeds?\b": "setup",
    r"linear maps?\b": "linear layer",
    r"own rate": "best learning rate",
    r"in small\b(?!\.| setups)": "quick",
    r"makes? it again": "reproduce",
    r"falls away": "is not needed",
    r"\bbends?\b": "nonlinearity",
    r"right angles": "orthogonal",
    r"listens to": "responds to",
    r"what arrives": "upstream gradient",
    r"h[eo]ld against": "compare with",
    r"read right": "accuracy",
    r"takes off": "reduces",
    r"\bhas read\b": "was trained on",
    r"\bspeaks?\b": "generates text",
    r"instructed (model|one)": "instruction-tuned model",
    r"full (tuning|training)": "full fine-tuning",
    r"(?<!-)\btuned model": "fine-tuned model",
    r"(?<!How )few bits|in its bits": "low precision",
    r"shares its numbers": "tied weights",
    r"(by|each) cause": "memory breakdown",
    r"operations for each": "FLOPs per token",
    r"told by": "detected from",
    r"read alike": "interpret identically",
    r"numbers trained|trained numbers?": "trainable parameters",
    r"times fewer": "reduction",
    r"\b[Ww]hoever\b": "you",
    r"^(Of|Those of|That of)\b": "a verb or a subject",
}
# Turns of phrase that pages must not use either: private, or translated word for word.
TURNS = {
    r"\d numbers\b|(million|billion) numbers|\bnumbers (of|in) (the|a) (model|adapter)": "parameters",
    r"\b(nats|bits|bytes?) (an? |for each )(token|character|number|byte|entry|parameter)": "per",
    r"\b(fused|adapted|linear|stacked|all) maps?\b|\blayers? (and|or) maps\b": "layers, modules",
    r"\b(is|are) to (be|learn|change|memorise|say|know|predict|continue)\b|\bshall\b": "must, should",
    r"\bdo(es)? as well\b": "works as well",
    r"\b(a|one) (conversation|question|example|answer|file) a (line|student)|, one a line": "per line",
    r"\b(on|of) the processor\b": "CPU time",
    r"\bround in circles\b": "repeats itself",
    r"\bbrings? (most|nearly|\d)": "achieves",
    r"\b(stands? (on|in)|stand at)\b": "is based on, is in",
    r"\bcommonest\b": "most common",
    r"\bfor a moment\b": "temporarily",
    r"\bat fault\b": "has a bug",
    r"\b[Ww]ho (has|wants|reads|compares|tunes)\b": "if you",
    r"\btimes through the data\b": "epochs",
    r"\bin low rank\b|\bnats a\b": "low-rank, nats per",
    r"\bSomebody\b": "say who, or use the passive",
}
# And what lessons and exercises must not print, draw or ask either.
TAUGHT = {
    r"\bfor each number\b": "per parameter, for each entry",
    r"\bnumbers (to train|in a block)\b": "trainable parameters, block size",
    r"\bSVD, cut\b|\bcut full update\b": "truncated SVD, truncated full update",
    r"\b(weakest|strongest) parts\b|\bparts of (rank one|the SVD)\b": "terms",
    r"\bplaces (of|in W0|counted)\b": "indices",
    r"\bmixtures? of\b": "linear combination",
    r"\bmaps whose\b|\bof \d+ maps\b": "linear layers",
    r"\blouder\b": "larger, amplified",
    r"(?<!-)\btuned weights?\b": "fine-tuned weight",
}
# A picture shows right angles where they come first; *orthogonal* is the word from then on.
PICTURED = {"follow-the-post", "see-rank", "cut-the-svd", "factor-a-matrix", "look-inside-an-update", "gram_schmidt"}  # fmt: skip
# Packages whose texts still have some of these words: none may be added, and each goes when done.
TO_COME: dict[str, set[str]] = {}
# Constants of an algorithm in its paper's letters, rather than an accuracy that someone asks for.
EPS = {"Adam", "AdamW", "RMSNorm", "LayerConfig", "LayerNorm"}


def packages():
    yield lora_np
    for module in pkgutil.walk_packages(lora_np.__path__, "lora_np."):
        # a sandbox needs jinja2, an extra, and offers no name
        if not module.name.endswith(("__main__", ".template_sandbox")) and (
            ".exercises.checks." not in module.name
        ):
            found = importlib.import_module(module.name)
            if hasattr(found, "__all__"):
                yield found


def public_things():
    """Every public function, class and method: a qualified name, and the thing."""
    seen = set()
    for package in packages():
        for name in package.__all__:
            thing = getattr(package, name)
            if id(thing) in seen or isinstance(thing, types.ModuleType):
                continue
            seen.add(id(thing))
            if inspect.isclass(thing) or inspect.isroutine(thing):
                yield f"{package.__name__}.{name}", thing
            if inspect.isclass(thing):
                for key, member in vars(thing).items():
                    if not key.startswith("_") and (
                        inspect.isfunction(member) or isinstance(member, classmethod)
                    ):
                        yield f"{package.__name__}.{name}.{key}", getattr(thing, key)


THINGS = dict(public_things())


def parameters(thing):
    try:
        return inspect.signature(thing).parameters
    except (ValueError, TypeError):
        return {}


def options():
    """Every option and argument of every command."""

    return sorted(
        {
            (words, option.lstrip("-").replace("-", "_"))
            for words, command in every_command()
            for parameter in command.params
            for option in parameter.opts
        }
    )


def returned(thing):
    annotation = getattr(thing, "__annotations__", {}).get("return", "")
    return (
        annotation
        if isinstance(annotation, str)
        else getattr(annotation, "__name__", str(annotation))
    )


@every("name", THINGS)
def test_parameters(name):
    last = name.rpartition(".")[2]
    for parameter in parameters(THINGS[name]):
        assert parameter not in FORBIDDEN, f"call {parameter} of {name} {FORBIDDEN[parameter]}"
        assert parameter != "eps" or last in EPS, f"call eps of {name} tolerance"


@every("name", THINGS)
def test_properties(name):
    for key, member in vars(THINGS[name]).items() if inspect.isclass(THINGS[name]) else ():
        if isinstance(member, property):
            assert key not in FORBIDDEN, f"call {name}.{key} {FORBIDDEN[key]}"


@every(("command", "option"), options())
def test_options(command, option):
    assert option not in FORBIDDEN_OPTIONS, (
        f"call {option} of {command} {FORBIDDEN_OPTIONS[option]}"
    )


@every("name", THINGS)
def test_results_are_not_bare_tables(name):
    """Columns are for people; programs read fields. ``Table`` itself and the property ``table`` are
    exempt.
    """
    thing = THINGS[name]
    if not inspect.isclass(thing) and not name.startswith("lora_np.table."):
        assert not re.search(r"\bTable\b", returned(thing)), f"{name} returns a bare Table"


@every("name", THINGS)
def test_table_is_a_property(name):
    thing = THINGS[name]
    if inspect.isclass(thing):
        for key in ("table", "to_table", "as_table"):
            assert not inspect.isfunction(getattr(thing, key, None)), (
                f"{name}.{key} must be a property"
            )
        if isinstance(vars(thing).get("table"), property):
            assert dataclasses.is_dataclass(thing), f"{name} must be a dataclass"
            assert thing.__dataclass_params__.frozen, f"{name} must be frozen"


@every("name", THINGS)
def test_saving_names_what_before_where(name):
    """``save(what, path)``: for everything that writes."""
    thing = THINGS[name]
    word = name.rpartition(".")[2]
    if re.match(r"(save|dump)(_|$)", word):
        names = list(parameters(thing))
        own = 0 if not inspect.isclass(thing) and "." in thing.__qualname__ else 1
        assert names[own : own + 1] == ["path"] or (not own and "path" in names[:2]), (
            f"{name}{names}"
        )


def test_no_two_public_classes_share_a_name():
    classes = {}
    for thing in THINGS.values():
        if inspect.isclass(thing):
            classes.setdefault(thing.__name__, set()).add(
                f"{thing.__module__}.{thing.__qualname__}"
            )
    shared = {name: places for name, places in classes.items() if len(places) > 1}
    assert not shared


def test_no_two_classes_in_plain_names_share_a_name():
    """Nor do classes without an underscore in files that belong to no ``__all__``."""
    places = {}
    for path in sorted((ROOT / "lora_np").rglob("*.py")):
        if path.name in {"mini.py", "mini_llama.py"}:  # the same once more, in one file
            continue
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(path.relative_to(ROOT).as_posix())
    shared = {name: files for name, files in places.items() if len(files) > 1}
    assert not shared


@every("package", list(packages()))
def test_no_public_name_equals_a_submodule(package):
    """Importing the submodule would put it in the place of the function."""
    if hasattr(package, "__path__"):
        below = {module.name for module in pkgutil.iter_modules(package.__path__)}
        for name in below & set(package.__all__):
            same = getattr(package, name) is importlib.import_module(f"{package.__name__}.{name}")
            assert same, f"{package.__name__}.{name} is a submodule, too"


@functools.cache
def texts():
    """List every help, error and first line of a docstring, with where it stands."""
    return [*read_texts()]


def read_texts():
    for words, command in every_command():
        yield words, command.help or ""
        for parameter in command.params:
            yield f"{words} {parameter.opts[0]}", getattr(parameter, "help", None) or ""
    for path in sorted((ROOT / "lora_np").rglob("*.py")):
        place = path.relative_to(ROOT / "lora_np").as_posix()
        for node in nodes_of(path):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                yield place, (ast.get_docstring(node) or "").partition("\n\n")[0]
            if isinstance(node, ast.Raise) and node.exc is not None:
                for part in ast.walk(node.exc):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield place, part.value


@every("private", PRIVATE)
def test_texts_use_the_words_of_the_field(private):
    for place, text in texts():
        if re.search(private, text) and private not in TO_COME.get(place.partition("/")[0], ()):
            pytest.fail(f"{place}: {PRIVATE[private]}, not {private}: {text}")


# Pages that may use them: they name words that are not ours, or say what becomes of the old ones.
OWN_WORDS = {
    "docs/develop/vocabulary.md",
    "docs/develop/changelog.md",
    "docs/develop/architecture.md",
}


@functools.cache
def prose():
    """The lines, read once for all words."""
    return [*read_prose()]


def read_prose():
    """Every line of README and the pages, without code, commands and addresses."""
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        name = path.relative_to(ROOT).as_posix()
        made = name.startswith(("docs/_build/", "docs/claims/", "docs/practice/"))
        if made or name in OWN_WORDS:
            continue
        text = path.read_text(encoding="utf-8")
        text = re.sub(r"(?ms)^\s*(```|~~~|:::).*?^\s*\1", lambda m: "\n" * m[0].count("\n"), text)
        text = re.sub(r"`[^`\n]*`|(?<=\])\([^)]*\)", "", text)
        for number, line in enumerate(text.splitlines(), 1):
            yield f"{name}:{number}", line


@every("private", [*(private for private in PRIVATE if not private.startswith("^")), *TURNS])
def test_pages_use_the_words_of_the_field(private):
    found = [f"{place}: {line}" for place, line in prose() if re.search(private, line)]
    assert not found, f"{(PRIVATE | TURNS)[private]}, not {private}"


@functools.cache
def taught():
    """The same of lessons and exercises."""
    return [*read_taught()]


def read_taught():
    """Every line of the lessons and exercises: their code too, which prints and labels figures."""
    for path in sorted((ROOT / "notebooks" / "src").glob("*.py")) + sorted(
        (ROOT / "lora_np" / "exercises" / "data").glob("*.md")
    ):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            yield path.stem, number, line


@every("private", [*(p for p in PRIVATE if not p.startswith("^")), *TURNS, *TAUGHT])
def test_lessons_and_exercises_use_the_words_of_the_field(private):
    allowed = PICTURED if private == "right angles" else set()
    found = [
        f"{name}:{number}: {line}"
        for name, number, line in taught()
        if name not in allowed and re.search(private, line)
    ]
    assert not found, f"{(PRIVATE | TURNS | TAUGHT)[private]}, not {private}"


@every(
    ("words", "command"),
    [*every_command(), *((f"lora-np {name}", app.get_command(None, name)) for name in COMMANDS)],
)
def test_summary_fits_its_line(words, command):
    """At 80 columns no summary in a list of commands ends in an ellipsis."""
    summary = (command.help or "").partition("\n\n")[0]
    assert command.get_short_help_str(63) == summary, words


def test_the_page_names_every_word():
    page = (ROOT / "docs" / "develop" / "vocabulary.md").read_text(encoding="utf-8")
    for word in {*FORBIDDEN.values(), "dtype", "save(what, path)", ".table"}:
        assert word in page


W, X = np.eye(3), np.ones((4, 3))
AUSTEN = language.load("austen")
TEMPLATE = {"chat_template.jinja": b"{% for m in messages %}{{ m.content }}{% endfor %}"}
TALKER = dataclasses.replace(
    AUSTEN, vocabulary=language.Characters(AUSTEN.vocabulary.characters, TEMPLATE)
)
ONE = adapters.Adapter({"q": adapters.AdapterModule.of(A=W[:1], B=np.ones((2, 1)), alpha=1)})


def a_gguf_file():
    path = Path(tempfile.mkdtemp()) / "base.gguf"
    write_gguf(path)
    return path


DRAWING = {
    "inject": lambda rng: lora_np.inject(Linear(W), rank=1, rng=rng),
    "init": lambda rng: Linear.init(d_out=2, d_in=3, rng=rng),
    "fit": lambda rng: lora_np.fit(
        Linear(lora_np.Tensor(W)), X, X, steps=1, rng=rng, progress=False
    ),
    "check_derivative": lambda rng: autograd.check_derivative(np.sin, [1.0], rng=rng),
    "patches": lambda rng: datasets.patches(datasets.terrain(), 1, rng=rng),
    "kaiming": lambda rng: lora.kaiming(rng, 2, 3),
    "generate": lambda rng: language.generate(language.load("austen"), "It", tokens=1, rng=rng),
    "answer": lambda rng: language.answer(
        TALKER, [{"role": "user", "content": "a"}], tokens=1, rng=rng
    ),
    "ask": lambda rng: language.Chat(TALKER).ask("a", tokens=1, rng=rng),
    "finetune": lambda rng: language.finetune(
        language.load("austen"), "It was so. " * 20, max_length=8, steps=1, rng=rng, progress=False
    ),
    "bake": lambda rng: language.bake(
        language.load("austen"),
        "So ",
        plain=True,
        questions=[*"abcde"],
        answer_length=1,
        steps=0,
        rank=1,
        rng=rng,
    ),
    "valid_options": lambda rng: lora.MERGE_METHODS["dare_ties"].valid_options(
        density=None, rank=None, rng=rng
    ),
    "merge": lambda rng: adapters.merge(
        "austen", adapters.load("king-james"), Path(tempfile.mkdtemp()) / "new", rng=rng
    ),
    "merge_gguf": lambda rng: adapters.merge_gguf(
        a_gguf_file(), adapters.Adapter({}), Path(tempfile.mkdtemp()) / "new.gguf", rng=rng
    ),
    "combine": lambda rng: adapters.combine(
        [ONE, ONE], Path(tempfile.mkdtemp()) / "both", method="dare_ties", rng=rng
    ),
}
MEANING = {"check", "grade"}  # where None is the default: the docstring says what it means


def test_all_that_draws_is_asked():
    """Calls of a layer take a Generator or None; the tour and grading take an int, which they
    report.
    """
    drawing = {
        name.rpartition(".")[2]
        for name, thing in THINGS.items()
        if not inspect.isclass(thing) and "rng" in parameters(thing)
    }
    assert drawing - set(DRAWING) == {
        *MEANING,
        "draw",
        "dropout",
        "forecast",
        "log_probabilities",
        "logits",
        "other_seeds",
        "quantise",
        "rounded",
        "token_loss",
        "tour",
    }


@pytest.mark.parametrize("name", DRAWING)
def test_rng_is_a_generator_or_a_whole_number(name):
    if name in ("answer", "ask"):
        pytest.importorskip("jinja2")
    for wrong, error in [
        (None, TypeError),
        ("a", TypeError),
        (True, TypeError),
        (0.5, TypeError),
        (-1, ValueError),
    ]:
        with pytest.raises(
            error, match=f"rng must be a numpy.random.Generator or a .*from 0, got {wrong!r}"
        ):
            DRAWING[name](wrong)
    for right in (0, np.int64(1), np.random.default_rng(0)):
        DRAWING[name](right)


def test_an_int_would_make_all_layers_drop_the_same():
    with pytest.raises(TypeError, match=r"Generator, or None for no dropout, got 0"):
        nn.dropout(X, 0.5, rng=0)
    with pytest.raises(TypeError, match=r"rng must be .*got 'a'"):
        Linear.init(d_out=2, d_in=3, rng="a")


@pytest.mark.parametrize(
    "take",
    [
        lambda dtype: Linear.init(d_out=1, d_in=1, rng=0, bias=True, dtype=dtype).b.dtype,
        lambda dtype: language.load("austen", dtype=dtype).lm_head.W.dtype,
    ],
)
def test_computing_is_in_float32_or_float64(take):
    for right in ("float32", np.float32, np.dtype("float32")):
        assert take(right) == np.float32
    assert take(float) == np.float64
    for spelled, name in [("F32", "float32"), ("fp64", "float64"), ("torch.float32", "float32")]:
        with pytest.raises(ValueError, match=f"dtype must be '{name}', not '{spelled}'"):
            take(spelled)
    for wrong in (
        "int32",
        "complex64",
        np.float16,
        np.longdouble,
        "bfloat16",
        "bf16",
        "x",
        None,
        3,
    ):
        with pytest.raises(ValueError, match="dtype must be one of float32, float64, got "):
            take(wrong)
