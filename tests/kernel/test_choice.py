"""Widths and scales that are chosen among: the best one is that of fits of their own, however passes are shared."""

from __future__ import annotations

import numpy as np
import pytest

import leyden as ly
from leyden.kernel import machine

WIDTHS, SCALES = [0.3, "median"], [1.0, 4.0]
PENALTIES = [1e-2, 1e-5]


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (1200, 2))
    return x, np.sin(4 * x[:, 0]) * x[:, 1] + 0.1 * rng.standard_normal(1200)


def fit(problem, **options):
    return ly.kernel_machine(*problem, **{"features": 80, "regularization": PENALTIES, "held_out": 0.2} | options)


@pytest.mark.parametrize("folds", [0, 3])
@pytest.mark.parametrize("together", [1, 3, 4])
def test_the_kernel_with_the_least_error_of_all_is_taken_and_certified(problem, monkeypatch, together, folds):
    alone = [
        fit(problem, width=width, scale=scale, folds=folds, method="gram", tol=1e-6)
        for width in WIDTHS
        for scale in SCALES
    ]  # fmt: skip
    monkeypatch.setattr(machine, "together_of", lambda rows, options: min(together, options.choices))
    found = fit(problem, widths=WIDTHS, scale=SCALES, folds=folds, method="gram", tol=1e-6)
    passes = [one.name for one in found.trace.passes]
    assert sum(name.startswith("Gram") for name in passes) == -(-4 // together)
    assert sum("certificate" in name or name == "gradient" for name in passes) <= 3
    assert np.allclose(found.path[:, 1], np.concatenate([one.path[:, 1] for one in alone]), rtol=1e-4)
    assert found.path[:, 2:].tolist() == [[s, w] for w in range(2) for s in SCALES for _ in PENALTIES]
    best = alone[found.path[:, 1].argmin() // len(PENALTIES)]
    assert found.regularization == best.regularization
    assert np.array_equal(found.kernel.width, best.kernel.width)
    assert found.certificate.holds
    assert np.allclose(found.predict(problem[0]), best.predict(problem[0]), atol=1e-3)


def test_conjugate_gradients_choose_alike(problem):
    by_gram = fit(problem, widths=WIDTHS, scale=SCALES, method="gram", tol=1e-8)
    by_steps = fit(problem, widths=WIDTHS, scale=SCALES, method="cg", tol=1e-8)
    assert np.allclose(by_gram.path, by_steps.path, rtol=1e-3)
    assert np.array_equal(by_gram.kernel.width, by_steps.kernel.width)


def test_widths_that_the_fitted_rows_choose_are_not_given(problem):
    options = {"widths": [0.5, 1.0], "standardize": False, "method": "gram"}
    assert fit(problem, **options).given
    assert not fit(problem, **options, folds=3).given


def test_as_many_gram_matrices_share_a_pass_as_fit_the_memory(problem):
    x, y = problem
    one = ly.plan.kernel_machine(x, y, features=2000, method="gram", memory="20GB")
    four = ly.plan.kernel_machine(x, y, features=2000, scale=[1.0, 2.0, 3.0, 4.0], method="gram", memory="20GB")
    tight = ly.plan.kernel_machine(
        x, y, features=2000, scale=[1.0, 2.0, 3.0, 4.0], method="gram", memory=int(one.peak + 1.5 * 8 * 2000**2)
    )
    assert sum("Gram" in one.name for one in four.passes) == 1
    assert sum("Gram" in one.name for one in tight.passes) > 1
    assert tight.peak <= tight.memory
