"""Kernels, their frequencies, and features made of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.gaussian_process.kernels import Matern

from leyden import vectors
from leyden.errors import OptionError
from leyden.kernel import _fourier_kernels, _fourier_vectors
from leyden.kernel.fourier import Fourier
from leyden.kernel.frequencies import orthogonal, plain
from leyden.kernel.inputs import Standard, median_width
from leyden.kernel.kernels import RADIAL, STATIONARY, Kernel
from leyden.kernel.maps import make, restore

DRAWS = [
    (name, draw)
    for name in STATIONARY
    for draw in ("orthogonal", "plain", "qmc")
    if name in RADIAL or draw != "orthogonal"
]


def points(count, d, seed=0):
    return np.random.default_rng(seed).standard_normal((count, d)).astype(np.float32)


def test_kernels_are_compiled_from_what_they_say():
    sources = Path(_fourier_vectors.__file__).read_bytes() + Path(vectors.__file__).read_bytes()
    assert hashlib.sha256(sources).hexdigest()[:16] == _fourier_kernels.COMPILED_FROM


@pytest.mark.parametrize(("name", "nu"), [("matern12", 0.5), ("matern32", 1.5), ("matern52", 2.5)])
def test_matern_kernels_are_those_of_scikit_learn(name, nu):
    x = points(20, 3)
    assert np.allclose(Kernel(name, 1.7)(x, x), Matern(1.7, nu=nu)(x), atol=1e-12)


def test_other_kernels_are_what_they_are_defined_as():
    x, y, width = points(7, 3), points(5, 3, 1), np.array([0.5, 1.0, 3.0])
    t = (x[:, None].astype(float) - y) / width
    assert np.allclose(Kernel("gaussian", width)(x, y), np.exp(-(t**2).sum(axis=2) / 2))
    assert np.allclose(Kernel("laplacian", width)(x, y), np.exp(-np.abs(t).sum(axis=2)))
    assert np.allclose(Kernel("cauchy", width)(x, y), (1 / (1 + t**2)).prod(axis=2))


@pytest.mark.parametrize(("name", "draw"), DRAWS)
def test_inner_products_of_features_are_the_kernel_on_average_over_draws(name, draw):
    x = 0.7 * points(12, 4)
    kernel = Kernel(name, np.array([0.8, 1.0, 1.5, 2.0]))
    found = []
    for seed in range(40):
        z = Fourier(kernel, 4, 64, seed, draw)(x).astype(float)
        found.append(z @ z.T)
    mean, error = np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(len(found))
    assert np.abs(mean - kernel(x, x)).max() <= 5.5 * error.max() + 1e-6


def test_orthogonal_features_vary_less_than_plain_ones():
    x, kernel = 0.5 * points(40, 8), Kernel("gaussian", 2.0)
    exact = kernel(x, x)

    def error(draw):
        z = [Fourier(kernel, 8, 256, seed, draw)(x) for seed in range(30)]
        return np.mean([(f @ f.T - exact) ** 2 for f in z])

    assert error("orthogonal") < 0.7 * error("plain")


def test_frequencies_are_orthogonal_in_blocks():
    w = orthogonal(Kernel("gaussian"), 6, 15, 3)
    for first in (0, 6):
        products = w[:, first : first + 6].T @ w[:, first : first + 6]
        assert np.abs(products - np.diag(np.diag(products))).max() < 1e-12


@pytest.mark.parametrize("draw", [orthogonal, plain])
def test_the_first_frequencies_are_the_same_whatever_their_number(draw):
    kernel = Kernel("matern32", 2.0)
    assert np.array_equal(draw(kernel, 5, 700, 1)[:, :33], draw(kernel, 5, 33, 1))
    assert not np.array_equal(draw(kernel, 5, 33, 2), draw(kernel, 5, 33, 1))


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 40), d=st.integers(1, 20), frequencies=st.integers(1, 100), size=st.floats(0.01, 30))
def test_features_are_sines_and_cosines(rows, d, frequencies, size):
    x = np.float32(size) * points(rows, d, frequencies)
    features = Fourier(Kernel("gaussian", 2.0), d, 2 * frequencies, 1)
    p = np.pi * (x.astype(float) @ features.w.astype(float))
    twin = np.concatenate([np.cos(p), np.sin(p)], axis=1) / np.sqrt(frequencies)
    # A projection is rounded as often as it has terms, and whatever its size its error is that of the angle.
    angle = np.pi * 1e-7 * (d + 1) * (np.abs(x) @ np.abs(features.w)).max() + 3e-7
    assert np.abs(features(x) - twin).max() <= angle / np.sqrt(frequencies)


def test_the_length_of_features_is_one():
    z = Fourier(Kernel("cauchy", 0.3), 7, 500, 0, "plain")(10 * points(50, 7)).astype(float)
    assert np.abs((z * z).sum(axis=1) - 1).max() < 1e-6


@pytest.mark.parametrize("size", [0, 1, 7])
def test_features_come_in_pairs(size):
    with pytest.raises(OptionError, match="pairs of a sine and a cosine"):
        Fourier(Kernel("gaussian"), 3, size)


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(OptionError, match="cannot be orthogonal"):
        Fourier(Kernel("laplacian"), 3, 10)
    with pytest.raises(OptionError, match="not one of"):
        make("nothing", Kernel("gaussian"), 3, 10)


@pytest.mark.parametrize(("name", "draw"), DRAWS)
def test_a_map_is_made_again_from_what_it_says(name, draw):
    made = make(draw, Kernel(name, np.array([1.0, 2.0])), 2, 20, 5)
    again = restore(made.to_json(), made.arrays())
    assert np.array_equal(made(points(5, 2)), again(points(5, 2)))


def test_the_median_width_is_the_median_distance():
    x = points(300, 3)
    for name, order in (("gaussian", 2), ("laplacian", 1)):
        distances = np.linalg.norm(x[:, None] - x, ord=order, axis=2)
        assert abs(median_width(name, x) / np.median(distances[np.triu_indices(300, 1)]) - 1) < 0.05
    assert median_width("gaussian", np.zeros((10, 2), np.float32)) == 1.0


def test_standard_columns_are_rounded_once():
    x = 1e8 + points(100, 2).astype(float)
    found = Standard(x.mean(axis=0), 1 / x.std(axis=0))(x)
    assert found.dtype == np.float32
    assert np.allclose(found, (x - x.mean(axis=0)) / x.std(axis=0), atol=1e-6)
