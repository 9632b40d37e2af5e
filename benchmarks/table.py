"""The README's table, from the committed results: ``python benchmarks/table.py`` prints it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

#: The goal of explicit ratings that all reach.
EXPLICIT = "best of alternating least squares"


def results(name: str) -> Any:
    """The configurations of one benchmark."""
    return json.loads((RESULTS / f"{name}.json").read_text())["configurations"]


def table() -> str:
    """Markdown: what was solved, by what, time, beside Leyden, and how right the answer was."""
    rows = [
        *_rows(
            "1,000,000 × 200 float32 in memory",
            results("in_memory"),
            {
                "leyden": "Leyden, certificate included",
                "sklearn LinearRegression, no intercept": "scikit-learn LinearRegression",
                "sklearn Ridge cholesky, no intercept": 'scikit-learn Ridge("cholesky")',
                "numpy lstsq": "numpy.linalg.lstsq",
            },
            lambda f: f"{f['forward_error']:.0e}" if "forward_error" in f else "",
        ),
        *_rows(
            "5,000,000 × 50 float32, intercept, means 100–200 × the spread",
            results("far_from_zero"),
            {
                "leyden": "Leyden",
                "sklearn LinearRegression": "scikit-learn LinearRegression",
                "sklearn Ridge cholesky": 'scikit-learn Ridge("cholesky")',
            },
            lambda f: f"{f['largest_relative_coefficient_error']:.0e}",
        ),
        *_rows(
            "8 GB file, 40,000,000 × 50 float32, read from the disk",
            results("out_of_core"),
            {"leyden": 'Leyden, memory="1GB"', "dask lstsq": "dask.array.linalg.lstsq"},
            lambda f: f"{f['certificate']['forward_error']:.0e} (bound)" if "certificate" in f else "",
        ),
        *_rows(
            "50 singular triplets of 1,000,000 × 500 float32 in memory, decaying",
            results("svd"),
            {
                "leyden svd decaying": "Leyden svd",
                "sklearn randomized_svd decaying": "scikit-learn randomized_svd, 7 power iterations",
                "scipy svds decaying": "scipy.sparse.linalg.svds",
            },
            lambda f: f"{f['residual']:.0e} (residual)",
        ),
        *_rows(
            "10 components of the rows of an 8 GB file, 40,000,000 × 50 float32",
            results("svd_out_of_core"),
            {
                "leyden pca": 'Leyden pca, memory="1GB"',
                "sklearn IncrementalPCA": "scikit-learn IncrementalPCA",
                "dask svd_compressed": "dask svd_compressed (not centred)",
            },
            lambda f: f"{f['residual']:.0e} (residual)",
        ),
        *_rows(
            "32 singular triplets of 10,000,000 × 100,000 sparse, 1.1e8 entries",
            results("svd_sparse"),
            {
                "leyden": 'Leyden svd, memory="2GB"',
                "sklearn TruncatedSVD": "scikit-learn TruncatedSVD, 5 iterations",
                "primme svds": "PRIMME svds",
            },
            lambda f: f"{f['residual']:.0e} (residual)",
        ),
        *_rows(
            "An epoch of implicit feedback, 1,000,000 × 250,000, 12 items a user, rank 128",
            results("als_implicit"),
            {
                "leyden 1M": "Leyden als (exact)",
                "implicit cg 1M": "implicit (3 steps of conjugate gradients)",
                "implicit exact 1M": "implicit, use_cg=False",
            },
            lambda f: f"{f['objectives'][1] / 1e6:.4f}e6 (objective after one)",
        ),
        *_rows(
            "72,000 × 10,000 explicit ratings, 8.9e6, until held-out RMSE is 0.7938, rank 50",
            {key: own[EXPLICIT] for key, own in results("als_explicit").items()},
            {
                "leyden": "Leyden als",
                "cmfrec without biases": "cmfrec",
                "libmf": "LIBMF (stochastic gradients)",
            },
            lambda f: f"{f['reached']['rmse']:.4f} (RMSE)",
        ),
        *_rows(
            "A random intercept for 125,066 groups of two rows, REML",
            results("mixed_groups"),
            {"leyden": "Leyden mixed", "statsmodels": "statsmodels MixedLM"},
            lambda f: f"{f['bounds']['forward_error']:.0e} (bound)" if "bounds" in f else "",
        ),
        *_rows(
            "327,346 flights: delays by distance, hour and origin, carriers, destinations and aircraft absorbed",
            results("mixed_flights"),
            {"leyden fixed, all": "Leyden mixed", "pyfixest fixed, all": "pyfixest"},
            lambda f: f"{f['bounds']['forward_error']:.0e} (bound)" if "bounds" in f else "",
        ),
        *_fixed_effects("simple", "1,000,000 workers and 100,000 firms absorbed from 10,000,000 rows, at random"),
        *_fixed_effects("difficult", "The same, workers who hardly ever move"),
        *_rows(
            "Forest Cover: class 2 against the rest by a kernel, 522,000 rows, errors on 59,012 others",
            {
                key: {"median_s": f["seconds"]} | f if "seconds" in f else f
                for key, f in results("kernel_peers").items()
            },
            {
                "leyden binning P=10": "Leyden kernel_machine, 10 grids of random bins",
                "leyden binning P=50": "the same, 50 grids",
                "leyden D=2000": "the same, 2,000 sines and cosines",
                "sklearn RBFSampler(2000) + RidgeClassifier": "scikit-learn RBFSampler(2000), RidgeClassifier",
                "sklearn RBFSampler(2000) + SGDClassifier": "scikit-learn RBFSampler(2000), SGDClassifier",
                "sklearn Nystroem(1000) + LinearSVC": "scikit-learn Nystroem(1000), LinearSVC",
                "sklearn SVC, 20,000 rows": "scikit-learn SVC (LIBSVM), 20,000 of the rows",
                "sklearn SVC, 40,000 rows": "the same, 40,000",
                "sklearn SVC, 80,000 rows": "the same, 80,000",
            },
            lambda f: f"{f['error']:.1%} wrong",
        ),
        *_rows(
            "QR of 1,000,000 × 100 float64, R alone",
            results("qr"),
            {
                "leyden, R": "Leyden qr, from a file",
                "dask tsqr, R": "dask.array.linalg.tsqr",
                "numpy qr, R": "numpy.linalg.qr",
            },
            lambda f: "",
        ),
    ]
    head = ["| problem | by | seconds | times Leyden's | error |", "|---|---|--:|--:|--:|"]
    return "\n".join([*head, *rows])


def _fixed_effects(design: str, problem: str) -> list[str]:
    every = results("fixed_effects")
    names = {
        "leyden": "Leyden mixed, a formula and a data frame",
        "leyden arrays": "its algorithm alone, on arrays",
        "pyfixest within": "pyfixest, within",
        "pyfixest rust": "pyfixest, rust",
        "pyfixest numba": "pyfixest, numba",
        "hdfe-stream": "hdfe-stream",
    }
    there = {f"{key} {design}": name for key, name in names.items() if f"{key} {design}" in every}
    return _rows(problem, every, there, lambda f: f"{f['error']:.0e}")


def _rows(problem: str, figures: dict[str, Any], names: dict[str, str], error: Any) -> list[str]:
    own = figures[next(iter(names))]["median_s"]
    lines = []
    for key, name in names.items():
        f = figures.get(key)
        if f is None:
            continue
        if "median_s" in f:
            times = f"{f['median_s'] / own:.1f}" if lines else ""
            lines.append(f"| {problem} | {name} | {f['median_s']:.2f} | {times} | {error(f)} |")
        elif "stopped_after_s" in f:
            stopped = f["stopped_after_s"]
            lines.append(f"| {problem} | {name}, stopped | > {stopped:.0f} | > {stopped / own:.1f} | |")
        problem = ""
    return lines


if __name__ == "__main__":
    print(table())
