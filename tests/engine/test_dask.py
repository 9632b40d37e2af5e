"""The Dask executor: the bits of a local run, from every source; checkpoints; errors as they are."""

from __future__ import annotations

import contextlib
import os
import pickle
import platform
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

import leyden as ly
from leyden.engine import dask as engine_dask
from leyden.engine.checkpoint import Checkpoint
from leyden.engine.executor import current
from leyden.engine.local import Local
from leyden.errors import ClusterError, DataError, Interrupted, LeydenError, OptionError

# A few rows a block, so that a small problem is many segments.
SMALL = {"memory": "400kB", "threads": 2}
#: What decoding and parsing take comes on top.
DECODING = {"parquet": {"memory": "6MB"}, "svmlight": {"memory": "5MB"}}
N, D = 30_000, 6


@pytest.fixture(scope="module")
def dask():
    """Two processes that fold a few segments a task."""
    with ly.Dask.local(2, "200MB") as made:
        yield ly.Dask(made.client, task="150kB")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One problem in several formats."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    a = rng.standard_normal((N, D))
    a[:, 1] = a[:, 0] + 1e-4 * a[:, 1]
    b = a @ np.arange(1.0, D + 1) + rng.standard_normal(N)
    np.save(folder / "a.npy", a)
    np.save(folder / "b.npy", b)
    table = pa.table({**{f"x{j}": a[:, j] for j in range(D)}, "y": b})
    for part in range(3):
        pq.write_table(table.slice(part * 10_000, 10_000), folder / f"t{part}.parquet", row_group_size=2500)
    with open(folder / "a.svm", "w") as file:
        for row, label in zip(a[:4000], b, strict=False):
            entries = " ".join(f"{j}:{float(value)!r}" for j, value in enumerate(row, 1) if value > 0)
            file.write(f"{float(label)!r} {entries}\n")
    return folder


def sparse(folder):
    return sp.csr_array(np.maximum(np.load(folder / "a.npy"), 0))


SOURCES = {
    "npy": lambda folder: ly.open(folder / "a.npy", target=folder / "b.npy"),
    "a column of npy as target": lambda folder: ly.open(folder / "a.npy", target=2),
    "parquet": lambda folder: ly.open(str(folder / "t*.parquet"), target="y"),
    "svmlight": lambda folder: ly.open(folder / "a.svm"),
    "array": lambda folder: ly.open(np.load(folder / "a.npy"), target=np.load(folder / "b.npy")),
    "sparse": lambda folder: ly.open(sparse(folder), target=np.load(folder / "b.npy")),
    "remote": lambda folder: ly.open(f"file://{folder}/a.npy", target=np.load(folder / "b.npy")),
    "mapped": lambda folder: ly.open(folder / "a.npy", target=folder / "b.npy").map(ly.Scale(0.5, 3.0)),
}


def assert_same_bits(one, other):
    for name in ("x", "coefficient_error", "residual_norm"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.certificate.to_json() == other.certificate.to_json()
    assert one.certificate.holds


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_the_bits_of_a_local_run(dask, folder, source):
    rows, options = SOURCES[source](folder), {**SMALL, **DECODING.get(source, {})}
    there = ly.lstsq(rows, **options, executor=dask)
    assert_same_bits(there, ly.lstsq(rows, **options))


@pytest.mark.parametrize("method", ["gram32", "gram64", "tsqr", "sketch"])
def test_every_method_gives_the_bits_of_a_local_run(dask, folder, method):
    rows = SOURCES["npy"](folder)
    options = {**SMALL, "method": method, "ridge": 1e-3, "intercept": True}
    with ly.executor(dask):
        there = ly.lstsq(rows, **options)
    assert_same_bits(there, ly.lstsq(rows, **options))


def test_the_size_of_a_task_does_not_change_the_answer(dask, folder):
    rows = SOURCES["npy"](folder)
    answers = [ly.lstsq(rows, **SMALL, executor=ly.Dask(dask.client, task=task)) for task in (1, "300kB", None)]
    for other in answers[1:]:
        assert_same_bits(answers[0], other)


def test_threads_of_one_worker_fold_several_tasks_at_once(folder):
    from distributed import Client

    rows = SOURCES["npy"](folder)
    with Client(processes=False, n_workers=1, threads_per_worker=4, dashboard_address=":0", set_as_default=False) as c:
        for method in ("gram64", "tsqr"):
            there = ly.lstsq(rows, **SMALL, method=method, executor=ly.Dask(c, task="50kB"))
            assert_same_bits(there, ly.lstsq(rows, **SMALL, method=method))


def test_a_solution_is_verified_on_the_cluster(dask, folder):
    rows = SOURCES["parquet"](folder)
    solution = ly.lstsq(rows, **DECODING["parquet"])
    there = ly.verify(solution, rows, **DECODING["parquet"], executor=dask)
    assert there.holds
    assert there.to_json() == ly.verify(solution, rows, **DECODING["parquet"]).to_json()


def test_the_executor_of_a_context_is_that_of_the_calls_inside(dask):
    assert isinstance(current(), Local)
    with ly.executor(dask):
        assert current() is dask
        with ly.executor(Local()) as inner:
            assert current() is inner
        assert current() is dask
    assert isinstance(current(), Local)
    with pytest.raises(OptionError, match="executor=3 cannot run a pass"):
        ly.lstsq(np.eye(3), np.ones(3), executor=3)


def test_rows_of_files_are_small_when_they_travel_and_open_where_they_arrive(folder):
    for name in ("npy", "a column of npy as target", "parquet", "svmlight", "remote"):
        rows = SOURCES[name](folder)
        rows.read(0, 10)
        roles = rows.shape[0] * 8 if name == "remote" else 0
        assert len(pickle.dumps(rows)) < 20_000 + roles
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(rows)).read(5, 9).target, rows.read(5, 9).target)


