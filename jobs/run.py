"""Run the whole chain on one manifest, from tags to masks and a report: ``python -m jobs.run``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypedDict, TypeVar

from engine.config import NetworkConfig, SegmentationConfig, Settings
from engine.distributed.cluster import connected
from engine.errors import OtherRunError, OutputError, within
from engine.fitting.learner import freeze_levels
from engine.fitting.objectives import Objective
from engine.progress import Chain, Planned, doing
from engine.runs.evaluation import Scores
from engine.runs.images import ImageSet
from engine.runs.inspection import INSPECTION
from engine.runs.options import JobOptions, PresetChoice, ShardOptions, UnknownTags, Uses
from engine.runs.output import SUMMARY, run_record
from engine.runs.stage_scores import EARLIER_ROUND, SEGMENTED, print_scores, score_rounds
from engine.runs.training import MakeObjective
from engine.runs.truth_check import check_truth
from engine.storage.filesystem import exists, join
from engine.storage.probes import check_writable
from engine.storage.run_record import RECORD_NAME, WORK_FOLDER, read_record, write_json
from engine.storage.shards import committed_shards
from engine.storage.weights import WEIGHTS_NAME
from jobs import inspect, label, make_seeds, report, segment, train_affinity, train_cam, train_segmentation
from jobs.cli.command import main
from jobs.evaluate import RESULT

Options = TypeVar("Options", bound=JobOptions)


@dataclass(frozen=True, kw_only=True, slots=True)
class Run(ShardOptions):
    """Train the networks, label the images and write a report; completed steps are skipped."""

    truth: str = ""
    """True masks, used only to score each stage: a folder of PNGs named by image stem, or mask shards."""
    settings: Annotated[Settings, Uses.everything()]


class _Shared(TypedDict):
    """The run's options that every step takes."""

    preset: PresetChoice
    data: str
    classes: str
    unknown_tags: UnknownTags
    max_pixels: int
    allow_outside: bool
    image_column: str
    tags_column: tuple[str, ...]
    tag_separator: str
    settings: Settings


class _Errors(TypedDict):
    """The run's options that every step with one row per image also takes."""

    max_error_fraction: float
    retry_errors: bool
    price_per_core_hour: float


