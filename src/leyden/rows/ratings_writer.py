"""Writing ratings user by user into a store, with little memory."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from leyden.errors import DataError, OptionError
from leyden.rows._ratings_kernels import count_items, encode
from leyden.rows.base import Block
from leyden.rows.ids import Ids
from leyden.rows.ratings import MAX_LEVELS, Summary
from leyden.rows.ratings_folder import DOCUMENT, HELD_OUT, beside, free_place, put
from leyden.rows.ratings_store import FORMAT, STEP, StoredRatings

MAX_ITEMS = 2**31 - 1

#: Ratings of one user.
MAX_COUNT = 2**32 - 1

#: Numbers copied at once when a plane is written again in another type.
COPIED = 2**22


class RatingsWriter:
    """Writes a store of ratings, user by user in order; it is there when the context is left, whole or not at all.

    Parameters
    ----------
    folder : path
        A store that is there already gives way when the new one is complete. Anything else is left alone.
    items : int
        How many items there are: fixes the width of their numbers.
    levels : array_like of float, optional
        The values that ratings can have, at most 256, which then take one byte each, or none if there is but one and it
        is 1. Without it values take four.
    max_count : int, optional
        The most ratings that any user has: fixes the width of counts. Without it they are written again at the end.
    popular : bool
        Whether items are numbered by their count, the largest first. This is checked.

    Attributes
    ----------
    users, items : Ids
        May be set until the context is left; without, ids are numbers.
    summary : Summary
        May be set likewise.
    held_out : Planes
        Takes ratings that are held out, of the same users in the same order; made when first used.
    ratings : StoredRatings
        What was written, when the context has been left.

    Raises
    ------
    DataError
        If the folder cannot be written, or what is appended is not what was declared.

    Examples
    --------
    >>> import numpy as np, tempfile, leyden as ly
    >>> folder = tempfile.mkdtemp()
    >>> with ly.RatingsWriter(folder, items=5, levels=[1, 2, 3]) as writer:
    ...     writer.append(np.array([2, 0, 1]), np.array([0, 3, 4]), np.array([1.0, 3.0, 2.0]))
    >>> writer.ratings.shape, writer.ratings.count
    ((3, 5), 3)
    """

    ratings: StoredRatings

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        items: int,
        levels: Any = None,
        max_count: int | None = None,
        popular: bool = False,
    ):
        if not 1 <= items <= MAX_ITEMS:
            raise OptionError(f"items={items} must be a whole number from 1 to {MAX_ITEMS:,}")
        self.target, self.popular = free_place(folder), popular
        self.users: Ids | None = None
        self.items: Ids | None = None
        self.summary: Summary | None = None
        self._how = (int(items), _levels(levels), max_count)
        self._held_out: Planes | None = None
        self._open = ExitStack()

    def __enter__(self) -> RatingsWriter:
        with ExitStack() as stack:
            try:
                self._partial = stack.enter_context(beside(self.target)) / "store"
                self._planes = stack.enter_context(Planes(self._partial, *self._how))
            except OSError as error:
                raise _unwritable(error, self.target) from None
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        with self._open:
            try:
                if kind is None:
                    self._finish()
            except OSError as error:
                raise _unwritable(error, self.target) from None
        if kind is None:
            self.ratings = StoredRatings(self.target)

    def append(
        self,
        counts: np.ndarray,
        items: np.ndarray,
        values: np.ndarray | None = None,
        *,
        codes: np.ndarray | None = None,
    ) -> None:
        """Add the next users.

        Parameters
        ----------
        counts : ndarray of int, shape (m,)
            How many ratings each of them has.
        items : ndarray of int, shape (sum of counts,)
            Their items, in increasing order for each user.
        values : ndarray, shape (sum of counts,), optional
            Their values; not needed when all are 1.
        codes : ndarray of uint8, shape (sum of counts,), optional
            In place of the values, their places among the levels in increasing order.
        """
        self._planes.append(counts, items, values, codes=codes)

    def append_block(self, block: Block) -> None:
        """Add the users of a block of ratings."""
        self._planes.append_block(block)

    @property
    def held_out(self) -> Planes:
        if self._held_out is None:
            self._held_out = self._open.enter_context(Planes(self._partial / HELD_OUT, *self._how))
        return self._held_out

    def _finish(self) -> None:
        own, held = self._planes, self._held_out
        if own.users == 0:
            raise DataError("no user was written", where=str(self.target))
        users = self.users if self.users is not None else Ids.identity(own.users, "user")
        items = self.items if self.items is not None else Ids.identity(own.items, "item")
        if (len(users), len(items)) != (own.users, own.items) or (held and held.users != own.users):
            also = f", {held.users:,} users held out" if held else ""
            raise DataError(
                f"there are ids of {len(users):,} users and {len(items):,} items for ratings of {own.users:,} × "
                f"{own.items:,}{also}",
                where=str(self.target),
            )
        if self.popular and (np.diff(own.item_counts) > 0).any():
            raise DataError("the items are not in the order of their counts", where=str(self.target))
        summary = self.summary or Summary(own.count, 0, own.users, own.items, own.count, held.count if held else 0)
        for ids in (users, items):
            ids.write(self._partial / f"{ids.what}s.arrow")
        if held:
            held.close(summary, popular=False)
        own.close(summary, popular=self.popular, users=users.kind, items=items.kind, held_out=held is not None)
        put(self._partial, self.target)


class Planes:
    """The files of one set of ratings while they are written."""

    def __init__(self, folder: Path, items: int, levels: np.ndarray | None, max_count: int | None):
        self.folder, self.items, self.levels = folder, items, levels
        self.users, self.count, self.max_count = 0, 0, 0
        self.item_counts = np.zeros(items, np.int64)
        self._declared = max_count
        self._starts: list[np.ndarray] = []
        self._planes: dict[str, _Plane] = {}
        folder.mkdir()
        self._make("items.low", np.uint16)
        if items > 2**16:
            self._make("items.high", np.uint8 if items <= 2**24 else np.uint16)
        if not self._all_one:
            self._make("values", np.float32 if levels is None else np.uint8)
        self._make("counts", _narrowest(max_count if max_count is not None else MAX_COUNT))

    def __enter__(self) -> Planes:
        return self

    def __exit__(self, *_: Any) -> None:
        for plane in self._planes.values():
            plane.file.close()

    @property
    def _all_one(self) -> bool:
        return self.levels is not None and self.levels.tolist() == [1.0]

    def _make(self, name: str, dtype: Any) -> None:
        self._planes[name] = _Plane(self.folder / f"{name}.npy", np.dtype(dtype))

    def append_block(self, block: Block) -> None:
        """Add the users of a block of ratings."""
        data: Any = block.data
        self.append(np.diff(data.indptr), data.indices, data.data)

    def append(
        self,
        counts: np.ndarray,
        items: np.ndarray,
        values: np.ndarray | None = None,
        *,
        codes: np.ndarray | None = None,
    ) -> None:
        """Add the next users; as :meth:`RatingsWriter.append`."""
        counts, items = np.asarray(counts, np.int64), np.ascontiguousarray(items)
        total = int(counts.sum())
        given = [len(part) for part in (items, values, codes) if part is not None]
        if given != [total] * len(given):
            raise self._refused(f"{' and '.join(map(str, given))} items and values were given for {total:,} ratings")
        most = int(counts.max(initial=0))
        if counts.min(initial=0) < 0 or most > (self._declared if self._declared is not None else MAX_COUNT):
            raise self._refused(f"a user has {most:,} ratings, more than was declared")
        wrong = count_items(counts, items, self.item_counts)
        if wrong >= 0:
            raise self._refused(
                f"the items of user {self.users + wrong:,} are not increasing numbers below {self.items:,}"
            )
        self._append_values(values, codes)
        self._planes["items.low"].append(items.astype(np.uint16))
        if "items.high" in self._planes:
            self._planes["items.high"].append((items >> 16).astype(self._planes["items.high"].dtype))
        self._planes["counts"].append(counts.astype(self._planes["counts"].dtype))
        places = np.concatenate([[0], np.cumsum(counts)])[-self.users % STEP : -1 : STEP]
        self._starts.append(self.count + places)
        self.users, self.count, self.max_count = self.users + len(counts), self.count + total, max(self.max_count, most)

    def _append_values(self, values: np.ndarray | None, codes: np.ndarray | None) -> None:
        if self.levels is None:
            if values is None:
                raise self._refused("no values were given")
            self._planes["values"].append(np.asarray(values, np.float32))
            return
        if codes is not None:
            wrong = int(np.argmax(codes)) if codes.max(initial=0) >= len(self.levels) else -1
            found: Any = codes
        elif values is not None:
            found, codes = values, np.empty(len(values), np.uint8)
            wrong = encode(np.asarray(values, np.float32), self.levels, codes)
        elif not self._all_one:
            raise self._refused("no values were given, and they are not all 1")
        else:
            return
        if wrong >= 0:
            raise self._refused(f"{found[wrong]} is not one of the {len(self.levels)} values declared")
        if not self._all_one:
            self._planes["values"].append(codes)

    def _refused(self, what: str) -> DataError:
        return DataError(what, where=str(self.folder))

    def close(
        self, summary: Summary, *, popular: bool, users: str = "number", items: str = "number", held_out: bool = False
    ) -> None:
        """Write what is known at the end, and the document that makes it a store."""
        if self._declared is None:
            self._planes["counts"].narrow(_narrowest(self.max_count))
        self._make("starts", np.int64)
        for part in self._starts:
            self._planes["starts"].append(part)
        self._make("item_counts", np.int64)
        self._planes["item_counts"].append(self.item_counts)
        if self.levels is not None and not self._all_one:
            self._make("levels", np.float32)
            self._planes["levels"].append(self.levels)
        planes = {name: plane.close() for name, plane in self._planes.items()}
        core = {"shape": [self.users, self.items], "count": self.count, "planes": planes}
        document = {
            "format": FORMAT,
            "leyden": import_module("leyden").__version__,
            **core,
            "max_count": self.max_count,
            "popular": popular,
            "users": users,
            "items": items,
            "held_out": held_out,
            "summary": summary.to_json(),
            "identity": hashlib.sha256(json.dumps(core, sort_keys=True).encode()).hexdigest(),
        }
        (self.folder / DOCUMENT).write_text(json.dumps(document, indent=1))


class _Plane:
    """A one-dimensional ``.npy`` file that grows; its header, of a fixed length, is completed at the end."""

    def __init__(self, path: Path, dtype: np.dtype):
        self.path, self.dtype, self.length, self.crc = path, dtype, 0, 0
        self.file: Any = open(path, "w+b", buffering=0)  # noqa: SIM115
        self._write_header()

    def _write_header(self) -> None:
        self.file.seek(0)
        about = {"descr": npy.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (self.length,)}
        npy.write_array_header_1_0(self.file, about)

    def append(self, array: np.ndarray) -> None:
        """Add numbers of this type."""
        view = np.ascontiguousarray(array).view(np.uint8).data
        self.crc = zlib.crc32(view, self.crc)
        self.length += len(array)
        try:
            while len(view):
                view = view[self.file.write(view) :]
        except OSError as error:
            raise _unwritable(error, self.path) from None

    def narrow(self, dtype: np.dtype) -> None:
        """Write the numbers again in a smaller type."""
        if dtype == self.dtype:
            return
        self.file.close()
        wide = self.path.with_suffix(".wide")
        self.path.rename(wide)
        made, done = _Plane(self.path, dtype), 0
        with open(wide, "rb") as file:
            npy.read_magic(file)
            npy.read_array_header_1_0(file)
            while done < self.length:
                part = np.fromfile(file, self.dtype, min(COPIED, self.length - done))
                made.append(part.astype(dtype))
                done += len(part)
        wide.unlink()
        self.__dict__.update(made.__dict__)

    def close(self) -> dict[str, Any]:
        """Complete the file; what is to be said of it in the document."""
        self._write_header()
        self.file.close()
        return {"dtype": self.dtype.name, "length": self.length, "crc32": self.crc}


def _unwritable(error: OSError, where: Path) -> DataError:
    return DataError(
        f"the ratings could not be written ({error.strerror or error})",
        where=str(where),
        hint="Make room, or name another folder.",
    )


def _narrowest(largest: int) -> np.dtype:
    """The smallest unsigned type that holds a number."""
    return np.min_scalar_type(min(largest, MAX_COUNT))


def _levels(levels: Any) -> np.ndarray | None:
    """Declared values, sorted, as float32."""
    if levels is None:
        return None
    found = np.unique(np.asarray(levels, np.float32))
    if not 1 <= len(found) <= MAX_LEVELS or not np.isfinite(found).all():
        raise OptionError(
            f"levels= holds {len(found):,} values", hint=f"Declare 1 to {MAX_LEVELS} finite ones, or none."
        )
    return found
