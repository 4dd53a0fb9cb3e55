"""Arrays of every dtype and layout give the numbers of float64, or are refused by their name.

Every public name that takes an array has a row that says how to call it. The values are so large
that an integer type would wrap around, and what a mask hides is a number that changes the result.
"""

import dataclasses
import importlib
import inspect
import pkgutil
import re
import warnings
from collections import Counter
from types import SimpleNamespace
from typing import NamedTuple
from zlib import crc32

import numpy as np
import pytest
from matplotlib.figure import Figure

import lora_np as lnp
from lora_np import (
    accounting,
    autograd,
    datasets,
    hub,
    language,
    linalg,
    lora,
    nn,
    plots,
    quantise,
    training,
)
from lora_np.autograd import Tensor, value
from lora_np.exercises import Scene
from tests.drawing import FULL

CALLS = 10_000 if FULL else 500

INTEGERS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOATS = ("float16", "longdouble")
REFUSED = ("complex", "masked", "masked in a list")
LAYOUTS = ("byte-swapped", "read-only", "negative strides", "0-d", "list", "Tensor")
KINDS = (*INTEGERS, *FLOATS, *REFUSED, *LAYOUTS)

#: The largest magnitude that is drawn: squares of these leave every integer type.
LARGEST = 6_000_000_000


class Argument(NamedTuple):
    """An array argument: its shape, and what it means."""

    shape: tuple[int, ...]
    of: str = "numbers"  # or "chances" from 0 to 1, or "indices"
    count: int = 0  # of what the indices are


class Row(NamedTuple):
    """How to call a public name, by its array arguments."""

    call: object
    arguments: dict[str, Argument]


def drawn(rng, kind, argument):
    """The argument, of this kind and in float64 (indices: int64)."""
    shape = () if kind == "0-d" else argument.shape
    if argument.of == "indices":
        kind = "int64" if kind == "float64" else kind
        wide = rng.integers(0, 2 if kind == "bool" else argument.count, shape)
    elif argument.of == "chances":
        wide = rng.integers(1, 64, shape) / 64
    elif kind in INTEGERS:
        limits = SimpleNamespace(min=0, max=1) if kind == "bool" else np.iinfo(kind)
        low, high = max(limits.min, -LARGEST), min(limits.max, LARGEST)
        wide = rng.integers(low, high, shape, endpoint=True).astype(np.float64)
    else:
        wide = rng.integers(-16, 17, shape) / 4
    wide = np.asarray(wide)
    given = in_kind(rng, kind, wide)
    return given, given.astype(wide.dtype) if kind in INTEGERS else wide


def in_kind(rng, kind, wide):
    match kind:
        case "complex":
            return wide * (1 + 1j)
        case "masked":
            return np.ma.array(wide, mask=rng.random(wide.shape) < 0.5)
        case "masked in a list":
            whole = np.ma.array(wide, mask=True)
            return list(whole) if wide.ndim > 1 else [*wide[:-1], np.ma.masked]
        case "byte-swapped":
            return wide.astype(wide.dtype.newbyteorder("S"))
        case "read-only":
            wide = wide.copy()
            wide.flags.writeable = False
            return wide
        case "negative strides":
            return np.ascontiguousarray(np.flip(wide))[(slice(None, None, -1),) * wide.ndim]
        case "list":
            return wide.tolist()
        case "Tensor":
            return Tensor(wide)
        case "0-d":
            return wide
    return wide.astype(kind)


def parts(result):
    """All numbers and texts of a result, in order."""
    if isinstance(result, Tensor):
        yield value(result)
    elif isinstance(result, quantise.Quantised):
        yield result.dequantised()
    elif isinstance(result, (np.ndarray, np.generic, int, float)):
        yield np.asarray(result)
    elif isinstance(result, dict):
        yield from parts(list(result.values()))
    elif isinstance(result, (tuple, list)):
        for item in result:
            yield from parts(item)
    elif dataclasses.is_dataclass(result):
        yield from parts([getattr(result, field.name) for field in dataclasses.fields(result)])
    elif result is not None and not callable(result):
        yield str(result)


def equal(found, expected, tolerance):
    found, expected = list(parts(found)), list(parts(expected))
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        if isinstance(a, str) or isinstance(b, str):
            assert a == b
            continue
        assert a.shape == b.shape
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        largest = np.max(np.abs(b[np.isfinite(b)]), initial=0.0)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * largest)


