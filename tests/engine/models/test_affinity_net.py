"""AffinityNet's grid."""

from __future__ import annotations

import pytest
import torch

from engine.models.affinity_net import AffinityNetwork
from engine.models.backbone import Backbone


@pytest.mark.parametrize("grid_stride", [4, 8, 16])
@pytest.mark.parametrize("size", [(64, 64), (65, 97), (33, 71)])
@torch.inference_mode()
def test_grid_covers_the_image_whatever_its_size(size: tuple[int, int], grid_stride: int) -> None:
    network = AffinityNetwork(Backbone("mobilenetv3_small_050", stride=16), grid_stride=grid_stride).eval()
    features = network(torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8))
    assert features.shape == (2, 448, *(-(-side // grid_stride) for side in size))


@pytest.mark.parametrize(
    "name",
    ["mobilenetv3_small_050", *(pytest.param(name, marks=pytest.mark.slow) for name in ("convnext_tiny", "vgg16"))],
)
def test_all_its_layers_learn(name: str) -> None:
    network = AffinityNetwork(Backbone(name, stride=16), grid_stride=8)
    network(torch.rand(1, 3, 48, 48) * 255).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
