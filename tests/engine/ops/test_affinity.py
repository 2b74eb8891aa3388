"""Affinities, their labels and their loss, against loops over all pairs."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.ops.affinity import (
    LOSS_EPSILON,
    affinity_loss_sums,
    affinity_planes,
    balanced_loss,
    half_plane_offsets,
    label_planes,
)

GRIDS = [(1, 1), (1, 7), (2, 2), (3, 40), (8, 8), (9, 5)]
IGNORE = 255


def close_pairs(h: int, w: int, radius: int) -> set[tuple[int, int]]:
    cells = list(itertools.product(range(h), range(w)))
    return {
        (i, j)
        for (i, (y, x)), (j, (v, u)) in itertools.combinations(enumerate(cells), 2)
        if math.hypot(y - v, x - u) < radius
    }


def grid_pairs(h: int, w: int, radius: int) -> Tensor:
    """(2, P) flat cells of every pair inside the grid, by offset, then by first cell."""
    pairs = [
        (y * w + x, (y + dy) * w + x + dx)
        for dy, dx in half_plane_offsets(radius)
        for y, x in itertools.product(range(h), range(w))
        if y + dy < h and 0 <= x + dx < w
    ]
    return torch.tensor(pairs, dtype=torch.int64).view(-1, 2).t()


def pair_affinity(features: Tensor, pairs: Tensor) -> Tensor:
    """The definition, (D, h, w) to (P,): ``exp(-mean_D |f_i - f_j|)``."""
    first, second = features.flatten(1)[:, pairs].unbind(dim=1)
    return (first - second).abs().mean(dim=0).neg().exp()


def pair_label(first: int, second: int) -> int:
    """1 same class, 0 different classes, -1 not sure."""
    return -1 if IGNORE in (first, second) else int(first == second)


def in_pair_order(planes: Tensor, radius: int) -> Tensor:
    """Planes (O, h, w) as (P,), in the order of ``grid_pairs``."""
    _, h, w = planes.shape
    parts = [torch.empty(0, dtype=planes.dtype)]
    for plane, (dy, dx) in zip(planes, half_plane_offsets(radius), strict=True):
        if dy < h and abs(dx) < w:
            parts.append(plane[: h - dy, max(0, -dx) : w - max(0, dx)].flatten())
    return torch.cat(parts)


def test_radius_five_has_the_papers_34_offsets() -> None:
    offsets = half_plane_offsets(5)
    assert len(offsets) == 34
    assert offsets == sorted(offsets)
    assert not set(offsets) & {(-dy, -dx) for dy, dx in offsets}
    assert (0, 5) not in offsets
    assert (3, 4) not in offsets


def test_radius_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="radius must be 1 or more cells, got 0"):
        half_plane_offsets(0)


@pytest.mark.parametrize("radius", [1, 2, 3, 5])
@pytest.mark.parametrize(("h", "w"), GRIDS)
def test_every_close_pair_of_the_grid_is_there_once_border_included(h: int, w: int, radius: int) -> None:
    planes = affinity_planes(torch.zeros(1, 1, h, w), radius)[0]
    pairs = [
        (y * w + x, (y + dy) * w + x + dx)
        for plane, (dy, dx) in zip(planes, half_plane_offsets(radius), strict=True)
        for y, x in plane.nonzero().tolist()
    ]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == close_pairs(h, w, radius)


@pytest.mark.parametrize(("h", "w"), GRIDS)
def test_affinity_agrees_with_a_loop_over_pairs(h: int, w: int) -> None:
    features = torch.randn(2, 6, h, w, dtype=torch.float64)
    pairs = grid_pairs(h, w, 5)
    planes = affinity_planes(features, 5)
    for image, image_planes in zip(features, planes, strict=True):
        cells = image.flatten(1).t()
        loop = [math.exp(-float((cells[i] - cells[j]).abs().mean())) for i, j in pairs.t().tolist()]
        expected = torch.tensor(loop, dtype=torch.float64)
        torch.testing.assert_close(in_pair_order(image_planes, 5), expected)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 6), st.integers(1, 3))
def test_planes_are_zero_outside_the_grid_and_in_zero_to_one_inside(h: int, w: int, radius: int, b: int) -> None:
    planes = affinity_planes(torch.randn(b, 3, h, w), radius)
    for o, (dy, dx) in enumerate(half_plane_offsets(radius)):
        for y, x in itertools.product(range(h), range(w)):
            inside = y + dy < h and 0 <= x + dx < w
            values = planes[:, o, y, x]
            assert ((values > 0) & (values <= 1)).all() if inside else (values == 0).all()


@pytest.mark.parametrize(("h", "w"), [(1, 1), (1, 3), (3, 4)])
def test_gradient_of_the_planes_is_right(h: int, w: int) -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 2, h, w, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: affinity_planes(f, 3), (features,))


def test_gradient_agrees_with_autograd_through_the_pairs() -> None:
    features = torch.randn(3, 5, 6, 7, dtype=torch.float64, requires_grad=True)
    pairs = grid_pairs(6, 7, 5)
    weights = torch.randn(pairs.shape[1], dtype=torch.float64)
    planes = affinity_planes(features, 5)
    torch.stack([(in_pair_order(p, 5) * weights).sum() for p in planes]).sum().backward()
    grad, features.grad = features.grad, None
    torch.stack([(pair_affinity(f, pairs) * weights).sum() for f in features]).sum().backward()
    torch.testing.assert_close(grad, features.grad)


@pytest.mark.parametrize("cache_elements", [1, 84, 420])
def test_blocks_of_images_or_channels_give_the_same_planes_and_gradient(
    cache_elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = torch.randn(3, 5, 6, 7, dtype=torch.float64, requires_grad=True)
    whole = affinity_planes(features, 5)
    (expected,) = torch.autograd.grad(whole.square().sum(), features)
    monkeypatch.setattr("engine.ops.affinity._CACHE_ELEMENTS", cache_elements)
    planes = affinity_planes(features, 5)
    torch.testing.assert_close(planes, whole)
    torch.testing.assert_close(torch.autograd.grad(planes.square().sum(), features)[0], expected)


def test_half_precision_features_are_compared_in_float32() -> None:
    features = torch.randn(1, 64, 6, 6).bfloat16().requires_grad_()
    planes = affinity_planes(features, 5)
    assert planes.dtype == torch.float32
    torch.testing.assert_close(planes, affinity_planes(features.double(), 5).float())
    planes.sum().backward()
    assert features.grad is not None
    assert features.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(("h", "w"), GRIDS)
def test_labels_agree_with_a_loop_over_pairs(h: int, w: int) -> None:
    seed = torch.tensor([0, 0, 1, 7, IGNORE])[torch.randint(0, 5, (2, h, w))]
    pairs = grid_pairs(h, w, 5)
    foreground, background, negative = label_planes(seed, 5, IGNORE)
    for b in range(2):
        labels = torch.tensor([pair_label(*cells) for cells in seed[b].flatten()[pairs].t().tolist()])
        is_background = seed[b].flatten()[pairs[0]] == 0
        assert torch.equal(in_pair_order(foreground[b], 5), (labels == 1) & ~is_background)
        assert torch.equal(in_pair_order(background[b], 5), (labels == 1) & is_background)
        assert torch.equal(in_pair_order(negative[b], 5), labels == 0)
        in_a_set = foreground[b].sum() + background[b].sum() + negative[b].sum()
        assert int(in_a_set) == int((labels >= 0).sum())


def test_seeds_of_eight_bits_are_labeled_like_any_other() -> None:
    seed = torch.tensor([0, 3, IGNORE])[torch.randint(0, 3, (1, 6, 6))]
    for small, large in zip(label_planes(seed.to(torch.uint8), 5, IGNORE), label_planes(seed, 5, IGNORE), strict=True):
        assert torch.equal(small, large)


def test_loss_agrees_with_means_over_the_three_sets() -> None:
    features = torch.randn(2, 4, 7, 6, dtype=torch.float64)
    seed = torch.tensor([0, 1, 2, IGNORE])[torch.randint(0, 4, (2, 7, 6))]
    pairs = grid_pairs(7, 6, 5)
    terms: dict[str, list[float]] = {"foreground": [], "background": [], "negative": []}
    for b in range(2):
        classes = seed[b].flatten()[pairs].t().tolist()
        for a, (first, second) in zip(pair_affinity(features[b], pairs).tolist(), classes, strict=True):
            label = pair_label(first, second)
            if label == 0:
                terms["negative"].append(-math.log(1 + LOSS_EPSILON - a))
            elif label == 1:
                terms["foreground" if first else "background"].append(-math.log(a + LOSS_EPSILON))
    mean = {name: sum(values) / len(values) for name, values in terms.items()}
    sums, counts = affinity_loss_sums(affinity_planes(features, 5), label_planes(seed, 5, IGNORE))
    assert counts.tolist() == [len(values) for values in terms.values()]
    expected = mean["foreground"] / 4 + mean["background"] / 4 + mean["negative"] / 2
    assert float(balanced_loss(sums, counts)) == pytest.approx(expected, rel=1e-9)


def test_an_empty_set_contributes_nothing() -> None:
    planes = affinity_planes(torch.randn(1, 4, 5, 5), 5)
    sums, counts = affinity_loss_sums(planes, label_planes(torch.zeros(1, 5, 5, dtype=torch.int64), 5, IGNORE))
    assert counts.tolist() == [0, grid_pairs(5, 5, 5).shape[1], 0]
    torch.testing.assert_close(balanced_loss(sums, counts), sums[1] / counts[1] / 4)


def test_a_seed_without_a_sure_cell_gives_no_loss_and_no_gradient() -> None:
    features = torch.randn(1, 4, 5, 5, requires_grad=True)
    seed = torch.full((1, 5, 5), IGNORE)
    loss = balanced_loss(*affinity_loss_sums(affinity_planes(features, 5), label_planes(seed, 5, IGNORE)))
    loss.backward()
    assert float(loss.detach()) == 0
    assert features.grad is not None
    assert (features.grad == 0).all()


def test_two_half_batches_add_up_to_the_whole_batch() -> None:
    features = torch.randn(4, 6, 8, 9)
    seed = torch.tensor([0, 1, 2, IGNORE])[torch.randint(0, 4, (4, 8, 9))]
    whole = affinity_loss_sums(affinity_planes(features, 5), label_planes(seed, 5, IGNORE))
    halves = [
        affinity_loss_sums(affinity_planes(features[part], 5), label_planes(seed[part], 5, IGNORE))
        for part in (slice(0, 1), slice(1, 4))
    ]
    sums, counts = (sum(parts) for parts in zip(*halves, strict=True))
    assert isinstance(sums, Tensor)
    assert isinstance(counts, Tensor)
    assert torch.equal(counts, whole[1])
    torch.testing.assert_close(balanced_loss(sums, counts), balanced_loss(*whole))


@pytest.mark.parametrize("spread", [0.0, 1e-4, 1e4])
def test_loss_and_gradient_stay_finite_when_affinities_reach_one_and_zero(spread: float) -> None:
    features = (torch.randn(1, 4, 6, 6) * spread).requires_grad_()
    seed = torch.randint(0, 3, (1, 6, 6))
    loss = balanced_loss(*affinity_loss_sums(affinity_planes(features, 5), label_planes(seed, 5, IGNORE)))
    loss.backward()
    assert features.grad is not None
    assert torch.isfinite(loss)
    assert torch.isfinite(features.grad).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_affinity_loss_on_a_gpu_has_the_value_and_gradient_of_a_processor() -> None:
    seed = torch.tensor([0, 1, 2, IGNORE])[torch.randint(0, 4, (3, 9, 7))]
    features = torch.randn(3, 8, 9, 7)
    results = []
    for device in ("cpu", "cuda"):
        leaf = features.to(device).requires_grad_()
        loss = balanced_loss(*affinity_loss_sums(affinity_planes(leaf, 5), label_planes(seed.to(device), 5, IGNORE)))
        loss.backward()
        assert leaf.grad is not None
        results.append((loss.detach().cpu(), leaf.grad.cpu()))
    torch.testing.assert_close(results[1], results[0])
