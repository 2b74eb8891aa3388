"""Committing a shard."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from engine.imaging.codecs import encode_mask
from engine.records import Batch, mask_schema
from engine.stages.commit import CommitShard
from engine.storage.shards import committed_shards, read_shard, shard_path


def _batch(shard: int) -> Batch:
    mask = encode_mask(np.ones((3, 4), dtype=np.uint8))
    return {
        "shard": [shard] * 3,
        "image_id": ["a", "b", "c"],
        "image": ["a.png", "b.png", "c.png"],
        "height": [3, None, None],
        "width": [4, None, None],
        "tags": [["cat"], [], ["dog"]],
        "mask": [mask, None, None],
        "areas": [[0.0, 1.0], None, None],
        "confidence": [1.0, None, None],
        "error": [None, "fetch: gone", "fetch: gone too"],
    }


def test_shard_is_written_and_counted(tmp_path: Path) -> None:
    stage = CommitShard(str(tmp_path), mask_schema(keep_stages=False, metadata={"run": "7"}))
    made = {"shard": [7], "num_rows": [3], "num_errors": [json.dumps({"fetch": 2})], "failure": [None]}
    assert stage(_batch(7)) == made
    assert committed_shards(str(tmp_path)) == {7}
    table = read_shard(str(tmp_path), 7)
    assert table.column("error").to_pylist() == _batch(7)["error"]
    assert table.column("mask")[0].as_py()["bytes"] == _batch(7)["mask"][0]


def test_shard_that_is_done_twice_has_the_same_bytes(tmp_path: Path) -> None:
    stage = CommitShard(str(tmp_path), mask_schema(keep_stages=False, metadata={}))
    written = []
    for _ in range(2):
        stage(_batch(0))
        written.append(Path(shard_path(str(tmp_path), 0)).read_bytes())
    assert written[0] == written[1]


def test_rows_of_two_shards_are_never_mixed(tmp_path: Path) -> None:
    stage = CommitShard(str(tmp_path), mask_schema(keep_stages=False, metadata={}))
    with pytest.raises(ValueError, match="too many values"):
        stage({**_batch(0), "shard": [0, 0, 1]})
    assert committed_shards(str(tmp_path)) == set()