def run(config: Run, *, make_objective: MakeObjective = Objective.of) -> dict[str, Any]:
    """Run the chain into ``inspection/ cam/ seeds/ affinity/ masks/ segmentation/ report.html summary.json``."""
    check_writable(config.out)
    settings = config.settings
    with doing("loading networks"):
        _check_networks(config)
    images = ImageSet(config)
    if config.truth:  # what is wrong with it is reported now, not after the training
        with doing("checking the true masks"):
            check_truth(
                config.data,
                config.truth,
                images.class_names,
                max_pixels=config.max_pixels,
                allow_outside=config.allow_outside,
            )
    shared: _Shared = {
        "preset": config.preset,
        "data": config.data,
        "classes": config.classes,
        "unknown_tags": config.unknown_tags,
        "max_pixels": config.max_pixels,
        "allow_outside": config.allow_outside,
        "image_column": config.image_column,
        "tags_column": config.tags_column,
        "tag_separator": config.tag_separator,
        "settings": settings,
    }
    errors: _Errors = {
        "max_error_fraction": config.max_error_fraction,
        "retry_errors": config.retry_errors,
        "price_per_core_hour": config.price_per_core_hour,
    }
    cam, seeds, affinity = (join(config.out, name) for name in ("cam", "seeds", "affinity"))
    steps = _Steps(images, Chain("run", _planned(config)), overwrite=config.overwrite)
    with steps.chain:
        with connected(settings.resources):
            inspection = inspect.Inspect(**shared, out=join(config.out, INSPECTION), predict=False)
            inspected = steps.do(INSPECTION, inspect.run, inspection)
            steps.train("cam", train_cam.run, train_cam.TrainCam(**shared, out=cam), make_objective)
            steps.do("seeds", make_seeds.run, make_seeds.MakeSeeds(**shared, **errors, out=seeds, cam=cam))
            affinity_options = train_affinity.TrainAffinity(**shared, out=affinity, seeds=seeds)
            steps.train("affinity", train_affinity.run, affinity_options, make_objective)
            maps, start = cam, cam if _starts_from_cam(settings) else ""
            for number in range(1, settings.rounds.num_rounds + 1):
                prefix = _prefix(number, settings)
                masks, segmentation = (join(config.out, prefix + name) for name in ("masks", "segmentation"))
                labeling = label.Label(
                    **shared, **errors, out=masks, cam=maps, affinity=affinity, keep_stages=_keeps_stages(masks, config)
                )
                labeled = steps.do(
                    f"{prefix}masks", label.run, labeling, afresh=replace(labeling, keep_stages=bool(config.truth))
                )
                segmentation_options = train_segmentation.TrainSegmentation(
                    **shared, out=segmentation, masks=masks, start=start
                )
                segmentation_options = replace(segmentation_options, settings=_settings_of_round(number, settings))
                steps.train(f"{prefix}segmentation", train_segmentation.run, segmentation_options, make_objective)
                maps = start = segmentation
            if config.truth:
                segmented = join(config.out, SEGMENTED)
                own = segment.SegmentImages(**shared, **errors, out=segmented, segmentation=segmentation)
                steps.do(SEGMENTED, segment.run, own)
        steps.chain.begin()
        summary, scores = _summary(config, labeled, steps.seconds)
        summary["findings"] = inspected["findings"]
        write_json(join(config.out, SUMMARY), summary)
        uses = Uses.everything().result_paths
        record = run_record("run", config, uses=uses, inputs={}, class_names=images.class_names)
        record["options"]["truth"] = config.truth
        write_json(join(config.out, RECORD_NAME), record)
        with doing("writing report"):
            report.run(
                report.Report(
                    data=config.data,
                    masks=masks,
                    truth=config.truth,
                    run_folder=config.out,
                    out=config.out,
                    allow_outside=config.allow_outside,
                ),
                scores=scores,
            )
    if config.truth:
        print_scores(summary)
    return summary


def _planned(config: Run) -> list[Planned]:
    """List the steps in order, each with its number of passes over the images."""
    settings = config.settings
    steps = [
        Planned(name=INSPECTION, kind=INSPECTION, passes=0),
        Planned(name="cam", kind="cam", passes=settings.cam.training.num_epochs),
        Planned(name="seeds", kind="seeds"),
        Planned(name="affinity", kind="affinity", passes=settings.affinity.training.num_epochs),
    ]
    num_rounds = settings.rounds.num_rounds
    for number in range(1, num_rounds + 1):
        prefix, note = _prefix(number, settings), f"round {number} of {num_rounds}"
        num_epochs = _settings_of_round(number, settings).segmentation.training.num_epochs
        steps.append(Planned(name=f"{prefix}masks", kind="masks", note=note))
        steps.append(Planned(name=f"{prefix}segmentation", kind="segmentation", passes=num_epochs, note=note))
    if config.truth:
        steps.append(Planned(name=SEGMENTED, kind="masks"))  # an overestimate: it has no walk
    return [*steps, Planned(name="report", kind="report", passes=0)]


def _summary(
    config: Run, labeled: dict[str, Any], step_seconds: dict[str, float]
) -> tuple[dict[str, Any], Scores | None]:
    """Return the content of ``summary.json`` and the last masks' scores; writes ``evaluation.json`` for each round."""
    seconds = sum(step_seconds.values())
    summary: dict[str, Any] = {
        "images": labeled["images"],
        "errors": labeled["errors"],
        "seconds": round(seconds, 2),
        "images_per_s": round(labeled["images"] / seconds, 3),
        "steps": step_seconds,
        **({"ignored_tags": labeled["ignored_tags"]} if "ignored_tags" in labeled else {}),
    }
    last_scores: Scores | None = None
    if config.truth:
        rounds = range(1, config.settings.rounds.num_rounds + 1)
        folders = [join(config.out, f"{_prefix(number, config.settings)}masks") for number in rounds]
        found, scores = score_rounds(folders, join(config.out, SEGMENTED), config.truth)
        for folder, one in scores.items():
            write_json(join(folder, WORK_FOLDER, RESULT), one.result)
        summary |= found
        last_scores = scores[folders[-1]]
    return summary, last_scores


