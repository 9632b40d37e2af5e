"""From tables to ratings: what comes in is what comes out, in memory and in a store."""

import datetime
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from hypothesis import given, reject, settings
from hypothesis import strategies as st

import leyden as ly
from leyden.errors import BudgetError, DataError, OptionError
from leyden.rows import ingest_merge, ingest_sorting, ratings_store

INTEGERS = st.integers(-3, 3) | st.sampled_from([2**31, 2**40 + 1, -(2**63), 2**63 - 1])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
VALUES = st.integers(-5, 5).map(float) | st.floats(-1e6, 1e6, width=32).filter(bool)
TABLES = st.one_of(
    *(st.lists(st.tuples(ids, ids, VALUES, st.integers(0, 5)), min_size=1, max_size=40) for ids in (INTEGERS, TEXTS))
)
RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module", autouse=True)
def small_pieces():
    """Batches so short that users are cut by them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest_sorting, "BATCH_ROWS", 8)
        patch.setattr(ingest_merge, "BLOCK_RATINGS", 5)
        patch.setattr(ratings_store, "CHUNK", 7)
        yield


def entries(ratings):
    """The ratings as a dict of (user id, item id) to value."""
    found = {}
    for number, user in enumerate(ratings.users.take(np.arange(ratings.shape[0])).tolist()):
        items, values = ratings.row(number)
        found |= {(user, item): value for item, value in zip(ratings.items.take(items).tolist(), values, strict=True)}
    assert len(found) == ratings.count
    return found


def folded(rows, rule="last", timed=False):
    """What the rows of a table come to, by the plain meaning of a rule."""
    groups = {}
    for user, item, value, _ in sorted(rows, key=lambda row: row[3]) if timed else rows:
        groups.setdefault((user, item), []).append(float(np.float32(value)))
    fold = {"last": lambda v: v[-1], "sum": sum, "mean": lambda v: sum(v) / len(v)}[rule]
    return {pair: np.float32(fold(values)) for pair, values in groups.items()}


def columns(rows):
    users, items, values, times = (list(column) for column in zip(*rows, strict=True))
    return users, items, values, times


def table(rows):
    users, items, values, times = columns(rows)
    return pa.table({"user": users, "item": items, "rating": pa.array(values, pa.float32()), "when": times})


def check_order(ratings):
    """Users in the order of their ids; items by popularity, and of those with as many ratings by id."""
    users = ratings.users.take(np.arange(ratings.shape[0])).tolist()
    items = ratings.items.take(np.arange(ratings.shape[1])).tolist()
    assert users == sorted(users)
    pairs = list(zip(-ratings.item_counts, items, strict=True))
    assert pairs == sorted(pairs)


@settings(max_examples=50)
@given(rows=TABLES, rule=st.sampled_from(["last", "sum", "mean"]), timed=st.booleans(), stored=st.booleans())
def test_a_table_is_a_dict_of_its_rows(tmp_path_factory, rows, rule, timed, stored):
    out = tmp_path_factory.mktemp("ingest") / "r" if stored else None
    ratings = ly.open_ratings(
        table(rows), time="when" if timed else None, duplicates=rule, out=out, memory="500MB", threads=2
    )
    expected = folded(rows, rule, timed)
    assert entries(ratings) == expected
    check_order(ratings)
    assert ratings.summary.rows == len(rows)
    assert ratings.summary.duplicates == len(rows) - len(expected)
    assert ratings.shape == (len({row[0] for row in rows}), len({row[1] for row in rows}))


@settings(max_examples=50)
@given(rows=TABLES, share=st.floats(0.05, 0.95), seed=st.integers(0, 2**64 - 1), stored=st.booleans())
def test_a_holdout_parts_the_ratings(tmp_path_factory, rows, share, seed, stored):
    out = tmp_path_factory.mktemp("ingest") / "r" if stored else None
    try:
        ratings = ly.open_ratings(table(rows), holdout=share, seed=seed, out=out, memory="500MB")
    except OptionError:  # nothing is held out, or nothing left
        reject()
    left, held = entries(ratings), entries(ratings.held_out)
    assert not left.keys() & held.keys()
    assert left | held == folded(rows)
    check_order(ratings)
    assert ratings.held_out.shape == ratings.shape
    counts = ratings.user_counts(0, ratings.shape[0])
    assert ratings.summary.held_out == len(held)
    assert ratings.summary.users_without == (counts == 0).sum()
    assert ratings.summary.items_without == (ratings.item_counts == 0).sum()


@settings(max_examples=50)
@given(rows=TABLES, timed=st.booleans())
def test_the_last_of_each_user_is_held_out(rows, timed):
    expected = folded(rows, timed=timed)
    last = {}
    for user, item, *_ in sorted(rows, key=lambda row: row[3]) if timed else rows:
        last[user] = (user, item)
    if len(last) == len(expected):
        with pytest.raises(OptionError, match="holdout='last' leaves nothing of"):
            ly.open_ratings(table(rows), holdout="last", time="when" if timed else None, memory="500MB")
        return
    ratings = ly.open_ratings(table(rows), holdout="last", time="when" if timed else None, memory="500MB")
    assert entries(ratings.held_out).keys() == set(last.values())
    assert entries(ratings) | entries(ratings.held_out) == expected


# ---------------------------------------------------------------- sources


@pytest.fixture
def rows():
    """Ratings with duplicates; item ids that are not in the order of their popularity."""
    n = 3000
    users, items = RANDOM.integers(0, 50, n) * 7 + 2**33, (RANDOM.random(n) ** 2 * 40).astype(int)
    return list(zip(users.tolist(), items.tolist(), (RANDOM.integers(1, 11, n) / 2).tolist(), range(n), strict=True))


@pytest.fixture
def files(tmp_path, rows):
    """The rows as files of every format, and the same ratings in text."""
    whole = table(rows)
    named = whole.set_column(0, "user", pa.array([f"u{user}" for user in whole["user"].to_pylist()]))
    for k in range(3):
        part = whole.slice(k * 1000, 1000)
        pq.write_table(part, tmp_path / f"a-{k}.parquet", row_group_size=300)
        pc.write_csv(
            part.select(["item", "user", "rating", "when"] if k == 1 else whole.column_names), tmp_path / f"a-{k}.csv"
        )
        pq.write_table(named.slice(k * 1000, 1000), tmp_path / f"text-{k}.parquet")
    pc.write_csv(whole, tmp_path / "a.tsv", pc.WriteOptions(delimiter="\t"))
    return tmp_path


@pytest.mark.parametrize("name", ["a-*.parquet", "a-*.csv", "a.tsv"])
@pytest.mark.parametrize("stored", [False, True])
def test_files_are_read_in_their_order(files, rows, name, stored):
    ratings = ly.open_ratings(str(files / name), out=files / "r" if stored else None)
    assert entries(ratings) == folded(rows)
    check_order(ratings)
    paths = sorted(files.glob(name))
    again = ly.open_ratings(paths[::-1])
    if len(paths) > 1:
        assert entries(again) == folded([row for k in (2, 1, 0) for row in rows[1000 * k : 1000 * k + 1000]])


def test_text_ids_of_several_files(files, rows):
    ratings = ly.open_ratings(str(files / "text-*.parquet"), out=files / "r")
    assert entries(ratings) == folded([(f"u{user}", *rest) for user, *rest in rows])
    assert ratings.users.kind == "text"


def test_more_memory_other_threads_and_a_store_change_nothing(files):
    kinds = [
        {"out": files / "r", "memory": "200MB", "threads": 1},
        {"out": files / "s", "memory": "1GB", "threads": 3},
        {"memory": "1GB"},
    ]
    made = [ly.open_ratings(str(files / "a-*.parquet"), holdout=0.2, seed=3, **options) for options in kinds]
    for other in made[1:]:
        for one, same in ((made[0], other), (made[0].held_out, other.held_out)):
            first, second = one.read(0, one.shape[0]).data, same.read(0, one.shape[0]).data
            for name in ("data", "indices", "indptr"):
                np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
        assert other.summary == made[0].summary
        np.testing.assert_array_equal(other.levels, made[0].levels)
    assert made[0].identity == made[1].identity


class Frame:
    """What polars and others offer."""

    def __init__(self, table):
        self.table = table

    def __arrow_c_stream__(self, schema=None):
        return self.table.__arrow_c_stream__(schema)


@pytest.mark.parametrize(
    "kind", [pa.Table.to_pandas, Frame, lambda table: table.to_pandas().astype({"user": "category"})]
)
def test_data_frames(rows, kind):
    assert entries(ly.open_ratings(kind(table(rows)))) == folded(rows)


def test_arrays(rows):
    users, items, values, times = columns(rows)
    assert entries(ly.open_ratings((users, items, values))) == folded(rows)
    timed = ly.open_ratings((np.array(users), pd.Series(items), np.array(values), -np.array(times)))
    assert entries(timed) == folded(rows[::-1])
    assert set(entries(ly.open_ratings((users, items))).values()) == {1.0}


def test_a_sparse_matrix_keeps_its_shape_and_sums_its_duplicates():
    entries_of = ([0, 5, 5, 5], [3, 1, 1, 0])
    ratings = ly.open_ratings(sp.coo_array((np.array([1.0, 2, 3, 0]), entries_of), shape=(8, 6)))
    assert ratings.shape == (8, 6)
    assert (ratings.users.kind, ratings.items.kind) == ("number", "integer")
    assert entries(ratings) == {(0, 3): 1, (5, 1): 5, (5, 0): 0}
    assert (ratings.summary.duplicates, ratings.summary.users_without, ratings.summary.items_without) == (1, 6, 3)
    csr = sp.random(300, 70, density=0.1, format="csr", rng=0)
    made = ly.open_ratings(csr, memory="500MB")
    np.testing.assert_array_equal(
        made.read(0, 300).data.toarray(), csr.toarray().astype(np.float32)[:, made.items.take(np.arange(70))]
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["user", "item", "value", "rating"], 2.0),
        (["user", "item", "stars", "rating"], 3.0),
        (["user", "item", "stars", "score"], 1.0),
    ],
)
def test_values_are_looked_for_under_two_names(names, expected):
    columns = dict(zip(names, ([1], [1], [2], [3]), strict=True))
    assert entries(ly.open_ratings(pa.table(columns))) == {(1, 1): expected}
    assert entries(ly.open_ratings(pa.table(columns), value=names[3])) == {(1, 1): 3.0}


def test_plays_are_counted_by_their_sum():
    ratings = ly.open_ratings((["a", "a", "b"], ["x", "x", "x"]), duplicates="sum")
    assert entries(ratings) == {("a", "x"): 2.0, ("b", "x"): 1.0}


@pytest.mark.parametrize(
    "times",
    [
        pa.array([datetime.datetime(2020, 1, 1), datetime.datetime(2019, 1, 1)]),
        pa.array([datetime.datetime(2020, 1, 1), datetime.datetime(2019, 1, 1)], pa.timestamp("ns", "UTC")),
        pa.array([datetime.date(2020, 1, 1), datetime.date(2019, 1, 1)]),
        pa.array([2.5, 2.25]),
        pa.array([2**63 - 1, 2**63 - 2]),
        pa.array([2, 1], pa.uint32()),
    ],
)
@pytest.mark.parametrize("format", ["table", "parquet", "csv"])
def test_times_of_every_kind(tmp_path, times, format):
    source = pa.table({"user": [1, 1], "item": [1, 1], "value": [5, 4], "at": times})
    if format == "parquet":
        pq.write_table(source, tmp_path / "a.parquet")
    if format == "csv":
        pc.write_csv(source, tmp_path / "a.csv")
    given = source if format == "table" else tmp_path / f"a.{format}"
    assert entries(ly.open_ratings(given, time="at")) == {(1, 1): 5.0}


def test_ids_in_a_csv_file_are_numbers_only_if_all_are_written_so(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,value\n1,7,1\n01,8,2\n-3,9,3\n")
    ratings = ly.open_ratings(tmp_path / "a.csv")
    assert entries(ratings) == {("1", 7): 1.0, ("01", 8): 2.0, ("-3", 9): 3.0}


def test_values_in_quotes_and_strange_names(tmp_path):
    path = tmp_path / "a [1]*.csv"
    path.write_text('"the ""user""",it\'em,value\n"a,b",x,1\n\n"NA","line\nend",2\n')
    ratings = ly.open_ratings(path, user='the "user"', item="it'em")
    assert entries(ratings) == {("a,b", "x"): 1.0, ("NA", "line\nend"): 2.0}


