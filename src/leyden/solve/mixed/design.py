"""The design of a mixed model: rows of numbers, made from a table and a formula.

A row of the design is ``[x | z₁ | z₂ | …]``: the columns of the fixed effects, then those of each random term. The
target, the weight and the codes of the groups are its roles. A table that fits into memory is turned into numbers once;
a longer one is turned into numbers again, block by block, in every pass. Nothing needs to be sorted: what is summed for
a group is added to by its code.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from leyden.engine.budget import format_bytes
from leyden.errors import BudgetError, DataError, OptionError
from leyden.rows.base import Block, Rows
from leyden.rows.open import column_names, open_columns
from leyden.rows.table import TableRows
from leyden.solve.mixed.columns import ColumnRows, NamedColumns, named
from leyden.solve.mixed.elimination import Pattern
from leyden.solve.mixed.formula import ModelFormula
from leyden.solve.mixed.groups import Groups, grouped, known_codes, met

if TYPE_CHECKING:
    from leyden.solve.mixed.result import MixedModel

#: Of the budget, what the design may take to be kept in memory.
KEPT = 0.4

#: Of the budget, what finding the codes of all rows may take; beyond that every block looks its own up.
CODED = 0.5

#: Levels from which on a categorical column among the fixed effects is not turned into columns of zeros and ones.
WIDE = 100

#: Shared columns of other terms from which on it is looked whether most products are zero.
SPARSE_FROM = 64

#: Rows whose codes are gone through at a time.
CODES = 2**18

#: Rows that the columns of a formula are found from when not all can be in memory.
HEAD_ROWS = 2**16


@dataclass(frozen=True)
class Term:
    """A random term in the design.

    Attributes
    ----------
    groups : Groups
    columns : tuple of str
        The coefficients that each group has.
    place : slice
        Where they stand in a row.
    blocks : tuple of (str, int)
        Structure and size of the parts of their covariance: of (1 + x | g), ("full", 2).
    fixed : bool
        Whether these are fixed effects: the levels of a categorical column that has many.
    reference : bool
        Whether the first level is the reference, whose effect is zero.
    """

    groups: Groups
    columns: tuple[str, ...]
    place: slice
    blocks: tuple[tuple[str, int], ...]
    fixed: bool = False
    reference: bool = False

    @property
    def name(self) -> str:
        """What people call the grouping."""
        return self.groups.name

    @property
    def k(self) -> int:
        """Coefficients of a group."""
        return len(self.columns)

    @property
    def size(self) -> int:
        """Coefficients of all groups."""
        return self.k * len(self.groups)

    @property
    def free(self) -> int:
        """Of these, those that are not zero by definition."""
        return self.size - self.reference


@dataclass(frozen=True)
class Design:
    """A model's rows.

    Attributes
    ----------
    formula : ModelFormula
    rows : DesignRows or ColumnRows
        Blocks of ``[x | z₁ | …]`` with ``group`` (m, terms), the code of each row in each term.
    fixed : tuple of str
        Names of the fixed effects.
    terms : tuple of Term
        The random one with the most coefficients first, fixed ones last.
    absorbed : tuple of Groups
    clusters : tuple of Groups
        Beside the model: what standard errors are to be robust to.
    """

    formula: ModelFormula
    rows: DesignRows | ColumnRows
    fixed: tuple[str, ...]
    terms: tuple[Term, ...]
    absorbed: tuple[Groups, ...] = ()
    clusters: tuple[Groups, ...] = ()

    @property
    def p(self) -> int:
        """Fixed effects that have a column."""
        return len(self.fixed)

    @property
    def random(self) -> tuple[Term, ...]:
        """The random terms."""
        return tuple(term for term in self.terms if not term.fixed)

    @property
    def wide(self) -> tuple[Term, ...]:
        """The fixed ones, of many levels."""
        return tuple(term for term in self.terms if term.fixed)

    @cached_property
    def pattern(self) -> Pattern | None:
        """Which shared effects the groups of the first term meet, when that is much less than all."""
        first, *others = self.terms
        effects = SharedEffects.of(others)
        if effects.count < SPARSE_FROM:
            return None
        assert isinstance(self.rows, DesignRows)
        rows = ((codes[:, 0], effects.places(codes[:, 1:])) for codes in self.rows.each_codes())
        found = Pattern.of(rows, len(first.groups), effects.count)
        return found if 3 * len(found.columns) < len(first.groups) * effects.count else None


@dataclass(frozen=True)
class SharedEffects:
    """The effects of all terms but the first, side by side: columns that the groups of the first one share.

    Attributes
    ----------
    offsets : tuple of int
        Where the effects of each term begin, and at the end how many there are.
    widths : tuple of int
        Coefficients of a group of each term.
    references : tuple of bool
        Whether the first level of a term is the reference, which has no column.
    """

    offsets: tuple[int, ...]
    widths: tuple[int, ...]
    references: tuple[bool, ...]

    @classmethod
    def of(cls, terms: Sequence[Term]) -> SharedEffects:
        offsets = tuple(accumulate((term.free for term in terms), initial=0))
        return cls(offsets, tuple(term.k for term in terms), tuple(term.reference for term in terms))

    @property
    def count(self) -> int:
        return self.offsets[-1]

    def places(self, codes: np.ndarray) -> np.ndarray:
        """The columns of each row's effects, shape (m, Σ k), from its codes (m, terms); −1 for a reference level."""
        found = [np.empty((len(codes), 0), np.int64)]
        for t, (first, k, reference) in enumerate(zip(self.offsets, self.widths, self.references, strict=False)):
            own = codes[:, t, None].astype(np.int64)
            place = first + own * k + np.arange(k)
            found.append(np.where(own > 0, place - 1, -1) if reference else place)
        return np.concatenate(found, axis=1)


