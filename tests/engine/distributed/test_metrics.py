"""What an actor tells of its work."""

from __future__ import annotations

import json
import time
import urllib.request

import pytest
import ray

from engine.distributed.metrics import StageWatch
from engine.records import Batch
from engine.timing import measured

EXPECTED = {
    ("ray_tag2mask_images_total", "cam"): 3.0,
    ("ray_tag2mask_errors_total", "decode"): 1.0,
    ("ray_tag2mask_busy_seconds_total", "cam"): 0.01,
    ("ray_tag2mask_images_per_s", "cam"): 1e-6,
}
"""What three images and one error are at least."""


def _work(batch: Batch) -> Batch:
    assert "seconds" not in batch
    with measured("cam"):
        time.sleep(0.01)
    with measured("walk"):
        return {**batch, "error": [None, "decode: odd", None]}


def test_seconds_of_all_actors_of_a_shard_add_up() -> None:
    watch = StageWatch(["cam", "walk"])
    batch: Batch = {"shard": [1] * 3, "error": [None] * 3}
    first = watch.watched(_work, batch)
    time.sleep(0.02)
    second = watch.watched(_work, first)
    assert second["seconds"][1:] == [None, None]
    before, after = (json.loads(one["seconds"][0]) for one in (first, second))
    assert before["cam"] >= 0.01
    assert before["waiting: cam+walk"] == 0
    assert after["cam"] >= before["cam"] + 0.01
    assert after["waiting: cam+walk"] >= 0.02


@pytest.mark.slow
def test_prometheus_sees_images_and_errors_by_stage(ray_session: None) -> None:
    @ray.remote(num_cpus=0.1)
    def work() -> Batch:
        return StageWatch(["cam", "walk"]).watched(_work, {"shard": [1] * 3, "error": [None] * 3})

    ray.get(work.remote())
    port = ray.nodes()[0]["MetricsExportPort"]
    end = time.monotonic() + 60
    found: dict[tuple[str, str], float] = {}
    while found.keys() < EXPECTED.keys():  # other tests of this session may have told of other stages before
        assert time.monotonic() < end, f"after a minute Prometheus sees only {found}"
        time.sleep(0.5)
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
        lines = [line for line in page.splitlines() if line.startswith("ray_tag2mask_")]
        values = {
            (line.split("{")[0], line.split('stage="')[1].split('"')[0]): float(line.split()[-1]) for line in lines
        }
        found = {name: values[name] for name in EXPECTED if name in values}
    assert all(found[name] >= least for name, least in EXPECTED.items())
