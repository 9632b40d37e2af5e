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

NAMES = (*RADIAL, *PRODUCT)


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel and its widths.

    Parameters
    ----------
    name : str
        One of :data:`NAMES`.
    width : float or ndarray, shape (d,)
        One for all columns, or one for each.
    """

    name: str
    width: float | np.ndarray = 1.0

    @property
    def radial(self) -> bool:
        """Whether it depends on the Euclidean norm of ``(x − y) / width``."""
        return self.name in RADIAL

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The kernel of each row of ``x`` (n, d) and each of ``y`` (m, d): float64 (n, m)."""
        from scipy.spatial.distance import cdist

        u, v = np.asarray(x, np.float64) / self.width, np.asarray(y, np.float64) / self.width
        if self.name == "cauchy":
            found = np.ones((len(u), len(v)))
            for a, b in zip(u.T, v.T, strict=True):
                found /= 1 + np.subtract.outer(a, b) ** 2
            return found
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

    def distances(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """What the kernel falls with, before widths, of pairs of rows (n, d): ℓ₁ of products, ℓ₂ of the others."""
        t = np.abs(np.asarray(x, np.float64) - y)
        return np.sqrt((t * t).sum(axis=1)) if self.radial else t.sum(axis=1)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"name": self.name, "width": self.width if np.ndim(self.width) == 0 else np.asarray(self.width).tolist()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Kernel:
        """Inverse of :meth:`to_json`."""
        width = data["width"]
        return cls(data["name"], np.array(width) if isinstance(width, list) else width)
