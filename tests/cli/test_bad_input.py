"""What a user can get wrong: one sentence (what, where, what to do), status 2, nothing written."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest


def missing_file(folder):
    return ["gone.csv", "--target", "y"], ["gone.csv", "no such file"]


def no_match(folder):
    return ["gone*.csv", "--target", "y"], ["gone*.csv", "no file matches"]


def unknown_ending(folder):
    (folder / "t.xlsx").write_bytes(b"")
    return ["t.xlsx", "--target", "y"], ["t.xlsx", ".csv", "--format"]


def unknown_column(folder):
    return ["t.csv", "--target", "yy"], ["t.csv", "'yy'"]


def no_target(folder):
    return ["a.npy"], ["a.npy", "there is no target", "--target"]


def text_column(folder):
    return ["t.csv", "--target", "y"], ["t.csv", "'kind'", "text", "--categorical kind"]


def nan_in_a_later_file(folder):
    for part in range(4):
        a = np.random.default_rng(part).standard_normal(5000)
        y = a.copy()
        a[1234] = np.nan if part == 2 else 0
        pq.write_table(pa.table({"first": y, "height": a, "y": y}), folder / f"big{part}.parquet")
    return ["big*.parquet", "--target", "y"], ["big2.parquet", "1,234", "'height'", "NaN"]


def null(folder):
    pq.write_table(pa.table({"a": [1.0, None, 3.0], "y": [1.0, 2.0, 3.0]}), folder / "n.parquet")
    return ["n.parquet", "--target", "y"], ["n.parquet", "'a'", "--nulls"]


def truncated(folder):
    whole = (folder / "a.npy").read_bytes()
    (folder / "short.npy").write_bytes(whole[: len(whole) - 100])
    return ["short.npy", "--target", "y.npy"], ["short.npy", "complete"]


def truncated_table(folder):
    whole = (folder / "t.parquet").read_bytes()
    (folder / "short.parquet").write_bytes(whole[:-50])
    return ["short.parquet", "--target", "y"], ["short.parquet"]


def other_length(folder):
    np.save(folder / "longer.npy", np.zeros(301))
    return ["a.npy", "--target", "longer.npy"], ["301", "300"]


def empty_table(folder):
    pq.write_table(pa.table({"a": pa.array([], pa.float64()), "y": pa.array([], pa.float64())}), folder / "e.parquet")
    return ["e.parquet", "--target", "y"], ["e.parquet", "empty"]


def empty_file(folder):
    (folder / "e.csv").write_text("")
    return ["e.csv", "--target", "y"], ["e.csv"]


def ragged(folder):
    (folder / "r.csv").write_text("a,y\n1,2\n3\n")
    return ["r.csv", "--target", "y"], ["r.csv"]


def budget_too_small(folder):
    return ["a.npy", "--target", "y.npy", "--memory", "100"], ["budget", "too small", "--memory"]


def no_amount(folder):
    return ["a.npy", "--target", "y.npy", "--memory", "lots"], ["--memory lots", "2GB"]


def negative_ridge(folder):
    return ["a.npy", "--target", "y.npy", "--ridge", "-1"], ["--ridge"]


def unknown_method(folder):
    return ["a.npy", "--target", "y.npy", "--method", "magic"], ["--method magic", "gram64"]


def table_option_on_an_array(folder):
    return ["a.npy", "--target", "y.npy", "--nulls", "drop"], ["--nulls", "a.npy"]


def saved_in_the_current_folder(folder):
    return ["a.npy", "--target", "y.npy", "--out", "."], ["cannot be the current one", "inside it"]


def saved_where_data_is(folder):
    return ["a.npy", "--target", "y.npy", "--out", "parts"], ["parts", "is not a solution"]


CASES = [
    saved_in_the_current_folder,
    saved_where_data_is,
    missing_file,
    no_match,
    unknown_ending,
    unknown_column,
    no_target,
    text_column,
    nan_in_a_later_file,
    null,
    truncated,
    truncated_table,
    other_length,
    empty_table,
    empty_file,
    ragged,
    budget_too_small,
    no_amount,
    negative_ridge,
    unknown_method,
    table_option_on_an_array,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_one_sentence_says_what_where_and_what_to_do(leyden, data, case):
    arguments, said = case(data)
    before = sorted(data.rglob("*"))
    result = leyden("lstsq", "--out", "out", *arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("leyden: ")
    assert result.stderr.count("\n") == 1
    for word in said:
        assert word in result.stderr
    assert sorted(data.rglob("*")) == before


def test_verify_and_plan_say_it_in_the_same_way(leyden, data):
    assert leyden("lstsq", "a.npy", "--target", "y.npy", "--out", "saved").exit_code == 0
    for verb in (["verify", "saved"], ["plan", "lstsq"]):
        result = leyden(*verb, "gone.npy")
        assert result.exit_code == 2
        assert "gone.npy: there is no such file" in result.stderr


@pytest.mark.parametrize("arguments", [[], ["--target", "y"], ["t.csv", "--targt", "y"], ["t.csv", "--threads", "0"]])
def test_wrong_usage_has_status_2(leyden, data, arguments):
    assert leyden("lstsq", *arguments).exit_code == 2
