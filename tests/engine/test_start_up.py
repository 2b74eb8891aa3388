"""What a process imports before it knows what it has to do: seconds for every worker that Ray starts."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "spared"),
    [
        ("engine.distributed.pipeline", "torch"),  # of the actors that only fetch
        ("engine.fitting.samples", "torch"),  # of the actors that load the samples of a training
        ("engine.distributed.progress", "torch"),  # of the actor that passes on its progress
        ("jobs.evaluate", "torch"),
        ("jobs.label", "timm"),  # of the driver, which builds no network
        ("engine.storage.cached_maps", "torch"),  # of the actors that read the cache
        ("tune.trials", "timm"),  # of the trials
    ],
)
def test_module_spares_its_processes_a_library_that_they_may_not_need(module: str, spared: str) -> None:
    code = f"import sys, {module}; print({spared!r} in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.strip() == "False"
