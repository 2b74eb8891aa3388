"""The classifier and its activation maps."""

from __future__ import annotations

import pytest
import torch

from engine.models.backbone import Backbone
from engine.models.cam_net import CamNetwork


@pytest.fixture(scope="module")
def network() -> CamNetwork:
    torch.manual_seed(0)
    return CamNetwork(Backbone("mobilenetv3_small_050", stride=16), num_classes=5).eval()


@torch.inference_mode()
def test_logits_are_the_means_of_the_maps(network: CamNetwork) -> None:
    images = torch.randint(0, 256, (2, 3, 64, 80), dtype=torch.uint8)
    maps = network.maps(images, torch.arange(5))
    assert maps.shape == (2, 5, 4, 5)
    torch.testing.assert_close(maps.mean(dim=(2, 3)), network(images))


@torch.inference_mode()
def test_only_the_classes_that_are_asked_for_are_mapped_in_their_order(network: CamNetwork) -> None:
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    everything = network.maps(images, torch.arange(5))
    torch.testing.assert_close(network.maps(images, torch.tensor([4, 1])), everything[:, [4, 1]])
