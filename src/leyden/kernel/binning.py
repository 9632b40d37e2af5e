r"""Random binning: each point falls into one bin of every one of P random grids, and points in the same bin are alike.

A grid has its own pitch δ_j and shift along each column. Two points are in the same cell of it with probability
``Π_j max(0, 1 − |t_j|/δ_j)`` over the shifts, and if the pitch is drawn with density ``δ k''(δ)`` that is
``k(t) = Π_j k_j(t_j)`` on average (Rahimi and Recht 2007). For the Laplacian kernel ``exp(−|t|/width)`` the pitch has
a Gamma distribution of shape 2 and scale ``width``. The features of a point are ``1/√P`` in the bins it falls into and
zero in all others; the variance of their inner product is ``k (1 − k) / P``.

Bins are numbered by a hash of their coordinates, into some times as many slots as a sample of the points needs. Two
bins of a grid share a slot with probability 1/slots, which adds that much to the kernel of points that share none, and
no more: signs, which would take it away on average, are not worth their cost.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from leyden.engine.reduction import Scratch
from leyden.errors import OptionError
from leyden.kernel import _binning_kernels
from leyden.kernel.features import FeatureMap, Tile
from leyden.kernel.frequencies import generator
from leyden.kernel.kernels import Kernel

kernels: Any = _binning_kernels

#: Logarithm of the slots of a grid: at least, at most, and slots for each bin that a sample of points is in.
LEAST_BITS, BITS, ROOM = 10, 18, 4
#: Grids that are looked at for that.
PROBED = 8

#: Which random numbers of a grid's are its own.
WHAT = 7


class Binning(FeatureMap):
    """Bins of random grids, for the Laplacian kernel.

    Parameters
    ----------
    kernel : Kernel
    inputs : int
    grids : int
        P.
    seed : int
    bits : int
        Each grid has ``2**bits`` slots.
    """

    name = "binning"
    sparse = True
    bound = 1.0 + 1e-6

    def __init__(self, kernel: Kernel, inputs: int, grids: int, seed: int = 0, bits: int = BITS):
        if kernel.name != "laplacian":
            raise OptionError(
                f"random bins are of the Laplacian kernel, not of the {kernel.name} kernel",
                hint='Ask for kernel="laplacian".',
            )
        self.kernel, self.inputs, self.grids, self.seed, self.bits = kernel, inputs, grids, seed, bits
        self.size, self.nonzeros = grids << bits, grids
        self.value = 1 / math.sqrt(grids)
        width = np.broadcast_to(np.asarray(kernel.width, np.float64), inputs)
        #: Reciprocal pitch, shift in cells, and multiplier of the hash, of each grid and column.
        self.inverse = np.empty((grids, inputs), np.float32)
        self.shift = np.empty((grids, inputs), np.float32)
        self.multiplier = np.empty((grids, inputs), np.uint32)
        for grid in range(grids):
            random = generator(seed, grid, WHAT)
            self.inverse[grid] = 1 / np.maximum(random.gamma(2.0, width), 1e-30 * width)
            self.shift[grid] = random.random(inputs)
            self.multiplier[grid] = random.integers(0, 2**31, inputs) * 2 + 1

    def places(self, x: np.ndarray, out: np.ndarray, scratch: Scratch) -> None:
        """The features of the rows of ``x`` (m, d), float32, that are not zero: int32 ``out`` (P, m)."""
        columns = scratch.array("columns", (self.inputs, out.shape[1]), np.float32)[:, : len(x)]
        columns[:] = x.T
        kernels.bins(columns, self.inverse, self.shift, self.multiplier, self.bits, out)

    def tile(self, x: np.ndarray, scratch: Scratch) -> Tile:
        """The features of the rows of ``x`` (m, d), as places."""
        places = np.empty((self.grids, len(x)), np.int32)
        self.places(x, places, scratch)
        return Bins(places, self.value, self.size)

    def fill(self, x: np.ndarray, out: np.ndarray, scratch: Scratch) -> None:
        out[:] = 0
        places = np.empty((self.grids, len(x)), np.int32)
        self.places(x, places, scratch)
        out[np.arange(len(x)), places] = self.value

    @property
    def nbytes(self) -> int:
        return self.inverse.nbytes + self.shift.nbytes + self.multiplier.nbytes

    @property
    def flops(self) -> float:
        return 6.0 * self.grids * self.inputs

    def to_json(self) -> dict[str, Any]:
        return {
            "map": "binning", "kernel": self.kernel.to_json(), "inputs": self.inputs, "grids": self.grids,
            "seed": self.seed, "bits": self.bits,
        }  # fmt: skip


def bits_for(kernel: Kernel, inputs: int, grids: int, seed: int, sample: np.ndarray) -> int:
    """The logarithm of how many slots a grid should have, from a sample of points (s, d)."""
    probe = Binning(kernel, inputs, min(grids, PROBED), seed, 24)
    places = np.empty((probe.grids, len(sample)), np.int32)
    probe.places(np.asarray(sample, np.float32), places, Scratch())
    occupied = max(len(np.unique(row)) for row in places)
    return int(np.clip(math.ceil(math.log2(ROOM * occupied)), LEAST_BITS, BITS))


class Bins(Tile):
    """Features of some points that are ``value`` at the places (P, m), and zero elsewhere."""

    def __init__(self, places: np.ndarray, value: float, size: int):
        self.places, self.value, self.shape = places, value, (places.shape[1], size)
        self.indices = places.T
        self.nbytes = places.nbytes
        self.indices = places.T

    def times(self, w: np.ndarray) -> np.ndarray:
        out = np.zeros((len(self), w.shape[1]), w.dtype)
        kernels.gather(self.places, w.dtype.type(self.value), w, out)
        return out

    def add_transposed(self, q: np.ndarray, total: np.ndarray) -> None:
        kernels.scatter(self.places, self.value, np.ascontiguousarray(q, total.dtype), total)

    def add_squares(self, total: np.ndarray, weight: np.ndarray | None = None) -> None:
        weight = np.ones(len(self)) if weight is None else weight.astype(np.float64)
        kernels.scatter(self.places, self.value**2, weight[:, None], total[:, None])

    @property
    def squares(self) -> np.ndarray:
        # P times 1/P.
        return np.ones(len(self))
