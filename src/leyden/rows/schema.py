"""What is asked of a table, checked against the names and types of its columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from leyden.errors import DataError, OptionError
from leyden.rows.mapped import unknown_column


@dataclass(frozen=True)
class Choice:
    """What was asked of a table, its column names checked against the schema."""

    features: tuple[str, ...]
    targets: tuple[str, ...]
    weight: str | None
    group: str | None
    categorical: tuple[str, ...]
    drop_first: bool
    nulls: str
    dtype: np.dtype
    encode: bool = True
    labelled: tuple[str, ...] = ()

    @cached_property
    def used(self) -> tuple[str, ...]:
        """Every column to read, once."""
        roles = (*self.targets, *(name for name in (self.weight, self.group) if name is not None))
        return tuple(dict.fromkeys((*self.features, *roles)))


def choose(
    schemas: Sequence[tuple[str, Any]],
    source: str,
    *,
    target: str | Sequence[str] | None = None,
    weight: str | None = None,
    group: str | None = None,
    columns: str | Sequence[str] | None = None,
    categorical: str | Sequence[str] | None = None,
    drop_first: bool = False,
    nulls: str = "error",
    dtype: Any = None,
    encode: bool = True,
    labels: bool = False,
) -> Choice:
    """Check the options of a table against the schema of each of its files, given as (path, pyarrow.Schema).

    Without ``encode`` columns may hold anything: only batches of them will be read. With ``labels`` a target may be
    text, whose different values are numbered.
    """
    schema = types_by_column(schemas)
    if nulls not in ("error", "mean", "drop"):
        raise OptionError(f"nulls={nulls!r} is not known", hint='Choose "error", "mean" or "drop".')
    targets = _names(target)
    roles = [*targets, *(name for name in (weight, group) if name is not None)]
    if columns is None:
        # pandas saves its row labels as a column of this name.
        features = tuple(name for name in schema if name not in roles and not name.startswith("__index_level_"))
    else:
        features = _names(columns)
    named = _names(categorical) if categorical != "auto" else ()
    for name in (*roles, *features, *named):
        if name not in schema:
            raise unknown_column(name, schema, source)
    for name in features:
        if features.count(name) > 1:
            raise OptionError(f"column '{name}' is asked for twice", where=source)
        if name in targets:
            raise OptionError(f"column '{name}' is both a column and the target", where=source)
    if not features:
        raise OptionError("no columns are left beside the target, weight and group", where=source)
    for name in named:
        if name not in features:
            raise OptionError(f"categorical column '{name}' is not among the columns read", where=source)
    check_agreement(schemas, (*features, *roles))
    if categorical == "auto":
        named = tuple(name for name in features if "text" in map(kind, schema[name]))
    for name in features if encode else ():
        for type_ in schema[name]:
            _check_feature(name, type_, name in named, source)
    labelled = tuple(name for name in targets if labels and "text" in map(kind, schema[name]))
    for name in (*targets, *([weight] if weight else [])):
        if name in labelled:
            continue
        for type_ in schema[name]:
            if kind(type_) not in ("number", "null"):
                hint = (
                    "Of labels, say that they are: classify=True, or open with labels=True." if name in targets else ""
                )
                raise DataError(f"column '{name}' holds {type_}, not numbers", where=source, hint=hint)
    if not encode:
        dtype = np.float64
    numeric = [type_ for name in features if name not in named for type_ in schema[name]]
    block_dtype = _block_dtype(numeric, dtype)
    return Choice(features, targets, weight, group, named, drop_first, nulls, block_dtype, encode, labelled)


def types_by_column(schemas: Sequence[tuple[str, Any]]) -> dict[str, list[Any]]:
    types: dict[str, list[Any]] = {}
    for path, schema in schemas:
        twice = {name for name in schema.names if schema.names.count(name) > 1}
        if twice:
            raise DataError(f"two columns are named '{min(twice)}'", where=path)
        for column in schema:
            known = types.setdefault(column.name, [])
            if column.type not in known:
                known.append(column.type)
    return types


def check_agreement(schemas: Sequence[tuple[str, Any]], names: Sequence[str]) -> None:
    """Every file must have these columns, with the same kind of values; numbers of different types are one kind."""
    for name in names:
        first, type_ = next((path, schema.field(name).type) for path, schema in schemas if name in schema.names)
        for path, schema in schemas:
            if name not in schema.names:
                raise DataError(f"column '{name}' is missing, and {first} has it", where=path)
            other = schema.field(name).type
            if kind(other) != kind(type_) and "null" not in (kind(other), kind(type_)):
                raise DataError(f"column '{name}' holds {other}, and in {first} it holds {type_}", where=path)


def _names(names: str | Iterable[str] | None) -> tuple[str, ...]:
    return () if names is None else (names,) if isinstance(names, str) else tuple(names)


def kind(type_: Any) -> str:
    """ "number", "text", "null" (a column without any value), "time" or "other"."""
    import pyarrow.types as pt

    if pt.is_dictionary(type_):
        return kind(type_.value_type)
    if pt.is_integer(type_) or pt.is_floating(type_) or pt.is_boolean(type_) or pt.is_decimal(type_):
        return "number"
    if pt.is_string(type_) or pt.is_large_string(type_) or pt.is_string_view(type_):
        return "text"
    if pt.is_null(type_):
        return "null"
    return "time" if pt.is_temporal(type_) else "other"


def _check_feature(name: str, type_: Any, categorical: bool, source: str) -> None:
    import pyarrow.types as pt

    found = kind(type_)
    if found == "time":
        raise DataError(
            f"column '{name}' holds dates or times ({type_}), not numbers",
            where=source,
            hint="Turn it into numbers first (hours since a date, say), or leave it out with columns=[...].",
        )
    if found == "other":
        raise DataError(
            f"column '{name}' holds {type_}, not numbers", where=source, hint="Leave it out with columns=[...]."
        )
    if found == "text" and not categorical:
        raise DataError(
            f"column '{name}' holds text ({type_}), not numbers",
            where=source,
            hint=f"Add categorical=['{name}'] to encode it as indicators, or leave it out with columns=[...].",
        )
    if categorical and (pt.is_floating(type_) or pt.is_decimal(type_)):
        raise OptionError(
            f"column '{name}' holds {type_}: its values are measurements, not categories",
            where=source,
            hint="Leave it out of categorical=[...].",
        )


def _block_dtype(types: Iterable[Any], asked: Any) -> np.dtype:
    """float32 where it holds every numeric column exactly, float64 otherwise."""
    import pyarrow.types as pt

    if asked is not None:
        return float_dtype(asked)
    exact = (
        pt.is_float32,
        pt.is_float16,
        pt.is_int8,
        pt.is_int16,
        pt.is_uint8,
        pt.is_uint16,
        pt.is_boolean,
        pt.is_null,
    )
    values = [type_.value_type if pt.is_dictionary(type_) else type_ for type_ in types]
    return np.dtype(np.float32 if all(any(is_(type_) for is_ in exact) for type_ in values) else np.float64)


def float_dtype(asked: Any) -> np.dtype:
    """float32 or float64, from whatever names it."""
    try:
        dtype = np.dtype(asked)
    except TypeError:
        dtype = np.dtype(object)
    if dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise OptionError(f"dtype={asked!r} cannot be used", hint='Choose "float32" or "float64".')
    return dtype
