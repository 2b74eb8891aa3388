"""Options that jobs share: which settings they name, and what they refuse."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from engine.config import Settings
from engine.errors import ConfigError
from engine.plain_settings import part_at
from engine.presets import preset
from engine.runs.options import ShardOptions, Uses
from jobs.label import Label
from jobs.make_seeds import MakeSeeds


def test_options_of_the_jobs_are_checked_alike() -> None:
    shared: dict[str, Any] = {"data": "m", "out": "o", "cam": "c", "settings": preset("tiny")}
    for job in (Label, MakeSeeds):
        with pytest.raises(ConfigError, match=r"^max_error_fraction must be from 0 to 1, got 1\.5$") as refused:
            job(**shared, max_error_fraction=1.5)
        assert refused.value.thing == "max_error_fraction"
        with pytest.raises(ConfigError, match=r"^max_pixels must be 1 or more, got 0$"):
            job(**shared, max_pixels=0)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_fraction_outside_of_its_range_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match=f"^max_error_fraction must be from 0 to 1, got {value}$"):
        ShardOptions(data="m", out="o", settings=preset("tiny"), max_error_fraction=value)


def test_every_job_may_choose_its_resources() -> None:
    settings = preset("tiny")
    uses = Uses("cam.inference", "walk")
    assert [part_at(settings, path) for path in uses.paths] == [
        settings.cam.inference,
        settings.walk,
        settings.bands,
        settings.value_range,
        settings.resources,
    ]


def test_everything_is_the_whole_tree_once() -> None:
    everything = Uses.everything()
    assert sorted(everything.paths) == sorted(item.name for item in fields(Settings))
    assert {*everything.paths} - {*everything.result_paths} == {"resources"}  # they decide no result
