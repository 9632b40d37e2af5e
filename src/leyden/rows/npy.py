"""Rows over .npy files, read straight into reused memory."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from leyden.errors import DataError
from leyden.rows.array import Roles, check_array
from leyden.rows.base import Block, Rows
from leyden.rows.remote import is_remote
from leyden.rows.stored import StoredArray


class NpyRows(Rows):
    """One ``.npy`` file in C order, read into buffers that are reused."""

    def __init__(self, path: str | os.PathLike, *, target: Any = None, weight: Any = None, group: Any = None):
        self.source = str(path)
        self._array = header = StoredArray(path)
        check_array(header, self.source)
        if header.fortran:
            raise DataError(
                "the array is stored column by column (Fortran order), so rows cannot be streamed",
                where=self.source,
                hint="Save it again with numpy.ascontiguousarray.",
            )
        if not header.dtype.isnative:
            raise DataError(
                "the numbers have the other byte order", where=self.source, hint="Save it with a native dtype."
            )
        self.shape, self.dtype = (int(header.shape[0]), int(header.shape[1])), header.dtype
        stride = self.shape[1] * self.dtype.itemsize
        self.columns = tuple(f"x{j}" for j in range(self.shape[1]))
        self._roles = Roles(target, weight, group, self.shape[0], self.source)
        self.targets, self.has_weight = self._roles.names, self._roles.weight is not None
        self.column_target = self._roles.column_target
        self.has_group, self.held = group is not None, self._roles.held
        self.files = (self._array.path, *self._roles.files)
        self.row_nbytes = stride + self._roles.row_nbytes
        self.stored_nbytes = stride * self.shape[0]
        self.decodes = is_remote(path)  # several reads at once hide what each has to wait

    def buffer(self, rows: int) -> np.ndarray:
        return np.empty((rows, self.shape[1]), self.dtype)

    def reader_nbytes(self, rows: int) -> float:
        return self._roles.reader_nbytes(rows)

    def read(self, start: int, stop: int, buffer: np.ndarray | None = None) -> Block:
        data = (buffer if buffer is not None else self.buffer(stop - start))[: stop - start]
        return Block(start, self._array.read(start, data), *self._roles.read(start, stop))
