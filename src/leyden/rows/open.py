"""``open``: from whatever holds a matrix to Rows."""

from __future__ import annotations

import copy
import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leyden.errors import DataError, OptionError
from leyden.rows import remote
from leyden.rows.array import ArrayRows
from leyden.rows.base import Rows, as_array
from leyden.rows.mapped import Cast, SelectColumns
from leyden.rows.ratings_folder import is_store
from leyden.rows.roles import SplitTarget, WithRoles
from leyden.rows.schema import float_dtype
from leyden.rows.sparse import CSRRows, is_sparse
from leyden.rows.stored import StoredArray

if TYPE_CHECKING:
    from leyden.rows.table import TableRows

FORMATS = {
    ".npy": "npy",
    ".npz": "npz",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".svm": "svmlight",
    ".svmlight": "svmlight",
    ".libsvm": "svmlight",
    ".mtx": "mtx",
    ".mtx.gz": "mtx",
}

# Formats of tables, whose columns have names and types, and those of which several files make one stream.
TABLES = ("parquet", "csv", "tsv")
STREAMS = (*TABLES, "svmlight")


def open(
    source: Any,
    *,
    target: Any = None,
    weight: Any = None,
    group: Any = None,
    columns: Sequence[str | int] | None = None,
    categorical: Sequence[str] | str | None = None,
    drop_first: bool = False,
    nulls: str = "error",
    dtype: Any = None,
    format: str | None = None,
    labels: bool = False,
) -> Rows:
    """Open a matrix as a stream of rows, without reading more of it than is needed to know its shape.

    Parameters
    ----------
    source : path, glob, folder or list of paths; array, sparse matrix, data frame or Rows
        Files are known by their ending: ``.npy``, ``.npz``, ``.parquet``, ``.csv``, ``.tsv``, ``.svm`` and ``.mtx``.
        Several files of a table or of svmlight rows are read one after another, in the order of their names. Of a
        folder, what is hidden (names that begin with a dot or an underscore) and saved solutions are left out. A folder
        that :func:`leyden.open_ratings` wrote is opened as :class:`leyden.Ratings`.
    target : str or list of str, array_like, path or int, optional
        What is to be predicted. Of a table, the name of one column or of several. Otherwise an array with one row for
        each row of the data, the path of a ``.npy`` file that holds one, or the number of a column, which is split off.
        The labels of svmlight files are their target.
    weight, group : str, array_like or path, optional
        A weight for each row, and the group that each row belongs to, given in the same ways.
    columns : list of str or int, optional
        The columns to read, and their order; all but the roles by default. Where the data has no names of its own, new
        names may be given, one for each column.
    categorical : list of str or "auto", optional
        Columns of a table to encode as one indicator for each value, named ``column=value``. "auto" takes all columns
        of text. The values are found by reading these columns once.
    drop_first : bool
        Leave out the first indicator of each categorical column.
    nulls : {"error", "mean", "drop"}
        What to do about missing values of a table: stop at the first; fill it with the mean of its column (a missing
        category has no indicator); or drop every row that has one. NaN is not null, and is an error when it is met.
    dtype : {"float32", "float64"}, optional
        Of the blocks. By default that of the data, or for a table float32 if it holds all its columns exactly.
    format : str, optional
        One of npy, npz, parquet, csv, tsv, svmlight and mtx, for files with another ending.
    labels : bool, default False
        Whether the target may be text, of tables: its different values are then numbered in order, from zero, and are
        the ``labels`` of the rows.

    Returns
    -------
    Rows

    Raises
    ------
    DataError
        The data is missing, damaged or not numeric.
    OptionError
        A column that is asked for does not exist, or an option does not apply to this source.

    Examples
    --------
    >>> import numpy as np, leyden as ly
    >>> ly.open(np.eye(3), target=[1, 2, 3])
    <Rows 3 × 3 float64 dense from array; target=target>
    """
    roles = {"target": target, "weight": weight, "group": group}
    table = {"categorical": categorical, "drop_first": drop_first, "nulls": nulls, "labels": labels}
    rows: Rows
    if is_path(source) and is_store(source):
        from leyden.rows.ratings_store import StoredRatings

        rows = StoredRatings(source)
    elif are_paths(source):
        paths, name = find_files(source, format)
        if name in TABLES:
            return _open_table(name, paths, name_of(source), roles, {**table, "columns": columns, "dtype": dtype})
        rows = _open_file(name, paths, name_of(source), dtype)
    elif is_frame(source):
        return _open_table("arrow", source, "table", roles, {**table, "columns": columns, "dtype": dtype})
    elif isinstance(source, Rows):
        rows = source
    elif is_sparse(source):
        rows = CSRRows(source)
    else:
        rows = ArrayRows(_as_array(source))
    if categorical is not None or drop_first or nulls != "error":
        raise OptionError(
            "categorical=, drop_first= and nulls= are for tables (Parquet, CSV, data frames)",
            where=rows.source,
            hint="These data have no column types and no nulls.",
        )
    rows = _with_roles(rows, roles)
    if columns is not None:
        rows = _with_columns(rows, columns)
    return _with_dtype(rows, dtype)


