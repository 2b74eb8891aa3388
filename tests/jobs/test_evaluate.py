"""The scores that jobs.evaluate writes and shows, and the calibration that it fits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import ConfigError
from engine.imaging.codecs import class_color
from jobs.cli.command import main, parse
from jobs.evaluate import Evaluate, run
from jobs.label import Label
from tests.engine.runs.examples import MASK, OTHER, TRUTH, write_masks, write_truth


def test_score_counts_all_pixels_of_all_images_that_have_truth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = write_masks(tmp_path / "masks", {"a": MASK, "b": OTHER, "c": OTHER})
    truth = write_truth(tmp_path / "truth", {"a": TRUTH, "c": np.zeros((3, 2), dtype=np.uint8), "z": TRUTH})
    result = run(Evaluate(masks=masks, truth=truth))
    # image a: 7 pixels count; image c: 6, all background in truth, 3 of them called dog
    assert result["confusion"] == [[3 + 3, 1, 3], [1, 2, 0], [0, 0, 0]]
    assert result["iou"] == pytest.approx({"background": 6 / 11, "cat": 2 / 4, "dog": 0.0})
    assert result["miou"] == pytest.approx((6 / 11 + 0.5 + 0) / 3)
    assert result["images"] == 2
    assert json.loads((tmp_path / "masks" / ".tag2mask" / "evaluation.json").read_text()) == result
    shown = capsys.readouterr().out
    assert "background" in shown
    assert "54.5" in shown


def test_the_most_confident_images_are_scored_over_their_pixels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blank = np.zeros_like(MASK)
    masks = write_masks(
        tmp_path / "masks", {"a": TRUTH, "b": None, "c": blank, "d": MASK}, {"a": 0.9, "c": 0.2, "d": 0.6}
    )
    truth = write_truth(tmp_path / "truth", dict.fromkeys("abcd", TRUTH))
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
    assert "Most confident images" in shown
    assert "rank correlation 1.00" in shown


def test_calibration_is_a_config_that_jobs_take(tmp_path: Path) -> None:
    ids = [f"{number:02d}" for number in range(24)]
    masks = {name: MASK if number % 2 else TRUTH for number, name in enumerate(ids)}
    confidences = {name: 0.3 if number % 2 else 0.5 for number, name in enumerate(ids)}
    folder = write_masks(tmp_path / "masks", masks, confidences)
    truth = write_truth(tmp_path / "truth", dict.fromkeys(ids, TRUTH))
    run(Evaluate(masks=folder, truth=truth, calibrate=True))
    written = tmp_path / "masks" / ".tag2mask" / "calibration.json"
    options = ["--data", "a", "--cam", "b", "--out", "c", "--config", str(written)]
    confidence = parse(Label, options).settings.confidence
    assert confidence.scale > 1
    assert confidence.offset > 0
    plain = [f"plain-{number}" for number in range(30)]  # without tags, so sure and right
    nothing = {name: np.zeros_like(TRUTH) for name in plain}
    more = write_masks(tmp_path / "more", masks | nothing, confidences | dict.fromkeys(plain, 1.0))
    write_truth(tmp_path / "truth", nothing)
    run(Evaluate(masks=more, truth=truth, calibrate=True))
    fitted = json.loads((tmp_path / "more" / ".tag2mask" / "calibration.json").read_text())
    assert fitted == json.loads(written.read_text())
    for name in plain:
        (tmp_path / "truth" / f"{name}.png").unlink()
    (tmp_path / "truth" / "00.png").unlink()
    for name in ids[1:6]:
        (tmp_path / "truth" / f"{name}.png").unlink()
    with pytest.raises(ConfigError, match=r"^calibrate needs at least 20 images"):
        run(Evaluate(masks=folder, truth=truth, calibrate=True))
    with pytest.raises(ConfigError, match=r"^column must be mask to calibrate its confidence, got 'mask_walk'$"):
        run(Evaluate(masks=folder, truth=truth, calibrate=True, column="mask_walk"))


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("other images", "has no mask for any image in '"),
        ("empty truth", "holds neither PNGs nor mask shards"),
        ("no masks", "run.json"),
        ("no column", "--column must be one of mask for '"),
        ("no mask column", "--column must be one of mask for '"),
        ("no truth", "--truth"),
    ],
)
def test_what_cannot_be_scored_is_the_users_mistake(
    case: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = write_masks(tmp_path / "masks", {"a": MASK})
    truth = write_truth(
        tmp_path / "truth", {} if case == "empty truth" else {"z" if case == "other images" else "a": TRUTH}
    )
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


def test_binary_truth_is_refused_until_a_label_map_says_what_it_means(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cat = np.where(MASK == 1, 1, 0).astype(np.uint8)
    masks = write_masks(tmp_path / "masks", {"a": cat, "b": cat})
    truth = write_truth(tmp_path / "truth", {})
    for name in "ab":
        Image.fromarray(cat * 255).save(tmp_path / "truth" / f"{name}.png")
    assert main(Evaluate, run, ["--masks", masks, "--truth", truth]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "has no class in 2 masks, only background and 255 (ignore); if they are binary, add a labelmap.txt" in line
    (tmp_path / "truth" / "labelmap.txt").write_text("cat:255,255,255\n")
    assert run(Evaluate(masks=masks, truth=truth))["miou"] == 1


def test_what_is_odd_in_truth_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks = write_masks(tmp_path / "masks", {"a": MASK, "b": MASK})
    truth = write_truth(tmp_path / "truth", {"b": MASK.T.copy()})
    swapped = Image.fromarray(np.choose(MASK, [1, 0, 2]).astype(np.uint8))
    swapped.putpalette([*class_color(1), *class_color(0), *class_color(2)])
    swapped.save(tmp_path / "truth" / "a.png")
    assert run(Evaluate(masks=masks, truth=truth))["miou"] == 1
    err = capsys.readouterr().err
    assert "note: true masks read by VOC's colours, as their ids differ: 1" in err
    assert "warning: true masks not scored: 1; 'b': the true mask is 2 x 4 pixels, the image 4 x 2" in err


def test_scores_may_be_written_elsewhere(tmp_path: Path) -> None:
    masks, truth = write_masks(tmp_path / "masks", {"a": MASK}), write_truth(tmp_path / "truth", {"a": TRUTH})
    result = run(Evaluate(masks=masks, truth=truth, out=str(tmp_path / "scores")))
    assert json.loads((tmp_path / "scores" / "evaluation.json").read_text()) == result
    assert not (tmp_path / "masks" / ".tag2mask" / "evaluation.json").exists()
