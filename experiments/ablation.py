"""What each choice of the defaults is worth: one variant a choice, everything else as in a finished run.

    python -m benchmarks ablation RUN --out runs/ablation [--variants affinity radius-8 ...] [--json FILE]

RUN is a finished ``jobs.run`` of two rounds. A variant of the classifier is trained and its maps are walked with RUN's
AffinityNet; a variant of AffinityNet is trained and walks the maps of RUN's classifier and of its first segmentation
network; a variant of the segmentation network is trained on the first round's masks as that network was. The alpha of
the CAM, and alpha, beta and steps of each walk, are chosen on part ``dev`` of the images (see ``experiments.quality``);
what is printed is the mIoU of both parts, of walks without a dCRF. The same command goes on after a kill; two cores
take 3 to 12 minutes a variant.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

from torch import Tensor
from torch.nn import functional

from benchmarks.runner import PHOTOGRAPHS, Line, parser, report
from engine.config import SeedConfig, Settings
from engine.distributed.cluster import connected
from engine.ops.losses import Terms, segmentation_terms
from engine.plain_settings import merged
from engine.presets import preset
from engine.storage.filesystem import absolute
from engine.storage.run_record import read_json
from experiments.quality import masks_of, scored
from experiments.recipe import PARTS, best_row, pairs_of_the_authors, results_of, row_of, write_parts
from jobs import make_seeds, segment, train_affinity, train_cam, train_segmentation
from tune import search

FIRST, SECOND = "cam", "round-1/segmentation"
"""The networks whose maps are walked in the two rounds, in the folder of the run."""
ALPHAS = {FIRST: (0.5, 1.0, 1.5, 2.0, 3.0, 4.0), SECOND: (3.0, 4.0, 6.0, 8.0, 12.0)}
BETAS = (4.0, 8.0, 16.0)
STEPS = (16, 24, 32, 64, 128, 256)
SEED_ALPHAS = (1.2, 2.0, 4.0, 8.0), (5.0, 8.0, 16.0, 32.0)
BAND_PX = 4
"""Half the width of the band along the masks' borders that teaches nothing, pixels of the crop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """What is other than in the run."""

    step: str
    """``cam``, ``affinity`` or ``segmentation``: what is trained, with the settings of that name."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Nested settings of the step."""
    pairs: str = "all"
    """``authors`` leaves out those at the grid's margin, in the loss and in the walk."""
    maps: str = FIRST
    """Whose maps the seeds come from; those of the second round have alphas of their own, chosen on part dev."""
    start: str = FIRST
    """What the segmentation network starts from; empty for ImageNet's weights."""
    band: bool = False
    """The segmentation network learns nothing along the borders of the masks."""


def _affinity(**changes: Any) -> Variant:
    return Variant(step="affinity", changes=changes)


def _training(step: str, **changes: Any) -> Variant:
    return Variant(step=step, changes={"training": changes})


VARIANTS = {
    "cam": Variant(step="cam"),
    "cam-epochs-3": _training("cam", num_epochs=3),
    "cam-epochs-12": _training("cam", num_epochs=12),
    "cam-no-jitter": _training("cam", color_jitter=[0.0, 0.0, 0.0, 0.0]),
    "cam-one-scale": Variant(step="cam", changes={"inference": {"scales": [1.0]}}),
    "cam-three-scales": Variant(step="cam", changes={"inference": {"scales": [0.8, 1.2, 1.6]}}),
    "affinity": Variant(step="affinity"),
    "authors-pairs": Variant(step="affinity", pairs="authors"),
    "radius-3": _affinity(radius=3),
    "radius-8": _affinity(radius=8),
    "stride-4": _affinity(grid_stride=4),
    "stride-16": _affinity(grid_stride=16),
    "detached": _training("affinity", frozen_levels=5),
    "second-seeds": Variant(step="affinity", maps=SECOND),
    "segmentation": Variant(step="segmentation"),
    "no-confidence": Variant(step="segmentation", changes={"confidence_power": 0.0}),
    "border-band": Variant(step="segmentation", band=True),
    "from-imagenet": Variant(step="segmentation", start=""),
    "no-average": _training("segmentation", ema_decay=0.0),
    "epochs-16": _training("segmentation", num_epochs=16),
}


def without_borders(mask: Tensor, width: int, ignore: int) -> Tensor:
    """The mask with ``ignore`` in every pixel that has another class less than ``width`` pixels away.

    Args:
        mask: (B, H, W) integer class ids.
        width: pixels.
        ignore: what does not count.
    """
    values = mask.float()[:, None]
    size = 2 * width - 1
    highest = functional.max_pool2d(values, size, stride=1, padding=width - 1)
    lowest = -functional.max_pool2d(-values, size, stride=1, padding=width - 1)
    return mask.masked_fill((highest != lowest)[:, 0], ignore)


