r"""Features of arc-cosine kernels: ``z_k(x) = √(2/D) Θ(p_k) p_kⁿ`` of projections ``p_k = w_k·(x/width, 1)``.

With normal w_k the mean of ``2 Θ(w·u) (w·u)ⁿ Θ(w·v) (w·v)ⁿ`` is the arc-cosine kernel of order n (Cho and Saul 2009),
that of infinitely many units of a neural network's first layer: steps of order 0, and ramps of order 1. The one more
coordinate is the units' bias. The w_k are drawn as frequencies of a Gaussian kernel of d + 1 columns are
(:mod:`leyden.kernel.frequencies`), by default orthogonal in blocks: each is then still normal, and the mean the same.

Of order 0 at most all steps are up, and ``‖z(x)‖ ≤ √2``. Of order 1 ``‖z(x)‖`` grows as ``‖x‖`` does, without bound.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from leyden.engine.reduction import Scratch
from leyden.kernel.features import FeatureMap
from leyden.kernel.fourier import DRAWS
from leyden.kernel.kernels import Kernel
from leyden.kernel.multiply import BLOCK, Matrix


class ArcCos(FeatureMap):
    """Steps or ramps along random directions.

    Parameters
    ----------
    kernel : Kernel
        arccos0 or arccos1.
    inputs, size, seed : int
    draw : {"orthogonal", "plain", "qmc"}
    """

    def __init__(self, kernel: Kernel, inputs: int, size: int, seed: int = 0, draw: str = "orthogonal"):
        self.kernel, self.inputs, self.size, self.seed, self.name = kernel, inputs, size, seed, draw
        self.order = int(kernel.name == "arccos1")
        self.bound = math.inf if self.order else math.sqrt(2) * (1 + 1e-6)
        w = DRAWS[draw](Kernel("gaussian"), inputs + 1, size, seed)
        width = np.broadcast_to(np.asarray(kernel.width, np.float64), inputs)
        self._scale = np.float32(math.sqrt(2 / size))
        #: Directions of points before widths (d + 1, D), as long as features of order 1 have them.
        self.w = (w / np.append(width, 1)[:, None] * math.sqrt(2 / size)).astype(np.float32)
        self._matrix = Matrix(self.w)

    def fill(self, x: np.ndarray, out: np.ndarray, scratch: Scratch) -> None:
        lifted = scratch.array("lifted", (BLOCK, self.inputs + 1), np.float32)
        for first in range(0, len(x), BLOCK):
            part, z = x[first : first + BLOCK], out[first : first + BLOCK]
            u = lifted[: len(part)]
            u[:, :-1], u[:, -1] = part, 1
            self._matrix.multiply(u, z, scratch)
            if self.order:
                np.maximum(z, 0, out=z)
            else:
                np.multiply(z > 0, self._scale, out=z)

    @property
    def nbytes(self) -> int:
        return self.w.nbytes + self._matrix.nbytes

    @property
    def scratch_nbytes(self) -> int:
        return BLOCK * (self.size + 8 * (self.inputs + 1))

    @property
    def flops(self) -> float:
        return 2.0 * self.size * (self.inputs + 2)

    def to_json(self) -> dict[str, Any]:
        return {
            "map": "arccos", "draw": self.name, "kernel": self.kernel.to_json(), "inputs": self.inputs,
            "size": self.size, "seed": self.seed,
        }  # fmt: skip
