"""Rows over a SciPy sparse matrix in memory.

SciPy's sparse matrices are imported when the first one is met: dense data do without, and start sooner.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from leyden.errors import DataError
from leyden.rows.array import Roles
from leyden.rows.base import Block, Rows, check_numbers

if TYPE_CHECKING:
    import scipy.sparse as sp


def is_sparse(matrix: Any) -> bool:
    """Whether this is one of SciPy's sparse matrices or arrays."""
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and bool(sparse.issparse(matrix))


class CSRRows(Rows):
    """A sparse matrix in memory, with target, weight and group as arrays of the same length.

    Whatever format comes in is turned into CSR once, with sorted column indices and duplicates summed. The data and the
    indices of a block are views: only the row pointers are rebased.
    """

    in_memory = True
    is_sparse = True

    def __init__(
        self,
        matrix: Any,
        *,
        target: Any = None,
        weight: Any = None,
        group: Any = None,
        columns: tuple[str, ...] | None = None,
        source: str = "sparse matrix",
    ):
        self.matrix = as_csr(matrix, source)
        n, d = int(self.matrix.shape[0]), int(self.matrix.shape[1])
        self.shape, self.dtype, self.source = (n, d), self.matrix.dtype, source
        self.columns = columns or tuple(f"x{j}" for j in range(d))
        self._roles = Roles(target, weight, group, n, source)
        self.targets, self.has_weight = self._roles.names, self._roles.weight is not None
        self.column_target = self._roles.column_target
        self.has_group = group is not None
        data, indices, indptr = self.matrix.data, self.matrix.indices, self.matrix.indptr
        self.stored_nbytes = int(data.nbytes + indices.nbytes + indptr.nbytes + self._roles.row_nbytes * n)
        self.row_nbytes = self.stored_nbytes / n

    def reader_nbytes(self, rows: int) -> float:
        return self._roles.reader_nbytes(rows)

    def read(self, start: int, stop: int, buffer: Any = None) -> Block:
        return Block(start, csr_rows(self.matrix, start, stop), *self._roles.read(start, stop))


def csr_block(data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, shape: tuple[int, int]) -> sp.csr_array:
    """A CSR array of these three arrays as they are, known to be canonical.

    The constructor of SciPy would walk through 64-bit indices, and copy them, to see whether 32 bits are enough.
    """
    from scipy.sparse import csr_array

    block = csr_array(shape, dtype=data.dtype)
    block.data, block.indices, block.indptr = data, indices, indptr
    block.has_canonical_format = True
    return block


def csr_rows(a: sp.csr_array, start: int, stop: int) -> sp.csr_array:
    """Rows ``start`` to ``stop`` of a canonical array, as views of its data and indices."""
    first, last = a.indptr[start], a.indptr[stop]
    pointers = a.indptr[start : stop + 1] - first
    return csr_block(a.data[first:last], a.indices[first:last], pointers, (stop - start, a.shape[1]))


def stack(parts: list[Any]) -> sp.csr_array:
    """Canonical arrays of the same columns, one below the other."""
    from scipy.sparse import csr_array, vstack

    stacked = csr_array(vstack(parts, format="csr")) if len(parts) > 1 else parts[0]
    stacked.has_canonical_format = True
    return stacked


def as_csr(matrix: Any, source: str) -> sp.csr_array:
    """Any sparse matrix as canonical CSR; the caller's own matrix is not touched."""
    if matrix.ndim != 2:
        raise DataError(f"a sparse array of {matrix.ndim} dimensions is not a table", where=source)
    if matrix.shape[0] == 0 or matrix.shape[1] == 0:
        raise DataError(f"the table is empty ({matrix.shape[0]} rows, {matrix.shape[1]} columns)", where=source)
    check_numbers(matrix.dtype, source)
    from scipy.sparse import csr_array

    a = csr_array(matrix)
    try:
        a.check_format(full_check=True)
    except ValueError as error:
        raise DataError(f"the sparse matrix is not valid ({error})", where=source) from None
    if not a.dtype.isnative:
        a = a.astype(a.dtype.newbyteorder("="))
    if not a.has_canonical_format:
        a = a.copy()
        a.sum_duplicates()
    return a
