"""Checkpoints: a folder from which a run that ended before its end goes on, to the same bits.

A run is a sequence of sweeps with deterministic algebra between them. The folder holds what identifies the run (verb,
options, data), what was decided at its start, and for each sweep the nodes of its merge tree: all merged into one when
the sweep is complete. The same call, made again, walks through the same sweeps; those that are complete give back what
was saved, and the first that is not goes on with the segments that are missing.

==================  ===============================================================================================
``run.json``        version, identity and decisions of the run
``pass-0001.npz``   nodes of the merge tree of the first sweep, and a hash of all that it computes with; and so on
``lock``            locked by the process that works here
==================  ===============================================================================================

Every file appears whole or not at all: it is written under another name, synchronised with the disk, and renamed. What
is read back is checked against its CRC and against the sweep that asks for it; what does not fit is computed again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from leyden.engine import registry
from leyden.engine.budget import Layout
from leyden.engine.fingerprint import difference
from leyden.engine.reduction import Reduction, digest
from leyden.engine.tree import MergeTree, Node, States
from leyden.errors import CheckpointError, OptionError

FORMAT = 1
RUN = "run.json"
LOCK = "lock"
_OURS = re.compile(r"(run\.json|pass-\d{4,}\.npz)(\.partial)?|lock")
_PASS = re.compile(r"pass-(\d{4,})\.npz")

#: Seconds between two saves, unless a save takes so long that more than 1 / SHARE of the time would go into saving.
INTERVAL, SHARE = 60.0, 100
#: Bytes a second that a save is taken to write before one has been timed.
WRITE_RATE = 200e6
#: Seconds to wait for a lock: whoever only looks at a checkpoint lets go of it sooner.
PATIENCE = 0.5


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds of one sweep."""

    nodes: dict[Node, States]
    seconds: float
    complete: bool


