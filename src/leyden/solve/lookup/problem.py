"""What a mixed model with features by lookup is made of: a table, a covariance, fixed features of items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from leyden import aligned
from leyden.errors import DataError, OptionError
from leyden.factor.half_step import padded
from leyden.rows import Rows
from leyden.rows.base import check_numbers
from leyden.rows.sparse import as_csr, csr_block, is_sparse

#: Columns are called dependent when what is left of one, beside the others, is below this many roundoffs of it.
DEPENDENT = 8


@dataclass(frozen=True, eq=False)
class Features:
    """Sparse fixed features of items (CSR).

    Attributes
    ----------
    starts : int64, shape (items + 1,)
    columns : int64
    weights : float64
    p : int
    names : tuple of str
    """

    starts: np.ndarray
    columns: np.ndarray
    weights: np.ndarray
    p: int
    names: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        return self.starts.nbytes + self.columns.nbytes + self.weights.nbytes

    @property
    def codes(self) -> np.ndarray:
        """The column of each item where each item has exactly one, of weight one; empty otherwise."""
        alike = (np.diff(self.starts) == 1).all() and (self.weights == 1).all()
        return self.columns.astype(np.int32) if alike else np.empty(0, np.int32)

    def matrix(self) -> Any:
        """As a SciPy array, (items, p)."""
        return csr_block(self.weights, self.columns, self.starts, (len(self.starts) - 1, self.p))

    def chosen(self, kept: np.ndarray) -> Features:
        """These columns alone, in the order given."""
        place = np.full(self.p, -1, np.int64)
        place[kept] = np.arange(len(kept))
        there = place[self.columns] >= 0
        before = np.concatenate([[0], np.cumsum(there)])
        names = tuple(self.names[j] for j in kept)
        return Features(
            before[self.starts], place[self.columns[there]], self.weights[there], len(kept), names
        )  # fmt: skip


def fixed_features(fixed: Any, items: int) -> Features:
    """Features of what a user gave as ``fixed``; see :func:`leyden.solve.lookup.model.lookup_mixed`.

    Raises
    ------
    DataError
        Of another number of items, codes below zero, or numbers that are not finite.
    """
    if fixed is None:
        return Features(np.arange(items + 1), np.zeros(items, np.int64), np.ones(items), 1, ("mean",))
    if is_sparse(fixed):
        a = as_csr(fixed, "fixed")
    else:
        array = np.asarray(fixed)
        check_numbers(array.dtype, "fixed")
        if array.ndim not in (1, 2) or array.shape[0] != items or array.size == 0:
            raise DataError(
                f"fixed is of shape {array.shape}: there are {items:,} items",
                hint="Give one row of codes or of numbers for each item.",
            )
        a = _of_codes(array, items) if array.dtype.kind in "iu" else _of_numbers(array)
    if a.shape[0] != items:
        raise DataError(f"fixed has {a.shape[0]:,} rows: there are {items:,} items")
    if not np.isfinite(a.data).all():
        item = int(np.searchsorted(a.indptr, int(np.flatnonzero(~np.isfinite(a.data))[0]), side="right")) - 1
        raise DataError("a fixed feature is not a finite number", where=f"fixed, item {item}")
    p = int(a.shape[1])
    return Features(
        a.indptr.astype(np.int64), a.indices.astype(np.int64), a.data.astype(np.float64), p, tuple(map(str, range(p)))
    )


def _of_codes(codes: np.ndarray, items: int) -> Any:
    from scipy.sparse import csr_array

    codes = codes.reshape(items, -1)
    if codes.min() < 0:
        item = int(np.flatnonzero((codes < 0).any(axis=1))[0])
        raise DataError("a code is below zero", where=f"fixed, item {item}", hint="Number categories from 0 on.")
    pointers = np.arange(items + 1) * codes.shape[1]
    p = int(codes.max()) + 1
    return as_csr(csr_array((np.ones(codes.size), codes.ravel().astype(np.int64), pointers), (items, p)), "fixed")


def _of_numbers(table: np.ndarray) -> Any:
    from scipy.sparse import csr_array

    return as_csr(csr_array(table.reshape(len(table), -1).astype(np.float64)), "fixed")


def independent(features: Features, counts: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns to keep, the most used first; those that no row has; those that others add up to.

    ``S = Xᵀ M⁻¹ X`` is singular exactly where ``XᵀX`` is, which the items and their numbers of rows tell without a look
    at the rows: a Cholesky factorization with pivoting finds which columns are sums of others.
    """
    there = counts > 0
    x = features.matrix()
    uses = np.bincount(
        features.columns, np.repeat(np.where(there, counts, 0), np.diff(features.starts)) * (features.weights != 0),
        minlength=features.p,
    )  # fmt: skip
    order = np.argsort(-uses, kind="stable")
    used, unused = order[uses[order] > 0], np.sort(order[uses[order] == 0])
    if ridge or len(features.codes) or len(used) == 0:
        return used, unused, np.empty(0, np.int64)
    from scipy.linalg.lapack import dpstrf

    x = x[:, used].multiply(np.sqrt(counts.astype(np.float64))[:, None]).tocsr()
    gram = (x.T @ x).toarray()
    size = np.sqrt(np.diag(gram))
    gram /= np.outer(size, size)
    _, pivots, rank, _ = dpstrf(gram, tol=DEPENDENT * len(gram) * 2.0**-53, lower=1)
    kept = np.sort(pivots[:rank] - 1)
    return used[kept], unused, np.sort(used[np.setdiff1d(np.arange(len(used)), kept)])


