"""What makes a reduction distributable, held by every Reduction of the package: see docs/distributed.md.

A new reduction without a case here fails the first test.
"""

from __future__ import annotations

import importlib
import pickle
import pkgutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import leyden
from leyden.engine.reduction import Reduction, digest
from leyden.engine.tree import MergeTree
from leyden.factor.frame import Frame
from leyden.factor.left import Place, Project, Write
from leyden.factor.objective import Objective
from leyden.factor.optimality import Evaluation, Kept, KeptImage
from leyden.factor.orthogonal import Basis, FactorGram
from leyden.factor.reductions import BlockImage, FrameGram
from leyden.factor.start import StartImage
from leyden.factor.streamed import ItemStep
from leyden.factor.survey import _Survey
from leyden.kernel.binning import Binning
from leyden.kernel.fourier import Fourier
from leyden.kernel.inputs import Standard
from leyden.kernel.kernels import Kernel
from leyden.kernel.losses import LOSSES
from leyden.kernel.products import Diagonal as BinDiagonal
from leyden.kernel.products import Features, HeldOut, HessianProduct, Targets
from leyden.kernel.products import Gradient as LossGradient
from leyden.kernel.products import Gram as FeatureGram
from leyden.kernel.split import Split
from leyden.kernel.survey import SurveyRows
from leyden.rows import Block
from leyden.rows import open as open_rows
from leyden.rows.ids import Ids
from leyden.solve.coordinates import probe
from leyden.solve.lookup.passes import Residuals, Schur
from leyden.solve.lookup.problem import fixed_features, random_features
from leyden.solve.mixed.certify import Coefficients
from leyden.solve.mixed.certify import Gradient as MixedGradient
from leyden.solve.mixed.design import Design, Term
from leyden.solve.mixed.formula import ModelFormula
from leyden.solve.mixed.groups import Groups
from leyden.solve.mixed.products import Coordinates, CrossProducts, Triangle
from leyden.solve.reductions import TSQR, Gradient, Gram, PlainGradient, ProductGram, SparseSignSketch

D = 3

#: Where rows are written to that are of no other interest: longer than any of the problems.
FOLDER = tempfile.TemporaryDirectory()
PLACE = str(Path(FOLDER.name) / "rows.npy")
np.save(PLACE, np.zeros((60, 2)))


def coordinates(rows):
    return probe(rows, intercept=True, ridge=0.0, memory=10**8).coordinates


def answer(seed):
    return np.random.default_rng(seed).standard_normal((D, 1)), np.ones(1)


def frame(seed):
    rng = np.random.default_rng(seed)
    return Frame(rng.standard_normal(D), np.exp2(rng.integers(-2, 3, D)), 1.0, bool(seed % 2))


def project(seed):
    return Project(frame(seed), np.zeros(D), np.random.default_rng(seed).standard_normal((D, 2)))


def upper(seed):
    return np.triu(np.random.default_rng(seed).standard_normal((D, D)), 1) + np.eye(D)


def block_image(rows, seed):
    w = np.random.default_rng(seed).standard_normal((D, 2))
    return BlockImage(frame(seed), w, rows.shape[0], sparse=False, remainder=True)


#: Reductions over sparse rows, users, of ratings.
OF_RATINGS = _Survey, ItemStep, Evaluation, KeptImage, StartImage, Schur, Residuals


def ratings(rows, start, stop):
    """Users' ratings made of rows: whole numbers, at places that are above zero."""
    data = rows.read(start, stop).data
    return Block(start, sp.csr_array(np.where(data > 0, np.ceil(np.abs(data)), 0).astype(np.float32)))


def objective(seed):
    return Objective(2.0, scaling=0.5, implicit=bool(seed % 2), alpha=1.5)


def item_step(rows, seed):
    v = np.zeros((D, 16))
    v[:, :2] = np.random.default_rng(seed).standard_normal((D, 2))
    penalties = objective(seed).penalties(D, D)
    return ItemStep(objective(seed), v, penalties, np.ones(D), np.full(D, 5), users=rows.shape[0])


def evaluation(rows, seed, kept=None):
    rng = np.random.default_rng(seed)
    penalties = objective(seed).penalties(D, D)
    v, x = rng.standard_normal((D, 2)), rng.standard_normal((D, 3))
    return Evaluation(objective(seed), v, penalties, np.ones(D), x, kept=kept)


