"""Every format, read back by the program it is for where that can be installed here."""

from __future__ import annotations

import io
import json
import uuid
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image

from engine.errors import ConfigError
from engine.export import FORMATS, FormatOptions
from engine.export.label_studio import encode_brush
from engine.export.yolo import polygons_of
from engine.imaging.codecs import decode_mask
from engine.storage.filesystem import list_names, read_bytes
from tests.engine.export.examples import CLASS_NAMES, Labeled, export, jpeg, open_text, ring
from tests.s3_server import S3Server

WILD = "../../up/'q\" ü #?.jpg"


@pytest.fixture
def items() -> list[Labeled]:
    """An upright image, one that its EXIF orientation turns, a PNG under a wild id, one without a mask."""
    return [
        Labeled(image_id="images/a.jpg", mask=ring(), encoded=jpeg(40, 60)),
        Labeled(image_id="images/b.jpg", mask=ring(class_id=3), encoded=jpeg(60, 40, orientation=6)),
        Labeled(image_id=WILD, mask=np.zeros((40, 60), np.uint8), encoded=jpeg(40, 60, kind="PNG"), tags=()),
        Labeled(image_id="images/c.jpg", mask=ring(), encoded=b"", error="mask: decode: truncated"),
    ]


def test_torchvision_reads_voc(items: list[Labeled], tmp_path: Path) -> None:
    from torchvision.datasets import VOCSegmentation

    export(str(tmp_path / "out"), "voc", items)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]  # the wild id stayed inside
    read = VOCSegmentation(str(tmp_path / "out"), year="2012", image_set="train")
    assert len(read) == 3
    for (image, mask), item in zip(read, items, strict=False):
        assert image.size == mask.size == (60, 40)
        np.testing.assert_array_equal(np.asarray(mask), item.mask)
    assert mask.mode == "P"


def test_voc_divides_images_by_their_ids_alone(tmp_path: Path) -> None:
    items = [Labeled(image_id=f"{n}.jpg", mask=ring(), encoded=jpeg(40, 60)) for n in range(40)]
    export(str(tmp_path), "voc", items, val_fraction=0.3, copy=False)
    sets = tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    train, val, both = ((sets / f"{name}.txt").read_text().split() for name in ("train", "val", "trainval"))
    assert both == [str(n) for n in range(40)]
    assert not set(train) & set(val)
    assert len(train) + len(val) == 40
    assert 4 <= len(val) <= 20


def test_masks_of_many_classes_keep_sixteen_bits(tmp_path: Path) -> None:
    names = tuple(f"class {n}" for n in range(1, 301))
    item = Labeled(image_id="a", mask=ring(dtype=np.uint16, class_id=300), encoded=jpeg(40, 60))
    for format_name, path in (("voc", "VOCdevkit/VOC2012/SegmentationClass/a.png"), ("png", "masks/a.png")):
        export(str(tmp_path), format_name, [item], class_names=names)
        np.testing.assert_array_equal(decode_mask((tmp_path / path).read_bytes()), item.mask)
    export(str(tmp_path), "coco", [item], class_names=names)
    read = json.loads((tmp_path / "annotations/instances_train.json").read_text())
    assert [one["category_id"] for one in read["annotations"]] == [1, 300]


