"""A Ray Data context that is quiet and does not turn at full speed while it waits.

The loop of Ray's streaming executor waits for tasks alone. Where what was made has not been taken yet, no task runs,
and the loop turns as fast as it can: it takes a core, and in a training worker the interpreter's lock as well, so that
a step took more than twice as long as soon as the loaders were ahead.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from ray.data import DataContext
from ray.data._internal.execution.execution_callback import ExecutionCallback

PAUSE_S = 0.02
"""After each turn of the loop, seconds; a turn takes one or two milliseconds and serves all that is ready."""


class Pause(ExecutionCallback):
    """Lets the loop rest after every turn."""

    def on_execution_step(self, executor: Any) -> None:
        time.sleep(PAUSE_S)


def unhurried_context() -> DataContext:
    """The context of this process, in which streams that start from here on rest between turns and say nothing."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    if Pause not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(Pause)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return context
