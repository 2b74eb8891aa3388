"""Training from the driver: results, resuming, and what it raises."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import ray
import ray.train
import torch

from engine.config import CamConfig
from engine.distributed.cluster import Cluster, connected
from engine.distributed.training import TrainingRun, _cause, _check_room, fit
from engine.errors import ConfigError, StorageError, StoreUnavailableError, TooManyErrors, WeightsError
from engine.fitting.events import TrainingProgress
from engine.fitting.objectives import Objective
from engine.fitting.samples import SampleSource
from engine.ops.affinity import balanced_loss
from engine.resources import ResourceConfig
from tests.engine.distributed.small_training import CONFIG, NUM_STEPS, OBJECTIVE, Fitted
from tests.engine.stages.examples import CLASS_NAMES, network_config, picture, png, write_samples

pytestmark = pytest.mark.slow


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


def test_ctrl_c_interrupts_as_usual_after_a_training(one_worker: Fitted) -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


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
def test_more_workers_than_this_machine_serves_are_refused(changes: dict[str, Any], most: int) -> None:
    resources = ResourceConfig(**changes)
    here = Cluster(num_cpus=6, num_gpus=1, num_cores=2, started_here=True)
    _check_room(resources, replace(here, started_here=False))  # a cluster may grow
    if not most:
        _check_room(resources, here)
        return
    with pytest.raises(ConfigError, match=rf"^resources\.\w+_workers must be at most {most} on this machine"):
        _check_room(resources, here)


def test_error_of_a_loader_reaches_the_caller_as_it_was_raised(
    tmp_path: Path, ray_session: None, quick_reports: None
) -> None:
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


def _fatal_twice(sums: torch.Tensor, counts: torch.Tensor, *, folder: Path, calls: list[int]) -> torch.Tensor:
    calls.append(1)
    deaths = len(list(folder.iterdir()))
    if len(calls) == 2 and deaths < 2:
        (folder / str(deaths)).touch()
        time.sleep(3)  # Ray loses a checkpoint that is reported right before a death
        os._exit(1)
    return balanced_loss(sums, counts)


def test_worker_failures_count_from_the_last_progress(
    tmp_path: Path, training_source: SampleSource, ray_session: None, quick_reports: None
) -> None:
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    resources = ResourceConfig(max_loader_actors=1, training_threads=1, max_worker_failures=1, checkpoint_every_steps=1)
    fatal = replace(Objective.of(OBJECTIVE, CLASS_NAMES), combine=partial(_fatal_twice, folder=deaths, calls=[]))
    with connected(resources) as cluster:
        run = TrainingRun(folder=str(tmp_path / "training"), name="spot", resources=resources, cluster=cluster)
        trained = fit(fatal, training_source, CONFIG, run, on_event=lambda _: None)
    assert len(list(deaths.iterdir())) == 2  # the second one is the second failure, but not since step 1
    assert trained.curve[-1]["step"] == NUM_STEPS


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
def test_error_for_the_user_is_found_among_its_consequences(raised: Exception, told: Exception) -> None:
    sent = pickle.loads(pickle.dumps(ray.train.WorkerGroupError("text", {0: RuntimeError("reset by peer"), 1: raised})))
    found = _cause(sent)
    assert (type(found), str(found), vars(found)) == (type(told), str(told), vars(told))
    other = ray.train.WorkerGroupError("text", {0: ZeroDivisionError("division by zero")})
    assert _cause(other) is other
