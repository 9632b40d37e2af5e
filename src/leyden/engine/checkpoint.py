"""Checkpoints: a folder from which a run that ended before its end goes on, to the same bits.

A run is a sequence of sweeps with deterministic algebra between them. The folder holds what identifies the run (verb,
options, data), what was decided at its start, and for each sweep the nodes of its merge tree: all merged into one when
the sweep is complete. The same call, made again, walks through the same sweeps; those that are complete give back what
was saved, and the first that is not goes on with the segments that are missing.

Every file appears whole or not at all: it is written under another name, synchronised with the disk, and renamed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from leyden.engine.budget import Layout
from leyden.engine.reduction import Reduction, digest
from leyden.engine.tree import MergeTree, Node, States
from leyden.errors import CheckpointError, OptionError
from leyden.rows.base import Rows
from leyden.rows.remote import is_remote, stat

FORMAT = 1
RUN = "run.json"
LOCK = "lock"

#: Seconds between two saves, unless a save takes so long that more than 1 / SHARE of the time would go into saving.
INTERVAL, SHARE = 60.0, 100

#: Places where the data is sampled for its fingerprint, and rows looked at in each.
PLACES, PLACE_ROWS = 8, 16


def fingerprint(rows: Rows) -> dict[str, Any]:
    """What tells one set of rows from another: names, shape, files with their sizes and times, a hash of a few rows."""
    n, d = rows.shape
    found = hashlib.sha256("\0".join([*rows.columns, "", *rows.targets]).encode())
    length = min(PLACE_ROWS, n)
    for place in range(PLACES):
        start = place * (n - length) // (PLACES - 1)
        block = rows.read(start, start + length)
        data: Any = block.data if isinstance(block.data, np.ndarray) else block.data.toarray()
        for part in (data, block.target, block.weight):
            if part is not None:
                found.update(np.ascontiguousarray(part).tobytes())
    return {
        "shape": [n, d],
        "dtype": str(rows.dtype),
        "files": [[path if is_remote(path) else os.path.abspath(path), *stat(path)] for path in rows.files],
        "sample": found.hexdigest(),
    }


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds of one sweep."""

    nodes: dict[Node, States]
    seconds: float
    complete: bool


