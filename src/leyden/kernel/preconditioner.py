r"""What conjugate gradients divide by: the Hessian of a sample of the rows, as the part of the whole that it is.

With features S (s, D) of s of the n rows, ``M = SᵀS + λ I`` stands for ``H = ZᵀZ + λ I``. Its rows are among those of
Z, and so ``M ⪯ H``: for any gradient g

``gᵀ H⁻¹ g ≤ gᵀ M⁻¹ g``,

a bound on the gap that conjugate gradients compute anyway, and often far below ``‖g‖² / λ``. It holds of the squared
loss; all here is computed in float64.

The sum is not scaled up to n rows as it is elsewhere (``c SᵀS + λ I`` with ``c = n/s``: Rudi, Carratino and Rosasco
2017; Avron, Clarkson and Woodruff 2017). Factors do not matter to conjugate gradients, to which M is
``c SᵀS + c λ I``: the damping is that which a sample so small can support, for it tells little of directions whose
share of ZᵀZ is below ``c λ``. Where s is well above the effective dimension that makes little difference; where it is
below, the spectrum of ``M⁻¹H`` is far narrower, and the bound is up to c times nearer to the truth.

M is factored as it is if the sample has as many rows as there are features. Else it is the identity but for s
directions: ``M⁻¹ = (I − Sᵀ (SSᵀ + λ I)⁻¹ S) / λ`` (Woodbury).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import scipy.linalg as sl

from leyden.kernel.products import GRAM_TILE, gram_of

#: Sampled rows a feature at most, and where there are fewer than features.
SAMPLED, MOST_SAMPLED = 8, 10_000
#: Multiplications for the sample's Hessian beside the features of a pass: worth some passes, which are of memory.
WORTH = 128
#: Penalties that an s × s matrix is factored for one by one: of more, its eigenvectors take less time and memory.
MOST_FACTORED = 12
#: Features that are worked on in float64 at once.
CHUNK = 1024


class Preconditioner(ABC):
    """``M⁻¹`` for each of some penalties.

    Attributes
    ----------
    below : bool
        Whether ``M ⪯ H``.
    """

    below: bool

    @abstractmethod
    def __call__(self, r: np.ndarray, which: np.ndarray) -> np.ndarray:
        """``M⁻¹ r``, column by column of ``r`` (D, k), each for the penalty of that number."""


def sampled(n: int, size: int) -> int:
    """Rows of the sample, of ``n`` in all, for ``size`` features: its Hessian takes no longer than some passes.

    ``s D min(s, D)`` multiplications sum it, where a pass makes ``n D`` features.
    """
    rows = max(math.sqrt(WORTH * n), WORTH * n / size)
    return int(min(n, SAMPLED * size, rows if rows >= size else min(rows, MOST_SAMPLED)))


def nbytes(rows: int, size: int, penalties: int) -> int:
    """Memory of the sample's features, of M for some penalties, and of making it."""
    order = min(rows, size)
    kept = penalties if rows >= size or penalties <= MOST_FACTORED else 3
    return 4 * rows * size + 8 * order**2 * max(kept, 2) + 8 * GRAM_TILE * order


def of_sample(s: np.ndarray, up: float, penalties: np.ndarray, threads: int) -> Preconditioner:
    """``M = up SᵀS + λ I`` in the form that takes least.

    Parameters
    ----------
    s : float32, shape (s, D)
    up : float
        1 of squared loss. Of others the sample may be scaled up, since no bound rests on it.
    penalties : float64, shape (p,)
        λ.
    threads : int
    """
    kind = Factored if s.shape[0] >= s.shape[1] else Woodbury
    return kind(s, up, penalties, threads)


class Factored(Preconditioner):
    """Cholesky factors of M, one a penalty."""

    def __init__(self, s: np.ndarray, up: float, penalties: np.ndarray, threads: int):
        self.below = up <= 1
        gram = gram_of(s, threads)
        gram *= up
        self.factors = []
        for number, penalty in enumerate(penalties):
            last = number + 1 == len(penalties)
            factor, added = cholesky(gram if last else gram.copy(), penalty)
            self.factors.append(factor)
            self.below &= bool(added == penalty)

    def __call__(self, r: np.ndarray, which: np.ndarray) -> np.ndarray:
        out = np.empty_like(r)
        for number, factor in enumerate(self.factors):
            columns = which == number
            if columns.any():
                out[:, columns] = sl.cho_solve(factor, r[:, columns], check_finite=False)
        return out


class Diagonal(Preconditioner):
    """The diagonal of ``ZᵀZ + λ I``: of sparse features, which share few rows.

    Parameters
    ----------
    diagonal : float64, shape (D,)
    penalties : float64, shape (p,)
    """

    below = False

    def __init__(self, diagonal: np.ndarray, penalties: np.ndarray):
        self.diagonal, self.penalties = diagonal, penalties

    def __call__(self, r: np.ndarray, which: np.ndarray) -> np.ndarray:
        return r / (self.diagonal[:, None] + self.penalties[which])


