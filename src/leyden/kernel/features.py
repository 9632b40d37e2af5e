"""Feature maps: ``z(x)`` whose inner products are a kernel, on average over the draw or nearly.

A map is a plain value that knows how to fill a tile of float32 features from a tile of points. Nothing that is as long
as the data is ever made: machines ask for the same tiles again in every pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from leyden.engine.reduction import Scratch


class Tile(ABC):
    """Features of some points, sparse: what passes need of them.

    Attributes
    ----------
    shape : (int, int)
        Points, and features.
    nbytes : int
    indices : int32, shape (m, nonzeros)
        Which features of each point are not zero, in order.
    """

    shape: tuple[int, int]
    nbytes: int
    indices: np.ndarray

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def times(self, w: np.ndarray) -> np.ndarray:
        """``Z w`` (m, k), of the type of w (D, k)."""

    @abstractmethod
    def add_transposed(self, q: np.ndarray, total: np.ndarray) -> None:
        """Add ``Zᵀ q`` to ``total`` (D, k)."""

    @abstractmethod
    def add_squares(self, total: np.ndarray, weight: np.ndarray | None = None) -> None:
        """Add the diagonal of ``ZᵀZ``, of points with weights (m,), to ``total`` (D,)."""

    @property
    @abstractmethod
    def squares(self) -> np.ndarray:
        """``‖z‖²`` of each point (m,)."""


def times(z: np.ndarray | Tile, w: np.ndarray) -> np.ndarray:
    """``Z w``."""
    return z.times(w) if isinstance(z, Tile) else z @ w


def add_transposed(z: np.ndarray | Tile, q: np.ndarray, total: np.ndarray) -> None:
    """Add ``Zᵀ q`` to ``total``."""
    if isinstance(z, Tile):
        z.add_transposed(q, total)
    else:
        total += z.T @ q.astype(z.dtype, copy=False)


def squares(z: np.ndarray | Tile) -> np.ndarray:
    """``‖z‖²`` of each point."""
    return z.squares if isinstance(z, Tile) else np.einsum("ij,ij->i", z, z)


class FeatureMap(ABC):
    """A map of points to features.

    Attributes
    ----------
    name : str
    inputs : int
        Columns of a point, d.
    size : int
        Features of it, D.
    bound : float
        What ``‖z(x)‖`` stays below for every x; infinity if nothing does.
    sparse : bool
        Whether few features of a point are other than zero, ``nonzeros`` of them: a tile is then no array.
    value : float
        What those are, of a sparse map.
    """

    name: str
    inputs: int
    size: int
    bound: float = np.inf
    sparse: bool = False
    nonzeros: int
    value: float

    @abstractmethod
    def fill(self, x: np.ndarray, out: np.ndarray, scratch: Scratch) -> None:
        """The features of the rows of ``x`` (m, d) into ``out`` (m, D): float32, rows contiguous.

        ``scratch`` belongs to the thread that calls.
        """

    def tile(self, x: np.ndarray, scratch: Scratch) -> Tile:
        """The features of the rows of ``x`` (m, d), of a sparse map."""
        raise NotImplementedError

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Memory that the map takes."""

    @property
    def scratch_nbytes(self) -> int:
        """Memory that a thread takes to fill tiles, beside them and two copies of their points."""
        return 0

    @property
    @abstractmethod
    def flops(self) -> float:
        """Floating-point operations for the features of a point."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Plain values from which, with :meth:`arrays`, :func:`restore` makes it again."""

    def arrays(self) -> dict[str, np.ndarray]:
        """Numbers that a seed cannot make again: points of the data that it was made from."""
        return {}

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Features of some points, float32 (m, D)."""
        x = np.ascontiguousarray(x, np.float32)
        out = np.empty((len(x), self.size), np.float32)
        self.fill(x, out, Scratch())
        return out
