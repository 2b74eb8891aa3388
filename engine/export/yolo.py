"""YOLO segmentation: ``images/``, ``labels/`` with polygons, ``data.yaml``, as Ultralytics reads them.

Source: docs.ultralytics.com, "Instance Segmentation Datasets": a line an object, ``class x y x y ...``, classes from 0,
coordinates as fractions of width and height. An object here is a connected part of a class. A polygon runs through the
centres of the outermost pixels; a hole hangs on its outer line by a cut that is walked in both directions, because the
format knows no holes. Where a cut crosses background, a line of pixels is lost, so the format is not exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError
from engine.export.format import Exported, FormatOptions, Item, Opener, Subset
from engine.imaging.codecs import decode_mask

_FIRST_CHILD, _PARENT = 2, 3
_MOST_CUTS = 64
"""Points of a hole that are tried for the shortest cut."""


class Yolo:
    """A text file of polygons an image; images of the subsets lie apart."""

    writes: ClassVar[tuple[str, ...]] = ("images", "labels", "data.yaml")
    copies_images: ClassVar[bool] = True
    needs_images: ClassVar[bool] = False
    only_jpeg: ClassVar[bool] = False

    def __init__(self, options: FormatOptions) -> None:
        """Raises:
        ConfigError: OpenCV is not installed, or no image is for validation, which Ultralytics cannot do without.
        """
        try:
            import cv2  # noqa: F401
        except ImportError as error:
            raise ConfigError("yolo needs OpenCV: pip install opencv-python-headless", thing="format") from error
        if not options.val_fraction:
            raise ConfigError(
                "must be above 0 for yolo, which validates on images of its own; try 0.1", thing="val_fraction"
            )
        self._class_names = options.class_names

    def picture_folder(self, subset: Subset) -> str:
        return f"images/{subset}"

    def files(self, item: Item) -> tuple[dict[str, bytes], Any]:
        mask = decode_mask(item.png)
        lines = []
        for class_id in np.unique(mask).tolist():
            if 0 < class_id <= len(self._class_names):
                for polygon in polygons_of(mask == class_id):
                    # the pixel's centre: whoever rounds down is in the pixel again
                    points = (polygon + 0.5) / (item.width, item.height)
                    lines.append(f"{class_id - 1} " + " ".join(f"{value:.6f}" for value in points.ravel()) + "\n")
        return {f"labels/{item.subset}/{item.name}.txt": "".join(lines).encode()}, None

    def finish(self, exported: Callable[[], Iterator[Exported]], open_text: Opener) -> None:
        with open_text("data.yaml") as file:
            file.write("train: images/train\nval: images/val\nnames:\n")
            for index, name in enumerate(self._class_names):
                quoted = name.replace("'", "''")
                file.write(f"  {index}: '{quoted}'\n")


def polygons_of(region: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """The outlines of a region's connected parts.

    Args:
        region: (H, W) bool.

    Returns:
        for each part (n, 2) int64, n >= 3: x and y of pixels, outline and holes in one line.
    """
    import cv2

    contours, tree = cv2.findContours(region.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    polygons = []
    for index, links in enumerate(tree[0] if contours else []):
        if links[_PARENT] >= 0:
            continue
        polygon = contours[index][:, 0].astype(np.int64)
        hole = links[_FIRST_CHILD]
        while hole >= 0:
            polygon = _with_hole(polygon, contours[hole][:, 0].astype(np.int64))
            hole = tree[0][hole][0]
        # a single pixel or a line still needs three points
        polygons.append(np.concatenate([polygon, np.repeat(polygon[-1:], max(0, 3 - len(polygon)), axis=0)]))
    return polygons


def _with_hole(outer: NDArray[np.int64], hole: NDArray[np.int64]) -> NDArray[np.int64]:
    """Walk the outer line to the point nearest to the hole, around the hole, and back to the same point."""
    step = -(-len(hole) // _MOST_CUTS)
    distances = ((outer[:, None] - hole[None, ::step]) ** 2).sum(axis=2)
    here, there = divmod(int(distances.argmin()), distances.shape[1])
    there *= step
    around = np.concatenate([hole[there:], hole[: there + 1]])
    return np.concatenate([outer[: here + 1], around, outer[here:]])
