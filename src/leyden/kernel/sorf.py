r"""Structured orthogonal Fourier features: random rotations that cost ``log p`` operations a frequency instead of d.

The frequencies of a block are the rows of ``L H S₃ H S₂ H S₁`` of size p, the power of two from d on: H the Hadamard
matrix over √p, whose product with a vector takes ``p log₂ p`` additions; S random signs; L the lengths that
independent frequencies would have (:mod:`leyden.kernel.frequencies`). Points are filled up with zeros. The product of
three is close to a random rotation (Yu, Suresh, Choromanski, Holtmann-Rice and Kumar 2016, who give every row the
length √p): the features of :class:`leyden.kernel.fourier.Fourier` with ``draw="orthogonal"``, at a price that does not
grow with the columns. Their mean is the kernel only nearly: it lacks of the order of 1/p of it, which is why p is 64
at least.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from leyden import aligned
from leyden.engine.reduction import Scratch
from leyden.errors import OptionError
from leyden.kernel import _sorf_kernels
from leyden.kernel._fourier_vectors import LANES
from leyden.kernel._sorf_vectors import CHUNK, TRANSFORMS
from leyden.kernel.features import FeatureMap
from leyden.kernel.frequencies import generator, stretch
from leyden.kernel.kernels import Kernel

kernels: Any = _sorf_kernels

#: The least size of a block.
LEAST = 64

#: Which random numbers of a block are its own.
WHAT = 9


class Sorf(FeatureMap):
    """Sines and cosines at frequencies that are structured and orthogonal.

    Parameters
    ----------
    kernel : Kernel
        Of the Euclidean distance.
    inputs : int
    size : int
        Even.
    seed : int
    """

    name = "sorf"
    bound = 1.0 + 1e-6

    def __init__(self, kernel: Kernel, inputs: int, size: int, seed: int = 0):
        if size < 2 or size % 2:
            raise OptionError(
                f"{size} Fourier features are not pairs of a sine and a cosine",
                hint=f"Ask for {max(2, size + size % 2)}.",
            )
        if not kernel.radial:
            raise OptionError(
                f"the {kernel.name} kernel changes when points are turned: its frequencies cannot be orthogonal",
                hint='Ask for "plain" or "qmc" features.',
            )
        self.kernel, self.inputs, self.size, self.seed = kernel, inputs, size, seed
        self.frequencies = size // 2
        self.block = max(LEAST, 1 << (inputs - 1).bit_length())
        blocks = -(-self.frequencies // self.block)
        self.signs = aligned.empty((blocks, TRANSFORMS, self.block), np.float32)
        self.lengths = aligned.empty((blocks, self.block), np.float32)
        for b in range(blocks):
            random = generator(seed, b, WHAT)
            self.signs[b] = 2 * random.integers(0, 2, (TRANSFORMS, self.block)) - 1
            lengths = np.sqrt(random.chisquare(self.block, self.block)) * stretch(kernel, random, self.block)
            # In half turns; each transform lacks 1/√p.
            self.lengths[b] = lengths / (math.pi * self.block ** (TRANSFORMS / 2))
        self.inverse = np.broadcast_to(1 / np.asarray(kernel.width, np.float64), inputs).astype(np.float32)
        self._scale = np.float32(1 / math.sqrt(self.frequencies))

    def fill(self, x: np.ndarray, out: np.ndarray, scratch: Scratch) -> None:
        lines = scratch.array("lines", (2, max(self.block, CHUNK)), np.float32)
        spare = scratch.array("spare", (1, 2 * LANES), np.float32)
        kernels.features(
            x, self.inverse, self.signs, self.lengths, self.frequencies, self._scale, out, lines[0], lines[1], spare
        )

    @property
    def nbytes(self) -> int:
        return self.signs.nbytes + self.lengths.nbytes

    @property
    def flops(self) -> float:
        return self.frequencies * (TRANSFORMS * (math.log2(self.block) + 1) + 30.0)

    def to_json(self) -> dict[str, Any]:
        return {
            "map": "sorf", "kernel": self.kernel.to_json(), "inputs": self.inputs, "size": self.size, "seed": self.seed,
        }  # fmt: skip
