r"""Items ranked by latent factors: the best k of each user, and the ranks of items that were held out.

The score of user i and item j is ``u_i · v_j + o_j``, summed in float64 in one fixed order: it depends on nothing but
the two rows and the offset. All that is said here is about these numbers, and holds exactly.

Most of them are never computed. A tile of users times a tile of items is scored by one product in the type of the
factors, and each of its entries is within

.. math:: δ = (γ_{d+4} + γ'_{d+4}) (‖u_i‖ \max_j ‖v_j‖ + \max_j |o_j|)

of the score, ``γ_n = n ε / (1 − n ε)`` with ε the roundoff of that type, γ' with that of float64 (N. J. Higham,
"Accuracy and Stability of Numerical Algorithms", 2002, § 3.1: in whatever order BLAS adds). Only what is that close to
a score it is compared with is scored again: for factors of float32 a few items in a hundred thousand. So the answer is
the same to the bit for any number of threads and any tiles, and the scores of no more than a tile a thread are in
memory. Where many items have equal scores all of these are scored again, which is slower.

Held-out items are ranked among all items but those of the same row of ``exclude``, never among a sample: ranks in a
sample order models differently (W. Krichene, S. Rendle, "On sampled metrics for item recommendation", KDD 2020). Other
held-out items of the user are candidates like any, as they were when the list was recommended; this is the protocol of
D. Liang, R. G. Krishnan, M. D. Hoffman, T. Jebara, "Variational autoencoders for collaborative filtering", WWW 2018,
and S. Rendle, W. Krichene, L. Zhang, Y. Koren, "Revisiting the performance of iALS on item recommendation benchmarks",
RecSys 2022. With one held-out item a user it is leave-one-out over the full catalogue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from leyden import options as check
from leyden.engine.budget import thread_count
from leyden.engine.local import single_threaded_blas
from leyden.engine.reduction import Scratch
from leyden.errors import DataError
from leyden.factor import _ranking_kernels
from leyden.rows.base import check_numbers
from leyden.rows.sparse import as_csr, csr_block, is_sparse
from leyden.solve.coordinates import exact_float
from leyden.solve.reductions import gamma

if TYPE_CHECKING:
    import scipy.sparse as sp

#: Users of a tile, and its bytes: large enough for a product at the speed of BLAS, small enough to be read again from
#: the processor's own cache.
TILE_USERS, TILE_NBYTES = 512, 2**20


def top_k(
    user_factors: Any,
    item_factors: Any,
    k: int,
    *,
    exclude: Any = None,
    item_offset: Any = None,
    threads: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The k items of highest score for each user.

    Parameters
    ----------
    user_factors : array_like, shape (m, d)
        Read in slices: it may be mapped from a file.
    item_factors : array_like, shape (n, d)
    k : int
    exclude : sparse matrix, shape (m, n), optional
        Items with an entry, whatever its value, are left out of the list of that user.
    item_offset : array_like, shape (n,), optional
        Added to the scores.
    threads : int, optional
        All processors by default.

    Returns
    -------
    indices : ndarray of int64, shape (m, k)
        Items by descending score; of equal scores, the lower index first. Where fewer than k items are left, −1.
    scores : ndarray of float64, shape (m, k)
        −∞ where there is no item.

    Raises
    ------
    DataError
        If shapes do not fit, or a number is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from leyden.factor.ranking import top_k
    >>> items, scores = top_k(np.array([[1.0, 0.0]]), np.array([[2.0, 1.0], [3.0, 0.0], [2.0, 5.0]]), 2)
    >>> items, scores
    (array([[1, 0]]), array([[3., 2.]]))
    """
    k = check.whole("k", k, 1, 2**31 - 1)
    users, catalogue = _read(user_factors, item_factors, item_offset)
    m = users.shape[0]
    out = csr_of("exclude", exclude, (m, catalogue.n))
    indices, scores = np.full((m, k), -1), np.full((m, k), -np.inf)

    def work(rows: np.ndarray) -> None:
        part, filled = slice(rows[0], rows[-1] + 1), np.zeros(len(rows), dtype=np.int64)
        u, norms = catalogue.users(users, rows)
        begin, end, best, found = out.indptr[rows], out.indptr[rows + 1], scores[part], indices[part]
        for first, tile, margin in catalogue.tiles(u, norms):
            scored = tile, u, catalogue.items, first, catalogue.offset, margin
            _ranking_kernels.select(*scored, begin, end, out.indices, best, found, filled)
        _ranking_kernels.order(best, found, filled)

    count = thread_number(threads)
    over_users(work, np.arange(m), tile_users(m, count), count)
    return indices, scores


