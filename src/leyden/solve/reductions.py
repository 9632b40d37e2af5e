"""The reductions of least squares: Gram matrix, TSQR, sparse-sign sketch, gradient, and the Gram matrix of A X.

All but the gradient work on rows packed into working coordinates (:mod:`leyden.solve.coordinates`), short tile by
short tile, so that what they multiply is in cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from leyden import doubled
from leyden.doubled import LANES
from leyden.engine.reduction import Reduction, Scratch
from leyden.rows.base import Block
from leyden.solve import _kernels
from leyden.solve.coordinates import Coordinates, tiles
from leyden.vectors import UPDATE_ROWS, fused_vectors, wide_registers

#: Columns up to which our own kernel forms Gram matrices faster than BLAS: by half at 50, by a tenth at 200.
NARROW = 400

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
    """Working rows (m, p + k) of a tile, written to the first rows of ``out``; targets count where k is not zero."""
    data, target, weight = tile
    c = coordinates
    target = target[:, : c.k]
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


@dataclass
class Sum:
    """A matrix that terms are added to, and the most additions that any of its entries has been through."""

    matrix: np.ndarray
    additions: int = 0

    def merge(self, other: Sum) -> Sum:
        """The sum of both, in this one's memory."""
        self.matrix += other.matrix
        self.additions = max(self.additions, other.additions) + 1
        return self


@dataclass(frozen=True)
class MeasuredGram:
    """A Gram matrix (q, q), entry (i, j) right to ``rounding`` times the norms of columns i and j."""

    matrix: np.ndarray
    rounding: float


def _symmetric(upper: np.ndarray) -> np.ndarray:
    upper = np.triu(upper)
    return upper + np.triu(upper, 1).T


