"""Mixed models with features by lookup against their exact solutions, in mpmath."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import leyden as ly
from leyden.rows.ids import Ids
from leyden.rows.ratings import MemoryRatings
from leyden.solve.lookup import model as lookup
from leyden.solve.lookup import variance as lookup_variance
from leyden.solve.lookup.model import lookup_mixed


@pytest.fixture
def in_float32(monkeypatch):
    """Groups solved in float32, however few."""
    monkeypatch.setattr(lookup, "MANY", 0)


def groups_of(counts, items, rng, scale=1.0, shift=3.0, twice=True):
    """Groups of so many rows, which may name an item twice."""
    indices = np.concatenate([np.sort(rng.choice(items, count, replace=twice)) for count in counts]).astype(np.int32)
    values = (scale * (shift + rng.standard_normal(len(indices)))).astype(np.float32)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return MemoryRatings(indptr, indices, values, Ids.identity(len(counts), "user"), Ids.identity(items, "item"))


def categories(items, p, rng):
    return np.concatenate([np.arange(p), rng.integers(0, p, items - p)])


class Truth:
    """The exact solution, from matrices of 40 digits.

    Attributes
    ----------
    beta : list of mpf
    objective, logarithm : mpf
    fitted : mpf
        ``‖A x*‖``.
    """

    def __init__(self, rows, table, x, variances, ridge=0.0):
        mp.mp.dps = 40
        data = rows.read(0, rows.shape[0]).data
        p = x.shape[1]
        self.s, t, squares = mp.diag([mp.mpf(float(ridge))] * p), mp.matrix(p, 1), mp.mpf(0)
        self.groups, self.logarithm, self.rows = [], mp.mpf(0), len(data.data)
        for g in range(rows.shape[0]):
            span = slice(data.indptr[g], data.indptr[g + 1])
            j = data.indices[span]
            if len(j) == 0:
                self.groups.append(None)
                continue
            y = mp.matrix(data.data[span].astype(float).tolist())
            z, fixed = mp.matrix(table[j].astype(float).tolist()), mp.matrix(x[j].astype(float).tolist())
            white = z * mp.diag([mp.sqrt(mp.mpf(float(v))) for v in variances])
            h = white.T * white + mp.eye(len(variances))
            inverse = mp.eye(len(j)) - white * h**-1 * white.T
            self.s += fixed.T * inverse * fixed
            t += fixed.T * inverse * y
            squares += (y.T * y)[0]
            self.logarithm += mp.log(mp.det(h))
            self.groups.append((y, z, fixed, inverse))
        self.variances = variances
        solution = mp.lu_solve(self.s, t)
        self.beta = [solution[i] for i in range(p)]
        self.objective = mp.fsum(
            ((y - fixed * solution).T * inverse * (y - fixed * solution))[0]
            for y, _, fixed, inverse in filter(None, self.groups)
        ) + mp.mpf(float(ridge)) * mp.fsum(b * b for b in self.beta)
        self.fitted = mp.sqrt(max(squares - self.objective, 0))

    def energy(self, beta):
        e = mp.matrix([mp.mpf(float(b)) - true for b, true in zip(beta, self.beta, strict=True)])
        return mp.sqrt((e.T * self.s * e)[0])

    def random(self, g, beta=None):
        """Coefficients of a group."""
        y, z, fixed, inverse = self.groups[g]
        solution = mp.matrix(self.beta if beta is None else [mp.mpf(float(b)) for b in beta])
        v = z.T * inverse * (y - fixed * solution)
        return np.array([float(mp.mpf(float(d)) * w) for d, w in zip(self.variances, v, strict=True)])

    def effect_errors(self, beta):
        """``(Σ ‖v − v*‖²)^½`` and ``(Σ ‖v*‖²)^½``, whitened."""
        root = np.sqrt(self.variances)
        there = [g for g, group in enumerate(self.groups) if group is not None]
        with np.errstate(divide="ignore", invalid="ignore"):
            off = [np.nan_to_num((self.random(g, beta) - self.random(g)) / root) for g in there]
            size = [np.nan_to_num(self.random(g) / root) for g in there]
        return np.linalg.norm(off), np.linalg.norm(size)


def one_hot(codes, p):
    return np.eye(p)[codes]


def assert_bounds_are_true(found, truth):
    bounds = found.certificate.bounds
    off, exact = truth.energy(found.beta), mp.sqrt(mp.fsum(b * b for b in truth.beta))
    distance = mp.sqrt(mp.fsum((float(b) - t) ** 2 for b, t in zip(found.beta, truth.beta, strict=True)))
    if truth.fitted > 0:
        assert off / truth.fitted <= bounds["energy_error"].value * (1 + 1e-9)
    if exact > 0:
        assert distance / exact <= bounds["forward_error"].value * (1 + bounds["forward_error"].value) * (1 + 1e-9)
    moved, size = truth.effect_errors(found.beta)
    # The effects themselves are computed here in float64.
    if size > 0:
        assert moved / size <= bounds["group_error"].value * (1 + 1e-6) + 1e-15


@given(
    st.integers(0, 2**32),
    st.sampled_from([1e-12, 1e-3, 1.0, 1e3, 1e8]),
    st.sampled_from([0.0, 1e-8, 10.0]),
    st.sampled_from([1e-20, 1.0, 1e15]),
    st.booleans(),
)
@settings(max_examples=25)
def test_bounds_hold_whatever_the_problem(seed, covariance, ridge, scale, single):
    rng = np.random.default_rng(seed)
    items, k, p = 12, int(rng.integers(1, 4)), int(rng.integers(1, 4))
    rows = groups_of([*rng.integers(0, 7, 10).tolist(), items], items, rng, scale)
    table, codes = rng.standard_normal((items, k)).astype(np.float32), categories(items, p, rng)
    many = lookup.MANY
    lookup.MANY = 0 if single else many
    try:
        found = lookup_mixed(rows, table, fixed=codes, covariance=covariance, ridge=ridge)
    except ly.DataError:
        assert covariance >= 1e8  # the random effects have taken all there is
        return
    finally:
        lookup.MANY = many
    if found.undetermined:
        return
    truth = Truth(rows, table, one_hot(codes, p), np.full(k, covariance), ridge)
    assert_bounds_are_true(found, truth)
    if covariance <= 1e3:
        assert found.certificate.holds


@pytest.mark.parametrize("covariance", [2.0, [1.0, 0.0, 4.0]])
def test_answers_are_exact(covariance, in_float32):
    rng = np.random.default_rng(3)
    rows = groups_of([0, 1, 2, 3, 5, 8, 4, 4, 30, 0, 100], 15, rng)
    table, codes = rng.standard_normal((15, 3)).astype(np.float32), categories(15, 4, rng)
    found = lookup_mixed(rows, table, fixed=codes, covariance=covariance)
    truth = Truth(rows, table, one_hot(codes, 4), np.broadcast_to(covariance, 3))
    assert found.certificate.holds
    np.testing.assert_allclose(found.beta, [float(b) for b in truth.beta], rtol=1e-8)
    assert found.fixed == dict(zip("0123", found.beta, strict=True))
    for g in (1, 4, 8, 10):
        np.testing.assert_allclose(found.random([g])[0], truth.random(g), rtol=1e-7, atol=1e-9)
    assert (found.random([0, 9]) == 0).all()
    variance = float(truth.objective) / (truth.rows - 4)
    assert found.residual_variance == pytest.approx(variance, rel=1e-8)
    n = truth.rows
    expected = -0.5 * (n * np.log(2 * np.pi * float(truth.objective) / n) + float(truth.logarithm) + n)
    assert found.log_likelihood == pytest.approx(expected, rel=1e-6)
    errors = [float(mp.sqrt(variance * (truth.s**-1)[j, j])) for j in range(4)]
    np.testing.assert_allclose(found.standard_errors, errors, rtol=1e-5)


def dense(rows, table, x, covariance):
    """Whole matrix of a small problem: shared coefficients, then those of each group, whitened with a root Λ."""
    data = rows.read(0, rows.shape[0]).data
    groups, k, p = rows.shape[0], table.shape[1], x.shape[1]
    root = np.linalg.cholesky(covariance)
    z, who = table[data.indices] @ root, np.repeat(np.arange(groups), np.diff(data.indptr))
    a = np.zeros((len(who), p + groups * k))
    a[:, :p] = x[data.indices]
    for r, g in enumerate(who):
        a[r, p + g * k : p + (g + 1) * k] = z[r]
    penalty = np.hstack([np.zeros((groups * k, p)), np.eye(groups * k)])
    whole = np.vstack([a, penalty])
    y = np.concatenate([data.data.astype(float), np.zeros(groups * k)])
    solution = np.linalg.lstsq(whole, y)[0]
    covariances = np.linalg.inv(whole.T @ whole)
    return solution[:p], solution[p:].reshape(groups, k) @ root.T, root, covariances


def test_a_full_covariance_and_an_intercept_are_those_of_the_dense_problem():
    rng = np.random.default_rng(5)
    rows = groups_of([3, 6, 2, 9, 0, 20], 10, rng)
    table = rng.standard_normal((10, 2)).astype(np.float32)
    b = rng.standard_normal((3, 3))
    covariance, x = b @ b.T + np.eye(3), rng.standard_normal((10, 2))
    found = lookup_mixed(rows, table, fixed=x, covariance=covariance, intercept=True)
    beta, u, root, covariances = dense(rows, np.column_stack([table, np.ones(10)]), x, covariance)
    np.testing.assert_allclose(found.beta, beta, rtol=1e-5)
    np.testing.assert_allclose(found.random(np.arange(6)), u, rtol=1e-4, atol=1e-5)
    own = slice(2 + 3 * 3, 2 + 3 * 4)
    expected = found.residual_variance * root @ covariances[own, own] @ root.T
    np.testing.assert_allclose(found.random_covariance(3), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.standard_errors**2, found.residual_variance * np.diag(covariances)[:2], rtol=1e-4)
    full = np.column_stack([table, np.ones(10)])
    np.testing.assert_allclose(
        found.predict([3, 5], [1, 9]), [x[i] @ beta + full[i] @ u[g] for g, i in ((3, 1), (5, 9))], rtol=1e-4
    )
    assert isinstance(found.predict(3, 1), float)


def test_several_categories_an_item_are_a_sum_of_their_coefficients():
    rng = np.random.default_rng(6)
    rows, table = groups_of([5] * 40, 20, rng), rng.standard_normal((20, 2)).astype(np.float32)
    codes = np.column_stack([categories(20, 3, rng), 3 + rng.integers(0, 2, 20)])
    found = lookup_mixed(rows, table, fixed=codes)
    # The categories of either kind add up to one: one of them is not determined.
    assert len(found.undetermined) == 1
    assert "add up from others: their coefficients are set to zero" in found.trace.remarks[0]
    assert found.fixed[found.undetermined[0]] == 0
    kept = [j for j in range(5) if str(j) not in found.undetermined]
    x = one_hot(codes[:, 0], 5) + one_hot(codes[:, 1], 5)
    truth = Truth(rows, table, x[:, kept], np.ones(2))
    np.testing.assert_allclose(found.beta[kept], [float(b) for b in truth.beta], rtol=1e-9)
    assert found.certificate.holds
    assert np.isnan(found.standard_errors[[j for j in range(5) if j not in kept]]).all()
    sparse = lookup_mixed(rows, table, fixed=sp.csr_array(x))
    np.testing.assert_allclose(sparse.beta, found.beta, rtol=1e-9)


def test_a_category_that_no_row_has_is_said_and_zero():
    rng = np.random.default_rng(7)
    rows = groups_of([4] * 30, 10, rng)
    codes = categories(10, 3, rng)
    codes[codes == 1] = 5
    found = lookup_mixed(rows, np.ones((10, 1)), fixed=codes)
    assert found.trace.remarks[0].startswith("no row has fixed features 1, 3, 4: their coefficients are set to zero")
    assert found.undetermined == ("1", "3", "4")
    assert (found.beta[[1, 3, 4]] == 0).all()
    assert found.certificate.holds


def test_without_fixed_features_there_is_a_mean():
    rng = np.random.default_rng(8)
    rows = groups_of([4] * 50, 10, rng)
    found = lookup_mixed(rows, np.zeros((10, 1)), covariance=1.0)
    assert list(found.fixed) == ["mean"]
    assert found.fixed["mean"] == pytest.approx(rows.read(0, 50).data.data.astype(float).mean(), rel=1e-12)


def test_one_group_may_have_all_the_rows(in_float32):
    rng = np.random.default_rng(9)
    rows, table = groups_of([100_000, 3, 2], 50, rng), rng.standard_normal((50, 4)).astype(np.float32)
    codes = categories(50, 8, rng)
    found = lookup_mixed(rows, table, fixed=codes)
    assert found.certificate.holds
    data = rows.read(0, 3).data
    z, y = table[data.indices[:100_000]].astype(float), data.data[:100_000].astype(float)
    x = one_hot(codes, 8)[data.indices[:100_000]]
    u = np.linalg.solve(z.T @ z + np.eye(4), z.T @ (y - x @ found.beta))
    np.testing.assert_allclose(found.random([0])[0], u, rtol=1e-8)


@pytest.mark.parametrize("covariance", [0.0, 1e-80, 1e-30, 1e12])
def test_covariances_may_be_tiny_or_huge(covariance, in_float32):
    rng = np.random.default_rng(10)
    rows, table = groups_of([3] * 60, 30, rng), rng.standard_normal((30, 8)).astype(np.float32)
    codes = categories(30, 2, rng)
    found = lookup_mixed(rows, table, fixed=codes, covariance=covariance, tol=1e-4)
    truth = Truth(rows, table, one_hot(codes, 2), np.full(8, covariance))
    assert_bounds_are_true(found, truth)
    if covariance < 1:
        np.testing.assert_allclose(found.beta, [float(b) for b in truth.beta], rtol=1e-9)


def test_threads_and_a_checkpoint_do_not_change_a_bit(tmp_path, in_float32):
    rng = np.random.default_rng(11)
    rows = groups_of(rng.integers(0, 12, 3000), 40, rng, twice=False).save(tmp_path / "store")
    table, codes = rng.standard_normal((40, 5)), categories(40, 6, rng)
    one, two = (lookup_mixed(rows, table, fixed=codes, threads=n, memory="200MB") for n in (1, 2))
    three = lookup_mixed(rows, table, fixed=codes, memory="200MB", checkpoint=tmp_path / "kept")
    again = lookup_mixed(rows, table, fixed=codes, memory="200MB", checkpoint=tmp_path / "kept")
    for other in (two, three, again):
        np.testing.assert_array_equal(other.beta, one.beta)
        assert other.certificate.to_json() == one.certificate.to_json()


def test_a_plan_says_what_is_done():
    rng = np.random.default_rng(12)
    plan = lookup_mixed.plan(groups_of([3] * 9, 5, rng), np.ones((5, 2)), fixed=np.arange(5) % 2, memory="300MB")
    text = str(plan)
    assert "9 groups × 2 coefficients, 2 shared, 27 rows of 5 items" in text
    assert [p.name for p in plan.passes] == ["Schur complement", "residual"]
    assert 0 < plan.peak < 300e6
    assert plan.run().certificate.holds


def planted(variance, groups, rng):
    """Groups of six rows whose coefficients have this variance, beside noise of variance 1/4."""
    rows = groups_of([6] * groups, 25, rng)
    table, codes = rng.standard_normal((25, 3)).astype(np.float32), categories(25, 4, rng)
    data = rows.read(0, groups).data
    u = 0.5 * np.sqrt(variance) * rng.standard_normal((groups, 3))
    shared = codes[data.indices] + 0.5 * rng.standard_normal(len(data.data))
    data.data[:] = shared + np.einsum("ij,ij->i", u[np.repeat(np.arange(groups), 6)], table[data.indices])
    return rows, table, codes


@pytest.mark.parametrize("variance", [0.3, 5.0])
def test_a_variance_is_estimated_to_its_standard_error(variance):
    rows, table, codes = planted(variance, 3000, np.random.default_rng(13))
    found = lookup_mixed(rows, table, fixed=codes, covariance="estimate")
    assert found.certificate.holds
    (remark,) = found.trace.remarks
    assert "by restricted maximum likelihood, from 3,000 groups" in remark
    value, error = (float(part) for part in remark.split(" by ")[0].removeprefix("covariance ").split(" ± "))
    assert abs(value - variance) < 4 * error < 0.5 * variance
    assert found.covariance == pytest.approx(np.full(3, value), rel=1e-3)
    assert found.residual_variance == pytest.approx(0.25, rel=0.05)


def test_an_estimate_is_where_the_restricted_likelihood_is_largest():
    rows, table, codes = planted(1.0, 200, np.random.default_rng(14))
    found = lookup_mixed(rows, table, fixed=codes, covariance="estimate")

    def restricted(factor):
        other = lookup_mixed(rows, table, fixed=codes, covariance=found.covariance * factor)
        free, x = other.model.rows - 4, np.linalg.slogdet(other.complement.s)[1]
        return -0.5 * (free * np.log(other.objective) + other.complement.log_determinant + x)

    assert restricted(1.0) > max(restricted(0.97), restricted(1.03))


def test_a_part_of_the_groups_is_enough(monkeypatch):

    monkeypatch.setattr(lookup_variance, "SAMPLED", 6000)
    rows, table, codes = planted(2.0, 3000, np.random.default_rng(15))
    found = lookup_mixed(rows, table, fixed=codes, covariance="estimate")
    assert "from 1,024 groups" in found.trace.remarks[0]
    assert found.covariance[0] == pytest.approx(2.0, rel=0.2)


def test_a_variance_of_nothing_is_not_estimated():
    rows = groups_of([3] * 20, 5, np.random.default_rng(16))
    with pytest.raises(ly.DataError, match="the table is zero for every row"):
        lookup_mixed(rows, np.zeros((5, 2)), covariance="estimate")
