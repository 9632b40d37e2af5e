r"""Least squares and ridge regression: ``min Σ w_i (b_i − x0 − a_i·x)² + λ‖x‖²`` over rows of any number.

Three methods build a whitening of the columns (:mod:`leyden.solve.whitening`) and a first answer; one loop corrects the
answer by corrected seminormal equations (Björck 1987), with the gradient measured over the data in doubled arithmetic,
until the certificate (:mod:`leyden.solve.certify`) that the same pass computes reaches its tolerance.

==========  =======================================================  =====================================
method      whitening                                                 when
==========  =======================================================  =====================================
gram32      Cholesky of the Gram matrix, tiles in float32             columns nearly orthogonal
gram64      Cholesky of the Gram matrix, tiles in float64             condition up to about 1e5
tsqr        Householder QR along the stream, then Gram of A R⁻¹       any condition, few columns
sketch      QR of a sparse-sign sketch, then Gram of A R⁻¹            any condition, many columns
==========  =======================================================  =====================================

The sketch is randomized CholeskyQR (Higgins, Szyld, Boman, Yamazaki 2023; compare Epperly, Meier, Nakatsukasa 2024).
Where a method cannot be certified on the data it met, another one that fits the budget takes over, and the trace says
so.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from leyden import options as check
from leyden.certificate import Certificate
from leyden.engine.budget import too_small
from leyden.engine.checkpoint import Checkpoint, as_checkpoint
from leyden.engine.executor import Executor, as_executor
from leyden.engine.fingerprint import fingerprint
from leyden.engine.local import single_threaded_blas
from leyden.engine.progress import Progress
from leyden.engine.sweep import Engine, read_rate
from leyden.errors import BudgetError, DataError, OptionError
from leyden.plan import Plan, verb
from leyden.rows import Rows
from leyden.rows import open as open_rows
from leyden.solve.certify import Assessment, assess, working_gradient
from leyden.solve.choose import METHODS, Options, choose, fallbacks, needed_nbytes, small_nbytes
from leyden.solve.coordinates import Coordinates, Probe, probe
from leyden.solve.least_squares import LeastSquares
from leyden.solve.measure import measure
from leyden.solve.reductions import GradientResult, PlainGradient
from leyden.solve.start import Start, minimum_norm, start
from leyden.solve.whitening import Whitening

#: Corrections after which a run gives up; two or three are usual.
MAX_CORRECTIONS = 12

#: An answer that may have fewer digits than this is corrected once more, although its backward error is small enough:
#: for ill-conditioned columns one pass then gains most of the digits.
HALF = 1e-8

#: A whitening with a larger η gives a first answer that will not do, of some eight digits when it is from float32.
LOOSE = 1e-4


@verb
def lstsq(
    a: Any,
    b: Any = None,
    *,
    ridge: float = 0.0,
    weights: Any = None,
    intercept: bool = False,
    tol: float = 1e-14,
    forward_tol: float | None = None,
    method: str = "auto",
    memory: str | int | None = None,
    threads: int | None = None,
    seed: int = 0,
    checkpoint: str | os.PathLike | Checkpoint | None = None,
    executor: Executor | None = None,
    progress: bool | None = None,
) -> Plan[LeastSquares]:
    """Solve ``min Σ w_i (b_i − x0 − a_i·x)² + λ‖x‖²`` and certify the answer.

    Parameters
    ----------
    a : Rows, array, sparse matrix, or path
        The rows (n, d): anything :func:`leyden.open` takes. float32 and integer data are used
        exactly as given (64-bit integers up to 2⁵³).
    b : array, shape (n,) or (n, k), optional
        Targets; not needed when the rows carry a target. As in NumPy, x has shape (d,) for the first and (d, k) for the
        second, k = 1 included.
    ridge : float, default 0
        λ. The intercept is never penalised.
    weights : array, shape (n,), optional
        ``w``, zero or more; not needed when the rows were opened with ``weight=``.
    intercept : bool, default False
        Whether to fit x0.
    tol : float, default 1e-14
        Relative backward error that the certificate must reach.
    forward_tol : float, optional
        Relative forward error that it must reach as well. Each correction costs a pass and gains many digits, until the
        coefficients are right to the last place or the rounding of the certificate is met.
    method : {"auto", "gram32", "gram64", "tsqr", "sketch"}
        See :mod:`leyden.solve.lstsq`.
    memory : str or int, optional
        Budget, as ``"2GB"`` or bytes; half of the free memory by default.
    threads : int, optional
        All processors by default. For a given ``method`` and budget the answer has the same bits whatever their number.
    seed : int, default 0
        Of whatever is random, below 2⁶⁴.
    checkpoint : path or Checkpoint, optional
        A folder to keep what has been done in, so that the same call goes on from there if this one is cut short, to
        the same bits. It is removed when the answer is there. Ctrl-C and SIGTERM then save before they end the run.
    executor : Executor, optional
        What runs the passes: ``leyden.Dask(client)`` for the workers of a cluster, each of which has ``memory`` to
        itself. By default that of the :func:`leyden.executor` context, or else the threads of this process.
    progress : bool, optional
        Show passes while they run; by default on a terminal.

    Returns
    -------
    LeastSquares
        When the rank is deficient: the minimum-norm solution among the minimisers, with the numerical ``rank``.

    Raises
    ------
    DataError, OptionError, BudgetError, CheckpointError
    Interrupted
        On Ctrl-C or SIGTERM, with a checkpoint; its message says how to go on.

    See Also
    --------
    leyden.plan.lstsq : what this would do, without doing it.
    leyden.verify : check a saved solution against its data.

    Examples
    --------
    >>> import numpy as np, leyden as ly
    >>> t = np.arange(10.0)
    >>> sol = ly.lstsq(t[:, None], 3 * t + 1, intercept=True)
    >>> round(float(sol.x[0]), 12), round(sol.intercept, 12), sol.certificate.holds
    (3.0, 1.0, True)
    """
    options = Options(
        ridge=check.zero_or_more("ridge", ridge),
        intercept=check.flag("intercept", intercept),
        tol=check.fraction("tol", tol),
        forward_tol=None if forward_tol is None else check.positive("forward_tol", forward_tol),
        seed=check.seed(seed),
        memory=as_executor(executor).memory() if memory is None else check.memory(memory),
        threads=check.threads(threads),
        progress=check.progress(progress),
        checkpoint=as_checkpoint(checkpoint),
        executor=executor,
    )
    method = check.one_of("method", method, ("auto", *METHODS))
    rows = open_rows(a, target=b, weight=weights)
    if not rows.targets:
        raise OptionError("there is no target", where=rows.source, hint="Give b, or open the rows with target=.")
    identity = {
        "verb": "lstsq",
        "ridge": options.ridge,
        "intercept": options.intercept,
        "tol": options.tol,
        "forward_tol": options.forward_tol,
        "method": method,
        "memory": None if memory is None else options.memory,
        "seed": options.seed,
        "data": fingerprint(rows) if options.checkpoint else None,
    }
    begun = options.checkpoint.begun(identity) if options.checkpoint else None
    if begun:
        options = replace(options, memory=begun["memory"])
    with single_threaded_blas():
        seen = probe(rows, intercept=options.intercept, ridge=options.ridge, memory=options.memory)
    if begun:
        chosen = Plan.from_json(begun)
    else:
        rate = math.inf if rows.in_memory else read_rate(rows, options.memory)
        chosen = choose(rows, options, seen, method, rate)
    return replace(chosen, _run=lambda plan: _run(plan, rows, options, seen, identity))


def _run(plan: Plan[LeastSquares], rows: Rows, options: Options, seen: Probe, identity: dict[str, Any]) -> LeastSquares:
    began = time.perf_counter()
    engine = Engine(
        options.memory,
        options.threads,
        small_nbytes(rows, options.intercept),
        as_executor(options.executor),
        checkpoint=options.checkpoint,
        progress=Progress(options.progress),
    )
    with engine.running(identity, plan.to_json()), single_threaded_blas():
        method, outcome = _certified(engine, rows, options, seen, plan.method)
    found, gradient = outcome.found, outcome.gradient
    engine.trace.seconds = time.perf_counter() - began + engine.spared
    engine.trace.remarks += [
        f"{bound.name} stayed at {bound.value:.1e}, above the {bound.tolerance:.0e} asked for"
        for bound in found.bounds.values()
        if not bound.holds
    ]
    certificate = Certificate(
        found.bounds, 1, rows.stored_nbytes, {"sketch": options.seed} if method == "sketch" else {}
    )
    spread = gradient.spread if options.intercept else gradient.bb
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.where(spread > 0, 1 - gradient.rr / spread, np.where(gradient.rr == 0, 1.0, 0.0))
    return LeastSquares(
        x=outcome.x,
        x0=outcome.x0,
        columns=rows.columns,
        targets=rows.targets,
        shape=rows.shape,
        weighted=rows.has_weight,
        ridge=options.ridge,
        has_intercept=options.intercept,
        tol=options.tol,
        forward_tol=options.forward_tol,
        rank=outcome.whitening.rank,
        coefficient_error=found.coefficient_error,
        intercept_error=found.intercept_error,
        rr=gradient.rr,
        r2=r2,
        coordinates=outcome.coordinates,
        whitening=outcome.whitening,
        gradient=(gradient.hi, gradient.lo),
        certificate=certificate,
        trace=engine.trace,
        plan=plan if plan.method == method else replace(plan, method=method),
        single=len(rows.targets) == 1 and not rows.column_target,
    )


def _certified(engine: Engine, rows: Rows, options: Options, seen: Probe, method: str) -> tuple[str, _Answer]:
    """The answer of ``method``, or of the first that takes over, fits the budget, and can be certified."""
    lacking: dict[str, tuple[float, float, float]] = {}
    for name in (method, *fallbacks(method, seen.coordinates, rows)):
        needed = needed_nbytes(name, rows, options, seen)
        if sum(needed) > options.memory:
            lacking[name] = needed
            engine.trace.remarks.append(f"{name} does not fit the budget")
            continue
        first = start(engine, rows, options, seen, name)
        outcome = _refine(engine, rows, options, first) if first else None
        if outcome is not None:
            return name, outcome
        engine.trace.remarks.append(f"{name} could not be certified on this data")
    if lacking:
        name = min(lacking, key=lambda name: sum(lacking[name]))
        error = too_small(options.memory, *lacking[name], method=name)
        raise BudgetError(f"{method} could not be certified on this data, and {error.what}", hint=error.hint)
    raise DataError(
        "no method could factor the columns to working precision",
        where=rows.source,
        hint="Values near the limits of float64 may overflow: rescale the columns.",
    )


@dataclass(frozen=True)
class _Answer:
    """An answer, what it was measured by, and what was found."""

    x: np.ndarray
    x0: np.ndarray
    coordinates: Coordinates
    whitening: Whitening
    gradient: GradientResult
    found: Assessment


def _refine(engine: Engine, rows: Rows, options: Options, first: Start) -> _Answer | None:
    """Correct the first answer until its certificate reaches the tolerance, or no longer improves.

    None when the whitening turns out, once measured, to be too far from one.
    """
    c, whitening, x, x0 = first.coordinates, first.whitening, first.x, first.x0
    best: _Answer | None = None
    measured = first.measured
    if measured and whitening.eta > LOOSE and not rows.is_sparse:
        # The first answer is as good as the whitening: correct it before a certificate is spent on it.
        (g,) = engine.sweep(rows, [PlainGradient(x, x0, intercept=c.intercept)], "gradient, correction")
        working = working_gradient(c, g, np.zeros_like(g), x)
        x, x0 = _correct(c, whitening, whitening.w @ whitening.project(*working[2:]), x, x0)
    for _ in range(MAX_CORRECTIONS):
        label = "gradient, certificate" if measured else "gradient, Gram of A R⁻¹"
        gradient, whitening = measure(engine, rows, c, x, x0, whitening, label, whiten=not measured)
        if not whitening.usable:
            return None
        measured = True
        found = assess(c, whitening, gradient, x, x0, options.tol, options.forward_tol)
        engine.trace.remarks.append(f"{label}: {found.progress}")
        stalled = best is not None and not found.optimality < 0.5 * best.found.optimality
        if best is None or found.optimality < best.found.optimality:
            best = _Answer(x, x0, c, whitening, gradient, found)
        half = found.bounds["forward_error"].value < HALF if "forward_error" in found.bounds else True
        if stalled or (found.excess <= 1 and half):
            break
        x, x0 = _correct(c, whitening, found.correction, x, x0)
    return best


def _correct(
    c: Coordinates, whitening: Whitening, correction: np.ndarray, x: np.ndarray, x0: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    step, step0 = c.solution(correction, targets=False)
    x, x0 = x + step, x0 + step0
    return (x, x0) if whitening.null is None else minimum_norm(c, whitening.null, x, x0)
