"""What an export format is: a class that turns one image's mask into files, and all of them into lists.

To add one: a module here with such a class, and its line in :data:`engine.export.FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TextIO

Subset = Literal["train", "val"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FormatOptions:
    """What a format may know of the whole export; small, so that it travels to every actor."""

    class_names: tuple[str, ...]
    """Names of the classes 1..C."""
    out: str
    """Folder or URI of the export."""
    val_fraction: float = 0.0
    """Part of the images that goes to the subset ``val``."""
    rows_per_shard: int = 256
    """Images that are exported together: a row ``r`` is done again with all of shard ``r // rows_per_shard``."""
    image_url_prefix: str = ""
    """Stands before an image's path where a format names images by URL; empty: the format's own way."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One image and its mask, on their way out."""

    name: str
    """For files: unique in the export, of letters, digits and ``-_.%`` alone."""
    row: int
    """Number of the image in the manifest, from 0."""
    image_id: str
    image: str
    """As in the manifest."""
    uri: str
    """Where the image lies; empty where ``picture`` is its copy."""
    picture: str
    """Path of the copy in the export; empty without one."""
    subset: Subset
    png: bytes
    """The mask, as :func:`engine.records.encode_mask` gives it."""
    height: int
    width: int
    tags: tuple[str, ...]
    confidence: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What is known of an exported image when the lists are written."""

    name: str
    image_id: str
    subset: Subset
    entry: Any
    """What the format kept of the image, by way of JSON."""


Opener = Callable[[str], AbstractContextManager[TextIO]]
"""Opens a text file of the export to write; it appears whole when the block ends."""


class Format(Protocol):
    """Writes masks the way that some other program reads them."""

    writes: ClassVar[tuple[str, ...]]
    """Names that it may write directly in the output folder; only these are deleted when it starts afresh."""
    copies_images: ClassVar[bool]
    """Whether its reader wants the images beside the masks, upright."""
    needs_images: ClassVar[bool]
    """Whether it cannot be written without copies of the images."""
    only_jpeg: ClassVar[bool]
    """Whether its reader knows copies that end with ``.jpg`` alone."""

    def __init__(self, options: FormatOptions) -> None: ...

    def picture_folder(self, subset: Subset) -> str:
        """Where copies of images go."""

    def files(self, item: Item) -> tuple[dict[str, bytes], Any]:
        """The files of one image, by their paths in the export, and what the lists need of it (plain values)."""

    def finish(self, exported: Callable[[], Iterator[Exported]], open_text: Opener) -> None:
        """Write the lists.

        Args:
            exported: gives all images in the manifest's order, as often as it is called; there may be millions.
        """
