r"""Least squares with crossed factors of many levels: effects that are absorbed, coefficients that are kept.

The problem is

    min  Σ_i w_i (y_i − x_i·β − Σ_f a_f[c_f(i)])² + Σ_f λ_f ‖a_f‖²,

``c_f(i)`` the level of factor f that row i has; λ = 0 for fixed effects, λ = σ²/τ² for random intercepts of variance
τ². By Frisch, Waugh and Lovell [1]_ it is solved in two steps. With D the indicators of all levels and Λ the penalties,
every column v of ``[y x]`` is projected off the factors, ``ṽ = v − D a``, ``(DᵀWD + Λ) a = DᵀWv``; β then is a small
least squares problem in what is left.

The projection eliminates the factor of the most levels, whose block is diagonal, and runs conjugate gradients on the
Schur complement of the others (:mod:`leyden.solve.absorb.schur`, :mod:`leyden.solve.absorb.conjugate_gradients`),
four columns side by side. For two factors that is the Laplacian of a graph. Where it is well connected, a diagonal
preconditioner is enough; where it is not — workers who hardly ever change their firm — an approximate Cholesky
factorization takes its place (:mod:`leyden.solve.absorb.approximate_cholesky`).

The small problem is that of the products ``G = ṼᵀWṼ + AᵀΛA``, with ``A`` the effects of all columns. They exceed the
exact ones by ``EᵀHE``, H the normal matrix and E the error of the effects: an error of 1e-6 in the projection is one of
1e-12 in G.

Rows are read three times after they are grouped: sums by level, products of what is left, and the certificate
(:mod:`leyden.solve.absorb.absorb_certificate`). Nothing of the length of the table is kept but the cells.

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
from leyden.certificate import Certificate
from leyden.engine.budget import format_bytes, thread_count
from leyden.engine.local import single_threaded_blas
from leyden.engine.progress import Progress
from leyden.errors import BudgetError, DataError, OptionError
from leyden.solve.absorb import _absorb_kernels, sandwich
from leyden.solve.absorb.absorb_certificate import Answer, Errors, certify, column_errors
from leyden.solve.absorb.components import Parts, absorbed_parameters, largest_parts, normalise, singletons
from leyden.solve.absorb.projection import Projection
from leyden.solve.absorb.table import BLOCK, Table, penalties_of
from leyden.solve.absorb.threads import Threads

kernels: Any = _absorb_kernels
LANES = _absorb_kernels.LANES

#: Norm of a covariate, once effects are taken off it, below which it is a combination of them.
ABSORBED = 1e-8
#: Squared norm of a covariate beside the others, below which it is a combination of them.
COLLINEAR = 1e-10
#: Times that a projection whose gradient, found from the rows, is too large is solved again for what is missing.
CORRECTIONS = 2
#: Part of the tolerance that conjugate gradients are stopped at: the rest is left to rounding.
SHARE = 0.5


@dataclass
class Absorbed:
    """Coefficients and effects, with their certificate.

    Attributes
    ----------
    coefficients : float64, shape (p,)
        NaN for covariates that were dropped.
    bounds : float64, shape (p,)
        On the error of each coefficient.
    names : tuple of str
    dropped : tuple of str
        Covariates that are combinations of fixed effects and of covariates before them.
    effects : list of float64 arrays, shape (levels,)
        Of each factor. Fixed effects that are only determined together are those whose mean over the levels of a
        connected part is zero, for every factor but the one of the most levels; levels without rows have 0.
    rss : float
        ``Σ w e²``.
    objective : float
        With the penalties.
    gram : float64, shape (kept, kept)
        Products of the covariates that were kept, effects taken off, penalties included.
    observations : int
        Rows with a weight that is not zero.
    levels : tuple of int
        Levels of each factor that have rows.
    components : Parts or None
        Connected parts of the two fixed factors with the most levels, ``count`` of them; None with less than two.
    parameters : int
        Fixed effects that are determined by themselves: levels less what is redundant.
    parameters_exact : bool
        Whether ``parameters`` is the rank; with three fixed factors or more it counts pairs and may be too large.
    singletons : int
        Rows that are alone in a level of a fixed factor: they say nothing about the coefficients.
    iterations : int
        Of conjugate gradients, four columns at a time.
    preconditioner : str
    certificate : Certificate
    seconds : mapping from step to float
    """

    coefficients: np.ndarray
    bounds: np.ndarray
    names: tuple[str, ...]
    dropped: tuple[str, ...]
    effects: list[np.ndarray]
    rss: float
    objective: float
    gram: np.ndarray
    observations: int
    levels: tuple[int, ...]
    components: Parts | None
    parameters: int
    parameters_exact: bool
    singletons: int
    iterations: int
    preconditioner: str
    certificate: Certificate
    seconds: dict[str, float]
    _table: Table
    _projections: list[np.ndarray]
    _penalties: tuple[float, ...]

    @property
    def kept(self) -> list[int]:
        """Columns of x that have a coefficient."""
        return [j for j, name in enumerate(self.names) if name not in self.dropped]

    def residualised(self, first: int, last: int) -> np.ndarray:
        """Covariates that were kept, effects taken off, of the rows ``first:last``."""
        block = self._table.read(first, last, aligned.zeros((last - first, self._table.width)))
        self._table.subtract(block, first, self._projections)
        return block[:, [1 + j for j in self.kept]]

    def residuals(self, first: int = 0, last: int | None = None) -> np.ndarray:
        """``y − xβ − Σ a_f`` of the rows ``first:last``."""
        table, last = self._table, self._table.rows if last is None else last
        e, beta = table.y[first:last].copy(), np.nan_to_num(self.coefficients)
        for start in range(first, last, BLOCK):
            stop = min(start + BLOCK, last)
            e[start - first : stop - first] -= table.fitted(start, stop, beta)
        for codes, effect in zip(table.codes, self.effects, strict=True):
            kernels.subtract_from(e, codes, first, effect)
        return e

    def covariance(
        self, kind: str = "iid", clusters: Sequence[np.ndarray] | None = None, **options: Any
    ) -> sandwich.Covariance:
        """Covariance of the coefficients that were kept; see :func:`leyden.solve.absorb.sandwich.covariance`.

        Factors that are nested in a cluster variable do not count among the parameters.
        """
        fixed = [f for f, penalty in enumerate(self._penalties) if penalty == 0]
        inside = [
            f for f in fixed if any(sandwich.nested_in(self._table.codes[f], np.asarray(c)) for c in clusters or ())
        ]
        weights = self._table.weights if self._table.mask else None
        return sandwich.covariance(
            self.residualised, self.residuals, weights, kind, clusters, self.parameters, rows=self._table.rows,
            gram=self.gram, rss=self.rss, nested=sum(self.levels[f] for f in inside), nested_factors=len(inside),
            **options,
        )  # fmt: skip


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
    """Coefficients of covariates and effects of crossed factors, with a certificate.

    Parameters
    ----------
    y : float64, shape (n,)
    x : array of numbers, shape (n, p), tuple of p columns, or None
        Nothing of them is copied but blocks. Without fixed factors there is no intercept but one among these.
    factors : sequence of int32 arrays, shape (n,)
        Codes 0, 1, … of the levels of each factor; at least one.
    weights : float64, shape (n,), optional
        Zero or more.
    penalties : sequence of float, optional
        ``σ²/τ²`` of a random intercept, 0 for fixed effects (the default).
    tol : float, default 1e-10
        What the certificate must reach: error of the fits relative to the residuals, and of every projection.
    memory : str or int, optional
        Budget beside the data; default half of what is free.
    threads : int, optional
        Default: all processors. The answer does not depend on it.
    progress : bool, optional
        Default: only on a terminal.
    names : sequence of str, optional
        Of the covariates.
    seed : int, default 0
        Of approximate Cholesky factors.

    Returns
    -------
    Absorbed

    Raises
    ------
    DataError
        If shapes do not fit, codes are negative, or numbers are not finite.
    BudgetError
        If the budget is too small.
    """
    began = time.perf_counter()
    tol, seed = check.fraction("tol", tol), check.seed(seed)
    count, budget = check.threads(threads) or thread_count(), check.memory(memory)
    table = Table.of(y, x, factors, weights)
    p = table.p
    names = tuple(f"x{j + 1}" for j in range(p)) if names is None else tuple(names)
    if len(names) != p or len(set(names)) != p:
        raise OptionError(f"names={names} must be {p} different names, one a covariate")
    lambdas = penalties_of(penalties, len(table.codes))
    needed = predicted_nbytes(table)
    if needed > budget:
        raise BudgetError(
            f"absorbing {len(table.codes)} factors from {table.rows:,} rows takes {format_bytes(needed)}, "
            f"the budget is {format_bytes(budget)}"
        )
    with Threads(count) as pool, single_threaded_blas():
        return _Run(table, lambdas, tol, seed, pool, names, Clock(began, check.progress(progress))).result()


def predicted_nbytes(table: Table) -> int:
    """Memory that a run takes beside the data: cells, and sums and effects of every level."""
    cells = table.rows * (4 * max(len(table.codes) - 1, 1) + (8 if table.mask else 0) + 8)
    return cells + (table.scatter_parts() + 4) * 8 * table.width * sum(table.levels)


class Clock:
    """Seconds of each step, and its name on a terminal while it runs."""

    def __init__(self, began: float, show: bool | None):
        self.began, self.last = began, time.perf_counter()
        self.seconds: dict[str, float] = {}
        self.progress = Progress(show)

    def lap(self, name: str) -> None:
        """The time since the last lap goes to ``name``."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
        self.last = now

    def total(self) -> dict[str, float]:
        """All steps and their sum."""
        return {**self.seconds, "all": time.perf_counter() - self.began}