def kept_image(rows, seed):
    rng, indptr = np.random.default_rng(seed), ratings(rows, 0, rows.shape[0]).data.indptr
    kept = Kept(np.asarray(indptr, np.int64), 16)
    kept.h[:], kept.u[:] = rng.standard_normal(kept.h.shape), rng.standard_normal(kept.u.shape)
    return KeptImage(evaluation(rows, seed), kept)


def start_image(rows, seed):
    x = np.zeros((D, 16))
    x[:, :2] = np.random.default_rng(seed).standard_normal((D, 2))
    return StartImage(objective(seed), x, 3.0, np.float64)


#: Reductions over the design of a mixed model: one fixed effect, an intercept and a slope of four groups, three more.
OF_DESIGNS = Triangle, CrossProducts, MixedGradient


def designed(rows, start, stop):
    """Rows as those of a design: their numbers are the groups."""
    block = rows.read(start, stop)
    codes = np.stack([np.arange(start, stop) % 4, np.arange(start, stop) % 3], axis=1).astype(np.int32)
    ones = np.ones((stop - start, 1))
    return Block(start, np.hstack([np.asarray(block.data), ones]), block.target, block.weight, codes)


def mixed_design(rows):
    n = rows.shape[0]
    codes = designed(rows, 0, n).group
    groups = [Groups(name, codes[:, t], Ids.of(np.arange(4 - t), name)) for t, name in enumerate("gh")]
    terms = (Term(groups[0], ("a", "b"), slice(1, 3), (("full", 2),)), Term(groups[1], ("c",), slice(3, 4), ()))
    return Design(ModelFormula("y", "x"), SimpleNamespace(shape=(n, D + 1), codes=codes), ("x",), terms)


def cross_products(rows, seed):
    rng = np.random.default_rng(seed)
    r, z = np.triu(rng.standard_normal((2, 2)), 1) + np.eye(2), np.triu(rng.standard_normal((2, 2)), 1) + np.eye(2)
    return CrossProducts(mixed_design(rows), Coordinates(rows.shape[0], 0.0, r, (z, np.eye(1))))


def mixed_gradient(rows, seed):
    rng = np.random.default_rng(seed)
    effects = rng.standard_normal((4, 2)), rng.standard_normal((3, 1))
    return MixedGradient(mixed_design(rows), Coefficients(rng.standard_normal(1), effects, effects))


def lookup(seed):
    """Table, fixed features, rows of the largest group, and whether in float32."""
    table = random_features(np.random.default_rng(seed).standard_normal((D, 2)), D, 0.5, True)
    return table, fixed_features(np.arange(D) % 2, D), D, bool(seed % 2)


def kernel_machine(rows, seed):
    """Features of half of the rows, targets, a loss, and weights."""
    features = Features(Standard.none(D), Fourier(Kernel("gaussian", 2.0), D, 8, seed), Split(0.5, seed))
    loss = LOSSES["logistic" if seed % 2 else "squared"]
    targets = Targets(np.ones(len(rows.targets)))
    return features, targets, loss, np.random.default_rng(seed).standard_normal((8, targets.outputs))


def diagonal(rows, seed):
    """Of the bins of a few grids."""
    return BinDiagonal(Features(Standard.none(D), Binning(Kernel("laplacian", 2.0), D, 3, seed, 6), Split(0.5, seed)))


def hessian_product(rows, seed):
    return HessianProduct(*kernel_machine(rows, seed), kernel_machine(rows, seed + 1)[3])


