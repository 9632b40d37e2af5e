"""Files that are not on a local disk (``s3://``, ``https://``, ...), by way of fsspec."""

from __future__ import annotations

import glob
import os
import zlib
from collections.abc import Callable
from typing import Any

from leyden.errors import DataError, LeydenError, OptionError


def is_remote(path: Any) -> bool:
    """Whether a path names its protocol."""
    return "://" in str(path)


def open_binary(path: str) -> Any:
    """The file, local or remote, opened for reading bytes."""
    if not is_remote(path):
        return open(path, "rb")
    fs, name = _filesystem(path)
    return _asked(path, lambda: fs.open(name, "rb"))


def read_range(path: str, view: memoryview, position: int) -> int:
    """Fill ``view`` with the bytes of a remote file from ``position`` on; how many there were."""
    fs, name = _filesystem(path)
    found = _asked(path, lambda: fs.cat_file(name, start=position, end=position + len(view)))
    view[: len(found)] = found
    return len(found)


def stat(path: str) -> tuple[int, int]:
    """The size of a file in bytes, and a number that changes when the file does."""
    if not is_remote(path):
        found = os.stat(path)
        return found.st_size, found.st_mtime_ns
    fs, name = _filesystem(path)

    def ask() -> tuple[int, int]:
        fs.invalidate_cache(fs._parent(name))
        info = fs.info(name)
        try:
            changed = int(fs.modified(name).timestamp() * 1e9)
        except (NotImplementedError, KeyError):
            changed = zlib.crc32(str(info.get("ETag")).encode())
        return int(info["size"]), changed

    return _asked(path, ask)


def size(path: str) -> int:
    """The size of a file in bytes."""
    return stat(path)[0]


def expand(path: str, wanted: Callable[[str], Any]) -> list[str]:
    """The files that a remote path stands for: itself; of a pattern or a folder, those inside that are ``wanted``."""
    fs, name = _filesystem(path)

    def ask() -> list[str]:
        if glob.has_magic(name) and not fs.exists(name):
            return sorted(fs.unstrip_protocol(file) for file in fs.glob(name))
        if not fs.exists(name):
            return []
        if not fs.isdir(name):
            return [path]
        inside = [file for file in sorted(fs.find(name)) if os.path.basename(file)[0] not in "._"]
        return [fs.unstrip_protocol(file) for file in inside if wanted(file)]

    files = _asked(path, ask)
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


def _asked(path: str, ask: Callable[[], Any]) -> Any:
    """What a file system answers; what it raises, which each does in its own way, as one sentence."""
    try:
        return ask()
    except LeydenError:
        raise
    except FileNotFoundError:
        raise DataError("there is no such file", where=path) from None
    except Exception as error:
        said = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        raise DataError(f"the file cannot be read ({said})", where=path) from error
