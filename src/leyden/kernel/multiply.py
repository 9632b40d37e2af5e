"""Products of rows with a matrix that is kept, the same bits whatever rows are beside them."""

from __future__ import annotations

from typing import Any

import numpy as np

from leyden.engine.reduction import Scratch
from leyden.kernel import _multiply_kernels

kernels: Any = _multiply_kernels

#: Rows that are multiplied at once.
BLOCK = 96


class Matrix:
    """A matrix in the order that products want it.

    Parameters
    ----------
    w : float32, shape (k, columns)
    triangular : bool
        Whether it is upper triangular: what is below is zero, and no time is spent on it.
    """

    def __init__(self, w: np.ndarray, *, triangular: bool = False):
        panel = kernels.PANEL
        self.shape = k, columns = w.shape
        count = -(-columns // panel)
        self.panels = np.zeros((count, k, panel), np.float32)
        for p in range(count):
            part = w[:, p * panel : (p + 1) * panel]
            self.panels[p, :, : part.shape[1]] = part
        last = np.minimum(panel * np.arange(1, count + 1), k)
        self.depths = last if triangular else np.full(count, k)

    def multiply(self, x: np.ndarray, out: np.ndarray, scratch: Scratch) -> None:
        """``x w`` of float32 rows (m, k), BLOCK at most, into ``out`` (m, columns), rows contiguous."""
        rows, k = kernels.ROWS, self.shape[0]
        packed = scratch.array(f"packed {k}", (-(-BLOCK // rows), k, rows), np.float32)
        kernels.pack(x, packed)
        spare = scratch.array("tile of a product", (rows, kernels.PANEL), np.float32)
        kernels.multiply(packed, len(x), self.panels, self.depths, out, spare)

    @property
    def nbytes(self) -> int:
        return self.panels.nbytes
