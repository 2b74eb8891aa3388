"""The sweep against the stages of labeling, one configuration at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.config import CrfConfig, WalkConfig
from engine.imaging.codecs import decode_map, decode_mask, encode_map
from engine.ops.cam import normalize_cam, with_background
from engine.ops.metrics import confusion_matrix
from engine.ops.random_walk import refine
from engine.ops.sweep import INTERSECTION, PREDICTED, WalkGrid, grid_counts, mask_counts, pair_distances
from engine.records import Batch
from engine.resources import Decoding, PassConfig
from engine.stages.mask import MakeMask

NUM_CLASSES = 5
RADIUS = 4
SIZE = (90, 77)


def _case(rng_seed: int, num_present: int) -> tuple[Tensor, Tensor, np.ndarray, list[int]]:
    """cam, features, truth and class ids of an image of blobs."""
    generator = torch.Generator().manual_seed(rng_seed)
    cam = torch.nn.functional.interpolate(
        torch.rand(1, max(1, num_present), 4, 4, generator=generator), size=(11, 10), mode="bicubic"
    )[0]
    cam = torch.from_numpy(decode_map(encode_map(normalize_cam(cam).numpy())))[:num_present]
    features = torch.nn.functional.interpolate(torch.randn(1, 8, 5, 5, generator=generator), size=(13, 12))[0]
    rng = np.random.default_rng(rng_seed)
    truth = np.kron(rng.integers(0, NUM_CLASSES + 1, (10, 11)), np.ones((9, 7), dtype=np.int64)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.05] = 255
    return cam, features, truth, (rng.permutation(NUM_CLASSES)[:num_present] + 1).tolist()


def _labeled(cam: Tensor, features: Tensor, class_ids: list[int], walk: WalkConfig) -> np.ndarray:
    """The mask as engine.stages.walk and engine.stages.mask make it."""
    maps = with_background(cam, walk.alpha)
    if walk.num_steps:
        on_grid = torch.nn.functional.interpolate(
            maps[None], size=features.shape[-2:], mode="bilinear", align_corners=False
        )[0]
        maps = refine(
            on_grid,
            features,
            radius=walk.radius,
            beta=walk.beta,
            num_steps=walk.num_steps,
            tolerance=walk.tolerance,
        )
    stage = MakeMask(
        CrfConfig(num_iterations=0),
        walk,
        PassConfig(decoding=Decoding(max_pixels=10**6)),
        num_classes=NUM_CLASSES,
        keep_stages=False,
    )
    batch: Batch = {
        "refined_cam": [encode_map(maps.numpy())],
        "encoded": [b""],
        "class_ids": [class_ids],
        "height": [SIZE[0]],
        "width": [SIZE[1]],
        "error": [None],
    }
    return decode_mask(stage(batch)["mask"][0])


@pytest.mark.parametrize(("rng_seed", "num_present"), [(0, 1), (1, 2), (2, 4)])
def test_counts_are_those_of_the_masks_that_label_makes(rng_seed: int, num_present: int) -> None:
    cam, features, truth, class_ids = _case(rng_seed, num_present)
    grid = WalkGrid(3.5, (0.4, 1.0, 2.5, 9.0), (0, 1, 7, 40, 300), RADIUS, 1e-4)
    distances = torch.from_numpy(decode_map(encode_map(pair_distances(features, RADIUS).numpy())))
    counts = grid_counts(cam, distances, truth, class_ids, grid, num_classes=NUM_CLASSES, ignore=255)
    walk = WalkConfig(beta=grid.beta, radius=RADIUS)
    for i, num_steps in enumerate(grid.steps):
        for j, alpha in enumerate(grid.alphas):
            mask = _labeled(cam, features, class_ids, replace(walk, alpha=alpha, num_steps=num_steps))
            confusion = confusion_matrix(truth, mask, NUM_CLASSES)
            # the affinities are rounded to float16, so a few pixels at a border may fall on its other side
            allowed = 0 if num_steps == 0 else truth.size // 200
            assert np.abs(counts[i, j, INTERSECTION] - np.diagonal(confusion)).max() <= allowed
            assert np.abs(counts[i, j, PREDICTED] - confusion.sum(axis=0)).max() <= allowed


def test_image_without_tags_is_background_in_every_configuration() -> None:
    _, features, truth, _ = _case(3, 1)
    grid = WalkGrid(2.0, (1.0, 2.0), (0, 8), RADIUS, 1e-4)
    distances = pair_distances(features, RADIUS)
    counts = grid_counts(torch.zeros(0, 11, 10), distances, truth, [], grid, num_classes=NUM_CLASSES, ignore=255)
    assert counts.shape == (2, 2, 2, NUM_CLASSES + 1)
    assert (counts[..., PREDICTED, 0] == (truth != 255).sum()).all()
    assert (counts[..., INTERSECTION, 0] == (truth == 0).sum()).all()
    assert counts[..., 1:].sum() == 0


def test_distances_of_pairs_inside_the_grid_give_the_affinities_back() -> None:
    _, features, _, _ = _case(4, 1)
    distances = pair_distances(features, RADIUS)
    beside = (features[:, :, :-1] - features[:, :, 1:]).abs().mean(dim=0)
    assert torch.allclose(distances[0, :, :-1], beside, atol=1e-6)
    assert bool(distances[0, :, -1].isinf().all())


def test_counts_of_a_mask_are_the_diagonal_and_the_columns_of_its_confusion() -> None:
    _, _, truth, _ = _case(5, 1)
    mask = np.roll(np.where(truth == 255, 0, truth), 3, axis=1).astype(np.uint8)
    confusion = confusion_matrix(truth, mask, NUM_CLASSES)
    counts = mask_counts(truth, mask, num_classes=NUM_CLASSES, ignore=255)
    assert counts[INTERSECTION].tolist() == np.diagonal(confusion).tolist()
    assert counts[PREDICTED].tolist() == confusion.sum(axis=0).tolist()
