"""Bounds are never below the truth, which is computed in 60 digits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.engine.sweep import Engine
from leyden.solve.mixed import elimination
from leyden.solve.mixed.certify import Gradient, System
from leyden.solve.mixed.design import design
from leyden.solve.mixed.formula import parse
from leyden.solve.mixed.likelihood import Likelihood
from leyden.solve.mixed.model import _sums

from .models import exact_energy, table


def system(formula: str, data: pd.DataFrame, factors: list[np.ndarray], weight: str | None) -> tuple[Engine, System]:
    built = design(parse(formula), data, weight=weight, memory=10**9)
    engine = Engine(10**9)
    coordinates, sums = _sums(engine, built)
    widths, groups = [t.k for t in built.random], [len(t.groups) for t in built.random]
    likelihood = Likelihood(elimination.products(sums), sums["c"], coordinates, widths, groups, True)
    inner = [z @ f for z, f in zip(coordinates.z, factors, strict=False)]
    return engine, System(built, coordinates, likelihood, factors, likelihood.solve(inner))


@settings(max_examples=12)
@given(
    seed=st.integers(0, 1000),
    offset=st.sampled_from([0.0, 1e4, 1e8]),
    scale=st.sampled_from([1e-8, 1.0, 1e8]),
    spread=st.sampled_from([1e-6, 0.5, 1e4]),
    weights=st.sampled_from([None, 0, 6]),
    away=st.sampled_from([0.0, 1e-9, 1e-3]),
)
def test_the_energy_error_is_bounded_and_hardly_more(seed, offset, scale, spread, weights, away) -> None:
    data = table(seed, n=40, groups=6, others=3)
    data["x"] = scale * (data.x + offset)
    rng = np.random.default_rng(seed)
    data["w"] = 10 ** (rng.uniform(-1, 1, len(data)) * (weights or 0))
    low = np.tril(rng.standard_normal((2, 2))) * spread
    low[1] /= np.abs(data.x).max()
    formula = "y ~ x + (1 + x | g) + (1 | s)"
    engine, own = system(formula, data, [low, np.array([[spread]])], None if weights is None else "w")
    found = own.coefficients()
    if away:
        found = own._of(found.beta * (1 + away), [v * (1 - away) for v in found.whitened])
    (gradient,) = engine.sweep(own.design.rows, [Gradient(own.design, found)], "gradient")
    assessed = own.assess(found, gradient, 1e-10)
    truth = exact_energy(own.design, own.factors, found)
    assert truth <= assessed.error
    better = exact_energy(own.design, own.factors, assessed.better)
    if np.isfinite(assessed.error):
        assert assessed.error <= 2 * truth + 1e-4 * abs(own.coordinates.r[-1, -1])
        assert better <= max(1e-3 * truth, 10 * assessed.error)


def test_coefficients_of_levels_are_certified_as_well(monkeypatch) -> None:
    monkeypatch.setattr("leyden.solve.mixed.design.WIDE", 3)
    data = table(5, n=60, groups=7, others=6)
    engine, own = system("y ~ x + s + (1 | g)", data, [np.array([[0.8]])], "w")
    assert own.design.wide
    found = own.coefficients()
    (gradient,) = engine.sweep(own.design.rows, [Gradient(own.design, found)], "gradient")
    assessed = own.assess(found, gradient, 1e-10)
    assert assessed.bounds["energy_error"].holds


def test_a_wrong_coefficient_is_found_out() -> None:
    engine, own = system("y ~ x + (1 | g)", table(2), [np.array([[1.0]])], None)
    found = own.coefficients()
    wrong = own._of(found.beta + np.array([0.0, 1e-3]), found.whitened)
    (gradient,) = engine.sweep(own.design.rows, [Gradient(own.design, wrong)], "gradient")
    bounds = own.assess(wrong, gradient, 1e-10).bounds
    assert not bounds["energy_error"].holds
    error = np.linalg.norm(wrong.beta - found.beta) / np.linalg.norm(wrong.beta)
    assert bounds["forward_error"].value >= error * (1 - 1e-6)


@pytest.mark.parametrize("n", [1, 7, 64])
def test_the_gradient_is_that_of_plain_sums(n: int) -> None:
    engine, own = system("y ~ x + c + (1 + x | g) + (1 | s)", table(n, n=100), [np.eye(2), np.eye(1)], "w")
    rng = np.random.default_rng(n)
    found = own._of(
        rng.standard_normal(own.design.p), [rng.standard_normal((len(t.groups), t.k)) for t in own.design.terms]
    )
    (gradient,) = engine.sweep(own.design.rows, [Gradient(own.design, found)], "gradient")
    block = own.design.rows.read(0, 100)
    rest = block.target[:, 0] - block.data[:, : own.design.p] @ found.beta
    for t, (term, u) in enumerate(zip(own.design.terms, found.effects, strict=True)):
        rest -= np.einsum("ij,ij->i", block.data[:, term.place], u[block.group[:, t]])
    expected = [block.data[:, : own.design.p].T @ (block.weight * rest)]
    for t, term in enumerate(own.design.terms):
        own_sums = np.zeros((len(term.groups), term.k))
        np.add.at(own_sums, block.group[:, t], block.data[:, term.place] * (block.weight * rest)[:, None])
        expected.append(own_sums.ravel())
    np.testing.assert_allclose(gradient["hi"] + gradient["lo"], np.concatenate(expected), rtol=1e-10, atol=1e-11)
