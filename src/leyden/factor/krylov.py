r"""Block Lanczos on H = BᵀB: a Krylov space grown by one pass over the rows a block.

The space is kept with the images of all its vectors and fully reorthogonalised, so that Rayleigh-Ritz over the whole
space, the residual of every Ritz pair, and a thick restart (K. Wu, H. Simon, SIAM J. Matrix Anal. Appl. 22, 2000) cost
no pass. Of all methods that see H only through products with blocks, none gets further with the same passes (C. Musco,
C. Musco, "Randomized block Krylov methods for stronger and faster approximate singular value decomposition", 2015).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from leyden.rows.generated import philox

#: Directions whose length, relative to H, is below this are rounding.
NEGLIGIBLE = 1e-13


def gaussian(d: int, width: int, seed: int) -> np.ndarray:
    """A Gaussian block (d, width)."""
    return philox(seed, 0).standard_normal((d, width))


def orthonormal(a: np.ndarray) -> np.ndarray:
    """Orthonormal basis of the range of a matrix of full column rank."""
    q: np.ndarray = np.linalg.qr(a)[0]
    return q


@dataclass(frozen=True)
class Pairs:
    """Ritz pairs of the space, in descending order: values, coordinates of the vectors, and norms of ``H w − θ w``."""

    theta: np.ndarray
    z: np.ndarray
    residual: np.ndarray

    def unconverged(self, k: int, tol: float) -> float:
        """The largest residual ``‖Bᵀu − σw‖`` of the k leading triplets, relative to ``tol σ_1``: one is small enough.

        As everywhere a vector with a small ``‖B w‖`` counts as one of a singular value of zero.
        """
        sigma = np.sqrt(np.maximum(self.theta[:k], 0.0))
        if len(sigma) < k or sigma[0] == 0:
            return 0.0 if len(sigma) >= k else math.inf
        with np.errstate(divide="ignore", invalid="ignore"):
            triplet = np.where(sigma > 0, self.residual[:k] / np.where(sigma > 0, sigma, 1.0), 0.0)
        return float(np.minimum(triplet, sigma).max() / (tol * sigma[0]))


class KrylovSpace:
    """An orthonormal basis, its image under H, and the next block to be added.

    Parameters
    ----------
    start : ndarray, shape (d, width)
    capacity : int
        Columns that there is room for.

    Attributes
    ----------
    steps : int
        Blocks of the Krylov space of ``start``; it stays what it was once the space is restarted.
    drift : float
        The space is the exact one of a matrix that differs from H by no more than this in the norm.
    """

    def __init__(self, start: np.ndarray, capacity: int):
        d, self.width = start.shape
        self.w = np.empty((d, capacity), order="F")
        self.s = np.empty((d, capacity), order="F")
        self._t = np.zeros((capacity, capacity))
        self.size, self.steps, self.drift, self._restarted = 0, 0, 0.0, False
        self.block = orthonormal(start)

    def add(self, image: np.ndarray, error: float = 0.0) -> None:
        """Take the image of :attr:`block` in, which is in error by at most ``error``, and make the next block."""
        count = self.block.shape[1]
        here = slice(self.size, self.size + count)
        self.w[:, here], self.s[:, here] = self.block, image
        self.size += count
        if not self._restarted:
            self.steps += 1
        w = self.w[:, : self.size]
        coefficients = w.T @ image
        self._t[: self.size, here], self._t[here, : self.size] = coefficients, coefficients.T
        left = image - w @ coefficients
        left -= w @ (w.T @ left)
        scale = float(np.abs(np.einsum("ij,ij->j", image, image)).max(initial=0.0)) ** 0.5
        q, r = _pivoted(left)
        sizes = np.abs(np.diag(r))
        keep = int((sizes > NEGLIGIBLE * max(scale, self._largest())).sum())
        dropped = float(np.linalg.norm(r[keep:]))
        keep = min(keep, len(w) - self.size)
        q = q[:, :keep]
        # What orthonormalisation leaves within the space, or loses, is as if H were another matrix.
        within = float(np.linalg.norm(w.T @ q)) if keep else 0.0
        self.drift = math.hypot(
            self.drift, math.hypot(dropped, within * float(np.linalg.norm(r))) + 1e-15 * scale + 2 * error
        )
        if within > 1e-14:
            q = orthonormal(q - w @ (w.T @ q))
        self.block = q

    def _largest(self) -> float:
        return float(np.sqrt(np.einsum("ij,ij->j", self.s[:, : self.size], self.s[:, : self.size]).max(initial=0.0)))

    @property
    def invariant(self) -> bool:
        """Whether the space is mapped into itself: there is nothing to add."""
        return self.block.shape[1] == 0

    @property
    def full(self) -> bool:
        """Whether there is no room for the next block."""
        return self.size + self.block.shape[1] > self.w.shape[1]

    def pairs(self, k: int) -> Pairs:
        """The leading Ritz pairs, k and those that were asked for beside them."""
        w, s = self.w[:, : self.size], self.s[:, : self.size]
        values, z = np.linalg.eigh(self._t[: self.size, : self.size])
        leading = slice(None, -min(k, self.size) - 1, -1)
        values, z = values[leading], np.ascontiguousarray(z[:, leading])
        left = s @ z
        left -= (w @ z) * values
        return Pairs(values, z, np.linalg.norm(left, axis=0))

    def vectors(self, pairs: Pairs) -> np.ndarray:
        """The Ritz vectors, (d, k), orthonormal."""
        return orthonormal(self.w[:, : self.size] @ pairs.z)

    def restart(self, keep: int) -> None:
        """Go on with the ``keep`` leading Ritz vectors."""
        pairs = self.pairs(keep)
        keep = len(pairs.theta)
        w, s = self.w[:, : self.size] @ pairs.z, self.s[:, : self.size] @ pairs.z
        self.w[:, :keep], self.s[:, :keep] = w, s
        self._t[:keep, :keep] = np.diag(pairs.theta)
        self.size, self._restarted = keep, True


def _pivoted(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Q and R of a QR factorization in which the longest remaining column comes first."""
    from scipy.linalg import qr

    q, r, _ = qr(a, mode="economic", pivoting=True, check_finite=False)
    return q, r