def item_counts(rows: Rows) -> np.ndarray:
    """Rows of each item."""
    known = getattr(rows, "item_counts", None)
    if known is not None:
        return np.asarray(known)
    counts = np.zeros(rows.shape[1], np.int64)
    length = max(1, int(2**25 / max(rows.row_nbytes, 1)))
    buffer = rows.buffer(min(length, rows.shape[0]))
    for start in range(0, rows.shape[0], length):
        data: Any = rows.read(start, min(start + length, rows.shape[0]), buffer).data
        counts += np.bincount(data.indices, minlength=len(counts))
    return counts


@dataclass(frozen=True, eq=False)
class Table:
    """Random features of items, in coordinates in which the covariance of a group's coefficients is a diagonal.

    Attributes
    ----------
    f : float32, shape (items, width)
        Zeros in the columns that fill the last vector.
    delta : float64, shape (width,)
        The relative covariance, zero where there is no feature.
    root : float64, shape (k, k), or None
        With a full covariance: ``Λ``, ``Δ = Λ Λᵀ``. ``f`` is ``F Λ``, rounded, and a group's coefficients are ``Λ v``.
    k : int
    """

    f: np.ndarray
    delta: np.ndarray
    root: np.ndarray | None
    k: int

    @classmethod
    def of(cls, f: np.ndarray, delta: np.ndarray, root: np.ndarray | None, k: int) -> Table:
        """Of a table (items, k) and a diagonal (k,)."""
        held = aligned.empty((len(f), padded(k)), np.float32)
        held[:, :k], held[:, k:] = f, 0
        return cls(held, np.append(delta, np.zeros(held.shape[1] - k)), root, k)


def random_features(table: Any, items: int, covariance: Any, intercept: bool) -> Table:
    """The table of what a user gave as ``table`` and ``covariance`` of ``lookup_mixed``."""
    f = np.asarray(table)
    check_numbers(f.dtype, "table")
    if f.ndim != 2 or len(f) != items:
        raise DataError(f"the table is of shape {f.shape}: there are {items:,} items", hint="Give one row for each.")
    with np.errstate(over="ignore"):
        f = f.astype(np.float32, copy=False)
    if not np.isfinite(f).all():
        item = int(np.flatnonzero(~np.isfinite(f).all(axis=1))[0])
        raise DataError("a number is not finite in float32", where=f"table, item {item}")
    k = f.shape[1] + intercept
    if k == 0:
        raise DataError("the table has no columns", hint="Give intercept=True, or a table with columns.")
    diagonal, root = _covariance(covariance, k)
    if intercept:
        f = np.column_stack([f, np.ones(items, np.float32)])
    return Table.of(f if root is None else f.astype(np.float64) @ root, diagonal, root, k)


def _covariance(covariance: Any, k: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The diagonal of the covariance, and its root when it has more than a diagonal."""
    try:
        given = np.asarray(covariance, np.float64)
    except (TypeError, ValueError):
        raise OptionError(f"covariance={covariance!r} is not an array of numbers") from None
    if given.shape not in ((), (k,), (k, k)) or not np.isfinite(given).all():
        raise OptionError(
            f"covariance is of shape {given.shape}, not a number, ({k},) or ({k}, {k}) of finite numbers",
            hint="A random intercept, if there is one, is the last coefficient.",
        )
    if given.ndim < 2:
        if (given < 0).any():
            raise OptionError("a variance is below zero")
        return np.broadcast_to(given, (k,)), None
    values, vectors = np.linalg.eigh((given + given.T) / 2)
    if np.abs(given - given.T).max() > 1e-12 * np.abs(given).max() or values[0] < -1e-12 * abs(values[-1]):
        raise OptionError("the covariance is not symmetric and positive semidefinite")
    return np.ones(k), vectors * np.sqrt(np.maximum(values, 0.0))