class Shifted(Preconditioner):
    """The Hessian of all rows, in float32 sums, factored for one penalty after the other in the memory of the matrix.

    Parameters
    ----------
    gram : float64, shape (D, D)
        Whose lower triangle counts; the other one holds the factor.
    penalties : float64, shape (p,)
    """

    #: All rows are in it, but to rounding: no bound rests on it.
    below = False

    def __init__(self, gram: np.ndarray, penalties: np.ndarray):
        self.gram, self.penalties = gram, penalties
        self.diagonal = gram.diagonal().copy()
        self._factored = -1

    def factor(self, number: int) -> tuple[np.ndarray, bool]:
        """The Cholesky factor for a penalty, which the next one overwrites."""
        if self._factored != number:
            self.gram[np.diag_indices(len(self.gram))] = self.diagonal
            cholesky(self.gram, float(self.penalties[number]))
            self._factored = number
        return self.gram.T, True

    def __call__(self, r: np.ndarray, which: np.ndarray) -> np.ndarray:
        out = np.empty_like(r)
        for number in range(len(self.penalties)):
            columns = which == number
            if columns.any():
                out[:, columns] = sl.cho_solve(self.factor(number), r[:, columns], check_finite=False)
        return out

    def freedom(self, number: int) -> float:
        """Effective degrees of freedom ``tr G (G + λ I)⁻¹ = D − λ tr (G + λ I)⁻¹``."""
        factor, _ = self.factor(number)
        total, size = 0.0, len(factor)
        # ‖L⁻¹‖², some columns of the inverse at a time.
        for first in range(0, size, CHUNK):
            last = min(first + CHUNK, size)
            identity = np.zeros((size - first, last - first), order="F")
            identity[np.arange(last - first), np.arange(last - first)] = 1
            part = sl.solve_triangular(
                factor[first:, first:], identity, lower=True, overwrite_b=True, check_finite=False
            )  # fmt: skip
            total += float(np.vdot(part, part))
        return size - float(self.penalties[number]) * total


class Woodbury(Preconditioner):
    """The inverse by that of an s × s matrix: factored for each of a few penalties, or diagonalised for many."""

    def __init__(self, s: np.ndarray, up: float, penalties: np.ndarray, threads: int):
        self.s, self.penalties, self.shifts, self.below = s, penalties, penalties / up, up <= 1
        outer = gram_of(s.T, threads)
        self.factors = []
        if len(penalties) <= MOST_FACTORED:
            for number, shift in enumerate(self.shifts):
                factor, added = cholesky(outer if number + 1 == len(penalties) else outer.copy(), float(shift))
                self.factors.append(factor)
                self.below &= bool(added == shift)
        else:
            self.values, self.vectors = sl.eigh(outer, overwrite_a=True, check_finite=False)

    def __call__(self, r: np.ndarray, which: np.ndarray) -> np.ndarray:
        image = self._times(r)
        if self.factors:
            inner = np.empty_like(image)
            for number, factor in enumerate(self.factors):
                columns = which == number
                inner[:, columns] = sl.cho_solve(factor, image[:, columns], check_finite=False)
        else:
            values = np.maximum(self.values, 0)[:, None] + self.shifts[which]
            inner = self.vectors @ ((self.vectors.T @ image) / values)
        return (r - self._transposed(inner)) / self.penalties[which]

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


def cholesky(a: np.ndarray, penalty: float) -> tuple[tuple[np.ndarray, bool], float]:
    """The factor of symmetric ``a + p I``, in the memory of ``a``, and p: the penalty, or more if rounding asks for it.

    The lower triangle of ``a``, without its diagonal, stays as it is.
    """
    diagonal, added = a.diagonal().copy(), penalty
    if not np.isfinite(diagonal).all():
        raise np.linalg.LinAlgError("the Gram matrix of the features is not finite")
    while True:
        mirror(a)
        a[np.diag_indices(len(a))] = diagonal + added
        _, failed = sl.lapack.dpotrf(a.T, lower=1, clean=0, overwrite_a=1)
        if not failed:
            return (a.T, True), added
        added = max(10 * added, 1e-14 * float(diagonal.sum()), np.finfo(float).tiny)


def mirror(a: np.ndarray) -> None:
    """Make the upper triangle that of the transpose of the lower one."""
    for first in range(0, len(a), CHUNK):
        last = min(first + CHUNK, len(a))
        a[first:last, last:] = a[last:, first:last].T
        corner = a[first:last, first:last]
        corner[:] = np.tril(corner) + np.tril(corner, -1).T
