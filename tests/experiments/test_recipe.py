"""What the authors' recipe leaves out, against their loop; which figures it reports."""

from __future__ import annotations

import pytest
import torch

from engine.ops.affinity import half_plane_offsets
from engine.ops.losses import affinity_terms
from engine.presets import preset
from experiments import recipe

RADIUS, IGNORE = 5, 255


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
    rows, columns = recipe.margin_free(h, w, RADIUS)
    cells = torch.arange(h * w).view(h, w)[rows, columns].flatten().tolist()
    ours = {(cell, cell + dy * w + dx) for cell in cells for dy, dx in half_plane_offsets(RADIUS)}
    assert ours == pairs_of_psa(h, w)


def test_small_grid_has_no_pair() -> None:
    rows, columns = recipe.margin_free(8, 8, RADIUS)
    assert torch.zeros(8, 8)[rows, columns].numel() == 0
    sums, counts = recipe.margin_free_terms(
        torch.rand(1, 4, 8, 8), torch.zeros(1, 8, 8, dtype=torch.int32), radius=RADIUS, ignore=IGNORE
    )
    assert not sums.any()
    assert not counts.any()


def test_loss_counts_fewer_pairs_than_ours_and_each_as_much() -> None:
    seed = torch.zeros(2, 20, 20, dtype=torch.int32)
    features = torch.zeros(2, 4, 20, 20)
    sums, counts = recipe.margin_free_terms(features, seed, radius=RADIUS, ignore=IGNORE)
    all_sums, all_counts = affinity_terms(features, seed, radius=RADIUS, ignore=IGNORE)
    assert int(counts[1]) == 2 * len(pairs_of_psa(20, 20)) < int(all_counts[1])
    torch.testing.assert_close(sums[1] / counts[1], all_sums[1] / all_counts[1])


def test_settings_are_the_papers_on_the_small_backbone() -> None:
    settings = recipe.settings_of(preset("paper"), preset("small"), rng_seed=3)
    assert settings.cam.backbone == settings.affinity.backbone == preset("small").cam.backbone
    assert settings.cam.training.num_epochs == 15
    assert settings.cam.training.optimizer == preset("small").cam.training.optimizer == "adamw"
    assert settings.affinity.training.learning_rate == preset("small").affinity.training.learning_rate
    assert settings.cam.training.rng_seed == settings.affinity.training.rng_seed == 3
    assert (settings.walk.alpha, settings.walk.beta, settings.walk.num_steps) == (16, 8, 256)
    assert settings.crf.bilateral_weight == 10


def test_alpha_is_chosen_by_the_rows_of_its_own_kind() -> None:
    rows = [
        {"alpha": 1.0, "num_steps": 256, "crf": False, "miou": 0.6},
        {"alpha": 2.0, "num_steps": 256, "crf": False, "miou": 0.5},
        {"alpha": 2.0, "num_steps": 256, "crf": True, "miou": 0.7},
        {"alpha": 4.0, "num_steps": 0, "crf": False, "miou": 0.9},
    ]
    assert recipe.best_row(rows, num_steps=256, crf=False)["alpha"] == 1.0
    assert recipe.best_row(rows, num_steps=256, crf=True)["alpha"] == 2.0
    assert recipe.row_of(rows, {"alpha": 2.0, "num_steps": 256, "crf": False})["miou"] == 0.5
