"""Results of mixed models with features by lookup: saved, verified, streamed; and what can be wrong with the data."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from tests.faults.through import Through
from typer.testing import CliRunner

import leyden as ly
from leyden.cli.main import app
from leyden.engine import checkpoint
from leyden.solve.lookup import model as lookup
from leyden.solve.lookup.model import lookup_mixed

ITEMS, GROUPS, KINDS = 30, 400, 4


@pytest.fixture(autouse=True)
def in_float32(monkeypatch):
    monkeypatch.setattr(lookup, "MANY", 0)


@pytest.fixture(scope="module")
def parts():
    rng = np.random.default_rng(0)
    table = rng.standard_normal((ITEMS, 3)).astype(np.float32)
    codes = np.concatenate([np.arange(KINDS), rng.integers(0, KINDS, ITEMS - KINDS)])
    values = 1.0 + codes + rng.standard_normal((GROUPS, 3)) @ table.T + rng.standard_normal((GROUPS, ITEMS))
    rows = sp.csr_array(np.where(rng.random(values.shape) < 0.2, values, 0).astype(np.float32))
    return rows, table, codes


@pytest.fixture(scope="module")
def found(parts):
    rows, table, codes = parts
    return lookup_mixed(rows, table, fixed=codes, covariance=1.0)


def test_a_solution_comes_back_as_it_was(found, parts, tmp_path):
    found.save(tmp_path / "solution")
    again = ly.load(tmp_path / "solution")
    np.testing.assert_array_equal(again.beta, found.beta)
    np.testing.assert_array_equal(again.standard_errors, found.standard_errors)
    assert again.log_likelihood == found.log_likelihood
    assert repr(again) == repr(found)
    with pytest.raises(ly.OptionError, match="not at hand"):
        again.random([3])
    again.ratings = parts[0]
    np.testing.assert_array_equal(again.random([3, 1]), found.random([3, 1]))
    assert again.predict(3, 5) == found.predict(3, 5)


def test_a_solution_of_a_store_finds_its_rows_again(parts, tmp_path):
    rows, table, codes = parts
    coo = rows.tocoo()
    place = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"user": coo.row, "item": coo.col, "rating": coo.data}), place)
    ratings = ly.open_ratings(place)
    order = ratings.items.take(np.arange(ITEMS))
    found = lookup_mixed(ratings.save(tmp_path / "store"), table[order], fixed=codes[order])
    plain = lookup_mixed(rows, table, fixed=codes)
    np.testing.assert_allclose(found.beta, plain.beta, rtol=1e-6)
    found.save(tmp_path / "solution")
    again = ly.load(tmp_path / "solution")
    np.testing.assert_allclose(again.random([7]), plain.random([7]), rtol=1e-5)


def test_the_command_line_verifies_a_solution_from_a_store(parts, tmp_path):
    rows, table, codes = parts
    coo, folder = rows.copy().tocoo(), tmp_path / "solution"
    for name in ("store", "other"):
        columns = {"user": coo.row, "item": coo.col, "rating": coo.data}
        pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
        ratings = ly.open_ratings(tmp_path / "rows.parquet").save(tmp_path / name)
        if name == "store":
            order = ratings.items.take(np.arange(ITEMS))
            lookup_mixed(ratings, table[order], fixed=codes[order]).save(folder)
        coo.data[7] += 1
    assert CliRunner().invoke(app, ["verify", str(folder), str(tmp_path / "store")]).exit_code == 0
    assert CliRunner().invoke(app, ["verify", str(folder), str(tmp_path / "other")]).exit_code == 1


def test_an_answer_is_verified_from_the_data_alone(found, parts, tmp_path):
    found.save(tmp_path / "solution")
    assert ly.verify(tmp_path / "solution", parts[0]).holds
    assert ly.verify(found, parts[0]).bounds["energy_error"].value < 1e-6


def spoil(folder, name, change):
    array = np.load(folder / f"{name}.npy")
    change(array)
    np.save(folder / f"{name}.npy", array)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("beta", lambda a: a.__setitem__(0, a[0] + 1e-5)),
        ("table", lambda a: a.__setitem__((4, 0), a[4, 0] + 1)),
        ("delta", lambda a: a.__imul__(2)),
        ("schur", lambda a: a.__imul__(2)),
        ("columns", lambda a: a.__setitem__(5, (a[5] + 1) % KINDS)),
        ("beta", lambda a: a.__setitem__(0, np.nan)),
    ],
)
def test_what_was_tampered_with_does_not_hold(name, change, found, parts, tmp_path):
    found.save(tmp_path / "solution")
    spoil(tmp_path / "solution", name, change)
    certificate = ly.verify(tmp_path / "solution", parts[0])
    assert not certificate.holds
    assert certificate.failures


@pytest.mark.parametrize("name", ["objective", "log_determinant", "rows"])
def test_figures_that_were_tampered_with_are_found(name, found, parts, tmp_path):
    found.save(tmp_path / "solution")
    place = tmp_path / "solution" / "solution.json"
    document = json.loads(place.read_text())
    document["problem"][name] = document["problem"][name] * 2
    place.write_text(json.dumps(document))
    assert not ly.verify(tmp_path / "solution", parts[0]).holds


def test_other_data_does_not_verify(found, parts):
    rows = parts[0].copy()
    rows.data[0] += 1
    assert not ly.verify(found, rows).holds
    assert "groups" in ly.verify(found, rows[:-1]).failures[0]


def test_coefficients_of_all_groups_are_written(found, parts, tmp_path):
    place = found.stream(tmp_path / "u.parquet")
    table = pq.read_table(place)
    assert table["group"].to_pylist() == list(range(GROUPS))
    written = np.array(table["coefficients"].to_pylist())
    np.testing.assert_array_equal(written, found.random(np.arange(GROUPS)))
    assert list(tmp_path.iterdir()) == [place]


def test_a_file_that_cannot_be_written_is_said(found, tmp_path):
    with pytest.raises(ly.DataError, match="cannot be written"):
        found.stream(tmp_path / "nowhere" / "u.parquet")


def test_an_id_that_is_not_there_is_refused(found):
    with pytest.raises(ly.DataError, match=r"group 400 is not among the 400 there are. Some that are: 0, 1, 2"):
        found.random([1, GROUPS])
    with pytest.raises(ly.DataError, match="item 99 is not among the 30"):
        found.predict(0, 99)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"table": np.ones((29, 2))}, ly.DataError, r"the table is of shape \(29, 2\): there are 30 items"),
        ({"table": np.full((30, 2), np.nan)}, ly.DataError, "table, item 0: a number is not finite in float32"),
        ({"table": np.full((30, 2), 1e60)}, ly.DataError, "table, item 0: a number is not finite in float32"),
        ({"table": np.ones((30, 0))}, ly.DataError, "the table has no columns"),
        ({"fixed": np.arange(29)}, ly.DataError, r"fixed is of shape \(29,\): there are 30 items"),
        ({"fixed": -np.arange(30)}, ly.DataError, "fixed, item 1: a code is below zero"),
        ({"fixed": np.full((30, 1), np.inf)}, ly.DataError, "fixed, item 0: a fixed feature is not a finite number"),
        ({"fixed": sp.csr_array((29, 4))}, ly.DataError, "fixed has 29 rows: there are 30 items"),
        ({"fixed": np.zeros((30, 2))}, ly.DataError, "no row has a fixed feature that is not zero"),
        ({"covariance": np.ones(2)}, ly.OptionError, r"covariance is of shape \(2,\), not a number, \(3,\) or"),
        ({"covariance": -1.0}, ly.OptionError, "a variance is below zero"),
        ({"covariance": -np.eye(3)}, ly.OptionError, "not symmetric and positive semidefinite"),
        ({"covariance": "much"}, ly.OptionError, "is not an array of numbers"),
        ({"covariance": np.nan}, ly.OptionError, "of finite numbers"),
        ({"ridge": -1}, ly.OptionError, "ridge=-1 must be a number, zero or more"),
        ({"tol": 2}, ly.OptionError, "tol=2 must be a number between 0 and 1"),
        ({"intercept": 1}, ly.OptionError, "intercept=1 must be True or False"),
        ({"memory": "1kB"}, ly.BudgetError, "a budget of 1 kB is too small"),
    ],
)
def test_what_cannot_be_is_said(options, error, said, parts):
    rows, table, codes = parts
    with pytest.raises(error, match=said):
        lookup_mixed(rows, **{"table": table, "fixed": codes, **options})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_target_that_is_no_number_is_named(value, parts):
    rows = parts[0].copy()
    rows.data[rows.indptr[4]] = value
    with pytest.raises(ly.DataError, match=r"row 4: a target is NaN, infinite, or beyond"):
        lookup_mixed(rows, parts[1])


def test_groups_without_any_row_are_no_problem_but_none_at_all_is(parts):
    empty = sp.csr_array((4, ITEMS), dtype=np.float32)
    with pytest.raises(ly.DataError, match="there are no rows in any group"):
        lookup_mixed(empty, parts[1])
    rows = sp.vstack([empty[:4], parts[0], empty[:3]], format="csr")
    found = lookup_mixed(rows, parts[1], fixed=parts[2])
    assert found.certificate.holds
    assert (found.random([0, GROUPS + 5]) == 0).all()


def test_targets_of_zero_are_explained_by_nothing(parts):
    rows = parts[0].copy()
    rows.data[:] = 0
    found = lookup_mixed(rows, parts[1], fixed=parts[2])
    assert found.certificate.holds
    assert (found.beta == 0).all()
    assert found.residual_variance == 0


def test_a_run_that_is_interrupted_goes_on_to_the_same_bits(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SHARE", 0)
    whole = ly.open(parts[0])

    def run(fail_at=None, folder="kept"):
        seen = []

        def before(start, stop):
            if fail_at is not None and len(seen) == fail_at:
                raise OSError(5, "Input/output error")
            seen.append(start)

        rows = Through(whole, 20, before)
        rows.item_counts, rows.max_count = np.bincount(parts[0].indices, minlength=ITEMS), ITEMS
        kept = ly.Checkpoint(tmp_path / folder, 0.0)
        return lookup_mixed(rows, parts[1], fixed=parts[2], memory="1GB", checkpoint=kept), len(seen)

    plain, reads = run(folder="plain")
    # The passes are the last that is read: twenty blocks each.
    for fail_at in (reads - 30, reads - 6):
        with pytest.raises(OSError, match="Input/output error"):
            run(fail_at, str(fail_at))
        again, made = run(folder=str(fail_at))
        assert made < reads - 8
        np.testing.assert_array_equal(again.beta, plain.beta)
        assert again.certificate.to_json() == plain.certificate.to_json()
