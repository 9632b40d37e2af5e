"""``leyden ingest``: from files to a store, and what was counted on the way."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import leyden as ly

ROWS = 2000


@pytest.fixture(autouse=True)
def files(tmp_path):
    """Two files of ratings under the names of a well-known data set."""
    random = np.random.default_rng(0)
    table = pa.table(
        {
            "userId": random.integers(0, 100, ROWS) * 3,
            "movieId": random.integers(0, 40, ROWS),
            "rating": random.integers(1, 11, ROWS) / 2,
            "timestamp": np.arange(ROWS)[::-1],
        }
    )
    pq.write_table(table.slice(0, 1200), tmp_path / "a-0.parquet")
    pq.write_table(table.slice(1200), tmp_path / "a-1.parquet")
    return table


COLUMNS = ("--user", "userId", "--item", "movieId")


def test_files_become_a_store(leyden, files):
    result = leyden("ingest", "a-0.parquet", "a-1.parquet", *COLUMNS, "--time", "timestamp", "--out", "r")
    assert result.exit_code == 0, result.stderr
    ratings = ly.open_ratings("r")
    same = ly.open_ratings(files, user="userId", item="movieId", time="timestamp")
    np.testing.assert_array_equal(ratings.read(0, 100).data.toarray(), same.read(0, 100).data.toarray())
    words = " ".join(result.stdout.split())
    for said in (
        "rows read 2,000",
        "users 100",
        "items 40",
        f"ratings {ratings.count:,} of 10 different values, 0.5 to 5",
        f"duplicates {2000 - ratings.count} rows merged into others",
        "written to r:",
        "bytes a rating, ids included",
    ):
        assert said in words
    assert "held out" not in words


def test_a_store_is_factored_by_its_folder(leyden):
    assert leyden("ingest", "a-*.parquet", *COLUMNS, "--out", "r").exit_code == 0
    result = leyden("svd", "r", "--rank", "2")
    assert result.exit_code == 0, result.stderr
    assert "HOLDS" in result.stdout


def test_json_holds_what_was_counted(leyden):
    options = ("--holdout", "0.25", "--seed", "3", "--duplicates", "mean", "--memory", "500MB", "--threads", "1")
    result = leyden("ingest", "a-*.parquet", *COLUMNS, *options, "--out", "r", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout, parse_constant=pytest.fail)
    ratings = ly.open_ratings("r")
    assert document["ratings"] == ratings.count
    assert document["held_out"] == ratings.held_out.count > 0
    assert document["rows"] == ROWS == document["ratings"] + document["held_out"] + document["duplicates"]
    assert document["nbytes"] > 3 * ratings.count
    assert document["levels"] == ratings.levels.tolist()


def test_quiet_prints_one_line(leyden):
    result = leyden("ingest", "a-*.parquet", *COLUMNS, "--holdout", "last", "--out", "r", "--quiet")
    assert result.stdout.count("\n") == 1
    assert result.stdout.startswith("2,000 rows: ")
    assert "; 100 held out" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gone.parquet", "--out", "r"], "gone.parquet: there is no such file"),
        (["a-0.parquet", "--out", "r"], "there is no column 'user'. Did you mean 'userId'?"),
        (["a-0.parquet", *COLUMNS, "--out", "."], "a store takes the place of its folder"),
        (["a-0.parquet", *COLUMNS, "--out", "a-1.parquet"], "this folder exists and is no store of ratings"),
        (
            ["a-0.parquet", *COLUMNS, "--out", "r", "--holdout", "most"],
            "--holdout most must be a number between 0 and 1",
        ),
        (["a-0.parquet", *COLUMNS, "--out", "r", "--holdout", "2"], "--holdout 2.0 must be a number between 0 and 1"),
        (["a-0.parquet", *COLUMNS, "--out", "r", "--duplicates", "all"], "--duplicates all is not one of last"),
        (["a-*.parquet", *COLUMNS, "--out", "r", "--duplicates", "error"], "Give --duplicates last"),
        (["a-0.parquet", *COLUMNS, "--out", "r", "--memory", "lots"], "--memory lots is not an amount"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(leyden, tmp_path, arguments, said):
    result = leyden("ingest", *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-0.parquet", "a-1.parquet"]


def test_a_place_to_write_to_must_be_named(leyden):
    result = leyden("ingest", "a-0.parquet")
    assert result.exit_code == 2
    assert "--out" in result.stderr
