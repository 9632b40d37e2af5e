"""Kernels: similarities of points, exactly, and the distributions that their random features are drawn from.

A kernel that depends on the difference of two points alone is the characteristic function of a probability distribution
of frequencies (Bochner's theorem), so that the mean of ``cos(ω·(x − y))`` over frequencies drawn from it is the kernel
(Rahimi and Recht, "Random Features for Large-Scale Kernel Machines", 2007). With ``t = (x − y) / width``, column by
column:

==========  ======================================  ==========================================================
name        k(x, y)                                 frequencies, times the width
==========  ======================================  ==========================================================
gaussian    exp(−‖t‖²/2)                            normal
laplacian   exp(−‖t‖₁)                              Cauchy, each column by itself
matern12    exp(−‖t‖)                               Student's t of 1 degree of freedom, of all columns together
matern32    (1 + √3 ‖t‖) exp(−√3 ‖t‖)               the same of 3 degrees
matern52    (1 + √5 ‖t‖ + 5 ‖t‖²/3) exp(−√5 ‖t‖)    the same of 5 degrees
cauchy      Π 1/(1 + t_j²)                          Laplace's, each column by itself
==========  ======================================  ==========================================================

Those of norms (gaussian and matern) do not change when the points are turned: their frequencies may be orthogonal.

Others are of inner products of ``u = x / width`` and ``v = y / width``, and have features of their own:

==========  ======================================  ==========================================================
name        k(x, y)                                 features
==========  ======================================  ==========================================================
arccos0     1 − θ/π                                 steps (:mod:`leyden.kernel.arccos`)
arccos1     ‖u'‖ ‖v'‖ (sin θ + (π − θ) cos θ) / π   ramps (:mod:`leyden.kernel.arccos`)
polynomial  (u·v + constant)^degree                 :mod:`leyden.kernel.tensorsketch`
==========  ======================================  ==========================================================

with the angle θ of ``u' = (u, 1)`` and ``v' = (v, 1)`` (Cho and Saul, "Kernel Methods for Deep Learning", 2009).
Without the one more coordinate, points on a ray from the origin would be the same to arccos0, and multiples to arccos1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Kernels of the Euclidean distance, and the degrees of freedom of their frequencies.
RADIAL = {"gaussian": math.inf, "matern12": 1.0, "matern32": 3.0, "matern52": 5.0}
#: Products over the columns of a kernel of each.
PRODUCT = ("laplacian", "cauchy")

#: Kernels of differences, which have frequencies; and of inner products.
STATIONARY = (*RADIAL, *PRODUCT)
ARCCOS = ("arccos0", "arccos1")
INNER = (*ARCCOS, "polynomial")

NAMES = (*STATIONARY, *INNER)


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel and its widths.

    Parameters
    ----------
    name : str
        One of :data:`NAMES`.
    width : float or ndarray, shape (d,)
        One for all columns, or one for each.
    degree : int
    constant : float
        Zero or more; both of the polynomial kernel alone.
    """

    name: str
    width: float | np.ndarray = 1.0
    degree: int = 3
    constant: float = 1.0

    @property
    def radial(self) -> bool:
        """Whether it depends on the Euclidean norm of ``(x − y) / width``."""
        return self.name in RADIAL

    @property
    def stationary(self) -> bool:
        """Whether it depends on ``x − y``, and has frequencies."""
        return self.name in STATIONARY

    @property
    def bounded(self) -> bool:
        """Whether ``k(x, x) = 1`` for every x, where others grow without bound."""
        return self.stationary or self.name == "arccos0"

    def diagonal(self, x: np.ndarray) -> np.ndarray:
        """``k(x, x)`` of each row of ``x`` (n, d): float64 (n,)."""
        if self.bounded:
            return np.ones(len(x))
        squares = ((np.asarray(x, np.float64) / self.width) ** 2).sum(axis=1)
        return (squares + self.constant) ** self.degree if self.name == "polynomial" else squares + 1

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The kernel of each row of ``x`` (n, d) and each of ``y`` (m, d): float64 (n, m)."""
        from scipy.spatial.distance import cdist

        u, v = np.asarray(x, np.float64) / self.width, np.asarray(y, np.float64) / self.width
        if self.name == "cauchy":
            found = np.ones((len(u), len(v)))
            for a, b in zip(u.T, v.T, strict=True):
                found /= 1 + np.subtract.outer(a, b) ** 2
            return found
        if self.name == "polynomial":
            return (u @ v.T + self.constant) ** self.degree
        if self.name in ARCCOS:
            return self._of_angles(u, v)
        if self.name == "laplacian":
            return np.exp(-cdist(u, v, "cityblock"))
        distance = cdist(u, v)
        if self.name == "gaussian":
            return np.exp(-(distance**2) / 2)
        if self.name == "matern12":
            return np.exp(-distance)
        if self.name == "matern32":
            distance *= math.sqrt(3)
            return (1 + distance) * np.exp(-distance)
        distance *= math.sqrt(5)
        return (1 + distance + distance**2 / 3) * np.exp(-distance)

    def _of_angles(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """The arc-cosine kernels, by angles that are as exact near zero and π as between (Kahan)."""
        from scipy.spatial.distance import cdist

        a, b = (np.column_stack([points, np.ones(len(points))]) for points in (u, v))
        lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
        a, b = a / lengths[0][:, None], b / lengths[1][:, None]
        angle = 2 * np.arctan2(cdist(a, b), cdist(a, -b))
        if self.name == "arccos0":
            return 1 - angle / math.pi
        return np.multiply.outer(*lengths) * (np.sin(angle) + (math.pi - angle) * np.cos(angle)) / math.pi

    def distances(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """What the kernel falls with, before widths, of pairs of rows (n, d): ℓ₁ of products, ℓ₂ of the others."""
        t = np.abs(np.asarray(x, np.float64) - y)
        return t.sum(axis=1) if self.name in PRODUCT else np.sqrt((t * t).sum(axis=1))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        width = self.width if np.ndim(self.width) == 0 else np.asarray(self.width).tolist()
        own = {"degree": self.degree, "constant": self.constant} if self.name == "polynomial" else {}
        return {"name": self.name, "width": width, **own}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Kernel:
        """Inverse of :meth:`to_json`."""
        width = data["width"]
        return cls(**{**data, "width": np.array(width) if isinstance(width, list) else width})
