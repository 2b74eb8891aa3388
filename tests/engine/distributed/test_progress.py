"""Progress events reach the driver, and none is needed."""

from __future__ import annotations

import time

import pytest
import ray

from engine.distributed.progress import Event, forwarded, progress_actor
from engine.fitting.events import TrainingStarted


@pytest.mark.slow
def test_events_are_passed_on_until_the_actor_is_lost_and_that_fails_nothing(ray_session: None) -> None:
    progress = progress_actor()
    heard: list[Event] = []
    started = TrainingStarted(step=3, num_steps=9, num_workers=1)
    with forwarded(progress, heard.append):
        ray.get(progress.put.remote(started))
        end = time.monotonic() + 20
        while not heard and time.monotonic() < end:
            time.sleep(0.05)
        ray.kill(progress)
    assert heard == [started]
