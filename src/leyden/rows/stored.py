"""The array of a .npy file, read range by range."""

from __future__ import annotations

import math
import os
import platform
import threading
from typing import Any

import numpy as np
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic

from leyden.errors import DataError, LeydenError
from leyden.rows.remote import is_remote, open_binary, read_range, size


class StoredArray:
    """An array of one or two dimensions in a ``.npy`` file; ``array[start:stop]`` reads these rows.

    The file is read with ``preadv`` and not mapped: pages of a mapped file would count as memory of the process, and
    their first touch costs more than the read.

    Parameters
    ----------
    path : path
    purpose : str
        What the file is for, in the words of an error: " for the target".

    Attributes
    ----------
    shape, dtype, ndim
        As of an array.
    fortran : bool
        Whether the columns, and not the rows, stand together.
    offset : int
        The byte of the file at which the numbers begin.
    """

    def __init__(self, path: str | os.PathLike, purpose: str = ""):
        self.path = os.path.expanduser(path)
        self._fd: int | None = None
        try:
            header, self.fortran, self.offset = _remote_header(self.path) if is_remote(path) else _header(self.path)
        except LeydenError:
            raise
        except FileNotFoundError:
            raise DataError(f"there is no such file{purpose}", where=str(path)) from None
        except (ValueError, EOFError, OSError) as error:
            raise DataError(
                f"this is not a complete .npy file ({error})",
                where=str(path),
                hint="It may be truncated: write it again.",
            ) from None
        if not isinstance(header, np.ndarray):
            raise DataError("this is an archive, not a .npy file", where=str(path))
        self.shape, self.dtype, self.ndim = header.shape, header.dtype, header.ndim
        if not is_remote(path):
            self._open()

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(len(self))
        return self.read(start, np.empty((stop - start, *self.shape[1:]), self.dtype))

    def read(self, start: int, out: np.ndarray) -> np.ndarray:
        """Fill ``out``, contiguous, with its length of rows from ``start`` on."""
        if not self.fortran:
            self._fill(out, start * (out.nbytes // max(len(out), 1)), start, len(out))
            return out
        for j in range(self.shape[1]):
            column = np.empty(len(out), self.dtype)
            self._fill(column, (j * len(self) + start) * self.dtype.itemsize, start, len(out))
            out[:, j] = column
        return out

    def _fill(self, out: np.ndarray, begin: int, start: int, rows: int) -> None:
        view: Any = out.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(view):
            row = start + done * rows // len(view)
            try:
                count = self._read_into(view[done:], self.offset + begin + done)
            except OSError as error:
                raise DataError(
                    f"the file cannot be read from row {row:,} on ({error.strerror})",
                    where=str(self.path),
                    hint="Check the disk, or copy the file to another one.",
                ) from error
            if count == 0:
                raise DataError(
                    f"the file ends at row {row:,} of {len(self):,}",
                    where=str(self.path),
                    hint="It was shortened while being read: write it again.",
                )
            done += count

    def _read_into(self, view: memoryview, position: int) -> int:
        if is_remote(self.path):
            return read_range(self.path, view, position)
        return os.preadv(self._fd if self._fd is not None else self._open(), [view], position)

    def _open(self) -> int:
        """The file; opened when it is first read, where this array has been unpickled."""
        with _opening:
            if self._fd is None:
                try:
                    self._fd = os.open(self.path, os.O_RDONLY)
                except OSError as error:
                    where = f"{self.path} on {platform.node()}"
                    raise DataError(f"the file cannot be opened ({error.strerror})", where=where) from None
            return self._fd

    def __del__(self) -> None:
        if (fd := self.__dict__.get("_fd")) is not None:
            os.close(fd)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_fd"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._fd = None


_opening = threading.Lock()


def _header(path: str) -> tuple[Any, bool, int]:
    """An array like that of a file, whether it is in Fortran order, and the byte it begins at."""
    # Mapping reads the header, and checks the length of the file against it, without touching the data.
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    fortran = isinstance(mapped, np.ndarray) and not mapped.flags.c_contiguous
    return mapped, fortran, int(getattr(mapped, "offset", 0))


def _remote_header(path: str) -> tuple[Any, bool, int]:
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
    return np.broadcast_to(np.empty((), dtype), shape), fortran and len(shape) > 1 and min(shape) > 1, offset