def banded_terms(logits: Tensor, mask: Tensor, weight: Tensor, *, ignore: int) -> Terms:
    """As :func:`engine.ops.losses.segmentation_terms`, of :func:`without_borders`."""
    return segmentation_terms(logits, without_borders(mask, BAND_PX, ignore), weight, ignore=ignore)


@contextmanager
def loss_of(variant: Variant) -> Iterator[None]:
    """While the block runs, what is sent to Ray's workers has the variant's loss."""
    terms = banded_terms if variant.band else segmentation_terms
    with (
        pairs_of_the_authors(variant.pairs == "authors"),
        mock.patch("engine.fitting.objectives.segmentation_terms", terms),
    ):
        yield


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A finished run, its images and their truth, and the folder of what is made here."""

    run: Path
    out: Path
    data: str
    settings: Settings
    preset: str
    truth: dict[str, str]
    """Folder of the true masks of each part; of both under ``all``."""

    @classmethod
    def of(cls, run: str, out: str, truth: str) -> Place:
        """From the record of the run."""
        record = read_json(str(Path(run, "run.json"))) or {}
        options = record["options"]
        parts = write_parts(options["data"], truth, Path(out, "truth"))
        return cls(
            run=Path(absolute(run)),
            out=Path(absolute(out)),
            data=options["data"],
            settings=merged(preset(options["preset"]), record["settings"], where=f"{run}/run.json"),
            preset=options["preset"],
            truth={**parts, "all": truth},
        )

    @property
    def shared(self) -> dict[str, Any]:
        """Options of every job."""
        return {"data": self.data, "preset": self.preset, "resources": self.settings.resources}

    def search(self, part: str, out: Path, **more: Any) -> list[Line]:
        """Rows of ``results.parquet`` of a search on one part."""
        settings = self.settings
        options: dict[str, Any] = {
            "walk": settings.walk,
            "rewalk": settings.rewalk,
            "seed": settings.seed,
            "cam_inference": settings.cam.inference,
            "recam": settings.recam,
            "affinity_inference": settings.affinity.inference,
            "crf": settings.crf,
            "cache": str(self.out / "cache"),
            "folds": 0,
            "bootstrap": 0,
            **self.shared,
            **more,
        }
        search.run(search.Search(truth=self.truth[part], out=str(out / part), **options))
        return results_of(str(out / part))

    def chosen(self, name: str, out: Path, *, kind: str, radius: int, steps: tuple[int, ...], **more: Any) -> Line:
        """The best walk on part dev, of maps of a kind, and its mIoU on both parts."""
        start = {
            part: replace(getattr(self.settings, part), radius=radius, num_steps=steps[0])
            for part in ("walk", "rewalk")
        }
        grid: dict[str, Any] = {"alphas": ALPHAS[kind], "betas": BETAS, "steps": steps}
        best = best_row(self.search("dev", out, **start, **grid, **more))
        where = {column: best[column] for column in ("alpha", "beta", "num_steps")}
        grid = {"alphas": (best["alpha"],), "betas": (best["beta"],), "steps": (best["num_steps"],)}
        held = row_of(self.search("held", out, **start, **grid, **more), where)
        found = dict(zip(PARTS, (100 * best["miou"], 100 * held["miou"]), strict=True))
        return {"masks": name, **where, **found}


def cam_lines(place: Place, variant: Variant, folder: Path) -> list[Line]:
    """The CAM, and its walk with the run's AffinityNet."""
    network = merged(place.settings.cam, variant.changes, where="variant")
    cam = str(place.run / FIRST)
    if network.training != place.settings.cam.training:
        cam = str(folder / "cam")
        train_cam.run(train_cam.TrainCam(**place.shared, out=cam, cam_network=network))
    radius = place.settings.affinity.radius
    looks: dict[str, Any] = {"kind": FIRST, "radius": radius, "cam": cam, "cam_inference": network.inference}
    affinity = str(place.run / "affinity")
    return [
        place.chosen("CAM", folder / "search-cam", steps=(0,), **looks),
        place.chosen("walk", folder / "search-walk", steps=STEPS, affinity=affinity, **looks),
    ]


