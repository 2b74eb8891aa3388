"""Train a network: hold out images, fit, and write weights, curves and a summary."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from engine.config import CamConfig, NetworkConfig, TrainingConfig
from engine.distributed.cluster import connected
from engine.distributed.training import Trained, TrainingRun, fit
from engine.errors import ConfigError, ManifestError, StorageError, StoreUnavailableError, TooManyErrors, within
from engine.fitting.curves import draw_curves
from engine.fitting.events import TrainingEvent, TrainingStarted, TrainingValidated
from engine.fitting.learner import freeze_levels
from engine.fitting.objectives import Objective
from engine.fitting.samples import LoadSamples, SampleSource, kept_rows, steps_of
from engine.inspection.findings import overview
from engine.networks import check_attention, save_network
from engine.progress import SKIPPED, Meter, doing, job
from engine.runs.images import ImageSet
from engine.runs.inspection import inspect_tags
from engine.runs.options import DataOptions
from engine.runs.output import SUMMARY, Claimed, claim
from engine.storage.event_log import EventLog
from engine.storage.filesystem import absolute, delete_folder, exists, join, write_bytes
from engine.storage.manifest import Manifest
from engine.storage.run_record import WORK_FOLDER, read_json, write_json
from engine.storage.shards import read_shard
from engine.storage.weights import BEST_WEIGHTS_NAME, WEIGHTS_NAME

CURVES = "curves.png"
EVENTS = "tensorboard"
"""Folder of TensorBoard event files."""
ROWS_PER_SHARD = 1024
"""Rows per shard of the manifest, unless the training also reads an earlier job's shards."""
WRITES = (BEST_WEIGHTS_NAME, CURVES, EVENTS)
"""What a training job writes besides weights and summary."""

MakeObjective = Callable[[NetworkConfig, tuple[str, ...]], Objective]
"""Creates the objective from a network's settings and the class names; :meth:`Objective.of` by default."""


def training_paths(name: str, network: NetworkConfig) -> tuple[str, ...]:
    """List the dotted paths of the settings that affect a network's weights, i.e. all but its inference settings."""
    own = (f"{name}.{item.name}" for item in fields(network) if item.name != "inference")
    return (*own, "val_fraction")


def train(
    name: str,
    options: DataOptions,
    images: ImageSet,
    config: NetworkConfig,
    samples: Callable[..., SampleSource],
    *,
    inputs: Mapping[str, str],
    made: Claimed | None = None,
    needs_tags: bool = True,
    make_objective: MakeObjective = Objective.of,
) -> dict[str, Any]:
    """Train a network and write ``weights.safetensors``, ``run.json`` and ``summary.json`` to the output folder.

    A complete output is kept as it is.

    Args:
        name: Name of the network's part of the settings.
        config: That part.
        samples: Creates the sample source from the properties of the claimed manifest.
        inputs: As for :func:`engine.runs.output.claim`.
        made: An earlier job's output to train on, besides the images.
        needs_tags: Whether a manifest without tags is an error.
        make_objective: Creates the training objective.

    Returns:
        The summary: images, steps, seconds, final loss, loss curve, and scores if images are held out.

    Raises:
        UserError: The manifest or the output folder cannot be used.
        ConfigError: The batch size is smaller than the number of workers, or no image is left to train or validate on.
    """
    claimed = claim(
        f"train_{name}",
        options,
        images,
        uses=training_paths(name, config),
        inputs=inputs,
        rows_per_shard=ROWS_PER_SHARD if made is None else made.manifest.rows_per_shard,
        class_names=None if made is None else made.manifest.class_names,
        writes=WRITES,
        needs_tags=needs_tags,
    )
    source = samples(
        manifest=join(absolute(options.out), WORK_FOLDER),
        rows_of_shards=claimed.manifest.rows_of_shards,
        num_classes=len(claimed.manifest.class_names),
        max_pixels=options.max_pixels,
    )
    training, out, workers = config.training, options.out, options.settings.resources.num_workers
    summary = read_json(join(out, SUMMARY))
    if summary is not None and exists(join(out, WEIGHTS_NAME)):
        job(claimed.record["job"]).say(SKIPPED)
        return summary
    if isinstance(config, CamConfig) and not images.is_inspected:
        tags, findings = inspect_tags(claimed.manifest, options)
        for line in (overview(tags), *findings):
            job("data").say(str(line))
    objective = make_objective(config, claimed.manifest.class_names)
    if training.batch_size < workers:
        raise ConfigError(
            f"must be at least resources.num_workers {workers}, got {training.batch_size}",
            thing=f"{name}.training.batch_size",
        )
    with doing("loading network"):
        network = objective.build()  # reports errors in backbone or weights before Ray starts
    if isinstance(config, CamConfig):
        check_attention(network, objective.architecture, config.inference)
    source = split(source, claimed.manifest, options.settings.val_fraction)
    start = time.monotonic()
    with within(name):
        freeze_levels(network, training)
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
    if claimed.manifest.ignored_tags:
        summary["ignored_tags"] = claimed.manifest.ignored_tags
    if trained.best is not None:
        best = {"step": trained.best.step, "score": trained.best.score}
        summary |= {"held_out": sum(source.held_out_of_shards), "validation": trained.validation, "best": best}
    write_json(join(out, SUMMARY), summary)
    delete_folder(_work(options))
    return summary


