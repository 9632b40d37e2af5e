"""The demo, at a hundredth of its size."""

from __future__ import annotations

import os
import signal
import tempfile

import numpy as np
import pyarrow as pa
import pytest

from leyden.cli import demo_flights, demo_scale
from leyden.cli.demo import temporary_folder


def test_the_scale_part_solves_what_it_made(tmp_path, capsys):
    assert demo_scale.run(tmp_path, 10**7)
    shown = capsys.readouterr().out
    assert "25,000 × 100" in shown
    assert "numpy.linalg.lstsq" in shown
    assert "HOLDS" in shown


def test_made_data_is_what_was_planted(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_scale, "CHUNK_ROWS", 1000)
    problem = demo_scale.make(tmp_path, 4 * demo_scale.COLUMNS * 2500)
    a, b = np.load(problem.data), np.load(problem.target)
    assert a.shape == (2500, demo_scale.COLUMNS)
    assert a.dtype == np.float32
    assert np.std(b - a @ problem.planted) == pytest.approx(demo_scale.NOISE, rel=0.1)
    assert len(np.unique(a[:, 0])) > 2400


def test_a_disk_without_room_gets_a_smaller_matrix_and_a_reason(tmp_path, capsys):
    assert demo_scale.that_fits(tmp_path, 10**20) < 10**20
    assert "do not fit" in capsys.readouterr().out


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_after_an_interrupt(number, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def interrupted():
        with temporary_folder() as folder:
            (folder / "matrix.npy").write_bytes(b"0")
            os.kill(os.getpid(), number)
            signal.pause()

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not any(tmp_path.iterdir())
