"""Searches of walks by tune.search, as rows of its table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow.parquet as pq

from benchmarks.runner import Line
from engine.step import Step
from engine.storage.filesystem import join
from tune import search


def rows_of(options: search.Search, steps: Sequence[Step] = ()) -> list[Line]:
    """The configurations of a search with their scores.

    Args:
        steps: stages that change the affinities before walks are taken.
    """
    search.run(options, after_affinity=steps)
    rows: list[Line] = pq.read_table(join(options.out, "results.parquet")).to_pylist()
    return rows


def best_row(rows: list[Line], **columns: Any) -> Line:
    """The row with the highest mIoU of those that have these values."""
    return max(_matching(rows, columns), key=lambda row: float(row["miou"]))


def row_of(rows: list[Line], **columns: Any) -> Line:
    """The one row that has these values."""
    (found,) = _matching(rows, columns)
    return found


def _matching(rows: list[Line], columns: dict[str, Any]) -> list[Line]:
    return [row for row in rows if all(row[name] == value for name, value in columns.items())]
