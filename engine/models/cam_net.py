"""The classifier whose activation maps the labeling starts from.

Source: section 3.1 of the paper; jiwoon-ahn/psa, network/*_cls.py.
Letters: B batch, C classes, (H, W) pixels, (h, w) grid cells, D channels of the last level.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from engine.models.backbone import Backbone
from engine.ops.attention import spread_along_attention


class CamNetwork(nn.Module):
    """A backbone and a 1x1 convolution without bias, whose output before pooling is the CAM."""

    def __init__(self, backbone: Backbone, *, num_classes: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(backbone.channels[-1], num_classes, kernel_size=1, bias=False)
        nn.init.xavier_uniform_(self.classifier.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits (B, C), the mean of each class map, from (B, 3, H, W) in [0, 255]."""
        features = self.dropout(self.backbone(images)[-1])
        logits: Tensor = self.classifier(features).mean(dim=(2, 3))
        return logits

    def maps(self, images: Tensor, classes: Tensor, *, attention_steps: int = 0, attention_blocks: int = 8) -> Tensor:
        """Compute the activation maps of the given classes.

        Args:
            images: (B, 3, H, W) in [0, 255].
            classes: (K,) int64, indices of classes from 0.
            attention_steps: steps by which the maps are spread along a transformer's attention; 0 disables it.
            attention_blocks: number of last blocks whose attention is averaged.

        Returns:
            (B, K, h, w) of any sign; non-negative if spread along the attention.

        Raises:
            ValueError: ``attention_steps`` is above 0, and the backbone has no attention.
        """
        weight = self.classifier.weight[classes]
        if attention_steps == 0:
            return functional.conv2d(self.backbone(images)[-1], weight)
        levels, attention = self.backbone.with_attention(images, num_blocks=attention_blocks)
        maps = functional.conv2d(levels[-1], weight).relu()
        return spread_along_attention(maps, attention, num_steps=attention_steps)
