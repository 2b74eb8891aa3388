"""One loop for the three networks, on one worker and on two."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.cluster import connected
from engine.config import ResourceConfig, TrainingConfig
from engine.objectives import Objective
from engine.records import encode_mask
from engine.stages.samples import SampleSource
from engine.training import Trained, TrainingProgress, fit
from tests.engine.stages.examples import CLASS_NAMES, network_config, picture, png, write_samples

CONFIG = replace(
    network_config("affinity").training,
    num_epochs=2,
    batch_size=4,
    crop_px=64,
    long_side_px=(64, 96),
    learning_rate=1e-3,
    head_learning_rate=1e-2,
    optimizer="sgd",
    weight_decay=0.0,
)
Fit = Callable[..., tuple[Trained, list[TrainingProgress], float]]


@pytest.fixture(scope="module", autouse=True)
def quick_reports() -> Iterator[None]:
    """Ray Train looks more often whether a worker has reported: seconds a training, which is all that these last."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> SampleSource:
    seeds = [encode_mask(np.random.default_rng(number).integers(0, 3, (8, 9)).astype(np.uint8)) for number in range(6)]
    seeds[2] = encode_mask(np.full((8, 9), 255, dtype=np.uint8))
    pictures = [png(picture(64, 72, number)) for number in range(6)]
    return write_samples(tmp_path_factory.mktemp("samples"), pictures, {"seed": list(seeds)})


@pytest.fixture(scope="module")
def fitted(source: SampleSource, tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Fit:
    folder = str(tmp_path_factory.mktemp("training"))

    def run(name: str, *, num_workers: int = 1, config: TrainingConfig = CONFIG):  # type: ignore[no-untyped-def]
        resources = ResourceConfig(num_workers=num_workers, training_threads=1, max_loader_actors=1)
        said: list[TrainingProgress] = []
        start = time.monotonic()
        with connected(resources) as cluster:
            trained = fit(
                Objective.of(network_config("affinity"), CLASS_NAMES),
                source,
                config,
                resources,
                cluster,
                folder=folder,
                name=name,
                on_progress=said.append,
            )
        return trained, said, time.monotonic() - start

    return run


@pytest.fixture(scope="module")
def one_worker(fitted: Fit) -> tuple[Trained, list[TrainingProgress], float]:
    return fitted("one")


@pytest.mark.slow
def test_training_changes_the_weights_and_a_finished_run_is_not_done_again(
    fitted: Fit, one_worker: tuple[Trained, list[TrainingProgress], float]
) -> None:
    trained, said, first_s = one_worker
    torch.manual_seed(CONFIG.rng_seed)
    start = Objective.of(network_config("affinity"), CLASS_NAMES).build().state_dict()
    assert trained.state_dict.keys() == start.keys()
    assert all(bool(torch.isfinite(value).all()) for value in trained.state_dict.values())
    assert not torch.equal(trained.state_dict["mix.weight"], start["mix.weight"])
    assert not torch.equal(
        trained.state_dict["backbone.timm_model.conv_stem.weight"], start["backbone.timm_model.conv_stem.weight"]
    )
    norms = [name for name in start if "running" in name]
    assert norms
    assert all(torch.equal(trained.state_dict[name], start[name]) for name in norms)  # frozen

    last = trained.curve[-1]
    assert (last["step"], last["num_steps"]) == (3, 3)
    assert last["learning_rate"] == pytest.approx(CONFIG.head_learning_rate * (1 / 3) ** CONFIG.poly_power)
    assert np.isfinite(last["loss"])
    assert said[-1].step == 3

    again, _, again_s = fitted("one")
    assert again_s < first_s
    assert again.curve == trained.curve
    for name, value in trained.state_dict.items():
        torch.testing.assert_close(again.state_dict[name], value, rtol=0, atol=0)


@pytest.mark.slow
def test_two_workers_end_with_the_weights_of_one(
    fitted: Fit, one_worker: tuple[Trained, list[TrainingProgress], float]
) -> None:
    one, _, _ = one_worker
    two, _, _ = fitted("two", num_workers=2)
    for name, value in one.state_dict.items():
        torch.testing.assert_close(two.state_dict[name], value, rtol=1e-3, atol=1e-5)
    assert two.curve[-1]["loss"] == pytest.approx(one.curve[-1]["loss"], rel=1e-3)
