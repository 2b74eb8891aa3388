"""The picture at the top of README.md, from what `make demo` left: ``python docs/make_example.py [runs/demo]``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from engine.records import decode_mask, voc_palette

NUM_SCENES = 3
GAP_PX = 6


def _overlay(photograph: np.ndarray, mask: np.ndarray) -> np.ndarray:
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
            scored.append((gain, row["image"], [*masks, truth]))
    scored.sort(key=lambda one: one[0], reverse=True)
    lines = []
    for _, image, masks in scored[:NUM_SCENES]:
        photograph = np.asarray(Image.open(run / "scenes" / image))
        panels = [photograph, *(_overlay(photograph, mask) for mask in masks)]
        gap = np.full((photograph.shape[0], GAP_PX, 3), 255, dtype=np.uint8)
        lines.append(np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1))
        lines.append(np.full((GAP_PX, lines[0].shape[1], 3), 255, dtype=np.uint8))
    target = Path(__file__).parent / "example.png"
    Image.fromarray(np.concatenate(lines[:-1])).quantize(192).save(target, optimize=True)
    print(target)


if __name__ == "__main__":
    main()
