r"""The variance of groups' coefficients, by restricted maximum likelihood on a part of the groups.

With ``Δ = τ² I`` and β, σ² at their best for it, the restricted log-likelihood of n rows and p shared coefficients is

.. math:: −½ [(n − p) \log F(τ²) + Σ \log|M_g| + \log|S|], \qquad F = \min_β Σ (y_g − X_gβ)ᵀ M_g^{-1} (y_g − X_gβ),

up to a constant (H. D. Patterson and R. Thompson, Biometrika 58, 1971). One number is sought, and tens of thousands of
rows tell it to a few percent, which estimates and predictions hardly notice: it is maximised in log τ² on an evenly
spread part of the groups, in memory and in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from leyden.errors import DataError
from leyden.rows import Rows
from leyden.rows.base import Block
from leyden.rows.sampled import SampledRows
from leyden.solve.lookup.certificate import Factor, assess
from leyden.solve.lookup.passes import Complement, Residual, Residuals, Schur
from leyden.solve.lookup.problem import Features, Table, independent

#: Rows that are looked at, about, and consecutive groups that are read together.
SAMPLED, RUN = 60_000, 64

#: Variances that are looked at, relative to that of the noise: of the share of groups in a row.
LEAST, MOST = 1e-6, 1e6

#: Step in log τ² that curvature is measured with, and to which the maximum is found.
STEP, CLOSE = 0.1, 1e-3


@dataclass(frozen=True)
class Variance:
    """τ², its standard error, and how many groups said so."""

    value: float
    error: float
    groups: int

    def __str__(self) -> str:
        said = f"covariance {self.value:.4g} ± {self.error:.2g}"
        return f"{said} by restricted maximum likelihood, from {self.groups:,} groups"


def estimated(rows: Rows, table: Table, features: Features, total: int, ridge: float) -> Variance:
    """τ² of the rows, ``total`` of them, whose table has variances of one.

    Raises
    ------
    DataError
        Of a target that is not finite, or a table of zeros.
    """
    stride = max(1, math.ceil(total / SAMPLED))
    part = SampledRows(rows, stride, RUN) if stride > 1 else rows
    block = Block(0, part.read(0, part.shape[0], part.buffer(part.shape[0])).data)
    data: Any = block.data
    counts = np.bincount(data.indices, minlength=rows.shape[1])
    lengths = np.einsum("ij,ij->i", table.f, table.f, dtype=np.float64)
    scale = float(counts @ lengths) / max(len(data.indices), 1)
    if not scale > 0:
        raise DataError("the table is zero for every row that was looked at", hint="Give covariance= as a number.")
    chosen = features.chosen(independent(features, counts, ridge)[0])
    most = int(np.diff(data.indptr).max())

    def criterion(logarithm: float) -> float:
        """Twice the negative restricted log-likelihood."""
        scaled = replace(table, delta=table.delta * math.exp(logarithm))
        return _criterion(block, scaled, chosen, most, ridge, part)

    from scipy.optimize import minimize_scalar

    bounds = math.log(LEAST / scale), math.log(MOST / scale)
    best = float(minimize_scalar(criterion, bounds=bounds, method="bounded", options={"xatol": CLOSE}).x)
    around = [criterion(best + step) for step in (-STEP, 0.0, STEP)]
    curvature = (around[0] - 2 * around[1] + around[2]) / STEP**2
    value = math.exp(best)
    error = value * math.sqrt(2 / curvature) if curvature > 0 else math.inf
    return Variance(value, error, int((np.diff(data.indptr) > 0).sum()))


def _criterion(block: Block, table: Table, features: Features, most: int, ridge: float, rows: Rows) -> float:
    schur = Schur(table, features, most, False)
    complement: Complement = schur.finish(schur.update(schur.start(), block))
    if complement.bad >= 0:
        raise DataError("a target is NaN, infinite, or beyond float32", where=rows.locate(complement.bad))
    factor = Factor(complement, ridge)
    beta, _ = factor.back(factor.white(complement.t)[0])
    residuals = Residuals(table, features, most, False, beta)
    residual: Residual = residuals.finish(residuals.update(residuals.start(), block))
    objective = assess(factor, beta, residual, 1.0, correct=True).objective
    if objective == 0:
        raise DataError("the fixed features explain every row there is", hint="Give covariance= as a number.")
    free = max(complement.rows - features.p, 1)
    return free * math.log(objective) + complement.log_determinant + factor.log_determinant
