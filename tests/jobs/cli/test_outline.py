"""Options without the job: the same command line."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys

import pytest

from jobs.cli.menu import job_modules
from jobs.cli.outline import outlined

SLOW = "jobs.export_network"  # its formats are named where they are written


@pytest.mark.parametrize("module", job_modules().values())
def test_outline_has_the_options_of_the_job(module: str) -> None:
    before = sys.modules.get(module)
    with outlined(module) as outline:
        found = {item.name: (item.type, item.default) for item in dataclasses.fields(outline)}
        name = outline.__name__
    assert sys.modules.get(module) is before
    whole = getattr(importlib.import_module(module), name)
    assert found == {item.name: (item.type, item.default) for item in dataclasses.fields(whole)}


def test_no_outline_loads_torch_or_ray() -> None:
    modules = [module for module in job_modules().values() if module != SLOW]
    code = (
        "import sys\nfrom jobs.cli.outline import outlined\n"
        f"for module in {modules}:\n    with outlined(module):\n        pass\n"
        "print({'ray', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "set()"
