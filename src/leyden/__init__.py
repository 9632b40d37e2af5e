"""Leyden: linear solves and matrix factorizations on commodity hardware, every answer with a certificate.

>>> import numpy as np, leyden as ly
>>> rng = np.random.default_rng(0)
>>> a = rng.standard_normal((1000, 5))
>>> sol = ly.lstsq(a, a @ np.ones(5))
>>> sol.certificate.holds
True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Names are imported when first used: what one person calls should not wait for what another one needs.
_HOME = {
    "open": "leyden.rows",
    "generated": "leyden.rows",
    "Rows": "leyden.rows",
    "Block": "leyden.rows",
    "Intercept": "leyden.rows",
    "Scale": "leyden.rows",
    "SelectColumns": "leyden.rows",
    "open_ratings": "leyden.rows.ingest",
    "Ratings": "leyden.rows.ratings",
    "RatingsWriter": "leyden.rows.ratings_writer",
    "lstsq": "leyden.solve.lstsq",
    "LeastSquares": "leyden.solve.least_squares",
    "mixed": "leyden.solve.mixed.model",
    "MixedModel": "leyden.solve.mixed.result",
    "FixedEffects": "leyden.solve.absorb.model",
    "PersonalisedRegressions": "leyden.solve.lookup.result",
    "svd": "leyden.factor.svd",
    "pca": "leyden.factor.svd",
    "SVD": "leyden.factor.decomposition",
    "PrincipalComponents": "leyden.factor.decomposition",
    "ALS": "leyden.estimators",
    "KernelRidge": "leyden.estimators",
    "KernelRidgeCV": "leyden.estimators",
    "KernelClassifier": "leyden.estimators",
    "RandomFeatures": "leyden.estimators",
    "PCA": "leyden.estimators",
    "TruncatedSVD": "leyden.estimators",
    "qr": "leyden.factor.qr",
    "QR": "leyden.factor.triangular",
    "als": "leyden.factor.als",
    "ALSResult": "leyden.factor.als_result",
    "kernel_machine": "leyden.kernel.machine",
    "KernelMachine": "leyden.kernel.result",
    "load": "leyden.solution",
    "verify": "leyden.solution",
    "Solution": "leyden.solution",
    "Bound": "leyden.certificate",
    "Certificate": "leyden.certificate",
    "Plan": "leyden.plan",
    "Checkpoint": "leyden.engine.checkpoint",
    "executor": "leyden.engine.executor",
    "Dask": "leyden.engine.dask",
    "LeydenError": "leyden.errors",
    "DataError": "leyden.errors",
    "OptionError": "leyden.errors",
    "BudgetError": "leyden.errors",
    "SolutionError": "leyden.errors",
    "CheckpointError": "leyden.errors",
    "Interrupted": "leyden.errors",
}

__all__ = ["__version__", "plan", *_HOME]

if TYPE_CHECKING:
    from leyden import plan
    from leyden.certificate import Bound, Certificate
    from leyden.engine.checkpoint import Checkpoint
    from leyden.engine.dask import Dask
    from leyden.engine.executor import executor
    from leyden.errors import (
        BudgetError,
        CheckpointError,
        DataError,
        Interrupted,
        LeydenError,
        OptionError,
        SolutionError,
    )
    from leyden.estimators import ALS, PCA, KernelClassifier, KernelRidge, KernelRidgeCV, RandomFeatures, TruncatedSVD
    from leyden.factor.als import als
    from leyden.factor.als_result import ALSResult
    from leyden.factor.decomposition import SVD, PrincipalComponents
    from leyden.factor.qr import qr
    from leyden.factor.svd import pca, svd
    from leyden.factor.triangular import QR
    from leyden.kernel.machine import kernel_machine
    from leyden.kernel.result import KernelMachine
    from leyden.plan import Plan
    from leyden.rows import Block, Intercept, Rows, Scale, SelectColumns, generated, open
    from leyden.rows.ingest import open_ratings
    from leyden.rows.ratings import Ratings
    from leyden.rows.ratings_writer import RatingsWriter
    from leyden.solution import Solution, load, verify
    from leyden.solve.absorb.model import FixedEffects
    from leyden.solve.least_squares import LeastSquares
    from leyden.solve.lookup.result import PersonalisedRegressions
    from leyden.solve.lstsq import lstsq
    from leyden.solve.mixed.model import mixed
    from leyden.solve.mixed.result import MixedModel


def __getattr__(name: str) -> Any:
    if name == "plan":
        return importlib.import_module("leyden.plan")
    if name not in _HOME:
        raise AttributeError(f"module 'leyden' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
