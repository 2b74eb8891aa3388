"""The three losses against slow loops, and shared among workers."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.ops.affinity import LOSS_EPSILON, balanced_loss
from engine.ops.losses import Terms, affinity_terms, mean_loss, segmentation_terms, tag_terms

RADIUS = 3


def test_tag_loss_is_what_a_slow_loop_finds() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 3, (5, 4)), rng.integers(0, 2, (5, 4))
    total = 0.0
    for row, truth in zip(logits, labels, strict=True):
        for logit, label in zip(row, truth, strict=True):
            probability = 1 / (1 + math.exp(-logit))
            total -= math.log(probability if label else 1 - probability) / 4
    loss = mean_loss(*tag_terms(torch.from_numpy(logits), torch.from_numpy(labels).float()))
    assert float(loss) == pytest.approx(total / 5, rel=1e-5)


def test_segmentation_loss_is_what_a_slow_loop_finds() -> None:
    rng = np.random.default_rng(0)
    logits, mask = rng.normal(0, 3, (2, 3, 4, 5)), rng.integers(0, 3, (2, 4, 5))
    mask[0, :2] = mask[1, 3, 2] = 255
    weight = (0.25, 2.0)
    losses, weights = [], []
    for image in range(2):
        for y in range(4):
            for x in range(5):
                if mask[image, y, x] != 255:
                    scores = np.exp(logits[image, :, y, x])
                    losses.append(-weight[image] * math.log(scores[mask[image, y, x]] / scores.sum()))
                    weights.append(weight[image])
    terms = segmentation_terms(torch.from_numpy(logits), torch.from_numpy(mask), torch.tensor(weight), ignore=255)
    assert float(mean_loss(*terms)) == pytest.approx(sum(losses) / sum(weights), rel=1e-5)


def test_affinity_loss_is_what_a_slow_loop_finds() -> None:
    rng = np.random.default_rng(0)
    features, seed = rng.random((2, 5, 4, 6)), rng.choice([0, 1, 2, 255], (2, 4, 6))
    sets: dict[str, list[float]] = {"foreground": [], "background": [], "negative": []}
    for image in range(2):
        cells = [(y, x) for y in range(4) for x in range(6)]
        for number, (y, x) in enumerate(cells):
            for y2, x2 in cells[number + 1 :]:
                one, other = seed[image, y, x], seed[image, y2, x2]
                if (y - y2) ** 2 + (x - x2) ** 2 >= RADIUS**2 or 255 in (one, other):
                    continue
                affinity = math.exp(-np.abs(features[image, :, y, x] - features[image, :, y2, x2]).mean())
                if one == other:
                    sets["foreground" if one else "background"].append(-math.log(affinity + LOSS_EPSILON))
                else:
                    sets["negative"].append(-math.log(1 + LOSS_EPSILON - affinity))
    weights = {"foreground": 0.25, "background": 0.25, "negative": 0.5}
    expected = sum(weights[name] * np.mean(values) for name, values in sets.items())
    sums, counts = affinity_terms(torch.from_numpy(features), torch.from_numpy(seed), radius=RADIUS, ignore=255)
    assert counts.tolist() == [len(values) for values in sets.values()]
    assert float(balanced_loss(sums, counts)) == pytest.approx(expected, rel=1e-4)


def _tags() -> tuple[Tensor, Tensor]:
    return torch.randn(4, 3), torch.randint(0, 2, (4, 3)).float()


def _masks() -> tuple[Tensor, Tensor]:
    mask = torch.randint(0, 3, (4, 6, 6))
    mask[:2, :5] = 255  # the first half counts far fewer pixels than the second
    return torch.randn(4, 3, 6, 6), mask


def _seeds(first: str) -> tuple[Tensor, Tensor]:
    seed = torch.randint(0, 3, (4, 6, 6))
    if first == "background only":
        seed[:2] = 0  # neither foreground nor negative pairs
    elif first == "nothing sure":
        seed[:2] = 255
    return torch.rand(4, 5, 6, 6), seed


CASES: dict[str, tuple[Callable[[], tuple[Tensor, Tensor]], Callable[..., Terms], Callable[..., Tensor]]] = {
    "tags": (_tags, tag_terms, mean_loss),
    "masks": (
        _masks,
        lambda logits, mask: segmentation_terms(logits, mask, torch.ones(len(mask)), ignore=255),
        mean_loss,
    ),
    **{
        f"seeds, {first}": (
            partial(_seeds, first),
            partial(affinity_terms, radius=RADIUS, ignore=255),
            balanced_loss,
        )
        for first in ("mixed", "background only", "nothing sure")
    },
}


@pytest.mark.parametrize("case", CASES)
def test_two_workers_with_half_a_batch_give_the_gradient_of_one_with_the_whole(case: str) -> None:
    make, terms, combine = CASES[case]
    torch.manual_seed(0)
    inputs, target = make()
    scale = torch.tensor([1.3, 0.7, 2.0, 1.1, 0.4])[: inputs.shape[1]]

    def output(rows: slice, weight: Tensor) -> Terms:
        shape = (1, -1) + (1,) * (inputs.ndim - 2)
        return terms(inputs[rows] * weight.view(shape), target[rows])

    whole = scale.clone().requires_grad_()
    loss = combine(*output(slice(0, 4), whole))
    loss.backward()

    halves = [scale.clone().requires_grad_() for _ in range(2)]
    parts = [output(slice(2 * rank, 2 * rank + 2), weight) for rank, weight in enumerate(halves)]
    counts = sum(part[1] for part in parts)
    shares = [combine(sums, counts) for sums, _ in parts]
    for share in shares:
        share.backward()
    assert sum(share.item() for share in shares) == pytest.approx(loss.item(), rel=1e-5)
    assert whole.grad is not None
    gradient = sum(weight.grad for weight in halves if weight.grad is not None)
    torch.testing.assert_close(gradient, whole.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", ["masks", "seeds, mixed"])
def test_batch_without_anything_to_learn_has_no_loss_and_no_gradient(case: str) -> None:
    make, terms, combine = CASES[case]
    inputs, target = make()
    inputs.requires_grad_()
    loss = combine(*terms(inputs, torch.full_like(target, 255)))
    loss.backward()
    assert float(loss) == 0
    assert inputs.grad is not None
    assert not inputs.grad.any()
