"""Stages as actor pools: shards in, committed shards out."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ray.data import DataContext

from engine.config import ResourceConfig
from engine.distributed import blocks, pipeline
from engine.distributed.cluster import Cluster, connected
from engine.distributed.pipeline import Committed, Pool, Step, crf_pool, fitted, network_pool, run_shards
from engine.imaging.codecs import decode_mask, encode_mask
from engine.records import Batch, mask_schema
from engine.storage.manifest import Manifest, freeze_manifest
from engine.storage.shards import committed_shards, read_shards, shard_path

ALONE = Cluster(num_cpus=10, num_gpus=0, num_cores=4, started_here=True)
JOINED = Cluster(num_cpus=640, num_gpus=8, num_cores=2, started_here=False)


def test_pools_fill_the_machine_or_the_cluster_and_obey_their_limit() -> None:
    assert crf_pool([], ResourceConfig(), ALONE).max_actors == 4
    assert crf_pool([], ResourceConfig(), JOINED).max_actors >= 640
    assert crf_pool([], ResourceConfig(max_crf_actors=3), JOINED).max_actors == 3
    assert network_pool([], ResourceConfig(), ALONE).max_actors == 3
    assert network_pool([], ResourceConfig(threads_per_actor=2), ALONE).max_actors == 2
    assert network_pool([], ResourceConfig(num_gpus=0.5), JOINED).max_actors >= 16
    assert network_pool([], ResourceConfig(num_gpus=0.5, max_network_actors=5), JOINED).max_actors == 5


def test_network_pool_reserves_the_threads_and_gpus_it_uses() -> None:
    pool = network_pool([], ResourceConfig(num_gpus=0.25, threads_per_actor=4), JOINED)
    assert (pool.num_cpus, pool.num_gpus, pool.threads) == (4, 0.25, 4)


def _chain(resources: ResourceConfig, cluster: Cluster) -> list[Pool]:
    first = Pool(steps=(), max_actors=1, num_cpus=0.5)
    return [first, network_pool([], resources, cluster), crf_pool([], resources, cluster)]


@pytest.mark.parametrize("cores", [1, 2, 4, 64])
@pytest.mark.parametrize("threads", [1, 4])
def test_one_actor_of_each_pool_always_fits_with_a_cpu_to_spare(cores: int, threads: int) -> None:
    for num_cpus in (cores, 2 * cores + 2):  # as joined and as started here
        cluster = Cluster(num_cpus=num_cpus, num_gpus=0, num_cores=cores, started_here=num_cpus > cores)
        pools = fitted(_chain(ResourceConfig(threads_per_actor=threads), cluster), cluster)
        assert 0 < sum(pool.num_cpus for pool in pools) <= max(num_cpus - 1, 0.5)


def test_full_grown_pools_leave_a_machine_a_cpu_for_rays_own_tasks() -> None:
    for cores in (1, 2, 4, 16, 64):
        cluster = Cluster(num_cpus=2 * cores + 2, num_gpus=0, num_cores=cores, started_here=True)
        pools = fitted(_chain(ResourceConfig(), cluster), cluster)
        assert sum(pool.num_cpus * pool.max_actors for pool in pools) <= cluster.num_cpus - 1


def test_stages_without_a_gpu_never_ask_for_one() -> None:
    resources = ResourceConfig(num_gpus=0.5)
    first, network, crf = fitted(_chain(resources, JOINED), JOINED)
    assert (first.num_gpus, network.num_gpus, crf.num_gpus) == (0, 0.5, 0)
    head = Cluster(num_cpus=2, num_gpus=0, num_cores=2, started_here=False)
    assert fitted(_chain(resources, head), head) == _chain(resources, head)  # GPU nodes are still to come


def test_images_are_fetched_by_as_many_as_a_growing_cluster_wants(tmp_path: Path) -> None:
    manifest, head = _numbered(tmp_path / "images", 1, rows_per_shard=1), replace(JOINED, num_cpus=4, num_gpus=0)

    def loaders(cluster: Cluster) -> int:
        schema = mask_schema(keep_stages=False, metadata={})
        pools = (crf_pool([], ResourceConfig(), cluster),)
        line = pipeline._Line(pools=pools, schema=schema, resources=ResourceConfig(), cluster=cluster, fetch=True)
        return line.chain(manifest, "out")[0].max_actors

    assert (loaders(ALONE), loaders(head), loaders(JOINED)) == (1, 4, 40)


class Measure:
    """A stage: the first byte of the file, and trouble with the byte 7."""

    def __call__(self, batch: Batch) -> Batch:
        sizes = []
        for encoded, error in zip(batch["encoded"], batch["error"], strict=True):
            if error is None and encoded[0] == 7:
                raise ValueError("seven is unlucky")
            sizes.append(None if error is not None else encoded[0])
        return {**batch, "height": sizes, "width": list(sizes)}


class Paint:
    """A stage: a mask of the size that was measured."""

    def __init__(self, color: int) -> None:
        self.color = color

    def __call__(self, batch: Batch) -> Batch:
        masks = [
            None if side is None else encode_mask(np.full((side, side), self.color, dtype=np.uint8))
            for side in batch["height"]
        ]
        empty = [None] * len(masks)
        kept = {name: values for name, values in batch.items() if name not in ("encoded", "class_ids")}
        return {**kept, "mask": masks, "areas": empty, "confidence": list(empty)}


@pytest.mark.slow
def test_every_row_of_the_asked_shards_is_committed_once_as_mask_or_error(
    tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCKS_AT_ONCE", 2)  # so that the stream takes them in two parts
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
    resources = ResourceConfig()
    with connected(resources) as cluster:
        run_shards(
            manifest,
            [0, 2, 3, 1][:3],
            [
                Pool(steps=(Step(name="measure", stage=Measure),), max_actors=1),
                Pool(steps=(Step(name="paint", stage=Paint, arguments={"color": 4}),), max_actors=2),
            ],
            folder=out,
            schema=mask_schema(keep_stages=False, metadata={}),
            resources=resources,
            cluster=cluster,
            on_commit=committed.append,
        )
    assert DataContext.get_current().max_errored_blocks == 0  # a training in the same process loses no block
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


class Deadly:
    """A stage: takes its whole process down at the first byte of these; of even ones in the way of a broken GPU."""

    def __init__(self, deadly: Collection[int], tried: Path | None) -> None:
        self.deadly, self.tried = deadly, tried

    def __call__(self, batch: Batch) -> Batch:
        for encoded in batch["encoded"]:
            if encoded is not None and encoded[0] in self.deadly:
                if self.tried is not None:
                    (self.tried / str(encoded[0])).touch()
                if encoded[0] % 2 == 0:
                    raise RuntimeError("CUDA error: an illegal memory access was encountered")
                os._exit(1)
        return batch


@pytest.fixture
def few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each death of a worker is seconds."""
    monkeypatch.setattr(pipeline, "TRIES", 2)


