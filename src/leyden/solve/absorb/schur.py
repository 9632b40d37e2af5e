r"""The normal matrix of crossed factors, its largest factor eliminated.

With D₀ the diagonal block of the factor of the most levels (its penalty included), C its cells with the others and A
the block of the others,

    H = [[D₀, C], [Cᵀ, A]],    S = A − Cᵀ D₀⁻¹ C,

the effects z of the others solve ``S z = b − Cᵀ D₀⁻¹ b₀``, those of the first are ``D₀⁻¹ (b₀ − C z)``. For two factors
S is the Laplacian of a graph on the levels of the smaller, two of them joined with ``w w' / d`` by every level of the
larger that has cells with both, plus a diagonal from penalties. Products are written in differences, so that what a
level has in common with its neighbours does not cancel. A product goes through the cells, those of levels with one
cell left out; where the graph has few edges it is formed and the product goes through them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from leyden import aligned
from leyden.solve.absorb import _absorb_kernels
from leyden.solve.absorb.cells import Cells, merged
from leyden.solve.absorb.threads import LEAST_SCATTERS, PARTS, Threads, ranges, ranges_by_work, scatters

kernels: Any = _absorb_kernels
LANES = _absorb_kernels.LANES

#: Cells of levels with one cell, as a share of all, from which the others are copied to be gone through alone.
MANY_SINGLE = 0.25
#: Cells a level that make another part of a product worth its while.
WORTH = 8
#: Edges of the graph a cell, up to which it is formed.
FEW_EDGES = 1.5


class Elimination:
    """D₀ and C: what leads from all factors to the smaller ones and back.

    Parameters
    ----------
    cells : Cells
        Of the factor that is eliminated with the others.
    penalty : float
        λ of the factor that is eliminated.
    size : int
        Levels of the others.
    """

    def __init__(self, cells: Cells, penalty: float, size: int, threads: Threads):
        self.cells, self.penalty, self.size, self.threads = cells, penalty, size, threads
        self.totals = cells.totals(threads)
        d = self.totals + penalty
        self.inverse = np.divide(1.0, d, out=np.zeros_like(d), where=d > 0)

    def right_side(self, b0: np.ndarray, b: np.ndarray) -> np.ndarray:
        """``b − Cᵀ D₀⁻¹ b₀``, columns four at a time."""
        parts = ranges_by_work(self.cells.indptr, scatters(32 * self.size))
        sums = aligned.zeros((len(parts), self.size, LANES))
        self.threads.each(
            kernels.schur_right_side,
            [(*self.cells.columns, self.inverse, *part, b0, sums[k]) for k, part in enumerate(parts)],
        )
        return b + sums.sum(0)

    def back_substitute(self, b0: np.ndarray, z: np.ndarray) -> np.ndarray:
        """``D₀⁻¹ (b₀ − C z)``."""
        out = aligned.empty((self.cells.levels, LANES))
        parts = ranges_by_work(self.cells.indptr, PARTS)
        self.threads.each(
            kernels.back_substitute, [(*self.cells.columns, self.inverse, *part, b0, z, out) for part in parts]
        )
        return out


class CellComplement:
    """S of any number of factors, a product at a time through the cells.

    Parameters
    ----------
    elimination : Elimination
    diagonal : float64, shape (levels of the others,)
        Penalties of the others.
    """

    def __init__(self, elimination: Elimination, diagonal: np.ndarray):
        cells, inverse = elimination.cells, elimination.inverse
        if cells.index.ndim == 1 and elimination.penalty == 0:
            many = np.diff(cells.indptr) > 1
            if np.count_nonzero(~many) > MANY_SINGLE * len(cells):
                cells, inverse = cells.of_many(), inverse[many]
        self.cells, self.inverse, self.diagonal, self.threads = cells, inverse, diagonal, elimination.threads
        # Parts cost their zeros and their merge: no more of them than what is added to them is worth.
        worth = max(LEAST_SCATTERS, len(cells) // (WORTH * elimination.size))
        self._parts = ranges_by_work(cells.indptr, min(worth, scatters(64 * elimination.size)))
        self._lines = aligned.zeros((len(self._parts), elimination.size, 2 * LANES))
        self._kernel = kernels.schur_product if cells.index.ndim == 1 else kernels.schur_product_many
        self._merges = ranges(elimination.size, PARTS)
        self._dots = np.zeros((len(self._merges), LANES))

    def product(self, z: np.ndarray, out: np.ndarray, dots: np.ndarray) -> None:
        """``out = S z`` and ``dots = zᵀ S z``, lane by lane."""

        def add(part: tuple[int, int], lines: np.ndarray) -> None:
            kernels.spread(z, lines)
            self._kernel(*self.cells.arrays, self.inverse, *part, lines)

        self.threads.each(add, zip(self._parts, self._lines, strict=True))
        self.threads.each(
            kernels.merge_lines,
            [(self._lines, self.diagonal, z, *part, out, self._dots[k]) for k, part in enumerate(self._merges)],
        )
        dots[:] = self._dots.sum(0)


class GraphComplement:
    """S of two factors as a graph.

    Parameters
    ----------
    graph : Cells
        Edges of each level, both ways.
    diagonal : float64, shape (levels,)
        What is added to the Laplacian.
    """

    def __init__(self, graph: Cells, diagonal: np.ndarray, threads: Threads):
        self.graph, self.diagonal, self.threads = graph, diagonal, threads
        self._parts = ranges_by_work(graph.indptr, PARTS)
        self._dots = np.zeros((len(self._parts), LANES))

    def product(self, z: np.ndarray, out: np.ndarray, dots: np.ndarray) -> None:
        """``out = S z`` and ``dots = zᵀ S z``, lane by lane."""
        g = self.graph
        self.threads.each(
            kernels.laplacian_product,
            [
                (g.indptr, g.index, g.weights, self.diagonal, *p, z, out, self._dots[k])
                for k, p in enumerate(self._parts)
            ],
        )
        dots[:] = self._dots.sum(0)


def complement(elimination: Elimination, diagonal: np.ndarray) -> CellComplement | GraphComplement:
    """S in the form whose products cost less."""
    by_cells = CellComplement(elimination, diagonal)
    cells = by_cells.cells
    counts = np.diff(cells.indptr)
    if cells.index.ndim > 1 or (counts * (counts - 1)).sum() / 2 > FEW_EDGES * max(len(cells), 1):
        return by_cells
    return graph_complement(elimination, cells, by_cells.inverse, diagonal)


def graph_complement(
    elimination: Elimination, cells: Cells, inverse: np.ndarray, diagonal: np.ndarray
) -> GraphComplement:
    """The graph of S, all its edges formed; ``cells`` are those of levels with several."""
    counts = np.zeros(elimination.size, np.int64)
    kernels.pair_counts(cells.indptr, cells.index, counts)

    def fill(places: np.ndarray, index: np.ndarray, weights: np.ndarray) -> None:
        kernels.pair_fill(*cells.arrays, inverse, places, index, weights)

    graph = _graph(counts, fill, elimination)
    return GraphComplement(graph, diagonal + tied(elimination), elimination.threads)


def sampled_graph(elimination: Elimination, cells: Cells, inverse: np.ndarray, seed: int) -> Cells:
    """A graph of less edges than ``cells`` whose expectation is that of S."""
    if cells.mask:
        cells = Cells(cells.indptr, cells.index.copy(), cells.weights.copy())
        kernels.sort_rows(cells.indptr, cells.index, cells.weights)
    counts, key = np.zeros(elimination.size, np.int64), np.uint64(seed)
    kernels.tree_counts(*cells.arrays, key, counts)

    def fill(places: np.ndarray, index: np.ndarray, weights: np.ndarray) -> None:
        kernels.tree_fill(*cells.arrays, inverse, key, places, index, weights)

    return _graph(counts, fill, elimination)


def _graph(counts: np.ndarray, fill: Any, elimination: Elimination) -> Cells:
    """Edges of each level, as many as ``counts`` says, those between the same two added up."""
    indptr = np.concatenate([[0], np.cumsum(counts)])
    index, weights = np.empty(indptr[-1], np.int32), aligned.empty(int(indptr[-1]))
    fill(indptr[:-1].copy(), index, weights)
    return merged(Cells(indptr, index, weights), len(counts), elimination.threads)


def tied(elimination: Elimination) -> np.ndarray:
    """Diagonal that a penalty of the factor that is eliminated leaves on the other."""
    out = np.zeros(elimination.size)
    if elimination.penalty > 0:
        kernels.excess(*elimination.cells.arrays, elimination.inverse, elimination.penalty, out)
    return out


def schur_diagonal(cells: Cells, inverse: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Weight of every level of one other factor, and the diagonal of its block of S without its own penalty."""
    total, out = np.zeros(size), np.zeros(size)
    kernels.schur_diagonal(*cells.arrays, inverse, 0, cells.levels, total, out)
    return total, out
