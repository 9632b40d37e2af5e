"""Where data comes from: a matrix seen as a stream of row blocks, whatever it is stored in.

``base`` has the words (Rows, Block, RowMap) and ``open`` finds the right source, one file each: ``array``, ``npy``,
``sparse``, ``arrow``, ``parquet``, ``csv``, ``svmlight``, ``matrixmarket``, ``generated``. ``table``, ``schema``
and ``encoding`` are what sources with named, typed columns share, ``lines`` what text files do; ``stored`` and
``remote`` read files; ``mapped`` and ``roles`` are rows made of other rows.

``ratings`` are rows of users and items, whose ``ids`` have numbers; ``ratings_store``, ``ratings_writer`` and
``ratings_folder`` keep them in files. ``ingest`` makes them: ``ingest_tables`` finds their columns, ``ingest_sorting``
sorts the rows by way of ``duck``, ``ingest_merge`` merges, splits and numbers them.
"""

from leyden.rows.base import Block, RowMap, Rows
from leyden.rows.generated import generated, philox
from leyden.rows.mapped import Intercept, MappedRows, Scale, SelectColumns
from leyden.rows.open import open

__all__ = [
    "Block",
    "Intercept",
    "MappedRows",
    "RowMap",
    "Rows",
    "Scale",
    "SelectColumns",
    "generated",
    "open",
    "philox",
]