CASES = {
    SurveyRows: lambda rows, seed: SurveyRows(
        D, len(rows.targets), rows.shape[0], 10, seed, classes=bool(seed % 2), share=0.2
    ),
    LossGradient: lambda rows, seed: LossGradient(*kernel_machine(rows, seed), double=True),
    HessianProduct: hessian_product,
    BinDiagonal: diagonal,
    FeatureGram: lambda rows, seed: FeatureGram(*kernel_machine(rows, seed)[:2], 2, folds=1 + seed % 3, seed=seed),
    HeldOut: lambda rows, seed: HeldOut(*kernel_machine(rows, seed)[:2], kernel_machine(rows, seed)[3], rows.shape[0]),
    Triangle: lambda rows, seed: Triangle(1, D + 1),
    CrossProducts: cross_products,
    MixedGradient: mixed_gradient,
    Gram: lambda rows, seed: Gram(coordinates(rows), np.float64, 16),
    TSQR: lambda rows, seed: TSQR(coordinates(rows)),
    SparseSignSketch: lambda rows, seed: SparseSignSketch(coordinates(rows), seed),
    Gradient: lambda rows, seed: Gradient(*answer(seed), intercept=True, sparse=False),
    PlainGradient: lambda rows, seed: PlainGradient(*answer(seed), intercept=True),
    ProductGram: lambda rows, seed: ProductGram(
        coordinates(rows), np.random.default_rng(seed).standard_normal((D + 1, D + 1)), exact=bool(seed % 2)
    ),
    FrameGram: lambda rows, seed: FrameGram(frame(seed), np.float64, 16),
    BlockImage: block_image,
    Write: lambda rows, seed: Write(project(seed), Place(None, PLACE)),
    FactorGram: lambda rows, seed: FactorGram(Basis(np.ones(D), upper(seed)), np.ones(D), upper(seed)),
    _Survey: lambda rows, seed: _Survey(objective(seed), D),
    ItemStep: item_step,
    Evaluation: evaluation,
    KeptImage: kept_image,
    StartImage: start_image,
    Schur: lambda rows, seed: Schur(*lookup(seed)),
    Residuals: lambda rows, seed: Residuals(*lookup(seed), np.ones(2)),
}


