r"""The certificate of absorbed effects: how far coefficients, effects and fits can be from the exact ones.

It starts from the rows. For every column v of ``[y x]`` with effects ``a`` it computes what is left, ``ṽ = v − D a``,
and the gradient ``R = DᵀWṽ − Λa``, which would be zero. With H the normal matrix, the error E of the effects has the
energy ``EᵀHE = RᵀH⁺R``, one number ``ε²`` a column. It is bounded

- for one factor exactly, H being diagonal;
- for two by the energy of a flow along a spanning forest (:mod:`leyden.solve.absorb.forest`): *rigorous*, without
  eigenvalues;
- for more by ``RᵀM⁻¹R / θ`` with the preconditioner M and half the least Ritz value θ: *measured*.

Rounding of what is left is added: ``4u`` times the norms of the column and its effects, and for sums by level ``u √n``
times the norm of what is left, as if single errors of a sum of n were independent.

For the answer, residuals ``e = y − xβ − D a`` come from the rows again, with the gradients ``g_a = DᵀWe − Λa`` and
``g_β = XᵀWe``. With ``G`` the products of what is left of x and A the effects of x,

    ω_a² = g_aᵀ H⁺ g_a,    s = g_β − Aᵀ g_a,    |s − s*| ≤ ε_x ω_a,    β* − β = G*⁻¹ s*,

where G* is G less at most ``ε_j ε_k`` in each entry. The error of β is a product of two small numbers. The objective
exceeds its minimum by ``ω² = ω_a² + s*ᵀ G*⁻¹ s*``, and the answer is exact for a target that differs by ω.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from leyden.certificate import Bound, Certificate, Grade
from leyden.solve.absorb.projection import Projection
from leyden.solve.absorb.table import BLOCK

ROUNDING = float(np.finfo(np.float64).eps) / 2

#: Roundings of one entry of what is left: of the differences, and of the effects.
ENTRY_ROUNDINGS = 4

#: Times its rounding up to which what is left of a column is nothing.
EXACT = 100


@dataclass(frozen=True)
class Errors:
    """Bounds on the errors of columns that were projected.

    Attributes
    ----------
    energy : float64, shape (columns,)
        ``ε``: error of what is left of each, rounding included.
    rounding : float64, shape (columns,)
        The part of rounding.
    norm : float64, shape (columns,)
        Norm of what is left.
    """

    energy: np.ndarray
    rounding: np.ndarray
    norm: np.ndarray

    def of(self, columns: list[int]) -> Errors:
        """Those of some columns."""
        return Errors(self.energy[columns], self.rounding[columns], self.norm[columns])


def column_errors(
    projection: Projection,
    gradient: list[np.ndarray],
    effects: list[np.ndarray],
    squares: np.ndarray,
    left: np.ndarray,
) -> Errors:
    """Bounds from the gradients of all columns; ``squares`` and ``left`` are squared norms before and after."""
    norm, scale = np.sqrt(np.maximum(left, 0.0)), np.sqrt(squares)
    for effect, totals in zip(effects, projection.totals, strict=True):
        scale = scale + np.sqrt(np.einsum("glc,glc,l->gc", effect, effect, totals).ravel())
    sums = len(effects) * math.sqrt(projection.table.rows) * norm
    rounded = ROUNDING * (ENTRY_ROUNDINGS * scale + sums)
    return Errors(np.sqrt(projection.energy(gradient)) + rounded, rounded, norm)


@dataclass(frozen=True)
class Answer:
    """What the certificate of an answer is computed from.

    Attributes
    ----------
    beta : float64, shape (k,)
        Coefficients that were kept.
    gram : float64, shape (k, k)
        ``G`` of them.
    columns : Errors
        Of y, then of the covariates that were kept.
    squares : float64, shape (1 + k,)
        Squared norms of y and of the covariates as they were given.
    small : float64, shape (k,)
        ``s``.
    effects_energy : float
        ``ω_a``.
    rss, objective : float
        Sum of squares, and with the penalties.
    rows : int
    rigorous : bool
    """

    beta: np.ndarray
    gram: np.ndarray
    columns: Errors
    squares: np.ndarray
    small: np.ndarray
    effects_energy: float
    rss: float
    objective: float
    rows: int
    rigorous: bool

    @property
    def summing(self) -> float:
        """Rounding of a sum over all rows, taken block by block, relative to the sum of absolute values."""
        return ROUNDING * math.sqrt(BLOCK + self.rows / BLOCK)


def coefficient_bounds(answer: Answer) -> tuple[np.ndarray, float]:
    """Bounds on ``|β − β*|``, and on the energy ``s*ᵀ G*⁻¹ s*``; infinite where G is too close to singular."""
    k = len(answer.beta)
    if k == 0:
        return np.zeros(0), 0.0
    scale = np.sqrt(np.diagonal(answer.gram))
    correlation = answer.gram / np.outer(scale, scale)
    energy, rounded = answer.columns.energy[1:] / scale, answer.columns.rounding[1:] / scale
    # G* = G − F with |F_jk| ≤ ε_j ε_k, and G is a rounded sum.
    change = float(energy @ energy) + 2 * float(rounded.sum()) + 2 * k * answer.summing
    least = float(np.linalg.eigvalsh(correlation)[0]) - change
    if least <= 0:
        return np.full(k, np.inf), math.inf
    e = math.sqrt(answer.rss)
    off = np.abs(answer.small) / scale + energy * answer.effects_energy
    off += answer.summing * (1 + np.sqrt(answer.squares[1:]) / scale) * e + rounded * e + answer.columns.rounding[0]
    # |C*⁻¹| ≤ |C⁻¹| + ‖C⁻¹ F C*⁻¹‖.
    more = change / (least * (least + change))
    bounds = (np.abs(np.linalg.inv(correlation)) @ off + more * np.linalg.norm(off)) / scale
    return bounds, float(off @ off) / least


def certify(answer: Answer, tol: float) -> tuple[Certificate, np.ndarray]:
    """The certificate, and the bound on the error of each coefficient that was kept."""
    grade: Grade = "rigorous" if answer.rigorous else "measured"
    bounds, small = coefficient_bounds(answer)
    rounded = float(answer.columns.rounding[0])
    omega = math.sqrt(answer.effects_energy**2 + small)
    # Rounding of the answer's own residuals counts with y's: the target is known no better.
    total = omega + rounded
    given = np.sqrt(answer.squares)
    left = math.sqrt(answer.rss) if math.sqrt(answer.rss) > EXACT * rounded else float(given[0])
    norms = np.where(answer.columns.norm > EXACT * answer.columns.rounding, answer.columns.norm, given)
    worst = float(np.max(np.divide(answer.columns.energy, norms, out=np.zeros(len(norms)), where=norms > 0)))
    size = np.abs(answer.beta) * answer.columns.norm[1:]
    moved = float(np.linalg.norm(bounds * answer.columns.norm[1:]))
    known = float(np.linalg.norm(size)) - moved
    forward = moved / known if known > 0 else math.inf if moved else 0.0
    found = [
        Bound(
            "backward_error",
            total / math.sqrt(answer.squares[0]) if answer.squares[0] else 0.0,
            "the answer is exact for a target that differs by this much, relative to the target",
            grade,
            tolerance=tol,
        ),
        Bound(
            "fit",
            total / left if left else 0.0,
            "distance of the fits from the exact ones, relative to the residuals, or to y where it is fitted exactly",
            grade,
            tolerance=tol,
        ),
        Bound(
            "projection",
            worst,
            "error of what is left of a column, effects taken off, relative to it, the worst of y and covariates",
            grade,
            tolerance=tol,
        ),
        Bound(
            "objective",
            total**2 / max(answer.objective, left**2) if left else 0.0,
            "distance of the objective from its minimum, relative to it, or to y² where it is fitted exactly",
            grade,
        ),
    ]
    if len(bounds):
        found.append(
            Bound(
                "forward_error",
                forward,
                "distance of the coefficients from the exact ones, relative to them, in units of their columns",
                grade,
                tolerance=tol,
            )
        )
    return Certificate({bound.name: bound for bound in found}, passes=2), bounds
