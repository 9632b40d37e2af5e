"""The Dask executor: the same pass, cut into tasks for the workers of a cluster.

A task folds an aligned run of segments, which is a node of the merge tree, by the code that the local executor runs.
Neighbours are merged by further tasks, in the order of the tree, so the result has the bits of a local run with the
same layout. States stay on the workers: what comes to this process is the root, or, where a checkpoint asks for them,
the nodes that are finished.

Scheduling, transport, and retrying after the loss of a worker are Dask's: tasks have no side effects and a task that
is lost is run again elsewhere. See ``docs/distributed.md``.
"""

from __future__ import annotations

import copy
import math
import platform
import signal
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cache
from multiprocessing import resource_tracker
from typing import Any

from leyden.engine.budget import Layout, parse_memory
from leyden.engine.budget import layout as lay_out
from leyden.engine.local import Local, single_threaded_blas
from leyden.engine.reduction import Reduction
from leyden.engine.tree import MergeTree, Node, States
from leyden.errors import ClusterError, DataError, OptionError
from leyden.rows.base import Rows
from leyden.rows.remote import size

#: Seconds to wait for a scheduler, and for its first worker.
CONNECT = 5.0

#: Tasks come in rounds, one for each thread, that share out 1/SHARE of what is left (S. F. Hummel, E. Schonberg,
#: L. E. Flynn, "Factoring: a method for scheduling parallel loops", Comm. ACM 35(8), 1992): long ones first, for each
#: costs milliseconds of scheduling and a merge; short ones, 1/LAST of a thread's part of the pass, at the end.
SHARE, LAST = 2, 32

#: Bytes of rows in a task. Below the first, some milliseconds of scheduling would show; with more than the last, a lost
#: worker or an interrupt would cost minutes.
SMALLEST, PREFERRED, LARGEST = 4 << 20, 32 << 20, 1 << 30

#: Bytes of states, and how many at most, that one task merges: more of them where a merge takes less than its task.
MERGED_NBYTES, MERGED = 16 << 20, 16

#: What a cluster of our own leaves out: measurements of itself that nobody looks at, and giving back memory that is
#: taken again a moment later.
QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "2s",
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 64 << 20,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 32 << 20,
}

#: What a worker needs beside the budget: the interpreter and its libraries. Dask spills at 0.7 of its limit.
OVERHEAD, SPILLS_AT = 512 << 20, 0.7


