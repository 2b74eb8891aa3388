"""The whole chain on one manifest: three networks, masks, report: ``python -m jobs.run``."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from engine.config import (
    AffinityConfig,
    CamConfig,
    ConfidenceConfig,
    CrfConfig,
    InferenceConfig,
    PamrConfig,
    SeedConfig,
    SegmentationConfig,
    Settings,
    ShardConfig,
    WalkConfig,
)
from engine.distributed.cluster import connected
from engine.errors import ConfigError, OtherRunError, OutputError
from engine.fitting.learner import freeze_levels
from engine.fitting.objectives import Objective
from engine.networks import NetworkConfig
from engine.plain_settings import to_dict
from engine.runs.options import DataOptions, OptionalText, ShardOptions, check_fraction
from engine.runs.shards import SUMMARY
from engine.runs.stage_scores import EARLIER_ROUND, MOST_ROUNDS, STAGE_COLUMNS, stages_of
from engine.storage.filesystem import check_writable, exists, join
from engine.storage.run_record import RECORD_NAME, commit, read_json, versions, write_json
from engine.storage.shards import committed_shards, read_schema
from engine.storage.truth import open_truth
from engine.storage.weights import WEIGHTS_NAME
from jobs import label, make_seeds, report, segment, train_affinity, train_cam, train_segmentation
from jobs.cli.command import OWN_OPTIONS, main
from jobs.evaluate import RESULT, score

SEGMENTED = "segmented"
"""Folder of the segmentation network's own masks, made where there is truth to score them."""
ROUNDS_OF_PRESET = {"tiny": 2, "paper": 1}
"""Of the others it is three: a fourth would cost as much as the third, which gains a point (docs/ablations.md)."""

LAST_FACTOR = 1.5
"""Epochs of the last network for each of an earlier round's; no further round mends what it has not learned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run(ShardOptions):
    """From tagged images to masks and a trained segmentation network; a step that is complete is skipped."""

    truth: OptionalText = ""
    """True masks to score every stage with: a folder of PNGs named by image stem, or mask shards. Never trained on."""
    rounds: int = 0
    """Times that the images are labeled: first from the classifier's maps, as the paper, then from those of the
    segmentation network that learned from the round before; 0 is 3, with preset tiny 2, with paper 1."""
    last_num_epochs: int = 0
    """Epochs of the last round's segmentation network, which is the one that is kept; 0 is half as many again as
    --segmentation.training.num-epochs where there are several rounds, else as many."""
    segmentation_from_cam: bool = True
    """Start the segmentation network from the classifier's backbone, which knows the classes, where both have the same
    one; else, and with preset paper, from ImageNet's weights."""
    val_fraction: float = 0.0
    """Fraction of the images, chosen by the hash of their ids, to score the networks on and never to learn from; 0
    takes each network's own training.val-fraction, which holds out none by default."""
    min_confidence: float = 0.0
    """Masks with less confidence teach no segmentation network, 0 to 1; 0 takes all."""
    cam: CamConfig
    """The classifier."""
    seed: SeedConfig
    """How sure a cell must be to teach AffinityNet."""
    affinity: AffinityConfig
    """AffinityNet."""
    walk: WalkConfig
    """Background and random walk of the classifier's maps."""
    recam: InferenceConfig
    """How the maps of the segmentation network are taken, from the second round on."""
    rewalk: WalkConfig
    """Background and random walk of the segmentation network's maps, from the second round on."""
    pamr: PamrConfig
    """A local refinement between the walk and the dCRF, off by default."""
    crf: CrfConfig
    """The dense CRF."""
    confidence: ConfidenceConfig
    """The expected quality of a mask."""
    segmentation: SegmentationConfig
    """The segmentation network."""
    shards: ShardConfig
    """The output's layout."""

    def __post_init__(self) -> None:
        ShardOptions.__post_init__(self)
        if isinstance(self.rounds, int) and not 0 <= self.rounds <= MOST_ROUNDS:
            raise ConfigError(f"--rounds is {self.rounds}; allowed: 1 to {MOST_ROUNDS}, or 0 (the preset's)")
        if isinstance(self.last_num_epochs, int) and self.last_num_epochs < 0:
            raise ConfigError(f"--last-num-epochs is {self.last_num_epochs}; allowed: 1 or more, or 0 (by the rounds)")
        check_fraction("min_confidence", self.min_confidence)

    @property
    def num_rounds(self) -> int:
        """How many it will be."""
        return self.rounds or ROUNDS_OF_PRESET.get(self.preset, 3)

    def segmentation_of(self, number: int) -> SegmentationConfig:
        """The segmentation network of a round, counted from 1."""
        training = self.segmentation.training
        if number < self.num_rounds:
            return self.segmentation
        longer = round(LAST_FACTOR * training.num_epochs) if self.num_rounds > 1 else training.num_epochs
        return dataclasses.replace(
            self.segmentation, training=dataclasses.replace(training, num_epochs=self.last_num_epochs or longer)
        )


