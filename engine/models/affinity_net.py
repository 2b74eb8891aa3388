"""AffinityNet: features whose L1 distance measures the affinity of nearby cells.

Source: section 3.2 and figure 3 of the paper; jiwoon-ahn/psa, network/*_aff.py.
Letters: B batch, (H, W) pixels, (h, w) cells of the affinity grid, D = 448 features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.models.backbone import Backbone

TAP_CHANNELS = (64, 128, 256)


class AffinityNetwork(nn.Module):
    """Projects the last three levels of a backbone by 1x1 convolutions, resizes them to one grid and mixes them."""

    def __init__(self, backbone: Backbone, *, grid_stride: int) -> None:
        """Args:
        backbone: must have three or more levels.
        grid_stride: pixels per cell of the affinity grid.
        """
        super().__init__()
        self.backbone = backbone
        self.grid_stride = grid_stride
        self.taps = nn.ModuleList(
            nn.Conv2d(channels, width, kernel_size=1, bias=False)
            for channels, width in zip(backbone.channels[-3:], TAP_CHANNELS, strict=True)
        )
        self.mix = nn.Conv2d(sum(TAP_CHANNELS), sum(TAP_CHANNELS), kernel_size=1, bias=False)
        for tap in self.taps:
            assert isinstance(tap, nn.Conv2d)
            nn.init.kaiming_normal_(tap.weight)
        # With the authors' gain of 4, affinities of some backbones start close to 0, and training is slow to recover.
        nn.init.xavier_uniform_(self.mix.weight)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 255] to features (B, D, h, w) with h = ceil(H / grid_stride)."""
        size = (-(-images.shape[-2] // self.grid_stride), -(-images.shape[-1] // self.grid_stride))
        levels = self.backbone(images)[-3:]
        tapped = [
            functional.interpolate(functional.elu(tap(level)), size=size, mode="bilinear", align_corners=False)
            for tap, level in zip(self.taps, levels, strict=True)
        ]
        return functional.elu(self.mix(torch.cat(tapped, dim=1)))
