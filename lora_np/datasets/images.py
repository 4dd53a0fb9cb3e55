"""Load two images and handwritten digits, and sample patches for the task of the tour."""

from __future__ import annotations

from importlib.resources import files

import numpy as np

from lora_np.checks import Array, Seed, finite, generator, real, whole_number

HEIGHT, LEFT, WIDTH = (
    10,
    12,
    22,
)  # in pixels: height of both patches, width of the left patch, width of both together


def photograph() -> Array:
    """Load a portrait of Grace Hopper, in grey values from 0 (black) to 1 (white).

    Returns
    -------
    ndarray of shape (600, 512)
        The grey values, in float64.

    References
    ----------
    U.S. Navy, 1984, public domain; see ``LICENSE.md`` next to the data.

    Examples
    --------
    >>> photograph().shape
    (600, 512)
    """
    return np.asarray(load("grace_hopper.npz", "luminance") / 255)


def terrain() -> Array:
    """Load the elevation in metres around the Jacksboro fault, Tennessee.

    Returns
    -------
    ndarray of shape (344, 403)
        The elevations, in float64.

    References
    ----------
    U.S. Geological Survey, public domain; see ``LICENSE.md`` next to the data.

    Examples
    --------
    >>> terrain().min(), terrain().max()
    (np.float64(236.0), np.float64(1076.0))
    """
    return load("jacksboro_fault_dem.npz", "elevation").astype(np.float64)


def digits() -> tuple[Array, Array]:
    """Load 1,797 digits handwritten by 13 people, and their labels.

    Returns
    -------
    images : ndarray of shape (1797, 8, 8)
        The images, from 0 (paper) to 1 (ink).
    labels : ndarray of int, shape (1797,)
        The digits, from 0 to 9.

    References
    ----------
    E. Alpaydin, C. Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning
    Repository, 1998, https://doi.org/10.24432/C50P49 (CC BY 4.0); see ``LICENSE.md`` next to the
    data.

    Examples
    --------
    >>> images, labels = digits()
    >>> images.shape, labels[:5]
    ((1797, 8, 8), array([0, 1, 2, 3, 4]))
    """
    return load("digits.npz", "images") / 16, load("digits.npz", "labels").astype(np.intp)


def patches(image: Array, n: int, *, rng: Seed) -> tuple[Array, Array]:
    """Sample pairs of neighbouring patches: 10 x 12 pixels, and 10 x 10 pixels to their right.

    The image is standardised (mean 0, variance 1) as a whole, and the mean of the left patch is
    subtracted from each pair, so that a model has to learn shapes, not brightness.

    Parameters
    ----------
    image : ndarray of shape (rows, columns)
        The image, which must be finite.
    n : int
        The number of pairs.
    rng : Generator or int
        Random seed of their positions.

    Returns
    -------
    x : ndarray of shape (n, 120)
        The left patches, each flattened by rows.
    y : ndarray of shape (n, 100)
        The right patches.

    Raises
    ------
    ValueError
        If the image is too small for a pair, not finite, or all of one value.

    Examples
    --------
    >>> x, y = patches(terrain(), 5, rng=np.random.default_rng(0))
    >>> x.shape, y.shape
    ((5, 120), (5, 100))
    """
    n, rng = whole_number("n", n), generator(rng)
    image = real("image", image).astype(np.float64, copy=False)
    if image.ndim != 2 or image.shape[0] < HEIGHT or image.shape[1] < WIDTH:
        raise ValueError(
            f"image must have at least {HEIGHT} x {WIDTH} pixels, got shape {image.shape}"
        )
    finite("image", image)
    image = standardised(image)
    row = rng.integers(0, image.shape[0] - HEIGHT + 1, n)
    column = rng.integers(0, image.shape[1] - WIDTH + 1, n)
    windows = np.lib.stride_tricks.sliding_window_view(image, (HEIGHT, WIDTH))[row, column]
    left, right = (part.reshape(n, -1) for part in np.split(windows, [LEFT], axis=2))
    level = left.mean(axis=1, keepdims=True)
    return left - level, right - level


def standardised(image: Array) -> Array:
    """Scale ``image`` to mean 0 and variance 1.

    Parameters
    ----------
    image : ndarray
        The image, whose values must not all be equal.

    Returns
    -------
    ndarray of the same shape
        The scaled image.

    Raises
    ------
    ValueError
        If the image is all of one value.

    Examples
    --------
    >>> standardised(np.array([[1.0, 3.0]]))
    array([[-1.,  1.]])
    """
    image = real("image", image)
    spread = image.std()
    if spread == 0:
        raise ValueError(f"image must not be all of one value, got {image.flat[0]} everywhere")
    return np.asarray((image - image.mean()) / spread)


def load(file: str, name: str) -> Array:
    with files("lora_np.datasets").joinpath(file).open("rb") as stream, np.load(stream) as arrays:
        return np.asarray(arrays[name])
