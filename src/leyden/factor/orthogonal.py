r"""Rows made orthonormal by a triangle, and how nearly they are: measured without rounding errors to speak of.

A triangle R₁ with :math:`\bar A ≈ Y R_1`, Y well-conditioned, may come from anywhere: a Gram matrix in float32, TSQR, a
sketch. Rows of Y are solved for by substitution, :math:`y R_1 = a`, which is backward stable row by row whatever the
condition of R₁. What a pass then measures of Y *as computed* is its Gram matrix M, and the residual
:math:`E = \bar A − Y R_1`; with :math:`KᵀMK = I + D`, D small, the columns of :math:`Y K` are orthonormal to D, and

.. math:: \bar A = (Y K) (K^{-1} R_1) + E.

This is CholeskyQR2 (Y. Yamamoto, Y. Nakatsukasa, Y. Yanagisawa, T. Fukaya, "Roundoff error analysis of the CholeskyQR2
algorithm", ETNA 44, 2015), or with a sketch randomized CholeskyQR (A. Higgins, D. Szyld, E. Boman, I. Yamazaki, 2023).

Sums of float64 products over many rows carry worst-case bounds far above the errors they have. M and E are computed
to some twenty digits instead, at the speed of BLAS: each factor is split into a high part of few bits, of which
products and their sums are exact in float64, and a rest (K. Ozaki, T. Ogita, S. Oishi, S. M. Rump, "Error-free
transformations of matrix multiplication", Numer. Algorithms 59, 2012). So the bounds are rigorous *and* near the unit
roundoff.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from leyden.engine.reduction import Reduction, Scratch
from leyden.errors import DataError
from leyden.factor import _triangular
from leyden.factor.frame import bare
from leyden.factor.left import Place
from leyden.rows import Rows
from leyden.rows.base import Block, RowMap
from leyden.solve import _kernels
from leyden.solve.coordinates import NOTHING, tiles
from leyden.solve.reductions import U, gamma

#: Rows of a tile, 2⁸, and bits of the high part of what is multiplied: 2 · 22 + 8 ≤ 53.
TILE, BITS = 256, 22


def _shift(top: float, bits: int) -> float:
    """``(v + shift) − shift`` rounds numbers up to ``top`` to ``bits`` bits of the largest."""
    return float(1.5 * 2.0 ** (math.frexp(top)[1] + 52 - bits)) if 0 < top < math.inf else 0.0


def split(a: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """``a = high + low`` exactly, high a multiple of ``2^−bits`` of the power of two above the largest entry."""
    shift = _shift(_triangular.largest(a), bits)
    high = (a + shift) - shift
    return high, a - high


def product(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """``A B ≈ hi + lo`` of square matrices (p, p), and a bound on the Frobenius norm of the error."""
    p = len(a)
    bits = (53 - (p - 1).bit_length()) // 2
    (ah, al), (bh, bl) = split(a, bits), split(b, bits)
    norm = np.linalg.norm
    error = gamma(2 * p + 4) * float(norm(ah) * norm(bl) + norm(al) * norm(b)) * (1 + gamma(2 * p * p))
    return ah @ bh, ah @ bl + al @ b, error


@dataclass(frozen=True, eq=False)
class Basis(RowMap):
    """Rows ``q = (a S) R₁⁻¹ K``: the first factor of a QR factorization, made when it is read.

    Parameters
    ----------
    scale : ndarray, shape (d,)
        Powers of two.
    first : ndarray, shape (d, d)
        R₁, upper triangular.
    core : ndarray, shape (d, d), optional
        K; the identity when there is none.
    """

    scale: np.ndarray
    first: np.ndarray
    core: np.ndarray | None = None

    def bind(self, rows: Rows) -> Basis:
        if rows.shape[1] != len(self.scale):
            raise DataError(
                f"the rows have {rows.shape[1]:,} columns, and R has {len(self.scale):,}", where=rows.source
            )
        return self

    def __call__(self, block: Block) -> Block:
        return self.into(block, np.empty((block.rows, len(self.scale))))

    def into(self, block: Block, out: np.ndarray) -> Block:
        done = 0
        for data, _, _ in tiles(bare(block), TILE):
            here = out[done : done + data.shape[0]]
            scaled(data, self.scale, here)
            self.solve(block.start + done, here)
            done += len(here)
        return block.with_data(out)

    def solve(self, start: int, a: np.ndarray) -> None:
        """Replace scaled rows, the first of which is number ``start``, by those of the basis."""
        _triangular.solve_rows(a, self.first)
        if self.core is not None:
            a[:] = a @ self.core

    def sparse(self, sparse: bool) -> bool:
        return False

    def columns(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"q{i}" for i in range(len(self.scale)))

    def dtype(self, dtype: np.dtype) -> np.dtype:
        return np.dtype(np.float64)


class Stored:
    """A basis whose rows were written."""

    def __init__(self, q: Rows):
        self.q = q

    def solve(self, start: int, a: np.ndarray) -> None:
        """Replace rows, the first of which is number ``start``, by those that were stored."""
        a[:] = self.q.read(start, start + len(a)).data


class Source(Protocol):
    """What has a row of Y for each of A."""

    def solve(self, start: int, a: np.ndarray) -> None: ...


def scaled(data: Any, scale: np.ndarray, out: np.ndarray) -> None:
    """The rows of a tile with their columns scaled, dense."""
    m, d = data.shape
    nothing, zero = np.empty((m, 0)), np.broadcast_to(0.0, d).copy()
    if isinstance(data, np.ndarray):
        _kernels.pack_dense(data, nothing, NOTHING, zero, scale, False, out)
    else:
        _kernels.pack_sparse(data.data, data.indices, data.indptr, d, nothing, NOTHING, zero, scale, False, out)


@dataclass
class FactorState:
    """Sums over rows, and how they were added.

    Attributes
    ----------
    hi, lo : ndarray, shape (d, d)
        Upper triangle of ``YᵀY``, doubled.
    sums : ndarray, shape (2, d)
        Squares of the columns of ``Ā − Y R`` and of Ā.
    squares, low, cross : float
        ``Σ ‖Y_t‖²`` and ``Σ ‖L_t‖²`` over tiles t, L_t the low part of Y_t; and ``Σ (‖Y_t‖ + ‖L_t‖) ‖L_t‖``.
    additions : int
        Most additions that an entry of a sum has been through.
    """

    hi: np.ndarray
    lo: np.ndarray
    sums: np.ndarray
    squares: float = 0.0
    low: float = 0.0
    cross: float = 0.0
    additions: int = 0


@dataclass(frozen=True)
class MeasuredFactor:
    """What one pass tells of Y and of ``Ā − Y R``.

    Attributes
    ----------
    hi, lo : ndarray, shape (d, d)
        ``YᵀY``, doubled.
    error : float
        Bound on the Frobenius norm of ``YᵀY − hi − lo``.
    residual : ndarray, shape (d,)
        Bounds on the norms of the columns of ``Ā − Y R``.
    column_norms : ndarray, shape (d,)
        Norms of the columns of Ā, from below.
    """

    hi: np.ndarray
    lo: np.ndarray
    error: float
    residual: np.ndarray
    column_norms: np.ndarray


class FactorGram(Reduction[FactorState, MeasuredFactor]):
    """The Gram matrix of Y and the residual ``Ā − Y R``, for rows of Y that are made of those of A, or stored.

    Parameters
    ----------
    source : Source
        What has the rows of Y.
    scale : ndarray, shape (d,)
        Of the columns: powers of two.
    r : ndarray, shape (d, d)
        Upper triangular, with columns of about unit size.
    place : Place, optional
        Where to write the rows of Y. Writing the same rows again changes nothing, so a part of a pass may be repeated.
    """

    def __init__(self, source: Source, scale: np.ndarray, r: np.ndarray, place: Place | None = None):
        self.source, self.scale, self.r, self.place = source, scale, r, place
        self._high, self._rest = split(r, 53 - BITS - (len(r) - 1).bit_length())
        self._scratch = Scratch()

    @property
    def state_nbytes(self) -> int:
        d = len(self.r)
        return 16 * d * (d + 1)

    @property
    def scratch_nbytes(self) -> int:
        d = len(self.r)
        return 8 * d * (7 * TILE + 4 * d)

    def start(self) -> FactorState:
        d = len(self.r)
        return FactorState(np.zeros((d, d)), np.zeros((d, d)), np.zeros((2, d)))

    def update(self, state: FactorState, block: Block) -> FactorState:
        first, d = block.start, len(self.r)
        with np.errstate(over="ignore", invalid="ignore"):
            for data, _, _ in tiles(bare(block), TILE):
                m = data.shape[0]
                a, y = (self._scratch.array(name, (TILE, d))[:m] for name in ("a", "y"))
                scaled(data, self.scale, a)
                np.copyto(y, a)
                self.source.solve(first, y)
                if self.place is not None:
                    self.place.write(first, y)
                self._add(state, a, y)
                first += m
        return state

    def _add(self, state: FactorState, a: np.ndarray, y: np.ndarray) -> None:
        (m, d), array = y.shape, self._scratch.array
        high, low, moved, more = (array(name, (TILE, d))[:m] for name in ("high", "low", "moved", "more"))
        square, mixed = array("square", (d, d)), array("mixed", (d, d))
        squares, lows = _triangular.split(y, _shift(_triangular.largest(y), BITS), high, low)
        # Ā − Y R = (Ā − H R_h) − (H R_l + L R), H R_h exact.
        np.matmul(high, self._high, out=moved)
        np.matmul(high, self._rest, out=more)
        more += np.matmul(low, self.r, out=array("last", (TILE, d))[:m])
        _triangular.add_squares(a, moved, more, state.sums)
        # YᵀY = HᵀH + Z + Zᵀ, Z = (H + L/2)ᵀL, HᵀH exact.
        np.matmul(high.T, high, out=square)
        np.multiply(low, 0.5, out=more)
        more += high
        np.matmul(more.T, low, out=mixed)
        _triangular.add_doubled(state.hi, state.lo, square, mixed)
        state.squares += squares
        state.low += lows
        state.cross += (math.sqrt(squares) + math.sqrt(lows)) * math.sqrt(lows)
        state.additions += 1

    def merge(self, a: FactorState, b: FactorState) -> FactorState:
        _triangular.add_doubled(a.hi, a.lo, b.hi, np.zeros_like(b.hi))
        a.lo += b.lo
        a.sums += b.sums
        a.squares += b.squares
        a.low += b.low
        a.cross += b.cross
        a.additions = max(a.additions, b.additions) + 1
        return a

    def finish(self, state: FactorState) -> MeasuredFactor:
        d = len(self.r)
        above = 1 + 4 * gamma(TILE * d + state.additions + 8)
        squares, low, cross = (above * value for value in (state.squares, state.low, state.cross))
        # Products that are not exact: Z and its transpose. Sums that are not: those of lo, of Z, Zᵀ and what rounding
        # each of the sums of hi left.
        error = 2 * gamma(TILE + 6) * cross
        error += gamma(3 * state.additions + 6) * (2 * cross + state.additions * U * squares)
        lengths, rests = (np.linalg.norm(part, axis=0) for part in (self.r, self._rest))
        rest = math.sqrt(low)
        slack = gamma(2 * d + 8) * above * ((math.sqrt(squares) + rest) * rests + rest * lengths)
        # Squares may underflow; columns are of about unit size, so that no digit of a bound is lost.
        residual = np.sqrt(state.sums[0] * above) * (1 + 8 * U) + slack + 1e-140
        hi = state.hi + state.lo
        return MeasuredFactor(
            _symmetric(hi),
            _symmetric(state.lo - (hi - state.hi)),
            error * (1 + 1e-9),
            residual,
            np.sqrt(state.sums[1] / above),
        )


def _symmetric(upper: np.ndarray) -> np.ndarray:
    upper = np.triu(upper)
    return upper + np.triu(upper, 1).T
