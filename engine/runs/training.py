"""What the three training jobs have in common: claim, held-out images, fit, weights, curves, summary."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, TypeVar

from engine.distributed.cluster import connected
from engine.config import AffinityConfig, CamConfig, SegmentationConfig, TrainingConfig
from engine.errors import ConfigError, ImageError, ManifestError, StorageError, StoreUnavailableError
from engine.fitting.curves import draw_curves
from engine.fitting.events import TrainingEvent, TrainingStarted, TrainingValidated
from engine.fitting.learner import freeze_levels
from engine.fitting.objectives import Objective
from engine.plain_settings import to_dict
from engine.runs.progress import Meter
from engine.networks import NetworkConfig, check_attention, save_network
from engine.fitting.samples import LoadSamples, SampleSource, kept_rows, steps_of
from engine.storage.event_log import EventLog
from engine.storage.filesystem import absolute, delete_folder, exists, join, write_bytes
from engine.storage.manifest import Manifest
from engine.storage.run_record import WORK_FOLDER, read_json, write_json
from engine.storage.shards import read_shard
from engine.storage.weights import BEST_WEIGHTS_NAME, WEIGHTS_NAME
from engine.distributed.training import Trained, fit
from engine.runs.options import DataOptions, TrainOptions
from engine.runs.shards import SUMMARY, Claimed

CURVES = "curves.png"
EVENTS = "tensorboard"
"""Folder of TensorBoard's event files."""
WRITES = (BEST_WEIGHTS_NAME, CURVES, EVENTS)
"""What a training job writes beside weights and summary."""

Network = TypeVar("Network", CamConfig, AffinityConfig, SegmentationConfig)


def held_out(config: Network, options: TrainOptions) -> Network:
    """A network's settings with ``--val-fraction``, where it is given."""
    if not options.val_fraction:
        return config
    return replace(config, training=replace(config.training, val_fraction=options.val_fraction))


def training_settings(name: str, config: NetworkConfig) -> dict[str, Any]:
    """What of a network's settings decides its weights: all but how it is used afterwards."""
    values = to_dict(config)
    del values["inference"]
    return {name: values}


def train(options: DataOptions, claimed: Claimed, config: NetworkConfig, source: SampleSource) -> dict[str, Any]:
    """Fit a network and write its weights; an output that is complete is left as it is.

    Args:
        config: the network's part of the settings.
        source: what it learns from, before images are held out.

    Returns:
        The summary: images, steps, seconds, the last loss, the curve, and with held-out images the scores.

    Raises:
        ConfigError: a step has fewer images than there are workers, or no image is left to learn from or to score.
    """
    training, out = config.training, options.out
    if training.batch_size < options.resources.num_workers:
        raise ConfigError(
            f"training.batch-size is {training.batch_size}; allowed: at least "
            f"--resources.num-workers {options.resources.num_workers}"
        )
    summary = read_json(join(out, SUMMARY))
    if summary is not None and exists(join(out, WEIGHTS_NAME)):
        return summary
    objective = Objective.of(config, claimed.manifest.class_names)
    network = objective.build()  # a mistake in backbone or weights shows here, in one line, before anything starts
    freeze_levels(network, training)
    if isinstance(config, CamConfig):
        check_attention(network, objective.architecture, config.inference)
    source = split(source, claimed.manifest, training.val_fraction)
    start = time.monotonic()
    trained, begun = _fitted(options, claimed, objective, config, source)
    seconds = time.monotonic() - start
    save_network(join(out, WEIGHTS_NAME), objective.architecture, trained.weights)
    if trained.best is not None:
        save_network(join(out, BEST_WEIGHTS_NAME), objective.architecture, trained.best.weights)
    write_bytes(join(out, CURVES), draw_curves(trained.curve, trained.validation))
    last = trained.curve[-1]
    summary = {
        "images": sum(source.rows_of_shards),
        "steps": int(last["num_steps"]),
        "seconds": round(seconds, 2),
        "images_per_s": round((last["num_steps"] - begun) * training.batch_size / seconds, 3),
        "loss": last["loss"],
        "curve": trained.curve,
    }
    if trained.best is not None:
        best = {"step": trained.best.step, "score": trained.best.score}
        summary |= {"held_out": sum(source.held_out_of_shards), "validation": trained.validation, "best": best}
    write_json(join(out, SUMMARY), summary)
    delete_folder(_work(options))
    return summary


