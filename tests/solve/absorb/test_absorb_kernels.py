"""Grouping, Schur complements and their graphs beside dense matrices."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from leyden import vectors
from leyden.solve.absorb import _absorb_kernels, _prefetch, _random, approximate_cholesky, forest
from leyden.solve.absorb.cells import ONES, Cells, grouped, level_counts, merged
from leyden.solve.absorb.components import connected_parts
from leyden.solve.absorb.conjugate_gradients import solve
from leyden.solve.absorb.forest import forest_of_cells, forest_of_graph
from leyden.solve.absorb.preconditioner import several
from leyden.solve.absorb.schur import (
    CellComplement,
    Elimination,
    GraphComplement,
    graph_complement,
    sampled_graph,
    schur_diagonal,
    tied,
)
from leyden.solve.absorb.table import Table
from leyden.solve.absorb.threads import Threads

ROWS, FIRST, SECOND = 400, 50, 12


def digest(*modules):
    return hashlib.sha256(b"".join(Path(module.__file__).read_bytes() for module in modules)).hexdigest()[:16]


def test_compiled_kernels_are_of_these_sources():
    assert digest(_prefetch, _random, vectors) == _absorb_kernels.COMPILED_FROM
    assert digest(_random) == approximate_cholesky.COMPILED_FROM
    assert digest(_prefetch, vectors) == forest.COMPILED_FROM


@pytest.fixture(params=[False, True], ids=["plain", "weighted"])
def rows(request):
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, FIRST, ROWS).astype(np.int32), rng.integers(0, SECOND, ROWS).astype(np.int32)
    weights = np.where(rng.random(ROWS) < 0.3, 0.0, rng.uniform(0.1, 2, ROWS)) if request.param else ONES
    return first, second, weights


def cells_of(rows, threads):
    first, second, weights = rows
    counts, parts = level_counts(first, FIRST, weights, threads)
    return merged(grouped(first, second, counts, parts, weights, threads), SECOND, threads)


def dense_cells(rows):
    first, second, weights = rows
    out = np.zeros((FIRST, SECOND))
    np.add.at(out, (first, second), weights if len(weights) > 1 else 1.0)
    return out


@pytest.mark.parametrize("threads", [1, 3])
def test_cells_are_a_cross_table(rows, threads):
    with Threads(threads) as pool:
        cells = cells_of(rows, pool)
        found = np.zeros((FIRST, SECOND))
        for i in range(FIRST):
            for k in range(cells.indptr[i], cells.indptr[i + 1]):
                found[i, cells.index[k]] += cells.weights[k & cells.mask]
        np.testing.assert_allclose(found, dense_cells(rows), rtol=1e-14)
        np.testing.assert_allclose(cells.totals(pool), dense_cells(rows).sum(1), rtol=1e-13)


def test_many_equal_rows_are_one_cell():
    rng = np.random.default_rng(3)
    first, second = rng.integers(0, FIRST, 5000).astype(np.int32), rng.integers(0, SECOND, 5000).astype(np.int32)
    with Threads(2) as pool:
        cells = cells_of((first, second, ONES), pool)
    assert len(cells) == len(np.unique(first * SECOND + second))
    assert cells.weights.sum() == 5000


def dense_schur(table, penalty, diagonal):
    d = table.sum(1) + penalty
    inverse = np.divide(1.0, d, out=np.zeros(len(d)), where=d > 0)
    return np.diag(table.sum(0) + diagonal) - table.T @ (inverse[:, None] * table), inverse


@pytest.mark.parametrize("penalty", [0.0, 1.7])
def test_every_form_of_the_schur_complement(rows, penalty):
    rng = np.random.default_rng(1)
    table, diagonal = dense_cells(rows), rng.uniform(0, 1, SECOND)
    schur, inverse = dense_schur(table, penalty, diagonal)
    z, b, b0 = rng.standard_normal((SECOND, 4)), rng.standard_normal((SECOND, 4)), rng.standard_normal((FIRST, 4))
    with Threads(2) as pool:
        elimination = Elimination(cells_of(rows, pool), penalty, SECOND, pool)
        np.testing.assert_allclose(elimination.right_side(b0, b), b - table.T @ (inverse[:, None] * b0), atol=1e-12)
        np.testing.assert_allclose(elimination.back_substitute(b0, z), inverse[:, None] * (b0 - table @ z), atol=1e-12)
        total, found = schur_diagonal(elimination.cells, elimination.inverse, SECOND)
        np.testing.assert_allclose(total, table.sum(0))
        np.testing.assert_allclose(found + diagonal, np.diagonal(schur), atol=1e-12)
        cells, some = several(elimination)
        for form in (CellComplement(elimination, diagonal), graph_complement(elimination, cells, some, diagonal)):
            out, dots = np.empty((SECOND, 4)), np.zeros(4)
            form.product(z, out, dots)
            np.testing.assert_allclose(out, schur @ z, atol=1e-11)
            np.testing.assert_allclose(dots, np.einsum("ij,ij->j", z, schur @ z), rtol=1e-11)


def test_levels_with_one_cell_are_left_out():
    first = np.r_[np.arange(40), np.arange(40), np.arange(40, 300)].astype(np.int32)
    second = (first % 7).astype(np.int32)
    second[40:80] = (first[40:80] + 1) % 7
    with Threads(1) as pool:
        counts, parts = level_counts(first, 300, ONES, pool)
        cells = merged(grouped(first, second, counts, parts, ONES, pool), 7, pool)
        form = CellComplement(Elimination(cells, 0.0, 7, pool), np.zeros(7))
        assert form.cells.levels == 40
        table = np.zeros((300, 7))
        np.add.at(table, (first, second), 1)
        schur, _ = dense_schur(table, 0.0, 0.0)
        out, z = np.empty((7, 4)), np.random.default_rng(0).standard_normal((7, 4))
        form.product(z, out, np.zeros(4))
        np.testing.assert_allclose(out, schur @ z, atol=1e-11)


def test_the_complement_of_two_other_factors():
    rng = np.random.default_rng(2)
    codes = [rng.integers(0, count, ROWS) for count in (FIRST, 9, 4)]
    d = np.hstack([(c[:, None] == np.arange(k)).astype(float) for c, k in zip(codes[1:], (9, 4), strict=True)])
    first = (codes[0][:, None] == np.arange(FIRST)).astype(float)
    order = np.argsort(codes[0], kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(codes[0], minlength=FIRST))]).astype(np.int64)
    index = np.column_stack([codes[1][order], 9 + codes[2][order]]).astype(np.int32)
    schur = d.T @ d - d.T @ first @ np.linalg.pinv(first.T @ first) @ first.T @ d
    z, out, dots = rng.standard_normal((13, 4)), np.empty((13, 4)), np.zeros(4)
    with Threads(2) as pool:
        CellComplement(Elimination(Cells(indptr, index, ONES), 0.0, 13, pool), np.zeros(13)).product(z, out, dots)
    np.testing.assert_allclose(out, schur @ z, atol=1e-11)


@pytest.mark.parametrize("penalty", [0.0, 1.7])
def test_sampled_graphs_have_the_right_mean(rows, penalty):
    table = dense_cells(rows)
    schur, _ = dense_schur(table, penalty, np.zeros(SECOND))
    found = []
    with Threads(1) as pool:
        elimination = Elimination(cells_of(rows, pool), penalty, SECOND, pool)
        cells, inverse = several(elimination)
        for seed in range(1500):
            graph = sampled_graph(elimination, cells, inverse, seed)
            form = GraphComplement(graph, tied(elimination), pool)
            matrix = np.zeros((SECOND, SECOND))
            for first in range(0, SECOND, 4):
                form.product(np.eye(SECOND)[:, first : first + 4].copy(), out := np.empty((SECOND, 4)), np.zeros(4))
                matrix[:, first : first + 4] = out
            found.append(matrix)
    error = np.abs(np.mean(found, 0) - schur)
    assert error.max() < 5 * (np.std(found, 0) / np.sqrt(1500)).max()


def test_connected_parts():
    first = np.array([0, 0, 1, 2, 3, 5], np.int32)
    second = np.array([0, 1, 1, 2, 3, 2], np.int32)
    weights = np.array([1.0, 1, 1, 1, 0, 1])
    parts = connected_parts(Table.of(np.zeros(6), None, [first, second], weights), 0, 1)
    assert parts.count == 2
    assert parts.labels[0].tolist() == [0, 0, 1, -1, -1, 1]
    assert parts.labels[1].tolist() == [0, 0, 1, -1]


def test_random_numbers_are_uniform():
    drawn = np.array([_random.random(np.uint64(7), k) for k in range(4000)])
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.06
    assert _random.random(np.uint64(7), 3) == drawn[3]


@pytest.mark.parametrize("penalty", [0.0, 1.7])
def test_a_few_equal_rows_need_not_be_one_cell(penalty):
    rng = np.random.default_rng(4)
    first, second = rng.integers(0, FIRST, 60).astype(np.int32), rng.integers(0, SECOND, 60).astype(np.int32)
    first[:3], second[:3] = first[3:6], second[3:6]
    table = dense_cells((first, second, ONES))
    schur, _ = dense_schur(table, penalty, 0.0)
    z, out = rng.standard_normal((SECOND, 4)), np.empty((SECOND, 4))
    g = schur @ z
    with Threads(2) as pool:
        cells = cells_of((first, second, ONES), pool)
        assert len(cells) == 60
        elimination = Elimination(cells, penalty, SECOND, pool)
        some, inverse = several(elimination)
        graph = graph_complement(elimination, some, inverse, np.zeros(SECOND))
        for form in (CellComplement(elimination, np.zeros(SECOND)), graph):
            form.product(z, out, np.zeros(4))
            np.testing.assert_allclose(out, g, atol=1e-11)
        energy = np.einsum("ij,ij->j", z, g)
        for found in (forest_of_cells(cells, tied(elimination)), forest_of_graph(graph.graph, graph.diagonal)):
            assert np.all(found.energy(g) >= energy * (1 - 1e-10))
        factor = approximate_cholesky.approximate_cholesky(graph.graph, graph.diagonal, 0)
        run = solve(graph, factor.solve, g, energy, np.zeros(4), 1e-9, 100)
        assert run.converged
