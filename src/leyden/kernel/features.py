"""Feature maps: ``z(x)`` whose inner products are a kernel, on average over the draw or nearly.

A map is a plain value that knows how to fill a tile of float32 features from a tile of points. Nothing that is as long
as the data is ever made: machines ask for the same tiles again in every pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from leyden.engine.reduction import Scratch


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
        Whether few features of a point are other than zero: then :meth:`places` says which, all of the same value.
    """

    name: str
    inputs: int
    size: int
    bound: float = np.inf
    sparse: bool = False

    @abstractmethod
    def fill(self, x: np.ndarray, out: np.ndarray, scratch: Scratch) -> None:
        """The features of the rows of ``x`` (m, d) into ``out`` (m, D): float32, rows contiguous.

        ``scratch`` belongs to the thread that calls.
        """

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Memory that the map takes, and a thread that fills tiles beside them."""

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
