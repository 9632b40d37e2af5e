"""Checkpoints: what they keep, what they refuse, and that nothing of it changes a bit."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import leyden as ly
from leyden.engine import registry
from leyden.engine.budget import Layout
from leyden.engine.checkpoint import Checkpoint
from leyden.engine.local import Local
from leyden.engine.reduction import Reduction
from leyden.engine.runs import clean, find
from leyden.engine.tree import MergeTree
from leyden.rows import open as open_rows

IDENTITY = {"verb": "lstsq", "ridge": 0.0, "data": {"shape": [3, 2], "files": [], "hash": "0"}}


@dataclass
class State:
    total: np.ndarray
    rows: int = 0


class Rounded(Reduction):
    """Sums whose rounding shows the order they were made in."""

    state_nbytes = 16

    def start(self):
        return State(np.zeros(2))

    def update(self, state, block):
        for row in np.asarray(block.data):
            state.total = state.total * 1.1 + row
        state.rows += block.rows
        return state

    def merge(self, a, b):
        a.total = a.total / 3 + b.total
        a.rows += b.rows
        return a

    def finish(self, state):
        return state.total.tobytes(), state.rows


class Stop(Exception):
    pass


def fold(rows, layout, checkpoint, stop_after=None):
    """A sweep that is left after so many segments, saved as it is left; and what was saved before is not done again."""
    reductions = [Rounded(), Rounded()]
    saved = checkpoint.restore(1, reductions, layout)
    left = [stop_after]

    def count(_):
        if left[0] is not None:
            left[0] -= 1
            if left[0] <= 0:
                raise Stop

    tree = MergeTree(reductions, layout.segments, saved.nodes if saved else None, count)
    missing = set(tree.missing())
    try:
        if missing:
            Local().fold(rows, reductions, layout, tree)
    except Stop:
        pass
    with tree.still() as nodes:
        checkpoint.save(1, reductions, layout, nodes, 0.0)
        done = len(missing) - len(tree.missing())
    return done, [r.finish(s) for r, s in zip(reductions, tree.result(), strict=True)] if not tree.missing() else None


@given(
    n=st.integers(1, 120),
    block_rows=st.integers(1, 9),
    per_segment=st.integers(1, 3),
    threads=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    stops=st.lists(st.integers(1, 12), max_size=4),
)
def test_left_and_resumed_anywhere_by_any_number_of_threads_a_sweep_has_the_same_bits(
    n, block_rows, per_segment, threads, stops
):
    rows = open_rows(np.random.default_rng(n).standard_normal((n, 2)))
    layouts = [Layout(n, block_rows, block_rows * per_segment, t, 10**9) for t in threads]
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        _, expected = fold(rows, layouts[0], Checkpoint(first))
        done = 0
        for i, stop in enumerate([*stops, None]):
            more, found = fold(rows, layouts[i % len(layouts)], Checkpoint(second), stop)
            done += more
        assert found == expected
        assert done == layouts[0].segments
        assert Checkpoint(second).restore(1, [Rounded(), Rounded()], layouts[0]).complete


@given(st.integers(1, 40), st.randoms(use_true_random=False), st.data())
def test_any_nodes_saved_at_any_moment_lead_to_the_same_bits(segments, dice, data):
    layout = Layout(segments, 1, 1, 1, 10**9)
    leaves = np.random.default_rng(segments).standard_normal((segments, 2))

    def complete(nodes):
        tree = MergeTree([Rounded()], segments, nodes)
        missing = tree.missing()
        dice.shuffle(missing)
        for segment in missing:
            tree.add((0, segment), [State(leaves[segment].copy(), 1)])
        return Rounded().finish(tree.result()[0])

    expected = complete(None)
    tree = MergeTree([Rounded()], segments)
    order = list(range(segments))
    dice.shuffle(order)
    for segment in order[: data.draw(st.integers(0, segments))]:
        tree.add((0, segment), [State(leaves[segment].copy(), 1)])
    with tempfile.TemporaryDirectory() as folder:
        with tree.still() as nodes:
            Checkpoint(folder).save(1, [Rounded()], layout, nodes, 0.0)
        saved = Checkpoint(folder).restore(1, [Rounded()], layout)
    assert complete(saved.nodes) == expected


def test_a_save_waits_for_merges_so_that_it_holds_no_less_than_the_one_before():
    merging, go = threading.Event(), threading.Event()

    class Slow(Rounded):
        def merge(self, a, b):
            merging.set()
            go.wait(10)
            return super().merge(a, b)

    tree = MergeTree([Slow()], 4)
    tree.add((0, 0), [State(np.ones(2), 1)])
    other = threading.Thread(target=tree.add, args=((0, 1), [State(np.ones(2), 1)]))
    other.start()
    assert merging.wait(10)
    threading.Timer(0.05, go.set).start()
    with tree.still() as nodes:
        assert list(nodes) == [(1, 0)]
    other.join()


def begun(folder, identity=IDENTITY, **options):
    checkpoint = Checkpoint(folder, keep=True, **options)
    with checkpoint.run(identity, {"passes": []}):
        pass
    return checkpoint


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ridge": 1.0}, "this checkpoint is of ridge=0.0, not 1.0"),
        ({"verb": "svd"}, "this checkpoint is of verb='lstsq', not 'svd'"),
        ({"data": {"shape": [4, 2], "files": [], "hash": "0"}}, "other data: it was 3 × 2 and is 4 × 2"),
        ({"data": {"shape": [3, 2], "files": [], "hash": "1"}}, "other data: rows, columns or numbers have changed"),
        ({"data": {"shape": [3, 2], "files": [["/f", 1, 1]], "hash": "0"}}, "other data: /f is not part of it"),
    ],
)
def test_another_problem_or_other_data_is_refused_saying_which(tmp_path, change, said):
    begun(tmp_path / "c")
    with pytest.raises(ly.CheckpointError) as refused:
        Checkpoint(tmp_path / "c").begun({**IDENTITY, **change})
    assert said in str(refused.value)


def test_another_version_is_refused_saying_which(tmp_path):
    begun(tmp_path / "c")
    document = json.loads((tmp_path / "c" / "run.json").read_text())
    (tmp_path / "c" / "run.json").write_text(json.dumps({**document, "leyden": "0.0.1"}))
    with pytest.raises(ly.CheckpointError, match=rf"is of Leyden 0\.0\.1 .*and this is Leyden {ly.__version__}"):
        Checkpoint(tmp_path / "c").begun(IDENTITY)


@pytest.mark.parametrize("name", ["run.json", "notes.txt", "film.partial", "pass-words.npz"])
def test_a_folder_of_something_else_is_refused_and_left_as_it_is(tmp_path, name):
    (tmp_path / name).write_text("[1]")
    for use in (lambda c: c.begun(IDENTITY), lambda c: c.remove()):
        with pytest.raises(ly.CheckpointError, match=r"not a checkpoint|not that of a checkpoint"):
            use(Checkpoint(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_of_somebody_else_in_a_checkpoint_stays(tmp_path):
    checkpoint = begun(tmp_path / "c")
    for name in ("film.partial", "pass-words.txt"):
        (tmp_path / "c" / name).write_text("mine")
    begun(tmp_path / "c")
    checkpoint.remove()
    assert sorted(os.listdir(tmp_path / "c")) == ["film.partial", "pass-words.txt"]


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/checkpoint", "/dev/null", "x" * 300])
def test_a_place_where_no_folder_can_be_is_refused(tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(ly.CheckpointError), Checkpoint(tmp_path / place).run(IDENTITY, {}):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write in a folder that is read-only")
def test_a_folder_that_is_read_only_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ly.CheckpointError, match="Permission denied"), Checkpoint(tmp_path / "c").run(IDENTITY, {}):
        pass


@pytest.mark.parametrize("folder", ["", 3, b"x"])
def test_a_checkpoint_that_is_no_path_is_refused(folder):
    with pytest.raises(ly.OptionError, match="is not a folder"):
        ly.lstsq(np.eye(3), np.ones(3), checkpoint=folder)


def test_passes_without_a_run_are_of_nobody_knows_what_and_are_dropped(tmp_path):
    (tmp_path / "c").mkdir()
    for name in ("pass-0001.npz", "run.json.partial", "lock"):
        (tmp_path / "c" / name).write_bytes(b"old")
    begun(tmp_path / "c")
    assert sorted(os.listdir(tmp_path / "c")) == ["lock", "run.json"]


def test_two_runs_in_one_folder_are_one_too_many(tmp_path):
    with Checkpoint(tmp_path / "c").run(IDENTITY, {}):
        other = Checkpoint(tmp_path / "c")
        assert other.holder() == f"process {os.getpid()} on {os.uname().nodename}"
        with (
            pytest.raises(ly.CheckpointError, match=f"still alive works on this .*process {os.getpid()}"),
            other.run(IDENTITY, {}),
        ):
            pass
        with pytest.raises(ly.CheckpointError, match="still alive"):
            other.remove()
    assert other.holder() is None
    assert not (tmp_path / "c").exists()


def test_a_lock_of_a_folder_that_was_removed_meanwhile_is_worth_nothing(tmp_path, monkeypatch):
    flock, removed = fcntl.flock, []

    def slow(file, how):
        flock(file, how)
        if not removed and how & fcntl.LOCK_EX:
            removed.append(True)
            (tmp_path / "c" / "lock").unlink()
            (tmp_path / "c").rmdir()

    monkeypatch.setattr(fcntl, "flock", slow)
    with (
        Checkpoint(tmp_path / "c").run(IDENTITY, {}),
        pytest.raises(ly.CheckpointError, match="still alive"),
        Checkpoint(tmp_path / "c").run(IDENTITY, {}),
    ):
        pass
    assert removed


def test_a_run_that_was_begun_by_another_while_planning_is_not_mixed_up_with_it(tmp_path):
    checkpoint = Checkpoint(tmp_path / "c", keep=True)
    assert checkpoint.begun(IDENTITY) is None
    with Checkpoint(tmp_path / "c", keep=True).run(IDENTITY, {"memory": 1}):
        pass
    with pytest.raises(ly.CheckpointError, match="Start it again"), checkpoint.run(IDENTITY, {"memory": 2}):
        pass


def test_a_run_whose_folder_was_removed_leaves_the_next_one_there_alone(tmp_path):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((100, 3)), rng.standard_normal(100)
    planned = ly.plan.lstsq(a, b, checkpoint=Checkpoint(tmp_path / "c"))
    save = Checkpoint.save
    other = Checkpoint(tmp_path / "c").run(IDENTITY, {})

    def removed(checkpoint, *arguments):
        if checkpoint.holder() and not (tmp_path / "was").exists():
            (tmp_path / "c").rename(tmp_path / "was")
            other.__enter__()
        save(checkpoint, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "save", removed)
        solution = planned.run()
    assert any("the folder was removed" in remark for remark in solution.trace.remarks)
    assert solution.certificate.holds
    assert sorted(os.listdir(tmp_path / "c")) == ["lock", "run.json"]
    other.__exit__(None, None, None)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_that_was_forked_does_not_hold_the_lock_after_the_run(tmp_path):
    with Checkpoint(tmp_path / "c", keep=True).run(IDENTITY, {}):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
    try:
        with Checkpoint(tmp_path / "c").run(IDENTITY, {}):
            pass
    finally:
        os.close(write)
        os.waitpid(child, 0)
        os.close(read)


def test_saves_take_no_more_than_a_hundredth_of_the_time(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("leyden.engine.checkpoint.time.monotonic", lambda: clock[0])
    checkpoint = Checkpoint(tmp_path, interval=60)
    checkpoint.expect(100e6)
    clock[0] = 59.0
    assert not checkpoint.due()
    clock[0] = 60.0
    assert checkpoint.due()
    checkpoint.expect(1e9)
    assert not checkpoint.due(), "a gigabyte takes five seconds, until it has been timed"
    clock[0] = 501.0
    assert checkpoint.due()


@pytest.mark.parametrize("interval", [-1, float("nan"), float("inf"), "often"])
def test_an_interval_that_is_none_is_refused(interval):
    with pytest.raises(ly.OptionError):
        Checkpoint("c", interval=interval)


@pytest.fixture
def runs_of_this_test(tmp_path, monkeypatch):
    monkeypatch.setenv("LEYDEN_CACHE_DIR", str(tmp_path / "cache"))


@pytest.mark.usefixtures("runs_of_this_test")
def test_the_registry_lists_what_is_there_and_forgets_what_is_gone(tmp_path):
    begun(tmp_path / "a")
    begun(tmp_path / "b")
    assert {run.folder.name for run in find()} == {"a", "b"}
    for path in (tmp_path / "b").iterdir():
        path.unlink()
    (tmp_path / "b").rmdir()
    assert [run.folder.name for run in find()] == ["a"]
    assert len(list((tmp_path / "cache" / "runs").iterdir())) == 1
    (run,) = find()
    assert (run.verb, run.holder, run.obstacle) == ("lstsq", None, "")
    assert 0 < clean(run) <= run.nbytes
    assert not (tmp_path / "a").exists()
    assert find() == []


@pytest.mark.usefixtures("runs_of_this_test")
def test_a_registry_that_is_damaged_is_read_as_far_as_it_goes(tmp_path):
    begun(tmp_path / "a")
    (tmp_path / "cache" / "runs" / "x.json").write_text("{")
    (tmp_path / "cache" / "runs" / "y.json").write_text("[]")
    assert [run.folder.name for run in find()] == ["a"]


@pytest.mark.usefixtures("runs_of_this_test")
def test_a_folder_that_turned_into_something_else_is_not_cleaned(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.tex").write_text("")
    registry.enter(tmp_path / "a")
    (run,) = find()
    assert "not a checkpoint" in run.obstacle
    with pytest.raises(ly.CheckpointError):
        clean(run)
    assert (tmp_path / "a" / "thesis.tex").exists()


def test_a_run_in_another_thread_is_checkpointed_as_well(tmp_path):
    kept, found = Checkpoint(tmp_path / "c", interval=0, keep=True), []
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((100, 3)), rng.standard_normal(100)
    thread = threading.Thread(target=lambda: found.append(ly.lstsq(a, b, checkpoint=kept)))
    thread.start()
    thread.join()
    assert np.array_equal(found[0].x, ly.lstsq(a, b, checkpoint=kept).x)


def test_a_folder_is_the_one_it_was_when_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = Checkpoint(Path("c"))
    monkeypatch.chdir("/")
    assert checkpoint.folder == tmp_path / "c"


def test_the_second_signal_waits_for_the_save_that_the_first_began(tmp_path):
    code = f"""
import os, signal, time, numpy as np, leyden as ly
from leyden.engine.checkpoint import Checkpoint
save = Checkpoint.save
def slow(*arguments):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.05)
    save(*arguments)
Checkpoint.save = slow
try:
    ly.lstsq(np.random.default_rng(0).standard_normal((100, 3)), np.ones(100), checkpoint={str(tmp_path / "c")!r})
except ly.Interrupted as interrupted:
    print(interrupted.signal, interrupted)
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=package_on_path()
    )
    assert run.stdout.startswith("15 interrupted in pass 1: what was done is kept in ")
    assert Checkpoint(tmp_path / "c").last().done == 100


def package_on_path():
    return {**os.environ, "PYTHONPATH": str(Path(ly.__file__).absolute().parents[1])}
