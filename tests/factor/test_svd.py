"""Truncated SVD and PCA: what is certified is true, and what is asked is reached."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import example, given, settings
from hypothesis import strategies as st

import leyden as ly
from leyden.errors import BudgetError, DataError, OptionError, SolutionError
from leyden.factor.enclosure import krylov_ceiling
from leyden.factor.krylov import KrylovSpace

_spec = importlib.util.spec_from_file_location("spectra", Path(__file__).with_name("spectra.py"))
spectra = importlib.util.module_from_spec(_spec)
sys.modules["spectra"] = spectra
_spec.loader.exec_module(spectra)

METHODS = ("gram", "krylov", "outer", "sketch")


def method_for(rng, n, d):
    method = METHODS[rng.integers(len(METHODS))]
    return "gram" if method == "outer" and n >= d else method


@settings(max_examples=150)
@given(st.integers(0, 2**32), st.sampled_from(sorted(spectra.SPECTRA)))
def test_enclosures_hold_the_singular_values(seed, kind):
    rng = np.random.default_rng(seed)
    d, n = int(rng.integers(1, 13)), int(rng.integers(1, 40))
    a = spectra.matrix(kind, n, d, rng)
    k = int(rng.integers(1, min(n, d) + 1))
    found = ly.svd(a, k, method=method_for(rng, n, d), seed=seed % 1000)
    assert not spectra.outside(found.lower, found.upper, spectra.singular_values(a))
    assert found.certificate.holds


@settings(max_examples=50)
@given(st.integers(0, 2**32), st.sampled_from(["decaying", "flat", "spread", "clustered"]), st.booleans())
def test_enclosures_hold_the_singular_values_of_centred_and_scaled_columns(seed, kind, scale):
    rng = np.random.default_rng(seed)
    d, n = int(rng.integers(2, 8)), int(rng.integers(10, 40))
    a = spectra.matrix(kind, n, d, rng)
    a = a[:, a.astype(float).std(axis=0) > 1e-6 * np.abs(a).max()]
    if a.shape[1] == 0:
        return
    k = int(rng.integers(1, a.shape[1] + 1))
    found = ly.pca(a, k, scale=scale, method=["gram", "krylov"][seed % 2], seed=seed % 1000)
    truth = spectra.singular_values(a, centre=True, deviation=found.scale)
    assert not spectra.outside(found.lower, found.upper, truth)


@pytest.mark.parametrize("method", ["gram", "krylov"])
@pytest.mark.parametrize("sparse", [False, True])
def test_it_agrees_with_lapack(method, sparse):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((400, 60)) * 0.8 ** np.arange(60)
    if sparse:
        a *= rng.random(a.shape) < 0.3
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    found = ly.svd(sp.csr_array(a) if sparse else a, 7, method=method, u=True, tol=1e-10)
    assert found.certificate.holds
    assert np.allclose(found.s, s[:7], rtol=1e-12)
    assert np.allclose(np.abs(found.Vt @ vt[:7].T), np.eye(7), atol=1e-8)
    assert np.allclose(np.abs(found.U.T @ u[:, :7]), np.eye(7), atol=1e-8)
    assert np.isclose(found.frobenius_norm, np.linalg.norm(a), rtol=1e-12)


@pytest.mark.parametrize("method", ["gram", "krylov", "outer"])
def test_the_certified_errors_are_those_of_the_factors(method):
    rng = np.random.default_rng(1)
    shape = (30, 80) if method == "outer" else (300, 40)
    a = rng.standard_normal(shape) @ np.diag(0.9 ** np.arange(shape[1]))
    found = ly.svd(a, 6, method=method, u=True)
    bounds = found.certificate.bounds
    left = a - found.U * found.s @ found.Vt
    norm = np.linalg.norm(a)
    assert bounds["frobenius_error"].lower <= np.linalg.norm(left) / norm * (1 + 1e-12)
    assert np.linalg.norm(left) / norm <= bounds["frobenius_error"].value * (1 + 1e-12)
    assert np.linalg.norm(left, 2) / found.s[0] <= bounds["spectral_error"].value * (1 + 1e-9)
    residual = np.linalg.norm(a.T @ found.U - found.Vt.T * found.s, axis=0)
    assert (residual <= found.residual * (1 + 1e-9) + 1e-12 * norm).all()
    assert np.linalg.norm(found.U.T @ found.U - np.eye(6)) <= bounds["left_orthonormality"].value + 1e-13


def test_a_norm_that_is_all_rounding_is_not_negative():
    for seed in range(30):
        a = np.random.default_rng(seed).standard_normal((7, 1)) * 1e-9 + 1.1
        found = ly.pca(sp.csr_array(a), 1, method="gram")
        assert not spectra.outside(found.lower, found.upper, spectra.singular_values(a, centre=True))


def test_relative_errors_are_relative_to_what_the_norms_may_be():
    rng = np.random.default_rng(28)
    a = np.linalg.qr(rng.standard_normal((17, 5)))[0] * [1, 1, 1e-2, 1e-2, 1e-2] + 1e4
    found = ly.pca(sp.csr_array(a), 2, method="gram")
    s = [float(value) for value in spectra.singular_values(a, centre=True)]
    spectral, frobenius = (found.certificate.bounds[name] for name in ("spectral_error", "frobenius_error"))
    assert spectral.lower <= s[2] / s[0] <= spectral.value
    assert frobenius.lower <= math.hypot(*s[2:]) / math.hypot(*s) <= frobenius.value


def test_the_angles_bound_the_distance_to_the_true_vectors():
    rng = np.random.default_rng(2)
    a = rng.standard_normal((200, 30)) * 0.7 ** np.arange(30)
    found = ly.svd(a, 5, method="krylov", tol=1e-3)
    truth = np.linalg.svd(a)[2][:5]
    cosine = np.abs((found.Vt * truth).sum(axis=1))
    assert (np.sqrt(np.maximum(1 - cosine**2, 0)) <= found.angle + 1e-7).all()
    assert (found.angle < 1).any()


def test_vectors_of_equal_singular_values_have_no_certified_direction():
    found = ly.svd(np.eye(5), 3, method="gram")
    assert (found.angle == 1).all()
    assert np.allclose(found.s, 1)


def test_the_zero_matrix_has_an_answer():
    for method in ("gram", "krylov", "sketch"):
        found = ly.svd(np.zeros((6, 4)), 2, method=method, u=True)
        assert found.certificate.holds
        assert (found.s == 0).all()
        assert np.allclose(found.Vt @ found.Vt.T, np.eye(2))
        assert not found.U.any()


@example(1e-150)
@example(1e150)
@settings(max_examples=20)
@given(st.floats(-150, 150).map(lambda e: 10.0**e))
def test_a_factor_of_the_matrix_is_one_of_its_singular_values(factor):
    a = np.random.default_rng(3).standard_normal((50, 8))
    one, other = ly.svd(a, 3), ly.svd(a * factor, 3)
    assert np.allclose(other.s / factor, one.s, rtol=1e-9)
    assert other.certificate.holds


@pytest.mark.parametrize("method", ["gram", "krylov"])
def test_what_is_small_and_rare_is_not_taken_for_zero(method):
    a = np.zeros((9000, 2))
    a[500] = [3e-170, 4e-170]
    found = ly.svd(a, 1, method=method)
    assert np.allclose(found.s / 5e-170, 1, rtol=1e-12)
    assert found.certificate.holds


@pytest.mark.parametrize("method", ["gram", "krylov"])
def test_columns_whose_squares_underflow_are_refused(method):
    a = np.column_stack([np.ones(50), 1e-200 * np.random.default_rng(26).standard_normal(50)])
    with pytest.raises(DataError, match="underflow"):
        ly.pca(a, 1, method=method)
    a[25:, 0] = 0
    with pytest.raises(DataError, match="'x1' has no variance"):
        ly.pca(a * [1, 1e42], 1, scale=True, method=method)


@pytest.mark.parametrize("factor", [1e-290, 5e307])
def test_the_ends_of_the_range(factor):
    a = np.array([[1, 0.5], [0.25, 0.5], [1, 1]]) * factor
    found = ly.svd(a, 1, u=True)
    assert not spectra.outside(found.lower, found.upper, spectra.singular_values(a))
    assert np.isclose(found.s[0], factor * np.linalg.svd(a / factor, compute_uv=False)[0], rtol=1e-12)
    assert ly.verify(found, a).holds


@pytest.mark.parametrize(("value", "why"), [(1e308, "overflow"), (1e-310, "underflow"), (5e-324, "underflow")])
def test_a_norm_that_is_no_normal_number_is_refused(value, why):
    with pytest.raises(DataError, match=why):
        ly.svd(np.full((300, 2), value), 1)


def test_rows_of_zero_and_their_order_do_not_matter():
    rng = np.random.default_rng(4)
    a = rng.standard_normal((60, 9))
    padded = np.vstack([a, np.zeros((13, 9))])[rng.permutation(73)]
    assert np.allclose(ly.svd(a, 4).s, ly.svd(padded, 4).s, rtol=1e-12)


def test_principal_components_do_not_move_with_the_origin():
    rng = np.random.default_rng(5)
    a = rng.standard_normal((500, 6)) * [5, 4, 3, 2, 1, 0.1]
    near, far = ly.pca(a, 3), ly.pca(a + 1e6, 3)
    assert np.allclose(near.s, far.s, rtol=1e-8)
    assert far.certificate.holds
    assert np.allclose(far.mean, a.mean(axis=0) + 1e6, rtol=1e-12)


def test_scaled_components_are_those_of_the_correlation_matrix():
    rng = np.random.default_rng(6)
    a = rng.standard_normal((300, 5)) @ rng.standard_normal((5, 5)) * 10.0 ** np.arange(5)
    for method in ("gram", "krylov"):
        found = ly.pca(a, 5, scale=True, method=method)
        values, _ = np.linalg.eigh(np.corrcoef(a.T))
        assert np.allclose(found.explained_variance, values[::-1], rtol=1e-9)
        assert np.isclose(found.explained_variance_ratio.sum(), 1)


def test_sparse_columns_are_centred_without_being_filled():
    a = sp.random_array((200, 30), density=0.1, rng=np.random.default_rng(7), format="csr")
    dense = a.toarray()
    for method in ("gram", "krylov"):
        found = ly.pca(a, 4, method=method)
        assert np.allclose(found.s, np.linalg.svd(dense - dense.mean(axis=0), compute_uv=False)[:4], rtol=1e-9)
        assert np.allclose(found.transform(a), (dense - dense.mean(axis=0)) @ found.Vt.T, atol=1e-10)
        assert ly.verify(found, a).holds


@pytest.mark.parametrize("method", ["gram", "krylov"])
@pytest.mark.parametrize("mean", [1e2, 1e4, 1e6])
def test_what_the_means_of_sparse_columns_cancel_is_in_the_bounds(method, mean):
    a = np.random.default_rng(20).standard_normal((60, 4)) * [3, 2, 1, 0.5] + mean
    found = ly.pca(sp.csr_array(a), 3, method=method)
    assert not spectra.outside(found.lower, found.upper, spectra.singular_values(a, centre=True))
    assert found.certificate.holds == (mean == 1e2)


def test_scores_and_their_inverse():
    rng = np.random.default_rng(8)
    a = rng.standard_normal((100, 4)) + 3
    found = ly.pca(a, 4, scale=True, scores=True)
    assert np.allclose(found.inverse_transform(found.U), a)
    assert np.allclose(found.transform(a), found.U)


def test_left_vectors_are_written_while_they_are_made(tmp_path):
    a = np.random.default_rng(9).standard_normal((3000, 20))
    np.save(tmp_path / "a.npy", a)
    found = ly.svd(tmp_path / "a.npy", 3, u=tmp_path / "u.npy", memory="40MB")
    u = np.load(tmp_path / "u.npy")
    assert found.U.shape == (3000, 3)
    assert np.allclose(u.T @ u, np.eye(3), atol=1e-12)
    assert np.allclose(found.left(a).read(0, 3000).data, u)
    assert [file.name for file in tmp_path.iterdir() if "partial" in file.name] == []


def test_rows_longer_than_they_are_many():
    a = np.random.default_rng(10).standard_normal((20, 500))
    plan = ly.plan.svd(a, 3)
    assert plan.method == "outer"
    found = plan.run()
    assert found.certificate.holds
    assert np.allclose(found.s, np.linalg.svd(a, compute_uv=False)[:3])


def test_one_pass_gives_an_estimate_that_is_enclosed():
    rng = np.random.default_rng(11)
    a = rng.standard_normal((400, 80)) * 0.7 ** np.arange(80)
    found = ly.svd(a, 3, passes=1, method="sketch")
    s = np.linalg.svd(a, compute_uv=False)[:3]
    assert len(found.trace.passes) == 1
    assert (found.lower <= s).all()
    assert (s <= found.upper).all()
    assert np.allclose(found.s, s, rtol=0.05)
    assert found.certificate.bounds["residual"].tolerance is None


def test_more_passes_than_allowed_are_not_made():
    a = np.random.default_rng(12).standard_normal((500, 200))
    found = ly.svd(a, 3, method="krylov", passes=3, tol=1e-9)
    assert len(found.trace.passes) == 3
    assert not found.certificate.holds


@pytest.mark.parametrize("method", ["gram", "krylov", "outer"])
@pytest.mark.parametrize("passes", [2, 3, 4])
@pytest.mark.parametrize("scale", [False, True])
def test_passes_of_all_kinds_count(method, passes, scale):
    a = np.random.default_rng(27).standard_normal((60, 200))
    a[:, 3] *= 1e-9
    run = ly.plan.pca(a, 30, method=method, passes=passes, scale=scale, tol=1e-14)
    if method == "krylov" and scale and passes == 2:
        with pytest.raises(OptionError, match="three passes"):
            run.run()
    else:
        assert len(run.run().trace.passes) + (method == "outer") <= passes


def test_the_remainder_of_a_ceiling_allows_for_errors_of_the_images():
    space = KrylovSpace(np.eye(6)[:, :2], 6)
    space.add(np.eye(6)[:, :2], 1e-3)
    assert space.drift >= 2e-3
    exact, drifted = (krylov_ceiling(1, 1.0, 100, 12, 5, drift, 1e-9).value for drift in (0.0, 1e-3))
    assert drifted >= exact * (1 + 2e-3) * (1 - 1e-12)


def test_columns_that_are_all_but_dependent_do_not_spoil_the_others():
    a = np.random.default_rng(29).standard_normal((1000, 200)) * 0.3 ** np.arange(200)
    found = ly.svd(a, 8, method="krylov")
    s = np.linalg.svd(a, compute_uv=False)[:8]
    assert found.certificate.holds
    assert ((found.upper - found.lower) < 1e-7 * s[0]).all()
    assert (found.lower <= s * (1 + 1e-12)).all()
    assert (s * (1 - 1e-12) <= found.upper).all()


def test_a_small_budget_restarts_the_space_and_reaches_the_same():
    rng = np.random.default_rng(13)
    a = rng.standard_normal((600, 300)) * 0.97 ** np.arange(300)
    found = ly.svd(a, 4, method="krylov", memory="2MB")
    assert found.certificate.holds
    assert np.allclose(found.s, np.linalg.svd(a, compute_uv=False)[:4], rtol=1e-10)


@pytest.mark.parametrize("method", ["gram", "krylov"])
def test_threads_do_not_change_a_bit(method):
    a = np.random.default_rng(14).standard_normal((20_000, 30)).astype(np.float32)
    one, two = (ly.svd(a, 4, method=method, threads=t, memory="50MB") for t in (1, 2))
    assert (one.s == two.s).all()
    assert (one.Vt == two.Vt).all()


def test_a_resumed_run_has_the_same_bits(tmp_path):
    a = np.random.default_rng(15).standard_normal((3000, 200))
    np.save(tmp_path / "a.npy", a)
    straight = ly.svd(tmp_path / "a.npy", 3, method="krylov", memory="30MB")

    class Stop(Exception):
        pass

    rows = ly.open(tmp_path / "a.npy")
    read, count = rows.read, 0

    def failing(*args):
        nonlocal count
        count += 1
        if count == 40:
            raise Stop
        return read(*args)

    rows.read = failing
    with pytest.raises(Stop):
        ly.svd(rows, 3, method="krylov", memory="30MB", checkpoint=tmp_path / "run")
    resumed = ly.svd(tmp_path / "a.npy", 3, method="krylov", memory="30MB", checkpoint=tmp_path / "run")
    assert any("checkpoint" in remark for remark in resumed.trace.remarks)
    assert (resumed.s == straight.s).all()
    assert (resumed.Vt == straight.Vt).all()


# ---------------------------------------------------------------- saved, loaded, verified


@pytest.mark.parametrize("verb", [ly.svd, ly.pca])
def test_a_saved_answer_is_verified_by_somebody_else(verb, tmp_path):
    a = np.random.default_rng(16).standard_normal((200, 12)) + 1
    found = verb(a, 3)
    found.save(tmp_path / "out")
    loaded = ly.load(tmp_path / "out")
    assert type(loaded) is type(found)
    assert (loaded.Vt == found.Vt).all()
    assert ly.verify(tmp_path / "out", a).holds
    changed = a.copy()
    changed[17, 3] += 1.0
    assert not ly.verify(tmp_path / "out", changed).holds
    assert not ly.verify(tmp_path / "out", a[:-1]).holds


@pytest.mark.parametrize("name", ["s", "Vt", "enclosure", "residual", "mean", "deviation"])
def test_a_tampered_answer_does_not_verify(name, tmp_path):
    rng = np.random.default_rng(17)
    a = (rng.standard_normal((400, 200)) * 0.95 ** np.arange(200)) @ rng.standard_normal((200, 200)) + 1
    ly.pca(a, 3, scale=True, method="krylov", tol=1e-2).save(tmp_path / "out")
    file = tmp_path / "out" / f"{name}.npy"
    values = np.load(file)
    if name == "residual":
        values *= 1e-6
    elif name == "enclosure":
        values[:] = values[0] * 0.999
    else:
        values.flat[1] *= 1.001
    np.save(file, values)
    assert not ly.verify(tmp_path / "out", a).holds


def tamper(what, folder):
    """One false claim in a saved answer."""
    document = json.loads((folder / "solution.json").read_text())
    arrays = {name: np.load(folder / f"{name}.npy") for name in ("s", "Vt", "enclosure", "angle", "mean", "U")}
    bounds, problem = document["certificate"]["bounds"], document["problem"]
    match what:
        case "norm":
            problem["frobenius_norm"] = math.nan
            arrays["s"] *= 2
        case "order":
            arrays["Vt"] = arrays["Vt"][::-1]
        case "mixed":
            arrays["Vt"][:2] = np.array([[0.8, 0.6], [-0.6, 0.8]]) @ arrays["Vt"][:2]
        case "angle":
            arrays["angle"] *= 1e-6
        case "lower":
            arrays["enclosure"][0, -1] = arrays["s"][-1] * (1 + 1e-6)
            arrays["enclosure"][1, -1] = arrays["s"][-1] * (1 + 2e-6)
        case "mean":
            arrays["mean"][0] += 1e-4
        case "left":
            arrays["U"][5, 1] *= 1.001
        case "verb":
            document["kind"], problem["options"]["centre"] = "svd", False
        case "tolerance":
            bounds["residual"]["tolerance"] = 0.5
        case _:
            bounds[what]["value"] *= 1e-3
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "solution.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    "what",
    ["norm", "order", "mixed", "angle", "lower", "mean", "left", "verb", "tolerance", "residual", "singular_values",
     "frobenius_error", "spectral_error", "orthonormality"],
)  # fmt: skip
def test_a_false_claim_does_not_verify(what, tmp_path):
    rng = np.random.default_rng(22)
    a = rng.standard_normal((300, 60)) * 0.8 ** np.arange(60) + 1e6
    found = ly.pca(a, 4, method="krylov", tol=1e-2, scores=True)
    found.save(tmp_path / "out")
    assert ly.verify(tmp_path / "out", a).holds
    tamper(what, tmp_path / "out")
    with suppress(SolutionError):
        assert not ly.verify(tmp_path / "out", a).holds


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_deviations_that_are_not_those_of_the_columns_do_not_verify(factor):
    a = np.random.default_rng(23).standard_normal((200, 5)) @ np.random.default_rng(24).standard_normal((5, 5))
    deviation = a.std(axis=0, ddof=1) * [1, 1, factor, 1, 1]
    found = ly.pca(a / deviation, 2, tol=1e-6)
    found._mean, found._deviation = found._mean * deviation, deviation
    found._options["standardise"] = True
    assert not ly.verify(found, a).holds


@pytest.mark.parametrize("method", ["sketch", "gram"])
def test_an_answer_of_one_pass_verifies(method):
    a = np.random.default_rng(25).standard_normal((300, 40)) * 0.7 ** np.arange(40)
    assert ly.verify(ly.svd(a, 8, method=method, passes=1, u=True), a).holds


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("rank", [0, -1, 5, 2.5, "3", True])
def test_a_rank_that_is_none_is_refused(rank):
    with pytest.raises(OptionError, match="rank"):
        ly.svd(np.eye(6)[:, :4], rank)


def test_a_constant_column_cannot_be_scaled():
    a = np.random.default_rng(18).standard_normal((50, 3))
    a[:, 1] = 7.1
    for method in ("gram", "krylov"):
        with pytest.raises(DataError, match="'x1' has no variance"):
            ly.pca(a, 2, scale=True, method=method)
    assert ly.pca(a, 2).certificate.holds


@pytest.mark.parametrize("method", ["gram", "krylov", "sketch"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_found(method, value):
    a = np.ones((50, 4))
    a[33, 2] = value
    with pytest.raises(DataError, match=r"'x2'.*"):
        ly.svd(a, 2, method=method)


def test_a_budget_that_is_too_small_names_what_would_do():
    rows = ly.generated(lambda start, stop: np.ones((stop - start, 2000)), 10_000, 2000)
    with pytest.raises(BudgetError, match="krylov"):
        ly.svd(rows, 3, method="gram", memory="40MB")


def test_one_row_has_no_variance():
    with pytest.raises(DataError, match="variance"):
        ly.pca(np.ones((1, 3)), 1)


def test_weights_are_refused():
    with pytest.raises(OptionError, match="weight"):
        ly.svd(ly.open(np.eye(3), weight=np.ones(3)), 1)


# ---------------------------------------------------------------- on a cluster, within a budget


@pytest.mark.parametrize("method", ["gram", "krylov"])
def test_workers_of_a_cluster_give_the_same_bits(method, tmp_path):
    from distributed import Client

    np.save(tmp_path / "a.npy", np.random.default_rng(19).standard_normal((20_000, 30)))
    options = {"method": method, "memory": "50MB"}
    here = ly.pca(tmp_path / "a.npy", 4, **options)
    with Client(processes=False, dashboard_address=":0") as client:
        there = ly.pca(tmp_path / "a.npy", 4, **options, executor=ly.Dask(client))
    assert (here.s == there.s).all()
    assert (here.Vt == there.Vt).all()


PEAK = """
import sys
import numpy as np, leyden as ly

