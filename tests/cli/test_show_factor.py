"""The table of components: enclosures rounded outwards, in as many digits as there is room for."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from io import StringIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import leyden as ly
from leyden.cli.show_factor import DIGITS, FEWER, component_table, rounded


@given(st.floats(min_value=1e-300, max_value=1e300), st.sampled_from([FEWER, DIGITS]))
def test_rounding_keeps_an_enclosure_one(value, digits):
    below, above = Decimal(rounded(value, ROUND_FLOOR, digits)), Decimal(rounded(value, ROUND_CEILING, digits))
    assert below <= Decimal(value) <= above
    assert above - below <= Decimal(value) * Decimal(10) ** (1 - digits)


def test_zero_is_zero():
    assert rounded(0.0, ROUND_FLOOR) == rounded(0.0, ROUND_CEILING) == "0"


@pytest.mark.parametrize("verb", [ly.svd, ly.pca])
@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize(("narrow", "width"), [(False, 120), (True, 80)])
def test_every_number_is_shown_whole(verb, size, narrow, width):
    a = np.random.default_rng(0).standard_normal((100, 12)) * size
    text = StringIO()
    Console(file=text, width=width).print(component_table(verb(a, 10), narrow=narrow))
    lines = text.getvalue().splitlines()
    assert len(lines) == 11
    assert "…" not in text.getvalue()
    assert max(map(len, lines)) <= width


def test_a_vector_without_a_gap_has_no_bound():
    text = StringIO()
    Console(file=text, width=120).print(component_table(ly.svd(np.eye(4), 2)))
    assert text.getvalue().count("no bound") == 2
