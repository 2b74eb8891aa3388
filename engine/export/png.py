"""A plain folder: ``masks/NAME.png`` and ``classes.txt``, which ``jobs.evaluate`` reads as truth too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from engine.export.format import Exported, FormatOptions, Item, Opener, Subset


class PngFolder:
    """The masks as they are in the shards, a file an image."""

    writes: ClassVar[tuple[str, ...]] = ("masks", "images", "classes.txt")
    copies_images: ClassVar[bool] = False
    needs_images: ClassVar[bool] = False
    only_jpeg: ClassVar[bool] = False

    def __init__(self, options: FormatOptions) -> None:
        self._class_names = options.class_names

    def picture_folder(self, subset: Subset) -> str:
        return "images"

    def files(self, item: Item) -> tuple[dict[str, bytes], Any]:
        return {f"masks/{item.name}.png": item.png}, None

    def finish(self, exported: Callable[[], Iterator[Exported]], open_text: Opener) -> None:
        with open_text("classes.txt") as file:
            file.writelines(f"{name}\n" for name in self._class_names)
