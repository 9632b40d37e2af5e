"""The slope an epoch begins with: that of the objective in the items, at the users that are best for them."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

import leyden as ly
from leyden import aligned, vectors
from leyden.factor import _als_vectors, _slope_kernels
from leyden.factor.half_step import Entries, padded
from leyden.factor.objective import Objective
from leyden.factor.slope import squared_slope

_spec = importlib.util.spec_from_file_location("factored", Path(__file__).with_name("factored.py"))
factored = importlib.util.module_from_spec(_spec)
sys.modules["factored"] = factored
_spec.loader.exec_module(factored)


def test_the_kernel_is_of_these_sources():
    sources = b"".join(Path(module.__file__).read_bytes() for module in (_als_vectors, vectors))
    assert hashlib.sha256(sources).hexdigest()[:16] == _slope_kernels.COMPILED_FROM


def gradient(problem, u, v):
    """``∇_V F``, over all pairs, in extended precision."""
    g, features = problem.residual(u, v), u.astype(factored.LONG)
    if problem.biases:
        features[:, -1] = 1
    return problem.item_penalties[:, None] * v - g.T @ features


def padded_factors(f, dtype):
    out = aligned.zeros((len(f), padded(f.shape[1])), dtype)
    out[:, : f.shape[1]] = f
    return out


@pytest.mark.parametrize("formulation", factored.FORMULATIONS)
@pytest.mark.parametrize(("dtype", "rounding"), [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_slope_is_that_of_the_objective_over_all_pairs(formulation, dtype, rounding, threads):
    rng = np.random.default_rng(3)
    a, options, problem = factored.problem(rng, formulation, 90, 40, density=0.5)
    rank = 5 + problem.biases
    u, v = (rng.standard_normal((k, rank)).astype(dtype).astype(float) / 2 for k in (90, 40))
    objective = Objective(
        options["regularization"], options.get("scaling", 0.0), options.get("implicit", False),
        options.get("alpha", 1.0), background=options.get("background"), mean=problem.mean,
    )  # fmt: skip
    items = Entries.of(a.indptr, a.indices, a.data).transposed(40)
    penalties = objective.penalties(int(items.counts.max()), 90)
    expected = (gradient(problem, u, v) ** 2).sum(axis=1) @ (1 / problem.item_penalties)
    found = squared_slope(
        items, objective, padded_factors(u, dtype), padded_factors(v, dtype), penalties,
        bias=rank - 1 if problem.biases else -1, threads=threads,
    )  # fmt: skip
    assert np.isclose(found, float(expected), rtol=rounding)


def test_what_would_lead_below_zero_does_not_count():
    rng = np.random.default_rng(5)
    a, _, problem = factored.problem(rng, "explicit", 30, 20, density=0.5)
    u, v = np.maximum(rng.standard_normal((30, 4)), 0), np.maximum(rng.standard_normal((20, 4)), 0)
    slope = gradient(problem, u, v)
    slope = np.where(v > 0, slope, np.minimum(slope, 0))
    objective = Objective(float(problem.item_penalties.min()))
    items = Entries.of(a.indptr, a.indices, a.data).transposed(20)
    found = squared_slope(
        items, objective, padded_factors(u, float), padded_factors(v, float),
        np.full(31, float(problem.item_penalties[0])), nonnegative=True,
    )  # fmt: skip
    assert np.isclose(found, float((slope**2).sum() / problem.item_penalties[0]), rtol=1e-12)


def made(n=120, m=40, implicit=False):
    rng = np.random.default_rng(0)
    seen = rng.random((n, m)) < 0.3
    scores = rng.standard_normal((n, 3)) @ rng.standard_normal((m, 3)).T + 0.3 * rng.standard_normal((n, m))
    return sp.csr_array(np.where(seen, 1.0 + np.floor(np.abs(scores)) if implicit else scores, 0.0))


@pytest.mark.parametrize("method", ["resident", "streamed"])
@pytest.mark.parametrize(
    "options",
    [{}, {"biases": True}, {"scaling": 0.5, "centre": True}, {"implicit": True}, {"nonnegative": True}],
    ids=["plain", "biases", "scaled", "implicit", "nonnegative"],
)
def test_an_epoch_begins_where_the_certificate_of_the_one_before_ended(method, options):
    a = made(implicit="implicit" in options or "nonnegative" in options)
    runs = [ly.als(a, 3, 2.0, **options, method=method, accelerate=False, tol=1e-9, epochs=epochs) for epochs in (4, 5)]
    before, row = runs[0].certificate.bounds, runs[1].history[4]
    assert row["epoch"] == 5
    assert np.isclose(row["stationarity"], before["stationarity"].value, rtol=1e-3)
    assert np.isclose(row["before"], before["objective"].value, rtol=1e-5)
    assert row["gradient_norm"] > 0
    # What is left to gain in the items is less than the bound the certificate gives.
    assert 0 < row["newton_decrement"] <= before["newton_decrement"].value * (1 + 1e-3)
    last = runs[1].history[-1]
    assert last["certified_stationarity"] == runs[1].certificate.bounds["stationarity"].value
    assert last["duality_gap"] == runs[1].certificate.duality_gap


def test_items_in_parts_have_the_slope_of_all_together(monkeypatch):
    a, options = made(400, 60), {"method": "streamed", "accelerate": False, "epochs": 3, "tol": 1e-6}
    whole = ly.als(a, 5, 1.0, **options).history
    monkeypatch.setattr("leyden.factor.als.item_passes", lambda *_: 3)
    parts = ly.als(a, 5, 1.0, **options)
    assert sum(one.name.startswith("epoch") for one in parts.trace.passes) == 9
    for one, other in zip(whole, parts.history, strict=True):
        assert np.isclose(one["stationarity"], other["stationarity"], rtol=1e-3)
