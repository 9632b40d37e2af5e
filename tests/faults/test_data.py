"""Data that fails while it is read: a clear error, or the right answer."""

from __future__ import annotations

import errno
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.faults.through import Through

import leyden as ly
from leyden.engine import checkpoint

ROWS = 3000


@pytest.fixture(autouse=True)
def frequent_saves(monkeypatch):
    monkeypatch.setattr(checkpoint, "SHARE", 0)


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((ROWS, 6))
    b = a @ np.ones(6) + rng.standard_normal(ROWS)
    np.save(tmp_path / "a.npy", a)
    pq.write_table(
        pa.table({f"x{j}": a[:, j] for j in range(6)} | {"b": b}), tmp_path / "a.parquet", row_group_size=500
    )
    return tmp_path, b


def opened(data, kind="npy"):
    folder, b = data
    rows = ly.open(folder / "a.npy", target=b) if kind == "npy" else ly.open(folder / "a.parquet", target="b")
    return Through(rows, 250)


def planned(rows, folder, method="gram64", threads=2):
    kept = None if folder is None else ly.Checkpoint(folder, 0.0)
    return ly.plan.lstsq(rows, method=method, memory="1GB", threads=threads, checkpoint=kept)


def at_block(number, action):
    """A function for :class:`Through` that acts at its block ``number`` from now."""
    count = -1

    def seen(*arguments):
        nonlocal count
        count += 1
        return action(*arguments) if count == number else (arguments[0] if len(arguments) == 1 else None)

    return seen


@pytest.mark.parametrize("kind", ["npy", "parquet"])
@pytest.mark.parametrize("block", [0, 5, 11, 12, 20, 23])
def test_after_a_read_error_at_any_block_the_run_goes_on_where_it_was(data, tmp_path, kind, block):
    expected = planned(opened(data, kind), None).run()
    rows = opened(data, kind)
    plan = planned(rows, tmp_path / "c")

    def fail(start, stop):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    rows.before = at_block(block, fail)
    with pytest.raises((OSError, ly.DataError), match="Input/output error"):
        plan.run()
    folded = []
    rows.before = lambda start, stop: folded.append(stop - start)
    plan = planned(rows, tmp_path / "c", threads=1)
    folded.clear()
    solution = plan.run()
    assert np.array_equal(solution.x, expected.x)
    assert sum(folded) <= 2 * ROWS - 250 * max(block - 6, 0)


def test_a_read_may_be_short_and_the_answer_is_the_same(data, monkeypatch):
    expected = planned(opened(data), None).run()
    whole = os.preadv

    def short(descriptor, buffers, offset):
        return whole(descriptor, [buffers[0][: max(1, len(buffers[0]) // 3)]], offset)

    monkeypatch.setattr(os, "preadv", short)
    assert np.array_equal(planned(opened(data), None).run().x, expected.x)


def test_a_file_that_is_cut_while_it_is_read_is_an_error_that_names_it(data, tmp_path):
    rows = opened(data)
    plan = planned(rows, tmp_path / "c")
    rows.before = at_block(15, lambda start, stop: os.truncate(tmp_path / "a.npy", 5000))
    with pytest.raises(ly.DataError, match=r"a\.npy: the file (ends at row|has changed)"):
        plan.run()
    with pytest.raises(ly.DataError, match=r"a\.npy"):
        planned(opened(data), tmp_path / "c")


@pytest.mark.parametrize("kind", ["npy", "parquet"])
@pytest.mark.parametrize("block", [3, 14])
def test_a_file_that_is_replaced_is_seen_and_its_checkpoint_refused(data, tmp_path, kind, block):
    path = tmp_path / f"a.{kind}"
    rows = opened(data, kind)
    plan = planned(rows, tmp_path / "c")

    def replace(start, stop):
        copy = path.with_suffix(".copy")
        copy.write_bytes(path.read_bytes())
        os.replace(copy, path)

    rows.before = at_block(block, replace)
    with pytest.raises(ly.DataError, match="has changed while it was being read"):
        plan.run()
    with pytest.raises(ly.CheckpointError, match=rf"other data: .*a\.{kind} has changed since"):
        planned(opened(data, kind), tmp_path / "c")


def test_nothing_is_saved_of_a_file_that_changed_even_if_it_looks_the_same_later(data, tmp_path):
    path, was = tmp_path / "a.npy", os.stat(tmp_path / "a.npy")
    content = path.read_bytes()
    expected = planned(opened(data), None).run()
    rows = opened(data)
    plan = planned(rows, tmp_path / "c", threads=1)

    def double(start, stop):
        np.save(path, 2 * np.load(path))

    rows.before = at_block(5, double)
    with pytest.raises(ly.DataError, match="has changed"):
        plan.run()
    path.write_bytes(content)
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    solution = planned(opened(data), tmp_path / "c").run()
    assert any("went on from a checkpoint" in remark for remark in solution.trace.remarks)
    assert np.array_equal(solution.x, expected.x)


@pytest.mark.parametrize("block", [2, 13])
def test_a_nan_that_appears_is_an_error_not_an_answer(data, tmp_path, block):
    rows = opened(data)
    plan = planned(rows, tmp_path / "c")

    def poison(block):
        if not block.start <= 1007 < block.start + block.rows:
            return block
        poisoned = np.array(block.data)
        poisoned[1007 - block.start, 2] = np.nan
        return block.with_data(poisoned)

    count = 0

    def after(read):
        nonlocal count
        count += 1
        return poison(read) if count > block else read

    rows.after = after
    with pytest.raises(ly.DataError, match="NaN in column 'x2'"):
        plan.run()


def test_a_number_that_changed_in_memory_makes_another_fingerprint(tmp_path):
    rng = np.random.default_rng(0)
    a, b, w = rng.standard_normal((5000, 3)), rng.standard_normal(5000), np.ones(5000)
    np.save(tmp_path / "a.npy", a)
    for data in (a, tmp_path / "a.npy"):
        for changed in (b, w, *([a] if data is a else [])):
            kept = ly.Checkpoint(tmp_path / "c", keep=True)
            ly.lstsq(data, b, weights=w, memory="1GB", checkpoint=kept)
            changed[1234] += 1
            with pytest.raises(ly.CheckpointError, match="other data: rows, columns or numbers have changed"):
                ly.lstsq(data, b, weights=w, memory="1GB", checkpoint=kept)
            changed[1234] -= 1
            kept.remove()
