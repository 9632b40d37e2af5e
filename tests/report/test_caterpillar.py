"""Caterpillar plots: every interval is that of the model, in the order of the coefficients."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest

import leyden as ly
from leyden.report import caterpillar as module
from leyden.report.caterpillar import caterpillar, figure


def made(groups, formula="y ~ x + (1 + x | g)", seed=0):
    rng = np.random.default_rng(seed)
    n = 12 * groups
    g = np.arange(n) % groups
    x = rng.standard_normal(n)
    y = 1 + x + rng.standard_normal(groups)[g] + 0.5 * rng.standard_normal(groups)[g] * x + rng.standard_normal(n)
    return ly.mixed(formula, {"y": y, "x": x, "g": g, "h": [f"$h_{i}$" for i in rng.integers(0, 9, n)]}, progress=False)


@pytest.fixture(scope="module")
def model():
    return made(20)


def intervals(axes):
    """Height, centre and ends of what a panel shows, from the bottom up."""
    rows = []
    for marks, _, (bars,) in axes.containers:
        ends = np.array([segment[:, 0] for segment in bars.get_segments()])
        rows.append(np.column_stack([marks.get_ydata(), marks.get_xdata(), ends]))
    found = np.concatenate(rows)
    return found[np.argsort(found[:, 0])]


def test_intervals_are_those_of_the_model_in_order(model):
    found = model.groupings["g"]
    for j, axes in enumerate(figure(model).axes):
        order = np.argsort(found.effects[:, j])
        width = 1.96 * np.sqrt(found.uncertainty[order, j, j])
        expected = np.column_stack(
            [np.arange(20), found.effects[order, j], found.effects[order, j] - width, found.effects[order, j] + width]
        )
        np.testing.assert_allclose(intervals(axes), expected, rtol=1e-12, atol=1e-12)
        assert [label.get_text() for label in axes.get_yticklabels()] == [str(name) for name in order]
        assert axes.get_xlabel() == found.columns[j]


def test_intervals_without_zero_are_told_from_those_with_it(model):
    for axes in figure(model).axes:
        for marks, _, (bars,) in axes.containers:
            outside = marks.get_color() == module.BLUE
            ends = np.array([segment[:, 0] for segment in bars.get_segments()])
            assert np.all((ends.prod(axis=1) > 0) == outside)


def test_of_many_groups_some_are_drawn_evenly_from_the_least_to_the_largest(monkeypatch):
    monkeypatch.setattr(module, "MOST", 50)
    model = made(200, "y ~ x + (1 | g)")
    (axes,) = figure(model).axes
    shown = intervals(axes)[:, 1]
    effects = np.sort(model.random()[:, 0])
    assert len(shown) == 50
    assert (shown[0], shown[-1]) == (effects[0], effects[-1])
    places = np.searchsorted(effects, shown)
    assert set(np.diff(places)) <= {4, 5}
    assert axes.get_ylabel() == "g: 50 of 200"
    assert not axes.get_yticklabels()


def test_every_grouping_has_a_row_of_panels():
    model = made(20, "y ~ x + (1 + x | g) + (1 | h)")
    assert [axes.get_ylabel() for axes in figure(model).axes] == ["g", "g", "h"]
    assert [axes.get_ylabel() for axes in figure(model, "h").axes] == ["h"]
    with pytest.raises(ly.OptionError, match=r"no grouping 'k'.*g, h"):
        figure(model, "k")


@pytest.mark.parametrize("covariance", [0.0, 1e-30, 1e8])
def test_any_variance_can_be_drawn(tmp_path, covariance):
    rng = np.random.default_rng(1)
    data = {"y": rng.standard_normal(60), "g": np.arange(60) % 6}
    model = ly.mixed("y ~ 1 + (1 | g)", data, covariance=covariance, progress=False)
    assert caterpillar(model, tmp_path / "c.png").exists()


def test_a_model_that_was_saved_gives_the_same_file(tmp_path, model):
    first = caterpillar(model, tmp_path / "a.svg").read_bytes()
    model.save(tmp_path / "model")
    assert caterpillar(ly.load(tmp_path / "model"), tmp_path / "b.svg").read_bytes() == first


def test_names_are_no_formulas(tmp_path):
    model = made(20, "y ~ x + (1 | h)")
    path = caterpillar(model, tmp_path / "c.svg")
    assert ET.parse(path).getroot().tag.endswith("svg")
    (axes,) = figure(model).axes
    assert "$h_0$" in [label.get_text() for label in axes.get_yticklabels()]
