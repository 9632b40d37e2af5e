"""Rows over .npy files, read straight into reused memory."""

from __future__ import annotations

import math
import os
import platform
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic

from leyden.errors import DataError, LeydenError
from leyden.rows.array import Roles, check_array
from leyden.rows.base import Block, Rows
from leyden.rows.remote import is_remote, open_binary, read_range, size


class NpyRows(Rows):
    """One ``.npy`` file in C order.

    The file is read with ``preadv`` into buffers that are reused, not mapped: pages of a mapped file would count as
    memory of the process, and their first touch costs more than the read.
    """

    def __init__(self, path: str | os.PathLike, *, target: Any = None, weight: Any = None, group: Any = None):
        self.path = Path(path)
        self._fd: int | None = None
        self.source, self.files = str(path), (str(path),)
        try:
            header, fortran, self._offset = _remote_header(self.source) if is_remote(path) else _header(self.path)
        except LeydenError:
            raise
        except FileNotFoundError:
            raise DataError("there is no such file", where=self.source) from None
        except (ValueError, EOFError, OSError) as error:
            raise DataError(
                f"this is not a complete .npy file ({error})",
                where=self.source,
                hint="It may be truncated: write it again.",
            ) from None
        check_array(header, self.source)
        if fortran and header.shape[0] > 1 and header.shape[1] > 1:
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
        self._stride = self.shape[1] * self.dtype.itemsize
        self.columns = tuple(f"x{j}" for j in range(self.shape[1]))
        self._roles = Roles(target, weight, group, self.shape[0], self.source)
        self.targets, self.has_weight = self._roles.names, self._roles.weight is not None
        self.column_target = self._roles.column_target
        self.has_group = group is not None
        self.row_nbytes = self._stride + self._roles.row_nbytes
        self.stored_nbytes = self._stride * self.shape[0]
        self.decodes = is_remote(path)  # several reads at once hide what each has to wait
        del header
        self._fd = None if is_remote(path) else self._open()

    def __del__(self) -> None:
        if (fd := self.__dict__.get("_fd")) is not None:
            os.close(fd)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_fd"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._fd = None

    def buffer(self, rows: int) -> np.ndarray:
        return np.empty((rows, self.shape[1]), self.dtype)

    def read(self, start: int, stop: int, buffer: np.ndarray | None = None) -> Block:
        data = (buffer if buffer is not None else self.buffer(stop - start))[: stop - start]
        view = memoryview(data.data).cast("B")
        done = 0
        while done < len(view):
            row = start + done // self._stride
            try:
                count = self._read_into(view[done:], self._offset + start * self._stride + done)
            except OSError as error:
                raise DataError(
                    f"the file cannot be read from row {row:,} on ({error.strerror})",
                    where=self.source,
                    hint="Check the disk, or copy the file to another one.",
                ) from error
            if count == 0:
                raise DataError(
                    f"the file ends at row {row:,} of {self.shape[0]:,}",
                    where=self.source,
                    hint="It was shortened while being read: write it again.",
                )
            done += count
        return Block(start, data, *self._roles.read(start, stop))

    def _read_into(self, view: memoryview, position: int) -> int:
        if is_remote(self.source):
            return read_range(self.source, view, position)
        return os.preadv(self._fd if self._fd is not None else self._open(), [view], position)

    def _open(self) -> int:
        """The file, opened when it is first read where these rows have been unpickled."""
        with _opening:
            if self._fd is None:
                try:
                    self._fd = os.open(self.path, os.O_RDONLY)
                except OSError as error:
                    where = f"{self.source} on {platform.node()}"
                    raise DataError(f"the file cannot be opened ({error.strerror})", where=where) from None
            return self._fd


_opening = threading.Lock()


def _header(path: Path) -> tuple[np.ndarray, bool, int]:
    """An array like that of a file, whether it is in Fortran order, and the byte it begins at."""
    # Mapping reads the header, and checks the length of the file against it, without touching the data.
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped, not mapped.flags.c_contiguous, int(mapped.offset)


def _remote_header(path: str) -> tuple[np.ndarray, bool, int]:
    with open_binary(path) as file:
        read = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0}
        version = read_magic(file)
        if version not in read:
            raise ValueError(f"version {version} of the format")
        shape, fortran, dtype = read[version](file)
        offset = file.tell()
    length, there = offset + math.prod(shape) * dtype.itemsize, size(path)
    if there < length:
        raise ValueError(f"{there:,} bytes of {length:,}")
    return np.broadcast_to(np.empty((), dtype), shape), fortran, offset
