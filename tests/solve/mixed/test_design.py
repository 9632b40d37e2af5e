"""A table becomes the same design whether it is kept in memory or made again in every pass."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import leyden as ly
from leyden.solve.mixed.design import design
from leyden.solve.mixed.formula import parse

from .models import table

FORMULA = "y ~ x * c + log(w) + (1 + x | g) + (1 | s:c)"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("tables")
    data = table(1, n=6000, groups=40, others=12)
    data.to_parquet(folder / "rows.parquet", row_group_size=1000)
    data.to_csv(folder / "rows.csv", index=False)
    for i, part in enumerate(np.array_split(np.arange(len(data)), 3)):
        data.iloc[part].to_parquet(folder / f"part{i}.parquet")
    return {
        "frame": data,
        "parquet": folder / "rows.parquet",
        "csv": folder / "rows.csv",
        "several": str(folder / "part*.parquet"),
        "mapping": {name: data[name].to_numpy() for name in data},
    }


@pytest.mark.parametrize("kind", ["frame", "parquet", "csv", "several", "mapping"])
@pytest.mark.parametrize("memory", [10**9, 600_000])
def test_every_source_makes_the_same_rows(files, kind: str, memory: int) -> None:
    from leyden.solve.mixed.model import as_table

    whole = design(parse(FORMULA), files["frame"], weight="w", memory=10**9)
    source, _ = as_table(files[kind], {})
    found = design(parse(FORMULA), source, weight="w", memory=memory)
    assert found.rows.in_memory == (memory == 10**9)
    assert found.fixed == whole.fixed
    assert [term.columns for term in found.terms] == [term.columns for term in whole.terms]
    for start, stop in ((0, 6000), (999, 1001), (5990, 6000), (0, 1)):
        a, b = whole.rows.read(start, stop), found.rows.read(start, stop)
        np.testing.assert_allclose(a.data, b.data, rtol=1e-15)
        np.testing.assert_array_equal(a.target, b.target)
        np.testing.assert_array_equal(a.weight, b.weight)
        np.testing.assert_array_equal(a.group, b.group)


def test_a_model_of_streamed_rows_is_that_of_rows_in_memory(files, monkeypatch) -> None:
    formula = "y ~ x + c + (1 + x | g) + (1 | s)"
    kept = ly.mixed(formula, files["parquet"], weights="w", memory="1GB")
    monkeypatch.setattr("leyden.solve.mixed.design.KEPT", 1e-6)
    streamed = ly.mixed(formula, files["parquet"], weights="w", memory="100MB")
    assert "made again" in streamed.plan.reasons[1]
    assert "kept in memory" in kept.plan.reasons[1]
    np.testing.assert_allclose(streamed.beta, kept.beta, rtol=1e-9)
    assert streamed.log_likelihood == pytest.approx(kept.log_likelihood, rel=1e-12)
    assert streamed.certificate.holds


@pytest.mark.parametrize(
    ("values", "ids"),
    [
        (["b", "a", "b", "c"], ["a", "b", "c"]),
        ([2**60, 5, 2**60, -3], [-3, 5, 2**60]),
        ([3.0, 1.0, 3.0, 2.0], [1, 2, 3]),
        ([True, False, True, True], [0, 1]),
        (["x"] * 4, ["x"]),
    ],
)
def test_groups_are_numbered_in_the_order_of_their_ids(values, ids) -> None:
    data = pd.DataFrame({"y": [1.0, 2.0, 3.0, 5.0], "g": values})
    (term,) = design(parse("y ~ (1 | g)"), data, memory=10**9).terms
    every = term.groups.ids.take(np.arange(len(term.groups)))
    assert list(every) == ids
    assert [every[code] for code in term.groups.codes] == [type(ids[0])(value) for value in values]


def test_levels_that_are_many_have_no_columns(monkeypatch) -> None:
    monkeypatch.setattr("leyden.solve.mixed.design.WIDE", 5)
    data = table(4, n=500, groups=8, others=7)
    sparse = ly.mixed("y ~ x + s + (1 | g)", data)
    assert sparse.system.design.wide
    monkeypatch.setattr("leyden.solve.mixed.design.WIDE", 1000)
    dense = ly.mixed("y ~ x + s + (1 | g)", data)
    assert set(sparse.fixed) == set(dense.fixed)
    for name, value in dense.fixed.items():
        assert sparse.fixed[name] == pytest.approx(value, rel=1e-9)
        assert sparse.standard_errors[name] == pytest.approx(dense.standard_errors[name], rel=1e-9)
    assert sparse.log_likelihood == pytest.approx(dense.log_likelihood, rel=1e-12)
    np.testing.assert_allclose(sparse.predict(data), dense.predict(data), rtol=1e-9)


@pytest.mark.parametrize("where", ["levels", "columns"])
def test_a_level_that_is_not_known_is_named_when_predicting(where: str, monkeypatch) -> None:
    monkeypatch.setattr("leyden.solve.mixed.design.WIDE", 2 if where == "levels" else 1000)
    data = table(4, n=300)
    model = ly.mixed("y ~ x + c + (1 | g)", data)
    with pytest.raises(ly.DataError, match="has the level 'neither', which is not known"):
        model.predict(data.head(3).assign(c=["low", "neither", "high"]))
