"""Label a few images in memory, without Ray: for a notebook or a service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.config import Settings
from engine.errors import ConfigError, ImageError, first_line
from engine.guard import guarded
from engine.imaging.codecs import decode_mask, encode_picture
from engine.imaging.decoding import upright_rgb
from engine.networks import MAP_KINDS, map_settings, read_architecture
from engine.ops.confidence import LEVELS
from engine.presets import preset
from engine.records import Batch
from engine.stages.cam import ComputeCam
from engine.stages.mask import MakeMask
from engine.stages.pamr import AdaptMaps
from engine.stages.walk import AddBackground, RefineCam
from engine.storage.filesystem import read_bytes

Picture = str | Path | NDArray[np.uint8] | Image.Image


@dataclass(frozen=True, kw_only=True, slots=True)
class LabeledImage:
    """The mask of one image, or the reason why there is none."""

    mask: NDArray[Any] | None
    """(H, W) uint8 (uint16 beyond 254 classes): 0 background, else the class's number in ``class_names``, from 1."""
    class_names: tuple[str, ...]
    """Names of the classes 1..C."""
    areas: dict[str, float]
    """Fraction of the pixels, of ``background`` and of each tag."""
    confidence: float | None
    """[0, 1]: how good the mask is expected to be."""
    error: str | None
    """None, or ``stage: reason``."""


def label_images(
    images: Sequence[Picture],
    tags: Sequence[Sequence[str]],
    *,
    cam: str,
    affinity: str = "",
    settings: Settings | None = None,
    max_pixels: int = 100_000_000,
) -> list[LabeledImage]:
    """Label images in this process.

    Args:
        images: paths or URIs, Pillow images, or (H, W, 3) uint8 arrays.
        tags: for each image the names of what it shows.
        cam: folder or URI of ``jobs.train_cam``, or of ``jobs.train_segmentation``, whose maps ``settings.recam``
            takes and ``settings.rewalk`` spreads.
        affinity: folder or URI of ``jobs.train_affinity``; not needed when the walk has 0 steps.
        settings: preset ``small`` by default; its ``resources`` choose the device.
        max_pixels: a larger image is an error.

    Returns:
        A result for each image, in their order; an image that cannot be labeled has ``error`` and costs no other.

    Raises:
        ConfigError: ``images`` and ``tags`` differ in length, or ``affinity`` is missing.
        WeightsError: the weights cannot be used.
    """
    if len(images) != len(tags):
        raise ConfigError(f"images has {len(images)} entries and tags {len(tags)}; allowed: as many of each")
    chosen = settings or preset("small")
    architecture = read_architecture(cam, MAP_KINDS)
    class_names = architecture.class_names
    inference, walk = map_settings(architecture.kind, chosen)
    walks = walk.num_steps > 0
    if walks and not affinity:
        raise ConfigError("affinity is missing; give the folder of jobs.train_affinity, or settings without a walk")
    shared: dict[str, Any] = {
        "device": chosen.resources.device,
        "images_per_pass": chosen.resources.images_per_pass,
        "max_pixels": max_pixels,
    }
    stages: list[tuple[str, Any]] = [
        ("cam", ComputeCam(cam, inference, **shared)),
        (
            "walk",
            RefineCam(affinity, chosen.affinity.inference, walk, **shared, keep_cam=False)
            if walks
            else AddBackground(walk, keep_cam=False),
        ),
        *([("pamr", AdaptMaps(chosen.pamr, **shared))] if chosen.pamr.num_iterations > 0 else []),
        (
            "crf",
            MakeMask(
                chosen.crf,
                walk,
                num_classes=len(class_names),
                max_pixels=max_pixels,
                keep_stages=False,
                device=chosen.resources.device if chosen.crf.backend == "torch" else "cpu",
                confidence=chosen.confidence.after(LEVELS[architecture.kind]),
            ),
        ),
    ]
    batch = _batch(images, tags, class_names)
    for name, stage in stages:
        batch = guarded(name, stage, batch)
    return [_result(batch, row, class_names) for row in range(len(images))]


def _batch(images: Sequence[Picture], tags: Sequence[Sequence[str]], class_names: tuple[str, ...]) -> Batch:
    ids = {name: class_id for class_id, name in enumerate(class_names, start=1)}
    batch: Batch = {name: [] for name in ("encoded", "tags", "class_ids", "error", "height", "width")}
    for image, names in zip(images, tags, strict=True):
        encoded, error = _encoded(image)
        names = list(dict.fromkeys(names))
        unknown = [name for name in names if name not in ids]
        if unknown:
            error = f"tags: '{unknown[0]}' is not among the classes {', '.join(class_names[:8])}"
        batch["encoded"].append(encoded)
        batch["tags"].append(names)
        batch["class_ids"].append([ids[name] for name in names if name in ids])
        batch["error"].append(error)
        batch["height"].append(None)
        batch["width"].append(None)
    return batch


def _encoded(image: Picture) -> tuple[bytes | None, str | None]:
    try:
        if isinstance(image, str | Path):
            return read_bytes(str(image)), None
        pixels = _pixels(image)
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or pixels.size == 0:
            raise ImageError("decode", f"an array of {pixels.shape} {pixels.dtype}; allowed: (H, W, 3) uint8")
        return encode_picture(pixels), None
    except OSError as error:
        return None, f"fetch: {error}"
    except ImageError as error:
        return None, str(error)


def _pixels(image: NDArray[np.uint8] | Image.Image) -> NDArray[np.uint8]:
    try:
        return upright_rgb(image) if isinstance(image, Image.Image) else np.asarray(image)
    except Exception as error:
        # an image that was opened is decoded only here, and Pillow's decoders raise anything
        raise ImageError("decode", first_line(error)) from error


def _result(batch: Batch, row: int, class_names: tuple[str, ...]) -> LabeledImage:
    png = batch["mask"][row]
    if png is None:
        return LabeledImage(mask=None, class_names=class_names, areas={}, confidence=None, error=batch["error"][row])
    return LabeledImage(
        mask=decode_mask(png),
        class_names=class_names,
        areas=dict(zip(["background", *batch["tags"][row]], batch["areas"][row], strict=True)),
        confidence=batch["confidence"][row],
        error=None,
    )
