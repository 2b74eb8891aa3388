"""The segmentation network's output."""

from __future__ import annotations

import pytest
import torch

from engine.models.backbone import Backbone
from engine.models.segmentation_net import SegmentationNetwork


def _network(name: str = "mobilenetv3_small_050", stride: int = 16, head_channels: int = 16) -> SegmentationNetwork:
    return SegmentationNetwork(Backbone(name, stride=stride), num_classes=3, stride=stride, head_channels=head_channels)


@pytest.mark.parametrize("stride", [8, 16, 32])
@torch.inference_mode()
def test_every_pixel_gets_a_logit_of_background_and_each_class(stride: int) -> None:
    logits = _network(stride=stride).eval()(torch.randint(0, 256, (2, 3, 65, 83), dtype=torch.uint8))
    assert logits.shape == (2, 4, 65, 83)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in ("convnext_tiny", "vgg16")])
@torch.inference_mode()
def test_other_backbones_give_the_same_shape(name: str) -> None:
    assert _network(name).eval()(torch.zeros(1, 3, 48, 64)).shape == (1, 4, 48, 64)


@pytest.mark.parametrize("head_channels", [8, 16, 24])
@pytest.mark.parametrize("training", [True, False])
def test_it_works_on_one_image(head_channels: int, training: bool) -> None:
    network = _network(head_channels=head_channels).train(training)
    logits = network(torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8))
    logits.square().sum().backward()
    assert bool(torch.isfinite(logits).all())
    assert all(parameter.grad is not None for parameter in network.parameters())


@torch.inference_mode()
def test_an_images_result_does_not_depend_on_its_neighbors() -> None:
    network = _network().eval()
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]), rtol=1e-3, atol=1e-4)


def test_width_that_is_no_multiple_of_8_is_refused() -> None:
    with pytest.raises(ValueError, match="head_channels must be a multiple of 8, got 20"):
        _network(head_channels=20)


@torch.inference_mode()
def test_maps_of_some_classes_are_those_of_all() -> None:
    network = _network().eval()
    torch.nn.init.normal_(network.classifier.weight)
    images = torch.randint(0, 256, (2, 3, 64, 80), dtype=torch.uint8)
    some = network.maps(images, torch.tensor([0, 3]))
    assert some.shape == (2, 2, 16, 20)
    torch.testing.assert_close(some, network.maps(images)[:, [0, 3]])


@torch.inference_mode()
def test_network_goes_on_from_another_where_the_shapes_are_the_same() -> None:
    first, second = _network().eval(), _network().eval()
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    second.start_from_segmentation(first.state_dict())
    assert torch.equal(first(images), second(images))
    wider = _network(head_channels=24).eval()
    wider.start_from_segmentation(first.state_dict())
    assert torch.equal(wider.shortcut.weight, first.shortcut.weight)
    assert wider.classifier.weight.shape == (4, 24, 1, 1)
