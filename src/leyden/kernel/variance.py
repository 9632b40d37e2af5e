r"""The standard deviation of predictions: a Gaussian process whose covariance is that of the features.

With weights ``w ~ N(0, σ²/λ I)`` and targets ``y = offset + z(x)·w + ε``, ``ε ~ N(0, σ²)``, the weights given the
targets are normal about those of ridge regression, and at any x (Rasmussen and Williams 2006, §2.1.2)

``Var f(x) = σ² z(x)ᵀ (ZᵀZ + λ I)⁻¹ z(x)``.

It is that of a Gaussian process with the kernel ``σ²/λ z(x)·z(y)``, here at the cost of one triangular solve a point
with the Cholesky factor of the Gram matrix. A target at x varies by σ² more. The noise is estimated by
``σ² = ‖y − f‖² / (n − tr ZᵀZ (ZᵀZ + λ I)⁻¹)`` (Wahba 1983), n being the sum of the weights of the rows; the offset is
taken as known, and so are widths, λ and σ².
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg as sl

from leyden.kernel.preconditioner import CHUNK, Shifted

#: Features whose factor is kept, and solved with at every point, at most.
MOST_FACTORED = 12_000


@dataclass(frozen=True, eq=False)
class Posterior:
    """What the targets leave unknown of the weights.

    Attributes
    ----------
    factor : float64, shape (D, D)
        Upper triangular U with ``UᵀU = ZᵀZ + λ I``.
    noise : float64, shape (outputs,)
        σ.
    """

    factor: np.ndarray
    noise: np.ndarray

    def deviation(self, z: np.ndarray) -> np.ndarray:
        """Standard deviations of scores at features (m, D): float64 (m, outputs)."""
        half = sl.solve_triangular(self.factor.T, z.T.astype(np.float64), lower=True, check_finite=False)
        return np.sqrt((half * half).sum(axis=0))[:, None] * self.noise

    def mismatch(self, v: np.ndarray, image: np.ndarray) -> float:
        """How far ``UᵀU v`` is from ``image``, relatively: float32 products leave about 1e-6."""
        found = self.factor.T @ (self.factor @ v)
        return float(np.linalg.norm(found - image)) / max(float(np.linalg.norm(image)), 1e-300)


def posterior(gram: Shifted, number: int, squares: np.ndarray, weight: float) -> Posterior:
    """The posterior for one of the penalties.

    Parameters
    ----------
    gram : Shifted
        The Gram matrix of the features, whose memory the factor takes.
    number : int
        Of the penalty.
    squares : float64, shape (outputs,)
        ``‖y − f‖²``.
    weight : float
        n.
    """
    freedom = gram.freedom(number)
    noise = np.sqrt(squares / max(weight - freedom, 1e-9 * weight))
    factor = gram.factor(number)[0].T
    for first in range(0, len(factor), CHUNK):
        corner = factor[first : first + CHUNK]
        corner[:, :first] = 0
        corner[:, first : first + CHUNK] = np.triu(corner[:, first : first + CHUNK])
    return Posterior(factor, noise)
