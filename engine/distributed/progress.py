"""Forward the progress events of a training: from rank 0 to an actor, and from there to a thread of the driver."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from engine.fitting.events import REPORT_EVERY_S, TrainingDiverged, TrainingEvent

Event = TrainingEvent | TrainingDiverged


class _Progress:
    """Rank 0's events that the driver has not fetched yet."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    def put(self, event: Event) -> None:
        self._events.append(event)

    def take(self) -> list[Event]:
        events, self._events = self._events, []
        return events


def progress_actor() -> Any:
    """Start the actor, on the driver's node: any other may be a spot node."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0)(_Progress).options(scheduling_strategy=here).remote()


class forwarded:
    """While the block runs, a thread passes on the events that arrive at the progress actor."""

    def __init__(self, progress: Any, on_event: Callable[[Event], None]) -> None:
        self._progress = progress
        self._on_event = on_event
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._forward()

    def _run(self) -> None:
        while not self._stop.wait(REPORT_EVERY_S / 2):
            self._forward()

    def _forward(self) -> None:
        try:
            events = ray.get(self._progress.take.remote())
        except RayActorError:  # killed, by a person or for its memory: the training continues without progress
            return
        for event in events:
            self._on_event(event)
