"""The reductions of the factorizations: the Gram matrix of B, and the image of a subspace under BᵀB."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from leyden.engine.reduction import Reduction, Scratch
from leyden.factor import _kernels
from leyden.factor.frame import Frame, bare
from leyden.rows.base import Block
from leyden.rows.sparse import csr_rows
from leyden.solve.reductions import Gram, Sum, U, gamma


class FrameGram(Gram):
    """Gram matrix of the rows of a frame; when they are centred, bordered by their column sums.

    Parameters
    ----------
    frame : Frame
    dtype : float32 or float64
    tile_rows : int
    """

    def __init__(self, frame: Frame, dtype: Any, tile_rows: int = 512):
        super().__init__(frame.coordinates(), dtype, tile_rows)

    def update(self, state: Sum, block: Block) -> Sum:
        return super().update(state, bare(block))


@dataclass
class ImageState:
    """Sums over rows, and how they were added.

    Attributes
    ----------
    s : ndarray, shape (d, l)
        ``Aᵀ(A W)``.
    m : ndarray, shape (l, l)
        ``(A W)ᵀ(A W)``.
    y : ndarray, shape (l,)
        ``1ᵀ A W``.
    moments : ndarray, shape (2, d)
        Column sums and sums of squares.
    left : float
        ``‖A − A W Wᵀ‖_F²``, where it is measured.
    additions : int
        Most additions that an entry of a sum has been through.
    longest : int
        Most entries that a row of A has.
    tile : int
        Most rows whose products were summed by BLAS.
    """

    s: np.ndarray
    m: np.ndarray
    y: np.ndarray
    moments: np.ndarray
    left: float = 0.0
    additions: int = 0
    longest: int = 0
    tile: int = 0


@dataclass(frozen=True)
class Image:
    """What one pass tells of H = BᵀB on the span of W.

    Attributes
    ----------
    s : ndarray, shape (d, l)
        ``H W``, column i in error by at most ``sum_unit F h_i + row_unit F²`` with F² = ``raw``, h = ``lengths``.
    m : ndarray, shape (l, l)
        ``(B W)ᵀ(B W)`` of the computed ``y = B W``: entry (i, j) in error by at most ``sum_unit h_i h_j``, where
        column i of the computed y is in error by at most ``row_unit F``.
    lengths : ndarray, shape (l,)
        Bounds on ``‖y_i‖`` before the mean was taken off.
    total : float
        ``‖B‖_F²``, in relative error of ``sum_unit`` of ``raw``.
    raw : float
        The sum of squares before the mean was taken off: what errors are relative to.
    mean : ndarray, shape (d,)
        Column means of the rows as read (shifted, scaled).
    squares : ndarray, shape (d,)
        ``‖b_j‖²`` of the columns of B.
    left : float or None
        ``‖B − B W Wᵀ‖_F²`` where it was measured directly, in relative error of ``row_unit + sum_unit`` and of
        ``(row_unit F)²``.
    row_unit, sum_unit : float
    graded : bool
        Whether ``m`` is a product of computed columns as said above. One taken from a Gram matrix is not: its entries
        are in error by at most ``row_unit F²`` in norm.
    """

    s: np.ndarray
    m: np.ndarray
    lengths: np.ndarray
    total: float
    raw: float
    mean: np.ndarray
    squares: np.ndarray
    left: float | None
    row_unit: float
    sum_unit: float
    graded: bool = True


#: Bytes of a tile: with the products made of it, it stays in a cache of the processor's own.
TILE_NBYTES = 2**20


class BlockImage(Reduction[ImageState, Image]):
    """``H W`` and ``WᵀHW`` of H = BᵀB, for the price of two products with the tiles of B in one pass.

    Parameters
    ----------
    frame : Frame
    w : ndarray, shape (d, l)
    n : int
        Rows of the whole stream.
    dtype : float32 or float64
        Of the products of dense tiles; they are added in float64. Sparse rows are multiplied in float64.
    sparse : bool
    graded : bool
        Whether to measure ``(B W)ᵀ(B W)`` itself, which tells small singular values more of their digits than ``WᵀS``.
    remainder : bool
        Whether to measure ``‖B − B W Wᵀ‖_F`` row by row, which no cancellation spoils, for half as much work again.
    """

    def __init__(
        self,
        frame: Frame,
        w: np.ndarray,
        n: int,
        dtype: Any = np.float64,
        *,
        sparse: bool,
        graded: bool = True,
        remainder: bool = False,
    ):
        self.frame, self.n, self.dtype = frame, n, np.dtype(np.float64 if sparse else dtype)
        self.graded, self.sparse, self.remainder = graded, sparse, remainder and not sparse and not frame.centre
        d, self.width = w.shape
        self.w = np.ascontiguousarray(w, dtype=self.dtype)
        if sparse and self.width % _kernels.LANES:
            self.w = np.zeros((d, -(-self.width // _kernels.LANES) * _kernels.LANES))
            self.w[:, : self.width] = w
        wide = self.w.shape[1] if sparse else d
        self.tile_rows = max(32, min(1024, TILE_NBYTES // (self.dtype.itemsize * wide)))
        self._scratch = Scratch()

    @property
    def state_nbytes(self) -> int:
        d, width = self.w.shape
        return 8 * (d + width) * width + 16 * d

    @property
    def scratch_nbytes(self) -> int:
        d, width = self.w.shape
        dense = 0 if self.sparse else self.tile_rows * d * (1 + self.remainder) + d * width
        return self.dtype.itemsize * (dense + self.tile_rows * width + width**2) + 16 * d

    def start(self) -> ImageState:
        d, width = self.w.shape
        return ImageState(np.zeros((d, width)), np.zeros((width, width)), np.zeros(width), np.zeros((2, d)))

    def update(self, state: ImageState, block: Block) -> ImageState:
        data: Any = bare(block).data
        fold = self._sparse if self.sparse else self._dense
        with np.errstate(over="ignore", invalid="ignore"):
            for first in range(0, block.rows, self.tile_rows):
                stop = min(first + self.tile_rows, block.rows)
                fold(state, csr_rows(data, first, stop) if self.sparse else data[first:stop])
        return state

    def _dense(self, state: ImageState, tile: Any) -> None:
        (m, d), width, scratch = tile.shape, self.w.shape[1], self._scratch
        packed = scratch.array("tile", (self.tile_rows, d), self.dtype)[:m]
        moments = scratch.array("moments", (2, d))
        moments[:] = 0.0
        _kernels.pack_moments(tile, self.frame.shift, self.frame.scale, packed, moments)
        state.moments += moments
        y = np.matmul(packed, self.w, out=scratch.array("y", (self.tile_rows, width), self.dtype)[:m])
        state.s += np.matmul(packed.T, y, out=scratch.array("s", (d, width), self.dtype))
        self._add(state, y)
        if self.remainder:
            left = np.matmul(y, self.w.T, out=scratch.array("left", (self.tile_rows, d), self.dtype)[:m])
            np.subtract(packed, left, out=left)
            state.left += float(np.einsum("ij,ij->i", left, left).sum())
        state.longest = d
        state.additions += 1

    def _sparse(self, state: ImageState, tile: Any) -> None:
        m, width = tile.shape[0], self.w.shape[1]
        y = self._scratch.array("y", (self.tile_rows, width))[:m]
        _kernels.image_sparse(
            tile.data, tile.indices, tile.indptr, self.frame.scale, self.w, y, state.s, state.moments
        )  # fmt: skip
        self._add(state, y)
        state.longest = max(state.longest, int(np.diff(tile.indptr).max(initial=0)))
        state.additions += m  # the kernels add to the sums row by row

    def _add(self, state: ImageState, y: np.ndarray) -> None:
        width = self.w.shape[1]
        if self.graded:
            state.m += np.matmul(y.T, y, out=self._scratch.array("m", (width, width), self.dtype))
        if self.frame.centre:
            state.y += y.sum(axis=0, dtype=np.float64)
        state.tile = max(state.tile, len(y))

    def merge(self, a: ImageState, b: ImageState) -> ImageState:
        a.s += b.s
        a.m += b.m
        a.y += b.y
        a.moments += b.moments
        a.left += b.left
        a.additions = max(a.additions, b.additions) + 1
        a.longest = max(a.longest, b.longest)
        a.tile = max(a.tile, b.tile)
        return a

    def finish(self, state: ImageState) -> Image:
        unit = float(np.finfo(self.dtype).eps) / 2
        row_unit = gamma(state.longest + 6, unit)
        sum_unit = gamma(state.tile + 8, unit) + gamma(state.additions + 8)
        l = self.width
        s, m, y, (sums, squares) = state.s[:, :l], state.m[:l, :l], state.y[:l], state.moments
        raw = float(squares.sum())
        lengths = np.sqrt(np.diag(m) * (1 + 2 * sum_unit))
        if self.frame.centre:
            s = s - np.outer(sums, y / self.n)
            m = m - np.outer(y, y / self.n)
            squares = np.maximum(squares - sums**2 / self.n, 0.0)
            sum_unit += 4 * U + 2 * gamma(state.additions + state.tile + 8)
        if not self.graded:
            with np.errstate(invalid="ignore"):  # an infinity of the data: whoever asked will look for it
                m = self.w[:, :l].T @ s
            row_unit += sum_unit + gamma(len(s))
        return Image(
            np.ascontiguousarray(s),
            (m + m.T) / 2,
            lengths,
            math.fsum(squares),
            raw,
            sums / self.n,
            squares,
            state.left if self.remainder else None,
            row_unit,
            sum_unit,
            self.graded,
        )