def open_columns(source: Any, columns: Sequence[str], nulls: str) -> TableRows:
    """A table whose columns may hold anything, to be read batch by batch.

    Parameters
    ----------
    source : path, glob, folder or list of paths; or data frame
    columns : sequence of str
    nulls : {"error", "drop"}
    """
    options = {"columns": columns, "nulls": nulls, "encode": False}
    if not are_paths(source):
        return _open_table("arrow", source, "table", {}, options)  # type: ignore[return-value]
    paths, name = find_files(source, None)
    if name not in TABLES:
        raise OptionError(f"a {name} file is no table with names and types", where=name_of(source))
    return _open_table(name, paths, name_of(source), {}, options)  # type: ignore[return-value]


def column_names(source: Any) -> tuple[str, ...]:
    """The names of a table's columns, from paths or a data frame."""
    if is_frame(source):
        import pyarrow as pa

        # Of a data frame, the columns without the rows are enough, and to see the rows takes time.
        return tuple(
            pa.RecordBatchReader.from_stream(source.head(0) if hasattr(source, "head") else source).schema.names
        )
    paths, name = find_files(source, None)
    if name == "parquet":
        from leyden.rows.parquet import open_parquet

        with open_parquet(paths[0]) as file:
            return tuple(file.schema_arrow.names)
    if name in TABLES:
        from leyden.rows.csv import column_names as names_in
        from leyden.rows.csv import header

        return tuple(names_in(header(paths[0]), paths[0], "," if name == "csv" else "\t"))
    raise OptionError(f"a {name} file is no table with names and types", where=name_of(source))


# ---------------------------------------------------------------- sources


def is_path(source: Any) -> bool:
    """Whether this is the path of something."""
    return isinstance(source, str | os.PathLike)


def are_paths(source: Any) -> bool:
    """Whether this is a path, or a list of them."""
    return is_path(source) or (isinstance(source, list | tuple) and len(source) > 0 and all(map(is_path, source)))


def is_frame(source: Any) -> bool:
    """Whether this can be seen as an Arrow table."""
    return hasattr(source, "__arrow_c_stream__")


def _as_array(source: Any) -> np.ndarray:
    array = as_array(source, "array")
    if array.dtype == object and array.ndim == 0:
        raise DataError(
            f"a {type(source).__name__} cannot be seen as a matrix",
            hint="Give a path, an array, a sparse matrix or a data frame.",
        )
    return array


def name_of(source: Any) -> str:
    """What to call a source of files when speaking of it."""
    if is_path(source):
        return str(source)
    return str(source[0]) if len(source) == 1 else f"{source[0]} and {len(source) - 1:,} more"


