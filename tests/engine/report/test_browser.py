"""The report in a real browser, at the width of a desk and of a phone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Dialog, Page, ViewportSize, expect, sync_playwright

from engine.report import ReportData, ReportImage, render_report
from engine.scenes import CLASS_NAMES, make_scene

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SLOWEST_MS = 60_000
HOSTILE = "<img src=x onerror=alert(1)>\"'.jpg"
DESK, PHONE = ViewportSize(width=1280, height=900), ViewportSize(width=400, height=844)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on PATH, and CHROMIUM names none")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"], timeout=SLOWEST_MS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six scenes with every layer, by falling confidence, and a broken one; long class names."""
    images = []
    for index in range(6):
        photograph, truth, tags = make_scene(0, index, width=120, height=96)
        cam = np.random.default_rng(index).uniform(0, 1, (len(tags), 6, 8))
        images.append(
            ReportImage(
                image_id=f"images/{index}.jpg",
                tags=tags,
                group="most confident" if index < 3 else "least confident",
                photograph=photograph,
                mask=np.roll(truth, 4, 1),
                mask_cam=truth,
                mask_walk=truth,
                mask_network=truth,
                truth=truth,
                cam=cam,
                walked=cam,
                cam_classes=tags,
                confidence=0.9 - index / 10,
                iou=0.5 + index / 10,
                missing_tags=tags[:1] if index == 4 else [],
                object_fraction=(0.01, 0.1, 0.5)[index % 3],
            )
        )
    images.append(ReportImage(image_id=HOSTILE, tags=[HOSTILE], group="error", error="decode: not an image"))
    data = ReportData(
        title="A long title " * 8,
        class_names=[*CLASS_NAMES, "a class with a very long name that goes on and on"],
        num_images=7,
        images=images,
        miou={"cam": 0.4, "walk": 0.6, "crf": 0.7},
        iou={stage: dict.fromkeys(["background", *CLASS_NAMES], 0.5) for stage in ("cam", "walk", "crf")},
        confusion=np.eye(len(CLASS_NAMES) + 2, dtype=np.int64),
        areas=[0.5, *[0.5 / (len(CLASS_NAMES) + 1)] * (len(CLASS_NAMES) + 1)],
        confidences=[image.confidence or 0.0 for image in images],
        ious=[image.iou or 0.0 for image in images],
        best_miou=[(0.5, 0.7, 0.8), (1.0, 0.1, 0.7)],
        curves={"cam": [{"step": step, "loss": 1 / (1 + step)} for step in range(30)]},
        error_counts={"decode": 1},
        errors=[(HOSTILE, "decode: not an image")],
        seconds={"label": 40_000.0, "train_cam": 3.0},
        settings={"cam": {"a": "x" * 300}},
        missing={CLASS_NAMES[0]: (1, 3)},
        next_steps=[("Export the masks", f"tag2mask export --data {'long/' * 30} --masks '{HOSTILE}'")],
    )
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_report(data))
    return path