class Dask:
    """Runs passes on the workers of a Dask cluster.

    The workers open the data themselves: files must be there under the same paths, or be remote. Rows in memory are
    sent to every worker, once. The memory budget of a run is that of each process.

    Parameters
    ----------
    client : distributed.Client or str
        Connected to the cluster; or the address of its scheduler. A connection made here lasts until :meth:`close`.
    task : str or int, optional
        Bytes of rows that one task folds, as ``"256MB"``; by default long tasks first and short ones at the end. The
        answer is the same.

    Raises
    ------
    OptionError
        If there is no scheduler at the address, or ``distributed`` is not installed. A pass raises it where there are
        no workers or they are of another version, and ClusterError where too many are lost.

    Examples
    --------
    >>> import numpy as np, leyden as ly
    >>> from distributed import Client
    >>> with Client(processes=False, dashboard_address=":0") as client, ly.executor(ly.Dask(client)):
    ...     ly.lstsq(np.eye(3), np.ones(3)).certificate.holds
    True
    """

    def __init__(self, client: Any, *, task: str | int | None = None):
        distributed = _distributed()
        self._owns = isinstance(client, str)
        self._task = None if task is None else parse_memory(task)
        if isinstance(client, str):
            client = _connect(client)
        if not isinstance(client, distributed.Client) or client.asynchronous:
            raise OptionError(
                f"{client!r} is not a client that passes can be run with",
                hint="Give a distributed.Client, or the address of a scheduler.",
            )
        self.client = client
        self._held: weakref.WeakKeyDictionary[Rows, Any] = weakref.WeakKeyDictionary()
        self._checked: set[str] = set()
        self._seen_by: weakref.WeakKeyDictionary[Rows, set[str]] = weakref.WeakKeyDictionary()

    @classmethod
    @contextmanager
    def local(cls, workers: int, memory: str | int | None = None) -> Iterator[Dask]:
        """A context with a cluster of ``workers`` processes on this machine, of one thread each.

        A script that calls this must do so under ``if __name__ == "__main__":``, for the processes import it.

        Parameters
        ----------
        workers : int
        memory : str or int, optional
            The budget of the runs to come, for each process; by default they share half of the memory that is free.
        """
        import logging

        distributed = _distributed()
        from dask import config

        if workers < 1:
            raise OptionError(f"workers={workers} is not a number of processes")
        if memory is None:
            limit = 2 * parse_memory(None) // workers
        else:
            limit = int((parse_memory(memory) + OVERHEAD) / SPILLS_AT)
        with ExitStack() as stack:
            with _without_interrupts(), config.set(QUIET):
                try:
                    cluster = distributed.LocalCluster(
                        n_workers=workers,
                        threads_per_worker=1,
                        processes=True,
                        host="127.0.0.1",
                        dashboard_address="127.0.0.1:0",  # without an address Dask would take port 8787
                        scheduler_kwargs={"dashboard": False},
                        memory_limit=limit,
                        silence_logs=logging.CRITICAL,
                    )
                except RuntimeError as error:
                    raise ClusterError(f"the workers could not be started ({error})") from error
                client = distributed.Client(stack.enter_context(cluster), set_as_default=False)
                stack.enter_context(client)
            yield cls(client)

    def close(self) -> None:
        """Close the connection, if it was made here."""
        self._held.clear()
        if self._owns:
            self.client.close()

    def __enter__(self) -> Dask:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Dask({self._address!r})"

    @property
    def _address(self) -> str:
        return str(self.client.scheduler.address) if self.client.scheduler else "no scheduler"

    def memory(self) -> int:
        """The budget when none is given: half of the smallest worker's memory, or of what is free here if less."""
        limits = [int(worker["memory_limit"] or 0) // 2 for worker in self._workers().values()]
        return min([parse_memory(None), *(limit for limit in limits if limit)])

    def fold(
        self,
        rows: Rows,
        reductions: Sequence[Reduction[Any, Any]],
        layout: Layout,
        tree: MergeTree,
        on_rows: Callable[[int], None] = lambda count: None,
        on_remark: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        """Fold the segments that ``tree`` has not on the workers, and add their nodes to it."""
        missing = tree.missing()
        if not missing:
            return
        workers = self._workers()
        self._check_software([address for address in workers if address not in self._checked], on_remark)
        self._check_files(rows, list(workers))
        fitting = lay_out(rows, reductions, layout.memory, threads=1 << 20).threads
        threads = [min(worker["nthreads"], fitting) for worker in workers.values()]
        layout = replace(layout, threads=max(threads))
        level = self._levels(layout, rows, sum(threads))
        with single_threaded_blas():
            _Pass(self, rows, reductions, layout, tree, on_rows, level).run(missing)

    def _levels(self, layout: Layout, rows: Rows, threads: int) -> Callable[[int], int]:
        """A function that tells the level of the node that the next task makes from how many segments are left."""
        segment = max(layout.segment_rows * rows.row_nbytes, 1)
        part = layout.rows * rows.row_nbytes / threads
        shortest = min(max(part / LAST, PREFERRED), max(part, SMALLEST))

        def rounds() -> Generator[int, int, None]:
            left = yield 0
            while True:
                wanted = self._task or min(max(left * segment / (SHARE * threads), shortest), LARGEST)
                for _ in range(threads):
                    left = yield max(0, int(math.log2(max(wanted / segment, 1))))

        levels = rounds()
        next(levels)
        return levels.send

    # ------------------------------------------------------------ the cluster

    def _workers(self) -> dict[str, Any]:
        """What the scheduler says of each worker, of which there is at least one."""
        distributed = _distributed()
        try:
            self.client.wait_for_workers(1, timeout=CONNECT)
        except (TimeoutError, distributed.TimeoutError):
            raise OptionError(
                "the scheduler has no workers", where=self._address, hint="Start some: dask worker ADDRESS."
            ) from None
        return dict(self.client.scheduler_info()["workers"])

    def _lost(self) -> ClusterError:
        return ClusterError("the connection to the scheduler was lost", where=self._address)

    def _check_software(self, workers: list[str], on_remark: Callable[[str], None]) -> None:
        """Refuse workers with another Leyden or Python, and remark on those that may round otherwise."""
        if not workers:
            return
        self._check_versions(workers)
        here = _machine()
        for address, there in self.client.run(_machine, workers=workers).items():
            other = [f"{name} {there[name]} (here {here[name]})" for name in here if there[name] != here[name]]
            if other:
                on_remark(f"worker {address} has {', '.join(other)}: the last bits of the answer may differ")
        self._checked.update(workers)

    def _check_files(self, rows: Rows, workers: list[str]) -> None:
        """Refuse workers that do not see the files, or see others under the same paths."""
        seen = self._seen_by.setdefault(rows, set())
        workers = [address for address in workers if address not in seen]
        if not rows.files or not workers:
            return
        here = _sizes(rows.files)
        for address, there in self.client.run(_sizes, rows.files, workers=workers).items():
            for path, mine, other in zip(rows.files, here, there, strict=True):
                if mine != other:
                    found = "cannot be read" if other is None else f"has {other:,} bytes, and not {mine:,} as here,"
                    raise DataError(
                        f"the file {found} on worker {address}",
                        where=path,
                        hint="Every worker must see the same files under the same paths.",
                    )
        seen.update(workers)

    def _check_versions(self, workers: list[str]) -> None:
        # Another Python may not even read what is sent to it: Dask's own report comes first.
        python = "{}.{}".format(*platform.python_version_tuple())
        for address, report in self.client.get_versions()["workers"].items():
            there = ".".join(str(report["host"]["python"]).split(".")[:2])
            if address in workers and there != python:
                raise _version_error(address, f"Python {there}", f"Python {python}")

        def leyden_version() -> str | None:
            try:
                import leyden
            except ImportError:
                return None
            return str(leyden.__version__)

        # A function within a function travels as code, and does not need this module where it arrives.
        here = leyden_version()
        for address, found in self.client.run(leyden_version, workers=workers).items():
            if found != here:
                raise _version_error(address, f"Leyden {found}" if found else "no Leyden", f"Leyden {here}")

    def hold(self, rows: Rows) -> Any:
        """The future of these rows on the workers, sent there unless they are there."""
        held = self._held.get(rows)
        if held is None or held.status != "finished":
            held = self._held[rows] = self.send(_Held(rows))
        return held

    def send(self, value: Any) -> Any:
        """The future of a value that every worker is given."""
        (sent,) = self.client.scatter([value], broadcast=True, hash=False)
        return sent


class _Pass:
    """One pass: the nodes that are being made on the workers, and those that are made there."""

    def __init__(
        self,
        cluster: Dask,
        rows: Rows,
        reductions: Sequence[Reduction[Any, Any]],
        layout: Layout,
        tree: MergeTree,
        on_rows: Callable[[int], None],
        level: Callable[[int], int],
    ):
        self.cluster, self.client = cluster, cluster.client
        self.rows, self.reductions, self.layout, self.tree, self.level = rows, reductions, layout, tree, level
        self.on_rows = on_rows
        self.making: dict[Any, Node] = {}
        #: The parts of each node, in order: one future, or several that are yet to be merged.
        self.made: dict[Node, dict[Node, Any]] = {}
        self.folds: set[Any] = set()
        self.arrivals = _distributed().as_completed(loop=self.client.loop)
        self.sent: Any = None
        state = sum(reduction.state_nbytes for reduction in reductions)
        self.at_once = max(1, layout.memory // (4 * max(state, 1)))
        self.merged_at_once = max(2, min(MERGED, MERGED_NBYTES // max(state, 1), self.at_once))

    def run(self, missing: Sequence[int]) -> None:
        """Make the nodes that hold ``missing`` and bring them to the tree."""
        try:
            self._submit(missing)
            while self.making or self.made:
                self._follow()
                for start in range(0, len(nodes := self._in_order(self.made)), self.at_once):
                    self._bring(nodes[start : start + self.at_once])
        except BaseException:
            if self.tree.due is not None and self.client.status == "running":
                with suppress(Exception):
                    self._bring_finished()
            raise
        finally:
            with suppress(Exception):
                made = [future for parts in self.made.values() for future in parts.values()]
                self.client.cancel([*self.making, *made])

    def _submit(self, segments: Sequence[int]) -> None:
        """Begin to fold ``segments``."""
        import leyden

        held = self.cluster.hold(self.rows)
        if self.sent is None or self.sent.status != "finished":
            self.sent = self.cluster.send(list(self.reductions))
        nodes = self.tree.pieces(segments, self.level)
        futures = self.client.map(
            _fold,
            [self.tree.span(node) for node in nodes],
            held=held,
            reductions=self.sent,
            layout=self.layout,
            version=leyden.__version__,
            pure=False,
        )
        self.folds.update(futures)
        self._await(dict(zip(futures, nodes, strict=True)))

    def _await(self, futures: Mapping[Any, Node]) -> None:
        self.making.update(futures)
        self.arrivals.update(futures)

    def _follow(self) -> None:
        """Merge neighbours as they arrive, until nothing is being made."""
        for future in self.arrivals:
            node = self.making.pop(future)
            folded = future in self.folds
            self.folds.discard(future)
            if future.status == "finished":
                if folded:
                    self.on_rows(self._rows_of(node))
                self._arrived(self.tree.settled(node), future)
            elif future.status == "error":
                self._raise(future)
            else:
                self._again(node, counted=not folded)
            if self.tree.due is not None and self.tree.due():
                self._bring_finished()
            if not self.making:
                for node in [node for node, parts in self.made.items() if len(parts) > 1]:
                    self._merge(node)

    def _arrived(self, node: Node, future: Any) -> None:
        """Join a node with its neighbours, and merge their states once there are enough of them for a task."""
        parts = {node: future}
        while len(parts) < self.merged_at_once:
            level, i = node
            sibling = self.made.pop((level, i ^ 1), None)
            if sibling is None:
                break
            parts = parts | sibling if i % 2 == 0 else sibling | parts
            node = self.tree.settled((level + 1, i // 2))
        self.made[node] = parts
        if len(parts) >= self.merged_at_once:
            self._merge(node)

    def _merge(self, node: Node) -> None:
        """Begin to merge the parts of a node."""
        parts = self.made.pop(node)
        merged = self.client.submit(
            _merge, self.sent, self.layout.segments, list(parts), list(parts.values()), pure=False, priority=1
        )
        self._await({merged: node})

    def _again(self, node: Node, *, counted: bool) -> None:
        """Make a node anew: what it needed was on workers that are gone, and only this process can send it again."""
        if self.client.status != "running":
            raise self.cluster._lost()
        if counted:
            self.on_rows(-self._rows_of(node))
        self._submit(self.tree.span(node))

    def _bring_finished(self) -> None:
        """Bring the nodes that are made, as many as this process has room for: a checkpoint is about to be saved."""
        with self.tree.still() as nodes:
            room = self.at_once - len(nodes)
        chosen: list[Node] = []
        for node in self._in_order(self.made):
            parts = self.made[node].values()
            if all(future.status == "finished" for future in parts) and (not chosen or len(parts) <= room):
                chosen.append(node)
                room -= len(parts)
        self._bring(chosen)

    def _bring(self, nodes: Sequence[Node]) -> None:
        """Move nodes that are made to the tree."""
        parts = {part: future for node in nodes for part, future in self.made[node].items()}
        if not parts:
            return
        try:
            states = self.client.gather(list(parts.values()))
        except CancelledError:
            lost = [node for node in nodes if any(future.cancelled() for future in self.made[node].values())]
            for node in lost or nodes:
                del self.made[node]
                self._again(node, counted=True)
            return
        for node in nodes:
            del self.made[node]
        self.tree.extend(dict(zip(parts, states, strict=True)))

    def _in_order(self, nodes: Iterable[Node]) -> list[Node]:
        """Nodes by the rows they hold: brought in this order, neighbours merge and few are held."""
        return sorted(nodes, key=lambda node: self.tree.span(node).start)

    def _rows_of(self, node: Node) -> int:
        return sum(map(self.layout.rows_of, self.tree.span(node)))

    def _raise(self, future: Any) -> None:
        error = future.exception()
        if isinstance(error, _distributed().KilledWorker):
            raise ClusterError(
                "workers were lost again and again over the same part of the data",
                where=self.cluster._address,
                hint="If they ran out of memory, give a smaller memory= or fewer threads to a worker; see their logs.",
            ) from None
        future.result()


# ---------------------------------------------------------------- on the workers


class _Held:
    """Rows as a worker holds them: with the memory that they are read into, from task to task."""

    def __init__(self, rows: Rows):
        self.rows, self.local = rows, Local()

    def __reduce__(self) -> tuple[type[_Held], tuple[Rows]]:
        return _Held, (self.rows,)


def _fold(
    segments: range, held: _Held, reductions: Sequence[Reduction[Any, Any]], layout: Layout, version: str
) -> States:
    """The states of the rows of ``segments``, which are those of a node."""
    import leyden

    if version != leyden.__version__:
        raise _version_error(platform.node(), f"Leyden {leyden.__version__}", f"Leyden {version}")
    tree = MergeTree(reductions, layout.segments)
    _threads(layout.threads).submit(held.local.fold_here, held.rows, reductions, layout, tree, segments).result()
    return tree.result()


def _merge(
    reductions: Sequence[Reduction[Any, Any]], segments: int, nodes: Sequence[Node], states: Sequence[States]
) -> States:
    """The states of neighbouring nodes as those of one."""
    tree = MergeTree(reductions, segments)
    with single_threaded_blas():
        for (level, i), part in zip(nodes, states, strict=True):
            # What is merged into may be needed as it was: the worker may be retired before this is done.
            tree.add((level, i), copy.deepcopy(part) if i % 2 == 0 else part)
    return tree.result()


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    """The threads of a worker that fold: as many as the memory budget has room for, with scratch memory in each."""
    return ThreadPoolExecutor(count, "leyden")


def _machine() -> dict[str, str]:
    """What the last bits of floating-point sums depend on, beside the data."""
    import llvmlite.binding
    import numba
    import numpy as np
    import scipy.linalg  # it brings a BLAS of its own
    import threadpoolctl

    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    blas = {f"{pool['internal_api']} for {pool.get('architecture')}" for pool in pools}
    return {
        "NumPy": np.__version__,
        "SciPy": scipy.__version__,
        "Numba": numba.__version__,
        "BLAS": " and ".join(sorted(blas)),
        "processor": llvmlite.binding.get_host_cpu_name(),
    }


def _sizes(paths: Sequence[str]) -> list[int | None]:
    sizes: list[int | None] = []
    for path in paths:
        try:
            sizes.append(size(path))
        except (OSError, DataError):
            sizes.append(None)
    return sizes


# ---------------------------------------------------------------- connecting


def _distributed() -> Any:
    try:
        import distributed
    except ImportError:
        raise OptionError("Dask's distributed is not installed", hint="pip install 'leyden[dask]'") from None
    return distributed


def _connect(address: str) -> Any:
    import asyncio

    distributed = _distributed()
    from distributed.comm import connect

    async def knock() -> None:
        await (await connect(address, timeout=CONNECT)).close()

    try:
        # A client that has failed to connect goes on trying in the background; this does not.
        with ThreadPoolExecutor(1) as pool:  # this thread may have an event loop of its own, as in a notebook
            pool.submit(lambda: asyncio.run(asyncio.wait_for(knock(), CONNECT))).result()
        return distributed.Client(address, timeout=CONNECT, set_as_default=False)
    except ValueError as error:
        raise OptionError(
            f"scheduler={address!r} is not an address ({error})", hint="Write it like tcp://10.0.0.1:8786."
        ) from None
    except Exception:  # whatever the answer of a server that is not a scheduler makes Dask raise
        raise OptionError(
            "no Dask scheduler can be reached here",
            where=address,
            hint="Start one with `dask scheduler`, and give the address that it prints.",
        ) from None


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A context that Ctrl-C waits for, and in which processes can be started that never hear of it.

    A terminal sends it to all of them, and it is for the first to end the others.
    """
    resource_tracker.ensure_running()  # it would let signals through again when it starts with the first process
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _version_error(worker: str, there: str, here: str) -> OptionError:
    return OptionError(
        f"worker {worker} runs {there}, and this process {here}", hint="Install the same version everywhere."
    )
