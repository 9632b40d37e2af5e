"""The answer of a QR factorization: what it holds, how it is certified, saved, verified."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from leyden import options as check
from leyden.certificate import Bound, Certificate
from leyden.engine.executor import Executor, as_executor
from leyden.engine.local import Local, single_threaded_blas
from leyden.engine.progress import Progress
from leyden.engine.sweep import Engine
from leyden.errors import OptionError
from leyden.factor.left import Place, writing
from leyden.factor.orthogonal import Basis, FactorGram, MeasuredFactor, Stored, product
from leyden.plan import Plan
from leyden.rows import Rows
from leyden.rows import open as open_rows
from leyden.solution import Solution, Trace
from leyden.solve.measure import raise_nonfinite
from leyden.solve.reductions import U, gamma
from leyden.solve.whitening import inverse, spectral_norm_bound

#: Matrices of d × d that are alive at once between the passes.
SMALL_MATRICES = 20


def small_nbytes(d: int) -> int:
    """Memory for the dense algebra between passes."""
    return SMALL_MATRICES * 8 * d**2


class QR(Solution):
    """Thin QR factorization ``A = Q R`` of a matrix of full column rank.

    Attributes
    ----------
    R : ndarray, shape (d, d)
        Upper triangular, its diagonal positive: so it is unique.
    Q : ndarray or Rows, shape (n, d), or None
        Orthonormal columns, if they were asked for: an array, or the rows of the file they were written to.
    columns : tuple of str
    shape : (int, int)
        Of A.
    certificate, trace, plan
    """

    kind = "qr"
    Q: Any = None

    def __init__(
        self,
        *,
        r: np.ndarray,
        scale: np.ndarray,
        first: np.ndarray,
        core: np.ndarray,
        tol: float,
        columns: tuple[str, ...],
        shape: tuple[int, int],
        certificate: Certificate,
        trace: Trace,
        plan: Plan,
    ):
        self.R, self.tol, self.columns, self.shape = r, tol, columns, shape
        self.certificate, self.trace, self.plan = certificate, trace, plan
        self._scale, self._first, self._core = scale, first, core

    # ------------------------------------------------------------ use

    def q(self, rows: Any) -> Rows:
        """Rows of ``A R⁻¹``, (n, d), that are computed when they are read.

        ``Q`` of the whole data without storing it, and the same map for rows that were not part of it.
        """
        return open_rows(rows).map(Basis(self._scale, self._first, self._core))

    def write_q(self, engine: Engine, rows: Rows, path: str | os.PathLike | None) -> None:
        """Compute Q into :attr:`Q`, in memory or in a file, and certify the numbers that were written."""
        # No part of this pass is kept: what is in memory, or in a file not yet there, is lost with the process.
        executor = Local() if path is None else engine.executor
        runs = Engine(engine.memory, engine.threads, engine.reserved, executor, None, engine.progress, engine.trace)
        basis, r = Basis(self._scale, self._first, self._core), self.R * self._scale
        if path is None:
            q = np.empty(self.shape)
            (measured,) = runs.sweep(rows, [FactorGram(basis, self._scale, r, Place(q, None))], "Q")
            self.Q = q
        else:
            with writing(path, self.shape) as place:
                (measured,) = runs.sweep(rows, [FactorGram(basis, self._scale, r, place)], "Q")
            self.Q = open_rows(os.path.expanduser(path))
        c = self.certificate
        self.certificate = Certificate(
            {**c.bounds, **stored_bounds(measured, self.tol)}, c.passes, c.nbytes, c.seeds, c.failures
        )

    # ------------------------------------------------------------ verify, save

    def verify(
        self,
        rows: Any,
        b: Any = None,
        *,
        weights: Any = None,
        memory: str | int | None = None,
        executor: Executor | None = None,
        progress: bool | None = False,
    ) -> Certificate:
        """Measure the certificate again by one pass over the data, from R and the saved witnesses alone.

        Where Q is at hand, its rows are read beside those of the data, and measured as they are.
        """
        if b is not None or weights is not None:
            raise OptionError("a solution of qr has no targets and no weights")
        runs, shown = as_executor(executor), Progress(check.progress(progress))
        budget = runs.memory() if memory is None else check.memory(memory)
        rows = open_rows(rows)
        if rows.shape != self.shape:
            was, is_ = ("{:,} × {:,}".format(*shape) for shape in (self.shape, rows.shape))
            return Certificate({}, failures=(f"the data is {is_}; the solution is of {was}",))
        engine = Engine(budget, None, small_nbytes(rows.shape[1]), runs, progress=shown)
        r = self.R * self._scale
        reductions = [FactorGram(Basis(self._scale, self._first), self._scale, self._first)]
        if self.Q is not None:
            reductions.append(FactorGram(Stored(open_rows(self.Q)), self._scale, r))
        with single_threaded_blas():
            measured, *stored = engine.sweep(rows, reductions, "verify")
            if not np.isfinite(measured.hi).all():
                raise_nonfinite(rows)
                return Certificate({}, failures=("the saved witness does not fit this data: nothing can be said",))
            bounds = assess(measured, self._first, self._core, r, self.tol)
        for of_q in stored:
            bounds |= stored_bounds(of_q, self.tol)
        failures = []
        for name, bound in self.certificate.bounds.items():
            found = bounds.get(name)
            # Of a Q that is not at hand nothing can be said; what was said of its orthogonality is of another basis.
            if found is None or (name == "orthogonality" and "residual" in self.certificate.bounds and not stored):
                continue
            if found.tolerance != bound.tolerance:
                failures.append(f"{name}: the tolerances recorded do not agree")
            elif found.value > 1.1 * bound.value + U:
                failures.append(f"{name}: the solution claims {bound.value:.2e}, the data says {found.value:.2e}")
        if not self.certificate.bounds.keys() >= {"backward_error", "orthogonality"}:
            failures.append("the saved certificate lacks a bound")
        if self.columns != rows.columns:
            failures.append("the columns have other names than those that were factored")
        return Certificate(bounds, 1, rows.stored_nbytes, failures=tuple(failures))

    def _problem(self) -> dict[str, Any]:
        return {"columns": list(self.columns), "shape": list(self.shape), "tol": self.tol}

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {"R": self.R, "scale": self._scale, "first": self._first, "core": self._core}
        if isinstance(self.Q, np.ndarray):
            arrays["Q"] = self.Q
        return arrays

    @classmethod
    def _restore(
        cls, problem: dict[str, Any], arrays: dict[str, np.ndarray], certificate: Certificate, trace: Trace, plan: Plan
    ) -> QR:
        n, d = (int(length) for length in problem["shape"])
        expected = {"R": (d, d), "scale": (d,), "first": (d, d), "core": (d, d), "Q": (n, d)}
        for name, array in arrays.items():
            if array.dtype != np.float64 or array.shape != expected[name]:
                raise ValueError(f"{name}.npy is not an array of float64 of shape {expected[name]}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name}.npy holds values that are not finite")
        for name in ("R", "first", "core"):
            if np.tril(arrays[name], -1).any() or not (np.diag(arrays[name]) > 0).all():
                raise ValueError(f"{name}.npy is not an upper triangle with a positive diagonal")
        if (np.frexp(arrays["scale"])[0] != 0.5).any():
            raise ValueError("scale.npy holds values that are not powers of two")
        found = cls(
            r=arrays["R"],
            scale=arrays["scale"],
            first=arrays["first"],
            core=arrays["core"],
            tol=float(problem["tol"]),
            columns=tuple(problem["columns"]),
            shape=(n, d),
            certificate=certificate,
            trace=trace,
            plan=plan,
        )
        found.Q = arrays.get("Q")
        return found

    def __str__(self) -> str:
        n, d = self.shape
        diagonal = np.diag(self.R)
        lines = [f"QR factorization, {n:,} × {d:,}", f"diagonal of R from {diagonal.min():.6g} to {diagonal.max():.6g}"]
        return "\n".join([*lines, str(self.certificate), str(self.trace)])


# ------------------------------------------------------------ the certificate


def triangle(measured: MeasuredFactor, first: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """R and K of the measured Gram matrix M of Y, ``KᵀMK ≈ I`` and ``R ≈ K⁻¹ R₁``; None when M is not definite."""
    if not np.isfinite(measured.hi).all():
        return None
    try:
        factor = np.linalg.cholesky(measured.hi).T
    except np.linalg.LinAlgError:
        return None
    core = inverse(factor)
    if core is None:
        return None
    hi, lo, _ = product(factor, first)
    r = np.triu(hi + lo)
    # The factor is not quite the inverse of K: one correction, and R is K⁻¹R₁ but for its own rounding.
    r += np.triu(factor @ _defect(core, r, first)[0])
    return r, core


def _defect(core: np.ndarray, r: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, float]:
    """``R₁ − K R``, and a bound on the norm of its error."""
    hi, lo, error = product(core, r)
    defect = (first - hi) - lo
    return defect, error + 4 * U * float(np.linalg.norm(lo) + np.linalg.norm(defect))


def _distance(measured: MeasuredFactor, core: np.ndarray) -> float:
    """A bound on ``‖KᵀMK − I‖₂`` for the Gram matrix M of Y itself."""
    norm, d = np.linalg.norm, len(core)
    size = spectral_norm_bound(core)
    ph, pl, error = product(measured.hi, core)
    more = measured.lo @ core
    rounding = error + gamma(d + 2) * float(norm(measured.lo) * norm(core)) + 2 * U * float(norm(pl) + norm(more))
    pl += more
    rounding *= size
    dh, dl, error = product(np.ascontiguousarray(core.T), ph)
    more = core.T @ pl
    rounding += error + gamma(d + 2) * float(norm(core) * norm(pl)) + 4 * U * float(norm(dl) + norm(more))
    distance = (dh - np.eye(d)) + (dl + more)
    rounding += 2 * U * float(norm(distance))
    return (spectral_norm_bound(distance) + rounding + size**2 * measured.error) * (1 + 1e-9)


def assess(
    measured: MeasuredFactor, first: np.ndarray, core: np.ndarray, r: np.ndarray, tol: float
) -> dict[str, Bound]:
    r"""Bounds on ``Y K`` and R, columns scaled.

    With ``η`` the distance of ``(YK)ᵀ(YK)`` from the identity and ``YK = Q̂P`` its polar decomposition, ``‖P − I‖ ≤
    η/(1 + √(1−η))``; from ``Ā = (YK)(K⁻¹R₁) + E`` column j of ``Ā − Q̂R`` is at most
    ``‖P − I‖ ‖K⁻¹r₁‖ + ‖K⁻¹(r₁ − K r)‖ + ‖e‖``.
    """
    eta = _distance(measured, core)
    backward = math.inf
    if eta < 1:
        defect, error = _defect(core, r, first)
        gram = spectral_norm_bound(measured.hi) + float(np.linalg.norm(measured.lo)) + measured.error
        stretch = math.sqrt(gram / (1 - eta))
        apart = stretch * (np.linalg.norm(defect, axis=0) + error)
        lengths = np.linalg.norm(r, axis=0) + apart
        change = eta / (1 + math.sqrt(1 - eta)) * lengths + apart + measured.residual
        backward = _largest(change * (1 + gamma(len(r) + 8)), measured.column_norms)
    return {
        "backward_error": Bound(
            "backward_error", backward, "relative change of a column of A that makes R its exact factor", "rigorous",
            tol,
        ),
        "orthogonality": Bound(
            "orthogonality", eta, "‖QᵀQ − I‖₂ of the Q that rows are mapped to, before its last rounding", "rigorous",
            tol, relative=False,
        ),
    }  # fmt: skip


def stored_bounds(measured: MeasuredFactor, tol: float) -> dict[str, Bound]:
    """Bounds on a Q that was written."""
    d = len(measured.hi)
    distance = (measured.hi - np.eye(d)) + measured.lo
    apart = float(np.linalg.norm(distance)) * (1 + gamma(d * d + 8)) + measured.error
    return {
        "orthogonality": Bound(
            "orthogonality", apart, "‖QᵀQ − I‖_F of Q as written", "rigorous", tol, relative=False
        ),
        "residual": Bound(
            "residual", _largest(measured.residual, measured.column_norms),
            "‖a − Q r‖ / ‖a‖ of a column, hence ‖A − QR‖_F / ‖A‖_F, of Q as written", "rigorous", tol,
        ),
    }  # fmt: skip


def _largest(values: np.ndarray, sizes: np.ndarray) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = values / sizes
    return float(ratios.max()) if np.isfinite(ratios).all() else math.inf
