"""Kills of every kind over one labeling run on S3 and several nodes; benchmarks/chaos.py has the long form.

The cluster is Ray's own for tests: a head and two nodes, each with its processes, on this machine. The driver is a
process that joins it, as a job on a real cluster does.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from ray.cluster_utils import Cluster

from engine.config import Settings
from engine.distributed.ray_internals import ENVIRONMENT
from engine.imaging.codecs import decode_mask
from engine.labeling import label_images
from engine.storage.filesystem import write_bytes
from engine.storage.shards import committed_shards, read_shard
from tests.conftest import ROOT
from tests.jobs.small_runs import QUICK, small_settings, write_random_cam, write_settings, write_some_scenes
from tests.s3_server import S3Server

KINDS = ("actor", "driver", "node", "store")
NUM_SCENES, ROWS_PER_SHARD = 12, 2
AGREEMENT = 0.999


def schedule(num_kills: int, rng_seed: int) -> list[str]:
    """Kinds of the kills in their order: each kind as often as another."""
    kinds = [KINDS[number % len(KINDS)] for number in range(num_kills)]
    random.Random(rng_seed).shuffle(kinds)
    return kinds


@contextmanager
def cluster_of_nodes(num_nodes: int, **head: Any) -> Iterator[Cluster]:
    """A head that runs drivers only, and nodes that do the work; all of it ends with the block."""
    environment = {**ENVIRONMENT, "RAY_prestart_worker_first_driver": "0"}
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    cluster = _started(lambda: Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **_NODE, **head}))
    try:
        for _ in range(num_nodes):
            add_node(cluster)
        yield cluster
    finally:
        cluster.shutdown()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


_NODE: dict[str, Any] = {"object_store_memory": 80 << 20, "include_dashboard": False}
_TRIES = 3
"""Times that a node is started; on a busy machine even Ray's patience ends."""


def add_node(cluster: Cluster, **resources: float) -> Any:
    """A node more; `ray.cluster_utils.Cluster.remove_node` takes it."""
    return _started(lambda: cluster.add_node(**{"num_cpus": 4, **_NODE, **resources}))


def _started(start: Callable[[], Any]) -> Any:
    """What ``start`` gives; of one that came too late nothing is left."""
    for _ in range(_TRIES - 1):
        before = _children()
        try:
            return start()
        except Exception as error:  # Ray raises a bare one
            if "timed out" not in str(error).lower():
                raise
        for child in _children() - before:
            os.kill(child, signal.SIGKILL)
    return start()


def _children() -> set[int]:
    """Processes that this one started and that live."""
    found = set()
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):  # no process, or gone
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state != "Z":
                found.add(int(entry.name))
    return found


def actors_of(cluster: Cluster) -> list[int]:
    """Process ids of the pools' actors on all nodes."""
    raylets = {info.process.pid for node in cluster.worker_nodes for info in node.all_processes["raylet"]}
    found = []
    for entry in Path("/proc").iterdir():
        try:
            stat, title = (entry / "stat").read_text(), (entry / "cmdline").read_bytes()
        except OSError:  # no process, or gone
            continue
        if int(stat.rpartition(")")[2].split()[1]) in raylets and b"ray::" in title and b"MapWorker" in title:
            found.append(int(entry.name))
    return sorted(found)


