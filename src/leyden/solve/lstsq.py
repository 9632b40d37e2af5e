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
Where a method cannot be certified on the data it met, the next one of the table takes over, and the trace says so.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from leyden.certificate import Certificate
from leyden.engine.budget import parse_memory, thread_count
from leyden.engine.local import single_threaded_blas
from leyden.engine.progress import Progress
from leyden.engine.sweep import Engine, read_rate
from leyden.errors import DataError, OptionError
from leyden.plan import Machine, PassPlan, Plan, machine
from leyden.rows import Rows
from leyden.rows import open as open_rows
from leyden.rows.base import find_nonfinite
from leyden.solution import Solution, Trace
from leyden.solve.certify import assess, column_norms, gradient_error, working_gradient
from leyden.solve.coordinates import Coordinates, Probe, probe
from leyden.solve.reductions import (
    TSQR,
    Gradient,
    GradientResult,
    Gram,
    PlainGradient,
    ProductGram,
    SparseSignSketch,
    U,
    gamma,
    triangle,
)
from leyden.solve.whitening import Whitening, directions, from_gram

METHODS = ("gram32", "gram64", "tsqr", "sketch")

#: Corrections after which a run gives up; two or three are usual.
MAX_CORRECTIONS = 12

#: A whitening with a larger η gives a first answer that will not do, of some eight digits when it is from float32.
LOOSE = 1e-4


@dataclass(frozen=True)
class Options:
    """What was asked, beside the data."""

    ridge: float
    intercept: bool
    tol: float
    forward_tol: float | None
    seed: int
    memory: int
    threads: int | None
    progress: bool | None


