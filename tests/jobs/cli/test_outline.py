"""Options without the job: the same command line."""

from __future__ import annotations

import dataclasses
import importlib
import sys

import pytest

from jobs.cli.menu import job_modules
from jobs.cli.outline import outlined


@pytest.mark.parametrize("module", job_modules().values())
def test_outline_has_the_options_of_the_job(module: str) -> None:
    before = sys.modules.get(module)
    with outlined(module) as outline:
        found = {item.name: (item.type, item.default) for item in dataclasses.fields(outline)}
        name = outline.__name__
    assert sys.modules.get(module) is before
    whole = getattr(importlib.import_module(module), name)
    assert found == {item.name: (item.type, item.default) for item in dataclasses.fields(whole)}