def find_files(source: Any, format: str | None) -> tuple[list[str], str]:
    """The files that a path, folder, glob or list of these stands for, and their one format."""
    if format is not None and format not in FORMATS.values():
        raise OptionError(
            f"format={format!r} is not known", hint=f"The formats are {', '.join(sorted(set(FORMATS.values())))}."
        )
    paths = [path for one in ([source] if is_path(source) else source) for path in _expand(str(one), format)]
    formats = {path: format or _format_of(path) for path in paths}
    name = formats[paths[0]]
    for path, other in formats.items():
        if other != name:
            raise DataError(
                f"this file is {other}, and {paths[0]} is {name}", where=path, hint="Open one format at a time."
            )
    if len(paths) > 1 and name not in STREAMS:
        raise OptionError(
            f"{len(paths):,} {name} files cannot be opened as one",
            where=name_of(source),
            hint=f"Several files can be {', '.join(STREAMS)}.",
        )
    return paths, name


def _expand(path: str, format: str | None) -> list[str]:
    path = os.path.expanduser(path)
    if remote.is_remote(path):
        return remote.expand(path, lambda file: format or _ending(file))
    if os.path.isdir(path):
        if _is_solution(path):
            raise DataError(
                "this is the folder of a saved solution, not data", where=path, hint="Read it with leyden.load."
            )
        files = [file for file in _inside(path) if format or _ending(file)]
        if not files:
            raise DataError("there is no data file in this folder", where=path, hint=_known())
        return files
    if os.path.exists(path) or not glob.has_magic(path):
        if not os.path.exists(path):
            raise DataError("there is no such file", where=path, hint="Check the path.")
        return [path]
    files = sorted(file for file in glob.glob(path, recursive=True) if os.path.isfile(file))
    if not files:
        raise DataError("no file matches", where=path, hint="Check the pattern.")
    return files


def _inside(folder: str) -> list[str]:
    """The files of a folder and of those below it, in order; not what is hidden, and no saved solution."""
    found = []
    for at, below, files in os.walk(folder):
        below[:] = [name for name in below if name[0] not in "._" and not _is_solution(os.path.join(at, name))]
        found += [Path(at, name) for name in files if name[0] not in "._"]
    return [str(path) for path in sorted(found) if path.is_file()]


def _is_solution(folder: str) -> bool:
    return os.path.exists(os.path.join(folder, "solution.json"))


def _ending(path: str) -> str | None:
    name = os.path.basename(path).lower()
    return next((ending for ending in sorted(FORMATS, key=len, reverse=True) if name.endswith(ending)), None)


def _known() -> str:
    return f"Known endings are {', '.join(FORMATS)}."


def _format_of(path: str) -> str:
    ending = _ending(path)
    if ending is not None:
        return FORMATS[ending]
    inner = os.path.splitext(path)[0]
    if path.lower().endswith((".gz", ".bz2", ".zst", ".xz", ".zip")) and _ending(inner):
        raise DataError(
            "a compressed file cannot be read from the middle",
            where=path,
            hint="Decompress it, or convert it to Parquet, which is compressed inside.",
        )
    raise DataError(
        f"the ending '{os.path.splitext(path)[1]}' is not known",
        where=path,
        hint=f"{_known()} For another ending give format=.",
    )


def _open_table(name: str, data: Any, called: str, roles: dict[str, Any], options: dict[str, Any]) -> Rows:
    """A table, whose roles are columns by name, or arrays beside it."""
    names = {role: value for role, value in roles.items() if _is_names(value)}
    arrays = {role: value for role, value in roles.items() if value is not None and role not in names}
    for role, value in arrays.items():
        if isinstance(value, int | np.integer):
            raise OptionError(
                f"{role}={value} is a number and a table's columns have names", hint="Give the column's name."
            )
        if options["nulls"] == "drop":
            raise OptionError(
                f"with nulls='drop' the {role} cannot be an array: it would no longer match the rows",
                hint=f"Make the {role} a column of the table.",
            )
    rows: Rows
    if name == "parquet":
        from leyden.rows.parquet import ParquetRows

        rows = ParquetRows(data, source=called, **names, **options)
    elif name == "arrow":
        from leyden.rows.arrow import ArrowRows

        rows = ArrowRows(data, source=called, **names, **options)
    else:
        from leyden.rows.csv import CSVRows

        rows = CSVRows(data, source=called, delimiter="," if name == "csv" else "\t", **names, **options)
    return _with_roles(rows, arrays) if arrays else rows