def affinity_lines(place: Place, variant: Variant, folder: Path) -> list[Line]:
    """The walks of both rounds with one AffinityNet."""
    network = merged(place.settings.affinity, variant.changes, where="variant")
    affinity = str(place.run / "affinity")
    if variant != VARIANTS["affinity"]:
        affinity = str(folder / "affinity")
        seeds = seeds_of(place, variant.maps, network.grid_stride)
        train_affinity.run(
            train_affinity.TrainAffinity(**place.shared, out=affinity, seeds=seeds, affinity_network=network)
        )
    looks: dict[str, Any] = {"steps": STEPS, "affinity": affinity, "radius": network.radius}
    return [
        place.chosen(
            f"walk, round {number}", folder / f"search-{number}", kind=kind, cam=str(place.run / kind), **looks
        )
        for number, kind in enumerate((FIRST, SECOND), start=1)
    ]


def seeds_of(place: Place, maps: str, grid_stride: int) -> str:
    """The folder of the seeds, made where the run has none that fit."""
    seed = replace(place.settings.seed, grid_stride=grid_stride)
    if maps == FIRST and seed == place.settings.seed:
        return str(place.run / "seeds")
    out = place.out / f"seeds-{Path(maps).name}-{grid_stride}"
    if maps == SECOND:
        seed = with_found_alphas(place, seed, out.with_name(f"{out.name}-search"))
    make_seeds.run(
        make_seeds.MakeSeeds(
            **place.shared,
            out=str(out),
            cam=str(place.run / maps),
            cam_inference=place.settings.cam.inference,
            recam=place.settings.recam,
            seed=seed,
            shards=place.settings.shards,
        )
    )
    return str(out)


def with_found_alphas(place: Place, seed: SeedConfig, out: Path) -> SeedConfig:
    """The seed with the alphas that are best on part dev for the maps of the second round."""
    place.search(
        "dev",
        out,
        cam=str(place.run / SECOND),
        rewalk=replace(place.settings.rewalk, num_steps=0),
        seed=seed,
        alphas=ALPHAS[SECOND],
        steps=(0,),
        seed_alphas_low=SEED_ALPHAS[0],
        seed_alphas_high=SEED_ALPHAS[1],
    )
    found = (read_json(str(out / "dev" / search.BEST)) or {})["settings"]
    chosen = {part: values for part, values in found.items() if part == "seed"}  # none where no pair covers enough
    return merged(replace(place.settings, seed=seed), chosen, where="best.json").seed


def segmentation_lines(place: Place, variant: Variant, folder: Path) -> list[Line]:
    """The network's own masks, without tags, without and with dCRF."""
    network = merged(place.settings.segmentation, variant.changes, where="variant")
    trained = str(place.run / SECOND)
    if variant != VARIANTS["segmentation"]:
        trained = str(folder / "segmentation")
        train_segmentation.run(
            train_segmentation.TrainSegmentation(
                **place.shared,
                out=trained,
                masks=str(place.run / "round-1" / "masks"),
                start=variant.start and str(place.run / variant.start),
                segmentation_network=network,
            )
        )
    lines = []
    own = place.settings.crf
    for name, crf in {"network": replace(own, num_iterations=0), "network + dCRF": own}.items():
        out = str(folder / f"segmented-{crf.num_iterations}")
        segment.run(
            segment.SegmentImages(
                **place.shared,
                out=out,
                segmentation=trained,
                segmentation_inference=network.inference,
                crf=crf,
                shards=place.settings.shards,
            )
        )
        num_classes = len((read_json(str(Path(out, "run.json"))) or {})["class_names"])
        found = {part: scored(masks_of(out, "mask", place.truth["all"], part), num_classes)[0] for part in PARTS}
        lines.append({"masks": name, **{part: line["mIoU"] for part, line in found.items()}})
    return lines


STEP_LINES: dict[str, Callable[[Place, Variant, Path], list[Line]]] = {
    "cam": cam_lines,
    "affinity": affinity_lines,
    "segmentation": segmentation_lines,
}


def main() -> int:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("run", help="folder of jobs.run")
    options.add_argument("--out", required=True, help="where networks and searches are kept")
    options.add_argument("--truth", default=str(PHOTOGRAPHS / "truth"), help="true masks")
    options.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    chosen = options.parse_args()
    place = Place.of(chosen.run, chosen.out, chosen.truth)
    columns = dict.fromkeys(("variant", "masks", "alpha", "beta", "num_steps", *PARTS), "")
    lines: list[Line] = []
    with connected(place.settings.resources):
        for name in chosen.variants:
            variant = VARIANTS[name]
            with loss_of(variant):
                found = STEP_LINES[variant.step](place, variant, place.out / name)
            lines += [{**columns, "variant": name, **line} for line in found]
            report("ablation", lines, chosen.json, run=chosen.run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
