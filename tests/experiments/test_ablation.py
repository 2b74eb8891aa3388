"""How the variants differ, whose seeds each AffinityNet learns from, and how a walk is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.runner import Line
from engine.config import MapKind
from engine.presets import preset
from engine.step import Step
from experiments import ablation
from experiments.finished_run import FinishedRun
from jobs import make_seeds
from tune import search

TRUTH = {"dev": "dev", "held": "held"}


def study_of(name: str, folder: Path) -> ablation.Study:
    run = FinishedRun(
        folder=folder / "run", data="m.csv", truth="all", settings=preset("small"), class_names=("cat", "dog")
    )
    return ablation.Study.of(run, name, TRUTH, folder / "out")


def test_every_variant_can_be_built_and_no_two_are_the_same(tmp_path: Path) -> None:
    made = []
    for name, variant in ablation.VARIANTS.items():
        settings = study_of(name, tmp_path).settings
        made.append(
            (variant.network, settings, variant.authors_pairs, variant.seeds_of, variant.start, variant.ignore_borders)
        )
    assert all(one not in made[:place] for place, one in enumerate(made))
    assert {variant.network for variant in ablation.VARIANTS.values()} == set(ablation.LINES)


def test_affinitynet_learns_from_the_seeds_of_the_run(tmp_path: Path) -> None:
    study = study_of("radius-8", tmp_path)
    assert ablation.seeds_of(study) == str(tmp_path / "run" / "seeds")


@pytest.mark.parametrize(("name", "kind"), [("stride-4", "cam"), ("second-seeds", "segmentation")])
def test_other_grids_and_rounds_get_their_own_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: MapKind
) -> None:
    made: list[make_seeds.MakeSeeds] = []
    searched: list[search.Search] = []

    def search_run(config: search.Search) -> dict[str, Any]:
        searched.append(config)
        found = {"seed": {"alpha_low": 4.0, "alpha_high": 16.0}, "later_walk": {"alpha": 3.0}}
        return {"settings": found}

    monkeypatch.setattr(make_seeds, "run", made.append)
    monkeypatch.setattr(search, "run", search_run)
    study = study_of(name, tmp_path)
    out = ablation.seeds_of(study)
    (config,) = made
    assert config.out == out
    assert config.cam == study.run.location(ablation.NETWORKS[kind])
    seed = config.settings.seed
    if kind == "cam":
        assert not searched
        assert seed.grid_stride == 4
    else:
        assert searched[0].truth == "dev"
        assert searched[0].settings.later_walk.num_steps == 0
        assert (seed.alpha_low, seed.alpha_high) == (4.0, 16.0)
        assert config.settings.later_walk == study.settings.later_walk


@pytest.mark.parametrize(("name", "num_steps"), [("radius-8", 0), ("authors-pairs", 1)])
def test_walk_is_chosen_on_dev_and_scored_on_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, num_steps: int
) -> None:
    asked: list[tuple[search.Search, int]] = []
    rows = {
        "dev": [(2.0, 8.0, 64, 0.6), (4.0, 8.0, 64, 0.7)],
        "held": [(2.0, 8.0, 16, 0.9), (4.0, 8.0, 64, 0.65)],
    }

    def rows_of(config: search.Search, steps: Sequence[Step] = ()) -> list[Line]:
        asked.append((config, len(steps)))
        return [dict(zip(("alpha", "beta", "num_steps", "miou"), row, strict=True)) for row in rows[config.truth]]

    monkeypatch.setattr(ablation, "rows_of", rows_of)
    study = study_of(name, tmp_path)
    line = study.line_of("walk", study.search_of("cam", study.out, affinity="affinity"))
    assert line == {"masks": "walk", "alpha": 4.0, "beta": 8.0, "num_steps": 64, "dev": 70.0, "held": 65.0}
    assert [(config.truth, config.alphas) for config, _ in asked] == [("dev", ablation.ALPHAS["cam"]), ("held", (4.0,))]
    assert {count for _, count in asked} == {num_steps}
    radius = study.settings.affinity.radius
    assert {config.settings.walk.radius for config, _ in asked} == {radius}
