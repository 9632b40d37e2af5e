"""``PCA`` against scikit-learn's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import random_array
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

import leyden as ly


def decaying(n, d, seed=0):
    """Rows whose covariance has well-separated eigenvalues, about a mean that is not zero."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.standard_normal((d, d)))
    return rng.standard_normal((n, d)) * 0.6 ** np.arange(d) @ q + rng.standard_normal(d)


def assert_same(found, expected, x, atol=1e-8):
    for name in ("explained_variance_", "explained_variance_ratio_", "singular_values_", "mean_", "noise_variance_"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-8, atol=atol, err_msg=name)
    assert found.n_components_ == expected.n_components_
    assert found.n_samples_ == expected.n_samples_
    signs = np.sign((found.components_ * expected.components_).sum(axis=1))
    np.testing.assert_allclose(found.components_, signs[:, None] * expected.components_, rtol=0, atol=atol)
    scores, others = found.transform(x), expected.transform(x)
    np.testing.assert_allclose(scores, signs * others, rtol=0, atol=atol)
    np.testing.assert_allclose(found.inverse_transform(scores), expected.inverse_transform(others), rtol=0, atol=atol)


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize(("n", "d", "k"), [(400, 12, 5), (400, 12, 12), (30, 60, 6), (200, 1, 1)])
def test_agrees_with_scikit_learn(n, d, k, whiten):
    x = decaying(n, d)
    found = ly.PCA(k, whiten=whiten, tol=1e-12).fit(x)
    assert_same(found, PCA(k, whiten=whiten, svd_solver="full").fit(x), x)


@given(seed=st.integers(0, 2**32 - 1), d=st.integers(2, 10), spread=st.sampled_from([1e-6, 1.0, 1e6]))
def test_agrees_at_any_scale(seed, d, spread):
    x = decaying(60, d, seed) * spread
    found, expected = ly.PCA(2, tol=1e-12).fit(x), PCA(2, svd_solver="full").fit(x)
    np.testing.assert_allclose(found.explained_variance_, expected.explained_variance_, rtol=1e-8)
    np.testing.assert_allclose(found.explained_variance_ratio_, expected.explained_variance_ratio_, rtol=1e-8)


def test_scaled_columns_are_those_that_a_scaler_makes():
    x = decaying(300, 6)
    expected = PCA(3, svd_solver="full").fit(StandardScaler().fit_transform(x) * np.sqrt(299 / 300))
    found = ly.PCA(3, scale=True, tol=1e-12).fit(x)
    np.testing.assert_allclose(found.explained_variance_, expected.explained_variance_, rtol=1e-8)
    np.testing.assert_allclose(found.scale_, x.std(axis=0, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(np.abs(found.components_), np.abs(expected.components_), atol=1e-8)


def test_sparse_rows_are_centred():
    x = random_array((300, 20), density=0.2, rng=0, format="csr")
    found = ly.PCA(4, tol=1e-12).fit(x)
    assert_same(found, PCA(4, svd_solver="full").fit(x.toarray()), x.toarray())


def test_whitened_scores_have_no_correlation_and_a_variance_of_one():
    scores = ly.PCA(4, whiten=True).fit_transform(decaying(500, 9))
    np.testing.assert_allclose(np.cov(scores.T), np.eye(4), atol=1e-9)


def test_components_without_variance_have_whitened_scores_of_zero():
    x = np.outer(np.arange(20.0), [1, 2, 3])
    fitted = ly.PCA(3, whiten=True).fit(x)
    np.testing.assert_allclose(fitted.explained_variance_ratio_, [1, 0, 0], atol=1e-12)
    assert not fitted.transform(x)[:, 1:].any()
    np.testing.assert_allclose(fitted.inverse_transform(fitted.transform(x)), x, atol=1e-10)


def test_columns_that_are_all_constant_explain_nothing():
    fitted = ly.PCA(2, whiten=True).fit(np.full((5, 3), 7.0))
    assert fitted.explained_variance_ratio_.tolist() == [0, 0]
    assert fitted.noise_variance_ == 0
    np.testing.assert_array_equal(fitted.inverse_transform(fitted.transform(np.full((2, 3), 7.0))), 7.0)


def test_a_constant_column_cannot_be_scaled():
    with pytest.raises(ly.DataError, match="column 'x1' has no variance"):
        ly.PCA(1, scale=True).fit(np.column_stack([np.arange(5.0), np.ones(5)]))
