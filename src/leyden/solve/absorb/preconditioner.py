"""Preconditioners of the Schur complement: its diagonal, and its diagonal blocks factored approximately.

The block of one factor g is the Schur complement of the factor that is eliminated and g alone: a graph. For two factors
it is all of S. For more this is additive Schwarz over pairs of factors [1]_: those with the factor that is eliminated,
and those of others with many levels, since two of them may be nested in one another but for a few rows. What small
factors share with others has a small rank, and is left to conjugate gradients.

References
----------
.. [1] S. Correia, "A feasible estimator for linear models with multi-way fixed effects", 2016.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from leyden.solve.absorb import _absorb_kernels
from leyden.solve.absorb.approximate_cholesky import approximate_cholesky
from leyden.solve.absorb.cells import Cells
from leyden.solve.absorb.schur import FEW_EDGES, Elimination, GraphComplement, graph_complement, sampled_graph, tied

kernels: Any = _absorb_kernels

#: Levels up to which a block is inverted as a dense matrix.
DENSE = 200

#: Share of its weight below which the diagonal of S is rounding: a level that nothing is joined to.
ALONE = 1e-13

#: Writes ``M⁻¹ r`` to its second argument.
Preconditioner = Callable[[np.ndarray, np.ndarray], None]


def diagonal(schur: np.ndarray, totals: np.ndarray) -> Preconditioner:
    """The diagonal of S; ``totals`` is what it was taken off."""
    inverse = np.divide(1.0, schur, out=np.zeros_like(schur), where=schur > ALONE * totals)
    return lambda r, z: kernels.scale_rows(r, inverse, z)


def block(elimination: Elimination, penalty: float, seed: int, formed: GraphComplement | None = None) -> Preconditioner:
    """The block of one factor; ``elimination`` is that of the pair, ``formed`` its graph where there is one."""
    size = elimination.size
    ground = np.full(size, penalty)
    cells, inverse = several(elimination)
    if formed is not None:
        return approximate_cholesky(formed.graph, formed.diagonal, seed).solve
    if size <= DENSE:
        return _dense(elimination, ground)
    counts = np.diff(cells.indptr)
    if (counts * (counts - 1)).sum() / 2 <= FEW_EDGES * max(len(cells), 1):
        formed = graph_complement(elimination, cells, inverse, ground)
        return approximate_cholesky(formed.graph, formed.diagonal, seed).solve
    graph = sampled_graph(elimination, cells, inverse, seed)
    return approximate_cholesky(graph, ground + tied(elimination), seed + 1).solve


def several(elimination: Elimination) -> tuple[Cells, np.ndarray]:
    """Cells of the levels that have several, and ``D₀⁻¹`` of those levels."""
    many = np.diff(elimination.cells.indptr) > 1
    return elimination.cells.of_many(), elimination.inverse[many]


def _dense(elimination: Elimination, ground: np.ndarray) -> Preconditioner:
    size, cells = elimination.size, elimination.cells
    matrix = np.diag(np.bincount(cells.index, np.broadcast_to(cells.weights, len(cells)), size) + ground)
    kernels.add_cliques(*cells.arrays, elimination.inverse, 0, cells.levels, matrix)
    inverse = np.linalg.pinv(matrix, rcond=1e-12, hermitian=True)

    def solve(r: np.ndarray, z: np.ndarray) -> None:
        np.matmul(inverse, r, out=z)

    return solve


def pair(elimination: Elimination, penalty: float, seed: int) -> Preconditioner:
    """Two factors together, the larger before the smaller; ``penalty`` is that of the smaller."""
    inner = block(elimination, penalty, seed)
    larger = elimination.cells.levels

    def solve(r: np.ndarray, z: np.ndarray) -> None:
        rest = elimination.right_side(r[:larger], r[larger:])
        smaller = np.empty_like(rest)
        inner(rest, smaller)
        z[:larger] = elimination.back_substitute(r[:larger], smaller)
        z[larger:] = smaller

    return solve


def additive(parts: list[tuple[np.ndarray, Preconditioner]], size: int) -> Preconditioner:
    """Preconditioners of parts of the rows that may overlap, each row shared between those it is in."""
    shares = np.zeros(size)
    for rows, _ in parts:
        shares[rows] += 1
    shares = 1 / np.sqrt(np.maximum(shares, 1))[:, None]

    def solve(r: np.ndarray, z: np.ndarray) -> None:
        z[:] = 0
        for rows, part in parts:
            there = np.empty((len(rows), r.shape[1]))
            part((shares[rows] * r[rows]), there)
            z[rows] += shares[rows] * there

    return solve
