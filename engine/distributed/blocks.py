"""Rows of work as small blocks of Ray Data, made as the stream takes them.

Ray makes the blocks of a list before its stream starts, some thousand of them a second, and keeps count of each. Of
millions of shards or steps they enter the stream in large blocks, which are taken apart there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import ray.data

BLOCKS_AT_ONCE = 1024
"""Small blocks that enter the stream together."""


def small_blocks(rows: Sequence[dict[str, Any]], rows_per_block: int = 1) -> ray.data.Dataset:
    """The rows in their order (where the context preserves it), so many to a block; the last may have fewer."""
    rows_at_once = BLOCKS_AT_ONCE * rows_per_block
    if len(rows) <= rows_at_once:
        return ray.data.from_items(list(rows), override_num_blocks=max(1, -(-len(rows) // rows_per_block)))
    # Ray joins the two steps to one that needs hardly a CPU; the second alone would wait for a whole one
    return (
        ray.data.from_items(list(rows), override_num_blocks=-(-len(rows) // rows_at_once))
        .map_batches(_same, batch_size=rows_at_once, batch_format="pyarrow", num_cpus=0.01)
        .repartition(target_num_rows_per_block=rows_per_block)
    )


def _same(table: pa.Table) -> pa.Table:
    return table
