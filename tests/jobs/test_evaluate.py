"""Scores of hand-made masks against hand-made truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.errors import ConfigError, StorageError
from engine.imaging.codecs import encode_mask
from engine.records import mask_schema, shard_table
from engine.storage.shards import write_shard
from jobs.cli.command import main, parse
from jobs.evaluate import Evaluate, run
from jobs.label import Label

CLASS_NAMES = ["cat", "dog"]
TRUTH = np.array([[0, 0, 1, 1], [0, 0, 1, 255]], dtype=np.uint8)
MASK = np.array([[0, 1, 1, 1], [0, 0, 0, 2]], dtype=np.uint8)
OTHER = np.array([[2, 2], [0, 0], [0, 2]], dtype=np.uint8)


def _shards(
    folder: Path,
    masks: dict[str, NDArray[Any] | None],
    confidences: dict[str, float] | None = None,
    **more: dict[str, NDArray[Any]],
) -> str:
    """Mask shards of two rows; a mask that is None is an error row."""
    ids = list(masks)
    schema = mask_schema(keep_stages=bool(more), metadata={})
    for shard, start in enumerate(range(0, len(ids), 2)):
        part = ids[start : start + 2]
        encoded = [None if (mask := masks[name]) is None else encode_mask(mask) for name in part]
        batch: dict[str, list[Any]] = {
            "image_id": part,
            "image": [f"photos/{name}.jpg" for name in part],
            "mask": encoded,
            "error": ["decode: odd" if one is None else None for one in encoded],
            **{name: [None] * len(part) for name in ("height", "width", "tags", "areas")},
            "confidence": [(confidences or {}).get(name) for name in part],
            **{column: [encode_mask(values[name]) for name in part] for column, values in more.items()},
        }
        write_shard(str(folder), shard, shard_table(batch, schema))
    (folder / "run.json").write_text(json.dumps({"job": "label", "class_names": CLASS_NAMES}))
    return str(folder)


def _pngs(folder: Path, masks: dict[str, NDArray[Any]]) -> str:
    folder.mkdir(exist_ok=True)
    for name, mask in masks.items():
        (folder / f"{name}.png").write_bytes(encode_mask(mask))
    return str(folder)


def test_score_counts_all_pixels_of_all_images_that_have_truth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = _shards(tmp_path / "masks", {"a": MASK, "b": OTHER, "c": OTHER})
    truth = _pngs(tmp_path / "truth", {"a": TRUTH, "c": np.zeros((3, 2), dtype=np.uint8), "z": TRUTH})
    result = run(Evaluate(masks=masks, truth=truth))
    # image a: 7 pixels count; image c: 6, all background in truth, 3 of them called dog
    assert result["confusion"] == [[3 + 3, 1, 3], [1, 2, 0], [0, 0, 0]]
    assert result["iou"] == pytest.approx({"background": 6 / 11, "cat": 2 / 4, "dog": 0.0})
    assert result["miou"] == pytest.approx((6 / 11 + 0.5 + 0) / 3)
    assert result["images"] == 2
    assert json.loads((tmp_path / "masks" / "evaluation.json").read_text()) == result
    shown = capsys.readouterr().out
    assert "background" in shown
    assert "54.5" in shown


def test_class_that_is_nowhere_is_left_out_of_the_mean(tmp_path: Path) -> None:
    masks = _shards(tmp_path / "masks", {"a": np.where(MASK == 2, 0, MASK).astype(np.uint8)})
    result = run(Evaluate(masks=masks, truth=_pngs(tmp_path / "truth", {"a": TRUTH}), out=str(tmp_path / "scores")))
    assert result["iou"].keys() == {"background", "cat"}
    assert result["miou"] == pytest.approx((3 / 5 + 2 / 4) / 2)
    assert (tmp_path / "scores" / "evaluation.json").is_file()


def test_perfect_masks_score_one_against_shards(tmp_path: Path) -> None:
    masks = {"a": MASK, "b": OTHER, "c": OTHER}
    result = run(
        Evaluate(masks=_shards(tmp_path / "masks", masks), truth=_shards(tmp_path / "truth", {"x": MASK, **masks}))
    )
    assert result["miou"] == 1
    assert result["images"] == 3


def test_shards_of_other_classes_are_no_truth(tmp_path: Path) -> None:
    masks, truth = _shards(tmp_path / "masks", {"a": MASK}), _shards(tmp_path / "truth", {"a": MASK})
    record = {"job": "label", "class_names": CLASS_NAMES[::-1]}
    (tmp_path / "truth" / "run.json").write_text(json.dumps(record))
    with pytest.raises(StorageError, match=r"has the classes dog, cat; allowed: those of the masks, cat, dog"):
        run(Evaluate(masks=masks, truth=truth))


def test_image_that_ended_in_an_error_counts_as_all_background(tmp_path: Path) -> None:
    masks = _shards(tmp_path / "masks", {"a": None})
    result = run(Evaluate(masks=masks, truth=_pngs(tmp_path / "truth", {"a": TRUTH})))
    assert result["confusion"] == [[4, 0, 0], [3, 0, 0], [0, 0, 0]]


def test_masks_of_the_stages_are_scored_by_their_column(tmp_path: Path) -> None:
    stages = {"mask_cam": {"a": np.zeros_like(MASK)}, "mask_walk": {"a": MASK}}
    masks = _shards(tmp_path / "masks", {"a": TRUTH}, **stages)
    truth = _pngs(tmp_path / "truth", {"a": TRUTH})
    scores = {
        column: run(Evaluate(masks=masks, truth=truth, column=column))["miou"]
        for column in ("mask", "mask_cam", "mask_walk")
    }
    assert scores["mask_cam"] < scores["mask_walk"] < scores["mask"] == 1


def test_the_surest_images_are_scored_over_their_pixels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blank = np.zeros_like(MASK)
    masks = _shards(tmp_path / "masks", {"a": TRUTH, "b": None, "c": blank, "d": MASK}, {"a": 0.9, "c": 0.2, "d": 0.6})
    truth = _pngs(tmp_path / "truth", dict.fromkeys("abcd", TRUTH))
    confidence = run(Evaluate(masks=masks, truth=truth))["confidence"]
    half, most, all_of_them = confidence["best"]
    # a is right in all 7 pixels; d in 3 of 5 that are background in either, and 2 of 4 cat
    assert half == {
        "fraction": 0.5,
        "least_confidence": pytest.approx(0.6),
        "miou": pytest.approx((7 / 9 + 5 / 7) / 2),
    }
    assert most["least_confidence"] == pytest.approx(0.2)
    assert all_of_them["least_confidence"] == 0  # the image with an error comes last
    assert half["miou"] > most["miou"] > all_of_them["miou"]
    assert confidence["rank_correlation"] == pytest.approx(1)
    assert confidence["mean"] == pytest.approx((0.9 + 0.2 + 0.6) / 3)
    shown = capsys.readouterr().out
    assert "The surest images" in shown
    assert "rank correlation 1.00" in shown


def test_calibration_is_a_config_that_jobs_take(tmp_path: Path) -> None:
    ids = [f"{number:02d}" for number in range(24)]
    masks = {name: MASK if number % 2 else TRUTH for number, name in enumerate(ids)}
    confidences = {name: 0.3 if number % 2 else 0.5 for number, name in enumerate(ids)}
    folder = _shards(tmp_path / "masks", masks, confidences)  # type: ignore[arg-type]
    truth = _pngs(tmp_path / "truth", dict.fromkeys(ids, TRUTH))
    run(Evaluate(masks=folder, truth=truth, calibrate=True))
    written = tmp_path / "masks" / "calibration.json"
    options = ["--data", "a", "--cam", "b", "--out", "c", "--config", str(written)]
    confidence = parse(Label, options).confidence
    assert confidence.scale > 1
    assert confidence.offset > 0
    plain = [f"plain-{number}" for number in range(30)]  # without tags, so sure and right
    nothing = {name: np.zeros_like(TRUTH) for name in plain}
    more = _shards(tmp_path / "more", masks | nothing, confidences | dict.fromkeys(plain, 1.0))  # type: ignore[arg-type]
    _pngs(tmp_path / "truth", nothing)
    run(Evaluate(masks=more, truth=truth, calibrate=True))
    fitted = json.loads((tmp_path / "more" / "calibration.json").read_text())
    assert fitted == json.loads(written.read_text())
    for name in plain:
        (tmp_path / "truth" / f"{name}.png").unlink()
    (tmp_path / "truth" / "00.png").unlink()
    for name in ids[1:6]:
        (tmp_path / "truth" / f"{name}.png").unlink()
    with pytest.raises(ConfigError, match="20 or more"):
        run(Evaluate(masks=folder, truth=truth, calibrate=True))
    with pytest.raises(ConfigError, match="--column mask"):
        run(Evaluate(masks=folder, truth=truth, calibrate=True, column="mask_walk"))


def test_sizes_that_differ_are_said_with_the_image(tmp_path: Path) -> None:
    masks = _shards(tmp_path / "masks", {"a": MASK})
    with pytest.raises(StorageError, match="image 'a' and its truth do not fit"):
        run(Evaluate(masks=masks, truth=_pngs(tmp_path / "truth", {"a": OTHER})))


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("other images", "has no mask of an image in --masks"),
        ("empty truth", "holds neither PNGs nor mask shards"),
        ("no masks", "run.json"),
        ("no column", "--column is 'mask_walk'; allowed for"),
        ("no mask column", "--column is 'tags'; allowed for"),
        ("no truth", "--truth"),
    ],
)
def test_what_cannot_be_scored_is_the_users_mistake(
    case: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = _shards(tmp_path / "masks", {"a": MASK})
    truth = _pngs(tmp_path / "truth", {} if case == "empty truth" else {"z" if case == "other images" else "a": TRUTH})
    arguments = ["--masks", masks, "--truth", truth]
    if case == "no masks":
        arguments[1] = str(tmp_path)
    elif case == "no column":
        arguments += ["--column", "mask_walk"]
    elif case == "no mask column":
        arguments += ["--column", "tags"]
    elif case == "no truth":
        arguments[3] = str(tmp_path / "nowhere")
    assert main(Evaluate, run, arguments) == 2
    err = capsys.readouterr().err
    assert words in err.splitlines()[-1]


def test_folder_that_no_job_wrote_has_no_classes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"allowed: a folder of jobs\.label"):
        run(Evaluate(masks=str(tmp_path), truth=str(tmp_path)))
