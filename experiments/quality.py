"""How good the masks of finished runs are, stage by stage, on images that no setting was chosen by.

    python -m jobs.run --data MANIFEST --truth FOLDER --out runs/seed0
    python -m jobs.run --data MANIFEST --truth FOLDER --out runs/seed1 --cam.training.rng-seed 1 \\
        --affinity.training.rng-seed 1 --segmentation.training.rng-seed 1
    python -m benchmarks quality runs/seed0 runs/seed1 [--part held] [--truth FOLDER] [--json FILE]

The settings of preset ``small`` were chosen by the images of part ``dev``, a third by the hash of their ids; ``held``
are the others, and the default. mIoU is VOC's, one confusion matrix over all pixels. With several runs every figure is
the mean over them, and the spread from the least to the greatest stands beside the mIoU. ``objects`` is the mean IoU of
single classes in single images, by the part of the image that the class covers, and in images of several classes.
The CAM, alone and through the dCRF, stands at its own best alpha, found on the same images, which flatters it.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.runner import PHOTOGRAPHS, Line, parser, report
from engine.crf import build_crf
from engine.imaging.codecs import decode_mask
from engine.imaging.decoding import decode_image
from engine.ops.cam import with_background
from engine.ops.mask import pseudo_mask, to_probabilities, upsample
from engine.ops.metrics import confusion_matrix, mean_iou
from engine.plain_settings import merged
from engine.presets import preset
from engine.stages.cam import ComputeCam
from engine.storage.filesystem import parent, resolve
from engine.storage.pictures import read_picture
from engine.storage.run_record import read_json
from engine.storage.shards import read_shards
from engine.storage.subsets import is_held_out
from engine.storage.truth import open_truth

DEV_FRACTION = 1 / 3
"""Of the images, by the hash of their ids, for choosing settings."""
SIZES = {"below 5 %": (0.0, 0.05), "5 to 20 %": (0.05, 0.2), "above 20 %": (0.2, 1.01)}
CAM_ALPHAS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0)
MAX_PIXELS = 10**8

Masks = Iterator[tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]]
"""Truth and mask of each image."""
Figures = tuple[Line, list[float]]
"""mIoU and IoU of single objects, and the IoU of each class, all in percent."""


def in_part(image_id: str, part: str) -> bool:
    """Whether an image belongs to ``dev``, ``held`` or ``all``."""
    return part == "all" or is_held_out(image_id, DEV_FRACTION) == (part == "dev")


def stage_columns(run: str) -> dict[str, tuple[str, str]]:
    """Stage to the folder and column of its masks, in the order of the work."""
    folders = [path.parent for path in sorted(Path(run).glob("round-*/masks"))] + [Path(run)]
    names = {"mask_walk": "walk", "mask": "walk + dCRF"}
    stages = {
        f"{name}, round {number}": (str(folder / "masks"), column)
        for number, folder in enumerate(folders, start=1)
        for column, name in names.items()
    }
    return {**stages, "segmentation network": (str(Path(run, "segmented")), "mask")}


def masks_of(folder: str, column: str, truth: str, part: str) -> Masks:
    """Truth and mask of every image of the part that has both."""
    true_masks = open_truth(truth)
    for table in read_shards(folder, ("image_id", "image", column)):
        for row in table.to_pylist():
            true_mask = true_masks.mask_of(row["image_id"], row["image"]) if in_part(row["image_id"], part) else None
            if true_mask is not None and row[column] is not None:
                yield true_mask, decode_mask(row[column]["bytes"])


class Score:
    """What is counted over the images of one stage."""

    def __init__(self, num_classes: int) -> None:
        self._total = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
        self._objects: dict[str, list[float]] = defaultdict(list)

    def add(self, true_mask: NDArray[np.integer[Any]], mask: NDArray[np.integer[Any]]) -> None:
        """Count one image."""
        confusion = confusion_matrix(true_mask, mask, len(self._total) - 1)
        self._total += confusion
        shown = [index for index in range(1, len(confusion)) if confusion[index].sum()]
        for index in shown:
            union = confusion[index].sum() + confusion[:, index].sum() - confusion[index, index]
            area = confusion[index].sum() / confusion.sum()
            kinds = [name for name, (low, high) in SIZES.items() if low <= area < high]
            for name in kinds + (["several classes"] if len(shown) > 1 else []):
                self._objects[name].append(100 * confusion[index, index] / union)

    def figures(self) -> Figures:
        """The mean over what was counted."""
        ious, miou = mean_iou(self._total)
        objects = {name: float(np.mean(self._objects[name] or [np.nan])) for name in kinds_of_objects()}
        return {"mIoU": 100 * miou, **objects}, (100 * ious).tolist()


def scored(masks: Masks, num_classes: int) -> Figures:
    """The figures of one stage."""
    score = Score(num_classes)
    for true_mask, mask in masks:
        score.add(true_mask, mask)
    return score.figures()


def cam_figures(run: str, truth: str, part: str, names: list[str]) -> dict[str, Figures]:
    """The CAM of a run's classifier, alone and through the dCRF, each at its best alpha."""
    record = read_json(str(Path(run, "run.json"))) or {}
    settings = merged(preset(record["options"]["preset"]), record["settings"], where=f"{run}/run.json")
    stage = ComputeCam(
        str(Path(run, "cam")), settings.cam.inference, device="cpu", images_per_pass=1, max_pixels=MAX_PIXELS
    )
    true_masks, home = open_truth(truth), parent(record["options"]["data"])
    scores = {name: [Score(len(names)) for _ in CAM_ALPHAS] for name in ("CAM", "CAM + dCRF")}
    for table in read_shards(str(Path(run, "masks")), ("image_id", "image", "tags", "error")):
        for row in table.to_pylist():
            if row["error"] is not None or not in_part(row["image_id"], part):
                continue
            true_mask = true_masks.mask_of(row["image_id"], row["image"])
            if true_mask is None:
                continue
            ids = [names.index(tag) + 1 for tag in row["tags"]]
            image = decode_image(read_picture(resolve(row["image"], home)), max_pixels=MAX_PIXELS)
            cam = stage.maps({0: image}, [ids])[0]
            size = (true_mask.shape[0], true_mask.shape[1])
            alone = [to_probabilities(upsample(with_background(cam, alpha), size)).numpy() for alpha in CAM_ALPHAS]
            lattice = build_crf(settings.crf, image, len(ids) + 1)
            sharpened = lattice.infer_many(alone, settings.crf.num_iterations)
            for name, maps in {"CAM": alone, "CAM + dCRF": sharpened}.items():
                for score, probabilities in zip(scores[name], maps, strict=True):
                    score.add(true_mask, pseudo_mask(probabilities, ids))
    found = {}
    for name, of_alphas in scores.items():
        by_alpha = dict(zip(CAM_ALPHAS, (score.figures() for score in of_alphas), strict=True))
        best = max(by_alpha, key=lambda alpha: by_alpha[alpha][0]["mIoU"])
        found[f"{name} (alpha {best:g})"] = by_alpha[best]
    return found


