"""Tables larger than the budget, of shuffled groups and one of half the rows: the same model, within the budget."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

import leyden as ly
from leyden.solve.mixed.design import design
from leyden.solve.mixed.formula import parse

#: What allocators keep between two blocks.
SLACK = 16e6
BUDGET = 20e6
FORMULA = "y ~ x + (1 + x | g)"
SCRIPT = """
import json, sys
import leyden as ly

def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

small, large, formula, budget = sys.argv[1:]
ly.mixed(formula, small, memory="100MB")
before = status("VmRSS")
model = ly.mixed(formula, large, memory=int(budget))
print(json.dumps([status("VmHWM") - before, model.certificate.holds, model.beta.tolist(), model.log_likelihood]))
"""


def shuffled(n: int, groups: int) -> pa.Table:
    """Rows of groups at random, half of them of the first."""
    rng = np.random.default_rng(0)
    g = rng.integers(1, groups, n)
    g[rng.random(n) < 0.5] = 0
    u, x = rng.standard_normal((groups, 2)), rng.standard_normal(n)
    y = 1 + 2 * x + u[g, 0] + u[g, 1] * x + rng.standard_normal(n)
    return pa.table({"y": y, "x": x, "g": g})


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux to tell the peak")
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_table_many_times_the_budget_is_fitted_within_it(kind: str, tmp_path) -> None:
    table = shuffled(5_000_000 if kind == "parquet" else 3_000_000, 2000)
    for name, part in (("small", table.slice(0, 20_000)), ("large", table)):
        path = tmp_path / f"{name}.{kind}"
        pq.write_table(part, path, row_group_size=200_000) if kind == "parquet" else csv.write_csv(part, path)
    assert table.nbytes > 3.5 * BUDGET
    paths = [str(tmp_path / f"{name}.{kind}") for name in ("small", "large")]
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, *paths, FORMULA, str(int(BUDGET))], capture_output=True, text=True, check=True
    )
    peak, holds, beta, likelihood = json.loads(run.stdout)
    assert holds
    assert peak <= BUDGET + SLACK
    whole = ly.mixed(FORMULA, table)
    np.testing.assert_allclose(beta, whole.beta, rtol=1e-7)
    assert likelihood == pytest.approx(whole.log_likelihood, rel=1e-11)


@pytest.mark.parametrize("formula", ["y ~ x + (1 | g)", "y ~ x + (1 | t)", "y ~ x + (1 | g) + (1 | t:g)"])
def test_groups_that_are_looked_up_are_those_that_are_held(formula: str, monkeypatch) -> None:
    table = shuffled(5000, 40)
    table = table.append_column("t", pa.array([f"level {i % 7}" for i in range(5000)]))
    held = design(parse(formula), table, memory=10**9)
    monkeypatch.setattr("leyden.solve.mixed.design.CODED", 1e-9)
    found = design(parse(formula), table, memory=10**9)
    assert found.rows.codes is None
    for a, b in zip(held.terms, found.terms, strict=True):
        every = np.arange(len(a.groups))
        np.testing.assert_array_equal(a.groups.ids.take(every), b.groups.ids.take(every))
    np.testing.assert_array_equal(held.rows.read(100, 4000).group, found.rows.read(100, 4000).group)
