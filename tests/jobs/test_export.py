"""jobs.export over hand-made mask shards: what it writes, leaves out, counts and refuses."""

from __future__ import annotations

import csv
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from engine.errors import ConfigError, OutputError, TooManyErrors
from engine.imaging.codecs import decode_mask, encode_mask
from engine.imaging.decoding import image_size
from engine.records import mask_schema, shard_table
from engine.storage.filesystem import read_bytes
from engine.storage.manifest import Manifest
from engine.storage.run_record import read_json
from engine.storage.shards import read_shard, write_shard
from engine.storage.tally import Tally
from jobs import export
from jobs.cli.command import main, parse
from jobs.export import _newly_labeled
from tests.engine.export.examples import IDS, ring, upload_labeled_folder, write_labeled_folder
from tests.s3_server import S3Server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labeled_folder(tmp_path_factory.mktemp("labeled"))


def _options(folder: Path, out: Path, *more: str) -> list[str]:
    data, masks = str(folder / "data" / "manifest.csv"), str(folder / "masks")
    return ["--data", data, "--masks", masks, "--out", str(out), *more]


def _run(*options: str) -> dict[str, Any]:
    return export.run(parse(export.Export, options))


def test_images_without_a_good_mask_are_left_out_and_counted(folder: Path, tmp_path: Path, without_ray: None) -> None:
    out = tmp_path / "out"
    options = _options(folder, out, "--format", "png", "--min-confidence", "0.5")
    summary = _run(*options)
    assert (summary["exported"], summary["skipped"], summary["errors"]) == (3, {"mask": 1, "confidence": 1}, {})
    assert sorted(path.name for path in (out / "masks").iterdir()) == [
        "%2E.%2Fb%20c.png",
        "photos%2Fa.png",
        "photos%2Flost.png",
    ]
    np.testing.assert_array_equal(decode_mask((out / "masks" / "photos%2Fa.png").read_bytes()), ring(class_id=1))
    with (out / "index.csv").open() as file:
        assert [(row["name"], row["image_id"]) for row in csv.DictReader(file)] == [
            ("photos%2Fa", "photos/a.jpg"),
            ("%2E.%2Fb%20c", "../b c.jpg"),
            ("photos%2Flost", "photos/lost.jpg"),
        ]
    assert read_json(str(out / "summary.json")) == summary
    # the same command finds all done, and writes again what somebody deleted of the lists
    (out / "classes.txt").unlink()
    assert _run(*options)["exported"] == 3
    assert (out / "classes.txt").read_text() == "cat\ndog\ncow\n"

    # nor does it miss a mask that was mended since
    mended = tmp_path / "mended"
    shutil.copytree(folder, mended)
    place = next(shard for shard in range(3) if IDS.index("photos/broken.jpg") // 2 == shard)
    rows = read_shard(str(mended / "masks"), place).to_pylist()
    for row in rows:
        row |= {
            "height": 40,
            "width": 60,
            "error": None,
            "mask": row["mask"] or {"bytes": encode_mask(ring(class_id=1))},
        }
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    columns["mask"] = [mask["bytes"] for mask in columns["mask"]]
    exported = Tally(str(out / ".tag2mask" / "export"))
    assert _newly_labeled(exported, str(folder / "masks")) == []
    write_shard(str(mended / "masks"), place, shard_table(columns, mask_schema(keep_stages=False, metadata={})))
    assert _newly_labeled(exported, str(mended / "masks")) == [place]

    with pytest.raises(OutputError, match=r"inputs\.format"):
        _run(*_options(folder, out, "--format", "voc"))
    (out / "mine.txt").write_text("keep me")
    with pytest.raises(TooManyErrors, match=r"1 of 5 images ended in an error \(fetch: 1\)"):
        _run(*_options(folder, out, "--format", "voc", "--overwrite"))
    # what could be exported is complete all the same
    root = out / "VOCdevkit" / "VOC2012"
    assert (root / "ImageSets/Segmentation/trainval.txt").read_text().splitlines() == [
        "photos%2Fa",
        "%2E.%2Fb%20c",
        "photos%2Funsure",
    ]
    assert sorted(path.name for path in (root / "JPEGImages").iterdir()) == [
        "%2E.%2Fb%20c.jpg",
        "photos%2Fa.jpg",
        "photos%2Funsure.jpg",
    ]
    assert not (out / "masks").exists()
    assert not (out / "classes.txt").exists()
    assert (out / "mine.txt").read_text() == "keep me"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mended", "out"]


@pytest.mark.s3
def test_masks_images_and_export_may_all_lie_in_a_bucket(
    folder: Path, tmp_path: Path, s3: S3Server, without_ray: None
) -> None:
    bucket = s3.make_bucket(f"export-{uuid.uuid4().hex[:12]}")
    upload_labeled_folder(folder, bucket)
    places = ["--data", f"{bucket}/data/manifest.csv", "--masks", f"{bucket}/masks"]
    options = [*places, "--out", f"{bucket}/coco", "--format", "coco", "--images", "copy", "--max-error-fraction", "1"]
    summary = _run(*options)
    assert (summary["exported"], summary["skipped"], summary["errors"]) == (3, {"mask": 1}, {"fetch": 1})
    lists = tmp_path / "instances.json"
    lists.write_bytes(read_bytes(f"{bucket}/coco/annotations/instances_train.json"))
    found = COCO(str(lists))
    for image in found.loadImgs(found.getImgIds()):
        picture = read_bytes(f"{bucket}/coco/images/{image['file_name']}")
        assert image_size(picture, 10**6) == (image["height"], image["width"]) == (40, 60)
        mask = np.zeros((40, 60), np.uint8)
        for segment in found.loadAnns(found.getAnnIds(image["id"])):
            mask[found.annToMask(segment) > 0] = segment["category_id"]
        expected = ring(class_id=1 + IDS.index(image["image_id"]) % 3)
        np.testing.assert_array_equal(mask, np.where(expected == 255, 0, expected))
    # the same command finds all done
    before = read_bytes(f"{bucket}/coco/index.csv")
    assert _run(*options)["exported"] == 3
    assert read_bytes(f"{bucket}/coco/index.csv") == before


def test_images_inside_of_other_files_cannot_be_referred_to(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Manifest, "embeds_pictures", True)
    with pytest.raises(ConfigError, match=r"^images must be auto or copy, as '.*' holds the images itself$"):
        _run(*_options(folder, tmp_path / "out", "--format", "coco", "--images", "refer"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--format", "jpeg"], "jpeg"),
        ([], "--format"),
        (["--format", "png", "--min-confidence", "2"], "--min-confidence must be from 0 to 1, got 2.0"),
        (["--format", "png", "--data", "other.csv"], "a manifest other than data"),
        (["--format", "png", "--masks", "data"], "has no run.json; give the output folder of jobs.label"),
        (["--format", "png", "--out", "data"], "contains files but no run.json"),
        (["--format", "yolo"], "--val-fraction must be above 0 for yolo"),
        (["--format", "datasets", "--images", "refer"], "--images must be auto or copy for datasets"),
    ],
)
def test_what_cannot_be_exported_is_the_users_mistake(
    options: list[str], words: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.csv").write_text("image,tags\na.jpg,cat\n")
    places = {"other.csv": str(tmp_path / "other.csv"), "data": str(folder / "data")}
    arguments = _options(folder, tmp_path / "out", *(places.get(option, option) for option in options))
    assert main(export.Export, export.run, arguments) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]  # after where the settings come from


def test_references_to_images_of_coco_are_warned_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = _options(folder, folder / "data", "--format", "coco", "--images", "refer")
    assert main(export.Export, export.run, options) == 2  # it is no output folder
    assert "warning: readers of coco ignore EXIF orientation" in capsys.readouterr().err
