"""Whitening: its η bounds what it says, for good, bad and hopeless matrices X."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.solve.whitening import Whitening, directions, from_gram, spectral_norm_bound


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30), st.floats(-100, 100))
def test_the_spectral_norm_is_enclosed_within_a_fifth(seed, m, n, decades):
    a = np.random.default_rng(seed).standard_normal((m, n)) * 10.0**decades
    true = np.linalg.norm(a / 10.0**decades, 2) * 10.0**decades
    assert true <= spectral_norm_bound(a) <= 1.2 * true


def test_the_spectral_norm_of_large_and_of_degenerate_matrices_is_enclosed():
    rng = np.random.default_rng(3)
    for a in (
        rng.standard_normal((300, 200)),
        np.linalg.inv(np.triu(rng.standard_normal((60, 60)))),
        np.eye(50),
        np.outer(rng.standard_normal(40), rng.standard_normal(30)),
        np.diag([1.0, *np.full(99, 0.999)]),
        np.diag(10.0 ** -np.arange(300.0)),
    ):
        true = np.linalg.norm(a, 2)
        assert true * (1 - 1e-12) <= spectral_norm_bound(a) <= 1.1 * true


def test_the_spectral_norm_of_nothing_is_zero():
    assert spectral_norm_bound(np.zeros((3, 2))) == 0
    assert spectral_norm_bound(np.array([[np.inf]])) == np.inf


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.floats(0, 5))
def test_eta_bounds_the_distance_from_orthonormality(seed, p, decades):
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.standard_normal((60, p)))
    v, _ = np.linalg.qr(rng.standard_normal((p, p)))
    a = q * np.logspace(0, -decades, p) @ v.T
    a /= np.linalg.norm(a, axis=0)
    whitening = from_gram(a.T @ a, rounding=60 * 2.0**-53)
    assert whitening is not None
    if not whitening.usable:
        return
    product = a.astype(np.longdouble) @ whitening.w
    distance = np.linalg.norm((product.T @ product).astype(float) - np.eye(p), 2)
    assert distance <= whitening.eta
    np.testing.assert_allclose(np.linalg.norm(whitening.factor, axis=0), np.ones(p), rtol=1e-6)


def test_a_gram_matrix_that_is_not_positive_definite_whitens_nothing():
    assert from_gram(np.array([[1.0, 2.0], [2.0, 1.0]]), 0.0) is None
    assert from_gram(np.full((2, 2), np.nan), 0.0) is None


def test_a_wrong_witness_is_unusable_rather_than_trusted():
    assert not Whitening(np.eye(2), np.eye(2), error=0.6).usable
    assert Whitening(np.eye(2), -np.eye(2), error=0.0).eta == np.inf


def test_zero_columns_are_null_exactly():
    a = np.random.default_rng(0).standard_normal((30, 6))
    a[:, 5] = a[:, 4] - a[:, 0]
    a[:, [1, 3]] = 0.0
    x, null, _ = directions(np.linalg.qr(a, mode="r"))
    assert x.shape == (6, 3)
    assert not x[[1, 3]].any()
    np.testing.assert_array_equal(null[[1, 3]], np.eye(3)[1:])
    assert not null[:, 1:][[0, 2, 4, 5]].any()
    assert np.abs(a @ null).max() < 1e-13
    np.testing.assert_allclose((a @ x).T @ (a @ x), np.eye(3), atol=1e-13)


@pytest.mark.parametrize("rank", [0, 1, 3, 5])
def test_directions_split_range_and_null_space(rank):
    rng = np.random.default_rng(rank)
    a = rng.standard_normal((30, rank)) @ rng.standard_normal((rank, 5))
    x, null, _ = directions(np.linalg.qr(a, mode="r"))
    assert x.shape == (5, rank)
    np.testing.assert_allclose((a @ x).T @ (a @ x), np.eye(rank), atol=1e-10)
    if rank == 5:
        assert null is None
    else:
        assert np.abs(a @ null).max(initial=0) < 1e-13
        np.testing.assert_allclose(null.T @ null, np.eye(5 - rank), atol=1e-13)