def every_reduction():
    """All subclasses of Reduction, in all modules of the package."""
    for module in pkgutil.walk_packages(leyden.__path__, "leyden."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, left = set(), [Reduction]
    while left:
        below = left.pop().__subclasses__()
        found.update(below)
        left += below
    return {kind for kind in found if kind.__module__.startswith("leyden.")}


def test_every_reduction_has_a_case():
    assert every_reduction() == set(CASES)


@st.composite
def problems(draw):
    """Rows, three ranges of them that follow each other, and a seed."""
    seed = draw(st.integers(0, 10**6))
    n = draw(st.integers(3, 60))
    first, second = sorted(draw(st.lists(st.integers(1, n - 1), min_size=2, max_size=2, unique=True)))
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((n, D))
    rows = open_rows(a, target=a @ np.ones(D) + rng.standard_normal(n), weight=rng.random(n) + 0.5)
    return rows, [(0, first), (first, second), (second, n)], seed


def contract(test):
    return pytest.mark.parametrize("case", CASES.values(), ids=[kind.__name__ for kind in CASES])(
        settings(max_examples=15)(given(problems())(test))
    )


def fold(reduction, rows, start, stop):
    return reduction.update(reduction.start(), block(reduction, rows, start, stop))


def block(reduction, rows, start, stop):
    """What the reduction folds."""
    if isinstance(reduction, OF_DESIGNS):
        return designed(rows, start, stop)
    return (ratings if isinstance(reduction, OF_RATINGS) else type(rows).read)(rows, start, stop)


def numbers(result):
    """What a result is, with what does not depend on how it was summed: R is unique up to the signs of its rows."""
    values = result if isinstance(result, dict) else vars(result) if hasattr(result, "__dict__") else {"result": result}
    values = {name: value for name, value in values.items() if value is not None}
    return {name: np.abs(value) for name, value in values.items() if not name.endswith(("unit", "rounding", "lo"))}


#: Sums of products of tiles, which are rounded to float32.
IN_FLOAT32 = HessianProduct, FeatureGram


def assert_close(reduction, a, b):
    found, expected = numbers(reduction.finish(a)), numbers(reduction.finish(b))
    rounding = 1e-5 if isinstance(reduction, IN_FLOAT32) else 1e-9
    for name, value in expected.items():
        slack = rounding * (1 + np.abs(value).max(initial=0))
        np.testing.assert_allclose(found[name], value, rtol=rounding, atol=slack)


def assert_same_bits(reduction, a, b):
    one, other = reduction.to_arrays(a), reduction.to_arrays(b)
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype
        np.testing.assert_array_equal(one[name], other[name])


@contract
def test_merging_is_associative_to_rounding(case, problem):
    rows, (a, b, c), seed = problem
    reduction = case(rows, seed)
    left = reduction.merge(
        reduction.merge(fold(reduction, rows, *a), fold(reduction, rows, *b)), fold(reduction, rows, *c)
    )
    right = reduction.merge(
        fold(reduction, rows, *a), reduction.merge(fold(reduction, rows, *b), fold(reduction, rows, *c))
    )
    assert_close(reduction, left, right)
    assert_close(reduction, left, fold(reduction, rows, 0, rows.shape[0]))


@contract
def test_the_start_is_neutral(case, problem):
    rows, (a, _, _), seed = problem
    reduction = case(rows, seed)
    assert_close(reduction, reduction.merge(reduction.start(), fold(reduction, rows, *a)), fold(reduction, rows, *a))
    assert_close(reduction, reduction.merge(fold(reduction, rows, *a), reduction.start()), fold(reduction, rows, *a))


@contract
def test_merging_leaves_the_right_one_as_it_was(case, problem):
    rows, (a, b, _), seed = problem
    reduction = case(rows, seed)
    right = fold(reduction, rows, *b)
    reduction.merge(fold(reduction, rows, *a), right)
    assert_same_bits(reduction, right, fold(reduction, rows, *b))


@contract
def test_reductions_and_states_travel_without_losing_a_bit(case, problem):
    rows, (a, b, _), seed = problem
    reduction = case(rows, seed)
    here = reduction.merge(fold(reduction, rows, *a), fold(reduction, rows, *b))
    there = pickle.loads(pickle.dumps(reduction))
    states = pickle.loads(pickle.dumps([fold(there, rows, *a), fold(there, rows, *b)]))
    assert_same_bits(reduction, here, there.merge(*states))
    assert digest([there]) == digest([reduction])


@contract
def test_a_state_kept_on_disk_goes_on_to_the_same_bits(case, problem):
    rows, (a, b, _), seed = problem
    reduction = case(rows, seed)
    kept = reduction.from_arrays(reduction.to_arrays(fold(reduction, rows, *a)))
    assert_same_bits(reduction, kept, fold(reduction, rows, *a))
    assert_same_bits(
        reduction,
        reduction.merge(kept, fold(reduction, rows, *b)),
        reduction.merge(fold(reduction, rows, *a), fold(reduction, rows, *b)),
    )


@contract
def test_a_state_takes_the_memory_it_says_whatever_the_rows(case, problem):
    rows, _, seed = problem
    reduction = case(rows, seed)
    state = reduction.start()
    for _ in range(5):
        state = reduction.update(state, block(reduction, rows, 0, rows.shape[0]))
        size = sum(array.nbytes for array in reduction.to_arrays(state).values())
        assert size <= reduction.state_nbytes + 500


@contract
def test_folding_leaves_the_reduction_as_it_was(case, problem):
    rows, _, seed = problem
    reduction = case(rows, seed)
    before = digest([reduction])
    reduction.finish(fold(reduction, rows, 0, rows.shape[0]))
    assert digest([reduction]) == before


@settings(max_examples=50)
@given(st.integers(1, 200), st.integers(0, 9), st.data())
def test_pieces_of_a_tree_hold_what_they_should_and_lead_to_the_same_root(segments, level, data):
    kept = sorted(data.draw(st.sets(st.integers(0, segments - 1))))

    class Nested(Gram):
        def __init__(self):
            pass

        def merge(self, a, b):
            return (a, b)

    def root(nodes):
        tree = MergeTree([Nested()], segments)
        for segment in kept:
            tree.add((0, segment), [segment])
        for node in nodes:
            part = MergeTree([Nested()], segments)
            for segment in part.span(node):
                part.add((0, segment), [segment])
            tree.add(node, part.result())
        return tree.result()

    tree = MergeTree([], segments)
    missing = [segment for segment in range(segments) if segment not in kept]
    nodes = tree.pieces(missing, lambda left: level)
    assert [segment for node in nodes for segment in tree.span(node)] == missing
    assert all(node[0] <= level for node in nodes)
    assert root(nodes) == root([(0, segment) for segment in missing])
