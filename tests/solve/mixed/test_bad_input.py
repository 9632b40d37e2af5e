"""What is wrong is said in one sentence, by the error that fits."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from leyden.errors import DataError, OptionError

_spec = importlib.util.spec_from_file_location("common", Path(__file__).with_name("common.py"))
common = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(common)

N = 120
DATA = common.crossed(N)
SEVENTH = np.arange(N) == 7


def refused(kind, match, formula="y ~ x + (1 | g)", options=None, **columns):
    with pytest.raises(kind, match=match) as found:
        common.fit(formula, {**DATA, **columns}, **(options or {}))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("formula", "match"),
    [
        ("y ~ x + (1 |", "is no random term"),
        ("y x + (1 | g)", "is no formula"),
        ("~ x + (1 | g)", "needs a target"),
        ("y ~", "needs a target"),
        ("y ~ x ~ g", "needs a target"),
        ("y ~ x", "no random term"),
        ("y ~ x + (1 | g) + (1 | g)", "two random terms of 'g'"),
        ("y ~ x + (0 | g)", "has no columns"),
        ("y ~ (1 | g) * x", "is no random term"),
        ("y ~ x + (1 | g + h)", "no name of a column"),
        ("y ~ nope + (1 | g)", "no column 'nope'"),
        ("y ~ x + (1 | nope)", "no column 'nope'"),
        ("nope ~ x + (1 | g)", "no column 'nope'"),
        ("y + x ~ 1 + (1 | g)", "makes 2 columns"),
    ],
)
def test_formulas(formula, match):
    refused(OptionError, match, formula)


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"y": np.ones(N)}, "fit 'y' exactly"),
        ({"y": np.zeros(N)}, "fit 'y' exactly"),
        ({"y": 1 + 2 * DATA["x"]}, "fit 'y' exactly"),
        ({"x": np.where(SEVENTH, np.nan, DATA["x"])}, r"row 7: missing value \(null or NaN\) in column 'x'"),
        ({"x": np.where(SEVENTH, np.inf, DATA["x"])}, "row 7: infinity in column 'x'"),
        ({"y": np.where(SEVENTH, np.nan, DATA["y"])}, r"row 7: missing value \(null or NaN\) in column 'y'"),
        ({"x": np.arange(N).astype("datetime64[D]")}, "dates or times"),
        ({"g": DATA["g"] + 0.5}, "measurements, and name no groups"),
        ({"g": DATA["g"] * 1e30}, "beyond 64 bits"),
        ({"g": DATA["g"].astype(np.uint64) + np.uint64(2**63)}, "beyond 64 bits"),
        ({"g": np.where(SEVENTH, np.nan, DATA["g"])}, "row 7: missing value"),
        ({"g": np.arange(N)}, "cannot be told from the noise"),
        ({"y": DATA["y"][:5]}, "make no table"),
    ],
)
def test_columns(columns, match):
    refused(DataError, match, **columns)


def test_columns_of_random_terms_that_are_no_numbers():
    refused(DataError, "holds date|dates or times", "y ~ x + (t | g)", t=np.arange(N).astype("datetime64[D]"))
    refused(DataError, "neither numbers nor text", "y ~ x + (t | g)", t=np.full(N, b"1"))


def test_collinear_fixed_effects_are_named():
    refused(DataError, "'z' is a combination of 'Intercept', 'x'", "y ~ x + z + (1 | g)", z=1 + 2 * DATA["x"])


@pytest.mark.parametrize(
    ("w", "match"),
    [(-np.ones(N), "negative"), (np.zeros(N), "0 rows of a positive weight"),
     (np.where(SEVENTH, np.nan, 1.0), "row 7: missing value"), (np.where(SEVENTH, np.inf, 1.0), "row 7: infinity")],
)  # fmt: skip
def test_weights(w, match):
    refused(DataError, match, options={"weights": "w"}, w=w)


@pytest.mark.parametrize(
    "covariance",
    [-1.0, np.eye(2), np.nan, [1.0, 2.0], None, "foo", {"nope": 1.0}, {"g": "foo"}, [[1.0, 2.0], [0.0, 1.0]]],
)
def test_covariances(covariance):
    refused(OptionError, "covariance", options={"covariance": covariance})


def test_indefinite_covariances():
    refused(OptionError, "symmetric matrix 2 × 2", "y ~ x + (x | g)", {"covariance": np.array([[1.0, 2], [2, 1]])})


@pytest.mark.parametrize(
    ("options", "match"),
    [({"missing": "foo"}, "missing"), ({"method": "foo"}, "method"), ({"tol": -1}, "tol"), ({"vcov": "hetero"}, "vcov"),
     ({"group": "g"}, "Leave them out")],
)  # fmt: skip
def test_options(options, match):
    refused(OptionError, match, options=options)


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_too_few_rows(rows):
    with pytest.raises(DataError, match=r"empty|rows"):
        common.fit("y ~ x + (1 | g)", {name: column[:rows] for name, column in DATA.items()}, covariance=1.0)


def test_groups_asked_for():
    model = common.fit("y ~ x + (1 | g) + (1 | h)", DATA)
    with pytest.raises(DataError, match="99"):
        model.random([99], group="g")
    with pytest.raises(DataError, match="whole numbers"):
        model.random(["a"], group="g")
    with pytest.raises(OptionError, match="no grouping 'q'"):
        model.random(group="q")
    with pytest.raises(OptionError, match="2 groupings"):
        model.random()
