"""The solution of a least-squares problem: what it holds, how it is saved, how it is verified."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from leyden import options as check
from leyden.certificate import Certificate
from leyden.engine.executor import Executor, as_executor
from leyden.engine.local import single_threaded_blas
from leyden.engine.progress import Progress
from leyden.engine.sweep import Engine
from leyden.plan import Plan
from leyden.rows import Rows
from leyden.rows import open as open_rows
from leyden.solution import Solution, Trace
from leyden.solve.certify import Assessment, assess, gradient_error
from leyden.solve.choose import small_nbytes
from leyden.solve.coordinates import Coordinates
from leyden.solve.measure import measure
from leyden.solve.reductions import GradientResult, U
from leyden.solve.start import minimum_norm
from leyden.solve.whitening import Whitening


class LeastSquares(Solution):
    """Solution of a least-squares problem.

    Attributes
    ----------
    x : ndarray, shape (d,) or (d, k)
        Coefficients; two-dimensional when there are several targets, or one of shape (n, 1).
    intercept : float or ndarray, shape (k,)
        Zero when none was asked.
    rank : int
        Numerical rank of the columns (with the intercept, if any).
    columns : tuple of str
    weighted : bool
        Whether the rows had weights.
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
        weighted: bool,
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
        self.columns, self.targets, self.shape, self.weighted = columns, targets, shape, weighted
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
        """Compute the certificate again from the data, by one pass that uses nothing of the solver's but a witness.

        The witness is the whitening matrix; its quality is measured in that pass, so that a wrong one makes the bounds
        fail, never hold. The gradient, which doubled arithmetic reproduces to some thirty digits, is compared with the
        one saved: any change of an answer or of a row that moves it is seen.
        """
        runs, shown = as_executor(executor), Progress(check.progress(progress))
        budget = runs.memory() if memory is None else check.memory(memory)
        rows = open_rows(rows, target=b, weight=weights)
        if other := self._of_other_rows(rows):
            return Certificate({}, failures=(other,))
        reserved = small_nbytes(rows, self.has_intercept)
        engine = Engine(budget, reserved=reserved, executor=runs, progress=shown)
        with single_threaded_blas():
            gradient, whitening = measure(
                engine, rows, self._coordinates, self._x, self._x0, self._whitening, "verify", whiten=True
            )
            if not whitening.usable:
                return Certificate({}, failures=("the saved witness does not whiten this data: nothing can be said",))
            sizes = whitening.column_norms
            if not ((sizes == 0) | ((sizes > 0.25) & (sizes < 4))).all():
                return Certificate({}, failures=("the saved coordinates do not fit this data: nothing can be said",))
            found = assess(self._coordinates, whitening, gradient, self._x, self._x0, self.tol, self.forward_tol)
        if whitening.null is not None:
            shortest, _ = minimum_norm(self._coordinates, whitening.null, self._x, self._x0)
            if np.linalg.norm(shortest - self._x) > 1e-8 * np.linalg.norm(self._x):
                return Certificate(found.bounds, 1, rows.stored_nbytes, failures=("this is not the shortest solution",))
        failures = _changed(gradient, self._gradient, self._x, self._x0)
        failures += self._false_claims(found, gradient.rr, bounded=whitening.null is None)
        if self.columns != rows.columns:
            failures.append("the columns have other names than those that were solved")
        return Certificate(found.bounds, 1, rows.stored_nbytes, failures=tuple(failures))

    def _false_claims(self, found: Assessment, rr: np.ndarray, *, bounded: bool) -> list[str]:
        """What is saved beside the answer and is not so; ``bounded`` tells whether errors of coefficients are."""
        false = [] if np.allclose(rr, self._rr, rtol=1e-6) else ["the saved residual norm is not that of the data"]
        for name, bound in found.bounds.items():
            claimed = self.certificate.bounds.get(name)
            if claimed is None:
                false.append(f"the saved certificate has no bound named {name}")
            elif name != "rounding" and bound.value > 1.1 * claimed.value:
                false.append(f"{name}: the solution claims {claimed.value:.2e}, the data says {bound.value:.2e}")
            elif bound.tolerance != claimed.tolerance:
                false.append(f"{name}: the tolerances recorded do not agree")
        claims = zip(self._errors, (found.coefficient_error, found.intercept_error), strict=True)
        tiny = np.finfo(float).tiny
        if bounded and not all((now <= 1.1 * claimed + tiny).all() for claimed, now in claims):
            false.append("a coefficient is claimed to be more precise than the data says")
        return false

    def _of_other_rows(self, rows: Rows) -> str:
        """What tells these rows from those that were solved, without reading any; empty when nothing does."""
        has, solved = _size(rows.shape, rows.targets), _size(self.shape, self.targets)
        if has != solved:
            sentence = f"the data has {has}; the solution is of {solved}"
            if not rows.targets:
                sentence += f": give b, or open the rows with target={' and weight=' if self.weighted else ''}"
            return sentence
        if self.weighted and not rows.has_weight:
            return "the solution is of rows with weights, and these have none: give weights, or open them with weight="
        if rows.has_weight and not self.weighted:
            return "the solution is of rows without weights, and these have some: open them without"
        return ""

    def _problem(self) -> dict[str, Any]:
        c = self._coordinates
        return {
            "columns": list(self.columns),
            "targets": list(self.targets),
            "shape": list(self.shape),
            "weighted": self.weighted,
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
        shift, scale = arrays["shift"], arrays["scale"]
        if (np.frexp(scale)[0] != 0.5).any():
            raise ValueError("scale.npy holds values that are not powers of two")
        if (shift[d:p] != 0).any() or (not coordinates.intercept and (shift[:d] != 0).any()):
            raise ValueError("shift.npy shifts what cannot be shifted")
        x, witness = arrays["x"], arrays["witness"]
        return cls(
            x=x,
            x0=arrays["intercept"],
            columns=tuple(problem["columns"]),
            targets=tuple(problem["targets"]),
            shape=shape,
            weighted=bool(problem["weighted"]),
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
        if len(self.targets) == 1:
            lines.append(f"residual norm {np.sqrt(self._rr[0]):.6g}, R² {self._r2[0]:.4f}")
        return "\n".join([*lines, str(self.certificate), str(self.trace)])


def _size(shape: tuple[int, int], targets: tuple[str, ...]) -> str:
    return f"{shape[0]:,} rows, {shape[1]:,} columns, {len(targets)} target(s)"


def _changed(
    gradient: GradientResult, saved: tuple[np.ndarray, np.ndarray], x: np.ndarray, x0: np.ndarray
) -> list[str]:
    """A sentence when the gradient is not the saved one to within the rounding of doubled arithmetic."""
    residual_error, error = gradient_error(gradient, x, x0)
    allowed = 2 * (error + gradient.norms[:, None] * residual_error) + 16 * U**2 * np.abs(gradient.hi)
    difference = np.abs((gradient.hi - saved[0]) + (gradient.lo - saved[1]))
    if saved[0].shape == gradient.hi.shape and (difference <= allowed).all():
        return []
    return ["solution and data do not belong together: a number of one of them has changed since they were certified"]
