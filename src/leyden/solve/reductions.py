"""The reductions of least squares: Gram matrix, TSQR, sparse-sign sketch, gradient, and the Gram matrix of A X.

All but the gradient work on rows packed into working coordinates (:mod:`leyden.solve.coordinates`), short tile by
short tile, so that what they multiply is in cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from leyden import doubled
from leyden.doubled import LANES
from leyden.engine.reduction import Reduction, Scratch
from leyden.rows.base import Block
from leyden.solve import _kernels
from leyden.solve.coordinates import Coordinates, tiles

#: Unit roundoff of float64.
U = 2.0**-53


def gamma(n: float, unit: float = U) -> float:
    """Higham's γ_n = n u / (1 − n u); infinite once n u reaches one."""
    return n * unit / (1 - n * unit) if n * unit < 1 else np.inf


def triangle(a: np.ndarray) -> np.ndarray:
    """R of a Householder QR factorization, (min(m, q), q)."""
    r: np.ndarray = np.linalg.qr(a, mode="r")  # type: ignore[assignment]
    return r


def pack(tile: tuple[Any, np.ndarray, np.ndarray], coordinates: Coordinates, out: np.ndarray) -> np.ndarray:
    """Working rows (m, p + k) of a tile, written to the first rows of ``out``."""
    data, target, weight = tile
    c = coordinates
    packed = out[: data.shape[0]]
    root = _root(weight)
    if isinstance(data, np.ndarray):
        _kernels.pack_dense(data, target, root, c.shift, c.scale, c.intercept, packed)
    else:
        _kernels.pack_sparse(
            data.data, data.indices, data.indptr, c.d, target, root, c.shift, c.scale, c.intercept, packed
        )
    return packed


def _root(weight: np.ndarray) -> np.ndarray:
    """Square roots; NaN of a negative weight, which the engine then finds as it finds any NaN."""
    with np.errstate(invalid="ignore"):
        return np.sqrt(weight)


