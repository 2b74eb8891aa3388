"""The report of hand-made shards: what its page shows of masks and errors, and how large it may become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.imaging.codecs import encode_mask
from engine.scenes import CLASS_NAMES
from jobs.cli.command import main
from jobs.report import Report, run
from tests.engine.runs.report_examples import write_report_masks, write_report_shard
from tests.jobs.small_runs import write_random_cam


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    return write_report_masks(tmp_path)


def _report(masks: Path, **options: Any) -> str:
    made = run(Report(data=str(masks.parent / "manifest.csv"), masks=str(masks), **options))
    return Path(made["report"]).read_text()


def test_masks_errors_and_scores_are_shown(masks: Path) -> None:
    page = _report(masks, truth=str(masks.parent / "truth"))
    assert page.count('<figure class="card"') == 5
    assert page.count('<img class="photograph"') == 4  # the failed picture is there to be looked at; the lost one not
    assert page.count('data-layer="wrong"') == 3
    assert "walk: odd" in page
    assert "fetch: gone" in page
    assert "<b onclick" not in page
    assert 'id="best"' in page
    assert "100.0\u00a0%" in page


def test_untagged_images_are_not_the_surest_and_empty_masks_of_a_tag_are_counted(
    masks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = encode_mask(np.zeros((4, 5), np.uint8))
    row = {"image": "0.png", "mask": mask, "confidence": 1.0}
    sure = {**row, "image_id": "untagged", "tags": [], "areas": [1.0]}
    lost = {**row, "image_id": "lost", "tags": [CLASS_NAMES[0]], "areas": [1.0, 0.0], "confidence": 0.2}
    write_report_shard(masks, 2, [sure, lost])
    page = _report(masks)
    assert f"most often {CLASS_NAMES[0]} (1 of" in page
    assert f"Tags without a pixel in their mask: 1, most often {CLASS_NAMES[0]}" in capsys.readouterr().out
    assert f"no pixel of {CLASS_NAMES[0]}" in page
    assert "1 of 4 masks (25.0\u00a0%)" in page  # those of tagged images
    cards = {card.split("</figure>")[0] for card in page.split('<figure class="card"')[1:]}
    (untagged,) = [card for card in cards if ">untagged<" in card]
    assert 'data-group="random"' in untagged


def test_next_steps_are_commands_with_these_paths(masks: Path) -> None:
    page = _report(masks)
    assert f"tag2mask export --data {masks.parent}/manifest.csv --masks {masks} --format voc" in page


def test_many_masks_make_a_small_report_that_shows_some(masks: Path) -> None:
    mask = encode_mask(np.zeros((4, 5), np.uint8))
    for shard in range(2, 6):
        rows = [
            {"image_id": f"{shard}/{number}", "image": "0.png", "tags": [], "mask": mask, "areas": [1.0]}
            for number in range(2000)
        ]
        write_report_shard(masks, shard, [{**row, "confidence": number / 2000} for number, row in enumerate(rows)])
    page = _report(masks, num_images=8)
    assert page.count('<figure class="card"') == 8 + 2
    assert "8\u202f005" in page
    assert len(page) < 250_000


def test_network_that_did_not_make_the_masks_is_refused(
    masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cam = write_random_cam(tmp_path / "cam")
    assert main(Report, run, ["--data", str(tmp_path / "manifest.csv"), "--masks", str(masks), "--cam", cam]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: --cam '{cam}' did not make the masks; give the folder that jobs.label used"
