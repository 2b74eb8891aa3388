"""Score the masks of finished runs, stage by stage, on images not used for tuning.

    python -m jobs.run --data MANIFEST --truth FOLDER --out runs/seed0
    python -m jobs.run --data MANIFEST --truth FOLDER --out runs/seed1 --cam.training.rng-seed 1 \\
        --affinity.training.rng-seed 1 --segmentation.training.rng-seed 1
    python -m experiments quality runs/seed0 runs/seed1 [--part held] [--truth FOLDER] [--json FILE]

Parts are those of ``experiments.finished_run``. mIoU is VOC's, one confusion matrix over all pixels. With several runs
every figure is the mean over them, and ``spread`` is the difference between the best and the worst mIoU. The sizes and
``several classes`` are the mean IoU of single classes in single images, by the share of the image that the class
covers, and in images of several classes. The CAM, alone and through the dCRF, is reported at its best alpha on these
images.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.runner import Line, parser, report
from engine.chain import label_chain
from engine.imaging.codecs import decode_map, decode_mask
from engine.imaging.decoding import decode_image
from engine.networks import open_network
from engine.ops.cam import with_background
from engine.ops.crf import DenseCrf
from engine.ops.mask import pseudo_mask, to_probabilities, upsample
from engine.ops.metrics import confusion_matrix, mean_iou
from engine.resources import Decoding
from engine.runs.stage_scores import EARLIER_ROUND, SEGMENTED
from engine.storage.shards import read_shards
from engine.storage.truth import open_truth
from experiments.finished_run import MAX_PIXELS, FinishedRun, images_with_truth, in_part, read_run

SIZES = {"below 5 %": (0.0, 0.05), "5 to 20 %": (0.05, 0.2), "above 20 %": (0.2, 1.01)}
SEVERAL = "several classes"
OBJECTS = (*SIZES, SEVERAL)
"""Per-object columns."""
CAM_ALPHAS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0)

Masks = Iterator[tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]]
"""Truth and mask of each image."""
Figures = tuple[Line, list[float]]
"""mIoU and IoU of single objects, and the IoU of each class, all in percent."""


def stage_columns(run: FinishedRun) -> dict[str, tuple[str, str]]:
    """Map each stage to the folder and column of its masks, in order of execution."""
    num_rounds = run.settings.rounds.num_rounds
    folders = [f"{EARLIER_ROUND.format(number)}/masks" for number in range(1, num_rounds)] + ["masks"]
    names = {"mask_walk": "walk", "mask": "walk + dCRF"}
    stages = {
        f"{name}, round {number}": (run.location(folder), column)
        for number, folder in enumerate(folders, start=1)
        for column, name in names.items()
    }
    return {**stages, "segmentation network": (run.location(SEGMENTED), "mask")}


def masks_of(folder: str, column: str, truth: str, part: str) -> Masks:
    """Read truth and mask of every image in the part that has both."""
    true_masks = open_truth(truth)
    for table in read_shards(folder, ("image_id", "image", column)):
        for row in table.to_pylist():
            true_mask = true_masks.mask_of(row["image_id"], row["image"]) if in_part(row["image_id"], part) else None
            if true_mask is not None and row[column] is not None:
                yield true_mask, decode_mask(row[column]["bytes"])


class Score:
    """Accumulates the scores of one stage over images."""

    def __init__(self, num_classes: int) -> None:
        self._total = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
        self._objects: dict[str, list[float]] = defaultdict(list)

    def add(self, true_mask: NDArray[np.integer[Any]], mask: NDArray[np.integer[Any]]) -> None:
        """Add one image."""
        confusion = confusion_matrix(true_mask, mask, len(self._total) - 1)
        self._total += confusion
        shown = [index for index in range(1, len(confusion)) if confusion[index].sum()]
        for index in shown:
            union = confusion[index].sum() + confusion[:, index].sum() - confusion[index, index]
            area = confusion[index].sum() / confusion.sum()
            kinds = [name for name, (low, high) in SIZES.items() if low <= area < high]
            for name in kinds + ([SEVERAL] if len(shown) > 1 else []):
                self._objects[name].append(100 * confusion[index, index] / union)

    def figures(self) -> Figures:
        """Return the figures over all images added."""
        ious, miou = mean_iou(self._total)
        objects = {name: float(np.mean(self._objects[name] or [np.nan])) for name in OBJECTS}
        return {"mIoU": 100 * miou, **objects}, (100 * ious).tolist()


def scored(masks: Masks, num_classes: int) -> Figures:
    """Compute the figures of one stage."""
    score = Score(num_classes)
    for true_mask, mask in masks:
        score.add(true_mask, mask)
    return score.figures()


def cam_figures(run: FinishedRun, truth: str, part: str) -> dict[str, Figures]:
    """Score the CAM of a run's classifier, with and without dCRF, each at its best alpha."""
    cam = open_network(run.location("cam"), "cam")
    compute_cam = label_chain(run.settings, cam, "", decoding=Decoding(max_pixels=MAX_PIXELS), keep_stages=False)[
        0
    ].build()
    crf, num_classes = run.settings.crf, len(cam.class_names)
    scores = {name: [Score(num_classes) for _ in CAM_ALPHAS] for name in ("CAM", "CAM + dCRF")}
    for image in images_with_truth(run.data, truth, part):
        batch = compute_cam(image.batch(cam.class_names))
        if batch["error"][0] is not None:
            continue
        maps, ids = torch.from_numpy(decode_map(batch["cam"][0])), batch["class_ids"][0]
        size = (image.mask.shape[0], image.mask.shape[1])
        alone = [to_probabilities(upsample(with_background(maps, alpha), size)).numpy() for alpha in CAM_ALPHAS]
        pixels = decode_image(batch["encoded"][0], Decoding(max_pixels=MAX_PIXELS))
        sharpened = DenseCrf(pixels, len(ids) + 1, kernels=crf, backend=crf.backend).infer_many(
            alone, crf.num_iterations
        )
        for name, made in {"CAM": alone, "CAM + dCRF": sharpened}.items():
            for score, probabilities in zip(scores[name], made, strict=True):
                score.add(image.mask, pseudo_mask(probabilities, ids))
    found = {}
    for name, of_alphas in scores.items():
        by_alpha = dict(zip(CAM_ALPHAS, (score.figures() for score in of_alphas), strict=True))
        best = max(by_alpha, key=lambda alpha: by_alpha[alpha][0]["mIoU"])
        found[f"{name} (alpha {best:g})"] = by_alpha[best]
    return found


