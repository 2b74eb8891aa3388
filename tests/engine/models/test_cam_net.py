"""The classifier and its activation maps."""

from __future__ import annotations

import pytest
import torch

from engine.models.backbone import Backbone
from engine.models.cam_net import CamNetwork
from engine.ops.attention import spread_along_attention


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


@torch.inference_mode()
def test_maps_of_a_transformer_are_spread_along_its_attention() -> None:
    torch.manual_seed(0)
    network = CamNetwork(Backbone("vit_tiny_patch16_224", stride=16), num_classes=3).eval()
    images, classes = torch.rand(1, 3, 64, 48) * 255, torch.tensor([2, 0])
    plain = network.maps(images, classes)
    assert plain.shape == (1, 2, 4, 3)
    _, attention = network.backbone.with_attention(images, num_blocks=8)
    spread = network.maps(images, classes, attention_steps=2)
    torch.testing.assert_close(spread, spread_along_attention(plain.relu(), attention, num_steps=2))
    assert not torch.allclose(spread, plain.relu())
