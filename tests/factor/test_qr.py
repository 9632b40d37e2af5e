"""QR: R and Q against NumPy and exact arithmetic, every bound against the truth, on matrices built to break them."""

from __future__ import annotations

import itertools
import re

import mpmath as mp
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.truth import exact, norm

import leyden as ly
from leyden.errors import BudgetError, DataError, OptionError, SolutionError
from leyden.factor.orthogonal import Basis
from leyden.solve.choose import METHODS


def hilbert(n, d):
    return 1 / (np.arange(1.0, n + 1)[:, None] + np.arange(d))


def conditioned(rng, n, d, decades):
    """Singular values from 1 to ``10^−decades``."""
    q, _ = np.linalg.qr(rng.standard_normal((n, d)))
    v, _ = np.linalg.qr(rng.standard_normal((d, d)))
    return q * np.logspace(0, -decades, d) @ v.T


def hostile(name, rng, n=400, d=9):
    a = rng.standard_normal((n, d))
    if name == "hilbert":
        return hilbert(n, d)
    if name == "vandermonde":
        return np.vander(np.linspace(0, 1, n), d)
    if name == "scaled":
        return a * 10.0 ** np.linspace(-150, 150, d)
    if name == "far from zero":
        return a + 1e8
    if name == "constant column":
        a[:, 3] = -7
    if name == "condition 1e14":
        return conditioned(rng, n, d, 14)
    if name == "float32":
        return a.astype(np.float32)
    if name == "integers":
        return rng.integers(-9, 9, (n, d))
    if name == "one large row":
        a[n // 2] *= 1e12
    if name == "few rows count":
        a[d + 2 :] = 0
    if name == "square":
        return a[:d]
    if name == "one column":
        return a[:, :1]
    if name == "one number":
        return a[:1, :1]
    if name == "sparse":
        return sp.random_array((n, d), density=0.3, format="csr", rng=rng)
    return a


HOSTILE = (
    "plain", "hilbert", "vandermonde", "scaled", "far from zero", "constant column", "condition 1e14", "float32",
    "integers", "one large row", "few rows count", "square", "one column", "one number", "sparse",
)  # fmt: skip


def dense(a):
    return np.asarray(a.todense() if sp.issparse(a) else a, dtype=np.float64)


def scaled_to_one(a):
    top = np.abs(a).max(axis=0)
    return a / (top * np.linalg.norm(a / top, axis=0))


@pytest.mark.parametrize("method", ["auto", *METHODS])
@pytest.mark.parametrize("name", HOSTILE)
def test_q_and_r_are_right_to_the_unit_roundoff(name, method):
    a = hostile(name, np.random.default_rng(1))
    found = ly.qr(a, q=True, method=method, memory="1GB")
    assert found.certificate.holds
    assert max(bound.value for bound in found.certificate.bounds.values()) < 1e-14
    assert np.array_equal(found.R, np.triu(found.R))
    assert (np.diag(found.R) > 0).all()
    a, q = dense(a), found.Q.astype(np.longdouble)
    sizes = np.abs(a).max(axis=0).astype(np.longdouble)
    sizes = sizes * np.linalg.norm((a / sizes).astype(float), axis=0)
    assert np.linalg.norm((q.T @ q - np.eye(a.shape[1])).astype(float)) <= found.certificate.orthogonality + 1e-17
    residual = (a.astype(np.longdouble) - q @ found.R.astype(np.longdouble)) / sizes
    columns = np.linalg.norm(residual.astype(float), axis=0)
    assert columns.max() <= found.certificate.bounds["residual"].value * (1 + 1e-9) + 1e-17
    assert ly.verify(found, a).holds


@pytest.mark.parametrize("name", ["plain", "constant column", "float32", "integers", "square", "one column", "sparse"])
def test_r_is_that_of_numpy_up_to_signs(name):
    a = dense(hostile(name, np.random.default_rng(2)))
    expected = np.linalg.qr(a, mode="r")
    expected *= np.sign(np.diag(expected))[:, None]
    np.testing.assert_allclose(ly.qr(a).R, expected, atol=1e-12 * np.abs(expected).max())


def matrix(seed, n, d, decades, spread, dtype):
    rng = np.random.default_rng(seed)
    d = min(n, d)
    a = conditioned(rng, n, d, decades if d > 1 else 0) * 10.0 ** rng.uniform(-spread, spread, d)
    return a.astype(dtype)


matrices = st.builds(
    matrix,
    st.integers(0, 2**32 - 1),
    st.integers(1, 14),
    st.integers(1, 4),
    st.floats(0, 14),
    st.sampled_from([0, 3, 30, 140]),
    st.just(np.float64),
) | st.builds(
    matrix, st.integers(0, 2**32 - 1), st.integers(1, 14), st.integers(1, 4), st.floats(0, 5), st.just(3),
    st.just(np.float32),
)  # fmt: skip


def spectral_norm(m):
    return max(mp.svd_r(m, compute_uv=False))


@settings(max_examples=300)
@given(matrices, st.sampled_from(["gram64", "tsqr"]))
def test_every_bound_holds_in_extended_precision(a, method):
    found = ly.qr(a, q=True, method=method, memory="1GB")
    (n, d), bounds = a.shape, found.certificate.bounds
    assert found.certificate.holds
    truth, r, q = exact(a), exact(found.R), exact(found.Q)
    lengths = [norm(truth[:, j]) for j in range(d)]

    # What was written.
    assert norm(q.T * q - mp.eye(d)) <= bounds["orthogonality"].value
    residual = truth - q * r
    assert max(norm(residual[:, j]) / lengths[j] for j in range(d)) <= bounds["residual"].value

    # R alone, with columns at unit norm: no Q fits better than that of Procrustes, and one is as near as said.
    weights = mp.diag([1 / length for length in lengths])
    fitted = truth * weights * weights * r.T
    nuclear = mp.fsum(mp.svd_r(fitted, compute_uv=False))
    distance2 = norm(truth * weights) ** 2 + norm(r * weights) ** 2 - 2 * nuclear
    assert mp.sqrt(max(distance2, 0)) <= mp.sqrt(d) * bounds["backward_error"].value + mp.mpf(10) ** -50

    # The basis, before its last rounding.
    y = np.ascontiguousarray(ly.open(a).map(Basis(found._scale, found._first)).read(0, n).data)
    basis = exact(y) * exact(found._core)
    mapped = ly.qr(a, method=method, memory="1GB").certificate.orthogonality
    assert spectral_norm(basis.T * basis - mp.eye(d)) <= mapped


@pytest.mark.parametrize("scale", [1e-150, 1.0, 1e150])
def test_a_matrix_in_other_units_has_the_same_factors_to_the_bit(scale):
    power = 2.0 ** round(np.log2(scale))
    a = np.random.default_rng(3).standard_normal((100, 5))
    one, other = ly.qr(a, q=True), ly.qr(a * power, q=True)
    np.testing.assert_array_equal(one.R * power, other.R)
    np.testing.assert_array_equal(one.Q, other.Q)


def test_condition_1e15_is_not_refused():
    a = conditioned(np.random.default_rng(4), 300, 6, 15)
    a = scaled_to_one(a)
    for method in ("tsqr", "sketch"):
        found = ly.qr(a, q=True, method=method)
        assert found.certificate.holds
        assert max(bound.value for bound in found.certificate.bounds.values()) < 1e-14


# ------------------------------------------------------------ what cannot be factored


def test_dependent_columns_are_refused_by_name():
    a = np.random.default_rng(5).standard_normal((200, 4))
    a = np.column_stack([a, a[:, 1] + a[:, 3]])
    for method in ("auto", *METHODS):
        with pytest.raises(DataError, match=r"column 'x4' is a combination of 'x1', 'x3'.*leyden\.svd"):
            ly.qr(a, method=method)


def test_repeated_columns_are_refused():
    a = np.random.default_rng(5).integers(0, 5, (200, 3)).astype(float)
    with pytest.raises(DataError, match="'x3' is a combination of 'x0'"):
        ly.qr(np.column_stack([a, a[:, 0]]))


def test_zero_columns_are_refused_by_name():
    a = np.random.default_rng(5).standard_normal((50, 4))
    a[:, [1, 2]] = 0
    for method in ("auto", *METHODS):
        with pytest.raises(DataError, match="columns 'x1', 'x2' of zeros"):
            ly.qr(a, method=method)


def test_fewer_rows_than_columns_are_refused():
    with pytest.raises(OptionError, match="fewer rows than columns, 3 × 5"):
        ly.qr(np.ones((3, 5)))


def test_nan_is_located():
    a = np.random.default_rng(5).standard_normal((500, 4))
    a[321, 2] = np.nan
    for method in METHODS:
        with pytest.raises(DataError, match=r"row 321.*NaN in column 'x2'"):
            ly.qr(a, method=method)


def test_columns_at_the_end_of_the_range_are_refused():
    a = np.random.default_rng(5).standard_normal((50, 2)) * [1, 1e-305]
    with pytest.raises(DataError, match="'x1' has norm"):
        ly.qr(a)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tol": 2}, "tol=2"),
        ({"method": "householder"}, "method='householder'"),
        ({"q": 3}, "q=3"),
        ({"q": "Q.csv"}, r"Q\.csv: rows are written to a \.npy file"),
        ({"q": "/no/such/folder/Q.npy"}, "cannot be written"),
        ({"memory": "none"}, "memory='none'"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_options_that_cannot_be_used_are_refused_in_one_sentence(options, said):
    with pytest.raises(OptionError, match=said):
        ly.qr(np.eye(3), **options)


def test_rows_with_weights_are_refused():
    with pytest.raises(OptionError, match="weights"):
        ly.qr(ly.open(np.eye(3), weight=np.ones(3)))


def test_a_target_is_no_column():
    rng = np.random.default_rng(6)
    a, b = rng.standard_normal((100, 3)), rng.standard_normal(100)
    for method in METHODS:
        np.testing.assert_array_equal(ly.qr(ly.open(a, target=b), method=method).R, ly.qr(a, method=method).R)
    s = sp.csr_array(a)
    np.testing.assert_allclose(ly.qr(ly.open(s, target=b), method="gram64").R, ly.qr(a).R, atol=1e-12)


# ------------------------------------------------------------ where Q goes


@pytest.fixture
def large(tmp_path):
    """A file of 40,000 × 12, some five times what the reader may take."""
    a = np.random.default_rng(7).standard_normal((40_000, 12)) + 3
    np.save(tmp_path / "a.npy", a)
    return a, tmp_path / "a.npy"


def test_q_is_written_beside_the_data_within_a_small_budget(large, tmp_path):
    a, path = large
    found = ly.qr(path, q=tmp_path / "q.npy", memory="2MB")
    assert found.certificate.holds
    q = np.load(tmp_path / "q.npy")
    assert q.shape == a.shape
    np.testing.assert_allclose(q @ found.R, a, atol=1e-13)
    np.testing.assert_array_equal(found.Q.read(100, 200).data, q[100:200])
    assert len(found.trace.passes) == len(found.plan.passes) == 3
    assert found.plan.peak <= 2_000_000
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.npy", "q.npy"]
    assert ly.verify(found, path).holds
    q[17, 3] += 1e-9
    np.save(tmp_path / "q.npy", q)
    found.Q = ly.open(tmp_path / "q.npy")
    assert not ly.verify(found, path).holds


def test_q_is_not_written_over_the_data(large):
    with pytest.raises(OptionError, match="written over"):
        ly.qr(large[1], q=large[1])


def test_a_failed_run_leaves_no_file(tmp_path):
    a = np.random.default_rng(8).standard_normal((1000, 3))
    a[:, 2] = a[:, 1]
    with pytest.raises(DataError):
        ly.qr(a, q=tmp_path / "q.npy")
    assert not list(tmp_path.iterdir())


def test_a_q_that_does_not_fit_is_refused_before_the_work(large):
    with pytest.raises(BudgetError, match=r"a Q of 3\.84 MB.*write Q to a file"):
        ly.qr(large[1], q=True, memory="3MB")


def test_a_budget_that_is_too_small_says_what_would_do(large):
    with pytest.raises(BudgetError) as refused:
        ly.qr(large[1], memory="100kB")
    enough = re.search(r'memory="(\w+)"', str(refused.value))[1]
    assert ly.qr(large[1], memory=enough).certificate.holds


def test_rows_of_q_are_made_when_they_are_read(large):
    a, path = large
    found = ly.qr(path, q=True)
    rows = found.q(path)
    assert rows.shape == a.shape
    assert rows.columns[:2] == ("q0", "q1")
    np.testing.assert_allclose(rows.read(1000, 1300).data, found.Q[1000:1300], atol=1e-16)
    others = np.random.default_rng(0).standard_normal((20, 12))
    np.testing.assert_allclose(found.q(others).read(0, 20).data @ found.R, others, atol=1e-12)
    with pytest.raises(DataError, match="3 columns"):
        found.q(np.ones((5, 3)))


def test_rows_of_q_are_orthonormal_however_they_are_cut():
    a = np.vander(np.linspace(0, 1, 1000), 17)  # condition 1e12: rounding of R⁻¹ alone would be seen
    rows = ly.qr(a).q(a)
    cuts = [0, 1, 7, 300, 301, 640, 1000]
    q = np.vstack([rows.read(i, j).data for i, j in itertools.pairwise(cuts)])
    assert np.linalg.norm(q.T @ q - np.eye(17)) < 1e-14


# ------------------------------------------------------------ the same bits, plans, checkpoints


@pytest.mark.parametrize("method", METHODS)
def test_the_bits_do_not_depend_on_the_threads(large, method):
    one, other = (ly.qr(large[1], q=True, method=method, memory="20MB", threads=t, seed=3) for t in (1, 4))
    np.testing.assert_array_equal(one.R, other.R)
    np.testing.assert_array_equal(one.Q, other.Q)


def test_a_plan_says_what_will_be_done_and_does_it(large):
    planned = ly.plan.qr(large[1], q=True, memory="50MB")
    assert [p.name for p in planned.passes][1:] == ["A R⁻¹, certificate", "Q"]
    assert planned.peak <= 50_000_000
    found = planned.run()
    assert [p.name for p in found.trace.passes] == [p.name for p in planned.passes]
    assert "qr" in str(planned)


def test_where_a_method_is_not_up_to_the_columns_the_next_one_takes_over():
    found = ly.qr(hilbert(300, 9), method="gram32")
    assert found.plan.method == "tsqr"
    assert "gram32 could not be certified on this data" in found.trace.remarks
    assert found.certificate.holds


class Stop(Exception):
    pass


@pytest.mark.parametrize("left_in", [1, 2, 3])
def test_a_run_that_was_left_goes_on_to_the_same_bits(large, tmp_path, monkeypatch, left_in):
    from leyden.engine.local import Local

    path, folder = large[1], tmp_path / "kept"
    options = {"q": tmp_path / "q.npy", "memory": "4MB", "method": "tsqr"}
    whole = ly.qr(path, **options)
    expected = (tmp_path / "q.npy").read_bytes()
    (tmp_path / "q.npy").unlink()

    fold, passes = Local.fold, []

    def leave(self, rows, reductions, layout, tree, *others, **more):
        passes.append(layout)
        if len(passes) == left_in:
            raise Stop
        return fold(self, rows, reductions, layout, tree, *others, **more)

    monkeypatch.setattr(Local, "fold", leave)
    with pytest.raises(Stop):
        ly.qr(path, **options, checkpoint=folder)
    monkeypatch.setattr(Local, "fold", fold)
    again = ly.qr(path, **options, checkpoint=folder)
    assert "pass 1 was complete in the checkpoint" in again.trace.remarks or left_in == 1
    np.testing.assert_array_equal(again.R, whole.R)
    assert (tmp_path / "q.npy").read_bytes() == expected
    assert not folder.exists()


# ------------------------------------------------------------ saved and verified


@pytest.fixture
def saved(tmp_path):
    a = conditioned(np.random.default_rng(9), 300, 5, 9)
    found = ly.qr(a, q=True)
    found.save(tmp_path / "saved")
    return a, found, tmp_path / "saved"


def test_a_saved_factorization_comes_back_and_verifies(saved):
    a, found, folder = saved
    again = ly.load(folder)
    np.testing.assert_array_equal(again.R, found.R)
    np.testing.assert_array_equal(again.Q, found.Q)
    np.testing.assert_array_equal(again.q(a).read(0, 300).data, found.q(a).read(0, 300).data)
    assert ly.verify(folder, a).holds
    assert ly.verify(folder, sp.csr_array(a)).holds
    assert "certificate HOLDS" in str(again)


@pytest.mark.parametrize("name", ["R", "first", "core", "Q"])
def test_a_changed_number_of_the_answer_is_found(saved, name):
    a, _, folder = saved
    array = np.load(folder / f"{name}.npy")
    array[0, 0] *= 1 + 1e-11
    np.save(folder / f"{name}.npy", array)
    assert not ly.verify(folder, a).holds


def test_a_changed_row_of_the_data_is_found(saved):
    a, _, folder = saved
    a[123, 2] += 1e-11
    assert not ly.verify(folder, a).holds


def test_other_data_is_refused(saved):
    a, _, folder = saved
    assert "300 × 5" in ly.verify(folder, a[:200]).failures[0]
    assert not ly.verify(folder, np.random.default_rng(0).standard_normal(a.shape)).holds
    assert not ly.verify(folder, np.zeros(a.shape)).holds
    with pytest.raises(OptionError, match="no targets"):
        ly.verify(folder, a, np.ones(300))


def test_a_certificate_that_claims_more_than_is_true_is_found(saved):
    a, found, _ = saved
    bound = found.certificate.bounds["backward_error"]
    object.__setattr__(bound, "value", bound.value / 10)
    assert any("claims" in failure for failure in ly.verify(found, a).failures)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("R", lambda r: r[:3]),
        ("R", lambda r: r * np.nan),
        ("R", lambda r: r.T.copy()),
        ("first", lambda r: -r),
        ("scale", lambda s: s * 1.5),
        ("core", lambda k: k.astype(np.float32)),
    ],
)
def test_a_damaged_file_is_refused(saved, name, change):
    _, _, folder = saved
    np.save(folder / f"{name}.npy", change(np.load(folder / f"{name}.npy")))
    with pytest.raises(SolutionError, match=name):
        ly.load(folder)
