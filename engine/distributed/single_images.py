"""Process shards image by image, so that only the image that kills its worker becomes an error row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pyarrow as pa

from engine.distributed.stream import TRIES_ALONE, Committed, ShardRun, stopped, stream
from engine.records import error_counts, shard_table
from engine.step import Step
from engine.storage.filesystem import delete_folder, join
from engine.storage.manifest import Manifest, SingleRows
from engine.storage.run_record import WORK_FOLDER
from engine.storage.shards import committed_shards, read_shard, write_shard

_CONTROL_SHARDS = 8
"""Shards that are searched for a control image."""


def parts_folder(folder: str) -> str:
    """The folder that holds single images until the rest of their shard is done."""
    return join(folder, WORK_FOLDER, "parts")


def redo_image_by_image(
    run: ShardRun, steps: Sequence[Step], shards: Sequence[int], *, on_commit: Callable[[Committed], None]
) -> bool:
    """Process each image of the shards separately; one that still fails becomes an error row.

    Returns:
        Whether every shard is committed. A shard without any successful image is committed only if the control image,
        which succeeded earlier, succeeds again: otherwise the steps themselves may be broken.
    """
    manifest, folder = run.manifest, run.folder
    assert isinstance(manifest, Manifest)
    parts, size = parts_folder(folder), manifest.rows_per_shard
    control, succeeded = _control_image(folder, manifest), set[int]()
    rows_of = {shard: range(shard * size, min((shard + 1) * size, manifest.num_rows)) for shard in shards}
    earlier = committed_shards(parts)
    todo = [row for rows in rows_of.values() for row in rows if row not in earlier]
    singly = replace(run, manifest=SingleRows(manifest=manifest), folder=parts)
    stream(singly, steps, [*control, *todo], on_commit=lambda one: succeeded.add(one.shard), alone=True)
    made = committed_shards(parts)
    steps_work = size == 1 or not succeeded.isdisjoint(control)
    complete = True
    for shard, rows in rows_of.items():
        if made.isdisjoint(rows) and not steps_work:
            complete = False
            continue
        tables = [read_shard(parts, row) if row in made else _error_row(manifest, row, run.schema) for row in rows]
        table = pa.concat_tables(tables)
        try:
            write_shard(folder, shard, table)
        except OSError as error:
            raise stopped(error) from error
        errors = Counter(error_counts(table.column("error").to_pylist()))
        on_commit(Committed(shard=shard, num_rows=len(rows), errors=errors))
    delete_folder(parts)
    return complete


def _control_image(folder: str, manifest: Manifest) -> list[int]:
    """A row that succeeded earlier, if there is one in the first shards."""
    for shard in sorted(committed_shards(folder))[:_CONTROL_SHARDS]:
        errors = read_shard(folder, shard, ["error"]).column("error").to_pylist()
        if None in errors:
            return [shard * manifest.rows_per_shard + errors.index(None)]
    return []


def _error_row(manifest: Manifest, row: int, schema: pa.Schema) -> pa.Table:
    values = SingleRows(manifest=manifest).read_shard(row)
    reason = values["error"][0] or f"crash: its worker died {TRIES_ALONE} times in a row on this image alone"
    return shard_table({**{name: [None] for name in schema.names}, **values, "error": [reason]}, schema)