@dataclass
class Checkpoint:
    """The folder of one run.

    Parameters
    ----------
    folder : path
        Made when the run begins, removed when it is complete.
    interval : float
        Seconds between two saves within a sweep.
    keep : bool
        Whether it stays when the run is complete, until :meth:`remove` is called; the same run made again is then a
        matter of reading it.
    on_failure : callable
        Hears, as a sentence, of a save that failed: the run goes on without it.
    """

    folder: Path
    interval: float = INTERVAL
    keep: bool = False
    on_failure: Callable[[str], None] = lambda sentence: None
    _lock: IO[str] | None = field(default=None, init=False, repr=False)
    _saved_at: float = field(default=0.0, init=False, repr=False)
    _cost: float = field(default=0.0, init=False, repr=False)

    # ------------------------------------------------------------ the run

    def begun(self, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        """What the run that is kept here decided at its start; None when the folder is empty or not there.

        Raises
        ------
        CheckpointError
            If the folder is something else, or the checkpoint of another run.
        """
        try:
            document = json.loads((self.folder / RUN).read_text())
        except FileNotFoundError:
            if self.folder.is_dir() and any(not _is_ours(entry.name) for entry in self.folder.iterdir()):
                raise CheckpointError(
                    "this folder is not a checkpoint, and not empty", where=str(self.folder), hint="Name another one."
                ) from None
            return None
        except NotADirectoryError:
            raise CheckpointError("this is a file, not a folder", where=str(self.folder)) from None
        except (OSError, ValueError) as error:
            raise self._damaged(error) from None
        try:
            _compare(document, identity, self.folder)
            return dict(document["decided"])
        except (KeyError, TypeError, AttributeError) as error:
            raise self._damaged(error) from None

    def _damaged(self, error: BaseException) -> CheckpointError:
        return CheckpointError(
            f"the checkpoint cannot be read ({type(error).__name__}: {error})",
            where=str(self.folder),
            hint="Remove the folder to begin anew.",
        )

    @contextmanager
    def run(self, identity: Mapping[str, Any], decided: Mapping[str, Any]) -> Iterator[Checkpoint]:
        """A context in which this process alone works on the run; what it ``decided`` is kept if it begins here."""
        self._take_lock()
        try:
            for left in self.folder.glob("*.partial"):
                left.unlink(missing_ok=True)
            if self.begun(identity) is None:
                document = {**_versions(), "identity": identity, "decided": decided, "began": time.time()}
                try:
                    self._write(RUN, lambda file: file.write(json.dumps(document, indent=1).encode()))
                except OSError as error:
                    raise self._unwritable(error) from None
            self._saved_at = time.monotonic()
            yield self
            if not self.keep:
                self.remove()
        finally:
            if self._lock is not None:
                self._lock.close()
                self._lock = None

    def _take_lock(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.folder / LOCK, "a+")  # noqa: SIM115
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            assert self._lock is not None
            self._lock.seek(0)
            who = self._lock.read().strip()
            self._lock.close()
            self._lock = None
            raise CheckpointError(
                f"a run that is still alive works on this checkpoint{f' ({who})' if who else ''}",
                where=str(self.folder),
                hint="Wait for it, end it, or name another folder.",
            ) from None
        except OSError as error:
            raise self._unwritable(error) from None
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} on {platform.node()}\n")
        self._lock.flush()

    def _unwritable(self, error: OSError) -> CheckpointError:
        return CheckpointError(
            f"no checkpoint can be written here ({error.strerror})",
            where=str(self.folder),
            hint="Name another folder.",
        )

    def remove(self) -> None:
        """Delete what the run left, and the folder if nothing else is in it."""
        for path in self.folder.glob("pass-*"):
            path.unlink(missing_ok=True)
        for name in (RUN, LOCK):
            (self.folder / name).unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    # ------------------------------------------------------------ its sweeps

    def due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self._saved_at >= max(self.interval, SHARE * self._cost)

    def save(
        self,
        number: int,
        reductions: Sequence[Reduction[Any, Any]],
        layout: Layout,
        nodes: Mapping[Node, States],
        seconds: float,
    ) -> None:
        """Keep the nodes of sweep ``number``, whose work took ``seconds`` so far; a failure is reported, not raised."""
        began = time.monotonic()
        complete = _is_complete(nodes, layout)
        arrays: dict[str, Any] = {}
        for (level, i), states in nodes.items():
            for k, (reduction, state) in enumerate(zip(reductions, states, strict=True)):
                for name, array in reduction.to_arrays(state).items():
                    arrays[f"{level}.{i}.{k}.{name}"] = array
        meta = {"key": _key(reductions, layout), "seconds": seconds, "nodes": [list(node) for node in nodes]}
        arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
        try:
            self._write(_name(number), lambda file: np.savez(file, **arrays))
        except OSError as error:
            self.on_failure(
                f"pass {number} could not be saved in {self.folder} ({error.strerror or error}): going on without"
            )
        now = time.monotonic()
        self._saved_at, self._cost = now, 0.0 if complete else now - began

    def restore(self, number: int, reductions: Sequence[Reduction[Any, Any]], layout: Layout) -> Saved | None:
        """What is kept of sweep ``number``; None when there is nothing, or it is of other sums or damaged.

        In that case what is kept of later sweeps is dropped as well.
        """
        try:
            with np.load(self.folder / _name(number), allow_pickle=False) as archive:
                meta = json.loads(archive["meta"].tobytes())
                if meta["key"] == _key(reductions, layout):
                    nodes = {(level, i): _states(archive, level, i, reductions) for level, i in meta["nodes"]}
                    return Saved(nodes, float(meta["seconds"]), _is_complete(nodes, layout))
                self.on_failure(f"what was saved of pass {number} is of other numbers: it begins again")
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            self.on_failure(f"what was saved of pass {number} is damaged ({error}): it begins again")
        for path in self.folder.glob("pass-*"):
            if path.name >= _name(number):
                path.unlink(missing_ok=True)
        return None

    def _write(self, name: str, write: Callable[[IO[bytes]], Any]) -> None:
        partial = self.folder / f"{name}.partial"
        try:
            with open(partial, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self.folder / name)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _is_ours(name: str) -> bool:
    """Whether a file without ``run.json`` beside it was left by a run that had hardly begun."""
    return name == LOCK or name.endswith(".partial")