class LeastSquares(Solution):
    """Solution of a least-squares problem.

    Attributes
    ----------
    x : ndarray, shape (d,) or (d, k)
        Coefficients; two-dimensional when there are several targets.
    intercept : float or ndarray, shape (k,)
        Zero when none was asked.
    rank : int
        Numerical rank of the columns (with the intercept, if any).
    columns : tuple of str
    coefficient_error : ndarray, like ``x``
        Certified bound on the error of each coefficient.
    intercept_error : like ``intercept``
    residual_norm, r2 : float or ndarray, shape (k,)
        ``√Σ w r²``, and the explained share of the variance of the target.
    certificate, trace, plan
    """

    kind = "lstsq"

    def __init__(
        self,
        *,
        x: np.ndarray,
        x0: np.ndarray,
        columns: tuple[str, ...],
        targets: tuple[str, ...],
        shape: tuple[int, int],
        ridge: float,
        has_intercept: bool,
        tol: float,
        forward_tol: float | None,
        rank: int,
        coefficient_error: np.ndarray,
        intercept_error: np.ndarray,
        rr: np.ndarray,
        r2: np.ndarray,
        coordinates: Coordinates,
        whitening: Whitening,
        gradient: tuple[np.ndarray, np.ndarray],
        certificate: Certificate,
        trace: Trace,
        plan: Plan,
        single: bool,
    ):
        def shaped(array: np.ndarray) -> Any:
            if not single:
                return array
            return array[..., 0] if array.ndim > 1 else float(array[0])

        self.x, self.intercept = shaped(x), shaped(x0)
        self.coefficient_error, self.intercept_error = shaped(coefficient_error), shaped(intercept_error)
        self.residual_norm, self.r2 = shaped(np.sqrt(rr)), shaped(r2)
        self.columns, self.targets, self.shape = columns, targets, shape
        self.ridge, self.has_intercept, self.rank = ridge, has_intercept, rank
        self.tol, self.forward_tol = tol, forward_tol
        self.certificate, self.trace, self.plan = certificate, trace, plan
        self._x, self._x0, self._single = x, x0, single
        self._errors, self._rr, self._r2 = (coefficient_error, intercept_error), rr, r2
        self._coordinates, self._whitening, self._gradient = coordinates, whitening, gradient

    @property
    def column_spread(self) -> np.ndarray:
        """Weighted norm of each data column, shape (d,); about its mean when there is an intercept.

        ``|x| * column_spread`` ranks the columns by what they contribute.
        """
        c, factor = self._coordinates, self._whitening.factor
        columns, last = factor[:, : c.d], factor[:, -1:]
        if c.intercept:
            columns = columns - last * (last.T @ columns) / (last.T @ last)
        squares = (columns**2).sum(axis=0) - c.penalty[: c.d]
        return np.sqrt(np.maximum(squares, 0.0)) / c.scale[: c.d]

    def predict(self, a: Any) -> np.ndarray:
        """``A x + x0`` for rows ``a`` (n, d), an array or a sparse matrix."""
        return a @ self.x + self.intercept

    def verify(self, rows: Any, *, memory: str | int | None = None, progress: bool | None = False) -> Certificate:
        """Compute the certificate again from the data, by one pass that uses nothing of the solver's but a witness.

        The witness is the whitening matrix; its quality is measured in that pass, so that a wrong one makes the bounds
        fail, never hold. The gradient, which doubled arithmetic reproduces to some thirty digits, is compared with the
        one saved: any change of an answer or of a row that moves it is seen.
        """
        rows = rows if isinstance(rows, Rows) else open_rows(rows)
        if rows.shape != self.shape or len(rows.targets) != len(self.targets):
            return Certificate(
                {},
                failures=(
                    f"the data has {rows.shape[0]:,} rows, {rows.shape[1]:,} columns, {len(rows.targets)} targets; the "
                    f"solution is of {self.shape[0]:,} rows, {self.shape[1]:,} columns, {len(self.targets)} targets",
                ),
            )
        engine = Engine(parse_memory(memory), progress=Progress(progress))
        with single_threaded_blas():
            gradient, whitening = _measure(
                engine, rows, self._coordinates, self._x, self._x0, "verify", self._whitening
            )
            if not whitening.usable:
                return Certificate({}, failures=("the saved witness does not whiten this data: nothing can be said",))
            found = assess(self._coordinates, whitening, gradient, self._x, self._x0, self.tol, self.forward_tol)
        failures = [*_changed(gradient, self._gradient, whitening, self._coordinates, self._x, self._x0)]
        for name, bound in found.bounds.items():
            claimed = self.certificate.bounds.get(name)
            if claimed is None:
                failures.append(f"the saved certificate has no bound named {name}")
            elif name != "rounding" and bound.value > 1.1 * claimed.value:
                failures.append(f"{name}: the solution claims {claimed.value:.2e}, the data says {bound.value:.2e}")
            elif bound.tolerance != claimed.tolerance:
                failures.append(f"{name}: the tolerances recorded do not agree")
        stored = [
            np.concatenate([a, b[None]]) for a, b in (self._errors, (found.coefficient_error, found.intercept_error))
        ]
        if whitening.null is None and (stored[1] > 1.1 * stored[0] + np.finfo(float).tiny).any():
            failures.append("a coefficient is claimed to be more precise than the data says")
        return Certificate(found.bounds, 1, rows.stored_nbytes, failures=tuple(failures))

    def _problem(self) -> dict[str, Any]:
        c = self._coordinates
        return {
            "columns": list(self.columns),
            "targets": list(self.targets),
            "shape": list(self.shape),
            "ridge": self.ridge,
            "intercept": self.has_intercept,
            "tol": self.tol,
            "forward_tol": self.forward_tol,
            "rank": self.rank,
            "single": self._single,
            "k": c.k,
        }

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {
            "x": self._x,
            "intercept": self._x0,
            "coefficient_error": self._errors[0],
            "intercept_error": self._errors[1],
            "sums": np.array([self._rr, self._r2]),
            "shift": self._coordinates.shift,
            "scale": self._coordinates.scale,
            "gradient": np.array(self._gradient),
            "witness": self._whitening.x,
        }
        if self._whitening.null is not None:
            arrays["null"] = self._whitening.null
        return arrays

    @classmethod
    def _restore(
        cls, problem: dict[str, Any], arrays: dict[str, np.ndarray], certificate: Certificate, trace: Trace, plan: Plan
    ) -> LeastSquares:
        shape = (int(problem["shape"][0]), int(problem["shape"][1]))
        coordinates = Coordinates(
            shape[1],
            int(problem["k"]),
            bool(problem["intercept"]),
            float(problem["ridge"]),
            arrays["shift"],
            arrays["scale"],
        )
        d, k, p = coordinates.d, coordinates.k, coordinates.p
        rank = int(problem["rank"])
        expected = {
            "x": (d, k),
            "intercept": (k,),
            "coefficient_error": (d, k),
            "intercept_error": (k,),
            "sums": (2, k),
            "shift": (p + k,),
            "scale": (p + k,),
            "gradient": (2, p, k),
            "witness": (p, rank),
            "null": (p, p - rank),
        }
        for name, array in arrays.items():
            if array.dtype != np.float64 or array.shape != expected[name]:
                raise ValueError(f"{name}.npy is not an array of float64 of shape {expected[name]}")
            if not name.endswith("_error") and not np.isfinite(array).all():
                raise ValueError(f"{name}.npy holds values that are not finite")
        x, witness = arrays["x"], arrays["witness"]
        return cls(
            x=x,
            x0=arrays["intercept"],
            columns=tuple(problem["columns"]),
            targets=tuple(problem["targets"]),
            shape=shape,
            ridge=coordinates.ridge,
            has_intercept=coordinates.intercept,
            tol=float(problem["tol"]),
            forward_tol=problem["forward_tol"],
            rank=rank,
            coefficient_error=arrays["coefficient_error"],
            intercept_error=arrays["intercept_error"],
            rr=arrays["sums"][0],
            r2=arrays["sums"][1],
            coordinates=coordinates,
            whitening=Whitening(witness, np.eye(witness.shape[1]), math.inf, arrays.get("null")),
            gradient=(arrays["gradient"][0], arrays["gradient"][1]),
            certificate=certificate,
            trace=trace,
            plan=plan,
            single=bool(problem["single"]),
        )

    def __str__(self) -> str:
        n, d = self.shape
        lines = [f"least squares, {n:,} × {d:,}, rank {self.rank}, ridge {self.ridge:g}"]
        if self._single:
            lines.append(f"residual norm {self.residual_norm:.6g}, R² {self.r2:.4f}")
        return "\n".join([*lines, str(self.certificate), str(self.trace)])


