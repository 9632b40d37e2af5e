r"""How far the predictions of random features are from those of the exact kernel machine, on the rows that were fitted.

For any predictor f of n rows let ``α = (y − f) / λ`` and ``ρ = f − K α``. Ridge regression with the kernel itself
predicts ``f* = K (K + λ I)⁻¹ y``, so that ``f* − f = −λ (K + λ I)⁻¹ ρ`` and

``‖f* − f‖ ≤ ‖ρ‖``.

Of few rows f* is computed (:mod:`leyden.kernel.exact`) and compared, its own error added. Of many, ρ is evaluated at
some of them, each with the kernel of all: a bound that is wide where λ is small, which divides the error of the kernel.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from leyden.certificate import Bound
from leyden.errors import OptionError
from leyden.kernel import exact
from leyden.kernel.points import Points
from leyden.rows import Rows

if TYPE_CHECKING:
    from leyden.kernel.result import KernelMachine

#: Rows up to which the exact machine is made, rows that ρ is evaluated at beyond, and rows read at once.
MOST, SAMPLED, READ = 10_000, 1000, 4096
#: Relative gap of the exact machine.
TOL = 1e-8


def distance(machine: KernelMachine, rows: Rows, memory: int, threads: int, seed: int) -> Bound:
    """The distance, root mean square over the rows that were fitted."""
    if machine.loss != "squared":
        raise OptionError("the distance to the exact machine is that of the squared loss")
    if rows.has_weight:
        raise OptionError("the distance to the exact machine is that of rows without weights", where=rows.source)
    x, y, fitted = _fitted(machine, rows)
    y = y - machine.targets.offset
    n, penalty = len(x), machine.regularization * machine.weight
    f = machine.decision_function(rows, threads=threads)[fitted] - machine.targets.offset
    points = Points(machine.kernel, x)
    if n <= MOST:
        matrix = exact.KernelMatrix(points, memory // 2, threads)
        solved = exact.solve(matrix, y, penalty, TOL, seed)
        far = np.linalg.norm(f - matrix.exactly(solved.alpha), axis=0) + solved.residual
        meaning = f"root mean square distance from the exact kernel machine over the {n:,} rows that were fitted"
        return Bound("exact_distance", float(far.max()) / math.sqrt(n), meaning, "rigorous", relative=False)
    alpha = (y - f) / penalty
    some = np.sort(np.random.default_rng([seed, 13]).choice(n, SAMPLED, replace=False))
    rho = f[some] - np.concatenate(
        [points.similarities(x[part]) @ alpha for part in np.array_split(some, SAMPLED // 50)]
    )
    meaning = (
        "root mean square distance of fitted scores from those of the exact kernel machine is no more than that of "
        f"their residuals in its equations, at {SAMPLED:,} of {n:,} rows"
    )
    value = float(np.sqrt((rho**2).mean(axis=0)).max())
    return Bound("exact_distance", value, meaning, "measured", relative=False)


def _fitted(machine: KernelMachine, rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standardised points of the rows that were fitted, their Y, and which of all rows they are."""
    points, y, fitted = [], [], []
    for first in range(0, rows.shape[0], READ):
        block = rows.read(first, min(first + READ, rows.shape[0]))
        fitted.append(machine.split.rows_fitted(block))
        block = machine.split.fitted(block)
        points.append(machine.standard(block.data))
        y.append(machine.targets(block.target))
    return np.concatenate(points), np.concatenate(y), np.concatenate(fitted)
