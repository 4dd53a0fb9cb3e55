"""Loading a matrix: the file need not be trusted, and the message says what would be right."""

import pickle

import numpy as np
import pytest

from lora_np.hub import load_matrix, safetensors
from lora_np.linalg import rank_errors


class Exploit:
    """Unpickling this would run code."""

    def __reduce__(self):
        return (pytest.fail, ("the file was unpickled",))


@pytest.mark.parametrize(
    ("stored", "loaded"),
    [
        (np.float64, np.float64),
        (np.float32, np.float32),
        (np.float16, np.float32),
        (np.int8, np.float64),
        (">f4", np.float32),
    ],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy(tmp_path, stored, loaded, order):
    M = np.array([[1, 2, 3], [4, 5, 6]], dtype=stored, order=order)
    path = tmp_path / "matrix.npy"
    np.save(path, M)
    result = load_matrix(str(path))
    assert result.dtype == loaded
    np.testing.assert_array_equal(result, M)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_one_tensor_of_a_safetensors_file_in_every_precision(tmp_path, dtype):
    path = tmp_path / "adapter.safetensors"
    M = np.array([[1.0, 2.0], [0.5, 0.25]])
    safetensors.save({"a:b.weight": M, "other": np.full((2, 2), np.nan)}, path, dtype=dtype)
    result = load_matrix(f"{path}:a:b.weight")
    assert result.dtype == (np.float64 if dtype == "float64" else np.float32)
    np.testing.assert_array_equal(result, M)
    np.testing.assert_allclose(rank_errors(result)[-2:], [np.linalg.svdvals(M)[-1], 0], rtol=1e-6)


@pytest.mark.parametrize(
    "content", [np.array([[Exploit()]]), Exploit()], ids=["object array", "bare pickle"]
)
def test_a_pickle_is_refused_and_never_loaded(tmp_path, content):
    path = tmp_path / "matrix.npy"
    if isinstance(content, np.ndarray):
        np.save(path, content, allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"matrix\.npy: not an \.npy file of numbers"):
        load_matrix(str(path))


def test_a_header_that_promises_more_than_the_file_holds_is_refused(tmp_path):
    path = tmp_path / "matrix.npy"
    np.save(path, np.ones((4, 4)))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"(4, 4)", b"(4, 9)"))
    with pytest.raises(ValueError, match=r"not an \.npy file of numbers"):
        load_matrix(str(path))
    for length in (0, 5, 20, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"not an \.npy file of numbers"):
            load_matrix(str(path))


def test_messages_name_what_is_wrong_and_what_would_be_right(tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.save(
        {"q_proj.weight": np.eye(2), "norm": np.ones(2), "bad": np.full((1, 2), np.inf)}, path
    )
    with pytest.raises(
        ValueError, match=r"no tensor 'q_proj\.wieght'; close names: q_proj\.weight"
    ):
        load_matrix(f"{path}:q_proj.wieght")
    with pytest.raises(ValueError, match=r"'norm' must be a matrix \(2 axes\), got shape \(2,\)"):
        load_matrix(f"{path}:norm")
    with pytest.raises(ValueError, match=r"'bad' must be finite, got inf at \(0, 0\)"):
        load_matrix(f"{path}:bad")
    with pytest.raises(
        ValueError, match=r"name one of the 2 matrices in .*, as in .*model\.safetensors:"
    ):
        load_matrix(str(path))
    with pytest.raises(
        ValueError, match=r"FILE\.npy or FILE\.safetensors:TENSOR, got 'matrix\.csv'"
    ):
        load_matrix("matrix.csv")
    safetensors.save({"norm": np.ones(2)}, path)
    with pytest.raises(ValueError, match="but it holds no matrix"):
        load_matrix(str(path))
    np.save(tmp_path / "cube.npy", np.ones((2, 2, 2)))
    with pytest.raises(
        ValueError, match=r"cube\.npy must be a matrix \(2 axes\), got shape \(2, 2, 2\)"
    ):
        load_matrix(str(tmp_path / "cube.npy"))
    np.save(tmp_path / "complex.npy", np.ones((2, 2), complex))
    with pytest.raises(
        TypeError, match=r"complex\.npy must hold real numbers, got dtype complex128"
    ):
        load_matrix(str(tmp_path / "complex.npy"))
    np.save(tmp_path / "empty.npy", np.ones((0, 2)))
    with pytest.raises(ValueError, match=r"empty\.npy must not be empty"):
        load_matrix(str(tmp_path / "empty.npy"))
    with pytest.raises(FileNotFoundError):
        load_matrix(str(tmp_path / "nothing.npy"))
