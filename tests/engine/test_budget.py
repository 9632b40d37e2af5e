"""Budgets: amounts as people write them, and layouts that fit."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import leyden as ly
from leyden.engine.budget import format_bytes, layout, parse_memory


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("512MB", 512e6),
        ("2GB", 2e9),
        ("1.5 GiB", 1.5 * 2**30),
        ("100", 100),
        ("3kb", 3000),
        ("1TiB", 2**40),
        (12345, 12345),
    ],
)
def test_amounts_of_memory_are_read_as_people_write_them(text, count):
    assert parse_memory(text) == count


@pytest.mark.parametrize("text", ["", "lots", "-1GB", "1XB", "GB", 0, -5])
def test_what_is_not_an_amount_is_refused(text):
    with pytest.raises(ly.OptionError, match="is not an amount"):
        parse_memory(text)


def test_bytes_are_written_in_the_unit_a_person_would_use():
    assert [format_bytes(v) for v in (5, 1500, 2.5e6, 8e9, 3e13)] == ["5 B", "1.5 kB", "2.5 MB", "8 GB", "30 TB"]


class _Fold:
    scratch_nbytes, block_nbytes, parallel = 5_000, 0, False

    def __init__(self, state_nbytes):
        self.state_nbytes = state_nbytes


class _Rows:
    """Rows of float64 in a file, as far as a layout looks at them."""

    in_memory = False

    def __init__(self, n, d, reader=0, reader_row=0, piece_rows=1):
        self.shape, self.row_nbytes, self.piece_rows = (n, d), 8 * d, piece_rows
        self.reader_nbytes = lambda rows: reader + rows * reader_row


@given(
    n=st.integers(1, 10**6),
    d=st.integers(1, 500),
    memory=st.integers(20_000, 10**9),
    state=st.integers(0, 10**5),
    reader=st.integers(0, 10**6),
    reader_row=st.integers(0, 10**4),
    piece=st.integers(1, 10**6),
)
def test_a_layout_fits_the_budget_or_says_why_not(n, d, memory, state, reader, reader_row, piece):
    rows = _Rows(n, d, reader, reader_row, piece)
    if memory < 3 * state + 5_000 + reader + reader_row + 6 * 8 * d:
        with pytest.raises(ly.BudgetError, match="too small"):
            layout(rows, [_Fold(state)], memory, threads=8)
        return
    cut = layout(rows, [_Fold(state)], memory, threads=8)
    assert 1 <= cut.block_rows <= n
    assert cut.threads <= 8
    thread = 3 * cut.block_rows * 8 * d + reader + cut.block_rows * reader_row + state + 5_000
    waiting = math.ceil(math.log2(cut.segments + 1)) * state
    assert cut.threads * thread + waiting <= memory
    alone = layout(rows, [_Fold(state)], memory, threads=1)
    assert (cut.block_rows, cut.segment_rows) == (alone.block_rows, alone.segment_rows)


def test_the_memory_that_is_asked_for_would_do():
    rows = _Rows(10_000, 100, reader=50_000_000, reader_row=800)
    with pytest.raises(ly.BudgetError, match="one thread takes 50 MB to read and 35 kB to compute") as refused:
        layout(rows, [_Fold(10_000)], 1_000_000)
    asked = refused.value.hint.split('"')[1]
    assert layout(rows, [_Fold(10_000)], parse_memory(asked)).threads == 1


def test_what_a_thread_reads_with_costs_threads_before_it_costs_rows():
    free, held = _Rows(10**7, 10), _Rows(10**7, 10, reader=200_000_000)
    few, many = (layout(rows, [_Fold(100)], 10**9, threads=8) for rows in (held, free))
    assert (few.threads, many.threads) == (3, 8)
    assert few.block_rows == many.block_rows


@given(st.integers(1, 10**6), st.integers(1, 10**5), st.integers(1, 500))
def test_segments_begin_where_pieces_do(n, piece, d):
    cut = layout(_Rows(n, d, piece_rows=piece), [_Fold(1000)], 10**8)
    assert cut.segment_rows % piece == 0 or piece >= n


def test_a_single_piece_is_shared_by_the_threads_all_the_same():
    cut = layout(_Rows(10**7, 10, piece_rows=10**7), [_Fold(1000)], 10**9, threads=4)
    assert cut.threads == 4
