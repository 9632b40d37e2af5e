"""The certificate of a factorization: every figure against extended precision, every bound against the truth."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.engine.executor import as_executor
from leyden.engine.sweep import Engine
from leyden.factor.als_result import Model
from leyden.factor.deflation import deflation, leading, nothing
from leyden.factor.objective import Objective
from leyden.factor.optimality import Evaluation, gap, right_singular_vectors, seed_of
from leyden.factor.survey import survey
from leyden.rows.base import Block
from leyden.rows.sparse import CSRRows

_spec = importlib.util.spec_from_file_location("factored", Path(__file__).with_name("factored.py"))
factored = importlib.util.module_from_spec(_spec)
sys.modules["factored"] = factored
_spec.loader.exec_module(factored)

FORMULATIONS = sorted(factored.FORMULATIONS)
seeds = st.integers(0, 2**32)


class Case:
    """Ratings, item factors, and all that a certificate of them needs."""

    def __init__(self, a, options, v, threads=1, memory=2 * 10**8):
        options = dict(options)
        self.problem = factored.Problem(a, **options)
        self.biases = options.pop("biases", False)
        objective = Objective(**options, mean=self.problem.mean)
        self.a, self.v, self.rows = a, v, CSRRows(a)
        self.engine = Engine(memory, threads, 0, as_executor(None))
        seen = survey(self.engine, self.rows, objective)
        self.model = Model(objective, v, seen.item_counts, seen.most, a.shape[0], self.biases)
        self.penalties = self.model.user_penalties(seen.most), self.model.item_penalties

    @property
    def u(self):
        """Users, as anybody gets them."""
        return self.model.solve(self.rows.read(0, self.a.shape[0]).data)

    def evaluated(self, x=None):
        reduction = Evaluation(self.model.objective, self.v, *self.penalties, x, self.biases)
        (found,) = self.engine.sweep(self.rows, [reduction], "evaluated")
        return found

    def gap(self, **options):
        return gap(
            self.engine, self.rows, self.model.objective, self.v, *self.penalties, biases=self.biases, **options
        )  # fmt: skip


def case(seed, formulation, n=30, m=20, rank=3, epochs=0, regularization=0.5, density=0.4):
    """Item factors after some epochs from a random start."""
    rng = np.random.default_rng(seed)
    a, options, problem = factored.problem(rng, formulation, n, m, regularization, density)
    v = rng.standard_normal((m, rank + problem.biases)) / 2
    for _ in range(epochs):
        v = problem.items(problem.users(v))
    return Case(a, options, v)


# ---------------------------------------------------------------- what one pass finds


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("epochs", [0, 1, 30])
def test_the_objective_is_that_over_all_pairs(formulation, epochs):
    of = case(0, formulation, epochs=epochs)
    e, truth = of.evaluated(), of.problem.objective(of.u, of.v)
    assert abs(e.value - truth) <= e.rounding.value + 1e-15 * truth
    assert e.rounding.value < 1e-12 * truth


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_the_users_are_the_best_ones(formulation):
    of = case(1, formulation)
    assert np.allclose(of.u, of.problem.users(of.v), atol=1e-11)
    assert of.evaluated().left < 1e-12


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_the_gradient_is_the_slope_of_the_objective_over_all_pairs(formulation):
    of = case(2, formulation)
    e, problem = of.evaluated(), of.problem
    u, step = problem.users(e.v), np.longdouble(1e-7)
    rng = np.random.default_rng(0)
    for _ in range(10):
        direction = rng.standard_normal(e.v.shape)
        ahead, behind = (problem.objective(u, e.v + sign * step * direction) for sign in (1, -1))
        assert np.isclose(np.vdot(e.gradient, direction), float((ahead - behind) / (2 * step)), rtol=1e-7)


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_stationarity_is_the_length_of_the_scaled_gradient(formulation):
    of = case(3, formulation, epochs=2)
    e, problem = of.evaluated(), of.problem
    u = problem.users(of.v)
    nu, users = (p.astype(float) for p in (problem.item_penalties, problem.user_penalties))
    size = math.sqrt(float(nu @ (of.v**2).sum(axis=1) + users @ (u**2).sum(axis=1)))
    slope = math.sqrt(float(((e.gradient**2).sum(axis=1) / nu).sum()))
    assert np.isclose(e.norm, size)
    assert np.isclose(e.stationarity, slope / size, rtol=1e-10)


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_the_basis_of_right_singular_vectors_is_the_same_factorization(formulation):
    of = case(4, formulation, rank=6)
    e = of.evaluated()
    assert np.allclose(e.v[:, :6] @ e.v[:, :6].T, of.v[:, :6] @ of.v[:, :6].T, atol=1e-12)
    assert np.allclose(e.v[:, :6].T @ e.v[:, :6], np.diag((e.v[:, :6] ** 2).sum(axis=0)), atol=1e-12)
    assert (np.diff(np.linalg.norm(e.v[:, :6], axis=0)) <= 0).all()
    u = of.problem.users(e.v)
    assert np.allclose(e.weighted, (u[:, :6].T * of.problem.user_penalties.astype(float)) @ u[:, :6], atol=1e-11)


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("width", [1, 8, 13])
def test_the_image_of_a_block(formulation, width):
    of = case(5, formulation)
    x = np.random.default_rng(1).standard_normal((20, width))
    m = of.problem.scaled(of.problem.users(of.v), of.v).astype(float)
    assert np.allclose(of.evaluated(x).image, m.T @ (m @ x), atol=1e-11 * np.linalg.norm(m) ** 2)


@given(seeds, st.sampled_from(FORMULATIONS), st.floats(0.3, 3))
@settings(max_examples=60)
def test_the_dual_is_the_least_value_of_the_loss_with_a_slope(seed, formulation, norm):
    of = case(seed, formulation, n=9, m=7)
    e, problem, u = of.evaluated(), of.problem, of.u
    g = problem.residual(u, of.v)
    at = [problem.dual(g, np.longdouble(s)) for s in (0, 0.5, 1)]
    # A parabola through three points, and its top, if that is feasible.
    top = (3 * at[0] - 4 * at[1] + at[2]) / (4 * at[0] - 8 * at[1] + 4 * at[2])
    best = problem.dual(g, min(max(top, 0), 1 / np.longdouble(norm)))
    assert abs(e.dual(norm) - best) <= 1e-12 * (e.value + abs(e.linear))


@given(seeds, st.sampled_from(FORMULATIONS), st.integers(0, 20))
@settings(max_examples=60)
def test_the_dual_at_a_norm_that_is_one_is_below_every_factorization(seed, formulation, epochs):
    of = case(seed, formulation, n=9, m=7, epochs=epochs)
    truth = float(of.problem.norm(of.u, of.v))
    lower, rng = of.evaluated().dual(truth * (1 + 1e-12)), np.random.default_rng(seed)
    for scale in (1e-3, 0.3, 1.0):
        v = scale * rng.standard_normal((7, int(rng.integers(1, 9)) + of.biases))
        assert lower <= of.problem.objective(of.problem.users(v), v)
    assert lower <= of.problem.best(of.u, of.v) * (1 + 1e-15)


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_a_pass_in_segments_finds_the_same(formulation):
    of, x = case(6, formulation, n=200), np.random.default_rng(0).standard_normal((20, 3))
    reduction, whole = Evaluation(of.model.objective, of.v, *of.penalties, x, of.biases), of.evaluated(x)
    states = [reduction.start() for _ in range(3)]
    for k, (first, last) in enumerate([(0, 50), (50, 51), (51, 51), (51, 160), (160, 200)]):
        states[k % 3] = reduction.update(states[k % 3], Block(first, of.rows.read(first, last).data))
    found = reduction.finish(reduction.merge(reduction.merge(states[0], states[1]), states[2]))
    assert np.isclose(found.value, whole.value, rtol=1e-14)
    assert np.isclose(found.stationarity, whole.stationarity, rtol=1e-12)
    assert np.allclose(found.gradient, whole.gradient, atol=1e-10)
    assert np.allclose(found.image, whole.image, rtol=1e-10)


# ---------------------------------------------------------------- the norm of M


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_at_a_stationary_point_m_is_an_isometry_on_the_factors(formulation):
    of = case(7, formulation, epochs=600, rank=2)
    e, problem = of.evaluated(), of.problem
    assert e.stationarity < 1e-9
    root = np.sqrt(problem.item_penalties.astype(float))[:, None]
    s = np.linalg.qr(root * e.v[:, :2])[0]
    m = problem.scaled(problem.users(e.v), e.v).astype(float)
    assert np.allclose(np.linalg.svd(m @ s)[1], 1, atol=1e-8)
    assert np.allclose(m.T @ m @ s, s, atol=1e-8)


def known(of, e):
    root = np.sqrt(of.penalties[1])[:, None]
    rank = e.v.shape[1] - of.biases
    return deflation(
        root * e.v[:, :rank], e.gradient[:, :rank] / root, e.weighted, e.rounding.missing, e.rounding.gradient,
        e.rounding.gram,
    )  # fmt: skip


@given(seeds, st.sampled_from(FORMULATIONS), st.integers(0, 10))
@settings(max_examples=100)
def test_what_is_known_on_the_factors_bounds_the_truth(seed, formulation, epochs):
    of = case(seed, formulation, n=12, m=9, rank=4, epochs=epochs)
    e = of.evaluated()
    found, m = known(of, e), of.problem.scaled(of.u, of.v).astype(float)
    norm, (s, p) = float(np.linalg.norm(m, 2)), (found.s, found.s.shape[1])
    out = m - (m @ s) @ s.T
    inside = np.linalg.norm(m @ s, 2) if p else 0.0
    assert np.allclose(s.T @ s, np.eye(p), atol=1e-13)
    assert found.inside_least(norm) * (1 - 1e-12) <= inside <= found.inside(norm) * (1 + 1e-12)
    exact = m.T @ (m @ s)
    assert np.linalg.norm(exact - s @ (s.T @ exact)) / math.sqrt(max(p, 1)) <= found.coupling(norm) * (1 + 1e-9)
    assert np.linalg.norm(found.images - exact) <= 1e-9 * max(norm, 1) ** 2 + found.image_error(norm)
    outside = float(np.linalg.norm(out, 2)) ** 2
    assert norm <= found.norm(lambda _: outside) * (1 + 1e-12)


@given(seeds)
@settings(max_examples=200)
def test_a_matrix_in_two_parts_is_no_longer_than_the_two_by_two_bound(seed):
    rng = np.random.default_rng(seed)
    n, m = (int(k) for k in rng.integers(1, 12, 2))
    a = rng.standard_normal((n, m)) * 10.0 ** rng.uniform(-6, 6)
    s = np.linalg.qr(rng.standard_normal((m, int(rng.integers(1, m + 1)))))[0]
    image = a.T @ (a @ s)
    parts = [np.linalg.norm(x, 2) for x in (a @ s, image - s @ (s.T @ image), a - (a @ s) @ s.T)]
    assert np.linalg.norm(a, 2) ** 2 <= leading(parts[0] ** 2, parts[1], parts[2] ** 2) * (1 + 1e-12)


def test_errors_that_grow_with_the_norm_are_solved_for():
    found = nothing(3)
    for slope in (0.0, 1e-9, 1e-3, 0.4):
        norm = found.norm(lambda x, slope=slope: (1 + slope * x) ** 2)
        assert np.isclose(norm, 1 / (1 - slope), rtol=1e-6 if slope < 0.1 else 1)
        assert norm >= (1 + slope * norm) * (1 - 1e-15)
    assert found.norm(lambda x: 4 * x * x + 1) == math.inf
    assert found.norm(lambda _: math.inf) == math.inf
    assert found.norm(lambda _: 0.0) == 0


def hostile_factors(rng, problem, m, rank):
    """Factors that are long and short, dependent, zero, or nearly so, and perhaps improved by some epochs."""
    v = rng.standard_normal((m, rank))
    match rng.integers(7):
        case 1:
            v *= 10.0 ** -np.linspace(0, rng.uniform(1, 18), rank)
        case 2:
            v *= 10.0 ** rng.uniform(-160, 2)
        case 3:
            v = v[:, rng.integers(0, rank, rank)] + rng.choice([0, 1e-16, 1e-12, 1e-8, 1e-4]) * v
        case 4:
            v[:, rng.random(rank) < 0.7] = 0
        case 5:
            v[rng.random(m) < 0.8] = 0
        case 6:
            v = np.outer(v[:, 0], rng.standard_normal(rank)) + 1e-13 * v
    v = np.concatenate([v, rng.standard_normal((m, int(problem.biases)))], axis=1)
    for _ in range(int(rng.choice([0, 0, 1, 5, 40]))):
        v = problem.items(problem.users(v))
    return v.astype(np.float32).astype(float) if rng.random() < 0.3 else v


def hostile(rng):
    """Ratings and options that a certificate has to survive."""
    n, m = (int(rng.choice([1, 2, 3, 7, 20, 60])) for _ in range(2))
    a = factored.ratings(rng, n, m, float(rng.choice([0.05, 0.3, 1.0])), positive=True)
    match rng.integers(6):
        case 1:
            a.data += 10.0 ** rng.integers(1, 6)
        case 2:
            a.data[:] = 3.7
        case 3:
            a.data *= np.float32(10.0 ** rng.uniform(-12, 9))
        case 4:
            a = a[rng.integers(0, max(n // 3, 1), n)]
            if a.nnz == 0:
                a = sp.csr_array(np.ones((n, m), np.float32))
        case 5:
            a.data *= np.where(rng.random(a.nnz) < 0.5, -1, 1).astype(np.float32)
    options = {"regularization": float(10.0 ** (rng.uniform(-2, 1.5) if rng.random() < 0.7 else rng.uniform(-8, 4)))}
    options["scaling"] = float(rng.choice([0, 0, 0.5, 1, 2]))
    match rng.integers(4):
        case 1:
            options["biases"] = True
        case 2:
            a.data = np.abs(a.data)
            options |= {"implicit": True, "alpha": float(10.0 ** rng.uniform(-5, 3))}
        case 3:
            options |= {"implicit": True, "background": float(10.0 ** rng.uniform(-4, 1))}
    return sp.csr_array(a), options


@given(seeds)
@settings(max_examples=150)
def test_no_certificate_is_false(seed):
    rng = np.random.default_rng(seed)
    a, options = hostile(rng)
    problem = factored.Problem(a, **options)
    try:
        v = hostile_factors(rng, problem, a.shape[1], int(rng.choice([1, 2, 5, 17, 24])))
    except np.linalg.LinAlgError:
        return
    if not np.isfinite(v).all():
        return
    of = Case(a, options, v)
    found = of.gap(passes=int(rng.choice([1, 2, 5, 60])), seed=seed)
    if not math.isfinite(found.value):
        return
    e, u = found.evaluated, of.u
    value, norm = problem.objective(u, v), problem.norm(u, v)
    if not value > 1e-290:
        return
    assert abs(e.value - value) <= e.rounding.value + 1e-15 * value
    # M is that of the computed residuals: nobody can tell it from this one better than scores can be told.
    u_sizes, v_sizes = (np.linalg.norm(x, axis=1) for x in (u, v))
    scores = problem.weight * (np.abs(problem.target) + np.outer(u_sizes, v_sizes))
    scores /= np.sqrt(np.outer(problem.user_penalties, problem.item_penalties))
    assert norm <= found.norm * (1 + 1e-15) + 5e-16 * (v.shape[1] + 4) * np.linalg.norm(scores.astype(float))
    try:
        least = problem.best(u, v, 10)
    except np.linalg.LinAlgError:
        least = value
    assert e.dual(found.norm) <= least * (1 + 1e-16)
    assert value - least <= found.value * value + e.rounding.value
    g = problem.residual(u, v)
    s = np.linspace(0, 1 / max(float(norm), 1e-300), 50)
    true_gap = float((value - max(problem.dual(g, x) for x in s)) / value)
    assert found.least <= true_gap * (1 + 1e-9) + 1e-12


@given(seeds, st.sampled_from(FORMULATIONS), st.integers(3, 40), st.integers(1, 60))
@settings(max_examples=40)
def test_the_bound_outside_holds_for_any_number_of_passes(seed, formulation, m, passes):
    of = case(seed, formulation, n=35, m=m, rank=2, epochs=3)
    found = of.gap(passes=passes)
    truth = float(of.problem.norm(of.u, of.v))
    assert found.outside[0] <= truth * (1 + 1e-12)
    assert truth <= found.norm * (1 + 1e-12)
    if found.passes == passes > m / 16 + 2:
        assert found.norm <= truth * 1.01


@given(seeds, st.sampled_from(FORMULATIONS), st.integers(0, 3))
@settings(max_examples=40)
def test_sums_of_absolute_values_bound_the_norm_without_luck(seed, formulation, epochs):
    of = case(seed, formulation, n=35, m=30, rank=2, epochs=epochs)
    found = of.gap(passes=0)
    truth = float(of.problem.norm(of.u, of.v))
    assert truth <= found.evaluated.ceiling * (1 + 1e-12)
    assert found.norm <= found.evaluated.ceiling
    assert truth <= found.norm * (1 + 1e-12)
    assert found.confidence == 1
    assert found.passes == 1
    assert of.gap(passes=3).norm <= found.norm * (1 + 1e-12)


@given(seeds, st.sampled_from(FORMULATIONS))
@settings(max_examples=20)
def test_users_solved_in_float32_are_certified_as_they_are(seed, formulation):
    of = case(seed, formulation, n=35, m=30, rank=2, epochs=40)
    exact, found = of.gap(passes=0), of.gap(passes=0, dtype=np.float32)
    assert found.evaluated.value == pytest.approx(exact.evaluated.value, rel=1e-9)
    assert exact.evaluated.value <= found.evaluated.value + exact.evaluated.rounding.value
    assert 1e-10 < found.evaluated.left / found.evaluated.norm < 1e-4
    assert exact.evaluated.left < 1e-11 * found.evaluated.norm


def test_more_passes_bring_the_bound_down():
    of = case(8, "implicit", n=400, m=300, rank=4, epochs=60, density=0.1, regularization=60.0)
    found = of.gap(passes=12)
    assert found.history == sorted(found.history, reverse=True)
    assert found.history[-1] < 1e-6 < 1e-3 < found.history[0]


def test_without_any_factors_the_gap_is_that_of_predicting_nothing():
    of = case(9, "explicit", regularization=2.0)
    of.v[:] = 0
    found = of.gap(passes=60)
    truth = float(of.problem.norm(of.u, of.v))
    assert np.isclose(found.norm, truth, rtol=1e-3)
    assert found.directions.shape[1] == (np.linalg.svd(of.problem.scaled(of.u, of.v).astype(float))[1] > 1).sum()


def test_directions_outside_are_those_along_which_a_factor_helps():
    of = case(10, "explicit", rank=1, epochs=200)
    found = of.gap(passes=60)
    assert found.directions.shape[1] > 0
    nu = np.sqrt(of.problem.item_penalties.astype(float))
    before = of.problem.objective(of.u, of.v)
    for direction in found.directions.T:
        v = np.column_stack([of.v, 0.1 * direction / nu])
        assert of.problem.objective(of.problem.users(v), v) < before


def test_the_start_is_a_function_of_the_factors():
    v = np.random.default_rng(0).standard_normal((20, 3))
    other = v.copy()
    other[7, 1] = np.nextafter(other[7, 1], 9)
    assert len({seed_of(v, 0), seed_of(v, 1), seed_of(other, 0)}) == 3
    assert seed_of(np.asfortranarray(v), 5) == seed_of(v.copy(), 5) < 2**64


@pytest.mark.parametrize("shape", [(20, 3), (3, 20), (4, 4), (1, 1)])
def test_right_singular_vectors_are_a_basis(shape):
    v = np.random.default_rng(1).standard_normal(shape) * 10.0 ** -np.arange(shape[1])
    q = right_singular_vectors(v)
    assert np.allclose(q.T @ q, np.eye(shape[1]), atol=1e-14)
    sizes = np.linalg.norm(v @ q, axis=0)
    assert (np.diff(sizes) <= 1e-15).all()


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_factors_that_are_too_large_for_float64_have_no_gap(formulation):
    of = case(11, formulation)
    of.v *= 1e200
    assert not of.gap().value < 1
