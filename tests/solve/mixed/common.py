"""Problems that several tests of mixed models share."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

import leyden as ly

_spec = importlib.util.spec_from_file_location("oracle", Path(__file__).with_name("oracle.py"))
oracle = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(oracle)
Dense, Exact = oracle.Dense, oracle.Exact


def crossed(n=120, seed=0):
    """Rows of two crossed groupings, with a slope in one of them."""
    rng = np.random.default_rng(seed)
    g, h, x = rng.integers(0, 12, n), rng.integers(0, 5, n), rng.standard_normal(n)
    g[:12], h[:5] = np.arange(12), np.arange(5)
    y = 1 + 2 * x + rng.standard_normal(12)[g] + 0.5 * rng.standard_normal(12)[g] * x
    y += 0.8 * rng.standard_normal(5)[h] + rng.standard_normal(n)
    return {"y": y, "x": x, "g": g, "h": h, "w": rng.random(n) + 0.2}


def fit(formula, data, **options):
    return ly.mixed(formula, data, progress=False, **options)