@dataclass(frozen=True)
class HeldOutRanks:
    """Where held-out items stand among the candidates of their users.

    The rank of item q is anything from ``above[q] + 1`` to ``above[q] + tied[q]``.

    Attributes
    ----------
    indptr : ndarray of int64, shape (m + 1,)
        Those of user i are ``indptr[i]`` to ``indptr[i + 1]``.
    items : ndarray of int, shape (held-out items,)
    scores : ndarray of float64, shape (held-out items,)
    above : ndarray of int64, shape (held-out items,)
        How many candidates score strictly higher.
    tied : ndarray of int64, shape (held-out items,)
        How many have the same score, the item itself among them.
    """

    indptr: np.ndarray
    items: np.ndarray
    scores: np.ndarray
    above: np.ndarray
    tied: np.ndarray


def held_out_ranks(
    user_factors: Any,
    item_factors: Any,
    held_out: Any,
    *,
    exclude: Any = None,
    item_offset: Any = None,
    threads: int | None = None,
) -> HeldOutRanks:
    """The exact rank of every held-out item in the full catalogue.

    Parameters
    ----------
    user_factors : array_like, shape (m, d)
        Read in slices: it may be mapped from a file.
    item_factors : array_like, shape (n, d)
    held_out : sparse matrix, shape (m, n)
        Items with an entry, whatever its value, are ranked.
    exclude : sparse matrix, shape (m, n), optional
        Items with an entry, whatever its value, are no candidates for that user: those of the training set.
    item_offset : array_like, shape (n,), optional
        Added to the scores.
    threads : int, optional
        All processors by default.

    Returns
    -------
    HeldOutRanks

    Raises
    ------
    DataError
        If shapes do not fit, a number is not finite, or an item is both held out and excluded.

    See Also
    --------
    leyden.factor.metrics.ranking_metrics : What these ranks come to.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from leyden.factor.ranking import held_out_ranks
    >>> held_out = sp.csr_array(np.array([[0, 0, 1, 0]]))
    >>> ranks = held_out_ranks(np.array([[1.0]]), np.array([[2.0], [1.0], [1.0], [0.0]]), held_out)
    >>> ranks.above, ranks.tied
    (array([1]), array([2]))
    """
    users, catalogue = _read(user_factors, item_factors, item_offset)
    shape = users.shape[0], catalogue.n
    held, out = csr_of("held_out", held_out, shape), csr_of("exclude", exclude, shape)
    target, (twin, above, tied) = np.empty(held.nnz), np.empty((3, held.nnz), np.int64)

    def work(rows: np.ndarray) -> None:
        begin, end = held.indptr[rows], held.indptr[rows + 1]
        u, norms = catalogue.users(users, rows)
        known = begin, end, held.indices, out.indptr[rows], out.indptr[rows + 1], out.indices
        twice = _ranking_kernels.begin_ranks(u, catalogue.items, catalogue.offset, *known, target, twin, above, tied)
        if twice >= 0:
            raise DataError(
                "an item is both held out and excluded",
                where=f"user row {rows[twice]}",
                hint="Take held-out entries out of exclude: what was trained on cannot be held out.",
            )
        for first, tile, margin in catalogue.tiles(u, norms):
            scored = tile, u, catalogue.items, first, catalogue.offset, margin
            _ranking_kernels.rank(*scored, begin, end, target, twin, above, tied)

    rows, count = np.flatnonzero(np.diff(held.indptr)), thread_number(threads)
    over_users(work, rows, tile_users(len(rows), count), count)
    return HeldOutRanks(held.indptr, held.indices, target, above, tied)