@pytest.fixture
def page(browser: Browser, report: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The report, opened; whatever it complains of, asks from outside or shows in a box fails the test."""
    context = browser.new_context(viewport=getattr(request, "param", DESK))
    page = context.new_page()
    page.set_default_timeout(SLOWEST_MS)
    wrong: list[str] = []

    def refuse(box: Dialog) -> None:
        wrong.append(box.message)
        box.dismiss()

    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("dialog", refuse)
    page.on("request", lambda asked: None if asked.url.startswith(("file:", "data:")) else wrong.append(asked.url))
    page.goto(report.as_uri())
    yield page
    context.close()
    assert not wrong


def _shown(page: Page) -> list[str]:
    return page.locator(".card:visible .name").all_inner_texts()


@pytest.mark.parametrize("page", [DESK, PHONE], indirect=True, ids=["desk", "phone"])
def test_nothing_is_wider_than_the_screen(page: Page) -> None:
    page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    cut = page.locator(".facts dd").evaluate_all("all => all.map(one => one.scrollWidth - one.clientWidth)")
    assert wide <= 0
    assert max(cut) <= 0
    pictures = page.locator(".card .photograph").evaluate_all("all => all.map(one => one.naturalWidth)")
    assert pictures == [120] * 6


def test_filters_leave_what_was_asked_for(page: Page) -> None:
    assert len(_shown(page)) == 7
    page.locator("#group").select_option("most confident")
    assert _shown(page) == ["images/0.jpg", "images/1.jpg", "images/2.jpg"]
    page.locator("#least").fill("75")
    assert _shown(page) == ["images/0.jpg", "images/1.jpg"]
    expect(page.locator("#count")).to_have_text("2 of 7 images")
    page.locator("#group").select_option("")
    page.locator("#least").fill("0")
    page.locator("#error").select_option("1")
    assert _shown(page) == [HOSTILE]
    page.locator("#error").select_option("")
    page.locator("#tag").select_option(label=HOSTILE)
    assert _shown(page) == [HOSTILE]
    page.locator("#tag").select_option("")
    page.locator("#size").select_option("large")
    assert _shown(page) == ["images/2.jpg", "images/5.jpg"]
    page.locator("#size").select_option("")
    page.locator("#missing").select_option("1")
    assert _shown(page) == ["images/4.jpg"]


def test_images_are_ordered_by_confidence_and_by_iou(page: Page) -> None:
    page.locator("#order").select_option("iou,-1")
    assert _shown(page)[:2] == ["images/5.jpg", "images/4.jpg"]
    page.locator("#order").select_option("confidence,-1")
    assert _shown(page)[:2] == ["images/0.jpg", "images/1.jpg"]


def test_overlays_are_chosen_faded_and_shown_side_by_side(page: Page) -> None:
    first = page.locator(".card").first
    expect(first.locator("[data-layer=mask]")).to_be_visible()
    page.get_by_text("Maps after the walk", exact=True).click()
    expect(first.locator("[data-layer=walked]")).to_be_visible()
    expect(first.locator("[data-layer=mask]")).to_be_hidden()
    page.locator("#opacity").fill("30")
    assert first.locator("[data-layer=walked]").evaluate("one => getComputedStyle(one).opacity") == "0.3"
    first.locator(".open").click()
    expect(page.locator("#large")).to_be_visible()
    box = page.locator("#large").bounding_box()
    assert box is not None
    assert abs(box["y"] + box["height"] / 2 - DESK["height"] / 2) < 2  # in the middle of the screen
    assert page.locator("#large figcaption").all_inner_texts() == [
        "Photograph", "Class maps", "Maps after the walk", "Mask before the walk", "Mask before the dCRF",
        "Final mask", "Network's mask", "Truth", "Wrong pixels",
    ]  # fmt: skip
    page.keyboard.press("Escape")
    expect(page.locator("#large")).to_be_hidden()


def test_keyboard_alone_opens_an_image_walks_through_the_others_and_enlarges_a_layer(page: Page) -> None:
    page.locator("#group").select_option("most confident")
    page.locator(".card .open").first.focus()
    page.keyboard.press("Enter")
    name = page.locator("#large-name")
    expect(name).to_have_text("images/0.jpg")
    expect(page.locator("#large .about")).to_contain_text("confidence 90.0")
    expect(page.locator("#large .about .chip").first).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(name).to_have_text("images/1.jpg")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(name).to_have_text("images/2.jpg")  # the last of those that the filter leaves
    layer = page.get_by_role("button", name="Enlarge: Final mask")
    before = layer.bounding_box()
    layer.focus()
    page.keyboard.press("Enter")
    expect(layer).to_have_attribute("aria-pressed", "true")
    after = layer.bounding_box()
    assert before is not None
    assert after is not None
    assert after["width"] > 1.5 * before["width"]
    page.keyboard.press("Escape")
    expect(page.locator("#large")).to_be_hidden()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Show all layers of images/2.jpg"


@pytest.mark.parametrize("page", [DESK, PHONE], indirect=True, ids=["desk", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_that_keeps_anybody_out(page: Page, scheme: Literal["light", "dark"]) -> None:
    page.emulate_media(color_scheme=scheme)
    page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    found = Axe().run(page)
    assert not found.response["violations"], found.generate_report()
    page.locator(".card .open").first.click()
    found = Axe().run(page)
    assert not found.response["violations"], found.generate_report()