@dataclass(kw_only=True)
class Chaos:
    """One labeling run and what happens to it."""

    server: S3Server
    cluster: Cluster
    folder: Path
    """For what stays local: settings and scenes before they go to the bucket."""
    num_rows: int
    outage_s: float
    """Time that the store is away at each of its deaths."""
    rng: random.Random
    progress_s: float = 240.0
    """Longest time without a new shard before the run counts as stuck; a busy machine takes minutes to start Ray."""
    tell: Callable[[str], None] = lambda line: None
    """Called with a line a kill."""
    bucket: str = ""
    told: list[str] = field(default_factory=list)
    _driver: subprocess.Popen[str] | None = None
    _starts: int = 0

    def prepare(self) -> None:
        """Scenes, manifest and an untrained classifier in a bucket of their own."""
        self.bucket = self.server.make_bucket(f"chaos-{self.rng.randrange(10**9)}")
        local = self.folder / "scenes"
        write_some_scenes(local, NUM_SCENES, repeat=self.num_rows // NUM_SCENES)
        write_random_cam(self.folder / "cam")
        for path in [*local.rglob("*"), *(self.folder / "cam").iterdir()]:
            if path.is_file():
                write_bytes(f"{self.bucket}/{path.relative_to(self.folder)}", path.read_bytes())

    def run(self, kinds: list[str]) -> None:
        """Label all, with these deaths on the way; afterwards every driver is gone."""
        start = time.monotonic()
        try:
            self._start()
            for kind in kinds:
                self._wait_for_progress()
                time.sleep(self.rng.uniform(0, 1))
                num_done = len(self._committed())
                assert num_done < self.num_shards, f"done before the last deaths: {self.told}"
                getattr(self, f"_kill_{kind}")()
                self.told.append(
                    f"{len(self.told) + 1}: {kind}, with {num_done} of {self.num_shards} shards committed, "
                    f"after {time.monotonic() - start:.0f} s"
                )
                self.tell(self.told[-1])
                self._check_readable()
            while (status := self._poll()) is None:
                self._wait_for_progress()
            assert status == 0, self._said()
        finally:
            self._end_driver()

    @property
    def num_shards(self) -> int:
        return self.num_rows // ROWS_PER_SHARD

    @property
    def out(self) -> str:
        return f"{self.bucket}/masks"

    def _start(self) -> None:
        """The command that a person would type, each time the same."""
        self._starts += 1
        settings = write_settings(self.folder, chaos_settings())
        command = [sys.executable, "-m", "jobs.label", f"--data={self.bucket}/scenes/repeated.csv"]
        command += [f"--cam={self.bucket}/cam", f"--out={self.out}", f"--config={settings}", *QUICK]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment |= {"RAY_ADDRESS": self.cluster.address, "PYTHONPATH": str(ROOT)}
        with (self.folder / f"driver-{self._starts}").open("w") as log:
            self._driver = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, text=True)

    def _said(self) -> str:
        return (self.folder / f"driver-{self._starts}").read_text()

    def _poll(self) -> int | None:
        assert self._driver is not None
        return self._driver.poll()

    def _end_driver(self) -> None:
        if self._driver is not None:
            self._driver.kill()
            self._driver.wait(30)

    def _committed(self) -> set[int]:
        return committed_shards(self.out)

    def _wait_for_progress(self) -> None:
        """Until there is a shard more, or the run has ended."""
        before, end = len(self._committed()), time.monotonic() + self.progress_s
        while self._poll() is None and len(self._committed()) <= before:
            assert time.monotonic() < end, f"stuck after {self.told}: {self._said()}"
            time.sleep(0.05)
        assert self._poll() in (None, 0), f"ended after {self.told}: {self._said()}"

    def _check_readable(self) -> None:
        """What bears a shard's name is a whole shard, whatever died."""
        for shard in self._committed():
            assert read_shard(self.out, shard, ["image_id"]).num_rows == ROWS_PER_SHARD

    def _kill_driver(self) -> None:
        self._end_driver()
        self._start()

    def _kill_actor(self) -> None:
        actors = actors_of(self.cluster)
        os.kill(self.rng.choice(actors), signal.SIGKILL)

    def _kill_node(self) -> None:
        node = self.rng.choice(sorted(self.cluster.worker_nodes, key=lambda node: node.unique_id))
        self.cluster.remove_node(node, allow_graceful=False)
        add_node(self.cluster)

    def _kill_store(self) -> None:
        self.server.kill()
        time.sleep(self.outage_s)
        self.server.start()

    def check(self) -> None:
        """Every id is there once, with the mask that it has where nothing died."""
        names = (self.folder / "scenes" / "repeated.csv").read_text().splitlines()[1:]
        tables = [read_shard(self.out, shard) for shard in sorted(self._committed())]
        rows = [row for table in tables for row in table.to_pylist()]
        assert [row["image_id"] for row in rows] == [line.split(",")[0] for line in names]
        assert {row["error"] for row in rows} == {None}
        undisturbed = self._undisturbed()
        for row in rows:
            mask = decode_mask(row["mask"]["bytes"])
            assert np.mean(mask == undisturbed[row["image"]]) > AGREEMENT, row["image_id"]
        summary = json.loads(self._read(".tag2mask/summary.json"))
        assert (summary["labeled"], summary["errors"], summary["missing_shards"]) == (self.num_rows, {}, [])

    def _read(self, name: str) -> bytes:
        with self.server.filesystem().open_input_file(f"{self.out.removeprefix('s3://')}/{name}") as file:
            data: bytes = file.read()
        return data

    def _undisturbed(self) -> dict[str, Any]:
        """The mask of each scene from the same stages in this process, without Ray, S3 or deaths."""
        lines = (self.folder / "scenes" / "manifest.csv").read_text().splitlines()[1:]
        images, tags = zip(*(line.split(",") for line in lines), strict=True)
        results = label_images(
            [str(self.folder / "scenes" / image) for image in images],
            [[tag for tag in names.split(";") if tag] for names in tags],
            cam=str(self.folder / "cam"),
            settings=chaos_settings(),
        )
        return {image: result.mask for image, result in zip(images, results, strict=True)}


def chaos_settings() -> Settings:
    """Small ones, without a walk."""
    small = small_settings()
    return replace(
        small,
        walk=replace(small.walk, num_steps=0),
        crf=replace(small.crf, num_iterations=2),
        shards=replace(small.shards, rows_per_shard=ROWS_PER_SHARD),
    )
