"""Kernel machines against dense algebra, and their certificates against the truth."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.linalg as sl
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

import leyden as ly
from leyden.errors import BudgetError, DataError, OptionError
from leyden.kernel import generalisation, preconditioner
from leyden.kernel.kernels import Kernel
from leyden.kernel.losses import LOSSES
from leyden.kernel.preconditioner import Factored, Shifted, Woodbury, cholesky
from leyden.kernel.products import Features, Gram, Targets
from leyden.kernel.split import folds_of
from leyden.kernel.widths import _Draws, learn

N, D = 900, 60


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, 4)) * [1, 10, 0.1, 3] + [0, 5, 100, 0]
    y = np.sin(2 * x[:, 0]) + 0.05 * x[:, 1] + 0.1 * rng.standard_normal(N)
    return x, y


def features_of(machine, x):
    return machine.map(machine.standard(x)).astype(float)


def objective(machine, x, y, w):
    f = machine.targets.offset + features_of(machine, x) @ w
    penalty = machine.regularization * machine.weight
    return LOSSES[machine.loss].value(f, y).sum(axis=0) + 0.5 * penalty * (w * w).sum(axis=0)


@pytest.mark.parametrize("method", ["cg", "gram"])
@pytest.mark.parametrize("penalty", [1e-2, 1e-6])
def test_the_squared_loss_is_minimised(problem, method, penalty):
    x, y = problem
    y = np.stack([y, x[:, 3]], axis=1)
    found = ly.kernel_machine(x, y, features=D, regularization=penalty, method=method, held_out=0, tol=1e-6)
    z = features_of(found, x)
    best = np.linalg.solve(z.T @ z + penalty * N * np.eye(D), z.T @ (y - y.mean(axis=0)))
    least, value = objective(found, x, y, best), objective(found, x, y, found.w)
    assert found.certificate.holds
    assert np.all(value >= least * (1 - 1e-12))
    assert ((value - least) / value).max() <= found.certificate.duality_gap <= 1e-6
    error = np.abs(found.predict(x) - y.mean(axis=0) - z @ best)
    assert error.max() <= found.certificate.bounds["score_error"].value * (1 + 1e-6) + 1e-6
    assert np.sqrt((error**2).mean(axis=0)).max() <= found.certificate.bounds["fitted_error"].value + 1e-6


@pytest.mark.parametrize("loss", ["logistic", "squared_hinge"])
@pytest.mark.parametrize("classes", [2, 3])
def test_losses_of_classes_are_minimised(problem, loss, classes):
    x, y = problem
    labels = np.digitize(y, np.quantile(y, np.arange(1, classes) / classes)) * 10
    found = ly.kernel_machine(
        x, labels, classify=True, loss=loss, features=D, regularization=1e-3, held_out=0, tol=1e-4
    )
    assert found.classes.tolist() == sorted(set(labels))
    columns = found.classes[1:] if classes == 2 else found.classes
    signs = np.where(labels[:, None] == columns, 1.0, -1.0)
    value, z = objective(found, x, signs, found.w), features_of(found, x)
    for k in range(len(columns)):
        y_k = signs[:, k]

        def at(w, y_k=y_k):
            f = z @ w
            slope = LOSSES[loss].slope(f, y_k)
            return LOSSES[loss].value(f, y_k).sum() + 0.5 * N * 1e-3 * w @ w, z.T @ slope + N * 1e-3 * w

        least = minimize(at, found.w[:, k], jac=True, method="L-BFGS-B", options={"gtol": 1e-9, "ftol": 1e-15}).fun
        assert value[k] - least * (1 - 1e-9) + 1e-9 >= 0
        assert (value[k] - least) / value[k] <= found.certificate.duality_gap
    assert found.certificate.holds
    assert np.mean(found.predict(x) == labels) > 1.3 / classes


def test_the_gap_of_a_sample_is_never_below_the_truth(problem):
    x, y = problem
    rng = np.random.default_rng(1)
    for seed in range(5):
        found = ly.kernel_machine(x, y, features=D, method="cg", held_out=0, tol=0.3, regularization=1e-7, seed=seed)
        z = features_of(found, x)
        best = np.linalg.solve(z.T @ z + 1e-7 * N * np.eye(D), z.T @ (y - y.mean())[:, None])
        value, least = objective(found, x, y[:, None], found.w), objective(found, x, y[:, None], best)
        assert ((value - least) / value).max() <= found.certificate.duality_gap
        s = z[rng.permutation(N)[:50]].astype(np.float32)
        g = rng.standard_normal((D, 1))
        divide = Factored(s, 1.0, np.array([0.1]), 2)
        assert divide.below
        truth = g.T @ np.linalg.solve(z.T @ z + 0.1 * np.eye(D), g)
        assert truth <= (g * divide(g, np.zeros(1, int))).sum() * (1 + 1e-9)


@given(st.integers(1, 10**10), st.integers(1, 10**6))
def test_a_sample_is_no_more_work_than_some_passes(n, size):
    rows = preconditioner.sampled(n, size)
    assert 1 <= rows <= min(n, preconditioner.SAMPLED * size)
    assert rows * min(rows, size) <= preconditioner.WORTH * n
    assert rows >= size or rows <= preconditioner.MOST_SAMPLED


def test_a_small_sample_that_is_not_scaled_up_leaves_the_better_condition():
    rng = np.random.default_rng(0)
    n, size, s, penalty = 2000, 200, 50, 0.01
    z = rng.standard_normal((n, size)) / np.arange(1, size + 1)  # the 50 rows tell little of most directions
    hessian, part = z.T @ z + penalty * np.eye(size), z[:s].T @ z[:s]

    def condition(m):
        spectrum = sl.eigh(hessian, m + penalty * np.eye(size), eigvals_only=True)
        return spectrum[-1] / spectrum[0]

    assert 3 * condition(part) < condition(n / s * part) < condition(0 * part)


def test_preconditioners_are_the_same_matrix(monkeypatch):
    rng = np.random.default_rng(0)
    s, r = rng.standard_normal((30, 50)).astype(np.float32), rng.standard_normal((50, 3))
    penalties, which = np.array([0.5, 3.0]), np.array([0, 1, 0])
    gram = 4 * s.astype(float).T @ s
    exact = np.stack([np.linalg.solve(gram + penalties[p] * np.eye(50), r[:, k]) for k, p in enumerate(which)], axis=1)
    for divide in (
        Factored(s, 4.0, penalties, 2), Woodbury(s, 4.0, penalties, 2), Shifted(np.tril(gram), penalties),
    ):  # fmt: skip
        assert np.allclose(divide(r, which), exact, rtol=1e-9)
    with monkeypatch.context() as change:
        change.setattr(preconditioner, "MOST_FACTORED", 1)
        assert np.allclose(Woodbury(s, 4.0, penalties, 2)(r, which), exact, rtol=1e-9)
    assert np.allclose(Woodbury(s, 4.0, penalties[:1], 2)(r, 0 * which)[:, 0], exact[:, 0])
    shifted = Shifted(np.tril(gram), penalties)
    for number, penalty in enumerate(penalties):
        freedom = np.trace(gram @ np.linalg.inv(gram + penalty * np.eye(50)))
        assert shifted.freedom(number) == pytest.approx(freedom)


def test_matrices_that_are_not_positive_are_raised_and_those_of_nan_refused():
    a = np.diag([1.0, -1e-20, 0.0])
    (factor, _), added = cholesky(a.copy(), 0.0)
    assert 0 < added < 1e-10
    assert np.allclose(np.tril(factor) @ np.tril(factor).T, np.diag([1.0, 0.0, 0.0]), atol=1e-10)
    assert cholesky(np.zeros((2, 2)), 0.0)[1] > 0
    with pytest.raises(np.linalg.LinAlgError, match="not finite"):
        cholesky(np.full((2, 2), np.nan), 0.0)


def test_cross_validation_from_sums_is_that_of_fits(problem):
    x, y = problem
    found = ly.kernel_machine(x, y, features=D, regularization=[1e-5, 1e-3, 1e-1], folds=4, held_out=0)
    z, y0 = features_of(found, x), (y - y.mean())[:, None]
    fold = folds_of(ly.open(x).read(0, N), 4, 0)
    errors = []
    for penalty in (1e-1, 1e-3, 1e-5):
        total = 0.0
        for k in range(4):
            a, b = z[fold != k], z[fold == k]
            w = np.linalg.solve(a.T @ a + penalty * len(a) * np.eye(D), a.T @ y0[fold != k])
            total += ((b @ w - y0[fold == k]) ** 2).sum()
        errors.append(total / (y0**2).sum())
    assert np.allclose(found.path[:, 1], errors, rtol=1e-4)
    assert found.regularization == found.path[np.argmin(errors), 0]


def test_rows_of_weight_two_are_rows_twice(problem):
    x, y = problem
    weights = np.ones(N)
    weights[:100] = 2
    one = ly.kernel_machine(x, y, features=D, width=3.0, standardize=False, held_out=0, weights=weights, tol=1e-8)
    two = ly.kernel_machine(
        np.concatenate([x, x[:100]]), np.append(y, y[:100]), features=D, width=3.0, standardize=False, held_out=0,
        tol=1e-8,
    )  # fmt: skip
    assert np.allclose(one.predict(x), two.predict(x), atol=1e-3)


@pytest.mark.parametrize(("outputs", "threads"), [(1, 1), (1, 3), (2, 1), (2, 3)])
def test_the_derivative_by_widths_is_that_of_differences(outputs, threads):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 3)).astype(np.float32)
    y = np.sin(2 * x[:, :outputs]).astype(float)
    draws, a, b = _Draws(Kernel("gaussian"), 3, threads), np.arange(200), np.arange(200, 400)
    state = np.array([0.1, -0.2, 0.3, np.log(1e-2)])
    _, gradient = draws.gradient(state, x, y, a, b, 40, 0)
    for k in range(4):
        step = np.zeros(4)
        step[k] = 1e-2
        up, down = (draws.gradient(state + s * step, x, y, a, b, 40, 0)[0] for s in (1, -1))
        assert gradient[k] == pytest.approx((up - down) / 4e-2, rel=0.02, abs=2e-5)


def test_learned_widths_do_not_depend_on_the_number_of_threads():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 3)).astype(np.float32)
    y = np.sin(3 * x[:, :1]).astype(float)
    one, three = (learn(Kernel("gaussian", 2.0), x, y, features=100, steps=6, threads=t).widths for t in (1, 3))
    assert np.allclose(one, three, rtol=1e-5)


def test_learned_widths_are_long_where_a_column_tells_nothing():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 5)).astype(np.float32)
    found = learn(Kernel("gaussian", 3.0), x, np.sin(3 * x[:, :1]).astype(float), features=200, steps=40)
    assert found.widths[1:].min() > 4 * found.widths[0]
    assert found.after < 0.5 * found.before


def test_the_same_seed_gives_the_same_bits_whatever_the_threads(problem):
    x, y = problem
    for method in ("cg", "gram"):
        one, two = (
            ly.kernel_machine(x, y, features=D, seed=3, threads=threads, method=method, memory="1GB")
            for threads in (1, 2)
        )
        assert np.array_equal(one.w, two.w)


def test_arrays_sparse_matrices_and_files_give_the_same_machine(problem, tmp_path):
    x, y = problem
    x = np.where(x > 0, x, 0)
    np.save(tmp_path / "x.npy", x)
    options = {"features": D, "standardize": False, "width": 5.0, "tol": 1e-8}
    found = [ly.kernel_machine(data, y, **options).predict(x) for data in (x, sp.csr_array(x), str(tmp_path / "x.npy"))]
    assert np.allclose(found[0], found[1], atol=1e-4)
    assert np.array_equal(found[0], found[2])


def test_a_machine_is_saved_and_verified(problem, tmp_path):
    x, y = problem
    found = ly.kernel_machine(x, y, features=D)
    found.save(tmp_path / "machine")
    again = ly.load(tmp_path / "machine")
    assert np.array_equal(again.predict(x), found.predict(x))
    assert ly.verify(again, x, y).holds
    assert ly.verify(tmp_path / "machine", x, y).holds
    assert not ly.verify(again, x, y + 0.1).holds
    assert not ly.verify(again, x[:-1], y[:-1]).holds
    again.w[3] += 0.1
    assert not ly.verify(again, x, y).holds
    document = json.loads((tmp_path / "machine" / "solution.json").read_text())
    document["certificate"]["bounds"]["duality_gap"]["value"] /= 100
    (tmp_path / "machine" / "solution.json").write_text(json.dumps(document))
    assert not ly.verify(tmp_path / "machine", x, y).holds


def test_rows_held_out_are_not_fitted(problem):
    x, y = problem
    found = ly.kernel_machine(x, y, features=D, held_out=0.3)
    assert found.weight + len(found.scores) == N
    wild = y.copy()
    split = found.split.rows_fitted(ly.open(x).read(0, N))
    wild[~split] += 1e6
    assert np.array_equal(ly.kernel_machine(x, wild, features=D, held_out=0.3).w, found.w)


def test_the_binomial_bound_is_exact():
    from scipy.stats import binom

    p = generalisation.binomial_bound(7, 200, 0.01)
    assert binom.cdf(7, 200, p) == pytest.approx(0.01)
    assert generalisation.binomial_bound(5, 5, 0.01) == 1.0


def test_intervals_cover_what_they_say(problem):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((6000, 1))
    y = x[:, 0] + rng.standard_exponential(6000)
    found = ly.kernel_machine(x[:3000], y[:3000], features=D, held_out=0.3)
    inside = found.interval(x[3000:], confidence=0.8)
    covered = np.mean((inside[:, 0] <= y[3000:]) & (y[3000:] <= inside[:, 1]))
    assert 0.75 < covered < 0.85


def test_probabilities_are_calibrated():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8000, 2))
    p = 1 / (1 + np.exp(-2 * x[:, 0]))
    y = (rng.random(8000) < p).astype(int)
    found = ly.kernel_machine(x, y, classify=True, loss="logistic", features=D, held_out=0.25, regularization=1e-3)
    proba = found.predict_proba(x)
    assert np.allclose(proba.sum(axis=1), 1)
    assert np.array_equal(proba.argmax(axis=1), found.predict(x))
    assert np.abs(proba[:, 1] - p).mean() < 0.05


def test_the_kernel_error_is_bounded(problem):
    x, y = problem
    found = ly.kernel_machine(x, y, features=D)
    bound = found.kernel_error(x, pairs=5000)
    points = found.standard(x)
    z = found.map(points).astype(float)
    assert np.sqrt(((z @ z.T - found.kernel(points, points)) ** 2).mean()) <= bound.value


def test_the_kernel_error_is_that_of_pairs_of_all_rows(tmp_path):
    rng = np.random.default_rng(0)
    x = np.repeat(rng.standard_normal((10_000, 2)), [2] * 10_000, axis=0)
    found = ly.kernel_machine(x, x[:, 0], features=D, width=1.0, method="gram")
    np.save(tmp_path / "x.npy", x)
    bound = found.kernel_error(tmp_path / "x.npy")
    assert bound == found.kernel_error(x)
    points = found.standard(x)
    first, second = points[rng.integers(0, len(x), (2, 40_000))]
    z, zz = (found.map(part).astype(float) for part in (first, second))
    square = ((z * zz).sum(axis=1) - np.exp(-((first.astype(float) - second) ** 2).sum(axis=1) / 2)) ** 2
    assert np.sqrt(square.mean()) <= bound.value


def test_an_exact_machine_has_no_random_features(problem):
    x, y = problem
    with pytest.raises(ly.OptionError, match="an exact machine has no random features"):
        ly.kernel_machine(x[:200], y[:200], features="exact").kernel_error(x)


def test_scales_that_differ_are_said(problem):
    x, y = problem
    found = ly.kernel_machine(x * [1, 1000, 1, 1], y, features=D, standardize=False)
    assert any("x1" in remark and "standardize=True" in remark for remark in found.trace.remarks)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "positive"),
        ({"width": [1.0, 2.0]}, "2 widths for 4 columns"),
        ({"width": "wide"}, "median, learned"),
        ({"features": 7}, "pairs"),
        ({"features": 0}, "whole number"),
        ({"kernel": "linear"}, "not one of"),
        ({"loss": "logistic"}, "for classes"),
        ({"regularization": 0.0}, "positive"),
        ({"held_out": 1.0}, "no row to fit"),
        ({"regularization": [1e-3, 1e-4], "held_out": 0}, "held out"),
        ({"folds": 1}, "two folds"),
        ({"classify": True, "loss": "logistic", "method": "gram"}, "squared loss alone"),
    ],
)
def test_options_that_mean_nothing_are_refused_in_a_sentence(problem, options, message):
    x, y = problem
    with pytest.raises(OptionError, match=message):
        ly.kernel_machine(x, (y > 0).astype(int) if options.get("classify") else y, **options)


def test_data_that_cannot_be_fitted_is_refused_in_a_sentence(problem):
    x, y = problem
    with pytest.raises(DataError, match="one value only"):
        ly.kernel_machine(x, np.ones(N), classify=True)
    with pytest.raises(DataError, match="no class"):
        ly.kernel_machine(np.tile(x, (2, 1)), np.arange(2 * N), classify=True)
    with pytest.raises(OptionError, match="no target"):
        ly.kernel_machine(x)
    with pytest.raises(DataError, match="NaN"):
        ly.kernel_machine(np.where(x > 0, x, np.nan), y)
    with pytest.raises(BudgetError, match="too small"):
        ly.kernel_machine(x, y, features=20_000, memory="50MB")
    found = ly.kernel_machine(x, y, features=D)
    with pytest.raises(DataError, match="3 columns"):
        found.predict(x[:, :3])
    with pytest.raises(OptionError, match="no probabilities"):
        found.predict_proba(x)


def test_a_class_of_one_member_is_said(problem):
    x, y = problem
    labels = (y > 0).astype(int)
    labels[5] = 7
    found = ly.kernel_machine(x, labels, classify=True, features=D)
    assert any("class 7 has one member" in remark for remark in found.trace.remarks)


def test_sums_of_blocks_are_those_of_all_rows(problem):
    x, y = problem
    found = ly.kernel_machine(x, y, features=D, width=2.0)
    gram = Gram(Features(found.standard, found.map), Targets(np.zeros(1)), 2)
    state = gram.update(gram.start(), ly.open(x, target=y).read(0, N))
    z = features_of(found, x)
    assert np.allclose(np.tril(state.gram[0]), np.tril(z.T @ z), rtol=1e-5, atol=1e-4)
    assert np.allclose(state.cross[0][:, 0], z.T @ y, rtol=1e-4, atol=1e-3)
