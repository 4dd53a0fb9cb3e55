"""Gradients of gradients: grad(f) nests, and what one step computes is what its composed text
computes.
"""

import ast
import inspect
from pathlib import Path

import numpy as np
import pytest

from lora_np import Linear, LoRALinear, autograd
from lora_np.autograd import (
    Tensor,
    adapted_affine,
    check_derivative,
    grad,
    plus_low_rank,
    primitive,
)
from lora_np.autograd.tables import DERIVATIVES
from tests.rounding import assert_as_near

RNG = np.random.default_rng(11)


def test_derivatives_of_a_power_down_to_zero():
    f = lambda x: x**4
    for expected in (32.0, 48.0, 48.0, 24.0, 0.0, 0.0):
        f = grad(f)
        assert f(2.0) == pytest.approx(expected)


def test_a_hessian_by_rows_is_symmetric_and_right():
    M = RNG.standard_normal((4, 4))
    f = lambda x: np.exp(x @ M @ x / 10)
    x = RNG.standard_normal(4)
    hessian = np.array([grad(lambda x, i=i: grad(f)(x)[i])(x) for i in range(4)])
    s = (M + M.T) / 10
    np.testing.assert_allclose(hessian, f(x) * (s + np.outer(s @ x, s @ x)))


def test_an_inner_gradient_does_not_confuse_the_outer_ones_variable():
    """d/dx (x d/dy (x + y)) is 1; to take the inner y for x gives 2."""
    assert grad(lambda x: x * grad(lambda y: x + y)(1.0))(1.0) == 1
    assert grad(lambda x: x * grad(lambda y: x * y * y)(x))(3.0) == pytest.approx(6 * 9)
    assert grad(lambda x: grad(lambda y: x * y)(2.0) * x)(5.0) == 10


def test_gradient_by_several_arguments():
    f = lambda a, b, c: np.sum(a * a * b) * c
    a, b = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    ga, gb = grad(f, argument=(0, 1))(a, b, 2.0)
    np.testing.assert_array_equal(ga, 4 * a * b)
    np.testing.assert_array_equal(gb, 2 * a * a)
    mixed = grad(lambda a, b, c: np.sum(grad(f, argument=1)(a, b, c)), argument=(0, 2))(a, b, 2.0)
    np.testing.assert_array_equal(mixed[0], 4 * a)
    assert mixed[1] == 5


def test_a_gradient_is_a_new_array_and_what_does_not_matter_has_gradient_zero():
    x = np.array([1.0, 2.0])
    g = grad(np.sum)(x)
    g += 1
    np.testing.assert_array_equal(grad(np.sum)(x), [1, 1])
    np.testing.assert_array_equal(grad(lambda x: 3.0)(x), [0, 0])
    np.testing.assert_array_equal(grad(lambda x: np.sum(grad(np.sum)(x)))(x), [0, 0])
    assert grad(np.sum)(x.astype(np.float32)).dtype == np.float32
    assert type(grad(np.sum)(x)) is np.ndarray


def test_grad_needs_a_scalar():
    with pytest.raises(ValueError, match=r"returns a scalar, got shape \(2,\)"):
        grad(lambda x: x * 2)(np.ones(2))
    with pytest.raises(RuntimeError, match="return it from f"):
        grad(lambda x: np.sum(x).backward())(np.ones(2))


def test_a_penalty_on_the_gradient_can_be_trained():
    """backward() goes through a grad: the loss is |f'(w x)|^2, a function of w."""
    w, x = Tensor([0.5, -0.3]), np.array([1.0, 2.0])
    penalty = np.sum(np.square(grad(lambda x: np.sum(np.tanh(w * x)))(x)))
    assert isinstance(penalty, Tensor)
    penalty.backward()
    t = np.tanh(w.data * x)
    slope, of_slope = w.data * (1 - t * t), (1 - t * t) * (1 - 2 * w.data * x * t)
    np.testing.assert_allclose(w.grad, 2 * slope * of_slope)


def fused_row(**settings):
    def joint(kept, a, b, *, wanted):
        assert type(kept) is np.ndarray
        return lambda g: (g * np.cos(kept) * b, g * np.cos(kept) * a)

    def forward(a, b):
        kept = np.multiply(np.asarray(a), b)
        return np.sin(kept), kept

    return primitive(forward, joint=joint, keeps=True, **settings)


def test_a_fused_primitive_is_differentiated_through_its_composed_text():
    a, b = RNG.standard_normal((2, 3, 2))
    fused = fused_row(composed=lambda a, b: np.sin(a * b))
    check_derivative(fused, a, b, order=3)
    check_derivative(lambda a, b: fused(a, b) * fused(b, a), a, b, order=2)


def test_what_is_for_arrays_alone_needs_a_composed_text():
    with pytest.raises(TypeError, match="say by composed= what `grad` takes instead"):
        fused_row()
    with pytest.raises(TypeError, match="joint= and keeps= are for arrays alone"):
        primitive(lambda a: (a, a), lambda kept, a: lambda g: g, keeps=True)


