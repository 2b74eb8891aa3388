"""Backbones from timm: convolutional networks dilated to a given stride, and vision transformers.

Source: section 4.1 of the paper (the last blocks keep their resolution by dilation); the authors' VGG-16 for pooling
layers. The stride of a transformer (DINO, CLIP, DINOv2 and others) is its patch size, and its attention can be read.
Letters: B batch, (H, W) pixels, (h, w) cells of a level, N = h * w, D channels of a level, L blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn


class Backbone(nn.Module):
    """A timm network without its classifier: returns one feature map per level.

    The input normalization is part of it (buffers ``mean`` and ``std``), so that it is saved with the weights.
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
        """Build the backbone with random weights.

        Args:
            name: a timm model that supports feature extraction, such as ``resnet50`` or ``vit_small_patch16_224.dino``.
            stride: pixels per cell of the last level: 8, 16 or 32; for a transformer, the patch size.
            mean: mean of red, green and blue that the weights expect, in [0, 1].
            std: standard deviation of the same.

        Raises:
            ValueError: timm has no such model, or it does not support the stride.
        """
        super().__init__()
        model: Any = _create(name, stride)
        self.timm_model = model
        self._batch_norm_is_frozen = False
        self._frozen: tuple[nn.Module, ...] = ()
        self.channels: list[int] = list(model.feature_info.channels())
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1))
        self._check_stride(name, stride)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the levels, finest first.

        Args:
            images: (B, 3, H, W) uint8 or float in [0, 255], RGB.

        Returns:
            One (B, D, h, w) float map per level.
        """
        scaled = (images.to(self.mean.dtype) / 255 - self.mean) / self.std
        levels: list[Tensor] = self.timm_model(scaled)
        return levels

    def freeze_batch_norm(self) -> None:
        """Freeze the statistics and parameters of the batch norms, also under ``train()``."""
        self._batch_norm_is_frozen = True
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
                module.requires_grad_(False)

    def freeze_levels(self, num_levels: int) -> None:
        """Freeze everything that the first levels depend on, also under ``train()``.

        Args:
            num_levels: 0 freezes nothing, ``len(channels)`` everything.

        Raises:
            ValueError: the backbone has fewer levels.
        """
        if not 0 <= num_levels <= len(self.channels):
            raise ValueError(
                f"must be from 0 to {len(self.channels)}, the number of levels of the backbone, got {num_levels}"
            )
        if num_levels == 0:
            return
        if num_levels == len(self.channels):
            frozen = [parameter for parameter in self.parameters() if parameter.requires_grad]
        else:
            frozen = self._parameters_of(num_levels)
        for parameter in frozen:
            parameter.requires_grad_(False)
        held = {id(parameter) for parameter in frozen}
        self._frozen = tuple(
            module
            for module in self.modules()
            if any(id(parameter) in held for parameter in module.parameters(recurse=False))
        )
        self.train(self.training)

    def _parameters_of(self, num_levels: int) -> list[nn.Parameter]:
        """Find the trainable parameters that the first levels depend on, by a backward pass over a small image."""
        learning = [parameter for parameter in self.parameters() if parameter.requires_grad]
        was_training = self.training
        self.eval()  # in training mode batch norms would include the image in their statistics
        with torch.enable_grad():
            levels = self(torch.zeros(1, 3, 64, 64, device=self.mean.device))[:num_levels]
            total = torch.stack([level.sum() for level in levels]).sum()
            gradients = torch.autograd.grad(total, learning, allow_unused=True)
        self.train(was_training)
        return [parameter for parameter, one in zip(learning, gradients, strict=True) if one is not None]

    def train(self, mode: bool = True) -> Self:
        """Set the mode as in torch, except for frozen modules, which stay in evaluation mode."""
        super().train(mode)
        if self._batch_norm_is_frozen:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        for module in self._frozen:
            module.eval()
        return self

    @property
    def has_attention(self) -> bool:
        """Whether it is a transformer whose attention can be read."""
        return bool(_attentions(self.timm_model))

    def with_attention(self, images: Tensor, *, num_blocks: int) -> tuple[list[Tensor], Tensor]:
        """Compute the levels and the attention between cells.

        Args:
            images: as for :meth:`forward`.
            num_blocks: number of last blocks over which, and over their heads, the attention is averaged.

        Returns:
            The levels; and (B, N, N) float in [0, 1], whose rows are the attention of a cell to each cell. Attention to
            other tokens is omitted, so rows sum to at most 1.

        Raises:
            ValueError: the backbone has no attention that can be read.
        """
        blocks = _attentions(self.timm_model)[-num_blocks:]
        if not blocks:
            raise ValueError("the backbone must be a timm vision transformer whose attention can be read")
        seen: list[Tensor] = []

        def keep(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            seen.append(arguments[0].mean(dim=1))

        hooks = [block.attn_drop.register_forward_pre_hook(keep) for block in blocks]
        fused = [block.fused_attn for block in blocks]
        try:
            for block in blocks:
                block.fused_attn = False  # the fused kernel does not expose the attention
            levels = self(images)
        finally:
            for hook, block, was_fused in zip(hooks, blocks, fused, strict=True):
                hook.remove()
                block.fused_attn = was_fused
        num_cells = levels[-1].shape[-2] * levels[-1].shape[-1]
        return levels, torch.stack(seen).mean(dim=0)[:, -num_cells:, -num_cells:]

    @torch.no_grad()
    def _check_stride(self, name: str, stride: int) -> None:
        side = 4 * stride
        was_training = self.training
        self.eval()
        try:
            last = self(torch.zeros(1, 3, side, side))[-1]
        except (AssertionError, RuntimeError) as error:
            raise ValueError(
                f"backbone must be a convolutional timm model, or a transformer with variable input size, got {name!r}"
            ) from error
        finally:
            self.train(was_training)
        if last.ndim != 4 or last.shape[-1] * stride != side:
            raise ValueError(
                f"stride must be {side // last.shape[-1]}, the patch size of backbone {name!r}, got {stride}"
                if self.has_attention
                else f"backbone must be a model that timm can dilate to stride {stride}, got {name!r}"
            )


def _create(name: str, stride: int) -> nn.Module:
    import timm  # takes a second, so only in processes that build a network

    if not timm.is_model(name):
        raise ValueError(f"backbone must be the name of a timm model, for example 'resnet50', got {name!r}")
    try:
        model: nn.Module = timm.create_model(name, features_only=True, pretrained=False, output_stride=stride)
        return model
    except (AssertionError, TypeError):  # timm cannot dilate it, such as VGG
        pass
    try:
        return _transformer(name)
    except (AssertionError, AttributeError, TypeError):  # not a transformer that takes images of any size
        pass
    try:
        model = timm.create_model(name, features_only=True, pretrained=False)
    except (AssertionError, TypeError, RuntimeError) as error:
        raise ValueError(f"backbone must be a timm model that supports features_only, got {name!r}") from error
    _dilate(model, stride)
    return model


def _transformer(name: str) -> nn.Module:
    """Create a vision transformer that takes images of any size; its levels are the outputs of three blocks."""
    import timm
    from timm.models._features import FeatureGetterNet

    model: Any = timm.create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True, dynamic_img_pad=True)
    depth = len(model.blocks)
    ends = tuple(depth * third // 3 - 1 for third in (1, 2, 3))
    return FeatureGetterNet(model, out_indices=ends, norm=True)  # the last norm is part of the pretrained model


def _attentions(model: nn.Module) -> list[Any]:
    """The self-attention modules, in the order of the blocks."""
    return [module for module in model.modules() if hasattr(module, "fused_attn") and hasattr(module, "attn_drop")]


def _dilate(model: nn.Module, stride: int) -> None:
    """Keep the resolution of a sequential network once ``stride`` is reached, and dilate the layers after that.

    As in the authors' VGG.
    """
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
