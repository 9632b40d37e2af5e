"""Whatever way groups are eliminated, the likelihood and its gradient are the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.engine.sweep import Engine
from leyden.solve.mixed import elimination
from leyden.solve.mixed.design import design
from leyden.solve.mixed.estimate import Covariance, Objective
from leyden.solve.mixed.formula import parse
from leyden.solve.mixed.likelihood import Likelihood
from leyden.solve.mixed.model import _sums

from .models import table

FORMULAS = [
    "y ~ x + (1 | g)",
    "y ~ x + c + (1 + x | g)",
    "y ~ 0 + c + (1 + x || g) + (1 | s)",
    "y ~ x + (1 | g) + (1 + x | s)",
    "y ~ x + (1 | s/g)",
]


def likelihood(formula: str, data, *, restricted: bool, weight: str | None = None) -> tuple:
    built = design(parse(formula), data, weight=weight, memory=10**9)
    coordinates, sums = _sums(Engine(10**9), built)
    widths, groups = [t.k for t in built.random], [len(t.groups) for t in built.random]
    found = Likelihood(elimination.products(sums), sums["c"], coordinates, widths, groups, restricted)
    covariances = [
        Covariance(t.blocks, np.linalg.norm(z, axis=0), z) for t, z in zip(built.random, coordinates.z, strict=False)
    ]
    return built, found, Objective(found, covariances)


def somewhere(objective: Objective, seed: int) -> np.ndarray:
    start = np.concatenate([c.start() for c in objective.covariances])
    return start + 0.5 * np.random.default_rng(seed).standard_normal(len(start))


@pytest.mark.parametrize("restricted", [True, False])
@pytest.mark.parametrize("formula", FORMULAS)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**32))
def test_its_gradient_is_its_derivative(formula: str, restricted: bool, seed: int) -> None:
    _, _, objective = likelihood(formula, table(seed % 7), restricted=restricted, weight="w")
    theta = somewhere(objective, seed)
    _, gradient = objective.both(theta)
    h = 1e-5
    steps = h * np.eye(len(theta))
    by_differences = [(objective.value(theta + s) - objective.value(theta - s)) / (2 * h) for s in steps]
    np.testing.assert_allclose(gradient, by_differences, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("formula", ["y ~ x + (1 | g) + (1 | s)", "y ~ x + c + s + (1 + x | g)"])
def test_cells_and_whole_products_say_the_same(formula: str, monkeypatch) -> None:
    data = table(3, n=900, groups=90, others=80)
    monkeypatch.setattr("leyden.solve.mixed.design.WIDE", 20)
    found = {}
    for kind, least in (("cells", 1), ("whole", 10**9)):
        monkeypatch.setattr("leyden.solve.mixed.design.SPARSE_FROM", least)
        _, own, objective = likelihood(formula, data, restricted=True)
        assert isinstance(own.products, elimination.Sparse) == (kind == "cells")
        theta = somewhere(objective, 1)
        value, gradient = objective.both(theta)
        factor = objective.inner(theta)[0]
        rng = np.random.default_rng(0)
        x, rows = (
            rng.standard_normal(own.products.shared - 1),
            rng.standard_normal((own.products.groups, own.products.k)),
        )
        form = rng.standard_normal((len(x), len(x)))
        found[kind] = [
            value, gradient, own.products.times(x), own.products.gathered(rows), own.products.target,
            own.products.quadratic(form + form.T), own.products.shrunk(factor),
        ]  # fmt: skip
    for a, b in zip(found["cells"], found["whole"], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_groups_that_are_alike_are_taken_together_to_the_same_end() -> None:
    _, own, objective = likelihood("y ~ x + (1 | g)", table(1, n=4000, groups=400), restricted=True)
    assert isinstance(own.products, elimination.Alike)
    apart = elimination.Dense(own.products.a, own.products.b)
    for theta in (np.array([0.0]), np.array([0.3]), np.array([40.0])):
        factor = objective.inner(theta)[0]
        for a, b in zip(own.products.eliminated(factor), apart.eliminated(factor), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)
        phi = np.random.default_rng(0).standard_normal((own.products.shared,) * 2)
        np.testing.assert_allclose(
            own.products.slope(factor, phi + phi.T), apart.slope(factor, phi + phi.T), rtol=1e-9, atol=1e-9
        )
