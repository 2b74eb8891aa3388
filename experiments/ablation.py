"""Ablation study: train one variant per design choice, with everything else as in a finished run.

    python -m experiments ablation RUN --out runs/ablation [--variants affinity radius-8 ...] [--json FILE]

RUN is the output of ``jobs.run --truth`` with two rounds or more. A variant of the classifier is trained, and its maps
are walked with RUN's AffinityNet; a variant of AffinityNet is trained, and walks the maps of RUN's classifier and of
its first segmentation network; a variant of that network is trained on the masks of the first round. The alpha of the
CAM, and alpha, beta and steps of each walk, are chosen on part ``dev`` of the images (``experiments.finished_run``).
The figures are the mIoU of both parts, of walks without dCRF. Rerun the command to resume. A variant takes 3 to 12
minutes on two cores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.runner import Line, parser, report
from engine.config import MapKind, Settings
from engine.distributed.cluster import connected
from engine.fitting.objectives import Objective
from engine.plain_settings import merged
from experiments.finished_run import PARTS, FinishedRun, read_run, write_parts
from experiments.objectives import drop_margin, without_borders, without_margin
from experiments.quality import masks_of, scored
from experiments.searches import best_row, row_of, rows_of
from jobs import make_seeds, segment, train_affinity, train_cam, train_segmentation
from tune import search

NETWORKS: dict[MapKind, str] = {"cam": "cam", "segmentation": "round-1/segmentation"}
"""Folders of the networks whose maps are walked in the first round and in the second."""
ALPHAS: dict[MapKind, tuple[float, ...]] = {
    "cam": (0.5, 1.0, 1.5, 2.0, 3.0, 4.0),
    "segmentation": (3.0, 4.0, 6.0, 8.0, 12.0),
}
BETAS = (4.0, 8.0, 16.0)
STEPS = (16, 24, 32, 64, 128, 256)
SEED_ALPHAS = (1.2, 2.0, 4.0, 8.0), (5.0, 8.0, 16.0, 32.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """How a variant differs from the run."""

    network: Literal["cam", "affinity", "segmentation"]
    """The network to train."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Nested settings."""
    authors_pairs: bool = False
    """Leave out the pairs at the grid's margin, in the loss and in the walk."""
    seeds_of: MapKind = "cam"
    """Whose maps AffinityNet's seeds are made from."""
    start: str = "cam"
    """Folder of the network that the segmentation network starts from; empty for ImageNet's weights."""
    ignore_borders: bool = False
    """The segmentation network learns nothing along the borders of the masks."""


def _training(network: Literal["cam", "affinity", "segmentation"], **changes: Any) -> Variant:
    return Variant(network=network, changes={network: {"training": changes}})


def _radius(radius: int) -> Variant:
    changes = {name: {"radius": radius} for name in ("affinity", "walk", "later_walk")}
    return Variant(network="affinity", changes=changes)


def _grid_stride(grid_stride: int) -> Variant:
    return Variant(
        network="affinity", changes={"affinity": {"grid_stride": grid_stride}, "seed": {"grid_stride": grid_stride}}
    )


