"""Tables as numbers: the same rows from memory, Parquet and CSV, indicators, nulls, and every refusal."""

import decimal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leyden.errors import DataError, OptionError
from leyden.rows import csv, open

ROLES = {"target": "delay", "weight": "weight", "group": "crew"}


@pytest.fixture(params=["memory", "parquet", "csv", "tsv"])
def store(request, tmp_path, monkeypatch):
    """Store a table in one way or another: in two files, and in pieces of less than a hundred rows."""
    monkeypatch.setattr(csv, "PIECE_NBYTES", 2000)

    def save(table):
        half = table.num_rows * 2 // 3
        parts = [table.slice(0, half), table.slice(half)] if half else [table]
        for i, part in enumerate(parts):
            path = tmp_path / f"part-{i}.{request.param}"
            if request.param == "parquet":
                pq.write_table(part, path, row_group_size=70)
            elif request.param != "memory":
                delimiter = "," if request.param == "csv" else "\t"
                pa.csv.write_csv(part, path, pa.csv.WriteOptions(delimiter=delimiter))
        return table if request.param == "memory" else tmp_path / f"*.{request.param}"

    return save


def indicators(values, drop_first=False):
    """One column of zeros and ones for each different value, in sorted order, and these values."""
    names = np.unique(values)
    matrix = (values[:, None] == names[None, :]).astype(float)
    return matrix[:, drop_first:], list(names[drop_first:])


@pytest.mark.parametrize("drop_first", [False, True])
def test_all_options_together(store, table, check_rows, drop_first):
    rows = open(store(table), **ROLES, categorical="auto", drop_first=drop_first)
    whole = check_rows(rows)
    carrier, carriers = indicators(table["carrier"].to_numpy(), drop_first)
    origin, origins = indicators(table["origin"].to_numpy(), drop_first)
    expected = np.column_stack([table["distance"], table["seats"], table["late"], carrier, origin])
    np.testing.assert_array_equal(whole.data, expected)
    np.testing.assert_array_equal(whole.target[:, 0], table["delay"])
    np.testing.assert_array_equal(whole.weight, table["weight"])
    np.testing.assert_array_equal(whole.group, table["crew"])
    names = ["distance", "seats", "late", *(f"carrier={v}" for v in carriers), *(f"origin={v}" for v in origins)]
    assert rows.columns == tuple(names)
    assert rows.targets == ("delay",)


def test_columns_come_in_the_order_asked_for(store, table):
    rows = open(store(table), columns=["seats", "carrier", "distance"], categorical=["carrier"])
    assert rows.columns == ("seats", "carrier=AA", "carrier=DL", "carrier=UA", "distance")
    assert rows.targets == ()
    np.testing.assert_array_equal(
        rows.read(0, 1000).data[:, [0, 4]], np.column_stack([table["seats"], table["distance"]])
    )


def test_several_targets(store, table):
    rows = open(store(table), columns=["seats"], target=["delay", "distance"])
    np.testing.assert_array_equal(rows.read(5, 990).target, np.column_stack([table["delay"], table["distance"]])[5:990])


def test_a_group_of_text(store, table):
    rows = open(store(table), columns=["seats"], group="carrier")
    assert list(rows.read(0, 1000).group) == table["carrier"].to_pylist()


def test_whole_numbers_can_be_categories(store, table):
    rows = open(store(table), columns=["crew"], categorical=["crew"])
    matrix, names = indicators(table["crew"].to_numpy())
    assert rows.columns == tuple(f"crew={value}" for value in names)
    np.testing.assert_array_equal(rows.read(0, 1000).data, matrix)


def test_many_indicators_make_sparse_blocks(store, check_rows):
    random = np.random.default_rng(1)
    n = 600
    user, price = random.integers(0, 90, n), random.integers(0, 3, n).astype(float)
    table = pa.table({"user": pa.array([f"u{u:02}" for u in user]), "price": price, "y": random.random(n)})
    rows = open(store(table), target="y", categorical=["user"], drop_first=True)
    assert rows.is_sparse
    whole = check_rows(rows)
    matrix, _ = indicators(np.array([f"u{u:02}" for u in user]), drop_first=True)
    np.testing.assert_array_equal(whole.data.toarray(), np.column_stack([matrix, price]))
    assert (whole.data.data != 0).all()


WITH_NULLS = pa.table(
    {
        "a": pa.array([1.0, None, 3.0, 4.0] * 60),
        "s": pa.array(["x", "y", None, "z"] * 60),
        "i": pa.array([1, 2, 3, None] * 60, pa.int32()),
        "y": pa.array(np.arange(240.0)),
    }
)