def answered(row, given):
    """The result, or the error."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            warnings.simplefilter("ignore", RuntimeWarning)
            return row.call(**given), None
    except Exception as error:
        return None, error


def outcome(name, row, seed):
    """Call once with arguments of a drawn kind, and say what came of it."""
    rng = np.random.default_rng([crc32(name.encode()), seed])
    kind = KINDS[seed % len(KINDS)]
    if kind in LEFT_OUT.get(name.partition(" ")[0], ()) or kind in LEFT_OUT.get(name, ()):
        return "left out"
    chosen = [*row.arguments]
    if rng.random() < 0.5:
        chosen = [chosen[rng.integers(len(chosen))]]
    given, wide = {}, {}
    for argument, about in row.arguments.items():
        given[argument], wide[argument] = drawn(
            rng, kind if argument in chosen else "float64", about
        )
    told = f"{name} with {kind} {', '.join(chosen)} of {wide}"
    found, error = answered(row, given)
    if error is not None:
        names = [INSIDE.get((name, argument), argument) for argument in chosen]
        named = any(re.search(rf"(?<!\w){re.escape(a)}(?!\w)", str(error)) for a in names)
        assert isinstance(error, (TypeError, ValueError)), f"{told}: {error!r}"
        if kind == "0-d" and isinstance(error, ValueError):
            return "refused"  # NumPy says which shapes do not fit
        assert named, f"{told} is refused without the argument's name: {error!r}"
        may_refuse = kind in (*REFUSED, "0-d", "list", "Tensor")
        meant = {row.arguments[a].of for a in chosen}
        if not may_refuse and meant == {"numbers"}:
            _, reference = answered(row, wide)
            assert type(reference) is type(error), f"{told}: {error!r}"
        return "refused"
    if kind == "complex" and name in UNCHANGED:
        return "equal"
    assert kind not in REFUSED, f"{told} is accepted"
    expected, error = answered(row, wide)
    assert error is None, f"{told} is accepted, unlike float64: {error!r}"
    try:
        equal(found, expected, 0.02 if kind == "float16" else 1e-9)
    except AssertionError as problem:
        raise AssertionError(f"{told}: {found} is not {expected}") from problem
    return "equal"


def matrices(*names, shape=(4, 3)):
    return {name: Argument(shape) for name in names}


def product(factors):
    B, A = factors
    return B @ A


def whole(svd):
    return (svd.U * svd.s) @ svd.Vh, svd.s


def drawing(figure):
    """The numbers in a figure."""
    found = []
    for ax in figure.axes if isinstance(figure, Figure) else [figure]:
        found += [np.ma.filled(image.get_array(), np.nan) for image in ax.images]
        found += [line.get_ydata() for line in ax.lines]
    return found


def axes():
    return Figure().add_subplot()


X = {"x": Argument((5, 3))}
FACTORS = {"A": Argument((2, 3)), "B": Argument((4, 2))}
BASE = nn.Linear(np.arange(12.0).reshape(4, 3) / 4 - 1, np.ones(4))
GIVEN = np.arange(15.0).reshape(5, 3) / 4
LAYER = {"W": Argument((4, 3)), "b": Argument((4,)), **X}
LABELS = {"labels": Argument((5,), "indices", 3)}
TOKENS = {"tokens": Argument((2, 4), "indices", 3)}


def lora_layer(x=GIVEN, *, rng=None, base=BASE, **factors):
    layer = lora.LoRALinear(base, alpha=3.0, dropout=0.25, **factors)
    drop = None if rng is None else np.random.default_rng(rng)
    return layer(x, rng=drop), layer.delta(), lnp.merge(layer).W


def injected(W, x, variant="lora", **options):
    options.setdefault("rng", 0)
    model = lnp.inject(nn.Linear(W), rank=1, variant=variant, **options)
    return model(x), lnp.merge(model).W


def in_gradients(W, gradients, variant):
    return injected(W, GIVEN, variant, gradients={"": gradients})[1]


def trained(x, y):
    model = lnp.inject(BASE, rank=1)
    result = lnp.fit(model, x, y, steps=2, progress=False)
    return result.history.loss, lnp.merge(result.model).W


def swept(x, y):
    problem = training.Problem(BASE, x, y)
    result = lnp.sweep(problem, ranks=[1], steps=2, progress=False)
    return [result.records[0]["loss"], problem.optimum(1)]


def rebased(W):
    original = nn.Linear(W)
    tuned = lnp.inject(original, rank=1, variant="pissa")
    return lnp.merge(lora.rebase(tuned, original)).W


def merged_by(method):
    def call(B, A, gram):
        update = lora.WeightedUpdate(B, A, 0.5, 3.0, gram)
        other = lora.WeightedUpdate(np.ones((4, 2)), np.ones((2, 3)), 1.0, 1.0, np.eye(3))
        row = lora.MERGE_METHODS[method]
        return (
            update.delta,
            update.weighted,
            product(row([update, other], rng=0 if row.chance else None)),
        )

    return call


def through(module, *arrays):
    """A linear function of a layer's backward pass, so that gradients are judged too."""
    result = module(*arrays)
    np.sum(result).backward()
    return result


