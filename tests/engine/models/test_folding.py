"""Folded networks against the networks that they were."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from engine.models.backbone import Backbone
from engine.models.folding import fold_batch_norms, fold_frozen_batch_norms


def with_random_norms(network: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low in ((module.running_mean, -0.5), (module.running_var, 0.5), (module.weight, 0.5)):
                assert values is not None
                nn.init.uniform_(values, low, low + 1)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return network.eval()


def num_norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@torch.inference_mode()
@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "resnet10t"])
def test_a_folded_backbone_gives_the_same_levels_without_a_batch_norm(name: str) -> None:
    network = with_random_norms(Backbone(name, stride=16))
    picture = torch.randint(0, 256, (2, 3, 80, 64), dtype=torch.uint8)
    expected, folded = network(picture), fold_batch_norms(network)
    assert num_norms(network) > 0
    assert num_norms(folded) == 0
    for level, other in zip(expected, folded(picture), strict=True):
        torch.testing.assert_close(other, level, rtol=1e-3, atol=1e-3 * float(level.abs().max()))


def test_the_bias_of_a_convolution_is_folded_too() -> None:
    network = with_random_norms(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    picture, folded = torch.rand(1, 3, 8, 8), fold_batch_norms(network)
    assert num_norms(folded) == 0
    torch.testing.assert_close(folded(picture), network(picture))


class Twice(nn.Module):
    """A convolution with a norm after its first use alone, so that nothing may be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 1, bias=False)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.convolution(self.norm(self.convolution(images)))
        return result


def test_a_convolution_that_is_used_twice_is_left_alone() -> None:
    network = with_random_norms(Twice())
    assert fold_batch_norms(network) is network
    assert num_norms(network) == 1


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "resnet10t", "tf_efficientnet_lite0"])
def test_frozen_norms_that_act_through_the_weights_change_no_level_no_gradient_and_no_name(name: str) -> None:
    network = Backbone(name, stride=16)
    with_random_norms(network)
    network.freeze_batch_norm()
    network.double().train()
    folded = copy.deepcopy(network)
    fold_frozen_batch_norms(folded)
    copied = copy.deepcopy(folded)  # as the average of the weights is made
    assert sum("forward" in vars(module) for module in folded.modules()) == 2 * num_norms(network)
    picture = torch.randint(0, 256, (2, 3, 64, 48), dtype=torch.uint8)
    expected = network(picture)
    sum(level.square().mean() for level in expected).backward()
    for other in (folded, copied):
        assert list(other.state_dict()) == list(network.state_dict())
        levels = other(picture)
        sum(level.square().mean() for level in levels).backward()
        torch.testing.assert_close(levels, expected)
        for parameter, same in zip(network.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(same.grad, parameter.grad)


def test_frozen_norms_follow_weights_that_are_loaded_later() -> None:
    network = with_random_norms(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    folded = copy.deepcopy(network)
    fold_frozen_batch_norms(folded)
    later = with_random_norms(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    folded.load_state_dict(later.state_dict())
    picture = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(folded(picture), later(picture))


def test_frozen_norms_are_left_alone_where_the_result_would_differ() -> None:
    network = with_random_norms(Twice())
    fold_frozen_batch_norms(network)
    assert not any("forward" in vars(module) for module in network.modules())