def test_a_null_is_an_error_that_says_where(store):
    rows = open(store(WITH_NULLS), target="y", categorical="auto")
    rows.read(4, 5)
    with pytest.raises(
        DataError, match=r", row 1: null in column 'a'\. Open with nulls=\"mean\" .* nulls=\"drop\""
    ) as caught:
        rows.read(0, 240)
    assert "part-0" in caught.value.where or caught.value.where.startswith("table")
    with pytest.raises(DataError, match="row 2: null in column 's'"):
        rows.read(2, 240)


def test_nulls_filled_by_the_mean(store, check_rows):
    rows = open(store(WITH_NULLS), target="y", categorical=["s"], nulls="mean")
    whole = check_rows(rows)
    pattern = [[1, 1, 0, 0, 1], [8 / 3, 0, 1, 0, 2], [3, 0, 0, 0, 3], [4, 0, 0, 1, 2]]
    np.testing.assert_allclose(whole.data, np.tile(pattern, (60, 1)), rtol=1e-15)


def test_rows_with_nulls_dropped(store, check_rows):
    rows = open(store(WITH_NULLS), target="y", columns=["a", "i"], nulls="drop")
    whole = check_rows(rows)
    np.testing.assert_array_equal(whole.data, np.tile([[1.0, 1.0], [3.0, 3.0]], (60, 1)))
    np.testing.assert_array_equal(whole.target[:, 0], np.arange(0, 240.0, 2))
    assert rows.locate(3).endswith(", row 6")


def test_categories_of_dropped_rows_are_not_columns(store):
    rows = open(store(WITH_NULLS), target="y", categorical="auto", nulls="drop")
    assert rows.columns == ("a", "s=x", "i")
    assert rows.shape[0] == 60


def test_a_null_target_is_never_filled(store):
    table = pa.table({"a": [1.0, 2.0, 3.0], "y": [1.0, None, 2.0]})
    with pytest.raises(DataError, match=r"row 1: null in column 'y'. A target, weight or group is never filled"):
        open(store(table), target="y", nulls="mean").read(0, 3)


def test_nothing_left_after_dropping(store):
    table = pa.table({"a": pa.array([1.0, None, 2.0]), "b": pa.array([None, 1.0, None])})
    with pytest.raises(DataError, match="no row is left: each holds a null"):
        open(store(table), nulls="drop")


def test_a_column_without_any_value_has_no_mean(store):
    table = pa.table({"a": [1.0, 2.0], "b": pa.array([None, None], pa.float64())})
    with pytest.raises(DataError, match="column 'b' holds no value to take the mean of"):
        open(store(table), nulls="mean")


REFUSED = [
    ({"target": "dealy"}, OptionError, r"there is no column 'dealy'\. Did you mean 'delay'\?"),
    ({"columns": ["seats", "zzz"]}, OptionError, r"there is no column 'zzz'\. The columns are: distance, seats"),
    ({"weight": "wieght"}, OptionError, "there is no column 'wieght'. Did you mean 'weight'"),
    ({"categorical": ["carier", "origin"]}, OptionError, "Did you mean 'carrier'"),
    ({}, DataError, r"column 'carrier' holds text \(string\), not numbers\. Add categorical=\['carrier'\]"),
    ({"columns": ["seats"], "categorical": ["origin"]}, OptionError, "categorical column 'origin' is not among"),
    ({"columns": ["seats", "seats"]}, OptionError, "column 'seats' is asked for twice"),
    ({"columns": ["seats"], "target": "seats"}, OptionError, "column 'seats' is both a column and the target"),
    ({"columns": ["seats"], "target": "carrier"}, DataError, "column 'carrier' holds string, not numbers"),
    ({"columns": ["seats"], "nulls": "ignore"}, OptionError, "nulls='ignore' is not known"),
    ({"columns": ["seats"], "dtype": "int8"}, OptionError, "dtype='int8' cannot be used"),
    ({"columns": ["seats"], "dtype": "nonsense"}, OptionError, "dtype='nonsense' cannot be used"),
    ({"columns": ["seats"], "target": 3}, OptionError, "target=3 is a number and a table's columns have names"),
    ({"columns": []}, OptionError, "no columns are left"),
]


@pytest.mark.parametrize(("options", "error", "sentence"), REFUSED)
def test_what_cannot_be_done_is_said(store, table, options, error, sentence):
    with pytest.raises(error, match=sentence):
        open(store(table), **options)


def test_one_category_and_drop_first_leaves_nothing(store):
    with pytest.raises(DataError, match="each categorical column holds one category"):
        open(store(pa.table({"s": ["x", "x"]})), categorical=["s"], drop_first=True)


def test_a_target_beside_the_table(store, table):
    rows = open(store(table), columns=["seats"], target=np.arange(1000), weight="weight")
    block = rows.read(3, 500)
    np.testing.assert_array_equal(block.target[:, 0], np.arange(3, 500))
    np.testing.assert_array_equal(block.weight, table["weight"][3:500])
    with pytest.raises(OptionError, match="with nulls='drop' the target cannot be an array"):
        open(table, columns=["seats"], target=np.arange(1000), nulls="drop")


