"""Bounds on absorbed effects beside exact answers: of problems built to break them, and of runs that stopped early."""

import math

import mpmath as mp
import numpy as np
import pytest
from tests.truth import LeastSquaresTruth

from leyden.solve.absorb.absorb import absorb
from leyden.solve.absorb.cells import Cells
from leyden.solve.absorb.forest import forest_of_cells, forest_of_graph


def dummies(codes):
    return (codes[:, None] == np.arange(codes.max() + 1)).astype(float)


def independent(columns, weights):
    """The first columns of a matrix that are independent of those before them."""
    kept = []
    for j in range(columns.shape[1]):
        if np.linalg.matrix_rank((weights[:, None] * columns)[:, [*kept, j]]) > len(kept):
            kept.append(j)
    return columns[:, kept]


def hostile(kind):
    rng = np.random.default_rng(11)
    n = 60
    first, second = rng.integers(0, 12, n).astype(np.int32), rng.integers(0, 7, n).astype(np.int32)
    x = rng.standard_normal((n, 2))
    y = x @ [1.0, -1.0] + rng.standard_normal(12)[first] + rng.standard_normal(7)[second] + rng.standard_normal(n)
    weights = None
    if kind == "far from zero":
        x, y = x + np.array([1e6, -1e5]), y + 1e7
    if kind == "nearly collinear":
        x[:, 1] = x[:, 0] + 1e-4 * x[:, 1]
    if kind == "nearly absorbed":
        x[:, 1] = rng.standard_normal(12)[first] + 1e-5 * x[:, 1]
    if kind == "wild weights":
        weights = 10.0 ** rng.uniform(-6, 6, n)
    if kind == "tiny":
        x, y = x * 1e-150, y * 1e-120
    if kind == "nearly fitted":
        y = x @ [1.0, -1.0] + rng.standard_normal(12)[first] + 1e-9 * rng.standard_normal(n)
    return y, x, [first, second], weights


HOSTILE = ["plain", "tiny", "far from zero", "nearly collinear", "nearly absorbed", "wild weights", "nearly fitted"]


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_bound_is_below_the_truth(kind):
    y, x, factors, weights = hostile(kind)
    w = np.ones(len(y)) if weights is None else weights
    found = absorb(y, x, factors, weights=weights, tol=1e-6)
    assert not found.dropped
    levels = independent(np.hstack([dummies(c) for c in factors]), np.ones(len(y)))
    truth = LeastSquaresTruth(np.hstack([x, levels]), y, weights=w)
    for j in range(2):
        assert abs(mp.mpf(float(found.coefficients[j])) - truth.x[j]) <= found.bounds[j]
    exact = truth.design * mp.matrix(truth.x)
    moved, rss = mp.mpf(0), mp.mpf(0)
    for i in range(len(y)):
        effects = mp.fsum(mp.mpf(float(effect[c[i]])) for effect, c in zip(found.effects, factors, strict=True))
        fit = effects + mp.fsum(mp.mpf(float(x[i, j])) * mp.mpf(float(found.coefficients[j])) for j in range(2))
        moved += mp.mpf(float(w[i])) * (fit - exact[i]) ** 2
        rss += mp.mpf(float(w[i])) * (mp.mpf(float(y[i])) - exact[i]) ** 2
    bounds = found.certificate.bounds
    assert mp.sqrt(moved / rss) <= bounds["fit"].value * (1 + 1e-9)
    assert mp.sqrt(moved) / truth.target_norm() <= bounds["backward_error"].value * (1 + 1e-9)
    assert moved / rss <= bounds["objective"].value * (1 + 1e-9)