def run(config: Run) -> dict[str, Any]:
    """Run the chain into ``cam/ seeds/ affinity/ masks/ segmentation/ report.html summary.json`` under ``--out``."""
    check_writable(config.out)
    if config.truth:
        open_truth(config.truth)  # a slip in its path is said now, not after the training
    _check_networks(config)
    shared = {item.name: getattr(config, item.name) for item in dataclasses.fields(DataOptions) if item.name != "out"}
    learning = {**shared, "val_fraction": config.val_fraction}
    sharded = {**shared, "max_error_fraction": config.max_error_fraction, "retry_errors": config.retry_errors}
    steps = _Steps(overwrite=config.overwrite)
    cam, seeds, affinity, segmented = (join(config.out, name) for name in ("cam", "seeds", "affinity", SEGMENTED))
    with connected(config.resources):
        steps.do("cam", train_cam.run, train_cam.TrainCam(**learning, out=cam, cam_network=config.cam))
        steps.do(
            "seeds",
            make_seeds.run,
            make_seeds.MakeSeeds(
                **sharded,
                out=seeds,
                cam=cam,
                cam_inference=config.cam.inference,
                recam=config.recam,
                seed=config.seed,
                shards=config.shards,
            ),
        )
        steps.do(
            "affinity",
            train_affinity.run,
            train_affinity.TrainAffinity(**learning, out=affinity, seeds=seeds, affinity_network=config.affinity),
        )
        source, start = cam, cam if _shares_backbone(config) else ""
        for number in range(1, config.num_rounds + 1):
            prefix = "" if number == config.num_rounds else f"{EARLIER_ROUND.format(number)}/"
            masks, segmentation = (join(config.out, prefix + name) for name in ("masks", "segmentation"))
            labeled = steps.do(
                f"{prefix}masks",
                label.run,
                label.Label(
                    **sharded,
                    out=masks,
                    cam=source,
                    affinity=affinity,
                    keep_stages=_keeps_stages(masks, config),
                    cam_inference=config.cam.inference,
                    recam=config.recam,
                    affinity_inference=config.affinity.inference,
                    walk=config.walk,
                    rewalk=config.rewalk,
                    pamr=config.pamr,
                    crf=config.crf,
                    confidence=config.confidence,
                    shards=config.shards,
                ),
                afresh={"keep_stages": bool(config.truth)},
            )
            steps.do(
                f"{prefix}segmentation",
                train_segmentation.run,
                train_segmentation.TrainSegmentation(
                    **learning,
                    out=segmentation,
                    masks=masks,
                    start=start,
                    min_confidence=config.min_confidence,
                    segmentation_network=config.segmentation_of(number),
                ),
            )
            source = start = segmentation
        if config.truth:
            steps.do(
                SEGMENTED,
                segment.run,
                segment.SegmentImages(
                    **sharded,
                    out=segmented,
                    segmentation=segmentation,
                    segmentation_inference=config.segmentation.inference,
                    crf=config.crf,
                    shards=config.shards,
                ),
            )
    summary: dict[str, Any] = {
        "images": labeled["images"],
        "errors": labeled["errors"],
        "seconds": round(sum(steps.seconds.values()), 2),
        "images_per_s": round(labeled["images"] / sum(steps.seconds.values()), 3),
        "steps": steps.seconds,
    }
    if config.truth:
        summary |= _scores(config, masks=masks, segmented=segmented)
    write_json(join(config.out, SUMMARY), summary)
    write_json(join(config.out, RECORD_NAME), _record(config))
    if config.truth:
        _print_scores(summary)
    report.run(
        report.Report(
            data=config.data,
            masks=masks,
            truth=config.truth,
            run_folder=config.out,
            out=config.out,
            allow_outside=config.allow_outside,
        )
    )
    return summary


def _check_networks(config: Run) -> None:
    """Build each network that is still to be trained, so that a slip in the last one's settings is said now.

    Raises:
        ConfigError: a backbone cannot do what is asked for.
        WeightsError: first weights cannot be had.
    """
    segmentation = config.segmentation
    if _shares_backbone(config):  # it starts from the classifier's weights
        segmentation = dataclasses.replace(segmentation, weights="random")
    networks: dict[str, NetworkConfig] = {
        "cam": config.cam,
        "affinity": config.affinity,
        "segmentation": segmentation,
    }
    for name, network in networks.items():
        if not exists(join(config.out, name, WEIGHTS_NAME)):
            freeze_levels(Objective.of(network, ("class",)).build(), network.training)