def gradients_of(x, A, B):
    tensors = [a if isinstance(a, Tensor) else Tensor(a) for a in (A, B)]
    layer = lora.LoRALinear(BASE, *tensors, alpha=2.0)
    return through(layer, x), [tensor.grad for tensor in tensors]


ROWS = {
    # autograd
    "autograd.Tensor": Row(lambda data: Tensor(data) * 2, matrices("data")),
    "autograd.value": Row(autograd.value, matrices("x")),
    "autograd.affine": Row(autograd.affine, LAYER),
    "autograd.adapted_affine": Row(
        lambda **arrays: autograd.adapted_affine(scale=1.5, **arrays), {**LAYER, **FACTORS}
    ),
    "autograd.plus_low_rank": Row(
        lambda **arrays: autograd.plus_low_rank(scale=1.5, **arrays),
        {"h": Argument((5, 4)), **X, **FACTORS},
    ),
    "autograd.grad": Row(
        lambda argument: autograd.grad(lambda x: np.sum(x * x * x))(argument), matrices("argument")
    ),
    "autograd.check_derivative": Row(
        lambda argument: autograd.check_derivative(np.multiply, argument, 2.5, tolerance=1) < 1,
        matrices("argument"),
    ),
    "autograd.primitive": Row(
        lambda a: autograd.primitive(lambda a: a * a, lambda y, a: lambda g: 2 * g * a)(a),
        matrices("a"),
    ),
    # nn
    "nn.Linear": Row(lambda W, b, x: nn.Linear(W, b)(x), LAYER),
    "nn.Linear quantised": Row(
        lambda x: nn.Linear(quantise.quantise(BASE.W, "int8"), np.ones(4))(x), X
    ),
    "nn.Embedding": Row(
        lambda W, tokens: nn.Embedding(W)(tokens), {"W": Argument((3, 4)), **TOKENS}
    ),
    "nn.Activation": Row(lambda x: nn.Activation(nn.relu)(x), X),
    "nn.Sequential": Row(lambda x: nn.Sequential([BASE, nn.Activation(np.tanh)])(x), X),
    "nn.accuracy": Row(nn.accuracy, {"logits": Argument((5, 3)), **LABELS}),
    "nn.cross_entropy": Row(nn.cross_entropy, {"logits": Argument((5, 3)), **LABELS}),
    "nn.mean_squared_error": Row(nn.mean_squared_error, matrices("prediction", "target")),
    "nn.dropout": Row(lambda x: nn.dropout(x, 0.25, rng=np.random.default_rng(0)), X),
    "nn.relu": Row(nn.relu, X),
    "nn.gelu": Row(nn.gelu, X),
    "nn.sigmoid": Row(nn.sigmoid, X),
    "nn.softmax": Row(nn.softmax, X),
    # lora
    "lora.LoRALinear": Row(lora_layer, {**X, **FACTORS, "c": Argument((4,))}),
    "lora.LoRALinear dropout": Row(lambda **arrays: lora_layer(rng=0, **arrays), {**X, **FACTORS}),
    "lora.LoRALinear gradients": Row(gradients_of, {**X, **FACTORS}),
    "lora.LoRAEmbedding": Row(
        lambda tokens, A, B: (
            (layer := lora.LoRAEmbedding(nn.Embedding(BASE.W.T), A, B, alpha=3.0))(tokens),
            layer.merged().W,
        ),
        {**TOKENS, "A": Argument((2, 3)), "B": Argument((4, 2))},
    ),
    "lora.LoRAExperts": Row(
        lambda base, A, B: lora.LoRAExperts(base, A, B, alpha=3.0).merged(),
        {"base": Argument((2, 4, 3)), "A": Argument((2, 2, 3)), "B": Argument((2, 4, 2))},
    ),
    "lora.DoRALinear": Row(
        lambda m, b, x, A, B: (
            (layer := lora.DoRALinear(lora.LoRALinear(nn.Linear(BASE.W), A, B, alpha=3.0), m, b))(
                x
            ),
            lnp.merge(layer).W,
        ),
        {"m": Argument((4,)), "b": Argument((4,)), **X, **FACTORS},
    ),
    "lora.TrainableTokens": Row(
        lambda tokens, rows: (
            (layer := lora.TrainableTokens(nn.Embedding(BASE.W), (2, 0), rows))(tokens),
            layer.merged().W,
        ),
        {**TOKENS, "rows": Argument((2, 3))},
    ),
    "lora.Residual": Row(lambda W, b, x: lora.Residual(W, b)(x), LAYER),
    "lora.loftq": Row(lambda W: product(lora.loftq(W, rank=1)[2:0:-1][::-1]), matrices("W")),
    "lora.inject": Row(injected, {"W": Argument((4, 3)), **X}),
    **{
        f"lora.inject {variant}": Row(
            lambda W, x, variant=variant: injected(W, x, variant), {"W": Argument((4, 3)), **X}
        )
        for variant in lora.VARIANTS
        if variant not in ("lora", "loftq", "lora-ga", "lora-one")
    },
    **{
        f"lora.inject {variant}": Row(
            lambda W, gradients, variant=variant: in_gradients(W, gradients, variant),
            matrices("W", "gradients"),
        )
        for variant in ("lora-ga", "lora-one")
    },
    "lora.merge": Row(lora_layer, {**FACTORS, "c": Argument((4,))}),
    "lora.rebase": Row(rebased, matrices("W")),
    **{
        f"lora.WeightedUpdate {method}": Row(
            merged_by(method),
            {"B": Argument((4, 2)), "A": Argument((2, 3)), "gram": Argument((3, 3))},
        )
        for method in lora.MERGE_METHODS
    },
    # linalg
    **{
        f"linalg.{name}": Row(getattr(linalg, name), matrices("M"))
        for name in (
            "column_space",
            "effective_rank",
            "energy",
            "independent_columns",
            "matrix_rank",
            "rank_errors",
            "rank_for_energy",
            "rank_for_error",
            "row_echelon",
            "stable_rank",
        )
    },
    "linalg.lu": Row(lambda M: (lu := linalg.lu(M)) and (lu[0], lu[1] @ lu[2]), matrices("M")),
    "linalg.qr": Row(lambda M: product(linalg.qr(M)), matrices("M")),
    "linalg.svd": Row(lambda M: whole(linalg.svd(M)), matrices("M")),
    "linalg.truncated_svd": Row(lambda M: whole(linalg.truncated_svd(M, rank=2)), matrices("M")),
    "linalg.low_rank_factors": Row(
        lambda M: product(linalg.low_rank_factors(M, rank=2)), matrices("M")
    ),
    "linalg.svd_of_product": Row(
        lambda B, A: whole(linalg.svd_of_product(B, A)),
        {"B": Argument((4, 2)), "A": Argument((2, 3))},
    ),
    "linalg.rank_within": Row(
        lambda errors: linalg.rank_within(errors, tolerance=0.3),
        {"errors": Argument((4,), "chances")},
    ),
    "linalg.principal_angles": Row(
        linalg.principal_angles, {"M1": Argument((5, 2)), "M2": Argument((5, 2))}
    ),
    "linalg.similarity_grid": Row(
        linalg.similarity_grid, {"A1": Argument((2, 5)), "A2": Argument((2, 5))}
    ),
    "linalg.subspace_similarity": Row(
        lambda A1, A2: linalg.subspace_similarity(A1, A2, 1, 2),
        {"A1": Argument((2, 5)), "A2": Argument((2, 5))},
    ),
    "linalg.amplification_factor": Row(
        lambda W0, dW: linalg.amplification_factor(W0, dW, rank=1), matrices("W0", "dW")
    ),
    "linalg.intruder_dimensions": Row(
        lambda W0, W: linalg.intruder_dimensions(W0, W, top=2), matrices("W0", "W")
    ),
    "linalg.reduced_rank_regression": Row(
        lambda X, Y, W0: product(linalg.reduced_rank_regression(X, Y, W0=W0, rank=1)),
        {"X": Argument((9, 3)), "Y": Argument((9, 4)), "W0": Argument((4, 3))},
    ),
    "linalg.optimal_losses": Row(
        lambda X, Y, W0: linalg.optimal_losses(X, Y, W0=W0, validation=(X, Y)),
        {"X": Argument((9, 3)), "Y": Argument((9, 4)), "W0": Argument((4, 3))},
    ),
    # quantise
    **{
        f"quantise.quantise {kind}": Row(
            lambda W, kind=kind: quantise.quantise(W, kind), {"W": Argument((2, 256))}
        )
        for kind in quantise.KINDS
        if kind != "F16"
    },
    "quantise.quantise F16": Row(
        lambda W: quantise.quantise(np.clip(W, -9, 9) if type(W) is np.ndarray else W, "F16"),
        {"W": Argument((2, 32))},
    ),
    "quantise.Quantised error": Row(
        lambda W: quantise.quantise(BASE.W, "int8").error(W), matrices("W")
    ),
    "quantise.normal_quantile": Row(quantise.normal_quantile, {"p": Argument((5,), "chances")}),
    # datasets, training, accounting, hub, models, language
    "datasets.patches": Row(
        lambda image: datasets.patches(image, 2, rng=0), {"image": Argument((12, 25))}
    ),
    "datasets.standardised": Row(datasets.standardised, {"image": Argument((5, 6))}),
    "training.fit": Row(trained, {**X, "y": Argument((5, 4))}),
    "training.Problem": Row(swept, {**X, "y": Argument((5, 4))}),
    "training.optimum": Row(
        lambda x, y: training.optimum(lnp.inject(BASE, rank=1), x, y),
        {**X, "y": Argument((5, 4))},
    ),
    "accounting.rank_errors_of": Row(
        lambda matrix: accounting.rank_errors_of(matrix).errors, matrices("matrix")
    ),
    "hub.rounded": Row(lambda array: hub.rounded(array, "bfloat16"), {"array": Argument((4,))}),
    "language.windows": Row(
        lambda tokens: language.windows(tokens, 3), {"tokens": Argument((8,), "indices", 9)}
    ),
    "language.token_loss": Row(
        lambda tokens, labels: language.token_loss(AUSTEN, tokens, labels),
        {"tokens": Argument((2, 4), "indices", 9), "labels": Argument((2, 4), "indices", 9)},
    ),
    "language.log_probabilities": Row(
        lambda tokens, labels: language.log_probabilities(AUSTEN, tokens, labels),
        {"tokens": Argument((2, 4), "indices", 9), "labels": Argument((2, 4), "indices", 9)},
    ),
    "exercises.Scene": Row(lambda panel: repr(Scene("a", {"panel": panel})), matrices("panel")),
    # plots
    "plots.heatmap": Row(
        lambda values: drawing(plots.heatmap(values, xlabel="", ylabel="", ax=axes())),
        matrices("values"),
    ),
    "plots.gallery": Row(
        lambda one: drawing(plots.gallery({"one": one}, figure=Figure())), matrices("one")
    ),
    "plots.matrix_tiles": Row(
        lambda one: drawing(plots.matrix_tiles({"one": one}, figure=Figure())), matrices("one")
    ),
    "plots.image_approximations": Row(
        lambda image, one: drawing(
            plots.image_approximations(image, {"one": one}, figure=Figure())
        ),
        matrices("image", "one"),
    ),
    "plots.lines": Row(
        lambda one: drawing(plots.lines({"one": one}, xlabel="", ylabel="", ax=axes())),
        {"one": Argument((4,))},
    ),
    "plots.singular_spectrum": Row(
        lambda one: drawing(plots.singular_spectrum({"one": one}, ax=axes())),
        {"one": Argument((4,), "chances")},
    ),
    "plots.rank_error_curves": Row(
        lambda one: drawing(plots.rank_error_curves({"one": one}, ax=axes())),
        {"one": Argument((4,), "chances")},
    ),
}
AUSTEN = language.load("austen")
#: What is not drawn, and why.
LEFT_OUT = {
    # a kernel knows no shapes, which its layer has checked
    **dict.fromkeys(
        ("autograd.affine", "autograd.adapted_affine", "autograd.plus_low_rank"), ("0-d",)
    ),
    # NumPy says which index does not fit
    "lora.LoRAExperts": ("0-d",),
    "lora.TrainableTokens": ("0-d",),
    # a vote may turn by rounding
    **{f"lora.WeightedUpdate {m}": ("float16",) for m in lora.MERGE_METHODS if "ties" in m},
    # matplotlib says what it does not draw
    **{f"plots.{name}": ("0-d",) for name in plots.__all__},
}
#: What an argument is called where it is refused.
INSIDE = {
    ("lora.LoRALinear gradients", "A"): "data",
    ("lora.LoRALinear gradients", "B"): "data",
    ("autograd.plus_low_rank", "A"): "W",
    ("autograd.plus_low_rank", "B"): "W",
    ("autograd.plus_low_rank", "h"): "b",
}
#: They return the entries, or some of them, as they are.
UNCHANGED = {"autograd.value", "language.windows"}


