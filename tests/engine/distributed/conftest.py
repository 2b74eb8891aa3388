"""What tests of deaths and of training share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from engine.config import TrainingConfig
from engine.distributed import stream
from engine.distributed.cluster import connected
from engine.distributed.training import TrainingRun, fit
from engine.fitting.events import TrainingEvent
from engine.fitting.objectives import Objective
from engine.fitting.samples import SampleSource
from engine.imaging.codecs import encode_mask
from engine.resources import ResourceConfig
from engine.storage.subsets import is_held_out
from tests.engine.distributed.small_training import CONFIG, NUM_IMAGES, OBJECTIVE, VAL_FRACTION, Fitted
from tests.engine.stages.examples import CLASS_NAMES, picture, png, write_samples


@pytest.fixture
def few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each death of a worker takes seconds."""
    monkeypatch.setattr(stream, "TRIES", 2)


@pytest.fixture(scope="session")
def training_source(tmp_path_factory: pytest.TempPathFactory) -> SampleSource:
    """Nine images; the seeds of five are all background, so that they have no negative pair."""
    seeds = [np.random.default_rng(number).integers(0, 3, (8, 9)).astype(np.uint8) for number in range(NUM_IMAGES)]
    for number in (0, 2, 3, 6, 7):
        seeds[number][:] = 0
    pictures = [png(picture(64, 72, number)) for number in range(NUM_IMAGES)]
    whole = write_samples(tmp_path_factory.mktemp("samples"), pictures, {"seed": [encode_mask(seed) for seed in seeds]})
    held_out = [number for number in range(NUM_IMAGES) if is_held_out(f"{number}.png", VAL_FRACTION)]
    counts = tuple(sum(number // 3 == shard for number in held_out) for shard in range(3))
    assert sum(counts) == 2
    left = tuple(3 - count for count in counts)
    return replace(whole, rows_of_shards=left, held_out_of_shards=counts, val_fraction=VAL_FRACTION)


@pytest.fixture(scope="session")
def fitted(
    training_source: SampleSource, tmp_path_factory: pytest.TempPathFactory, ray_session: None, quick_reports: None
) -> Callable[..., Fitted]:
    folder = str(tmp_path_factory.mktemp("training"))

    def train(name: str, *, num_workers: int = 1, config: TrainingConfig = CONFIG) -> Fitted:
        resources = ResourceConfig(
            num_workers=num_workers, min_workers=1, training_threads=1, max_loader_actors=1, checkpoint_every_steps=1
        )
        said: list[TrainingEvent] = []
        with connected(resources) as cluster:
            run = TrainingRun(folder=folder, name=name, resources=resources, cluster=cluster)
            trained = fit(Objective.of(OBJECTIVE, CLASS_NAMES), training_source, config, run, on_event=said.append)
        return trained, said

    return train


@pytest.fixture(scope="session")
def one_worker(fitted: Callable[..., Fitted]) -> Fitted:
    return fitted("one")
