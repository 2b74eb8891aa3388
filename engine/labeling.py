"""Label images in memory, without Ray: for a notebook or a service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from engine.chain import built, label_chain, run_stages
from engine.checks import require_at_least
from engine.config import Settings
from engine.errors import ConfigError, ImageError, about, first_line
from engine.imaging.codecs import decode_mask, encode_picture
from engine.imaging.decoding import upright_rgb
from engine.networks import MAP_KINDS, open_network
from engine.presets import PRESETS, preset
from engine.records import Batch
from engine.resources import Decoding
from engine.storage.filesystem import as_location, exists, join, read_bytes
from engine.storage.recorded_settings import recorded_settings
from engine.storage.weights import weights_file

Location = str | Path
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


class Labeler:
    """Labels images in this process with networks that are loaded once.

    ``Labeler("runs/mine")`` takes the networks of a finished ``jobs.run``: the maps of its segmentation network, else
    those of its classifier, and AffinityNet.
    """

    def __init__(
        self,
        run: Location = "",
        *,
        cam: Location = "",
        affinity: Location = "",
        settings: Settings | str = "auto",
        max_pixels: int = 100_000_000,
    ) -> None:
        """Load the networks.

        Args:
            run: output folder or URI of ``jobs.run``; instead of ``cam`` and ``affinity``.
            cam: folder or URI of ``jobs.train_cam``; or of ``jobs.train_segmentation``, used with
                ``settings.later_maps`` and ``settings.later_walk``.
            affinity: folder or URI of ``jobs.train_affinity``; not needed when the walk has 0 steps.
            settings: settings, whose ``resources`` choose the device, or the name of a preset; ``auto`` takes those
                that the networks were made with, else preset ``small``. By name they run on the GPU that this process
                sees, else on the CPU.
            max_pixels: a larger image is an error.

        Raises:
            ConfigError: no network is named, or ``settings`` is neither settings nor the name of a preset.
            WeightsError: the weights cannot be used.
            StorageError: a folder or file cannot be read.
        """
        require_at_least(1, max_pixels=max_pixels)
        if bool(run) == bool(cam):
            raise ConfigError("or cam must be given, and not both", thing="run")
        if run:
            cam, affinity = _networks_of(as_location(run, "run"))
        maps, walk = as_location(cam, "cam"), as_location(affinity, "affinity")
        with about("cam"):
            network = open_network(maps, MAP_KINDS)
        self.settings = _chosen(settings, maps, walk)
        """The settings in use."""
        self.class_names = network.class_names
        """Names of the classes 1..C."""
        if self.settings.maps_of(network.map_kind).walk.num_steps > 0:
            if not walk:
                reason = "is missing; give the folder of jobs.train_affinity, or a walk of 0 steps"
                raise ConfigError(reason, thing="affinity")
            with about("affinity"):
                open_network(walk, "affinity")
        chosen = self.settings
        decoding = Decoding(max_pixels=max_pixels, bands=chosen.bands, value_range=chosen.value_range)
        chain = label_chain(chosen, network, walk, decoding=decoding, keep_stages=False)
        self._stages = built(chain)

    def label(self, images: Sequence[Picture], tags: Sequence[Sequence[str]]) -> list[LabeledImage]:
        """Label some images.

        Args:
            images: paths or URIs, Pillow images, or (H, W, 3) uint8 arrays.
            tags: for each image the names of what it shows.

        Returns:
            A result for each image, in their order; an image that cannot be labeled has ``error`` and costs no other.

        Raises:
            ConfigError: ``images`` is one image, or ``tags`` is not a list of names for each.
        """
        _check(images, tags)
        batch = run_stages(self._stages, _batch(images, tags, self.class_names))
        return [_result(batch, row, self.class_names) for row in range(len(images))]


def label_images(
    images: Sequence[Picture],
    tags: Sequence[Sequence[str]],
    *,
    cam: Location,
    affinity: Location = "",
    settings: Settings | str = "auto",
    max_pixels: int = 100_000_000,
) -> list[LabeledImage]:
    """Load the networks and label some images: :class:`Labeler` for one call, with its arguments and errors."""
    _check(images, tags)
    return Labeler(cam=cam, affinity=affinity, settings=settings, max_pixels=max_pixels).label(images, tags)


def _networks_of(run: str) -> tuple[str, str]:
    """The network that gives the maps, and AffinityNet, of a folder of jobs.run."""
    cam, segmentation = join(run, "cam"), join(run, "segmentation")
    with about("run"):
        maps = segmentation if exists(weights_file(segmentation)) else cam
        if not exists(weights_file(maps)):
            raise ConfigError(f"'{run}' holds no trained networks; give the output folder of jobs.run")
    return maps, join(run, "affinity")


def _chosen(settings: object, cam: str, affinity: str) -> Settings:
    if isinstance(settings, Settings):
        return settings
    if not isinstance(settings, str):
        allowed = f"Settings, auto, or the name of a preset ({', '.join(PRESETS)})"
        raise ConfigError(f"must be {allowed}, got {type(settings).__name__}", thing="settings")
    if settings == "auto":
        sources: dict[str, tuple[str, tuple[str, ...]]] = {"cam": (cam, ())}
        if affinity:
            sources["affinity"] = (affinity, ("affinity.inference",))
        found = recorded_settings(sources) or preset("small")
    else:
        found = preset(settings)
    gpu = torch.cuda.is_available()
    resources = replace(found.resources, num_gpus=1.0 if gpu else 0.0, **({} if gpu else {"images_per_pass": 1}))
    return replace(found, resources=resources)


def _check(images: Any, tags: Any) -> None:
    """Refuse one image in the place of a list of them, and names in the place of a list of names for each.

    Raises:
        ConfigError: so it is.
    """
    one = isinstance(images, str | Path | Image.Image) or (isinstance(images, np.ndarray) and images.ndim == 3)
    if one:
        raise ConfigError("must be a list of images, got a single one; put it into [ ]", thing="images")
    if isinstance(tags, str) or any(isinstance(names, str) for names in tags):
        raise ConfigError(
            f"must hold a list of names for each image, such as [['dog', 'person']], got {tags!r}", thing="tags"
        )
    if len(images) != len(tags):
        raise ConfigError(f"must have an entry for each of the {len(images)} images, got {len(tags)}", thing="tags")


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
            return read_bytes(as_location(image, "image")), None
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
