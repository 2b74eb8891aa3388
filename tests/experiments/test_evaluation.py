"""What the evaluation of several seeds runs and how it sets their figures beside the recipe's."""

from __future__ import annotations

from pathlib import Path

from engine.storage.manifest import iter_manifest
from experiments import evaluation, quality
from jobs.cli.command import parse
from jobs.run import Run


def test_joined_manifest_keeps_ids_and_so_the_parts_and_finds_the_images(tmp_path: Path) -> None:
    for name, rows in {"own": "a.jpg,cat;dog\nb.jpg,\n", "extra": "c d.jpg,dog\n"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.csv").write_text("image,tags\n" + rows)
    evaluation.write_joined([str(tmp_path / name / "manifest.csv") for name in ("own", "extra")], tmp_path / "both.csv")
    (batch,) = iter_manifest(str(tmp_path / "both.csv"))
    assert batch["image_id"] == ["a.jpg", "b.jpg", "c d.jpg"]
    assert batch["image"] == [
        str(tmp_path / "own" / "a.jpg"),
        str(tmp_path / "own" / "b.jpg"),
        str(tmp_path / "extra" / "c d.jpg"),
    ]
    assert batch["tags"] == [["cat", "dog"], [], ["dog"]]


def test_each_seed_is_that_of_all_three_networks(tmp_path: Path) -> None:
    config = parse(Run, evaluation.run_options("m.csv", "truth", tmp_path, 7, joined=True))
    assert {part.training.rng_seed for part in (config.cam, config.affinity, config.segmentation)} == {7}
    assert config.allow_outside
    assert not parse(Run, evaluation.run_options("m.csv", "truth", tmp_path, 7, joined=False)).allow_outside


def test_recipe_stands_under_the_same_columns() -> None:
    objects = dict.fromkeys(quality.kinds_of_objects(), 50.0)
    ours = quality.lines_of([{"walk": ({"mIoU": 61.0, **objects}, [70.0, 52.0])}], ["dog"])
    found = {"results": [{"stage": "walk", "alpha": 2.0, "seed_alphas": "1, 5", "dev": 55.0, "held": 54.0}]}
    lines = evaluation.filled([*ours, *evaluation.recipe_lines(found, "held")])
    assert [line["mIoU"] for line in lines] == [61.0, 54.0]
    assert lines[0].keys() == lines[1].keys()
    assert lines[1]["stage"] == "authors' recipe: walk (alpha 2)"
    assert lines[1]["dog"] == ""
