"""Absorption beside dense least squares with dummies, on designs of every shape; its bounds beside exact answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.errors import BudgetError, DataError, OptionError
from leyden.solve.absorb.absorb import absorb


def dummies(codes, levels):
    return (codes[:, None] == np.arange(levels)).astype(float)


def dense(y, x, factors, levels, weights=None, penalties=None):
    """β, fitted values of the rows, and the rank of the fixed effects, by dense least squares in the least norm."""
    n, p = x.shape
    w = np.ones(n) if weights is None else weights
    lam = [0.0] * len(factors) if penalties is None else penalties
    d = np.hstack([dummies(c, count) for c, count in zip(factors, levels, strict=True)])
    root = np.concatenate([np.full(count, np.sqrt(l)) for l, count in zip(lam, levels, strict=True)])
    full = np.vstack([np.sqrt(w)[:, None] * np.hstack([x, d]), np.hstack([np.zeros((len(root), p)), np.diag(root)])])
    solution = np.linalg.lstsq(full, np.r_[np.sqrt(w) * y, np.zeros(len(root))], rcond=1e-12)[0]
    fixed = np.hstack(
        [dummies(c, k) for c, k, l in zip(factors, levels, lam, strict=True) if l == 0] or [np.zeros((n, 0))]
    )
    rank = np.linalg.matrix_rank(fixed[w > 0]) if fixed.size else 0
    return solution[:p], np.hstack([x, d]) @ solution, rank, solution[p:]


def random_design(rng, n, levels, p, spread=1.0):
    factors = [rng.integers(0, max(1, int(spread * count)), n).astype(np.int32) for count in levels]
    for codes, count in zip(factors, levels, strict=True):
        codes[-1] = count - 1
    x = rng.standard_normal((n, p))
    effects = [rng.standard_normal(count) for count in levels]
    y = x @ np.arange(1.0, p + 1) + sum(e[c] for e, c in zip(effects, factors, strict=True)) + rng.standard_normal(n)
    return y, x, factors


def check(y, x, factors, weights=None, penalties=None, tol=1e-10, **options):
    found = absorb(y, x, factors, weights=weights, penalties=penalties, tol=tol, **options)
    levels = [int(c.max()) + 1 for c in factors]
    beta, fitted, rank, _ = dense(y, x.astype(float), factors, levels, weights, penalties)
    held = slice(None) if weights is None else weights > 0
    assert found.certificate.holds, found.certificate
    np.testing.assert_allclose(found.coefficients, beta, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose((y - found.residuals())[held], fitted[held], rtol=1e-7, atol=1e-7)
    assert found.parameters == rank if found.parameters_exact else found.parameters >= rank
    return found


@pytest.mark.parametrize("levels", [(7,), (40, 9), (9, 40), (40, 9, 5), (12, 6, 5, 4), (3, 1), (1, 1)])
@pytest.mark.parametrize("kind", ["plain", "weights", "zero weights", "float32 by column"])
def test_equals_least_squares_with_dummies(levels, kind):
    rng = np.random.default_rng(len(kind) + 10 * sum(levels))
    y, x, factors = random_design(rng, 200, levels, 3)
    weights = None
    if "weights" in kind:
        weights = rng.uniform(0.1, 3, 200)
    if kind == "zero weights":
        weights[rng.random(200) < 0.4] = 0
    if kind == "float32 by column":
        x = np.asfortranarray(x.astype(np.float32))
    check(y, x, factors, weights)


@pytest.mark.parametrize(
    "penalties", [(0.0, 2.0), (2.0, 0.0), (0.5, 30.0), (1e-6, 1e-3), (3.0, 0.0, 0.7), (1.0, 2.0, 3.0)]
)
def test_random_intercepts_equal_a_dense_penalised_solve(penalties):
    rng = np.random.default_rng(3)
    y, x, factors = random_design(rng, 300, (50, 20, 6)[: len(penalties)], 2)
    x[:, 0] += 1.0
    found = check(y, x, factors, penalties=penalties)
    _, _, _, effects = dense(y, x, factors, [int(c.max()) + 1 for c in factors], None, penalties)
    if sum(l == 0 for l in penalties) < 2:
        np.testing.assert_allclose(np.concatenate(found.effects), effects, rtol=1e-6, atol=1e-8)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 60), st.integers(1, 12), st.integers(1, 12), st.booleans(), st.booleans())
def test_any_small_design(seed, n, a, b, weighted, penalised):
    rng = np.random.default_rng(seed)
    y, x, factors = random_design(rng, n, (a, b), 1)
    weights = rng.integers(0, 3, n).astype(float) if weighted else None
    if weighted and not weights.any():
        weights[0] = 1.0
    penalties = (0.0, 1.5) if penalised else None
    found = absorb(y, x, factors, weights=weights, penalties=penalties)
    levels = [int(c.max()) + 1 for c in factors]
    beta, fitted, rank, _ = dense(y, x, factors, levels, weights, penalties)
    held = slice(None) if weights is None else weights > 0
    assert found.parameters == rank
    np.testing.assert_allclose((y - found.residuals())[held], fitted[held], atol=1e-6)
    if not found.dropped and np.isfinite(found.bounds).all():
        assert np.all(np.abs(found.coefficients - beta) <= found.bounds + 1e-9 * (1 + np.abs(beta)))


def test_one_level_of_either_factor():
    rng = np.random.default_rng(0)
    y, x, factors = random_design(rng, 50, (1, 6), 2)
    assert check(y, x, factors).components.count == 1


def test_nested_factors_are_collinear_and_still_solved():
    rng = np.random.default_rng(1)
    worker = np.arange(400, dtype=np.int32) // 5
    y, x, _ = random_design(rng, 400, (80,), 2)
    found = check(y, x, [worker, worker // 8])
    assert found.parameters == 80
    assert found.components.count == 10


def test_parts_that_nothing_joins():
    rng = np.random.default_rng(2)
    part = np.repeat(np.arange(4), 60)
    a = (part * 10 + rng.integers(0, 10, 240)).astype(np.int32)
    b = (part * 3 + rng.integers(0, 3, 240)).astype(np.int32)
    y, x, _ = random_design(rng, 240, (40,), 2)
    found = check(y, x, [a, b])
    assert found.components.count == 4
    labels = found.components.labels[found.components.factors.index(1)]
    for k in range(4):
        assert len(np.unique(labels[3 * k : 3 * k + 3])) == 1
        assert abs(found.effects[1][3 * k : 3 * k + 3].mean()) < 1e-12


@pytest.mark.parametrize("weighted", [False, True])
def test_a_chain_of_ten_thousand_firms(weighted):
    rng = np.random.default_rng(4)
    links = 10_000
    worker = np.repeat(np.arange(links), 2).astype(np.int32)
    firm = (worker + np.tile([0, 1], links)).astype(np.int32)
    x = rng.standard_normal((2 * links, 1))
    e = rng.standard_normal(2 * links)
    y = 2 * x[:, 0] + rng.standard_normal(links)[worker] + np.cumsum(rng.standard_normal(links + 1))[firm] + e
    weights = 10.0 ** rng.uniform(-2, 2, 2 * links) if weighted else None
    found = absorb(y, x, [worker, firm], weights=weights, tol=1e-8)
    # A row of a chain is fitted by an effect of its own but for one: the first row of each worker and the last firm.
    assert found.parameters == 2 * links
    assert found.components.count == 1


def test_a_long_chain_with_repeats():
    rng = np.random.default_rng(5)
    links = 5_000
    worker = np.repeat(np.arange(links), 4).astype(np.int32)
    firm = (worker + np.tile([0, 1, 0, 1], links)).astype(np.int32)
    effect = np.cumsum(rng.standard_normal(links + 1))
    x = rng.standard_normal((4 * links, 2))
    y = x @ [1.0, -2.0] + rng.standard_normal(links)[worker] + effect[firm] + rng.standard_normal(4 * links)
    found = absorb(y, x, [worker, firm], tol=1e-9)
    assert found.certificate.holds, found.certificate
    assert found.preconditioner == "approximate Cholesky"
    assert found.iterations < 60
    for codes in (worker, firm):
        assert np.abs(np.bincount(codes, found.residuals())).max() < 1e-7


def test_covariates_that_effects_explain_are_dropped_by_name():
    rng = np.random.default_rng(6)
    y, x, factors = random_design(rng, 300, (40, 9), 3)
    of_level = rng.standard_normal(40)[factors[0]]
    columns = np.column_stack([x[:, 0], of_level, x[:, 1], x[:, 0] - 2 * x[:, 1] + of_level, x[:, 2]])
    found = absorb(y, columns, factors, names=["a", "tenure", "b", "both", "c"])
    assert found.dropped == ("tenure", "both")
    assert np.isnan(found.coefficients[[1, 3]]).all()
    beta, *_ = dense(y, x, factors, (40, 9))
    np.testing.assert_allclose(found.coefficients[[0, 2, 4]], beta, rtol=1e-8)


def test_no_covariates():
    rng = np.random.default_rng(7)
    y, _, factors = random_design(rng, 300, (40, 9), 0)
    found = absorb(y, None, factors)
    assert found.certificate.holds
    _, fitted, *_ = dense(y, np.zeros((300, 0)), factors, (40, 9))
    np.testing.assert_allclose(y - found.residuals(), fitted, atol=1e-8)


def test_far_from_zero():
    rng = np.random.default_rng(8)
    y, x, factors = random_design(rng, 400, (40, 9), 2)
    beta, *_ = dense(y, x, factors, (40, 9))
    found = absorb(y + 1e6, x + 1e5, factors, tol=1e-7)
    assert found.certificate.holds, found.certificate
    assert np.all(np.abs(found.coefficients - beta) <= found.bounds + 1e-11)


def test_singletons_are_counted():
    first = np.array([0, 0, 1, 2, 2, 2, 3], np.int32)
    second = np.array([0, 1, 0, 1, 0, 2, 1], np.int32)
    y = np.arange(7.0)
    assert absorb(y, None, [first, second]).singletons == 3


@pytest.mark.parametrize("threads", [1, 3])
def test_same_bits_for_any_number_of_threads(threads):
    rng = np.random.default_rng(9)
    y, x, factors = random_design(rng, 30_000, (3000, 400), 2)
    one, other = absorb(y, x, factors, threads=2), absorb(y, x, factors, threads=threads)
    assert np.array_equal(one.coefficients, other.coefficients)
    assert all(np.array_equal(a, b) for a, b in zip(one.effects, other.effects, strict=True))


def test_errors_name_what_is_wrong():
    y, x, f = np.arange(4.0), np.ones((4, 1)), np.array([0, 0, 1, 1], np.int32)
    with pytest.raises(DataError, match="rows in common"):
        absorb(y, x[:3], [f])
    with pytest.raises(DataError, match="row 1: the codes of factor 1"):
        absorb(y, x, [f, np.array([0, -1, 0, 0], np.int32)])
    with pytest.raises(DataError, match="not integers"):
        absorb(y, x, [np.array([0.0, 1.0, 1.5, 2.0])])
    with pytest.raises(DataError, match="no row has a weight"):
        absorb(y, x, [f], weights=np.zeros(4))
    with pytest.raises(OptionError, match="at least one factor"):
        absorb(y, x, [])
    with pytest.raises(DataError, match="row 2"):
        absorb(np.array([0, 1, np.nan, 3]), x, [f])
    with pytest.raises(DataError, match="row 1"):
        absorb(y, x, [f], weights=[1, -1, 1, 1])
    with pytest.raises(OptionError, match="penalties"):
        absorb(y, x, [f], penalties=[1.0, 2.0])
    with pytest.raises(BudgetError):
        absorb(y, x, [f], memory="100B")


def test_three_factors_two_of_them_nested_but_for_a_few_rows():
    rng = np.random.default_rng(10)
    worker, firm = rng.integers(0, 2000, 20_000).astype(np.int32), rng.integers(0, 900, 20_000).astype(np.int32)
    occupation = np.where(rng.random(20_000) < 0.02, (firm // 3 + 1) % 300, firm // 3).astype(np.int32)
    factors = [worker, firm, occupation]
    x = rng.standard_normal((20_000, 1))
    y = x[:, 0] + np.cumsum(rng.standard_normal(900))[firm] + rng.standard_normal(300)[occupation]
    y += rng.standard_normal(2000)[worker] + rng.standard_normal(20_000)
    found = absorb(y, x, factors, tol=1e-9)
    assert found.certificate.holds, found.certificate
    assert found.preconditioner == "approximate Cholesky"
    assert found.iterations < 80
    for codes in factors:
        assert np.abs(np.bincount(codes, found.residuals())).max() < 1e-5


def test_one_row():
    found = absorb(np.array([3.0]), None, [np.array([0], np.int32), np.array([1], np.int32)], weights=[2.0])
    assert abs(found.residuals()[0]) < 1e-12
    assert found.parameters == 1


def test_weights_of_all_sizes_on_a_sparse_graph():
    rng = np.random.default_rng(11)
    n = 12_000
    factors = [rng.integers(0, 3_000, n).astype(np.int32), rng.integers(0, 2_500, n).astype(np.int32)]
    x = rng.standard_normal((n, 1))
    y = x[:, 0] + np.cumsum(rng.standard_normal(2_500))[factors[1]] + rng.standard_normal(n)
    found = absorb(y, x, factors, weights=10.0 ** rng.uniform(-4, 4, n), tol=1e-8)
    assert found.certificate.holds, found.certificate
    assert found.preconditioner == "approximate Cholesky"
    assert found.iterations < 150