def split(source: SampleSource, manifest: Manifest, fraction: float) -> SampleSource:
    """The same samples without unsure masks, of which a fraction of the images is held out by the hash of their ids.

    Raises:
        ConfigError: none is left to learn from, or none to score.
    """
    if not (fraction or source.min_confidence):
        return source
    source = replace(source, val_fraction=fraction)
    learned: list[int] = []
    held_out: list[int] = []
    for shard in range(manifest.num_shards):
        image_ids, confidences = manifest.read_shard(shard)["image_id"], None
        if source.min_confidence:
            confidences = read_shard(source.shards, shard, ("confidence",)).column("confidence").to_pylist()
        learned.append(len(kept_rows(source, image_ids, confidences, held_out=False)))
        held_out.append(len(kept_rows(source, image_ids, confidences, held_out=True)))
    if fraction and (not sum(held_out) or not sum(learned)):
        raise ConfigError(
            f"--val-fraction is {fraction:g}, which holds out {sum(held_out)} of {manifest.num_rows} images "
            f"and leaves {sum(learned)} to learn from; allowed: a fraction that leaves some on both sides, or 0 (off)"
        )
    if not sum(learned):
        raise ConfigError(
            f"--min-confidence is {source.min_confidence:g}, which no mask reaches; allowed: less, or 0 (off)"
        )
    return replace(source, rows_of_shards=tuple(learned), held_out_of_shards=tuple(held_out))


def _check_images(options: DataOptions, source: SampleSource, config: TrainingConfig) -> None:
    """Read one image, so that wrong paths are said before workers start, fail and are started again.

    Raises:
        ManifestError: many images in a row cannot be used.
        StorageError: their store does not answer, or refuses the account.
    """
    try:
        LoadSamples(source, config, rank=0, num_workers=1).first()
    except ImageError as error:
        raise ManifestError(f"--data '{options.data}': {str(error).partition(': ')[2]}") from error
    except StoreUnavailableError as error:
        raise StorageError(f"--data: {error}") from error


def _work(options: DataOptions) -> str:
    return join(absolute(options.out), WORK_FOLDER, "training")


def _fitted(
    options: DataOptions, claimed: Claimed, objective: Objective, config: NetworkConfig, source: SampleSource
) -> tuple[Trained, int]:
    """Train with words on the screen and in TensorBoard's files; also the step that this process began at."""
    training = config.training
    starts: list[int] = []  # one more each time that a worker is lost
    with (
        Meter(claimed.record["job"], steps_of(source, training), unit="steps") as meter,
        EventLog(join(options.out, EVENTS)) as log,
        connected(options.resources) as cluster,
    ):
        if cluster.started_here:  # on another the images may lie where only its nodes find them
            _check_images(options, source, training)

        def on_event(event: TrainingEvent) -> None:
            if isinstance(event, TrainingStarted):
                starts.append(event.step)
                if event.step:
                    meter.go_on(event.step)
            elif isinstance(event, TrainingValidated):
                log.add(event.step, {f"validation/{name}": value for name, value in event.scores.items()})
                scores = ", ".join(f"{name} {value:.4f}" for name, value in event.scores.items())
                meter.say(f"step {event.step}, held-out images: {scores}{' (best)' if event.is_best else ''}")
            else:
                values = {name: getattr(event, name) for name in ("loss", "learning_rate", "images_per_s", "waiting")}
                log.add(event.step, {f"training/{name}": value for name, value in values.items()})
                meter.update(
                    event.step,
                    f"loss {event.loss:.4f}, rate {event.learning_rate:.1e}, {event.images_per_s:.1f} images/s, "
                    f"{event.waiting:.0%} waiting",
                )

        trained = fit(
            objective,
            source,
            training,
            options.resources,
            cluster,
            folder=_work(options),
            name=claimed.hash,
            on_event=on_event,
        )
    return trained, starts[0] if starts else 0  # the words of it may be lost