def design(
    formula: ModelFormula,
    data: Any,
    *,
    weight: str | None = None,
    clusters: Sequence[str] = (),
    missing: str = "error",
    memory: int,
) -> Design:
    """The design of ``formula`` for a table.

    Raises
    ------
    DataError, OptionError, BudgetError
    """
    formula = replace(formula, random=tuple(sorted(formula.random, key=lambda term: _first(term.group, formula))))
    reader = _Reader(formula, weight, column_names(data))
    names = [tuple(name.split(":")) for name in clusters]
    grouping = [*(term.group for term in formula.random), *formula.absorb, *names]
    used = dict.fromkeys([*reader.variables, *(name for columns in grouping for name in columns)])
    if weight is not None:
        used[weight] = None
    table = open_columns(data, list(used), "drop" if missing == "drop" else "error")
    several = reader.categorical(table)
    codes_needed = bool(formula.absorb or clusters)
    every = _groups(table, [*grouping, *((name,) for name in several)], memory, codes_needed)
    groups, others = every[: len(formula.random)], every[len(formula.random) : len(grouping)]
    wide = {name: found for name, found in zip(several, every[len(grouping) :], strict=True) if len(found) >= WIDE}
    references = reader.leave_out(wide) if formula.random else {}
    reader.learn(table, memory)
    terms = sorted(_terms(formula, groups, reader), key=lambda term: -term.size)
    at = sum(map(len, reader.columns)) - len(references)
    for i, (name, reference) in enumerate(references.items()):
        expression = reader.columns[-1][i]
        terms.append(Term(wide[name], (expression,), slice(at + i, at + i + 1), (), True, reference))
    rows = reader.rows(table, [term.groups for term in terms], memory)
    if isinstance(rows, DesignRows) and rows.codes is not None:
        terms = [
            replace(term, groups=replace(term.groups, codes=own)) for term, own in zip(terms, rows.codes.T, strict=True)
        ]
    absorbed, beside = others[: len(formula.absorb)], others[len(formula.absorb) :]
    return Design(formula, rows, reader.columns[0], tuple(terms), tuple(absorbed), tuple(beside))


def _first(group: tuple[str, ...], formula: ModelFormula) -> int:
    """Where a grouping is met first."""
    return [term.group for term in formula.random].index(group)


def _terms(formula: ModelFormula, groups: Sequence[Groups], reader: _Reader) -> list[Term]:
    """One term for each grouping; several terms of a formula with the same one have a covariance of blocks."""
    found: list[Term] = []
    start = len(reader.columns[0])
    for term, own, columns in zip(formula.random, groups, reader.columns[1:], strict=False):
        k = len(columns)
        blocks = (("full", k),) if term.correlated else (("full", 1),) * k
        if found and found[-1].groups is own:
            last = found.pop()
            twice = [name for name in columns if name in last.columns]
            if twice:
                raise OptionError(f"two random terms of '{own.name}' have the column '{twice[0]}'")
            first, columns, blocks = last.place.start, (*last.columns, *columns), (*last.blocks, *blocks)
        else:
            first = start
        start += k
        found.append(Term(own, columns, slice(first, start), blocks))
    return found


