"""What verbs take on the command line: dataclasses whose fields are options (:func:`leyden.cli.verbs.verb`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from leyden.rows import Rows

# Files without column names or types, whose columns are called by their number.
_NUMBERED = (".npy", ".npz", ".mtx", ".mtx.gz")


def option(panel: str, *names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=panel, **settings)


Debug = Annotated[bool, option("Output", "--debug", help="Show the traceback of an error.")]


@dataclass(frozen=True)
class Reading:
    """Where the rows are and what their columns mean; an option that is not given is None."""

    data: Annotated[
        list[str],
        typer.Argument(metavar="DATA", help="Files of one format, a glob, or a folder.", show_default=False),
    ]
    target: Annotated[
        list[str] | None,
        option(
            "Data",
            "--target",
            metavar="COL|FILE.npy",
            help="What to predict: a column (repeat for several), or a file.",
        ),
    ] = None
    columns: Annotated[
        str | None, option("Data", metavar="A,B,...", help="Columns to use; by default all that have no other role.")
    ] = None
    categorical: Annotated[
        str | None, option("Data", metavar="A,B,...|auto", help="Columns to turn into indicators; auto: all text.")
    ] = None
    drop_first: Annotated[
        bool | None,
        option("Data", "--drop-first/--keep-first", help="Leave out the first indicator of each.", show_default=False),
    ] = None
    nulls: Annotated[
        str | None, option("Data", metavar="error|mean|drop", help="What to do about missing values (error).")
    ] = None
    weight: Annotated[str | None, option("Data", metavar="COL|FILE.npy", help="A weight for each row.")] = None
    format: Annotated[
        str | None, option("Data", metavar="NAME", help="Format of files with an unusual ending: csv, parquet, ...")
    ] = None

    @property
    def given(self) -> dict[str, Any]:
        """The options that were given, as arguments of :func:`leyden.open`."""
        target = None if self.target is None else [self._name(name) for name in self.target]
        asked = {
            "target": target[0] if target and len(target) == 1 else target,
            "columns": None if self.columns is None else [self._name(name) for name in self.columns.split(",")],
            "categorical": "auto" if self.categorical == "auto" else self.categorical and self.categorical.split(","),
            "drop_first": self.drop_first,
            "nulls": self.nulls,
            "weight": self.weight,
            "format": self.format,
        }
        return {name: value for name, value in asked.items() if value is not None}

    def open(self, given: dict[str, Any] | None = None, *, labels: bool = False) -> Rows:
        """The rows, read as asked here or as ``given`` says; with ``labels`` the target may be text."""
        from leyden.rows import open as open_rows

        source: Any = self.data[0] if len(self.data) == 1 else self.data
        return open_rows(source, **(self.given if given is None else given), labels=labels)

    def _name(self, name: str) -> str | int:
        numbered = self.format in ("npy", "npz", "mtx") or self.data[0].lower().endswith(_NUMBERED)
        return int(name) if numbered and name.isdecimal() else name


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a run may use, and where it keeps what is done."""

    memory: Annotated[
        str | None, option("Run", metavar="2GB", help="Budget; by default half of the memory that is free.")
    ] = None
    threads: Annotated[
        int | None, option("Run", min=1, help="By default all processors; the answer is the same.", show_default=False)
    ] = None
    checkpoint: Annotated[
        Path | None,
        option("Run", metavar="DIR", help="Keep what is done here, to go on from after an end.", show_default=False),
    ] = None
    checkpoint_every: Annotated[
        float, option("Run", metavar="SECONDS", min=0, help="How often, at most; less when saving takes long.")
    ] = 60.0

    @property
    def arguments(self) -> dict[str, Any]:
        """As arguments of the library. The checkpoint stays until it is removed: a result must be seen first."""
        from leyden.engine.checkpoint import Checkpoint

        given = asdict(self)
        every = given.pop("checkpoint_every")
        if self.checkpoint is not None:
            given["checkpoint"] = Checkpoint(self.checkpoint, every, keep=True)
        return given


@dataclass(frozen=True, kw_only=True)
class Means(Resources):
    """The resources of a run that draws random numbers."""

    seed: Annotated[int, option("Run", help="Of whatever is random.")] = 0


