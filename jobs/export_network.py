"""Export the trained segmentation network to ONNX or torch.export: ``python -m jobs.export_network``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.errors import ConfigError
from engine.export.network import FILES, MULTIPLE_PX, TOLERANCE, Format, exported, greatest_difference
from engine.models.segmentation_net import SegmentationNetwork
from engine.networks import load_network
from engine.storage.filesystem import join, parent, write_bytes
from engine.storage.probes import check_writable
from engine.storage.recorded_settings import recorded_settings
from engine.storage.run_record import write_json
from engine.storage.weights import weights_file, weights_hash
from jobs.cli.command import main

DESCRIPTION = "network.json"
_TRIED = ((1, 64, 96), (2, 160, 128))
"""Batch, height and width of the images that a file for any size is checked with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportNetwork:
    """Export the segmentation network to ONNX or torch.export and verify it against the original.

    Input: images (B, 3, H, W) uint8 RGB. Output: logits (B, C+1, H, W) float32, background first. network.json
    describes how to prepare an image.
    """

    segmentation: str
    """Output folder of jobs.train_segmentation, or a weights file."""
    out: str = ""
    """Folder or URI for the network and network.json; by default the folder of the weights."""
    format: Format = "onnx"
    """onnx (needs `pip install onnx onnxruntime onnxscript`) or torch (an archive for torch.export.load)."""
    side_px: int = 0
    """Fixed height and width of the network's input, pixels, for a batch of 1; 0 accepts any multiples of 32."""

    def __post_init__(self) -> None:
        if self.side_px and (self.side_px < 2 * MULTIPLE_PX or self.side_px % MULTIPLE_PX):
            raise ConfigError(f"must be 0 or a multiple of 32, 64 or more, got {self.side_px}", thing="side_px")


def run(config: ExportNetwork) -> dict[str, Any]:
    """Write ``network.onnx`` or ``network.pt2``, and ``network.json``, which describes how to use it.

    Raises:
        RuntimeError: The exported network's logits differ from the original's; nothing is written.
    """
    network, architecture = load_network(config.segmentation, "segmentation")
    assert isinstance(network, SegmentationNetwork)
    out = config.out or parent(weights_file(config.segmentation))
    check_writable(out)
    data = exported(network, config.format, config.side_px)
    sizes = [(1, config.side_px, config.side_px)] if config.side_px else _TRIED
    difference = max(greatest_difference(network, config.format, data, _noise(*size)) for size in sizes)
    if not difference <= TOLERANCE:
        raise RuntimeError(
            f"the exported network's logits differ from the original's by {difference:g}, more than {TOLERANCE:g}"
        )
    location = join(out, FILES[config.format])
    write_bytes(location, data)
    class_names = ["background", *architecture.class_names]
    mean, std = (values.flatten().tolist() for values in (network.backbone.mean, network.backbone.std))
    batch, height, width = (1, config.side_px, config.side_px) if config.side_px else ("batch", "height", "width")
    recorded = recorded_settings({"segmentation": (config.segmentation, ("segmentation",))})
    summary = {
        "file": FILES[config.format],
        "weights": weights_hash(config.segmentation),
        "class_names": class_names,
        "input": {
            "name": "images",
            "shape": [batch, 3, height, width],
            "dtype": "uint8",
            "colors": "RGB, 0 to 255, after EXIF orientation",
            "size_multiple": MULTIPLE_PX,
            "long_side_px": recorded.segmentation.inference.long_side_px if recorded else None,
            "fill": [round(255 * value) for value in mean],
            "normalization": {"inside": True, "mean": mean, "std": std},
        },
        "output": {
            "name": "logits",
            "shape": [batch, len(class_names), height, width],
            "dtype": "float32",
            "class": "argmax over axis 1, an index of class_names",
        },
        "usage": (
            "Resize the image until its long side is long_side_px, pad right and bottom with fill to multiples of "
            "size_multiple, run, crop the logits to the resized image, resize them to the image's own size, argmax."
        ),
        "greatest_difference": difference,
    }
    write_json(join(out, DESCRIPTION), summary)
    print(f"{location}: logits within {difference:.1e} of the original's")
    return summary


def _noise(batch: int, height: int, width: int) -> Tensor:
    return torch.randint(
        0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


if __name__ == "__main__":
    sys.exit(main(ExportNetwork, run))
