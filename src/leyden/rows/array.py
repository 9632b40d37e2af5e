"""Rows over NumPy arrays in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from leyden.errors import DataError
from leyden.rows.base import Block, Rows, as_array, as_target, check_numbers


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

    def read(self, start: int, stop: int, buffer: Any = None) -> Block:
        return Block(start, self.array[start:stop], *self._roles.read(start, stop))


class Roles:
    """Target, weight and group arrays held in memory beside the rows they belong to."""

    def __init__(self, target: Any, weight: Any, group: Any, n: int, source: str):
        self.target: np.ndarray | None = None
        self.names: tuple[str, ...] = ()
        if target is not None:
            self.target, self.names = as_target(target, n, source)
        self.column_target = len(self.names) == 1 and np.ndim(target) == 2
        self.weight = as_target(weight, n, source, "weight")[0] if weight is not None else None
        if self.weight is not None:
            if self.weight.shape[1] != 1:
                raise DataError(f"the weight has {self.weight.shape[1]} columns, not one", where=source)
            self.weight = self.weight[:, 0]
        self.group = as_array(group, source, "the group") if group is not None else None
        if self.group is not None and self.group.ndim != 1:
            raise DataError(f"the group has {self.group.ndim} dimensions, not one", where=source)
        if self.group is not None and len(self.group) != n:
            raise DataError(f"the group has {len(self.group):,} rows and the data has {n:,}", where=source)
        self.row_nbytes = sum(a.itemsize * (a.shape[1] if a.ndim > 1 else 1) for a in self._arrays())

    def _arrays(self) -> list[np.ndarray]:
        return [a for a in (self.target, self.weight, self.group) if a is not None]

    def read(self, start: int, stop: int) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
        return (
            np.ascontiguousarray(self.target[start:stop], dtype=np.float64) if self.target is not None else None,
            np.ascontiguousarray(self.weight[start:stop], dtype=np.float64) if self.weight is not None else None,
            self.group[start:stop] if self.group is not None else None,
        )


def check_array(array: np.ndarray, source: str) -> None:
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
