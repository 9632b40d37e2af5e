"""A disk that is full or broken: the answer is right all the same, and what cannot be kept is said."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from tests.faults.through import Through

import leyden as ly
from leyden.engine import checkpoint


@pytest.fixture(autouse=True)
def frequent_saves(monkeypatch):
    monkeypatch.setattr(checkpoint, "SHARE", 0)


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((3000, 6))
    return Through(ly.open(a, target=a @ np.ones(6) + rng.standard_normal(3000)), 250)


def solve(problem, folder=None, **options):
    kept = None if folder is None else ly.Checkpoint(folder, 0.0, **options)
    return ly.lstsq(problem, method="gram64", memory="1GB", threads=2, checkpoint=kept)


def same(one, other):
    bounds = [{name: bound.value for name, bound in s.certificate.bounds.items()} for s in (one, other)]
    return np.array_equal(one.x, other.x) and bounds[0] == bounds[1]


def failing(call, error, calls):
    """``call``, which raises ``error`` the times that ``calls`` names: 0 is the first."""
    count = -1

    def broken(*arguments, **options):
        nonlocal count
        count += 1
        if count in calls:
            raise OSError(error, os.strerror(error))
        return call(*arguments, **options)

    return broken


@pytest.mark.parametrize("name", ["fsync", "replace"])
@pytest.mark.parametrize("calls", [range(4, 6), range(4, 1000)])
def test_a_save_that_fails_is_said_once_and_the_run_goes_on(problem, tmp_path, monkeypatch, name, calls):
    expected = solve(problem)
    monkeypatch.setattr(os, name, failing(getattr(os, name), errno.ENOSPC, calls))
    solution = solve(problem, tmp_path / "c", keep=True)
    assert same(solution, expected)
    said = [remark for remark in solution.trace.remarks if "No space left on device" in remark]
    assert said
    assert len(said) <= 2, "once a pass at most"
    assert not list((tmp_path / "c").glob("*.partial"))
    monkeypatch.undo()
    assert same(solve(problem, tmp_path / "c"), expected)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("limit", [1500, 3000])
def test_files_that_may_not_grow_are_left_out(problem, tmp_path, limit):
    expected = solve(problem)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        solution = solve(problem, tmp_path / "c", keep=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert same(solution, expected)
    assert any("File too large" in remark for remark in solution.trace.remarks)
    assert not list((tmp_path / "c").glob("*.partial"))
    assert same(solve(problem, tmp_path / "c"), expected)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system takes rights that this user has not")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_on_a_full_disk_the_answer_is_right_and_what_was_saved_before_stays(small_disk, problem):
    expected = solve(problem)
    room = os.statvfs(small_disk).f_bavail * 4096
    (small_disk / "others").write_bytes(b"0" * (room - 3 * 4096))
    solution = solve(problem, small_disk / "c", keep=True)
    assert same(solution, expected)
    assert any("No space left on device" in remark for remark in solution.trace.remarks)
    (small_disk / "others").unlink()
    assert same(solve(problem, small_disk / "c"), expected)
    assert sorted(small_disk.iterdir()) == []


def test_a_disk_that_is_full_at_the_start_is_refused_before_any_pass(small_disk, problem):
    room = os.statvfs(small_disk).f_bavail * 4096
    (small_disk / "others").write_bytes(b"0" * room)
    with pytest.raises(ly.CheckpointError, match=r"no checkpoint can be written here .No space left on device"):
        solve(problem, small_disk / "c")
    assert [path.name for path in small_disk.iterdir()] == ["others"]


def test_a_solution_that_does_not_fit_the_disk_leaves_nothing_and_can_be_saved_later(small_disk, problem):
    room = os.statvfs(small_disk).f_bavail * 4096
    (small_disk / "others").write_bytes(b"0" * (room - 3 * 4096))
    solution = solve(problem)
    with pytest.raises(ly.SolutionError, match=r"could not be written .No space left on device"):
        solution.save(small_disk / "s")
    assert [path.name for path in small_disk.iterdir()] == ["others"]
    (small_disk / "others").unlink()
    assert same(ly.load(solution.save(small_disk / "s")), solution)


def test_a_solution_that_cannot_replace_another_leaves_that_one(problem, tmp_path, monkeypatch):
    solution = solve(problem)
    solution.save(tmp_path / "s")
    replace = Path.replace

    def broken(path, target):
        if path.name.endswith(".partial") and Path(target).name == "s":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(ly.SolutionError, match="Input/output error"):
        solution.save(tmp_path / "s")
    assert same(ly.load(tmp_path / "s"), solution)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_folder_that_cannot_be_listed_in_the_registry_is_no_obstacle(problem, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LEYDEN_CACHE_DIR", str(tmp_path / "file" / "below"))
    assert same(solve(problem, tmp_path / "c"), solve(problem))


@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_a_clock_that_jumps_changes_nothing(problem, tmp_path, monkeypatch, jump):
    expected, stop = solve(problem), [False]
    now = time.time

    def before(start, stop_row):
        if stop[0] and start > 2000:
            raise OSError("stop")

    problem.before = before
    planned = ly.plan.lstsq(
        problem, method="gram64", memory="1GB", threads=1, checkpoint=ly.Checkpoint(tmp_path / "c", 0.0)
    )
    stop[0] = True
    with pytest.raises(OSError, match="stop"):
        planned.run()
    stop[0] = False
    monkeypatch.setattr(time, "time", lambda: now() + jump)
    resumed = solve(problem, tmp_path / "c")
    assert any("went on from a checkpoint" in remark for remark in resumed.trace.remarks)
    assert same(resumed, expected)


@pytest.mark.parametrize("damage", ["cut", "empty", "flip", "header"])
def test_a_saved_pass_that_is_damaged_is_computed_again(problem, tmp_path, damage):
    expected = solve(problem)
    solve(problem, tmp_path / "c", keep=True)
    path = tmp_path / "c" / "pass-0001.npz"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    if damage == "header":
        content = content.replace(b"'shape': (7, 7)", b"'shape': (7, 1)")
    path.write_bytes(content[: {"cut": len(content) // 2, "empty": 0}.get(damage)])
    solution = solve(problem, tmp_path / "c")
    assert any("damaged" in remark for remark in solution.trace.remarks)
    assert same(solution, expected)


def test_a_damaged_identity_is_refused(problem, tmp_path):
    solve(problem, tmp_path / "c", keep=True)
    (tmp_path / "c" / "run.json").write_text("{")
    with pytest.raises(ly.CheckpointError, match=r"run\.json here is damaged, or not that of a checkpoint"):
        solve(problem, tmp_path / "c")
    assert len(os.listdir(tmp_path / "c")) == 4