#: Names whose annotations speak of arrays, or of any object, and that have no row.
WITHOUT_ROW = {
    "takes a model or a tree, whose layers have converted their arrays": (
        "adapters.attach", "adapters.save", "language.composed_operations", "lora.adapter_leaves",
        "lora.learning_rate", "nn.Run", "nn.freeze", "nn.layer_specs", "nn.leaves", "nn.outline",
        "nn.replace", "nn.trainable", "nn.training_run", "nn.walk",
    ),
    "is made by the package, and holds what it was given": (
        "accounting.RankErrors", "adapters.Adapter", "adapters.AdapterModule",
        "adapters.Inspection", "language.Adapted", "language.Baked", "language.LanguageModel",
        "linalg.SVD", "lora.LoftQ", "training.Fit", "training.History", "training.Sweep",
        "training.uninterrupted",
    ),
    "holds codes and scales as a file has them, whose dtype says what they mean": (
        "models.as_stored", "quantise.BlockScales", "quantise.Blocks", "quantise.FourBit",
        "quantise.Int8",
    ),
    "takes or makes a function, which gets its arrays later": (
        "autograd.constant", "autograd.derivative", "exercises.call", "exercises.check",
        "lora.MergeMethod", "lora.Tuner",
    ),
    "sends any array as it is": ("exercises.encode",),
    "passes Gram matrices on to where lora.WeightedUpdate and linalg check them": (
        "adapters.combine", "adapters.convert", "adapters.extract", "adapters.resize",
        "adapters.to_lora",
    ),
    "draws the spectra of an inspection": ("plots.adapter_overview",),
    "takes names, text, settings, headers or data in text": (
        "cli.app", "exercises.ending", "exercises.notebook_text", "exercises.run_cell", "hub.ModelDirectory",
        "hub.SafetensorsFile", "language.BakeSettings", "language.FinetuneSettings",
        "language.bake", "language.build", "language.finetune", "language.forecast",
        "lora.selecting", "lora.tuner_of", "models.ModelSpec", "models.OpenModel",
        "models.GGUFModel", "models.Patterns", "models.check_patterns", "models.describe", "models.select",
        "plots.label_line", "training.RunSettings",
    ),
}  # fmt: skip
#: What an annotation says that may be an array.
ARRAYS = re.compile(r"Array|Operand|Tensor|ndarray|Quantised|Grams|Stored|\b(T|Any|object|Value)\b")