def split(source: SampleSource, manifest: Manifest, fraction: float) -> SampleSource:
    """Drop masks of low confidence, and hold out a fraction of the images by the hash of their ids.

    Raises:
        ConfigError: No image is left to train on, or none to validate on.
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
            f"{fraction:g} holds out {sum(held_out)} of {manifest.num_rows} images and leaves {sum(learned)} to train "
            "on; use a value that leaves images in both parts, or 0 to hold out none",
            thing="val_fraction",
        )
    if not sum(learned):
        raise ConfigError(
            f"{source.min_confidence:g}: no mask reaches it; use a lower value", thing="segmentation.min_confidence"
        )
    return replace(source, rows_of_shards=tuple(learned), held_out_of_shards=tuple(held_out))


def _check_images(options: DataOptions, source: SampleSource, config: TrainingConfig) -> None:
    """Read one image, to report wrong paths before workers start, fail and restart.

    Raises:
        ManifestError: Too many consecutive images cannot be used.
        StorageError: Their store does not respond or rejects the credentials.
    """
    try:
        LoadSamples(source, config, rank=0, num_workers=1).first()
    except TooManyErrors as error:
        raise ManifestError(f"'{options.data}': {error}", thing="data") from error
    except StoreUnavailableError as error:
        raise StorageError(f"cannot be read: {error}", thing="data") from error


def _work(options: DataOptions) -> str:
    return join(absolute(options.out), WORK_FOLDER, "training")


def _fitted(
    options: DataOptions, claimed: Claimed, objective: Objective, config: NetworkConfig, source: SampleSource
) -> tuple[Trained, int]:
    """Train with progress on the screen and in TensorBoard; also returns the step that this process started at."""
    training = config.training
    starts: list[int] = []  # one entry for each start, also after a worker was lost
    with (
        EventLog(join(options.out, EVENTS)) as log,
        connected(options.settings.resources) as cluster,
        Meter(claimed.record["job"], steps_of(source, training), unit="steps") as meter,
    ):
        if cluster.started_here:  # on a cluster that was joined, images may be visible to its nodes only
            _check_images(options, source, training)

        def on_event(event: TrainingEvent) -> None:
            if isinstance(event, TrainingStarted):
                starts.append(event.step)
                if event.step:
                    meter.resume_at(event.step)
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

        run = TrainingRun(
            folder=_work(options), name=claimed.hash, resources=options.settings.resources, cluster=cluster
        )
        trained = fit(objective, source, training, run, on_event=on_event)
    return trained, starts[0] if starts else 0  # the event may be lost
