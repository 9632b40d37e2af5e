"""Error of the kernel of random features against how many there are, on real data, beside scikit-learn's RBFSampler.

Columns of mean zero and variance one, the median width, and pairs of rows: drawn at random, and near ones, the first
that are drawn at distances below half a width (and are not equal). Of each map, number of features and seed the root
mean square of ``z(x)·z(y) − k(x, y)`` over the pairs; of the seeds the median, and the second and the ninth of ten,
between which the median of all draws lies with 98%. Beside them what formulas of the variance say
(:mod:`leyden.kernel.fourier`): ``(1 + k(2t) − 2k²)/D`` of independent pairs of sines and cosines, and
``(1 + k(2t)/2 − k²)/D`` of cosines with random phases, as RBFSampler has them; of random bins ``k (1 − k)/P``.

Random bins count grids: a point has as many numbers.

Data: ``../shared/data`` beside the checkout, or ``LEYDEN_DATA``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from harness import RESULTS, machine
from kernel_2007 import adult, cpu, forest
from leyden.engine.local import single_threaded_blas
from leyden.kernel.inputs import median_width
from leyden.kernel.kernels import Kernel
from leyden.kernel.maps import NAMES, make
from leyden.kernel.quality import exact, inner

SETS = {"Adult": adult, "CPU": cpu, "Forest Cover": forest}
ROWS, PAIRS, NEAR, SEARCHED, SEEDS = 20_000, 2000, 500, 400_000, 10
SIZES = [2**k for k in range(5, 14)]
#: Sizes beyond which a map takes longer than all others together.
MOST = {"binning": 512, "nystroem": 512, "nystroem-uniform": 512}
#: Those of each kernel, as far as they are there.
MAPS = {
    "gaussian": ("plain", "orthogonal", "sorf", "qmc", "nystroem", "nystroem-uniform"),
    "laplacian": ("plain", "binning"),
}


def standardised(load: Callable) -> np.ndarray:
    """Some rows of a table, on one scale."""
    x = np.asarray(load(0)[0], np.float64)
    deviation = x.std(axis=0)
    chosen = np.random.default_rng(0).permutation(len(x))[:ROWS]
    return ((x[chosen] - x.mean(axis=0)) / np.where(deviation > 0, deviation, 1)).astype(np.float32)


def pairs(x: np.ndarray, kernel: Kernel) -> tuple[np.ndarray, np.ndarray, int]:
    """The points of random pairs and of near ones after them, and how many are near."""
    first, second = np.random.default_rng(1).integers(0, len(x), (2, SEARCHED))
    parts = zip(np.split(first, SEARCHED // 10_000), np.split(second, SEARCHED // 10_000), strict=True)
    distance = np.concatenate([kernel.distances(x[i], x[j]) for i, j in parts]) / kernel.width
    chosen = np.flatnonzero((distance > 0) & (distance < 0.5))[:NEAR]
    chosen = np.concatenate([np.arange(PAIRS), chosen])
    return x[first[chosen]], x[second[chosen]], len(chosen) - PAIRS


def cosines(kernel: Kernel, size: int, seed: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Inner products of the features of RBFSampler."""
    from sklearn.kernel_approximation import RBFSampler

    found = RBFSampler(gamma=1 / (2 * kernel.width**2), n_components=size, random_state=seed).fit(x)
    return np.einsum("ij,ij->i", found.transform(x), found.transform(y), dtype=np.float64)