class _Run:
    """One call of :func:`absorb`."""

    def __init__(
        self,
        table: Table,
        lambdas: tuple[float, ...],
        tol: float,
        seed: int,
        threads: Threads,
        names: tuple[str, ...],
        clock: Clock,
    ):
        self.table, self.lambdas, self.tol, self.seed, self.threads = table, lambdas, tol, seed, threads
        self.names, self.clock = names, clock

    def result(self) -> Absorbed:
        """The steps one after the other."""
        table = self.table
        self.projection = Projection(table, self.lambdas, self.seed, self.threads)
        self.clock.lap("grouping rows")
        sums, squares = self.sums()
        self.clock.lap("sums by level")
        effects = self.projection.solve(sums, squares, squares, SHARE * self.tol)
        del sums
        self.clock.lap("projection")
        gram, effects, errors = self.what_is_left(effects, squares)
        p = table.p
        beta, dropped = coefficients(gram[: p + 1, : p + 1], squares)
        kept = [j for j in range(len(beta)) if j not in dropped]
        totals = self.combined(effects, beta)
        parts = largest_parts(table, self.lambdas, self.projection)
        if parts is not None:
            normalise(totals, parts, self.lambdas, self.projection.totals)
        for attempt in range(CORRECTIONS + 1):
            answer, gradient = self.answer(beta, kept, totals, gram, effects, errors, squares)
            certificate, bounds = certify(answer, self.tol)
            if certificate.holds or attempt == CORRECTIONS or answer.effects_energy <= 3 * errors.rounding[0]:
                break
            self.correct(totals, gradient, answer.rss, squares)
            if parts is not None:
                normalise(totals, parts, self.lambdas, self.projection.totals)
        self.clock.lap("certificate")
        levels = tuple(int(np.count_nonzero(t)) for t in self.projection.totals)
        parameters, exact = absorbed_parameters(table, self.lambdas, levels, parts)
        every = np.full(len(beta), np.nan)
        every[kept] = bounds
        return Absorbed(
            beta, every, self.names, tuple(self.names[j] for j in dropped), totals, answer.rss, answer.objective,
            answer.gram, int(np.count_nonzero(table.weights)) if table.mask else table.rows, levels, parts, parameters,
            exact, singletons(self.projection), self.projection.iterations,
            self.projection.preconditioner, certificate, self.clock.total(), table, effects, self.lambdas,
        )  # fmt: skip

    def each_block(self, name: str, begin: Any, work: Any) -> list[Any]:
        """States of the parts of a pass over the rows."""
        with self.clock.progress.sweep(name, self.table.rows, 0) as advance:
            return self.table.each_block(self.threads, begin, work, advance)

    def sums(self) -> tuple[list[np.ndarray], np.ndarray]:
        """``DᵀW[y x]`` by factor, and the squared norms of the columns."""
        table = self.table

        def begin(_: int) -> tuple[list[np.ndarray], np.ndarray]:
            return table.by_level(), np.zeros(table.width)

        def work(state: Any, first: int, last: int, block: np.ndarray) -> None:
            table.level_sums(block, first, state[0])
            state[1][:] += np.einsum("ij,ij->j", block, block * table.weight(first, last))

        sums, squares = _added(self.each_block("sums by level", begin, work))
        if not np.all(np.isfinite(squares)):
            raise DataError("y or x holds numbers that are not finite", where=_not_finite(table))
        return sums, squares

    def what_is_left(
        self, effects: list[np.ndarray], squares: np.ndarray
    ) -> tuple[np.ndarray, list[np.ndarray], Errors]:
        """``G``, the effects, and bounds on their errors; effects whose gradient is too large are corrected."""
        for attempt in range(CORRECTIONS + 1):
            gram, gradient = self.products(effects)
            left = np.diagonal(gram)
            errors = column_errors(self.projection, gradient, effects, squares, left)
            self.clock.lap("products")
            relevant = left > ABSORBED**2 * squares
            met = errors.energy <= np.maximum(self.tol * errors.norm, 3 * errors.rounding)
            if attempt == CORRECTIONS or np.all(met | ~relevant):
                break
            # The gradient is what is missing of the sums by level, and its error is to be small beside the columns.
            missing = self.projection.solve(gradient, left, squares, SHARE * self.tol)
            for effect, more in zip(effects, missing, strict=True):
                effect += more
            self.clock.lap("projection")
        return gram, effects, errors

    def products(self, effects: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        """``G`` of what is left of y and x, and its gradient in the effects."""
        table = self.table

        def begin(_: int) -> tuple[np.ndarray, list[np.ndarray]]:
            return np.zeros((table.width, table.width)), table.by_level()

        def work(state: Any, first: int, last: int, block: np.ndarray) -> None:
            table.subtract(block, first, effects)
            state[0][:] += block.T @ (block * table.weight(first, last))
            table.level_sums(block, first, state[1])

        gram, gradient = _added(self.each_block("products", begin, work))
        for effect, into, penalty in zip(effects, gradient, self.lambdas, strict=True):
            if penalty:
                flat = effect.transpose(1, 0, 2).reshape(effect.shape[1], -1)
                gram += penalty * (flat.T @ flat)
                into -= penalty * effect
        return gram, gradient

    def combined(self, effects: list[np.ndarray], beta: np.ndarray) -> list[np.ndarray]:
        """Effects of the whole model: those of y less those of x times β."""
        factors = np.zeros(self.table.width)
        factors[0], factors[1 : 1 + len(beta)] = 1.0, -np.nan_to_num(beta)
        return [np.einsum("glc,gc->l", effect, factors.reshape(-1, LANES)) for effect in effects]

    def answer(
        self,
        beta: np.ndarray,
        kept: list[int],
        totals: list[np.ndarray],
        gram: np.ndarray,
        effects: list[np.ndarray],
        errors: Errors,
        squares: np.ndarray,
    ) -> tuple[Answer, list[np.ndarray]]:
        """Residuals of the answer and what follows, from the rows, and the gradient in the effects."""
        table, b = self.table, np.nan_to_num(beta)

        def begin(_: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
            return np.zeros(1), np.zeros(len(b)), [np.zeros(count) for count in table.levels]

        def work(state: Any, first: int, last: int, block: np.ndarray) -> None:
            x = block[:, 1 : 1 + len(b)]
            e = block[:, 0] - x @ b
            for codes, total in zip(table.codes, totals, strict=True):
                kernels.subtract_from(e, codes, first, total)
            for codes, into in zip(table.codes, state[2], strict=True):
                kernels.add_to_levels(e, table.weights, table.mask, codes, first, into)
            state[0][0] += e @ (e * table.weight(first, last)[:, 0])
            state[1][:] += x.T @ (e * table.weight(first, last)[:, 0])

        rss, by_x, by_level = _added(self.each_block("certificate", begin, work))
        small, penalty = by_x.copy(), 0.0
        gradient = [np.zeros((1, count, LANES)) for count in table.levels]
        for f, (found, total, effect) in enumerate(zip(by_level, totals, effects, strict=True)):
            found -= self.lambdas[f] * total
            penalty += self.lambdas[f] * float(total @ total)
            gradient[f][0, :, 0] = found
            small -= np.einsum("glc,l->gc", effect, found).ravel()[1 : 1 + len(b)]
        energy = self.projection.energy(gradient)[0]
        columns = [0, *(1 + j for j in kept)]
        answer = Answer(
            beta[kept], gram[np.ix_(columns[1:], columns[1:])], errors.of(columns), squares[columns], small[kept],
            float(np.sqrt(energy)), float(rss[0]), float(rss[0]) + penalty, table.rows, self.projection.rigorous,
        )  # fmt: skip
        return answer, gradient

    def correct(self, totals: list[np.ndarray], gradient: list[np.ndarray], rss: float, squares: np.ndarray) -> None:
        """Add what is missing of the effects of the whole model, in place."""
        left, given = np.zeros(LANES), np.zeros(LANES)
        left[0], given[0] = rss, squares[0]
        # Nothing is taken off residuals: the error is to be small beside all of them.
        missing = self.projection.solve(gradient, left, given, SHARE * self.tol)
        for total, more in zip(totals, missing, strict=True):
            total += more[0, :, 0]


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
    block = np.zeros((BLOCK, table.width))
    for first in range(0, table.rows, BLOCK):
        last = min(first + BLOCK, table.rows)
        fine = np.isfinite(table.read(first, last, block)).all(axis=1)
        if not fine.all():
            return f"row {first + int(np.argmin(fine)):,}"
    return "weighted sums, which overflow"