def _name(number: int) -> str:
    return f"pass-{number:04d}.npz"


def _key(reductions: Sequence[Reduction[Any, Any]], layout: Layout) -> list[Any]:
    return [digest(reductions), layout.rows, layout.block_rows, layout.segment_rows]


def _is_complete(nodes: Mapping[Node, States], layout: Layout) -> bool:
    return len(nodes) == 1 and not MergeTree([], layout.segments, dict(nodes)).missing()


def _states(archive: Any, level: int, i: int, reductions: Sequence[Reduction[Any, Any]]) -> States:
    states = []
    for k, reduction in enumerate(reductions):
        start = f"{level}.{i}.{k}."
        names = [name for name in archive.files if name.startswith(start)]
        states.append(reduction.from_arrays({name.removeprefix(start): archive[name] for name in names}))
    return states


def _versions() -> dict[str, Any]:
    import leyden

    return {"format": FORMAT, "leyden": leyden.__version__}


def _compare(document: Mapping[str, Any], identity: Mapping[str, Any], folder: Path) -> None:
    """Refuse the checkpoint of another version, problem or data, saying which."""
    version = _versions()
    if document["format"] != version["format"] or document["leyden"] != version["leyden"]:
        raise CheckpointError(
            f"this checkpoint is of Leyden {document['leyden']}, and this is {version['leyden']}",
            where=str(folder),
            hint="Finish it with that version, or remove the folder to begin anew.",
        )
    kept, asked = document["identity"], json.loads(json.dumps(identity))
    for name in [name for name in {**asked, **kept} if name != "data"]:
        if kept.get(name) != asked.get(name):
            raise CheckpointError(
                f"this checkpoint is of {name}={kept.get(name)!r}, not {asked.get(name)!r}",
                where=str(folder),
                hint="Ask for the same as then, or name another folder.",
            )
    if kept["data"] != asked["data"]:
        raise CheckpointError(
            f"this checkpoint is of other data: {_difference(kept['data'], asked['data'])}",
            where=str(folder),
            hint="Name another folder, or remove this one to begin anew.",
        )


def _difference(kept: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    if kept["shape"] != asked["shape"]:
        was, now = ("{:,} × {:,}".format(*data["shape"]) for data in (kept, asked))
        return f"it was {was} and is {now}"
    before, after = ({path: rest for path, *rest in data["files"]} for data in (kept, asked))
    for path, rest in after.items():
        if path not in before:
            return f"{path} is not part of it"
        if before[path] != rest:
            return f"{path} has changed since"
    if missing := sorted(set(before) - set(after)):
        return f"{missing[0]} is missing"
    return "rows, columns or numbers have changed"


def as_checkpoint(checkpoint: Any) -> Checkpoint | None:
    """What an argument ``checkpoint=`` stands for."""
    if checkpoint is None or isinstance(checkpoint, Checkpoint):
        return checkpoint
    if not isinstance(checkpoint, str | os.PathLike):
        raise OptionError(f"checkpoint={checkpoint!r} is not a folder", hint="Give its path.")
    return Checkpoint(Path(checkpoint))
