"""One pass of shards through the pools."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from ray.data import DataContext

from engine.distributed import blocks
from engine.distributed.cluster import Cluster, connected
from engine.distributed.stream import Committed, ShardRun, stream
from engine.imaging.codecs import decode_mask
from engine.records import mask_schema
from engine.resources import ResourceConfig
from engine.step import Step
from engine.storage.manifest import freeze_manifest
from engine.storage.shards import committed_shards, read_shards
from tests.engine.distributed.examples import Measure, Paint, numbered_images
from tests.engine.distributed.test_pools import ALONE, JOINED


def _run(folder: Path, cluster: Cluster, *, fetch: bool = True) -> ShardRun:
    manifest, schema = numbered_images(folder, 1, rows_per_shard=1), mask_schema(keep_stages=False, metadata={})
    return ShardRun(
        manifest=manifest, folder="out", schema=schema, resources=ResourceConfig(), cluster=cluster, fetch=fetch
    )


def test_pools_begin_with_loading_and_end_with_the_commit(tmp_path: Path) -> None:
    steps = [Step(name="measure", build=Measure, on="network"), Step(name="paint", build=partial(Paint, 4), on="crf")]
    for fetch, first in [(True, ["manifest", "fetch"]), (False, ["manifest"])]:
        pools = _run(tmp_path / first[-1], ALONE, fetch=fetch).pools(steps)
        assert [[step.name for step in pool.steps] for pool in pools] == [first, ["measure"], ["paint", "commit"]]


def test_a_growing_cluster_gets_as_many_loaders_as_it_will_need(tmp_path: Path) -> None:
    run, paint = _run(tmp_path / "images", ALONE), [Step(name="paint", build=partial(Paint, 4), on="crf")]
    clusters = (ALONE, replace(JOINED, num_cpus=4, num_gpus=0), JOINED)
    assert [replace(run, cluster=cluster).pools(paint)[0].max_actors for cluster in clusters] == [1, 4, 40]


@pytest.mark.slow
def test_every_row_of_the_requested_shards_is_committed_once_as_mask_or_error(
    tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCKS_AT_ONCE", 2)  # so that the stream receives them in two parts
    lines = ["image,tags"]
    for number in range(1, 12):
        (tmp_path / f"{number}.png").write_bytes(bytes([number]))
        lines.append(f"{number}.png,{'dragon' if number == 5 else 'cat'}")
    (tmp_path / "3.png").unlink()
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    manifest = freeze_manifest(
        str(tmp_path / "manifest.csv"), str(tmp_path / "frozen"), rows_per_shard=3, class_names=("cat",)
    )
    out = str(tmp_path / "out")
    committed: list[Committed] = []
    resources = ResourceConfig(max_network_actors=1, max_crf_actors=2)
    steps = [Step(name="measure", build=Measure, on="network"), Step(name="paint", build=partial(Paint, 4), on="crf")]
    schema = mask_schema(keep_stages=False, metadata={})
    with connected(resources) as cluster:
        run = ShardRun(manifest=manifest, folder=out, schema=schema, resources=resources, cluster=cluster)
        stream(run, steps, [0, 2, 3], on_commit=committed.append)
    assert DataContext.get_current().max_errored_blocks == 0  # a training in the same process skips no block
    assert committed_shards(out) == {0, 2, 3}
    assert {one.shard: (one.num_rows, dict(one.errors)) for one in committed} == {
        0: (3, {"fetch": 1}),
        2: (3, {"measure": 1}),
        3: (2, {}),
    }
    for one in committed:
        assert one.seconds.keys() >= {"manifest", "fetch", "measure", "paint", "commit", "waiting: paint+commit"}
        assert min(one.seconds.values()) >= 0
    rows = [row for table in read_shards(out) for row in table.to_pylist()]
    assert [row["image_id"] for row in rows] == [f"{number}.png" for number in (1, 2, 3, 7, 8, 9, 10, 11)]
    errors = {row["image_id"]: row["error"] for row in rows if row["error"] is not None}
    assert errors.keys() == {"3.png", "7.png"}
    assert errors["7.png"] == "measure: seven is unlucky"
    for row in rows:
        assert (row["mask"] is None) == (row["error"] is not None)
        if row["mask"] is not None:
            assert decode_mask(row["mask"]["bytes"]).shape == (int(row["image_id"][:-4]),) * 2