def lstsq(a: Any, b: Any = None, **options: Any) -> LeastSquares:
    """Solve ``min Σ w_i (b_i − x0 − a_i·x)² + λ‖x‖²`` and certify the answer.

    Parameters
    ----------
    a : Rows, array, sparse matrix, or path
        The rows (n, d): anything :func:`leyden.open` takes. float32 and integer data are used exactly as given.
    b : array, shape (n,) or (n, k), optional
        Targets; not needed when the rows carry a target.
    ridge : float, default 0
        λ. The intercept is never penalised.
    weights : array, shape (n,), optional
        ``w``, zero or more.
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
        All processors by default. The answer has the same bits whatever their number.
    seed : int, default 0
    progress : bool, optional
        Show passes while they run; by default on a terminal.

    Returns
    -------
    LeastSquares
        When the rank is deficient: the minimum-norm solution among the minimisers, with the numerical ``rank``.

    Raises
    ------
    DataError, OptionError, BudgetError

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
    return plan(a, b, **options).run()


def plan(
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
    progress: bool | None = None,
) -> Plan:
    """Plan of :func:`lstsq`; same arguments."""
    rows = _open(a, b, weights)
    if not (isinstance(ridge, int | float | np.number) and 0 <= ridge < math.inf):
        raise OptionError(f"ridge={ridge!r} must be a number, zero or more")
    if not 0 < tol < 1:
        raise OptionError(f"tol={tol!r} must lie between 0 and 1")
    if forward_tol is not None and not forward_tol > 0:
        raise OptionError(f"forward_tol={forward_tol!r} must be positive")
    if method != "auto" and method not in METHODS:
        raise OptionError(f"method='{method}' is not one of auto, {', '.join(METHODS)}")
    if not rows.targets:
        raise OptionError("there is no target", where=rows.source, hint="Give b, or open the rows with target=.")
    options = Options(
        float(ridge), bool(intercept), float(tol), forward_tol, int(seed), parse_memory(memory), threads, progress
    )
    with single_threaded_blas():
        seen = probe(rows, intercept=options.intercept, ridge=options.ridge)
    return _choose(rows, options, seen, method, math.inf if rows.in_memory else read_rate(rows, options.memory))


def _open(a: Any, b: Any, weights: Any) -> Rows:
    if isinstance(a, Rows) and b is None and weights is None:
        return a
    return open_rows(a, target=b, weight=weights)


# The plan.


def _choose(rows: Rows, options: Options, seen: Probe, method: str, read_rate: float) -> Plan:
    rates = machine()
    costs = {name: _passes(name, rows, options, seen, rates, read_rate) for name in METHODS}
    c = seen.coordinates
    fits = {name: _fits(name, c, seen, rows) for name in METHODS}
    candidates = [name for name in METHODS if fits[name][0]]
    best = min(candidates, key=lambda name: sum(p.seconds for p in costs[name]))
    chosen = best if method == "auto" else method
    layout = Engine(options.memory, options.threads).layout(rows, [_first_reduction(chosen, c, seen, options)])
    state = _first_reduction(chosen, c, seen, options)
    buffers = 0 if rows.in_memory else 2 * layout.threads * layout.block_rows * rows.row_nbytes
    peak = buffers + (layout.threads + math.ceil(math.log2(layout.segments + 1))) * state.state_nbytes
    peak += layout.threads * state.scratch_nbytes
    reasons = [f"asked for; {fits[chosen][1]}" if method != "auto" else fits[chosen][1]]
    if method == "auto":
        reasons.append("the fastest of the methods that can be certified here")
    others = tuple(
        (name, sum(p.seconds for p in costs[name]), "slower" if fits[name][0] else fits[name][1])
        for name in METHODS
        if name != chosen
    )
    n, d = rows.shape
    problem = (
        f"{n:,} × {d:,} {rows.dtype}{' sparse' if rows.is_sparse else ''}, {c.k} target(s), ridge {options.ridge:g}"
    )
    problem += ", intercept" if options.intercept else ""
    return Plan(
        "lstsq",
        f"{rows.source}: {problem}",
        chosen,
        tuple(reasons),
        others,
        tuple(costs[chosen]),
        options.memory,
        int(peak),
        lambda plan: _run(plan, rows, options, seen),
    )


def _gram32_tile(seen: Probe) -> int | None:
    """Longest float32 tile whose rounding still leaves a usable whitening, by what the probe saw."""
    for tile in (2048, 1024, 512, 256, 128):
        if seen.coordinates.p * gamma(tile + 4, 2.0**-24) * (1.3 * seen.condition) ** 2 < 0.25:
            return tile
    return None


def _fits(name: str, c: Coordinates, seen: Probe, rows: Rows) -> tuple[bool, str]:
    looks = (
        f"the columns look like condition {seen.condition:.1e}"
        if math.isfinite(seen.condition)
        else "dependent columns"
    )
    if name == "gram32":
        if rows.is_sparse:
            return False, "sparse rows are multiplied entry by entry, in float64"
        return _gram32_tile(
            seen
        ) is not None, f"{looks}; float32 Gram matrices are certifiable to about {_limit32(c.p):.0f}"
    if name == "gram64":
        limit = math.sqrt(0.05 / (c.p * gamma(2000 + c.p)))
        return seen.condition < limit, f"{looks}; float64 Gram matrices are certifiable to about {limit:.0e}"
    if name == "tsqr":
        return True, f"{looks}; Householder QR takes any condition"
    enough = rows.shape[0] > 8 * c.p
    return enough, f"{looks}; a sketch takes any condition" if enough else "too few rows for a sketch to be shorter"


def _limit32(p: int) -> float:
    return math.sqrt(0.25 / (p * gamma(132, 2.0**-24))) / 1.3


def _first_reduction(method: str, c: Coordinates, seen: Probe, options: Options) -> Any:
    if method == "gram32":
        return Gram(c, np.float32, _gram32_tile(seen) or 128)
    if method == "gram64":
        return Gram(c, np.float64)
    if method == "tsqr":
        return TSQR(c)
    return SparseSignSketch(c, options.seed)


def _passes(name: str, rows: Rows, options: Options, seen: Probe, rates: Machine, read_rate: float) -> list[PassPlan]:
    n, c = rows.shape[0], seen.coordinates
    q = c.p + c.k
    threads = options.threads or thread_count()
    nbytes = rows.stored_nbytes
    read = nbytes / (rates.copy * threads if rows.in_memory else read_rate)
    entries = n * c.d * seen.density
    gram_flops = 2.0 * n * q**2 if not rows.is_sparse else n * (c.d * seen.density + 1 + c.k) ** 2
    slow = rates.gradient if not rows.is_sparse else rates.gradient / 4

    def one(label: str, flops: float, seconds: float) -> PassPlan:
        # Reading and computing overlap, but copying from the system takes processors as well.
        compute = seconds / threads
        return PassPlan(label, nbytes, flops, max(read, compute) + 0.5 * min(read, compute))

    gradient = one("gradient, certificate", 4.0 * entries * c.k, entries * c.k / slow)
    pack = n * q / (2 * rates.gradient)
    if name == "gram32":
        correction = one("gradient, correction", 4.0 * entries * c.k, entries * c.k / (2.5 * rates.gradient))
        return [one("Gram matrix (float32)", gram_flops, gram_flops / rates.gram32 + pack), correction, gradient]
    if name == "gram64":
        sparse_seconds = gram_flops / rates.gradient
        seconds = sparse_seconds if rows.is_sparse else gram_flops / rates.gram64 + pack
        return [one("Gram matrix (float64)", gram_flops, seconds), gradient]
    exact = seen.condition > 1e10
    product_flops = 4.0 * n * c.p**2
    product_seconds = product_flops / rates.gram64 + (n * c.p**2 / rates.gradient * 0.6 if exact else 0)
    both = one("gradient, Gram of A R⁻¹", product_flops + gradient.flops, product_seconds + entries * c.k / slow)
    if name == "tsqr":
        return [one("TSQR", 2.0 * n * q**2, 2.0 * n * q**2 / rates.qr), both]
    return [one("sparse-sign sketch", 16.0 * n * q, 16.0 * n * q / rates.gradient / 4 + pack), both, gradient]


# The run.


@dataclass
class _Start:
    """What the first pass of a method gives: coordinates, a whitening (measured or not), a first answer."""

    coordinates: Coordinates
    whitening: Whitening
    measured: bool
    x: np.ndarray
    x0: np.ndarray


def _run(plan: Plan, rows: Rows, options: Options, seen: Probe) -> LeastSquares:
    began = time.perf_counter()
    engine = Engine(options.memory, options.threads, progress=Progress(options.progress))
    chain = [plan.method, *_fallbacks(plan.method, seen.coordinates, rows)]
    with single_threaded_blas():
        for method in chain:
            start = _start(engine, rows, options, seen, method)
            outcome = _refine(engine, rows, options, start) if start else None
            if outcome is not None:
                break
            engine.trace.remarks.append(f"{method} could not be certified on this data")
        else:
            raise DataError(
                "no method could factor the columns to working precision",
                where=rows.source,
                hint="Values near the limits of float64 may overflow: rescale the columns.",
            )
    x, x0, coordinates, whitening, gradient, found = outcome
    engine.trace.seconds = time.perf_counter() - began
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
        x=x,
        x0=x0,
        columns=rows.columns,
        targets=rows.targets,
        shape=rows.shape,
        ridge=options.ridge,
        has_intercept=options.intercept,
        tol=options.tol,
        forward_tol=options.forward_tol,
        rank=whitening.rank,
        coefficient_error=found.coefficient_error,
        intercept_error=found.intercept_error,
        rr=gradient.rr,
        r2=r2,
        coordinates=coordinates,
        whitening=whitening,
        gradient=(gradient.hi, gradient.lo),
        certificate=certificate,
        trace=engine.trace,
        plan=plan if plan.method == method else replace(plan, method=method),
        single=len(rows.targets) == 1,
    )


def _fallbacks(method: str, c: Coordinates, rows: Rows) -> list[str]:
    robust = "tsqr" if c.p <= 150 or rows.shape[0] <= 8 * c.p else "sketch"
    order = {"gram32": ["gram64", robust], "gram64": [robust], "tsqr": [], "sketch": ["tsqr"]}
    return order[method]


def _start(engine: Engine, rows: Rows, options: Options, seen: Probe, method: str) -> _Start | None:
    c = seen.coordinates
    reduction = _first_reduction(method, c, seen, options)
    label = {"gram32": "Gram matrix (float32)", "gram64": "Gram matrix", "tsqr": "TSQR", "sketch": "sketch"}[method]
    (result,) = engine.sweep(rows, [reduction], label)
    if not np.isfinite(result).all():
        _raise_nonfinite(engine, rows)
        return None
    cut = engine.layout(rows, [reduction])
    if isinstance(reduction, Gram):
        return _from_gram(c, result, reduction.rounding(cut.segment_rows, rows.shape[0]))
    return _from_factor(c, result)


def _rescale(c: Coordinates, norms: np.ndarray) -> tuple[Coordinates, np.ndarray]:
    """Coordinates in which working columns of these norms have norms near one, and the powers of two that do it."""
    with np.errstate(divide="ignore"):
        factor = np.exp2(-np.round(np.log2(norms)))
    # What is left of a column after its shift may be rounding alone: such a column counts as zero, not as data.
    floor = np.zeros(c.p)
    if c.intercept:
        floor[: c.d] = 4 * U * np.abs(c.shift[: c.d]) * c.scale[: c.d] / c.scale[c.d]
    factor[~np.isfinite(factor) | (norms <= floor)] = 1.0
    scale = c.scale.copy()
    scale[: c.p] *= factor
    return replace(c, scale=scale), factor


def _from_gram(c: Coordinates, gram: np.ndarray, rounding: float) -> _Start | None:
    p = c.p
    h = gram[:p, :p] + np.diag(c.penalty)
    c, factor = _rescale(c, np.sqrt(np.maximum(np.diag(h), 0.0)))
    h = h * np.outer(factor, factor)
    whitening = from_gram(h, rounding)
    if whitening is None or not whitening.usable:
        return None
    z = whitening.w @ (whitening.w.T @ (factor[:, None] * gram[:p, p:]))
    return _Start(c, whitening, True, *c.solution(z, targets=True))


def _from_factor(c: Coordinates, factor: np.ndarray) -> _Start:
    """From a triangular factor, or a sketch, of [Ā b̄]."""
    p = c.p
    stacked = np.vstack([factor, np.hstack([np.diag(np.sqrt(c.penalty)), np.zeros((p, c.k))])]) if c.ridge else factor
    c, powers = _rescale(c, np.linalg.norm(stacked[:, :p], axis=0))
    stacked = stacked.copy()
    stacked[:, :p] *= powers
    r = triangle(stacked)
    head = r[: min(len(r), p)]
    x, null, _ = directions(head[:, :p])
    # x whitens head: x = V_r S⁻¹, so z = x (head x)ᵀ (projected targets).
    z = x @ ((head[:, :p] @ x).T @ head[:, p:])
    rank = x.shape[1]
    solution = c.solution(z, targets=True)
    if null is not None:
        solution = _minimum_norm(c, null, *solution)
    return _Start(c, Whitening(x, np.eye(rank), math.inf, null), False, *solution)


def _minimum_norm(c: Coordinates, null: np.ndarray, x: np.ndarray, x0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The point of smallest ``‖x‖`` on ``x + range(null)``, null directions in working coordinates."""
    step = c.scale[: c.d, None] * null[: c.d]
    t = np.linalg.lstsq(step, x, rcond=None)[0]
    x = x - step @ t
    if c.intercept:
        x0 = x0 - (c.scale[c.d] * null[c.d] - c.shift[: c.d] @ step) @ t
    return x, x0


