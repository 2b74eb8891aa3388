"""A network learns, stops, goes on, is averaged, compiled and scored; without Ray."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.config import TrainingConfig
from engine.errors import ConfigError
from engine.fitting.learner import Learner, Samples, kept_weights
from engine.fitting.objectives import Objective
from tests.engine.stages.examples import CLASS_NAMES, network_config

CONFIG = replace(network_config("cam").training, crop_px=32, batch_size=4, freeze_batch_norm=False)
CPU = torch.device("cpu")
NUM_STEPS = 4


class TinyNetwork(nn.Module):
    """As little as a classifier can be; its dropout needs the same random numbers on every run."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 6, kernel_size=3, stride=4)
        self.dropout = nn.Dropout2d(0.5)
        self.classifier = nn.Conv2d(6, len(CLASS_NAMES), kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.dropout(self.backbone(images / 255))).mean(dim=(2, 3))
        return logits


class TinyObjective(Objective):
    def build(self) -> nn.Module:
        return TinyNetwork()


def _learner(config: TrainingConfig = CONFIG, **others: Any) -> Learner:
    return Learner(TinyObjective.of(network_config("cam"), CLASS_NAMES), config, CPU, **others)


def _samples(step: int, *, weight: float = 1.0) -> Samples:
    rng = np.random.default_rng(step)
    return {
        "image": rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8),
        "target": rng.integers(0, 2, (4, len(CLASS_NAMES))).astype(np.float32),
        "weight": np.full(4, weight, dtype=np.float32),
    }


def _learn(learner: Learner, start: int, stop: int) -> list[dict[str, Tensor]]:
    seen = []
    for step in range(start, stop):
        learner.step(step, NUM_STEPS, _samples(step))
        seen.append(learner.state()["network"])
    return seen


@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.9}, {"optimizer": "sgd", "precision": "bfloat16"}])
def test_learner_that_was_stopped_ends_with_the_very_weights_of_one_that_was_not(changes: dict[str, Any]) -> None:
    config = replace(CONFIG, **changes)
    calm = _learner(config)
    _learn(calm, 0, NUM_STEPS)

    stopped = _learner(config)
    _learn(stopped, 0, 2)
    file = io.BytesIO()
    torch.save(stopped.state(), file)
    torch.rand(7)  # another process draws other numbers
    resumed = _learner(replace(config, rng_seed=config.rng_seed))
    resumed.load_state(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    _learn(resumed, 2, NUM_STEPS)

    assert all(torch.equal(value, calm.weights()[name]) for name, value in resumed.weights().items())
    assert all(torch.equal(value, kept_weights(calm.state())[name]) for name, value in resumed.weights().items())
    first = _learner(config).weights()
    assert all(not torch.equal(value, first[name]) for name, value in resumed.weights().items())


def test_average_follows_the_weights_as_the_definition_says() -> None:
    learner = _learner(replace(CONFIG, ema_decay=0.25))
    seen = _learn(learner, 0, NUM_STEPS)
    expected = seen[0]["classifier.weight"]
    for number, weights in enumerate(seen[1:], start=1):
        decay = min(0.25, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * weights["classifier.weight"]
    torch.testing.assert_close(learner.weights()["classifier.weight"], expected)
    assert not torch.equal(expected, seen[-1]["classifier.weight"])


def test_rate_falls_by_the_polynomial() -> None:
    learner = _learner(replace(CONFIG, head_learning_rate=0.5))
    for step in range(NUM_STEPS):
        learner.step(step, NUM_STEPS, _samples(step))
        assert learner.learning_rate == pytest.approx(0.5 * (1 - step / NUM_STEPS) ** CONFIG.poly_power)


def test_validation_scores_the_kept_weights_on_all_that_counts_and_leaves_the_training_alone() -> None:
    learner = _learner(replace(CONFIG, ema_decay=0.5))
    _learn(learner, 0, 2)
    before = learner.state()
    scores = learner.validate([_samples(11), _samples(12, weight=0.0), _samples(13)])

    network = TinyNetwork().eval()
    network.load_state_dict(learner.weights())
    batches = [_samples(number) for number in (11, 13)]
    images = torch.from_numpy(np.concatenate([batch["image"] for batch in batches])).permute(0, 3, 1, 2)
    labels = torch.from_numpy(np.concatenate([batch["target"] for batch in batches]))
    loss = nn.functional.multilabel_soft_margin_loss(network(images), labels).detach()
    assert list(scores) == ["mean_ap", "loss"]
    assert 0 < scores["mean_ap"] <= 1
    assert scores["loss"] == pytest.approx(float(loss), rel=1e-5)
    after = learner.state()
    assert all(torch.equal(value, before["network"][name]) for name, value in after["network"].items())


def test_compiled_network_learns_the_same_under_the_same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    in_place = nn.Module.compile
    # eager: traced and called as any other, without the minutes of a C++ compiler
    monkeypatch.setattr(nn.Module, "compile", lambda network: in_place(network, backend="eager"))
    compiled, plain = _learner(replace(CONFIG, compile=True)), _learner()
    losses = [float(learner.step(0, NUM_STEPS, _samples(0))) for learner in (compiled, plain)]
    assert losses[0] == pytest.approx(losses[1])
    assert compiled.weights().keys() == plain.weights().keys()
    for name, value in plain.weights().items():
        torch.testing.assert_close(compiled.weights()[name], value)
    assert compiled.validate([_samples(1)]) == pytest.approx(plain.validate([_samples(1)]))


def test_frozen_levels_keep_their_weights_and_the_rest_learns() -> None:
    objective = Objective.of(network_config("cam"), CLASS_NAMES)
    for num_levels in (2, 5):
        learner = Learner(objective, replace(CONFIG, frozen_levels=num_levels, ema_decay=0.5), CPU)
        before = learner.weights()
        learner.step(0, NUM_STEPS, _samples(0))
        after = learner.weights()
        moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
        assert "classifier.weight" in moved
        assert not any(name.startswith("backbone.timm_model.conv_stem") for name in moved)
        assert any(name.startswith("backbone.") for name in moved) == (num_levels < 5)
    with pytest.raises(
        ConfigError, match=r"training.frozen_levels must be from 0 to 5, the number of levels of the backbone, got 9"
    ):
        Learner(objective, replace(CONFIG, frozen_levels=9), CPU)
