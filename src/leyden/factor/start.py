"""Where a factorization begins: the directions in which the ratings themselves are largest."""

from __future__ import annotations

from typing import Any

import numpy as np

from leyden import aligned
from leyden.engine.reduction import Reduction, Scratch
from leyden.engine.sweep import Engine
from leyden.factor import _als_kernels
from leyden.factor.half_step import padded
from leyden.factor.krylov import gaussian
from leyden.factor.objective import Objective
from leyden.rows.base import Block, Rows

kernels: Any = _als_kernels

#: Passes: the more, the shorter is what hardly stands out.
POWERS = 2


class StartImage(Reduction[np.ndarray, np.ndarray]):
    """``GᵀG X`` with ``G = −∇ℓ(0)``, which is ``ω τ`` where there are ratings."""

    def __init__(self, objective: Objective, x: np.ndarray, size: float, dtype: Any = np.float32):
        self.form = objective.whole[2:] / size
        self.x = aligned.copy(x, dtype)
        self._scratch = Scratch()

    @property
    def state_nbytes(self) -> int:
        return self.x.nbytes

    def start(self) -> np.ndarray:
        return aligned.zeros(self.x.shape, self.x.dtype)

    def update(self, state: np.ndarray, block: Block) -> np.ndarray:
        data: Any = block.data
        y = self._scratch.array("y", (1, self.x.shape[1]), self.x.dtype)
        kernels.image(np.asarray(data.indptr, np.int64), data.indices, data.data, self.form, self.x, state, y)
        return state

    def merge(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a += b
        return a

    def finish(self, state: np.ndarray) -> np.ndarray:
        return state


def spectral(engine: Engine, rows: Rows, objective: Objective, rank: int, size: float, seed: int) -> np.ndarray:
    """``(GᵀG)² Ω`` of a Gaussian Ω (items, rank), as long as a random start whose leading direction is three times so.

    The columns span the leading right singular vectors of G nearly (N. Halko, P. Martinsson, J. Tropp, SIAM Review 53,
    2011), and are the longer in a direction the more of G it holds. Epochs from there find what stands out before they
    find noise.

    Parameters
    ----------
    size : float
        Root mean square of the ratings.
    """
    items = rows.shape[1]
    x = np.zeros((items, padded(rank)))
    x[:, :rank] = gaussian(items, rank, seed)
    for k in range(POWERS):
        (image,) = engine.sweep(rows, [StartImage(objective, x, size or 1.0)], f"start {k + 1}")
        x = image.astype(np.float64)
        x /= np.abs(x).max() or 1.0
    x = x[:, :rank]
    longest = float(np.linalg.norm(x, 2))
    return x * (3 * np.sqrt(items) / longest) if longest else x