def _prefix(number: int, settings: Settings) -> str:
    """Return the prefix of a round's folders; the last round writes directly to the output folder."""
    return "" if number == settings.rounds.num_rounds else f"{EARLIER_ROUND.format(number)}/"


def _settings_of_round(number: int, settings: Settings) -> Settings:
    """Set the number of epochs of a round's segmentation network; rounds count from 1."""
    rounds, network = settings.rounds, settings.segmentation
    if number < rounds.num_rounds or rounds.num_rounds == 1:
        return settings
    num_epochs = max(1, round(rounds.last_epoch_factor * network.training.num_epochs))
    longer: SegmentationConfig = replace(network, training=replace(network.training, num_epochs=num_epochs))
    return replace(settings, segmentation=longer)


def _starts_from_cam(settings: Settings) -> bool:
    return settings.rounds.start == "cam" and settings.segmentation.backbone == settings.cam.backbone


def _check_networks(config: Run) -> None:
    """Build each untrained network once, to report invalid settings before the first training rather than hours later.

    Raises:
        ConfigError: A backbone does not support its settings.
        WeightsError: Initial weights cannot be loaded.
    """
    settings = config.settings
    segmentation = settings.segmentation
    if _starts_from_cam(settings):
        segmentation = replace(segmentation, weights="random")
    networks: dict[str, NetworkConfig] = {
        "cam": settings.cam,
        "affinity": settings.affinity,
        "segmentation": segmentation,
    }
    for name, network in networks.items():
        if not exists(join(config.out, name, WEIGHTS_NAME)):
            with within(name):
                freeze_levels(Objective.of(network, ("class",)).build(), network.training)


class _Steps:
    """Runs the jobs one after the other on the same images and records their times."""

    def __init__(self, images: ImageSet, chain: Chain, *, overwrite: bool) -> None:
        self.chain = chain
        self._images = images
        self._overwrite = overwrite
        self.seconds: dict[str, float] = {}

    def do(
        self,
        name: str,
        job: Callable[[Options, ImageSet], dict[str, Any]],
        options: Options,
        *,
        afresh: Options | None = None,
    ) -> dict[str, Any]:
        """Run one job. With ``overwrite``, output of other settings is replaced and current output is kept.

        Args:
            afresh: Options for replacing the output, if different from ``options``.
        """
        start = time.monotonic()
        self.chain.begin()
        try:
            summary = job(options, self._images)
        except OtherRunError:
            if not self._overwrite:
                raise
            summary = job(replace(afresh or options, overwrite=True), self._images)
        self.seconds[name] = round(summary.get("seconds", time.monotonic() - start), 2)
        if summary.get("images_per_s"):
            self.chain.measured(summary["images"] / summary["images_per_s"])
        return summary

    def train(
        self, name: str, job: Callable[..., dict[str, Any]], options: JobOptions, make_objective: MakeObjective
    ) -> None:
        """Run a training job like :meth:`do`."""
        self.do(name, lambda chosen, images: job(chosen, images, make_objective=make_objective), options)


def _keeps_stages(masks: str, config: Run) -> bool:
    """Whether to keep intermediate masks: as existing masks do, so that adding ``--truth`` later relabels nothing."""
    record = None
    with suppress(OutputError):  # the labeling job reports a damaged record, or overwrites it
        record = read_record(masks)
    if record is None or record.get("job") != "label" or not committed_shards(masks):
        return bool(config.truth)
    return bool(record["inputs"].get("keep_stages") == str(True))


if __name__ == "__main__":
    sys.exit(main(Run, run))