class Gram(Reduction[np.ndarray, np.ndarray]):
    """Gram matrix of the working rows with their targets, ``[Ā b̄]ᵀ W [Ā b̄]``, (p + k, p + k) float64.

    Tiles are multiplied by BLAS in ``dtype`` and added in float64. An entry is in error by at most
    ``rounding · ‖ā_i‖ ‖ā_j‖`` (Higham, Accuracy and Stability, §3.5: γ_T for a tile of T rows in the precision of the
    tile, γ for the additions in float64), whatever order BLAS adds in.

    Parameters
    ----------
    coordinates : Coordinates
    dtype : float32 or float64
    tile_rows : int
    """

    def __init__(self, coordinates: Coordinates, dtype: Any, tile_rows: int = 512):
        self.coordinates, self.dtype, self.tile_rows = coordinates, np.dtype(dtype), tile_rows
        self.q = coordinates.p + coordinates.k
        self._scratch = Scratch()
        self._sparse = False

    @property
    def state_nbytes(self) -> int:
        return 8 * self.q**2

    @property
    def scratch_nbytes(self) -> int:
        return self.dtype.itemsize * (self.tile_rows * self.q + self.q**2)

    def rounding(self, block_rows: int, rows: int) -> float:
        """Bound on the error of an entry relative to the product of its columns' norms."""
        unit = float(np.finfo(self.dtype).eps) / 2
        additions = block_rows / self.tile_rows + np.log2(rows / block_rows + 1) + 2
        if self._sparse:
            additions += block_rows
        return gamma(self.tile_rows + 4, unit) + gamma(additions)

    def start(self) -> np.ndarray:
        return np.zeros((self.q, self.q))

    def update(self, state: np.ndarray, block: Block) -> np.ndarray:
        c = self.coordinates
        if sp.issparse(block.data):
            self._sparse = True
            columns = self._scratch.array("columns", (self.q,), np.int64)
            values = self._scratch.array("values", (self.q,))
            for data, target, weight in tiles(block, block.rows):
                _kernels.gram_sparse(
                    data.data, data.indices, data.indptr, c.d, target, _root(weight), c.shift, c.scale, c.intercept,
                    columns, values, state,
                )  # fmt: skip
            return state
        packed = self._scratch.array("packed", (self.tile_rows, self.q), self.dtype)
        product = self._scratch.array("product", (self.q, self.q), self.dtype)
        for tile in tiles(block, self.tile_rows):
            working = pack(tile, c, packed)
            np.matmul(working.T, working, out=product)
            _kernels.add_upper(state, product)
        return state

    def merge(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a += b
        return a

    def finish(self, state: np.ndarray) -> np.ndarray:
        upper = np.triu(state)
        return upper + np.triu(upper, 1).T


class TSQR(Reduction[np.ndarray, np.ndarray]):
    """Triangular factor of the working rows with their targets, by Householder QR of [R; tile] folded along the stream.

    Demmel, Grigori, Hoemmen, Langou, "Communication-optimal parallel and sequential QR and LU factorizations",
    SIAM J. Sci. Comput. 34(1), 2012. Returns R, (min(n, p + k), p + k) float64.
    """

    def __init__(self, coordinates: Coordinates):
        self.coordinates = coordinates
        self.q = coordinates.p + coordinates.k
        self.tile_rows = max(4 * self.q, 512)
        self._scratch = Scratch()

    @property
    def state_nbytes(self) -> int:
        return 8 * self.q**2

    @property
    def scratch_nbytes(self) -> int:
        return 3 * 8 * (self.tile_rows + self.q) * self.q

    def start(self) -> np.ndarray:
        return np.empty((0, self.q))

    def update(self, state: np.ndarray, block: Block) -> np.ndarray:
        stacked = self._scratch.array("stacked", (self.q + self.tile_rows, self.q))
        for tile in tiles(block, self.tile_rows):
            top = len(state)
            stacked[:top] = state
            bottom = pack(tile, self.coordinates, stacked[top:])
            state = triangle(stacked[: top + len(bottom)])
        return state

    def merge(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return triangle(np.vstack([a, b]))

    def finish(self, state: np.ndarray) -> np.ndarray:
        return state


class SparseSignSketch(Reduction[np.ndarray, np.ndarray]):
    """Sketch S [Ā b̄] with ``zeta`` random signs, scaled by 1/√zeta, in each column of S: (size, p + k) float64.

    Signs and positions come from Philox keyed by the seed and the index of a chunk of ``CHUNK`` rows, so the sketch of
    any rows can be made again, anywhere, bit for bit. With size a small multiple of p it embeds the column space with
    distortion about √(p / size) (Cohen 2016; Tropp, Webber 2023).
    """

    CHUNK = 1024

    def __init__(self, coordinates: Coordinates, seed: int, size: int | None = None, zeta: int = 8):
        self.coordinates, self.seed, self.zeta = coordinates, seed, zeta
        self.q = coordinates.p + coordinates.k
        self.size = size or 3 * coordinates.p + 32
        self._scratch = Scratch()

    @property
    def state_nbytes(self) -> int:
        return 8 * self.size * self.q

    @property
    def scratch_nbytes(self) -> int:
        return self.CHUNK * (8 * self.q + 9 * self.zeta)

    def start(self) -> np.ndarray:
        return np.zeros((self.size, self.q))

    def positions(self, chunk: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the sketch (CHUNK, zeta) and signs (CHUNK, zeta) for the rows of one chunk of the stream."""
        bits = np.random.Philox(key=[self.seed, chunk]).random_raw(self.CHUNK * self.zeta).reshape(self.CHUNK, -1)
        return ((bits >> np.uint64(32)) * np.uint64(self.size)) >> np.uint64(32), (bits & np.uint64(1)).astype(bool)

    def update(self, state: np.ndarray, block: Block) -> np.ndarray:
        packed = self._scratch.array("packed", (self.CHUNK, self.q))
        start, stop = block.start, block.start + block.rows
        for chunk in range(start // self.CHUNK, -(-stop // self.CHUNK)):
            first, last = max(start, chunk * self.CHUNK), min(stop, (chunk + 1) * self.CHUNK)
            part = slice(first - start, last - start)
            piece = Block(
                first,
                block.data[part],
                None if block.target is None else block.target[part],
                None if block.weight is None else block.weight[part],
            )
            (tile,) = tiles(piece, self.CHUNK)
            targets, signs = self.positions(chunk)
            within = slice(first - chunk * self.CHUNK, last - chunk * self.CHUNK)
            _kernels.scatter_signed(pack(tile, self.coordinates, packed), targets[within], signs[within], state)
        return state

    def merge(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a += b
        return a

    def finish(self, state: np.ndarray) -> np.ndarray:
        return state / np.sqrt(self.zeta)


@dataclass
class GradientState:
    """Doubled ``AᵀWr`` as (k, p) arrays, and the rows ``Σ w r²``, ``Σ w b²``, ``Σ w b``, ``Σ w`` of ``sums``."""

    hi: np.ndarray
    lo: np.ndarray
    sums: np.ndarray


@dataclass(frozen=True)
class GradientResult:
    """``AᵀW(b − x0 − Ax)`` of the data columns and the intercept, in the user's coordinates, without the ridge.

    Attributes
    ----------
    hi, lo : ndarray, shape (p, k)
        The gradient as an unevaluated sum: ``AᵀW(r + δr) + δg`` with δr and δg as below.
    rr, bb, spread : ndarray, shape (k,)
        ``Σ w r²``, ``Σ w b²`` and ``Σ w (b − mean)²``.
    total : float
        ``Σ w``.
    residual_unit : float
        ``|δr| ≤ residual_unit (|b| + |x0| + |A||x|)``, row by row.
    sum_unit : float
        ``|δg| ≤ sum_unit |A|ᵀW|r|``, entry by entry.
    """

    hi: np.ndarray
    lo: np.ndarray
    rr: np.ndarray
    bb: np.ndarray
    spread: np.ndarray
    total: float
    residual_unit: float
    sum_unit: float


class Gradient(Reduction[GradientState, GradientResult]):
    """Gradient of the least-squares objective at ``x``, in doubled arithmetic, straight from the data as given.

    It knows nothing of working coordinates or of any factorization: every certificate starts from it.

    Parameters
    ----------
    x : ndarray, shape (d, k)
    x0 : ndarray, shape (k,)
    intercept : bool
        Whether to return ``Σ w r`` as a last entry.
    rows : int
        Length of the stream, for the error bound.
    sparse : bool
    """

    TILE = 1024

    def __init__(self, x: np.ndarray, x0: np.ndarray, *, intercept: bool, rows: int, sparse: bool):
        self._x = np.ascontiguousarray(x.T)
        self._x0 = x0
        self.p = len(x) + intercept
        self._rows, self._sparse = rows, sparse

    @property
    def state_nbytes(self) -> int:
        return 16 * self.p * len(self._x)

    def start(self) -> GradientState:
        k = len(self._x)
        return GradientState(np.zeros((k, self.p)), np.zeros((k, self.p)), np.zeros((4, k)))

    def update(self, state: GradientState, block: Block) -> GradientState:
        for data, target, weight in tiles(block, self.TILE):
            if isinstance(data, np.ndarray):
                _kernels.gradient_dense(data, target, weight, self._x, self._x0, state.hi, state.lo, state.sums)
            else:
                _kernels.gradient_sparse(
                    data.data, data.indices, data.indptr, data.shape[1], target, weight, self._x, self._x0,
                    state.hi, state.lo, state.sums,
                )  # fmt: skip
        return state

    def merge(self, a: GradientState, b: GradientState) -> GradientState:
        doubled.accumulate(a.hi, a.lo, b.hi, b.lo)
        a.sums += b.sums
        return a

    def finish(self, state: GradientState) -> GradientResult:
        # A doubled sum errs by its length squared in u² (a dense dot product runs LANES sums side by side, and folds
        # them), each addition of two doubled numbers by 4 u²: FLUSH rows to a run, runs to a tile, tiles to a fold,
        # folds to a tree.
        d = self._x.shape[1]
        dot = d + 4 if self._sparse else d / LANES + LANES + 8
        additions = self.TILE / _kernels.FLUSH + self._rows / self.TILE + 64
        residual_unit = (dot**2 + 16) * U**2
        sum_unit = (1.5 * (_kernels.FLUSH + 4) ** 2 + 4 * additions) * U**2
        rr, bb, bs, total = state.sums
        spread = bb - bs**2 / np.where(total > 0, total, 1.0)
        return GradientResult(
            state.hi.T.copy(), state.lo.T.copy(), rr, bb, spread, float(total[0]), residual_unit, sum_unit
        )


class PlainGradient(Reduction[np.ndarray, np.ndarray]):
    """The same gradient in float64, (p, k), as fast as memory can be read: enough to correct by, not to certify.

    Dense rows only.
    """

    TILE = 1024

    def __init__(self, x: np.ndarray, x0: np.ndarray, *, intercept: bool):
        self._x = np.ascontiguousarray(x.T)
        self._x0 = x0
        self.p = len(x) + intercept

    @property
    def state_nbytes(self) -> int:
        return 8 * self.p * len(self._x)

    def start(self) -> np.ndarray:
        return np.zeros((len(self._x), self.p))

    def update(self, state: np.ndarray, block: Block) -> np.ndarray:
        for data, target, weight in tiles(block, self.TILE):
            _kernels.gradient_plain(data, target, weight, self._x, self._x0, state)
        return state

    def merge(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a += b
        return a

    def finish(self, state: np.ndarray) -> np.ndarray:
        return state.T.copy()


class ProductGram(Reduction[np.ndarray, np.ndarray]):
    """Gram matrix (r, r) of Ā X for a given X (p, r): how far X is from whitening the data.

    With ``exact`` each entry of Ā X is right to a few units in its last place; without, it is a BLAS product.
    """

    TILE = 256

    def __init__(self, coordinates: Coordinates, x: np.ndarray, *, exact: bool):
        self.coordinates, self.exact = coordinates, exact
        self.x = np.ascontiguousarray(x)
        self._scratch = Scratch()

    @property
    def state_nbytes(self) -> int:
        return 8 * self.x.shape[1] ** 2

    @property
    def scratch_nbytes(self) -> int:
        p, r = self.x.shape
        return 8 * (self.TILE * (p + r) + r * r)

    def rounding(self, block_rows: int, rows: int) -> float:
        """Bound on the error of an entry of the Gram matrix relative to the norms of the columns of the product."""
        return gamma(self.TILE + block_rows / self.TILE + np.log2(rows / block_rows + 1) + 16)

    def start(self) -> np.ndarray:
        return np.zeros((self.x.shape[1],) * 2)

    def update(self, state: np.ndarray, block: Block) -> np.ndarray:
        c = self.coordinates
        p, r = self.x.shape
        packed = self._scratch.array("packed", (self.TILE, p))
        product = self._scratch.array("product", (self.TILE, r))
        gram = self._scratch.array("gram", (r, r))
        hi, lo = self._scratch.array("hi", (r,)), self._scratch.array("lo", (r,))
        for data, _, weight in tiles(block, self.TILE):
            m = data.shape[0]
            out = product[:m]
            if self.exact:
                dense = data if isinstance(data, np.ndarray) else data.toarray()
                _kernels.multiply_doubled(dense, c.shift, c.scale, _root(weight), c.intercept, self.x, hi, lo, out)
            else:
                np.matmul(pack((data, np.empty((m, 0)), weight), c, packed), self.x, out=out)
            np.matmul(out.T, out, out=gram)
            _kernels.add_upper(state, gram)
        return state

    def merge(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a += b
        return a

    def finish(self, state: np.ndarray) -> np.ndarray:
        upper = np.triu(state)
        return upper + np.triu(upper, 1).T
