"""Compare the speed of labeling with the authors' method and the engine, with the same weights and images.

    python -m benchmarks authors --data MANIFEST --cam FOLDER --affinity FOLDER [--num-images 4] [--threads 2]
        [--preset small] [--json FILE]

The authors' way follows jiwoon-ahn/psa (infer_cls.py, infer_aff.py): one image at a time; the CAM of one scale or
mirror image at a time, at scales .5, 1, 1.5 and 2 of the image's own size; affinities gathered pair by pair; a dense
N x N matrix squared log2(t) times; pydensecrf. All rows use the preset's alpha, beta, t and dCRF constants. ``same
work`` is the engine at the same scales and sizes, ``preset`` the engine with the preset. Ray and storage are left out.
``equal_pixels`` compares with the authors' masks.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.photographs import MAX_PIXELS, Stage, add_options, frozen, label_stages
from benchmarks.runner import Line, parser, report, timed
from benchmarks.walk import dense_walk
from engine.config import Settings
from engine.imaging.codecs import decode_mask, encode_mask
from engine.imaging.decoding import decode_image
from engine.imaging.scaling import as_tensor, resized
from engine.models.affinity_net import AffinityNetwork
from engine.models.cam_net import CamNetwork
from engine.networks import load_network, open_network
from engine.ops.cam import normalize_cam, with_background
from engine.ops.crf import DenseCrf
from engine.ops.mask import pseudo_mask, to_probabilities, upsample
from engine.presets import preset
from engine.records import Batch, mask_dtype
from engine.resources import Decoding
from engine.stages.fetch import FetchImages

SCALES = (0.5, 1.0, 1.5, 2.0)


class Authors:
    """Label one image after the other."""

    def __init__(self, cam: str, affinity: str, settings: Settings, num_classes: int) -> None:
        cam_network, affinity_network = load_network(cam, "cam")[0], load_network(affinity, "affinity")[0]
        assert isinstance(cam_network, CamNetwork)
        assert isinstance(affinity_network, AffinityNetwork)
        self._cam, self._affinity = cam_network, affinity_network
        self._settings = settings
        self._dtype = mask_dtype(num_classes)

    @torch.inference_mode()
    def label(self, encoded: bytes, class_ids: list[int]) -> bytes:
        """From an encoded image to an encoded mask."""
        image = decode_image(encoded, Decoding(max_pixels=MAX_PIXELS))
        walk, size = self._settings.walk, image.shape[:2]
        features = self._affinity(as_tensor([image], "cpu").contiguous())[0]
        maps = with_background(self._activations(image, class_ids), walk.alpha)
        on_grid = functional.interpolate(maps[None], size=features.shape[1:], mode="bilinear", align_corners=False)[0]
        refined = authors_walk(on_grid, features, radius=walk.radius, beta=walk.beta, num_steps=walk.num_steps)
        probabilities = to_probabilities(upsample(refined, (size[0], size[1]))).numpy()
        return encode_mask(pseudo_mask(self._sharpened(image, probabilities), class_ids, dtype=self._dtype))

    def _activations(self, image: NDArray[np.uint8], class_ids: list[int]) -> Tensor:
        height, width = image.shape[:2]
        index = torch.tensor(class_ids) - 1
        total = torch.zeros(len(class_ids), height, width)
        for scale in SCALES:
            picture = as_tensor([resized(image, (round(height * scale), round(width * scale)))], "cpu").contiguous()
            for mirrored in (False, True):
                seen = picture.flip(-1) if mirrored else picture
                maps = self._cam.maps(seen, index).relu()
                maps = maps.flip(-1) if mirrored else maps
                total += functional.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)[0]
        return normalize_cam(total)

    def _sharpened(self, image: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        crf = self._settings.crf
        return DenseCrf(image, len(probabilities), kernels=crf, backend="pydensecrf").infer(
            probabilities, crf.num_iterations
        )


def authors_walk(cam: Tensor, features: Tensor, *, radius: int, beta: float, num_steps: int) -> Tensor:
    """A walk with a dense matrix of affinities that are gathered pair by pair."""
    h, w = cam.shape[1:]
    places = torch.cartesian_prod(torch.arange(h), torch.arange(w))
    near = (places[:, None] - places).square().sum(dim=2) < radius**2
    first, second = near.triu(1).nonzero().unbind(dim=1)
    cells, weights = features.flatten(1).t(), torch.eye(h * w)
    affinities = (cells[first] - cells[second]).abs().mean(dim=1).neg().exp()
    weights[first, second] = weights[second, first] = affinities
    weights = weights**beta
    return dense_walk(cam, weights / weights.sum(dim=1, keepdim=True), num_steps)


def measure(options: Any) -> list[Line]:
    """One line for each way."""
    settings = preset(options.preset)
    cam = open_network(options.cam, "cam")
    with tempfile.TemporaryDirectory() as folder:
        manifest = frozen(options.data, options.num_images, Path(folder), cam.class_names, options.num_images)
        batch = FetchImages(threads=4)(manifest.read_shard(0))
    num_images = len(batch["encoded"])
    authors = Authors(options.cam, options.affinity, settings, len(cam.class_names))
    same = replace(
        settings,
        cam=replace(settings.cam, inference=replace(settings.cam.inference, long_side_px=0, scales=SCALES, flip=True)),
        affinity=replace(settings.affinity, inference=replace(settings.affinity.inference, long_side_px=0)),
    )
    masks, seconds, cpu_seconds = timed(
        lambda: [
            authors.label(encoded, class_ids)
            for encoded, class_ids in zip(batch["encoded"], batch["class_ids"], strict=True)
        ]
    )
    runs = [("authors", masks, seconds, cpu_seconds)]
    for name, chosen in (("engine, same work", same), ("engine, preset", settings)):
        stages = label_stages(chosen, cam, options.affinity)
        _through(stages, {column: values[:1] for column, values in batch.items()})  # compile
        done, wall, cpu = timed(lambda: _through(stages, batch))  # noqa: B023
        runs.append((name, done["mask"], wall, cpu))
    return [
        {
            "way": name,
            "ms_an_image": 1e3 * wall / num_images,
            "cpu_ms_an_image": 1e3 * cpu / num_images,
            "times_as_fast": cpu_seconds / cpu,
            "equal_pixels": _equal(made, masks),
        }
        for name, made, wall, cpu in runs
    ]


def _through(stages: list[tuple[str, Stage]], batch: Batch) -> Batch:
    for _, stage in stages:
        batch = stage(batch)
    return batch


def _equal(masks: list[bytes], expected: list[bytes]) -> float:
    pairs = zip(masks, expected, strict=True)
    return float(np.mean([np.mean(decode_mask(one) == decode_mask(other)) for one, other in pairs]))


def main() -> None:
    options = parser(__doc__)
    add_options(options, num_images=4)
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    report("authors", measure(chosen), chosen.json, num_images=chosen.num_images, preset=chosen.preset)