VARIANTS = {
    "cam": Variant(network="cam"),
    "cam-epochs-3": _training("cam", num_epochs=3),
    "cam-epochs-12": _training("cam", num_epochs=12),
    "cam-no-jitter": _training("cam", color_jitter=[0.0, 0.0, 0.0, 0.0]),
    "cam-one-scale": Variant(network="cam", changes={"cam": {"inference": {"scales": [1.0]}}}),
    "cam-three-scales": Variant(network="cam", changes={"cam": {"inference": {"scales": [0.8, 1.2, 1.6]}}}),
    "affinity": Variant(network="affinity"),
    "authors-pairs": Variant(network="affinity", authors_pairs=True),
    "radius-3": _radius(3),
    "radius-8": _radius(8),
    "stride-4": _grid_stride(4),
    "stride-16": _grid_stride(16),
    "detached": _training("affinity", frozen_levels=5),
    "second-seeds": Variant(network="affinity", seeds_of="segmentation"),
    "segmentation": Variant(network="segmentation"),
    "no-confidence": Variant(network="segmentation", changes={"segmentation": {"confidence_power": 0.0}}),
    "border-band": Variant(network="segmentation", ignore_borders=True),
    "from-imagenet": Variant(network="segmentation", start=""),
    "no-average": _training("segmentation", ema_decay=0.0),
    "epochs-16": _training("segmentation", num_epochs=16),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """A variant of a finished run, and the folders of its outputs."""

    run: FinishedRun
    variant: Variant
    settings: Settings
    """The run's settings with the changes of the variant."""
    truth: dict[str, str]
    """Folder of the true masks of each part."""
    shared: Path
    """Folder for output shared by several variants."""
    out: Path

    @classmethod
    def of(cls, run: FinishedRun, name: str, truth: dict[str, str], out: Path) -> Study:
        """Create the study of one variant."""
        variant = VARIANTS[name]
        settings = merged(run.settings, variant.changes, where=name)
        return cls(run=run, variant=variant, settings=settings, truth=truth, shared=out, out=out / name)

    def search_of(self, kind: MapKind, out: Path, *, cam: str = "", affinity: str = "") -> search.Search:
        """Create a search on part dev over the maps of a network; without AffinityNet, over alphas only."""
        settings = self.settings
        if not affinity:
            walks = {name: {"num_steps": 0} for name in ("walk", "later_walk")}
            settings = merged(settings, walks, where="ablation")
        return search.Search(
            data=self.run.data,
            truth=self.truth["dev"],
            out=str(out),
            cam=cam or self.run.location(NETWORKS[kind]),
            affinity=affinity,
            cache=str(self.shared / "cache"),
            alphas=ALPHAS[kind],
            betas=BETAS,
            steps=STEPS if affinity else (0,),
            folds=0,
            bootstrap=0,
            settings=settings,
        )

    def line_of(self, masks: str, dev: search.Search) -> Line:
        """Find the best configuration on part dev, and its mIoU on both parts."""
        steps = [drop_margin(self.settings.walk.radius)] if self.variant.authors_pairs else []
        best = best_row(rows_of(replace(dev, out=f"{dev.out}/dev"), steps))
        found = {name: best[name] for name in ("alpha", "beta", "num_steps")}
        held = replace(
            dev,
            truth=self.truth["held"],
            out=f"{dev.out}/held",
            alphas=(best["alpha"],),
            betas=(best["beta"],),
            steps=(best["num_steps"],),
        )
        same = row_of(rows_of(held, steps), **found)
        return {"masks": masks, **found, "dev": 100 * best["miou"], "held": 100 * same["miou"]}


def cam_lines(study: Study) -> list[Line]:
    """Score the CAM, and its walk with the run's AffinityNet."""
    cam = study.run.location("cam")
    if study.settings.cam.training != study.run.settings.cam.training:
        cam = str(study.out / "cam")
        train_cam.run(train_cam.TrainCam(data=study.run.data, out=cam, settings=study.settings))
    affinity = study.run.location("affinity")
    return [
        study.line_of("CAM", study.search_of("cam", study.out / "search-cam", cam=cam)),
        study.line_of("walk", study.search_of("cam", study.out / "search-walk", cam=cam, affinity=affinity)),
    ]


def affinity_lines(study: Study) -> list[Line]:
    """Score the walks of both rounds with one AffinityNet."""
    affinity = study.run.location("affinity")
    if study.variant != VARIANTS["affinity"]:
        affinity = str(study.out / "affinity")
        train_affinity.run(
            train_affinity.TrainAffinity(
                data=study.run.data, out=affinity, seeds=seeds_of(study), settings=study.settings
            ),
            make_objective=without_margin if study.variant.authors_pairs else Objective.of,
        )
    return [
        study.line_of(f"walk, round {number}", study.search_of(kind, study.out / f"search-{number}", affinity=affinity))
        for number, kind in enumerate(NETWORKS, start=1)
    ]


def seeds_of(study: Study) -> str:
    """Return the folder of the variant's seeds, made first if the run has none that match."""
    kind, settings = study.variant.seeds_of, study.settings
    if kind == "cam" and settings.seed == study.run.settings.seed:
        return study.run.location("seeds")
    out = study.shared / f"seeds-{kind}-{settings.seed.grid_stride}"
    if kind == "segmentation":
        settings = with_best_seed(study, out.with_name(f"{out.name}-search"))
    cam = study.run.location(NETWORKS[kind])
    make_seeds.run(make_seeds.MakeSeeds(data=study.run.data, out=str(out), cam=cam, settings=settings))
    return str(out)


def with_best_seed(study: Study, out: Path) -> Settings:
    """Set the seed alphas that are best on part dev for the maps of the second round."""
    low, high = SEED_ALPHAS
    dev = replace(study.search_of("segmentation", out), seed_alphas_low=low, seed_alphas_high=high)
    found = search.run(dev)["settings"]
    seed = {name: part for name, part in found.items() if name == "seed"}  # none if no pair of alphas covers enough
    return merged(study.settings, seed, where="best.json")


def segmentation_lines(study: Study) -> list[Line]:
    """Score the network's own masks, made without tags, with and without dCRF."""
    run, variant, settings = study.run, study.variant, study.settings
    network = run.location(NETWORKS["segmentation"])
    if variant != VARIANTS["segmentation"]:
        network = str(study.out / "segmentation")
        train_segmentation.run(
            train_segmentation.TrainSegmentation(
                data=run.data,
                out=network,
                masks=run.location("round-1/masks"),
                start=variant.start and run.location(variant.start),
                settings=settings,
            ),
            make_objective=without_borders if variant.ignore_borders else Objective.of,
        )
    lines = []
    for name, crf in {"network": replace(settings.crf, num_iterations=0), "network + dCRF": settings.crf}.items():
        out = str(study.out / f"segmented-{crf.num_iterations}")
        segment.run(
            segment.SegmentImages(data=run.data, out=out, segmentation=network, settings=replace(settings, crf=crf))
        )
        found = {part: scored(masks_of(out, "mask", run.truth, part), len(run.class_names))[0] for part in PARTS}
        lines.append({"masks": name, **{part: line["mIoU"] for part, line in found.items()}})
    return lines


LINES: dict[str, Callable[[Study], list[Line]]] = {
    "cam": cam_lines,
    "affinity": affinity_lines,
    "segmentation": segmentation_lines,
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("run", help="output folder of jobs.run --truth")
    options.add_argument("--out", required=True, help="folder for networks and searches")
    options.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    chosen = options.parse_args()
    run, out = read_run(chosen.run), Path(chosen.out)
    truth = write_parts(run.data, run.truth, out / "truth")
    columns = dict.fromkeys(("variant", "masks", "alpha", "beta", "num_steps", *PARTS), "")
    lines: list[Line] = []
    with connected(run.settings.resources):
        for name in chosen.variants:
            study = Study.of(run, name, truth, out)
            lines += [{**columns, "variant": name, **line} for line in LINES[study.variant.network](study)]
            report("ablation", lines, chosen.json, run=chosen.run)
