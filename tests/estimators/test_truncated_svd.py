"""``TruncatedSVD`` against scikit-learn's own."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import random_array
from sklearn.decomposition import TruncatedSVD

import leyden as ly


def dense():
    rng = np.random.default_rng(0)
    return rng.standard_normal((300, 15)) * 0.6 ** np.arange(15) + 0.5


def sparse():
    a = random_array((300, 40), density=0.1, rng=0, format="csr")
    a.data *= 0.7**a.indices
    return a


@pytest.mark.parametrize("make", [dense, sparse])
@pytest.mark.parametrize("rank", [1, 4])
def test_agrees_with_scikit_learn(make, rank):
    x = make()
    found = ly.TruncatedSVD(rank, tol=1e-12).fit(x)
    expected = TruncatedSVD(rank, algorithm="arpack", tol=0).fit(x)
    for name in ("explained_variance_", "explained_variance_ratio_", "singular_values_"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-8, err_msg=name)
    signs = np.sign((found.components_ * expected.components_).sum(axis=1))
    np.testing.assert_allclose(found.components_, signs[:, None] * expected.components_, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.transform(x), signs * expected.transform(x), rtol=0, atol=1e-8)
    scores = found.transform(x)
    np.testing.assert_allclose(
        found.inverse_transform(scores), expected.inverse_transform(signs * scores), rtol=0, atol=1e-8
    )


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_variances_do_not_cancel_beside_a_large_mean(offset):
    x = dense() + offset
    found = ly.TruncatedSVD(15, tol=1e-14).fit(x)
    np.testing.assert_allclose(found.explained_variance_, found.transform(x).var(axis=0), rtol=1e-3, atol=1e-7)
    assert found.explained_variance_ratio_.sum() == pytest.approx(1, abs=1e-9)


def test_a_matrix_of_zeros_has_singular_values_of_zero():
    found = ly.TruncatedSVD(2).fit(np.zeros((5, 3)))
    assert found.certificate_.holds
    assert not found.singular_values_.any()
    assert not found.explained_variance_ratio_.any()
