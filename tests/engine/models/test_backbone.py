"""Backbones from timm at the stride that is asked for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.models.backbone import Backbone

BACKBONES = ("tf_efficientnet_lite0", "mobilenetv3_large_100", "resnet50", "convnext_tiny", "vgg16")
LIGHT = {"tf_efficientnet_lite0", "mobilenetv3_large_100"}


@pytest.mark.parametrize(
    ("name", "stride"),
    [
        pytest.param(name, stride, marks=[] if name in LIGHT or stride == 16 else [pytest.mark.slow])
        for name in BACKBONES
        for stride in (8, 16, 32)
    ],
)
@torch.inference_mode()
def test_backbone_gives_features_at_the_stride(name: str, stride: int) -> None:
    backbone = Backbone(name, stride=stride).eval()
    levels = backbone(torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8))
    assert [level.shape[1] for level in levels] == backbone.channels
    assert len(levels) >= 3
    assert levels[-1].shape == (2, backbone.channels[-1], 64 // stride, 96 // stride)
    sides = [level.shape[-1] for level in levels]
    assert sides == sorted(sides, reverse=True)
    assert all(bool(torch.isfinite(level).all()) for level in levels)


@torch.inference_mode()
def test_side_that_is_no_multiple_of_the_stride_is_rounded_up() -> None:
    backbone = Backbone("mobilenetv3_small_050", stride=16).eval()
    assert backbone(torch.zeros(1, 3, 65, 33))[-1].shape[-2:] == (5, 3)


@torch.inference_mode()
def test_dilated_network_sees_what_the_strided_one_sees_only_more_densely() -> None:
    coarse, fine = Backbone("resnet18", stride=32).eval(), Backbone("resnet18", stride=8).eval()
    fine.load_state_dict(coarse.state_dict())
    images = torch.randint(0, 256, (1, 3, 128, 96), dtype=torch.uint8)
    torch.testing.assert_close(fine(images)[-1][..., ::4, ::4], coarse(images)[-1], rtol=1e-3, atol=1e-4)


@torch.inference_mode()
def test_dilated_vgg_keeps_the_reach_of_its_convolutions() -> None:
    strided, dilated = Backbone("vgg16", stride=32), Backbone("vgg16", stride=8)

    def reach(backbone: Backbone) -> list[int]:
        pixels, reached = 1, []
        for module in backbone.timm_model.modules():
            if isinstance(module, nn.MaxPool2d):
                pixels *= int(module.stride)
            elif isinstance(module, nn.Conv2d):
                reached.append(pixels * module.dilation[0] * (module.kernel_size[0] // 2))
        return reached

    assert reach(dilated) == reach(strided)


@torch.inference_mode()
def test_bytes_and_floats_give_the_same_features() -> None:
    backbone = Backbone("mobilenetv3_small_050", stride=16).eval()
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(backbone(images)[-1], backbone(images.float())[-1])


@torch.inference_mode()
def test_normalisation_travels_with_the_weights() -> None:
    one = Backbone("mobilenetv3_small_050", stride=16, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)).eval()
    other = Backbone("mobilenetv3_small_050", stride=16).eval()
    other.load_state_dict(one.state_dict())
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(other(images)[-1], one(images)[-1])


def test_frozen_batch_norms_stay_frozen_under_train() -> None:
    network = nn.Sequential(Backbone("mobilenetv3_small_050", stride=16))
    backbone = network[0]
    assert isinstance(backbone, Backbone)
    backbone.freeze_batch_norm()
    network.train()
    norms = {name: module for name, module in backbone.named_modules() if isinstance(module, nn.BatchNorm2d)}
    before = {name: [value.clone() for value in module.state_dict().values()] for name, module in norms.items()}
    backbone(torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8))[-1].sum().backward()
    for name, module in norms.items():
        assert all(map(torch.equal, before[name], module.state_dict().values()))
        assert all(parameter.grad is None for parameter in module.parameters())
    convolutions = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    assert all(module.training and module.weight.grad is not None for module in convolutions)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("resnet51", "allowed: a model name of timm"),
        ("vit_tiny_patch16_224", "allowed: convolutional timm models"),
        ("mixer_s16_224", "allowed: "),
    ],
)
def test_backbone_that_cannot_serve_is_refused_by_name(name: str, why: str) -> None:
    with pytest.raises(ValueError, match=name) as refused:
        Backbone(name, stride=16)
    assert why in str(refused.value)
