"""Least squares: every bound against the exact answer, on problems built to break it."""

import mpmath as mp
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.truth import LeastSquaresTruth, norm

import leyden as ly
from leyden.solve import reductions

METHODS = ["auto", "gram32", "gram64", "tsqr", "sketch"]


def unknowns(solution, intercept=False):
    values = [mp.mpf(float(v)) for v in solution.x]
    return [*values, mp.mpf(float(solution.intercept))] if intercept else values


def assert_bounds_are_true(solution, truth, *, ridge=0.0, intercept=False):
    """Every bound of the certificate, compared with the exact solution."""
    x = unknowns(solution, intercept)
    d = len(solution.x)
    errors = [abs(v - t) for v, t in zip(x, truth.x, strict=True)]
    bounds = solution.certificate.bounds
    assert all(e <= bound for e, bound in zip(errors, solution.coefficient_error, strict=False))
    if intercept:
        assert errors[d] <= solution.intercept_error
    if norm(x[:d]) > 0:
        assert norm(errors[:d]) <= bounds["forward_error"].value * norm(x[:d])
        assert not ridge or norm(errors[:d]) <= bounds["distance"].value * norm(x[:d])
    assert truth.energy(x) <= bounds["optimality"].value * truth.target_norm()
    if ridge:
        # The objective is quadratic: above its minimum by the square of the distance in energy, without cancellation.
        assert truth.energy(x) ** 2 <= bounds["duality_gap"].value * truth.objective(x)
    # Stewart's perturbation: ‖P r‖ relative to ‖x‖ and the columns, all at unit norm.
    size = mp.sqrt(mp.fsum(truth.hessian[j, j] * x[j] ** 2 for j in range(len(x))))
    if size > 0:
        stewart = truth.energy(x) / size / mp.sqrt(len(x))
        consistent = mp.sqrt(truth.objective(x)) / size / mp.sqrt(len(x))
        assert min(stewart, consistent) <= bounds["backward_error"].value * (1 + mp.mpf("1e-6"))


def conditioned(rng, n, d, condition):
    """A matrix with singular values spread evenly, in logarithm, from 1 down to 1 / condition."""
    u, _ = np.linalg.qr(rng.standard_normal((n, d)))
    v, _ = np.linalg.qr(rng.standard_normal((d, d)))
    return u * np.logspace(0, -np.log10(condition), d) @ v.T


