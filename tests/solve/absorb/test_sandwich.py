"""Covariances beside the formulas of fixest and pyfixest, written out with dense matrices."""

import numpy as np
import pytest

from leyden.errors import DataError, OptionError
from leyden.solve.absorb.absorb import absorb
from leyden.solve.absorb.sandwich import covariance, nested_in


@pytest.fixture(params=[False, True], ids=["plain", "weighted"])
def model(request):
    rng = np.random.default_rng(5)
    n = 300
    x = rng.standard_normal((n, 3))
    e = rng.standard_normal(n) * (1 + np.abs(x[:, 0]))
    weights = rng.uniform(0.2, 2, n) if request.param else None
    return x, e, weights, rng.integers(0, 25, n), rng.integers(0, 12, n)


def dense_meat(scores, clusters):
    total = np.zeros((scores.shape[1],) * 2)
    for c in np.unique(clusters):
        s = scores[clusters == c].sum(0)
        total += np.outer(s, s)
    return total


def parts(x, e, weights):
    w = np.ones(len(e)) if weights is None else weights
    return np.linalg.inv(x.T @ (w[:, None] * x)), x * (w * e)[:, None], w


def test_iid(model):
    x, e, weights, *_ = model
    bread, _, w = parts(x, e, weights)
    found = covariance(x, e, weights, "iid", df=20)
    np.testing.assert_allclose(found.matrix, (w * e**2).sum() / (300 - 23) * bread, rtol=1e-12)
    assert found.degrees_of_freedom == 277


def test_robust_to_heteroskedasticity(model):
    x, e, weights, *_ = model
    bread, scores, _ = parts(x, e, weights)
    found = covariance(x, e, weights, "HC1", df=20)
    np.testing.assert_allclose(found.matrix, 300 / 277 * bread @ (scores.T @ scores) @ bread, rtol=1e-12)


def test_clusters_of_one_variable(model):
    x, e, weights, first, _ = model
    bread, scores, _ = parts(x, e, weights)
    found = covariance(x, e, weights, "CRV1", [first], df=20, nested=15, nested_factors=1)
    c = len(np.unique(first))
    k = 3 + 20 - 15 + 1
    expected = 299 / (300 - k) * c / (c - 1) * bread @ dense_meat(scores, first) @ bread
    np.testing.assert_allclose(found.matrix, expected, rtol=1e-12)
    assert found.clusters == (c,)
    assert found.degrees_of_freedom == c - 1


@pytest.mark.parametrize("least", [True, False])
def test_clusters_of_two_variables(model, least):
    x, e, weights, first, second = model
    bread, scores, _ = parts(x, e, weights)
    found = covariance(x, e, weights, "CRV1", [first, second], df=4, least_clusters=least)
    both = first * 100 + second
    counts = [len(np.unique(c)) for c in (first, second, both)]
    meat = 0
    for codes, count, sign in zip((first, second, both), counts, (1, 1, -1), strict=True):
        number = min(counts) if least else count
        meat = meat + sign * number / (number - 1) * dense_meat(scores, codes)
    assert found.clusters == tuple(counts)
    assert not found.repaired
    np.testing.assert_allclose(found.matrix, 299 / (300 - 7) * bread @ meat @ bread, rtol=1e-10)


def test_a_variance_is_never_negative():
    x = np.array([[1.0], [1.0], [1.0], [1.0]])
    e = np.array([1.0, -1.0, -1.0, 1.0])
    found = covariance(x, e, None, "CRV1", [np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])])
    assert found.repaired
    assert found.matrix[0, 0] == 0


def test_rows_of_no_weight_count_for_nothing(model):
    x, e, weights, first, second = model
    w = np.ones(300) if weights is None else weights.copy()
    w[::3] = 0
    held = w > 0
    for kind, clusters in (("iid", None), ("HC1", None), ("CRV1", [first, second])):
        some = None if clusters is None else [c[held] for c in clusters]
        np.testing.assert_allclose(
            covariance(x, e, w, kind, clusters, 5).matrix,
            covariance(x[held], e[held], w[held], kind, some, 5).matrix,
            rtol=1e-12,
        )


def test_nested():
    assert nested_in(np.array([0, 0, 1, 2]), np.array([5, 5, 7, 5]))
    assert not nested_in(np.array([0, 0, 1, 2]), np.array([5, 6, 7, 5]))


def test_absorbed_factors_nested_in_clusters_cost_nothing():
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 30, 400).astype(np.int32), rng.integers(0, 8, 400).astype(np.int32)
    x = rng.standard_normal((400, 2))
    y = x @ [1.0, 2.0] + rng.standard_normal(30)[first] + rng.standard_normal(400)
    found = absorb(y, x, [first, second])
    left = found.residualised(0, 400)
    np.testing.assert_allclose(left.T @ left, found.gram, rtol=1e-9)
    bread, scores, _ = parts(left, found.residuals(), None)
    v = found.covariance("CRV1", [first])
    assert v.parameters == 2 + (30 + 8 - 1) - 30 + 1
    np.testing.assert_allclose(
        v.matrix, 399 / (400 - v.parameters) * 30 / 29 * bread @ dense_meat(scores, first) @ bread, rtol=1e-9
    )
    iid = found.covariance()
    np.testing.assert_allclose(iid.matrix, found.rss / (400 - 2 - 37) * bread, rtol=1e-9)


def test_errors():
    x, e = np.ones((4, 1)), np.ones(4)
    with pytest.raises(OptionError, match="kind"):
        covariance(x, e, kind="HC7")
    with pytest.raises(OptionError, match="clusters"):
        covariance(x, e, kind="CRV1")
    with pytest.raises(DataError, match="one cluster"):
        covariance(x, e, kind="CRV1", clusters=[np.zeros(4, int)])
    with pytest.raises(DataError, match="degrees of freedom"):
        covariance(x, e, df=5)
