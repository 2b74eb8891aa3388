"""The settings of the authors' recipe."""

from __future__ import annotations

from engine.presets import preset
from experiments import recipe


def test_settings_are_the_papers_on_the_small_backbone() -> None:
    settings = recipe.settings_of(preset("paper"), preset("small"), rng_seed=3)
    assert settings.cam.backbone == settings.affinity.backbone == preset("small").cam.backbone
    assert settings.cam.training.num_epochs == 15
    assert settings.cam.training.optimizer == preset("small").cam.training.optimizer == "adamw"
    assert settings.affinity.training.learning_rate == preset("small").affinity.training.learning_rate
    assert settings.cam.training.rng_seed == settings.affinity.training.rng_seed == 3
    assert (settings.walk.alpha, settings.walk.beta, settings.walk.num_steps) == (16, 8, 256)
    assert settings.crf.bilateral_weight == 10