@pytest.mark.parametrize(
    ("types", "dtype"),
    [
        ([pa.float32(), pa.int16(), pa.bool_(), pa.uint8()], np.float32),
        ([pa.float16(), pa.int8(), pa.uint16()], np.float32),
        ([pa.float32(), pa.int32()], np.float64),
        ([pa.float64()], np.float64),
        ([pa.decimal128(5, 2)], np.float64),
        ([pa.dictionary(pa.int8(), pa.float32())], np.float32),
    ],
)
def test_blocks_are_float32_when_it_holds_every_column_exactly(types, dtype):
    values = np.array([[1, 0, 1]] * len(types)).T
    table = pa.table({f"c{j}": column_of(type_, [1, 0, 1]) for j, type_ in enumerate(types)})
    rows = open(table)
    assert rows.dtype == dtype
    np.testing.assert_array_equal(rows.read(0, 3).data, values)
    assert open(table, dtype="float32").read(0, 3).data.dtype == np.float32


def column_of(type_, values):
    if pa.types.is_dictionary(type_):
        return column_of(type_.value_type, values).dictionary_encode()
    if pa.types.is_decimal(type_):
        return pa.array([decimal.Decimal(value) for value in values], type_)
    return pa.array(np.array(values, type_.to_pandas_dtype()))


def test_measurements_are_not_categories(table):
    with pytest.raises(OptionError, match="column 'distance' holds double: its values are measurements"):
        open(table, columns=["distance"], categorical=["distance"])


@pytest.mark.parametrize(
    "column",
    [pa.array([0, 1], pa.timestamp("s")), pa.array([0, 1], pa.date32()), pa.array([0, 1], pa.duration("s"))],
    ids=["timestamp", "date", "duration"],
)
def test_times_are_not_numbers(column):
    with pytest.raises(DataError, match=r"column 't' holds dates or times .*, not numbers\. Turn it into numbers"):
        open(pa.table({"t": column, "a": [1, 2]}))


def test_lists_are_not_numbers():
    with pytest.raises(DataError, match=r"column 't' holds list.*, not numbers\. Leave it out"):
        open(pa.table({"t": [[1], [2]], "a": [1, 2]}))


def test_nan_is_not_null(store):
    table = pa.table({"a": [1.0, float("nan"), 3.0]})
    assert np.isnan(open(table, nulls="drop").read(0, 3).data[1, 0])
    np.testing.assert_array_equal(open(table, nulls="mean").read(0, 3).data[:, 0], [1, np.nan, 3])


def test_a_dictionary_may_have_entries_that_no_row_uses():
    column = pa.DictionaryArray.from_arrays(pa.array([2, 0, None, 2]), pa.array(["c", "unused", "a"]))
    rows = open(pa.table({"s": column}), categorical="auto", nulls="mean")
    assert rows.columns == ("s=a", "s=c")
    np.testing.assert_array_equal(rows.read(0, 4).data, [[1, 0], [0, 1], [0, 0], [1, 0]])


def test_row_labels_of_pandas_are_not_a_column():
    assert open(pa.table({"a": [1.0], "__index_level_0__": [7]})).columns == ("a",)


def test_too_large_for_float32_becomes_infinite_without_a_warning():
    assert np.isinf(open(pa.table({"a": [1e300]}), dtype="float32").read(0, 1).data).all()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_text_and_any_nulls_make_the_same_indicators_everywhere(tmp_path_factory, data):
    text = st.text(
        st.characters(codec="utf-8", exclude_characters="\r\n\x00", exclude_categories=["Cs"]), min_size=1, max_size=3
    )
    values = data.draw(st.lists(st.one_of(st.none(), text), min_size=1, max_size=30))
    drop_first = data.draw(st.booleans())
    categories = sorted({value for value in values if value is not None})[drop_first:]
    expected = np.array([[value == c for c in categories] for value in values], float)
    table = pa.table({"s": pa.array(values, pa.string()), "one": np.ones(len(values))})
    folder = tmp_path_factory.mktemp("text")
    pq.write_table(table, folder / "a.parquet", row_group_size=4)
    pa.csv.write_csv(table, folder / "a.csv", pa.csv.WriteOptions(quoting_style="all_valid"))
    for source in (table, folder / "a.parquet", folder / "a.csv"):
        rows = open(source, columns=["s", "one"], categorical=["s"], drop_first=drop_first, nulls="mean")
        assert rows.columns == (*(f"s={c}" for c in categories), "one")
        block = rows.read(0, len(values)).data
        np.testing.assert_array_equal(
            block[:, :-1] if isinstance(block, np.ndarray) else block.toarray()[:, :-1], expected
        )
