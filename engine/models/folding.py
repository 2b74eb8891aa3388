"""Batch norms folded into the convolutions before them: the same function in fewer passes over memory.

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
"""Greatest difference, as a fraction of the largest value, that folding may make."""

_SIDE_PX = 64
"""Of the picture that shows what follows what."""


@torch.no_grad()
def fold_batch_norms(network: nn.Module) -> nn.Module:
    """A copy with every batch norm folded that directly follows a convolution; only for inference.

    Which follows which is seen in one pass over a small picture.

    Args:
        network: in evaluation mode; takes (B, 3, H, W).

    Returns:
        The copy, or ``network`` itself if the copy does not give the same, as when a convolution is used twice.
    """
    picture = torch.rand(1, 3, _SIDE_PX, _SIDE_PX, generator=torch.Generator().manual_seed(0)) * 255
    folded = copy.deepcopy(network)
    pairs, before = _pairs(folded, picture)
    for convolution, parent, name in pairs:
        _fold(convolution, parent, name)
    return folded if _alike(before, folded(picture)) else network


@torch.no_grad()
def fold_frozen_batch_norms(network: nn.Module) -> None:
    """Let every frozen batch norm act through the weights of the convolution that it follows, also while these learn.

    The same function of the same parameters under the same names, with the same gradients, but no pass over memory
    for the norm, forward or back, and no copy of what it is given. In place; nothing is done where it would differ.

    Args:
        network: takes (B, 3, H, W); batch norms in training mode are not touched.
    """
    picture = torch.rand(1, 3, _SIDE_PX, _SIDE_PX, generator=torch.Generator().manual_seed(0)) * 255
    picture = picture.to(next(network.parameters()).device)
    pairs, before = _pairs(network, picture)
    for convolution, parent, name in pairs:
        norm = getattr(parent, name)
        # in the place of the methods: another module in the parent would give the weights other names
        convolution.forward = partial(_convolve_scaled, convolution, norm)  # type: ignore[method-assign]
        norm.forward = partial(_activate, norm)
    if not _alike(before, network(picture)):
        for convolution, parent, name in pairs:
            del convolution.forward, getattr(parent, name).forward
    for module in network.modules():
        if isinstance(module, nn.Hardtanh):  # of which ReLU6 is one; in place it would copy its input for the way back
            module.inplace = False


class _Seen:
    """A convolution as its own ``forward`` sees it, with other weights."""

    def __init__(self, convolution: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
        self._convolution, self.weight, self.bias = convolution, weight, bias

    def __getattr__(self, name: str) -> Any:
        return getattr(self._convolution, name)


def _convolve_scaled(convolution: nn.Conv2d, norm: nn.BatchNorm2d, features: Tensor) -> Tensor:
    """The convolution and the frozen batch norm after it, as one convolution."""
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    bias = norm.bias - mean * scale
    if convolution.bias is not None:
        bias = bias + convolution.bias * scale
    weight = convolution.weight * scale.view(-1, 1, 1, 1)
    result: Tensor = type(convolution).forward(_Seen(convolution, weight, bias), features)  # type: ignore[arg-type]
    return result


def _activate(norm: nn.BatchNorm2d, features: Tensor) -> Tensor:
    """What timm's batch norm does beside the norm."""
    activation = getattr(norm, "act", None)
    return activation(features) if isinstance(activation, nn.Module) else features


def _pairs(network: nn.Module, picture: Tensor) -> tuple[list[tuple[nn.Conv2d, nn.Module, str]], Any]:
    """Each convolution whose output is the input of a batch norm, with the norm's place."""
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    followed: dict[nn.Module, nn.Conv2d] = {}

    def after_convolution(module: nn.Module, _: Any, output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        outputs[id(output)] = (module, output)  # the tensor is kept, so that no other gets its id

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
    activation = getattr(norm, "act", None)  # timm's batch norm holds the activation that follows it
    setattr(parent, name, activation if isinstance(activation, nn.Module) else nn.Identity())


def _alike(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor):
        return bool((before - after).abs().max() <= _LARGEST_DIFFERENCE * before.abs().max())
    return all(_alike(one, other) for one, other in zip(before, after, strict=True))