def _shares_backbone(config: Run) -> bool:
    same = config.segmentation.backbone == config.cam.backbone
    return config.segmentation_from_cam and same and config.preset != "paper"


class _Steps:
    """Runs the jobs one after the other and keeps their times."""

    def __init__(self, *, overwrite: bool) -> None:
        self._overwrite = overwrite
        self.seconds: dict[str, float] = {}

    def do(
        self, name: str, job: Callable[[Any], dict[str, Any]], options: Any, afresh: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run one job; with ``--overwrite`` afresh only where its settings are other than before.

        Args:
            afresh: options that are other then.
        """
        start = time.monotonic()
        print(f"== {name}", file=sys.stderr, flush=True)
        options = dataclasses.replace(options, overwrite=False)
        try:
            summary = job(options)
        except OtherRunError:
            if not self._overwrite:
                raise
            summary = job(dataclasses.replace(options, overwrite=True, **(afresh or {})))
        self.seconds[name] = round(summary.get("seconds", time.monotonic() - start), 2)
        return summary


def _keeps_stages(masks: str, config: Run) -> bool:
    """As the masks that are there: truth that comes later scores what they hold and costs no second labeling."""
    record = None
    with suppress(OutputError):  # damaged: the labeling says so, or overwrites it
        record = read_json(join(masks, RECORD_NAME))
    if record is None or record.get("job") != "label" or not committed_shards(masks):
        return bool(config.truth)
    return bool(record["inputs"].get("keep_stages") == str(True))


def _scores(config: Run, *, masks: str, segmented: str) -> dict[str, Any]:
    """``miou`` and ``iou`` of the CAM and of the last round's stages; ``rounds``: those of each round.

    Of masks that were made without ``--truth`` only the last stage is there.
    """
    earlier = [join(config.out, EARLIER_ROUND.format(number), "masks") for number in range(1, config.num_rounds)]
    rounds: list[dict[str, dict[str, Any]]] = []
    for folder in (*earlier, masks):
        names = read_schema(folder).names
        kept = {stage: column for stage, column in STAGE_COLUMNS.items() if column in names}
        rounds.append({stage: score(folder, config.truth, column) for stage, column in kept.items()})
    first = {stage: result for stage, result in rounds[0].items() if stage == "cam"}
    last = {stage: result for stage, result in rounds[-1].items() if stage != "cam"}
    stages = {**first, **last, "segmentation": score(segmented, config.truth)}
    if not first:
        print("CAM and walk are not scored: the masks were made without --truth", file=sys.stderr)
    write_json(join(masks, RESULT), stages["crf"])
    write_json(join(segmented, RESULT), stages["segmentation"])
    return {
        "scored_images": stages["crf"]["images"],
        "miou": {stage: result["miou"] for stage, result in stages.items()},
        "iou": {stage: result["iou"] for stage, result in stages.items()},
        "rounds": [
            {name: {stage: result[name] for stage, result in one.items()} for name in ("miou", "iou")} for one in rounds
        ],
    }


def _record(config: Run) -> dict[str, Any]:
    """``run.json``: with ``--config`` it gives the same run again, whatever the preset."""
    own = {name: getattr(config, name) for name in OWN_OPTIONS}
    parts = [item.name for item in dataclasses.fields(Settings) if item.name != "resources"]
    return {
        "job": "run",
        "settings": {name: to_dict(getattr(config, name)) for name in parts},
        "options": {
            **{name: getattr(config, name) for name in ("data", "truth", "classes", "preset")},
            **own,
            "rounds": config.num_rounds,
            "segmentation_from_cam": _shares_backbone(config),
        },
        "versions": versions(),
        "commit": commit(),
    }


def _print_scores(summary: dict[str, Any]) -> None:
    stages = stages_of(summary)
    headings = {"cam": "CAM", "crf": "dCRF", "segmentation": "network"}
    table = Table(title=f"IoU % over {summary['scored_images']} images", title_justify="left")
    table.add_column("class")
    for stage in stages["miou"]:
        table.add_column(headings.get(stage, stage), justify="right")
    for name in summary["iou"]["crf"]:
        values = [by_class.get(name) for by_class in stages["iou"].values()]
        table.add_row(name, *("-" if value is None else f"{100 * value:.1f}" for value in values))
    table.add_section()
    table.add_row("mean", *(f"{100 * value:.1f}" for value in stages["miou"].values()))
    Console(width=88).print(table)


if __name__ == "__main__":
    sys.exit(main(Run, run))