class _Reader:
    """Turns batches of a table into rows of the design."""

    def __init__(self, formula: ModelFormula, weight: str | None, known: Collection[str]):
        from formulaic import Formula
        from formulaic.errors import FormulaicError

        self.formula, self.weight = formula, weight
        try:
            self._sides = [Formula(side) for side in (formula.fixed, *(term.columns for term in formula.random))]
            self._target = Formula(f"{formula.target} - 1")
        except FormulaicError as error:
            raise OptionError(f"the formula '{formula}' cannot be read ({error})") from None
        variables = [str(variable) for side in (self._target, *self._sides) for variable in side.required_variables]
        # Those inside of functions such as scale() and poly() are not among the required ones.
        words = {name for side in (self._target, *self._sides) for name in _words(side)}
        self.variables = list(dict.fromkeys([*variables, *(name for name in known if name in words)]))
        self.columns: list[tuple[str, ...]] = []
        self._specs: list[Any] = []
        self._named: NamedColumns | None = None
        #: Expressions of fixed effects that have no columns, and the columns of text.
        self.wide: list[str] = []
        self._texts: set[str] = set()
        self._made: tuple[np.ndarray, np.ndarray, np.ndarray | None] | None = None
        self._categories: dict[str, Any] = {}

    def categorical(self, table: TableRows) -> list[str]:
        """Columns of text, or in C(), that stand in one term of the fixed effects and nowhere else."""
        types = dict(zip(*_schema(table), strict=True))
        self._texts = {name for name, type_ in types.items() if _is_text(type_)}
        every = [str(factor.expr) for side in self._sides for term in side for factor in term.factors]
        found = []
        for name in types:
            known = f"C({name})" in every or (name in every and _is_text(types[name]))
            if known and sum(name in re.findall(r"\w+", expression) for expression in every) == 1:
                found.append(name)
        single = {str(term.factors[0].expr) for term in self._sides[0] if len(term.factors) == 1}
        return [name for name in found if name in single or f"C({name})" in single]

    def leave_out(self, names: Collection[str]) -> dict[str, bool]:
        """Take these columns out of the fixed effects, and say of each whether its first level is the reference."""
        from formulaic import Formula

        left = [term for term in self._sides[0] if not _is_one_of(term, names)]
        out = [term for term in self._sides[0] if _is_one_of(term, names)]
        if not out:
            return {}
        self._sides[0] = Formula(left)
        self.variables = [name for name in self.variables if name not in names]
        spanned = any(
            str(term) == "1" or "C(" in str(term) or (len(term.factors) == 1 and str(term) in self._texts)
            for term in left
        )
        references = {}
        for term in out:
            (name,) = (name for name in names if name in (str(term), str(term)[2:-1]))
            self.wide.append(str(term))
            references[name], spanned = spanned, True
        return references

    def learn(self, table: TableRows, memory: int) -> None:
        """Find the columns: from all rows when they fit into memory, or else from the first."""
        import pyarrow as pa

        n = table.shape[0]
        types = dict(zip(*_schema(table), strict=True))
        known = self._named = named(self._target, self._sides, self.weight, types)
        taken = 4 * len(self.variables) + 4 if known is None else len(known.design) + len(self.wide) + 2
        self.whole = n * 8.0 * taken < KEPT * memory
        batches = list(table.batches(0, n if self.whole and known is None else min(n, HEAD_ROWS)))
        table.release()
        texts = [name for name, type_ in zip(batches[0].schema.names, batches[0].schema.types, strict=True)
                 if name in self.variables and _is_text(type_)]  # fmt: skip
        for name in texts:
            self._categories[name] = _different(name, table if not self.whole else batches)
        frame = self._frame(pa.Table.from_batches(batches))
        matrices = [self._matrix(side, frame) for side in (self._target, *self._sides)]
        self._specs = [matrix.model_spec for matrix in matrices]
        if self._specs[0].column_names and len(self._specs[0].column_names) != 1:
            raise OptionError(f"the target '{self.formula.target}' makes {len(self._specs[0].column_names)} columns")
        if self.whole and known is None:
            self._made = self._together(matrices, frame)
        elif known is None:
            for spec in self._specs:
                if spec.transform_state:
                    raise OptionError(
                        f"{next(iter(spec.transform_state))} looks at all rows at once, which do not fit into memory",
                        hint="Compute it beforehand, or give more with memory=.",
                    )
        self.columns = [tuple(_plain(name) for name in spec.column_names) for spec in self._specs[1:]]
        for term, columns in zip(self.formula.random, self.columns[1:], strict=True):
            if not columns:
                raise OptionError(f"the random term ({term.columns} | {term.name}) has no columns")
        self.columns.append(tuple(self.wide))
        if known is not None:
            self._named = replace(known, design=(*known.design, *[None] * len(self.wide)))

    def rows(self, table: TableRows, groups: Sequence[Groups], memory: int) -> DesignRows | ColumnRows:
        """The rows of the design: only those that groups are eliminated from must lie side by side."""
        if self.whole and self._named is not None and self.formula.absorb:
            return ColumnRows(table, self._named, self.columns[0])
        return DesignRows(table, self, groups, memory)

    def take(self, table: TableRows) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """All rows; what was made of them while learning is not kept here any longer."""
        made, self._made = self._made, None
        if made is None:
            made = self.read(table.batches(0, table.shape[0]), table.shape[0])
            table.release()
        return made

    def read(self, batches: Iterable[Any], rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Rows of the design, target and weight."""
        import pyarrow as pa

        if self._named is not None:
            return self._named.read(batches, rows)
        frame = self._frame(pa.Table.from_batches(list(batches)))
        return self._together([self._matrix(spec, frame) for spec in self._specs], frame)

    def _together(self, matrices: Sequence[Any], frame: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        y, *sides = (np.asarray(matrix, np.float64) for matrix in matrices)
        weight = None if self.weight is None else frame[self.weight].to_numpy(np.float64)
        parts = [*sides, *([np.ones((len(y), len(self.wide)))] if self.wide else [])]
        data = np.ascontiguousarray(parts[0]) if len(parts) == 1 else np.concatenate(parts, axis=1)
        return data, np.ascontiguousarray(y[:, 0]), weight

    def explaining(self, random: bool) -> list[str]:
        """The columns that the fixed part is made of, and the random terms with ``random``."""
        sides = self._sides if random else self._sides[:1]
        words = {name for side in sides for name in _words(side)}
        return [name for name in self.variables if name in words]

    def explained(self, table: Any, random: bool) -> list[np.ndarray]:
        """The columns of the fixed part, and with ``random`` those of each term, for the rows of another table."""
        frame = self._frame(table)
        specs = self._specs[1:] if random else self._specs[1:2]
        return [np.asarray(self._matrix(spec, frame), np.float64) for spec in specs]

    def _matrix(self, side: Any, frame: Any) -> Any:
        from formulaic.errors import FormulaicError

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return side.get_model_matrix(frame, output="numpy", na_action="ignore")
        except (FormulaicError, TypeError, ValueError, KeyError, NameError) as error:
            raise DataError(
                f"the formula cannot be computed ({_first_line(error)})", hint="Check its functions and columns."
            ) from None

    def _frame(self, table: Any) -> Any:
        import pandas as pd  # type: ignore[import-untyped]

        series = {}
        for name in table.column_names:
            column = table.column(name)
            if name in self._categories:
                series[name] = pd.Categorical.from_codes(
                    _places(name, column, self._categories[name]), categories=self._categories[name]
                )
            elif name in self.variables or name == self.weight:
                series[name] = _numbers(name, column)
        return pd.DataFrame(series, index=pd.RangeIndex(table.num_rows))


class DesignRows(Rows):
    """Blocks of a design, from memory or made again from a table whenever they are read.

    Attributes
    ----------
    codes : ndarray of int32, shape (n, terms), or None
        The groups of each row in each term. None when every block looks its own up.
    """

    targets = ("target",)
    has_group = True

    def __init__(self, table: TableRows, reader: _Reader, groups: Sequence[Groups], memory: int):
        n, d = table.shape[0], sum(map(len, reader.columns))
        self.table, self.reader, self.groups = table, reader, tuple(groups)
        self.codes = _side_by_side([own.codes for own in groups], n)
        self.shape, self.dtype, self.source = (n, d), np.dtype(np.float64), table.source
        self.columns = tuple(name for side in reader.columns for name in side)
        self.targets, self.has_weight = (reader.formula.target,), reader.weight is not None
        self.files, self.held = table.files, () if self.codes is None else (self.codes,)
        self.row_nbytes = 8.0 * (d + 1 + self.has_weight) + (4 * len(groups) if self.codes is None else 0)
        self.in_memory = reader.whole
        self.decodes = not self.in_memory
        self.piece_rows = table.piece_rows
        self._kept: tuple[Any, ...] | None = None
        if self.in_memory:
            if n * self.row_nbytes > KEPT * memory:
                raise BudgetError(
                    f"the design takes {format_bytes(n * self.row_nbytes)} and {format_bytes(KEPT * memory)} are there",
                    hint="Give more with memory=.",
                )
            self._kept = reader.take(table)
        self.stored_nbytes = int(n * self.row_nbytes) if self.in_memory else table.stored_nbytes

    def read(self, start: int, stop: int, buffer: Any = None) -> Block:
        if self._kept is not None:
            data, y = self._kept[0][start:stop], self._kept[1][start:stop]
            weight = None if self._kept[2] is None else self._kept[2][start:stop]
            return Block(start, data, y[:, None], weight, self._codes_of(start, stop, None))
        batches = list(self.table.batches(start, stop))
        data, y, weight = self.reader.read(batches, stop - start)
        return Block(start, data, y[:, None], weight, self._codes_of(start, stop, batches))

    def _codes_of(self, start: int, stop: int, batches: Any) -> np.ndarray:
        """The groups of rows, shape (m, terms), held or looked up in their batches."""
        import pyarrow as pa

        if self.codes is not None:
            return self.codes[start:stop]
        table = pa.Table.from_batches(self.table.batches(start, stop) if batches is None else batches)
        codes = np.empty((stop - start, len(self.groups)), np.int32)
        for t, own in enumerate(self.groups):
            codes[:, t] = own.of_rows(table, self.source)
        return codes

    def each_codes(self) -> Iterator[np.ndarray]:
        """The groups of all rows, some rows at a time."""
        for start in range(0, self.shape[0], CODES):
            yield self._codes_of(start, min(start + CODES, self.shape[0]), None)
        self.table.release()

    @property
    def target(self) -> np.ndarray:
        """The target of all rows, which are in memory."""
        assert self._kept is not None
        y: np.ndarray = self._kept[1]
        return y

    @property
    def weight(self) -> np.ndarray | None:
        """The weights of all rows, which are in memory."""
        assert self._kept is not None
        weight: np.ndarray | None = self._kept[2]
        return weight

    def parts(self, columns: Sequence[int]) -> tuple[np.ndarray, ...]:
        """Consecutive columns of all rows, which are in memory."""
        assert self._kept is not None
        return (self._kept[0][:, columns[0] : columns[-1] + 1],) if columns else ()

    def reader_nbytes(self, rows: int) -> float:
        return 0.0 if self.in_memory else self.table.reader_nbytes(rows) + 3 * rows * self.row_nbytes

    def release(self) -> None:
        self.table.release()

    def locate(self, row: int) -> str:
        return self.table.locate(row)


def _side_by_side(codes: Sequence[np.ndarray | None], n: int) -> np.ndarray | None:
    """Codes of the terms as columns; None when they are not held."""
    held = [own for own in codes if own is not None]
    if len(held) < len(codes):
        return None
    if len(held) < 2:
        return held[0][:, None] if held else np.empty((n, 0), np.int32)
    return np.stack(held, axis=1)


def predictions(model: MixedModel, data: Any, random: bool) -> np.ndarray:
    """The target that a fitted model expects of each row of a table in memory or in files."""
    import pyarrow as pa

    assert model.system is not None
    built = model.system.design
    assert isinstance(built.rows, DesignRows)
    reader = built.rows.reader
    groups = [name for term in built.formula.random for name in term.group] if random else []
    names = list(dict.fromkeys([*reader.explaining(random), *groups, *(term.name for term in built.wide)]))
    if not names:
        raise OptionError("the model has neither columns nor groups to predict from")
    opened = open_columns(data, names, "error")
    table = pa.Table.from_batches(list(opened.batches(0, opened.shape[0])))
    fixed, *sides = reader.explained(table, random)
    expected, first = fixed @ model.beta[: built.p], built.p
    for wide in built.wide:
        column = table.column(wide.name)
        codes = known_codes([(wide.name, column)], wide.groups.ids, opened.source)
        if (codes < 0).any():
            level = column[int(np.argmax(codes < 0))].as_py()
            raise DataError(f"column '{wide.name}' has the level {level!r}, which is not known", where=opened.source)
        expected += np.append([0.0] * wide.reference, model.beta[first : first + wide.free])[codes]
        first += wide.free
    by_term = zip(built.formula.random, sides, strict=True) if random else ()
    at = dict.fromkeys(model.groupings, 0)
    for term, rows in by_term:
        own = model.groupings[term.name]
        codes = known_codes([(name, table.column(name)) for name in term.group], own.ids, opened.source)
        place, there = slice(at[term.name], at[term.name] + rows.shape[1]), codes >= 0
        at[term.name] = place.stop
        expected[there] += np.einsum("ij,ij->i", rows[there], own.effects[codes[there], place])
    return np.asarray(expected)


def _groups(table: TableRows, grouping: Sequence[tuple[str, ...]], memory: int, codes_needed: bool) -> list[Groups]:
    """The groups of each of several combinations of columns, in one pass over these columns."""
    import pyarrow as pa

    if not grouping:
        return []
    n = table.shape[0]
    names = list(dict.fromkeys(name for columns in grouping for name in columns))
    if n * (12 * len(names) + 8 * len(grouping)) > CODED * memory:
        if codes_needed:
            raise BudgetError(
                f"the groups of {n:,} rows do not fit into {format_bytes(memory)}", hint="Give more with memory=."
            )
        alone = met(table.batches(0, n), list(dict.fromkeys(grouping)), table.source, memory // 4)
        table.release()
        return [alone[combined] for combined in grouping]
    batches = [batch.select(names) for batch in table.batches(0, n)]
    table.release()
    columns = pa.Table.from_batches(batches)
    found: dict[tuple[str, ...], Groups] = {}
    for combined in grouping:
        if combined not in found:
            found[combined] = grouped([(name, columns.column(name)) for name in combined], table.source)
    return [found[combined] for combined in grouping]


def _schema(table: TableRows) -> tuple[list[str], list[Any]]:
    """Names and types of a table's columns."""
    schema = next(iter(table.batches(0, 1))).schema
    table.release()
    return schema.names, schema.types


def _words(side: Any) -> set[str]:
    """Names in the expressions of a formula's side, in backticks or without."""
    text = " ".join(str(factor.expr) for term in side for factor in term.factors)
    return {first or second for first, second in re.findall(r"`([^`]+)`|\b([^\W\d]\w*)\b", text)} | {
        str(factor.expr) for term in side for factor in term.factors
    }


def _is_one_of(term: Any, names: Collection[str]) -> bool:
    """Whether a term of a formula is one of these columns, alone or in C()."""
    return len(term.factors) == 1 and any(str(term.factors[0].expr) in (name, f"C({name})") for name in names)


def _is_text(type_: Any) -> bool:
    from leyden.rows.schema import kind

    return kind(type_) == "text"


def _different(name: str, table: TableRows | list[Any]) -> list[Any]:
    """The different values of a column of text, in order."""
    from leyden.rows.encoding import categories_in, in_order

    batches = table if isinstance(table, list) else table.batches(0, table.shape[0])
    values: set[Any] = set()
    for batch in batches:
        values |= categories_in(batch.column(name))
    if not isinstance(table, list):
        table.release()
    return in_order(values)


def _places(name: str, column: Any, categories: list[Any]) -> np.ndarray:
    """The place of each value of a column among its categories."""
    import pyarrow as pa
    import pyarrow.compute as pc

    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    known = pa.array(categories, pa.string())
    parts = []
    for chunk in encoded.chunks:
        places = pc.index_in(chunk.dictionary.cast(pa.string()), value_set=known).fill_null(-1).to_numpy()
        parts.append(places[chunk.indices.to_numpy()])
    found = np.concatenate(parts) if parts else np.empty(0, np.int32)
    if (found < 0).any():
        value = column[int(np.argmax(found < 0))].as_py()
        raise DataError(f"column '{name}' has the level {value!r}, which is not known")
    return found


def _numbers(name: str, column: Any) -> np.ndarray:
    """A column of numbers as float64 or int64, for formulas."""
    import pyarrow as pa

    from leyden.rows.encoding import numbers
    from leyden.rows.schema import kind

    if kind(column.type) == "time":
        raise DataError(
            f"column '{name}' holds dates or times ({column.type}), not numbers",
            hint="Turn it into numbers first (hours since a date, say).",
        )
    if kind(column.type) not in ("number", "null"):
        raise DataError(f"column '{name}' holds {column.type}, neither numbers nor text")
    if pa.types.is_unsigned_integer(column.type):
        column = column.cast(pa.int64())
    return numbers(column)


def _plain(name: str) -> str:
    return name.replace("`", "")


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")
