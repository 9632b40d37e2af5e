"""Epochs of alternating least squares: what the two ways of making them have in common, and what each row solves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

import leyden as ly
from leyden.engine.sweep import Engine
from leyden.engine.workshop import Workshop
from leyden.factor.half_step import Entries, HalfStep, padded
from leyden.factor.objective import Objective
from leyden.factor.resident import Resident
from leyden.factor.streamed import ItemStep

OBJECTIVES = {
    "explicit": Objective(3.0, scaling=0.5),
    "biases": Objective(8.0, mean=3.5),
    "implicit": Objective(3.0, implicit=True, alpha=2.0),
    "background": Objective(0.3, implicit=True, scaling=0.5, background=0.2),
}


def entries(rng, rows, others, most, *, empty=True):
    """Ratings 1 to 5 of random items; some rows with none, some with many."""
    counts = rng.integers(0 if empty else 1, most + 1, rows)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    indices = [np.sort(rng.choice(others, k, replace=False)) for k in counts]
    values = rng.integers(1, 6, indptr[-1]).astype(np.float32)
    return Entries.of(indptr, np.concatenate(indices), values)


def solved(rows, objective, f, theta, penalties):
    """The half-step row by row, by normal equations in float64."""
    out, least = np.zeros((len(rows.order), f.shape[1])), 0.0
    w0, w1, t0, t1 = objective.model
    for i in range(len(out)):
        span = slice(rows.indptr[i], rows.indptr[i + 1])
        b, v = f[rows.indices[span]].astype(float), rows.values[span].astype(float)
        w = w0 + w1 * v
        t = (t0 + t1 * v) / w
        form = np.diag(theta + penalties[len(v)])
        out[i] = np.linalg.solve(form + b.T @ (w[:, None] * b), b.T @ (w * t))
        least += 0.5 * float(w @ (t - b @ out[i]) ** 2 + out[i] @ form @ out[i])
    return out, least


@settings(max_examples=40)
@given(
    st.integers(0, 2**32),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([1, 16, 17, 50, 100]),
    st.sampled_from([3, 20, 70, 150]),
    st.sampled_from(["explicit", "implicit", "background"]),
    st.integers(1, 3),
)
def test_a_half_step_solves_every_row_whether_in_the_dual_or_the_primal(seed, dtype, rank, most, name, threads):
    rng, objective = np.random.default_rng(seed), OBJECTIVES[name]
    rows, width = entries(rng, 40, 200, most), padded(rank)
    f = np.zeros((200, width), dtype)
    f[:, :rank] = rng.standard_normal((200, rank)) / np.sqrt(rank)
    theta = rng.random(width) * bool(objective.unobserved)
    penalties = objective.penalties(most, 200)
    out = np.zeros((40, width), dtype)
    least = HalfStep(width, dtype, threads)(rows, objective.model, f, theta, penalties, out)
    expected, value = solved(rows, objective, f, theta, penalties)
    digits = 2e-5 if dtype == np.float32 else 1e-12
    assert np.allclose(out, expected, rtol=0, atol=digits * max(1.0, np.abs(expected).max()))
    assert least == pytest.approx(value, rel=digits)


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.sampled_from([np.float32, np.float64]))
def test_nonnegative_rows_are_those_of_an_active_set_method(seed, dtype):
    rng = np.random.default_rng(seed)
    rows, f = entries(rng, 20, 50, 30), np.zeros((50, 16), dtype)
    f[:, :6] = rng.random((50, 6))
    out = np.zeros((20, 16), dtype)
    HalfStep(16, dtype, 1, 6)(rows, OBJECTIVES["explicit"].model, f, np.zeros((16, 16)), np.full(31, 0.7), out)
    for i in range(20):
        span = slice(rows.indptr[i], rows.indptr[i + 1])
        a = np.vstack([f[rows.indices[span], :6].astype(float), np.sqrt(0.7) * np.eye(6)])
        expected, _ = nnls(a, np.concatenate([rows.values[span], np.zeros(6)]))
        assert np.allclose(out[i, :6], expected, atol=1e-5 if dtype == np.float32 else 1e-10)
        assert (out[i] >= 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", list(OBJECTIVES))
@pytest.mark.parametrize("rank", [5, 33])
def test_an_epoch_in_one_pass_is_the_two_half_steps(name, rank, dtype):
    rng, objective, biases = np.random.default_rng(0), OBJECTIVES[name], name == "biases"
    n, m = 600, 60
    a = sp.csr_array(np.where(rng.random((n, m)) < 0.3, rng.integers(1, 6, (n, m)), 0).astype(np.float32))
    two = Resident(Entries.of(a.indptr, a.indices, a.data), m, objective, rank, dtype, 1, biases)
    v = np.zeros((m, two.width), dtype)
    v[:, : rank + biases] = rng.standard_normal((m, rank + biases))
    nu = two.item_penalties[two.items.counts]
    one = ItemStep(
        objective, v.copy(), two.user_penalties, nu, two.items.counts, rank if biases else -1, users=n,
        workshop=Workshop(2),
    )  # fmt: skip
    (found,) = Engine(10**9, 2).sweep(ly.open(a), [one], "epoch")
    epoch = two.epoch(v)
    digits = 1e-4 if dtype == np.float32 else 1e-11
    assert np.allclose(found.v, v, rtol=0, atol=digits * np.abs(v).max())
    assert found.before + two.constant == pytest.approx(epoch.before, rel=1e-6 if dtype == np.float32 else 1e-12)
    assert epoch.before - found.decrement == pytest.approx(epoch.after, rel=1e-5 if dtype == np.float32 else 1e-11)
    assert epoch.after <= epoch.before


def test_passes_over_spans_of_items_do_together_what_one_does():
    rng, objective = np.random.default_rng(0), OBJECTIVES["implicit"]
    a = sp.csr_array(np.where(rng.random((300, 40)) < 0.3, rng.integers(1, 6, (300, 40)), 0).astype(np.float32))
    v, counts = rng.standard_normal((40, 16)), np.bincount(a.indices, minlength=40)
    users, items = objective.penalties(40, 40), objective.penalties(300, 300)[counts]
    made = [
        Engine(10**9, 2).sweep(
            ly.open(a), [ItemStep(objective, v, users, items, counts, users=300, span=span)], "epoch"
        )[0]
        for span in [(0, 40), (0, 17), (17, 40)]
    ]
    # To rounding: BLAS may add in another order where rows stand elsewhere.
    assert np.allclose(made[0].v, np.concatenate([made[1].v, made[2].v]), rtol=1e-11, atol=0)
    assert made[0].decrement == pytest.approx(made[1].decrement + made[2].decrement, rel=1e-12)


@pytest.mark.parametrize("method", ["resident", "streamed"])
@pytest.mark.parametrize("nonnegative", [False, True])
def test_the_objective_never_rises_and_threads_do_not_matter(method, nonnegative):
    rng = np.random.default_rng(1)
    a = sp.csr_array(np.where(rng.random((400, 50)) < 0.3, rng.integers(1, 6, (400, 50)), 0).astype(np.float32))
    found = [
        ly.als(a, 6, 2.0, method=method, nonnegative=nonnegative, threads=threads, epochs=30) for threads in (1, 3)
    ]
    assert (found[0].item_factors == found[1].item_factors).all()
    kept = [h["after"] for h in found[0].history if "taken_back" not in h]
    assert all(b <= a * (1 + 1e-5) for a, b in itertools.pairwise(kept))
    if nonnegative:
        assert (found[0].item_factors >= 0).all()
        assert (found[0].user_factors() >= 0).all()
    assert ly.verify(found[0], a).failures == ()


def test_a_budget_too_small_for_all_items_takes_several_passes_an_epoch():
    rng = np.random.default_rng(2)
    a = sp.random_array((3000, 4000), density=0.004, random_state=rng, format="csr", dtype=np.float32)
    whole = ly.als(a, 40, 0.5, method="streamed", epochs=3, accelerate=False)
    parts = ly.als(a, 40, 0.5, method="streamed", epochs=3, accelerate=False, memory="40MB")
    assert sum(p.name == "epoch" for p in parts.trace.passes) > 3
    assert np.allclose(whole.item_factors, parts.item_factors, atol=1e-4 * np.abs(whole.item_factors).max())


def test_the_gap_closes_where_the_rank_is_sufficient_and_stays_where_it_is_not():
    rng = np.random.default_rng(0)
    users, items = rng.standard_normal((1500, 3)), rng.standard_normal((120, 3))
    seen = rng.random((1500, 120)) < 0.3
    noisy = users @ items.T + 0.5 * rng.standard_normal(seen.shape)
    a = sp.csr_array(np.where(seen, noisy, 0).astype(np.float32))
    enough = ly.als(a, 6, 20.0, gap=1e-8)
    assert enough.certificate.holds
    assert enough.certificate.duality_gap <= 1e-8
    short = ly.als(a, 1, 20.0, gap=1e-8)
    assert not short.certificate.holds
    assert short.certificate.duality_gap > 0.05
    grown = ly.als(a, "auto", 12.0, gap=1e-6, max_rank=40, epochs=2000)
    assert grown.certificate.holds


def test_where_users_are_many_parts_that_grow_come_first_and_all_decide(monkeypatch):
    monkeypatch.setattr("leyden.factor.als.SAMPLED", 5)
    random = np.random.default_rng(4)
    scores = random.standard_normal((6000, 3)) @ random.standard_normal((3, 12))
    scores += 0.3 * random.standard_normal(scores.shape)
    ratings = sp.csr_array(np.where(random.random(scores.shape) < 0.1, scores, 0.0))
    found = ly.als(ratings, 3, 1.0, method="streamed", tol=1e-6)
    users = [row["users"] for row in found.history]
    assert users == sorted(users)
    assert len(set(users)) == 4
    assert users[0] < 0.02 * 6000
    assert users[-1] == 6000
    assert [remark for remark in found.trace.remarks if "epochs on one user in" in remark]
    assert found.certificate.holds
    # What a part cannot say it is not asked for: its epochs end at a step that more users would undo.
    first = [row["step"] for row in found.history if row["users"] == users[0]]
    assert first[-1] > 1e-3