def public():
    """Every public name, by the package that has it first, and whether it may take an array."""
    seen = set()
    packages = [m.name for m in pkgutil.iter_modules(lnp.__path__, "lora_np.") if m.ispkg]
    for module in ("lora_np", *packages, "lora_np.table"):
        for name in importlib.import_module(module).__all__:
            thing = getattr(importlib.import_module(module), name)
            if not callable(thing) or id(thing) in seen:
                continue
            seen.add(id(thing))
            try:
                parameters = inspect.signature(thing).parameters.values()
            except ValueError:  # of an exception or a type
                parameters = ()
            told = " ".join(str(parameter.annotation) for parameter in parameters)
            home = getattr(thing, "__module__", module).split(".")
            package = home[1] if len(home) > 2 else module.rpartition(".")[2]
            yield f"{package}.{name}", bool(ARRAYS.search(told))


def test_every_public_name_that_takes_an_array_has_a_row():
    taking = {name for name, arrays in public() if arrays}
    rows = {name.partition(" ")[0] for name in ROWS}
    listed = {name for names in WITHOUT_ROW.values() for name in names}
    assert taking - rows - listed == set(), "say how to call it"
    assert not rows & listed
    assert listed - taking == set(), "takes no array"
    assert rows - {name for name, _ in public()} == set()


@pytest.mark.parametrize("name", ROWS)
def test_every_dtype_gives_the_numbers_of_float64_or_is_refused_by_name(name):
    each = -(-CALLS // len(ROWS))
    start = crc32(name.encode()) % len(KINDS)
    found = Counter(outcome(name, ROWS[name], start + seed) for seed in range(each))
    assert sum(found.values()) == each