COMPOSED = [operation for operation, row in DERIVATIVES.items() if row.composed is not None]
SHAPES = {
    autograd.affine: [((5, 2), (3, 2), (3,)), ((4, 5, 2), (3, 2), (3,)), ((2,), (3, 2), (3,)), ((5, 2), (3, 2))],
    adapted_affine: [((9, 3), (4, 3), (2, 3), (4, 2), (), (4,)), ((5, 3), (4, 3), (2, 3), (4, 2), ()), ((2, 5, 3), (4, 3), (1, 3), (4, 1), (), (4,)), ((3,), (4, 3), (2, 3), (4, 2), (), (4,))],
}  # fmt: skip
TEXTS = {operation: DERIVATIVES[operation].composed for operation in SHAPES}
TEXTS[plus_low_rank] = lambda h, x, A, B, scale: h + (x @ A.T * scale) @ B.T
SHAPES |= {
    plus_low_rank: [((5, 4), (5, 3), (2, 3), (4, 2), ()), ((2, 5, 4), (2, 5, 3), (1, 3), (4, 1), ()), ((4,), (3,), (2, 3), (4, 2), ())],
}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("operation", "shapes"), [(operation, shapes) for operation, all_shapes in SHAPES.items() for shapes in all_shapes]
)  # fmt: skip
def test_a_step_and_its_composed_text_are_equal(operation, shapes, dtype):
    arrays = [RNG.standard_normal(shape).astype(dtype) for shape in shapes]
    unit = np.finfo(dtype).eps
    ours, theirs, wide = (
        [Tensor(a.astype(kind)) for a in arrays] for kind in (dtype, dtype, float)
    )
    y, z, exact = operation(*ours), TEXTS[operation](*theirs), TEXTS[operation](*wide)
    assert (y.shape, y.dtype) == (z.shape, z.dtype)
    assert_as_near(y, z, exact, unit=unit)
    assert_as_near(operation(*arrays), z, exact, unit=unit)
    w = RNG.standard_normal(y.shape)
    for result in (y, z, exact):
        result.backward(w)
    for a, b, right in zip(ours, theirs, wide, strict=True):
        assert (a.grad.shape, a.grad.dtype) == (b.grad.shape, b.grad.dtype)
        assert_as_near(a.grad, b.grad, right.grad, unit=unit)
    check_derivative(operation, *arrays, order=2)


def test_every_composed_text_of_the_package_is_compared():
    shipped = {
        op for op in COMPOSED if inspect.getmodule(op).__name__.startswith("lora_np.autograd")
    }
    assert shipped == set(SHAPES) - {plus_low_rank}


def test_graph_walk_and_unbroadcast_stay_small():
    lines = Path(inspect.getfile(autograd.engine)).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 200


def lora_loss(A, B, W0, x, y):
    layer = LoRALinear(Linear(W0), A, B, alpha=4.0)
    return np.mean(np.square(np.tanh(layer(x)) - y))


@pytest.mark.peers
def test_hessian_vector_products_of_a_lora_layer_are_torchs():
    import torch

    W0, x, y = RNG.standard_normal((6, 5)), RNG.standard_normal((7, 5)), RNG.standard_normal((7, 6))
    A, B = RNG.standard_normal((2, 5)), RNG.standard_normal((6, 2))
    vA, vB = RNG.standard_normal(A.shape), RNG.standard_normal(B.shape)

    def along_v(A, B):
        gA, gB = grad(lora_loss, argument=(0, 1))(A, B, W0, x, y)
        return np.sum(gA * vA) + np.sum(gB * vB)

    ours = grad(along_v, argument=(0, 1))(A, B)

    def theirs_loss(A, B):
        h = torch.tensor(x) @ (torch.tensor(W0) + 2.0 * B @ A).T
        return torch.mean((torch.tanh(h) - torch.tensor(y)) ** 2)

    _, theirs = torch.autograd.functional.hvp(
        theirs_loss, (torch.tensor(A), torch.tensor(B)), (torch.tensor(vA), torch.tensor(vB))
    )
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-9, atol=1e-12)
    a, b = Tensor(A), Tensor(B)  # and by backward() through grad
    along_v(a, b).backward()
    np.testing.assert_allclose(a.grad, ours[0], rtol=1e-12)
    np.testing.assert_allclose(b.grad, ours[1], rtol=1e-12)


def without_types(tree):
    """Definitions by name, without docstrings, annotations and what only they need."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            if ast.get_docstring(node):
                node.body = node.body[1:]
            node.body = [
                line
                for line in node.body
                if not (isinstance(line, ast.Assign) and "__slots__" in ast.unparse(line))
            ]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        for field, children in ast.iter_fields(node):
            if isinstance(children, list):
                setattr(node, field, [
                    ast.Assign([child.target], child.value, lineno=0) if isinstance(child, ast.AnnAssign) and child.value else child
                    for child in children
                ])  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = ast.unparse(node)
    return found


@pytest.mark.parametrize("name", ["Node", "unbroadcast", "walk"])
def test_the_lesson_ends_with_the_text_of_the_engine(name):
    lesson = Path(__file__).parents[2] / "notebooks" / "src" / "build-the-engine.py"
    theirs = without_types(ast.parse(lesson.read_text(encoding="utf-8")))
    ours = without_types(ast.parse(inspect.getsource(autograd.engine)))
    assert theirs[name] == ours[name]
