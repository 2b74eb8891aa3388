"""Items of work as small Ray Data blocks that are created while the stream runs.

``from_items`` creates its blocks before the stream starts, about a thousand per second, and tracks each of them.
Millions of shards or steps therefore enter the stream in large blocks, which are split there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import ray.data

BLOCKS_AT_ONCE = 1024
"""Small blocks per large block."""


def small_blocks(rows: Sequence[dict[str, Any]], rows_per_block: int = 1) -> ray.data.Dataset:
    """Blocks of ``rows_per_block`` rows, the last one of fewer; in order if the context preserves it."""
    rows_at_once = BLOCKS_AT_ONCE * rows_per_block
    if len(rows) <= rows_at_once:
        return ray.data.from_items(list(rows), override_num_blocks=max(1, -(-len(rows) // rows_per_block)))
    # Ray fuses the two operators into one that requests hardly any CPU; alone, repartition would wait for a whole one
    return (
        ray.data.from_items(list(rows), override_num_blocks=-(-len(rows) // rows_at_once))
        .map_batches(_same, batch_size=rows_at_once, batch_format="pyarrow", num_cpus=0.01)
        .repartition(target_num_rows_per_block=rows_per_block)
    )


def _same(table: pa.Table) -> pa.Table:
    return table
