import base64
import io
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.ops.metrics import confusion_matrix, mean_iou
from engine.report import ReportData, ReportImage, render_report
from engine.report.pictures import color_of
from engine.scenes import CLASS_NAMES, make_scene

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&{{ 7 * 7 }}"
VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """Elements in order, each with its attributes; and that every tag is closed where it should be."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in ("style", "script"):
            self.texts.append(data)

    def all(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [found for name, found in self.elements if name == tag and wanted.items() <= found.items()]

    @property
    def ids(self) -> set[str]:
        return {found["id"] for _, found in self.elements if "id" in found}

    @property
    def text(self) -> str:
        return re.sub(r"[ \n]+", " ", " ".join(self.texts))


def gallery(num_images: int, **changes: Any) -> list[ReportImage]:
    images = []
    for index in range(num_images):
        photograph, truth, tags = make_scene(0, index, width=120, height=96)
        cam = np.random.default_rng(index).uniform(0, 1, (len(tags), 6, 8))
        fields: dict[str, Any] = dict(
            image_id=f"images/{index}.jpg",
            tags=tags,
            photograph=photograph,
            mask=np.roll(truth, 4, 1),
            mask_cam=truth,
            mask_walk=truth,
            truth=truth,
            cam=cam,
            walked=cam**2,
            cam_classes=tags,
            confidence=0.5 + index / 100,
            iou=0.7,
            group=("best", "worst")[index % 2],
        )
        images.append(ReportImage(**{**fields, **changes}))
    return images


def full(**changes: Any) -> ReportData:
    images = gallery(6)
    confusion = np.zeros((6, 6), np.int64)
    for image in images:
        assert image.truth is not None
        assert image.mask is not None
        confusion += confusion_matrix(image.truth, image.mask, 5)
    iou = dict(zip(["background", *CLASS_NAMES], map(float, mean_iou(confusion)[0]), strict=True))
    fields: dict[str, Any] = dict(
        title="Demo",
        class_names=CLASS_NAMES,
        num_images=1500,
        images=images,
        miou={"cam": 0.412, "walk": 0.687, "crf": 0.731, "segmentation": 0.702},
        iou={"cam": iou, "walk": iou},
        confusion=confusion,
        areas=[0.75, 0.05, 0.05, 0.05, 0.1, 0.0],
        confidences=[0.1, 0.5, 0.9, float("nan")],
        ious=[0.2, 0.4, 0.8, 0.5],
        best_miou=[(0.5, 0.8, 0.9), (1.0, 0.1, 0.7)],
        curves={"cam": [{"step": step, "loss": 1 / (1 + step), "rate": 2e-4} for step in range(1000)]},
        error_counts={"decode": 300},
        errors=[(f"broken{number}.jpg", "decode: not an image") for number in range(300)],
        images_per_s=12.3,
        seconds={"train_cam": 61.0, "label": 30.0},
        settings={"cam": {"backbone": "resnet50", "scales": (1.0, 2.0)}},
        versions={"torch": "2.14"},
    )
    return ReportData(**{**fields, **changes})


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


def test_a_full_report_has_every_part() -> None:
    page = Page(render_report(full()))
    assert {
        "miou",
        "best",
        "iou",
        "confusion",
        "gallery",
        "areas",
        "training",
        "time",
        "errors",
        "settings",
    } <= page.ids
    for words in ("41.2\u00a0%", "68.7\u00a0%", "+27.5", "−2.9", "1\u202f500", "12.3", "1 min 31 s", "cam.backbone"):
        assert words in page.text, words
    assert len(page.all("figure", class_="card")) == 6
    assert {found["value"] for found in page.all("input", name="layer")} == {
        "", "cam", "walked", "mask_cam", "mask_walk", "mask", "truth", "wrong",
    }  # fmt: skip
    assert "100 more are in the mask shards" in page.text
    assert len(page.all("tr")) > 200  # errors are listed up to 200


def test_without_truth_the_report_says_that_quality_is_not_measured() -> None:
    images = [ReportImage(image_id="a", tags=["striped"], photograph=np.zeros((4, 5, 3), np.uint8), confidence=0.3)]
    page = Page(render_report(full(images=images, miou=None, iou=None, confusion=None, ious=None, best_miou=None)))
    assert "the quality of the masks is not measured" in page.text
    assert "Expected mean IoU of a mask: 50.0" in page.text
    assert not {"miou", "best", "iou", "confusion"} & page.ids
    assert {found["value"] for found in page.all("input", name="layer")} == {""}


def test_a_report_of_nothing_is_whole() -> None:
    page = Page(render_report(ReportData(title="", class_names=[], num_images=0)))
    assert "No images were given" in page.text
    assert "No image ended in an error" in page.text


def test_hostile_names_stay_text() -> None:
    rows = [{"step": step, HOSTILE: 0.5} for step in range(3)]
    data = ReportData(
        title=HOSTILE,
        class_names=[HOSTILE, "dog"],
        num_images=2,
        images=[
            *gallery(
                1, image_id=HOSTILE, tags=[HOSTILE, HOSTILE + "2"], group=HOSTILE, cam_classes=[HOSTILE], error=HOSTILE
            ),
            ReportImage(image_id=HOSTILE, tags=[], group="other", error=HOSTILE),
        ],
        miou={HOSTILE: 0.5},
        iou={HOSTILE: {HOSTILE: 0.5}},
        confusion=np.eye(3, dtype=np.int64),
        areas=[0.5, 0.5, 0.0],
        curves={HOSTILE: rows},
        error_counts={HOSTILE: 1},
        errors=[(HOSTILE, HOSTILE)],
        seconds={HOSTILE: 1.0},
        settings={HOSTILE: HOSTILE},
        versions={HOSTILE: HOSTILE},
        created=HOSTILE,
    )
    html = render_report(data)
    page = Page(html)
    assert len(page.all("script")) == 1
    assert "<script>alert" not in html
    assert "49" not in re.findall(r"\{\{.*?\}\}", html)
    assert all(found.get("src", "data:").startswith("data:") for _, found in page.elements)
    assert not any(name.startswith("on") for _, found in page.elements for name in found)
    assert page.text.count("<script>alert(1)</script>") > 15


def test_summary_says_how_good_the_masks_are_and_where_they_fail() -> None:
    missing = {"striped": (0, 40), "dotted": (6, 10)}
    page = Page(render_report(full(missing=missing, next_steps=[("Export", "tag2mask export --out 'a b'")])))
    for words in (
        "The masks score 73.1\u00a0% mIoU",  # the dCRF's, not the network's
        "Confidence is below 50% for 1 of 3 masks (33.3\u00a0%)",
        "Tags without a pixel in their mask: 6, most often dotted (6 of 10).",
        "Images that could not be labeled: 300",
        "tag2mask export --out 'a b'",
    ):
        assert words in page.text, words


def test_every_section_is_one_press_away() -> None:
    page = Page(render_report(full()))
    places = [found["href"].removeprefix("#") for found in page.all("a")]
    assert places == [found["id"] for name, found in page.elements if name == "section"]
    assert len(places) == 8


def test_nothing_outside_the_file_is_referred_to() -> None:
    html = render_report(full())
    page = Page(html)
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert not re.findall(r"url\((?!#)", html)
    assert not page.all("link")
    assert all(found.get("href", "#").startswith("#") for _, found in page.elements)
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'")


def test_overlays_lie_on_their_photograph_and_are_clear_outside_objects() -> None:
    (image,) = gallery(1)
    assert image.photograph is not None
    assert image.truth is not None
    assert image.mask is not None
    photograph = np.repeat(np.repeat(image.photograph, 5, 0), 5, 1)  # 600 x 480, above a thumbnail's size
    page = Page(render_report(full(images=gallery(1, photograph=photograph))))
    (shown,) = page.all("img", class_="photograph")
    assert decoded(shown["src"]).size == (360, 288)
    layers = {found["data-layer"]: found["src"] for found in page.all("img", class_="layer")}
    truth = np.asarray(decoded(layers["truth"]).convert("RGBA"))
    expected = np.repeat(np.repeat(image.truth, 3, 0), 3, 1)
    assert np.array_equal(truth[..., :3].any(axis=2), expected > 0)
    class_id = int(expected.max())
    assert {tuple(color) for color in truth[expected == class_id][:, :3].tolist()} == {color_of(class_id)}
    wrong = np.asarray(decoded(layers["wrong"]).convert("RGBA"))[..., 3] > 0
    assert wrong.mean() == pytest.approx((image.mask != image.truth).mean(), abs=0.002)


def test_a_map_is_strongest_where_the_cam_is() -> None:
    cam = np.zeros((1, 6, 8))
    cam[0, 1, 6] = 1
    page = Page(render_report(full(images=gallery(1, cam=cam, walked=None, cam_classes=["ringed"]))))
    (heat,) = [found["src"] for found in page.all("img", class_="layer") if found["data-layer"] == "cam"]
    alpha = np.asarray(decoded(heat).convert("RGBA"))[..., 3]
    row, column = np.unravel_index(alpha.argmax(), alpha.shape)
    assert (row * 6 // alpha.shape[0], column * 8 // alpha.shape[1]) == (1, 6)
    assert alpha[:, : alpha.shape[1] // 2].max() == 0


def test_legend_names_what_the_masks_show_where_there_are_no_tags() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[:5], mask[5:6] = 2, 255
    images = [ReportImage(image_id="a", tags=[], photograph=np.zeros((20, 30, 3), np.uint8), mask=mask)]
    html = render_report(ReportData(title="untagged", class_names=["cat", "dog", "cow"], num_images=1, images=images))
    (legend,) = re.findall(r'id="legend">.*', html)
    assert [name for name in ("cat", "dog", "cow") if name in legend] == ["dog"]


def test_masks_of_16_bits_and_many_classes_are_shown() -> None:
    names = [f"class{number}" for number in range(1, 1001)]
    mask = np.zeros((50, 60), np.uint16)
    mask[:20], mask[20:25], mask[40:] = 300, 255, 65535
    images = [
        ReportImage(
            image_id="a",
            tags=["class300", "class255"],
            photograph=np.zeros((50, 60, 3), np.uint8),
            mask=mask,
            truth=mask,
            cam=np.ones((200, 5, 6)),
            cam_classes=names[:200],
        )
    ]
    data = ReportData(
        title="many",
        class_names=names,
        num_images=1,
        images=images,
        confusion=np.eye(1001, dtype=np.int64),
        areas=[1 / 1001] * 1001,
    )
    page = Page(render_report(data))
    layers = {found["data-layer"]: found["src"] for found in page.all("img", class_="layer")}
    shown = np.asarray(decoded(layers["mask"]).convert("RGBA"))
    assert len({tuple(color) for color in shown[[5, 22, 30, 45], 30].tolist()}) == 4
    assert shown[30, 30, 3] == 0
    assert "971 more are left out" in page.text


def test_pictures_beyond_the_budget_are_left_out_fairly_and_told() -> None:
    whole = render_report(full(images=gallery(12)))
    half = render_report(full(images=gallery(12)), max_bytes=len(whole.encode()) * 6 // 10)
    assert len(half.encode()) <= len(whole.encode()) * 6 // 10
    page = Page(half)
    groups = [found["data-group"] for found in page.all("figure", class_="card")]
    assert 2 <= len(groups) < 12
    assert abs(groups.count("best") - groups.count("worst")) <= 1
    assert f"{12 - len(groups)} of 12 images were left out" in page.text
