"""The report of hand-made shards: what it shows of masks, errors and maps, and how large it may become."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.fitting.objectives import Objective
from engine.imaging.codecs import encode_mask
from engine.networks import save_network
from engine.plain_settings import to_dict
from engine.records import mask_schema, shard_table
from engine.scenes import CLASS_NAMES, make_scene
from engine.storage.shards import write_shard
from engine.storage.weights import weights_hash
from jobs.cli.command import main
from jobs.report import Report, run
from tests.jobs.small_runs import small_settings, write_random_cam

HOSTILE = "<b onclick=alert(1)>.jpg"


def _write_shard(folder: Path, shard: int, rows: list[dict[str, Any]]) -> None:
    empty = dict.fromkeys(("height", "width", "mask", "areas", "confidence", "error"))
    batch = {name: [{**empty, **row}[name] for row in rows] for name in (*rows[0].keys(), *empty)}
    write_shard(str(folder), shard, shard_table(batch, mask_schema(keep_stages=False, metadata={})))


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """Three scenes with true masks for masks; a picture that failed in the walk and one that is gone."""
    (tmp_path / "manifest.csv").write_text("image,tags\n")
    folder, truth = tmp_path / "masks", tmp_path / "truth"
    truth.mkdir()
    rows: list[dict[str, Any]] = []
    for index in range(4):
        photograph, mask, tags = make_scene(0, index, width=96, height=96)
        Image.fromarray(photograph).save(tmp_path / f"{index}.png")
        (truth / f"{index}.png").write_bytes(encode_mask(mask))
        row: dict[str, Any] = {"image_id": f"{index}.png", "image": f"{index}.png", "tags": tags}
        if index == 3:
            rows.append({**row, "error": "walk: odd"})
            continue
        shares = [float((mask == class_id).mean()) for class_id in (0, *(CLASS_NAMES.index(tag) + 1 for tag in tags))]
        rows.append({**row, "mask": encode_mask(mask), "areas": shares, "confidence": 0.5 + index / 10})
    rows.append({"image_id": HOSTILE, "image": HOSTILE, "tags": [HOSTILE], "error": "fetch: gone"})
    _write_shard(folder, 0, rows[:2])
    _write_shard(folder, 1, rows[2:])
    _write_record(folder, {})
    return folder


def _write_record(folder: Path, inputs: dict[str, str]) -> None:
    settings = to_dict(small_settings())
    parts = {"cam": {"inference": settings["cam"]["inference"]}, "walk": settings["walk"]}
    parts["affinity"] = {"inference": settings["affinity"]["inference"]}
    (folder / "run.json").write_text(
        json.dumps({"job": "label", "class_names": list(CLASS_NAMES), "settings": parts, "inputs": inputs})
    )


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


@pytest.mark.parametrize("data", ["shards/", "./", "manifest.csv", "a/b/manifest.csv", "s3://bucket/shards/"])
def test_any_place_of_the_images_has_a_title(masks: Path, data: str) -> None:
    page = Path(run(Report(data=data, masks=str(masks)))["report"]).read_text()
    assert page.count('<figure class="card"') == 5


def test_areas_of_a_networks_own_masks_are_not_those_of_the_tags(masks: Path) -> None:
    assert "Class areas" in _report(masks)
    record = json.loads((masks / "run.json").read_text())
    (masks / "run.json").write_text(json.dumps({**record, "job": "segment"}))
    assert "Class areas" not in _report(masks)


def test_maps_are_made_again_by_the_networks_that_made_the_masks(masks: Path, tmp_path: Path) -> None:
    cam = write_random_cam(tmp_path / "cam")
    objective = Objective.of(small_settings().affinity, CLASS_NAMES)
    affinity = str(tmp_path / "affinity")
    save_network(f"{affinity}/weights.safetensors", objective.architecture, objective.build().state_dict())
    arguments = ["--data", str(tmp_path / "manifest.csv"), "--masks", str(masks), "--cam", cam]
    assert main(Report, run, arguments) == 2  # of another network than the record names
    _write_record(masks, {"cam": weights_hash(cam), "affinity": weights_hash(affinity)})
    page = _report(masks, cam=cam, affinity=affinity)
    assert page.count('data-layer="cam"') == page.count('data-layer="walked"') == 3
    assert 'data-layer="walked"' not in _report(masks, cam=cam)


def test_many_masks_make_a_small_report_that_shows_some(masks: Path) -> None:
    mask = encode_mask(np.zeros((4, 5), np.uint8))
    for shard in range(2, 6):
        rows = [
            {"image_id": f"{shard}/{number}", "image": "0.png", "tags": [], "mask": mask, "areas": [1.0]}
            for number in range(2000)
        ]
        _write_shard(masks, shard, [{**row, "confidence": number / 2000} for number, row in enumerate(rows)])
    page = _report(masks, num_images=8)
    assert page.count('<figure class="card"') == 8 + 2
    assert "8\u202f005" in page
    assert len(page) < 200_000
