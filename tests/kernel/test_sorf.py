"""Structured orthogonal features: transforms are those of dense matrices, and their kernel is nearly the exact one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard

import leyden as ly
from leyden import vectors
from leyden.errors import OptionError
from leyden.kernel import _fourier_vectors, _sorf_kernels, _sorf_vectors
from leyden.kernel.kernels import RADIAL, Kernel
from leyden.kernel.maps import make, restore
from leyden.kernel.sorf import Sorf


def points(count, d, seed=0):
    return np.random.default_rng(seed).standard_normal((count, d)).astype(np.float32)


def frequencies(of):
    """(d, f), in half turns, by dense matrices."""
    h = hadamard(of.block)
    blocks = [(np.diag(length) @ h @ np.diag(c) @ h @ np.diag(b) @ h @ np.diag(a)).T
              for (a, b, c), length in zip(of.signs.astype(float), of.lengths.astype(float), strict=True)]  # fmt: skip
    return np.concatenate(blocks, axis=1)[: of.inputs, : of.frequencies] * of.inverse[:, None]


def test_kernels_are_compiled_from_what_they_say():
    sources = b"".join(Path(of.__file__).read_bytes() for of in (_sorf_vectors, _fourier_vectors, vectors))
    assert hashlib.sha256(sources).hexdigest()[:16] == _sorf_kernels.COMPILED_FROM


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 30), d=st.sampled_from([1, 5, 64, 65, 200, 300, 600, 1100]), pairs=st.integers(1, 400))
def test_features_are_sines_and_cosines_of_dense_products(rows, d, pairs):
    x = points(rows, d, pairs)
    of = Sorf(Kernel("gaussian", 0.3 * np.sqrt(d)), d, 2 * pairs, 1)
    p = np.pi * (x.astype(float) @ frequencies(of))
    twin = np.concatenate([np.cos(p), np.sin(p)], axis=1) / np.sqrt(pairs)
    assert np.abs(of(x) - twin).max() <= 3e-6 * (1 + np.abs(p).max()) / np.sqrt(pairs)


def test_frequencies_are_orthogonal_in_blocks():
    w = frequencies(Sorf(Kernel("gaussian"), 64, 2 * 128, 3))
    for first in (0, 64):
        products = w[:, first : first + 64].T @ w[:, first : first + 64]
        assert np.abs(products - np.diag(np.diag(products))).max() < 1e-5 * np.diag(products).max()


@pytest.mark.parametrize("name", RADIAL)
@pytest.mark.parametrize("d", [3, 64, 100])
def test_inner_products_of_features_are_nearly_the_kernel_on_average_over_draws(name, d):
    x = 0.7 * points(10, d)
    kernel = Kernel(name, np.linspace(0.5, 1.5, d) * np.sqrt(d / 4))
    found = []
    for seed in range(60):
        z = Sorf(kernel, d, 128, seed)(x).astype(float)
        found.append(z @ z.T)
    mean, error = np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(len(found))
    assert np.abs(mean - kernel(x, x)).max() <= 5.5 * error.max() + 1 / max(64, d)


def test_they_vary_less_than_plain_ones():
    x, kernel = 0.5 * points(40, 64), Kernel("gaussian", 8.0)
    exact = kernel(x, x)

    def error(name):
        z = [make(name, kernel, 64, 512, seed)(x) for seed in range(20)]
        return np.mean([(f @ f.T - exact) ** 2 for f in z])

    assert error("sorf") < 0.7 * error("plain")


def test_first_blocks_do_not_depend_on_their_number_and_a_map_is_made_again_from_what_it_says():
    kernel = Kernel("matern32", 2.0)
    long, short = Sorf(kernel, 5, 700, 1), Sorf(kernel, 5, 100, 1)
    assert np.array_equal(frequencies(long)[:, :50], frequencies(short))
    assert not np.array_equal(frequencies(Sorf(kernel, 5, 100, 2)), frequencies(short))
    again = restore(long.to_json(), long.arrays())
    assert np.array_equal(long(points(9, 5)), again(points(9, 5)))


def test_a_row_has_the_same_features_whatever_rows_are_beside_it():
    x, of = points(50, 30), Sorf(Kernel("gaussian", 5.0), 30, 300, 0)
    assert np.array_equal(of(x)[17:18], of(x[17:18]))


@pytest.mark.parametrize(
    ("size", "name", "message"), [(7, "gaussian", "pairs of a sine"), (8, "laplacian", "cannot be orthogonal")]
)
def test_what_cannot_be_drawn_is_refused(size, name, message):
    with pytest.raises(OptionError, match=message):
        Sorf(Kernel(name), 3, size)


def test_many_columns_are_given_structured_features_and_a_certificate():
    x = points(800, 200)
    y = np.sin(x[:, 0]) + x[:, 1]
    found = ly.kernel_machine(x, y, features=400, regularization=1e-3, memory="1GB")
    assert found.map.name == "sorf"
    assert found.certificate.holds
