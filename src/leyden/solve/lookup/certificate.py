r"""How far an answer of a mixed model with features by lookup is from the exact one.

Let ``A`` be the whole matrix, penalties included, in whitened coordinates, and ``b = (y, 0)``. Each group's effects are
*defined* as the best ones for β, ``v_g = Z_gᵀ M_g⁻¹ (y_g − X_g β)``. The error of (β, v) is then that of β alone,

.. math:: ‖A(x − x^*)‖² = (β − β^*)ᵀ S (β − β^*) = sᵀ S^{-1} s, \qquad s = t − Sβ = Σ X_gᵀ M_g^{-1} (y_g − X_gβ) − ρβ,

because eliminating the groups is exact. Three things are computed in place of these, and none of them needs the norm of
anything large:

``Ŝ`` for S. ``(1 − η) M⁻¹ ⪯ M̂⁻¹ ⪯ (1 + η) M⁻¹`` for every group, which follows from tr M because ``M ⪰ I``
(:func:`leyden.solve.lookup._kernels.inverse_error`), carries over to any sum of ``Xᵀ M⁻¹ X``; rounding in adding up is
bounded by a diagonal matrix D. Hence ``low Ŝ ⪯ S ⪯ high Ŝ``.

α for ``M⁻¹ r``. With ``ρ_g = r_g − M_g α_g`` small and known, ``Σ X_gᵀ α_g`` misses ``Σ X_gᵀ M_g⁻¹ ρ_g``, whose size in
the norm of ``S⁻¹`` is at most ``(Σ ρ_gᵀ M_g⁻¹ ρ_g)^½``: it is a projection.

``β + Ŝ⁻¹ s`` for β*. What is left of the error is ``(S⁻¹ − Ŝ⁻¹) s``: that of β times the distance of low and high to
one, known before it is made. No further pass needs to look at it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.linalg import LinAlgError

from leyden.certificate import Bound
from leyden.engine.local import single_threaded_blas
from leyden.errors import DataError
from leyden.solve.lookup.passes import Complement, Residual
from leyden.solve.reductions import U, gamma
from leyden.solve.whitening import inverse, spectral_norm_bound


class Factor:
    """A Cholesky factor of ``Ŝ + ρI``, and what it proves of ``S + ρI``.

    Attributes
    ----------
    low, high : float
        ``low Ŝ ⪯ S ⪯ high Ŝ``, Ŝ being what the factor is exactly of; zero and infinity when nothing is proved.
    log_determinant : float

    Raises
    ------
    DataError
        If the matrix is not numerically positive definite.
    """

    def __init__(self, complement: Complement, ridge: float):
        s, p = complement.s + ridge * np.eye(len(complement.s)), len(complement.s)
        self.ridge = ridge
        self.scale = 1 / np.sqrt(np.diag(s)) if p else np.ones(0)
        self._upper = np.zeros((p, p))
        with single_threaded_blas():
            try:
                self._upper = np.ascontiguousarray(np.linalg.cholesky(s * np.outer(self.scale, self.scale)).T)
            except LinAlgError:
                raise _dependent() from None
            found = inverse(self._upper)
        if found is None:
            raise _dependent()
        self._x = found
        self._off = gamma(p + 1) * float(np.linalg.norm(self._upper) * np.linalg.norm(self._x))
        slack = complement.slack * self.scale**2 + 2 * (gamma(p + 6) * p + U)
        self.low, self.high = 0.0, math.inf
        if self._off < 0.5:
            reach = (spectral_norm_bound(np.sqrt(slack)[:, None] * self._x) / (1 - self._off)) ** 2
            if reach < 1 and complement.error < 1:
                self.low = (1 - reach) / (1 + complement.error)
                self.high = (1 + reach) / (1 - complement.error)

    @property
    def log_determinant(self) -> float:
        return float(2 * np.log(np.diag(self._upper)).sum() - 2 * np.log(self.scale).sum())

    @property
    def distance(self) -> float:
        """Of low and high to one."""
        return max(self.high - 1, 1 - self.low)

    def white(self, s: np.ndarray) -> tuple[np.ndarray, float]:
        """``L⁻¹ s`` and a bound on the length of its error, for ``Ŝ = L Lᵀ``."""
        g = self.scale * s
        y = self._x.T @ g
        error = float(np.linalg.norm(gamma(len(s) + 3) * (np.abs(self._x).T @ np.abs(g))))
        return y, error + self._inexact * float(np.linalg.norm(y))

    @property
    def _inexact(self) -> float:
        """Of the inverse, relative to the true one."""
        return self._off / (1 - self._off) if self._off < 0.5 else math.inf

    def length(self, e: np.ndarray) -> float:
        """A bound on ``‖L⁻¹ e'‖`` for any ``|e'| ≤ e``."""
        found = float(np.linalg.norm(np.abs(self._x).T @ (self.scale * e)))
        return found * (1 + gamma(len(e) + 4)) * (1 + self._inexact)

    def back(self, y: np.ndarray) -> tuple[np.ndarray, float]:
        """``L⁻ᵀ y``, and a bound on the energy of its error."""
        z = self._x @ y
        left = np.abs(self._upper @ z - y) + gamma(len(y) + 4) * (np.abs(self._upper) @ np.abs(z))
        return self.scale * z, float(np.linalg.norm(left)) * (1 + 8 * U)

    def energy(self, e: np.ndarray) -> float:
        """A bound on ``‖Lᵀ e'‖`` for any ``|e'| ≤ e``."""
        return float(np.linalg.norm(np.abs(self._upper) @ (e / self.scale))) * (1 + gamma(len(e) + 4))

    @cached_property
    def variances(self) -> np.ndarray:
        """The diagonal of ``Ŝ⁻¹``."""
        return self.scale**2 * np.einsum("ij,ij->i", self._x, self._x)

    def covariance(self) -> np.ndarray:
        """``Ŝ⁻¹``."""
        w = self.scale[:, None] * self._x
        covariance: np.ndarray = w @ w.T
        return covariance

    @cached_property
    def stretch(self) -> float:
        """A bound on ``‖S^(−½)‖₂``."""
        norm = spectral_norm_bound(self.scale[:, None] * self._x)
        return norm * (1 + self._inexact) / math.sqrt(self.low) if self.low > 0 else math.inf


def _dependent() -> DataError:
    return DataError(
        "the fixed features are too nearly dependent, once the random ones have taken their share",
        hint="Give a ridge, as ridge=1e-6, or leave some of them out.",
    )


@dataclass(frozen=True)
class Assessment:
    """What a residual says of an answer.

    Attributes
    ----------
    bounds : dict of name to Bound
        Of the corrected answer, or of the answer itself if none was asked for.
    beta : ndarray
        The corrected answer.
    objective : float
        Its objective.
    least : float
        At most the energy of the error of the answer as it came in.
    energy : float
        At least that of the answer that ``bounds`` are of.
    """

    bounds: dict[str, Bound]
    beta: np.ndarray
    objective: float
    least: float
    energy: float


def assess(factor: Factor, beta: np.ndarray, found: Residual, tol: float, *, correct: bool) -> Assessment:
    """Bounds on an answer, corrected by one step or as it is.

    Parameters
    ----------
    factor : Factor
    beta : ndarray, shape (p,)
    found : Residual
        Of β.
    tol : float
        What the relative error in energy must be below.
    correct : bool
    """
    s = found.s - factor.ridge * beta
    rounding = found.rounding + 4 * U * (np.abs(found.s) + factor.ridge * np.abs(beta))
    y, inexact = factor.white(s)
    size = float(np.linalg.norm(y))
    noise = factor.length(rounding) + inexact
    shrink = math.sqrt(factor.low)
    answer, error = beta, math.inf
    if correct:
        step, wrong = factor.back(y)
        answer = beta + step
        wrong += factor.energy(2 * U * (np.abs(answer) + np.abs(step)))
    if shrink > 0:
        if correct:
            error = factor.distance / shrink * size + math.sqrt(factor.high) * wrong + noise / shrink + found.defect
        else:
            error = (size + noise) / shrink + found.defect
    moved = math.sqrt(factor.high) * size if correct and shrink > 0 else 0.0
    objective = found.objective + factor.ridge * float(beta @ beta) - (size**2 if correct else 0.0)
    objective = max(objective, 0.0)
    least = 0.0
    if shrink > 0:
        least = max((size - noise) / math.sqrt(factor.high) - found.defect, 0.0)
    bounds = _bounds(factor, answer, found, error * (1 + 1e-6), moved, objective, tol)
    return Assessment({bound.name: bound for bound in bounds}, answer, objective, least, error)


def _bounds(
    factor: Factor, beta: np.ndarray, found: Residual, error: float, moved: float, objective: float, tol: float
) -> list[Bound]:
    slack = gamma(min(found.rows, 1e15)) + 1e-12
    fitted = math.sqrt(max(found.squares * (1 - slack) - objective * (1 + slack), 0.0))
    effects = max(math.sqrt(found.effects) * (1 - slack) - moved - found.defect, 0.0)
    matrix = math.sqrt(0.98 * found.matrix + factor.ridge * len(beta))
    unknowns = math.hypot(float(np.linalg.norm(beta)), effects)
    sigma = math.sqrt(objective / max(found.rows - len(beta), 1))
    spread = sigma * math.sqrt(factor.low) * (1 - slack)
    return [
        Bound(
            "energy_error",
            _ratio(error, fitted),
            "‖A(x − x*)‖ / ‖A x‖: fitted values, and penalties, to those of the exact solution",
            "rigorous",
            tol,
        ),
        Bound(
            "forward_error",
            _ratio(error * factor.stretch, float(np.linalg.norm(beta))),
            "‖β − β*‖ / ‖β‖ for the exact shared coefficients β*",
            "rigorous",
        ),
        Bound(
            "group_error",
            _ratio(error, effects),
            "(Σ ‖v − v*‖²)^½ / (Σ ‖v‖²)^½ for the exact coefficients of all groups, whitened",
            "rigorous",
        ),
        Bound(
            "inference_error",
            _ratio(error, spread),
            "largest distance of a shared coefficient to the exact one, in standard errors of it",
            "rigorous",
            relative=False,
        ),
        Bound(
            "backward_error",
            _ratio(error, unknowns * matrix),
            "change of the whole matrix, relative to its norm, for which this is the exact solution",
            "rigorous",
        ),
    ]


def _ratio(value: float, scale: float) -> float:
    if value == 0:
        return 0.0
    return value / scale if scale > 0 else math.inf
