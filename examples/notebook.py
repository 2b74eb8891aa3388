"""Label a few images in memory, read mask shards in a DataLoader, export them: what a notebook needs, in one script.

On a finished run (``make demo`` leaves one in ``runs/demo``)::

    .venv/bin/python -m examples.notebook runs/demo runs/demo/scenes/manifest.csv
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.nn import functional
from torch.utils.data import DataLoader

import engine
from engine.config import Settings
from engine.presets import preset
from engine.storage.dataset import MaskStream, Sample
from engine.storage.filesystem import join
from engine.storage.manifest import iter_manifest
from engine.storage.shards import open_dataset
from jobs import export

SIDE_PX = 64


def label_some(run: str, manifest: str, settings: Settings, num_images: int = 2) -> list[engine.LabeledImage]:
    """Masks of the manifest's first images, in this process and without Ray."""
    rows = next(iter_manifest(manifest))
    results = engine.label_images(
        rows["uri"][:num_images],
        rows["tags"][:num_images],
        cam=join(run, "cam"),
        affinity=join(run, "affinity"),
        settings=settings,
    )
    for image, result in zip(rows["image"], results, strict=False):
        print(image, result.error or {name: round(area, 2) for name, area in result.areas.items()})
    return results


def small(sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
    """A sample brought to one size, so that samples fit into a batch."""
    image = functional.interpolate(sample.image[None] / 255, (SIDE_PX, SIDE_PX), mode="bilinear", antialias=True)[0]
    mask = functional.interpolate(sample.mask[None, None].float(), (SIDE_PX, SIDE_PX), mode="nearest")[0, 0]
    return image, mask.long()


def count_pixels(masks: str) -> dict[str, int]:
    """Pixels of each class over all masks, read as a training loop would read them."""
    stream = MaskStream(masks, small, shuffle=True)
    counts = torch.zeros(65536, dtype=torch.int64)
    for _, targets in DataLoader(stream, batch_size=8, num_workers=2):
        counts += targets.flatten().bincount(minlength=len(counts))
    return dict(zip(("background", *stream.class_names), counts.tolist(), strict=False))


def main(run: str, manifest: str) -> dict[str, Any]:
    """All of it, one after the other."""
    masks, settings = join(run, "masks"), preset("tiny")
    label_some(run, manifest, settings)
    print(count_pixels(masks))
    print(open_dataset(masks).to_table(columns=["image_id", "confidence"]).to_pandas().describe())
    coco = join(run, "coco")
    return export.run(
        export.Export(data=manifest, masks=masks, format="coco", out=coco, overwrite=True, settings=settings)
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
