"""Progress on a terminal."""

import numpy as np
import pytest
import rich.progress

import leyden as ly
from leyden.engine.progress import Progress


@pytest.fixture
def bars(monkeypatch):
    """Every bar that is made, by a clock that stands at ``bars.now``."""

    class Bars(list):
        now = 0.0

    made = Bars()

    class Bar(rich.progress.Progress):
        def __init__(self, *columns, **options):
            super().__init__(*columns, **options, get_time=lambda: made.now, auto_refresh=False)
            made.append(self)

    monkeypatch.setattr(rich.progress, "Progress", Bar)
    return made


@pytest.mark.parametrize("nbytes", [0, 8_000_000])
def test_the_bar_moves_and_the_time_left_is_right_whether_bytes_are_read_or_not(bars, nbytes):
    with Progress(True).sweep("pass 1", 1000, nbytes) as advance:
        (task,) = bars[0].tasks
        for i in range(4):
            bars.now = 2.0 * (i + 1)
            advance(100)
            assert task.percentage == 10 * (i + 1)
        assert task.time_remaining == 12
        assert task.fields["done"] == 400


@pytest.mark.parametrize("nbytes", [0, 8_000_000])
def test_bytes_a_second_are_shown_where_there_are_bytes(bars, nbytes):
    with Progress(True).sweep("pass 1", 1000, nbytes):
        columns = [type(column).__name__ for column in bars[0].columns]
    assert ("TransferSpeedColumn" in columns) == bool(nbytes)


def test_generated_rows_show_progress(bars, capsys):
    a = np.random.default_rng(0).standard_normal((1000, 2))
    ly.lstsq(ly.generated(lambda start, stop: (a[start:stop], a[start:stop, 0]), 1000, 2), progress=True)
    assert bars
    assert all(bar.tasks[0].percentage == 100 for bar in bars)


def test_nothing_is_shown_unless_asked(bars, capsys):
    with Progress(False).sweep("pass 1", 1000, 0) as advance:
        advance(1000)
    assert not bars
    assert capsys.readouterr().err == ""
