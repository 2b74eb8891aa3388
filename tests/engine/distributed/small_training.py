"""A training of AffinityNet that takes three steps."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from engine.config import AffinityConfig
from engine.distributed.training import Trained
from engine.fitting.events import TrainingEvent
from tests.engine.stages.examples import network_config

OBJECTIVE = cast(AffinityConfig, network_config("affinity"))
CONFIG = replace(
    OBJECTIVE.training,
    num_epochs=2,
    batch_size=4,
    crop_px=64,
    long_side_px=(64, 96),
    learning_rate=1e-3,
    head_learning_rate=1e-2,
    optimizer="sgd",
    weight_decay=0.0,
)
NUM_IMAGES, NUM_STEPS, VAL_FRACTION = 9, 3, 0.35
Fitted = tuple[Trained, list[TrainingEvent]]
