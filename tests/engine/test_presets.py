"""Presets: settings by name."""

from __future__ import annotations

import json

import pytest

from engine.errors import ConfigError
from engine.plain_settings import merged, to_dict
from engine.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
def test_preset_survives_the_way_through_json(name: str) -> None:
    settings = preset(name)
    changes = json.loads(json.dumps(to_dict(settings)))
    assert merged(preset("tiny"), changes, where="run.json") == settings


def test_paper_preset_has_the_authors_figures() -> None:
    settings = preset("paper")
    assert (settings.seed.alpha_low, settings.walk.alpha, settings.seed.alpha_high) == (4, 16, 32)
    assert (settings.walk.beta, settings.walk.num_steps, settings.walk.radius) == (8, 256, 5)
    assert (settings.cam.stride, settings.cam.training.crop_px) == (8, 448)
    assert set(settings.cam.inference.scales) == {0.5, 1.0, 1.5, 2.0}
    assert settings.cam.inference.flip


def test_unknown_preset_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"^preset must be one of tiny, small, default, paper, got 'huge'$"):
        preset("huge")


def test_demo_takes_fewer_rounds_and_the_paper_one() -> None:
    assert {name: preset(name).rounds.num_rounds for name in PRESETS} == {
        "tiny": 2,
        "small": 3,
        "default": 3,
        "paper": 1,
    }
