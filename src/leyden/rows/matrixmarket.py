"""Rows over Matrix Market files, read into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from leyden.errors import DataError
from leyden.rows.array import ArrayRows
from leyden.rows.base import Rows
from leyden.rows.sparse import CSRRows, is_sparse


def read_matrix_market(path: str | Path, **roles: Any) -> Rows:
    """Read a ``.mtx`` or ``.mtx.gz`` file whole: its entries come in any order.

    Parameters
    ----------
    path : path
    **roles
        target, weight and group as arrays.

    Returns
    -------
    Rows
        Sparse for a coordinate file, dense for an array file.
    """
    from scipy.io import mmread

    source = str(path)
    try:
        matrix = mmread(source)
    except FileNotFoundError:
        raise DataError("there is no such file", where=source) from None
    except (ValueError, OverflowError, OSError, EOFError) as error:
        raise DataError(
            f"this is not a complete Matrix Market file ({str(error).rstrip('.')})",
            where=source,
            hint="It may be truncated: write it again.",
        ) from None
    if is_sparse(matrix):
        return CSRRows(matrix, source=source, **roles)
    return ArrayRows(np.ascontiguousarray(matrix), source=source, **roles)
