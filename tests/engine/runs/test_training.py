"""What the three training jobs learn from, and what they say before they train."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.fitting.samples import SampleSource
from engine.presets import preset
from engine.runs.training import split, train, training_paths
from engine.storage.subsets import is_held_out
from jobs import train_cam
from jobs.cli.command import main
from tests.engine.runs.examples import options_for, write_data, write_output
from tests.jobs.small_runs import QUICK, RESOURCES, small_settings, write_settings, write_some_scenes


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
    with pytest.raises(ConfigError, match=r"^val_fraction 0\.001 holds out 0 of 5 images and leaves 5 to learn from"):
        counted(0.0, 0.001)


def test_batch_smaller_than_the_number_of_workers_is_refused(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    options = options_for(data, tmp_path / "out")
    options = replace(options, settings=replace(options.settings, resources=replace(RESOURCES, num_workers=9)))
    made = write_output(tmp_path / "seeds", data, "make_seeds")
    source = SampleSource(manifest="", target="seed", rows_of_shards=(), num_classes=1, max_pixels=1000)
    with pytest.raises(
        ConfigError, match=r"^affinity\.training\.batch_size must be at least resources\.num_workers 9, got 8$"
    ):
        train(options, made, options.settings.affinity, source)


def test_how_a_network_is_used_afterwards_does_not_decide_its_weights() -> None:
    paths = training_paths("cam", preset("tiny").cam)
    assert set(paths) == {"cam.backbone", "cam.weights", "cam.stride", "cam.training", "val_fraction"}


@pytest.mark.slow
def test_images_that_are_not_where_the_manifest_says_are_said_at_once(
    tmp_path: Path, ray_session: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.distributed.cluster._started_here", True)  # on a cluster only its nodes may find them
    data = write_some_scenes(tmp_path / "scenes", 3)
    shutil.rmtree(tmp_path / "scenes" / "images")
    options = [f"--data={data}", f"--out={tmp_path / 'cam'}", f"--config={write_settings(tmp_path, small_settings())}"]
    assert main(train_cam.TrainCam, train_cam.run, [*options, *QUICK]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: --data '{data}': 20 images in a row cannot be used; the last: '{tmp_path}")
    assert said.endswith("does not exist")
