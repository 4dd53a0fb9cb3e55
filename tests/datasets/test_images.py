"""The data is what it says, and its sources stand beside it."""

from importlib.resources import files

import numpy as np
import pytest

from lora_np import datasets


def test_the_images():
    photograph, terrain = datasets.photograph(), datasets.terrain()
    assert photograph.shape == (600, 512)
    assert 0 <= photograph.min() < photograph.max() <= 1
    assert terrain.shape == (344, 403)
    assert 200 < terrain.min() < terrain.max() < 1100  # metres
    assert photograph.dtype == terrain.dtype == np.float64


def test_every_file_has_its_licence_beside_it():
    folder = files("lora_np.datasets")
    notes = folder.joinpath("LICENSE.md").read_text(encoding="utf-8")
    data = [f.name for f in folder.iterdir() if f.name.endswith((".npz", ".csv", ".json", ".gz"))]
    assert data
    for name in data:
        assert name in notes


def test_patches_repeat_themselves():
    image = datasets.terrain()
    a, b = (datasets.patches(image, 7, rng=np.random.default_rng(1)) for _ in range(2))
    np.testing.assert_array_equal(a[0], b[0])
    np.testing.assert_array_equal(a[1], b[1])


def test_the_whole_image_can_be_a_patch():
    image = np.random.default_rng(0).normal(size=(10, 22))
    x, _ = datasets.patches(image, 2, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(x[0], x[1])


@pytest.mark.parametrize(("image", "match"), [
    (np.zeros((9, 30)), r"at least 10 x 22 pixels, got shape \(9, 30\)"),
    (np.zeros(30), r"got shape \(30,\)"),
    (np.ones((20, 30)), "must not be all of one value, got 1.0 everywhere"),
    (np.full((20, 30), np.nan), r"image must be finite, got nan at \(0, 0\)"),
])  # fmt: skip
def test_images_without_patches(image, match):
    with pytest.raises(ValueError, match=match):
        datasets.patches(image, 3, rng=np.random.default_rng(0))


@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (2.5, TypeError), (True, TypeError)])
def test_numbers_of_patches_that_are_none(n, error):
    with pytest.raises(error, match="n must be"):
        datasets.patches(datasets.terrain(), n, rng=np.random.default_rng(0))