class Catalogue:
    """The items, scored tile by tile with a bound on the error.

    Parameters
    ----------
    item_factors : ndarray, shape (n, d)
    item_offset : ndarray of float64, shape (n,) or (0,)
    dtype : float32 or float64
    """

    def __init__(self, item_factors: np.ndarray, item_offset: np.ndarray, dtype: Any):
        self.items, self.offset = np.ascontiguousarray(item_factors, dtype), item_offset
        self.n, d = self.items.shape
        self.norms = finite_norms(self.items, "item_factors")
        limits = np.finfo(self.items.dtype)
        self._unit = gamma(d + 4, float(limits.eps) / 2) + gamma(d + 4)
        self._tiny, self._largest = (d + 4) * float(limits.tiny), float(limits.max) / 4
        self._shifted = bool(item_offset.any())
        self._scratch = Scratch()

    def users(self, user_factors: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Factors of the users of ``rows``, in the type of the items, and their lengths."""
        factors = np.ascontiguousarray(user_factors[rows], self.items.dtype)
        return factors, finite_norms(factors, "user_factors", rows)

    def tiles(self, users: np.ndarray, norms: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Tiles of scores of these users: the first item, the scores, and bounds on their errors."""
        dtype, m = self.items.dtype, len(users)
        width = max(1, TILE_NBYTES // (dtype.itemsize * m))
        memory = self._scratch.array("tile", (m * min(width, self.n),), dtype)
        for first in range(0, self.n, width):
            part = slice(first, min(first + width, self.n))
            offset = self.offset[part]
            with np.errstate(over="ignore"):
                size = norms * self.norms[part].max() + np.abs(offset).max(initial=0.0)
            if not size.max() < self._largest:
                raise DataError(
                    f"factors are so large that scores may not be numbers of {dtype}",
                    hint="Rescale them" + (", or give them in float64." if dtype == np.float32 else "."),
                )
            tile = memory[: m * (part.stop - first)].reshape(m, -1)
            np.matmul(users, self.items[part].T, out=tile)
            if self._shifted:
                tile += offset.astype(dtype)
            exact = (norms == 0) & (not self._shifted)
            yield first, tile, np.where(exact, 0.0, self._unit * size + self._tiny)


def over_users(work: Callable[[np.ndarray], Any], rows: np.ndarray, count: int, threads: int) -> list[Any]:
    """What ``work`` makes of each ``count`` of the rows, in threads."""
    with single_threaded_blas(), ThreadPoolExecutor(threads, "leyden") as pool:
        return list(pool.map(work, (rows[start : start + count] for start in range(0, len(rows), count))))


def tile_users(users: int, threads: int) -> int:
    """Users of a tile: fewer where there are not enough to go round. Ranks do not depend on it."""
    return max(1, min(TILE_USERS, -(-users // threads)))


def thread_number(threads: Any) -> int:
    """The number asked for, or that of all processors."""
    return check.threads(threads) or thread_count()


def _read(user_factors: Any, item_factors: Any, item_offset: Any) -> tuple[np.ndarray, Catalogue]:
    """The users as they are, and the items ready to be scored."""
    users, items, dtype = factors_of(user_factors, item_factors)
    return users, Catalogue(items, offset_of("item_offset", item_offset, len(items)), dtype)


def factors_of(user_factors: Any, item_factors: Any) -> tuple[np.ndarray, np.ndarray, np.dtype]:
    """Both as matrices of as many columns, and the type to multiply them in."""
    users, items = matrix_of("user_factors", user_factors), matrix_of("item_factors", item_factors)
    if users.shape[1] != items.shape[1]:
        raise DataError(f"user_factors has {users.shape[1]} columns, item_factors {items.shape[1]}")
    return users, items, np.result_type(exact_float(users.dtype), exact_float(items.dtype))


def matrix_of(name: str, factors: Any) -> np.ndarray:
    """Factors as a matrix of real numbers, of whatever type."""
    matrix = np.asarray(factors)
    check_numbers(matrix.dtype, name)
    if matrix.ndim != 2:
        raise DataError(f"an array of shape {matrix.shape} is not a matrix with a row each", where=name)
    return matrix


def offset_of(name: str, offset: Any, count: int) -> np.ndarray:
    """One finite number each in float64, or an empty array for none."""
    if offset is None:
        return np.empty(0)
    values = np.asarray(offset)
    check_numbers(values.dtype, name)
    if values.shape != (count,):
        raise DataError(f"its shape is {values.shape}, not ({count},)", where=name)
    values = np.ascontiguousarray(values, np.float64)
    if not np.isfinite(values).all():
        raise DataError("a number is not finite", where=f"{name}[{np.argmin(np.isfinite(values))}]")
    return values


def csr_of(name: str, matrix: Any, shape: tuple[int, int]) -> sp.csr_array:
    """A sparse matrix of this shape as canonical CSR with 64-bit row pointers; None is one without entries."""
    if matrix is None or (0 in shape and is_sparse(matrix) and matrix.shape == shape):
        return csr_block(np.empty(0), np.empty(0, dtype=np.int32), np.zeros(shape[0] + 1, dtype=np.int64), shape)
    if not is_sparse(matrix):
        raise DataError(
            f"{type(matrix).__name__} is not a sparse matrix",
            where=name,
            hint="Give a scipy.sparse array with a row a user and a column an item.",
        )
    if matrix.shape != shape:
        raise DataError(f"its shape is {matrix.shape}, not {shape}: a row a user, a column an item", where=name)
    matrix = as_csr(matrix, name)
    return csr_block(matrix.data, matrix.indices, matrix.indptr.astype(np.int64, copy=False), shape)


def finite_norms(a: np.ndarray, name: str, rows: np.ndarray | None = None) -> np.ndarray:
    """Lengths of the rows of ``a`` (m, d), all of whose entries must be finite; they are rows ``rows`` of the whole."""
    norms = np.empty(len(a))
    _ranking_kernels.row_norms(a, norms)
    wrong = np.isnan(norms)
    if wrong.any():
        row = int(np.argmax(wrong))
        column = int(np.argmin(np.isfinite(a[row])))
        raise DataError(
            f"{a[row, column]} is not a finite number",
            where=f"{name}, row {row if rows is None else rows[row]}, column {column}",
        )
    return norms