class TileGram:
    """Gram matrices of tiles of at most ``rows`` rows and ``q`` columns: by our own kernel when narrow, else by BLAS.

    One object serves many threads.
    """

    def __init__(self, rows: int, q: int, dtype: Any):
        self.q, self.dtype = q, np.dtype(dtype)
        self._ours = q <= NARROW and wide_registers()
        lanes = 64 // self.dtype.itemsize
        self._shape = (rows + UPDATE_ROWS, -(-q // lanes) * lanes) if self._ours else (rows, q)
        self._scratch = Scratch()

    @property
    def nbytes(self) -> int:
        """Memory that one thread needs."""
        rows, width = self._shape
        return self.dtype.itemsize * (rows + width) * width

    def memory(self) -> np.ndarray:
        """Where to write a tile: its columns are the first ``q``, and those beyond stay zero."""
        return self._scratch.zeros("tile", self._shape, self.dtype)

    def product(self, m: int) -> np.ndarray:
        """Gram matrix of the first ``m`` rows there: its upper triangle, in the first ``q`` rows and columns."""
        tile, width = self.memory(), self._shape[1]
        out = self._scratch.array("product", (width, width), self.dtype)
        if self._ours:
            even = -(-m // UPDATE_ROWS) * UPDATE_ROWS
            tile[m:even] = 0.0
            _kernels.gram_tile(tile[:even], out, self.q)
        else:
            np.matmul(tile[:m].T, tile[:m], out=out)
        return out


class Gram(Reduction[Sum, MeasuredGram]):
    """Gram matrix of the working rows with their targets, ``[Ā b̄]ᵀ W [Ā b̄]``, (p + k, p + k) float64.

    Tiles are multiplied by BLAS in ``dtype`` and added in float64. An entry is in error by at most
    ``rounding · ‖ā_i‖ ‖ā_j‖`` (Higham, Accuracy and Stability, §3.5: γ_T for a tile of T rows in the precision of the
    tile, γ for the additions in float64, which the state counts), whatever order BLAS adds in.

    Parameters
    ----------
    coordinates : Coordinates
    dtype : float32 or float64
    tile_rows : int
    """

    def __init__(self, coordinates: Coordinates, dtype: Any, tile_rows: int = 512):
        self.coordinates, self.dtype, self.tile_rows = coordinates, np.dtype(dtype), tile_rows
        self.q = coordinates.p + coordinates.k
        self._tile, self._scratch = TileGram(tile_rows, self.q, dtype), Scratch()

    @property
    def state_nbytes(self) -> int:
        return 8 * self.q**2

    @property
    def scratch_nbytes(self) -> int:
        return self._tile.nbytes

    def start(self) -> Sum:
        return Sum(np.zeros((self.q, self.q)))

    def update(self, state: Sum, block: Block) -> Sum:
        c = self.coordinates
        if not isinstance(block.data, np.ndarray):
            columns = self._scratch.array("columns", (self.q,), np.int64)
            values = self._scratch.array("values", (self.q,))
            for data, target, weight in tiles(block, block.rows):
                _kernels.gram_sparse(
                    data.data, data.indices, data.indptr, c.d, target[:, : c.k], _root(weight), c.shift, c.scale,
                    c.intercept, columns, values, state.matrix,
                )  # fmt: skip
            state.additions += block.rows
            return state
        packed = self._tile.memory()
        for tile in tiles(block, self.tile_rows):
            rows = pack(tile, c, packed)
            _kernels.add_upper(state.matrix, self._tile.product(len(rows)))
            state.additions += 1
        return state

    def merge(self, a: Sum, b: Sum) -> Sum:
        return a.merge(b)

    def finish(self, state: Sum) -> MeasuredGram:
        # Packing rounds three times in float64 and once to the type of the tile, in each of two factors.
        unit = float(np.finfo(self.dtype).eps) / 2
        return MeasuredGram(_symmetric(state.matrix), gamma(self.tile_rows + 8, unit) + gamma(state.additions))


class TSQR(Reduction[np.ndarray, np.ndarray]):
    """Triangular factor of the working rows with their targets, by Householder QR of [R; tile] folded along the stream.

    Demmel, Grigori, Hoemmen, Langou, "Communication-optimal parallel and sequential QR and LU factorizations",
    SIAM J. Sci. Comput. 34(1), 2012. Returns R, (min(n, p + k), p + k) float64.
    """

    def __init__(self, coordinates: Coordinates):
        self.coordinates = coordinates
        self.q = coordinates.p + coordinates.k
        self._fold = TriangleFold(self.q)
        self.tile_rows = self._fold.rows - self.q

    @property
    def state_nbytes(self) -> int:
        return 8 * self.q**2

    @property
    def scratch_nbytes(self) -> int:
        return self._fold.nbytes

    def start(self) -> np.ndarray:
        return np.empty((0, self.q))

    def update(self, state: np.ndarray, block: Block) -> np.ndarray:
        memory = self._fold.memory()
        for tile in tiles(block, self.tile_rows):
            # A triangle that is not whole yet goes into the memory of the tile, and R begins anew.
            top = 0 if len(state) == self.q else len(state)
            memory[:top, : self.q] = state[:top]
            state = self._fold.fold(state[top:], top + len(pack(tile, self.coordinates, memory[top:])))
        return state

    def merge(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if len(a) < self.q:
            return triangle(np.vstack([a, b]))
        self._fold.memory()[: len(b), : self.q] = b
        return self._fold.fold(a, len(b), triangular=True)

    def finish(self, state: np.ndarray) -> np.ndarray:
        return state


class TriangleFold:
    """QR of [R; tile] for tiles of at most ``rows`` rows and ``q`` columns: by our own kernel when narrow, else LAPACK.

    NumPy holds the interpreter lock while LAPACK factors. One object serves many threads.
    """

    def __init__(self, q: int):
        self.q = q
        self._ours = q <= NARROW and fused_vectors()
        if self._ours:
            # Tiles of half a megabyte stay in cache while panel after panel passes over them.
            width = -(-q // _kernels.PANEL) * _kernels.PANEL
            self.rows = q + max(96, min(2**16 // width, 1024))
            self._shape = self.rows + UPDATE_ROWS, width
        else:
            self.rows = q + max(4 * q, 512)
            self._shape = self.rows, q
        self._scratch = Scratch()

    @property
    def nbytes(self) -> int:
        """Memory that one thread needs."""
        rows, width = self._shape
        return 8 * (rows + width) * width if self._ours else 3 * 8 * (self.rows + self.q) * self.q

    def memory(self) -> np.ndarray:
        """Where to write a tile: its columns are the first ``q``, and those beyond stay zero."""
        return self._scratch.zeros("tile", self._shape)

    def fold(self, r: np.ndarray, m: int, *, triangular: bool = False) -> np.ndarray:
        """The factor of ``r``, (q, q) or of no rows, and the first ``m`` rows of the tile; reuses both."""
        tile, q = self.memory(), self.q
        if not self._ours or (m < q and not len(r)):
            return triangle(np.vstack([r, tile[:m, :q]]))
        if not len(r):
            r = np.zeros((q, q))
        even = -(-m // UPDATE_ROWS) * UPDATE_ROWS
        tile[m:even] = 0.0
        width = self._shape[1]
        _kernels.fold_triangle(r, tile[:even], triangular, self._scratch.array("terms", (width, width)))
        return r


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
        bits = (
            np.random.Philox(key=np.array([self.seed, chunk], dtype=np.uint64))
            .random_raw(self.CHUNK * self.zeta)
            .reshape(self.CHUNK, -1)
        )
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
    """Sums over rows, and how they were added.

    Attributes
    ----------
    hi, lo : ndarray, shape (k, p)
        ``AᵀWr``, doubled.
    sums : ndarray, shape (4, k)
        ``Σ w r²``, ``Σ w b²``, ``Σ w b``, ``Σ w``.
    moments : ndarray, shape (2, d)
        ``Σ w a`` and ``Σ w a²``.
    run : int
        Most rows summed before the sum was folded.
    doubled, plain : int
        Most additions that an entry of the doubled sums, and of the others, has been through since.
    """

    hi: np.ndarray
    lo: np.ndarray
    sums: np.ndarray
    moments: np.ndarray
    run: int = 0
    doubled: int = 0
    plain: int = 0


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
    norms : ndarray, shape (p,)
        ``√Σ w a²`` of the columns as given, and of the intercept.
    means : ndarray, shape (d,)
        ``Σ w a / Σ w``.
    plain_unit : float
        Relative error of ``rr``, ``bb``, ``total`` and ``norms``; of the means relative to ``norms / √total``.
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
    norms: np.ndarray
    means: np.ndarray
    plain_unit: float
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
    sparse : bool
    """

    TILE = 4096

    def __init__(self, x: np.ndarray, x0: np.ndarray, *, intercept: bool, sparse: bool):
        self._x = np.ascontiguousarray(x.T)
        self._x0 = x0
        self.p = len(x) + intercept
        self._sparse = sparse

    @property
    def state_nbytes(self) -> int:
        return 16 * self.p * (len(self._x) + 1)

    def start(self) -> GradientState:
        k, d = self._x.shape
        return GradientState(np.zeros((k, self.p)), np.zeros((k, self.p)), np.zeros((4, k)), np.zeros((2, d)))

    def update(self, state: GradientState, block: Block) -> GradientState:
        for data, target, weight in tiles(block, self.TILE):
            m, d = data.shape
            if isinstance(data, np.ndarray):
                run = _kernels.FLUSH
                _kernels.gradient_dense(
                    data, target, weight, self._x, self._x0, state.hi, state.lo, state.sums, state.moments
                )
            else:
                # Folding may take a quarter of the time that the entries between two folds take.
                run = int(min(max(_kernels.FLUSH, 4 * d * m // max(data.nnz, 1)), self.TILE))
                _kernels.gradient_sparse(
                    data.data, data.indices, data.indptr, d, target, weight, self._x, self._x0, run,
                    state.hi, state.lo, state.sums, state.moments,
                )  # fmt: skip
            state.run = max(state.run, run)
            state.doubled = max(state.doubled, -(-m // run)) + 1
            state.plain += -(-m // run) if isinstance(data, np.ndarray) else m
        return state

    def merge(self, a: GradientState, b: GradientState) -> GradientState:
        doubled.accumulate(a.hi, a.lo, b.hi, b.lo)
        a.sums += b.sums
        a.moments += b.moments
        a.run = max(a.run, b.run)
        a.doubled = max(a.doubled, b.doubled) + 1
        a.plain = max(a.plain, b.plain) + 1
        return a

    def finish(self, state: GradientState) -> GradientResult:
        # A doubled sum errs by its length squared in u² (a dense dot product runs LANES sums side by side, and folds
        # them), each addition of two doubled numbers by 4 u². A plain sum is of the runs, or of the columns of a tile.
        d = self._x.shape[1]
        dot = d + 4 if self._sparse else d / LANES + LANES + 8
        residual_unit = (dot**2 + 16) * U**2
        sum_unit = (1.5 * (state.run + 4) ** 2 + 4 * (state.doubled + 2)) * U**2
        rr, bb, bs, totals = state.sums
        total = float(totals[0])
        spread = bb - bs**2 / np.where(totals > 0, totals, 1.0)
        norms = np.sqrt(state.moments[1])
        if self.p > d:
            norms = np.append(norms, np.sqrt(total))
        return GradientResult(
            hi=state.hi.T.copy(),
            lo=state.lo.T.copy(),
            rr=rr,
            bb=bb,
            spread=spread,
            total=total,
            norms=norms,
            means=state.moments[0] / (total or 1.0),
            plain_unit=gamma(self.TILE + state.plain + 8),
            residual_unit=residual_unit,
            sum_unit=sum_unit,
        )


class PlainGradient(Reduction[np.ndarray, np.ndarray]):
    """The same gradient in float64, (p, k), as fast as memory can be read: enough to correct by, not to certify.

    Dense rows only.
    """

    TILE = 4096

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


class ProductGram(Reduction[Sum, MeasuredGram]):
    """Gram matrix (r, r) of Ā X for a given X (p, r): how far X is from whitening the data.

    With ``exact`` each entry of Ā X is right to a few units in its last place; without, it is a BLAS product.
    """

    TILE = 256

    def __init__(self, coordinates: Coordinates, x: np.ndarray, *, exact: bool):
        self.coordinates, self.exact = coordinates, exact
        self.x = np.ascontiguousarray(x)
        self._tile, self._scratch = TileGram(self.TILE, x.shape[1], np.float64), Scratch()

    @property
    def state_nbytes(self) -> int:
        return 8 * self.x.shape[1] ** 2

    @property
    def scratch_nbytes(self) -> int:
        p, r = self.x.shape
        return self._tile.nbytes + 8 * (self.TILE * p + 2 * r)

    def start(self) -> Sum:
        return Sum(np.zeros((self.x.shape[1],) * 2))

    def update(self, state: Sum, block: Block) -> Sum:
        c = self.coordinates
        p, r = self.x.shape
        packed = self._scratch.array("packed", (self.TILE, p))
        product = self._tile.memory()
        hi, lo = self._scratch.array("hi", (r,)), self._scratch.array("lo", (r,))
        for data, _, weight in tiles(block, self.TILE):
            m = data.shape[0]
            if self.exact:
                dense = data if isinstance(data, np.ndarray) else data.toarray()
                _kernels.multiply_doubled(
                    dense, c.shift, c.scale, _root(weight), c.intercept, self.x, hi, lo, product[:m]
                )
            else:
                np.matmul(pack((data, np.empty((m, 0)), weight), c, packed), self.x, out=product[:m, :r])
            _kernels.add_upper(state.matrix, self._tile.product(m))
            state.additions += 1
        return state

    def merge(self, a: Sum, b: Sum) -> Sum:
        return a.merge(b)

    def finish(self, state: Sum) -> MeasuredGram:
        # Of the product as it was rounded: how far that is from Ā X is another matter.
        return MeasuredGram(_symmetric(state.matrix), gamma(self.TILE + 4) + gamma(state.additions))