# ---------------------------------------------------------------- ratings that are there already


@pytest.mark.parametrize("stored", [False, True])
def test_ratings_can_be_written_and_split_again(tmp_path, rows, stored):
    whole = ly.open_ratings(table(rows), out=tmp_path / "whole" if stored else None)
    source = tmp_path / "whole" if stored else whole
    assert entries(ly.open_ratings(source)) == folded(rows)
    assert entries(ly.open_ratings(source, out=tmp_path / "copy")) == folded(rows)
    at_once = ly.open_ratings(table(rows), holdout=0.3, seed=5)
    for out in (None, tmp_path / "split"):
        split = ly.open_ratings(source, holdout=0.3, seed=5, out=out)
        assert entries(split) == entries(at_once)
        assert entries(split.held_out) == entries(at_once.held_out)
        check_order(split)
    with pytest.raises(OptionError, match="some of these ratings are held out already"):
        ly.open_ratings(split, holdout=0.1)
    with pytest.raises(OptionError, match="ratings keep no times, so none is the last"):
        ly.open_ratings(source, holdout="last")
    with pytest.raises(OptionError, match="value= and time= are columns of a table"):
        ly.open_ratings(source, time="when")


def test_a_store_can_take_the_place_of_the_one_it_is_made_from(tmp_path, rows):
    ly.open_ratings(table(rows), out=tmp_path / "r")
    split = ly.open_ratings(tmp_path / "r", holdout=0.5, out=tmp_path / "r")
    assert entries(split) | entries(split.held_out) == folded(rows)
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