def mobility(rng, workers, firms, movers, rows):
    """Workers who stay near one firm, some of them moving to the next."""
    worker = np.repeat(np.arange(workers), rows).astype(np.int32)
    home = (np.arange(workers) * firms // workers)[worker]
    moved = (rng.random(workers) < movers)[worker] & (np.tile(np.arange(rows), workers) >= rows // 2)
    return worker, np.minimum(home + moved, firms - 1).astype(np.int32)


@pytest.mark.parametrize("penalties", [None, (0.0, 0.5), (2.0, 3.0)])
@pytest.mark.parametrize("tol", [1e-1, 1e-3, 1e-5])
def test_runs_that_stop_early_are_bounded(tol, penalties):
    rng = np.random.default_rng(12)
    factors = list(mobility(rng, 400, 60, 0.3, 4))
    x = rng.standard_normal((1600, 2)) + rng.standard_normal(400)[factors[0], None]
    y = x @ [1.0, 2.0] + np.cumsum(rng.standard_normal(60))[factors[1]] + rng.standard_normal(1600)
    loose = absorb(y, x, factors, tol=tol, penalties=penalties)
    truth = absorb(y, x, factors, tol=1e-12, penalties=penalties)
    assert loose.certificate.holds
    assert truth.certificate.bounds["fit"].value < 1e-11
    assert np.all(np.abs(loose.coefficients - truth.coefficients) <= loose.bounds + truth.bounds)
    change = loose.residuals() - truth.residuals()
    energy = change @ change
    for one, other, l in zip(loose.effects, truth.effects, penalties or (0, 0), strict=True):
        energy += l * ((one - other) ** 2).sum()
    rest = math.sqrt(truth.rss)
    assert math.sqrt(energy) <= loose.certificate.bounds["fit"].value * math.sqrt(loose.rss) + 1e-11 * rest
    above = loose.certificate.bounds["objective"].value + 1e-12
    assert loose.objective - truth.objective <= above * loose.objective


def test_three_factors_that_stop_early():
    rng = np.random.default_rng(13)
    worker, firm = mobility(rng, 400, 60, 0.5, 6)
    factors = [worker, firm, rng.integers(0, 12, 2400).astype(np.int32)]
    x = rng.standard_normal((2400, 2))
    y = x @ [1.0, 2.0] + np.cumsum(rng.standard_normal(60))[firm] + rng.standard_normal(2400)
    truth = absorb(y, x, factors, tol=1e-12)
    for tol in (1e-1, 1e-3, 1e-5):
        loose = absorb(y, x, factors, tol=tol)
        assert loose.certificate.bounds["fit"].grade == "measured"
        assert np.all(np.abs(loose.coefficients - truth.coefficients) <= loose.bounds + truth.bounds)
        change = loose.residuals() - truth.residuals()
        assert math.sqrt(change @ change) <= loose.certificate.bounds["fit"].value * math.sqrt(loose.rss) + 1e-9


@pytest.mark.parametrize("grounded", [False, True])
def test_a_flow_along_a_forest_bounds_the_energy(grounded):
    rng = np.random.default_rng(14)
    rows, levels = 80, 30
    matrix = (rng.random((rows, levels)) < 0.07) * rng.uniform(0.1, 5, (rows, levels))
    matrix[:, 20:] *= (np.arange(rows) >= 60)[:, None]
    matrix[:, :20] *= (np.arange(rows) < 60)[:, None]
    index = np.concatenate([np.flatnonzero(r) for r in matrix]).astype(np.int32)
    indptr = np.concatenate([[0], np.cumsum((matrix > 0).sum(1))]).astype(np.int64)
    cells = Cells(indptr, index, matrix[matrix > 0])
    ground = np.where(rng.random(levels) < 0.2, rng.uniform(0.1, 3, levels), 0.0) if grounded else np.zeros(levels)
    d = matrix.sum(1)
    inverse = np.divide(1.0, d, out=np.zeros(rows), where=d > 0)
    schur = np.diag(matrix.sum(0) + ground) - matrix.T @ (inverse[:, None] * matrix)
    g = schur @ rng.standard_normal((levels, 4))
    exact = np.einsum("ij,ij->j", g, np.linalg.pinv(schur, rcond=1e-12, hermitian=True) @ g)
    joined = np.where(np.abs(schur) > 1e-14, -schur, 0.0)
    np.fill_diagonal(joined, 0.0)
    edges = joined > 0
    graph = Cells(
        np.concatenate([[0], np.cumsum(edges.sum(1))]).astype(np.int64),
        np.concatenate([np.flatnonzero(r) for r in edges]).astype(np.int32),
        joined[edges],
    )
    for forest in (forest_of_cells(cells, ground), forest_of_graph(graph, ground)):
        bound = forest.energy(g)
        assert np.all(bound >= exact * (1 - 1e-10))
        assert np.all(bound <= 1e3 * exact)
        if not grounded:
            assert forest.parts == levels - np.linalg.matrix_rank(schur)


def test_a_flow_along_a_tree_is_exact():
    n = 50
    index = np.column_stack([np.arange(n - 1), np.arange(1, n)]).ravel().astype(np.int32)
    cells = Cells(np.arange(0, 2 * n - 1, 2).astype(np.int64), index, np.full(2 * (n - 1), 2.0))
    # Two cells of weight 2 one after the other conduct 1.
    schur = np.diag(np.r_[1.0, np.full(n - 2, 2.0), 1.0]) - np.eye(n, k=1) - np.eye(n, k=-1)
    x = np.random.default_rng(15).standard_normal((n, 4))
    energy = forest_of_cells(cells, np.zeros(n)).energy(schur @ x)
    np.testing.assert_allclose(energy, np.einsum("ij,ij->j", x, schur @ x), rtol=1e-12)
