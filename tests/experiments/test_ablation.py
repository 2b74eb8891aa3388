"""What the variants differ in, whose seeds each AffinityNet learns from, and what the band leaves out."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from engine.fitting.objectives import Objective
from engine.ops.losses import segmentation_terms
from engine.plain_settings import merged
from engine.presets import preset
from engine.storage.run_record import write_json
from experiments import ablation
from jobs import make_seeds
from tune import search

IGNORE = 255


@pytest.fixture
def place(tmp_path: Path) -> ablation.Place:
    return ablation.Place(
        run=tmp_path / "run",
        out=tmp_path / "out",
        data="m.csv",
        settings=preset("small"),
        preset="small",
        truth={"dev": "dev", "held": "held", "all": "all"},
    )


def test_every_variant_can_be_built_and_no_two_are_the_same() -> None:
    settings = preset("small")
    made = []
    for variant in ablation.VARIANTS.values():
        network = merged(getattr(settings, variant.step), variant.changes, where="variant")
        made.append((network, variant.pairs, variant.maps, variant.start, variant.band))
    assert all(one not in made[:place] for place, one in enumerate(made))
    assert {variant.step for variant in ablation.VARIANTS.values()} == set(ablation.STEP_LINES)


def test_affinitynet_learns_from_the_seeds_of_the_run(place: ablation.Place) -> None:
    assert ablation.seeds_of(place, ablation.FIRST, 8) == str(place.run / "seeds")


@pytest.mark.parametrize(("maps", "stride"), [(ablation.FIRST, 4), (ablation.SECOND, 8)])
def test_other_grids_and_rounds_get_seeds_of_their_own(
    place: ablation.Place, monkeypatch: pytest.MonkeyPatch, maps: str, stride: int
) -> None:
    made: list[Any] = []
    searched: list[Any] = []

    def search_run(config: search.Search) -> None:
        searched.append(config)
        found = {"seed": {"alpha_low": 4.0, "alpha_high": 16.0}, "later_walk": {"alpha": 3.0}}
        write_json(str(Path(config.out, search.BEST)), {"settings": found})

    monkeypatch.setattr(make_seeds, "run", made.append)
    monkeypatch.setattr(search, "run", search_run)
    monkeypatch.setattr(pq, "read_table", lambda _: type("Table", (), {"to_pylist": list}))
    out = ablation.seeds_of(place, maps, stride)
    (config,) = made
    assert config.out == out
    assert config.cam == str(place.run / maps)
    own = replace(place.settings.seed, grid_stride=stride)
    if maps == ablation.FIRST:
        assert not searched
        assert config.seed == own
    else:
        assert searched[0].truth == "dev"
        assert config.seed == replace(own, alpha_low=4.0, alpha_high=16.0)


def test_walk_is_chosen_on_dev_and_scored_on_held(place: ablation.Place, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Any]] = []
    rows = {
        "dev": [(2.0, 8.0, 64, 0.6), (4.0, 8.0, 64, 0.7)],
        "held": [(2.0, 8.0, 16, 0.9), (4.0, 8.0, 64, 0.65)],
    }

    def of_part(_: ablation.Place, part: str, out: Path, **more: Any) -> list[dict[str, Any]]:
        asked.append((part, more))
        return [dict(zip(("alpha", "beta", "num_steps", "miou"), row, strict=True)) for row in rows[part]]

    monkeypatch.setattr(ablation.Place, "search", of_part)
    line = place.chosen("walk", place.out, kind=ablation.FIRST, steps=ablation.STEPS, radius=8)
    assert line == {"masks": "walk", "alpha": 4.0, "beta": 8.0, "num_steps": 64, "dev": 70.0, "held": 65.0}
    assert [part for part, _ in asked] == ["dev", "held"]
    assert asked[1][1]["alphas"] == (4.0,)
    assert {more["walk"].radius for _, more in asked} == {8}


def test_band_leaves_out_what_is_near_another_class() -> None:
    mask = torch.zeros(1, 5, 12, dtype=torch.int64)
    mask[..., 6:] = 3
    banded = ablation.without_borders(mask, 2, IGNORE)
    assert banded[0, 0].tolist() == [0] * 5 + [IGNORE] * 2 + [3] * 5
    assert torch.equal(ablation.without_borders(mask, 1, IGNORE), mask)
    whole = torch.full((1, 4, 4), 3)
    assert torch.equal(ablation.without_borders(whole, 3, IGNORE), whole)


def test_band_is_in_the_loss_that_is_sent_to_the_workers() -> None:
    mask = torch.zeros(1, 16, 24, dtype=torch.int64)
    mask[..., 12:] = 1
    output, weight = torch.zeros(1, 2, 16, 24), torch.ones(1)
    counts = []
    for name in ("segmentation", "border-band"):
        with ablation.loss_of(ablation.VARIANTS[name]):
            terms = Objective.of(preset("small").segmentation, ("dog",)).terms
        counts.append(float(terms(output, mask, weight)[1]))
    assert counts == [16 * 24, 16 * (24 - 2 * (ablation.BAND_PX - 1))]
    after = Objective.of(preset("small").segmentation, ("dog",)).terms
    assert isinstance(after, partial)
    assert after.func is segmentation_terms