# ---------------------------------------------------------------- what is wrong is said, and nothing is lost

GOOD = {"user": [1, 2, 3], "item": [1, 1, 2], "value": [1.0, 2.0, 3.0], "at": [1.0, 2.0, 3.0]}
FLAWS = [
    ("user", [1, None, 3], "null in column 'user'"),
    ("item", [1, 1, None], "null in column 'item'"),
    ("value", [1.0, None, 3.0], "null in column 'value'"),
    ("value", [1.0, float("nan"), 3.0], "NaN in column 'value'"),
    ("value", [1.0, 2.0, float("inf")], "the value in column 'value' is infinite, or beyond float32"),
    ("value", [1.0, -1e39, 3.0], "the value in column 'value' is infinite, or beyond float32"),
    ("at", [1.0, None, 3.0], "null in column 'at'"),
    ("at", [1.0, float("nan"), 3.0], "NaN in column 'at'"),
]


@pytest.mark.parametrize(("name", "values", "sentence"), FLAWS)
@pytest.mark.parametrize("format", ["table", "parquet"])
def test_a_row_that_cannot_be_used_is_named(tmp_path, name, values, sentence, format):
    bad = next(k for k in range(3) if values[k] != GOOD[name][k])
    flawed = pa.table({**GOOD, name: values})
    source, where = flawed, "table"
    if format == "parquet":
        pq.write_table(pa.table(GOOD), tmp_path / "a-0.parquet")
        pq.write_table(flawed, tmp_path / "a-1.parquet")
        source, where = str(tmp_path / "*.parquet"), r"a-1\.parquet"
    ly.open_ratings(pa.table(GOOD), out=tmp_path / "r")
    with pytest.raises(DataError, match=rf"{where}, row {bad}: {sentence}\. "):
        ly.open_ratings(source, time="at", out=tmp_path / "r")
    ly.open_ratings(tmp_path / "r").check()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (",1,1,1", r"b\.csv, row 1: null in column 'user'"),
        ("1,NA,1,1", r"b\.csv, row 1: null in column 'item'"),
        ("1,1,,1", r"b\.csv, row 1: null in column 'value'"),
        ("1,1,good,1", r"b\.csv, row 1: the value in column 'value' is not a number"),
        ("1,1,nan,1", r"b\.csv, row 1: NaN in column 'value'"),
        ("1,1,1e99,1", r"b\.csv, row 1: the value in column 'value' is infinite, or beyond float32"),
        ("1,1,1,", r"b\.csv, row 1: null in column 'at'"),
        ("1,1,1,now", r"b\.csv, row 1: 'now' in column 'at' is neither a number nor a time"),
        ("1,1,1", r"b\.csv, line 3: the row has 3 values and there are 4 columns"),
        ("1,1,1,1,1", r"b\.csv, line 3: the row has 5 values and there are 4 columns"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path, line, sentence):
    head = "user,item,value,at\n"
    (tmp_path / "a.csv").write_text(head + "1,1,1,1\n")
    (tmp_path / "b.csv").write_text(head + "2,1,1,1\n" + line + "\n3,1,1,1\n")
    with pytest.raises(DataError, match=sentence):
        ly.open_ratings(str(tmp_path / "*.csv"), time="at", out=tmp_path / "r")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "b.csv"]


