"""What the experiments' objectives leave out, against the authors' loop and the default objectives."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from engine.fitting.objectives import Objective
from engine.imaging.codecs import decode_map, encode_map
from engine.ops.affinity import half_plane_offsets
from engine.ops.losses import affinity_terms
from engine.presets import preset
from engine.records import Batch
from experiments import objectives

RADIUS, IGNORE = 5, 255
WEIGHT = torch.ones(2)


def pairs_of_psa(h: int, w: int) -> set[tuple[int, int]]:
    """Flat first and second cells, as ``get_indices_of_pairs`` of psa (tool/imutils.py of 2018) lists them."""
    offsets = [(0, x) for x in range(1, RADIUS)]
    offsets += [(y, x) for y in range(1, RADIUS) for x in range(-RADIUS + 1, RADIUS) if y * y + x * x < RADIUS * RADIUS]
    margin = RADIUS - 1
    found = set()
    for y in range(h - margin):
        for x in range(margin, w - margin):
            found |= {(y * w + x, (y + dy) * w + x + dx) for dy, dx in offsets}
    return found


@pytest.mark.parametrize(("h", "w"), [(12, 15), (9, 9), (40, 31)])
def test_pairs_are_those_of_the_authors(h: int, w: int) -> None:
    rows, columns = objectives.margin_free(h, w, RADIUS)
    cells = torch.arange(h * w).view(h, w)[rows, columns].flatten().tolist()
    ours = {(cell, cell + dy * w + dx) for cell in cells for dy, dx in half_plane_offsets(RADIUS)}
    assert ours == pairs_of_psa(h, w)


def test_small_grid_has_no_pair() -> None:
    seed = torch.zeros(1, 8, 8, dtype=torch.int32)
    sums, counts = objectives.margin_free_terms(torch.rand(1, 4, 8, 8), seed, WEIGHT, radius=RADIUS, ignore=IGNORE)
    assert not sums.any()
    assert not counts.any()


def test_loss_without_margin_counts_fewer_pairs_and_each_as_much() -> None:
    seed = torch.zeros(2, 20, 20, dtype=torch.int32)
    features = torch.zeros(2, 4, 20, 20)
    sums, counts = objectives.without_margin(preset("small").affinity, ("dog",)).terms(features, seed, WEIGHT)
    all_sums, all_counts = affinity_terms(features, seed, radius=RADIUS, ignore=IGNORE)
    assert int(counts[1]) == 2 * len(pairs_of_psa(20, 20)) < int(all_counts[1])
    torch.testing.assert_close(sums[1] / counts[1], all_sums[1] / all_counts[1])


def test_other_networks_keep_their_objective_without_margin() -> None:
    logits, tags = torch.tensor([[0.5], [2.0]]), torch.tensor([[1.0], [0.0]])
    own, usual = (make(preset("small").cam, ("dog",)) for make in (objectives.without_margin, Objective.of))
    torch.testing.assert_close(own.terms(logits, tags, WEIGHT), usual.terms(logits, tags, WEIGHT))


def test_walk_without_margin_keeps_the_affinities_of_the_authors_pairs() -> None:
    distances = np.random.default_rng(0).random((len(half_plane_offsets(RADIUS)), 12, 15)).astype(np.float32)
    stored = encode_map(distances)
    batch: Batch = {"distances": [stored, None], "error": [None, "decode: broken"]}
    (dropped, missing) = objectives.drop_margin(RADIUS).build()(batch)["distances"]
    found = decode_map(dropped)
    kept = np.isfinite(found)
    assert kept.sum() == len(pairs_of_psa(12, 15))
    np.testing.assert_array_equal(found[kept], decode_map(stored)[kept])
    assert missing is None


def test_band_leaves_out_what_is_near_another_class() -> None:
    mask = torch.zeros(1, 5, 12, dtype=torch.int64)
    mask[..., 6:] = 3
    banded = objectives.border_free(mask, 2, IGNORE)
    assert banded[0, 0].tolist() == [0] * 5 + [IGNORE] * 2 + [3] * 5
    assert torch.equal(objectives.border_free(mask, 1, IGNORE), mask)
    whole = torch.full((1, 4, 4), 3)
    assert torch.equal(objectives.border_free(whole, 3, IGNORE), whole)


def test_pixels_along_borders_are_not_in_the_loss_that_workers_receive() -> None:
    mask = torch.zeros(1, 16, 24, dtype=torch.int64)
    mask[..., 12:] = 1
    sent = pickle.loads(pickle.dumps(objectives.without_borders(preset("small").segmentation, ("dog",))))
    _, counts = sent.terms(torch.zeros(1, 2, 16, 24), mask, torch.ones(1))
    assert float(counts) == 16 * (24 - 2 * (objectives.BAND_PX - 1))