def measure(run: FinishedRun, part: str, truth: str = "") -> dict[str, Figures]:
    """Compute the figures of every stage of one run.

    Args:
        truth: True masks; by default those that the run was scored with.
    """
    truth = truth or run.truth
    found = cam_figures(run, truth, part)
    for stage, (folder, column) in stage_columns(run).items():
        found[stage] = scored(masks_of(folder, column, truth, part), len(run.class_names))
    return found


def lines_of(runs: list[dict[str, Figures]], class_names: tuple[str, ...]) -> list[Line]:
    """Average each stage over the runs."""
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
                **{name: float(np.nanmean([line[name] for line in scores])) for name in OBJECTS},
                **dict(zip(["background", *class_names], ious.tolist(), strict=True)),
            }
        )
    return lines


def main() -> None:
    options = parser(__doc__)
    options.add_argument("runs", nargs="+", help="output folders of jobs.run --truth")
    options.add_argument("--truth", default="", help="true masks; by default those that each run was scored with")
    options.add_argument("--part", default="held", choices=("held", "dev", "all"))
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    runs = [read_run(folder) for folder in chosen.runs]
    found = [measure(run, chosen.part, chosen.truth) for run in runs]
    report("quality", lines_of(found, runs[0].class_names), chosen.json, part=chosen.part, runs=chosen.runs)
