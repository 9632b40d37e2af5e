r"""Nyström features: ``z(x) = L⁻¹ k(C, x)`` with centres C among the points, and ``L Lᵀ = k(C, C) + jitter``.

Then ``z(x)·z(y) = k(x, C) (k(C, C) + jitter)⁻¹ k(C, y)``, the kernel itself between centres and nowhere longer than it:
``‖z(x)‖² ≤ k(x, x)`` (Williams and Seeger 2001). A function of these features is one of the kernel's own space, its
projection on the span of the centres, and the features are as good as the spectrum of the kernel allows, where random
ones are wrong by ``D^-½``. A point costs D² for it.

=================  =============================================================================================
nystroem           centres are the pivots of a randomly pivoted Cholesky factorization of a sample's kernel
                   (:mod:`leyden.kernel.pivoted`; Chen, Epperly, Tropp and Webber 2022), which go where those before
                   them left most: nearly the best projection of that rank on average
nystroem-uniform   centres are drawn from the sample uniformly
=================  =============================================================================================

Centres that are equal are one. They are fewer than asked for where there are no more points, or where the pivots leave
nothing, and so are the features. The jitter is :data:`JITTER` times the mean of ``k(c, c)``; L and its inverse are of
float64, and the inverse is rounded to float32 and kept: the map is defined by it and the centres. Rounding may make a
feature longer than the kernel allows; it is then brought to that length.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.linalg as sl

from leyden.engine.local import single_threaded_blas
from leyden.engine.reduction import Scratch
from leyden.errors import OptionError
from leyden.kernel.features import FeatureMap
from leyden.kernel.frequencies import generator
from leyden.kernel.kernels import RADIAL, Kernel
from leyden.kernel.multiply import BLOCK, Matrix
from leyden.kernel.pivoted import DRAWN, factor
from leyden.kernel.points import Points, of_squares
from leyden.kernel.preconditioner import cholesky

NAMES = ("nystroem", "nystroem-uniform")

#: What is added to the diagonal of the kernel of the centres, relatively. Similarities of float32 are wrong by 1e-7,
#: which the inverse of L magnifies by no more than the root of its reciprocal.
JITTER = 1e-6
#: Points that pivots are chosen among, a centre and at least; and rounds that they are drawn in: those of one round do
#: not see one another.
CANDIDATES, LEAST, ROUNDS = 4, 5000, 32
#: Kernels that products of float32 are exact enough for; arccos0 is none of them, for it is steep where points meet.
SINGLE = (*RADIAL, "arccos1", "polynomial")
#: Which random numbers of a draw are its own.
WHAT = 10


class Nystroem(FeatureMap):
    """Features of some centres.

    Parameters
    ----------
    kernel : Kernel
    centres : float32, shape (D, d)
    inverse : float32, shape (D, D)
        That of L, lower triangular.
    name : {"nystroem", "nystroem-uniform"}
        How centres were drawn.
    """

    def __init__(self, kernel: Kernel, centres: np.ndarray, inverse: np.ndarray, name: str = "nystroem"):
        self.kernel, self.centres, self.inverse, self.name = kernel, centres, inverse, name
        self.size, self.inputs = centres.shape
        self.bound = 1 + 1e-6 if kernel.bounded else math.inf
        scaled = self._scale(centres)
        self._squares = (scaled**2).sum(axis=1).astype(np.float32)
        self._scaled = Matrix(scaled.T.astype(np.float32))
        self._triangle = Matrix(inverse.T, triangular=True)

    def fill(self, x: np.ndarray, out: np.ndarray, scratch: Scratch) -> None:
        for first in range(0, len(x), BLOCK):
            part, z = x[first : first + BLOCK], out[first : first + BLOCK]
            self._triangle.multiply(self._similarities(part, scratch), z, scratch)
            squares = np.einsum("ij,ij->i", z, z, dtype=np.float64)
            most = self.kernel.diagonal(part)
            long = squares > most
            z[long] *= np.sqrt(most[long] / squares[long])[:, None].astype(np.float32)

    def _scale(self, x: np.ndarray) -> np.ndarray:
        """Points whose inner products the kernel is of, float64."""
        u = x.astype(np.float64) / self.kernel.width
        return np.column_stack([u, np.ones(len(u))]) if self.kernel.name == "arccos1" else u

    def _similarities(self, x: np.ndarray, scratch: Scratch) -> np.ndarray:
        """``k(x, C)``, float32."""
        if self.kernel.name not in SINGLE:
            return self.kernel(x, self.centres).astype(np.float32)
        u = self._scale(x).astype(np.float32)
        found = scratch.array("similarities", (BLOCK, self.size), np.float32)[: len(x)]
        self._scaled.multiply(u, found, scratch)
        if self.kernel.name == "polynomial":
            found += np.float32(self.kernel.constant)
            return np.power(found, np.float32(self.kernel.degree), out=found)
        if self.kernel.name == "arccos1":
            return of_products(found, np.sqrt((u * u).sum(axis=1)), np.sqrt(self._squares))
        found *= -2
        found += (u * u).sum(axis=1)[:, None]
        found += self._squares
        return of_squares(self.kernel.name, np.maximum(found, 0, out=found))

    @property
    def nbytes(self) -> int:
        return self.inverse.nbytes + self.centres.nbytes + self._scaled.nbytes + self._triangle.nbytes

    @property
    def scratch_nbytes(self) -> int:
        return scratch_nbytes(self.size)

    @property
    def flops(self) -> float:
        return flops(self.inputs, self.size)

    def to_json(self) -> dict[str, Any]:
        return {"map": "nystroem", "draw": self.name, "kernel": self.kernel.to_json()}

    def arrays(self) -> dict[str, np.ndarray]:
        return {"centres": self.centres, "inverse": self.inverse}


def of_products(products: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The arc-cosine kernel of order 1 from inner products of points of lengths ``a`` and ``b``, in their memory.

    Its derivative by the cosine is ``π − θ``: it is as exact as that, though the angle is not.
    """
    cosines = products
    cosines /= a[:, None]
    cosines /= b
    np.clip(cosines, -1, 1, out=cosines)
    sines = np.sqrt((1 - cosines) * (1 + cosines))
    cosines *= np.float32(math.pi) - np.arccos(cosines)
    cosines += sines
    cosines *= a[:, None]
    cosines *= b / np.float32(math.pi)
    return cosines


