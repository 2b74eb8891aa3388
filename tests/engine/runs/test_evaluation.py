"""Scores of hand-made masks against hand-made truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ConfigError, StorageError
from engine.runs.evaluation import LEAST_CALIBRATED, calibration, score, score_images
from tests.engine.runs.examples import CLASS_NAMES, MASK, OTHER, TRUTH, write_masks, write_truth


def test_perfect_masks_score_one_against_shards(tmp_path: Path) -> None:
    masks = {"a": MASK, "b": OTHER, "c": OTHER}
    result = score(write_masks(tmp_path / "masks", masks), write_masks(tmp_path / "truth", {"x": MASK, **masks}))
    assert result["miou"] == 1
    assert result["images"] == 3


def test_shards_of_other_classes_are_no_truth(tmp_path: Path) -> None:
    masks, truth = write_masks(tmp_path / "masks", {"a": MASK}), write_masks(tmp_path / "truth", {"a": MASK})
    record = {"job": "label", "class_names": CLASS_NAMES[::-1]}
    (tmp_path / "truth" / ".tag2mask" / "run.json").write_text(json.dumps(record))
    with pytest.raises(StorageError, match=r"^truth '.*' has the classes dog, cat; the masks have cat, dog$"):
        score(masks, truth)


def test_image_that_ended_in_an_error_counts_as_all_background(tmp_path: Path) -> None:
    masks = write_masks(tmp_path / "masks", {"a": None})
    result = score(masks, write_truth(tmp_path / "truth", {"a": TRUTH}))
    assert result["confusion"] == [[4, 0, 0], [3, 0, 0], [0, 0, 0]]


def test_masks_of_the_stages_are_scored_by_their_column(tmp_path: Path) -> None:
    stages = {"mask_cam": {"a": np.zeros_like(MASK)}, "mask_walk": {"a": MASK}}
    masks = write_masks(tmp_path / "masks", {"a": TRUTH}, stages=stages)
    truth = write_truth(tmp_path / "truth", {"a": TRUTH})
    scores = {column: score(masks, truth, column)["miou"] for column in ("mask", "mask_cam", "mask_walk")}
    assert scores["mask_cam"] < scores["mask_walk"] < scores["mask"] == 1


def test_truth_of_another_size_is_left_out_and_the_others_are_scored(tmp_path: Path) -> None:
    masks = write_masks(tmp_path / "masks", {"a": MASK, "b": MASK, "c": MASK})
    truth = write_truth(tmp_path / "truth", {"a": MASK, "b": MASK.T.copy(), "c": OTHER})
    result = score(masks, truth)
    assert (result["images"], result["miou"]) == (1, 1)
    assert result["left_out"].keys() == {"b", "c"}
    assert result["left_out"]["b"].startswith("the true mask is 2 x 4 pixels, the image 4 x 2; was it made")
    assert result["left_out"]["c"] == "the true mask is 2 x 3 pixels, the image 4 x 2"
    (tmp_path / "truth" / "a.png").unlink()
    with pytest.raises(StorageError, match=r"has no mask of its image's size: 'b': .* \(and 1 more\)"):
        score(masks, truth)


def test_class_that_the_masks_do_not_know_is_said_with_the_image(tmp_path: Path) -> None:
    masks = write_masks(tmp_path / "masks", {"a": MASK})
    with pytest.raises(
        StorageError, match=r"the mask of 'a' does not match its truth: truth must hold 0..2 or 255, got 7"
    ):
        score(masks, write_truth(tmp_path / "truth", {"a": np.full_like(MASK, 7)}))


def test_folder_that_no_job_wrote_has_no_classes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^masks '.*' has no run\.json; give the output folder of jobs\.label"):
        score(str(tmp_path), str(tmp_path))


def test_class_that_is_nowhere_is_left_out_of_the_mean(tmp_path: Path) -> None:
    masks = write_masks(tmp_path / "masks", {"a": np.where(MASK == 2, 0, MASK).astype(np.uint8)})
    result = score(masks, write_truth(tmp_path / "truth", {"a": TRUTH}))
    assert result["iou"].keys() == {"background", "cat"}
    assert result["miou"] == pytest.approx((3 / 5 + 2 / 4) / 2)


def test_confidences_that_are_too_few_are_not_calibrated(tmp_path: Path) -> None:
    ids = [f"{number:02d}" for number in range(LEAST_CALIBRATED)]
    masks = {name: MASK if number % 2 else TRUTH for number, name in enumerate(ids)}
    confidences = {name: 0.3 if number % 2 else 0.5 for number, name in enumerate(ids)}
    truth = write_truth(tmp_path / "truth", dict.fromkeys(ids, TRUTH))
    enough = write_masks(tmp_path / "masks", masks, confidences)
    assert calibration(enough, score_images(enough, truth))["images"] == LEAST_CALIBRATED
    confidences["00"] = 1.0  # that of an image without tags, which no setting moves
    few = write_masks(tmp_path / "few", masks, confidences)
    with pytest.raises(ConfigError, match=r"^calibrate needs at least 20 images with a mask and truth, got 19$"):
        calibration(few, score_images(few, truth))
