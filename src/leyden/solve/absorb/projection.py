r"""Columns projected off crossed factors: ``(DᵀWD + Λ) a = DᵀW v`` solved for several columns at once.

The factor of the most levels is eliminated; what is left is solved by conjugate gradients, with the diagonal of S to
begin with. Most designs need no more. Where the pace that they come with says that it would take long, the diagonal is
replaced by approximate Cholesky factors, once for all columns, and the run goes on from where it is.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from leyden import aligned
from leyden.solve.absorb import _absorb_kernels, preconditioner
from leyden.solve.absorb.cells import Cells, grouped, level_counts, merged
from leyden.solve.absorb.conjugate_gradients import Run, solve
from leyden.solve.absorb.forest import Forest, forest_of_cells, forest_of_graph
from leyden.solve.absorb.schur import CellComplement, Elimination, GraphComplement, complement, schur_diagonal, tied
from leyden.solve.absorb.table import Table
from leyden.solve.absorb.threads import Threads

kernels: Any = _absorb_kernels
LANES = _absorb_kernels.LANES

#: Iterations with the diagonal before it is asked whether to go on with it.
TRIAL = 24
#: Iterations with the diagonal that cost as much as approximate Cholesky factors and the iterations with them: if more
#: are ahead at the pace so far, or if so many more were not enough, factors it is.
PATIENCE = 60
#: Iterations at most.
MOST_ITERATIONS = 20_000
#: Sharper runs that a bound which is not met is answered with, and how much sharper than needed each is.
SHARPER, MARGIN = 3, 0.3
#: Error of a column, relative to it, that is rounding.
ROUNDED = 4e-16
#: Safety on the least Ritz value, which bounds the least eigenvalue from above.
RITZ_SAFETY = 0.5


class Projection:
    """The normal equations of all factors.

    Parameters
    ----------
    table : Table
    penalties : tuple of float
        λ of each factor.
    seed : int
        Of approximate Cholesky factors.
    threads : Threads

    Attributes
    ----------
    iterations : int
        Of conjugate gradients, over all runs.
    preconditioner : str
    rigorous : bool
        Whether :meth:`energy` needs no eigenvalue.
    """

    def __init__(self, table: Table, penalties: tuple[float, ...], seed: int, threads: Threads):
        self.table, self.penalties, self.seed, self.threads = table, penalties, seed, threads
        self.order = sorted(range(len(table.codes)), key=lambda f: (-table.levels[f], f))
        self.iterations, self.preconditioner, self.least = 0, "diagonal", 1.0
        self.starts = np.concatenate([[0], np.cumsum([table.levels[f] for f in self.order[1:]])]).astype(int)
        self.size = int(self.starts[-1])
        self.penalty_diagonal = np.concatenate(
            [np.zeros(0)] + [np.full(table.levels[f], penalties[f]) for f in self.order[1:]]
        )
        first = self.order[0]
        self._counts, self._parts = level_counts(table.codes[first], table.levels[first], table.weights, threads)
        self.elimination = Elimination(self._all_cells(), penalties[first], self.size, threads)
        self.forest: Forest | None = None
        if self.size:
            self._complement()

    @property
    def rigorous(self) -> bool:
        return len(self.order) < 3

    @property
    def totals(self) -> list[np.ndarray]:
        """Weight of every level, by factor in the order they were given."""
        out: list[np.ndarray] = [np.zeros(0)] * len(self.order)
        out[self.order[0]] = self.elimination.totals
        for k, f in enumerate(self.order[1:]):
            out[f] = self._rest_totals[self.starts[k] : self.starts[k + 1]]
        return out

    def row_counts(self, f: int) -> np.ndarray:
        """Rows of each level of a factor, those of no weight not counted."""
        if f == self.order[0]:
            return self._counts.sum(0)
        table = self.table
        return level_counts(table.codes[f], table.levels[f], table.weights, self.threads)[0].sum(0)

    def _complement(self) -> None:
        """S, the diagonal of it, and the first preconditioner."""
        self.complement = complement(self.elimination, self.penalty_diagonal)
        self._rest_totals, schur = np.zeros(self.size), np.zeros(self.size)
        for k, f in enumerate(self.order[1:]):
            cells = self._pair(f)
            block = slice(self.starts[k], self.starts[k + 1])
            self._rest_totals[block], schur[block] = schur_diagonal(
                cells, self.elimination.inverse, self.table.levels[f]
            )
        schur += self.penalty_diagonal
        self._solve = preconditioner.diagonal(schur, self._rest_totals + self.penalty_diagonal)

    def _all_cells(self) -> Cells:
        """Cells of the factor that is eliminated with all others."""
        table, others = self.table, self.order[1:]
        if len(others) == 1:
            return self._merged_pair(others[0])
        rows = np.arange(table.rows, dtype=np.int32 if table.rows < 2**31 else np.int64)
        found = self._grouped(rows)
        index = np.empty((len(found), len(others)), np.int32)
        for k, f in enumerate(others):
            np.add(table.codes[f][found.index], self.starts[k], out=index[:, k], casting="unsafe")
        return Cells(found.indptr, index, found.weights)

    def _grouped(self, payload: np.ndarray) -> Cells:
        codes = self.table.codes[self.order[0]]
        return grouped(codes, payload, self._counts, self._parts, self.table.weights, self.threads)

    def _merged_pair(self, f: int) -> Cells:
        return merged(self._grouped(self.table.codes[f]), self.table.levels[f], self.threads)

    def _pair(self, f: int) -> Cells:
        """Cells of the factor that is eliminated with one other."""
        return self.elimination.cells if len(self.order) == 2 else self._merged_pair(f)

    def solve(self, sums: list[np.ndarray], squares: np.ndarray, given: np.ndarray, tol: float) -> list[np.ndarray]:
        """Effects of every column, (groups, levels, 4) a factor.

        Parameters
        ----------
        sums : list of float64 arrays, shape (groups, levels, 4)
            ``DᵀW v`` by factor.
        squares : float64, shape (columns,)
            ``vᵀW v``.
        given : float64, shape (columns,)
            That of the columns as they were given: what rounding is in proportion to.
        tol : float
            Error of what is left of a column, relative to it.
        """
        first, groups = self.order[0], len(sums[0])
        effects = [aligned.zeros((groups, count, LANES)) for count in self.table.levels]
        for g in range(groups):
            lanes = slice(g * LANES, (g + 1) * LANES)
            b0, rest = sums[first][g], self._joined(sums, g)
            left = np.maximum(squares[lanes] - np.einsum("ij,ij,i->j", b0, b0, self.elimination.inverse), 0.0)
            floor = (ROUNDED * given[lanes]) * ROUNDED
            z = self._conjugate(self.elimination.right_side(b0, rest), left, floor, tol) if self.size else rest
            effects[first][g] = self.elimination.back_substitute(b0, z)
            for k, f in enumerate(self.order[1:]):
                effects[f][g] = z[self.starts[k] : self.starts[k + 1]]
        return effects

    def _joined(self, by_level: list[np.ndarray], g: int) -> np.ndarray:
        """One group of columns of all factors but the one that is eliminated."""
        return np.concatenate([np.zeros((0, LANES)), *(by_level[f][g] for f in self.order[1:])])

    def _conjugate(self, b: np.ndarray, left: np.ndarray, floor: np.ndarray, tol: float) -> np.ndarray:
        """Effects of the factors that are not eliminated, until their error is bounded as asked."""
        trying = self.preconditioner == "diagonal"
        run = self._run(b, left, floor, tol, TRIAL if trying else MOST_ITERATIONS, None)
        if trying and not run.converged and run.ahead <= PATIENCE:
            run = self._run(b, left, floor, tol, PATIENCE, run.x)
        if trying and not run.converged:
            self._factor()
            run = self._run(b, left, floor, tol, MOST_ITERATIONS, run.x)
        asked = tol
        for _ in range(SHARPER):
            bound, wanted = self._residual_energy(b, run.x), np.maximum(tol**2 * run.left, floor)
            worst = np.sqrt(np.max(np.divide(bound, wanted, out=np.zeros(LANES), where=wanted > 0)))
            if worst <= 1 or not run.converged:
                break
            asked *= MARGIN / worst
            run = self._run(b, left, floor, asked, MOST_ITERATIONS, run.x)
        return run.x

    def _run(
        self, b: np.ndarray, left: np.ndarray, floor: np.ndarray, tol: float, most: int, x: np.ndarray | None
    ) -> Run:
        run = solve(self.complement, self._solve, b, left, floor, tol, most, x)
        self.iterations += run.iterations
        self.least = min(self.least, run.least)
        return run

    def _factor(self) -> None:
        """Approximate Cholesky factors in the place of the diagonal."""
        self.preconditioner, self.least = "approximate Cholesky", 1.0
        if len(self.order) == 2:
            formed = self.complement if isinstance(self.complement, GraphComplement) else None
            self._solve = preconditioner.block(self.elimination, self.penalties[self.order[1]], self.seed, formed)
            return
        parts = []
        for k, f in enumerate(self.order[1:], 1):
            block = preconditioner.block(self._eliminated(0, k), self.penalties[f], self.seed + 2 * k)
            parts.append((self._places(k), block))
        large = [k for k, f in enumerate(self.order) if k and self.table.levels[f] > preconditioner.DENSE]
        for number, (k, m) in enumerate(itertools.combinations(large, 2)):
            solver = preconditioner.pair(
                self._eliminated(k, m), self.penalties[self.order[m]], self.seed + 2 * (number + len(self.order))
            )
            parts.append((np.concatenate([self._places(k), self._places(m)]), solver))
        self._solve = preconditioner.additive(parts, self.size)

    def _places(self, k: int) -> np.ndarray:
        """Rows of S of the factor that comes as number ``k`` by levels, the one that is eliminated being number 0."""
        return np.arange(self.starts[k - 1], self.starts[k])

    def _eliminated(self, k: int, m: int) -> Elimination:
        """Two factors alone, by number, the first eliminated."""
        table, f, g = self.table, self.order[k], self.order[m]
        if k == 0:
            cells = self._merged_pair(g)
        else:
            counts, parts = level_counts(table.codes[f], table.levels[f], table.weights, self.threads)
            rows = grouped(table.codes[f], table.codes[g], counts, parts, table.weights, self.threads)
            cells = merged(rows, table.levels[g], self.threads)
        return Elimination(cells, self.penalties[f], table.levels[g], self.threads)

    def _residual_energy(self, b: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Bounds on ``rᵀ S⁺ r``, ``r = b − S x``."""
        s = aligned.empty(b.shape)
        self.complement.product(x, s, np.zeros(LANES))
        return self._schur_energy(b - s)

    def _schur_energy(self, r: np.ndarray) -> np.ndarray:
        """Bounds on ``rᵀ S⁺ r``: of a flow along a spanning forest, or of the least Ritz value for many factors."""
        if self.rigorous:
            return self.spanning_forest().energy(r)
        z = aligned.empty(r.shape)
        self._solve(np.ascontiguousarray(r), z)
        return np.einsum("ij,ij->j", r, z) / (RITZ_SAFETY * self.least)

    def energy(self, gradient: list[np.ndarray]) -> np.ndarray:
        """Bounds on ``gᵀ H⁺ g`` of every column of a gradient in the effects, an array (groups, levels, 4) a factor."""
        groups = len(gradient[0])
        out = np.zeros(groups * LANES)
        for g in range(groups):
            g0, rest = gradient[self.order[0]][g], self._joined(gradient, g)
            found = np.einsum("ij,ij,i->j", g0, g0, self.elimination.inverse)
            if self.size:
                found += self._schur_energy(self.elimination.right_side(g0, rest))
            out[g * LANES : (g + 1) * LANES] = found
        return out

    def spanning_forest(self) -> Forest:
        """Of the graph of two factors."""
        if self.forest is None:
            s = self.complement
            if isinstance(s, GraphComplement):
                self.forest = forest_of_graph(s.graph, s.diagonal)
            else:
                assert isinstance(s, CellComplement)
                self.forest = forest_of_cells(s.cells, self.penalty_diagonal + tied(self.elimination))
        return self.forest
