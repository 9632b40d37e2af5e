"""Convergence plots: the epochs of the run, and the bound that was certified."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

import leyden as ly
from leyden.report.convergence import CLOSE, convergence, figure


@pytest.fixture(scope="module")
def ratings():
    random = np.random.default_rng(0)
    u, v = random.standard_normal((200, 3)), random.standard_normal((40, 3))
    return csr_array(np.where(random.random((200, 40)) < 0.5, u @ v.T, 0))


def line(axes, label):
    (found,) = (line for line in axes.lines if label in str(line.get_label()))
    return np.asarray(found.get_xdata()), np.asarray(found.get_ydata())


def test_shows_every_epoch_that_was_kept_and_the_certified_lower_bound(ratings):
    found = ly.als(ratings, 2, 5.0)
    axes = figure(found).axes[0]
    assert found.certificate.duality_gap > CLOSE
    epochs, objective = line(axes, "after an epoch")
    kept = [(n, h["after"]) for n, h in enumerate(found.history, 1) if "taken_back" not in h]
    np.testing.assert_array_equal(np.column_stack([epochs, objective]), kept)
    _, lower = line(axes, "lower bound")
    assert set(lower) == {found.certificate.bounds["objective"].lower}
    assert axes.get_yscale() == "linear"


def test_where_the_gap_is_small_the_distance_to_the_bound_is_shown(ratings):
    found = ly.als(ratings, "auto", 5.0)
    axes = figure(found).axes[0]
    bound, gap = found.certificate.bounds["objective"], found.certificate.duality_gap
    assert gap < CLOSE
    assert axes.get_yscale() == "log"
    _, height = line(axes, "after an epoch")
    np.testing.assert_allclose(height[0], (found.history[0]["after"] - bound.lower) / bound.value)
    _, certified = line(axes, "gap is at most")
    np.testing.assert_allclose(certified, gap, rtol=1e-6)


def test_epochs_on_a_part_of_the_users_are_not_shown(ratings):
    found = ly.als(ratings, 2, 5.0)
    found.history = [{**found.history[0], "users": 10.0}, *found.history[1:]]
    epochs, _ = line(figure(found).axes[0], "after an epoch")
    assert epochs[0] == 2


def test_extrapolations_that_were_taken_back_are_told_apart(ratings):
    found = ly.als(ratings, 2, 5.0)
    found.history = [found.history[0], {**found.history[1], "taken_back": 1.0}, *found.history[2:]]
    epochs, _ = line(figure(found).axes[0], "taken back")
    assert 2 in epochs


@pytest.mark.parametrize("epochs", [1, 100])
def test_says_what_is_shown(tmp_path, ratings, epochs):
    found = ly.als(ratings, 2, 5.0, epochs=epochs)
    axes = figure(found).axes[0]
    assert axes.get_title(loc="left") == "Convergence"
    assert "200 users × 40 items" in axes.texts[0].get_text()
    assert axes.get_xlabel() == "epoch"
    assert "objective" in axes.get_ylabel()
    assert ET.parse(convergence(found, tmp_path / "c.svg")).getroot().tag.endswith("svg")


def test_an_objective_of_zero_can_be_drawn(tmp_path, ratings):
    found = ly.als(ratings, 2, 1e6)
    bounds = {name: replace(bound, value=0.0, lower=0.0) for name, bound in found.certificate.bounds.items()}
    found.certificate = replace(found.certificate, bounds=bounds)
    assert convergence(found, tmp_path / "c.svg").exists()
