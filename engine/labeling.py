"""Label a few images in memory, without Ray: for a notebook or a service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.chain import label_chain, run_chain
from engine.config import Settings
from engine.errors import ConfigError, ImageError, first_line
from engine.imaging.codecs import decode_mask, encode_picture
from engine.imaging.decoding import upright_rgb
from engine.networks import MAP_KINDS, open_network
from engine.presets import preset
from engine.records import Batch
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
        cam: folder or URI of ``jobs.train_cam``; or of ``jobs.train_segmentation``, used with ``settings.later_maps``
            and ``settings.later_walk``.
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
        raise ConfigError(f"must have an entry for each of the {len(images)} images, got {len(tags)}", thing="tags")
    chosen = settings or preset("small")
    network = open_network(cam, MAP_KINDS)
    class_names = network.class_names
    if chosen.maps_of(network.map_kind).walk.num_steps > 0 and not affinity:
        raise ConfigError("is missing; give the folder of jobs.train_affinity, or a walk of 0 steps", thing="affinity")
    chain = label_chain(chosen, network, affinity, max_pixels=max_pixels, keep_stages=False)
    batch = run_chain(chain, _batch(images, tags, class_names))
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
            raise ImageError("decode", f"an array must be (H, W, 3) uint8, got {pixels.shape} {pixels.dtype}")
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
