"""PASCAL VOC: tags from ``Annotations/*.xml``, else from ``SegmentationClass/*.png``.

Source: the VOC2012 development kit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from xml.etree import ElementTree

import numpy as np

from engine.errors import StorageError, first_line
from engine.imaging.codecs import decode_mask
from engine.imports.found import Image, ImportedDataset
from engine.storage.filesystem import exists, join, list_names, read_bytes, stem
from engine.storage.retries import readable

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_DIFFICULT = "1"


def read_voc(source: str, *, images: str, out: str) -> ImportedDataset:
    """The images of ``JPEGImages`` that have an annotation, else those that have a mask.

    A mask's ids are named by ``classes.txt`` in ``source``, as jobs.export leaves it, else they are VOC's twenty.
    Objects that are marked difficult do not count. ``images`` and ``out`` do nothing.

    Raises:
        StorageError: it is no VOC folder, or a file in it is damaged.
    """
    pictures = {stem(name): name for name in list_names(join(source, "JPEGImages"))}
    annotated = list_names(join(source, "Annotations"), suffix=".xml")
    masks = [] if annotated else list_names(join(source, "SegmentationClass"), suffix=".png")
    names: tuple[str, ...] = VOC_CLASSES
    if exists(join(source, "classes.txt")):
        with readable(join(source, "classes.txt"), "list of classes"):
            names = tuple(read_bytes(join(source, "classes.txt")).decode("utf-8-sig").rstrip().split("\n"))
    labeled = [name for name in annotated or masks if stem(name) in pictures]
    if not labeled:
        raise StorageError(
            f"'{source}' holds no annotated image; it needs JPEGImages, and Annotations or SegmentationClass"
        )
    tags_of: Callable[[str], tuple[str, ...]]
    if annotated:
        folder = join(source, "Annotations")
        if not set(names) >= (occurring := {tag for name in labeled for tag in _xml_tags(join(folder, name))}):
            names = tuple(sorted(occurring))
        tags_of = _xml_tags
    else:
        folder = join(source, "SegmentationClass")

        def tags_of(location: str) -> tuple[str, ...]:
            return _mask_tags(location, names)

    def found() -> Iterator[Image]:
        for name in labeled:
            picture = pictures[stem(name)]
            yield Image(
                image_id=stem(name), location=join(source, "JPEGImages", picture), tags=tags_of(join(folder, name))
            )

    return ImportedDataset(class_names=names, images=found())


def _xml_tags(location: str) -> tuple[str, ...]:
    try:
        root = ElementTree.fromstring(read_bytes(location))
    except ElementTree.ParseError as error:
        raise StorageError(f"'{location}' is not XML: {error}") from error
    found = [
        item.findtext("name", "").strip() for item in root.iter("object") if item.findtext("difficult") != _DIFFICULT
    ]
    return tuple(dict.fromkeys(name for name in found if name))


def _mask_tags(location: str, names: tuple[str, ...]) -> tuple[str, ...]:
    png = read_bytes(location)
    try:
        mask = decode_mask(png)
    except (OSError, SyntaxError, ValueError) as error:
        raise StorageError(f"'{location}' is not a readable mask: {first_line(error)}") from error
    ignored = np.iinfo(mask.dtype).max
    ids = [class_id for class_id in np.unique(mask).tolist() if class_id not in (0, ignored)]
    if ids and ids[-1] > len(names):
        raise StorageError(
            f"'{location}' holds class {ids[-1]}, but there are {len(names)}; put a classes.txt beside JPEGImages"
        )
    return tuple(names[class_id - 1] for class_id in ids)
