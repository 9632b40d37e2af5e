"""Killed at any moment and started again, a run comes to the bits it would have come to, and does nothing twice."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import leyden as ly
from leyden.engine.runs import find

ROWS, COLUMNS, BLOCK_ROWS = 10_000, 7, 250
SECONDS_A_BLOCK, INTERVAL = 0.005, 0.02
#: Kills for each way to solve; there are four.
KILLS = int(os.environ.get("LEYDEN_KILLS", "14"))
#: And at most, where a slow machine is always killed too early.
MOST_KILLS = 40
SEED = int(os.environ.get("LEYDEN_KILL_SEED", "0")) or random.SystemRandom().randrange(2**32)

WAYS = [("gram64", "npy"), ("tsqr", "parquet"), ("sketch", "npy"), ("gram64", "parquet")]


class Worker:
    """A process that solves in forks of itself."""

    def __init__(self, folder):
        self.folder = folder
        root = Path(__file__).absolute().parents[2]
        path = os.pathsep.join([str(root), str(Path(ly.__file__).absolute().parents[1])])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=root, env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip

    def solve(self, method, kind, threads, checkpoint=None, after=None, kill="SIGKILL", **more):
        """Status and rows folded of a solve, which gets a signal ``after`` seconds."""
        job = {
            "folder": str(self.folder), "method": method, "kind": kind, "threads": threads,
            "checkpoint": checkpoint and str(checkpoint), "interval": INTERVAL, "seconds": SECONDS_A_BLOCK,
            "block_rows": BLOCK_ROWS, "after": after, "signal": kill, "answer": str(self.folder / "answer.npz"),
            "folded": str(self.folder / "folded"), **more,
        }  # fmt: skip
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def answer(self):
        """What the last solve that completed came to, by name, as bytes."""
        with np.load(self.folder / "answer.npz") as archive:
            return {name: archive[name].tobytes() for name in archive.files}


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kill")
    rng = np.random.default_rng(0)
    a = rng.standard_normal((ROWS, COLUMNS)) * 10.0 ** rng.integers(-3, 3, COLUMNS) + 1
    b = a @ np.ones(COLUMNS) + rng.standard_normal(ROWS)
    np.save(folder / "a.npy", a)
    np.save(folder / "b.npy", b)
    table = {f"x{j}": a[:, j] for j in range(COLUMNS)} | {"target": b}
    pq.write_table(pa.table(table), folder / "a.parquet", row_group_size=1300)
    worker = Worker(folder)
    yield worker
    worker.process.stdin.close()
    assert worker.process.wait(30) == 0
    worker.process.stdout.close()


def rows_saved(folder):
    """Rows that need not be folded again, over all passes."""
    last = ly.Checkpoint(folder).last() if (folder / "run.json").exists() else None
    return 0 if last is None else (last.number - 1) * ROWS + last.done


@pytest.mark.parametrize(("method", "kind"), WAYS)
def test_killed_at_random_moments_a_run_ends_with_the_same_bits(worker, tmp_path, method, kind):
    print(f"LEYDEN_KILL_SEED={SEED}")
    dice = random.Random(f"{SEED} {method} {kind}")
    whole = worker.solve(method, kind, 2)
    assert whole["status"] == 0
    expected, passes = worker.answer(), whole["folded"] / ROWS
    assert passes == {"gram64": 2, "tsqr": 2, "sketch": 3}[method]
    kills, skipped, saved, folder = 0, 0, 0, tmp_path / "checkpoint"
    seconds = whole["seconds"]
    while kills < KILLS or (skipped + saved == 0 and kills < MOST_KILLS):
        saved = rows_saved(folder)
        if kills >= KILLS:
            seconds *= 1.5  # the machine has become slower since the whole run
        after = dice.uniform(0, 0.7 * seconds) if dice.random() < 0.8 else dice.uniform(0, 0.05)
        run = worker.solve(method, kind, dice.choice([1, 2, 3]), folder, after)
        assert run["status"] in (0, -signal.SIGKILL), run
        assert run["folded"] <= whole["folded"] - saved
        if run["status"] == 0:
            assert run["folded"] == whole["folded"] - saved
            assert worker.answer() == expected
            assert not folder.exists()
            skipped += saved
        else:
            kills += 1
            # Nothing is lost, unless the run was complete and what it had kept was being removed.
            assert rows_saved(folder) >= saved or run["folded"] == whole["folded"] - saved
    saved = rows_saved(folder)
    run = worker.solve(method, kind, 1, folder)
    assert run["status"] == 0
    assert run["folded"] == whole["folded"] - saved
    assert worker.answer() == expected
    assert skipped + saved > 0
    assert not any(run.folder == folder for run in find())


@pytest.mark.parametrize("kill", ["SIGTERM", "SIGINT"])
def test_told_to_end_a_run_saves_all_that_it_has_folded(worker, tmp_path, kill):
    print(f"LEYDEN_KILL_SEED={SEED}")
    dice = random.Random(f"{SEED} {kill}")
    whole = worker.solve("sketch", "npy", 2)
    expected, folder, heard = worker.answer(), tmp_path / "checkpoint", 0
    for turn in itertools.count():
        saved = rows_saved(folder)
        after = dice.uniform(0.1, 0.5) * whole["seconds"] if turn < 8 else None
        run = worker.solve("sketch", "npy", dice.choice([1, 2, 3]), folder, after, kill)
        if run["status"] == 0:
            break
        if run["status"] == 128 + getattr(signal, kill):
            heard += 1
            # Of blocks read ahead at most three a thread are given up.
            assert rows_saved(folder) >= saved + run["folded"] - 9 * BLOCK_ROWS
    assert heard > 0
    assert run["folded"] == whole["folded"] - saved
    assert worker.answer() == expected


def test_killed_before_any_call_to_the_file_system_a_run_ends_with_the_same_bits(worker, tmp_path):
    at_once = {"interval": 0.0, "seconds": 0.0, "block_rows": ROWS // 5}
    whole = worker.solve("gram64", "npy", 1, **at_once)
    expected, call = worker.answer(), 0
    for call in itertools.count():
        folder = tmp_path / str(call)
        first = worker.solve("gram64", "npy", 1, folder, die_at=call, **at_once)
        if first["status"] == 0:
            break
        assert first["status"] == -signal.SIGKILL
        saved = rows_saved(folder)
        # Until the run is complete and removes what it kept, nothing is lost but the block that is not saved yet.
        complete = first["folded"] == whole["folded"]
        assert complete or first["folded"] - saved <= 3 * ROWS // 5
        second = worker.solve("gram64", "npy", 2, folder, **at_once)
        assert second["status"] == 0
        assert second["folded"] == whole["folded"] - saved
        assert worker.answer() == expected
        assert not folder.exists()
    assert call > 3 * 2 * 5
