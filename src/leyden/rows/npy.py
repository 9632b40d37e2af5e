"""Rows over .npy files, read straight into reused memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from leyden.errors import DataError
from leyden.rows.array import Roles, check_array
from leyden.rows.base import Block, Rows


class NpyRows(Rows):
    """One ``.npy`` file in C order.

    The file is read with ``preadv`` into buffers that are reused, not mapped: pages of a mapped file would count as
    memory of the process, and their first touch costs more than the read.
    """

    def __init__(self, path: str | os.PathLike, *, target: Any = None, weight: Any = None, group: Any = None):
        self.path = Path(path)
        self.source, self.files = str(path), (str(path),)
        try:
            # Mapping reads the header, and checks the length of the file against it, without touching the data.
            header = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise DataError("there is no such file", where=self.source) from None
        except (ValueError, EOFError, OSError) as error:
            raise DataError(
                f"this is not a complete .npy file ({error})",
                where=self.source,
                hint="It may be truncated: write it again.",
            ) from None
        check_array(header, self.source)
        if not header.flags.c_contiguous and header.shape[0] > 1 and header.shape[1] > 1:
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
        self._offset = int(header.offset)
        self._stride = self.shape[1] * self.dtype.itemsize
        self.columns = tuple(f"x{j}" for j in range(self.shape[1]))
        self._roles = Roles(target, weight, group, self.shape[0], self.source)
        self.targets, self.has_weight = self._roles.names, self._roles.weight is not None
        self.has_group, self.held = group is not None, self._roles.held
        self.row_nbytes = self._stride + self._roles.row_nbytes
        self.stored_nbytes = self._stride * self.shape[0]
        del header
        self._fd = os.open(self.path, os.O_RDONLY)

    def __del__(self) -> None:
        if (fd := getattr(self, "_fd", None)) is not None:
            os.close(fd)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_fd"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        try:
            self._fd = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise DataError(f"the file cannot be opened here ({error.strerror})", where=self.source) from None

    def buffer(self, rows: int) -> np.ndarray:
        return np.empty((rows, self.shape[1]), self.dtype)

    def read(self, start: int, stop: int, buffer: np.ndarray | None = None) -> Block:
        data = (buffer if buffer is not None else self.buffer(stop - start))[: stop - start]
        view = memoryview(data.data).cast("B")
        done = 0
        while done < len(view):
            count = os.preadv(self._fd, [view[done:]], self._offset + start * self._stride + done)
            if count == 0:
                row = start + done // self._stride
                raise DataError(
                    f"the file ends at row {row:,} of {self.shape[0]:,}",
                    where=self.source,
                    hint="It was shortened while being read: write it again.",
                )
            done += count
        return Block(start, data, *self._roles.read(start, stop))
