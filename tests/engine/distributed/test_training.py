"""One loop for the three networks, on one worker and on two."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import ray
import ray.train
import torch

from engine.config import AffinityConfig, CamConfig, TrainingConfig
from engine.distributed.cluster import Cluster, connected
from engine.distributed.training import Trained, TrainingRun, _cause, _check_room, fit
from engine.errors import ConfigError, StorageError, StoreUnavailableError, TooManyErrors, WeightsError
from engine.fitting.events import TrainingEvent, TrainingProgress, TrainingStarted, TrainingValidated
from engine.fitting.objectives import Objective
from engine.fitting.samples import LoadSamples, SampleSource
from engine.imaging.codecs import encode_mask
from engine.ops.affinity import label_planes
from engine.resources import ResourceConfig
from engine.storage.subsets import is_held_out
from tests.engine.stages.examples import CLASS_NAMES, network_config, picture, png, write_samples

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

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def quick_reports() -> Iterator[None]:
    """Ray Train looks more often whether a worker has reported: seconds a training, which is all that these last."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> SampleSource:
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


@pytest.fixture(scope="module")
def fitted(source: SampleSource, tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Callable[..., Fitted]:
    folder = str(tmp_path_factory.mktemp("training"))

    def train(name: str, *, num_workers: int = 1, config: TrainingConfig = CONFIG) -> Fitted:
        resources = ResourceConfig(
            num_workers=num_workers, min_workers=1, training_threads=1, max_loader_actors=1, checkpoint_every_steps=1
        )
        said: list[TrainingEvent] = []
        with connected(resources) as cluster:
            run = TrainingRun(folder=folder, name=name, resources=resources, cluster=cluster)
            trained = fit(Objective.of(OBJECTIVE, CLASS_NAMES), source, config, run, on_event=said.append)
        return trained, said

    return train


@pytest.fixture(scope="module")
def one_worker(fitted: Callable[..., Fitted]) -> Fitted:
    return fitted("one")


def test_training_changes_the_weights_and_a_finished_run_is_not_done_again(
    fitted: Callable[..., Fitted], one_worker: Fitted
) -> None:
    trained, _ = one_worker
    torch.manual_seed(CONFIG.rng_seed)
    start = Objective.of(OBJECTIVE, CLASS_NAMES).build().state_dict()
    assert trained.weights.keys() == start.keys()
    assert all(bool(torch.isfinite(value).all()) for value in trained.weights.values())
    assert not torch.equal(trained.weights["mix.weight"], start["mix.weight"])
    stem = "backbone.timm_model.conv_stem.weight"
    assert not torch.equal(trained.weights[stem], start[stem])
    norms = [name for name in start if "running" in name]
    assert norms
    assert all(torch.equal(trained.weights[name], start[name]) for name in norms)  # frozen

    last = trained.curve[-1]
    assert (last["step"], last["num_steps"]) == (NUM_STEPS, NUM_STEPS)
    assert last["learning_rate"] == pytest.approx(CONFIG.head_learning_rate * (1 / 3) ** CONFIG.poly_power)
    assert np.isfinite(last["loss"])

    again, said = fitted("one")
    assert not [event for event in said if isinstance(event, TrainingProgress)]
    assert again.curve == trained.curve
    for name, value in trained.weights.items():
        torch.testing.assert_close(again.weights[name], value, rtol=0, atol=0)


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
    fitted: Callable[..., Fitted], one_worker: Fitted, source: SampleSource
) -> None:
    negatives = [
        [
            bool(label_planes(torch.from_numpy(batch["target"]), OBJECTIVE.radius, 255).negative.any())
            for rank in range(2)
            for batch in [LoadSamples(source, CONFIG, rank=rank, num_workers=2)(_step(step))]
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


@pytest.mark.parametrize(
    ("changes", "most"),
    [
        ({"num_workers": 4}, 0),
        ({"num_workers": 5}, 4),
        ({"num_workers": 5, "min_workers": 4}, 0),
        ({"num_workers": 2, "num_gpus": 1.0}, 1),
        ({"num_workers": 4, "num_gpus": 0.25}, 0),
    ],
)
def test_more_workers_than_the_machine_serves_are_refused_where_they_would_wait_for_ever(
    changes: dict[str, Any], most: int
) -> None:
    resources = ResourceConfig(**changes)
    here = Cluster(num_cpus=6, num_gpus=1, num_cores=2, started_here=True)
    _check_room(resources, replace(here, started_here=False))  # a cluster may grow
    if not most:
        _check_room(resources, here)
        return
    with pytest.raises(ConfigError, match=rf"^resources\.\w+_workers must be at most {most} on this machine"):
        _check_room(resources, here)


def test_training_whose_loss_is_no_number_any_more_ends_with_its_rates_and_keeps_nothing(
    fitted: Callable[..., Fitted],
) -> None:
    wild = replace(CONFIG, learning_rate=1e30, head_learning_rate=1e30, clip_norm=1e30)
    with pytest.raises(ConfigError, match=r"head_learning_rate 1e\+30: the loss became NaN at step 1"):
        fitted("wild", num_workers=2, config=wild)


def test_images_that_are_gone_are_one_sentence(source: SampleSource, tmp_path: Path, ray_session: None) -> None:
    pictures = [png(picture(64, 72, number)) for number in range(3)]
    gone = write_samples(tmp_path, pictures)
    for image in tmp_path.glob("*.png"):
        image.unlink()
    resources = ResourceConfig(max_loader_actors=1, training_threads=1, max_worker_failures=0)
    objective = Objective.of(cast(CamConfig, network_config("cam")), CLASS_NAMES)
    with connected(resources) as cluster:
        run = TrainingRun(folder=str(tmp_path / "training"), name="gone", resources=resources, cluster=cluster)
        with pytest.raises(TooManyErrors, match=r"^20 images in a row .* the last: '.*\.png' does not exist$"):
            fit(objective, gone, CONFIG, run, on_event=lambda _: None)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (WeightsError("'cam' is damaged"), WeightsError("'cam' is damaged")),
        (ConfigError("must be above 0", thing="cam.stride"), ConfigError("must be above 0", thing="cam.stride")),
        (
            StoreUnavailableError("'s3://bucket/a.jpg' failed: SLOW_DOWN"),
            StorageError("'s3://bucket/a.jpg' failed: SLOW_DOWN; checkpoints are kept; rerun the command to resume"),
        ),
    ],
)
def test_error_for_the_user_is_found_among_those_that_it_caused(raised: Exception, told: Exception) -> None:
    sent = pickle.loads(pickle.dumps(ray.train.WorkerGroupError("text", {0: RuntimeError("reset by peer"), 1: raised})))
    found = _cause(sent)
    assert (type(found), str(found), vars(found)) == (type(told), str(told), vars(told))
    other = ray.train.WorkerGroupError("text", {0: ZeroDivisionError("division by zero")})
    assert _cause(other) is other


def _step(step: int) -> dict[str, np.ndarray]:
    return {"step": np.array([step]), "held_out": np.array([False])}
