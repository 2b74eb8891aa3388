"""Eight scenes and two networks that need no training; ``python -m tests.golden`` stores the masks they give.

The classifier is ImageNet's backbone under a head fitted in closed form to the true masks of other scenes, AffinityNet
the same backbone under random layers of a fixed seed.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from engine.config import Settings
from engine.imaging.codecs import decode_mask, encode_mask
from engine.labeling import label_images
from engine.models.cam_net import CamNetwork
from engine.networks import Architecture, build_pretrained, save_network
from engine.presets import preset
from engine.scenes import CLASS_NAMES, make_scene

MASKS, RECORD = (Path(__file__).with_name(f"golden.{ending}") for ending in ("png", "json"))
NUM_SCENES, SCENES_SEED = 8, 6
_NUM_FITTED, _FITTED_SEED, _RIDGE = 48, 1, 0.1

Mask = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenes:
    """Images, their true masks and their tags."""

    images: list[NDArray[np.uint8]]
    truth: list[Mask]
    tags: list[list[str]]


class Networks(TypedDict):
    """Folders of weights, as arguments of :func:`engine.label_images` and of the job."""

    cam: str
    affinity: str


def golden_scenes() -> Scenes:
    """The eight scenes; together they show every class."""
    return _scenes(SCENES_SEED, NUM_SCENES)


def golden_settings() -> Settings:
    """Those of the demo."""
    return preset("tiny")


def _scenes(rng_seed: int, number: int) -> Scenes:
    images, truth, tags = zip(*(make_scene(rng_seed, index) for index in range(number)), strict=True)
    return Scenes(images=list(images), truth=list(truth), tags=list(tags))


def write_networks(folder: Path) -> Networks:
    """Write both networks."""
    settings = golden_settings()
    for name, config in (("cam", settings.cam), ("affinity", settings.affinity)):
        torch.manual_seed(0)
        architecture = Architecture.of(config, CLASS_NAMES)
        network = build_pretrained(architecture, config.weights).eval()
        if isinstance(network, CamNetwork):
            network.classifier.weight = nn.Parameter(_fitted_head(network))
        save_network(str(folder / name / "weights.safetensors"), architecture, network.state_dict())
    return {"cam": str(folder / "cam"), "affinity": str(folder / "affinity")}


@torch.no_grad()
def _fitted_head(network: CamNetwork) -> Tensor:
    """Ridge regression of each cell's class on its features: (C, D, 1, 1)."""
    scenes = _scenes(_FITTED_SEED, _NUM_FITTED)
    images = torch.from_numpy(np.stack(scenes.images)).permute(0, 3, 1, 2)
    features = torch.cat([network.backbone(part)[-1] for part in images.split(8)]).double()
    truth = torch.from_numpy(np.stack(scenes.truth)).long()
    of_class = functional.one_hot(truth, len(CLASS_NAMES) + 1).permute(0, 3, 1, 2)[:, 1:].double()
    wanted = functional.adaptive_avg_pool2d(of_class, (features.shape[-2], features.shape[-1]))
    x, y = (values.transpose(0, 1).flatten(1) for values in (features, wanted))
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    spread = x @ x.T
    ridge = _RIDGE * spread.diagonal().mean() * torch.eye(len(x), dtype=torch.float64)
    head: Tensor = torch.linalg.solve(spread + ridge, x @ y.T)
    return head.T.float()[:, :, None, None]


def golden_masks(networks: Networks) -> list[Mask]:
    """Label the scenes in memory."""
    scenes = golden_scenes()
    results = label_images(scenes.images, scenes.tags, settings=golden_settings(), **networks)
    assert [result.error for result in results] == [None] * NUM_SCENES
    return [result.mask for result in results if result.mask is not None]


def hash_of(masks: Sequence[NDArray[np.integer[Any]]]) -> str:
    return hashlib.sha256(np.stack(masks).tobytes()).hexdigest()


def arithmetic() -> dict[str, Any]:
    """What decides the last bit of a float: where it is the same, so are the masks."""
    processor = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("vendor_id")]
    return {
        "versions": {name: version(name) for name in ("numba", "numpy", "torch")},
        "machine": platform.machine(),
        "vendor": processor[0] if processor else "",
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []


def stored_masks() -> list[Mask]:
    """The golden masks, which lie below each other in one picture."""
    return np.split(decode_mask(MASKS.read_bytes()), NUM_SCENES)


def main() -> None:
    """Store today's masks as the golden ones."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        masks = golden_masks(write_networks(Path(folder)))
    MASKS.write_bytes(encode_mask(np.concatenate(masks)))
    RECORD.write_text(json.dumps({"sha256": hash_of(masks), **arithmetic()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