def drawn(name: str, kernel: Kernel, size: int, seed: int, sample: np.ndarray | None) -> Nystroem:
    """The map of ``size`` centres at most, drawn from a sample of points (s, d); the same whatever the threads."""
    if sample is None or not len(sample):
        raise OptionError("Nyström features are of points, and there are none", hint="Give a sample of them.")
    order = generator(seed, 0, WHAT).permutation(len(sample))
    with single_threaded_blas():
        if name == "nystroem":
            sample = sample[order[: max(CANDIDATES * size, LEAST)]]
            rank = min(size, len(sample))
            _, chosen = factor(Points(kernel, sample), rank, seed, max(1, min(DRAWN, rank // ROUNDS)))
        else:
            chosen = order[:size]
        _, first = np.unique(sample[chosen], axis=0, return_index=True)
        centres = np.ascontiguousarray(sample[chosen[np.sort(first)]], np.float32)
        similar = kernel(centres, centres)
        (lower, _), _ = cholesky(similar, JITTER * float(similar.diagonal().mean()))
        inverse, _ = sl.lapack.dtrtri(lower, lower=1, overwrite_c=1)
    return Nystroem(kernel, centres, np.tril(inverse).astype(np.float32), name)


def flops(inputs: int, size: int) -> float:
    """For the features of a point."""
    return size * (size + 2.0 * inputs + 40)


def drawing_flops(name: str, inputs: int, size: int, sample: int) -> float:
    """For the centres and the inverse, in float64 by one thread."""
    candidates = min(sample, max(CANDIDATES * size, LEAST)) if name == "nystroem" else 0
    return float(size) ** 3 + candidates * size * (size + 2.0 * inputs + 40)


def kept_nbytes(inputs: int, size: int) -> float:
    """Memory of the map."""
    return 8.0 * size**2 + 12.0 * size * inputs


def drawing_nbytes(name: str, inputs: int, size: int, sample: int) -> float:
    """Memory that drawing takes beside the map."""
    candidates = min(sample, max(CANDIDATES * size, LEAST)) if name == "nystroem" else 0
    return 8.0 * candidates * (size + 64 + 3 * inputs) + 40.0 * size**2


def scratch_nbytes(size: int) -> int:
    """Memory of a thread's similarities and what they are made of."""
    return 40 * BLOCK * size
