"""Condition numbers from 1e2 to 1e14, float64, 100,000 × 100: error, certified bound, and normal equations.

The truth is exact: the matrix is cut into integers short enough that their Gram matrices are exact in float64, these
are put together as Python integers, and the normal equations are solved with 100 digits.
"""

from __future__ import annotations

import json
from pathlib import Path

import mpmath as mp
import numpy as np

from harness import RESULTS, machine

ROWS, COLUMNS = 100_000, 100
BITS, LIMBS = 18, 4


def problem(decades: int) -> tuple[np.ndarray, np.ndarray]:
    """A matrix with singular values spread evenly in logarithm, and a target with noise, on a grid of 2⁻⁶⁰."""
    rng = np.random.default_rng(decades)
    u, _ = np.linalg.qr(rng.standard_normal((ROWS, COLUMNS)))
    v, _ = np.linalg.qr(rng.standard_normal((COLUMNS, COLUMNS)))
    a = u * np.logspace(0, -decades, COLUMNS) @ v.T
    b = a @ rng.standard_normal(COLUMNS) + 1e-3 * rng.standard_normal(ROWS) / np.sqrt(ROWS)
    return np.round(a * 2.0**60) / 2.0**60, np.round(b * 2.0**60) / 2.0**60


def exact_gram(m: np.ndarray) -> tuple[np.ndarray, int]:
    """``MᵀM = G 2^e`` with G of Python integers: limbs of 18 bits, whose products sum exactly over 2¹⁷ rows."""
    exponent = int(np.ceil(np.log2(np.abs(m).max()))) + 1
    rest, limbs = m * 2.0**-exponent, []
    for _ in range(LIMBS):
        rest = rest * 2.0**BITS
        limbs.append(np.trunc(rest))
        rest = rest - limbs[-1]
    assert not rest.any(), "the grid is finer than the limbs"
    gram = np.zeros((m.shape[1],) * 2, dtype=object)
    for i, p in enumerate(limbs):
        for j, q in enumerate(limbs):
            gram += (p.T @ q).astype(np.int64).astype(object) << (BITS * (2 * (LIMBS - 1) - i - j))
    return gram, 2 * exponent - 2 * BITS * LIMBS


def exact_solution(a: np.ndarray, b: np.ndarray) -> list[mp.mpf]:
    """The minimiser, to many more digits than float64 holds."""
    mp.mp.dps = 100
    gram, exponent = exact_gram(np.column_stack([a, b]))
    scale, d = mp.mpf(2) ** exponent, a.shape[1]
    h = mp.matrix([[mp.mpf(int(gram[i, j])) * scale for j in range(d)] for i in range(d)])
    g = mp.matrix([mp.mpf(int(gram[i, d])) * scale for i in range(d)])
    return list(mp.lu_solve(h, g))


def measure(decades: int) -> dict:
    import leyden as ly

    a, b = problem(decades)
    truth = exact_solution(a, b)
    size = mp.sqrt(mp.fsum(t * t for t in truth))

    def error(x: np.ndarray) -> float:
        return float(mp.sqrt(mp.fsum((mp.mpf(float(v)) - t) ** 2 for v, t in zip(x, truth, strict=True))) / size)

    figures: dict = {"condition": 10.0**decades, "leyden": {}}
    settings = {
        "auto": {},
        "tsqr": {"method": "tsqr"},
        "sketch": {"method": "sketch"},
        "digits": {"forward_tol": 1e-12},
    }
    for method, options in settings.items():
        solution = ly.lstsq(a, b, **options)
        c = solution.certificate
        figures["leyden"][method] = {
            "method": solution.plan.method,
            "error": error(solution.x),
            "bound": c.forward_error_bound,
            "backward_error": c.backward_error,
            "holds": c.holds,
            "condition": [c.bounds["condition"].lower, c.bounds["condition"].value],
            "seconds": solution.trace.seconds,
            "passes": len(solution.trace.passes),
        }
        # The bound is relative to the computed x, the error here to the exact one.
        assert figures["leyden"][method]["error"] <= c.forward_error_bound * 1.0001 * float(
            np.linalg.norm(solution.x) / size
        )
    try:
        figures["normal equations"] = error(np.linalg.solve(a.T @ a, a.T @ b))
    except np.linalg.LinAlgError:
        figures["normal equations"] = None
    figures["numpy lstsq"] = error(np.linalg.lstsq(a, b, rcond=None)[0])
    return figures


def plot(figures: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "leyden"
    fig, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
    condition = [f["condition"] for f in figures]
    auto = [f["leyden"]["auto"] for f in figures]
    ax.loglog(
        condition, [f["normal equations"] for f in figures], "s--", color="#b5483a", label="NumPy, normal equations"
    )
    ax.loglog(condition, [f["numpy lstsq"] for f in figures], "^--", color="#8a8a8a", label="NumPy lstsq (SVD)")
    ax.fill_between(condition, 1e-17, [a["bound"] for a in auto], color="#2b6cb0", alpha=0.12)
    ax.loglog(condition, [a["bound"] for a in auto], "-", color="#2b6cb0", label="Leyden, certified bound")
    ax.loglog(condition, [a["error"] for a in auto], "o", color="#2b6cb0", label="Leyden, true error")
    digits = [f["leyden"]["digits"] for f in figures]
    ax.loglog(condition, [d["bound"] for d in digits], ":", color="#2f855a", label="Leyden, forward_tol=1e-12, bound")
    ax.loglog(condition, [d["error"] for d in digits], "D", ms=4, color="#2f855a", label="same, true error")
    ax.set(xlabel="condition number of A", ylabel="relative error of x", ylim=(1e-17, 1e3))
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, loc="upper left", ncols=2, fontsize=8)
    ax.set_title("100,000 × 100, float64: the error never passes the bound", loc="left", fontsize=11)
    fig.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)


if __name__ == "__main__":
    figures = [measure(decades) for decades in range(2, 15)]
    RESULTS.mkdir(exist_ok=True)
    document = {"machine": machine(), "configurations": figures}
    (RESULTS / "conditioning.json").write_text(json.dumps(document, indent=1) + "\n")
    plot(figures, RESULTS / "conditioning.svg")
    plot(figures, RESULTS / "conditioning.png")
