"""The lattice of several images in torch, against the compiled one of each."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine.kernels import Kernels
from engine.ops.crf import dense_crf
from engine.ops.lattice_keys import SigmaTooSmallError
from engine.ops.permutohedral_torch import Lattice, MeanField

REACH_PX = 20.0
"""Of the appearance kernel; the other numbers are the authors'."""


def picture(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height)
    return torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=generator)


def probabilities(num_labels: int, height: int, width: int) -> Tensor:
    scores = torch.rand(num_labels, height, width, generator=torch.Generator().manual_seed(width))
    return scores / scores.sum(dim=0)


@pytest.mark.parametrize("num_colors", [0, 3])
def test_filtering_several_images_is_filtering_each(num_colors: int) -> None:
    images = [picture(9, 14)[..., :num_colors], picture(20, 6)[..., :num_colors], picture(9, 14)[..., :num_colors]]
    values = [torch.rand(image.shape[0] * image.shape[1]) for image in images]
    filtered = Lattice(images, sigma_px=4.0, sigma_rgb=30.0).filter(torch.cat(values)[:, None])
    parts = filtered[:, 0].split([len(one) for one in values])
    for part, image, one in zip(parts, images, values, strict=True):
        alone = Lattice([image], sigma_px=4.0, sigma_rgb=30.0).filter(one[:, None])[:, 0]
        torch.testing.assert_close(part, alone, atol=1e-5, rtol=0)


def refined_together(device: str) -> None:
    images, starts = [picture(12, 16), picture(20, 30)], [probabilities(4, 12, 16), probabilities(2, 20, 30)]
    field = MeanField([image.to(device) for image in images], Kernels(bilateral_sigma_px=REACH_PX))
    logs = [start.log().flatten(1)[None].to(device) for start in starts]
    for refined, image, start in zip(field.refine(logs, 10), images, starts, strict=True):
        expected = dense_crf(image, start, backend="numba", bilateral_sigma_px=REACH_PX)
        assert refined.device.type == device
        torch.testing.assert_close(refined[0].cpu().view_as(expected), expected, atol=1e-4, rtol=0)


def test_images_of_different_sizes_and_labels_are_refined_together() -> None:
    refined_together("cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_refines_as_a_processor() -> None:
    refined_together("cuda")


def test_more_images_than_a_key_can_name_are_refused() -> None:
    with pytest.raises(SigmaTooSmallError, match="50 images are too many"):
        Lattice([picture(1, 40)] * 50, sigma_px=0.01, sigma_rgb=0.2)
