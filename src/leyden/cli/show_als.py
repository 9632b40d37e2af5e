"""Matrix factorizations on a terminal, as tables, and for programs, as JSON."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, ROUND_FLOOR
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from leyden.cli import show
from leyden.cli.peak import peak_rss
from leyden.cli.show_factor import rounded
from leyden.engine.budget import format_bytes

if TYPE_CHECKING:
    from rich.table import Table

    from leyden.factor.als_result import ALSResult
    from leyden.factor.metrics import RankingMetrics, UserMean

#: Epochs shown, of the first and of the last.
FIRST, LAST = 3, 3

#: Digits of the objective.
DIGITS = 8


def document(solution: ALSResult, held_out: Any) -> dict[str, Any]:
    """A factorization as plain values; its factors stay in the folder they are saved in."""
    model = solution.model
    return {
        "verb": solution.kind,
        "users": model.users,
        "items": len(model.v),
        "rank": solution.rank,
        "objective": {**vars(model.objective)},
        "biases": model.biases,
        "nonnegative": model.nonnegative,
        "history": solution.history,
        "held_out": None if held_out is None else held_out.to_json(),
        "certificate": solution.certificate.to_json(),
        "plan": solution.plan.to_json(),
        "trace": solution.trace.to_json(),
        "peak_rss": peak_rss(),
    }


def print_solution(solution: ALSResult, held_out: Any, out: Path | None = None) -> None:
    """Problem, epochs, what was held out, certificate, time and verdict."""
    to = show.console()
    to.print(f"[bold]matrix factorization[/] {escape(solution.plan.data)}")
    to.print(f"{escape(minimised(solution))}; method {solution.plan.method}", style="dim")
    to.print(epoch_table(solution))
    to.print(f"  {escape(reached(solution))}")
    if held_out is not None:
        _print_held_out(to, held_out)
    show.print_evidence(solution, out, work_table(solution))
    if out is not None:
        to.print(f"leyden recommend {escape(str(out))} --user ID: what somebody may like", style="dim")


def minimised(solution: ALSResult) -> str:
    """The objective, in a few words."""
    model = solution.model
    objective = model.objective
    if not objective.implicit:
        kind = f"ratings, with mean {objective.mean:.6g} and biases" if model.biases else "ratings"
    elif objective.background is not None:
        kind = f"implicit feedback, background {objective.background:g}"
    else:
        kind = f"implicit feedback, alpha {objective.alpha:g}"
    penalty = f"λ {objective.regularization:g}" + (f" n^{objective.scaling:g}" if objective.scaling else "")
    return f"{kind}, rank {solution.rank}, {penalty}" + (", factors zero or more" if model.nonnegative else "")


def epoch_table(solution: ALSResult) -> Table:
    """The first and the last epochs: the objective each reached, how far factors moved, what they foretell."""
    from leyden.factor.held_out import SHOWN

    table, users = show.plain_table(), float(solution.model.users)
    shown = {key: name for key, name in SHOWN.items() if any(key in epoch for epoch in solution.history)}
    for name in ("epoch", "objective", "step", "stationarity", *shown.values(), ""):
        table.add_column(name, justify="left" if not name else "right")
    history = solution.history
    for number, epoch in enumerate(history, 1):
        if FIRST < number <= len(history) - LAST:
            if number == FIRST + 1:
                table.add_row("⋯")
            continue
        remark = "extrapolation taken back" if epoch.get("taken_back") else ""
        if epoch["users"] < users:
            remark = f"of one user in {users / epoch['users']:.0f}"
        table.add_row(
            f"{number:,}",
            f"{epoch['after']:#,.{DIGITS}g}",
            f"{epoch['step']:.1e}",
            f"{epoch['stationarity']:.1e}" if "stationarity" in epoch else "",
            *[f"{epoch[key]:.4f}" if key in epoch else "" for key in shown],
            f"[dim]{remark}[/]",
        )
    return table


def reached(solution: ALSResult) -> str:
    """The objective, and what is known to be out of reach."""
    bound, gap = (solution.certificate.bounds[name] for name in ("objective", "duality_gap"))
    value, lower = rounded(bound.value, ROUND_CEILING, DIGITS), rounded(bound.lower or 0.0, ROUND_FLOOR, DIGITS)
    return f"objective {value}; no factors of any rank reach less than {lower} (duality gap {gap.value:.1e})"


def _print_held_out(to: Any, held_out: Any) -> None:
    from leyden.factor.metrics import RankingMetrics

    if not isinstance(held_out, RankingMetrics):
        to.print(f"  {escape(str(held_out))}")
        return
    of = f"{held_out.items:,} held-out items of {held_out.users:,} users"
    to.print(f"  {of}, ranked among all; mean ± standard error")
    to.print(metric_table(held_out))


def metric_table(metrics: RankingMetrics) -> Table:
    """Ranking metrics, a column a length of the list."""
    table = show.plain_table()
    table.add_column("")
    for cutoff in metrics.recall:
        table.add_column(f"at {cutoff}", justify="right")
    for name, means in (("recall", metrics.recall), ("NDCG", metrics.ndcg), ("hit rate", metrics.hit_rate)):
        table.add_row(name, *map(_mean, means.values()))
    table.add_row("reciprocal rank", _mean(metrics.reciprocal_rank))
    return table


def _mean(mean: UserMean) -> str:
    return f"{mean.mean:.4f} ± {mean.standard_error:.4f}"


def work_table(solution: ALSResult) -> Table:
    """What was done how often, what was read, and the time it was predicted to take and took."""
    planned, made = _together(solution.plan.to_json()["passes"]), _together(solution.trace.to_json()["passes"])
    table = show.plain_table()
    table.add_column("pass")
    for name in ("planned", "made", "read", "predicted", "measured"):
        table.add_column(name, justify="right")
    for name in dict.fromkeys([*made, *planned]):
        plan, done = planned.get(name), made.get(name)
        table.add_row(
            name,
            f"{plan[0]}" if plan else "",
            f"{done[0]}" if done else "",
            format_bytes(done[1]) if done else "",
            f"{plan[2]:.2f} s" if plan else "",
            f"{done[2]:.2f} s" if done else "not needed",
        )
    seconds = f"{solution.plan.seconds:.2f} s", f"{solution.trace.seconds:.2f} s"
    table.add_row("all", "", "", "", *seconds, style="bold")
    return table


def _together(passes: list[dict[str, Any]]) -> dict[str, tuple[int, int, float]]:
    """How many passes of a name, but for its number, the bytes they read, and their seconds."""
    sums: dict[str, tuple[int, int, float]] = {}
    for one in passes:
        name = re.sub(r" \d+$", "", one["name"])
        count, nbytes, seconds = sums.get(name, (0, 0, 0.0))
        sums[name] = count + 1, nbytes + one["nbytes"], seconds + one["seconds"]
    return sums