@st.composite
def hostile(draw):
    """A problem with any conditioning, scaling, offset, weights and ridge; its columns independent."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    d = draw(st.integers(1, 6))
    n = draw(st.integers(d + 2, 40))
    a = conditioned(rng, n, d, 10.0 ** draw(st.floats(0, 13)))
    a *= 10.0 ** rng.uniform(-1, 1, d) ** 1 if draw(st.booleans()) else 10.0 ** rng.uniform(-40, 40, d)
    if draw(st.booleans()):
        a = np.vstack([a, a[: n // 2]])
    intercept = draw(st.booleans())
    if intercept:
        a += np.abs(a).max(axis=0) * 10.0 ** draw(st.floats(-2, 4))
    noise = 10.0 ** draw(st.floats(-14, 1))
    b = a @ (rng.standard_normal(d) / np.abs(a).max(axis=0)) + noise * rng.standard_normal(len(a))
    if draw(st.booleans()):
        b = rng.standard_normal(len(a))
    b = b * 10.0 ** draw(st.floats(-30, 30))
    weights = rng.exponential(size=len(a)) * 10.0 ** draw(st.floats(-20, 20)) if draw(st.booleans()) else None
    ridge = 10.0 ** draw(st.floats(-6, 3)) if draw(st.booleans()) else 0.0
    return a, b, ridge, intercept, weights, draw(st.sampled_from(METHODS))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(hostile())
def test_no_bound_is_ever_below_the_truth(problem):
    a, b, ridge, intercept, weights, method = problem
    solution = ly.lstsq(a, b, ridge=ridge, intercept=intercept, weights=weights, method=method)
    if solution.rank < a.shape[1] + intercept:
        assert solution.certificate.forward_error_bound is None
        return
    truth = LeastSquaresTruth(a, b, ridge=ridge, intercept=intercept, weights=weights)
    assert_bounds_are_true(solution, truth, ridge=ridge, intercept=intercept)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("decades", [0, 2, 4, 6, 8, 10, 12, 14])
def test_the_certificate_holds_at_any_condition_number(method, decades):
    rng = np.random.default_rng(decades)
    a = conditioned(rng, 300, 8, 10.0**decades)
    b = a @ rng.standard_normal(8) + 1e-4 * rng.standard_normal(300)
    solution = ly.lstsq(a, b, method=method)
    assert solution.certificate.holds
    assert solution.certificate.backward_error <= 1e-14
    assert_bounds_are_true(solution, LeastSquaresTruth(a, b))
    condition = solution.certificate.bounds["condition"]
    assert condition.lower <= np.linalg.cond(a / np.linalg.norm(a, axis=0)) * 2.1
    assert condition.value >= np.linalg.cond(a / np.linalg.norm(a, axis=0)) / 2.1


@pytest.mark.parametrize(
    "dtype", [np.float64, np.float32, np.float16, np.int8, np.int16, np.int32, np.int64, np.uint8, bool]
)
def test_numbers_of_every_type_are_used_exactly_as_given(dtype):
    rng = np.random.default_rng(0)
    a = np.maximum(rng.standard_normal((50, 3)) * 20, -20 if np.dtype(dtype).kind == "f" else 0).astype(dtype)
    b = rng.standard_normal(50)
    solution = ly.lstsq(a, b)
    assert solution.certificate.holds
    assert_bounds_are_true(solution, LeastSquaresTruth(a.astype(np.float64), b))


def test_forward_tolerance_buys_the_last_digits():
    rng = np.random.default_rng(1)
    a = conditioned(rng, 400, 10, 1e7)
    b = a @ rng.standard_normal(10) + 1e-3 * rng.standard_normal(400)
    solution = ly.lstsq(a, b, forward_tol=1e-12)
    assert solution.certificate.bounds["forward_error"].holds
    truth = LeastSquaresTruth(a, b)
    error = norm([v - t for v, t in zip(unknowns(solution), truth.x, strict=True)])
    assert error <= 1e-12 * norm(truth.x)


def test_a_polynomial_basis_keeps_every_digit_its_columns_hold():
    t = np.linspace(0, 1, 200)[:, None] ** np.arange(10) * 10.0 ** np.linspace(-60, 60, 10)
    b = np.cos(3 * np.linspace(0, 1, 200))
    solution = ly.lstsq(t, b)
    assert solution.rank == 10
    assert solution.certificate.holds
    assert_bounds_are_true(solution, LeastSquaresTruth(t, b))


@pytest.mark.parametrize("method", ["auto", "tsqr", "sketch"])
def test_duplicated_columns_share_the_minimum_norm_solution(method):
    rng = np.random.default_rng(2)
    half = rng.standard_normal((400, 5))
    b = half @ np.arange(1.0, 6) + rng.standard_normal(400)
    solution = ly.lstsq(np.hstack([half, half]), b, method=method)
    truth = np.array([float(v) for v in LeastSquaresTruth(half, b).x])
    assert solution.rank == 5
    assert solution.certificate.holds
    assert solution.certificate.forward_error_bound is None
    np.testing.assert_allclose(solution.x, np.concatenate([truth, truth]) / 2, rtol=1e-11)


def test_dependent_columns_of_any_scale_still_give_the_minimum_norm_solution():
    rng = np.random.default_rng(3)
    a = rng.standard_normal((100, 3))
    a = np.column_stack([a, 1000 * a[:, 0]])
    b = a @ np.ones(4) + rng.standard_normal(100)
    solution = ly.lstsq(a, b)
    expected = np.linalg.lstsq(a, b, rcond=1e-12)[0]
    assert solution.rank == 3
    np.testing.assert_allclose(solution.x, expected, rtol=1e-9)


@pytest.mark.parametrize("intercept", [False, True])
def test_constant_and_zero_columns(intercept):
    rng = np.random.default_rng(4)
    a = np.column_stack([rng.standard_normal(60), np.zeros(60), np.full(60, 0.1)])
    b = rng.standard_normal(60) + 3
    solution = ly.lstsq(a, b, intercept=intercept)
    assert solution.certificate.holds
    assert solution.x[1] == 0
    if intercept:
        assert solution.rank == 2
        assert abs(solution.x[2]) < 1e-12
    else:
        assert solution.rank == 2
        assert_bounds = LeastSquaresTruth(a[:, [0, 2]], b)
        np.testing.assert_allclose(solution.x[[0, 2]], [float(v) for v in assert_bounds.x], rtol=1e-12)


@pytest.mark.parametrize("intercept", [False, True])
def test_more_columns_than_rows_give_the_minimum_norm_interpolant(intercept):
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((6, 20)), rng.standard_normal(6)
    solution = ly.lstsq(a, b, intercept=intercept)
    centred, target = (a - a.mean(axis=0), b - b.mean()) if intercept else (a, b)
    np.testing.assert_allclose(solution.x, np.linalg.lstsq(centred, target, rcond=None)[0], rtol=1e-10)
    assert solution.rank == 6
    assert solution.certificate.holds
    np.testing.assert_allclose(solution.predict(a), b, rtol=1e-12)


def test_one_row_one_column_and_both():
    one = ly.lstsq(np.array([[2.0]]), np.array([3.0]))
    assert one.x[0] == 1.5
    assert one.certificate.holds
    assert ly.lstsq(np.array([[3.0, 4.0]]), np.array([25.0])).x == pytest.approx([3.0, 4.0])
    tall = ly.lstsq(np.ones((7, 1)), np.arange(7.0))
    assert tall.x[0] == pytest.approx(3.0, rel=1e-15)


def test_a_zero_right_hand_side_has_the_zero_solution():
    solution = ly.lstsq(np.random.default_rng(6).standard_normal((30, 4)), np.zeros(30))
    assert (solution.x == 0).all()
    assert solution.certificate.holds
    assert solution.certificate.backward_error == 0


def test_an_all_zero_matrix_has_rank_zero():
    solution = ly.lstsq(np.zeros((10, 3)), np.ones(10))
    assert solution.rank == 0
    assert (solution.x == 0).all()
    assert solution.certificate.holds
    condition = solution.certificate.bounds["condition"]
    assert (condition.value, condition.lower) == (1.0, 1.0)


def test_a_perfect_fit_is_certified():
    rng = np.random.default_rng(7)
    a = rng.integers(-9, 9, (50, 4)).astype(float)
    solution = ly.lstsq(a, a @ np.array([1.0, -2.0, 3.0, 4.0]), forward_tol=1e-16)
    np.testing.assert_array_equal(solution.x, [1, -2, 3, 4])
    assert solution.certificate.holds


def test_several_targets_are_solved_as_one_each():
    rng = np.random.default_rng(8)
    a, b = rng.standard_normal((200, 5)), rng.standard_normal((200, 3))
    together = ly.lstsq(a, b, intercept=True)
    assert together.x.shape == (5, 3)
    for t in range(3):
        alone = ly.lstsq(a, b[:, t], intercept=True)
        np.testing.assert_allclose(together.x[:, t], alone.x, rtol=1e-13)
        assert together.intercept[t] == pytest.approx(alone.intercept, rel=1e-12)


def test_the_answer_has_as_many_dimensions_as_the_target():
    rng = np.random.default_rng(8)
    a, b = rng.standard_normal((50, 3)), rng.standard_normal(50)
    flat, column = ly.lstsq(a, b, intercept=True), ly.lstsq(a, b[:, None], intercept=True)
    assert (flat.x.shape, column.x.shape) == ((3,), (3, 1))
    np.testing.assert_array_equal(column.x[:, 0], flat.x)
    assert (column.coefficient_error.shape, column.intercept.shape, column.r2.shape) == ((3, 1), (1,), (1,))
    assert column.predict(a).shape == (50, 1)
    assert str(column).splitlines()[:2] == str(flat).splitlines()[:2]
    assert ly.lstsq(np.column_stack([a, b]), 3).x.shape == (3,)


@pytest.mark.parametrize("method", METHODS)
def test_weights_count_rows(method):
    rng = np.random.default_rng(9)
    a, b = rng.standard_normal((300, 4)), rng.standard_normal(300)
    times = rng.integers(0, 4, 300)
    weighted = ly.lstsq(a, b, weights=times, intercept=True, method=method, forward_tol=1e-13)
    repeated = ly.lstsq(np.repeat(a, times, axis=0), np.repeat(b, times), intercept=True, forward_tol=1e-13)
    np.testing.assert_allclose(weighted.x, repeated.x, rtol=1e-12)
    assert weighted.certificate.holds
    assert weighted.r2 == pytest.approx(repeated.r2, rel=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("intercept", [False, True])
def test_sparse_rows_give_the_dense_answer(method, intercept):
    a = sp.random_array((500, 12), density=0.2, rng=np.random.default_rng(10), format="csr")
    b = np.random.default_rng(11).standard_normal(500)
    sparse = ly.lstsq(a, b, ridge=0.5, intercept=intercept, method=method, forward_tol=1e-13)
    dense = ly.lstsq(a.toarray(), b, ridge=0.5, intercept=intercept, forward_tol=1e-13)
    np.testing.assert_allclose(sparse.x, dense.x, rtol=1e-12)
    assert sparse.certificate.holds


@pytest.mark.parametrize("method", METHODS)
def test_the_same_bits_whatever_the_number_of_threads(method):
    rng = np.random.default_rng(12)
    a, b = rng.standard_normal((200_000, 12)), rng.standard_normal(200_000)
    answers = [ly.lstsq(a, b, method=method, threads=threads, intercept=True) for threads in (1, 2, 3)]
    assert len({answer.x.tobytes() for answer in answers}) == 1
    assert len({answer.certificate.backward_error for answer in answers}) == 1


def test_float32_sums_over_many_rows_far_from_zero_are_right():
    rng = np.random.default_rng(13)
    a = (rng.standard_normal((300_000, 3)) + 1000).astype(np.float32)
    b = (a.astype(np.float64) @ [1.0, 2.0, 3.0] + 7).astype(np.float32)
    solution = ly.lstsq(a, b, intercept=True)
    wide = a.astype(np.longdouble)
    centred = wide - wide.mean(axis=0)
    target = b.astype(np.longdouble) - b.astype(np.longdouble).mean()
    expected = np.linalg.solve((centred.T @ centred).astype(float), (centred.T @ target).astype(float))
    np.testing.assert_allclose(solution.x, expected, rtol=1e-10)


def test_a_method_that_cannot_be_certified_hands_over_to_one_that_can():
    rng = np.random.default_rng(14)
    a = conditioned(rng, 500, 6, 1e9)
    solution = ly.lstsq(a, rng.standard_normal(500), method="gram32")
    assert solution.plan.method in ("tsqr", "sketch")
    assert solution.certificate.bounds["condition"].lower > 1e8
    assert any("could not be certified" in remark for remark in solution.trace.remarks)


def test_a_tolerance_that_cannot_be_met_is_said_not_hidden():
    rng = np.random.default_rng(15)
    solution = ly.lstsq(rng.standard_normal((50, 3)), rng.standard_normal(50), tol=1e-30)
    assert not solution.certificate.holds
    assert "NOT MET" in str(solution.certificate)
    assert any("above the 1e-30 asked for" in remark for remark in solution.trace.remarks)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"ridge": -1.0}, "ridge"),
        ({"ridge": float("nan")}, "ridge"),
        ({"tol": 0.0}, "tol"),
        ({"method": "magic"}, "method='magic' is not one of"),
        ({"memory": "lots"}, "memory='lots' is not an amount"),
    ],
)
def test_impossible_options_are_refused_in_a_sentence(options, sentence):
    with pytest.raises(ly.OptionError, match=sentence):
        ly.lstsq(np.ones((3, 1)), np.ones(3), **options)


def test_no_target_is_a_sentence():
    with pytest.raises(ly.OptionError, match="there is no target"):
        ly.lstsq(np.ones((3, 1)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("method", METHODS)
def test_a_value_that_is_not_a_number_is_located(value, method):
    a, b = np.random.default_rng(16).standard_normal((5000, 3)), np.ones(5000)
    a[4321, 1] = value
    with pytest.raises(ly.DataError, match=r"row 4,321: (NaN|infinity) in column 'x1'"):
        ly.lstsq(a, b, method=method)
    b[77], a[4321, 1] = value, 0.0
    with pytest.raises(ly.DataError, match=r"row 77: (NaN|infinity) in column 'target'"):
        ly.lstsq(a, b, method=method)


def test_a_negative_weight_is_located():
    weights = np.ones(100)
    weights[42] = -1
    with pytest.raises(ly.DataError, match=r"row 42: weight -1 is negative"):
        ly.lstsq(np.random.default_rng(0).standard_normal((100, 2)), np.ones(100), weights=weights)


def test_a_budget_too_small_for_one_row_is_refused_before_anything_runs():
    with pytest.raises(ly.BudgetError, match=r"too small.*Give at least"):
        ly.lstsq(np.ones((10, 2000)), np.ones(10), memory="1kB")


@pytest.mark.parametrize("method", ["gram32", "gram64", "tsqr", "sketch"])
@pytest.mark.parametrize(("columns", "target", "weight", "ridge"), [
    (1.0, 1e-150, 1.0, 0.0), (1.0, 1e-170, 1.0, 0.0), (1e150, 1.0, 1.0, 0.0), (1e-150, 1e-150, 1.0, 0.0),
    (1.0, 1.0, 1e-300, 0.0), (1.0, 1.0, 1.0, 1e300),
])  # fmt: skip
def test_sizes_whose_squares_leave_float64_are_refused(method, columns, target, weight, ridge):
    rng = np.random.default_rng(17)
    a, b = rng.standard_normal((60, 4)) * columns, rng.standard_normal(60) * target
    with pytest.raises(ly.DataError, match=r"leave the range of float64|overflow"):
        ly.lstsq(a, b, weights=np.full(60, weight), ridge=ridge, method=method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("columns", "target", "weight"), [(1e-60, 1e30, 1.0), (1e60, 1e-60, 1e40), (1.0, 1e-90, 1.0)])
def test_sizes_far_from_one_keep_true_bounds(method, columns, target, weight):
    rng = np.random.default_rng(18)
    a, b = rng.standard_normal((60, 4)) * columns, rng.standard_normal(60) * target
    w = rng.exponential(size=60) * weight
    solution = ly.lstsq(a, b, weights=w, method=method)
    assert solution.certificate.holds
    assert_bounds_are_true(solution, LeastSquaresTruth(a, b, weights=w))


def test_a_rare_tiny_column_does_not_underflow_unnoticed():
    rng = np.random.default_rng(19)
    a = rng.standard_normal((20_000, 3)).astype(np.float32)
    a[:, 2] = 0
    a[1000:1300, 2] = np.float32(np.sqrt(0.51 * 2.0**-149)) * rng.choice([-1, 1], 300)
    b = rng.standard_normal(20_000)
    solution = ly.lstsq(a, b, method="gram32")
    assert solution.plan.method != "gram32"
    assert solution.certificate.holds


def test_forward_tolerance_cannot_be_met_by_dependent_columns():
    rng = np.random.default_rng(20)
    half = rng.standard_normal((50, 2))
    solution = ly.lstsq(np.hstack([half, half]), rng.standard_normal(50), forward_tol=1e-8)
    assert not solution.certificate.holds


def test_weights_that_are_all_zero_and_masked_values_are_refused():
    a, b = np.random.default_rng(21).standard_normal((20, 2)), np.ones(20)
    with pytest.raises(ly.DataError, match="all weights are zero"):
        ly.lstsq(a, b, weights=np.zeros(20))
    with pytest.raises(ly.DataError, match="masked"):
        ly.lstsq(np.ma.masked_greater(a, 1.0), b)
    with pytest.raises(ly.DataError, match="masked"):
        ly.lstsq(a, np.ma.masked_array(b, mask=[True] + [False] * 19))


def test_generated_rows_are_solved():
    rows = ly.generated(
        lambda start, stop, random: (x := random.standard_normal((stop - start, 3)), x @ np.array([1.0, 2.0, 3.0])),
        10_000,
        3,
        seed=0,
    )
    np.testing.assert_allclose(ly.lstsq(rows).x, [1, 2, 3], rtol=1e-14)


def test_a_method_that_does_not_fit_gives_way_to_one_that_does(monkeypatch):
    monkeypatch.setattr(reductions, "NARROW", 0)  # LAPACK's memory, whatever this processor has
    rng = np.random.default_rng(0)
    a, b = conditioned(rng, 4000, 300, 1e12), rng.standard_normal(4000)
    planned = ly.plan.lstsq(a, b, memory="20MB")
    assert planned.method == "sketch"
    assert {name: why for name, _, why in planned.alternatives}["tsqr"] == "does not fit the budget"
    with pytest.raises(ly.BudgetError, match=r"Give at least memory=.* method='sketch' fits as it is"):
        ly.plan.lstsq(a, b, memory="20MB", method="tsqr")
    with pytest.raises(ly.BudgetError, match="Give at least memory="):
        ly.plan.lstsq(a, b, memory="1MB")


def test_what_takes_over_from_a_method_that_fails_fits_the_budget_too(monkeypatch):
    monkeypatch.setattr(reductions, "NARROW", 0)  # LAPACK's memory, whatever this processor has
    rng = np.random.default_rng(0)
    a, b = conditioned(rng, 4000, 300, 1e12), rng.standard_normal(4000)
    for memory in ("20MB", "30MB"):
        solution = ly.lstsq(a, b, memory=memory, method="gram64")
        assert solution.plan.method == "sketch"
        assert solution.certificate.holds
    said = r"gram64 could not be certified .*, and a budget of 15 MB is too small for sketch: one thread"
    with pytest.raises(ly.BudgetError, match=said) as refused:
        ly.lstsq(a, b, memory="15MB", method="gram64")
    assert ly.lstsq(a, b, memory=refused.value.hint.split('"')[1], method="gram64").plan.method == "sketch"


def test_a_sketch_takes_over_where_householder_qr_does_not_fit(monkeypatch):
    monkeypatch.setattr(reductions, "NARROW", 0)  # LAPACK's memory, whatever this processor has
    rng = np.random.default_rng(0)
    a, b = conditioned(rng, 4000, 150, 1e12), rng.standard_normal(4000)
    assert ly.lstsq(a, b, memory="8MB", method="gram64").plan.method == "tsqr"
    solution = ly.lstsq(a, b, memory="5.3MB", method="gram64")
    assert solution.plan.method == "sketch"
    assert "tsqr does not fit the budget" in solution.trace.remarks
