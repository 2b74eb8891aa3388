"""The demo's scenes in docs/results.md, from what `make demo` left: ``python docs/make_example.py [runs/demo]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from engine.imaging.codecs import decode_mask, voc_palette

NUM_SCENES = 3
GAP_PX, HEADING_PX, TEXT_PX = 6, 26, 15
HEADINGS = ("image and its tags", "1  CAM", "2  random walk", "3  dense CRF: the mask", "truth, for comparison")


def composed(
    rows: Sequence[tuple[Sequence[str], Sequence[NDArray[np.uint8]]]], headings: Sequence[str] = HEADINGS
) -> Image.Image:
    """A row of panels for each scene under their headings, the tags written on the first.

    Args:
        rows: tags, and for each heading a panel, (H, W, 3), all of one size.
    """
    height, width = rows[0][1][0].shape[:2]
    font = ImageFont.load_default(size=TEXT_PX)
    size = ((width + GAP_PX) * len(headings) - GAP_PX, HEADING_PX + (height + GAP_PX) * len(rows) - GAP_PX)
    picture = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(picture)
    for column, heading in enumerate(headings):
        left = column * (width + GAP_PX)
        pen.text((left + width / 2, HEADING_PX / 2), heading, fill="black", font=font, anchor="mm")
        for line, (tags, panels) in enumerate(rows):
            top = HEADING_PX + line * (height + GAP_PX)
            picture.paste(Image.fromarray(panels[column]), (left, top))
            if column == 0:
                place, words = (left + 8, top + height - 8), "; ".join(tags)
                box = pen.textbbox(place, words, font=font, anchor="ls")
                pen.rectangle((box[0] - 5, box[1] - 4, box[2] + 5, box[3] + 4), fill=(25, 25, 25))
                pen.text(place, words, fill="white", font=font, anchor="ls")
    return picture


def write(picture: Image.Image) -> Path:
    """Keep the picture where the page shows it."""
    target = Path(__file__).parent / "example.png"
    picture.quantize(192, dither=Image.Dither.NONE).save(target, optimize=True)
    return target


def _overlay(photograph: NDArray[np.uint8], mask: NDArray[Any]) -> NDArray[np.uint8]:
    colors = np.frombuffer(voc_palette(), dtype=np.uint8).reshape(256, 3)[mask]
    blended = (0.35 * photograph + 0.65 * colors).astype(np.uint8)
    return np.where((mask > 0)[..., None], blended, photograph)


def main() -> None:
    """Scenes with two tags whose masks gained most by the walk, a row each."""
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")
    rows = [row for shard in sorted((run / "masks").glob("*.parquet")) for row in pq.read_table(shard).to_pylist()]
    scored = []
    for row in rows:
        masks = [decode_mask(row[name]["bytes"]) for name in ("mask_cam", "mask_walk", "mask")]
        truth = np.asarray(Image.open(run / "scenes" / "truth" / f"{Path(row['image']).stem}.png"))
        if len(row["tags"]) == 2:
            gain = (masks[1] == truth).mean() - (masks[0] == truth).mean()
            scored.append((gain, row, [*masks, truth]))
    scored.sort(key=lambda one: one[0], reverse=True)
    lines = []
    for _, row, masks in scored[:NUM_SCENES]:
        photograph = np.asarray(Image.open(run / "scenes" / row["image"]))
        lines.append((row["tags"], [photograph, *(_overlay(photograph, mask) for mask in masks)]))
    print(write(composed(lines)))


if __name__ == "__main__":
    main()
