"""Import PASCAL VOC: tags from ``Annotations/*.xml``, else from ``SegmentationClass/*.png``.

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
"""Supersets that files labeled with these encodings often use, as in the WHATWG Encoding Standard."""
_YES = ("1", "true", "yes")


def read_voc(source: str, options: ReaderOptions) -> ImportedDataset:
    """Read the images of ``JPEGImages``, at any depth, that have an annotation, or if none has, a mask.

    If there are neither, annotations next to their images in ``source`` are read, as labelImg writes them. The classes
    are those of :class:`engine.imports.voc_masks.MaskTags`, unless annotations name others. Difficult objects are
    ignored, and images with only difficult objects are skipped. The options are not used.

    Raises:
        StorageError: The folder is not VOC, a file in it is damaged, or two files have the same name.
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
        labels = _by_stem(folder, Remarks(), of=".xml")  # other files are remarked on when listing the images
    pictures = _pictures(photos, labels, kind, remarks)
    if not pictures:
        raise StorageError(
            f"'{source}' contains no annotated images; it needs JPEGImages, and Annotations or SegmentationClass"
        )
    tags: dict[str, tuple[str, ...]] = {}
    if kind == "annotations":
        objects = {stem: _objects(join(folder, labels[stem][0]), remarks) for stem in pictures}
        tags = {stem: tuple(name for name, difficult in objects[stem].items() if not difficult) for stem in objects}
        for stem in [stem for stem in objects if objects[stem] and not tags[stem]]:
            remarks.add("images with only difficult objects (skipped)", pictures.pop(stem))
        if not set(names) >= (occurring := {tag for stem in pictures for tag in tags[stem]}):
            names = tuple(sorted(occurring))

    def found() -> Iterator[Image]:
        for stem, picture in pictures.items():
            found_tags = tags[stem] if kind == "annotations" else masks.of(join(folder, labels[stem][0]))
            yield Image(image_id=stem, location=join(photos, picture), tags=found_tags)
        masks.check()

    return ImportedDataset(class_names=names, images=found(), remarks=remarks)


def _by_stem(folder: str, remarks: Remarks, *, of: str = "") -> dict[str, list[str]]:
    """List files at any depth, with the given ending or all, by path without ending."""
    found = defaultdict(list)
    for path in files_below(folder, "", remarks):
        stem, ending = posixpath.splitext(path)
        if of in ("", ending.lower()):
            found[stem].append(path)
        else:
            remarks.add(f"files other than {of} (skipped)", path)
    return dict(sorted(found.items()))


def _pictures(folder: str, labels: dict[str, list[str]], kind: str, remarks: Remarks) -> dict[str, str]:
    """Find the image of each label, by their common path without ending."""
    candidates = {
        stem: [path for path in paths if is_picture_file(join(folder, path))]
        for stem, paths in _by_stem(folder, remarks).items()
    }
    found = {}
    for stem, paths in labels.items():
        pictures = candidates.pop(stem, [])
        for several in (pictures, paths):
            if len(several) > 1:
                raise StorageError(f"has two files of the same name, '{several[0]}' and '{several[1]}'; remove one")
        if pictures:
            found[stem] = pictures[0]
        else:
            remarks.add(f"{kind} without an image (skipped)", paths[0])
    for pictures in candidates.values():
        for path in pictures:
            remarks.add(f"images without {kind} (skipped)", path)
    return found


def _objects(location: str, remarks: Remarks) -> dict[str, bool]:
    """Read the class names in an annotation, each with whether all its objects are difficult."""
    root = _xml(location)
    if root.tag.rpartition("}")[2] != "annotation":
        raise StorageError(f"'{location}' is not a VOC annotation: its root is <{root.tag}>, not <annotation>")
    found: dict[str, bool] = {}
    for item in root.iterfind(".//{*}object"):
        name = item.findtext("{*}name", "").strip()
        if _is_set(item, "deleted"):  # LabelMe keeps deleted objects
            remarks.add("deleted objects (skipped)", location)
        elif name:
            found[name] = found.get(name, True) and _is_set(item, "difficult")
        else:
            remarks.add("objects without a name (skipped)", location)
    return found


def _is_set(item: ElementTree.Element, flag: str) -> bool:
    return item.findtext(f"{{*}}{flag}", "").strip().lower() in _YES


def _xml(location: str) -> ElementTree.Element:
    data = read_bytes(location)
    try:
        try:
            return ElementTree.fromstring(data)
        except (ValueError, LookupError):  # an encoding that expat does not support
            declared = _ENCODING.match(data)
            encoding = declared.group(1).decode().lower() if declared else "utf-8"
            return ElementTree.fromstring(data.decode(_WIDER.get(encoding, encoding)))
    except (ElementTree.ParseError, UnicodeError, LookupError) as error:
        raise StorageError(f"'{location}' is not XML: {first_line(error)}") from error
