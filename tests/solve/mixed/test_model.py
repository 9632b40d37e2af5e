"""Fitted models: the data they are given, what they are compared with, saved and verified."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import leyden as ly
from leyden.errors import OptionError

from .models import table

_spec = importlib.util.spec_from_file_location("common", Path(__file__).with_name("common.py"))
common = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(common)

FORMULA = "y ~ x + (1 + x | g) + (1 | h)"


def same(a, b, rtol=1e-9):
    assert a.log_likelihood == pytest.approx(b.log_likelihood, rel=1e-11)
    np.testing.assert_allclose(a.beta, b.beta, rtol=rtol, atol=1e-9)
    for name, own in a.groupings.items():
        np.testing.assert_allclose(own.covariance, b.groupings[name].covariance, rtol=1e-5, atol=1e-8)


def inputs(folder):
    import pandas as pd

    table = pa.table(common.crossed())
    pq.write_table(table, folder / "a.parquet", row_group_size=37)
    pyarrow.csv.write_csv(table, folder / "a.csv")
    return {"parquet": folder / "a.parquet", "csv": folder / "a.csv", "arrow": table,
            "pandas": pd.DataFrame(common.crossed()), "rows": ly.open(table, target="y")}  # fmt: skip


@pytest.mark.parametrize("kind", ["parquet", "csv", "arrow", "pandas", "rows"])
def test_any_input_gives_the_same_model(kind, tmp_path):
    data = inputs(tmp_path)[kind]
    same(common.fit(FORMULA, data), common.fit(FORMULA, common.crossed()), 1e-7)


def test_lists_of_columns_are_a_formula():
    by_lists = common.fit(common.crossed(), None, target="y", fixed=["x"], random={"g": ["x"], "h": []})
    same(by_lists, common.fit(FORMULA, common.crossed()))


def test_the_order_of_rows_does_not_matter():
    data, order = common.crossed(), np.random.default_rng(5).permutation(120)
    same(common.fit(FORMULA, data), common.fit(FORMULA, {name: c[order] for name, c in data.items()}), 1e-7)


@pytest.mark.parametrize(
    "name",
    [str, lambda g: g.astype(np.int64) + 2**60, float, lambda g: g.astype(np.int64) * 2**58 - 2**62],
    ids=["text", "beyond doubles", "whole floats", "far apart"],
)
def test_groups_have_the_ids_of_the_data(name):
    data = common.crossed()
    ids = data["g"].astype(name) if isinstance(name, type) else name(data["g"])
    model, plain = common.fit("y ~ x + (1 | g)", {**data, "g": ids}), common.fit("y ~ x + (1 | g)", data)
    np.testing.assert_allclose(model.random(ids[:9]), plain.random(data["g"][:9]), atol=1e-8)


def test_truth_values_are_groups():
    data = common.crossed()
    model = common.fit("y ~ x + (1 | g)", {**data, "g": data["g"] > 5})
    np.testing.assert_array_equal(model.random([True, False]), model.random()[[1, 0]])


def test_saved_and_loaded_it_holds_the_same(tmp_path):
    data = common.crossed()
    model = common.fit(FORMULA, data)
    model.save(tmp_path / "model")
    loaded = ly.load(tmp_path / "model")
    assert str(loaded) == str(model)
    np.testing.assert_array_equal(loaded.random([3], group="g"), model.random([3], group="g"))
    assert loaded.verify(data).holds
    with pytest.raises(OptionError, match="loaded from a folder"):
        loaded.confidence_intervals(method="profile")


@pytest.mark.parametrize("what", ["beta", "covariance_fixed", "theta", "sigma2", "log_likelihood"])
def test_other_numbers_are_refused(what):
    data = common.crossed()
    model = common.fit(FORMULA, data)
    setattr(model, what, getattr(model, what) * 1.001)
    assert not model.verify(data).holds


@pytest.mark.parametrize("what", ["effects", "covariance", "uncertainty"])
def test_other_numbers_of_groups_are_refused(what):
    data = common.crossed()
    model = common.fit(FORMULA, data)
    own = model.groupings["g"]
    model.groupings["g"] = dataclasses.replace(own, **{what: getattr(own, what) * 1.001})
    assert not model.verify(data).holds


def test_other_data_is_refused():
    data = common.crossed()
    model = common.fit(FORMULA, data)
    y = data["y"].copy()
    y[5] += 1e-3
    assert not model.verify({**data, "y": y}).holds
    assert not model.verify({**data, "g": data["g"] + 1}).holds


def test_columns_of_any_name_are_verified():
    plain = common.crossed()
    data = {"my y": plain["y"], "a b": plain["x"], "school:class": plain["g"]}
    model = common.fit(data, None, target="my y", fixed=["a b"], group="school:class")
    assert model.verify(data).holds


def test_likelihood_ratios():
    data = common.crossed()
    large, small = common.fit("y ~ x + (1 | g)", data, method="ML"), common.fit("y ~ 1 + (1 | g)", data, method="ML")
    test = large.likelihood_ratio(small)
    assert test.df == 1
    assert test.statistic == pytest.approx(2 * (large.log_likelihood - small.log_likelihood))
    with pytest.raises(OptionError, match="not smaller"):
        small.likelihood_ratio(large)
    by_reml = common.fit("y ~ x + (1 | g)", data)
    with pytest.raises(OptionError, match="REML"):
        by_reml.likelihood_ratio(small)


def test_a_variance_of_zero_is_said():
    data = common.crossed()
    y = 1 + data["x"] + np.sin(np.arange(120) * 7.3)
    for g in range(12):
        there = data["g"] == g
        y[there] -= y[there].mean() - data["x"][there].mean()
    model = common.fit("y ~ x + (1 | g)", {**data, "y": y})
    assert model.groupings["g"].edge
    assert model.groupings["g"].covariance == 0
    assert "the variance of Intercept is zero" in str(model)
    assert model.certificate.holds


def test_run_again_from_a_checkpoint_it_comes_to_the_same_bits(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(common.crossed()), path)
    fits = [common.fit(FORMULA, path, checkpoint=tmp_path / "c") for _ in range(2)]
    np.testing.assert_array_equal(fits[0].beta, fits[1].beta)
    assert fits[0].log_likelihood == fits[1].log_likelihood


def test_an_interrupted_fit_goes_on_where_it_was(tmp_path, monkeypatch):
    data, formula = table(3, n=400), "y ~ x + c + (1 + x | g) + (1 | s)"
    whole = ly.mixed(formula, data)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("leyden.solve.mixed.model.estimate", stop)
        with pytest.raises(KeyboardInterrupt):
            ly.mixed(formula, data, checkpoint=tmp_path / "kept")
    again = ly.mixed(formula, data, checkpoint=tmp_path / "kept")
    assert again.fixed == whole.fixed
    assert "pass 2 was complete in the checkpoint" in again.trace.remarks
