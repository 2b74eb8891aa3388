"""The picture at the top of README.md: photographs labeled with ``--keep-stages``, a row each.

``python docs/make_photographs.py MASKS PHOTOGRAPHS``, of scikit-image's ``chelsea.png`` (CC0) and ``astronaut.png``
(public domain), tagged "cat" and "person" and labeled by networks that were trained on the tags of ``voc12_animals``.
"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from make_example import composed
from numpy.typing import NDArray
from PIL import Image, ImageOps

from engine.imaging.codecs import decode_mask
from engine.report.pictures import mask_uri

HEADINGS = ("image and its tag", "1  CAM", "2  random walk", "3  dense CRF: the mask")
PANEL_PX = (250, 190)


def overlaid(photograph: Image.Image, mask: NDArray[np.integer]) -> Image.Image:
    """The photograph with the mask as the report shows it."""
    uri = mask_uri(mask, (photograph.height, photograph.width))
    overlay = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGBA")
    return Image.alpha_composite(photograph.convert("RGBA"), overlay).convert("RGB")


def main() -> None:
    """Write ``photographs.jpg`` beside this file."""
    masks, photographs = map(Path, sys.argv[1:])
    rows = []
    for shard in sorted(masks.glob("*.parquet")):
        for row in pq.read_table(shard).to_pylist():
            photograph = Image.open(photographs / row["image"]).convert("RGB")
            small = ImageOps.contain(photograph, PANEL_PX, Image.Resampling.LANCZOS)
            masks_of_row = [decode_mask(row[name]["bytes"]) for name in ("mask_cam", "mask_walk", "mask")]
            panels = [small, *(overlaid(small, mask) for mask in masks_of_row)]
            rows.append((row["tags"], [np.asarray(ImageOps.pad(panel, PANEL_PX, color="white")) for panel in panels]))
    composed(rows, HEADINGS).save(Path(__file__).parent / "photographs.jpg", quality=88)


if __name__ == "__main__":
    main()