def _is_names(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list | tuple) and all(isinstance(name, str) for name in value))


def _open_file(name: str, paths: list[str], called: str, dtype: Any) -> Rows:
    if name == "npy":
        from leyden.rows.npy import NpyRows

        return NpyRows(paths[0])
    if remote.is_remote(paths[0]) and name not in STREAMS:
        raise OptionError(f"a remote {name} file cannot be read in pieces", where=paths[0], hint="Copy it to a disk.")
    if name == "npz":
        return _open_npz(paths[0])
    if name == "mtx":
        from leyden.rows.matrixmarket import read_matrix_market

        return read_matrix_market(paths[0])
    from leyden.rows.svmlight import SvmlightRows

    return SvmlightRows(paths, dtype=dtype, source=called)


def _open_npz(path: str) -> Rows:
    """A sparse matrix as SciPy saves it, or the only array in an archive of NumPy."""
    try:
        # NumPy leaves a path that it cannot make sense of open.
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            names = list(archive.files)
            if "format" not in names and len(names) == 1:
                return ArrayRows(archive[names[0]], source=path)
        if "format" in names:
            from scipy.sparse import load_npz

            return CSRRows(load_npz(path), source=path)
    except FileNotFoundError:
        raise DataError("there is no such file", where=path) from None
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy each have their own
        raise DataError(
            f"this is not a complete .npz file ({str(error).rstrip('.')})",
            where=path,
            hint="It may be truncated: write it again.",
        ) from None
    raise DataError(
        f"the archive holds {len(names)} arrays ({', '.join(names)})",
        where=path,
        hint="Save the matrix alone, and the target as a .npy file.",
    )


# ---------------------------------------------------------------- roles, columns and type of data without names


def _with_roles(rows: Rows, roles: dict[str, Any]) -> Rows:
    target: Any = roles.get("target")
    numbers = isinstance(target, int | np.integer) and not isinstance(target, bool)
    named = isinstance(target, str) and target in rows.columns
    given = {name: _role(name, value, rows) for name, value in roles.items() if value is not None}
    if numbers or named:
        del given["target"]
        rows = SplitTarget(rows, [target])
    return WithRoles(rows, **given) if given else rows


def _role(name: str, value: Any, rows: Rows) -> Any:
    """A role's array, left in its file when it is a path."""
    if not is_path(value) or value in rows.columns:
        return value
    if not str(value).lower().endswith(".npy"):
        raise OptionError(
            f"{name}={str(value)!r} is neither an array nor a .npy file",
            where=rows.source,
            hint="Columns have names in tables only (Parquet, CSV, data frames).",
        )
    return StoredArray(value, f" for the {name}")


def _with_columns(rows: Rows, columns: Sequence[str | int]) -> Rows:
    columns = [columns] if isinstance(columns, str | int) else list(columns)
    strange = [name for name in columns if isinstance(name, str) and name not in rows.columns]
    if strange and len(strange) == len(columns) == rows.shape[1] and len(set(columns)) == len(columns):
        renamed = copy.copy(rows)
        renamed.columns = tuple(str(name) for name in columns)
        return renamed
    return rows.map(SelectColumns(columns))


def _with_dtype(rows: Rows, dtype: Any) -> Rows:
    if dtype is None:
        return rows
    return rows if float_dtype(dtype) == rows.dtype else rows.map(Cast(float_dtype(dtype)))
