"""Factorizations that are interrupted anywhere, and called again: the same bits, and nothing done twice."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy.sparse import csr_array
from tests.faults.through import Through

import leyden as ly
from leyden.engine import checkpoint
from leyden.factor.als import Step
from leyden.factor.resident import Resident

USERS, ITEMS, BLOCK = 2000, 60, 250

PROBLEMS = {
    "explicit": {"rank": 3, "regularization": 1.0, "biases": True, "tol": 1e-3},
    "implicit": {"rank": 3, "regularization": 20.0, "implicit": True, "alpha": 2.0},
    "any rank": {"rank": "auto", "regularization": 25.0, "gap": 1e-3},
}


@pytest.fixture(autouse=True)
def frequent_saves(monkeypatch):
    monkeypatch.setattr(checkpoint, "SHARE", 0)


@pytest.fixture(scope="module")
def matrix():
    random = np.random.default_rng(0)
    values = 3 + random.standard_normal((USERS, 2)) @ random.standard_normal((2, ITEMS))
    return csr_array(np.where(random.random(values.shape) < 0.25, np.clip(np.round(values), 1, 5), 0))


def opened(matrix):
    rows = Through(ly.open(matrix), BLOCK)
    rows.count = matrix.nnz
    return rows


def factored(rows, problem, method, folder=None, threads=2):
    kept = None if folder is None else ly.Checkpoint(folder, 0.0)
    options = {"method": method, "memory": "1GB", "threads": threads, "checkpoint": kept}
    return ly.als(rows, **PROBLEMS[problem], **options)


def counted(rows, fail_at=None):
    """Count the users that are read; when so many have been, fail."""
    seen = []

    def before(start, stop):
        if fail_at is not None and sum(seen) <= fail_at < sum(seen) + stop - start:
            raise OSError(5, "Input/output error")
        seen.append(stop - start)

    rows.before = before
    return seen


def assert_same_bits(one, other):
    np.testing.assert_array_equal(one.model.v, other.model.v)
    assert one.history == other.history
    assert one.certificate.to_json() == other.certificate.to_json()
    assert one.certificate.holds


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("method", ["streamed", "resident"])
@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_after_a_read_error_at_any_block_it_goes_on_where_it_was(matrix, tmp_path, problem, method, share):
    rows = opened(matrix)
    seen = counted(rows)
    expected = factored(rows, problem, method)
    at = int(share * (sum(seen) - 1))
    counted(rows, fail_at=USERS + at)  # the fingerprint of the data is the first pass
    with pytest.raises((OSError, ly.DataError), match="Input/output error"):
        factored(rows, problem, method, tmp_path / "c")
    again = counted(rows)
    assert_same_bits(factored(rows, problem, method, tmp_path / "c", threads=1), expected)
    # But for the fingerprint, and for what is held in memory, no more than the pass that failed is read again.
    assert sum(again) <= sum(seen) - at + (2 if method == "streamed" else 3) * USERS


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("epoch", [0, 3])
def test_stopped_in_the_middle_of_an_epoch_in_memory(matrix, tmp_path, monkeypatch, problem, epoch):
    expected = factored(matrix, problem, "resident")
    made, whole = [], Resident.epoch

    def stopped(self, v, much):
        made.append(v)
        found = whole(self, v, much)
        if len(made) - 1 == epoch:
            raise KeyboardInterrupt  # when v has been changed already
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Resident, "epoch", stopped)
        with pytest.raises(KeyboardInterrupt):
            factored(matrix, problem, "resident", tmp_path / "c")
        made.clear()
        made.extend([None] * (epoch + 1))
        assert_same_bits(factored(matrix, problem, "resident", tmp_path / "c", threads=1), expected)
    assert len(made) - 1 == len(expected.history)


def test_epochs_of_several_passes_are_not_made_again(matrix, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[Step.__module__], "item_passes", lambda *_: 3)
    rows = opened(matrix)
    seen = counted(rows)
    expected = factored(rows, "implicit", "streamed")
    assert sum(seen) > 3 * len(expected.history) * USERS
    counted(rows, fail_at=USERS + sum(seen) // 2)
    with pytest.raises((OSError, ly.DataError), match="Input/output error"):
        factored(rows, "implicit", "streamed", tmp_path / "c")
    again = counted(rows)
    assert_same_bits(factored(rows, "implicit", "streamed", tmp_path / "c"), expected)
    assert sum(again) <= sum(seen) / 2 + 2 * USERS


@pytest.mark.parametrize(
    "change", [{"rank": 4}, {"regularization": 2.0}, {"tol": 1e-4}, {"biases": False}, {"seed": 1}]
)
def test_another_problem_does_not_go_on_with_it(matrix, tmp_path, change):
    rows = opened(matrix)
    counted(rows, fail_at=5 * USERS)
    with pytest.raises((OSError, ly.DataError), match="Input/output error"):
        factored(rows, "explicit", "streamed", tmp_path / "c")
    counted(rows)
    with pytest.raises(ly.CheckpointError):
        ly.als(rows, **{**PROBLEMS["explicit"], **change}, method="streamed", memory="1GB", checkpoint=tmp_path / "c")
    with pytest.raises(ly.CheckpointError):
        factored(opened(matrix * 2), "explicit", "streamed", tmp_path / "c")
    assert_same_bits(factored(rows, "explicit", "streamed", tmp_path / "c"), factored(rows, "explicit", "streamed"))
