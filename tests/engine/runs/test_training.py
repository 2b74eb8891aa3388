"""What the three training jobs learn from, and what they say before they train."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError, StorageError
from engine.fitting.samples import SampleSource
from engine.presets import preset
from engine.runs import training
from engine.runs.images import ImageSet
from engine.runs.training import split, train, training_paths
from engine.storage.subsets import is_held_out
from jobs import train_affinity, train_cam
from jobs.cli.command import main
from tests.engine.runs.examples import options_for, write_data, write_output
from tests.jobs.small_runs import QUICK, RESOURCES, small_settings, write_settings, write_some_scenes
from tests.without_ray import no_cluster


def test_training_counts_the_images_whose_masks_are_confident(tmp_path: Path) -> None:
    made = write_output(tmp_path / "masks", write_data(tmp_path / "data"), "label")

    def counted(least: float, fraction: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
        source = SampleSource(
            manifest=str(tmp_path / "masks" / ".tag2mask"),
            target="mask",
            shards=str(tmp_path / "masks"),
            rows_of_shards=made.manifest.rows_of_shards,
            num_classes=1,
            min_confidence=least,
            max_pixels=1000,
        )
        source = split(source, made.manifest, fraction)
        return source.rows_of_shards, source.held_out_of_shards

    assert counted(0.0, 0.0) == ((2, 2, 1), ())
    assert counted(0.3, 0.0) == ((0, 2, 1), (0, 0, 0))
    held_out = [is_held_out(f"{number}.png", 0.5) for number in range(5)]
    learned, scored = counted(0.3, 0.5)
    assert sum(scored) == sum(held_out)  # confident or not, what is held out is scored
    assert sum(learned) == sum(not held_out[number] for number in (2, 3, 4))
    with pytest.raises(
        ConfigError, match=r"^segmentation\.min_confidence 0\.9: no mask reaches it; use a lower value$"
    ):
        counted(0.9, 0.0)
    with pytest.raises(ConfigError, match=r"^val_fraction 0\.001 holds out 0 of 5 images and leaves 5 to train on"):
        counted(0.0, 0.001)


def test_batch_smaller_than_the_number_of_workers_is_refused(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    write_output(tmp_path / "seeds", data, "make_seeds")
    settings = replace(preset("tiny"), resources=replace(RESOURCES, num_workers=9))
    seeds, out = str(tmp_path / "seeds"), str(tmp_path / "out")
    with pytest.raises(
        ConfigError, match=r"^affinity\.training\.batch_size must be at least resources\.num_workers 9, got 8$"
    ):
        train_affinity.run(train_affinity.TrainAffinity(data=data, seeds=seeds, out=out, settings=settings))


def test_samples_are_made_of_what_the_claimed_folder_holds(tmp_path: Path) -> None:
    options = options_for(write_data(tmp_path / "data"), tmp_path / "out")
    network = replace(options.settings.affinity, weights="random")

    def samples(**said: Any) -> SampleSource:
        assert said == {
            "manifest": str(tmp_path / "out" / ".tag2mask"),
            "rows_of_shards": (2, 2, 1),
            "num_classes": 1,
            "max_pixels": options.max_pixels,
        }
        raise StorageError("seen")

    made = write_output(tmp_path / "seeds", options.data, "make_seeds")
    with pytest.raises(StorageError, match="seen"):
        train("affinity", options, ImageSet(options), network, samples, inputs={}, made=made)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["job"], record["class_names"]) == ("train_affinity", ["cat"])


def test_how_a_network_is_used_afterwards_does_not_decide_its_weights() -> None:
    paths = training_paths("cam", preset("tiny").cam)
    assert set(paths) == {"cam.backbone", "cam.weights", "cam.stride", "cam.training", "val_fraction"}


def test_images_that_are_not_where_the_manifest_says_are_said_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "connected", no_cluster)  # on a cluster only its nodes may find them
    data = write_some_scenes(tmp_path / "scenes", 3)
    shutil.rmtree(tmp_path / "scenes" / "images")
    options = [f"--data={data}", f"--out={tmp_path / 'cam'}", f"--config={write_settings(tmp_path, small_settings())}"]
    assert main(train_cam.TrainCam, train_cam.run, [*options, *QUICK]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: --data '{data}': 20 images in a row cannot be used; the last: '{tmp_path}")
    assert said.endswith("does not exist")
