"""Ray Data's loop rests between its turns."""

from __future__ import annotations

import time

import pytest
import ray.data

from engine.distributed.throttled_executor import PAUSE_S, Pause, unhurried_context


def test_context_is_given_the_pause_once() -> None:
    for _ in range(3):
        context = unhurried_context()
    assert context.custom_execution_callback_classes.count(Pause) == 1
    assert Pause in context.execution_callback_classes
    assert not context.enable_progress_bars


@pytest.mark.slow
def test_stream_that_is_not_taken_costs_hardly_any_time_of_this_process(ray_session: None) -> None:
    context = unhurried_context()
    before = context.execution_options.resource_limits
    context.execution_options.resource_limits = before.copy(object_store_memory=2e6)
    try:
        blocks = ray.data.range(400, override_num_blocks=400).map_batches(lambda rows: {"x": [bytes(10**6)]})
        stream = iter(blocks.iter_batches(batch_size=None, prefetch_batches=0))
        next(stream)
        time.sleep(2)  # until it is ahead as far as it may
        start = time.process_time()
        time.sleep(100 * PAUSE_S)
        assert time.process_time() - start < 50 * PAUSE_S
    finally:
        context.execution_options.resource_limits = before
