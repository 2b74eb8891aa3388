"""The training loop, on one worker and on two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.errors import ConfigError
from engine.fitting.events import TrainingProgress, TrainingStarted, TrainingValidated
from engine.fitting.samples import LoadSamples, SampleSource
from engine.ops.affinity import label_planes
from tests.engine.distributed.small_training import CONFIG, NUM_STEPS, OBJECTIVE, Fitted

pytestmark = pytest.mark.slow


def test_training_tells_its_start_its_progress_and_its_scores(one_worker: Fitted) -> None:
    trained, said = one_worker
    assert said[0] == TrainingStarted(step=0, num_steps=NUM_STEPS, num_workers=1)
    assert [event.step for event in said if isinstance(event, TrainingProgress)][-1] == NUM_STEPS
    validated = [event for event in said if isinstance(event, TrainingValidated)]
    assert [{"step": event.step, **event.scores} for event in validated] == trained.validation
    assert [event.step for event in validated] == [2, 3]
    assert validated[0].is_best
    assert trained.best is not None
    scores = [event.scores["pair_accuracy"] for event in validated]
    assert trained.best.score == max(scores)
    assert trained.best.step == validated[scores.index(max(scores))].step
    same = all(torch.equal(value, trained.weights[name]) for name, value in trained.best.weights.items())
    assert same == (trained.best.step == NUM_STEPS)


def test_two_workers_end_with_the_weights_of_one_though_one_of_them_has_no_negative_pair(
    fitted: Callable[..., Fitted], one_worker: Fitted, training_source: SampleSource
) -> None:
    negatives = [
        [
            bool(label_planes(torch.from_numpy(batch["target"]), OBJECTIVE.radius, 255).negative.any())
            for rank in range(2)
            for batch in [LoadSamples(training_source, CONFIG, rank=rank, num_workers=2)(_step(step))]
        ]
        for step in range(NUM_STEPS)
    ]
    assert any(set(ranks) == {True, False} for ranks in negatives)

    one, _ = one_worker
    two, said = fitted("two", num_workers=2)
    assert said[0] == TrainingStarted(step=0, num_steps=NUM_STEPS, num_workers=2)
    for name, value in one.weights.items():
        torch.testing.assert_close(two.weights[name], value, rtol=1e-3, atol=1e-5)
    assert two.curve[-1]["loss"] == pytest.approx(one.curve[-1]["loss"], rel=1e-3)
    for mine, theirs in zip(two.validation, one.validation, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-2)


def test_training_whose_loss_becomes_nan_ends_with_an_error_that_names_its_learning_rates(
    fitted: Callable[..., Fitted],
) -> None:
    wild = replace(CONFIG, learning_rate=1e30, head_learning_rate=1e30, clip_norm=1e30)
    with pytest.raises(ConfigError, match=r"head_learning_rate 1e\+30: the loss became NaN at step "):
        fitted("wild", num_workers=2, config=wild)


def _step(step: int) -> dict[str, np.ndarray]:
    return {"step": np.array([step]), "held_out": np.array([False])}
