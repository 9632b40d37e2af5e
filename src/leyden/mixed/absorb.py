r"""Least squares with crossed factors of many levels: effects that are absorbed, coefficients that are kept.

The problem is

    min  Σ_i w_i (y_i − x_i·β − Σ_f a_f[c_f(i)])² + Σ_f λ_f ‖a_f‖²,

``c_f(i)`` the level of factor f that row i has; λ = 0 for fixed effects, λ = σ²/τ² for random intercepts of variance
τ². By Frisch, Waugh and Lovell [1]_ it is solved in two steps. With D the indicators of all levels and Λ the penalties,
every column v of ``[y x]`` is projected off the factors, ``ṽ = v − D a``, ``(DᵀWD + Λ) a = DᵀWv``; β then is a small
least squares problem in what is left.

The projection eliminates the factor of the most levels, whose block is diagonal, and runs conjugate gradients on the
Schur complement of the others (:mod:`leyden.mixed.schur`, :mod:`leyden.mixed.conjugate_gradients`), four columns side by
side. For two factors that is the Laplacian of a graph. Where it is well connected, a diagonal preconditioner is enough;
where it is not — workers who hardly ever change their firm — an approximate Cholesky factorization takes its place
(:mod:`leyden.mixed.approximate_cholesky`).

The small problem is that of the products ``G = ṼᵀWṼ + AᵀΛA``, with ``A`` the effects of all columns. They exceed the
exact ones by ``EᵀHE``, H the normal matrix and E the error of the effects: an error of 1e-6 in the projection is one of
1e-12 in G.

Rows are read three times after they are grouped: sums by level, products of what is left, and the certificate
(:mod:`leyden.mixed.absorb_certificate`). Nothing of the length of the table is kept but the cells.

References
----------
.. [1] M. C. Lovell, "Seasonal adjustment of economic time series and multiple regression analysis", JASA 58, 1963.
.. [2] S. Correia, "A feasible estimator for linear models with multi-way fixed effects", 2016.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from leyden import aligned
from leyden import options as check
from leyden.engine.budget import thread_count
from leyden.engine.local import single_threaded_blas
from leyden.errors import DataError, OptionError
from leyden.mixed import _absorb_kernels
from leyden.mixed.cells import Cells, grouped, level_counts, merged
from leyden.mixed.conjugate_gradients import Run, solve
from leyden.mixed.schur import Elimination, complement, schur_diagonal
from leyden.mixed.table import Table, penalties_of
from leyden.mixed.threads import Threads

kernels: Any = _absorb_kernels
LANES = _absorb_kernels.LANES

#: Iterations of conjugate gradients at most.
MOST_ITERATIONS = 20_000

#: Norm of a covariate, once effects are taken off it, below which it is a combination of them.
ABSORBED = 1e-8
#: Squared norm of a covariate beside the others, below which it is a combination of them.
COLLINEAR = 1e-10


@dataclass
class Absorbed:
    """Coefficients and effects.

    Attributes
    ----------
    coefficients : float64, shape (p,)
        NaN for covariates that were dropped.
    names : tuple of str
    dropped : tuple of str
        Covariates that are combinations of effects and of those before them.
    effects : list of float64 arrays, shape (levels,)
        Of each factor, for the whole model.
    gram : float64, shape (kept, kept)
        Products of the covariates that were kept, effects taken off.
    table : Table
    projections : list of float64 arrays, shape (groups, levels, 4)
        Effects of y and of each covariate by itself.
    """

    coefficients: np.ndarray
    names: tuple[str, ...]
    dropped: tuple[str, ...]
    effects: list[np.ndarray]
    gram: np.ndarray
    rss: float
    levels: tuple[int, ...]
    iterations: int
    seconds: dict[str, float]
    table: Table
    projections: list[np.ndarray]
    threads: int

    @property
    def kept(self) -> list[int]:
        """Columns of x that have a coefficient."""
        return [j for j, name in enumerate(self.names) if name not in self.dropped]

    def residualised(self, first: int, last: int) -> np.ndarray:
        """Covariates that were kept, effects taken off, of the rows ``first:last``."""
        block = self.table.read(first, last, aligned.zeros((last - first, self.table.width)))
        self.table.subtract(block, first, self.projections)
        return block[:, [1 + j for j in self.kept]]

    def residuals(self, first: int = 0, last: int | None = None) -> np.ndarray:
        """``y − xβ − Σ a_f`` of the rows ``first:last``."""
        last = self.table.rows if last is None else last
        kept = self.kept
        e = self.table.y[first:last] - self.table.x[first:last][:, kept] @ self.coefficients[kept]
        for codes, effect in zip(self.table.codes, self.effects, strict=True):
            e -= effect[codes[first:last]]
        return e


def absorb(
    y: Any,
    x: Any,
    factors: Sequence[Any],
    *,
    weights: Any = None,
    penalties: Sequence[float] | None = None,
    tol: float = 1e-10,
    memory: str | int | None = None,
    threads: int | None = None,
    progress: bool | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> Absorbed:
    """Coefficients of covariates and effects of crossed factors."""
    began = time.perf_counter()
    tol, seed = check.fraction("tol", tol), check.seed(seed)
    count = check.threads(threads) or thread_count()
    table = Table.of(y, x, factors, weights)
    p = table.x.shape[1]
    names = tuple(f"x{j + 1}" for j in range(p)) if names is None else tuple(names)
    if len(names) != p:
        raise OptionError(f"there are {p} covariates and {len(names)} names")
    lambdas = penalties_of(penalties, len(table.codes))
    with Threads(count) as pool, single_threaded_blas():
        return _Run(table, lambdas, tol, seed, pool, names, began).result()


class _Run:
    """One call of :func:`absorb`."""

    def __init__(self, table: Table, lambdas: tuple[float, ...], tol: float, seed: int, threads: Threads, names, began):
        self.table, self.lambdas, self.tol, self.seed, self.threads = table, lambdas, tol, seed, threads
        self.names, self.began = names, began
        self.order = sorted(range(len(table.codes)), key=lambda f: (-table.levels[f], f))
        self.iterations = 0
        self.seconds: dict[str, float] = {}

    def clock(self, name: str, since: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - since

    def result(self) -> Absorbed:
        table = self.table
        start = time.perf_counter()
        self.group()
        self.clock("group", start)
        start = time.perf_counter()
        sums, squares = self.sums()
        self.clock("sums", start)
        start = time.perf_counter()
        effects = self.project(sums, squares)
        self.clock("project", start)
        start = time.perf_counter()
        gram, norms = self.products(effects)
        self.clock("products", start)
        beta, dropped = coefficients(gram, squares)
        combined = np.concatenate([[1.0], -np.nan_to_num(beta), np.zeros(table.width - 1 - len(beta))])
        combined = combined.reshape(-1, LANES)
        total = [np.einsum("glc,gc->l", effect, combined) for effect in effects]
        kept = [j for j in range(len(beta)) if j not in dropped]
        inner = gram[1:, 1:][np.ix_(kept, kept)]
        residual = gram[0, 0] - 2 * gram[0, 1:][kept] @ beta[kept] + beta[kept] @ inner @ beta[kept]
        self.clock("all", self.began)
        return Absorbed(
            beta, self.names, tuple(self.names[j] for j in dropped), total, inner, float(residual),
            table.levels, self.iterations, self.seconds, table, effects, self.threads.count,
        )  # fmt: skip

    def group(self) -> None:
        """Cells of the largest factor with the others."""
        table, first = self.table, self.order[0]
        codes, levels = table.codes[first], table.levels[first]
        counts, parts = level_counts(codes, levels, table.weights, self.threads, f"factor {first}")
        second = self.order[1]
        rows = grouped(codes, table.codes[second], counts, parts, table.weights, self.threads)
        cells = merged(rows, table.levels[second], self.threads)
        size = sum(table.levels[f] for f in self.order[1:])
        self.elimination = Elimination(cells, self.lambdas[first], size, self.threads)
        diagonal = np.concatenate([np.full(table.levels[f], self.lambdas[f]) for f in self.order[1:]])
        self.penalty_diagonal = diagonal
        self.complement = complement(self.elimination, diagonal)
        self.totals, schur = schur_diagonal(cells, self.elimination.inverse, size)
        schur += diagonal
        lowest = 1e-14 * (self.totals + diagonal)
        self.inverse = np.divide(1.0, schur, out=np.zeros(size), where=schur > lowest)

    def sums(self) -> tuple[list[np.ndarray], np.ndarray]:
        """``DᵀW[y x]`` by factor, and the squared norms of the columns."""
        table = self.table

        def begin(_: int) -> tuple[list[np.ndarray], np.ndarray]:
            return table.by_level(), np.zeros(table.width)

        def work(state: Any, first: int, last: int, block: np.ndarray) -> None:
            table.level_sums(block, first, state[0])
            state[1][:] += np.einsum("ij,ij->j", block, block * table.weight(first, last))

        sums, squares = _added(table.each_block(self.threads, table.scatter_parts(), begin, work))
        if not np.all(np.isfinite(squares)):
            raise DataError("y or x holds numbers that are not finite", where=_not_finite(table))
        return sums, squares

    def project(self, sums: list[np.ndarray], squares: np.ndarray) -> list[np.ndarray]:
        """Effects of every column by itself."""
        table, first = self.table, self.order[0]
        effects = table.by_level()
        for g, column in enumerate(table.groups):
            b0 = sums[first][g]
            rest = np.concatenate([sums[f][g] for f in self.order[1:]])
            taken = np.einsum("ij,ij,i->j", b0, b0, self.elimination.inverse)
            left = np.maximum(squares[column : column + LANES] - taken, 0.0)
            run = self.conjugate(self.elimination.right_side(b0, rest), left)
            self.iterations += run.iterations
            effects[first][g] = self.elimination.back_substitute(b0, run.x)
            start = 0
            for f in self.order[1:]:
                effects[f][g] = run.x[start : start + table.levels[f]]
                start += table.levels[f]
        return effects

    def conjugate(self, b: np.ndarray, left: np.ndarray) -> Run:
        def diagonal(r: np.ndarray, z: np.ndarray) -> None:
            np.multiply(r, self.inverse[:, None], out=z)

        return solve(self.complement, diagonal, b, left, self.tol, MOST_ITERATIONS)

    def products(self, effects: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """``G`` of what is left of y and x."""
        table = self.table

        def begin(_: int) -> tuple[np.ndarray]:
            return (np.zeros((table.width, table.width)),)

        def work(state: Any, first: int, last: int, block: np.ndarray) -> None:
            table.subtract(block, first, effects)
            state[0][:] += block.T @ (block * table.weight(first, last))

        (gram,) = _added(table.each_block(self.threads, 16, begin, work))
        p = 1 + table.x.shape[1]
        for effect, penalty in zip(effects, self.lambdas, strict=True):
            flat = effect.transpose(1, 0, 2).reshape(effect.shape[1], -1) if penalty else None
            if flat is not None:
                gram += penalty * (flat.T @ flat)
        return gram[:p, :p], np.diagonal(gram)[:p]


def _added(states: list[Any]) -> Any:
    """States of parts added up into the first, in their order."""
    total = states[0]
    for state in states[1:]:
        for into, more in zip(total, state, strict=True):
            if isinstance(into, list):
                for a, b in zip(into, more, strict=True):
                    a += b
            else:
                into += more
    return total


def coefficients(gram: np.ndarray, squares: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """β from the products of what is left of ``[y x]``, and the columns of x that were left out.

    A column is left out when effects, or they and the columns before it, leave nothing of it.
    """
    p = len(gram) - 1
    kept: list[int] = []
    factor = np.zeros((0, 0))
    for j in range(1, p + 1):
        row = np.linalg.solve(factor, gram[kept, j]) if kept else np.zeros(0)
        pivot = gram[j, j] - row @ row
        if gram[j, j] <= ABSORBED**2 * squares[j] or pivot <= COLLINEAR * gram[j, j]:
            continue
        grown = np.zeros((len(kept) + 1, len(kept) + 1))
        grown[:-1, :-1], grown[-1, :-1], grown[-1, -1] = factor, row, np.sqrt(pivot)
        factor = grown
        kept.append(j)
    beta = np.full(p, np.nan)
    if kept:
        found = _cholesky_solve(factor, gram[kept, 0])
        found += _cholesky_solve(factor, gram[kept, 0] - gram[np.ix_(kept, kept)] @ found)
        beta[[j - 1 for j in kept]] = found
    return beta, [j - 1 for j in range(1, p + 1) if j not in kept]


def _cholesky_solve(factor: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.solve(factor.T, np.linalg.solve(factor, b))


def _not_finite(table: Table) -> str:
    """The first row that holds a number that is not finite."""
    for first in range(0, table.rows, 2**16):
        last = min(first + 2**16, table.rows)
        fine = np.isfinite(table.y[first:last]) & np.isfinite(table.x[first:last]).all(axis=1)
        if not fine.all():
            return f"row {first + int(np.argmin(fine)):,}"
    return "weighted sums, which overflow"
