"""Anderson acceleration of a descent map, which never lets the objective rise.

Of the last maps ``g_k = G(x_k)`` with residuals ``f_k = g_k − x_k`` the next point is the affine combination of the
``g_k`` whose residual is least (D. Anderson 1965; H. Walker, P. Ni, "Anderson acceleration for fixed-point iterations",
SIAM J. Numer. Anal. 49, 2011). Its objective comes with the next application of the map: if that is above what the
plain step had reached, the step is taken back and the history forgotten.
"""

from __future__ import annotations

import numpy as np

#: Differences that are kept.
DEPTH = 4

#: Singular values of the differences below this share of the largest are noise.
NOISE = 1e-6


class Anderson:
    """The points and maps of the last steps.

    Parameters
    ----------
    depth : int
        Differences kept; 0 gives the plain map.
    """

    def __init__(self, depth: int = DEPTH):
        self.depth = depth
        self._x: list[np.ndarray] = []
        self._f: list[np.ndarray] = []

    def next(self, x: np.ndarray, mapped: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The next point after ``x`` was mapped; ``weights`` (rows,) are those of the norm of residuals."""
        if self.depth == 0:
            return mapped
        root = np.sqrt(weights)[:, None].astype(x.dtype)
        self._x.append(x.copy())
        self._f.append(mapped - x)
        if len(self._x) > self.depth + 1:
            del self._x[0], self._f[0]
        if len(self._x) < 2:
            return mapped
        f = self._f[-1]
        differences = [f - older for older in self._f[:-1]]
        scaled = [root * difference for difference in differences]
        gram = np.array([[np.vdot(a, b) for b in scaled] for a in scaled], np.float64)
        right = np.array([np.vdot(a, root * f) for a in scaled], np.float64)
        values, vectors = np.linalg.eigh(gram)
        good = values > NOISE * max(values[-1], 1e-300)
        gamma = vectors[:, good] @ ((vectors[:, good].T @ right) / values[good])
        point = mapped.copy()
        for weight, difference, older in zip(gamma, differences, self._x[:-1], strict=True):
            point -= x.dtype.type(weight) * (x - older + difference)
        return point

    def forget(self) -> None:
        """Begin anew."""
        self._x.clear()
        self._f.clear()
