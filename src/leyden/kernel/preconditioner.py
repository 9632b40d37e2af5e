r"""What conjugate gradients divide by: the Hessian of a sample of the rows.

With features S (s, D) of s of the n rows, ``M = c SᵀS + λ I`` with ``c = n/s`` is near ``ZᵀZ + λ I`` in all directions
as soon as s is some times the effective dimension ``tr ZᵀZ (ZᵀZ + λ)⁻¹`` (Rudi, Carratino and Rosasco 2017; Avron,
Clarkson and Woodruff 2017), so that conjugate gradients need ten or twenty passes whatever the condition.

The sample is part of the data: ``ZᵀZ + λ I ⪰ SᵀS + λ I ⪰ M / c``. For any gradient g therefore
``gᵀ (ZᵀZ + λ I)⁻¹ g ≤ c gᵀ M⁻¹ g``, a bound on the gap that conjugate gradients compute anyway, and often far below
``‖g‖² / λ``. It holds of the squared loss; all here is computed in float64.

Where D is small M is factored as it is. Beyond that it is the identity but for s directions:
``M⁻¹ = (I − Sᵀ (SSᵀ + (λ/c) I)⁻¹ S) / λ`` (Woodbury).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import scipy.linalg as sl

from leyden.kernel.products import gram_of

#: Features up to which the sample's Hessian is factored as it is, when it fits the budget.
MOST_DENSE = 12_000
#: Features that are worked on in float64 at once.
CHUNK = 1024


class Preconditioner(ABC):
    """``M⁻¹`` for each of some penalties.

    Attributes
    ----------
    scale : float
        c.
    """

    scale: float

    @abstractmethod
    def __call__(self, r: np.ndarray, which: np.ndarray) -> np.ndarray:
        """``M⁻¹ r``, column by column of ``r`` (D, k), each for the penalty of that number."""


class Factored(Preconditioner):
    """Cholesky factors of M, one a penalty.

    Parameters
    ----------
    s : float32, shape (s, D)
    scale : float
        c.
    penalties : float64, shape (p,)
    threads : int
    """

    def __init__(self, s: np.ndarray, scale: float, penalties: np.ndarray, threads: int):
        self.scale = scale
        gram = gram_of(s, threads)
        gram *= scale
        self.factors = []
        for number, penalty in enumerate(penalties):
            last = number + 1 == len(penalties)
            self.factors.append(cholesky(gram if last else gram.copy(), penalty))

    def __call__(self, r: np.ndarray, which: np.ndarray) -> np.ndarray:
        out = np.empty_like(r)
        for number, factor in enumerate(self.factors):
            columns = which == number
            if columns.any():
                out[:, columns] = sl.cho_solve(factor, r[:, columns], check_finite=False)
        return out


class Woodbury(Preconditioner):
    """The inverse by that of an s × s matrix, whose eigenvectors serve all penalties."""

    def __init__(self, s: np.ndarray, scale: float, penalties: np.ndarray, threads: int):
        self.s, self.penalties = s, penalties / scale
        outer = np.zeros((len(s), len(s)))
        for first in range(0, s.shape[1], CHUNK):
            part = s[:, first : first + CHUNK].astype(np.float64)
            outer += part @ part.T
        if len(penalties) == 1:
            self.factor = cholesky(outer, float(self.penalties[0]))
        else:
            self.values, self.vectors = sl.eigh(outer, overwrite_a=True, check_finite=False)
        self.scale = scale

    def __call__(self, r: np.ndarray, which: np.ndarray) -> np.ndarray:
        image = self._times(r)
        penalties = self.penalties[which]
        if len(self.penalties) == 1:
            inner = sl.cho_solve(self.factor, image, check_finite=False)
        else:
            inner = self.vectors @ ((self.vectors.T @ image) / (np.maximum(self.values, 0)[:, None] + penalties))
        return (r - self._transposed(inner)) / (penalties * self.scale)

    def _times(self, r: np.ndarray) -> np.ndarray:
        """``S r`` in float64, some columns of S at a time."""
        out = np.zeros((len(self.s), r.shape[1]))
        for first in range(0, self.s.shape[1], CHUNK):
            out += self.s[:, first : first + CHUNK].astype(np.float64) @ r[first : first + CHUNK]
        return out

    def _transposed(self, q: np.ndarray) -> np.ndarray:
        out = np.empty((self.s.shape[1], q.shape[1]))
        for first in range(0, self.s.shape[1], CHUNK):
            out[first : first + CHUNK] = self.s[:, first : first + CHUNK].astype(np.float64).T @ q
        return out


def cholesky(a: np.ndarray, penalty: float) -> tuple[np.ndarray, bool]:
    """The factor of ``a + penalty I``, in the memory of ``a``; what rounding lacks of positive is added."""
    size = float(np.trace(a)) / max(len(a), 1)
    added = penalty
    while True:
        work = a.copy() if added < 1e-13 * size * len(a) else a
        work[np.diag_indices(len(a))] += added
        try:
            return sl.cho_factor(work.T, lower=True, overwrite_a=True, check_finite=False)
        except np.linalg.LinAlgError:
            if work is a:
                raise
            added = max(10 * added, 1e-15 * size * len(a))