def _numbered(folder: Path, count: int, rows_per_shard: int) -> Manifest:
    folder.mkdir()
    for number in range(1, count + 1):
        (folder / f"{number}.png").write_bytes(bytes([number]))
    (folder / "manifest.csv").write_text(
        "image,tags\n" + "".join(f"{number}.png,cat\n" for number in range(1, count + 1))
    )
    return freeze_manifest(
        str(folder / "manifest.csv"), str(folder / "frozen"), rows_per_shard=rows_per_shard, class_names=("cat",)
    )


def _run_past(deadly: Collection[int], manifest: Manifest, out: str, tried: Path | None = None) -> list[Committed]:
    committed: list[Committed] = []
    resources = ResourceConfig()
    steps = (
        Step(name="deadly", stage=Deadly, arguments={"deadly": deadly, "tried": tried}),
        Step(name="measure", stage=Measure),
        Step(name="paint", stage=Paint, arguments={"color": 4}),
    )
    with connected(resources) as cluster:
        run_shards(
            manifest,
            range(manifest.num_shards),
            [Pool(steps=steps, max_actors=2, num_cpus=0.5)],
            folder=out,
            schema=mask_schema(keep_stages=False, metadata={"tag2mask": "{}"}),
            resources=resources,
            cluster=cluster,
            on_commit=committed.append,
        )
    return sorted(committed, key=lambda one: one.shard)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session", "few_tries")
def test_image_that_kills_its_worker_becomes_an_error_row_and_costs_no_other(tmp_path: Path) -> None:
    manifest = _numbered(tmp_path / "images", 7, rows_per_shard=3)
    calm, hurt = str(tmp_path / "calm"), str(tmp_path / "hurt")
    _run_past((), manifest, calm)
    committed = _run_past((4, 7), manifest, hurt)  # and so no image of the last shard survives
    assert [(one.shard, one.num_rows, dict(one.errors)) for one in committed] == [
        (0, 3, {}),
        (1, 3, {"crash": 1}),
        (2, 1, {"crash": 1}),
    ]
    assert Path(shard_path(hurt, 0)).read_bytes() == Path(shard_path(calm, 0)).read_bytes()
    expected = [row for table in read_shards(calm) for row in table.to_pylist()]
    rows = [row for table in read_shards(hurt) for row in table.to_pylist()]
    assert [row["image_id"] for row in rows] == [f"{number}.png" for number in range(1, 8)]
    for row, undisturbed in zip(rows, expected, strict=True):
        if row["image_id"] in ("4.png", "7.png"):
            assert row["error"].startswith("crash: its worker died 2 times")
            assert (row["mask"], row["height"], row["width"], row["tags"]) == (None, None, None, ["cat"])
        else:
            assert row == undisturbed
    assert os.listdir(Path(hurt, ".tag2mask")) == []


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session", "few_tries")
def test_stage_that_no_image_survives_is_nobodys_fault_and_soon_given_up(tmp_path: Path) -> None:
    manifest = _numbered(tmp_path / "images", 2, rows_per_shard=2)
    out = str(tmp_path / "out")
    assert _run_past((1, 2), manifest, out) == []
    assert committed_shards(out) == set()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session", "few_tries")
def test_stages_that_survive_nothing_are_given_up_after_a_few_of_many_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "MIN_FAILED_SHARDS", 2)
    manifest = _numbered(tmp_path / "images", 100, rows_per_shard=2)
    tried = tmp_path / "tried"
    tried.mkdir()
    assert _run_past(range(1, 101), manifest, str(tmp_path / "out"), tried=tried) == []
    assert committed_shards(str(tmp_path / "out")) == set()
    assert 2 < len(list(tried.iterdir())) < 20


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session", "few_tries")
def test_more_deadly_shards_than_are_let_pass_cost_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "MIN_FAILED_SHARDS", 1)
    manifest = _numbered(tmp_path / "images", 8, rows_per_shard=2)
    committed = _run_past((3, 5), manifest, str(tmp_path / "out"))
    assert [(one.shard, dict(one.errors)) for one in committed] == [
        (0, {}),
        (1, {"crash": 1}),
        (2, {"crash": 1}),
        (3, {"measure": 1}),
    ]
