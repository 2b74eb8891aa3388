"""Label shards of a frozen manifest on Ray; survives lost workers, lost nodes and images that kill their worker.

A shard is the unit of commit: a crash costs the shards in flight, and a rerun processes those that have no file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ray.exceptions import RayError

from engine.distributed.single_images import redo_image_by_image
from engine.distributed.stream import Committed, ShardRun, stream
from engine.step import Step
from engine.storage.filesystem import absolute

__all__ = ["Committed", "ShardRun", "run_shards"]

MIN_FAILED_SHARDS, MAX_FAILED_PART = 8, 0.01
"""Number and fraction of shards that may keep failing before the first of them is examined."""


def run_shards(
    run: ShardRun, steps: Sequence[Step], shards: Sequence[int], *, on_commit: Callable[[Committed], None]
) -> None:
    """Run shards of the manifest through the steps and commit each.

    A shard that keeps killing its worker is processed image by image; the images that kill their worker become error
    rows. If no image of the first such shard succeeds, the steps are assumed to be broken and the rest is not tried.

    Args:
        steps: from the fetched images to the columns of a shard.
        shards: numbers of the shards to process.
        on_commit: called in this process after each commit.

    Raises:
        StorageError: input or output became unusable: the store is down, credentials expired, the disk is full.
            Completed shards are kept.
    """
    if not shards:
        return
    # workers of a Ray that was started elsewhere have another working directory
    run = replace(run, folder=absolute(run.folder))
    done: set[int] = set()

    def commit(committed: Committed) -> None:
        done.add(committed.shard)
        on_commit(committed)

    todo = list(shards)
    while todo:
        most = max(MIN_FAILED_SHARDS, int(MAX_FAILED_PART * len(todo)))
        try:
            stream(run, steps, todo, on_commit=commit, max_failed=most)
            break
        except RayError:
            left = [shard for shard in todo if shard not in done]
            # if no image causes the first failure either, every other shard would fail as slowly
            if not left or not redo_image_by_image(run, steps, left[:1], on_commit=commit):
                return
            tried = max((shard for shard in todo if shard in done), default=-1)
            todo = [shard for shard in left if shard > tried]
    # a shard that kills its actor also fails those queued for the same actor: processed alone they succeed
    left = [shard for shard in shards if shard not in done]
    stream(run, steps, left, on_commit=commit, alone=True)
    left = [shard for shard in shards if shard not in done]
    # the first by itself: if none of its images succeeds, the others are not tried
    for group in (left[:1], left[1:]):
        if group and not redo_image_by_image(run, steps, group, on_commit=on_commit):
            break
