"""Approximate Cholesky factors: exact on trees, unbiased in the mean, a good preconditioner on any graph."""

import numpy as np
import pytest
import scipy.sparse as sp

from leyden.solve.absorb.approximate_cholesky import approximate_cholesky
from leyden.solve.absorb.cells import Cells
from leyden.solve.absorb.conjugate_gradients import solve
from leyden.solve.absorb.schur import GraphComplement
from leyden.solve.absorb.threads import Threads


def graph(n, a, b, w):
    m = sp.coo_array((np.r_[w, w], (np.r_[a, b], np.r_[b, a])), shape=(n, n)).tocsr()
    m.sum_duplicates()
    return Cells(m.indptr.astype(np.int64), m.indices.astype(np.int32), m.data)


def laplacian(cells, ground):
    n = cells.levels
    m = sp.csr_array((cells.weights, cells.index, cells.indptr), shape=(n, n))
    return np.diag(m.sum(axis=1) + ground) - m.toarray()


def product(factor):
    """``L D Lᵀ`` in the order of the vertices."""
    n = len(factor.place)
    lower = np.eye(n)
    for s in range(n):
        for k in range(factor.indptr[s], factor.indptr[s + 1]):
            lower[factor.rows[k], s] -= factor.entries[k]
    d = np.divide(1.0, factor.inverse, out=np.zeros(n), where=factor.inverse > 0)
    return (lower * d @ lower.T)[np.ix_(factor.place, factor.place)]


def random_tree(rng, n):
    parent = np.array([rng.integers(0, k) for k in range(1, n)])
    return np.arange(1, n), parent


@pytest.mark.parametrize("grounded", [False, True])
def test_trees_are_exact(grounded):
    rng = np.random.default_rng(0)
    a, b = random_tree(rng, 60)
    cells = graph(60, a, b, 10.0 ** rng.uniform(-3, 3, 59))
    ground = np.zeros(60)
    if grounded:
        ground[7] = 2.5
    exact = laplacian(cells, ground)
    np.testing.assert_allclose(product(approximate_cholesky(cells, ground, 1)), exact, atol=1e-10 * exact.max())


def test_the_mean_over_seeds_is_the_laplacian():
    rng = np.random.default_rng(1)
    a, b = np.triu_indices(7, 1)
    cells = graph(7, a, b, rng.uniform(0.5, 2, len(a)))
    ground = np.array([0.3, 0, 0, 0, 1.0, 0, 0])
    exact = laplacian(cells, ground)
    found = np.array([product(approximate_cholesky(cells, ground, seed)) for seed in range(4000)])
    error = np.abs(found.mean(0) - exact)
    assert error.max() < 5 * (found.std(0) / np.sqrt(4000)).max()
    assert found.std(0).max() > 0.01


def test_one_seed_one_factor():
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 200, (2, 900))
    cells = graph(200, a[a != b], b[a != b], np.ones(np.sum(a != b)))
    first, again, other = (approximate_cholesky(cells, np.zeros(200), seed) for seed in (1, 1, 2))
    assert np.array_equal(first.rows, again.rows)
    assert np.array_equal(first.entries, again.entries)
    assert not np.array_equal(first.inverse, other.inverse)


def grid(k):
    i = np.arange(k * k).reshape(k, k)
    return np.r_[i[:, :-1].ravel(), i[:-1].ravel()], np.r_[i[:, 1:].ravel(), i[1:].ravel()]


@pytest.mark.parametrize("wild", [False, True])
@pytest.mark.parametrize("shape", ["grid", "random", "two parts", "dense"])
def test_conjugate_gradients_need_few_iterations(shape, wild):
    rng = np.random.default_rng(3)
    if shape == "grid":
        n, (a, b) = 3600, grid(60)
    elif shape == "dense":
        n, (a, b) = 300, np.triu_indices(300, 1)
    else:
        n = 2000
        a, b = rng.integers(0, n, (2, 8000))
        if shape == "two parts":
            b = (b // 2) * 2 + a % 2
    held = a != b
    w = 10.0 ** rng.uniform(-3, 3, held.sum()) if wild else np.ones(held.sum())
    cells = graph(n, a[held], b[held], w)
    operator = GraphComplement(cells, np.zeros(n), Threads(1))
    x = rng.standard_normal((n, 4))
    b = np.empty((n, 4))
    squares = np.zeros(4)
    operator.product(x, b, squares)
    factor = approximate_cholesky(cells, np.zeros(n), 0)
    run = solve(operator, factor.solve, b, 4 * squares, np.zeros(4), 1e-8, 300)
    assert run.converged
    assert run.iterations < 70
    error, energy = np.empty((n, 4)), np.zeros(4)
    operator.product(run.x - x, error, energy)
    assert np.all(np.sqrt(energy) < 4e-8 * np.sqrt(squares))


def test_vertices_without_edges():
    cells = graph(5, np.array([0]), np.array([1]), np.array([2.0]))
    factor = approximate_cholesky(cells, np.array([0, 0, 0, 4.0, 0]), 0)
    z = np.ones((5, 4))
    factor.solve(np.array([[1.0], [-1], [0], [8], [0]]) * np.ones(4), z)
    assert z[3, 0] == 2
    assert z[0, 0] - z[1, 0] == 0.5
    assert z[2, 0] == z[4, 0] == 0
