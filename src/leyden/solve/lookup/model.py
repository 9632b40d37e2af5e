r"""Mixed models with features by lookup: a regression of its own for every group, tens of billions of coefficients.

Row i belongs to a group g and names an item ``j(i)``, whose features stand in tables that fit in memory:

.. math:: y_i = x_{j(i)}·β + z_{j(i)}·u_g + ε_i, \qquad u_g ∼ N(0, σ²Δ), \quad ε_i ∼ N(0, σ²).

Given Δ, the estimate of β (generalised least squares) and the predictions of ``u`` (BLUP; C. R. Henderson 1950)
minimise ``Σ_g ‖y_g − X_g β − Z_g v_g‖² + Σ_g ‖v_g‖² + ρ ‖β‖²`` in whitened coordinates, ``u = Λ v``, ``Δ = Λ Λᵀ``.
Groups meet in β alone, and are eliminated one by one: with ``M_g = Z_g Z_gᵀ + I``, of as many rows as the group has,

=================  =================================================================================================
pass               what it adds up
=================  =================================================================================================
Schur complement   ``S = Σ X_gᵀ M_g⁻¹ X_g + ρI``, ``t = Σ X_gᵀ M_g⁻¹ y_g``, ``Σ log|M_g|``; then ``S β = t``
residual           ``s = Σ X_gᵀ M_g⁻¹ (y_g − X_g β) − ρβ``, in float64; then ``β + S⁻¹ s``, and the certificate
=================  =================================================================================================

The coefficients of a group follow from its rows and β, ``v_g = Z_gᵀ M_g⁻¹ (y_g − X_g β)``; they are never stored, and
computed when they are asked for. Groups are solved in float32, sixteen at a time
(:mod:`leyden.solve.lookup._kernels`), and what that costs is bounded, corrected and certified
(:mod:`leyden.solve.lookup.certificate`). Of few rows everything is computed in float64.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from leyden import options as check
from leyden.certificate import Certificate
from leyden.engine.budget import reading_nbytes, thread_count
from leyden.engine.checkpoint import Checkpoint, as_checkpoint
from leyden.engine.executor import Executor, as_executor
from leyden.engine.fingerprint import fingerprint
from leyden.engine.local import single_threaded_blas
from leyden.engine.progress import Progress
from leyden.engine.sweep import Engine, read_rate
from leyden.errors import DataError
from leyden.factor.survey import as_ratings
from leyden.plan import PassPlan, Plan, machine, verb
from leyden.rows import Rows
from leyden.solve.lookup.certificate import Assessment, Factor, assess
from leyden.solve.lookup.passes import Residual, Residuals, Schur
from leyden.solve.lookup.problem import (
    Features,
    Table,
    fixed_features,
    independent,
    item_counts,
    random_features,
)
from leyden.solve.lookup.result import Model, PersonalisedRegressions, largest, nbytes
from leyden.solve.lookup.variance import estimated

#: Rows from which groups are solved in float32.
MANY = 300_000

#: Passes over the residual at most; one is enough wherever float32 was.
RESIDUALS = 4

#: Names of columns that a sentence has room for.
NAMED = 5


@dataclass(frozen=True)
class Options:
    """What was asked, beside the data."""

    ridge: float
    tol: float
    memory: int
    threads: int | None
    progress: bool | None
    checkpoint: Checkpoint | None
    executor: Executor | None


@dataclass(frozen=True, eq=False)
class Problem:
    """Tables, and what is known of the rows.

    Attributes
    ----------
    table : Table
    features : Features
    kept : ndarray
        Columns whose coefficients are sought, the most used first.
    remarks : tuple of str
        On the others.
    rows, most : int
        Rows of all groups, and of the largest.
    single : bool
        Whether groups are solved in float32.
    estimate : bool
        Whether the variances of the table are yet to be found.
    """

    table: Table
    features: Features
    kept: np.ndarray
    remarks: tuple[str, ...]
    rows: int
    most: int
    single: bool
    estimate: bool

    @property
    def sought(self) -> tuple[Table, Features, int]:
        """What the passes are made of."""
        return self.table, self.features.chosen(self.kept), self.most


@verb
def lookup_mixed(
    ratings: Any,
    table: Any,
    *,
    fixed: Any = None,
    covariance: Any = 1.0,
    intercept: bool = False,
    ridge: float = 0.0,
    tol: float = 1e-6,
    memory: str | int | None = None,
    threads: int | None = None,
    seed: int = 0,
    checkpoint: str | os.PathLike | Checkpoint | None = None,
    executor: Executor | None = None,
    progress: bool | None = None,
) -> Plan[PersonalisedRegressions]:
    """Shared coefficients, and coefficients of every group, of a mixed model whose features are looked up by item.

    Parameters
    ----------
    ratings : Ratings, sparse matrix, or anything :func:`leyden.open_ratings` takes
        Groups in rows, items in columns; an entry is a row of the model, its value the target.
    table : array_like, shape (items, k)
        Random features of items, kept in float32. Row j is of the item that the ratings number j, as item factors of
        :func:`leyden.als` are: ``ratings.items.take([j])``.
    fixed : array_like or sparse matrix, optional
        What the shared coefficients are of, in the same order: whole numbers, (items,) or (items, m), are categories,
        numbered from 0 on, one or several an item; other numbers, or a sparse matrix, (items, p), are features. By
        default one coefficient, the mean.
    covariance : float or array_like, shape (k,) or (k, k), or "estimate", default 1
        Δ: the covariance of a group's coefficients, relative to that of the noise; a number times the identity, its
        diagonal, or all of it. With a full one the table is whitened and rounded to float32: the model certified is
        that of the rounded table. "estimate": a number, by restricted maximum likelihood on a part of the groups
        (:mod:`leyden.solve.lookup.variance`); what is certified is then the answer for this number.
    intercept : bool, default False
        Whether groups have an intercept, as the last coefficient; the covariance is then of k + 1.
    ridge : float, default 0
        ρ.
    tol : float, default 1e-6
        What the error in energy, relative to the solution's, is certified to stay below.
    memory : str or int, optional
        Budget, as ``"2GB"`` or bytes; half of the free memory by default.
    threads : int, optional
    seed : int, default 0
        Nothing here is random.
    checkpoint : path or Checkpoint, optional
        Where to save what was done, and go on from.
    executor : Executor, optional
    progress : bool, optional
        Show passes while they run; by default on a terminal.

    Returns
    -------
    PersonalisedRegressions

    Raises
    ------
    DataError, OptionError, BudgetError, CheckpointError
    Interrupted
        On Ctrl-C or SIGTERM, with a checkpoint; its message says how to go on.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from leyden.solve.lookup.model import lookup_mixed
    >>> rng = np.random.default_rng(0)
    >>> table, kind = rng.standard_normal((40, 3)), rng.integers(0, 2, 40)
    >>> u = rng.standard_normal((500, 3))
    >>> y = np.array([1.0, 3.0])[kind] + u @ table.T + 0.5 * rng.standard_normal((500, 40))
    >>> rows = sp.csr_array(np.where(rng.random(y.shape) < 0.2, y, 0))
    >>> found = lookup_mixed(rows, table, fixed=kind, covariance=4.0)
    >>> found.certificate.holds, found.beta.round(1).tolist(), found.random([7]).shape
    (True, [1.0, 3.0], (1, 3))
    """
    rows = as_ratings(ratings, memory)
    options = Options(
        ridge=check.zero_or_more("ridge", ridge),
        tol=check.fraction("tol", tol),
        memory=as_executor(executor).memory() if memory is None else check.memory(memory),
        threads=check.threads(threads),
        progress=check.progress(progress),
        checkpoint=as_checkpoint(checkpoint),
        executor=executor,
    )
    problem = _problem(rows, table, fixed, covariance, check.flag("intercept", intercept), options.ridge)
    identity = {
        "verb": "lookup_mixed",
        "ridge": options.ridge,
        "tol": options.tol,
        "memory": None if memory is None else options.memory,
        "seed": check.seed(seed),
        "model": _digest(problem),
        "data": fingerprint(rows) if options.checkpoint else None,
    }
    begun = options.checkpoint.begun(identity) if options.checkpoint else None
    if begun:
        options = replace(options, memory=begun["memory"])
        chosen: Plan[Any] = Plan.from_json(begun)
    else:
        chosen = _plan(rows, problem, options)
    return replace(chosen, _run=lambda p: _run(p, rows, problem, options, identity))


def _problem(rows: Rows, table: Any, fixed: Any, covariance: Any, intercept: bool, ridge: float) -> Problem:
    items = rows.shape[1]
    features = fixed_features(fixed, items)
    estimate = isinstance(covariance, str) and covariance == "estimate"
    random = random_features(table, items, 1.0 if estimate else covariance, intercept)
    counts = item_counts(rows)
    total = int(counts.sum())
    if total == 0:
        raise DataError("there are no rows in any group", where=rows.source)
    kept, unused, dependent = independent(features, counts, ridge)
    if len(kept) == 0:
        raise DataError("no row has a fixed feature that is not zero", where=rows.source)
    remarks = []
    if len(unused):
        remarks.append(f"no row has {_named(features, unused)}: their coefficients are set to zero")
    if len(dependent):
        remarks.append(f"{_named(features, dependent)} add up from others: their coefficients are set to zero")
    most = int(getattr(rows, "max_count", 0)) or largest(rows)
    return Problem(random, features, kept, tuple(remarks), total, most, total > MANY, estimate)


def _named(features: Features, columns: np.ndarray) -> str:
    some = ", ".join(features.names[j] for j in columns[:NAMED])
    more = f" and {len(columns) - NAMED:,} more" if len(columns) > NAMED else ""
    return f"fixed feature{'s' if len(columns) > 1 else ''} {some}{more}"


def _digest(problem: Problem) -> str:
    found = hashlib.sha256()
    table, features = problem.table, problem.features
    for array in (table.f, table.delta, table.root, features.starts, features.columns, features.weights):
        if array is not None:
            found.update(f"{array.dtype}{array.shape}".encode())
            found.update(np.ascontiguousarray(array).data)
    found.update(f"{problem.estimate}".encode())
    return found.hexdigest()


def _plan(rows: Rows, problem: Problem, options: Options) -> Plan[Any]:
    (groups, items), p, width = rows.shape, len(problem.kept), problem.table.f.shape[1]
    engine = Engine(options.memory, options.threads, nbytes(problem.table, problem.features))
    peak = 0
    for reduction in (Schur(*problem.sought, problem.single), Residuals(*problem.sought, problem.single, np.zeros(p))):
        cut = engine.layout(rows, [reduction])
        states = cut.threads + math.ceil(math.log2(cut.segments + 1))
        thread = reading_nbytes(rows, cut.block_rows) + reduction.scratch_nbytes
        peak = max(peak, int(engine.reserved + states * reduction.state_nbytes + cut.threads * thread))
    rates, threads = machine(), options.threads or thread_count()
    mean = problem.rows / groups
    least = min(mean, width)
    flops = problem.rows * (2 * least * width + 20 * width)
    rate = (rates.gram32 / 4 if problem.single else rates.gram64 / 30) * threads
    disk = math.inf if rows.in_memory else read_rate(rows, options.memory)
    nbytes_read = rows.stored_nbytes
    seconds = max(flops / rate, nbytes_read / disk)
    algebra = PassPlan("dense algebra", 0, 3.0 * p**3, 3.0 * p**3 / (rates.gram64 * threads / 2))
    return Plan(
        "lookup_mixed",
        f"{rows.source}: {groups:,} groups × {problem.table.k} coefficients, {p:,} shared, {problem.rows:,} rows of "
        f"{items:,} items",
        "elimination of groups",
        (
            f"groups meet in {p:,} coefficients; those of groups are found again when asked for, and never stored",
            "groups are solved in float32, corrected and certified in float64"
            if problem.single
            else "few rows: all in float64",
        ),
        (),
        (
            PassPlan("Schur complement", nbytes_read, flops, seconds),
            PassPlan("residual", nbytes_read, 2 * flops, seconds),
        ),
        options.memory,
        peak,
        algebra,
    )


def _run(
    chosen: Plan[Any], rows: Rows, problem: Problem, options: Options, identity: dict[str, Any]
) -> PersonalisedRegressions:
    began = time.perf_counter()
    engine = Engine(
        options.memory, options.threads, nbytes(problem.table, problem.features), as_executor(options.executor),
        checkpoint=options.checkpoint, progress=Progress(options.progress),
    )  # fmt: skip
    with engine.running(identity, chosen.to_json()), single_threaded_blas():
        engine.trace.remarks.extend(problem.remarks)
        if problem.estimate:
            variance = estimated(rows, problem.table, problem.features, problem.rows, options.ridge)
            engine.trace.remarks.append(str(variance))
            table = replace(problem.table, delta=problem.table.delta * variance.value)
            problem = replace(problem, table=table)
        (complement,) = engine.sweep(rows, [Schur(*problem.sought, problem.single)], "Schur complement")
        if complement.bad >= 0:
            raise DataError(
                "a target is NaN, infinite, or beyond float32",
                where=rows.locate(complement.bad),
                hint="Remove it first.",
            )
        factor = Factor(complement, options.ridge)
        found = _refined(engine, rows, problem, factor, complement.t, options.tol)
    engine.trace.seconds = time.perf_counter() - began + engine.spared
    beta = np.zeros(problem.features.p)
    beta[problem.kept] = found.beta
    model = Model(
        problem.table, problem.features, problem.kept, beta, options.ridge, rows.shape[0], complement.rows,
        problem.most, problem.single,
    )  # fmt: skip
    passes = len(engine.trace.passes) - 1
    certificate = Certificate(found.bounds, passes, passes * rows.stored_nbytes)
    answer = PersonalisedRegressions(
        model=model, complement=complement, objective=found.objective, tol=options.tol, certificate=certificate,
        trace=engine.trace, plan=chosen,
    )  # fmt: skip
    answer.ratings = rows
    return answer


def _refined(engine: Engine, rows: Rows, problem: Problem, factor: Factor, t: np.ndarray, tol: float) -> Assessment:
    """``S β = t`` solved, and corrected until the certificate holds, or another pass does not help."""
    beta, _ = factor.back(factor.white(t)[0])
    best: Assessment | None = None
    single = problem.single
    for _ in range(RESIDUALS):
        residual: Residual
        (residual,) = engine.sweep(rows, [Residuals(*problem.sought, single, beta)], "residual")
        found = assess(factor, beta, residual, tol, correct=True)
        # What float32 leaves of a residual only float64 can do better.
        single = single and residual.defect < 0.5 * found.energy
        helps = best is None or found.energy < 0.5 * best.energy
        best = found if best is None or found.energy < best.energy else best
        if found.bounds["energy_error"].holds or not helps:
            break
        beta = found.beta
    assert best is not None
    return best
