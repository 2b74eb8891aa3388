"""PASCAL VOC: tags from ``Annotations/*.xml``, else from ``SegmentationClass/*.png``.

Source: the VOC2012 development kit.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator
from xml.etree import ElementTree

from engine.errors import StorageError, first_line
from engine.imports.files import files_below, is_picture_file
from engine.imports.found import Image, ImportedDataset, ReaderOptions
from engine.imports.remarks import Remarks
from engine.imports.voc_masks import MaskTags
from engine.storage.filesystem import join, read_bytes

_ENCODING = re.compile(rb"<\?xml[^>]*encoding\s*=\s*[\"']([\w.:-]+)[\"']")
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030"}
"""What Windows calls by the name of the narrower one, as the WHATWG's Encoding Standard has it."""
_YES = ("1", "true", "yes")


def read_voc(source: str, options: ReaderOptions) -> ImportedDataset:
    """The images of ``JPEGImages`` that have an annotation, else those that have a mask; at any depth.

    Where there are neither, annotations beside their images in ``source`` are taken, as labelImg leaves them. The
    classes are as :class:`engine.imports.voc_masks.MaskTags` finds them, unless annotations name others. Objects that
    are marked difficult do not count, and images with no others are left out. No option does anything.

    Raises:
        StorageError: it is no VOC folder, a file in it is damaged, or one of two pictures may be meant.
    """
    remarks = Remarks()
    masks = MaskTags(source, remarks)
    names = masks.names
    folder, photos, kind = join(source, "Annotations"), join(source, "JPEGImages"), "annotations"
    labels = _by_stem(folder, remarks, of=".xml")
    if not labels:
        folder, kind = join(source, "SegmentationClass"), "masks"
        labels = _by_stem(folder, remarks, of=".png")
    if not labels:
        folder, photos, kind = source, source, "annotations"
        labels = _by_stem(folder, Remarks(), of=".xml")  # the images' search hears of all other files
    pictures = _pictures(photos, labels, kind, remarks)
    if not pictures:
        raise StorageError(
            f"'{source}' holds no annotated image; it needs JPEGImages, and Annotations or SegmentationClass"
        )
    tags: dict[str, tuple[str, ...]] = {}
    if kind == "annotations":
        objects = {stem: _objects(join(folder, labels[stem][0]), remarks) for stem in pictures}
        tags = {stem: tuple(name for name, difficult in objects[stem].items() if not difficult) for stem in objects}
        for stem in [stem for stem in objects if objects[stem] and not tags[stem]]:
            remarks.add("images whose objects are all difficult (left out)", pictures.pop(stem))
        if not set(names) >= (occurring := {tag for stem in pictures for tag in tags[stem]}):
            names = tuple(sorted(occurring))

    def found() -> Iterator[Image]:
        for stem, picture in pictures.items():
            found_tags = tags[stem] if kind == "annotations" else masks.of(join(folder, labels[stem][0]))
            yield Image(image_id=stem, location=join(photos, picture), tags=found_tags)
        masks.check()

    return ImportedDataset(class_names=names, images=found(), remarks=remarks)


def _by_stem(folder: str, remarks: Remarks, *, of: str = "") -> dict[str, list[str]]:
    """The files at any depth, those with one ending or all, by their path without it."""
    found = defaultdict(list)
    for path in files_below(folder, "", remarks):
        stem, ending = posixpath.splitext(path)
        if of in ("", ending.lower()):
            found[stem].append(path)
        else:
            remarks.add(f"files beside {of} (left out)", path)
    return dict(sorted(found.items()))


def _pictures(folder: str, labels: dict[str, list[str]], kind: str, remarks: Remarks) -> dict[str, str]:
    """The picture of each label that has one, by their common path without an ending."""
    candidates = {
        stem: [path for path in paths if is_picture_file(join(folder, path))]
        for stem, paths in _by_stem(folder, remarks).items()
    }
    found = {}
    for stem, paths in labels.items():
        pictures = candidates.pop(stem, [])
        for several in (pictures, paths):
            if len(several) > 1:
                raise StorageError(f"has two files of one name, '{several[0]}' and '{several[1]}'; remove one of them")
        if pictures:
            found[stem] = pictures[0]
        else:
            remarks.add(f"{kind} without a picture (left out)", paths[0])
    for pictures in candidates.values():
        for path in pictures:
            remarks.add(f"pictures without {kind} (left out)", path)
    return found


def _objects(location: str, remarks: Remarks) -> dict[str, bool]:
    """The names of an annotation's objects, each with whether all of its objects are difficult."""
    root = _xml(location)
    if root.tag.rpartition("}")[2] != "annotation":
        raise StorageError(f"'{location}' is not of VOC: it starts with <{root.tag}>, not <annotation>")
    found: dict[str, bool] = {}
    for item in root.iterfind(".//{*}object"):
        name = item.findtext("{*}name", "").strip()
        if _is_set(item, "deleted"):  # as LabelMe keeps them
            remarks.add("deleted objects (left out)", location)
        elif name:
            found[name] = found.get(name, True) and _is_set(item, "difficult")
        else:
            remarks.add("objects without a name (left out)", location)
    return found


def _is_set(item: ElementTree.Element, flag: str) -> bool:
    return item.findtext(f"{{*}}{flag}", "").strip().lower() in _YES


def _xml(location: str) -> ElementTree.Element:
    data = read_bytes(location)
    try:
        try:
            return ElementTree.fromstring(data)
        except (ValueError, LookupError):  # an encoding that expat does not know
            declared = _ENCODING.match(data)
            encoding = declared.group(1).decode().lower() if declared else "utf-8"
            return ElementTree.fromstring(data.decode(_WIDER.get(encoding, encoding)))
    except (ElementTree.ParseError, UnicodeError, LookupError) as error:
        raise StorageError(f"'{location}' is not XML: {first_line(error)}") from error
