"""The segmentation network that is trained on the synthesized masks.

Source: section 3.4 of the paper; the head is DeepLabV3's atrous pyramid (Chen et al. 2017) with DeepLabV3+'s fine level
(Chen et al. 2018). Group norm, because it needs no statistics across workers and works with a single
image.
Letters: B batch, C classes, (H, W) pixels, D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.models.backbone import Backbone

FINE_CHANNELS = 32


def _conv(num_in: int, num_out: int, *, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(num_in, num_out, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False),
        nn.GroupNorm(
            min(8, num_out // 2), num_out
        ),  # two or more channels per group, because the pooled branch has a single pixel
        nn.ReLU(inplace=True),
    )


def _separable(num_in: int, num_out: int) -> nn.Sequential:
    """A depthwise separable 3x3 convolution; at stride 4 a full one would cost as much as the backbone."""
    return nn.Sequential(nn.Conv2d(num_in, num_in, 3, padding=1, groups=num_in, bias=False), *_conv(num_in, num_out))


class AtrousPyramid(nn.Module):
    """Parallel branches: a 1x1 convolution, three dilated convolutions and the image's mean."""

    def __init__(self, num_in: int, num_out: int, *, rates: tuple[int, int, int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [_conv(num_in, num_out), *(_conv(num_in, num_out, kernel=3, dilation=rate) for rate in rates)]
        )
        self.pooled = _conv(num_in, num_out)
        self.project = nn.Sequential(_conv(5 * num_out, num_out), nn.Dropout2d(0.1))

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, D, h, w) to (B, num_out, h, w)."""
        mean = self.pooled(features.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *features.shape[-2:])
        projected: Tensor = self.project(torch.cat([*(branch(features) for branch in self.branches), mean], dim=1))
        return projected


class SegmentationNetwork(nn.Module):
    """Backbone, atrous pyramid, a finer level that sharpens object borders, and a linear shortcut.

    The shortcut is a 1x1 convolution like the CAM's. The pyramid starts as a zero correction to it, so that a few
    hundred steps suffice to distinguish the classes.
    """

    def __init__(self, backbone: Backbone, *, num_classes: int, stride: int, head_channels: int) -> None:
        """Args:
        backbone: must have three or more levels.
        num_classes: classes, excluding background.
        stride: pixels per cell of the backbone's last level; sets the dilation rates.
        head_channels: width of the pyramid, a multiple of 8.

        Raises:
            ValueError: head_channels is not a multiple of 8.
        """
        super().__init__()
        if head_channels % 8:
            raise ValueError(f"head_channels must be a multiple of 8, got {head_channels}")
        self.backbone = backbone
        unit = max(1, 96 // stride)
        self.pyramid = AtrousPyramid(backbone.channels[-1], head_channels, rates=(unit, 2 * unit, 3 * unit))
        self.fine = _conv(backbone.channels[1], FINE_CHANNELS)
        self.merge = _separable(head_channels + FINE_CHANNELS, head_channels)
        self.classifier = nn.Conv2d(head_channels, num_classes + 1, kernel_size=1)
        nn.init.zeros_(self.classifier.weight)
        self.shortcut = nn.Conv2d(backbone.channels[-1], num_classes + 1, kernel_size=1)
        nn.init.xavier_uniform_(self.shortcut.weight)

    @torch.no_grad()
    def start_from_cam(self, classifier: Tensor) -> None:
        """Initialize the shortcut as the CAM; weights of another shape or number of classes are ignored.

        Args:
            classifier: (C, D, 1, 1) float, the weights of a CAM network's classifier on the same backbone.
        """
        if classifier.shape == self.shortcut.weight[1:].shape:
            self.shortcut.weight[1:] = classifier
            self.shortcut.weight[0] = 0

    @torch.no_grad()
    def start_from_segmentation(self, weights: dict[str, Tensor]) -> None:
        """Initialize from another segmentation network; weights of another shape are ignored.

        Args:
            weights: its state dict.
        """
        own = self.state_dict()
        self.load_state_dict({**own, **{name: weights[name] for name in own if _same_shape(own, weights, name)}})

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits (B, C+1, H, W), background first, from (B, 3, H, W) in [0, 255]."""
        return functional.interpolate(self.maps(images), size=images.shape[-2:], mode="bilinear", align_corners=False)

    def maps(self, images: Tensor, channels: Tensor | None = None) -> Tensor:
        """Compute logits on the grid of the fine level.

        Args:
            images: (B, 3, H, W) in [0, 255].
            channels: (K,) int64, 0 for background or class ids; all by default.

        Returns:
            (B, K, h, w), of any sign.
        """
        levels = self.backbone(images)
        fine = self.fine(levels[1])
        coarse = functional.interpolate(
            self.pyramid(levels[-1]), size=fine.shape[-2:], mode="bilinear", align_corners=False
        )
        logits = _some_of(self.classifier, self.merge(torch.cat([coarse, fine], dim=1)), channels)
        direct = _some_of(self.shortcut, levels[-1], channels)
        return logits + functional.interpolate(direct, size=fine.shape[-2:], mode="bilinear", align_corners=False)


def _some_of(layer: nn.Conv2d, features: Tensor, channels: Tensor | None) -> Tensor:
    """Compute only the given output channels of a 1x1 convolution."""
    if channels is None:
        everything: Tensor = layer(features)
        return everything
    assert layer.bias is not None
    return functional.conv2d(features, layer.weight[channels], layer.bias[channels])


def _same_shape(first: dict[str, Tensor], second: dict[str, Tensor], name: str) -> bool:
    return name in second and first[name].shape == second[name].shape
