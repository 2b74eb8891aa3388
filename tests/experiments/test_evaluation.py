"""The runs of an evaluation, and the recipe's figures beside theirs."""

from __future__ import annotations

from pathlib import Path

from experiments import evaluation, quality
from jobs.cli.command import parse
from jobs.run import Run


def test_each_run_has_its_folder_and_its_seed_in_all_three_networks(tmp_path: Path) -> None:
    options = ["--data", "m.csv", "--out", str(tmp_path), "--walk.alpha", "7"]
    config = evaluation.run_of_seed(parse(Run, options), 3)
    settings = config.settings
    assert {part.training.rng_seed for part in (settings.cam, settings.affinity, settings.segmentation)} == {3}
    assert settings.walk.alpha == 7
    assert config.out == str(tmp_path / "seed-3")


def test_recipe_stands_under_the_same_columns() -> None:
    objects = dict.fromkeys(quality.OBJECTS, 50.0)
    ours = quality.lines_of([{"walk": ({"mIoU": 61.0, **objects}, [70.0, 52.0])}], ("dog",))
    recipe = [{"stage": "walk", "alpha": 2.0, "seed_alphas": "1, 5", "dev": 55.0, "held": 54.0}]
    lines = evaluation.filled([*ours, *evaluation.recipe_lines(recipe, "held")])
    assert [line["mIoU"] for line in lines] == [61.0, 54.0]
    assert lines[0].keys() == lines[1].keys()
    assert lines[1]["stage"] == "authors' recipe: walk (alpha 2)"
    assert lines[1]["dog"] == ""
