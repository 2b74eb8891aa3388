"""What the report shows, read from hand-made shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import chain
from engine.errors import ConfigError
from engine.fitting.objectives import Objective
from engine.networks import save_network
from engine.report import ReportData, render_report
from engine.runs import reporting
from engine.runs.options import ReportSource
from engine.runs.reporting import report_data
from engine.scenes import CLASS_NAMES
from engine.storage.weights import weights_hash
from tests.engine.runs.report_examples import HOSTILE, write_report_masks, write_report_record
from tests.jobs.small_runs import small_settings, write_random_cam


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    return write_report_masks(tmp_path)


def _data(masks: Path, **options: Any) -> ReportData:
    return report_data(ReportSource(data=str(masks.parent / "manifest.csv"), masks=str(masks), **options))


def test_rows_are_counted_and_their_pictures_found(masks: Path) -> None:
    found = _data(masks, truth=str(masks.parent / "truth"))
    assert found.num_images == 5
    assert found.error_counts == {"walk": 1, "fetch": 1}
    assert found.errors == [("3.png", "walk: odd"), (HOSTILE, "fetch: gone")]
    images = {image.image_id: image for image in found.images}
    assert [images[f"{number}.png"].iou for number in range(3)] == [1.0] * 3
    assert images["3.png"].photograph is not None  # to be looked at
    assert images["3.png"].mask is None
    assert images[HOSTILE].photograph is None
    assert found.miou is not None
    assert 0 < found.miou["crf"] < 1  # the one with truth that failed counts as background


@pytest.mark.parametrize(
    ("data", "title"),
    [
        ("shards/", "shards/"),
        ("./", "./"),
        ("manifest.csv", "manifest.csv"),
        ("a/b/manifest.csv", "b"),
        ("s3://bucket/shards/", "bucket"),
    ],
)
def test_any_place_of_the_images_has_a_title(masks: Path, data: str, title: str) -> None:
    found = report_data(ReportSource(data=data, masks=str(masks)))
    assert found.title == title
    assert render_report(found).count('<figure class="card"') == 5


def test_areas_of_a_networks_own_masks_are_not_those_of_the_tags(masks: Path) -> None:
    areas = _data(masks).areas
    assert areas is not None
    assert sum(areas) == pytest.approx(1)
    assert "Class areas" in render_report(_data(masks))
    path = masks / ".tag2mask" / "run.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "job": "segment"}))
    assert _data(masks).areas is None
    assert "Class areas" not in render_report(_data(masks))


def test_maps_are_made_again_by_the_networks_that_made_the_masks(masks: Path, tmp_path: Path) -> None:
    cam = write_random_cam(tmp_path / "cam")
    objective = Objective.of(small_settings().affinity, CLASS_NAMES)
    affinity = str(tmp_path / "affinity")
    save_network(f"{affinity}/weights.safetensors", objective.architecture, objective.build().state_dict())
    with pytest.raises(ConfigError, match=r"^cam '.*' did not make the masks"):
        _data(masks, cam=cam)
    write_report_record(masks, {"cam": weights_hash(cam), "affinity": weights_hash(affinity)})
    with pytest.raises(ConfigError, match=r"^affinity '.*' did not make the masks"):
        _data(masks, cam=cam, affinity=cam)
    page = render_report(_data(masks, cam=cam, affinity=affinity))
    assert page.count('data-layer="cam"') == page.count('data-layer="walked"') == 3
    assert 'data-layer="walked"' not in render_report(_data(masks, cam=cam))


def test_networks_of_a_report_run_with_an_actors_threads(
    masks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cam = write_random_cam(tmp_path / "cam")
    write_report_record(masks, {"cam": weights_hash(cam)})
    before, seen = torch.get_num_threads(), list[int]()

    def run_chain(steps: Any, batch: Any) -> Any:
        seen.append(torch.get_num_threads())
        return chain.run_chain(steps, batch)

    monkeypatch.setattr(reporting, "run_chain", run_chain)
    torch.set_num_threads(3)
    try:
        _data(masks, cam=cam)
        assert (seen, torch.get_num_threads()) == ([1], 3)
    finally:
        torch.set_num_threads(before)


def test_networks_are_found_in_the_folder_of_a_whole_run(masks: Path, tmp_path: Path) -> None:
    cam = write_random_cam(tmp_path / "run" / "cam")
    (tmp_path / "run" / "cam" / "run.json").write_text("{}")
    write_report_record(masks, {"cam": weights_hash(cam)})
    found = _data(masks, run_folder=str(tmp_path / "run"))
    assert sum(image.cam is not None for image in found.images) == 3
    write_report_record(masks, {"cam": "of another network"})
    assert all(image.cam is None for image in _data(masks, run_folder=str(tmp_path / "run")).images)
