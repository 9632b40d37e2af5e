"""Rows over NumPy arrays in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from leyden.errors import DataError
from leyden.rows.base import Block, Rows, as_array, as_target, check_numbers
from leyden.rows.stored import StoredArray


class ArrayRows(Rows):
    """A two-dimensional array, with target and weight as arrays of the same length.

    Blocks are views: nothing is copied.
    """

    in_memory = True

    def __init__(
        self,
        array: np.ndarray,
        *,
        target: Any = None,
        weight: Any = None,
        group: Any = None,
        columns: tuple[str, ...] | None = None,
        source: str = "array",
    ):
        check_array(array, source)
        self.array = array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
        self.shape, self.dtype, self.source = array.shape, array.dtype, source
        self.columns = columns or tuple(f"x{j}" for j in range(array.shape[1]))
        self._roles = Roles(target, weight, group, array.shape[0], source)
        self.targets, self.has_weight = self._roles.names, self._roles.weight is not None
        self.column_target = self._roles.column_target
        self.has_group = group is not None
        self.row_nbytes = array.shape[1] * array.itemsize + self._roles.row_nbytes
        self.stored_nbytes = int(self.row_nbytes * array.shape[0])

    def reader_nbytes(self, rows: int) -> float:
        return self._roles.reader_nbytes(rows)

    def read(self, start: int, stop: int, buffer: Any = None) -> Block:
        return Block(start, self.array[start:stop], *self._roles.read(start, stop))


class Roles:
    """Target, weight and group beside the rows they belong to: arrays in memory, or in ``.npy`` files."""

    def __init__(self, target: Any, weight: Any, group: Any, n: int, source: str):
        self.target: np.ndarray | StoredArray | None = None
        self.weight: np.ndarray | StoredArray | None = None
        self.group: np.ndarray | StoredArray | None = None
        self.names: tuple[str, ...] = ()
        if target is not None:
            self.target, self.names = as_target(target, n, source)
        self.column_target = len(self.names) == 1 and np.ndim(target) == 2
        if weight is not None:
            self.weight, names = as_target(weight, n, source, "weight")
            if len(names) != 1:
                raise DataError(f"the weight has {len(names)} columns, not one", where=source)
        if group is not None:
            self.group = as_array(group, source, "the group")
            if self.group.ndim != 1:
                raise DataError(f"the group has {self.group.ndim} dimensions, not one", where=source)
            if len(self.group) != n:
                raise DataError(f"the group has {len(self.group):,} rows and the data has {n:,}", where=source)
        group_nbytes = 0 if self.group is None else self.group.dtype.itemsize
        self.row_nbytes = 8 * (len(self.names) + (self.weight is not None)) + group_nbytes
        given = (self.target, self.weight, self.group)
        self.files = tuple(role.path for role in given if isinstance(role, StoredArray))

    def read(self, start: int, stop: int) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
        m = stop - start
        return (
            _floats(self.target[start:stop]).reshape(m, -1) if self.target is not None else None,
            _floats(self.weight[start:stop]).reshape(m) if self.weight is not None else None,
            self.group[start:stop] if self.group is not None else None,
        )

    def reader_nbytes(self, rows: int) -> float:
        """Of numbers in files, what is read before it is turned into float64."""
        read = [role for role in (self.target, self.weight) if isinstance(role, StoredArray)]
        return float(sum(rows * role.dtype.itemsize * (role.shape[1] if role.ndim > 1 else 1) for role in read))


def _floats(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.float64)


def check_array(array: np.ndarray | StoredArray, source: str) -> None:
    """Refuse arrays that no solver could use: not a table, empty, not of real numbers."""
    if array.ndim != 2:
        raise DataError(
            f"an array of {array.ndim} dimensions is not a table",
            where=source,
            hint="Rows need two dimensions: reshape it to (rows, columns).",
        )
    if array.shape[0] == 0 or array.shape[1] == 0:
        raise DataError(f"the table is empty ({array.shape[0]} rows, {array.shape[1]} columns)", where=source)
    check_numbers(array.dtype, source)
