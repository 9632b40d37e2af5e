"""The PAC-Bayes bound against errors that are known, and its parts against their definitions."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import leyden as ly
from leyden.kernel import pac_bayes


@settings(max_examples=200, deadline=None)
@given(q=st.floats(0, 1), most=st.floats(1e-8, 20))
def test_the_divergence_is_inverted_and_never_below(q, most):
    p = pac_bayes.inverse(q, most)
    assert q <= p <= 1
    if p < 1:
        with mpmath.workdps(50):
            a, b = mpmath.mpf(q), mpmath.mpf(p)
            exact = (a * mpmath.log(a / b) if q > 0 else 0) + ((1 - a) * mpmath.log((1 - a) / (1 - b)) if q < 1 else 0)
            assert exact >= most
        assert pac_bayes.divergence(q, max(p - 1e-9, q)) <= most + 1e-6


@pytest.mark.parametrize("outputs", [1, 3])
def test_tails_are_the_errors_of_weights_drawn_anew(outputs):
    rng = np.random.default_rng(outputs)
    z = np.column_stack([rng.standard_normal((50, 6)), np.ones(50)])
    w = rng.standard_normal((7, outputs))
    scores, right = z @ w, rng.integers(0, max(outputs, 2), 50)
    truths = np.where(right[:, None] == np.arange(outputs) + (outputs == 1), 1.0, -1.0)
    found = pac_bayes.tails(scores, truths, np.linalg.norm(z, axis=1), float(np.linalg.norm(w)))
    for number in (0, 2, 4):
        mean = pac_bayes.SCALES[number] * w / np.linalg.norm(w)
        drawn = np.einsum("ij,sjk->sik", z, mean + rng.standard_normal((4000, 7, outputs)))
        labels = (drawn[:, :, 0] > 0) if outputs == 1 else drawn.argmax(axis=2)
        wrong = (labels != right).sum(axis=1).mean()
        if outputs == 1:
            assert found[number] == pytest.approx(wrong, abs=0.3)
        else:
            assert wrong - 0.3 <= found[number] <= 2 * wrong + 0.3


@pytest.mark.parametrize(("classes", "noise"), [(2, 0.0), (2, 0.3), (3, 0.1)])
def test_the_bound_holds_over_draws_of_the_rows(classes, noise):
    options = {"classify": True, "features": 60, "width": 2.0, "standardize": False, "regularization": 1e-3}
    rng, margins = np.random.default_rng(0), []
    for _ in range(12):
        x = rng.standard_normal((9000, 2))
        y = np.digitize(x[:, 0], [0.0] if classes == 2 else [-0.7, 0.7])
        y = np.where(rng.random(len(y)) < noise, rng.integers(0, classes, len(y)), y)
        found = ly.kernel_machine(x[:3000], y[:3000], held_out=0, **options)
        bound = found.certificate.bounds.get("pac_bayes")
        margins.append(1.0 if bound is None else bound.value - found.error(x[3000:], y[3000:]))
    assert min(margins) > 0


def test_it_is_far_from_vacuous_on_an_easy_problem():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20_000, 2)) + 4 * rng.integers(0, 2, (20_000, 1))
    y = (x.sum(axis=1) > 4).astype(int)
    options = {"classify": True, "features": 50, "width": 6.0, "regularization": 1e-2, "held_out": 0}
    found = ly.kernel_machine(x, y, standardize=False, **options).certificate.bounds["pac_bayes"]
    assert found.value < 0.2
    assert found.grade == "probabilistic"
    assert found.confidence == 0.99


def test_features_made_from_the_rows_make_it_conditional_and_weights_undo_it(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5000, 2))
    y = (x[:, 0] > 0).astype(int)
    options = {"classify": True, "features": 50, "regularization": 1e-2}
    found = ly.kernel_machine(x, y, **options)
    assert found.certificate.bounds["pac_bayes"].grade == "conditional"
    found.save(tmp_path / "machine")
    assert ly.verify(tmp_path / "machine", x, y).holds
    assert "pac_bayes" not in ly.kernel_machine(x, y, weights=np.ones(5000), **options).certificate.bounds
    assert "pac_bayes" not in ly.kernel_machine(x, x[:, 0], features=50).certificate.bounds
