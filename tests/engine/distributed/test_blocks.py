"""engine/distributed/blocks.py: lists of work as blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ray.data import DataContext

from engine.distributed import blocks
from engine.distributed.blocks import small_blocks
from engine.distributed.cluster import connected
from engine.resources import ResourceConfig


@pytest.fixture
def ordered() -> Iterator[None]:
    options = DataContext.get_current().execution_options
    before, options.preserve_order = options.preserve_order, True
    yield
    options.preserve_order = before


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [2, 1024])
@pytest.mark.parametrize(("num_rows", "rows_per_block"), [(1, 4), (11, 1), (23, 4), (24, 4)])
def test_rows_keep_their_order_in_blocks_of_the_size(
    ray_session: None, ordered: None, monkeypatch: pytest.MonkeyPatch, at_once: int, num_rows: int, rows_per_block: int
) -> None:
    monkeypatch.setattr(blocks, "BLOCKS_AT_ONCE", at_once)
    rows = [{"step": number, "held_out": number % 3 == 0} for number in range(num_rows)]
    with connected(ResourceConfig()):
        dataset: Any = small_blocks(rows, rows_per_block)
        found = [batch.to_pylist() for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow")]
    assert [row for block in found for row in block] == rows
    assert max(map(len, found)) <= rows_per_block
    assert len(found) <= num_rows // rows_per_block + 3