@dataclass(frozen=True)
class SavedPass:
    """What a checkpoint says of its last sweep: which, how many rows of how many are done, and when it was saved."""

    number: int
    done: int
    rows: int
    saved_at: float


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
    """

    folder: Path
    interval: float = INTERVAL
    keep: bool = False
    #: Why the last save failed; empty when it did not.
    failure: str = field(default="", init=False)
    _remark: Callable[[str], None] = field(default=lambda sentence: None, init=False, repr=False)
    _lock: IO[str] | None = field(default=None, init=False, repr=False)
    _saved_at: float = field(default=0.0, init=False, repr=False)
    _cost: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        if not (isinstance(self.interval, int | float) and 0 <= self.interval < math.inf):
            raise OptionError(f"a checkpoint every {self.interval!r} seconds cannot be", hint="Give zero or more.")
        # The run may change its working directory, and whoever reads of the folder may be in another.
        self.folder = Path(os.path.abspath(self.folder))

    # ------------------------------------------------------------ the run

    def document(self) -> dict[str, Any] | None:
        """What ``run.json`` says; None when the folder is not there, or holds no run.

        Raises
        ------
        CheckpointError
            If the folder is something else.
        """
        try:
            text = (self.folder / RUN).read_bytes()
        except FileNotFoundError:
            if any(not _OURS.fullmatch(name) for name in self._names()):
                raise self._error("this folder is not a checkpoint, and not empty", "Name another one.") from None
            return None
        except NotADirectoryError:
            raise self._error("this is a file, or lies under one, and not a folder", "Name another one.") from None
        except OSError as error:
            raise self._error(f"the checkpoint cannot be read ({error.strerror})", "Name another folder.") from None
        try:
            document = json.loads(text)
            known = document.keys() >= {"format", "leyden", "identity", "decided"}
        except (ValueError, AttributeError):
            known = False
        if not known:
            raise self._error("the run.json here is damaged, or not that of a checkpoint", "Name another folder.")
        return dict(document)

    def begun(self, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        """What the run that is kept here decided at its start; None when there is none.

        Raises
        ------
        CheckpointError
            If the folder is something else, or the checkpoint of another run.
        """
        document = self.document()
        if document is None:
            return None
        self._compare(document, _plain(identity))
        return dict(document["decided"])

    @contextmanager
    def run(
        self,
        identity: Mapping[str, Any],
        decided: Mapping[str, Any],
        remark: Callable[[str], None] = lambda sentence: None,
    ) -> Iterator[Checkpoint]:
        """A context in which this process alone works on the run.

        What it ``decided`` is kept if it begins here; ``remark`` hears of what goes wrong with saving.
        """
        self._remark, self.failure = remark, ""
        with self._locked():
            kept = self.begun(identity)
            if kept is None:
                self._begin({**_versions(), "identity": identity, "decided": decided, "began": time.time()})
            elif kept != _plain(decided):
                raise self._error("another run began here while this one was planned", "Start it again.")
            self._discard(lambda name: name.endswith(".partial"))
            registry.enter(self.folder)
            self._saved_at = time.monotonic()
            yield self
            if not self.keep and self._holds(self._lock):
                self._clear()

    def _begin(self, document: Mapping[str, Any]) -> None:
        # Passes without a run.json were left by a run that was being removed: of what data, nobody knows.
        self._discard(lambda name: name != LOCK)
        try:
            self._write(RUN, lambda file: file.write(json.dumps(document, indent=1).encode()))
        except OSError as error:
            self._clear()
            raise self._unwritable(error) from None

    def remove(self) -> int:
        """Delete what the run left, and the folder if nothing else is in it; gives the bytes that this freed.

        Raises
        ------
        CheckpointError
            If the folder is something else, or a run that is still alive works on it.
        """
        if not self.folder.is_dir():
            registry.drop(self.folder)
            return 0
        self.document()
        with self._locked():
            return self._clear()

    def _clear(self) -> int:
        freed = self._discard(lambda name: name == RUN)
        freed += self._discard(lambda name: name != LOCK)
        self._discard(lambda name: name == LOCK)
        with contextlib.suppress(OSError):
            self.folder.rmdir()
        registry.drop(self.folder)
        return freed

    def _discard(self, which: Callable[[str], bool]) -> int:
        """Delete files of ours; what cannot be deleted does no harm."""
        freed = 0
        for name in self._names():
            if _OURS.fullmatch(name) and which(name):
                with contextlib.suppress(OSError):
                    size = (self.folder / name).stat().st_size
                    (self.folder / name).unlink()
                    freed += size
        return freed

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._error(f"the folder cannot be read ({error.strerror})", "Name another one.") from None

    # ------------------------------------------------------------ its lock

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._lock = self._take_lock()
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            with contextlib.suppress(OSError):  # who holds it is only said to those who ask
                self._lock.truncate(0)
                self._lock.write(f"process {os.getpid()} on {platform.node()}\n")
                self._lock.flush()
            yield
        finally:
            # Closing is not enough: a child that was forked meanwhile holds the same lock.
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            with contextlib.suppress(OSError):
                self._lock.close()
            self._lock = None

    def _take_lock(self) -> IO[str]:
        deadline = time.monotonic() + PATIENCE
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            file: IO[str] | None = None
            try:
                file = open(self.folder / LOCK, "a+")  # noqa: SIM115  # open as long as it is locked
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever held it may have removed the folder since the file was opened.
                if self._holds(file):
                    return file
                file.close()
            except (FileNotFoundError, BlockingIOError) as error:
                who = _who(file) if file else ""
                if file:
                    file.close()
                if time.monotonic() > deadline:
                    if isinstance(error, FileNotFoundError):
                        raise
                    raise self._error(
                        f"a run that is still alive works on this checkpoint{f' ({who})' if who else ''}",
                        "Wait for it, end it, or name another folder.",
                    ) from None
                time.sleep(PATIENCE / 20)
            except BaseException:
                if file:
                    file.close()
                raise

    def _holds(self, lock: IO[str] | None) -> bool:
        """Whether the lock is that of the folder as it is now, and not of one that was removed."""
        try:
            return lock is not None and os.path.samestat(os.fstat(lock.fileno()), os.stat(self.folder / LOCK))
        except FileNotFoundError:
            return False

    def holder(self) -> str | None:
        """Who works on the checkpoint now ("process 42 on host"); None when nobody does."""
        try:
            with open(self.folder / LOCK) as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return _who(file) or "a process"
        except OSError:
            pass
        return None

    # ------------------------------------------------------------ its sweeps

    def expect(self, nbytes: float) -> None:
        """Take the next save to be of ``nbytes``, until one has been timed."""
        self._cost = nbytes / WRITE_RATE

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
        arrays: dict[str, Any] = {}
        tree = MergeTree(reductions, layout.segments, dict(nodes))
        done = sum(layout.rows_of(segment) for node in nodes for segment in tree.span(node))
        meta = {
            "key": _key(reductions, layout),
            "seconds": seconds,
            "nodes": [list(node) for node in nodes],
            "done": done,
            "rows": layout.rows,
        }
        arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
        for (level, i), states in nodes.items():
            for k, (reduction, state) in enumerate(zip(reductions, states, strict=True)):
                for name, array in reduction.to_arrays(state).items():
                    arrays[f"{level}.{i}.{k}.{name}"] = array
        self._save(number, arrays, began)

    def _save(self, number: int, arrays: Mapping[str, Any], began: float) -> None:
        try:
            self._write(_name(number), lambda file: np.savez(file, **arrays))
            self.failure = ""
        except (OSError, ValueError) as error:  # zipfile turns some errors of the disk into ValueError
            cause: Any = error if isinstance(error, OSError) else error.__context__ or error
            failure = f"pass {number} could not be saved in {self.folder} ({getattr(cause, 'strerror', None) or cause})"
            if failure != self.failure:
                self._remark(f"{failure}: going on without")
            self.failure = failure
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - began

    def restore(self, number: int, reductions: Sequence[Reduction[Any, Any]], layout: Layout) -> Saved | None:
        """What is kept of sweep ``number``; None when there is nothing, or it is of other sums or damaged.

        In that case what is kept of later sweeps is dropped as well.
        """
        try:
            with open(self.folder / _name(number), "rb") as file, np.load(file, allow_pickle=False) as archive:
                if bad := archive.zip.testzip():
                    raise ValueError(f"{bad} has another CRC")
                meta = json.loads(archive["meta"].tobytes())
                if meta["key"] == _key(reductions, layout):
                    nodes = {(level, i): _states(archive, level, i, reductions) for level, i in meta["nodes"]}
                    complete = not MergeTree(reductions, layout.segments, nodes).missing()
                    return Saved(nodes, float(meta["seconds"]), complete)
                self._remark(f"what was saved of pass {number} is of other numbers: it begins again")
        except FileNotFoundError:
            pass
        except MemoryError:
            raise
        except Exception as error:  # a damaged archive fails in more ways than can be listed
            self._remark(f"what was saved of pass {number} is damaged ({error}): it begins again")
        self._discard(lambda name: name.startswith("pass-") and name >= _name(number))
        return None

    def settle(
        self, number: int, label: str, arrays: Mapping[str, np.ndarray], rows: int, seconds: float, passes: int = 1
    ) -> None:
        """Keep the result of step ``number``, which took some passes, in place of its sums; as :meth:`save`."""
        began = time.monotonic()
        meta = {"label": label, "seconds": seconds, "done": rows, "rows": rows, "passes": passes}
        note = np.frombuffer(json.dumps(meta).encode(), np.uint8)
        self._save(number, {"meta": note, **{f"result.{name}": array for name, array in arrays.items()}}, began)

    def settled(self, number: int, label: str) -> tuple[dict[str, np.ndarray], float, int] | None:
        """The result that is kept of step ``number``, the seconds and the passes it took; None when there is none."""
        try:
            with open(self.folder / _name(number), "rb") as file, np.load(file, allow_pickle=False) as archive:
                meta = json.loads(archive["meta"].tobytes())
                if meta.get("label") != label:
                    return None
                if bad := archive.zip.testzip():
                    raise ValueError(f"{bad} has another CRC")
                names = [name for name in archive.files if name.startswith("result.")]
                arrays = {name.removeprefix("result."): archive[name] for name in names}
                return arrays, float(meta["seconds"]), int(meta["passes"])
        except FileNotFoundError:
            return None
        except MemoryError:
            raise
        except Exception as error:  # as in restore
            self._remark(f"what was saved of pass {number} is damaged ({error}): it begins again")
            self._discard(lambda name: name.startswith("pass-") and name >= _name(number))
            return None

    def last(self) -> SavedPass | None:
        """The last sweep that something is kept of."""
        numbers = [int(found[1]) for name in self._names() if (found := _PASS.fullmatch(name))]
        if not numbers:
            return None
        path = self.folder / _name(max(numbers))
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                meta = json.loads(archive["meta"].tobytes())
            return SavedPass(max(numbers), int(meta["done"]), int(meta["rows"]), path.stat().st_mtime)
        except Exception:  # as in restore; or it has just been removed
            return None

    def nbytes(self) -> int:
        """What its files take on disk."""
        total = 0
        for name in self._names():
            with contextlib.suppress(OSError):
                total += (self.folder / name).stat().st_size if _OURS.fullmatch(name) else 0
        return total

    def _write(self, name: str, write: Callable[[IO[bytes]], Any]) -> None:
        if self._lock is not None and not self._holds(self._lock):
            raise FileNotFoundError(errno.ENOENT, "the folder was removed")
        partial = self.folder / f"{name}.partial"
        try:
            with open(partial, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self.folder / name)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    # ------------------------------------------------------------ what is refused

    def _compare(self, document: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
        """Refuse the checkpoint of another version, problem or data, saying which."""
        if found := version_difference(document):
            raise self._error(
                f"this checkpoint is of {found}", "Finish it with that version, or remove the folder to begin anew."
            )
        kept = document["identity"]
        for name in [name for name in {**asked, **kept} if name != "data"]:
            if kept.get(name) != asked.get(name):
                raise self._error(
                    f"this checkpoint is of {name}={kept.get(name)!r}, not {asked.get(name)!r}",
                    "Ask for the same as then, or name another folder.",
                )
        if found := difference(kept["data"], asked["data"]):
            raise self._error(
                f"this checkpoint is of other data: {found}", "Name another folder, or remove this one to begin anew."
            )

    def _unwritable(self, error: OSError) -> CheckpointError:
        return self._error(f"no checkpoint can be written here ({error.strerror})", "Name another folder.")

    def _error(self, what: str, hint: str) -> CheckpointError:
        return CheckpointError(what, where=str(self.folder), hint=hint)


def _who(lock: IO[str]) -> str:
    lock.seek(0)
    return lock.read().strip()


def _name(number: int) -> str:
    return f"pass-{number:04d}.npz"


def _key(reductions: Sequence[Reduction[Any, Any]], layout: Layout) -> list[Any]:
    return [digest(reductions), layout.rows, layout.block_rows, layout.segment_rows]


def _states(archive: Any, level: int, i: int, reductions: Sequence[Reduction[Any, Any]]) -> States:
    states = []
    for k, reduction in enumerate(reductions):
        start = f"{level}.{i}.{k}."
        names = [name for name in archive.files if name.startswith(start)]
        states.append(reduction.from_arrays({name.removeprefix(start): archive[name] for name in names}))
    return states


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as they come back from JSON."""
    return dict(json.loads(json.dumps(values)))


def _versions() -> dict[str, Any]:
    import leyden

    return {"format": FORMAT, "leyden": leyden.__version__}


def version_difference(document: Mapping[str, Any]) -> str:
    """Of which other version a ``run.json`` is, as part of a sentence; empty when it is of this one."""
    version = _versions()
    if all(document[name] == version[name] for name in version):
        return ""
    kept, now = (f"Leyden {found['leyden']} (format {found['format']})" for found in (document, version))
    return f"{kept}, and this is {now}"


def as_checkpoint(checkpoint: Any) -> Checkpoint | None:
    """What an argument ``checkpoint=`` stands for."""
    if checkpoint is None or isinstance(checkpoint, Checkpoint):
        return checkpoint
    if not isinstance(checkpoint, str | os.PathLike) or not os.fspath(checkpoint):
        raise OptionError(f"checkpoint={checkpoint!r} is not a folder", hint="Give its path.")
    return Checkpoint(Path(checkpoint))