def _measure(
    engine: Engine,
    rows: Rows,
    c: Coordinates,
    x: np.ndarray,
    x0: np.ndarray,
    label: str,
    unmeasured: Whitening | None,
) -> tuple[GradientResult, Whitening]:
    """One pass for the gradient at x and, for a whitening not yet measured, for its Gram matrix."""
    reductions: list[Any] = [Gradient(x, x0, intercept=c.intercept, rows=rows.shape[0], sparse=rows.is_sparse)]
    if unmeasured is not None:
        basis = unmeasured.x if unmeasured.null is None else np.hstack([unmeasured.x, unmeasured.null])
        slack = _product_error(c, basis)
        reductions.append(ProductGram(c, basis, exact=slack > 1e-3 or unmeasured.null is not None))
    results = engine.sweep(rows, reductions, label)
    gradient = results[0]
    if not (np.isfinite(gradient.hi).all() and np.isfinite(gradient.rr).all()):
        _raise_nonfinite(engine, rows)
        raise DataError("values are so large that their squares overflow", where=rows.source, hint="Rescale the data.")
    if unmeasured is None:
        return gradient, None  # type: ignore[return-value]
    product = reductions[1]
    cut = engine.layout(rows, reductions)
    gram = results[1] + basis.T @ (c.penalty[:, None] * basis)
    rank = unmeasured.rank
    kept = gram[:rank, :rank]
    size = math.sqrt(max(float(np.trace(kept)), 0.0))
    tiny = (2 * c.p**2 + 64) * U**2 * math.sqrt(c.p) * float(np.linalg.norm(basis))
    entry = 4 * U * size + tiny if product.exact else slack
    error = product.rounding(cut.segment_rows, rows.shape[0]) * size**2 + 2 * size * entry + entry**2
    error += gamma(2 * c.p + 2) * float(np.trace(np.abs(basis.T) @ (c.penalty[:, None] * np.abs(basis))))
    discarded = (1 + 1e-9) * math.sqrt(max(float(np.trace(gram[rank:, rank:])), 0.0)) + tiny
    return gradient, Whitening(unmeasured.x, kept, error, unmeasured.null, discarded)


