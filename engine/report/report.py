"""Render a report from templates, within a size limit."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from engine.report import charts, pictures
from engine.report.data import ReportData, ReportImage

MAX_BYTES = 20_000_000
"""Maximum size of a report; images that would exceed it are left out."""

_STAGES = {"cam": "CAM", "walk": "random walk", "crf": "dCRF", "segmentation": "segmentation"}
_NETWORKS = {"cam": "Classifier (CAM)", "affinity": "AffinityNet", "segmentation": "Segmentation network"}
_LAYERS = {
    "cam": "Class maps",
    "walked": "Maps after the walk",
    "mask_cam": "Mask before the walk",
    "mask_walk": "Mask before the dCRF",
    "mask": "Final mask",
    "mask_network": "Network's mask",
    "truth": "Truth",
    "wrong": "Wrong pixels",
}
_DOUBTFUL = 0.5  # masks with a lower confidence are in doubt
_MOST_FAILING = 3  # classes named in the summary
_MOST_ERRORS = 200
_MOST_CONFUSED = 30
_MOST_AREAS = 40
_MOST_SETTINGS = 500
_MOST_LETTERS = 400  # longer names, reasons and values are truncated


def render_report(data: ReportData, *, max_bytes: int = MAX_BYTES) -> str:
    """Render a report as one self-contained HTML file.

    Args:
        data: The content.
        max_bytes: Maximum size as UTF-8; images that would exceed it are left out, evenly across the groups.
    """
    environment = _environment()
    card = environment.get_template("card.html.j2")
    class_ids = {name: number for number, name in enumerate(data.class_names, 1)}
    names = list(dict.fromkeys([*data.class_names, *(tag for image in data.images for tag in image.tags)]))
    numbers = {name: number for number, name in enumerate(names)}

    page = _page(data)
    room = max_bytes - len(_text(environment, page, data, [], names, len(data.images)).encode())
    cards: dict[int, tuple[Markup, ReportImage]] = {}
    for number in _fair_order([image.group for image in data.images]):
        text = card.render(**_card(data.images[number], class_ids, numbers), layer_names=_LAYERS)
        room -= len(text.encode("utf-8", "replace"))
        if room < 0:
            break
        cards[number] = (Markup(text), data.images[number])
    while True:
        shown = [cards[number] for number in sorted(cards)]
        html = _text(environment, page, data, shown, names, len(data.images) - len(shown))
        # the chosen cards also enlarge the legend and the filters
        if not cards or len(html.encode()) <= max_bytes:
            return html
        cards.popitem()


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=_percent, number=_number, duration=_duration, short=_short)
    return environment


def _text(
    environment: jinja2.Environment,
    page: Mapping[str, Any],
    data: ReportData,
    shown: Sequence[tuple[Markup, ReportImage]],
    names: Sequence[str],
    num_dropped: int,
) -> str:
    images = [image for _, image in shown]
    tags = {tag for image in images for tag in image.tags}
    class_ids = {name: number for number, name in enumerate(data.class_names, 1)}
    html = environment.get_template("template.html.j2").render(
        **page,
        cards=[text for text, _ in shown],
        num_dropped=num_dropped,
        groups=list(dict.fromkeys(image.group for image in images if image.group)),
        shown_tags=[(number, name) for number, name in enumerate(names) if name in tags],
        legend=[(name, pictures.css_color(class_ids[name])) for name in _named(data.class_names, tags, images)],
        layers=[(name, title) for name, title in _LAYERS.items() if any(_has(image, name) for image in images)],
        has_errors=any(image.error for image in images),
        has_missing=any(image.missing_tags for image in images),
        has_iou=any(image.iou is not None for image in images),
    )
    return html.encode("utf-8", "replace").decode()  # a file name may contain a lone surrogate


def _named(class_names: Sequence[str], tags: Collection[str], images: Sequence[ReportImage]) -> list[str]:
    """List the classes in tags or masks of the images; a network that ignores tags may predict other classes."""
    found = np.zeros(len(class_names) + 1, dtype=bool)
    for image in images:
        for mask in (image.mask, image.mask_network, image.truth):
            if mask is not None:
                found |= np.bincount(mask.ravel(), minlength=len(found))[: len(found)] > 0
    return [name for name, shown in zip(class_names, found[1:], strict=True) if shown or name in tags]


def _page(data: ReportData) -> dict[str, Any]:
    """Build the template values of the page, without its gallery."""
    here = Path(__file__).parent
    label_names = ["background", *data.class_names]
    num_errors = sum(data.error_counts.values())
    settings = list(_flat(data.settings))
    sections = {
        "summary": "Summary",
        "data": "Data" if data.inspection else "",
        "gallery": "Images",
        "quality": "Quality",
        "areas": "Class areas" if data.areas else "",
        "training": "Training" if data.curves else "",
        "time": "Time" if data.seconds else "",
        "errors": f"Errors ({_number(num_errors)})",
        "settings": "Settings" if settings or data.versions else "",
    }
    return dict(
        sections=[(place, name) for place, name in sections.items() if name],
        title=data.title,
        created=data.created,
        style=Markup((here / "style.css").read_text(encoding="utf-8")),
        script=Markup((here / "script.js").read_text(encoding="utf-8")),
        headline=_headline(data, num_errors),
        findings=findings(data),
        inspection=data.inspection,
        next_steps=data.next_steps,
        scores_network="segmentation" in (data.miou or {}),
        stages=_stage_rows(data.miou) if data.miou else [],
        stage_names=[_STAGES.get(stage, stage) for stage in data.iou or {}],
        iou_rows=_iou_rows(data, label_names),
        confusion=_confusion(data, label_names),
        areas=_areas(data, label_names),
        has_truth=bool(data.miou or data.iou or data.confusion is not None),
        best_miou=data.best_miou or [],
        scatter=None if data.ious is None else charts.scatter(data.confidences, data.ious),
        histogram=charts.histogram(data.confidences),
        curves=[
            (name, drawn)
            for network, rows in data.curves.items()
            if (drawn := charts.curve_charts(name := _NETWORKS.get(network, network), rows))
        ],
        seconds=_seconds(data.seconds),
        num_errors=num_errors,
        error_counts=sorted(data.error_counts.items(), key=lambda item: -item[1]),
        errors=list(data.errors[:_MOST_ERRORS]),
        num_unlisted=max(0, max(num_errors, len(data.errors)) - min(len(data.errors), _MOST_ERRORS)),
        settings=settings[:_MOST_SETTINGS],
        num_more_settings=max(0, len(settings) - _MOST_SETTINGS),
        versions=list(data.versions.items())[:_MOST_SETTINGS],
    )


def _headline(data: ReportData, num_errors: int) -> list[tuple[str, str, str]]:
    """List the key figures as (value, name, detail)."""
    facts = [
        (_number(data.num_images), "images", f"{_number(num_errors)} with an error" if num_errors else "none failed"),
        (_number(len(data.class_names)), "classes", "plus background"),
    ]
    if data.miou:
        final = _final_stage(data.miou)
        facts.append(
            (_percent(data.miou[final]), "mIoU of the masks", f"{_STAGES.get(final, final)}, against the truth")
        )
        if final != "segmentation" and "segmentation" in data.miou:
            network = _percent(data.miou["segmentation"])
            facts.append((network, "mIoU of the network", "on images it was trained on"))
    known = [value for value in data.confidences if math.isfinite(value)]
    if known:
        facts.append((_percent(float(np.median(known))), "median confidence", f"of {_number(len(known))} masks"))
    if data.images_per_s is not None:
        facts.append((f"{data.images_per_s:.3g}", "images per second", "labeling"))
    if data.seconds:
        facts.append((_duration(sum(data.seconds.values())), "total time", f"{len(data.seconds)} steps"))
    return facts


def _final_stage(miou: Mapping[str, float]) -> str:
    """Return the stage that made the masks; the segmentation network was trained on them, so it comes after."""
    return next((stage for stage in reversed(list(miou)) if stage != "segmentation"), "segmentation")


def findings(data: ReportData) -> list[str]:
    """Summarize how good the masks are, how many are in doubt, and where they fail, one sentence each."""
    known = np.array([value for value in data.confidences if math.isfinite(value)])
    found = []
    if data.miou:
        found.append(f"The masks score {_percent(data.miou[_final_stage(data.miou)])} mIoU against the ground truth.")
    elif len(known):
        found.append(f"Expected mean IoU of a mask: {_percent(float(known.mean()))} (no ground truth was given).")
    if len(known):
        num_doubtful = int((known < _DOUBTFUL).sum())
        found.append(
            f"Confidence is below {_DOUBTFUL:.0%} for {_number(num_doubtful)} of {_number(len(known))} masks "
            f"({_percent(num_doubtful / len(known))})."
        )
    num_missing = sum(missing for missing, _ in data.missing.values())
    if num_missing:
        worst = sorted(data.missing.items(), key=lambda item: -item[1][0] / item[1][1])[:_MOST_FAILING]
        most = ", ".join(f"{_short(name)} ({missing} of {total})" for name, (missing, total) in worst if missing)
        found.append(f"Tags without a pixel in their mask: {_number(num_missing)}, most often {most}.")
    if data.iou:
        final = data.iou[_final_stage(data.iou)]  # type: ignore[arg-type]
        worst_iou = sorted((value, name) for name, value in final.items() if math.isfinite(value))[:_MOST_FAILING]
        found.append("Lowest IoU: " + ", ".join(f"{_short(name)} {_percent(value)}" for value, name in worst_iou) + ".")
    num_errors = sum(data.error_counts.values())
    if num_errors:
        found.append(f"Images that could not be labeled: {_number(num_errors)}; see Errors for the reasons.")
    return found


def _stage_rows(miou: Mapping[str, float]) -> list[tuple[str, float, float | None]]:
    """List the stages as (name, mIoU, gain over the previous stage)."""
    rows: list[tuple[str, float, float | None]] = []
    before: float | None = None
    for stage, value in miou.items():
        rows.append((_STAGES.get(stage, stage), value, None if before is None else value - before))
        before = value
    return rows


def _iou_rows(data: ReportData, label_names: Sequence[str]) -> list[tuple[str, str, list[float | None]]]:
    if not data.iou:
        return []
    return [
        (name, pictures.css_color(class_id), [_finite(by_class.get(name)) for by_class in data.iou.values()])
        for class_id, name in enumerate(label_names)
    ]


def _confusion(data: ReportData, label_names: Sequence[str]) -> dict[str, Any] | None:
    if data.confusion is None:
        return None
    counts = np.asarray(data.confusion, np.float64)
    # the classes with the most pixels, in the order of their ids
    kept = np.sort(np.argsort(-(counts.sum(1) + counts.sum(0)), kind="stable")[:_MOST_CONFUSED])
    rows = []
    for row in kept:
        total = counts[row].sum()
        cells = [(float(counts[row, column] / total) if total else None, bool(row == column)) for column in kept]
        rows.append((label_names[row], pictures.css_color(int(row)), cells))
    columns = [(label_names[column], pictures.css_color(int(column))) for column in kept]
    return dict(rows=rows, columns=columns, num_left_out=len(label_names) - len(kept))


def _areas(data: ReportData, label_names: Sequence[str]) -> dict[str, Any] | None:
    if data.areas is None:
        return None
    order = sorted(range(1, len(label_names)), key=lambda class_id: -data.areas[class_id])  # type: ignore[index]
    largest = max((data.areas[class_id] for class_id in order), default=0.0) or 1.0
    rows = [
        (label_names[class_id], pictures.css_color(class_id), data.areas[class_id], data.areas[class_id] / largest)
        for class_id in order[:_MOST_AREAS]
    ]
    return dict(rows=rows, background=data.areas[0], num_left_out=len(order) - len(rows))


def _seconds(seconds: Mapping[str, float]) -> list[tuple[str, float, float]]:
    longest = max(seconds.values(), default=0.0) or 1.0
    return [(step, value, value / longest) for step, value in seconds.items()]


def _has(image: ReportImage, layer: str) -> bool:
    if image.photograph is None:
        return False
    if layer == "wrong":
        return image.mask is not None and image.truth is not None
    return getattr(image, layer) is not None


def _layer_uri(image: ReportImage, layer: str, size: tuple[int, int], class_ids: Mapping[str, int]) -> str | None:
    """Encode the overlay of one layer, if the image has it."""
    if layer in ("cam", "walked"):
        maps = image.cam if layer == "cam" else image.walked
        if maps is None:
            return None
        return pictures.heat_uri(maps, [class_ids.get(name, 0) for name in image.cam_classes], size)
    if layer == "wrong":
        if image.mask is None or image.truth is None:
            return None
        return pictures.wrong_uri(image.mask, image.truth, size)
    mask = getattr(image, layer)
    return None if mask is None else pictures.mask_uri(mask, size)


def _card(image: ReportImage, class_ids: Mapping[str, int], numbers: Mapping[str, int]) -> dict[str, Any]:
    """Build the template values of one image in the gallery."""
    photograph: str | None = None
    layers: list[tuple[str, str]] = []
    height, width = 3, 4
    if image.photograph is not None:
        height, width = size = pictures.thumbnail_size(*image.photograph.shape[:2])
        photograph = pictures.photograph_uri(image.photograph)
        layers = [(layer, uri) for layer in _LAYERS if (uri := _layer_uri(image, layer, size, class_ids))]
    return dict(
        image=image,
        confidence=_finite(image.confidence),
        iou=_finite(image.iou),
        photograph=photograph,
        layers=layers,
        height=height,
        width=width,
        size=_size_of(image.object_fraction),
        tag_numbers=" ".join(str(numbers[tag]) for tag in dict.fromkeys(image.tags)),
        tags=[(tag, pictures.css_color(class_ids[tag]) if tag in class_ids else None) for tag in image.tags],
    )


def _size_of(fraction: float | None) -> str:
    """Classify the fraction of the image that its objects cover, for the filter."""
    if not fraction:
        return "none"
    return "small" if fraction < 0.05 else "medium" if fraction < 0.2 else "large"


def _fair_order(groups: Sequence[str]) -> list[int]:
    """Order the images round-robin across groups, so that the size limit leaves no group empty."""
    by_group: dict[str, list[int]] = {}
    for number, group in enumerate(groups):
        by_group.setdefault(group, []).append(number)
    return [number for turn in zip_longest(*by_group.values()) for number in turn if number is not None]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _percent(value: float | None) -> str:
    return "–" if _finite(value) is None else f"{100 * value:.1f}\u00a0%"  # type: ignore[operator]


def _number(value: float) -> str:
    return f"{value:,}".replace(",", "\u202f")


def _short(value: str) -> str:
    return value if len(value) <= _MOST_LETTERS else value[:_MOST_LETTERS] + " …"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
