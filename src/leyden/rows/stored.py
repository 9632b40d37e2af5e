"""The array of a .npy file, read range by range."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from leyden.errors import DataError


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
    """

    def __init__(self, path: str | os.PathLike, purpose: str = ""):
        self.path = os.path.expanduser(path)
        try:
            # Mapping reads the header, and checks the length of the file against it, without touching the data.
            header = np.load(self.path, mmap_mode="r", allow_pickle=False)
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
        self.fortran = not header.flags.c_contiguous
        self._offset = int(getattr(header, "offset", 0))
        self._fd = os.open(self.path, os.O_RDONLY)

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
                count = os.preadv(self._fd, [view[done:]], self._offset + begin + done)
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
            raise DataError(f"the file cannot be opened here ({error.strerror})", where=str(self.path)) from None
