"""The peak of a solve stays within its budget, whatever the rows are read from: each in a process of its own."""

import json
import os
import platform
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

import leyden as ly

#: What the allocators of NumPy and Arrow keep between two blocks.
SLACK = 16e6

SCRIPT = """
import json, sys
import numpy as np, leyden as ly

def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

def regression(start, stop, random):
    x = random.standard_normal((stop - start, 60))
    return x, x.sum(axis=1) + random.standard_normal(stop - start)

small, large, opening, options = *sys.argv[1:4], json.loads(sys.argv[4])
ly.lstsq(eval(opening, globals(), {"folder": small, "n": 1000}), **options)
before = status("VmRSS")
rows = eval(opening, globals(), {"folder": large, "n": 500_000})
solution = ly.lstsq(rows, **options)
print(json.dumps([status("VmHWM") - before, solution.plan.peak, solution.certificate.holds]))
"""


def write_npy(folder, times):
    x = np.random.default_rng(0).standard_normal((10_000, 60))
    for name, part in {"x": x, "y": x.sum(axis=1) + np.cos(np.arange(10_000)), "w": np.ones(10_000, "f4")}.items():
        whole = np.lib.format.open_memmap(
            folder / f"{name}.npy", "w+", part.dtype, (times * len(part), *part.shape[1:])
        )
        for i in range(times):
            whole[i * len(part) : (i + 1) * len(part)] = part


def write_parquet(folder, times):
    values = np.random.default_rng(0).standard_normal((200, 10_000))
    table = pa.table({f"x{j}": column for j, column in enumerate(values)})
    with pq.ParquetWriter(folder / "a.parquet", table.schema, compression="none") as writer:
        for _ in range(times):
            writer.write_table(table)


def write_text_columns(folder, times):
    random = np.random.default_rng(0)
    table = pa.table(
        {f"x{j}": random.standard_normal(50_000) for j in range(20)}
        | {f"s{j}": random.choice([f"value {i}" for i in range(8)], 50_000) for j in range(2)}
    )
    with pq.ParquetWriter(folder / "a.parquet", table.schema) as writer:
        for _ in range(times):
            writer.write_table(table)


def write_csv(folder, times):
    values = np.random.default_rng(0).integers(0, 1000, (40, 10_000)) / 10
    pc.write_csv(pa.table({f"x{j}": column for j, column in enumerate(values)}), folder / "a.csv")
    header, rows = (folder / "a.csv").read_bytes().split(b"\n", 1)
    (folder / "a.csv").write_bytes(header + b"\n" + rows * times)


def write_svmlight(folder, times):
    random = np.random.default_rng(0)
    lines = []
    for _ in range(5_000):
        columns = np.sort(random.choice(150, 12, replace=False)) + 1
        lines.append(f"{random.standard_normal():.3f} {' '.join(f'{j}:1' for j in columns)}\n")
    (folder / "a.svm").write_text("".join(lines) * times)


def write_nothing(folder, times):
    pass


ARRAY = 'ly.open(folder + "/x.npy", target=folder + "/y.npy", weight=folder + "/w.npy")'
KINDS = {
    # What writes the data and how often it repeats it; how it is opened; budget; method.
    "arrays by Gram matrix": (write_npy, 50, ARRAY, "64MB", "gram64"),
    "arrays by TSQR": (write_npy, 50, ARRAY, "64MB", "tsqr"),
    "arrays by sketch": (write_npy, 50, ARRAY, "64MB", "sketch"),
    "mapped": (write_npy, 50, ARRAY + ".map(ly.Scale(0.0, 2.0)).map(ly.Intercept())", "64MB", "gram64"),
    "split target": (write_npy, 50, 'ly.open(folder + "/x.npy", target=0, dtype="float32")', "64MB", "gram64"),
    "wide parquet": (write_parquet, 18, 'ly.open(folder + "/a.parquet", target="x0")', "120MB", "gram64"),
    "one-hot": (
        write_text_columns,
        25,
        'ly.open(folder + "/a.parquet", target="x0", categorical="auto", drop_first=True)',
        "100MB",
        "gram64",
    ),
    "csv": (write_csv, 60, 'ly.open(folder + "/a.csv", target="x0")', "48MB", "gram64"),
    "svmlight": (write_svmlight, 45, 'ly.open(folder + "/a.svm")', "16MB", "gram64"),
    "generated": (write_nothing, 1, "ly.generated(regression, n, 60, seed=0)", "64MB", "gram64"),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where the rates of this machine are kept, so that they are measured once."""
    return tmp_path_factory.mktemp("cache")


def solve_apart(folder, opening, memory, method, cache):
    """Peak above what ``small`` has left behind, predicted peak and verdict of a solve of ``large``."""
    options = json.dumps({"memory": memory, "method": method, "ridge": 1.0, "threads": 4})
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder / "small"), str(folder / "large"), opening, options],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LEYDEN_CACHE_DIR": str(cache)},
    )
    return json.loads(run.stdout)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux to tell the peak")
@pytest.mark.parametrize("kind", KINDS)
def test_the_peak_of_a_solve_stays_within_its_budget(kind, tmp_path, cache):
    write, times, opening, memory, method = KINDS[kind]
    small, large = tmp_path / "small", tmp_path / "large"
    for folder, repeated in ((small, 1), (large, times)):
        folder.mkdir()
        write(folder, repeated)
    peak, predicted, holds = solve_apart(tmp_path, opening, memory, method, cache)
    budget = float(memory.removesuffix("MB")) * 1e6
    assert holds
    assert peak <= budget + SLACK
    assert predicted <= budget


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are not asked for what was freed")
def test_what_one_pass_freed_is_not_there_beside_the_next(tmp_path, cache):
    random = np.random.default_rng(0)
    for name, columns in (("small", 60), ("large", 700)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "x.npy", x := random.standard_normal((20_000, columns)))
        np.save(tmp_path / name / "y.npy", x.sum(axis=1))
    opening = 'ly.open(folder + "/x.npy", target=folder + "/y.npy")'
    peak, _, holds = solve_apart(tmp_path, opening, "130MB", "sketch", cache)
    assert holds
    assert peak <= 130e6 + SLACK / 2


def test_a_budget_too_small_to_decode_in_is_refused_before_anything_is_decoded(tmp_path, monkeypatch):
    write_parquet(tmp_path, 1)
    rows = ly.open(tmp_path / "a.parquet", target="x0")
    monkeypatch.setattr(rows, "_batches", None)
    with pytest.raises(ly.BudgetError, match=r"20 MB is too small: one thread takes .* MB to read") as refused:
        ly.lstsq(rows, memory="20MB")
    monkeypatch.undo()
    assert ly.lstsq(rows, ridge=1.0, memory=refused.value.hint.split('"')[1]).certificate.holds
