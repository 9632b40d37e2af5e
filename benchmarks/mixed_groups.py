"""A random intercept for each of 125,066 groups of two rows: Leyden beside the MixedLM of statsmodels.

The shape of a report to statsmodels (issue 9097 there): pairs of rows, two categorical variables and one numerical,
41 minutes by MixedLM and one to two seconds by lme4 on the machine of its author. Made up here: five and three levels,
variance of the groups 0.5, of the noise 1. Both read the same data frame by the same formula and maximise the
restricted likelihood; coefficients, variances and the log-likelihood must agree to 1e-6 before seconds are compared.
"""

from __future__ import annotations

import json
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from harness import compare, peak_rss, repeat

GROUPS, ROWS = 125_066, 2
FOLDER = Path(tempfile.gettempdir()) / "leyden-benchmark-mixed-groups"
FORMULA = "value ~ C(first) + C(second) + numerical"


def prepare() -> None:
    FOLDER.mkdir(exist_ok=True)
    rng = np.random.default_rng(9097)
    unit = np.repeat(np.arange(GROUPS), ROWS)
    n = len(unit)
    data = pd.DataFrame(
        {
            "unit": unit,
            "first": rng.choice([f"level {i}" for i in range(5)], n),
            "second": rng.choice(["low", "medium", "high"], n),
            "numerical": rng.standard_normal(n),
        }
    )
    data["value"] = (
        1.0
        + 0.3 * data["numerical"]
        + 0.1 * data["first"].str[-1].astype(int)
        + np.sqrt(0.5) * rng.standard_normal(GROUPS)[unit]
        + rng.standard_normal(n)
    )
    data.sample(frac=1, random_state=0).to_parquet(FOLDER / "rows.parquet")


def leyden(data: pd.DataFrame) -> dict:
    import leyden as ly

    def fit() -> ly.MixedModel:
        return ly.mixed(f"{FORMULA} + (1 | unit)", data)

    timed = repeat(fit, 5)
    model = fit()
    found = {
        "fixed": model.fixed,
        "variance": float(model.groupings["unit"].covariance[0, 0]),
        "noise": model.sigma2,
        "log_likelihood": model.log_likelihood,
    }
    bounds = {name: bound.value for name, bound in model.certificate.bounds.items()}
    return {**timed, **found, "holds": model.certificate.holds, "bounds": bounds}


def statsmodels(data: pd.DataFrame) -> dict:
    from statsmodels.formula.api import mixedlm

    warnings.simplefilter("ignore")
    began = time.perf_counter()
    model = mixedlm(FORMULA, data, groups=data["unit"])
    fitted = model.fit(gtol=1e-8)
    seconds = time.perf_counter() - began
    return {
        "median_s": seconds,
        "repeats": 1,
        "fixed": dict(fitted.fe_params),
        "variance": float(fitted.cov_re.iloc[0, 0]),
        "noise": float(fitted.scale),
        "log_likelihood": float(fitted.llf),
    }


def measure(configuration: str) -> dict:
    data = pd.read_parquet(FOLDER / "rows.parquet")
    found = {"leyden": leyden, "statsmodels": statsmodels}[configuration](data)
    answers = FOLDER / "answers.json"
    known = json.loads(answers.read_text()) if answers.exists() else None
    if known is None:
        answers.write_text(json.dumps(found))
    else:
        found["disagreement"] = disagreement(found, known)
    return {**found, "rows": len(data), "peak_rss": peak_rss()}


def disagreement(a: dict, b: dict) -> float:
    """The largest relative difference of coefficients, variances and log-likelihood."""
    pairs = [(a["fixed"][name], value) for name, value in b["fixed"].items()]
    pairs += [(a[name], b[name]) for name in ("variance", "noise", "log_likelihood")]
    return max(abs(x - y) / max(abs(y), 1e-2) for x, y in pairs)


if __name__ == "__main__":
    compare("mixed_groups", measure, ["leyden", "statsmodels"], prepare, FOLDER)
