"""Files wherever they are: on a disk, or by way of fsspec anywhere else (``s3://``, ``https://``, ...)."""

from __future__ import annotations

import glob
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from leyden.errors import DataError, LeydenError, OptionError


def is_remote(path: Any) -> bool:
    """Whether a path names its protocol."""
    return "://" in str(path)


def open_binary(path: str) -> Any:
    """The file, local or remote, opened for reading bytes."""
    with explained(path):
        if not is_remote(path):
            return open(path, "rb")
        fs, name = _filesystem(path)
        return fs.open(name, "rb")


def read_range(path: str, view: memoryview, position: int) -> int:
    """Fill ``view`` with the bytes of a remote file from ``position`` on; how many there were."""
    fs, name = _filesystem(path)
    with explained(path):
        found = fs.cat_file(name, start=position, end=position + len(view))
    view[: len(found)] = found
    return len(found)


def stat(path: str) -> tuple[int, int]:
    """The size of a file in bytes, and a number that changes when the file does."""
    with explained(path):
        if not is_remote(path):
            found = os.stat(path)
            return found.st_size, found.st_mtime_ns
        fs, name = _filesystem(path)
        fs.invalidate_cache(fs._parent(name))
        info = fs.info(name)
        try:
            changed = int(fs.modified(name).timestamp() * 1e9)
        except (NotImplementedError, KeyError):
            changed = zlib.crc32(str(info.get("ETag")).encode())
        return int(info["size"]), changed


def size(path: str) -> int:
    """The size of a file in bytes."""
    return stat(path)[0]


def expand(path: str, wanted: Callable[[str], Any]) -> list[str]:
    """The files that a remote path stands for: itself; of a pattern or a folder, those inside that are ``wanted``."""
    with explained(path):
        fs, name = _filesystem(path)
        if not fs.exists(name):
            found = sorted(fs.glob(name)) if glob.has_magic(name) else []
        elif fs.isdir(name):
            inside = [file for file in sorted(fs.find(name)) if os.path.basename(file)[0] not in "._"]
            found = [file for file in inside if wanted(file)]
        else:
            return [path]
        files = [fs.unstrip_protocol(file) for file in found]
    if not files:
        raise DataError("there is no such data file", where=path, hint="Check the address.")
    return files


def _filesystem(path: str) -> tuple[Any, str]:
    protocol = path.split("://")[0]
    try:
        import fsspec
    except ImportError:
        raise OptionError(
            "remote files are read by fsspec, which is not installed", where=path, hint="pip install 'leyden[remote]'"
        ) from None
    try:
        fs, name = fsspec.core.url_to_fs(path)
    except ImportError as error:
        raise OptionError(
            f"the package that reads {protocol}:// is not installed", where=path, hint=f"{error}".rstrip(".") + "."
        ) from None
    except ValueError as error:
        raise OptionError(f"{protocol}:// cannot be read ({error})", where=path) from None
    return fs, name


@contextmanager
def explained(path: str) -> Iterator[None]:
    """A context in which what a file system raises, which each does in its own way, becomes one sentence."""
    try:
        yield
    except LeydenError:
        raise
    except FileNotFoundError:
        raise DataError("there is no such file", where=path, hint="Check the path.") from None
    except Exception as error:  # of OSError, of aiohttp, of botocore, ...
        said = getattr(error, "strerror", None) or str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        hint = "Check the connection." if is_remote(path) else "Check its permissions, and the disk."
        raise DataError(f"the file cannot be read ({said})", where=path, hint=hint) from error
