"""Rows: a matrix seen as an ordered, re-readable stream of row blocks."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from leyden.errors import DataError
from leyden.rows.stored import StoredArray

if TYPE_CHECKING:
    import scipy.sparse as sp

Matrix: TypeAlias = "np.ndarray | sp.csr_array"


@dataclass(frozen=True, slots=True)
class Block:
    """A slice of consecutive rows.

    Attributes
    ----------
    start : int
        Index, in the whole stream, of the first row.
    data : ndarray or csr_array, shape (m, d)
        The rows, C-contiguous when dense. A block may be a view of memory that the next read reuses.
    target : ndarray of float64, shape (m, k), or None
    weight : ndarray of float64, shape (m,), or None
    group : ndarray, shape (m,), or None
    """

    start: int
    data: Matrix
    target: np.ndarray | None = None
    weight: np.ndarray | None = None
    group: np.ndarray | None = None

    @property
    def rows(self) -> int:
        return self.data.shape[0]

    def with_data(self, data: Matrix) -> Block:
        """The same rows and roles with other columns."""
        return replace(self, data=data)


class Rows(ABC):
    """An ordered, re-readable stream of row blocks.

    A subclass sets the attributes below in its constructor and implements :meth:`read`. ``read`` is called from several
    threads at once, each asking for consecutive ranges, and must be safe under that.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns (roles such as the target are not columns).
    dtype : numpy.dtype
        Of the data in the blocks.
    columns : tuple of str
        A name for each column.
    targets : tuple of str
        A name for each target column; empty when there is no target.
    labels : tuple of str, or None
        What the numbers of a target that is text stand for.
    column_target : bool
        Whether the only target was given as an array of shape (n, 1): answers then have two dimensions as well.
    has_weight, has_group : bool
    is_sparse : bool
        Whether blocks hold CSR matrices.
    in_memory : bool
        Whether ``read`` returns views of memory that is there already, so that reading ahead gains nothing.
    decodes : bool
        Whether ``read`` mostly computes (parses, decodes, maps), so that several threads should read at once. A plain
        file is read fastest by one.
    row_nbytes : float
        Bytes of memory one row of a block takes, roles included (the mean, when sparse).
    stored_nbytes : int
        Bytes that one pass over all rows reads from storage or memory.
    piece_rows : int
        Where it costs least to begin reading: at the multiples of this number (about, when row groups differ in
        length). A read that begins elsewhere decodes, or makes, what stands before it in its piece. 1: anywhere.
    source : str
        Where the data comes from, for people: a path, a glob, "array".
    files : tuple of str
        Paths of the files that are read again in every pass; none when the data is in memory.
    held : tuple of ndarray
        Target and weight where they are in memory, beside data in files.
    """

    shape: tuple[int, int]
    dtype: np.dtype
    columns: tuple[str, ...]
    targets: tuple[str, ...] = ()
    column_target: bool = False
    labels: tuple[str, ...] | None = None
    has_weight: bool = False
    has_group: bool = False
    is_sparse: bool = False
    in_memory: bool = False
    decodes: bool = False
    row_nbytes: float
    stored_nbytes: int
    piece_rows: int = 1
    source: str
    files: tuple[str, ...] = ()
    held: tuple[np.ndarray, ...] = ()

    @abstractmethod
    def read(self, start: int, stop: int, buffer: Any = None) -> Block:
        """Rows ``start`` to ``stop`` (exclusive).

        Parameters
        ----------
        start, stop : int
            ``0 <= start < stop <= shape[0]``.
        buffer : optional
            Memory from :meth:`buffer`, at least ``stop - start`` rows long, that the block may be a view of.
        """

    def buffer(self, rows: int) -> Any:
        """Memory for blocks of up to ``rows`` rows that reads can reuse, or None when this stream needs none."""
        return None

    def reader_nbytes(self, rows: int) -> float:
        """Bytes that a thread which reads blocks of ``rows`` rows holds besides them.

        An upper estimate, linear in ``rows``: decoders, the piece being parsed, what a block is put together from.
        """
        return 0.0

    def release(self) -> None:
        """Forget what the calling thread holds in order to read on from where it was."""
        return None

    def locate(self, row: int) -> str:
        """Where row ``row`` (0-based, of the stream) stands in the source, for an error message."""
        return f"{self.source}, row {row:,}"

    def map(self, f: RowMap) -> Rows:
        """These rows with ``f`` applied to every block while reading."""
        from leyden.rows.mapped import MappedRows

        return MappedRows(self, f)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        n, d = self.shape
        kind = "sparse" if self.is_sparse else "dense"
        roles = [f"target={', '.join(self.targets)}"] if self.targets else []
        roles += [role for role, there in (("weight", self.has_weight), ("group", self.has_group)) if there]
        return f"<Rows {n:,} × {d:,} {self.dtype} {kind} from {self.source}{'; ' if roles else ''}{'; '.join(roles)}>"


class PerThread(threading.local):
    """What each thread holds in order to read on from where it was; pickled, it is empty."""

    def clear(self) -> None:
        """Forget what the calling thread holds."""
        self.__dict__.clear()

    def __reduce__(self) -> tuple[type[PerThread], tuple[()]]:
        return PerThread, ()


class RowMap(ABC):
    """A function of a block's rows, applied while reading."""

    def bind(self, rows: Rows) -> RowMap:
        """This map made ready for these rows: names resolved, sizes checked, impossible requests refused."""
        return self

    @abstractmethod
    def __call__(self, block: Block) -> Block:
        """The mapped block: the same rows, other columns. The data of ``block`` must not be changed."""

    def into(self, block: Block, out: np.ndarray) -> Block:
        """The mapped block, when it is dense, in the memory ``out`` (m, columns) if the map can use it."""
        return self(block)

    def sparse(self, sparse: bool) -> bool:
        """Whether mapped blocks are sparse, given whether those of the input are."""
        return sparse

    def sparse_nbytes(self, rows: Rows) -> float:
        """Bytes that a mapped row takes, the mean, when mapped blocks are sparse."""
        return rows.row_nbytes

    @abstractmethod
    def columns(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the mapped columns, given those of the input."""

    def dtype(self, dtype: np.dtype) -> np.dtype:
        """Type of the mapped data, given that of the input."""
        return dtype


def as_array(values: Any, source: str, what: str = "the data") -> Any:
    """What NumPy makes of an array, a list or a data frame; masked values and ragged lists are refused.

    An array in a file stays there.
    """
    if isinstance(values, StoredArray):
        return values
    if np.ma.is_masked(values):
        raise DataError(f"{what} is masked in places", where=source, hint="Fill the masked values or drop the rows.")
    try:
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        ragged = "inhomogeneous" in str(error)
        why = "its rows have different lengths" if ragged else f"{type(error).__name__}: {error}"
        raise DataError(f"{what} cannot be seen as an array ({why})", where=source) from None


def check_numbers(dtype: np.dtype, source: str, what: str = "the data") -> None:
    """Refuse what is not real numbers: complex ones, dates and times, Python objects, text."""
    if dtype.kind in "fiub":
        return
    if dtype.kind == "c":
        raise DataError(f"{what} is complex; Leyden solves real problems", where=source)
    if dtype.kind in "mM":
        raise DataError(
            f"{what} holds dates or times ({dtype}), not numbers",
            where=source,
            hint="Turn it into numbers first (hours since a date, say).",
        )
    held = "Python objects" if dtype.kind == "O" else f"values of type {dtype}"
    raise DataError(
        f"{what} holds {held}, not numbers", where=source, hint="Convert it first: numpy.asarray(..., dtype=float)."
    )


def as_target(
    target: Any, n: int, source: str, role: str = "target"
) -> tuple[np.ndarray | StoredArray, tuple[str, ...]]:
    """A target as an array of n rows, with names for its columns."""
    array = as_array(target, source, f"the {role}")
    if array.ndim not in (1, 2):
        raise DataError(
            f"the {role} must be one or two numeric dimensions, not {array.ndim} of {array.dtype}", where=source
        )
    check_numbers(array.dtype, source, f"the {role}")
    if len(array) != n:
        raise DataError(
            f"the {role} has {len(array):,} rows and the data has {n:,}",
            where=source,
            hint="Give one value for each row.",
        )
    return array, role_names(role, array.shape[1] if array.ndim == 2 else 1)


def role_names(role: str, k: int) -> tuple[str, ...]:
    """Names for the k columns of a role that has none of its own."""
    return (role,) if k == 1 else tuple(f"{role}{i}" for i in range(k))


#: Blocks in which NaN and infinity are looked for: small, for much else is in memory by then.
SEARCHED_NBYTES = 2**20


def find_nonfinite(rows: Rows, block_rows: int) -> DataError | None:
    """The first NaN or infinity in the stream, as the error to raise; None when every value is finite."""
    block_rows = max(1, min(block_rows, int(SEARCHED_NBYTES / max(rows.row_nbytes, 1))))
    buffer = rows.buffer(block_rows)
    try:
        for start in range(0, rows.shape[0], block_rows):
            block = rows.read(start, min(start + block_rows, rows.shape[0]), buffer)
            if error := _nonfinite_in(rows, block):
                return error
    finally:
        rows.release()
    return None


def _nonfinite_in(rows: Rows, block: Block) -> DataError | None:
    found: list[tuple[int, str, float]] = []

    def note(row: Any, column: str, value: Any) -> None:
        found.append((block.start + int(row), column, float(value)))

    data = block.data
    if isinstance(data, np.ndarray):
        if not np.isfinite(data).all():
            i, j = np.argwhere(~np.isfinite(data))[0]
            note(i, rows.columns[j], data[i, j])
    elif not np.isfinite(data.data).all():
        k = int(np.flatnonzero(~np.isfinite(data.data))[0])
        note(np.searchsorted(data.indptr, k, side="right") - 1, rows.columns[data.indices[k]], data.data[k])
    if block.target is not None and not np.isfinite(block.target).all():
        i, j = np.argwhere(~np.isfinite(block.target))[0]
        note(i, rows.targets[j], block.target[i, j])
    if block.weight is not None and not (np.isfinite(block.weight) & (block.weight >= 0)).all():
        i = np.flatnonzero(~(np.isfinite(block.weight) & (block.weight >= 0)))[0]
        note(i, "weight", block.weight[i])
    if not found:
        return None
    row, column, value = min(found)
    if column == "weight" and np.isfinite(value):
        return DataError(f"weight {value:g} is negative", where=rows.locate(row), hint="Weights must be zero or more.")
    name = "NaN" if np.isnan(value) else "infinity"
    return DataError(
        f"{name} in column '{column}'",
        where=rows.locate(row),
        hint="Remove or fill such values first, or leave the column out.",
    )