def test_ids_beyond_64_bits_are_said(tmp_path):
    large = pa.table({"user": pa.array([1, 2**63], pa.uint64()), "item": [1, 2]})
    pq.write_table(large, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet, row 1: the id in column 'user' or 'item' is beyond 64 bits"):
        ly.open_ratings(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="table: column 'user' cannot be turned into int64"):
        ly.open_ratings(large)


def test_duplicates_can_be_an_error(tmp_path):
    pq.write_table(pa.table({"user": [1, 2, 1], "item": [1, 1, 2]}), tmp_path / "a-0.parquet")
    pq.write_table(pa.table({"user": [1, 1], "item": [3, 1]}), tmp_path / "a-1.parquet")
    with pytest.raises(
        DataError, match=r"a-1\.parquet, row 1: this user rated this item before \(.*a-0\.parquet, row 0\)"
    ):
        ly.open_ratings(str(tmp_path / "*.parquet"), duplicates="error")
    assert ly.open_ratings(tmp_path / "a-0.parquet", duplicates="error").count == 3


def test_a_sum_beyond_float32_is_said():
    with pytest.raises(DataError, match="arrays, row 1: the ratings merged into this one are beyond float32"):
        ly.open_ratings(([1, 1], [1, 1], [3e38, 3e38]), duplicates="sum")


@pytest.mark.parametrize(
    ("source", "options", "error", "sentence"),
    [
        (pa.table({"users": [1], "item": [1]}), {}, OptionError, r"no column 'user'\. Did you mean 'users'"),
        (pa.table(GOOD), {"value": "stars"}, OptionError, "there is no column 'stars'"),
        (pa.table(GOOD), {"item": "user"}, OptionError, "one column is asked for twice among user, user, value"),
        (pa.table({**GOOD, "User": [1, 2, 3]}), {}, OptionError, "columns 'user' and 'User' differ in case alone"),
        (pa.table({**GOOD, "user": [0.5, 1, 2]}), {}, DataError, "column 'user' holds double, and ids are"),
        (pa.table({**GOOD, "value": ["a", "b", "c"]}), {}, DataError, "column 'value' holds string, not numbers"),
        (pa.table({**GOOD, "at": ["a", "b", "c"]}), {"time": "at"}, DataError, "'at' holds string, neither times"),
        (pa.table({**GOOD}).slice(0, 0), {}, DataError, r"the table is empty \(0 rows\)"),
        (([1, 2], [1]), {}, DataError, "the arrays of user, item have 2, 1 entries"),
        (([1.5], [1]), {}, DataError, "the user ids are float64"),
        (([1], [1], ["good"]), {}, DataError, "column 'value' holds string, not numbers"),
        (([1], [1], [np.nan]), {}, DataError, "arrays, row 0: NaN in column 'value'"),
        (sp.csr_array((3, 0)), {}, DataError, "holds no ratings"),
        (sp.csr_array((3, 3)), {}, DataError, r"the table is empty \(0 rows\)"),
        (np.eye(3), {}, DataError, "a ndarray cannot be seen as ratings"),
        (7, {}, DataError, "a int cannot be seen as ratings"),
        ("gone.parquet", {}, DataError, "there is no such file"),
        (pa.table(GOOD), {"duplicates": "first"}, OptionError, "'first' is not one of last, sum, mean, error"),
        (pa.table(GOOD), {"holdout": "all"}, OptionError, "holdout='all' must be a number between 0 and 1, or"),
        (pa.table(GOOD), {"holdout": 1.0}, OptionError, "holdout=1.0 must be a number between 0 and 1"),
        (pa.table(GOOD), {"holdout": 1e-9}, OptionError, "holdout=1e-09 holds nothing out of 3 ratings"),
        (pa.table(GOOD), {"holdout": 1 - 1e-9}, OptionError, "leaves nothing of 3 ratings"),
        (pa.table(GOOD), {"seed": -1}, OptionError, "seed=-1"),
        (pa.table(GOOD), {"memory": "much"}, OptionError, "memory='much' is not an amount"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_said(tmp_path, monkeypatch, source, options, error, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=sentence):
        ly.open_ratings(source, **options)
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_tables_are_said(tmp_path):
    np.save(tmp_path / "a.npy", np.eye(3))
    with pytest.raises(DataError, match="ratings are read from Parquet and CSV files, not from npy"):
        ly.open_ratings(tmp_path / "a.npy")
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"a\.parquet: this is not a complete Parquet file"):
        ly.open_ratings(tmp_path / "a.parquet")


def test_a_damaged_page_is_said(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"user": np.arange(5000) * 7919 % 5000, "item": np.arange(5000)}), path)
    data = bytearray(path.read_bytes())
    data[100:20000] = bytes(19900)
    path.write_bytes(data)
    with pytest.raises(DataError, match="the rows cannot be read"):
        ly.open_ratings(path, out=tmp_path / "r")
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_a_column_that_a_file_lacks_is_said(tmp_path):
    pq.write_table(pa.table(GOOD), tmp_path / "a.parquet")
    pq.write_table(pa.table(GOOD).drop_columns("value"), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet: column 'value' is missing, and .*a\.parquet has it"):
        ly.open_ratings(str(tmp_path / "*.parquet"))
    pc.write_csv(pa.table(GOOD), tmp_path / "a.csv")
    pc.write_csv(pa.table(GOOD).drop_columns("value"), tmp_path / "b.csv")
    with pytest.raises(DataError, match=r"b\.csv: column 'value' is missing, and .*a\.csv has it"):
        ly.open_ratings(str(tmp_path / "*.csv"))


def test_what_does_not_fit_into_memory_is_said():
    users = np.arange(5_000_000)
    with pytest.raises(BudgetError, match=r"5,000,000 ratings of 1,000 items take 80 MB, more than half .* Give out="):
        ly.open_ratings((users, users % 1000), memory="120MB")
    with pytest.raises(BudgetError, match=r"too little to sort the rows|too small"):
        ly.open_ratings((users, users % 1000), memory="100kB")


def test_an_interrupt_leaves_nothing_behind(tmp_path):
    code = f"""
import signal, numpy as np, leyden as ly
signal.signal(signal.SIGINT, signal.default_int_handler)
n = 20_000_000
users = np.arange(n) * 48_271 % 2_147_483_647
ly.open_ratings((users, users % 1009), out={str(tmp_path / "r")!r}, memory="1GB")
"""
    run = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not list(tmp_path.glob(".r.*.partial")) and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.3)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=120)
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert list(tmp_path.iterdir()) == []
