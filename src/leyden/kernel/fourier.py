r"""Fourier features: ``z(x) = [cos(ω₁·x) … cos(ω_f·x) | sin(ω₁·x) … sin(ω_f·x)] / √f``.

Then ``z(x)·z(y) = mean_k cos(ω_k·(x − y))``, and ``‖z(x)‖ = 1`` for every x. Of D features its variance is
``(1 + k(2t) − 2 k(t)²) / D`` with ``t = x − y``. The form ``√(2/D) cos(ω·x + b)`` with random phases b has
``(1 + k(2t)/2 − k(t)²) / D`` (Sutherland and Schneider 2015), which does not vanish at t = 0: for the Gaussian kernel
it is 137 times larger at a quarter of a width, and 1.75 times at a whole one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from leyden.engine.reduction import Scratch
from leyden.errors import OptionError
from leyden.kernel import _fourier_kernels, frequencies
from leyden.kernel._fourier_vectors import PANEL, TILE_ROWS
from leyden.kernel.features import FeatureMap
from leyden.kernel.kernels import Kernel

kernels: Any = _fourier_kernels

DRAWS = {"orthogonal": frequencies.orthogonal, "plain": frequencies.plain, "qmc": frequencies.quasi}


class Fourier(FeatureMap):
    """Sines and cosines at random frequencies.

    Parameters
    ----------
    kernel : Kernel
    inputs : int
    size : int
        Even: each frequency gives two features.
    seed : int
    draw : {"orthogonal", "plain", "qmc"}
        See :mod:`leyden.kernel.frequencies`.
    """

    bound = 1.0 + 1e-6  # Of float32 features.

    def __init__(self, kernel: Kernel, inputs: int, size: int, seed: int = 0, draw: str = "orthogonal"):
        if size < 2 or size % 2:
            raise OptionError(
                f"{size} Fourier features are not pairs of a sine and a cosine",
                hint=f"Ask for {max(2, size + size % 2)}.",
            )
        if not kernel.stationary:
            raise OptionError(
                f"the {kernel.name} kernel does not depend on differences alone: it has no frequencies",
                hint="Leave map out.",
            )
        if draw == "orthogonal" and not kernel.radial:
            raise OptionError(
                f"the {kernel.name} kernel changes when points are turned: its frequencies cannot be orthogonal",
                hint='Ask for "plain" or "qmc" features.',
            )
        self.kernel, self.inputs, self.size, self.seed, self.name = kernel, inputs, size, seed, draw
        self.frequencies = size // 2
        w = DRAWS[draw](kernel, inputs, self.frequencies, seed)
        #: Frequencies in half turns, (d, f).
        self.w = (w / math.pi).astype(np.float32)
        self._panels = kernels.panels(self.w)
        self._scale = np.float32(1 / math.sqrt(self.frequencies))

    def fill(self, x: np.ndarray, out: np.ndarray, scratch: Scratch) -> None:
        m, d = x.shape
        packed = scratch.array("packed", (-(-m // TILE_ROWS), d, TILE_ROWS), np.float32)
        kernels.pack(x, packed)
        spare = scratch.array("spare", (TILE_ROWS, 2 * PANEL), np.float32)
        kernels.fourier(packed, m, self._panels, self.frequencies, self._scale, out, spare)

    @property
    def block(self) -> int:
        """Frequencies that are drawn together, and are not independent."""
        return self.inputs if self.name == "orthogonal" else 1

    @property
    def nbytes(self) -> int:
        return self.w.nbytes + self._panels.nbytes

    @property
    def flops(self) -> float:
        return self.frequencies * (2.0 * self.inputs + 30)

    def to_json(self) -> dict[str, Any]:
        return {
            "map": "fourier", "draw": self.name, "kernel": self.kernel.to_json(), "inputs": self.inputs,
            "size": self.size, "seed": self.seed,
        }  # fmt: skip
