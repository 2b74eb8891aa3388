"""ImageNet backbones from timm, dilated to the stride that is asked for.

Source: section 4.1 of the paper (the last blocks keep their resolution by dilation); authors' VGG-16 for the pools.
Letters: B batch, (H, W) pixels, (h, w) cells of a level, D channels of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import timm
import torch
from torch import Tensor, nn


class Backbone(nn.Module):
    """A timm network without its classifier: images in, one feature map a level out.

    The input's normalisation is part of it (buffers ``mean`` and ``std``), so that it travels with the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        *,
        stride: int,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        """Build it with random weights.

        Args:
            name: a timm model that offers features, for example ``resnet50``.
            stride: pixels a cell of the last level: 8, 16 or 32.
            mean: mean of red, green and blue that the weights expect, in units of 1.
            std: their standard deviation.

        Raises:
            ValueError: timm has no such model, or it cannot give features at this stride.
        """
        super().__init__()
        model: Any = _create(name, stride)
        self.timm_model = model
        self._batch_norm_is_frozen = False
        self.channels: list[int] = list(model.feature_info.channels())
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1))
        self._check_stride(name, stride)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the levels, finest first.

        Args:
            images: (B, 3, H, W) uint8 or float in [0, 255], RGB.

        Returns:
            One (B, D, h, w) float map a level.
        """
        scaled = (images.to(self.mean.dtype) / 255 - self.mean) / self.std
        levels: list[Tensor] = self.timm_model(scaled)
        return levels

    def freeze_batch_norm(self) -> None:
        """Hold statistics and scales of the batch norms as they are, also under ``train()``."""
        self._batch_norm_is_frozen = True
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
                module.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """As torch's, but frozen batch norms stay as they are."""
        super().train(mode)
        if self._batch_norm_is_frozen:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    @torch.no_grad()
    def _check_stride(self, name: str, stride: int) -> None:
        side = 4 * stride
        was_training = self.training
        self.eval()
        try:
            last = self(torch.zeros(1, 3, side, side))[-1]
        except (AssertionError, RuntimeError) as error:
            raise ValueError(
                f"backbone {name!r} takes no images of any size; allowed: convolutional timm models"
            ) from error
        finally:
            self.train(was_training)
        if last.ndim != 4 or last.shape[-1] * stride != side:
            raise ValueError(
                f"backbone {name!r} gives no features at stride {stride}; allowed: models that timm can dilate"
            )


def _create(name: str, stride: int) -> nn.Module:
    if not timm.is_model(name):
        raise ValueError(f"backbone is {name!r}; allowed: a model name of timm, for example 'resnet50'")
    try:
        model: nn.Module = timm.create_model(name, features_only=True, pretrained=False, output_stride=stride)
        return model
    except (AssertionError, TypeError):  # timm cannot dilate it: VGG and others without the option
        pass
    try:
        model = timm.create_model(name, features_only=True, pretrained=False)
    except (AssertionError, TypeError, RuntimeError) as error:
        raise ValueError(f"backbone {name!r} offers no features; allowed: timm models with features_only") from error
    _dilate(model, stride)
    return model


def _dilate(model: nn.Module, stride: int) -> None:
    """Keep a sequential network's resolution from ``stride`` on and dilate what follows (as the authors' VGG)."""
    reached, dilation = 1, 1
    for module in model.modules():
        if isinstance(module, nn.MaxPool2d) and module.stride == 2:
            if reached < stride:
                reached *= 2
                continue
            module.kernel_size, module.stride, module.padding = 3, 1, 1
            dilation *= 2
        elif isinstance(module, nn.Conv2d):
            if module.stride == (2, 2) and reached < stride:
                reached *= 2
            elif module.stride == (2, 2):
                module.stride = (1, 1)
                dilation *= 2
            if dilation > 1 and module.kernel_size != (1, 1):
                half = module.kernel_size[0] // 2
                module.dilation, module.padding = (dilation, dilation), (dilation * half, dilation * half)
