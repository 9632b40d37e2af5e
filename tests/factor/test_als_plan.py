"""The plan of a factorization keeps within its budget, or says what budget it needs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import random_array

import leyden as ly

MATRIX = random_array((4000, 3000), density=0.01, rng=0, format="csr")


def planned(memory, rank=64, **options):
    return ly.plan.als(MATRIX, rank, 1.0, memory=memory, **options)


@pytest.mark.parametrize("memory", ["2GB", "200MB", "60MB", "30MB", "20MB"])
@pytest.mark.parametrize("method", ["auto", "resident", "streamed"])
def test_what_is_planned_takes_no_more_than_the_budget(memory, method):
    try:
        plan = planned(memory, method=method)
    except ly.BudgetError as error:
        said = error
    else:
        assert plan.peak <= plan.memory
        return
    asked = str(said).split('memory="')[1].split('"')[0]
    again = planned(asked, method=method)
    assert again.peak <= again.memory


def test_with_less_memory_ratings_are_streamed_and_then_in_several_passes():
    assert planned("2GB").method == "resident"
    whole, parts = planned("200MB", method="streamed"), planned("30MB", method="streamed")
    assert (whole.method, parts.method) == ("streamed", "streamed")
    assert len(parts.passes) > len(whole.passes)
    assert parts.peak < whole.peak
    assert "in parts" not in whole.reasons[0]
    assert "parts, a pass each" in parts.reasons[0]


def test_a_larger_rank_takes_more():
    peaks = [planned("2GB", rank).peak for rank in (8, 64, 256)]
    assert np.all(np.diff(peaks) > 0)
    assert planned("2GB", "auto", max_rank=256).peak == planned("2GB", 256, gap=1e-6).peak