@dataclass(frozen=True, kw_only=True)
class Problem(Means):
    """What is solved, how well, and with what means."""

    ridge: Annotated[float, option("Problem", help="λ: adds λ‖x‖² to the objective, the intercept excepted.")] = 0.0
    intercept: Annotated[bool, option("Problem", "--intercept/--no-intercept", help="Fit a constant as well.")] = False
    tol: Annotated[float, option("Problem", help="Relative backward error the certificate must reach.")] = 1e-14
    forward_tol: Annotated[
        float | None, option("Problem", help="Relative forward error it must reach as well.", show_default=False)
    ] = None
    method: Annotated[
        str, option("Run", metavar="auto|gram32|gram64|tsqr|sketch", help="By default the fastest one that will do.")
    ] = "auto"


@dataclass(frozen=True, kw_only=True)
class Factored(Means):
    """What svd and pca share."""

    rank: Annotated[int, option("Problem", "--rank", "-k", help="How many components.", show_default=False)]
    tol: Annotated[
        float, option("Problem", help="What the residual of every component, relative to σ₁, must stay below.")
    ] = 1e-6
    method: Annotated[
        str, option("Run", metavar="auto|gram|outer|krylov|sketch", help="By default the fastest one that will do.")
    ] = "auto"
    passes: Annotated[
        int | None,
        option("Run", min=1, help="The most passes over the data; with one, maybe an estimate.", show_default=False),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Triplets(Factored):
    """Singular values and vectors."""

    left: Annotated[
        Path | None,
        option("Output", metavar="FILE.npy", help="Write the left vectors here, in one more pass.", show_default=False),
    ] = None

    @property
    def arguments(self) -> dict[str, Any]:
        given = super().arguments
        left = given.pop("left")
        return {**given, "u": left if left is not None else False}


@dataclass(frozen=True, kw_only=True)
class Components(Factored):
    """Principal components."""

    scale: Annotated[
        bool, option("Problem", "--scale/--no-scale", help="Divide each column by its standard deviation.")
    ] = False
    scores: Annotated[
        Path | None,
        option("Output", metavar="FILE.npy", help="Write the scores here, in one more pass.", show_default=False),
    ] = None

    @property
    def arguments(self) -> dict[str, Any]:
        given = super().arguments
        return {**given, "scores": self.scores if self.scores is not None else False}


@dataclass(frozen=True)
class Cluster:
    """Who folds the rows: this process, or the workers of a Dask cluster."""

    scheduler: Annotated[
        str | None,
        option("Run", metavar="tcp://HOST:PORT", help="Run on the Dask cluster of this scheduler.", show_default=False),
    ] = None
    workers: Annotated[
        int | None,
        option("Run", min=1, help="Run in so many processes here, each with --memory.", show_default=False),
    ] = None

    @contextmanager
    def executor(self, memory: str | None) -> Iterator[Any]:
        """A context with the executor that was asked for; None when none was."""
        if self.scheduler is None and self.workers is None:
            yield None
            return
        import logging

        from leyden.engine.dask import Dask
        from leyden.errors import OptionError

        if self.scheduler is not None and self.workers is not None:
            raise OptionError("scheduler= and workers= cannot be given together", hint="Workers join a scheduler.")
        # What Dask tells of lost workers and failed tasks, an error of ours says in one sentence.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        made = Dask(self.scheduler) if self.scheduler is not None else Dask.local(self.workers or 1, memory)
        with made as dask:
            yield dask


@dataclass(frozen=True)
class Output:
    """What is printed."""

    json: Annotated[bool, option("Output", "--json", help="Print one JSON document instead of tables.")] = False
    quiet: Annotated[bool, option("Output", "--quiet", "-q", help="Print the verdict alone.")] = False
    debug: Debug = False

    @property
    def progress(self) -> bool | None:
        """Whether to show passes while they run; None leaves it to whether there is a terminal."""
        return False if self.quiet else None


Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder to save the solution in.", rich_help_panel="Output", show_default=False),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.svg|png",
        help="Plot the spectrum with its certified enclosures.",
        rich_help_panel="Output",
        show_default=False,
    ),
]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a saved solution.", show_default=False)]
