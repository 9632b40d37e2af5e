r"""Thin QR factorization ``A = Q R`` of rows of any number, with independent columns, up to some thousands of them.

A first pass makes a triangle R₁ that nearly whitens the columns, a second one corrects it to R and certifies that; a
third one, if Q is asked for, writes and certifies Q (:mod:`leyden.factor.orthogonal`). What R₁ is made of does not
matter to the certificate, only to how long it takes.

==========  =======================================================  =====================================
method      R₁                                                       when
==========  =======================================================  =====================================
gram32      Cholesky factor of the Gram matrix, tiles in float32      columns nearly orthogonal
gram64      Cholesky factor of the Gram matrix, tiles in float64      condition up to about 1e5
tsqr        Householder QR along the stream                          any condition, few columns
sketch      QR of a sparse-sign sketch                               any condition, many columns
==========  =======================================================  =====================================

All is done on columns scaled by powers of two, so that no bound depends on their units. Columns that are dependent to
working precision are refused: Q would be orthonormal still, but some of its columns would be rounding errors alone.
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
from leyden.engine.budget import format_bytes, layout, least, reading_nbytes, thread_count
from leyden.engine.checkpoint import Checkpoint, as_checkpoint
from leyden.engine.executor import Executor, as_executor
from leyden.engine.fingerprint import fingerprint
from leyden.engine.local import single_threaded_blas
from leyden.engine.progress import Progress
from leyden.engine.sweep import Engine, read_rate
from leyden.errors import BudgetError, DataError, OptionError
from leyden.factor.left import check_target
from leyden.factor.orthogonal import Basis, FactorGram
from leyden.factor.triangular import QR, assess, small_nbytes, triangle
from leyden.plan import Machine, PassPlan, Plan, machine, verb
from leyden.rows import Rows
from leyden.rows import open as open_rows
from leyden.solve.choose import METHODS, fallbacks, first_reduction
from leyden.solve.coordinates import Coordinates, Probe, norms, probe
from leyden.solve.measure import raise_nonfinite
from leyden.solve.reductions import Gram, U, gamma
from leyden.solve.reductions import triangle as householder
from leyden.solve.whitening import from_gram


@dataclass(frozen=True)
class Options:
    """What was asked, beside the data."""

    q: bool | str | os.PathLike
    tol: float
    seed: int
    memory: int
    threads: int | None
    progress: bool | None
    checkpoint: Checkpoint | None = None
    executor: Executor | None = None


@verb
def qr(
    a: Any,
    *,
    q: bool | str | os.PathLike = False,
    tol: float = 1e-13,
    method: str = "auto",
    memory: str | int | None = None,
    threads: int | None = None,
    seed: int = 0,
    checkpoint: str | os.PathLike | Checkpoint | None = None,
    executor: Executor | None = None,
    progress: bool | None = None,
) -> Plan[QR]:
    """The thin QR factorization of a matrix with more rows than columns, certified.

    Parameters
    ----------
    a : Rows, array, sparse matrix, or path
        The matrix (n, d), n ≥ d: anything :func:`leyden.open` takes; it may be larger than memory.
    q : bool or path, default False
        Whether to compute Q, in one more pass: into memory, or into the ``.npy`` file of this path. Without it,
        :meth:`QR.q` makes its rows when they are read.
    tol : float, default 1e-13
        What is certified of R: that changing each column of A by no more than this, relatively, makes it exact; and of
        Q: that ``QᵀQ`` is no further than this from the identity, and each column of ``Q R`` from that of A.
    method : {"auto", "gram32", "gram64", "tsqr", "sketch"}
        See :mod:`leyden.factor.qr`.
    memory : str or int, optional
        Budget, as ``"2GB"`` or bytes; half of the free memory by default.
    threads : int, optional
        All processors by default. For a given ``method`` and budget the answer has the same bits whatever their number.
    seed : int, default 0
        Of the sketch, below 2⁶⁴.
    checkpoint : path or Checkpoint, optional
        A folder to keep what has been done in; see :func:`leyden.lstsq`. The pass that writes Q is not kept.
    executor : Executor, optional
        What runs the passes: ``leyden.Dask(client)`` for the workers of a cluster.
    progress : bool, optional
        Show passes while they run; by default on a terminal.

    Returns
    -------
    QR

    Raises
    ------
    DataError
        When a column is zero, or columns are dependent to working precision: :func:`leyden.svd` takes such a matrix.
    OptionError, BudgetError, CheckpointError
    Interrupted
        On Ctrl-C or SIGTERM, with a checkpoint; its message says how to go on.

    See Also
    --------
    leyden.plan.qr : what this would do, without doing it.

    Examples
    --------
    >>> import numpy as np, leyden as ly
    >>> a = np.vander(np.linspace(0, 1, 1000), 15)  # condition 1e11
    >>> found = ly.qr(a, q=True)
    >>> bool(np.allclose(found.Q @ found.R, a, rtol=0, atol=1e-14)), found.certificate.orthogonality < 1e-13
    (True, True)
    """
    method = check.one_of("method", method, ("auto", *METHODS))
    options = Options(
        q=q if isinstance(q, str | os.PathLike) else check.flag("q", q),
        tol=check.fraction("tol", tol),
        seed=check.seed(seed),
        memory=as_executor(executor).memory() if memory is None else check.memory(memory),
        threads=check.threads(threads),
        progress=check.progress(progress),
        checkpoint=as_checkpoint(checkpoint),
        executor=executor,
    )
    rows = open_rows(a)
    n, d = rows.shape
    if rows.has_weight:
        raise OptionError("rows with weights are not factored", where=rows.source, hint="Open them without weight=.")
    if n < d:
        raise OptionError(
            f"there are fewer rows than columns, {n:,} × {d:,}: a thin QR factorization needs as many",
            where=rows.source,
            hint="Factor the transpose, or use leyden.svd.",
        )
    if not isinstance(options.q, bool):
        check_target(options.q, rows)
    identity = {
        "verb": "qr",
        "q": str(options.q),
        "tol": options.tol,
        "method": method,
        "memory": None if memory is None else options.memory,
        "seed": options.seed,
        "data": fingerprint(rows) if options.checkpoint else None,
    }
    begun = options.checkpoint.begun(identity) if options.checkpoint else None
    if begun:
        options = replace(options, memory=begun["memory"])
    with single_threaded_blas():
        seen = _without_targets(probe(rows, intercept=False, ridge=0.0, memory=options.memory))
    if begun:
        chosen = Plan.from_json(begun)
    else:
        rate = math.inf if rows.in_memory else read_rate(rows, options.memory)
        chosen = _choose(rows, options, seen, method, rate)
    return replace(chosen, _run=lambda plan: _run(plan, rows, options, seen, identity))


#: Scales beyond these would not be finite, or make subnormal numbers of those between.
MAX_POWER = 1000


def _without_targets(seen: Probe) -> Probe:
    c = seen.coordinates
    scale = np.clip(c.scale[: c.d], 2.0**-MAX_POWER, 2.0**MAX_POWER)
    return replace(seen, coordinates=Coordinates(c.d, 0, False, 0.0, np.zeros(c.d), scale))


# ------------------------------------------------------------ the plan


def _choose(rows: Rows, options: Options, seen: Probe, method: str, read_rate: float) -> Plan:
    """The plan for ``method``, or for the fastest that the conditioning allows and the budget holds (``"auto"``)."""
    rates, threads = machine(), options.threads or thread_count()
    # The choice must not flip with the noise of a timed read, nor depend on the threads asked for: its bits would.
    steady = 2.0 ** round(math.log2(read_rate)) if 0 < read_rate < math.inf else read_rate
    costs = {name: _passes(name, rows, options, seen, rates, read_rate, threads) for name in METHODS}
    scores = {
        name: sum(p.seconds for p in _passes(name, rows, options, seen, rates, steady, thread_count()))
        for name in METHODS
    }
    fits = {name: _suits(name, rows, seen) for name in METHODS}
    peaks: dict[str, int] = {}
    refused: dict[str, BudgetError] = {}
    for name in METHODS:
        try:
            peaks[name] = _peak(name, rows, options, seen)
        except BudgetError as error:
            refused[name] = error
            fits[name] = (False, "does not fit the budget")
    candidates = sorted((name for name in METHODS if fits[name][0]), key=scores.__getitem__)
    chosen = method if method != "auto" else candidates[0] if candidates else min(refused, key=scores.__getitem__)
    if chosen in refused:
        instead = f" method='{candidates[0]}' fits as it is." if candidates else ""
        why = refused[chosen]
        raise BudgetError(why.what, where=rows.source, hint=f"{why.hint}{instead}")
    n, d = rows.shape
    algebra = _algebra(d, rates)
    others = tuple(
        (name, sum(p.seconds for p in (*costs[name], algebra)), "slower" if fits[name][0] else fits[name][1])
        for name in METHODS
        if name != chosen
    )
    problem = f"{n:,} × {d:,} {rows.dtype}{' sparse' if rows.is_sparse else ''}"
    problem += "" if options.q is False else ", Q in memory" if options.q is True else f", Q to {options.q}"
    return Plan(
        "qr",
        f"{rows.source}: {problem}",
        chosen,
        ("asked for" if method != "auto" else fits[chosen][1],),
        others,
        tuple(costs[chosen]),
        options.memory,
        peaks[chosen],
        algebra,
    )


def _suits(name: str, rows: Rows, seen: Probe) -> tuple[bool, str]:
    looks = f"the columns look like condition {seen.condition:.1e}"
    n, d = rows.shape
    if name == "gram32":
        if rows.is_sparse:
            return False, "sparse rows are multiplied entry by entry, in float64"
        limit = math.sqrt(0.25 / (d * gamma(132, 2.0**-24))) / 1.3
        return seen.condition < limit, f"{looks}; Gram matrices in float32 whiten up to about {limit:.0f}"
    if name == "gram64":
        limit = math.sqrt(0.05 / (d * gamma(2000 + d)))
        return seen.condition < limit, f"{looks}; Gram matrices in float64 whiten up to about {limit:.0e}"
    if name == "tsqr":
        return True, f"{looks}; Householder QR takes any"
    enough = n > 8 * d
    return enough, f"{looks}; a sketch takes any" if enough else "too few rows for a sketch to be shorter"


def _certifying(c: Coordinates) -> FactorGram:
    """The reduction of the second and third pass, for what it takes."""
    eye = np.broadcast_to(0.0, (c.d, c.d))
    return FactorGram(Basis(c.scale, eye), c.scale, np.zeros((c.d, c.d)))


def _peak(name: str, rows: Rows, options: Options, seen: Probe) -> int:
    """Bytes that the passes and the dense algebra between them will allocate.

    Raises
    ------
    BudgetError
        When they do not fit the budget.
    """
    n, d = rows.shape
    small = small_nbytes(d)
    held = 8 * n * d if options.q is True else 0
    reductions = (first_reduction(name, seen, options.seed), _certifying(seen.coordinates))
    need = held + small + max(sum(least(rows, [reduction])) for reduction in reductions)
    if need > options.memory:
        instead = ', or write Q to a file: q="Q.npy"' if held else ""
        raise BudgetError(
            f"a budget of {format_bytes(options.memory)} is too small for method='{name}' on {d:,} columns"
            f"{f' and a Q of {format_bytes(held)}' if held else ''}: it takes {format_bytes(need)}",
            hint=f'Give at least memory="{math.ceil(need * 1.1 / 1e6)}MB"{instead}.',
        )
    peak = 0.0
    for reduction in reductions:
        cut = layout(rows, [reduction], options.memory - small - held, options.threads)
        states = (cut.threads + math.ceil(math.log2(cut.segments + 1))) * reduction.state_nbytes
        scratch = cut.threads * (reading_nbytes(rows, cut.block_rows) + reduction.scratch_nbytes)
        peak = max(peak, held + small + states + scratch)
    return int(peak)


def _passes(
    name: str, rows: Rows, options: Options, seen: Probe, rates: Machine, read_rate: float, threads: int
) -> list[PassPlan]:
    n, d = rows.shape
    nbytes = rows.stored_nbytes
    read = nbytes / (rates.copy * threads if rows.in_memory else read_rate) if nbytes else 0.0

    def one(label: str, flops: float, seconds: float) -> PassPlan:
        compute = seconds / threads
        return PassPlan(label, nbytes, flops, max(read, compute) + 0.5 * min(read, compute))

    square = float(n) * d**2
    entries = float(n) * d
    pack = entries / (2 * rates.gradient)
    # Substitution runs at a sixth of the rate of products; the entries are split, compared and moved a dozen times.
    certificate = 28 * square / rates.gram64 + 12 * entries / rates.gradient
    if name == "gram32":
        first = one("Gram matrix (float32)", 2 * square, 2 * square / rates.gram32 + pack)
    elif name == "gram64" and rows.is_sparse:
        flops = n * (d * seen.density + 1) ** 2
        first = one("Gram matrix", flops, flops / rates.gradient)
    elif name == "gram64":
        first = one("Gram matrix", 2 * square, 2 * square / rates.gram64 + pack)
    elif name == "tsqr":
        first = one("TSQR", 2 * square, 2 * square / rates.qr)
    else:
        first = one("sketch", 16 * entries, 16 * entries / rates.gradient / 4 + pack)
    passes = [first, one("A R⁻¹, certificate", 10 * square, certificate)]
    if options.q is not False:
        passes.append(one("Q", 12 * square, certificate + 2 * square / rates.gram64 + 4 * entries / rates.gradient))
    return passes


def _algebra(d: int, rates: Machine) -> PassPlan:
    """Factors, inverses, and a dozen products in parts of d × d matrices."""
    flops = 80.0 * d**3
    return PassPlan("dense algebra", 0, flops, flops / rates.gram64)


# ------------------------------------------------------------ the run


def _run(plan: Plan, rows: Rows, options: Options, seen: Probe, identity: dict[str, Any]) -> QR:
    began = time.perf_counter()
    d = rows.shape[1]
    held = 8 * rows.shape[0] * d if options.q is True else 0
    engine = Engine(
        options.memory,
        options.threads,
        small_nbytes(d) + held,
        as_executor(options.executor),
        checkpoint=options.checkpoint,
        progress=Progress(options.progress),
    )
    with engine.running(identity, plan.to_json()), single_threaded_blas():
        for method in (plan.method, *fallbacks(plan.method, seen.coordinates, rows)):
            answer = _factor(engine, rows, options, seen, method, plan)
            if answer is not None:
                break
            engine.trace.remarks.append(f"{method} could not be certified on this data")
        else:
            raise DataError(
                "the columns are so nearly dependent that no method could factor them",
                where=rows.source,
                hint="Use leyden.svd, which takes any matrix.",
            )
        if options.q is not False:
            answer.write_q(engine, rows, None if options.q is True else options.q)
    engine.trace.remarks += [
        f"{bound.name} stayed at {bound.value:.1e}, above the {bound.tolerance:.0e} asked for"
        for bound in answer.certificate.bounds.values()
        if not bound.holds
    ]
    engine.trace.seconds = time.perf_counter() - began + engine.spared
    return answer


def _factor(engine: Engine, rows: Rows, options: Options, seen: Probe, method: str, plan: Plan) -> QR | None:
    """Two passes; None when the triangle of the first does not whiten the columns."""
    begun = _first(engine, rows, options, seen, method)
    if begun is None:
        return None
    scale, first = begun
    (measured,) = engine.sweep(rows, [FactorGram(Basis(scale, first), scale, first)], "A R⁻¹, certificate")
    found = triangle(measured, first)
    if found is None:
        return None
    r, core = found
    bounds = assess(measured, first, core, r, options.tol)
    if not bounds["orthogonality"].value < 0.5:
        return None
    seeds = {"sketch": options.seed} if method == "sketch" else {}
    return QR(
        r=r / scale,
        scale=scale,
        first=first,
        core=core,
        tol=options.tol,
        columns=rows.columns,
        shape=rows.shape,
        certificate=Certificate(bounds, 1, rows.stored_nbytes, seeds),
        trace=engine.trace,
        plan=plan if plan.method == method else replace(plan, method=method),
    )


def _first(
    engine: Engine, rows: Rows, options: Options, seen: Probe, method: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """Scales of the columns, and a triangle that nearly whitens them; None when the method is not up to them.

    Raises
    ------
    DataError
        Of columns that are zero, or dependent.
    """
    c = seen.coordinates
    reduction = first_reduction(method, seen, options.seed)
    label = {"gram32": "Gram matrix (float32)", "gram64": "Gram matrix", "tsqr": "TSQR", "sketch": "sketch"}[method]
    (result,) = engine.sweep(rows, [reduction], label)
    matrix = result.matrix if isinstance(reduction, Gram) else result
    if not np.isfinite(matrix).all():
        raise_nonfinite(rows)
        return None
    if isinstance(reduction, Gram):
        # Products of smaller entries may have lost their digits to underflow, which no relative bound covers.
        if (np.diag(matrix) < (1e-20 if reduction.dtype == np.float32 else 1e-250)).any():
            return None
        sizes = np.sqrt(np.diag(matrix))
    else:
        sizes = norms(matrix)
    if not sizes.all():
        _refuse_zeros(rows, sizes)
    powers = np.exp2(-np.round(np.log2(sizes)))
    scale = c.scale * powers
    if not ((scale >= 2.0**-MAX_POWER) & (scale <= 2.0**MAX_POWER)).all():
        j = int(np.argmax(np.abs(np.log2(scale))))
        raise DataError(
            f"column '{rows.columns[j]}' has norm {sizes[j] / c.scale[j]:.0e}, at the end of the range of float64",
            where=rows.source,
            hint="Rescale it.",
        )
    if isinstance(reduction, Gram):
        gram = matrix * np.outer(powers, powers)
        whitening = from_gram(gram, result.rounding)
        return (scale, np.linalg.cholesky(gram).T.copy()) if whitening and whitening.usable else None
    r = householder(matrix * powers)
    r *= np.where(np.diag(r) < 0, -1.0, 1.0)[:, None]
    _refuse_dependent(rows, r)
    return scale, np.triu(r)


def _refuse_zeros(rows: Rows, sizes: np.ndarray) -> None:
    zero = np.flatnonzero(sizes == 0)
    raise DataError(
        f"{'column' if len(zero) == 1 else 'columns'} {_named(rows, zero)} of zeros alone: no Q and R are determined",
        where=rows.source,
        hint="Leave it out, or use leyden.svd, which takes any matrix.",
    )


def _refuse_dependent(rows: Rows, r: np.ndarray) -> None:
    """Raise when a combination of the columns, of which R is the triangle, is zero to working precision."""
    _, s, vt = np.linalg.svd(r)
    if s[-1] > max(8.0, math.sqrt(len(r))) * U * s[0]:
        return
    share = np.abs(vt[-1])
    involved = np.flatnonzero(share > 1e-3 * share.max())
    others = f" of {_named(rows, involved[:-1])}" if len(involved) > 1 else ""
    raise DataError(
        f"column '{rows.columns[involved[-1]]}' is a combination{others}, to working precision "
        f"(condition {s[0] / s[-1] if s[-1] > 0 else math.inf:.0e})",
        where=rows.source,
        hint="Leave it out, or use leyden.svd, which takes any matrix.",
    )


def _named(rows: Rows, which: np.ndarray) -> str:
    return ", ".join(f"'{rows.columns[j]}'" for j in which[:3]) + (", …" if len(which) > 3 else "")
