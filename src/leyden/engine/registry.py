"""Which folders hold checkpoints: one small file for each, in the user's cache, so that ``leyden runs`` can list them.

The registry is a convenience. A run goes on without it when it cannot be written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path


def cache_folder() -> Path:
    """Where Leyden keeps what it measured and began: ``LEYDEN_CACHE_DIR``, or the user's cache folder."""
    if chosen := os.environ.get("LEYDEN_CACHE_DIR"):
        return Path(chosen)
    from platformdirs import user_cache_path

    return user_cache_path("leyden")


def enter(folder: Path) -> None:
    """Note that ``folder`` holds a checkpoint."""
    with contextlib.suppress(OSError, RuntimeError):
        entry = _entry(folder)
        entry.parent.mkdir(parents=True, exist_ok=True)
        partial = entry.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps({"folder": str(folder)}))
        partial.replace(entry)


def drop(folder: Path) -> None:
    """Forget ``folder``."""
    with contextlib.suppress(OSError, RuntimeError):
        _entry(folder).unlink(missing_ok=True)


def folders() -> list[Path]:
    """All that were noted and are still there; those that are gone are forgotten."""
    found = []
    with contextlib.suppress(OSError, RuntimeError):
        for entry in sorted((cache_folder() / "runs").glob("*.json")):
            try:
                folder = Path(json.loads(entry.read_text())["folder"])
                there = folder.is_dir()
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if there:
                found.append(folder)
            else:
                entry.unlink(missing_ok=True)
    return found


def _entry(folder: Path) -> Path:
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return cache_folder() / "runs" / f"{name}.json"
