"""``leyden verify``: a certificate holds on the data it was made from, and fails on any other."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

TABLE = ["t.parquet", "--target", "y", "--categorical", "kind", "--drop-first", "--intercept", "--ridge", "0.5"]


@pytest.fixture
def saved(leyden, data):
    """Runs the command line where ``table`` is the solution of t.parquet, and ``array`` that of a.npy."""
    assert leyden("lstsq", *TABLE, "--out", "table").exit_code == 0
    assert leyden("lstsq", "a.npy", "--target", "y.npy", "--out", "array").exit_code == 0
    return leyden


def test_holds_on_the_same_data_with_the_options_it_was_saved_with(saved):
    for folder, source in (("table", "t.parquet"), ("array", "a.npy")):
        result = saved("verify", folder, source)
        assert result.exit_code == 0, result.stderr
        assert "HOLDS" in result.stdout
        assert "backward_error" in result.stdout


def test_holds_on_the_same_rows_in_other_files(saved):
    assert saved("verify", "table", "parts").exit_code == 0


def test_a_solution_may_be_saved_among_its_data(leyden, data):
    arguments = ["lstsq", "parts", "--target", "y", "--columns", "a,b", "--out", "parts/solution"]
    for _ in range(2):
        assert leyden(*arguments).exit_code == 0
    assert leyden("verify", "parts/solution", "parts").exit_code == 0


def test_a_solution_saved_through_a_link_finds_its_target(leyden, data, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (data / "link").symlink_to(elsewhere)
    assert leyden("lstsq", "a.npy", "--target", "y.npy", "--out", "link/solution").exit_code == 0
    for folder in ("link/solution", elsewhere / "solution"):
        assert leyden("verify", folder, "a.npy").exit_code == 0


def test_options_given_take_the_place_of_those_saved(saved, data):
    np.save(data / "same.npy", np.load(data / "y.npy"))
    assert saved("verify", "array", "a.npy", "--target", "same.npy").exit_code == 0
    (data / "array" / "data.json").unlink()
    assert saved("verify", "array", "a.npy", "--target", "y.npy").exit_code == 0


def test_a_solution_moves_together_with_its_data(saved, data, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "moved"
    data.rename(elsewhere)
    data.mkdir()
    result = saved("verify", elsewhere / "array", elsewhere / "a.npy")
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize("factor", [1 + 1e-12, -1.0])
def test_fails_when_a_number_of_the_answer_was_changed(saved, data, factor):
    x = np.load(data / "table" / "x.npy")
    x[1] *= factor
    np.save(data / "table" / "x.npy", x)
    result = saved("verify", "table", "t.parquet")
    assert result.exit_code == 1
    assert "FAILS" in result.stdout
    assert "do not belong together" in result.stdout


def test_fails_when_a_row_of_the_data_was_changed(saved, data, table):
    y = table["y"].to_numpy().copy()
    y[17] += 1e-6
    pq.write_table(table.set_column(table.column_names.index("y"), "y", pa.array(y)), data / "t.parquet")
    result = saved("verify", "table", "t.parquet")
    assert result.exit_code == 1
    assert "FAILS" in result.stdout


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_does_not_hold_for_an_answer_that_is_no_number(saved, data, value):
    x = np.load(data / "table" / "x.npy")
    x[0] = value
    np.save(data / "table" / "x.npy", x)
    assert saved("verify", "table", "t.parquet").exit_code in (1, 2)


def test_a_damaged_array_of_the_solution_is_named(saved, data):
    path = data / "table" / "x.npy"
    path.write_bytes(path.read_bytes()[:-8])
    result = saved("verify", "table", "t.parquet")
    assert result.exit_code == 2
    assert "table" in result.stderr
    assert "damaged" in result.stderr


def test_fails_when_a_row_is_missing(saved, data, table):
    pq.write_table(table.slice(1), data / "t.parquet")
    result = saved("verify", "table", "t.parquet", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["certificate"]["holds"] is False
    assert "299 rows" in document["certificate"]["failures"][0]


def test_a_missing_target_is_said_in_the_words_of_the_command_line(saved, data):
    (data / "array" / "data.json").unlink()
    result = saved("verify", "array", "a.npy")
    assert result.exit_code == 1
    assert "open the rows with --target" in " ".join(result.stdout.split())


def test_json_has_the_certificate(saved):
    document = json.loads(saved("verify", "table", "t.parquet", "--json").stdout)
    assert document["certificate"]["bounds"]["backward_error"]["value"] < 1e-14


def test_a_folder_without_a_solution_is_said_to_be_one(leyden, data):
    result = leyden("verify", "parts", "t.parquet")
    assert result.exit_code == 2
    assert "there is no solution here" in result.stderr


def test_a_damaged_record_of_the_options_is_named(saved, data):
    (data / "table" / "data.json").write_text("{")
    result = saved("verify", "table", "t.parquet")
    assert result.exit_code == 2
    assert "data.json" in result.stderr
