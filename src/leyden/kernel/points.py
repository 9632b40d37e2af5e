r"""The kernel of points with some that are kept: ``z(x) = (k(x, x_1) … k(x, x_n))``, of which exact machines are made.

Of float32, and of the Gaussian, a tile is one product of matrices and one exponential an entry:
``‖u − v‖² = ‖u‖² + ‖v‖² − 2 u·v``, of points over their widths, which are centred by standardisation. Others are of
sums of differences in float64, for the root of a square that was rounded is off by the root of what it is.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from leyden.engine.reduction import Scratch
from leyden.kernel.features import FeatureMap
from leyden.kernel.kernels import Kernel


class Points(FeatureMap):
    """Similarities with points that are kept.

    Parameters
    ----------
    kernel : Kernel
    points : float32, shape (n, d)
        Standardised.
    """

    name = "exact"

    def __init__(self, kernel: Kernel, points: np.ndarray):
        self.kernel, self.points = kernel, points
        self.size, self.inputs = points.shape
        self.bound = math.sqrt(self.size) if kernel.bounded else math.inf
        #: The largest ``k(x, x)`` of them.
        self.most = float(kernel.diagonal(points).max(initial=0.0))
        self.scaled = points.astype(np.float64) / kernel.width
        self.squares = (self.scaled**2).sum(axis=1)
        self.single = self.scaled.astype(np.float32), self.squares.astype(np.float32)

    def similarities(self, x: np.ndarray, dtype: Any = np.float64) -> np.ndarray:
        """The kernel of each row of ``x`` (m, d) and each point: (m, n) of float64, or of float32."""
        if not self.kernel.radial or (dtype == np.float64 and self.kernel.name != "gaussian"):
            return self.kernel(x, self.points).astype(dtype, copy=False)
        v, squares = (self.scaled, self.squares) if dtype == np.float64 else self.single
        u = (x.astype(np.float64) / self.kernel.width).astype(dtype, copy=False)
        found = u @ v.T
        found *= -2
        found += (u * u).sum(axis=1)[:, None]
        found += squares
        np.maximum(found, 0, out=found)
        return of_squares(self.kernel.name, found)

    def rounding(self) -> float:
        """What an entry of a tile of float64 may be off."""
        unit = float(np.finfo(float).eps)
        if self.kernel.name == "gaussian":  # It changes by half of what the square does.
            return (2 * (self.inputs + 4) * float(self.squares.max(initial=0.0)) + 8) * unit
        # Distances, angles and sums of magnitudes are relatively exact, and no kernel changes by more than four times
        # what they do, or the degree times.
        steep = self.kernel.degree if self.kernel.name == "polynomial" else 4
        return steep * (self.inputs + 8) * unit * self.most

    def fill(self, x: np.ndarray, out: np.ndarray, scratch: Scratch) -> None:
        out[:] = self.similarities(x)

    @property
    def nbytes(self) -> int:
        return 3 * self.scaled.nbytes + 16 * self.size

    @property
    def flops(self) -> float:
        return self.size * (2.0 * self.inputs + 30)

    def to_json(self) -> dict[str, Any]:
        return {"map": "points", "kernel": self.kernel.to_json()}

    def arrays(self) -> dict[str, np.ndarray]:
        return {"points": self.points}


def of_squares(name: str, squares: np.ndarray) -> np.ndarray:
    """A kernel of the Euclidean distance from squared distances over its width, in their memory."""
    if name == "gaussian":
        squares *= -0.5
        return np.exp(squares, out=squares)
    if name != "matern12":
        squares *= 3 if name == "matern32" else 5
    distances = np.sqrt(squares, out=squares)
    falling = np.exp(-distances)
    if name == "matern12":
        return falling
    if name == "matern52":
        falling *= 1 + distances + distances**2 / 3
    else:
        falling *= 1 + distances
    return falling
