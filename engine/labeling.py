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
from engine.storage.recorded_settings import recorded_settings, recorded_synonyms
from engine.storage.weights import weights_file

Location = str | Path
Picture = str | Path | NDArray[np.uint8] | Image.Image


@dataclass(frozen=True, kw_only=True, slots=True)
class LabeledImage:
    """The mask of one image, or the reason why there is none."""

    mask: NDArray[Any] | None
    """(H, W) uint8 (uint16 for more than 254 classes): 0 for background, i for the i-th of ``class_names``."""
    class_names: tuple[str, ...]
    """Names of the classes 1..C."""
    areas: dict[str, float]
    """Fraction of the pixels for ``background`` and each tag."""
    confidence: float | None
    """Expected IoU of the mask, in [0, 1]."""
    error: str | None
    """None, or ``stage: reason``."""


class Labeler:
    """Labels images in this process with networks that are loaded once.

    ``Labeler("runs/mine")`` uses the networks of a finished ``jobs.run``: AffinityNet, and for the class maps the
    segmentation network, or the classifier if none was trained.
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
            run: output folder or URI of ``jobs.run``; replaces ``cam`` and ``affinity``.
            cam: folder or URI of ``jobs.train_cam``; or of ``jobs.train_segmentation``, used with
                ``settings.later_maps`` and ``settings.later_walk``.
            affinity: folder or URI of ``jobs.train_affinity``; not needed when the walk has 0 steps.
            settings: settings, whose ``resources`` select the device, or the name of a preset. ``auto`` uses the
                settings that the networks were made with, or preset ``small`` if none were recorded. With a preset or
                ``auto`` the networks run on the GPU if this process has one, otherwise on the CPU.
            max_pixels: larger images get an ``error``.

        Raises:
            ConfigError: not exactly one of ``run`` and ``cam`` is given, ``affinity`` is missing, or ``settings`` is
                neither settings nor the name of a preset.
            WeightsError: the weights cannot be used.
            StorageError: a folder or file cannot be read.
        """
        require_at_least(1, max_pixels=max_pixels)
        if bool(run) == bool(cam):
            raise ConfigError("or cam must be given, but not both", thing="run")
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
                reason = "is missing; give the output folder of jobs.train_affinity, or set walk.num_steps to 0"
                raise ConfigError(reason, thing="affinity")
            with about("affinity"):
                open_network(walk, "affinity")
        with about("cam"):
            self._synonyms = recorded_synonyms(maps)
        chosen = self.settings
        decoding = Decoding(max_pixels=max_pixels, bands=chosen.bands, value_range=chosen.value_range)
        chain = label_chain(chosen, network, walk, decoding=decoding, keep_stages=False)
        self._stages = built(chain)

    def label(self, images: Sequence[Picture], tags: Sequence[Sequence[str]]) -> list[LabeledImage]:
        """Label images.

        Args:
            images: paths or URIs, Pillow images, or (H, W, 3) uint8 arrays.
            tags: for each image, the names of the classes that it shows; or other names, if the networks were trained
                with a class file that lists them.

        Returns:
            One result per image, in the same order. An image that cannot be labeled gets an ``error`` and does not
            affect the others.

        Raises:
            ConfigError: ``images`` is a single image, or ``tags`` does not hold a list of names per image.
        """
        _check(images, tags)
        known = [[self._synonyms.get(name, name) for name in names] for names in tags]
        batch = run_stages(self._stages, _batch(images, known, self.class_names))
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
    """Load the networks and label images once; arguments and errors as for :class:`Labeler`."""
    _check(images, tags)
    return Labeler(cam=cam, affinity=affinity, settings=settings, max_pixels=max_pixels).label(images, tags)


def _networks_of(run: str) -> tuple[str, str]:
    """Locate the network for the class maps, and AffinityNet, in an output folder of jobs.run."""
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
    """Check that there is a list of images, and a list of names for each.

    Raises:
        ConfigError: there is not.
    """
    one = isinstance(images, str | Path | Image.Image) or (isinstance(images, np.ndarray) and images.ndim == 3)
    if one:
        raise ConfigError("must be a list of images, got a single image; put it in a list", thing="images")
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
        # Pillow decodes an opened image only now, and its decoders raise errors of many types
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
