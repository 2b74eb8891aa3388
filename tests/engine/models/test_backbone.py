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
    with torch.device("meta"):  # no weights are drawn
        strided, dilated = Backbone("vgg16", stride=32), Backbone("vgg16", stride=8)

    def reach(backbone: Backbone) -> list[int]:
        pixels, reached = 1, []
        for module in backbone.timm_model.modules():
            if isinstance(module, nn.MaxPool2d):
                assert isinstance(module.stride, int)
                pixels *= module.stride
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
def test_normalization_travels_with_the_weights() -> None:
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
        ("resnet51", "backbone must be the name of a timm model"),
        ("swin_tiny_patch4_window7_224", "backbone must be "),
        ("vit_tiny_patch16_224", "stride must be 16, the patch size of backbone 'vit_tiny_patch16_224', got 8"),
        ("mixer_s16_224", "backbone must be "),
    ],
)
def test_backbone_that_cannot_serve_is_refused_by_name(name: str, why: str) -> None:
    with pytest.raises(ValueError, match=name) as refused:
        Backbone(name, stride=8 if name == "vit_tiny_patch16_224" else 16)
    assert why in str(refused.value)


@pytest.mark.parametrize("num_levels", [1, 3, 5])
def test_frozen_levels_stay_and_the_others_learn(num_levels: int) -> None:
    backbone = Backbone("resnet18", stride=16)
    backbone.freeze_levels(num_levels)
    backbone.train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    levels = backbone(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))
    assert [level.requires_grad for level in levels] == [False] * num_levels + [True] * (5 - num_levels)
    if num_levels < 5:
        levels[-1].sum().backward()
    stem = ["conv1", "bn1"]
    held = [*stem, *(f"layer{number}." for number in range(1, num_levels))]
    after = backbone.state_dict()
    for name, parameter in backbone.timm_model.named_parameters():
        assert parameter.requires_grad != name.startswith(tuple(held)), name
    for name, value in before.items():
        if name.removeprefix("timm_model.").startswith(tuple(held)):
            assert torch.equal(after[name], value), name  # running statistics too
        elif name.endswith("running_mean") and num_levels < 5:
            assert not torch.equal(after[name], value), name


def test_more_frozen_levels_than_there_are_are_refused() -> None:
    with pytest.raises(ValueError, match="must be from 0 to 5, the number of levels of the backbone, got 6"):
        Backbone("resnet18", stride=16).freeze_levels(6)


TRANSFORMERS = ("vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "eva02_tiny_patch14_224")


@pytest.mark.parametrize("name", TRANSFORMERS)
@torch.inference_mode()
def test_transformer_gives_levels_of_any_size_and_its_attention(name: str) -> None:
    side = 14 if "patch14" in name else 16
    torch.manual_seed(0)
    backbone = Backbone(name, stride=side).eval()
    images = torch.randint(0, 256, (2, 3, 5 * side, 3 * side - 7), dtype=torch.uint8)
    levels, attention = backbone.with_attention(images, num_blocks=4)
    assert [level.shape for level in levels] == [(2, channels, 5, 3) for channels in backbone.channels]
    assert len(levels) == 3
    assert attention.shape == (2, 15, 15)
    assert float(attention.min()) >= 0
    assert 0.5 < float(attention.sum(dim=2).min()) <= float(attention.sum(dim=2).max()) <= 1 + 1e-5
    for level, alone in zip(levels, backbone(images), strict=True):  # with the fused kernel again
        torch.testing.assert_close(level, alone, rtol=1e-3, atol=1e-4)


@torch.inference_mode()
def test_attention_is_read_from_the_last_blocks_cell_by_cell() -> None:
    torch.manual_seed(0)
    backbone = Backbone("vit_tiny_patch16_224", stride=16).eval()
    model = backbone.timm_model.model
    images = torch.rand(1, 3, 32, 48) * 255
    expected = []
    tokens = model._pos_embed(model.patch_embed((images / 255 - backbone.mean) / backbone.std))
    for block in model.blocks:
        looked = block.norm1(tokens)
        query, key, _ = block.attn.qkv(looked).reshape(1, 7, 3, 3, 64).permute(2, 0, 3, 1, 4).unbind(0)
        expected.append((query @ key.transpose(-2, -1) / 8).softmax(dim=-1).mean(dim=1)[:, 1:, 1:])
        tokens = block(tokens)
    _, attention = backbone.with_attention(images, num_blocks=2)
    torch.testing.assert_close(attention, torch.stack(expected[-2:]).mean(dim=0), rtol=1e-4, atol=1e-5)


def test_convolutions_have_no_attention() -> None:
    backbone = Backbone("mobilenetv3_small_050", stride=16).eval()
    assert not backbone.has_attention
    with pytest.raises(ValueError, match="must be a timm vision transformer"):
        backbone.with_attention(torch.zeros(1, 3, 32, 32), num_blocks=1)


def test_frozen_transformer_teaches_only_what_is_put_on_it() -> None:
    backbone = Backbone("vit_tiny_patch16_224", stride=16)
    backbone.freeze_levels(3)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not backbone.train().timm_model.model.blocks[0].attn.qkv.training
