"""A folder of masks to report on: scenes with their truth, and rows that ended in an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from engine.imaging.codecs import encode_mask
from engine.plain_settings import to_dict
from engine.records import mask_schema, shard_table
from engine.scenes import CLASS_NAMES, make_scene
from engine.storage.run_record import write_json
from engine.storage.shards import write_shard
from tests.jobs.small_runs import small_settings

HOSTILE = "<b onclick=alert(1)>.jpg"


def write_report_shard(folder: Path, shard: int, rows: list[dict[str, Any]]) -> None:
    empty = dict.fromkeys(("height", "width", "mask", "areas", "confidence", "error"))
    batch = {name: [{**empty, **row}[name] for row in rows] for name in (*rows[0].keys(), *empty)}
    write_shard(str(folder), shard, shard_table(batch, mask_schema(keep_stages=False, metadata={})))


def write_report_masks(tmp_path: Path) -> Path:
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
    write_report_shard(folder, 0, rows[:2])
    write_report_shard(folder, 1, rows[2:])
    write_report_record(folder, {})
    return folder


def write_report_record(folder: Path, inputs: dict[str, str]) -> None:
    settings = to_dict(small_settings())
    parts = {"cam": {"inference": settings["cam"]["inference"]}, "walk": settings["walk"]}
    parts["affinity"] = {"inference": settings["affinity"]["inference"]}
    record = {"job": "label", "class_names": list(CLASS_NAMES), "settings": parts, "inputs": inputs}
    write_json(str(folder / ".tag2mask" / "run.json"), record)