@pytest.mark.parametrize("copy", [True, False])
def test_pycocotools_reads_coco(copy: bool, items: list[Labeled], tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    export(str(tmp_path), "coco", items, copy=copy)
    coco = COCO(str(tmp_path / "annotations/instances_train.json"))
    images = coco.loadImgs(coco.getImgIds())
    assert [image["image_id"] for image in images] == [item.image_id for item in items[:3]]
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(CLASS_NAMES)
    for image, item in zip(images, items, strict=False):
        mask = np.zeros_like(item.mask)
        for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
            segment = coco.annToMask(annotation).astype(bool)
            mask[segment] = annotation["category_id"]
            assert annotation["area"] == segment.sum()
        np.testing.assert_array_equal(mask, np.where(item.mask == 255, 0, item.mask))
        if copy:
            with Image.open(tmp_path / "images" / image["file_name"]) as picture:
                assert picture.size == (image["width"], image["height"])
        else:
            assert image["file_name"].startswith("photos/")


def test_numbers_of_coco_start_at_1_and_stand_once(tmp_path: Path) -> None:
    """pycocotools takes an annotation 0 for no match, and other programs a category 0 for none."""
    items = [Labeled(image_id=f"{n}", mask=ring(class_id=3), encoded=jpeg(40, 60)) for n in range(3)]
    export(str(tmp_path), "coco", items, copy=False)
    read = json.loads((tmp_path / "annotations/instances_train.json").read_text())
    assert [one["id"] for one in read["images"]] == [1, 2, 3]
    assert [one["id"] for one in read["categories"]] == [1, 2, 3]
    numbers = [one["id"] for one in read["annotations"]]
    assert min(numbers) == 1
    assert len(set(numbers)) == len(numbers) == 6


def test_coco_keeps_the_subsets_in_files_of_their_own(tmp_path: Path) -> None:
    items = [Labeled(image_id=f"{n}", mask=ring(), encoded=jpeg(40, 60)) for n in range(20)]
    exported = export(str(tmp_path), "coco", items, val_fraction=0.5, copy=False)
    for subset in ("train", "val"):
        read = json.loads((tmp_path / f"annotations/instances_{subset}.json").read_text())
        assert [one["image_id"] for one in read["images"]] == [x.image_id for x in exported if x.subset == subset]
        assert {one["image_id"] for one in read["annotations"]} == {one["id"] for one in read["images"]}


def _filled(text: str, height: int, width: int) -> NDArray[Any]:
    """The mask of a label file, the way Ultralytics makes it: polygons to whole pixels, then OpenCV fills them."""
    import cv2

    mask = np.zeros((height, width), np.uint8)
    for line in text.splitlines():
        class_id, *values = line.split()
        polygon = np.array(values, dtype=np.float64).reshape(-1, 2)
        assert ((polygon >= 0) & (polygon <= 1)).all()
        assert len(polygon) >= 3
        cv2.fillPoly(mask, [(polygon * (width, height)).astype(np.int32)], int(class_id) + 1)
    return mask


def test_yolo_polygons_fill_to_the_mask_with_holes_lines_and_single_pixels(tmp_path: Path) -> None:
    item = Labeled(image_id="a", mask=ring(), encoded=jpeg(40, 60))
    export(str(tmp_path), "yolo", [item], val_fraction=0.1)
    found = _filled((tmp_path / "labels/train/a.txt").read_text(), 40, 60)
    truth = np.where(item.mask == 255, 0, item.mask)
    for class_id in (1, 2):
        assert _iou(found == class_id, truth == class_id) > 0.95
    assert (tmp_path / "images/train/a.jpg").read_bytes() == item.encoded
    assert (tmp_path / "data.yaml").read_text().startswith("train: images/train\nval: images/val\nnames:\n")
    assert (tmp_path / "data.yaml").read_text().splitlines()[4] == "  1: 'a dog''s \"bed\"'"


def test_yolo_names_its_classes_in_valid_yaml_and_a_label_as_its_image(tmp_path: Path) -> None:
    names = ("yes", "1.0", "null", "a: b", "#c", "'d'", '"e"', "back\\slash", "кот", "- f", "{g}", "h, i")
    ids = ("décran é.jpg", "a.b.c.jpg", "x%20y.png", "sub dir/ж.jpg")
    items = [Labeled(image_id=name, mask=ring(), encoded=jpeg(40, 60)) for name in ids]
    export(str(tmp_path), "yolo", items, class_names=names, val_fraction=1e-9)
    assert yaml.safe_load((tmp_path / "data.yaml").read_text())["names"] == dict(enumerate(names))
    images = {path.stem for path in (tmp_path / "images" / "train").iterdir()}
    assert images == {path.stem for path in (tmp_path / "labels" / "train").iterdir()}
    assert len(images) == len(ids)


def test_yolo_needs_images_to_validate_on(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^val_fraction must be above 0 for yolo, .*; try 0.1$"):
        export(str(tmp_path), "yolo", [])


def _iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    return float((first & second).sum() / (first | second).sum())


@pytest.mark.real
def test_yolo_polygons_keep_real_shapes(real_data: Path) -> None:
    import cv2

    intersection = union = 0
    for path in sorted((real_data / "voc12_animals" / "truth").glob("*.png"))[::40]:
        mask = decode_mask(path.read_bytes())
        for class_id in set(np.unique(mask).tolist()) - {0, 255}:
            filled = np.zeros(mask.shape, np.uint8)
            for polygon in polygons_of(mask == class_id):
                cv2.fillPoly(filled, [polygon.astype(np.int32)], 1)
            intersection += int(((filled > 0) & (mask == class_id)).sum())
            union += int(((filled > 0) | (mask == class_id)).sum())
    assert intersection / union > 0.99


def _decode_brush(data: bytes) -> NDArray[np.uint8]:
    """Label Studio's decoder, bit by bit, after the source quoted in label_studio_converter/brush.py."""
    bits = "".join(f"{byte:08b}" for byte in data)
    at = 0

    def read(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    num, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    out = np.zeros(num, np.uint8)
    index = 0
    while index < num:
        is_run = read(1)
        end = index + 1 + read(sizes[read(2)])
        if is_run:
            out[index:end] = read(word)
            index = end
        else:
            while index < end:
                out[index] = read(word)
                index += 1
    return out


def test_label_studio_decodes_the_brush(items: list[Labeled], tmp_path: Path) -> None:
    export(str(tmp_path), "label-studio", items)
    tasks = json.loads((tmp_path / "tasks/tasks-000000.json").read_text())
    assert [task["data"]["image_id"] for task in tasks] == [item.image_id for item in items[:3]]
    assert (Path("/") / unquote(tasks[2]["data"]["image"].partition("?d=")[2])).is_file()
    for task, item in zip(tasks, items, strict=False):
        (prediction,) = task["predictions"]
        mask = np.zeros_like(item.mask)
        for region in prediction["result"]:
            size = (region["original_height"], region["original_width"])
            rgba = _decode_brush(bytes(region["value"]["rle"])).reshape(*size, 4)
            mask[rgba[:, :, 3] > 0] = CLASS_NAMES.index(region["value"]["brushlabels"][0]) + 1
        np.testing.assert_array_equal(mask, np.where(item.mask == 255, 0, item.mask))
    assert 'value="кот"' in (tmp_path / "labeling_config.xml").read_text()


def test_brush_takes_regions_of_any_size() -> None:
    for region in (np.ones((300, 400), bool), np.zeros((1, 1), bool), np.eye(9, dtype=bool)):
        flat = _decode_brush(encode_brush(region))
        np.testing.assert_array_equal(flat.reshape(*region.shape, 4)[:, :, 3] > 0, region)


def test_label_studio_finds_images_by_prefix_or_bucket(tmp_path: Path) -> None:
    item = Labeled(image_id="a", mask=ring(), encoded=jpeg(40, 60))
    export(str(tmp_path), "label-studio", [item], copy=False, image_url_prefix="https://host/x/")
    (task,) = json.loads((tmp_path / "tasks/tasks-000000.json").read_text())
    assert task["data"]["image"] == "https://host/x/photos/0.jpg"


def test_fiftyone_samples_point_at_images_and_masks(items: list[Labeled], tmp_path: Path) -> None:
    export(str(tmp_path), "fiftyone", items)
    metadata = json.loads((tmp_path / "metadata.json").read_text())
    assert "version" not in metadata  # by which FiftyOne knows the format
    assert metadata["info"]["mask_targets"]["pseudo_mask"]["3"] == "кот"
    samples = json.loads((tmp_path / "samples.json").read_text())["samples"]
    assert [sample["image_id"] for sample in samples] == [item.image_id for item in items[:3]]
    for sample, item in zip(samples, items, strict=False):
        assert sample["pseudo_mask"]["_cls"] == "Segmentation"
        with Image.open(tmp_path / sample["filepath"]) as picture:
            assert picture.size == (60, 40)
        assert [one["label"] for one in sample["image_tags"]["classifications"]] == list(item.tags)


def test_fiftyone_reads_masks_as_ids(items: list[Labeled], tmp_path: Path) -> None:
    """With OpenCV, as FiftyOne does; and with its own importer, which needs no database."""
    import cv2

    items.append(Labeled(image_id="wide", mask=ring(dtype=np.uint16, class_id=300), encoded=jpeg(40, 60)))
    export(str(tmp_path), "fiftyone", items)
    samples = json.loads((tmp_path / "samples.json").read_text())["samples"]
    masks = [item.mask for item in items if item.error is None]
    for sample, mask in zip(samples, masks, strict=True):
        found = cv2.imread(str(tmp_path / sample["pseudo_mask"]["mask_path"]), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(found, mask)
    importers = pytest.importorskip("fiftyone.utils.data.importers", reason="fiftyone is not installed")
    with importers.LegacyFiftyOneDatasetImporter(str(tmp_path)) as importer:
        for sample, mask in zip(importer, masks, strict=True):
            np.testing.assert_array_equal(sample.pseudo_mask.get_mask(), mask)


def test_torchvision_reads_images_and_masks_of_coco(items: list[Labeled], tmp_path: Path) -> None:
    from torchvision.datasets import CocoDetection

    export(str(tmp_path), "coco", items)
    read = CocoDetection(str(tmp_path / "images"), str(tmp_path / "annotations/instances_train.json"))
    assert len(read) == 3
    for (image, segments), item in zip(read, items, strict=False):
        assert image.size == item.mask.shape[::-1]
        mask = np.zeros_like(item.mask)
        for annotation in segments:
            mask[read.coco.annToMask(annotation) > 0] = annotation["category_id"]
        np.testing.assert_array_equal(mask, np.where(item.mask == 255, 0, item.mask))


def _pairs(count: int) -> list[Labeled]:
    encoded = [jpeg(60, 40, orientation=6), jpeg(40, 60, kind="PNG"), jpeg(40, 60)]
    return [
        Labeled(image_id=f"v1.{n}/{n}.jpg", mask=ring(class_id=1 + n % 3), encoded=encoded[n % 3]) for n in range(count)
    ]


def test_datasets_reads_image_and_mask_of_each_row(tmp_path: Path) -> None:
    import datasets

    items = {item.image_id: item for item in _pairs(12)}
    exported = export(str(tmp_path / "out"), "datasets", list(items.values()), val_fraction=0.4)
    for name in ("run.json", "summary.json", "index.csv"):  # as jobs.export leaves them beside
        (tmp_path / "out" / name).write_text("{}")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train", "validation"]
    assert {row["image_id"] for row in loaded["train"]} == {one.image_id for one in exported if one.subset == "train"}
    assert loaded["train"].num_rows + loaded["validation"].num_rows == len(items)
    for row in loaded["train"]:
        item = items[row["image_id"]]
        assert row["image"].size == row["mask"].size == (60, 40)
        np.testing.assert_array_equal(np.asarray(row["mask"]), item.mask)
        assert (row["tags"], row["confidence"]) == (["cat"], 0.5)


def test_webdataset_reads_image_and_mask_of_each_sample(tmp_path: Path) -> None:
    items = {item.image_id: item for item in _pairs(7)}
    exported = export(str(tmp_path), "webdataset", list(items.values()), val_fraction=0.4)
    tars = {subset: sorted((tmp_path / subset).glob("*.tar")) for subset in ("train", "val")}
    assert sum(map(len, tars.values())) >= 4  # shards of two rows
    assert [path for path in (tmp_path / ".tag2mask").rglob("*") if path.is_file()] == []
    before = {path: path.read_bytes() for path in tars["train"] + tars["val"]}
    FORMATS["webdataset"](FormatOptions(class_names=CLASS_NAMES, out=str(tmp_path), rows_per_shard=2)).finish(
        lambda: iter(exported), partial(open_text, str(tmp_path))
    )
    assert {path: path.read_bytes() for path in before} == before  # the same command finds all done
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    for subset, paths in tars.items():
        read = list(webdataset.WebDataset([str(path) for path in paths], shardshuffle=False))
        about = [json.loads(sample["json"]) for sample in read]
        assert [one["image_id"] for one in about] == [one.image_id for one in exported if one.subset == subset]
        for sample, one in zip(read, about, strict=True):
            np.testing.assert_array_equal(decode_mask(sample["mask.png"]), items[one["image_id"]].mask)
            with Image.open(io.BytesIO(sample.get("jpg") or sample["png"])) as image:
                assert image.size == (60, 40)


def test_image_that_changed_since_it_was_labeled_is_an_error(tmp_path: Path) -> None:
    item = Labeled(image_id="a", mask=ring(), encoded=jpeg(41, 60))
    assert export(str(tmp_path), "png", [item]) == []
    assert not (tmp_path / "masks").exists()


@pytest.mark.s3
@pytest.mark.parametrize("format_name", sorted(FORMATS))
def test_export_to_a_bucket_is_the_same_as_to_disk(
    format_name: str, items: list[Labeled], s3: S3Server, tmp_path: Path
) -> None:
    bucket = s3.make_bucket(f"export-{uuid.uuid4().hex[:12]}") + "/a b"
    export(str(tmp_path), format_name, items, image_url_prefix="x", val_fraction=0.2)
    export(bucket, format_name, items, image_url_prefix="x", val_fraction=0.2)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 3
    for path in files:
        assert read_bytes(f"{bucket}/{path.relative_to(tmp_path)}") == path.read_bytes()
    assert len(list_names(bucket)) == len([path for path in tmp_path.iterdir() if path.is_file()])