def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

folder, call = sys.argv[1:]
def run(data, out):
    return eval(call, {"ly": ly, "data": data, "out": out})

run(np.random.default_rng(0).standard_normal((1000, 60)), folder + "/small.npy")
before = status("VmRSS")
found = run(folder + "/a.npy", folder + "/out.npy")
assert found.certificate.holds
print(status("VmHWM") - before)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A folder with a file of 240 MB."""
    folder = tmp_path_factory.mktemp("large")
    a = np.lib.format.open_memmap(folder / "a.npy", "w+", np.float64, (500_000, 60))
    part = np.random.default_rng(0).standard_normal((10_000, 60)) * 0.9 ** np.arange(60)
    for i in range(0, len(a), len(part)):
        a[i : i + len(part)] = part
    a.flush()
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to tell the peak")
@pytest.mark.parametrize(
    "call",
    [
        "ly.svd(data, 10, method='gram', memory='64MB')",
        "ly.svd(data, 10, method='krylov', memory='64MB', u=out)",
        "ly.pca(data, 10, scale=True, memory='64MB', scores=out)",
        "ly.qr(data, memory='64MB')",
        "ly.qr(data, memory='64MB', q=out)",
    ],
)
def test_the_peak_stays_within_the_budget(call, large):
    run = subprocess.run([sys.executable, "-c", PEAK, str(large), call], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 64e6 + 16e6
