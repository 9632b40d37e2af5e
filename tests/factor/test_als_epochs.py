"""An epoch is two exact half-steps, in memory or streamed, whatever it is cut into."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.engine.workshop import Workshop
from leyden.factor.acceleration import Anderson
from leyden.factor.half_step import Entries, padded
from leyden.factor.objective import Objective
from leyden.factor.resident import Resident
from leyden.factor.streamed import ItemStep
from leyden.rows.base import Block
from leyden.rows.sparse import CSRRows

_spec = importlib.util.spec_from_file_location("factored", Path(__file__).with_name("factored.py"))
factored = importlib.util.module_from_spec(_spec)
sys.modules["factored"] = factored
_spec.loader.exec_module(factored)


def objective_of(problem, options):
    return Objective(
        options["regularization"], options.get("scaling", 0.0), options.get("implicit", False),
        options.get("alpha", 1.0), background=options.get("background"), mean=problem.mean,
    )  # fmt: skip


def padded_factors(v, rank, biases, dtype):
    out = np.zeros((len(v), padded(rank + biases)), dtype)
    out[:, : v.shape[1]] = v
    return out


def case(seed, formulation, n=37, m=23, rank=4, density=0.4):
    rng = np.random.default_rng(seed)
    a, options, problem = factored.problem(rng, formulation, n, m, density=density)
    v = rng.standard_normal((m, rank + problem.biases)) / 2
    return a, objective_of(problem, options), problem, v


def resident(a, objective, v, biases, dtype=np.float64, threads=1):
    rank, factors = v.shape[1] - biases, padded_factors(v, v.shape[1] - biases, biases, dtype)
    step = Resident(
        Entries.of(a.indptr, a.indices, a.data), a.shape[1], objective, rank, np.dtype(dtype), threads, biases
    )
    found = step.epoch(factors)
    return factors[:, : v.shape[1]], found.before, found.after


def item_step(a, objective, v, biases, dtype=np.float64, **options):
    counts = np.diff(a.tocsc().indptr).astype(np.int64)
    users = objective.penalties(int(np.diff(a.indptr).max()), a.shape[1])
    items = objective.penalties(int(counts.max()), a.shape[0])[counts]
    rank = v.shape[1] - biases
    factors = padded_factors(v, rank, biases, dtype)
    return ItemStep(objective, factors, users, items, counts, rank if biases else -1, users=a.shape[0], **options)


def streamed(a, objective, v, biases, dtype=np.float64, cuts=(0, None), states=1, **options):
    """An epoch with users in blocks, and blocks in states that are merged."""
    step, rows = item_step(a, objective, v, biases, dtype, **options), CSRRows(a)
    edges = np.unique(np.minimum([0 if c is None else c for c in cuts[:-1]] + [a.shape[0]], a.shape[0]))
    folded = [step.start() for _ in range(states)]
    for k, (first, last) in enumerate(pairwise(edges)):
        at = k * states // (len(edges) - 1)
        folded[at] = step.update(folded[at], Block(int(first), rows.read(int(first), int(last)).data))
    total = folded[0]
    for other in folded[1:]:
        total = step.merge(total, other)
    found = step.finish(total)
    before = found.before + objective.shift(a.data)
    return found.v[:, : v.shape[1]], before, before - found.decrement


@pytest.mark.parametrize("formulation", factored.FORMULATIONS)
@pytest.mark.parametrize("how", [resident, streamed])
@pytest.mark.parametrize("shape", [(37, 23), (1, 9), (9, 1), (1, 1), (5, 90)])
def test_an_epoch_is_the_best_users_and_then_the_best_items(formulation, how, shape):
    a, objective, problem, v = case(0, formulation, *shape)
    found, before, after = how(a, objective, v, problem.biases)
    u = problem.users(v)
    best = problem.items(u)
    assert np.allclose(found, best, atol=1e-9 * np.abs(best).max())
    assert np.isclose(before, float(problem.objective(u, v)), rtol=1e-10)
    assert np.isclose(after, float(problem.objective(u, best)), rtol=1e-10)


@pytest.mark.parametrize("formulation", factored.FORMULATIONS)
def test_epochs_in_subspaces_tell_the_objective_lower_it_and_end_where_exact_ones_do(formulation):
    a, objective, problem, v = case(3, formulation, 90, 70, 40, density=0.7)
    rank, entries = 40, Entries.of(a.indptr, a.indices, a.data)
    ends = []
    for subspace in (16, 0):
        factors = padded_factors(v, rank, problem.biases, np.float64)
        step = Resident(entries, 70, objective, rank, np.dtype(np.float64), 2, problem.biases, subspace=subspace)
        before = np.inf
        for epoch in range(300):
            items = factors[:, : v.shape[1]].copy()
            found = step.epoch(factors)
            assert found.after <= found.before * (1 + 1e-12) <= before * (1 + 3e-12)
            before = found.after
            if epoch < 3:
                # Users as the epoch left them, in the basis of the items.
                users = (step.u @ step.basis.T)[:, : v.shape[1]]
                assert np.isclose(found.before, float(problem.objective(users, items)), rtol=1e-9)
                assert np.isclose(found.after, float(problem.objective(users, factors[:, : v.shape[1]])), rtol=1e-9)
        ends.append(found.after)
    assert np.isclose(ends[0], ends[1], rtol=1e-3)


@given(st.integers(0, 2**32), st.sampled_from(sorted(factored.FORMULATIONS)))
@settings(max_examples=60)
def test_streamed_epochs_are_those_in_memory_whatever_they_are_cut_into(seed, formulation):
    rng = np.random.default_rng(seed)
    n, m, rank = (int(k) for k in rng.integers(1, [60, 40, 20]))
    a, objective, problem, v = case(seed, formulation, n, m, rank, density=float(rng.choice([0.05, 0.3, 1.0])))
    cuts = sorted(rng.integers(0, n + 1, 4).tolist())
    here = resident(a, objective, v, problem.biases)
    there = streamed(a, objective, v, problem.biases, cuts=(0, *cuts, None), states=int(rng.integers(1, 4)))
    assert np.allclose(here[0], there[0], atol=1e-8 * max(np.abs(here[0]).max(), 1e-3))
    assert np.allclose(here[1:], there[1:], rtol=1e-9)


@pytest.mark.parametrize("formulation", factored.FORMULATIONS)
@pytest.mark.parametrize("how", [resident, streamed])
def test_float32_agrees_to_its_digits(formulation, how):
    a, objective, problem, v = case(1, formulation, 200, 80, 8)
    double, single = (how(a, objective, v, problem.biases, dtype) for dtype in (np.float64, np.float32))
    assert np.abs(double[0] - single[0]).max() < 1e-4 * np.abs(double[0]).max()
    assert np.allclose(double[1:], single[1:], rtol=1e-5)


@pytest.mark.parametrize("formulation", factored.FORMULATIONS)
def test_items_in_several_passes_are_those_of_one(formulation):
    a, objective, problem, v = case(2, formulation)
    whole = streamed(a, objective, v, problem.biases)
    parts = [streamed(a, objective, v, problem.biases, span=span) for span in ((0, 9), (9, 10), (10, 23))]
    assert np.allclose(np.concatenate([part[0] for part in parts]), whole[0], atol=1e-12)
    assert np.isclose(sum(part[1] - part[2] for part in parts), whole[1] - whole[2], rtol=1e-12)


@pytest.mark.parametrize("formulation", factored.FORMULATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_do_not_change_a_bit_of_an_epoch(formulation, dtype):
    a, objective, problem, v = case(3, formulation, 400, 60, 20)
    found = [resident(a, objective, v, problem.biases, dtype, threads) for threads in (1, 2, 3)]
    found += [streamed(a, objective, v, problem.biases, dtype, workshop=Workshop(threads)) for threads in (1, 2, 3)]
    for one, others in ((found[0], found[1:3]), (found[3], found[4:])):
        for other in others:
            assert (one[0] == other[0]).all()
            assert one[1:] == other[1:]


@pytest.mark.parametrize("method", [resident, streamed])
@pytest.mark.parametrize("background", [None, 0.2])
def test_a_row_of_users_without_ratings_changes_nothing_but_their_number(method, background):
    a, _, _, v = case(4, "explicit")
    a = abs(a)
    objective = Objective(0.5, implicit=background is not None, background=background)
    empty = type(a)((a.shape[0] + 3, a.shape[1]), dtype=a.dtype)
    empty.indptr, empty.indices, empty.data = np.r_[a.indptr, [a.nnz] * 3], a.indices, a.data
    assert np.allclose(method(a, objective, v, False)[0], method(empty, objective, v, False)[0], atol=1e-12)


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nonnegative_epochs_agree_and_descend(implicit, dtype):
    a, objective, problem, v = case(5, "background" if implicit else "explicit", 60, 30, 5)
    a = abs(a)
    problem = factored.Problem(a, 0.5, implicit=implicit, background=0.3 if implicit else None)
    objective, v = (
        objective_of(problem, {"regularization": 0.5, "implicit": implicit, "background": 0.3 if implicit else None}),
        abs(v),
    )
    here = padded_factors(v, 5, False, dtype)
    step = Resident(Entries.of(a.indptr, a.indices, a.data), 30, objective, 5, np.dtype(dtype), 1, nonnegative=True)
    found = step.epoch(here)
    there = streamed(a, objective, v, False, dtype, nonnegative=True)
    rounding = 1e-6 if dtype == np.float64 else 1e-2
    assert np.allclose(here[:, :5], there[0], atol=rounding * np.abs(there[0]).max())
    assert (here >= 0).all()
    assert np.isclose(found.before, there[1], rtol=rounding)
    assert np.isclose(found.after, there[2], rtol=rounding)
    assert found.after < found.before
    assert np.isclose(found.after, float(problem.objective(step.u[:, :5], here[:, :5])), rtol=rounding)


def test_memory_is_not_shared_between_factors_of_other_widths_and_types():
    shop = Workshop(2)
    for dtype in (np.float32, np.float64, np.float32):
        for rank in (3, 40, 17, 90):
            a, objective, _, v = case(6, "implicit", 120, 50, rank)
            alone = streamed(a, objective, v, False, dtype)
            shared = streamed(a, objective, v, False, dtype, workshop=shop)
            assert (alone[0] == shared[0]).all()


# ---------------------------------------------------------------- what surrounds an epoch


@given(st.integers(0, 2**32))
def test_extrapolation_solves_a_linear_map_in_as_many_steps_as_it_has_differences(seed):
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((30, 30)))[0]
    gains = rng.choice([0.1, 0.5, 0.9], 30)
    x, goal = rng.standard_normal((30, 1)), rng.standard_normal((30, 1))
    acceleration = Anderson(4)
    for _ in range(5):
        mapped = goal + basis @ (gains[:, None] * (basis.T @ (x - goal)))
        x = acceleration.next(x, mapped, np.ones(30))
    assert np.abs(x - goal).max() < 1e-7


def test_no_depth_is_the_plain_map():
    x = np.ones((3, 2))
    assert (Anderson(0).next(x, 2 * x, np.ones(3)) == 2 * x).all()


@pytest.mark.parametrize("alpha", [1e-18, 1e-6, 1.0, 1e6])
def test_the_constant_of_implicit_feedback_is_finite_for_any_weight(alpha):
    objective = replace(Objective(0.1, implicit=True), alpha=alpha)
    values = np.array([0.5, 2.0])
    w = alpha * values
    assert np.isclose(objective.shift(values), -0.5 * ((1 + w) / w).sum())
