"""Metrics of the actors: seconds by stage, sent along with each shard, and counters for Ray's metrics.

Ray exports the counters to Prometheus and its dashboard; the seconds go into ``summary.json``.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence

from ray.util import metrics

from engine.records import Batch, error_counts
from engine.timing import collected

SHARD_SECONDS = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0]
WAITING = "waiting: "
"""Prefix of the time that an actor was idle, before the names of its stages."""


class StageWatch:
    """Measures the shards that one actor processes.

    Exported as ``ray_tag2mask_...`` with the label ``stage``; Ray's own ``ray_data_...`` show queues and actors.
    ``rate(images_total) / rate(busy_seconds_total)`` is an actor's speed, ``busy / (busy + waiting)`` its utilization.
    """

    def __init__(self, stages: Sequence[str]) -> None:
        """Args:
        stages: names of the actor's stages, in order.
        """
        by_stage = ("stage",)
        self._stages = tuple(stages)
        self._idle_since: float | None = None
        self._images = metrics.Counter("tag2mask_images", "Images that a stage has processed.", by_stage)
        self._errors = metrics.Counter("tag2mask_errors", "Images that became error rows.", by_stage)
        self._busy = metrics.Counter("tag2mask_busy_seconds", "Seconds of work, summed over actors.", by_stage)
        self._waiting = metrics.Counter("tag2mask_waiting_seconds", "Idle seconds, summed over actors.", by_stage)
        self._speed = metrics.Gauge("tag2mask_images_per_s", "Images per second of an actor's last shard.", by_stage)
        self._shards = metrics.Histogram("tag2mask_shard_seconds", "Seconds per shard.", SHARD_SECONDS, by_stage)

    def watched(self, work: Callable[[Batch], Batch], batch: Batch) -> Batch:
        """Return ``work(batch)`` and count it; adds its seconds to the column ``seconds``."""
        start = time.monotonic()
        waiting_s = 0.0 if self._idle_since is None else start - self._idle_since
        failed_before = _failed(batch)
        earlier = json.loads(batch["seconds"][0]) if "seconds" in batch else {}
        with collected() as seconds:
            out = work({name: values for name, values in batch.items() if name != "seconds"})
        num_rows = max(len(batch["shard"]), len(out["shard"]))
        self._record(seconds, num_rows, _failed(out) - failed_before, waiting_s)
        total = Counter(earlier)
        total.update(seconds)
        total[WAITING + "+".join(self._stages)] += waiting_s  # type: ignore[assignment]
        text = json.dumps({name: round(value, 4) for name, value in total.items()})
        self._idle_since = time.monotonic()
        return {**out, "seconds": [text, *[None] * (len(out["shard"]) - 1)]}

    def _record(self, seconds: dict[str, float], num_rows: int, failed: Counter[str], waiting_s: float) -> None:
        for stage, busy_s in seconds.items():
            label = {"stage": stage}
            self._images.inc(num_rows, label)
            if busy_s > 0:
                self._busy.inc(busy_s, label)
                self._speed.set(num_rows / busy_s, label)
        for stage, count in failed.items():
            self._errors.inc(count, {"stage": stage})
        label = {"stage": "+".join(self._stages)}
        if waiting_s > 0:
            self._waiting.inc(waiting_s, label)
        self._shards.observe(sum(seconds.values()), label)


def _failed(batch: Batch) -> Counter[str]:
    """Rows with an error so far, by stage."""
    if "num_errors" in batch:  # committed
        return Counter(json.loads(batch["num_errors"][0]))
    return Counter(error_counts(batch.get("error", [])))