def test_a_file_that_is_not_where_the_rows_arrive_is_named(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((4, 2)))
    travelling = pickle.dumps(ly.open(tmp_path / "a.npy"))
    (tmp_path / "a.npy").unlink()
    arrived = pickle.loads(travelling)
    with pytest.raises(DataError, match=rf"a\.npy on {platform.node()}: the file cannot be opened \(No such file"):
        arrived.read(0, 1)


@pytest.mark.parametrize("kind", [LeydenError, *LeydenError.__subclasses__()])
def test_errors_travel_with_their_sentence(kind):
    error = kind("it is wrong", where="a.npy, row 3", hint="Right it.")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (str(again), again.what, again.where, again.hint) == (str(error), error.what, error.where, error.hint)
    interrupt = pickle.loads(pickle.dumps(Interrupted("go on", 15)))
    assert (str(interrupt), interrupt.signal) == ("go on", 15)


# ---------------------------------------------------------------- checkpoints


class Stopping:
    """An executor that is interrupted when a share of a pass is done."""

    def __init__(self, runs, share=0.5):
        self.runs, self.share = runs, share

    def memory(self):
        return self.runs.memory()

    def fold(self, rows, reductions, layout, tree, on_rows, on_remark):
        done = 0

        def count(more):
            nonlocal done
            on_rows(more)
            done += more
            if done > self.share * rows.shape[0]:
                raise KeyboardInterrupt

        self.runs.fold(rows, reductions, layout, tree, count, on_remark)


@pytest.mark.parametrize("interval", [0.0, 60.0])
@pytest.mark.parametrize("begins", ["local", "dask"])
def test_a_run_goes_on_elsewhere_to_the_same_bits(dask, folder, tmp_path, begins, interval):
    executors = {"local": Local(), "dask": dask}
    rows, options = SOURCES["npy"](folder), {**SMALL, "method": "tsqr"}
    keep = Checkpoint(tmp_path / "run", interval=interval)
    with pytest.raises(Interrupted):
        ly.lstsq(rows, **options, checkpoint=keep, executor=Stopping(executors[begins]))
    assert (tmp_path / "run" / "pass-0001.npz").exists()
    (ends,) = set(executors) - {begins}
    solution = ly.lstsq(rows, **options, checkpoint=tmp_path / "run", executor=executors[ends])
    assert any("went on from a checkpoint" in remark for remark in solution.trace.remarks)
    assert_same_bits(solution, ly.lstsq(rows, **options))
    assert not (tmp_path / "run").exists()


def test_a_node_lost_before_it_is_brought_is_made_again(dask, folder, monkeypatch):
    rows, bring, lost = SOURCES["npy"](folder), engine_dask._Pass._bring, []

    def losing(self, nodes):
        if not lost:
            lost.append(nodes[0])
            (future,) = self.made[nodes[0]].values()
            self.client.cancel(future, force=True)
            assert settles(future.cancelled)
        bring(self, nodes)

    monkeypatch.setattr(engine_dask._Pass, "_bring", losing)
    there = ly.lstsq(rows, **SMALL, executor=dask)
    assert lost
    assert_same_bits(there, ly.lstsq(rows, **SMALL))


def test_an_interrupt_leaves_nothing_running(dask, folder):
    with pytest.raises(KeyboardInterrupt):
        ly.lstsq(SOURCES["npy"](folder), **SMALL, executor=Stopping(dask))

    def folding(dask_scheduler):
        return [str(key) for key in dask_scheduler.tasks if str(key).startswith(("_fold", "_merge"))]

    assert settles(lambda: dask.client.run_on_scheduler(folding) == [])


