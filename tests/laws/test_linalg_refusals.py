"""What no function of linalg takes, in the place of any of its matrices."""

import inspect
import itertools
import re

import numpy as np
import pytest

from lora_np import linalg

FUNCTIONS = {name: getattr(linalg, name) for name in linalg.__all__}
FUNCTIONS = {name: function for name, function in FUNCTIONS.items() if inspect.isfunction(function)}
del FUNCTIONS["rank_within"]  # of a list of errors
NUMBERS = {"rank": 1, "i": 1, "j": 1, "top": 1}  # arguments that are no matrices


def calls():
    for name, function in FUNCTIONS.items():
        needed = [
            p
            for p, about in inspect.signature(function).parameters.items()
            if about.default is about.empty or p == "top"
        ]
        given = {p: NUMBERS.get(p, np.diag([3.0, 2.0, 1.0])) for p in needed}
        for matrix in set(needed) - set(NUMBERS):
            yield pytest.param(function, given, matrix, id=f"{name}-{matrix}")


def test_a_masked_list_of_errors_is_refused():
    with pytest.raises(TypeError, match="errors must not be a masked array"):
        linalg.rank_within(np.ma.masked_equal([1.0, 0.0, 0.1], 0), tolerance=0.2)


@pytest.mark.parametrize(("function", "given", "matrix"), sorted(calls(), key=lambda case: case.id))
def test_masked_arrays_and_what_is_no_matrix_are_refused_by_name(function, given, matrix):
    function(**given)
    with pytest.raises(TypeError, match=f"{matrix} must not be a masked array"):
        function(**{**given, matrix: np.ma.masked_equal(np.eye(3), 0)})
    for wrong in (np.array(1.0), np.ones(3), np.ones((2, 3, 3))):
        with pytest.raises(ValueError, match=f"{matrix} must be a matrix"):
            function(**{**given, matrix: wrong})


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_at_any_scale_the_answer_is_finite_or_the_error_says_what_to_divide(name):
    about = inspect.signature(FUNCTIONS[name]).parameters
    needed = [p for p in about if about[p].default is inspect.Parameter.empty or p == "top"]
    matrices = [p for p in needed if p not in NUMBERS]
    numbers = {p: NUMBERS[p] for p in needed if p in NUMBERS}
    scales = itertools.product((np.float32, np.float64), (1.0, 0.98, 0.5, 0.26, -0.5, -0.98))
    for (dtype, power), shape, seed in itertools.product(
        scales, [(3, 3), (5, 3), (3, 5)], range(3)
    ):
        rng = np.random.default_rng(seed)
        entries = {p: rng.uniform(-1, 1, shape).astype(dtype) for p in matrices}
        if name == "svd_of_product":
            entries["A"] = entries["A"].T
        for scaled in [*([p] for p in matrices), matrices]:
            scale = dtype(np.finfo(dtype).max) ** dtype(power)
            given = {p: M * scale if p in scaled else M for p, M in entries.items()}
            try:
                found = FUNCTIONS[name](**given, **numbers)
            except np.linalg.LinAlgError as problem:
                told = re.search(
                    r"overflows float\d\d: divide .* by a power of two first", str(problem)
                )
                if power < 0 or not told:
                    raise
                continue
            for part in found if isinstance(found, tuple) else [found]:
                assert np.isfinite(part).all() or name == "amplification_factor"  # a ratio
