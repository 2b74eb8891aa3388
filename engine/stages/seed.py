"""Make affinity labels (seeds): cells that are confident foreground or background.

Source: section 3.2 of the paper ("Generating Semantic Affinity Labels"). Letters: K classes present, (H, W) pixels,
(h, w) cells of the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import SeedConfig
from engine.imaging.codecs import decode_map, encode_mask
from engine.imaging.decoding import decode_image
from engine.imaging.memory import working_size
from engine.imaging.scaling import resized, scaled_size
from engine.ops.cam import with_background
from engine.ops.crf import DenseCrf
from engine.ops.mask import class_areas, to_probabilities, upsample
from engine.ops.seed import sure_cells, to_grid
from engine.records import Batch, ignore_value, mask_dtype
from engine.resources import PassConfig
from engine.timing import measured


class MakeSeed:
    """Reads ``cam``, ``encoded``, ``class_ids``; adds ``seed`` (h, w) and its ``areas``; drops its inputs."""

    def __init__(self, seed: SeedConfig, passes: PassConfig, *, num_classes: int) -> None:
        """Args:
        passes: device of the dCRF backend ``torch``, and decoding.
        num_classes: classes of the data set; determines the dtype of the seeds.
        """
        self._seed = seed
        self._passes = passes
        self._dtype = mask_dtype(num_classes)
        self._ignore = ignore_value(num_classes)

    def __call__(self, batch: Batch) -> Batch:
        seeds: list[bytes | None] = []
        areas: list[list[float] | None] = []
        for row, cam in enumerate(batch["cam"]):
            if cam is None:
                seeds.append(None)
                areas.append(None)
                continue
            image = decode_image(batch["encoded"][row], self._passes.decoding)
            seed = self.seed(torch.from_numpy(decode_map(cam)), image, batch["class_ids"][row])
            seeds.append(encode_mask(seed))
            areas.append(class_areas(seed, batch["class_ids"][row]).tolist())
        dropped = {"cam", "encoded", "class_ids"}
        return {
            **{name: values for name, values in batch.items() if name not in dropped},
            "seed": seeds,
            "areas": areas,
        }

    def seed(self, cam: Tensor, image: NDArray[np.uint8], class_ids: Sequence[int]) -> NDArray[Any]:
        """Find the confident cells of one image.

        Args:
            cam: (K, h', w') float32 in [0, 1].
            image: (H, W, 3) uint8.
            class_ids: (K,) ids from 1.

        Returns:
            (h, w) class ids, 0 for confident background, the ignore value where uncertain.
        """
        (seed,) = self.seeds(cam, image, class_ids, [(self._seed.alpha_low, self._seed.alpha_high)])
        return seed

    def seeds(
        self,
        cam: Tensor,
        image: NDArray[np.uint8],
        class_ids: Sequence[int],
        alphas: Sequence[tuple[float, float]],
    ) -> list[NDArray[Any]]:
        """:meth:`seed` for several pairs ``(alpha_low, alpha_high)``; the dCRF of each alpha runs once."""
        size = scaled_size(*image.shape[:2], long_side_px=self._seed.long_side_px)
        grid = (-(-size[0] // self._seed.grid_stride), -(-size[1] // self._seed.grid_stride))
        if not class_ids:
            return [np.zeros(grid, dtype=self._dtype)] * len(alphas)
        size = working_size(*size, len(class_ids) + 1)
        maps = upsample(cam, size)
        single = sorted({alpha for pair in alphas for alpha in pair})
        starts = [to_probabilities(with_background(maps, alpha)).numpy() for alpha in single]
        sharpened = self._sharpened(starts, resized(image, size))
        cells = {alpha: to_grid(torch.from_numpy(one), grid) for alpha, one in zip(single, sharpened, strict=True)}
        return [
            sure_cells(cells[low], cells[high], class_ids, ignore=self._ignore).numpy().astype(self._dtype)
            for low, high in alphas
        ]

    @measured("dcrf")
    def _sharpened(self, starts: list[NDArray[np.float32]], image: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        crf = self._seed.crf
        if crf.num_iterations == 0:
            return starts
        dense_crf = DenseCrf(image, len(starts[0]), kernels=crf, backend=crf.backend, device=self._passes.device)
        return dense_crf.infer_many(starts, crf.num_iterations)
