"""What the three training jobs have in common: claim, fit, weights, summary."""

from __future__ import annotations

import time
from typing import Any

from engine.cluster import connected
from engine.config import to_dict
from engine.errors import ConfigError
from engine.objectives import Objective
from engine.progress import Meter
from engine.stages.networks import NetworkConfig, save_network
from engine.stages.sample_order import num_steps
from engine.stages.samples import SampleSource
from engine.storage.filesystem import absolute, delete_folder, exists, join
from engine.storage.run_record import WORK_FOLDER, read_json, write_json
from engine.training import TrainingProgress, fit
from jobs.options import DataOptions
from jobs.shard_job import Claimed

WEIGHTS = "weights.safetensors"
SUMMARY = "summary.json"


def training_settings(name: str, config: NetworkConfig) -> dict[str, Any]:
    """What of a network's settings decides its weights: all but how it is used afterwards."""
    values = to_dict(config)
    del values["inference"]
    return {name: values}


def train(options: DataOptions, claimed: Claimed, config: NetworkConfig, source: SampleSource) -> dict[str, Any]:
    """Fit a network and write its weights; an output that is complete is left as it is.

    Args:
        config: the network's part of the settings.
        source: what it learns from.

    Returns:
        The summary: images, steps, seconds, the last loss, and the curve.

    Raises:
        ConfigError: a step has fewer images than there are workers.
    """
    job, training = claimed.record["job"], config.training
    if training.batch_size < options.resources.num_workers:
        raise ConfigError(
            f"training.batch-size is {training.batch_size}; allowed: at least "
            f"--resources.num-workers {options.resources.num_workers}"
        )
    summary = read_json(join(options.out, SUMMARY))
    if summary is not None and exists(join(options.out, WEIGHTS)):
        return summary
    objective = Objective.of(config, claimed.manifest.class_names)
    objective.build()  # a mistake in backbone or weights shows here, in one line, before anything starts
    num_images = sum(source.rows_of_shards)
    steps = num_steps(num_images, num_epochs=training.num_epochs, batch_size=training.batch_size)
    work = join(absolute(options.out), WORK_FOLDER, "training")
    start = time.monotonic()
    with Meter(job, steps, unit="steps") as meter, connected(options.resources) as cluster:

        def on_progress(progress: TrainingProgress) -> None:
            meter.update(
                progress.step,
                f"loss {progress.loss:.4f}, rate {progress.learning_rate:.1e}, {progress.images_per_s:.1f} images/s, "
                f"{progress.waiting:.0%} waiting",
            )

        trained = fit(
            objective,
            source,
            training,
            options.resources,
            cluster,
            folder=work,
            name=claimed.hash,
            on_progress=on_progress,
        )
    seconds = time.monotonic() - start
    save_network(join(options.out, WEIGHTS), objective.architecture, trained.state_dict)
    summary = {
        "images": num_images,
        "steps": steps,
        "seconds": round(seconds, 2),
        "images_per_s": round(steps * training.batch_size / seconds, 3),
        "loss": trained.curve[-1]["loss"],
        "curve": trained.curve,
    }
    write_json(join(options.out, SUMMARY), summary)
    delete_folder(work)
    return summary
