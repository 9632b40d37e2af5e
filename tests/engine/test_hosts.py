"""A cluster of separate processes, as on separate hosts: workers die in mid-pass, and the answer is right."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import leyden as ly
from leyden.errors import ClusterError, OptionError

OPTIONS = {"memory": "200kB", "threads": 2, "method": "tsqr"}
SOURCE = str(Path(ly.__file__).absolute().parents[1])
N = 16_000


def slow_rows(n=N, seconds=0.02):
    """Rows whose blocks take a while to make."""

    def function(start, stop):
        time.sleep(seconds)
        i = np.arange(start, stop, dtype=float)
        return np.column_stack([np.sin(i), np.cos(i), np.sin(1.5 * i)]), np.sin(2 * i + 1)

    return ly.generated(function, n, 3, chunk=500)


class Hosts:
    """A scheduler and workers, each a process; ``inside`` is the command that starts it on its host."""

    def __init__(self, folder, address="127.0.0.1", inside=lambda host: [], **settings):
        self.file, self.inside = folder / "scheduler.json", inside
        self.environment = {**os.environ, "PYTHONPATH": SOURCE, **settings}
        self.processes, self.workers = [], []
        where = ["--host", address, "--port", "0", "--scheduler-file", str(self.file)]
        self.scheduler = self._start("scheduler", "dask_scheduler", [*where, "--no-dashboard", "--no-show"])

    def _start(self, host, program, arguments, **environment):
        command = [*self.inside(host), sys.executable, "-m", f"distributed.cli.{program}", *arguments]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, env={**self.environment, **environment}, **quiet)
        self.processes.append(process)
        return process

    def need_workers(self, count):
        """Start what is missing of so many workers."""
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        self.start_workers(count - len(self.workers))

    def start_workers(self, count, **environment):
        where = ["--scheduler-file", str(self.file), "--local-directory", str(self.file.parent)]
        options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "0"]
        for _ in range(count):
            host = f"worker{len(self.workers)}"
            self.workers.append(self._start(host, "dask_worker", [*where, *options], **environment))

    @contextlib.contextmanager
    def connected(self, workers):
        from distributed import Client

        waits(self.file.exists)
        with Client(scheduler_file=str(self.file), set_as_default=False, timeout=20) as client:
            client.wait_for_workers(workers, timeout=30)
            yield ly.Dask(client, task="20kB")

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()


def waits(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    made = Hosts(tmp_path_factory.mktemp("hosts"))
    try:
        yield made
    finally:
        made.end()


class When:
    """An executor that does something once, when a share of the rows of the first pass is done."""

    def __init__(self, runs, act, share=0.3):
        self.runs, self.act, self.share, self.done, self.acted = runs, act, share, 0, False

    def memory(self):
        return self.runs.memory()

    def fold(self, rows, reductions, layout, tree, on_rows, on_remark):
        def count(more):
            on_rows(more)
            self.done += more
            if not self.acted and self.done >= self.share * rows.shape[0]:
                self.acted = True
                self.act()

        self.runs.fold(rows, reductions, layout, tree, count, on_remark)


def assert_same_bits(one, other):
    np.testing.assert_array_equal(one.x, other.x)
    np.testing.assert_array_equal(one.coefficient_error, other.coefficient_error)
    assert one.certificate.to_json() == other.certificate.to_json()
    assert one.certificate.holds


@pytest.fixture(scope="module")
def expected():
    return ly.lstsq(slow_rows(seconds=0), **OPTIONS)


def test_a_worker_killed_in_mid_pass_changes_no_bit(hosts, expected):
    hosts.need_workers(3)
    with hosts.connected(3) as dask:
        executor = When(dask, lambda: os.kill(hosts.workers[0].pid, signal.SIGKILL))
        solution = ly.lstsq(slow_rows(), **OPTIONS, executor=executor)
        assert len(dask.client.scheduler_info()["workers"]) == 2
    assert_same_bits(solution, expected)


def test_a_pass_goes_on_when_every_worker_is_lost_and_another_joins(hosts, expected):
    hosts.need_workers(2)

    def replace_all():
        for worker in hosts.workers:
            os.kill(worker.pid, signal.SIGKILL)
        hosts.start_workers(1)

    with hosts.connected(2) as dask:
        solution = ly.lstsq(slow_rows(), **OPTIONS, executor=When(dask, replace_all))
    assert_same_bits(solution, expected)


def test_a_worker_with_another_version_is_named(hosts, tmp_path):
    other = tmp_path / "other" / "leyden"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text('__version__ = "0.0.9"\n')
    hosts.need_workers(1)
    hosts.start_workers(1, PYTHONPATH=str(other.parent))
    said = rf"^worker tcp://\S+ runs Leyden 0\.0\.9, and this process Leyden {ly.__version__}\. Install the same"
    with hosts.connected(2) as dask, pytest.raises(OptionError, match=said):
        ly.lstsq(slow_rows(), **OPTIONS, executor=dask)
    hosts.workers[-1].kill()


def test_a_scheduler_that_dies_ends_the_run_with_a_sentence(hosts):
    import dask as dask_package

    hosts.need_workers(1)
    with dask_package.config.set({"distributed.comm.timeouts.connect": "1s"}), hosts.connected(1) as dask:
        executor = When(dask, hosts.scheduler.kill, share=0.1)
        with pytest.raises(ClusterError, match="the connection to the scheduler was lost"):
            ly.lstsq(slow_rows(), **OPTIONS, executor=executor)


# ---------------------------------------------------------------- hosts as network namespaces


def ip(*arguments):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True)


@pytest.fixture
def network():
    """A bridge with four hosts on it: ``inside(host)`` is the command that starts something there."""
    if shutil.which("ip") is None:
        pytest.skip("network namespaces need iproute2's ip")
    mark = f"ly{os.getpid() % 10**6}"
    names = ["scheduler", "worker0", "worker1", "worker2"]
    if (made := ip("link", "add", mark, "type", "bridge")).returncode:
        pytest.skip(f"network namespaces cannot be made here: {made.stderr.strip()}")
    try:
        subnet = f"10.{100 + os.getpid() % 100}.{os.getpid() // 100 % 250}"
        steps = [("addr", "add", f"{subnet}.1/24", "dev", mark), ("link", "set", mark, "up")]
        for i, name in enumerate(names):
            space, here, there = f"{mark}{name}", f"{mark}{i}", f"{mark}{i}p"
            steps += [
                ("netns", "add", space),
                ("link", "add", here, "type", "veth", "peer", "name", there),
                ("link", "set", there, "netns", space),
                ("link", "set", here, "master", mark, "up"),
                ("-n", space, "addr", "add", f"{subnet}.{i + 2}/24", "dev", there),
                ("-n", space, "link", "set", there, "up"),
                ("-n", space, "link", "set", "lo", "up"),
            ]
        for step in steps:
            if (made := ip(*step)).returncode:
                pytest.skip(f"network namespaces cannot be made here: {made.stderr.strip()}")
        yield {
            "address": f"{subnet}.2",
            "inside": lambda host: ["ip", "netns", "exec", f"{mark}{host}"],
            "unplug": lambda host: ip("link", "set", f"{mark}{names.index(host)}", "down"),
        }
    finally:
        for name in names:
            ip("netns", "del", f"{mark}{name}")
        for link in (*(f"{mark}{i}" for i in range(len(names))), mark):
            ip("link", "del", link)


def test_a_host_whose_cable_is_pulled_changes_no_bit(tmp_path, network, expected):
    """Nothing is closed: the scheduler finds out by silence."""
    hosts = Hosts(tmp_path, network["address"], network["inside"], DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="1s")
    try:
        hosts.start_workers(3)
        with hosts.connected(3) as dask:
            executor = When(dask, lambda: network["unplug"]("worker1"))
            solution = ly.lstsq(slow_rows(), **OPTIONS, executor=executor)
            assert len(dask.client.scheduler_info()["workers"]) == 2
        assert_same_bits(solution, expected)
    finally:
        hosts.end()
