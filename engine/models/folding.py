"""Fold batch norms into the preceding convolutions: the same function in fewer passes over memory.

Letters: B batch, (H, W) pixels.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

_LARGEST_DIFFERENCE = 1e-3
"""Maximum difference that folding may cause, as a fraction of the largest value."""

_SIDE_PX = 64
"""Side of the image with which the pairs of convolution and batch norm are found."""


@torch.no_grad()
def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Copy a network with each batch norm that directly follows a convolution folded into it; for inference only.

    The pairs are found in one forward pass over a small image.

    Args:
        network: in evaluation mode; takes (B, 3, H, W).

    Returns:
        The copy, or ``network`` itself if the outputs differ, as when a convolution is used twice.
    """
    picture = torch.rand(1, 3, _SIDE_PX, _SIDE_PX, generator=torch.Generator().manual_seed(0)) * 255
    folded = copy.deepcopy(network)
    pairs, before = _pairs(folded, picture)
    for convolution, parent, name in pairs:
        _fold(convolution, parent, name)
    return folded if _alike(before, folded(picture)) else network


@torch.no_grad()
def fold_frozen_batch_norms(network: nn.Module) -> None:
    """Fold each frozen batch norm into the convolution before it, in place, while the convolution stays trainable.

    Parameters, their names, outputs and gradients stay the same, but the norm needs no pass over memory in forward or
    backward and saves no input. A network whose outputs would differ is left unchanged.

    Args:
        network: takes (B, 3, H, W); batch norms in training mode are not folded.
    """
    picture = torch.rand(1, 3, _SIDE_PX, _SIDE_PX, generator=torch.Generator().manual_seed(0)) * 255
    picture = picture.to(next(network.parameters()).device)
    pairs, before = _pairs(network, picture)
    for convolution, parent, name in pairs:
        norm = getattr(parent, name)
        # replace methods, because replacing modules would rename the weights
        convolution.forward = partial(_convolve_scaled, convolution, norm)  # type: ignore[method-assign]
        norm.forward = partial(_activate, norm)
    if not _alike(before, network(picture)):
        for convolution, parent, name in pairs:
            del convolution.forward, getattr(parent, name).forward
    for module in network.modules():
        if isinstance(
            module, nn.Hardtanh
        ):  # or its subclass ReLU6; in place it would copy its input for the backward pass
            module.inplace = False


class _Reweighted:
    """A view of a convolution with other weights, to pass to its ``forward``."""

    def __init__(self, convolution: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
        self._convolution, self.weight, self.bias = convolution, weight, bias

    def __getattr__(self, name: str) -> Any:
        return getattr(self._convolution, name)


def _convolve_scaled(convolution: nn.Conv2d, norm: nn.BatchNorm2d, features: Tensor) -> Tensor:
    """Apply a convolution and the frozen batch norm after it as one convolution."""
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    bias = norm.bias - mean * scale
    if convolution.bias is not None:
        bias = bias + convolution.bias * scale
    weight = convolution.weight * scale.view(-1, 1, 1, 1)
    result: Tensor = type(convolution).forward(_Reweighted(convolution, weight, bias), features)  # type: ignore[arg-type]
    return result


def _activate(norm: nn.BatchNorm2d, features: Tensor) -> Tensor:
    """Apply only the activation that timm's batch norm includes, if any."""
    activation = getattr(norm, "act", None)
    return activation(features) if isinstance(activation, nn.Module) else features


def _pairs(network: nn.Module, picture: Tensor) -> tuple[list[tuple[nn.Conv2d, nn.Module, str]], Any]:
    """Find each convolution whose output is the input of a batch norm: (convolution, parent and name of the norm)."""
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    followed: dict[nn.Module, nn.Conv2d] = {}

    def after_convolution(module: nn.Module, _: Any, output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        outputs[id(output)] = (module, output)  # keep the tensor, so that its id is not reused

    def before_norm(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if id(arguments[0]) in outputs:
            followed[module] = outputs[id(arguments[0])][0]

    hooks = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(after_convolution))
        elif isinstance(module, nn.BatchNorm2d) and not module.training and module.running_mean is not None:
            hooks.append(module.register_forward_pre_hook(before_norm))
    try:
        result = network(picture)
    finally:
        for hook in hooks:
            hook.remove()
    places = {child: (parent, name) for parent in network.modules() for name, child in parent.named_children()}
    return [(convolution, *places[norm]) for norm, convolution in followed.items()], result


def _fold(convolution: nn.Conv2d, parent: nn.Module, name: str) -> None:
    norm: Any = getattr(parent, name)
    weight, bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    convolution.weight, convolution.bias = weight, bias
    activation = getattr(norm, "act", None)  # timm's batch norm includes the activation that follows it
    setattr(parent, name, activation if isinstance(activation, nn.Module) else nn.Identity())


def _alike(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor):
        return bool((before - after).abs().max() <= _LARGEST_DIFFERENCE * before.abs().max())
    return all(_alike(one, other) for one, other in zip(before, after, strict=True))
