"""A small problem in several formats, and the command line in this process."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from leyden.cli.main import app

ROWS = 300


@pytest.fixture
def leyden(tmp_path, monkeypatch):
    """A function that runs ``leyden`` in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="leyden")

    return run


@pytest.fixture
def table():
    """Two numeric columns, one of text, a weight and two targets."""
    random = np.random.default_rng(0)
    a, b = random.standard_normal((2, ROWS))
    kind = random.choice(["blue", "red"], ROWS)
    y = 3 * a - 2 * b + 5 * (kind == "red") + 1
    columns = {"a": a, "b": b, "kind": kind, "w": random.random(ROWS) + 0.5, "y": y, "z": 2 * a + b}
    return pa.table(columns)


@pytest.fixture
def data(tmp_path, table):
    """A folder with the table as t.csv, t.parquet and parts/, and its numbers as a.npy and y.npy."""
    csv.write_csv(table, tmp_path / "t.csv")
    pq.write_table(table, tmp_path / "t.parquet")
    (tmp_path / "parts").mkdir()
    for part in range(4):
        pq.write_table(table.slice(part * ROWS // 4, ROWS // 4), tmp_path / "parts" / f"part{part}.parquet")
    np.save(tmp_path / "a.npy", np.column_stack([table["a"], table["b"]]))
    np.save(tmp_path / "y.npy", np.asarray(table["z"]))
    return tmp_path
