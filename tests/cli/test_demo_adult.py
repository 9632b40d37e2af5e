"""The demo's third part: the census it bundles, and a machine on a part of it."""

from __future__ import annotations

import numpy as np

import leyden as ly
from leyden.cli import demo_adult


def test_the_bundled_census_is_the_published_one_and_small():
    x, y, test_x, test_y = demo_adult.census()
    assert x.shape == (32_561, 123)
    assert test_x.shape == (16_281, 123)
    assert (y.sum(), test_y.sum()) == (7_841, 3_846)
    # Fourteen answers a person, fewer where one is missing.
    assert x.sum(axis=1).max() == test_x.sum(axis=1).max() == 14
    assert set(np.unique(x)) == {0, 1}
    assert demo_adult.DATA.stat().st_size < 400_000
    assert "CC BY 4.0" in (demo_adult.DATA.parent / "ATTRIBUTION.md").read_text()


def test_the_part_shows_both_errors_a_certificate_and_the_attribution(capsys):
    assert demo_adult.run(rows=4000, features=100)
    shown = " ".join(capsys.readouterr().out.split())
    for words in ("HOLDS", "the paper", "14.9%", "CC BY 4.0", "Rahimi and Recht"):
        assert words in shown


def test_a_machine_of_the_census_beats_saying_no_to_everybody():
    x, y, test_x, test_y = demo_adult.census()
    found = ly.kernel_machine(x[:4000], y[:4000], classify=True, features=100, scale=2.0, progress=False)
    assert found.error(test_x, test_y) < test_y.mean() - 0.04