def of_map(name: str, sample: np.ndarray) -> Callable:
    """Inner products of the features of a map."""

    def products(kernel: Kernel, size: int, seed: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return inner(make(name, kernel, x.shape[1], size, seed, sample=sample), x, y)

    return products


def root(squares: np.ndarray) -> dict[str, float]:
    """The roots of means over random and over near pairs."""
    return {"random": float(squares[:PAIRS].mean() ** 0.5), "near": float(squares[PAIRS:].mean() ** 0.5)}


def spread(errors: list[dict]) -> dict:
    """Median and interval of the errors of the seeds, and the root mean square of all."""
    found = {}
    for kind in ("random", "near"):
        values = sorted(error[kind] for error in errors)
        together = float(np.sqrt(np.mean(np.square(values))))
        found[kind] = {"median": float(np.median(values)), "interval": [values[1], values[-2]], "all": together}
    return found


def measure(load: Callable, name: str) -> dict:
    x = standardised(load)
    kernel = Kernel(name, median_width(name, x))
    first, second, near = pairs(x, kernel)
    k, k2 = exact(kernel, first, second), exact(Kernel(name, kernel.width / 2), first, second)
    products = {of: of_map(of, x) for of in MAPS[name] if of in NAMES}
    formulas = {"plain": 1 + k2 - 2 * k**2}
    if name == "gaussian":
        products["RBFSampler"] = cosines
        formulas["RBFSampler"] = 1 + k2 / 2 - k**2
    else:
        formulas["binning"] = k * (1 - k)
    figures: dict = {"rows": len(x), "columns": x.shape[1], "width": kernel.width, "pairs": PAIRS, "near": near}
    figures["maps"] = {}
    for of, product in products.items():
        began, found = time.process_time(), {}
        for size in SIZES:
            if size > MOST.get(of, size):
                break
            errors = [root((product(kernel, size, seed, first, second) - k) ** 2) for seed in range(SEEDS)]
            found[size] = spread(errors)
            if of in formulas:
                found[size]["predicted"] = root(formulas[of] / size)
        figures["maps"][of] = {"sizes": found, "cpu_seconds": time.process_time() - began}
    if name == "gaussian":
        figures["relative to RBFSampler"] = {of: ratios(figures["maps"], of) for of in products}
    return figures


def ratios(maps: dict, of: str) -> dict:
    """Errors of a map relative to RBFSampler's, the mean over numbers of features: measured, and by the formulas."""
    mine, others = maps[of]["sizes"], maps["RBFSampler"]["sizes"]
    found = {}
    for kind in ("random", "near"):
        measured = [mine[size][kind]["all"] / others[size][kind]["all"] for size in mine]
        found[kind] = {"measured": float(np.exp(np.mean(np.log(measured))))}
        if "predicted" in mine[32]:
            found[kind]["predicted"] = mine[32]["predicted"][kind] / others[32]["predicted"][kind]
    return found


STYLES = {
    "RBFSampler": ("#8a8a8a", "^"),
    "plain": ("#b5483a", "s"),
    "orthogonal": ("#2b6cb0", "o"),
    "sorf": ("#319795", "D"),
    "qmc": ("#805ad5", "v"),
    "nystroem": ("#2f855a", "P"),
    "nystroem-uniform": ("#68a33c", "X"),
    "binning": ("#dd6b20", "h"),
}
PANELS = (
    ("gaussian", "random", "random pairs"),
    ("gaussian", "near", "near pairs"),
    ("laplacian", "near", "near pairs"),
)


def plot(figures: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "leyden"
    fig, axes = plt.subplots(len(PANELS), len(SETS), figsize=(10, 9), sharex=True, sharey="row", layout="constrained")
    for row, (name, kind, title) in zip(axes, PANELS, strict=True):
        for ax, (table, found) in zip(row, figures.items(), strict=True):
            for of, one in found[name]["maps"].items():
                sizes, (colour, marker) = [int(size) for size in one["sizes"]], STYLES[of]
                values = [value[kind] for value in one["sizes"].values()]
                ax.loglog(sizes, [v["median"] for v in values], marker=marker, ms=4, color=colour, label=of)
                low, high = zip(*(v["interval"] for v in values), strict=True)
                ax.fill_between(sizes, low, high, color=colour, alpha=0.15, lw=0)
                if of in ("RBFSampler", "plain", "binning"):
                    predicted = [value["predicted"][kind] for value in one["sizes"].values()]
                    ax.loglog(sizes, predicted, ":", color=colour, lw=1)
            ax.grid(alpha=0.3)
            ax.set_title(f"{table}: {name.capitalize()}, {title}", loc="left", fontsize=9)
        row[0].set_ylabel("error of the kernel (root mean square)")
        row[-1].legend(frameon=False, fontsize=7, loc="lower left")
    for ax in axes[-1]:
        ax.set_xlabel("features D, or grids")
    fig.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)


if __name__ == "__main__":
    began = time.process_time()
    with single_threaded_blas():
        figures = {table: {name: measure(load, name) for name in MAPS} for table, load in SETS.items()}
    RESULTS.mkdir(exist_ok=True)
    document = {"machine": machine(), "cpu_seconds": time.process_time() - began, "configurations": figures}
    (RESULTS / "feature_quality.json").write_text(json.dumps(document, indent=1) + "\n")
    for ending in ("svg", "png"):
        plot(figures, RESULTS / f"feature_quality.{ending}")
