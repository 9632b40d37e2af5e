r"""Features of polynomial kernels: ``z(x) = F⁻¹(F S₁u' ∘ … ∘ F S_p u')`` of ``u' = (x/width, √constant)``.

A count sketch S sends each coordinate to one of D places at random, with a random sign, and keeps inner products on
average (Charikar, Chen and Farach-Colton 2002). The circular convolution of the sketches of p vectors is the sketch of
their tensor product, whose coordinates it never sees, and Fourier transforms F make it of as many products (Pham and
Pagh, "Fast and Scalable Polynomial Kernels via Explicit Feature Maps", 2013). ``u'⊗…⊗u'`` has the inner products
``(u'·v')^p``, the kernel; those of its sketch have a variance of at most ``3^p ‖u'‖^{2p} ‖v'‖^{2p} / D``. A point costs
``p (d + D log D)``, and ``‖z(x)‖`` has no bound.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.fft as sf
import scipy.sparse as sp

from leyden.engine.reduction import Scratch
from leyden.errors import OptionError
from leyden.kernel.features import FeatureMap
from leyden.kernel.frequencies import generator
from leyden.kernel.kernels import Kernel

#: Points that are transformed at once, always: whole vectors of them, so that none is rounded otherwise.
BLOCK = 24
#: Which random numbers of a sketch are its own.
WHAT = 9


class TensorSketch(FeatureMap):
    """Sketches of the tensor powers of points.

    Parameters
    ----------
    kernel : Kernel
        Polynomial.
    inputs, size, seed : int

    Attributes
    ----------
    places : int32, shape (degree, d + 1)
        Of coordinates, in each sketch; the last one is that of the constant.
    signs : float32, shape (degree, d + 1)
    """

    name = "tensorsketch"

    def __init__(self, kernel: Kernel, inputs: int, size: int, seed: int = 0):
        if kernel.name != "polynomial":
            raise OptionError(
                f"tensor sketches are of polynomial kernels, not of the {kernel.name} kernel",
                hint='Ask for kernel="polynomial".',
            )
        self.kernel, self.inputs, self.size, self.seed = kernel, inputs, size, seed
        self.places = np.empty((kernel.degree, inputs + 1), np.int32)
        self.signs = np.empty((kernel.degree, inputs + 1), np.float32)
        for number in range(kernel.degree):
            random = generator(seed, number, WHAT)
            self.places[number] = random.integers(0, size, inputs + 1)
            self.signs[number] = random.choice([-1, 1], inputs + 1)
        self._factors = np.append(np.broadcast_to(1 / np.asarray(kernel.width, np.float64), inputs), 1.0)
        self._factors[-1] = math.sqrt(kernel.constant)
        self._sketches = [self._sketch(number) for number in range(kernel.degree)]

    def _sketch(self, number: int) -> sp.csr_array:
        """S of that number, times the factors of the coordinates: (D, d + 1)."""
        entries = self.signs[number] * self._factors
        where = self.places[number], np.arange(self.inputs + 1)
        return sp.csr_array((entries.astype(np.float32), where), shape=(self.size, self.inputs + 1))

    def fill(self, x: np.ndarray, out: np.ndarray, scratch: Scratch) -> None:
        u = scratch.array("lifted", (self.inputs + 1, BLOCK), np.float32)
        u[-1] = 1
        for first in range(0, len(x), BLOCK):
            part = x[first : first + BLOCK]
            u[:-1, : len(part)], u[:-1, len(part) :] = part.T, 0
            product = sf.rfft(self._sketches[0] @ u, axis=0, overwrite_x=True)
            for sketch in self._sketches[1:]:
                product *= sf.rfft(sketch @ u, axis=0, overwrite_x=True)
            z = sf.irfft(product, self.size, axis=0, overwrite_x=True)
            out[first : first + len(part)] = z.T[: len(part)]

    @property
    def nbytes(self) -> int:
        return self.places.nbytes + self.signs.nbytes + 12 * self.places.size + 4 * self.kernel.degree * self.size

    @property
    def scratch_nbytes(self) -> int:
        return scratch_nbytes(self.size)

    @property
    def flops(self) -> float:
        return flops(self.kernel.degree, self.inputs, self.size)

    def to_json(self) -> dict[str, Any]:
        return {
            "map": "tensorsketch", "kernel": self.kernel.to_json(), "inputs": self.inputs, "size": self.size,
            "seed": self.seed,
        }  # fmt: skip


def flops(degree: int, inputs: int, size: int) -> float:
    """For the features of a point."""
    return (degree + 1) * (2.5 * size * math.log2(size + 1) + 6.0 * size) + 2.0 * degree * inputs


def scratch_nbytes(size: int) -> int:
    """Memory of a thread's sketches and transforms."""
    return 24 * BLOCK * size
