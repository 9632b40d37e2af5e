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
#: Penalties that an s × s matrix is factored for one by one: of more, its eigenvectors take less time and memory.
MOST_FACTORED = 12
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
            factor, added = cholesky(gram if last else gram.copy(), penalty)
            self.factors.append(factor)
            if added > penalty:
                self.scale = np.inf

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

    scale = np.inf

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
    scale = np.inf

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


def woodbury_nbytes(rows: int, penalties: int) -> int:
    """Memory of the matrices of :class:`Woodbury`."""
    return 8 * rows**2 * (max(penalties, 2) if penalties <= MOST_FACTORED else 4)


class Woodbury(Preconditioner):
    """The inverse by that of an s × s matrix: factored for each of a few penalties, or diagonalised for many."""

    def __init__(self, s: np.ndarray, scale: float, penalties: np.ndarray, threads: int):
        self.s, self.penalties, self._factor = s, penalties / scale, scale
        outer = np.zeros((len(s), len(s)))
        for first in range(0, s.shape[1], CHUNK):
            part = s[:, first : first + CHUNK].astype(np.float64)
            outer += part @ part.T
        self.factors = []
        if len(penalties) <= MOST_FACTORED:
            for number, penalty in enumerate(self.penalties):
                factor, added = cholesky(outer if number + 1 == len(penalties) else outer.copy(), float(penalty))
                self.factors.append(factor)
                if added > penalty:
                    scale = np.inf
        else:
            self.values, self.vectors = sl.eigh(outer, overwrite_a=True, check_finite=False)
        self.scale = scale

    def __call__(self, r: np.ndarray, which: np.ndarray) -> np.ndarray:
        image = self._times(r)
        penalties = self.penalties[which]
        if self.factors:
            inner = np.empty_like(image)
            for number, factor in enumerate(self.factors):
                columns = which == number
                inner[:, columns] = sl.cho_solve(factor, image[:, columns], check_finite=False)
        else:
            inner = self.vectors @ ((self.vectors.T @ image) / (np.maximum(self.values, 0)[:, None] + penalties))
        return (r - self._transposed(inner)) / (penalties * self._factor)

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
