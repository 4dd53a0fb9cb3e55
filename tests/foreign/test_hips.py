"""HIPS autograd's own tests of reverse mode, taken from its source distribution at test time."""

import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.foreign
HERE = Path(__file__).parent
ROOT = HERE.parents[1]

# What of it is about NumPy; the other files test HIPS's inside, dictionaries, forward mode and
# scipy.
FILES = [
    "binary_ops",
    "graphs",
    "jacobian",
    "linalg",
    "numpy",
    "scalar_ops",
    "systematic",
    "truediv",
    "ufunc_dispatch",
]
OUT_OF_SCOPE = {
    "an array made of Tensors by np.array, np.r_ or a list: np.stack says what is meant": {
        "test_norm_list_of_boxes", "test_mean_list_of_boxes", "test_std_list_of_boxes", "test_var_list_of_boxes",
        "test_1d_array", "test_2d_array", "test_1d_array_fanout", "test_2d_array_fanout", "test_array_from_scalar",
        "test_array_from_arrays", "test_array_from_arrays_2", "test_r_basic", "test_r_double", "test_r_node_and_const",
        "test_r_mixed", "test_r_slicing", "test_c_", "test_c_mixed", "test_cast_to_int", "test_jacobian_against_stacked_grads",
        "test_jacobian_scalar_to_vector", "test_jacobian_higher_order", "test_max_equal_values", "test_max_equal_values_2d",
        "test_min_3_way_equality", "test_maximum_equal_values_2d",
    },
    "complex numbers": {"test_complex_mutating_outgrad_from_indexing", "test_real", "test_real_ic", "test_imag", "test_angle", "test_eig_real"},
    "functions that have no derivative here, and say so": {
        "test_linspace", "test_gradient", "test_partition", "test_sinc", "test_cross", "test_select", "test_fmin", "test_fmax",
        "test_atleast_3d", "test_rollaxis", "test_hsplit_2d", "test_hsplit_3d", "test_vsplit_2d", "test_vsplit_3d", "test_dsplit_3d",
    },
    "decompositions, determinants, and norms that are not Euclid's or Frobenius's": {
        "test_det", "test_det_3d", "test_slogdet", "test_slogdet_3d", "test_norm_nuclear", "test_norm_nuclear_axis", "test_vector_norm_ord",
        "test_svd_wide_2d", "test_svd_wide_3d", "test_svd_tall_2d", "test_svd_tall_3d", "test_svd_square_2d", "test_svd_square_3d",
        "test_svd_only_s_2d", "test_svd_only_s_3d", "test_eigvalh_lower", "test_eigvalh_lower_broadcasting", "test_eigvalh_upper",
        "test_eigvalh_upper_broadcasting", "test_cholesky", "test_cholesky_broadcast", "test_cholesky_reparameterization_trick",
    },
    "np.einsum with subscripts in lists": {
        "test_einsum2_transpose", "test_einsum2_three_args", "test_einsum2_matmult", "test_einsum2_matmult_broadcast", "test_einsum2_covsum",
    },
    "functions that HIPS adds to NumPy": {"test_make_diagonal", "test_diagonal", "test_pinv"},
    "second differences of arguments near 1e-3, where rounding is larger than the tolerance": {"test_arctan2"},
}  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hips")
    download = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-binary",
        "autograd",
        "autograd",
    ]
    if subprocess.run([*download, "--dest", str(folder)], check=False, timeout=300).returncode:
        pytest.skip("the source distribution of autograd cannot be downloaded")
    with tarfile.open(next(folder.glob("autograd-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.glob("autograd-*/tests"))


def test_tests_of_hips_autograd(source, on_page):
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "ignore", "-p", "hips_as_ours", "-p", "no:cacheprovider",
         "-c", "/dev/null", "--rootdir", ".", *(f"test_{name}.py" for name in FILES)],
        cwd=source, env={"PYTHONPATH": f"{HERE}:{ROOT}", "PATH": "", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=5_400, check=False,
    )  # fmt: skip
    failed = set(re.findall(r"^(?:FAILED|ERROR) \S+?::(\w+)", run.stdout, flags=re.MULTILINE))
    passed = int(re.search(r"(\d+) passed", run.stdout)[1])
    assert failed <= set().union(*OUT_OF_SCOPE.values()), run.stdout[-5000:]
    assert passed >= 310, run.stdout[-300:]
    lines = re.findall(r"^(?:FAILED|ERROR) \S+?::(\w+)", run.stdout, flags=re.MULTILINE)
    other = [
        file for file in source.glob("test_*.py") if file.stem.removeprefix("test_") not in FILES
    ]
    left_out = sum(
        len(re.findall(r"^def test_", file.read_text(), flags=re.MULTILINE)) for file in other
    )
    version = source.parent.name.removeprefix("autograd-")
    rows = {"pass": passed}
    rows |= {
        f"fail: {why}": sum(name in names for name in lines) for why, names in OUT_OF_SCOPE.items()
    }
    rows |= {"not run: forward mode, containers, scipy, and the inside of HIPS autograd": left_out}
    on_page("autograd", version, "tests", rows)