def settles(condition, seconds=10):
    end = time.monotonic() + seconds
    while not (there := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return there


# ---------------------------------------------------------------- errors


def elsewhere(act, n=N):
    """Rows of ones that do something else when row 15,000 is read in another process than this one."""
    here = os.getpid()

    def function(start, stop):
        if os.getpid() != here and start <= 15_000 < stop:
            act()
        rows = np.arange(start, stop, dtype=float)
        return np.column_stack([np.sin(rows), np.cos(rows)]), np.sin(2 * rows)

    return ly.generated(function, n, 2, chunk=1000)


def test_an_error_on_a_worker_comes_out_as_it_is(dask):
    def act():
        raise DataError("the disk is on fire", where="row 15,000")

    with pytest.raises(DataError, match=r"^row 15,000: the disk is on fire\.$"):
        ly.lstsq(elsewhere(act), **SMALL, executor=dask)


def test_nan_is_found_and_located(dask, folder):
    a = np.load(folder / "a.npy")
    a[17_000, 2] = np.nan
    with pytest.raises(DataError, match=r"array, row 17,000: NaN in column 'x2'"):
        ly.lstsq(a, np.ones(N), **SMALL, executor=dask)


@contextlib.contextmanager
def allowed_failures(client, count):
    def allow(dask_scheduler, count):
        before, dask_scheduler.allowed_failures = dask_scheduler.allowed_failures, count
        return before

    before = client.run_on_scheduler(allow, count=count)
    try:
        yield
    finally:
        client.run_on_scheduler(allow, count=before)


def test_rows_that_kill_every_worker_are_given_up(dask):
    with (
        allowed_failures(dask.client, 0),
        pytest.raises(ClusterError, match=r"workers were lost again and again.*give a smaller memory="),
    ):
        ly.lstsq(elsewhere(lambda: os._exit(1)), **SMALL, executor=dask)
    dask.client.wait_for_workers(2, timeout=30)


def test_a_scheduler_that_cannot_be_reached(monkeypatch):
    monkeypatch.setattr(engine_dask, "CONNECT", 0.5)
    with pytest.raises(OptionError, match=r"tcp://127\.0\.0\.1:1: no Dask scheduler can be reached here"):
        ly.Dask("tcp://127.0.0.1:1")
    with pytest.raises(OptionError, match=r"scheduler='nonsense' is not an address"):
        ly.Dask("nonsense")
    with pytest.raises(OptionError, match=r"3 is not a client"):
        ly.Dask(3)


def test_a_scheduler_without_workers(monkeypatch):
    from distributed import Client, LocalCluster

    monkeypatch.setattr(engine_dask, "CONNECT", 0.5)
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
        pytest.raises(OptionError, match=r"the scheduler has no workers\. Start some"),
    ):
        ly.lstsq(np.eye(3), np.ones(3), memory="1MB", executor=ly.Dask(client))


def test_a_worker_that_rounds_otherwise_is_remarked_on(dask, folder, monkeypatch):
    here = engine_dask._machine()
    fresh = ly.Dask(dask.client)
    monkeypatch.setattr(fresh.client, "run", run_as_if_elsewhere(fresh.client.run, here))
    solution = ly.lstsq(SOURCES["npy"](folder), **SMALL, executor=fresh)
    assert any(remark.count("the last bits of the answer may differ") for remark in solution.trace.remarks)


def run_as_if_elsewhere(run, here):
    def other(function, *args, **options):
        found = run(function, *args, **options)
        if function is engine_dask._machine:
            return {worker: {**here, "processor": "abacus"} for worker in found}
        return found

    return other


def test_workers_without_the_files_are_named(dask, folder, monkeypatch):
    rows = ly.open(folder / "a.npy")
    rows.files = (*rows.files, __file__)
    monkeypatch.setattr(engine_dask, "_sizes", lambda paths: [1] * len(paths))
    fresh = ly.Dask(dask.client)
    monkeypatch.setattr(fresh.client, "run", lambda function, *a, **k: {key: [1, None] for key in fresh._workers()})
    with pytest.raises(DataError, match=r"test_dask\.py: the file cannot be read on worker tcp://"):
        fresh._check_files(rows, list(fresh._workers()))


def test_without_distributed_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(OptionError, match=r"distributed is not installed\. pip install 'leyden\[dask\]'"):
        ly.Dask("tcp://127.0.0.1:8786")


RATINGS = {
    "explicit": {"regularization": 1.0, "biases": True},
    "implicit": {"regularization": 20.0, "implicit": True, "tol": 1e-4},
    "nonnegative": {"regularization": 1.0, "nonnegative": True, "epochs": 5},
}


@pytest.mark.parametrize("problem", RATINGS)
@pytest.mark.parametrize("stored", [False, True], ids=["matrix", "store"])
def test_ratings_are_factored_to_the_bits_of_a_local_run(dask, tmp_path, problem, stored):
    rng = np.random.default_rng(0)
    values = 3 + rng.standard_normal((3000, 2)) @ rng.standard_normal((2, 40))
    matrix = sp.csr_array(np.where(rng.random(values.shape) < 0.3, np.clip(np.round(values), 1, 5), 0))
    data = ly.open_ratings(matrix, out=tmp_path / "ratings") if stored else matrix
    options = {"rank": 3, "method": "streamed", "memory": "64MB", "threads": 2, **RATINGS[problem]}
    here, there = ly.als(data, **options), ly.als(data, **options, executor=dask)
    np.testing.assert_array_equal(there.model.v, here.model.v)
    assert there.history == here.history
    assert there.certificate.to_json() == here.certificate.to_json()
    with ly.executor(dask):
        assert ly.als(data, **options | {"method": "auto", "epochs": 1}).plan.method == "streamed"
    verified = here.verify(data, executor=dask, memory="64MB")
    assert verified.to_json() == here.verify(data, memory="64MB").to_json()