def kinds_of_objects() -> list[str]:
    """The columns of single objects."""
    return [*SIZES, "several classes"]


def measure(run: str, truth: str, part: str) -> dict[str, Figures]:
    """The scores of every stage of one run."""
    record = read_json(str(Path(run, "masks", "run.json"))) or {}
    found = cam_figures(run, truth, part, list(record["class_names"]))
    for stage, (folder, column) in stage_columns(run).items():
        found[stage] = scored(masks_of(folder, column, truth, part), len(record["class_names"]))
    return found


def lines_of(runs: list[dict[str, Figures]], class_names: list[str]) -> list[Line]:
    """A line a stage: means over the runs."""
    lines = []
    for stages in zip(*(one.items() for one in runs), strict=True):
        scores = [line for _, (line, _) in stages]
        values = [line["mIoU"] for line in scores]
        ious = np.mean([classes for _, (_, classes) in stages], axis=0)
        lines.append(
            {
                "stage": " / ".join(dict.fromkeys(stage for stage, _ in stages)),
                "mIoU": float(np.mean(values)),
                "spread": float(max(values) - min(values)),
                **{name: float(np.nanmean([line[name] for line in scores])) for name in kinds_of_objects()},
                **dict(zip(["background", *class_names], ious.tolist(), strict=True)),
            }
        )
    return lines


def main() -> int:
    """Score and print."""
    options = parser(__doc__)
    options.add_argument("runs", nargs="+", help="folders of jobs.run, made with --truth")
    options.add_argument("--truth", default=str(PHOTOGRAPHS / "truth"), help="true masks")
    options.add_argument("--part", default="held", choices=("held", "dev", "all"))
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    names = (read_json(str(Path(chosen.runs[0], "masks", "run.json"))) or {})["class_names"]
    found = [measure(run, chosen.truth, chosen.part) for run in chosen.runs]
    report("quality", lines_of(found, names), chosen.json, part=chosen.part, runs=chosen.runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