def _product_error(c: Coordinates, basis: np.ndarray) -> float:
    """Bound on ``‖fl(Ā X) − Ā X‖_F`` of a BLAS product of packed rows."""
    offset = 0.0
    if c.intercept:
        offset = float(np.linalg.norm(c.shift[: c.d] * c.scale[: c.d])) / float(c.scale[c.d])
    return float((gamma(c.p + 4) * 2 * math.sqrt(c.p) + 3 * U * offset) * np.linalg.norm(basis))


def _raise_nonfinite(engine: Engine, rows: Rows) -> None:
    block_rows = max(1, min(rows.shape[0], int(2**24 / max(rows.row_nbytes, 1))))
    if error := find_nonfinite(rows, block_rows):
        raise error


def _refine(engine: Engine, rows: Rows, options: Options, start: _Start) -> tuple[Any, ...] | None:
    """Correct the first answer until its certificate reaches the tolerance, or no longer improves."""
    c, whitening, x, x0 = start.coordinates, start.whitening, start.x, start.x0
    best: tuple[Any, ...] | None = None
    measured = start.measured
    if measured and whitening.eta > LOOSE and not rows.is_sparse:
        # The first answer is as good as the whitening: correct it before a certificate is spent on it.
        (g,) = engine.sweep(rows, [PlainGradient(x, x0, intercept=c.intercept)], "gradient, correction")
        working = working_gradient(c, g, np.zeros_like(g), x)
        x, x0 = _correct(c, whitening, whitening.w @ whitening.project(*working[2:]), x, x0)
    for correction in range(MAX_CORRECTIONS):
        label = "gradient, certificate" if measured else "gradient, Gram of A R⁻¹"
        gradient, fresh = _measure(engine, rows, c, x, x0, label, None if measured else whitening)
        if not measured:
            whitening, measured = fresh, True
            if not whitening.usable:
                return None
        found = assess(c, whitening, gradient, x, x0, options.tol, options.forward_tol)
        engine.trace.remarks.append(f"after {correction} corrections: {found.progress}")
        stalled = best is not None and not found.optimality < 0.5 * best[5].optimality
        if best is None or found.optimality < best[5].optimality:
            best = x, x0, c, whitening, gradient, found
        if found.excess <= 1 or stalled:
            break
        x, x0 = _correct(c, whitening, found.correction, x, x0)
    return best


def _correct(
    c: Coordinates, whitening: Whitening, correction: np.ndarray, x: np.ndarray, x0: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    step, step0 = c.solution(correction, targets=False)
    x, x0 = x + step, x0 + step0
    return (x, x0) if whitening.null is None else _minimum_norm(c, whitening.null, x, x0)


def _changed(
    gradient: GradientResult,
    saved: tuple[np.ndarray, np.ndarray],
    whitening: Whitening,
    c: Coordinates,
    x: np.ndarray,
    x0: np.ndarray,
) -> list[str]:
    """A sentence when the gradient is not the saved one to within the rounding of doubled arithmetic."""
    norms = column_norms(c, whitening)[0]
    residual_error, error = gradient_error(gradient, norms, x, x0)
    allowed = 2 * (error + norms[:, None] * residual_error) + 16 * U**2 * np.abs(gradient.hi)
    difference = np.abs((gradient.hi - saved[0]) + (gradient.lo - saved[1]))
    if saved[0].shape == gradient.hi.shape and (difference <= allowed).all():
        return []
    return ["solution and data do not belong together: a number of one of them has changed since they were certified"]
