"""The trained segmentation network for other programs: ``python -m jobs.export_network``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import torch

from engine.errors import ConfigError
from engine.export.network import FILES, TOLERANCE, Format, exported, greatest_difference
from engine.networks import load_network
from engine.storage.filesystem import join, parent, write_bytes
from engine.storage.probes import check_writable
from engine.storage.run_record import write_json
from engine.storage.weights import weights_file, weights_hash
from jobs.cli.command import main

DESCRIPTION = "network.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportNetwork:
    """Write the segmentation network as ONNX or torch.export, checked against the original.

    In: images (1, 3, side, side) uint8 RGB; out: logits (1, C+1, side, side) float32, background first. Bring an
    image's long side to side and fill up the rest.
    """

    segmentation: str
    """Folder that jobs.train_segmentation wrote, or a file of weights."""
    out: str = ""
    """Folder or URI for the network and network.json; beside the weights by default."""
    format: Format = "onnx"
    """onnx (needs pip install 'tag2mask[onnx]') or torch, the archive that torch.export.load reads."""
    side_px: int = 384
    """Height and width of the images that the file takes, pixels; a multiple of 32."""

    def __post_init__(self) -> None:
        if self.side_px < 64 or self.side_px % 32:
            raise ConfigError(f"must be a multiple of 32, 64 or more, got {self.side_px}", thing="side_px")


def run(config: ExportNetwork) -> dict[str, Any]:
    """Write ``network.onnx`` or ``network.pt2`` and ``network.json``: classes, sizes, difference from the original.

    Raises:
        RuntimeError: the exported network does not give the original's logits; nothing is written.
    """
    network, architecture = load_network(config.segmentation, "segmentation")
    out = config.out or parent(weights_file(config.segmentation))
    check_writable(out)
    data = exported(network, config.format, config.side_px)
    images = torch.randint(
        0, 256, (1, 3, config.side_px, config.side_px), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    difference = greatest_difference(network, config.format, data, images)
    if not difference <= TOLERANCE:
        raise RuntimeError(f"the exported network's logits are off by {difference:g}, more than {TOLERANCE:g}")
    location = join(out, FILES[config.format])
    write_bytes(location, data)
    summary = {
        "file": FILES[config.format],
        "weights": weights_hash(config.segmentation),
        "class_names": ["background", *architecture.class_names],
        "input": {"name": "images", "shape": [1, 3, config.side_px, config.side_px], "dtype": "uint8", "colors": "RGB"},
        "output": {"name": "logits", "dtype": "float32"},
        "greatest_difference": difference,
    }
    write_json(join(out, DESCRIPTION), summary)
    print(f"{location}: logits within {difference:.1e} of the original's")
    return summary


if __name__ == "__main__":
    sys.exit(main(ExportNetwork, run))
